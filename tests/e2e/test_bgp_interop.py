#!/usr/bin/python3
"""The speaker with the routers that people run: BIRD 2, FRR and GoBGP. Sessions of both families,
what protects them, what is negotiated on them, and the kernel's routes at the end of it.

test_bgp_interop.py [--full]: 100,000 routes of both families and both ways instead of 1,000.
"""

import json
import os
import signal
import subprocess
import sys
import time
import unittest

from bgp_routers import (MARGAY, Bird, ExaBgp, Fabric, Frr, GoBgp, Margay, OpenBgpd, has, prefixes,
                         static_routes, wait_for)

N_ROUTES = 100000 if '--full' in sys.argv else 1000
OURS = 80  # protocol of our routes in the kernel


class Interop(unittest.TestCase):
    def setUp(self):
        self.fabric = Fabric()
        self.fabric.__enter__()
        self.addCleanup(self.fabric.__exit__, None, None, None)

    def routes(self, router, family=4):
        return self.fabric.routes(router.name, family, OURS)

    def test_bird_both_families_many_routes_each_way(self):
        ours = Margay(self.fabric, 'ours', 65001)
        bird = Bird(self.fabric, 'bird', 65002)
        nets = prefixes(N_ROUTES)
        six = [f'2001:{0x1000 + (i >> 12):x}:{(i & 0xfff) + 1:x}::/48'
               for i in range(N_ROUTES // 10 if N_ROUTES < 100000 else N_ROUTES)]
        bird.start(static_routes(nets) + static_routes(six)
                   + bird.bgp('four', ours) + bird.bgp('six', ours, v4=None, local=6,
                                                       v6='import all; export all;'))
        ours.write({'four': {'peerIP': bird.ip, 'asNumber': 65002},
                    'six': {'peerIP': bird.ip6, 'asNumber': 65002}})
        local = prefixes(200 if N_ROUTES < 100000 else N_ROUTES, '60.0.0.0')
        self.fabric.lab.batch('ours', [f'route add blackhole {net}' for net in local])
        ours.start()
        ours.wait_up(bird.ip)
        ours.wait_up(bird.ip6)
        got = wait_for('all IPv4 routes in the kernel',
                       lambda: len(self.routes(ours)) == len(nets) and self.routes(ours))
        self.assertEqual(set(got), set(nets))
        for route in list(got.values())[:50]:
            self.assertEqual((route['gateway'], route['dev'], route['metric']),
                             (bird.ip, 'eth0', 1024))
        got = wait_for('all IPv6 routes in the kernel',
                       lambda: len(self.routes(ours, 6)) == len(six) and self.routes(ours, 6))
        self.assertEqual(set(got), set(six))
        # The other way: what the kernel had; not what came from there.
        wait_for('our routes at BIRD', lambda: bird.count('four') >= len(local))
        theirs = self.fabric.routes('bird')
        self.assertLessEqual(set(local), set(theirs))
        # A withdrawal, one by one.
        bird.ask('disable', 'static1')
        wait_for('withdrawn', lambda: len(self.routes(ours)) == 0)
        self.fabric.lab.batch('ours', [f'route del blackhole {net}' for net in local[:150]])
        wait_for('withdrawn at BIRD', lambda: not set(local[:150]) & set(
            self.fabric.routes('bird')))
        self.assertLessEqual(set(local[150:]), set(self.fabric.routes('bird')))
        self.assertEqual(ours.ask('status').returncode, 0)
        self.assertIn('Established', ours.ask('status').stdout)
        self.assertIn('60.0.199.0/24', ours.ask('routes').stdout)
        self.assertIn('60.0.199.0/24', ours.ask('explain', '60.0.199.0/24').stdout)

    def test_kernel_is_kept_as_it_should_be(self):
        ours = Margay(self.fabric, 'ours', 65001)
        bird = Bird(self.fabric, 'bird', 65002)
        nets = prefixes(20)
        bird.start(static_routes(nets) + bird.bgp('four', ours))
        ours.write({'four': {'peerIP': bird.ip, 'asNumber': 65002}})
        foreign = ['40.0.0.0/24', '40.0.1.0/24']
        self.fabric.lab.batch('ours', [f'route add {foreign[0]} via {bird.ip} proto static',
                                       f'route add blackhole {foreign[1]} proto 99'])
        ours.start()
        wait_for('routes', lambda: set(self.routes(ours)) == set(nets))
        # Somebody removes and changes ours: it comes back.
        self.fabric.lab.batch('ours', [f'route del {nets[0]} proto {OURS}',
                                       f'route replace {nets[1]} via 10.99.0.77 metric 1024 '
                                       f'proto {OURS}', f'route del {nets[2]} proto {OURS}'])
        wait_for('repaired', lambda: all(
            self.routes(ours).get(net, {}).get('gateway') == bird.ip for net in nets))
        # The interface goes and comes back: IPv4 tells no route of it.
        self.fabric.lab.batch('ours', ['link set eth0 down'])
        self.fabric.lab.batch('ours', ['link set eth0 up'])
        wait_for('back after the link', lambda: set(self.routes(ours)) == set(nets))
        # It dies and is started again: no route ever missing, foreign ones never touched.
        bird.ask('disable', 'static1')
        wait_for('gone', lambda: not self.routes(ours))
        bird.ask('enable', 'static1')
        wait_for('again', lambda: set(self.routes(ours)) == set(nets))
        ours.kill()
        self.assertEqual(set(self.routes(ours)), set(nets))
        (bird.dir / 'bird.conf').write_text(
            (bird.dir / 'bird.conf').read_text().replace(f'route {nets[5]} blackhole;', ''))
        bird.ask('configure')
        (ours.dir / 'bgp.sock').unlink()
        ours.start()
        end = time.monotonic() + 60
        while nets[5] in (now := self.routes(ours)) and time.monotonic() < end:
            self.assertLessEqual(set(nets) - {nets[5]}, set(now))
        wait_for('only what did not come back is gone',
                 lambda: set(self.routes(ours)) == set(nets) - {nets[5]})
        self.assertLessEqual(set(foreign[1:]), set(self.fabric.routes('ours')))

    def test_reload(self):
        ours = Margay(self.fabric, 'ours', 65001)
        bird = Bird(self.fabric, 'bird', 65002)
        other = Bird(self.fabric, 'other', 65003)
        bird.start(static_routes(prefixes(5)) + bird.bgp('p', ours))
        other.start(bird and other.bgp('p', ours))
        peers = {'bird': {'peerIP': bird.ip, 'asNumber': 65002}}
        ours.write(peers)
        ours.start()
        first = ours.wait_up(bird.ip)
        peers['other'] = {'peerIP': other.ip, 'asNumber': 65003, 'filters': ['some']}
        rule = {'cidr': '20.0.0.0/22', 'matchOperator': 'In', 'action': 'Accept'}
        none = {'action': 'Reject'}
        some = {'apiVersion': 'projectcalico.org/v3', 'kind': 'BGPFilter',
                'metadata': {'name': 'some'}, 'spec': {'exportV4': [rule, none]}}
        ours.write(peers, [some])
        ours.process.send_signal(signal.SIGHUP)
        ours.wait_up(other.ip)
        wait_for('what the filter lets through', lambda: other.count('p') == 4)
        # A bad file changes nothing.
        good = (ours.dir / 'bgp.yaml').read_text()
        (ours.dir / 'bgp.yaml').write_text(good.replace('"Accept"', '"Perhaps"'))
        ours.process.send_signal(signal.SIGHUP)
        wait_for('refused, by name', lambda: 'Perhaps' in ours.log())
        self.assertEqual(other.count('p'), 4)
        # Policy changes without a new session.
        up = ours.peer(other.ip)
        rule['cidr'] = '20.0.0.0/23'
        ours.write(peers, [some])
        ours.process.send_signal(signal.SIGHUP)
        wait_for('softly', lambda: other.count('p') == 2)
        self.assertEqual(ours.peer(other.ip)['timesEstablished'], up['timesEstablished'])
        self.assertEqual(ours.peer(bird.ip)['timesEstablished'], first['timesEstablished'])

    def test_md5_and_gtsm(self):
        ours = Margay(self.fabric, 'ours', 65001)
        bird = Bird(self.fabric, 'bird', 65002)
        bird.start(static_routes(prefixes(3))
                   + bird.bgp('p', ours, 'password "right"; ttl security on; direct;'))
        secret = {'apiVersion': 'v1', 'kind': 'Secret', 'metadata': {'name': 'pw'},
                  'stringData': {'k': 'wrong'}}
        spec = {'peerIP': bird.ip, 'asNumber': 65002, 'ttlSecurity': 1,
                'password': {'secretKeyRef': {'name': 'pw', 'key': 'k'}}}
        ours.write({'p': spec}, [secret])
        ours.start()
        time.sleep(4)
        self.assertFalse(ours.peer(bird.ip)['isUp'])
        secret['stringData']['k'] = 'right'
        ours.write({'p': spec}, [secret])
        ours.process.send_signal(signal.SIGHUP)
        ours.wait_up(bird.ip)
        wait_for('routes', lambda: len(self.routes(ours)) == 3)
        self.assertNotIn('right', ours.log())
        # The other side connects: the key is on the listening socket, too.
        spec['passive'] = True
        ours.write({'p': spec}, [secret])
        ours.process.send_signal(signal.SIGHUP)
        bird.ask('restart', 'p')
        ours.wait_up(bird.ip)

    def test_frr_v4_over_v6_next_hops(self):
        ours = Margay(self.fabric, 'ours', 65001)
        frr = Frr(self.fabric, 'frr', 65002)
        frr.start(f' neighbor {ours.ip6} remote-as 65001\n neighbor {ours.ip6} timers connect 1\n'
                  f' neighbor {ours.ip6} capability extended-nexthop\n'
                  ' address-family ipv4 unicast\n  network 20.0.0.0/24\n'
                  f'  neighbor {ours.ip6} activate\n exit-address-family\n')
        ours.write({'p': {'peerIP': frr.ip6, 'asNumber': 65002, 'extendedNextHop': True,
                          'addressFamilies': ['IPv4', 'IPv6']}})
        ours.start()
        ours.wait_up(frr.ip6)
        route = wait_for('an IPv4 route', lambda: self.routes(ours).get('20.0.0.0/24'))
        self.assertEqual(route['via']['family'], 'inet6')

    def test_link_local_peers(self):
        """Unnumbered: sessions of link-local addresses carry both families; one of them is a
        neighbour that is not named, FRR's and BIRD's side of it."""
        ours = Margay(self.fabric, 'ours', 65001)
        frr = Frr(self.fabric, 'frr', 65002)
        bird = Bird(self.fabric, 'bird', 65003)
        here, there, third = (self.fabric.link_local(r.name) for r in (ours, frr, bird))
        frr.start(f' neighbor {here} remote-as 65001\n neighbor {here} interface eth0\n'
                  f' neighbor {here} timers connect 1\n'
                  f' neighbor {here} capability extended-nexthop\n'
                  ' address-family ipv4 unicast\n  network 20.0.0.0/24\n'
                  f'  neighbor {here} activate\n exit-address-family\n'
                  ' address-family ipv6 unicast\n  network 2001:db8:1::/48\n'
                  f'  neighbor {here} activate\n exit-address-family\n')
        bird.start(static_routes(['20.1.0.0/24']) + static_routes(['2001:db8:2::/48'])
                   + f'protocol bgp p {{ local {third} as 65003; neighbor {here}%eth0 as 65001; '
                   'connect delay time 1; connect retry time 1; error wait time 1,2; '
                   'ipv4 { import all; export all; extended next hop on; }; '
                   'ipv6 { import all; export all; }; }\n')
        both = {'interface': 'eth0', 'extendedNextHop': True, 'addressFamilies': ['IPv4', 'IPv6']}
        ours.write({'frr': {'peerIP': there, 'asNumber': 65002, **both},
                    'any': {'peerCIDR': 'fe80::/10', 'asNumber': 65003, **both}})
        self.fabric.lab.batch('ours', ['route add blackhole 60.0.0.0/24'])
        ours.start()
        for router in (there, third):
            ours.wait_up(router)
        for net, family, router in (('20.0.0.0/24', 4, there), ('20.1.0.0/24', 4, third),
                                    ('2001:db8:1::/48', 6, there), ('2001:db8:2::/48', 6, third)):
            route = wait_for(net, lambda n=net, f=family: self.routes(ours, f).get(n))
            self.assertEqual(route['dev'], 'eth0')
            # Some announce their global address beside the link-local one.
            self.assertIn(route.get('gateway') or route['via']['host'],
                          (router, frr.ip6, bird.ip6))
        wait_for('ours at BIRD', lambda: '60.0.0.0/24' in self.fabric.routes('bird'))
        wait_for('ours at FRR', lambda: frr.ask_json(
            'show bgp ipv4 unicast 60.0.0.0/24').get('paths'))

    def test_frr_addpath_reflection_and_restart(self):
        ours = Margay(self.fabric, 'ours', 65001, cluster_id='1.1.1.1')
        frr = Frr(self.fabric, 'frr', 65001)
        one = Bird(self.fabric, 'one', 65001)
        two = Bird(self.fabric, 'two', 65001)
        for bird in (one, two):
            bird.start(static_routes(['20.0.0.0/24', f'20.1.{bird.number}.0/24'])
                       + bird.bgp('p', ours, 'graceful restart on;', v4='import all; export all; '
                                  'next hop self;'))
        frr.start(f' neighbor {ours.ip} remote-as 65001\n neighbor {ours.ip} timers connect 1\n'
                  f' bgp graceful-restart\n address-family ipv4 unicast\n'
                  f'  neighbor {ours.ip} addpath-tx-all-paths\n exit-address-family\n')
        ours.write({f'p{r.number}': {'peerIP': r.ip} for r in (frr, one, two)})
        ours.start()
        for router in (frr, one, two):
            ours.wait_up(router.ip)
        # Both paths, and each client's own, reach the client that takes several.
        paths = wait_for('two paths at FRR', lambda: (
            p := frr.ask_json('show bgp ipv4 unicast 20.0.0.0/24').get('paths', [])) and
            len(p) == 2 and p)
        self.assertEqual({p['originatorId'] for p in paths}, {one.ip, two.ip})
        self.assertEqual({tuple(p['clusterList']['list']) for p in paths}, {('1.1.1.1',)})
        # Both next hops in the kernel, the same metric.
        route = wait_for('ECMP', lambda: (r := self.routes(ours).get('20.0.0.0/24'))
                         and 'nexthops' in r and r)
        self.assertEqual({h['gateway'] for h in route['nexthops']}, {one.ip, two.ip})
        # A client restarts: we keep its routes; when it is back without one, only that goes.
        one.kill()
        time.sleep(1)
        self.assertIn(f'20.1.{one.number}.0/24', self.routes(ours))
        self.assertTrue(frr.ask_json(f'show bgp ipv4 unicast 20.1.{one.number}.0/24').get('paths'))
        one.start((one.dir / 'bird.conf').read_text().split('\n', 4)[4], kernel=False)
        ours.wait_up(one.ip)
        # We restart: FRR keeps what we gave.
        ours.kill()
        time.sleep(1)
        self.assertTrue(frr.ask_json(f'show bgp ipv4 unicast 20.1.{two.number}.0/24').get('paths'))
        (ours.dir / 'bgp.sock').unlink()
        ours.start()
        ours.wait_up(frr.ip)
        wait_for('the same again', lambda: len(frr.ask_json(
            'show bgp ipv4 unicast 20.0.0.0/24').get('paths', [])) == 2)

    def bfd(self, peer, start, cut):
        ours = Margay(self.fabric, 'ours', 65001)
        router = peer(self.fabric, 'peer', 65002)
        start(router, ours)
        ours.write({'p': {'peerIP': router.ip, 'asNumber': 65002, 'holdTime': '90s', 'bfd': {
            'minimumReceiveInterval': '300ms', 'minimumTransmitInterval': '300ms'}}})
        ours.start()
        ours.wait_up(router.ip)
        wait_for('BFD', lambda: ours.peer(router.ip).get('bfd', {}).get('state') == 'Up')
        wait_for('a route', lambda: self.routes(ours))
        cut(router)
        # The hold time is 90 s: only BFD can have noticed.
        wait_for('noticed', lambda: not ours.peer(router.ip)['isUp'], 30)
        self.assertIn('session_down', ours.log())
        return ours, router

    def cut_link(self, router):
        self.fabric.lab.batch('switch', [f'link set p{router.number} nomaster'])

    def test_bfd_bird(self):
        self.bfd(Bird, lambda bird, ours: bird.start(
            'protocol bfd { interface "*" { min rx interval 300 ms; min tx interval 300 ms; '
            'multiplier 3; }; }\n' + static_routes(prefixes(1))
            + bird.bgp('p', ours, 'direct; bfd on;')), self.cut_link)

    def test_bfd_frr(self):
        self.bfd(Frr, lambda frr, ours: frr.start(
            f' neighbor {ours.ip} remote-as 65001\n neighbor {ours.ip} timers connect 1\n'
            f' neighbor {ours.ip} bfd\n address-family ipv4 unicast\n  network 20.0.0.0/24\n'
            ' exit-address-family\n', bfd=True), self.cut_link)

    def test_gobgp(self):
        ours = Margay(self.fabric, 'ours', 65001)
        go = GoBgp(self.fabric, 'go', 4200000001)
        bird = Bird(self.fabric, 'bird', 65003)
        bird.start(static_routes(prefixes(50)) + bird.bgp('p', ours))
        go.start(go.neighbor(ours))
        ours.write({'go': {'peerIP': go.ip, 'asNumber': 4200000001},
                    'range': {'peerCIDR': f'{bird.ip}/32', 'asNumber': 65003}})
        ours.start()
        ours.wait_up(go.ip)
        wait_for('a dynamic neighbour', lambda: any(
            p['ip'] == bird.ip and p['isUp'] for p in ours.status()['peers']))
        wait_for('50 routes at GoBGP', lambda: go.ask('global', 'rib').count('20.0.') >= 50)
        go.ask('global', 'rib', 'add', '50.0.0.0/24', 'community', '65000:7')
        route = wait_for('a route of GoBGP', lambda: self.routes(ours).get('50.0.0.0/24'))
        self.assertEqual(route['gateway'], go.ip)
        self.assertIn('65000:7', ours.ask('routes', '-o', 'json').stdout)
        wait_for('passed on', lambda: '50.0.0.0/24' in self.fabric.routes('bird'))

    @unittest.skipUnless(has('exabgp'), 'ExaBGP is not here')
    def test_exabgp(self):
        ours = Margay(self.fabric, 'ours', 65001)
        exa = ExaBgp(self.fabric, 'exa', 65002)
        exa.start(ours, 'route 20.0.0.0/24 next-hop self community [65002:7] med 5; '
                  'route 20.0.1.0/24 next-hop self large-community [65002:1:2] '
                  'as-path [65002 65009]; '
                  'route 20.0.2.0/24 next-hop self extended-community [target:65002:9];')
        ours.write({'p': {'peerIP': exa.ip, 'asNumber': 65002}})
        ours.start()
        ours.wait_up(exa.ip)
        wait_for('its routes', lambda: set(self.routes(ours)) == set(prefixes(3)))
        table = {r['prefix']: r for r in json.loads(ours.ask('routes', '-o', 'json').stdout)}
        self.assertIn('65002:7', str(table['20.0.0.0/24']))
        self.assertIn('65002:1:2', str(table['20.0.1.0/24']))
        self.assertEqual(table['20.0.1.0/24']['asPath'], '65002 65009')

    @unittest.skipUnless(has('bgpctl'), 'OpenBGPD is not here')
    def test_openbgpd(self):
        ours = Margay(self.fabric, 'ours', 65001)
        obsd = OpenBgpd(self.fabric, 'obsd', 65002)
        bird = Bird(self.fabric, 'bird', 65003)
        bird.start(static_routes(prefixes(50)) + bird.bgp('p', ours))
        obsd.start(ours, prefixes(20, '50.0.0.0'))
        ours.write({'p': {'peerIP': obsd.ip, 'asNumber': 65002},
                    'bird': {'peerIP': bird.ip, 'asNumber': 65003}})
        ours.start()
        ours.wait_up(obsd.ip)
        ours.wait_up(bird.ip)
        wait_for('its routes', lambda: set(prefixes(20, '50.0.0.0')) <= set(self.routes(ours)))
        wait_for('ours there', lambda: obsd.ask('show', 'rib').count(' 20.0.') == 50)
        bird.ask('disable', 'static1')
        wait_for('withdrawn there', lambda: ' 20.0.' not in obsd.ask('show', 'rib'))

    def test_datastore(self):
        """The same resources, followed in the agent's store."""
        ours = Margay(self.fabric, 'ours', 65001)
        bird = Bird(self.fabric, 'bird', 65002)
        bird.start(static_routes(prefixes(5)) + bird.bgp('p', ours))
        self.fabric.lab.spawn('ours', [MARGAY, '--state-dir', str(ours.dir), 'node', '--node-name',
                                       'ours'], env={**os.environ, 'NO_DEFAULT_POOLS': 'true'},
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for('the agent', lambda: (ours.dir / 'agent.sock').exists())

        def apply(peers, extra=()):
            ours.write(peers, extra)
            subprocess.run([MARGAY, '--state-dir', str(ours.dir), 'apply', '-f',
                            str(ours.dir / 'bgp.yaml')], check=True, stdout=subprocess.DEVNULL)

        ours.spawn([MARGAY, '--run-dir', str(ours.dir), 'bgp', '--node-name', 'ours'],
                   {'MARGAY_DATASTORE': f'agent:{ours.dir}/agent.sock'})
        apply({'p': {'peerIP': bird.ip, 'asNumber': 65002}})
        wait_for('the socket', lambda: (ours.dir / 'bgp.sock').exists())
        wait_for('the session', lambda: ours.ask('status').returncode == 0 and
                 ours.peer(bird.ip)['isUp'])
        wait_for('routes', lambda: len(self.routes(ours)) == 5)
        # In a cluster nothing leaves but what pools and services hold.
        self.fabric.lab.batch('ours', ['route add blackhole 30.0.0.0/24'])
        pool = {'apiVersion': 'projectcalico.org/v3', 'kind': 'IPPool', 'metadata': {'name': 'p'},
                'spec': {'cidr': '10.44.0.0/16', 'blockSize': 26}}
        self.fabric.lab.batch('ours', ['route add blackhole 10.44.9.0/26'])
        apply({'p': {'peerIP': bird.ip, 'asNumber': 65002}}, [pool])
        wait_for('the pool is announced', lambda: '10.44.9.0/26' in self.fabric.routes('bird'))
        self.assertNotIn('30.0.0.0/24', self.fabric.routes('bird'))
        subprocess.run([MARGAY, '--state-dir', str(ours.dir), 'delete', 'bgppeer', 'p'], check=True,
                       stdout=subprocess.DEVNULL)
        wait_for('no peer', lambda: not ours.status()['peers'])
        wait_for('no routes', lambda: not self.routes(ours))


if __name__ == '__main__':
    sys.argv = [a for a in sys.argv if a != '--full']
    unittest.main(verbosity=2)
