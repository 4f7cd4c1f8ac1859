#!/usr/bin/python3
"""containerd's CRI with our conflist, called as the kubelet calls it: two pods reach each other, a
Kubernetes NetworkPolicy cuts them, the bandwidth plugin behind ours limits one, and stopping leaves
nothing. Images are busybox alone, made here; nothing is fetched."""

import functools
import hashlib
import importlib
import importlib.util
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent  # noqa: E402
from lab import CommandFailed, Lab  # noqa: E402
from test_runtimes import (check, in_node, make_cni, make_rootfs, missing_tools,  # noqa: E402
                           pings, run, wait_for_containerd)

IMAGE = 'lab.local/busybox:1'
NAMESPACE = {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'demo'}}
NETPOL = {'apiVersion': 'networking.k8s.io/v1', 'kind': 'NetworkPolicy',
          'metadata': {'name': 'cut', 'namespace': 'demo'},
          'spec': {'podSelector': {'matchLabels': {'app': 'server'}}, 'ingress': [
              {'from': [{'podSelector': {'matchLabels': {'app': 'friend'}}}]}]}}
RATE = 8_000_000  # bit/s
MEGABYTES = 4


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def make_image(folder, root):
    """An image archive of the root file system that sleeps."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode='w') as tar:
        tar.add(root, arcname='.')
    data = layer.getvalue()
    config = json.dumps({'architecture': 'amd64', 'os': 'linux',
                         'config': {'Entrypoint': ['/bin/sleep', '100000'], 'Env': ['PATH=/bin']},
                         'rootfs': {'type': 'layers', 'diff_ids': [
                             'sha256:' + hashlib.sha256(data).hexdigest()]}}).encode()
    path = pathlib.Path(folder) / 'image.tar'
    with tarfile.open(path, 'w') as tar:
        add(tar, 'manifest.json', json.dumps(
            [{'Config': 'config.json', 'RepoTags': [IMAGE], 'Layers': ['layer.tar']}]).encode())
        add(tar, 'config.json', config)
        add(tar, 'layer.tar', data)
    return path


class Deadlines:
    """A stub whose calls end."""

    def __init__(self, stub):
        self.stub = stub

    def __getattr__(self, name):
        return functools.partial(getattr(self.stub, name), timeout=40)


class Containerd:
    """A containerd of its own, and the kubelet's calls to it."""

    def __init__(self, lab, folder, bin_dir, conf_dir):
        self.lab, self.folder, self.sock = lab, folder, f'{folder}/cri.sock'
        config = pathlib.Path(folder) / 'cri.toml'
        config.write_text(f'''version = 2
root = "{folder}/cri"
state = "{folder}/cri-state"
[grpc]
  address = "{self.sock}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{bin_dir}"
    conf_dir = "{conf_dir}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
''', encoding='utf-8')
        self.pods = []
        self.log = open(f'{folder}/cri.log', 'wb')
        self.process = subprocess.Popen(in_node(lab, ['containerd', '--config', str(config)]),
                                        stdout=self.log, stderr=self.log)
        import grpc
        from grpc_tools import protoc
        here = pathlib.Path(__file__).resolve().parent
        protoc.main(['protoc', f'-I{here}', f'--python_out={folder}', f'--grpc_python_out={folder}',
                     str(here / 'cri.proto')])
        sys.path.insert(0, str(folder))
        self.pb = importlib.import_module('cri_pb2')
        stub = importlib.import_module('cri_pb2_grpc').RuntimeServiceStub(
            grpc.insecure_channel(f'unix://{self.sock}'))
        self.stub = Deadlines(stub)
        wait_for_containerd(lab, self.sock)

    def stop(self):
        for pod in self.pods:
            self.remove_pod(pod)
        self.process.terminate()
        self.process.wait(10)
        self.log.close()

    def is_network_ready(self):
        conditions = self.stub.Status(self.pb.Empty()).status.conditions
        return all(c.status for c in conditions if c.type == 'NetworkReady')

    def config(self, name, annotations=None):
        return self.pb.PodSandboxConfig(
            metadata=self.pb.PodSandboxMetadata(name=name, uid=f'uid-{name}', namespace='demo'),
            hostname=name, log_directory=str(self.folder), annotations=annotations or {},
            linux=self.pb.LinuxPodSandboxConfig(cgroup_parent='/margay-cri'))

    def run_pod(self, name, annotations=None):
        """Sandbox and container; their ids and the pod's address."""
        config = self.config(name, annotations)
        pod = self.stub.RunPodSandbox(self.pb.RunPodSandboxRequest(config=config)).pod_sandbox_id
        self.pods.append(pod)
        container = self.stub.CreateContainer(self.pb.CreateContainerRequest(
            pod_sandbox_id=pod, sandbox_config=config, config=self.pb.ContainerConfig(
                metadata=self.pb.ContainerMetadata(name='main'),
                image=self.pb.ImageSpec(image=IMAGE)))).container_id
        self.stub.StartContainer(self.pb.ContainerId(container_id=container))
        status = self.stub.PodSandboxStatus(self.pb.PodSandboxId(pod_sandbox_id=pod)).status
        return pod, container, status.network.ip

    def exec(self, container, *cmd):
        answer = self.stub.ExecSync(self.pb.ExecSyncRequest(container_id=container, cmd=cmd,
                                                            timeout=30))
        if answer.exit_code:
            raise CommandFailed(f'{cmd}: {answer.exit_code} {answer.stderr}')
        return answer.stdout.decode()

    def remove_pod(self, pod):
        pod = self.pb.PodSandboxId(pod_sandbox_id=pod)
        self.stub.StopPodSandbox(pod)
        self.stub.RemovePodSandbox(pod)


def pod_object(name, labels):
    return {'apiVersion': 'v1', 'kind': 'Pod',
            'metadata': {'name': name, 'namespace': 'demo', 'labels': labels},
            'spec': {'nodeName': 'n1', 'containers': [{'name': 'main'}]}}


def residue(lab, agent):
    links = json.loads(run(lab, ['ip', '-j', 'link']))
    return (sorted(x['ifname'] for x in links), run(lab, ['ip', 'route']),
            agent.call('get', 'workloadendpoints', '-A', '-o', 'name'))


def seconds_to_receive(cri, receiver, sender, address):
    """How long MEGABYTES take to the receiver; the sender has the address."""
    cri.exec(sender, '/bin/sh', '-c', f'(dd if=/dev/zero bs=1000000 count={MEGABYTES} | '
             'nc -l -p 9) </dev/null >/dev/null 2>&1 & sleep 0.3')
    start = time.monotonic()
    # An input that never ends: busybox' nc goes when its own input does.
    out = cri.exec(receiver, '/bin/sh', '-c',
                   f'mkfifo /tmp/hold; nc {address} 9 0<>/tmp/hold | wc -c')
    check(f'{out.strip()} bytes came', int(out) == MEGABYTES * 1000000)
    return time.monotonic() - start


def life(lab, agent, cri, conf_dir):
    conf = conf_dir / '10-margay.conflist'
    conf.rename(f'{conf}.away')
    wait_for(lambda: not cri.is_network_ready(), 'the network is not ready without our conflist')
    pathlib.Path(f'{conf}.away').rename(conf)
    wait_for(cri.is_network_ready, 'and is with it')
    agent.apply([NAMESPACE, pod_object('web', {'app': 'server'}), pod_object('job', {'app': 'x'})])
    before = residue(lab, agent)
    web, server, address = cri.run_pod('web')
    job, client, other = cri.run_pod('job')
    ping = (client, '/bin/ping', '-c', '1', '-W', '1', address)
    check('the pods reach each other', pings(cri.exec, *ping))
    took = seconds_to_receive(cri, server, client, other)
    least = MEGABYTES * 8e6 / RATE / 2
    check(f'the bandwidth plugin limits: {took:.1f} s for {MEGABYTES} MB', took > least)
    agent.apply([NETPOL])
    check('a policy cuts them', not pings(cri.exec, *ping))
    agent.apply([pod_object('job', {'app': 'friend'})])
    check('a label lets one in again', pings(cri.exec, *ping))
    for pod in (web, job):
        cri.remove_pod(pod)
    cri.pods.clear()
    agent.delete([NETPOL])
    agent.call('status', '--wait')
    check('nothing is left', residue(lab, agent) == before)


def wait_for(is_so, what, seconds=20):
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.1)
    check(what, is_so())


def main():
    missing = missing_tools(('containerd', 'ctr', 'runc', 'busybox'), 'bandwidth')
    missing += ''.join(f' python3-{name}' for name in ('grpc', 'grpc_tools')
                       if not importlib.util.find_spec(name))
    if missing:
        print(f'skipped: not installed: {missing}')
        return 77
    with tempfile.TemporaryDirectory(prefix='mg-cri-') as folder, Lab() as lab:
        lab.netns('node')
        lab.sysctl('node', {'net.ipv4.ip_forward': 1})
        with Agent(lab, 'node', default_pools=True) as agent:
            bin_dir, conf_dir = make_cni(
                folder, agent, {}, {'ingressRate': RATE, 'ingressBurst': RATE // 4})
            cri = Containerd(lab, folder, bin_dir, conf_dir)
            try:
                run(lab, ['ctr', '-a', cri.sock, '-n', 'k8s.io', 'images', 'import',
                          '--snapshotter', 'native', str(make_image(folder, make_rootfs(folder)))])
                life(lab, agent, cri, conf_dir)
            except BaseException:
                print(pathlib.Path(f'{folder}/cri.log').read_text()[-3000:])
                print(agent.log.read_text()[-2000:])
                raise
            finally:
                cri.stop()
                for path in pathlib.Path('/sys/fs/cgroup').glob('*/margay-cri'):
                    subprocess.run(['find', str(path), '-depth', '-type', 'd', '-exec', 'rmdir',
                                    '{}', ';'], check=False, stderr=subprocess.DEVNULL)
            agent.call('ipam', 'check')
    return 0


if __name__ == '__main__':
    sys.exit(main())
