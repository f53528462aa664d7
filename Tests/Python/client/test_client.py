"""The client against a scripted server: batching, pipelining, timeouts, and a server that misbehaves."""

import gc
import os
import threading

import numpy as np
import pytest

import kvtc
from kvtc.protocol import messages, wire

from scripted import ScriptedDaemon, header_name

TOKENS, TOKEN_BYTES = 16, 64
PAGE = TOKENS * TOKEN_BYTES


@pytest.fixture
def server(tmp_path):
    daemon = ScriptedDaemon(tmp_path / "s")
    yield daemon
    daemon.close()


@pytest.fixture(params=[0, 1 << 20], ids=["inline", "arena"])
def client(server, request):
    with kvtc.connect(server.path, timeout=10, arena_bytes=request.param) as client:
        yield client


def pages(count, size=PAGE):
    rng = np.random.default_rng(count)
    keys = kvtc.page_keys(range(count * TOKENS), TOKENS)
    data = [rng.integers(0, 256, size, np.uint8) for _ in keys]
    return keys, data


def to_push(keys, data):
    return [kvtc.Page(key, index * TOKENS, page) for index, (key, page) in enumerate(zip(keys, data))]


def test_pages_come_back_in_batches_that_fit_the_arena(server, client):
    keys, data = pages(2000)
    with client.open_session("chat", page_tokens=TOKENS) as session:
        assert set(session.push(to_push(keys, data))) == {kvtc.PushOutcome.STORED}
        assert session.push(to_push(keys[:1], data)) == [kvtc.PushOutcome.PRESENT]
        assert session.fetch(keys) == [page.tobytes() for page in data]
    assert sum(isinstance(request, messages.Push) for request in server.seen) >= 3


def test_a_miss_is_a_part_without_data(client):
    keys, data = pages(3)
    session = client.open_session("chat", page_tokens=TOKENS)
    session.push(to_push(keys[:1], data))
    parts = {part.index: (part.outcome, len(part.data)) for part in session.pull(keys)}
    assert parts == {0: (kvtc.PullOutcome.HIT, PAGE), 1: (kvtc.PullOutcome.MISS, 0), 2: (kvtc.PullOutcome.MISS, 0)}
    assert session.fetch(keys) == [data[0].tobytes(), None, None]


def test_a_pull_left_early_gives_its_memory_back(client):
    keys, data = pages(900)
    session = client.open_session("chat", page_tokens=TOKENS)
    session.push(to_push(keys, data))
    for _ in range(10):
        stream = session.pull(keys)
        next(stream)
        stream.close()
    assert session.fetch(keys) == [page.tobytes() for page in data]


def test_threads_share_a_client(client):
    keys, data = pages(400)
    session = client.open_session("chat", page_tokens=TOKENS)
    session.push(to_push(keys, data))
    results = []
    threads = [threading.Thread(target=lambda: results.append(session.fetch(keys))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[page.tobytes() for page in data]] * 4


def test_dropping_no_keys_drops_nothing(server, client):
    with client.open_session("chat") as session:
        assert session.drop([]) == 0 and client.drop([]) == 0
    assert not any(isinstance(request, messages.Drop) for request in server.seen)


def test_a_page_larger_than_the_arena_says_what_to_do(client):
    session = client.open_session("chat", page_tokens=TOKENS)
    huge = bytes((1 << 20) + TOKEN_BYTES) if client.arena() else bytes(wire.MAX_BODY)
    with pytest.raises(kvtc.KvtcError, match="arena"):
        session.push([kvtc.Page(bytes(32), 0, huge)])


def test_bytes_that_are_no_whole_tokens_are_refused(client):
    session = client.open_session("chat", page_tokens=TOKENS)
    with pytest.raises(ValueError, match="whole number of tokens"):
        session.push([kvtc.Page(bytes(32), 0, bytes(65))])


def test_an_arena_is_halved_until_the_daemon_grants_it(tmp_path):
    daemon = ScriptedDaemon(tmp_path / "s", max_arena=8 << 20)

    def at_most_two(server, connection, request_id, request):
        if request.bytes > 2 << 20:
            return server.error(connection, request_id, request, kvtc.ErrorCode.LIMIT_EXCEEDED)
        return server.on_arena(connection, request_id, request)

    daemon.override[wire.Opcode.ARENA] = at_most_two
    with kvtc.connect(daemon.path) as client:
        assert client.arena().length == 2 << 20
    daemon.close()


def test_nobody_there(tmp_path):
    with pytest.raises(kvtc.Unreachable, match="systemctl start kvtcd.socket"):
        kvtc.connect(str(tmp_path / "none"))


def test_the_socket_may_come_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("KVTC_SOCKET", server.path)
    with kvtc.connect() as client:
        assert client.status() == {"state": "ready"}


def test_silence_times_out_and_the_connection_goes_on(server):
    waiting = []
    server.override[wire.Opcode.PING] = lambda server, *request: waiting.append(request)
    with kvtc.connect(server.path, timeout=0.05) as client:
        with pytest.raises(kvtc.RequestTimedOut, match="PING"):
            client.ping()
        del server.override[wire.Opcode.PING]
        server.on_ping(*waiting[0])
        assert client.ping(b"again") >= 0


def test_an_error_reply_is_typed(server, client):
    def refuse(server, *request):
        server.error(*request, kvtc.ErrorCode.POSITION_CONFLICT, "entries[3].firstPosition", "overlaps")

    server.override[wire.Opcode.PING] = refuse
    with pytest.raises(kvtc.KvtcError) as caught:
        client.ping()
    error = caught.value
    assert (error.code, error.name, error.field) == (15, "positionConflict", "entries[3].firstPosition")
    assert error.message == "overlaps" and error.advice
    assert client.status()


def test_an_unknown_error_code_is_still_an_error(server, client):
    server.override[wire.Opcode.PING] = lambda server, *request: server.error(*request, 999)
    with pytest.raises(kvtc.KvtcError, match="error999"):
        client.ping()


def test_a_connection_cut_in_a_reply(server, client):
    def cut(server, connection, request_id, request):
        connection.sendall(wire.frame(wire.REPLY | request.OPCODE, request_id, messages.PingReply(bytes(100)).encode())[:50])
        return False

    server.override[wire.Opcode.PING] = cut
    with pytest.raises(kvtc.ConnectionLost, match="inside a reply"):
        client.ping()
    assert sum(isinstance(request, messages.Ping) for request in server.seen) == 3, "repeated, but not for ever"
    assert client.status(), "other requests go on"


def cut_once(server, opcode, after=0):
    """The daemon dies at the request after so many of them, and comes back without its sessions."""
    seen = []

    def cut(server, *request):
        seen.append(request)
        if len(seen) == after + 1:
            return False
        return getattr(type(server), header_name(opcode))(server, *request)

    server.override[opcode] = cut


@pytest.mark.parametrize("opcode", [wire.Opcode.PING, wire.Opcode.STATUS, wire.Opcode.OPEN_SESSION])
def test_requests_are_repeated_on_a_new_connection(server, client, opcode):
    cut_once(server, opcode)
    assert client.ping(b"x") >= 0 and client.status() and client.open_session("chat").number == 1


def test_a_push_goes_on_after_the_daemon_restarted(server, client):
    keys, data = pages(2000)
    with client.open_session("chat", page_tokens=TOKENS, policy=kvtc.Policy(window=77)) as session:
        cut_once(server, wire.Opcode.PUSH, after=1)
        kept = {kvtc.PushOutcome.STORED, kvtc.PushOutcome.PRESENT}
        assert set(session.push(to_push(keys, data))) <= kept
        assert session.fetch(keys) == [page.tobytes() for page in data]
    opened = [request for request in server.seen if isinstance(request, messages.OpenSession)]
    assert len(opened) == 2 and opened[0] == opened[1], "opened again as it was"


def test_a_pull_goes_on_with_what_had_not_come(server, client):
    keys, data = pages(900)
    session = client.open_session("chat", page_tokens=TOKENS)
    session.push(to_push(keys, data))

    def cut(server, connection, request_id, request):
        # One whole batch of parts, and not its end.
        server.override.clear()
        index, entry = 0, request.entries[0]
        page = server.pages[entry.key]
        part = messages.PullPart(index, 0, 1, 0, entry.offset, len(page), page if request.arena == wire.NONE32 else b"")
        if request.arena != wire.NONE32:
            server.arena[entry.offset : entry.offset + len(page)] = page
        server.reply(connection, request_id, request, part, wire.MORE)
        return False

    server.override[wire.Opcode.PULL] = cut
    indices = [part.index for part in session.pull(keys)]
    # But for one that lay in memory which may have gone with its connection.
    assert sorted(set(indices)) == list(range(900)) and indices[1:].count(0) <= 1 and len(indices) <= 901, "every part once"
    assert session.fetch(keys) == [page.tobytes() for page in data]


def test_a_daemon_that_is_away_for_a_moment_is_waited_for(tmp_path):
    first = ScriptedDaemon(tmp_path / "s")
    with kvtc.connect(first.path, arena_bytes=0) as client:
        first.override[wire.Opcode.PING] = lambda server, *_: (os.unlink(server.path), server._listener.close(), False)[2]
        back = []
        timer = threading.Timer(0.2, lambda: back.append(ScriptedDaemon(tmp_path / "s")))
        timer.start()
        assert client.ping(b"x") >= 0
        timer.join()
    back[0].close()


def test_without_reconnecting_the_loss_is_told(server):
    cut_once(server, wire.Opcode.PING)
    with kvtc.connect(server.path, reconnect=0) as client:
        with pytest.raises(kvtc.ConnectionLost):
            client.ping()
        with pytest.raises(kvtc.ConnectionLost):
            client.status()


def test_a_lease_ends_with_its_connection(server, client):
    keys, data = pages(3)
    session = client.open_session("chat", page_tokens=TOKENS)
    session.push(to_push(keys, data))
    server.override[wire.Opcode.LOOKUP] = lambda server, connection, request_id, request: server.reply(
        connection, request_id, request, messages.LookupReply(9, 3, bytes([2, 2, 2]))
    )
    lease = session.lookup(keys, lease_ms=1000).lease
    assert lease.number == 9
    cut_once(server, wire.Opcode.PING)
    client.ping()
    assert session.fetch(keys, lease=lease) == [page.tobytes() for page in data]
    assert [request.lease for request in server.seen if isinstance(request, messages.Pull)] == [0]
    lease.release()
    assert not any(isinstance(request, messages.Release) for request in server.seen)


def test_the_daemons_last_words_explain_the_end(server, client):
    def farewell(server, connection, request_id, request):
        server.error(connection, 0, request, kvtc.ErrorCode.TIMEOUT, "", "idle too long")
        return False

    server.override[wire.Opcode.PING] = farewell
    with pytest.raises(kvtc.KvtcError, match="idle too long"):
        client.ping()


@pytest.mark.parametrize("junk", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"KVT1\x01\x00" + b"\xff" * 18], ids=["text", "length"])
def test_nonsense_ends_the_connection_with_a_reason(server, client, junk):
    server.override[wire.Opcode.PING] = lambda server, connection, *_: connection.sendall(junk)
    with pytest.raises(kvtc.ConnectionLost, match="badMagic|tooLarge"):
        client.ping()


@pytest.mark.parametrize("part", [(0, 0, 1 << 40), (0, (1 << 20) - 1, PAGE), (5, 0, PAGE)], ids=["length", "offset", "entry"])
def test_a_part_outside_its_region_is_refused(server, part):
    entry, offset, length = part

    def astray(server, connection, request_id, request):
        server.reply(connection, request_id, request, messages.PullPart(entry, 0, 1, 0, offset, length, b""), wire.MORE)

    server.override[wire.Opcode.PULL] = astray
    with kvtc.connect(server.path, arena_bytes=1 << 20) as client:
        session = client.open_session("chat", page_tokens=TOKENS)
        with pytest.raises(kvtc.KvtcError, match="outside the region|answered for page"):
            session.fetch([bytes(32)])


def test_a_forgotten_client_hangs_up(server):
    client = kvtc.connect(server.path)
    reader = client.connection._reader
    del client
    gc.collect()
    reader.join(10)
    assert not reader.is_alive()
