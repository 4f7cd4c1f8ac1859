/* The backends by name, and the addresses of their servers. */
#include "confd/backend.h"

#include "base/buf.h"

#include <arpa/nameser.h>
#include <resolv.h>
#include <stdio.h>
#include <unistd.h>

static const struct {
    const char *name;
    const struct backend_ops *ops; /* NULL: not built */
    const char *why;
} backends[] = {
    {"env", &backend_env, NULL},
    {"file", &backend_file, NULL},
    {"etcd", &backend_etcd, NULL},
    {"etcdv3", &backend_etcd, NULL},
    {"redis", &backend_redis, NULL},
    {"zookeeper", &backend_zookeeper, NULL},
    {"calico", &backend_store, NULL},
    {"margay", &backend_store, NULL},
    {"sqlite", &backend_store, NULL},
    {"kubernetes", &backend_store, NULL},
    {"consul", NULL, "Debian has no C client of Consul"},
    {"vault", NULL, "Debian has no C client of Vault"},
    {"dynamodb", NULL, "Debian has no C client of DynamoDB"},
    {"ssm", NULL, "Debian has no C client of AWS' Parameter Store"},
    {"rancher", NULL, "Rancher's metadata service has no C client, and ended with Rancher 1"},
};

const struct backend_ops *backend_find(const struct confd_options *o, struct err *e) {
    struct buf b = BUF_INIT(512);
    for (size_t i = 0; i < ARRAY_LEN(backends); i++) {
        if (strcmp(o->backend, backends[i].name) == 0) {
            buf_fini(&b);
            if (!backends[i].ops) {
                (void)err_set(e, ERR_INVALID,
                              "-backend %s is not built: %s; export its keys to a file and use "
                              "-backend file, or move them to etcd, redis or zookeeper",
                              o->backend, backends[i].why);
            }
            return backends[i].ops;
        }
        if (backends[i].ops) {
            buf_printf(&b, "%s%s", b.n ? ", " : "", backends[i].name);
        }
    }
    (void)err_set(e, ERR_INVALID, "-backend: found \"%.100s\", allowed are %s", o->backend,
                  buf_cstr(&b));
    buf_fini(&b);
    return NULL;
}

const char *confd_node_name(const struct confd_options *o, struct arena *a) {
    const char *v = o->node_name;
    char host[256] = "";
    if (!v || !v[0]) {
        v = getenv("NODENAME");
    }
    if (v && v[0]) {
        return v;
    }
    v = getenv("HOSTNAME");
    if (!v || !v[0]) {
        (void)gethostname(host, sizeof(host) - 1);
        v = host;
    }
    char *out = (char *)(uintptr_t)arena_cstr(a, str_c(v));
    for (char *c = out; *c; c++) {
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
    }
    return out;
}

/* Nodes that the SRV records of a name list. */
static int nodes_of_record(struct confd_options *o, const char *record, struct arena *a,
                           struct err *e) {
    static unsigned char answer[65536];
    ns_msg msg;
    int len = res_search(record, ns_c_in, ns_t_srv, answer, sizeof(answer));
    if (len < 0 || len > (int)sizeof(answer) || ns_initparse(answer, len, &msg) < 0) {
        return err_set(e, ERR_UNAVAILABLE,
                       "no SRV records of %s: check -srv-record and -srv-domain", record);
    }
    o->nodes.n = 0;
    for (int i = 0; i < ns_msg_count(msg, ns_s_an) && o->nodes.n < CONFD_LIST_MAX; i++) {
        ns_rr rr;
        char target[NS_MAXDNAME];
        if (ns_parserr(&msg, ns_s_an, i, &rr) < 0 || ns_rr_type(rr) != ns_t_srv ||
            ns_rr_rdlen(rr) < 7 ||
            ns_name_uncompress(ns_msg_base(msg), ns_msg_end(msg), ns_rr_rdata(rr) + 6, target,
                               sizeof(target)) < 0) {
            continue;
        }
        bool has_scheme = strncmp(o->backend, "etcd", 4) == 0;
        o->nodes.p[o->nodes.n++] =
            arena_printf(a, "%s%s%s:%u", has_scheme ? o->scheme : "", has_scheme ? "://" : "",
                         target, (unsigned)ns_get16(ns_rr_rdata(rr) + 4))
                .p;
    }
    return o->nodes.n ? 0
                      : err_set(e, ERR_UNAVAILABLE,
                                "no SRV records of %s: check -srv-record and -srv-domain", record);
}

int backend_nodes(struct confd_options *o, struct arena *a, struct err *e) {
    const char *record = o->srv_record;
    if ((!record || !record[0]) && o->srv_domain && o->srv_domain[0]) {
        record = arena_printf(a, "_%s._tcp.%s.", o->backend, o->srv_domain).p;
    }
    if (record && record[0] && strcmp(o->backend, "env") != 0) {
        return nodes_of_record(o, record, a, e);
    }
    if (o->nodes.n > 0) {
        return 0;
    }
    const char *peers = getenv("ETCDCTL_PEERS");
    if (strcmp(o->backend, "etcd") == 0 && peers && peers[0]) {
        struct str rest = str_c(peers);
        while (rest.p && o->nodes.n < CONFD_LIST_MAX) {
            o->nodes.p[o->nodes.n++] = arena_cstr(a, str_cut(&rest, ','));
        }
    } else if (strncmp(o->backend, "etcd", 4) == 0) {
        o->nodes.p[o->nodes.n++] = "127.0.0.1:2379";
    } else if (strcmp(o->backend, "redis") == 0) {
        o->nodes.p[o->nodes.n++] = "127.0.0.1:6379";
    } else if (strcmp(o->backend, "zookeeper") == 0) {
        o->nodes.p[o->nodes.n++] = "127.0.0.1:2181";
    }
    return 0;
}
