"""Whose pages they are: another user never sees, finds or drops them; the same user does."""

import json
import os

import pytest

import kvtc
from kvtc import PushOutcome, Residence
from samples import open_session, random_pages, to_push

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as several users")


def as_user(user, work):
    """What ``work`` returns (as JSON can say it) when another user runs it, in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os.write(writing, json.dumps(work()).encode())
            status = 0
        except BaseException as error:
            os.write(writing, json.dumps(f"{type(error).__name__}: {error}").encode())
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        result = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, result
    return json.loads(result)


@pytest.fixture
def shared(make_daemon):
    """A daemon that every user can connect to."""
    daemon = make_daemon(**{"socket.mode": "0666"})
    daemon.directory.chmod(0o755)
    return daemon


def test_a_page_is_found_by_its_own_user_only(shared):
    keys, contents = random_pages(4)

    def push():
        with shared.connect() as client:
            return [int(outcome) for outcome in open_session(client).push(to_push(keys, contents))]

    def look():
        with shared.connect() as client:
            session = open_session(client)
            found = session.lookup(keys, lease_ms=1000)
            return [found.leading_run, [int(place) for place in found.residence], session.fetch(keys) == contents]

    absent = [0, [Residence.ABSENT] * 4, False]
    assert push() == [PushOutcome.STORED] * 4
    assert as_user(NOBODY, look) == absent
    # No page of another user counts as present: an answer that differs would tell what others cache.
    assert as_user(NOBODY, push) == [PushOutcome.STORED] * 4
    assert as_user(NOBODY, look)[::2] == [4, True] and look()[::2] == [4, True]
    assert as_user(NOBODY + 1, look) == absent


def test_a_tenants_drop_leaves_others_alone(shared):
    keys, contents = random_pages(3)

    def push_and_drop():
        with shared.connect() as client:
            session = open_session(client)
            session.push(to_push(keys[:2], contents))
            return [client.drop(keys), client.drop()]

    with shared.connect() as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        assert as_user(NOBODY, push_and_drop) == [2, 0]
        assert session.fetch(keys) == contents


def test_sessions_and_leases_of_others_do_not_exist(shared):
    keys, contents = random_pages(2)

    def trespass(number, lease):
        with shared.connect() as client:
            codes = []
            with open_session(client) as own:
                for call in (
                    lambda: client.flush(number),
                    lambda: kvtc.Lease(client.connection, lease).release(),
                    lambda: own.fetch(keys, lease=lease),
                ):
                    try:
                        call()
                        codes.append(0)
                    except kvtc.KvtcError as error:
                        codes.append(error.code)
                return [codes, [row["tenant"] for row in client.status()["sessions"]]]

    with shared.connect() as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        lease = session.lookup(keys, lease_ms=60000).lease.number
        codes, tenants = as_user(NOBODY, lambda: trespass(session.number, lease))
        assert codes == [kvtc.ErrorCode.UNKNOWN_SESSION] + [kvtc.ErrorCode.UNKNOWN_LEASE] * 2
        assert tenants == [NOBODY]


def test_root_may_name_any_session(shared):
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        with shared.connect() as client:
            os.write(ready[1], str(open_session(client, "theirs").number).encode())
            os.read(done[0], 1)
        os._exit(0)
    number = int(os.read(ready[0], 32))
    with shared.connect() as client:
        rows = {row["id"]: row for row in client.status()["sessions"]}
        assert (rows[number]["name"], rows[number]["tenant"]) == ("theirs", NOBODY)
        assert client.flush(number).pages == 0
    os.write(done[1], b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for descriptor in (*ready, *done):
        os.close(descriptor)


def test_a_socket_for_the_group_keeps_others_out(make_daemon):
    daemon = make_daemon()
    daemon.directory.chmod(0o755)

    def knock():
        try:
            daemon.connect()
        except kvtc.Unreachable as error:
            return str(error)
        return "let in"

    assert "group kvtcd" in as_user(NOBODY, knock)
