#!/usr/bin/python3
"""The datastore and the way to it break in every way we know, under an agent that enforces.

In each: what is closed stays closed and what is open stays open; `status` says that the datastore is
away and for how long, where it is; the agent waits idly; once it is over, what was changed meanwhile
is enforced within the time that the fault's line says; where nothing changed, nothing is written to
the kernel.

Usage: test_store_faults.py STORE [all | FAULT...]; STORE: etcd, kubernetes. Without faults: a few that
take a minute.
"""

import contextlib
import json
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent, agent_cluster  # noqa: E402
from casebook import Topology  # noqa: E402
from cluster import (Etcd, KubeApiserver, Place, Relay, cpu_seconds, wait_until)  # noqa: E402
from lab import CommandFailed, Lab  # noqa: E402
from stores import EtcdStore, KubernetesStore  # noqa: E402

STORE_ADDRESS, NODE_ADDRESS = '10.77.0.2', '10.77.0.1'
IDLE = 4.0  # seconds over which the agent's CPU is measured
COLD = 6
CPU_MOST = 0.15  # of one processor; sanitizers included
NETPOL = {'apiVersion': 'networking.k8s.io/v1', 'kind': 'NetworkPolicy'}
CLOSED = {**NETPOL, 'metadata': {'name': 'closed', 'namespace': 'y'},
          'spec': {'podSelector': {}, 'policyTypes': ['Ingress']}}
# The change that a fault hides: z/b closes.
CHANGE = {**NETPOL, 'metadata': {'name': 'change', 'namespace': 'z'},
          'spec': {'podSelector': {'matchLabels': {'pod': 'b'}}, 'policyTypes': ['Ingress']}}


class Watcher(threading.Thread):
    """Probes from x/a without pause: y must stay closed, x/b open."""

    def __init__(self, lab, places):
        super().__init__(daemon=True)
        self.lab, self.places = lab, places
        self.is_over, self.rounds = False, 0
        self.opened, self.lost = 0, 0

    def run(self):
        closed = [('tcp', self.places[f'y/{pod}'][family], 80) for pod in 'ab' for family in (0, 1)]
        opened = [('tcp', self.places['x/b'][family], 80) for family in (0, 1)]
        while not self.is_over:
            results = self.lab.probe('x/a', closed + opened, 1.0)
            self.opened += sum(r['state'] == 'open' for r in results[:len(closed)])
            self.lost += sum(r['state'] != 'open' for r in results[len(closed):])
            self.rounds += 1


class Scene:
    """An agent on the node, its datastore in a namespace of its own behind a relay and a link."""

    def __init__(self, stack, kind, **options):
        self.kind = kind
        self.lab = stack.enter_context(Lab())
        self.lab.netns('node')
        self.lab.netns('store')
        self.lab.link('node', 'store0', 'store', 'eth0')
        self.lab.batch('node', [f'address add {NODE_ADDRESS}/24 dev store0'])
        self.lab.batch('store', [f'address add {STORE_ADDRESS}/24 dev eth0'])
        there = Place(self.lab, 'store')
        self.etcd = stack.enter_context(Etcd(there, address=STORE_ADDRESS, **options))
        self.api = None
        self.token_file = self.etcd.folder / 'token'
        ports = self.etcd.client_ports
        if kind == 'kubernetes':
            self.api = stack.enter_context(KubeApiserver(self.etcd, address=STORE_ADDRESS, users={
                'first-token': ('margay', 'system:masters')}))
            self.api.apply_crds()
            self.store = KubernetesStore(self.api, ['n1'])
            ports = [self.api.port]
        self.relays = [stack.enter_context(Relay(port, there, STORE_ADDRESS, STORE_ADDRESS))
                       for port in ports]
        self.agent = Agent(self.lab, 'node', url=self._url())
        if kind == 'etcd':
            self.store = EtcdStore(self.etcd)
        self.agent.store = self.store
        stack.enter_context(self.agent)
        self.topology = Topology()
        agent_cluster(self.lab, self.agent, self.topology)
        self.agent.apply([CLOSED])
        self.watcher = Watcher(self.lab, self.topology.places())
        self.watcher.start()
        stack.callback(self.end_watcher)

    def _url(self):
        ports = [relay.port for relay in self.relays]
        if self.api:
            self.token_file.write_text('first-token', encoding='utf-8')
            return self.api.url(port=ports[0], token_file=self.token_file, name='agent.kubeconfig')
        who = {}
        if self.etcd.has_users:
            self.etcd.add_user('agent', 'agent-password', {'/calico/': 'readwrite',
                                                           '/margay/': 'readwrite'})
            who = {'user': 'agent', 'password': 'agent-password'}
        if self.etcd.pki:
            self.etcd.pki.issue('agent')
            who['certificate'] = 'agent'
        return self.etcd.url(**who, ports=ports)

    def end_watcher(self):
        """No more probes."""
        self.watcher.is_over = True
        self.watcher.join()

    def relay(self, mode, amount=None):
        """All relays."""
        for relay in self.relays:
            relay.set(mode, amount)

    def write(self, is_there):
        """The change made or taken back, at the server itself and not through the relay."""
        direct = Agent.__new__(Agent)  # the same command line in the store's namespace
        direct.__dict__.update(self.agent.__dict__)
        direct.node = 'store'
        direct.url = self.api.url() if self.api else self.etcd.url()
        if is_there:
            direct.apply([CHANGE], wait=False)
        else:
            direct.delete([CHANGE])

    def is_closed(self, place='z/b'):
        """Do new connections from x/a get nowhere, on both families?"""
        targets = [('tcp', address, 80) for address in self.topology.places()[place]]
        return [r['state'] for r in self.lab.probe('x/a', targets, 0.4)].count('open') == 0

    def is_open(self):
        """Do they get through on both?"""
        targets = [('tcp', address, 80) for address in self.topology.places()['z/b']]
        return [r['state'] for r in self.lab.probe('x/a', targets, 0.4)].count('open') == 2

    def datastore(self):
        """What `status` says about the datastore."""
        return self.agent.status()['datastore']

    def is_lost(self):
        """Does `status` say that it is away?"""
        return self.datastore().get('lostSeconds') is not None

    def table(self):
        """The kernel's table, and how often the agent has written to it."""
        return (self.lab.run('node', ['nft', '-s', 'list', 'table', 'inet', 'margay']),
                self.agent.status()['transactions'])


class Fault:
    """How one thing breaks and is mended. says: `status` reports the datastore as away within these
    seconds (None: it is not, or need not be). within: the change is enforced so many seconds after the
    end. writes: the server takes the change while the fault lasts. is_cold: the server has just been
    started; kube-apiserver takes seconds for its first answer of each custom resource. options: of
    Etcd."""

    def __init__(self, begin, end, says=None, within=6, writes=True, stores=('etcd', 'kubernetes'),
                 is_cold=False, **options):
        self.begin, self.end, self.says, self.within = begin, end, says, within
        self.is_cold = is_cold
        self.writes, self.stores, self.options = writes, stores, options


def relay_fault(mode, amount=None, **how):
    """A fault of the way to the server."""
    return Fault(lambda s: s.relay(mode, amount), lambda s: s.relay('pass'), **how)


def lossy(percent):
    """So many of a hundred packets are lost in each direction, also those of acknowledgements."""
    rules = '\n'.join(
        f'chain {hook} {{ type filter hook {hook} priority 0; {side} eth0 meta l4proto tcp '
        f'numgen random mod 100 < {percent} drop\n }}'
        for hook, side in (('input', 'iifname'), ('output', 'oifname')))
    return lambda scene: scene.lab.run('store', ['nft', f'table inet loss {{\n{rules}\n}}'])


def no_loss(scene):
    """All packets arrive."""
    scene.lab.run('store', ['nft', 'delete', 'table', 'inet', 'loss'])


def late_and_lossy(scene):
    """What a bad line does: two seconds and one packet of twenty."""
    lossy(5)(scene)
    scene.relay('delay', 2)


def on_time(scene):
    """And its end."""
    no_loss(scene)
    scene.relay('pass')


def stop_server(scene, kill):
    """The datastore's server ends."""
    (scene.api or scene.etcd).stop(kill=kill)


def start_server(scene):
    """And is there again."""
    (scene.api or scene.etcd).start()


def link(state):
    """The store's end of the cable."""
    return lambda scene: scene.lab.batch('store', [f'link set eth0 {state}'])


def cut_for_good(scene):
    """Cut; the history that a watch would go on from is forgotten."""
    scene.relay('refuse')


def forget_and_mend(scene):
    """Nothing is left to go on from: the API server forgets too."""
    scene.etcd.compact()
    if scene.api:
        scene.api.stop(kill=True)
        scene.api.start()
    scene.relay('pass')


def kill_leader(scene):
    """The member that leads is killed."""
    scene.leader = scene.etcd.leader()
    scene.etcd.stop(scene.leader, kill=True)


def wait_for_tokens_to_end(_scene):
    """Tokens live three seconds."""
    time.sleep(7)


def new_token(scene):
    """The server knows only a new token."""
    scene.api.users.pop('first-token')
    scene.api.users['second-token'] = ('margay', 'system:masters')
    scene.api.stop()
    scene.api.start()


def give_new_token(scene):
    """And the agent's file has it."""
    scene.token_file.write_text('second-token\n', encoding='utf-8')


def rotate(scene):
    """New certificates on both sides, then every connection has to be made again."""
    scene.etcd.pki.issue('server', hosts=('127.0.0.1', 'localhost', STORE_ADDRESS))
    scene.etcd.pki.issue('agent')
    scene.relay('reset')


def rotate_api(scene):
    """The API server reads its certificate again by itself; connections are made again."""
    scene.api.issue_server_certificate()
    time.sleep(1)
    scene.relay('reset')


def fill_up(scene):
    """The database reaches its quota: etcd takes no more writes."""
    text = 'x' * 500_000
    try:
        for number in range(100):
            scene.etcd.ctl('put', f'/other/{number}', stdin=text)
    except CommandFailed as error:
        if 'database space exceeded' not in str(error):
            raise
    try:
        scene.agent.apply([CHANGE], wait=False)
    except CommandFailed as error:
        if 'NOSPACE' not in str(error):
            raise
    else:
        raise AssertionError('a write to a full etcd did not fail')


def make_room(scene):
    """Room again, as etcd's documents say: delete, compact, defragment, disarm."""
    scene.etcd.ctl('del', '--prefix', '/other/')
    scene.etcd.compact()
    scene.etcd.ctl('defrag')
    scene.etcd.ctl('alarm', 'disarm')


def nothing(_scene):
    """Nothing."""


FAULTS = {
    'killed': Fault(lambda s: stop_server(s, True), start_server, says=10, writes=False,
                    is_cold=True),
    'restarted': Fault(lambda s: stop_server(s, False), start_server, says=10, writes=False,
                       is_cold=True),
    'refused': relay_fault('refuse', says=10),
    'reset': relay_fault('reset'),
    'black-hole': relay_fault('blackhole', says=60, within=15),
    'half-open': relay_fault('halfopen', says=60, within=15),
    'link-down': Fault(link('down'), link('up'), says=60, within=15),
    'late-2s': relay_fault('delay', 2, within=6),
    'flaky': relay_fault('flaky', 5, within=6),
    'slow': relay_fault('limit', 3000, within=10),
    'truncated': relay_fault('truncate', 2000, within=6),
    'garbled': relay_fault('garble', says=60, within=10),
    'page-of-a-proxy': relay_fault('page', says=20, within=10),
    'loss-5': Fault(lossy(5), no_loss, within=6),
    'loss-30': Fault(lossy(30), no_loss, within=15),
    'late-2s-loss-5': Fault(late_and_lossy, on_time, within=15),
    'forgotten': Fault(cut_for_good, forget_and_mend, says=10, within=15),
    'leader-lost': Fault(kill_leader, start_server, within=6, stores=('etcd',), members=3),
    'full': Fault(fill_up, make_room, writes=False, stores=('etcd',), quota=16 << 20),
    'token-expired': Fault(wait_for_tokens_to_end, nothing, stores=('etcd',), tls=True, users=True,
                           token_ttl=3),
    'certificates-rotated': Fault(rotate, nothing, stores=('etcd',), tls=True, users=True,
                                  token_ttl=3),
    'token-changed': Fault(new_token, give_new_token, says=20, within=20, stores=('kubernetes',)),
    'certificate-of-server': Fault(rotate_api, nothing, stores=('kubernetes',)),
    'etcd-below-killed': Fault(lambda s: s.etcd.stop(kill=True), lambda s: s.etcd.start(),
                               writes=False, within=20, stores=('kubernetes',)),
}
QUICK = {'etcd': ['killed', 'forgotten', 'black-hole'],
         'kubernetes': ['forgotten', 'token-changed']}


def measure_idleness(scene):
    """The part of a processor that the agent uses."""
    pid = scene.agent.status()['pid']
    before, start = cpu_seconds(pid), time.monotonic()
    time.sleep(IDLE)
    return (cpu_seconds(pid) - before) / (time.monotonic() - start)


def ride(scene, name, fault):
    """One fault from begin to end; lines of what went wrong."""
    wrong = []
    watcher = scene.watcher
    watcher.opened = watcher.lost = watcher.rounds = 0
    table, _ = scene.table()
    earliest = time.monotonic()  # a beginning may take its time
    fault.begin(scene)
    began = time.monotonic()
    said = '-'
    if fault.says:
        wait_until(scene.is_lost, f'{name}: status says that the datastore is away', fault.says)
        said = f'{time.monotonic() - began:.1f} s'
    if fault.writes:
        scene.write(True)
    cpu = measure_idleness(scene)
    if cpu > CPU_MOST:
        wrong.append(f'the agent used {cpu:.2f} of a processor')
    if fault.says:
        seen = scene.datastore()
        if not 0 <= seen.get('lostSeconds', -1) <= time.monotonic() - earliest + 1:
            wrong.append(f'status says {seen} after {time.monotonic() - began:.1f} s')
    fault.end(scene)
    ended = time.monotonic()
    within = fault.within + (COLD if fault.is_cold and scene.api else 0)
    if not fault.writes:
        scene.write(True)
    wait_until(scene.is_closed, f'{name}: the change arrives', within + 30, 0.02)
    took = time.monotonic() - ended
    if took > within:
        wrong.append(f'the change took {took:.1f} s, at most {within} s were promised')
    wait_until(lambda: not scene.is_lost(), f'{name}: status says that the datastore is back', 30)
    scene.write(False)
    wait_until(scene.is_open, f'{name}: the change is undone', 30, 0.02)
    after, _ = scene.table()
    if sorted(after.splitlines()) != sorted(table.splitlines()):
        changed = set(after.splitlines()) ^ set(table.splitlines())
        wrong.append(f'the table is not what it was: {sorted(changed)[:6]}')
    if watcher.opened:
        wrong.append(f'{watcher.opened} connections got through that should not')
    if watcher.lost > watcher.rounds // 20:  # a busy machine may lose one
        wrong.append(f'{watcher.lost} connections of {2 * watcher.rounds} did not get through')
    print(f'{name:22} said away after {said}; CPU {cpu:.3f}; change enforced {took:.1f} s after '
          f'the end; {watcher.rounds} rounds of probes' + ''.join(f'\n    {w}' for w in wrong),
          flush=True)
    return wrong


def unchanged(scene):
    """Away and back with nothing changed: the kernel is not touched."""
    before = scene.table()
    scene.relay('refuse')
    wait_until(scene.is_lost, 'status says that the datastore is away', 10)
    forget_and_mend(scene)
    wait_until(lambda: not scene.is_lost(), 'status says that the datastore is back', 30)
    scene.agent.call('status', '--wait')
    after = scene.table()
    print(f'nothing changed: {after[1] - before[1]} transactions', flush=True)
    return [] if before == after else ['the table was written to']


def main(kind, *names):
    """Faults that need the same servers share them."""
    if not names:
        names = QUICK[kind]
    elif names == ('all',):
        names = [name for name, fault in FAULTS.items() if kind in fault.stores]
    wrong = []
    start = time.monotonic()
    by_options = {}
    for name in names:
        by_options.setdefault(json.dumps(FAULTS[name].options), []).append(name)
    for options, group in by_options.items():
        with contextlib.ExitStack() as stack:
            scene = Scene(stack, kind, **json.loads(options))
            for name in group:
                try:
                    wrong += ride(scene, name, FAULTS[name])
                except AssertionError as error:
                    log = scene.agent.log.read_text(encoding='utf-8')[-3000:]
                    print(f'{name}: FAILED {error}\n{scene.datastore()}\n{log}', flush=True)
                    wrong.append(f'{name}: {error}')
                    break
            else:
                if options == '{}':
                    wrong += unchanged(scene)
    print(f'{kind}: {len(names)} faults, {len(wrong)} things wrong, '
          f'{time.monotonic() - start:.0f} s')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
