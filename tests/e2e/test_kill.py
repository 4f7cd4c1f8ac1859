#!/usr/bin/python3
"""kill -9 of the agent at random moments while policies change: closed stays closed, and what is
allowed and established goes on; nothing is left behind at the end.

Usage: test_kill.py [ROUNDS]
"""

import pathlib
import random
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent, agent_cluster  # noqa: E402
from casebook import Topology  # noqa: E402
from lab import CommandFailed, Lab  # noqa: E402

NETPOL = {'apiVersion': 'networking.k8s.io/v1', 'kind': 'NetworkPolicy'}
# y is closed for good; policies of z come and go.
CLOSED = [{**NETPOL, 'metadata': {'name': 'closed', 'namespace': 'y'},
           'spec': {'podSelector': {}, 'policyTypes': ['Ingress']}}]


def churn_policy(number):
    return {**NETPOL, 'metadata': {'name': f'churn{number % 5}', 'namespace': 'z'},
            'spec': {'podSelector': {'matchLabels': {'pod': 'abc'[number % 3]}},
                     'ingress': [{'from': [{'ipBlock': {'cidr': f'10.{number % 250}.0.0/16'}}],
                                  'ports': [{'port': 1 + number % 60000}]}]}}


class Watcher(threading.Thread):
    """Probes from x/a to y (must stay closed) and to x/b (must stay open) without pause."""

    def __init__(self, lab, topology):
        super().__init__()
        self.lab, self.places = lab, topology.places()
        self.is_over = False
        self.opened, self.lost, self.rounds = [], [], 0

    def run(self):
        closed = [('tcp', self.places[f'y/{pod}'][family], 80)
                  for pod in 'abc' for family in (0, 1)]
        opened = [('tcp', self.places['x/b'][family], 80) for family in (0, 1)]
        while not self.is_over:
            results = self.lab.probe('x/a', closed + opened, 0.3)
            self.opened += [r for r in results[:len(closed)] if r['state'] == 'open']
            self.lost += [r for r in results[len(closed):] if r['state'] != 'open']
            self.rounds += 1


def main(rounds=100):
    topology = Topology()
    random.seed(5)
    with Lab() as lab:
        lab.netns('node')
        with Agent(lab, 'node') as agent:
            agent_cluster(lab, agent, topology)
            agent.apply(CLOSED)
            watcher = Watcher(lab, topology)
            watcher.start()
            for number in range(rounds):
                try:
                    agent.apply([churn_policy(number * 3 + i) for i in range(3)], wait=False)
                    if number % 4 == 3:
                        agent.delete([churn_policy(number)])
                except CommandFailed as error:
                    print(f'round {number}: {error}')
                time.sleep(random.random() * 0.01)
                agent.kill()
                agent.start()
            watcher.is_over = True
            watcher.join()
            before = lab.run('node', ['nft', '-s', 'list', 'table', 'inet', 'margay'])
            agent.kill()
            agent.start()
            same = before == lab.run('node', ['nft', '-s', 'list', 'table', 'inet', 'margay'])
            writes = '"transactions": 0' in agent.call('status', '-o', 'json')
            agent.call('ipam', 'check')
    print(f'{rounds} kills, {watcher.rounds} rounds of probes: {len(watcher.opened)} got through '
          f'that should not, {len(watcher.lost)} did not that should; '
          f'a last restart {"changed nothing" if same and writes else "CHANGED THE TABLE"}')
    return 0 if not watcher.opened and not watcher.lost and same and writes else 1


if __name__ == '__main__':
    sys.exit(main(*(int(text) for text in sys.argv[1:2])))
