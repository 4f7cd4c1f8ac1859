#!/usr/bin/python3
"""The agent and its speaker (CALICO_NETWORKING_BACKEND=bird): a router reaches a pod by BGP alone;
the speaker is killed under traffic and comes back by itself; CalicoNodeStatus is filled in."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest

from bgp_routers import MARGAY, Bird, Fabric, Margay, prefixes, static_routes, wait_for
from test_bgp_lab import Pings

CNI_DIR = os.environ.get('MARGAY_CNI_DIR', str(pathlib.Path(MARGAY).parent))
V3 = 'projectcalico.org/v3'


def resource(kind, name, spec, version=V3, **meta):
    return {'apiVersion': version, 'kind': kind, 'metadata': {'name': name, **meta}, 'spec': spec}


class Agent(unittest.TestCase):
    def setUp(self):
        self.fabric = Fabric()
        self.fabric.__enter__()
        self.addCleanup(self.fabric.__exit__, None, None, None)

    def call(self, *argv, stdin=None):
        done = subprocess.run(self.fabric.lab.command('ours', [
            MARGAY, '--state-dir', str(self.ours.dir), *argv]), check=False, text=True, input=stdin,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def apply(self, *documents):
        self.call('apply', '-f', '-', stdin='\n---\n'.join(json.dumps(d) for d in documents))

    def speaker(self):
        """The pid of the process that the agent started."""
        for child in pathlib.Path(f'/proc/{self.agent.pid}/task/{self.agent.pid}/children'
                                  ).read_text().split():
            if b'\0bgp\0' in pathlib.Path(f'/proc/{child}/cmdline').read_bytes():
                return int(child)
        return 0

    def test_agent(self):
        lab = self.fabric.lab
        self.ours = Margay(self.fabric, 'ours', 64512)
        bird = Bird(self.fabric, 'bird', 65002)
        bird.start(static_routes(prefixes(5)) + bird.bgp('p', self.ours, 'graceful restart on;'))
        lab.sysctl('ours', {'net.ipv4.ip_forward': 1})
        self.agent = lab.spawn('ours', [MARGAY, '--state-dir', str(self.ours.dir), 'node',
                                        '--node-name', 'ours'],
                               env={**os.environ, 'CALICO_NETWORKING_BACKEND': 'bird',
                                    'NO_DEFAULT_POOLS': 'true',
                                    'FELIX_DEFAULTENDPOINTTOHOSTACTION': 'ACCEPT'}, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
        wait_for('the agent', lambda: (self.ours.dir / 'agent.sock').exists())
        self.apply(self.ours.node('ours', self.ours.number, 64512),
                   resource('IPPool', 'pods', {'cidr': '10.44.0.0/16', 'blockSize': 26}),
                   resource('BGPPeer', 'tor', {'peerIP': bird.ip, 'asNumber': 65002}),
                   resource('CalicoNodeStatus', 'mine', {
                       'node': 'ours', 'classes': ['Agent', 'BGP', 'Routes'],
                       'updatePeriodSeconds': 1}),
                   resource('CalicoNodeStatus', 'other', {
                       'node': 'elsewhere', 'classes': ['BGP'], 'updatePeriodSeconds': 1}),
                   {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'shop'}},
                   resource('Pod', 'web', {'nodeName': 'ours', 'containers': [{'name': 'main'}]},
                            'v1', namespace='shop'))
        lab.netns('web')
        self.call('pod', 'add', 'shop/web', '--cni-bin', CNI_DIR, '--netns', lab.path('web'))
        endpoint = json.loads(self.call('get', 'workloadendpoints', '-n', 'shop', '-o',
                                        'json'))['items'][0]
        pod = endpoint['spec']['ipNetworks'][0].split('/')[0]
        wait_for('the session', lambda: self.ours.ask('status').returncode == 0
                 and self.ours.peer(bird.ip)['isUp'])
        wait_for('the block at the router', lambda: any(
            net.startswith('10.44.') and net.endswith('/26') for net in self.fabric.routes('bird')))
        wait_for('its routes here', lambda: len(self.fabric.routes('ours', 4, 80)) >= 5)
        # What a CalicoNodeStatus of this node says.
        def status():
            return json.loads(self.call('get', 'caliconodestatus', 'mine', '-o',
                                        'json')).get('status', {})
        said = wait_for('a report', lambda: (s := status()) and s['bgp']['numberEstablishedV4'] == 1
                        and len([r for r in s['routes']['routesV4'] if r['type'] == 'FIB'
                                 and r['learnedFrom'].get('peerIP') == bird.ip]) == 5 and s)
        self.assertEqual(said['agent']['birdV4']['state'], 'Ready')
        self.assertEqual((said['bgp']['peersV4'][0]['peerIP'], said['bgp']['peersV4'][0]['type'],
                          said['bgp']['peersV4'][0]['state']),
                         (bird.ip, 'GlobalPeer', 'Established'))
        wait_for('a newer one', lambda: status()['lastUpdated'] > said['lastUpdated'])
        self.assertNotIn('status', json.loads(self.call('get', 'caliconodestatus', 'other', '-o',
                                                        'json')))
        # The speaker dies under traffic, twice: nothing is lost, and it is back by itself.
        wait_for('the pod answers', lambda: subprocess.run(
            lab.command('bird', ['ping', '-n', '-c', '1', '-W', '1', pod]), check=False,
            stdout=subprocess.DEVNULL).returncode == 0)
        for _ in range(2):
            old = wait_for('the speaker', self.speaker)
            with Pings(lab, 'bird', pod) as pings:
                os.kill(old, signal.SIGKILL)
                wait_for('another one', lambda old=old: self.speaker() not in (0, old))
                wait_for('the session again', lambda: self.ours.ask('status').returncode == 0
                         and self.ours.peer(bird.ip)['isUp'])
                time.sleep(0.5)
            self.assertEqual(pings.lost, 0, pings.sent)
            self.assertEqual(len(self.fabric.routes('ours', 4, 80)), 5)
        # Pods do not need it: one is made while it is stopped.
        os.kill(self.speaker(), signal.SIGSTOP)
        self.apply(resource('Pod', 'db', {'nodeName': 'ours', 'containers': [{'name': 'main'}]},
                            'v1', namespace='shop', labels={'app': 'router'}))
        lab.netns('db')
        self.call('pod', 'add', 'shop/db', '--cni-bin', CNI_DIR, '--netns', lab.path('db'))
        os.kill(self.speaker(), signal.SIGCONT)
        # A pod that is a router itself: it peers with its node at the address that all pods see.
        self.apply(resource('BGPConfiguration', 'default',
                            {'localWorkloadPeeringIPV4': '169.254.100.1'}),
                   resource('BGPPeer', 'pods', {'localWorkloadSelector': 'app == "router"',
                                                'node': 'ours', 'asNumber': 65100}))
        inner = Bird.__new__(Bird)
        inner.fabric, inner.lab, inner.name, inner.asn = self.fabric, lab, 'db', 65100
        inner.ip = next(e['spec']['ipNetworks'][0].split('/')[0] for e in json.loads(self.call(
            'get', 'workloadendpoints', '-n', 'shop', '-o', 'json'))['items']
            if e['spec']['pod'] == 'db')
        inner.dir = self.fabric.dir / 'db'
        inner.dir.mkdir()
        inner.start(static_routes(['77.0.0.0/24']) + (
            f'protocol bgp p {{ local {inner.ip} as 65100; neighbor 169.254.100.1 as 64512;\n'
            'multihop; connect delay time 1; connect retry time 1; error wait time 1,2;\n'
            'ipv4 { import all; export where net = 77.0.0.0/24; }; }\n'), kernel=False)
        wait_for('the pod peers', lambda: any(
            p['ip'] == inner.ip and p['isUp'] for p in self.ours.status()['peers']))
        route = wait_for('its route', lambda: self.fabric.routes('ours', 4, 80).get('77.0.0.0/24'))
        self.assertTrue(route['gateway'] == inner.ip and route['dev'].startswith('cali'), route)
        wait_for('the block in the pod', lambda: inner.count('p') >= 1)
        self.call('delete', 'bgppeer', 'pods')
        wait_for('gone', lambda: '77.0.0.0/24' not in self.fabric.routes('ours', 4, 80))
        wait_for('the address, too', lambda: '169.254.100.1' not in lab.run(
            'ours', ['ip', 'addr', 'show']))
        # With the agent it ends, too; routes stay.
        pid = self.speaker()
        self.agent.terminate()
        self.agent.wait(30)
        wait_for('the end of the speaker', lambda: not pathlib.Path(f'/proc/{pid}').exists())
        self.assertEqual(len(self.fabric.routes('ours', 4, 80)), 5)


if __name__ == '__main__':
    sys.exit(unittest.main(verbosity=2))
