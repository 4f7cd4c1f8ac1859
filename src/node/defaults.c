/* See defaults.h. Source of names and values: libcalico-go/lib/clientv3, EnsureInitialized. */
#include "node/defaults.h"

#include "base/clock.h"
#include "base/hash.h"
#include "model/model.h"
#include "store/worker.h"

#include <sys/random.h>

#include <stdio.h>
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
static int make_pool(struct store *s, struct err *e) {
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

/* Puts it if nothing of that name is there. */
static int make(struct store *s, enum kind_id id, const char *name, struct str spec,
                struct err *e) {
    struct arena a = {0};
    const struct kind *k = &model_kinds[id];
    char stamp[32], uid[UUID_TEXT];
    uuid_v4(uid);
    struct str text = arena_printf(
        &a,
        "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"%s\",\"metadata\":{\"name\":\"%s\","
        "\"uid\":\"%s\",\"creationTimestamp\":\"%s\"},\"spec\":%.*s}",
        k->kind, name, uid, clock_rfc3339(clock_wall_ns(), stamp), STR_FMT(spec));
    struct store_key key = {STR(STORE_SPACE_RESOURCES),
                            kind_store_key(k, STR(""), str_c(name), &a)};
    struct store_item it;
    int r = store_get(s, key, &a, &it, e);
    if (r == ERR_NOT_FOUND) {
        r = store_put(s, key, text, REV_NONE, NULL, e);
    }
    arena_fini(&a);
    return r == ERR_EXISTS ? 0 : r;
}

static int make_cluster(struct store *s, struct err *e) {
    static const struct {
        const char *name, *spec;
    } tiers[] = {{"default", "{\"order\":1000000,\"defaultAction\":\"Deny\"}"},
                 {"kube-admin", "{\"order\":1000,\"defaultAction\":\"Pass\"}"},
                 {"kube-baseline", "{\"order\":10000000,\"defaultAction\":\"Pass\"}"}};
    uint8_t guid[16];
    char hex[33], spec[256];
    if (getrandom(guid, sizeof(guid), 0) != (ssize_t)sizeof(guid)) {
        return err_set(e, -errno, "no random numbers for the cluster's GUID");
    }
    hex_encode(guid, sizeof(guid), hex);
    (void)snprintf(spec, sizeof(spec),
                   "{\"clusterGUID\":\"%s\",\"clusterType\":\"%s\",\"datastoreReady\":true}", hex,
                   env_or("CLUSTER_TYPE", "k8s"));
    int r = make(s, K_CLUSTER_INFORMATION, "default", str_c(spec), e);
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(tiers); i++) {
        r = make(s, K_TIER, tiers[i].name, str_c(tiers[i].spec), e);
    }
    return r;
}

int defaults_make(struct store *s, struct err *e) {
    int r = store_is_quick(s) ? 0 : make_cluster(s, e);
    return r < 0 ? r : make_pool(s, e);
}
