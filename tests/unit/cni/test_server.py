#!/usr/bin/python3
"""The agent's end of CNI with the real plugin and the real kernel: MARGAY_CNI is run as a runtime
runs it against CNI_SERVER_HOST, in network namespaces of this test's own. Needs root and ip(8)."""
import concurrent.futures
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import uuid

PLUGIN = os.environ["MARGAY_CNI"]
HOST = os.environ["CNI_SERVER_HOST"]
HOST_WITH_IPAM = os.environ.get("CNI_SERVER_HOST_IPAM")
TAG = "mgt%x" % os.getpid()
WEP = "WorkloadEndpoint.projectcalico.org"
HOST_MAC = "ee:ee:ee:ee:ee:ee"


def run(*args, **kw):
    return subprocess.run(args, check=True, capture_output=True, text=True, **kw).stdout


def ip_json(ns, *args):
    return json.loads(run("ip", "-n", ns, "-j", *args) or "[]")


def iface_of(ns, pod):
    return "cali" + hashlib.sha1(("%s.%s" % (ns, pod)).encode()).hexdigest()[:11]


class Server(unittest.TestCase):
    program = HOST

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="cnis-")
        self.addCleanup(shutil.rmtree, self.dir, True)
        self.host = self.new_netns()
        self.sock = os.path.join(self.dir, "agent.sock")
        self.start()

    def tearDown(self):
        self.stop()

    def start(self):
        if os.path.exists(self.sock):
            os.unlink(self.sock)
        self.p = subprocess.Popen(
            ["ip", "netns", "exec", self.host, self.program, self.sock,
             "sqlite:" + os.path.join(self.dir, "db"), "node-1"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.assertEqual(self.p.stdout.readline(), "ready\n")

    def stop(self):
        if self.p.poll() is None:
            self.p.stdin.write("quit\n")
            self.p.stdin.close()
        self.assertEqual(self.p.wait(20), 0)
        self.p.stdout.close()

    def new_netns(self):
        name = "%s-%s" % (TAG, uuid.uuid4().hex[:8])
        run("ip", "netns", "add", name)
        self.addCleanup(subprocess.run, ["ip", "netns", "del", name], capture_output=True)
        return name

    def say(self, line):
        self.p.stdin.write(line + "\n")
        self.p.stdin.flush()
        return self.p.stdout.readline().rstrip("\n")

    def put(self, kind, ns, name, doc):
        doc = dict({"metadata": {}}, **doc)
        doc["metadata"].update({"name": name} if ns == "-" else {"name": name, "namespace": ns})
        self.assertEqual(self.say("put %s %s %s %s" % (kind, ns, name, json.dumps(doc))), "")

    def put_pod(self, ns, name, spec=None, **meta):
        self.put("Pod", ns, name, {"apiVersion": "v1", "kind": "Pod", "metadata": meta,
                                   "spec": dict({"containers": []}, **(spec or {}))})

    def put_namespace(self, name, **meta):
        self.put("Namespace", "-", name, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})

    def get(self, kind, ns, name):
        text = self.say("get %s %s %s" % (kind, ns, name))
        return None if text.startswith("ERROR") else json.loads(text)

    def keys(self):
        return self.say("keys").split()

    def endpoints(self):
        return [k for k in self.keys() if k.startswith(WEP)]

    def stats(self):
        return json.loads(self.say("stats"))

    def call(self, command, container="c1", netns=None, ifname="eth0", args="", conf=None,
             program=None, path=None, **fields):
        c = {"cniVersion": "1.0.0", "name": "net1", "type": "margay-cni", "socket": self.sock,
             "state_dir": os.path.join(self.dir, "state"), "ipam": {"type": "margay-ipam"}}
        c.update(conf or {})
        c.update(fields)
        env = {"CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_IFNAME": ifname,
               "CNI_ARGS": args, "CNI_PATH": path or self.dir, "PATH": os.environ["PATH"]}
        if netns:
            env["CNI_NETNS"] = netns if netns.startswith("/") else "/run/netns/" + netns
        p = subprocess.run([PLUGIN], executable=program, input=json.dumps(c), env=env, text=True,
                           capture_output=True, timeout=60)
        out = json.loads(p.stdout) if p.stdout.strip() else None
        return p.returncode, out

    def add(self, *args, **kw):
        code, out = self.call("ADD", *args, **kw)
        self.assertEqual(code, 0, out)
        return out

    def delete(self, *args, **kw):
        code, out = self.call("DEL", *args, **kw)
        self.assertEqual((code, out), (0, None))

    def host_links(self):
        return {x["ifname"]: x for x in ip_json(self.host, "link") if x["ifname"] != "lo"}

    def k8s(self, ns, pod):
        return "IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s" % (ns, pod)


class Add(Server):
    def test_without_a_pod(self):
        pod = self.new_netns()
        r = self.add("c0ffee1234567", pod, labels={"app": "web"}, args="MARGAY_LABELS=tier=db")
        self.assertEqual(r["cniVersion"], "1.0.0")
        host, cont = r["interfaces"]
        self.assertEqual(host["name"], "calic0ffee12345")
        self.assertEqual((cont["name"], cont["sandbox"]), ("eth0", "/run/netns/" + pod))
        ip = r["ips"][0]
        self.assertEqual((ip["interface"], "gateway" in ip), (1, False))
        self.assertTrue(ip["address"].endswith("/32"))
        address = ip["address"][:-3]
        link = ip_json(pod, "link", "show", "eth0")[0]
        self.assertEqual((link["address"], "UP" in link["flags"]), (cont["mac"], True))
        addrs = ip_json(pod, "addr", "show", "eth0")[0]["addr_info"]
        self.assertIn((address, 32), [(a["local"], a["prefixlen"]) for a in addrs])
        routes = {x["dst"]: x for x in ip_json(pod, "route")}
        self.assertEqual(routes["default"]["gateway"], "169.254.1.1")
        self.assertEqual(routes["169.254.1.1"]["scope"], "link")
        neigh = ip_json(pod, "neigh")
        self.assertIn(("169.254.1.1", HOST_MAC, ["PERMANENT"]),
                      [(n["dst"], n["lladdr"], n["state"]) for n in neigh])
        hlink = self.host_links()["calic0ffee12345"]
        self.assertEqual(hlink["address"], HOST_MAC)
        hroute = ip_json(self.host, "-d", "route", "show", address)[0]
        self.assertEqual((hroute["dev"], hroute["scope"], hroute["protocol"]),
                         ("calic0ffee12345", "link", "boot"))
        self.assertIn((address, cont["mac"]),
                      [(n["dst"], n["lladdr"]) for n in ip_json(self.host, "neigh")])
        w = self.get(WEP, "default", "node--1-cni-c0ffee1234567-eth0")
        self.assertEqual(w["metadata"]["labels"], {
            "app": "web", "tier": "db", "projectcalico.org/namespace": "default",
            "projectcalico.org/orchestrator": "cni"})
        self.assertEqual(w["spec"]["profiles"], ["net1"])
        self.assertEqual(w["spec"]["ipNetworks"], [address + "/32"])
        self.assertEqual(w["spec"]["mac"], cont["mac"])
        p = self.get("Profile.projectcalico.org", "-", "net1")
        self.assertEqual(p["spec"]["labelsToApply"], {"net1": ""})
        self.assertEqual(p["spec"]["ingress"][0]["source"]["selector"], "has(net1)")

        # The host reaches the pod, by the pod's own answer over the link.
        run("ip", "-n", self.host, "addr", "add", "192.0.2.1/32", "dev", "lo")
        run("ip", "-n", self.host, "link", "set", "lo", "up")
        if shutil.which("ping"):
            run("ip", "netns", "exec", self.host, "ping", "-c1", "-W2", address)

        self.delete("c0ffee1234567", pod)
        self.assertEqual(self.host_links(), {})
        self.assertEqual(self.endpoints(), [])
        self.assertEqual([k for k in self.keys() if k.startswith("/a/")], [])
        self.assertEqual(ip_json(self.host, "route"), [])

    def test_pod_of_the_store(self):
        pod = self.new_netns()
        self.put_namespace("shop")
        ports = [{"name": "http", "containerPort": 8080},
                 {"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"containerPort": 9}]
        self.put_pod("shop", "web-0", {
            "serviceAccountName": "robot", "nodeName": "node-1",
            "containers": [{"name": "c", "image": "i", "ports": ports}]},
                     labels={"app": "web", "projectcalico.org/namespace": "forged"},
                     annotations={"cni.projectcalico.org/hwAddr": "02:11:22:33:44:55"})
        r = self.add("c1", pod, args=self.k8s("shop", "web-0"))
        self.assertEqual(r["interfaces"][0]["name"], iface_of("shop", "web-0"))
        self.assertEqual(r["interfaces"][1]["mac"], "02:11:22:33:44:55")
        w = self.get(WEP, "shop", "node--1-k8s-web--0-eth0")
        self.assertEqual(w["metadata"]["labels"], {
            "app": "web", "projectcalico.org/namespace": "shop",
            "projectcalico.org/orchestrator": "k8s",
            "projectcalico.org/serviceaccount": "robot"})
        self.assertEqual(w["spec"]["profiles"], ["kns.shop", "ksa.shop.robot"])
        self.assertEqual((w["spec"]["pod"], w["spec"]["containerID"], w["spec"]["node"]),
                         ("web-0", "c1", "node-1"))
        self.assertEqual(w["spec"]["ports"], [
            {"name": "http", "port": 8080, "protocol": "TCP"},
            {"name": "dns", "port": 53, "protocol": "UDP"}])
        self.delete("c1", pod, args=self.k8s("shop", "web-0"))
        self.assertEqual(self.endpoints(), [])

    def test_names_are_calicos(self):
        self.put_namespace("default")
        for name, want in [("nginx", "calic440f455693"), ("busybox", "cali12d4a061371")]:
            pod = self.new_netns()
            self.put_pod("default", name)
            r = self.add(name, pod, args=self.k8s("default", name))
            self.assertEqual(r["interfaces"][0]["name"], want)

    def test_waits_for_the_pod_object(self):
        pod = self.new_netns()
        self.put_namespace("shop")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            f = pool.submit(self.call, "ADD", "c1", pod, args=self.k8s("shop", "late"))
            time.sleep(0.3)
            self.assertFalse(f.done())
            self.assertEqual(self.host_links(), {})
            self.put_pod("shop", "other")
            time.sleep(0.2)
            self.assertFalse(f.done())
            self.put_pod("shop", "late", {"nodeName": "node-2"})
            time.sleep(0.2)
            self.assertFalse(f.done())
            self.put_pod("shop", "late", {"nodeName": "node-1"})
            code, out = f.result(10)
            self.assertEqual(code, 0, out)

    def test_pod_that_never_comes_fails_with_11(self):
        pod = self.new_netns()
        start = time.monotonic()
        code, out = self.call("ADD", "c1", pod, args=self.k8s("shop", "never"),
                              policy={"type": "k8s"}, policy_setup_timeout_seconds=1)
        self.assertEqual((code, out["code"]), (1, 11))
        self.assertIn("shop/never", out["msg"])
        self.assertTrue(0.9 < time.monotonic() - start < 4)
        self.assertEqual(self.endpoints(), [])

    def test_del_ends_an_add_that_waits(self):
        pod = self.new_netns()
        self.put_namespace("shop")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            f = pool.submit(self.call, "ADD", "c1", pod, args=self.k8s("shop", "late"))
            time.sleep(0.3)
            self.delete("c1", pod, args=self.k8s("shop", "late"))
            code, out = f.result(5)
            self.assertEqual((code, out["code"]), (1, 11))

    def test_policy_comes_before_the_interface(self):
        pod = self.new_netns()
        self.say("hold")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            f = pool.submit(self.call, "ADD", "c1", pod)
            time.sleep(0.3)
            self.assertFalse(f.done())
            self.assertEqual(self.host_links(), {})
            self.assertEqual(len(self.endpoints()), 1)
            self.say("release 0")
            self.assertEqual(f.result(10)[0], 0)
        self.assertEqual(len(self.host_links()), 1)

    def test_policy_that_fails_takes_all_back(self):
        pod = self.new_netns()
        self.say("hold")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            f = pool.submit(self.call, "ADD", "c1", pod)
            time.sleep(0.3)
            self.say("release -110")
            code, out = f.result(10)
        self.assertEqual((code, out["code"]), (1, 11))
        self.assertEqual([k for k in self.keys() if "Profile" not in k], [])
        self.assertEqual(self.host_links(), {})
        self.add("c1", pod)

    def test_plugin_that_is_killed_leaves_nothing(self):
        pod = self.new_netns()
        self.say("hold")
        env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0",
               "CNI_NETNS": "/run/netns/" + pod, "CNI_PATH": self.dir}
        conf = {"cniVersion": "1.0.0", "name": "net1", "socket": self.sock,
                "ipam": {"type": "margay-ipam"}}
        p = subprocess.Popen([PLUGIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        p.stdin.write(json.dumps(conf).encode())
        p.stdin.close()
        for _ in range(100):
            if self.stats()["waits"]:
                break
            time.sleep(0.02)
        p.kill()
        p.wait()
        p.stdout.close()
        time.sleep(0.2)
        self.say("release 0")
        time.sleep(0.3)
        self.assertEqual(self.endpoints(), [])
        self.assertEqual(self.stats()["requests"], 0)

    def test_same_add_again_same_answer(self):
        pod = self.new_netns()
        first = self.add("c1", pod)
        self.assertEqual(self.add("c1", pod), first)
        self.assertEqual(len(self.host_links()), 1)
        # The endpoint was lost: without it there would be no policy.
        self.assertEqual(self.say("del %s default node--1-cni-c1-eth0" % WEP), "")
        self.add("c1", pod)
        self.assertEqual(len(self.endpoints()), 1)
        # The interface was lost: made anew.
        run("ip", "-n", pod, "link", "del", "eth0")
        self.add("c1", pod)
        self.assertEqual(len(ip_json(pod, "link", "show", "eth0")), 1)
        self.assertEqual(len(self.endpoints()), 1)
        self.assertEqual(len([k for k in self.keys() if k.startswith("/a/")]), 1)

    def test_same_add_again_after_restart(self):
        pod = self.new_netns()
        first = self.add("c1", pod)
        self.stop()
        self.start()
        self.assertEqual(self.stats()["attachments"], 1)
        self.assertEqual(self.add("c1", pod), first)
        self.delete("c1", pod)
        self.assertEqual(self.host_links(), {})
        self.assertEqual(self.endpoints(), [])

    def test_new_container_of_the_same_pod(self):
        a, b = self.new_netns(), self.new_netns()
        self.put_namespace("shop")
        self.put_pod("shop", "web-0")
        args = self.k8s("shop", "web-0")
        self.add("old", a, args=args)
        new = self.add("new", b, args=args)
        self.assertEqual(len(self.host_links()), 1)
        # The late DEL of the old one frees only what the old one still holds.
        self.delete("old", a, args=args)
        self.delete("old", None, args="")
        self.assertEqual(len(self.host_links()), 1)
        w = self.get(WEP, "shop", "node--1-k8s-web--0-eth0")
        self.assertEqual(w["spec"]["containerID"], "new")
        self.assertEqual(w["spec"]["ipNetworks"], [new["ips"][0]["address"]])
        self.assertEqual(len([k for k in self.keys() if k.startswith("/a/")]), 1)
        self.assertEqual(self.call("CHECK", "new", b, args=args, prevResult=new)[0], 0)
        self.delete("new", b, args=args)
        self.assertEqual(self.host_links(), {})

    def test_ipv6(self):
        pod = self.new_netns()
        r = self.add("c1", pod, ipam={"type": "calico-ipam", "assign_ipv6": "true"})
        self.assertEqual([x["address"].split("/")[1] for x in r["ips"]], ["32", "128"])
        v6 = r["ips"][1]["address"][:-4]
        routes = {x["dst"]: x for x in ip_json(pod, "-6", "route")}
        self.assertEqual(routes["default"]["gateway"], "fe80::ecee:eeff:feee:eeee")
        addrs = ip_json(pod, "addr", "show", "eth0")[0]["addr_info"]
        self.assertFalse([a for a in addrs if a.get("tentative")])
        host = self.host_links()
        addrs = ip_json(self.host, "addr", "show", list(host)[0])[0]["addr_info"]
        self.assertIn("fe80::ecee:eeff:feee:eeee", [a["local"] for a in addrs])
        self.assertEqual(ip_json(self.host, "-6", "route", "show", v6)[0]["dev"], list(host)[0])
        if shutil.which("ping"):
            run("ip", "netns", "exec", self.host, "ping", "-6", "-c1", "-W2", v6)

    def test_mtu_forwarding_and_old_versions(self):
        for i, version in enumerate(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]):
            pod = self.new_netns()
            r = self.add("c%d" % i, pod, mtu=1400, cniVersion=version, dns={"domain": "x"},
                         container_settings={"allow_ip_forwarding": True})
            self.assertEqual((r["cniVersion"], r["dns"]), (version, {"domain": "x"}))
            self.assertEqual(ip_json(pod, "link", "show", "eth0")[0]["mtu"], 1400)
            self.assertEqual(run("ip", "netns", "exec", pod, "cat",
                                 "/proc/sys/net/ipv4/ip_forward"), "1\n")
            if version < "0.3":
                self.assertTrue(r["ip4"]["ip"].endswith("/32"))
                self.assertNotIn("interfaces", r)
            else:
                self.assertEqual(r["ips"][0].get("version"), "4" if version < "1" else None)
                self.assertEqual(len(r["interfaces"]), 2)

    def test_chained_after_another(self):
        pod = self.new_netns()
        prev = {"cniVersion": "1.0.0", "interfaces": [{"name": "lo", "sandbox": "x"}],
                "ips": [{"address": "127.0.0.1/8", "interface": 0}]}
        r = self.add("c1", pod, prevResult=prev)
        self.assertEqual([x["name"] for x in r["interfaces"]],
                         ["lo", r["interfaces"][1]["name"], "eth0"])
        self.assertEqual([x["interface"] for x in r["ips"]], [0, 2])

    def test_locked_datastore(self):
        pod = self.new_netns()
        info = {"apiVersion": "projectcalico.org/v3", "kind": "ClusterInformation"}
        kind = "ClusterInformation.projectcalico.org"
        self.put(kind, "-", "default", dict(info, spec={"datastoreReady": False}))
        code, out = self.call("ADD", "c1", pod)
        self.assertEqual((code, out["code"]), (1, 11))
        self.assertIn("datastoreReady", out["msg"])
        self.put(kind, "-", "default", dict(info, spec={"datastoreReady": True}))
        self.add("c1", pod)

    def test_ids_that_begin_alike(self):
        a = self.add("0123456789abcd1", self.new_netns())
        b = self.add("0123456789abcd2", self.new_netns())
        self.assertNotEqual(a["interfaces"][0]["name"], b["interfaces"][0]["name"])
        self.assertEqual(len(self.host_links()), 2)
        self.delete("0123456789abcd1", None)
        self.assertEqual(list(self.host_links()), [b["interfaces"][0]["name"]])

    def test_two_interfaces_of_one_container(self):
        pod = self.new_netns()
        a = self.add("c1", pod)
        b = self.add("c1", pod, "net1", name="net2")
        self.assertNotEqual(a["interfaces"][0]["name"], b["interfaces"][0]["name"])
        self.delete("c1", pod)
        self.assertEqual(list(self.host_links()), [b["interfaces"][0]["name"]])
        self.delete("c1", pod, "net1", name="net2")
        self.assertEqual(self.host_links(), {})

    def test_refused(self):
        pod = self.new_netns()
        cases = [
            (dict(netns="/proc/self/ns/net"), 4, "CNI_NETNS"),
            (dict(netns=pod, args="K8S_POD_NAMESPACE=../x;K8S_POD_NAME=y"), 4, "K8S_POD_NAMESPACE"),
            (dict(netns=pod, ipam={}), 7, "ipam"),
            (dict(netns=pod, mtu=20), 7, "mtu"),
            (dict(netns=pod, labels={"a": 1}), 7, "labels"),
            (dict(netns=pod, args="MARGAY_LABELS=nonsense"), 4, "MARGAY_LABELS"),
        ]
        for kw, code, text in cases:
            with self.subTest(kw):
                if kw["netns"].startswith("/proc"):
                    kw["netns"] = "/run/netns/" + self.host
                rc, out = self.call("ADD", "c1", **kw)
                self.assertEqual((rc, out["code"]), (1, code), out)
                self.assertIn(text, out["msg"])
                self.assertEqual(out["cniVersion"], "1.0.0")
        self.assertEqual(self.endpoints(), [])

    def test_interface_that_the_pod_has_already(self):
        pod = self.new_netns()
        run("ip", "-n", pod, "link", "add", "eth0", "type", "veth", "peer", "name", "other")
        code, out = self.call("ADD", "c1", pod)
        self.assertEqual(code, 1)
        self.assertIn("eth0", out["msg"])
        self.assertEqual((self.endpoints(), self.host_links()), ([], {}))
        self.assertEqual(ip_json(pod, "link", "show", "eth0")[0]["ifname"], "eth0")

    def test_host_interface_of_somebody_else_is_left_alone(self):
        pod = self.new_netns()
        run("ip", "-n", self.host, "tuntap", "add", "calic1", "mode", "tap")
        code, out = self.call("ADD", "c1", pod)
        self.assertEqual((code, out["code"]), (1, 11))
        self.assertIn("calic1", out["msg"])
        self.assertEqual(list(self.host_links()), ["calic1"])
        self.assertEqual(self.endpoints(), [])


class Del(Server):
    def test_twice_without_namespace_and_unknown(self):
        pod = self.new_netns()
        self.delete("never", pod)
        self.delete("never", None)
        self.add("c1", pod)
        run("ip", "netns", "del", pod)
        self.delete("c1", "/run/netns/" + pod)
        self.delete("c1", None)
        self.assertEqual(self.endpoints(), [])
        self.assertEqual(self.stats()["attachments"], 0)

    def test_of_another_network_does_nothing(self):
        pod = self.new_netns()
        self.add("c1", pod)
        self.delete("c1", pod, name="other")
        self.assertEqual(len(self.host_links()), 1)

    def test_parallel_ones_share_removals(self):
        pods = [self.new_netns() for _ in range(24)]
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            rs = list(pool.map(lambda x: self.add("c%02d" % x[0], x[1]), enumerate(pods)))
            self.assertEqual(len({r["ips"][0]["address"] for r in rs}), 24)
            self.assertEqual(len(self.host_links()), 24)
            list(pool.map(lambda x: self.delete("c%02d" % x[0], x[1]), enumerate(pods)))
        self.assertEqual(self.host_links(), {})
        self.assertEqual(self.endpoints(), [])
        s = self.stats()
        self.assertEqual((s["attachments"], s["requests"], s["links"]), (0, 0, 0))
        self.assertLess(s["removals"], 20)

    def test_endpoint_named_after_a_foreign_interface_deletes_nothing(self):
        pod = self.new_netns()
        self.add("c1", pod)
        run("ip", "-n", self.host, "link", "add", "eth9", "type", "veth", "peer", "name", "eth8")
        w = self.get(WEP, "default", "node--1-cni-c1-eth0")
        w["spec"]["interfaceName"] = "eth9"
        self.put(WEP, "default", "node--1-cni-c1-eth0", w)
        self.stop()
        self.start()
        self.delete("c1", pod)
        self.assertIn("eth9", self.host_links())

    def test_spool(self):
        pods = [self.new_netns() for _ in range(3)]
        for i, pod in enumerate(pods):
            self.add("c%d" % i, pod)
        self.stop()
        for i, pod in enumerate(pods):
            self.delete("c%d" % i, pod)
        self.assertEqual(len(self.host_links()), 3)
        spool = os.path.join(self.dir, "state", "spool")
        self.assertEqual(len(os.listdir(spool)), 3)
        with open(os.path.join(spool, "0-bad.del"), "w") as f:
            f.write("nonsense")
        with open(os.path.join(self.dir, "secret"), "w") as f:
            f.write("x")
        os.symlink(os.path.join(self.dir, "secret"), os.path.join(spool, "1-link.del"))
        with open(os.path.join(spool, ".unfinished.del"), "w") as f:
            f.write("x")
        self.start()
        self.assertEqual(self.say("spool " + spool), "3 ")
        for _ in range(100):
            if not self.host_links() and len(os.listdir(spool)) == 1:
                break
            time.sleep(0.05)
        self.assertEqual(self.host_links(), {})
        self.assertEqual(os.listdir(spool), [".unfinished.del"])
        self.assertTrue(os.path.exists(os.path.join(self.dir, "secret")))
        self.assertEqual(self.endpoints(), [])
        self.assertEqual(self.say("spool " + spool), "0 ")
        self.assertEqual(self.say("spool " + self.dir + "/nowhere"), "0 ")


class Others(Server):
    def test_check(self):
        pod = self.new_netns()
        r = self.add("c1", pod)
        ok = dict(prevResult=r)
        self.assertEqual(self.call("CHECK", "c1", pod, **ok), (0, None))
        self.assertEqual(self.call("CHECK", "c2", pod, **ok)[1]["code"], 3)
        run("ip", "-n", pod, "route", "del", "default")
        code, out = self.call("CHECK", "c1", pod, **ok)
        self.assertEqual((code, out["code"]), (1, 100))
        self.assertIn("route", out["msg"])
        run("ip", "-n", pod, "route", "add", "default", "via", "169.254.1.1")
        self.assertEqual(self.call("CHECK", "c1", pod, **ok), (0, None))
        w = self.get(WEP, "default", "node--1-cni-c1-eth0")
        self.assertEqual(self.say("del %s default node--1-cni-c1-eth0" % WEP), "")
        self.assertEqual(self.call("CHECK", "c1", pod, **ok)[1]["code"], 100)
        self.put(WEP, "default", "node--1-cni-c1-eth0", w)
        self.assertEqual(self.call("CHECK", "c1", pod, **ok), (0, None))
        wrong = json.loads(json.dumps(r))
        wrong["ips"][0]["address"] = "10.0.0.9/32"
        self.assertEqual(self.call("CHECK", "c1", pod, prevResult=wrong)[1]["code"], 100)
        run("ip", "-n", pod, "addr", "del", r["ips"][0]["address"], "dev", "eth0")
        code, out = self.call("CHECK", "c1", pod, **ok)
        self.assertEqual((code, out["code"]), (1, 100))
        self.assertIn("address", out["msg"])

    def test_gc(self):
        pods = [self.new_netns() for _ in range(4)]
        for i, pod in enumerate(pods[:3]):
            self.add("c%d" % i, pod)
        self.add("c3", pods[3], name="other")
        code, out = self.call("GC", "", cniVersion="1.1.0", ifname="", **{
            "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]})
        self.assertEqual((code, out), (0, None))
        self.assertEqual(len(self.endpoints()), 2)
        self.assertEqual(sorted(self.host_links()), ["calic1", "calic3"])
        code, out = self.call("GC", "", cniVersion="1.1.0", ifname="")
        self.assertEqual((code, out["code"]), (1, 7))
        self.assertEqual(len(self.endpoints()), 2)

    def test_status(self):
        code, out = self.call("STATUS", "", cniVersion="1.1.0", ifname="")
        self.assertEqual((code, out), (0, None))

    def test_hostile_connections(self):
        frames = [
            b"MGC1", b"MGC1" + b"\xff" * 8, b"MGC1" + struct.pack("!II", 1, 4) + b"\0" * 4,
            b"MGC1" + struct.pack("!II", 2, 0), b"MGC1" + struct.pack("!II", 1, 100) + b"\xff" * 100,
            b"MGC1" + struct.pack("!II", 1, 36) + b"\0" * 36,
        ]
        for f in frames:
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(5)
            s.connect(self.sock)
            s.sendall(f)
            if len(f) > 12:
                try:
                    self.assertIn(s.recv(4), (b"MGC1", b""))
                except ConnectionResetError:
                    pass
            s.close()
        time.sleep(0.2)
        self.assertEqual(self.stats()["requests"], 0)
        self.add("c1", self.new_netns())

    def test_too_many_are_told_to_come_again(self):
        held = []
        for _ in range(200):
            s = socket.socket(socket.AF_UNIX)
            s.connect(self.sock)
            s.sendall(b"MGC1")
            held.append(s)
        time.sleep(0.3)
        code, out = self.call("ADD", "c1", self.new_netns())
        self.assertEqual((code, out["code"]), (1, 11))
        for s in held:
            s.close()
        time.sleep(0.3)
        self.add("c2", self.new_netns())


if __name__ == "__main__":
    if os.geteuid() != 0 or not shutil.which("ip"):
        sys.exit(77)
    unittest.main(verbosity=2 if "-v" in sys.argv else 1, argv=[a for a in sys.argv if a != "-v"])
