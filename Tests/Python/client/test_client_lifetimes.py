"""What nobody refers to any more ends: sessions with the next request, clients at once."""

import gc
import os
import socket
import threading

import pytest

import kvtc
from kvtc import ErrorCode
from kvtc.adapters.codec import Whole
from kvtc.adapters.transfer import pull_pages
from kvtc.protocol.messages import CloseSession

from samples import GEOMETRY, TOKENS, open_session, random_pages, to_push, until


def test_sessions_that_nobody_refers_to_end(client):
    """More than a user may have at once."""
    for number in range(1100):
        client.open_session(f"forgotten {number}", geometry=GEOMETRY, page_tokens=TOKENS)
    kept = open_session(client)
    assert [row["id"] for row in client.status()["sessions"]] == [kept.number]


def test_sessions_in_cycles_end_when_they_are_found(make_daemon):
    with make_daemon(**{"limits.sessions_per_user": 3}).connect() as client:
        kept, contents = open_session(client), random_pages(3)
        for _ in range(6):
            session = open_session(client)
            session.itself = session
            del session
            gc.collect()
        keys, pages = contents
        assert len(kept.push(to_push(keys, pages))) == 3 and kept.fetch(keys) == pages
        assert len(client.status()["sessions"]) == 1


def test_a_session_lives_as_long_as_what_uses_it(client):
    keys, contents = random_pages(3)
    session = open_session(client)
    session.push(to_push(keys, contents))
    pull = session.pull(keys)
    number = session.number
    del session
    client.ping()
    assert [row["id"] for row in client.status()["sessions"]] == [number]
    assert sorted(bytes(part.data) for part in pull) == sorted(contents)
    del pull
    assert client.status()["sessions"] == []


def test_a_session_that_was_refused_or_closed_is_not_closed_again(make_daemon):
    with make_daemon(**{"limits.sessions_per_user": 1}).connect() as client:
        session = open_session(client)
        for _ in range(5):
            with pytest.raises(kvtc.KvtcError) as caught:
                open_session(client)
            assert caught.value.code == ErrorCode.LIMIT_EXCEEDED
        session.close()
        del session
        open_session(client)
        status = client.status()
        assert (status["refused"]["total"], status["counters"]["errors"]) == (5, 0)


def test_a_session_that_is_refused_after_a_restart_does_not_take_the_others_along(make_daemon):
    daemon, (keys, contents) = make_daemon(), random_pages(2)
    with daemon.connect() as client:
        first, second = open_session(client), open_session(client)
        assert len(first.push(to_push(keys, contents))) == 2
        client.flush()
        daemon.settings["limits.sessions_per_user"] = 1
        daemon.restart()
        assert first.fetch(keys) == contents
        with pytest.raises(kvtc.KvtcError) as caught:
            second.lookup(keys)
        assert caught.value.code == ErrorCode.LIMIT_EXCEEDED
        first.close()
        assert second.lookup(keys).leading_run == 2 and second.fetch(keys) == contents
        with pytest.raises(kvtc.KvtcError) as caught:
            first.lookup(keys)
        assert caught.value.code == ErrorCode.UNKNOWN_SESSION


def test_a_forgotten_session_of_an_old_connection_is_left_alone(make_daemon):
    daemon = make_daemon()
    with daemon.connect() as client:
        forgotten, kept = open_session(client), open_session(client)
        daemon.restart()
        old, number = forgotten._link
        # As one that the collector found between both connections.
        old.later(CloseSession(number))
        assert kept.lookup([bytes(32)]).leading_run == 0
        del forgotten
        client.ping()
        assert [row["id"] for row in client.status()["sessions"]] == [kept.number]


def test_leases_that_nobody_refers_to_end(make_daemon):
    """More than a user may have at once; and one that is in use is none of them."""
    with make_daemon(**{"limits.leases_per_user": 3}).connect() as client:
        session, (keys, contents) = open_session(client), random_pages(3)
        session.push(to_push(keys, contents))
        for _ in range(10):
            assert session.lookup(keys, lease_ms=60_000).lease
        in_a_cycle = session.lookup(keys, lease_ms=60_000).lease
        in_a_cycle.itself = in_a_cycle
        del in_a_cycle
        gc.collect()
        pull = session.pull(keys, lease=session.lookup(keys, lease_ms=60_000).lease)
        held = [session.lookup(keys, lease_ms=60_000).lease for _ in range(2)]
        with pytest.raises(kvtc.KvtcError) as caught:
            session.lookup(keys, lease_ms=60_000)
        assert caught.value.code == ErrorCode.LIMIT_EXCEEDED and all(held)
        assert sorted(bytes(part.data) for part in pull) == sorted(contents)
        del pull
        assert session.lookup(keys, lease_ms=60_000).lease


def test_clients_that_nobody_refers_to_hang_up(make_daemon):
    """More than a user may have at once, each with an arena."""
    daemon = make_daemon(**{"limits.arena_per_user": "16MiB"})
    for _ in range(100):
        daemon.connect(arena_bytes=4 << 20).arena()
    with daemon.connect() as client:
        assert client.arena() is not None


def test_what_is_read_of_an_arena_after_its_end_is_not_taken_for_a_page(daemon):
    keys, contents = random_pages(3)
    with daemon.connect(reconnect=0) as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        pull = session.pull(keys)
        part = next(pull)
        assert part.data == contents[part.index]
        # The daemon ends the connection, and takes the memory back.
        client.connection._socket.shutdown(socket.SHUT_WR)
        until(lambda: not any(part.data))
        with pytest.raises(kvtc.ConnectionLost):
            next(pull)
    with daemon.connect(reconnect=0) as client:
        session = open_session(client)

        def place(index, page):
            client.connection._socket.shutdown(socket.SHUT_WR)
            until(lambda: not page.any())

        assert not pull_pages(session, keys, lambda count: Whole(place)).any()


def test_a_daemon_that_stops_leaves_what_it_has_told_of(daemon):
    keys, contents = random_pages(2)
    with daemon.connect(reconnect=0) as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        pull = session.pull(keys)
        part = next(pull)
        assert daemon.stop() == 0
        assert part.data == contents[part.index]
        with pytest.raises(kvtc.ConnectionLost):
            next(pull)


def test_a_forked_process_goes_on_with_its_sessions(daemon, client):
    """With a thread of the parent's inside a request, whose locks no thread of the child has."""
    keys, contents = random_pages(4)
    session = open_session(client)
    session.push(to_push(keys[:2], contents[:2]))
    own = client.connection
    stop, busy = threading.Event(), threading.Event()

    def keep_asking():
        while not stop.is_set():
            session.fetch(keys[:2])
            busy.set()

    thread = threading.Thread(target=keep_asking)
    thread.start()
    assert busy.wait(60)
    children = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            try:
                assert session.fetch(keys[:2]) == contents[:2]
                session.push(to_push(keys, contents))
                assert session.fetch(keys) == contents
                client.close()
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 8
    stop.set()
    thread.join()
    # What they did with their copies left this connection alone.
    assert session.fetch(keys) == contents and client.connection is own
    until(lambda: len(client.status()["sessions"]) == 1)
