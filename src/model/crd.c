/* CustomResourceDefinitions, from the same tables that the engine checks documents by: types,
 * enums, patterns, ranges, lengths, required fields, and the defaults that Calico's client would
 * fill in. A schema never refuses what the engine accepts: rules across fields and what a pattern
 * can't say stay with the engine. */
#include "model/schema.h"

#define GROUP "crd.projectcalico.org"
enum { MAX_DEPTH = 24, CRD_BYTES_MAX = 200 * 1000 };

/* ---- the CRDs ---- */

struct crd {
    const char *plural, *kind;
    enum kind_id id;  /* whose table; K_N_KINDS: json */
    const char *spec; /* the schema of spec as JSON */
    bool has_status;
};

#define TEXT "{\"type\":\"string\"}"
#define WHOLE "{\"type\":\"integer\",\"format\":\"int64\"}"
#define YES_NO "{\"type\":\"boolean\"}"
#define TEXTS "{\"type\":\"object\",\"additionalProperties\":" TEXT "}"

static const char BLOCK[] =
    "{\"type\":\"object\",\"required\":[\"allocations\",\"attributes\",\"cidr\","
    "\"strictAffinity\",\"unallocated\"],\"properties\":{"
    "\"cidr\":{\"type\":\"string\",\"description\":\"the block's prefix\","
    "\"pattern\":\"^[0-9A-Fa-f:.]+/[0-9]{1,3}$\"},"
    "\"affinity\":{\"type\":\"string\",\"description\":\"its owner, such as host:NODE\"},"
    "\"affinityClaimTime\":{\"type\":\"string\",\"format\":\"date-time\"},"
    "\"allocations\":{\"type\":\"array\",\"maxItems\":4096,\"description\":\"of each address the "
    "index of its attributes, null: free\",\"items\":{\"type\":\"integer\",\"nullable\":true}},"
    "\"unallocated\":{\"type\":\"array\",\"maxItems\":4096,\"description\":\"free addresses, the "
    "first is the next\",\"items\":{\"type\":\"integer\"}},"
    "\"attributes\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{"
    "\"handle_id\":" TEXT ",\"secondary\":" TEXTS ",\"alternateOwnerAttrs\":" TEXTS
    ",\"releasedAt\":{\"type\":\"string\",\"format\":\"date-time\"}}}},"
    "\"sequenceNumber\":{\"type\":\"integer\",\"format\":\"int64\",\"default\":0},"
    "\"sequenceNumberForAllocation\":{\"type\":\"object\",\"additionalProperties\":" WHOLE "},"
    "\"deleted\":" YES_NO ",\"strictAffinity\":" YES_NO "}}";
static const char AFFINITY[] =
    "{\"type\":\"object\",\"required\":[\"cidr\",\"deleted\",\"node\",\"state\"],\"properties\":{"
    "\"cidr\":" TEXT ",\"node\":" TEXT ",\"state\":" TEXT ",\"type\":" TEXT
    ",\"deleted\":{\"type\":\"string\",\"description\":\"true: it is being deleted\"}}}";
static const char HANDLE[] =
    "{\"type\":\"object\",\"required\":[\"block\",\"handleID\"],\"properties\":{"
    "\"handleID\":" TEXT ",\"block\":{\"type\":\"object\",\"description\":\"addresses by "
    "block\",\"additionalProperties\":{\"type\":\"integer\"}},\"deleted\":" YES_NO "}}";

static const struct crd CRDS[] = {
    {"bgpconfigurations", "BGPConfiguration", K_BGP_CONFIGURATION, NULL, false},
    {"bgpfilters", "BGPFilter", K_BGP_FILTER, NULL, false},
    {"bgppeers", "BGPPeer", K_BGP_PEER, NULL, false},
    {"blockaffinities", "BlockAffinity", K_N_KINDS, AFFINITY, false},
    {"caliconodestatuses", "CalicoNodeStatus", K_CALICO_NODE_STATUS, NULL, true},
    {"clusterinformations", "ClusterInformation", K_CLUSTER_INFORMATION, NULL, false},
    {"felixconfigurations", "FelixConfiguration", K_FELIX_CONFIGURATION, NULL, false},
    {"globalnetworkpolicies", "GlobalNetworkPolicy", K_GLOBAL_NETWORK_POLICY, NULL, false},
    {"globalnetworksets", "GlobalNetworkSet", K_GLOBAL_NETWORK_SET, NULL, false},
    {"hostendpoints", "HostEndpoint", K_HOST_ENDPOINT, NULL, false},
    {"ipamblocks", "IPAMBlock", K_N_KINDS, BLOCK, false},
    {"ipamconfigs", "IPAMConfig", K_IPAM_CONFIGURATION, NULL, false},
    {"ipamhandles", "IPAMHandle", K_N_KINDS, HANDLE, false},
    {"ippools", "IPPool", K_IP_POOL, NULL, true},
    {"ipreservations", "IPReservation", K_IP_RESERVATION, NULL, false},
    {"kubecontrollersconfigurations", "KubeControllersConfiguration",
     K_KUBE_CONTROLLERS_CONFIGURATION, NULL, true},
    {"networkpolicies", "NetworkPolicy", K_NETWORK_POLICY, NULL, false},
    {"networksets", "NetworkSet", K_NETWORK_SET, NULL, false},
    {"stagedglobalnetworkpolicies", "StagedGlobalNetworkPolicy", K_STAGED_GLOBAL_NETWORK_POLICY,
     NULL, false},
    {"stagedkubernetesnetworkpolicies", "StagedKubernetesNetworkPolicy",
     K_STAGED_KUBERNETES_NETWORK_POLICY, NULL, false},
    {"stagednetworkpolicies", "StagedNetworkPolicy", K_STAGED_NETWORK_POLICY, NULL, false},
    {"tiers", "Tier", K_TIER, NULL, true},
};

const char *crd_plural(size_t i) {
    return i < sizeof(CRDS) / sizeof(CRDS[0]) ? CRDS[i].plural : NULL;
}

/* ---- schemas ---- */

static void put_text(struct arena *a, struct jnode *map, const char *name, struct str s) {
    jnode_set(a, map, str_c(name), jnode_new_str(a, s));
}
static void put_type(struct arena *a, struct jnode *map, const char *type) {
    put_text(a, map, "type", str_c(type));
}
static void put_int(struct arena *a, struct jnode *map, const char *name, int64_t i) {
    jnode_set(a, map, str_c(name), jnode_new_int(a, i));
}
static struct jnode *put_map(struct arena *a, struct jnode *map, const char *name) {
    struct jnode *n = jnode_new(a, J_MAP);
    jnode_set(a, map, str_c(name), n);
    return n;
}
static void put_flag(struct arena *a, struct jnode *map, const char *name) {
    jnode_set(a, map, str_c(name), jnode_new_bool(a, true));
}

/* Coarse looks of texts; each accepts all that check_text does. */
static const char *pattern_of(enum check_id id) {
    switch (id) {
    case CHECK_NET:
    case CHECK_NET4:
    case CHECK_NET6:
    case CHECK_NOT_NET:
        return "[0-9A-Fa-f:.]+/[0-9]{1,3}";
    case CHECK_CIDR:
        return "[0-9A-Fa-f:.]+(/[0-9]{1,3})?";
    case CHECK_IP:
        return "[0-9A-Fa-f:.]+";
    case CHECK_IPV4:
        return "[0-9]{1,3}(\\.[0-9]{1,3}){3}";
    case CHECK_IPV6:
        return "[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*";
    case CHECK_IFACE:
        return "[A-Za-z0-9_.-]{1,15}";
    case CHECK_HEP_IFACE:
        return "(\\*|[A-Za-z0-9_.-]{1,15})";
    case CHECK_COMMUNITY:
        return "[0-9]+:[0-9]+(:[0-9]+)?";
    case CHECK_NAME:
        return "[a-z0-9]([a-z0-9.-]*[a-z0-9])?";
    case CHECK_LABEL:
        return "[a-z0-9]([a-z0-9-]*[a-z0-9])?";
    case CHECK_PORT_NAME:
        return "[a-z0-9-]{1,15}";
    default:
        return NULL;
    }
}

/* Enum, pattern and length of a text. is_optional: empty stands for "not given". */
static void put_look(struct arena *a, struct jnode *n, const struct field *f, bool is_optional) {
    const char *p = f->values ? NULL : pattern_of(f->check);
    if (f->values && (f->flags & FF_ICASE)) {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
        for (size_t i = 0; f->values[i]; i++) {
            buf_printf(&b, "%s%s", i ? "|" : "", f->values[i]);
        }
        put_text(a, n, "pattern",
                 arena_printf(a, "^(?i)(%s)%s$", buf_cstr(&b), is_optional ? "?" : ""));
    } else if (f->values) {
        struct jnode *list = jnode_new(a, J_LIST);
        for (size_t i = 0; f->values[i]; i++) {
            jnode_append(list, jnode_new_str(a, str_c(f->values[i])));
        }
        if (is_optional) {
            jnode_append(list, jnode_new_str(a, STR("")));
        }
        jnode_set(a, n, STR("enum"), list);
    }
    if (p) {
        put_text(a, n, "pattern", arena_printf(a, is_optional ? "^(%s)?$" : "^%s$", p));
    }
    if (f->max_len && !f->values) {
        put_int(a, n, "maxLength", f->max_len);
    }
}

static struct jnode *schema_of(struct arena *a, const struct schema *s, unsigned depth);

static void put_items(struct arena *a, struct jnode *n, const struct field *f,
                      struct jnode *items) {
    put_type(a, n, "array");
    jnode_set(a, n, STR("items"), items);
    if (f->flags & FF_RANGE) {
        if (f->min > 0) {
            put_int(a, n, "minItems", f->min);
        }
        put_int(a, n, "maxItems", f->max);
    }
}

static struct jnode *text_item(struct arena *a, const struct field *f) {
    struct jnode *n = jnode_new(a, J_MAP);
    put_type(a, n, "string");
    put_look(a, n, f, false);
    return n;
}

static struct jnode *int_or_text(struct arena *a) {
    struct jnode *n = jnode_new(a, J_MAP);
    put_flag(a, n, "x-kubernetes-int-or-string");
    return n;
}

static void put_whole(struct arena *a, struct jnode *n, const struct field *f) {
    if (f->check == CHECK_AS_NUMBER) { /* also as two numbers with a dot between them */
        put_flag(a, n, "x-kubernetes-int-or-string");
        return;
    }
    put_type(a, n, "integer");
    if (f->flags & FF_RANGE) {
        put_int(a, n, "minimum", f->min);
        put_int(a, n, "maximum", f->max);
    }
}

/* Lists and single values whose members are numbers or texts. */
static void put_plain(struct arena *a, struct jnode *n, const struct field *f) {
    struct jnode *item;
    switch (f->type) {
    case F_BOOL:
        put_type(a, n, "boolean");
        break;
    case F_INT:
        put_whole(a, n, f);
        break;
    case F_FLOAT:
        put_type(a, n, "number");
        break;
    case F_STR:
    case F_NET:
        put_type(a, n, "string");
        put_look(a, n, f, f->type == F_STR && !(f->flags & FF_REQUIRED));
        break;
    case F_STRS:
    case F_NETS:
    case F_IPS:
        put_items(a, n, f, text_item(a, f));
        break;
    case F_INTS:
        item = f->check == CHECK_AS_NUMBER ? int_or_text(a) : jnode_new(a, J_MAP);
        if (f->check != CHECK_AS_NUMBER) {
            put_type(a, item, "integer");
        }
        put_items(a, n, f, item);
        break;
    case F_PORTS:
        put_items(a, n, f, int_or_text(a));
        break;
    case F_STRMAP:
        put_type(a, n, "object");
        put_type(a, put_map(a, n, "additionalProperties"), "string");
        break;
    default: /* F_PORT, F_PROTOCOL, F_INT_OR_STR */
        put_flag(a, n, "x-kubernetes-int-or-string");
        break;
    }
}

static struct jnode *field_schema(struct arena *a, const struct field *f, unsigned depth) {
    struct jnode *n = jnode_new(a, J_MAP), *dflt = NULL;
    if (f->doc) {
        put_text(a, n, "description", str_c(f->doc));
    }
    if (f->type == F_ANY || (f->flags & FF_STATUS) || depth == MAX_DEPTH) {
        put_flag(a, n, "x-kubernetes-preserve-unknown-fields");
        return n;
    }
    if (f->type == F_OBJ) {
        struct jnode *sub = schema_of(a, f->sub, depth + 1);
        for (struct jnode *it = sub->child, *next; it; it = next) {
            next = it->next;
            it->next = NULL;
            jnode_set(a, n, it->key, it);
        }
    } else if (f->type == F_OBJS) {
        put_items(a, n, f, schema_of(a, f->sub, depth + 1));
    } else {
        put_plain(a, n, f);
    }
    if ((f->flags & FF_FILL) && f->dflt &&
        json_parse(str_c(f->dflt), &json_limits_default, a, &dflt, NULL) == 0) {
        jnode_set(a, n, STR("default"), dflt);
    }
    return n;
}

static struct jnode *schema_of(struct arena *a, const struct schema *s, unsigned depth) {
    struct jnode *n = jnode_new(a, J_MAP), *required = jnode_new(a, J_LIST);
    put_type(a, n, "object");
    if (s->n_fields) {
        struct jnode *props = put_map(a, n, "properties");
        for (size_t i = 0; i < s->n_fields; i++) {
            const struct field *f = &s->fields[i];
            jnode_set(a, props, str_c(f->name), field_schema(a, f, depth));
            if (f->flags & FF_REQUIRED) {
                jnode_append(required, jnode_new_str(a, str_c(f->name)));
            }
        }
    }
    if (required->n) {
        jnode_set(a, n, STR("required"), required);
    }
    if (s->is_open) {
        put_flag(a, n, "x-kubernetes-preserve-unknown-fields");
    }
    return n;
}

/* ---- the document ---- */

static const struct field *top_field(const struct kind *k, const char *name) {
    for (size_t i = 0; k->def->top && i < k->def->top->n_fields; i++) {
        if (strcmp(k->def->top->fields[i].name, name) == 0) {
            return &k->def->top->fields[i];
        }
    }
    return NULL;
}

static struct jnode *open_object(struct arena *a) {
    struct jnode *n = jnode_new(a, J_MAP);
    put_type(a, n, "object");
    put_flag(a, n, "x-kubernetes-preserve-unknown-fields");
    return n;
}

static struct jnode *object_schema(struct arena *a, const struct crd *c) {
    struct jnode *n = jnode_new(a, J_MAP), *spec = NULL;
    const struct kind *k = c->id == K_N_KINDS ? NULL : &model_kinds[c->id];
    put_type(a, n, "object");
    struct jnode *props = put_map(a, n, "properties");
    put_type(a, put_map(a, props, "apiVersion"), "string");
    put_type(a, put_map(a, props, "kind"), "string");
    put_type(a, put_map(a, props, "metadata"), "object");
    if (c->spec) {
        int r = json_parse(str_c(c->spec), &json_limits_default, a, &spec, NULL);
        mg_assert(r == 0);
    } else {
        spec = k->def->spec ? schema_of(a, k->def->spec, 0) : open_object(a);
    }
    if (k && k->def->doc) {
        put_text(a, n, "description", str_c(k->def->doc));
    }
    jnode_set(a, props, STR("spec"), spec);
    if (c->has_status) {
        const struct field *f = k ? top_field(k, "status") : NULL;
        bool is_closed = f && f->type == F_OBJ && f->sub && !(f->flags & FF_STATUS);
        jnode_set(a, props, STR("status"), is_closed ? schema_of(a, f->sub, 0) : open_object(a));
    }
    return n;
}

static const char *column_type(const struct crd *c, const char *path) {
    const struct schema *s = model_kinds[c->id].def->spec;
    struct str rest = str_c(path);
    (void)str_cut(&rest, '.'); /* spec */
    const struct field *f = NULL;
    while (s && rest.p) {
        struct str part = str_cut(&rest, '.');
        size_t hint = 0;
        int i = schema_find(s, part, &hint);
        f = i >= 0 ? &s->fields[i] : NULL;
        s = f ? f->sub : NULL;
    }
    return !f                                                ? "string"
           : f->type == F_BOOL                               ? "boolean"
           : f->type == F_INT && f->check != CHECK_AS_NUMBER ? "integer"
           : f->type == F_FLOAT                              ? "number"
                                                             : "string";
}

static void put_columns(struct arena *a, struct jnode *version, const struct crd *c) {
    struct jnode *list = jnode_new(a, J_LIST);
    size_t n = 0;
    const struct column *rows = kind_column_rows(&model_kinds[c->id], &n);
    for (size_t i = 0; i < n; i++) {
        const struct column *r = &rows[i];
        bool is_plain =
            r->path && !r->fn && strncmp(r->path, "spec.", 5) == 0 && !strchr(r->path, ' ');
        if (!is_plain) {
            continue;
        }
        struct jnode *col = jnode_new(a, J_MAP);
        put_text(a, col, "name", str_c(r->head));
        put_type(a, col, column_type(c, r->path));
        put_text(a, col, "jsonPath", arena_printf(a, ".%s", r->path));
        if (r->is_wide) {
            put_int(a, col, "priority", 1);
        }
        jnode_append(list, col);
    }
    struct jnode *age = jnode_new(a, J_MAP);
    put_text(a, age, "name", STR("AGE"));
    put_type(a, age, "date");
    put_text(a, age, "jsonPath", STR(".metadata.creationTimestamp"));
    jnode_append(list, age);
    jnode_set(a, version, STR("additionalPrinterColumns"), list);
}

static struct str lower(struct arena *a, const char *s) {
    size_t n = strlen(s);
    char *p = arena_alloc(a, n + 1);
    for (size_t i = 0; i < n; i++) {
        p[i] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] + 32) : s[i];
    }
    return str_n(p, n);
}

static struct jnode *document(struct arena *a, const struct crd *c) {
    const struct kind *k = c->id == K_N_KINDS ? NULL : &model_kinds[c->id];
    struct jnode *d = jnode_new(a, J_MAP), *versions = jnode_new(a, J_LIST);
    struct jnode *v = jnode_new(a, J_MAP);
    put_text(a, d, "apiVersion", STR("apiextensions.k8s.io/v1"));
    put_text(a, d, "kind", STR("CustomResourceDefinition"));
    put_text(a, put_map(a, d, "metadata"), "name", arena_printf(a, "%s." GROUP, c->plural));
    struct jnode *spec = put_map(a, d, "spec");
    put_text(a, spec, "group", STR(GROUP));
    struct jnode *names = put_map(a, spec, "names");
    put_text(a, names, "kind", str_c(c->kind));
    put_text(a, names, "listKind", arena_printf(a, "%sList", c->kind));
    put_text(a, names, "plural", str_c(c->plural));
    put_text(a, names, "singular", lower(a, c->kind));
    put_text(a, spec, "scope", k && k->is_namespaced ? STR("Namespaced") : STR("Cluster"));
    put_text(a, v, "name", STR("v1"));
    put_flag(a, v, "served");
    put_flag(a, v, "storage");
    jnode_set(a, put_map(a, v, "schema"), STR("openAPIV3Schema"), object_schema(a, c));
    if (c->has_status) {
        (void)put_map(a, put_map(a, v, "subresources"), "status");
    }
    if (k) {
        put_columns(a, v, c);
    }
    jnode_append(versions, v);
    jnode_set(a, spec, STR("versions"), versions);
    return d;
}

bool crd_print(struct str plural, struct buf *b) {
    for (size_t i = 0; i < sizeof(CRDS) / sizeof(CRDS[0]); i++) {
        struct arena a = {0};
        size_t before = b->n;
        if (!str_is(plural, CRDS[i].plural)) {
            continue;
        }
        yaml_write(b, document(&a, &CRDS[i]));
        arena_fini(&a);
        mg_assert(b->n - before < CRD_BYTES_MAX);
        return true;
    }
    return false;
}

/* ---- what is not written ---- */

static void omit_empty(const struct schema *s, struct jnode *map) {
    size_t hint = 0;
    for (struct jnode *it = map->child, *next; it; it = next) {
        next = it->next;
        int i = schema_find(s, it->key, &hint);
        const struct field *f = i >= 0 ? &s->fields[i] : NULL;
        bool is_text = f && (f->type == F_STR || f->type == F_NET);
        if (it->type == J_NULL ||
            (it->type == J_STR && it->s.n == 0 && is_text && !(f->flags & FF_REQUIRED))) {
            (void)jnode_del(map, it->key);
        } else if (f && f->type == F_OBJ && it->type == J_MAP) {
            omit_empty(f->sub, it);
        } else if (f && f->type == F_OBJS && it->type == J_LIST) {
            jnode_each (item, it) {
                if (item->type == J_MAP) {
                    omit_empty(f->sub, item);
                }
            }
        }
    }
}

void kind_omit_empty(const struct kind *k, struct jnode *spec) {
    if (k->def->spec && spec && spec->type == J_MAP) {
        omit_empty(k->def->spec, spec);
    }
}
