"""Reads the shared topology and the cases, and turns them into oracles and lists of flows.

A case file of tests/e2e/cases is a YAML list; each case has `name`, `policies` (NetworkPolicies
without apiVersion and kind, which are filled in here) and optionally `pods`: further pods, which
take part in no probe, with namespace, name, labels, ports, phase and ips.
"""

import pathlib

import yaml

from oracle import Oracle, Pod

HERE = pathlib.Path(__file__).resolve().parent


class Topology:
    """The namespaces, pods and outside hosts of tests/e2e/topology.yaml."""

    def __init__(self, path=HERE / 'topology.yaml'):
        data = yaml.safe_load(path.read_text(encoding='utf-8'))
        self.namespaces = data['namespaces']
        self.outside = data['outside']
        self.flows = [parse_flow(text) for text in data['flows']]
        self.pods = []
        for namespace in self.namespaces:
            for name, pod in data['pods'].items():
                ips = [f'{prefix}{data["numbers"][name]}'
                       for prefix in data['prefixes'][namespace]]
                self.pods.append(Pod(namespace, name, ips, pod['labels'], pod['ports']))
        self._places = {repr(pod): tuple(str(ip) for ip in pod.ips) for pod in self.pods}
        self._places.update({name: tuple(ips) for name, ips in self.outside.items()})

    def places(self):
        """All that can probe and be probed: {'x/a': (v4, v6), ..., 'out': (v4, v6)}."""
        return dict(self._places)


class Case:
    """One named set of policies over the topology."""

    def __init__(self, topology, document):
        unknown = set(document) - {'name', 'policies', 'pods'}
        if unknown:
            raise ValueError(f'{document.get("name")}: unknown: {sorted(unknown)}')
        self.name = document['name']
        self.topology = topology
        self.policies = [{'apiVersion': 'networking.k8s.io/v1', 'kind': 'NetworkPolicy', **policy}
                         for policy in document['policies']]
        self.extra_pods = [Pod(**pod) for pod in document.get('pods') or ()]
        self.oracle = Oracle(topology.namespaces, topology.pods + self.extra_pods, self.policies)

    def verdict(self, src, dst, flow, family):
        """The oracle's answer between two places of the topology, for a parsed flow."""
        places = self.topology.places()
        index = 0 if family == 4 else 1
        return self.oracle.allowed(places[src][index], places[dst][index], *flow, family)

    def disagreements(self, results):
        """What probes found against what the oracle says, as sorted lines of text.

        `results` is what Lab.probe_matrix returned; an answer must also be the right pod's own.
        """
        lines = []
        for (src, dst, flow, family), result in results.items():
            allowed = self.verdict(src, dst, flow, family)
            spoken_by = result['peer'] if flow[1] is not None else dst
            if (result['state'] == 'open') != allowed or (allowed and spoken_by != dst):
                lines.append(f'{self.name}: {src} to {dst} {format_flow(flow)} IPv{family}: '
                             f'{result["state"]} by {result["peer"]}, '
                             f'should be {"open" if allowed else "closed"}')
        return sorted(lines)


def format_flow(flow):
    """('TCP', 80) -> 'tcp/80', ('ICMP', None) -> 'icmp'."""
    return flow[0].lower() + (f'/{flow[1]}' if flow[1] is not None else '')


def parse_flow(text):
    """'tcp/80' -> ('TCP', 80), 'icmp' -> ('ICMP', None)."""
    proto, _, port = text.partition('/')
    return proto.upper(), int(port) if port else None


def load_cases(topology, folder=HERE / 'cases'):
    """All cases of a folder by name, in the order of files and lists."""
    cases = {}
    for path in sorted(folder.glob('*.yaml')):
        for document in yaml.safe_load(path.read_text(encoding='utf-8')):
            case = Case(topology, document)
            if case.name in cases:
                raise ValueError(f'{path.name}: {case.name} is there twice')
            cases[case.name] = case
    return cases
