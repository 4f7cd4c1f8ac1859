#!/usr/bin/python3
"""Where the CNI server's addresses come from: asked for, from other IPAM plugins, from our own pools.
As test_server.py, with what it offers."""
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import unittest

from test_server import HOST_WITH_IPAM, PLUGIN, Server, ip_json


class Addresses(Server):
    """What a request asks of address management, in Calico's order of precedence."""

    def add_pod(self, annotations, ns_annotations=None, **kw):
        pod = self.new_netns()
        self.put_namespace("shop", annotations=ns_annotations or {})
        self.put_pod("shop", "web", annotations=annotations)
        return self.call("ADD", "c1", pod, args=self.k8s("shop", "web") + kw.pop("args", ""), **kw)

    def test_exact(self):
        note = {"cni.projectcalico.org/ipAddrs": '["10.1.2.3", "fd00:1::3"]'}
        code, r = self.add_pod(note, args=";IP=10.1.2.9", runtimeConfig={"ips": ["10.1.2.8/24"]})
        self.assertEqual(code, 0, r)
        self.assertEqual([x["address"] for x in r["ips"]], ["10.1.2.3/32", "fd00:1::3/128"])
        self.delete("c1", None)
        code, r = self.add_pod({}, args=";IP=10.1.2.9", runtimeConfig={"ips": ["10.1.2.8/24"]})
        self.assertEqual([x["address"] for x in r["ips"]], ["10.1.2.8/32"])
        self.delete("c1", None)
        code, r = self.add_pod({}, args=";IP=10.1.2.9")
        self.assertEqual([x["address"] for x in r["ips"]], ["10.1.2.9/32"])

    def test_pools(self):
        key = "cni.projectcalico.org/ipv4pools"
        code, r = self.add_pod({key: '["full"]'}, {key: '["other"]'})
        self.assertEqual((code, r["code"]), (1, 11))
        self.assertIn("pool full", r["msg"])
        code, r = self.add_pod({}, {key: '["other"]'})
        self.assertEqual((code, r["code"]), (1, 7))
        self.assertIn("other", r["msg"])
        code, r = self.add_pod({}, ipam={"type": "margay-ipam", "ipv4_pools": ["third"]})
        self.assertIn("third", r["msg"])
        for bad in ["full", "[]", "[1]", '{"a": 1}']:
            code, r = self.add_pod({key: bad})
            self.assertEqual((code, r["code"]), (1, 7))
            self.assertIn("ipv4pools", r["msg"])
        self.assertEqual((self.endpoints(), self.host_links()), ([], {}))

    def test_without_ipam(self):
        key = "cni.projectcalico.org/ipAddrsNoIpam"
        code, r = self.add_pod({key: '["10.1.2.3"]'})
        self.assertEqual((code, r["code"]), (1, 7))
        self.assertIn("ip_addrs_no_ipam", r["details"])
        allowed = {"ip_addrs_no_ipam": True}
        code, r = self.add_pod({key: '["10.1.2.3"]'}, feature_control=allowed)
        self.assertEqual([x["address"] for x in r["ips"]], ["10.1.2.3/32"])
        self.assertEqual([k for k in self.keys() if k.startswith("/a/")], [])
        self.delete("c1", None)
        code, r = self.add_pod({key: "[]"}, feature_control=allowed)
        self.assertEqual((code, r["code"]), (1, 7))

    def test_neither_family(self):
        code, r = self.add_pod({}, ipam={"type": "margay-ipam", "assign_ipv4": "false"})
        self.assertEqual((code, r["code"]), (1, 7))

    def test_as_ipam_plugin_of_another(self):
        ipam = os.path.join(self.dir, "margay-ipam")
        os.symlink(PLUGIN, ipam)

        def call(command, **kw):
            conf = {"cniVersion": "1.0.0", "name": "net1", "type": "bridge", "socket": self.sock,
                    "state_dir": self.dir, "ipam": {"type": "margay-ipam"}}
            env = {"CNI_COMMAND": command, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0",
                   "CNI_NETNS": "/run/netns/" + pod, "CNI_PATH": self.dir, **kw}
            p = subprocess.run([ipam], input=json.dumps(conf), env=env, text=True,
                               capture_output=True, timeout=60)
            return p.returncode, json.loads(p.stdout) if p.stdout else None

        pod = self.new_netns()
        code, r = call("ADD")
        self.assertEqual(code, 0, r)
        self.assertEqual(r["ips"], [{"address": "192.168.7.1/26"}])
        self.assertEqual(r["routes"], [{"dst": "192.168.7.0/26"}])
        self.assertNotIn("interfaces", r)
        self.assertEqual((self.endpoints(), self.host_links()), ([], {}))
        self.assertEqual(call("CHECK"), (0, None))
        self.assertEqual(call("DEL"), (0, None))
        self.assertEqual(call("DEL"), (0, None))
        self.assertEqual(self.keys(), [])
        self.assertEqual(call("CHECK")[1]["code"], 100)
        code, r = call("ADD", CNI_ARGS="IP=10.5.5.5")
        self.assertEqual(r["ips"], [{"address": "10.5.5.5/32"}])


class Delegated(Server):
    def fake_ipam(self, text, code=0):
        path = os.path.join(self.dir, "fake-ipam")
        with open(path, "w") as f:
            f.write("#!/bin/sh\ncat >/dev/null\necho $CNI_COMMAND >>%s/calls\n"
                    "[ $CNI_COMMAND = ADD ] && cat %s/answer\nexit $(cat %s/code)\n"
                    % (self.dir, self.dir, self.dir))
        os.chmod(path, 0o755)
        for name, content in [("answer", text), ("code", str(code))]:
            with open(os.path.join(self.dir, name), "w") as f:
                f.write(content)

    def calls(self):
        with open(os.path.join(self.dir, "calls")) as f:
            return f.read().split()

    def test_add_and_del(self):
        pod = self.new_netns()
        self.fake_ipam(json.dumps({"cniVersion": "1.0.0", "ips": [
            {"address": "10.99.0.7/24", "gateway": "10.99.0.1"}],
            "routes": [{"dst": "10.0.0.0/8"}], "dns": {"nameservers": ["1.1.1.1"]}}))
        conf = {"ipam": {"type": "fake-ipam"}}
        r = self.add("c1", pod, conf=conf)
        self.assertEqual(r["ips"], [{"address": "10.99.0.7/32", "interface": 1}])
        self.assertEqual(r["dns"], {"nameservers": ["1.1.1.1"]})
        routes = {x["dst"] for x in ip_json(pod, "route")}
        self.assertEqual(routes, {"10.0.0.0/8", "169.254.1.1"})
        self.assertEqual(self.call("CHECK", "c1", pod, conf=conf, prevResult=r), (0, None))
        self.delete("c1", pod, conf=conf)
        self.assertEqual(self.calls(), ["ADD", "CHECK", "DEL"])
        self.assertEqual(self.host_links(), {})

    def test_del_without_an_agent_runs_it_once(self):
        pod = self.new_netns()
        self.fake_ipam(json.dumps({"ips": [{"address": "10.99.0.7/24"}]}))
        conf = {"ipam": {"type": "fake-ipam"}}
        self.add("c1", pod, conf=conf)
        self.stop()
        self.delete("c1", pod, conf=conf)
        self.assertEqual(self.calls(), ["ADD", "DEL"])
        self.start()
        spool = os.path.join(self.dir, "state", "spool")
        self.assertEqual(self.say("spool " + spool), "1 ")
        for _ in range(100):
            if not self.host_links() and not os.listdir(spool):
                break
            time.sleep(0.05)
        self.assertEqual((self.host_links(), os.listdir(spool)), ({}, []))
        self.assertEqual(self.calls(), ["ADD", "DEL"])

    def test_pod_cidr_of_the_node(self):
        pod = self.new_netns()
        path = os.path.join(self.dir, "host-local")
        with open(path, "w") as f:
            f.write("#!/bin/sh\ncat >%s/seen\n[ $CNI_COMMAND = ADD ] && "
                    "echo '{\"ips\":[{\"address\":\"10.4.0.2/24\"}]}'\nexit 0\n" % self.dir)
        os.chmod(path, 0o755)
        conf = {"ipam": {"type": "host-local", "subnet": "usePodCidr",
                         "ranges": [[{"subnet": "usePodCidrIPv6"}]]}}
        code, out = self.call("ADD", "c1", pod, conf=conf)
        self.assertEqual((code, out["code"]), (1, 11))
        self.assertIn("podCIDR", out["msg"])
        self.put("Node", "-", "node-1", {"apiVersion": "v1", "kind": "Node", "spec": {
            "podCIDR": "10.4.0.0/24", "podCIDRs": ["10.4.0.0/24", "fd04::/80"]}})
        self.add("c1", pod, conf=conf)
        with open(os.path.join(self.dir, "seen")) as f:
            seen = json.load(f)
        self.assertEqual(seen["ipam"], {"type": "host-local", "subnet": "10.4.0.0/24",
                                        "ranges": [[{"subnet": "fd04::/80"}]]})
        self.assertEqual(seen["name"], "net1")

    def test_old_result(self):
        pod = self.new_netns()
        self.fake_ipam(json.dumps({"ip4": {"ip": "10.99.0.8/24"}}))
        r = self.add("c1", pod, conf={"ipam": {"type": "fake-ipam"}})
        self.assertEqual(r["ips"][0]["address"], "10.99.0.8/32")

    def test_failures(self):
        pod = self.new_netns()
        conf = {"ipam": {"type": "fake-ipam"}}
        self.fake_ipam(json.dumps({"code": 77, "msg": "no more"}), 1)
        code, out = self.call("ADD", "c1", pod, conf=conf)
        self.assertEqual((code, out), (1, {"code": 77, "msg": "no more"}))
        self.assertEqual(self.calls(), ["ADD"])
        self.fake_ipam(json.dumps({"ips": [{"address": "nonsense"}]}))
        code, out = self.call("ADD", "c1", pod, conf=conf)
        self.assertEqual((code, out["code"]), (1, 6))
        # What it gave is given back.
        self.assertEqual(self.calls(), ["ADD", "ADD", "DEL"])
        self.assertEqual((self.endpoints(), self.host_links()), ([], {}))


@unittest.skipUnless(HOST_WITH_IPAM, "no server with IPAM")
class Pools(Server):
    """The real address management below: pools, selectors, settings."""
    program = HOST_WITH_IPAM

    def put_pool(self, name, cidr, **spec):
        self.put("IPPool.projectcalico.org", "-", name, {
            "apiVersion": "projectcalico.org/v3", "kind": "IPPool",
            "spec": dict({"cidr": cidr, "blockSize": 126 if ":" in cidr else 29}, **spec)})

    def put_node(self, **labels):
        self.put("Node.projectcalico.org", "-", "node-1", {
            "apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"labels": labels},
            "spec": {}})

    def one(self, container="c1", **kw):
        pod = self.new_netns()
        code, r = self.call("ADD", container, pod, **kw)
        return (code, [x["address"] for x in r["ips"]] if code == 0 else r)

    def test_status_and_add_follow_the_pools(self):
        self.assertEqual(self.call("STATUS", "", cniVersion="1.1.0", ifname="")[1]["code"], 50)
        code, r = self.one()
        self.assertEqual((code, r["code"]), (1, 11))
        self.assertIn("pool", r["msg"])
        self.put_pool("a", "10.10.0.0/28")
        self.assertEqual(self.call("STATUS", "", cniVersion="1.1.0", ifname=""), (0, None))
        code, ips = self.one()
        self.assertEqual(code, 0, ips)
        self.assertTrue(ips[0].startswith("10.10.0.") and ips[0].endswith("/32"))
        self.put_pool("a", "10.10.0.0/28", disabled=True)
        code, r = self.one("c2")
        self.assertEqual((code, r["code"]), (1, 11))
        self.delete("c1", None)

    def test_all_of_a_pool_and_back(self):
        self.put_pool("a", "10.10.0.0/29")
        got = [self.one("c%d" % i) for i in range(8)]
        self.assertEqual({c for c, _ in got}, {0}, got)
        self.assertEqual(len({x[0] for _, x in got}), 8)
        code, r = self.one("c8")
        self.assertEqual((code, r["code"]), (1, 11))
        self.assertEqual(len(self.endpoints()), 8)
        self.delete("c3", None)
        self.assertEqual(self.one("c9"), (0, got[3][1]))
        for i in range(10):
            self.delete("c%d" % i, None)
        self.assertEqual([k for k in self.keys() if "handle" in k], [])
        self.assertEqual(self.host_links(), {})

    def test_selectors(self):
        self.put_pool("a", "10.10.0.0/28", nodeSelector="rack == 'one'")
        self.put_pool("b", "10.20.0.0/28", namespaceSelector="team == 'x'")
        code, r = self.one()
        self.assertEqual((code, r["code"]), (1, 11))
        self.assertIn("Selector", r["msg"])
        self.put_node(rack="one")
        self.assertTrue(self.one()[1][0].startswith("10.10."))
        self.put_node(rack="two")
        self.assertEqual(self.one("c2")[0], 1)
        self.put_namespace("shop", labels={"team": "x"})
        self.put_pod("shop", "web")
        code, ips = self.one("c3", args=self.k8s("shop", "web"))
        self.assertEqual(code, 0, ips)
        self.assertTrue(ips[0].startswith("10.20."))
        # Named pools are taken without their selectors.
        for name in ["a", "10.10.0.0/28"]:
            code, ips = self.one("d" + name[0], ipam={"type": "margay-ipam", "ipv4_pools": [name]})
            self.assertTrue(ips[0].startswith("10.10."), ips)

    def test_uses_modes_and_reservations(self):
        self.put_pool("a", "10.10.0.0/28", allowedUses=["Tunnel"])
        self.assertEqual(self.one()[0], 1)
        self.put_pool("b", "10.20.0.0/29", assignmentMode="Manual")
        self.assertEqual(self.one()[0], 1)
        code, ips = self.one("m", ipam={"type": "margay-ipam", "ipv4_pools": ["b"]})
        self.assertEqual(code, 0, ips)
        self.put_pool("c", "10.30.0.0/29")
        self.put("IPReservation.projectcalico.org", "-", "r", {
            "apiVersion": "projectcalico.org/v3", "kind": "IPReservation",
            "spec": {"reservedCIDRs": ["10.30.0.0/30", "10.30.0.4/31", "10.30.0.6/32"]}})
        self.assertEqual(self.one("r"), (0, ["10.30.0.7/32"]))
        self.assertEqual(self.one("s")[0], 1)
        self.assertEqual(self.one("t", args="IP=10.30.0.2"), (0, ["10.30.0.2/32"]))
        code, r = self.one("u", args="IP=10.30.0.2")
        self.assertEqual(code, 1)
        self.assertIn("10.30.0.2", r["msg"])
        code, r = self.one("v", args="IP=99.0.0.1")
        self.assertEqual((code, r["code"]), (1, 7))

    def test_both_families_or_none(self):
        self.put_pool("a", "10.10.0.0/28")
        both = {"type": "margay-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}
        code, r = self.one("c1", ipam=both)
        self.assertEqual((code, r["code"]), (1, 11))
        self.assertEqual([k for k in self.keys() if "handle" in k], [])
        self.put_pool("b", "fd00:10::/120")
        code, ips = self.one("c1", ipam=both)
        self.assertEqual(code, 0, ips)
        self.assertEqual(len(ips), 2)
        self.delete("c1", None)

    def rename_handle(self, old, new):
        """As if another plugin had given the addresses: its handle, and an endpoint without our note."""
        self.stop()
        with sqlite3.connect(os.path.join(self.dir, "db")) as db:
            db.execute("update items set key = replace(key, ?, ?), value = replace(value, ?, ?)"
                       " where space = 'i'", (old, new, '"%s"' % old, '"%s"' % new))
            db.execute("update items set value = replace(value, 'margay.io/cni-network', 'x')")
        db.close()
        self.start()

    def handles(self):
        return sorted(k.rsplit("/", 1)[1] for k in self.keys() if "/handle/" in k)

    def test_del_releases_the_oldest_handles(self):
        self.put_pool("a", "10.10.0.0/28")
        self.put_namespace("shop")
        for pod in ("web", "db"):
            self.put_pod("shop", pod)
        for c, pod in (("c1", "web"), ("c2", "db")):
            self.assertEqual(self.one(c, args=self.k8s("shop", pod))[0], 0)
        self.assertEqual(self.one("c3")[0], 0)
        self.assertEqual(self.handles(), ["net1.c1", "net1.c2", "net1.c3"])
        self.rename_handle("net1.c1", "shop.web")
        self.rename_handle("net1.c3", "c3")
        self.assertEqual(self.handles(), ["c3", "net1.c2", "shop.web"])
        self.delete("c1", None, args=self.k8s("shop", "web"))
        self.assertEqual(self.handles(), ["c3", "net1.c2"])
        self.delete("c3", None)
        self.assertEqual(self.handles(), ["net1.c2"])
        # Names that others may choose don't release what is not theirs.
        self.delete("c9", None, args=self.k8s("net1", "c2"))
        self.rename_handle("net1.c2", "vxlan-tunnel-addr-n1")
        self.delete("vxlan-tunnel-addr-n1", None)
        self.assertEqual(self.handles(), ["vxlan-tunnel-addr-n1"])

    def test_check_sees_a_released_address(self):
        self.put_pool("a", "10.10.0.0/28")
        pod = self.new_netns()
        r = self.add("c1", pod)
        self.assertEqual(self.call("CHECK", "c1", pod, prevResult=r), (0, None))
        self.assertEqual(self.call("CHECK", "c1", pod, prevResult=r, name="other")[1]["code"], 3)


if __name__ == "__main__":
    if os.geteuid() != 0 or not shutil.which("ip"):
        sys.exit(77)
    unittest.main(verbosity=2 if "-v" in sys.argv else 1, argv=[a for a in sys.argv if a != "-v"])
