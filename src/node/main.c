/* `margay node`: options, environment, and the run. */
#include "node/node.h"

#include "base/log.h"
#include "store/store.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void usage(FILE *f) {
    fputs(
        "usage: margay node [--node-name NAME] [--state-dir DIR] [--run-dir DIR]\n"
        "                   [--datastore URL] [--config FILE]\n"
        "\n"
        "The agent: answers the CNI plugin, programs routes and policy of this network namespace.\n"
        "Runs in the foreground; SIGTERM stops it and leaves the kernel as it is.\n"
        "\n"
        "  --node-name NAME  name of this node (NODENAME; default: the host's name)\n"
        "  --state-dir DIR   default /var/lib/margay (MARGAY_STATE_DIR)\n"
        "  --run-dir DIR     where agent.sock is; default /run/margay, or the state dir if given\n"
        "  --datastore URL   default sqlite:STATE_DIR/margay.db (MARGAY_DATASTORE; "
        "DATASTORE_TYPE,\n"
        "                    ETCD_ENDPOINTS … as with Calico); etcd:http://HOST:PORT[,…],\n"
        "                    kubernetes:[KUBECONFIG][?context=NAME]\n"
        "  --config FILE     default /etc/margay/margay.yaml\n"
        "\n"
        "Felix' settings are taken from FELIX_…, the file, and FelixConfiguration, in this\n"
        "order; margay help --docs settings lists them. CALICO_MANAGE_CNI=true keeps the token in\n"
        "margay-kubeconfig valid (docs/kubernetes.md).\n"
        "\n"
        "examples:\n"
        "  margay node --node-name pi\n"
        "  margay node --datastore etcd:http://10.0.0.1:2379,http://10.0.0.2:2379\n"
        "  FELIX_HEALTHENABLED=true margay node --state-dir /tmp/try\n",
        f);
}

static const char *env_or(const char *name, const char *deflt) {
    const char *v = getenv(name);
    return v && v[0] ? v : deflt;
}

/* NODENAME as given, else HOSTNAME, else the host's name in lower case, as calico/node does. */
static const char *node_name(char *buf, size_t n) {
    const char *v = env_or("NODENAME", NULL);
    if (v) {
        return v;
    }
    v = env_or("HOSTNAME", NULL);
    if (v) {
        snprintf(buf, n, "%s", v);
    } else if (gethostname(buf, n - 1) < 0) {
        return NULL;
    }
    for (char *c = buf; *c; c++) {
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
    }
    return buf;
}

int node_main(int argc, char **argv) {
    static const struct option longs[] = {
        {"node-name", required_argument, NULL, 'n'},
        {"state-dir", required_argument, NULL, 's'},
        {"run-dir", required_argument, NULL, 'r'},
        {"datastore", required_argument, NULL, 'd'},
        {"config", required_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    char name[256] = "", db[PATH_MAX + 16];
    struct node_options o = {.state_dir = env_or("MARGAY_STATE_DIR", NULL),
                             .run_dir = env_or("MARGAY_RUN_DIR", NULL),
                             .datastore = store_url_from_env(),
                             .config_file = "/etc/margay/margay.yaml"};
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "h", longs, NULL)) != -1;) {
        switch (c) {
        case 'n':
            o.node_name = optarg;
            break;
        case 's':
            o.state_dir = optarg;
            break;
        case 'r':
            o.run_dir = optarg;
            break;
        case 'd':
            o.datastore = optarg;
            break;
        case 'c':
            o.config_file = optarg;
            break;
        case 'h':
            usage(stdout);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "margay node: found argument \"%s\", expected none\n", argv[optind]);
        return 2;
    }
    if (!o.run_dir) {
        o.run_dir = o.state_dir ? o.state_dir : "/run/margay";
    }
    if (!o.state_dir) {
        o.state_dir = "/var/lib/margay";
    }
    if (!o.datastore) {
        snprintf(db, sizeof(db), "sqlite:%s/margay.db", o.state_dir);
        o.datastore = db;
    }
    if (!o.node_name) {
        o.node_name = node_name(name, sizeof(name));
    }
    if (!o.node_name || !o.node_name[0] || strlen(o.node_name) > 253) {
        fputs("margay node: no usable node name; give one with --node-name\n", stderr);
        return 2;
    }
    struct node *n = NULL;
    struct err e;
    if (node_new(&o, &n, &e) < 0) {
        fprintf(stderr, "margay node: %s\n", e.msg);
        return 1;
    }
    node_run(n);
    node_free(n);
    return 0;
}
