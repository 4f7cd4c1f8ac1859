/* BGPFilter: rules on routes in and out, for each family, and what its fields need of each other.
 */
#include "model/schema.h"

#define ROW(n, t, text) NAMED(n), .type = (t), .doc = (text)
#define PRIORITY_RANGE .flags = FF_RANGE, .min = 1, .max = 2147483646

static const char *const SOURCES[] = {"RemotePeers", NULL};
static const char *const OPERATORS[] = {"Equal", "NotEqual", "In", "NotIn", NULL};
static const char *const PEER_TYPES[] = {"eBGP", "iBGP", NULL};
static const char *const ACTIONS[] = {"Accept", "Reject", NULL};

static const struct field LENGTH4_FIELDS[] = {
    {ROW("min", F_INT, "shortest"), .flags = FF_RANGE, .max = 32},
    {ROW("max", F_INT, "longest"), .flags = FF_RANGE, .max = 32},
};
static const struct field LENGTH6_FIELDS[] = {
    {ROW("min", F_INT, "shortest"), .flags = FF_RANGE, .max = 128},
    {ROW("max", F_INT, "longest"), .flags = FF_RANGE, .max = 128},
};
static const struct schema length4 = {.name = "BGPFilterPrefixLengthV4", FIELDS(LENGTH4_FIELDS)};
static const struct schema length6 = {.name = "BGPFilterPrefixLengthV6", FIELDS(LENGTH6_FIELDS)};

static const struct field COMMUNITY_FIELDS[] = {
    {ROW("values", F_STRS, "the community, one"), .flags = FF_REQUIRED | FF_RANGE, .min = 1,
     .max = 1, .check = CHECK_COMMUNITY},
};
static const struct schema community_match = {.name = "BGPFilterCommunityMatch",
                                              FIELDS(COMMUNITY_FIELDS)};

static const struct field ADD_FIELDS[] = {
    {ROW("value", F_STR, "community to add, aa:nn or aa:nn:mm"), .flags = FF_REQUIRED,
     .check = CHECK_COMMUNITY},
};
static const struct schema add_community = {.name = "BGPFilterAddCommunity", FIELDS(ADD_FIELDS)};

static const struct field PREPEND_FIELDS[] = {
    {ROW("prefix", F_INTS, "AS numbers, the first one outermost"), .flags = FF_REQUIRED | FF_RANGE,
     .min = 1, .max = 10, .check = CHECK_AS_NUMBER},
};
static const struct schema prepend = {.name = "BGPFilterPrependASPath", FIELDS(PREPEND_FIELDS)};

static const struct field SET_PRIORITY_FIELDS[] = {
    {ROW("value", F_INT, "route metric"), .flags = FF_REQUIRED | FF_RANGE, .min = 1,
     .max = 2147483646},
};
static const struct schema set_priority = {.name = "BGPFilterSetPriority",
                                           FIELDS(SET_PRIORITY_FIELDS)};

static const struct field OPERATION_FIELDS[] = {
    {ROW("addCommunity", F_OBJ, "add a community"), .sub = &add_community},
    {ROW("prependASPath", F_OBJ, "make the AS path longer"), .sub = &prepend},
    {ROW("setPriority", F_OBJ, "set the route's metric"), .sub = &set_priority},
};

static void operation_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    (void)out;
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(OPERATION_FIELDS); i++) {
        n += member(map, OPERATION_FIELDS[i].name) != NULL;
    }
    if (n != 1) {
        model_fail(c, at, map,
                   "found %zu operations, allowed is one of addCommunity, prependASPath and "
                   "setPriority: give each an entry of its own",
                   n);
    }
}
static const struct schema operation = {
    .name = "BGPFilterOperation", FIELDS(OPERATION_FIELDS), .rules = operation_rules};

/* Both families' rules differ in the prefix alone. */
#define RULE_FIELDS(check_net, net_len, length_schema)                                           \
    {ROW("cidr", F_STR, "routes of this prefix, as matchOperator says"), .max_len = (net_len),   \
     .check = (check_net)},                                                                      \
        {ROW("prefixLength", F_OBJ, "only prefixes so long; needs cidr"),                        \
         .sub = &(length_schema)},                                                               \
        {ROW("source", F_STR, "only routes learned from BGP peers"), .values = SOURCES},         \
        {ROW("interface", F_STR, "only routes over this interface; * stands for any text"),      \
         .max_len = 15, .check = CHECK_BGP_IFACE},                                               \
        {ROW("matchOperator", F_STR, "how cidr is compared; needs cidr"), .values = OPERATORS},  \
        {ROW("peerType", F_STR, "only towards or from such peers"), .values = PEER_TYPES},       \
        {ROW("communities", F_OBJ, "only routes with this community"), .sub = &community_match}, \
        {ROW("asPathPrefix", F_INTS, "only routes whose AS path begins so"),                     \
         .check = CHECK_AS_NUMBER},                                                              \
        {ROW("priority", F_INT, "only routes of this metric"), PRIORITY_RANGE},                  \
        {ROW("action", F_STR, "what happens to the route"), .flags = FF_REQUIRED,                \
         .values = ACTIONS},                                                                     \
    {                                                                                            \
        ROW("operations", F_OBJS, "changes to an accepted route"), .flags = FF_RANGE, .min = 1,  \
                                                                   .max = 10, .sub = &operation  \
    }

static const struct field RULE4_FIELDS[] = {RULE_FIELDS(CHECK_NET4, 18, length4)};
static const struct field RULE6_FIELDS[] = {RULE_FIELDS(CHECK_NET6, 43, length6)};

static void filter_rules(struct mctx *c, const struct at *at, struct jnode *rule, void *out) {
    (void)out;
    bool has_cidr = jnode_str(member(rule, "cidr")).n > 0;
    bool has_operator = jnode_str(member(rule, "matchOperator")).n > 0;
    if (has_cidr != has_operator) {
        model_fail_in(c, at, rule, has_cidr ? "matchOperator" : "cidr",
                      "is missing: cidr and matchOperator need each other");
    }
    if (member(rule, "prefixLength") && !has_cidr) {
        model_fail_in(c, at, rule, "prefixLength", "needs cidr");
    }
    if (member(rule, "operations") && str_is(jnode_str(member(rule, "action")), "Reject")) {
        model_fail_in(c, at, rule, "operations",
                      "not together with action Reject: a refused route can't be changed");
    }
}

static const struct schema rule4 = {
    .name = "BGPFilterRuleV4", FIELDS(RULE4_FIELDS), .rules = filter_rules};
static const struct schema rule6 = {
    .name = "BGPFilterRuleV6", FIELDS(RULE6_FIELDS), .rules = filter_rules};

static const struct field FILTER_FIELDS[] = {
    {ROW("exportV4", F_OBJS, "IPv4 routes that are announced"), .sub = &rule4},
    {ROW("importV4", F_OBJS, "IPv4 routes that come in"), .sub = &rule4},
    {ROW("exportV6", F_OBJS, "IPv6 routes that are announced"), .sub = &rule6},
    {ROW("importV6", F_OBJS, "IPv6 routes that come in"), .sub = &rule6},
};
static const struct schema filter_spec = {.name = "BGPFilterSpec", FIELDS(FILTER_FIELDS)};

static struct str count(const struct jnode *doc, const char *list, struct arena *a) {
    size_t n = 0;
    jnode_each (it, member(member(doc, "spec"), list)) {
        n++;
    }
    return arena_printf(a, "%zu", n);
}
#define COUNT(fn, list)                                                                   \
    static struct str fn(const struct jnode *doc, int64_t now_wall_ns, struct arena *a) { \
        (void)now_wall_ns;                                                                \
        return count(doc, list, a);                                                       \
    }
COUNT(n_export4, "exportV4")
COUNT(n_import4, "importV4")
COUNT(n_export6, "exportV6")
COUNT(n_import6, "importV6")

static const struct column FILTER_COLUMNS[] = {
    {"NAME", "metadata.name", NULL, false},  {"NUMEXPORTV4", NULL, n_export4, false},
    {"NUMIMPORTV4", NULL, n_import4, false}, {"NUMEXPORTV6", NULL, n_export6, false},
    {"NUMIMPORTV6", NULL, n_import6, false},
};

const struct kind_def def_bgp_filter = {
    .spec = &filter_spec,
    COLUMNS(FILTER_COLUMNS),
    .doc = "Rules on routes: the first one that matches decides. BGPPeers name the filters that "
           "hold for them.",
};
