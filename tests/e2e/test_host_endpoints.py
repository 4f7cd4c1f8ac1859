#!/usr/bin/python3
"""Host endpoints with real packets: a router with two interfaces and a pod, neighbours on both
sides. What a host endpoint's policies say of the host's own, of forwarded, of untracked traffic
and of traffic before DNAT; failsafe ports; which interface belongs to which host endpoint."""

import json
import os
import pathlib
import sys
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent, forget_connections, pod_object  # noqa: E402
from lab import Lab  # noqa: E402

V3 = {'apiVersion': 'projectcalico.org/v3'}
PLACES = {'node': ('10.90.0.1', 'fd90::1'), 'ext': ('10.90.0.2', 'fd90::2'),
          'lan': ('10.91.0.2', 'fd91::2'), 'pod': ('10.80.0.1', 'fd80::1')}
FLOWS = [('TCP', 22), ('TCP', 80), ('TCP', 8080), ('UDP', 53), ('UDP', 5353)]


def hep(name, iface=None, ips=(), labels=None, profiles=()):
    spec = {'node': 'n1', 'profiles': list(profiles)}
    if iface:
        spec['interfaceName'] = iface
    if ips:
        spec['expectedIPs'] = list(ips)
    return {**V3, 'kind': 'HostEndpoint', 'spec': spec,
            'metadata': {'name': name, 'labels': labels or {'role': 'edge'}}}


def policy(name, ingress=None, egress=None, selector="role == 'edge'", **more):
    spec = {'selector': selector, 'types': [], **more}
    for kind, rules in (('ingress', ingress), ('egress', egress)):
        if rules is not None:
            spec['types'].append(kind.capitalize())
            spec[kind] = rules
    return {**V3, 'kind': 'GlobalNetworkPolicy', 'metadata': {'name': name}, 'spec': spec}


def rule(action, protocol=None, ports=None, source_ports=None, nets=None):
    r = {'action': action}
    if protocol:
        r['protocol'] = protocol
    if ports:
        r['destination'] = {'ports': ports}
    if source_ports:
        r['source'] = {'ports': source_ports}
    if nets:
        r.setdefault('source', {})['nets'] = nets
    return r


class Router:
    """The lab, its agent, and what is asked of it."""

    def __init__(self, lab, agent):
        self.lab, self.agent, self.failed = lab, agent, 0

    def build(self):
        lab, agent = self.lab, self.agent
        lab.sysctl('node', {'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1,
                            'net.ipv4.icmp_ratelimit': 0, 'net.ipv6.icmp.ratelimit': 0})
        for name, link, net in (('ext', 'eth0', 90), ('lan', 'eth1', 91)):
            lab.netns(name)
            lab.link('node', link, name, 'eth0')
            lab.batch('node', [f'address add 10.{net}.0.1/24 dev {link}',
                               f'address add fd{net}::1/64 dev {link} nodad'])
            lab.batch(name, [f'address add 10.{net}.0.2/24 dev eth0',
                             f'address add fd{net}::2/64 dev eth0 nodad',
                             f'route add default via 10.{net}.0.1',
                             f'route add default via fd{net}::1'])
        lab.netns('pod')
        pool = {**V3, 'kind': 'IPPool'}
        pod = types.SimpleNamespace(name='p', namespace='n', labels={'app': 'p'}, ports=[],
                                    ips=list(PLACES['pod']))
        agent.apply([{**pool, 'metadata': {'name': 'v4'}, 'spec': {'cidr': '10.80.0.0/16'}},
                     {**pool, 'metadata': {'name': 'v6'}, 'spec': {'cidr': 'fd80::/48'}},
                     {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'n'}},
                     {**V3, 'kind': 'FelixConfiguration', 'metadata': {'name': 'default'},
                      'spec': {'defaultEndpointToHostAction': 'Accept'}},
                     pod_object(pod)])
        agent.call('pod', 'add', 'n/p', '--cni-bin', agent.cni_bin, '--netns', lab.path('pod'))
        for name in PLACES:
            lab.listen(name, FLOWS)

    def state(self, src, dst, proto, port, family=4, timeout=0.6):
        address = PLACES[dst][family == 6] if dst in PLACES else dst
        return self.lab.probe(src, [(proto, address, port)], timeout)[0]['state']

    def expect(self, step, text):
        """Lines `src dst tcp/80 yes|no`; both families."""
        forget_connections(self.lab, 'node')
        for line in text.strip().splitlines():
            src, dst, flow, want = line.split()
            proto, port = flow.split('/')
            for family in (4, 6) if dst in PLACES else (4,):
                state = self.state(src, dst, proto, int(port), family)
                if (state == 'open') != (want == 'yes'):
                    self.failed += 1
                    print(f'FAILED {step}: {src} -> {dst} {flow} IPv{family}: {state}, wanted {want}')
                    print(self.lab.run('node', ['nft', 'list', 'table', 'inet', 'margay']))
        print(f'ok: {step}' if not self.failed else f'   {step}', flush=True)

    def table(self):
        return self.lab.run('node', ['nft', '-s', 'list', 'table', 'inet', 'margay'])


def own_traffic(r):
    edge = hep('edge', 'eth0')
    r.expect('without host endpoints nothing is policed', '''
        ext node tcp/80 yes
        node ext tcp/80 yes''')
    before = r.table()
    r.agent.apply([edge])
    r.expect('no policy, no profile: only failsafe ports', '''
        ext node tcp/80 no
        ext node tcp/22 yes
        ext node udp/53 no
        node ext tcp/80 no
        node ext udp/53 yes
        node lan tcp/80 yes
        lan node tcp/80 yes
        ext lan tcp/80 yes
        lan ext tcp/80 yes
        pod ext tcp/80 yes
        ext pod tcp/80 yes
        pod node tcp/80 yes
        node pod tcp/80 yes
        node node tcp/80 yes
        ext 10.91.0.1 tcp/80 no''')
    web = policy('web', [rule('Allow', 'TCP', [80])], [rule('Allow', 'UDP', [5353])])
    r.agent.apply([web])
    r.expect('policies of the host\'s own traffic', '''
        ext node tcp/80 yes
        ext node tcp/8080 no
        node ext tcp/80 no
        node ext udp/5353 yes
        ext lan tcp/8080 yes''')
    r.agent.apply([hep('edge', 'eth0', profiles=['projectcalico-default-allow'])])
    r.expect('a profile after policies that apply: end of tier', '''
        ext node tcp/8080 no
        ext node tcp/80 yes''')
    r.agent.delete([web])
    r.expect('the profile alone', '''
        ext node tcp/8080 yes
        node ext tcp/80 yes''')
    r.agent.delete([edge])
    r.agent.call('status', '--wait')
    if r.table() != before:
        sys.exit(f'FAILED: left behind:\n{before}\n---- now\n{r.table()}')
    print('ok: nothing is left of it', flush=True)


def forwarded(r):
    objects = [hep('edge', 'eth0', profiles=['projectcalico-default-allow']),
               policy('fw', [rule('Deny', 'TCP', [80]), rule('Allow')], applyOnForward=True)]
    r.agent.apply(objects)
    r.expect('applyOnForward, ingress', '''
        ext lan tcp/80 no
        ext lan tcp/8080 yes
        lan ext tcp/80 yes
        ext pod tcp/80 no
        ext node tcp/80 no
        ext node tcp/22 yes
        ext node tcp/8080 yes''')
    r.agent.apply([policy('fw', [rule('Allow')], [rule('Allow', 'TCP', [80])], applyOnForward=True)])
    r.expect('applyOnForward, egress: end of tier', '''
        ext lan tcp/80 yes
        lan ext tcp/80 yes
        lan ext tcp/8080 no
        pod ext tcp/8080 no
        pod ext tcp/80 yes''')
    r.agent.apply([policy('fw', None, [rule('Pass')], applyOnForward=True)])
    r.expect('passed on by the last tier: forwarded', '''
        lan ext tcp/8080 yes
        ext lan tcp/80 yes''')
    r.agent.delete(objects)


def before_dnat(r):
    r.lab.run('node', ['nft', '-f', '-'], '''
        table ip test-dnat {
            chain pre { type nat hook prerouting priority dstnat
                tcp dport 7000 dnat to 10.91.0.2:80
                tcp dport 7001 dnat to 10.91.0.2:80
            }
        }''')
    objects = [hep('edge', 'eth0', profiles=['projectcalico-default-allow']),
               policy('pre', [rule('Deny', 'TCP', [7000])], applyOnForward=True, preDNAT=True)]
    r.agent.apply(objects)
    r.expect('preDNAT sees the port before translation', '''
        ext node tcp/7000 no
        ext node tcp/8080 yes
        ext lan tcp/80 yes'''.replace('ext node tcp/7000', 'ext 10.90.0.1 tcp/7000'))
    r.expect('and has no end', '''
        ext 10.90.0.1 tcp/7001 yes''')
    r.agent.apply([policy('pre', [rule('Deny', 'TCP', [22, 80])], applyOnForward=True, preDNAT=True)])
    r.expect('failsafe ports come before preDNAT', '''
        ext node tcp/22 yes
        ext node tcp/80 no
        ext 10.90.0.1 tcp/7000 yes''')
    r.agent.delete(objects)
    r.lab.run('node', ['nft', 'delete', 'table', 'ip', 'test-dnat'])


def untracked(r):
    objects = [hep('edge', 'eth0', profiles=['projectcalico-default-allow']),
               policy('raw', [rule('Allow', 'UDP', [5353]), rule('Deny', 'TCP', [8080])],
                      [rule('Allow', 'UDP', source_ports=[5353])], applyOnForward=True,
                      doNotTrack=True)]
    r.agent.apply(objects)
    r.expect('doNotTrack', '''
        ext node udp/5353 yes
        ext node tcp/8080 no
        ext node tcp/80 yes
        ext lan tcp/8080 no''')
    tracked = r.lab.run('node', ['cat', '/proc/net/nf_conntrack']) if os.path.exists(
        '/proc/net/nf_conntrack') else r.lab.run('node', ['conntrack', '-L'])
    if 'dport=5353' in tracked:
        sys.exit(f'FAILED: untracked traffic is tracked:\n{tracked}')
    r.agent.apply([policy('raw', [rule('Deny')], [rule('Deny')], applyOnForward=True,
                          doNotTrack=True)])
    r.expect('failsafe ports and their answers come before untracked policies', '''
        ext node tcp/22 yes
        node ext udp/53 yes
        ext node tcp/80 no
        lan node tcp/80 yes''')
    r.agent.delete(objects)


def which_interface(r):
    r.agent.apply([hep('any', '*'), policy('web', [rule('Allow', 'TCP', [80])])])
    r.expect('"*": all but pods and loopback', '''
        ext node tcp/80 yes
        ext node tcp/8080 no
        lan node tcp/80 yes
        lan node tcp/8080 no
        pod node tcp/8080 yes
        node pod tcp/8080 yes
        node node tcp/8080 yes''')
    r.agent.apply([hep('lan', ips=['10.91.0.1'], labels={'role': 'lan'},
                       profiles=['projectcalico-default-allow'])])
    r.expect('one found by its address wins', '''
        lan node tcp/8080 yes
        ext node tcp/8080 no''')
    r.lab.batch('node', ['address del 10.91.0.1/24 dev eth1'])
    r.agent.call('status', '--wait')
    r.lab.run('node', ['sleep', '0.3'])
    if r.state('lan', 'fd91::1', 'tcp', 8080) != 'timeout':
        sys.exit('FAILED: the address has gone, the host endpoint has not')
    r.lab.batch('node', ['address add 10.91.0.1/24 dev eth1'])
    r.lab.run('node', ['sleep', '0.3'])
    r.expect('and comes with it', '''
        lan node tcp/8080 yes''')
    r.agent.delete([hep('any', '*'), hep('lan'), policy('web')])


def automatic(r):
    controllers = {**V3, 'kind': 'KubeControllersConfiguration', 'metadata': {'name': 'default'},
                   'spec': {'controllers': {'node': {'hostEndpoint': {'autoCreate': 'Enabled'}}}}}
    node = {**V3, 'kind': 'Node', 'metadata': {'name': 'n1', 'labels': {'zone': 'z1'}},
            'spec': {'bgp': {'ipv4Address': '10.90.0.1/24'}}}
    web = policy('web', [rule('Allow', 'TCP', [80])], selector="zone == 'z1'")
    r.agent.apply([controllers, node, web])
    r.agent.call('status', '--wait')
    made = json.loads(r.agent.call('get', 'hep', 'n1-auto-hep', '-o', 'json'))
    if made['spec']['interfaceName'] != '*' or '10.91.0.1' not in made['spec']['expectedIPs']:
        sys.exit(f'FAILED: {made}')
    r.expect('an automatic host endpoint has the labels of its node', '''
        ext node tcp/80 yes
        ext node tcp/8080 no
        lan node tcp/22 yes
        node ext tcp/8080 yes''')
    node['metadata']['labels'] = {}
    r.agent.apply([node])
    r.agent.call('status', '--wait')
    r.expect('and is open without policies', 'ext node tcp/8080 yes')
    r.agent.delete([web, node, controllers])
    r.agent.call('status', '--wait')
    if 'auto-hep' in r.agent.call('get', 'hep'):
        sys.exit('FAILED: it stays when it is switched off')


def staged(r):
    later = policy('later', [rule('Deny', 'TCP', [80]), rule('Allow')])
    later.update(kind='StagedGlobalNetworkPolicy')
    objects = [hep('any', '*', profiles=['projectcalico-default-allow']), later,
               hep('lan', 'eth1', labels={'role': 'lan'}, profiles=['projectcalico-default-allow'])]
    r.agent.apply(objects)
    r.expect('staged policies of host endpoints decide nothing', '''
        ext node tcp/80 yes
        lan node tcp/80 yes
        ext node tcp/8080 yes''')
    said = json.loads(r.agent.call('policy', 'counters', '-o', 'json'))['rules']
    found = {x['rule']: x['packets'] for x in said if x['staged']}
    if found != {0: 2, 1: 2}:  # IPv4 and IPv6 of ext
        sys.exit(f'FAILED: staged counts {said}')
    print('ok: but are counted', flush=True)
    r.agent.delete(objects)


def settings(r):
    felix = {**V3, 'kind': 'FelixConfiguration', 'metadata': {'name': 'default'},
             'spec': {'defaultEndpointToHostAction': 'Accept',
                      'failsafeInboundHostPorts': [
                          {'protocol': 'TCP', 'port': 8080, 'net': '10.90.0.0/24'}]}}
    edge = hep('edge', 'eth0')
    r.agent.apply([felix, edge])
    r.expect('failsafe ports of the settings', '''
        ext node tcp/22 no
        ext 10.90.0.1 tcp/8080 yes''')
    felix['spec'].update(failsafeInboundHostPorts=[], nftablesFilterDenyAction='Reject')
    r.agent.apply([felix])
    forget_connections(r.lab, 'node')
    states = [r.state('ext', 'node', 'udp', 5353), r.state('ext', 'node', 'tcp', 8080)]
    if states[0] != 'refused':
        sys.exit(f'FAILED: rejected is told to the sender: {states}')
    felix['spec'].update(dropActionOverride='Accept')
    r.agent.apply([felix])
    r.expect('dropActionOverride Accept', 'ext node tcp/8080 yes')
    felix['spec'] = {'defaultEndpointToHostAction': 'Accept', 'chainInsertMode': 'Append'}
    r.agent.apply([felix])
    r.expect('chains moved behind those of others', '''
        ext node tcp/8080 no
        ext node tcp/22 yes''')
    if 'priority 21;' not in r.table():
        sys.exit(f'FAILED: chainInsertMode Append:\n{r.table()}')
    del felix['spec']['chainInsertMode']
    r.agent.apply([felix])
    r.agent.delete([edge])


def main():
    with Lab() as lab:
        lab.netns('node')
        with Agent(lab, 'node') as agent:
            r = Router(lab, agent)
            r.build()
            for part in (own_traffic, forwarded, before_dnat, untracked, which_interface, automatic, staged,
                         settings):
                part(r)
            if r.failed:
                sys.exit(f'{r.failed} failed\n{agent.log.read_text()[-3000:]}')
    return 0


if __name__ == '__main__':
    os.environ['PYTHONUNBUFFERED'] = '1'
    sys.exit(main())
