"""An agent of ours on the node of a lab, and the topology's pods made by it."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

from lab import COMMAND_TIMEOUT, CommandFailed, wait_until_reachable

ROOT = pathlib.Path(__file__).resolve().parents[2]
GATEWAY_OUT = ('10.90.0.1', 'fd90::1')


class Agent:
    """`margay node` in one namespace of a lab, with a state dir of its own."""

    def __init__(self, lab, node, name='n1', default_pools=False, store=None, url=None):
        self.store = store  # of stores.py; None: the embedded one
        self.url = url or (store.url if store else None)
        self.no_pools = 'false' if default_pools else 'true'
        self.lab, self.node, self.name = lab, node, name
        self.margay = os.environ.get('MARGAY', str(ROOT / 'build' / 'margay'))
        self.cni_bin = os.environ.get('MARGAY_CNI_DIR', str(ROOT / 'build'))
        self.state = tempfile.mkdtemp(prefix='margay-e2e-')
        self.log = pathlib.Path(self.state) / 'log'
        self.process = None
        self.environment = {}  # beside the caller's own

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.state)

    def start(self, wait=True):
        """Start it and wait until it answers and its kernel is as the store says."""
        with open(self.log, 'ab') as log:
            self.process = self.lab.spawn(
                self.node, [self.margay, 'node', '--node-name', self.name, *self.globals()],
                stdout=log, stderr=log, env={**os.environ, 'NO_DEFAULT_POOLS': self.no_pools, **self.environment})
        if wait and self.url:  # a server that has just been started is slow at first
            self.call('status', '--wait', '--timeout', '120s', timeout=150)
        elif wait:
            self.call('status', '--wait', '--timeout', '20s')

    def globals(self):
        """The flags that all commands share."""
        return ['--state-dir', self.state, *(['--datastore', self.url] if self.url else [])]

    def stop(self):
        """Ask it to end; its own errors (sanitizers) are failures."""
        self.process.terminate()
        code = self.process.wait(20)
        if code not in (0, -15):
            raise CommandFailed(f'the agent ended with {code}:\n{self.log.read_text()[-4000:]}')

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def call(self, *argv, stdin='', timeout=COMMAND_TIMEOUT):
        """Run the CLI on the node; its output."""
        return self.lab.run(self.node, [self.margay, *self.globals(), *argv], stdin, timeout)

    def status(self):
        """What `status` says, whatever its exit status."""
        done = subprocess.run(self.lab.command(self.node, [self.margay, *self.globals(), 'status',
                                                           '-o', 'json']),
                              check=False, text=True, stdout=subprocess.PIPE, timeout=30)
        return json.loads(done.stdout)

    def apply(self, documents, wait=True):
        """Apply a list of objects and wait until the kernel has them."""
        if not documents:
            return ''
        if self.store:
            documents = self.store.write(documents)
        out = ''
        if documents:
            out = self._feed('apply', documents)
        if wait:
            self.call('status', '--wait')
        return out

    def _feed(self, *argv_and_documents):
        """A command that reads a list of objects."""
        *argv, documents = argv_and_documents
        items = json.dumps({'apiVersion': 'v1', 'kind': 'List', 'items': documents})
        return self.call(*argv, '-f', '-', stdin=items)

    def delete(self, documents):
        """Delete a list of objects; those that are not there are fine."""
        if self.store:
            documents = self.store.remove(documents)
        if documents:
            self._feed('delete', '--ignore-not-found', documents)

    def add_pod(self, pod, namespace):
        """CNI ADD of a pod whose object is applied, in a namespace of the lab."""
        self.call('pod', 'add', repr(pod), '--cni-bin', self.cni_bin, '--netns',
                  self.lab.path(namespace))


def pod_object(pod, node='n1'):
    """The Pod object of a casebook pod; its fixed addresses are asked for by annotation."""
    ports = [{'name': name, 'protocol': proto, 'containerPort': number}
             for name, proto, number in pod.ports]
    ips = [str(ip) for ip in pod.ips]
    return {'apiVersion': 'v1', 'kind': 'Pod',
            'metadata': {'name': pod.name, 'namespace': pod.namespace, 'labels': pod.labels,
                         'annotations': {'cni.projectcalico.org/ipAddrs': json.dumps(ips)}},
            'spec': {'nodeName': node, 'containers': [{'name': 'main', 'ports': ports}]}}


def other_pod_object(pod):
    """A pod of another node, known by its status alone."""
    document = pod_object(pod, 'elsewhere')
    del document['metadata']['annotations']
    document['spec']['hostNetwork'] = bool(getattr(pod, 'host_network', False))
    document['status'] = {'phase': pod.phase, 'podIPs': [{'ip': str(ip)} for ip in pod.ips]}
    return document


def agent_cluster(lab, agent, topology):
    """The topology with the agent's own interfaces, routes and rules; listeners run."""
    node = agent.node
    lab.sysctl(node, {'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1,
                      'net.ipv4.icmp_ratelimit': 0, 'net.ipv6.icmp.ratelimit': 0})
    places = topology.places()
    for name in places:
        lab.netns(name)
    for name, (v4, v6) in topology.outside.items():
        lab.link(node, 'ext0', name, 'eth0')
        lab.batch(node, [f'address add {GATEWAY_OUT[0]}/24 dev ext0',
                         f'address add {GATEWAY_OUT[1]}/64 dev ext0 nodad'])
        lab.batch(name, [f'address add {v4}/24 dev eth0', f'address add {v6}/64 dev eth0 nodad',
                         f'route add default via {GATEWAY_OUT[0]}',
                         f'route add default via {GATEWAY_OUT[1]}'])
    pool = {'apiVersion': 'projectcalico.org/v3', 'kind': 'IPPool'}
    agent.apply(
        [{**pool, 'metadata': {'name': 'v4'}, 'spec': {'cidr': '10.80.0.0/16'}},
         {**pool, 'metadata': {'name': 'v6'}, 'spec': {'cidr': 'fd80::/48'}}] +
        [{'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': name, 'labels': labels}}
         for name, labels in topology.namespaces.items()] +
        [pod_object(pod) for pod in topology.pods])
    for pod in topology.pods:
        agent.add_pod(pod, repr(pod))
    with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
        list(pool.map(lambda name: lab.listen(name, topology.flows), places))
    wait_until_reachable(lab, places)


def forget_connections(lab, node):
    """Established connections pass without policy: start each question without any."""
    subprocess.run(lab.command(node, ['conntrack', '-F']), check=False,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
