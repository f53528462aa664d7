"""Never worse than no cache: whatever happens to the daemon, a worker computes what it cannot restore, after a bounded wait."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

import kvtc
from kvtc import ErrorCode, PullOutcome
from kvtc.adapters import llama_cpp
from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.protocol import messages
from kvtc.protocol.wire import MORE, Opcode
from kvtc.transport import deadline

from random_models import VOCABULARY, write
from scripted import ScriptedDaemon

PAGE = 16
TOKENS = np.random.default_rng(21).integers(0, VOCABULARY, 85).tolist()
FULL = 80
SHORT = 0.3
"""Seconds to wait for a daemon that does not answer."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.gguf"
    write(path, "llama")
    return path


@pytest.fixture(scope="module")
def expected(model: Path) -> np.ndarray:
    """The logits after all tokens, computed without kvtcd."""
    with LlamaWorker(model, context=256, threads=1) as worker:
        return worker.prefill(TOKENS)


class Computing(LlamaWorker):
    """Counts the tokens that it computes."""

    computed = 0

    def prefill(self, tokens, progress=None):
        self.computed = len(tokens)
        return super().prefill(tokens, progress)


@pytest.fixture
def worker(model: Path) -> Iterator[Computing]:
    with Computing(model, context=256, threads=1) as worker:
        yield worker


def opened(client: kvtc.Client, worker: LlamaWorker) -> kvtc.Session:
    return llama_cpp.open_session(client, worker, "faults", page_tokens=PAGE)


def kept(client: kvtc.Client, worker: LlamaWorker) -> kvtc.Session:
    """A session that has offloaded all tokens; the worker is empty."""
    session = opened(client, worker)
    worker.prefill(TOKENS)
    assert llama_cpp.offload(session, worker, TOKENS).stored == FULL // PAGE
    worker.clear()
    return session


def expect_as_without(session: kvtc.Session, worker: Computing, expected: np.ndarray, computed: int = len(TOKENS)) -> None:
    """Resuming gives what computing alone gives, by computing so many tokens."""
    np.testing.assert_allclose(llama_cpp.resume(session, worker, TOKENS, deadline=SHORT), expected, atol=1e-2)
    assert worker.computed == computed and worker.position == worker.matching(TOKENS) == len(TOKENS)


# A daemon that is away


def test_a_stopped_daemon_costs_a_bounded_wait_once(make_daemon, worker: Computing, expected: np.ndarray) -> None:
    daemon = make_daemon()
    with daemon.connect() as client:
        session = kept(client, worker)
        with daemon.stopped():
            expect_as_without(session, worker, expected)
            # What the worker holds itself is kept, and nothing is asked any more.
            seen = client.breaker.is_open
            worker.truncate(50)
            expect_as_without(session, worker, expected, computed=len(TOKENS) - 50)
            done = llama_cpp.offload(session, worker, TOKENS)
            assert seen and (done.refused, done.stored) == (FULL // PAGE, 0) and "did not answer" in done.reason
            session.close()
        # It goes on answering, and is used again.
        session = opened(client, worker)
        worker.clear()
        client.breaker = deadline.Breaker()
        assert llama_cpp.restore(session, worker, TOKENS) == FULL
        (row,) = client.status()["sessions"]
        assert row["id"] == session.number


def test_a_daemon_that_was_killed(make_daemon, worker: Computing, expected: np.ndarray) -> None:
    daemon = make_daemon()
    with daemon.connect() as client:
        session = kept(client, worker)
        client.flush()
        daemon.stop(signal.SIGKILL)
        expect_as_without(session, worker, expected)
        assert llama_cpp.offload(session, worker, TOKENS, deadline=SHORT).refused == FULL // PAGE
        daemon.start()
        client.breaker = deadline.Breaker()
        worker.clear()
        assert llama_cpp.restore(session, worker, TOKENS) == FULL
        expect_as_without(session, worker, expected, computed=len(TOKENS) - FULL)


def test_a_daemon_that_restarts_in_between_is_not_noticed(make_daemon, worker: Computing, expected: np.ndarray) -> None:
    daemon = make_daemon()
    with daemon.connect() as client:
        session = kept(client, worker)
        client.flush()
        daemon.restart()
        assert llama_cpp.restore(session, worker, TOKENS) == FULL
        assert llama_cpp.offload(session, worker, TOKENS[:FULL]).present == FULL // PAGE


def test_a_session_that_the_daemon_has_ended_is_opened_again(make_daemon, worker: Computing, expected: np.ndarray) -> None:
    with make_daemon().connect() as client:
        session = kept(client, worker)
        client.connection.call(messages.CloseSession(session.number), messages.Empty)
        expect_as_without(session, worker, expected)
        worker.clear()
        assert llama_cpp.restore(session, worker, TOKENS) == FULL
        client.connection.call(messages.CloseSession(session.number), messages.Empty)
        worker.clear()
        worker.prefill(TOKENS)
        assert "unknownSession" in llama_cpp.offload(session, worker, TOKENS).reason
        assert llama_cpp.offload(session, worker, TOKENS).present == FULL // PAGE
        session.close()
        expect_as_without(session, worker, expected, computed=1)
        worker.clear()
        expect_as_without(session, worker, expected)


def test_a_client_that_was_closed(make_daemon, worker: Computing, expected: np.ndarray) -> None:
    client = make_daemon().connect()
    session = kept(client, worker)
    client.close()
    expect_as_without(session, worker, expected)
    assert llama_cpp.offload(session, worker, TOKENS).refused == FULL // PAGE


# Leases


@pytest.mark.parametrize("lease_ms", [1, 999, 60_000, 2**40, 0])
def test_a_lease_that_is_short_or_too_long_or_none(make_daemon, worker: Computing, lease_ms: int) -> None:
    with make_daemon(**{"limits.lease_s": 2}).connect() as client:
        session = kept(client, worker)
        assert llama_cpp.restore(session, worker, TOKENS, lease_ms=lease_ms) == FULL == worker.position
        assert client.status()["leases"] == 0 or lease_ms == 1


def test_a_lease_that_is_over_is_no_error(make_daemon, worker: Computing) -> None:
    with make_daemon().connect() as client:
        session = kept(client, worker)
        keys = kvtc.page_keys(TOKENS, PAGE, session.profile)
        lease = session.lookup(keys, 60_000).lease
        client.connection.call(messages.Release(lease.number), messages.Empty)
        assert all(session.fetch(keys, lease=lease))
        lease.release()
        lease.release()


# A daemon that answers strangely


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[ScriptedDaemon]:
    server = ScriptedDaemon(tmp_path / "s", features=messages.FEATURES)
    yield server
    server.close()


def refusing(code: ErrorCode) -> Callable:
    return lambda server, connection, number, request: server.error(connection, number, request, code)


def silent(server, connection, number, request) -> None:
    """Never answers."""


def hanging_up(server, connection, number, request) -> bool:
    return False


def found_all(server, connection, number, request) -> None:
    keys = request.keys
    run = next((index for index, key in enumerate(keys) if key not in server.pages), len(keys))
    server.reply(connection, number, request, messages.LookupReply(0, run, bytes([1] * run + [0] * (len(keys) - run))))


def cut_after(parts: int, goes_on: bool = False) -> Callable:
    """Answers a pull with so many pages, in order, and hangs up, or says nothing more."""

    def pull(server, connection, number, request) -> bool:
        for index, entry in enumerate(request.entries[:parts]):
            page = server.pages[entry.key]
            inline = page if server.arena is None else b""
            if server.arena is not None:
                server.arena[entry.offset : entry.offset + len(page)] = page
            part = messages.PullPart(index, 0, 2, PullOutcome.HIT, entry.offset, len(page), inline)
            server.reply(connection, number, request, part, MORE)
        return goes_on

    return pull


def nonsense(server, connection, number, request) -> None:
    """What no release of today says."""
    count = len(getattr(request, "keys", None) or request.entries)
    replies = {
        Opcode.LOOKUP: lambda: messages.LookupReply(0, 2**32 - 1, bytes([99] * count)),
        Opcode.PUSH: lambda: messages.PushReply(bytes([99] * count)),
        Opcode.PULL: lambda: messages.PullPart(0, 0, 2, 99, 0, 0, b""),
    }
    server.reply(connection, number, request, replies[request.OPCODE](), MORE if request.OPCODE == Opcode.PULL else 0)


FAILURES = {code.label: refusing(code) for code in ErrorCode} | {"silence": silent, "end": hanging_up, "nonsense": nonsense}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
@pytest.mark.parametrize("opcode", [Opcode.LOOKUP, Opcode.PULL, Opcode.PUSH], ids=lambda opcode: opcode.name)
def test_whatever_is_answered(
    scripted: ScriptedDaemon, worker: Computing, expected: np.ndarray, opcode: Opcode, failure: Callable
) -> None:
    scripted.token_bytes = worker.geometry.token_bytes
    scripted.override = {Opcode.LOOKUP: found_all}
    with kvtc.connect(scripted.path, arena_bytes=1 << 20, timeout=5, reconnect=SHORT) as client:
        session = kept(client, worker)
        scripted.override[opcode] = failure
        if opcode == Opcode.PUSH:
            worker.prefill(TOKENS)
            done = llama_cpp.offload(session, worker, TOKENS, deadline=SHORT)
            assert (done.pages, done.refused) == (FULL // PAGE,) * 2 and done.reason
        expect_as_without(session, worker, expected, computed=1 if opcode == Opcode.PUSH else len(TOKENS))


@pytest.mark.parametrize("goes_on", [False, True], ids=["hangs up", "too slow"])
def test_what_came_before_an_end_is_a_shorter_beginning(
    scripted: ScriptedDaemon, worker: Computing, expected: np.ndarray, goes_on: bool
) -> None:
    # What lies in memory of a connection that has ended counts for nothing, what came in its frames does.
    scripted.token_bytes = worker.geometry.token_bytes
    scripted.override = {Opcode.LOOKUP: found_all}
    with kvtc.connect(scripted.path, arena_bytes=goes_on << 20, timeout=5, reconnect=0) as client:
        session = kept(client, worker)
        scripted.override[Opcode.PULL] = cut_after(3, goes_on)
        expect_as_without(session, worker, expected, computed=len(TOKENS) - 3 * PAGE)


def test_a_longer_cache_of_its_own_is_kept(make_daemon, worker: Computing, expected: np.ndarray) -> None:
    with make_daemon().connect() as client:
        session = kept(client, worker)
        worker.prefill(TOKENS[:70])
        keys = kvtc.page_keys(TOKENS, PAGE, session.profile)
        session.drop(keys[3:])
        assert llama_cpp.restore(session, worker, TOKENS) == 70 == worker.position
        worker.prefill([1, 2, 3])
        expect_as_without(session, worker, expected, computed=len(TOKENS) - 70)
        worker.truncate(20)
        worker.prefill([1, 2, 3])
        expect_as_without(session, worker, expected, computed=len(TOKENS) - 48)


def test_a_state_that_the_engine_does_not_take_is_computed(
    make_daemon, worker: Computing, expected: np.ndarray, monkeypatch
) -> None:
    with make_daemon().connect() as client:
        session = kept(client, worker)
        monkeypatch.setattr(worker._library, "llama_state_seq_set_data", lambda *_: 0)
        expect_as_without(session, worker, expected)


# Waiting


def test_a_breaker_asks_seldom_and_recovers(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(deadline.time, "monotonic", lambda: now[0])
    breaker, probes, entered = deadline.Breaker(), [], []

    def turn(fails: bool, probe_fails: bool = False) -> None:
        def probe() -> None:
            probes.append(now[0])
            if probe_fails:
                raise kvtc.RequestTimedOut("no answer")

        with breaker.guard(5.0, probe):
            entered.append(now[0])
            if fails:
                raise kvtc.RequestTimedOut("no answer")

    with pytest.raises(kvtc.RequestTimedOut):
        turn(fails=True)
    for pause in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        now[0] += pause - 0.01
        with pytest.raises(kvtc.Unavailable):
            turn(fails=False)
        now[0] += 0.02
        with pytest.raises(kvtc.RequestTimedOut):
            turn(fails=False, probe_fails=True)
    assert len(entered) == 1 and len(probes) == 7
    now[0] += 31
    turn(fails=False)
    turn(fails=False)
    assert len(entered) == 3 and len(probes) == 8 and not breaker.is_open


def test_a_refusal_is_no_silence() -> None:
    breaker = deadline.Breaker()
    for code in ErrorCode:
        with pytest.raises(kvtc.KvtcError), breaker.guard(1.0, lambda: None):
            raise kvtc.KvtcError("refused", code)
        assert breaker.is_open == (code == ErrorCode.SHUTTING_DOWN)
        breaker = deadline.Breaker()


def test_the_deadline_that_ends_first_counts() -> None:
    assert deadline.left(7.0) == 7.0
    with deadline.within(5.0), deadline.within(100.0):
        assert 0 < deadline.left(60.0) <= 5.0 and deadline.left(1.0) == 1.0
        with deadline.within(0):
            assert deadline.left(60.0) == 0
        assert deadline.left(60.0) > 0
    assert deadline.left(60.0) == 60.0


@pytest.mark.parametrize(
    "ask",
    [
        lambda client, session: client.ping(),
        lambda client, session: client.open_session("x", geometry=session.geometry),
        lambda client, session: session.lookup([bytes(32)]),
        lambda client, session: list(session.pull([bytes(32)])),
        lambda client, session: session.push([kvtc.Page(bytes(32), 0, bytes(session.token_bytes))]),
        lambda client, session: [client.connection.start(messages.Ping(bytes(1 << 16))) for _ in itertools.count()],
        lambda client, session: kvtc.connect(client.connection.path),
    ],
    ids=["ping", "open", "lookup", "pull", "push", "flood", "connect"],
)
def test_every_call_heeds_the_deadline(make_daemon, worker: Computing, ask: Callable) -> None:
    daemon = make_daemon()
    with daemon.connect() as client:
        session = opened(client, worker)
        with daemon.stopped(), pytest.raises(kvtc.KvtcError), kvtc.within(SHORT):
            ask(client, session)
