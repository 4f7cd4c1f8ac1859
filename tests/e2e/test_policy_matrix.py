#!/usr/bin/python3
"""Every NetworkPolicy case: what packets do under the agent is what the oracle says.

Usage: test_policy_matrix.py [STEP [OFFSET]]: every STEP-th case, from OFFSET on.
"""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent, agent_cluster, forget_connections, other_pod_object  # noqa: E402
from casebook import Topology, load_cases  # noqa: E402
from lab import Lab  # noqa: E402


def check(lab, agent, topology, case):
    """One case: apply, probe, compare, delete. Returns lines of disagreement."""
    others = [other_pod_object(pod) for pod in case.extra_pods]
    agent.apply(others + case.policies)
    forget_connections(lab, agent.node)
    lines = case.disagreements(lab.probe_matrix(topology.places(), topology.flows))
    if lines:  # a probe lost on a busy machine is no answer: ask once more
        forget_connections(lab, agent.node)
        lines = case.disagreements(lab.probe_matrix(topology.places(), topology.flows,
                                                    timeout=3.0))
    agent.delete(case.policies + others)
    agent.call('status', '--wait')
    return lines


def main(step=1, offset=0):
    topology = Topology()
    cases = list(load_cases(topology).values())[offset::step]
    failed = []
    start = time.monotonic()
    with Lab() as lab:
        lab.netns('node')
        with Agent(lab, 'node') as agent:
            agent_cluster(lab, agent, topology)
            for case in cases:
                lines = check(lab, agent, topology, case)
                if lines:
                    failed.append(case.name)
                    print(f'FAILED {case.name}: {len(lines)} disagreements')
                    print('\n'.join('    ' + line for line in lines[:8]), flush=True)
            agent.call('ipam', 'check')
    print(f'{len(cases) - len(failed)} of {len(cases)} cases agree with the oracle, '
          f'{time.monotonic() - start:.0f} s')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main(*(int(text) for text in sys.argv[1:3])))
