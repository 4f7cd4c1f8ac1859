"""Routes to the pods of many nodes: a section of scripts/bench."""


def nodes(setting):
    sizes = [100, 1000] if setting.is_quick else [100, 1000, 5000]
    found = [setting.numbers('bench_nodes', str(size), '20' if setting.is_quick else '100')
             for size in sizes]

    def row(what, one):
        return [what, *(one(each) for each in found)]

    def us(values):
        return f'{values[0]:.0f} (p99 {values[1]:.0f})'

    rows = [
        row('a node joins, us', lambda n: us(n['join_us'])),
        row('the same by ip(8) and bridge(8), us (times ours)',
            lambda n: f'{n["join_tools_us"][0]:.0f} ({n["join_tools_us"][0] / n["join_us"][0]:.0f}x)'),
        row('a node leaves, us', lambda n: us(n['leave_us'])),
        row('all nodes at once, ms', lambda n: f'{n["load_us"][0] / 1000:.1f}'),
        row('the same by ip(8) and bridge(8), ms (times ours)',
            lambda n: f'{n["load_tools_us"][0] / 1000:.1f} '
                      f'({n["load_tools_us"][0] / n["load_us"][0]:.1f}x)'),
        row('a start that finds all there (no writes), ms',
            lambda n: f'{n["restart_us"][0] / 1000:.1f}'),
        row('memory for it, MiB', lambda n: f'{n["resident_kib"][0] / 1024:.1f}'),
    ]
    table = [['what', *(f'{size} nodes' for size in sizes)], *rows]
    lines = ['| ' + ' | '.join(row) + ' |' for row in table]
    lines.insert(1, '| ' + ' | '.join('---' for _ in table[0]) + ' |')
    return ('VXLAN, a block for each node: its route, neighbour and forwarding entry, from what the datastore says '
            'to the kernel.\n\n' + '\n'.join(lines))
