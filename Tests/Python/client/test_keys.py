"""Page keys: the documented hash, chaining, and what must tell two pages apart."""

import hashlib
import random
import struct

import numpy as np
import pytest

from kvtc import Span, page_keys, page_runs, part_key

IMAGE, OTHER = b"an image's digest", b"another one's....."
P = bytes(range(32))


def test_matches_the_documented_formula():
    ids = list(range(8))
    first = hashlib.sha256(b"kvtc-page-v1" + bytes(32) + bytes(32) + struct.pack("<I4i", 4, *ids[:4])).digest()
    second = hashlib.sha256(b"kvtc-page-v1" + bytes(32) + first + struct.pack("<I4i", 4, *ids[4:])).digest()
    assert page_keys(ids, 4) == [first, second]


def test_a_parent_continues_the_chain():
    whole = page_keys(range(100), 10)
    assert page_keys(range(50, 100), 10, parent=whole[4]) == whole[5:]


def test_everything_before_a_page_counts():
    one, other = page_keys([1, 2, 3, 4], 2), page_keys([9, 2, 3, 4], 2)
    assert one[0] != other[0] and one[1] != other[1]
    assert page_keys([1, 2], 2, bytes([1]) * 32) != page_keys([1, 2], 2)


def test_the_last_short_page_only_when_asked_for():
    assert len(page_keys(range(10), 4)) == 2
    assert len(page_keys(range(10), 4, partial=True)) == 3
    assert page_keys([], 4) == []


def test_parts_of_a_model_never_share_a_key():
    ids = list(range(8))
    chains = [page_keys(ids, 4, part=part) for part in ("", "tp0/2", "tp1/2", "pp0/2")]
    assert len({key for chain in chains for key in chain}) == 8
    assert page_keys(ids[4:], 4, parent=chains[2][0]) == chains[2][1:]
    engine = b"a block hash of any length"
    names = {part_key(engine, part, profile) for part in ("tp0/2", "tp1/2") for profile in (b"", bytes([1]) * 32)}
    assert len(names) == 4 and all(len(name) == 32 for name in names)
    # The boundary between key and part counts.
    assert part_key(b"ab", "c") != part_key(b"a", "bc")


def test_pages_end_where_positions_have_a_gap():
    assert page_runs(range(10), 4) == [(0, 4), (4, 4), (8, 2)]
    # Four sinks, then what a window left.
    assert page_runs([0, 1, 2, 3, 100, 101, 102, 103, 104, 300], 4) == [(0, 4), (4, 4), (8, 1), (9, 1)]
    assert page_runs([7, 6, 5], 4) == [(0, 1), (1, 1), (2, 1)]
    assert page_runs([], 4) == []


@pytest.mark.parametrize(
    "arguments, last",
    [
        ({"token_ids": range(100), "page_tokens": 16}, "280fd421b94921dc0e5c2f4d6b278562aac2864e4c9fc64e7d81d85ff3ee189c"),
        (
            {"token_ids": np.array([0, 2**31 - 1, 5, 7]), "page_tokens": 2, "profile_id": P},
            "cba886555b555d1680ecdcce808efc9e1978ab962c31b4ff35a22276b8629463",
        ),
        (
            {"token_ids": [1, 2, 3], "page_tokens": 2, "partial": True, "part": "tp0/2"},
            "c3f9ff5718329065fc7bae353825f8661ada97efdc5a423061a29490681eec1b",
        ),
        (
            {"token_ids": [1, 2, 3, 4], "page_tokens": 2, "parent": P, "profile_id": P[::-1]},
            "c1e64c384c469fae073eae407ee9b0e844645a4a190bf5664a5dd647cfc54a65",
        ),
    ],
    ids=["plain", "profile", "part", "parent"],
)
def test_keys_are_those_of_every_release(arguments, last):
    assert page_keys(**arguments)[-1].hex() == last


def test_keys_of_parts_are_those_of_every_release():
    assert part_key(b"engine", "tp1/2", P).hex() == "8a383e1db6c58ddcdcc5a004e0a622dc3b6a3a4b78a1ad4b63bbe6458ae7abe2"
    assert part_key(P, "").hex() == "b1a40b7633a6271e2d125d1e46e699ef2c4c1db331f6039b6a1a70a758b397d8"


@pytest.mark.parametrize(
    "kind", [list, tuple, np.array, *(lambda ids, type=type: np.array(ids, type) for type in (np.uint16, np.uint64, object))]
)
def test_integers_count_by_value(kind):
    assert page_keys(kind([1, 2, 3, 4]), 2) == page_keys(range(1, 5), 2)
    assert page_runs(kind([5, 6, 7, 1]), 2) == [(0, 2), (2, 1), (3, 1)]


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"token_ids": np.array([1, 5.7])}, TypeError, "token_ids must hold integers, not float64"),
        ({"token_ids": [1.0, 2.0]}, TypeError, "token_ids"),
        ({"token_ids": [True, 2]}, TypeError, "token_ids holds truth values"),
        ({"token_ids": [np.True_, 2]}, TypeError, "token_ids holds truth values"),
        ({"token_ids": np.array([True, False])}, TypeError, "token_ids"),
        ({"token_ids": np.zeros((64, 2), int)}, ValueError, "2 dimensions"),
        ({"token_ids": np.zeros((0, 2), int)}, ValueError, "2 dimensions"),
        ({"token_ids": [[1, 2], [3]]}, ValueError, "token_ids"),
        ({"token_ids": 5}, ValueError, "0 dimensions"),
        ({"token_ids": "1234"}, ValueError, "0 dimensions"),
        ({"token_ids": iter([1, 2])}, ValueError, "0 dimensions"),
        ({"token_ids": ["1", "2"]}, TypeError, "token_ids"),
        ({"token_ids": [1, None]}, TypeError, "token_ids"),
        ({"token_ids": np.array([1, True], object)}, TypeError, "token_ids"),
        ({"token_ids": np.array([1, 2.5], object)}, TypeError, "token_ids"),
        ({"token_ids": np.array([1, 2**32 + 5])}, ValueError, "4294967301, which has more than 32 bits"),
        ({"token_ids": [1, 2**31]}, ValueError, "2147483648"),
        ({"token_ids": [1, -(2**31) - 1]}, ValueError, "-2147483649"),
        ({"token_ids": [1, 2**62]}, ValueError, "more than 32 bits"),
        ({"token_ids": np.array([1, 2**63], np.uint64)}, ValueError, "more than 64 bits"),
        ({"token_ids": [1, 2**70]}, ValueError, "more than 64 bits"),
        ({"token_ids": np.ma.masked_array([1, 2], [False, True])}, TypeError, "masked"),
        ({"token_ids": [1, -200]}, ValueError, r"token_ids\[1\] is -200, a placeholder"),
        ({"page_tokens": 0}, ValueError, "page_tokens"),
        ({"page_tokens": -4}, ValueError, "page_tokens"),
        ({"page_tokens": 4.0}, TypeError, "page_tokens"),
        ({"page_tokens": True}, TypeError, "page_tokens"),
        ({"profile_id": b"short"}, ValueError, "profile_id has 32 bytes"),
        ({"profile_id": "00" * 32}, TypeError, "profile_id"),
        ({"parent": b"short"}, ValueError, "parent has 32 bytes"),
        ({"parent": b""}, ValueError, "parent has 32 bytes"),
        ({"parent": "00" * 16}, TypeError, "parent"),
        ({"parent": P, "part": "tp0/2"}, ValueError, "part together with parent"),
        ({"parent": P, "salt": "user"}, ValueError, "salt together with parent"),
        ({"part": b"tp0/2"}, TypeError, "part"),
        ({"part": 3}, TypeError, "part"),
        ({"part": "\ud800"}, ValueError, "part"),
        ({"salt": 3}, TypeError, "salt"),
        ({"inputs": [(0, 2)]}, TypeError, r"inputs\[0\]"),
        ({"inputs": [(0, 2, "an image's name!!")]}, TypeError, r"inputs\[0\]"),
        ({"inputs": [(0, 2, b"image.png")]}, ValueError, r"inputs\[0\] has 9 bytes"),
        ({"inputs": [(0, 2, IMAGE), (2, 2, IMAGE)]}, ValueError, r"inputs\[1\]"),
        ({"inputs": [(-1, 2, IMAGE)]}, ValueError, r"inputs\[0\]"),
        ({"inputs": [(0.0, 2, IMAGE)]}, TypeError, r"inputs\[0\]"),
        ({"inputs": [(0, 2**70, IMAGE)]}, ValueError, r"inputs\[0\]"),
    ],
    # An iterator's address is another one in every process.
    ids=lambda value: str(value).partition(" at 0x")[0],
)
def test_refuses_what_would_be_cut_to_fit_or_ignored(changes, error, words):
    with pytest.raises(error, match=words):
        page_keys(**({"token_ids": [1, 2, 3, 4], "page_tokens": 2} | changes))


@pytest.mark.parametrize("positions", [[0.5], [True], [[1]], [2**70]], ids=str)
def test_positions_are_integers(positions):
    with pytest.raises((TypeError, ValueError), match="positions"):
        page_runs(positions)


@pytest.mark.parametrize("arguments", [("hash", "tp"), (b"", "tp"), (P, b"tp"), (P, None), (P, "tp", b"short"), (5, "tp")], ids=str)
def test_part_keys_are_checked_as_well(arguments):
    with pytest.raises((TypeError, ValueError)):
        part_key(*arguments)


def test_salts_and_parts_never_share_a_key():
    ids = list(range(8))
    starts = [{"part": part, "salt": salt} for part in ("", "a", "b", "ab") for salt in ("", "a", "b", b"\0")]
    keys = [page_keys(ids, 4, **start) for start in starts]
    assert len({key for chain in keys for key in chain}) == 2 * len(starts)
    assert page_keys(ids, 4, salt="user") == page_keys(ids, 4, salt=b"user")
    salted = page_keys(ids, 4, salt="user")
    assert page_keys(ids[4:], 4, parent=salted[0]) == salted[1:]


def test_an_input_counts_from_the_page_that_it_touches_on():
    ids = [1, 2, -200, -200, -200, 6, 7, 8, 9, 10]

    def keys(*inputs):
        return page_keys(ids, 2, inputs=inputs)

    bare = page_keys([1, 2, 0, 0, 0, 6, 7, 8, 9, 10], 2)
    one, other = keys(Span(2, 5, IMAGE)), keys((2, 5, OTHER))
    assert one[0] == other[0] == bare[0]
    assert not set(one[1:]) & set(other[1:]) and len({*one, *other}) == 9
    # Where it begins and ends counts, and so does each of several.
    variants = [one, keys((2, 6, IMAGE)), keys((1, 5, IMAGE)), keys((2, 4, IMAGE), (4, 5, IMAGE)), keys((2, 5, IMAGE), (2, 5, OTHER))]
    assert len({chain[-1] for chain in variants}) == len(variants)
    assert keys((2, 4, IMAGE), (4, 5, OTHER)) == keys((4, 5, OTHER), (2, 4, IMAGE)) != keys((2, 4, OTHER), (4, 5, IMAGE))
    # Tokens and inputs beyond the last full page change nothing before.
    assert page_keys(ids[:5], 2, inputs=[(2, 5, IMAGE)]) == one[:2]


def test_a_chain_with_inputs_may_be_continued_anywhere():
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(50):
        ids = [rng.randrange(10) for _ in range(40)]
        begins = [(rng.randrange(38), rng.choice([IMAGE, OTHER])) for _ in range(rng.randrange(4))]
        inputs = [Span(begin, rng.randrange(begin + 1, 50), digest) for begin, digest in begins]
        whole = page_keys(ids, 4, inputs=inputs)
        at = rng.randrange(1, 10)
        rest = [Span(begin - 4 * at, end - 4 * at, digest) for begin, end, digest in inputs]
        assert page_keys(ids[4 * at :], 4, parent=whole[at - 1], inputs=rest) == whole[at:]
