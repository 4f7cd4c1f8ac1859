"""The datastores: following one from nothing, and how soon a change is told; against etcdctl and
kubectl on the same servers. A section of scripts/bench."""

import base64
import http.client
import json
import pathlib
import subprocess
import sys
import tempfile
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'e2e'))

from cluster import Etcd, KubeApiserver  # noqa: E402
from scale import as_table, us  # noqa: E402

A_TRANSACTION = 100
SCALES = (('took_us', 1000), ('cpu_us', 1000), ('peak_kib', 1024))  # to ms, ms, MiB
KINDS = ','.join(['namespaces', 'pods', 'networkpolicies.networking.k8s.io',
                  'networkpolicies.crd.projectcalico.org'])
ROUNDS = 200


def cluster_of(setting, policies, pods):
    """The made-up cluster: pairs of store key and document."""
    out = subprocess.run([setting.bench / 'bench_stores', 'dump', str(policies), str(pods)],
                         check=True, text=True, stdout=subprocess.PIPE).stdout
    return [line.split('\t') for line in out.splitlines()]


def put_all(etcd, pairs):
    """Keys and values into an etcd, many in one transaction."""
    connection = http.client.HTTPConnection('127.0.0.1', etcd.client_ports[0])

    def encoded(text):
        return base64.b64encode(text.encode()).decode()

    for start in range(0, len(pairs), A_TRANSACTION):
        body = {'success': [{'requestPut': {'key': encoded(key), 'value': encoded(value)}}
                            for key, value in pairs[start:start + A_TRANSACTION]]}
        connection.request('POST', '/v3/kv/txn', json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f'etcd: {answer.status} {text[:300]}')
    connection.close()


def calico_pairs(documents):
    """As Calico keeps them in etcd; Kubernetes' own kinds beside them."""
    kinds = {'Namespace': 'v1/core/namespaces', 'Pod': 'v1/core/pods',
             'NetworkPolicy.networking.k8s.io': 'v1/networking.k8s.io/networkpolicies',
             'NetworkPolicy.projectcalico.org': 'v3/projectcalico.org/networkpolicies',
             'WorkloadEndpoint.projectcalico.org': 'v3/projectcalico.org/workloadendpoints'}
    for key, text in documents:
        kind, namespace, name = key.split('/')
        place = f'{namespace}/{name}' if namespace else name
        yield f'/calico/resources/{kinds[kind]}/{place}', text


def registry_pairs(documents):
    """As an API server keeps them."""
    kinds = {'Namespace': 'namespaces', 'Pod': 'pods',
             'NetworkPolicy.networking.k8s.io': 'networkpolicies',
             'NetworkPolicy.projectcalico.org': 'crd.projectcalico.org/networkpolicies'}
    for key, text in documents:
        kind, namespace, name = key.split('/')
        if kind not in kinds:
            continue  # a pod's endpoint is the pod itself
        document = json.loads(text)
        document['metadata'] |= {'uid': str(uuid.uuid4()),
                                 'creationTimestamp': '2024-01-01T00:00:00Z'}
        if 'projectcalico' in kind:
            document['apiVersion'] = 'crd.projectcalico.org/v1'
        place = f'{namespace}/{name}' if namespace else name
        yield f'/registry/{kinds[kind]}/{place}', json.dumps(document)


def run_other(setting, argv, env=None):
    """Another program to its end: microseconds, its CPU, its peak in KiB, lines it wrote."""
    env = [f'{key}={value}' for key, value in (env or {}).items()]
    return setting.numbers('bench_stores', 'run', 'env', *env, *argv)


def compared(setting, url, other):
    """Ours and another program, in turns; of each the quickest run."""
    best = {}
    for _ in range(1 if setting.is_quick else 3):
        for name, run in (('ours', lambda: setting.numbers('bench_stores', 'sync', url)),
                          ('other', other)):
            result = run()
            if name not in best or result['took_us'] < best[name]['took_us']:
                best[name] = result
    return best['ours'], best['other']


def sync_row(where, other_name, ours, theirs):
    def pair(key, scale):
        return (f'{ours[key][0] / scale:.0f}',
                f'{theirs[key][0] / scale:.0f} ({theirs[key][0] / max(1, ours[key][0]):.1f}x)')

    cells = [cell for key, scale in SCALES for cell in pair(key, scale)]
    return [where, f'{ours["items"][0]:.0f}', other_name, *cells]


def latency_row(setting, where, url, other_name, argv, env=None):
    rounds = 30 if setting.is_quick else ROUNDS
    env = [f'{key}={value}' for key, value in (env or {}).items()]
    found = setting.numbers('bench_stores', 'latency', url, str(rounds), 'env', *env, *argv)
    ours, theirs = found['ours_us'], found['theirs_us']
    return [where, us(ours), other_name, f'{us(theirs)} ({theirs[0] / ours[0]:.1f}x)']


class HostLab:
    """The programs of this section run on the host, where the servers are."""

    @staticmethod
    def run(_node, argv, timeout):
        done = subprocess.run(argv, check=True, text=True, timeout=timeout, stdout=subprocess.PIPE)
        return done.stdout


V3 = {'ETCDCTL_API': '3'}


def on_sqlite(setting, size, what, _is_last):
    """The embedded store: rows of the two tables."""
    with tempfile.TemporaryDirectory() as folder:
        setting.numbers('bench_stores', 'load', f'{folder}/margay.db', *map(str, size))
        runs = [setting.numbers('bench_stores', 'sync', f'sqlite:{folder}/margay.db')
                for _ in range(1 if setting.is_quick else 3)]
        best = min(runs, key=lambda run: run['took_us'])
        cells = [cell for key, scale in SCALES for cell in (f'{best[key][0] / scale:.0f}', '')]
        return [[f'SQLite, {what}', f'{best["items"][0]:.0f}', '', *cells]], []


def on_etcd(setting, size, what, is_last):
    """etcd: rows of the two tables."""
    with Etcd(quota=6 << 30) as etcd:
        put_all(etcd, list(calico_pairs(cluster_of(setting, *size))))
        ctl = ['etcdctl', '--endpoints', etcd.endpoints()]
        get = [*ctl, '--command-timeout=600s', 'get', '--prefix', '/calico/']
        ours, theirs = compared(setting, etcd.url(), lambda: run_other(setting, get, V3))
        syncs = [sync_row(f'etcd, {what}', 'etcdctl get --prefix', ours, theirs)]
        latencies = [latency_row(setting, f'etcd, {what}', etcd.url(), 'etcdctl watch',
                                 [*ctl, 'watch', '--prefix', '/calico/'], V3)] if is_last else []
        return syncs, latencies


def on_kubernetes(setting, size, what, is_last):
    """The API server: rows of the two tables."""
    with Etcd(quota=6 << 30) as etcd, KubeApiserver(etcd) as api:
        api.apply_crds()
        api.stop()  # its cache is filled at its start, as in a cluster that has run for long
        put_all(etcd, list(registry_pairs(cluster_of(setting, *size))))
        api.start()
        kubectl = [str(api.bin / 'kubectl'), '--kubeconfig', api.kubeconfig()]
        names = [*kubectl, 'get', '-A', '-o', 'name', KINDS]
        run_other(setting, names)  # so that the server has made what a kind's first question takes
        ours, theirs = compared(setting, api.url(), lambda: run_other(setting, names))
        syncs = [sync_row(f'Kubernetes API, {what}', 'kubectl get -o name', ours, theirs)]
        latencies = [latency_row(
            setting, f'Kubernetes API, {what}', api.url(), 'kubectl get --watch-only',
            [*kubectl, 'get', '-n', 'ns0', '-o', 'name', '--watch-only',
             'networksets.crd.projectcalico.org'])] if is_last else []
        return syncs, latencies


def stores(setting):
    """The text of the section."""
    sizes = [(1000, 1000)] if setting.is_quick else [(10000, 10000), (10000, 100000)]
    setting = type(setting)(HostLab(), setting.bench, setting.agent, setting.is_quick)
    syncs, latencies = [], []
    for store in (on_sqlite, on_etcd, on_kubernetes):
        for policies, pods in sizes:
            rows = store(setting, (policies, pods), f'{pods} pods, {policies} policies',
                         (policies, pods) == sizes[-1])
            syncs += rows[0]
            latencies += rows[1]
            print(*rows[0], *rows[1], sep='\n', flush=True)
    heads = ['store', 'items', 'against', 'time, ms', 'theirs', 'CPU, ms', 'theirs',
             'peak memory, MiB', 'theirs']
    return ('From nothing to everything told to the consumer, with its text; etcdctl prints all keys '
            'and values, kubectl only names. The quickest of three runs each, taking turns. Goal: half '
            'of the time of kubectl get, and memory for what is known of each item (its key, its '
            "revision, its text's hash) and 16 MiB.\n\n"
            + as_table(heads, syncs) +
            '\n\nA change, from the begin of the write until it is told, us; of the others until '
            'their line came. The same writes.\n\n'
            + as_table(['store', 'Margay', 'against', 'theirs'], latencies))


# Name on the command line, heading, function.
SECTIONS = [('stores', 'The datastores', stores)]
