"""What Kubernetes NetworkPolicy says about one connection.

Decides whether a source may open a connection to a destination, from the meaning of the API
alone: no engine, rule table or set is involved, only the objects as users wrote them. The tests
hold every implementation of policy against these answers.

The API's less obvious sides, all decided here:
- peers of a list are alternatives, the selectors inside one peer are conditions;
- NotIn and DoesNotExist match objects without the key;
- an absent or empty `from`, `to` or `ports` restricts nothing, an absent or empty `ingress` or
  `egress` allows nothing;
- a port entry without protocol is TCP, one without port is the whole protocol;
- without policyTypes a policy isolates for ingress, and for egress only if it has egress rules;
- `except` takes away from its own block only, and blocks match pods too, by address;
- a named port is looked up on the destination pod, together with its protocol;
- protocols without ports (ICMP) pass only by rules that have no ports;
- finished pods and pods of the host's network are neither subjects nor peers;
- a pod always reaches itself, and a node its own pods.
"""

import ipaddress

PROTOCOLS = ('TCP', 'UDP', 'SCTP')
FINISHED = ('Succeeded', 'Failed')
NAME_LABEL = 'kubernetes.io/metadata.name'


class InvalidPolicy(ValueError):
    """A policy that the Kubernetes API would refuse."""


class Pod:
    """A pod: who it is, what it is labelled, where it is and which ports it names."""

    def __init__(self, namespace, name, ips, labels=None, ports=(), phase='Running',
                 host_network=False, node=None):
        """`ips` are texts of either family, `ports` triples of (name, protocol, number)."""
        self.namespace = namespace
        self.name = name
        self.ips = [ipaddress.ip_address(ip) for ip in ips]
        self.labels = dict(labels or {})
        self.ports = [(port_name, (protocol or 'TCP').upper(), number)
                      for port_name, protocol, number in ports]
        self.phase = phase
        self.host_network = host_network
        self.node = node

    def __repr__(self):
        return f'{self.namespace}/{self.name}'

    def is_endpoint(self):
        """True if policies can select it: it still runs, and in a network of its own."""
        return self.phase not in FINISHED and not self.host_network

    def address(self, family):
        """Its first address of family 4 or 6, or None."""
        return next((ip for ip in self.ips if ip.version == family), None)


class _End:
    """One end of a connection: an address, and the live pod behind it if there is one."""

    def __init__(self, address, pod):
        self.address = address
        self.pod = pod


class Oracle:
    """The answers for one set of namespaces, pods and policies."""

    def __init__(self, namespaces, pods, policies, nodes=None):
        """Take the cluster's state; raise InvalidPolicy for what the API would refuse.

        `namespaces` maps names to labels, `pods` are Pod objects, `policies` NetworkPolicies as
        parsed YAML, `nodes` maps node names to lists of their addresses.
        """
        self.namespaces = {name: {**(labels or {}), NAME_LABEL: name}
                           for name, labels in namespaces.items()}
        self.pods = list(pods)
        self.nodes = {name: [ipaddress.ip_address(ip) for ip in ips]
                      for name, ips in (nodes or {}).items()}
        self._by_name = {}
        self._by_address = {}
        for pod in self.pods:
            if pod.namespace not in self.namespaces:
                raise ValueError(f'pod {pod} is in no known namespace')
            if repr(pod) in self._by_name:
                raise ValueError(f'pod {pod} is there twice')
            self._by_name[repr(pod)] = pod
            for ip in pod.ips if pod.is_endpoint() else ():
                if ip in self._by_address:
                    raise ValueError(f'{ip} belongs to {pod} and {self._by_address[ip]}')
                self._by_address[ip] = pod
        self.policies = [_Policy(policy) for policy in policies]

    def allowed(self, src, dst, proto, port, family):
        """True if `src` may open a connection to `dst`.

        `src` and `dst` are Pods, 'namespace/name' of a pod, or addresses; `proto` is TCP, UDP,
        SCTP or a protocol without ports such as ICMP (then `port` is None); family is 4 or 6.
        """
        proto = proto.upper()
        if (proto in PROTOCOLS) != (port is not None):
            raise ValueError(f'{proto} with port {port}')
        source, target = self._end(src, family), self._end(dst, family)
        if source.address == target.address:
            return True
        if not self._side_allows('Egress', source, target, target, proto, port):
            return False
        if target.pod and source.address in self.nodes.get(target.pod.node, ()):
            return True
        return self._side_allows('Ingress', target, source, target, proto, port)

    def _end(self, what, family):
        """The end that a pod, a pod's name or an address stands for."""
        if isinstance(what, Pod):
            address = what.address(family)
        elif '/' in str(what):
            address = self._by_name[what].address(family)
        else:
            address = ipaddress.ip_address(str(what))
        if address is None or address.version != family:
            raise ValueError(f'{what} has no IPv{family} address')
        return _End(address, self._by_address.get(address))

    def _side_allows(self, direction, subject, peer, target, proto, port):
        """The verdict of the policies that select `subject`, for traffic from or to `peer`."""
        if subject.pod is None:
            return True
        governing = [policy for policy in self.policies
                     if direction in policy.types and policy.selects(subject.pod)]
        if not governing:
            return True
        return any(self._rule_matches(policy, rule, peer, target, proto, port)
                   for policy in governing for rule in policy.rules[direction])

    def _rule_matches(self, policy, rule, peer, target, proto, port):
        """True if the peer is one of the rule's and the destination's port is too."""
        peers, ports = rule
        return ((not peers or any(self._peer_matches(policy, p, peer) for p in peers)) and
                (not ports or any(_port_matches(p, target.pod, proto, port) for p in ports)))

    def _peer_matches(self, policy, peer, end):
        """True if the end of a connection is in one entry of a `from` or `to` list."""
        if peer.get('ipBlock') is not None:
            return _in_block(peer['ipBlock'], end.address)
        if end.pod is None:
            return False
        if peer.get('namespaceSelector') is not None:
            if not matches(peer['namespaceSelector'], self.namespaces[end.pod.namespace]):
                return False
        elif end.pod.namespace != policy.namespace:
            return False
        return matches(peer.get('podSelector') or {}, end.pod.labels)


class _Policy:
    """A NetworkPolicy, checked and with its defaults filled in."""

    def __init__(self, document):
        spec = document.get('spec') or {}
        self.name = document['metadata']['name']
        self.namespace = document['metadata'].get('namespace') or 'default'
        self.selector = spec.get('podSelector') or {}
        check_selector(self.selector)
        self.rules = {'Ingress': self._rules(spec.get('ingress'), 'from'),
                      'Egress': self._rules(spec.get('egress'), 'to')}
        self.types = list(spec.get('policyTypes') or ())
        if any(t not in self.rules for t in self.types):
            raise InvalidPolicy(f'{self.name}: policyTypes {self.types}')
        if not self.types:
            self.types = ['Ingress'] + (['Egress'] if self.rules['Egress'] else [])

    def _rules(self, rules, peers_key):
        """Each rule as a pair of its peers and its ports."""
        result = []
        for rule in rules or ():
            rule = rule or {}
            unknown = set(rule) - {peers_key, 'ports'}
            if unknown:
                raise InvalidPolicy(f'{self.name}: unknown in a rule: {sorted(unknown)}')
            peers, ports = rule.get(peers_key) or [], rule.get('ports') or []
            for peer in peers:
                _check_peer(self.name, peer)
            for port in ports:
                _check_port(self.name, port or {})
            result.append((peers, [port or {} for port in ports]))
        return result

    def selects(self, pod):
        """True if the policy governs this pod."""
        return pod.namespace == self.namespace and matches(self.selector, pod.labels)


def matches(selector, labels):
    """True if a LabelSelector selects an object with these labels; {} selects every one."""
    for key, value in (selector.get('matchLabels') or {}).items():
        if labels.get(key) != value:
            return False
    for term in selector.get('matchExpressions') or ():
        key, operator, values = term['key'], term['operator'], term.get('values') or []
        if operator == 'In':
            holds = key in labels and labels[key] in values
        elif operator == 'NotIn':
            holds = key not in labels or labels[key] not in values
        elif operator == 'Exists':
            holds = key in labels
        elif operator == 'DoesNotExist':
            holds = key not in labels
        else:
            raise InvalidPolicy(f'operator {operator}')
        if not holds:
            return False
    return True


def check_selector(selector):
    """Raise InvalidPolicy for a LabelSelector that the API would refuse."""
    unknown = set(selector) - {'matchLabels', 'matchExpressions'}
    if unknown:
        raise InvalidPolicy(f'unknown in a selector: {sorted(unknown)}')
    for key, value in (selector.get('matchLabels') or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidPolicy(f'label {key!r}: {value!r} is not text')
    for term in selector.get('matchExpressions') or ():
        operator, values = term.get('operator'), term.get('values') or []
        if not term.get('key'):
            raise InvalidPolicy('expression without key')
        if operator in ('In', 'NotIn'):
            if not values:
                raise InvalidPolicy(f'{operator} without values')
        elif operator in ('Exists', 'DoesNotExist'):
            if values:
                raise InvalidPolicy(f'{operator} with values')
        else:
            raise InvalidPolicy(f'operator {operator!r}')


def _check_peer(name, peer):
    """Raise InvalidPolicy for an entry of `from` or `to` that the API would refuse."""
    given = {key for key, value in (peer or {}).items() if value is not None}
    if not given:
        raise InvalidPolicy(f'{name}: a peer must say something')
    if given - {'podSelector', 'namespaceSelector', 'ipBlock'}:
        raise InvalidPolicy(f'{name}: unknown in a peer: {sorted(given)}')
    if 'ipBlock' in given:
        if len(given) > 1:
            raise InvalidPolicy(f'{name}: ipBlock stands alone in its peer')
        _check_block(name, peer['ipBlock'])
    for key in given - {'ipBlock'}:
        check_selector(peer[key])


def _check_block(name, block):
    """Raise InvalidPolicy for bad networks, and exceptions that are not inside their block."""
    try:
        whole = ipaddress.ip_network(block.get('cidr'), strict=False)
        holes = [ipaddress.ip_network(text, strict=False) for text in block.get('except') or ()]
    except (ValueError, TypeError) as error:
        raise InvalidPolicy(f'{name}: {error}') from error
    for hole in holes:
        if (hole.version != whole.version or hole.prefixlen <= whole.prefixlen or
                not hole.subnet_of(whole)):
            raise InvalidPolicy(f'{name}: {hole} is not strictly inside {whole}')


def _check_port(name, entry):
    """Raise InvalidPolicy for an entry of `ports` that the API would refuse."""
    port, last = entry.get('port'), entry.get('endPort')
    if entry.get('protocol') not in (None, *PROTOCOLS):
        raise InvalidPolicy(f'{name}: protocol {entry["protocol"]!r}')
    if isinstance(port, int) and not 1 <= port <= 65535:
        raise InvalidPolicy(f'{name}: port {port}')
    if isinstance(port, str) and (not 1 <= len(port) <= 15 or port.isdigit()):
        raise InvalidPolicy(f'{name}: port name {port!r}')
    if last is not None and (not isinstance(port, int) or not port <= last <= 65535):
        raise InvalidPolicy(f'{name}: endPort {last} with port {port!r}')


def _in_block(block, address):
    """True if the address is in the block and in none of its exceptions."""
    def inside(text):
        network = ipaddress.ip_network(text, strict=False)
        return address.version == network.version and address in network
    return inside(block['cidr']) and not any(inside(hole) for hole in block.get('except') or ())


def _port_matches(entry, target_pod, proto, port):
    """True if one entry of `ports` covers this port of the destination."""
    if (entry.get('protocol') or 'TCP') != proto:
        return False
    wanted = entry.get('port')
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return target_pod is not None and (wanted, proto, port) in target_pod.ports
    return wanted <= port <= (entry.get('endPort') or wanted)
