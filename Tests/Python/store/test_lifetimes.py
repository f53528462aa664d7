"""How long pages are there: leases, lives, pins, and what is asked for."""

import time

import pytest

import kvtc

from samples import open_session, random_pages, to_push


def pause(seconds):
    """Lets a life or lease of so many seconds go on: time itself is what these tests are about."""
    time.sleep(seconds)


def test_a_lease_that_has_ended_ends_nothing_else(make_daemon):
    daemon = make_daemon(**{"limits.lease_s": 1})
    keys, contents = random_pages(4)
    with daemon.connect() as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        lease = session.lookup(keys, lease_ms=1).lease
        pause(0.1)
        assert session.fetch(keys, lease=lease) == contents
        lease.release()
        for number in (1, 2**62):
            assert session.fetch(keys, lease=number) == contents
            kvtc.Lease(client.connection, number).release()
        with pytest.raises(kvtc.KvtcError) as caught:
            session.lookup(keys, lease_ms=1001)
        assert caught.value.code == kvtc.ErrorCode.LIMIT_EXCEEDED and "lease" in str(caught.value)


def test_a_lease_is_renewed_by_every_pull(daemon, client):
    keys, contents = random_pages(2)
    session = open_session(client, policy=kvtc.Policy(ttl_seconds=1))
    session.push(to_push(keys, contents))
    lease = session.lookup(keys, lease_ms=700).lease
    for _ in range(5):
        pause(0.4)
        assert session.fetch(keys[:1], lease=lease) == contents[:1]
    # The other one was not used all the while: the lease alone kept it.
    assert session.lookup(keys).leading_run == 2


def test_a_drop_takes_leased_pages_too(daemon, client):
    keys, contents = random_pages(3)
    session = open_session(client)
    session.push(to_push(keys, contents))
    lease = session.lookup(keys, lease_ms=60000).lease
    assert session.drop(keys) == 3
    assert session.fetch(keys, lease=lease) == [None] * 3
    session.push(to_push(keys, contents))
    assert session.fetch(keys, lease=lease) == contents
    lease.release()


def test_what_a_session_without_an_end_pushes_has_none(client):
    keys, contents = random_pages(2)
    open_session(client, policy=kvtc.Policy(ttl_seconds=1)).push(to_push(keys, contents))
    session = open_session(client)
    assert session.push(to_push(keys[:1], contents[:1])) == [kvtc.PushOutcome.PRESENT]
    pause(1.2)
    assert session.fetch(keys) == [contents[0], None]


@pytest.mark.parametrize("kind", ["fetch", "lookup", "push", "touch", "prefetch"])
def test_a_life_counts_from_the_last_use(daemon, client, kind):
    keys, contents = random_pages(2)
    session = open_session(client, policy=kvtc.Policy(ttl_seconds=2))
    session.push(to_push(keys, contents))
    use = {
        "fetch": lambda: session.fetch(keys),
        "lookup": lambda: session.lookup(keys),
        "push": lambda: session.push(to_push(keys, contents)),
        "touch": lambda: session.touch(keys),
        "prefetch": lambda: session.prefetch(keys),
    }[kind]
    for _ in range(4):
        pause(0.9)
        use()
    # Longer than a life since the push.
    assert session.fetch(keys) == contents
    # Looking would be a use.
    pause(2.2)
    assert session.fetch(keys) == [None, None]


@pytest.mark.parametrize("later", [False, True])
def test_a_pinned_page_does_not_expire(make_daemon, later):
    daemon = make_daemon()
    keys, contents = random_pages(2)
    with daemon.connect() as client:
        policy = kvtc.Policy(ttl_seconds=1)
        policy.pin = not later
        session = open_session(client, policy=policy)
        session.push(to_push(keys, contents))
        if later:
            session.touch(keys, pin=True)
        pause(1.6)
        client.flush()
    daemon.restart()
    pause(0.6)
    with daemon.connect() as client:
        session = open_session(client)
        assert session.fetch(keys) == contents
        pause(1.2)
        assert session.touch(keys, pin=False) == 2
        pause(1.2)
        assert session.fetch(keys) == [None, None]


def test_what_is_asked_for_is_not_lost_by_that(make_daemon):
    """More old pages than RAM has room for, on a disk that is full."""
    daemon = make_daemon(**{"ram.budget": "1MiB", "disk.budget": "8MiB"})
    geometry = kvtc.Geometry.from_heads(layers=2, kv_heads=2, head_dim=64, rope_base=10000.0)
    keys, contents = random_pages(260, geometry=geometry, tokens=64)
    with daemon.connect() as client:
        session = open_session(client, geometry=geometry, page_tokens=64)
        for page in to_push(keys, contents, 64):
            session.push([page])
        client.flush()
        places = session.lookup(keys).residence
        old = [key for key, place in zip(keys, places, strict=True) if place == kvtc.Residence.DISK][:20]
        assert len(old) == 20
        dropped = client.status()["counters"]["dropped"]
        session.prefetch(old)
        # Where all that RAM has is there only, for want of room on the disk, nothing gives way and nothing comes; nor is it lost.
        next((place for _ in range(200) if (place := session.lookup(old[:1]).residence[0]) != kvtc.Residence.DISK), None)
        expected = [contents[keys.index(key)] for key in old]
        assert session.fetch(old) == expected and session.fetch(old) == expected
        assert client.status()["counters"]["dropped"] == dropped
