#!/usr/bin/python3
"""What comes from outside is hostile: files, environment, sockets, the state dir. Each thing gets a
clear error; the agent goes on, and neither its memory nor its descriptors grow.
"""

import json
import os
import pathlib
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent  # noqa: E402
from lab import Lab  # noqa: E402

NOBODY = 65534
NAMESPACE = {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'fine'}}
NETPOL = {'apiVersion': 'networking.k8s.io/v1', 'kind': 'NetworkPolicy',
          'metadata': {'name': 'p', 'namespace': 'fine'}}
GNP = {'apiVersion': 'projectcalico.org/v3', 'kind': 'GlobalNetworkPolicy',
       'metadata': {'name': 'g'}}
V3 = 'projectcalico.org/v3'


class BadInput(unittest.TestCase):
    """One agent for all tests: it must survive each of them."""

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab().__enter__()
        cls.lab.netns('node')
        cls.lab.netns('pod')
        cls.lab.netns('other')
        cls.agent = Agent(cls.lab, 'node')
        cls.agent.start()
        cls.socket = f'{cls.agent.state}/agent.sock'
        cls.pid = json.loads(cls.agent.call('status', '-o', 'json'))['pid']
        cls.folder = tempfile.mkdtemp(prefix='margay-bad-')

    @classmethod
    def tearDownClass(cls):
        try:
            cls.agent.stop()
        finally:
            cls.lab.__exit__()
            shutil.rmtree(cls.agent.state)
            shutil.rmtree(cls.folder)

    def setUp(self):
        self.fds = len(os.listdir(f'/proc/{self.pid}/fd'))

    def tearDown(self):
        status = json.loads(self.agent.call('status', '-o', 'json'))
        self.assertEqual(status['pid'], self.pid, 'the agent was started anew')
        end = time.monotonic() + 15
        while len(os.listdir(f'/proc/{self.pid}/fd')) > self.fds + 1:
            self.assertLess(time.monotonic(), end, 'descriptors are left open')
            time.sleep(0.1)

    # ---- files ----

    def apply(self, data, code=1, limit=30):
        """What `margay apply` says of a file's bytes."""
        path = pathlib.Path(self.folder, 'file')
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        start = time.monotonic()
        done = subprocess.run([self.agent.margay, '--state-dir', self.agent.state, 'apply', '-f',
                               str(path)], capture_output=True, timeout=120, check=False)
        self.assertLess(time.monotonic() - start, limit, 'too slow')
        self.assertEqual(done.returncode, code, (done.stdout + done.stderr)[-500:])
        self.assertLess(len(done.stderr), 20000)
        return done.stderr.decode(errors='replace')

    def test_files_that_explode(self):
        bomb = 'a0: &a0 [x,x,x,x,x,x,x,x,x]\n' + ''.join(
            f'a{i}: &a{i} [{",".join([f"*a{i - 1}"] * 9)}]\n' for i in range(1, 12))
        for name, data, said in (
                ('aliases', bomb, 'alias'),
                ('aliases of maps', 'a: &a {b: 1}\nc: {<<: *a}\n', 'kind'),
                ('depth in YAML', '[' * 100000, 'nest'),
                ('depth in JSON', '{"a":' * 100000, 'nest'),
                ('depth by indentation', ''.join(' ' * i + 'a:\n' for i in range(3000)), 'nest'),
                ('a scalar of 100 MB', b'a: "' + b'x' * 100_000_000 + b'"\n', 'MiB'),
                ('a file of zeros', b'\0' * 1000, ''),
                ('NUL in text', b'apiVersion: v1\nkind: "Name\0space"\n', ''),
                ('bad UTF-8', b'apiVersion: v1\nkind: "\xff\xfe"\n', 'UTF-8'),
                ('overlong UTF-8', b'{"apiVersion": "v1\xc0\x80"}', 'UTF-8'),
                ('a surrogate', b'{"kind": "\\ud800"}', ''),
                ('duplicate keys in YAML', 'kind: Namespace\nkind: Pod\n', 'kind'),
                ('duplicate keys in JSON', '{"kind": "Pod", "kind": "Pod"}', 'kind'),
                ('an unfinished string', '{"kind": "Po', ''),
                ('a number too large', '{"apiVersion": 1e999}', ''),
                ('nothing', '', ''),
                ('a list', '[1, 2]', ''),
                ('text', 'hello', '')):
            with self.subTest(name):
                text = self.apply(data)
                self.assertIn(said.lower(), text.lower())
                self.assertTrue(text)

    def test_fields_are_named(self):
        def rule(**fields):
            return {**GNP, 'spec': {'ingress': [{'action': 'Allow', **fields}]}}

        def pool(**spec):
            return {'apiVersion': V3, 'kind': 'IPPool', 'metadata': {'name': 'p'},
                    'spec': {'cidr': '10.1.0.0/16', **spec}}
        for document, path, found in (
                ({**GNP, 'spec': {'selector': 'a =='}}, 'spec.selector', 'a =='),
                ({**GNP, 'spec': {'order': 'high'}}, 'spec.order', 'high'),
                ({**GNP, 'spec': {'types': ['In']}}, 'spec.types[0]', 'In'),
                (rule(action='Permit'), 'spec.ingress[0].action', 'Permit'),
                (rule(protocol='TPC'), 'spec.ingress[0].protocol', 'TPC'),
                (rule(protocol=300), 'spec.ingress[0].protocol', '300'),
                (rule(destination={'ports': [80]}), 'spec.ingress[0]', ''),
                (rule(protocol='TCP', destination={'ports': ['9:1']}),
                 'spec.ingress[0].destination.ports[0]', '9:1'),
                (rule(source={'nets': ['10.0.0.0/33']}), 'spec.ingress[0].source.nets[0]',
                 '10.0.0.0/33'),
                (rule(source={'nets': ['10.0.0.1/8', 7]}), 'spec.ingress[0].source.nets[1]', '7'),
                (rule(source={'selectr': 'all()'}), 'spec.ingress[0].source', 'selectr'),
                (rule(ipVersion=5), 'spec.ingress[0].ipVersion', '5'),
                (rule(icmp={'type': 256}), 'spec.ingress[0].icmp.type', '256'),
                ({**NETPOL, 'spec': {'podSelector': 5}}, 'spec.podSelector', '5'),
                ({**NETPOL, 'spec': {'podSelector': {}, 'ingress': [{'from': [
                    {'ipBlock': {'cidr': '10.0.0.0/8', 'except': ['11.0.0.0/8']}}]}]}},
                 'spec.ingress[0].from[0].ipBlock', '11.0.0.0/8'),
                ({**NETPOL, 'spec': {'podSelector': {}, 'policyTypes': ['Out']}},
                 'spec.policyTypes[0]', 'Out'),
                (pool(blockSize=33), 'spec.blockSize', '33'),
                (pool(cidr='10.1.0.0'), 'spec.cidr', '10.1.0.0'),
                (pool(natOutgoing='yes'), 'spec.natOutgoing', 'yes'),
                ({'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'No_Good'}},
                 'metadata.name', 'No_Good'),
                ({'apiVersion': 'v1', 'kind': 'Namespace',
                  'metadata': {'name': 'n', 'labels': {'a b': 'c'}}}, 'metadata.labels', 'a b'),
                ({'apiVersion': V3, 'kind': 'Nonsense', 'metadata': {'name': 'n'}}, 'kind',
                 'Nonsense')):
            with self.subTest(path, found=found):
                text = self.apply(json.dumps(document))
                self.assertIn(path, text)
                self.assertIn(found, text)

    def test_one_bad_document_spoils_only_itself(self):
        text = self.apply('---\n'.join(json.dumps(d) + '\n' for d in (
            {'apiVersion': 'v1', 'kind': 'Nonsense'}, NAMESPACE, {**GNP, 'spec': {'selector': '('}})))
        self.assertIn('Nonsense', text)
        self.assertIn('fine', self.agent.call('get', 'ns'))

    # ---- the plugin ----

    def plugin(self, stdin=None, code=None, limit=15, **env):
        """The plugin's exit code and answer."""
        conf = {'cniVersion': '1.1.0', 'name': 'net', 'type': 'margay-cni', 'socket': self.socket,
                'state_dir': self.agent.state, 'ipam': {'type': 'margay-ipam'}}
        whole = {'CNI_COMMAND': 'ADD', 'CNI_CONTAINERID': 'c1', 'CNI_IFNAME': 'eth0',
                 'CNI_NETNS': self.lab.path('pod'), 'CNI_PATH': '/nowhere', **env}
        data = json.dumps(conf if stdin is None else stdin) if not isinstance(stdin, bytes) else stdin
        start = time.monotonic()
        done = subprocess.run([os.path.join(self.agent.cni_bin, 'margay-cni')], env=whole,
                              input=data if isinstance(data, bytes) else data.encode(),
                              capture_output=True, timeout=60, check=False)
        self.assertLess(time.monotonic() - start, limit, 'too slow')
        self.assertNotEqual(done.returncode, 0, (env, done.stdout[:300]))
        answer = json.loads(done.stdout)
        self.assertTrue(answer['msg'])
        if code is not None:
            self.assertEqual(answer['code'], code, answer)
        return answer

    def test_environment(self):
        fifo, loop = f'{self.folder}/fifo', f'{self.folder}/loop'
        os.mkfifo(fifo)
        os.symlink(loop, loop)
        for code, env in (
                (4, {'CNI_CONTAINERID': ''}), (4, {'CNI_CONTAINERID': '../../etc'}),
                (4, {'CNI_CONTAINERID': 'a b'}), (4, {'CNI_CONTAINERID': 'c' * 5000}),
                (4, {'CNI_IFNAME': ''}), (4, {'CNI_IFNAME': 'a/b'}), (4, {'CNI_IFNAME': '..'}),
                (4, {'CNI_IFNAME': 'e' * 16}), (4, {'CNI_IFNAME': 'eth0\n'}),
                (4, {'CNI_IFNAME': 'eth 0'}), (4, {'CNI_COMMAND': 'RUN'}), (4, {'CNI_COMMAND': ''}),
                (None, {'CNI_NETNS': ''}), (None, {'CNI_NETNS': '/nowhere'}),
                (None, {'CNI_NETNS': fifo}), (None, {'CNI_NETNS': loop}),
                (None, {'CNI_NETNS': '/dev/zero'}), (None, {'CNI_NETNS': '/etc/passwd'}),
                (None, {'CNI_NETNS': '/etc'}), (None, {'CNI_NETNS': 'x' * 5000}),
                (None, {'CNI_NETNS': '/proc/self/ns/mnt'}),
                (None, {'CNI_NETNS': self.lab.path('node')}),  # the agent's own
                (4, {'CNI_ARGS': 'K8S_POD_NAMESPACE'}), (4, {'CNI_ARGS': 'IP=1.2.3'}),
                (4, {'CNI_ARGS': 'a=b;' * 30000}),
                (None, {'CNI_ARGS': 'K8S_POD_NAMESPACE=../x;K8S_POD_NAME=y'}),
                (None, {'CNI_ARGS': 'K8S_POD_NAMESPACE=x;K8S_POD_NAME=' + 'y' * 300})):
            with self.subTest(env=str(env)[:80]):
                self.plugin(code=code, **env)

    def test_configuration(self):
        good = {'cniVersion': '1.1.0', 'name': 'net', 'type': 'margay-cni',
                'socket': self.socket, 'state_dir': self.agent.state,
                'ipam': {'type': 'margay-ipam'}}
        for code, stdin in (
                (6, b''), (6, b'{'), (6, b'[' * 100000), (6, b'null'), (6, b'\0\0\0'),
                (None, b' ' * 10_000_000 + b'{}'), (None, b'{"a": "' + b'x' * 10_000_000 + b'"}'),
                (1, {**good, 'cniVersion': '9.9.9'}), (None, {**good, 'cniVersion': 1}),
                (None, {**good, 'name': '../x'}), (None, {**good, 'name': 5}),
                (None, {**good, 'ipam': 5}), (None, {**good, 'ipam': {'type': '../../bin/sh'}}),
                (None, {**good, 'ipam': {'type': 'nowhere'}}),
                (None, {**good, 'socket': 'x' * 4000}), (None, {**good, 'mtu': -1}),
                (None, {**good, 'ipam': {'type': 'margay-ipam', 'ipv4_pools': ['10.0.0.0/99']}}),
                (None, {**good, 'ipam': {'type': 'margay-ipam', 'ipv4_pools': [5]}})):
            with self.subTest(stdin=str(stdin)[:80]):
                self.plugin(stdin=stdin, code=code)

    def test_a_forged_previous_result(self):
        links = self.lab.run('node', ['ip', '-o', 'link'])
        for interfaces in ([{'name': 'lo', 'sandbox': ''}], [{'name': '../x'}], 5,
                           [{'name': 'eth0', 'sandbox': '/proc/1/ns/net'}] * 5000):
            previous = {'cniVersion': '1.1.0', 'interfaces': interfaces,
                        'ips': [{'address': '127.0.0.1/8', 'interface': 0}]}
            stdin = {'cniVersion': '1.1.0', 'name': 'net', 'type': 'margay-cni',
                     'socket': self.socket, 'state_dir': self.agent.state,
                     'ipam': {'type': 'margay-ipam'}, 'prevResult': previous}
            self.plugin(stdin=stdin, CNI_COMMAND='CHECK')
            subprocess.run([os.path.join(self.agent.cni_bin, 'margay-cni')],
                           env={'CNI_COMMAND': 'DEL', 'CNI_CONTAINERID': 'forged',
                                'CNI_IFNAME': 'lo', 'CNI_NETNS': '', 'CNI_PATH': '/nowhere'},
                           input=json.dumps(stdin).encode(), capture_output=True, timeout=30,
                           check=False)
        self.assertEqual(links, self.lab.run('node', ['ip', '-o', 'link']))

    # ---- sockets ----

    def rss(self):
        text = pathlib.Path(f'/proc/{self.pid}/status').read_text(encoding='utf-8')
        return int(next(line for line in text.splitlines() if line.startswith('VmRSS')).split()[1])

    def dial(self):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(20)
        s.connect(self.socket)
        return s

    def test_other_users_are_refused(self):
        done = subprocess.run(['setpriv', '--reuid', str(NOBODY), '--clear-groups',
                               self.agent.margay, '--state-dir', self.agent.state, 'get', 'ns'],
                              capture_output=True, text=True, timeout=30, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertNotIn('fine', done.stdout)
        self.assertRegex(done.stderr.lower(), 'permission|root')
        os.chmod(self.agent.state, 0o755)  # even if the folder lets them in
        os.chmod(self.socket, 0o777)
        try:
            pid = os.fork()
            if pid == 0:
                os.setuid(NOBODY)
                try:
                    s = self.dial()
                    s.sendall(frame(b'{"op":"list","space":"r","key":""}'))
                    os._exit(1 if s.recv(1) else 0)
                except OSError:
                    os._exit(0)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        finally:
            os.chmod(self.agent.state, 0o700)
            os.chmod(self.socket, 0o600)

    def test_hostile_frames(self):
        random.seed(4)
        before = self.rss()
        bodies = [b'', b'{', b'[]', b'5', b'{"op":5}', b'{"op":"get"}', b'{"op":"nonsense"}',
                  b'{"op":"get","space":"../x","key":"' + b'k' * 100000 + b'"}',
                  b'{"op":"put","space":"resources","key":"Namespace//x","value":5}',
                  b'{"op":"put","space":"resources","key":"Namespace//x","value":"{"}',
                  b'{"op":"watch","space":"resources","key":"","from":-1}',
                  b'{"op":"wait","timeoutMs":-5}', b'[' * 100000, b'\xff' * 1000,
                  b'{"op":"list","space":"resources","key":"\\u0000"}']
        streams = [frame(body) for body in bodies]
        streams += [b'MGA1' + struct.pack('>I', n) + b'{' for n in (1, 2**31, 2**32 - 1, 41 << 20)]
        streams += [b'MGA1', b'MGA', b'XXXX' * 100, b'GET / HTTP/1.1\r\n\r\n']
        streams += [b'MGC1' + struct.pack('>II', kind, n) + os.urandom(min(n, 300))
                    for kind in (0, 1, 2, 3, 99) for n in (0, 4, 300, 2**32 - 1)]
        streams += [random.choice((b'MGA1', b'MGC1')) + os.urandom(random.randrange(200))
                    for _ in range(300)]
        for data in streams:
            s = self.dial()
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                s.settimeout(0.05)
                while s.recv(65536):
                    pass
            except OSError:
                pass
            s.close()
        self.assertLess(self.rss() - before, 65536, 'KiB more')

    def test_a_document_of_another_kind_does_not_undo_a_policy(self):
        """Whatever comes to stand at a policy's key: what was known of it holds on, and is told."""
        policy = {**GNP, 'spec': {'selector': 'all()', 'types': ['Ingress']}}
        self.agent.apply([policy])
        known = json.loads(self.agent.call('status', '-o', 'json'))['policies']
        for value in ({'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'g'}},
                      {'apiVersion': 'x/v1', 'kind': 'Nonsense'}, {}, []):
            self.put('GlobalNetworkPolicy.projectcalico.org//g', value)
            done = subprocess.run(self.lab.command('node', [
                self.agent.margay, '--state-dir', self.agent.state, 'status', '--wait', '-o',
                'json']), capture_output=True, text=True, timeout=60, check=False)
            status = json.loads(done.stdout)
            self.assertEqual(status['policies'], known, value)
            self.assertIn('GlobalNetworkPolicy/g', [p['object'] for p in status['problems']], value)
        self.agent.apply([policy])
        self.assertEqual(json.loads(self.agent.call('status', '-o', 'json'))['problems'], [])
        self.agent.delete([policy])

    def put(self, key, value):
        """Past the checks of `apply`, as another program may write to a datastore."""
        with self.dial() as s:
            s.sendall(frame(json.dumps({'op': 'put', 'space': 'r', 'value': json.dumps(value),
                                        'key': key}).encode()))
            self.assertIn(b'"code"', s.recv(65536))

    def test_a_malformed_policy_is_named_with_its_field(self):
        for field, spec in (('spec.order', {'order': 'first'}), ('spec.types[0]', {'types': ['In']}),
                            ('selector', {'selector': 'a ='}),
                            ('spec.ingress[0].action', {'ingress': [{'action': 'Let'}]})):
            self.put('GlobalNetworkPolicy.projectcalico.org//g',
                     {**GNP, 'spec': {'selector': 'all()', 'types': ['Ingress'], **spec}})
            done = subprocess.run(self.lab.command('node', [
                self.agent.margay, '--state-dir', self.agent.state, 'status', '--wait', '-o',
                'json']), capture_output=True, text=True, timeout=60, check=False)
            found = [p for p in json.loads(done.stdout)['problems']
                     if p['object'] == 'GlobalNetworkPolicy/g']
            self.assertEqual(len(found), 1, f'{field}: {done.stdout}')
            self.assertIn(field, found[0]['reason'])
        self.agent.apply([{**GNP, 'spec': {'selector': 'all()', 'types': ['Ingress']}}])
        self.assertEqual(json.loads(self.agent.call('status', '-o', 'json'))['problems'], [])
        self.agent.delete([GNP])

    def test_descriptors_that_nobody_asked_for(self):
        for data in (frame(b'{"op":"revision"}'), b'MGC1' + struct.pack('>II', 1, 4) + b'\0' * 4):
            for _ in range(20):
                s = self.dial()
                with open('/dev/null', 'rb') as null:
                    socket.send_fds(s, [data], [null.fileno()] * 100)
                s.close()

    def test_idle_connections(self):
        crowd = [self.dial() for _ in range(250)]
        self.agent.call('status')
        for s in crowd:
            s.close()

    def test_a_reader_that_does_not_read(self):
        documents = [{'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {
            'name': f'n{i}', 'annotations': {'a': 'x' * 10000}}} for i in range(300)]
        self.agent.apply(documents)
        slow = [self.dial() for _ in range(20)]
        for s in slow:
            s.sendall(frame(b'{"op":"list","space":"resources","key":"Namespace/"}'))
        self.agent.call('status')
        for s in slow:
            s.close()
        self.agent.delete(documents)

    # ---- the state dir ----

    def second(self, state, **env):
        """What another agent says on that state dir; it must not start."""
        done = subprocess.run(self.lab.command('node', [self.agent.margay, 'node', '--node-name',
                                                        'n2', '--state-dir', state]),
                              capture_output=True, text=True, timeout=60, check=False,
                              env={**os.environ, **env})
        self.assertNotEqual(done.returncode, 0)
        return done.stderr

    def test_a_second_agent_is_refused(self):
        self.assertIn(str(self.pid), self.second(self.agent.state))

    def test_links_in_the_state_dir_lead_nowhere(self):
        victim = pathlib.Path(self.folder, 'victim')
        for name in ('margay.db', 'margay.db-wal', 'agent.lock', 'agent.sock', 'spool'):
            with self.subTest(name):
                state = pathlib.Path(self.folder, f'state-{name}')
                state.mkdir(mode=0o700)
                victim.write_text('precious')
                os.symlink(victim, state / name)
                process = subprocess.Popen(
                    self.lab.command('other', [self.agent.margay, 'node', '--node-name', 'n3',
                                              '--state-dir', str(state)]),
                    stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
                time.sleep(0.7)
                process.terminate()
                process.communicate(timeout=20)
                self.assertEqual(victim.read_text(), 'precious')

    def test_spooled_files_that_are_none(self):
        spool = pathlib.Path(self.agent.state, 'spool')
        spool.mkdir(mode=0o700, exist_ok=True)
        victim = pathlib.Path(self.folder, 'spooled')
        victim.write_text('precious')
        (spool / f'{1:020d}-0000.del').write_bytes(os.urandom(3000))
        (spool / f'{2:020d}-0000.del').write_bytes(b'')
        os.symlink(victim, spool / f'{3:020d}-0000.del')
        os.mkfifo(spool / f'{4:020d}-0000.del')
        (spool / f'{5:020d}-0000.del').mkdir()
        self.agent.stop()
        self.agent.start()
        type(self).pid = json.loads(self.agent.call('status', '-o', 'json'))['pid']
        self.assertEqual(victim.read_text(), 'precious')
        time.sleep(0.5)
        for path in spool.iterdir():
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()


def frame(body):
    return b'MGA1' + struct.pack('>I', len(body)) + body


if __name__ == '__main__':
    unittest.main()
