/* What the BGP speaker is told: BGPConfiguration and BGPPeer, with their rules across fields. */
#include "model/schema.h"

#include <inttypes.h>

#define ROW(n, t, text) NAMED(n), .type = (t), .doc = (text)
#define PRIORITY(n, text) \
    { ROW(n, F_INT, text), .flags = FF_RANGE, .min = 1, .max = 2147483646, .dflt = "1024" }
#define AS_NUMBER(n, d, text)                                                                \
    {                                                                                        \
        ROW(n, F_INT, text), .check = CHECK_AS_NUMBER, .flags = FF_RANGE, .max = UINT32_MAX, \
                             .dflt = (d)                                                     \
    }
#define SELECTOR(n, text) \
    { ROW(n, F_STR, text), .max_len = 1024, .check = CHECK_SELECTOR }
#define DURATION(n, text) \
    { ROW(n, F_STR, text), .check = CHECK_GO_DURATION }

static const char *const SEVERITIES[] = {"Trace", "Debug", "Info", "Warning",
                                         "Error", "Fatal", NULL};
static const char *const ENABLED[] = {"Enabled", "Disabled", NULL};
static const char *const BIND_MODES[] = {"None", "NodeIP", NULL};
static const char *const CLUSTER_ROUTES[] = {"Enabled", "Disabled", "EnabledIPIPOnly",
                                             "EnabledNoEncapOnly", NULL};
static const char *const NEXT_HOPS[] = {"Auto", "Self", "Keep", NULL};
static const char *const SOURCES[] = {"UseNodeIP", "None", NULL};
static const char *const FAMILIES[] = {"IPv4", "IPv6", NULL};
static const char *const ADD_PATHS[] = {"Both", "Send", "Receive", "Disabled", NULL};
static const char *const RESTARTS[] = {"Enabled", "HelperOnly", "Disabled", NULL};
static const char *const ROLES[] = {"Provider", "RouteServer", "RouteServerClient",
                                    "Customer", "Peer",        NULL};
static const char *const AO_ALGORITHMS[] = {"HMAC-SHA-1-96", "AES-128-CMAC-96", "HMAC-SHA-256-96",
                                            NULL};
static const char *const REVERSE[] = {"Auto", "Manual", NULL};

/* ---- shared ---- */

static const struct field SECRET_KEY_FIELDS[] = {
    {ROW("name", F_STR, "name of the Secret, in the agent's namespace"), .flags = FF_REQUIRED,
     .check = CHECK_NAME},
    {ROW("key", F_STR, "key in it"), .flags = FF_REQUIRED},
    {ROW("optional", F_BOOL, "go on without a password if it is not there")},
};
static const struct schema secret_key = {.name = "SecretKeySelector", FIELDS(SECRET_KEY_FIELDS)};

static const struct field PASSWORD_FIELDS[] = {
    {ROW("secretKeyRef", F_OBJ, "where the password is"), .sub = &secret_key},
};
static const struct schema password = {.name = "BGPPassword", FIELDS(PASSWORD_FIELDS)};

/* Text given and not empty. */
static bool has_text(const struct jnode *map, const char *name) {
    return jnode_str(member(map, name)).n > 0;
}

/* An AS number given and not 0. */
static bool has_as(const struct jnode *map, const char *name) {
    const struct jnode *n = member(map, name);
    return n && (n->type == J_INT ? n->i != 0 : n->type == J_STR && n->s.n > 0);
}

static bool is_true(const struct jnode *map, const char *name) {
    const struct jnode *n = member(map, name);
    return n && n->type == J_BOOL && n->b;
}

/* ---- BGPConfiguration ---- */

static const struct field CIDR_BLOCK_FIELDS[] = {
    {ROW("cidr", F_STR, "prefix to announce"), .check = CHECK_NET},
};
static const struct schema cidr_block = {.name = "ServiceIPBlock", FIELDS(CIDR_BLOCK_FIELDS)};

static const struct field COMMUNITY_FIELDS[] = {
    {ROW("name", F_STR, "name to use in prefixAdvertisements"), .flags = FF_REQUIRED,
     .max_len = 253, .check = CHECK_NAME},
    {ROW("value", F_STR, "aa:nn or aa:nn:mm"), .flags = FF_REQUIRED, .max_len = 40,
     .check = CHECK_COMMUNITY},
};
static const struct schema community = {.name = "Community", FIELDS(COMMUNITY_FIELDS)};

static const struct field ADVERTISEMENT_FIELDS[] = {
    {ROW("cidr", F_STR, "routes in this prefix"), .flags = FF_REQUIRED, .check = CHECK_NET},
    {ROW("communities", F_STRS, "communities to add: values, or names from communities"),
     .flags = FF_REQUIRED | FF_RANGE, .max = 50},
};
static const struct schema advertisement = {.name = "PrefixAdvertisement",
                                            FIELDS(ADVERTISEMENT_FIELDS)};

static const struct field STATION_FIELDS[] = {
    {ROW("address", F_STR,
         "the station: address, ADDRESS:PORT or [ADDRESS]:PORT; default port "
         "11019"),
     .flags = FF_REQUIRED, .max_len = 64, .check = CHECK_IP_PORT},
    DURATION("statisticsInterval", "between reports of counters, 0s: none; default 60s"),
};
static const struct schema station = {.name = "BMPStation", FIELDS(STATION_FIELDS)};

static const struct field MRT_FIELDS[] = {
    {ROW("directory", F_STR, "an absolute path on each node"), .flags = FF_REQUIRED,
     .max_len = 255},
    DURATION("rotateInterval", "of files with what peers say; default 15m"),
    DURATION("tableInterval", "between dumps of the whole table; unset: none"),
    {ROW("keep", F_INT, "files of each sort: older ones are removed"), .flags = FF_RANGE, .min = 1,
     .max = 100000, .dflt = "100"},
};
static const struct schema mrt = {.name = "MRTFiles", FIELDS(MRT_FIELDS)};

static const struct field CONFIG_FIELDS[] = {
    {ROW("logSeverityScreen", F_STR, "what is logged"), .values = SEVERITIES, .flags = FF_ICASE,
     .dflt = "Info"},
    {ROW("nodeToNodeMeshEnabled", F_BOOL, "every node peers with every other; only on default"),
     .dflt = "true"},
    AS_NUMBER("asNumber", "64512", "AS number of nodes that have none; only on default"),
    {ROW("serviceLoadBalancerIPs", F_OBJS, "load balancer addresses to announce; only on default"),
     .sub = &cidr_block},
    {ROW("serviceExternalIPs", F_OBJS, "external addresses to announce; only on default"),
     .sub = &cidr_block},
    {ROW("serviceClusterIPs", F_OBJS, "cluster addresses to announce; only on default"),
     .sub = &cidr_block},
    {ROW("serviceLoadBalancerAggregation", F_STR, "announce the blocks, not single addresses"),
     .values = ENABLED, .dflt = "Enabled"},
    {ROW("communities", F_OBJS, "names for communities"), .flags = FF_RANGE, .max = 500,
     .sub = &community},
    {ROW("prefixAdvertisements", F_OBJS, "communities on announced routes"), .flags = FF_RANGE,
     .max = 500, .sub = &advertisement},
    {ROW("listenPort", F_INT, "TCP port"), .flags = FF_RANGE, .min = 1, .max = 65535,
     .dflt = "179"},
    {ROW("nodeMeshPassword", F_OBJ, "password of the mesh"), .sub = &password},
    DURATION("nodeMeshMaxRestartTime", "graceful restart time of the mesh"),
    {ROW("bindMode", F_STR, "listen on all addresses or the node's"), .values = BIND_MODES},
    {ROW("ignoredInterfaces", F_STRS, "interfaces whose addresses are not announced"),
     .flags = FF_UNIQUE, .check = CHECK_BGP_IFACE},
    {ROW("localWorkloadPeeringIPV4", F_STR, "address that peers in pods talk to"),
     .check = CHECK_IPV4},
    {ROW("localWorkloadPeeringIPV6", F_STR, "address that peers in pods talk to"),
     .check = CHECK_IPV6},
    {ROW("programClusterRoutes", F_STR, "which routes to other nodes' blocks BGP writes"),
     .values = CLUSTER_ROUTES, .dflt = "EnabledNoEncapOnly"},
    PRIORITY("ipv4NormalRoutePriority", "metric of IPv4 routes"),
    PRIORITY("ipv6NormalRoutePriority", "metric of IPv6 routes"),
    /* Margay's own. */
    {ROW("bmpStations", F_OBJS, "stations that are told what peers say (RFC 7854)"),
     .flags = FF_RANGE, .max = 8, .sub = &station},
    {ROW("mrt", F_OBJ, "files of what peers say, and of the table (RFC 6396)"), .sub = &mrt},
};

/* A community is a value, or a name that the configuration gives to one. */
static void check_communities(struct mctx *c, const struct at *at, const struct jnode *spec) {
    struct at list = {at, STR("prefixAdvertisements"), 0}, item = {&list, STR_NULL, 0};
    jnode_each (adv, member(spec, "prefixAdvertisements")) {
        struct at names = {&item, STR("communities"), 0}, name = {&names, STR_NULL, 0};
        jnode_each (n, member(adv, "communities")) {
            bool is_known = n->type != J_STR || !check_text(CHECK_COMMUNITY, n->s, c->a);
            jnode_each (def, member(spec, "communities")) {
                struct str known = jnode_str(member(def, "name"));
                is_known = is_known || (known.n && str_eq(known, n->s));
            }
            if (!is_known) {
                model_fail(c, &name, n,
                           "found %s, allowed is aa:nn, aa:nn:mm or a name from communities",
                           model_found(c, n));
            }
            name.i++;
        }
        item.i++;
    }
}

static void config_rules(struct mctx *c, const struct at *at, struct jnode *spec, void *out) {
    static const char *const ONLY_DEFAULT[] = {"nodeToNodeMeshEnabled", "asNumber",
                                               "serviceLoadBalancerIPs", "serviceExternalIPs",
                                               "serviceClusterIPs"};
    (void)out;
    for (size_t i = 0; i < ARRAY_LEN(ONLY_DEFAULT); i++) {
        if (member(spec, ONLY_DEFAULT[i]) && !str_is(c->obj->meta.name, "default")) {
            model_fail_in(c, at, spec, ONLY_DEFAULT[i],
                          "allowed only on the BGPConfiguration default: move it there");
        }
    }
    const struct jnode *mesh = member(spec, "nodeToNodeMeshEnabled");
    static const char *const MESH[] = {"nodeMeshPassword", "nodeMeshMaxRestartTime"};
    for (size_t i = 0; i < ARRAY_LEN(MESH); i++) {
        if (mesh && mesh->type == J_BOOL && !mesh->b && member(spec, MESH[i])) {
            model_fail_in(c, at, spec, MESH[i],
                          "is for the mesh, which nodeToNodeMeshEnabled switches off: remove it");
        }
    }
    const struct jnode *names = member(spec, "communities");
    const struct jnode *used = member(spec, "prefixAdvertisements");
    if (names && names->child && (!used || !used->child)) {
        model_fail_in(c, at, spec, "communities",
                      "no prefixAdvertisements use them: add some, or remove communities");
    }
    check_communities(c, at, spec);
    const struct jnode *files = member(spec, "mrt");
    struct str directory = jnode_str(member(files, "directory"));
    if (directory.n && directory.p[0] != '/') {
        struct at inside = {at, STR("mrt"), 0};
        model_fail_in(c, &inside, files, "directory",
                      "found %.*s, allowed is an absolute path, such as /var/log/margay",
                      STR_FMT(directory));
    }
}

static const struct schema config_spec = {
    .name = "BGPConfigurationSpec", FIELDS(CONFIG_FIELDS), .rules = config_rules};

static const struct column CONFIG_COLUMNS[] = {
    {"NAME", "metadata.name", NULL, false},
    {"LOGSEVERITY", "spec.logSeverityScreen", NULL, false},
    {"MESHENABLED", "spec.nodeToNodeMeshEnabled", NULL, false},
    {"ASNUMBER", "spec.asNumber", NULL, false},
};

const struct kind_def def_bgp_configuration = {
    .spec = &config_spec,
    COLUMNS(CONFIG_COLUMNS),
    .doc = "Settings of BGP: `default` for all nodes, `node.NAME` for one. Other names have no "
           "effect.",
};

/* ---- BGPPeer ---- */

static const struct field BFD_FIELDS[] = {
    DURATION("minimumReceiveInterval", "shortest time between packets that we can take; default "
                                       "300ms"),
    DURATION("minimumTransmitInterval", "between packets that we send; default 300ms"),
    {ROW("multiplier", F_INT, "packets that must be lost for the path to count as down"),
     .flags = FF_RANGE, .min = 1, .max = 255, .dflt = "3"},
};
static const struct schema bfd = {.name = "BGPPeerBFD", FIELDS(BFD_FIELDS)};

static const struct field AO_FIELDS[] = {
    {ROW("sendID", F_INT, "key id in what we send; their receiveID"),
     .flags = FF_RANGE | FF_REQUIRED, .max = 255},
    {ROW("receiveID", F_INT, "key id in what they send; unset: sendID"), .flags = FF_RANGE,
     .max = 255},
    {ROW("algorithm", F_STR, "how segments are signed"), .values = AO_ALGORITHMS,
     .dflt = "HMAC-SHA-1-96"},
    {ROW("secretKeyRef", F_OBJ, "where the key is"), .sub = &secret_key, .flags = FF_REQUIRED},
};
static const struct schema ao = {.name = "BGPPeerAOKey", FIELDS(AO_FIELDS)};

static const struct field PEER_FIELDS[] = {
    {ROW("node", F_STR, "the node that peers; without it and nodeSelector: all"), .max_len = 253,
     .check = CHECK_NAME},
    SELECTOR("nodeSelector", "the nodes that peer"),
    {ROW("peerIP", F_STR, "the peer: address, ADDRESS:PORT or [ADDRESS]:PORT"), .max_len = 64,
     .check = CHECK_IP_PORT},
    AS_NUMBER("asNumber", NULL, "the peer's AS number; unset: the node's own"),
    AS_NUMBER("localASNumber", NULL, "own AS number towards this peer"),
    SELECTOR("peerSelector", "nodes to peer with, instead of peerIP"),
    {ROW("keepOriginalNextHop", F_BOOL, "announce routes with the next hop they came with")},
    {ROW("nextHopMode", F_STR, "next hop of announced routes"), .values = NEXT_HOPS,
     .dflt = "Auto"},
    {ROW("password", F_OBJ, "TCP MD5 password"), .sub = &password},
    {ROW("sourceAddress", F_STR, "own address of the session"), .values = SOURCES,
     .dflt = "UseNodeIP"},
    DURATION("maxRestartTime", "graceful restart time"),
    DURATION("keepaliveTime", "keepalive interval"),
    {ROW("numAllowedLocalASNumbers", F_INT, "own AS number in a received path so often"),
     .flags = FF_RANGE, .min = INT32_MIN, .max = INT32_MAX},
    {ROW("ttlSecurity", F_INT, "hops to the peer at most (RFC 5082); unset: no check"),
     .flags = FF_RANGE, .max = 255},
    {ROW("reachableBy", F_STR, "gateway to the peer: a route to it is added"), .max_len = 64,
     .check = CHECK_IP},
    {ROW("filters", F_STRS, "BGPFilters, in this order"), .check = CHECK_NAME},
    SELECTOR("localWorkloadSelector", "peer with these pods of the node"),
    {ROW("reversePeering", F_STR, "the same session from the other side by itself"),
     .values = REVERSE, .dflt = "Auto"},
    /* Margay's own. */
    {ROW("peerCIDR", F_STR,
         "instead of peerIP: any neighbour of this range that connects, with "
         "asNumber"),
     .check = CHECK_NET},
    {ROW("interface", F_STR, "interface of a link-local peerIP or peerCIDR"), .check = CHECK_IFACE},
    {ROW("passive", F_BOOL, "wait for the peer to connect; unset: as Calico computes it")},
    DURATION("holdTime", "silence after which the peer counts as gone, 0s: never; default 90s"),
    DURATION("connectRetryTime", "between tries to connect; default 5s"),
    DURATION("delayOpenTime",
             "wait so long for the peer's OPEN before ours is sent (DelayOpen of RFC "
             "4271); unset: not at all"),
    {ROW("addressFamilies", F_STRS, "families on the session; unset: that of its addresses"),
     .flags = FF_UNIQUE, .values = FAMILIES},
    {ROW("addPaths", F_STR, "several paths for a prefix (RFC 7911)"), .values = ADD_PATHS,
     .dflt = "Both"},
    {ROW("gracefulRestart", F_STR, "keep routes while the other side restarts (RFC 4724, 8538)"),
     .values = RESTARTS, .dflt = "Enabled"},
    DURATION("longLivedRestartTime", "how long stale routes are kept after the restart time (RFC "
                                     "9494); unset: not at all"),
    {ROW("maxPrefixes", F_INT,
         "prefixes of a family that the peer may announce; more end the "
         "session"),
     .flags = FF_RANGE, .min = 1, .max = UINT32_MAX},
    {ROW("extendedMessages", F_BOOL, "messages of up to 65535 bytes (RFC 8654)")},
    {ROW("extendedNextHop", F_BOOL, "IPv4 routes with IPv6 next hops (RFC 8950)")},
    {ROW("bfd", F_OBJ, "notice a dead path in less than a second (RFC 5880)"), .sub = &bfd},
    {ROW("tcpAO", F_OBJS,
         "keys of TCP-AO (RFC 5925), in place of a password: all are accepted, the first signs; "
         "the "
         "kernel must have CONFIG_TCP_AO"),
     .sub = &ao, .flags = FF_RANGE, .min = 1, .max = 16},
    {ROW("role", F_STR, "what we are to the peer (RFC 9234): leaks between them are stopped"),
     .values = ROLES},
    {ROW("routeServerClient", F_BOOL, "the peer is a client of this route server (RFC 7947)")},
    {ROW("shutdown", F_STR, "no session with the peer, which is told this text (RFC 9003)"),
     .max_len = 255},
};

/* Family of an address, ADDRESS:PORT or [ADDRESS]:PORT. */
static enum ip_family peer_family(struct str s) {
    struct ip46 ip;
    if (ip_parse(s, &ip) == 0) {
        return ip.family;
    }
    return s.n && s.p[0] == '[' ? IP_V6 : IP_V4;
}

static void check_reachable_by(struct mctx *c, const struct at *at, const struct jnode *spec) {
    struct str by = jnode_str(member(spec, "reachableBy"));
    struct str peer = jnode_str(member(spec, "peerIP"));
    struct ip46 ip;
    if (!by.n || ip_parse(by, &ip)) {
        return; /* a bad address was noted when it was read */
    }
    if (!peer.n) {
        model_fail_in(c, at, spec, "reachableBy", "needs peerIP, the peer that it leads to");
    } else if (peer_family(peer) != ip.family && !check_text(CHECK_IP_PORT, peer, c->a)) {
        model_fail_in(c, at, spec, "reachableBy",
                      "found %.*s, allowed is an address of the family of peerIP, %.*s",
                      STR_FMT(by), STR_FMT(peer));
    }
}

/* A range of neighbours stands where peerIP would. */
static void check_peer_cidr(struct mctx *c, const struct at *at, const struct jnode *spec) {
    static const char *const EXCLUDED[] = {"peerIP", "peerSelector", "localWorkloadSelector",
                                           "reachableBy"};
    if (!has_text(spec, "peerCIDR")) {
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(EXCLUDED); i++) {
        if (has_text(spec, EXCLUDED[i])) {
            model_fail_in(c, at, spec, EXCLUDED[i],
                          "not together with peerCIDR: remove one of them");
        }
    }
    if (!has_as(spec, "asNumber")) {
        model_fail_in(c, at, spec, "asNumber", "is missing: peerCIDR needs it");
    }
}

/* Segments carry one signature; each id names one key. */
static void check_ao(struct mctx *c, const struct at *at, const struct jnode *spec) {
    const struct jnode *keys = member(spec, "tcpAO");
    bool is_sent[256] = {0}, is_received[256] = {0};
    if (!keys || keys->type != J_LIST) {
        return;
    }
    if (member(spec, "password")) {
        model_fail_in(c, at, spec, "tcpAO", "not together with password: remove one of them");
    }
    jnode_each (key, keys) {
        const struct jnode *send = member(key, "sendID"), *receive = member(key, "receiveID");
        receive = receive ? receive : send;
        if (!send || send->type != J_INT || send->i < 0 || send->i > 255 ||
            receive->type != J_INT || receive->i < 0 || receive->i > 255) {
            continue; /* noted when it was read */
        }
        if (is_sent[send->i] || is_received[receive->i]) {
            model_fail_in(c, at, spec, "tcpAO",
                          "two keys have sendID %" PRId64 " or receiveID %" PRId64
                          ": each id stands for one key",
                          send->i, receive->i);
        }
        is_sent[send->i] = is_received[receive->i] = true;
    }
}

static void peer_rules(struct mctx *c, const struct at *at, struct jnode *spec, void *out) {
    (void)out;
    check_peer_cidr(c, at, spec);
    check_ao(c, at, spec);
    if (has_text(spec, "node") && has_text(spec, "nodeSelector")) {
        model_fail_in(c, at, spec, "node", "not together with nodeSelector: remove one of them");
    }
    bool has_selector = has_text(spec, "peerSelector");
    if (has_text(spec, "peerIP") && has_selector) {
        model_fail_in(c, at, spec, "peerIP", "not together with peerSelector: remove one of them");
    }
    if (has_as(spec, "asNumber") && has_selector) {
        model_fail_in(c, at, spec, "asNumber",
                      "not together with peerSelector, whose nodes have their own: remove it");
    }
    check_reachable_by(c, at, spec);
    if (is_true(spec, "keepOriginalNextHop") && has_text(spec, "nextHopMode")) {
        model_fail_in(c, at, spec, "keepOriginalNextHop",
                      "not together with nextHopMode: write nextHopMode: Keep alone");
    }
    if (!has_text(spec, "localWorkloadSelector")) {
        return;
    }
    if (!has_as(spec, "asNumber")) {
        model_fail_in(c, at, spec, "asNumber", "is missing: localWorkloadSelector needs it");
    }
    static const char *const EXCLUDED[] = {"peerIP", "peerSelector"};
    for (size_t i = 0; i < ARRAY_LEN(EXCLUDED); i++) {
        if (has_text(spec, EXCLUDED[i])) {
            model_fail_in(c, at, spec, EXCLUDED[i],
                          "not together with localWorkloadSelector: remove one of them");
        }
    }
}

static const struct schema peer_spec = {
    .name = "BGPPeerSpec", FIELDS(PEER_FIELDS), .rules = peer_rules};

static struct str peer_node(const struct jnode *doc, int64_t now_wall_ns, struct arena *a) {
    (void)now_wall_ns;
    (void)a;
    const struct jnode *spec = member(doc, "spec");
    struct str node = jnode_str(member(spec, "node"));
    struct str selector = jnode_str(member(spec, "nodeSelector"));
    return node.n ? node : selector.n ? selector : STR("(global)");
}

static const struct column PEER_COLUMNS[] = {
    {"NAME", "metadata.name", NULL, false},
    {"PEERIP", "spec.peerIP", NULL, false},
    {"NODE", NULL, peer_node, false},
    {"ASN", "spec.asNumber", NULL, false},
};

const struct kind_def def_bgp_peer = {
    .spec = &peer_spec,
    COLUMNS(PEER_COLUMNS),
    .doc = "A BGP neighbour of all nodes, of one, or of those that a selector selects.",
};
