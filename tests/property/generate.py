"""Random clusters, policies of all kinds, changes and packets; all from one random.Random."""

import ipaddress

from evaluator import NUMBERS, Packet

NAMESPACES = ('prod', 'dev', 'kube-system')
LABELS = {'app': ('web', 'api', 'db', ''), 'tier': ('front', 'back'), 'env': ('prod', 'dev', 'test'),
          'team.io/name': ('a', 'b'), 'x': ('1',)}
ACCOUNTS = ('default', 'robot')
PORT_NAMES = ('http', 'dns', 'grpc')
PORTS = (53, 80, 81, 82, 83, 84, 443, 8080, 65535)
NETS4 = ('10.0.0.0/8', '10.0.0.0/24', '10.0.1.0/28', '10.0.0.4/30', '10.0.0.3/32', '192.0.2.0/24',
         '198.51.100.7/32', '172.16.0.0/12')
NETS6 = ('fd00::/16', 'fd00::/64', 'fd00::4/126', 'fd00::3/128', '2001:db8::/32')
OUTSIDE = ('192.0.2.9', '198.51.100.7', '172.16.5.5', '2001:db8::5')
TIERS = ('default', 'first', 'second', 'none')
V3, K8S = 'projectcalico.org/v3', 'networking.k8s.io/v1'
ADMIN_API = 'policy.networking.k8s.io/'


class Generator:
    def __init__(self, rng):
        self.r = rng
        self.serial = 0

    def maybe(self, chance, make):
        return make() if self.r.random() < chance else None

    def some(self, values, low=0, high=3):
        return [self.r.choice(values) for _ in range(self.r.randint(low, high))]

    def labels(self, chance=0.6):
        return {key: self.r.choice(values) for key, values in LABELS.items()
                if self.r.random() < chance}

    # ---- selectors ----

    def term(self):
        r = self.r
        key = r.choice([*LABELS, 'projectcalico.org/namespace', 'pcns.env', 'pcsa.team.io/name',
                        'projectcalico.org/orchestrator', 'absent'])
        values = LABELS.get(key.removeprefix('pcns.').removeprefix('pcsa.'), (*NAMESPACES, 'k8s'))
        value = r.choice(values)
        return r.choice([
            f"{key} == '{value}'", f"{key}=='{value}'", f"{key} != '{value}'", f'has({key})',
            f'!has({key})', 'all()', f"{key} in {{'{value}', 'other'}}", f"{key} in {{ }}",
            f"{key} not in {{'{value}'}}", f"{key} contains '{value[:1]}'",
            f"{key} starts with '{value[:2]}'", f"{key} ends with '{value[-2:]}'"])

    def selector(self, depth=2):
        r = self.r
        if depth == 0 or r.random() < 0.5:
            return self.term()
        parts = [self.selector(depth - 1) for _ in range(r.randint(1, 3))]
        text = r.choice([' && ', ' || ']).join(f'({p})' if r.random() < 0.7 else p for p in parts)
        return f'!({text})' if r.random() < 0.2 else text

    def namespace_selector(self):
        return self.r.choice(['all()', 'global()', "env == 'prod'", "env != 'dev'", 'has(env)',
                              "projectcalico.org/name == 'prod'", "projectcalico.org/name in {'dev'}",
                              "kubernetes.io/metadata.name == 'kube-system'", '!has(x)'])

    def label_selector(self):
        r = self.r
        wanted = {}
        if r.random() < 0.6:
            key = r.choice(list(LABELS))
            wanted['matchLabels'] = {key: r.choice(LABELS[key])}
        if r.random() < 0.4:
            key = r.choice([*LABELS, 'absent'])
            operator = r.choice(['In', 'NotIn', 'Exists', 'DoesNotExist'])
            term = {'key': key, 'operator': operator}
            if operator in ('In', 'NotIn'):
                term['values'] = [r.choice(LABELS.get(key, ('v',))), 'other']
            wanted['matchExpressions'] = [term]
        return wanted

    # ---- the cluster ----

    def base(self):
        documents = [self.namespace(name) for name in NAMESPACES if self.r.random() < 0.95]
        documents += [self.account(ns, name) for ns in NAMESPACES for name in ACCOUNTS
                      if self.r.random() < 0.8]
        for i in range(1, self.r.randint(6, 24)):
            documents += self.pod(i)
        documents += [self.tier(name) for name in ('first', 'second') if self.r.random() < 0.7]
        documents += [self.network_set(i) for i in range(self.r.randint(0, 4))]
        documents += [self.slice(i) for i in range(self.r.randint(1, 5))]
        documents += [self.profile()]
        documents += [self.host_endpoint(i) for i in range(self.r.randint(0, 3))]
        return documents

    def namespace(self, name):
        return {'apiVersion': 'v1', 'kind': 'Namespace',
                'metadata': {'name': name, 'labels': self.labels()}}

    def account(self, namespace, name):
        return {'apiVersion': 'v1', 'kind': 'ServiceAccount',
                'metadata': {'name': name, 'namespace': namespace, 'labels': self.labels(0.4)}}

    def container_ports(self):
        return [{'name': name, 'protocol': self.r.choice(['TCP', 'UDP', 'SCTP']),
                 'containerPort': self.r.choice(PORTS)}
                for name in PORT_NAMES if self.r.random() < 0.5]

    def pod(self, i):
        """A pod, its WorkloadEndpoint if it is here: documents."""
        r = self.r
        namespace, is_here = NAMESPACES[i % len(NAMESPACES)], r.random() < 0.6
        if r.random() < 0.1:
            return [self.lone_endpoint(i, namespace)]
        pod = {'apiVersion': 'v1', 'kind': 'Pod',
               'metadata': {'name': f'p{i}', 'namespace': namespace, 'labels': self.labels()},
               'spec': {'nodeName': 'n1' if is_here else 'n2',
                        'containers': [{'name': 'c', 'ports': self.container_ports()}]},
               'status': {'phase': r.choice(['Running'] * 9 + ['Succeeded', 'Failed', 'Pending'])}}
        if r.random() < 0.6:
            pod['spec']['serviceAccountName'] = r.choice(ACCOUNTS)
        if r.random() < 0.05:
            pod['spec']['hostNetwork'] = True
        if not is_here:
            pod['status']['podIPs'] = [{'ip': ip} for ip in self.addresses(i)]
            return [pod]
        return [pod, self.endpoint(i, namespace, pod=f'p{i}')]

    @staticmethod
    def addresses(i):
        return [f'10.0.0.{i}', f'fd00::{i:x}']

    def endpoint(self, i, namespace, node='n1', **spec):
        return {'apiVersion': V3, 'kind': 'WorkloadEndpoint',
                'metadata': {'name': f'{node}-k8s-p{i}-eth0', 'namespace': namespace},
                'spec': {'orchestrator': 'k8s', 'node': node, 'endpoint': 'eth0',
                         'interfaceName': f'cali{i}',
                         'ipNetworks': [f'10.0.0.{i}/32', f'fd00::{i:x}/128'], **spec}}

    def lone_endpoint(self, i, namespace):
        """What has no Pod: podman's containers, or a WorkloadEndpoint of another node."""
        r = self.r
        document = self.endpoint(i, namespace, r.choice(['n1', 'n2']), containerID=f'c{i}')
        document['spec']['profiles'] = r.choice([[], [f'kns.{namespace}'],
                                                 ['open', f'kns.{namespace}'], ['nowhere'],
                                                 ['projectcalico-default-allow']])
        document['spec']['ports'] = [{'name': p['name'], 'protocol': p['protocol'],
                                      'port': p['containerPort']} for p in self.container_ports()]
        document['metadata']['labels'] = self.labels()
        return document

    def profile(self):
        return {'apiVersion': V3, 'kind': 'Profile', 'metadata': {'name': 'open'},
                'spec': {'labelsToApply': self.labels(0.3),
                         'ingress': [self.rule('Ingress', None) for _ in range(self.r.randint(0, 2))],
                         'egress': [{'action': self.r.choice(['Allow', 'Deny', 'Pass', 'Log'])}]}}

    def host_endpoint(self, i):
        return {'apiVersion': V3, 'kind': 'HostEndpoint',
                'metadata': {'name': f'h{i}', 'labels': self.labels()},
                'spec': {'node': self.r.choice(['n1', 'n1', 'n2']),
                         'expectedIPs': [f'10.0.1.{i}', f'fd00::1:{i}'],
                         'profiles': self.r.choice([[], ['open'], ['projectcalico-default-allow']]),
                         'ports': [{'name': 'http', 'protocol': 'TCP', 'port': 80}]}}

    def tier(self, name):
        spec = {'defaultAction': self.r.choice(['Deny', 'Pass'])}
        if self.r.random() < 0.8:
            spec['order'] = self.r.choice([10, 500, 2000, 2_000_000])
        return {'apiVersion': V3, 'kind': 'Tier', 'metadata': {'name': name}, 'spec': spec}

    def network_set(self, i):
        is_global = self.r.random() < 0.5
        document = {'apiVersion': V3, 'kind': 'GlobalNetworkSet' if is_global else 'NetworkSet',
                    'metadata': {'name': f's{i}', 'labels': self.labels()},
                    'spec': {'nets': sorted(set(self.some(NETS4 + NETS6, 0, 4)))}}
        if not is_global:
            document['metadata']['namespace'] = self.r.choice(NAMESPACES)
        return document

    def slice(self, i):
        family = self.r.choice([0, 1])
        return {'apiVersion': 'discovery.k8s.io/v1', 'kind': 'EndpointSlice',
                'addressType': ('IPv4', 'IPv6')[family],
                'metadata': {'name': f'slice{i}', 'namespace': self.r.choice(NAMESPACES),
                             'labels': {'kubernetes.io/service-name': self.r.choice(['web', 'db'])}},
                'endpoints': [{'addresses': [self.addresses(n)[family]]}
                              for n in set(self.some(range(1, 25), 2, 8))],
                'ports': [{'name': f'p{n}', 'port': port, 'protocol': self.r.choice(['TCP', 'UDP'])}
                          for n, port in enumerate(self.some(PORTS, 1, 2))]}

    # ---- Calico's policies ----

    def port_list(self, has_numbers):
        ports = []
        for _ in range(self.r.randint(1, 3)):
            choice = self.r.random()
            if not has_numbers or choice < 0.3:
                ports.append(self.r.choice(PORT_NAMES))
            elif choice < 0.8:
                ports.append(self.r.choice(PORTS))
            else:
                low = self.r.choice(PORTS)
                ports.append(f'{low}:{min(65535, low + self.r.randint(0, 1000))}')
        return ports

    def side(self, direction, is_source, namespace, family, protocol):
        r, side = self.r, {}
        nets = {4: NETS4, 6: NETS6, None: ()}[family]
        is_peer = is_source == (direction == 'Ingress')
        if is_peer and direction and r.random() < 0.15:
            side['services'] = {'name': r.choice(['web', 'db'])}
            if not namespace or r.random() < 0.3:
                side['services']['namespace'] = r.choice(NAMESPACES)
            return side
        has_ports = protocol in ('TCP', 'UDP', 'SCTP', 6, 17, 132)
        makes = {
            'selector': self.selector, 'notSelector': lambda: self.selector(1),
            'namespaceSelector': self.namespace_selector,
            'serviceAccounts': lambda: r.choice([{'names': [r.choice(ACCOUNTS)]},
                                                 {'selector': "team.io/name == 'a'"},
                                                 {'names': list(ACCOUNTS), 'selector': 'all()'}])}
        if nets:
            makes['nets'] = lambda: sorted(set(self.some(nets, 1, 3)))
            makes['notNets'] = lambda: sorted(set(self.some(nets, 1, 2)))
        if has_ports or protocol is None:
            makes['ports'] = makes['notPorts'] = lambda: self.port_list(has_ports)
        # Few at a time: a rule that asks for much matches nothing.
        for field in r.sample(sorted(makes), r.choice([0, 1, 1, 2] if is_peer else [0, 0, 1])):
            side[field] = makes[field]()
        return side

    def rule(self, direction, namespace):
        r = self.r
        rule = {'action': r.choice(['Allow', 'Allow', 'Allow', 'Deny', 'Deny', 'Pass', 'Log'])}
        family = r.choice([4, 6, None, None])
        protocol = r.choice([None, None, 'TCP', 'TCP', 'UDP', 'SCTP', 'ICMP', 'ICMPv6', 6, 17, 1, 58])
        if {'ICMP': 4, 1: 4, 'ICMPv6': 6, 58: 6}.get(protocol, family) != family:
            family = None
        if protocol is not None:
            rule['protocol'] = protocol
        elif r.random() < 0.2:
            rule['notProtocol'] = r.choice(['TCP', 17, 'SCTP'])
        if protocol in ('ICMP', 'ICMPv6', 1, 58) and r.random() < 0.6:
            rule['icmp'] = {'type': r.choice([0, 8, 128]), 'code': 0} if r.random() < 0.5 else {
                'type': r.choice([8, 128, 3])}
        if r.random() < 0.1:
            rule['notICMP'] = r.choice([{'type': 8}, {'type': 128, 'code': 0}, {'type': 8, 'code': 1},
                                        {'type': 0}])
        if family and r.random() < 0.3:
            rule['ipVersion'] = family
        for name, is_source in (('source', True), ('destination', False)):
            side = self.side(direction, is_source, namespace, family, protocol)
            if side:
                rule[name] = side
        if rule.get('source', {}).get('services') or rule.get('destination', {}).get('services'):
            rule.get('destination', {}).pop('ports', None)
            rule.get('destination', {}).pop('notPorts', None)
        return rule

    def policy(self, i):
        r = self.r
        kind = r.choice(['NetworkPolicy', 'NetworkPolicy', 'GlobalNetworkPolicy',
                         'GlobalNetworkPolicy', 'KubernetesNetworkPolicy',
                         'KubernetesNetworkPolicy', 'ClusterNetworkPolicy', 'AdminNetworkPolicy',
                         'BaselineAdminNetworkPolicy', 'StagedNetworkPolicy',
                         'StagedGlobalNetworkPolicy'])
        if kind == 'KubernetesNetworkPolicy':
            return self.kubernetes_policy(i)
        if kind in ('ClusterNetworkPolicy', 'AdminNetworkPolicy', 'BaselineAdminNetworkPolicy'):
            return self.admin_policy(kind, i)
        is_global = 'Global' in kind
        namespace = None if is_global else r.choice(NAMESPACES)
        tier = r.choice(TIERS)
        name = f'{tier}.c{i}' if tier != 'default' else f'c{i}'
        spec = {'tier': tier, 'types': r.choice([['Ingress'], ['Egress'], ['Ingress', 'Egress'],
                                                ['Ingress', 'Egress']])}
        if r.random() < 0.7:
            spec['order'] = r.choice([1, 10, 999.5, 1000, 1000, 5000])
        if r.random() < 0.6:
            spec['selector'] = self.selector()
        if is_global and r.random() < 0.3:
            spec['namespaceSelector'] = self.namespace_selector()
        if r.random() < 0.15:
            spec['serviceAccountSelector'] = r.choice(['all()', "team.io/name == 'a'",
                                                       "projectcalico.org/name == 'robot'"])
        for direction in spec['types']:
            spec[direction.lower()] = [self.rule(direction, namespace)
                                       for _ in range(r.randint(0, 4))]
        if is_global and r.random() < 0.05:
            spec.update(applyOnForward=True, doNotTrack=True)
        document = {'apiVersion': V3, 'kind': kind, 'metadata': {'name': name}, 'spec': spec}
        if namespace:
            document['metadata']['namespace'] = namespace
        return document

    # ---- Kubernetes' policies ----

    def kubernetes_peer(self):
        r, choice = self.r, self.r.random()
        if choice < 0.3:
            family = r.choice([NETS4, NETS6])
            peer = {'ipBlock': {'cidr': r.choice(family)}}
            net = ipaddress.ip_network(peer['ipBlock']['cidr'])
            inner = [n for n in family if ipaddress.ip_network(n).subnet_of(net) and n != str(net)]
            if inner and r.random() < 0.5:
                peer['ipBlock']['except'] = sorted(set(self.some(inner, 1, 2)))
            return peer
        peer = {}
        if choice < 0.75:
            peer['podSelector'] = self.label_selector()
        if choice > 0.5:
            peer['namespaceSelector'] = self.label_selector()
        return peer

    def kubernetes_port(self):
        r = self.r
        port = {}
        if r.random() < 0.7:
            port['protocol'] = r.choice(['TCP', 'UDP', 'SCTP'])
        choice = r.random()
        if choice < 0.3:
            port['port'] = r.choice(PORT_NAMES)
        elif choice < 0.9:
            port['port'] = r.choice(PORTS)
            if r.random() < 0.3:
                port['endPort'] = min(65535, port['port'] + r.randint(0, 2000))
        return port

    def kubernetes_policy(self, i):
        r = self.r
        spec = {'podSelector': self.label_selector(),
                'policyTypes': r.choice([['Ingress'], ['Egress'], ['Ingress', 'Egress']])}
        for direction, field in (('Ingress', 'from'), ('Egress', 'to')):
            if direction in spec['policyTypes']:
                spec[direction.lower()] = [
                    {key: value for key, value in (
                        (field, [self.kubernetes_peer() for _ in range(r.randint(0, 2))]),
                        ('ports', [self.kubernetes_port() for _ in range(r.randint(0, 2))]))
                     if value or r.random() < 0.5} for _ in range(r.randint(0, 3))]
        return {'apiVersion': K8S, 'kind': 'NetworkPolicy', 'spec': spec,
                'metadata': {'name': f'k{i}', 'namespace': r.choice(NAMESPACES)}}

    def admin_peer(self, direction):
        r, choice = self.r, self.r.random()
        if direction == 'Egress' and choice < 0.3:
            return {'networks': sorted(set(self.some(NETS4 + NETS6, 1, 3)))}
        if direction == 'Egress' and choice < 0.35:
            return r.choice([{'nodes': {}}, {'domainNames': ['example.org']}])
        if choice < 0.6:
            return {'namespaces': self.label_selector()}
        return {'pods': {'namespaceSelector': self.label_selector(),
                         'podSelector': self.label_selector()}}

    def admin_port(self, kind):
        r = self.r
        if r.random() < 0.2:
            name = r.choice(PORT_NAMES)
            return {'destinationNamedPort' if kind == 'ClusterNetworkPolicy' else 'namedPort': name}
        low = r.choice(PORTS)
        high = min(65535, low + r.randint(0, 500))
        if kind == 'ClusterNetworkPolicy':
            inner = r.choice([{}, {'destinationPort': {'number': low}},
                              {'destinationPort': {'range': {'start': low, 'end': high}}}])
            return {r.choice(['tcp', 'udp', 'sctp']): inner}
        protocol = r.choice(['TCP', 'UDP', 'SCTP'])
        return r.choice([{'portNumber': {'protocol': protocol, 'port': low}},
                         {'portRange': {'protocol': protocol, 'start': low, 'end': high}}])

    def admin_policy(self, kind, i):
        r = self.r
        actions = {'ClusterNetworkPolicy': ['Accept', 'Deny', 'Pass'],
                   'AdminNetworkPolicy': ['Allow', 'Deny', 'Pass'],
                   'BaselineAdminNetworkPolicy': ['Allow', 'Deny']}[kind]
        spec = {'priority': r.choice([0, 5, 5, 50, 1000]),
                'subject': r.choice([{'namespaces': self.label_selector()},
                                     {'pods': {'namespaceSelector': self.label_selector(),
                                               'podSelector': self.label_selector()}}])}
        if kind == 'ClusterNetworkPolicy':
            spec['tier'] = r.choice(['Admin', 'Baseline'])
        if kind == 'BaselineAdminNetworkPolicy':
            del spec['priority']
        for direction, field in (('Ingress', 'from'), ('Egress', 'to')):
            rules = []
            for _ in range(r.randint(0, 3)):
                rule = {'action': r.choice(actions),
                        field: [self.admin_peer(direction) for _ in range(r.randint(1, 2))]}
                if r.random() < 0.5:
                    rule['protocols' if kind == 'ClusterNetworkPolicy' else 'ports'] = [
                        self.admin_port(kind) for _ in range(r.randint(1, 2))]
                rules.append(rule)
            if rules:
                spec[direction.lower()] = rules
        version = 'v1alpha2' if kind == 'ClusterNetworkPolicy' else 'v1alpha1'
        name = 'default' if kind == 'BaselineAdminNetworkPolicy' else f'a{i}'
        return {'apiVersion': ADMIN_API + version, 'kind': kind, 'metadata': {'name': name},
                'spec': spec}

    # ---- changes and packets ----

    def change(self, documents):
        """One step: [('put' or 'delete', document)]."""
        r = self.r
        present = list(documents.values())
        choice = r.random()
        policies = [d for d in present if 'Policy' in d['kind']]
        if choice < 0.3 or not policies:
            return [('put', self.policy(r.randint(0, 9)))]
        if choice < 0.4:
            return [('delete', r.choice(policies))]
        others = [d for d in present if 'Policy' not in d['kind']]
        if choice < 0.5 and others:
            return [('delete', r.choice(others))]
        if choice < 0.7 and others:  # labels change
            document = r.choice(others)
            return [('put', {**document, 'metadata': {**document['metadata'],
                                                      'labels': self.relabel(document)}})]
        make = r.choice([lambda: self.pod(r.randint(1, 24)),
                         lambda: [self.namespace(r.choice(NAMESPACES))],
                         lambda: [self.account(r.choice(NAMESPACES), r.choice(ACCOUNTS))],
                         lambda: [self.tier(r.choice(['first', 'second']))],
                         lambda: [self.network_set(r.randint(0, 4))],
                         lambda: [self.slice(r.randint(0, 4))], lambda: [self.profile()],
                         lambda: [self.host_endpoint(r.randint(0, 2))]])
        return [('put', document) for document in make()]

    def relabel(self, document):
        if document['kind'] == 'EndpointSlice':
            return {'kubernetes.io/service-name': self.r.choice(['web', 'db'])}
        return self.labels()

    def packets(self, world, n):
        r = self.r
        addresses = {4: [], 6: []}
        for item in world.items:
            for net in item.nets:
                own = addresses[net.version]
                own.append(str(net[0]))
                if item.is_local:
                    own += [str(net[0])] * 3
                if net.num_addresses > 4:
                    own.append(str(net[r.randint(0, min(net.num_addresses - 1, 1 << 20))]))
        for text in OUTSIDE:
            addresses[ipaddress.ip_address(text).version].append(text)
        served = [(ipaddress.ip_address(a), port) for d in world.of_kind('EndpointSlice')
                  for e in d['endpoints'] for a in e['addresses'] for port in d['ports']]
        made = []
        while len(made) < n:
            family = r.choice([4, 6])
            if served and r.random() < 0.2:  # to a service's endpoint
                target, port = r.choice(served)
                source = r.choice(addresses[target.version])
                if source != str(target):
                    made.append(Packet(source, str(target), port['protocol'], 40000, port['port']))
                continue
            source, target = r.choice(addresses[family]), r.choice(addresses[family])
            if source == target:
                continue
            protocol = r.choice(['TCP', 'TCP', 'UDP', 'SCTP', 'ICMP', 'OTHER'])
            if protocol == 'ICMP':
                echo = 8 if family == 4 else 128
                made.append(Packet(source, target, 1 if family == 4 else 58,
                                   icmp=r.choice([(echo, 0), (echo, 1), (0, 0), (3, 1)])))
            elif protocol == 'OTHER':
                made.append(Packet(source, target, r.choice([2, 47])))
            else:
                made.append(Packet(source, target, NUMBERS[protocol],
                                   r.choice([*PORTS, 40000, 2048]), r.choice(PORTS + (85, 500))))
        return made
