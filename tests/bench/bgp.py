"""The BGP speaker beside BIRD and GoBGP: the same routers (bench_bgp_peers) talk to each in turn,
with the same bytes. A section of scripts/bench."""

import json
import os
import pathlib
import re
import select
import shutil
import subprocess
import tempfile
import time

from scale import as_table

ADDRESS = '10.98.0.1'
AS = 65000
PATIENCE_S = 600
LISTENING = re.compile(':00B3 0+:0000 0A')
GOBGP_MOST = 2_000_000  # routes in and out: beyond, it takes minutes and gigabytes


class Speaker:
    """A measured process: started by its configuration in the namespace `dut`."""

    name = ''

    def __init__(self, lab, folder, peers, has_kernel=False):
        self.lab, self.folder = lab, pathlib.Path(folder)
        self.process = lab.spawn('dut', self.start(peers, has_kernel), stdout=subprocess.DEVNULL,
                                 stderr=open(self.folder / 'log', 'wb'))
        self.wait_listening()

    def start(self, peers, has_kernel):
        raise NotImplementedError

    def wait_listening(self):
        end = time.monotonic() + 30
        while not any(LISTENING.search(pathlib.Path(
                f'/proc/{self.process.pid}/net/{file}').read_text()) for file in ('tcp', 'tcp6')):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f'{self.name}: {(self.folder / "log").read_text()}')
            time.sleep(0.05)

    def cpu(self):
        """Seconds, of all its threads."""
        total = 0
        for task in pathlib.Path(f'/proc/{self.process.pid}/task').iterdir():
            total += int((task / 'schedstat').read_text().split()[0])
        return total / 1e9

    def rss(self):
        text = pathlib.Path(f'/proc/{self.process.pid}/status').read_text(encoding='utf-8')
        return int(text.split('VmRSS:')[1].split()[0]) * 1024

    def settle(self):
        """Until it does nothing any more: CPU seconds."""
        last, quiet, end = self.cpu(), 0, time.monotonic() + PATIENCE_S
        while quiet < 5 and time.monotonic() < end:
            time.sleep(0.1)
            now = self.cpu()
            quiet = quiet + 1 if now - last < 0.002 else 0
            last = now
        return last

    def kernel_routes(self):
        text = pathlib.Path(f'/proc/{self.process.pid}/net/fib_triestat').read_text()
        return sum(int(line.split(':')[1]) for line in text.splitlines() if 'Prefixes:' in line)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Margay(Speaker):
    name = 'Margay'
    program = ''

    def start(self, peers, has_kernel):
        v3 = 'projectcalico.org/v3'
        docs = [{'apiVersion': v3, 'kind': 'BGPConfiguration', 'metadata': {'name': 'default'},
                 'spec': {'nodeToNodeMeshEnabled': False, 'asNumber': AS}},
                {'apiVersion': v3, 'kind': 'Node', 'metadata': {'name': 'dut'},
                 'spec': {'bgp': {'ipv4Address': f'{ADDRESS}/16'}}}]
        docs += [{'apiVersion': v3, 'kind': 'BGPPeer', 'metadata': {'name': f'p{k}'},
                  'spec': {'peerIP': f'10.98.1.{k}', 'asNumber': AS + k, 'passive': True}}
                 for k in peers]
        (self.folder / 'bgp.yaml').write_text('\n---\n'.join(json.dumps(d) for d in docs))
        return [self.program, '--run-dir', str(self.folder), 'bgp', '--config',
                str(self.folder / 'bgp.yaml'), '--node-name', 'dut',
                *([] if has_kernel else ['--no-kernel'])]


class Bird(Speaker):
    name = 'BIRD'

    def start(self, peers, has_kernel):
        kernel = 'protocol kernel { ipv4 { import none; export all; }; }\n' if has_kernel else ''
        (self.folder / 'bird.conf').write_text(
            f'router id {ADDRESS};\nprotocol device {{}}\n{kernel}' + ''.join(
                f'protocol bgp p{k} {{ local {ADDRESS} as {AS}; neighbor 10.98.1.{k} as {AS + k}; '
                'passive; error wait time 1, 2; ipv4 { import all; export all; }; }\n' for k in peers))
        return ['bird', '-f', '-c', str(self.folder / 'bird.conf'), '-s', str(self.folder / 'ctl')]


class GoBgp(Speaker):
    name = 'GoBGP'

    def start(self, peers, has_kernel):
        (self.folder / 'gobgp.toml').write_text(
            f'[global.config]\nas = {AS}\nrouter-id = "{ADDRESS}"\n'
            '[global.route-selection-options.config]\nexternal-compare-router-id = true\n'
            + ''.join(
                f'[[neighbors]]\n[neighbors.config]\nneighbor-address = "10.98.1.{k}"\n'
                f'peer-as = {AS + k}\n[neighbors.transport.config]\npassive-mode = true\n'
                '[neighbors.timers.config]\nidle-hold-time-after-reset = 1\n'
                for k in peers))
        return ['gobgpd', '-f', str(self.folder / 'gobgp.toml'), '--api-hosts', '127.0.0.1:50051',
                '--pprof-disable']

    def wait_listening(self):
        """It listens before it knows its neighbours."""
        super().wait_listening()
        self.settle()


class Slow(Exception):
    """Not done in PATIENCE_S."""


class Routers:
    """bench_bgp_peers in the namespace `peers`."""

    def __init__(self, setting, prefixes, sources, sinks, each):
        self.process = setting.lab.spawn(
            'peers', [str(setting.bench / 'bench_bgp_peers'), ADDRESS, str(AS), str(prefixes),
                      str(sources), str(sinks), str(each)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def do(self, command):
        """Seconds until all sinks are where they should be."""
        self.process.stdin.write(command + '\n')
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], PATIENCE_S)[0]:
            raise Slow
        line = self.process.stdout.readline().split()
        if line[:1] != [command]:
            raise RuntimeError(f'the routers ended at {command}')
        return float(line[1])

    def stop(self):
        self.process.kill()
        self.process.wait(30)


def measure(setting, kind, prefixes, sources, sinks, each, has_kernel=False):
    """One speaker, one load: figures by name, in seconds and bytes."""
    with tempfile.TemporaryDirectory(prefix='margay-bench-') as folder:
        os.chmod(folder, 0o755)
        speaker = kind(setting.lab, folder, range(1, sources + sinks + 1), has_kernel)
        routers = Routers(setting, prefixes, sources, sinks, each)
        found = {}
        try:
            routers.do('up')
            cpu, rss = speaker.settle(), speaker.rss()
            before = speaker.kernel_routes()
            begin = time.monotonic()
            found['in'] = routers.do('feed')
            if has_kernel:
                while speaker.kernel_routes() - before < prefixes:
                    if time.monotonic() - begin > PATIENCE_S:
                        raise RuntimeError(f'{kind.name}: routes missing in the kernel')
                    time.sleep(0.01)
                found['in'] = time.monotonic() - begin
            found['cpu'] = speaker.settle() - cpu
            found['rss'] = speaker.rss()
            found['bytes'] = (found['rss'] - rss) / (prefixes * sources)
            if sinks and not has_kernel:
                cpu = speaker.cpu()
                found['flap'] = routers.do('flap')
                found['flap cpu'] = speaker.settle() - cpu
                cpu = speaker.cpu()
                found['back'] = routers.do('back')
                found['back cpu'] = speaker.settle() - cpu
        except RuntimeError as e:
            raise RuntimeError(f'{kind.name}: {e}; {(speaker.folder / "log").read_text()}') from e
        finally:
            routers.stop()
            speaker.stop()
        return found


def measured(setting, kind, load):
    """measure, without figures when it takes too long: some do, with many routes."""
    try:
        return measure(setting, kind, *load)
    except Slow:
        return {}


def network(lab):
    lab.netns('dut')
    lab.netns('peers')
    lab.link('dut', 'eth0', 'peers', 'eth0')
    lab.batch('dut', [f'addr add {ADDRESS}/16 dev eth0'])
    lab.batch('peers', [f'addr add 10.98.1.{k}/16 dev eth0' for k in range(1, 201)])


def cell(theirs, ours, key, text, scale=1.0):
    if key not in theirs:
        return ''
    if theirs is ours:
        return text.format(theirs[key] * scale)
    return f'{text.format(theirs[key] * scale)} ({theirs[key] / max(ours[key], 1e-9):.1f}x)'


ROWS = [
    ('in', 'until all is there and passed on, s', '{:.2f}', 1.0, ''),
    ('cpu', 'CPU of that, s', '{:.2f}', 1.0, '0.7x BIRD'),
    ('bytes', 'bytes a route (resident, above idle)', '{:.0f}', 1.0, '0.7x BIRD'),
    ('rss', 'resident, MiB', '{:.0f}', 1 / (1 << 20), ''),
    ('flap', 'a source gone: known everywhere, s', '{:.2f}', 1.0, ''),
    ('flap cpu', 'CPU of that, s', '{:.2f}', 1.0, ''),
    ('back', 'it is back: known everywhere, s', '{:.2f}', 1.0, ''),
    ('back cpu', 'CPU of that, s', '{:.2f}', 1.0, ''),
]


def loads(is_quick):
    """Prefixes, sources, sinks, prefixes of a set of attributes, into the kernel too."""
    if is_quick:
        return [(10000, 1, 0, 10, False), (10000, 1, 10, 10, False), (10000, 3, 2, 10, False),
                (10000, 1, 0, 10, True)]
    most = [(n, 1, 0, each, False) for n in (100_000, 500_000, 1_000_000) for each in (n, 10)]
    most += [(100_000, 10, 0, 10, False), (1_000_000, 10, 0, 10, False)]
    most += [(n, sources, sinks, 10, False) for n in (100_000, 1_000_000)
             for sources, sinks in ((1, 10), (1, 50))]
    return most + [(100_000, 10, 10, 10, False), (100_000, 1, 0, 10, True)]


def bgp(setting):
    network(setting.lab)
    Margay.program = str(pathlib.Path(setting.bench).parents[1] / 'margay')
    kinds = [k for k, program in ((Margay, ''), (Bird, 'bird'), (GoBgp, 'gobgpd'))
             if not program or shutil.which(program)]
    rows = []
    for prefixes, sources, sinks, each, has_kernel in loads(setting.is_quick):
        most = prefixes * max(sources, sinks)
        load = (prefixes, sources, sinks, each, has_kernel)
        found = {kind: measured(setting, kind, load) for kind in kinds
                 if kind is not GoBgp or (most <= GOBGP_MOST and not has_kernel)}
        what = (f'{prefixes:,} prefixes from {sources}' + (f' to {sinks}' if sinks else '')
                + (' and the kernel' if has_kernel else '')
                + (', all alike' if each > 10 else ''))
        n_new = 0
        for key, text, form, factor, goal in ROWS:
            n_new += key in found[Margay]
            if key in found[Margay]:
                rows.append([f'{what}: {text}', *(
                    cell(found.get(kind, {}), found[Margay], key, form, factor)
                    for kind in kinds), goal])
        print(f'bgp: {what} done', *(' | '.join(row[:4]) for row in rows[-n_new:]), sep='\n  ',
              flush=True)
    text = ('Routers of our own (one process: bench_bgp_peers) announce the same prefixes to each '
            'speaker and take what it passes on; ten prefixes share a set of attributes, unless '
            'all are alike. The speakers run as their users run them: `margay bgp --config`, BIRD '
            'with `import all; export all`. In brackets: times ours. Empty: not done in ten minutes, or '
            'not tried (GoBGP beyond two million routes in or out, and the kernel).\n\n')
    return text + as_table(['what', *(kind.name for kind in kinds), 'goal'], rows)


SECTIONS = [('bgp', 'The BGP speaker', bgp)]
