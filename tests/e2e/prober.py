#!/usr/bin/python3
"""Answers on ports, and finds out which ports answer; runs inside one network namespace.

    prober.py serve NAME FLOW...        FLOW: tcp/80 udp/80 sctp/80
    prober.py probe <questions

`serve` prints `ready` when all its sockets are bound, says NAME to whoever asks and ends when its
standard input does. `probe` reads a question a line, {"timeout": SECONDS, "targets": [[proto,
address, port]]}, until its standard input ends, and prints for each a line with a JSON list of
{"state", "peer"} in the same order, state being one of

    open         it answered; peer is the NAME it said (ICMP: null)
    refused      it answered that there is nobody
    unreachable  an ICMP error came back, or no route
    denied       this host's own rules forbid sending (TCP: such a packet is a timeout)
    timeout      nothing came back
    garbled      something else answered

ICMP errors are not told apart from silence for SCTP and ICMP, and not always for TCP: between
namespaces of one machine the error is back while connect() still holds the socket, and then the
kernel drops it.

All targets are tried at once; each is tried again twice within the time-out, for a packet may be
lost while neighbours are looked up. SCTP is spoken by hand on raw sockets (INIT and INIT ACK, with
NAME as the state cookie), so it needs no SCTP in the kernel, only root.
"""

import errno
import ipaddress
import json
import os
import selectors
import socket
import struct
import sys
import time

ATTEMPTS = 3
MAX_DATAGRAM = 2048
MAX_TARGETS = 20000
SCTP = 132
SCTP_INIT, SCTP_INIT_ACK, SCTP_ABORT = 1, 2, 6
SCTP_COOKIE = 7
ICMP_ECHO = {4: (8, 0), 6: (128, 129)}


def _crc32c_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC32C = _crc32c_table()


def crc32c(data):
    """The checksum of SCTP (RFC 9260, appendix A)."""
    value = 0xFFFFFFFF
    for byte in data:
        value = (value >> 8) ^ CRC32C[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def sctp_packet(sport, dport, tag, chunk_type, body):
    """One SCTP packet with one chunk."""
    chunk = struct.pack('!BBH', chunk_type, 0, 4 + len(body)) + body
    chunk += bytes(-len(chunk) % 4)
    head = struct.pack('!HHI', sport, dport, tag)
    return head + struct.pack('<I', crc32c(head + bytes(4) + chunk)) + chunk


def sctp_parse(packet):
    """(sport, dport, tag, chunk type, chunk body) of the first chunk, None if it is not sane."""
    if len(packet) < 16:
        return None
    sport, dport, tag = struct.unpack_from('!HHI', packet)
    kind, _, length = struct.unpack_from('!BBH', packet, 12)
    if length < 4 or 12 + length > len(packet):
        return None
    if struct.unpack_from('<I', packet, 8)[0] != crc32c(packet[:8] + bytes(4) + packet[12:]):
        return None
    return sport, dport, tag, kind, packet[16:12 + length]


def sctp_init_body(tag, cookie=b''):
    """The body of INIT and, with a cookie, of INIT ACK."""
    body = struct.pack('!IIHHI', tag, 65536, 1, 1, 1)
    if cookie:
        body += struct.pack('!HH', SCTP_COOKIE, 4 + len(cookie)) + cookie
    return body


def sctp_cookie(body):
    """The state cookie in the body of an INIT ACK, or None."""
    offset = 16
    while offset + 4 <= len(body):
        kind, length = struct.unpack_from('!HH', body, offset)
        if length < 4 or offset + length > len(body):
            return None
        if kind == SCTP_COOKIE:
            return body[offset + 4:offset + length]
        offset += length + (-length % 4)
    return None


def icmp_checksum(data):
    """The Internet checksum."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def payload(packet, family):
    """What a raw socket read, without the IPv4 header that it comes with (IPv6: none)."""
    return packet if family == 6 or not packet else packet[(packet[0] & 15) * 4:]


def new_tag():
    """A random SCTP tag; zero is not one."""
    return int.from_bytes(os.urandom(4), 'big') | 1


def family_of(address):
    """4 or 6."""
    return ipaddress.ip_address(address).version


def af_of(family):
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if family == 6 else socket.AF_INET


# --- serve ---------------------------------------------------------------------------------------


class Server:
    """Listeners of both families that say a name."""

    def __init__(self, name, flows):
        self.name = name.encode()
        self.selector = selectors.DefaultSelector()
        sctp_ports = set()
        for flow in flows:
            proto, port = flow.split('/')
            if proto == 'sctp':
                sctp_ports.add(int(port))
            else:
                for family in (4, 6):
                    self._listen(proto, int(port), family)
        if sctp_ports:
            for family in (4, 6):
                sock = socket.socket(af_of(family), socket.SOCK_RAW, SCTP)
                self._add(sock, lambda s, f=family: self._sctp(s, f, sctp_ports))

    def _add(self, sock, handler):
        sock.setblocking(False)
        self.selector.register(sock, selectors.EVENT_READ, handler)

    def _listen(self, proto, port, family):
        kind = {'tcp': socket.SOCK_STREAM, 'udp': socket.SOCK_DGRAM}[proto]
        sock = socket.socket(af_of(family), kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(('::' if family == 6 else '0.0.0.0', port))
        if proto == 'tcp':
            sock.listen(1024)
            self._add(sock, self._accept)
        else:
            self._add(sock, self._datagram)

    def _accept(self, sock):
        connection, _ = sock.accept()
        self._add(connection, self._close)
        connection.send(self.name + b'\n')

    def _close(self, connection):
        """Whatever a TCP client sends, and its end, are ours."""
        try:
            if connection.recv(MAX_DATAGRAM):
                return
        except OSError:
            pass
        self.selector.unregister(connection)
        connection.close()

    def _datagram(self, sock):
        data, peer = sock.recvfrom(MAX_DATAGRAM)
        sock.sendto(data[:16] + self.name, peer)

    def _sctp(self, sock, family, ports):
        packet, peer = sock.recvfrom(MAX_DATAGRAM)
        parsed = sctp_parse(payload(packet, family))
        if parsed is None or parsed[3] != SCTP_INIT or len(parsed[4]) < 16:
            return
        sport, dport, _, _, body = parsed
        tag = struct.unpack_from('!I', body)[0]
        if dport in ports:
            answer = sctp_packet(dport, sport, tag, SCTP_INIT_ACK,
                                 sctp_init_body(new_tag(), self.name))
        else:
            answer = sctp_packet(dport, sport, tag, SCTP_ABORT, b'')
        sock.sendto(answer, (peer[0], 0) if family == 4 else (peer[0], 0, 0, peer[3]))

    def run(self):
        """Serve until standard input ends."""
        self.selector.register(sys.stdin, selectors.EVENT_READ, None)
        print('ready', flush=True)
        while True:
            for key, _ in self.selector.select():
                if key.data is None:
                    if not os.read(key.fd, 4096):
                        return
                    continue
                try:
                    key.data(key.fileobj)
                except OSError:
                    pass  # the client has gone or its answer has no way: it sees a time-out


# --- probe ---------------------------------------------------------------------------------------


class Attempt:
    """One target: how far it is, and what it came to."""

    def __init__(self, prober, number, proto, address, port):
        self.prober = prober
        self.number = number
        self.tag = new_tag()
        self.proto = proto.lower()
        self.address = address
        self.port = port
        self.family = family_of(address)
        self.nonce = os.urandom(16)
        self.sock = None
        self.state = None
        self.peer = None

    def start(self):
        """Send, or send again; a refusal on the spot is the result."""
        try:
            getattr(self, f'_start_{self.proto}')()
        except OSError as error:
            self.fail(error)

    def finish(self, state, peer=None):
        """Settle the result; the first one stands."""
        if self.state is None:
            self.state, self.peer = state, peer
            self.drop()

    def fail(self, error):
        """Settle the result that an errno stands for."""
        if error.errno in (errno.ECONNREFUSED, errno.ECONNRESET):
            self.finish('refused')
        elif error.errno == errno.EPERM:
            self.finish('denied')
        elif error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES,
                             errno.ENOPROTOOPT, errno.EPROTO):
            self.finish('unreachable')
        elif error.errno not in (errno.EAGAIN, errno.EINPROGRESS, errno.ETIMEDOUT):
            raise error

    def drop(self):
        """Close the socket of its own, if it has one."""
        if self.sock is not None:
            self.prober.selector.unregister(self.sock)
            self.sock.close()
            self.sock = None

    def _open(self, kind, events, handler):
        self.drop()
        self.sock = socket.socket(af_of(self.family), kind)
        self.sock.setblocking(False)
        self.prober.selector.register(self.sock, events, handler)

    def _start_tcp(self):
        self._open(socket.SOCK_STREAM, selectors.EVENT_READ, self._read_tcp)
        self.sock.connect((self.address, self.port))

    def _read_tcp(self, sock):
        try:
            data = sock.recv(MAX_DATAGRAM)
        except OSError as error:
            self.fail(error)
            return
        if data.endswith(b'\n'):
            self.finish('open', data[:-1].decode(errors='replace'))
        else:
            self.finish('garbled')

    def _start_udp(self):
        if self.sock is None:
            self._open(socket.SOCK_DGRAM, selectors.EVENT_READ, self._read_udp)
            self.sock.connect((self.address, self.port))
        self.sock.send(self.nonce)

    def _read_udp(self, sock):
        try:
            data = sock.recv(MAX_DATAGRAM)
        except OSError as error:
            self.fail(error)
            return
        if data[:16] == self.nonce:
            self.finish('open', data[16:].decode(errors='replace'))
        else:
            self.finish('garbled')

    def _raw_address(self):
        return (self.address, 0) if self.family == 4 else (self.address, 0, 0, 0)

    def _start_sctp(self):
        source = self.prober.first_port + self.number
        packet = sctp_packet(source, self.port, 0, SCTP_INIT, sctp_init_body(self.tag))
        self.prober.raw(SCTP, self.family).sendto(packet, self._raw_address())

    def _start_icmp(self):
        # On IPv6 the kernel fills in the checksum itself.
        request, _ = ICMP_ECHO[self.family]
        packet = struct.pack('!BBHHH', request, 0, 0, self.prober.ident, self.number) + self.nonce
        proto = socket.IPPROTO_ICMP
        if self.family == 4:
            check = struct.pack('!H', icmp_checksum(packet))
            packet = packet[:2] + check + packet[4:]
        else:
            proto = socket.IPPROTO_ICMPV6
        self.prober.raw(proto, self.family).sendto(packet, self._raw_address())


class Prober:
    """Tries a list of targets at once."""

    def __init__(self, targets, timeout):
        self.selector = selectors.DefaultSelector()
        self.timeout = timeout
        self.raws = {}
        self.ident = int.from_bytes(os.urandom(2), 'big')
        self.first_port = 20000 + int.from_bytes(os.urandom(2), 'big') % 20000
        if len(targets) > MAX_TARGETS:
            raise ValueError(f'{len(targets)} targets, the most is {MAX_TARGETS}')
        self.attempts = [Attempt(self, i, *target) for i, target in enumerate(targets)]

    def raw(self, proto, family):
        """The raw socket that all targets of one protocol and family share."""
        if (proto, family) not in self.raws:
            sock = socket.socket(af_of(family), socket.SOCK_RAW, proto)
            sock.setblocking(False)
            handler = self._read_sctp if proto == SCTP else self._read_icmp
            self.selector.register(sock, selectors.EVENT_READ, lambda s: handler(s, family))
            self.raws[proto, family] = sock
        return self.raws[proto, family]

    def _attempt(self, number, proto):
        """The unsettled attempt of a number and protocol, or None."""
        if 0 <= number < len(self.attempts):
            attempt = self.attempts[number]
            if attempt.proto == proto and attempt.state is None:
                return attempt
        return None

    def _read_sctp(self, sock, family):
        packet, peer = sock.recvfrom(MAX_DATAGRAM)
        parsed = sctp_parse(payload(packet, family))
        if parsed is None:
            return
        sport, dport, tag, kind, body = parsed
        attempt = self._attempt(dport - self.first_port, 'sctp')
        if attempt is None or (attempt.tag, attempt.port, attempt.address) != (tag, sport, peer[0]):
            return
        if kind == SCTP_ABORT:
            attempt.finish('refused')
        elif kind == SCTP_INIT_ACK and len(body) >= 16:
            cookie = sctp_cookie(body)
            if cookie is None:
                attempt.finish('garbled')
            else:
                attempt.finish('open', cookie.decode(errors='replace'))
            # Tells the other end and the connection trackers between that this was all.
            server_tag = struct.unpack_from('!I', body)[0]
            try:
                sock.sendto(sctp_packet(dport, sport, server_tag, SCTP_ABORT, b''), peer)
            except OSError:
                pass

    def _read_icmp(self, sock, family):
        packet, peer = sock.recvfrom(MAX_DATAGRAM)
        packet = payload(packet, family)
        if len(packet) < 8:
            return
        kind, _, _, ident, number = struct.unpack_from('!BBHHH', packet)
        attempt = self._attempt(number, 'icmp')
        if (attempt is not None and (kind, ident) == (ICMP_ECHO[family][1], self.ident) and
                packet[8:] == attempt.nonce and peer[0] == attempt.address):
            attempt.finish('open')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sock in self.raws.values():
            sock.close()
        self.selector.close()

    def run(self):
        """Try everything and return the results in the order of the targets."""
        begin = time.monotonic()
        for number in range(ATTEMPTS):
            for attempt in self.attempts:
                if attempt.state is None:
                    attempt.start()
            self._wait(begin + self.timeout * (number + 1) / ATTEMPTS)
        for attempt in self.attempts:
            attempt.finish('timeout')
        return [{'state': attempt.state, 'peer': attempt.peer} for attempt in self.attempts]

    def _wait(self, until):
        while any(attempt.state is None for attempt in self.attempts):
            left = until - time.monotonic()
            if left <= 0:
                return
            for key, _ in self.selector.select(left):
                try:
                    key.data(key.fileobj)
                except OSError as error:
                    if error.errno != errno.EAGAIN:
                        raise


def main(arguments):
    """Run `serve` or `probe`."""
    if len(arguments) >= 3 and arguments[0] == 'serve':
        Server(arguments[1], arguments[2:]).run()
        return 0
    if arguments == ['probe']:
        for line in sys.stdin:
            question = json.loads(line)
            with Prober(question['targets'], question['timeout']) as prober:
                print(json.dumps(prober.run()), flush=True)
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
