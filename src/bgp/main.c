/* `margay bgp`: options, where the configuration comes from, privileges, signals. */
#include "bgp/main.h"

#include "base/log.h"
#include "bgp/ctl.h"
#include "bgp/follow.h"
#include "bgp/nodestatus.h"
#include "bgp/proc.h"

#include <getopt.h>
#include <limits.h>
#include <linux/capability.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

const char bgp_help[] =
    "  --config FILE     projectcalico.org/v3 BGPConfiguration, BGPPeer, BGPFilter, Node and v1\n"
    "                    Secret; read again on SIGHUP, and refused whole if anything is wrong\n"
    "  --datastore URL   follow the datastore instead, as `margay node` has it started\n"
    "  --node-name NAME  which Node is us (NODENAME; default: the host's name)\n"
    "  --check           print what the file means for this node, and end\n"
    "  --no-kernel       speak only: read no routes from the kernel and write none\n"
    "  --run-dir DIR     where bgp.sock is\n";

enum { MMAP_BYTES = 128 << 10 /* glibc's own first choice, before it adapts */ };

struct options {
    const char *config, *datastore, *node_name, *run_dir;
    bool is_check, no_kernel;
};

struct bgp_run {
    struct options o;
    struct loop *loop;
    struct bgp_proc *proc;
    struct bgp_follow *follow;
    struct node_statuses *statuses;
    struct bgp_ctl *ctl;
    int exit_code;
};

static const char *env(const char *name) {
    const char *v = getenv(name);
    return v && v[0] ? v : NULL;
}

/* NODENAME, else HOSTNAME, else the host's name in lower case, as calico/node does. */
static const char *default_name(void) {
    static char buf[256];
    const char *v = env("NODENAME");
    if (v) {
        return v;
    }
    v = env("HOSTNAME");
    if (v) {
        (void)snprintf(buf, sizeof(buf), "%s", v);
    } else if (gethostname(buf, sizeof(buf) - 1) < 0) {
        return "";
    }
    for (char *c = buf; *c; c++) {
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
    }
    return buf;
}

/* Routes and the port are all that is needed from now on; whoever takes the process over gets no
 * more. */
static void drop_privileges(void) {
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[2] = {{0}};
    uint32_t keep = 1U << CAP_NET_ADMIN | 1U << CAP_NET_BIND_SERVICE;
    if (syscall(SYS_capget, &h, d) < 0) {
        return;
    }
    d[0].effective &= keep;
    d[0].permitted &= keep;
    d[0].inheritable = d[1].inheritable = d[1].effective = d[1].permitted = 0;
    for (int c = 0; c <= CAP_LAST_CAP; c++) {
        (void)prctl(PR_CAPBSET_DROP, c, 0, 0, 0); /* without CAP_SETPCAP there is none to drop */
    }
    if (syscall(SYS_capset, &h, d) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        LOG_W("bgp", "privileges_kept", "error=%s", err_name(-errno));
    }
}

static void fill_input(const struct bgp_run *r, struct conf_input *in) {
    const char *id = env("CALICO_ROUTER_ID"), *cidr = env("USE_POD_CIDR");
    in->node_name = str_c(r->o.node_name);
    in->router_id = str_c(id ? id : "");
    in->use_pod_cidr = cidr && strcmp(cidr, "true") == 0;
    in->is_alone = r->o.config != NULL;
}

static struct bgp_conf *read_file(const struct bgp_run *r, struct buf *errors) {
    struct arena a = {0};
    struct object *objects = NULL;
    struct conf_input in = {0};
    struct bgp_conf *c = NULL;
    fill_input(r, &in);
    if (bgp_conf_read(r->o.config, &a, &objects, &in.n_objects, errors) == 0) {
        in.objects = objects;
        c = bgp_conf_build(&in);
        if (!c->has_node) {
            for (size_t i = 0; i < c->n_problems; i++) {
                if (str_starts(c->problems[i], STR("Node "))) {
                    buf_printf(errors, "%s: %.*s: say who we are with --node-name or NODENAME\n",
                               r->o.config, STR_FMT(c->problems[i]));
                }
            }
            bgp_conf_free(c);
            c = NULL;
        }
    }
    arena_fini(&a);
    return c;
}

static void set_level(const struct bgp_conf *c) {
    log_level_set(c->log_level == CONF_LOG_UNSET ? LOG_INFO : (enum log_level)c->log_level);
}

static void on_hup(void *arg, int signum) {
    struct bgp_run *r = arg;
    struct err e;
    MG_CLEANUP(buf_fini) struct buf errors = BUF_INIT(65536);
    (void)signum;
    if (!r->o.config) {
        return; /* the datastore is followed anyway */
    }
    struct bgp_conf *c = read_file(r, &errors);
    if (!c) {
        struct str rest = str_trim(buf_view(&errors));
        while (rest.p) {
            LOG_E("bgp", "configuration_refused", "error=%s", log_quote(str_cut(&rest, '\n')));
        }
        return;
    }
    set_level(c);
    if (bgp_proc_apply(r->proc, c, &e) < 0) {
        LOG_E("bgp", "configuration_failed", "error=%s", log_quote(str_c(e.msg)));
    }
}

static void on_change(void *arg) {
    struct bgp_run *r = arg;
    struct conf_input in = {0};
    struct err e;
    fill_input(r, &in);
    bgp_follow_input(r->follow, &in);
    struct bgp_conf *c = bgp_conf_build(&in);
    if (!c->has_node && !bgp_proc_conf(r->proc)) {
        LOG_I("bgp", "waiting", "for=%s", log_quote(c->n_problems ? c->problems[0] : STR("")));
        bgp_conf_free(c);
        return;
    }
    set_level(c);
    if (bgp_proc_apply(r->proc, c, &e) < 0) {
        LOG_E("bgp", "configuration_failed", "error=%s", log_quote(str_c(e.msg)));
        r->exit_code = 1; /* the port is taken: who started us tries again */
        loop_stop(r->loop);
    }
}

static void on_status(void *arg, struct str key, const struct jnode *doc) {
    struct bgp_run *r = arg;
    node_statuses_see(r->statuses, key, doc);
}

static void on_term(void *arg, int signum) {
    struct bgp_run *r = arg;
    LOG_I("bgp", "stopping", "signal=%d", signum);
    loop_stop(r->loop);
}

static int check(const struct bgp_run *r) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(64U << 20);
    struct bgp_conf *c = read_file(r, &b);
    if (!c) {
        fprintf(stderr, "%s", buf_cstr(&b));
        return 1;
    }
    bgp_conf_print(c, &b);
    fwrite(b.p, 1, b.n, stdout);
    bgp_conf_free(c);
    return 0;
}

static int start(struct bgp_run *r, struct err *e) {
    struct bgp_proc_options po = {.is_alone = r->o.config != NULL, .no_kernel = r->o.no_kernel};
    static const struct bgp_follow_ops follow_ops = {on_change, on_status};
    MG_CLEANUP(buf_fini) struct buf errors = BUF_INIT(65536);
    struct bgp_conf *c = NULL;
    if (r->o.config) {
        c = read_file(r, &errors);
        if (!c) {
            fprintf(stderr, "%s", buf_cstr(&errors));
            return err_set(e, ERR_INVALID, "the configuration is refused");
        }
        set_level(c);
    }
    int rc = bgp_proc_new(r->loop, &po, &r->proc, e);
    if (rc < 0) {
        bgp_conf_free(c);
        return rc;
    }
    rc = bgp_ctl_new(r->loop, r->proc, r->o.run_dir, &r->ctl, e);
    if (rc < 0) {
        bgp_conf_free(c);
        return rc;
    }
    if (c) {
        rc = bgp_proc_apply(r->proc, c, e);
    } else {
        r->statuses = node_statuses_new(r->loop, r->proc, r->o.datastore, r->o.node_name);
        r->follow = bgp_follow_new(r->loop, r->o.datastore, r->o.node_name, &follow_ops, r);
    }
    return rc;
}

static int run(struct bgp_run *r) {
    struct err e = {0};
    if (r->o.is_check) {
        return check(r);
    }
    r->loop = loop_new();
    int rc = start(r, &e);
    if (rc == 0) {
        drop_privileges();
        loop_signal(r->loop, SIGHUP, on_hup, r);
        loop_signal(r->loop, SIGTERM, on_term, r);
        loop_signal(r->loop, SIGINT, on_term, r);
        loop_run(r->loop);
    } else {
        fprintf(stderr, "margay bgp: %s\n", e.msg);
        r->exit_code = 1;
    }
    bgp_ctl_free(r->ctl);
    bgp_follow_free(r->follow);
    node_statuses_free(r->statuses);
    bgp_proc_free(r->proc);
    loop_free(r->loop);
    return r->exit_code;
}

static int usage(const char *what, const char *found) {
    fprintf(stderr, "margay bgp: %s%s\nusage: margay bgp --config FILE | --datastore URL\n%s", what,
            found, bgp_help);
    return 2;
}

int bgp_main(int argc, char **argv) {
    static const struct option longs[] = {
        {"config", required_argument, NULL, 'c'},
        {"datastore", required_argument, NULL, 'd'},
        {"node-name", required_argument, NULL, 'n'},
        {"run-dir", required_argument, NULL, 'r'},
        {"check", no_argument, NULL, 'k'},
        {"no-kernel", no_argument, NULL, 'K'},
        {NULL, 0, NULL, 0},
    };
    struct bgp_run r = {.o = {.datastore = env("MARGAY_DATASTORE"),
                              .run_dir = env("MARGAY_RUN_DIR"),
                              .node_name = default_name()}};
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        switch (c) {
        case 'c':
            r.o.config = optarg;
            break;
        case 'd':
            r.o.datastore = optarg;
            break;
        case 'n':
            r.o.node_name = optarg;
            break;
        case 'r':
            r.o.run_dir = optarg;
            break;
        case 'k':
            r.o.is_check = true;
            break;
        case 'K':
            r.o.no_kernel = true;
            break;
        default:
            return usage("this option is not known", "");
        }
    }
    if (optind < argc) {
        return usage("found an argument, expected none: ", argv[optind]);
    }
    if (!r.o.run_dir) {
        const char *state = env("MARGAY_STATE_DIR");
        r.o.run_dir = state ? state : "/run/margay";
    }
    if (!r.o.config && (!r.o.datastore || r.o.is_check)) {
        return usage("give a file with --config FILE, or a datastore with --datastore URL", "");
    }
    if (!r.o.node_name[0] || strlen(r.o.node_name) > 253) {
        return usage("there is no usable node name; give one with --node-name", "");
    }
    (void)signal(SIGPIPE, SIG_IGN);
    /* Tables that grow are copied: what was the old one goes back to the system, always. */
    (void)mallopt(M_MMAP_THRESHOLD, MMAP_BYTES);
    return run(&r);
}
