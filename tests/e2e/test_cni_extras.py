#!/usr/bin/python3
"""Host ports, floating addresses and rates of pods, with real packets: over IPv4 and IPv6, from outside,
from other pods, from the pod itself and from the host; refused where they must be; there again after
the agent was killed and after somebody removed them; nothing left after DEL.

Usage: test_cni_extras.py [PART…]
"""

import hashlib
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent  # noqa: E402
from lab import Lab  # noqa: E402
from test_cni_life import Node  # noqa: E402
from test_network import until  # noqa: E402

EXT = {'node': ('192.0.2.1', 'fd92::1'), 'out': ('192.0.2.2', 'fd92::2')}
DUAL = {'type': 'margay-ipam', 'assign_ipv4': 'true', 'assign_ipv6': 'true'}
FLOW = [('TCP', 80), ('UDP', 53), ('SCTP', 99), ('TCP', 8080)]
POOLS = [{'apiVersion': 'projectcalico.org/v3', 'kind': 'IPPool', 'metadata': {'name': name},
          'spec': {'cidr': cidr, **more}}
         for name, cidr, more in (('v4', '10.70.0.0/16', {}), ('v6', 'fd70::/48', {}),
                                  ('fip4', '198.51.100.0/24', {'disabled': True}),
                                  ('fip6', 'fd51::/64', {'disabled': True}))]
ALLOW = {'apiVersion': 'projectcalico.org/v3', 'kind': 'GlobalNetworkPolicy', 'metadata': {'name': 'all'},
         'spec': {'selector': 'all()', 'ingress': [{'action': 'Allow'}], 'egress': [{'action': 'Allow'}]}}


def said(lab, place, *targets):
    """What each (proto, address, port) answers: the name of who serves it, or None."""
    answers = lab.probe(place, [list(target) for target in targets], 1.5)
    return [a['peer'] if a['state'] == 'open' else None for a in answers]


def addresses(answer):
    return [ip['address'].split('/')[0] for ip in answer['ips']]


def mappings(*texts):
    """'8080:80/tcp@ADDRESS' as a runtime passes it; every second one as CRI spells it."""
    out = []
    for i, text in enumerate(texts):
        text, _, host = text.partition('@')
        ports, _, proto = text.partition('/')
        a, b = ports.split(':')
        one = {'hostPort': int(a), 'containerPort': int(b), 'protocol': proto, 'hostIP': host}
        out.append({k[0].upper() + k[1:]: v for k, v in one.items()} if i % 2 else one)
    return {'runtimeConfig': {'portMappings': out}, 'ipam': DUAL}


def ports(node, lab):
    node.agent.apply([ALLOW])
    before = node.state()
    conf = mappings('8080:80/tcp', '5353:53/udp', '9:99/sctp', f'8081:80/tcp@{EXT["node"][0]}',
                    '8082:80/tcp@0.0.0.0')
    own = addresses(node.must('ADD', 'web', 'p0', conf=conf))
    other = addresses(node.must('ADD', 'other', 'p1', conf={'ipam': DUAL}))
    wanted = [(proto, ip, port) for ip in EXT['node'] for proto, port in
              (('tcp', 8080), ('udp', 5353), ('sctp', 9))]

    def all_work(when):
        for place in ('out', 'p1', 'p0', 'node'):
            got = said(lab, place, *wanted)
            assert got == ['p0'] * len(wanted), f'{when}, from {place}: {got}'

    all_work('at first')
    local = [('tcp', '127.0.0.1', 8080), ('tcp', '127.0.0.1', 8082), ('tcp', '127.0.0.1', 8081),
             ('tcp', EXT['node'][0], 8081), ('tcp', EXT['node'][0], 8082),
             ('tcp', EXT['node'][1], 8082), ('tcp', '::1', 8080)]
    got = said(lab, 'node', *local)
    assert got == ['p0', 'p0', None, 'p0', 'p0', None, None], got
    # What only passes through is nobody's host port.
    passing = [('tcp', other[0], 8080), ('tcp', other[1], 8080), ('tcp', own[0], 8080)]
    assert said(lab, 'out', *passing) == ['p1', 'p1', 'p0']
    code, answer = node.call('ADD', 'second', 'p2', conf=mappings('8080:80/tcp'))
    assert code and answer['code'] == 11 and 'host port 8080 is taken by container web' in \
        answer['msg'], answer
    code, answer = node.call('ADD', 'second', 'p2', conf=mappings('8083:0/tcp'))
    assert code and answer['code'] == 7 and 'containerPort' in answer['msg'], answer
    code, answer = node.call('ADD', 'second', 'p2', conf=mappings('8083:1/icmp'))
    assert code and answer['code'] == 7 and 'tcp, udp or sctp' in answer['msg'], answer
    # Policy is asked with the pod's own port and address.
    deny = {'apiVersion': 'projectcalico.org/v3', 'kind': 'GlobalNetworkPolicy',
            'metadata': {'name': 'only-udp'},
            'spec': {'selector': 'all()', 'types': ['Ingress'],
                     'ingress': [{'action': 'Allow', 'protocol': 'UDP',
                                  'destination': {'ports': [53]}}]}}
    node.agent.delete([ALLOW])
    node.agent.apply([deny])
    got = said(lab, 'out', *wanted)
    assert got == [None, 'p0', None] * 2, got
    node.agent.apply([ALLOW])
    node.agent.delete([deny])
    node.agent.call('status', '--wait')
    node.agent.kill()
    all_work('without an agent')
    node.agent.start()
    all_work('after a kill')
    table = lab.run('node', ['nft', '-s', 'list', 'table', 'inet', 'margay'])
    for harm in ('flush map inet margay host-ports4', 'flush chain inet margay host-dnat',
                 'delete element inet margay host-ip-ports4 { 192.0.2.1 . tcp . 8081 }'):
        lab.run('node', ['nft', *harm.split()])
        until(lambda: lab.run('node', ['nft', '-s', 'list', 'table', 'inet', 'margay']) == table)
    all_work('after repairs')
    node.must('ADD', 'web2', 'p2', conf=mappings('8090:80/tcp'))
    node.must('DEL', 'web', 'p0')
    assert said(lab, 'out', *wanted) == [None] * len(wanted)
    assert said(lab, 'out', ('tcp', EXT['node'][0], 8090)) == ['p2']
    node.must('DEL', 'web2', 'p2')
    node.must('DEL', 'other', 'p1')
    node.expect('ports', before)


CLIENT = """
import socket, sys, time
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], int(sys.argv[2])))
s.settimeout(0.2)
print('ready', flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:
    try:
        s.send(b'?')
        print(s.recv(100).decode(), flush=True)
        break
    except (ConnectionRefusedError, TimeoutError, socket.timeout):
        time.sleep(0.05)
"""


def stale(node, lab):
    """UDP clients that asked a host port before it led to a pod, and go on: they reach the pod."""
    before = node.state()
    targets = [(EXT['node'][0], 5399), (EXT['node'][1], 5399), (EXT['node'][0], 5400)]
    clients = [lab.spawn('out', [sys.executable, '-c', CLIENT, ip, str(port)], stdout=-1, text=True)
               for ip, port in targets]
    bystander = '192.0.2.9'  # what only passes through the node stays
    for client in clients:
        assert client.stdout.readline() == 'ready\n'
    tracked = lambda: lab.run('node', ['conntrack', '-L', '-p', 'udp', '--dport', '5399'])  # noqa: E731
    until(lambda: tracked().count('dport=5399') >= 2)
    lab.run('node', ['conntrack', '-I', '-p', 'udp', '-s', EXT['out'][0], '-d', bystander, '--sport', '7',
                     '--dport', '5399', '-t', '600'])
    node.must('ADD', 'web', 'p0', conf=mappings('5399:53/udp', f'5400:53/udp@{EXT["node"][0]}'))
    for client in clients:
        assert client.stdout.readline() == '?p0\n', client.args  # the prober sends it back, and who it is
    assert bystander in tracked(), tracked()
    node.must('DEL', 'web', 'p0')
    node.expect('stale', before)


def floating(node, lab):
    before = node.state()
    felix = {'apiVersion': 'projectcalico.org/v3', 'kind': 'FelixConfiguration',
             'metadata': {'name': 'default'}, 'spec': {'floatingIPs': 'Enabled'}}
    def pod(name, ips):
        return {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {
            'name': name, 'namespace': 'default', 'annotations': {
                'cni.projectcalico.org/floatingIPs': json.dumps(ips)}},
            'spec': {'nodeName': node.agent.name, 'containers': [{'name': 'main'}]}}

    objects = [{'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'default'}}, felix,
               pod('f', ['198.51.100.7', 'fd51::7']), pod('bad', ['203.0.113.9']), pod('g', ['198.51.100.7'])]
    node.agent.apply(objects)
    args = lambda name: {'args': f'K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}'}  # noqa: E731
    conf = {'feature_control': {'floating_ips': True}, 'ipam': DUAL}
    code, answer = node.call('ADD', 'f', 'p0', conf={'ipam': DUAL}, **args('f'))
    assert code and 'not allowed in this network' in answer['msg'], answer
    code, answer = node.call('ADD', 'bad', 'p2', conf=conf, **args('bad'))
    assert code and answer['code'] == 7 and '203.0.113.9' in answer['msg'] and \
        'is in no IPPool' in answer['msg'], answer
    node.must('ADD', 'f', 'p0', conf=conf, **args('f'))
    node.must('ADD', 'other', 'p1', conf={'ipam': DUAL})
    targets = [('tcp', ip, 80) for ip in ('198.51.100.7', 'fd51::7')]

    def all_work(want, when):
        for place in ('out', 'p1', 'p0', 'node'):
            got = said(lab, place, *targets)
            assert got == want, f'{when}, from {place}: {got}'

    all_work(['p0', 'p0'], 'at first')
    node.must('ADD', 'g', 'p2', conf=conf, **args('g'))  # the same address: one has it, nothing breaks
    all_work(['p0', 'p0'], 'with a rival')
    node.agent.delete([felix])
    node.agent.call('status', '--wait')
    all_work([None, None], 'switched off')
    node.agent.apply([felix])
    pool = [p for p in POOLS if p['metadata']['name'] == 'fip6']
    node.agent.delete(pool)
    node.agent.call('status', '--wait')
    all_work(['p0', None], 'without a pool')
    node.agent.apply(pool)
    node.agent.kill()
    node.agent.start()
    all_work(['p0', 'p0'], 'after a kill')
    node.must('DEL', 'f', 'p0', **args('f'))
    assert said(lab, 'out', *targets) == ['p2', None]  # the rival has it now
    node.must('DEL', 'g', 'p2', **args('g'))
    node.must('DEL', 'other', 'p1')
    node.agent.delete(objects[1:])
    node.agent.call('status', '--wait')
    node.expect('floating', before)


SEND = ("import socket,sys,time; s=socket.create_connection((sys.argv[1],7000)); n=int(sys.argv[2])\n"
        "t=time.monotonic(); s.sendall(b'x'*n); s.shutdown(1); s.recv(1)\n"
        "print(n/(time.monotonic()-t))")
SINK = ("import socket,sys; l=socket.create_server((sys.argv[1],7000)); print('ready',flush=True)\n"
        "while 1:\n c,_=l.accept()\n while c.recv(1<<16): pass\n c.close()")


def bandwidth(node, lab):
    """Bytes a second by TCP, each way, against the rate that was asked for."""
    before = node.state()
    rate = 1_000_000  # bytes a second
    pod = {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {
        'name': 'slow', 'namespace': 'default', 'annotations': {
            'kubernetes.io/ingress-bandwidth': '8M', 'qos.projectcalico.org/egressBandwidth': '8000k',
            'qos.projectcalico.org/ingressBurst': 'nonsense'}},
        'spec': {'nodeName': node.agent.name, 'containers': [{'name': 'main'}]}}
    namespace = {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'default'}}
    capability = {'runtimeConfig': {'bandwidth': {'ingressRate': 8 * rate, 'ingressBurst': 4294967295,
                                                  'egressRate': 8 * rate, 'egressBurst': 4294967295}}}
    fast = addresses(node.must('ADD', 'fast', 'p1'))[0]

    def speeds(slow):
        sinks = []
        for place, ip in (('p0', slow), ('p1', fast)):
            sinks.append(lab.spawn(place, [sys.executable, '-c', SINK, ip], stdout=-1, text=True))
            assert sinks[-1].stdout.readline() == 'ready\n'
        out = [float(lab.run(place, [sys.executable, '-c', SEND, ip, '2000000']))
               for place, ip in (('p1', slow), ('p0', fast))]
        for sink in sinks:
            sink.kill()
            sink.wait()
        return out

    def held(slow, when):
        got = speeds(slow)
        assert all(0.5 * rate < speed < 1.25 * rate for speed in got), f'{when}: {got}'
        return [round(speed / 1000) for speed in got]

    args = {'args': 'K8S_POD_NAMESPACE=default;K8S_POD_NAME=slow'}
    node.must('ADD', 'slow', 'p0')
    free = speeds(addresses(node.must('ADD', 'slow', 'p0'))[0])
    assert min(free) > 10 * rate, free
    node.must('DEL', 'slow', 'p0')
    answer = node.must('ADD', 'slow', 'p0', conf=capability)
    link = answer['interfaces'][0]['name']
    slow = addresses(answer)[0]
    found = [held(slow, 'capability')]
    node.agent.kill()
    for argv in (['qdisc', 'del', 'dev', link, 'root'], ['qdisc', 'del', 'dev', link, 'ingress']):
        lab.run('node', ['tc', *argv])
    node.agent.start()
    until(lambda: 'tbf' in lab.run('node', ['tc', 'qdisc', 'show', 'dev', link]) and
          'ingress' in lab.run('node', ['tc', 'qdisc', 'show', 'dev', link]))
    found.append(held(slow, 'after a restart'))
    node.must('DEL', 'slow', 'p0')
    node.agent.apply([namespace, pod])
    slow = addresses(node.must('ADD', 'slow', 'p0', **args))[0]
    found.append(held(slow, 'annotations'))
    # The annotations of the running pod change: another rate, none for one way, none at all, one again.
    link = 'cali' + hashlib.sha1(b'default.slow').hexdigest()[:11]
    index = json.loads(lab.run('node', ['ip', '-j', 'link', 'show', link]))[0]['ifindex']
    key = 'qos.projectcalico.org/'

    def rates():
        """What tc has: to the pod, from the pod."""
        ifb = 'mgb' + link[4:]
        seen = json.loads(lab.run('node', ['tc', '-j', 'qdisc', 'show']))
        of = {q['dev']: (q['options']['rate'], q['options']['burst']) for q in seen if q['kind'] == 'tbf'}
        has_ingress = any(q['kind'] == 'ingress' and q['dev'] == link for q in seen)
        assert has_ingress or ifb not in of, seen
        return of.get(link), of.get(ifb)

    def annotate(**annotations):
        pod['metadata']['annotations'] = {key + k: v for k, v in annotations.items()}
        node.agent.apply([pod])

    def rate_is(way, rate):
        """until() with a rate of one way"""
        until(lambda: (rates()[way] or (0, 0))[0] == rate)

    annotate(ingressBandwidth='16M', egressBandwidth='4M')
    rate_is(0, 2_000_000)
    rate_is(1, 500_000)
    annotate(ingressBandwidth='16M', ingressBurst='16M', egressBandwidth='4M')
    until(lambda: rates()[0][1] > 1_900_000)
    annotate(egressBandwidth='4M')
    rate_is(0, 0)
    rate_is(1, 500_000)
    node.agent.kill()
    node.agent.start()
    annotate()
    rate_is(1, 0)
    until(lambda: 'mgb' not in lab.run('node', ['ip', 'link']))
    assert not list(pathlib.Path(node.agent.state, 'attachments').iterdir())
    annotate(ingressBandwidth='8M', egressBandwidth='8M')
    rate_is(1, rate)
    found.append(held(slow, 'annotated again'))
    assert json.loads(lab.run('node', ['ip', '-j', 'link', 'show', link]))[0]['ifindex'] == index
    node.must('DEL', 'slow', 'p0', **args)
    node.must('DEL', 'fast', 'p1')
    node.agent.delete([pod])
    code, answer = node.call('ADD', 'x', 'p0', conf={'runtimeConfig': {'bandwidth': {'egressRate': 'x'}}})
    assert code and answer['code'] == 7 and 'egressRate' in answer['msg'], answer
    node.expect('bandwidth', before)
    return f'kB/s to and from the pod: {found}; without a limit {[round(x / 1000) for x in free]}'


def main(parts):
    with Lab() as lab:
        for name in ('node', 'out', 'p0', 'p1', 'p2'):
            lab.netns(name)
        lab.sysctl('node', {'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1})
        lab.link('node', 'ext0', 'out', 'eth0')
        for name, dev in (('node', 'ext0'), ('out', 'eth0')):
            lab.batch(name, [f'address add {EXT[name][0]}/24 dev {dev}',
                             f'address add {EXT[name][1]}/64 dev {dev} nodad'])
        lab.batch('out', [f'route add default via {EXT["node"][0]}',
                          f'route add default via {EXT["node"][1]}'])
        lab.batch('node', [f'route add default via {EXT["out"][0]}',
                           f'route add default via {EXT["out"][1]}'])
        for name in ('p0', 'p1', 'p2'):
            lab.listen(name, FLOW)
        with Agent(lab, 'node') as agent:
            agent.apply(POOLS)
            node = Node(lab, agent)
            node.must('ADD', 'first', 'p0', conf={'ipam': DUAL})  # blocks stay with the node
            node.must('DEL', 'first', 'p0')
            agent.apply([{'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'default'}}, ALLOW])
            for part in (ports, stale, floating, bandwidth):
                if parts and part.__name__ not in parts:
                    continue
                start = time.monotonic()
                text = part(node, lab)
                print(f'{part.__name__}: {time.monotonic() - start:.1f} s {text or ""}', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
