#!/usr/bin/python3
"""`margay get -w`: what is there, then each change as it comes, once, in order, of what was asked for
alone; it ends when the agent does."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from agent import Agent  # noqa: E402
from lab import Lab  # noqa: E402


def pool(name, cidr, **labels):
    return {'apiVersion': 'projectcalico.org/v3', 'kind': 'IPPool',
            'metadata': {'name': name, 'labels': labels}, 'spec': {'cidr': cidr}}


class Watch:
    """A `margay get … -w` and the lines that it prints."""

    def __init__(self, lab, agent, *argv):
        self.process = lab.spawn('node', [agent.margay, '--state-dir', agent.state, 'get', *argv],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def lines(self, n, timeout=10):
        """The next n lines; it must not take longer."""
        timer = threading.Timer(timeout, self.process.kill)
        timer.start()
        found = [self.process.stdout.readline().rstrip() for _ in range(n)]
        timer.cancel()
        return found

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=10)


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f'FAILED {what}:\nfound  {found}\nwanted {wanted}')
    print(f'ok: {what}', flush=True)


def first_words(lines):
    return [line.split()[0] if line else '' for line in lines]


def main():
    with Lab() as lab:
        lab.netns('node')
        with Agent(lab, 'node') as agent:
            agent.apply([pool('one', '10.1.0.0/16', team='a')])
            table = Watch(lab, agent, 'ippools', '-w')
            expect('what is there', first_words(table.lines(2)), ['NAME', 'one'])
            agent.apply([pool('two', '10.2.0.0/16')])
            expect('a new one', first_words(table.lines(1)), ['two'])
            agent.apply([pool('two', '10.2.0.0/16', team='b')])
            expect('a changed one', first_words(table.lines(1)), ['two'])
            agent.apply([pool('two', '10.2.0.0/16', team='b')])  # nothing new
            agent.apply([{'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': 'n'}}])
            agent.apply([pool('three', '10.3.0.0/16')])
            expect('nothing else in between', first_words(table.lines(1)), ['three'])
            agent.delete([pool('one', '10.1.0.0/16')])
            expect('one that went', first_words(table.lines(1)), ['one'])
            table.stop()

            named = Watch(lab, agent, 'ippools', 'two', '-w')
            named.lines(2)
            agent.apply([pool('three', '10.3.0.0/16', team='c'),
                         pool('two', '10.2.0.0/16', team='b', more='')])
            expect('a name alone', first_words(named.lines(1)), ['two'])
            named.stop()

            one = Watch(lab, agent, 'ippools', '-l', 'team=b', '-w', '-o', 'json')
            decoder, text = json.JSONDecoder(), ''

            def next_document():
                nonlocal text
                while True:
                    text += one.lines(1)[0] + '\n'
                    try:
                        document, end = decoder.raw_decode(text.lstrip())
                        text = text.lstrip()[end:]
                        return document
                    except json.JSONDecodeError:
                        continue

            document = next_document()
            names = [item['metadata']['name'] for item in document.get('items', [document])]
            expect('documents, by label', names, ['two'])
            agent.apply([pool('four', '10.4.0.0/16', team='b'), pool('five', '10.5.0.0/16')])
            expect('its changes', next_document()['metadata']['name'], 'four')
            agent.stop()
            _, said = one.process.communicate(timeout=10)
            expect('it ends with the agent and says so', 'watch ended' in said, True)
            expect('and fails', one.process.returncode != 0, True)
            agent.start()
    return 0


if __name__ == '__main__':
    os.environ['PYTHONUNBUFFERED'] = '1'
    sys.exit(main())
