#!/usr/bin/env python3
"""What `margay confd` does at its edges: owners, a dest that is a mount, names and servers from DNS,
floods of changes, backends that are away, commands and templates that would never end.

Runs in network and mount namespaces of its own, with a DNS server that answers from a table.
"""

import json
import os
import pathlib
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time

from cluster import Etcd, free_ports, wait_until
from test_confd import Confd, cpu_seconds, has, lines

NOBODY, NOGROUP = 65534, 65534


# ---- a DNS server ----

A, AAAA, SRV = 1, 28, 33


def encoded(name):
    """A name as labels."""
    parts = [part.encode() for part in name.rstrip('.').split('.') if part]
    return b''.join(bytes([len(part)]) + part for part in parts) + b'\0'


class Dns:
    """Answers from `table`: (name, type) to a list of data, or to the bytes of a whole answer."""

    def __init__(self, folder):
        self.table, self.asked = {}, []
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(('127.0.0.1', 53))
        resolv = folder / 'resolv.conf'
        resolv.write_text('nameserver 127.0.0.1\noptions timeout:2 attempts:2\n')
        subprocess.run(['mount', '--bind', str(resolv), '/etc/resolv.conf'], check=True)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        """One datagram, one answer."""
        while True:
            query, peer = self.sock.recvfrom(4096)
            name, at = [], 12
            while query[at]:
                name.append(query[at + 1:at + 1 + query[at]].decode())
                at += 1 + query[at]
            kind, = struct.unpack_from('!H', query, at + 1)
            key = ('.'.join(name).lower(), kind)
            self.asked.append(key)
            question = query[12:at + 5]
            found = self.table.get(key)
            if isinstance(found, bytes):
                self.sock.sendto(query[:2] + found, peer)
                continue
            is_known = found or any(known == key[0] for known, _ in self.table)
            answers = b''.join(b'\xc0\x0c' + struct.pack('!HHIH', kind, 1, 60, len(data)) + data
                               for data in found or [])
            head = struct.pack('!HHHHH', 0x8580 if is_known else 0x8583, 1, len(found or []), 0, 0)
            self.sock.sendto(query[:2] + head + question + answers, peer)

    def address(self, name, *texts):
        """A and AAAA records."""
        for text in texts:
            family = socket.AF_INET6 if ':' in text else socket.AF_INET
            key = (name, AAAA if ':' in text else A)
            self.table.setdefault(key, []).append(socket.inet_pton(family, text))

    def service(self, name, *records):
        """SRV records: priority, weight, port, target."""
        self.table[name, SRV] = [struct.pack('!HHH', *numbers) + encoded(target)
                                 for *numbers, target in records]


def test_names(c):
    """lookupIP, lookupIPV4, lookupIPV6, lookupSRV: sorted answers, none for what there is not."""
    dns = Dns(c.folder)
    dns.address('two.test', '192.0.2.9', '192.0.2.10', '2001:db8::1')
    dns.service('_http._tcp.svc.test', (10, 5, 8080, 'b.svc.test'), (5, 1, 443, 'a.svc.test'))
    dns.service('plain.test', (1, 2, 3, 't.test'))
    dest = c.resource('a', '''{{join (lookupIP "two.test") " "}}
{{join (lookupIPV4 "two.test") " "}}
{{join (lookupIPV6 "two.test") " "}}
{{len (lookupIP "none.test")}} {{len (lookupIP "")}} {{join (lookupIP "192.0.2.1") " "}}
{{range lookupSRV "http" "tcp" "svc.test"}}{{.Target}} {{.Port}} {{.Priority}} {{.Weight}};{{end}}
{{range lookupSRV "" "" "plain.test"}}{{.Target}}:{{.Port}}{{end}} {{len (lookupSRV "x" "tcp" "none.test")}}
''')
    flags = ['-backend', 'file', '-file', c.values(v=1)]
    c.once(*flags)
    assert has(dest, '''192.0.2.10 192.0.2.9 2001:db8::1
192.0.2.10 192.0.2.9
2001:db8::1
0 0 192.0.2.1
a.svc.test. 443 5 1;b.svc.test. 8080 10 5;
t.test.:3 0
'''), dest.read_text()
    # Answers made to harm: cut short, names that point at themselves, lengths beyond the end.
    question = encoded('evil.test') + struct.pack('!HH', SRV, 1)
    head = struct.pack('!HHHHH', 0x8580, 1, 1, 0, 0)
    record = b'\xc0\x0c' + struct.pack('!HHIH', SRV, 1, 60, 8) + b'\0\1\0\1\0\1'
    loop = 12 + len(question) + 12 + 6
    for bad in (head, head[:4], head + question, head + question + record[:7],
                head + question + record + b'\xc0' + bytes([loop]),
                head + question + b'\xc0\x0c' + struct.pack('!HHIH', SRV, 1, 60, 65535) + b'x',
                head + question + b'\xc0\x0c' + struct.pack('!HHIH', SRV, 1, 60, 3) + b'xyz',
                struct.pack('!HHHHH', 0x8580, 1, 65535, 65535, 65535) + question):
        dns.table['evil.test', SRV] = bad
        evil = c.resource('a', '{{len (lookupSRV "" "" "evil.test")}}')
        c.once(*flags)
        assert has(evil, '0'), (bad, evil.read_text())
    with Etcd() as etcd:
        etcd.ctl('put', '/v', 'by DNS')
        port = etcd.client_ports[0]
        dns.address('kv.test', '127.0.0.1')
        dns.service('_etcd._tcp.site.test', (0, 0, port, 'kv.test'))
        dns.service('own.test', (0, 0, 1, 'kv.test'), (1, 0, port, 'kv.test'))
        dest = c.resource('a', '{{getv "/v"}}')
        for how in (['-srv-domain', 'site.test'], ['-srv-record', '_etcd._tcp.site.test'],
                    ['-srv-record', 'own.test'], ['-srv-domain', 'site.test', '-node', '127.0.0.1:1']):
            dest.unlink(missing_ok=True)
            c.once('-backend', 'etcd', *how)
            assert has(dest, 'by DNS'), how
        assert ('_etcd._tcp.site.test', SRV) in dns.asked
        for name in ('none.test', 'kv.test'):
            out = c.once('-backend', 'etcd', '-srv-record', name, code=1)
            assert f'no SRV records of {name}' in out, out


# ---- files ----

def owner_of(path):
    """Owner, group, permissions."""
    st = path.stat()
    return st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)


def test_owners(c):
    """owner, group, uid, gid; who is not there; a dest whose owner differs is no longer in sync."""
    flags = ['-backend', 'file', '-file', c.values(v=1)]
    log = c.folder / 'reloads'
    for fields, wanted in (({'owner': 'nobody', 'group': 'nogroup'}, (NOBODY, NOGROUP, 0o644)),
                           ({'uid': 1234, 'gid': 4321, 'mode': '0400'}, (1234, 4321, 0o400)),
                           ({'uid': 1234, 'owner': 'nobody'}, (1234, 0, 0o644)),
                           ({'uid': -1, 'group': 'nogroup', 'mode': '0o600'}, (0, NOGROUP, 0o600)),
                           ({'mode': '420'}, (0, 0, 0o644)), ({'mode': '04755'}, (0, 0, 0o4755))):
        dest = c.resource('a', 'x', reload_cmd=f'echo r >> {log}', **fields)
        dest.unlink(missing_ok=True)
        log.unlink(missing_ok=True)
        check = f'test "$(stat -c %u:%g {{{{.src}}}})" = {wanted[0]}:{wanted[1]}'
        c.resource('a', 'x', reload_cmd=f'echo r >> {log}', check_cmd=check, **fields)
        c.once(*flags)
        assert owner_of(dest) == wanted, (fields, owner_of(dest))
        os.chown(dest, 7, 7)
        c.once(*flags)
        c.once(*flags)
        assert owner_of(dest) == wanted and lines(log) == ['r', 'r'], (fields, lines(log))
    for fields, says in (({'owner': 'no-such-user'}, 'owner: there is no user "no-such-user"'),
                         ({'group': 'no-such-group'}, 'group: there is no group "no-such-group"'),
                         ({'uid': -2}, 'uid: found -2, allowed are -1'),
                         ({'gid': 4294967295}, 'gid: found 4294967295'),
                         ({'mode': 644}, 'mode: found integer, need a string'),
                         ({'mode': '0689'}, 'mode: found "0689"'),
                         ({'mode': '010000'}, 'mode: found "010000"')):
        c.resource('a', 'y', **fields)
        out = c.once(*flags, code=1)
        assert says in out, (fields, out)


def test_mounts(c):
    """A dest that is a mount of its own is written in place; one whose folder can't take a file fails."""
    flags = ['-backend', 'file', '-file']
    log, behind = c.folder / 'reloads', c.folder / 'behind'
    dest = c.resource('a', '{{getv "/v"}}', mode='0600', reload_cmd=f'cp {{{{.dest}}}} {log}')
    behind.write_text('old, and longer than the new')
    dest.write_text('')
    subprocess.run(['mount', '--bind', str(behind), str(dest)], check=True)
    c.once(*flags, c.values(v='new'))
    assert has(behind, 'new') and has(dest, 'new') and has(log, 'new')
    assert stat.S_IMODE(behind.stat().st_mode) == 0o600
    assert [p.name for p in c.out.iterdir()] == ['a'], 'the staged file is left'
    log.unlink()
    c.once(*flags, c.values(v='new'))
    assert not log.exists(), 'reloaded without a change'
    subprocess.run(['umount', str(dest)], check=True)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'ro', 'none', str(c.out)], check=True)
    assert 'Read-only file system' in c.once(*flags, c.values(v=1), code=1)
    subprocess.run(['umount', str(c.out)], check=True)
    c.resource('a', 'x')
    (c.confdir / 'conf.d' / 'b.toml').write_text(f'[template]\nsrc = "a.tmpl"\ndest = "{c.out}/no/x"\n')
    assert "a staged file can't be made: No such file" in c.once(*flags, c.values(v=1), code=1)


# ---- changes ----

def test_flood(c):
    """Many changes at once are one reload; changes without a pause are not waited out for ever."""
    log = c.folder / 'reloads'
    dest = c.resource('a', '{{range getvs "/k/*"}}{{.}} {{end}}', ['/k'], reload_cmd=f'echo r >> {log}')
    with Etcd() as etcd:
        put = lambda value, n=100: etcd.ctl('txn', stdin='\n' + ''.join(
            f'put /k/{i:03} {value}\n' for i in range(n)) + '\n\n')
        put('a')
        process = c.spawn('-watch', '-backend', 'etcd', '-node', etcd.endpoints())
        wait_until(lambda: has(dest, 'a ' * 100), 'the file')
        for value in 'bc':
            time.sleep(1.2)
            log.unlink()
            put(value)
            wait_until(lambda value=value: has(dest, f'{value} ' * 100), 'all of them')
            time.sleep(1)
            assert lines(log) == ['r'], lines(log)
        c.finish(process)
    path = c.values(k={'x': 0})
    process = c.spawn('-watch', '-backend', 'file', '-file', path)
    wait_until(lambda: has(dest, '0 '), 'the file of values')
    time.sleep(1.2)
    log.unlink()
    # A file in the same folder, written without a pause: told, and nothing that concerns us.
    floods = [subprocess.Popen(['sh', '-c', f'while :; do echo > {c.folder}/other{i}; done'])
              for i in range(3)]
    c.processes += floods
    time.sleep(2.2)
    start = time.monotonic()
    c.values(k={'x': 1})
    wait_until(lambda: has(dest, '1 '), 'a change in a flood', 20)
    print(f'    seen after {time.monotonic() - start:.2f} s of a flood')
    for flood in floods:
        flood.kill()
    c.finish(process)


def test_away(c):
    """No backend that is away makes the watcher loop, or end; each says what it can't reach."""
    c.resource('a', '{{getv "/v"}}')
    kubeconfig = c.folder / 'kubeconfig'
    kubeconfig.write_text(json.dumps({
        'apiVersion': 'v1', 'kind': 'Config', 'current-context': 'c',
        'clusters': [{'name': 'c', 'cluster': {'server': 'https://127.0.0.1:1'}}],
        'users': [{'name': 'u', 'user': {'token': 't'}}],
        'contexts': [{'name': 'c', 'context': {'cluster': 'c', 'user': 'u'}}]}))
    port, = free_ports(1)
    ways = {'etcd': ['etcd', '-node', f'127.0.0.1:{port}'],
            'redis': ['redis', '-node', f'127.0.0.1:{port}'],
            'zookeeper': ['zookeeper', '-node', f'127.0.0.1:{port}'],
            'file': ['file', '-file', str(c.folder / 'none' / 'values.yaml')],
            'calico by an agent': ['calico', '-datastore', f'agent:{c.folder}/none.sock'],
            'calico by etcd': ['calico', '-datastore', f'etcd:http://127.0.0.1:{port}'],
            'calico by Kubernetes': ['calico', '-datastore', f'kubernetes:{kubeconfig}']}
    logs, running = {}, {}
    for way, words in ways.items():
        logs[way] = c.folder / f'log {way}'
        with open(logs[way], 'wb') as log:
            running[way] = subprocess.Popen(c.argv('-watch', '-backend', *words), stdout=log, stderr=log)
        c.processes.append(running[way])
    time.sleep(4)
    before = {way: cpu_seconds(process) for way, process in running.items()}
    time.sleep(5)
    for way, process in running.items():
        used = cpu_seconds(process) - before[way]
        print(f'    {way}: {1000 * used / 5:.0f} ms of CPU a second')
        assert used < 0.5, (way, used)
    for way, process in running.items():
        wait_until(lambda way=way: 'backend_lost' in logs[way].read_text(), f'{way} says so')
        process.terminate()
        assert process.wait(60) == 0, (way, logs[way].read_text())
        text = logs[way].read_text()
        assert text.count('backend_lost') == 1 and 'Sanitizer' not in text, (way, text)


# ---- bounds ----

def peak_mib(argv):
    """Exit code, output and the largest resident size of a command, sanitizers' own included."""
    read, write = os.pipe()
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=[
        (os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_DUP2, write, 2)])
    os.close(write)
    with open(read, 'rb') as pipe:
        text = pipe.read().decode(errors='replace')
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), text, usage.ru_maxrss / 1024


def test_bounds(c):
    """Commands and templates that never end, or never stop printing, are ended; memory stays."""
    path = c.values(v=1)
    flags = ['-onetime', '-backend', 'file', '-file', path]
    dest = c.resource('a', 'x')
    _, _, idle = peak_mib(c.argv(*flags))
    c.resource('a', 'y', check_cmd='yes 0123456789')
    start = time.monotonic()
    code, text, peak = peak_mib(c.argv(*flags, '-cmd-timeout', '2'))
    assert code == 1 and 'took longer than 2 s and was killed: ' in text and has(dest, 'x'), text
    assert len(text) < 4000 and time.monotonic() - start < 60
    print(f'    endless output: {peak - idle:.1f} MiB more')
    assert peak - idle < 16, (idle, peak)
    # What a check leaves behind in its process group is not waited for.
    c.resource('a', 'z', check_cmd=f'sleep 300 & echo $! > {c.folder}/pid; exit 0')
    start = time.monotonic()
    c.once('-backend', 'file', '-file', path)
    os.kill(int((c.folder / 'pid').read_text()), signal.SIGKILL)
    assert has(dest, 'z') and time.monotonic() - start < 60
    for template, says in (('{{range 1000000000}}0123456789{{end}}', 'the output is longer than'),
                           ('{{$x := "0123456789"}}{{range 100}}{{$x = print $x $x}}{{end}}',
                            'the text is longer than the limit of'),
                           ('{{range seq 1 9000000000000}}x{{end}}', 'seq')):
        c.resource('a', template)
        code, text, peak = peak_mib(c.argv(*flags))
        print(f'    {template[:30]}: {peak - idle:.0f} MiB more')
        assert code == 1 and says in text and has(dest, 'z'), (template, text)
    # SIGTERM ends a command in the midst of it.
    c.resource('a', 'w', check_cmd='sleep 300')
    process = c.spawn('-watch', '-backend', 'file', '-file', path, '-log-level', 'debug')
    wait_until(lambda: 'what=check_cmd' in c.log, 'the command')
    c.finish(process)


def main():
    """All of them, or those named, away from the machine's own names and mounts."""
    if 'MG_APART' not in os.environ:
        os.environ['MG_APART'] = '1'
        os.execvp('unshare', ['unshare', '--net', '--mount', '--propagation', 'private', sys.executable,
                              str(pathlib.Path(__file__).resolve()), *sys.argv[1:]])
    subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
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
