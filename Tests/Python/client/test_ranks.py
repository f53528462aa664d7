"""Ranks of a parallel model agree on what they restore: the least that all of them have, under leases that end together."""

import pytest

import kvtc
from kvtc import ErrorCode, Identity, lookup_all

from samples import open_session, random_pages, to_push

RANKS = 3


@pytest.fixture
def ranks(client):
    """Sessions of one model's ranks, and keys that they share; each rank has pushed other pages of them."""
    sessions = [open_session(client, identity=Identity(bytes(32), part=f"tp{rank}/{RANKS}")) for rank in range(RANKS)]
    keys, _ = random_pages(6)
    for rank, (session, pages) in enumerate(zip(sessions, (5, 3, 6))):
        _, contents = random_pages(pages, seed=rank)
        session.push(to_push(keys[:pages], contents))
    return sessions, keys


def leases(client):
    return client.status()["leases"]


def test_the_least_run_counts(ranks):
    sessions, keys = ranks
    found = lookup_all(sessions, [keys] * RANKS)
    assert found.leading_run == 3 and [lookup.leading_run for lookup in found.lookups] == [5, 3, 6]
    assert found.leases == [None] * RANKS
    assert lookup_all(sessions[::2], [keys] * 2).leading_run == 5


def test_what_was_found_stays_until_all_leases_end_together(client, ranks):
    sessions, keys = ranks
    with lookup_all(sessions, [keys] * RANKS, 60_000) as found:
        assert found.leading_run == 3 and leases(client) == RANKS
        for session, lease in zip(sessions, found.leases):
            assert None not in session.fetch(keys[:3], lease=lease)
    assert leases(client) == 0


def test_nothing_in_common_leaves_no_lease(client, ranks):
    sessions, keys = ranks
    sessions[1].drop(keys[:1])
    found = lookup_all(sessions, [keys] * RANKS, 60_000)
    assert found.leading_run == 0 and found.leases == [None] * RANKS and leases(client) == 0


def test_a_lookup_that_fails_leaves_no_lease(client, ranks):
    sessions, keys = ranks
    sessions[2].close()
    with pytest.raises(kvtc.KvtcError) as caught:
        lookup_all(sessions, [keys] * RANKS, 60_000)
    assert caught.value.code == ErrorCode.UNKNOWN_SESSION and leases(client) == 0


def test_all_leases_are_given_back_when_one_fails(client, ranks, monkeypatch):
    sessions, keys = ranks
    found = lookup_all(sessions, [keys] * RANKS, 60_000)

    def fail():
        raise kvtc.KvtcError("no")

    monkeypatch.setattr(found.leases[1], "release", fail)
    with pytest.raises(kvtc.KvtcError, match="no"):
        found.release()
    assert leases(client) == 1


@pytest.mark.parametrize("keys", [[], [[bytes(32)]] * 2, [[bytes(32)], [], [bytes(32)]]], ids=["none", "too few", "uneven"])
def test_keys_must_fit_the_sessions(ranks, keys):
    with pytest.raises(ValueError):
        lookup_all(ranks[0], keys)


def test_no_sessions():
    with pytest.raises(ValueError):
        lookup_all([], [])
