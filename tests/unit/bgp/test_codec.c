/* Messages of BGP byte by byte: each NOTIFICATION with code, subcode and data, each case of RFC
 * 7606, each capability, and round trips. */
#include "bgp/update.h"

#include "base/err.h"
#include "bgp/nexthop.h"
#include "hex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define MARK "ffffffffffffffffffffffffffffffff "

/* ---- header ---- */

static void t_header__each_error__code_and_data(void **state) {
    (void)state;
    static const struct {
        const char *head;
        size_t max;
        int want; /* length, or < 0 */
        const char *fail;
    } cases[] = {
        {MARK "0013 04", BGP_MAX, 19, NULL},
        {"fffffffffffffffffffffffffffffffe 0013 04", BGP_MAX, -1, "0101"},
        {MARK "0012 04", BGP_MAX, -1, "01020012"},
        {MARK "0014 04", BGP_MAX, -1, "01020014"},
        {MARK "1001 02", BGP_MAX, -1, "01021001"},
        {MARK "1001 02", BGP_MAX_EXT, 4097, NULL},
        {MARK "ffff 02", BGP_MAX_EXT, 65535, NULL},
        {MARK "1001 01", BGP_MAX_EXT, -1, "01021001"}, /* OPEN never grows */
        {MARK "001c 01", BGP_MAX, -1, "0102001c"},
        {MARK "0016 02", BGP_MAX, -1, "01020016"},
        {MARK "0014 03", BGP_MAX, -1, "01020014"},
        {MARK "0013 00", BGP_MAX, -1, "010300"},
        {MARK "0013 06", BGP_MAX, -1, "010306"},
        {MARK "0000 02", BGP_MAX, -1, "01020000"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint8_t p[BGP_HEADER];
        struct bgp_fail f = {0};
        assert_int_equal(unhex(cases[i].head, p, sizeof(p)), BGP_HEADER);
        int r = bgp_header(p, cases[i].max, &f);
        if (cases[i].want > 0) {
            assert_int_equal(r, cases[i].want);
            continue;
        }
        assert_true(r < 0);
        struct buf b = BUF_INIT(BGP_MAX);
        bgp_notification_write(&b, &f);
        assert_string_equal(tohex(b.p + BGP_HEADER, b.n - BGP_HEADER), cases[i].fail);
        buf_fini(&b);
    }
}

/* ---- OPEN ---- */

static void t_open__each_error__code_and_data(void **state) {
    (void)state;
    static const struct {
        const char *body, *fail; /* fail NULL: fine */
    } cases[] = {
        {"04 fde8 005a 0a000001 00", NULL},
        {"03 fde8 005a 0a000001 00", "02010004"},
        {"05 fde8 005a 0a000001 00", "02010004"},
        {"04 0000 005a 0a000001 00", "0202"},
        {"04 fde8 005a 00000000 00", "0203"},
        {"04 fde8 0001 0a000001 00", "0206"},
        {"04 fde8 0002 0a000001 00", "0206"},
        {"04 fde8 0000 0a000001 00", NULL},
        {"04 fde8 0003 0a000001 00", NULL},
        {"04 fde8 005a 0a000001 02 0100", "0204"}, /* authentication of old */
        {"04 fde8 005a 0a000001 03 0200", "0200"}, /* lengths lie */
        {"04 fde8 005a 0a000001 02 0204", "0200"},
        {"04 fde8 005a 0a000001 01 02", "0200"},
        {"04 fde8 005a 0a000001 04 0202 4108", "0200"},
        {"04 fde8 005a 0a000001 08 0206 4104 00000000", "0202"}, /* AS 0 in four octets */
        {"04 5ba0 005a 0a000001 08 0206 4104 00005ba0", "0202"}, /* AS_TRANS for real */
        {"04 5ba0 005a 0a000001 08 0206 4104 00010000", NULL},
        {"04 fde8 005a 0a000001 08 0206 4104 0000fde8 00", "0200"}, /* trailing byte */
        {"04 fde8 005a 0a000001 06 0204 01020001", NULL}, /* capability of a wrong length */
        {"04 fde8 005a 0a000001 ff ff 0009 02 0006 4104 0000fde8", NULL}, /* RFC 9072 */
        {"04 fde8 005a 0a000001 ff ff 000a 02 0006 4104 0000fde8", "0200"},
        {"04 fde8 005a 0a000001 ff ff 0002 0200", "0200"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint8_t p[256];
        struct bgp_fail f = {0};
        struct bgp_open o;
        size_t n = unhex(cases[i].body, p, sizeof(p));
        int r = bgp_open_parse(p, n, &o, &f);
        if (!cases[i].fail) {
            assert_int_equal(r, 0);
            continue;
        }
        assert_true(r < 0);
        struct buf b = BUF_INIT(BGP_MAX);
        bgp_notification_write(&b, &f);
        if (strcmp(tohex(b.p + BGP_HEADER, b.n - BGP_HEADER), cases[i].fail) != 0) {
            print_message("case %zu\n", i);
        }
        assert_string_equal(tohex(b.p + BGP_HEADER, b.n - BGP_HEADER), cases[i].fail);
        buf_fini(&b);
    }
}

static void t_open__all_capabilities__bytes_and_back(void **state) {
    (void)state;
    struct bgp_open o = {.as = 4200000000U,
                         .hold_s = 90,
                         .id = 0x0a000001,
                         .caps = {.has_mp = true,
                                  .mp = {true, true},
                                  .has_refresh = true,
                                  .has_enhanced_refresh = true,
                                  .has_extended_message = true,
                                  .has_as4 = true,
                                  .as4 = 4200000000U,
                                  .has_v4_over_v6 = true,
                                  .addpath = {3, 1},
                                  .has_gr = true,
                                  .gr_restarted = true,
                                  .gr_notification = true,
                                  .gr_time_s = 120,
                                  .gr = {true, true},
                                  .gr_forwarding = {true, false},
                                  .has_llgr = true,
                                  .llgr = {true, false},
                                  .llgr_forwarding = {true, false},
                                  .llgr_time_s = {3600, 0},
                                  .role = BGP_ROLE_CUSTOMER}};
    struct buf b = BUF_INIT(BGP_MAX);
    bgp_open_write(&b, &o);
    assert_string_equal(tohex(b.p, b.n),
                        squeeze(MARK "0061 01 04 5ba0 005a 0a000001 44 0242"
                                     "0104 00010001 0104 00020001 0200 0506 0001 0001 0002 0600"
                                     "0901 03 400a c078 00010180 00020100 4104 fa56ea00"
                                     "4508 00010103 00020101 4600 4707 000101 80000e10"));
    struct bgp_open back;
    struct bgp_fail f;
    assert_int_equal(bgp_open_parse((uint8_t *)b.p + BGP_HEADER, b.n - BGP_HEADER, &back, &f), 0);
    assert_memory_equal(&back.caps, &o.caps, sizeof(o.caps));
    assert_int_equal(back.as, o.as);
    buf_reset(&b);
    /* A speaker of RFC 4271 alone: no parameters, IPv4. */
    struct bgp_open old = {.as = 65000, .hold_s = 180, .id = 1, .caps.role = BGP_ROLE_NONE};
    bgp_open_write(&b, &old);
    assert_string_equal(tohex(b.p, b.n), squeeze(MARK "001d 01 04 fde8 00b4 00000001 00"));
    assert_int_equal(bgp_open_parse((uint8_t *)b.p + BGP_HEADER, b.n - BGP_HEADER, &back, &f), 0);
    assert_true(back.caps.mp[BGP_V4] && !back.caps.mp[BGP_V6] && back.caps.role == BGP_ROLE_NONE);
    buf_fini(&b);
}

/* ---- NOTIFICATION, ROUTE-REFRESH ---- */

static void t_notification__shutdown_text_and_hard_reset__bytes_and_back(void **state) {
    (void)state;
    struct bgp_fail f, g;
    struct buf b = BUF_INIT(BGP_MAX);
    bgp_shutdown_set(&f, BGP_E_CEASE_SHUTDOWN, STR("bye"));
    bgp_notification_write(&b, &f);
    assert_string_equal(tohex(b.p, b.n), squeeze(MARK "0019 03 06 02 03 627965"));
    assert_int_equal(bgp_notification_parse((uint8_t *)b.p + BGP_HEADER, b.n - BGP_HEADER, &g), 0);
    assert_true(str_is(bgp_shutdown_text(&g), "bye"));
    buf_reset(&b);
    bgp_hard_reset_set(&f);
    bgp_notification_write(&b, &f);
    assert_string_equal(tohex(b.p, b.n), squeeze(MARK "001b 03 06 09 06 02 03 627965"));
    assert_true(bgp_hard_reset_open(&f));
    assert_true(str_is(bgp_shutdown_text(&f), "bye"));
    assert_false(bgp_hard_reset_open(&f));
    /* 255 bytes at most, cut between characters. */
    char text[400];
    memset(text, 'x', sizeof(text));
    memcpy(text + 254, "\xc3\xa9", 2);
    bgp_shutdown_set(&f, BGP_E_CEASE_RESET, str_n(text, sizeof(text)));
    assert_int_equal(f.data[0], 254);
    f.data[0] = 255; /* says more than there is */
    assert_null(bgp_shutdown_text(&f).p);
    assert_true(bgp_notification_parse((const uint8_t *)"\6", 1, &g) < 0);
    buf_reset(&b);
    bgp_fail_name(&b, 6, 2);
    buf_putc(&b, ' ');
    bgp_fail_name(&b, 3, 0);
    buf_putc(&b, ' ');
    bgp_fail_name(&b, 99, 7);
    assert_string_equal(buf_cstr(&b),
                        "Cease/Administrative Shutdown UPDATE Message Error code 99/7");
    buf_fini(&b);
}

static void t_refresh__each_form__family_or_error(void **state) {
    (void)state;
    static const struct {
        const char *msg;
        bool is_enhanced;
        int want; /* 0 ok, 1 ignored, 2 error */
        const char *fail;
    } cases[] = {
        {MARK "0017 05 0001 00 01", false, 0, NULL},
        {MARK "0017 05 0002 01 01", true, 0, NULL},
        {MARK "0017 05 0002 01 01", false, 1, NULL}, /* subtype without the capability */
        {MARK "0017 05 0002 03 01", true, 1, NULL},
        {MARK "0017 05 0019 00 41", true, 1, NULL},
        {MARK "0018 05 0001 01 01 00", true, 2, "0701 " MARK "0018 05 0001 01 01 00"},
        {MARK "0016 05 0001 01", true, 2, "0701 " MARK "0016 05 0001 01"},
        {MARK "0018 05 0001 00 01 00", false, 2, "0102 0018"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint8_t p[64], sub;
        enum bgp_family fam;
        struct bgp_fail f = {0};
        size_t n = unhex(cases[i].msg, p, sizeof(p));
        assert_int_equal(bgp_header(p, BGP_MAX, &f), n);
        int r = bgp_refresh_parse(p, n, cases[i].is_enhanced, &fam, &sub, &f);
        assert_int_equal(r, cases[i].want == 0   ? 0
                            : cases[i].want == 1 ? ERR_NOT_FOUND
                                                 : ERR_INVALID);
        if (cases[i].fail) {
            struct buf b = BUF_INIT(BGP_MAX);
            bgp_notification_write(&b, &f);
            assert_string_equal(tohex(b.p + BGP_HEADER, b.n - BGP_HEADER), squeeze(cases[i].fail));
            buf_fini(&b);
        }
    }
}

/* ---- UPDATE ---- */

static const struct bgp_rx EBGP = {.as4 = true, .mp = {true, true}};
static const struct bgp_rx IBGP = {.is_internal = true, .as4 = true, .mp = {true, true}};
static const struct bgp_rx OLD = {.as4 = false, .mp = {true, true}};
static const struct bgp_rx CONFED = {.is_confed = true, .as4 = true, .mp = {true, true}};

#define ORG "400101 00"
#define PATH "400206 0201 0000fde9"
#define HOP "400304 0a000001"
#define NET "18 0a0102"

/* attributes in hex; the rest is put around them. */
static size_t make_update(const char *withdrawn, const char *attrs, const char *nlri, uint8_t *out,
                          size_t cap) {
    uint8_t part[4096];
    size_t n = unhex(withdrawn, part, sizeof(part)), at = 0;
    set_u16(out, (unsigned)n);
    memcpy(out + 2, part, n);
    at = 2 + n;
    n = unhex(attrs, part, sizeof(part));
    set_u16(out + at, (unsigned)n);
    memcpy(out + at + 2, part, n);
    at += 2 + n;
    return at + unhex(nlri, out + at, cap - at);
}

enum { O = UPDATE_OK, W = UPDATE_WITHDRAW, R = UPDATE_RESET, D = 10 /* OK, one discarded */ };

static void t_update__rfc_7606__each_case(void **state) {
    (void)state;
    static const struct {
        const struct bgp_rx *rx;
        const char *attrs, *nlri;
        int want;
        const char *fail;
    } cases[] = {
        {&EBGP, ORG PATH HOP, NET, O, NULL},
        /* mandatory ones missing */
        {&EBGP, PATH HOP, NET, W, NULL},
        {&EBGP, ORG HOP, NET, W, NULL},
        {&EBGP, ORG PATH, NET, W, NULL},
        {&EBGP, ORG PATH "800e1a 0002 01 10 20010db8000000000000000000000001 00 20 20010db8", "", O,
         NULL},
        /* flags */
        {&EBGP, "c00101 00" PATH HOP, NET, W, NULL},
        {&EBGP, "000101 00" PATH HOP, NET, W, NULL},
        {&EBGP, ORG PATH HOP "c00404 00000001", NET, W, NULL},
        {&EBGP, ORG PATH HOP "c00600", NET, D, NULL},
        {&EBGP, ORG PATH HOP "600600", NET, O, NULL}, /* partial means nothing here */
        {&EBGP, ORG PATH HOP "400708 0000fde9 0a000001", NET, D, NULL},
        /* ORIGIN */
        {&EBGP, "400102 0000" PATH HOP, NET, W, NULL},
        {&EBGP, "400100" PATH HOP, NET, W, NULL},
        {&EBGP, "400101 03" PATH HOP, NET, W, NULL},
        /* AS_PATH */
        {&EBGP, ORG "400200" HOP, NET, O, NULL},
        {&EBGP, ORG "400206 0501 0000fde9" HOP, NET, W, NULL},
        {&EBGP, ORG "400206 0001 0000fde9" HOP, NET, W, NULL},
        {&EBGP, ORG "400206 0202 0000fde9" HOP, NET, W, NULL},
        {&EBGP, ORG "400207 0201 0000fde9 02" HOP, NET, W, NULL},
        {&EBGP, ORG "400202 0200" HOP, NET, W, NULL},
        {&EBGP, ORG "400206 0201 00000000" HOP, NET, W, NULL}, /* RFC 7607 */
        {&EBGP, ORG "400206 0301 0000fde9" HOP, NET, W, NULL}, /* RFC 5065 */
        {&CONFED, ORG "400206 0301 0000fde9" HOP, NET, O, NULL},
        {&OLD, ORG "400204 0201 fde9" HOP, NET, O, NULL},
        {&OLD, ORG PATH HOP, NET, W, NULL},
        /* NEXT_HOP, MED, LOCAL_PREF */
        {&EBGP, ORG PATH "400303 0a0000", NET, W, NULL},
        {&EBGP, ORG PATH HOP "800403 000000", NET, W, NULL},
        {&EBGP, ORG PATH HOP "400503 000000", NET, D, NULL}, /* external: not looked at */
        {&EBGP, ORG PATH HOP "400504 00000064", NET, D, NULL},
        {&IBGP, ORG PATH HOP "400503 000000", NET, W, NULL},
        {&IBGP, ORG PATH HOP "400504 00000064", NET, O, NULL},
        /* ATOMIC_AGGREGATE, AGGREGATOR */
        {&EBGP, ORG PATH HOP "400601 00", NET, D, NULL},
        {&EBGP, ORG PATH HOP "c00706 fde9 0a000001", NET, D, NULL},
        {&EBGP, ORG PATH HOP "c00708 0000fde9 0a000001", NET, O, NULL},
        {&EBGP, ORG PATH HOP "c00708 00000000 0a000001", NET, D, NULL}, /* RFC 7607 */
        {&OLD, ORG "400204 0201 fde9" HOP "c00706 fde9 0a000001", NET, O, NULL},
        {&OLD, ORG "400204 0201 fde9" HOP "c00708 0000fde9 0a000001", NET, D, NULL},
        /* communities */
        {&EBGP, ORG PATH HOP "c00804 fde90001", NET, O, NULL},
        {&EBGP, ORG PATH HOP "c00805 fde9000100", NET, W, NULL},
        {&EBGP, ORG PATH HOP "c00800", NET, W, NULL},
        {&EBGP, ORG PATH HOP "c01008 0002fde900000001", NET, O, NULL},
        {&EBGP, ORG PATH HOP "c01007 0002fde9000000", NET, W, NULL},
        {&EBGP, ORG PATH HOP "c01000", NET, W, NULL},
        {&EBGP, ORG PATH HOP "c0200c 0000fde9 00000001 00000002", NET, O, NULL},
        {&EBGP, ORG PATH HOP "c0200b 0000fde9 00000001 000000", NET, W, NULL},
        {&EBGP, ORG PATH HOP "c02000", NET, W, NULL},
        {&EBGP, ORG PATH HOP "c01913 00022001 0db800000000000000000000000000", NET, W, NULL},
        /* reflection */
        {&EBGP, ORG PATH HOP "800904 0a000001", NET, D, NULL},
        {&IBGP, ORG PATH HOP "800904 0a000001", NET, O, NULL},
        {&IBGP, ORG PATH HOP "800903 0a0000", NET, W, NULL},
        {&EBGP, ORG PATH HOP "800a04 0a000001", NET, D, NULL},
        {&IBGP, ORG PATH HOP "800a04 0a000001", NET, O, NULL},
        {&IBGP, ORG PATH HOP "800a06 0a0000010000", NET, W, NULL},
        {&IBGP, ORG PATH HOP "800a00", NET, W, NULL},
        /* AS4_PATH from a speaker that needs none; malformed */
        {&EBGP, ORG PATH HOP "c01106 0201 0000fde9", NET, D, NULL},
        {&OLD, ORG "400204 0201 fde9" HOP "c01105 0201 0000fd", NET, D, NULL},
        {&OLD, ORG "400204 0201 fde9" HOP "c01207 0000fde9 0a0000", NET, D, NULL},
        /* RFC 9234 */
        {&EBGP, ORG PATH HOP "c02304 0000fde9", NET, O, NULL},
        {&EBGP, ORG PATH HOP "c02303 0000fd", NET, W, NULL},
        /* twice */
        {&EBGP, ORG ORG PATH HOP, NET, D, NULL},
        {&EBGP, ORG PATH "800f03 000201 800f03 000201", "", R, "0301"},
        {&EBGP,
         ORG PATH "800e1a 0002 01 10 20010db8000000000000000000000001 00 20 20010db8"
                  "800e1a 0002 01 10 20010db8000000000000000000000001 00 20 20010db8",
         "", R, "0301"},
        /* an attribute beyond its list */
        {&EBGP, ORG PATH HOP "800405 000000", NET, W, NULL},
        {&EBGP, ORG PATH HOP "80", NET, W, NULL},
        {&EBGP, ORG PATH HOP "900400", NET, W, NULL},
        {&EBGP, ORG PATH "800405 000000", "", R, "0301"}, /* nothing to withdraw */
        {&EBGP, "400101 07", "", R, "0301"},
        {&EBGP, ORG, "", O, NULL},
        /* unknown ones */
        {&EBGP, ORG PATH HOP "c0f002 abcd", NET, O, NULL},
        {&EBGP, ORG PATH HOP "80f002 abcd", NET, O, NULL},
        {&EBGP, ORG PATH HOP "40f002 abcd", NET, R, "0302 40f002abcd"},
        {&EBGP, ORG PATH HOP "50f00002 abcd", NET, R, "0302 50f00002abcd"},
        /* MP_REACH, MP_UNREACH */
        {&EBGP, ORG PATH "800e04 0002 01 10", "", R, "0309 800e04 00020110"},
        {&EBGP, ORG PATH "800e09 0002 01 04 0a000001 00", "", R, "0309 800e09 000201040a00000100"},
        {&EBGP, ORG PATH "800e15 0001 01 10 20010db8000000000000000000000001 00", "", R,
         "0309 800e15 0001011020010db800000000000000000000000100"}, /* RFC 8950 not agreed on */
        {&EBGP, ORG PATH "800e19 0002 01 10 20010db8000000000000000000000001 00 20 20010d", "", R,
         "0309 800e19 0002011020010db8000000000000000000000001002020010d"},
        {&EBGP, ORG PATH "800e16 0002 01 10 20010db8000000000000000000000001 00 81", "", R,
         "0309 800e16 0002011020010db80000000000000000000000010081"},
        {&EBGP, "800f02 0002", "", R, "0309 800f02 0002"},
        {&EBGP, "800f04 0002 01 81", "", R, "0309 800f04 00020181"},
        {&EBGP, "800f05 0019 41 0000", "", D, NULL},
        {&EBGP, "c00f08 0002 01 20 20010db8", "", W, NULL}, /* flags wrong, still withdrawn */
        /* prefixes */
        {&EBGP, ORG PATH HOP, "21 0a000000", R, "030a"},
        {&EBGP, ORG PATH HOP, "18 0a00", R, "030a"},
        {&EBGP, ORG PATH HOP, "00", O, NULL},
    };
    struct update_scratch s = UPDATE_SCRATCH_INIT;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint8_t p[8192];
        struct bgp_update u;
        struct bgp_fail f = {0};
        size_t n = make_update("", cases[i].attrs, cases[i].nlri, p, sizeof(p));
        enum bgp_update_verdict v = bgp_update_parse(p, n, cases[i].rx, &s, &u, &f);
        enum bgp_update_verdict want =
            cases[i].want == D ? UPDATE_OK : (enum bgp_update_verdict)cases[i].want;
        if (v != want || (cases[i].want == D) != (u.n_discarded == 1 && v == UPDATE_OK)) {
            print_message("case %zu: attributes %s: verdict %d, %u discarded, %s\n", i,
                          cases[i].attrs, v, u.n_discarded, u.error ? u.error : "no error");
        }
        assert_int_equal(v, want);
        if (cases[i].want == D) {
            assert_int_equal(u.n_discarded, 1);
        }
        if (v == UPDATE_RESET) {
            struct buf b = BUF_INIT(BGP_MAX);
            bgp_notification_write(&b, &f);
            assert_string_equal(tohex(b.p + BGP_HEADER, b.n - BGP_HEADER), squeeze(cases[i].fail));
            buf_fini(&b);
        }
        if (v != UPDATE_OK) {
            assert_non_null(u.error);
        }
    }
    update_scratch_fini(&s);
}

static void t_update__lengths_lie__malformed_list(void **state) {
    (void)state;
    static const char *const bodies[] = {"0001 0000", "0000 0001", "0000",
                                         "00",        "ffff 0000", "0000 0004 400101"};
    struct update_scratch s = UPDATE_SCRATCH_INIT;
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        uint8_t p[64];
        struct bgp_update u;
        struct bgp_fail f = {0};
        size_t n = unhex(bodies[i], p, sizeof(p));
        assert_int_equal(bgp_update_parse(p, n, &EBGP, &s, &u, &f), UPDATE_RESET);
        assert_int_equal(f.code, BGP_E_UPDATE);
        assert_int_equal(f.subcode, BGP_E_UPDATE_LIST);
        assert_int_equal(f.n, 0);
    }
    update_scratch_fini(&s);
}

static void t_update__end_of_rib__told(void **state) {
    (void)state;
    struct update_scratch s = UPDATE_SCRATCH_INIT;
    static const struct {
        const char *attrs;
        bool v4, v6;
    } cases[] = {{"", true, false},
                 {"800f03 000201", false, true},
                 {"800f03 000101", true, false},
                 {"800f08 0002 01 20 20010db8", false, false},
                 {ORG, false, false}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint8_t p[64];
        struct bgp_update u;
        struct bgp_fail f = {0};
        size_t n = make_update("", cases[i].attrs, "", p, sizeof(p));
        assert_int_equal(bgp_update_parse(p, n, &EBGP, &s, &u, &f), UPDATE_OK);
        assert_int_equal(u.is_eor[BGP_V4], cases[i].v4);
        assert_int_equal(u.is_eor[BGP_V6], cases[i].v6);
    }
    update_scratch_fini(&s);
}

static void t_update__next_hop_that_is_only_link_local__either_way_it_is_written(void **state) {
    (void)state;
#define LL "fe800000000000000000000000000001"
    static const char *const hops[] = {"10 " LL, "20 00000000000000000000000000000000 " LL,
                                       "20 " LL LL};
    for (size_t i = 0; i < ARRAY_LEN(hops); i++) {
        struct update_scratch s = UPDATE_SCRATCH_INIT;
        char attrs[256];
        uint8_t p[256];
        struct bgp_update u;
        struct bgp_fail f = {0};
        struct ip46 ll;
        (void)snprintf(attrs, sizeof(attrs), ORG PATH "800e%02x 0002 01 %s 00 20 20010db8",
                       i == 0 ? 26U : 42U, hops[i]);
        size_t n = make_update("", attrs, "", p, sizeof(p));
        assert_int_equal(bgp_update_parse(p, n, &EBGP, &s, &u, &f), UPDATE_OK);
        assert_int_equal(ip_parse(STR("fe80::1"), &ll), 0);
        assert_true(ip_eq(&u.mp_next_hop, &ll));
        assert_true(ip_eq(&u.mp_link_local, &ll));
        update_scratch_fini(&s);
    }
}

static void t_update__two_octet_peer__path_of_rfc_6793(void **state) {
    (void)state;
    static const struct {
        const char *attrs, *path;
        uint32_t aggregator;
    } cases[] = {
        {ORG "400206 0202 5ba0 fde9" HOP, "23456 65001", 0},
        {ORG "400206 0202 5ba0 fde9" HOP "c0110a 0202 00010001 0000fde9", "65537 65001", 0},
        {ORG "400208 0203 fdea 5ba0 fde9" HOP "c0110a 0202 00010001 0000fde9", "65002 65537 65001",
         0},
        /* the longer one of the two is not believed */
        {ORG "400204 0201 5ba0" HOP "c0110a 0202 00010001 0000fde9", "23456", 0},
        /* an aggregator that is no AS_TRANS: both AS4 ones are ignored */
        {ORG "400204 0201 5ba0" HOP
             "c00706 fde9 0a000001 c01106 0201 00010001 c01208 00010001 0a000001",
         "23456", 65001},
        {ORG "400204 0201 5ba0" HOP
             "c00706 5ba0 0a000001 c01106 0201 00010001 c01208 00010001 0a000001",
         "65537", 65537},
        {ORG "40020a 0201 5ba0 0102 fde9 fdea" HOP "c01106 0201 00010001", "23456 65537", 0},
    };
    struct update_scratch s = UPDATE_SCRATCH_INIT;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint8_t p[256];
        struct bgp_update u;
        struct bgp_fail f = {0};
        size_t n = make_update("", cases[i].attrs, NET, p, sizeof(p));
        assert_int_equal(bgp_update_parse(p, n, &OLD, &s, &u, &f), UPDATE_OK);
        struct buf b = BUF_INIT(1000);
        as_path_print(&b, u.attrs.part[PART_AS_PATH]);
        assert_string_equal(buf_cstr(&b), cases[i].path);
        assert_int_equal(u.attrs.aggregator_as, cases[i].aggregator);
        buf_fini(&b);
    }
    update_scratch_fini(&s);
}

static void t_nlri__ids_and_trailing_bits__read(void **state) {
    (void)state;
    struct bgp_rx rx = EBGP;
    rx.addpath[BGP_V4] = true;
    struct update_scratch s = UPDATE_SCRATCH_INIT;
    uint8_t p[256];
    struct bgp_update u;
    struct bgp_fail f = {0};
    struct nlri n;
    size_t len =
        make_update("00000007 08 0b", ORG PATH HOP, "00000001 09 0aff 00000002 00", p, sizeof(p));
    assert_int_equal(bgp_update_parse(p, len, &rx, &s, &u, &f), UPDATE_OK);
    assert_true(nlri_next(&u.unreach[0], &n) && n.path_id == 7 && n.len == 8 && n.addr[0] == 11);
    assert_false(nlri_next(&u.unreach[0], &n));
    assert_true(nlri_next(&u.reach[0], &n) && n.path_id == 1 && n.len == 9 && n.addr[1] == 0x80);
    assert_true(nlri_next(&u.reach[0], &n) && n.path_id == 2 && n.len == 0);
    assert_false(nlri_next(&u.reach[0], &n));
    static const struct {
        enum bgp_family fam;
        const char *hex; /* length and bytes */
        bool ok;
    } usable[] = {
        {BGP_V4, "00", true},          {BGP_V4, "08 0a", true},
        {BGP_V4, "08 00", false},      {BGP_V4, "08 7f", false},
        {BGP_V4, "04 e0", false},      {BGP_V4, "20 ffffffff", false},
        {BGP_V4, "01 80", true},       {BGP_V6, "00", true},
        {BGP_V6, "08 ff", false},      {BGP_V6, "0a fe80", false},
        {BGP_V6, "20 20010db8", true}, {BGP_V6, "80 00000000000000000000000000000001", false}};
    for (size_t i = 0; i < ARRAY_LEN(usable); i++) {
        len = unhex(usable[i].hex, p, sizeof(p));
        struct nlri_list l = {p, len, usable[i].fam, false, true};
        assert_true(nlri_next(&l, &n));
        assert_int_equal(nlri_is_usable(usable[i].fam, &n), usable[i].ok);
    }
    update_scratch_fini(&s);
}

/* ---- attributes: stored, opened, written, read again ---- */

static void round_trip(const struct attr_src *a, bool as4, struct attr_store *store) {
    uint32_t id = attr_intern(store, a), id2;
    struct attr_src open;
    attr_open(store, id, &open);
    assert_int_equal(open.has, a->has);
    id2 = attr_intern(store, &open);
    assert_int_equal(id2, id);
    struct buf b = BUF_INIT(BGP_MAX_EXT);
    wr_u16(&b, 0);
    wr_u16(&b, 0);
    struct attr_enc enc = {.as4 = as4, .with_next_hop = true};
    attr_encode(&b, &open, &enc);
    set_u16((uint8_t *)b.p + 2, (unsigned)(b.n - 4));
    buf_add(&b, "\x18\x0a\x01\x02", 4);
    struct update_scratch s = UPDATE_SCRATCH_INIT;
    struct bgp_rx rx = {.is_internal = true, .as4 = as4, .mp = {true, false}};
    struct bgp_update u;
    struct bgp_fail f;
    enum bgp_update_verdict v = bgp_update_parse((uint8_t *)b.p, b.n, &rx, &s, &u, &f);
    if (v != UPDATE_OK || u.error) {
        print_message("%s: %s\n", u.error, tohex(b.p, b.n));
    }
    assert_int_equal(v, UPDATE_OK);
    assert_null(u.error);
    u.attrs.next_hop = u.next_hop;
    id2 = attr_intern(store, &u.attrs);
    assert_int_equal(id2, id);
    attr_unref(store, id);
    attr_unref(store, id);
    attr_unref(store, id);
    assert_int_equal(attr_store_count(store), 0);
    buf_fini(&b);
    update_scratch_fini(&s);
}

static void t_attrs__random__stored_written_and_read_are_the_same(void **state) {
    (void)state;
    struct nexthops *hops = nexthops_new();
    struct attr_store *store = attr_store_new(hops);
    srand(7);
    for (int round = 0; round < 2000; round++) {
        static uint8_t path[600], comm[400], ext[80], large[120], unknown[64], clusters[40];
        struct attr_src a = {.has = (uint16_t)(rand() % 64), .origin = (uint8_t)(rand() % 3)};
        bool as4 = rand() % 2;
        a.med = (uint32_t)rand();
        a.local_pref = (uint32_t)rand();
        a.originator = (uint32_t)rand();
        a.otc = (uint32_t)rand();
        a.aggregator_as = 1 + (uint32_t)rand() % 100000;
        a.aggregator_id = (uint32_t)rand();
        a.next_hop = (struct ip46){IP_V4, {10, 0, 0, (uint8_t)(1 + rand() % 200)}};
        if (!(a.has & HAS_MED)) {
            a.med = 0;
        }
        size_t n = 0;
        for (int seg = rand() % 4; seg > 0; seg--) {
            unsigned count = 1 + (unsigned)rand() % 30;
            path[n] = seg % 2 ? SEG_SEQUENCE : SEG_SET;
            path[n + 1] = (uint8_t)count;
            for (unsigned i = 0; i < count; i++) {
                set_u32(path + n + 2 + (size_t)i * 4, rand() % 2 ? 1 + (uint32_t)rand() % 60000
                                                                 : 70000 + (uint32_t)rand() % 9999);
            }
            n += 2 + (size_t)count * 4;
        }
        a.part[PART_AS_PATH] = str_n((char *)path, n);
        for (size_t i = 0; i < sizeof(comm); i++) {
            comm[i] = (uint8_t)rand();
        }
        memcpy(ext, comm, sizeof(ext));
        memcpy(large, comm, sizeof(large));
        memcpy(clusters, comm, sizeof(clusters));
        a.part[PART_COMMUNITIES] = str_n((char *)comm, 4 * ((size_t)rand() % 100));
        a.part[PART_EXT] = str_n((char *)ext, 8 * ((size_t)rand() % 10));
        a.part[PART_LARGE] = str_n((char *)large, 12 * ((size_t)rand() % 10));
        a.part[PART_CLUSTERS] = str_n((char *)clusters, 4 * ((size_t)rand() % 10));
        static const uint8_t U[] = {0xe0, 20, 0, 2, 1, 2, 0xe0, 99, 0, 0, 0xe0, 200, 0, 1, 9};
        memcpy(unknown, U, sizeof(U));
        a.part[PART_UNKNOWN] = rand() % 2 ? str_n((char *)unknown, sizeof(U)) : STR_NULL;
        round_trip(&a, as4, store);
    }
    attr_store_free(store);
    nexthops_free(hops);
}

static void t_path__prepend_strip_count__as_written(void **state) {
    (void)state;
    uint8_t p[2000];
    struct buf b = BUF_INIT(10000), out = BUF_INIT(10000), text = BUF_INIT(10000);
    size_t n = unhex("0302 00000001 00000002 0201 00000003 0102 00000004 00000005 0401 00000006", p,
                     sizeof(p));
    struct str path = str_n((char *)p, n);
    as_path_print(&text, path);
    assert_string_equal(buf_cstr(&text), "(1 2) 3 {4,5} [6]");
    assert_int_equal(as_path_len(path), 2);
    assert_int_equal(as_path_first(path), 3);
    assert_int_equal(as_path_count(path, 5), 1);
    assert_true(as_path_has_confed(path));
    as_path_strip_confed(&out, path);
    as_path_prepend(&b, buf_view(&out), SEG_SEQUENCE, 70000, 2);
    buf_reset(&text);
    as_path_print(&text, buf_view(&b));
    assert_string_equal(buf_cstr(&text), "70000 70000 3 {4,5}");
    assert_int_equal(as_path_origin(buf_view(&b)), 0);
    /* A full segment is not made longer. */
    memset(p, 0, sizeof(p));
    p[0] = SEG_SEQUENCE;
    p[1] = 255;
    as_path_prepend(&b, str_n((char *)p, 2 + 255 * 4), SEG_SEQUENCE, 1, 1);
    assert_int_equal(b.n, 6 + 2 + 255 * 4);
    assert_int_equal(as_path_len(buf_view(&b)), 256);
    buf_reset(&b);
    comm_add(&b, str_n("\0\0\0\1\0\0\0\3", 8), (const uint8_t *)"\0\0\0\2", 4);
    assert_string_equal(tohex(b.p, b.n), "000000010000000200000003");
    buf_reset(&out);
    comm_add(&out, buf_view(&b), (const uint8_t *)"\0\0\0\2", 4);
    assert_int_equal(out.n, 12);
    buf_fini(&b);
    buf_fini(&out);
    buf_fini(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_header__each_error__code_and_data),
        cmocka_unit_test(t_open__each_error__code_and_data),
        cmocka_unit_test(t_open__all_capabilities__bytes_and_back),
        cmocka_unit_test(t_notification__shutdown_text_and_hard_reset__bytes_and_back),
        cmocka_unit_test(t_refresh__each_form__family_or_error),
        cmocka_unit_test(t_update__rfc_7606__each_case),
        cmocka_unit_test(t_update__lengths_lie__malformed_list),
        cmocka_unit_test(t_update__end_of_rib__told),
        cmocka_unit_test(t_update__next_hop_that_is_only_link_local__either_way_it_is_written),
        cmocka_unit_test(t_update__two_octet_peer__path_of_rfc_6793),
        cmocka_unit_test(t_nlri__ids_and_trailing_bits__read),
        cmocka_unit_test(t_attrs__random__stored_written_and_read_are_the_same),
        cmocka_unit_test(t_path__prepend_strip_count__as_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
