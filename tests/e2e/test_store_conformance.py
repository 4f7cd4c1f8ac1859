#!/usr/bin/python3
"""The contract of the store (tests/unit/store/conformance) on real servers behind a relay.

Usage: test_store_conformance.py PROGRAM STORE [PATTERN]; STORE: etcd, etcd-tls (certificates, users,
tokens of three seconds), etcd-three, kubernetes. PATTERN: only tests whose names fit.
"""

import os
import pathlib
import subprocess
import sys
import threading
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cluster import Etcd, KubeApiserver, Relay  # noqa: E402


class EtcdSubject:
    """An etcd with a relay in front of its first member's port."""

    def __init__(self, **options):
        self.etcd = Etcd(**options)
        self.relays = []

    def __enter__(self):
        etcd = self.etcd.__enter__()
        who = {}
        if etcd.has_users:
            etcd.add_user('agent', 'agent-password', {'/calico/': 'readwrite',
                                                      '/margay/': 'readwrite'})
            who = {'user': 'agent', 'password': 'agent-password'}
        self.relays = [Relay(port) for port in etcd.client_ports]
        self.url = etcd.url(**who, ports=[relay.port for relay in self.relays])
        self.direct = etcd.url(**who)
        return self

    def __exit__(self, *_):
        for relay in self.relays:
            relay.__exit__()
        self.etcd.__exit__()

    def disturb(self, what):
        """What the program asks for."""
        if what in ('break', 'mend'):
            for relay in self.relays:
                relay.set('refuse' if what == 'break' else 'pass')
        elif what == 'compact':
            self.etcd.compact()
        elif what == 'restart':
            self.etcd.stop(kill=True)
            self.etcd.start()


class KubernetesSubject:
    """An API server with Margay's definitions, and a relay in front of it."""

    def __init__(self):
        self.etcd = Etcd()
        self.api = self.relay = None

    def __enter__(self):
        self.etcd.__enter__()
        try:
            self.api = KubeApiserver(self.etcd).__enter__()
            self.api.apply_crds()
            self.relay = Relay(self.api.port)
        except BaseException:
            self.__exit__()
            raise
        self.url = self.api.url(port=self.relay.port, name='kubeconfig-relayed')
        self.direct = self.api.url()
        return self

    def __exit__(self, *_):
        for part in (self.relay, self.api, self.etcd):
            if part is not None:
                part.__exit__()

    def disturb(self, what):
        """What the program asks for. The server itself remembers changes: it has to forget too."""
        if what in ('break', 'mend'):
            self.relay.set('refuse' if what == 'break' else 'pass')
            return
        if what == 'compact':
            self.etcd.compact()
        self.api.stop(kill=True)
        self.api.start()


SUBJECTS = {'etcd': EtcdSubject,
            'etcd-tls': lambda: EtcdSubject(tls=True, users=True, token_ttl=3),
            'etcd-three': lambda: EtcdSubject(members=3),
            'kubernetes': KubernetesSubject}


def answer(subject, commands, answers):
    """Do what the program asks for, line by line, until it ends."""
    with open(commands, encoding='utf-8') as lines:
        for line in lines:
            try:
                subject.disturb(line.strip())
                said = b'done\n'
            except Exception:  # the program has to hear of it, whatever it was
                traceback.print_exc()
                said = b'failed\n'
            os.write(answers, said)


def main(program, store, *pattern):
    start = time.monotonic()
    with SUBJECTS[store]() as subject:
        commands, program_to = os.pipe()
        program_from, answers = os.pipe()
        thread = threading.Thread(target=answer, args=(subject, commands, answers), daemon=True)
        thread.start()
        ready = time.monotonic()
        done = subprocess.run(
            [program, subject.url, *pattern], check=False, pass_fds=(program_to, program_from),
            env={**os.environ, 'MARGAY_TEST_HOOKS': f'{program_to},{program_from}',
                 'MARGAY_TEST_STORE_DIRECT': subject.direct})
    print(f'{store}: exit status {done.returncode}, {time.monotonic() - ready:.0f} s and '
          f'{ready - start:.0f} s to start the servers')
    return done.returncode


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
