/* ipam configure, ipam split. */
#include "cli/ipam_cli.h"

#include <stdio.h>

/* ---- configure ---- */

/* False after an error message. */
static bool take_bool(const char *name, const char *text, bool *out) {
    if (text && strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
        (void)cli_usage("ipam", "configure: %s is \"%s\", expected true or false", name, text);
        return false;
    }
    *out = text ? strcmp(text, "true") == 0 : *out;
    return true;
}

static bool take_number(const char *name, const char *text, uint64_t max, uint64_t *out) {
    uint64_t v = *out;
    if (text && (str_to_u64(str_c(text), &v) < 0 || v > max)) {
        (void)cli_usage("ipam", "configure: %s is \"%s\", expected 0 to %llu", name, text,
                        (unsigned long long)max);
        return false;
    }
    *out = v;
    return true;
}

int ipam_cmd_configure(struct store *s, struct ipam *m MG_UNUSED, const struct ipam_flags *f) {
    struct ipam_settings v;
    struct err e = {.code = 0};
    if (!f->strict && !f->auto_blocks && !f->max_blocks && !f->cooldown && !f->vm) {
        return cli_usage("ipam", "configure: say what, such as --strictaffinity=true");
    }
    if (ipam_settings_read(s, &v, &e) < 0) {
        return cli_error("%s", e.msg);
    }
    uint64_t max_blocks = v.max_blocks, cooldown = (uint64_t)v.cooldown_s;
    if (!take_bool("--strictaffinity", f->strict, &v.strict_affinity) ||
        !take_bool("--auto-allocate-blocks", f->auto_blocks, &v.auto_blocks) ||
        !take_number("--max-blocks-per-host", f->max_blocks, 1000000, &max_blocks) ||
        !take_number("--ip-cooldown-seconds", f->cooldown, 1200, &cooldown)) {
        return 2;
    }
    if (f->vm && strcmp(f->vm, "Enabled") != 0 && strcmp(f->vm, "Disabled") != 0) {
        return cli_usage("ipam",
                         "configure: --kubevirt-ip-persistence is \"%s\", expected Enabled or "
                         "Disabled",
                         f->vm);
    }
    v.vm_persistence = f->vm ? strcmp(f->vm, "Enabled") == 0 : v.vm_persistence;
    v.max_blocks = (unsigned)max_blocks;
    v.cooldown_s = (int64_t)cooldown;
    if (ipam_settings_write(s, &v, &e) < 0) {
        return cli_error("%s", e.msg);
    }
    if (f->strict) {
        printf("Successfully set StrictAffinity to: %s\n", v.strict_affinity ? "true" : "false");
    }
    if (f->auto_blocks) {
        printf("Successfully set AutoAllocateBlocks to: %s\n", v.auto_blocks ? "true" : "false");
    }
    if (f->max_blocks) {
        printf("Successfully set MaxBlocksPerHost to: %u\n", v.max_blocks);
    }
    if (f->cooldown) {
        printf("Successfully set IPCooldownSeconds to: %lld\n", (long long)v.cooldown_s);
    }
    if (f->vm) {
        printf("Successfully set KubeVirtVMAddressPersistence to: %s\n", f->vm);
    }
    return 0;
}

/* ---- split ---- */

int ipam_cli_is_locked(struct store *s, bool *is_locked, struct str *guid, struct arena *a,
                       struct err *e) {
    struct cli_object info;
    *is_locked = false;
    *guid = STR("");
    int r = cli_get(s, &model_kinds[K_CLUSTER_INFORMATION], STR(""), STR("default"), a, &info, e);
    if (r == ERR_NOT_FOUND) {
        return 0;
    }
    if (r == 0) {
        const struct jnode *ready = jnode_path(info.doc, "spec.datastoreReady");
        struct str g = jnode_str(jnode_path(info.doc, "spec.clusterGUID"));
        *is_locked = ready && ready->type == J_BOOL && !ready->b;
        *guid = g.p ? g : STR("");
    }
    return r;
}

static int find_pool(struct store *s, const struct ipam_flags *f, struct arena *a, struct str *name,
                     struct err *e) {
    ipam_pool_vec pools = {0};
    struct prefix cidr;
    int r = ipam_cli_pools(s, a, &pools, e);
    if (r == 0 && f->cidr && prefix_parse(str_c(f->cidr), &cidr) < 0) {
        r = err_set(e, ERR_INVALID, "--cidr \"%s\" is no CIDR, such as 10.44.0.0/16", f->cidr);
    }
    *name = STR("");
    for (size_t i = 0; i < pools.n && r == 0; i++) {
        if (f->cidr ? prefix_eq(&pools.p[i].cidr, &cidr) : str_is(pools.p[i].name, f->name)) {
            *name = pools.p[i].name;
        }
    }
    if (r == 0 && !name->n) {
        r = err_set(e, ERR_NOT_FOUND, "there is no pool %s: margay get ippools",
                    f->cidr ? f->cidr : f->name);
    }
    vec_fini(&pools);
    return r;
}

static unsigned log2_of(uint64_t n) {
    unsigned bits = 0;
    while ((1ULL << bits) < n) {
        bits++;
    }
    return bits;
}

/* The i-th of n parts: the old pool's settings, enabled. */
static int put_part(struct store *s, const struct cli_object *old, struct str name,
                    const struct prefix *cidr, struct arena *a, struct err *e) {
    const struct kind *k = &model_kinds[K_IP_POOL];
    struct jnode *doc = jnode_copy(a, old->doc), *meta = jnode_new(a, J_MAP);
    const struct jnode *labels = jnode_path(old->doc, "metadata.labels");
    char text[IP_TEXT_MAX];
    jnode_set(a, meta, STR("name"), jnode_new_str(a, name));
    if (labels) {
        jnode_set(a, meta, STR("labels"), jnode_copy(a, labels));
    }
    jnode_set(a, doc, STR("metadata"), meta);
    (void)jnode_del(doc, STR("status"));
    jnode_set(a, jnode_getc(doc, "spec"), STR("cidr"),
              jnode_new_str(a, arena_dup(a, str_c(prefix_text(cidr, text)))));
    (void)jnode_del(jnode_getc(doc, "spec"), STR("disabled"));
    int r = cli_put(s, k, STR(""), name, doc, NULL, REV_NONE, a, e);
    if (r == ERR_EXISTS) { /* of a split that was broken off */
        struct cli_object there;
        struct prefix has;
        r = cli_get(s, k, STR(""), name, a, &there, e);
        if (r == 0 && (prefix_parse(jnode_str(jnode_path(there.doc, "spec.cidr")), &has) < 0 ||
                       !prefix_eq(&has, cidr))) {
            r = err_set(e, ERR_EXISTS, "pool %.*s is there already, and of other addresses",
                        STR_FMT(name));
        }
    }
    return r;
}

static int split(struct store *s, const struct ipam_flags *f, uint64_t n, struct arena *a,
                 struct err *e) {
    const struct kind *k = &model_kinds[K_IP_POOL];
    struct cli_object old;
    struct str name, guid;
    struct prefix cidr;
    bool is_locked;
    int r = ipam_cli_is_locked(s, &is_locked, &guid, a, e);
    if (r == 0 && !is_locked && !f->force) {
        r = err_set(e, ERR_DENIED,
                    "the datastore is not locked: run 'margay datastore lock' first, so that "
                    "nobody assigns addresses while the pool is two pools at a time, and 'margay "
                    "datastore unlock' afterwards");
    }
    r = r == 0 ? find_pool(s, f, a, &name, e) : r;
    r = r == 0 ? cli_get(s, k, STR(""), name, a, &old, e) : r;
    if (r < 0) {
        return r;
    }
    const struct jnode *size = jnode_path(old.doc, "spec.blockSize");
    if (prefix_parse(jnode_str(jnode_path(old.doc, "spec.cidr")), &cidr) < 0) {
        return err_set(e, ERR_CORRUPT, "pool %.*s: its cidr can't be read", STR_FMT(name));
    }
    unsigned bits = log2_of(n), block = ip_bits(&cidr.ip) == 32 ? 26 : 122;
    block = size && size->type == J_INT ? (unsigned)size->i : block;
    if (cidr.len + bits > block) {
        return err_set(e, ERR_INVALID,
                       "pool %.*s can't be split into %llu: each would be smaller than a block "
                       "(blockSize %u)",
                       STR_FMT(name), (unsigned long long)n, block);
    }
    for (uint64_t i = 0; i < n && r == 0; i++) {
        struct prefix part = {cidr.ip, (uint8_t)(cidr.len + bits)};
        unsigned shift = ip_bits(&cidr.ip) - part.len;
        /* Parts larger than 2^63 addresses: the index goes into the upper half. */
        for (unsigned b = 0; b < bits; b++) {
            if (i >> b & 1) {
                unsigned bit = ip_bits(&cidr.ip) - 1 - (shift + b);
                part.ip.b[bit / 8] |= (uint8_t)(0x80U >> (bit % 8));
            }
        }
        struct str child = arena_printf(a, "split-%.*s-%llu", STR_FMT(name), (unsigned long long)i);
        char text[IP_TEXT_MAX];
        r = put_part(s, &old, child, &part, a, e);
        if (r == 0) {
            printf("Created pool %.*s (%s)\n", STR_FMT(child), prefix_text(&part, text));
        }
    }
    r = r == 0 ? cli_delete(s, k, STR(""), name, old.revision, e) : r;
    if (r == 0) {
        printf("Successfully split IP pool %.*s into %llu; blocks and addresses are as before\n",
               STR_FMT(name), (unsigned long long)n);
    }
    return r;
}

int ipam_cmd_split(struct store *s, struct ipam *m MG_UNUSED, const struct ipam_flags *f) {
    struct arena a = {0};
    struct err e = {.code = 0};
    uint64_t n = 0;
    if (f->n_words != 1 || str_to_u64(str_c(f->words[0]), &n) < 0 || n < 2 || n > 4096 ||
        (n & (n - 1)) || !f->cidr == !f->name) {
        return cli_usage("ipam",
                         "split: expected a number of parts, 2, 4, 8 … 4096, and --cidr=CIDR "
                         "or --name=POOL");
    }
    int r = split(s, f, n, &a, &e);
    arena_fini(&a);
    return r < 0 ? cli_error("%s", e.msg) : 0;
}
