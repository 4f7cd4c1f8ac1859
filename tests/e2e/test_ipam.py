#!/usr/bin/python3
"""Addresses on a real agent and store: a pool that is full and recovers, a state that Calico wrote,
and the command line that shows, checks, repairs, releases, configures and splits.

Usage: test_ipam.py [sqlite|etcd|kubernetes]
"""

import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent  # noqa: E402
from lab import CommandFailed, Lab  # noqa: E402
from stores import open_store  # noqa: E402
from test_cni_life import Node  # noqa: E402

PODS = 6
NET = 'k8s-pod-network'
CALICO = 'projectcalico.org/v3'
OLD = '2026-01-02 03:04:05.6 +0000 UTC'


def pool(name, cidr, **spec):
    """An IPPool."""
    return {'apiVersion': CALICO, 'kind': 'IPPool', 'metadata': {'name': name},
            'spec': {'cidr': cidr, **spec}}


def item(key, value):
    """A document of `datastore import`."""
    return {'apiVersion': 'margay.io/v1', 'kind': 'StoredItem', 'space': 'i', 'key': key,
            'value': value}


def attribute(handle, namespace, name, node):
    """Who has an address, as Calico writes it."""
    return {'handle_id': handle, 'secondary': {'namespace': namespace, 'pod': name, 'node': node,
                                               'timestamp': OLD}}


class Case:
    """The node, and the command line with its exit code."""

    def __init__(self, lab, agent):
        self.node, self.agent, self.lab = Node(lab, agent), agent, lab

    def ask(self, *argv, stdin='', code=0):
        """Output of a command that is to end with a code."""
        got, out = 0, ''
        try:
            out = self.agent.call(*argv, stdin=stdin)
        except CommandFailed as failed:
            got, out = 1, str(failed)
        assert got == code, f'{argv}: {got}\n{out}'
        return out

    def put(self, *items):
        """Items of address management, as they are."""
        text = ''.join(f'---\n{json.dumps(one)}\n' for one in items)
        self.ask('datastore', 'import', '--overwrite', '-f', '-', stdin=text)

    def items(self):
        """All items of address management by key."""
        text = self.agent.call('datastore', 'export')
        docs = [json.loads(line) for line in text.splitlines() if line.startswith('{')]
        return {doc['key']: doc['value'] for doc in docs if doc['kind'] == 'StoredItem'}

    def add(self, i, code=0, **more):
        """ADD of pod i; its address, or the error."""
        got, answer = self.node.call('ADD', f'c{i}', f'p{i}', **more)
        assert bool(got) == bool(code), f'ADD {i}: {got} {answer}'
        return answer['ips'][0]['address'].split('/')[0] if got == 0 else answer

    def delete(self, i):
        """DEL of pod i."""
        self.node.must('DEL', f'c{i}', f'p{i}')


def full_pool(case):
    """Four addresses and five pods: the fifth is told why, and comes once one has gone."""
    case.agent.apply([pool('tiny', '10.70.0.0/30', blockSize=31)])
    ips = {case.add(i) for i in range(4)}
    assert ips == {f'10.70.0.{i}' for i in range(4)}, ips
    answer = case.add(4, code=1)
    assert answer['code'] == 11, answer
    for words in ('tiny (4 of 4 in use)', 'delete pods', 'add an IPPool'):
        assert words in answer['msg'] + answer.get('details', ''), answer
    case.delete(2)
    start = time.monotonic()
    assert case.add(4) in ips
    took = time.monotonic() - start
    case.add(5, code=1)
    case.agent.apply([pool('more', '10.71.0.0/30', blockSize=30)])
    assert case.add(5).startswith('10.71.0.')
    case.ask('ipam', 'check')
    show = json.loads(case.ask('ipam', 'show', '-o', 'json'))
    assert {p['name']: (p['total'], p['inUse'], p['free']) for p in show['pools']} == {
        'tiny': (4, 4, 0), 'more': (4, 1, 3)}, show
    for i in (0, 1, 3, 4, 5):
        case.delete(i)
    case.agent.delete([pool('tiny', '10.70.0.0/30'), pool('more', '10.71.0.0/30')])
    return f'{took:.1f} s from DEL to the next ADD'


KEY = '/ipam/v2/assignment/ipv4/block/10.44.0.0-29'
BLOCK = {
    'cidr': '10.44.0.0/29', 'affinity': 'host:n1', 'affinity_claim_time': '2026-01-02T03:04:05Z',
    'allocations': [0, None, 1, None, None, None, None, None], 'unallocated': [5, 1, 3, 4, 6, 7],
    'attributes': [attribute(f'{NET}.4f0c', 'shop', 'web-7', 'n1'),
                   attribute(f'{NET}.77aa', 'shop', 'db-0', 'n2')],
    'sequenceNumber': 1767323045000000000, 'deleted': False,
    'sequenceNumberForAllocation': {'0': 1767323045000000001, '2': 1767323045000000003}}


def put_calicos_state(case):
    """A block of two pods, as Calico left it."""
    case.put(item(KEY, BLOCK),
             item('/ipam/v2/host/n1/ipv4/block/10.44.0.0-29',
                  {'state': 'confirmed', 'deleted': False}),
             item(f'/ipam/v2/handle/{NET}.4f0c', {'block': {'10.44.0.0/29': 1}, 'deleted': False}),
             item(f'/ipam/v2/handle/{NET}.77aa', {'block': {'10.44.0.0/29': 1}, 'deleted': False}),
             item('/ipam/v2/config', {'strict_affinity': True, 'auto_allocate_blocks': True,
                                      'maxBlocksPerHost': 1}))


def calicos_state(case):
    """Calico's block is used; nothing is moved, nothing forgotten."""
    put_calicos_state(case)
    show = case.ask('ipam', 'show', '--show-configuration')
    assert 'MaxBlocksPerHost               1' in show, show
    # The agent reads settings anew when a pool changes (and every ten seconds).
    case.agent.apply([pool('old', '10.44.0.0/24', blockSize=29)])
    assert [case.add(0), case.add(1)] == ['10.44.0.5', '10.44.0.1']
    text = case.ask('ipam', 'show', '--ip=10.44.0.2')
    assert 'pod: db-0' in text and 'IP 10.44.0.2 is in use' in text, text
    text = case.ask('ipam', 'show', '--ip=10.44.0.3', code=1)
    assert 'is not assigned' in text, text
    text = case.ask('ipam', 'show', '--show-borrowed')
    assert '10.44.0.2   n2' in text and 'shop/db-0' in text, text
    case.delete(0)
    case.delete(1)
    now, block = case.items()[KEY], BLOCK
    assert now['allocations'] == block['allocations'], now
    assert now['attributes'] == block['attributes'], now
    assert now['sequenceNumberForAllocation'] == block['sequenceNumberForAllocation'], now
    assert now['sequenceNumber'] == block['sequenceNumber'] + 4, now
    assert now['unallocated'] == [3, 4, 6, 7, 5, 1], now
    case.ask('ipam', 'configure', '--strictaffinity=false', '--max-blocks-per-host=0')
    assert case.items()['/ipam/v2/config']['strict_affinity'] is False
    return 'no address moved'


def leaks(case):
    """Calico's two pods do not exist here: found, told, released by report and by repair."""
    text = case.ask('ipam', 'check', '--show-all-ips', code=1)
    for words in (f'10.44.0.0 leaked: handle {NET}.4f0c: pod shop/web-7 has no endpoint',
                  'Found 2 IPs that are allocated in IPAM but not actually in use',
                  'affinity=host:n1'):
        assert words in text, text
    text = case.ask('ipam', 'check', '-o', f'{case.agent.state}/report.json', code=1)
    report = json.loads(pathlib.Path(case.agent.state, 'report.json').read_text(encoding='utf-8'))
    assert [(p['ip'], p['problem']) for p in report['problems']] == [
        ('10.44.0.0', 'leaked'), ('10.44.0.2', 'leaked')], report
    file = f'--from-report={case.agent.state}/report.json'
    assert 'not locked' in case.ask('ipam', 'release', file, code=1)
    case.ask('ipam', 'release', '--ip=10.44.0.2')
    assert 'is not assigned' in case.ask('ipam', 'release', '--ip=10.44.0.2', code=1)
    # Given again meanwhile: the report's number is not the new one's.
    args = {'args': 'IP=10.44.0.2'}
    assert case.add(2, **args) == '10.44.0.2'
    case.ask('datastore', 'lock')
    text = case.ask('ipam', 'release', file)
    assert 'Released 1 of 2' in text, text
    case.ask('datastore', 'unlock')
    case.ask('ipam', 'check')
    # Books that disagree, and an address in use that nobody allocated.
    case.put(item(f'/ipam/v2/handle/{NET}.gone', {'block': {'10.44.0.0/29': 1}, 'deleted': False}),
             item('/ipam/v2/host/n7/ipv4/block/10.44.0.0-29',
                  {'state': 'confirmed', 'deleted': False}))
    case.ask('ipam', 'release', '--ip=10.44.0.2')
    text = case.ask('ipam', 'repair', '--dry-run', code=1)
    assert '3 problems; nothing was changed' in text, text
    assert text == case.ask('ipam', 'repair', '--dry-run', code=1)
    return ''


def foreign(case):
    """What the dry run told is done."""
    text = case.ask('ipam', 'repair')
    assert '3 problems repaired, 0 left' in text, text
    assert f'{NET}.c2' in case.ask('ipam', 'show', '--ip=10.44.0.2')
    case.delete(2)
    case.ask('ipam', 'check')
    return ''


def without_pods(case):
    """The command line alone, for a store whose endpoints are an API server's Pods."""
    case.agent.apply([pool('old', '10.44.0.0/24', blockSize=29)])
    put_calicos_state(case)
    assert 'pod: db-0' in case.ask('ipam', 'show', '--ip=10.44.0.2')
    assert 'shop/db-0' in case.ask('ipam', 'show', '--show-borrowed')
    assert 'MaxBlocksPerHost               1' in case.ask('ipam', 'show', '--show-configuration')
    case.ask('ipam', 'configure', '--max-blocks-per-host=0', '--ip-cooldown-seconds=0')
    case.put(item('/ipam/v2/host/n7/ipv4/block/10.44.0.0-29',
                  {'state': 'confirmed', 'deleted': False}),
             item(f'/ipam/v2/handle/{NET}.4f0c', {'block': {'10.44.0.0/29': 5}, 'deleted': False}))
    text = case.ask('ipam', 'repair', '--dry-run', code=1)
    assert '4 problems; nothing was changed' in text, text
    text = case.ask('ipam', 'repair')
    assert '4 problems repaired, 0 left' in text, text
    case.ask('ipam', 'check')
    assert 'not locked' in case.ask('ipam', 'split', '4', '--name=old', code=1)
    case.ask('datastore', 'lock')
    case.ask('ipam', 'split', '4', '--name=old')
    case.ask('datastore', 'unlock')
    case.ask('ipam', 'check')
    return ''


def split(case):
    """One pool becomes four; pods keep their addresses, new ones get some."""
    case.agent.apply([pool('old', '10.44.0.0/24', blockSize=29)])
    first = case.add(0)
    assert 'not locked' in case.ask('ipam', 'split', '4', '--name=old', code=1)
    case.ask('datastore', 'lock')
    case.ask('ipam', 'split', '4', '--cidr=10.44.0.0/24')
    case.ask('datastore', 'unlock')
    case.agent.call('status', '--wait')
    pools = json.loads(case.ask('get', 'ippools', '-o', 'json'))['items']
    assert {p['metadata']['name']: (p['spec']['cidr'], p['spec']['blockSize']) for p in pools} == {
        f'split-old-{i}': (f'10.44.0.{64 * i}/26', 29) for i in range(4)}, pools
    assert case.add(1) != first
    case.ask('ipam', 'check')
    case.delete(0)
    case.delete(1)
    return ''


def main(store='sqlite'):
    with Lab() as lab:
        lab.netns('node')
        lab.batch('node', ['link set lo up'])
        lab.sysctl('node', {'net.ipv4.ip_forward': 1})
        for i in range(PODS):
            lab.netns(f'p{i}')
        with open_store(store, lab, 'node') as opened, Agent(lab, 'node', store=opened) as agent:
            case = Case(lab, agent)
            parts = (full_pool, calicos_state, leaks, foreign, split)
            for part in parts if store != 'kubernetes' else (without_pods,):
                start = time.monotonic()
                said = part(case)
                print(f'{part.__name__}: {time.monotonic() - start:.1f} s {said}', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:2]))
