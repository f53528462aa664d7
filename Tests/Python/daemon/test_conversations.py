"""A session follows its conversation: edits, tails that grow, pages that went away; and no session gets less than it was promised."""

import numpy as np
import pytest

import kvtc
from kvtc import ErrorCode, Layout, Mode, PushOutcome, Residence
from kvtc.protocol import messages

from samples import GEOMETRY, TOKENS, open_session, random_pages, to_push, until

STORED, PRESENT, NON_FINITE = PushOutcome.STORED, PushOutcome.PRESENT, PushOutcome.NON_FINITE
LAYOUT = Layout()


def branch(keys, contents, at, seed):
    """Another continuation: the same pages before ``at``, others from there on."""
    others, other_contents = random_pages(len(keys) - at, seed=seed)
    return keys[:at] + others, contents[:at] + other_contents


def lossy(**changes):
    return kvtc.Policy(**{"sink": 0, "window": 0, "mode": Mode.QUANT4} | changes)


def rows(page):
    """A row of bits a token."""
    views = LAYOUT.views(GEOMETRY, TOKENS, page)
    return np.concatenate([np.asarray(view).reshape(TOKENS, -1) for view in views.values()], axis=1).view(np.uint16)


def exact_rows(page, original):
    return (rows(page) == rows(original)).all(axis=1)


def test_an_edit_cuts_the_session_and_goes_on(client):
    keys, contents = random_pages(5)
    session = open_session(client)
    session.push(to_push(keys, contents))
    for seed, at in [(11, 2), (12, 4), (13, 0), (14, 3)]:
        keys, contents = branch(keys, contents, at, seed)
        assert session.push(to_push(keys, contents)) == [PRESENT] * at + [STORED] * (5 - at)
        assert session.policy().tokens == 5 * TOKENS
        assert session.fetch(keys) == contents
    # Back to what was there at first: nothing was deleted.
    keys, contents = random_pages(5)
    assert session.push(to_push(keys[:3], contents)) == [PRESENT] * 3
    assert session.policy().tokens == 3 * TOKENS


def test_only_pages_of_one_request_must_be_in_order(client):
    keys, contents = random_pages(3)
    session = open_session(client)
    pages = to_push(keys, contents)
    with pytest.raises(kvtc.KvtcError, match="positionConflict") as caught:
        session.push([pages[0], pages[2], pages[1]])
    assert (caught.value.code, caught.value.field) == (ErrorCode.POSITION_CONFLICT, "entries[2].firstPosition")
    pages[1].first_position -= 1
    with pytest.raises(kvtc.KvtcError, match=f"{TOKENS - 1} lies before {TOKENS}"):
        session.push(pages)
    assert session.lookup(keys).leading_run == 0 and session.policy().tokens == 0


def test_a_tail_grows(client):
    keys, contents = random_pages(5)
    session = open_session(client)
    tails = [kvtc.Page(bytes([n]) * 32, 2 * TOKENS, page_rows(contents[2], n)) for n in (5, 9, 11)]
    assert session.push([*to_push(keys[:2], contents), tails[0]]) == [STORED] * 3
    assert session.policy().tokens == 2 * TOKENS + 5
    # Alone, with all before it, as a full page, and with more behind it.
    assert session.push([tails[1]]) == [STORED] and session.policy().tokens == 2 * TOKENS + 9
    assert session.push([*to_push(keys[:2], contents), tails[2]]) == [PRESENT, PRESENT, STORED]
    assert session.push(to_push(keys, contents)) == [PRESENT, PRESENT, STORED, STORED, STORED]
    assert session.policy().tokens == 5 * TOKENS and session.fetch(keys) == contents
    # And back to a tail.
    assert session.push([tails[0]]) == [PRESENT] and session.policy().tokens == 2 * TOKENS + 5


def page_rows(page, count):
    """The first rows of a page as a page of its own."""
    whole, short = LAYOUT.views(GEOMETRY, TOKENS, page), bytearray(LAYOUT.page_bytes(GEOMETRY, count))
    for name, view in LAYOUT.views(GEOMETRY, count, short).items():
        view[...] = whole[name][:count]
    return bytes(short)


@pytest.mark.parametrize("how", ["dropped", "expired", "evicted"])
def test_pages_that_went_away_come_back_to_their_place(make_daemon, how):
    settings = {"disk.directory": "", "ram.budget": "4MiB"} if how == "evicted" else {}
    with make_daemon(**settings).connect() as client:
        keys, contents = random_pages(8)
        ttl = 1 if how == "expired" else 0
        session = open_session(client, policy=kvtc.Policy(sink=3, window=2 * TOKENS, mode=Mode.QUANT4, ttl_seconds=ttl))
        session.push(to_push(keys, contents))
        if how == "dropped":
            open_session(client).drop(keys[1:7])
        elif how == "expired":
            # Looking for them would be a use.
            until(lambda: client.status()["tiers"]["ram"]["pages"] == 0)
        else:
            # Without a look in between, which would be a use.
            flood = open_session(client)
            for seed in range(100, 100 + 2 * (4 << 20) // (32 * len(contents[0])) + 1):
                flood.push(to_push(*random_pages(32, seed=seed)))
            # A page that waits for its coder gives no room: another one would, of those that are looked for below.
            until(lambda: client.status()["queues"]["encode"] == 0)
        gone = [place == Residence.ABSENT for place in session.lookup(keys).residence]
        assert any(gone)
        outcomes = session.push(to_push(keys, contents))
        assert [outcome == STORED for outcome, was in zip(outcomes, gone) if was] == [True] * sum(gone)
        assert session.policy().tokens == 8 * TOKENS
        back = session.fetch(keys)
        assert back[6:] == contents[6:]
        assert back[0] is not None and exact_rows(back[0], contents[0])[:3].all()


def test_truncate_takes_nothing_from_others(client):
    keys, contents = random_pages(5)
    beams = [open_session(client) for _ in range(3)]
    for beam in beams:
        beam.push(to_push(keys, contents))
    assert client.status()["counters"]["pushed"] == 5
    assert beams[0].truncate(5 * TOKENS) == messages.TruncateReply(5 * TOKENS, 0)
    # Between two pages: the session ends where the last page left does.
    assert beams[0].truncate(2 * TOKENS + 1) == messages.TruncateReply(2 * TOKENS, 3)
    assert [beam.policy().tokens for beam in beams] == [2 * TOKENS, 5 * TOKENS, 5 * TOKENS]
    assert beams[1].lookup(keys).leading_run == beams[0].lookup(keys).leading_run == 5
    branched, others = branch(keys, contents, 2, seed=17)
    assert beams[0].push(to_push(branched, others)[2:]) == [STORED] * 3
    assert beams[0].fetch(branched) == others and beams[1].fetch(keys) == contents
    assert beams[2].truncate(0) == messages.TruncateReply(0, 5)
    with pytest.raises(kvtc.KvtcError, match="unknownSession"):
        client.connection.call(messages.Truncate(4711, 0), messages.TruncateReply)


def test_dropping_a_session_leaves_what_others_use(client):
    keys, contents = random_pages(5)
    one, two = open_session(client), open_session(client)
    one.push(to_push(keys, contents))
    two.push(to_push(keys[:3], contents))
    assert one.drop() == 2 and one.policy().tokens == 0
    assert two.lookup(keys).leading_run == 3 and two.fetch(keys[:3]) == contents[:3]
    # By name whoever uses them; the session goes on from what it has left.
    assert one.drop(keys[1:3]) == 2
    assert two.lookup(keys).leading_run == 1 and two.policy().tokens == TOKENS
    assert two.push(to_push(keys, contents)) == [PRESENT] + [STORED] * 4


def test_a_drop_wins_over_leases(client):
    keys, contents = random_pages(2)
    session = open_session(client)
    session.push(to_push(keys, contents))
    with session.lookup(keys, lease_ms=60000).lease as lease:
        assert session.drop(keys) == 2
        assert session.lookup(keys).leading_run == 0
        assert session.fetch(keys, lease=lease) == [None, None]
        assert session.push(to_push(keys, contents[::-1])) == [STORED] * 2
        assert session.fetch(keys, lease=lease) == contents[::-1]


def test_a_finite_page_takes_the_place_of_one_that_is_not(daemon):
    keys, contents = random_pages(3)
    bad = [np.frombuffer(page, np.float16).copy() for page in contents]
    for page in bad:
        page[77] = np.nan
    bad = [page.tobytes() for page in bad]
    with daemon.connect() as client:
        session = open_session(client, policy=lossy())
        assert session.push(to_push(keys, [bad[0], contents[1], bad[2]])) == [NON_FINITE, STORED, NON_FINITE]
        # Not the other way round; and whoever pushes what is not finite hears so.
        assert open_session(client).push(to_push(keys[:2], bad)) == [NON_FINITE, PRESENT]
        client.flush()
    # Coded, and on disk, it is known for what it is.
    daemon.restart()
    with daemon.connect() as client:
        session = open_session(client, policy=lossy())
        assert session.push(to_push(keys, contents)) == [STORED, PRESENT, STORED]
        assert np.isfinite(np.frombuffer(b"".join(session.fetch(keys)), np.float16)).all()
        assert session.push(to_push(keys, bad)) == [PRESENT] * 3


def test_rows_beside_nan_are_exact_where_that_was_promised(client):
    keys, contents = random_pages(1)
    bad = np.frombuffer(contents[0], np.float16).copy()
    bad[77] = np.nan
    bad = [bad.tobytes()]
    coarse, exact = open_session(client, policy=lossy()), open_session(client)
    assert coarse.push(to_push(keys, bad)) == [NON_FINITE]
    client.flush()
    assert exact.fetch(keys) == [None]
    assert exact.push(to_push(keys, bad)) == [NON_FINITE] and exact.fetch(keys) == bad
    # It is still what gives way.
    assert exact.push(to_push(keys, contents)) == [STORED] and exact.fetch(keys) == contents


@pytest.mark.parametrize("policy", [{"mode": Mode.LOSSLESS}, {"sink": 7}, {"window": 1000}, {"protected": [(3, 5)]}])
def test_exact_rows_take_the_place_of_coded_ones(daemon, policy):
    keys, contents = random_pages(2)
    with daemon.connect() as client:
        coarse = open_session(client, policy=lossy())
        coarse.push(to_push(keys, contents))
        client.flush()
        assert coarse.fetch(keys) != contents
        strict = open_session(client, policy=lossy(**policy))
        policy = strict.policy().policy
        everything = policy.mode == Mode.LOSSLESS or policy.window > 0
        # All of it, or the first page, where the rows are.
        assert strict.push(to_push(keys, contents)) == [STORED, STORED if everything else PRESENT]
        client.flush()
        kept = exact_rows(strict.fetch(keys)[0], contents[0])
        wanted = slice(None) if everything else slice(0, 7) if policy.sink else slice(3, 5)
        assert kept[wanted].all() and everything == kept.all()
        # It stays so for as long as somebody was promised it, whatever comes after.
        assert coarse.push(to_push(keys, contents)) == [PRESENT] * 2
        assert strict.push(to_push(keys, contents)) == [PRESENT] * 2
        strict.close()
        client.flush()
        assert exact_rows(coarse.fetch(keys)[0], contents[0])[wanted].all()


def test_no_session_is_given_less_than_it_was_promised(client):
    keys, contents = random_pages(3)
    coarse = open_session(client, policy=lossy())
    coarse.push(to_push(keys, contents))
    client.flush()
    exact = open_session(client)
    assert exact.lookup(keys).leading_run == 0 and exact.fetch(keys) == [None] * 3
    for policy in (lossy(mode=Mode.QUANT8), lossy(sink=1), lossy(protected=[(0, 1)])):
        assert open_session(client, policy=policy).fetch(keys)[0] is None, policy
    # Rows at other positions, and a window that is yet to come.
    assert None not in open_session(client, policy=lossy(window=1000, protected=[(90000, 90001)])).fetch(keys)
    assert None not in coarse.fetch(keys)


def test_what_a_pull_gave_is_no_news(client):
    keys, contents = random_pages(4)
    coarse = open_session(client, policy=lossy())
    coarse.push(to_push(keys, contents))
    client.flush()
    restored = coarse.fetch(keys)
    again = open_session(client, policy=lossy(window=1000))
    assert again.push(to_push(keys, restored)) == [PRESENT] * 4
    assert again.push(to_push(keys, contents)) == [STORED] * 4
    assert again.fetch(keys) == contents


def test_set_policy_names_all_that_is_protected_and_lossy(client):
    keys, contents = random_pages(3)
    session = open_session(client, policy=lossy(sink=2))
    session.push(to_push(keys, contents))
    client.flush()
    assert session.set_policy(lossy(sink=5)) == [kvtc.Range(2, 5)]
    assert session.set_policy(lossy(sink=9, protected=[(20, 22)])) == [kvtc.Range(2, 9), kvtc.Range(20, 22)]
    end = 3 * TOKENS
    assert session.set_policy(lossy(window=4)) == [kvtc.Range(end - 4, end)]
    assert session.set_policy(lossy(mode=Mode.LOSSLESS)) == [kvtc.Range(2, end)]
    assert session.push(to_push(keys, contents)) == [STORED] * 3
    assert session.set_policy(lossy(mode=Mode.LOSSLESS)) == []
