#include "node/defaults.h"

#include "base/clock.h"
#include "base/hash.h"
#include "model/model.h"

#include <stdlib.h>

static const char *env_or(const char *name, const char *deflt) {
    const char *v = getenv(name);
    return v && v[0] ? v : deflt;
}

struct pool_seen {
    bool has[2];
};
static int see_pool(void *arg, const struct store_item *it) {
    struct pool_seen *p = arg;
    struct arena a = {0};
    struct jnode *doc = NULL;
    struct err e;
    if (json_parse(it->value, &json_limits_default, &a, &doc, &e) == 0) {
        struct str cidr = jnode_str(jnode_path(doc, "spec.cidr"));
        p->has[0] = p->has[0] || str_find(cidr, ':', 0) < 0;
        p->has[1] = p->has[1] || str_find(cidr, ':', 0) >= 0;
    }
    arena_fini(&a);
    return 0;
}

/* calico/node's default pool: only if no pool of the family is there. */
int default_pool_make(struct store *s, struct err *e) {
    const char *cidr = env_or("CALICO_IPV4POOL_CIDR", "192.168.0.0/16");
    if (strcmp(env_or("NO_DEFAULT_POOLS", "false"), "true") == 0 || strcmp(cidr, "none") == 0) {
        return 0;
    }
    struct arena a = {0};
    const struct kind *k = &model_kinds[K_IP_POOL];
    struct str prefix = arena_printf(&a, "%s/", kind_store_name(k));
    struct pool_seen seen = {{false, false}};
    int r = store_list(s, (struct store_key){STR(STORE_SPACE_RESOURCES), prefix}, NULL, see_pool,
                       &seen, e);
    if (r == 0 && !seen.has[0]) {
        char stamp[32], uid[UUID_TEXT];
        uuid_v4(uid);
        struct str text = arena_printf(
            &a,
            "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"IPPool\",\"metadata\":{\"name\":"
            "\"default-ipv4-ippool\",\"uid\":\"%s\","
            "\"creationTimestamp\":\"%s\"},\"spec\":{\"cidr\":\"%s\",\"blockSize\":%s,"
            "\"ipipMode\":\"%s\",\"vxlanMode\":\"%s\",\"natOutgoing\":%s,\"nodeSelector\":\"%s\","
            "\"allowedUses\":[\"Workload\",\"Tunnel\"],\"assignmentMode\":\"Automatic\"}}",
            uid, clock_rfc3339(clock_wall_ns(), stamp), cidr,
            env_or("CALICO_IPV4POOL_BLOCK_SIZE", "26"), env_or("CALICO_IPV4POOL_IPIP", "Never"),
            env_or("CALICO_IPV4POOL_VXLAN", "Never"),
            env_or("CALICO_IPV4POOL_NAT_OUTGOING", "true"),
            env_or("CALICO_IPV4POOL_NODE_SELECTOR", "all()"));
        struct jnode *doc = NULL;
        struct object o;
        struct model_errors errs = {.a = &a};
        r = json_parse(text, &json_limits_default, &a, &doc, e);
        if (r == 0 && (r = object_read(doc, MODEL_APPLY, STR(""), &a, &o, &errs)) < 0) {
            r = err_set(e, r, "default pool from CALICO_IPV4POOL_… : %.*s: %.*s",
                        STR_FMT(errs.p[0].path), STR_FMT(errs.p[0].message));
        }
        if (r == 0) {
            struct store_key key = {STR(STORE_SPACE_RESOURCES),
                                    kind_store_key(k, STR(""), STR("default-ipv4-ippool"), &a)};
            r = store_put(s, key, text, REV_NONE, NULL, e);
            r = r == ERR_EXISTS ? 0 : r;
        }
    }
    arena_fini(&a);
    return r;
}
