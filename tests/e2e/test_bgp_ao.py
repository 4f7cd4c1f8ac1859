#!/usr/bin/python3
"""TCP-AO (RFC 5925) between two speakers, in a guest, as few kernels have it: signed segments on the
wire, a wrong and a missing key refused, keys changed without a session lost, what says a kernel
without it."""

import pathlib
import re
import signal
import subprocess
import sys
import time
import unittest

import guest
from bgp_routers import MARGAY, Fabric, Margay, prefixes, wait_for

IS_INSIDE = '--inside' in sys.argv


def key(send, name, receive=None, algorithm=None):
    it = {'sendID': send, 'secretKeyRef': {'name': 'keys', 'key': name}}
    if receive is not None:
        it['receiveID'] = receive
    if algorithm:
        it['algorithm'] = algorithm
    return it


SECRET = {'apiVersion': 'v1', 'kind': 'Secret', 'metadata': {'name': 'keys'},
          'stringData': {'old': 'first', 'new': 'second', 'bad': 'third'}}


class Pair(unittest.TestCase):
    """Two speakers on a switch."""

    def setUp(self):
        self.fabric = Fabric()
        self.fabric.__enter__()
        self.addCleanup(self.fabric.__exit__, None, None, None)
        self.one = Margay(self.fabric, 'one', 65001)
        self.two = Margay(self.fabric, 'two', 65002)

    def write(self, router, keys, **more):
        other = self.two if router is self.one else self.one
        router.write({'p': {'peerIP': other.ip, 'asNumber': other.asn, 'connectRetryTime': '1s',
                            **({'tcpAO': keys} if keys else {}), **more}}, [SECRET])

    def change(self, router, keys, **more):
        self.write(router, keys, **more)
        router.process.send_signal(signal.SIGHUP)


@unittest.skipUnless(IS_INSIDE, 'runs in the guest')
class Signed(Pair):
    def count(self, router):
        """Segments that came with and without the option, since the count began."""
        text = self.fabric.lab.run(router.name, ['nft', 'list', 'table', 'inet', 'seen'])
        return [int(n) for n in re.findall(r'packets (\d+)', text)]

    def test_life(self):
        one, two = self.one, self.two
        self.fabric.lab.run('one', ['nft', '-f', '-'],
                            'table inet seen { chain c { type filter hook input priority 0;\n'
                            'meta l4proto tcp tcp option 29 exists counter\n'
                            'meta l4proto tcp tcp option 29 missing tcp flags & rst == 0 counter\n}\n}\n')
        both = [key(1, 'old', 2), key(3, 'new', algorithm='AES-128-CMAC-96')]
        turned = [key(2, 'old', 1), key(3, 'new', algorithm='AES-128-CMAC-96')]
        self.write(one, both[:1])
        self.write(two, turned[:1])
        nets = prefixes(50)
        self.fabric.lab.batch('two', [f'route add blackhole {net}' for net in nets])
        one.start()
        two.start()
        up = one.wait_up(two.ip)
        wait_for('routes', lambda: len(self.fabric.routes('one', 4, 80)) == len(nets))
        signed, bare = self.count(one)
        self.assertGreater(signed, 5)
        self.assertEqual(bare, 0)

        # The keys roll over: added on both sides, then asked for, then the old ones go.
        for router, keys in ((one, both), (two, turned), (one, both[::-1]), (two, turned[::-1]),
                             (one, both[1:]), (two, turned[1:])):
            self.change(router, keys)
            time.sleep(0.5)
        self.fabric.lab.batch('two', ['route add blackhole 61.0.0.0/24'])
        wait_for('a route under the new key', lambda: '61.0.0.0/24' in self.fabric.routes('one'))
        self.assertEqual(one.peer(two.ip)['timesEstablished'], up['timesEstablished'])
        self.assertEqual(self.count(one)[1], 0)

        # Another key under the same id: the session is made anew, and can't be.
        self.change(one, [key(3, 'bad', algorithm='AES-128-CMAC-96')])
        wait_for('down', lambda: not one.peer(two.ip)['isUp'])
        time.sleep(3)
        self.assertFalse(one.peer(two.ip)['isUp'])
        self.assertFalse(two.peer(one.ip)['isUp'])
        # Nor without any, whoever connects.
        self.change(one, None)
        time.sleep(3)
        self.assertFalse(one.peer(two.ip)['isUp'])
        self.change(two, turned[1:], passive=True)
        time.sleep(3)
        self.assertFalse(two.peer(one.ip)['isUp'])
        # It heals.
        self.change(one, both[1:])
        one.wait_up(two.ip)
        for secret in SECRET['stringData'].values():
            self.assertNotIn(secret, one.log() + two.log())


class Missing(Pair):
    """Without the kernel's help, and without the key: no session, and it is said why."""

    def test_no_key(self):
        gone = {'sendID': 1, 'secretKeyRef': {'name': 'none', 'key': 'k'}}
        self.write(self.one, [gone])
        self.write(self.two, None)
        self.one.start()
        self.two.start()
        wait_for('said', lambda: 'there is no password in Secret none, key k' in self.one.log())
        time.sleep(2)
        self.assertFalse(self.one.peer(self.two.ip)['isUp'])

    @unittest.skipIf(IS_INSIDE, 'that kernel has TCP-AO')
    def test_kernel_without(self):
        self.write(self.one, [key(1, 'old')])
        self.write(self.two, None, passive=True)
        self.one.start()
        self.two.start()
        wait_for('said', lambda: 'CONFIG_TCP_AO' in self.one.log())
        self.change(self.two, None)  # now it connects, unsigned
        time.sleep(3)
        self.assertFalse(self.one.peer(self.two.ip)['isUp'])

    def test_bad(self):
        (self.one.dir / 'bad.yaml').write_text(
            'apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: p}\n'
            'spec: {peerIP: 10.0.0.1, asNumber: 1, password: {secretKeyRef: {name: a, key: b}}, '
            'tcpAO: [{sendID: 1, secretKeyRef: {name: a, key: b}}, '
            '{sendID: 1, receiveID: 2, secretKeyRef: {name: a, key: b}}]}\n')
        done = subprocess.run([MARGAY, 'bgp', '--config', self.one.dir / 'bad.yaml'], check=False,
                              text=True, stderr=subprocess.PIPE)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn('not together with password', done.stderr)
        self.assertIn('two keys have sendID 1', done.stderr)


class Guest(unittest.TestCase):
    @unittest.skipIf(IS_INSIDE, 'is the guest')
    def test_in_a_guest(self):
        try:
            place = guest.kernel()
        except guest.Missing as e:
            self.skipTest(str(e))
        if not guest.has_option(place, 'CONFIG_TCP_AO'):
            self.skipTest(f'{place.name} has no CONFIG_TCP_AO')
        code, text = guest.run(
            [sys.executable, pathlib.Path(__file__).resolve(), '--inside', 'Signed'],
            modules=('veth', 'llc', 'stp', 'bridge', 'cmac', 'nfnetlink', 'nf_tables'),
            env={'MARGAY': MARGAY, 'PYTHONDONTWRITEBYTECODE': '1'})
        print(text)
        self.assertEqual(code, 0)


if __name__ == '__main__':
    sys.argv = [a for a in sys.argv if a != '--inside']
    unittest.main(verbosity=2)
