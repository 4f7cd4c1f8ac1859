/* What is wrong with the addresses: the books against themselves (ipam_faults), and against who
 * uses what. Each problem comes with the evidence and with what mends it. */
#include "base/clock.h"
#include "cli/ipam_cli.h"
#include "ipam/machines.h"
#include "store/kube.h"

#include <stdio.h>
#include <stdlib.h>

/* An ADD writes the address first and its endpoint a moment later. */
enum { YOUNG_S = 60 };

static struct ipam_problem *add(struct ipam_audit *x, enum ipam_problem_kind kind,
                                const struct ip46 *ip) {
    vec_push(&x->problems, (struct ipam_problem){.kind = kind, .repair = STR("")});
    struct ipam_problem *p = &x->problems.p[x->problems.n - 1];
    if (ip) {
        p->ip = *ip;
    }
    return p;
}

static void on_fault(void *arg, const struct ipam_fault *f) {
    struct ipam_audit *x = arg;
    struct ipam_problem *p = add(x, PROBLEM_BOOKS, NULL);
    p->fault = *f;
    p->fault.name = arena_dup(x->a, f->name);
    p->fault.text = p->text = arena_dup(x->a, f->text);
    p->repair =
        f->kind == IPAM_UNREADABLE ? STR("by hand") : STR("corrected by what the block says");
}

static void on_allocation(void *arg, const struct ipam_allocation *from) {
    struct ipam_audit *x = arg;
    struct ipam_allocation c = *from;
    struct str *texts[] = {&c.affinity, &c.handle, &c.ns, &c.pod, &c.node, &c.type};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        *texts[i] = arena_dup(x->a, texts[i]->p ? *texts[i] : STR(""));
    }
    /* RFC 3339, or as Go prints a time ("2026-01-02 03:04:05.6 +0000 UTC"). */
    struct str stamp = jnode_str(jnode_path(from->attributes, "secondary.timestamp"));
    char text[32] = "";
    if (stamp.n >= 19) {
        (void)snprintf(text, sizeof(text), "%.10sT%.8sZ", stamp.p, stamp.p + 11);
    }
    int64_t at = clock_parse_rfc3339(str_c(text));
    bool is_young = at > 0 && x->now_ns / 1000000000 - at < YOUNG_S;
    bool is_tunnel = str_ends(c.type, STR("TunnelAddress"));
    struct ipam_audited all = {.ip = c.ip};
    struct str ns, name, other = jnode_str(jnode_path(from->attributes, "alternateOwnerAttrs.pod"));
    if (machine_of_allocation(from->attributes, from->handle, &ns, &name)) {
        all.machine_ns = arena_dup(x->a, ns);
        all.machine = arena_dup(x->a, name);
        all.pods[0] = c.pod;
        all.pods[1] = arena_dup(x->a, other.p ? other : STR(""));
    }
    c.attributes = NULL;
    all.x = c;
    all.may_be_judged =
        c.handle.n && ((c.ns.n && c.pod.n) || is_tunnel || all.machine.n) && !is_young;
    vec_push(&x->allocations, all);
}

static const struct ipam_pool *pool_of(const struct ipam_audit *x, const struct ip46 *ip) {
    for (size_t i = 0; i < x->pools.n; i++) {
        if (prefix_has_ip(&x->pools.p[i].cidr, ip)) {
            return &x->pools.p[i];
        }
    }
    return NULL;
}

/* Why nobody can have it. */
static struct str evidence(const struct ipam_audit *x, const struct ipam_allocation *c) {
    struct arena *a = x->a;
    struct str who;
    if (c->pod.n && c->ns.n) {
        struct str name = arena_printf(a, "%.*s/%.*s", STR_FMT(c->ns), STR_FMT(c->pod));
        bool is_there = ipam_users_has(x->users.pods.p, x->users.pods.n, name);
        const struct ipam_user *other = NULL;
        for (size_t i = 0; i < x->users.v.n && !other; i++) {
            const struct ipam_user *u = &x->users.v.p[i];
            bool is_its =
                str_eq(u->ns, c->ns) && str_eq(u->pod, c->pod) && u->ip.family == c->ip.family;
            other = is_its ? u : NULL;
        }
        char text[IP_TEXT_MAX];
        who = other ? arena_printf(a, "pod %.*s has %s", STR_FMT(name), ip_text(&other->ip, text))
              : is_there ? arena_printf(a, "pod %.*s has no address", STR_FMT(name))
                         : arena_printf(a, "pod %.*s has no endpoint", STR_FMT(name));
    } else {
        who = arena_printf(a, "no node has it as its %.*s", STR_FMT(c->type));
    }
    if (c->node.n && !ipam_users_has(x->users.nodes.p, x->users.nodes.n, c->node)) {
        who = arena_printf(a, "%.*s, node %.*s does not exist", STR_FMT(who), STR_FMT(c->node));
    }
    return who;
}

/* A machine that stands still keeps its addresses. Only the API can say that it is gone. */
static bool is_machine_gone(struct store *s, const struct ipam_audited *c) {
    enum machine_life life = MACHINE_LIVES;
    struct err ignored = {.code = 0}; /* not judged, then */
    return kube_is(s) && machine_life(s, c->machine_ns, c->machine, &life, &ignored) == 0 &&
           life == MACHINE_GONE;
}

static void judge(struct store *s, struct ipam_audit *x, const struct ipam_audited *c) {
    char text[IP_TEXT_MAX];
    size_t n;
    if (c->x.is_resting) {
        x->n_resting++;
    } else if (!ipam_users_of(&x->users, &c->ip, &n)) {
        if (!c->may_be_judged || (c->machine.n && !is_machine_gone(s, c))) {
            x->n_unjudged++;
            return;
        }
        struct str why = c->machine.n ? arena_printf(x->a, "virtual machine %.*s/%.*s is gone",
                                                     STR_FMT(c->machine_ns), STR_FMT(c->machine))
                                      : evidence(x, &c->x);
        struct ipam_problem *p = add(x, PROBLEM_LEAK, &c->ip);
        p->handle = c->x.handle;
        p->sequence = c->x.sequence;
        p->text = arena_printf(x->a, "%s leaked: handle %.*s: %.*s", ip_text(&c->ip, text),
                               STR_FMT(c->x.handle), STR_FMT(why));
        p->repair = STR("released");
    }
}

static int allocation_cmp(const void *k, const void *v) {
    return ip_cmp(k, &((const struct ipam_audited *)v)->ip);
}

/* Both pods of a machine that moves have its address. */
static bool is_moving(const struct ipam_audited *c, const struct ipam_user *a,
                      const struct ipam_user *b) {
    const struct ipam_user *both[] = {a, b};
    for (size_t i = 0; i < 2; i++) {
        bool is_owner = c && c->machine.n && both[i]->pod.n && str_eq(both[i]->ns, c->machine_ns) &&
                        (str_eq(both[i]->pod, c->pods[0]) || str_eq(both[i]->pod, c->pods[1]));
        if (!is_owner) {
            return false;
        }
    }
    return true;
}

static void judge_users(struct ipam_audit *x) {
    char text[IP_TEXT_MAX];
    for (size_t i = 0; i < x->users.v.n; i++) {
        const struct ipam_user *u = &x->users.v.p[i];
        const struct ipam_pool *pool = pool_of(x, &u->ip);
        const struct ipam_audited *has = x->allocations.n
                                             ? bsearch(&u->ip, x->allocations.p, x->allocations.n,
                                                       sizeof(*x->allocations.p), allocation_cmp)
                                             : NULL;
        x->n_outside += !pool;
        if (i && ip_eq(&x->users.v.p[i - 1].ip, &u->ip)) {
            if (is_moving(has, &x->users.v.p[i - 1], u)) {
                continue;
            }
            struct ipam_problem *p = add(x, PROBLEM_DOUBLE, &u->ip);
            p->user = u;
            p->text =
                arena_printf(x->a, "%s is used twice: by %.*s and by %.*s", ip_text(&u->ip, text),
                             STR_FMT(x->users.v.p[i - 1].what), STR_FMT(u->what));
            p->repair = STR("by hand: delete one of the two, and it is made anew with another");
        } else if (pool && !has) {
            struct ipam_problem *p = add(x, PROBLEM_FOREIGN, &u->ip);
            p->user = u;
            p->text = arena_printf(
                x->a, "%s is used by %.*s, of pool %.*s, and not allocated: it may be given again",
                ip_text(&u->ip, text), STR_FMT(u->what), STR_FMT(pool->name));
            p->repair = u->container.n ? STR("allocated to its container")
                                       : STR("by hand: delete it, and it is made anew");
        }
    }
}

struct block_count {
    size_t n;
};
static void on_usage(void *arg, const struct ipam_usage *u) {
    ((struct block_count *)arg)->n += u->is_block;
}

int ipam_audit_run(struct store *s, struct ipam *m, struct arena *a, struct ipam_audit *out,
                   struct err *e) {
    struct block_count blocks = {0};
    *out = (struct ipam_audit){.a = a, .now_ns = clock_wall_ns()};
    /* Readings of different moments: what comes or goes in between can look like a problem, so who
     * mends asks twice. */
    int r = ipam_cli_pools(s, a, &out->pools, e);
    r = r == 0 ? ipam_faults(m, on_fault, out, e) : r;
    r = r >= 0 ? ipam_show(m, out->pools.p, out->pools.n, on_usage, &blocks, e) : r;
    r = r >= 0 ? ipam_allocations(m, on_allocation, out, e) : r;
    r = r >= 0 ? ipam_users_read(s, a, &out->users, e) : r;
    out->n_blocks = blocks.n;
    for (size_t i = 0; r >= 0 && i < out->allocations.n; i++) {
        judge(s, out, &out->allocations.p[i]);
    }
    if (r >= 0) {
        judge_users(out);
    }
    return r < 0 ? r : 0;
}

void ipam_audit_fini(struct ipam_audit *x) {
    vec_fini(&x->pools);
    vec_fini(&x->problems);
    vec_fini(&x->allocations);
    ipam_users_fini(&x->users);
}

bool ipam_problem_eq(const struct ipam_problem *a, const struct ipam_problem *b) {
    return a->kind == b->kind && ip_eq(&a->ip, &b->ip) && a->sequence == b->sequence &&
           str_eq(a->handle, b->handle) && str_eq(a->text, b->text);
}
