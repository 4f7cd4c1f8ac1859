#!/usr/bin/python3
"""podman and containerd's ctr with our conflist: two containers reach each other, a policy cuts
them, removal leaves nothing. Root file systems are busybox; no image is fetched."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent  # noqa: E402
from lab import CommandFailed, Lab  # noqa: E402

REFERENCE = pathlib.Path('/usr/lib/cni')
DENY = {'apiVersion': 'projectcalico.org/v3', 'kind': 'GlobalNetworkPolicy',
        'metadata': {'name': 'cut'},
        'spec': {'selector': "role == 'server'", 'types': ['Ingress'],
                 'ingress': [{'action': 'Deny'}]}}


def run(lab, argv, timeout=60):
    """Run in the node's network namespace but with the machine's /sys: runc needs its cgroups."""
    done = subprocess.run(in_node(lab, argv), text=True, timeout=timeout, check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise CommandFailed(f'{argv}: {done.returncode}\n{done.stdout}{done.stderr}')
    return done.stdout


def in_node(lab, argv):
    return ['nsenter', f'--net={lab.path("node")}', *argv]


def make_rootfs(folder):
    """A root file system of busybox alone."""
    root = pathlib.Path(folder) / 'rootfs'
    for name in ('bin', 'proc', 'sys', 'dev', 'etc', 'tmp'):
        (root / name).mkdir(parents=True)
    shutil.copy('/bin/busybox', root / 'bin' / 'busybox')
    for applet in ('sh', 'ip', 'ping', 'nc', 'sleep', 'cat', 'true', 'dd', 'wc', 'mkfifo'):
        (root / 'bin' / applet).symlink_to('busybox')
    for name in ('resolv.conf', 'hosts'):
        (root / 'etc' / name).touch()
    return root


def make_cni(folder, agent, labels, bandwidth=None):
    """A folder of plugins and one with the conflist; the reference plugins are chained behind."""
    bin_dir, conf_dir = pathlib.Path(folder) / 'cni-bin', pathlib.Path(folder) / 'net.d'
    bin_dir.mkdir()
    conf_dir.mkdir()
    shutil.copy(pathlib.Path(agent.cni_bin) / 'margay-cni', bin_dir)
    shutil.copy(pathlib.Path(agent.cni_bin) / 'margay-cni', bin_dir / 'margay-ipam')
    for name in ('portmap', 'bandwidth', 'tuning', 'loopback'):
        shutil.copy(REFERENCE / name, bin_dir)
    plugins = [{'type': 'margay-cni', 'socket': f'{agent.state}/agent.sock',
                'state_dir': agent.state, 'labels': labels,
                'ipam': {'type': 'margay-ipam'}},
               {'type': 'tuning', 'sysctl': {'net.core.somaxconn': '500'}},
               {'type': 'portmap', 'capabilities': {'portMappings': True}},
               {'type': 'bandwidth', **(bandwidth or {'capabilities': {'bandwidth': True}})}]
    (conf_dir / '10-margay.conflist').write_text(json.dumps(
        {'cniVersion': '1.0.0', 'name': 'lab', 'plugins': plugins}), encoding='utf-8')
    return bin_dir, conf_dir


class Podman:
    """podman with everything of its own in one folder."""

    def __init__(self, lab, folder, bin_dir, conf_dir):
        self.lab, self.folder = lab, folder
        conf = pathlib.Path(folder) / 'containers.conf'
        conf.write_text(f'''[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{bin_dir}"]
network_config_dir = "{conf_dir}"
default_network = "lab"
''', encoding='utf-8')
        self.environment = f'CONTAINERS_CONF={conf}'

    def __call__(self, *argv):
        return run(self.lab, ['env', self.environment, 'podman', '--root', f'{self.folder}/root',
                              '--runroot', f'{self.folder}/run', '--storage-driver', 'vfs', *argv])


def endpoints(agent):
    return json.loads(agent.call('get', 'workloadendpoints', '-A', '-o', 'json'))['items']


def check(what, is_true):
    print(f'  {"ok" if is_true else "FAILED"}: {what}', flush=True)
    if not is_true:
        raise CommandFailed(what)


def pings(command, *argv):
    try:
        command(*argv)
        return True
    except CommandFailed:
        return False


def test_podman(lab, agent, folder, root):
    bin_dir, conf_dir = make_cni(folder, agent, {'role': 'server'})
    podman = Podman(lab, folder, bin_dir, conf_dir)
    start = ('--network', 'lab', '--rootfs', str(root), '/bin/sleep', '1000')
    podman('run', '-d', '--name', 'a', *start)
    podman('run', '-d', '--name', 'b', *start)
    found = endpoints(agent)
    check('podman: two endpoints', len(found) == 2)
    inspect = json.loads(podman('inspect', 'b'))[0]['NetworkSettings']['Networks']['lab']
    address = inspect['IPAddress']
    check('podman: the address is ours', any(f'{address}/32' in wep['spec']['ipNetworks']
                                             for wep in found))
    ping = ('exec', 'a', '/bin/ping', '-c', '1', '-W', '1', address)
    check('podman: containers reach each other', pings(podman, *ping))
    agent.apply([DENY])
    check('podman: a policy cuts them', not pings(podman, *ping))
    agent.delete([DENY])
    agent.call('status', '--wait')
    check('podman: and lets them again', pings(podman, *ping))
    podman('rm', '-f', '-t', '0', 'a', 'b')
    check('podman: nothing is left', not endpoints(agent))


def test_ctr(lab, agent, folder, root):
    """ctr run --cni reads /etc/cni/net.d and /opt/cni/bin: ours are bound over them."""
    bin_dir, conf_dir = pathlib.Path(folder) / 'cni-bin', pathlib.Path(folder) / 'net.d'
    sock = f'{folder}/ctrd.sock'
    config = pathlib.Path(folder) / 'containerd.toml'
    config.write_text(f'version = 2\nroot = "{folder}/ctrd"\nstate = "{folder}/ctrd-state"\n'
                      f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                      f'[grpc]\n  address = "{sock}"\n', encoding='utf-8')
    daemon = subprocess.Popen(in_node(lab, ['containerd', '--config', str(config)]),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        run_ctr(lab, agent, root, sock, bin_dir, conf_dir)
    finally:
        daemon.terminate()
        daemon.wait(10)


def wait_for_containerd(lab, sock, seconds=20):
    end = time.monotonic() + seconds
    while not pings(run, lab, ['ctr', '-a', sock, 'version']):
        if time.monotonic() > end:
            raise CommandFailed('containerd did not start')
        time.sleep(0.1)


def missing_tools(names, plugin):
    """What a runtime test needs and is not installed, as text; empty: nothing."""
    missing = [name for name in names if not shutil.which(name)]
    if not (REFERENCE / plugin).exists():
        missing.append('containernetworking-plugins')
    return ', '.join(missing)


def run_ctr(lab, agent, root, sock, bin_dir, conf_dir):
    wait_for_containerd(lab, sock)
    for path in ('/opt/cni/bin', '/etc/cni/net.d'):
        pathlib.Path(path).mkdir(parents=True, exist_ok=True)
    out = run(lab, ['unshare', '-m', '--propagation', 'private', 'sh', '-ec',
                    f'mount --bind {bin_dir} /opt/cni/bin; '
                    f'mount --bind {conf_dir} /etc/cni/net.d; '
                    f'ctr -a {sock} run --rm --cni --rootfs {root} t1 '
                    '/bin/sh -c "ip -4 addr show eth0"'])
    check('ctr: the container has an address of the pool', 'inet 192.168.' in out)
    end = time.monotonic() + 5
    while endpoints(agent) and time.monotonic() < end:
        time.sleep(0.1)
    check('ctr: nothing is left', not endpoints(agent))


def main():
    missing = missing_tools(('podman', 'containerd', 'ctr', 'runc', 'busybox'), 'portmap')
    if missing:
        print(f'skipped: not installed: {missing}')
        return 77
    with tempfile.TemporaryDirectory(prefix='mg-rt-') as folder, Lab() as lab:
        lab.netns('node')
        lab.sysctl('node', {'net.ipv4.ip_forward': 1})
        with Agent(lab, 'node', default_pools=True) as agent:
            root = make_rootfs(folder)
            test_podman(lab, agent, folder, root)
            test_ctr(lab, agent, folder, root)
            agent.call('ipam', 'check')
            pools = json.loads(agent.call('ipam', 'show', '-o', 'json'))
            check('no address is left', pools['allocations'] == 0)
    return 0


if __name__ == '__main__':
    sys.exit(main())
