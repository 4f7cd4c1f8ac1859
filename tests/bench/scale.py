"""Measurements of the policy engine at the size of a large cluster: sections of scripts/bench.

Each section is a function of a Setting that returns the text below its heading.
"""

import os
import pathlib
import re
import shutil
import subprocess

import nodes
import templates


class Setting:
    """Where the programs are, the lab, and how thorough to be."""

    def __init__(self, lab, bench, agent, is_quick):
        self.lab, self.bench, self.agent, self.is_quick = lab, pathlib.Path(bench), agent, is_quick
        self.margay = self.bench.parents[1] / 'margay'

    def numbers(self, program, *argv, timeout=900):
        """What a bench program prints: its lines as NAME: [numbers]."""
        out = self.lab.run('node', [str(self.bench / program), *argv], timeout=timeout)
        return {line.split()[0]: [float(word) for word in line.split()[1:]]
                for line in out.splitlines()}


def as_table(heads, rows):
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in [heads, ['---'] * len(heads), *rows])


def ms(values):
    return f'{values[0] / 1000:.0f}'


def us(values):
    return f'{values[0]:.0f} (p99 {values[1]:.0f})' if len(values) > 1 else f'{values[0]:.0f}'


def times(theirs, ours):
    return f'{theirs[0]:.0f} ({theirs[0] / ours[0]:.1f}x)'


def calc(setting):
    sizes = [(1000, 10000, ''), (10000, 10000, '')]
    if not setting.is_quick:
        sizes += [(1000, 100000, ''), (10000, 100000, ''), (10000, 100000, 'spread')]
    found = []
    for policies, pods, spread in sizes:
        found.append(setting.numbers('bench_calc', str(policies), str(pods), 'scan',
                                     *([spread] if spread else [])))

    def row(what, one, goal=''):
        return [what, *(one(each) for each in found), goal]

    rows = [
        row('calculation from decoded objects, ms', lambda n: ms(n['full_us']), '300'),
        row('its CPU time, ms', lambda n: ms(n['full_cpu_us'])),
        row('a scan of all pods for each selector, ms (times ours)',
            lambda n: f'{n["scan_full_us"][0] / 1000:.0f} '
                      f'({n["scan_full_us"][0] / n["full_us"][0]:.1f}x)'),
        row('decoding the same documents from JSON, ms', lambda n: ms(n['decode_us'])),
        row('resident memory, MiB', lambda n: f'{n["resident_kib"][0] / 1024:.0f}', '48'),
        row('port of a policy changed, us', lambda n: us(n['policy_port_us'])),
        row('peers of a policy changed, us', lambda n: us(n['policy_peer_us'])),
        row('a scan of all pods for one selector, us (times ours)',
            lambda n: times(n['scan_selector_us'], n['policy_peer_us'])),
        row('label of a remote pod changed, us', lambda n: us(n['remote_label_us']), '20'),
        row('a scan of all selectors for one pod, us (times ours)',
            lambda n: times(n['scan_pod_us'], n['remote_label_us'])),
        row('label of a local pod changed, us', lambda n: us(n['local_label_us'])),
        row('remote pod added, us', lambda n: us(n['pod_added_us'])),
        row('remote pod removed, us', lambda n: us(n['pod_removed_us'])),
        row('namespace relabelled (a hundredth of all pods), us',
            lambda n: us(n['namespace_label_us'])),
        row('active policies; sets; members',
            lambda n: '; '.join(f'{n[k][0]:.0f}' for k in ('active_policies', 'sets', 'members'))),
    ]
    heads = ['what', *(f'{policies} policies, {pods} pods{", few apply" if spread else ""}'
                       for policies, pods, spread in sizes), 'goal']
    return ('Alone, without kernel and store: decoded objects in, a sink that counts out. 100 of the '
            'pods are local; each policy selects one or more of them (or any pods: few apply). '
            'The scan must find the same '
            'members (with 20 million matches or more: of so many selectors, the time made that of all).\n\n' + as_table(heads, rows))


def sets(setting):
    rounds = '20' if setting.is_quick else '200'
    rows = []
    for policies in (0, 1000) if setting.is_quick else (0, 1000, 10000):
        # nft(8) takes a second a change beside 10,000 policies.
        n = setting.numbers('bench_sets', '100000', '30' if policies == 10000 else rounds,
                            str(policies))

        def row(what, key, show, goal=''):
            ours = n[f'{key}_ours_us']
            floor = n[f'{key}_floor_us']
            cells = [f'{what} beside {policies} policies', show(ours),
                     f'{show(floor)} ({floor[0] / ours[0]:.2f}x)']
            for tool in ('nft', 'ipset'):
                theirs = n.get(f'{key}_{tool}_us')
                cells.append(f'{show(theirs)} ({theirs[0] / ours[0]:.1f}x)' if theirs else '')
            rows.append([*cells, goal])

        row('100,000 members loaded, ms', 'load', ms, '1.5x floor')
        row('one member added, us', 'add', us, '300')
        row('one member removed, us', 'remove', us, '300')
    heads = ['what', 'ours', 'the same messages alone', 'nft -f', 'ipset restore', 'goal']
    return ('A set of 100,000 addresses through the dataplane, policies of a made-up cluster beside '
            'it in the same table (in nft\'s, too; ipset has none). In brackets: times ours. The '
            'kernel finds sets by walking a list of all sets of the table.\n\n'
            + as_table(heads, rows))


def load(setting):
    sizes = [(1000, 10000, ''), (10000, 100000, 'spread')]
    if not setting.is_quick:
        sizes.append((10000, 10000, ''))
    found = [setting.numbers('bench_load', str(policies), str(pods), *([spread] if spread else []))
             for policies, pods, spread in sizes]

    def row(what, key, goal='', base='load_ours_us'):
        cells = []
        for n in found:
            mine, ours = n.get(key), n[base]
            cells.append('' if not mine else
                         ms(mine) + ('' if key == base else f' ({mine[0] / ours[0]:.2f}x)'))
        return [what, *cells, goal]

    def count(what, *keys):
        return [what, *('; '.join(f'{n[key][0]:.0f}' for key in keys) for n in found), '']

    again = 'restart_ours_us'
    rows = [
        row('ours, from decoded objects to the kernel, ms', 'load_ours_us'),
        row('of that: the calculation', 'load_ours_calc_us'),
        row('of that: the kernel, reading first', 'load_ours_kernel_us', '1.5x floor'),
        row('floor: the same messages alone', 'load_floor_us', '', 'load_ours_kernel_us'),
        row('nft -f of the same ruleset', 'load_nft_ours_us'),
        row('nft -f, a chain for each policy', 'load_nft_chains_us'),
        row('ipset and iptables-legacy-restore, a chain for each policy', 'load_legacy_us'),
        row('ipset and iptables-nft-restore, a chain for each policy', 'load_nft_us'),
        row('ours, a restart: calculated, read back, compared, ms', again, '400', again),
        row('of that: the kernel', 'restart_ours_kernel_us', '', again),
        row('nft list ruleset of ours', 'read_nft_ours_us', '', again),
        row('nft list ruleset, a chain for each policy', 'read_nft_chains_us', '', again),
        row('iptables-legacy-save and ipset save', 'read_legacy_us', '', again),
        row('iptables-nft-save and ipset save', 'read_nft_us', '', again),
        count('messages written by the restart', 'restart_messages'),
        count('ours: chains; sets; members; messages; bytes', 'ours_chains', 'ours_sets',
              'ours_members', 'ours_messages', 'ours_bytes'),
        count('a chain for each policy: chains; rules; sets; members', 'chains_chains',
              'chains_rules', 'chains_sets', 'chains_members'),
    ]
    heads = ['what', *(f'{policies} policies, {pods} pods{", few apply" if spread else ""}'
                       for policies, pods, spread in sizes), 'goal']
    return ('Everything at once into an empty kernel, and a restart. The tools calculate nothing: '
            'their files are made before. In brackets: times ours of the same block of rows.\n\n'
            + as_table(heads, rows))


def store(setting):
    rounds = '20' if setting.is_quick else '100'
    agent = setting.agent(setting.lab, 'node')
    agent.start()
    rows = []
    for size in (300, 2000):
        n = setting.numbers('bench_store', rounds, str(size), agent.socket)

        def cell(name):
            rate, middle, p99 = n[name]
            return f'{rate:.0f} ({rate / n["sqlite"][0]:.2f}x); {middle:.0f}; {p99:.0f}'

        rows.append([f'{size} bytes', *(cell(name) for name in ('store', 'agent', 'sqlite')),
                     '0.9x of SQLite'])
    agent.stop()
    shutil.rmtree(agent.state)
    heads = ['value', 'ours', "through the agent's socket", 'SQLite alone', 'goal']
    return ('Compare-and-swap transactions, one at a time, each durable when it returns (WAL, '
            'synchronous=FULL): transactions a second (times SQLite); median us; 99th percentile. '
            'Ours writes the item and its change for watchers.\n\n' + as_table(heads, rows))


class World:
    """A made-up cluster in an agent's store, and the agent's own account."""

    def __init__(self, setting, policies, pods, spread=''):
        self.setting, self.size = setting, [str(policies), str(pods)]
        self.agent = setting.agent(setting.lab, 'node')
        setting.lab.run('node', [str(setting.bench / 'bench_churn'),
                                 f'sqlite:{self.agent.state}/margay.db', 'load', *self.size,
                                 *([spread] if spread else [])], timeout=300)

    def start(self):
        """Until the kernel has everything; the agent's status."""
        self.agent.start()
        self.agent.call('status', '--wait', '--timeout', '240s')
        return self.agent.status()

    def churn(self, rate, seconds):
        return self.setting.numbers('bench_churn', self.agent.socket, 'run', *self.size, str(rate),
                                    str(seconds), timeout=seconds * 4 + 300)

    def cpu_s(self):
        pid = self.agent.status()['pid']
        words = pathlib.Path(f'/proc/{pid}/stat').read_text(encoding='ascii').rsplit(')', 1)[1].split()
        return (int(words[11]) + int(words[12])) / os.sysconf('SC_CLK_TCK')

    def end(self):
        self.agent.stop()
        self.setting.lab.run('node', ['nft', 'flush', 'ruleset'])
        shutil.rmtree(self.agent.state)


def churn(setting):
    seconds = 10 if setting.is_quick else 60
    sizes = [(200, 5000, 1000), (1000, 10000, 1000)]
    rows = []
    for policies, pods, rate in sizes:
        world = World(setting, policies, pods)
        world.start()
        before, rss = world.cpu_s(), world.agent.rss_mib()
        n = world.churn(rate, seconds)
        cpu, grown = world.cpu_s() - before, world.agent.rss_mib()
        world.agent.stop()
        again = world.start()
        middle, p99, p999, most = n['latency_us']
        samples, missed = n['samples']
        rows.append([f'{policies} policies, {pods} pods', f'{n["changes_a_second"][0]:.0f}',
                     f'{middle / 1000:.2f}', f'{p99 / 1000:.1f}', f'{p999 / 1000:.1f}',
                     f'{most / 1000:.1f}', f'{samples:.0f}; {missed:.0f}',
                     f'{100 * cpu / seconds:.0f} %', f'{rss:.0f}; {grown:.0f}',
                     str(again['transactions'])])
        world.end()
    heads = ['cluster', 'changes a second', 'median, ms', 'p99', 'p99.9', 'longest',
             'waited for; not, as too many were waiting', 'CPU of one core', 'MiB before; after',
             'transactions of a restart after it']
    return (f'1,000 changes a second for {seconds} s through the socket of a running agent, from '
            'when the change was due until the kernel had it; of pods (16 of 20: labels, come, go), '
            'policies (ports, peers, come, go), local pods\' labels, namespaces\' labels. A restart '
            'that writes nothing: the kernel was left as a calculation from scratch wants it.\n\n'
            + as_table(heads, rows))


def memory(setting):
    sizes = [(200, 10000, ''), (10000, 100000, 'spread')]
    if not setting.is_quick:
        sizes.append((10000, 100000, ''))
    rows = []
    for policies, pods, spread in sizes:
        world = World(setting, policies, pods, spread)
        first = world.start()
        rss = world.agent.rss_mib()
        world.agent.stop()
        again = world.start()
        rows.append([f'{policies} policies, {pods} pods{", few apply" if spread else ""}',
                     f'{rss:.0f}', f'{world.agent.rss_mib():.0f}', f'{first["readyUs"] / 1000:.0f}',
                     f'{again["readyUs"] / 1000:.0f}; {again["transactions"]}',
                     '48' if pods == 100000 else ''])
        world.end()
    heads = ['cluster', 'resident, MiB', 'after a restart, MiB', 'start to ready, ms',
             'restart to ready, ms; transactions', 'goal, MiB']
    return ('`margay node` with everything in its embedded store; 100 of the pods are local.\n\n'
            + as_table(heads, rows))


# Name on the command line, heading, function.
SECTIONS = [
    ('calc', 'The calculation', calc),
    ('sets', 'Large sets', sets),
    ('load', 'All policies at once', load),
    ('churn', 'A cluster in motion', churn),
    ('store', 'The embedded store', store),
    ('nodes', 'Many nodes', nodes.nodes),
    ('confd', 'Templates', templates.confd),
    ('memory', 'Resident memory of the agent', memory),
]


def write_section(file, heading, text):
    """Puts a section in the place of the one with the same heading, or at the end."""
    whole = file.read_text(encoding='utf-8') if file.exists() else '# Benchmarks\n'
    section = f'## {heading}\n\n{text}\n'
    old = re.compile(rf'^## {re.escape(heading)}\n.*?(?=^## |\Z)', re.MULTILINE | re.DOTALL)
    if old.search(whole):
        whole = old.sub(lambda _: section + '\n', whole, count=1).rstrip('\n') + '\n'
    else:
        whole = whole.rstrip('\n') + '\n\n' + section
    file.write_text(whole, encoding='utf-8')


def commit_of(root):
    return subprocess.run(['git', '-C', str(root), 'describe', '--always', '--dirty'],
                          capture_output=True, text=True, check=False).stdout.strip()
