"""What policies say about one connection, from what the documents say they mean, and nothing else.

Slow and obvious: every question is answered from the objects as they are written. It knows nothing
of the engine. Kubernetes' own policies are judged as Kubernetes defines them, not by translation.

    world = World('n1')
    world.put(document)
    world.verdict(Packet('10.0.0.1', '10.0.0.2', 'TCP', 1234, 80))  ->  ('Allow', 'Deny')
"""

import ipaddress
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'e2e'))

from calico_oracle import NUMBERS, Selector  # noqa: E402

INFINITE = float('inf')
NS, ORCHESTRATOR = 'projectcalico.org/namespace', 'projectcalico.org/orchestrator'
SERVICE_ACCOUNT = 'projectcalico.org/serviceaccount'
CALICO = ('NetworkPolicy', 'GlobalNetworkPolicy')
ADMIN = ('ClusterNetworkPolicy', 'AdminNetworkPolicy', 'BaselineAdminNetworkPolicy')
BUILTIN_TIERS = {'default': (1_000_000, 'Deny'), 'kube-admin': (1000, 'Pass'),
                 'kube-baseline': (10_000_000, 'Pass'), 'adminnetworkpolicy': (1000, 'Pass'),
                 'baselineadminnetworkpolicy': (10_000_000, 'Pass')}


class Packet:
    def __init__(self, source, target, protocol, sport=0, dport=0, icmp=(0, 0)):
        self.source, self.target = ipaddress.ip_address(source), ipaddress.ip_address(target)
        self.protocol = NUMBERS.get(protocol, protocol)
        self.sport, self.dport, self.icmp = sport, dport, icmp
        self.family = self.source.version
        self.is_icmp = self.protocol == (1 if self.family == 4 else 58)

    def wire(self):
        return [str(self.source), str(self.target), self.protocol, self.sport, self.dport,
                *self.icmp]


def meta(document, key, default=None):
    return document['metadata'].get(key, default)


def identity(document):
    return (document['apiVersion'].split('/')[0], document['kind'], meta(document, 'namespace', ''),
            meta(document, 'name'))


_networks = {}


def networks(texts):
    """As ipaddress networks; bare addresses are whole."""
    for text in texts:
        if text not in _networks:
            _networks[text] = ipaddress.ip_network(text, strict=False)
    return [_networks[text] for text in texts]


class Item:
    """Something that has labels and addresses: an endpoint or a network set."""

    def __init__(self, labels, nets, ports=(), profiles=(), namespace=None, pod=None, is_local=False):
        self.labels, self.nets, self.ports, self.profiles = labels, networks(nets), ports, profiles
        self.namespace, self.pod, self.is_local = namespace, pod, is_local

    def has(self, address):
        return any(net.version == address.version and address in net for net in self.nets)


class World:
    def __init__(self, node):
        self.node, self.objects = node, {}
        self.forget()

    def forget(self):
        """What is worked out from the objects is worked out again."""
        self._items = self._policies = None
        self._memo = {}

    def put(self, document):
        self.objects[identity(document)] = document
        self.forget()

    def delete(self, document):
        self.objects.pop(identity(document), None)
        self.forget()

    def of_kind(self, *kinds):
        return [d for d in self.objects.values() if d['kind'] in kinds]

    # ---- items ----

    def profile_labels(self, profiles):
        """Labels that profiles give, the earlier one wins."""
        labels = {}
        for name in profiles:
            for key, value in (self.profile(name) or ({}, None))[0].items():
                labels.setdefault(key, value)
        return labels

    def profile(self, name):
        """(labels, rules by direction) of a profile, or None if there is none."""
        if name.startswith('kns.'):
            found = self.objects.get(('v1', 'Namespace', '', name[4:]))
            if found:
                labels = {f'pcns.{k}': v for k, v in (meta(found, 'labels') or {}).items()}
                labels['pcns.projectcalico.org/name'] = name[4:]
                labels['pcns.kubernetes.io/metadata.name'] = name[4:]
                return labels, {'Ingress': [{'action': 'Allow'}], 'Egress': [{'action': 'Allow'}]}
        if name.startswith('ksa.'):
            namespace, account = name[4:].split('.', 1)
            found = self.objects.get(('v1', 'ServiceAccount', namespace, account))
            if found:
                labels = {f'pcsa.{k}': v for k, v in (meta(found, 'labels') or {}).items()}
                labels['pcsa.projectcalico.org/name'] = account
                return labels, {'Ingress': [], 'Egress': []}
        found = self.objects.get(('projectcalico.org', 'Profile', '', name))
        if found:
            spec = found.get('spec') or {}
            return (spec.get('labelsToApply') or {},
                    {'Ingress': spec.get('ingress') or [], 'Egress': spec.get('egress') or []})
        if name == 'projectcalico-default-allow':
            return {}, {'Ingress': [{'action': 'Allow'}], 'Egress': [{'action': 'Allow'}]}
        return None

    @property
    def items(self):
        if self._items is None:
            self._items = list(self._make_items())
        return self._items

    def _make_items(self):
        weps = {}
        for wep in self.of_kind('WorkloadEndpoint'):
            weps.setdefault((meta(wep, 'namespace'), wep['spec'].get('pod')), []).append(wep)
        for pod in self.of_kind('Pod'):
            yield from self._pod_items(pod, weps.pop((meta(pod, 'namespace'), meta(pod, 'name')), []))
        for (namespace, _), alone in weps.items():
            for wep in alone:
                spec = wep['spec']
                own = {**(meta(wep, 'labels') or {}), NS: namespace,
                       ORCHESTRATOR: spec['orchestrator']}
                if spec.get('serviceAccountName'):
                    own[SERVICE_ACCOUNT] = spec['serviceAccountName']
                profiles = spec.get('profiles') or []
                ports = [(p['name'], NUMBERS[p['protocol']], p['port'])
                         for p in spec.get('ports') or []]
                yield Item({**self.profile_labels(profiles), **own}, spec['ipNetworks'], ports,
                           profiles, namespace, wep, spec['node'] == self.node)
        for kind in ('NetworkSet', 'GlobalNetworkSet'):
            for document in self.of_kind(kind):
                namespace, labels = meta(document, 'namespace'), meta(document, 'labels') or {}
                if namespace:
                    labels = {**self.profile_labels([f'kns.{namespace}']), **labels, NS: namespace}
                yield Item(labels, (document.get('spec') or {}).get('nets') or [],
                           namespace=namespace)
        for document in self.of_kind('HostEndpoint'):
            spec = document['spec']
            profiles = spec.get('profiles') or []
            ports = [(p['name'], NUMBERS[p['protocol']], p['port']) for p in spec.get('ports') or []]
            yield Item({**self.profile_labels(profiles), **(meta(document, 'labels') or {})},
                       spec.get('expectedIPs') or [], ports, profiles,
                       is_local=spec['node'] == self.node)

    def _pod_items(self, pod, weps):
        """A pod is an endpoint where it runs: here by its WorkloadEndpoint, elsewhere by status."""
        spec, status = pod['spec'], pod.get('status') or {}
        if spec.get('hostNetwork') or status.get('phase') in ('Succeeded', 'Failed'):
            return
        namespace = meta(pod, 'namespace')
        account = spec.get('serviceAccountName')
        own = {**(meta(pod, 'labels') or {}), NS: namespace, ORCHESTRATOR: 'k8s'}
        profiles = [f'kns.{namespace}']
        if account:
            own[SERVICE_ACCOUNT] = account
            profiles.append(f'ksa.{namespace}.{account}')
        labels = {**self.profile_labels(profiles), **own}
        ports = [(p['name'], NUMBERS[p.get('protocol', 'TCP')], p['containerPort'])
                 for c in spec['containers'] for p in c.get('ports') or [] if p.get('name')]
        here = [w for w in weps if w['spec']['node'] == self.node]
        for wep in here:
            yield Item(labels, wep['spec']['ipNetworks'], ports, profiles, namespace, pod, True)
        ips = [ip['ip'] for ip in status.get('podIPs') or []]
        if not here and ips and spec.get('nodeName') not in (None, self.node):
            yield Item(labels, ips, ports, profiles, namespace, pod)

    # ---- policies ----

    @property
    def policies(self):
        if self._policies is None:
            self._policies = []
            for document in self.objects.values():
                if document['apiVersion'] == 'networking.k8s.io/v1':
                    self._policies.append(KubernetesPolicy(self, document))
                elif document['kind'] in CALICO:
                    self._policies.append(CalicoPolicy(self, document))
                elif document['kind'] in ADMIN:
                    self._policies.append(AdminPolicy(self, document))
        return self._policies

    def tier(self, name):
        """(order, default action), or None if it does not exist."""
        found = self.objects.get(('projectcalico.org', 'Tier', '', name))
        if found:
            order = (found.get('spec') or {}).get('order')
            return (INFINITE if order is None else order,
                    (found.get('spec') or {}).get('defaultAction') or 'Deny')
        return BUILTIN_TIERS.get(name)

    def governing(self, direction, endpoint):
        """[(tier's default action, policies in order)] that govern an endpoint."""
        key = ('governing', direction, id(endpoint))
        if key not in self._memo:
            tiers = {}
            for policy in self.policies:
                if direction in policy.types and policy.selects(endpoint):
                    tiers.setdefault(policy.tier, []).append(policy)

            def order(name):
                known = self.tier(name)
                return (known is None, known[0] if known else 0, name)
            self._memo[key] = [((self.tier(name) or (0, 'Deny'))[1],
                                sorted(tiers[name], key=lambda p: p.key))
                               for name in sorted(tiers, key=order)]
        return self._memo[key]

    def side_verdict(self, direction, endpoint, packet):
        for default, policies in self.governing(direction, endpoint):
            action = None
            for policy in policies:
                action = policy.verdict(direction, packet)
                if action:
                    break
            action = action or default
            if action != 'Pass':
                return action
        for name in endpoint.profiles:
            rules = (self.profile(name) or ({}, {direction: []}))[1][direction]
            for rule in rules:
                if rule['action'] != 'Log' and rule_matches(self, rule, None, packet):
                    if rule['action'] == 'Pass':
                        break
                    return rule['action']
        return 'Deny'

    def verdict(self, packet):
        """Of the sender's egress, of the receiver's ingress; Allow where no endpoint is here."""
        answer = []
        for direction, own in (('Egress', packet.source), ('Ingress', packet.target)):
            endpoint = self.local_endpoint(own)
            answer.append(self.side_verdict(direction, endpoint, packet) if endpoint else 'Allow')
        return tuple(answer)

    def local_endpoint(self, address):
        key = ('local', address)
        if key not in self._memo:
            self._memo[key] = next((i for i in self.items if i.is_local and i.has(address)), None)
        return self._memo[key]

    def chosen(self, key, test):
        """Items that pass a test, remembered by key until something changes."""
        if key not in self._memo:
            self._memo[key] = [item for item in self.items if test(item)]
        return self._memo[key]


_selectors = {}


def selector(text):
    if text not in _selectors:
        _selectors[text] = Selector(text)
    return _selectors[text].matches


def prefixed(labels, prefix):
    """Labels inherited with a prefix, without it."""
    return {k[len(prefix):]: v for k, v in labels.items() if k.startswith(prefix)}


def namespaces_match(text, item):
    """Does a rule's (or a global policy's) namespaceSelector mean the item?"""
    if text.strip() == 'global()':
        return NS not in item.labels
    if text.strip() == 'all()':
        return NS in item.labels
    return selector(text)(prefixed(item.labels, 'pcns.'))


def accounts_match(text, item):
    if text.strip() == 'all()':
        return SERVICE_ACCOUNT in item.labels
    return selector(text)(prefixed(item.labels, 'pcsa.'))


def given(text):
    return bool(text and text.strip())


# ---- a Calico rule ----

def rule_matches(world, rule, namespace, packet):
    """Everything given must match."""
    if rule.get('ipVersion') not in (None, packet.family):
        return False
    if 'protocol' in rule and NUMBERS.get(rule['protocol'], rule['protocol']) != packet.protocol:
        return False
    if 'notProtocol' in rule and NUMBERS.get(rule['notProtocol'],
                                             rule['notProtocol']) == packet.protocol:
        return False
    if 'icmp' in rule and not (packet.is_icmp and icmp_is(rule['icmp'], packet)):
        return False
    if rule.get('notICMP') and packet.is_icmp and icmp_is(rule['notICMP'], packet):
        return False
    if {1: 4, 58: 6}.get(NUMBERS.get(rule.get('protocol'), rule.get('protocol')),
                         packet.family) != packet.family:
        return False
    return (side_matches(world, rule.get('source') or {}, namespace, packet, packet.source,
                         packet.sport, True) and
            side_matches(world, rule.get('destination') or {}, namespace, packet, packet.target,
                         packet.dport, False))


def icmp_is(wanted, packet):
    return all(value in (None, found) for value, found in
               zip((wanted.get('type'), wanted.get('code')), packet.icmp))


def inside(nets, address):
    return any(net.version == address.version and address in net for net in networks(nets))


def side_items(world, side, namespace):
    """Items that the selector fields of a side mean; None: there are none of these fields."""
    accounts = side.get('serviceAccounts') or {}
    names, account_selector = accounts.get('names'), accounts.get('selector')
    has_selector = given(side.get('selector'))
    has_accounts = bool(names) or given(account_selector)
    has_namespaces = given(side.get('namespaceSelector'))
    is_tied = namespace and not has_namespaces and (has_selector or has_accounts or
                                                    given(side.get('notSelector')))
    if not (has_selector or has_accounts or has_namespaces or is_tied):
        return None

    def test(item):
        return ((not has_namespaces or namespaces_match(side['namespaceSelector'], item)) and
                (not is_tied or item.labels.get(NS) == namespace) and
                (not names or item.labels.get(SERVICE_ACCOUNT) in names) and
                (not given(account_selector) or accounts_match(account_selector, item)) and
                (not has_selector or selector(side['selector'])(item.labels)))
    return world.chosen(('side', id(side), namespace), test)


def side_matches(world, side, namespace, packet, address, port, is_source):
    nets, not_nets = side.get('nets') or [], side.get('notNets') or []
    if nets and not inside(nets, address):
        return False
    if not_nets and (networks(not_nets)[0].version != packet.family or inside(not_nets, address)):
        return False  # a rule that speaks of one family's networks is of that family alone
    items = side_items(world, side, namespace)
    if items is not None and not any(item.has(address) for item in items):
        return False
    if given(side.get('notSelector')):
        without = selector(side['notSelector'])
        if any(item.has(address) for item in
               world.chosen(('not', side['notSelector']), lambda i: without(i.labels))):
            return False
    if side.get('services') and not service_has(world, side['services'], namespace, packet, address,
                                                None if is_source else port):
        return False
    if side.get('ports') and not ports_have(world, side['ports'], items, packet, address, port):
        return False
    return not (side.get('notPorts') and
                ports_have(world, side['notPorts'], items, packet, address, port))


def ports_have(world, ports, items, packet, address, port):
    for entry in ports:
        if isinstance(entry, int):
            low = high = entry
        elif ':' in entry:
            low, high = (int(text) for text in entry.split(':'))
        else:
            if any((entry, packet.protocol, port) in item.ports and item.has(address)
                   for item in (world.items if items is None else items)):
                return True
            continue
        if low <= port <= high and packet.protocol in (6, 17, 132, 136):
            return True
    return False


def service_has(world, service, namespace, packet, address, port):
    for piece in world.of_kind('EndpointSlice'):
        if meta(piece, 'namespace') != (service.get('namespace') or namespace):
            continue
        if (meta(piece, 'labels') or {}).get('kubernetes.io/service-name') != service['name']:
            continue
        if not any(ipaddress.ip_address(a) == address for e in piece.get('endpoints') or []
                   for a in e['addresses']):
            continue
        if port is None or any(NUMBERS[p.get('protocol', 'TCP')] == packet.protocol and
                               p['port'] == port for p in piece.get('ports') or []):
            return True
    return False


# ---- policies ----

class CalicoPolicy:
    def __init__(self, world, document):
        spec = document.get('spec') or {}
        self.world, self.spec = world, spec
        self.namespace = meta(document, 'namespace')
        self.tier = spec.get('tier') or 'default'
        order = spec.get('order')
        self.key = (INFINITE if order is None else order,
                    f'{meta(document, "name")}/{self.namespace or ""}/{document["kind"]}')
        self.rules = {'Ingress': spec.get('ingress') or [], 'Egress': spec.get('egress') or []}
        self.types = spec.get('types') or ['Ingress', 'Egress']  # still empty when read: both
        if spec.get('doNotTrack') or spec.get('preDNAT'):
            self.types = []  # for host endpoints' other lists

    def selects(self, item):
        spec = self.spec
        if self.namespace and item.labels.get(NS) != self.namespace:
            return False
        if not self.namespace and given(spec.get('namespaceSelector')) and not namespaces_match(
                spec['namespaceSelector'], item):
            return False
        if given(spec.get('serviceAccountSelector')) and not accounts_match(
                spec['serviceAccountSelector'], item):
            return False
        return not given(spec.get('selector')) or selector(spec['selector'])(item.labels)

    def verdict(self, direction, packet):
        for rule in self.rules[direction]:
            if rule['action'] != 'Log' and rule_matches(self.world, rule, self.namespace, packet):
                return rule['action']
        return None


def label_selector_matches(wanted, labels):
    """Kubernetes' LabelSelector."""
    for key, value in (wanted.get('matchLabels') or {}).items():
        if labels.get(key) != value:
            return False
    for term in wanted.get('matchExpressions') or []:
        value, operator = labels.get(term['key']), term['operator']
        if operator == 'In' and (value is None or value not in term['values']):
            return False
        if operator == 'NotIn' and value is not None and value in term['values']:
            return False
        if operator == 'Exists' and value is None or operator == 'DoesNotExist' and value is not None:
            return False
    return True


def is_pod(item):
    return item.labels.get(ORCHESTRATOR) == 'k8s'


def pods_match(namespaces, pods, item):
    """Pods of Kubernetes by namespaces (None: any) and by their own labels (None: any)."""
    if not is_pod(item):
        return False
    if namespaces is not None:
        if NS not in item.labels or not label_selector_matches(namespaces,
                                                               prefixed(item.labels, 'pcns.')):
            return False
    return pods is None or label_selector_matches(pods, item.labels)


class KubernetesPolicy:
    def __init__(self, world, document):
        self.world, self.spec = world, document.get('spec') or {}
        self.namespace = meta(document, 'namespace')
        self.tier = 'default'
        self.key = (1000, f'{meta(document, "name")}/{self.namespace}/KubernetesNetworkPolicy')
        self.types = self.spec.get('policyTypes') or ['Ingress']
        self.rules = {'Ingress': self.spec.get('ingress') or [],
                      'Egress': self.spec.get('egress') or []}

    def selects(self, item):
        return (item.labels.get(NS) == self.namespace and
                pods_match(None, self.spec.get('podSelector') or {}, item))

    def verdict(self, direction, packet):
        peer_field = 'from' if direction == 'Ingress' else 'to'
        address = packet.source if direction == 'Ingress' else packet.target
        for rule in self.rules[direction]:
            peers, ports = rule.get(peer_field) or [None], rule.get('ports') or [None]
            if any(self.matches(peer, port, direction, packet, address)
                   for peer in peers for port in ports):
                return 'Allow'
        return None

    def peer_items(self, peer):
        def test(item):
            if peer.get('namespaceSelector') is None and item.labels.get(NS) != self.namespace:
                return False
            return pods_match(peer.get('namespaceSelector'), peer.get('podSelector'), item)
        return self.world.chosen(('peer', id(peer)), test)

    def matches(self, peer, port, direction, packet, address):
        items = None
        if peer is not None and peer.get('ipBlock') is not None:
            block = peer['ipBlock']
            if not inside([block['cidr']], address) or inside(block.get('except') or [], address):
                return False
        elif peer is not None:
            items = self.peer_items(peer)
            if not any(item.has(address) for item in items):
                return False
        if port is None:
            return True
        if NUMBERS[port.get('protocol', 'TCP')] != packet.protocol:
            return False
        number = port.get('port')
        if number is None:
            return True
        if isinstance(number, str):  # of the destination
            return ports_have(self.world, [number], items if direction == 'Egress' else None,
                              packet, packet.target, packet.dport)
        return number <= packet.dport <= port.get('endPort', number)


class AdminPolicy:
    """ClusterNetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy."""

    def __init__(self, world, document):
        self.world, self.spec = world, document['spec']
        kind = document['kind']
        self.tier = {'AdminNetworkPolicy': 'adminnetworkpolicy',
                     'BaselineAdminNetworkPolicy': 'baselineadminnetworkpolicy'}.get(
                         kind, 'kube-admin' if self.spec.get('tier') == 'Admin'
                         else 'kube-baseline')
        named = {'ClusterNetworkPolicy': 'KubernetesClusterNetworkPolicy'}.get(kind, kind)
        self.key = (self.spec.get('priority', 0), f'{meta(document, "name")}//{named}')
        self.rules = {'Ingress': self.spec.get('ingress') or [],
                      'Egress': self.spec.get('egress') or []}
        self.types = [d for d in ('Ingress', 'Egress') if self.rules[d]]

    def means(self, peer, item):
        if peer.get('pods') is not None:
            return pods_match(peer['pods'].get('namespaceSelector') or {},
                              peer['pods'].get('podSelector') or {}, item)
        return pods_match(peer['namespaces'], None, item)

    def selects(self, item):
        return self.means(self.spec['subject'], item)

    def verdict(self, direction, packet):
        address = packet.source if direction == 'Ingress' else packet.target
        for rule in self.rules[direction]:
            peers = rule.get('from' if direction == 'Ingress' else 'to') or []
            ports = rule.get('protocols') or rule.get('ports') or [None]
            unknown = any(set(peer) & {'nodes', 'domainNames'} for peer in peers)
            if unknown:  # can't be told: nothing is opened by it, and what it closes is closed
                if rule['action'] in ('Deny', 'Pass'):
                    return 'Deny'
                continue
            if any(self.matches(peer, port, direction, packet, address)
                   for peer in peers for port in ports):
                return 'Allow' if rule['action'] in ('Accept', 'Allow') else rule['action']
        return None

    def matches(self, peer, port, direction, packet, address):
        items = None
        if peer.get('networks'):
            if not inside(peer['networks'], address):
                return False
        else:
            items = self.world.chosen(('admin', id(peer)), lambda item: self.means(peer, item))
            if not any(item.has(address) for item in items):
                return False
        if port is None:
            return True
        name = port.get('destinationNamedPort') or port.get('namedPort')
        if name:
            return ports_have(self.world, [name], items if direction == 'Egress' else None, packet,
                              packet.target, packet.dport)
        for protocol in ('tcp', 'udp', 'sctp'):
            if protocol in port:
                low, high = self.limits((port[protocol] or {}).get('destinationPort'))
                return (NUMBERS[protocol.upper()] == packet.protocol and
                        low <= packet.dport <= high)
        one = port.get('portNumber') or port['portRange']
        low, high = one.get('port', one.get('start')), one.get('port', one.get('end'))
        return (NUMBERS[one.get('protocol', 'TCP')] == packet.protocol and
                low <= packet.dport <= high)

    @staticmethod
    def limits(port):
        if port is None:
            return 0, 65535
        if 'number' in port:
            return port['number'], port['number']
        return port['range']['start'], port['range']['end']
