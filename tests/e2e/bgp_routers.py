"""Real routers in network namespaces: BIRD 2, FRR, GoBGP, and ours; a switch that joins them.

A Fabric is a bridge in a namespace of its own; each router has one interface on it, eth0, with
10.99.0.N/24 and fd99::N/64. All that is made goes when the `with` block is left.
"""

import contextlib
import ipaddress
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from lab import Lab

ROOT = pathlib.Path(__file__).resolve().parents[2]
MARGAY = os.environ.get('MARGAY', str(ROOT / 'build' / 'margay'))
FRR = pathlib.Path('/usr/lib/frr')
PATIENCE = 90


def wait_for(what, condition, timeout=PATIENCE):
    """The first true answer of condition(); AssertionError with `what` when there is none in time."""
    end = time.monotonic() + timeout
    last = None
    while time.monotonic() < end:
        try:
            last = condition()
        except (subprocess.CalledProcessError, ValueError, KeyError) as e:
            last = e
        if last and not isinstance(last, Exception):
            return last
        time.sleep(0.1)
    raise AssertionError(f'not in {timeout} s: {what}; last seen: {last!r}')


class Fabric:
    """The switch, and the routers on it."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.n = 0

    def __enter__(self):
        self.lab = self.stack.enter_context(Lab())
        self.dir = pathlib.Path(self.stack.enter_context(
            tempfile.TemporaryDirectory(prefix='mgbgp')))
        os.chmod(self.dir, 0o755)
        self.lab.netns('switch')
        self.lab.batch('switch', ['link add br0 type bridge', 'link set br0 up'])
        return self

    def __exit__(self, *what):
        return self.stack.__exit__(*what)

    def place(self, name):
        """A namespace on the switch; returns its number N."""
        self.n += 1
        self.lab.netns(name)
        self.lab.link(name, 'eth0', 'switch', f'p{self.n}')
        self.lab.sysctl(name, {'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1,
                               'net.ipv6.conf.eth0.accept_dad': 0})
        self.lab.batch('switch', [f'link set p{self.n} master br0'])
        self.lab.batch(name, [f'addr add 10.99.0.{self.n}/24 dev eth0',
                              f'addr add fd99::{self.n}/64 dev eth0 nodad'])
        return self.n

    def link_local(self, name):
        """The link-local address of a place's eth0."""
        argv = ['ip', '-6', '-o', 'addr', 'show', 'dev', 'eth0', 'scope', 'link']
        text = wait_for('a link-local address', lambda: self.lab.run(name, argv))
        return text.split('inet6 ')[1].split('/')[0]

    def routes(self, name, family=4, protocol=None):
        """The main table as `ip -j route` has it: {prefix: route}."""
        argv = ['ip', '-j', '-d', f'-{family}', 'route', 'show', 'table', 'main']
        if protocol is not None:
            argv += ['proto', str(protocol)]
        found = json.loads(self.lab.run(name, argv) or '[]')
        return {r['dst']: r for r in found}


class Router:
    """What all kinds share: a namespace, a process, files."""

    def __init__(self, fabric, name, asn):
        self.fabric, self.lab, self.name, self.asn = fabric, fabric.lab, name, asn
        self.number = fabric.place(name)
        self.ip, self.ip6 = f'10.99.0.{self.number}', f'fd99::{self.number}'
        self.dir = fabric.dir / name
        self.dir.mkdir()
        self.process = None

    def spawn(self, argv, env=None):
        log = open(self.dir / 'log', 'ab')  # noqa: SIM115 (the process keeps it)
        self.process = self.lab.spawn(self.name, argv, stdout=log, stderr=log,
                                      env={**os.environ, **(env or {})})
        log.close()
        return self.process

    def kill(self, signum=signal.SIGKILL):
        self.process.send_signal(signum)
        self.process.wait(20)

    def log(self):
        return (self.dir / 'log').read_text(errors='replace')


class Margay(Router):
    """`margay bgp --config`."""

    def __init__(self, fabric, name, asn, cluster_id=None):
        super().__init__(fabric, name, asn)
        self.cluster_id = cluster_id
        self.node_doc = None  # instead of the plain one

    def node(self, name, number, asn, cluster_id=None):
        bgp = {'ipv4Address': f'10.99.0.{number}/24', 'ipv6Address': f'fd99::{number}/64',
               'asNumber': asn}
        if cluster_id:
            bgp['routeReflectorClusterID'] = cluster_id
        return {'apiVersion': 'projectcalico.org/v3', 'kind': 'Node', 'metadata': {'name': name},
                'spec': {'bgp': bgp}}

    def write(self, peers, extra=(), mesh=False):
        """The file: peers is {name: spec of a BGPPeer}."""
        v3 = 'projectcalico.org/v3'
        docs = [{'apiVersion': v3, 'kind': 'BGPConfiguration', 'metadata': {'name': 'default'},
                 'spec': {'nodeToNodeMeshEnabled': mesh, 'asNumber': self.asn,
                          'logSeverityScreen': 'Debug'}},
                self.node_doc or self.node(self.name, self.number, self.asn, self.cluster_id)]
        docs += [{'apiVersion': v3, 'kind': 'BGPPeer', 'metadata': {'name': name}, 'spec': spec}
                 for name, spec in peers.items()]
        docs += extra
        (self.dir / 'bgp.yaml').write_text('\n---\n'.join(json.dumps(d) for d in docs))

    def start(self):
        self.spawn([MARGAY, '--run-dir', str(self.dir), 'bgp', '--config', str(self.dir / 'bgp.yaml'),
                    '--node-name', self.name])
        wait_for(f'{self.name} answers', lambda: (self.dir / 'bgp.sock').exists())

    def ask(self, *argv):
        return subprocess.run([MARGAY, '--run-dir', str(self.dir), 'bgp', *argv], check=False,
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def status(self):
        return json.loads(self.ask('status', '-o', 'json').stdout)

    def peer(self, ip):
        return next(p for p in self.status()['peers'] if p['ip'] == str(ip))

    def wait_up(self, ip):
        try:
            return wait_for(f'{self.name}: session with {ip}',
                            lambda: self.peer(ip)['isUp'] and self.peer(ip))
        except (AssertionError, StopIteration):
            print(self.log()[-3000:])
            raise


class Bird(Router):
    """BIRD 2; body is what stands behind the router id and the device protocol."""

    def start(self, body, kernel=True):
        export = 'protocol kernel { ipv4 { import none; export all; }; merge paths on; }\n' \
            'protocol kernel { ipv6 { import none; export all; }; merge paths on; }\n'
        (self.dir / 'bird.conf').write_text(
            f'router id {self.ip};\nprotocol device {{ scan time 1; }}\n'
            f'{export if kernel else ""}{body}')
        self.spawn(['bird', '-f', '-c', str(self.dir / 'bird.conf'), '-s', str(self.dir / 'ctl'),
                    '-P', str(self.dir / 'pid')])

    def ask(self, *words):
        return subprocess.run(['birdc', '-s', str(self.dir / 'ctl'), *words], check=False,
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout

    def is_up(self, protocol):
        return 'Established' in self.ask('show', 'protocols', protocol)

    def count(self, protocol):
        """Routes that came in by a session."""
        for line in self.ask('show', 'protocols', 'all', protocol).splitlines():
            words = line.split()
            if words[:1] == ['Routes:']:
                return int(words[1])
        return 0

    def bgp(self, name, peer, more='', v4='import all; export all;', v6=None, local=None):
        channels = (f'ipv4 {{ {v4} }};' if v4 else '') + (f'ipv6 {{ {v6} }};' if v6 else '')
        ip, theirs = (self.ip6, peer.ip6) if local == 6 else (self.ip, peer.ip)
        return (f'protocol bgp {name} {{ local {ip} as {self.asn}; neighbor {theirs} as {peer.asn};\n'
                f'connect delay time 1; connect retry time 1; error wait time 1,2; {more}\n'
                f'{channels} }}\n')


class Frr(Router):
    """FRR's zebra and bgpd (and bfdd), with a /var/run/frr of their own."""

    def start(self, bgp, bfd=False):
        (self.dir / 'frr.conf').write_text(
            f'log file {self.dir}/frr.log\nrouter bgp {self.asn}\n bgp router-id {self.ip}\n'
            f' no bgp ebgp-requires-policy\n no bgp network import-check\n{bgp}\n')
        os.chmod(self.dir, 0o777)
        os.chmod(self.dir / 'frr.conf', 0o644)
        run = '/var/run/frr'
        daemons = f'{FRR}/zebra -f /dev/null -i {run}/zebra.pid -A 127.0.0.1 & '
        if bfd:
            daemons += f'{FRR}/bfdd -f /dev/null -i {run}/bfdd.pid -A 127.0.0.1 & sleep 1; '
        script = (f'mkdir -p {run}; mount -t tmpfs t {run}; chown frr:frr {run}; '
                  f'cp {self.dir}/frr.conf {run}/; {daemons}'
                  f'exec {FRR}/bgpd -f {run}/frr.conf -i {run}/bgpd.pid -A 127.0.0.1')
        self.spawn(['unshare', '-m', '--propagation', 'private', 'sh', '-c', script])

    def ask(self, command):
        """A command of vtysh, in the mount namespace of the daemons."""
        done = subprocess.run(['nsenter', f'--target={self.process.pid}', '--mount', '--net', 'vtysh',
                               '-c', command], check=False, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        return done.stdout

    def ask_json(self, command):
        return json.loads(self.ask(command + ' json') or '{}')

    def is_up(self, ip, family='ipv4Unicast'):
        peers = self.ask_json('show bgp summary').get(family, {}).get('peers', {})
        return peers.get(str(ip), {}).get('state') == 'Established'


class GoBgp(Router):
    def start(self, toml):
        (self.dir / 'gobgp.toml').write_text(
            f'[global.config]\nas = {self.asn}\nrouter-id = "{self.ip}"\n{toml}')
        self.spawn(['gobgpd', '-f', str(self.dir / 'gobgp.toml'), '--api-hosts', '127.0.0.1:50051',
                    '--pprof-disable'])

    def neighbor(self, peer, extra='', families=('ipv4-unicast',)):
        afis = ''.join(f'[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n'
                       f'afi-safi-name = "{f}"\n{extra}' for f in families)
        return (f'[[neighbors]]\n[neighbors.config]\nneighbor-address = "{peer.ip}"\n'
                f'peer-as = {peer.asn}\n[neighbors.timers.config]\nconnect-retry = 1\n'
                f'idle-hold-time-after-reset = 1\n{afis}')

    def ask(self, *words):
        return self.lab.run(self.name, ['gobgp', '-p', '50051', *words])


class ExaBgp(Router):
    def start(self, peer, static):
        """static: lines of its static section."""
        (self.dir / 'exabgp.conf').write_text(
            f'neighbor {peer.ip} {{ router-id {self.ip}; local-address {self.ip}; '
            f'local-as {self.asn}; peer-as {peer.asn}; capability {{ graceful-restart 60; }} '
            f'static {{ {static} }} }}\n')
        self.spawn(['env', 'exabgp.daemon.drop=false', 'exabgp.tcp.port=179', 'exabgp.api.cli=false',
                    'exabgp.daemon.user=root', 'exabgp', str(self.dir / 'exabgp.conf')])


class OpenBgpd(Router):
    def start(self, peer, networks):
        path = self.dir / 'bgpd.conf'
        path.write_text(
            f'AS {self.asn}\nrouter-id {self.ip}\nfib-update no\nsocket "{self.dir}/ctl"\n'
            + ''.join(f'network {net}\n' for net in networks)
            + f'neighbor {peer.ip} {{\n remote-as {peer.asn}\n announce IPv4 unicast\n }}\n'
            'allow from any\nallow to any\n')
        path.chmod(0o600)
        pathlib.Path('/run/openbgpd').mkdir(exist_ok=True)  # the home that it wants
        self.spawn(['/usr/sbin/bgpd', '-d', '-f', str(path)])

    def ask(self, *words):
        return self.lab.run(self.name, ['bgpctl', '-s', f'{self.dir}/ctl', *words])


def prefixes(n, base='20.0.0.0'):
    """n different /24."""
    start = int(ipaddress.ip_address(base))
    return [f'{ipaddress.ip_address(start + (i << 8))}/24' for i in range(n)]


def static_routes(nets):
    """BIRD's static protocol with these."""
    body = ''.join(f'route {net} blackhole;\n' for net in nets)
    family = 'ipv6' if nets and ':' in nets[0] else 'ipv4'
    return f'protocol static {{ {family};\n{body}}}\n'


def has(*programs):
    return all(shutil.which(p) for p in programs)
