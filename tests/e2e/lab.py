"""Network namespaces to test in: made, wired, used and always removed again.

A Lab makes namespaces whose names carry the process id, so several can run beside each other, and
touches nothing else: no link, route or rule outside them. All it made goes when its `with` block
is left, also by an exception, Ctrl-C or SIGTERM; listeners end by themselves when the process
that started them does.

    with Lab() as lab:
        node = cluster(lab, topology)
        lab.run(node, ['nft', 'add', 'table', 'inet', 't'])
        results = lab.probe_matrix(topology.places(), topology.flows, families=(4, 6))
"""

import concurrent.futures
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

PROBER = pathlib.Path(__file__).resolve().parent / 'prober.py'
PYTHON = '/usr/bin/python3'
COMMAND_TIMEOUT = 30
READY_TIMEOUT = 90.0  # a busy machine is slow, not wrong
GATEWAY_V4, GATEWAY_V6 = '169.254.1.1', 'fe80::1'
_serials = itertools.count()


class CommandFailed(Exception):
    """A command in the lab that did not exit with 0; the text has its output."""


class Lab:
    """The namespaces and processes of one test."""

    def __init__(self):
        self.prefix = f'mglab{os.getpid()}-{next(_serials)}-'
        self._namespaces = {}
        self._processes = []
        self._lock = threading.Lock()
        self._probers = {}  # by namespace: a process that answers questions, and its lock
        self._old_sigterm = None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._old_sigterm = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(self, *_):
        if self._old_sigterm is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            self.close()
        finally:
            if self._old_sigterm is not None:
                signal.signal(signal.SIGTERM, self._old_sigterm)
                self._old_sigterm = None

    def close(self):
        """End the processes and remove the namespaces; may be called again."""
        self._probers.clear()
        while self._processes:
            _end(self._processes[-1])
            self._processes.pop()
        while self._namespaces:
            name, full = next(iter(self._namespaces.items()))
            self._end_strays(full)
            subprocess.run(['ip', 'netns', 'del', full], check=False,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            del self._namespaces[name]

    @staticmethod
    def _end_strays(full):
        """Kill what still runs in a namespace of ours: it would keep the namespace alive."""
        found = subprocess.run(['ip', 'netns', 'pids', full], check=False, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for pid in found.stdout.split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass

    def netns(self, name):
        """Make a namespace with loopback up; `name` is what the other functions take."""
        if name in self._namespaces:
            raise ValueError(f'namespace {name} is there already')
        full = self.full_name(name)
        self._namespaces[name] = full
        _check(['ip', 'netns', 'add', full])
        _check(['ip', '-n', full, 'link', 'set', 'lo', 'up'])
        return name

    def full_name(self, name):
        """The name that `ip netns` knows a namespace by."""
        return self.prefix + re.sub(r'[^A-Za-z0-9.]', '-', name)

    def path(self, name):
        """The file that stands for a namespace, as CNI_NETNS wants it."""
        return f'/run/netns/{self._namespaces[name]}'

    def command(self, name, argv):
        """The argument vector that runs `argv` inside a namespace."""
        return ['ip', 'netns', 'exec', self._namespaces[name], *argv]

    def run(self, name, argv, stdin='', timeout=COMMAND_TIMEOUT):
        """Run a command inside a namespace and return its output; CommandFailed if it fails."""
        return _check(self.command(name, argv), stdin, timeout)

    def spawn(self, name, argv, **popen):
        """Start a process inside a namespace; it is ended with the lab."""
        process = subprocess.Popen(self.command(name, argv), **popen)
        self._processes.append(process)
        return process

    def batch(self, name, lines):
        """Run many `ip` commands inside a namespace by one process."""
        _check(['ip', '-n', self._namespaces[name], '-batch', '-'], '\n'.join(lines) + '\n')

    def link(self, left, left_link, right, right_link):
        """Join two namespaces by a veth pair, both ends up; neither end is ever elsewhere."""
        _check(['ip', 'link', 'add', left_link, 'netns', self._namespaces[left],
                'type', 'veth', 'peer', 'name', right_link, 'netns', self._namespaces[right]])
        self.batch(left, [f'link set {left_link} up'])
        self.batch(right, [f'link set {right_link} up'])

    def sysctl(self, name, settings):
        """Set sysctls of a namespace, {'net.ipv4.ip_forward': 1}."""
        self.run(name, ['sysctl', '-q', '-w', *(f'{k}={v}' for k, v in settings.items())])

    def listen(self, name, flows, said=None):
        """Start listeners for ('TCP', 80) pairs that say `said`; they are ready on return."""
        texts = [f'{proto.lower()}/{port}' for proto, port in flows if port is not None]
        process = self.spawn(name, [PYTHON, str(PROBER), 'serve', said or name, *texts],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        timer = threading.Timer(READY_TIMEOUT, process.kill)
        timer.start()
        try:
            if process.stdout.readline() != 'ready\n':
                raise CommandFailed(f'the listener in {name} did not get ready')
        finally:
            timer.cancel()
        return process

    def probe(self, name, targets, timeout=1.0):
        """Probe (proto, address, port) triples from a namespace: a list of state and peer."""
        if not targets:
            return []
        with self._lock:
            if name not in self._probers:
                self._probers[name] = (threading.Lock(), self.spawn(
                    name, [PYTHON, str(PROBER), 'probe'], stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, text=True))
            lock, process = self._probers[name]
        with lock:
            timer = threading.Timer(READY_TIMEOUT + timeout, process.kill)
            timer.start()
            try:
                process.stdin.write(json.dumps({'timeout': timeout, 'targets': targets}) + '\n')
                process.stdin.flush()
                text = process.stdout.readline()
            finally:
                timer.cancel()
        if not text:
            del self._probers[name]
            raise CommandFailed(f'the prober in {name} ended: {process.wait(COMMAND_TIMEOUT)}')
        return json.loads(text)

    def probe_ping(self, name, address, source=None):
        """Does the address answer to a ping from `source` (None: what the kernel chooses)?"""
        argv = ['ping', '-c1', '-W1', '-q', *(['-I', source] if source else []), address]
        return subprocess.run(self.command(name, argv), check=False, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0

    def probe_matrix(self, places, flows, families=(4, 6), timeout=1.0, sources=None):
        """Probe from every place to every place, all sources at once.

        `places` maps names of namespaces to (v4, v6). The result maps
        (src, dst, flow, family) to {'state', 'peer'}.
        """
        keys = {src: [(src, dst, flow, family) for dst in places for flow in flows
                      for family in families]
                for src in (sources or places)}

        def one(src):
            targets = [(flow[0].lower(), places[dst][0 if family == 4 else 1], flow[1])
                       for _, dst, flow, family in keys[src]]
            return zip(keys[src], self.probe(src, targets, timeout))

        with concurrent.futures.ThreadPoolExecutor(len(keys)) as pool:
            return dict(itertools.chain.from_iterable(pool.map(one, keys)))


def cluster(lab, topology, node='node'):
    """Build a topology around one routing node, without any policy, and start its listeners.

    Every place gets a namespace of its name with eth0; on the node its link is `veth` and a
    number (see `node_link`), and one route a family leads to it, as on a Kubernetes node whose
    pods are routed and not bridged. Returns the node's name.
    """
    lab.netns(node)
    lab.sysctl(node, {'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1,
                      'net.ipv4.icmp_ratelimit': 0, 'net.ipv6.icmp.ratelimit': 0})
    places = topology.places()
    for name, (v4, v6) in places.items():
        lab.netns(name)
        link = node_link(topology, name)
        lab.link(node, link, name, 'eth0')
        lab.batch(node, [f'address add {GATEWAY_V4}/32 dev {link}',
                         f'address add {GATEWAY_V6}/64 dev {link} nodad',
                         f'route add {v4}/32 dev {link}', f'route add {v6}/128 dev {link}'])
        lab.batch(name, [f'address add {v4}/32 dev eth0', f'address add {v6}/128 dev eth0 nodad',
                         f'route add {GATEWAY_V4} dev eth0 scope link',
                         f'route add default via {GATEWAY_V4} dev eth0',
                         f'route add default via {GATEWAY_V6} dev eth0'])
    with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
        list(pool.map(lambda name: lab.listen(name, topology.flows), places))
    wait_until_reachable(lab, places)
    return node


def node_link(topology, name):
    """The node's link to a place of a cluster."""
    return f'veth{list(topology.places()).index(name)}'


def wait_until_reachable(lab, places, timeout=10.0):
    """Wait until the last place pings all others: link-local addresses take a while to settle."""
    last = list(places)[-1]
    targets = [('icmp', address, None) for pair in places.values() for address in pair]
    end = time.monotonic() + timeout
    while any(result['state'] != 'open' for result in lab.probe(last, targets, 0.5)):
        if time.monotonic() > end:
            raise CommandFailed(f'{last} does not reach every place')


def _end(process):
    """End one process that we started: ask, then insist."""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _check(argv, stdin='', timeout=COMMAND_TIMEOUT):
    """Run a command and return its output; CommandFailed with all it said if it fails."""
    done = subprocess.run(argv, input=stdin, text=True, timeout=timeout, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise CommandFailed(f'{" ".join(argv)}: exit status {done.returncode}\n'
                            f'{done.stdout}{done.stderr}')
    return done.stdout
