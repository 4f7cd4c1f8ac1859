#!/usr/bin/python3
"""The exec'd plugin against a fake agent: the program of MARGAY_CNI is run as a runtime runs it."""
import json
import os
import random
import resource
import shutil
import socket
import stat
import struct
import subprocess
import tempfile
import threading
import time
import unittest

PLUGIN = os.environ["MARGAY_CNI"]
IS_STATIC = os.environ.get("MARGAY_CNI_IS_STATIC") == "1"
REQUEST, ANSWER, DELEGATE, DELEGATED = 1, 2, 3, 4
STRINGS = ["program", "command", "containerid", "netns", "ifname", "args", "path", "stdin"]
VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
MIB = 1 << 20


def wire_str(data):
    data = data.encode() if isinstance(data, str) else data
    return struct.pack("!I", len(data)) + data


def frame(kind, body):
    return b"MGC1" + struct.pack("!II", kind, len(body)) + body


def decode_request(data):
    """One REQUEST frame as a dict; raises on anything that is not exactly that."""
    magic, kind, length = struct.unpack("!4sII", data[:12])
    assert magic == b"MGC1" and kind == REQUEST and length == len(data) - 12, data[:12]
    flags = struct.unpack("!I", data[12:16])[0]
    out, at = {"flags": flags}, 16
    for name in STRINGS:
        n = struct.unpack("!I", data[at:at + 4])[0]
        out[name] = data[at + 4:at + 4 + n]
        assert len(out[name]) == n
        at += 4 + n
    assert at == len(data)
    return out


class Agent(threading.Thread):
    """Takes one connection; `script(agent, conn)` plays it after the request was read."""

    def __init__(self, path, script, delay=0.0, uid=None):
        super().__init__(daemon=True)
        self.path, self.script, self.delay, self.uid = path, script, delay, uid
        self.request, self.fds, self.raw, self.error = None, [], b"", None
        self.ready = threading.Event()
        if delay == 0:
            self.listen()

    def listen(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.bind(self.path)
        if self.uid is not None:
            os.seteuid(self.uid)  # the peer's user is the one who listened
        try:
            self.sock.listen(4)
        finally:
            if self.uid is not None:
                os.seteuid(0)
        self.sock.settimeout(20)
        self.ready.set()

    def read(self, conn, n):
        data = b""
        while len(data) < n:
            more, fds, _, _ = socket.recv_fds(conn, min(n - len(data), 65536), 8)
            self.fds += fds
            if not more:
                raise EOFError("plugin closed after %d of %d bytes" % (len(data), n))
            data += more
        return data

    def read_frame(self, conn):
        head = self.read(conn, 12)
        return head + self.read(conn, struct.unpack("!I", head[8:])[0])

    def run(self):
        try:
            if self.delay:
                time.sleep(self.delay)
                self.listen()
            conn, _ = self.sock.accept()
            with conn:
                conn.settimeout(20)
                self.raw = self.read_frame(conn)
                self.request = decode_request(self.raw)
                self.script(self, conn)
        except Exception as e:  # reported by the test
            self.error = e
        finally:
            self.sock.close()

    def finish(self):
        self.join(25)
        for fd in self.fds:
            os.close(fd)
        if self.error is not None:
            raise self.error


def answers(code, text):
    return lambda agent, conn: conn.sendall(frame(ANSWER, struct.pack("!I", code) + text))


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="cni-")
        self.addCleanup(shutil.rmtree, self.dir, True)
        self.sock = os.path.join(self.dir, "agent.sock")
        self.state = os.path.join(self.dir, "state")
        self.spool = os.path.join(self.state, "spool")
        self.bin = os.path.join(self.dir, "bin")
        os.mkdir(self.bin)
        for name in ["margay-cni", "margay-ipam", "calico", "calico-ipam"]:
            os.symlink(PLUGIN, os.path.join(self.bin, name))

    def env(self, command, **change):
        env = {"CNI_COMMAND": command, "CNI_CONTAINERID": "c0ffee", "CNI_NETNS": "/proc/self/ns/net",
               "CNI_IFNAME": "eth0", "CNI_ARGS": "K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop",
               "CNI_PATH": "/nowhere:" + self.bin, "MARGAY_AGENT_SOCKET": self.sock,
               "MARGAY_STATE_DIR": self.state}
        for k in ["ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"]:
            if k in os.environ:
                env[k] = os.environ[k]
        env.update(change)
        return {k: v for k, v in env.items() if v is not None}

    def conf(self, **change):
        conf = {"cniVersion": "1.0.0", "name": "pod-net", "type": "margay-cni"}
        conf.update(change)
        return json.dumps({k: v for k, v in conf.items() if v is not None}).encode()

    def plugin(self, command, stdin=None, program="margay-cni", **change):
        stdin = self.conf() if stdin is None else stdin
        p = subprocess.run([os.path.join(self.bin, program)], env=self.env(command, **change),
                           input=stdin, capture_output=True, timeout=60, check=False)
        self.assertEqual(p.stderr, b"", "nothing belongs on stderr")
        return p

    def call(self, command, script, **kw):
        agent = Agent(self.sock, script)
        agent.start()
        p = self.plugin(command, **kw)
        return agent, p

    def assert_error(self, p, code, *words, version="1.0.0"):
        self.assertEqual(p.returncode, 1, p.stdout)
        e = json.loads(p.stdout)
        self.assertEqual((e["code"], e["cniVersion"]), (code, version), e)
        for w in words:
            self.assertIn(w, e["msg"] + " | " + e["details"])
        return e

    def spooled(self):
        return sorted(os.listdir(self.spool)) if os.path.isdir(self.spool) else []


class WithAgent(Case):
    def test_add_carries_everything_and_prints_the_answer(self):
        def script(agent, conn):
            agent.ino = [os.fstat(fd).st_ino for fd in agent.fds]
            answers(0, b'{"ips": []}\n')(agent, conn)
        text = self.conf(prevResult={"x": "ü"}, socket="/overridden/by/env")
        agent, p = self.call("ADD", script, stdin=text)
        agent.finish()
        self.assertEqual((p.returncode, p.stdout), (0, b'{"ips": []}\n'))
        r = agent.request
        self.assertEqual(r, {
            "flags": 1, "program": b"margay-cni", "command": b"ADD", "containerid": b"c0ffee",
            "netns": b"/proc/self/ns/net", "ifname": b"eth0",
            "args": b"K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop",
            "path": ("/nowhere:" + self.bin).encode(), "stdin": text})
        self.assertEqual(agent.ino, [os.stat("/proc/self/ns/net").st_ino])

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_add_hands_over_the_pods_namespace_not_ours(self):
        pod = subprocess.Popen(["unshare", "-n", "sleep", "30"])
        try:
            path = "/proc/%d/ns/net" % pod.pid
            own = os.stat("/proc/self/ns/net").st_ino
            end = time.time() + 5
            while os.stat(path).st_ino == own and time.time() < end:
                time.sleep(0.01)

            def script(agent, conn):
                agent.ino = [os.fstat(fd).st_ino for fd in agent.fds]
                answers(0, b"{}")(agent, conn)
            agent, _ = self.call("ADD", script, CNI_NETNS=path)
            agent.finish()
            self.assertEqual(agent.ino, [os.stat(path).st_ino])
            self.assertNotEqual(agent.ino, [own])
        finally:
            pod.kill()
            pod.wait()

    def test_error_answer_is_passed_on_with_its_exit_code(self):
        agent, p = self.call("ADD", answers(7, b'{"code": 11}'))
        agent.finish()
        self.assertEqual((p.returncode, p.stdout), (7, b'{"code": 11}'))

    def test_programs_by_name(self):
        for name in ["margay-cni", "margay-ipam", "calico", "calico-ipam"]:
            with self.subTest(name):
                agent, p = self.call("ADD", answers(0, b"{}"), program=name)
                agent.finish()
                os.unlink(self.sock)
                self.assertEqual(p.returncode, 0)
                self.assertEqual(agent.request["program"], name.encode())
                self.assertEqual(agent.request["flags"], 0 if "ipam" in name else 1)
                self.assertEqual(len(agent.fds), 0 if "ipam" in name else 1)

    def test_a_program_of_another_name_is_margay_cni(self):
        os.symlink(PLUGIN, os.path.join(self.bin, "renamed"))
        agent, p = self.call("ADD", answers(0, b"{}"), program="renamed")
        agent.finish()
        self.assertEqual((p.returncode, agent.request["program"]), (0, b"margay-cni"))

    def test_socket_from_the_configuration(self):
        agent = Agent(self.sock, answers(0, b"{}"))
        agent.start()
        text = b'{"name":"n","plugins":[{"socket":"/no"}],"soc\\u006bet":"' + self.sock.encode() + b'"}'
        p = self.plugin("ADD", stdin=text, MARGAY_AGENT_SOCKET=None)
        agent.finish()
        self.assertEqual((p.returncode, p.stdout), (0, b"{}"))

    def test_agent_that_starts_late_is_waited_for(self):
        agent = Agent(self.sock, answers(0, b"late"), delay=0.7)
        agent.start()
        p = self.plugin("ADD")
        agent.finish()
        self.assertEqual((p.returncode, p.stdout), (0, b"late"))

    def test_del_with_agent_is_not_spooled_and_sends_the_namespace(self):
        agent, p = self.call("DEL", answers(0, b""))
        agent.finish()
        self.assertEqual((p.returncode, p.stdout, agent.request["flags"]), (0, b"", 1))
        self.assertEqual(self.spooled(), [])

    def test_del_that_the_agent_cannot_do_now_is_queued(self):
        agent, p = self.call("DEL", answers(11, b'{"code": 11}'))
        agent.finish()
        self.assertEqual((p.returncode, p.stdout), (0, b""))
        self.assertEqual(len(self.spooled()), 1)

    def test_del_without_a_namespace(self):
        for netns in ["", None, "/gone", "/dev/null"]:
            with self.subTest(netns):
                agent, p = self.call("DEL", answers(0, b""), CNI_NETNS=netns)
                agent.finish()
                os.unlink(self.sock)
                self.assertEqual((p.returncode, agent.request["flags"], agent.fds), (0, 0, []))
                self.assertEqual(agent.request["netns"], (netns or "").encode())

    def test_del_refused_by_the_agent_fails(self):
        agent, p = self.call("DEL", answers(1, b'{"code": 5}'))
        agent.finish()
        self.assertEqual((p.returncode, p.stdout), (1, b'{"code": 5}'))
        self.assertEqual(self.spooled(), [])

    def test_gc_and_status_name_no_container(self):
        for command in ["GC", "STATUS"]:
            with self.subTest(command):
                agent, p = self.call(command, answers(0, b""), stdin=self.conf(cniVersion="1.1.0"),
                                     CNI_CONTAINERID="../..", CNI_IFNAME="a/b", CNI_NETNS="dummy")
                agent.finish()
                os.unlink(self.sock)
                self.assertEqual(p.returncode, 0, p.stdout)
                r = agent.request
                self.assertEqual((r["command"], r["containerid"], r["netns"], r["ifname"]),
                                 (command.encode(), b"", b"", b""))

    def test_large_stdin_and_large_answer_arrive_whole(self):
        pad = "x" * (MIB - len(self.conf(pad="")))
        text = self.conf(pad=pad)
        self.assertEqual(len(text), MIB)
        reply = os.urandom(MIB)
        n_fds = []

        def script(agent, conn):
            n_fds.append(len(agent.fds))
            answers(0, reply)(agent, conn)
        agent, p = self.call("ADD", script, stdin=text)
        agent.finish()
        self.assertEqual(agent.request["stdin"], text)
        self.assertEqual(n_fds, [1], "the namespace goes once, however often send is called")
        self.assertEqual(p.stdout, reply)

    def test_odd_agents(self):
        head = struct.pack("!I", 0)
        for name, data in {
                "no frame": b"HTTP/1.1 400 Bad Request\r\n\r\n",
                "too long": b"MGC1" + struct.pack("!II", ANSWER, 1 << 30),
                "unknown type": frame(9, b"abcd"),
                "no code": frame(ANSWER, b"ab"),
                "text above the limit": frame(ANSWER, head + b"x" * (MIB + 1)),
                "failure without reason": frame(ANSWER, struct.pack("!I", 1)),
                "delegation cut": frame(DELEGATE, wire_str("host-local")[:-1]),
                "delegation length": frame(DELEGATE, struct.pack("!I", 0xffffffff) + b"abc"),
                "delegation with more": frame(DELEGATE, wire_str("a") + wire_str("ADD") +
                                              wire_str("{}") + b"x"),
                "delegation outside": frame(DELEGATE, wire_str("../x") + wire_str("ADD") +
                                            wire_str("{}")),
                "delegation dot dot": frame(DELEGATE, wire_str("..") + wire_str("ADD") +
                                            wire_str("{}")),
                "delegation of nothing": frame(DELEGATE, wire_str("") + wire_str("ADD") +
                                               wire_str("{}")),
                "delegation with NUL": frame(DELEGATE, wire_str(b"a\0b") + wire_str("ADD") +
                                             wire_str("{}")),
                "delegation command": frame(DELEGATE, wire_str("a") + wire_str("ADD\0X") +
                                            wire_str("{}"))}.items():
            with self.subTest(name):
                def script(agent, conn, data=data):
                    try:
                        conn.sendall(data)
                    except OSError:
                        pass  # the plugin left in the middle: the right thing to do
                agent, p = self.call("ADD", script)
                agent.finish()
                os.unlink(self.sock)
                self.assert_error(p, 5, self.sock, "same release")

    def test_agent_that_goes_away_before_it_answers(self):
        for name, data in {"at once": b"", "in a header": b"MGC1\0", "in a body":
                           frame(ANSWER, b"\0\0\0\0full")[:-1]}.items():
            with self.subTest(name):
                def script(agent, conn, data=data):
                    conn.sendall(data)
                agent, p = self.call("ADD", script)
                agent.finish()
                os.unlink(self.sock)
                self.assert_error(p, 11, "went away", self.sock)
                agent, p = self.call("DEL", script)
                agent.finish()
                os.unlink(self.sock)
                self.assertEqual((p.returncode, p.stdout), (0, b""))
        self.assertEqual(len(self.spooled()), 3)

    def test_agent_that_never_answers(self):
        def script(agent, conn):
            conn.recv(1)  # until the plugin gives up
        agent, p = self.call("ADD", script, MARGAY_AGENT_TIMEOUT_MS="150")
        agent.finish()
        os.unlink(self.sock)
        self.assert_error(p, 11, "no answer in 150 ms")
        agent, p = self.call("DEL", script, MARGAY_AGENT_TIMEOUT_MS="150")
        agent.finish()
        os.unlink(self.sock)
        self.assertEqual((p.returncode, len(self.spooled())), (0, 1))
        agent, p = self.call("STATUS", script, MARGAY_AGENT_TIMEOUT_MS="150",
                             stdin=self.conf(cniVersion="1.1.0"))
        agent.finish()
        self.assert_error(p, 50, version="1.1.0")

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_socket_of_another_user_gets_nothing(self):
        os.chmod(self.dir, 0o777)
        def script(agent, conn):
            raise AssertionError("the plugin sent a request")
        agent = Agent(self.sock, script, uid=65534)
        agent.start()
        p = self.plugin("ADD")
        self.assert_error(p, 5, "user 65534")
        agent.join(25)
        self.assertIsInstance(agent.error, EOFError)
        self.assertEqual((agent.raw, agent.fds), (b"", []))


class Delegation(Case):
    def put(self, name, body, mode=0o755):
        path = os.path.join(self.bin, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\n" + body)
        os.chmod(path, mode)

    def delegate(self, kind, command, stdin, rounds=1, **kw):
        """Runs ADD whose agent delegates; what came back, as (code, text) a round."""
        got = []

        def script(agent, conn):
            for _ in range(rounds):
                conn.sendall(frame(DELEGATE, wire_str(kind) + wire_str(command) + wire_str(stdin)))
                data = agent.read_frame(conn)
                assert data[:8] == b"MGC1" + struct.pack("!I", DELEGATED)
                got.append((struct.unpack("!I", data[12:16])[0], data[16:]))
            answers(0, b"done")(agent, conn)
        agent, p = self.call("ADD", script, **kw)
        agent.finish()
        self.assertEqual((p.returncode, p.stdout), (0, b"done"))
        return got

    def test_runs_it_with_our_environment_and_its_own_command(self):
        self.put("host-local", 'echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_ARGS"; cat')
        got = self.delegate("host-local", "CHECK", b'{"a": 1}')
        self.assertEqual(got, [(0, b"CHECK c0ffee eth0 K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop\n"
                                   b'{"a": 1}')])

    def test_command_stands_once_in_its_environment(self):
        self.put("static", "cat /proc/$$/environ")
        env = self.delegate("static", "DEL", b"")[0][1].split(b"\0")
        self.assertEqual([e for e in env if e.startswith(b"CNI_COMMAND=")], [b"CNI_COMMAND=DEL"])

    def test_exit_code_and_error_text_come_back(self):
        self.put("dhcp", 'echo "{\\"code\\": 100}"; exit 3')
        self.assertEqual(self.delegate("dhcp", "DEL", b"{}"), [(3, b'{"code": 100}\n')])

    def test_many_rounds_up_to_the_limit(self):
        self.put("static", "cat")
        self.assertEqual(self.delegate("static", "ADD", b"x", rounds=16), [(0, b"x")] * 16)

        def script(agent, conn):
            try:
                for _ in range(40):
                    conn.sendall(frame(DELEGATE, wire_str("static") + wire_str("ADD") +
                                       wire_str("x")))
                    agent.read_frame(conn)
            except (EOFError, OSError):
                pass
        os.unlink(self.sock)
        agent, p = self.call("ADD", script)
        agent.finish()
        self.assert_error(p, 5, "too many")

    def test_missing_plugin(self):
        code, text = self.delegate("nothing", "ADD", b"{}")[0]
        e = json.loads(text)
        self.assertEqual((code, e["code"]), (1, 7))
        self.assertIn('"nothing" is not in CNI_PATH', e["msg"])

    def test_folders_and_plain_files_are_no_plugins(self):
        os.mkdir(os.path.join(self.bin, "folder"))
        self.put("plain", "cat", mode=0o644)
        for name in ["folder", "plain"]:
            code, text = self.delegate(name, "ADD", b"{}")[0]
            os.unlink(self.sock)
            self.assertEqual((code, json.loads(text)["code"]), (1, 7))

    def test_first_folder_wins_and_empty_ones_are_not_the_current(self):
        other = os.path.join(self.dir, "other")
        os.mkdir(other)
        self.put("static", "echo second")
        with open(os.path.join(other, "static"), "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\necho first\n")
        os.chmod(os.path.join(other, "static"), 0o755)
        got = self.delegate("static", "ADD", b"", CNI_PATH="::%s:%s:" % (other, self.bin))
        self.assertEqual(got, [(0, b"first\n")])
        os.unlink(self.sock)
        here = os.getcwd()
        os.chdir(self.bin)
        try:
            code, _ = self.delegate("static", "ADD", b"", CNI_PATH="")[0]
        finally:
            os.chdir(here)
        self.assertEqual(code, 1)

    def test_not_reading_stdin_is_fine(self):
        self.put("static", "exec <&-; echo ok")
        self.assertEqual(self.delegate("static", "ADD", b"x" * MIB), [(0, b"ok\n")])

    def test_megabyte_both_ways_at_once(self):
        self.put("static", "cat")
        data = os.urandom(MIB)
        self.assertEqual(self.delegate("static", "ADD", data), [(0, data)])

    def test_too_much_output(self):
        self.put("static", "head -c 1048577 /dev/zero; sleep 60")
        start = time.time()
        code, text = self.delegate("static", "ADD", b"")[0]
        self.assertEqual(code, 1)
        self.assertIn("more than 1 MiB", json.loads(text)["msg"])
        self.assertLess(time.time() - start, 20)

    def test_death_by_signal(self):
        self.put("static", "echo half; kill -9 $$")
        code, text = self.delegate("static", "ADD", b"")[0]
        self.assertEqual(code, 1)
        self.assertIn("signal 9", json.loads(text)["msg"])

    def test_sigpipe_is_as_usual_in_the_delegate(self):
        self.put("static", "grep SigIgn /proc/self/status")
        text = self.delegate("static", "ADD", b"")[0][1]
        self.assertEqual(int(text.split()[1], 16) & (1 << 12), 0)

    def test_delegate_inherits_no_descriptor_of_ours(self):
        self.put("static", "ls -l /proc/self/fd")
        text = self.delegate("static", "ADD", b"")[0][1].decode()
        self.assertNotIn("socket:", text)
        self.assertNotIn("net:[", text)
        self.assertEqual(text.count("pipe:"), 3, text)

    def test_delegate_that_hangs_is_ended(self):
        self.put("static", "sleep 60; echo never")  # the child of the shell must go too
        def script(agent, conn):
            conn.sendall(frame(DELEGATE, wire_str("static") + wire_str("ADD") + wire_str("{}")))
            agent.text = agent.read_frame(conn)
            conn.recv(1)
        start = time.time()
        agent, p = self.call("ADD", script, MARGAY_AGENT_TIMEOUT_MS="300")
        agent.finish()
        self.assertIn(b"did not end in time", agent.text)
        self.assert_error(p, 11)
        self.assertLess(time.time() - start, 20)


class WithoutAgent(Case):
    def test_version(self):
        p = self.plugin("VERSION", stdin=self.conf(cniVersion="0.4.0"))
        self.assertEqual((p.returncode, json.loads(p.stdout)),
                         (0, {"cniVersion": "0.4.0", "supportedVersions": VERSIONS}))

    def test_version_as_podman_asks_and_with_nothing(self):
        for stdin in [b'{"cniVersion":"1.0.0"}', b"", b"not json", b'{"cniVersion":"9.9.9"}']:
            p = self.plugin("VERSION", stdin=stdin, CNI_NETNS="dummy", CNI_PATH="dummy",
                            CNI_IFNAME="dummy/dummy", CNI_CONTAINERID="", CNI_ARGS=None)
            self.assertEqual(p.returncode, 0)
            v = json.loads(p.stdout)
            self.assertEqual(v["supportedVersions"], VERSIONS)
            self.assertIn(v["cniVersion"], VERSIONS)

    def test_own_version_flag(self):
        p = subprocess.run([os.path.join(self.bin, "calico-ipam"), "-v"], env={},
                           capture_output=True, check=False)
        self.assertRegex(p.stdout.decode(), r"^calico-ipam \d+\.\d+\.\d+\n$")

    def test_add_waits_and_then_says_try_again(self):
        for listen in [False, True]:  # no socket; a socket that nobody listens on any more
            if listen:
                s = socket.socket(socket.AF_UNIX)
                s.bind(self.sock)
                s.close()
            start = time.time()
            p = self.plugin("ADD", stdin=self.conf(cniVersion="0.4.0"))
            took = time.time() - start
            self.assert_error(p, 11, self.sock, "margay node", version="0.4.0")
            self.assertTrue(1.9 < took < 4, took)
            self.assertEqual(self.spooled(), [])

    def test_check_and_gc_try_again_status_not_available(self):
        self.assert_error(self.plugin("CHECK"), 11, self.sock)
        text = self.conf(cniVersion="1.1.0")
        self.assert_error(self.plugin("GC", stdin=text), 11, self.sock, version="1.1.0")
        start = time.time()
        self.assert_error(self.plugin("STATUS", stdin=text), 50, self.sock, version="1.1.0")
        self.assertLess(time.time() - start, 1.5)

    def test_del_is_queued(self):
        text = self.conf(prevResult={"ips": []})
        before = time.time_ns()
        p = self.plugin("DEL", stdin=text)
        self.assertEqual((p.returncode, p.stdout), (0, b""))
        name, = self.spooled()
        self.assertRegex(name, r"^\d{20}-[0-9a-f]{16}\.del$")
        self.assertTrue(before <= int(name[:20]) <= time.time_ns())
        path = os.path.join(self.spool, name)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(self.spool).st_mode), 0o700)
        with open(path, "rb") as f:
            r = decode_request(f.read())
        self.assertEqual((r["flags"], r["command"], r["containerid"], r["ifname"], r["stdin"],
                          r["netns"]), (0, b"DEL", b"c0ffee", b"eth0", text, b"/proc/self/ns/net"))

    def test_queued_del_runs_another_ipam_plugin(self):
        """Only the plugin can: the agent that comes later has not the runtime's environment."""
        seen = os.path.join(self.bin, "seen")
        path = os.path.join(self.bin, "host-local")
        for code in (0, 3):
            with open(path, "w", encoding="utf-8") as f:
                f.write('#!/bin/sh\necho "$CNI_COMMAND $CNI_CONTAINERID" >%s\ncat >>%s\n'
                        "echo '{\"code\": 11, \"msg\": \"later\"}'\nexit %d\n" % (seen, seen, code))
            os.chmod(path, 0o755)
            text = self.conf(ipam={"x": [{"type": "no"}], "type": "host-local"})
            p = self.plugin("DEL", stdin=text, CNI_PATH=self.bin)
            self.assertEqual(p.returncode, code)
            if code:
                self.assertEqual(json.loads(p.stdout)["msg"], "later")
            else:
                self.assertEqual(p.stdout, b"")
            with open(seen, "rb") as f:
                self.assertEqual(f.read(), b"DEL c0ffee\n" + text)
            os.unlink(seen)
        self.assertEqual(len(self.spooled()), 2)
        for ipam in ({"type": "margay-ipam"}, {"type": "calico-ipam"}, {"type": 5}, {}, 5,
                     {"type": "../bin/host-local"}):
            p = self.plugin("DEL", stdin=self.conf(ipam=ipam), CNI_PATH=self.bin)
            self.assertEqual((p.returncode, p.stdout), (0, b""), ipam)
            self.assertFalse(os.path.exists(seen), ipam)
        p = self.plugin("DEL", stdin=self.conf(ipam={"type": "nowhere"}), CNI_PATH=self.bin)
        self.assert_error(p, 7, "nowhere")

    def test_every_del_is_kept_in_order(self):
        for i in range(12):
            self.assertEqual(self.plugin("DEL", CNI_CONTAINERID="c%d" % i).returncode, 0)
        ids = []
        for name in self.spooled():
            with open(os.path.join(self.spool, name), "rb") as f:
                ids.append(decode_request(f.read())["containerid"].decode())
        self.assertEqual(ids, ["c%d" % i for i in range(12)])

    def test_state_dir_from_the_configuration_made_with_its_parents(self):
        state = os.path.join(self.dir, "a", "b", "state")
        p = self.plugin("DEL", stdin=self.conf(state_dir=state + "/"), MARGAY_STATE_DIR=None)
        self.assertEqual(p.returncode, 0, p.stdout)
        self.assertEqual(len(os.listdir(os.path.join(state, "spool"))), 1)

    @unittest.skipUnless(IS_STATIC and shutil.which("strace"), "needs strace and the static build")
    def test_del_is_flushed_before_it_succeeds(self):
        self.assertEqual(self.plugin("DEL").returncode, 0)  # makes the folders, with their fsyncs
        log = os.path.join(self.dir, "log")
        subprocess.run(["strace", "-o", log, "-e", "trace=fsync,rename,renameat,renameat2,exit_group",
                        os.path.join(self.bin, "margay-cni")], env=self.env("DEL"),
                       input=self.conf(), check=True)
        with open(log, encoding="utf-8") as f:
            calls = [line.split("(")[0] for line in f if "(" in line]
        at = [i for i, c in enumerate(calls) if c.startswith("rename")]
        self.assertEqual(len(at), 1, calls)
        self.assertEqual([calls[:at[0]], calls[at[0] + 1:]], [["fsync"], ["fsync", "exit_group"]])

    def test_symlinked_spool_is_refused(self):
        target = os.path.join(self.dir, "target")
        os.mkdir(target, 0o700)
        os.mkdir(self.state, 0o700)
        os.symlink(target, self.spool)
        self.assert_error(self.plugin("DEL"), 5, self.spool, "no link")
        self.assertEqual(os.listdir(target), [])

    def test_symlinked_state_dir_is_refused(self):
        target = os.path.join(self.dir, "target")
        os.mkdir(target, 0o700)
        os.symlink(target, self.state)
        self.assert_error(self.plugin("DEL"), 5, self.state)
        self.assertEqual(os.listdir(target), [])

    def test_spool_that_others_can_write_or_own_is_refused(self):
        os.makedirs(self.spool, 0o700)
        os.chmod(self.spool, 0o777)
        self.assert_error(self.plugin("DEL"), 5, "writable by us alone")
        os.chmod(self.spool, 0o700)
        if os.geteuid() == 0:
            os.chown(self.spool, 65534, 65534)
            self.assert_error(self.plugin("DEL"), 5, "ours")
        self.assertEqual(os.listdir(self.spool), [])

    def test_spool_that_is_a_file_is_refused(self):
        os.mkdir(self.state, 0o700)
        with open(self.spool, "w", encoding="utf-8"):
            pass
        self.assert_error(self.plugin("DEL"), 5, self.spool)

    def test_full_disk_fails_and_leaves_nothing(self):
        os.makedirs(self.spool, 0o700)

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
            import signal
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        p = subprocess.run([os.path.join(self.bin, "margay-cni")], env=self.env("DEL"),
                           input=self.conf(), capture_output=True, preexec_fn=limit, check=False)
        self.assert_error(p, 5, "File too large")
        self.assertEqual(self.spooled(), [])


class Hostile(Case):
    """Each is refused before the agent (there is none: a wait of 2 s would show) or the spool."""

    def setUp(self):
        super().setUp()
        self.start = time.time()

    def tearDown(self):
        self.assertEqual(self.spooled(), [])

    def refuse(self, code, *words, command="ADD", version="1.0.0", **kw):
        start = time.time()
        e = self.assert_error(self.plugin(command, **kw), code, *words, version=version)
        self.assertLess(time.time() - start, 1.8)
        return e

    def test_command(self):
        for v in [None, "", "add", "ADD ", "UPDATE", "A" * 100000]:
            with self.subTest(v):
                p = subprocess.run([os.path.join(self.bin, "margay-cni")], capture_output=True,
                                   env=self.env("ADD", CNI_COMMAND=v), input=b"", check=False)
                e = json.loads(p.stdout)
                self.assertEqual((p.returncode, e["code"]), (1, 4))
                self.assertIn("CNI_COMMAND", e["msg"])

    def test_container_id(self):
        for v in [None, "", ".", "..", "../../etc", "-rf", "_a", "a/b", "a b", "a\n", "ä", "a;b",
                  "a" * 256, "a" * 100000]:
            for command in ["ADD", "DEL", "CHECK"]:
                with self.subTest(v=v, command=command):
                    self.refuse(4, "CNI_CONTAINERID", command=command, CNI_CONTAINERID=v)

    def test_longest_container_id_is_taken(self):
        self.assertEqual(self.plugin("DEL", CNI_CONTAINERID="a" * 255).returncode, 0)
        shutil.rmtree(self.spool)

    def test_ifname(self):
        for v in [None, "", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\n", "x" * 16, "x\x01",
                  b"a\xa0b", "\x7f", "y" * 100000]:
            for command in ["ADD", "DEL"]:
                with self.subTest(v=v, command=command):
                    self.refuse(4, "CNI_IFNAME", command=command, CNI_IFNAME=v)

    def test_longest_ifname_is_taken(self):
        self.assertEqual(self.plugin("DEL", CNI_IFNAME="x" * 15).returncode, 0)
        shutil.rmtree(self.spool)

    def test_netns(self):
        fifo = os.path.join(self.dir, "fifo")
        os.mkfifo(fifo)
        for v, code in [(None, 4), ("", 4), ("/no/such", 3), ("/dev/null/x", 3), ("/dev/null", 4),
                        ("/proc/self/ns/mnt", 4), ("/proc/self/ns/user", 4), ("/", 4), (fifo, 4),
                        ("/" + "n" * 5000, 4), ("/" + "n" * 100000, 4)]:
            for command in ["ADD", "CHECK"]:
                with self.subTest(v=v, command=command):
                    self.refuse(code, "CNI_NETNS", command=command, CNI_NETNS=v)

    def test_errors_are_json_whatever_bytes_they_quote(self):
        e = self.refuse(4, CNI_IFNAME=b'"\\\x01\xff\xc3')
        self.assertIn('"\\???', e["msg"])
        self.assertIn("é", self.refuse(3, CNI_NETNS="/no/é")["msg"])

    def test_long_variables(self):
        self.refuse(4, "CNI_ARGS is 65537 bytes", CNI_ARGS="a" * 65537)
        self.refuse(4, "CNI_PATH is 65537 bytes", CNI_PATH="a" * 65537)

    def test_socket_and_state_dir_paths(self):
        self.refuse(4, "MARGAY_AGENT_SOCKET", MARGAY_AGENT_SOCKET="run/agent.sock")
        self.refuse(4, "MARGAY_AGENT_SOCKET", MARGAY_AGENT_SOCKET="/" + "s" * 107)
        self.refuse(7, "socket", stdin=self.conf(socket="agent"), MARGAY_AGENT_SOCKET=None)
        self.refuse(7, "socket", stdin=self.conf(socket="/" + "s" * 107), MARGAY_AGENT_SOCKET=None)
        self.refuse(4, "MARGAY_STATE_DIR", command="DEL", MARGAY_STATE_DIR="state")
        self.refuse(5, "queued", command="DEL", MARGAY_STATE_DIR=self.dir + "/..")

    def test_timeout(self):
        for v in ["0", "-1", "1e3", "1000000", " 5"]:
            self.refuse(4, "MARGAY_AGENT_TIMEOUT_MS", MARGAY_AGENT_TIMEOUT_MS=v)

    def test_huge_stdin(self):
        for command in ["ADD", "DEL", "VERSION"]:
            start = time.time()
            p = self.plugin(command, stdin=b" " * (10 * MIB))
            self.assert_error(p, 6, "longer than 1 MiB", version="0.2.0")
            self.assertLess(time.time() - start, 1.8)
        self.refuse(6, "longer", stdin=self.conf() + b" " * (MIB + 1 - len(self.conf())),
                    version="0.2.0")

    def test_undecodable_stdin_still_names_the_version(self):
        e = self.refuse(6, "not JSON at byte 24", stdin=b'{"cniVersion": "0.3.1", x}',
                        version="0.3.1")
        self.assertIn("of 26", e["msg"])

    def test_fields(self):
        for text, code, word in [
                (b"", 6, "no network configuration"), (b"[]", 6, "byte 0"), (b'"a"', 6, "byte 0"),
                (b'{"name": 5}', 6, '"name"'), (b'{"cniVersion": ["1.0.0"]}', 6, '"cniVersion"'),
                (b'{"name":"a","name":"b"}', 6, "twice"),
                (b'{"name":"a","\\u006eame":"b"}', 6, "twice"),
                (b'{"name":"' + b"a" * 256 + b'"}', 7, "longer than 255"),
                (b'{"name":"a\\u0000b"}', 7, "NUL"), (b"{}", 7, '"name"'),
                (b'{"name":null}', 7, '"name"'), (b'{"Name":"a"}', 7, '"name"'),
                (b'{"name\\u0000":"a"}', 7, '"name"'), (b'{"a":{"name":"x"}}', 7, '"name"'),
                (b'{"name":"../x"}', 7, "../x"), (b'{"name":"n","type":"a/b"}', 7, "a/b")]:
            with self.subTest(text[:40]):
                self.refuse(code, word, stdin=text, version="0.2.0")

    def test_versions(self):
        for v in ["1.2.0", "2.0.0", "0.0.9", "1.0", "1.0.0 ", "x"]:
            self.refuse(1, v, "1.1.0", stdin=self.conf(cniVersion=v), version="1.1.0")
        self.refuse(1, "0.4.0", command="CHECK", stdin=self.conf(cniVersion="0.3.1"),
                    version="0.3.1")
        for command in ["GC", "STATUS"]:
            self.refuse(1, "1.1.0", command=command)

    def test_nesting(self):
        def deep(n):
            return b'{"name":"n","cniVersion":"1.1.0","a":' + b"[" * n + b"]" * n + b"}"
        self.refuse(50, command="STATUS", stdin=deep(63), version="1.1.0")
        self.refuse(6, "64", command="STATUS", stdin=deep(64), version="1.1.0")
        self.refuse(6, "64", command="STATUS", stdin=b'{"cniVersion":"1.1.0","a":' + b"[" * 900000,
                    version="1.1.0")

    def test_json_as_python_reads_it(self):
        """Mutated texts: accepted here exactly if Python's strict reader accepts them."""
        def reference(text):
            def no_constant(name):
                raise ValueError(name)
            try:
                v = json.loads(text.decode("utf-8"), parse_constant=no_constant)
            except (ValueError, RecursionError):
                return False
            return isinstance(v, dict)
        rng = random.Random(20)
        seed = ('{"cniVersion":"1.1.0","name":"n","x":[1,-0.5e+10,0,true,false,null,"a\\u00e9\\"\\\\'
                '\\/\\b\\f\\n\\r\\t\\ud83d\\ude00",{"k":{}},[ ]],"u":"é€😀","z":1E5}').encode()
        pieces = [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b".", b"e", b"\\u",
                  b"\x00", b"\x1f", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
                  b"\xe2\x82", b"01", b"1.", b"NaN", b" ", b"\n", b"\x0b", b"tru", b"\xef\xbb\xbf",
                  b"\\x", b"\\ud800", b"/**/", b"'"]
        accepted = 0
        n = 1500 if IS_STATIC else 200  # with sanitizers each start takes long
        for i in range(n):
            text = bytearray(seed)
            for _ in range(rng.randint(0, 2)):
                at, end = rng.randrange(26, len(text) + 1), 0
                end = min(len(text), at + rng.choice([0, 0, 1, 2, 5]))
                text[at:end] = rng.choice(pieces) if rng.random() < 0.8 else b""
            text = bytes(text)
            p = self.plugin("STATUS", stdin=text)
            code = json.loads(p.stdout)["code"]
            msg = json.loads(p.stdout)["msg"]
            if code == 7 or '"name"' in msg:
                continue  # the mutation hit the name: JSON, but not a configuration
            want = reference(text)
            self.assertEqual(code, 50 if want else 6, (i, text, msg))
            accepted += want
        self.assertTrue(n // 8 < accepted < n - n // 15, accepted)

    def test_closed_standard_descriptors(self):
        for closed in [(0,), (1,), (2,), (0, 1, 2)]:
            def close(closed=closed):
                for fd in closed:
                    os.close(fd)
            p = subprocess.run([os.path.join(self.bin, "margay-cni")], env=self.env("STATUS"),
                               preexec_fn=close, timeout=20, capture_output=True, check=False,
                               stdin=subprocess.DEVNULL)
            self.assertEqual(p.returncode, 1, closed)


@unittest.skipUnless(IS_STATIC, "the static build only")
class Goals(Case):
    def test_small_and_static(self):
        self.assertLess(os.stat(PLUGIN).st_size, 100_000)
        with open(PLUGIN, "rb") as f:
            self.assertNotIn(b"ld-musl", f.read())

    def test_the_ipam_copy_is_the_same_program(self):
        with open(PLUGIN, "rb") as a, open(os.path.join(os.path.dirname(PLUGIN), "margay-ipam"),
                                           "rb") as b:
            self.assertEqual(a.read(), b.read())

    def test_resident_memory(self):
        def script(agent, conn):
            pid = struct.unpack("3i", conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            with open("/proc/%d/status" % pid, encoding="utf-8") as f:
                agent.peak = int(f.read().split("VmHWM:")[1].split()[0])
            answers(0, b"{}")(agent, conn)
        agent, _ = self.call("ADD", script)
        agent.finish()
        self.assertLess(agent.peak, 1024, "KiB")


if __name__ == "__main__":
    unittest.main()
