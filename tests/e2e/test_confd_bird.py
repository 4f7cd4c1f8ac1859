#!/usr/bin/env python3
"""Three nodes whose BIRD 2 is configured by `margay confd` from Calico's BGP resources, and a fourth
whose FRR is, by the example that is shipped.

An agent of ours in a namespace of its own is the datastore. Each node runs BIRD and `margay confd
-watch` with the templates that are shipped. Pods reach each other by the mesh; a peer outside gets
the pools; a changed BGPPeer reaches BIRD, and only its session is made anew.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from agent import Agent
from lab import Lab

ROOT = pathlib.Path(__file__).resolve().parents[2]
MARGAY = os.environ.get('MARGAY', str(ROOT / 'build' / 'margay'))
FRR = pathlib.Path('/usr/lib/frr')
HAS_FRR = (FRR / 'zebra').exists() and shutil.which('vtysh')
BIRDS = ('n1', 'n2', 'n3')
NODES = BIRDS + (('n4',) if HAS_FRR else ())
MESH = 2 * (len(NODES) - 1)  # sessions of a node: one a family and other node
WAIT = 60


def address(i, family=4):
    """The address of node i (from 1) on the common link."""
    return f'10.186.0.{i}' if family == 4 else f'fd86::{i}'


def pod(i, family=4):
    """The address of the pod on node i, inside the node's block."""
    return f'10.80.{i}.1' if family == 4 else f'fd80::{i}:1'


def resource(kind, name, **spec):
    """A resource of Calico's."""
    return {'apiVersion': 'projectcalico.org/v3', 'kind': kind, 'metadata': {'name': name},
            'spec': spec}


def resources():
    """Nodes, pools, blocks, settings, a filter and a peer outside."""
    out = [resource('IPPool', 'v4', cidr='10.80.0.0/16'), resource('IPPool', 'v6', cidr='fd80::/48'),
           resource('BGPConfiguration', 'default', serviceClusterIPs=[{'cidr': '10.96.0.0/16'}],
                    communities=[{'name': 'ours', 'value': '64512:7'}],
                    prefixAdvertisements=[{'cidr': '10.80.0.0/16', 'communities': ['ours']}]),
           resource('BGPFilter', 'no-v6', exportV6=[{'action': 'Reject'}],
                    importV4=[{'source': 'RemotePeers', 'cidr': '10.99.0.0/16',
                               'matchOperator': 'In', 'action': 'Reject'}]),
           resource('BGPPeer', 'tor', node='n1', peerIP=address(200), asNumber=65001,
                    filters=['no-v6'])]
    for i, node in enumerate(NODES, 1):
        out += [resource('Node', node, bgp={'ipv4Address': f'{address(i)}/24',
                                            'ipv6Address': f'{address(i, 6)}/64'}),
                resource('BlockAffinity', f'{node}-v4', cidr=f'10.80.{i}.0/26', node=node,
                         state='confirmed', deleted=False),
                resource('BlockAffinity', f'{node}-v6', cidr=f'fd80::{i}:0/122', node=node,
                         state='confirmed', deleted=False)]
    return out


def wait_for(what, check, seconds=WAIT):
    """Poll until check() is true; how long it took."""
    start = time.monotonic()
    while not check():
        if time.monotonic() - start > seconds:
            raise AssertionError(f'not within {seconds} s: {what}')
        time.sleep(0.05)
    return time.monotonic() - start


class Bird:
    """One node: BIRD and the confd that configures it."""

    def __init__(self, lab, name, folder, agent_state):
        self.lab, self.name, self.folder = lab, name, folder
        self.config, self.control = folder / 'bird.conf', folder / 'bird.ctl'
        confdir = folder / 'confd'
        shutil.copytree(ROOT / 'deploy' / 'confd', confdir)
        toml = confdir / 'conf.d' / 'bird.toml'
        toml.write_text(toml.read_text().replace('/etc/bird/bird.conf', str(self.config)).replace(
            'birdc configure', f'birdc -s {self.control} configure'))
        self.log = open(folder / 'log', 'w', encoding='utf-8')
        self.bird = None
        self.confd = lab.spawn(name, [MARGAY, 'confd', '-watch', '-backend', 'calico', '-datastore',
                                      f'agent:{agent_state}/agent.sock', '-confdir', str(confdir),
                                      '-node-name', name], stdout=self.log, stderr=self.log)

    def start(self):
        """BIRD, once there is a configuration."""
        wait_for(f'configuration of {self.name}: {self.folder}/log', self.config.exists)
        self.bird = self.lab.spawn(self.name, ['bird', '-f', '-c', str(self.config), '-s',
                                               str(self.control), '-P', str(self.folder / 'pid')],
                                   stdout=self.log, stderr=self.log)
        wait_for(f'BIRD of {self.name}', self.control.exists)

    def sessions(self):
        """BGP sessions by name: state and since when."""
        done = subprocess.run(['birdc', '-s', str(self.control), 'show', 'protocols'],
                              capture_output=True, text=True, check=False)
        found = {}
        for line in done.stdout.splitlines():
            m = re.match(r'(\S+)\s+BGP\s+\S+\s+(\S+)\s+(\S+)\s*(.*)', line)
            if m:
                h, minute, second = m[3].split(':')
                found[m[1]] = (m[4].strip(), int(h) * 3600 + int(minute) * 60 + float(second))
        return found

    def routes(self, *args):
        """`show route`."""
        return subprocess.run(['birdc', '-s', str(self.control), 'show', 'route', *args],
                              capture_output=True, text=True, check=False).stdout


def wire(lab):
    """A switch, three nodes with a pod each, and a router outside."""
    lab.netns('sw')
    lab.batch('sw', ['link add br0 type bridge', 'link set br0 up'])
    for i, name in [*enumerate(NODES, 1), (200, 'tor')]:
        lab.netns(name)
        lab.link('sw', f'to-{name}', name, 'eth0')
        lab.batch('sw', [f'link set to-{name} master br0'])
        lab.batch(name, [f'address add {address(i)}/24 dev eth0',
                         f'address add {address(i, 6)}/64 dev eth0 nodad'])
        lab.sysctl(name, {'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1})
    for i, name in enumerate(NODES, 1):
        place = f'pod{i}'
        lab.netns(place)
        lab.link(name, f'cali{i}', place, 'eth0')
        lab.batch(name, [f'address add 169.254.1.1/32 dev cali{i}',
                         f'address add fe80::1/64 dev cali{i} nodad',
                         f'route add {pod(i)}/32 dev cali{i}',
                         f'route add {pod(i, 6)}/128 dev cali{i}'])
        lab.batch(place, [f'address add {pod(i)}/32 dev eth0',
                          f'address add {pod(i, 6)}/128 dev eth0 nodad',
                          'route add 169.254.1.1 dev eth0 scope link',
                          'route add default via 169.254.1.1 dev eth0',
                          'route add default via fe80::1 dev eth0'])


TOR = '''router id 10.186.0.200;
log stderr all;
protocol device {{ }}
protocol kernel {{ ipv4 {{ export all; }}; }}
protocol static {{ ipv4; route 10.98.0.0/16 blackhole; route 10.99.0.0/16 blackhole; }}
protocol bgp n1 {{
  local 10.186.0.200 as 65001;
  neighbor 10.186.0.1 external;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 {{ import all; export all; add paths on; }};
}}
'''


def outside(lab, folder):
    """BIRD of the router outside, not ours to configure."""
    config, control = folder / 'tor.conf', folder / 'tor.ctl'
    config.write_text(TOR.format())
    lab.spawn('tor', ['bird', '-f', '-c', str(config), '-s', str(control), '-P',
                      str(folder / 'tor.pid')], stdout=subprocess.DEVNULL,
              stderr=subprocess.DEVNULL)
    return control


class Frr:
    """The fourth node: zebra, staticd and bgpd with a /var/run/frr of their own, and their confd."""

    def __init__(self, lab, name, folder, agent_state):
        self.lab, self.config = lab, folder / 'frr.conf'
        run = '/var/run/frr'
        daemons = ''.join(f'{FRR}/{daemon} -f /dev/null -i {run}/{daemon}.pid -A 127.0.0.1 & '
                          for daemon in ('zebra', 'staticd'))
        with open(folder / 'log', 'w', encoding='utf-8') as log:
            self.daemons = lab.spawn(name, [
                'unshare', '--mount', 'sh', '-c',
                f'mkdir -p {run}; mount -t tmpfs t {run}; chown frr:frr {run}; {daemons}'
                f'exec {FRR}/bgpd -f /dev/null -i {run}/bgpd.pid -A 127.0.0.1'],
                                     stdout=log, stderr=log, start_new_session=True)
            self.vtysh = ['nsenter', f'--target={self.daemons.pid}', '--mount', '--net', 'vtysh']
            wait_for('FRR', lambda: all(daemon in self.ask('show daemons')
                                        for daemon in ('zebra', 'staticd', 'bgpd')))
            confdir = folder / 'confd'
            shutil.copytree(ROOT / 'deploy' / 'confd', confdir)
            text = (confdir / 'conf.d' / 'frr.toml.example').read_text().replace(
                '/etc/frr/frr.conf', str(self.config))
            (confdir / 'conf.d' / 'bird.toml').unlink()
            # frr-reload.py looks for daemons of the whole machine: what is new is loaded here.
            (confdir / 'conf.d' / 'frr.toml').write_text(''.join(
                line if not line.startswith('reload_cmd') else
                f'reload_cmd = "{" ".join(self.vtysh)} -f {{{{.dest}}}}"\n'
                for line in text.splitlines(keepends=True)))
            self.confd = lab.spawn(name, [MARGAY, 'confd', '-watch', '-backend', 'calico', '-datastore',
                                          f'agent:{agent_state}/agent.sock', '-confdir', str(confdir),
                                          '-node-name', name], stdout=log, stderr=log)

    def ask(self, *commands):
        """What vtysh answers."""
        words = [word for command in commands for word in ('-c', command)]
        return subprocess.run([*self.vtysh, *words], capture_output=True, text=True,
                              check=False).stdout

    def n_up(self):
        """Established sessions, of both families."""
        found = 0
        for family in ('ipv4', 'ipv6'):
            try:
                peers = json.loads(self.ask(f'show bgp {family} unicast summary json')).get('peers', {})
            except ValueError:
                continue
            found += sum(peer['state'] == 'Established' for peer in peers.values())
        return found

    def stop(self):
        """Its daemons are children of a shell that has become bgpd."""
        os.killpg(self.daemons.pid, 15)


def main():
    """The scenario."""
    if not shutil.which('bird') and not os.path.exists('/usr/sbin/bird'):
        sys.exit(77)
    os.environ['PATH'] += ':/usr/sbin'
    folder = pathlib.Path(tempfile.mkdtemp(prefix='margay-bird-'))
    try:
        with Lab() as lab:
            wire(lab)
            lab.netns('store')
            with Agent(lab, 'store', 'store') as agent:
                agent.apply(resources(), wait=False)
                tor = outside(lab, folder)
                birds = {}
                for name in BIRDS:
                    (folder / name).mkdir()
                    birds[name] = Bird(lab, name, folder / name, agent.state)
                for bird in birds.values():
                    bird.start()
                frr = None
                if HAS_FRR:
                    (folder / 'n4').mkdir()
                    frr = Frr(lab, 'n4', folder / 'n4', agent.state)
                else:
                    print('FRR left out: it is not installed')
                try:
                    scenario(lab, agent, birds, tor, frr)
                finally:
                    if frr:
                        frr.stop()
    finally:
        for log in folder.glob('n*/log'):
            if sys.exc_info()[0]:
                print(f'--- {log}\n{log.read_text()[-3000:]}', file=sys.stderr)
        shutil.rmtree(folder)


def is_up(bird, n):
    """All sessions of a node are established, and there are n."""
    sessions = bird.sessions()
    return len(sessions) == n and all(s[0].startswith('Established') for s in sessions.values())


def is_same(now, before, session):
    """A session that has not been made anew; BIRD's times may differ by a rounding."""
    return (now[session][0] == before[session][0] and
            abs(now[session][1] - before[session][1]) < 0.5)


def scenario(lab, agent, birds, tor, frr):
    """Up, reachable, filtered; then a change."""
    took = wait_for('sessions', lambda: is_up(birds['n1'], MESH + 1) and is_up(birds['n2'], MESH) and
                    is_up(birds['n3'], MESH) and (not frr or frr.n_up() == MESH))
    print(f'sessions up after {took:.1f} s')
    for i in range(1, len(NODES) + 1):
        for k in range(1, len(NODES) + 1):
            for family in (4, 6):
                wait_for(f'pod{i} to pod{k}, IPv{family}',
                         lambda i=i, k=k, f=family: lab.probe_ping(f'pod{i}', pod(k, f)))
    seen = subprocess.run(['birdc', '-s', str(tor), 'show', 'route', 'all'], capture_output=True,
                          text=True, check=False).stdout
    for prefix in ('10.80.1.0/26', '10.96.0.0/16'):
        assert prefix in seen, seen
    assert '(64512,7)' in seen, seen
    assert '10.80.1.1/32' not in seen, seen
    wait_for('10.98.0.0/16 on n1', lambda: '10.98.0.0/16' in birds['n1'].routes())
    assert '10.98.0.0/16' not in birds['n2'].routes(), 'only pools and services are passed on'
    assert '10.99.0.0/16' not in birds['n1'].routes(), 'the import filter let 10.99.0.0/16 in'

    before = {name: bird.sessions() for name, bird in birds.items()}
    time.sleep(1.1)  # the times that BIRD shows must be able to differ
    start = time.monotonic()
    agent.apply([resource('BGPPeer', 'tor', node='n1', peerIP=address(200), asNumber=65001,
                          localASNumber=64999, filters=['no-v6'])], wait=False)
    applied = time.monotonic() - start
    text = 'port 179 as 64999'
    wait_for('the change in the file', lambda: text in birds['n1'].config.read_text())
    print(f'written to file {1000 * (time.monotonic() - start):.0f} ms after the command began '
          f'({1000 * applied:.0f} ms of it the command)')
    wait_for('the changed session', lambda: is_up(birds['n1'], MESH + 1) and
             not is_same(birds['n1'].sessions(), before['n1'], 'Node_10_186_0_200'))
    for name, bird in birds.items():
        now = bird.sessions()
        for session in now:
            same = is_same(now, before[name], session)
            assert same == (session != 'Node_10_186_0_200'), (name, session, now, before[name])
    wait_for('AS path with 64999', lambda: '64999' in subprocess.run(
        ['birdc', '-s', str(tor), 'show', 'route', 'all'], capture_output=True, text=True,
        check=False).stdout)
    agent.delete([resource('BGPPeer', 'tor')])
    wait_for('the peer gone', lambda: is_up(birds['n1'], MESH))
    if frr:
        made = frr.config.read_text().splitlines()
        for line in ('router bgp 64512', f'  neighbor {address(2, 6)} activate',
                     'ip route 10.80.4.0/26 blackhole'):
            assert line in made, made
        # A setting of the cluster reaches the running bgpd, and no session is made anew for it.
        before = frr.n_up()
        agent.apply([resource('BGPPeer', 'more', node='n4', peerIP=address(200), asNumber=65001)],
                    wait=False)
        wait_for('the new peer in FRR', lambda: address(200) in frr.ask('show running-config'))
        assert frr.n_up() >= before == MESH
    for confd in [bird.confd for bird in birds.values()] + ([frr.confd] if frr else []):
        confd.terminate()
        assert confd.wait(20) == 0, confd.returncode
    print(json.dumps({'nodes': len(birds), 'ok': True}))


if __name__ == '__main__':
    main()
