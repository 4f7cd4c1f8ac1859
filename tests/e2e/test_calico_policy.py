#!/usr/bin/python3
"""Calico's policies: what packets do under the agent is what the oracle says.

Usage: test_calico_policy.py [RANDOM_CASES [SEED [STEP [OFFSET]]]]: every STEP-th of the written
cases, from OFFSET on, then so many random ones.
"""

import pathlib
import random
import subprocess
import sys
import time

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent, agent_cluster, forget_connections  # noqa: E402
from calico_oracle import CalicoOracle  # noqa: E402
from casebook import HERE, Topology, format_flow  # noqa: E402
from lab import CommandFailed, Lab  # noqa: E402

SELECTORS = ["all()", "pod == 'a'", "pod != 'a'", "tier in {'web', 'db'}", "has(tier)", "!has(tier)",
             "pod == 'a' || tier == 'db'", "tier not in {'web'}", "pod starts with 'a'",
             "pcns.env == 'prod'", "projectcalico.org/namespace == 'y'", "net == 'out'",
             "has(net) || pod == 'c'", "!(pod == 'b')", "tier contains 'e' && pod ends with 'a'"]
NAMESPACES = [None, None, "all()", "ns == 'x'", "has(env)", "env == 'dev'", "global()"]
NETS = ['10.80.1.0/24', '10.80.2.11/32', '10.90.0.9/32', 'fd80:0:0:1::/64', 'fd90::9/128',
        '0.0.0.0/0', '::/0', '10.80.0.0/22']
EXPLAINED = 6  # connections a case
PORTS = [80, 81, '80:81', 'web', 'dns', '1:79']


def written_cases():
    """The cases of tests/e2e/calico.yaml; kind `k8s` stands for Kubernetes' NetworkPolicy."""
    for case in yaml.safe_load((HERE / 'calico.yaml').read_text(encoding='utf-8')):
        yield case['name'], [with_api(document) for document in case['objects']]


def with_api(document):
    document = dict(document)
    is_k8s = document['kind'] == 'k8s'
    document['apiVersion'] = 'networking.k8s.io/v1' if is_k8s else 'projectcalico.org/v3'
    if is_k8s:
        document['kind'] = 'NetworkPolicy'
    return document


def random_side(pick, ports, nets):
    side = {}
    if pick.random() < 0.5:
        side['selector'] = pick.choice(SELECTORS)
    if pick.random() < 0.2:
        side['notSelector'] = pick.choice(SELECTORS)
    if pick.random() < 0.3:
        namespaces = pick.choice(NAMESPACES)
        if namespaces:
            side['namespaceSelector'] = namespaces
    if pick.random() < 0.25:
        side['nets'] = pick.sample(nets, pick.randrange(1, 4))
    if pick.random() < 0.15:
        side['notNets'] = pick.sample([net for net in nets if not net.endswith('/0')],
                                      pick.randrange(1, 3))
    if ports and pick.random() < 0.6:
        side[pick.choice(['ports', 'ports', 'notPorts'])] = pick.sample(PORTS, pick.randrange(1, 3))
    return side


def random_rule(pick):
    rule = {'action': pick.choice(['Allow', 'Allow', 'Allow', 'Deny', 'Pass', 'Log'])}
    protocol = pick.choice([None, None, 'TCP', 'UDP', 'SCTP', 6, 'ICMP', 'ICMPv6', 'not'])
    if protocol == 'not':
        rule['notProtocol'] = pick.choice(['TCP', 'UDP', 132])
    elif protocol:
        rule['protocol'] = protocol
    if protocol == 'ICMP' and pick.random() < 0.6:
        rule[pick.choice(['icmp', 'notICMP'])] = pick.choice([{'type': 8}, {'type': 8, 'code': 0},
                                                              {'type': 3}])
        rule['ipVersion'] = 4
    elif pick.random() < 0.1:
        rule['ipVersion'] = {'ICMP': 4, 'ICMPv6': 6}.get(protocol) or pick.choice([4, 6])
    # The API wants nets of one family in a rule, and of the rule's own.
    version = rule.get('ipVersion') or {'ICMP': 4, 'ICMPv6': 6}.get(protocol) or pick.choice([4, 6])
    nets = [net for net in NETS if (':' in net) == (version == 6)]
    for name in ('source', 'destination'):
        ports = name == 'destination' and protocol in ('TCP', 'UDP', 'SCTP', 6)
        side = random_side(pick, ports, nets)
        if side:
            rule[name] = side
    return rule


def random_case(pick):
    objects = [
        {'kind': 'GlobalNetworkSet', 'metadata': {'name': 's', 'labels': {'net': 'out'}},
         'spec': {'nets': ['10.90.0.0/24', 'fd90::/64']}},
        {'kind': 'NetworkSet', 'metadata': {'name': 's', 'namespace': 'x', 'labels': {'net': 'in'}},
         'spec': {'nets': ['10.80.2.0/24']}},
        {'kind': 'Tier', 'metadata': {'name': 'first'},
         'spec': {'order': 10, 'defaultAction': pick.choice(['Deny', 'Pass', 'Pass'])}},
        {'kind': 'Tier', 'metadata': {'name': 'last'},
         'spec': {'order': 2_000_000, 'defaultAction': pick.choice(['Deny', 'Pass'])}}]
    for i in range(pick.randrange(1, 6)):
        is_global = pick.random() < 0.5
        tier = pick.choice(['default', 'default', 'first', 'last'])
        spec = {'tier': tier, 'selector': pick.choice(SELECTORS[:11])}
        order = pick.choice([None, 1, 1, 500, 2000])
        if order is not None:
            spec['order'] = order
        if is_global and pick.random() < 0.3:
            spec['namespaceSelector'] = pick.choice(["ns == 'x'", 'has(env)', 'all()'])
        for name in pick.choice([['ingress'], ['egress'], ['ingress', 'egress'], []]):
            spec[name] = [random_rule(pick) for _ in range(pick.randrange(1, 4))]
        if pick.random() < 0.3:
            spec['types'] = pick.choice([['Ingress'], ['Egress'], ['Ingress', 'Egress']])
        meta = {'name': f'{tier}.p{i}'}
        if not is_global:
            meta['namespace'] = pick.choice(['x', 'y'])
        objects.append({'kind': 'GlobalNetworkPolicy' if is_global else 'NetworkPolicy',
                        'metadata': meta, 'spec': spec})
    if pick.random() < 0.3:
        objects.append({'kind': 'k8s', 'metadata': {'name': 'k', 'namespace': 'x'},
                        'spec': {'podSelector': {}, 'ingress': [
                            {'from': [{'namespaceSelector': {'matchLabels': {'env': 'dev'}}}],
                             'ports': [{'port': 80}, {'port': 'dns', 'protocol': 'UDP'}]}]}})
    return [with_api(document) for document in objects]


class Run:
    """The lab, and one case after the other in it."""

    def __init__(self, lab, agent, topology):
        self.lab, self.agent, self.topology = lab, agent, topology
        self.pick = random.Random(6)

    def disagreements(self, objects):
        """Apply, probe, compare, delete."""
        oracle = CalicoOracle(self.topology.namespaces, self.topology.pods, objects)
        try:
            self.agent.apply(objects)
        except CommandFailed as error:  # the generator must know what the API refuses
            self.agent.delete(list(reversed(objects)))
            return [str(error)]
        lines = self.explained(oracle)
        if lines:
            self.agent.delete(list(reversed(objects)))
            return lines
        lines = self.compare(oracle, 1.0)
        if lines:  # a probe lost on a busy machine is no answer: ask once more
            lines = self.compare(oracle, 3.0)
        self.agent.delete(list(reversed(objects)))
        self.agent.call('status', '--wait')
        return lines

    def explained(self, oracle):
        """`margay explain` of a few connections, by pods' names and by addresses."""
        lines = []
        places = self.topology.places()
        for i in range(EXPLAINED):
            src, dst = self.pick.sample(sorted(places), 2)
            flow = self.pick.choice(self.topology.flows)
            family = 4 if i % 2 else self.pick.choice((4, 6))
            ips = [places[name][0 if family == 4 else 1] for name in (src, dst)]
            words = ips if i % 2 == 0 else [name if '/' in name else ip
                                            for name, ip in zip((src, dst), ips)]
            command = [self.agent.margay, '--state-dir', self.agent.state, 'explain', words[0], '->',
                       words[1], format_flow(flow)]
            done = subprocess.run(self.lab.command('node', command), capture_output=True, text=True,
                                  check=False, timeout=60)
            wanted = 0 if oracle.allowed(*ips, *flow, family) else 1
            if done.returncode != wanted:
                lines.append(f'explain: {" ".join(command[4:])}: {done.returncode}, should be '
                             f'{wanted}\n{done.stdout}{done.stderr}')
        return lines

    def compare(self, oracle, timeout):
        forget_connections(self.lab, self.agent.node)
        places = self.topology.places()
        results = self.lab.probe_matrix(places, self.topology.flows, timeout=timeout)
        lines = []
        for (src, dst, flow, family), result in results.items():
            index = 0 if family == 4 else 1
            allowed = oracle.allowed(places[src][index], places[dst][index], *flow, family)
            if (result['state'] == 'open') != allowed:
                lines.append(f'{src} to {dst} {format_flow(flow)} IPv{family}: {result["state"]}, '
                             f'should be {"open" if allowed else "closed"}')
        return sorted(lines)

    def smallest(self, objects):
        """The case without what it fails without, too."""
        for document in list(objects):
            fewer = [other for other in objects if other is not document]
            if document['kind'] != 'Tier' and self.disagreements(fewer):
                objects = fewer
        return objects


def main(n_random=40, seed=1, step=1, offset=0):
    topology = Topology()
    cases = list(written_cases())[offset::step]
    pick = random.Random(seed)
    cases += [(f'random {i} of seed {seed}', random_case(pick)) for i in range(n_random)]
    failed = 0
    start = time.monotonic()
    with Lab() as lab:
        lab.netns('node')
        with Agent(lab, 'node') as agent:
            agent_cluster(lab, agent, topology)
            run = Run(lab, agent, topology)
            for name, objects in cases:
                lines = run.disagreements(objects)
                if lines:
                    failed += 1
                    print(f'FAILED {name}: {len(lines)} disagreements')
                    print('\n'.join('    ' + line for line in lines[:8]))
                    print(yaml.safe_dump_all(run.smallest(objects), sort_keys=False), flush=True)
    print(f'{len(cases) - failed} of {len(cases)} cases agree with the oracle, '
          f'{time.monotonic() - start:.0f} s')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main(*(int(text) for text in sys.argv[1:5])))
