/* A connection to the API server with its credential, and what its answers mean. */
#include "store/kube_int.h"

#include "base/clock.h"

#include <stdlib.h>
#include <time.h>

int64_t kube_now_s(void) {
    return clock_wall_ns() / 1000000000;
}

void kube_conn_init(struct kube_conn *c, struct loop *l, const struct kube_config *cfg) {
    *c = (struct kube_conn){.loop = l, .cfg = cfg};
}

void kube_conn_fini(struct kube_conn *c) {
    if (c->client) {
        http_client_free(c->client);
        c->client = NULL;
    }
    kube_auth_fini(&c->auth);
}

static bool is_same(const char *a, const char *b) {
    return a && b ? strcmp(a, b) == 0 : a == b;
}

int kube_conn_use(struct kube_conn *c, struct kube_auth *take_auth, struct err *e) {
    bool is_same_cert = is_same(c->auth.cert_pem, take_auth->cert_pem) &&
                        is_same(c->auth.key_pem, take_auth->key_pem);
    kube_auth_fini(&c->auth);
    c->auth = *take_auth;
    *take_auth = (struct kube_auth){0};
    if (c->client && is_same_cert) {
        return 0;
    }
    if (c->client) {
        http_client_free(c->client);
        c->client = NULL;
    }
    const struct kube_config *k = c->cfg;
    struct http_options o = {.url = k->server,
                             .ca_file = k->ca_file,
                             .ca_pem = k->ca_pem,
                             .cert_file = k->cert_file,
                             .cert_pem = k->cert_pem,
                             .key_file = k->key_file,
                             .key_pem = k->key_pem,
                             .server_name = k->server_name,
                             .is_insecure = k->is_insecure,
                             .proxy_url = k->proxy_url,
                             .is_gzip_welcome = k->wants_gzip,
                             .ping_interval_ms = KUBE_PING_MS,
                             .ping_timeout_ms = KUBE_PONG_MS,
                             .what = "API server"};
    if (c->auth.cert_pem) {
        o.cert_file = o.key_file = STR_NULL;
        o.cert_pem = str_c(c->auth.cert_pem);
        o.key_pem = str_c(c->auth.key_pem);
    }
    int r = http_client_new(c->loop, &o, &c->client, e);
    return r < 0 ? err_wrap(e, r, "%.*s", STR_FMT(k->origin)) : 0;
}

int kube_conn_ready(struct kube_conn *c, struct err *e) {
    if (c->client && kube_auth_is_fresh(&c->auth, kube_now_s())) {
        return 0;
    }
    struct kube_auth au = {0};
    int r = kube_auth_fetch(c->cfg, &au, e);
    r = r < 0 ? r : kube_conn_use(c, &au, e);
    kube_auth_fini(&au);
    return r;
}

size_t kube_headers(const struct kube_conn *c, const char *content_type,
                    struct http_header h[KUBE_HEADERS]) {
    size_t n = 0;
    h[n++] = (struct http_header){STR("accept"), STR("application/json")};
    if (content_type) {
        h[n++] = (struct http_header){STR("content-type"), str_c(content_type)};
    }
    if (c->auth.header) {
        h[n++] = (struct http_header){STR("authorization"), str_c(c->auth.header)};
    }
    if (c->cfg->as_user.n) {
        h[n++] = (struct http_header){STR("impersonate-user"), c->cfg->as_user};
    }
    for (size_t i = 0; i < c->cfg->n_as_groups; i++) {
        h[n++] = (struct http_header){STR("impersonate-group"), c->cfg->as_groups[i]};
    }
    return n;
}

int64_t kube_retry_after_ms(const struct http_header *h, size_t n, int64_t fallback_ms) {
    uint64_t s = 0;
    if (str_to_u64(http_header_get(h, n, "retry-after"), &s) < 0) {
        return fallback_ms;
    }
    s = s > KUBE_RETRY_AFTER_MAX_S ? KUBE_RETRY_AFTER_MAX_S : s;
    return s ? (int64_t)s * 1000 : fallback_ms;
}

/* ---- answers that are no success ---- */

static struct jnode *read_status(struct str body, struct arena *a) {
    struct jnode *doc = NULL;
    struct jlimits lim = json_limits_default;
    lim.max_nodes = 10000;
    if (body.n == 0 || json_parse(body, &lim, a, &doc, NULL) < 0 ||
        !str_is(jnode_str(jnode_getc(doc, "kind")), "Status")) {
        return NULL;
    }
    return doc;
}

bool kube_is_unknown_kind(int status, struct str body) {
    struct arena a = {0};
    if (status != 404) {
        return false;
    }
    const struct jnode *details = jnode_getc(read_status(body, &a), "details");
    bool has_name = jnode_str(jnode_getc(details, "name")).n > 0;
    arena_fini(&a);
    return !has_name;
}

static int code_of(int status, struct str reason, struct str message) {
    if (status == 500 && str_contains(message, STR("request is too large"))) { /* etcd's word */
        return ERR_TOO_BIG;
    }
    switch (status) {
    case 400:
    case 405:
    case 406:
    case 415:
    case 422:
        return ERR_INVALID;
    case 401:
    case 403:
        return ERR_DENIED;
    case 404:
        return ERR_NOT_FOUND;
    case 409:
        return str_is(reason, "AlreadyExists") ? ERR_EXISTS : ERR_CONFLICT;
    case 410:
        return ERR_GONE;
    case 413:
        return ERR_TOO_BIG;
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
        return ERR_RETRY;
    default:
        return -EPROTO;
    }
}

int kube_status_error(const struct kube_subject *s, int status, struct str body, struct err *e) {
    struct arena a = {0};
    const struct jnode *doc = read_status(body, &a);
    struct str message = jnode_str(jnode_getc(doc, "message"));
    struct str reason = jnode_str(jnode_getc(doc, "reason"));
    int code = code_of(status, reason, message);
    const struct kube_rest *r = s->rest;
    MG_CLEANUP(buf_fini) struct buf what = BUF_INIT(1024);
    buf_printf(&what, "%s%s%s%s%s%s", r->plural, r->group[0] ? "." : "", r->group,
               s->sub ? "/" : "", s->sub ? s->sub : "", s->name.n ? " " : "");
    if (s->name.n) {
        buf_printf(&what, "\"%.*s%s%.*s\"", STR_FMT(s->ns), s->ns.n ? "/" : "", STR_FMT(s->name));
    }
    if (!message.n) { /* a proxy's page, or plain text */
        message = str_trim(body);
        message.n = message.n > 200 ? 200 : message.n;
        for (size_t i = 0; i < message.n; i++) {
            if ((unsigned char)message.p[i] < 0x20) {
                message.n = i;
            }
        }
    }
    const char *where = buf_cstr(&what);
    if (status == 401) {
        (void)err_set(e, code, "API server: it doesn't accept our credential (401): %.*s",
                      STR_FMT(message));
    } else if (status == 403) {
        (void)err_set(e, code, "API server: no right to %s %s: %.*s", s->verb, where,
                      STR_FMT(message));
    } else if (kube_is_unknown_kind(status, body)) {
        bool is_crd = strcmp(r->group, "crd.projectcalico.org") == 0;
        (void)err_set(e, code, "API server: it has no %s%s%s%s", r->plural, r->group[0] ? "." : "",
                      r->group, is_crd ? ": install the CRDs (deploy/crds)" : "");
    } else {
        (void)err_set(e, code, "API server: %s %s: %d: %.*s", s->verb, where, status,
                      STR_FMT(message));
    }
    arena_fini(&a);
    return code;
}

/* ---- blocking requests ---- */

static void sleep_ms(int64_t ms) {
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&t, &t) < 0 && errno == EINTR) {
    }
}

int kube_request(struct kube_store *s, const char *method, struct str path,
                 const char *content_type, struct str body, struct arena *a,
                 struct http_answer *out, struct err *e) {
    int64_t deadline = clock_ns() + (int64_t)KUBE_PATIENCE_MS * 1000000;
    bool is_read = strcmp(method, "GET") == 0;
    unsigned n_401 = 0, n_lost = 0;
    for (int64_t pause_ms = 200;; pause_ms = pause_ms < 5000 ? pause_ms * 2 : pause_ms) {
        int r = kube_conn_ready(&s->conn, e);
        if (r < 0) {
            return r;
        }
        struct http_header h[KUBE_HEADERS];
        struct http_request q = {.method = method,
                                 .path = path,
                                 .headers = h,
                                 .n_headers = kube_headers(&s->conn, content_type, h),
                                 .body = body,
                                 .timeout_ms = KUBE_CALL_MS};
        *out = (struct http_answer){0};
        r = http_run(s->conn.client, &q, KUBE_OBJECT_TEXT_MAX, a, out, e);
        if (r < 0) {
            /* A server that has restarted: the connection was a dead one. */
            bool may_repeat = r == ERR_UNAVAILABLE && (out->is_unsent || is_read);
            if (may_repeat && n_lost++ == 0) {
                continue;
            }
            return r;
        }
        if (out->status == 401 && n_401++ == 0 && s->conn.auth.good_until_s != INT64_MAX) {
            s->conn.auth.good_until_s = 0;
            continue;
        }
        bool is_later =
            out->status == 429 ||
            (out->status == 503 && http_header_get(out->headers, out->n_headers, "retry-after").p);
        int64_t wait_ms = kube_retry_after_ms(out->headers, out->n_headers, pause_ms);
        if (!is_later || clock_ns() + wait_ms * 1000000 > deadline) {
            return out->status;
        }
        sleep_ms(wait_ms);
    }
}

int kube_object(struct kube_store *s, const struct kube_subject *subject, const char *method,
                struct str path, const char *content_type, const struct jnode *body,
                struct arena *a, struct jnode **out, bool *unknown_kind, struct err *e) {
    MG_CLEANUP(buf_fini) struct buf text = BUF_INIT(KUBE_OBJECT_TEXT_MAX);
    struct http_answer an;
    if (body) {
        json_write(&text, body, 0);
        if (text.overflow) {
            return err_set(e, ERR_TOO_BIG, "%.*s is too large", STR_FMT(subject->name));
        }
    }
    int status =
        kube_request(s, method, path, body ? content_type : NULL, buf_view(&text), a, &an, e);
    if (status < 0) {
        return status;
    }
    if (unknown_kind) {
        *unknown_kind = kube_is_unknown_kind(status, an.body);
    }
    if (status < 200 || status > 299) {
        return kube_status_error(subject, status, an.body, e);
    }
    struct jlimits lim = json_limits_default;
    lim.max_string = KUBE_OBJECT_TEXT_MAX;
    int r = json_parse(an.body, &lim, a, out, e);
    if (r < 0 || (*out)->type != J_MAP) {
        struct str type = http_header_get(an.headers, an.n_headers, "content-type");
        return err_set(e, -EPROTO, "API server: %s %s: its answer is no JSON object (%.*s)",
                       subject->verb, subject->rest->plural, type.n > 80 ? 80 : (int)type.n,
                       type.p ? type.p : "no content-type");
    }
    return 0;
}

size_t kube_view_index(const struct kube_view *v) {
    return (size_t)(v - kube_views);
}

struct str kube_at_path(const struct kube_store *s, const struct kube_at *at, bool has_name,
                        const char *sub, struct arena *a) {
    return kube_path(at->view->rest, s->use_old[kube_view_index(at->view)], at->ns,
                     has_name ? at->name : STR_NULL, sub, a);
}

void kube_saw(struct kube_store *s, uint64_t revision) {
    s->revision = revision > s->revision ? revision : s->revision;
}
