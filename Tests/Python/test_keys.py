"""Page keys: the documented hash, chaining, and what must tell two pages apart."""

import hashlib
import struct

import pytest

from kvtc import page_keys


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
