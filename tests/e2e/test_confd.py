#!/usr/bin/env python3
"""`margay confd` as people run it: the ways to run, staging and commands, all flags, and the backends
against real servers (etcd, Redis, ZooKeeper; those that are not installed are named and left out).
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import stat
import statistics
import subprocess
import sys
import tempfile
import time

from cluster import HOST, Etcd, KubeApiserver, Server, free_ports, wait_until
from lab import CommandFailed

ROOT = pathlib.Path(__file__).resolve().parents[2]
MARGAY = os.environ.get('MARGAY', str(ROOT / 'build' / 'margay'))
JARS = pathlib.Path('/usr/share/java')
ZOOKEEPER = ('zookeeper', 'zookeeper-jute', 'slf4j-api', 'slf4j-nop', 'netty-all', 'netty-handler',
             'netty-common', 'netty-transport', 'netty-buffer', 'netty-resolver', 'netty-codec',
             'netty-transport-native-epoll', 'netty-transport-native-unix-common', 'snappy-java',
             'metrics-core', 'commons-cli', 'commons-lang', 'commons-io')


class Confd:
    """A confdir of its own, with an output folder."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='margay-confd-'))
        self.confdir, self.out = self.folder / 'confd', self.folder / 'out'
        for path in (self.confdir / 'conf.d', self.confdir / 'templates', self.out):
            path.mkdir(parents=True)
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        shutil.rmtree(self.folder)

    def resource(self, name, template, keys=('/',), **fields):
        """A resource and its template; the file that it writes."""
        dest = self.out / name
        lines = ['[template]', f'src = "{name}.tmpl"', f'dest = "{dest}"',
                 f'keys = {json.dumps(list(keys))}']
        lines += [f'{key} = {json.dumps(value)}' for key, value in fields.items()]
        (self.confdir / 'conf.d' / f'{name}.toml').write_text('\n'.join(lines) + '\n')
        self.template(name, template)
        return dest

    def template(self, name, text):
        """Write a template."""
        (self.confdir / 'templates' / f'{name}.tmpl').write_text(text)

    def values(self, **keys):
        """A file of values; its path. Replaced by rename."""
        path = self.folder / 'values.json'
        new = self.folder / 'values.json.new'
        new.write_text(json.dumps(keys))
        new.rename(path)
        return str(path)

    def argv(self, *flags):
        """A command line of confd."""
        return [MARGAY, 'confd', '-confdir', str(self.confdir), '-config-file',
                str(self.folder / 'confd.toml'), *flags]

    def once(self, *flags, code=0, env=None):
        """-onetime; what it said."""
        done = subprocess.run(self.argv('-onetime', *flags), capture_output=True, text=True,
                              check=False, env={**os.environ, **(env or {})}, timeout=120)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert 'runtime error' not in done.stderr and 'Sanitizer' not in done.stderr, done.stderr
        return done.stdout + done.stderr

    def spawn(self, *flags, env=None):
        """In the background; its log is self.log."""
        with open(self.folder / 'log', 'ab') as log:
            process = subprocess.Popen(self.argv(*flags), stdout=log, stderr=log,
                                       env={**os.environ, **(env or {})})
        self.processes.append(process)
        return process

    @property
    def log(self):
        """What the processes in the background said."""
        return (self.folder / 'log').read_text()

    def finish(self, process):
        """SIGTERM ends it with 0 and without complaints."""
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (process.returncode, self.log)
        assert 'runtime error' not in self.log and 'Sanitizer' not in self.log, self.log


def has(path, text):
    """Whether a file is there and says exactly this."""
    return path.exists() and path.read_text() == text


def lines(path):
    """The lines of a file, none if it is not there."""
    return path.read_text().splitlines() if path.exists() else []


def test_staging(c):
    """Mode and owner, check before replacement, reload on change only, failures keep the old file."""
    log = c.folder / 'reloads'
    dest = c.resource('a', 'v={{getv "/v"}}\n', mode='0640', reload_cmd=f'echo r >> {log}',
                      check_cmd='grep -q "^v=[0-9]" {{.src}} && ls -l {{.src}} | grep -q rw-r-----')
    file = ['-backend', 'file', '-file']
    c.once(*file, c.values(v=1))
    assert has(dest, 'v=1\n') and stat.S_IMODE(dest.stat().st_mode) == 0o640
    c.once(*file, c.values(v=1))
    assert lines(log) == ['r'], 'reloaded without a change'
    inode = dest.stat().st_ino
    out = c.once(*file, c.values(v='x'), code=1)
    assert 'check_cmd' in out and has(dest, 'v=1\n') and dest.stat().st_ino == inode
    assert lines(log) == ['r'] and sorted(p.name for p in c.out.iterdir()) == ['a']
    dest.chmod(0o600)
    c.once(*file, c.values(v=1))
    assert stat.S_IMODE(dest.stat().st_mode) == 0o640 and lines(log) == ['r', 'r']
    out = c.once(*file, c.values(v=2), '-noop')
    assert 'noop' in out and has(dest, 'v=1\n')
    c.once(*file, c.values(v='y'), '-sync-only')
    assert has(dest, 'v=y\n') and lines(log) == ['r', 'r']
    c.once(*file, c.values(v='z'), '-keep-stage-file', code=1)
    assert [p for p in c.out.iterdir() if p.name.startswith('.a')], 'the staged file is gone'
    target = c.folder / 'target'
    target.write_text('untouched')
    dest.unlink()
    dest.symlink_to(target)
    c.once(*file, c.values(v=3))
    assert not dest.is_symlink() and has(dest, 'v=3\n') and has(target, 'untouched')


def test_failures(c):
    """One template that fails stops no other; a bad resource stops all; commands end in time."""
    file = ['-backend', 'file', '-file', c.values(v=1)]
    good = c.resource('b-good', 'ok {{getv "/v"}}')
    bad = c.resource('a-bad', 'x\n{{getv "/none"}}')
    out = c.once(*file, code=1)
    assert 'a-bad.tmpl:2:2: executing' in out and 'key does not exist: /none' in out, out
    assert has(good, 'ok 1') and not bad.exists()
    c.template('a-bad', '{{if}}')
    assert 'missing value for if' in c.once(*file, code=1)
    c.template('a-bad', 'fine')
    good.unlink()
    toml = c.confdir / 'conf.d' / 'c.toml'
    for text, says in (('[template]\nsrc = 1\n', 'src: found integer, need a string'),
                       ('[template]\nsrc = "b-good.tmpl"\n', 'dest is missing'),
                       ('[template\n', 'need "]"'), ('[template]\nmode = "9"\nsrc="a"\ndest="/x"\nuid="x"',
                                                     'uid: found string, need a number')):
        toml.write_text(text)
        assert says in c.once(*file, code=1) and not good.exists()
    toml.unlink()
    slow = c.resource('c-slow', 'x', check_cmd='sleep 60 & sleep 60')
    start = time.monotonic()
    assert 'took longer than 1 s' in c.once(*file, '-cmd-timeout', '1', code=1)
    assert time.monotonic() - start < 40 and not slow.exists()
    c.resource('c-slow', 'y', reload_cmd='yes | head -c 10000000; exit 7')
    assert 'exit status 7' in c.once(*file, code=1) and has(slow, 'y')
    c.resource('c-slow', '{{define "x"}}{{template "x"}}{{end}}{{template "x"}}')
    assert 'exceeded maximum template depth' in c.once(*file, code=1)
    shutil.rmtree(c.confdir / 'conf.d')
    c.once(*file, code=1)
    shutil.rmtree(c.confdir)
    assert 'no_confdir' in c.once(*file)


def test_flags(c):
    """One dash and two, precedence of flags, environment and file, usage errors, refused backends."""
    dest = c.resource('a', '{{getv "/v"}}', keys=['/v'], prefix='/own')
    path = c.values(v='root', own={'v': 'own'}, env={'v': 'env'}, flag={'v': 'flag'},
                    toml={'v': 'toml'})
    (c.folder / 'confd.toml').write_text(f'BACKEND = "file"\nfile = ["{path}"]\nunknown = 1\n')
    c.once()
    assert has(dest, 'own')
    with open(c.folder / 'confd.toml', 'a', encoding='utf-8') as f:
        f.write('prefix = "/toml"\nlog_level = "debug"\n')
    c.once()
    assert has(dest, 'toml') and 'debug confd in_sync' in c.once()
    c.once(env={'CONFD_PREFIX': '/env'})
    assert has(dest, 'env')
    c.once('--prefix=/flag', env={'CONFD_PREFIX': '/env'})
    assert has(dest, 'flag')
    c.once('-prefix', '/flag', '--noop=false', '-log-level=error')
    for flags, says in ((['-nope'], 'flag provided but not defined: -nope'),
                        (['-interval'], 'flag needs an argument: -interval'),
                        (['-interval', 'x'], 'allowed is a number of seconds'),
                        (['-noop=maybe'], 'allowed are true and false'),
                        (['word'], 'found argument "word"'),
                        (['-log-level', 'loud'], 'allowed are debug')):
        assert says in c.once(*flags, code=2)
    for name in ('consul', 'vault', 'dynamodb', 'ssm', 'rancher'):
        assert f'-backend {name} is not built' in c.once('-backend', name, code=1)
    assert 'allowed are env, file' in c.once('-backend', 'nope', code=1)
    text = subprocess.run([MARGAY, 'confd', '--help'], capture_output=True, text=True,
                          check=True).stdout
    for flag in ('onetime', 'interval', 'watch', 'backend', 'node', 'prefix', 'confdir', 'noop',
                 'sync-only', 'log-level', 'config-file', 'file', 'keep-stage-file', 'filter',
                 'client-cert', 'client-key', 'client-ca-keys', 'basic-auth', 'username',
                 'password', 'scheme', 'srv-domain', 'srv-record', 'auth-token', 'version'):
        assert f'  -{flag}' in text, flag
    assert 'confd' in c.once('-version')
    (c.folder / 'confd.toml').write_text('interval = "x"\n')
    assert 'confd.toml:1:12: interval is string, need a number' in c.once(code=1)


def test_file(c):
    """Scalars as confd prints them, folders, filters, several files; then changes."""
    dest = c.resource('a', '{{range gets "/*"}}{{.Key}}={{.Value}};{{end}}{{range gets "/l/*"}}'
                           '{{.Value}},{{end}}')
    folder = c.folder / 'yaml' / 'sub'
    folder.mkdir(parents=True)
    (folder.parent / 'a.yaml').write_text('b: yes\ni: 010\nf: 1.50\ne: 1e3\nn: ~\ns: "x"\n'
                                          'l: [1, two, 2.0]\n')
    (folder / 'b.yml').write_text('s: later\n')
    (folder / 'c.txt').write_text('s: [not yaml')
    flags = ['-backend', 'file', '-file', str(folder.parent), '-filter', '*.y*ml']
    c.once(*flags)
    assert has(dest, '/b=true;/e=1000;/f=1.5;/i=8;/s=later;1,two,2,'), dest.read_text()
    process = c.spawn('-watch', *flags)
    wait_until(lambda: dest.exists(), 'the file')
    (folder / 'b.yml').write_text('s: newer\n')
    wait_until(lambda: 's=newer' in dest.read_text(), 'a change in a folder')
    (folder / 'deep').mkdir()
    time.sleep(0.2)
    (folder / 'deep' / 'z.yaml').write_text('z: 1\n')
    wait_until(lambda: '/z=1;' in dest.read_text(), 'a new folder')
    (folder / 'b.yml').write_text('s: [broken\n')
    wait_until(lambda: 'backend_lost' in c.log, 'the error')
    assert 's=newer' in dest.read_text()
    (folder / 'b.yml').write_text('s: mended\n')
    wait_until(lambda: 's=mended' in dest.read_text(), 'the mended file')
    c.template('a', 'new template {{getv "/s"}}')
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: has(dest, 'new template mended'), 'the new template after SIGHUP')
    c.finish(process)


def test_env(c):
    """Names of variables as keys."""
    dest = c.resource('a', '{{getv "/mgapp/db/host"}} {{join (ls "/mgapp/db") ","}}', ['/mgapp'])
    c.once('-backend', 'env', env={'MGAPP_DB_HOST': 'h1', 'MGAPP_DB_PORT': '5'})
    assert has(dest, 'h1 host,port')


def test_interval(c):
    """Resources, templates and values are read again each time."""
    dest = c.resource('a', '{{getv "/v"}}')
    path = c.values(v=1)
    process = c.spawn('-interval', '1', '-backend', 'file', '-file', path)
    wait_until(lambda: has(dest, '1'), 'the file')
    c.values(v=2)
    wait_until(lambda: has(dest, '2'), 'the change')
    c.template('a', 'new {{getv "/v"}}')
    wait_until(lambda: has(dest, 'new 2'), 'the new template')
    c.finish(process)


def test_many(c):
    """1,000 templates on 10,000 keys: only those that read what changed are rendered again."""
    for i in range(1000):
        c.resource(f't{i}', f'{{{{range gets "/g{i}/*"}}}}{{{{.Value}}}} {{{{end}}}}{{{{getv "/all"}}}}')
    groups = {f'g{i}': {f'k{k}': f'{i}-{k}' for k in range(10)} for i in range(1000)}
    log = c.folder / 'reloads'
    c.resource('t5', '{{range gets "/g5/*"}}{{.Value}} {{end}}', reload_cmd=f'echo r >> {log}')
    path = c.values(all='x', **groups)
    process = c.spawn('-watch', '-backend', 'file', '-file', path, '-log-level', 'debug')
    wait_until(lambda: 'rendered=1000 of=1000' in c.log, 'the first round', 300)
    groups['g5']['k0'] = 'changed'
    c.values(all='x', **groups)
    wait_until(lambda: (c.out / 't5').read_text().startswith('changed '), 'the change', 120)
    wait_until(lambda: 'changed_keys=1 rendered=1 of=1000' in c.log, 'one of 1,000', 120)
    for i in range(20):
        groups['g5'][f'n{i}'] = 'more'
        c.values(all='x', **groups)
    wait_until(lambda: (c.out / 't5').read_text().count('more') == 20, 'all changes', 120)
    time.sleep(1)
    print(f'    20 changes at once: {len(lines(log)) - 2} reloads')
    assert 1 <= len(lines(log)) - 2 <= 10, lines(log)
    c.finish(process)
    rounds = [line for line in c.log.splitlines() if 'confd round' in line]
    print('    first:', rounds[0].split('confd round ')[1])


def cpu_seconds(process):
    """Processor time that a process has used."""
    fields = pathlib.Path(f'/proc/{process.pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def latency(dest, put, rounds=20):
    """Milliseconds from a write's end to the new file, the median of some."""
    taken = []
    for i in range(rounds):
        put(f'v{i}')
        start = time.monotonic()
        wait_until(lambda i=i: has(dest, f'v{i}'), f'v{i}', pause=0.001)
        taken.append(1000 * (time.monotonic() - start))
        time.sleep(1.1)
    return f'{statistics.median(taken):.1f} ms (largest {max(taken):.1f})'


def test_etcd(c):
    """etcd with TLS and users; keys by prefix; a server that goes away and comes back."""
    with Etcd(tls=True, users=True) as etcd:
        etcd.add_user('reader', 'pw', {'/app/': 'read'})
        put = lambda key, value: etcd.ctl('put', key, value)
        put('/app/v', 'v')
        put('/app/deep/x', '1')
        put('/other', '2')
        dest = c.resource('a', '{{getv "/v"}}', ['/'], prefix='/app/')
        flags = ['-node', etcd.endpoints(), '-client-ca-keys', str(etcd.pki.ca), '-client-cert',
                 f'{etcd.folder}/root.crt', '-client-key', f'{etcd.folder}/root.key', '-username',
                 'root', '-password', 'root-password', '-basic-auth']
        c.once('-backend', 'etcd', *flags)
        assert has(dest, 'v')
        assert 'error' in c.once('-backend', 'etcdv3', *flags[:-3], '-password', 'wrong', code=1)
        process = c.spawn('-watch', '-backend', 'etcdv3', *flags)
        wait_until(lambda: has(dest, 'v'), 'the file')
        print('    write to file:', latency(dest, lambda v: put('/app/v', v), 5))
        etcd.stop()
        used = cpu_seconds(process)
        time.sleep(3)
        assert cpu_seconds(process) - used < 1, 'hot while the backend is away'
        etcd.start()
        put('/app/v', 'again')
        wait_until(lambda: has(dest, 'again'), 'the change after the restart')
        etcd.ctl('del', '/app/v')
        wait_until(lambda: 'key does not exist: /v' in c.log, 'the deletion')
        assert has(dest, 'again')
        c.finish(process)


RESOURCES = [
    ('Node', 'n1', {'bgp': {'ipv4Address': '10.1.0.1/24', 'ipv6Address': 'fd01::1/64'}}),
    ('Node', 'n2', {'bgp': {'ipv4Address': '10.1.0.2/24', 'asNumber': 64600,
                            'routeReflectorClusterID': '1.0.0.1'}}),
    ('IPPool', 'p4', {'cidr': '10.80.0.0/16', 'ipipMode': 'CrossSubnet', 'natOutgoing': True}),
    ('BlockAffinity', 'n1-b', {'cidr': '10.80.1.0/26', 'node': 'n1', 'state': 'confirmed',
                               'deleted': False}),
    ('BGPConfiguration', 'default', {
        'asNumber': 64512, 'listenPort': 1179, 'logSeverityScreen': 'Debug',
        'serviceClusterIPs': [{'cidr': '10.96.0.0/12'}], 'nodeToNodeMeshEnabled': False,
        'communities': [{'name': 'c', 'value': '64512:7'}],
        'prefixAdvertisements': [{'cidr': '10.80.0.0/16', 'communities': ['c', '1:2:3']}]}),
    ('BGPFilter', 'f1', {'exportV4': [{'action': 'Accept'}]}),
    ('BGPPeer', 'tor', {'peerIP': '10.1.0.200', 'asNumber': 65001, 'filters': ['f1']}),
    ('BGPPeer', 'own', {'node': 'n1', 'peerIP': '10.1.0.201:1180', 'asNumber': 65002}),
]
KEYS = '''/bgp/v1/global/as_num=64512
/bgp/v1/global/listen_port=1179
/bgp/v1/global/loglevel=debug
/bgp/v1/global/node_mesh={"enabled":false}
/bgp/v1/host/n1/ip_addr_v4=10.1.0.1
/bgp/v1/host/n1/ip_addr_v6=fd01::1
/bgp/v1/host/n1/network_v4=10.1.0.0/24
/bgp/v1/host/n1/network_v6=fd01::/64
/bgp/v1/host/n1/rr_cluster_id=
/bgp/v1/host/n2/as_num=64600
/bgp/v1/host/n2/ip_addr_v4=10.1.0.2
/bgp/v1/host/n2/ip_addr_v6=
/bgp/v1/host/n2/network_v4=10.1.0.0/24
/bgp/v1/host/n2/rr_cluster_id=1.0.0.1
/staticroutes/10.96.0.0-12=10.96.0.0/12
/rejectcidrs/10.96.0.0-12=10.96.0.0/12
/ipam/v2/host/n1/ipv4/block/10.80.1.0-26={"state":"confirmed"}
pool 10.80.0.0/16 tunl0 cross-subnet true
communities [64512:7 1:2:3]
/bgp/v1/global/peer_v4/10.1.0.200 65001 [f1] UseNodeIP
/bgp/v1/host/n1/peer_v4/10.1.0.201-1180 65002 1180
filter f1
mesh false
Global_10_1_0_200 Node_10_1_0_201_port_1180
'''
KEY_TEMPLATE = '''{{range gets "/bgp/v1/global/*"}}{{.Key}}={{.Value}}
{{end}}{{range gets "/bgp/v1/host/*/*"}}{{.Key}}={{.Value}}
{{end}}{{range gets "/staticroutes/*"}}{{.Key}}={{.Value}}
{{end}}{{range gets "/rejectcidrs/*"}}{{.Key}}={{.Value}}
{{end}}{{range gets (printf "/ipam/v2/host/%s/ipv4/block/*" (getenv "NODENAME"))}}{{.Key}}={{.Value}}
{{end}}{{range gets "/v1/ipam/v4/pool/*"}}{{$p := json .Value}}pool {{$p.cidr}} {{$p.ipip}} \
{{$p.ipip_mode}} {{$p.masquerade}}
{{end}}{{range jsonArray (getv "/bgp/v1/global/prefix_advertisements/ip_v4")}}communities {{.communities}}
{{end}}{{range gets "/bgp/v1/global/peer_v4/*"}}{{$p := json .Value}}{{.Key}} {{$p.as_num}} \
{{$p.filters}} {{$p.source_addr}}
{{end}}{{range gets "/bgp/v1/host/n1/peer_v4/*"}}{{$p := json .Value}}{{.Key}} {{$p.as_num}} {{$p.port}}
{{end}}{{range ls "/resources/v3/projectcalico.org/bgpfilters"}}filter {{.}}
{{end}}mesh {{(json (getv "/bgp/v1/global/node_mesh")).enabled}}
{{range $i, $p := (getBGPConfig 4 .).Peers}}{{if $i}} {{end}}{{$p.Name}}{{end}}
'''.replace('\\\n', '')


def apply(store, items):
    """Calico's resources, by our command line."""
    HOST.run([MARGAY, '--datastore', store, 'apply', '-f', '-'],
             json.dumps({'apiVersion': 'v1', 'kind': 'List', 'items': items}))


def calico_view(c, store, read_url):
    """The keys and getBGPConfig that follow from RESOURCES in a store."""
    apply(store, [{'apiVersion': 'projectcalico.org/v3', 'kind': kind, 'metadata': {'name': name},
                   'spec': spec} for kind, name, spec in RESOURCES])
    dest = c.resource('a', KEY_TEMPLATE, ['/'], prefix='/calico')
    own = c.resource('b', '{{getv "/ip_addr_v4"}} {{(getBGPConfig 6 .).NodeIPv6}}', ['/'],
                     prefix='/calico/bgp/v1/host//NODENAME')
    c.once('-backend', 'calico', '-datastore', read_url, '-node-name', 'n1')
    assert has(dest, KEYS), dest.read_text()
    assert has(own, '10.1.0.1 fd01::1'), own.read_text()


def test_calico(c):
    """Calico's resources under the keys of its confd, and getBGPConfig, from the embedded store."""
    store = f'sqlite:{c.folder}/margay.db'
    calico_view(c, store, store + '?mode=ro')
    out = c.once('-backend', 'calico', '-datastore', 'sqlite:/nonexistent/x?mode=ro', code=1)
    assert '/nonexistent/x' in out, out


def test_calico_etcd(c):
    """The same from etcd; a change reaches the file."""
    with Etcd() as etcd:
        store = etcd.url()
        calico_view(c, store, store)
        dest = c.resource('a', '{{getv "/bgp/v1/global/as_num"}}', ['/'], prefix='/calico')
        process = c.spawn('-watch', '-backend', 'calico', '-datastore', store, '-node-name', 'n1')
        wait_until(lambda: has(dest, '64512'), 'the file')
        apply(store, [{'apiVersion': 'projectcalico.org/v3', 'kind': 'BGPConfiguration',
                       'metadata': {'name': 'default'}, 'spec': {'asNumber': 64999}}])
        wait_until(lambda: has(dest, '64999'), 'the change')
        c.finish(process)


def test_calico_kubernetes(c):
    """The same from the Kubernetes API."""
    with Etcd() as etcd, KubeApiserver(etcd) as api:
        api.apply_crds()
        api.apply([{'apiVersion': 'v1', 'kind': 'Node', 'metadata': {'name': name}}
                   for name in ('n1', 'n2')])
        calico_view(c, api.url(), api.url())


def redis_cli(port, *argv):
    """Run redis-cli."""
    return HOST.run(['redis-cli', '--no-auth-warning', '-p', str(port), '-a', 'pw', *argv])


def test_redis(c):
    """Strings, hashes, a database, a password, a separator; keyspace notifications."""
    if not shutil.which('redis-server'):
        print('    left out: redis-server is not installed')
        return
    port, = free_ports(1)
    server = Server(HOST, c.folder, 'redis', ['redis-server', '--port', str(port), '--bind',
                                              '127.0.0.1', '--save', '', '--requirepass', 'pw',
                                              '--dir', str(c.folder)])
    server.start()
    try:
        wait_until(lambda: _answers(port), 'redis')
        redis_cli(port, '-n', '2', 'SET', '/app/v', 'v')
        redis_cli(port, '-n', '2', 'HSET', '/app/h', 'f1', 'one', 'f2', 'two')
        redis_cli(port, '-n', '2', 'RPUSH', '/app/list', 'x')
        redis_cli(port, '-n', '2', 'EVAL',
                  "for i=1,1500 do redis.call('SET', '/app/many/'..i, i) end", '0')
        dest = c.resource('a', '{{getv "/app/v"}} {{range gets "/app/h/*"}}{{.Key}}={{.Value}} {{end}}'
                               '{{len (gets "/app/many/*")}}', ['/app'])
        flags = ['-backend', 'redis', '-node', f'127.0.0.1:{port}/2', '-password', 'pw']
        c.once(*flags)
        assert has(dest, 'v /app/h/f1=one /app/h/f2=two 1500'), dest.read_text()
        assert 'WRONGPASS' in c.once(*flags[:-1], 'wrong', code=1)
        redis_cli(port, '-n', '2', 'SET', 'sep:a:b', 'by separator')
        other = c.resource('b', '{{getv "/sep/a/b"}}', ['/sep'])
        os.unlink(c.confdir / 'conf.d' / 'a.toml')
        c.once(*flags, '-separator', ':')
        assert has(other, 'by separator')
        os.unlink(c.confdir / 'conf.d' / 'b.toml')
        dest = c.resource('c', '{{getv "/app/v"}}', ['/app'])
        redis_cli(port, 'CONFIG', 'SET', 'notify-keyspace-events', 'KA')
        process = c.spawn('-watch', *flags)
        wait_until(lambda: has(dest, 'v'), 'the file')
        print('    write to file:',
              latency(dest, lambda v: redis_cli(port, '-n', '2', 'SET', '/app/v', v), 5))
        server.kill()
        wait_until(lambda: 'backend_lost' in c.log, 'the loss')
        server.start()
        wait_until(lambda: _answers(port), 'redis')
        redis_cli(port, '-n', '2', 'SET', '/app/v', 'again')
        redis_cli(port, 'CONFIG', 'SET', 'notify-keyspace-events', 'KA')
        wait_until(lambda: has(dest, 'again'), 'the change after the restart')
        c.finish(process)
    finally:
        server.kill()


def _answers(port):
    with socket.socket() as s:
        return s.connect_ex(('127.0.0.1', port)) == 0


def test_zookeeper(c):
    """Nodes without children; changes, new and deleted nodes; a server that comes back."""
    if not shutil.which('java') or not (JARS / 'zookeeper.jar').exists():
        print('    left out: libzookeeper-java is not installed')
        return
    port, = free_ports(1)
    (c.folder / 'zoo.cfg').write_text(f'tickTime=2000\ndataDir={c.folder}/zk\n'
                                      f'clientPort={port}\nclientPortAddress=127.0.0.1\n'
                                      'admin.enableServer=false\n4lw.commands.whitelist=*\n')
    path = ':'.join(str(JARS / f'{jar}.jar') for jar in ZOOKEEPER if (JARS / f'{jar}.jar').exists())
    server = Server(HOST, c.folder, 'zookeeper',
                    ['java', '-cp', path, 'org.apache.zookeeper.server.ZooKeeperServerMain',
                     str(c.folder / 'zoo.cfg')])

    def cli(*argv):
        """ZooKeeper's own client, which gives up on a busy machine: once more then."""
        for attempt in range(4):
            try:
                return HOST.run(['java', '-cp', path, 'org.apache.zookeeper.ZooKeeperMain',
                                 '-server', f'127.0.0.1:{port}', *argv])
            except CommandFailed as error:
                if attempt and 'NodeExists' in str(error):
                    return ''  # the try before, whose answer was lost
                if attempt == 3 or 'ConnectionLoss' not in str(error):
                    raise
        return ''

    server.start()
    try:
        wait_until(lambda: server.require_alive() or _answers(port), 'zookeeper')
        cli('create', '/app', '')
        cli('create', '/app/v', 'v')
        cli('create', '/app/d', 'not shown')
        cli('create', '/app/d/x', 'leaf')
        dest = c.resource('a', '{{range gets "/app/*"}}{{.Key}}={{.Value}} {{end}}'
                               '{{range gets "/app/d/*"}}{{.Key}}={{.Value}} {{end}}', ['/app'])
        flags = ['-backend', 'zookeeper', '-node', f'127.0.0.1:{port}']
        c.once(*flags)
        assert has(dest, '/app/v=v /app/d/x=leaf '), dest.read_text()
        process = c.spawn('-watch', *flags)
        wait_until(lambda: dest.exists(), 'the file')
        cli('set', '/app/v', 'new')
        wait_until(lambda: has(dest, '/app/v=new /app/d/x=leaf '), 'a change')
        cli('create', '/app/d/y', 'more')
        wait_until(lambda: has(dest, '/app/v=new /app/d/x=leaf /app/d/y=more '), 'a new node')
        server.kill()
        time.sleep(1)
        server.start()
        wait_until(lambda: _answers(port), 'zookeeper')
        cli('delete', '/app/d/x')
        wait_until(lambda: has(dest, '/app/v=new /app/d/y=more '), 'a deletion after the restart')
        c.finish(process)
    finally:
        server.kill()


def main():
    """All of them, or those named."""
    tests = {name[5:]: test for name, test in globals().items() if name.startswith('test_')}
    for name in sys.argv[1:] or tests:
        start = time.monotonic()
        with Confd() as c:
            try:
                tests[name](c)
            except BaseException:
                if (c.folder / 'log').exists():
                    print(c.log[-3000:], file=sys.stderr)
                raise
        print(f'{name}: {time.monotonic() - start:.1f} s', flush=True)


if __name__ == '__main__':
    main()
