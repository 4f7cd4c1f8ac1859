/* How addresses are assigned, as it stands in the store: in Calico's IPAM settings
 * (/ipam/v2/config, what calicoctl ipam configure writes) or in the IPAMConfiguration resource.
 * With the Kubernetes API both are one object; elsewhere the one written last holds. */
#include "ipam/ipam_int.h"
#include "model/model.h"

#define CONFIG_KEY "/ipam/v2/config"

static struct store_key config_key(void) {
    return (struct store_key){STR(STORE_SPACE_IPAM), STR(CONFIG_KEY)};
}
static struct store_key resource_key(struct arena *a) {
    return (struct store_key){
        STR(STORE_SPACE_RESOURCES),
        kind_store_key(&model_kinds[K_IPAM_CONFIGURATION], STR(""), STR("default"), a)};
}

static void take_bool(const struct jnode *from, const char *name, bool *out) {
    const struct jnode *n = jnode_getc(from, name);
    if (n && n->type == J_BOOL) {
        *out = n->b;
    }
}

static int64_t number(const struct jnode *from, const char *name, int64_t max) {
    const struct jnode *n = jnode_getc(from, name);
    return n && n->type == J_INT && n->i > 0 ? (n->i < max ? n->i : max) : 0;
}

/* 0 and NULL: there is none. */
static int read_one(struct store *s, struct store_key key, struct arena *a, struct store_item *it,
                    struct jnode **out, struct err *e) {
    *out = NULL;
    int r = store_get(s, key, a, it, e);
    if (r == ERR_NOT_FOUND) {
        it->revision = REV_NONE;
        return 0;
    }
    r = r == 0 ? json_parse(it->value, &json_limits_default, a, out, e) : r;
    return r < 0 ? err_wrap(e, r, "%.*s", STR_FMT(key.key)) : 0;
}

int ipam_settings_read(struct store *s, struct ipam_settings *out, struct err *e) {
    struct arena a = {0};
    struct store_item ci, ri;
    struct jnode *config, *resource;
    *out = (struct ipam_settings){.auto_blocks = true, .vm_persistence = true};
    int r = read_one(s, config_key(), &a, &ci, &config, e);
    r = r == 0 ? read_one(s, resource_key(&a), &a, &ri, &resource, e) : r;
    if (r == 0 && (config || resource)) {
        bool is_config = config && (!resource || ci.revision >= ri.revision);
        const struct jnode *n = is_config ? config : jnode_getc(resource, "spec");
        take_bool(n, is_config ? "strict_affinity" : "strictAffinity", &out->strict_affinity);
        take_bool(n, is_config ? "auto_allocate_blocks" : "autoAllocateBlocks", &out->auto_blocks);
        out->max_blocks = (unsigned)number(n, "maxBlocksPerHost", 1000000);
        out->cooldown_s = number(n, "ipCooldownSeconds", IPAM_COOLDOWN_MAX_S);
        out->vm_persistence =
            !str_is(jnode_str(jnode_getc(n, "kubeVirtVMAddressPersistence")), "Disabled");
    }
    arena_fini(&a);
    return r;
}

int ipam_settings_heed(struct ipam *m, struct err *e) {
    struct ipam_settings v;
    int r = ipam_settings_read(m->store, &v, e);
    if (r == 0) {
        m->cooldown_s = v.cooldown_s;
    }
    return r;
}

static void put_settings(struct arena *a, struct jnode *n, const struct ipam_settings *v,
                         bool is_config) {
    jnode_set(a, n, str_c(is_config ? "strict_affinity" : "strictAffinity"),
              jnode_new_bool(a, v->strict_affinity));
    jnode_set(a, n, str_c(is_config ? "auto_allocate_blocks" : "autoAllocateBlocks"),
              jnode_new_bool(a, v->auto_blocks));
    jnode_set(a, n, STR("maxBlocksPerHost"), jnode_new_int(a, v->max_blocks));
    jnode_set(a, n, STR("ipCooldownSeconds"), jnode_new_int(a, v->cooldown_s));
    jnode_set(a, n, STR("kubeVirtVMAddressPersistence"),
              jnode_new_str(a, v->vm_persistence ? STR("Enabled") : STR("Disabled")));
}

static int write_one(struct store *s, struct store_key key, struct jnode *doc,
                     const struct store_item *was, struct err *e) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(BLOCK_TEXT_MAX);
    json_write(&b, doc, 0);
    return store_put(s, key, buf_view(&b), was->revision, NULL, e);
}

/* The resource is kept in step if there is one: it is what people read. */
static int write_once(struct store *s, const struct ipam_settings *v, struct arena *a,
                      struct err *e) {
    struct store_item ci, ri;
    struct jnode *config, *resource;
    int r = read_one(s, resource_key(a), a, &ri, &resource, e);
    if (r == 0 && resource) {
        struct jnode *spec = jnode_getc(resource, "spec");
        if (!spec || spec->type != J_MAP) {
            spec = jnode_new(a, J_MAP);
            jnode_set(a, resource, STR("spec"), spec);
        }
        put_settings(a, spec, v, false);
        (void)jnode_del(jnode_getc(resource, "metadata"), STR("resourceVersion"));
        r = write_one(s, resource_key(a), resource, &ri, e);
    }
    r = r == 0 ? read_one(s, config_key(), a, &ci, &config, e) : r;
    if (r == 0) {
        config = config ? config : jnode_new(a, J_MAP);
        put_settings(a, config, v, true);
        r = write_one(s, config_key(), config, &ci, e);
    }
    return r;
}

int ipam_settings_write(struct store *s, const struct ipam_settings *v, struct err *e) {
    int r = 0;
    if (v->max_blocks && !v->strict_affinity) {
        return err_set(e, ERR_INVALID,
                       "maxBlocksPerHost %u needs strictAffinity: set --strictaffinity=true, too",
                       v->max_blocks);
    }
    for (int i = 0; i < IPAM_RETRIES; i++) {
        struct arena a = {0};
        r = write_once(s, v, &a, e);
        arena_fini(&a);
        if (!ipam_is_race(r)) {
            break;
        }
    }
    return r;
}
