/* The two verdict maps: interface name → chain of the pod's list of policies. */
#include "dataplane/table.h"

#include <stdio.h>
#include <stdlib.h>

void hops_init(struct hops *h, const char *name, const char *comment, bool is_wanted) {
    *h = (struct hops){.is_wanted = is_wanted};
    kset_init(&h->set, name, &(struct nft_set){.fields = {NFT_TYPE_IFNAME}, .is_verdict_map = true},
              str_c(comment));
}

void hops_fini(struct hops *h) {
    struct hop **v;
    for (size_t i = 0; str_hop_next(&h->by_iface, &i, NULL, &v);) {
        free((*v)->kernel);
        free(*v);
    }
    str_hop_fini(&h->by_iface);
    vec_fini(&h->touched);
    kset_fini(&h->set);
}

static struct hop *get(struct hops *h, struct str iface) {
    struct hop **v = str_hop_get(&h->by_iface, iface);
    if (v) {
        return *v;
    }
    struct hop *x = calloc(1, sizeof(*x));
    mg_assert(x != NULL);
    snprintf(x->iface, sizeof(x->iface), "%.*s", STR_FMT(iface));
    *str_hop_put(&h->by_iface, str_c(x->iface), NULL) = x;
    return x;
}

uint32_t hops_owner(const struct hops *h, const char *iface) {
    struct hop **v = str_hop_get(&h->by_iface, str_c(iface));
    return v && (*v)->want ? (*v)->owner : 0;
}

static void touch(struct hops *h, struct hop *x) {
    if (!x->is_touched) {
        x->is_touched = true;
        vec_push(&h->touched, x);
    }
}

void hops_want(struct hops *h, const char *iface, uint32_t owner, const char *chain) {
    struct hop *x = get(h, str_c(iface));
    if (!chain && x->owner != owner) {
        return; /* the interface passed on to another endpoint */
    }
    x->want = chain;
    x->owner = owner;
    touch(h, x);
}

void hops_unwant_all(struct hops *h) {
    struct hop **v;
    for (size_t i = 0; str_hop_next(&h->by_iface, &i, NULL, &v);) {
        (*v)->want = NULL;
        (*v)->owner = 0;
        touch(h, *v);
    }
}

void hops_kernel(struct hops *h, struct str key, struct str chain) {
    struct hop *x = get(h, str_n(key.p, strnlen(key.p, key.n < 15 ? key.n : 15)));
    free(x->kernel);
    x->kernel = strndup(chain.p ? chain.p : "", chain.n);
    mg_assert(x->kernel != NULL);
    touch(h, x);
}

static bool differs(const struct hop *x) {
    return !x->want != !x->kernel || (x->want && strcmp(x->want, x->kernel) != 0);
}

void hops_write(struct dataplane *d, struct hops *h) {
    if (!h->set.in_kernel && h->is_wanted) {
        nft_set_add(&d->batch, &h->set.desc);
    }
    /* An element can't change its verdict: it goes and comes in the same transaction. */
    nft_elems_begin(&d->batch, h->set.desc.name, false);
    for (size_t i = 0; i < h->touched.n; i++) {
        struct hop *x = h->touched.p[i];
        if (differs(x) && x->kernel) {
            nft_elem(&d->batch, x->iface, sizeof(x->iface), false);
        }
    }
    nft_elems_end(&d->batch);
    nft_elems_begin(&d->batch, h->set.desc.name, true);
    for (size_t i = 0; i < h->touched.n; i++) {
        struct hop *x = h->touched.p[i];
        if (differs(x) && x->want) {
            nft_elem_jump(&d->batch, x->iface, sizeof(x->iface), str_c(x->want));
        }
    }
    nft_elems_end(&d->batch);
}

void hops_remove(struct dataplane *d, struct hops *h) {
    if (h->set.in_kernel && !h->is_wanted) {
        nft_set_del(&d->batch, h->set.desc.name);
    }
}

void hops_settle(struct hops *h) {
    h->set.in_kernel = h->is_wanted;
    for (size_t i = 0; i < h->touched.n; i++) {
        struct hop *x = h->touched.p[i];
        x->is_touched = false;
        if (differs(x)) {
            free(x->kernel);
            x->kernel = x->want ? strdup(x->want) : NULL;
            mg_assert(!x->want || x->kernel);
        }
        if (!x->want) {
            str_hop_del(&h->by_iface, str_c(x->iface));
            free(x);
        }
    }
    vec_clear(&h->touched);
}

void hops_forget_kernel(struct hops *h) {
    h->set.in_kernel = false;
    struct hop **v;
    for (size_t i = 0; str_hop_next(&h->by_iface, &i, NULL, &v);) {
        free((*v)->kernel);
        (*v)->kernel = NULL;
        touch(h, *v);
    }
}
