#!/usr/bin/python3
"""The command line on a store without an agent: what it prints, writes and returns."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

MARGAY = os.environ.get('MARGAY', str(pathlib.Path(__file__).resolve().parents[3] / 'build/margay'))

NAMESPACE = 'apiVersion: v1\nkind: Namespace\nmetadata: {name: fine}\n'
BAD = '''apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: demo}
spec:
  podSelector: {}
  ingress:
  - ports: [{port: 70000}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: g}
spec: {selector: "a = b", ingres: []}
---
''' + NAMESPACE
POOL = '''apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: lab}
spec: {cidr: 10.44.0.0/16, natOutgoing: true}
'''


class CliTest(unittest.TestCase):
    """Each test has a state dir of its own."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def run_cli(self, *argv, stdin='', code=0):
        done = subprocess.run([MARGAY, '--state-dir', self.folder.name, *argv], input=stdin,
                              text=True, capture_output=True, timeout=30, check=False)
        self.assertEqual(done.returncode, code, f'{argv}\n{done.stdout}{done.stderr}')
        return done.stdout if code == 0 else done.stderr

    def test_a_bad_document_is_named_and_the_others_are_applied(self):
        text = self.run_cli('apply', '-f', '-', stdin=BAD, code=1)
        self.assertIn('stdin:7: NetworkPolicy/p: spec.ingress[0].ports[0].port', text)
        self.assertIn('found 70000', text)
        self.assertIn('did you mean ingress?', text)
        self.assertIn('selector byte 2', text)
        self.assertIn('fine', self.run_cli('get', 'ns'))

    def test_apply_says_what_it_did(self):
        for what in ('created', 'unchanged'):
            self.assertEqual(self.run_cli('apply', '-f', '-', stdin=POOL),
                             f'ippool.projectcalico.org/lab {what}\n')
        changed = POOL.replace('true', 'false')
        self.assertIn('configured', self.run_cli('apply', '-f', '-', stdin=changed))
        pool = json.loads(self.run_cli('get', 'pool', 'lab', '-o', 'json'))
        self.assertEqual(pool['metadata']['generation'], 2)
        self.assertFalse(pool['spec']['natOutgoing'])
        self.assertTrue(pool['metadata']['uid'])

    def test_dry_run_writes_nothing(self):
        self.run_cli('apply', '--dry-run=client', '-f', '-', stdin=POOL)
        self.run_cli('get', 'pool', 'lab', code=1)

    def test_create_and_replace_look_at_what_is_there(self):
        self.run_cli('replace', '-f', '-', stdin=POOL, code=1)
        self.run_cli('create', '-f', '-', stdin=POOL)
        self.assertIn('already exists', self.run_cli('create', '-f', '-', stdin=POOL, code=1))
        self.run_cli('replace', '-f', '-', stdin=POOL)

    def test_a_resource_version_is_a_condition(self):
        self.run_cli('apply', '-f', '-', stdin=POOL)
        old = self.run_cli('get', 'pool', 'lab', '-o', 'yaml')
        self.run_cli('patch', 'pool', 'lab', '-p', '{"spec": {"disabled": true}}')
        self.assertIn('fetch it again', self.run_cli('replace', '-f', '-', stdin=old, code=1))
        new = self.run_cli('get', 'pool', 'lab', '-o', 'yaml')
        self.run_cli('replace', '-f', '-', stdin=new)

    def test_labels_come_and_go(self):
        self.run_cli('apply', '-f', '-', stdin=NAMESPACE)
        self.run_cli('label', 'ns', 'fine', 'tier=front')
        self.assertIn('--overwrite', self.run_cli('label', 'ns', 'fine', 'tier=back', code=1))
        self.run_cli('label', 'ns', 'fine', 'tier=back', '--overwrite')
        self.assertIn('fine', self.run_cli('get', 'ns', '-l', 'tier in (back,x)'))
        self.run_cli('label', 'ns', 'fine', 'tier-')
        self.assertEqual(self.run_cli('get', 'ns', '-l', 'tier', '-o', 'name'), '')

    def test_json_patch(self):
        self.run_cli('apply', '-f', '-', stdin=POOL)
        patch = '[{"op": "test", "path": "/spec/cidr", "value": "10.44.0.0/16"},' \
                ' {"op": "replace", "path": "/spec/natOutgoing", "value": false}]'
        self.run_cli('patch', 'pool', 'lab', '--type=json', '-p', patch)
        out = self.run_cli('get', 'pool', 'lab', '-o', 'jsonpath={.spec.natOutgoing}')
        self.assertEqual(out, 'false')

    def test_delete(self):
        self.run_cli('apply', '-f', '-', stdin=POOL)
        self.assertEqual(self.run_cli('delete', 'pool', 'lab'),
                         'ippool.projectcalico.org/lab deleted\n')
        self.run_cli('delete', 'pool', 'lab', code=1)
        self.run_cli('delete', 'pool', 'lab', '--ignore-not-found')

    def test_wrong_usage_is_2(self):
        for argv in (['nonsense'], ['apply'], ['get'], ['get', 'pools', '-o', 'xml'],
                     ['selector', 'parse'], ['pod', 'add'], ['ipam', 'shw']):
            self.run_cli(*argv, code=2)

    def test_selector(self):
        self.assertEqual(self.run_cli('selector', 'parse', "a in {'y','x'}"), 'a in {"x", "y"}\n')
        self.run_cli('selector', 'match', "a == 'b'", 'a=b')
        self.run_cli('selector', 'match', "a == 'b'", 'a=c', code=1)

    def test_every_command_has_help_and_a_man_page(self):
        names = self.run_cli('help', '--docs', 'commands').split()
        self.assertIn('apply', names)
        for name in names:
            self.assertIn(f'  {name}', self.run_cli('help'))
            self.assertRegex(self.run_cli(name, '--help'), r'(?s)usage: margay .*\nexamples?:')
            self.assertIn('.SH NAME', self.run_cli('help', '--man', name))
        for shell in ('bash', 'zsh', 'fish'):
            self.assertIn('margay', self.run_cli('completion', shell))

    def test_everything_moves_from_store_to_store(self):
        block = ('{"apiVersion":"margay.io/v1","kind":"StoredItem","space":"i",'
                 '"key":"/ipam/v2/handle/x","value":{"handleID":"x","block":{},"deleted":false}}')
        self.run_cli('apply', '-f', '-', stdin=POOL + '---\n' + NAMESPACE)
        self.assertIn('1 created', self.run_cli('datastore', 'import', '-f', '-', stdin=block))
        self.run_cli('datastore', 'lock')
        text = self.run_cli('datastore', 'export')
        self.assertIn(block, text)
        self.assertIn('"datastoreReady":false', text)
        with tempfile.TemporaryDirectory() as other:
            # The later flag counts.
            flag = ('--state-dir', other)
            self.assertIn('4 created', self.run_cli('datastore', 'import', '-f', '-', *flag, stdin=text))
            self.assertEqual(self.run_cli('datastore', 'export', *flag), text)
            self.assertIn('0 created, 0 replaced, 4 unchanged',
                          self.run_cli('datastore', 'import', '-f', '-', *flag, stdin=text))
            changed = text.replace('10.44.0.0/16', '10.45.0.0/16')
            error = self.run_cli('datastore', 'import', '-f', '-', *flag, stdin=changed, code=1)
            self.assertIn('IPPool lab: is there already and says something else', error)
            self.run_cli('datastore', 'import', '--overwrite', '-f', '-', *flag, stdin=changed)
            self.assertIn('10.45.0.0/16', self.run_cli('get', 'ippools', *flag))
        self.run_cli('datastore', 'unlock')
        self.assertIn('"datastoreReady":true', self.run_cli('datastore', 'export'))

    def test_a_broken_export_is_named_by_line_and_the_rest_is_imported(self):
        text = 'nonsense\n---\n{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"ok"}}\n'
        error = self.run_cli('datastore', 'import', '-f', '-', stdin=text, code=1)
        self.assertIn('stdin:1:', error)
        self.assertIn('ok', self.run_cli('get', 'ns'))

    def test_convert_says_kubernetes_in_calicos_words(self):
        policy = ('apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n'
                  'metadata: {name: web, namespace: demo}\n'
                  'spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}\n')
        text = self.run_cli('convert', '-f', '-', '-o', 'json', stdin=policy)
        made = json.loads(text)
        self.assertEqual((made['kind'], made['metadata']),
                         ('NetworkPolicy', {'name': 'knp.default.web', 'namespace': 'demo'}))
        self.assertEqual(made['spec']['ingress'][0]['destination']['ports'], [80])
        # What it says is a resource that apply takes.
        self.run_cli('apply', '-f', '-', stdin=self.run_cli('convert', '-f', '-', stdin=policy))
        error = self.run_cli('convert', '-f', '-', code=1,
                             stdin='apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {}\n')
        self.assertIn('Service/s: has no form of its own', error)


if __name__ == '__main__':
    unittest.main()
