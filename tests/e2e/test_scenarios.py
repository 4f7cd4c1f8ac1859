#!/usr/bin/python3
"""Scenarios with real packets: policies that change step by step (scenario_cases.py). After each step
every pair is probed; packets must do what the step's own lines say, and what the evaluator of
tests/property says of all the rest.

Usage: test_scenarios.py [PARTS [PART [NAME]]]: every PARTS-th case from PART on; NAME: part of a name
"""

import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'property')]

import scenario_cases as sc  # noqa: E402
from agent import Agent, agent_cluster, forget_connections, pod_object  # noqa: E402
from casebook import Topology  # noqa: E402
from evaluator import Packet, World, identity  # noqa: E402
from lab import CommandFailed, Lab  # noqa: E402

TIMEOUT = 0.35


def endpoint_of(pod):
    """A pod's WorkloadEndpoint as far as the evaluator needs it."""
    return {'apiVersion': sc.V3, 'kind': 'WorkloadEndpoint',
            'metadata': {'name': f'n1-k8s-{pod.name}-eth0', 'namespace': pod.namespace},
            'spec': {'orchestrator': 'k8s', 'node': 'n1', 'pod': pod.name, 'endpoint': 'eth0',
                     'ipNetworks': [f'{ip}/{ip.max_prefixlen}' for ip in pod.ips]}}


def changed_pod(pod, change):
    """The Pod object with the change's labels and account."""
    document = pod_object(pod)
    if change.labels is not None:
        document['metadata']['labels'] = change.labels
    if change.account:
        document['spec']['serviceAccountName'] = change.account
    return document


class Run:
    def __init__(self, lab, agent, topology):
        self.lab, self.agent, self.topology = lab, agent, topology
        self.places = topology.places()
        self.pods = {repr(pod): pod for pod in topology.pods}
        self.base = {identity(d): d for d in
                     [sc.namespace(name, **labels) for name, labels in topology.namespaces.items()] +
                     [pod_object(pod) for pod in topology.pods]}
        self.world = World('n1')
        for document in [*self.base.values(), *map(endpoint_of, topology.pods)]:
            self.world.put(document)

    def change(self, changes):
        puts = []
        for change in changes:
            if isinstance(change, sc.Gone):
                self.agent.delete([change.document])
                self.world.delete(change.document)
            else:
                document = changed_pod(self.pods[change.name], change) if isinstance(
                    change, sc.Pod) else change
                puts.append(document)
                self.world.put(document)
        self.agent.apply(puts, wait=False)
        self.agent.call('status', '--wait')

    def reset(self):
        """Everything as it was at first."""
        gone = [d for key, d in self.world.objects.items()
                if key not in self.base and d['kind'] != 'WorkloadEndpoint']
        back = [d for key, d in self.base.items() if self.world.objects.get(key) != d]
        # A tier goes after its policies.
        gone.sort(key=lambda d: d['kind'] == 'Tier')
        self.agent.delete(gone)
        self.agent.apply(back)
        for document in gone:
            self.world.delete(document)
        for document in back:
            self.world.put(document)

    def judged(self, key):
        """The evaluator's answer to a probe."""
        src, dst, (protocol, port), family = key
        source, target = (self.places[name][family == 6] for name in (src, dst))
        if source == target:
            return True
        if protocol == 'ICMP':
            packet = Packet(source, target, 1 if family == 4 else 58,
                            icmp=(8 if family == 4 else 128, 0))
        else:
            packet = Packet(source, target, protocol, 40000, port)
        return self.world.verdict(packet) == ('Allow', 'Allow')

    def step(self, flows, expectations):
        forget_connections(self.lab, 'node')
        results = self.lab.probe_matrix(self.places, flows, timeout=TIMEOUT)
        wrong = []
        for key, result in results.items():
            found, wanted = result['state'] == 'open', self.judged(key)
            if found != wanted and wanted:  # packets get lost on a busy machine: ask again
                src, dst, (protocol, port), family = key
                again = self.lab.probe(src, [(protocol.lower(), self.places[dst][family == 6],
                                              port)], 2.0)[0]
                found = again['state'] == 'open'
                result['state'] = again['state']
            if found != wanted:
                wrong.append(f'{key}: packets {found}, evaluator {wanted}')
        for line in expectations:
            src, _, dst, flow, wanted = line.split()
            protocol, port, *family = flow.split('/')
            for version in ([int(family[0])] if family else (4, 6)):
                flow_key = (protocol.upper(), None if protocol == 'icmp' else int(port))
                found = results[src, dst, flow_key, version]['state'] == 'open'
                if found != (wanted == 'yes'):
                    wrong.append(f'{line} IPv{version}: packets {found}')
        return wrong

    def case(self, name, flows, steps):
        for number, (changes, expectations) in enumerate(steps, 1):
            self.change(changes)
            wrong = self.step(flows, expectations)
            if wrong:
                print(f'FAILED {name}, step {number}:', *wrong[:10], sep='\n  ', flush=True)
                return False
        return True


def main(parts=1, part=0, wanted=''):
    start, failed, steps = time.monotonic(), 0, 0
    chosen = [case for case in list(sc.cases())[int(part)::int(parts)] if wanted in case[0]]
    topology = Topology()
    with Lab() as lab:
        lab.netns('node')
        with Agent(lab, 'node') as agent:
            agent_cluster(lab, agent, topology)
            run = Run(lab, agent, topology)
            for case in chosen:
                try:
                    failed += not run.case(*case)
                except CommandFailed as error:
                    failed += 1
                    print(f'FAILED {case[0]}: {error}', flush=True)
                steps += len(case[2])
                run.reset()
    print(f'{len(chosen) - failed} of {len(chosen)} scenarios ({steps} steps) as they should be, '
          f'{time.monotonic() - start:.0f} s')
    return failed > 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
