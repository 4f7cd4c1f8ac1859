/* BGP's kinds, FelixConfiguration, KubeControllersConfiguration, CalicoNodeStatus,
 * ClusterInformation, Node: each rule both ways. */
#include "cases.h"

#define V3(kind, name) \
    "{'apiVersion':'projectcalico.org/v3','kind':'" kind "','metadata':{'name':'" name "'},"

/* ---- BGPConfiguration ---- */

static const struct doc_case CONFIGS[] = {
    {"", NULL, NULL},
    {"'logSeverityScreen':'debug','asNumber':64512,'nodeToNodeMeshEnabled':false", NULL, NULL},
    {"'logSeverityScreen':'loud'", "spec.logSeverityScreen", "Fatal"},
    {"'logSeverityScreen':''", NULL, NULL},
    {"'asNumber':4294967295", NULL, NULL},
    {"'asNumber':'1.10'", NULL, NULL},
    {"'asNumber':'64512'", NULL, NULL},
    {"'asNumber':4294967296", "spec.asNumber", "0 to 4294967295"},
    {"'asNumber':'1.65536'", "spec.asNumber", "an AS number"},
    {"'asNumber':'x'", "spec.asNumber", "an AS number"},
    {"'asNumber':-1", "spec.asNumber", "0 to 4294967295"},
    {"'serviceClusterIPs':[{'cidr':'10.96.0.0/12'}]", NULL, NULL},
    {"'serviceClusterIPs':[{'cidr':'10.96.0.1/12'}]", "spec.serviceClusterIPs[0].cidr",
     "write 10.96.0.0/12"},
    {"'serviceExternalIPs':['10.96.0.0/12']", "spec.serviceExternalIPs[0]", "a map"},
    {"'serviceLoadBalancerAggregation':'Maybe'", "spec.serviceLoadBalancerAggregation",
     "Enabled or Disabled"},
    {"'listenPort':179", NULL, NULL},
    {"'listenPort':0", "spec.listenPort", "1 to 65535"},
    {"'nodeMeshPassword':{'secretKeyRef':{'name':'s','key':'k'}}", NULL, NULL},
    {"'nodeMeshPassword':{'secretKeyRef':{'name':'s'}}", "spec.nodeMeshPassword.secretKeyRef.key",
     "is missing"},
    {"'nodeToNodeMeshEnabled':false,'nodeMeshPassword':{'secretKeyRef':{'name':'s','key':'k'}}",
     "spec.nodeMeshPassword", "switches off"},
    {"'nodeToNodeMeshEnabled':false,'nodeMeshMaxRestartTime':'2m'", "spec.nodeMeshMaxRestartTime",
     "switches off"},
    {"'nodeToNodeMeshEnabled':true,'nodeMeshMaxRestartTime':'2m'", NULL, NULL},
    {"'nodeMeshMaxRestartTime':'2 m'", "spec.nodeMeshMaxRestartTime", "a duration"},
    {"'communities':[{'name':'c','value':'1:2'}],'prefixAdvertisements':[{'cidr':'10.0.0.0/8',"
     "'communities':['c','65535:65535','4294967295:0:1']}]",
     NULL, NULL},
    {"'communities':[{'name':'c','value':'1:2'}]", "spec.communities", "no prefixAdvertisements"},
    {"'communities':[{'name':'c','value':'1:65536'}],'prefixAdvertisements':[{'cidr':"
     "'10.0.0.0/8','communities':['c']}]",
     "spec.communities[0].value", "a community"},
    {"'communities':[{'value':'1:2'}],'prefixAdvertisements':[{'cidr':'10.0.0.0/8',"
     "'communities':['1:2']}]",
     "spec.communities[0].name", "is missing"},
    {"'prefixAdvertisements':[{'cidr':'10.0.0.0/8','communities':['c']}]",
     "spec.prefixAdvertisements[0].communities[0]", "a name from communities"},
    {"'prefixAdvertisements':[{'cidr':'10.0.0.0/8'}]", "spec.prefixAdvertisements[0].communities",
     "is missing"},
    {"'prefixAdvertisements':[{'communities':['1:2']}]", "spec.prefixAdvertisements[0].cidr",
     "is missing"},
    {"'bindMode':'NodeIP'", NULL, NULL},
    {"'bindMode':'Any'", "spec.bindMode", "None or NodeIP"},
    {"'ignoredInterfaces':['docker*','eth0']", NULL, NULL},
    {"'ignoredInterfaces':['a/b']", "spec.ignoredInterfaces[0]", "an interface name"},
    {"'localWorkloadPeeringIPV4':'fd00::1'", "spec.localWorkloadPeeringIPV4", "an IPv4 address"},
    {"'localWorkloadPeeringIPV6':'10.0.0.1'", "spec.localWorkloadPeeringIPV6", "an IPv6 address"},
    {"'bmpStations':[{'address':'192.0.2.9'},{'address':'[fd00::9]:11019'}]", NULL, NULL},
    {"'bmpStations':[{'address':'station'}]", "spec.bmpStations[0].address", "station"},
    {"'bmpStations':[{'statisticsInterval':'1s'}]", "spec.bmpStations[0].address", "is missing"},
    {"'mrt':{'directory':'/var/log/bgp','keep':5}", NULL, NULL},
    {"'mrt':{'directory':'log'}", "spec.mrt.directory", "an absolute path"},
    {"'mrt':{'directory':'/a','keep':0}", "spec.mrt.keep", "1 to 100000"},
    {"'ipv4NormalRoutePriority':0", "spec.ipv4NormalRoutePriority", "1 to 2147483646"},
    {"'meshEnabled':true", "spec.meshEnabled", "unknown field"},
};

static const struct doc_case NODE_CONFIGS[] = {
    {"'listenPort':1790", NULL, NULL},
    {"'asNumber':64512", "spec.asNumber", "only on the BGPConfiguration default"},
    {"'nodeToNodeMeshEnabled':true", "spec.nodeToNodeMeshEnabled", "only on"},
    {"'serviceLoadBalancerIPs':[]", "spec.serviceLoadBalancerIPs", "only on"},
    {"'serviceExternalIPs':[]", "spec.serviceExternalIPs", "only on"},
    {"'serviceClusterIPs':[]", "spec.serviceClusterIPs", "only on"},
};

static void t_bgp_configuration(void **state) {
    (void)state;
    run_cases(CONFIGS, ARRAY_LEN(CONFIGS), V3("BGPConfiguration", "default") "'spec':{", "}}");
    run_cases(NODE_CONFIGS, ARRAY_LEN(NODE_CONFIGS), V3("BGPConfiguration", "node.n") "'spec':{",
              "}}");
}

/* ---- BGPPeer ---- */

static const struct doc_case PEERS[] = {
    {"'peerIP':'10.0.0.1','asNumber':64512", NULL, NULL},
    {"'peerIP':'10.0.0.1:1790'", NULL, NULL},
    {"'peerIP':'[fd00::1]:1790'", NULL, NULL},
    {"'peerIP':'fd00::1'", NULL, NULL},
    {"'peerIP':'10.0.0.1:0'", "spec.peerIP", "ADDRESS:PORT"},
    {"'peerIP':'10.0.0.1:65536'", "spec.peerIP", "ADDRESS:PORT"},
    {"'peerIP':'[10.0.0.1]:179'", "spec.peerIP", "ADDRESS:PORT"},
    {"'peerIP':'peer.example.org'", "spec.peerIP", "ADDRESS:PORT"},
    {"'node':'n','nodeSelector':'all()'", "spec.node", "nodeSelector"},
    {"'node':'','nodeSelector':'all()'", NULL, NULL},
    {"'node':'N'", "spec.node", "lower-case"},
    {"'peerIP':'10.0.0.1','peerSelector':'all()'", "spec.peerIP", "peerSelector"},
    {"'peerSelector':'all()'", NULL, NULL},
    {"'peerSelector':'all()','asNumber':1", "spec.asNumber", "peerSelector"},
    {"'peerSelector':'all()','asNumber':0", NULL, NULL},
    {"'peerIP':'10.0.0.1','reachableBy':'10.0.0.254'", NULL, NULL},
    {"'peerIP':'[fd00::1]:179','reachableBy':'fd00::ff'", NULL, NULL},
    {"'reachableBy':'10.0.0.254'", "spec.reachableBy", "needs peerIP"},
    {"'peerIP':'fd00::1','reachableBy':'10.0.0.254'", "spec.reachableBy", "family of peerIP"},
    {"'peerIP':'10.0.0.1:179','reachableBy':'fd00::1'", "spec.reachableBy", "family of peerIP"},
    {"'peerIP':'10.0.0.1','reachableBy':'x'", "spec.reachableBy", "an address"},
    {"'keepOriginalNextHop':true", NULL, NULL},
    {"'keepOriginalNextHop':false,'nextHopMode':'Self'", NULL, NULL},
    {"'keepOriginalNextHop':true,'nextHopMode':'Self'", "spec.keepOriginalNextHop", "nextHopMode"},
    {"'nextHopMode':'self'", "spec.nextHopMode", "Auto, Self or Keep"},
    {"'localWorkloadSelector':'has(a)','asNumber':1", NULL, NULL},
    {"'localWorkloadSelector':'has(a)'", "spec.asNumber", "localWorkloadSelector needs it"},
    {"'localWorkloadSelector':'has(a)','asNumber':1,'peerIP':'10.0.0.1'", "spec.peerIP",
     "localWorkloadSelector"},
    {"'localWorkloadSelector':'has(a)','peerSelector':'all()'", "spec.asNumber", "is missing"},
    {"'sourceAddress':'Any'", "spec.sourceAddress", "UseNodeIP or None"},
    {"'ttlSecurity':256", "spec.ttlSecurity", "0 to 255"},
    {"'maxRestartTime':'1m30s','keepaliveTime':'20s'", NULL, NULL},
    {"'maxRestartTime':90", "spec.maxRestartTime", "in quotes"},
    {"'filters':['a','B']", "spec.filters[1]", "lower-case"},
    {"'password':{}", NULL, NULL},
    {"'reversePeering':''", NULL, NULL},
    {"'reversePeering':'Both'", "spec.reversePeering", "Auto or Manual"},
    {"'peerip':'10.0.0.1'", "spec.peerip", "did you mean peerIP?"},
};

static void t_bgp_peer(void **state) {
    (void)state;
    run_cases(PEERS, ARRAY_LEN(PEERS), V3("BGPPeer", "p") "'spec':{", "}}");
}

/* ---- BGPFilter ---- */

static const struct doc_case FILTERS[] = {
    {"'importV4':[{'action':'Accept'}]", NULL, NULL},
    {"'importV4':[{'action':'Accept','cidr':'10.0.0.0/8','matchOperator':'In',"
     "'prefixLength':{'min':8,'max':32},'source':'RemotePeers','interface':'eth*',"
     "'peerType':'eBGP','communities':{'values':['1:2']},'asPathPrefix':[64512,'1.1'],"
     "'priority':5,'operations':[{'addCommunity':{'value':'1:2'}},{'prependASPath':"
     "{'prefix':[1]}},{'setPriority':{'value':1}}]}]",
     NULL, NULL},
    {"'exportV6':[{'action':'Reject','cidr':'fd00::/8','matchOperator':'NotEqual',"
     "'prefixLength':{'max':128}}]",
     NULL, NULL},
    {"'importV4':[{}]", "spec.importV4[0].action", "is missing"},
    {"'importV4':[{'action':'Allow'}]", "spec.importV4[0].action", "Accept or Reject"},
    {"'importV4':[{'action':'Accept','cidr':'10.0.0.0/8'}]", "spec.importV4[0].matchOperator",
     "need each other"},
    {"'importV4':[{'action':'Accept','matchOperator':'In'}]", "spec.importV4[0].cidr",
     "need each other"},
    {"'importV4':[{'action':'Accept','prefixLength':{'min':1}}]", "spec.importV4[0].prefixLength",
     "needs cidr"},
    {"'importV4':[{'action':'Accept','cidr':'fd00::/8','matchOperator':'In'}]",
     "spec.importV4[0].cidr", "an IPv4 prefix"},
    {"'importV6':[{'action':'Accept','cidr':'10.0.0.0/8','matchOperator':'In'}]",
     "spec.importV6[0].cidr", "an IPv6 prefix"},
    {"'importV4':[{'action':'Accept','cidr':'10.0.0.0/8','matchOperator':'In','prefixLength':"
     "{'min':33}}]",
     "spec.importV4[0].prefixLength.min", "0 to 32"},
    {"'importV6':[{'action':'Accept','cidr':'fd00::/8','matchOperator':'In','prefixLength':"
     "{'max':129}}]",
     "spec.importV6[0].prefixLength.max", "0 to 128"},
    {"'importV4':[{'action':'Accept','source':'All'}]", "spec.importV4[0].source", "RemotePeers"},
    {"'importV4':[{'action':'Accept','peerType':'BGP'}]", "spec.importV4[0].peerType", "iBGP"},
    {"'importV4':[{'action':'Accept','communities':{'values':['1:2','3:4']}}]",
     "spec.importV4[0].communities.values", "1 to 1"},
    {"'importV4':[{'action':'Accept','communities':{'values':['x']}}]",
     "spec.importV4[0].communities.values[0]", "a community"},
    {"'importV4':[{'action':'Accept','priority':0}]", "spec.importV4[0].priority",
     "1 to 2147483646"},
    {"'importV4':[{'action':'Reject','operations':[{'setPriority':{'value':1}}]}]",
     "spec.importV4[0].operations", "action Reject"},
    {"'importV4':[{'action':'Accept','operations':[]}]", "spec.importV4[0].operations", "1 to 10"},
    {"'importV4':[{'action':'Accept','operations':[{}]}]", "spec.importV4[0].operations[0]",
     "found 0 operations"},
    {"'importV4':[{'action':'Accept','operations':[{'setPriority':{'value':1},'addCommunity':"
     "{'value':'1:2'}}]}]",
     "spec.importV4[0].operations[0]", "found 2 operations"},
    {"'importV4':[{'action':'Accept','operations':[{'prependASPath':{'prefix':[]}}]}]",
     "spec.importV4[0].operations[0].prependASPath.prefix", "1 to 10"},
    {"'importV4':[{'action':'Accept','operations':[{'prependASPath':{'prefix':[4294967296]}}]}]",
     "spec.importV4[0].operations[0].prependASPath.prefix[0]", "0 to 4294967295"},
    {"'importV4':[{'action':'Accept','operations':[{'setPriority':{}}]}]",
     "spec.importV4[0].operations[0].setPriority.value", "is missing"},
};

static void t_bgp_filter(void **state) {
    (void)state;
    run_cases(FILTERS, ARRAY_LEN(FILTERS), V3("BGPFilter", "f") "'spec':{", "}}");
}

/* ---- FelixConfiguration ---- */

static const struct doc_case FELIX[] = {
    {"", NULL, NULL},
    {"'bpfEnabled':true,'logSeverityScreen':'INFO','iptablesBackend':'nft'", NULL, NULL},
    {"'routeRefreshInterval':'1m30s'", NULL, NULL},
    {"'routeRefreshInterval':'1.5h'", NULL, NULL},
    {"'routeRefreshInterval':''", NULL, NULL},
    {"'routeRefreshInterval':'-1s'", "spec.routeRefreshInterval", "a duration"},
    {"'routeRefreshInterval':'90'", "spec.routeRefreshInterval", "a duration"},
    {"'routeRefreshInterval':90", "spec.routeRefreshInterval", "in quotes"},
    {"'routeRefreshInterval':'5us'", "spec.routeRefreshInterval", "a duration"},
    {"'nftablesRefreshInterval':'5us'", NULL, NULL},
    {"'routeTableRange':{'min':1,'max':250}", NULL, NULL},
    {"'routeTableRange':{'min':0,'max':250}", "spec.routeTableRange.min", "1 to 250"},
    {"'routeTableRange':{'min':1,'max':251}", "spec.routeTableRange.max", "to 250"},
    {"'routeTableRange':{'min':5,'max':4}", "spec.routeTableRange.max", "5 (min)"},
    {"'routeTableRange':{'min':5}", "spec.routeTableRange.max", "is missing"},
    {"'routeTableRanges':[{'min':1,'max':65535}]", NULL, NULL},
    {"'routeTableRanges':[{'min':1,'max':65535},{'min':70000,'max':70000}]",
     "spec.routeTableRanges", "found 65536 tables"},
    {"'routeTableRanges':[{'min':0,'max':5}]", "spec.routeTableRanges[0].min", "1 to"},
    {"'routeTableRanges':[{'min':1,'max':2},{'min':5,'max':4}]", "spec.routeTableRanges[1].max",
     "5 (min)"},
    {"'routeTableRange':{'min':1,'max':2},'routeTableRanges':[{'min':1,'max':2}]",
     "spec.routeTableRange", "routeTableRanges"},
    {"'kubeNodePortRanges':['30000:32767',8080]", NULL, NULL},
    {"'kubeNodePortRanges':['web']", "spec.kubeNodePortRanges[0]", "range of numbers"},
    {"'kubeNodePortRanges':[1,2,3,4,5,6,7,8]", "spec.kubeNodePortRanges", "0 to 7"},
    {"'natPortRange':'1000:2000'", NULL, NULL},
    {"'natPortRange':'web'", "spec.natPortRange", "range of numbers"},
    {"'bpfPSNATPorts':'2000:1000'", "spec.bpfPSNATPorts", "swap them"},
    {"'natOutgoingAddress':'10.0.0.1'", NULL, NULL},
    {"'natOutgoingAddress':'fd00::1'", "spec.natOutgoingAddress", "an IPv4 address"},
    {"'deviceRouteSourceAddress':'fd00::1'", "spec.deviceRouteSourceAddress", "an IPv4 address"},
    {"'deviceRouteSourceAddressIPv6':'10.0.0.1'", "spec.deviceRouteSourceAddressIPv6",
     "an IPv6 address"},
    {"'nodeSelector':'has(a)'", "spec.nodeSelector", "not on default"},
    {"'failsafeInboundHostPorts':[{'protocol':'tcp','port':22,'net':'10.0.0.0/8'}]", NULL, NULL},
    {"'failsafeInboundHostPorts':[]", NULL, NULL},
    {"'failsafeInboundHostPorts':[{'protocol':'icmp','port':22}]",
     "spec.failsafeInboundHostPorts[0].protocol", "TCP, UDP or SCTP"},
    {"'failsafeOutboundHostPorts':[{'protocol':'udp'}]", "spec.failsafeOutboundHostPorts[0].port",
     "is missing"},
    {"'failsafeOutboundHostPorts':[{'port':1}]", "spec.failsafeOutboundHostPorts[0].protocol",
     "is missing"},
    {"'featureDetectOverride':'A=true,B=false,C='", NULL, NULL},
    {"'featureDetectOverride':'A=1'", "spec.featureDetectOverride", "Name=true"},
    {"'featureGates':'A=1,B=x'", NULL, NULL},
    {"'featureGates':'A'", "spec.featureGates", "Name=value"},
    {"'logPrefix':'calico %t: /x-'", NULL, NULL},
    {"'logPrefix':'a;b'", "spec.logPrefix", "text of A-Z"},
    {"'logActionRateLimit':'10/second'", NULL, NULL},
    {"'logActionRateLimit':'0/second'", "spec.logActionRateLimit", "a rate"},
    {"'logActionRateLimit':'10/week'", "spec.logActionRateLimit", "a rate"},
    {"'logActionRateLimitBurst':10000", "spec.logActionRateLimitBurst", "0 to 9999"},
    {"'logDebugFilenameRegex':'a('", "spec.logDebugFilenameRegex", "a regular expression"},
    {"'logDebugFilenameRegex':'^(a|b)[c-]+$'", NULL, NULL},
    {"'iptablesMarkMask':4294967295", NULL, NULL},
    {"'iptablesMarkMask':4294967296", "spec.iptablesMarkMask", "0 to 4294967295"},
    {"'prometheusMetricsHost':'0.0.0.0'", NULL, NULL},
    {"'prometheusMetricsHost':'a b'", "spec.prometheusMetricsHost", "a host name"},
    {"'iptablesNATOutgoingInterfaceFilter':'eth+'", NULL, NULL},
    {"'iptablesNATOutgoingInterfaceFilter':'e+h'", "spec.iptablesNATOutgoingInterfaceFilter",
     "may end in +"},
    {"'wireguardInterfaceName':'wireguard.cali.x'", "spec.wireguardInterfaceName", "1 to 15"},
    {"'wireguardRoutingRulePriority':32766", "spec.wireguardRoutingRulePriority", "1 to 32765"},
    {"'goMaxProcs':-1", NULL, NULL},
    {"'goMaxProcs':-2", "spec.goMaxProcs", "-1 to"},
    {"'istioDSCPMark':63", NULL, NULL},
    {"'istioDSCPMark':'af11'", NULL, NULL},
    {"'istioDSCPMark':64", "spec.istioDSCPMark", "0 to 63"},
    {"'istioDSCPMark':'CS9'", "spec.istioDSCPMark", "CS0 to CS6"},
    {"'bpfConntrackTimeouts':{'tcpSynSent':'20s','tcpFinsSeen':'Auto'}", NULL, NULL},
    {"'bpfConntrackTimeouts':{'tcpSynSent':'auto'}", "spec.bpfConntrackTimeouts.tcpSynSent",
     "or Auto"},
    {"'bpfLogFilters':{'all':'tcp'}", NULL, NULL},
    {"'bpfLogFilters':{'all':1}", "spec.bpfLogFilters.all", "in quotes"},
    {"'bpfDSROptoutCIDRs':['10.0.0']", "spec.bpfDSROptoutCIDRs[0]", "a prefix"},
    {"'healthTimeoutOverrides':[{'name':'x','timeout':'90s'}]", NULL, NULL},
    {"'healthTimeoutOverrides':[{'name':'x'}]", "spec.healthTimeoutOverrides[0].timeout",
     "is missing"},
    {"'defaultEndpointToHostAction':'ACCEPT'", NULL, NULL},
    {"'defaultEndpointToHostAction':'Pass'", "spec.defaultEndpointToHostAction",
     "Drop, Accept or Return"},
    {"'serviceLoopPrevention':'drop'", "spec.serviceLoopPrevention", "Drop, Reject or Disabled"},
    {"'ipv6support':true", "spec.ipv6support", "did you mean ipv6Support?"},
    {"'ipv6Support':'true'", "spec.ipv6Support", "without quotes"},
};

static const struct doc_case FELIX_NODE[] = {
    {"'nodeSelector':'has(a)'", "spec.nodeSelector", "not on node.n"},
};
static const struct doc_case FELIX_FREE[] = {
    {"'nodeSelector':'has(a)'", NULL, NULL},
};

static void t_felix(void **state) {
    (void)state;
    run_cases(FELIX, ARRAY_LEN(FELIX), V3("FelixConfiguration", "default") "'spec':{", "}}");
    run_cases(FELIX_NODE, ARRAY_LEN(FELIX_NODE), V3("FelixConfiguration", "node.n") "'spec':{",
              "}}");
    run_cases(FELIX_FREE, ARRAY_LEN(FELIX_FREE), V3("FelixConfiguration", "mine") "'spec':{", "}}");
}

/* ---- the rest ---- */

static const struct doc_case CLUSTER[] = {
    {"'KubeControllersConfiguration','metadata':{'name':'default'},'spec':{'controllers':{'node':"
     "{'reconcilerPeriod':'5m','syncLabels':'Enabled','hostEndpoint':{'autoCreate':'Enabled',"
     "'templates':[{'generateName':'x','interfaceCIDRs':['10.0.0.0/8'],'labels':{'a':'b'}}]}},"
     "'loadBalancer':{'assignIPs':'AllServices'}}}",
     NULL, NULL},
    {"'KubeControllersConfiguration','metadata':{'name':'default'},'spec':{},'status':{'x':1}",
     NULL, NULL},
    {"'KubeControllersConfiguration','metadata':{'name':'mine'},'spec':{}", "metadata.name",
     "only one"},
    {"'KubeControllersConfiguration','metadata':{'name':'default'},'spec':{'logSeverityScreen':"
     "'Trace'}",
     "spec.logSeverityScreen", "Panic"},
    {"'KubeControllersConfiguration','metadata':{'name':'default'},'spec':{"
     "'prometheusMetricsPort':65536}",
     "spec.prometheusMetricsPort", "0 to 65535"},
    {"'KubeControllersConfiguration','metadata':{'name':'default'},'spec':{'controllers':{'nod':"
     "{}}}",
     "spec.controllers.nod", "did you mean node?"},
    {"'KubeControllersConfiguration','metadata':{'name':'default'},'spec':{'controllers':{'node':"
     "{'hostEndpoint':{'templates':[{'labels':{'a':'b c'}}]}}}}",
     "spec.controllers.node.hostEndpoint.templates[0].labels.a", "a label's value"},
    {"'CalicoNodeStatus','metadata':{'name':'s'},'spec':{'node':'n','classes':['Agent','BGP'],"
     "'updatePeriodSeconds':0},'status':{'x':[]}",
     NULL, NULL},
    {"'CalicoNodeStatus','metadata':{'name':'s'},'spec':{'node':'n','classes':['Agent'],"
     "'updatePeriodSeconds':86401}",
     "spec.updatePeriodSeconds", "0 to 86400"},
    {"'CalicoNodeStatus','metadata':{'name':'s'},'spec':{'node':'n','classes':['Agent','Agent'],"
     "'updatePeriodSeconds':1}",
     "spec.classes", "twice"},
    {"'CalicoNodeStatus','metadata':{'name':'s'},'spec':{'node':'n','classes':['All'],"
     "'updatePeriodSeconds':1}",
     "spec.classes[0]", "Agent, BGP or Routes"},
    {"'CalicoNodeStatus','metadata':{'name':'s'},'spec':{'node':'n','updatePeriodSeconds':1}",
     "spec.classes", "is missing"},
    {"'CalicoNodeStatus','metadata':{'name':'s'},'spec':{'classes':['BGP'],"
     "'updatePeriodSeconds':1}",
     "spec.node", "is missing"},
    {"'ClusterInformation','metadata':{'name':'default'},'spec':{'datastoreReady':true}", NULL,
     NULL},
    {"'ClusterInformation','metadata':{'name':'x'}", "metadata.name", "only one"},
    {"'ClusterInformation','metadata':{'name':'default'},'spec':{'datastoreReady':'yes'}",
     "spec.datastoreReady", "true or false"},
    {"'Node','metadata':{'name':'n'},'spec':{'bgp':{'ipv4Address':'10.0.0.1/24','asNumber':1},"
     "'orchRefs':[{'nodeName':'n','orchestrator':'k8s'}],'addresses':[{'address':'10.0.0.1',"
     "'type':'InternalIP'}]}",
     NULL, NULL},
    {"'Node','metadata':{'name':'n'},'spec':{}", NULL, NULL},
    {"'Node','metadata':{'name':'n'},'spec':{'bgp':{}}", "spec.bgp", "empty map"},
    {"'Node','metadata':{'name':'n'},'spec':{'bgp':{'ipv4Address':''}}", "spec.bgp", "empty map"},
    {"'Node','metadata':{'name':'n'},'spec':{'bgp':{'ipv4Address':'fd00::1'}}",
     "spec.bgp.ipv4Address", "an IPv4 address"},
    {"'Node','metadata':{'name':'n'},'spec':{'bgp':{'ipv6Address':'10.0.0.1'}}",
     "spec.bgp.ipv6Address", "an IPv6 address"},
    {"'Node','metadata':{'name':'n'},'spec':{'bgp':{'routeReflectorClusterID':'x'}}",
     "spec.bgp.routeReflectorClusterID", "an IPv4 address"},
    {"'Node','metadata':{'name':'n'},'spec':{'vxlanTunnelMACAddr':'66:00'}",
     "spec.vxlanTunnelMACAddr", "a MAC address"},
    {"'Node','metadata':{'name':'n'},'spec':{'wireguard':{'interfaceIPv4Address':'fd00::1'}}",
     "spec.wireguard.interfaceIPv4Address", "an IPv4 address"},
    {"'Node','metadata':{'name':'n'},'spec':{'orchRefs':[{'nodeName':'n'}]}",
     "spec.orchRefs[0].orchestrator", "is missing"},
};

static void t_cluster_kinds(void **state) {
    (void)state;
    run_cases(CLUSTER, ARRAY_LEN(CLUSTER), "{'apiVersion':'projectcalico.org/v3','kind':", "}");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_bgp_configuration), cmocka_unit_test(t_bgp_peer),
        cmocka_unit_test(t_bgp_filter),        cmocka_unit_test(t_felix),
        cmocka_unit_test(t_cluster_kinds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
