/* FelixConfiguration: the agent's settings, one row each, and what they may not be together. Names,
 * ranges and defaults are Calico's; what Margay reads of them is decided where it is read. */
#include "model/policy.h"
#include "model/schema.h"

#define ROW(n, t, d, text) NAMED(n), .type = (t), .dflt = (d), .doc = (text)
#define BOOL(n, d, text) \
    { ROW(n, F_BOOL, d, text) }
#define INT(n, d, text) \
    { ROW(n, F_INT, d, text) }
#define RANGE(n, lo, hi, d, text) \
    { ROW(n, F_INT, d, text), .flags = FF_RANGE, .min = (lo), .max = (hi) }
#define TEXT(n, d, text) \
    { ROW(n, F_STR, d, text) }
#define CHECKED(n, id, d, text) \
    { ROW(n, F_STR, d, text), .check = (id) }
#define DURATION(n, d, text) CHECKED(n, CHECK_DURATION, d, text)
#define ONE_OF(n, list, d, text) \
    { ROW(n, F_STR, d, text), .values = (list) }
#define ANY_CASE(n, list, d, text) \
    { ROW(n, F_STR, d, text), .values = (list), .flags = FF_ICASE }

static const char *const ENABLED[] = {"Enabled", "Disabled", NULL};
static const char *const AUTO_ENABLED[] = {"Enabled", "Disabled", "Auto", NULL};
static const char *const ACCEPT_RETURN[] = {"Accept", "Return", NULL};
static const char *const DROP_OVERRIDE[] = {"Drop", "Accept", "LogAndDrop", "LogAndAccept", NULL};
static const char *const ESTABLISHED[] = {"keep", "cut", NULL};
static const char *const DROP_REJECT[] = {"Drop", "Reject", NULL};
static const char *const HOST_ACTIONS[] = {"Drop", "Accept", "Return", NULL};
static const char *const INSERT_MODES[] = {"Insert", "Append", NULL};
static const char *const SEVERITIES[] = {"Trace", "Debug", "Info", "Warning",
                                         "Error", "Fatal", NULL};
static const char *const BACKENDS[] = {"Legacy", "NFT", "Auto", NULL};
static const char *const CLIENT_AUTH[] = {"RequireAndVerifyClientCert", "RequireAnyClientCert",
                                          "VerifyClientCertIfGiven", "NoClientCert", NULL};
static const char *const NAT_EXCLUSIONS[] = {"IPPoolsOnly", "IPPoolsAndHostIPs", NULL};
static const char *const CLUSTER_ROUTES[] = {"Enabled", "Disabled", "EnabledIPIPOnly",
                                             "EnabledNoEncapOnly", NULL};
static const char *const OFFLOAD[] = {"All", "Disabled", NULL};
static const char *const HOST_SOURCE_IP[] = {"TunnelAddress", "HostAddress", NULL};
static const char *const JIT_HARDENING[] = {"Auto", "Strict", NULL};
static const char *const BPF_LOG[] = {"Off", "Info", "Debug", NULL};
static const char *const BPF_CT_LOG[] = {"Off", "Debug", NULL};
static const char *const CT_MODES[] = {"Auto", "Userspace", "BPFProgram", NULL};
static const char *const CTLB[] = {"TCP", "Enabled", "Disabled", NULL};
static const char *const SERVICE_MODES[] = {"Tunnel", "DSR", NULL};
static const char *const MAP_SCALING[] = {"Disabled", "DoubleIfFull", NULL};
static const char *const RPF[] = {"Disabled", "Strict", "Loose", NULL};
static const char *const ATTACH[] = {"TC", "TCX", "Netkit", NULL};
static const char *const EVALUATION[] = {"None", "Continuous", NULL};
static const char *const ROUTE_SOURCES[] = {"WorkloadIPs", "CalicoIPAM", NULL};
static const char *const SRC_DST_CHECK[] = {"DoNothing", "Enable", "Disable", NULL};
static const char *const LOOP_PREVENTION[] = {"Drop", "Reject", "Disabled", NULL};
static const char *const SPOOFING[] = {"Disabled", "Any", NULL};
static const char *const L2_REACHABILITY[] = {"Disabled", "PodsAndLoadBalancers", NULL};
static const char *const PROTO_PORT_PROTOCOLS[] = {"TCP", "UDP", "SCTP", NULL};

static const struct field HEALTH_TIMEOUT_FIELDS[] = {
    {NAMED("name"), .type = F_STR, .flags = FF_REQUIRED, .doc = "name of the part of the agent"},
    {NAMED("timeout"), .type = F_STR, .check = CHECK_GO_DURATION, .flags = FF_REQUIRED,
     .doc = "how long it may be silent, as in 90s"},
};
static const struct schema health_timeout = {.name = "HealthTimeoutOverride",
                                             FIELDS(HEALTH_TIMEOUT_FIELDS)};

static const struct field PROTO_PORT_FIELDS[] = {
    {NAMED("protocol"), .type = F_STR, .values = PROTO_PORT_PROTOCOLS,
     .flags = FF_ICASE | FF_REQUIRED, .doc = "TCP, UDP or SCTP"},
    {NAMED("port"), .type = F_INT, .flags = FF_RANGE | FF_REQUIRED, .min = 0, .max = 65535,
     .doc = "port, 0 to 65535"},
    {NAMED("net"), .type = F_STR, .check = CHECK_CIDR, .doc = "only from or to this prefix"},
};
static const struct schema proto_port = {.name = "ProtoPort", FIELDS(PROTO_PORT_FIELDS)};

static const struct field TABLE_RANGE_FIELDS[] = {
    {NAMED("min"), .type = F_INT, .flags = FF_REQUIRED, .doc = "first table, from 1 on"},
    {NAMED("max"), .type = F_INT, .flags = FF_REQUIRED, .doc = "last table"},
};
static const struct schema table_range = {.name = "RouteTableRange", FIELDS(TABLE_RANGE_FIELDS)};

#define CT_TIMEOUT(n, d, text) CHECKED(n, CHECK_CT_TIMEOUT, d, text)
static const struct field CT_TIMEOUT_FIELDS[] = {
    CT_TIMEOUT("creationGracePeriod", "10s", "grace of an entry that is just made"),
    CT_TIMEOUT("tcpSynSent", "20s", "TCP before it is established"),
    CT_TIMEOUT("tcpEstablished", "1h", "TCP, established"),
    CT_TIMEOUT("tcpFinsSeen", "Auto", "TCP after both FINs; Auto: as the kernel"),
    CT_TIMEOUT("tcpResetSeen", "40s", "TCP after a reset"),
    CT_TIMEOUT("udpTimeout", "60s", "UDP"),
    CT_TIMEOUT("genericTimeout", "10m", "other protocols"),
    CT_TIMEOUT("icmpTimeout", "5s", "ICMP"),
};
static const struct schema ct_timeouts = {.name = "BPFConntrackTimeouts",
                                          FIELDS(CT_TIMEOUT_FIELDS)};

#define FAILSAFE_IN \
    "tcp:22, udp:68, tcp:179, tcp:2379, tcp:2380, tcp:5473, tcp:6443, tcp:6666, tcp:6667"
#define FAILSAFE_OUT \
    "udp:53, udp:67, tcp:179, tcp:2379, tcp:2380, tcp:5473, tcp:6443, tcp:6666, tcp:6667"

static const struct field FELIX_FIELDS[] = {
    {ROW("nodeSelector", F_STR, NULL, "nodes that this configuration is for, if its name is free"),
     .max_len = 1024, .check = CHECK_SELECTOR},
    BOOL("useInternalDataplaneDriver", "true", "the built-in dataplane"),
    TEXT("dataplaneDriver", "calico-iptables-plugin", "program that is the dataplane otherwise"),
    {ROW("dataplaneWatchdogTimeout", F_STR, "90s", "dataplane silent for so long: not healthy"),
     .check = CHECK_GO_DURATION},
    BOOL("ipv6Support", "true", "IPv6 too"),
    DURATION("routeRefreshInterval", "90s", "routes are compared with the kernel's so often"),
    DURATION("interfaceRefreshInterval", "90s", "interfaces are compared so often"),
    DURATION("iptablesRefreshInterval", "10s", "iptables rules are compared so often"),
    DURATION("iptablesPostWriteCheckInterval", "1s", "iptables is read again after a write"),
    DURATION("iptablesLockProbeInterval", "50ms", "pause between tries for the iptables lock"),
    CHECKED("featureDetectOverride", CHECK_BOOL_VALUES, NULL, "kernel features as Name=true,…"),
    CHECKED("featureGates", CHECK_KEY_VALUES, NULL, "features to try, as Name=value,…"),
    DURATION("ipsetsRefreshInterval", "90s", "IP sets are compared so often"),
    INT("maxIpsetSize", "1048576", "members of one IP set at most"),
    ANY_CASE("iptablesBackend", BACKENDS, "Auto", "which iptables"),
    DURATION("xdpRefreshInterval", "90s", "XDP state is compared so often"),
    DURATION("netlinkTimeout", "10s", "wait for the kernel's answer"),
    TEXT("metadataAddr", "127.0.0.1", "OpenStack's metadata service"),
    INT("metadataPort", "8775", "its port"),
    TEXT("openstackRegion", "", "OpenStack region of this cluster"),
    TEXT("interfacePrefix", "cali", "how names of pod interfaces begin; several with commas"),
    TEXT("interfaceExclude", "kube-ipvs0",
         "interfaces that are left alone, with commas; /…/ is a "
         "regular expression"),
    ANY_CASE("chainInsertMode", INSERT_MODES, "Insert", "own rules before or after those there"),
    ANY_CASE("defaultEndpointToHostAction", HOST_ACTIONS, "Drop",
             "pods to their own host, after their egress policy"),
    ANY_CASE("iptablesFilterAllowAction", ACCEPT_RETURN, "Accept", "what allowed packets meet"),
    ANY_CASE("iptablesMangleAllowAction", ACCEPT_RETURN, "Accept", "the same in mangle"),
    ANY_CASE("iptablesFilterDenyAction", DROP_REJECT, "Drop", "what denied packets meet"),
    CHECKED("logPrefix", CHECK_LOG_PREFIX, "calico-packet", "prefix of a Log rule's lines"),
    CHECKED("logActionRateLimit", CHECK_LOG_RATE, NULL, "Log rules' lines at most, as 10/second"),
    RANGE("logActionRateLimitBurst", 0, 9999, "5", "lines before the limit holds"),
    TEXT("logFilePath", "/var/log/calico/felix.log", "log file"),
    ANY_CASE("logSeverityFile", SEVERITIES, "Info", "what goes to the log file"),
    ANY_CASE("logSeverityScreen", SEVERITIES, "Info", "what goes to standard output"),
    ANY_CASE("logSeveritySys", SEVERITIES, "Info", "what goes to syslog"),
    CHECKED("logDebugFilenameRegex", CHECK_REGEXP, NULL, "debug lines of these source files only"),
    BOOL("ipipEnabled", NULL, "IPIP tunnels; unset: if a pool needs them"),
    INT("ipipMTU", "0", "MTU of the IPIP device; 0: found out"),
    BOOL("vxlanEnabled", NULL, "VXLAN; unset: if a pool needs it"),
    INT("vxlanMTU", "0", "MTU of the IPv4 VXLAN device; 0: found out"),
    INT("vxlanMTUV6", "0", "MTU of the IPv6 VXLAN device; 0: found out"),
    INT("vxlanPort", "4789", "UDP port of VXLAN"),
    INT("vxlanVNI", "4096", "VXLAN network identifier"),
    BOOL("allowVXLANPacketsFromWorkloads", "false", "pods may send VXLAN"),
    BOOL("allowIPIPPacketsFromWorkloads", "false", "pods may send IPIP"),
    DURATION("reportingInterval", "30s", "status is reported so often; 0: never"),
    DURATION("reportingTTL", "90s", "how long a status counts"),
    BOOL("endpointReportingEnabled", "false", "report the state of endpoints"),
    DURATION("endpointReportingDelay", "1s", "gather states for so long"),
    TEXT("endpointStatusPathPrefix", "/var/run/calico", "folder of the endpoints' state files"),
    RANGE("iptablesMarkMask", 0, 4294967295, "4294901760", "bits of the packet mark to use"),
    BOOL("disableConntrackInvalidCheck", "false", "let packets of invalid state pass to policy"),
    BOOL("healthEnabled", "false", "serve /liveness and /readiness"),
    TEXT("healthHost", "localhost", "address of the health server"),
    INT("healthPort", "9099", "port of the health server"),
    {ROW("healthTimeoutOverrides", F_OBJS, NULL, "timeouts of single parts"),
     .sub = &health_timeout},
    BOOL("prometheusMetricsEnabled", "false", "serve metrics"),
    CHECKED("prometheusMetricsHost", CHECK_HOST, "", "address of the metrics server; empty: all"),
    INT("prometheusMetricsPort", "9091", "port of the metrics server"),
    BOOL("prometheusGoMetricsEnabled", "true", "metrics of the run time"),
    BOOL("prometheusProcessMetricsEnabled", "true", "metrics of the process"),
    BOOL("prometheusWireGuardMetricsEnabled", "true", "metrics of WireGuard"),
    TEXT("prometheusMetricsCAFile", NULL, "CA for clients of the metrics server"),
    TEXT("prometheusMetricsCertFile", NULL, "certificate of the metrics server"),
    TEXT("prometheusMetricsKeyFile", NULL, "its key"),
    ONE_OF("prometheusMetricsClientAuth", CLIENT_AUTH, "NoClientCert", "what clients must show"),
    {ROW("failsafeInboundHostPorts", F_OBJS, FAILSAFE_IN, "always open to the host"),
     .sub = &proto_port},
    {ROW("failsafeOutboundHostPorts", F_OBJS, FAILSAFE_OUT, "always open from the host"),
     .sub = &proto_port},
    {ROW("kubeNodePortRanges", F_PORTS, "30000:32767", "node ports, at most 7 ranges"),
     .flags = FF_RANGE, .min = 0, .max = 7},
    TEXT("policySyncPathPrefix", "", "folder of the policy sync sockets; empty: off"),
    BOOL("usageReportingEnabled", "true", "report use; Margay never does"),
    DURATION("usageReportingInitialDelay", "300s", "before the first report"),
    DURATION("usageReportingInterval", "86400s", "between reports"),
    {ROW("natPortRange", F_PORT, NULL, "source ports for outgoing NAT; unset: the kernel's")},
    {ROW("natOutgoingAddress", F_STR, NULL, "source address for outgoing NAT; unset: masquerade"),
     .max_len = 45, .check = CHECK_IPV4},
    ONE_OF("natOutgoingExclusions", NAT_EXCLUSIONS, "IPPoolsOnly", "destinations without NAT"),
    {ROW("deviceRouteSourceAddress", F_STR, NULL, "source hint on IPv4 routes to pods"),
     .max_len = 45, .check = CHECK_IPV4},
    {ROW("deviceRouteSourceAddressIPv6", F_STR, NULL, "source hint on IPv6 routes to pods"),
     .max_len = 45, .check = CHECK_IPV6},
    INT("deviceRouteProtocol", "3", "protocol number of own routes"),
    BOOL("removeExternalRoutes", "true", "remove routes to pod interfaces that are not own"),
    ONE_OF("programClusterRoutes", CLUSTER_ROUTES, "EnabledIPIPOnly",
           "routes to other nodes' blocks by the agent, not by BGP"),
    ONE_OF("ipForwarding", ENABLED, "Enabled", "switch the kernel's forwarding on"),
    {ROW("externalNodesList", F_STRS, NULL, "prefixes of nodes outside, for tunnels"),
     .check = CHECK_CIDR},
    TEXT("debugMemoryProfilePath", "", "where a memory profile is written"),
    BOOL("debugDisableLogDropping", "false", "keep all log lines, even if that slows down"),
    DURATION("debugSimulateCalcGraphHangAfter", NULL, "for tests"),
    DURATION("debugSimulateDataplaneHangAfter", NULL, "for tests"),
    DURATION("debugSimulateDataplaneApplyDelay", NULL, "for tests"),
    TEXT("debugHost", "localhost", "address of the debug server"),
    RANGE("debugPort", 0, 65535, NULL, "port of the debug server; unset: none"),
    CHECKED("iptablesNATOutgoingInterfaceFilter", CHECK_IFACE_FILTER, NULL,
            "outgoing NAT on these interfaces only"),
    BOOL("sidecarAccelerationEnabled", "false", "short cuts between sidecars"),
    BOOL("xdpEnabled", "true", "untracked ingress deny by XDP"),
    BOOL("genericXDPEnabled", "false", "generic XDP where drivers have none"),
    ONE_OF("nftablesMode", AUTO_ENABLED, "Auto", "nftables instead of iptables"),
    ONE_OF("nftablesFlowTableOffload", OFFLOAD, "Disabled", "flow table for established flows"),
    CHECKED("nftablesFlowTableDataIfacePattern", CHECK_REGEXP, "", "interfaces in the flow table"),
    {ROW("nftablesRefreshInterval", F_STR, "90s", "nftables is compared so often"),
     .check = CHECK_GO_DURATION},
    ANY_CASE("nftablesFilterAllowAction", ACCEPT_RETURN, "Accept", "what allowed packets meet"),
    ANY_CASE("nftablesMangleAllowAction", ACCEPT_RETURN, "Accept", "the same in mangle"),
    ANY_CASE("nftablesFilterDenyAction", DROP_REJECT, "Drop", "what denied packets meet"),
    ANY_CASE("dropActionOverride", DROP_OVERRIDE, "Drop",
             "for trying policies out: what packets meet that policies deny"),
    ANY_CASE("establishedPolicy", ESTABLISHED, "keep",
             "Margay's own: connections that a change of policy now denies go on, or end"),
    RANGE("nftablesMarkMask", 0, 4294967295, "4294901760", "bits of the packet mark to use"),
    BOOL("bpfEnabled", "false", "the eBPF dataplane"),
    ONE_OF("bpfOverlayHostSourceIP", HOST_SOURCE_IP, "TunnelAddress",
           "the host's source address towards pods on other nodes"),
    BOOL("bpfDisableUnprivileged", "true", "forbid unprivileged BPF"),
    ONE_OF("bpfJITHardening", JIT_HARDENING, "Auto", "the kernel's JIT hardening"),
    ANY_CASE("bpfLogLevel", BPF_LOG, "Off", "log of the BPF programs"),
    ONE_OF("bpfConntrackLogLevel", BPF_CT_LOG, "Off", "log of BPF connection tracking"),
    ONE_OF("bpfConntrackMode", CT_MODES, "Userspace", "who removes old connections"),
    {ROW("bpfConntrackTimeouts", F_OBJ, NULL, "when connections are forgotten"),
     .sub = &ct_timeouts},
    DURATION("bpfIPFragTimeout", NULL, "fragments wait so long; unset: as the kernel"),
    {ROW("bpfLogFilters", F_STRMAP, NULL, "debug only what these filters match, by interface")},
    TEXT("bpfCTLBLogFilter", NULL, "debug of connect-time balancing: all or nothing"),
    CHECKED("bpfDataIfacePattern", CHECK_REGEXP, NULL, "interfaces to the network"),
    CHECKED("bpfL3IfacePattern", CHECK_REGEXP, NULL, "interfaces without link layer"),
    BOOL("bpfConnectTimeLoadBalancingEnabled", "true", "of old: see bpfConnectTimeLoadBalancing"),
    ONE_OF("bpfConnectTimeLoadBalancing", CTLB, "TCP", "balance services at connect()"),
    ONE_OF("bpfHostNetworkedNATWithoutCTLB", ENABLED, "Enabled", "the host's services without it"),
    ANY_CASE("bpfExternalServiceMode", SERVICE_MODES, "Tunnel", "how answers go back"),
    {ROW("bpfDSROptoutCIDRs", F_STRS, NULL, "clients that get no direct answers"),
     .check = CHECK_CIDR},
    RANGE("bpfExtToServiceConnmark", 0, 4294967295, "0", "mark of connections from outside"),
    BOOL("bpfKubeProxyIptablesCleanupEnabled", "true", "remove kube-proxy's rules"),
    DURATION("bpfKubeProxyMinSyncPeriod", "1s", "services are written at most so often"),
    RANGE("bpfKubeProxyHealthzPort", 0, 65535, "10256", "health of services; 0: off"),
    {ROW("bpfPSNATPorts", F_PORT, "20000:29999", "source ports in case of a clash")},
    INT("bpfMapSizeNATFrontend", "65536", "services at most"),
    INT("bpfMapSizeNATBackend", "262144", "their endpoints at most"),
    INT("bpfMapSizeNATAffinity", "65536", "client affinities at most"),
    INT("bpfMapSizeRoute", "262144", "routes at most"),
    INT("bpfMapSizeConntrack", "512000", "connections at most"),
    INT("bpfMapSizePerCpuConntrack", "0", "the same, for each CPU; 0: bpfMapSizeConntrack"),
    ANY_CASE("bpfMapSizeConntrackScaling", MAP_SCALING, "DoubleIfFull", "what a full map does"),
    RANGE("bpfMapSizeConntrackCleanupQueue", 1, INT32_MAX, "100000", "removals in one go"),
    INT("bpfMapSizeIPSets", "1048576", "members of IP sets at most"),
    INT("bpfMapSizeIfState", "1000", "interfaces at most"),
    BOOL("bpfHostConntrackBypass", "true", "the host's flows past the kernel's conntrack"),
    BOOL("bpfIPFragmentReassemblyEnabled", "true", "put fragments together"),
    ANY_CASE("bpfEnforceRPF", RPF, "Loose", "reverse path filter"),
    BOOL("bpfPolicyDebugEnabled", "true", "keep policies readable for debugging"),
    {ROW("bpfForceTrackPacketsFromIfaces", F_STRS, "docker+", "always the kernel's conntrack"),
     .check = CHECK_IFACE_FILTER},
    CHECKED("bpfDisableGROForIfaces", CHECK_REGEXP, NULL, "GRO off on these"),
    {ROW("bpfExcludeCIDRsFromNAT", F_STRS, NULL, "service addresses without NAT"),
     .check = CHECK_CIDR},
    INT("bpfExportBufferSizeMB", "1", "buffer of flow logs"),
    ONE_OF("istioAmbientMode", ENABLED, "Disabled", "work with Istio's ambient mesh"),
    {ROW("istioDSCPMark", F_INT_OR_STR, "23", "DSCP of the mesh: 0 to 63, or a name such as AF11")},
    TEXT("cgroupV2Path", NULL, "where cgroup v2 is mounted"),
    ONE_OF("flowLogsPolicyEvaluationMode", EVALUATION, "Continuous",
           "evaluate policies again while a flow lives"),
    ONE_OF("bpfRedirectToPeer", ENABLED, "Enabled", "straight into the pod's side of the link"),
    ONE_OF("bpfAttachType", ATTACH, "Netkit", "how programs are attached"),
    DURATION("flowLogsFlushInterval", "300s", "flows are reported so often"),
    BOOL("flowLogsCollectorDebugTrace", "false", "trace of the flow collector"),
    TEXT("flowLogsGoldmaneServer", NULL, "where flows are sent"),
    ONE_OF("flowLogsLocalReporter", ENABLED, "Disabled", "flows on a local socket"),
    ONE_OF("bpfProfiling", ENABLED, "Disabled", "profile the BPF programs"),
    ANY_CASE("routeSource", ROUTE_SOURCES, "CalicoIPAM", "where routes to other nodes come from"),
    {ROW("routeTableRanges", F_OBJS, NULL, "route tables that may be used"), .sub = &table_range},
    {ROW("routeTableRange", F_OBJ, NULL, "of old: one range of 1 to 250"), .sub = &table_range},
    BOOL("routeSyncDisabled", "false", "write no routes"),
    RANGE("ipv4NormalRoutePriority", 1, 2147483646, "1024", "metric of IPv4 routes to pods"),
    RANGE("ipv4ElevatedRoutePriority", 1, 2147483646, "512", "the same while a VM moves"),
    RANGE("ipv6NormalRoutePriority", 1, 2147483646, "1024", "metric of IPv6 routes to pods"),
    RANGE("ipv6ElevatedRoutePriority", 1, 2147483646, "512", "the same while a VM moves"),
    DURATION("liveMigrationRouteConvergenceTime", "30s", "how long a moved VM's route is raised"),
    BOOL("wireguardEnabled", "false", "encrypt between nodes, IPv4"),
    BOOL("wireguardEnabledV6", "false", "encrypt between nodes, IPv6"),
    BOOL("wireguardThreadingEnabled", "false", "WireGuard's NAPI threads"),
    RANGE("wireguardListeningPort", 1, 65535, "51820", "UDP port, IPv4"),
    RANGE("wireguardListeningPortV6", 1, 65535, "51821", "UDP port, IPv6"),
    RANGE("wireguardRoutingRulePriority", 1, 32765, "99", "priority of its routing rule"),
    CHECKED("wireguardInterfaceName", CHECK_IFACE, "wireguard.cali", "its interface, IPv4"),
    CHECKED("wireguardInterfaceNameV6", CHECK_IFACE, "wg-v6.cali", "its interface, IPv6"),
    INT("wireguardMTU", "1440", "its MTU, IPv4; 0: found out"),
    INT("wireguardMTUV6", "1420", "its MTU, IPv6; 0: found out"),
    BOOL("wireguardHostEncryptionEnabled", "false", "encrypt the hosts' own traffic too"),
    DURATION("wireguardKeepAlive", "0", "keepalive interval; 0: off"),
    ONE_OF("awsSrcDstCheck", SRC_DST_CHECK, "DoNothing", "the check of AWS on this node"),
    ONE_OF("serviceLoopPrevention", LOOP_PREVENTION, "Drop",
           "packets to service addresses that no service takes"),
    ONE_OF("workloadSourceSpoofing", SPOOFING, "Disabled",
           "Any: pods may ask for more source addresses by annotation"),
    CHECKED("mtuIfacePattern", CHECK_REGEXP, NULL, "interfaces whose MTU counts"),
    ONE_OF("floatingIPs", ENABLED, "Disabled", "floating addresses of pods"),
    ONE_OF("localSubnetL2Reachability", L2_REACHABILITY, "Disabled",
           "answer ARP and ND for addresses of the node's own subnet"),
    {ROW("localSubnetL2ReachabilityRefreshInterval", F_STR, "120s", "compared so often"),
     .check = CHECK_GO_DURATION},
    ONE_OF("windowsManageFirewallRules", ENABLED, "Disabled", "Windows only"),
    RANGE("goGCThreshold", -1, INT32_MAX, "40", "of the Go agent; no meaning here"),
    RANGE("goMemoryLimitMB", -1, INT32_MAX, "-1", "of the Go agent; no meaning here"),
    RANGE("goMaxProcs", -1, INT32_MAX, "-1", "of the Go agent; no meaning here"),
    BOOL("requireMTUFile", "false", "not ready before the MTU is known"),
    RANGE("bpfMaglevMaxEndpointsPerService", 1, 3000, "100", "endpoints of a service in Maglev"),
    RANGE("bpfMaglevMaxServices", 1, 3000, "100", "services with Maglev"),
};
_Static_assert(sizeof(FELIX_FIELDS) / sizeof(FELIX_FIELDS[0]) <= SCHEMA_MAX_FIELDS,
               "the engine's bitmap holds them all");

/* ---- rules ---- */

enum { TABLES_MAX = 65535, TABLE_OLD_MAX = 250 };

static bool int_of(const struct jnode *map, const char *name, int64_t *out) {
    const struct jnode *n = member(map, name);
    if (!n || n->type != J_INT) {
        return false;
    }
    *out = n->i;
    return true;
}

/* Number of tables, or 0 with the error noted. */
static uint64_t check_range(struct mctx *c, const struct at *at, const struct jnode *range,
                            int64_t limit) {
    int64_t min, max;
    if (!int_of(range, "min", &min) || !int_of(range, "max", &max)) {
        return 0; /* noted when the fields were read */
    }
    if (min < 1 || min > limit) {
        model_fail_in(c, at, range, "min", "found %lld, allowed is 1 to %lld", (long long)min,
                      (long long)limit);
        return 0;
    }
    if (max < min || max > limit) {
        model_fail_in(c, at, range, "max", "found %lld, allowed is %lld (min) to %lld",
                      (long long)max, (long long)min, (long long)limit);
        return 0;
    }
    return (uint64_t)(max - min) + 1;
}

static void check_tables(struct mctx *c, const struct at *at, struct jnode *spec) {
    struct jnode *one = member(spec, "routeTableRange"), *many = member(spec, "routeTableRanges");
    if (one && many) {
        model_fail_in(c, at, spec, "routeTableRange",
                      "not together with routeTableRanges: keep routeTableRanges");
    }
    struct at here = {at, STR("routeTableRange"), 0};
    if (one && one->type == J_MAP) {
        (void)check_range(c, &here, one, TABLE_OLD_MAX); /* only its errors count */
    }
    if (!many || many->type != J_LIST) {
        return;
    }
    uint64_t total = 0;
    struct at list = {at, STR("routeTableRanges"), 0}, item = {&list, STR_NULL, 0};
    jnode_each (n, many) {
        if (n->type == J_MAP) {
            total += check_range(c, &item, n, UINT32_MAX);
        }
        item.i++;
    }
    if (total > TABLES_MAX) {
        model_fail(c, &list, many, "found %llu tables in all, allowed are at most %d",
                   (unsigned long long)total, TABLES_MAX);
    }
}

/* A port or range, where no endpoint could give a name a meaning. */
static void check_no_name(struct mctx *c, const struct at *at, const struct jnode *n) {
    struct port_spec port;
    const char *why;
    if (port_read(n, &port, &why) && port.name.p) {
        model_fail(c, at, n, "found %s, allowed is a port or a range of numbers",
                   model_found(c, n));
    }
}

static bool is_dscp(const struct jnode *n) {
    static const char *const NAMES[] = {"DF",   "EF",   "AF11", "AF12", "AF13", "AF21", "AF22",
                                        "AF23", "AF31", "AF32", "AF33", "AF41", "AF42", "AF43",
                                        "CS0",  "CS1",  "CS2",  "CS3",  "CS4",  "CS5",  "CS6"};
    if (n->type == J_INT) {
        return n->i >= 0 && n->i <= 63;
    }
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++) {
        if (str_ieq(n->s, str_c(NAMES[i]))) {
            return true;
        }
    }
    uint64_t v;
    return str_to_u64(n->s, &v) == 0 && v <= 63;
}

static void felix_rules(struct mctx *c, const struct at *at, struct jnode *spec, void *out) {
    (void)out;
    struct str name = c->obj->meta.name;
    struct str selector = jnode_str(member(spec, "nodeSelector"));
    if (selector.n && (str_is(name, "default") || str_starts(name, STR("node.")))) {
        model_fail_in(c, at, spec, "nodeSelector",
                      "not on %.*s, whose name already says which nodes it is for: remove it, or "
                      "give the object another name",
                      STR_FMT(name));
    }
    check_tables(c, at, spec);
    struct at ranges = {at, STR("kubeNodePortRanges"), 0}, item = {&ranges, STR_NULL, 0};
    jnode_each (n, member(spec, "kubeNodePortRanges")) {
        check_no_name(c, &item, n);
        item.i++;
    }
    static const char *const PORTS[] = {"natPortRange", "bpfPSNATPorts"};
    for (size_t i = 0; i < ARRAY_LEN(PORTS); i++) {
        struct at here = {at, str_c(PORTS[i]), 0};
        const struct jnode *n = member(spec, PORTS[i]);
        if (n) {
            check_no_name(c, &here, n);
        }
    }
    const struct jnode *dscp = member(spec, "istioDSCPMark");
    if (dscp && (dscp->type == J_INT || dscp->type == J_STR) && !is_dscp(dscp)) {
        model_fail_in(c, at, spec, "istioDSCPMark",
                      "found %s, allowed is 0 to 63, DF, EF, AF11 to AF43 or CS0 to CS6",
                      model_found(c, dscp));
    }
}

static const struct schema felix_spec = {
    .name = "FelixConfigurationSpec", FIELDS(FELIX_FIELDS), .rules = felix_rules};

static const struct column FELIX_COLUMNS[] = {{"NAME", "metadata.name", NULL, false}};

const struct kind_def def_felix_configuration = {
    .spec = &felix_spec,
    COLUMNS(FELIX_COLUMNS),
    .doc = "Settings of the agent. `default` holds for all nodes, `node.NAME` for one; another "
           "name for those that its nodeSelector selects.",
};
