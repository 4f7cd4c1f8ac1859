/* Netlink sockets, batches and dumps. See nl.h. What the kernel sends is read with the same care as
 * what a stranger sends: every length is checked before it is used. */
#include "netlink/nl.h"

#include "base/fd.h"
#include "base/vec.h"
#include "netlink/netns.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK_MESSAGES 128 /* in one sendmsg: their answers fit the receive buffer */
#define CHUNK_BYTES (96U << 10)
#define RECV_BYTES (256U << 10)
#define TIMEOUT_S 20
#define TRIES_MAX 8

struct answer {
    int code;
    bool has_come;
    size_t text; /* offset in texts; 0 = none */
};

struct nl {
    int fd;
    uint32_t port, seq, first_seq;
    char *rx;
    struct buf out;
    struct buf texts;
    VEC(size_t) starts; /* offset of each message in out */
    VEC(struct answer) answers;
};

static int open_in(int netns_fd, int bus) {
    MG_CLEANUP(fd_close) int own = -1;
    if (netns_fd >= 0) {
        int r = netns_enter(netns_fd, &own);
        if (r < 0) {
            return r;
        }
    }
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, bus);
    int code = fd < 0 ? -errno : fd;
    if (netns_fd >= 0) {
        netns_leave(own);
    }
    return code;
}

int nl_open(int netns_fd, int bus, struct nl **out, struct err *e) {
    MG_CLEANUP(fd_close) int fd = open_in(netns_fd, bus);
    if (fd < 0) {
        int code = fd;
        fd = -1;
        return err_set(e, code, "opening a netlink socket: %s", err_name(code));
    }
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    socklen_t n = sizeof(a);
    struct timeval t = {.tv_sec = TIMEOUT_S};
    int one = 1, bytes = 4 << 20;
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &n) < 0) {
        return err_set(e, -errno, "binding a netlink socket: %s", err_name(-errno));
    }
    /* Best effort: old kernels lack some, and without privilege the buffer stays small. */
    (void)setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
    (void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
    (void)setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &one, sizeof(one));
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
    struct nl *nl = calloc(1, sizeof(*nl));
    mg_assert(nl != NULL);
    nl->rx = malloc(RECV_BYTES);
    mg_assert(nl->rx != NULL);
    nl->fd = TAKE_FD(fd);
    nl->port = a.nl_pid;
    nl->seq = 1;
    nl->out = BUF_INIT(NL_BATCH_BYTES_MAX);
    nl->texts = BUF_INIT(1U << 20);
    *out = nl;
    return 0;
}

void nl_close(struct nl *nl) {
    if (!nl) {
        return;
    }
    fd_close(&nl->fd);
    buf_fini(&nl->out);
    buf_fini(&nl->texts);
    vec_fini(&nl->starts);
    vec_fini(&nl->answers);
    free(nl->rx);
    free(nl);
}

void nl_close_p(struct nl **nl) {
    nl_close(*nl);
    *nl = NULL;
}

/* ---- building ---- */

static void align(struct buf *b) {
    static const char zero[4];
    buf_add(b, zero, (4 - b->n % 4) % 4);
}

size_t nl_add(struct nl *nl, uint16_t type, uint16_t flags, const void *header, size_t n) {
    struct nlmsghdr h = {.nlmsg_type = type,
                         .nlmsg_flags = (uint16_t)(flags | NLM_F_REQUEST | NLM_F_ACK)};
    vec_push(&nl->starts, nl->out.n);
    buf_add(&nl->out, &h, sizeof(h));
    buf_add(&nl->out, header, n);
    align(&nl->out);
    return nl->starts.n - 1;
}

void nl_put(struct nl *nl, uint16_t type, const void *p, size_t n) {
    struct nlattr a = {.nla_type = type, .nla_len = (uint16_t)(sizeof(a) + n)};
    if (n > UINT16_MAX - sizeof(a)) {
        nl->out.overflow = true;
        return;
    }
    buf_add(&nl->out, &a, sizeof(a));
    buf_add(&nl->out, p, n);
    align(&nl->out);
}

void nl_put_u8(struct nl *nl, uint16_t type, uint8_t v) {
    nl_put(nl, type, &v, sizeof(v));
}

void nl_put_u16be(struct nl *nl, uint16_t type, uint16_t v) {
    v = htons(v);
    nl_put(nl, type, &v, sizeof(v));
}

void nl_put_u32(struct nl *nl, uint16_t type, uint32_t v) {
    nl_put(nl, type, &v, sizeof(v));
}

void nl_put_u32be(struct nl *nl, uint16_t type, uint32_t v) {
    nl_put_u32(nl, type, htonl(v));
}

void nl_put_strz(struct nl *nl, uint16_t type, const char *s) {
    nl_put(nl, type, s, strlen(s) + 1);
}

size_t nl_nest(struct nl *nl, uint16_t type, const void *header, size_t n) {
    size_t at = nl->out.n;
    nl_put(nl, type | NLA_F_NESTED, header, n);
    return at;
}

void nl_nest_end(struct nl *nl, size_t nest) {
    size_t n = nl->out.n - nest;
    if (nl->out.overflow || n > UINT16_MAX) {
        nl->out.overflow = true;
        return;
    }
    uint16_t len = (uint16_t)n;
    memcpy(nl->out.p + nest + offsetof(struct nlattr, nla_len), &len, sizeof(len));
}

size_t nl_pending(const struct nl *nl) {
    return nl->starts.n;
}

void nl_abandon(struct nl *nl) {
    buf_reset(&nl->out);
    vec_clear(&nl->starts);
}

/* ---- talking ---- */

static void forget_answers(struct nl *nl) {
    vec_clear(&nl->answers);
    buf_reset(&nl->texts);
    buf_putc(&nl->texts, '\0'); /* offset 0 is "none" */
}

/* Length and sequence number of each message; returns -EMSGSIZE when something didn't fit. */
static int finish(struct nl *nl) {
    if (nl->out.overflow) {
        return -EMSGSIZE;
    }
    nl->first_seq = nl->seq;
    for (size_t i = 0; i < nl->starts.n; i++) {
        size_t end = i + 1 < nl->starts.n ? nl->starts.p[i + 1] : nl->out.n;
        uint32_t len = (uint32_t)(end - nl->starts.p[i]);
        uint32_t seq = nl->seq++;
        char *p = nl->out.p + nl->starts.p[i];
        memcpy(p + offsetof(struct nlmsghdr, nlmsg_len), &len, sizeof(len));
        memcpy(p + offsetof(struct nlmsghdr, nlmsg_seq), &seq, sizeof(seq));
    }
    return 0;
}

static int send_bytes(struct nl *nl, size_t from, size_t to) {
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    for (;;) {
        ssize_t n = sendto(nl->fd, nl->out.p + from, to - from, 0, (struct sockaddr *)&kernel,
                           sizeof(kernel));
        if (n >= 0) {
            return (size_t)n == to - from ? 0 : -EIO;
        }
        if (errno != EINTR) {
            return -errno;
        }
    }
}

/* One datagram from the kernel into rx: its length, or -errno. */
static ssize_t receive(struct nl *nl) {
    for (;;) {
        struct sockaddr_nl from = {0};
        struct iovec iov = {nl->rx, RECV_BYTES};
        struct msghdr m = {
            .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1};
        ssize_t n = recvmsg(nl->fd, &m, 0);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        }
        if (m.msg_flags & MSG_TRUNC) {
            return -EMSGSIZE;
        }
        if (from.nl_pid == 0) {
            return n;
        }
    }
}

/* Code of an NLMSG_ERROR or NLMSG_DONE message, and the kernel's words with it. */
static int read_error(const struct nlmsghdr *nlh, const char **text, size_t *text_n) {
    int code = 0;
    size_t payload = nlh->nlmsg_len - NLMSG_HDRLEN;
    *text_n = 0;
    if (payload < sizeof(code)) {
        return nlh->nlmsg_type == NLMSG_DONE ? 0 : -EPROTO;
    }
    const char *p = (const char *)nlh + NLMSG_HDRLEN;
    memcpy(&code, p, sizeof(code));
    size_t skip = sizeof(code);
    if (nlh->nlmsg_type == NLMSG_ERROR) {
        struct nlmsghdr inner;
        if (payload < sizeof(code) + sizeof(inner)) {
            return code > 0 ? -EPROTO : code;
        }
        memcpy(&inner, p + sizeof(code), sizeof(inner));
        skip += nlh->nlmsg_flags & NLM_F_CAPPED ? sizeof(inner) : inner.nlmsg_len;
    }
    skip = (skip + 3) & ~(size_t)3;
    if ((nlh->nlmsg_flags & NLM_F_ACK_TLVS) && skip < payload) {
        const struct nlattr *tb[NLMSGERR_ATTR_MSG + 1] = {0};
        nl_attrs(nlh, skip, tb, NLMSGERR_ATTR_MSG);
        const struct nlattr *a = tb[NLMSGERR_ATTR_MSG];
        if (a) {
            *text = nl_attr_data(a, 0);
            *text_n = strnlen(*text, nl_attr_bytes(a));
        }
    }
    return code > 0 ? -EPROTO : code;
}

/* Files the answers in rx under their messages; returns how many were new. */
static size_t take_answers(struct nl *nl, size_t bytes) {
    size_t n_new = 0;
    int left = (int)bytes;
    for (const struct nlmsghdr *h = (const struct nlmsghdr *)nl->rx; nl_msg_ok(h, left);
         h = mnl_nlmsg_next(h, &left)) {
        size_t i = h->nlmsg_seq - nl->first_seq;
        if (h->nlmsg_type != NLMSG_ERROR || i >= nl->answers.n || nl->answers.p[i].has_come) {
            continue; /* of an earlier conversation that broke off */
        }
        const char *text = NULL;
        size_t text_n = 0;
        struct answer *a = &nl->answers.p[i];
        a->code = read_error(h, &text, &text_n);
        a->has_come = true;
        if (text_n && a->code) {
            a->text = nl->texts.n;
            buf_add(&nl->texts, text, text_n);
            buf_putc(&nl->texts, '\0');
            a->text = nl->texts.overflow ? 0 : a->text;
        }
        n_new++;
    }
    return n_new;
}

int nl_exchange(struct nl *nl, struct err *e) {
    size_t n = nl->starts.n;
    forget_answers(nl);
    int r = finish(nl);
    vec_reserve(&nl->answers, n);
    for (size_t i = 0; i < n; i++) {
        nl->answers.p[i] = (struct answer){.code = -EIO};
    }
    nl->answers.n = n;
    for (size_t i = 0; r == 0 && i < n;) {
        size_t end = i + 1;
        while (end < n && end - i < CHUNK_MESSAGES &&
               (end + 1 < n ? nl->starts.p[end + 1] : nl->out.n) - nl->starts.p[i] < CHUNK_BYTES) {
            end++;
        }
        r = send_bytes(nl, nl->starts.p[i], end < n ? nl->starts.p[end] : nl->out.n);
        for (size_t missing = end - i; r == 0 && missing;) {
            ssize_t k = receive(nl);
            if (k < 0) {
                r = (int)k;
            } else {
                missing -= take_answers(nl, (size_t)k);
            }
        }
        i = end;
    }
    nl_abandon(nl);
    return r < 0 ? err_set(e, r, "netlink: %s", err_name(r)) : 0;
}

int nl_code(const struct nl *nl, size_t i) {
    return i < nl->answers.n ? nl->answers.p[i].code : -EIO;
}

const char *nl_text(const struct nl *nl, size_t i) {
    return i < nl->answers.n && nl->answers.p[i].text ? nl->texts.p + nl->answers.p[i].text : "";
}

int nl_commit(struct nl *nl, struct err *e) {
    int r = nl_exchange(nl, e);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < nl->answers.n; i++) {
        if (nl_code(nl, i) < 0) {
            const char *t = nl_text(nl, i);
            return err_set(e, nl_code(nl, i), "%s%s%s", err_name(nl_code(nl, i)), t[0] ? ": " : "",
                           t);
        }
    }
    return 0;
}

/* Collects the objects of the one pending message into `all`, until the kernel says it is done. */
static int collect(struct nl *nl, bool is_dump, struct buf *all, struct err *e) {
    bool is_interrupted = false;
    for (;;) {
        ssize_t k = receive(nl);
        if (k < 0) {
            return err_set(e, (int)k, "netlink: %s", err_name((int)k));
        }
        int left = (int)k;
        for (const struct nlmsghdr *h = (const struct nlmsghdr *)nl->rx; nl_msg_ok(h, left);
             h = mnl_nlmsg_next(h, &left)) {
            if (h->nlmsg_seq != nl->first_seq) {
                continue;
            }
            is_interrupted |= (h->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
            if (h->nlmsg_type == NLMSG_ERROR || h->nlmsg_type == NLMSG_DONE) {
                const char *text = NULL;
                size_t text_n = 0;
                int code = read_error(h, &text, &text_n);
                if (code < 0) {
                    return err_set(e, code, "%s%s%.*s", err_name(code), text_n ? ": " : "",
                                   (int)text_n, text_n ? text : "");
                }
                if (h->nlmsg_type == NLMSG_DONE || !is_dump) {
                    return is_interrupted ? ERR_RETRY : 0;
                }
                continue;
            }
            if (h->nlmsg_type >= NLMSG_MIN_TYPE) {
                buf_add(all, h, h->nlmsg_len);
                align(all);
                if (all->overflow) {
                    return err_set(e, ERR_TOO_BIG, "netlink: the answer is above %u bytes",
                                   NL_DUMP_BYTES_MAX);
                }
            }
        }
    }
}

static int ask(struct nl *nl, bool is_dump, size_t header_bytes, nl_object_cb cb, void *arg,
               struct err *e) {
    MG_CLEANUP(buf_fini) struct buf all = BUF_INIT(NL_DUMP_BYTES_MAX);
    mg_assert(nl->starts.n == 1);
    int r = ERR_RETRY;
    for (int i = 0; r == ERR_RETRY && i < TRIES_MAX; i++) {
        buf_reset(&all);
        r = finish(nl);
        if (r == 0) {
            r = send_bytes(nl, 0, nl->out.n);
        }
        r = r < 0 ? err_set(e, r, "netlink: %s", err_name(r)) : collect(nl, is_dump, &all, e);
    }
    nl_abandon(nl);
    if (r < 0) {
        return r == ERR_RETRY ? err_set(e, r, "netlink: the kernel's table changes too fast") : r;
    }
    for (size_t at = 0; at < all.n;) {
        const struct nlmsghdr *h = (const struct nlmsghdr *)(all.p + at);
        if (h->nlmsg_len - NLMSG_HDRLEN >= header_bytes) {
            r = cb(arg, h);
            if (r < 0) {
                return r;
            }
        }
        at += (h->nlmsg_len + 3U) & ~3U;
    }
    return 0;
}

int nl_dump(struct nl *nl, size_t header_bytes, nl_object_cb cb, void *arg, struct err *e) {
    mg_assert(nl->starts.n == 1);
    uint16_t flags = NLM_F_REQUEST | NLM_F_DUMP;
    if (!nl->out.overflow) {
        memcpy(nl->out.p + offsetof(struct nlmsghdr, nlmsg_flags), &flags, sizeof(flags));
    }
    return ask(nl, true, header_bytes, cb, arg, e);
}

int nl_get(struct nl *nl, size_t header_bytes, nl_object_cb cb, void *arg, struct err *e) {
    return ask(nl, false, header_bytes, cb, arg, e);
}

/* ---- reading ---- */

static void walk(const char *p, size_t n, const struct nlattr **tb, uint16_t max) {
    while (n >= sizeof(struct nlattr)) {
        const struct nlattr *a = (const struct nlattr *)p;
        if (a->nla_len < sizeof(*a) || a->nla_len > n) {
            return;
        }
        uint16_t type = a->nla_type & NLA_TYPE_MASK;
        if (type <= max) {
            tb[type] = a;
        }
        size_t step = (a->nla_len + 3U) & ~3U;
        if (step >= n) {
            return;
        }
        p += step;
        n -= step;
    }
}

void nl_attrs(const struct nlmsghdr *nlh, size_t header_bytes, const struct nlattr **tb,
              uint16_t max) {
    memset(tb, 0, sizeof(*tb) * ((size_t)max + 1));
    size_t skip = NLMSG_HDRLEN + ((header_bytes + 3) & ~(size_t)3);
    if (nlh->nlmsg_len > skip) {
        walk((const char *)nlh + skip, nlh->nlmsg_len - skip, tb, max);
    }
}

void nl_attrs_nested(const struct nlattr *nest, const struct nlattr **tb, uint16_t max) {
    memset(tb, 0, sizeof(*tb) * ((size_t)max + 1));
    if (nest) {
        walk((const char *)nest + sizeof(*nest), nl_attr_bytes(nest), tb, max);
    }
}

size_t nl_attr_bytes(const struct nlattr *a) {
    return a && a->nla_len > sizeof(*a) ? a->nla_len - sizeof(*a) : 0;
}

const void *nl_attr_data(const struct nlattr *a, size_t n) {
    return a && nl_attr_bytes(a) >= n ? (const char *)a + sizeof(*a) : NULL;
}

uint32_t nl_attr_u32(const struct nlattr *a, uint32_t def) {
    uint32_t v = def;
    const void *p = nl_attr_data(a, sizeof(v));
    if (p) {
        memcpy(&v, p, sizeof(v));
    }
    return v;
}

uint8_t nl_attr_u8(const struct nlattr *a, uint8_t def) {
    const uint8_t *p = nl_attr_data(a, 1);
    return p ? *p : def;
}

bool nl_attr_text(const struct nlattr *a, char *out, size_t cap) {
    const char *p = nl_attr_data(a, 0);
    size_t n = p ? strnlen(p, nl_attr_bytes(a)) : 0;
    if (!p || n >= cap) {
        out[0] = '\0';
        return false;
    }
    memcpy(out, p, n);
    out[n] = '\0';
    return true;
}
