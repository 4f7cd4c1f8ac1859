#!/usr/bin/python3
"""Several agents on one etcd: what is written at one of them is enforced on all.

Each node is a namespace on a bridge with two pods of its own, one in each Kubernetes namespace. Every
pod probes every pod, and the oracle says what may get through; a policy, a pod's labels and a pod's end
are changed from one node only.

Usage: test_store_nodes.py [NODES [etcd|kubernetes]] (2, etcd)
"""

import concurrent.futures
import contextlib
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent, forget_connections, pod_object  # noqa: E402
from casebook import Case  # noqa: E402
from lab import Lab, wait_until_reachable  # noqa: E402
from oracle import Pod  # noqa: E402
from stores import open_store  # noqa: E402

STORE_ADDRESS = '10.76.0.254'
FLOWS = [('TCP', 80), ('UDP', 80), ('ICMP', None)]
POOL = {'apiVersion': 'projectcalico.org/v3', 'kind': 'IPPool'}


class Nodes:
    """The topology: pods x/a1, y/b1 on n1, x/a2, y/b2 on n2, ..."""

    def __init__(self, count):
        self.names = [f'n{i}' for i in range(1, count + 1)]
        self.namespaces = {'x': {'ns': 'x'}, 'y': {'ns': 'y'}}
        self.flows = FLOWS
        self.pods, self.node_of = [], {}
        for i, name in enumerate(self.names, 1):
            for namespace, letter, last in (('x', 'a', 11), ('y', 'b', 12)):
                pod = Pod(namespace, f'{letter}{i}', [f'10.80.{i}.{last}', f'fd80:0:0:{i}::{last}'],
                          {'app': letter, 'node': name}, [['web', 'TCP', 80]])
                self.pods.append(pod)
                self.node_of[repr(pod)] = name

    def places(self):
        """As Topology has it."""
        return {repr(pod): tuple(str(ip) for ip in pod.ips) for pod in self.pods}

    @staticmethod
    def address(name):
        """A node's own."""
        return f'10.76.0.{name[1:]}', f'fd76::{name[1:]}'


def policy(name, namespace, spec):
    """A NetworkPolicy as cases have it."""
    return {'metadata': {'name': name, 'namespace': namespace}, 'spec': spec}


def cases(topology):
    """Sets of policies whose meaning spans the nodes."""
    app_a = {'podSelector': {'matchLabels': {'app': 'a'}}, 'namespaceSelector': {}}
    on_first = {'podSelector': {'matchLabels': {'node': 'n1'}}, 'namespaceSelector': {}}
    documents = [
        ('open', []),
        ('y takes x only', [policy('from-x', 'y', {'podSelector': {}, 'ingress': [
            {'from': [{'namespaceSelector': {'matchLabels': {'ns': 'x'}}}]}]})]),
        ('all take only pods of the first node', [
            policy('from-first', namespace, {'podSelector': {}, 'ingress': [{'from': [on_first]}]})
            for namespace in 'xy']),
        ('x sends only tcp/80 to a', [policy('to-a', 'x', {
            'podSelector': {}, 'policyTypes': ['Egress'],
            'egress': [{'to': [app_a], 'ports': [{'port': 80}]}]})]),
    ]
    return [Case(topology, {'name': name, 'policies': policies}) for name, policies in documents]


def wire(lab, topology):
    """The nodes and the store on one bridge; the ways to each other's pods."""
    lab.netns('switch')
    lab.batch('switch', ['link add br0 type bridge', 'link set br0 up'])
    for name in [*topology.names, 'store']:
        lab.netns(name)
        lab.link('switch', f'p{name}', name, 'eth0')
        lab.batch('switch', [f'link set p{name} master br0'])
    lab.batch('store', [f'address add {STORE_ADDRESS}/24 dev eth0'])
    for name in topology.names:
        v4, v6 = topology.address(name)
        lab.sysctl(name, {'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1,
                          'net.ipv4.icmp_ratelimit': 0, 'net.ipv6.icmp.ratelimit': 0})
        ways = [f'address add {v4}/24 dev eth0', f'address add {v6}/64 dev eth0 nodad']
        for pod in topology.pods:
            other = topology.node_of[repr(pod)]
            if other != name:
                via = topology.address(other)
                ways += [f'route replace {pod.ips[0]}/32 via {via[0]}',
                         f'route replace {pod.ips[1]}/128 via {via[1]}']
        lab.batch(name, ways)


def on_all(agents, what):
    """Something at all agents at once; how long until the last was done."""
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(len(agents)) as pool:
        list(pool.map(what, agents))
    return time.monotonic() - start


def check(lab, agents, topology, case):
    """Lines of disagreement of one case, probed from everywhere."""
    for agent in agents:
        forget_connections(lab, agent.node)
    lines = case.disagreements(lab.probe_matrix(topology.places(), topology.flows))
    if lines:  # a probe lost on a busy machine is no answer: ask once more
        for agent in agents:
            forget_connections(lab, agent.node)
        lines = case.disagreements(lab.probe_matrix(topology.places(), topology.flows, timeout=4.0))
    for line in lines[:6]:
        print('    ' + line)
    return lines


def main(count='2', kind='etcd'):
    topology = Nodes(int(count))
    wrong, slowest = [], 0.0
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        wire(lab, topology)
        store = stack.enter_context(open_store(kind, lab, 'store', topology.names, STORE_ADDRESS))
        agents = [stack.enter_context(Agent(lab, name, name, store=store))
                  for name in topology.names]
        first, last = agents[0], agents[-1]
        first.apply(
            [{**POOL, 'metadata': {'name': 'v4'}, 'spec': {'cidr': '10.80.0.0/16'}},
             {**POOL, 'metadata': {'name': 'v6'}, 'spec': {'cidr': 'fd80::/48'}}] +
            [{'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': name, 'labels': labels}}
             for name, labels in topology.namespaces.items()] +
            [pod_object(pod, topology.node_of[repr(pod)]) for pod in topology.pods])
        for pod in topology.pods:
            lab.netns(repr(pod))

        def attach(agent):
            for pod in topology.pods:
                if topology.node_of[repr(pod)] == agent.name:
                    agent.add_pod(pod, repr(pod))
                    lab.listen(repr(pod), topology.flows)

        on_all(agents, attach)
        wait_until_reachable(lab, topology.places(), 60)

        def enforced(agent):
            agent.call('status', '--wait')

        for case in cases(topology):
            last.apply(case.policies, wait=False)
            took = on_all(agents, enforced)
            slowest = max(slowest, took)
            lines = check(lab, agents, topology, case)
            print(f'{case.name}: enforced on {len(agents)} nodes {took:.2f} s after it was written, '
                  f'{len(lines)} disagreements', flush=True)
            wrong += lines
            first.delete(case.policies)
        # The last node's pod of y changes its label at the first node; then its object is gone.
        only_a = policy('only-a', 'x', {'podSelector': {}, 'ingress': [{'from': [
            {'podSelector': {'matchLabels': {'app': 'a'}}, 'namespaceSelector': {}}]}]})
        pod = topology.pods[-1]
        changed = Pod(pod.namespace, pod.name, pod.ips, {**pod.labels, 'app': 'a'}, pod.ports)
        first.apply([{'apiVersion': 'networking.k8s.io/v1', 'kind': 'NetworkPolicy', **only_a},
                     pod_object(changed, topology.node_of[repr(pod)])], wait=False)
        topology.pods[-1] = changed
        took = on_all(agents, enforced)
        lines = check(lab, agents, topology, Case(topology, {'name': 'relabelled',
                                                             'policies': [only_a]}))
        print(f'relabelled: enforced on all {took:.2f} s after, {len(lines)} disagreements')
        wrong += lines
        last.kill()
        last.start()
        lines = check(lab, agents, topology, Case(topology, {'name': 'restarted',
                                                             'policies': [only_a]}))
        print(f'the last agent killed and started: {len(lines)} disagreements')
        wrong += lines
        first.call('ipam', 'check')
    print(f'{count} agents on one {kind}: {len(wrong)} disagreements, a change was enforced on all '
          f'within {slowest:.2f} s, {time.monotonic() - start:.0f} s in all')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
