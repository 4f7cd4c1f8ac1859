#!/usr/bin/python3
"""`margay policy lint`: one object that has each fault, one like it that has none."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

import yaml

MARGAY = os.environ.get('MARGAY', str(pathlib.Path(__file__).resolve().parents[3] / 'build/margay'))
V3, K8S = 'projectcalico.org/v3', 'networking.k8s.io/v1'


def namespace(name):
    return {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': name}}


def pod(name, labels=None, ns='prod', port=None, **spec):
    container = {'name': 'c', 'image': 'x'}
    if port:
        container['ports'] = [{'name': port, 'containerPort': 80}]
    return {'apiVersion': 'v1', 'kind': 'Pod',
            'metadata': {'name': name, 'namespace': ns, 'labels': labels or {'app': name}},
            'spec': {'containers': [container], **spec}}


def knp(spec, name='p'):
    return {'apiVersion': K8S, 'kind': 'NetworkPolicy',
            'metadata': {'name': name, 'namespace': 'prod'}, 'spec': {'podSelector': {}, **spec}}


def calico(spec, name='c'):
    return {'apiVersion': V3, 'kind': 'NetworkPolicy',
            'metadata': {'name': name, 'namespace': 'prod'}, 'spec': {'selector': 'all()', **spec}}


BASE = [namespace('prod'), pod('web', port='http')]
NAMESPACES, PODS = {'namespaceSelector': {}}, {'podSelector': {'matchLabels': {'app': 'web'}}}
DNS = {'to': [], 'ports': [{'port': 53, 'protocol': 'UDP'}, {'port': 53, 'protocol': 'TCP'}]}
POOL = {'apiVersion': V3, 'kind': 'IPPool', 'metadata': {'name': 'p'}, 'spec': {'cidr': '10.9.0.0/16'}}
API = {'apiVersion': 'discovery.k8s.io/v1', 'kind': 'EndpointSlice', 'addressType': 'IPv4',
       'metadata': {'name': 'kubernetes', 'namespace': 'default',
                    'labels': {'kubernetes.io/service-name': 'kubernetes'}},
       'endpoints': [{'addresses': ['192.0.2.1']}], 'ports': [{'port': 6443, 'protocol': 'TCP'}]}
WHOLE_TCP = {'ports': [{'protocol': 'TCP'}]}
ALLOW = {'action': 'Allow'}
# fault: (objects that have it, objects that don't)
CASES = {
    'and-or-suspicious': ([knp({'ingress': [{'from': [NAMESPACES, PODS]}]})],
                          [knp({'ingress': [{'from': [{**NAMESPACES, **PODS}]}]})]),
    'missing-policy-type': ([knp({'policyTypes': ['Ingress'], 'egress': [DNS]})],
                            [knp({'policyTypes': ['Egress'], 'egress': [DNS]})]),
    'unknown-port-name': ([knp({'ingress': [{'ports': [{'port': 'htp'}]}]})],
                          [knp({'ingress': [{'ports': [{'port': 'http'}]}]})]),
    'ipblock-inside-pod-cidr': ([POOL, knp({'ingress': [{'from': [{'ipBlock': {
        'cidr': '10.9.1.0/24'}}]}]})], [POOL, knp({'ingress': [{'from': [{'ipBlock': {
            'cidr': '10.0.0.0/8'}}]}]})]),
    'duplicate': ([knp({'ingress': [{}]}), knp({'ingress': [{}]}, 'q')],
                  [knp({'ingress': [{}]}), knp({'ingress': []}, 'q')]),
    'selects-nothing': ([knp({'podSelector': {'matchLabels': {'app': 'wbe'}}})], [knp({})]),
    'shadowed': ([calico({'ingress': [ALLOW, {'action': 'Deny', 'protocol': 'TCP'}]})],
                 [calico({'ingress': [{'action': 'Deny', 'protocol': 'TCP'}, ALLOW]})]),
    'log-only-drops': ([calico({'ingress': [{'action': 'Log'}]})],
                       [calico({'ingress': [{'action': 'Log'}, ALLOW]})]),
    'unknown-tier': ([calico({'tier': 'none', 'ingress': [ALLOW]}, 'none.c')],
                     [calico({'ingress': [ALLOW]})]),
    'unknown-service-account': ([calico({'ingress': [{**ALLOW, 'source': {
        'serviceAccounts': {'names': ['nobody']}}}]})], [calico({'ingress': [ALLOW]})]),
    'dns-blocked-udp': ([knp({'policyTypes': ['Egress'], 'egress': [WHOLE_TCP]})],
                        [knp({'policyTypes': ['Egress'], 'egress': [DNS]})]),
    'dns-blocked-tcp': ([knp({'policyTypes': ['Egress'], 'egress': [
        {'ports': [{'port': 53, 'protocol': 'UDP'}]}]})],
        [knp({'policyTypes': ['Egress'], 'egress': [DNS]})]),
    'cuts-apiserver': ([API, knp({'policyTypes': ['Egress'], 'egress': [DNS]})],
                       [API, knp({'policyTypes': ['Egress'], 'egress': [DNS, WHOLE_TCP]})]),
    'hostnetwork-ignored': ([pod('twin', {'app': 'web'}, hostNetwork=True), knp({})],
                            [pod('twin', {'app': 'web'}), knp({})]),
}


class LintTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def lint(self, objects, *argv):
        file = pathlib.Path(self.folder.name, 'objects.yaml')
        file.write_text(yaml.safe_dump_all(BASE + objects), encoding='utf-8')
        return subprocess.run([MARGAY, 'policy', 'lint', '-f', str(file), *argv], text=True,
                              capture_output=True, timeout=60, check=False)

    def found(self, objects):
        done = self.lint(objects, '-o', 'json')
        self.assertIn(done.returncode, (0, 1), done.stderr)
        found = json.loads(done.stdout)['findings']
        self.assertEqual(done.returncode, int(bool(found)))
        return {f['id'] for f in found}

    def test_each_fault_is_found_and_its_absence_is_not(self):
        for fault, (bad, good) in CASES.items():
            with self.subTest(fault):
                self.assertIn(fault, self.found(bad))
                self.assertNotIn(fault, self.found(good))

    def test_nothing_to_say(self):
        done = self.lint([knp({'ingress': [{'ports': [{'port': 'http'}]}]})])
        self.assertEqual((done.returncode, done.stdout), (0, '0 findings\n'))

    def test_a_finding_names_object_field_and_repair(self):
        text = self.lint(CASES['unknown-port-name'][0]).stdout
        self.assertIn('unknown-port-name        NetworkPolicy/prod/p  spec.ingress[0].ports[0].port',
                      text)
        self.assertIn('repair: give the container', text)

    def test_thousands_of_policies_take_no_time(self):
        policies = [knp({'podSelector': {'matchLabels': {'app': f'a{i}'}}, 'ingress': [
            {'ports': [{'port': i % 65535 + 1}]}]}, f'p{i}') for i in range(3000)]
        self.assertEqual(self.found(policies), {'selects-nothing'})


if __name__ == '__main__':
    unittest.main()
