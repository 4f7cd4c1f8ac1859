#!/usr/bin/python3
"""A thousand changes a second against a running agent: at the end the kernel has what a calculation
from scratch wants, so a restart writes nothing; and that calculation says of the objects that are
left what the evaluator of tests/property says. Nothing here judges how long anything takes.

Usage: test_churn.py DRIVER ENGINE [CHANGES_A_SECOND SECONDS]
"""

import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'property')]

from agent import Agent  # noqa: E402
from evaluator import World  # noqa: E402
from generate import Generator  # noqa: E402
from lab import Lab  # noqa: E402
from test_property import Engine  # noqa: E402

POLICIES, PODS = '100', '1000'
LISTING = ['nft', '-s', 'list', 'table', 'inet', 'margay']


def judged_alike(agent, engine_path):
    """Do the engine and the evaluator agree on the objects that are left?"""
    world, engine = World('bench'), Engine(engine_path, node='bench')
    for kind in ('namespaces', 'serviceaccounts', 'pods', 'workloadendpoints', 'networksets',
                 'globalnetworksets', 'tiers', 'profiles', 'networkpolicies', 'np', 'gnp'):
        for document in json.loads(agent.call('get', kind, '-A', '-o', 'json'))['items']:
            world.put(document)
            engine.tell('put', document)
    packets = Generator(random.Random(1)).packets(world, 2000)
    found = engine.verdicts(packets)
    engine.close()
    wrong = [p.wire() for p, verdict in zip(packets, found) if world.verdict(p) != verdict]
    print(f'{len(packets)} connections judged, {found.count(("Allow", "Allow"))} allowed')
    return not wrong and len(set(found)) > 1


def main(driver, engine, rate='1000', seconds='5'):
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
            alike = judged_alike(agent, engine)
        checks = {
            'the changes were written': last['transactions'] > first['transactions'] + 100,
            'nothing was refused, nothing repaired': not last['repairs'],
            'a restart writes nothing': again['transactions'] == 0,
            'and leaves the same rules': before == after and 'chain' in before,
            'the engine judges what is left as the evaluator does': alike,
        }
    for name, holds in checks.items():
        print(f'{"ok" if holds else "FAILED"}: {name}')
    return 0 if all(checks.values()) else 1


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
