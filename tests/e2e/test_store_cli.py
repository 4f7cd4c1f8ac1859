#!/usr/bin/python3
"""The command line on every store: the same commands say the same on the embedded store, on etcd and on
the Kubernetes API; and `margay get` of what Calico's programs have in etcd, key by key.

Usage: test_store_cli.py [sqlite|etcd|kubernetes...]
"""

import difflib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cluster import Etcd, KubeApiserver  # noqa: E402
from stores import NAMES  # noqa: E402

MARGAY = os.environ.get('MARGAY', str(pathlib.Path(__file__).resolve().parents[2] / 'build/margay'))
V3 = 'projectcalico.org/v3'


def calico(kind, name, spec, namespace=None, **meta):
    """A document of projectcalico.org/v3."""
    where = {'namespace': namespace} if namespace else {}
    return {'apiVersion': V3, 'kind': kind, 'metadata': {'name': name, **where, **meta}, 'spec': spec}


NAMESPACE = {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'shop',
                                                                   'labels': {'team': 'red'}}}
POD = {'apiVersion': 'v1', 'kind': 'Pod',
       'metadata': {'name': 'web', 'namespace': 'shop', 'labels': {'app': 'web'}},
       'spec': {'nodeName': 'n1', 'automountServiceAccountToken': False,
                'containers': [{'name': 'c', 'image': 'none'}]}}
K8S_POLICY = {'apiVersion': 'networking.k8s.io/v1', 'kind': 'NetworkPolicy',
              'metadata': {'name': 'only-web', 'namespace': 'shop'},
              'spec': {'podSelector': {'matchLabels': {'app': 'db'}}, 'policyTypes': ['Ingress'],
                       'ingress': [{'from': [{'podSelector': {'matchLabels': {'app': 'web'}}}],
                                    'ports': [{'protocol': 'TCP', 'port': 5432}]}]}}
POLICY = calico('NetworkPolicy', 'db', {'selector': "role == 'db'", 'types': ['Ingress'], 'ingress': [
    {'action': 'Allow', 'protocol': 'TCP', 'source': {'selector': "app == 'web'"},
     'destination': {'ports': [5432]}}]}, 'shop')
GLOBAL = calico('GlobalNetworkPolicy', 'all', {'selector': 'all()', 'order': 7, 'types': ['Egress'],
                                               'egress': [{'action': 'Allow'}]})
SET = calico('NetworkSet', 'outside', {'nets': ['192.0.2.0/24', '2001:db8::/32']}, 'shop',
             labels={'kind': 'partner'})
POOL = calico('IPPool', 'lab', {'cidr': '10.44.0.0/16', 'natOutgoing': True})
TIER = calico('Tier', 'guard', {'order': 50})
RESERVED = calico('IPReservation', 'first', {'reservedCIDRs': ['10.44.0.0/30']})
EVERYTHING = [NAMESPACE, POD, K8S_POLICY, POLICY, GLOBAL, SET, POOL, TIER, RESERVED]
KINDS = 'networkpolicies.projectcalico.org,gnp,networksets,ippools,ipreservations'


def as_text(documents):
    """YAML, since JSON is that."""
    return '\n---\n'.join(json.dumps(document) for document in documents)


# Words, and what is given to the program; the exit status and what it prints are compared.
SCRIPT = [
    (['apply', '-f', '-'], as_text(EVERYTHING)),
    (['apply', '-f', '-'], as_text(EVERYTHING)),  # unchanged
    (['create', '-f', '-'], as_text([SET])),  # is there
    (['create', '-f', '-'], as_text([calico('NetworkSet', 'more', {'nets': []}, 'shop')])),
    (['replace', '-f', '-'], as_text([calico('NetworkSet', 'more', {'nets': ['1.2.3.0/24']}, 'shop')])),
    (['replace', '-f', '-'], as_text([calico('NetworkSet', 'none', {'nets': []}, 'shop')])),
    (['get', KINDS, '-A'], ''),
    (['get', KINDS, '-A', '-o', 'wide'], ''),
    (['get', KINDS, '-A', '-o', 'name'], ''),
    (['get', 'networkpolicies', '-n', 'shop', '-o', 'yaml'], ''),
    (['get', 'np', 'db', '-n', 'shop', '-o', 'yaml'], ''),
    (['get', 'np', '-A', '-o', 'json'], ''),
    (['get', 'ippool', 'lab', '-o', 'jsonpath={.spec.cidr} {.spec.blockSize}'], ''),
    (['get', 'networksets', '-A', '-l', 'kind=partner', '--no-headers'], ''),
    (['get', 'networksets', '-A', '-o', 'custom-columns=N:.metadata.name,NETS:.spec.nets'], ''),
    (['get', 'ippool', 'nothing'], ''),
    (['get', 'pods', '-n', 'shop', '-o', 'name'], ''),
    (['get', 'namespace', 'shop', '-o', 'jsonpath={.metadata.labels.team}'], ''),
    (['label', 'networkset', 'outside', '-n', 'shop', 'kind=other'], ''),
    (['label', 'networkset', 'outside', '-n', 'shop', 'kind=other', '--overwrite'], ''),
    (['label', 'namespace', 'shop', 'team=blue', '--overwrite'], ''),
    (['label', 'pod', 'web', '-n', 'shop', 'extra=1'], ''),
    (['annotate', 'ippool', 'lab', 'note=ours'], ''),
    (['patch', 'ippool', 'lab', '-p', '{"spec":{"natOutgoing":false}}'], ''),
    (['patch', 'np', 'db', '-n', 'shop', '--type', 'json', '-p',
      '[{"op":"replace","path":"/spec/ingress/0/destination/ports","value":[5433]}]'], ''),
    (['get', 'ippool,np,networksets', '-A', '-o', 'yaml'], ''),
    (['apply', '-f', '-'], as_text([calico('IPPool', 'bad', {'cidr': '10.44.0.0/33'})])),
    (['apply', '-f', '-'], as_text([calico('NetworkPolicy', 'db', {'selector': 'a ='}, 'shop')])),
    (['apply', '--dry-run=client', '-f', '-'], as_text([calico('Tier', 'other', {'order': 3})])),
    (['policy', 'list', '-A'], ''),
    (['policy', 'show'], ''),
    (['policy', 'for-pod', 'shop/web'], ''),
    (['policy', 'lint'], ''),
    (['explain', 'shop/web', '->', '192.0.2.7', 'tcp/80'], ''),
    (['convert', '-f', '-'], as_text([K8S_POLICY])),
    (['ipam', 'show', '-o', 'json'], ''),
    (['ipam', 'check'], ''),
    (['datastore', 'lock'], ''),
    (['get', 'clusterinformation', 'default', '-o', 'jsonpath={.spec.datastoreReady}'], ''),
    (['datastore', 'unlock'], ''),
    (['get', 'clusterinformation', 'default', '-o', 'jsonpath={.spec.datastoreReady}'], ''),
    (['delete', 'np', 'db', '-n', 'shop'], ''),
    (['delete', 'np', 'db', '-n', 'shop'], ''),
    (['delete', 'np', 'db', '-n', 'shop', '--ignore-not-found'], ''),
    (['delete', '-f', '-'], as_text([SET, POOL, TIER, RESERVED, GLOBAL])),
    (['get', KINDS, '-A', '-o', 'name'], ''),
]
# What is each store's own: numbers of revisions, uids, times; the API server adds to its own kinds, so
# that the same document again is a change there.
OWN = [(r'"resourceVersion": ?"\d+"', 'RV'),
       (r'^((namespace|pod)/.*) (unchanged|configured)$', r'\1 there'),
       (r'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', 'UID'),
       (r'\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(Z|\+00:00)', 'TIME'), (r' +(\d+[smhd])+$', ' AGE'),
       (r'\n *"generation": \d+,?(?=\n)', '')]


def run(url, words, text):
    """Exit status and output of one command."""
    done = subprocess.run([MARGAY, '--datastore', url, *words], input=text, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    return done.returncode, done.stdout


def in_order(text):
    """YAML and JSON with sorted members: the API server has an order of its own."""
    if text.startswith(('apiVersion:', 'kind:', '{')):
        try:
            return json.dumps(yaml.safe_load(text), indent=1, sort_keys=True, default=str)
        except yaml.YAMLError:
            pass
    return text


def same_for_all(text):
    """Without what is each store's own."""
    text = in_order(text)
    for pattern, instead in OWN:
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return text


def play(url, folder):
    """The script on one store: what it said, line by line."""
    lines = []
    os.environ['HOME'] = folder  # and no kubeconfig of ours
    for words, text in SCRIPT:
        code, out = run(url, words, text)
        lines += [f'$ margay {" ".join(words)}', f'exit {code}', *same_for_all(out).splitlines()]
    return lines


# ---- data of Calico's programs in etcd ----

V3_PATH = '/calico/resources/v3/projectcalico.org'
META = '"uid":"6d0c1f3a-7f1f-4b6e-9a57-0f9b7c2f1a11","creationTimestamp":"2026-01-02T03:04:05Z"'
FIXTURE = {
    f'{V3_PATH}/ippools/lab':
        '{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"lab",' + META + '},'
        '"spec":{"cidr":"10.44.0.0/16","vxlanMode":"Never","ipipMode":"Always","natOutgoing":true,'
        '"blockSize":26,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],'
        '"assignmentMode":"Automatic"}}',
    f'{V3_PATH}/nodes/n1':
        '{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"n1",' + META +
        ',"labels":{"rack":"a"}},"spec":{"bgp":{"ipv4Address":"192.0.2.11/24","ipv4IPIPTunnelAddr":'
        '"10.44.7.0","asNumber":64513,"routeReflectorClusterID":"244.0.0.1"},"addresses":[{"address":'
        '"192.0.2.11/24","type":"CalicoNodeIP"},{"address":"192.0.2.11","type":"InternalIP"}],'
        '"orchRefs":[{"nodeName":"n1","orchestrator":"k8s"}]},"status":{"podCIDRs":["10.0.0.0/24"]}}',
    f'{V3_PATH}/workloadendpoints/shop/n1-k8s-web--7-eth0':
        '{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{"name":'
        '"n1-k8s-web--7-eth0","namespace":"shop",' + META + ',"labels":{"app":"web",'
        '"projectcalico.org/namespace":"shop","projectcalico.org/orchestrator":"k8s",'
        '"projectcalico.org/serviceaccount":"default"}},"spec":{"orchestrator":"k8s","node":"n1",'
        '"containerID":"4f0c","pod":"web-7","endpoint":"eth0","serviceAccountName":"default",'
        '"ipNetworks":["10.44.7.9/32"],"profiles":["kns.shop","ksa.shop.default"],"interfaceName":'
        '"cali0f123456789","mac":"ee:ee:ee:ee:ee:01","ports":[{"name":"http","protocol":"TCP",'
        '"port":8080,"hostPort":0,"hostIP":""}]}}',
    f'{V3_PATH}/networkpolicies/shop/allow-db':
        '{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"allow-db",'
        '"namespace":"shop",' + META + ',"annotations":{"projectcalico.org/metadata":'
        '"{\\"name\\":\\"allow-db\\"}"}},"spec":{"tier":"default","order":100,"selector":'
        '"role == \'db\'","types":["Ingress"],"ingress":[{"action":"Allow","protocol":"TCP","source":'
        '{"selector":"app == \'web\'"},"destination":{"ports":[5432]}}]}}',
    f'{V3_PATH}/networkpolicies/shop/default.early':
        '{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":'
        '"default.early","namespace":"shop",' + META + '},"spec":{"tier":"default","selector":"all()",'
        '"types":["Ingress"],"unknownField":{"kept":true}}}',
    f'{V3_PATH}/profiles/k8s-pod-network':
        '{"kind":"Profile","apiVersion":"projectcalico.org/v3","metadata":{"name":"k8s-pod-network",' +
        META + '},"spec":{"ingress":[{"action":"Allow","source":{"selector":"has(k8s-pod-network)"},'
        '"destination":{}}],"egress":[{"action":"Allow","source":{},"destination":{}}],'
        '"labelsToApply":{"k8s-pod-network":""}}}',
    f'{V3_PATH}/clusterinformations/default':
        '{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3","metadata":{"name":"default",'
        + META + '},"spec":{"clusterGUID":"0123456789abcdef0123456789abcdef","clusterType":"k8s,bgp",'
        '"calicoVersion":"v3.34.0","datastoreReady":true}}',
    '/calico/ipam/v2/assignment/ipv4/block/10.44.7.0-26':
        '{"cidr":"10.44.7.0/26","affinity":"host:n1","allocations":[1,null,null,null,null,null,null,'
        'null,null,0' + ',null' * 54 + '],"unallocated":[' +
        ','.join(str(i) for i in range(64) if i not in (0, 9)) + '],"attributes":[{"handle_id":'
        '"k8s-pod-network.4f0c","secondary":{"namespace":"shop","node":"n1","pod":"web-7"}},{"handle_id":"ipip-tunnel-addr-n1","secondary":{"node":"n1",'
        '"type":"ipipTunnelAddress"}}],'
        '"deleted":false,"sequenceNumber":3,"sequenceNumberForAllocation":{"0":1,"9":2}}',
    '/calico/ipam/v2/host/n1/ipv4/block/10.44.7.0-26': '{"state":"confirmed","deleted":false}',
    '/calico/ipam/v2/handle/k8s-pod-network.4f0c': '{"block":{"10.44.7.0/26":1},"deleted":false}',
    '/calico/ipam/v2/handle/ipip-tunnel-addr-n1': '{"block":{"10.44.7.0/26":1},"deleted":false}',
    '/calico/ipam/v2/config': '{"strict_affinity":false,"auto_allocate_blocks":true}',
}
READINGS = [
    (['get', 'ippools', '-o', 'jsonpath={.items[*].metadata.name} {.items[*].spec.ipipMode}'],
     'lab Always'),
    (['get', 'nodes.projectcalico.org', 'n1', '-o', 'jsonpath={.spec.bgp.asNumber} '
      '{.metadata.labels.rack} {.status.podCIDRs[0]}'], '64513 a 10.0.0.0/24'),
    (['get', 'workloadendpoints', '-n', 'shop', '-o', 'jsonpath={.items[0].metadata.name} '
      '{.items[0].spec.ipNetworks[0]} {.items[0].spec.ports[0].port}'],
     'n1-k8s-web--7-eth0 10.44.7.9/32 8080'),
    (['get', 'np', '-A', '-o', 'name'], 'networkpolicy.projectcalico.org/allow-db\n'
     'networkpolicy.projectcalico.org/early'),
    (['get', 'np', 'allow-db', '-n', 'shop', '-o', 'jsonpath={.metadata.annotations}'], ''),
    (['get', 'np', 'early', '-n', 'shop', '-o', 'jsonpath={.spec.unknownField.kept}'], 'true'),
    (['get', 'profiles', '-o', 'name'], 'profile.projectcalico.org/k8s-pod-network\n'
     'profile.projectcalico.org/projectcalico-default-allow'),
    (['get', 'clusterinformation', 'default', '-o', 'jsonpath={.spec.calicoVersion}'], 'v3.34.0'),
    (['ipam', 'show', '-o', 'jsonpath={.allocations}'], '2'),
    (['ipam', 'check'], None),
]


def calicos_data():
    """Lines of what went wrong in reading it, and in writing beside it."""
    wrong = []
    with Etcd() as etcd:
        for key, value in FIXTURE.items():
            etcd.ctl('put', key, stdin=value)
        for words, want in READINGS:
            code, out = run(etcd.url(), words, '')
            if code != 0 or (want is not None and out.strip() != want):
                wrong.append(f'margay {" ".join(words)}: exit {code}, {out.strip()!r}, not {want!r}')
        # A change of ours keeps what we don't know, and the place.
        code, out = run(etcd.url(), ['label', 'np', 'early', '-n', 'shop', 'seen=1'], '')
        key = f'{V3_PATH}/networkpolicies/shop/default.early'
        value = etcd.ctl('get', '--print-value-only', key).strip()
        document = json.loads(value) if value else {}
        if (code != 0 or document.get('spec', {}).get('unknownField') != {'kept': True} or
                document['metadata']['labels'] != {'seen': '1', 'projectcalico.org/tier': 'default'}):
            wrong.append(f'label: exit {code}: {out} {value}')
        untouched = {key: text for key, text in FIXTURE.items() if 'early' not in key}
        for key, text in untouched.items():
            if etcd.ctl('get', '--print-value-only', key).rstrip('\n') != text:
                wrong.append(f'{key} is not what it was')
    print(f'data of Calico in etcd: {len(FIXTURE)} keys, {len(READINGS)} readings, {len(wrong)} wrong')
    return wrong


def main(*names):
    names = names or NAMES
    said, wrong = {}, []
    with tempfile.TemporaryDirectory(prefix='margay-cli-') as folder:
        for name in names:
            began = time.monotonic()
            if name == 'sqlite':
                said[name] = play(f'sqlite:{folder}/margay.db', folder)
            elif name == 'etcd':
                with Etcd() as etcd:
                    said[name] = play(etcd.url(), folder)
            else:
                with Etcd() as etcd, KubeApiserver(etcd) as api:
                    api.apply_crds()
                    said[name] = play(api.url(), folder)
            print(f'{name}: {len(SCRIPT)} commands, {len(said[name])} lines, '
                  f'{time.monotonic() - began:.0f} s', flush=True)
    for name in names[1:]:
        difference = list(difflib.unified_diff(said[names[0]], said[name], names[0], name, n=4,
                                               lineterm=''))
        wrong += difference
        print('\n'.join(difference), flush=True)
    if 'etcd' in names:
        found = calicos_data()
        print('\n'.join(found), flush=True)
        wrong += found
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
