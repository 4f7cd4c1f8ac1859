/* Removal of tracked connections by address (nfnetlink ctnetlink). See conntrack.h. The kernel
 * walks its whole hash table for each question, some 10 ms even if it is all but empty. So it is
 * read once and looked through here; only of a large table one or two addresses are asked for by
 * filter, four walks for each, which the kernel applies (5.8 and later). */
#include "netlink/conntrack.h"

#include "base/fd.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stdlib.h>
#include <sys/socket.h>

#define FILTERED_MAX 2
#define READ_WHOLE_MAX 20000 /* entries: reading them costs about as much as the other walks */
/* The kernel's own names for these are not in its exported headers. */
#define FILTER_IP_SRC (1U << 0)
#define FILTER_IP_DST (1U << 1)
#define FILTER_ORIG 1 /* CTA_FILTER_ORIG_FLAGS */
#define FILTER_REPLY 2
#define COUNT_PATH "/proc/sys/net/netfilter/nf_conntrack_count"

struct conntrack {
    struct nl *nl, *del;
};

static size_t add(struct nl *nl, uint8_t type, uint8_t family) {
    struct nfgenmsg g = {.nfgen_family = family, .version = NFNETLINK_V0};
    return nl_add(nl, (uint16_t)((NFNL_SUBSYS_CTNETLINK << 8) | type), 0, &g, sizeof(g));
}

/* One place where an address can stand in an entry. */
struct place {
    uint16_t tuple, attr_v4, attr_v6;
    uint32_t orig_flags, reply_flags;
};

static const struct place places[] = {
    {CTA_TUPLE_ORIG, CTA_IP_V4_SRC, CTA_IP_V6_SRC, FILTER_IP_SRC, 0},
    {CTA_TUPLE_ORIG, CTA_IP_V4_DST, CTA_IP_V6_DST, FILTER_IP_DST, 0},
    {CTA_TUPLE_REPLY, CTA_IP_V4_SRC, CTA_IP_V6_SRC, 0, FILTER_IP_SRC},
    {CTA_TUPLE_REPLY, CTA_IP_V4_DST, CTA_IP_V6_DST, 0, FILTER_IP_DST},
};

struct found {
    const struct ip46 *ips;
    size_t n_ips;
    struct nl *del;
    size_t n;
};

static bool has_ip(const struct found *f, const struct ip46 *ip) {
    for (size_t i = 0; i < f->n_ips; i++) {
        if (ip_eq(ip, &f->ips[i])) {
            return true;
        }
    }
    return false;
}

static bool is_wanted(const struct found *f, uint8_t family, const struct nlattr *a) {
    struct ip46 ip = {.family = family};
    const void *p = nl_attr_data(a, ip_bytes(&ip));
    if (!p) {
        return false;
    }
    memcpy(ip.b, p, ip_bytes(&ip));
    return has_ip(f, &ip);
}

/* Carries out the removals so far. An entry that was found at two places, or ended by itself
 * meanwhile, answers -ENOENT. */
static int delete_found(struct found *f, struct err *e) {
    size_t n = nl_pending(f->del);
    int r = nl_exchange(f->del, e);
    for (size_t i = 0; r == 0 && i < n; i++) {
        f->n += nl_code(f->del, i) == 0;
    }
    return r;
}

/* The entry's removal goes to those that are sent together. */
static int queue_delete(struct found *f, uint8_t af, const struct nlattr **tb) {
    const struct nlattr *orig = tb[CTA_TUPLE_ORIG];
    if (!orig || (af != AF_INET && af != AF_INET6)) {
        return 0;
    }
    /* The id makes sure that a new connection between the same ends is left alone. */
    (void)add(f->del, IPCTNL_MSG_CT_DELETE, af);
    nl_put(f->del, CTA_TUPLE_ORIG | NLA_F_NESTED, nl_attr_data(orig, 0), nl_attr_bytes(orig));
    if (tb[CTA_ID]) {
        nl_put(f->del, CTA_ID, nl_attr_data(tb[CTA_ID], 0), nl_attr_bytes(tb[CTA_ID]));
    }
    if (tb[CTA_ZONE]) {
        nl_put(f->del, CTA_ZONE, nl_attr_data(tb[CTA_ZONE], 0), nl_attr_bytes(tb[CTA_ZONE]));
    }
    if (nl_pending(f->del) >= 4096) {
        return delete_found(f, NULL);
    }
    return 0;
}

static int on_entry(void *arg, const struct nlmsghdr *h) {
    struct found *f = arg;
    const struct nlattr *tb[CTA_ZONE + 1], *tuple[CTA_TUPLE_IP + 1], *ip[CTA_IP_V6_DST + 1];
    uint8_t af = ((const uint8_t *)h)[NLMSG_HDRLEN];
    uint8_t family = af == AF_INET ? IP_V4 : IP_V6;
    nl_attrs(h, sizeof(struct nfgenmsg), tb, CTA_ZONE);
    bool hit = false;
    for (size_t i = 0; i < ARRAY_LEN(places) && !hit; i++) {
        nl_attrs_nested(tb[places[i].tuple], tuple, CTA_TUPLE_IP);
        nl_attrs_nested(tuple[CTA_TUPLE_IP], ip, CTA_IP_V6_DST);
        hit = is_wanted(f, family, ip[family == IP_V4 ? places[i].attr_v4 : places[i].attr_v6]);
    }
    return hit ? queue_delete(f, af, tb) : 0;
}

/* ---- listing ---- */

struct listing {
    const struct found *wanted;
    struct conn *p;
    size_t n, cap;
};

static bool read_ip(const struct nlattr *a, struct ip46 *ip) {
    const void *p = nl_attr_data(a, ip_bytes(ip));
    if (p) {
        memcpy(ip->b, p, ip_bytes(ip));
    }
    return p != NULL;
}

static uint16_t read_port(const struct nlattr *a) {
    uint16_t v = 0;
    const void *p = nl_attr_data(a, sizeof(v));
    if (p) {
        memcpy(&v, p, sizeof(v));
    }
    return ntohs(v);
}

/* The ends of an entry; false: not understood. */
static bool read_conn(const struct nlmsghdr *h, struct conn *c) {
    const struct nlattr *tb[CTA_ZONE + 1], *tuple[CTA_TUPLE_PROTO + 1], *ip[CTA_IP_V6_DST + 1];
    const struct nlattr *proto[CTA_PROTO_ICMPV6_CODE + 1];
    uint8_t af = ((const uint8_t *)h)[NLMSG_HDRLEN];
    *c = (struct conn){.sport = 0};
    c->src.family = c->dst.family = af == AF_INET ? IP_V4 : IP_V6;
    bool is_v4 = af == AF_INET;
    nl_attrs(h, sizeof(struct nfgenmsg), tb, CTA_ZONE);
    const struct nlattr *orig = tb[CTA_TUPLE_ORIG];
    if ((af != AF_INET && af != AF_INET6) || !orig || nl_attr_bytes(orig) > sizeof(c->orig)) {
        return false;
    }
    c->orig_bytes = (uint8_t)nl_attr_bytes(orig);
    memcpy(c->orig, nl_attr_data(orig, 0), c->orig_bytes);
    c->has_id = tb[CTA_ID] != NULL;
    c->id = nl_attr_u32(tb[CTA_ID], 0);
    c->has_zone = nl_attr_data(tb[CTA_ZONE], sizeof(c->zone)) != NULL;
    if (c->has_zone) {
        memcpy(&c->zone, nl_attr_data(tb[CTA_ZONE], sizeof(c->zone)), sizeof(c->zone));
    }
    nl_attrs_nested(orig, tuple, CTA_TUPLE_PROTO);
    nl_attrs_nested(tuple[CTA_TUPLE_IP], ip, CTA_IP_V6_DST);
    bool ok = read_ip(ip[is_v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC], &c->src);
    nl_attrs_nested(tuple[CTA_TUPLE_PROTO], proto, CTA_PROTO_ICMPV6_CODE);
    c->protocol = nl_attr_u8(proto[CTA_PROTO_NUM], 0);
    c->sport = read_port(proto[CTA_PROTO_SRC_PORT]);
    c->icmp_type = nl_attr_u8(proto[is_v4 ? CTA_PROTO_ICMP_TYPE : CTA_PROTO_ICMPV6_TYPE], 0);
    c->icmp_code = nl_attr_u8(proto[is_v4 ? CTA_PROTO_ICMP_CODE : CTA_PROTO_ICMPV6_CODE], 0);
    nl_attrs_nested(tb[CTA_TUPLE_REPLY], tuple, CTA_TUPLE_PROTO);
    nl_attrs_nested(tuple[CTA_TUPLE_IP], ip, CTA_IP_V6_DST);
    ok = ok && read_ip(ip[is_v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC], &c->dst);
    nl_attrs_nested(tuple[CTA_TUPLE_PROTO], proto, CTA_PROTO_ICMPV6_CODE);
    c->dport = read_port(proto[CTA_PROTO_SRC_PORT]);
    return ok;
}

static int on_listed(void *arg, const struct nlmsghdr *h) {
    struct listing *l = arg;
    struct conn c;
    if (!read_conn(h, &c) || (!has_ip(l->wanted, &c.src) && !has_ip(l->wanted, &c.dst))) {
        return 0;
    }
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        l->p = realloc(l->p, l->cap * sizeof(*l->p));
        mg_assert(l->p != NULL);
    }
    l->p[l->n++] = c;
    return 0;
}

/* ---- ports of the host ---- */

struct ports {
    struct found found;
    const struct conntrack_port *v;
    size_t n;
    const struct ip46 *hosts;
    size_t n_hosts;
};

/* One end of a tuple; false: it has none. */
static bool read_end(const struct nlattr *tuple_attr, bool is_v4, bool is_src, struct ip46 *ip,
                     uint8_t *protocol, uint16_t *port) {
    const struct nlattr *tuple[CTA_TUPLE_PROTO + 1], *ips[CTA_IP_V6_DST + 1];
    const struct nlattr *proto[CTA_PROTO_DST_PORT + 1];
    nl_attrs_nested(tuple_attr, tuple, CTA_TUPLE_PROTO);
    nl_attrs_nested(tuple[CTA_TUPLE_IP], ips, CTA_IP_V6_DST);
    nl_attrs_nested(tuple[CTA_TUPLE_PROTO], proto, CTA_PROTO_DST_PORT);
    ip->family = is_v4 ? IP_V4 : IP_V6;
    *protocol = nl_attr_u8(proto[CTA_PROTO_NUM], 0);
    *port = read_port(proto[is_src ? CTA_PROTO_SRC_PORT : CTA_PROTO_DST_PORT]);
    return read_ip(ips[is_v4 ? (is_src ? CTA_IP_V4_SRC : CTA_IP_V4_DST)
                             : (is_src ? CTA_IP_V6_SRC : CTA_IP_V6_DST)],
                   ip);
}

static int on_port_entry(void *arg, const struct nlmsghdr *h) {
    struct ports *x = arg;
    const struct nlattr *tb[CTA_ZONE + 1];
    uint8_t af = ((const uint8_t *)h)[NLMSG_HDRLEN], protocol, reply_protocol;
    struct ip46 dst = {0}, from = {0};
    uint16_t port, reply_port;
    nl_attrs(h, sizeof(struct nfgenmsg), tb, CTA_ZONE);
    if (!read_end(tb[CTA_TUPLE_ORIG], af == AF_INET, false, &dst, &protocol, &port) ||
        !read_end(tb[CTA_TUPLE_REPLY], af == AF_INET, true, &from, &reply_protocol, &reply_port)) {
        return 0;
    }
    bool is_host = false;
    for (size_t i = 0; i < x->n_hosts && !is_host; i++) {
        is_host = ip_eq(&dst, &x->hosts[i]);
    }
    for (size_t i = 0; i < x->n; i++) {
        const struct conntrack_port *p = &x->v[i];
        if (p->protocol == protocol && p->port == port && p->to.family == dst.family &&
            (p->host.family ? ip_eq(&dst, &p->host) : is_host) && !ip_eq(&from, &p->to)) {
            return queue_delete(&x->found, af, tb);
        }
    }
    return 0;
}

static int dump(struct nl *nl, uint8_t af, const struct ip46 *ip, const struct place *place,
                struct found *f, struct err *e) {
    (void)add(nl, IPCTNL_MSG_CT_GET, af);
    if (ip) {
        size_t t = nl_nest(nl, place->tuple, NULL, 0);
        size_t i = nl_nest(nl, CTA_TUPLE_IP, NULL, 0);
        nl_put(nl, ip->family == IP_V4 ? place->attr_v4 : place->attr_v6, ip->b, ip_bytes(ip));
        nl_nest_end(nl, i);
        nl_nest_end(nl, t);
        size_t x = nl_nest(nl, CTA_FILTER, NULL, 0);
        nl_put_u32(nl, FILTER_ORIG, place->orig_flags);
        nl_put_u32(nl, FILTER_REPLY, place->reply_flags);
        nl_nest_end(nl, x);
    }
    return nl_dump(nl, sizeof(struct nfgenmsg), on_entry, f, e);
}

/* UINT64_MAX if it can't be read. */
static uint64_t count_entries(void) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1U << 17);
    uint64_t n;
    if (file_read(-1, COUNT_PATH, &b, 64) < 0 || str_to_u64(str_trim(buf_view(&b)), &n) < 0) {
        return UINT64_MAX;
    }
    return n;
}

struct conntrack *conntrack_new(void) {
    struct conntrack *c = calloc(1, sizeof(*c));
    mg_assert(c != NULL);
    return c;
}

void conntrack_free(struct conntrack *c) {
    if (c) {
        nl_close(c->nl);
        nl_close(c->del);
        free(c);
    }
}

static int open_sockets(struct conntrack *c, struct err *e) {
    int r = 0;
    if (!c->nl) {
        r = nl_open(NL_NETNS_OWN, NETLINK_NETFILTER, &c->nl, e);
    }
    if (r == 0 && !c->del) {
        r = nl_open(NL_NETNS_OWN, NETLINK_NETFILTER, &c->del, e);
    }
    return r;
}

int conntrack_flush(struct conntrack *c, const struct ip46 *ips, size_t n, size_t *n_deleted,
                    struct err *e) {
    if (n_deleted) {
        *n_deleted = 0;
    }
    uint64_t n_entries = n ? count_entries() : 0;
    if (n_entries == 0) {
        return 0;
    }
    int r = open_sockets(c, e);
    struct found f = {.ips = ips, .n_ips = n, .del = c->del};
    if (r == 0 && n <= FILTERED_MAX && n_entries > READ_WHOLE_MAX) {
        for (size_t i = 0; r == 0 && i < n; i++) {
            uint8_t af = ips[i].family == IP_V4 ? AF_INET : AF_INET6;
            for (size_t j = 0; r == 0 && j < ARRAY_LEN(places); j++) {
                r = dump(c->nl, af, &ips[i], &places[j], &f, e);
            }
        }
    } else if (r == 0) {
        r = dump(c->nl, AF_UNSPEC, NULL, NULL, &f, e);
    }
    if (r == -EINVAL || r == -EOPNOTSUPP || r == -EPROTONOSUPPORT) {
        return 0; /* no connection tracking in this kernel */
    }
    if (r == 0) {
        r = delete_found(&f, e);
    }
    if (r == 0 && n_deleted) {
        *n_deleted = f.n;
    }
    return r;
}

int conntrack_flush_ports(struct conntrack *c, const struct conntrack_port *v, size_t n,
                          const struct ip46 *hosts, size_t n_hosts, size_t *n_deleted,
                          struct err *e) {
    struct ports x = {.v = v, .n = n, .hosts = hosts, .n_hosts = n_hosts};
    if (n_deleted) {
        *n_deleted = 0;
    }
    if (n == 0 || count_entries() == 0) {
        return 0;
    }
    int r = open_sockets(c, e);
    if (r == 0) {
        x.found.del = c->del;
        (void)add(c->nl, IPCTNL_MSG_CT_GET, AF_UNSPEC);
        r = nl_dump(c->nl, sizeof(struct nfgenmsg), on_port_entry, &x, e);
    }
    if (r == -EINVAL || r == -EOPNOTSUPP || r == -EPROTONOSUPPORT) {
        return 0; /* no connection tracking in this kernel */
    }
    r = r == 0 ? delete_found(&x.found, e) : r;
    if (r == 0 && n_deleted) {
        *n_deleted = x.found.n;
    }
    return r;
}

int conntrack_list(struct conntrack *c, const struct ip46 *ips, size_t n, struct conn **out,
                   size_t *n_out, struct err *e) {
    struct found wanted = {.ips = ips, .n_ips = n};
    struct listing l = {.wanted = &wanted};
    *out = NULL;
    *n_out = 0;
    if (n == 0 || count_entries() == 0) {
        return 0;
    }
    int r = open_sockets(c, e);
    if (r == 0) {
        (void)add(c->nl, IPCTNL_MSG_CT_GET, AF_UNSPEC);
        r = nl_dump(c->nl, sizeof(struct nfgenmsg), on_listed, &l, e);
    }
    if (r < 0) {
        free(l.p);
        return r == -EINVAL || r == -EOPNOTSUPP || r == -EPROTONOSUPPORT ? 0 : r;
    }
    *out = l.p;
    *n_out = l.n;
    return 0;
}

int conntrack_delete(struct conntrack *c, const struct conn *v, size_t n, size_t *n_deleted,
                     struct err *e) {
    int r = open_sockets(c, e);
    struct found f = {.del = c->del};
    for (size_t i = 0; r == 0 && i < n; i++) {
        (void)add(c->del, IPCTNL_MSG_CT_DELETE, v[i].src.family == IP_V4 ? AF_INET : AF_INET6);
        nl_put(c->del, CTA_TUPLE_ORIG | NLA_F_NESTED, v[i].orig, v[i].orig_bytes);
        if (v[i].has_id) {
            nl_put(c->del, CTA_ID, &v[i].id, sizeof(v[i].id));
        }
        if (v[i].has_zone) {
            nl_put(c->del, CTA_ZONE, &v[i].zone, sizeof(v[i].zone));
        }
        if (nl_pending(c->del) >= 4096 || i + 1 == n) {
            r = delete_found(&f, e);
        }
    }
    *n_deleted = f.n;
    return r;
}
