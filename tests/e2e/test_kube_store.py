#!/usr/bin/python3
"""The Kubernetes datastore's driver on a real API server: the custom resource definitions, what objects
look like to kubectl, endpoints on pods, soft deletes, old names, rights, following, restarts.

Usage: test_kube_store.py STORE_TOOL MODEL_TEST...; a MODEL_TEST is a program whose documents
(tests/unit/model/cases.h) the API server is given.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cluster import Etcd, KubeApiserver, wait_until  # noqa: E402

POOR_TOKEN, FIRST_TOKEN, SECOND_TOKEN = 'poor-token', 'first-token', 'second-token'
V3, V1 = 'projectcalico.org/v3', 'crd.projectcalico.org/v1'
NOTE = 'projectcalico.org/metadata'
POD = {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'web-7', 'namespace': 'default',
                                                       'labels': {'app': 'web'}},
       'spec': {'nodeName': 'n1', 'automountServiceAccountToken': False,
                'containers': [{'name': 'c', 'image': 'none', 'ports': [
                    {'name': 'http', 'containerPort': 8080}]}]}}


class Tool:
    """tests/e2e/store_tool.c on one store."""

    def __init__(self, program, url):
        self.argv = [program, url]

    def __call__(self, *argv, value=None):
        """Run one command; its lines."""
        text = '' if value is None else value if isinstance(value, str) else json.dumps(value)
        done = subprocess.run([*self.argv, *argv], input=text, text=True, timeout=120, check=False,
                              stdout=subprocess.PIPE)
        assert done.returncode in (0, 1), f'{argv}: exit status {done.returncode}'
        return [json.loads(line) for line in done.stdout.splitlines()]

    def get(self, key):
        """The item of a key, or None."""
        lines = self('get', space(key), key)
        return lines[0] if lines[0]['event'] == 'item' else None

    def put(self, key, value, expect='any'):
        """Write; the answer."""
        return self('put', space(key), key, str(expect), value=value)[-1]

    def delete(self, key, expect='any'):
        """Delete; the answer."""
        return self('delete', space(key), key, str(expect))[-1]

    def list(self, prefix):
        """All items below a prefix."""
        return [line for line in self('list', space(prefix), prefix) if line['event'] == 'item']

    @contextlib.contextmanager
    def stream(self, *argv):
        """A command that goes on; gives a Stream."""
        with subprocess.Popen([*self.argv, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as process:
            try:
                yield Stream(process)
            finally:
                process.stdin.close()
                assert process.wait(timeout=60) in (0, 1)


class Stream:
    """What a follower says, collected by a thread."""

    def __init__(self, process):
        self.process, self.lines = process, []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def ask(self):
        """Somebody waits for the newest revision."""
        self.process.stdin.write('ask\n')
        self.process.stdin.flush()

    def wait(self, condition, what):
        """Until a line fits; that line."""
        wait_until(lambda: any(condition(line) for line in list(self.lines)), what)
        return next(line for line in self.lines if condition(line))

    def event(self, event, start=0):
        """Until such an event comes behind the start-th line."""
        wait_until(lambda: any(line['event'] == event for line in list(self.lines)[start:]), event)

    def items(self, prefix='', start=0):
        """Keys of the items, deleted ones with a minus."""
        return [('' if line['value'] else '-') + line['key'] for line in self.lines[start:]
                if line['event'] == 'item' and line['key'].startswith(prefix)]


def space(key):
    return 'i' if key.startswith('/') else 'r'


def require(condition, *what):
    if not condition:
        raise AssertionError(' '.join(str(w) for w in what))


def kubectl_json(api, *argv):
    return json.loads(api.kubectl('get', '-o', 'json', *argv))


# ---- the definitions ----

def test_definitions(api, tool, model_tests):
    """Accepted by the server, structural, and every valid document of the model's tests fits."""
    api.apply_crds()
    began = time.monotonic()
    for crd in kubectl_json(api, 'crd')['items']:
        for condition in crd['status']['conditions']:
            require(condition['type'] != 'NonStructuralSchema', crd['metadata']['name'], condition)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / 'documents'
        for program in model_tests:
            subprocess.run([program], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL,
                           env={**os.environ, 'MARGAY_TEST_DOCS': str(path)})
        documents = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]

    def is_ours(doc):
        return (isinstance(doc, dict) and doc.get('apiVersion') == V3 and
                doc['kind'] not in ('Node', 'Profile', 'WorkloadEndpoint') and
                isinstance(doc.get('metadata'), dict) and
                doc['metadata'].get('namespace', 'default') == 'default')

    refused = {True: [], False: []}
    for accepted in (True, False):
        docs = [d['doc'] for d in documents if d['accepted'] == accepted and is_ours(d['doc'])]
        answers = tool('apply', 'r', value=''.join(json.dumps(d) + '\n' for d in docs))
        require(len(answers) == len(docs) > 50, len(answers), len(docs))
        refused[accepted] = [a['message'] for a in answers if a['code']]
    require(not refused[True], refused[True])
    schema = [m for m in refused[False] if ' is invalid: spec.' in m]
    print(f'    {len(documents)} documents, {time.monotonic() - began:.1f} s; of {len(refused[False])} '
          f'bad ones that were refused {len(schema)} by the schema')
    require(len(schema) > 40, f'only {len(schema)} of the bad documents fail by the schema')
    api.kubectl('delete', '--all', '-A', ','.join(
        f'{plural}.crd.projectcalico.org' for plural in
        ('networkpolicies', 'globalnetworkpolicies', 'tiers', 'ippools', 'blockaffinities',
         'ipamblocks')))


# ---- items and objects ----

def test_policy(api, tool):
    key = 'NetworkPolicy.projectcalico.org/default/p'
    doc = {'apiVersion': V3, 'kind': 'NetworkPolicy',
           'metadata': {'name': 'p', 'namespace': 'default', 'labels': {'x': 'y'},
                        'creationTimestamp': '2026-01-02T03:04:05Z'},
           'spec': {'tier': 'default', 'selector': 'all()', 'types': ['Ingress']}}
    revision = tool.put(key, doc, 'none')['revision']
    require(tool.put(key, doc, 'none')['code'] == 'File exists')
    seen = kubectl_json(api, '-n', 'default', 'networkpolicies.crd.projectcalico.org', 'p')
    require(json.loads(seen['metadata']['annotations'][NOTE]) ==
            {'name': 'p', 'creationTimestamp': '2026-01-02T03:04:05Z', 'labels': {'x': 'y'}}, seen)
    require('labels' not in seen['metadata'] and seen['apiVersion'] == V1, seen)
    mine = tool.get(key)
    require(mine['revision'] == revision == int(seen['metadata']['resourceVersion']))
    require(mine['value']['metadata']['labels'] == {'x': 'y'}, mine)
    require(mine['value']['metadata']['uid'] != seen['metadata']['uid'])
    doc['spec']['order'] = 7
    second = tool.put(key, doc, revision)
    require(second['revision'] > revision, second)
    require(tool.put(key, doc, revision)['code'] == 'Stale file handle')
    require(tool.delete(key, revision)['code'] == 'Stale file handle')
    require(tool.delete(key, second['revision'])['code'] == '')
    require(tool.put(key, doc, revision)['code'] == 'No such file or directory')
    require(tool.get(key) is None)


def test_old_names(api, tool):
    """A policy that an old version wrote is found, changed and deleted by its name."""
    api.apply([{'apiVersion': V1, 'kind': 'GlobalNetworkPolicy', 'metadata': {'name': 'default.old'},
                'spec': {'selector': 'all()'}}])
    key = 'GlobalNetworkPolicy.projectcalico.org//old'
    old = tool.get(key)['value']
    require(old['metadata']['name'] == 'old', old)
    require([i['key'] for i in tool.list('GlobalNetworkPolicy.projectcalico.org/')] == [key])
    old['spec']['order'] = 3
    require(tool.put(key, old)['code'] == '')
    seen = kubectl_json(api, 'globalnetworkpolicies.crd.projectcalico.org')['items']
    require([(i['metadata']['name'], i['spec']['order']) for i in seen] == [('default.old', 3)])
    require(tool.delete(key)['code'] == '' and tool.get(key) is None)


def test_ipam(api, tool):
    """Soft-deleted objects are absent, and whoever creates one anew finishes the delete."""
    block = '/ipam/v2/assignment/ipv4/block/10.44.7.0-30'
    value = {'cidr': '10.44.7.0/30', 'affinity': 'host:node-1', 'allocations': [None] * 4,
             'unallocated': [0, 1, 2, 3], 'attributes': [], 'sequenceNumber': 1,
             'sequenceNumberForAllocation': {}, 'deleted': False}
    first = tool.put(block, value, 'none')
    require(first['code'] == '', first)
    api.kubectl('patch', 'ipamblocks.crd.projectcalico.org', '10-44-7-0-30', '--type=merge', '-p',
                '{"spec":{"deleted":true}}')
    require(tool.list('/ipam/v2/assignment/') == [])
    second = tool.put(block, value, 'none')
    require(second['code'] == '' and second['revision'] > first['revision'], second)
    require(tool.delete(block, first['revision'])['code'] == 'Stale file handle')
    require(tool.delete(block, second['revision'])['code'] == '')
    require(tool.delete(block)['code'] == 'No such file or directory')
    require(kubectl_json(api, 'ipamblocks.crd.projectcalico.org')['items'] == [])
    # affinities: by label, and those of before the labels
    for node in ('node-1', 'node-12'):
        tool.put(f'/ipam/v2/host/{node}/ipv4/block/10.44.7.0-30', {'state': 'confirmed'}, 'none')
    api.apply([{'apiVersion': V1, 'kind': 'BlockAffinity', 'metadata': {'name': 'old'},
                'spec': {'cidr': '10.1.0.0/26', 'node': 'node-1', 'state': 'confirmed',
                         'deleted': 'false'}}])
    keys = [i['key'] for i in tool.list('/ipam/v2/host/node-1/ipv4/block/')]
    require(keys == ['/ipam/v2/host/node-1/ipv4/block/10.1.0.0-26',
                     '/ipam/v2/host/node-1/ipv4/block/10.44.7.0-30'], keys)
    require(len(tool.list('/ipam/v2/host/')) == 3)


def test_pods(api, tool):
    api.apply([{'apiVersion': 'v1', 'kind': 'Node', 'metadata': {'name': 'n1'}}])
    require(tool.put('Pod/default/web-7', POD, 'none')['code'] == '')
    wep = 'WorkloadEndpoint.projectcalico.org/default/n1-k8s-web--7-eth0'
    require(tool.get(wep) is None, 'no address yet')
    put = tool.put(wep, {'apiVersion': V3, 'kind': 'WorkloadEndpoint', 'metadata': {},
                         'spec': {'ipNetworks': ['10.44.7.9/32', 'fd00::9/128'],
                                  'containerID': '4f0c'}})
    require(put['code'] == '', put)
    notes = kubectl_json(api, 'pod', 'web-7')['metadata']['annotations']
    require(notes == {'cni.projectcalico.org/podIP': '10.44.7.9/32',
                      'cni.projectcalico.org/podIPs': '10.44.7.9/32,fd00::9/128',
                      'cni.projectcalico.org/containerID': '4f0c'}, notes)
    mine = tool.get(wep)
    require(mine['value']['spec']['ipNetworks'] == ['10.44.7.9/32', 'fd00::9/128'], mine)
    require(mine['value']['spec']['containerID'] == '4f0c', mine)
    require([i['key'] for i in tool.list('WorkloadEndpoint.projectcalico.org/')] == [wep])
    require(tool.delete(wep, 1)['code'] == 'Stale file handle', 'by another revision')
    require(tool.delete(wep, mine['revision'])['code'] == '')
    notes = kubectl_json(api, 'pod', 'web-7')['metadata']['annotations']
    require(notes == {'cni.projectcalico.org/podIP': '', 'cni.projectcalico.org/podIPs': '',
                      'cni.projectcalico.org/containerID': '4f0c'}, notes)
    # a pod's labels change by a patch, its status by the subresource
    pod = tool.get('Pod/default/web-7')['value']
    pod['metadata']['labels'] = {'new': '1'}
    pod['status'] = {'phase': 'Running', 'podIP': '10.0.0.1', 'podIPs': [{'ip': '10.0.0.1'}]}
    answer = tool.put('Pod/default/web-7', pod)
    require(answer['code'] == '', answer)
    seen = kubectl_json(api, 'pod', 'web-7')
    require(seen['metadata']['labels'] == {'new': '1'} and seen['status']['podIP'] == '10.0.0.1',
            seen)
    pod['spec']['nodeName'] = 'n2'
    answer = tool.put('Pod/default/web-7', pod)
    require('pod updates may not change fields' in answer['message'], answer)


def test_node(api, tool):
    require(tool('node', 'n1', 'up')[-1]['code'] == '')
    condition = [c for c in kubectl_json(api, 'node', 'n1')['status']['conditions']
                 if c['type'] == 'NetworkUnavailable']
    require([(c['status'], c['reason']) for c in condition] == [('False', 'CalicoIsUp')], condition)
    require(tool('node', 'n1', 'projectcalico.org/IPv4Address=192.0.2.11/24',
                 'projectcalico.org/IPv4IPIPTunnelAddr=10.44.7.1')[-1]['code'] == '')
    require(tool('node', 'n1', 'projectcalico.org/IPv4IPIPTunnelAddr=')[-1]['code'] == '')
    key = 'Node.projectcalico.org//n1'
    node = tool.get(key)['value']
    require(node['spec']['bgp'] == {'ipv4Address': '192.0.2.11/24'}, node)
    node['spec']['bgp']['asNumber'] = 64513
    node['metadata'].setdefault('labels', {})['own'] = '1'
    require(tool.put(key, node)['code'] == '')
    seen = kubectl_json(api, 'node', 'n1')['metadata']
    require(seen['annotations']['projectcalico.org/ASNumber'] == '64513', seen)
    require('own' not in seen.get('labels', {}), seen)
    require(tool.get(key)['value']['metadata']['labels']['own'] == '1')
    require('kubelets' in tool.put('Node.projectcalico.org//n9', node, 'none')['message'])
    require('kubectl delete node' in tool.delete(key)['message'])


def test_profiles(tool):
    keys = [i['key'] for i in tool.list('Profile.projectcalico.org/')]
    require('Profile.projectcalico.org//kns.default' in keys, keys)
    require(keys == sorted(keys) and keys[-1].endswith('projectcalico-default-allow'), keys)
    refused = tool.put('Profile.projectcalico.org//kns.default', {'metadata': {}})
    require('Namespaces' in refused['message'], refused)


def test_rights(api, tool_of):
    poor = tool_of(api.url(token=POOR_TOKEN, name='kubeconfig-poor'))
    answer = poor('get', 'r', 'Pod/default/web-7')[-1]
    require('no right to get pods "default/web-7"' in answer['message'], answer)
    answer = poor('list', 'r', 'IPPool.projectcalico.org/')[-1]
    require('no right to list ippools.crd.projectcalico.org' in answer['message'], answer)
    answer = poor.put('Namespace//x', {'apiVersion': 'v1', 'kind': 'Namespace'}, 'none')
    require('no right to create namespaces' in answer['message'], answer)
    stranger = tool_of(api.url(token='nobody-knows', name='kubeconfig-stranger'))
    answer = stranger('get', 'r', 'Pod/default/web-7')[-1]
    require('credential' in answer['message'] and '401' in answer['message'], answer)


# ---- following ----

def test_following(api, tool_of):
    """Both kinds of a node and of our own pods; what others write comes; asking proves it."""
    tool = tool_of(api.url() + '?node=n1')
    with tool.stream('follow', 'r', 'raw') as stream:
        stream.event('in_sync')
        items = stream.items()
        for key in ('Node//n1', 'Node.projectcalico.org//n1', 'Pod/default/web-7',
                    'WorkloadEndpoint.projectcalico.org/default/n1-k8s-web--7-eth0'):
            require(key in items, key, items)
        require(sum(line['event'] == 'in_sync' for line in stream.lines) == 1)
        pod = next(line['value'] for line in stream.lines if line.get('key') == 'Pod/default/web-7')
        require('managedFields' not in pod['metadata'] and 'tolerations' not in pod['spec'], pod)
        start = len(stream.lines)
        api.kubectl('create', 'namespace', 'late')
        stream.wait(lambda line: line.get('key') == 'Namespace//late', 'the namespace is told')
        answer = tool.put('Tier.projectcalico.org//t', {'apiVersion': V3, 'kind': 'Tier',
                                                        'metadata': {'name': 't'}, 'spec': {}})
        stream.ask()

        def is_told(line):
            return (line['event'] in ('progress', 'snapshot_end') and
                    line['scope'] == 'Service/' and line['revision'] >= answer['revision'])

        stream.wait(is_told, 'a kind without changes is known to be as far')
        require('Tier.projectcalico.org//t' in stream.items(start=start))
    with tool_of(api.url()).stream('watch', 'r', 'Namespace/', '1') as stream:
        wait_until(lambda: stream.lines, 'the watch answers')


def test_restart(api, tool_of):
    """The server goes and comes back, with another token: nothing is told twice or taken back."""
    folder = pathlib.Path(tempfile.mkdtemp())
    token = folder / 'token'
    token.write_text(FIRST_TOKEN, encoding='utf-8')
    tool = tool_of(api.url(token_file=token, name='kubeconfig-token'))
    with tool.stream('follow', 'r') as stream:
        stream.event('in_sync')
        start = len(stream.lines)
        api.users[SECOND_TOKEN] = api.users.pop(FIRST_TOKEN)
        api.stop(kill=True)
        stream.event('lost', start)
        token.write_text(SECOND_TOKEN, encoding='utf-8')
        api.start()
        began = time.monotonic()
        stream.event('connected', start)
        print(f'    back {time.monotonic() - began:.1f} s after the server was ready')
        api.kubectl('create', 'namespace', 'after')
        stream.wait(lambda line: line.get('key') == 'Namespace//after', 'it goes on following')
        gone = [key for key in stream.items(start=start) if key.startswith('-')]
        require(not gone, gone)
        old = [key for key in stream.items(start=start) if key == 'Namespace//default']
        require(not old, 'told again')


def run_all(api, program, model_tests):
    """Everything, on a server that has been started with POOR_TOKEN and FIRST_TOKEN."""
    tool = Tool(program, api.url())

    def tool_of(url):
        return Tool(program, url)

    for name, run in (('definitions', lambda: test_definitions(api, tool, model_tests)),
                      ('policy', lambda: test_policy(api, tool)),
                      ('old names', lambda: test_old_names(api, tool)),
                      ('ipam', lambda: test_ipam(api, tool)),
                      ('pods', lambda: test_pods(api, tool)),
                      ('node', lambda: test_node(api, tool)),
                      ('profiles', lambda: test_profiles(tool)),
                      ('rights', lambda: test_rights(api, tool_of)),
                      ('following', lambda: test_following(api, tool_of)),
                      ('restart', lambda: test_restart(api, tool_of))):
        began = time.monotonic()
        run()
        print(f'{name}: ok, {time.monotonic() - began:.1f} s', flush=True)


def main(program, *model_tests):
    users = {POOR_TOKEN: ('poor', 'nobody'), FIRST_TOKEN: ('agent', 'system:masters')}
    with Etcd() as etcd, KubeApiserver(etcd, users=users) as api:
        run_all(api, program, model_tests)
    return 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
