"""Time limits hold from the first byte, however slowly a client sends or reads; and who waits for the disk holds up no one."""

import contextlib
import socket
import struct
import threading
import time

import pytest

from kvtc import ErrorCode
from kvtc.protocol import messages, wire

from raw import Raw
from samples import GEOMETRY, TOKENS, open_session, random_pages, to_push

HELLO = wire.frame(wire.Opcode.HELLO, 1, messages.Hello(client="slow").encode())
PING = wire.frame(wire.Opcode.PING, 2, messages.Ping(bytes(5000)).encode())
# No more than this, where the limit is a second: a guard against limits that do not hold, not a measurement.
PATIENCE = 15


def until_closed(connection, send=lambda: None, pause=0.05):
    """Waits until the daemon closes; what it says in the end. ``send`` may go on meanwhile."""
    connection.settimeout(pause)
    said, end = b"", time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            send()
        try:
            part = connection.recv(65536)
            if not part:
                return said
            said += part
        except TimeoutError:
            continue
        except ConnectionResetError:
            return said
    pytest.fail("still open")


@pytest.fixture
def hasty(make_daemon):
    return make_daemon(**{"limits.hello_s": 1, "limits.frame_s": 1, "limits.write_s": 1})


def connect(daemon, *sent):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(daemon.socket)
    for data in sent:
        connection.sendall(data)
    return connection


def trickle(connection, data):
    """Sends one byte at every call, and never the last one."""
    rest = bytearray(data[:-1])

    def send():
        if rest:
            connection.send(rest[:1])
            del rest[0]

    return send


@pytest.mark.parametrize("begin", [1, 5, 23, 24, 1000])
def test_a_frame_that_is_begun_must_be_completed(hasty, begin):
    with connect(hasty, HELLO) as connection:
        connection.recv(65536)
        connection.sendall(PING[:begin])
        said = until_closed(connection)
        assert wire.Header.decode(said[: wire.HEADER.size]).status == ErrorCode.TIMEOUT


@pytest.mark.parametrize("begin", [0, 20, 4000])
def test_a_frame_that_trickles(hasty, begin):
    with connect(hasty, HELLO) as connection:
        connection.recv(65536)
        connection.sendall(PING[:begin])
        said = until_closed(connection, trickle(connection, PING[begin:]))
        assert wire.Header.decode(said[: wire.HEADER.size]).status == ErrorCode.TIMEOUT


@pytest.mark.parametrize(
    "sends", [b"", HELLO[:1], HELLO[:30], wire.frame(wire.Opcode.PING, 1, messages.Ping(b"").encode())], ids=["nothing", "a byte", "half", "others"]
)
def test_hello_must_come_whatever_else_does(hasty, sends):
    with connect(hasty) as connection:
        until_closed(connection, (lambda: connection.send(sends)) if len(sends) > 30 else trickle(connection, sends + b"x"))


def test_a_hello_that_is_refused_is_none(hasty):
    with connect(hasty) as connection:
        refused = wire.frame(wire.Opcode.HELLO, 1, messages.Hello(min_version=7, max_version=9).encode())
        said = until_closed(connection, lambda: connection.send(refused))
        assert wire.Header.decode(said[: wire.HEADER.size]).status == ErrorCode.BAD_VERSION
    with connect(hasty) as connection:
        until_closed(connection, lambda: connection.send(wire.frame(wire.Opcode.HELLO, 1, b"")))


def test_time_limits_leave_those_alone_who_keep_them(hasty):
    with connect(hasty, HELLO) as connection:
        connection.recv(65536)
        # Longer than any of the limits, in whole frames with pauses.
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            connection.sendall(PING)
            left = len(PING)
            while left:
                left -= len(connection.recv(left))
            time.sleep(0.4)


@pytest.fixture
def large_pull(hasty):
    """A connection whose pull has far more bytes than a socket takes."""
    keys, contents = random_pages(400)
    with hasty.connect() as client:
        open_session(client).push(to_push(keys, contents))
    with Raw(hasty.socket) as raw:
        body = raw.ask(messages.OpenSession("raw", b"", GEOMETRY, page_tokens=TOKENS))[1]
        session = messages.OpenSessionReply.decode(body).session
        entries = [messages.PullEntry(key, 0, 1 << 20) for key in keys]
        raw.frame(wire.Opcode.PULL, messages.Pull(session, 0, wire.NONE32, 0, 0, 0, entries).encode())
        yield raw


def closed_by(daemon, raw):
    """Waits until the daemon has ended all connections but that of who asks."""
    end = time.monotonic() + PATIENCE
    with daemon.connect(arena_bytes=0) as client:
        while client.status()["sessions"] and time.monotonic() < end:
            time.sleep(0.05)
        assert not client.status()["sessions"]


def test_a_pull_that_is_never_read(hasty, large_pull):
    closed_by(hasty, large_pull)


def test_a_pull_that_is_read_byte_by_byte(hasty, large_pull):
    stop = threading.Event()

    def read():
        while not stop.wait(0.01):
            with contextlib.suppress(OSError):
                large_pull.socket.recv(1)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        closed_by(hasty, large_pull)
    finally:
        stop.set()
        thread.join()


def test_requests_that_are_never_read_and_go_on_coming(hasty):
    with connect(hasty, HELLO) as connection:
        connection.setblocking(False)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                connection.send(PING)
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                break
        else:
            pytest.fail("still open")


def test_who_waits_for_an_answer_is_not_idle(make_daemon):
    daemon = make_daemon(**{"limits.idle_s": 1})
    with Raw(daemon.socket) as busy, Raw(daemon.socket) as idle:
        ping = messages.Ping(bytes(1 << 20)).encode()
        request = busy.frame(wire.Opcode.PING, ping)
        assert idle.read()[0] == ErrorCode.TIMEOUT
        # Its answer lies here half read for longer than that.
        code, body, header = busy.read()
        assert (code, header.request, len(body)) == (0, request, len(ping))


def test_a_client_that_stops_sending_gets_its_answers(hasty):
    with connect(hasty, HELLO, PING, wire.frame(wire.Opcode.FLUSH, 3, struct.pack("<I", wire.NONE32))) as connection:
        connection.shutdown(socket.SHUT_WR)
        said = until_closed(connection)
        opcodes = []
        while said:
            header = wire.Header.decode(said[: wire.HEADER.size])
            assert header.status == 0
            opcodes.append(header.opcode & ~wire.REPLY)
            said = said[wire.HEADER.size + header.length :]
        assert opcodes == [wire.Opcode.HELLO, wire.Opcode.PING, wire.Opcode.FLUSH]


def test_a_flush_covers_what_was_pushed_before_it(hasty):
    """It is answered beside the requests behind it, and is about the pages and sessions of its own moment."""
    keys, contents = random_pages(50)
    with hasty.connect(arena_bytes=0) as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        pending = [client.connection.start(messages.Flush(session.number))]
        pending.append(client.connection.start(messages.CloseSession(session.number)))
        pending.append(client.connection.start(messages.Ping(b"x")))
        assert pending[0].reply(messages.FlushReply).pages == 50
        pending[1].reply(messages.Empty)
        pending[2].reply(messages.PingReply)
    hasty.stop(9)
    hasty.start()
    with hasty.connect() as client:
        assert open_session(client).fetch(keys) == contents
