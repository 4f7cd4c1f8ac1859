#!/usr/bin/python3
"""What the agent does with the Kubernetes API beside following it: it notes at its own Node whether pods
can have network there, takes the cluster's pool, keeps the token of margay-kubeconfig valid, and follows
the rates and labels of running pods."""

import base64
import json
import os
import pathlib
import re
import shutil
import stat
import sys
import tempfile
import time

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent  # noqa: E402
from lab import CommandFailed, Lab  # noqa: E402
from stores import open_store  # noqa: E402
from test_cni_life import Node  # noqa: E402

KUBEADM = {'apiVersion': 'v1', 'kind': 'ConfigMap',
           'metadata': {'name': 'kubeadm-config', 'namespace': 'kube-system'},
           'data': {'ClusterConfiguration': 'networking:\n  podSubnet: 10.55.0.0/16\n'
                                            '  serviceSubnet: 10.96.0.0/12\n'}}


def until(what, timeout=60):
    """Polls until what() is true."""
    end = time.monotonic() + timeout
    while not what():
        if time.monotonic() > end:
            raise AssertionError(f'not so within {timeout} s: {what.__doc__}')
        time.sleep(0.2)


def whoami(api, kubeconfig):
    """Whom the API server takes the bearer for: what it may not do says it."""
    try:
        api.place.run([str(api.bin / 'kubectl'), '--kubeconfig', str(kubeconfig), 'get', 'nodes'],
                      env={'HOME': str(api.folder)})
    except CommandFailed as error:
        found = re.search(r'User "([^"]+)" cannot list', str(error))
        return found.group(1) if found else str(error)
    return 'somebody who may list nodes'


def tokens(lab, store):
    """The kubeconfig for others: a token of the plugin's own account, written anew again and again."""
    account = 'system:serviceaccount:kube-system:calico-cni-plugin'
    with tempfile.TemporaryDirectory(prefix='margay-net-') as folder:
        net, sa = pathlib.Path(folder, 'net.d'), pathlib.Path(folder, 'sa')
        net.mkdir()
        sa.mkdir()
        kubeconfig = net / 'margay-kubeconfig'
        agent = Agent(lab, 'node', 'n1', store=store)
        agent.environment = {'CALICO_MANAGE_CNI': 'true', 'CNI_NET_DIR': str(net), 'MARGAY_TOKEN_DIR': str(sa),
                             'CNI_TOKEN_REFRESH_INTERVAL': '1s'}
        with agent:
            until(lambda: 'token_not_renewed' in agent.log.read_text())  # there is no such account yet
            assert not kubeconfig.exists() and 'calico-cni-plugin' in agent.log.read_text()
            store.api.apply([{'apiVersion': 'v1', 'kind': 'ServiceAccount', 'metadata': {
                'name': 'calico-cni-plugin', 'namespace': 'kube-system'}}])
            until(kubeconfig.exists)
            assert whoami(store.api, kubeconfig) == account, whoami(store.api, kubeconfig)
            assert stat.S_IMODE(kubeconfig.stat().st_mode) == 0o600
            first = kubeconfig.read_text()
            life = jwt_of(first)['exp'] - time.time()
            assert 23.9 * 3600 < life < 24.1 * 3600, life
            until(lambda: kubeconfig.read_text() != first)  # after 5 s, the least there is
            assert whoami(store.api, kubeconfig) == account
        agent = Agent(lab, 'node', 'n1', store=store)
        agent.environment = {'CALICO_MANAGE_CNI': 'true', 'CNI_NET_DIR': str(net), 'MARGAY_TOKEN_DIR': str(sa),
                             'KUBECONFIG_FILE_NAME': 'other-kubeconfig'}
        with agent:
            other = net / 'other-kubeconfig'
            until(other.exists)
            again = int(re.search(r'again_in_s=(\d+)', agent.log.read_text()).group(1))
            assert 5.9 * 3600 < again < 12.1 * 3600, again
            first, inode = other.read_text(), other.stat().st_ino
            time.sleep(1.1)  # tokens are told apart by the second
            (sa / 'token').write_text('renewed by the kubelet')
            until(lambda: other.read_text() != first)
            assert other.stat().st_ino != inode, 'written in place'
            assert sorted(os.listdir(net)) == ['margay-kubeconfig', 'other-kubeconfig'], os.listdir(net)
        agent = Agent(lab, 'node', 'n1', store=store)
        agent.environment = {'CALICO_MANAGE_CNI': 'true', 'CNI_TOKEN_REFRESH_INTERVAL': 'often'}
        agent.start(wait=False)
        assert agent.process.wait(60) == 1, agent.log.read_text()
        assert 'CNI_TOKEN_REFRESH_INTERVAL: found "often"' in agent.log.read_text()
        shutil.rmtree(agent.state)
    print('ok: tokens for the plugin\'s account, renewed')


def jwt_of(kubeconfig):
    """What the token of a kubeconfig says."""
    body = yaml.safe_load(kubeconfig)['users'][0]['user']['token'].split('.')[1]
    return json.loads(base64.urlsafe_b64decode(body + '=' * (-len(body) % 4)))


def running_pod(lab, store, agent):
    """Annotations and labels of a pod that runs are followed: rates in tc, and who its policies select."""
    lab.netns('pod')
    key = 'qos.projectcalico.org/ingressBandwidth'
    pod = {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {
        'name': 'p', 'namespace': 'default', 'annotations': {key: '8M'}, 'labels': {'app': 'a'}},
        'spec': {'nodeName': 'n1', 'containers': [{'name': 'main'}]}}
    pool = {'apiVersion': 'projectcalico.org/v3', 'kind': 'IPPool', 'metadata': {'name': 'p'},
            'spec': {'cidr': '10.66.0.0/16'}}
    agent.apply([pool, pod])
    node = Node(lab, agent)
    args = {'args': 'K8S_POD_NAMESPACE=default;K8S_POD_NAME=p'}
    link = node.must('ADD', 'c', 'pod', **args)['interfaces'][0]['name']
    index = json.loads(lab.run('node', ['ip', '-j', 'link', 'show', link]))[0]['ifindex']

    def rate():
        """Bytes a second."""
        seen = json.loads(lab.run('node', ['tc', '-j', 'qdisc', 'show', 'dev', link]))
        return [q['options']['rate'] for q in seen if q['kind'] == 'tbf']

    def change(*argv):
        store.api.kubectl(*argv[:1], 'pod', '-n', 'default', 'p', '--overwrite', *argv[1:])

    assert rate() == [1_000_000], rate()
    change('annotate', f'{key}=16M')
    until(lambda: rate() == [2_000_000])
    agent.kill()
    change('annotate', f'{key}=24M')  # while there is no agent
    agent.start()
    until(lambda: rate() == [3_000_000])
    change('annotate', f'{key}-')
    until(lambda: rate() == [])
    assert json.loads(lab.run('node', ['ip', '-j', 'link', 'show', link]))[0]['ifindex'] == index
    change('label', 'app=b')

    def is_followed():
        """the endpoint has the label, in the store and in the agent"""
        return json.loads(agent.call('get', 'workloadendpoint', '-n', 'default', '-o', 'json'))[
            'items'][0]['metadata']['labels']['app'] == 'b'

    until(is_followed)
    node.must('DEL', 'c', 'pod', **args)
    print('ok: rates and labels of a running pod')


def main():
    with Lab() as lab:
        lab.netns('node')
        lab.netns('peer')
        lab.link('node', 'eth0', 'peer', 'eth0')
        lab.batch('node', ['address add 192.168.7.1/24 dev eth0'])
        with open_store('kubernetes', lab, 'node') as store:
            store.api.apply([KUBEADM])

            def condition():
                node = json.loads(store.api.kubectl('get', 'node', 'n1', '-o', 'json'))
                return [(c['status'], c['reason']) for c in node['status'].get('conditions', [])
                        if c['type'] == 'NetworkUnavailable']

            def is_up():
                """schedulers are told that pods have network here"""
                return condition() == [('False', 'CalicoIsUp')]

            with Agent(lab, 'node', 'n1', default_pools=True, store=store) as agent:
                until(is_up)
                pool = json.loads(agent.call('get', 'ippool', 'default-ipv4-ippool', '-o', 'json'))
                assert pool['spec']['cidr'] == '10.55.0.0/16', pool
                info = json.loads(agent.call('get', 'clusterinformation', 'default', '-o', 'json'))
                assert set(info['spec']['clusterType'].split(',')) == {'k8s', 'kubeadm'}, info
                felix = agent.call('get', 'felixconfiguration', '-o', 'name')
                assert felix.split() == ['felixconfiguration.projectcalico.org/default'], felix
            assert condition() == [('True', 'CalicoIsDown')], condition()
            print('ok: told up, told down; kubeadm\'s pool')
            tokens(lab, store)
            with Agent(lab, 'node', 'n1', store=store) as agent:
                running_pod(lab, store, agent)
            with Agent(lab, 'node', 'n1', store=store) as agent:
                until(is_up)
                store.api.server.process.kill()
                store.api.server.process.wait()

                def is_away():
                    """STATUS says that no ADD would succeed"""
                    code, said = Node(lab, agent).call('STATUS', '', '')
                    return code and said['code'] == 50 and 'datastore' in said['msg']

                until(is_away)
                begin = time.monotonic()
            took = time.monotonic() - begin
            assert took < 15, took
            print('ok: without an API server it ends all the same')
    return 0


if __name__ == '__main__':
    sys.exit(main())
