"""Page keys: the documented hash, chaining, and what must tell two pages apart."""

import hashlib
import struct

import pytest

from kvtc import page_keys, page_runs, part_key


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


@pytest.mark.parametrize("arguments", [(0, b""), (4, b"short")])
def test_refuses_bad_arguments(arguments):
    with pytest.raises(ValueError):
        page_keys([1, 2, 3, 4], *arguments)


def test_parts_of_a_model_never_share_a_key():
    ids = list(range(8))
    chains = [page_keys(ids, 4, part=part) for part in ("", "tp0/2", "tp1/2", "pp0/2")]
    assert len({key for chain in chains for key in chain}) == 8
    assert page_keys(ids[4:], 4, part="tp1/2", parent=chains[2][0]) == chains[2][1:]
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
