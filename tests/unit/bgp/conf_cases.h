/* What resources mean for a node: documents in, the configuration as bgp_conf_print says it out.
 * The decisions are Calico's (confd/tests/compiled_templates, confd/pkg/backends/calico). */
#pragma once

#define NODE(name, ip, more)                                               \
    "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: " name \
    ", labels: {host: " name "}}\nspec: {bgp: {ipv4Address: " ip more "}}\n---\n"
#define V3(kind, name, spec)                                                                    \
    "apiVersion: projectcalico.org/v3\nkind: " kind "\nmetadata: {name: " name "}\nspec: " spec \
    "\n---\n"
#define CONFIG(spec) V3("BGPConfiguration", "default", spec)
#define PEER(name, spec) V3("BGPPeer", name, spec)
#define ABC NODE("a", "10.0.0.1/24", "") NODE("b", "10.0.0.2/24", "") NODE("c", "10.0.0.10/24", "")
#define NO_MESH CONFIG("{nodeToNodeMeshEnabled: false}")
#define SECRET                                                                                     \
    "apiVersion: v1\nkind: Secret\nmetadata: {name: pw, namespace: kube-system}\nstringData: {k: " \
    "s3cret}\n---\n"
#define SERVICE(name, spec, status)                                                          \
    "apiVersion: v1\nkind: Service\nmetadata: {name: " name ", namespace: web}\nspec: " spec \
    "\nstatus: " status "\n---\n"
#define SLICE(name, node, ready)                                                          \
    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: " name        \
    "-1, namespace: web, labels: {kubernetes.io/service-name: " name                      \
    "}}\naddressType: IPv4\nports: [{port: 80, protocol: TCP}]\nendpoints: [{addresses: " \
    "[10.1.1.1], nodeName: " node ", conditions: {ready: " ready "}}]\n---\n"
#define POOL(name, cidr, more) V3("IPPool", name, "{cidr: " cidr more "}")
#define BLOCK(name, node, cidr, state) \
    V3("BlockAffinity", name, "{node: " node ", cidr: " cidr ", state: " state ", deleted: false}")

static const struct conf_case {
    const char *name, *node, *yaml, *want;
} CASES[] = {
    {"no node", "x", ABC,
     "speaker as=64512 id=17.246.173.142 port=179\n"
     "problem Node x: there is no such Node, so it has no peers\n"},
    /* Texts are compared: 10.0.0.10 < 10.0.0.2. */
    {"mesh, lowest", "a", ABC,
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "peer Mesh_10_0_0_10 type=mesh ip=10.0.0.10 as=64512 source=10.0.0.1 passive "
     "IPv4(addPaths=both)\n"
     "peer Mesh_10_0_0_2 type=mesh ip=10.0.0.2 as=64512 source=10.0.0.1 passive "
     "IPv4(addPaths=both)\n"},
    {"mesh, compared as text", "b", ABC,
     "speaker as=64512 id=10.0.0.2 port=179\n"
     "peer Mesh_10_0_0_1 type=mesh ip=10.0.0.1 as=64512 source=10.0.0.2 IPv4(addPaths=both)\n"
     "peer Mesh_10_0_0_10 type=mesh ip=10.0.0.10 as=64512 source=10.0.0.2 "
     "IPv4(addPaths=both)\n"},
    {"mesh with password, restart time, ports, AS", "a",
     CONFIG("{asNumber: 65000, listenPort: 1790, nodeMeshPassword: {secretKeyRef: {name: pw, key: "
            "k}}, nodeMeshMaxRestartTime: 5m}") SECRET NODE("a", "10.0.0.1/24", "")
         NODE("b", "10.0.0.2/24", ", asNumber: 65002")
             V3("BGPConfiguration", "node.b", "{listenPort: 999}"),
     "speaker as=65000 id=10.0.0.1 port=1790\n"
     "peer Mesh_10_0_0_2 type=mesh ip=10.0.0.2 port=999 as=65002 source=10.0.0.1 passive "
     "restartTime=300 password IPv4(addPaths=both)\n"},
    {"mesh of both families", "a",
     NODE("a", "10.0.0.1/24", ", ipv6Address: 'fd00::1/64'")
         NODE("b", "10.0.0.2/24", ", ipv6Address: 'fd00::2/64'"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "peer Mesh_10_0_0_2 type=mesh ip=10.0.0.2 as=64512 source=10.0.0.1 passive "
     "IPv4(addPaths=both)\n"
     "peer Mesh_fd00__2 type=mesh ip=fd00::2 as=64512 source=fd00::1 passive "
     "IPv6(addPaths=both)\n"},
    {"a reflector is in no mesh", "a",
     NODE("a", "10.0.0.1/24", "") NODE("b", "10.0.0.2/24", ", routeReflectorClusterID: 1.0.0.1"),
     "speaker as=64512 id=10.0.0.1 port=179\n"},
    {"reflector: peers by selector, clients but its own cluster's", "b",
     NO_MESH NODE("a", "10.0.0.1/24", "")
         NODE("b", "10.0.0.2/24", ", routeReflectorClusterID: 1.0.0.1")
             NODE("c", "10.0.0.3/24", ", routeReflectorClusterID: 1.0.0.1")
                 NODE("d", "10.0.0.4/24", ", routeReflectorClusterID: 1.0.0.2")
                     PEER("rr", "{nodeSelector: all(), peerSelector: \"host in {'b','c','d'}\"}"),
     "speaker as=64512 id=10.0.0.2 cluster=1.0.0.1 port=179\n"
     "peer Node_10_0_0_1 type=node of=rr ip=10.0.0.1 as=64512 source=10.0.0.2 client "
     "IPv4(addPaths=both)\n"
     "peer Node_10_0_0_3 type=node of=rr ip=10.0.0.3 as=64512 source=10.0.0.2 "
     "IPv4(addPaths=both)\n"
     "peer Node_10_0_0_4 type=node of=rr ip=10.0.0.4 as=64512 source=10.0.0.2 client "
     "IPv4(addPaths=both)\n"},
    {"reflector's client", "a",
     NO_MESH NODE("a", "10.0.0.1/24", "")
         NODE("b", "10.0.0.2/24", ", routeReflectorClusterID: 1.0.0.1")
             PEER("rr", "{node: a, peerSelector: host == 'b'}"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "peer Node_10_0_0_2 type=node of=rr ip=10.0.0.2 as=64512 source=10.0.0.1 "
     "IPv4(addPaths=both)\n"},
    {"the selected side peers back", "b",
     NO_MESH ABC PEER("rr", "{node: a, peerSelector: host == 'b'}"),
     "speaker as=64512 id=10.0.0.2 port=179\n"
     "peer Node_10_0_0_1 type=node of=rr ip=10.0.0.1 as=64512 source=10.0.0.2 "
     "IPv4(addPaths=both)\n"},
    {"… but not with reversePeering Manual", "b",
     NO_MESH ABC PEER("rr", "{node: a, peerSelector: host == 'b', reversePeering: Manual}"),
     "speaker as=64512 id=10.0.0.2 port=179\n"},
    {"global peer and node peers, options", "a",
     NO_MESH ABC SECRET PEER("tor",
                             "{peerIP: 192.0.2.1, asNumber: 65001, ttlSecurity: 1, "
                             "keepOriginalNextHop: true, maxRestartTime: 10s, keepaliveTime: 7s}")
         PEER("tor2",
              "{node: a, peerIP: '192.0.2.2:1179', asNumber: 65001, localASNumber: 65009, "
              "sourceAddress: None, numAllowedLocalASNumbers: 2, nextHopMode: Self, password: "
              "{secretKeyRef: {name: pw, key: k}}}")
             PEER("tor3", "{nodeSelector: \"host == 'a'\", peerIP: 192.0.2.3, asNumber: 65001, "
                          "reachableBy: 10.0.0.254}") PEER("other", "{node: b, peerIP: 192.0.2.4}"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "peer Global_192_0_2_1 type=global of=tor ip=192.0.2.1 as=65001 source=10.0.0.1 "
     "nextHop=keep "
     "restartTime=10 keepalive=7 ttlSecurity=1 IPv4(addPaths=both)\n"
     "peer Node_192_0_2_2_port_1179 type=node of=tor2 ip=192.0.2.2 port=1179 as=65001 "
     "localAS=65009 nextHop=self allowOwnAS=2 password IPv4(addPaths=both)\n"
     "peer Node_192_0_2_3 type=node of=tor3 ip=192.0.2.3 as=65001 source=10.0.0.1 "
     "reachableBy=10.0.0.254 IPv4(addPaths=both)\n"},
    {"keepOriginalNextHop is for external peers alone", "a",
     NO_MESH ABC PEER("p", "{peerIP: 192.0.2.1, keepOriginalNextHop: true}"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "peer Global_192_0_2_1 type=global of=p ip=192.0.2.1 as=64512 source=10.0.0.1 "
     "IPv4(addPaths=both)\n"},
    {"a global peer of the same address wins", "a",
     NO_MESH ABC PEER("a", "{node: a, peerIP: 192.0.2.1, asNumber: 1}") PEER(
         "b", "{peerIP: 192.0.2.1, asNumber: 2}") PEER("c", "{peerIP: 192.0.2.1, asNumber: 3}"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "peer Global_192_0_2_1 type=global of=b ip=192.0.2.1 as=2 source=10.0.0.1 "
     "IPv4(addPaths=both)\n"},
    {"a global peer that is a node: port, passive", "a",
     NO_MESH ABC V3("BGPConfiguration", "node.b", "{listenPort: 1791}")
         PEER("p", "{peerIP: 10.0.0.2}"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "peer Global_10_0_0_2_port_1791 type=global of=p ip=10.0.0.2 port=1791 as=64512 "
     "source=10.0.0.1 passive IPv4(addPaths=both)\n"},
    {"no address of the family", "a", NO_MESH ABC PEER("p", "{peerIP: 'fd00::9', asNumber: 1}"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "problem BGPPeer p: node a has no IPv6 address to peer from\n"},
    {"no secret", "a",
     NO_MESH ABC PEER("p", "{peerIP: 192.0.2.1, asNumber: 1, password: {secretKeyRef: {name: pw, "
                           "key: k}}}"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "peer Global_192_0_2_1 type=global of=p ip=192.0.2.1 as=1 source=10.0.0.1 "
     "IPv4(addPaths=both)\n"
     "problem BGPPeer p: there is no password in Secret pw, key k: the session has none until "
     "it "
     "appears\n"},
    {"Margay's own fields", "a",
     NO_MESH NODE("a", "10.0.0.1/24", ", ipv6Address: 'fd00::1/64'") PEER(
         "p", "{peerIP: 'fd00::9', asNumber: 65001, passive: true, holdTime: 9s, connectRetryTime: "
              "2s, "
              "addressFamilies: [IPv4, IPv6], addPaths: Receive, gracefulRestart: HelperOnly, "
              "longLivedRestartTime: 1h, maxPrefixes: 1000, extendedMessages: true, "
              "extendedNextHop: true, bfd: {minimumReceiveInterval: 50ms, multiplier: 5}, role: "
              "Customer}")
         PEER("q", "{peerCIDR: 10.9.0.0/16, asNumber: 65002, holdTime: 0s, gracefulRestart: "
                   "Disabled, shutdown: maintenance}"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "peer Global_fd00__9 type=global of=p ip=fd00::9 as=65001 source=fd00::1 passive "
     "restart=helper hold=9 connectRetry=2 extendedMessages extendedNextHop role=3 "
     "bfd=50000/300000/5 IPv4(addPaths=receive maxPrefixes=1000 longLived=3600) "
     "IPv6(addPaths=receive maxPrefixes=1000 longLived=3600)\n"
     "peer Range_q type=global of=q range=10.9.0.0/16 as=65002 source=10.0.0.1 passive "
     "restart=off hold=none shutdown=maintenance IPv4(addPaths=both)\n"},
    {"asdot, link-local by interface", "a",
     NO_MESH NODE("a", "10.0.0.1/24", ", asNumber: '1.1'")
         PEER("p", "{peerIP: 'fe80::9', interface: eth1, asNumber: 65001}"),
     "speaker as=65537 id=10.0.0.1 port=179\n"
     "peer Global_fe80__9 type=global of=p ip=fe80::9 interface=eth1 as=65001 "
     "IPv6(addPaths=both)\n"},
    {"stations, files and the address for pods", "a",
     "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\nspec: "
     "{nodeToNodeMeshEnabled: false, localWorkloadPeeringIPV4: 169.254.100.1, bmpStations: "
     "[{address: 192.0.2.9}, {address: '[2001:db8::9]:1790', statisticsInterval: 0s}], mrt: "
     "{directory: /var/log/bgp, tableInterval: 2h}}\n---\n" ABC PEER(
         "w",
         "{localWorkloadSelector: app == 'r', asNumber: 65010}") "apiVersion: "
                                                                 "projectcalico.org/v3\nkind: "
                                                                 "WorkloadEndpoint\nmetadata: "
                                                                 "{name: "
                                                                 "a-k8s-r--1-eth0, namespace: d, "
                                                                 "labels: {app: r}}\nspec: "
                                                                 "{orchestrator: k8s, node: a, "
                                                                 "pod: r-1, endpoint: eth0, "
                                                                 "interfaceName: cali1, "
                                                                 "ipNetworks: "
                                                                 "[10.44.0.5/32]}\n---\n",
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "peer Local_Workload_10_44_0_5 type=workload of=w ip=10.44.0.5 as=65010 passive "
     "IPv4(addPaths=both)\n"
     "local cali1 ip=169.254.100.1\n"
     "bmp 192.0.2.9 port=11019 statistics=60s\n"
     "bmp 2001:db8::9 port=1790 statistics=0s\n"
     "mrt /var/log/bgp rotate=900s table=7200s keep=100\n"},
    {"pods as peers", "a",
     NO_MESH ABC PEER("w", "{localWorkloadSelector: app == 'r', asNumber: 65010, maxPrefixes: "
                           "5}") "apiVersion: projectcalico.org/v3\nkind: "
                                 "WorkloadEndpoint\nmetadata: {name: "
                                 "a-k8s-r--1-eth0, namespace: d, labels: {app: r}}\nspec: "
                                 "{orchestrator: k8s, node: a, pod: "
                                 "r-1, endpoint: eth0, interfaceName: cali1, ipNetworks: "
                                 "[10.44.0.5/32]}\n---\n"
                                 "apiVersion: projectcalico.org/v3\nkind: "
                                 "WorkloadEndpoint\nmetadata: {name: "
                                 "b-k8s-r--2-eth0, namespace: d, labels: {app: r}}\nspec: "
                                 "{orchestrator: k8s, node: b, pod: "
                                 "r-2, endpoint: eth0, interfaceName: cali2, ipNetworks: "
                                 "[10.44.0.6/32]}\n---\n",
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "peer Local_Workload_10_44_0_5 type=workload of=w ip=10.44.0.5 as=65010 passive "
     "IPv4(addPaths=both)\n"},
    {"blocks: own and confirmed", "a",
     NO_MESH ABC BLOCK("x", "a", "10.44.0.0/26", "confirmed")
         BLOCK("w", "a", "10.44.0.64/26", "pending") BLOCK("z", "b", "10.44.0.128/26", "confirmed"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "announce 10.44.0.0/26 (block of node a)\n"},
    {"pools and the kernel", "a",
     NO_MESH ABC POOL("e", "10.1.0.0/16", "") POOL("f", "10.2.0.0/16", ", ipipMode: Always")
         POOL("g", "10.3.0.0/16", ", vxlanMode: CrossSubnet"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "kernel program 10.1.0.0/16 (IPPool e)\n"
     "kernel leave 10.2.0.0/16 (IPPool f)\n"
     "kernel leave 10.3.0.0/16 (IPPool g)\n"},
    {"… all of them ours", "a",
     CONFIG("{nodeToNodeMeshEnabled: false, programClusterRoutes: Enabled}")
         ABC POOL("e", "10.1.0.0/16", "") POOL("f", "10.2.0.0/16", ", ipipMode: Always")
             POOL("g", "10.3.0.0/16", ", ipipMode: CrossSubnet"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "kernel program 10.1.0.0/16 (IPPool e)\n"
     "kernel tunnel 10.2.0.0/16 (IPPool f)\n"
     "kernel tunnel-across-subnets 10.3.0.0/16 (IPPool g)\n"},
    {"… none of them ours", "a",
     CONFIG("{nodeToNodeMeshEnabled: false, programClusterRoutes: Disabled}")
         ABC POOL("e", "10.1.0.0/16", "") POOL("f", "10.2.0.0/16", ", ipipMode: Always"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "kernel leave 10.1.0.0/16 (IPPool e)\n"
     "kernel leave 10.2.0.0/16 (IPPool f)\n"},
#define RANGES                                                                          \
    CONFIG("{nodeToNodeMeshEnabled: false, serviceClusterIPs: [{cidr: 10.96.0.0/16}], " \
           "serviceExternalIPs: [{cidr: 198.51.100.0/24}, {cidr: 203.0.113.5/32}], "    \
           "serviceLoadBalancerIPs: [{cidr: 192.0.2.0/24}]}")
#define KERNEL_RANGES                                     \
    "kernel leave 10.96.0.0/16 (serviceClusterIPs)\n"     \
    "kernel leave 198.51.100.0/24 (serviceExternalIPs)\n" \
    "kernel leave 203.0.113.5/32 (serviceExternalIPs)\n"  \
    "kernel leave 192.0.2.0/24 (serviceLoadBalancerIPs)\n"
#define RANGE_ROUTES                          \
    "speaker as=64512 id=10.0.0.1 port=179\n" \
    "announce 10.96.0.0/16 (serviceClusterIPs)\n"
    {"services: ranges", "a",
     RANGES ABC SERVICE(
         "s",
         "{clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7], externalIPs: [198.51.100.4], ports: "
         "[{port: 80}]}",
         "{}"),
     RANGE_ROUTES "announce 192.0.2.0/24 (serviceLoadBalancerIPs)\n"
                  "announce 198.51.100.0/24 (serviceExternalIPs)\n" KERNEL_RANGES},
    {"services: a single address while a service has it", "a",
     RANGES ABC SERVICE(
         "s",
         "{clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7], externalIPs: [203.0.113.5], ports: "
         "[{port: 80}]}",
         "{}"),
     RANGE_ROUTES
     "announce 192.0.2.0/24 (serviceLoadBalancerIPs)\n"
     "announce 198.51.100.0/24 (serviceExternalIPs)\n"
     "announce 203.0.113.5/32 (Service web/s (external IP, policy Cluster))\n" KERNEL_RANGES},
#define LOCAL_SERVICE                                                                   \
    SERVICE("s",                                                                        \
            "{type: LoadBalancer, externalTrafficPolicy: Local, clusterIP: 10.96.0.7, " \
            "clusterIPs: [10.96.0.7], "                                                 \
            "externalIPs: [198.51.100.4], ports: [{port: 80}]}",                        \
            "{loadBalancer: {ingress: [{ip: 192.0.2.9}]}}")
    {"services: Local with an endpoint here", "a", RANGES ABC LOCAL_SERVICE SLICE("s", "a", "true"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "announce 10.96.0.0/16 (serviceClusterIPs)\n"
     "announce 10.96.0.7/32 (Service web/s (ClusterIP, policy Local))\n"
     "announce 192.0.2.0/24 (serviceLoadBalancerIPs)\n"
     "announce 192.0.2.9/32 (Service web/s (LoadBalancer, policy Local))\n"
     "announce 198.51.100.0/24 (serviceExternalIPs)\n"
     "announce 198.51.100.4/32 (Service web/s (external IP, policy Local))\n" KERNEL_RANGES},
    {"services: Local, endpoint elsewhere", "a", RANGES ABC LOCAL_SERVICE SLICE("s", "b", "true"),
     RANGE_ROUTES "announce 192.0.2.0/24 (serviceLoadBalancerIPs)\n"
                  "announce 198.51.100.0/24 (serviceExternalIPs)\n" KERNEL_RANGES},
    {"services: Local, endpoint not ready", "a", RANGES ABC LOCAL_SERVICE SLICE("s", "a", "false"),
     RANGE_ROUTES "announce 192.0.2.0/24 (serviceLoadBalancerIPs)\n"
                  "announce 198.51.100.0/24 (serviceExternalIPs)\n" KERNEL_RANGES},
    {"services: no aggregation", "a",
     CONFIG("{nodeToNodeMeshEnabled: false, serviceLoadBalancerIPs: [{cidr: 192.0.2.0/24}], "
            "serviceLoadBalancerAggregation: Disabled}")
         ABC SERVICE("s", "{type: LoadBalancer, clusterIP: 10.96.0.7, ports: [{port: 80}]}",
                     "{loadBalancer: {ingress: [{ip: 192.0.2.9}, {ip: 192.0.3.9}]}}"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "announce 192.0.2.9/32 (Service web/s (LoadBalancer, policy Cluster))\n"
     "kernel leave 192.0.2.0/24 (serviceLoadBalancerIPs)\n"},
    {"services: an excluded node announces none", "a",
     RANGES "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: a, labels: "
            "{node.kubernetes.io/exclude-from-external-load-balancers: ''}}\nspec: {bgp: "
            "{ipv4Address: 10.0.0.1/24}}\n---\n",
     "speaker as=64512 id=10.0.0.1 port=179\n" KERNEL_RANGES},
    {"missing filters and broken selectors are named", "a",
     NO_MESH ABC PEER("p", "{peerIP: 192.0.2.1, asNumber: 1, filters: [none]}"),
     "speaker as=64512 id=10.0.0.1 port=179\n"
     "peer Global_192_0_2_1 type=global of=p ip=192.0.2.1 as=1 source=10.0.0.1 "
     "IPv4(addPaths=both)\n"
     "problem BGPPeer p: there is no BGPFilter none\n"},
    {"bind mode", "a",
     CONFIG("{nodeToNodeMeshEnabled: false, bindMode: NodeIP}")
         ABC V3("BGPConfiguration", "node.a", "{listenPort: 1179}"),
     "speaker as=64512 id=10.0.0.1 port=1179 bind=NodeIP\n"},
};
