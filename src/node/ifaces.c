#include "node/ifaces.h"

#include "base/log.h"
#include "base/vec.h"
#include "netlink/addr.h"
#include "netlink/link.h"
#include "netlink/monitor.h"

#include <stdio.h>
#include <stdlib.h>

struct host_link {
    int index;
    char name[16];
};
struct host_addr {
    int index;
    struct ip46 ip;
};

struct iface_watch {
    struct nl *nl;
    struct nl_monitor *monitor;
    VEC(struct host_link) links;
    VEC(struct host_addr) addrs;
    VEC(struct dataplane_iface) told;
    bool is_told;
    void (*on_change)(void *arg, const struct dataplane_iface *v, size_t n);
    void *arg;
};

static void take_link(struct iface_watch *w, const struct link *k, bool is_gone) {
    size_t i = 0;
    while (i < w->links.n && w->links.p[i].index != k->index) {
        i++;
    }
    if (is_gone) {
        if (i < w->links.n) {
            vec_swap_remove(&w->links, i);
        }
        return;
    }
    if (i == w->links.n) {
        vec_push(&w->links, (struct host_link){.index = k->index});
    }
    snprintf(w->links.p[i].name, sizeof(w->links.p[i].name), "%s", k->name);
}

static void take_addr(struct iface_watch *w, const struct addr *a, bool is_gone) {
    if (ip_is_link_local(&a->net.ip)) {
        return;
    }
    for (size_t i = 0; i < w->addrs.n; i++) {
        if (w->addrs.p[i].index == a->index && ip_eq(&w->addrs.p[i].ip, &a->net.ip)) {
            if (is_gone) {
                vec_swap_remove(&w->addrs, i);
            }
            return;
        }
    }
    if (!is_gone) {
        vec_push(&w->addrs, (struct host_addr){a->index, a->net.ip});
    }
}

static int iface_cmp(const void *a, const void *b) {
    return memcmp(a, b, sizeof(struct dataplane_iface));
}

static void tell(struct iface_watch *w) {
    VEC(struct dataplane_iface) now = {0};
    for (size_t i = 0; i < w->addrs.n; i++) {
        for (size_t k = 0; k < w->links.n; k++) {
            if (w->links.p[k].index == w->addrs.p[i].index) {
                struct dataplane_iface x;
                memset(&x, 0, sizeof(x)); /* compared as bytes */
                memcpy(x.name, w->links.p[k].name, strlen(w->links.p[k].name));
                x.ip = w->addrs.p[i].ip;
                vec_push(&now, x);
            }
        }
    }
    vec_sort(&now, iface_cmp);
    if (!w->is_told || now.n != w->told.n ||
        (now.n && memcmp(now.p, w->told.p, now.n * sizeof(*now.p)) != 0)) {
        w->is_told = true;
        w->on_change(w->arg, now.p, now.n);
    }
    vec_fini(&w->told);
    w->told.p = now.p;
    w->told.n = now.n;
    w->told.cap = now.cap;
}

static int on_link_dumped(void *arg, const struct link *k) {
    take_link(arg, k, false);
    return 0;
}
static int on_addr_dumped(void *arg, const struct addr *a) {
    take_addr(arg, a, false);
    return 0;
}

static int read_all(struct iface_watch *w, struct err *e) {
    vec_clear(&w->links);
    vec_clear(&w->addrs);
    int r = link_dump(w->nl, on_link_dumped, w, e);
    if (r == 0) {
        r = addr_dump(w->nl, 0, on_addr_dumped, w, e);
    }
    if (r == 0) {
        tell(w);
    }
    return r;
}

static void on_link(void *arg, const struct link *k, bool is_gone) {
    take_link(arg, k, is_gone);
}
static void on_addr(void *arg, const struct addr *a, bool is_gone) {
    take_addr(arg, a, is_gone);
}
static void on_batch_end(void *arg) {
    tell(arg);
}
static void on_resync(void *arg) {
    struct err e = {0};
    if (read_all(arg, &e) < 0) {
        LOG_W("node", "interfaces_not_read", "error=%s", log_quote(str_c(e.msg)));
    }
}

struct iface_watch *iface_watch_new(struct loop *l,
                                    void (*on_change)(void *arg, const struct dataplane_iface *v,
                                                      size_t n),
                                    void *arg, struct err *e) {
    static const struct nl_monitor_ops ops = {.on_link = on_link,
                                              .on_addr = on_addr,
                                              .on_batch_end = on_batch_end,
                                              .on_resync = on_resync};
    struct iface_watch *w = calloc(1, sizeof(*w));
    mg_assert(w != NULL);
    w->on_change = on_change;
    w->arg = arg;
    if (nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &w->nl, e) < 0 ||
        nl_monitor_new(l, &ops, w, &w->monitor, e) < 0 || read_all(w, e) < 0) {
        iface_watch_free(w);
        return NULL;
    }
    return w;
}

void iface_watch_free(struct iface_watch *w) {
    if (w) {
        nl_monitor_free(w->monitor);
        nl_close(w->nl);
        vec_fini(&w->links);
        vec_fini(&w->addrs);
        vec_fini(&w->told);
        free(w);
    }
}
