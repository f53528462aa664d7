"""Bad frames, bad requests, bad clients: each gets its documented error, and the daemon goes on serving others."""

import array
import os
import random
import socket
import time

import pytest

import kvtc
from kvtc import ErrorCode, Layout, Mode, Policy, Range
from kvtc.protocol import messages, wire

from process_state import ProcessState
from raw import Raw
from samples import GEOMETRY, TOKENS, open_session, random_pages, to_push

PING = wire.Opcode.PING


@pytest.fixture
def witness(daemon):
    """Another client, connected all the while, that must still be served at the end."""
    with daemon.connect() as client:
        keys, contents = random_pages(2)
        session = open_session(client)
        session.push(to_push(keys, contents))
        yield client
        assert session.fetch(keys) == contents


@pytest.fixture
def raw(daemon, witness):
    with Raw(daemon.socket) as connection:
        yield connection


@pytest.mark.parametrize(
    "header, code",
    [
        ({"magic": 0x12345678}, ErrorCode.BAD_MAGIC),
        ({"version": 9}, ErrorCode.BAD_VERSION),
        ({"length": wire.MAX_BODY + 1}, ErrorCode.TOO_LARGE),
        ({"length": 0xFFFFFFFF}, ErrorCode.TOO_LARGE),
    ],
    ids=str,
)
def test_a_frame_without_sense_is_answered_and_ends_the_connection(raw, header, code):
    raw.frame(PING, b"", **header)
    assert raw.read()[0] == code
    assert raw.closed()


@pytest.mark.parametrize("opcode", [0, 1000, 99, 0x8001, 0xFFFF])
def test_an_unknown_opcode_keeps_the_connection(raw, opcode):
    raw.frame(opcode, b"whatever")
    assert raw.read()[0] == ErrorCode.UNKNOWN_OPCODE
    assert raw.ask(messages.Ping(b"x"))[0] == 0


REQUESTS = [
    messages.Arena(4096),
    messages.OpenSession("s", b"", GEOMETRY, policy=Policy(protected=[(1, 2)])),
    messages.SetPolicy(1, Policy()),
    messages.Lookup(1, 0, [bytes(32)]),
    messages.Push(1, wire.NONE32, [messages.PushEntry(bytes(32), 0, 1, 0, 4)], b"abcd"),
    messages.Pull(1, 0, wire.NONE32, 0, 0, 0, [messages.PullEntry(bytes(32), 0, 0)]),
    messages.Release(1),
    messages.Prefetch(1, [bytes(32)]),
    messages.Touch(1, keys=[bytes(32)]),
    messages.Drop(1, [bytes(32)]),
    messages.Truncate(1, 2),
    messages.CloseSession(1),
    messages.Flush(1),
    messages.Profile(0),
    messages.Ping(b"abcd"),
    messages.GetPolicy(1),
]


@pytest.mark.parametrize("message", REQUESTS, ids=lambda message: type(message).__name__)
def test_every_request_cut_short_or_too_long(raw, message):
    body = bytes(message.encode())
    for end in sorted({0, 1, len(body) // 2, len(body) - 1}):
        code, error = raw.ask(message, body[:end])
        assert code == ErrorCode.TRUNCATED, f"{end} of {len(body)} bytes: {error}"
    assert raw.ask(message, body + b"\0")[0] == ErrorCode.TRAILING_BYTES
    assert raw.ask(messages.Status(), b"\0")[0] == ErrorCode.TRAILING_BYTES


@pytest.mark.parametrize(
    "message, at",
    [
        (messages.Lookup(1, 0, []), 8),
        (messages.Push(1, wire.NONE32, []), 8),
        (messages.Push(1, wire.NONE32, []), 12),
        (messages.Pull(1, 0, wire.NONE32, 0, 0, 0, []), 22),
        (messages.OpenSession("", b"", GEOMETRY), 0),
        (messages.OpenSession("", b"", GEOMETRY), 4),
        (messages.OpenSession("", b"", GEOMETRY), 8),
        (messages.Ping(), 0),
        (messages.Drop(1), 4),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, wire.Struct) else str(value),
)
@pytest.mark.parametrize("count", [0xFFFFFFFF, 0x7FFFFFFF, 0x08000001])
def test_lengths_that_overflow(raw, message, at, count):
    body = bytearray(message.encode())
    body[at : at + 4] = count.to_bytes(4, "little")
    assert raw.ask(message, body)[0] == ErrorCode.TRUNCATED


def test_random_bytes_never_stop_the_daemon(daemon, witness):
    rng = random.Random(20261124)
    for opcode in wire.Opcode:
        with Raw(daemon.socket) as raw:
            for size in (0, 1, 7, 40, 200):
                raw.frame(opcode, rng.randbytes(size))
                code = raw.read()[0]
                assert code == 0 or code in iter(ErrorCode), (opcode, size)


def test_hello_comes_first(daemon, witness):
    with Raw(daemon.socket, hello=False) as raw:
        raw.frame(PING, messages.Ping(b"x").encode())
        assert raw.read()[0] == ErrorCode.HELLO_REQUIRED


def test_a_version_nobody_speaks(daemon, witness):
    with Raw(daemon.socket, hello=False) as raw:
        raw.frame(wire.Opcode.HELLO, messages.Hello(min_version=7, max_version=9).encode())
        assert raw.read()[0] == ErrorCode.BAD_VERSION


@pytest.mark.parametrize("low, high, code", [(1, 1, 0), (1, 9, 0), (0, 0xFFFF, 0), (2, 9, ErrorCode.BAD_VERSION), (0, 0, ErrorCode.BAD_VERSION)])
def test_clients_newer_and_older_than_the_daemon(daemon, witness, low, high, code):
    with Raw(daemon.socket, hello=False) as raw:
        raw.frame(wire.Opcode.HELLO, messages.Hello(min_version=low, max_version=high, features=0xFFFFFFFF).encode())
        got, body, _ = raw.read()
        assert got == code
        if code == 0:
            reply = messages.HelloReply.decode(body)
            # Features that the daemon does not know are not promised.
            assert reply.version == 1 and reply.features == messages.FEATURES


def test_descriptors_are_not_taken(daemon, witness):
    before = ProcessState(daemon).descriptors()
    for count in (1, 16, 200):
        with Raw(daemon.socket) as raw:
            files = array.array("i", [os.open("/dev/null", os.O_RDONLY) for _ in range(count)])
            try:
                frame = wire.frame(PING, 7, messages.Ping(b"x").encode())
                raw.socket.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
                code, body, _ = raw.read()
                assert (code, messages.ErrorBody.decode(body).field) == (ErrorCode.INVALID_FIELD, "descriptors")
                assert raw.closed()
            finally:
                for file in files:
                    os.close(file)
    after = ProcessState(daemon).descriptors()
    assert after.get("/dev/null", 0) == before.get("/dev/null", 0)


def test_idle_connections_are_closed(make_daemon):
    daemon = make_daemon(**{"limits.idle_s": 1})
    with Raw(daemon.socket) as raw:
        assert raw.read()[0] == ErrorCode.TIMEOUT
        assert raw.closed()
    with daemon.connect() as client:
        client.ping()


def test_too_many_keys(make_daemon):
    daemon = make_daemon(**{"limits.keys": 8})
    with daemon.connect(arena_bytes=0) as client:
        session = open_session(client)
        keys, contents = random_pages(9)
        assert session.lookup(keys[:8]).leading_run == 0
        many = [
            lambda: session.lookup(keys),
            lambda: session.fetch(keys),
            lambda: session.prefetch(keys),
            lambda: session.touch(keys),
            lambda: session.drop(keys),
            lambda: session.push(to_push(keys, contents)),
        ]
        for call in many:
            assert refused(call) == ErrorCode.LIMIT_EXCEEDED
        assert session.push(to_push(keys[:8], contents)) == [kvtc.PushOutcome.STORED] * 8


def test_requests_of_one_user_wait_for_each_other(make_daemon):
    """Far more is sent than may be in work, on several connections: it is read later, and all of it is answered."""
    daemon = make_daemon(**{"limits.in_flight_bytes_per_user": 4096})
    connections = [Raw(daemon.socket) for _ in range(4)]
    payload = messages.Ping(bytes(200000)).encode()
    for _ in range(3):
        sent = [(raw, raw.frame(PING, payload)) for raw in connections]
        for raw, request in sent:
            code, body, header = raw.read()
            assert (code, header.request, len(body)) == (0, request, len(payload))
    for raw in connections:
        raw.socket.close()


def test_silence_before_hello(make_daemon):
    daemon = make_daemon(**{"limits.hello_s": 1})
    with daemon.connect() as client, Raw(daemon.socket, hello=False) as raw:
        assert raw.read()[0] == ErrorCode.TIMEOUT
        assert raw.closed()
        client.ping()


def test_a_client_that_stalls_inside_a_frame(make_daemon):
    daemon = make_daemon(**{"limits.frame_s": 1})
    with daemon.connect() as client, Raw(daemon.socket) as raw:
        raw.frame(PING, b"only the beginning", length=1000)
        assert raw.closed()
        client.ping()


def test_a_client_that_does_not_read(make_daemon):
    daemon = make_daemon(**{"limits.write_s": 1})
    with daemon.connect() as client, Raw(daemon.socket) as raw:
        body = messages.Ping(bytes(1 << 20)).encode()
        raw.socket.settimeout(1)
        with pytest.raises(OSError):
            for _ in range(200):
                raw.frame(PING, body)
        client.ping()


def test_a_client_that_leaves_inside_a_frame(daemon, witness):
    for size in (1, 23, 24, 500):
        with Raw(daemon.socket) as raw:
            raw.send(wire.frame(PING, 1, bytes(1000))[:size])


def open_raw(raw, **changes):
    options = {"geometry": GEOMETRY, "page_tokens": TOKENS, "policy": Policy()} | changes
    return raw.ask(messages.OpenSession("raw", **options))


def forged(struct, **values):
    """The struct with values that the client itself would refuse."""
    for name, value in values.items():
        object.__setattr__(struct, name, value)
    return struct


def with_layout(**bytes_at):
    """The body of OPEN_SESSION with single bytes of the layout replaced."""
    body = bytearray(messages.OpenSession("raw", b"", GEOMETRY, Layout(), TOKENS, Policy()).encode())
    start = len(body) - len(Policy().encode()) - 4 - 4
    for name, value in bytes_at.items():
        body[start + ["element", "order", "grouping", "flags"].index(name)] = value
    return body


@pytest.mark.parametrize(
    "changes, code, field",
    [
        ({"profile": bytes(range(32))}, ErrorCode.UNKNOWN_PROFILE, "profile"),
        ({"profile": b"short"}, ErrorCode.INVALID_FIELD, "profile"),
        ({"page_tokens": 15}, ErrorCode.INVALID_FIELD, "pageTokens"),
        ({"page_tokens": 1025}, ErrorCode.INVALID_FIELD, "pageTokens"),
        ({"policy": Policy(window=0xFFFFFFFF)}, ErrorCode.INVALID_FIELD, "policy.window"),
        ({"policy": Policy(sink=0xFFFFFFFF)}, ErrorCode.INVALID_FIELD, "policy.sink"),
        ({"policy": Policy(mode=Mode.TRANSFORM)}, ErrorCode.INVALID_FIELD, "policy.mode"),
        ({"policy": forged(Policy(), quality=float("nan"))}, ErrorCode.INVALID_FIELD, "policy.quality"),
        ({"policy": Policy(protected=[forged(Range(3, 9), end=2)])}, ErrorCode.INVALID_FIELD, "range"),
        ({"geometry": kvtc.Geometry()}, ErrorCode.INVALID_FIELD, "geometry"),
        ({"geometry": kvtc.Geometry.from_heads(1, 1, 65535, rope_style="none")}, ErrorCode.INVALID_FIELD, "geometry"),
        ({"layout": Layout(flags=1, order=kvtc.Order.TOKEN_TENSOR_HEAD)}, ErrorCode.INVALID_FIELD, "layout"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_sessions_that_make_no_sense(raw, changes, code, field):
    got, error = open_raw(raw, **changes)
    assert (got, field in error.field) == (code, True), error


@pytest.mark.parametrize("change", [{"element": 0}, {"element": 9}, {"order": 3}, {"grouping": 3}, {"flags": 2}], ids=str)
def test_layouts_that_do_not_exist(raw, change):
    code, error = raw.ask(messages.OpenSession("raw"), with_layout(**change))
    assert code == ErrorCode.INVALID_FIELD and "layout" in error.field, error


def refused(call):
    with pytest.raises(kvtc.KvtcError) as caught:
        call()
    return caught.value.code


def test_positions_of_a_request_go_forward(witness):
    keys, contents = random_pages(4, seed=5)
    session = open_session(witness)
    session.push([kvtc.Page(keys[1], TOKENS, contents[1])])
    for position in (0, 2 * TOKENS - 1, 2 * TOKENS + 1):
        entries = [kvtc.Page(keys[2], 2 * TOKENS, contents[2]), kvtc.Page(keys[3], position, contents[3])]
        assert refused(lambda entries=entries: session.push(entries)) == ErrorCode.POSITION_CONFLICT
    assert session.fetch(keys[1:]) == [contents[1], None, None]


def test_pages_of_a_wrong_size(witness):
    keys, contents = random_pages(1, seed=6)
    session = open_session(witness)
    assert refused(lambda: session.push([kvtc.Page(keys[0], 0, contents[0], tokens=TOKENS - 1)])) == ErrorCode.GEOMETRY_MISMATCH
    assert refused(lambda: session.push([kvtc.Page(keys[0], 0, contents[0] * 2)])) == ErrorCode.INVALID_FIELD
    assert refused(lambda: session.push([kvtc.Page(keys[0], 0, b"", tokens=0)])) == ErrorCode.INVALID_FIELD


@pytest.mark.parametrize("offset, length", [(1 << 20, None), ((1 << 20) - 1, None), (2**64 - 1, None), (2**63, None)], ids=str)
def test_offsets_outside_the_arena(daemon, witness, offset, length):
    with daemon.connect(arena_bytes=1 << 20) as client:
        session = open_session(client)
        length = session.page_bytes
        number = client.arena().number

        def push():
            entry = messages.PushEntry(bytes(32), 0, TOKENS, offset, length)
            client.connection.call(messages.Push(session.number, number, [entry]), messages.PushReply)

        def pull():
            entry = messages.PullEntry(bytes(32), offset, length)
            client.connection.start(messages.Pull(session.number, 0, number, 0, 0, 0, [entry])).next()

        assert refused(push) == ErrorCode.ARENA_BOUNDS
        assert refused(pull) == ErrorCode.ARENA_BOUNDS
        client.ping()


def test_offsets_outside_the_inline_bytes(witness):
    session = open_session(witness)
    entry = messages.PushEntry(bytes(32), 0, TOKENS, 1, session.page_bytes)
    request = messages.Push(session.number, wire.NONE32, [entry], bytes(session.page_bytes))
    assert refused(lambda: witness.connection.call(request, messages.PushReply)) == ErrorCode.ARENA_BOUNDS


def test_an_arena_belongs_to_its_connection(daemon, witness):
    number = witness.arena().number
    with daemon.connect(arena_bytes=0) as client:
        session = open_session(client)
        request = messages.Push(session.number, number, [])
        assert refused(lambda: client.connection.call(request, messages.PushReply)) == ErrorCode.UNKNOWN_ARENA


@pytest.mark.parametrize("size", [0, 1 << 50, 2**64 - 1])
def test_arenas_of_impossible_sizes(raw, size):
    code, error = raw.ask(messages.Arena(size))
    assert code in (ErrorCode.INVALID_FIELD, ErrorCode.LIMIT_EXCEEDED) and error.field == "bytes"


def test_what_does_not_exist(witness):
    assert refused(lambda: witness.connection.call(messages.GetPolicy(4711), messages.GetPolicyReply)) == ErrorCode.UNKNOWN_SESSION
    assert refused(lambda: witness.flush(4711)) == ErrorCode.UNKNOWN_SESSION
    assert refused(lambda: witness.load_profile("none.kvtc.safetensors")) == ErrorCode.UNKNOWN_PROFILE
    for name in ("../../etc/passwd", "/etc/passwd", "", ".", ".."):
        request = messages.Profile(1, name)
        assert refused(lambda request=request: witness.connection.call(request, messages.JsonReply)) == ErrorCode.INVALID_FIELD


def test_layers_that_do_not_exist(witness):
    session = open_session(witness)
    for layers in (range(0, 9), range(3, 2), range(4, 4)):
        assert refused(lambda layers=layers: list(session.pull([bytes(32)], layers=layers))) == ErrorCode.INVALID_FIELD


def test_too_small_a_place_for_a_page(witness):
    keys, contents = random_pages(1, seed=9)
    session = open_session(witness)
    session.push(to_push(keys, contents))
    entry = messages.PullEntry(keys[0], 0, session.page_bytes - 1)
    request = messages.Pull(session.number, 0, witness.arena().number, 0, 0, 0, [entry])
    body, more, _ = witness.connection.start(request).next()
    assert more and messages.PullPart.decode(body).outcome == kvtc.PullOutcome.NO_SPACE


def test_a_closed_session_is_gone(daemon, witness):
    session = open_session(witness)
    number = session.number
    session.close()
    assert refused(lambda: witness.connection.call(messages.GetPolicy(number), messages.GetPolicyReply)) == ErrorCode.UNKNOWN_SESSION
    with daemon.connect() as other:
        number = open_session(other).number
        assert witness.connection.call(messages.GetPolicy(number), messages.GetPolicyReply)
    # The daemon notices the end of a connection when it comes to it.
    deadline = time.monotonic() + 30
    while number in {row["id"] for row in witness.status()["sessions"]} and time.monotonic() < deadline:
        witness.ping()
    assert refused(lambda: witness.connection.call(messages.GetPolicy(number), messages.GetPolicyReply)) == ErrorCode.UNKNOWN_SESSION
