/* Whom the HTTP client trusts, and what it says of the others. Certificates are made here. */
#include "http/http_int.h"

#include "base/clock.h"

#include "h2_server.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { DAY = 86400 };

struct cert {
    X509 *x;
    EVP_PKEY *key;
    char pem[4096], key_pem[2048];
};

static void to_pem(struct cert *c) {
    BIO *b = BIO_new(BIO_s_mem());
    mg_assert(b && PEM_write_bio_X509(b, c->x) == 1);
    int n = BIO_read(b, c->pem, sizeof(c->pem) - 1);
    c->pem[n > 0 ? n : 0] = '\0';
    BIO_free(b);
    b = BIO_new(BIO_s_mem());
    mg_assert(b && PEM_write_bio_PrivateKey(b, c->key, NULL, NULL, 0, NULL, NULL) == 1);
    n = BIO_read(b, c->key_pem, sizeof(c->key_pem) - 1);
    c->key_pem[n > 0 ? n : 0] = '\0';
    BIO_free(b);
}

static void extension(X509 *x, X509 *issuer, int nid, const char *value) {
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    mg_assert(e && X509_add_ext(x, e, -1) == 1);
    X509_EXTENSION_free(e);
}

/* names: as of subjectAltName, or NULL; issuer NULL: self-signed. Times are seconds from now. */
static void make(struct cert *c, const char *cn, const char *names, long from, long to,
                 const struct cert *issuer) {
    static long serial = 1;
    c->key = EVP_EC_gen("P-256");
    c->x = X509_new();
    mg_assert(c->key && c->x);
    (void)X509_set_version(c->x, X509_VERSION_3);
    (void)ASN1_INTEGER_set(X509_get_serialNumber(c->x), serial++);
    (void)X509_gmtime_adj(X509_getm_notBefore(c->x), from);
    (void)X509_gmtime_adj(X509_getm_notAfter(c->x), to);
    X509_NAME *n = X509_get_subject_name(c->x);
    (void)X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1, 0);
    (void)X509_set_issuer_name(c->x, X509_get_subject_name(issuer ? issuer->x : c->x));
    (void)X509_set_pubkey(c->x, c->key);
    X509 *by = issuer ? issuer->x : c->x;
    extension(c->x, by, NID_basic_constraints, names ? "CA:FALSE" : "critical,CA:TRUE");
    if (names) {
        extension(c->x, by, NID_subject_alt_name, names);
    }
    mg_assert(X509_sign(c->x, issuer ? issuer->key : c->key, EVP_sha256()) > 0);
    to_pem(c);
}

static void drop(struct cert *c) {
    X509_free(c->x);
    EVP_PKEY_free(c->key);
}

static int choose_h2(SSL *ssl, const unsigned char **out, unsigned char *n, const unsigned char *in,
                     unsigned in_n, void *arg) {
    (void)ssl;
    (void)arg;
    static const unsigned char h2[] = {2, 'h', '2'};
    return SSL_select_next_proto((unsigned char **)(uintptr_t)out, n, h2, sizeof(h2), in, in_n) ==
                   OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_ALERT_FATAL;
}

struct terms {
    const struct cert *cert, *client_ca;
    int max_version;
    bool has_no_alpn;
};

static SSL_CTX *server_context(const struct terms *t) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    mg_assert(ctx && SSL_CTX_use_certificate(ctx, t->cert->x) == 1 &&
              SSL_CTX_use_PrivateKey(ctx, t->cert->key) == 1);
    if (t->max_version) {
        (void)SSL_CTX_set_cipher_list(ctx, "ALL:@SECLEVEL=0");
        (void)SSL_CTX_set_min_proto_version(ctx, TLS1_VERSION);
        (void)SSL_CTX_set_max_proto_version(ctx, t->max_version);
    }
    if (!t->has_no_alpn) {
        SSL_CTX_set_alpn_select_cb(ctx, choose_h2, NULL);
    }
    if (t->client_ca) {
        (void)X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), t->client_ca->x);
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    return ctx;
}

/* One GET on terms; the reason is in e. */
static int get(const struct terms *t, struct http_options o, struct err *e) {
    struct h2_server s;
    SSL_CTX *ctx = server_context(t);
    char url[64];
    struct arena a = {0};
    struct http_client *c = NULL;
    struct http_answer w;
    struct http_request q = {.method = "GET", .path = STR("/big100000"), .timeout_ms = 10000};
    h2_server_start(&s, ctx);
    struct loop *l = loop_new();
    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%d", s.port);
    o.url = str_c(url);
    int r = http_client_new(l, &o, &c, e);
    assert_int_equal(r, 0);
    r = http_run(c, &q, 1 << 20, &a, &w, e);
    assert_true(r < 0 || (w.status == 200 && w.body.n == 100000));
    http_client_free(c);
    loop_free(l);
    h2_server_stop(&s);
    SSL_CTX_free(ctx);
    arena_fini(&a);
    return r;
}

#define refused(terms, options, code, says)                                   \
    do {                                                                      \
        struct err refused_e = {.msg = ""};                                   \
        int refused_r = get(terms, (struct http_options)options, &refused_e); \
        if (refused_r != (code) || !strstr(refused_e.msg, says)) {            \
            fail_msg("%d: %s", refused_r, refused_e.msg);                     \
        }                                                                     \
    } while (0)
#define OPTIONS(...) \
    { __VA_ARGS__ }

static void t_tls__trusted__every_way(void **state) {
    struct cert ca, server, client;
    struct err e = {.msg = ""};
    make(&ca, "lab-ca", NULL, -DAY, DAY, NULL);
    make(&server, "server", "IP:127.0.0.1,DNS:etcd.lab", -DAY, DAY, &ca);
    make(&client, "felix", "DNS:felix", -DAY, DAY, &ca);
    struct terms plain = {.cert = &server}, mutual = {.cert = &server, .client_ca = &ca},
                 old = {.cert = &server, .max_version = TLS1_2_VERSION};
    struct http_options o = {.ca_pem = str_c(ca.pem)};
    assert_int_equal(get(&plain, o, &e), 0);
    assert_int_equal(get(&old, o, &e), 0);
    assert_int_equal(get(&plain, (struct http_options){.is_insecure = true}, &e), 0);
    o.server_name = STR("etcd.lab");
    assert_int_equal(get(&plain, o, &e), 0);
    o.cert_pem = str_c(client.pem);
    o.key_pem = str_c(client.key_pem);
    assert_int_equal(get(&mutual, o, &e), 0);
    drop(&ca);
    drop(&server);
    drop(&client);
    (void)state;
}

static void t_tls__not_trusted__reason_named(void **state) {
    struct cert ca, other, expired, early, named, self, server;
    make(&ca, "lab-ca", NULL, -DAY, DAY, NULL);
    make(&other, "other-ca", NULL, -DAY, DAY, NULL);
    make(&expired, "server", "IP:127.0.0.1", -2 * DAY, -DAY, &ca);
    make(&early, "server", "IP:127.0.0.1", DAY, 2 * DAY, &ca);
    make(&named, "server", "DNS:a.lab,DNS:b.lab,IP:192.0.2.1", -DAY, DAY, &ca);
    make(&self, "self", "IP:127.0.0.1", -DAY, DAY, NULL);
    make(&server, "server", "IP:127.0.0.1", -DAY, DAY, &ca);
    struct str trust = str_c(ca.pem);
    struct terms t = {.cert = &expired};
    refused(&t, OPTIONS(.ca_pem = trust), ERR_DENIED, "its certificate has expired on");
    t.cert = &early;
    refused(&t, OPTIONS(.ca_pem = trust), ERR_DENIED, "its certificate is not valid before");
    t.cert = &named;
    refused(&t, OPTIONS(.ca_pem = trust), ERR_DENIED,
            "is for a.lab, b.lab, 192.0.2.1, not for 127.0.0.1");
    refused(&t, OPTIONS(.ca_pem = trust, .server_name = STR("c.lab")), ERR_DENIED, "not for c.lab");
    t.cert = &self;
    refused(&t, OPTIONS(.ca_pem = trust), ERR_DENIED, "self-signed");
    t.cert = &server;
    refused(&t, OPTIONS(.ca_pem = str_c(other.pem)), ERR_DENIED, "not in the CA certificate given");
    t.max_version = TLS1_1_VERSION;
    refused(&t, OPTIONS(.ca_pem = trust), ERR_DENIED, "TLS version is too old");
    t.max_version = TLS1_VERSION;
    refused(&t, OPTIONS(.ca_pem = trust), ERR_DENIED, "TLS version is too old");
    t.max_version = 0;
    t.has_no_alpn = true;
    refused(&t, OPTIONS(.ca_pem = trust), ERR_UNAVAILABLE, "does not speak HTTP/2");
    struct cert *const all[] = {&ca, &other, &expired, &early, &named, &self, &server};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        drop(all[i]);
    }
    (void)state;
}

static void t_tls__our_certificate__refused_or_unreadable(void **state) {
    struct cert ca, other, server, client, foreign;
    make(&ca, "lab-ca", NULL, -DAY, DAY, NULL);
    make(&other, "other-ca", NULL, -DAY, DAY, NULL);
    make(&server, "server", "IP:127.0.0.1", -DAY, DAY, &ca);
    make(&client, "felix", "DNS:felix", -2 * DAY, -DAY, &ca);
    make(&foreign, "felix", "DNS:felix", -DAY, DAY, &other);
    struct str trust = str_c(ca.pem);
    for (int version = 0; version < 2; version++) {
        struct terms t = {.cert = &server,
                          .client_ca = &ca,
                          .max_version = version ? TLS1_2_VERSION : TLS1_3_VERSION};
        refused(&t, OPTIONS(.ca_pem = trust), ERR_DENIED, "wants");
        refused(&t,
                OPTIONS(.ca_pem = trust, .cert_pem = str_c(client.pem),
                        .key_pem = str_c(client.key_pem)),
                ERR_DENIED, "our client certificate has expired");
        refused(&t,
                OPTIONS(.ca_pem = trust, .cert_pem = str_c(foreign.pem),
                        .key_pem = str_c(foreign.key_pem)),
                ERR_DENIED, "does not know the authority of our client certificate");
    }
    struct terms t = {.cert = &server};
    refused(&t, OPTIONS(.ca_pem = STR("nothing")), ERR_INVALID, "no certificate in PEM form");
    refused(&t, OPTIONS(.ca_file = STR("/nonexistent")), ERR_INVALID, "/nonexistent");
    refused(&t,
            OPTIONS(.ca_pem = trust, .cert_pem = str_c(client.pem), .key_pem = str_c(ca.key_pem)),
            ERR_INVALID, "is not the key of the client certificate");
    refused(&t, OPTIONS(.ca_pem = trust, .cert_pem = trust, .key_pem = STR("junk")), ERR_INVALID,
            "client key (inline)");
    struct cert *const all[] = {&ca, &other, &server, &client, &foreign};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        drop(all[i]);
    }
    (void)state;
}

int main(int argc, char **argv) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_tls__trusted__every_way),
        cmocka_unit_test(t_tls__not_trusted__reason_named),
        cmocka_unit_test(t_tls__our_certificate__refused_or_unreadable),
    };
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("tls", tests, NULL, NULL);
}
