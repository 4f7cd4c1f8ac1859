"""Real datastores to test with: etcd (alone, three members, TLS, users), the Kubernetes API server on
an etcd, and a relay that breaks connections.

All are started in a folder of their own on free ports, on this host's loopback or in a namespace of
a lab, waited for, and ended when their `with` block is left:

    with Etcd() as etcd, KubeApiserver(etcd) as api:
        api.kubectl('get', 'namespaces')
        store = f'kubernetes:{api.kubeconfig()}'
"""

import base64
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from lab import CommandFailed

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
START_TIMEOUT = 240
ENDS_WITHIN = 20
COMMAND_TIMEOUT = 120
ADMIN_TOKEN = 'token-of-the-administrator'
ROOT_PASSWORD = 'root-password'


class Place:
    """Where programs run: this host, or a namespace of a lab."""

    def __init__(self, lab=None, node=None):
        self.lab, self.node = lab, node

    def command(self, argv):
        """The argument vector that runs `argv` here."""
        return self.lab.command(self.node, argv) if self.lab else list(argv)

    def run(self, argv, stdin='', env=None, timeout=COMMAND_TIMEOUT):
        """Run a command to its end; its output, CommandFailed when it fails."""
        done = subprocess.run(self.command(argv), input=stdin, text=True, timeout=timeout,
                              check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={**os.environ, **(env or {})})
        if done.returncode != 0:
            raise CommandFailed(f'{" ".join(argv)}: exit status {done.returncode}\n'
                                f'{done.stdout[-4000:]}{done.stderr[-4000:]}')
        return done.stdout

    def spawn(self, argv, **popen):
        """Start a program that stays."""
        return subprocess.Popen(self.command(argv), **popen)


HOST = Place()


def wait_until(condition, what, timeout=START_TIMEOUT, pause=0.05):
    """Poll until `condition()` is true; its value. AssertionError after `timeout` seconds."""
    until = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f'{what}: not within {timeout} s')
        time.sleep(pause)


def free_ports(count):
    """Ports that nobody listens on, below those that the kernel gives to clients."""
    found, opened = [], []
    while len(found) < count:
        port = random.randrange(12000, 32000)
        sock = socket.socket()
        try:
            sock.bind(('127.0.0.1', port))
        except OSError:
            sock.close()
            continue
        opened.append(sock)
        found.append(port)
    for sock in opened:
        sock.close()
    return found


class Server:
    """One process of a server: its log, start, stop, kill."""

    def __init__(self, place, folder, name, argv, env=None):
        self.place, self.argv, self.env = place, argv, env
        self.log = folder / f'{name}.log'
        self.name, self.process = name, None

    def start(self):
        """Start it, without waiting for it to be ready."""
        with open(self.log, 'ab') as log:
            self.process = self.place.spawn(self.argv, stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL,
                                            env={**os.environ, **(self.env or {})})

    def require_alive(self):
        """AssertionError with the end of the log when it has ended."""
        if self.process.poll() is not None:
            text = self.log.read_text(encoding='utf-8', errors='replace')
            raise AssertionError(f'{self.name} ended with {self.process.returncode}:\n'
                                 f'{text[-3000:]}')

    def stop(self, how=signal.SIGTERM):
        """End it; it may have ended already."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def kill(self):
        """kill -9."""
        self.stop(signal.SIGKILL)

    def pause(self):
        """It does nothing more, its connections stay: SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        """The end of a pause."""
        self.process.send_signal(signal.SIGCONT)


class Pki:
    """An authority and certificates of it, as files of a folder."""

    def __init__(self, folder, name='ca'):
        self.folder, self.name = folder, name
        self.ca = folder / f'{name}.crt'
        self.ca_key = folder / f'{name}.key'
        openssl('req', '-x509', *NEW_KEY, '-days', '2', '-keyout', self.ca_key, '-out', self.ca,
                '-subj', f'/CN={name}')

    def issue(self, name, common_name=None, hosts=('127.0.0.1', 'localhost'), days=2,
              organization=None):
        """Make NAME.crt and NAME.key (replacing older ones) for servers and clients alike."""
        crt, key = self.folder / f'{name}.crt', self.folder / f'{name}.key'
        with tempfile.TemporaryDirectory(dir=self.folder) as made:
            made = pathlib.Path(made)
            alt = ','.join(('IP:' if host[0].isdigit() or ':' in host else 'DNS:') + host
                           for host in hosts)
            (made / 'ext').write_text(f'subjectAltName={alt}\n'
                                      'extendedKeyUsage=serverAuth,clientAuth\n', encoding='utf-8')
            subject = f'/O={organization}' if organization else ''
            openssl('req', *NEW_KEY, '-keyout', made / 'key', '-out', made / 'csr',
                    '-subj', f'{subject}/CN={common_name or name}')
            openssl('x509', '-req', '-in', made / 'csr', '-CA', self.ca, '-CAkey', self.ca_key,
                    '-set_serial', str(random.getrandbits(63)), '-days', str(days), '-extfile',
                    made / 'ext', '-out', made / 'crt')
            os.replace(made / 'key', key)
            os.replace(made / 'crt', crt)
        return crt, key


NEW_KEY = ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes')


def openssl(*argv):
    """Run openssl; CommandFailed when it fails."""
    return HOST.run(['openssl', *(str(word) for word in argv)])


class Etcd:
    """An etcd of one member or more.

    tls: https with client certificates of `self.pki`. users: authentication, by jwt with tokens that
    live `token_ttl` seconds; the users are root and those of add_user. quota: bytes of the database.
    """

    def __init__(self, place=HOST, members=1, tls=False, users=False, token_ttl=300, quota=None,
                 address='127.0.0.1'):
        self.place, self.address, self.has_users = place, address, False
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='margay-etcd-'))
        self.pki = Pki(self.folder) if tls else None
        self.wants_users, self.quota, self.token_ttl = users, quota, token_ttl
        ports = free_ports(2 * members)
        self.client_ports, self.peer_ports = ports[:members], ports[members:]
        if tls:
            self.pki.issue('server', hosts=('127.0.0.1', 'localhost', address))
            self.pki.issue('root')
        if users:
            openssl('genrsa', '-out', self.folder / 'jwt.key', '2048')
            openssl('rsa', '-in', self.folder / 'jwt.key', '-pubout', '-out',
                    self.folder / 'jwt.pub')
        self.members = [Server(place, self.folder, f'etcd{i}', self._argv(i))
                        for i in range(members)]

    def _argv(self, number):
        scheme = 'https' if self.pki else 'http'
        client = f'{scheme}://{self.address}:{self.client_ports[number]}'
        peer = f'http://{self.address}:{self.peer_ports[number]}'
        everyone = ','.join(f'm{i}=http://{self.address}:{port}'
                            for i, port in enumerate(self.peer_ports))
        argv = ['etcd', '--name', f'm{number}', '--data-dir', str(self.folder / f'data{number}'),
                '--listen-client-urls', client, '--advertise-client-urls', client,
                '--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer,
                '--initial-cluster', everyone, '--log-level', 'warn', '--unsafe-no-fsync']
        if self.pki:
            argv += ['--cert-file', str(self.folder / 'server.crt'), '--key-file',
                     str(self.folder / 'server.key'), '--trusted-ca-file', str(self.pki.ca),
                     '--client-cert-auth']
        if self.wants_users:
            argv += ['--auth-token', f'jwt,pub-key={self.folder}/jwt.pub,priv-key={self.folder}/'
                     f'jwt.key,sign-method=RS256,ttl={self.token_ttl}s']
        if self.quota:
            argv += ['--quota-backend-bytes', str(self.quota)]
        return argv

    def __enter__(self):
        try:
            self.start()
            if self.wants_users:
                self._enable_users()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for member in self.members:
            member.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        """Start the members that don't run and wait until all answer."""
        for member in self.members:
            if member.process is None:
                member.start()
        wait_until(self.is_healthy, 'etcd answers')

    def is_healthy(self):
        """Do all members that run answer to a read that needs a leader?"""
        for member in self.members:
            if member.process is not None:
                member.require_alive()
        try:
            self.ctl('get', 'health', endpoints=self.running(), timeout='2s')
        except CommandFailed as error:
            if 'permission denied' not in str(error):
                return False
        return True

    def running(self):
        """The endpoints of members that run."""
        return self.endpoints([i for i, member in enumerate(self.members) if member.process])

    def stop(self, number=None, kill=False):
        """End one member, or all."""
        for i, member in enumerate(self.members):
            if number is None or i == number:
                member.stop(signal.SIGKILL if kill else signal.SIGTERM)

    def endpoints(self, numbers=None, ports=None):
        """URLs of members (of all, when none are named), by comma; ports: of relays in front."""
        scheme = 'https' if self.pki else 'http'
        ports = ports or self.client_ports
        numbers = range(len(ports)) if numbers is None else numbers
        return ','.join(f'{scheme}://{self.address}:{ports[i]}' for i in numbers)

    def url(self, user=None, password=None, certificate='root', numbers=None, ports=None):
        """What --datastore takes for this etcd."""
        words = []
        if self.pki:
            words += [f'ca={self.pki.ca}', f'cert={self.folder}/{certificate}.crt',
                      f'key={self.folder}/{certificate}.key']
        if user:
            words += [f'user={user}', f'password={password}']
        return f'etcd:{self.endpoints(numbers, ports)}' + ('?' + '&'.join(words) if words else '')

    def ctl(self, *argv, stdin='', endpoints=None, timeout='30s', as_root=True):
        """Run etcdctl; its output."""
        flags = ['--endpoints', endpoints or self.running(), '--command-timeout', timeout]
        if self.pki:
            flags += ['--cacert', str(self.pki.ca), '--cert', f'{self.folder}/root.crt', '--key',
                      f'{self.folder}/root.key']
        if self.has_users and as_root:
            flags += ['--user', f'root:{ROOT_PASSWORD}']
        return self.place.run(['etcdctl', *flags, *argv], stdin, {'ETCDCTL_API': '3'})

    def leader(self):
        """The number of the member that leads."""
        answers = json.loads(self.ctl('endpoint', 'status', '-w', 'json'))
        for answer in answers:
            status = answer['Status']
            if status['leader'] == status['header']['member_id']:
                return self.client_ports.index(int(answer['Endpoint'].rsplit(':', 1)[1]))
        raise AssertionError('no member leads')

    def revision(self):
        """The store's newest revision."""
        answer = json.loads(self.ctl('get', 'none', '-w', 'json'))
        return answer['header']['revision']

    def compact(self):
        """Forget all but the newest revisions."""
        self.ctl('compaction', str(self.revision()))

    def keys(self, prefix='/calico/'):
        """All keys below a prefix."""
        out = self.ctl('get', '--prefix', '--keys-only', prefix)
        return [line for line in out.splitlines() if line]

    def _enable_users(self):
        self.ctl('user', 'add', f'root:{ROOT_PASSWORD}')
        self.ctl('user', 'grant-role', 'root', 'root')
        self.ctl('auth', 'enable')
        self.has_users = True

    def add_user(self, name, password, rights):
        """A user with rights, {'/calico/': 'readwrite'} by prefix."""
        self.ctl('role', 'add', name)
        for prefix, right in rights.items():
            self.ctl('role', 'grant-permission', name, right, '--prefix=true', prefix)
        self.ctl('user', 'add', f'{name}:{password}')
        self.ctl('user', 'grant-role', name, name)


def programs_of_kubernetes(*names):
    """The folder of kube-apiserver, kubectl and others, built when they are not there."""
    done = subprocess.run([ROOT / 'scripts' / 'peers', *names], check=True, text=True,
                          stdout=subprocess.PIPE)
    return pathlib.Path(done.stdout.split()[-1])


class KubeApiserver:
    """A Kubernetes API server on an etcd, with RBAC; `margay-admin` may do everything.

    users: further {TOKEN: (NAME, GROUP)}; flags: further ones, as ['--watch-cache=false'].
    """

    def __init__(self, etcd, place=None, address='127.0.0.1', users=None, flags=()):
        self.etcd, self.place, self.address = etcd, place or etcd.place, address
        self.bin = programs_of_kubernetes()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='margay-apiserver-'))
        self.pki = Pki(self.folder)
        self.port = free_ports(1)[0]
        self.issue_server_certificate()
        openssl('genrsa', '-out', self.folder / 'sa.key', '2048')
        self.users = {ADMIN_TOKEN: ('margay-admin', 'system:masters'), **(users or {})}
        self.server = Server(self.place, self.folder, 'kube-apiserver', self._argv(flags))

    def issue_server_certificate(self, pki=None):
        """Make the server's certificate, or a new one, by the same authority or by another."""
        (pki or self.pki).issue('server', hosts=('127.0.0.1', 'localhost', 'kubernetes.default',
                                                 self.address))

    def _argv(self, flags):
        argv = [str(self.bin / 'kube-apiserver'), f'--etcd-servers={self.etcd.endpoints()}',
                f'--bind-address={self.address}', f'--advertise-address={self.address}',
                f'--secure-port={self.port}', '--insecure-port=0', f'--cert-dir={self.folder}',
                f'--tls-cert-file={self.folder}/server.crt',
                f'--tls-private-key-file={self.folder}/server.key',
                f'--client-ca-file={self.pki.ca}', '--service-cluster-ip-range=10.187.0.0/16',
                f'--service-account-key-file={self.folder}/sa.key',
                f'--service-account-signing-key-file={self.folder}/sa.key',
                '--service-account-issuer=https://kubernetes.default.svc',
                f'--token-auth-file={self.folder}/tokens.csv', '--authorization-mode=Node,RBAC',
                '--allow-privileged=true', '--disable-admission-plugins=ServiceAccount',
                '--endpoint-reconciler-type=none', '--etcd-compaction-interval=0',
                '--profiling=false']
        if self.etcd.pki:
            argv += [f'--etcd-cafile={self.etcd.pki.ca}',
                     f'--etcd-certfile={self.etcd.folder}/root.crt',
                     f'--etcd-keyfile={self.etcd.folder}/root.key']
        return argv + list(flags)

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def write_users(self):
        """The file of tokens; the server reads it at its start."""
        lines = [f'{token},{name},{name},"{group}"\n'
                 for token, (name, group) in self.users.items()]
        (self.folder / 'tokens.csv').write_text(''.join(lines), encoding='utf-8')

    def start(self):
        """Start it and wait until it says that it is ready."""
        self.write_users()
        self.server.start()
        kubeconfig = self.kubeconfig()

        def is_ready():
            self.server.require_alive()
            try:
                return 'ok' in self.place.run(
                    [str(self.bin / 'kubectl'), '--kubeconfig', kubeconfig, '--request-timeout=5s',
                     'get', '--raw', '/readyz'])
            except CommandFailed:
                return False

        wait_until(is_ready, 'the API server is ready', pause=0.3)

    def stop(self, kill=False):
        """End it."""
        self.server.stop(signal.SIGKILL if kill else signal.SIGTERM)

    def kubeconfig(self, token=ADMIN_TOKEN, token_file=None, certificate=None, port=None,
                   name='kubeconfig'):
        """Write a kubeconfig; its path. certificate: a name for Pki.issue; port: of a relay."""
        user = {'token': token}
        if token_file:
            user = {'tokenFile': str(token_file)}
        if certificate:
            user = {'client-certificate': f'{self.folder}/{certificate}.crt',
                    'client-key': f'{self.folder}/{certificate}.key'}
        document = {
            'apiVersion': 'v1', 'kind': 'Config', 'current-context': 'lab',
            'contexts': [{'name': 'lab', 'context': {'cluster': 'lab', 'user': 'lab'}}],
            'clusters': [{'name': 'lab', 'cluster': {
                'server': f'https://{self.address}:{port or self.port}',
                'certificate-authority-data':
                    base64.b64encode(self.pki.ca.read_bytes()).decode()}}],
            'users': [{'name': 'lab', 'user': user}]}
        path = self.folder / name
        path.write_text(json.dumps(document), encoding='utf-8')
        return str(path)

    def url(self, **kubeconfig):
        """What --datastore takes for this server."""
        return f'kubernetes:{self.kubeconfig(**kubeconfig)}'

    def kubectl(self, *argv, stdin=''):
        """Run kubectl as administrator; its output."""
        return self.place.run([str(self.bin / 'kubectl'), '--kubeconfig', self.kubeconfig(), *argv],
                              stdin, {'HOME': str(self.folder)})

    def apply(self, documents, server_side=False):
        """kubectl apply of a list of objects, with their namespaces' default accounts left out."""
        items = json.dumps({'apiVersion': 'v1', 'kind': 'List', 'items': documents})
        return self.kubectl('apply', *(['--server-side'] if server_side else []), '-f', '-',
                            stdin=items)

    def apply_crds(self, folder=ROOT / 'deploy' / 'crds'):
        """Margay's custom resource definitions; returns when they are served."""
        self.kubectl('apply', '-f', str(folder))
        self.kubectl('wait', '--for=condition=Established', '--timeout=100s', '-f', str(folder))
        kinds = self.kubectl('get', 'customresourcedefinitions', '-o', 'name').split()
        names = ','.join(kind.split('/')[1] for kind in kinds)

        def are_served():
            try:
                self.kubectl('get', '-A', '-o', 'name', names)
            except CommandFailed:
                return False
            return True

        wait_until(are_served, 'the custom resources are served')

    def request(self, path, method='GET', body=None, token=ADMIN_TOKEN, kind='application/json'):
        """One request from this host: status and body. Only where the server is on the host."""
        request = urllib.request.Request(
            f'https://{self.address}:{self.port}{path}', method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={'Authorization': f'Bearer {token}', 'Content-Type': kind})
        context = ssl.create_default_context(cafile=str(self.pki.ca))
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


class Relay:
    """relay.py in front of a port: what passes through it can be broken by `set`."""

    def __init__(self, target_port, place=HOST, address='127.0.0.1', target_address='127.0.0.1'):
        self.port = free_ports(1)[0]
        self.process = place.spawn(
            ['/usr/bin/python3', str(HERE / 'relay.py'), address, str(self.port), target_address,
             str(target_port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != 'ready\n':
            raise AssertionError('the relay did not get ready')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def set(self, mode, amount=None):
        """Change what the relay does (relay.py has the modes); done on return."""
        self.process.stdin.write(f'{mode} {amount}\n' if amount is not None else f'{mode}\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if not answer or answer[0] != 'ok':
            raise AssertionError(f'the relay answered {answer} to {mode}')
        return answer[1:]

    def connections(self):
        """How many there are now, and were ever."""
        now, ever = self.set('count')
        return int(now), int(ever)


def cpu_seconds(pid):
    """User and system time that a process has used."""
    fields = pathlib.Path(f'/proc/{pid}/stat').read_text(encoding='utf-8').rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
