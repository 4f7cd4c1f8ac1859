/* IPAM's items as Calico's CRDs: blocks, affinities, handles, settings. Values on our side are
 * those of Calico's etcd layout. Source: libcalico-go/lib/backend/k8s/resources/ipam_*.go. */
#include "base/hash.h"
#include "base/ip.h"
#include "store/kube_shapes.h"

#include <openssl/evp.h>

#define LABEL_HOST "projectcalico.org/hostname-hash"
#define LABEL_TYPE "projectcalico.org/affinity-type"
#define LABEL_VERSION "projectcalico.org/ip-version"
#define HANDLE_PREFIX "/ipam/v2/handle/"
enum { NAME_MAX_BYTES = 253 };

struct str kube_cidr_name(struct str cidr, struct arena *a) {
    char *p = arena_alloc(a, cidr.n + 1);
    for (size_t i = 0; i < cidr.n; i++) {
        char c = cidr.p[i];
        p[i] = c == '.' || c == ':' || c == '/' ? '-' : c;
    }
    return str_n(p, cidr.n);
}

struct str kube_affinity_name(struct str host, struct str cidr_name, struct arena *a) {
    if (host.n + 1 + cidr_name.n < NAME_MAX_BYTES) {
        return arena_printf(a, "%.*s-%.*s", STR_FMT(host), STR_FMT(cidr_name));
    }
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(65536);
    uint8_t digest[32];
    char hex[65];
    buf_printf(&b, "%.*s+%.*s", STR_FMT(host), STR_FMT(cidr_name));
    sha256(b.p, b.n, digest);
    hex_encode(digest, sizeof(digest), hex);
    size_t keep = NAME_MAX_BYTES - 1 - cidr_name.n - 13;
    return arena_printf(a, "%.*s-%.*s-%.11s", (int)keep, host.p, STR_FMT(cidr_name), hex);
}

struct str kube_host_hash(struct str host, struct arena *a) {
    static const char ABC[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    uint8_t digest[32];
    char *out = arena_alloc(a, 64);
    size_t n = 0;
    uint32_t acc = 0;
    unsigned bits = 0;
    int ok = EVP_Digest(host.p ? host.p : "", host.n, digest, NULL, EVP_sha3_256(), NULL);
    mg_assert(ok == 1);
    for (size_t i = 0; i < sizeof(digest); i++) {
        acc = acc << 8 | digest[i];
        for (bits += 8; bits >= 5; bits -= 5) {
            out[n++] = ABC[acc >> (bits - 5) & 31];
        }
    }
    out[n++] = ABC[acc << (5 - bits) & 31]; /* 256 bits: one is left */
    return str_n(out, n);
}

/* "10.44.7.0-26" to "10.44.7.0/26", checked. */
static int cidr_of(struct str part, struct arena *a, struct str *out) {
    struct prefix p;
    char text[IP_TEXT_MAX];
    char *copy = arena_alloc(a, part.n + 1);
    for (size_t i = 0; i < part.n; i++) {
        copy[i] = part.p[i] == '-' ? '/' : part.p[i];
    }
    if (str_find(part, '-', 0) < 0 || prefix_parse(str_n(copy, part.n), &p) < 0 ||
        !prefix_is_masked(&p)) {
        return ERR_INVALID;
    }
    *out = arena_dup(a, str_c(prefix_text(&p, text)));
    return 0;
}

/* What stands in a key of IPAM. */
struct parts {
    struct str host, type, cidr; /* affinity; a block has cidr only */
};

/* Splits from the end: names of hosts may hold anything. */
static int affinity_parts(struct str key, struct arena *a, struct parts *out) {
    bool is_host = str_starts(key, STR("/ipam/v2/host/"));
    struct str rest = str_sub(key, is_host ? 14 : 17, key.n);
    for (int v = 4; v <= 6; v += 2) {
        struct str mark = v == 4 ? STR("/ipv4/block/") : STR("/ipv6/block/");
        for (size_t i = 1; i + mark.n < rest.n; i++) {
            if (str_starts(str_sub(rest, i, rest.n), mark) &&
                cidr_of(str_sub(rest, i + mark.n, rest.n), a, &out->cidr) == 0) {
                out->host = str_sub(rest, 0, i);
                out->type = is_host ? STR("host") : STR("virtual");
                return (str_find(out->cidr, ':', 0) >= 0) == (v == 6) ? 0 : ERR_INVALID;
            }
        }
    }
    return ERR_INVALID;
}

static int key_parts(const struct kube_view *v, struct str key, struct arena *a,
                     struct parts *out) {
    if (v->shape == KUBE_IPAM_AFFINITY) {
        return affinity_parts(key, a, out);
    }
    struct str rest = str_sub(key, strlen(v->prefix), key.n);
    bool is_v6 = str_starts(rest, STR("ipv6/block/"));
    if (!is_v6 && !str_starts(rest, STR("ipv4/block/"))) {
        return ERR_INVALID;
    }
    int r = cidr_of(str_sub(rest, 11, rest.n), a, &out->cidr);
    return r < 0 ? r : (str_find(out->cidr, ':', 0) >= 0) == is_v6 ? 0 : ERR_INVALID;
}

static struct str lower(struct str s, struct arena *a) {
    char *p = arena_alloc(a, s.n + 1);
    for (size_t i = 0; i < s.n; i++) {
        p[i] = s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] + 32) : s.p[i];
    }
    return str_n(p, s.n);
}

int kube_ipam_name(const struct kube_view *v, struct str key, struct arena *a, struct str *name,
                   struct err *e) {
    struct parts p = {0};
    struct str id = str_sub(key, strlen(v->prefix), key.n);
    if (v->shape == KUBE_IPAM_CONFIG && id.n == 0) {
        *name = STR("default");
        return 0;
    }
    if (v->shape == KUBE_IPAM_HANDLE && id.n && id.n <= NAME_MAX_BYTES &&
        str_find(id, '/', 0) < 0) {
        *name = lower(id, a);
        return 0;
    }
    if ((v->shape == KUBE_IPAM_BLOCK || v->shape == KUBE_IPAM_AFFINITY) &&
        key_parts(v, key, a, &p) == 0) {
        struct str cidr = kube_cidr_name(p.cidr, a);
        *name = v->shape == KUBE_IPAM_BLOCK ? cidr : kube_affinity_name(p.host, cidr, a);
        return 0;
    }
    return err_set(e, ERR_INVALID, "key \"%.*s\" has no place in the Kubernetes API",
                   key.n > 200 ? 200 : (int)key.n, key.p);
}

/* ---- reading ---- */

static bool is_true(const struct jnode *n) {
    return n && (n->type == J_BOOL ? n->b : str_is(jnode_str(n), "true"));
}

/* A member of src under another name in dst, if it is there. */
static void take(struct arena *a, struct jnode *dst, const char *to, const struct jnode *src,
                 const char *from) {
    const struct jnode *n = jnode_getc(src, from);
    if (n && n->type != J_NULL) {
        jnode_set(a, dst, str_c(to), jnode_copy(a, n));
    }
}

/* Key's last parts of a block: "ipv4/block/10.44.7.0-26". */
static int block_path(struct str cidr, struct arena *a, struct str *out) {
    struct prefix p;
    char text[IP_TEXT_MAX];
    if (prefix_parse(cidr, &p) < 0 || !prefix_is_masked(&p)) {
        return ERR_CORRUPT;
    }
    char *slash = strchr(prefix_text(&p, text), '/') ? strchr(text, '/') : text;
    *slash = '-';
    *out = arena_printf(a, "ipv%u/block/%s", p.ip.family, text);
    return 0;
}

static const char *const BLOCK_FIELDS[][2] = {
    /* ours (etcd), theirs (CRD) */
    {"cidr", "cidr"},
    {"affinity", "affinity"},
    {"affinity_claim_time", "affinityClaimTime"},
    {"allocations", "allocations"},
    {"unallocated", "unallocated"},
    {"attributes", "attributes"},
    {"sequenceNumber", "sequenceNumber"},
    {"sequenceNumberForAllocation", "sequenceNumberForAllocation"},
};
static const char *const CONFIG_FIELDS[][2] = {
    {"strict_affinity", "strictAffinity"},
    {"auto_allocate_blocks", "autoAllocateBlocks"},
    {"maxBlocksPerHost", "maxBlocksPerHost"},
    {"kubeVirtVMAddressPersistence", "kubeVirtVMAddressPersistence"},
    {"ipCooldownSeconds", "ipCooldownSeconds"},
};

static struct jnode *read_fields(const struct jnode *spec, const char *const f[][2], size_t n,
                                 struct arena *a) {
    struct jnode *v = jnode_new(a, J_MAP);
    for (size_t i = 0; i < n; i++) {
        take(a, v, f[i][0], spec, f[i][1]);
    }
    return v;
}

static int read_affinity(const struct kube_view *v, const struct jnode *spec, struct arena *a,
                         struct kube_item *out) {
    struct str node = jnode_str(jnode_getc(spec, "node"));
    struct str type = jnode_str(jnode_getc(spec, "type")), path;
    type = type.n ? type : STR("host"); /* old objects have none */
    if (!node.n || block_path(jnode_str(jnode_getc(spec, "cidr")), a, &path) < 0) {
        return ERR_CORRUPT;
    }
    bool is_host_view = str_is(str_c(v->prefix), "/ipam/v2/host/");
    out->key =
        arena_printf(a, "/ipam/v2/%.*s/%.*s/%.*s", STR_FMT(type), STR_FMT(node), STR_FMT(path));
    out->value = NULL;
    if (is_host_view == str_is(type, "host")) {
        struct jnode *value = jnode_new(a, J_MAP);
        struct str state = jnode_str(jnode_getc(spec, "state"));
        kube_set_text(a, value, "state", state.n ? state : STR("confirmed"));
        jnode_set(a, value, STR("deleted"), jnode_new_bool(a, false));
        out->value = value;
    }
    return 0;
}

int kube_read_ipam(const struct kube_view *v, struct jnode *obj, struct arena *a,
                   struct kube_item *out, struct err *e) {
    const struct jnode *spec = jnode_getc(obj, "spec");
    struct str path, id = jnode_str(jnode_getc(spec, "handleID"));
    int r = 0;
    switch (v->shape) {
    case KUBE_IPAM_BLOCK:
        r = block_path(jnode_str(jnode_getc(spec, "cidr")), a, &path);
        if (r == 0) {
            out->key = arena_printf(a, "/ipam/v2/assignment/%.*s", STR_FMT(path));
            out->value = read_fields(spec, BLOCK_FIELDS, ARRAY_LEN(BLOCK_FIELDS), a);
            jnode_set(a, out->value, STR("deleted"), jnode_new_bool(a, false));
        }
        break;
    case KUBE_IPAM_AFFINITY:
        r = read_affinity(v, spec, a, out);
        break;
    case KUBE_IPAM_HANDLE:
        r = id.n ? 0 : ERR_CORRUPT;
        out->key = arena_printf(a, HANDLE_PREFIX "%.*s", STR_FMT(id));
        out->value = jnode_new(a, J_MAP);
        (void)kube_map_at(a, out->value, "block");
        take(a, out->value, "block", spec, "block");
        jnode_set(a, out->value, STR("deleted"), jnode_new_bool(a, false));
        break;
    default: /* KUBE_IPAM_CONFIG; the others are not IPAM's */
        out->key = str_c(v->prefix);
        out->value = NULL;
        if (str_is(jnode_str(jnode_path(obj, "metadata.name")), "default")) {
            out->value = read_fields(spec, CONFIG_FIELDS, ARRAY_LEN(CONFIG_FIELDS), a);
        }
        return 0;
    }
    if (r < 0) {
        struct str name = jnode_str(jnode_path(obj, "metadata.name"));
        return err_set(e, ERR_CORRUPT,
                       "%s \"%.*s\": its spec says no masked cidr, node or handleID", v->rest->kind,
                       STR_FMT(name));
    }
    if (is_true(jnode_getc(spec, "deleted"))) {
        out->value = NULL;
        out->is_deleting = true;
    }
    return 0;
}

/* ---- writing ---- */

static void write_fields(struct jnode *spec, const struct jnode *value, const char *const f[][2],
                         size_t n, struct arena *a) {
    for (size_t i = 0; i < n; i++) {
        take(a, spec, f[i][1], value, f[i][0]);
    }
}

/* A field that the CRD requires. */
static void need_field(struct arena *a, struct jnode *spec, const char *name, enum jtype type) {
    if (!jnode_getc(spec, name)) {
        jnode_set(a, spec, str_c(name), jnode_new(a, type));
    }
}

static void write_affinity(struct jnode *o, struct jnode *spec, const struct parts *p,
                           const struct jnode *value, struct arena *a) {
    struct jnode *labels = kube_map_at(a, jnode_getc(o, "metadata"), "labels");
    struct str state = jnode_str(jnode_getc(value, "state"));
    kube_set_text(a, spec, "state", state.n ? state : STR("confirmed"));
    kube_set_text(a, spec, "node", p->host);
    kube_set_text(a, spec, "type", p->type);
    kube_set_text(a, spec, "cidr", p->cidr);
    kube_set_text(a, spec, "deleted",
                  is_true(jnode_getc(value, "deleted")) ? STR("true") : STR("false"));
    kube_set_text(a, labels, LABEL_HOST, kube_host_hash(p->host, a));
    kube_set_text(a, labels, LABEL_TYPE, p->type);
    kube_set_text(a, labels, LABEL_VERSION, str_find(p->cidr, ':', 0) >= 0 ? STR("6") : STR("4"));
}

/* What Calico's client notes of the metadata that it was given. */
static void note_metadata(struct jnode *o, struct arena *a) {
    struct jnode *meta = jnode_getc(o, "metadata"), *labels = jnode_getc(meta, "labels");
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(65536);
    buf_puts(&b, "{\"creationTimestamp\":null");
    if (labels) {
        buf_puts(&b, ",\"labels\":");
        json_write(&b, labels, 0);
    }
    buf_putc(&b, '}');
    kube_set_text(a, kube_map_at(a, meta, "annotations"), KUBE_ANNOTATION_METADATA,
                  arena_dup(a, buf_view(&b)));
}

int kube_write_ipam(const struct kube_at *at, struct store_key k, const struct jnode *value,
                    struct arena *a, struct jnode **out, struct err *e) {
    const struct kube_view *v = at->view;
    struct jnode *o = kube_new_object(a, KUBE_CRD_GROUP "/v1", v->rest->kind);
    struct jnode *spec = kube_map_at(a, o, "spec");
    struct parts p = {0};
    kube_set_text(a, jnode_getc(o, "metadata"), "name", at->name);
    if (value->type != J_MAP) {
        return err_set(e, ERR_INVALID, "\"%.*s\": its value is no JSON object", STR_FMT(k.key));
    }
    if (v->shape == KUBE_IPAM_HANDLE) {
        kube_set_text(a, spec, "handleID", str_sub(k.key, strlen(HANDLE_PREFIX), k.key.n));
        (void)kube_map_at(a, spec, "block");
        take(a, spec, "block", value, "block");
        jnode_set(a, spec, STR("deleted"),
                  jnode_new_bool(a, is_true(jnode_getc(value, "deleted"))));
    } else if (v->shape == KUBE_IPAM_CONFIG) {
        write_fields(spec, value, CONFIG_FIELDS, ARRAY_LEN(CONFIG_FIELDS), a);
        need_field(a, spec, "strictAffinity", J_BOOL);
        need_field(a, spec, "autoAllocateBlocks", J_BOOL);
    } else if (key_parts(v, k.key, a, &p) < 0) {
        return err_set(e, ERR_INVALID, "key \"%.*s\" names no block", STR_FMT(k.key));
    } else if (v->shape == KUBE_IPAM_AFFINITY) {
        write_affinity(o, spec, &p, value, a);
    } else {
        write_fields(spec, value, BLOCK_FIELDS, ARRAY_LEN(BLOCK_FIELDS), a);
        kube_set_text(a, spec, "cidr", p.cidr);
        need_field(a, spec, "allocations", J_LIST);
        need_field(a, spec, "unallocated", J_LIST);
        need_field(a, spec, "attributes", J_LIST);
        need_field(a, spec, "strictAffinity", J_BOOL);
        jnode_set(a, spec, STR("deleted"),
                  jnode_new_bool(a, is_true(jnode_getc(value, "deleted"))));
    }
    note_metadata(o, a);
    *out = o;
    return 0;
}
