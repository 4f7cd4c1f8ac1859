#include "controllers/leader.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/lease.h"
#include "store/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LEASE_KEY "Lease.coordination.k8s.io/kube-system/margay-controllers"
#define ETCD_SPACE "election" /* "/margay/election/controllers" */
#define ETCD_KEY "controllers"

/* ---- the rules ---- */

static uint64_t hash_of(const struct jnode *record) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 16);
    json_write(&b, jnode_getc(record, "spec"), 0);
    return hash_str(buf_view(&b));
}

enum leader_move leader_decide(struct leader_seen *seen, const struct jnode *record, struct str own,
                               int64_t now_ns) {
    if (!record) {
        seen->has_record = false;
        return LEADER_TAKE;
    }
    struct str holder = jnode_str(jnode_path(record, "spec.holderIdentity"));
    if (str_eq(holder, own)) {
        return LEADER_RENEW;
    }
    if (holder.n == 0) {
        return LEADER_TAKE; /* given up */
    }
    uint64_t hash = hash_of(record);
    if (!seen->has_record || seen->record_hash != hash) {
        *seen = (struct leader_seen){true, hash, now_ns};
        return LEADER_WAIT;
    }
    const struct jnode *d = jnode_path(record, "spec.leaseDurationSeconds");
    int64_t s = d && d->type == J_INT && d->i > 0 && d->i < 86400 ? d->i : LEADER_LEASE_S;
    return now_ns - seen->since_ns >= s * 1000000000 ? LEADER_TAKE : LEADER_WAIT;
}

static struct str micro_time(int64_t wall_ns, struct arena *a) {
    char text[32];
    time_t s = (time_t)(wall_ns / 1000000000);
    struct tm tm;
    (void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", gmtime_r(&s, &tm));
    return arena_printf(a, "%s.%06lldZ", text, (long long)(wall_ns % 1000000000 / 1000));
}

struct jnode *leader_record(const struct jnode *old, struct str own, int64_t wall_ns,
                            struct arena *a) {
    struct jnode *doc = old ? jnode_copy(a, old) : jnode_new(a, J_MAP);
    struct jnode *spec = jnode_getc(doc, "spec");
    struct str now = micro_time(wall_ns, a);
    if (!old) {
        struct jnode *meta = jnode_new(a, J_MAP);
        jnode_set(a, doc, STR("apiVersion"), jnode_new_str(a, STR("coordination.k8s.io/v1")));
        jnode_set(a, doc, STR("kind"), jnode_new_str(a, STR("Lease")));
        jnode_set(a, meta, STR("name"), jnode_new_str(a, STR("margay-controllers")));
        jnode_set(a, meta, STR("namespace"), jnode_new_str(a, STR("kube-system")));
        jnode_set(a, doc, STR("metadata"), meta);
    }
    if (!spec || spec->type != J_MAP) {
        spec = jnode_new(a, J_MAP);
        jnode_set(a, doc, STR("spec"), spec);
    }
    if (!str_eq(jnode_str(jnode_getc(spec, "holderIdentity")), own)) {
        const struct jnode *n = jnode_getc(spec, "leaseTransitions");
        jnode_set(a, spec, STR("holderIdentity"), jnode_new_str(a, own));
        jnode_set(a, spec, STR("acquireTime"), jnode_new_str(a, now));
        jnode_set(a, spec, STR("leaseTransitions"),
                  jnode_new_int(a, n && n->type == J_INT ? n->i + 1 : 0));
    }
    jnode_set(a, spec, STR("leaseDurationSeconds"), jnode_new_int(a, LEADER_LEASE_S));
    jnode_set(a, spec, STR("renewTime"), jnode_new_str(a, now));
    return doc;
}

/* ---- the runner ---- */

struct leader {
    struct loop *loop;
    struct store *s;
    char *own, holder[256];
    void (*on_change)(void *arg, bool is_leader);
    void *arg;
    struct loop_timer *timer;
    bool is_leader, is_busy, is_dead;
    int64_t good_ns; /* start of the last try that went well */
    /* of the try under way: the worker's */
    struct leader_seen seen;
    int64_t lease; /* of the store, 0: none */
    int64_t started_ns;
    int result; /* 1: ours */
    char try_holder[256];
    struct err e;
    struct log_limit limit;
};

/* Who holds the item that hangs on a lease; "" nobody. */
static int read_holder(struct leader *x, struct store_key key, struct arena *a) {
    struct store_item it;
    struct jnode *doc = NULL;
    x->try_holder[0] = '\0';
    int r = store_get(x->s, key, a, &it, &x->e);
    if (r == 0 && json_parse(it.value, &json_limits_default, a, &doc, NULL) == 0) {
        struct str holder = jnode_str(jnode_getc(doc, "holderIdentity"));
        snprintf(x->try_holder, sizeof(x->try_holder), "%.*s", STR_FMT(holder));
    }
    return r == ERR_NOT_FOUND ? 0 : r;
}

/* The lease is kept whether or not it is of use yet: who waits is there at once when the item goes.
 */
static int keep_lease(struct leader *x) {
    if (x->lease) {
        int r = store_lease_keep(x->s, x->lease, NULL, &x->e);
        if (r != ERR_NOT_FOUND) {
            return r;
        }
        x->lease = 0;
    }
    return store_lease_grant(x->s, LEADER_LEASE_S, &x->lease, NULL, &x->e);
}

static int try_lease(struct leader *x, struct arena *a, bool gives_up) {
    struct store_key key = {STR(ETCD_SPACE), STR(ETCD_KEY)};
    if (gives_up) {
        return x->lease ? store_lease_revoke(x->s, x->lease, &x->e) : 0;
    }
    int64_t before = x->lease;
    int r = keep_lease(x);
    if (r < 0) {
        return r;
    }
    r = read_holder(x, key, a);
    bool is_ours = r == 0 && strcmp(x->try_holder, x->own) == 0;
    if (r < 0 || (x->try_holder[0] && !is_ours) || (is_ours && before == x->lease)) {
        return r < 0 ? r : is_ours;
    }
    if (is_ours) { /* it hangs on a lease that has run out: about to go */
        return 0;
    }
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
    buf_puts(&b, "{\"holderIdentity\":");
    json_quote(&b, str_c(x->own));
    buf_putc(&b, '}');
    r = store_lease_put(x->s, key, buf_view(&b), REV_NONE, x->lease, NULL, &x->e);
    if (r == ERR_EXISTS || r == ERR_CONFLICT) {
        return 0; /* somebody was faster */
    }
    if (r == 0) {
        snprintf(x->try_holder, sizeof(x->try_holder), "%s", x->own);
    }
    return r < 0 ? r : 1;
}

static int try_once(struct leader *x, struct arena *a, bool gives_up) {
    if (store_has_leases(x->s)) {
        return try_lease(x, a, gives_up);
    }
    struct store_key key = {STR(STORE_SPACE_RESOURCES), STR(LEASE_KEY)};
    struct store_item it = {.revision = REV_NONE};
    struct jnode *record = NULL;
    int r = store_get(x->s, key, a, &it, &x->e);
    if (r == 0) {
        r = json_parse(it.value, &json_limits_default, a, &record, &x->e);
    }
    if (r < 0 && r != ERR_NOT_FOUND) {
        return r;
    }
    struct str holder = jnode_str(jnode_path(record, "spec.holderIdentity"));
    snprintf(x->try_holder, sizeof(x->try_holder), "%.*s", STR_FMT(holder));
    enum leader_move move = leader_decide(&x->seen, record, str_c(x->own), clock_ns());
    if (move == LEADER_WAIT || (gives_up && move != LEADER_RENEW)) {
        return 0;
    }
    struct jnode *next = leader_record(record, str_c(x->own), clock_wall_ns(), a);
    if (gives_up) {
        jnode_set(a, jnode_getc(next, "spec"), STR("holderIdentity"), jnode_new_str(a, STR("")));
    }
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 16);
    json_write(&b, next, 0);
    r = store_put(x->s, key, buf_view(&b), it.revision, NULL, &x->e);
    if (r == ERR_CONFLICT || r == ERR_EXISTS) {
        return 0; /* somebody was faster */
    }
    if (r == 0) {
        snprintf(x->try_holder, sizeof(x->try_holder), "%s", x->own);
    }
    return r < 0 ? r : 1;
}

static void set(struct leader *x, bool is_leader) {
    if (x->is_leader != is_leader) {
        x->is_leader = is_leader;
        LOG_I("controllers", "leader", "is_leader=%s holder=%s", is_leader ? "true" : "false",
              log_quote(str_c(x->holder)));
        x->on_change(x->arg, is_leader);
    }
}

static void work(void *arg) {
    struct leader *x = arg;
    struct arena a = {0};
    x->result = try_once(x, &a, false);
    arena_fini(&a);
}

static void done(void *arg) {
    struct leader *x = arg;
    x->is_busy = false;
    if (x->is_dead) {
        return;
    }
    if (x->result < 0 && log_allow(&x->limit, 1, 60)) {
        LOG_W("controllers", "election_failed", "error=%s", log_quote(str_c(x->e.msg)));
    }
    if (x->result >= 0) {
        memcpy(x->holder, x->try_holder, sizeof(x->holder));
    }
    if (x->result == 1) {
        x->good_ns = x->started_ns;
        set(x, true);
    } else if (x->result == 0) {
        set(x, false);
    }
}

static void on_timer(void *arg) {
    struct leader *x = arg;
    int64_t now = clock_ns();
    if (x->is_leader && now - x->good_ns > LEADER_RENEW_S * 1000000000LL) {
        set(x, false);
    }
    if (!x->is_busy) {
        x->is_busy = true;
        x->started_ns = now;
        if (store_is_quick(x->s)) {
            work(x);
            done(x);
        } else {
            loop_work(x->loop, work, done, x);
        }
    }
}

static void elect(void *arg) {
    set(arg, true);
}

struct leader *leader_new(struct loop *l, struct store *s, struct str own,
                          void (*on_change)(void *arg, bool is_leader), void *arg) {
    struct leader *x = calloc(1, sizeof(*x));
    mg_assert(x != NULL);
    x->loop = l;
    x->s = s;
    x->own = strndup(own.p, own.n);
    mg_assert(x->own != NULL);
    x->on_change = on_change;
    x->arg = arg;
    if (!s) {
        snprintf(x->holder, sizeof(x->holder), "%s", x->own);
    }
    x->timer = loop_timer_new(l, s ? on_timer : elect, x);
    loop_timer_start(x->timer, 0, s ? LEADER_RETRY_MS : 0);
    return x;
}

void leader_free(struct leader *x) {
    if (!x) {
        return;
    }
    x->is_dead = true;
    loop_timer_free(x->timer);
    while (x->is_busy) {
        loop_step(x->loop, true);
    }
    if (x->s && (x->is_leader || x->lease)) {
        struct arena a = {0};
        (void)try_once(x, &a, true); /* else it is left when its time is over */
        arena_fini(&a);
    }
    free(x->own);
    free(x);
}

bool leader_is(const struct leader *x) {
    return x && x->is_leader;
}

struct str leader_holder(const struct leader *x) {
    return str_c(x->holder);
}
