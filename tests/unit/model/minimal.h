/* The smallest document of each kind that is accepted; the first member of each is its kind. */
#pragma once

#include "model/model.h"

#define V3(kind, name, rest) \
    "{'apiVersion':'projectcalico.org/v3','kind':'" kind "','metadata':{'name':'" name "'}" rest "}"
#define V1(kind, rest) "{'apiVersion':'v1','kind':'" kind "','metadata':{'name':'x'}" rest "}"
#define POLICY(version, kind, name, rest)                                \
    "{'apiVersion':'policy.networking.k8s.io/" version "','kind':'" kind \
    "','metadata':{'name':'" name "'},'spec':{'subject':{'namespaces':{}}" rest "}}"

static const char *const MINIMAL[K_N_KINDS] = {
    [K_NAMESPACE] = V1("Namespace", ""),
    [K_POD] = V1("Pod", ""),
    [K_SERVICE_ACCOUNT] = V1("ServiceAccount", ""),
    [K_SERVICE] = V1("Service", ",'spec':{'ports':[{'port':80}]}"),
    [K_NODE_K8S] = V1("Node", ""),
    [K_SECRET] = V1("Secret", ""),
    [K_LEASE] = "{'apiVersion':'coordination.k8s.io/v1','kind':'Lease','metadata':{'name':'x'}}",
    [K_ENDPOINT_SLICE] = "{'apiVersion':'discovery.k8s.io/v1','kind':'EndpointSlice',"
                         "'metadata':{'name':'x'},'addressType':'IPv4','endpoints':[]}",
    [K_K8S_NETWORK_POLICY] = "{'apiVersion':'networking.k8s.io/v1','kind':'NetworkPolicy',"
                             "'metadata':{'name':'x'},'spec':{'podSelector':{}}}",
    [K_CLUSTER_NETWORK_POLICY] =
        POLICY("v1alpha2", "ClusterNetworkPolicy", "x", ",'tier':'Admin','priority':1"),
    [K_ADMIN_NETWORK_POLICY] = POLICY("v1alpha1", "AdminNetworkPolicy", "x", ",'priority':1"),
    [K_BASELINE_ADMIN_NETWORK_POLICY] =
        POLICY("v1alpha1", "BaselineAdminNetworkPolicy", "default", ""),
    [K_BGP_CONFIGURATION] = V3("BGPConfiguration", "default", ""),
    [K_BGP_FILTER] = V3("BGPFilter", "x", ""),
    [K_BGP_PEER] = V3("BGPPeer", "x", ""),
    [K_BLOCK_AFFINITY] =
        V3("BlockAffinity", "x", ",'spec':{'state':'pending','node':'n','cidr':'10.0.0.0/26'}"),
    [K_CALICO_NODE_STATUS] = V3("CalicoNodeStatus", "x",
                                ",'spec':{'node':'n','classes':['BGP'],'updatePeriodSeconds':0}"),
    [K_CLUSTER_INFORMATION] = V3("ClusterInformation", "default", ""),
    [K_FELIX_CONFIGURATION] = V3("FelixConfiguration", "default", ""),
    [K_GLOBAL_NETWORK_POLICY] = V3("GlobalNetworkPolicy", "x", ""),
    [K_GLOBAL_NETWORK_SET] = V3("GlobalNetworkSet", "x", ""),
    [K_HOST_ENDPOINT] = V3("HostEndpoint", "x", ",'spec':{'node':'n','interfaceName':'*'}"),
    [K_IPAM_CONFIGURATION] = V3("IPAMConfiguration", "default", ""),
    [K_IP_POOL] = V3("IPPool", "x", ",'spec':{'cidr':'10.0.0.0/16'}"),
    [K_IP_RESERVATION] = V3("IPReservation", "x", ""),
    [K_KUBE_CONTROLLERS_CONFIGURATION] = V3("KubeControllersConfiguration", "default", ""),
    [K_NETWORK_POLICY] = V3("NetworkPolicy", "x", ""),
    [K_NETWORK_SET] = V3("NetworkSet", "x", ""),
    [K_NODE] = V3("Node", "x", ""),
    [K_PROFILE] = V3("Profile", "x", ""),
    [K_STAGED_GLOBAL_NETWORK_POLICY] = V3("StagedGlobalNetworkPolicy", "x", ""),
    [K_STAGED_KUBERNETES_NETWORK_POLICY] = V3("StagedKubernetesNetworkPolicy", "x", ""),
    [K_STAGED_NETWORK_POLICY] = V3("StagedNetworkPolicy", "x", ""),
    [K_TIER] = V3("Tier", "x", ""),
    [K_WORKLOAD_ENDPOINT] = V3("WorkloadEndpoint", "x", ""),
};
#undef V3
#undef V1
#undef POLICY
