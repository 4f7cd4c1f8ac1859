"""Addresses: assigned and released a second, by one node and by ten, on each datastore; and the time
of a CNI ADD on each beside the reference plugins with host-local. A section of scripts/bench."""

import json
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'e2e'))

import agent as e2e_agent  # noqa: E402
from scale import as_table  # noqa: E402
from datastores import HostLab  # noqa: E402
from cluster import Etcd, KubeApiserver  # noqa: E402
from stores import open_store  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
REFERENCE = pathlib.Path('/usr/lib/cni')
TEN = 10
# Of one node, and of each of ten.
ADDRESSES = {'sqlite': (2000, 100), 'etcd': (500, 50), 'kubernetes': (200, 20)}
POOL = {'apiVersion': 'projectcalico.org/v3', 'kind': 'IPPool', 'metadata': {'name': 'bench'},
        'spec': {'cidr': '10.97.0.0/16'}}


def rates(setting, name, url):
    """Rows of one datastore."""
    one, each = (max(1, n // 5) if setting.is_quick else n for n in ADDRESSES[name])
    plans = [('one node', 1, one, 'own')]
    if not url.startswith('sqlite:'):
        plans += [(f'{TEN} nodes, blocks of their own', TEN, each, 'own'),
                  (f'{TEN} nodes, two blocks for all', TEN, max(1, each // 5), 'shared')]
    for what, nodes, count, mode in plans:
        found = setting.numbers('bench_ipam', url, str(nodes), str(count), mode, timeout=600)
        yield [name if not url.startswith('agent:') else f'{name}, through the agent', what,
               *(cell for key in ('assign', 'release') for cell in (
                   f'{found[key][0]:.0f}', f'{found[key][1]:.0f} (p99 {found[key][2]:.0f})'))]


def plugins(folder, agent):
    """bench_cni's arguments: ours on the agent, and two with host-local."""
    local = {'type': 'host-local', 'dataDir': f'{folder}/ipam'}
    socket = f'{agent.state}/agent.sock'
    confs = {
        'margay': (pathlib.Path(agent.cni_bin) / 'margay-cni', {
            'cniVersion': '1.0.0', 'name': 'bench', 'type': 'margay-cni', 'socket': socket,
            'state_dir': agent.state, 'ipam': {'type': 'margay-ipam'}}),
        'bridge': (REFERENCE / 'bridge', {
            'cniVersion': '0.4.0', 'name': 'bench-bridge', 'type': 'bridge', 'bridge': 'br0',
            'isGateway': True, 'ipam': {**local, 'subnet': '10.99.0.0/16'}}),
        'ptp': (REFERENCE / 'ptp', {
            'cniVersion': '0.4.0', 'name': 'bench-ptp', 'type': 'ptp',
            'ipam': {**local, 'subnet': '10.98.0.0/16'}})}
    for name, (path, conf) in confs.items():
        file = pathlib.Path(folder, f'{name}.json')
        file.write_text(json.dumps(conf), encoding='utf-8')
        yield f'{name}={path}={file}'


def adds(setting, name):
    """A row: ADD on one datastore, the plugins taking turns."""
    node = f'ipam-{name}'
    setting.lab.netns(node)
    setting.lab.batch(node, ['link set lo up'])
    setting.lab.sysctl(node, {'net.ipv4.ip_forward': 1})
    os.environ.setdefault('MARGAY', str(ROOT / 'build' / 'margay'))
    with open_store(name, setting.lab, node) as store, \
            e2e_agent.Agent(setting.lab, node, store=store) as agent, \
            tempfile.TemporaryDirectory() as folder:
        rounds = 10 if setting.is_quick else 60
        pods = [{'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'bench'}},
                *({'apiVersion': 'v1', 'kind': 'Pod',
                   'metadata': {'name': f'pod-{i}', 'namespace': 'bench'},
                   'spec': {'nodeName': 'n1', 'containers': [{'name': 'main', 'image': 'i'}]}}
                  for i in range(rounds + 2))]
        agent.apply([POOL, *(pods if name == 'kubernetes' else [])])
        out = setting.lab.run(node, ['env', *(['BENCH_PODS=bench'] if name == 'kubernetes' else []),
                                     str(setting.bench / 'bench_cni'), str(rounds), '1', '0',
                                     *plugins(folder, agent)], timeout=900)
    found = {tuple(line.split()[:2]): float(line.split()[2]) for line in out.splitlines()}
    row = [name]
    for operation in ('ADD', 'DEL'):
        ours = found['margay', operation]
        row.append(f'{ours:.0f}')
        for other in ('bridge', 'ptp'):
            row.append(f'{found[other, operation]:.0f} ({found[other, operation] / ours:.1f}x)')
    return row


def addresses(setting):
    """The text of the section."""
    on_host = type(setting)(HostLab(), setting.bench, setting.agent, setting.is_quick)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        rows += rates(on_host, 'sqlite', f'sqlite:{folder}/margay.db')
    agent = setting.agent(setting.lab, 'node')
    agent.start()
    rows += rates(setting, 'sqlite', f'agent:{agent.socket}')
    agent.stop()
    with Etcd() as etcd:
        rows += rates(on_host, 'etcd', etcd.url())
    with Etcd() as etcd, KubeApiserver(etcd) as api:
        api.apply_crds()
        rows += rates(on_host, 'kubernetes', api.url())
    heads = ['store', 'who', 'assigned/s', 'us each', 'released/s', 'us each']
    add_heads = ['store', 'ADD, us', 'bridge + host-local', 'ptp + host-local', 'DEL, us',
                 'bridge + host-local', 'ptp + host-local']
    return ('One address a call, each durable or acknowledged before the next; ten nodes are ten '
            'processes with connections of their own.\n\n' + as_table(heads, rows) +
            '\n\nCNI ADD and DEL, serial, seen by the runtime; plugins take turns. With an API server '
            'the Pods are there before, and an ADD writes the address to its Pod.\n\n' +
            as_table(add_heads, [adds(setting, name) for name in ('sqlite', 'etcd', 'kubernetes')]))


# Name on the command line, heading, function.
SECTIONS = [('ipam', 'Addresses', addresses)]
