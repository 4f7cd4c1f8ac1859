"""A guest of qemu with Debian's newest kernel and the host's files (read-only, /run its own, where
TMPDIR is, too): for tests of what the host's kernel lacks. Without hardware virtualization: some ten seconds.

The kernel's packages are of Debian unstable, only unpacked, and kept beside the other test peers
(MARGAY_CACHE, /var/cache/margay).
"""

import lzma
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

CACHE = pathlib.Path(os.environ.get('MARGAY_CACHE', '/var/cache/margay')) / 'peers' / 'guest'
VIRTIOFSD = '/usr/lib/qemu/virtiofsd'
PROGRAMS = ('qemu-system-x86_64', 'busybox', 'cpio')
SUITE = 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ' \
    'http://deb.debian.org/debian sid main\n'
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for f in /m/*.ko; do insmod $f; done
for a in $(cat /proc/cmdline); do case $a in job=*) J=${a#job=};; esac; done
mount -t virtiofs -o ro root /newroot
for d in proc sys dev; do mount --move /$d /newroot/$d; done
mount -t tmpfs t /newroot/run; mkdir /newroot/run/netns /newroot/run/tmp
export PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/run/tmp
exec switch_root /newroot /bin/bash -c \
    "bash $J > /dev/ttyS0 2>&1; echo \\$? > /dev/ttyS1; sleep 0.1; /bin/busybox reboot -f"
"""


class Missing(Exception):
    """No guest can be had here; says why."""


def _newest(names):
    return max(names, key=lambda n: [int(x) for x in re.findall(r'\d+', n)])


def _download():
    """The kernel's packages of Debian unstable, unpacked; its folder."""
    with tempfile.TemporaryDirectory(prefix='margay-guest-') as folder:
        base = pathlib.Path(folder)
        for name in ('lists/partial', 'cache/archives/partial', 'state', 'root'):
            (base / name).mkdir(parents=True)
        (base / 'sources.list').write_text(SUITE)
        (base / 'apt.conf').write_text(
            f'Dir::Etc::sourcelist "{base}/sources.list"; Dir::Etc::sourceparts "/dev/null";\n'
            f'Dir::State "{base}/state"; Dir::State::lists "{base}/lists"; Dir::Cache "{base}/cache";\n'
            'Dir::State::status "/var/lib/dpkg/status"; APT::Sandbox::User "root";\n')

        def apt(tool, *words):
            return subprocess.run([tool, '-c', base / 'apt.conf', *words], check=True, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  cwd=base).stdout

        apt('apt-get', 'update')
        found = re.findall(r'^(linux-image-\d\S*-cloud-amd64)(?= )',
                           apt('apt-cache', 'search', '--names-only', '^linux-image-[0-9]'), re.M)
        image = _newest(found)
        depends = re.search(r'^Depends: (.*)$', apt('apt-cache', 'show', image), re.M)
        parts = re.findall(r'linux-(?:base|binary|modules)-\d\S+', depends.group(1))
        apt('apt-get', 'download', *(parts or [image]))
        for package in base.glob('*.deb'):
            subprocess.run(['dpkg-deb', '-x', package, base / 'root'], check=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        place = CACHE / image.removeprefix('linux-image-')
        if not place.exists():
            shutil.move(base / 'root', place)
        return place


def kernel():
    """Folder of an unpacked kernel. Missing."""
    lacking = [p for p in PROGRAMS if not shutil.which(p)]
    if lacking or not os.path.exists(VIRTIOFSD):
        raise Missing(f'packages qemu-system-x86 busybox-static cpio are not installed: {lacking}')
    there = list(CACHE.glob('*-cloud-amd64'))
    if there:
        return CACHE / _newest([p.name for p in there])
    try:
        return _download()
    except (subprocess.CalledProcessError, ValueError, AttributeError) as e:
        raise Missing(f'no kernel from Debian unstable: {e}') from e


def has_option(place, option):
    """Was it built with, say, CONFIG_TCP_AO?"""
    files = [*place.glob('usr/lib/modules/*/config'), *place.glob('boot/config-*')]
    return any(f'\n{option}=' in f.read_text() for f in files)


def _initramfs(place, modules, base):
    tree = base / 'tree'
    for name in ('bin', 'proc', 'sys', 'dev', 'newroot', 'm'):
        (tree / name).mkdir(parents=True)
    shutil.copy(shutil.which('busybox'), tree / 'bin' / 'busybox')
    (tree / 'init').write_text(INIT)
    (tree / 'init').chmod(0o755)
    for i, name in enumerate(modules):
        for file in place.rglob(f'{name}.ko*'):
            data = file.read_bytes()
            data = lzma.decompress(data) if file.suffix == '.xz' else data
            (tree / 'm' / f'{i:02}-{name}.ko').write_bytes(data)
    subprocess.run('find . | cpio -o -H newc --quiet > ../initramfs', shell=True, check=True,
                   cwd=tree)
    return base / 'initramfs'


def run(argv, modules=('veth',), env=None, timeout=300):
    """Runs a program in a guest: its exit status and what it wrote. modules are loaded first."""
    place = kernel()
    image = next(iter([*place.glob('usr/lib/modules/*/vmlinuz'), *place.glob('boot/vmlinuz-*')]))
    with tempfile.TemporaryDirectory(prefix='margay-guest-') as folder:
        base = pathlib.Path(folder)
        words = [*(f'{k}={v}' for k, v in (env or {}).items()), *map(str, argv)]
        (base / 'job').write_text('ip link set lo up\nexec env ' + ' '.join(
            "'" + w.replace("'", "'\\''") + "'" for w in words) + '\n')
        files = subprocess.Popen([VIRTIOFSD, f'--socket-path={base}/fs', '-o', 'source=/', '-o',
                                  'cache=always', '-o', 'sandbox=chroot'],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not (base / 'fs').exists() and files.poll() is None:
                time.sleep(0.01)
            done = subprocess.run(
                ['qemu-system-x86_64', '-accel', 'tcg', '-M', 'q35', '-cpu', 'max', '-smp', '1', '-m',
                 '512', '-object', 'memory-backend-memfd,id=m,size=512M,share=on', '-numa',
                 'node,memdev=m', '-chardev', f'socket,id=c,path={base}/fs', '-device',
                 'vhost-user-fs-pci,chardev=c,tag=root', '-nodefaults', '-no-reboot', '-display',
                 'none', '-kernel', image, '-initrd', _initramfs(place, modules, base), '-append',
                 f'console=ttyS0 quiet panic=-1 mitigations=off job={base}/job', '-serial', 'stdio',
                 '-serial', f'file:{base}/status'],
                check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=timeout)
            status = (base / 'status').read_text() if (base / 'status').exists() else ''
            code = re.search(r'\d+', status)
            return int(code.group()) if code else 255, done.stdout.decode(errors='replace')
        finally:
            files.kill()
            files.wait()
