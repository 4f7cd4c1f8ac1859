#include "node/mtu.h"

#include "base/log.h"
#include "base/vec.h"
#include "netlink/link.h"
#include "netlink/monitor.h"

#include <regex.h>
#include <stdlib.h>

struct host_link {
    int index;
    uint32_t mtu;
};

struct mtu_watch {
    regex_t pattern;
    struct nl *nl;
    struct nl_monitor *monitor;
    VEC(struct host_link) links; /* those that match */
    uint32_t told;
    bool is_known;
    void (*on_mtu)(void *arg, uint32_t mtu);
    void *arg;
};

static void take(struct mtu_watch *w, const struct link *k, bool is_gone) {
    size_t i = 0;
    while (i < w->links.n && w->links.p[i].index != k->index) {
        i++;
    }
    if (is_gone || regexec(&w->pattern, k->name, 0, NULL, 0) != 0) {
        if (i < w->links.n) {
            vec_swap_remove(&w->links, i);
        }
    } else if (i < w->links.n) {
        w->links.p[i].mtu = k->mtu;
    } else {
        vec_push(&w->links, (struct host_link){k->index, k->mtu});
    }
}

static void tell(struct mtu_watch *w) {
    uint32_t mtu = 0;
    for (size_t i = 0; i < w->links.n; i++) {
        mtu = mtu && mtu < w->links.p[i].mtu ? mtu : w->links.p[i].mtu;
    }
    if (!w->is_known || mtu != w->told) {
        w->is_known = true;
        w->told = mtu;
        w->on_mtu(w->arg, mtu);
    }
}

static int on_dumped(void *arg, const struct link *k) {
    take(arg, k, false);
    return 0;
}

static int read_all(struct mtu_watch *w, struct err *e) {
    vec_clear(&w->links);
    int r = link_dump(w->nl, on_dumped, w, e);
    if (r == 0) {
        tell(w);
    }
    return r;
}

static void on_link(void *arg, const struct link *k, bool is_gone) {
    take(arg, k, is_gone);
}
static void on_batch_end(void *arg) {
    tell(arg);
}
static void on_resync(void *arg) {
    struct err e = {0};
    if (read_all(arg, &e) < 0) {
        LOG_W("node", "mtu_not_read", "error=%s", log_quote(str_c(e.msg)));
    }
}

struct mtu_watch *mtu_watch_new(struct loop *l, const char *pattern,
                                void (*on_mtu)(void *arg, uint32_t mtu), void *arg, struct err *e) {
    static const struct nl_monitor_ops ops = {
        .on_link = on_link, .on_batch_end = on_batch_end, .on_resync = on_resync};
    struct mtu_watch *w = calloc(1, sizeof(*w));
    mg_assert(w != NULL);
    if (regcomp(&w->pattern, pattern, REG_EXTENDED | REG_NOSUB) != 0) {
        (void)err_set(e, ERR_INVALID,
                      "mtuIfacePattern: found \"%s\", allowed is a regular expression", pattern);
        free(w);
        return NULL;
    }
    w->on_mtu = on_mtu;
    w->arg = arg;
    if (nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &w->nl, e) < 0 ||
        nl_monitor_new(l, &ops, w, &w->monitor, e) < 0 || read_all(w, e) < 0) {
        mtu_watch_free(w);
        return NULL;
    }
    return w;
}

void mtu_watch_free(struct mtu_watch *w) {
    if (w) {
        nl_monitor_free(w->monitor);
        nl_close(w->nl);
        regfree(&w->pattern);
        vec_fini(&w->links);
        free(w);
    }
}
