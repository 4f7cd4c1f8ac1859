#!/usr/bin/python3
"""Malformed policies that come from a datastore: each is refused with its field named, and lets
nothing through that the policy as it was meant would not: in doubt, deny.

Every field of well-formed policies of all kinds is replaced by values of wrong types and ranges.

    test_malformed.py ENGINE
"""

import copy
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from evaluator import NUMBERS, Packet  # noqa: E402
from generate import ADMIN_API, K8S, V3  # noqa: E402

WRONG = [5, -1, 70000, 1.5, True, '', 'x', 'a b', '=', 'global()', '1.2.3.4/33', '10.0.0.0/8', [], [5],
         ['x'], {}, {'x': 1}, [[]], 'Ingress', 'Allow', None]


def endpoint(name, ip, **labels):
    return {'apiVersion': V3, 'kind': 'WorkloadEndpoint',
            'metadata': {'name': name, 'namespace': 'n', 'labels': labels},
            'spec': {'orchestrator': 'k8s', 'node': 'n1', 'endpoint': 'eth0', 'containerID': name,
                     'interfaceName': f'cali{name}', 'ipNetworks': [f'{ip}/32'],
                     'profiles': ['kns.n'], 'ports': [{'name': 'http', 'protocol': 'TCP',
                                                       'port': 80}]}}


BASE = [{'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'n', 'labels': {'env': 'p'}}},
        {'apiVersion': V3, 'kind': 'Tier', 'metadata': {'name': 'first'}, 'spec': {'order': 5}},
        endpoint('a', '10.0.0.1', app='a'), endpoint('b', '10.0.0.2', app='b'),
        endpoint('c', '10.0.0.3', app='c'),
        {'apiVersion': V3, 'kind': 'GlobalNetworkPolicy', 'metadata': {'name': 'open'},
         'spec': {'order': 100, 'selector': "app != 'c'", 'types': ['Ingress', 'Egress'],
                  'ingress': [{'action': 'Allow', 'protocol': 'UDP'}],
                  'egress': [{'action': 'Allow', 'protocol': 'UDP'}]}}]


def calico(kind, rules, **spec):
    metadata = {'name': 'p'} if 'Global' in kind else {'name': 'p', 'namespace': 'n'}
    return {'apiVersion': V3, 'kind': kind, 'metadata': metadata,
            'spec': {'order': 10, 'selector': "app == 'a'", 'types': ['Ingress', 'Egress'],
                     'ingress': rules('source', 'destination'),
                     'egress': rules('destination', 'source'), **spec}}


def narrow(action):
    """Rules with every field, for one peer."""
    def rules(peer, own):
        return [{'action': action, 'ipVersion': 4, 'protocol': 'TCP',
                 'destination': {'ports': [80, '90:95'], 'notPorts': [81]},
                 peer: {'selector': "app == 'b'", 'notSelector': "app == 'zz'", 'nets': ['10.0.0.0/24'],
                        'notNets': ['10.0.0.9/32'],
                        **({'ports': [80, '90:95']} if peer == 'destination' else {})}},
                {'action': action, 'protocol': 'ICMP', 'icmp': {'type': 8, 'code': 0},
                 peer: {'serviceAccounts': {'names': ['x'], 'selector': 'all()'}}},
                {'action': action, 'notProtocol': 'TCP', peer: {'namespaceSelector': "env == 'q'"}}]
    return rules


PEER = {'podSelector': {'matchLabels': {'app': 'b'},
                        'matchExpressions': [{'key': 'app', 'operator': 'In', 'values': ['b']}]}}
POLICIES = [
    calico('NetworkPolicy', narrow('Allow')), calico('NetworkPolicy', narrow('Deny')),
    calico('GlobalNetworkPolicy', narrow('Allow'), namespaceSelector="env == 'p'",
           tier='first', serviceAccountSelector=''),
    calico('GlobalNetworkPolicy', narrow('Deny'), tier='first'),
    calico('GlobalNetworkPolicy', narrow('Pass'), tier='first'),
    {'apiVersion': K8S, 'kind': 'NetworkPolicy', 'metadata': {'name': 'p', 'namespace': 'n'},
     'spec': {'podSelector': {'matchExpressions': [{'key': 'app', 'operator': 'NotIn',
                                                    'values': ['b']}]},
              'policyTypes': ['Ingress', 'Egress'],
              'ingress': [{'from': [PEER], 'ports': [{'port': 80, 'endPort': 90, 'protocol': 'TCP'}]},
                          {'from': [{'ipBlock': {'cidr': '10.0.0.0/24', 'except': ['10.0.0.2/32']}}],
                           'ports': [{'port': 'http'}]}],
              'egress': [{'to': [{'namespaceSelector': {'matchLabels': {'env': 'q'}}}]}]}},
    {'apiVersion': ADMIN_API + 'v1alpha2', 'kind': 'ClusterNetworkPolicy', 'metadata': {'name': 'p'},
     'spec': {'tier': 'Admin', 'priority': 5, 'subject': {'namespaces': {}},
              'ingress': [{'action': 'Accept', 'from': [{'pods': {
                  'namespaceSelector': {}, 'podSelector': {'matchLabels': {'app': 'b'}}}}],
                  'protocols': [{'tcp': {'destinationPort': {'number': 80}}}]},
                  {'action': 'Pass', 'from': [{'namespaces': {'matchLabels': {'env': 'p'}}}]}],
              'egress': [{'action': 'Deny', 'to': [{'networks': ['10.0.0.0/30']}]}]}},
]


class Engine:
    def __init__(self, path):
        self.p = subprocess.Popen([path, '--lenient'], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)

    def ask(self, question):
        self.p.stdin.write(json.dumps(question) + '\n')
        self.p.stdin.flush()
        return self.p.stdout.readline().strip()

    def close(self):
        self.p.stdin.close()
        if self.p.wait(30):
            sys.exit(f'FAILED: the engine ended with {self.p.returncode}')


def packets():
    made = []
    for source in ('10.0.0.1', '10.0.0.2', '10.0.0.3', '192.0.2.1'):
        for target in ('10.0.0.1', '10.0.0.2', '10.0.0.3', '192.0.2.1'):
            if source != target:
                made += [Packet(source, target, protocol, 40000, port)
                         for protocol in ('TCP', 'UDP') for port in (80, 81, 92, 443)]
                made.append(Packet(source, target, NUMBERS['ICMP'], icmp=(8, 0)))
    return made


def places(node, path=()):
    """All places in a spec, the whole one too."""
    yield path
    for key in node if isinstance(node, dict) else range(len(node) if isinstance(node, list) else 0):
        yield from places(node[key], (*path, key))


def replaced(document, path, value):
    copied = copy.deepcopy(document)
    node = copied
    for step in ('spec', *path)[:-1]:
        node = node[step]
    node[('spec', *path)[-1]] = value
    return copied


def main(path):
    engine, wire = Engine(path), [p.wire() for p in packets()]
    for document in BASE:
        engine.ask({'put': document})
    refused = wrong = 0
    for policy in POLICIES:
        if engine.ask({'put': policy}) != 'valid':
            sys.exit(f'FAILED: {policy} should be valid')
        meant = engine.ask({'packets': wire}).split()
        for place in places(policy['spec']):
            for value in WRONG:
                bad = replaced(policy, place, value)
                said = engine.ask({'put': bad})
                if said == 'valid':
                    continue  # it says something else, but it says it well
                if policy['kind'] == 'ClusterNetworkPolicy' and (
                        not place or place[0] in ('subject', 'tier')):
                    continue  # without a subject or a tier it is skipped, as in Calico
                refused += 1
                field = '.'.join(str(step) for step in place if isinstance(step, str))
                found = engine.ask({'packets': wire}).split()
                wider = [w for w, one, two in zip(wire, meant, found)
                         if any(a == 'D' and b == 'A' for a, b in zip(one, two))]
                names_field = field.split('.')[-1] in said or 'spec' in said
                if wider or not names_field:
                    wrong += 1
                    if wrong <= 20:
                        print(f'FAILED {policy["kind"]} spec.{field} = {value!r}: {said}: lets through '
                              f'{wider[:2]}')
        engine.p.stdin.write(json.dumps({'delete': policy}) + '\n')
    engine.close()
    print(f'{refused} malformed policies, {wrong} of them wider than what was meant')
    return wrong > 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
