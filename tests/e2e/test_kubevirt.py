#!/usr/bin/python3
"""A virtual machine of KubeVirt keeps its address: it is started, stopped and started elsewhere, moved
live between two nodes with its address following, kept from moving where persistence is off, and deleted.

KubeVirt itself is not here: its three kinds are there as bare CRDs, and this test makes the objects and
pods that it would make, with real plugins, agents and packets. On the API server as the datastore, or on
etcd with a kubeconfig in the network configuration.

Usage: test_kubevirt.py [kubernetes|etcd [gc]]   (gc: the collector, too, which takes six minutes)
"""

import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent  # noqa: E402
from cluster import Etcd, KubeApiserver, Place  # noqa: E402
from lab import PYTHON, CommandFailed, Lab  # noqa: E402
from stores import EtcdStore, KubernetesStore  # noqa: E402
from test_cni_life import Node  # noqa: E402
from test_network import until  # noqa: E402

STORE_ADDRESS = '10.76.0.254'
NODES = {'n1': '10.76.0.1', 'n2': '10.76.0.2'}
KINDS = {'VirtualMachine': 'virtualmachines', 'VirtualMachineInstance': 'virtualmachineinstances',
         'VirtualMachineInstanceMigration': 'virtualmachineinstancemigrations'}
POOL = {'apiVersion': 'projectcalico.org/v3', 'kind': 'IPPool', 'metadata': {'name': 'pods'},
        'spec': {'cidr': '10.80.0.0/24', 'blockSize': 28}}
# What QEMU sends on the target when it goes on there.
ANNOUNCE = """
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('eth0', 0))
mac = s.getsockname()[4]
s.send(b'\\xff' * 6 + mac + b'\\x80\\x35' + b'\\0\\1\\x08\\0\\6\\4\\0\\3' + mac + b'\\0' * 4 + mac + b'\\0' * 4)
"""


def crd(kind):
    """The least that a server takes for one of KubeVirt's kinds."""
    schema = {'openAPIV3Schema': {'type': 'object', 'x-kubernetes-preserve-unknown-fields': True}}
    return {'apiVersion': 'apiextensions.k8s.io/v1', 'kind': 'CustomResourceDefinition',
            'metadata': {'name': f'{KINDS[kind]}.kubevirt.io'},
            'spec': {'group': 'kubevirt.io', 'scope': 'Namespaced',
                     'names': {'kind': kind, 'plural': KINDS[kind], 'singular': kind.lower()},
                     'versions': [{'name': 'v1', 'served': True, 'storage': True, 'schema': schema}]}}


class Cluster:
    """Two nodes, and what KubeVirt would do."""

    def __init__(self, lab, api, nodes):
        self.lab, self.api, self.nodes = lab, api, nodes
        self.pods = {}  # name: (node, container, namespace of the lab)
        self.serial = 0

    def kubectl(self, *argv, **more):
        """As administrator."""
        return self.api.kubectl('-n', 'shop', *argv, **more)

    def make(self, kind, name, owner=None, version='kubevirt.io/v1', **more):
        """An object, owned by another; as it was written."""
        meta = {'name': name, 'namespace': 'shop', **more.pop('metadata', {})}
        if owner:
            meta['ownerReferences'] = [{'apiVersion': owner['apiVersion'], 'kind': owner['kind'],
                                        'name': owner['metadata']['name'],
                                        'uid': owner['metadata']['uid'], 'controller': True}]
        text = json.dumps({'apiVersion': version, 'kind': kind, 'metadata': meta, **more})
        return json.loads(self.kubectl('create', '-o', 'json', '-f', '-', stdin=text))

    def patch(self, kind, name, change):
        """Part of an object."""
        self.kubectl('patch', KINDS[kind] + '.kubevirt.io', name, '--type=merge', '-p', json.dumps(change))

    def remove(self, kind, name):
        """Delete an object; what has finalizers stays for a while."""
        self.kubectl('delete', KINDS[kind] + '.kubevirt.io', name, '--wait=false')

    def pod(self, name, node, place, vmi=None, migration=None):
        """A Pod object, the machine's if one is named."""
        labels = {'kubevirt.io/migrationJobUID': migration['metadata']['uid']} if migration else {}
        self.make('Pod', name, owner=vmi, version='v1', metadata={'labels': labels},
                  spec={'nodeName': node, 'containers': [{'name': 'main', 'image': 'none'}]})
        self.serial += 1
        self.pods[name] = (node, f'c{self.serial}', place)

    def add(self, name, **more):
        """CNI ADD; the pod's only address."""
        node, container, place = self.pods[name]
        answer = self.nodes[node].must('ADD', container, place, args=self.args(name), **more)
        assert len(answer['ips']) == 1, answer
        return answer['ips'][0]['address'].split('/')[0]

    def refused(self, name):
        """CNI ADD that fails; its error."""
        node, container, place = self.pods[name]
        code, answer = self.nodes[node].call('ADD', container, place, args=self.args(name))
        assert code, answer
        return answer

    def end(self, name, times=2, is_first=True):
        """The pod is deleted; its object goes before the runtime calls DEL (is_first), or after."""
        node, container, place = self.pods[name]
        if is_first:
            self.kubectl('delete', 'pod', name, '--force', '--grace-period=0')
        for i in range(times):
            self.nodes[node].must('DEL', container, '' if i else place, args=self.args(name))
        if not is_first:
            self.kubectl('delete', 'pod', name, '--force', '--grace-period=0')

    @staticmethod
    def args(name):
        """CNI_ARGS."""
        return f'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}'

    def show(self, ip):
        """What `ipam show --ip` says; '' when it is not assigned."""
        agent = self.nodes['n1'].agent
        done = subprocess.run(self.lab.command('n1', [agent.margay, *agent.globals(), 'ipam', 'show', '--ip', ip]),
                              check=False, text=True, stdout=subprocess.PIPE, timeout=60)
        return done.stdout if done.returncode == 0 else ''

    def check(self):
        """The books have no fault, and nothing leaks."""
        try:
            self.nodes['n1'].agent.call('ipam', 'check')
        except CommandFailed as error:
            raise AssertionError(f'ipam check: {error}') from error

    def answers(self, client, ip):
        """Who answers at the address, seen from a pod."""
        said = self.lab.probe(client, [('TCP', ip, 80)], timeout=2.0)[0]
        return said['peer'] or said['state']

    def expect_answer(self, ip, who, timeout=30):
        """From pods on both nodes, soon; how long the slower took."""
        start = time.monotonic()
        for client in ('c1', 'c2'):
            def is_so(client=client):
                return self.answers(client, ip) == who
            is_so.__doc__ = f'{who} answers {client} at {ip}: {self.answers(client, ip)}'
            until(is_so, timeout)
        return time.monotonic() - start

    def way(self, node, ip):
        """How a node reaches an address."""
        return json.loads(self.lab.run(node, ['ip', '-j', 'route', 'get', ip]))[0]


def owners(text):
    """Active and alternate owner's pods of `ipam show --ip`."""
    found, which = {'active': None, 'alternate': None}, None
    for line in text.splitlines():
        if line.lower().startswith(('active', 'alternate')):
            which = line.split()[0].lower()
        if line.strip().startswith('pod: '):
            found[which] = line.split(': ')[1]
    return found['active'], found['alternate']


def life(c):
    """Started, stopped, started on the other node: one address."""
    vm = c.make('VirtualMachine', 'web', metadata={'finalizers': ['margay.io/test']})
    vmi = c.make('VirtualMachineInstance', 'web', owner=vm)
    c.pod('virt-launcher-web-aaaaa', 'n1', 'v1', vmi)
    ip = c.add('virt-launcher-web-aaaaa')
    text = c.show(ip)
    assert 'Handle: k8s-pod-network.vmi.shop.web' in text and f'vm-uid: {vm["metadata"]["uid"]}' in text, text
    assert owners(text) == ('virt-launcher-web-aaaaa', None), text
    again = {'args': c.args('virt-launcher-web-aaaaa')}
    answer = c.nodes['n1'].must('ADD', c.pods['virt-launcher-web-aaaaa'][1], 'v1', **again)
    c.nodes['n1'].must('CHECK', c.pods['virt-launcher-web-aaaaa'][1], 'v1', conf={'prevResult': answer}, **again)
    c.lab.listen('v1', [('TCP', 80)], 'first')
    c.expect_answer(ip, 'first')
    c.end('virt-launcher-web-aaaaa', times=3)
    c.remove('VirtualMachineInstance', 'web')
    assert owners(c.show(ip)) == (None, None) and 'vmi.shop.web' in c.show(ip), c.show(ip)
    c.check()
    vmi = c.make('VirtualMachineInstance', 'web', owner=vm)
    c.pod('virt-launcher-web-bbbbb', 'n2', 'v2', vmi)
    assert c.add('virt-launcher-web-bbbbb') == ip
    assert vmi['metadata']['uid'] in c.show(ip), c.show(ip)
    c.lab.listen('v2', [('TCP', 80)], 'second')
    c.expect_answer(ip, 'second')
    assert c.way('n1', ip)['gateway'] == NODES['n2'], c.way('n1', ip)
    c.check()
    print(f'ok: {ip} over a restart on another node')
    return ip, vmi


def migrate(c, ip, vmi, source, target, how):
    """Moved live; how: the migration's object says so, or the machine, or it fails. `restarted`: the target's
    agent starts anew while the migration runs."""
    how, _, is_restarted = how.partition(' ')
    (old_node, _, old_place), (node, place, name) = c.pods[source], target
    migration = c.make('VirtualMachineInstanceMigration', f'move-{name}', spec={'vmiName': 'web'},
                       status={'phase': 'Scheduling'})
    c.pod(name, node, place, vmi, migration)
    assert c.add(name) == ip
    again = {'args': c.args(name)}
    answer = c.nodes[node].must('ADD', c.pods[name][1], place, **again)
    c.nodes[node].must('CHECK', c.pods[name][1], place, conf={'prevResult': answer}, **again)
    assert owners(c.show(ip)) == (source, name), c.show(ip)
    assert f'vmim-uid: {migration["metadata"]["uid"]}' in c.show(ip), c.show(ip)
    c.lab.listen(place, [('TCP', 80)], name)
    if is_restarted:
        c.nodes[node].agent.stop()
        c.nodes[node].agent.start()
    c.patch('VirtualMachineInstanceMigration', f'move-{name}', {'status': {'phase': 'Running'}})
    before = c.answers('c1', ip), c.answers('c2', ip)
    time.sleep(2.5)  # while it runs nothing may move: two looks at the migration
    assert (c.answers('c1', ip), c.answers('c2', ip)) == before and before[0] == before[1] != name, before
    c.check()
    if how == 'failed':
        c.patch('VirtualMachineInstanceMigration', f'move-{name}', {'status': {'phase': 'Failed'}})
        c.end(name)
        assert owners(c.show(ip)) == (source, None), c.show(ip)
        c.expect_answer(ip, before[0])
        print('ok: a migration that failed changes nothing')
        return
    if how == 'object':
        c.patch('VirtualMachineInstanceMigration', f'move-{name}', {'status': {'phase': 'Succeeded'}})
    else:
        c.lab.run(place, [PYTHON, '-c', ANNOUNCE])
    took = c.expect_answer(ip, name)
    assert owners(c.show(ip)) == (name, source), c.show(ip)
    assert c.way(old_node, ip)['gateway'] == NODES[node], c.way(old_node, ip)
    assert c.way(node, ip)['dev'].startswith('cali'), c.way(node, ip)
    c.check()
    c.end(source, is_first=how == 'object')
    assert owners(c.show(ip)) == (name, None), c.show(ip)
    c.expect_answer(ip, name)
    print(f'ok: moved from {old_node} to {node} ({how}), seen by all after {took:.1f} s')
    assert old_place != place


def as_delegate(c):
    """margay-ipam, called by another plugin: the same rules."""
    vm = c.make('VirtualMachine', 'other')
    vmi = c.make('VirtualMachineInstance', 'other', owner=vm)
    c.pod('virt-launcher-other-aaaaa', 'n1', 'v3', vmi)
    main = {name: node.plugin for name, node in c.nodes.items()}
    for node in c.nodes.values():
        node.plugin = str(pathlib.Path(node.agent.cni_bin, 'margay-ipam'))
    try:
        ip = c.add('virt-launcher-other-aaaaa')
        c.end('virt-launcher-other-aaaaa')
        assert 'vmi.shop.other' in c.show(ip), c.show(ip)
        c.pod('virt-launcher-other-bbbbb', 'n2', 'v3', vmi)
        assert c.add('virt-launcher-other-bbbbb') == ip
        move = c.make('VirtualMachineInstanceMigration', 'move-other', spec={'vmiName': 'other'})
        c.pod('virt-launcher-other-ccccc', 'n1', 'v3', vmi, move)
        node, container, place = c.pods['virt-launcher-other-ccccc']
        answer = c.nodes[node].must('ADD', container, place, args=c.args('virt-launcher-other-ccccc'))
        assert answer['ips'][0]['address'] == ip + '/32' and not answer['routes'], answer
        assert owners(c.show(ip)) == ('virt-launcher-other-bbbbb', 'virt-launcher-other-ccccc'), c.show(ip)
        c.end('virt-launcher-other-ccccc')
        c.remove('VirtualMachineInstance', 'other')
        c.remove('VirtualMachine', 'other')
        c.end('virt-launcher-other-bbbbb', is_first=False)
    finally:
        for name, node in c.nodes.items():
            node.plugin = main[name]
    assert not c.show(ip), c.show(ip)
    print('ok: the same by margay-ipam alone')


def long_name(c):
    """A name that Kubernetes cuts in the pod's: the books say whose it is."""
    name = 'a-machine-with-a-name-of-fifty-two-characters-as-is'
    vm = c.make('VirtualMachine', name)
    vmi = c.make('VirtualMachineInstance', name, owner=vm)
    pod = f'virt-launcher-{name}-'[:58] + 'abcde'
    c.pod(pod, 'n2', 'v3', vmi)
    ip = c.add(pod)
    assert f'vmi.shop.{name}' in c.show(ip) and name not in pod, c.show(ip)
    c.remove('VirtualMachineInstance', name)
    c.remove('VirtualMachine', name)
    c.end(pod)
    assert not c.show(ip), c.show(ip)
    print('ok: a name that is cut in the pod\'s')


def switched_off(c, ip, vmi):
    """Persistence off: no target is taken, and a pod has an address of its own."""
    c.nodes['n1'].agent.call('ipam', 'configure', '--kubevirt-ip-persistence=Disabled')
    move = c.make('VirtualMachineInstanceMigration', 'move-off', spec={'vmiName': 'web'})
    c.pod('virt-launcher-web-offff', 'n1', 'v3', vmi, move)
    said = c.refused('virt-launcher-web-offff')
    assert 'kubeVirtVMAddressPersistence' in said['msg'] and 'Disabled' in said['msg'], said
    c.end('virt-launcher-web-offff')
    c.pod('virt-launcher-web-plain', 'n1', 'v3', vmi)
    other = c.add('virt-launcher-web-plain')
    assert other != ip and 'vmi' not in c.show(other), c.show(other)
    c.end('virt-launcher-web-plain')
    assert not c.show(other), c.show(other)
    c.nodes['n1'].agent.call('ipam', 'configure', '--kubevirt-ip-persistence=Enabled')
    print('ok: refused where persistence is Disabled')


def deleted(c, ip, pod):
    """While the VM is being deleted its last pod takes the address with it."""
    c.remove('VirtualMachine', 'web')  # its finalizer holds it
    c.end(pod)
    assert not c.show(ip), c.show(ip)
    c.patch('VirtualMachine', 'web', {'metadata': {'finalizers': None}})
    c.check()
    print('ok: deleted, and the address is free')


@contextlib.contextmanager
def controllers(agent, lab, api_url, store_url):
    """`margay controllers`: on etcd namespaces' profiles come from them, and they collect addresses."""
    agent.call('apply', '-f', '-', stdin=json.dumps({
        'apiVersion': 'projectcalico.org/v3', 'kind': 'KubeControllersConfiguration', 'metadata': {'name': 'default'},
        'spec': {'controllers': {'node': {'leakGracePeriod': '20s'}, 'namespace': {}, 'serviceAccount': {}}}}))
    with tempfile.NamedTemporaryFile() as log:
        argv = [agent.margay, 'controllers', '--datastore', store_url]
        process = lab.spawn('store', argv + (['--source', api_url] if api_url != store_url else []),
                            stdout=log, stderr=log)

        def has_profile():
            """the namespace has its profile"""
            return 'kns.shop' in agent.call('get', 'profiles', '-o', 'name')

        try:
            until(has_profile)
            yield
        except BaseException:
            print('---- controllers\n' + pathlib.Path(log.name).read_text(encoding='utf-8')[-4000:])
            raise
        process.terminate()
        process.wait(60)


def collected(c):
    """A VM that is deleted while it stands still: the collector frees its address, five minutes later."""
    vm = c.make('VirtualMachine', 'still')
    vmi = c.make('VirtualMachineInstance', 'still', owner=vm)
    c.pod('virt-launcher-still-aaaaa', 'n1', 'v3', vmi)
    ip = c.add('virt-launcher-still-aaaaa')
    c.end('virt-launcher-still-aaaaa')
    c.remove('VirtualMachineInstance', 'still')
    time.sleep(60)
    assert c.show(ip), 'freed while the VM is there'
    c.remove('VirtualMachine', 'still')
    start = time.monotonic()

    def is_free():
        """the address is free"""
        return not c.show(ip)

    until(is_free, 420)
    took = time.monotonic() - start
    assert took > 295, took
    print(f'ok: collected {took:.0f} s after its end')


def without_api(c, vmi, server):
    """etcd, and an API server that is gone: DEL works, and the address stays."""
    c.pod('virt-launcher-web-ddddd', 'n1', 'v3', vmi)
    ip = c.add('virt-launcher-web-ddddd')
    server.stop(kill=True)
    node, container, place = c.pods['virt-launcher-web-ddddd']
    start = time.monotonic()
    c.nodes[node].must('DEL', container, place, args=c.args('virt-launcher-web-ddddd'))
    assert owners(c.show(ip)) == (None, None) and 'vmi.shop.web' in c.show(ip), c.show(ip)
    print(f'ok: DEL without an API server took {time.monotonic() - start:.1f} s; the address stays')


def wire(lab):
    """Nodes and store on one bridge; places of pods."""
    lab.netns('switch')
    lab.batch('switch', ['link add br0 type bridge', 'link set br0 up'])
    for name, ip in {**NODES, 'store': STORE_ADDRESS}.items():
        lab.netns(name)
        lab.link('switch', f'p{name}', name, 'eth0')
        lab.batch('switch', [f'link set p{name} master br0'])
        lab.batch(name, [f'address add {ip}/24 dev eth0'])
    for name in NODES:
        lab.sysctl(name, {'net.ipv4.ip_forward': 1})
    for place in ('c1', 'c2', 'v1', 'v2', 'v3', 'v4', 'v5', 'v6'):
        lab.netns(place)


def main(kind='kubernetes', more=''):
    """The whole story, on one datastore."""
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        wire(lab)
        etcd = stack.enter_context(Etcd(Place(lab, 'store'), address=STORE_ADDRESS))
        server = stack.enter_context(KubeApiserver(etcd, address=STORE_ADDRESS))
        api = KubernetesStore(server, NODES)
        server.apply_crds()
        server.apply([crd(k) for k in KINDS] + [
            {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'shop'}}])
        for plural in KINDS.values():
            server.kubectl('wait', '--for=condition=Established', f'crd/{plural}.kubevirt.io')
        store = api if kind == 'kubernetes' else EtcdStore(etcd)
        agents = {name: stack.enter_context(Agent(lab, name, name, store=store)) for name in NODES}
        agents['n1'].apply([POOL])
        nodes = {name: Node(lab, agent) for name, agent in agents.items()}
        for node in nodes.values():
            node.conf['policy'] = {'type': 'k8s'}
            if kind == 'etcd':
                node.conf['kubernetes'] = {'kubeconfig': server.kubeconfig()}
        c = Cluster(lab, server, nodes)
        try:
            if kind == 'etcd' or more == 'gc':
                stack.enter_context(controllers(agents['n1'], lab, api.url, store.url))
            for node, place in (('n1', 'c1'), ('n2', 'c2')):
                c.pod(f'client-{node}', node, place)
                c.add(f'client-{node}')
            ip, vmi = life(c)
            names = [f'virt-launcher-web-{letter * 5}' for letter in 'bcef']
            migrate(c, ip, vmi, names[0], ('n1', 'v4', names[1]), 'failed')
            migrate(c, ip, vmi, names[0], ('n1', 'v5', names[2]),
                    'object restarted' if kind == 'kubernetes' else 'object')
            migrate(c, ip, vmi, names[2], ('n2', 'v6', names[3]), 'announcement')
            as_delegate(c)
            long_name(c)
            switched_off(c, ip, vmi)
            deleted(c, ip, names[3])
            if more == 'gc':
                collected(c)
            if kind == 'etcd':
                vm = c.make('VirtualMachine', 'web')
                c.remove('VirtualMachineInstance', 'web')
                without_api(c, c.make('VirtualMachineInstance', 'web', owner=vm), server)
        except BaseException:
            for agent in agents.values():
                print(f'---- {agent.name}\n{agent.log.read_text()[-6000:]}')
            raise
    return 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
