#!/usr/bin/python3
"""install and uninstall as a host sees them: folders of distributions, other CNIs' files, a reader in a
tight loop that must always find a valid configuration, tokens that change; and after uninstall nothing
is left: links, routes, rules, tables, settings of the kernel and files are compared before and after.

Usage: test_install.py [PART…]
"""

import contextlib
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile
import time

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent, ROOT  # noqa: E402
from lab import Lab  # noqa: E402
from stores import open_store  # noqa: E402
from test_network import until  # noqa: E402

MARGAY = os.environ.get('MARGAY', str(ROOT / 'build' / 'margay'))
CNI_BIN = os.environ.get('MARGAY_CNI_DIR', str(ROOT / 'build'))
OTHER = json.dumps({'cniVersion': '0.3.1', 'name': 'cbr0', 'plugins': [{'type': 'flannel'}]})
# What a runtime does, again and again: the first file by name, as JSON, with plugins in it. A file that
# went between listing and opening is looked for again; a folder without any file is a failure.
READER = """
import json, os, sys
path, n = sys.argv[1], 0
print('ready', flush=True)
while not os.path.exists(path + '/../stop'):
    names = sorted(x for x in os.listdir(path) if x.endswith(('.conf', '.conflist', '.json')))
    if not names:
        sys.exit(f'no configuration, after {n} looks')
    try:
        with open(f'{path}/{names[0]}') as f:
            text = f.read()
    except FileNotFoundError:
        continue
    try:
        assert json.loads(text)['plugins'][0]['type']
    except Exception as error:
        sys.exit(f'{names[0]}: {error}: {text!r}')
    n += 1
print(n)
"""


def margay(*argv, env=None, code=0, runner=()):
    """Runs the command; its output. Its exit code must be as said."""
    done = subprocess.run([*runner, MARGAY, *argv], check=False, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=120, env={**os.environ, **(env or {})})
    assert done.returncode == code, f'{argv}: exit code {done.returncode}, not {code}:\n{done.stdout}'
    return done.stdout


def tree(path):
    """All files below a folder: kind, permissions, content."""
    out = {}
    for file in sorted(pathlib.Path(path).rglob('*')):
        st = file.lstat()
        body = os.readlink(file) if stat.S_ISLNK(st.st_mode) else \
            hash(file.read_bytes()) if stat.S_ISREG(st.st_mode) else ''
        out[str(file.relative_to(path))] = (stat.filemode(st.st_mode), body)
    return out


class Host:
    """A host's file system of its own."""

    def __init__(self, *dirs):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix='margay-host-'))
        self.net = self.root / 'etc/cni/net.d'
        self.bin = self.root / 'opt/cni/bin'
        self.state = self.root / 'none'
        for name in dirs:
            (self.root / name).mkdir(parents=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.root)

    def install(self, *argv, env=None, code=0, state=None):
        """`margay install` here, without waiting for an agent unless told so."""
        wait = [] if '--wait' in argv else ['--wait', '0']
        return margay('--state-dir', str(state or self.state), 'install', '--root', str(self.root),
                      '--from', CNI_BIN, *wait, *argv, env=env, code=code)

    def uninstall(self, lab, *argv, code=0):
        """`margay uninstall` here, in a network namespace of its own."""
        return margay('--state-dir', str(self.state), 'uninstall', '--root', str(self.root), *argv,
                      code=code, runner=lab.command('empty', []))


def folders():
    """Each distribution's own; several that share theirs are one."""
    cases = (((), ['etc/cni/net.d'], ['opt/cni/bin']),
             (('etc/kubernetes', 'var/lib/k0s'), ['etc/cni/net.d'], ['opt/cni/bin']),
             (('var/lib/rancher/k3s/agent', 'var/lib/rancher/k3s/data/current/bin'),
              ['var/lib/rancher/k3s/agent/etc/cni/net.d'], ['var/lib/rancher/k3s/data/current/bin']),
             (('var/lib/rancher/k3s/agent', 'var/lib/rancher/k3s/data/cni'),
              ['var/lib/rancher/k3s/agent/etc/cni/net.d'], ['var/lib/rancher/k3s/data/cni']),
             (('var/snap/microk8s/current',), ['var/snap/microk8s/current/args/cni-network'],
              ['var/snap/microk8s/current/opt/cni/bin']))
    for dirs, nets, bins in cases:
        with Host(*dirs) as host:
            before = tree(host.root)
            said = host.install('--dry-run')
            assert '10-margay.conflist created (dry run)' in said, said
            assert tree(host.root) == before, 'a dry run wrote something'
            host.install()
            after = tree(host.root)
            for net in nets:
                conf = json.loads((host.root / net / '10-margay.conflist').read_text())
                assert conf['plugins'][0]['capabilities']['portMappings'], conf
                assert after[f'{net}/10-margay.conflist'][0] == '-rw-------'
            for place in bins:
                for name in ('margay-cni', 'margay-ipam'):
                    assert after[f'{place}/{name}'][0] == '-rwxr-xr-x', after
                    assert (host.root / place / name).read_bytes() == \
                        pathlib.Path(CNI_BIN, name).read_bytes()
            files = [name for name, (mode, _) in after.items() if mode[0] == '-']
            assert len(files) == 3, files
            said = host.install()
            assert said.count('unchanged') == 3 and tree(host.root) == after, said
    with Host('opt/cni/bin') as host:  # the reference plugin is chained where it is there
        (host.bin / 'portmap').write_text('#!/bin/sh\n')
        (host.bin / 'portmap').chmod(0o755)
        host.install()
        types = [p['type'] for p in
                 json.loads((host.net / '10-margay.conflist').read_text())['plugins']]
        assert types == ['margay-cni', 'portmap'], types
        host.install('--port-mappings', 'own')
        assert 'portmap' not in (host.net / '10-margay.conflist').read_text()


def hostile(lab):
    """Links, foreign permissions and folders where files should be."""
    with Host('etc/cni/net.d', 'opt/cni/bin') as host:
        victim = host.root / 'victim'
        victim.write_text('precious')
        (host.net / '10-margay.conflist').symlink_to(victim)
        (host.bin / 'margay-ipam').symlink_to(victim)
        shutil.copy(pathlib.Path(CNI_BIN, 'margay-cni'), host.bin / 'margay-cni')
        (host.bin / 'margay-cni').chmod(0o4755)
        host.install()
        assert victim.read_text() == 'precious'
        assert stat.S_IMODE((host.bin / 'margay-cni').lstat().st_mode) == 0o755
        assert not (host.net / '10-margay.conflist').is_symlink()
        host.uninstall(lab)
        (host.net / '10-margay.conflist').mkdir()
        assert 'is a folder' in host.install(code=1)
    with Host() as host:
        config = host.root / 'template'
        config.write_text('{"name": "n", "plugins": [{"type": "margay-cni", "mtu": __CNI_MTU__}]}')
        host.install('--network-config', str(config), env={'CNI_MTU': '1234', 'CNI_CONF_NAME': '7.conflist'})
        assert json.loads((host.net / '7.conflist').read_text())['plugins'][0]['mtu'] == 1234
        for text in ('{', '{"plugins": []}', '{"name": "n", "plugins": [{"type": "bridge"}]}'):
            config.write_text(text)
            before = tree(host.net)
            assert "can't be used" in host.install('--network-config', str(config), code=1)
            assert tree(host.net) == before
        assert 'expected' in host.install('--port-mappings', 'no', code=2)
        assert 'expected' in host.install(env={'CNI_CONF_NAME': '../x.conflist'}, code=2)
        assert 'absolute' in host.install('--cni-net-dir', 'relative', code=2)


def another_cni(lab):
    """Refused, then taken over, then given back; a reader finds a valid file all the time."""
    with Host('etc/cni/net.d') as host:
        (host.net / '05-flannel.conflist').write_text(OTHER)
        (host.net / '99-loopback.conf').write_text('{"type": "loopback"}')
        before = tree(host.root)
        said = host.install(code=1)
        assert '05-flannel.conflist (network cbr0, plugin flannel)' in said and '--takeover' in said
        assert tree(host.root) == before, 'a refused install wrote something'
        reader = subprocess.Popen([sys.executable, '-c', READER, str(host.net)], text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert reader.stdout.readline() == 'ready\n'
        for i in range(3):
            host.install('--takeover', env={'CNI_MTU': str(1400 + i)})
            assert not (host.net / '05-flannel.conflist').exists()
            for mtu in (1300, 1200):
                host.install(env={'CNI_MTU': str(mtu)})
            host.uninstall(lab)
            assert tree(host.net) == {name.split('/', 3)[-1]: v for name, v in before.items()
                                      if name.startswith('etc/cni/net.d/')}
        (host.root / 'etc/cni/stop').touch()
        out, error = reader.communicate(timeout=60)
        assert reader.returncode == 0, error
        assert int(out) > 500, f'only {out} looks'
        return f'{out.strip()} looks, each valid'


def tokens(lab):
    """--watch writes the kubeconfig anew when the token does, and what is lost."""
    with Host('etc/cni/net.d', 'sa/v1', 'sa/v2') as host:
        sa = host.root / 'sa'
        for i, text in (('v1', 'first"token'), ('v2', 'second')):
            (sa / i / 'token').write_text(text + '\n')
            (sa / i / 'ca.crt').write_text('-----BEGIN CERTIFICATE-----\nAA\n')
        (sa / '..data').symlink_to('v1')
        for name in ('token', 'ca.crt'):
            (sa / name).symlink_to(f'..data/{name}')
        env = {'KUBERNETES_SERVICE_HOST': 'fd00::1', 'KUBERNETES_SERVICE_PORT': '6443'}
        no_token = host.install('--token-dir', str(host.root), env=env, code=1)
        assert 'there is no token' in no_token, no_token
        kubeconfig = host.net / 'margay-kubeconfig'
        process = subprocess.Popen(
            [MARGAY, '--state-dir', str(host.state), 'install', '--root', str(host.root), '--from',
             CNI_BIN, '--wait', '0', '--token-dir', str(sa), '--watch'], env={**os.environ, **env},
            stdout=subprocess.PIPE, text=True)
        try:
            while process.stdout.readline() != 'watching\n':
                assert process.poll() is None
            conf = yaml.safe_load(kubeconfig.read_text())
            assert conf['clusters'][0]['cluster']['server'] == 'https://[fd00::1]:6443', conf
            assert conf['users'][0]['user']['token'] == 'first"token'
            assert stat.S_IMODE(kubeconfig.stat().st_mode) == 0o600
            named = json.loads((host.net / '10-margay.conflist').read_text())['plugins'][0]
            assert named['kubernetes']['kubeconfig'] == '/etc/cni/net.d/margay-kubeconfig', named
            assert named['policy'] == {'type': 'k8s'}
            (sa / 'new').symlink_to('v2')  # as the kubelet does it
            (sa / 'new').rename(sa / '..data')
            until(lambda: 'second' in kubeconfig.read_text())
            (host.net / '10-margay.conflist').unlink()
            until((host.net / '10-margay.conflist').exists)
            (host.bin / 'margay-cni').unlink()
            kubeconfig.unlink()
            until((host.bin / 'margay-cni').exists)
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
        host.uninstall(lab)
        assert not [name for name in tree(host.net)], tree(host.net)


def ready(lab):
    """The configuration comes last, and only when the agent answers."""
    with Host() as host:
        said = host.install('--wait', '1', code=1)
        assert 'the agent is not ready' in said, said
        assert not (host.net / '10-margay.conflist').exists()
        assert (host.bin / 'margay-cni').exists()
        with Agent(lab, 'node') as agent:
            host.install('--wait', '30', state=agent.state)
            conf = json.loads((host.net / '10-margay.conflist').read_text())
            assert conf['plugins'][0]['socket'] == f'{agent.state}/agent.sock', conf
            said = agent.lab.run('node', [
                'sh', '-c', f'{MARGAY} --state-dir {agent.state} uninstall --root {host.root} 2>&1 '
                '|| true'])
            assert 'stop it first' in said, said
            assert (host.net / '10-margay.conflist').exists()


def kernel(lab, name):
    """Everything that could be left in a network namespace."""
    out = {}
    for argv in (['ip', '-d', 'link'], ['ip', 'address'], ['ip', 'route', 'show', 'table', 'all'],
                 ['ip', '-6', 'route', 'show', 'table', 'all'], ['ip', 'rule'], ['ip', '-6', 'rule'],
                 ['ip', 'neigh', 'show', 'nud', 'permanent'], ['nft', '-s', 'list', 'ruleset'],
                 ['sysctl', '-a', '-r', r'^net\.ipv[46]\.(ip_forward|conf\.)']):
        text = lab.run(name, argv)
        out[' '.join(argv)] = sorted(line for line in text.splitlines() if 'valid_lft' not in line)
    return out


def difference(before, after):
    """What is different, for people."""
    return '\n'.join(f'{what}\n  - {sorted(set(before[what]) - set(after[what]))}\n'
                     f'  + {sorted(set(after[what]) - set(before[what]))}'
                     for what in before if after[what] != before[what])


def everything(lab):
    """Two nodes with VXLAN, pods, policy: after uninstall the second is as it was before."""
    lab.netns('a')
    lab.netns('b')
    lab.link('a', 'eth0', 'b', 'eth0')
    for number, name in enumerate(('a', 'b'), 1):
        lab.batch(name, [f'address add 10.99.0.{number}/24 dev eth0',
                         f'address add fd99::{number}/64 dev eth0 nodad'])
        lab.sysctl(name, {'net.ipv4.ip_forward': 0, 'net.ipv6.conf.all.forwarding': 0})
    lab.batch('b', ['route add 198.51.100.0/24 dev eth0 proto static',
                    'rule add from 198.51.100.7 table 77 protocol static pref 900',
                    'route add default via 10.99.0.1 table 77'])
    lab.run('b', ['nft', 'add', 'table', 'inet', 'foreign'])
    with open_store('etcd', lab, 'a', address='10.99.0.1') as store, Host('etc/cni/net.d') as host:
        (host.net / '10-calico.conflist').write_text(OTHER)
        first = Agent(lab, 'a', 'a', store=store)
        with contextlib.ExitStack() as stack:
            stack.enter_context(first)
            pool = {'apiVersion': 'projectcalico.org/v3', 'kind': 'IPPool',
                    'metadata': {'name': 'v4'}, 'spec': {'cidr': '10.80.0.0/16', 'blockSize': 28,
                                                         'vxlanMode': 'Always', 'natOutgoing': True}}
            first.apply([pool, {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'd'}}])
            lab.netns('pa')
            lab.netns('pb')
            first.call('pod', 'add', 'd/pa', '--cni-bin', CNI_BIN, '--netns', lab.path('pa'))
            before, files = kernel(lab, 'b'), tree(host.root)
            second = Agent(lab, 'b', 'b', store=store)
            host.state = second.state
            second.start()
            host.install('--takeover', '--wait', '30')
            second.call('pod', 'add', 'd/pb', '--cni-bin', str(host.bin), '--netns', lab.path('pb'))
            until(lambda: '10.80' in lab.run('b', ['ip', 'route', 'show', 'proto', '80']))
            until(lambda: 'vxlan.calico' in lab.run('b', ['ip', 'link']))
            lab.batch('b', ['rule add fwmark 0x1000 table 79 protocol 80 pref 901'])  # as WireGuard's
            until(lambda: 'tentative' not in lab.run('b', ['ip', 'address']))
            during = kernel(lab, 'b')
            changed = [what for what in before if during[what] != before[what]]
            assert len(changed) >= 7, changed  # else the comparison says nothing
            assert 'net.ipv4.ip_forward = 1' in during[list(during)[-1]]
            second.stop()
            stopped = kernel(lab, 'b')
            assert stopped == during, difference(during, stopped)
            call = ['--state-dir', second.state, 'uninstall', '--root', str(host.root)]
            runner = lab.command('b', [])
            said = margay(*call, code=1, runner=runner)
            assert '1 pods still have their network' in said, said
            said = margay(*call, '--dry-run', runner=runner)
            assert said.count('(dry run)') >= 8 and 'table inet margay removed' in said, said
            still = kernel(lab, 'b')
            assert still == during, difference(during, still)
            assert os.path.exists(second.state)
            said = margay(*call, '--force', runner=runner)
            after = kernel(lab, 'b')
            assert after == before, difference(before, after)
            files_now = tree(host.root)
            new = {name for name in files_now if files_now[name] != files.get(name)}
            assert new == {'opt', 'opt/cni', 'opt/cni/bin'}, new  # empty folders
            assert set(files) <= set(files_now)
            assert not os.path.exists(second.state)
            assert 'removed' not in margay(*call, runner=runner), 'the second time found something'


def main():
    with Lab() as lab:
        lab.netns('node')
        lab.netns('empty')
        parts = ((folders, ()), (hostile, (lab,)), (another_cni, (lab,)), (tokens, (lab,)),
                           (ready, (lab,)), (everything, (lab,)))
        for part, argv in parts:
            if sys.argv[1:] and part.__name__ not in sys.argv[1:]:
                continue
            start = time.monotonic()
            said = part(*argv)
            print(f'{part.__name__}: {time.monotonic() - start:.1f} s {said or ""}', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
