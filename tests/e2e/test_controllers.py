#!/usr/bin/python3
"""`margay controllers` between a real Kubernetes API server and a real etcd, and on the API server
alone: kubectl writes, the objects that Calico would have made are in etcd to the letter.

Usage: test_controllers.py
"""

import contextlib
import json
import os
import pathlib
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cluster import Etcd, HOST, KubeApiserver, Server, free_ports, wait_until  # noqa: E402
from lab import CommandFailed  # noqa: E402

MARGAY = os.environ.get('MARGAY', 'build/margay')
RESOURCES = '/calico/resources/v3/projectcalico.org'

NAMESPACE = {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'shop',
                                                                   'labels': {'team': 'red'}}}
ACCOUNT = {'apiVersion': 'v1', 'kind': 'ServiceAccount',
           'metadata': {'name': 'bot', 'namespace': 'shop', 'labels': {'role': 'r'}}}
POLICY = {'apiVersion': 'networking.k8s.io/v1', 'kind': 'NetworkPolicy',
          'metadata': {'name': 'db', 'namespace': 'shop'},
          'spec': {'podSelector': {'matchLabels': {'app': 'db'}},
                   'policyTypes': ['Ingress', 'Egress'],
                   'ingress': [{'from': [{'namespaceSelector': {'matchLabels': {'team': 'red'}}}],
                                'ports': [{'port': 5432}, {'port': 5433}]}],
                   'egress': [{'to': [{'ipBlock': {'cidr': '10.0.0.0/8',
                                                   'except': ['10.1.0.0/16']}}]}]}}
POLICY_SPEC = (
    '{"tier":"default","order":1000,"ingress":[{"action":"Allow","protocol":"TCP","source":'
    '{"selector":"projectcalico.org/orchestrator == \'k8s\'","namespaceSelector":"team == \'red\'"},'
    '"destination":{"ports":["5432:5433"]}}],"egress":[{"action":"Allow","source":{},"destination":'
    '{"nets":["10.0.0.0/8"],"notNets":["10.1.0.0/16"]}}],"selector":"projectcalico.org/orchestrator'
    ' == \'k8s\' && app == \'db\'","types":["Ingress","Egress"]}')


class Controllers:
    """The program, on a datastore."""

    def __init__(self, folder, datastore, source=None, name='controllers'):
        self.status = folder / f'{name}.status'
        argv = [MARGAY, 'controllers', '--datastore', datastore, '--status-file', str(self.status)]
        argv += ['--source', source] if source else []
        self.server = Server(HOST, folder, name, argv,
                             {'ASAN_OPTIONS': 'detect_leaks=1', 'LOG_LEVEL': 'info'})

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, kind, *_):
        process, log = self.server.process, self.server.log
        if process and process.poll() is None:
            process.terminate()
            process.wait(30)
        text = log.read_text(encoding='utf-8', errors='replace')
        if kind is not None:
            print(text[-4000:])
        elif (process and process.returncode != 0) or 'Sanitizer' in text:
            code = process.returncode if process else 'kill'
            raise AssertionError(f'controllers ended with {code}:\n{text[-4000:]}')


def etcd_value(etcd, key):
    """A resource's text; '' when it is not there."""
    return etcd.ctl('get', '--print-value-only', f'{RESOURCES}/{key}').strip()


def spec_of(etcd, key):
    """Its spec, as it is written."""
    value = etcd_value(etcd, key)
    return json.dumps(json.loads(value)['spec'], separators=(',', ':')) if value else ''


def is_forgotten(etcd, revision):
    """Does etcd know no more how things were then?"""
    try:
        etcd.ctl('get', f'--rev={revision}', 'none')
    except CommandFailed as error:
        return 'compacted' in str(error)
    return False


def put_calico(url, *documents):
    """margay apply on a store."""
    HOST.run([MARGAY, 'apply', '--datastore', url, '-f', '-'],
             '\n---\n'.join(json.dumps(document) for document in documents))


def calico(kind, name, spec, namespace=None):
    """A document of projectcalico.org/v3."""
    metadata = {'name': name, **({'namespace': namespace} if namespace else {})}
    return {'apiVersion': 'projectcalico.org/v3', 'kind': kind, 'metadata': metadata, 'spec': spec}


def on_etcd(etcd, api, folder):
    """Kubernetes' objects to etcd, put back when tampered with, gone with their source."""
    port = free_ports(1)[0]
    put_calico(etcd.url(), calico('KubeControllersConfiguration', 'default', {
        'prometheusMetricsPort': port, 'etcdV3CompactionPeriod': '2s',
        'controllers': {'node': {}, 'policy': {}, 'workloadEndpoint': {}, 'serviceAccount': {},
                        'namespace': {}}}))
    api.apply([NAMESPACE, ACCOUNT, POLICY, {'apiVersion': 'v1', 'kind': 'Node',
                                            'metadata': {'name': 'n1', 'labels': {'zone': 'z'}}}])
    with Controllers(folder, etcd.url(), api.url()):
        wait_until(lambda: spec_of(etcd, 'networkpolicies/shop/knp.default.db') == POLICY_SPEC,
                   'the policy is in etcd')
        wait_until(lambda: spec_of(etcd, 'profiles/ksa.shop.bot') ==
                   '{"labelsToApply":{"pcsa.projectcalico.org/name":"bot","pcsa.role":"r"}}',
                   "the account's profile is in etcd")
        profile = spec_of(etcd, 'profiles/kns.shop')
        assert profile.startswith('{"ingress":[{"action":"Allow","source":{},"destination":{}}],'
                                  '"egress":[{"action":"Allow","source":{},"destination":{}}],'
                                  '"labelsToApply":{'), profile
        assert '"pcns.team":"red"' in profile, profile
        policy = json.loads(etcd_value(etcd, 'networkpolicies/shop/knp.default.db'))
        assert policy['metadata']['labels'] == {'projectcalico.org/tier': 'default'}, policy

        etcd.ctl('del', f'{RESOURCES}/networkpolicies/shop/knp.default.db')
        wait_until(lambda: spec_of(etcd, 'networkpolicies/shop/knp.default.db') == POLICY_SPEC,
                   'a policy that was deleted by hand is back')
        put_calico(etcd.url(), calico('Node', 'n1', {'orchRefs': [
            {'nodeName': 'n1', 'orchestrator': 'k8s'}]}))
        wait_until(lambda: '"zone":"z"' in etcd_value(etcd, 'nodes/n1'), "the node's label")
        page = urllib.request.urlopen(f'http://127.0.0.1:{port}/metrics', timeout=30).read()
        assert b'margay_controllers_leader 1' in page, page
        status = json.loads(etcd_value(etcd, 'kubecontrollersconfigurations/default'))['status']
        assert status['environmentVars'] == {'LOG_LEVEL': 'info'}, status
        assert 'loadBalancer' not in status['runningConfig']['controllers'], status

        first = etcd.revision()
        etcd.ctl('put', '/other', stdin='x')
        wait_until(lambda: is_forgotten(etcd, first), 'old revisions are forgotten', 30)

        api.kubectl('delete', 'networkpolicy', '-n', 'shop', 'db')
        api.kubectl('delete', 'serviceaccount', '-n', 'shop', 'bot')
        api.kubectl('delete', 'node', 'n1')
        wait_until(lambda: not etcd_value(etcd, 'networkpolicies/shop/knp.default.db') and
                   not etcd_value(etcd, 'profiles/ksa.shop.bot') and
                   not etcd_value(etcd, 'nodes/n1'), 'what has no source is gone')
        assert etcd_value(etcd, 'profiles/kns.shop')
    print('etcd: ok')


def elected_by_lease(etcd, folder):
    """Without Kubernetes: the record hangs on an etcd lease."""
    def holder():
        value = etcd.ctl('get', '--print-value-only', '/margay/election/controllers').strip()
        return json.loads(value)['holderIdentity'] if value else ''

    def took_over(before, within):
        start = time.monotonic()
        wait_until(lambda: holder() not in ('', before), 'another one is elected', within)
        return time.monotonic() - start

    url = etcd.url()
    with Controllers(folder, url, url, 'etcd-first') as first:
        wait_until(holder, 'one is elected')
        with Controllers(folder, url, url, 'etcd-second') as second:
            wait_until(second.status.exists, 'the second runs')
            before = holder()
            first.server.kill()
            killed = took_over(before, 60)
            before = holder()
            with Controllers(folder, url, url, 'etcd-third') as third:
                wait_until(third.status.exists, 'the third runs')
                second.server.stop()
                stopped = took_over(before, 10)
    print(f'etcd without Kubernetes: the next one {killed:.1f} s after a kill, {stopped:.1f} s after '
          'a stop: ok')


def ingress_of(api, name):
    """Addresses of a Service's status."""
    service = json.loads(api.kubectl('get', 'service', '-n', 'shop', name, '-o', 'json'))
    return [x['ip'] for x in service['status']['loadBalancer'].get('ingress', [])]


def on_kubernetes(api, folder):
    """One store: addresses of Services; two controllers, of which one works."""
    api.apply_crds()
    put_calico(api.url(), calico('IPPool', 'outside', {
        'cidr': '198.51.100.0/28', 'blockSize': 29, 'allowedUses': ['LoadBalancer'],
        'nodeSelector': 'all()', 'assignmentMode': 'Automatic'}),
        calico('KubeControllersConfiguration', 'default', {
            'prometheusMetricsPort': 0, 'controllers': {'node': {}, 'loadBalancer': {}}}))
    service = {'apiVersion': 'v1', 'kind': 'Service', 'metadata': {'name': 'web',
                                                                   'namespace': 'shop'},
               'spec': {'type': 'LoadBalancer', 'ports': [{'port': 80}]}}
    with Controllers(folder, api.url(), name='first') as first:
        api.apply([service])
        wait_until(lambda: ingress_of(api, 'web'), 'the service has an address')
        assert ingress_of(api, 'web')[0].startswith('198.51.100.'), ingress_of(api, 'web')
        with Controllers(folder, api.url(), name='second') as second:
            wait_until(lambda: second.status.exists() and
                       json.loads(second.status.read_text(encoding='utf-8'))['ready'],
                       'the second is ready')
            holder = json.loads(api.kubectl('get', 'lease', '-n', 'kube-system', 'margay-controllers',
                                            '-o', 'json'))['spec']['holderIdentity']
            first.server.kill()
            api.kubectl('delete', 'service', '-n', 'shop', 'web')
            wait_until(lambda: json.loads(api.kubectl(
                'get', 'lease', '-n', 'kube-system', 'margay-controllers', '-o',
                'json'))['spec']['holderIdentity'] not in ('', holder), 'the second takes over')
            wait_until(lambda: not json.loads(api.kubectl(
                'get', 'ipamhandles.crd.projectcalico.org', '-o', 'json'))['items'],
                'the address of the deleted service is free')
    print('kubernetes: ok')


def main():
    """Both datastores."""
    with contextlib.ExitStack() as stack:
        kube_etcd, etcd = stack.enter_context(Etcd()), stack.enter_context(Etcd())
        api = stack.enter_context(KubeApiserver(kube_etcd))
        on_etcd(etcd, api, etcd.folder)
        elected_by_lease(etcd, etcd.folder)
        on_kubernetes(api, etcd.folder)


if __name__ == '__main__':
    main()
