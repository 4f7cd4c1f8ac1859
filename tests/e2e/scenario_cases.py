"""Scenarios: policies over the topology's pods, changed step by step.

cases() yields (name, flows, steps); a step is (changes, expectations): changes are documents to put,
or Gone(document), or Pod('x/a', labels=…, account=…); expectations are lines like
`x/a > y/b tcp/80 yes`. What is not named is judged by the evaluator of tests/property alone.

The families follow the tests of upstream: Kubernetes' e2e netpol, the conformance profiles of the
network-policy-api, cyclonus' categories; and what Calico adds.
"""

import itertools

V3, K8S, ADMIN = 'projectcalico.org/v3', 'networking.k8s.io/v1', 'policy.networking.k8s.io/'
IN, OUT = 'Ingress', 'Egress'
TCP80, UDP81, PING, SCTP80 = ('TCP', 80), ('UDP', 81), ('ICMP', None), ('SCTP', 80)


class Gone:
    def __init__(self, document):
        self.document = document


class Pod:
    """A pod of the topology with other labels, or with a service account."""

    def __init__(self, name, labels=None, account=None):
        self.name, self.labels, self.account = name, labels, account


# ---- documents ----

def namespace(name, **labels):
    return {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': name, 'labels': labels}}


def account(ns, name, **labels):
    return {'apiVersion': 'v1', 'kind': 'ServiceAccount',
            'metadata': {'name': name, 'namespace': ns, 'labels': labels}}


def knp(direction, rules, pod=None, ns='x', name='k', types=None):
    """A Kubernetes NetworkPolicy for x/a unless said otherwise."""
    return {'apiVersion': K8S, 'kind': 'NetworkPolicy', 'metadata': {'name': name, 'namespace': ns},
            'spec': {'podSelector': {'matchLabels': {'pod': 'a'}} if pod is None else pod,
                     'policyTypes': types or [direction], direction.lower(): rules}}


def calico(direction, rules, name='c', ns='x', kind='NetworkPolicy', selector="pod == 'a'", **spec):
    metadata = {'name': name}
    if not kind.removeprefix('Staged').startswith('Global'):
        metadata['namespace'] = ns
    return {'apiVersion': V3, 'kind': kind, 'metadata': metadata,
            'spec': {'selector': selector, 'types': [direction], direction.lower(): rules, **spec}}


def gnp(direction, rules, name='g', selector="pod == 'a' && projectcalico.org/namespace == 'x'",
        **spec):
    return calico(direction, rules, name, kind='GlobalNetworkPolicy', selector=selector, **spec)


def tier(name, order, default='Deny'):
    return {'apiVersion': V3, 'kind': 'Tier', 'metadata': {'name': name},
            'spec': {'order': order, 'defaultAction': default}}


def network_set(nets, ns=None, name='s', **labels):
    metadata = {'name': name, 'labels': labels, **({'namespace': ns} if ns else {})}
    return {'apiVersion': V3, 'kind': 'NetworkSet' if ns else 'GlobalNetworkSet',
            'metadata': metadata, 'spec': {'nets': nets}}


def slice_of(service, ns, addresses, ports, name='slice'):
    return {'apiVersion': 'discovery.k8s.io/v1', 'kind': 'EndpointSlice', 'addressType': 'IPv4',
            'metadata': {'name': name, 'namespace': ns,
                         'labels': {'kubernetes.io/service-name': service}},
            'endpoints': [{'addresses': [a]} for a in addresses],
            'ports': [{'name': f'p{port}', 'protocol': proto, 'port': port}
                      for proto, port in ports]}


SUBJECT = {'pods': {'namespaceSelector': {'matchLabels': {'ns': 'x'}},
                    'podSelector': {'matchLabels': {'pod': 'a'}}}}


def admin(kind, direction, rules, priority=10, name='admin', subject=None):
    """kind: ANP, BANP, CNP (tier Admin), CNPB (tier Baseline). Actions as Kubernetes' older ones."""
    spec = {'priority': priority, 'subject': subject or SUBJECT}
    peers = 'from' if direction == IN else 'to'
    is_new = kind.startswith('CNP')
    spec[direction.lower()] = [
        {'action': 'Accept' if is_new and action == 'Allow' else action, peers: who,
         **({'protocols' if is_new else 'ports': ports} if ports else {})}
        for action, who, ports in rules]
    if is_new:
        spec['tier'] = 'Baseline' if kind == 'CNPB' else 'Admin'
    if kind == 'BANP':
        name = 'default'
        del spec['priority']
    return {'apiVersion': ADMIN + ('v1alpha2' if is_new else 'v1alpha1'),
            'kind': {'ANP': 'AdminNetworkPolicy', 'BANP': 'BaselineAdminNetworkPolicy'}.get(
                kind, 'ClusterNetworkPolicy'),
            'metadata': {'name': name}, 'spec': spec}


# ---- expectations ----

def peer_of(direction, other, flow='tcp/80', allowed=True, subject='x/a'):
    """The subject and another, seen in the direction that a policy governs."""
    ends = (other, subject) if direction == IN else (subject, other)
    return f'{ends[0]} > {ends[1]} {flow} {"yes" if allowed else "no"}'


def wants(direction, flow='tcp/80', **others):
    """wants(IN, y_b=True): lines for pods written with _ for /."""
    return [peer_of(direction, other.replace('_', '/'), flow, allowed)
            for other, allowed in others.items()]


def side(direction, peer, **own):
    """A Calico rule's peer, and match of its own side, as source or destination."""
    return {'source' if direction == IN else 'destination': peer,
            **({'destination' if direction == IN else 'source': own} if own else {})}


# ---- families ----

def deny_all():
    for directions in ([IN], [OUT], [IN, OUT]):
        policy = knp(directions[0], [], pod={}, types=directions)
        opened = knp(directions[0], [{}], pod={}, types=directions)
        for d in directions:
            opened['spec'][d.lower()] = [{}]
        yield (f'deny all {"+".join(directions)}', [TCP80, PING],
               [([policy], [peer_of(directions[0], 'y/b', allowed=False), 'y/a > z/a tcp/80 yes']),
                ([opened], [peer_of(directions[0], 'y/b')]),
                ([Gone(opened)], [peer_of(directions[0], 'y/b')])])


PEERS = {  # peer, who of x/b y/a y/b z/c matches, a change, who matches then
    'pods by label': ({'podSelector': {'matchLabels': {'pod': 'b'}}}, ['x/b'],
                      Pod('x/b', {'pod': 'other'}), []),
    'pods in a set': ({'podSelector': {'matchExpressions': [
        {'key': 'pod', 'operator': 'In', 'values': ['b', 'zz']}]}}, ['x/b'],
        Pod('x/b', {'pod': 'zz'}), ['x/b']),
    'pods not in a set': ({'podSelector': {'matchExpressions': [
        {'key': 'tier', 'operator': 'NotIn', 'values': ['db']}]}}, [], Pod('x/b', {}), ['x/b']),
    'pods with a label': ({'podSelector': {'matchExpressions': [
        {'key': 'extra', 'operator': 'Exists'}]}}, [], Pod('x/b', {'extra': ''}), ['x/b']),
    'pods without a label': ({'podSelector': {'matchExpressions': [
        {'key': 'tier', 'operator': 'DoesNotExist'}]}}, [], Pod('x/b', {'pod': 'b'}), ['x/b']),
    'all pods of the namespace': ({'podSelector': {}}, ['x/b'], Pod('y/b', {}), ['x/b']),
    'namespaces by label': ({'namespaceSelector': {'matchLabels': {'env': 'dev'}}}, ['y/a', 'y/b'],
                            namespace('z', ns='z', env='dev'), ['y/a', 'y/b', 'z/c']),
    'namespaces in a set': ({'namespaceSelector': {'matchExpressions': [
        {'key': 'ns', 'operator': 'In', 'values': ['z', 'x']}]}}, ['x/b', 'z/c'],
        namespace('z', ns='q'), ['x/b']),
    'namespaces not in a set': ({'namespaceSelector': {'matchExpressions': [
        {'key': 'env', 'operator': 'NotIn', 'values': ['prod', 'dev']}]}}, ['z/c'],
        namespace('y', ns='y'), ['y/a', 'y/b', 'z/c']),
    'namespaces with a label': ({'namespaceSelector': {'matchExpressions': [
        {'key': 'env', 'operator': 'Exists'}]}}, ['x/b', 'y/a', 'y/b'],
        namespace('y', ns='y'), ['x/b']),
    'namespaces without a label': ({'namespaceSelector': {'matchExpressions': [
        {'key': 'env', 'operator': 'DoesNotExist'}]}}, ['z/c'], namespace('z', env=''), []),
    'namespaces by name': ({'namespaceSelector': {'matchLabels': {
        'kubernetes.io/metadata.name': 'z'}}}, ['z/c'], Pod('z/c', {}), ['z/c']),
    'all namespaces': ({'namespaceSelector': {}}, ['x/b', 'y/a', 'y/b', 'z/c'],
                       namespace('y'), ['x/b', 'y/a', 'y/b', 'z/c']),
    'pods in namespaces': ({'namespaceSelector': {'matchLabels': {'ns': 'y'}},
                            'podSelector': {'matchLabels': {'pod': 'b'}}}, ['y/b'],
                           Pod('y/a', {'pod': 'b'}), ['y/a', 'y/b']),
    'a block': ({'ipBlock': {'cidr': '10.80.2.0/24'}}, ['y/a', 'y/b'], Pod('y/a', {}),
                ['y/a', 'y/b']),
    'a block with exceptions': ({'ipBlock': {'cidr': '10.80.0.0/16',
                                             'except': ['10.80.2.0/28', '10.80.1.0/24']}},
                                ['z/c'], namespace('z'), ['z/c']),
    'a block of one address': ({'ipBlock': {'cidr': '10.80.2.12/32'}}, ['y/b'], Pod('y/b', {}),
                               ['y/b']),
}
OTHERS = ['x/b', 'y/a', 'y/b', 'z/c']


def lines(direction, allowed, flow='tcp/80'):
    """IPv4 alone is meant by blocks, so the lines say 4."""
    return [peer_of(direction, other, flow + '/4', other in allowed) for other in OTHERS]


def kubernetes_peers():
    for (name, (peer, before, change, after)), direction, port in itertools.product(
            PEERS.items(), (IN, OUT), (None, 80)):
        field = 'from' if direction == IN else 'to'
        rule = {field: [peer], **({'ports': [{'port': 80}]} if port else {})}
        other = {field: [{'ipBlock': {'cidr': '10.80.3.0/24'}}]}
        both = {field: [peer, {'ipBlock': {'cidr': '10.80.3.0/24'}}]}
        yield (f'{direction}: {name}{", port 80" if port else ""}', [TCP80, UDP81],
               [([knp(direction, [rule])], lines(direction, before) + lines(
                   direction, [] if port else before, 'udp/81')),
                ([change], lines(direction, after)),
                ([knp(direction, [both])], lines(direction, {*after, 'z/c'})),
                ([knp(direction, [other])], lines(direction, ['z/c']))])


def and_or():
    """Two selectors in one peer are AND, two peers are OR."""
    one = {'namespaceSelector': {'matchLabels': {'ns': 'y'}}}
    two = {'podSelector': {'matchLabels': {'pod': 'b'}}}
    for direction in (IN, OUT):
        field = 'from' if direction == IN else 'to'
        yield (f'{direction}: AND or OR', [TCP80],
               [([knp(direction, [{field: [{**one, **two}]}])], lines(direction, ['y/b'])),
                ([knp(direction, [{field: [one, two]}])], lines(direction, ['x/b', 'y/a', 'y/b'])),
                ([knp(direction, [{field: [one]}, {field: [two], 'ports': [{'port': 81}]}])],
                 lines(direction, ['y/a', 'y/b']))])


PORTS = {  # ports, allowed flows of tcp/80 tcp/81 udp/81 sctp/80 at b as the destination
    'a number': ([{'port': 80}], ['tcp/80']), 'another': ([{'port': 81}], ['tcp/81']),
    'UDP': ([{'port': 81, 'protocol': 'UDP'}], ['udp/81']),
    'SCTP': ([{'port': 80, 'protocol': 'SCTP'}], ['sctp/80']),
    'a range': ([{'port': 79, 'endPort': 80}], ['tcp/80']),
    'a wide range': ([{'port': 1, 'endPort': 65535}], ['tcp/80', 'tcp/81']),
    'a name': ([{'port': 'web'}], ['tcp/81']),
    'a name of UDP': ([{'port': 'dns', 'protocol': 'UDP'}], ['udp/81']),
    'a name of another protocol': ([{'port': 'dns'}], []),
    'an unknown name': ([{'port': 'nothing'}], []),
    'a protocol': ([{'protocol': 'UDP'}], ['udp/81']),
    'several': ([{'port': 80}, {'port': 81, 'protocol': 'UDP'}], ['tcp/80', 'udp/81']),
    'an empty entry': ([{}], ['tcp/80', 'tcp/81']),
}


def kubernetes_ports():
    flows = [TCP80, ('TCP', 81), UDP81, SCTP80]

    def at(direction, allowed):
        ends = 'y/c > x/b' if direction == IN else 'y/c > x/b'
        return [f'{ends} {flow} {"yes" if flow in allowed else "no"}'
                for flow in ('tcp/80', 'tcp/81', 'udp/81', 'sctp/80')]
    for (name, (ports, allowed)), direction in itertools.product(PORTS.items(), (IN, OUT)):
        where = {'pod': {'matchLabels': {'pod': 'b' if direction == IN else 'c'}},
                 'ns': 'x' if direction == IN else 'y'}
        yield (f'{direction}: port {name}', flows,
               [([knp(direction, [{'ports': ports}], **where)], at(direction, allowed)),
                ([knp(direction, [{'ports': [{'port': 81}]}], **where)], at(direction, ['tcp/81'])),
                ([knp(direction, [{'ports': ports}, {'ports': [{'port': 81}]}], **where)],
                 at(direction, {*allowed, 'tcp/81'}))])


def stacked():
    for direction in (IN, OUT):
        field = 'from' if direction == IN else 'to'
        first = knp(direction, [{field: [{'podSelector': {}}]}], name='first')
        second = knp(direction, [{field: [{'namespaceSelector': {'matchLabels': {'ns': 'y'}}}]}],
                     name='second')
        empty = knp(direction, [], pod={}, name='empty')
        yield (f'{direction}: policies add up', [TCP80],
               [([empty], lines(direction, [])), ([first], lines(direction, ['x/b'])),
                ([second], lines(direction, ['x/b', 'y/a', 'y/b'])),
                ([Gone(first)], lines(direction, ['y/a', 'y/b'])),
                ([Gone(second), Gone(empty)], lines(direction, OTHERS))])
        yield (f'{direction}: a pod comes under a policy and leaves it', [TCP80],
               [([knp(direction, [], pod={'matchLabels': {'guarded': 'yes'}})],
                 lines(direction, OTHERS)),
                ([Pod('x/a', {'guarded': 'yes'})], lines(direction, [])),
                ([Pod('x/a', {'guarded': 'no'})], lines(direction, OTHERS))])
        other = OUT if direction == IN else IN
        both = knp(direction, [], types=[IN, OUT])
        yield (f'{direction}: the types change', [TCP80],
               [([both], lines(direction, []) + lines(other, [])),
                ([knp(direction, [])], lines(direction, []) + lines(other, OTHERS)),
                ([knp(other, [])], lines(direction, OTHERS) + lines(other, []))])
        yield (f'{direction}: the selector changes', [TCP80],
               [([knp(direction, [], pod={'matchLabels': {'pod': 'c'}})], lines(direction, OTHERS)),
                ([knp(direction, [])], lines(direction, []))])
        yield (f'{direction}: a namespace goes and comes again', [TCP80],
               [([Gone(namespace('x'))], lines(direction, [])),
                ([namespace('x', ns='x', env='prod')], lines(direction, OTHERS))])


ACTIONS = ('Allow', 'Deny', 'Pass', None)


def tiers_and_order():
    """One rule of each action in a first tier and in the default tier; None: no rule matches."""
    def rules(action, direction):
        return [{'action': action}] if action else [
            {'action': 'Allow', 'protocol': 'TCP',
             **side(direction, {'selector': "pod == 'nobody'"})}]

    def answer(actions):
        """actions: [(action, tier's default)] in order."""
        for action, default in actions:
            action = action or default
            if action in ('Allow', 'Deny'):
                return action == 'Allow'
        return True  # the namespace's profile

    for one, two, direction in itertools.product(ACTIONS, ACTIONS, (IN, OUT)):
        first = calico(direction, rules(one, direction), 'first.p', tier='first')
        second = calico(direction, rules(two, direction), 'p')

        def want(actions, direction=direction):
            return [peer_of(direction, 'y/b', allowed=answer(actions))]
        yield (f'{direction}: {one} in the first tier, {two} in the default tier', [TCP80],
               [([tier('first', 10), first, second], want([(one, 'Deny'), (two, 'Deny')])),
                ([tier('first', 10, 'Pass')], want([(one, 'Pass'), (two, 'Deny')])),
                ([tier('first', 2_000_000, 'Pass')], want([(two, 'Deny'), (one, 'Pass')])),
                ([Gone(second)], want([(one, 'Pass')]))])
    for one, two in itertools.permutations(('Allow', 'Deny', 'Pass'), 2):
        low = gnp(IN, [{'action': one}], 'b', order=5)
        high = gnp(IN, [{'action': two}], 'a', order=6)
        yield (f'order: {one} before {two}', [TCP80],
               [([low, high], [peer_of(IN, 'y/b', allowed=one != 'Deny')]),
                ([gnp(IN, [{'action': one}], 'b', order=7)],
                 [peer_of(IN, 'y/b', allowed=two != 'Deny')]),
                ([gnp(IN, [{'action': one}], 'b', order=6)],  # by name
                 [peer_of(IN, 'y/b', allowed=two != 'Deny')]),
                ([gnp(IN, [{'action': two}], 'a')],  # no order: last
                 [peer_of(IN, 'y/b', allowed=one != 'Deny')])])
    missing = calico(IN, [{'action': 'Allow'}], 'none.p', tier='none')
    yield ('a tier that does not exist', [TCP80],
           [([tier('none', 5), missing], [peer_of(IN, 'y/b')]),
            ([calico(IN, [], 'p')], [peer_of(IN, 'y/b')])])


# A match of x/a's peer in a rule; who of OTHERS it means, in a namespaced and in a global policy.
MATCHES = {
    'selector': ({'selector': "pod == 'b'"}, ['x/b'], ['x/b', 'y/b']),
    'selector of a set': ({'selector': "pod in {'b', 'c'}"}, ['x/b'], ['x/b', 'y/b', 'z/c']),
    'selector, not in': ({'selector': "pod not in {'b'}"}, [], ['y/a', 'z/c']),
    'selector with has': ({'selector': 'has(tier)'}, ['x/b'], ['x/b', 'y/a', 'y/b']),
    'selector without': ({'selector': '!has(tier)'}, [], ['z/c']),
    'selector, starts and ends': ({'selector': "tier starts with 'd' && tier ends with 'b'"},
                                  ['x/b'], ['x/b', 'y/b']),
    'selector, contains or': ({'selector': "tier contains 'e' || pod == 'c'"}, [],
                              ['y/a', 'z/c']),
    'selector of inherited labels': ({'selector': "pcns.env == 'dev'"}, [], ['y/a', 'y/b']),
    'notSelector': ({'notSelector': "pod == 'b'"}, [], ['y/a', 'z/c']),
    'namespaceSelector': ({'namespaceSelector': "env == 'dev'"}, ['y/a', 'y/b'], ['y/a', 'y/b']),
    'namespaceSelector all()': ({'namespaceSelector': 'all()'}, OTHERS, OTHERS),
    'namespaceSelector global()': ({'namespaceSelector': 'global()'}, [], []),
    'namespaceSelector and selector': ({'namespaceSelector': "ns != 'x'", 'selector': "pod != 'c'"},
                                       ['y/a', 'y/b'], ['y/a', 'y/b']),
    'nets': ({'nets': ['10.80.2.0/24', '10.80.3.13/32']}, ['y/a', 'y/b', 'z/c'],
             ['y/a', 'y/b', 'z/c']),
    'notNets': ({'notNets': ['10.80.2.0/24', '10.80.2.12/32']}, ['x/b', 'z/c'], ['x/b', 'z/c']),
    'nets and notNets': ({'nets': ['10.80.0.0/22'], 'notNets': ['10.80.2.12/32']},
                         ['x/b', 'y/a', 'z/c'], ['x/b', 'y/a', 'z/c']),
    'nets and selector': ({'nets': ['10.80.2.0/24'], 'selector': "pod == 'b'"}, [], ['y/b']),
    'account names': ({'serviceAccounts': {'names': ['robot']}, 'namespaceSelector': 'all()'},
                      ['y/b'], ['y/b']),
    'account selector': ({'serviceAccounts': {'selector': "kind == 'machine'"},
                          'namespaceSelector': 'all()'}, ['y/b'], ['y/b']),
}
ROBOT = [account('y', 'robot', kind='machine'), Pod('y/b', {'pod': 'b', 'tier': 'db'}, 'robot')]


def calico_matches():
    for (name, (peer, local, everywhere)), direction in itertools.product(MATCHES.items(), (IN, OUT)):
        allow = {'action': 'Allow', **side(direction, peer)}
        deny = {'action': 'Deny', **side(direction, peer)}
        yield (f'{direction}: {name}', [TCP80, PING],
               [([*ROBOT, calico(direction, [allow])], lines(direction, local)),
                ([calico(direction, [deny, {'action': 'Allow', 'ipVersion': 4}])],
                 lines(direction, set(OTHERS) - set(local))),
                ([Gone(calico(direction, [])), gnp(direction, [allow])],
                 lines(direction, everywhere)),
                ([gnp(direction, [{'action': 'Log'}, {**deny, 'action': 'Pass'},
                                  {'action': 'Deny'}])], lines(direction, everywhere))])


PROTOCOLS = {  # a rule's matches, allowed flows at x/a
    'TCP': ({'protocol': 'TCP'}, ['tcp/80']), 'a number': ({'protocol': 17}, ['udp/81']),
    'SCTP': ({'protocol': 'SCTP'}, ['sctp/80']), 'not TCP': ({'notProtocol': 'TCP'},
                                                           ['udp/81', 'sctp/80', 'icmp/0']),
    'ping': ({'protocol': 'ICMP', 'icmp': {'type': 8, 'code': 0}}, ['icmp/0']),
    'other ICMP': ({'protocol': 'ICMP', 'icmp': {'type': 3}}, []),
    'not ping': ({'notICMP': {'type': 8}}, ['tcp/80', 'udp/81', 'sctp/80']),
    'ICMP, not ping': ({'protocol': 'ICMP', 'notICMP': {'type': 8, 'code': 0}}, []),
    'ports': ({'protocol': 'TCP', 'destination': {'ports': [80, 82]}}, ['tcp/80']),
    'a range of ports': ({'protocol': 'UDP', 'destination': {'ports': ['80:90']}}, ['udp/81']),
    'not these ports': ({'protocol': 'TCP', 'destination': {'notPorts': ['1:79', 80]}}, []),
    'source ports': ({'protocol': 'TCP', 'source': {'ports': ['1024:65535']}}, ['tcp/80']),
    'not these source ports': ({'protocol': 'TCP', 'source': {'notPorts': ['1024:65535']}}, []),
    'a name': ({'protocol': 'TCP', 'destination': {'ports': ['web']}}, ['tcp/80']),
    'names without a protocol': ({'destination': {'ports': ['web', 'signal']}},
                                 ['tcp/80', 'sctp/80']),
    'not these names': ({'destination': {'notPorts': ['web']}}, ['udp/81', 'sctp/80', 'icmp/0']),
    'IPv4': ({'ipVersion': 4}, ['tcp/80', 'udp/81', 'sctp/80', 'icmp/0']),
}


def calico_protocols():
    flows = [TCP80, UDP81, SCTP80, PING]

    def at(allowed):
        return [f'y/c > x/a {flow}/4 {"yes" if flow in allowed else "no"}'
                for flow in ('tcp/80', 'udp/81', 'sctp/80', 'icmp/0')]
    everything = ['tcp/80', 'udp/81', 'sctp/80', 'icmp/0']
    for (name, (match, allowed)), direction in itertools.product(PROTOCOLS.items(), (IN, OUT)):
        where = {} if direction == IN else {'ns': 'y', 'selector': "pod == 'c'"}
        yield (f'{direction}: {name}', flows,
               [([calico(direction, [{'action': 'Allow', **match}], **where)], at(allowed)),
                ([calico(direction, [{'action': 'Deny', **match}, {'action': 'Allow'}], **where)],
                 at(set(everything) - set(allowed)))])


def sets_and_services():
    for direction in (IN, OUT):
        rule = {'action': 'Allow', **side(direction, {'selector': "net == 'y'"})}
        one, more = ['10.80.2.12/32'], ['10.80.2.0/24', 'fd80:0:0:2::/64', '10.80.3.13/32']
        for ns in (None, 'x', 'y'):
            is_seen = ns != 'y'  # a namespaced policy sees its own namespace's
            policy = gnp(direction, [rule]) if ns is None else calico(direction, [rule])
            yield (f'{direction}: a network set of {ns or "the cluster"}', [TCP80],
                   [([policy], lines(direction, [])),
                    ([network_set(one, ns, net='y')], lines(direction, ['y/b'] if is_seen else [])),
                    ([network_set(more, ns, net='y')],
                     lines(direction, ['y/a', 'y/b', 'z/c'] if is_seen else [])),
                    ([network_set(more, ns, net='other')], lines(direction, []))])
    rule = {'action': 'Allow', 'destination': {'services': {'name': 'web', 'namespace': 'y'}}}
    web = slice_of('web', 'y', ['10.80.2.12'], [('TCP', 80)])
    more = slice_of('web', 'y', ['10.80.2.12', '10.80.2.11'], [('TCP', 80), ('UDP', 81)])
    yield ('a service as destination', [TCP80, UDP81],
           [([calico(OUT, [rule])], lines(OUT, [])), ([web], lines(OUT, ['y/b']) + lines(
               OUT, [], 'udp/81')),
            ([more], lines(OUT, ['y/a', 'y/b']) + lines(OUT, ['y/a', 'y/b'], 'udp/81')),
            ([Gone(more)], lines(OUT, []))])
    rule = {'action': 'Allow', 'source': {'services': {'name': 'web', 'namespace': 'y'}}}
    yield ('a service as source', [TCP80, UDP81],
           [([calico(IN, [rule]), web], lines(IN, ['y/b']) + lines(IN, ['y/b'], 'udp/81')),
            ([slice_of('web', 'y', ['10.80.3.13'], [('TCP', 80)])], lines(IN, ['z/c'])),
            ([slice_of('other', 'y', ['10.80.3.13'], [('TCP', 80)])], lines(IN, []))])


def selection():
    """Whom global policies select."""
    closed = [{'action': 'Deny'}]
    for name, spec, closed_pods in (
            ('all namespaced things', {'selector': '', 'namespaceSelector': 'all()'},
             ['x/a', 'y/a', 'z/c']),
            ('a namespace by label', {'selector': '', 'namespaceSelector': "env == 'prod'"}, ['x/a']),
            ('namespaces without', {'selector': '', 'namespaceSelector': '!has(env)'}, ['z/c']),
            ('pods in namespaces', {'selector': "pod == 'a'", 'namespaceSelector': "ns in {'y'}"},
             ['y/a']),
            ('nothing', {'selector': "pod == 'nobody'"}, []),
            ('an account', {'selector': '', 'serviceAccountSelector': "kind == 'machine'"}, []),
            ('inherited labels', {'selector': "pcns.env == 'dev'"}, ['y/a']),
            ('by the namespace\'s label', {'selector': "projectcalico.org/namespace == 'z'"},
             ['z/c'])):
        for direction in (IN, OUT):
            def want(shut, direction=direction):
                return [peer_of(direction, 'out', allowed=pod not in shut, subject=pod)
                        for pod in ('x/a', 'y/a', 'z/c')]
            steps = [([gnp(direction, closed, **spec)], want(closed_pods))]
            if name == 'an account':
                steps.append(([account('y', 'robot', kind='machine'),
                               Pod('y/a', {'pod': 'a'}, 'robot')], want(['y/a'])))
            steps.append(([Gone(gnp(direction, closed))], want([])))
            yield f'{direction}: selects {name}', [TCP80], steps


def staged():
    for direction in (IN, OUT):
        policy = calico(direction, [{'action': 'Deny'}])
        plan = {**policy, 'kind': 'StagedNetworkPolicy'}
        yield (f'{direction}: staged, then enforced, then planned to go', [TCP80],
               [([plan], lines(direction, OTHERS)), ([policy], lines(direction, [])),
                ([{**plan, 'spec': {'stagedAction': 'Delete'}}], lines(direction, [])),
                ([Gone(policy)], lines(direction, OTHERS))])
        glob = gnp(direction, [{'action': 'Deny'}], order=10)
        yield (f'{direction}: a global one staged', [TCP80],
               [([{**glob, 'kind': 'StagedGlobalNetworkPolicy'}], lines(direction, OTHERS)),
                ([glob, knp(direction, [{}])], lines(direction, []))])


ANY = [{'namespaces': {}}]


def kubernetes_state(direction, state):
    return {'none': [], 'allow': [knp(direction, [{}])], 'deny': [knp(direction, [])]}[state]


def admins():
    for kind, action, state, direction in itertools.product(
            ('ANP', 'CNP'), ('Allow', 'Deny', 'Pass'), ('none', 'allow', 'deny'), (IN, OUT)):
        under = {'none': True, 'allow': True, 'deny': False}[state]
        wanted = {'Allow': True, 'Deny': False, 'Pass': under}[action]
        policy = admin(kind, direction, [(action, ANY, None)])
        yield (f'{direction}: {kind} {action} over NetworkPolicy {state}', [TCP80],
               [([policy, *kubernetes_state(direction, state)], lines(direction, OTHERS if wanted
                                                                      else [])),
                ([admin(kind, direction, [(action, [{'namespaces': {'matchLabels': {'ns': 'y'}}}],
                                           None)])],
                 [peer_of(direction, 'y/a', 'tcp/80', wanted),
                  peer_of(direction, 'z/c', 'tcp/80', under)]),
                ([Gone(policy)], lines(direction, OTHERS if under else []))])
    for kind, action, state, direction in itertools.product(
            ('BANP', 'CNPB'), ('Allow', 'Deny'), ('none', 'allow', 'deny'), (IN, OUT)):
        wanted = {'none': action == 'Allow', 'allow': True, 'deny': False}[state]
        policy = admin(kind, direction, [(action, ANY, None)])
        yield (f'{direction}: {kind} {action} under NetworkPolicy {state}', [TCP80],
               [([policy, *kubernetes_state(direction, state)], lines(direction, OTHERS if wanted
                                                                      else [])),
                ([Gone(p) for p in kubernetes_state(direction, state)],
                 lines(direction, OTHERS if action == 'Allow' else []))])
    for kind, direction in itertools.product(('ANP', 'CNP'), (IN, OUT)):
        low = admin(kind, direction, [('Allow', ANY, None)], 5, 'b')
        high = admin(kind, direction, [('Deny', ANY, None)], 6, 'a')
        yield (f'{direction}: {kind} priorities', [TCP80],
               [([low, high], lines(direction, OTHERS)),
                ([admin(kind, direction, [('Allow', ANY, None)], 7, 'b')], lines(direction, [])),
                ([admin(kind, direction, [('Pass', ANY, None)], 6, 'a')], lines(direction, OTHERS))])
        is_new = kind == 'CNP'
        named = {'destinationNamedPort' if is_new else 'namedPort': 'web'}
        number = {'tcp': {'destinationPort': {'number': 81}}} if is_new else {
            'portNumber': {'protocol': 'TCP', 'port': 81}}
        reach = {'udp': {'destinationPort': {'range': {'start': 80, 'end': 90}}}} if is_new else {
            'portRange': {'protocol': 'UDP', 'start': 80, 'end': 90}}
        subject = {'pods': {'namespaceSelector': {'matchLabels': {'ns': 'x'}}, 'podSelector': {
            'matchLabels': {'pod': 'b' if direction == IN else 'c'}}}}
        ends = 'y/c > x/b' if direction == IN else 'x/c > y/b'

        def at(denied, ends=ends):
            return [f'{ends} {flow} {"no" if flow in denied else "yes"}'
                    for flow in ('tcp/80', 'tcp/81', 'udp/81')]
        yield (f'{direction}: {kind} ports', [TCP80, ('TCP', 81), UDP81],
               [([admin(kind, direction, [('Deny', ANY, [number])], subject=subject)], at(['tcp/81'])),
                ([admin(kind, direction, [('Deny', ANY, [reach])], subject=subject)], at(['udp/81'])),
                ([admin(kind, direction, [('Deny', ANY, [named])], subject=subject)], at(['tcp/81'])),
                ([admin(kind, direction, [('Allow', ANY, [named]), ('Deny', ANY, None)],
                        subject=subject)], at(['tcp/80', 'udp/81']))])
    for kind in ('ANP', 'CNP'):
        nets = [{'networks': ['10.80.2.0/24', 'fd80:0:0:2::/64']}]
        yield (f'{kind} networks', [TCP80],
               [([admin(kind, OUT, [('Deny', nets, None)])], lines(OUT, ['x/b', 'z/c'])),
                ([admin(kind, OUT, [('Allow', nets, None), ('Deny', ANY, None)])],
                 lines(OUT, ['y/a', 'y/b']))])
        odd = [{'domainNames': ['example.org']}]
        yield (f'{kind} peers that can\'t be told', [TCP80],
               [([admin(kind, OUT, [('Deny', odd, None)])], lines(OUT, [])),
                ([admin(kind, OUT, [('Allow', odd, None)])], lines(OUT, OTHERS))])


def cases():
    for family in (deny_all, kubernetes_peers, and_or, kubernetes_ports, stacked, tiers_and_order,
                   calico_matches, calico_protocols, sets_and_services, selection, staged, admins):
        yield from family()
