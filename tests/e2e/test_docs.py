#!/usr/bin/python3
"""What docs/, README.md and deploy/examples show works: YAML applies cleanly, JSON is JSON with a
plugin of ours, lines of `sh` blocks exit with 0; links lead to files."""

import json
import pathlib
import re
import shlex
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import ROOT, Agent  # noqa: E402
from lab import CommandFailed, Lab  # noqa: E402

BLOCK = re.compile(r'^( *)```(\w+)\n(.*?)^ *```$', re.M | re.S)
LINK = re.compile(r'\]\(([^)#:]+)(#[^)]*)?\)')


def pages():
    return sorted([ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *ROOT.glob('docs/**/*.md')])


def blocks(language):
    """(page, text) of each fenced block of a language, without its indent."""
    for page in pages():
        for indent, found, text in BLOCK.findall(page.read_text(encoding='utf-8')):
            if found == language:
                yield page.relative_to(ROOT), re.sub(f'^{indent}', '', text, flags=re.M)


def run_line(agent, line):
    argv = shlex.split(line)
    if argv[0] == 'margay':
        return agent.call(*argv[1:])
    return agent.lab.run(agent.node, argv)


def attempts(agent):
    """(what, function) of everything that is shown."""
    for path in sorted((ROOT / 'deploy' / 'examples').glob('*.yaml')):
        yield path.relative_to(ROOT), lambda path=path: agent.call('apply', '-f', str(path))
    for page, text in blocks('yaml'):
        yield f'{page}: YAML', lambda text=text: agent.call('apply', '-f', '-', stdin=text)
    for page, text in blocks('json'):
        yield f'{page}: JSON', lambda text=text: json.loads(text)['plugins'][0]['type']
    for page, text in blocks('sh'):
        for line in text.splitlines():
            yield f'{page}: {line}', lambda line=line: run_line(agent, line)
    yield 'status --wait', lambda: agent.call('status', '--wait')


def broken_links():
    for page in pages():
        for target, _ in LINK.findall(page.read_text(encoding='utf-8')):
            if not (page.parent / target).exists():
                yield f'{page.relative_to(ROOT)}: no file {target}'


def main():
    failed = list(broken_links())
    tried = 0
    with Lab() as lab:
        lab.netns('node')
        with Agent(lab, 'node', default_pools=True) as agent:
            for what, attempt in attempts(agent):
                tried += 1
                try:
                    attempt()
                except (CommandFailed, ValueError, KeyError) as error:
                    failed.append(f'{what}: {error}')
    print(f'{tried} tried', *failed, sep='\n')
    return bool(failed) or tried < 10


if __name__ == '__main__':
    sys.exit(main())
