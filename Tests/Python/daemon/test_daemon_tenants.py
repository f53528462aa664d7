"""Whose pages they are: another user never sees, finds or drops them; the same user does."""

import contextlib
import os
import random
import time

import numpy as np
import pytest

import kvtc
from kvtc import PushOutcome, Residence
from kvtc.protocol import messages

from samples import open_session, random_pages, to_push
from users import NOBODY, as_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as several users")


@pytest.fixture
def shared(make_daemon):
    """A daemon that every user can connect to."""
    daemon = make_daemon(**{"socket.mode": "0666"})
    daemon.directory.chmod(0o755)
    return daemon


def test_profiles_are_handed_in_by_administrators_only(shared):
    file = shared.directory / "m.kvtc.safetensors"
    file.write_bytes(b"whatever")

    def hand_in():
        with shared.connect() as client:
            try:
                client.load_profile(str(file))
            except kvtc.KvtcError as error:
                return [int(error.code), str(error)]

    def load():
        with shared.connect() as client:
            try:
                client.load_profile("none.safetensors")
            except kvtc.KvtcError as error:
                return [int(error.code), str(error), client.status()["profile_directory"]]

    # A tenant learns that there is no such file, and nothing of where.
    code, message, directory = as_user(NOBODY, load)
    assert code == kvtc.ErrorCode.UNKNOWN_PROFILE and str(shared.directory) not in message and directory is None
    code, message = as_user(NOBODY, hand_in)
    assert code == kvtc.ErrorCode.FORBIDDEN and "administrators" in message
    assert load()[2] == str(shared.directory / "state" / "profiles")


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
                    lambda: client.connection.call(messages.Release(lease), messages.Empty),
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
        lease = session.lookup(keys, lease_ms=60000).lease
        codes, tenants = as_user(NOBODY, lambda: trespass(session.number, lease.number))
        # A number that is nobody's ends nothing and promises nothing, and neither does one that is somebody else's.
        assert codes == [kvtc.ErrorCode.UNKNOWN_SESSION, 0, 0]
        assert tenants == [NOBODY]
        assert client.status()["leases"] == 1


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


@pytest.fixture
def make_shared(make_daemon):
    """Makes daemons that every user can connect to."""

    def make(**settings):
        daemon = make_daemon(**{"socket.mode": "0666"} | settings)
        daemon.directory.chmod(0o755)
        return daemon

    return make


def pusher(daemon, keys, contents):
    def push():
        with daemon.connect() as client:
            return [int(outcome) for outcome in open_session(client).push(to_push(keys, contents))]

    return push


def finder(daemon, keys):
    def find():
        with daemon.connect() as client:
            return open_session(client).lookup(keys).leading_run

    return find


def test_users_that_are_listed_together_share_pages(make_shared):
    daemon = make_shared(**{"tenants.engines": [NOBODY, NOBODY - 1]})
    keys, contents = random_pages(3)
    assert as_user(NOBODY, pusher(daemon, keys, contents)) == [PushOutcome.STORED] * 3
    assert as_user(NOBODY - 1, finder(daemon, keys)) == 3
    assert as_user(NOBODY - 2, finder(daemon, keys)) == 0 == finder(daemon, keys)()


def test_status_is_about_the_tenant_that_asks(shared):
    keys, contents = random_pages(4)
    other_keys, other_contents = random_pages(2, seed=2)
    pusher(shared, keys, contents)()

    def look():
        with shared.connect() as client:
            return client.status()

    def push_and_look():
        pusher(shared, other_keys, other_contents)()
        return look()

    nothing = as_user(NOBODY - 1, look)
    assert nothing["tiers"]["ram"]["used"] == nothing["tiers"]["ram"]["pages"] == nothing["bytes"]["stored"] == 0
    assert not any(nothing["counters"].values()) and not nothing["sessions"] and not nothing["tenants"]
    assert nothing["latency_us"]["push"]["count"] == 0
    theirs = as_user(NOBODY, push_and_look)
    assert (theirs["tiers"]["ram"]["pages"], theirs["counters"]["pushed"]) == (2, 2)
    assert [row["tenant"] for row in theirs["tenants"]] == [NOBODY]
    everything = look()
    assert (everything["tiers"]["ram"]["pages"], everything["counters"]["pushed"]) == (6, 6)
    assert {row["tenant"]: row["pages"] for row in everything["tenants"]} == {0: 4, NOBODY: 2}


@pytest.mark.parametrize("how", ["user", "group"])
def test_an_administrator_sees_and_steers_sessions_of_all(make_shared, how):
    group = 64321
    daemon = make_shared(**({"admin.users": [NOBODY]} if how == "user" else {"admin.group": str(group)}))
    keys, contents = random_pages(2)
    with daemon.connect() as client:
        session = open_session(client, "rooted")
        session.push(to_push(keys, contents))

        def steer():
            with daemon.connect() as admin:
                rows = [row["name"] for row in admin.status()["sessions"]]
                return [rows, admin.flush(session.number).pages]

        def trespass():
            with daemon.connect() as other:
                try:
                    other.flush(session.number)
                except kvtc.KvtcError as error:
                    return [row["name"] for row in other.status()["sessions"]], error.code
            return "let in"

        groups = [group, 64322] if how == "group" else []
        assert as_user(NOBODY, steer, groups) == [["rooted"], 2]
        assert as_user(NOBODY - 1, trespass) == [[], kvtc.ErrorCode.UNKNOWN_SESSION]


def area_under_curve(first, second):
    """How well durations tell two kinds of requests apart: 0.5 not at all, 0 or 1 always."""
    ranks = np.argsort(np.argsort(np.concatenate([first, second]), kind="stable"))[: len(first)]
    return (ranks.sum() - len(first) * (len(first) - 1) / 2) / (len(first) * len(second))


def test_how_long_an_answer_takes_does_not_tell_a_foreign_key_from_none(shared):
    """Ranks of durations taken in turns at random: what else the machine does falls on all kinds alike, however slow it is.
    Of 2000 a kind the area's standard deviation is 0.01 where there is nothing to tell; the margin is ten of them."""
    keys, contents = random_pages(32)
    pusher(shared, keys, contents)()
    absent, others = (random_pages(32, seed=seed)[0] for seed in (3, 4))
    # Half a megabyte each: what takes much longer must be told apart on any machine, or the measure is none.
    large_keys, large = random_pages(4, seed=2, tokens=1024)

    def probe():
        rng = random.Random(1)
        with shared.connect() as client:
            session, own = open_session(client), open_session(client, "large", page_tokens=1024)
            own.push(to_push(large_keys, large, 1024))
            kinds = {"foreign": (session, keys), "absent": (session, absent), "others": (session, others), "own": (own, large_keys)}
            times = {kind: [] for kind in kinds}
            for kind in rng.choices(list(kinds), k=8000):
                asked, among = kinds[kind]
                key = rng.choice(among)
                start = time.perf_counter()
                asked.fetch([key])
                times[kind].append(time.perf_counter() - start)
            return {kind: area_under_curve(times[kind], times["absent"]) for kind in ("foreign", "others", "own")}

    areas = as_user(NOBODY, probe)
    print(areas)
    assert abs(areas["others"] - 0.5) < 0.1 and abs(areas["foreign"] - 0.5) < 0.1
    assert areas["own"] > 0.7


def test_memory_of_another_tenant_is_never_seen_again(make_shared):
    daemon = make_shared(**{"ram.budget": "1MiB", "disk.budget": 0})
    pages = random_pages(60)

    def write_and_leave():
        with daemon.connect(arena_bytes=4 << 20) as client:
            client.arena().array[:] = 0xAB
            outcomes = open_session(client).push(to_push(*pages))
            return sum(outcome == PushOutcome.STORED for outcome in outcomes)

    def look():
        keys, contents = random_pages(1, seed=3)
        with daemon.connect(arena_bytes=4 << 20) as client:
            arena = client.arena()
            fresh = bool((arena.array == 0).all())
            session = open_session(client)
            session.push(to_push(keys, contents))
            arena.array[:] = 0x11
            # Its place has room for a longer page, whose end must stay as it was.
            part = [messages.PullEntry(keys[0], 0, 1 << 20)]
            pending = client.connection.start(messages.Pull(session.number, 0, arena.number, 0, 0, 0, part))
            while pending.next()[1]:
                pass
            view = bytes(arena.view[: 1 << 20])
            return [fresh, view[: len(contents[0])] == contents[0], set(view[len(contents[0]) :]) == {0x11}]

    assert as_user(NOBODY, write_and_leave) > 0
    assert as_user(NOBODY - 1, look) == [True, True, True]


def test_a_flood_of_one_tenant_leaves_the_others_pages(make_shared):
    daemon = make_shared(**{"ram.budget": "2MiB", "disk.budget": "8MiB", "disk.segment": "1MiB"})
    keys, contents = random_pages(20)
    flood_keys, flood_contents = random_pages(2500, seed=2)

    def keep():
        with daemon.connect() as client:
            open_session(client).push(to_push(keys, contents))
            return client.flush().pages

    def flood():
        with daemon.connect() as client:
            outcomes = open_session(client).push(to_push(flood_keys, flood_contents))
            return sum(outcome == PushOutcome.STORED for outcome in outcomes)

    def fetch():
        with daemon.connect() as client:
            return open_session(client).fetch(keys) == contents

    assert as_user(NOBODY, keep) == 20
    # Twice what RAM and disk hold together.
    assert as_user(NOBODY - 1, flood) == 2500
    assert as_user(NOBODY, fetch)


def test_quotas_hold_for_each_tenant(make_shared):
    daemon = make_shared(**{"limits.ram_per_user": 1 << 20, "limits.disk_per_user": 2 << 20, "disk.segment": "1MiB"})
    flood = random_pages(200)

    def push():
        with daemon.connect() as client:
            outcomes = open_session(client).push(to_push(*flood))
            status = client.status()
            return [sum(o == PushOutcome.STORED for o in outcomes), status["tiers"]]

    stored, tiers = as_user(NOBODY, push)
    assert stored == 200
    assert tiers["ram"]["used"] <= tiers["ram"]["budget"] == 1 << 20
    assert tiers["disk"]["used"] <= tiers["disk"]["budget"] == 2 << 20


def test_connections_are_counted_for_each_tenant_and_the_administrator_gets_in(make_shared):
    daemon = make_shared(**{"limits.connections": 3, "limits.connections_per_user": 3, "admin.users": [NOBODY]})

    def crowd(count):
        def work():
            held, refused = [], 0
            for _ in range(count):
                try:
                    held.append(daemon.connect(arena_bytes=0))
                except kvtc.KvtcError as error:
                    refused += error.code == kvtc.ErrorCode.LIMIT_EXCEEDED or isinstance(error, kvtc.ConnectionLost)
            return [len(held), refused]

        return work

    assert as_user(NOBODY - 1, crowd(5)) == [3, 2]
    clients = []
    # The daemon notices the end of connections when it comes to it.
    deadline = time.monotonic() + 30
    while len(clients) < 3 and time.monotonic() < deadline:
        with contextlib.suppress(kvtc.KvtcError):
            clients.append(daemon.connect(arena_bytes=0))
    assert len(clients) == 3
    assert as_user(NOBODY - 1, crowd(1)) == [0, 1]
    assert as_user(NOBODY, crowd(1)) == [1, 0]
    refused = clients[0].status()["refused"]
    assert refused["total"] >= 3 and [code["code"] for code in refused["by_code"]] == ["limitExceeded"]
    assert refused["last"]["request"] == "hello" and "too many connections" in refused["last"]["message"]
    for client in clients:
        client.close()
