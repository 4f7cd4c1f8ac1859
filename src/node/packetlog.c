#include "node/packetlog.h"

#include "base/fd.h"
#include "base/log.h"
#include "dataplane/dataplane.h"
#include "netlink/nflog.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    TURN_MS = 100,        /* after each reading nothing is read for this long */
    LINES_A_SECOND = 100, /* more lines than this are not written, but counted */
    READ_A_TURN = 1000,   /* what else comes the socket has no room for: a gap in the numbers */
    NAMES_A_TURN = 20,    /* a name is looked for in all endpoints */
    LOST_MS = 10000,      /* losses are said at most this often */
};

struct packetlog {
    struct loop *loop;
    const struct calc *calc;
    struct str prefix;
    struct arena a;
    int fd;
    struct loop_poll *poll;
    struct loop_timer *turn, *lost_timer;
    uint32_t next_seq;
    bool is_first_read;
    int64_t window_ns; /* start of the second that lines are counted in */
    unsigned n_lines;
    uint64_t lost;
    size_t n_names;
};

/* ---- a packet as text ---- */

static uint16_t be16(const uint8_t *p) {
    return (uint16_t)(p[0] << 8 | p[1]);
}

struct heads {
    struct ip46 src, dst;
    uint8_t protocol;
    size_t transport; /* offset */
    bool has_transport;
};

/* False: not the head of an IP packet. Extension headers of IPv6 are not followed. */
static bool parse_heads(struct str payload, struct heads *h) {
    const uint8_t *p = (const uint8_t *)payload.p;
    *h = (struct heads){.protocol = 0};
    if (payload.n >= 20 && p[0] >> 4 == 4) {
        h->src.family = h->dst.family = IP_V4;
        memcpy(h->src.b, p + 12, 4);
        memcpy(h->dst.b, p + 16, 4);
        h->protocol = p[9];
        h->transport = (size_t)(p[0] & 15) * 4;
        h->has_transport = h->transport >= 20 && (be16(p + 6) & 0x1fff) == 0;
        return true;
    }
    if (payload.n >= 40 && p[0] >> 4 == 6) {
        h->src.family = h->dst.family = IP_V6;
        memcpy(h->src.b, p + 8, 16);
        memcpy(h->dst.b, p + 24, 16);
        h->protocol = p[6];
        h->transport = 40;
        h->has_transport = true;
        return true;
    }
    return false;
}

static void put_protocol(struct buf *out, uint8_t protocol) {
    static const struct {
        uint8_t number;
        const char *name;
    } names[] = {{IPPROTO_TCP, "TCP"},   {IPPROTO_UDP, "UDP"},       {IPPROTO_SCTP, "SCTP"},
                 {IPPROTO_ICMP, "ICMP"}, {IPPROTO_ICMPV6, "ICMPv6"}, {IPPROTO_UDPLITE, "UDPLite"}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (names[i].number == protocol) {
            buf_printf(out, " protocol=%s", names[i].name);
            return;
        }
    }
    buf_printf(out, " protocol=%u", protocol);
}

void packetlog_line(struct buf *out, struct str rule, struct str payload,
                    void (*name)(void *arg, const struct ip46 *ip, struct buf *out), void *arg) {
    struct heads h;
    buf_puts(out, "rule=");
    buf_puts(out, log_quote(rule));
    if (!parse_heads(payload, &h)) {
        return;
    }
    char text[IP_TEXT_MAX];
    const uint8_t *t = (const uint8_t *)payload.p + h.transport;
    size_t n = h.has_transport && payload.n > h.transport ? payload.n - h.transport : 0;
    bool has_ports = n >= 4 && (h.protocol == IPPROTO_TCP || h.protocol == IPPROTO_UDP ||
                                h.protocol == IPPROTO_SCTP || h.protocol == IPPROTO_UDPLITE);
    put_protocol(out, h.protocol);
    const struct ip46 *ends[] = {&h.src, &h.dst};
    static const char *const words[] = {"src", "dst"};
    for (size_t i = 0; i < 2; i++) {
        buf_printf(out, " %s=%s", words[i], ip_text(ends[i], text));
        if (has_ports) {
            buf_printf(out, " %s_port=%u", words[i], be16(t + 2 * i));
        }
        MG_CLEANUP(buf_fini) struct buf who = BUF_INIT(1024);
        if (name) {
            name(arg, ends[i], &who);
        }
        if (who.n) {
            buf_printf(out, " %s_pod=%s", words[i], log_quote(buf_view(&who)));
        }
    }
    if (n >= 2 && (h.protocol == IPPROTO_ICMP || h.protocol == IPPROTO_ICMPV6)) {
        buf_printf(out, " icmp_type=%u icmp_code=%u", t[0], t[1]);
    }
}

/* ---- from the kernel ---- */

static void name_of(void *arg, const struct ip46 *ip, struct buf *out) {
    struct packetlog *p = arg;
    if (p->n_names < NAMES_A_TURN) {
        p->n_names++;
        calc_name_of(p->calc, ip, out);
    }
}

static void on_packet(void *arg, const struct nflog_packet *k) {
    struct packetlog *p = arg;
    if (!p->is_first_read) {
        p->lost += k->seq - p->next_seq;
    }
    p->is_first_read = false;
    p->next_seq = k->seq + 1;
    if (p->n_lines >= LINES_A_SECOND) {
        p->lost++;
        return;
    }
    p->n_lines++;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
    packetlog_line(&b, k->prefix, k->payload, name_of, p);
    LOG_I("policy", "packet", "prefix=%s %s", log_quote(p->prefix), buf_cstr(&b));
}

static void say_losses(void *arg) {
    struct packetlog *p = arg;
    if (p->lost) {
        LOG_W("policy", "packets_not_logged", "lost=%llu counted_by=\"margay policy counters\"",
              (unsigned long long)p->lost);
    }
    p->lost = 0;
}

static void on_turn(void *arg) {
    struct packetlog *p = arg;
    loop_poll_set(p->poll, LOOP_READ);
}

static void on_readable(void *arg, unsigned events) {
    struct packetlog *p = arg;
    (void)events;
    bool is_lost;
    p->n_names = 0;
    if (loop_now_ns(p->loop) - p->window_ns >= 1000000000) {
        p->window_ns = loop_now_ns(p->loop);
        p->n_lines = 0;
    }
    (void)nflog_read(p->fd, READ_A_TURN, on_packet, p, &is_lost);
    loop_poll_set(p->poll, 0);
    loop_timer_start(p->turn, TURN_MS, 0);
}

struct packetlog *packetlog_new(struct loop *l, const struct calc *c, struct str prefix,
                                struct err *e) {
    struct packetlog *p = calloc(1, sizeof(*p));
    mg_assert(p != NULL);
    *p = (struct packetlog){.loop = l, .calc = c, .fd = -1, .is_first_read = true};
    p->prefix = arena_dup(&p->a, prefix);
    if (nflog_open(DATAPLANE_LOG_GROUP, &p->fd, e) < 0) {
        packetlog_free(p);
        return NULL;
    }
    p->poll = loop_poll_new(l, p->fd, LOOP_READ, on_readable, p);
    p->turn = loop_timer_new(l, on_turn, p);
    p->lost_timer = loop_timer_new(l, say_losses, p);
    loop_timer_start(p->lost_timer, LOST_MS, LOST_MS);
    return p;
}

void packetlog_free(struct packetlog *p) {
    if (p) {
        loop_poll_free(p->poll);
        loop_timer_free(p->turn);
        loop_timer_free(p->lost_timer);
        fd_close(&p->fd);
        arena_fini(&p->a);
        free(p);
    }
}
