/* Writing of pods' host interfaces: what is wrong with one, and the messages that put it right. See
 * links.h. */
#include "base/fd.h"
#include "dataplane/links_int.h"

#include <stdio.h>
#include <stdlib.h>

const uint8_t links_host_mac[6] = {0xee, 0xee, 0xee, 0xee, 0xee, 0xee};

static const struct link_conf wanted_v4 = {
    .v4_forwarding = 1, .v4_proxy_arp = 1, .v4_route_localnet = 1};

/* IPv6 settings are not writable over netlink. */
static const struct v6_setting {
    const char *name;
    size_t offset;
    int32_t want;
    bool only_with_v6; /* just for pods that have an IPv6 address */
} v6_settings[] = {
    {"accept_ra", offsetof(struct link_conf, v6_accept_ra), 0, false},
    {"accept_dad", offsetof(struct link_conf, v6_accept_dad), 0, true},
    {"disable_ipv6", offsetof(struct link_conf, v6_disable), 0, true},
    {"proxy_ndp", offsetof(struct link_conf, v6_proxy_ndp), 1, true},
    {"forwarding", offsetof(struct link_conf, v6_forwarding), 1, true},
};

static int32_t *setting(struct link_conf *c, const struct v6_setting *s) {
    return (int32_t *)((char *)c + s->offset);
}

static bool has_family(const struct links_entry *e, uint8_t family) {
    for (size_t i = 0; i < e->nets.n; i++) {
        if (e->nets.p[i].net.ip.family == family) {
            return true;
        }
    }
    return false;
}

static bool differs(int32_t has, int32_t want) {
    return has != LINK_CONF_UNKNOWN && has != want;
}

static bool is_setting_wrong(struct links_entry *e, const struct v6_setting *s) {
    return differs(*setting(&e->link.conf, s), s->want) &&
           (!s->only_with_v6 || has_family(e, IP_V6));
}

static bool is_v4_conf_wrong(const struct links_entry *e) {
    const struct link_conf *c = &e->link.conf;
    return differs(c->v4_forwarding, 1) || differs(c->v4_proxy_arp, 1) ||
           differs(c->v4_route_localnet, 1);
}

/* What is wrong with an interface that is there: bits of enum links_wrong. */
unsigned links_wrongs(struct links *l, struct links_entry *e) {
    unsigned w = 0;
    if (!e->link.index) {
        return 0;
    }
    w |= e->link.flags & IFF_UP ? 0 : WRONG_DOWN;
    w |= e->link.has_mac && memcmp(e->link.mac, links_host_mac, 6) == 0 ? 0 : WRONG_MAC;
    w |= is_v4_conf_wrong(e) ? WRONG_SETTING : 0;
    for (size_t i = 0; i < ARRAY_LEN(v6_settings); i++) {
        w |= is_setting_wrong(e, &v6_settings[i]) ? WRONG_SETTING : 0;
    }
    for (size_t i = 0; i < e->nets.n; i++) {
        const struct links_net *n = &e->nets.p[i];
        struct links_entry **owner = links_owners_get(&l->owners, n->net);
        w |= n->has_route || n->is_away || !owner || *owner != e ? 0 : WRONG_ROUTE;
        w |= n->has_route && n->is_away ? WRONG_STALE : 0;
        w |= n->has_neigh || !e->has_pod_mac || !links_is_whole(&n->net) ? 0 : WRONG_NEIGH;
    }
    w |= e->stale.n ? WRONG_STALE : 0;
    return w;
}

static const char *wrong_text(unsigned w, char *out, size_t cap) {
    static const char *const names[] = {"down", "mac", "setting", "route", "neighbour", "stale"};
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(names) && n < cap; i++) {
        if (w & (1U << i)) {
            n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? "," : "", names[i]);
        }
    }
    return out;
}

/* ---- writing ---- */

struct holder {
    struct prefix dst;
    struct route route;
    bool is_found;
};

static int find_holder(void *arg, const struct route *r) {
    struct holder *h = arg;
    if (!h->is_found && links_is_our_metric(r) && prefix_eq(&r->dst, &h->dst)) {
        h->route = *r;
        h->is_found = true;
    }
    return 0;
}

/* May we take a route from the interface it points to? From pods' interfaces, yes. */
static bool may_take_from(struct links *l, int index, char *name) {
    struct link k;
    (void)snprintf(name, IF_NAMESIZE, "?");
    if (!index || link_get_index(l->nl, index, &k, NULL) < 0) {
        return false;
    }
    memcpy(name, k.name, IF_NAMESIZE);
    for (size_t i = 0; i < l->n_prefixes; i++) {
        if (str_starts(str_c(k.name), str_c(l->prefixes[i]))) {
            return true;
        }
    }
    return false;
}

static struct route our_route(const struct links *l, const struct links_entry *e,
                              const struct prefix *net) {
    return (struct route){.dst = *net,
                          .oif = e->link.index,
                          .protocol = l->proto,
                          .scope = net->ip.family == IP_V4 ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE};
}

/* The destination is taken: it is ours after all, or may be replaced, or is somebody else's. */
static int settle_route(struct links *l, struct links_entry *e, struct links_net *n,
                        struct err *err) {
    struct holder h = {.dst = n->net};
    char name[IF_NAMESIZE], text[IP_TEXT_MAX];
    struct route_filter f = {.family = n->net.ip.family};
    int r = route_dump(l->nl, &f, find_holder, &h, err);
    if (r < 0) {
        return r;
    }
    if (h.is_found && links_is_ours(l, e, &h.route)) {
        n->has_route = n->had_route = true;
        return 0;
    }
    if (h.is_found && h.route.oif != e->link.index && !n->had_route &&
        !may_take_from(l, h.route.oif, name)) {
        return err_set(err, ERR_EXISTS,
                       "address %s of interface %s is routed to interface %s, which is not ours; "
                       "remove that route or give the pod another address",
                       prefix_text(&n->net, text), e->name, name);
    }
    struct route want = our_route(l, e, &n->net);
    (void)route_add(l->nl, &want, NLM_F_CREATE | NLM_F_REPLACE);
    l->stats.writes++;
    r = nl_commit(l->nl, err);
    if (r == 0) {
        n->has_route = n->had_route = true;
    }
    return r;
}

static int write_v6_settings(struct links *l, struct links_entry *e, struct err *err) {
    for (size_t i = 0; i < ARRAY_LEN(v6_settings); i++) {
        const struct v6_setting *s = &v6_settings[i];
        char path[128];
        if (!is_setting_wrong(e, s)) {
            continue;
        }
        (void)snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/%s", e->name, s->name);
        int r = sysctl_write(path, s->want ? "1" : "0");
        if (r < 0) {
            return err_set(err, r, "writing %d to %s: %s", s->want, path, err_name(r));
        }
        *setting(&e->link.conf, s) = s->want;
        l->stats.writes++;
    }
    return 0;
}

static void add_link_change(struct links *l, struct links_entry *e, unsigned w) {
    struct link_change c = {.index = e->link.index};
    if (w & WRONG_DOWN) {
        c.set_up = c.up = true;
        c.use_eui64 = e->link.conf.v6_disable != LINK_CONF_UNKNOWN && has_family(e, IP_V6);
    }
    if (w & WRONG_MAC) {
        c.mac = links_host_mac;
    }
    if (is_v4_conf_wrong(e)) {
        c.v4_conf = &wanted_v4;
    }
    (void)link_change(l->nl, &c);
}

/* One message of a batch and what it is about. */
struct job {
    enum { JOB_LINK, JOB_DELAY, JOB_ROUTE, JOB_NEIGH, JOB_STALE } what;
    size_t net;
};

/* Takes in the answers to the jobs. */
static int settle(struct links *l, struct links_entry *e, const struct job *jobs, size_t n,
                  struct err *err) {
    VEC(size_t) taken = {0};
    int first = 0;
    for (size_t i = 0; i < n; i++) {
        int r = nl_code(l->nl, i);
        struct links_net *net = jobs[i].net < e->nets.n ? &e->nets.p[jobs[i].net] : NULL;
        switch (jobs[i].what) {
        case JOB_LINK:
            if (r == 0) {
                e->link.flags |= IFF_UP;
                memcpy(e->link.mac, links_host_mac, 6);
                e->link.has_mac = true;
                e->link.conf.v4_forwarding = e->link.conf.v4_proxy_arp =
                    e->link.conf.v4_route_localnet = 1;
            }
            break;
        case JOB_ROUTE:
            if (r == -EEXIST) {
                vec_push(&taken, jobs[i].net);
                r = 0;
            } else if (r == 0) {
                net->has_route = net->had_route = true;
            }
            break;
        case JOB_NEIGH:
            net->has_neigh = r == 0;
            break;
        case JOB_DELAY: /* best effort, as with Calico */
        case JOB_STALE: /* gone already is fine */
            r = 0;
            break;
        }
        if (r < 0 && first == 0) {
            const char *t = nl_text(l->nl, i);
            first =
                err_set(err, r, "interface %s: %s%s%s", e->name, err_name(r), t[0] ? ": " : "", t);
        }
    }
    vec_clear(&e->stale);
    for (size_t i = 0; i < taken.n; i++) {
        struct err own = {0};
        int r = settle_route(l, e, &e->nets.p[taken.p[i]], &own);
        if (r < 0 && first == 0) {
            first = err_set(err, r, "%s", own.msg);
        }
    }
    vec_fini(&taken);
    return first;
}

static int write_all(struct links *l, struct links_entry *e, unsigned w, struct err *err) {
    VEC(struct job) jobs = {0};
    int r = write_v6_settings(l, e, err);
    if (r < 0) {
        return r;
    }
    if ((w & (WRONG_DOWN | WRONG_MAC)) || is_v4_conf_wrong(e)) {
        add_link_change(l, e, w);
        vec_push(&jobs, (struct job){JOB_LINK, SIZE_MAX});
    }
    if (w & WRONG_SETTING) {
        (void)link_proxy_delay(l->nl, e->link.index, 0);
        vec_push(&jobs, (struct job){JOB_DELAY, SIZE_MAX});
    }
    for (size_t i = 0; i < e->stale.n; i++) {
        const struct prefix *p = &e->stale.p[i];
        struct route gone = {.dst = *p, .oif = e->link.index};
        (void)route_del(l->nl, &gone);
        vec_push(&jobs, (struct job){JOB_STALE, SIZE_MAX});
        (void)neigh_del(l->nl, e->link.index, &p->ip);
        vec_push(&jobs, (struct job){JOB_STALE, SIZE_MAX});
    }
    for (size_t i = 0; i < e->nets.n; i++) {
        struct links_net *n = &e->nets.p[i];
        struct links_entry **owner = links_owners_get(&l->owners, n->net);
        if (n->has_route && n->is_away) {
            struct route gone = {.dst = n->net, .oif = e->link.index};
            (void)route_del(l->nl, &gone);
            vec_push(&jobs, (struct job){JOB_STALE, SIZE_MAX});
            n->has_route = n->had_route = false;
        } else if (!n->has_route && !n->is_away && owner && *owner == e) {
            struct route want = our_route(l, e, &n->net);
            (void)route_add(l->nl, &want, NLM_F_CREATE | NLM_F_EXCL);
            vec_push(&jobs, (struct job){JOB_ROUTE, i});
        }
        if (!n->has_neigh && e->has_pod_mac && links_is_whole(&n->net)) {
            (void)neigh_set(l->nl, e->link.index, &n->net.ip, e->pod_mac);
            vec_push(&jobs, (struct job){JOB_NEIGH, i});
        }
    }
    l->stats.writes += jobs.n;
    r = nl_exchange(l->nl, err);
    if (r == 0) {
        r = settle(l, e, jobs.p, jobs.n, err);
    }
    vec_fini(&jobs);
    return r;
}

/* Makes an interface that is there as it should be; e->problem says what went wrong. */
int links_fix(struct links *l, struct links_entry *e, bool is_repair, struct err *err) {
    struct err own = {0};
    char text[80];
    unsigned w = links_wrongs(l, e);
    uint64_t before = l->stats.writes;
    if (!w) {
        e->problem[0] = '\0';
        return 0;
    }
    int r = write_all(l, e, w, &own);
    bool did_change = l->stats.writes > before && links_wrongs(l, e) != w;
    (void)snprintf(e->problem, sizeof(e->problem), "%.*s", (int)sizeof(e->problem) - 1,
                   r < 0 ? own.msg : "");
    if (is_repair && did_change) {
        l->stats.repairs++;
        if (log_allow(&l->log, 20, 10)) {
            LOG_W("links", "restored", "iface=%s what=%s", e->name,
                  wrong_text(w, text, sizeof(text)));
        }
    }
    if (r < 0) {
        (void)err_set(err, r, "%s", own.msg);
    }
    return r;
}

/* Looks at the interface now. ERR_NOT_FOUND: it isn't there. */
int links_look(struct links *l, struct links_entry *e, struct err *err) {
    struct link k;
    int r = link_get(l->nl, e->name, &k, err);
    if (r == 0) {
        links_observe_link(l, e, &k);
    } else if (r == ERR_NOT_FOUND) {
        links_set_index(l, e, 0);
    }
    return r;
}
