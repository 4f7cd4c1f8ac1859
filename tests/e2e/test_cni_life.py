#!/usr/bin/python3
"""Attachments in numbers and under fire: 200 at a time, plugins and agents killed in the middle, DEL
without an agent, sources that are not the pod's own. Each part must leave the node as it was.

Usage: test_cni_life.py [KILLS]
"""

import concurrent.futures
import difflib
import json
import os
import pathlib
import random
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent  # noqa: E402
from lab import Lab  # noqa: E402

PARALLEL = 50
POOL = {'apiVersion': 'projectcalico.org/v3', 'kind': 'IPPool', 'metadata': {'name': 'pods'},
        'spec': {'cidr': '10.70.0.0/16'}}


class Node:
    """A node with an agent, and the plugin as a runtime calls it."""

    def __init__(self, lab, agent):
        self.lab, self.agent = lab, agent
        self.plugin = os.path.join(agent.cni_bin, 'margay-cni')
        self.conf = {'cniVersion': '1.1.0', 'name': 'k8s-pod-network', 'type': 'margay-cni',
                     'socket': f'{agent.state}/agent.sock', 'state_dir': agent.state,
                     'ipam': {'type': 'margay-ipam'}}

    def start(self, command, container, netns, **more):
        """The plugin as a process, its configuration being read."""
        conf = {**self.conf, **more.get('conf', {})}
        env = {'CNI_COMMAND': command, 'CNI_CONTAINERID': container, 'CNI_IFNAME': more.get('ifname', 'eth0'),
               'CNI_NETNS': self.lab.path(netns) if netns else '', 'CNI_PATH': f'{self.agent.cni_bin}:/usr/lib/cni',
               'CNI_ARGS': more.get('args', ''), 'PATH': os.environ['PATH']}
        process = subprocess.Popen([self.plugin], env=env, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdin.write(json.dumps(conf))
        process.stdin.close()
        process.stdin = None
        return process

    def call(self, command, container, netns, **more):
        """The plugin's exit code and answer."""
        process = self.start(command, container, netns, **more)
        out, _ = process.communicate(timeout=60)
        return process.returncode, json.loads(out) if out.strip() else None

    def must(self, *argv, **more):
        code, answer = self.call(*argv, **more)
        assert code == 0, f'{argv}: {code} {answer}'
        return answer

    def state(self):
        """All that an attachment could leave behind, as one text."""
        run = lambda *argv: self.lab.run('node', list(argv))  # noqa: E731
        links = sorted(line['ifname'] for line in json.loads(run('ip', '-j', 'link')))
        spool = pathlib.Path(self.agent.state, 'spool')
        return '\n'.join([
            json.dumps(links), run('ip', 'route'), run('ip', '-6', 'route'), run('ip', 'neigh', 'show', 'nud', 'permanent'),
            run('nft', '-s', 'list', 'table', 'inet', 'margay'),
            self.agent.call('get', 'workloadendpoints', '-A', '-o', 'name'),
            self.agent.call('ipam', 'show'),
            *(json.dumps(sorted(os.listdir(path)) if path.is_dir() else [])
              for path in (spool, spool.parent / 'attachments'))])

    def expect(self, what, before, seconds=20):
        """The node is as it was, soon."""
        end = time.monotonic() + seconds
        while self.state() != before:
            if time.monotonic() > end:
                lines = difflib.unified_diff(before.splitlines(), self.state().splitlines(),
                                             'before', 'now', lineterm='')
                sys.exit(f'{what}: left behind:\n' + '\n'.join(lines) + '\n'
                         f'---- log\n{self.agent.log.read_text()[-3000:]}')
            time.sleep(0.1)
        self.agent.call('ipam', 'check')


def many(node, names):
    """200 at a time: each its own address, and they talk; then all go."""
    before = node.state()
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        answers = list(pool.map(lambda n: node.must('ADD', f'c-{n}', n), names))
    ips = {answer['ips'][0]['address'] for answer in answers}
    assert len(ips) == len(names), f'{len(ips)} addresses for {len(names)} pods'
    node.lab.run(names[0], ['ping', '-c1', '-W2', answers[-1]['ips'][0]['address'].split('/')[0]])
    links = json.loads(node.lab.run('node', ['ip', '-j', 'link']))
    assert sum(link['ifname'].startswith('cali') for link in links) == len(names)
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(lambda n: node.must('DEL', f'c-{n}', n), names))
    node.expect('parallel', before)


def plugins_killed(node, names, kills):
    """kill -9 of the plugin somewhere in ADD; then DEL, or GC for every third."""
    before = node.state()
    for i in range(kills):
        name = names[i % len(names)]
        process = node.start('ADD', f'k{i}-{name}', name)
        time.sleep(random.random() * 0.004)
        process.kill()
        process.communicate()
        if i % 3:
            node.must('DEL', f'k{i}-{name}', name)
        else:
            node.must('GC', '', '', conf={'cni.dev/valid-attachments': []})
    node.must('GC', '', '', conf={'cni.dev/valid-attachments': []})
    node.expect('killed plugins', before)


def agents_killed(node, names, kills):
    """kill -9 of the agent somewhere in ADD; the runtime's DEL cleans up."""
    before = node.state()
    codes = {}
    for i in range(kills):
        name = names[i % len(names)]
        process = node.start('ADD', f'a{i}-{name}', name)
        time.sleep(random.random() * 0.004)
        node.agent.kill()
        out, _ = process.communicate(timeout=60)
        codes[process.returncode] = codes.get(process.returncode, 0) + 1
        if process.returncode:
            assert json.loads(out)['code'] in (11, 999), out
        if i % 2:  # DEL waits for nobody
            node.must('DEL', f'a{i}-{name}', name)
        node.agent.start()
        if not i % 2:
            node.must('DEL', f'a{i}-{name}', name)
    node.expect('killed agents', before)
    return codes


def del_without_agent(node, names):
    """DEL succeeds while there is no agent, and is done when there is one again."""
    before = node.state()
    for name in names:
        node.must('ADD', f'd-{name}', name)
    node.agent.stop()
    code, answer = node.call('ADD', 'd-late', names[0])
    assert code and answer['code'] == 11, answer
    for name in names:
        node.must('DEL', f'd-{name}', name)
    node.agent.start()
    node.expect('DEL without agent', before)


def sources(node, name, peer):
    """A pod sends from its own address alone, unless it was allowed more and Felix' setting says
    that it may be."""
    felix = {'apiVersion': 'projectcalico.org/v3', 'kind': 'FelixConfiguration',
             'metadata': {'name': 'default'}, 'spec': {'workloadSourceSpoofing': 'Any'}}
    pod = {'apiVersion': 'v1', 'kind': 'Pod',
           'metadata': {'name': 'spoofer', 'namespace': 'default', 'annotations': {
               'cni.projectcalico.org/allowedSourcePrefixes': '["10.71.1.0/24", "10.72.0.1/32"]'}},
           'spec': {'nodeName': node.agent.name, 'containers': [{'name': 'main'}]}}
    other = {'apiVersion': 'v1', 'kind': 'Pod', 'spec': pod['spec'],
             'metadata': {'name': 'peer', 'namespace': 'default'}}
    node.agent.apply([{'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'default'}},
                      pod, other])
    args = {who: {'args': f'K8S_POD_NAMESPACE=default;K8S_POD_NAME={who}'}
            for who in ('spoofer', 'peer')}
    node.must('ADD', 'spoofer', name, **args['spoofer'])
    target = node.must('ADD', 'peer', peer, **args['peer'])['ips'][0]['address'].split('/')[0]
    own = ['10.71.1.9', '10.72.0.1', '10.71.2.9', '10.72.0.2']
    node.lab.batch(name, [f'address add {ip}/32 dev eth0' for ip in own])
    link = next(route['dev'] for route in json.loads(node.lab.run('node', ['ip', '-j', 'route']))
                if route['dst'] != target and route['dev'].startswith('cali'))
    node.lab.batch('node', [f'route add {ip}/32 dev {link}' for ip in own])

    def heard():
        return [node.lab.probe_ping(name, target, ip) for ip in [None, *own]]

    assert heard() == [True, False, False, False, False], heard()
    node.agent.apply([felix])
    assert heard() == [True, True, True, False, False], heard()
    node.agent.delete([felix])
    node.agent.call('status', '--wait')
    assert heard() == [True, False, False, False, False], heard()
    node.must('DEL', 'spoofer', name, **args['spoofer'])
    node.must('DEL', 'peer', peer, **args['peer'])
    node.agent.delete([pod, other])


def mtu(node, name):
    """Pods get the MTU of the host's smallest interface, also when it changes."""
    def of_pod():
        node.must('ADD', 'mtu', name)
        links = json.loads(node.lab.run(name, ['ip', '-j', 'link', 'show', 'eth0']))
        node.must('DEL', 'mtu', name)
        return links[0]['mtu']

    node.lab.batch('node', ['link add eth7 mtu 1400 type veth peer name other',
                            'link add docker9 mtu 1000 type veth peer name more'])
    assert of_pod() == 1400, of_pod()
    node.lab.batch('node', ['link set eth7 mtu 1450'])
    assert of_pod() == 1450, of_pod()
    node.lab.batch('node', ['link del eth7', 'link del docker9'])
    assert of_pod() == 1500, of_pod()


def main(kills=60):
    random.seed(3)
    with Lab() as lab:
        lab.netns('node')
        lab.sysctl('node', {'net.ipv4.ip_forward': 1})
        names = [f'p{i}' for i in range(200)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lab.netns, names))
        with Agent(lab, 'node') as agent:
            agent.apply([POOL])
            node = Node(lab, agent)
            node.must('ADD', 'first', 'p0')  # the block stays with the node
            node.must('DEL', 'first', 'p0')
            for part, argv in ((many, (names,)), (plugins_killed, (names, kills)),
                               (agents_killed, (names, kills // 3)),
                               (del_without_agent, (names[:20],)), (sources, ('p0', 'p1')),
                               (mtu, ('p0',))):
                start = time.monotonic()
                said = part(node, *argv)
                print(f'{part.__name__}: nothing left behind, {time.monotonic() - start:.1f} s '
                      f'{said or ""}', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main(*(int(text) for text in sys.argv[1:2])))
