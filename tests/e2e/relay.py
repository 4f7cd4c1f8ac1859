#!/usr/bin/python3
"""A TCP relay that breaks what passes through it, as networks do.

Usage: relay.py LISTEN-ADDRESS PORT TARGET-ADDRESS PORT. Says `ready`, then takes a line a command and
answers each with `ok`:

    pass            what comes is handed on (also ends every other mode)
    blackhole       connections stay and are taken, nothing is handed on in either direction
    halfopen        only what the client sends is handed on
    refuse          nobody can connect, and all connections are reset
    reset           all connections are reset, once; new ones are handed on
    delay SECONDS   everything comes later by so much, in both directions
    limit BYTES     the server's answers come with so many bytes a second
    truncate BYTES  a connection ends after so many bytes of the server
    flaky PERCENT   each piece of data ends its connection with that probability
    garble          the server's bytes are not what they were
    page            a proxy answers each connection with a page of HTML, in plain HTTP/1.1
    count           answers `ok CONNECTIONS-NOW CONNECTIONS-EVER` in place of `ok`
"""

import asyncio
import random
import socket
import struct
import sys

PAGE = (b'HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 38\r\n\r\n'
        b'<html><body>Please sign in</body></html>')
PIECE = 65536
PAUSE = 0.02


class Connection:
    """One client's connection and ours to the target."""

    def __init__(self, relay, client):
        self.relay, self.client, self.server = relay, client, None
        self.answered = 0

    async def run(self):
        """Hand on until one side ends."""
        if self.relay.mode == 'page':
            await self.client[0].read(PIECE)
            self.client[1].write(PAGE)
            self.client[1].close()
            return
        try:
            self.server = await asyncio.open_connection(*self.relay.target)
        except OSError:
            self.reset()
            return
        both = [asyncio.ensure_future(self.hand_on(self.client[0], self.server[1], False)),
                asyncio.ensure_future(self.hand_on(self.server[0], self.client[1], True))]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        for _, writer in (self.client, self.server):
            writer.close()

    async def hand_on(self, reader, writer, is_answer):
        """One direction: a task reads, another writes when each piece is due."""
        pieces = asyncio.Queue(64)
        reading = asyncio.ensure_future(self.read(reader, pieces))
        try:
            loop = asyncio.get_running_loop()
            while True:
                came, data = await pieces.get()
                while self.is_held(is_answer):
                    await asyncio.sleep(PAUSE)
                if not data:
                    return
                due = came + (self.relay.amount if self.relay.mode == 'delay' else 0)
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                if not await self.write(writer, data, is_answer):
                    return
        except OSError:
            return
        finally:
            reading.cancel()

    @staticmethod
    async def read(reader, pieces):
        """Pieces with the time when they came; an empty one is the end."""
        data = b'?'
        while data:
            try:
                data = await reader.read(PIECE)
            except OSError:
                data = b''
            await pieces.put((asyncio.get_running_loop().time(), data))

    def is_held(self, is_answer):
        """Does nothing get through in this direction now?"""
        return self.relay.mode == 'blackhole' or (self.relay.mode == 'halfopen' and is_answer)

    async def write(self, writer, data, is_answer):
        """False: the connection ends here."""
        mode, amount = self.relay.mode, self.relay.amount
        if mode == 'flaky' and random.random() * 100 < amount:
            self.reset()
            return False
        if is_answer and mode == 'truncate':
            data = data[:max(0, int(amount) - self.answered)]
        if is_answer and mode == 'garble':
            data = bytes(byte ^ 0x5a for byte in data)
        if is_answer and mode == 'limit':
            step = max(1, int(amount * PAUSE))
            for start in range(0, len(data), step):
                writer.write(data[start:start + step])
                await writer.drain()
                await asyncio.sleep(PAUSE)
        else:
            writer.write(data)
            await writer.drain()
        if is_answer:
            self.answered += len(data)
        return not (is_answer and mode == 'truncate' and self.answered >= amount)

    def reset(self):
        """RST on both sides."""
        for pair in (self.client, self.server):
            if pair is not None:
                sock = pair[1].get_extra_info('socket')
                if sock is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                pair[1].transport.abort()


class Relay:
    """The listener, its mode and its connections."""

    def __init__(self, listen, target):
        self.listen, self.target = listen, target
        self.mode, self.amount = 'pass', 0.0
        self.connections = set()
        self.ever = 0
        self.server = None

    async def take(self, reader, writer):
        """A client connected."""
        connection = Connection(self, (reader, writer))
        self.connections.add(connection)
        self.ever += 1
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)

    async def open(self):
        """Listen, unless it does."""
        if self.server is None:
            self.server = await asyncio.start_server(self.take, *self.listen)

    async def command(self, words):
        """Carry out one command; its answer."""
        if words[0] == 'count':
            return f'ok {len(self.connections)} {self.ever}'
        if words[0] == 'refuse' and self.server is not None:
            self.server.close()
            self.server = None
        if words[0] in ('refuse', 'reset', 'page'):
            for connection in list(self.connections):
                connection.reset()
        if words[0] != 'refuse':
            await self.open()
        self.mode = 'pass' if words[0] == 'reset' else words[0]
        self.amount = float(words[1]) if len(words) > 1 else 0.0
        return 'ok'


async def main(listen_address, listen_port, target_address, target_port):
    """Relay until the end of the input."""
    relay = Relay((listen_address, int(listen_port)), (target_address, int(target_port)))
    await relay.open()
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print('ready', flush=True)
    while line := await commands.readline():
        print(await relay.command(line.decode().split()), flush=True)
    for connection in list(relay.connections):
        connection.reset()


if __name__ == '__main__':
    asyncio.run(main(*sys.argv[1:5]))
