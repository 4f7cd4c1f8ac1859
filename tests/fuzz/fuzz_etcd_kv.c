/* What others wrote to etcd: keys, values, pages of them, and the words of its errors. The first
 * byte chooses which. */
#include "store/etcd_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static size_t n_told; /* keeps the compiler from leaving things out */

static void try_key(struct str space, struct str etcd_key, struct arena *a) {
    struct str key, back;
    if (etcd_key_back(space, etcd_key, a, &key)) {
        mg_assert(key.n <= STORE_KEY_MAX || !str_is(space, "r"));
        mg_assert(etcd_key_of((struct store_key){space, key}, a, &back, NULL) == 0);
        mg_assert(str_eq(back, etcd_key)); /* one to one */
    }
}

static void try_prefix(struct str space, struct str prefix, struct arena *a) {
    struct etcd_range *v = NULL, around;
    size_t n = etcd_ranges((struct store_key){space, prefix}, a, &v);
    for (size_t i = 0; i < n; i++) {
        mg_assert(str_cmp(v[i].from, v[i].to) < 0 || v[i].to.n == 0);
    }
    mg_assert(etcd_range_around((struct store_key){space, prefix}, a, &around) == (n > 0));
}

static void try_value(struct str key, struct str value, struct arena *a) {
    struct store_key k = {STR("r"), key};
    struct str at;
    mg_assert(etcd_key_of(k, a, &at, NULL) == 0);
    struct str in = etcd_value_in(k.space, k.key, value, a);
    mg_assert(in.p != NULL);
    n_told += etcd_value_out(k, at, in, a).n;
}

static void try_page(struct str bytes, struct arena *a) {
    Etcd__RangeResponse *r = grpc_unpack(&etcd__range_response__descriptor, bytes, a);
    struct etcd_pager p;
    if (!r) {
        return;
    }
    etcd_pager_init(&p, (struct etcd_range){STR("/calico/"), STR("/calico0")}, 0);
    for (size_t i = 0; i < r->n_kvs; i++) {
        struct store_item it;
        if (etcd_item_of(STR("r"), r->kvs[i], a, &it)) {
            mg_assert(it.value.p && it.key.n <= STORE_KEY_MAX);
        }
    }
    if (etcd_pager_took(&p, r) == 0) {
        Etcd__RangeRequest q;
        etcd_pager_ask(&p, &q);
        mg_assert(q.limit >= 1);
    }
    etcd_pager_fini(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct arena a = {0};
    if (n < 1) {
        return 0;
    }
    struct str rest = str_n((const char *)data + 1, n - 1);
    static const char *const keys[] = {
        "NetworkPolicy.projectcalico.org/a/b", "GlobalNetworkPolicy.projectcalico.org//default.b",
        "BlockAffinity.projectcalico.org//b", "IPPool.projectcalico.org//b"};
    struct grpc_status st;
    switch (data[0] % 8) {
    case 0:
        try_key(STR("r"), rest, &a);
        try_prefix(STR("r"), rest, &a);
        break;
    case 1:
        try_key(STR("i"), rest, &a);
        try_prefix(STR("i"), rest, &a);
        break;
    case 2:
        try_page(rest, &a);
        break;
    case 3:
        grpc_status_of(2, rest, &st);
        mg_assert(st.code < 0 && st.reason[0]);
        break;
    default:
        try_value(str_c(keys[data[0] % 4]), rest, &a);
        break;
    }
    arena_fini(&a);
    return 0;
}
