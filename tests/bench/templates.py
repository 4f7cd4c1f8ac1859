"""Rendering templates, ours against Go's text/template: a section of scripts/bench."""

import json
import os
import pathlib
import subprocess
import tempfile
import time

from cluster import Etcd

ROOT = pathlib.Path(__file__).resolve().parents[2]
GEN = ROOT / 'tests' / 'data' / 'confd' / 'gen'

BIRD = '''router id {{.id}};
{{- range $i, $p := .peers}}
{{- if $p.enabled}}
protocol bgp peer_{{$i}} from {{if eq $p.kind "mesh"}}mesh{{else if eq $p.kind "node"}}node{{else}}global{{end}} {
  neighbor {{$p.ip}} as {{$p.as}};
  {{- with $p.password}}
  password "{{.}}";
  {{- end}}
  {{- if gt $p.hold 0}}
  hold time {{$p.hold}};
  {{- end}}
  description "{{printf "%s (%04d) %-8s" $p.name $i $p.kind}}";
{{- range $k, $v := $p.labels}}
  # {{$k}}={{$v | printf "%q"}}
{{- end}}
}
{{- end}}
{{- end}}
'''
PROXY = '''{{define "server"}}    server {{.Key}} {{.Value | html}} weight={{len .Key}};
{{end}}{{range $name, $up := .upstreams}}upstream {{upper $name}} {
{{range $up.servers}}{{template "server" .}}{{end}}{{if and $up.backup (not $up.off)}}    backup {{index $up.names 0}};
{{end}}}
{{end}}'''


def peers(count):
    return {'id': '10.0.0.1', 'peers': [
        {'enabled': i % 10 != 0, 'kind': ('mesh', 'node', 'global')[i % 3], 'ip': f'10.0.{i // 250}.{i % 250}',
         'as': 64512 + i % 7, 'password': 'secret' if i % 4 == 0 else '', 'hold': i % 3 * 30, 'name': f'node-{i}',
         'labels': {'zone': f'z{i % 5}', 'rack': f'r{i % 40}'}} for i in range(count)]}


def upstreams(count):
    return {'upstreams': {
        f'app{i:04d}': {'servers': {'$pairs': [[f'10.1.{i % 250}.{j}', f'port<{8000 + j}>'] for j in range(5)]},
                        'backup': i % 2 == 0, 'off': i % 7 == 0, 'names': {'$strings': [f'b{i}', 'c']}}
        for i in range(count)}}


def build_go(folder):
    out = os.path.join(folder, 'gen')
    env = dict(os.environ, GOCACHE=os.path.join(folder, 'cache'), GO111MODULE='off')
    subprocess.run(['go', 'build', '-o', out, *(str(GEN / f) for f in ('main.go', 'world.go', 'bench.go'))], check=True,
                   env=env)
    return [out, 'bench']


def run(argv):
    begin = time.monotonic()
    out = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=600).stdout
    numbers = {line.split()[0]: float(line.split()[1]) for line in out.splitlines()}
    numbers['whole_us'] = (time.monotonic() - begin) * 1e6
    return numbers


def best(argv_of, rounds, turns):
    """Both programs taking turns; each one's best of each number."""
    found = [None, None]
    for _ in range(turns):
        for i, argv in enumerate(argv_of):
            numbers = run([*argv, str(rounds)])
            found[i] = numbers if found[i] is None else {k: min(v, numbers[k]) for k, v in found[i].items()}
    if found[0]['sum'] != found[1]['sum']:
        raise AssertionError('the two outputs differ')
    return found


def confd(setting):
    kinds = [('BIRD peers', BIRD, peers), ('upstreams', PROXY, upstreams)]
    sizes = [10, 1000] if setting.is_quick else [10, 1000, 10000]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        go = build_go(folder)
        for what, text, data_of in kinds:
            for count in sizes:
                files = [os.path.join(folder, name) for name in ('template', 'data')]
                pathlib.Path(files[0]).write_text(text, encoding='utf-8')
                pathlib.Path(files[1]).write_text(json.dumps(data_of(count)), encoding='utf-8')
                argv_of = [[str(setting.bench / 'bench_template'), *files], [*go, *files]]
                ours, theirs = best(argv_of, max(3, 100000 // count // (5 if setting.is_quick else 1)), 5)
                one_ours, one_theirs = best(argv_of, 1, 10)
                for name, ours_is, go_is, unit in (
                        ('rendering', ours['us'], theirs['us'], 'µs'),
                        ('peak memory, many renderings', ours['peak_kib'], theirs['peak_kib'], 'KiB'),
                        ('peak memory, one rendering', one_ours['peak_kib'], one_theirs['peak_kib'], 'KiB'),
                        ('start to output', one_ours['whole_us'], one_theirs['whole_us'], 'µs')):
                    rows.append([f'{what} × {count}: {name}, {unit}', f'{ours_is:.0f}',
                                 f'{go_is:.0f} ({go_is / max(ours_is, 1):.1f}x)'])
    heads = ['what', 'Margay', "Go's text/template"]
    table = '\n'.join('| ' + ' | '.join(row) + ' |' for row in [heads, ['---'] * 3, *rows])
    return ('The same template and data by both, taking turns; best of the turns. The least that a program on this C '
            'library takes is 1.5 MiB of peak memory. Goals: half the time, 0.3 of the memory.\n\n'
            f'{table}\n\n{latencies(setting)}')


def latency_of(setting, url, folder):
    """Milliseconds from a write to the file; the size of the confd that rendered it."""
    confdir, dest = pathlib.Path(folder) / 'confd', pathlib.Path(folder) / 'out'
    for path in (confdir / 'conf.d', confdir / 'templates'):
        path.mkdir(parents=True)
    (confdir / 'templates' / 't').write_text('{{getv "/bgp/v1/global/as_num"}}', encoding='utf-8')
    (confdir / 'conf.d' / 't.toml').write_text(
        f'[template]\nsrc = "t"\ndest = "{dest}"\nprefix = "/calico"\nkeys = ["/bgp/v1/global"]\n',
        encoding='utf-8')
    with subprocess.Popen([str(setting.margay), 'confd', '-watch', '-backend', 'calico', '-datastore', url, '-confdir',
                           str(confdir), '-log-level', 'error']) as process:
        try:
            out = subprocess.run([str(setting.bench / 'bench_confd'), url, str(dest), '5' if setting.is_quick else '30'],
                                 check=True, stdout=subprocess.PIPE, text=True, timeout=300).stdout
            status = pathlib.Path(f'/proc/{process.pid}/status').read_text(encoding='utf-8')
        finally:
            process.terminate()
    found = {line.split()[0]: [int(word) / 1000 for word in line.split()[1:]] for line in out.splitlines()}
    return found, int(status.split('VmRSS:')[1].split()[0]) / 1024


def latencies(setting):
    """Change to file, from an agent's embedded store and from etcd."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        agent = setting.agent(setting.lab, 'node')
        agent.start()
        try:
            rows.append(['the embedded store', *latency_of(setting, f'agent:{agent.socket}', folder)])
        finally:
            agent.stop()
    with tempfile.TemporaryDirectory() as folder, Etcd() as etcd:
        rows.append(['etcd', *latency_of(setting, etcd.url(), folder)])
    lines = ['| change to file latency | write alone, ms | written to rendered, ms | worst | resident, MiB |',
             '| --- | --- | --- | --- | --- |']
    lines += [f'| {what} | {found["write"][0]:.1f} | {found["latency"][0]:.1f} | {found["latency"][1]:.1f} | {mib:.1f} |'
              for what, found, mib in rows]
    return ('`margay confd -watch` renders one file anew when a BGPConfiguration changes after a quiet second; 5 ms of it '
            'are spent on waiting for more changes.\n\n' + '\n'.join(lines))
