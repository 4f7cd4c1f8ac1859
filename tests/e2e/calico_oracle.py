"""What Calico's policies say about one connection, from the documents' meaning alone.

Tiers by order, in them policies by order; the first rule that matches decides; Pass leaves the
tier; the end of a tier that governs the endpoint denies unless its defaultAction is Pass; then the
namespace's profile, which allows. Kubernetes policies stand in tier default with order 1000. Both
the sender's egress and the receiver's ingress must allow. Written to be obvious, not fast.
"""

import ipaddress
import re

from oracle import NAME_LABEL, _Policy, _in_block, _port_matches, matches

NUMBERS = {'ICMP': 1, 'TCP': 6, 'UDP': 17, 'ICMPv6': 58, 'SCTP': 132, 'UDPLite': 136}
INFINITE = float('inf')
KINDS = ('NetworkPolicy', 'GlobalNetworkPolicy')


# ---- selectors ----

TOKEN = re.compile(r"""\s*(?:(?P<string>"[^"]*"|'[^']*')|(?P<op>&&|\|\||==|!=|[!(){},])|"""
                   r"""(?P<word>[a-zA-Z0-9_./-]+))""")


class Selector:
    """A selector as a function of labels. `items` that have no labels of a namespace are global."""

    def __init__(self, text):
        self.tokens, at = [], 0
        while text[at:].strip():
            match = TOKEN.match(text, at)
            if not match:
                raise ValueError(f'selector {text!r} at {at}')
            self.tokens.append((match.lastgroup, match.group(match.lastgroup)))
            at = match.end()
        self.at = 0
        self.matches = self.either() if self.tokens else lambda labels: True
        if self.at != len(self.tokens):
            raise ValueError(f'selector {text!r}')

    def peek(self):
        return self.tokens[self.at] if self.at < len(self.tokens) else (None, None)

    def next(self, wanted=None):
        kind, text = self.peek()
        if wanted and text != wanted:
            raise ValueError(f'{text!r} instead of {wanted!r}')
        self.at += 1
        return kind, text

    def either(self):
        terms = [self.both()]
        while self.peek()[1] == '||':
            self.next()
            terms.append(self.both())
        return lambda labels: any(term(labels) for term in terms)

    def both(self):
        terms = [self.one()]
        while self.peek()[1] == '&&':
            self.next()
            terms.append(self.one())
        return lambda labels: all(term(labels) for term in terms)

    def one(self):
        kind, text = self.next()
        if text == '!':
            inner = self.one()
            return lambda labels: not inner(labels)
        if text == '(':
            inner = self.either()
            self.next(')')
            return inner
        if text in ('all', 'global', 'has') and self.peek()[1] == '(':
            self.next('(')
            key = self.next()[1] if text == 'has' else None
            self.next(')')
            if text == 'all':
                return lambda labels: True
            if text == 'global':
                return lambda labels: 'projectcalico.org/namespace' not in labels
            return lambda labels: key in labels
        if kind != 'word':
            raise ValueError(f'{text!r} is no label')
        return self.comparison(text)

    def string(self):
        return self.next()[1][1:-1]

    def strings(self):
        self.next('{')
        values = []
        while self.peek()[1] != '}':
            values.append(self.string())
            if self.peek()[1] == ',':
                self.next()
        self.next('}')
        return values

    def comparison(self, key):
        operator = self.next()[1]
        if operator == '==':
            value = self.string()
            return lambda labels: labels.get(key) == value
        if operator == '!=':
            value = self.string()
            return lambda labels: labels.get(key) != value
        if operator == 'in':
            values = self.strings()
            return lambda labels: labels.get(key) in values
        if operator == 'not':
            self.next('in')
            values = self.strings()
            return lambda labels: labels.get(key) not in values
        if operator == 'contains':
            value = self.string()
            return lambda labels: key in labels and value in labels[key]
        if operator in ('starts', 'ends'):
            self.next('with')
            value = self.string()
            if operator == 'starts':
                return lambda labels: key in labels and labels[key].startswith(value)
            return lambda labels: key in labels and labels[key].endswith(value)
        raise ValueError(f'operator {operator!r}')


# ---- the cluster ----

class Item:
    """A pod or a network set: labels, namespace, networks, named ports."""

    def __init__(self, namespace, labels, nets, ports=()):
        self.namespace, self.labels, self.ports = namespace, labels, ports
        self.nets = [ipaddress.ip_network(net, strict=False) for net in nets]

    def has(self, address):
        return any(net.version == address.version and address in net for net in self.nets)


class CalicoOracle:
    """The answers for one set of namespaces, pods and documents of any kinds."""

    def __init__(self, namespaces, pods, documents):
        self.namespaces = {name: {**(labels or {}), NAME_LABEL: name}
                           for name, labels in namespaces.items()}
        self.pods = {}
        self.items = []
        for pod in pods:
            inherited = {f'pcns.{k}': v for k, v in self.namespaces[pod.namespace].items()}
            inherited['pcns.projectcalico.org/name'] = pod.namespace
            own = {**pod.labels, 'projectcalico.org/namespace': pod.namespace,
                   'projectcalico.org/orchestrator': 'k8s'}
            item = Item(pod.namespace, {**inherited, **own}, pod.ips, pod.ports)
            item.pod = pod
            self.items.append(item)
            self.pods.update({ip: item for ip in pod.ips})
        self.tiers = {'default': (1_000_000, 'Deny')}
        self.policies = []
        for document in documents:
            self.take(document)

    def take(self, document):
        kind, meta, spec = document['kind'], document['metadata'], document.get('spec') or {}
        namespace = meta.get('namespace')
        if kind == 'Tier':
            order = spec.get('order')
            self.tiers[meta['name']] = (INFINITE if order is None else order,
                                        spec.get('defaultAction', 'Deny'))
        elif kind in ('NetworkSet', 'GlobalNetworkSet'):
            labels = dict(meta.get('labels') or {})
            if namespace:
                labels = {**{f'pcns.{k}': v for k, v in self.namespaces[namespace].items()},
                          'pcns.projectcalico.org/name': namespace, **labels,
                          'projectcalico.org/namespace': namespace}
            self.items.append(Item(namespace, labels, spec.get('nets') or ()))
        elif document['apiVersion'] == 'networking.k8s.io/v1':
            self.policies.append(KubernetesPolicy(self, document))
        elif kind in KINDS:
            self.policies.append(CalicoPolicy(self, document))

    def allowed(self, source, target, proto, port, family):
        """True if `source` may open a connection to `target`, both addresses."""
        source, target = ipaddress.ip_address(source), ipaddress.ip_address(target)
        if source == target:
            return True
        packet = Packet(source, target, proto, port, family)
        return all(self.side_allows(direction, self.pods.get(own), packet)
                   for direction, own in (('Egress', source), ('Ingress', target)))

    def side_allows(self, direction, subject, packet):
        if subject is None:
            return True
        governing = [p for p in self.policies
                     if direction in p.types and p.selects(subject)]
        tiers = {p.tier for p in governing}
        for tier in sorted(tiers, key=self.tier_key):
            verdict = None
            for policy in sorted((p for p in governing if p.tier == tier), key=lambda p: p.key):
                verdict = policy.verdict(direction, packet)
                if verdict:
                    break
            verdict = verdict or self.tiers.get(tier, (None, 'Deny'))[1]
            if verdict in ('Allow', 'Deny'):
                return verdict == 'Allow'
        return True  # the profile of the namespace

    def tier_key(self, name):
        if name not in self.tiers:
            return (2, 0, name)
        order = self.tiers[name][0]
        return (1 if order == INFINITE else 0, order, name)


class Packet:
    def __init__(self, source, target, proto, port, family):
        self.source, self.target, self.port, self.family = source, target, port, family
        self.proto = 'ICMPv6' if proto == 'ICMP' and family == 6 else proto
        self.icmp = {'ICMP': 8, 'ICMPv6': 128}.get(self.proto)  # an echo request, code 0


class KubernetesPolicy:
    """A Kubernetes NetworkPolicy as one of tier default: its rules allow."""

    def __init__(self, oracle, document):
        self.policy, self.oracle = _Policy(document), oracle
        self.tier, self.types = 'default', self.policy.types
        self.key = (1000, f'{self.policy.name}/{self.policy.namespace}/KubernetesNetworkPolicy')

    def selects(self, item):
        return self.policy.selects(item.pod)

    def verdict(self, direction, packet):
        address = packet.source if direction == 'Ingress' else packet.target
        peer, target = self.oracle.pods.get(address), self.oracle.pods.get(packet.target)
        for peers, ports in self.policy.rules[direction]:
            if peers and not any(self.peer_matches(p, peer, address) for p in peers):
                continue
            if ports and not any(_port_matches(p, target and target.pod, packet.proto, packet.port)
                                 for p in ports):
                continue
            return 'Allow'
        return None

    def peer_matches(self, rule, peer, address):
        if rule.get('ipBlock') is not None:
            return _in_block(rule['ipBlock'], address)
        if peer is None:
            return False
        if rule.get('namespaceSelector') is not None:
            if not matches(rule['namespaceSelector'], self.oracle.namespaces[peer.namespace]):
                return False
        elif peer.namespace != self.policy.namespace:
            return False
        return matches(rule.get('podSelector') or {}, peer.pod.labels)


class CalicoPolicy:
    """A NetworkPolicy or GlobalNetworkPolicy of projectcalico.org/v3."""

    def __init__(self, oracle, document):
        spec, meta = document.get('spec') or {}, document['metadata']
        self.oracle, self.spec = oracle, spec
        self.namespace = meta.get('namespace')
        self.tier = spec.get('tier') or 'default'
        order = spec.get('order')
        self.key = (INFINITE if order is None else order,
                    f'{meta["name"]}/{self.namespace or ""}/{document["kind"]}')
        self.rules = {'Ingress': spec.get('ingress') or [], 'Egress': spec.get('egress') or []}
        self.types = spec.get('types') or [t for t in ('Ingress', 'Egress') if self.rules[t]] or [
            'Ingress']
        self.selector = Selector(spec.get('selector') or 'all()')

    def in_namespaces(self, text, item):
        """Does a namespaceSelector hold for an item?"""
        if text.strip() == 'global()':
            return item.namespace is None
        return (item.namespace is not None and
                Selector(text).matches(self.oracle.namespaces[item.namespace]))

    def selects(self, item):
        if self.namespace:
            return item.namespace == self.namespace and self.selector.matches(item.labels)
        namespaces = self.spec.get('namespaceSelector')
        return self.selector.matches(item.labels) and (
            not namespaces or self.in_namespaces(namespaces, item))

    def verdict(self, direction, packet):
        for rule in self.rules[direction]:
            if rule['action'] != 'Log' and self.rule_matches(rule, packet):
                return rule['action']
        return None

    def rule_matches(self, rule, packet):
        if rule.get('ipVersion') not in (None, packet.family):
            return False
        number = NUMBERS[packet.proto]
        if 'protocol' in rule and NUMBERS.get(rule['protocol'], rule['protocol']) != number:
            return False
        if 'notProtocol' in rule and NUMBERS.get(rule['notProtocol'], rule['notProtocol']) == number:
            return False
        if 'icmp' in rule and not icmp_is(rule['icmp'], packet):
            return False
        if 'notICMP' in rule and icmp_is(rule['notICMP'], packet):
            return False
        return (self.side_matches(rule.get('source') or {}, packet, packet.source, None) and
                self.side_matches(rule.get('destination') or {}, packet, packet.target,
                                  packet.port))

    def side_matches(self, side, packet, address, port):
        def inside(nets):
            return any(address in ipaddress.ip_network(net, strict=False) for net in nets
                       if ipaddress.ip_network(net, strict=False).version == packet.family)
        if side.get('nets') and not inside(side['nets']):
            return False
        if side.get('notNets') and (inside(side['notNets']) or not any(
                ipaddress.ip_network(net, strict=False).version == packet.family
                for net in side['notNets'])):
            return False  # a rule that speaks of one family's networks is of that family alone
        chosen = None
        if side.get('selector') or side.get('namespaceSelector') or (
                self.namespace and side.get('notSelector')):
            chosen = [item for item in self.oracle.items if self.is_chosen(side, item)]
            if not any(item.has(address) for item in chosen):
                return False
        if side.get('notSelector'):
            without = Selector(side['notSelector'])
            if any(without.matches(item.labels) and item.has(address)
                   for item in self.oracle.items):
                return False
        if side.get('ports') and not self.port_in(side['ports'], packet, address, port, chosen):
            return False
        return not (side.get('notPorts') and
                    self.port_in(side['notPorts'], packet, address, port, chosen))

    def is_chosen(self, side, item):
        namespaces = side.get('namespaceSelector')
        if namespaces:
            if not self.in_namespaces(namespaces, item):
                return False
        elif self.namespace and item.namespace != self.namespace:
            return False
        return Selector(side.get('selector') or 'all()').matches(item.labels)

    def port_in(self, ports, packet, address, port, chosen):
        for entry in ports:
            if isinstance(entry, int):
                low = high = entry
            elif ':' in entry:
                low, high = (int(text) for text in entry.split(':'))
            else:
                if any((entry, packet.proto, port) in item.ports and item.has(address)
                       for item in (self.oracle.items if chosen is None else chosen)):
                    return True
                continue
            if port is not None and low <= port <= high:
                return True
        return False


def icmp_is(wanted, packet):
    return (packet.icmp is not None and wanted.get('type', packet.icmp) == packet.icmp and
            wanted.get('code', 0) == 0)
