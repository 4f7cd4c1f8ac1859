/* What a runtime hands to the CNI server: network configuration, CNI_ARGS, results of IPAM plugins
 * and request frames, from any bytes: no crash, limits kept, and every result that is accepted can
 * be printed in every version. */
/* The parts under test, without what they don't call. */
#include "cni/server_conf.c"
#include "cni/server_result.c"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(bool ok) {
    if (!ok) {
        abort();
    }
}

static void try_conf(struct str text, struct arena *a) {
    struct cni_conf c;
    struct cni_fail f = {0};
    if (cni_conf_read(text, a, &c, &f) < 0) {
        check(f.code > 0 && f.msg[0]);
        return;
    }
    check(c.name.n > 0 && c.name.n <= 200 && c.version < ARRAY_LEN(cni_versions));
    check(c.n_ips <= CNI_MAX_IPS && c.labels.n <= CNI_MAX_LABELS && c.pools_v4.n <= CNI_MAX_POOLS);
    check(c.mtu == 0 || (c.mtu >= 68 && c.mtu <= 65535));
    check(c.policy_timeout_ms > 0);
    for (size_t i = 1; i < c.labels.n; i++) {
        check(str_cmp(c.labels.p[i - 1].key, c.labels.p[i].key) < 0);
    }
}

static void try_args(struct str text, struct arena *a) {
    struct cni_args args;
    struct cni_fail f = {0};
    if (cni_args_read(text, a, &args, &f) < 0) {
        check(f.code > 0 && f.msg[0]);
        return;
    }
    check(str_find(args.ns, '/', 0) < 0 && str_find(args.pod, '/', 0) < 0);
    check(args.ns.n <= 253 && args.pod.n <= 253);
}

static void try_result(struct str text) {
    struct cni_server s = {0};
    struct cni_request r = {.s = &s};
    struct cni_fail f = {0};
    r.conf.name = STR("n");
    r.conf.ipam_type = STR("t");
    r.strings[WIRE_IFNAME] = STR("eth0");
    if (cni_read_ipam_result(&r, text, &f) == 0) {
        check(r.n_nets > 0 && r.n_nets <= CNI_MAX_IPS);
        r.conf.prev_result = r.ipam_result;
        for (unsigned v = 0; v < ARRAY_LEN(cni_versions); v++) {
            struct buf b = BUF_INIT(4U << 20);
            struct jnode *doc = NULL;
            r.conf.version = v;
            cni_result(&r, STR("02:00:00:00:00:01"), &b);
            check(!b.overflow);
            check(json_parse(buf_view(&b), &json_limits_default, &r.arena, &doc, NULL) == 0);
            buf_reset(&b);
            cni_ipam_result(&r, &b);
            buf_fini(&b);
        }
    } else {
        check(f.code > 0 && f.msg[0]);
    }
    arena_fini(&r.arena);
}

static void try_wire(const uint8_t *p, size_t n) {
    struct wire_cursor c = {p, n};
    const uint8_t *s;
    size_t len, sum = 0;
    uint32_t v;
    (void)!wire_take_u32(&c, &v);
    while (wire_take_str(&c, WIRE_TEXT_MAX, &s, &len) == 0) {
        check(s + len <= p + n);
        sum += 4 + len;
    }
    check(sum <= n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct arena a = {0};
    if (n == 0) {
        return 0;
    }
    struct str text = str_n((const char *)data + 1, n - 1);
    switch (data[0] % 4) {
    case 0:
        try_conf(text, &a);
        break;
    case 1:
        try_args(text, &a);
        break;
    case 2:
        try_result(text);
        break;
    default:
        try_wire(data + 1, n - 1);
    }
    arena_fini(&a);
    return 0;
}
