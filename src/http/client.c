/* A client's front: its options, the connection that new calls go to, and those that only finish
 * what they have. */
#include "http/http_int.h"

#include "base/fd.h"

#include <stdio.h>
#include <stdlib.h>

enum { HOST_MAX = 253, USERINFO_MAX = 512 };

static char *dup_c(struct str s) {
    char *p = malloc(s.n + 1);
    mg_assert(p != NULL);
    memcpy(p, s.n ? s.p : "", s.n);
    p[s.n] = '\0';
    return p;
}

void http_origin_fini(struct http_origin *o) {
    free(o->host);
    free(o->authority);
    free(o->basic_auth);
    *o = (struct http_origin){0};
}

static bool is_host_text(struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              c == '-' || c == '.' || c == '_' || c == ':' || c == '%')) {
            return false;
        }
    }
    return s.n > 0 && s.n <= HOST_MAX;
}

static int hex_of(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

size_t http_percent_decode(struct str in, char *out) {
    size_t n = 0;
    for (size_t i = 0; i < in.n; i++) {
        int hi = in.p[i] == '%' && i + 2 < in.n ? hex_of(in.p[i + 1]) : -1;
        int lo = hi >= 0 ? hex_of(in.p[i + 2]) : -1;
        out[n++] = lo >= 0 ? (char)(hi * 16 + lo) : in.p[i];
        i += lo >= 0 ? 2 : 0;
    }
    return n;
}

/* "USER:PASSWORD" with %xx, as Basic credentials. */
static char *basic_auth(struct str userinfo) {
    char plain[USERINFO_MAX];
    size_t n = http_percent_decode(userinfo, plain);
    unsigned char out[USERINFO_MAX * 2];
    int len = EVP_EncodeBlock(out, (const unsigned char *)plain, (int)n);
    return dup_c(str_n((const char *)out, (size_t)len));
}

/* "HOST", "HOST:PORT", "[V6]", "[V6]:PORT". False: none of these. */
static bool split_authority(struct str s, uint64_t *port, struct str *host) {
    ptrdiff_t close = s.n && s.p[0] == '[' ? str_find(s, ']', 1) : -1;
    ptrdiff_t colon = str_find(s, ':', close > 0 ? (size_t)close : 0);
    if (s.n && s.p[0] == '[') {
        if (close < 0 || (colon >= 0 ? colon != close + 1 : (size_t)close + 1 != s.n)) {
            return false;
        }
        *host = str_sub(s, 1, (size_t)close);
    } else {
        *host = str_sub(s, 0, colon >= 0 ? (size_t)colon : s.n);
    }
    if (colon >= 0 && (str_to_u64(str_sub(s, (size_t)colon + 1, s.n), port) < 0 || *port == 0 ||
                       *port > UINT16_MAX)) {
        return false;
    }
    bool is_v6 = close > 0;
    return is_host_text(*host) && (is_v6 || str_find(*host, ':', 0) < 0);
}

int http_origin_parse(struct str url, bool is_proxy, struct http_origin *out, struct err *e) {
    const char *what = is_proxy ? "proxy URL" : "URL";
    struct str rest = url;
    bool is_tls = str_starts(url, STR("https://"));
    if (!is_tls && !str_starts(url, STR("http://"))) {
        return err_set(e, ERR_INVALID, "%s \"%.*s\": must begin with http:// or https://", what,
                       STR_FMT(url));
    }
    if (is_tls && is_proxy) {
        return err_set(e, ERR_INVALID, "proxy URL \"%.*s\": only proxies of http:// are supported",
                       STR_FMT(url));
    }
    rest = str_sub(url, is_tls ? 8 : 7, url.n);
    ptrdiff_t slash = str_find(rest, '/', 0);
    if (slash >= 0 && (size_t)slash + 1 != rest.n) {
        return err_set(e, ERR_INVALID, "%s \"%.*s\": has a path; allowed are host and port", what,
                       STR_FMT(url));
    }
    struct str authority = slash >= 0 ? str_sub(rest, 0, (size_t)slash) : rest;
    struct str userinfo = STR_NULL;
    ptrdiff_t at = str_find(authority, '@', 0);
    if (is_proxy && at >= 0) {
        userinfo = str_sub(authority, 0, (size_t)at);
        authority = str_sub(authority, (size_t)at + 1, authority.n);
    }
    struct str host;
    uint64_t port = is_tls ? 443 : 80;
    if (!split_authority(authority, &port, &host) || userinfo.n > USERINFO_MAX) {
        return err_set(e, ERR_INVALID, "%s \"%.*s\": no HOST:PORT (IPv6 stands in brackets)", what,
                       STR_FMT(url));
    }
    char text[HOST_MAX + 16];
    bool is_v6 = str_find(host, ':', 0) >= 0;
    (void)snprintf(text, sizeof(text), "%s%.*s%s:%u", is_v6 ? "[" : "", STR_FMT(host),
                   is_v6 ? "]" : "", (unsigned)port);
    *out = (struct http_origin){.host = dup_c(host),
                                .port = (uint16_t)port,
                                .is_tls = is_tls,
                                .authority = dup_c(str_c(text)),
                                .basic_auth = userinfo.p ? basic_auth(userinfo) : NULL};
    return 0;
}

static int check_pair(struct str file, struct str pem, const char *what, struct err *e) {
    return file.p && pem.p
               ? err_set(e, ERR_INVALID, "%s is given as a file and inline: only one of them", what)
               : 0;
}

static int check_options(const struct http_options *o, struct err *e) {
    int r = check_pair(o->ca_file, o->ca_pem, "the CA certificate", e);
    if (r == 0) {
        r = check_pair(o->cert_file, o->cert_pem, "the client certificate", e);
    }
    if (r == 0) {
        r = check_pair(o->key_file, o->key_pem, "the client key", e);
    }
    if (r == 0 && (o->cert_file.p || o->cert_pem.p) != (o->key_file.p || o->key_pem.p)) {
        r = err_set(e, ERR_INVALID,
                    "a client certificate and its key belong together: the %s is "
                    "missing",
                    o->cert_file.p || o->cert_pem.p ? "key" : "certificate");
    }
    return r;
}

static void copy_options(struct http_client *c, const struct http_options *o) {
    c->o = *o;
    struct str *const strings[] = {&c->o.url,       &c->o.ca_file,     &c->o.ca_pem,
                                   &c->o.cert_file, &c->o.cert_pem,    &c->o.key_file,
                                   &c->o.key_pem,   &c->o.server_name, &c->o.proxy_url};
    for (size_t i = 0; i < ARRAY_LEN(strings); i++) {
        *strings[i] = arena_dup(&c->mem, *strings[i]);
    }
    int *const times[] = {&c->o.connect_timeout_ms, &c->o.ping_interval_ms, &c->o.ping_timeout_ms};
    const int usual[] = {HTTP_CONNECT_MS, HTTP_PING_INTERVAL_MS, HTTP_PING_TIMEOUT_MS};
    for (size_t i = 0; i < ARRAY_LEN(times); i++) {
        *times[i] = *times[i] > 0 ? *times[i] : usual[i];
    }
    c->o.what = o->what ? o->what : "server";
    c->o.user_agent = o->user_agent ? o->user_agent : "margay";
}

static void on_kick(void *arg) {
    struct http_client *c = arg;
    while (!link_is_alone(&c->waiting)) {
        if (!c->conn) {
            c->conn = http_conn_new(c);
        }
        if (!http_conn_takes_calls(c->conn)) {
            return;
        }
        (void)http_conn_submit(c->conn, container_of(c->waiting.next, struct http_call, link));
    }
}

int http_client_new(struct loop *l, const struct http_options *o, struct http_client **out,
                    struct err *e) {
    struct http_origin origin = {0}, proxy = {0};
    int r = check_options(o, e);
    if (r == 0) {
        r = http_origin_parse(o->url, false, &origin, e);
    }
    if (r == 0 && o->proxy_url.p) {
        r = http_origin_parse(o->proxy_url, true, &proxy, e);
    }
    if (r < 0) {
        http_origin_fini(&origin);
        return r;
    }
    struct http_client *c = calloc(1, sizeof(*c));
    mg_assert(c != NULL);
    c->l = l;
    c->origin = origin;
    c->proxy = proxy;
    copy_options(c, o);
    c->label = arena_printf(&c->mem, "%s at %s", c->o.what, origin.authority).p;
    link_init(&c->old);
    link_init(&c->waiting);
    c->kick = loop_defer_new(l, on_kick, c);
    c->next_fd = -1;
    *out = c;
    return 0;
}

void http_client_free(struct http_client *c) {
    if (!c) {
        return;
    }
    mg_assert(c->n_calls == 0);
    if (c->conn) {
        http_conn_free(TAKE_PTR(c->conn));
    }
    while (!link_is_alone(&c->old)) {
        http_conn_free(container_of(c->old.next, struct http_conn, link));
    }
    loop_defer_free(c->kick);
    http_origin_fini(&c->origin);
    http_origin_fini(&c->proxy);
    fd_close(&c->next_fd);
    arena_fini(&c->mem);
    free(c);
}

void http_client_wake(struct http_client *c) {
    loop_defer_ask(c->kick);
}

void http_client_conn_done(struct http_client *c, struct http_conn *n) {
    if (c->conn == n) {
        c->conn = NULL;
        link_join(&c->old, &n->link);
        http_client_wake(c);
    }
    if (n->state == CONN_LOST) {
        link_leave(&n->link);
    } else {
        http_conn_call_left(n);
    }
}

void http_client_refresh(struct http_client *c) {
    if (c->conn) {
        c->conn->is_draining = true;
        http_client_conn_done(c, c->conn);
    }
}

uint64_t http_client_connections(const struct http_client *c) {
    return c->n_connections;
}

void http_client_take_fd(struct http_client *c, int take_fd) {
    fd_close(&c->next_fd);
    c->next_fd = take_fd;
}
