/* TLS for a connection: the context of its options, and what went wrong in words that name the
 * repair. Files are read for each connection, so that rotated ones count. */
#include "http/http_int.h"

#include "base/fd.h"
#include "base/ip.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>

enum { PEM_MAX = 4 << 20, PEM_ROOM = PEM_MAX + 65536 };

/* Text of the newest entry of OpenSSL's queue, which is emptied. */
static const char *openssl_text(char out[256]) {
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    (void)snprintf(out, 256, "%s", reason ? reason : "no reason given");
    ERR_clear_error();
    return out;
}

/* A file's or an inline text as a BIO; the caller frees it and `hold`. */
static int open_pem(const char *what, struct str file, struct str inline_pem, struct buf *hold,
                    BIO **out, struct err *e) {
    struct str text = inline_pem;
    if (file.p) {
        int r = file_read(AT_FDCWD, file.p, hold, PEM_MAX);
        if (r < 0) {
            return err_set(e, ERR_INVALID, "%s %s: %s", what, file.p, err_name(r));
        }
        text = buf_view(hold);
    }
    *out = BIO_new_mem_buf(text.p, (int)text.n);
    mg_assert(*out != NULL);
    return 0;
}

static int bad_pem(const char *what, struct str file, const char *why, struct err *e) {
    return err_set(e, ERR_INVALID, "%s %s: %s", what, file.p ? file.p : "(inline)", why);
}

/* Without a passphrase a key can't be asked for one on a terminal. */
static int no_passphrase(char *out MG_UNUSED, int size MG_UNUSED, int rw MG_UNUSED,
                         void *arg MG_UNUSED) {
    return -1;
}

static int load_ca(SSL_CTX *ctx, const struct http_options *o, struct err *e) {
    if (!o->ca_file.p && !o->ca_pem.p) {
        (void)SSL_CTX_set_default_verify_paths(ctx);
        return 0;
    }
    MG_CLEANUP(buf_fini) struct buf hold = BUF_INIT(PEM_ROOM);
    BIO *b = NULL;
    int r = open_pem("CA certificate", o->ca_file, o->ca_pem, &hold, &b, e);
    if (r < 0) {
        return r;
    }
    X509_STORE *trusted = SSL_CTX_get_cert_store(ctx);
    size_t n = 0;
    X509 *cert;
    while ((cert = PEM_read_bio_X509(b, NULL, no_passphrase, NULL))) {
        n += X509_STORE_add_cert(trusted, cert) == 1;
        X509_free(cert);
    }
    ERR_clear_error();
    BIO_free(b);
    return n ? 0 : bad_pem("CA certificate", o->ca_file, "holds no certificate in PEM form", e);
}

static int load_chain(SSL_CTX *ctx, BIO *b) {
    X509 *cert = PEM_read_bio_X509(b, NULL, no_passphrase, NULL);
    if (!cert) {
        return -1;
    }
    int ok = SSL_CTX_use_certificate(ctx, cert);
    X509_free(cert);
    while (ok == 1 && (cert = PEM_read_bio_X509(b, NULL, no_passphrase, NULL))) {
        ok = SSL_CTX_add1_chain_cert(ctx, cert);
        X509_free(cert);
    }
    return ok == 1 ? 0 : -1;
}

static int load_own(SSL_CTX *ctx, const struct http_options *o, struct err *e) {
    if (!o->cert_file.p && !o->cert_pem.p) {
        return 0;
    }
    char text[256];
    MG_CLEANUP(buf_fini) struct buf hold = BUF_INIT(PEM_ROOM);
    MG_CLEANUP(buf_fini) struct buf hold_key = BUF_INIT(PEM_ROOM);
    BIO *b = NULL;
    int r = open_pem("client certificate", o->cert_file, o->cert_pem, &hold, &b, e);
    if (r < 0) {
        return r;
    }
    r = load_chain(ctx, b);
    BIO_free(b);
    if (r < 0) {
        return bad_pem("client certificate", o->cert_file, openssl_text(text), e);
    }
    r = open_pem("client key", o->key_file, o->key_pem, &hold_key, &b, e);
    if (r < 0) {
        return r;
    }
    EVP_PKEY *key = PEM_read_bio_PrivateKey(b, NULL, no_passphrase, NULL);
    BIO_free(b);
    OPENSSL_cleanse(hold_key.p, hold_key.n);
    if (!key) {
        return bad_pem("client key", o->key_file, openssl_text(text), e);
    }
    int ok = SSL_CTX_use_PrivateKey(ctx, key) == 1 && SSL_CTX_check_private_key(ctx) == 1;
    EVP_PKEY_free(key);
    if (!ok) {
        (void)openssl_text(text);
        return bad_pem("client key", o->key_file, "is not the key of the client certificate", e);
    }
    return 0;
}

/* Sockets as OpenSSL reads and writes them, but for SIGPIPE. */
static int bio_read(BIO *b, char *p, int n) {
    ssize_t got = recv(*(const int *)BIO_get_data(b), p, (size_t)n, 0);
    BIO_clear_retry_flags(b);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        BIO_set_retry_read(b);
    }
    return (int)got;
}

static int bio_write(BIO *b, const char *p, int n) {
    ssize_t put = send(*(const int *)BIO_get_data(b), p, (size_t)n, MSG_NOSIGNAL);
    BIO_clear_retry_flags(b);
    if (put < 0 && (errno == EAGAIN || errno == EINTR)) {
        BIO_set_retry_write(b);
    }
    return (int)put;
}

static long bio_ctrl(BIO *b MG_UNUSED, int cmd, long n MG_UNUSED, void *p MG_UNUSED) {
    return cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_DUP;
}

static BIO_METHOD *bio_method;

static void make_bio_method(void) {
    bio_method = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "socket");
    mg_assert(bio_method != NULL);
    (void)BIO_meth_set_read(bio_method, bio_read);
    (void)BIO_meth_set_write(bio_method, bio_write);
    (void)BIO_meth_set_ctrl(bio_method, bio_ctrl);
}

void http_tls_set_fd(SSL *tls, int *fd) {
    static pthread_once_t once = PTHREAD_ONCE_INIT; /* workers have clients of their own */
    (void)pthread_once(&once, make_bio_method);
    BIO *b = BIO_new(bio_method);
    mg_assert(b != NULL);
    BIO_set_data(b, fd);
    BIO_set_init(b, 1);
    SSL_set_bio(tls, b, b);
}

static const char *name_to_check(const struct http_conn *n) {
    const struct http_client *c = n->client;
    return c->o.server_name.p ? c->o.server_name.p : c->origin.host;
}

/* Keeps the certificate that was the reason: after the handshake nobody knows it. */
static int on_verify(int ok, X509_STORE_CTX *store) {
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct http_conn *n = SSL_get_app_data(ssl);
    X509 *cert = X509_STORE_CTX_get_current_cert(store);
    if (!ok && cert && !n->refused && X509_up_ref(cert) == 1) {
        n->refused = cert;
    }
    return ok;
}

static int on_client_cert(SSL *ssl, X509 **cert MG_UNUSED, EVP_PKEY **key MG_UNUSED) {
    struct http_conn *n = SSL_get_app_data(ssl);
    n->was_asked = true;
    return 0;
}

static int make_context(struct http_conn *n, struct err *e) {
    const struct http_options *o = &n->client->o;
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    mg_assert(ctx != NULL);
    n->tls_context = ctx;
    (void)SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    (void)SSL_CTX_set_mode(ctx,
                           SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(ctx, o->is_insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, on_verify);
    SSL_CTX_set_client_cert_cb(ctx, on_client_cert);
    static const uint8_t alpn[] = {2, 'h', '2'};
    mg_assert(SSL_CTX_set_alpn_protos(ctx, alpn, sizeof(alpn)) == 0);
    int r = o->is_insecure ? 0 : load_ca(ctx, o, e);
    return r < 0 ? r : load_own(ctx, o, e);
}

int http_tls_start(struct http_conn *n, struct err *e) {
    ERR_clear_error();
    int r = make_context(n, e);
    if (r < 0) {
        return r;
    }
    n->tls = SSL_new(n->tls_context);
    mg_assert(n->tls != NULL);
    SSL_set_app_data(n->tls, n);
    http_tls_set_fd(n->tls, &n->fd);
    const char *name = name_to_check(n);
    struct ip46 ip;
    if (ip_parse(str_c(name), &ip) == 0) {
        (void)X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(n->tls), name);
    } else {
        (void)SSL_set_tlsext_host_name(n->tls, name);
        (void)SSL_set1_host(n->tls, name);
    }
    SSL_set_connect_state(n->tls);
    return 0;
}

/* What the certificate says of itself: "DNS:a, IP:1.2.3.4", or its subject. */
static void names_of(X509 *cert, struct buf *out) {
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
        const char *sep = out->n ? ", " : "";
        if (g->type == GEN_DNS) {
            buf_printf(out, "%s%.*s", sep, ASN1_STRING_length(g->d.dNSName),
                       (const char *)ASN1_STRING_get0_data(g->d.dNSName));
        } else if (g->type == GEN_IPADD) {
            int len = ASN1_STRING_length(g->d.iPAddress);
            struct ip46 ip = {.family = len == 4 ? IP_V4 : IP_V6};
            char text[IP_TEXT_MAX];
            if (len == 4 || len == 16) {
                memcpy(ip.b, ASN1_STRING_get0_data(g->d.iPAddress), (size_t)len);
                buf_printf(out, "%s%s", sep, ip_text(&ip, text));
            }
        }
    }
    GENERAL_NAMES_free(names);
    if (out->n == 0) {
        char subject[200] = "";
        (void)X509_NAME_oneline(X509_get_subject_name(cert), subject, sizeof(subject));
        buf_printf(out, "no name (subject %s)", subject);
    }
}

static void print_time(const ASN1_TIME *t, char out[64]) {
    BIO *b = BIO_new(BIO_s_mem());
    mg_assert(b != NULL);
    int n = ASN1_TIME_print(b, t) == 1 ? BIO_read(b, out, 63) : 0;
    out[n > 0 ? n : 0] = '\0';
    BIO_free(b);
}

static const char *whose(X509 *cert) {
    return X509_check_ca(cert) ? "its authority's" : "its";
}

/* Why the peer's certificate is not accepted. */
static int untrusted(struct http_conn *n, long verify, struct err *e) {
    char when[64];
    X509 *cert = n->refused;
    const char *label = n->client->label;
    switch (verify) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        if (cert) {
            MG_CLEANUP(buf_fini) struct buf names = BUF_INIT(512);
            names_of(cert, &names);
            return err_set(e, ERR_DENIED, "%s: its certificate is for %s, not for %s", label,
                           buf_cstr(&names), name_to_check(n));
        }
        break;
    case X509_V_ERR_CERT_HAS_EXPIRED:
        if (cert) {
            print_time(X509_get0_notAfter(cert), when);
            return err_set(e, ERR_DENIED,
                           "%s: %s certificate has expired on %s; is this machine's clock right?",
                           label, whose(cert), when);
        }
        break;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        if (cert) {
            print_time(X509_get0_notBefore(cert), when);
            return err_set(e, ERR_DENIED,
                           "%s: %s certificate is not valid before %s; is this machine's clock "
                           "right?",
                           label, whose(cert), when);
        }
        break;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        return err_set(e, ERR_DENIED,
                       "%s: its certificate is self-signed and not the CA certificate given",
                       label);
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        return err_set(e, ERR_DENIED,
                       "%s: its certificate was issued by an authority that is not in the CA "
                       "certificate given",
                       label);
    default:
        break;
    }
    return err_set(e, ERR_DENIED, "%s: its certificate is not accepted: %s", label,
                   X509_verify_cert_error_string(verify));
}

static int by_reason(const char *label, int reason, const char *doing, struct err *e) {
    char text[256];
    switch (reason) {
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_WRONG_SSL_VERSION:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
    case SSL_R_NO_PROTOCOLS_AVAILABLE:
        return err_set(e, ERR_DENIED, "%s: its TLS version is too old: TLS 1.2 or newer is needed",
                       label);
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_RECORD_LENGTH_MISMATCH:
        return err_set(e, ERR_UNAVAILABLE, "%s: does not speak TLS: is it http:// ?", label);
    case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
        return err_set(e, ERR_UNAVAILABLE, "%s: does not speak HTTP/2", label);
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
        return err_set(e, ERR_DENIED, "%s: wants a client certificate, none is configured", label);
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
        return err_set(e, ERR_DENIED, "%s: says that our client certificate has expired", label);
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
        return err_set(e, ERR_DENIED, "%s: does not know the authority of our client certificate",
                       label);
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
        return err_set(e, ERR_DENIED,
                       "%s: refuses our client certificate, or wants one and none is configured",
                       label);
    default:
        return err_set(e, ERR_UNAVAILABLE, "%s: TLS %s: %s", label, doing, openssl_text(text));
    }
}

/* A server of TLS 1.3 looks at our certificate after the handshake is over for us, and its word may
 * be lost on the way. */
static int hung_up(const struct http_conn *n, const char *how, struct err *e) {
    const struct http_options *o = &n->client->o;
    if (n->state == CONN_SETTINGS && n->was_asked) {
        return err_set(e, ERR_DENIED, "%s: wants a client certificate, none is configured",
                       n->client->label);
    }
    bool has_own = o->cert_file.p || o->cert_pem.p;
    return err_set(e, ERR_UNAVAILABLE, "%s: %s%s", n->client->label, how,
                   n->state == CONN_SETTINGS && has_own
                       ? " after the TLS handshake: does it accept our client certificate?"
                       : "");
}

int http_tls_error(struct http_conn *n, int ssl_result, const char *doing, struct err *e) {
    int saved = errno;
    int kind = SSL_get_error(n->tls, ssl_result);
    unsigned long code = ERR_peek_error();
    const char *label = n->client->label;
    if (kind == SSL_ERROR_ZERO_RETURN || (kind == SSL_ERROR_SYSCALL && code == 0 && saved == 0) ||
        (kind == SSL_ERROR_SSL && ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING)) {
        ERR_clear_error();
        return hung_up(n, "closed the connection", e);
    }
    if (kind == SSL_ERROR_SYSCALL && code == 0) {
        return hung_up(n, strerror(saved), e);
    }
    long verify = SSL_get_verify_result(n->tls);
    int reason = ERR_GET_REASON(code);
    int r =
        verify != X509_V_OK && !n->client->o.is_insecure &&
                reason == SSL_R_CERTIFICATE_VERIFY_FAILED
            ? untrusted(n, verify, e)
        : n->was_asked && reason == SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE
            ? err_set(e, ERR_DENIED, "%s: wants a client certificate, none is configured", label)
            : by_reason(label, reason, doing, e);
    ERR_clear_error();
    return r;
}
