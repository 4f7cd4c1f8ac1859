/* The schema tables' shape, and what the engine offers to the rules across fields. Only model/
 * includes it: model.h is the interface.
 *
 * A kind is a tree of struct schema. The engine (engine.c) walks a document along it once: checks
 * each value by its field's row, decodes it to the place in the C struct that the row names, fills
 * in defaults, then calls the schema's rules on the map that it has just read. */
#pragma once

#include "base/ip.h"
#include "model/model.h"

struct schema;
struct mctx;
struct at;

enum field_type {
    F_ANY, /* kept, never looked at */
    F_BOOL,
    F_INT,
    F_FLOAT,
    F_STR,
    F_STRS,       /* list of text */
    F_INTS,       /* list of whole numbers */
    F_STRMAP,     /* map of text to text */
    F_OBJ,        /* map with a schema of its own */
    F_OBJS,       /* list of such maps */
    F_PORTS,      /* list of Calico's ports: number, "a:b" or name -> LIST(struct port_spec) */
    F_PORT,       /* one of them, without a place */
    F_PROTOCOL,   /* number or name -> opt_int, uint8_t */
    F_INT_OR_STR, /* -> struct int_or_str */
    F_NET,        /* -> struct prefix */
    F_NETS,       /* -> LIST(struct prefix) */
    F_IPS,        /* -> LIST(struct ip46) */
};

/* How the value is put into the C struct, where the type alone leaves that open. */
enum field_as {
    AS_DEFAULT, /* F_BOOL bool, F_INT opt_int, F_FLOAT opt_float, F_STR str, F_STRS str_list, … */
    AS_OPT,     /* F_BOOL: opt_bool */
    AS_U8,
    AS_U16,
    AS_UNSIGNED,
    AS_I64,
    AS_INDEX, /* F_STR with values: index of the value, as an int */
    AS_BITS,  /* F_STRS with values: 1 << index of each, as an unsigned */
};

enum {
    FF_REQUIRED = 1 << 0,
    FF_RANGE = 1 << 1,  /* min..max hold: of a number, of the members of a list */
    FF_UNIQUE = 1 << 2, /* no member of the list may stand there twice */
    FF_FILL = 1 << 3,   /* MODEL_APPLY writes dflt into the document */
    FF_FLAT = 1 << 4,   /* F_OBJ: its fields' places are in the parent's struct */
    FF_ICASE = 1 << 5,  /* values in any case */
    FF_STATUS = 1 << 6, /* set by programs: any content is kept */
    FF_CHAR = 1 << 7,   /* max counts characters of a text */
};

/* What the text of an F_STR, or of each member of a list, must look like. */
enum check_id {
    CHECK_NONE,
    CHECK_NAME,        /* DNS-1123 subdomain */
    CHECK_LABEL,       /* DNS-1123 label */
    CHECK_SELECTOR,    /* Calico's selector, any */
    CHECK_SELECTOR1,   /* … without global() */
    CHECK_SELECTOR_NS, /* … global() alone or not at all */
    CHECK_NET,         /* strictly masked, with its prefix length */
    CHECK_NET4,
    CHECK_NET6,
    CHECK_NOT_NET, /* CHECK_NET, but not all addresses of a family */
    CHECK_CIDR,    /* address or prefix; host bits may be set */
    CHECK_IP,
    CHECK_IPV4,
    CHECK_IPV6,
    CHECK_IFACE,        /* 1..15 of A-Z a-z 0-9 _ . - */
    CHECK_HEP_IFACE,    /* CHECK_IFACE or * */
    CHECK_IFACE_FILTER, /* with one + at the end, or a regular expression between slashes */
    CHECK_BGP_IFACE,    /* with * anywhere */
    CHECK_PORT_NAME,    /* Kubernetes': at most 15, lower case */
    CHECK_MAC,
    CHECK_REGEXP,
    CHECK_DURATION,    /* 90s, 1m30s: no sign, no blanks */
    CHECK_GO_DURATION, /* what Go's time.ParseDuration takes */
    CHECK_KEY_VALUES,  /* a=b,c=d */
    CHECK_BOOL_VALUES, /* a=true,b=false, */
    CHECK_AS_NUMBER,
    CHECK_COMMUNITY, /* a:b of 16 bits, a:b:c of 32 bits */
    CHECK_IP_PORT,   /* address, a.b.c.d:port, [v6]:port */
    CHECK_LOG_PREFIX,
    CHECK_LOG_RATE,
    CHECK_DSCP,
    CHECK_CT_TIMEOUT, /* duration or Auto */
    CHECK_LABEL_KEY,
    CHECK_LABEL_VALUE,
    CHECK_LABELS, /* F_STRMAP: label keys and values */
    CHECK_HOST,   /* host name or address */
    CHECK_HTTP_PATH,
};

struct field {
    const char *name;
    uint8_t name_len;
    enum field_type type;
    uint32_t at; /* AT(struct, member); 0: no place */
    enum field_as as;
    unsigned flags;
    enum check_id check;
    int64_t min, max;
    uint32_t max_len;          /* of a text, in bytes; 0: none of its own */
    const char *const *values; /* allowed texts, NULL-terminated */
    const struct schema *sub;  /* F_OBJ, F_OBJS */
    const char *dflt;          /* as people write it; JSON with FF_FILL */
    const char *doc;
};

/* Offset plus one, so that rows without a place are 0. */
#define AT(T, m) ((uint32_t)offsetof(T, m) + 1)
#define NAMED(n) .name = (n), .name_len = sizeof(n) - 1

/* Called on each map read, after its fields; out is the C struct or NULL. */
typedef void (*schema_rules)(struct mctx *c, const struct at *at, struct jnode *map, void *out);

struct schema {
    const char *name; /* Calico's name of the type, for the reference */
    const struct field *fields;
    size_t n_fields;
    size_t size;     /* of the C struct; F_OBJS */
    uint32_t set_at; /* AT() of a bool that says "present"; 0: none */
    bool is_open;    /* unknown fields are kept, never an error */
    schema_rules rules;
    uint32_t broken_at;     /* AT() of a bool that says "has errors"; 0: none */
    uint32_t own_broken_at; /* AT() of a bool that says "has errors that are in no member which says
                               so itself"; 0: none */
};
enum { SCHEMA_MAX_FIELDS = 256 };
#define FIELDS(a) .fields = (a), .n_fields = sizeof(a) / sizeof((a)[0])

enum name_rule {
    NAME_SUBDOMAIN, /* DNS-1123 subdomain, 253 bytes */
    NAME_LABEL,     /* DNS-1123 label, 63 bytes */
    NAME_LABEL_1035,
    NAME_POLICY,
    NAME_GLOBAL_POLICY,
    NAME_DEFAULT, /* only "default" */
};

/* One column of a table. path is of the first value that exists among those separated by blanks;
 * fn (columns.c) makes cells that are no plain text. */
struct column {
    const char *head;
    const char *path;
    struct str (*fn)(const struct jnode *doc, int64_t now_wall_ns, struct arena *a);
    bool is_wide; /* only in the wide table */
};

struct kind_def {
    const struct schema *spec; /* of spec; NULL: the kind has none */
    const struct schema *top;  /* the document's own members beside apiVersion, kind, metadata and
                                  spec (EndpointSlice, Secret, status) */
    size_t size;               /* of the decoded struct, 0: none */
    enum name_rule name;
    bool is_spec_required;
    const struct column *columns;
    size_t n_columns;
    const char *doc; /* one paragraph */
};
#define COLUMNS(a) .columns = (a), .n_columns = sizeof(a) / sizeof((a)[0])

/* The columns of a kind's tables. */
const struct column *kind_column_rows(const struct kind *k, size_t *n);

/* Where the walk is; on the stack, so that a path costs nothing until an error prints it. */
struct at {
    const struct at *up;
    struct str name; /* member; p NULL: a list's index */
    size_t i;
};

struct mctx {
    enum model_mode mode;
    struct arena *a;
    struct object *obj;
    struct model_errors *errs;
    size_t n_failed;
    size_t n_contained; /* of them, in maps that say so by broken_at */
};

/* Notes an error at the place of `node` (NULL: unknown line). */
void model_fail(struct mctx *c, const struct at *at, const struct jnode *node, const char *fmt, ...)
    MG_PRINTF(4, 5);
/* The same, of a member of the map at `at`; the line is the member's, or the map's without one. */
void model_fail_in(struct mctx *c, const struct at *at, const struct jnode *map, const char *name,
                   const char *fmt, ...) MG_PRINTF(5, 6);
/* The value for an error's text: quoted, cut, printable. Lives in the arena. */
const char *model_found(struct mctx *c, const struct jnode *n);
/* "a, b or c" of a NULL-terminated list. */
const char *model_choices(struct arena *a, const char *const *values);

/* Reads one map along its schema. out may be NULL. */
void schema_read(struct mctx *c, const struct schema *s, const struct at *at, struct jnode *map,
                 void *out);
/* Index of the field, or -1; *hint is where to look first, and moves on. */
int schema_find(const struct schema *s, struct str name, size_t *hint);
/* One field of the struct out from n, which is at `at`. */
void field_read(struct mctx *c, const struct field *f, const struct at *at, struct jnode *n,
                void *out);
/* Member of a map that is there and not null. */
struct jnode *member(const struct jnode *map, const char *name);
/* Adds a member that the document lacks (MODEL_APPLY). value is JSON. */
void model_fill(struct mctx *c, struct jnode *map, const char *name, const char *json);

/* meta.c */
void meta_read(struct mctx *c, const struct at *at, struct jnode *doc, struct str default_ns);
struct str_map strmap_read(struct mctx *c, const struct at *at, const struct jnode *map);
void labels_check(struct mctx *c, const struct at *at, const struct jnode *map);
void annotations_check(struct mctx *c, const struct at *at, const struct jnode *map);

/* check.c: NULL if the text is fine, else what is allowed ("a prefix such as 10.0.0.0/8"). e_text
 * has room for a message of a selector. */
const char *check_text(enum check_id id, struct str s, struct arena *a);
bool is_dns_label(struct str s, size_t max);
bool is_dns_subdomain(struct str s);
bool is_port_name(struct str s); /* of a Calico rule: 1..128 of A-Z a-z 0-9 _ . - */
bool is_label_key(struct str s);
bool is_label_value(struct str s);
/* One port as written: number, "a:b", name. False with *why set. */
struct port_spec;
bool port_read(const struct jnode *n, struct port_spec *out, const char **why);
/* IANA number of a protocol, number or name; -1 if it is none. */
int protocol_read(const struct jnode *n);
/* Most alike of n names (at most two edits away, or a third of it), or NULL. */
const char *nearest_name(struct str word, const char *(*name)(const void *arg, size_t i),
                         const void *arg, size_t n);

/* The kinds' definitions (kinds_*.c). */
extern const struct kind_def def_namespace, def_pod, def_service_account, def_service, def_node_k8s,
    def_secret, def_lease, def_endpoint_slice, def_k8s_network_policy, def_cluster_network_policy,
    def_admin_network_policy, def_baseline_admin_network_policy;
extern const struct kind_def def_network_policy, def_global_network_policy,
    def_staged_network_policy, def_staged_global_network_policy,
    def_staged_kubernetes_network_policy, def_profile, def_tier, def_network_set,
    def_global_network_set, def_host_endpoint, def_workload_endpoint;
extern const struct kind_def def_ip_pool, def_ip_reservation, def_ipam_configuration,
    def_block_affinity;
extern const struct kind_def def_bgp_configuration, def_bgp_filter, def_bgp_peer,
    def_calico_node_status, def_cluster_information, def_felix_configuration,
    def_kube_controllers_configuration, def_node;

/* Rules across fields (rules_*.c). */
void rule_rules_in(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void rule_rules_out(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void rule_rules_profile(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void policy_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void staged_k8s_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void http_path_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void http_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void icmp_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void service_match_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void rule_metadata_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void profile_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void tier_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void host_endpoint_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void network_set_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void endpoint_port_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void k8s_pod_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void k8s_node_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void k8s_service_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void k8s_service_port_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void k8s_slice_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void k8s_slice_port_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void k8s_policy_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void k8s_peer_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void k8s_port_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void k8s_requirement_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void k8s_ip_block_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void ip_pool_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void block_affinity_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);
void ipam_configuration_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out);

/* Shared schemas. */
extern const struct schema schema_label_selector;
extern const struct schema schema_k8s_ingress_rule, schema_k8s_egress_rule;
extern const struct field model_slice_endpoints; /* read when the addresses are IPs */
