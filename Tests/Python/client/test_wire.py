"""Encoding and decoding of frames and messages, without a daemon."""

import dataclasses
import random

import numpy as np
import pytest

from kvtc import ErrorCode, Geometry, Layout, Policy, WireError
from kvtc.protocol import messages, wire
from kvtc.protocol.geometry import Element, Grouping, Order, Role

MESSAGES = [m for m in vars(messages).values() if isinstance(m, type) and issubclass(m, wire.Struct) and m is not wire.Struct]


def sample(kind, rng):
    """A message with random values of the right types."""
    special = {"geometry": Geometry.from_heads(2, 3, 8), "layout": Layout(), "policy": Policy(protected=[(1, 5)])}
    values = {}
    for item in dataclasses.fields(kind):
        encoding = item.metadata["wire"]
        least = {wire.U8: 8, wire.U16: 16, wire.U32: 32, wire.U64: 64}.get(encoding)
        if least:
            values[item.name] = rng.getrandbits(least)
        elif encoding in (wire.BLOB, wire.VIEW):
            values[item.name] = rng.randbytes(rng.randrange(20))
        elif encoding is wire.TEXT:
            values[item.name] = "päge" * rng.randrange(4)
        elif encoding is wire.KEY:
            values[item.name] = rng.randbytes(32)
        elif item.name == "keys":
            values[item.name] = [rng.randbytes(32) for _ in range(rng.randrange(3))]
        elif item.name in ("entries",):
            entry = messages.PushEntry if issubclass(kind, messages.Push) else messages.PullEntry
            values[item.name] = [sample(entry, rng) for _ in range(rng.randrange(1, 3))]
        elif item.name == "pages":
            values[item.name] = [sample(messages.StoredPage, rng) for _ in range(rng.randrange(1, 3))]
        elif item.name in special:
            values[item.name] = special[item.name]
        else:
            values[item.name] = item.default_factory() if item.default_factory is not dataclasses.MISSING else None
            if values[item.name] is None:
                values[item.name] = [messages.Range(3, 9)] if "coded" in item.name else item.default
    return kind(**values)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_round_trip_and_every_cut(kind):
    message = sample(kind, random.Random(kind.__name__))
    body = bytes(message.encode())
    assert bytes(kind.decode(body).encode()) == body
    for end in range(len(body)):
        with pytest.raises(WireError) as caught:
            kind.decode(body[:end])
        assert caught.value.code == ErrorCode.TRUNCATED
    with pytest.raises(WireError) as caught:
        kind.decode(body + b"\0")
    assert caught.value.code == ErrorCode.TRAILING_BYTES


def test_header():
    header = wire.Header(wire.Opcode.PING, 0x1122334455667788, 0, 5)
    data = header.encode()
    assert data == bytes.fromhex("4b565431 0100 1000 8877665544332211 00000000 05000000")
    assert wire.Header.decode(data) == header


@pytest.mark.parametrize(
    "position, value, code",
    [(0, 0, ErrorCode.BAD_MAGIC), (4, 9, ErrorCode.BAD_VERSION), (23, 0x7F, ErrorCode.TOO_LARGE)],
)
def test_bad_header(position, value, code):
    data = bytearray(wire.Header(1, 1, 0, 0).encode())
    data[position] = value
    with pytest.raises(WireError) as caught:
        wire.Header.decode(bytes(data))
    assert caught.value.code == code


def test_counts_that_would_not_fit_are_refused_before_allocation():
    body = bytearray(messages.Lookup(1, 0, []).encode())
    body[-4:] = b"\xff\xff\xff\xff"
    with pytest.raises(WireError) as caught:
        messages.Lookup.decode(body)
    assert (caught.value.code, caught.value.field) == (ErrorCode.TRUNCATED, "keys")


def test_values_that_do_not_fit_name_their_field():
    with pytest.raises(WireError) as caught:
        messages.Lookup(-1, 0, []).encode()
    assert caught.value.field == "session"
    with pytest.raises(WireError) as caught:
        messages.Drop(1, [bytes(31)]).encode()
    assert caught.value.field == "keys[0]"


def all_layouts():
    for order in Order:
        for grouping in Grouping:
            yield Layout(Element.F16, order, grouping)
    for order in (Order.TENSOR_TOKEN_HEAD, Order.TENSOR_HEAD_TOKEN):
        for grouping in (Grouping.ROLES_APART, Grouping.LAYER_PAIRS):
            yield Layout(Element.F16, order, grouping, 1)


@pytest.mark.parametrize("layout", list(all_layouts()), ids=str)
def test_views_cover_a_page_exactly_once(layout):
    geometry, tokens = Geometry.from_heads(3, 2, 4), 5
    page = np.zeros(layout.page_bytes(geometry, tokens), np.uint8)
    views = layout.views(geometry, tokens, page)
    assert len(views) == 6
    for number, view in enumerate(views.values()):
        assert view.shape == (tokens, 2, 4)
        view.view(np.uint16)[...] += 1 + number
    counts = np.bincount(page.view(np.uint16), minlength=7)
    assert counts[0] == 0 and all(counts[1:7] == tokens * 2 * 4)


def test_a_layer_range_has_views_of_its_own():
    geometry, layout = Geometry.from_heads(4, 2, 4), Layout()
    page = bytearray(layout.page_bytes(geometry, 3, range(1, 3)))
    assert sorted(layout.views(geometry, 3, page, range(1, 3))) == [(1, Role.KEY), (1, Role.VALUE), (2, Role.KEY), (2, Role.VALUE)]
