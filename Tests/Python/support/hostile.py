"""A client that means no good: garbage, half frames, floods, strange descriptors, silence. It must hurt only itself."""

import array
import os
import random
import socket
import struct

from kvtc.protocol import messages, wire

USER = 63999


def _connect(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(5)
    connection.connect(path)
    return connection


def _frame(opcode, body, length=None, magic=wire.MAGIC, version=wire.VERSION, request=1):
    return struct.pack("<IHHQII", magic, version, opcode, request, 0, len(body) if length is None else length) + body


def _hello():
    return _frame(wire.Opcode.HELLO, bytes(messages.Hello(client="hostile").encode()))


def garbage(connection, rng):
    connection.sendall(rng.randbytes(rng.randint(1, 4096)))
    connection.recv(4096)


def half_a_frame(connection, rng):
    body = rng.randbytes(rng.randint(1, 2000))
    connection.sendall((_hello() + _frame(rng.randint(1, 20), body, length=len(body) + 1000))[: rng.randint(1, 2000)])


def mangled_requests(connection, rng):
    connection.sendall(_hello())
    for _ in range(20):
        body = bytearray(messages.OpenSession("x").encode() if rng.random() < 0.5 else rng.randbytes(rng.randint(0, 300)))
        for _ in range(rng.randint(0, 4)):
            if body:
                body[rng.randrange(len(body))] = rng.randrange(256)
        connection.sendall(_frame(rng.randint(1, 18), bytes(body)))
    connection.recv(65536)


def deaf(connection, rng):
    """Asks for more than it reads."""
    connection.sendall(_hello())
    connection.setblocking(False)
    ping = _frame(wire.Opcode.PING, struct.pack("<I", 60000) + bytes(60000))
    try:
        for _ in range(100):
            connection.send(ping)
    except BlockingIOError:
        pass


def descriptors(connection, rng):
    """Sends descriptors that nobody asked for."""
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(rng.randint(1, 200))]
    try:
        connection.sendmsg([_hello()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
        connection.recv(4096)
    finally:
        for file in files:
            os.close(file)


def arenas(connection, rng):
    """Takes arenas and leaves without a word."""
    connection.sendall(_hello())
    for _ in range(8):
        connection.sendall(_frame(wire.Opcode.ARENA, bytes(messages.Arena(rng.choice([0, 1, 4096, 1 << 22, 1 << 40])).encode())))
    connection.recv(4096)


def silence(connection, rng):
    pass


ACTS = [garbage, half_a_frame, mangled_requests, deaf, descriptors, arenas, silence]


def act(path, rng):
    """One act; the daemon may be gone at any moment."""
    try:
        with _connect(path) as connection:
            rng.choice(ACTS)(connection, rng)
    except OSError:
        pass


def main(path, seed, stop, acts):
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)
    rng = random.Random(seed)
    while not stop.wait(0.02):
        act(path, rng)
        acts.value += 1
