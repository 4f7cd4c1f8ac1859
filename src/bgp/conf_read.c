/* Small readers of resources: fields of trees, durations, secrets; and files of documents. */
#include "base/fd.h"
#include "bgp/conf_int.h"
#include "policy/selector.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>

enum { FILE_MAX = 32 << 20 };

const struct jnode *conf_get(const struct jnode *map, const char *name) {
    return map && map->type == J_MAP ? jnode_getc(map, name) : NULL;
}

struct str conf_str(const struct jnode *map, const char *name) {
    return jnode_str(conf_get(map, name));
}

bool conf_bool(const struct jnode *map, const char *name, bool dflt) {
    const struct jnode *n = conf_get(map, name);
    return n && n->type == J_BOOL ? n->b : dflt;
}

int64_t conf_int(const struct jnode *map, const char *name, int64_t dflt) {
    const struct jnode *n = conf_get(map, name);
    return n && n->type == J_INT ? n->i : dflt;
}

uint32_t conf_as(const struct jnode *map, const char *name) {
    return conf_as_of(conf_get(map, name));
}

uint32_t conf_as_of(const struct jnode *n) {
    uint64_t high = 0, low = 0;
    if (n && n->type == J_INT) {
        return n->i > 0 && n->i <= UINT32_MAX ? (uint32_t)n->i : 0;
    }
    struct str rest = jnode_str(n);
    struct str first = str_cut(&rest, '.');
    if (!first.n || str_to_u64(first, &high) < 0) {
        return 0;
    }
    if (!rest.p) {
        return high <= UINT32_MAX ? (uint32_t)high : 0;
    }
    return str_to_u64(rest, &low) == 0 && high <= UINT16_MAX && low <= UINT16_MAX
               ? (uint32_t)(high << 16 | low)
               : 0;
}

/* One number with its unit; false: none. */
static bool take_unit(struct str *s, double *ns) {
    static const struct {
        const char *name;
        double ns;
    } units[] = {{"ns", 1},   {"us", 1e3}, {"µs", 1e3}, {"μs", 1e3},
                 {"ms", 1e6}, {"s", 1e9},  {"m", 60e9}, {"h", 3600e9}};
    size_t n = 0;
    double v;
    while (n < s->n && ((s->p[n] >= '0' && s->p[n] <= '9') || s->p[n] == '.')) {
        n++;
    }
    if (n == 0 || str_to_double(str_sub(*s, 0, n), &v) < 0) {
        return false;
    }
    *s = str_sub(*s, n, s->n);
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (str_starts(*s, str_c(units[i].name))) {
            *ns += v * units[i].ns;
            *s = str_sub(*s, strlen(units[i].name), s->n);
            return true;
        }
    }
    return false;
}

int64_t conf_duration_ns(const struct jnode *map, const char *name) {
    struct str s = conf_str(map, name);
    double ns = 0;
    if (!s.n) {
        return -1;
    }
    if (str_is(s, "0")) {
        return 0;
    }
    while (s.n) {
        if (!take_unit(&s, &ns) || ns > 9e18) {
            return -1;
        }
    }
    return (int64_t)ns;
}

uint32_t conf_seconds(const struct jnode *map, const char *name, uint32_t max, uint32_t dflt) {
    int64_t ns = conf_duration_ns(map, name);
    if (ns < 0) {
        return dflt;
    }
    int64_t s = (ns + 500000000) / 1000000000;
    return s > max ? max : (uint32_t)s;
}

bool conf_matches(struct build *b, struct str selector, const struct str_map *labels,
                  const char *what) {
    const struct selector *s = NULL;
    struct err e;
    if (selector_parse(selector, SELECTOR_MAX_BYTES, &b->scratch, &s, &e) < 0) {
        conf_problem(b, "%s: selector: %s", what, e.msg);
        return false;
    }
    return selector_match(s, (const struct label *)labels->p, labels->n);
}

void conf_problem(struct build *b, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    for (size_t i = 0; i < b->problems.n; i++) {
        if (str_is(b->problems.p[i], text)) {
            return;
        }
    }
    vec_push(&b->problems, arena_dup(b->a, str_c(text)));
}

/* ---- secrets ---- */

/* Base64 as Secret.data has it; STR_NULL: it is none. */
static struct str base64(struct arena *a, struct str s) {
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *out = arena_alloc(a, s.n);
    size_t n = 0;
    uint32_t bits = 0, n_bits = 0;
    for (size_t i = 0; i < s.n && s.p[i] != '='; i++) {
        const char *d = s.p[i] ? strchr(DIGITS, s.p[i]) : NULL;
        if (!d) {
            return STR_NULL;
        }
        bits = bits << 6 | (uint32_t)(d - DIGITS);
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            out[n++] = (char)(bits >> n_bits);
        }
    }
    return str_n(out, n);
}

struct str conf_password(struct build *b, const struct jnode *map, const char *what) {
    const struct jnode *ref = conf_get(map, "secretKeyRef");
    struct str name = conf_str(ref, "name"), key = conf_str(ref, "key");
    if (!name.n) {
        return STR_NULL;
    }
    size_t at;
    for (const struct object *o = conf_first(b, K_SECRET, &at); o;
         o = conf_next(b, K_SECRET, &at)) {
        if (!str_eq(o->meta.name, name)) {
            continue;
        }
        struct str v = jnode_str(jnode_get(conf_get(o->doc, "stringData"), key));
        if (!v.p) {
            v = base64(b->a, jnode_str(jnode_get(conf_get(o->doc, "data"), key)));
        }
        if (v.n > 80) {
            conf_problem(b,
                         "%s: the password in Secret %.*s, key %.*s, has %zu bytes, allowed are 80",
                         what, STR_FMT(name), STR_FMT(key), v.n);
            return STR_NULL;
        }
        if (v.n) {
            return arena_dup(b->a, v);
        }
    }
    if (!conf_bool(ref, "optional", false)) {
        conf_problem(b,
                     "%s: there is no password in Secret %.*s, key %.*s: the session has none "
                     "until it appears",
                     what, STR_FMT(name), STR_FMT(key));
    }
    return STR_NULL;
}

struct ao_keys conf_ao(struct build *b, const struct jnode *list, const char *what) {
    static const struct {
        const char *word, *kernel;
    } ALGORITHMS[] = {{"HMAC-SHA-1-96", "hmac(sha1)"},
                      {"AES-128-CMAC-96", "cmac(aes128)"},
                      {"HMAC-SHA-256-96", "hmac(sha256)"}};
    struct ao_keys keys = {.p = arena_array(b->a, struct ao_key, SOCK_AO_KEYS_MAX)};
    if (!list || list->type != J_LIST) {
        return keys;
    }
    jnode_each (it, list) {
        struct str secret = conf_password(b, it, what), word = conf_str(it, "algorithm");
        if (!secret.n || keys.n == SOCK_AO_KEYS_MAX) {
            continue;
        }
        int64_t id = conf_int(it, "sendID", 0);
        struct ao_key *k = &keys.p[keys.n++];
        *k = (struct ao_key){.send_id = (uint8_t)id,
                             .receive_id = (uint8_t)conf_int(it, "receiveID", id),
                             .algorithm = ALGORITHMS[0].kernel,
                             .secret = secret};
        for (size_t i = 0; i < ARRAY_LEN(ALGORITHMS); i++) {
            if (str_is(word, ALGORITHMS[i].word)) {
                k->algorithm = ALGORITHMS[i].kernel;
            }
        }
    }
    return keys;
}

/* ---- files ---- */

struct reading {
    const char *path;
    struct arena *a;
    VEC(struct object) objects;
    struct buf *errors;
    size_t n_bad;
};

bool bgp_conf_uses(enum kind_id kind) {
    switch (kind) {
    case K_BGP_CONFIGURATION:
    case K_BGP_FILTER:
    case K_BGP_PEER:
    case K_NODE:
    case K_SECRET:
    case K_IP_POOL:
    case K_BLOCK_AFFINITY:
    case K_SERVICE:
    case K_ENDPOINT_SLICE:
    case K_NODE_K8S:
    case K_WORKLOAD_ENDPOINT:
        return true;
    default: /* rule 35: of some 35 kinds these are the ones */
        return false;
    }
}

static void fail(struct reading *r, const struct jnode *at, const char *fmt, ...) MG_PRINTF(3, 4);
static void fail(struct reading *r, const struct jnode *at, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    buf_printf(r->errors, "%s:%u: %s\n", r->path, at ? at->line : 1, text);
    r->n_bad++;
}

static void take_document(struct reading *r, struct jnode *doc) {
    const struct jnode *version = conf_get(doc, "apiVersion"), *name = conf_get(doc, "kind");
    const struct kind *k = kind_by_type(jnode_str(version), jnode_str(name));
    if (!k || !bgp_conf_uses(k->id)) {
        fail(r, name ? name : doc,
             "found kind %.*s of %.*s, allowed are BGPConfiguration, BGPFilter, BGPPeer, Node, "
             "IPPool, BlockAffinity and WorkloadEndpoint of projectcalico.org/v3, and v1 Secret, "
             "Service, Node, EndpointSlice",
             STR_FMT(jnode_str(name)), STR_FMT(jnode_str(version)));
        return;
    }
    struct object o = {0};
    struct model_errors errs = {.a = r->a};
    if (object_read(doc, MODEL_APPLY, STR_NULL, r->a, &o, &errs) < 0) {
        for (size_t i = 0; i < errs.n; i++) {
            model_error_print(r->errors, r->path, &o, &errs.p[i]);
            if (r->errors->n && r->errors->p[r->errors->n - 1] != '\n') {
                buf_putc(r->errors, '\n');
            }
            r->n_bad++;
        }
        return;
    }
    for (size_t i = 0; i < r->objects.n; i++) {
        const struct object *other = &r->objects.p[i];
        if (other->kind == o.kind && str_eq(other->meta.name, o.meta.name) &&
            str_eq(other->meta.ns, o.meta.ns)) {
            fail(r, doc, "%s/%.*s stands there twice, first in line %u: remove one", k->kind,
                 STR_FMT(o.meta.name), other->doc->line);
            return;
        }
    }
    vec_push(&r->objects, o);
}

static int on_document(void *arg, struct jnode *doc) {
    struct reading *r = arg;
    struct jnode *items = doc->type == J_MAP ? jnode_getc(doc, "items") : NULL;
    if (items && str_ends(conf_str(doc, "kind"), STR("List"))) {
        jnode_each (it, items) {
            take_document(r, it);
        }
    } else {
        take_document(r, doc);
    }
    return 0;
}

int bgp_conf_read(const char *path, struct arena *a, struct object **out, size_t *n,
                  struct buf *errors) {
    MG_CLEANUP(buf_fini) struct buf text = BUF_INIT(FILE_MAX);
    struct reading r = {.path = path, .a = a, .errors = errors};
    struct err e;
    int rc = file_read(AT_FDCWD, path, &text, FILE_MAX);
    if (rc < 0) {
        buf_printf(errors, "%s: %s\n", path, err_name(rc));
        return rc;
    }
    rc = yaml_each(arena_dup(a, buf_view(&text)), path, &json_limits_default, a, on_document, &r,
                   &e);
    if (rc < 0) {
        buf_printf(errors, "%s\n", e.msg);
        r.n_bad++;
    }
    if (r.n_bad == 0) {
        *out = arena_alloc(a, sizeof(struct object) * r.objects.n);
        if (r.objects.n) {
            memcpy(*out, r.objects.p, sizeof(struct object) * r.objects.n);
        }
        *n = r.objects.n;
    }
    vec_fini(&r.objects);
    return r.n_bad ? ERR_INVALID : 0;
}
