#!/usr/bin/python3
"""The oracle of tests/e2e against expectations derived by hand from the Kubernetes API.

EXPECTED has one line or more for each case: name | flows | changes. Everything starts open; each
line takes its changes, left to right, to the flows it names (`*@4` is every flow of IPv4, without
@ both families). `-A>B` closes, `+A>B` opens the way from A to B; `*/*` are the pods, `*` the
pods and the host outside, `|` separates alternatives. A pod's way to itself is always open.
"""

import fnmatch
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / 'e2e'))

from casebook import Topology, format_flow, load_cases  # noqa: E402
from oracle import InvalidPolicy, Oracle, Pod  # noqa: E402

EXPECTED = """
no-policies                          | *          |
deny-ingress                         | *          | -*>x/*
deny-egress                          | *          | -x/*>*
deny-both                            | *          | -*>x/* -x/*>*
types-default-no-rules               | *          | -*>x/*
types-default-null-lists             | *          | -*>x/*
types-default-egress-rules           | *          | -*>x/* -x/*>*
types-default-both-rules             | *          | -x/*>* +x/*>x/*
types-default-empty-egress-list      | *          | -*>x/*
types-egress-ignores-ingress-rules   | *          |
types-ingress-ignores-egress-rules   | *          |
allow-all-ingress                    | *          |
allow-all-egress                     | *          |
ingress-empty-list                   | *          | -*>x/*
egress-empty-list                    | *          | -x/*>*
from-empty-list                      | *          |
to-empty-list                        | *          |
ports-empty-list                     | *          |
from-empty-with-port                 | *          | -*>x/*
                                     | tcp/80     | +*>x/*
deny-one-pod                         | *          | -*>x/a
selects-no-pod                       | *          |
deny-ingress-everywhere              | *          | -*>*/*
deny-egress-everywhere               | *          | -*/*>*

pod-label                            | *          | -*>x/* +x/b>x/*
pod-empty                            | *          | -*>x/* +x/*>x/*
pod-matches-nothing                  | *          | -*>x/*
pod-own-namespace-only               | *          | -*>y/* +y/a>y/*
namespace-label                      | *          | -*>x/* +y/*>x/*
namespace-empty                      | *          | -*>x/* +*/*>x/*
namespace-matches-nothing            | *          | -*>x/*
namespace-metadata-name              | *          | -*>x/* +z/*>x/*
namespace-and-pod                    | *          | -*>x/* +y/a>x/*
namespace-or-pod                     | *          | -*>x/* +y/*>x/* +x/a>x/*
any-namespace-and-pod                | *          | -*>x/* +*/a>x/*
namespace-and-any-pod                | *          | -*>x/* +y/*>x/*
two-namespaces                       | *          | -*>x/* +y/*|z/*>x/*
pod-in                               | *          | -*>x/* +*/a>x/*
pod-not-in                           | *          | -*>x/* +*/b|*/c>x/*
pod-exists                           | *          | -*>x/* +*/a|*/b>x/*
pod-does-not-exist                   | *          | -*>x/* +*/c>x/*
namespace-in                         | *          | -*>x/* +x/*|y/*>x/*
namespace-not-in                     | *          | -*>x/* +y/*|z/*>x/*
namespace-exists                     | *          | -*>x/* +x/*|y/*>x/*
namespace-does-not-exist             | *          | -*>x/* +z/*>x/*
expressions-are-anded                | *          | -*>x/* +x/a>x/*
expressions-contradict               | *          | -*>x/*
labels-and-expressions               | *          | -*>x/* +x/a>x/*
labels-contradict                    | *          | -*>x/*
label-empty-value                    | *          | -*>x/*
not-in-empty-value                   | *          | -*>x/* +x/*>x/*
subject-in                           | *          | -*>x/a|x/c
subject-not-in                       | *          | -*>x/b|x/c
subject-exists                       | *          | -*>x/a|x/b
subject-does-not-exist               | *          | -*>x/c
egress-pod                           | *          | -x/*>* +x/*>x/b
egress-namespace                     | *          | -x/*>* +x/*>y/*
egress-namespace-empty               | *          | -x/*>* +x/*>*/*
egress-namespace-and-pod             | *          | -x/*>* +x/*>y/a
egress-namespace-or-pod              | *          | -x/*>* +x/*>y/*|x/a

block-v4-all                         | *@6        | -*>x/*
block-v6-all                         | *@4        | -*>x/*
block-both-all                       | *          |
block-pods-v4                        | *          | -*>x/*
                                     | *@4        | +y/*>x/*
block-pods-v6                        | *          | -*>x/*
                                     | *@6        | +y/*>x/*
block-host-v4                        | *          | -*>x/*
                                     | *@4        | +y/a>x/*
block-host-v6                        | *          | -*>x/*
                                     | *@6        | +y/a>x/*
block-odd-length                     | *          | -*>x/* +y/b|y/c>x/*
block-outside                        | *          | -*>x/* +out>x/*
block-nobody                         | *          | -*>x/*
except-v4                            | *          | -*>x/*
                                     | *@4        | +x/*|z/*>x/*
except-v6                            | *          | -*>x/*
                                     | *@6        | +x/*|z/*>x/*
except-several                       | *          | -*>x/*
                                     | *@4        | +x/*|z/a|z/c>x/*
except-own-block-only                | *          | -*>x/*
                                     | *@4        | +x/*|z/*|y/b>x/*
except-beside-selector               | *          | -*>x/* +y/*>x/*
                                     | *@4        | +x/*|z/*>x/*
except-halves                        | *          | -*>x/*
egress-block-outside                 | *          | -x/*>* +x/*>out
egress-except                        | *          | -x/*>* +x/*>out
egress-except-v6-only                | *@4        | -x/*>*
                                     | *@6        | -x/*>z/b
egress-block-pod-v4                  | *          | -x/*>*
                                     | *@4        | +x/*>z/c

port-number                          | *          | -*>x/*
                                     | tcp/80     | +*>x/*
port-without-protocol                | *          | -*>x/*
                                     | tcp/80     | +*>x/*
port-entry-empty                     | *          | -*>x/*
                                     | tcp/*      | +*>x/*
protocol-tcp                         | *          | -*>x/*
                                     | tcp/*      | +*>x/*
protocol-udp                         | *          | -*>x/*
                                     | udp/*      | +*>x/*
protocol-sctp                        | *          | -*>x/*
                                     | sctp/*     | +*>x/*
protocols-all                        | icmp       | -*>x/*
port-udp                             | *          | -*>x/*
                                     | udp/81     | +*>x/*
port-sctp                            | *          | -*>x/*
                                     | sctp/80    | +*>x/*
port-tcp-or-udp                      | *          | -*>x/*
                                     | ???/80     | +*>x/*
port-two-numbers                     | *          | -*>x/*
                                     | tcp/80     | +*>x/*
                                     | tcp/82     | +*>x/*
range                                | *          | -*>x/*
                                     | tcp/80     | +*>x/*
                                     | tcp/81     | +*>x/*
range-of-one                         | *          | -*>x/*
                                     | tcp/81     | +*>x/*
range-udp-open-end                   | *          | -*>x/*
                                     | udp/81     | +*>x/*
range-sctp                           | *          | -*>x/*
                                     | sctp/80    | +*>x/*
range-everything                     | *          | -*>x/*
                                     | tcp/*      | +*>x/*
ranges-overlap                       | *          | -*>x/*
                                     | tcp/*      | +*>x/*
range-misses                         | *          | -*>x/*
name                                 | *          | -*>x/*
                                     | tcp/80     | +*>x/a
                                     | tcp/81     | +*>x/b
name-unknown                         | *          | -*>x/*
name-of-other-protocol               | *          | -*>x/*
name-udp                             | *          | -*>x/*
                                     | udp/80     | +*>x/a
                                     | udp/81     | +*>x/b
name-sctp                            | *          | -*>x/*
                                     | sctp/80    | +*>x/a
                                     | sctp/81    | +*>x/b
name-or-number                       | *          | -*>x/*
                                     | tcp/80     | +*>x/a
                                     | tcp/81     | +*>x/b
                                     | tcp/82     | +*>x/*
name-from-namespace                  | *          | -*>x/*
                                     | tcp/80     | +y/*>x/a
                                     | tcp/81     | +y/*>x/b
name-from-block                      | *          | -*>x/*
                                     | tcp/80@4   | +out>x/a
                                     | tcp/81@4   | +out>x/b
port-from-namespace                  | *          | -*>x/*
                                     | tcp/80     | +y/*>x/*
port-from-block-v6                   | *          | -*>x/*
                                     | udp/80@6   | +y/*>x/*
egress-port                          | *          | -x/*>*
                                     | tcp/80     | +x/*>*
egress-udp                           | *          | -x/*>*
                                     | udp/*      | +x/*>*
egress-range-to-namespace            | *          | -x/*>*
                                     | tcp/81     | +x/*>y/*
                                     | tcp/82     | +x/*>y/*
egress-name                          | *          | -x/*>*
                                     | tcp/80     | +x/*>*/a
                                     | tcp/81     | +x/*>*/b
egress-name-to-namespace             | *          | -x/*>*
                                     | tcp/80     | +x/*>y/a
                                     | tcp/81     | +x/*>y/b
egress-name-to-block                 | *          | -x/*>*
                                     | tcp/80@4   | +x/*>y/a
                                     | tcp/81@4   | +x/*>y/b
egress-port-to-outside               | *          | -x/*>*
                                     | tcp/80@4   | +x/*>out

union-deny-and-allow                 | *          | -*>x/* +y/*>x/*
union-allow-then-deny-by-name        | *          | -*>x/* +y/*>x/*
union-two-allows                     | *          | -*>x/* +y/*>x/*
                                     | tcp/80     | +z/*>x/*
union-different-subjects             | *          | -*>x/* +z/*>x/* +y/*>x/a
union-narrow-deny-does-not-close     | *          |
union-egress                         | *          | -x/*>*
                                     | tcp/80     | +x/*>y/*
                                     | udp/*      | +x/*>z/*
rules-do-not-mix                     | *          | -*>x/*
                                     | tcp/80     | +y/*>x/*
                                     | tcp/81     | +z/*>x/*
rules-peer-only-and-port-only        | *          | -*>x/* +x/a>x/*
                                     | udp/80     | +*>x/*
same-name-in-two-namespaces          | *          | -*>x/*|y/* +x/a>x/* +y/b>y/*
both-ends-agree                      | *          | -x/*>* -*>y/* +x/a>y/*
egress-open-ingress-closed           | *          | -*>y/*
egress-closed-ingress-open           | *          | -x/*>* -*>y/*
both-ends-ports-intersect            | *          | -x/*>* -*>y/*
                                     | tcp/80     | +x/*>x/*|z/*|out
                                     | tcp/81     | +x/*>* +*>y/*
                                     | tcp/82     | +y/*|z/*|out>y/*
namespace-closed-to-others           | *          | -*>x/* -x/*>* +x/*>x/*
every-namespace-closed-to-others     | *          | -*>*/* +x/*>x/* +y/*>y/* +z/*>z/*
in-from-one-out-to-another           | *          | -*>x/* -x/*>* +y/*>x/* +x/*>z/*
alone-but-for-itself                 | *          | -*>x/a -x/a>*
database-behind-web                  | *          | -*>x/b -x/b>* -x/a>*
                                     | tcp/81     | +x/a>x/b
                                     | udp/80     | +x/a>* -x/a>x/b

finished-pod-is-no-source            | *          | -*>x/*
failed-pod-is-no-destination         | *          | -x/*>*
finished-pod-is-no-subject           | *          |
finished-pod-has-no-port-names       | *          | -x/*>*
                                     | tcp/80     | +x/*>*/a
                                     | tcp/81     | +x/*>*/b
finished-pod-leaves-the-new-one-its-labels | *    | -*>x/* +z/c>x/*
"""

TOPOLOGY = Topology()
CASES = load_cases(TOPOLOGY)


def parse_expected(text):
    """{case: [(pattern of flow@family, [changes])]}, in the order of the text."""
    expected = {}
    name = None
    for line in filter(None, text.splitlines()):
        first, flows, changes = (part.strip() for part in line.split('|', 2))
        if first:
            if first in expected:
                raise ValueError(f'{first} is there twice')
            name = first
        pattern = flows if '@' in flows else flows + '@*'
        expected.setdefault(name, []).append((pattern, changes.split()))
    return expected


def matches_place(patterns, place):
    """True if a place is one of the alternatives."""
    return any(fnmatch.fnmatchcase(place, pattern) for pattern in patterns.split('|'))


def expected_verdict(lines, src, dst, flow, family):
    """What a case's lines say about one probe."""
    if src == dst:
        return True
    verdict = True
    for pattern, changes in lines:
        if not fnmatch.fnmatchcase(f'{format_flow(flow)}@{family}', pattern):
            continue
        for change in changes:
            sources, targets = change[1:].split('>')
            if matches_place(sources, src) and matches_place(targets, dst):
                verdict = {'+': True, '-': False}[change[0]]
    return verdict


class ExpectationTest(unittest.TestCase):
    """Each case's whole matrix."""

    def test_every_case_has_an_expectation(self):
        self.assertEqual(sorted(parse_expected(EXPECTED)), sorted(CASES))
        self.assertGreaterEqual(len(CASES), 60)

    def test_patterns_name_something(self):
        probes = [f'{format_flow(flow)}@{family}' for flow in TOPOLOGY.flows for family in (4, 6)]
        for name, lines in parse_expected(EXPECTED).items():
            for pattern, changes in lines:
                self.assertTrue(fnmatch.filter(probes, pattern), f'{name}: {pattern}')
                for change in changes:
                    for side in change[1:].split('>'):
                        for alternative in side.split('|'):
                            self.assertTrue(fnmatch.filter(TOPOLOGY.places(), alternative),
                                            f'{name}: {alternative}')

    def test_cases(self):
        places = TOPOLOGY.places()
        for name, lines in parse_expected(EXPECTED).items():
            with self.subTest(case=name):
                wrong = []
                for src in places:
                    for dst in places:
                        for flow in TOPOLOGY.flows:
                            for family in (4, 6):
                                want = expected_verdict(lines, src, dst, flow, family)
                                if CASES[name].verdict(src, dst, flow, family) != want:
                                    wrong.append(f'{src}>{dst} {format_flow(flow)}@{family} '
                                                 f'should be {want}')
                self.assertEqual(wrong, [])


def policy(spec, namespace='x'):
    """A NetworkPolicy around a spec."""
    return {'metadata': {'name': 'p', 'namespace': namespace}, 'spec': spec}


def ingress(rule):
    """A policy of one ingress rule."""
    return policy({'podSelector': {}, 'ingress': [rule]})


class OracleTest(unittest.TestCase):
    """What the topology's matrix can't show."""

    NAMESPACES = {'x': {'ns': 'x'}, 'y': None}

    def oracle(self, policies, pods=(), nodes=None):
        base = [Pod('x', 'a', ['10.0.0.1', 'fd00::1'], {'pod': 'a'}, [('web', None, 80)],
                    node='n1'),
                Pod('y', 'a', ['10.0.0.2'], {'pod': 'a'})]
        return Oracle(self.NAMESPACES, base + list(pods), policies, nodes)

    def test_places_are_pods_names_or_addresses(self):
        pod = Pod('y', 'd', ['10.0.0.9'], {'pod': 'd'})
        oracle = self.oracle([ingress({'from': [{'namespaceSelector': {},
                                                 'podSelector': {'matchLabels': {'pod': 'd'}}}]})],
                             [pod])
        for src in (pod, 'y/d', '10.0.0.9'):
            self.assertTrue(oracle.allowed(src, 'x/a', 'tcp', 80, 4))
        for src in ('y/a', '10.0.0.2', '10.0.0.77'):
            self.assertFalse(oracle.allowed(src, 'x/a', 'tcp', 80, 4))

    def test_own_address_is_open_and_other_family_is_an_error(self):
        oracle = self.oracle([policy({'policyTypes': ['Ingress', 'Egress']})])
        self.assertTrue(oracle.allowed('x/a', '10.0.0.1', 'TCP', 1, 4))
        with self.assertRaisesRegex(ValueError, 'y/a has no IPv6 address'):
            oracle.allowed('x/a', 'y/a', 'TCP', 80, 6)

    def test_port_and_protocol_must_fit(self):
        oracle = self.oracle([])
        for proto, port in (('TCP', None), ('ICMP', 80)):
            with self.assertRaises(ValueError):
                oracle.allowed('x/a', 'y/a', proto, port, 4)

    def test_host_network_pod_is_neither_peer_nor_subject(self):
        host = Pod('x', 'h', ['10.0.0.8'], {'pod': 'h'}, host_network=True)
        from_h = {'from': [{'podSelector': {'matchLabels': {'pod': 'h'}}}]}
        oracle = self.oracle([ingress(from_h)], [host])
        self.assertFalse(oracle.allowed('x/h', 'x/a', 'TCP', 80, 4))
        self.assertTrue(oracle.allowed('y/a', 'x/h', 'TCP', 80, 4))
        from_block = {'from': [{'ipBlock': {'cidr': '10.0.0.8/32'}}]}
        self.assertTrue(self.oracle([ingress(from_block)], [host])
                        .allowed('x/h', 'x/a', 'TCP', 80, 4))

    def test_node_reaches_its_own_pods_only(self):
        closed = [policy({}), policy({}, 'y')]
        oracle = self.oracle(closed, nodes={'n1': ['10.9.0.1'], 'n2': ['10.9.0.2']})
        self.assertTrue(oracle.allowed('10.9.0.1', 'x/a', 'TCP', 80, 4))
        self.assertFalse(oracle.allowed('10.9.0.2', 'x/a', 'TCP', 80, 4))
        self.assertFalse(oracle.allowed('10.9.0.1', 'y/a', 'TCP', 80, 4))

    def test_port_of_a_pod_without_protocol_is_tcp(self):
        oracle = self.oracle([ingress({'ports': [{'port': 'web'}]})])
        self.assertTrue(oracle.allowed('y/a', 'x/a', 'TCP', 80, 4))
        self.assertFalse(oracle.allowed('y/a', 'x/a', 'TCP', 81, 4))

    def test_unlabelled_namespace_has_its_name(self):
        for name, open_ in (('y', True), ('x', False)):
            selector = {'matchLabels': {'kubernetes.io/metadata.name': name}}
            oracle = self.oracle([ingress({'from': [{'namespaceSelector': selector}]})])
            self.assertEqual(oracle.allowed('y/a', 'x/a', 'TCP', 80, 4), open_)

    def test_policy_without_namespace_is_in_default(self):
        document = {'metadata': {'name': 'p'}, 'spec': {'podSelector': {}}}
        oracle = self.oracle([document])
        self.assertTrue(oracle.allowed('y/a', 'x/a', 'TCP', 80, 4))

    def test_contradicting_clusters_are_errors(self):
        for pod, text in ((Pod('x', 'b', ['10.0.0.1']), '10.0.0.1 belongs to'),
                          (Pod('x', 'a', ['10.0.0.7']), 'x/a is there twice'),
                          (Pod('w', 'a', ['10.0.0.7']), 'w/a is in no known namespace')):
            with self.assertRaisesRegex(ValueError, text):
                self.oracle([], [pod])

    def test_refused_policies(self):
        def peer(value):
            return ingress({'from': [value]})

        def port(value):
            return ingress({'ports': [value]})

        def block(cidr, *holes):
            return peer({'ipBlock': {'cidr': cidr, 'except': list(holes)}})

        def term(value):
            return peer({'podSelector': {'matchExpressions': [value]}})

        refused = {
            'empty peer': peer({}),
            'peer of nulls': peer({'podSelector': None}),
            'unknown peer field': peer({'serviceSelector': {}}),
            'block with selector': peer({'ipBlock': {'cidr': '10.0.0.0/8'}, 'podSelector': {}}),
            'bad network': block('10.0.0.0/33'),
            'no network': peer({'ipBlock': {}}),
            'except outside': block('10.0.0.0/16', '10.1.0.0/24'),
            'except of the other family': block('10.0.0.0/16', 'fd00::/64'),
            'except is everything': block('10.0.0.0/16', '10.0.0.0/16'),
            'except is larger': block('10.0.0.0/16', '10.0.0.0/8'),
            'port 0': port({'port': 0}),
            'port 65536': port({'port': 65536}),
            'digits as name': port({'port': '80'}),
            'long name': port({'port': 'sixteen-letters-'}),
            'unknown protocol': port({'protocol': 'ICMP'}),
            'lower-case protocol': port({'protocol': 'tcp'}),
            'endPort alone': port({'endPort': 80}),
            'endPort below port': port({'port': 80, 'endPort': 79}),
            'endPort too large': port({'port': 80, 'endPort': 65536}),
            'endPort with a name': port({'port': 'web', 'endPort': 80}),
            'to in ingress': ingress({'to': []}),
            'unknown policy type': policy({'policyTypes': ['ingress']}),
            'unknown operator': term({'key': 'k', 'operator': 'Gt', 'values': ['1']}),
            'In without values': term({'key': 'k', 'operator': 'In'}),
            'NotIn of nothing': term({'key': 'k', 'operator': 'NotIn', 'values': []}),
            'Exists with values': term({'key': 'k', 'operator': 'Exists', 'values': ['v']}),
            'no key': term({'operator': 'Exists'}),
            'number as label': peer({'podSelector': {'matchLabels': {'k': 1}}}),
            'unknown selector field': peer({'podSelector': {'pod': 'a'}}),
        }
        for what, document in refused.items():
            with self.subTest(what), self.assertRaises(InvalidPolicy):
                self.oracle([document])


if __name__ == '__main__':
    unittest.main()
