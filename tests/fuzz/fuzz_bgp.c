/* Messages of BGP from any bytes: no crash, no read past the end, prefixes of accepted UPDATEs come
 * back the same, and attributes that were stored are read back as they were. */
#include "bgp/nexthop.h"
#include "bgp/update.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(bool ok) {
    if (!ok) {
        abort();
    }
}

static void try_open(const uint8_t *p, size_t n) {
    struct bgp_open o, back;
    struct bgp_fail f;
    if (bgp_open_parse(p, n, &o, &f) < 0) {
        check(f.code == BGP_E_OPEN);
        return;
    }
    struct buf b = BUF_INIT(BGP_MAX);
    bgp_open_write(&b, &o);
    check(bgp_header((uint8_t *)b.p, BGP_MAX, &f) == (int)b.n);
    check(bgp_open_parse((uint8_t *)b.p + BGP_HEADER, b.n - BGP_HEADER, &back, &f) == 0);
    check(back.as == o.as && back.hold_s == o.hold_s && back.id == o.id);
    buf_fini(&b);
}

static void try_store(const struct bgp_update *u, bool as4) {
    struct nexthops *hops = nexthops_new();
    struct attr_store *s = attr_store_new(hops);
    struct attr_src open;
    uint32_t id = attr_intern(s, &u->attrs);
    attr_open(s, id, &open);
    check(attr_intern(s, &open) == id);
    struct buf b = BUF_INIT(4U * BGP_MAX_EXT);
    struct attr_enc enc = {.as4 = as4, .with_next_hop = true};
    attr_encode(&b, &open, &enc);
    buf_reset(&b);
    as_path_print(&b, open.part[PART_AS_PATH]);
    buf_fini(&b);
    attr_store_free(s);
    nexthops_free(hops);
}

static void try_update(const uint8_t *p, size_t n, unsigned how) {
    struct bgp_rx rx = {.is_internal = how & 1,
                        .is_confed = how & 2,
                        .as4 = how & 4,
                        .mp = {true, !(how & 8)},
                        .addpath = {how & 16, how & 16},
                        .v4_over_v6 = how & 32,
                        .first_as = how & 64 ? 65001 : 0};
    static struct update_scratch s = UPDATE_SCRATCH_INIT;
    struct bgp_update u;
    struct bgp_fail f = {0};
    enum bgp_update_verdict v = bgp_update_parse(p, n, &rx, &s, &u, &f);
    if (v == UPDATE_RESET) {
        check(f.code == BGP_E_UPDATE && f.subcode != 0 && u.error);
        return;
    }
    check(v == UPDATE_OK || u.error);
    struct buf b = BUF_INIT(4U * BGP_MAX_EXT);
    for (unsigned i = 0; i < u.n_reach; i++) {
        struct nlri x, y;
        struct nlri_list l = u.reach[i];
        while (nlri_next(&l, &x)) {
            buf_reset(&b);
            nlri_write(&b, &x, l.has_path_ids);
            check(b.n == nlri_bytes(&x, l.has_path_ids));
            struct nlri_list one = {(uint8_t *)b.p, b.n, l.family, l.has_path_ids, l.is_classic};
            check(nlri_next(&one, &y) && memcmp(&x, &y, sizeof(x)) == 0 && one.n == 0);
            (void)nlri_is_usable(l.family, &x);
        }
        check(l.n == 0);
    }
    buf_fini(&b);
    if (v == UPDATE_OK && u.n_reach) {
        try_store(&u, rx.as4);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct bgp_fail f;
    if (n < 2) {
        return 0;
    }
    const uint8_t *p = data + 2;
    size_t left = n - 2;
    switch (data[0] % 5) {
    case 0:
        try_open(p, left);
        break;
    case 1:
        if (bgp_notification_parse(p, left, &f) == 0) {
            struct buf b = BUF_INIT(BGP_MAX);
            struct str text = bgp_shutdown_text(&f);
            check(text.n <= 255);
            bgp_fail_name(&b, f.code, f.subcode);
            buf_reset(&b);
            (void)bgp_hard_reset_open(&f);
            bgp_hard_reset_set(&f);
            bgp_notification_write(&b, &f);
            check(!b.overflow);
            buf_fini(&b);
        }
        break;
    case 2:
        if (left >= BGP_HEADER) {
            enum bgp_family fam;
            uint8_t sub;
            int len = bgp_header(p, BGP_MAX, &f);
            if (len > 0 && (size_t)len <= left && p[18] == BGP_ROUTE_REFRESH) {
                (void)!bgp_refresh_parse(p, (size_t)len, data[1] & 1, &fam, &sub, &f);
            }
        }
        break;
    default:
        try_update(p, left, data[1]);
    }
    return 0;
}
