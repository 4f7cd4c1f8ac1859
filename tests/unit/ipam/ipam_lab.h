/* What the IPAM tests share: a store in a folder of its own, options, what check says. */
#pragma once

#include "base/buf.h"
#include "ipam/ipam.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static char lab_dir[64];
static struct store *lab_store;

static int lab_setup(void **state) {
    (void)state;
    char url[128];
    struct err e = {.code = 0};
    snprintf(lab_dir, sizeof(lab_dir), "/tmp/margay-ipam-XXXXXX");
    assert_non_null(mkdtemp(lab_dir));
    snprintf(url, sizeof(url), "sqlite:%s/margay.db", lab_dir);
    if (store_open(url, &lab_store, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    return 0;
}

static int lab_teardown(void **state) {
    (void)state;
    char cmd[128];
    store_close(lab_store);
    lab_store = NULL;
    snprintf(cmd, sizeof(cmd), "rm -rf %s", lab_dir);
    return system(cmd);
}

MG_UNUSED static struct ip46 lab_ip(const char *text) {
    struct ip46 ip;
    assert_int_equal(ip_parse(str_c(text), &ip), 0);
    return ip;
}

MG_UNUSED static struct prefix lab_prefix(const char *text) {
    struct prefix p;
    assert_int_equal(prefix_parse(str_c(text), &p), 0);
    return p;
}

MG_UNUSED static struct ipam_pool lab_pool(const char *name, const char *cidr, unsigned block_len) {
    return (struct ipam_pool){str_c(name), lab_prefix(cidr), block_len};
}

static void lab_note(void *arg, struct str text) {
    struct buf *b = arg;
    buf_printf(b, "%.*s\n", STR_FMT(text));
}

/* Fails with what ipam_check finds, if anything. */
MG_UNUSED static void lab_assert_sound(struct ipam *m) {
    struct buf b = BUF_INIT(1 << 16);
    struct err e = {.code = 0};
    int n = ipam_check(m, lab_note, &b, &e);
    if (n < 0) {
        fail_msg("check: %s", e.msg);
    }
    if (n > 0) {
        fail_msg("%d inconsistencies:\n%s", n, buf_cstr(&b));
    }
    buf_fini(&b);
}
