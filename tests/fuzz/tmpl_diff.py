#!/usr/bin/python3
"""Random templates on random data, ours against Go's text/template: the same output and the same error.

usage: tmpl_diff.py TMPL_RUN [CASES [SEED]]; exit status 77 without Go. What is expected to differ,
because Go's newer versions do, is named in `same`.
"""

import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
GEN = ROOT / 'tests' / 'data' / 'confd' / 'gen'
CASES = ROOT / 'tests' / 'data' / 'confd' / 'templates'
KEYS = 'abcdefgh'
WORDS = ['', 'a', 'hi', 'two words', '<&"\'>', 'é☃', 'x\ny', '12', 'true', '%d', '\\', '\u200b\t', 'k1']
NUMBERS = ['0', '1', '-1', '2', '7', '42', '1.5', '-0.25', '1e3', '1e21', '1e-7', '0x1F', '0b11', '0o17', '017',
           '1_000', "'a'", "'\\n'", '.5', '3.', '9223372036854775807', '18446744073709551615', '1e100', '0x1p4']
UNARY = ['len', 'not', 'html', 'js', 'urlquery', 'upper', 'any', 'half', 'u', 'flag', 'keys', 'words', 'keyof', 'fail',
         'level', 'print', 'println', 'tagged', 'sum']
BINARY = ['eq', 'ne', 'lt', 'le', 'gt', 'ge', 'index', 'slice', 'add', 'join', 'lookup', 'pair', 'and', 'or', 'print',
          'println', 'call', 'tagged', 'sum', 'html', 'js', 'urlquery']
VERBS = 'vvvvsdqxXTtfgeGEbcoOUFpw%z'


class Generator:
    def __init__(self, seed):
        self.r = random.Random(seed)
        self.names = []
        self.in_range = 0
        self.vars = 0
        # A gentle template has few reasons to fail, so that more of it is executed.
        gentle = self.chance(.5)
        self.unary = ['print', 'println', 'html', 'js', 'urlquery', 'not', 'any', 'and', 'or'] if gentle else UNARY
        self.binary = ['print', 'println', 'and', 'or', 'html', 'js', 'urlquery', 'any'] if gentle else BINARY
        self.gentle = gentle
        self.callable = ['p', 'q', 'none'] # none calls itself: 100,000 levels are Go's gigabytes

    def pick(self, *choices):
        return self.r.choice(choices)

    def chance(self, p):
        return self.r.random() < p

    # Data

    def number(self):
        return self.pick(0, 1, -1, 3, 42, 255, 1 << 40, -(1 << 63), (1 << 63) - 1, self.r.randrange(-1000, 1000))

    def floating(self):
        return {'$float': self.pick('0', '-0', '1.5', '0.1', '1e21', '1e-7', '123456789', '100000', '1000000', 'NaN',
                                    '+Inf', '-Inf', repr(self.r.uniform(-1e6, 1e6)), repr(10 ** self.r.uniform(-300, 300)),
                                    repr(self.r.random()), '5e-324', '2.5', '0.000012345')}

    def word(self):
        return self.r.choice(WORDS)

    def value(self, depth=0):
        def words(n):
            return [self.word() for _ in range(self.r.randrange(n))]
        kinds = [self.word, self.word, self.number, self.number, self.floating, lambda: self.chance(.5), lambda: None,
                 lambda: {'$uint': self.pick(0, 7, (1 << 64) - 1)}, lambda: {'$strings': words(4)},
                 lambda: {'$ints': [self.number() for _ in range(self.r.randrange(4))]},
                 lambda: {'$mapstring': {self.pick(*KEYS): self.word() for _ in range(3)}},
                 lambda: {'$mapint': {self.pick(*KEYS): self.number() for _ in range(3)}},
                 lambda: {'$intkeyed': {str(self.r.randrange(12)): self.word() for _ in range(3)}},
                 lambda: {'$bytes': self.pick('', 'a', 'hey')}, lambda: {'$pair': [self.word(), self.word()]},
                 lambda: {'$pairs': [[self.word(), self.word()] for _ in range(self.r.randrange(3))]},
                 lambda: {'$ptr': self.pick(None, ['k', 'v'])}, lambda: {'$level': self.r.randrange(5)},
                 lambda: {'$nilstrings': 0}, lambda: {'$nilmap': 0},
                 lambda: {'$func': self.pick('add', 'upper', 'fail', 'sum', 'any')},
                 lambda: {'$floats': [1.5, 2.0, self.r.random()]}]
        if depth < 3:
            kinds += [lambda: [self.value(depth + 1) for _ in range(self.r.randrange(4))],
                      lambda: {k: self.value(depth + 1) for k in self.r.sample(KEYS, self.r.randrange(4))},
                      lambda: {'$maps': [{self.pick(*KEYS): self.value(depth + 1)} for _ in range(self.r.randrange(3))]},
                      lambda: {'$box': {'name': self.word(), 'n': self.number(), 'any': self.value(depth + 1),
                                        'list': self.pick(None, words(3)), 'next': self.pick(None, ['nk', 'nv'])}}]
        return self.r.choice(kinds)()

    def data(self):
        return self.value() if self.chance(.15) else {k: self.value() for k in KEYS}

    # Templates

    def string(self):
        w = self.word()
        if '`' not in w and self.chance(.2):
            return '`' + w + '`'
        return json.dumps(w, ensure_ascii=self.chance(.3))

    def field(self):
        if self.gentle:
            return '.' + self.pick(*KEYS)
        names = list(KEYS) * 3 + ['Key', 'Value', 'Name', 'N', 'Any', 'List', 'Inner', 'Next', 'Title', 'Bad', 'Nope']
        return ''.join('.' + self.r.choice(names) for _ in range(self.pick(1, 1, 1, 1, 2, 2, 3)))

    def variable(self):
        if self.gentle:
            return '$' + (self.field() if self.chance(.7) else '')
        name = self.pick('$', '$x', '$y', '$i', '$z') if self.chance(.3) or not self.vars else self.pick('$', '$x', '$y')
        return name + (self.field() if self.chance(.3) else '')

    def format(self):
        out = ''
        for _ in range(self.pick(0, 1, 1, 1, 2, 3)):
            out += self.pick('', '', 'x', ' ', '☃')
            flags = ''.join(self.r.sample('+-# 0', self.pick(0, 0, 0, 1, 1, 2)))
            width = self.pick('', '', '', '', '3', '8', '12', '*', '[1]', '[2]*', '[3]')
            precision = self.pick('', '', '', '', '.0', '.2', '.', '.5', '.*', '.[1]*')
            out += '%' + flags + width + precision + self.r.choice(VERBS)
        return out + self.pick('', '', '', '%', '!')

    def operand(self, depth):
        c = self.r.random()
        if depth > 0 and c < .25:
            return '(' + self.pipeline(depth - 1) + ')' + (self.field() if self.chance(.15) else '')
        if c < .55:
            return self.field()
        if c < .65:
            return '.'
        if c < .75:
            return self.variable()
        if c < .84:
            return self.string()
        if c < .95:
            return self.r.choice(NUMBERS)
        return self.pick('true', 'false', '"x"') if self.gentle else self.pick('true', 'false', 'nil', 'pairs', 'null', 'upper')

    def command(self, depth):
        c = self.r.random()
        if c < .45:
            return self.operand(depth)
        if c < .65:
            return self.r.choice(self.unary) + ' ' + self.operand(depth)
        if c < .85:
            extra = ' ' + self.operand(depth) if self.chance(.2) else ''
            return self.r.choice(self.binary) + ' ' + self.operand(depth) + ' ' + self.operand(depth) + extra
        if c < .95:
            args = ''.join(' ' + self.operand(depth) for _ in range(self.pick(0, 1, 1, 2, 3)))
            return 'printf ' + json.dumps(self.format(), ensure_ascii=False) + args
        if self.gentle:
            x, y = self.field(), self.pick('0', '1', '"a"', '.b', '-1', '1.5')
            return self.pick('len "%s"' % KEYS, 'add 1 %d' % self.r.randrange(9), 'eq %s %s' % (x, x), 'eq %s nil' % x,
                             'index . "b"', 'len ' + x, 'lt %s %s' % (x, y), 'eq %s %s' % (x, y), 'index %s %s' % (x, y),
                             'slice %s %s' % (x, y), 'words "a b"', 'pairs', 'pair "k" "v"', 'level 3', 'null')
        return self.operand(depth) + ' ' + self.operand(depth)

    def pipeline(self, depth=2):
        out = self.command(depth)
        while self.chance(.2):
            out += self.pick(' | ', '|', ' |') + self.pick(self.r.choice(self.unary), self.command(depth))
        if self.chance(.05):
            out = self.declaration() + out
        return out

    def declaration(self):
        self.vars += 1
        if self.gentle:
            return self.pick('$x', '$y', '$z') + ' := '
        return self.pick('$x', '$y', '$z') + self.pick(' := ', ' := ', ':=', ' = ')

    def text(self):
        return self.pick('', ' ', 'text', '\n', ' \n\t', '}}', '{', 'é', '- ', 'a\n b')

    def action(self, inner):
        left, right = self.pick('{{', '{{', '{{', '{{- '), self.pick('}}', '}}', '}}', ' -}}')
        return left + self.pick('', '', ' ', '\n') + inner + right

    def control(self, depth):
        c = self.r.random()
        end = self.action('end')
        other = self.action('else') + self.body(depth) if self.chance(.4) else ''
        if c < .35:
            chain = ''.join(self.action('else if ' + self.pipeline()) + self.body(depth)
                            for _ in range(self.pick(0, 0, 1, 2)))
            return self.action('if ' + self.pipeline()) + self.body(depth) + chain + other + end
        if c < .55:
            return self.action('with ' + self.pick('', '', '$x := ') + self.pipeline()) + self.body(depth) + other + end
        if c < .9:
            self.in_range += 1
            self.vars += 1
            head = self.pick('', '', '$x := ', '$i, $x := ', '$i, $y := ')
            out = self.action('range ' + head + self.pipeline()) + self.body(depth)
            self.in_range -= 1
            return out + other + end
        name = self.pick('r', 's', 't')
        return self.action('block "%s" %s' % (name, self.pipeline())) + self.body(depth) + end

    def body(self, depth):
        out = ''
        for _ in range(self.pick(0, 1, 1, 2, 3)):
            c = self.r.random()
            out += self.text()
            if c < .5:
                out += self.action(self.pipeline())
            elif c < .6:
                out += self.action(self.declaration() + self.pipeline())
            elif c < .85 and depth > 0:
                out += self.control(depth - 1)
            elif c < .9:
                out += self.action('template "%s"%s' % (self.pick(*self.callable),
                                                        self.pick('', ' ' + self.pipeline())))
            elif c < .93:
                out += self.pick('{{/* c */}}', '{{- /* c */ -}}')
            elif self.in_range and c < .98:
                out += self.action(self.pick('break', 'continue'))
            out += self.text()
        return out

    def template(self):
        out = ''
        for name in ('p', 'q'):
            self.callable = ['none'] if name == 'p' else ['p', 'none']
            if self.chance(.4):
                out += self.action('define "%s"' % name) + self.body(1) + self.action('end')
        self.callable = ['p', 'q', 'none']
        return out + self.body(3)

    def mutate(self, text):
        """Bytes changed, dropped, doubled."""
        t = bytearray(text.encode())
        for _ in range(self.pick(1, 1, 2, 4)):
            at = self.r.randrange(len(t) + 1)
            end = min(len(t), at + self.pick(1, 1, 2, 5, 12))
            choice = self.r.random()
            if choice < .3:
                del t[at:end]
            elif choice < .5:
                t[at:at] = t[at:end]
            elif choice < .8:
                t[at:at] = self.pick(b'{{', b'}}', b'(', b')', b'|', b'.', b'$', b'"', b'`', b' ', b'\n', b'-', b'end',
                                     b'else', b'\xff', b'\xc3\xa9', b',', b':=', b'=', b'1', b'x', b'/*', b"'")
            else:
                t[at:end] = bytes(self.r.randrange(256) for _ in range(end - at))
        return bytes(t)


class Server:
    def __init__(self, *argv):
        self.argv = argv
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def send(self, text, data):
        self.process.stdin.write(text.hex().encode() + b' ' + data.hex().encode() + b'\n')
        self.process.stdin.flush()

    def receive(self):
        line = self.process.stdout.readline()
        if not line:
            return None
        words = line.rstrip(b'\n').split(b' ')
        parts = [bytes.fromhex(w.decode()) for w in words[1:]]
        return (b'', parts[0]) if words[0] == b'ok' else (parts[0], parts[1])

    def stop(self):
        self.process.stdin.close()
        return self.process.wait(60)


NOT_IN_1_19 = re.compile(rb'else\s+with|range\s*\$\w*\s*(,\s*\$\w*\s*)?=')
DIGITS = re.compile(rb'[0-9a-fA-F]{6,}|[01]{12,}')


def wording(message):
    """An error in the words that Go 1.19 and its successors have in common."""
    message = message[:1000].replace(b' := ', b' = ')
    message = re.sub(rb'(incompatible types for comparison): \S.* and .*', rb'\1', message)
    message = re.sub(rb'wrong number of args for .*: got', b'wrong number of args: got', message)
    message = re.sub(rb'non-function .*of type', b'non-function of type', message)
    if b'error calling slice' in message:
        message = re.sub(rb"can't slice item of type.*|slice of nil pointer", b'no slice', message)
    return message


def same(text, data, go, ours):
    if NOT_IN_1_19.search(text) or b'complex numbers are not' in ours[0] or re.search(rb'\di\b', text):
        return True
    if re.search(rb"range can't iterate over (-?\d+|level-\d+)$", go[0]):
        return True
    if b'unexpected right paren' in ours[0] and go[0]:
        return True
    if re.search(rb'%[^%\s]*p', text):
        return True # the address of an empty list is Go's own
    if b'%' in text and re.search(rb'\$(ptr|func|box)', data): # numbers of addresses
        go, ours = [[DIGITS.sub(b'N', part) for part in x] for x in (go, ours)]
    return wording(go[0]) == wording(ours[0]) and go[1] == ours[1]


class Pair:
    def __init__(self, go, ours):
        self.go, self.ours = Server(go, 'serve'), Server(ours)

    def ask(self, text, data):
        self.go.send(text, data)
        self.ours.send(text, data)
        return self.go.receive(), self.ours.receive()

    def differs(self, text, data):
        go, ours = self.ask(text, data)
        if ours is None or go is None:
            sys.exit(f'no answer from {"us" if ours is None else "Go"}\n{text!r}\n{data!r}')
        return None if same(text, data, go, ours) else (go, ours)

    def shrink(self, text, data):
        """The shortest text found that still differs."""
        size = len(text) // 2
        while size > 0:
            at = 0
            while at < len(text):
                less = text[:at] + text[at + size:]
                if self.differs(less, data):
                    text = less
                else:
                    at += size
            size //= 2
        return text


def build_go(folder):
    if not shutil.which('go'):
        sys.exit(77)
    out = os.path.join(folder, 'gen')
    env = dict(os.environ, GOCACHE=os.environ.get('GOCACHE', os.path.join(folder, 'cache')), GOFLAGS='-mod=mod',
               GO111MODULE='off')
    subprocess.run(['go', 'build', '-o', out, *(str(GEN / f) for f in ('main.go', 'world.go', 'bench.go'))], check=True,
                   env=env)
    return out


def main():
    ours = sys.argv[1]
    n_cases = int(sys.argv[2]) if len(sys.argv) > 2 else 3000
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 32)
    print(f'seed {seed}, {n_cases} cases')
    seeds = [c['text'] for f in sorted(CASES.glob('*.json')) for c in json.loads(f.read_text('utf-8'))['cases']]
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair(build_go(folder), ours)
        n_ok = n_bad = 0
        for i in range(n_cases):
            g = Generator(seed + i)
            text = g.template() if g.chance(.75) else g.r.choice(seeds)
            text = g.mutate(text) if g.chance(.3) else text.encode()
            data = json.dumps(g.data()).encode()
            if i % 5000 == 4999:
                print(f'{i + 1} cases', flush=True)
            found = pair.differs(text, data)
            n_ok += not pair.ask(text, data)[0][0] if i % 50 == 0 else 0
            if found:
                n_bad += 1
                text = pair.shrink(text, data)
                go, we = pair.differs(text, data) or found
                print(f'--- seed {seed + i}\n{text.decode("utf-8", "backslashreplace")}\ndata {data.decode()}\nGo   {go}\n'
                      f'ours {we}', flush=True)
                if n_bad >= 20:
                    break
        status = pair.ours.stop()
        pair.go.stop()
        print(f'{n_cases} cases, {n_bad} differ; about {100 * n_ok // (n_cases // 50 + 1)} % render without error')
        sys.exit(1 if n_bad or status else 0)


if __name__ == '__main__':
    main()
