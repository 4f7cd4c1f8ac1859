"""The datastores of a lab's agents: which one, how objects get into it, and what it can't take.

    with open_store('etcd', lab, 'node') as store, Agent(lab, 'node', store=store) as agent:
        agent.apply(documents)
"""

import contextlib
import json

from cluster import Etcd, KubeApiserver, Place
from lab import CommandFailed

NAMES = ('sqlite', 'etcd', 'kubernetes')


def is_kubernetes_kind(document):
    """Is it an object of Kubernetes' own?"""
    return 'projectcalico.org' not in document['apiVersion']


class EtcdStore:
    """An etcd; the agent's command line writes everything."""

    def __init__(self, etcd):
        self.etcd = etcd
        self.url = etcd.url()

    @staticmethod
    def cannot_hold(_documents):
        """Why some documents can't be in this store; '' when they can."""
        return ''

    @staticmethod
    def write(documents):
        """Writes what is not the agent's command line's to write; the rest."""
        return documents

    @staticmethod
    def remove(documents):
        """Like write."""
        return documents


class KubernetesStore:
    """An API server: kubectl writes Kubernetes' own kinds, the agent's command line Calico's."""

    def __init__(self, api, nodes):
        self.api = api
        self.url = api.url()
        api.apply([{'apiVersion': 'v1', 'kind': 'Node', 'metadata': {'name': name}}
                   for name in nodes])

    @staticmethod
    def cannot_hold(documents):
        """Kubernetes 1.20 drops what it does not know yet."""
        return 'endPort is of Kubernetes 1.21' if '"endPort"' in json.dumps(documents) else ''

    def write(self, documents):
        """kubectl apply, and the status of pods that have one; what it did not write."""
        ours = [complete(document) for document in documents if is_kubernetes_kind(document)]
        if ours:
            self.api.apply(ours)
        for document in ours:
            if document['kind'] == 'Pod' and 'status' in document:
                self.write_status(document)
        return [document for document in documents if not is_kubernetes_kind(document)]

    def write_status(self, document):
        """What a kubelet would say of a pod."""
        place = document['metadata']
        path = f'/api/v1/namespaces/{place["namespace"]}/pods/{place["name"]}'
        pod = json.loads(self.api.kubectl('get', '--raw', path))
        pod['status'].update(document['status'])
        self.api.kubectl('replace', '--raw', path + '/status', '-f', '-', stdin=json.dumps(pod))

    def remove(self, documents):
        """kubectl delete; what is not Kubernetes' own."""
        ours = [document for document in documents if is_kubernetes_kind(document)]
        if ours:
            items = json.dumps({'apiVersion': 'v1', 'kind': 'List', 'items': ours})
            self.api.kubectl('delete', '--ignore-not-found', '--force', '--grace-period=0', '-f',
                             '-', stdin=items)
        return [document for document in documents if not is_kubernetes_kind(document)]


def complete(document):
    """A document with what the API server wants beside what matters here."""
    if document['kind'] != 'Pod':
        return document
    spec = document['spec']
    return {**document, 'spec': {**spec, 'containers': [
        {'image': 'none', **container} for container in spec['containers']]}}


@contextlib.contextmanager
def open_store(name, lab, node, nodes=('n1',), address='127.0.0.1', **etcd_options):
    """A store in a namespace of the lab; None for the embedded one."""
    if name not in NAMES:
        raise CommandFailed(f'no store is called "{name}": one of {", ".join(NAMES)}')
    if name == 'sqlite':
        yield None
        return
    with Etcd(Place(lab, node), address=address, **etcd_options) as etcd:
        if name == 'etcd':
            yield EtcdStore(etcd)
            return
        with KubeApiserver(etcd, address=address) as api:
            api.apply_crds()
            yield KubernetesStore(api, nodes)
