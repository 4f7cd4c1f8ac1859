#!/usr/bin/python3
"""The real Multus in front of margay-cni, on a real API server: it runs our plugin for the pod's first
interface and, for a NetworkAttachmentDefinition, a second one: ours again where the agent's datastore is
etcd, bridge where it is the API server, which holds one endpoint a pod. CHECK is content, and DEL leaves
nothing.

On demand, as Debian has no Multus: MULTUS=/path/of/multus test_multus.py (tried with 3.9.3).
"""

import json
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent  # noqa: E402
from lab import Lab  # noqa: E402
from stores import open_store  # noqa: E402

GROUP = 'k8s.cni.cncf.io'
CRD = {'apiVersion': 'apiextensions.k8s.io/v1', 'kind': 'CustomResourceDefinition',
       'metadata': {'name': f'network-attachment-definitions.{GROUP}'},
       'spec': {'group': GROUP, 'scope': 'Namespaced',
                'names': {'plural': 'network-attachment-definitions', 'shortNames': ['nad'],
                          'singular': 'network-attachment-definition',
                          'kind': 'NetworkAttachmentDefinition'},
                'versions': [{'name': 'v1', 'served': True, 'storage': True, 'schema': {
                    'openAPIV3Schema': {'type': 'object',
                                        'x-kubernetes-preserve-unknown-fields': True}}}]}}
POOL = {'apiVersion': 'projectcalico.org/v3', 'kind': 'IPPool'}


def plugin(agent, name, pool, kubeconfig):
    return {'cniVersion': '0.4.0', 'name': name, 'type': 'margay-cni', 'state_dir': agent.state,
            'socket': f'{agent.state}/agent.sock',
            'kubernetes': {'kubeconfig': kubeconfig}, 'policy': {'type': 'k8s'},
            'ipam': {'type': 'margay-ipam', 'ipv4_pools': [pool]}}


def call(lab, multus, agent, conf, command):
    return lab.run('node', ['env', f'CNI_COMMAND={command}', 'CNI_CONTAINERID=c0ffee', 'CNI_IFNAME=eth0',
                            f'CNI_NETNS={lab.path("pod")}', f'CNI_PATH={agent.cni_bin}:/usr/lib/cni',
                            'CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME=web',
                            multus], json.dumps(conf))


def addresses(lab):
    links = json.loads(lab.run('pod', ['ip', '-j', '-4', 'addr']))
    return {link['ifname']: [a['local'] for a in link['addr_info']] for link in links
            if link['ifname'] != 'lo'}


def bridge(folder):
    return {'cniVersion': '0.4.0', 'name': 'second', 'type': 'bridge', 'bridge': 'br0', 'isGateway': True,
            'ipam': {'type': 'host-local', 'subnet': '10.42.0.0/24', 'dataDir': f'{folder}/addresses'}}


def main(multus, is_etcd):
    with Lab() as lab:
        lab.netns('node')
        lab.netns('pod')
        lab.batch('node', ['addr add 192.0.2.1/32 dev lo'])
        with open_store('kubernetes', lab, 'node') as store, \
                Agent(lab, 'node', **({'url': store.api.etcd.url()} if is_etcd else {'store': store})) \
                as agent, tempfile.TemporaryDirectory() as folder:
            store.api.apply([CRD])
            store.api.kubectl('wait', '--for=condition=Established', 'crd', CRD['metadata']['name'])
            store.api.apply([{'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'demo'}}])
            kubeconfig = str(store.api.kubeconfig())
            second = plugin(agent, 'second', 'two', kubeconfig) if is_etcd else bridge(folder)
            store.api.apply([{'apiVersion': f'{GROUP}/v1', 'kind': 'NetworkAttachmentDefinition',
                              'metadata': {'name': 'second', 'namespace': 'demo'},
                              'spec': {'config': json.dumps(second)}}])
            pod = {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {
                'name': 'web', 'namespace': 'demo', 'labels': {'app': 'web'},
                'annotations': {'k8s.v1.cni.cncf.io/networks': 'second'}},
                'spec': {'nodeName': 'n1', 'containers': [{'name': 'main', 'image': 'none'}]}}
            store.api.apply([pod])
            if is_etcd:  # what `margay controllers` would write there
                agent.apply([{'apiVersion': 'projectcalico.org/v3', 'kind': 'Profile',
                              'metadata': {'name': 'kns.demo'},
                              'spec': {'ingress': [{'action': 'Allow'}], 'egress': [{'action': 'Allow'}]}}])
            agent.apply([
                {**POOL, 'metadata': {'name': 'one'}, 'spec': {'cidr': '10.41.0.0/24'}},
                {**POOL, 'metadata': {'name': 'two'}, 'spec': {'cidr': '10.42.0.0/24'}}])
            conf = {'cniVersion': '0.4.0', 'name': 'multus', 'type': 'multus', 'cniDir': folder,
                    'binDir': agent.cni_bin, 'kubeconfig': kubeconfig,
                    'delegates': [plugin(agent, 'first', 'one', kubeconfig)]}
            result = json.loads(call(lab, multus, agent, conf, 'ADD'))
            assert result['ips'][0]['address'].startswith('10.41.0.'), result
            found = addresses(lab)
            assert sorted(found) == ['eth0', 'net1'], found
            assert found['eth0'][0].startswith('10.41.0.') and found['net1'][0].startswith('10.42.0.')
            print('ok: two interfaces', found)
            pod = json.loads(store.api.kubectl('get', 'pod', '-n', 'demo', 'web', '-o', 'json'))
            status = json.loads(pod['metadata']['annotations']['k8s.v1.cni.cncf.io/network-status'])
            assert {s['name'].rpartition('/')[2]: s['ips'] for s in status} == {
                'first': found['eth0'], 'second': found['net1']}, status
            weps = json.loads(agent.call('get', 'workloadendpoints', '-A', '-o', 'json'))['items']
            assert any(w['metadata']['labels'].get('app') == 'web' for w in weps), weps
            print('ok: network-status, endpoints', sorted(w['metadata']['name'] for w in weps))
            for name, (address,) in found.items():
                assert lab.probe_ping('node', address), name
            print('ok: the node reaches both')
            call(lab, multus, agent, conf, 'CHECK')
            print('ok: CHECK')
            call(lab, multus, agent, conf, 'DEL')
            assert addresses(lab) == {} and 'cali' not in lab.run('node', ['ip', '-o', 'link'])
            assert 'found 0 problems' in agent.call('ipam', 'check')
            print('ok: DEL leaves nothing')
    return 0


if __name__ == '__main__':
    if 'MULTUS' not in os.environ:
        sys.exit(__doc__)
    sys.exit(main(os.environ['MULTUS'], False) or main(os.environ['MULTUS'], True))
