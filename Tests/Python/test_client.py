"""The client against a scripted server: batching, pipelining, timeouts, and a server that misbehaves."""

import gc
import os
import threading

import numpy as np
import pytest

import kvtc
from kvtc import messages, wire
from scripted import ScriptedDaemon

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
    with pytest.raises(kvtc.ConnectionLost):
        client.status()


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


def test_not_usable_after_fork(server):
    with kvtc.connect(server.path) as client:
        child = os.fork()
        if child == 0:
            try:
                client.ping()
            except kvtc.ConnectionLost:
                client.close()
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.status(), "what the child does with its copy leaves the parent's connection alone"
