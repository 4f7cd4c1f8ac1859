/* What the kernel says over netlink, from any bytes: links, addresses, routes, neighbours, and
 * nf_tables read back. The first byte chooses who listens. */
#include "netlink/monitor.c"
#include "netlink/nft_sock.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static size_t n_told; /* keeps the compiler from leaving things out */

static void told(const void *p, size_t size) {
    for (size_t i = 0; i < size; i++) {
        n_told += ((const uint8_t *)p)[i];
    }
}
static void told_str(struct str s) {
    told(s.p, s.n);
}

static void on_link(void *arg MG_UNUSED, const struct link *l, bool is_gone MG_UNUSED) {
    told(l, sizeof(*l));
    n_told += strlen(l->name) + strlen(l->kind);
}
static void on_addr(void *arg MG_UNUSED, const struct addr *a, bool is_gone MG_UNUSED) {
    told(a, sizeof(*a));
}
static void on_route(void *arg MG_UNUSED, const struct route *r, bool is_gone MG_UNUSED) {
    told(r, sizeof(*r));
}
static void on_neigh(void *arg MG_UNUSED, const struct neigh *x, bool is_gone MG_UNUSED) {
    told(x, sizeof(*x));
}
static void on_netconf(void *arg MG_UNUSED, const struct nl_netconf *c) {
    told(c, sizeof(*c));
}

static void on_nft_table(void *arg MG_UNUSED) {
    n_told++;
}
static void on_nft_chain(void *arg MG_UNUSED, struct str name, const struct nft_hook *hook) {
    told_str(name);
    n_told += hook->type ? strlen(hook->type) : 0;
}
static void on_nft_rule(void *arg MG_UNUSED, struct str chain, const struct nft_rule_read *r) {
    told_str(chain);
    told_str(r->comment);
    n_told += r->hash + r->count.packets;
}
static void on_nft_set(void *arg MG_UNUSED, const struct nft_set *s) {
    told_str(s->name);
    n_told += nft_set_key_len(s);
}
static void on_nft_elem(void *arg MG_UNUSED, struct str set, const struct nft_elem_read *e) {
    told_str(set);
    told_str(e->key);
    told_str(e->chain);
    n_told += e->count.bytes;
}

static void listen_route(const struct nlmsghdr *h, int left) {
    static const struct nl_monitor_ops ops = {.on_link = on_link,
                                              .on_addr = on_addr,
                                              .on_route = on_route,
                                              .on_neigh = on_neigh,
                                              .on_netconf = on_netconf};
    static struct nl_monitor m;
    m.ops = &ops;
    for (; nl_msg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
        tell(&m, h);
    }
}

static void listen_nft(const struct nlmsghdr *h, int left) {
    static const struct nft_read_ops ops = {on_nft_table, on_nft_chain, on_nft_rule, on_nft_set,
                                            on_nft_elem};
    struct reader r = {.ops = &ops, .table = STR("margay"), .set = STR("s")};
    for (; nl_msg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
        on_msg(&r, h);
    }
    for (size_t i = 0; i < r.sets.n; i++) {
        on_nft_set(NULL, &r.sets.p[i]);
        free((char *)(uintptr_t)r.sets.p[i].name.p);
    }
    free(r.sets.p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1 + sizeof(struct nlmsghdr)) {
        return 0;
    }
    /* Exactly as long as what came, and aligned as messages are. */
    struct nlmsghdr *h = malloc(n - 1);
    if (h) {
        memcpy(h, data + 1, n - 1);
        (*data ? listen_nft : listen_route)(h, (int)n - 1);
        free(h);
    }
    return 0;
}
