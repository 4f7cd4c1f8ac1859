#!/usr/bin/python3
"""Pods of several nodes reach each other by VXLAN, by VXLAN between subnets only, and by plain routes.

Nodes in two subnets with a router between them, on one etcd. Every pod probes every pod over IPv4 and
IPv6, the oracle says what policy lets through, and packets as large as the pod's MTU arrive unfragmented.
Then a node is gone, comes back under its name, and a second node claims an address that is taken. Without
sanitizers (which must be loaded first) the nodes' clocks are two hours apart.

Usage: test_network.py [NODES [MODE…]] (5, Always CrossSubnet Never)
"""

import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent, pod_object  # noqa: E402
from casebook import Case  # noqa: E402
from lab import PYTHON, CommandFailed, Lab, wait_until_reachable  # noqa: E402
from stores import open_store  # noqa: E402
from test_store_nodes import POOL, Nodes, cases, check, on_all  # noqa: E402

STORE_ADDRESS = '10.77.1.254'


class Sites(Nodes):
    """The last two nodes are in a subnet of their own; with plain routes none is."""

    def __init__(self, count, is_split):
        super().__init__(count)
        self.far = set(self.names[-2:]) if is_split else set()

    def site(self, name):
        """Which subnet a node is in."""
        return 2 if name in self.far else 1

    def address(self, name):  # of this node, not of all as there
        """A node's own."""
        return (f'10.77.{self.site(name)}.{name[1:]}', f'fd77:{self.site(name)}::{name[1:]}')


def wire(lab, topology):
    """Two switches, a router between them, the store in the first subnet."""
    lab.netns('router')
    lab.sysctl('router', {'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1})
    for site in (1, 2):
        lab.batch('router', [f'link add br{site} type bridge', f'link set br{site} up',
                             f'address add 10.77.{site}.200/24 dev br{site}',
                             f'address add fd77:{site}::200/64 dev br{site} nodad'])
    for name in [*topology.names, 'store']:
        site = topology.site(name)
        lab.netns(name)
        lab.link('router', f'p{name}', name, 'eth0')
        lab.batch('router', [f'link set p{name} master br{site}'])
        v4, v6 = topology.address(name) if name != 'store' else (STORE_ADDRESS, 'fd77:1::254')
        lab.batch(name, [f'address add {v4}/24 dev eth0', f'address add {v6}/64 dev eth0 nodad',
                         f'route add default via 10.77.{site}.200',
                         f'route add default via fd77:{site}::200'])


def until(what, timeout=60):
    """Polls until what() is true."""
    end = time.monotonic() + timeout
    while not what():
        if time.monotonic() > end:
            raise AssertionError(f'not so within {timeout} s: {what.__doc__ or what}')
        time.sleep(0.2)


def routes(lab, name):
    """Destinations of the agent's own routes on a node."""
    out = []
    for family in ('-4', '-6'):
        text = lab.run(name, ['ip', '-j', family, 'route', 'show', 'proto', '80'])
        out += [route['dst'] for route in json.loads(text or '[]')]
    return sorted(out)


def clock(agent, hours):
    """Another time of day for an agent."""
    library = next(pathlib.Path('/usr/lib').glob('*/faketime/libfaketime.so.1'), None)
    linked = subprocess.run(['ldd', agent.margay], capture_output=True, text=True, check=True).stdout
    if library and 'libasan' not in linked:
        agent.environment = {'LD_PRELOAD': str(library), 'FAKETIME': f'{hours:+}h',
                             'FAKETIME_DONT_FAKE_MONOTONIC': '1'}
    else:
        print('clocks are not set apart: ' + ('no libfaketime' if not library else 'sanitizers'), flush=True)


def large_packets(lab, topology):
    """Packets of the pod's MTU with "don't fragment", between the nodes that are farthest apart."""
    first, last = topology.pods[0], topology.pods[-1]
    link = json.loads(lab.run(repr(first), ['ip', '-j', 'link', 'show', 'eth0']))[0]
    wrong = []
    for ip, headers in zip(last.ips, (28, 48)):
        try:
            lab.run(repr(first), ['ping', '-c', '2', '-W', '5', '-M', 'do', '-s',
                                  str(link['mtu'] - headers), str(ip)])
        except CommandFailed as error:
            wrong.append(f'{link["mtu"]} bytes to {ip}: {error}')
    return wrong


FORGE = """
import socket, struct, sys
outer, mac, src, dst, n = sys.argv[1:]
body = b'forged'
udp = struct.pack('!HHHH', 9999, 9999, 8 + len(body), 0) + body
def ip(total):
    head = struct.pack('!BBHHHBBH4s4s', 69, 0, total, 1, 0, 64, 17, 0, socket.inet_aton(src),
                       socket.inet_aton(dst))
    words = sum(struct.unpack('!10H', head))
    words = (words >> 16) + (words & 0xffff)
    return head[:10] + struct.pack('!H', ~(words + (words >> 16)) & 0xffff) + head[12:]
frame = bytes.fromhex(mac.replace(':', '')) + bytes.fromhex('020000000001') + b'\\x08\\0'
vxlan = struct.pack('!II', 0x08000000, 4096 << 8)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(n)):
    s.sendto(vxlan + frame + ip(20 + len(udp)) + udp, (outer, 4789))
"""

CATCH = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 9999))
print('ready', flush=True)
while True:
    print(s.recv(100).decode(), flush=True)
"""


def catcher(lab, place, folder):
    """A socket in a pod that notes what comes; a function that says how many packets did so far."""
    out = pathlib.Path(folder, 'caught')
    with out.open('w', encoding='utf-8') as stream:
        lab.spawn(place, [PYTHON, '-c', CATCH], stdout=stream)

    def is_ready():
        """the catcher listens"""
        return out.read_text(encoding='utf-8').startswith('ready')

    until(is_ready)
    return lambda: len(out.read_text(encoding='utf-8').splitlines()) - 1


def forged_packets(lab, agents, topology, folder):
    """Packets in packets: a node's own arrive, a stranger's and a pod's don't, but if they may."""
    mine, theirs = topology.pods[0], topology.pods[2]
    node = topology.node_of[repr(theirs)]
    mac = json.loads(lab.run(node, ['ip', '-j', 'link', 'show', 'vxlan.calico']))[0]['address']
    outer = topology.address(node)[0]
    count = catcher(lab, repr(theirs), folder)
    wrong = []

    def send(place):
        lab.run(place, [PYTHON, '-c', FORGE, outer, mac, str(mine.ips[0]), str(theirs.ips[0]), '5'])

    for place, words in (('router', 'a stranger'), (repr(mine), 'a pod')):
        send(place)
        time.sleep(1)
        if count():
            wrong.append(f'{count()} packets that {words} put into VXLAN got to a pod')
    may = {'apiVersion': 'projectcalico.org/v3', 'kind': 'FelixConfiguration',
           'metadata': {'name': 'default'}, 'spec': {'allowVXLANPacketsFromWorkloads': True}}
    for place in (topology.node_of[repr(mine)], repr(mine)):
        before = count()

        def came(place=place, before=before):
            """what a node encapsulates arrives, and what a pod does that may"""
            send(place)
            return count() > before

        until(came)
        agents[0].apply([may], wait=False)
    agents[0].delete([may])
    print(f'VXLAN from others than nodes: {len(wrong)} ways in', flush=True)
    return wrong


def host_policies(lab, agents, topology):
    """Hosts that take TCP and ICMP alone: what is between nodes goes on."""
    v3 = {'apiVersion': 'projectcalico.org/v3'}
    rules = [{'action': 'Allow', 'protocol': protocol} for protocol in ('TCP', 'ICMP', 'ICMPv6')]
    objects = [{**v3, 'kind': 'GlobalNetworkPolicy', 'metadata': {'name': 'hosts'},
                'spec': {'selector': "is == 'host'", 'types': ['Ingress', 'Egress'],
                         'ingress': rules, 'egress': rules}}]
    objects += [{**v3, 'kind': 'HostEndpoint',
                 'metadata': {'name': name, 'labels': {'is': 'host'}},
                 'spec': {'node': name, 'interfaceName': 'eth0'}} for name in topology.names]
    agents[0].apply(objects, wait=False)
    on_all(agents, lambda agent: agent.call('status', '--wait'))
    lines = check(lab, agents, topology, Case(topology, {'name': 'host endpoints', 'policies': []}))
    agents[0].delete(objects)
    print(f'hosts that take no UDP: {len(lines)} disagreements', flush=True)
    return lines


def one_mode(mode, count):
    """Lines of what is wrong."""
    topology = Sites(count, mode != 'Never')
    wrong = []
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        wire(lab, topology)
        store = stack.enter_context(open_store('etcd', lab, 'store', topology.names, STORE_ADDRESS))
        lab.run(topology.names[0], ['true'])
        agents = [Agent(lab, name, name, store=store) for name in topology.names]
        clock(agents[1], 2)
        clock(agents[2], -2)
        agents[-1].environment['IP'] = 'autodetect'
        for agent in agents:
            stack.enter_context(agent)
        first = agents[0]
        for name in topology.names:  # IPv6 is not looked for unless it is asked for
            v4, v6 = topology.address(name)
            first.apply([{'apiVersion': 'projectcalico.org/v3', 'kind': 'Node',
                          'metadata': {'name': name},
                          'spec': {'bgp': {'ipv4Address': v4 + '/24', 'ipv6Address': v6 + '/64'}}}],
                        wait=False)
        spec = {'vxlanMode': mode, 'natOutgoing': True}
        first.apply(
            [{**POOL, 'metadata': {'name': 'v4'}, 'spec': {'cidr': '10.80.0.0/16', **spec}},
             {**POOL, 'metadata': {'name': 'v6'}, 'spec': {'cidr': 'fd80::/48', 'vxlanMode': mode}}] +
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
        start = time.monotonic()
        wait_until_reachable(lab, topology.places(), 90)
        print(f'{mode}: all pods reach each other {time.monotonic() - start:.1f} s after the last '
              'was added', flush=True)
        for case in cases(topology)[:2]:
            first.apply(case.policies, wait=False)
            on_all(agents, lambda agent: agent.call('status', '--wait'))
            lines = check(lab, agents, topology, case)
            print(f'{mode}: {case.name}: {len(lines)} disagreements', flush=True)
            wrong += lines
            first.delete(case.policies)
        lines = large_packets(lab, topology)
        print(f'{mode}: packets of the whole MTU: {len(lines)} lost', flush=True)
        wrong += lines
        if mode == 'Always':
            with tempfile.TemporaryDirectory() as folder:
                wrong += forged_packets(lab, agents, topology, folder)
            wrong += host_policies(lab, agents, topology)
            wrong += uplink_changes(lab, agents, topology)
        before = routes(lab, topology.names[0])
        first.call('ipam', 'check')
        if mode == 'CrossSubnet':
            wrong += node_gone_and_back(lab, agents, topology, before)
            wrong += taken_address(agents, topology)
            renamed(lab, agents, store)
    return wrong


def node_gone_and_back(lab, agents, topology, before):
    """The last agent's Node is deleted while it does not run; then it comes back."""
    last, first = agents[-1], agents[0]
    last.kill()
    first.call('delete', 'nodes.projectcalico.org', last.name)

    def is_gone():
        """the routes to a deleted node are gone"""
        return len(routes(lab, first.name)) < len(before)

    until(is_gone)
    last.start()

    def is_back():
        """the routes to a node that came back are there"""
        return routes(lab, first.name) == before

    v4, v6 = topology.address(last.name)
    node = {'apiVersion': 'projectcalico.org/v3', 'kind': 'Node', 'metadata': {'name': last.name},
            'spec': {'bgp': {'ipv4Address': v4 + '/24', 'ipv6Address': v6 + '/64'}}}
    first.apply([node], wait=False)
    until(is_back)
    wait_until_reachable(lab, topology.places(), 60)
    lines = check(lab, agents, topology, Case(topology, {'name': 'node back', 'policies': []}))
    print(f'a node gone and back: {len(lines)} disagreements', flush=True)
    return lines


def taken_address(agents, topology):
    """Two nodes with one address: the second is told, with both names."""
    first, second = agents[0], agents[1]
    v4 = topology.address(first.name)[0]
    node = {'apiVersion': 'projectcalico.org/v3', 'kind': 'Node', 'metadata': {'name': second.name},
            'spec': {'bgp': {'ipv4Address': v4 + '/24'}}}
    first.apply([node], wait=False)

    def says_so():
        """status names both nodes that have an address"""
        text = json.dumps(second.status()['problems'])
        return f'node {second.name} has the address {v4}, and so has node {first.name}' in text

    until(says_so)
    print('an address that another node has: refused with both names', flush=True)
    return []


def uplink_changes(lab, agents, topology):
    """Another MTU, an interface that goes and comes, another address: the tunnels follow."""
    name = agents[-1].name
    v4, v6 = topology.address(name)
    site = topology.site(name)

    def reach(what):
        wait_until_reachable(lab, topology.places(), 60)
        lines = check(lab, agents, topology, Case(topology, {'name': what, 'policies': []}))
        print(f'{what}: {len(lines)} disagreements', flush=True)
        return lines

    def is_small():
        """the tunnel's MTU follows the uplink's"""
        return json.loads(lab.run(name, ['ip', '-j', 'link', 'show', 'vxlan.calico']))[0]['mtu'] == 1350

    lab.batch(name, ['link set eth0 mtu 1400'])
    until(is_small)
    lab.batch(name, ['link set eth0 mtu 1500'])
    lab.batch(name, ['link set eth0 down', 'link set eth0 up',
                     f'address replace {v6}/64 dev eth0 nodad',
                     f'route replace default via 10.77.{site}.200',
                     f'route replace default via fd77:{site}::200'])
    wrong = reach('the uplink down and up')
    lab.batch(name, [f'address add 10.77.{site}.199/24 dev eth0',
                     f'address delete {v4}/24 dev eth0', f'address replace 10.77.{site}.199/24 dev eth0',
                     f'route replace default via 10.77.{site}.200'])

    def has_moved():
        """the Node has the new address"""
        node = json.loads(agents[0].call('get', 'nodes.projectcalico.org', name, '-o', 'json'))
        return node['spec']['bgp']['ipv4Address'] == f'10.77.{site}.199/24'

    until(has_moved)
    return wrong + reach('another address')


def renamed(lab, agents, store):
    """A node that comes back under another name has its address when the old Node is deleted."""
    last, first = agents[-1], agents[0]
    last.kill()
    with Agent(lab, last.node, 'renamed', store=store) as again:
        def is_refused():
            """status names the Node of old that has the address"""
            return f'so has node {last.name}' in json.dumps(again.status()['problems'])

        def is_there():
            """the address is the new name's"""
            return not again.status()['problems']

        until(is_refused)
        first.call('delete', 'nodes.projectcalico.org', last.name)
        until(is_there)
    last.start(wait=False)
    print('a node renamed: it has its address when the old Node is gone', flush=True)


def main(count='5', *modes):
    wrong = []
    for mode in modes or ('Always', 'CrossSubnet', 'Never'):
        wrong += one_mode(mode, int(count))
    for line in wrong:
        print('    ' + line)
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
