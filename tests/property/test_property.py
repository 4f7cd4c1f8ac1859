#!/usr/bin/python3
"""The engine against an evaluator that knows only the documents, on random clusters.

    test_property.py ENGINE COMPARISONS [SEED [SECONDS]]

Each world starts random, then changes step by step; after each step random packets are judged by
both, and the engine's state is compared with what it makes of the same objects from scratch. A
difference is shrunk to the fewest objects and printed with both answers. SECONDS ends it earlier.
"""

import copy
import json
import os
import pathlib
import random
import subprocess
import sys
import time

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from evaluator import World  # noqa: E402
from generate import Generator  # noqa: E402

STEPS, PACKETS = 12, 60


class Engine:
    """The program under test; one process for each world."""

    def __init__(self, path, stderr=None, node='n1'):
        self.process = subprocess.Popen([path, '--node', node], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=stderr, text=True)

    def close(self):
        self.process.stdin.close()
        if self.process.wait(30):
            sys.exit(f'FAILED: the engine ended with {self.process.returncode}')

    def tell(self, what, document):
        self.process.stdin.write(json.dumps({what: document}) + '\n')

    def ask(self, question):
        self.process.stdin.write(json.dumps(question) + '\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit('FAILED: the engine gave no answer')
        return answer.strip()

    def verdicts(self, packets):
        words = {'A': 'Allow', 'D': 'Deny'}
        return [(words[w[0]], words[w[1]])
                for w in self.ask({'packets': [p.wire() for p in packets]}).split()]


def differs(engine_path, documents, packet):
    """Do both still disagree on a world of these documents alone?"""
    world, engine = World('n1'), Engine(engine_path, subprocess.DEVNULL)
    for document in documents:
        world.put(document)
        engine.tell('put', document)
    found = engine.verdicts([packet])[0]
    engine.close()
    return found != world.verdict(packet)


def pieces(document):
    """The document without one of its rules, labels, ports …: all ways to make it smaller."""
    def walk(node, path):
        if isinstance(node, dict):
            for key in node:
                if not path and key in ('apiVersion', 'kind'):
                    continue
                if path == ('metadata',) and key in ('name', 'namespace'):
                    continue
                yield (*path, key)
                yield from walk(node[key], (*path, key))
        elif isinstance(node, list):
            for i in range(len(node)):
                yield (*path, i)
                yield from walk(node[i], (*path, i))
    for path in walk(document, ()):
        smaller = copy.deepcopy(document)
        node = smaller
        for step in path[:-1]:
            node = node[step]
        del node[path[-1]]
        yield smaller


def shrink(engine_path, documents, packet, seconds=60):
    """The fewest objects, each as small as can be, on which both disagree."""
    end = time.monotonic() + seconds

    def still(candidate):
        try:
            return time.monotonic() < end and differs(engine_path, candidate, packet)
        except (KeyError, IndexError, TypeError, ValueError, BrokenPipeError, SystemExit):
            return False
    i = 0
    while i < len(documents):
        fewer = documents[:i] + documents[i + 1:]
        if still(fewer):
            documents = fewer
        else:
            i += 1
    changed = True
    while changed and time.monotonic() < end:
        changed = False
        for i, document in enumerate(documents):
            for smaller in pieces(document):
                if still(documents[:i] + [smaller] + documents[i + 1:]):
                    documents = documents[:i] + [smaller] + documents[i + 1:]
                    changed = True
                    break
    return documents


def fail(engine_path, seed, step, world, packet, found):
    wanted = world.verdict(packet)
    print(f'FAILED seed {seed} step {step}: {packet.wire()}: the engine says {found}, the documents '
          f'{wanted} (egress, ingress)')
    documents = list(world.objects.values())
    if differs(engine_path, documents, packet):
        documents = shrink(engine_path, documents, packet)
    else:
        print('only after the steps that led here; all objects:')
    engine = Engine(engine_path)
    for document in documents:
        engine.tell('put', document)
    print(yaml.safe_dump_all(documents))
    print('engine:', engine.ask({'why': packet.wire()}))
    sys.exit(1)


def run(engine_path, seed, limit):
    """One world; how many comparisons."""
    generator = Generator(random.Random(seed))
    world, engine = World('n1'), Engine(engine_path)
    first = generator.base() + [generator.policy(i) for i in range(generator.r.randint(1, 10))]
    done = 0
    for step in range(STEPS):
        changes = [('put', d) for d in first] if step == 0 else generator.change(world.objects)
        for what, document in changes:
            (world.put if what == 'put' else world.delete)(document)
            engine.tell(what, document)
        packets = generator.packets(world, PACKETS)
        for packet, found in zip(packets, engine.verdicts(packets)):
            if world.verdict(packet) != found:
                fail(engine_path, seed, step, world, packet, found)
        answer = engine.ask({'check': True})
        if answer != 'ok':
            both = json.loads(answer)
            print(f'FAILED seed {seed} step {step}: in steps\n{both["inSteps"]}\nfrom scratch\n'
                  f'{both["fresh"]}\nafter {changes}')
            sys.exit(1)
        done += len(packets)
        if done >= limit:
            break
    engine.close()
    return done


def main(engine_path, comparisons, seed=None, seconds=None):
    seed = int(seed) if seed else int.from_bytes(os.urandom(4), 'big')
    end = time.monotonic() + float(seconds or 1e9)
    wanted, done, first = int(comparisons), 0, seed
    while done < wanted and time.monotonic() < end:
        done += run(engine_path, seed, wanted - done)
        seed += 1
    print(f'{done} comparisons agree, seeds {first} to {seed - 1}; each step equals a calculation '
          'from scratch')
    return 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
