/* Removal of attachments: DEL, what GC finds left over, the spool, and ADDs that failed. The kernel
 * waits tens of milliseconds to remove a link, whoever asks, and as long for many links of one
 * group as for one: removals that come together go in one batch, to a worker. Then the batch's
 * endpoints and addresses leave the store in one transaction: an address is given to nobody else
 * before its old interface has gone. */
#include "cni/server_extra.h"
#include "ipam/machines.h"
#include "netlink/conntrack.h"

#include <net/if.h>
#include <stdio.h>
#include <unistd.h>

#define GROUP_BASE 0x4d470000U /* "MG": link groups of others are small numbers */
#define GATHER_MS 2            /* with others at work: their removals come along */
#define LINKS_GONE_MAX_NS 2000000000LL
#define LINKS_GONE_POLL_US 200

struct cni_batch {
    struct cni_server *s;
    struct cni_remover *by; /* NULL: no work for the kernel */
    VEC(struct cni_removal *) items;
    VEC(struct ip46) ips;
    uint32_t group;
    unsigned n_jobs; /* on workers */
};

static void start_batch(struct cni_server *s);
static void go(struct cni_server *s);

/* ---- one removal ---- */

static struct cni_removal *alloc(void) {
    struct cni_removal *m = calloc(1, sizeof(*m));
    mg_assert(m != NULL);
    return m;
}

static void free_removal(struct cni_removal *m) {
    arena_fini(&m->arena);
    free(m);
}

struct cni_removal *cni_removal_of_link(int index) {
    struct cni_removal *m = alloc();
    m->index = index;
    m->link_only = true;
    return m;
}

/* Does another attachment have that address by now? */
static bool is_held_by_other(struct cni_server *s, const struct cni_attachment *own,
                             const struct prefix *net) {
    struct cni_attachment **t;
    size_t i = 0;
    while (cni_attachments_next(&s->attachments, &i, NULL, &t)) {
        for (size_t j = 0; *t != own && j < (*t)->n_nets; j++) {
            if (prefix_eq(&(*t)->nets[j], net)) {
                return true;
            }
        }
    }
    return false;
}

struct cni_removal *cni_removal_new(struct cni_server *s, struct str network, struct str container,
                                    struct str ifname) {
    struct cni_removal *m = alloc();
    struct arena *a = &m->arena;
    m->container = arena_dup(a, container);
    m->ifname = arena_dup(a, ifname);
    struct cni_attachment *t = cni_attachment_find(s, container, ifname);
    if (t && t->network.n && !str_eq(t->network, network)) {
        t = NULL; /* of another network: not this request's */
    }
    m->handle = cni_handle(a, network, container, ifname);
    m->network = arena_dup(a, network);
    m->iface = m->wep_key = m->ns = m->pod = m->old_handle = STR("");
    if (!t) {
        return m;
    }
    m->is_superseded = t->is_superseded;
    if (!t->is_superseded) {
        m->ns = arena_dup(a, t->ns);
        m->pod = arena_dup(a, t->pod);
        m->iface = arena_dup(a, t->iface);
        m->wep_key = arena_dup(a, t->wep_key);
    }
    m->ips = arena_array(a, struct ip46, t->n_nets);
    for (size_t i = 0; i < t->n_nets; i++) {
        /* Connections of a machine that is on another node now go on. */
        if (t->nets[i].len == ip_bits(&t->nets[i].ip) && !is_held_by_other(s, t, &t->nets[i]) &&
            !links_is_away(s->links, &t->nets[i].ip)) {
            m->ips[m->n_ips++] = t->nets[i].ip;
        }
    }
    return m;
}

void cni_removal_of_pod(struct cni_removal *m, const struct cni_request *r) {
    if (!m->pod.n && !m->is_superseded && r->args.ns.n) {
        m->ns = arena_dup(&m->arena, r->args.ns);
        m->pod = arena_dup(&m->arena, r->args.pod);
    }
}

int cni_host_link(struct cni_server *s, struct str iface) {
    char name[IF_NAMESIZE];
    struct link l;
    /* The name may come from the store: nothing but a pod's interface is ever deleted. */
    if (!link_name_is_valid(iface) || !str_starts(iface, s->iface_prefix)) {
        return 0;
    }
    (void)snprintf(name, sizeof(name), "%.*s", STR_FMT(iface));
    if (link_get(s->nl, name, &l, NULL) < 0 || !link_is_pair(&l)) {
        return 0;
    }
    return l.index;
}

/* ---- the kernel's part, on a worker ---- */

static void remove_links(struct cni_batch *b) {
    struct nl *nl = b->by->nl;
    struct cni_removal *last = NULL;
    size_t n = 0;
    for (size_t i = 0; i < b->items.n; i++) {
        if (b->items.p[i]->index) {
            last = b->items.p[i];
            n++;
        }
    }
    if (n > 1) {
        for (size_t i = 0; i < b->items.n; i++) {
            if (b->items.p[i]->index) {
                (void)link_change(nl, &(struct link_change){.index = b->items.p[i]->index,
                                                            .set_group = true,
                                                            .group = b->group});
            }
        }
        /* Those that are gone already refuse; the rest is what counts. */
        (void)!nl_exchange(nl, NULL);
        (void)link_del_group(nl, b->group);
        if (nl_commit(nl, NULL) == 0) {
            return;
        }
    }
    for (size_t i = 0; last && i < b->items.n; i++) {
        struct cni_removal *m = b->items.p[i];
        struct err e = {0};
        if (m->index) {
            (void)link_del(nl, m->index);
            int r = nl_commit(nl, &e);
            if (r < 0 && r != -ENODEV) {
                m->code = r;
                (void)snprintf(m->error, sizeof(m->error), "removing interface %.*s: %.200s",
                               STR_FMT(m->iface), e.msg);
            }
        }
    }
}

static void work_links(void *arg) {
    remove_links(arg);
}

static bool links_remain(const struct cni_batch *b) {
    char name[IF_NAMESIZE];
    for (size_t i = 0; i < b->items.n; i++) {
        if (b->items.p[i]->index && if_indextoname((unsigned)b->items.p[i]->index, name)) {
            return true;
        }
    }
    return false;
}

/* A removed link is out of sight at once, and what the kernel then waits for has time for this: an
 * interface that nobody sees makes no new entries. */
static void work_conntrack(void *arg) {
    struct cni_batch *b = arg;
    struct err e = {0};
    int64_t end = clock_ns() + LINKS_GONE_MAX_NS;
    while (links_remain(b) && clock_ns() < end) {
        (void)usleep(LINKS_GONE_POLL_US);
    }
    if (conntrack_flush(b->by->conntrack, b->ips.p, b->ips.n, NULL, &e) < 0) {
        LOG_W("cni", "conntrack_flush_failed", "%s", log_quote(str_c(e.msg)));
    }
}

/* ---- the store's part ---- */

/* Deletes the endpoint if it is still this container's. */
static int delete_endpoint(struct cni_server *s, struct cni_removal *m, struct err *e) {
    struct store_key key = {STR(STORE_SPACE_RESOURCES), m->wep_key};
    struct store_item it;
    struct jnode *doc = NULL;
    int r = ERR_CONFLICT;
    for (int i = 0; r == ERR_CONFLICT && i < 5; i++) {
        r = store_get(s->store, key, &m->arena, &it, e);
        if (r < 0) {
            break;
        }
        if (json_parse(it.value, &json_limits_default, &m->arena, &doc, NULL) == 0 &&
            !str_eq(jnode_str(jnode_path(doc, "spec.containerID")), m->container)) {
            return 0; /* of a newer container */
        }
        r = store_delete(s->store, key, it.revision, e);
    }
    return r == ERR_NOT_FOUND ? 0 : r;
}

static int forget_one(struct cni_server *s, struct cni_removal *m, struct err *e) {
    int r = m->wep_key.n ? delete_endpoint(s, m, e) : 0;
    if (r == 0 && m->handle.n) {
        r = cni_ipam_release(s, m->handle, e);
    }
    if (r == 0 && m->old_handle.n) {
        r = cni_ipam_release(s, m->old_handle, e);
    }
    return r == 0 && m->pod.n ? cni_machine_leave(s, m->network, m->ns, m->pod, e) : r;
}

/* All in one transaction; if that fails, one by one, so that one bad item spoils only itself. */
static void forget_all(struct cni_batch *b) {
    struct cni_server *s = b->s;
    struct err e = {0};
    size_t n = 0;
    for (size_t i = 0; i < b->items.n; i++) {
        n += !b->items.p[i]->link_only;
    }
    if (n == 0) {
        return;
    }
    int r = store_begin(s->store, &e);
    for (size_t i = 0; r == 0 && i < b->items.n; i++) {
        struct cni_removal *m = b->items.p[i];
        if (!m->link_only && m->code == 0) {
            r = forget_one(s, m, &e);
        }
    }
    if (r == 0) {
        r = store_commit(s->store, &e);
    }
    if (r == 0) {
        return;
    }
    store_rollback(s->store);
    for (size_t i = 0; i < b->items.n; i++) {
        struct cni_removal *m = b->items.p[i];
        if (m->link_only || m->code < 0) {
            continue;
        }
        m->code = forget_one(s, m, &e);
        if (m->code < 0) {
            (void)snprintf(m->error, sizeof(m->error), "the datastore: %.230s", e.msg);
        }
    }
}

static void free_batch(struct cni_batch *b) {
    for (size_t i = 0; i < b->items.n; i++) {
        free_removal(b->items.p[i]);
    }
    vec_fini(&b->items);
    vec_fini(&b->ips);
    free(b);
}

static void work_forget(struct store *st MG_UNUSED, void *arg) {
    forget_all(arg);
}

static void forgotten(void *arg, int code) {
    struct cni_batch *b = arg;
    struct cni_server *s = b->s;
    if (code < 0) {
        free_batch(b);
        return;
    }
    for (size_t i = 0; i < b->items.n; i++) {
        struct cni_removal *m = b->items.p[i];
        if (m->code == 0 && !m->link_only) {
            cni_attachment_drop(s, m->container, m->ifname);
            cni_extra_drop(s, m->container, m->ifname);
        }
    }
    for (size_t i = 0; i < b->items.n; i++) {
        struct cni_removal *m = b->items.p[i];
        m->done(m->arg, m);
    }
    free_batch(b);
}

static void on_worked(void *arg) {
    struct cni_batch *b = arg;
    struct cni_server *s = b->s;
    if (--b->n_jobs) {
        return;
    }
    b->by->is_busy = false;
    if (s->is_closing) {
        free_batch(b);
        return;
    }
    store_worker_run(s->worker, work_forget, forgotten, b);
    if (s->queue.n && !s->is_batch_timed && !s->is_gathering) {
        start_batch(s);
    }
}

static struct cni_remover *idle_remover(struct cni_server *s) {
    for (size_t i = 0; i < CNI_REMOVERS; i++) {
        if (!s->removers[i].is_busy) {
            return &s->removers[i];
        }
    }
    return NULL;
}

/* Starts on what is queued, if there is someone to do it; else it waits for the next to end. */
static void start_batch(struct cni_server *s) {
    struct cni_remover *by = idle_remover(s);
    if (!by) {
        return;
    }
    struct cni_batch *b = calloc(1, sizeof(*b));
    bool has_links = false;
    mg_assert(b != NULL);
    b->s = s;
    b->group = GROUP_BASE | (++s->n_batches & 0xffff);
    for (size_t i = 0; i < s->queue.n; i++) {
        struct cni_removal *m = s->queue.p[i];
        vec_push(&b->items, m);
        for (size_t j = 0; j < m->n_ips; j++) {
            vec_push(&b->ips, m->ips[j]);
        }
        has_links |= m->index != 0;
    }
    vec_clear(&s->queue);
    b->n_jobs = has_links + (b->ips.n > 0);
    if (b->n_jobs == 0) {
        store_worker_run(s->worker, work_forget, forgotten, b);
        return;
    }
    b->by = by;
    by->is_busy = true;
    s->stats.removals++;
    if (has_links) {
        loop_work(s->loop, work_links, on_worked, b);
    }
    if (b->ips.n) {
        if (!by->conntrack) {
            by->conntrack = conntrack_new();
        }
        loop_work(s->loop, work_conntrack, on_worked, b);
    }
}

static void on_batch_timer(void *arg) {
    struct cni_server *s = arg;
    s->is_batch_timed = false;
    if (s->queue.n) {
        start_batch(s);
    }
}

void cni_removal_queue(struct cni_server *s, struct cni_removal *m) {
    if (m->iface.n) {
        /* Gone from the desired state first, or the repair would bring it up again. */
        m->index = cni_host_link(s, m->iface);
        links_forget(s->links, m->iface);
    }
    vec_push(&s->queue, m);
    if (!s->is_gathering) {
        go(s);
    }
}

void cni_removals_gather(struct cni_server *s, bool is_gathering) {
    s->is_gathering = is_gathering;
    if (!is_gathering && s->queue.n) {
        go(s);
    }
}

static void go(struct cni_server *s) {
    if (s->is_batch_timed || s->is_closing) {
        return;
    }
    if (s->n_requests <= 1) {
        start_batch(s);
        return;
    }
    if (!s->batch_timer) {
        s->batch_timer = loop_timer_new(s->loop, on_batch_timer, s);
    }
    s->is_batch_timed = true;
    loop_timer_start(s->batch_timer, GATHER_MS, 0);
}

void cni_removals_free(struct cni_server *s) {
    for (size_t i = 0; i < CNI_REMOVERS; i++) {
        while (s->removers[i].is_busy) {
            loop_step(s->loop, true);
        }
    }
    for (size_t i = 0; i < s->queue.n; i++) {
        free_removal(s->queue.p[i]);
    }
    vec_fini(&s->queue);
}

/* ---- DEL ---- */

static void on_delegated(struct cni_request *r, uint32_t code, struct str text) {
    if (code == UINT32_MAX) {
        /* The plugin has gone: it isn't there to run the IPAM plugin. Its runtime comes again. */
        LOG_W("cni", "ipam_not_run", "type=%s container=%s its address may stay taken",
              log_quote(r->conf.ipam_type), log_quote(r->strings[WIRE_CONTAINERID]));
        cni_answer(r, 0, STR(""));
        return;
    }
    if (code != 0) {
        r->s->stats.errors++;
    }
    cni_answer(r, code != 0, code ? text : STR(""));
}

static void on_removed(void *arg, struct cni_removal *m) {
    struct cni_request *r = arg;
    if (m->code < 0) {
        (void)cni_fail(&r->fail, CNI_CODE_TRY_LATER, "the runtime will try again", "%s", m->error);
    }
    bool did_fail = m->code < 0;
    if (cni_unref(r)) {
        return;
    }
    if (did_fail) {
        cni_answer_fail(r);
    } else if (r->conf.has_ipam && !r->conf.is_own_ipam && r->spool_dir < 0) {
        /* From the spool: the plugin that queued it has run the IPAM plugin. */
        cni_delegate_ipam(r, "DEL", on_delegated);
    } else {
        cni_answer(r, 0, STR(""));
    }
}

static void work_ready(struct cni_request *r) {
    r->step_code = cni_check_ready(r);
    if (r->step_code == 0 && machine_is_launcher(r->args.pod)) {
        struct cni_fail ignored = r->fail;
        (void)!cni_find_kube(r); /* without it the machine's addresses stay */
        r->fail = ignored;
    }
}

static void remove_attachment(struct cni_request *r) {
    if (r->step_code < 0) {
        cni_answer_fail(r);
        return;
    }
    struct cni_removal *m =
        cni_removal_new(r->s, r->conf.name, r->strings[WIRE_CONTAINERID], r->strings[WIRE_IFNAME]);
    cni_removal_of_pod(m, r);
    const struct cni_attachment *t =
        cni_attachment_find(r->s, r->strings[WIRE_CONTAINERID], r->strings[WIRE_IFNAME]);
    if (!t || !t->network.n) { /* what we attached has a handle of today */
        m->old_handle = cni_old_handle(r, &m->arena);
    }
    m->done = on_removed;
    m->arg = r;
    LOG_I("cni", "del", "container=%.*s ifname=%.*s iface=%.*s",
          STR_FMT(r->strings[WIRE_CONTAINERID]), STR_FMT(r->strings[WIRE_IFNAME]),
          STR_FMT(m->iface));
    r->n_pending++;
    cni_removal_queue(r->s, m);
}

void cni_del(struct cni_request *r) {
    cni_step(r, work_ready, remove_attachment);
}
