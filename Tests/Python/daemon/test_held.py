"""What a connection can make the daemon hold: it is counted, limited, and given back also when the client keeps its end."""

import array
import itertools
import os
import resource
import socket
import time

import pytest

import kvtc
from kvtc import ErrorCode
from kvtc.protocol import messages, wire

from faults import strace
from process_state import ProcessState
from raw import Raw
from samples import GEOMETRY, TOKENS, open_session, random_pages, to_push
from users import as_user

USER = 63011
PATIENCE = 30


def take_arena(raw, size):
    """An arena's number and descriptor; or the error."""
    sent = raw.frame(wire.Opcode.ARENA, messages.Arena(size).encode())
    header, ancillary, _, _ = raw.socket.recvmsg(wire.HEADER.size, socket.CMSG_SPACE(4))
    header = wire.Header.decode(header)
    assert header.request == sent
    body = raw._exactly(header.length)
    if header.status:
        return messages.ErrorBody.decode(body), None
    descriptors = array.array("i")
    descriptors.frombytes(ancillary[0][2])
    return messages.ArenaReply.decode(body).arena, descriptors[0]


def test_the_memory_of_an_arena_ends_with_its_connection(make_daemon):
    """Page after page is pulled into arenas whose descriptors the client keeps."""
    daemon = make_daemon(**{"limits.arena_per_user": "8MiB"})
    keys, contents = random_pages(100)
    size = len(contents[0])
    kept = []
    with daemon.connect(arena_bytes=0) as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        for _ in range(6):
            with Raw(daemon.socket) as raw:
                number, descriptor = take_arena(raw, 4 << 20)
                kept.append(descriptor)
                body = raw.ask(messages.OpenSession("raw", b"", GEOMETRY, page_tokens=TOKENS))[1]
                own = messages.OpenSessionReply.decode(body).session
                entries = [messages.PullEntry(key, index * size, size) for index, key in enumerate(keys)]
                raw.frame(wire.Opcode.PULL, messages.Pull(own, 0, number, 0, 0, 0, entries).encode())
                while raw.read()[2].status & wire.MORE:
                    pass
                assert os.pread(descriptor, size, 0) == contents[0]
            # The daemon notices the end of a connection when it comes to it.
            until = time.monotonic() + PATIENCE
            while os.fstat(descriptor).st_blocks and time.monotonic() < until:
                time.sleep(0.01)
            assert os.fstat(descriptor).st_blocks == 0
            assert os.pread(descriptor, size, 0) == bytes(size)
    for descriptor in kept:
        os.close(descriptor)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as several users")
def test_a_flood_of_small_arenas_leaves_the_daemon_to_others(make_daemon):
    daemon = make_daemon(**{"socket.mode": "0666"})
    daemon.stop()
    daemon.prefix = ["prlimit", "--nofile=256", "--"]
    daemon.start()
    daemon.prefix = []
    daemon.directory.chmod(0o755)
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        connections, codes = [], set()
        try:
            while len(connections) < 300 and ErrorCode.LIMIT_EXCEEDED not in codes:
                connections.append(Raw(daemon.socket))
                for _ in range(70):
                    found, _ = take_arena(connections[-1], 1)
                    codes.add(found if isinstance(found, int) else -1)
        except (OSError, EOFError, AssertionError):
            pass
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        keys, contents = random_pages(3)

        def use():
            with daemon.connect(arena_bytes=1 << 20) as client:
                session = open_session(client)
                session.push(to_push(keys, contents))
                client.flush()
                return session.fetch(keys) == contents

        assert as_user(USER + 1, use) and use()
        assert "accept failed" not in daemon.log.read_text()
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)
        for descriptor in (*ready, *done):
            os.close(descriptor)


def test_arenas_that_are_never_fetched_do_not_pile_up(make_daemon):
    """Descriptors in replies that nobody reads are the daemon's until the connection ends."""
    daemon = make_daemon(**{"limits.arenas_per_connection": 5})
    state = ProcessState(daemon)
    with Raw(daemon.socket) as raw:
        for _ in range(50):
            raw.frame(wire.Opcode.ARENA, messages.Arena(1).encode())
        codes = [raw.read()[0] for _ in range(50)]
        assert codes.count(0) == 5 and codes[5:] == [ErrorCode.LIMIT_EXCEEDED] * 45
        # None of them costs the daemon a descriptor for longer than it takes to send it.
        assert state.descriptors().get("/memfdkvtc-arena", 0) == 0
    assert not state.leaks()


def test_a_connection_has_a_bounded_number_of_threads(make_daemon):
    daemon = make_daemon()
    state = ProcessState(daemon)
    with daemon.connect(arena_bytes=0) as client:
        calls = [client.connection.start(messages.Flush(wire.NONE32)) for _ in range(40)]
        names = state.threads()
        for call in calls:
            call.reply(messages.FlushReply)
        assert sum(name in ("kvtc-read", "kvtc-answer") or name.startswith("kvtc-slow") for name in names) <= 3
    assert not state.leaks()
    assert not [name for name in state.threads() if name.startswith("kvtc-slow")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as several users")
def test_a_tenant_hears_nothing_of_others_or_of_the_host(make_daemon):
    daemon = make_daemon(**{"socket.mode": "0666"})
    daemon.directory.chmod(0o755)
    keys, contents = random_pages(4)

    def trespass():
        with daemon.connect(arena_bytes=0) as client:
            session = open_session(client)
            session.push(to_push(keys, contents))
            heard = [str(client.status())]
            for call in (
                lambda: client.flush(4711),
                lambda: client.load_profile("none.kvtc.safetensors"),
                lambda: client.open_session("x", profile=bytes(32)),
                lambda: client.verify(),
            ):
                try:
                    call()
                except kvtc.KvtcError as error:
                    heard.append(str(error))
            numbers = [open_session(client).number for _ in range(8)]
            return [heard, numbers, client.status()["sessions"][0]["connection"]]

    with daemon.connect() as client, open_session(client, "secret name") as own:
        own.push(to_push(keys, contents))
        heard, numbers, _ = as_user(USER, trespass)
        text = "\n".join(heard)
        assert len(heard) == 5
        assert str(daemon.directory) not in text and "secret name" not in text and "/state" not in text, text
        assert any(b < a for a, b in itertools.pairwise(numbers)), "numbers that do not count sessions"
        assert client.status()["profile_directory"] == str(daemon.directory / "state" / "profiles")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as several users")
def test_a_tenant_hears_that_the_disk_fails_and_not_where(make_daemon):
    daemon = make_daemon(**{"socket.mode": "0666"})
    daemon.directory.chmod(0o755)
    daemon.stop()
    daemon.prefix = strace("pwrite64", "error=EIO", "1+")
    daemon.start()
    daemon.prefix = []
    keys, contents = random_pages(4)

    def fail():
        with daemon.connect(arena_bytes=0) as client:
            session = open_session(client)
            session.push(to_push(keys, contents))
            try:
                client.flush()
            except kvtc.KvtcError as error:
                return [str(error), client.status()["state"], client.status()["state_reason"]]

    error, state, reason = as_user(USER, fail)
    assert state == "degraded" and reason and "/" not in reason
    assert "disk" in error and str(daemon.directory) not in error and "segment-" not in error
    with daemon.connect() as client:
        assert str(daemon.directory) in client.status()["state_reason"], "the administrator hears all of it"
    assert daemon.stop() == 1
    daemon.start()


def test_the_keys_under_leases_are_counted(make_daemon):
    daemon = make_daemon(**{"limits.keys": 10})
    keys, contents = random_pages(8)
    with daemon.connect() as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        first = session.lookup(keys, lease_ms=60000).lease
        second = session.lookup(keys[:2], lease_ms=60000).lease
        with pytest.raises(kvtc.KvtcError, match="10 keys under the leases") as refused:
            session.lookup(keys[:1], lease_ms=60000)
        assert (refused.value.code, refused.value.field) == (ErrorCode.LIMIT_EXCEEDED, "keys")
        assert session.lookup(keys).leading_run == 8
        first.release()
        assert second and session.lookup(keys[:8], lease_ms=60000).lease
