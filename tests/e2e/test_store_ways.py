#!/usr/bin/python3
"""The ways to a cluster's datastore and who we are there: a credential from a command, in a pod, through
a proxy, compressed; servers whose certificate is none to trust, each refused with its reason.

Usage: test_store_ways.py STORE_TOOL
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cluster import (Etcd, KubeApiserver, NEW_KEY, Pki, Place, Relay, free_ports,  # noqa: E402
                     openssl, wait_until)
from lab import Lab  # noqa: E402
from test_kube_store import Tool, require  # noqa: E402

NAMESPACE = 'Namespace//default'


def kubeconfig_with(api, path, cluster=None, user=None):
    """A kubeconfig like the administrator's with other members of cluster or user; its URL."""
    document = json.loads(pathlib.Path(api.kubeconfig()).read_text(encoding='utf-8'))
    document['clusters'][0]['cluster'].update(cluster or {})
    if user:
        document['users'][0]['user'] = user
    path.write_text(json.dumps(document), encoding='utf-8')
    return f'kubernetes:{path}'


# ---- who we are ----

def test_command(program, api, folder):
    """A token that a command gives, for four seconds: it is asked again, and following goes on."""
    calls, token = folder / 'calls', json.loads(
        pathlib.Path(api.kubeconfig()).read_text(encoding='utf-8'))['users'][0]['user']['token']
    script = folder / 'credential'
    script.write_text(
        f'#!/bin/sh\necho "$KUBERNETES_EXEC_INFO" >>{calls}\n'
        'printf \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":'
        f'{{"token":"{token}","expirationTimestamp":"%s"}}}}\' '
        '"$(date -u -d "+4 seconds" +%Y-%m-%dT%H:%M:%SZ)"\n', encoding='utf-8')
    script.chmod(0o700)
    url = kubeconfig_with(api, folder / 'exec', user={'exec': {
        'apiVersion': 'client.authentication.k8s.io/v1', 'command': str(script),
        'interactiveMode': 'Never'}})

    def n_calls():
        return len(calls.read_text(encoding='utf-8').splitlines()) if calls.exists() else 0

    with Relay(api.port) as relay:
        document = json.loads((folder / 'exec').read_text(encoding='utf-8'))
        document['clusters'][0]['cluster']['server'] = f'https://127.0.0.1:{relay.port}'
        (folder / 'exec').write_text(json.dumps(document), encoding='utf-8')
        with Tool(program, url).stream('follow', 'r') as stream:
            stream.event('in_sync')
            first = n_calls()
            time.sleep(4.1)
            relay.set('reset')  # what is asked anew needs a new credential
            wait_until(lambda: n_calls() > first, 'the command is asked again', 60)
            api.kubectl('create', 'namespace', 'after-expiry')
            stream.wait(lambda line: line.get('key') == 'Namespace//after-expiry', 'following goes on')
    require('"kind":"ExecCredential"' in calls.read_text(encoding='utf-8'))
    script.write_text('#!/bin/sh\necho "the key is gone" >&2; exit 7\n', encoding='utf-8')
    answer = Tool(program, url)('get', 'r', NAMESPACE)[-1]
    require('exit code 7: the key is gone' in answer['message'], answer)


def test_in_pod(program, api, folder):
    """What a pod finds: two variables, and files in a mount namespace of its own."""
    place = '/var/run/secrets/kubernetes.io/serviceaccount'
    account = folder / 'account'
    account.mkdir()
    token = json.loads(pathlib.Path(api.kubeconfig()).read_text(encoding='utf-8'))
    (account / 'ca.crt').write_bytes(api.pki.ca.read_bytes())
    (account / 'token').write_text('wrong', encoding='utf-8')
    (account / 'namespace').write_text('default', encoding='utf-8')

    def ask():
        done = subprocess.run(
            ['unshare', '-m', '--propagation', 'private', 'sh', '-c',
             f'mount -t tmpfs t /run && mkdir -p {place} && mount --bind {account} {place} && exec "$@"',
             'sh', program, 'kubernetes:', 'get', 'r', NAMESPACE], check=False, text=True, stdout=subprocess.PIPE, timeout=120,
            env={'PATH': os.environ['PATH'], 'HOME': '/nonexistent',
                 'KUBERNETES_SERVICE_HOST': '127.0.0.1', 'KUBERNETES_SERVICE_PORT': str(api.port)})
        return json.loads(done.stdout.splitlines()[0])

    answer = ask()
    require("doesn't accept our credential (401)" in answer['message'], answer)
    (account / 'token').write_text(token['users'][0]['user']['token'] + '\n', encoding='utf-8')
    answer = ask()
    require(answer['event'] == 'item' and answer['key'] == NAMESPACE, answer)


# ---- ways ----

class Proxy:
    """An HTTP proxy that knows CONNECT alone, with a name and a password."""

    ALLOWED = 'Proxy-Authorization: Basic dXNlcjpwYXNz'  # user:pass

    def __init__(self):
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        self.asked, self.refused = [], 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        head = b''
        while b'\r\n\r\n' not in head:
            head += client.recv(4096)
        lines = head.decode().split('\r\n')
        if self.ALLOWED not in lines:
            self.refused += 1
            client.sendall(b'HTTP/1.1 407 Proxy Authentication Required\r\n\r\n')
            client.close()
            return
        method, target, _ = lines[0].split()
        require(method == 'CONNECT', lines[0])
        self.asked.append(target)
        host, port = target.rsplit(':', 1)
        server = socket.create_connection((host, int(port)))
        client.sendall(b'HTTP/1.1 200 Connection established\r\n\r\n')
        threading.Thread(target=self._pump, args=(server, client), daemon=True).start()
        self._pump(client, server)

    @staticmethod
    def _pump(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        for sock in (source, target):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def test_proxy(program, api, folder):
    """proxy-url: everything goes through it; a refusal is said."""
    proxy = Proxy()
    url = kubeconfig_with(api, folder / 'proxied', cluster={
        'proxy-url': f'http://user:pass@127.0.0.1:{proxy.port}'})
    with Tool(program, url).stream('follow', 'r') as stream:
        stream.event('in_sync')
        api.kubectl('create', 'namespace', 'through-proxy')
        stream.wait(lambda line: line.get('key') == 'Namespace//through-proxy', 'a change comes')
    require(set(proxy.asked) == {f'127.0.0.1:{api.port}'}, proxy.asked)
    url = kubeconfig_with(api, folder / 'refused', cluster={
        'proxy-url': f'http://user:other@127.0.0.1:{proxy.port}'})
    answer = Tool(program, url)('get', 'r', NAMESPACE)[-1]
    require('407' in answer['message'] and proxy.refused, answer)


def test_compression(program, api):
    """A list of some size is the same compressed."""
    nets = [f'10.{i >> 8}.{i & 255}.0/24' for i in range(20000)]
    for name in ('big-a', 'big-b'):
        answer = Tool(program, api.url()).put(
            f'NetworkSet.projectcalico.org/default/{name}',
            {'apiVersion': 'projectcalico.org/v3', 'kind': 'NetworkSet',
             'metadata': {'name': name, 'namespace': 'default'}, 'spec': {'nets': nets}}, 'none')
        require(answer['code'] == '', answer)
    plain = Tool(program, api.url() + '?compression=none').list('NetworkSet.projectcalico.org/')
    packed = Tool(program, api.url() + '?compression=gzip').list('NetworkSet.projectcalico.org/')
    require(plain == packed and len(plain) == 2 and plain[0]['value']['spec']['nets'] == nets)
    done = subprocess.run([program, api.url() + '?compression=br', 'get', 'r', NAMESPACE],
                          check=False, text=True, stderr=subprocess.STDOUT, stdout=subprocess.PIPE)
    require('allowed are gzip and none' in done.stdout, done.stdout)


# A name server that knows one SRV record: NAME, PORT of the target localhost.
NAME_SERVER = r'''
import socket, struct, sys
def packed(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 53))
print("ready", flush=True)
while True:
    asked, who = sock.recvfrom(4096)
    end = asked.index(b"\0", 12) + 5
    is_known = asked[12:end - 4] == packed(sys.argv[1])
    head = asked[:2] + struct.pack("!HHHHH", 0x8180 | (0 if is_known else 3), 1, is_known, 0, 0)
    record = struct.pack("!HHH", 0, 5, int(sys.argv[2])) + packed("localhost")
    answer = b"\xc0\x0c" + struct.pack("!HHIH", 33, 1, 60, len(record)) + record
    sock.sendto(head + asked[12:end] + (answer if is_known else b""), who)
'''


def test_srv(program, folder):
    """Members from DNS; a domain that names none."""
    resolv = folder / 'resolv.conf'
    resolv.write_text('nameserver 127.0.0.1\n', encoding='utf-8')
    with Lab() as lab:
        lab.netns('node')
        place = Place(lab, 'node')
        with Etcd(place) as etcd:
            server = place.spawn(['/usr/bin/python3', '-c', NAME_SERVER,
                                  '_etcd-client._tcp.cluster.example', str(etcd.client_ports[0])],
                                 stdout=subprocess.PIPE, text=True)
            try:
                require(server.stdout.readline() == 'ready\n')

                def ask(url, **environment):
                    done = subprocess.run(
                        place.command(['unshare', '-m', '--propagation', 'private', 'sh', '-c',
                                       f'mount --bind {resolv} /etc/resolv.conf && exec "$@"', 'sh',
                                       program, url, 'get', 'r', NAMESPACE]),
                        check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                        timeout=120, env={**os.environ, **environment})
                    return done.stdout

                etcd.ctl('put', '/calico/resources/v1/core/namespaces/default',
                         stdin='{"kind":"Namespace"}')
                require(f'"key":"{NAMESPACE}"' in ask('etcd:?srv=cluster.example'))
                require(f'"key":"{NAMESPACE}"' in ask('etcd:', ETCD_DISCOVERY_SRV='cluster.example'))
                out = ask('etcd:?srv=other.example')
                require('_etcd-client._tcp.other.example: no such records' in out, out)
                out = ask('etcd:', ETCD_DISCOVERY_SRV='a', ETCD_ENDPOINTS='http://127.0.0.1:1')
                require('only one of them' in out, out)
            finally:
                server.kill()
                server.wait()


# ---- whom not to trust ----

def make_certificates(folder):
    """A PKI with servers' certificates that are wrong each in its way."""
    pki = Pki(folder)
    pki.issue('good')
    pki.issue('expired', days=-1)
    pki.issue('named', hosts=('other.example', '192.0.2.9'))
    Pki(folder, 'strange').issue('strange-server')
    openssl('req', '-x509', *NEW_KEY, '-days', '2', '-keyout', folder / 'self.key', '-out',
            folder / 'self.crt', '-subj', '/CN=self', '-addext', 'subjectAltName=IP:127.0.0.1')
    return pki


UNTRUSTED = [  # certificate, flags of the server, what is said
    ('expired', [], 'its certificate has expired on'),
    ('named', [], '192.0.2.9'),
    ('self', [], 'self-signed'),
    ('strange-server', [], 'authority'),
    ('good', ['-tls1', '-cipher', 'ALL:@SECLEVEL=0'], 'TLS version is too old'),
    ('good', ['-tls1_1', '-cipher', 'ALL:@SECLEVEL=0'], 'TLS version is too old'),
]


def test_untrusted(program, folder):
    """Both drivers refuse each and say why."""
    pki = make_certificates(folder)
    for certificate, flags, why in UNTRUSTED:
        port = free_ports(1)[0]
        with subprocess.Popen(
                ['openssl', 's_server', '-accept', f'127.0.0.1:{port}', '-quiet', '-alpn', 'h2', '-cert',
                 str(folder / f'{certificate}.crt'), '-key', str(folder / f'{certificate}.key'),
                 *flags], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL) as server:
            try:
                wait_until(lambda: is_listening(port), 'the server listens', 60)  # noqa: B023
                config = folder / 'untrusted'
                config.write_text(json.dumps({
                    'apiVersion': 'v1', 'kind': 'Config', 'current-context': 'c',
                    'contexts': [{'name': 'c', 'context': {'cluster': 'c', 'user': 'c'}}],
                    'clusters': [{'name': 'c', 'cluster': {
                        'server': f'https://127.0.0.1:{port}',
                        'certificate-authority': str(pki.ca)}}],
                    'users': [{'name': 'c', 'user': {'token': 'secret'}}]}), encoding='utf-8')
                for url in (f'kubernetes:{config}', f'etcd:https://127.0.0.1:{port}?ca={pki.ca}'):
                    answer = Tool(program, url)('get', 'r', NAMESPACE)[-1]
                    require(why in answer.get('message', ''), certificate, flags, url, answer)
                    require('secret' not in answer['message'])
            finally:
                server.kill()


def is_listening(port):
    """Does somebody?"""
    with socket.socket() as sock:
        return sock.connect_ex(('127.0.0.1', port)) == 0


def main(program):
    with Etcd() as etcd, KubeApiserver(etcd) as api, \
            tempfile.TemporaryDirectory(prefix='margay-ways-') as folder:
        folder = pathlib.Path(folder)
        api.apply_crds()
        for name, run in (('untrusted', lambda: test_untrusted(program, folder)),
                          ('command', lambda: test_command(program, api, folder)),
                          ('in a pod', lambda: test_in_pod(program, api, folder)),
                          ('proxy', lambda: test_proxy(program, api, folder)),
                          ('compression', lambda: test_compression(program, api)),
                          ('srv', lambda: test_srv(program, folder))):
            began = time.monotonic()
            run()
            print(f'{name}: ok, {time.monotonic() - began:.1f} s', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
