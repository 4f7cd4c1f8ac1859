/* Whole sessions: an engine with three peers, of which the first says what the fuzzer wants (raw
 * bytes, and bodies behind a good header), the second listens and answers properly, the third
 * comes and goes. Connections break, time passes, routes of our own come and go, configuration
 * changes. Checked: what the engine sends is well formed; it never sends to a connection that is
 * over; when all peers are gone, nothing is left of their routes. */
#include "base/hash.h"
#include "bgp/speaker.h"
#include "bgp/update.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { PEERS = 3, CONNS = 256 };
#define S_NS 1000000000LL

struct world {
    struct speaker *s;
    int64_t now;
    uint32_t asked[PEERS + 1], conn[PEERS + 1]; /* by peer */
    uint32_t over[CONNS];
    unsigned n_over, how;
    bool is_slow;
};

static void check(bool ok) {
    if (!ok) {
        abort();
    }
}

static void on_connect(void *user, uint32_t conn, uint16_t peer) {
    struct world *w = user;
    if (peer <= PEERS) {
        w->asked[peer] = conn;
    }
}

static void messages(const uint8_t *p, size_t n) {
    while (n) {
        struct bgp_fail f;
        check(n >= BGP_HEADER);
        int len = bgp_header(p, BGP_MAX_EXT, &f);
        check(len > 0 && (size_t)len <= n);
        struct bgp_open o;
        check(p[18] != BGP_OPEN ||
              bgp_open_parse(p + BGP_HEADER, (size_t)len - BGP_HEADER, &o, &f) == 0);
        p += len;
        n -= (size_t)len;
    }
}

static void on_close(void *user, uint32_t conn, const void *last, size_t n) {
    struct world *w = user;
    for (unsigned i = 0; i < w->n_over; i++) {
        check(w->over[i] != conn); /* each is closed once */
    }
    messages(last, n); /* only whole messages were taken below */
    if (w->n_over < CONNS) {
        w->over[w->n_over++] = conn;
    }
    for (unsigned i = 1; i <= PEERS; i++) {
        w->conn[i] = w->conn[i] == conn ? 0 : w->conn[i];
        w->asked[i] = w->asked[i] == conn ? 0 : w->asked[i];
    }
}

static void on_wake(void *user, uint32_t conn) {
    const struct world *w = user;
    for (unsigned i = 0; i < w->n_over; i++) {
        check(w->over[i] != conn);
    }
}

static void on_route(void *user, const struct speaker_route *r) {
    (void)user;
    check(r->n_hops <= 64 && r->prefix.len <= ip_bits(&r->prefix.ip));
}

static void on_nexthop(void *user, const struct ip46 *ip, const struct ip46 *link_local,
                       uint16_t peer, bool is_watched) {
    (void)user, (void)link_local, (void)peer, (void)is_watched;
    check(ip->family != IP_NONE);
}

static const struct speaker_ops OPS = {
    .connect = on_connect, .close = on_close, .wake = on_wake, .route = on_route};
static const struct speaker_ops OPS_HOPS = {.connect = on_connect,
                                            .close = on_close,
                                            .wake = on_wake,
                                            .route = on_route,
                                            .nexthop = on_nexthop};

/* All that is said to peer i is well formed UPDATEs by the rules of its session. */
static void listen_to(struct world *w, unsigned i) {
    static struct update_scratch scratch = UPDATE_SCRATCH_INIT;
    while (w->conn[i]) {
        struct str out = speaker_output(w->s, w->conn[i], w->now);
        if (!out.n) {
            return;
        }
        messages((const uint8_t *)out.p, out.n);
        bool is_ibgp = i == 2 && (w->how & 4);
        struct peer_status st;
        check(speaker_peer_status(w->s, (uint16_t)i, &st));
        struct bgp_rx rx = {.is_internal = is_ibgp,
                            .as4 = true,
                            .mp = {true, true},
                            .addpath = {st.family[0].addpath_send, st.family[1].addpath_send},
                            .v4_over_v6 = true};
        for (size_t at = 0; i == 2 && at < out.n; at += get_u16((const uint8_t *)out.p + at + 16)) {
            const uint8_t *m = (const uint8_t *)out.p + at;
            struct bgp_update u;
            struct bgp_fail f;
            if (m[18] == BGP_UPDATE) {
                enum bgp_update_verdict v = bgp_update_parse(
                    m + BGP_HEADER, get_u16(m + 16) - (size_t)BGP_HEADER, &rx, &scratch, &u, &f);
                check(v == UPDATE_OK && !u.error);
            }
        }
        speaker_sent(w->s, w->conn[i], out.n, w->now);
    }
}

static void pull(struct world *w) {
    for (unsigned i = 1; i <= PEERS; i++) {
        if (i != 2 || !w->is_slow) {
            listen_to(w, i);
        }
    }
}

static void run(struct world *w, int64_t t) {
    int64_t end = w->now + t;
    for (unsigned k = 0; k < 2000; k++) {
        pull(w);
        int64_t at = speaker_deadline(w->s);
        if (at > end) {
            break;
        }
        w->now = at > w->now ? at : w->now;
        speaker_tick(w->s, w->now);
    }
    w->now = end > w->now ? end : w->now;
    pull(w);
}

static struct ip46 address(unsigned i) {
    return (struct ip46){.family = IP_V4, .b = {10, 0, 0, (uint8_t)i}};
}

static uint32_t as_of(const struct world *w, unsigned i) {
    return i == 2 && (w->how & 4) ? 64512 : 65000 + i;
}

static void set_peer(struct world *w, unsigned i, unsigned how) {
    static const char *const NAMES[] = {"", "a", "b", "c"};
    struct filter_rule rule = {.has_len = how & 64,
                               .len_min = 8,
                               .len_max = 24,
                               .action = FILTER_ACCEPT,
                               .n_ops = 2,
                               .ops = {{.kind = OP_ADD_COMMUNITY, .n = 4, .bytes = {1, 2, 3, 4}},
                                       {.kind = OP_PREPEND, .n = 2, .as = {7, 8}}}};
    struct bgp_filter *f = how & 32 ? bgp_filter_new(&rule, 1, FILTER_REJECT) : NULL;
    struct peer_config c = {
        .name = str_c(NAMES[i]),
        .address = address(i),
        .as = as_of(w, i),
        .is_passive = i != 3,
        .delay_open_s = how & 16 ? 5 : 0,
        .role = i == 1 && (how & 16) ? BGP_ROLE_CUSTOMER : BGP_ROLE_NONE,
        .gr = how & 2 ? GR_ENABLED : GR_DISABLED,
        .extended_message = how & 1,
        .extended_next_hop = true,
        .is_rr_client = how & 4,
        .is_rs_client = i == 1 && (how & 128),
        .family = {{.is_enabled = true, .max_prefixes = 500, .llgr_time_s = how & 2 ? 60 : 0},
                   {.is_enabled = true}}};
    for (int k = 0; k < BGP_N_FAMILIES; k++) {
        c.family[k].addpath = how & 8 ? BGP_ADDPATH_SEND | BGP_ADDPATH_RECEIVE : 0;
        c.family[k].import = i == 1 ? f : NULL;
        c.family[k].export = i == 2 ? f : NULL;
    }
    check(speaker_peer_set(w->s, &c, w->now) == i);
    bgp_filter_unref(f);
}

/* Peer i's OPEN and KEEPALIVE on its connection, as its configuration wants them. */
static void greet(struct world *w, unsigned i) {
    struct bgp_open o = {.as = as_of(w, i),
                         .hold_s = 90,
                         .id = i,
                         .caps = {.has_mp = true,
                                  .mp = {true, true},
                                  .has_refresh = true,
                                  .has_enhanced_refresh = true,
                                  .has_extended_message = true,
                                  .has_as4 = true,
                                  .as4 = as_of(w, i),
                                  .has_v4_over_v6 = true,
                                  .addpath = {3, 3},
                                  .has_gr = true,
                                  .gr_notification = true,
                                  .gr_time_s = 30,
                                  .gr = {true, true},
                                  .gr_forwarding = {true, true},
                                  .has_llgr = true,
                                  .llgr = {true, false},
                                  .llgr_forwarding = {true, false},
                                  .llgr_time_s = {100, 0},
                                  .role = BGP_ROLE_NONE}};
    struct buf b = BUF_INIT(BGP_MAX);
    bgp_open_write(&b, &o);
    bgp_keepalive_write(&b);
    speaker_input(w->s, w->conn[i], b.p, b.n, w->now);
    buf_fini(&b);
}

static void come(struct world *w, unsigned i, bool with_greeting) {
    struct ip46 local = address(254), remote = address(i);
    if (w->conn[i]) {
        return;
    }
    if (w->asked[i]) {
        w->conn[i] = w->asked[i];
        w->asked[i] = 0;
        speaker_connected(w->s, w->conn[i], &local, w->now);
    } else {
        w->conn[i] = speaker_accept(w->s, &remote, &local, 0, w->now);
    }
    if (w->conn[i] && with_greeting) {
        greet(w, i);
    }
}

static void go(struct world *w, unsigned i) {
    if (w->conn[i]) {
        uint32_t conn = w->conn[i];
        w->conn[i] = 0;
        speaker_closed(w->s, conn, w->now);
    }
}

static void own_route(struct world *w, unsigned x) {
    struct local_route r = {
        .source = ROUTE_STATIC,
        .prefix = {.ip = {.family = IP_V4, .b = {10, (uint8_t)(x >> 1)}}, .len = 16}};
    r.attrs.origin = x & 1;
    if (x & 1) {
        speaker_originate(w->s, &r, w->now);
    } else {
        (void)speaker_withdraw(w->s, &r.prefix, ROUTE_STATIC, w->now);
    }
}

/* A message with a good header around bytes of the fuzzer. */
static void say(struct world *w, uint8_t type, const uint8_t *p, size_t n) {
    struct buf b = BUF_INIT(BGP_MAX);
    for (unsigned i = 0; i < 16; i++) {
        wr_u8(&b, 0xff);
    }
    wr_u16(&b, BGP_HEADER + (unsigned)n);
    wr_u8(&b, type);
    buf_add(&b, p, n);
    speaker_input(w->s, w->conn[1], b.p, b.n, w->now);
    buf_fini(&b);
}

static void do_one(struct world *w, uint8_t op, uint8_t x, const uint8_t *p, size_t n) {
    struct ip46 hop = address(x), none = {0};
    struct buf text = BUF_INIT(1 << 16);
    struct prefix prefix = {.ip = {.family = IP_V4, .b = {10, x}}, .len = 16};
    switch (op % 16) {
    case 0:
        speaker_input(w->s, w->conn[1], p, n, w->now);
        break;
    case 1:
    case 2:
    case 3:
        say(w, BGP_UPDATE, p, n);
        break;
    case 4:
        say(w, x % 8, p, n);
        break;
    case 5:
        run(w, x * S_NS / 4);
        break;
    case 6:
        come(w, 1, x & 1);
        break;
    case 7:
        go(w, 1 + x % PEERS);
        break;
    case 8:
        come(w, 1 + x % PEERS, true);
        break;
    case 9:
        own_route(w, x);
        break;
    case 10:
        set_peer(w, 1 + x % PEERS, n ? p[0] : 0);
        break;
    case 11:
        speaker_peer_refresh(w->s, (uint16_t)(1 + x % PEERS), w->now);
        speaker_peer_reset(w->s, (uint16_t)(1 + x / 4 % PEERS), x & 1, STR("x"), w->now);
        break;
    case 12:
        w->is_slow = x & 1;
        break;
    case 13:
        speaker_nexthop_set(w->s, &hop, &none, x & 1, x, STR("eth0"), w->now);
        break;
    case 14:
        speaker_explain(w->s, &prefix, 0, &text);
        break;
    default:
        if (w->conn[2]) {
            static const uint8_t REFRESH[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                              0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                              0,    23,   5,    0,    1,    0,    1};
            speaker_input(w->s, w->conn[2], REFRESH, sizeof(REFRESH), w->now);
        }
    }
    buf_fini(&text);
    run(w, 0);
}

static void end(struct world *w) {
    w->is_slow = false;
    struct prefix p = {.ip = {.family = IP_V4, .b = {10}}, .len = 16};
    for (unsigned i = 0; i < 128; i++) {
        p.ip.b[1] = (uint8_t)i;
        (void)speaker_withdraw(w->s, &p, ROUTE_STATIC, w->now);
    }
    check(speaker_peer_del(w->s, STR("a"), w->now));
    check(speaker_peer_del(w->s, STR("b"), w->now));
    check(speaker_peer_del(w->s, STR("c"), w->now));
    run(w, 10 * S_NS);
    struct speaker_stats st;
    speaker_stats(w->s, &st);
    check(st.n_prefixes[0] == 0 && st.n_prefixes[1] == 0 && st.n_routes == 0 && st.n_out == 0);
    check(st.n_groups == 0 && st.n_attrs == 0 && st.n_next_hops == 0 && st.n_peers == 0);
    speaker_free(w->s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 3) {
        return 0;
    }
    struct world w = {.now = S_NS, .how = data[0]};
    struct speaker_config cfg = {.as = 64512,
                                 .router_id = 0x0a0000fe,
                                 .max_paths = 1 + data[1] % 4,
                                 .multipath_relax = data[1] & 4,
                                 .is_restarting = data[1] & 8,
                                 .seed = 1};
    w.s = speaker_new(&cfg, data[1] & 16 ? &OPS_HOPS : &OPS, &w, w.now);
    for (unsigned i = 1; i <= PEERS; i++) {
        set_peer(&w, i, w.how);
    }
    run(&w, 0);
    come(&w, 1, true);
    come(&w, 2, true);
    run(&w, 0);
    for (size_t at = 2; at + 3 <= n;) {
        uint8_t op = data[at], x = data[at + 1];
        size_t len = data[at + 2];
        at += 3;
        len = len < n - at ? len : n - at;
        do_one(&w, op, x, data + at, len);
        at += len;
    }
    end(&w);
    return 0;
}
