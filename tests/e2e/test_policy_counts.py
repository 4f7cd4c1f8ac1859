#!/usr/bin/python3
"""What is seen of policies at work: counters of each rule, of lists that are merged too; lines of
Log rules; what staged policies would have decided; connections cut by establishedPolicy."""

import json
import os
import pathlib
import subprocess
import sys
import time
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent, forget_connections, pod_object  # noqa: E402
from lab import PYTHON, Lab  # noqa: E402

V3 = {'apiVersion': 'projectcalico.org/v3'}
A, B, C = '10.80.0.1', '10.80.0.2', '10.80.0.3'


def k8s(name, ingress, labels=None):
    return {'apiVersion': 'networking.k8s.io/v1', 'kind': 'NetworkPolicy',
            'metadata': {'name': name, 'namespace': 'n'},
            'spec': {'podSelector': {'matchLabels': labels or {'app': 'b'}},
                     'policyTypes': ['Ingress'], 'ingress': ingress}}


def calico(name, ingress, kind='NetworkPolicy', **more):
    return {**V3, 'kind': kind, 'metadata': {'name': name, 'namespace': 'n'},
            'spec': {'selector': "app == 'b'", 'types': ['Ingress'], 'ingress': ingress, **more}}


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f'FAILED {what}:\nfound  {found}\nwanted {wanted}')
    print(f'ok: {what}', flush=True)


class World:
    def __init__(self, lab, agent):
        self.lab, self.agent = lab, agent
        lab.sysctl('node', {'net.ipv4.ip_forward': 1})
        pods = [types.SimpleNamespace(name=n, namespace='n', labels={'app': n}, ports=[], ips=[ip])
                for n, ip in (('a', A), ('b', B), ('c', C))]
        agent.apply([{**V3, 'kind': 'IPPool', 'metadata': {'name': 'v4'},
                      'spec': {'cidr': '10.80.0.0/16'}},
                     {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'n'}}] +
                    [pod_object(pod) for pod in pods])
        for pod in pods:
            lab.netns(pod.name)
            agent.call('pod', 'add', f'n/{pod.name}', '--cni-bin', agent.cni_bin, '--netns',
                       lab.path(pod.name))
            lab.listen(pod.name, [('TCP', 80), ('TCP', 81), ('UDP', 53)])

    def reach(self, src, address, port, proto='tcp'):
        return self.lab.probe(src, [(proto, address, port)], 0.5)[0]['state'] == 'open'

    def counts(self, *policy):
        """{(policy, rule): packets} of rules that counted something."""
        said = json.loads(self.agent.call('policy', 'counters', '-o', 'json'))
        found = {}
        for r in said['rules']:
            name = r['policy'].rsplit('/', 1)[1]
            if r['packets'] and (not policy or name in policy):
                found[name, r['rule']] = r['packets']
        return found


def counters(w):
    plain = [k8s('ports', [{'ports': [{'port': 80}]}, {'ports': [{'port': 9999}]}]),
             k8s('peers', [{'from': [{'podSelector': {'matchLabels': {'app': 'a'}}}],
                            'ports': [{'port': 81}]},
                           {'from': [{'podSelector': {'matchLabels': {'app': 'c'}}}]}]),
             k8s('nets', [{'from': [{'ipBlock': {'cidr': '10.80.0.0/30'}}],
                           'ports': [{'port': 53, 'protocol': 'UDP'}]},
                          {'from': [{'ipBlock': {'cidr': f'{A}/32'}}],
                           'ports': [{'port': 53, 'protocol': 'UDP'}]}])]
    w.agent.apply(plain)
    expect('nobody has passed', w.counts('ports', 'peers', 'nets'), {})
    for _ in range(3):
        assert w.reach('a', B, 80)
    assert w.reach('a', B, 81)
    assert w.reach('c', B, 81)
    expect('rules of merged lists', w.counts('ports', 'peers'),
           {('ports', 0): 3, ('peers', 0): 1, ('peers', 1): 1})
    assert w.reach('a', B, 53, 'udp')
    found = w.counts('nets')
    expect('a prefix, an address', sum(found.values()), 1)
    table = w.agent.call('policy', 'counters', 'n/ports')
    expect('the table', [line.split()[:5] for line in table.splitlines()],
           [['POLICY', 'TIER', 'DIRECTION', 'RULE', 'PACKETS'],
            ['KubernetesNetworkPolicy/n/ports', 'default', 'ingress', '0', '3'],
            ['KubernetesNetworkPolicy/n/ports', 'default', 'ingress', '1', '0']])
    mixed = calico('mixed', [{'action': 'Deny', 'protocol': 'TCP', 'destination': {'ports': [81]},
                              'source': {'selector': "app == 'a'"}},
                             {'action': 'Log'}, {'action': 'Allow', 'protocol': 'TCP'}], order=10)
    w.agent.apply([mixed])
    forget_connections(w.lab, 'node')
    assert not w.reach('a', B, 81)
    assert w.reach('a', B, 80)
    found = w.counts('mixed')
    expect('a chain of its own', (found['mixed', 0] > 0, found['mixed', 1], found['mixed', 2]),
           (True, 1, 1))
    w.agent.kill()
    w.agent.start()
    expect('a new agent counts on', w.counts('mixed'), found)
    w.agent.delete(plain + [mixed])


def log_lines(w):
    policy = calico('logs', [{'action': 'Log', 'protocol': 'TCP', 'destination': {'ports': [81]}},
                             {'action': 'Deny', 'protocol': 'TCP', 'destination': {'ports': [81]}},
                             {'action': 'Allow'}])
    w.agent.apply([policy])
    forget_connections(w.lab, 'node')
    assert not w.reach('a', B, 81)
    end = time.monotonic() + 5
    line = ''
    while not line and time.monotonic() < end:
        lines = [x for x in w.agent.log.read_text().splitlines()
                 if ' policy packet ' in x and 'n/logs#0' in x]
        line = lines[0] if lines else ''
        time.sleep(0.05)
    for part in ('rule="NetworkPolicy default n/logs#0"', f'src={A}', 'src_pod="n/a"', f'dst={B}',
                 'dst_port=81', 'dst_pod="n/b"', 'protocol=TCP'):
        if part not in line:
            sys.exit(f'FAILED log line: {part} is not in: {line or w.agent.log.read_text()[-2000:]}')
    print('ok: a line with the names of rule and pods', flush=True)
    # A flood: 3,000 datagrams from one socket of new ports would be 3,000 lines.
    w.agent.apply([calico('logs', [{'action': 'Log'}, {'action': 'Deny', 'protocol': 'UDP'},
                                   {'action': 'Allow'}])])
    before = len(w.agent.log.read_text().splitlines())
    sent = w.lab.run('a', [PYTHON, '-c', FLOOD, B])
    time.sleep(1.2)
    w.reach('a', B, 80)  # its number tells how many were lost at the end of the flood
    end = time.monotonic() + 25
    lines = lost = 0
    while lines + lost < int(sent) and time.monotonic() < end:
        time.sleep(0.2)
        text = w.agent.log.read_text().splitlines()[before:]
        lines = sum(' policy packet ' in x for x in text)
        lost = sum(int(x.split('lost=')[1].split()[0]) for x in text if 'packets_not_logged' in x)
    counted = w.counts('logs')['logs', 0]
    expect('bounded in rate', lines <= 400, True)
    expect('losses are counted and said', lines + lost >= int(sent), True)
    expect('counted all the same', counted >= int(sent), True)
    w.agent.delete([policy])


FLOOD = '''
import socket, sys
n = 0
for port in range(20000, 23000):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('', port))
    s.sendto(b'x', (sys.argv[1], 7))
    s.close()
    n += 1
print(n)
'''


def staged(w):
    now = k8s('now', [{}])
    policy = calico('later', [{'action': 'Allow', 'protocol': 'TCP', 'destination': {'ports': [80]}},
                              {'action': 'Deny', 'protocol': 'TCP', 'destination': {'ports': [81]}}],
                    kind='StagedNetworkPolicy', order=10)
    w.agent.apply([now, policy])
    forget_connections(w.lab, 'node')
    expect('staged policies decide nothing', (w.reach('a', B, 80), w.reach('a', B, 81)),
           (True, True))
    found = w.counts('later')
    expect('what they would decide is counted', (found['later', 0], found['later', 1]), (1, 1))
    w.agent.apply([{**policy, 'spec': {'stagedAction': 'Ignore', 'selector': 'all()'}}])
    table = w.lab.run('node', ['nft', 'list', 'table', 'inet', 'margay'])
    expect('ignored ones leave nothing', 'staged' in table, False)
    w.agent.apply([{**policy, 'kind': 'NetworkPolicy'}])
    forget_connections(w.lab, 'node')
    expect('enforced they decide', (w.reach('a', B, 80), w.reach('a', B, 81)), (True, False))
    w.agent.delete([now, policy, {**policy, 'kind': 'NetworkPolicy'}])


CLIENT = '''
import socket, sys, time
s = socket.create_connection((sys.argv[1], 82), 2)
s.settimeout(1)
print('open', flush=True)
for line in sys.stdin:
    try:
        s.sendall(b'x' * 10)
        time.sleep(0.3)
        import fcntl, struct, termios
        left = struct.unpack('i', fcntl.ioctl(s.fileno(), termios.TIOCOUTQ, b'0000'))[0]
        print('stuck' if left else 'through', flush=True)
    except OSError as e:
        print('stuck', flush=True)
'''

class Connection:
    """An open TCP connection; asks whether what it sends is acknowledged."""

    def __init__(self, w, src, address):
        self.p = w.lab.spawn(src, [PYTHON, '-c', CLIENT, address], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
        assert self.p.stdout.readline() == 'open\n'

    def state(self):
        self.p.stdin.write('\n')
        self.p.stdin.flush()
        return self.p.stdout.readline().strip()


def established(w):
    felix = {**V3, 'kind': 'FelixConfiguration', 'metadata': {'name': 'default'}, 'spec': {}}
    hold = [w.lab.spawn(n, [PYTHON, '-c', HOLD], stdout=subprocess.PIPE) for n in ('b', 'c')]
    for process in hold:
        process.stdout.readline()
    allowed, denied = Connection(w, 'a', C), Connection(w, 'a', B)
    closed = k8s('closed', [])
    w.agent.apply([closed])
    time.sleep(0.5)
    expect('established connections go on by default', denied.state(), 'through')
    w.agent.delete([closed])
    w.agent.apply([{**felix, 'spec': {'establishedPolicy': 'cut'}}])
    time.sleep(0.5)
    expect('nothing is cut that is allowed', (allowed.state(), denied.state()),
           ('through', 'through'))
    w.agent.apply([closed])
    time.sleep(0.7)
    expect('cut: exactly what is denied now', (allowed.state(), denied.state()),
           ('through', 'stuck'))
    if 'established_cut connections=' not in w.agent.log.read_text():
        sys.exit(f'FAILED: {w.agent.log.read_text()[-1500:]}')
    said = w.lab.run('node', ['sh', '-c', f'{w.agent.margay} --state-dir {w.agent.state} explain '
                                          f'n/a n/c tcp/82 || true'])
    expect('explain names the kernel\'s count', 'packets have matched that rule' in said, True)
    w.agent.apply([felix])
    w.agent.delete([closed])
    # Switched on and something denied by one and the same burst.
    again = Connection(w, 'a', B)
    w.agent.apply([{**felix, 'spec': {'establishedPolicy': 'cut'}}, closed, k8s('c', [{}], {'app': 'c'})])
    time.sleep(0.7)
    expect('switched on together with a policy', again.state(), 'stuck')
    w.agent.apply([felix])
    w.agent.delete([closed, k8s('c', [])])


HOLD = '''
import socket, threading
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('', 82))
s.listen()
print('ready', flush=True)
def take(c):
    while c.recv(100):
        pass
while True:
    threading.Thread(target=take, args=(s.accept()[0],)).start()
'''

def main():
    with Lab() as lab:
        lab.netns('node')
        with Agent(lab, 'node') as agent:
            w = World(lab, agent)
            for part in (counters, log_lines, staged, established):
                part(w)
    return 0


if __name__ == '__main__':
    os.environ['PYTHONUNBUFFERED'] = '1'
    sys.exit(main())
