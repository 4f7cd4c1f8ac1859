#!/usr/bin/python3
"""`margay policy` and `margay explain` on files and on a store: what they say of the same objects."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

MARGAY = os.environ.get('MARGAY', str(pathlib.Path(__file__).resolve().parents[3] / 'build/margay'))

OBJECTS = '''
apiVersion: v1
kind: Namespace
metadata: {name: prod}
---
apiVersion: v1
kind: Namespace
metadata: {name: dev}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: prod, labels: {app: web}}
spec: {containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: prod, labels: {app: db}}
spec: {containers: [{name: c, image: x, ports: [{name: pg, containerPort: 5432}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: job, namespace: dev, labels: {app: job}}
spec: {containers: [{name: c, image: x}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db-allow-api, namespace: prod}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: api}}}]
    ports: [{port: pg}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: prod}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: later, namespace: prod}
spec: {selector: "app == 'db'", types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [5432]}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: prod, labels: {app: db}}
spec: {hostNetwork: true, containers: [{name: c, image: x}]}
'''


class PolicyTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.file = pathlib.Path(self.folder.name, 'objects.yaml')
        self.file.write_text(OBJECTS, encoding='utf-8')

    def run_cli(self, *argv, code=0):
        done = subprocess.run([MARGAY, '--state-dir', self.folder.name, *argv], text=True,
                              capture_output=True, timeout=30, check=False)
        self.assertEqual(done.returncode, code, f'{argv}\n{done.stdout}{done.stderr}')
        return done.stdout + done.stderr

    def on_files(self, *argv, code=0):
        return self.run_cli(*argv, '-f', str(self.file), code=code)

    def test_list_is_in_order_of_evaluation(self):
        lines = self.on_files('policy', 'list').splitlines()[1:]
        self.assertEqual([line.split()[2] for line in lines],
                         ['KubernetesNetworkPolicy/prod/db-allow-api',
                          'KubernetesNetworkPolicy/prod/default-deny',
                          'StagedNetworkPolicy/prod/later'])
        self.assertEqual([line.split()[-1] for line in lines], ['1', '2', '1'])
        found = json.loads(self.on_files('policy', 'list', '-o', 'json'))['policies']
        self.assertEqual([p['staged'] for p in found], [False, False, True])

    def test_show_says_what_a_rule_says(self):
        text = self.on_files('policy', 'show', 'prod/db-allow-api')
        self.assertIn('selects 1 endpoint now', text)
        self.assertRegex(text, r'#0 allows TCP from \[.*app == "api".*\] \(0 now\), port '
                               r'\[pg/tcp of all\(\)\] \(1 now\)')
        self.on_files('policy', 'show', 'nothing', code=1)

    def test_for_pod_has_tiers_ends_and_profiles(self):
        text = self.on_files('policy', 'for-pod', 'prod/db')
        for part in ('tier default', 'prod/default-deny', 'end of tier: denied', 'Profile/kns.prod',
                     'with staged policies enforced'):
            self.assertIn(part, text)
        pod = json.loads(self.on_files('policy', 'for-pod', 'prod/db', '-o', 'json'))
        self.assertEqual([p['policy'] for p in pod['ingress']['tiers'][0]['policies']],
                         ['KubernetesNetworkPolicy/prod/db-allow-api',
                          'KubernetesNetworkPolicy/prod/default-deny'])
        self.assertIn("host's network", self.on_files('policy', 'for-pod', 'prod/agent', code=1))

    def test_matrix(self):
        rows = json.loads(self.on_files('policy', 'matrix', '--port', 'tcp/5432', '-o', 'json'))
        self.assertEqual({r['name']: r['cells'] for r in rows['rows']},
                         {'dev/job': '#XX', 'prod/db': '.#X', 'prod/web': '.X#'})
        self.on_files('policy', 'matrix', '--port', 'what', code=2)

    def test_explain_says_which_rule_missed_by_least_and_what_would_repair_it(self):
        text = self.on_files('explain', 'prod/web', '->', 'prod/db', 'tcp/5432', code=1)
        self.assertTrue(text.startswith('DENIED  prod/web ('))
        self.assertRegex(text, r'#0 Allow no: the source is not selected by .*<- nearest miss')
        self.assertIn('end of tier default', text)
        self.assertIn('with staged policies enforced: ALLOW  StagedNetworkPolicy default '
                      'prod/later#0', text)
        self.assertIn('podSelector: {matchLabels: {app: web}}', text)
        self.assertIn('ports: [{protocol: TCP, port: 5432}]', text)
        self.on_files('explain', 'prod/db', '->', '192.0.2.1', 'udp/53')
        self.on_files('explain', 'prod/nobody', '->', '192.0.2.1', 'udp/53', code=2)
        self.on_files('explain', 'prod/db', '->', '192.0.2.1', 'udp', code=2)
        found = json.loads(self.on_files('explain', 'dev/job', 'prod/db', 'tcp/5432', '-o', 'json',
                                         code=1))
        self.assertEqual((found['allowed'], found['ingress']['verdict'],
                          found['ingress']['staged']['verdict']), (False, 'DENY', 'ALLOW'))

    def test_explain_knows_that_pods_send_no_vxlan(self):
        text = self.on_files('explain', 'prod/db', '->', '192.0.2.1', 'udp/4789', code=1)
        self.assertIn('allowVXLANPacketsFromWorkloads is not true', text)
        self.on_files('explain', 'prod/db', '->', '192.0.2.1', 'udp/4788')

    def test_what_the_fix_says_repairs(self):
        fix = '''
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: fix, namespace: prod}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
'''
        lines = self.on_files('explain', 'prod/web', 'prod/db', 'tcp/5432', code=1).splitlines()
        at = next(i for i, line in enumerate(lines) if line.startswith(' fix'))
        self.file.write_text(OBJECTS + fix + '\n'.join(line[7:] for line in lines[at + 1:]),
                             encoding='utf-8')
        self.on_files('explain', 'prod/web', 'prod/db', 'tcp/5432')

    def test_a_store_answers_as_files_do(self):
        self.run_cli('apply', '-f', str(self.file))
        names = [line.split()[2] for line in self.run_cli('policy', 'list').splitlines()]
        self.assertEqual(names, [line.split()[2]
                                 for line in self.on_files('policy', 'list').splitlines()])

    def test_wrong_usage(self):
        for argv in (['policy'], ['policy', 'nonsense'], ['policy', 'list', '--nonsense'],
                     ['policy', 'for-pod'], ['explain', 'a', 'b']):
            self.run_cli(*argv, code=2)


if __name__ == '__main__':
    unittest.main()
