#!/usr/bin/python3
"""What the CNI specification and Calico's configuration ask of the plugin: each verb in each version,
dual stack and IPv6 alone, addresses asked for, MAC, forwarding, MTU, readiness gates, several interfaces of one pod (as
Multus makes them, and with other plugins beside ours), GC and STATUS, the log file. Then many lives of a
pod, after which nothing is different: links, routes, rules, sets, addresses, files, descriptors, memory.

Usage: test_cni_spec.py [LIVES]   (200; on demand 2000)
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent  # noqa: E402
from lab import Lab  # noqa: E402
from test_cni_extras import DUAL, addresses  # noqa: E402
from test_cni_life import Node  # noqa: E402
from test_network import until  # noqa: E402

REFERENCE = '/usr/lib/cni'
POOLS = [{'apiVersion': 'projectcalico.org/v3', 'kind': 'IPPool', 'metadata': {'name': name},
          'spec': {'cidr': cidr}} for name, cidr in (('v4', '10.70.0.0/16'), ('v6', 'fd70::/48'))]
# Version: what its result looks like; verbs that it has beside ADD, DEL, VERSION.
VERSIONS = {'0.1.0': ('ip4', ()), '0.2.0': ('ip4', ()), '0.3.0': ('ips', ()), '0.3.1': ('ips', ()),
            '0.4.0': ('ips', ('CHECK',)), '1.0.0': ('ips', ('CHECK',)),
            '1.1.0': ('ips', ('CHECK', 'GC', 'STATUS'))}


def versions(node, lab):
    """Each verb in each version: its shape, or error 1 where the version has no such verb."""
    for version, (shape, has) in VERSIONS.items():
        conf = {'cniVersion': version}
        answer = node.must('ADD', 'v', 'p0', conf=conf)
        assert answer['cniVersion'] == version, answer
        ip = answer['ip4']['ip'] if shape == 'ip4' else answer['ips'][0]['address']
        assert ip.endswith('/32') and ip.startswith('10.70.'), answer
        if shape == 'ips':
            assert [i['name'] for i in answer['interfaces']][1] == 'eth0', answer
            assert answer['interfaces'][1]['sandbox'] == lab.path('p0'), answer
            assert ('version' in answer['ips'][0]) == (version[0] == '0'), answer
        assert node.must('ADD', 'v', 'p0', conf=conf) == answer, 'the same again is another answer'
        for verb in ('CHECK', 'GC', 'STATUS'):
            more = {'prevResult': answer} if verb == 'CHECK' else \
                {'cni.dev/valid-attachments': [{'containerID': 'v', 'ifname': 'eth0'}]}
            code, said = node.call(verb, 'v' if verb == 'CHECK' else '', 'p0' if verb == 'CHECK' else '',
                                   conf={**conf, **more})
            assert (code == 0) == (verb in has), (version, verb, code, said)
            if verb not in has:
                assert said['code'] == 1 and said['cniVersion'] == version, (version, verb, said)
        said = node.must('VERSION', '', '', conf=conf)
        assert said['supportedVersions'] == list(VERSIONS), said
        for _ in range(2):
            node.must('DEL', 'v', 'p0', conf=conf)
    for conf, want in (({'cniVersion': '2.0.0'}, 1), ({'name': ''}, 7), ({'name': 'a/b'}, 7),
                       ({'mtu': 'big'}, 7), ({'ipam': {}}, 7)):
        code, said = node.call('ADD', 'v', 'p0', conf=conf)
        assert code and said['code'] == want, (conf, said)
    code, said = node.call('CHECK', 'never', 'p0', conf={'prevResult': {'cniVersion': '1.1.0'}})
    assert code and said['code'] != 0, said


def settings(node, lab):
    """One pod for each of Calico's fields and annotations, looked at from inside."""
    see = lambda *argv: lab.run('p0', list(argv))  # noqa: E731
    answer = node.must('ADD', 's', 'p0', conf={'ipam': {**DUAL, 'assign_ipv4': 'false'}})
    assert len(answer['ips']) == 1 and ':' in answer['ips'][0]['address'], answer
    assert 'default' not in see('ip', 'route') and 'default via fe80' in see('ip', '-6', 'route')
    assert not lab.run('node', ['ip', '-4', 'route', 'show', 'dev', answer['interfaces'][0]['name']])
    node.must('DEL', 's', 'p0')
    for value in (True, False):
        node.must('ADD', 's', 'p0', conf={'container_settings': {'allow_ip_forwarding': value},
                                          'ipam': DUAL, 'mtu': 1411})
        for path in ('net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding'):
            assert see('sysctl', '-n', path).strip() == str(int(value)), path
        assert json.loads(see('ip', '-j', 'link', 'show', 'eth0'))[0]['mtu'] == 1411
        node.must('DEL', 's', 'p0')
    fixed = {'runtimeConfig': {'ips': ['10.70.9.9/24', 'fd70::99']}, 'ipam': DUAL}
    assert addresses(node.must('ADD', 's', 'p0', conf=fixed)) == ['10.70.9.9', 'fd70::99']
    code, said = node.call('ADD', 't', 'p1', conf=fixed)
    assert code and '10.70.9.9' in said['msg'], said
    node.must('DEL', 's', 'p0')
    pod = {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {
        'name': 's', 'namespace': 'default', 'annotations': {
            'cni.projectcalico.org/hwAddr': '02:11:22:33:44:55',
            'cni.projectcalico.org/ipAddrs': '["10.70.8.8"]'}},
        'spec': {'nodeName': node.agent.name, 'containers': [{'name': 'main'}]}}
    node.agent.apply([pod])
    args = {'args': 'K8S_POD_NAMESPACE=default;K8S_POD_NAME=s', 'conf': {'policy': {'type': 'k8s'}}}
    answer = node.must('ADD', 's', 'p0', **args)
    assert addresses(answer) == ['10.70.8.8'], answer
    assert answer['interfaces'][1]['mac'] == '02:11:22:33:44:55', answer
    assert '02:11:22:33:44:55' in see('ip', 'link', 'show', 'eth0')
    wep = json.loads(node.agent.call('get', 'workloadendpoints', '-n', 'default', '-o', 'json'))
    assert wep['items'][0]['spec']['profiles'] == ['kns.default', 'ksa.default.default'], wep
    node.must('DEL', 's', 'p0', **args)
    node.agent.delete([pod])
    code, said = node.call('ADD', 's', 'p0', args='K8S_POD_NAMESPACE=default;K8S_POD_NAME=none', conf={
        'policy': {'type': 'k8s'}, 'policy_setup_timeout_seconds': 1})
    assert code and said['code'] == 11 and 'is not in the datastore' in said['msg'], said
    pod['metadata']['annotations'] = {'cni.projectcalico.org/ipFamilies': '["IPv6"]'}
    space = {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'default', 'annotations': {
        'cni.projectcalico.org/ipFamilies': '["IPv6", "IPv4"]'}}}
    node.agent.apply([pod, space])
    assert [':' in ip for ip in addresses(node.must('ADD', 's', 'p0', **args))] == [True]
    node.must('DEL', 's', 'p0', **args)
    pod['metadata']['annotations'] = {}
    node.agent.apply([pod])
    assert [':' in ip for ip in addresses(node.must('ADD', 's', 'p0', **args))] == [False, True]
    node.must('DEL', 's', 'p0', **args)
    pod['metadata']['annotations'] = {'cni.projectcalico.org/ipFamilies': '["IPv5"]'}
    node.agent.apply([pod])
    code, said = node.call('ADD', 's', 'p0', **args)
    assert code and said['code'] == 7 and 'IPv5' in said['msg'], said
    node.agent.apply([{**space, 'metadata': {'name': 'default'}}])
    node.agent.delete([pod])
    host_local = {'type': 'host-local', 'ranges': [[{'subnet': '10.71.0.0/24'}]],
                  'routes': [{'dst': '10.5.0.0/16'}], 'dataDir': f'{node.agent.state}/host-local'}
    old = {'cniVersion': '1.0.0', 'ipam': host_local}
    if pathlib.Path(REFERENCE, 'host-local').exists():
        for all_of_it in (False, True):
            node.must('ADD', 's', 'p0', conf={**old, 'include_default_routes': all_of_it})
            assert ('default' in see('ip', 'route')) == all_of_it, see('ip', 'route')
            assert '10.5.0.0/16' in see('ip', 'route')
            node.must('DEL', 's', 'p0', conf=old)


IGNORED = {'nodename': 'other', 'nodename_file': '/nowhere', 'nodename_file_optional': True,
           'ipam_lock_file': '/nowhere', 'qps': 1.5, 'burst': 3, 'calico_api_group': 'projectcalico.org/v3',
           'windows_use_single_network': True, 'windows_loopback_DSR': 'x', 'vxlan_vni': 1, 'mode': 'x',
           'endpoint_status_dir': '/nowhere', 'datastore_type': 'kubernetes',
           'etcd_endpoints': 'http://127.0.0.1:1', 'etcd_key_file': '/nowhere', 'require_mtu_file': False,
           'policy': {'k8s_auth_token': 'x'}, 'args': {'org.apache.mesos': {'network_info': {}}},
           'kubernetes': {'kubeconfig': '/nowhere', 'k8s_api_root': 'http://x', 'node_name': 'other'},
           'dataplane_options': {'type': 'linux'}, 'device_type': 'veth', 'readiness_gates': []}
REFUSED = ({'device_type': 'ipvlan'}, {'dataplane_options': {'type': 'grpc'}}, {'require_mtu_file': 'x'},
           {'include_default_routes': 3}, {'num_queues': 65}, {'nodename': 7},
           *({'readiness_gates': gates} for gates in (
               'http://x/', [7], ['ftp://x/'], ['http:///x'], ['http://x/a b'], ['http://x/\r\nHost: y'],
               ['http://x/'] * 17)))


def fields(node, lab):
    """Fields of Calico's that decide whether and how the interface is made, and those without effect."""
    link = lambda name, where='node': json.loads(  # noqa: E731
        lab.run(where, ['ip', '-d', '-j', 'link', 'show', name]))[0]
    code, said = node.call('ADD', 'f', 'p0', conf={'require_mtu_file': True})
    assert code and said['code'] == 11 and 'MTU' in said['msg'], said  # no interface tells one
    node.must('ADD', 'f', 'p0', conf={'require_mtu_file': True, 'mtu': 1400})
    assert link('eth0', 'p0')['mtu'] == 1400
    node.must('DEL', 'f', 'p0')
    lab.link('node', 'eth9', 'out', 'eth0')
    until(lambda: node.call('ADD', 'f', 'p0', conf={'require_mtu_file': True})[0] == 0)
    assert link('eth0', 'p0')['mtu'] == 1500
    node.must('DEL', 'f', 'p0')
    lab.batch('node', ['link del eth9'])
    has_netkit = subprocess.run(lab.command('out', ['ip', 'link', 'add', 'kit0', 'type', 'netkit']),
                                check=False, stderr=subprocess.DEVNULL).returncode == 0
    for _ in range(2):
        conf = {'device_type': 'netkit', 'num_queues': 3}
        answer = node.must('ADD', 'f', 'p0', conf=conf)
        seen = link(answer['interfaces'][0]['name'])
        assert seen['linkinfo']['info_kind'] == ('netkit' if has_netkit else 'veth'), seen
        assert seen['num_tx_queues'] == 3 and seen['address'] == 'ee:ee:ee:ee:ee:ee', seen
        lab.run('node', ['ping', '-c1', '-W5', addresses(answer)[0]])
        node.must('CHECK', 'f', 'p0', conf={**conf, 'prevResult': answer})
        node.must('DEL', 'f', 'p0', conf=conf)
    mac = '02:aa:bb:cc:dd:0'
    for conf, args in (({'runtimeConfig': {'mac': mac + '1'}}, f'MAC={mac}4'),
                       ({'args': {'cni': {'mac': mac + '2'}}}, ''), ({}, f'IgnoreUnknown=1;MAC={mac}3')):
        answer = node.must('ADD', 'f', 'p0', conf=conf, args=args)
        want = (list(conf.values()) or [{'mac': mac + '3'}])[0]
        assert answer['interfaces'][1]['mac'] == link('eth0', 'p0')['address'] == want.get('cni', want)['mac']
        node.must('DEL', 'f', 'p0')
    code, said = node.call('ADD', 'f', 'p0', args='MAC=03:00:00:00:00:01')
    assert code and said['code'] == 4 and 'MAC' in said['msg'], said
    node.must('ADD', 'f', 'p0', conf=IGNORED)
    node.must('DEL', 'f', 'p0', conf=IGNORED)
    assert 'other_node_name configuration="other" agent=n1' in node.agent.log.read_text()
    for conf in REFUSED:
        code, said = node.call('ADD', 'f', 'p0', conf=conf)
        assert code and said['code'] == 7 and list(conf)[0] in said['msg'], (conf, said)
    return 'netkit' if has_netkit else 'no netkit here: veth'


GATE = """
import http.server, ssl, sys
class Gate(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.path, flush=True)
        self.send_response(int(open(sys.argv[1]).read()))
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(('127.0.0.1', 0), Gate)
if sys.argv[2:]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Gates:
    """Two readiness gates, http and https, that answer with what `say` was told."""

    def __init__(self, node, lab):
        self.folder = pathlib.Path(node.agent.state)
        self.say(503)
        key, cert = str(self.folder / 'gate.key'), str(self.folder / 'gate.crt')
        subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1',
                        '-nodes', '-days', '2', '-subj', '/CN=nobody', '-keyout', key, '-out', cert],
                       check=True, stderr=subprocess.DEVNULL)
        self.servers = [lab.spawn('node', [sys.executable, '-c', GATE, str(self.folder / 'gate'), *pem],
                                  stdout=subprocess.PIPE, text=True) for pem in ([], [cert, key])]
        plain, tls = [int(server.stdout.readline()) for server in self.servers]
        self.conf = {'readiness_gates': [f'http://127.0.0.1:{plain}/ready?a=b#c', f'https://localhost:{tls}']}

    def say(self, status):
        (self.folder / 'gate.new').write_text(str(status))
        (self.folder / 'gate.new').rename(self.folder / 'gate')


def gates(node, lab, hopeless):
    """ADD waits for readiness gates and holds nobody else up; how it ends: ready, deleted, 30 s."""
    gate = Gates(node, lab)
    before = node.state()
    start = time.monotonic()
    waiting = node.start('ADD', 'g', 'p0', conf=gate.conf)
    assert gate.servers[0].stdout.readline() == '/ready?a=b\n'
    node.must('STATUS', '', '')
    gate.say(302)
    out, _ = waiting.communicate(timeout=60)
    took = time.monotonic() - start
    assert waiting.returncode == 0 and 4 < took < 30, (took, out)
    assert gate.servers[1].stdout.readline() == '/\n'
    node.must('DEL', 'g', 'p0', conf=gate.conf)
    gate.say(500)
    waiting = node.start('ADD', 'g', 'p0', conf=gate.conf)
    for _ in range(2):  # the one that was let through, and this one
        gate.servers[0].stdout.readline()
    start = time.monotonic()
    node.must('DEL', 'g', 'p0', conf=gate.conf)
    out, _ = waiting.communicate(timeout=60)
    said = json.loads(out)
    assert waiting.returncode and said['code'] == 11 and 'deleted meanwhile' in said['msg'], said
    assert time.monotonic() - start < 4
    waiting = node.start('ADD', 'g', 'p0', conf=gate.conf)
    gate.servers[0].stdout.readline()
    waiting.kill()
    waiting.wait()
    out, _ = hopeless.communicate(timeout=60)
    said = json.loads(out)
    assert hopeless.returncode and said['code'] == 11, said
    assert 'readiness gate "http://127.0.0.1:1/x" is not ready after 30 s: Connection refused' in said['msg'], said
    node.expect('gates', before)
    return f'ready after {took:.1f} s'


def interfaces(node, lab):
    """A second and a third network of one pod, each an endpoint; another plugin's beside ours."""
    pod = {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'm', 'namespace': 'default'},
           'spec': {'nodeName': node.agent.name, 'containers': [{'name': 'main'}]}}
    node.agent.apply([pod])
    args = {'args': 'IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=m'}
    more = {'net1': {'name': 'second'}, 'net2': {'name': 'third', 'ipam': DUAL}}
    answers = {'eth0': node.must('ADD', 'm', 'p0', **args)}
    for ifname, conf in more.items():
        answers[ifname] = node.must('ADD', 'm', 'p0', ifname=ifname, conf=conf, **args)
    weps = json.loads(node.agent.call('get', 'workloadendpoints', '-n', 'default', '-o', 'json'))['items']
    assert sorted(w['spec']['endpoint'] for w in weps) == ['eth0', 'net1', 'net2'], weps
    hosts = [a['interfaces'][0]['name'] for a in answers.values()]
    ips = [addresses(a)[0] for a in answers.values()]
    assert len(set(hosts)) == len(set(ips)) == 3, (hosts, ips)
    for ip in ips:  # each is reached, whatever interface it is of
        lab.run('node', ['ping', '-c1', '-W5', ip])
    links = json.loads(lab.run('p0', ['ip', '-j', 'address']))
    assert {link['ifname'] for link in links} >= {'eth0', 'net1', 'net2'}, links
    if pathlib.Path(REFERENCE, 'bridge').exists():  # ours first, another's beside it, and away again
        bridge = {'cniVersion': '1.0.0', 'name': 'br', 'type': 'bridge', 'bridge': 'mgbr0',
                  'ipam': {'type': 'static', 'addresses': [{'address': '10.9.9.2/24'}]}}
        for command in ('ADD', 'DEL'):
            env = {**os.environ, 'CNI_COMMAND': command, 'CNI_CONTAINERID': 'm', 'CNI_IFNAME': 'net3',
                   'CNI_NETNS': lab.path('p0'), 'CNI_PATH': REFERENCE}
            subprocess.run(lab.command('node', [f'{REFERENCE}/bridge']), env=env, check=True,
                           input=json.dumps(bridge), text=True, stdout=subprocess.DEVNULL)
            node.must('CHECK', 'm', 'p0', conf={'prevResult': answers['eth0']}, **args)
        lab.batch('node', ['link del mgbr0'])
    node.must('DEL', 'm', 'p0', ifname='net1', conf=more['net1'], **args)
    node.must('CHECK', 'm', 'p0', conf={'prevResult': answers['eth0']}, **args)
    lab.run('node', ['ping', '-c1', '-W5', ips[2]])
    node.must('DEL', 'm', 'p0', ifname='net2', conf=more['net2'], **args)
    node.must('DEL', 'm', 'p0', **args)
    node.agent.delete([pod])


def upkeep(node, lab):
    """GC takes what is not named and leaves what is; STATUS says when no ADD would succeed."""
    before = node.state()
    for name in ('keep', 'lost'):
        node.must('ADD', name, {'keep': 'p0', 'lost': 'p1'}[name],
                  conf={'runtimeConfig': {'portMappings': [
                      {'hostPort': {'keep': 7001, 'lost': 7002}[name], 'containerPort': 1,
                       'protocol': 'tcp'}]}})
    node.must('GC', '', '', conf={'name': 'other', 'cni.dev/valid-attachments': []})
    until(lambda: 'calikeep' in lab.run('node', ['ip', 'link']))
    node.must('GC', '', '', conf={'cni.dev/valid-attachments': [
        {'containerID': 'keep', 'ifname': 'eth0'}]})
    until(lambda: 'calilost' not in lab.run('node', ['ip', 'link']))
    table = lab.run('node', ['nft', 'list', 'table', 'inet', 'margay'])
    assert 'calikeep' in table and '7001' in table and '7002' not in table
    node.must('GC', '', '', conf={'cni.dev/valid-attachments': []})
    node.expect('GC', before)
    node.must('STATUS', '', '')
    info = {'apiVersion': 'projectcalico.org/v3', 'kind': 'ClusterInformation',
            'metadata': {'name': 'default'}, 'spec': {'datastoreReady': False}}
    node.agent.apply([info])
    code, said = node.call('STATUS', '', '')
    assert code and said['code'] == 50, said
    node.agent.apply([{**info, 'spec': {'datastoreReady': True}}])
    node.must('STATUS', '', '')
    node.agent.delete(POOLS)
    code, said = node.call('STATUS', '', '')
    assert code and said['code'] == 50 and 'no address could be given' in said['msg'], said
    node.agent.apply(POOLS)
    node.must('STATUS', '', '')
    node.agent.stop()
    code, said = node.call('STATUS', '', '')
    assert code and said['code'] == 50, said
    # Whoever owns the table keeps the agent from it: policy does not reach the kernel.
    lab.run('node', ['nft', 'delete', 'table', 'inet', 'margay'])
    owner = lab.spawn('node', ['nft', '-i'], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    owner.stdin.write('add table inet margay { flags owner; }\n')
    owner.stdin.flush()
    until(lambda: 'margay' in lab.run('node', ['nft', 'list', 'tables']))
    node.agent.start(wait=False)
    until(lambda: 'did not take the policy' in str(node.call('STATUS', '', '')))
    code, said = node.call('STATUS', '', '')
    assert code and said['code'] == 51, said
    owner.kill()
    owner.wait()
    until(lambda: node.call('STATUS', '', '')[0] == 0)
    away = Agent(lab, 'out', 'n2', url='etcd:http://127.0.0.1:1')  # nobody is there
    away.start(wait=False)
    until(pathlib.Path(away.state, 'agent.sock').exists)
    code, said = node.call('STATUS', '', '', conf={'socket': f'{away.state}/agent.sock'})
    assert code and said['code'] == 51 and 'has not been read yet' in said['msg'], said
    away.stop()
    shutil.rmtree(away.state)


def log_file(node, lab):
    """One line a call, also of failures and without an agent; full files are put aside, few kept."""
    path = pathlib.Path(node.agent.state, 'logs', 'cni', 'cni.log')
    conf = {'log_file_path': str(path), 'log_file_max_size': 0, 'log_file_max_count': '3'}
    node.must('ADD', 'l', 'p0', conf={**conf, 'log_file_max_size': 100})
    node.call('ADD', 'l2', 'p0', conf={**conf, 'log_file_max_size': 100, 'ipam': {}}, args='A=b\nforged')
    node.must('DEL', 'l', 'p0', conf={**conf, 'log_file_max_size': 100})
    lines = path.read_text().splitlines()
    assert len(lines) == 3, lines
    assert ' info ADD network=k8s-pod-network container=l ifname=eth0' in lines[0], lines
    assert ' error ADD ' in lines[1] and 'code=' in lines[1] and 'forged' in lines[1], lines
    assert path.stat().st_mode & 0o777 == 0o644
    for _ in range(6):
        node.must('DEL', 'l', 'p0', conf=conf)
        time.sleep(0.002)
    names = sorted(os.listdir(path.parent))
    assert len(names) == 4 and names[-1] == 'cni.log', names
    node.must('DEL', 'l', 'p0', conf={**conf, 'log_level': 'Warning'})
    assert sorted(os.listdir(path.parent)) == names
    (path.parent / 'x').symlink_to('/etc/passwd')
    node.must('DEL', 'l', 'p0', conf={**conf, 'log_file_path': str(path.parent / 'x')})
    node.must('DEL', 'l', 'p0', conf={**conf, 'log_file_path': '/proc/nowhere/x'})


def process(node):
    """Open descriptors and resident kB of the agent itself."""
    pids = subprocess.run(['pgrep', '-f', f'^{node.agent.margay} node .*{node.agent.state}'],
                          check=True, text=True, stdout=subprocess.PIPE).stdout.split()
    base = pathlib.Path('/proc', pids[0])
    resident = next(line for line in (base / 'status').read_text().splitlines() if 'VmRSS' in line)
    return len(os.listdir(base / 'fd')), int(resident.split()[1])


def lives(node, lab, count):
    """Many lives with everything on, over and over in the same two namespaces."""
    conf = {'ipam': DUAL, 'runtimeConfig': {
        'portMappings': [{'hostPort': 7100, 'containerPort': 80, 'protocol': 'tcp'}]}}
    shaped = {**conf, 'runtimeConfig': {**conf['runtimeConfig'], 'bandwidth': {'egressRate': 8000000}}}

    def live(i):
        node.must('ADD', f'life{i}', f'p{i % 2}', conf=conf if i % 10 else shaped)
        node.must('DEL', f'life{i}', f'p{i % 2}', conf=conf if i % 10 else shaped)

    def whole():
        rules = [lab.run('node', argv.split()) for argv in (
            'ip rule', 'ip -6 rule', 'ip route show table all', 'ip -6 route show table all',
            'nft -s list ruleset', 'tc qdisc')]
        return rules + [lab.run(name, ['ip', 'link']).count('\n') for name in ('p0', 'p1')]

    for i in range(max(20, count // 4)):  # until caches are warm
        live(i)
    until(lambda: 'mgb' not in lab.run('node', ['ip', 'link']))
    before, other, (fds, kb) = node.state(), whole(), process(node)
    start = time.monotonic()
    for i in range(count):
        live(i)
    took = time.monotonic() - start
    until(lambda: 'mgb' not in lab.run('node', ['ip', 'link']))
    node.expect(f'{count} lives', before)
    assert whole() == other, 'something else is different'
    fds_now, kb_now = process(node)
    # Two sockets of the second remover are opened when it is needed first, and kept.
    assert fds_now <= fds + 2, f'{fds_now} descriptors, {fds} before'
    # Sanitizers keep freed memory for a while: there the slope says nothing.
    is_plain = b'__asan_init' not in pathlib.Path(node.agent.margay).read_bytes()
    assert not is_plain or kb_now - kb < 512 + count // 4, f'{kb_now - kb} kB more after {count} lives'
    return (f'{count} lives, {took / count * 1000:.1f} ms each; descriptors {fds} to {fds_now}, '
            f'resident {kb} to {kb_now} kB')


def main(count=200):
    with Lab() as lab:
        for name in ('node', 'out', 'p0', 'p1'):
            lab.netns(name)
        lab.sysctl('node', {'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1})
        lab.batch('node', ['address add 192.0.2.1/32 dev lo'])
        with Agent(lab, 'node') as agent:
            agent.apply([*POOLS, {'apiVersion': 'v1', 'kind': 'Namespace',
                                  'metadata': {'name': 'default'}}])
            node = Node(lab, agent)
            node.must('ADD', 'first', 'p0', conf={'ipam': DUAL})  # blocks stay with the node
            node.must('DEL', 'first', 'p0')
            before = node.state()
            hopeless = node.start('ADD', 'h', 'p1', conf={'readiness_gates': ['http://127.0.0.1:1/x']})
            for part, argv in ((versions, ()), (settings, ()), (fields, ()), (interfaces, ()),
                               (gates, (hopeless,)), (upkeep, ()), (log_file, ()), (lives, (count,))):
                start = time.monotonic()
                text = part(node, lab, *argv)
                node.expect(part.__name__, before) if part is versions else None
                print(f'{part.__name__}: {time.monotonic() - start:.1f} s {text or ""}', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main(*(int(text) for text in sys.argv[1:2])))
