/* Sessions of BFD: the state machine of RFC 5880 section 6.8, its timers, and which session a
 * datagram belongs to. */
#include "bgp/bfd.h"

#include "base/hash.h"
#include "base/vec.h"

#include <stdlib.h>

/* While a session is not up it sends no faster than this (section 6.8.3). */
#define SLOW_TX_US 1000000U
#define NEVER INT64_MAX

struct bfd_session {
    struct bfd_config c;
    void *user;
    uint32_t id, remote_id; /* bfd.LocalDiscr, bfd.RemoteDiscr (0: not known) */
    enum bfd_state state, remote_state;
    enum bfd_diag diag, remote_diag;
    bool is_dead; /* deleted while the table is walked */
    bool is_polling, is_remote_demand;
    uint32_t desired_tx_us, required_rx_us; /* what our packets say */
    uint32_t tx_floor_us, rx_floor_us;      /* in force: follow the above when the poll has ended */
    uint32_t remote_min_tx_us, remote_min_rx_us;
    uint8_t remote_multiplier;
    int64_t since_ns, heard_ns, next_tx_ns; /* heard_ns 0: nothing yet */
    int64_t detect_ns;                      /* when silence becomes failure; NEVER: not watched */
    uint64_t n_in, n_out, n_failures;
};

#define MAP_NAME id_map
#define MAP_KEY uint32_t
#define MAP_VAL struct bfd_session *
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"

struct bfd {
    struct bfd_ops ops;
    void *arg;
    uint64_t random;
    struct id_map ids;
    VEC(struct bfd_session *) all;
    bool is_walking;
    uint64_t n_dropped;
};

static uint64_t next_random(struct bfd *b) {
    b->random += 0x9e3779b97f4a7c15ULL;
    return hash_u64(b->random);
}

struct bfd *bfd_new(const struct bfd_ops *ops, void *arg, uint64_t seed) {
    struct bfd *b = calloc(1, sizeof(*b));
    mg_assert(b);
    b->ops = *ops;
    b->arg = arg;
    b->random = seed;
    return b;
}

void bfd_free(struct bfd *b) {
    if (!b) {
        return;
    }
    for (size_t i = 0; i < b->all.n; i++) {
        free(b->all.p[i]);
    }
    vec_fini(&b->all);
    id_map_fini(&b->ids);
    free(b);
}

/* ---- intervals ---- */

static uint32_t max_u32(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

/* Section 6.8.7; 0: the peer wants no packets. */
static uint32_t tx_interval_us(const struct bfd_session *s) {
    return s->remote_min_rx_us == 0 ? 0 : max_u32(s->tx_floor_us, s->remote_min_rx_us);
}

/* Section 6.8.4. */
static int64_t detection_us(const struct bfd_session *s) {
    return (int64_t)s->remote_multiplier * max_u32(s->rx_floor_us, s->remote_min_tx_us);
}

/* The next packet, with the jitter of section 6.8.7: 75 to 100 %, to 90 % with a multiplier of 1.
 */
static void schedule_tx(struct bfd *b, struct bfd_session *s, int64_t from_ns) {
    int64_t us = tx_interval_us(s);
    if (us == 0 || (s->is_remote_demand && s->state == BFD_UP && s->remote_state == BFD_UP &&
                    !s->is_polling)) {
        s->next_tx_ns = NEVER;
        return;
    }
    uint64_t percent = 75 + next_random(b) % (s->c.multiplier == 1 ? 16 : 26);
    s->next_tx_ns = from_ns + us * (int64_t)percent * 10;
}

/* Sooner, never later: a shorter interval counts from now on. */
static void reschedule_tx(struct bfd *b, struct bfd_session *s, int64_t now_ns) {
    int64_t old = s->next_tx_ns;
    schedule_tx(b, s, now_ns);
    if (old < s->next_tx_ns && s->next_tx_ns != NEVER) {
        s->next_tx_ns = old;
    }
}

static void watch(struct bfd_session *s) {
    s->detect_ns =
        s->heard_ns && s->remote_multiplier ? s->heard_ns + detection_us(s) * 1000 : NEVER;
}

/* Sets what our packets say; a running session changes over when the peer has answered the poll,
 * except where the change makes it more patient at once (section 6.8.3). */
static void set_intervals(struct bfd_session *s, uint32_t tx_us, uint32_t rx_us) {
    if (s->desired_tx_us == tx_us && s->required_rx_us == rx_us) {
        return;
    }
    s->desired_tx_us = tx_us;
    s->required_rx_us = rx_us;
    if (s->state != BFD_UP) {
        s->tx_floor_us = tx_us;
        s->rx_floor_us = rx_us;
        return;
    }
    s->is_polling = true;
    if (tx_us < s->tx_floor_us) {
        s->tx_floor_us = tx_us;
    }
    if (rx_us > s->rx_floor_us) {
        s->rx_floor_us = rx_us;
    }
}

static void use_state_intervals(struct bfd_session *s) {
    uint32_t tx = s->c.min_tx_us;
    set_intervals(s, s->state == BFD_UP ? tx : max_u32(tx, SLOW_TX_US), s->c.min_rx_us);
}

/* ---- out ---- */

static void send_packet(struct bfd *b, struct bfd_session *s, bool is_final) {
    struct bfd_packet k = {
        .diag = (uint8_t)s->diag,
        .state = (uint8_t)s->state,
        .multiplier = s->c.multiplier,
        .is_poll = s->is_polling && !is_final, /* never both (section 4.1) */
        .is_final = is_final,
        .my_id = s->id,
        .your_id = s->remote_id,
        .min_tx_us = s->desired_tx_us,
        .min_rx_us = s->required_rx_us,
    };
    uint8_t out[BFD_PACKET];
    bfd_write(&k, out);
    s->n_out++;
    b->ops.send(b->arg, s, out);
}

static void set_state(struct bfd *b, struct bfd_session *s, enum bfd_state state,
                      enum bfd_diag diag, int64_t now_ns) {
    bool was_up = s->state == BFD_UP;
    bool is_failure = was_up && s->remote_state != BFD_ADMIN_DOWN;
    s->state = state;
    s->diag = diag;
    s->since_ns = now_ns;
    s->n_failures += is_failure;
    if (state != BFD_UP) {
        s->is_polling = false;
    }
    use_state_intervals(s);
    if (was_up) {
        send_packet(b, s, false); /* the peer need not wait for its own detection */
    }
    schedule_tx(b, s, now_ns);
    b->ops.on_state(b->arg, s, is_failure);
}

/* ---- sessions ---- */

struct bfd_session *bfd_add(struct bfd *b, const struct bfd_config *c, void *user, int64_t now_ns) {
    if (b->all.n >= BFD_SESSIONS_MAX) {
        return NULL;
    }
    mg_assert(c->multiplier && c->min_tx_us && c->min_rx_us);
    struct bfd_session *s = calloc(1, sizeof(*s));
    mg_assert(s);
    do {
        s->id = (uint32_t)next_random(b);
    } while (s->id == 0 || id_map_get(&b->ids, s->id));
    s->c = *c;
    s->user = user;
    s->state = s->remote_state = BFD_DOWN;
    s->since_ns = now_ns;
    s->remote_min_rx_us = 1; /* section 6.8.1 */
    s->detect_ns = NEVER;
    use_state_intervals(s);
    s->next_tx_ns = now_ns;
    *id_map_put(&b->ids, s->id, NULL) = s;
    vec_push(&b->all, s);
    return s;
}

static void sweep(struct bfd *b) {
    for (size_t i = b->all.n; i-- > 0;) {
        if (b->all.p[i]->is_dead) {
            free(b->all.p[i]);
            vec_swap_remove(&b->all, i);
        }
    }
}

void bfd_del(struct bfd *b, struct bfd_session *s, int64_t now_ns) {
    s->state = BFD_ADMIN_DOWN;
    s->diag = BFD_DIAG_ADMIN_DOWN;
    s->since_ns = now_ns;
    s->is_polling = false;
    send_packet(b, s, false);
    s->is_dead = true;
    s->next_tx_ns = s->detect_ns = NEVER;
    (void)id_map_del(&b->ids, s->id);
    if (!b->is_walking) {
        sweep(b);
    }
}

void bfd_change(struct bfd *b, struct bfd_session *s, const struct bfd_config *c, int64_t now_ns) {
    bool new_multiplier = s->c.multiplier != c->multiplier;
    s->c.min_tx_us = c->min_tx_us;
    s->c.min_rx_us = c->min_rx_us;
    s->c.multiplier = c->multiplier;
    use_state_intervals(s);
    if (s->is_polling || new_multiplier) {
        send_packet(b, s, false);
    }
    reschedule_tx(b, s, now_ns);
    watch(s);
}

void *bfd_user(const struct bfd_session *s) {
    return s->user;
}

const struct bfd_config *bfd_config_of(const struct bfd_session *s) {
    return &s->c;
}

void bfd_status_get(const struct bfd_session *s, struct bfd_status *out) {
    int64_t detection = s->remote_multiplier ? detection_us(s) : 0;
    *out = (struct bfd_status){
        .state = s->state,
        .remote_state = s->remote_state,
        .diag = s->diag,
        .remote_diag = s->remote_diag,
        .since_ns = s->since_ns,
        .id = s->id,
        .remote_id = s->remote_id,
        .tx_us = tx_interval_us(s),
        .detection_us = detection > UINT32_MAX ? UINT32_MAX : (uint32_t)detection,
        .n_in = s->n_in,
        .n_out = s->n_out,
        .n_failures = s->n_failures,
    };
}

/* ---- in ---- */

/* Whom a datagram is for: by discriminator, or, the first of all, by where it came from. The
 * addresses must fit in both cases: a discriminator alone can be guessed. */
static struct bfd_session *find(struct bfd *b, uint32_t your_id, const struct bfd_meta *m) {
    if (your_id) {
        struct bfd_session **at = id_map_get(&b->ids, your_id);
        struct bfd_session *s = at ? *at : NULL;
        return s && ip_eq(&s->c.peer, &m->from) && s->c.is_multihop == m->is_multihop ? s : NULL;
    }
    for (size_t i = 0; i < b->all.n; i++) {
        struct bfd_session *s = b->all.p[i];
        if (!s->is_dead && s->c.is_multihop == m->is_multihop && ip_eq(&s->c.peer, &m->from) &&
            (s->c.is_multihop || s->c.ifindex == 0 || s->c.ifindex == m->ifindex) &&
            (s->c.local.family == IP_NONE || m->to.family == IP_NONE ||
             ip_eq(&s->c.local, &m->to))) {
            return s;
        }
    }
    return NULL;
}

/* The heart of section 6.8.6. */
static void advance(struct bfd *b, struct bfd_session *s, enum bfd_state got, int64_t now_ns) {
    if (got == BFD_ADMIN_DOWN) {
        if (s->state != BFD_DOWN) {
            set_state(b, s, BFD_DOWN, BFD_DIAG_NEIGHBOUR_DOWN, now_ns);
        }
        return;
    }
    switch (s->state) {
    case BFD_ADMIN_DOWN:
        return;
    case BFD_DOWN:
        if (got == BFD_DOWN) {
            set_state(b, s, BFD_INIT, BFD_DIAG_NONE, now_ns);
        } else if (got == BFD_INIT) {
            set_state(b, s, BFD_UP, BFD_DIAG_NONE, now_ns);
        }
        return;
    case BFD_INIT:
        if (got == BFD_INIT || got == BFD_UP) {
            set_state(b, s, BFD_UP, BFD_DIAG_NONE, now_ns);
        }
        return;
    case BFD_UP:
        if (got == BFD_DOWN) {
            set_state(b, s, BFD_DOWN, BFD_DIAG_NEIGHBOUR_DOWN, now_ns);
        }
        return;
    }
}

static void take(struct bfd *b, struct bfd_session *s, const struct bfd_packet *k, int64_t now_ns) {
    s->n_in++;
    s->heard_ns = now_ns;
    s->remote_id = k->my_id;
    s->remote_state = (enum bfd_state)k->state;
    s->remote_diag = (enum bfd_diag)k->diag;
    s->is_remote_demand = k->is_demand;
    s->remote_multiplier = k->multiplier;
    bool new_rate = s->remote_min_rx_us != k->min_rx_us;
    s->remote_min_rx_us = k->min_rx_us;
    s->remote_min_tx_us = k->min_tx_us;
    if (s->is_polling && k->is_final) {
        s->is_polling = false;
        s->tx_floor_us = s->desired_tx_us;
        s->rx_floor_us = s->required_rx_us;
        new_rate = true;
    }
    if (new_rate) {
        reschedule_tx(b, s, now_ns);
    }
    watch(s);
    advance(b, s, s->remote_state, now_ns);
    if (!s->is_dead) {
        watch(s);
        if (k->is_poll) {
            send_packet(b, s, true);
        }
    }
}

void bfd_input(struct bfd *b, const uint8_t *p, size_t n, const struct bfd_meta *m,
               int64_t now_ns) {
    struct bfd_packet k;
    struct bfd_session *s = NULL;
    /* RFC 5881 section 5: without authentication a single hop is 255 hops from everyone else. */
    if ((m->is_multihop || m->ttl == 255) && bfd_parse(p, n, &k) == 0 && !k.has_auth) {
        s = find(b, k.your_id, m);
    }
    if (!s) {
        b->n_dropped++;
        return;
    }
    b->is_walking = true;
    take(b, s, &k, now_ns);
    b->is_walking = false;
    sweep(b);
}

/* ---- time ---- */

int64_t bfd_next_ns(const struct bfd *b) {
    int64_t next = NEVER;
    for (size_t i = 0; i < b->all.n; i++) {
        const struct bfd_session *s = b->all.p[i];
        next = s->next_tx_ns < next ? s->next_tx_ns : next;
        next = s->detect_ns < next ? s->detect_ns : next;
    }
    return next;
}

static void expire(struct bfd *b, struct bfd_session *s, int64_t now_ns) {
    s->detect_ns = NEVER;
    s->heard_ns = 0;
    s->remote_id = 0; /* section 6.8.1 */
    /* The peer's last word is not its state any more: silence is a failure, whatever it was. */
    s->remote_state = BFD_DOWN;
    s->remote_min_rx_us = 1;
    s->is_remote_demand = false;
    if (s->state == BFD_INIT || s->state == BFD_UP) {
        set_state(b, s, BFD_DOWN, BFD_DIAG_EXPIRED, now_ns);
    } else {
        reschedule_tx(b, s, now_ns);
    }
}

void bfd_tick(struct bfd *b, int64_t now_ns) {
    b->is_walking = true;
    for (size_t i = 0; i < b->all.n; i++) { /* callbacks may add sessions: by index */
        struct bfd_session *s = b->all.p[i];
        if (s->detect_ns <= now_ns) {
            expire(b, s, now_ns);
        }
        if (!s->is_dead && s->next_tx_ns <= now_ns) {
            send_packet(b, s, false);
            schedule_tx(b, s, now_ns);
        }
    }
    b->is_walking = false;
    sweep(b);
}

uint64_t bfd_dropped(const struct bfd *b) {
    return b->n_dropped;
}
