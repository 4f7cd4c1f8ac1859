#!/usr/bin/python3
"""A thousand changes a second against a running agent: at the end the kernel has what a calculation
from scratch wants, so a restart writes nothing. Nothing here judges how long anything takes.

Usage: test_churn.py DRIVER [CHANGES_A_SECOND SECONDS]
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent  # noqa: E402
from lab import Lab  # noqa: E402

POLICIES, PODS = '100', '1000'
LISTING = ['nft', '-s', 'list', 'table', 'inet', 'margay']


def main(driver, rate='1000', seconds='5'):
    with Lab() as lab:
        lab.netns('node')
        agent = Agent(lab, 'node', 'bench')  # the local pods' node
        lab.run('node', [driver, f'sqlite:{agent.state}/margay.db', 'load', POLICIES, PODS])
        with agent:
            first = json.loads(agent.call('status', '-o', 'json'))
            print(lab.run('node', [driver, f'{agent.state}/agent.sock', 'run', POLICIES, PODS, rate,
                                   seconds], timeout=600))
            agent.call('status', '--wait', '--timeout', '120s')
            last = json.loads(agent.call('status', '-o', 'json'))
            before = lab.run('node', LISTING)
            agent.stop()
            agent.start()
            again = json.loads(agent.call('status', '-o', 'json'))
            after = lab.run('node', LISTING)
        checks = {
            'the changes were written': last['transactions'] > first['transactions'] + 100,
            'nothing was refused, nothing repaired': not last['repairs'],
            'a restart writes nothing': again['transactions'] == 0,
            'and leaves the same rules': before == after and 'chain' in before,
        }
    for name, holds in checks.items():
        print(f'{"ok" if holds else "FAILED"}: {name}')
    return 0 if all(checks.values()) else 1


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
