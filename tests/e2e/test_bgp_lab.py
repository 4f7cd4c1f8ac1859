#!/usr/bin/python3
"""A rack: three nodes with pods, two top-of-rack routers (FRR and BIRD), one switch. Traffic passes
from pod to pod and from the routers to the pods by BGP alone; the mesh becomes a reflector and the
speakers are killed while pings run, and none is lost."""

import json
import re
import signal
import subprocess
import sys
import time
import unittest

from bgp_routers import Bird, Fabric, Frr, Margay, wait_for

V3 = 'projectcalico.org/v3'
OURS = 80


def resource(kind, name, spec, **meta):
    return {'apiVersion': V3, 'kind': kind, 'metadata': {'name': name, **meta}, 'spec': spec}


class Node(Margay):
    """A node with a block of pods; pods are namespaces as the agent would have made them."""

    def __init__(self, fabric, name):
        super().__init__(fabric, name, 64512)
        self.block = f'10.44.{self.number}.0/26'

    def pod(self, index):
        name = f'{self.name}-pod{index}'
        ip = f'10.44.{self.number}.{index}'
        lab, host = self.lab, f'cali{index}'
        lab.netns(name)
        lab.link(name, 'eth0', self.name, host)
        lab.batch(self.name, [f'addr add 169.254.1.1/32 dev {host}',
                              f'route add {ip}/32 dev {host} scope link'])
        lab.batch(name, [f'addr add {ip}/32 dev eth0', 'route add 169.254.1.1 dev eth0 scope link',
                         'route add default via 169.254.1.1 dev eth0'])
        return name, ip


class Pings:
    """A ping every 20 ms while the `with` block runs; lost says how many got no answer."""

    def __init__(self, lab, source, target):
        self.lab, self.source, self.target = lab, source, target

    def __enter__(self):
        self.process = self.lab.spawn(self.source, ['ping', '-n', '-i', '0.02', self.target],
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return self

    def __exit__(self, *_):
        time.sleep(0.3)
        self.process.send_signal(signal.SIGINT)
        out = self.process.communicate(timeout=20)[0]
        found = re.search(r'(\d+) packets transmitted, (\d+) received', out)
        sent, got = int(found.group(1)), int(found.group(2))
        # The last one may be on its way.
        self.lost = max(sent - got - 1, 0)
        self.sent = sent


class Rack(unittest.TestCase):
    def setUp(self):
        self.fabric = Fabric()
        self.fabric.__enter__()
        self.addCleanup(self.fabric.__exit__, None, None, None)
        self.nodes = [Node(self.fabric, f'n{i}') for i in (1, 2, 3)]
        self.frr = Frr(self.fabric, 'tor1', 65000)
        self.bird = Bird(self.fabric, 'tor2', 65000)
        self.pods = [n.pod(5) for n in self.nodes]

    def write(self, reflector=None, mesh=True):
        """The same resources in every node's file, as a datastore would give them."""
        extra = [resource('IPPool', 'pods', {'cidr': '10.44.0.0/16', 'blockSize': 26})]
        for n in self.nodes:
            extra.append(resource('BlockAffinity', f'{n.name}-block', {
                'node': n.name, 'cidr': n.block, 'state': 'confirmed', 'deleted': False}))
        peers = {f'tor{i}': {'peerIP': t.ip, 'asNumber': 65000}
                 for i, t in enumerate((self.frr, self.bird))}
        if reflector:
            peers['reflector'] = {'nodeSelector': 'all()', 'peerSelector': 'has(reflector)'}
        for n in self.nodes:
            others = []
            for o in self.nodes:
                is_reflector = o is reflector
                doc = n.node(o.name, o.number, 64512, '1.0.0.1' if is_reflector else None)
                doc['metadata']['labels'] = {'reflector': 'yes'} if is_reflector else {}
                if o is n:
                    own = doc
                else:
                    others.append(doc)
            n.node_doc = own
            n.write(peers, extra + others, mesh=mesh)

    def test_rack(self):
        peers = ''.join(f' neighbor {n.ip} remote-as 64512\n neighbor {n.ip} timers connect 1\n'
                        for n in self.nodes)
        self.frr.start(' bgp graceful-restart\n' + peers)
        self.bird.start(''.join(self.bird.bgp(f'n{n.number}', n, 'graceful restart on;')
                                for n in self.nodes))
        self.write()
        for n in self.nodes:
            n.start()
        for n in self.nodes:
            for other in [*self.nodes, self.frr, self.bird]:
                if other is not n:
                    n.wait_up(other.ip)
        (first, _), (_, second_ip), (_, third_ip) = self.pods
        blocks = {n.block for n in self.nodes}
        for router in (self.frr, self.bird):
            wait_for(f'blocks at {router.name}',
                     lambda router=router: blocks <= set(self.fabric.routes(router.name)))
        for n in self.nodes:
            wait_for(f'blocks at {n.name}', lambda n=n: blocks - {n.block} <= set(
                self.fabric.routes(n.name, protocol=OURS)))
            # A /32 of an own block is nobody else's business.
            self.assertFalse([d for d in self.fabric.routes('tor2') if d.startswith('10.44.')
                              and '/' not in d])
        self.pass_on(self.frr.name, second_ip)
        self.pass_on(self.bird.name, third_ip)
        with Pings(self.fabric.lab, first, third_ip) as inner, \
                Pings(self.fabric.lab, self.bird.name, second_ip) as outer:
            # First the reflector, and when everyone has its routes the mesh goes.
            self.write(reflector=self.nodes[1])
            self.reload()
            for n, other in ((self.nodes[0], self.nodes[2]), (self.nodes[2], self.nodes[0])):
                wait_for(f'{n.name}: routes of the reflector', lambda n=n, other=other: {
                    (r['prefix'], r['peer']) for r in json.loads(n.ask(
                        'routes', '-o', 'json').stdout)} >= {
                            (other.block, self.nodes[1].ip), (other.block, other.ip)})
            self.write(reflector=self.nodes[1], mesh=False)
            self.reload()
            for n in (self.nodes[0], self.nodes[2]):
                wait_for(f'{n.name}: only the reflector', lambda n=n: {
                    p['ip'] for p in n.status()['peers'] if p['type'] != 'global'
                } == {self.nodes[1].ip, self.nodes[1].ip6} and n.peer(self.nodes[1].ip)['isUp'])
            wait_for('blocks by the reflector', lambda: blocks - {self.nodes[0].block} <= set(
                self.fabric.routes('n1', protocol=OURS)))
            time.sleep(1)
        self.assertEqual((inner.lost, outer.lost), (0, 0), (inner.sent, outer.sent))
        # All speakers die at once, and come back.
        with Pings(self.fabric.lab, first, third_ip) as inner, \
                Pings(self.fabric.lab, self.bird.name, second_ip) as outer:
            for n in self.nodes:
                n.kill()
                (n.dir / 'bgp.sock').unlink()
            time.sleep(1)
            for n in self.nodes:
                n.start()
            for n in self.nodes:
                n.wait_up(self.bird.ip)
            self.nodes[0].wait_up(self.nodes[1].ip)
            time.sleep(1)
        self.assertEqual((inner.lost, outer.lost), (0, 0), (inner.sent, outer.sent))
        for n in self.nodes:
            wait_for(f'blocks at {n.name} again', lambda n=n: blocks - {n.block} <= set(
                self.fabric.routes(n.name, protocol=OURS)))

    def reload(self):
        for n in self.nodes:
            n.process.send_signal(signal.SIGHUP)

    def pass_on(self, source, target):
        wait_for(f'{source} reaches {target}', lambda: ' 0% packet loss' in self.ping(
            source, target))

    def ping(self, source, target):
        done = subprocess.run(self.fabric.lab.command(source, ['ping', '-n', '-c', '2', '-i', '0.1',
                                                               '-W', '1', target]),
                              check=False, text=True, stdout=subprocess.PIPE)
        return done.stdout


if __name__ == '__main__':
    sys.exit(unittest.main(verbosity=2))
