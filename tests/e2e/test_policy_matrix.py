#!/usr/bin/python3
"""Every NetworkPolicy case: what packets do under the agent is what the oracle says.

Usage: test_policy_matrix.py [STEP [OFFSET [STORE]]]: every STEP-th case, from OFFSET on. STORE: sqlite
(the embedded one), etcd, kubernetes (kubectl applies the objects).
"""

import contextlib
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent, agent_cluster, forget_connections, other_pod_object  # noqa: E402
from casebook import Topology, load_cases  # noqa: E402
from lab import Lab  # noqa: E402
from stores import open_store  # noqa: E402


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


def main(step=1, offset=0, store_name='sqlite'):
    topology = Topology()
    cases = list(load_cases(topology).values())[int(offset)::int(step)]
    failed, left_out = [], 0
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        lab.netns('node')
        store = stack.enter_context(open_store(store_name, lab, 'node'))
        agent = stack.enter_context(Agent(lab, 'node', store=store))
        agent_cluster(lab, agent, topology)
        ready = time.monotonic()
        for case in cases:
            why = store.cannot_hold(case.policies) if store else ''
            if why:
                left_out += 1
                print(f'left out {case.name}: {why}')
                continue
            lines = check(lab, agent, topology, case)
            if lines:
                failed.append(case.name)
                print(f'FAILED {case.name}: {len(lines)} disagreements')
                print('\n'.join('    ' + line for line in lines[:8]), flush=True)
        agent.call('ipam', 'check')
    print(f'{store_name}: {len(cases) - left_out - len(failed)} of {len(cases) - left_out} cases '
          f'agree with the oracle, {ready - start:.0f} + {time.monotonic() - ready:.0f} s')
    return 1 if failed or left_out == len(cases) else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:4]))
