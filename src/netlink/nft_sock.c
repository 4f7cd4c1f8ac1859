/* The kernel's side of nf_tables: commit, read back, listen. A request runs inside the sender's
 * system call, so the answers are there when sendmsg returns. */
#include "netlink/nft_wire.h"
#include "netlink/nl.h"

#include "base/attr.h"
#include "base/fd.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <limits.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct nft_sock {
    int fd;
    uint32_t portid;
    uint32_t seq;
    size_t sndbuf;
    uint8_t rx[65536];
};

enum { SNDBUF_MIN = 1 << 20, SNDBUF_MAX = 1 << 30, RCVBUF = 8 << 20, MONITOR_RCVBUF = 32 << 20 };

static int netlink_open(uint32_t groups, int rcvbuf, int *out, uint32_t *portid, struct err *e) {
    MG_CLEANUP(fd_close) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    struct sockaddr_nl sa = {.nl_family = AF_NETLINK, .nl_groups = groups};
    socklen_t len = sizeof(sa);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
        getsockname(fd, (struct sockaddr *)&sa, &len) < 0) {
        int err = errno;
        return err_set(e, -err, "netlink socket of netfilter: %s", strerror(err));
    }
    if (portid) {
        *portid = sa.nl_pid;
    }
    int one = 1;
    /* Best effort all three: defaults only make errors less clear and bursts more often lossy. */
    (void)setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
    (void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &rcvbuf, sizeof(rcvbuf));
    *out = TAKE_FD(fd);
    return 0;
}

int nft_open(struct nft_sock **out, struct err *e) {
    struct nft_sock *s = calloc(1, sizeof(*s));
    mg_assert(s != NULL);
    int r = netlink_open(0, RCVBUF, &s->fd, &s->portid, e);
    if (r < 0) {
        free(s);
        return r;
    }
    *out = s;
    return 0;
}

void nft_close(struct nft_sock *s) {
    if (s) {
        close(s->fd);
        free(s);
    }
}

uint32_t nft_portid(const struct nft_sock *s) {
    return s->portid;
}

static void make_room(struct nft_sock *s, size_t n) {
    if (s->sndbuf >= n * 2) {
        return;
    }
    size_t want = SNDBUF_MIN;
    while (want < n * 2 && want < SNDBUF_MAX) {
        want *= 2;
    }
    int v = (int)want;
    /* EMSGSIZE from sendmsg says it if this did not help. */
    (void)setsockopt(s->fd, SOL_SOCKET, SO_SNDBUFFORCE, &v, sizeof(v));
    s->sndbuf = want;
}

static int send_all(struct nft_sock *s, const void *p, size_t n, struct err *e) {
    make_room(s, n);
    struct sockaddr_nl sa = {.nl_family = AF_NETLINK};
    ssize_t r;
    do {
        r = sendto(s->fd, p, n, 0, (struct sockaddr *)&sa, sizeof(sa));
    } while (r < 0 && errno == EINTR);
    if (r < 0) {
        int err = errno;
        return err_set(e, -err, "sending %zu bytes to nf_tables: %s", n, strerror(err));
    }
    return 0;
}

/* The kernel's own words in an error message, if it gave any. */
static struct str ext_text(const struct nlmsghdr *h) {
    const struct nlmsgerr *er = mnl_nlmsg_get_payload(h);
    if (!(h->nlmsg_flags & NLM_F_ACK_TLVS)) {
        return STR_NULL;
    }
    size_t off = sizeof(*er);
    if (!(h->nlmsg_flags & NLM_F_CAPPED) && er->msg.nlmsg_len >= sizeof(er->msg)) {
        off += er->msg.nlmsg_len - sizeof(er->msg);
    }
    off = MNL_ALIGN(off);
    size_t len = mnl_nlmsg_get_payload_len(h);
    while (off + sizeof(struct nlattr) <= len) {
        const struct nlattr *a =
            (const struct nlattr *)(const void *)((const uint8_t *)mnl_nlmsg_get_payload(h) + off);
        if (a->nla_len < sizeof(*a) || a->nla_len > len - off) {
            break;
        }
        if ((a->nla_type & NLA_TYPE_MASK) == NLMSGERR_ATTR_MSG) {
            const char *t = mnl_attr_get_payload(a);
            return str_n(t, strnlen(t, mnl_attr_get_payload_len(a)));
        }
        off += MNL_ALIGN(a->nla_len);
    }
    return STR_NULL;
}

static const char *const msg_names[] = {
    [NFT_MSG_NEWTABLE] = "add table",      [NFT_MSG_DELTABLE] = "delete table",
    [NFT_MSG_NEWCHAIN] = "add chain",      [NFT_MSG_DELCHAIN] = "delete chain",
    [NFT_MSG_NEWRULE] = "add rule",        [NFT_MSG_DELRULE] = "delete rules",
    [NFT_MSG_NEWSET] = "add set",          [NFT_MSG_DELSET] = "delete set",
    [NFT_MSG_NEWSETELEM] = "add elements", [NFT_MSG_DELSETELEM] = "delete elements",
};

/* "add rule (chain ingress/…)": what the message with this sequence number asked for. */
static void describe(const struct nft_batch *b, uint32_t seq, char *out, size_t n) {
    for (size_t off = 0; off < b->n;) {
        const struct nlmsghdr *h = (const struct nlmsghdr *)(const void *)(b->p + off);
        unsigned type = h->nlmsg_type & 0xff;
        if (h->nlmsg_seq == seq && (h->nlmsg_type >> 8) == NFNL_SUBSYS_NFTABLES &&
            type < ARRAY_LEN(msg_names) && msg_names[type]) {
            const struct nlattr *a;
            const char *name = "";
            mnl_attr_for_each(a, h, sizeof(struct nfgenmsg)) {
                /* Attribute 2 of rules, sets' elements; 3 of chains, 2 of sets: the name. */
                unsigned want = type == NFT_MSG_NEWCHAIN || type == NFT_MSG_DELCHAIN ? 3 : 2;
                if (mnl_attr_get_type(a) == want) {
                    name = mnl_attr_get_str(a);
                }
            }
            snprintf(out, n, "%s %s", msg_names[type], name);
            return;
        }
        off += h->nlmsg_len;
    }
    snprintf(out, n, "message %u", seq);
}

int nft_commit(struct nft_sock *s, struct nft_batch *b, struct err *e) {
    if (b->n_msgs == 0) {
        return 0;
    }
    nft_batch_close(b);
    int r = send_all(s, b->p, b->n, e);
    if (r < 0) {
        return r;
    }
    int first = 0;
    for (;;) {
        ssize_t n = recv(s->fd, s->rx, sizeof(s->rx), MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            if (errno == ENOBUFS && !first) {
                first = err_set(e, -ENOBUFS, "nf_tables: answers were lost");
                continue;
            }
            break;
        }
        int left = (int)n;
        for (const struct nlmsghdr *h = (void *)s->rx; nl_msg_ok(h, left);
             h = mnl_nlmsg_next(h, &left)) {
            if (h->nlmsg_type != NLMSG_ERROR ||
                mnl_nlmsg_get_payload_len(h) < sizeof(struct nlmsgerr)) {
                continue;
            }
            int err = ((const struct nlmsgerr *)mnl_nlmsg_get_payload(h))->error;
            if (err == 0 || first) {
                continue;
            }
            if (err == -ERESTART) {
                first = err_set(e, ERR_RETRY, "nf_tables: the ruleset changed meanwhile");
                continue;
            }
            char what[320];
            describe(b, h->nlmsg_seq, what, sizeof(what));
            struct str t = ext_text(h);
            first = err_set(e, err, "nf_tables: %s: %s%s%.*s", what, strerror(-err),
                            t.n ? ": " : "", STR_FMT(t));
        }
    }
    return first;
}

/* ---- reading ---- */

struct reader {
    const struct nft_read_ops *ops;
    void *arg;
    struct str table;
    bool interrupted;
    struct str set; /* whose elements are being read */
    struct {
        struct nft_set *p;
        size_t n, cap;
    } sets;
};

/* Attributes of a message or nest, by type; wrong ones are left out. */
struct attrs {
    const struct nlattr *a[32];
};
static void attrs_add(struct attrs *t, const struct nlattr *a) {
    unsigned type = mnl_attr_get_type(a);
    if (type < ARRAY_LEN(t->a)) {
        t->a[type] = a;
    }
}
static void attrs_msg(struct attrs *t, const struct nlmsghdr *h) {
    *t = (struct attrs){{0}};
    const struct nlattr *a;
    mnl_attr_for_each(a, h, sizeof(struct nfgenmsg)) {
        attrs_add(t, a);
    }
}
static void attrs_nest(struct attrs *t, const struct nlattr *n) {
    *t = (struct attrs){{0}};
    if (n) {
        const struct nlattr *a;
        mnl_attr_for_each_nested(a, n) {
            attrs_add(t, a);
        }
    }
}
static struct str a_bytes(const struct nlattr *a) {
    return a ? str_n(mnl_attr_get_payload(a), mnl_attr_get_payload_len(a)) : STR_NULL;
}
static struct str a_str(const struct nlattr *a) {
    struct str s = a_bytes(a);
    s.n = s.p ? strnlen(s.p, s.n) : 0;
    return s;
}
static uint32_t a_be32(const struct nlattr *a) {
    uint32_t v = 0;
    if (a && mnl_attr_get_payload_len(a) >= sizeof(v)) {
        memcpy(&v, mnl_attr_get_payload(a), sizeof(v));
    }
    return ntohl(v);
}

static uint64_t a_be64(const struct nlattr *a) {
    uint64_t v = 0;
    if (a && mnl_attr_get_payload_len(a) >= sizeof(v)) {
        memcpy(&v, mnl_attr_get_payload(a), sizeof(v));
    }
    return be64toh(v);
}

/* The numbers of an expression, if it is a counter. */
static void read_counter(const struct nlattr *x, struct nft_count *out) {
    struct attrs t, data;
    attrs_nest(&t, x);
    if (str_is(a_str(t.a[NFTA_EXPR_NAME]), "counter")) {
        attrs_nest(&data, t.a[NFTA_EXPR_DATA]);
        *out = (struct nft_count){.packets = a_be64(data.a[NFTA_COUNTER_PACKETS]),
                                  .bytes = a_be64(data.a[NFTA_COUNTER_BYTES])};
    }
}

/* Hash and comment of a rule. */
static void read_userdata(struct str ud, struct nft_rule_read *out) {
    while (ud.n >= 2 && (uint8_t)ud.p[1] <= ud.n - 2) {
        uint8_t type = (uint8_t)ud.p[0], len = (uint8_t)ud.p[1];
        if (type == NFT_UD_HASH && len == sizeof(uint64_t)) {
            memcpy(&out->hash, ud.p + 2, sizeof(out->hash));
        } else if (type == NFT_UD_COMMENT) {
            out->comment = str_n(ud.p + 2, strnlen(ud.p + 2, len));
        }
        ud = str_sub(ud, 2U + len, ud.n);
    }
}

static void on_rule(struct reader *r, const struct attrs *t) {
    struct nft_rule_read rule = {.comment = STR("")};
    read_userdata(a_bytes(t->a[NFTA_RULE_USERDATA]), &rule);
    const struct nlattr *list = t->a[NFTA_RULE_EXPRESSIONS], *a;
    if (list) {
        mnl_attr_for_each_nested(a, list) {
            read_counter(a, &rule.count);
        }
    }
    r->ops->rule(r->arg, a_str(t->a[NFTA_RULE_CHAIN]), &rule);
}

static void on_chain(struct reader *r, const struct attrs *t) {
    struct nft_hook hook = {0};
    char type[32] = "";
    if (t->a[NFTA_CHAIN_HOOK]) {
        struct attrs h;
        attrs_nest(&h, t->a[NFTA_CHAIN_HOOK]);
        struct str s = a_str(t->a[NFTA_CHAIN_TYPE]);
        snprintf(type, sizeof(type), "%.*s", STR_FMT(s));
        hook = (struct nft_hook){a_be32(h.a[NFTA_HOOK_HOOKNUM]),
                                 (int32_t)a_be32(h.a[NFTA_HOOK_PRIORITY]), type,
                                 a_be32(t->a[NFTA_CHAIN_POLICY])};
    }
    r->ops->chain(r->arg, a_str(t->a[NFTA_CHAIN_NAME]), &hook);
}

/* nft's number of a concatenation, taken apart. */
static void take_fields(uint32_t type, uint8_t fields[4]) {
    size_t n = 0;
    for (uint32_t x = type; x && n < 4; x >>= 6) {
        n++;
    }
    for (size_t i = 0; i < n; i++) {
        fields[i] = (uint8_t)(type >> (6 * (n - 1 - i)) & 63);
    }
}

static void on_set(struct reader *r, const struct attrs *t) {
    struct nft_set s = {.name = a_str(t->a[NFTA_SET_NAME])};
    uint32_t flags = a_be32(t->a[NFTA_SET_FLAGS]);
    if (flags & NFT_SET_ANONYMOUS) {
        return; /* comes and goes with its rule */
    }
    take_fields(a_be32(t->a[NFTA_SET_KEY_TYPE]), s.fields);
    s.is_interval = flags & NFT_SET_INTERVAL;
    if (flags & NFT_SET_MAP) {
        uint32_t data = a_be32(t->a[NFTA_SET_DATA_TYPE]);
        s.is_verdict_map = data == NFT_DATA_VERDICT;
        take_fields(s.is_verdict_map ? 0 : data, s.data);
    }
    if (r->sets.n == r->sets.cap) {
        r->sets.cap = r->sets.cap ? r->sets.cap * 2 : 64;
        r->sets.p = realloc(r->sets.p, r->sets.cap * sizeof(*r->sets.p));
        mg_assert(r->sets.p != NULL);
    }
    struct nft_set *keep = &r->sets.p[r->sets.n++];
    *keep = s;
    keep->name.p = strndup(s.name.p ? s.name.p : "", s.name.n);
    mg_assert(keep->name.p != NULL);
}

static void on_elems(struct reader *r, const struct attrs *t) {
    const struct nlattr *list = t->a[NFTA_SET_ELEM_LIST_ELEMENTS], *a;
    if (!list) {
        return;
    }
    mnl_attr_for_each_nested(a, list) {
        struct attrs el, key, data, verdict;
        attrs_nest(&el, a);
        attrs_nest(&key, el.a[NFTA_SET_ELEM_KEY]);
        attrs_nest(&data, el.a[NFTA_SET_ELEM_DATA]);
        attrs_nest(&verdict, data.a[NFTA_DATA_VERDICT]);
        struct nft_elem_read e = {.key = a_bytes(key.a[NFTA_DATA_VALUE]),
                                  .is_interval_end =
                                      a_be32(el.a[NFTA_SET_ELEM_FLAGS]) & NFT_SET_ELEM_INTERVAL_END,
                                  .chain = a_str(verdict.a[NFTA_VERDICT_CHAIN]),
                                  .data = a_bytes(data.a[NFTA_DATA_VALUE])};
        if (el.a[NFTA_SET_ELEM_EXPR]) {
            read_counter(el.a[NFTA_SET_ELEM_EXPR], &e.count);
        }
        r->ops->elem(r->arg, r->set, &e);
    }
}

static void on_msg(struct reader *r, const struct nlmsghdr *h) {
    struct attrs t;
    attrs_msg(&t, h);
    /* Attribute 1 is the table's name in all of them. */
    if (!str_eq(a_str(t.a[1]), r->table)) {
        return;
    }
    switch (h->nlmsg_type & 0xff) {
    case NFT_MSG_NEWTABLE:
        r->ops->table(r->arg);
        break;
    case NFT_MSG_NEWCHAIN:
        on_chain(r, &t);
        break;
    case NFT_MSG_NEWRULE:
        on_rule(r, &t);
        break;
    case NFT_MSG_NEWSET:
        on_set(r, &t);
        break;
    case NFT_MSG_NEWSETELEM:
        on_elems(r, &t);
        break;
    default:
        break;
    }
}

static int receive(struct nft_sock *s, struct reader *r, uint32_t seq, uint32_t *genid,
                   struct err *e) {
    for (;;) {
        ssize_t n = recv(s->fd, s->rx, sizeof(s->rx), 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            int err = errno;
            return err_set(e, -err, "reading nf_tables: %s", strerror(err));
        }
        int left = (int)n;
        for (const struct nlmsghdr *h = (void *)s->rx; nl_msg_ok(h, left);
             h = mnl_nlmsg_next(h, &left)) {
            if (h->nlmsg_seq != seq) {
                continue; /* an answer that nobody waits for any more */
            }
            if (h->nlmsg_flags & NLM_F_DUMP_INTR && r) {
                r->interrupted = true;
            }
            if (h->nlmsg_type == NLMSG_DONE) {
                return 0;
            }
            if (h->nlmsg_type == NLMSG_ERROR) {
                if (mnl_nlmsg_get_payload_len(h) < sizeof(struct nlmsgerr)) {
                    return err_set(e, -EPROTO, "reading nf_tables: short answer");
                }
                int err = ((const struct nlmsgerr *)mnl_nlmsg_get_payload(h))->error;
                return err ? err_set(e, err, "reading nf_tables: %s", strerror(-err)) : 0;
            }
            if ((h->nlmsg_type & 0xff) == NFT_MSG_NEWGEN && genid) {
                struct attrs t;
                attrs_msg(&t, h);
                *genid = a_be32(t.a[NFTA_GEN_ID]);
                return 0;
            }
            if (r && (h->nlmsg_type >> 8) == NFNL_SUBSYS_NFTABLES) {
                on_msg(r, h);
            }
        }
    }
}

/* One request: a dump of `type`, or NFT_MSG_GETGEN. table and set may be null. */
static int request(struct nft_sock *s, uint16_t type, uint16_t flags, struct str table,
                   struct str set, struct reader *r, uint32_t *genid, struct err *e) {
    uint8_t buf[1024];
    struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
    h->nlmsg_type = (uint16_t)((NFNL_SUBSYS_NFTABLES << 8) | type);
    h->nlmsg_flags = NLM_F_REQUEST | flags;
    /* Far from the numbers of a batch's messages: late errors can't be taken for ours. */
    h->nlmsg_seq = 0x80000000U | ++s->seq;
    struct nfgenmsg *g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
    g->nfgen_family = genid ? AF_UNSPEC : NFPROTO_INET;
    char name[256];
    if (table.n) {
        snprintf(name, sizeof(name), "%.*s", STR_FMT(table));
        mnl_attr_put_strz(h, 1, name);
    }
    if (set.n) {
        snprintf(name, sizeof(name), "%.*s", STR_FMT(set));
        mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, name);
    }
    int err = send_all(s, h, h->nlmsg_len, e);
    return err < 0 ? err : receive(s, r, h->nlmsg_seq, genid, e);
}

int nft_generation(struct nft_sock *s, uint32_t *out, struct err *e) {
    return request(s, NFT_MSG_GETGEN, 0, STR_NULL, STR_NULL, NULL, out, e);
}

static int read_all(struct nft_sock *s, struct reader *r, struct err *e) {
    static const uint16_t dumps[] = {NFT_MSG_GETTABLE, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE,
                                     NFT_MSG_GETSET};
    for (size_t i = 0; i < ARRAY_LEN(dumps); i++) {
        /* A table attribute narrows the dump in the kernel for rules and sets; elsewhere on_msg
         * leaves out what is not ours. */
        bool narrow = dumps[i] == NFT_MSG_GETRULE || dumps[i] == NFT_MSG_GETSET;
        int err =
            request(s, dumps[i], NLM_F_DUMP, narrow ? r->table : STR_NULL, STR_NULL, r, NULL, e);
        if (err == -ENOENT) {
            return 0; /* no such table */
        }
        if (err < 0) {
            return err;
        }
    }
    for (size_t i = 0; i < r->sets.n; i++) {
        r->set = r->sets.p[i].name;
        r->ops->set(r->arg, &r->sets.p[i]);
        int err = request(s, NFT_MSG_GETSETELEM, NLM_F_DUMP, r->table, r->set, r, NULL, e);
        if (err == -ENOENT) {
            r->interrupted = true;
        } else if (err < 0) {
            return err;
        }
    }
    return 0;
}

int nft_read(struct nft_sock *s, struct str table, const struct nft_read_ops *ops, void *arg,
             struct err *e) {
    struct reader r = {.ops = ops, .arg = arg, .table = table};
    uint32_t before = 0, after = 0;
    int err = nft_generation(s, &before, e);
    if (err == 0) {
        err = read_all(s, &r, e);
    }
    if (err == 0) {
        err = nft_generation(s, &after, e);
    }
    if (err == 0 && (r.interrupted || before != after)) {
        err = err_set(e, ERR_RETRY, "nf_tables: the ruleset changed while it was read");
    }
    for (size_t i = 0; i < r.sets.n; i++) {
        free((char *)(uintptr_t)r.sets.p[i].name.p);
    }
    free(r.sets.p);
    return err;
}

/* ---- listening ---- */

int nft_monitor_open(int *fd, struct err *e) {
    int r = netlink_open(1U << (NFNLGRP_NFTABLES - 1), MONITOR_RCVBUF, fd, NULL, e);
    return r < 0 ? r : fd_set_nonblock(*fd);
}

int nft_monitor_read(int fd, struct str table, uint32_t own_port) {
    uint8_t buf[32768];
    int foreign = 0;
    bool is_lost = false;
    for (;;) {
        ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            if (errno == ENOBUFS) {
                is_lost = true;
                continue;
            }
            return is_lost ? INT_MAX : foreign;
        }
        int left = (int)n;
        for (const struct nlmsghdr *h = (void *)buf; nl_msg_ok(h, left);
             h = mnl_nlmsg_next(h, &left)) {
            if (h->nlmsg_pid == own_port || (h->nlmsg_type >> 8) != NFNL_SUBSYS_NFTABLES ||
                (h->nlmsg_type & 0xff) == NFT_MSG_NEWGEN || foreign == INT_MAX - 1) {
                continue;
            }
            const struct nfgenmsg *g = mnl_nlmsg_get_payload(h);
            if (mnl_nlmsg_get_payload_len(h) >= sizeof(*g) && g->nfgen_family == NFPROTO_INET) {
                struct attrs t;
                attrs_msg(&t, h);
                foreign += str_eq(a_str(t.a[1]), table);
            }
        }
    }
}
