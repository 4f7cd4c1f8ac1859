#!/usr/bin/python3
"""What the speaker tells operators: BMP to a station and MRT in files, read by decoders of this
test that share nothing with the speaker."""

import ipaddress
import json
import pathlib
import signal
import struct
import sys
import unittest

from bgp_routers import Bird, Fabric, Margay, prefixes, static_routes, wait_for
from lab import PYTHON

STATION = ('import socket, sys\ns = socket.create_server(("0.0.0.0", 11019))\n'
           'i = 0\nwhile True:\n c = s.accept()[0]\n i += 1\n f = open(sys.argv[1] + str(i), "wb", 0)\n'
           ' while d := c.recv(65536): f.write(d)\n')


class Reader:
    """Bytes from the front; what is not there is an error."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        assert self.at + n <= len(self.data), 'a length lies'
        self.at += n
        return self.data[self.at - n:self.at]

    def n(self, size):
        return int.from_bytes(self.take(size), 'big')

    def more(self):
        return self.at < len(self.data)


def ip(raw):
    return str(ipaddress.ip_address(raw))


def nlri(reader, bits, has_ids):
    out = []
    while reader.more():
        path = reader.n(4) if has_ids else 0
        length = reader.n(1)
        raw = reader.take((length + 7) // 8).ljust(bits // 8, b'\0')
        out.append((f'{ip(raw)}/{length}', path))
    return out


def attributes(raw, as_size=4):
    out, reader = {}, Reader(raw)
    while reader.more():
        flags, code = reader.n(1), reader.n(1)
        value = reader.take(reader.n(2 if flags & 0x10 else 1))
        assert code not in out, f'attribute {code} twice'
        out[code] = value
    if 2 in out:
        path, ases = Reader(out[2]), []
        while path.more():
            path.n(1)
            ases += [path.n(as_size) for _ in range(path.n(1))]
        out['path'] = ases
    return out


def update(message, has_ids=(False, False)):
    """(reach, unreach, attributes) of a whole UPDATE; prefixes with path ids."""
    head = Reader(message)
    assert head.take(16) == b'\xff' * 16 and head.n(2) == len(message) and head.n(1) == 2
    unreach = nlri(Reader(head.take(head.n(2))), 32, has_ids[0])
    attrs = attributes(head.take(head.n(2)))
    reach = nlri(Reader(message[head.at:]), 32, has_ids[0])
    if 14 in attrs:
        mp = Reader(attrs[14])
        assert mp.n(3) == 0x000201, 'IPv6 unicast'
        attrs['hop'] = ip(mp.take(mp.n(1))[:16])
        mp.n(1)
        reach += nlri(mp, 128, has_ids[1])
    if 15 in attrs:
        mp = Reader(attrs[15])
        assert mp.n(3) == 0x000201
        unreach += nlri(mp, 128, has_ids[1])
    return reach, unreach, attrs


def bmp(data):
    """Messages of a station's connection; an incomplete one at the end is left out."""
    out, at = [], 0
    while at + 6 <= len(data):
        version, size, kind = struct.unpack('>BIB', data[at:at + 6])
        assert version == 3 and size >= 6
        if at + size > len(data):
            break
        body = Reader(data[at + 6:at + size])
        at += size
        message = {'kind': kind}
        if kind in (0, 1, 2, 3):
            assert body.n(1) == 0
            flags = body.n(1)
            assert body.n(8) == 0
            raw = body.take(16)
            message.update(flags=flags, peer=ip(raw if flags & 0x80 else raw[12:]), asn=body.n(4),
                           id=ip(body.take(4)), time=body.n(4) + body.n(4) / 1e6)
        message['body'] = body.take(len(body.data) - body.at)
        out.append(message)
    return out


def routes_of(messages, peer):
    """What a station knows of a peer's routes after these messages, and its End-of-RIBs."""
    table, ends = {}, 0
    for m in messages:
        if m.get('peer') != peer:
            continue
        if m['kind'] in (2, 3):
            table = {}
        if m['kind'] == 0:
            reach, unreach, attrs = update(m['body'])
            ends += not reach and not unreach
            for key in unreach:
                table.pop(key, None)
            for key in reach:
                table[key] = attrs
    return table, ends


def mrt(data):
    out, at = [], 0
    while at < len(data):
        seconds, kind, subtype, size = struct.unpack('>IHHI', data[at:at + 12])
        assert at + 12 + size <= len(data), 'half a record'
        out.append((seconds, kind, subtype, Reader(data[at + 12:at + 12 + size])))
        at += 12 + size
    return out


def table_of(data):
    """A TABLE_DUMP_V2 as {prefix: [(peer, path id, attributes)]} and its peers."""
    peers, table, expected = None, {}, 0
    for _, kind, subtype, body in mrt(data):
        assert kind == 13
        if subtype == 1:
            assert peers is None
            peers, collector = [], ip(body.take(4))
            assert body.take(body.n(2)) == b''
            for _ in range(body.n(2)):
                what = body.n(1)
                ident = ip(body.take(4))
                peers.append((ip(body.take(16 if what & 1 else 4)), body.n(4 if what & 2 else 2),
                              ident))
            assert not body.more() and collector
            continue
        bits = {2: 32, 8: 32, 4: 128, 10: 128}[subtype]
        assert body.n(4) == expected
        expected += 1
        length = body.n(1)
        net = f'{ip(body.take((length + 7) // 8).ljust(bits // 8, bytes(1)))}/{length}'
        for _ in range(body.n(2)):
            peer, born = peers[body.n(2)], body.n(4)
            assert born > 1600000000
            path = body.n(4) if subtype in (8, 10) else 0
            table.setdefault(net, []).append((peer[0], path, attributes(body.take(body.n(2)))))
        assert not body.more()
    return peers, table


class Monitor(unittest.TestCase):
    def setUp(self):
        self.fabric = Fabric()
        self.fabric.__enter__()
        self.addCleanup(self.fabric.__exit__, None, None, None)
        self.ours = Margay(self.fabric, 'ours', 65001)
        self.bird = Bird(self.fabric, 'bird', 4200000002)
        self.nets = prefixes(500)
        self.six = [f'2001:db8:{i:x}::/48' for i in range(1, 101)]
        self.bird.start(static_routes(self.nets) + static_routes(self.six)
                        + self.bird.bgp('p', self.ours)
                        + self.bird.bgp('six', self.ours, v4=None, local=6,
                                        v6='import all; export all;'))

    def write(self, spec, peers=None):
        """The file with these fields of BGPConfiguration."""
        self.ours.write(peers or {
            'four': {'peerIP': self.bird.ip, 'asNumber': self.bird.asn, 'addPaths': 'Disabled'},
            'six': {'peerIP': self.bird.ip6, 'asNumber': self.bird.asn, 'addPaths': 'Disabled'}})
        path = self.ours.dir / 'bgp.yaml'
        text = path.read_text()
        docs = [json.loads(d) for d in text.split('\n---\n')]
        docs[0]['spec'].update(spec)
        path.write_text('\n---\n'.join(json.dumps(d) for d in docs))

    def up(self):
        self.ours.start()
        self.ours.wait_up(self.bird.ip)
        self.ours.wait_up(self.bird.ip6)
        wait_for('routes', lambda: self.accepted(self.bird.ip) == 500
                 and self.accepted(self.bird.ip6) == 100)

    def accepted(self, peer):
        families = self.ours.peer(peer)['families']
        return sum(f['accepted'] for f in families.values())

    def station(self):
        place = str(self.ours.dir / 'station')
        self.fabric.lab.spawn('bird', [PYTHON, '-c', STATION, place])
        return lambda i: bmp(pathlib.Path(place + str(i)).read_bytes()) if pathlib.Path(
            place + str(i)).exists() else []

    def test_bmp_station(self):
        heard = self.station()
        stations = {'bmpStations': [{'address': self.bird.ip, 'statisticsInterval': '1s'}]}
        self.write(stations)
        self.up()
        four, six = self.bird.ip, str(ipaddress.ip_address(self.bird.ip6))
        # From the beginning of the sessions on.
        wait_for('all routes at the station', lambda: len(routes_of(heard(1), four)[0]) == 500
                 and len(routes_of(heard(1), six)[0]) == 100)
        first = heard(1)
        self.assertEqual(first[0]['kind'], 4)
        self.assertIn(b'margay', first[0]['body'])
        ups = [m for m in first if m['kind'] == 3]
        self.assertEqual({m['peer'] for m in ups}, {four, six})
        for m in ups:
            self.assertEqual((m['asn'], m['id'], m['flags']),
                             (self.bird.asn, self.bird.ip, 0x80 if m['peer'] == six else 0))
            self.assertEqual(ip(m['body'][12:16]) if m['peer'] == four else ip(m['body'][:16]),
                             self.ours.ip if m['peer'] == four
                             else str(ipaddress.ip_address(self.ours.ip6)))
            opens = Reader(m['body'][16:])
            self.assertIn(179, (opens.n(2), opens.n(2)))
            for _ in range(2):
                self.assertEqual(opens.take(16), b'\xff' * 16)
                rest = opens.n(2)
                self.assertEqual(opens.n(1), 1)
                opens.take(rest - 19)
            self.assertFalse(opens.more())
        attrs = routes_of(first, four)[0][self.nets[7], 0]
        self.assertEqual((attrs['path'], ip(attrs[3])), ([self.bird.asn], four))
        counts = wait_for('a report', lambda: next(
            (m for m in heard(1) if m['kind'] == 1 and m['peer'] == four
             and struct.pack('>HHQ', 7, 8, 500) in m['body']), None))
        self.assertEqual(struct.unpack('>I', counts['body'][:4]), (6,))
        # A withdrawal; then the station dies: the next connection begins with the table.
        (self.bird.dir / 'bird.conf').write_text((self.bird.dir / 'bird.conf').read_text().replace(
            f'route {self.nets[3]} blackhole;', ''))
        self.bird.ask('configure')
        wait_for('withdrawn', lambda: (self.nets[3], 0) not in routes_of(heard(1), four)[0])
        self.write({'bmpStations': []})
        self.ours.process.send_signal(signal.SIGHUP)
        wait_for('told that it is over', lambda: heard(1)[-1]['kind'] == 5)
        self.write(stations)
        self.ours.process.send_signal(signal.SIGHUP)
        wait_for('the table again', lambda: routes_of(heard(2), four)[1] == 2
                 and routes_of(heard(2), six)[1] == 2)
        again = heard(2)
        self.assertEqual({net for net, _ in routes_of(again, four)[0]},
                         set(self.nets) - {self.nets[3]})
        self.assertEqual({net for net, _ in routes_of(again, six)[0]}, set(self.six))
        self.assertEqual(routes_of(again, four)[0][self.nets[7], 0]['path'], [self.bird.asn])
        # The end of a session, with the peer's NOTIFICATION.
        self.bird.ask('disable', 'p')
        down = wait_for('peer down', lambda: next((m for m in heard(2) if m['kind'] == 2), None))
        self.assertEqual((down['peer'], down['body'][0], down['body'][19:21]),
                         (four, 3, b'\x03\x06'))
        self.assertFalse(routes_of(heard(2), four)[0])
        # A peer that is configured no more: a later dump does not name it.
        self.write(stations, {'six': {'peerIP': self.bird.ip6, 'asNumber': self.bird.asn,
                                      'addPaths': 'Disabled'}})
        self.ours.process.send_signal(signal.SIGHUP)
        wait_for('one peer', lambda: len(self.ours.status()['peers']) == 1)
        file = self.ours.dir / 'dump'
        self.assertEqual(self.ours.ask('dump', str(file)).returncode, 0)
        peers, routes = table_of(file.read_bytes())
        self.assertEqual({p[0] for p in peers}, {'0.0.0.0', six})
        self.assertNotIn(self.nets[9], routes)

    def left_established(self, folder):
        """Is there a record of the IPv4 session's end (BGP4MP_STATE_CHANGE_AS4, RFC 6396 4.4.4)?"""
        for file in folder.glob('updates.*'):
            for _, kind, subtype, body in mrt(file.read_bytes()):
                if (kind, subtype) == (17, 5):
                    body.take(4)  # microseconds
                    asns, (_, family) = (body.n(4), body.n(4)), (body.n(2), body.n(2))
                    size = 4 if family == 1 else 16
                    ends = ip(body.take(size)), ip(body.take(size))
                    if asns == (self.bird.asn, 65001) and ends == (self.bird.ip, self.ours.ip):
                        was, now = body.n(2), body.n(2)
                        if was == 6 and now != 6:
                            return True
        return False

    def test_mrt_files_and_dump(self):
        folder = self.ours.dir / 'mrt'
        folder.mkdir()
        self.write({'mrt': {'directory': str(folder), 'rotateInterval': '1s', 'tableInterval': '3s',
                            'keep': 2}})
        self.up()
        table = wait_for('a table', lambda: sorted(folder.glob('rib.*')))[0].read_bytes()
        wait_for('updates', lambda: list(folder.glob('updates.*')))
        # On demand: the same records.
        file = self.ours.dir / 'dump'
        done = self.ours.ask('dump', str(file))
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        for data in (table, file.read_bytes()):
            peers, routes = table_of(data)
            self.assertIn((self.bird.ip, self.bird.asn, self.bird.ip), peers)
            self.assertLessEqual({*self.nets, *self.six}, set(routes))
            (peer, path, attrs), = routes[self.nets[9]]
            self.assertEqual((peer, path, attrs['path'], ip(attrs[3])),
                             (self.bird.ip, 0, [self.bird.asn], self.bird.ip))
            (peer, path, attrs), = routes[self.six[9]]
            self.assertEqual(peer, str(ipaddress.ip_address(self.bird.ip6)))
            hop = Reader(attrs[14])
            self.assertEqual(ip(hop.take(hop.n(1))[:16]), peer)
        # No more files than asked for; the last ones hold what came last.
        for i in range(4):
            self.bird.ask('disable', 'static1')
            wait_for('gone', lambda: not self.accepted(self.bird.ip))
            self.bird.ask('enable', 'static1')
            wait_for('here', lambda: self.accepted(self.bird.ip))
        self.assertLessEqual(len(list(folder.glob('updates.*'))), 3)
        self.bird.ask('disable', 'p')
        wait_for('the end of the session in a file', lambda: self.left_established(folder))
        self.assertIn('bgp_mrt_failures_total 0', self.ours.ask('metrics').stdout)


if __name__ == '__main__':
    sys.exit(unittest.main(verbosity=2))
