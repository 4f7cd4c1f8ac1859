/* margay: finds the command, takes global flags off, prints help and man pages from the one table.
 */
#include "cli/cli.h"

#include "confd/confd.h"
#include "controllers/controllers.h"
#include "node/node.h"
#include "policy/selector.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FILE_FLAGS                                                              \
    "  -f FILE|DIR|-     documents in YAML or JSON; a folder; standard input\n" \
    "  -R, --recursive   folders below, too\n"                                  \
    "  -n NAMESPACE      of documents that name none (default: default)\n"

const struct cli_command cli_commands[] = {
    {"node", "[--node-name NAME]", "run the agent", NULL, node_main},
    {"controllers", "[--source URL]", "run what is done once for a cluster",
     "As Calico's kube-controllers: addresses that nobody uses any more are collected, gone nodes\n"
     "cleaned up, Services of type LoadBalancer given addresses, host endpoints made; with etcd "
     "as\n"
     "datastore, Kubernetes' policies, namespaces, accounts and pods' labels copied to it.\n"
     "Runs in the foreground until SIGTERM. Several may run: one works, elected by a Lease.\n\n"
     "  --source URL        where Kubernetes' objects are, if not in the datastore "
     "(MARGAY_SOURCE;\n"
     "                      with etcd the default is kubernetes:KUBECONFIG)\n"
     "  --status-file FILE  written every ten seconds (default /status/status.json if /status is\n"
     "                      there)\n\n"
     "KubeControllersConfiguration default says what runs; over it stand ENABLED_CONTROLLERS "
     "(node,\n"
     "policy, workloadendpoint, serviceaccount, namespace, loadbalancer), RECONCILER_PERIOD,\n"
     "SYNC_NODE_LABELS, AUTO_HOST_ENDPOINTS, HEALTH_ENABLED, COMPACTION_PERIOD, LOG_LEVEL. "
     "Metrics\n"
     "and probes are on prometheusMetricsPort (9094): /metrics, /liveness, /readiness.\n\n"
     "examples:\n  margay controllers --datastore kubernetes:\n"
     "  ENABLED_CONTROLLERS=node,policy,namespace margay controllers \\\n"
     "    --datastore etcd:https://10.0.0.1:2379 --source kubernetes:/etc/kubernetes/admin.conf\n",
     controllers_main},
    {"confd", "[FLAGS]", "keep files rendered from templates and a datastore", NULL, confd_main},
    {"apply", "-f FILE|DIR|-", "create objects or change them to what a file says",
     FILE_FLAGS "  --dry-run=client  check the documents, without a store\n\n"
                "Each document stands alone: a bad one is reported with file, line and field, the\n"
                "others are applied; exit code 1 then.\n\n"
                "examples:\n  margay apply -f policies/\n"
                "  margay apply --dry-run=client -f policy.yaml\n",
     cmd_apply},
    {"create", "-f FILE|DIR|-", "create objects that are not there yet",
     FILE_FLAGS "\nAn object that is there already is an error and stays as it is.\n\n"
                "example: margay create -f pool.yaml\n",
     cmd_create},
    {"replace", "-f FILE|DIR|-", "replace objects that are there",
     FILE_FLAGS "\nA resourceVersion in the document is a condition.\n\n"
                "example: margay get ippool default-ipv4-ippool -o yaml | margay replace -f -\n",
     cmd_replace},
    {"delete", "KIND NAME… | -f FILE|DIR|-", "delete objects",
     FILE_FLAGS
     "  --ignore-not-found\n\n"
     "examples:\n  margay delete networkpolicy web -n prod\n  margay delete -f policies/\n",
     cmd_delete},
    {"get", "KIND[,KIND] [NAME…]", "show objects",
     "  -n NAMESPACE, -A  one namespace (default: default), or all\n"
     "  -l SELECTOR       by labels: app=web,tier!=db,'env in (a,b)',!canary\n"
     "  -o FORMAT         table, wide, yaml, json, name, jsonpath=…, custom-columns=…\n"
     "  -w                go on with changes\n"
     "  --show-labels, --no-headers\n\n"
     "A kind that Kubernetes and Calico both have is Kubernetes'; Calico's is np, or\n"
     "networkpolicies.projectcalico.org.\n\n"
     "examples:\n  margay get networkpolicies -A\n  margay get ippools -o wide\n"
     "  margay get pods -n prod -o jsonpath='{.items[*].metadata.name}'\n",
     cmd_get},
    {"patch", "KIND NAME -p PATCH", "change parts of an object",
     "  -p PATCH          JSON or YAML\n"
     "  --type TYPE       merge (default; RFC 7396), json (RFC 6902), strategic (as merge)\n"
     "  -n NAMESPACE\n\n"
     "example: margay patch ippool default-ipv4-ippool -p '{\"spec\":{\"natOutgoing\":false}}'\n",
     cmd_patch},
    {"label", "KIND NAME… KEY=VALUE|KEY-…", "set or remove labels",
     "  --overwrite       change values that are there\n  -n NAMESPACE\n\n"
     "examples:\n  margay label pod web -n prod tier=front\n  margay label pod web -n prod tier-\n",
     cmd_label},
    {"annotate", "KIND NAME… KEY=VALUE|KEY-…", "set or remove annotations",
     "  --overwrite       change values that are there\n  -n NAMESPACE\n\n"
     "example: margay annotate namespace prod cni.projectcalico.org/ipv4pools='[\"fast\"]'\n",
     cmd_annotate},
    {"status", "[--wait]", "how the agent is; wait until all is in the kernel",
     "  --wait            until everything written before this call is enforced on this node\n"
     "  --timeout TIME    of --wait (default 30s)\n  -o json|yaml|jsonpath=…\n\n"
     "Exit code: 0 healthy, 1 degraded (or not in time), 2 no agent.\n\n"
     "example: margay apply -f policy.yaml && margay status --wait\n",
     cmd_status},
    {"pod", "add|exec|del|list NAMESPACE/NAME", "pods for people without a runtime",
     "  add NS/NAME       a network namespace, an address and the policy that applies\n"
     "    --label K=V     any number of times\n"
     "    --netns PATH    take this namespace instead of making one\n"
     "    --port N=P/TCP  a named port\n    --service-account NAME\n"
     "    --cni-bin DIR   where margay-cni is\n"
     "  exec NS/NAME -- COMMAND   run in the pod's network namespace\n"
     "  del NS/NAME       take it away again; what --netns gave stays\n"
     "  list              pods made by this command\n\n"
     "examples:\n  margay pod add demo/web --label app=web\n"
     "  margay pod exec demo/web -- ip address\n  margay pod del demo/web\n",
     cmd_pod},
    {"ipam", "show|check|repair|release|configure|split",
     "addresses: who has which, whether the books agree, and mending them",
     "  show              per pool; exit code 1 when --ip is not assigned\n"
     "    --show-blocks   per block, too\n"
     "    --ip=ADDRESS    who has it\n"
     "    --show-borrowed addresses that a node has out of another's block\n"
     "    --show-configuration   the settings\n"
     "    -o json|yaml|jsonpath=…\n"
     "  check             blocks, handles and affinities against each other, and addresses\n"
     "                    against who uses them: leaked (allocated, and nobody has it), foreign\n"
     "                    (used, and not allocated), double (two have it). Exit code 1: some are\n"
     "    --show-all-ips, --show-problem-ips   -o FILE  a report as JSON\n"
     "  repair            mends what check finds, if it finds it twice, two seconds apart;\n"
     "                    no address in use changes. Exit code 1: something is left\n"
     "    --dry-run       says what it would do\n"
     "  release --ip=ADDRESS            give one back, whoever has it\n"
     "  release --from-report=FILE      the leaked ones of a report, as far as they have not\n"
     "                    changed; the datastore must be locked, or --force\n"
     "  configure         --strictaffinity=true|false  --max-blocks-per-host=N\n"
     "                    --auto-allocate-blocks=true|false  --ip-cooldown-seconds=0…1200\n"
     "                    --kubevirt-ip-persistence=Enabled|Disabled\n"
     "  split N --cidr=CIDR|--name=POOL   one pool into N (2, 4, 8 …), named split-POOL-0 …;\n"
     "                    addresses stay; the datastore must be locked, or --force\n\n"
     "examples:\n  margay ipam show --show-blocks\n  margay ipam check -o report.json\n"
     "  margay ipam repair --dry-run\n"
     "  margay datastore lock && margay ipam split 4 --name=default-ipv4-ippool &&\n"
     "    margay datastore unlock\n",
     cmd_ipam},
    {"bgp", "--config FILE | status|routes|explain PREFIX|…", "the BGP speaker, and what it knows",
     "  --config FILE     run alone, configured by projectcalico.org/v3 BGPConfiguration,\n"
     "                    BGPPeer, BGPFilter, Node and v1 Secret; read again on SIGHUP, and\n"
     "                    refused whole if anything is wrong\n"
     "  --datastore URL   run and follow the datastore, as the agent has it started\n"
     "  --node-name NAME  which Node is us (NODENAME; default: the host's name)\n"
     "  --check           with --config: print what it means for this node, and end\n"
     "  --no-kernel       speak only: read no routes from the kernel and write none\n\n"
     "  status            sessions: state, since when, why not, prefixes in and out.\n"
     "                    Exit code: 0 all are up, 1 some are not, 2 no speaker\n"
     "  routes            the table, * best, = used beside it; --family IPv4|IPv6\n"
     "    --sent-to PEER  what is announced to a peer\n"
     "  explain PREFIX    each path and why it lost; to whom it is announced, and which rule\n"
     "                    decides; --peer PEER\n"
     "  metrics           Prometheus' text\n"
     "  dump [FILE]       the table as MRT records (RFC 6396)\n"
     "  reset PEER        end the session and begin anew\n"
     "  refresh PEER      ask for its routes again, and send ours again\n"
     "  -o json|yaml|jsonpath=…\n\n"
     "examples:\n  margay bgp --config router.yaml --node-name a\n"
     "  margay bgp status\n  margay bgp explain 10.65.0.20/32\n",
     cmd_bgp},
    {"datastore", "export|import|lock|unlock", "move everything from one store to another",
     "  export            all resources and addresses to standard output\n"
     "  import -f FILE    what export wrote (-f -: standard input); what is there already with\n"
     "                    another content is an error and stays, unless --overwrite is given\n"
     "    --dry-run       only count\n"
     "  lock              ClusterInformation default, datastoreReady: false: agents and Calico's\n"
     "                    components give out no address and take none back\n"
     "  unlock\n\n"
     "Pods' endpoints and profiles that a cluster derives from its own objects are left to it.\n\n"
     "examples:\n"
     "  margay datastore lock\n"
     "  margay datastore export --datastore etcd:http://10.0.0.1:2379 > all\n"
     "  margay datastore import --datastore kubernetes: -f all && margay datastore unlock\n",
     cmd_datastore},
    {"convert", "-f FILE|DIR|-", "Kubernetes' objects as the Calico resources that they amount to",
     FILE_FLAGS
     "  -o yaml|json\n\n"
     "NetworkPolicy becomes NetworkPolicy knp.default.NAME, Namespace and ServiceAccount become\n"
     "Profiles; Calico's own resources pass through. No store is asked.\n\n"
     "example: margay convert -f policies/ > calico.yaml\n",
     cmd_convert},
    {"explain", "SRC -> DST PROTOCOL/PORT",
     "would a connection be let through, and which rule decides",
     "SRC and DST are NAMESPACE/POD or an address; PROTOCOL/PORT is tcp/80, udp/53, sctp/9 or "
     "icmp.\n\n"
     "Answered for a new connection by the calculation that programs the kernel, from what the\n"
     "store has now: each policy on the way, each of its rules, and why it does not match.\n"
     "Quote the arrow, or leave it out.\n\n"
     "  -f FILE|DIR       objects of files instead of the store's\n"
     "  -o json|yaml|jsonpath=…\n\n"
     "Exit code: 0 allowed, 1 denied, 2 unknown.\n\n"
     "examples:\n  margay explain prod/web '->' prod/db tcp/5432\n"
     "  margay explain 192.0.2.7 prod/web tcp/80\n",
     cmd_explain},
    {"policy", "list|show|for-pod|matrix|lint|counters",
     "what policies there are, what they say and what they do",
     "  list               all policies in order of evaluation, and how many pods each selects\n"
     "  show [POLICY]      each rule as a sentence; --counters: and what it matched\n"
     "  for-pod NS/POD     its tiers, policies and rules in both directions\n"
     "  matrix             who may reach whom; --port tcp/80; by namespace if pods are many\n"
     "  lint               did I write what I meant? Exit code: 0 nothing found, 1 something\n"
     "  counters [POLICY]  packets and bytes that each rule matched, of policies that select\n"
     "                     a pod of this node\n"
     "  -n NAMESPACE       of list and matrix\n"
     "  -f FILE|DIR        objects of files instead of the store's; their pods get addresses\n"
     "  -o json|yaml|jsonpath=…\n\n"
     "POLICY is KIND/NAMESPACE/NAME or the end of it.\n"
     "Counted is a connection's first packet, since later ones need no rule; from when the\n"
     "rule was last written. What staged policies would match is counted, too.\n\n"
     "examples:\n  margay policy for-pod prod/web\n"
     "  margay policy matrix -f manifests/ --port tcp/5432\n"
     "  margay policy show prod/web --counters\n",
     cmd_policy},
    {"install", "[--takeover] [--watch]", "write what a container runtime needs to call Margay",
     "Copies margay-cni and margay-ipam, writes margay-kubeconfig (in a pod, from its service\n"
     "account), waits for the agent, and writes 10-margay.conflist. Each file appears whole or "
     "not\n"
     "at all; what is right already stays. The folders are those of kubeadm and k0s\n"
     "(/etc/cni/net.d, /opt/cni/bin), k3s or microk8s, whichever the host has.\n\n"
     "  --takeover        set aside another CNI's file that comes before ours; without it such a\n"
     "                    file is an error. Ours is there before the other one goes\n"
     "  --watch           stay: write the kubeconfig again when the token changes, and what\n"
     "                    is lost\n"
     "  --wait SECONDS    for the agent (default 60; 0: do not wait)\n"
     "  --port-mappings own|chained\n"
     "                    host ports by Margay itself, or by the plugin portmap (default: chained\n"
     "                    where there is a portmap)\n"
     "  --network-config FILE\n"
     "                    a conflist instead of ours; __CNI_MTU__, __KUBECONFIG_FILEPATH__ and\n"
     "                    Calico's other words are filled in (CNI_NETWORK_CONFIG_FILE,\n"
     "                    CNI_NETWORK_CONFIG)\n"
     "  --cni-net-dir DIR, --cni-bin-dir DIR\n"
     "                    instead of what is found (CNI_NET_DIR, CNI_BIN_DIR)\n"
     "  --root DIR        where the host's file system is, in a container\n"
     "  --from DIR        where the programs are (default: beside this one, /usr/lib/margay)\n"
     "  --token-dir DIR   of the service account\n"
     "  --dry-run         only say what would be done\n\n"
     "CNI_CONF_NAME, KUBECONFIG_FILE_NAME, CNI_MTU, LOG_LEVEL and SKIP_TLS_VERIFY mean what they\n"
     "mean to Calico's install-cni.\n\n"
     "examples:\n  margay install --dry-run\n  margay install --takeover --root /host --watch\n",
     cmd_install},
    {"uninstall", "[--dry-run]", "take away all that install and the agent have left",
     "Another CNI's files that install had set aside are put back, then go ours, pods' interfaces\n"
     "and tunnel devices, routes and rules of protocol 80, the table inet margay, the state "
     "folder.\n"
     "Settings of the kernel that the agent has changed are set back. The agent must be "
     "stopped.\n\n"
     "  --force           also while pods still have their network from here\n"
     "  --keep-state      leave the state folder (with the embedded store)\n"
     "  --cni-net-dir DIR, --cni-bin-dir DIR, --root DIR\n"
     "                    as with install\n"
     "  --dry-run         only say what would be done\n\n"
     "FELIX_INTERFACEPREFIX names pods' interfaces, if it is not cali.\n\n"
     "example: margay uninstall --dry-run\n",
     cmd_uninstall},
    {"selector", "parse|match SELECTOR [LABELS]", "try Calico's selector language",
     "  parse SELECTOR             the canonical form, or the error and where it is\n"
     "  match SELECTOR k=v,k2=v2   exit code 0: matches, 1: does not\n\n"
     "example: margay selector match \"app in {'web','api'} && !has(canary)\" app=web\n",
     cmd_selector},
    {"version", "", "versions of this program and of the agent", "example: margay version\n",
     cmd_version},
    {"completion", "bash|zsh|fish", "completion for a shell",
     "examples:\n  source <(margay completion bash)\n"
     "  margay completion bash > /etc/bash_completion.d/margay\n",
     cmd_completion},
    {"help", "[COMMAND]", "this list, or help on a command",
     "  --docs WHAT       the reference in Markdown: a kind (ippools), settings, index\n"
     "  --man [COMMAND]   a man page\n\n"
     "examples:\n  margay help apply\n  margay help --docs globalnetworkpolicies\n"
     "  margay help --man pod | man -l -\n",
     cmd_help},
    {NULL, NULL, NULL, NULL, NULL},
};

static const char global_help[] =
    "  --state-dir DIR   default /var/lib/margay (MARGAY_STATE_DIR)\n"
    "  --run-dir DIR     where agent.sock is; default /run/margay, or the state dir if given\n"
    "  --datastore URL   default: the agent's; sqlite:PATH, etcd:http://HOST:PORT[,…],\n"
    "                    kubernetes:[KUBECONFIG][?context=NAME] (MARGAY_DATASTORE; "
    "DATASTORE_TYPE,\n"
    "                    ETCD_ENDPOINTS, KUBECONFIG … as with Calico)\n";

const struct cli_command *cli_find(const char *name) {
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        if (strcmp(c->name, name) == 0) {
            return c;
        }
    }
    return NULL;
}

static void print_list(FILE *f) {
    fputs("Margay: Kubernetes pod networking and network policy.\n\n"
          "usage: margay COMMAND [OPTIONS]\n\n",
          f);
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        fprintf(f, "  %-12s %s\n", c->name, c->summary);
    }
    fprintf(f,
            "\nOptions of all commands:\n%s\n"
            "Exit code: 0 done; 1 failed, or no where a command asks; 2 wrong usage.\n\n"
            "Begin with:\n"
            "    margay node &                                  the agent (root)\n"
            "    margay pod add default/web --label app=web     a pod without a runtime\n"
            "    margay status                                  is all well?\n\n"
            "Help on a command: margay COMMAND --help\n",
            global_help);
}

static void print_help(const struct cli_command *c) {
    if (!c->help) {
        char *argv[] = {(char *)(uintptr_t)c->name, (char *)(uintptr_t) "--help", NULL};
        (void)c->run(2, argv);
        return;
    }
    printf("usage: margay %s %s\n\n%s.\n", c->name, c->args, c->summary);
    if (c->help[0]) {
        printf("\n%s", c->help);
    }
}

/* roff: a line may not begin with . or ', backslashes are doubled. */
static void roff(const char *text) {
    bool start = true;
    for (const char *p = text; *p; p++) {
        if (start && (*p == '.' || *p == '\'')) {
            fputs("\\&", stdout);
        }
        fputs(*p == '\\' ? "\\e" : (char[]){*p, 0}, stdout);
        start = *p == '\n';
    }
}

static void print_man(const struct cli_command *c) {
    if (!c) {
        puts(".TH MARGAY 1\n.SH NAME\nmargay \\- Kubernetes pod networking and network policy\n"
             ".SH SYNOPSIS\n.B margay\nCOMMAND [OPTIONS]\n.SH COMMANDS");
        for (c = cli_commands; c->name; c++) {
            printf(".TP\n.B %s\n", c->name);
            roff(c->summary);
            putchar('\n');
        }
        puts(".SH OPTIONS\n.nf");
        roff(global_help);
        puts(".fi\n.SH EXIT STATUS\n0 done; 1 failed, or no where a command asks; 2 wrong usage.");
        return;
    }
    printf(".TH MARGAY-%s 1\n.SH NAME\nmargay-%s \\- ", c->name, c->name);
    roff(c->summary);
    printf("\n.SH SYNOPSIS\n.B margay %s\n", c->name);
    roff(c->args);
    puts("\n.SH DESCRIPTION\n.nf");
    fflush(stdout);
    if (!c->help) {
        print_help(c);
    } else {
        roff(c->help);
    }
    puts(".fi\n.SH SEE ALSO\n.BR margay (1)");
}

int cmd_help(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--man") == 0) {
        print_man(argc > 2 ? cli_find(argv[2]) : NULL);
        return 0;
    }
    if (argc > 2 && strcmp(argv[1], "--docs") == 0) {
        return cli_docs(argv[2]);
    }
    if (argc < 2) {
        print_list(stdout);
        return 0;
    }
    const struct cli_command *c = cli_find(argv[1]);
    if (!c) {
        return cli_usage("help", "there is no command \"%s\"", argv[1]);
    }
    print_help(c);
    return 0;
}

/* Takes "--flag VALUE" or "--flag=VALUE" out of argv. -1: the value is missing. */
static int take_flag(int *argc, char **argv, int i, const char *flag, const char **out) {
    size_t n = strlen(flag);
    if (strncmp(argv[i], flag, n) != 0 || (argv[i][n] != 0 && argv[i][n] != '=')) {
        return 0;
    }
    int used = argv[i][n] == '=' ? 1 : 2;
    if (i + used > *argc) {
        return -1;
    }
    *out = used == 1 ? argv[i] + n + 1 : argv[i + 1];
    for (int k = i; k + used <= *argc; k++) {
        argv[k] = argv[k + used];
    }
    *argc -= used;
    return 1;
}

static int take_globals(int *argc, char **argv) {
    static const struct {
        const char *flag;
        const char **out;
    } flags[] = {{"--state-dir", &cli_globals.state_dir},
                 {"--run-dir", &cli_globals.run_dir},
                 {"--datastore", &cli_globals.datastore}};
    for (int i = 1; i < *argc && strcmp(argv[i], "--") != 0;) {
        int r = 0;
        for (size_t k = 0; k < ARRAY_LEN(flags) && r == 0; k++) {
            r = take_flag(argc, argv, i, flags[k].flag, flags[k].out);
            if (r < 0) {
                fprintf(stderr, "margay: %s needs a value\n", flags[k].flag);
                return -1;
            }
        }
        i += r == 0;
    }
    return 0;
}

static int check_selector(struct str text, struct err *e) {
    struct arena a = {0};
    const struct selector *s = NULL;
    int r = selector_parse(text, SELECTOR_MAX_BYTES, &a, &s, e);
    arena_fini(&a);
    return r;
}

int main(int argc, char **argv) {
    (void)signal(SIGPIPE, SIG_IGN);
    model_set_selector_check(check_selector);
    if (take_globals(&argc, argv) < 0) {
        return 2;
    }
    /* The agent reads the same places. */
    if (cli_globals.state_dir) {
        setenv("MARGAY_STATE_DIR", cli_globals.state_dir, 1);
    }
    if (cli_globals.run_dir) {
        setenv("MARGAY_RUN_DIR", cli_globals.run_dir, 1);
    }
    if (cli_globals.datastore) {
        setenv("MARGAY_DATASTORE", cli_globals.datastore, 1);
    }
    if (argc < 2) {
        print_list(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_list(stdout);
        return 0;
    }
    const struct cli_command *c = cli_find(strcmp(argv[1], "--version") == 0 ? "version" : argv[1]);
    if (!c) {
        fprintf(stderr, "margay: there is no command \"%s\"\nSee: margay --help\n", argv[1]);
        return 2;
    }
    for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(c);
            return 0;
        }
    }
    int rc = c->run(argc - 1, argv + 1);
    if (fflush(stdout) == EOF && rc == 0) {
        return cli_error("writing the output failed");
    }
    return rc;
}
