#!/usr/bin/python3
"""What the agent notes at its own Node of the Kubernetes API: the pool that the cluster gets, and whether
pods can have network there."""

import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent  # noqa: E402
from lab import Lab  # noqa: E402
from stores import open_store  # noqa: E402

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
            with Agent(lab, 'node', 'n1', store=store) as agent:
                until(is_up)
                store.api.server.process.kill()
                store.api.server.process.wait()
                begin = time.monotonic()
            took = time.monotonic() - begin
            assert took < 15, took
            print('ok: without an API server it ends all the same')
    return 0


if __name__ == '__main__':
    sys.exit(main())
