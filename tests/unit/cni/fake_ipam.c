/* Addresses for the server's tests without pools and blocks: 192.168.7.0/26 and fd00::/122 in
 * order, one item of the store for each. The pool "full" has none, other names are no pools. */
#include "fake_ipam.h"
#include "cni/server_ipam.h"

#include <stdio.h>
#include <stdlib.h>

struct ipam {
    struct store *store;
};

static struct ipam the_ipam;

int ipam_for_test(struct store *s, const char *node MG_UNUSED, struct ipam **out,
                  struct err *e MG_UNUSED) {
    the_ipam.store = s;
    *out = &the_ipam;
    return 0;
}

static struct store_key key_of(const struct ip46 *ip, char *out) {
    char text[IP_TEXT_MAX];
    (void)snprintf(out, 128, "/a/%s", ip_text(ip, text));
    return (struct store_key){STR(STORE_SPACE_IPAM), str_c(out)};
}

static int take(const struct ip46 *ip, struct str handle, struct prefix *out, size_t *n) {
    char key[128], value[2048];
    (void)snprintf(value, sizeof(value), "\"%.*s\"", STR_FMT(handle));
    int r = store_put(the_ipam.store, key_of(ip, key), str_c(value), REV_NONE, NULL, NULL);
    if (r == 0) {
        out[*n].ip = *ip;
        out[(*n)++].len = ip->family == IP_V4 ? 26 : 122;
    }
    return r;
}

int cni_ipam_assign(struct cni_server *s MG_UNUSED, const struct cni_ipam_want *w,
                    struct prefix *out, size_t max MG_UNUSED, size_t *n, struct err *e) {
    const struct str_list *pools = w->pools_v4.set ? &w->pools_v4 : &w->pools_v6;
    for (size_t i = 0; i < pools->n; i++) {
        return str_is(pools->p[i], "full")
                   ? err_set(e, ERR_NO_SPACE, "no free address in pool full")
                   : err_set(e, ERR_INVALID, "there is no pool %.*s", STR_FMT(pools->p[i]));
    }
    for (size_t i = 0; i < w->n_ips; i++) {
        int r = take(&w->ips[i], w->handle, out, n);
        if (r < 0) {
            return err_set(e, r, "the address is taken");
        }
    }
    struct prefix all[2];
    if (prefix_parse(STR("192.168.7.0/26"), &all[0]) < 0 ||
        prefix_parse(STR("fd00::/122"), &all[1]) < 0) {
        return ERR_INVALID;
    }
    unsigned want[] = {w->n_v4, w->n_v6};
    for (size_t f = 0; f < 2; f++) {
        int r = want[f] ? ERR_EXISTS : 0;
        struct ip46 ip;
        for (uint64_t i = 1; r == ERR_EXISTS && prefix_nth(&all[f], i, &ip); i++) {
            r = take(&ip, w->handle, out, n);
        }
        if (r < 0) {
            return err_set(e, r, "taking an address: %s", err_name(r));
        }
    }
    return 0;
}

struct walk {
    struct str handle;
    struct ip46 ips[64];
    size_t n;
};

static int on_item(void *arg, const struct store_item *it) {
    struct walk *w = arg;
    if (str_eq(str_sub(it->value, 1, it->value.n - 1), w->handle) && w->n < 64 &&
        ip_parse(str_sub(it->key, 3, it->key.n), &w->ips[w->n]) == 0) {
        w->n++;
    }
    return 0;
}

static int find(struct str handle, struct walk *w, struct err *e) {
    uint64_t revision;
    w->handle = handle;
    return store_list(the_ipam.store, (struct store_key){STR(STORE_SPACE_IPAM), STR("/a/")},
                      &revision, on_item, w, e);
}

int cni_ipam_release(struct cni_server *s MG_UNUSED, struct str handle, struct err *e) {
    struct walk w = {0};
    char key[128];
    int r = find(handle, &w, e);
    for (size_t i = 0; r == 0 && i < w.n; i++) {
        r = store_delete(the_ipam.store, key_of(&w.ips[i], key), REV_ANY, e);
    }
    return r;
}

int cni_ipam_held(struct cni_server *s MG_UNUSED, struct str handle, struct ip46 *out, size_t max,
                  size_t *n, struct err *e) {
    struct walk w = {0};
    int r = find(handle, &w, e);
    for (*n = 0; r == 0 && *n < w.n && *n < max; ++*n) {
        out[*n] = w.ips[*n];
    }
    return r == 0 && w.n == 0 ? err_set(e, ERR_NOT_FOUND, "nothing is held") : r;
}

int cni_ipam_ready(struct cni_server *s MG_UNUSED, struct err *e MG_UNUSED) {
    return 0;
}

void cni_pools_forget(struct cni_server *s MG_UNUSED) {
}

int cni_ipam_reuse(struct cni_server *s MG_UNUSED, const struct cni_ipam_want *w MG_UNUSED,
                   bool is_alternate MG_UNUSED, struct prefix *out MG_UNUSED, size_t max MG_UNUSED,
                   size_t *n MG_UNUSED, struct err *e MG_UNUSED) {
    return ERR_NOT_FOUND;
}

int cni_ipam_persists(struct cni_server *s MG_UNUSED, bool *out, struct err *e MG_UNUSED) {
    *out = true;
    return 0;
}
