"""Limits and corner cases as WireProtocol.md states them, tried on the daemon."""

import numpy as np
import pytest

import kvtc
from kvtc import Element, ErrorCode, Geometry, Grouping, Layout, Order, Residence, Role, RotaryStyle, Tensor
from kvtc.protocol import messages, wire

from raw import Raw
from samples import GEOMETRY, TOKENS, open_session, random_pages, to_push


def key_tensor(layer=0, heads=1, head_dim=8, dims=0, offset=0, table=0, style=RotaryStyle.HALF_SPLIT):
    if not dims:
        return Tensor(layer, Role.KEY, RotaryStyle.NONE, heads, head_dim)
    return Tensor(layer, Role.KEY, style, heads, head_dim, offset, dims, table)


def many(count):
    """So many tensors of two layers' worth of roles, listed layer by layer."""
    return [Tensor(layer, role, RotaryStyle.NONE, 1, 1) for layer in range(4096) for role in Role][:count]


def rotated(*frequencies, **changes):
    return Geometry([key_tensor(**({"dims": 2 * len(frequencies)} | changes))], [list(frequencies)])


@pytest.mark.parametrize(
    "good, bad, field",
    [
        (Geometry([key_tensor(layer=4095)]), Geometry([key_tensor(layer=4096)]), "geometry.layer"),
        (Geometry([key_tensor(heads=1024)]), Geometry([key_tensor(heads=1025)]), "geometry.heads"),
        (Geometry([key_tensor(heads=1)]), Geometry([key_tensor(heads=0)]), "geometry.heads"),
        (Geometry([key_tensor(head_dim=8192)]), Geometry([key_tensor(head_dim=8193)]), "geometry.headDim"),
        (Geometry(many(8192)), Geometry(many(8193)), "geometry.tensors"),
        (Geometry(many(1)), Geometry([]), "geometry.tensors"),
        (Geometry(many(2)), Geometry([*many(1), *many(1)]), "geometry.tensors"),
        (
            Geometry([key_tensor(head_dim=8192, heads=256)]),
            Geometry([key_tensor(head_dim=8192, heads=256), key_tensor(layer=1)]),
            "geometry.tensors",
        ),
        (rotated(4.0, -4.0), rotated(4.0, -4.1), "geometry.rotary.inverseFrequencies"),
        (rotated(1.0), rotated(1.0, dims=4), "geometry.rotary.inverseFrequencies"),
        (rotated(1.0), rotated(1.0, dims=3), "geometry.rotary"),
        (rotated(1.0, offset=6), rotated(1.0, offset=7), "geometry.rotary"),
        (rotated(1.0), rotated(1.0, table=1), "geometry.ropeTable"),
        (rotated(1.0), rotated(1.0, table=0xFFFF), "geometry.ropeTable"),
        (rotated(1.0), Geometry([Tensor(0, Role.KEY, RotaryStyle.NONE, 1, 8, 0, 0, 0)], [[1.0]]), "geometry.ropeTable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_limits_of_geometries(make_daemon, good, bad, field):
    # A row of the most elements is a page of 64 MiB.
    with make_daemon(**{"ram.budget": "128MiB", "disk.directory": ""}).connect() as client:
        client.open_session("good", geometry=good, page_tokens=16)
        with pytest.raises(kvtc.KvtcError) as caught:
            client.open_session("bad", geometry=bad, page_tokens=16)
        assert (caught.value.code, caught.value.field) == (ErrorCode.INVALID_FIELD, field)


def test_names_have_256_bytes(client):
    open_session(client, "é" * 128)
    with pytest.raises(kvtc.KvtcError) as caught:
        open_session(client, "é" * 128 + "x")
    assert (caught.value.code, caught.value.field) == (ErrorCode.INVALID_FIELD, "name")


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("grouping", Grouping)
def test_which_layouts_may_be_transposed(client, order, grouping):
    layout = Layout(Element.F16, order, grouping, 1)
    if order != Order.TOKEN_TENSOR_HEAD and grouping != Grouping.FUSED_HEADS:
        open_session(client, layout=layout).close()
    else:
        with pytest.raises(kvtc.KvtcError) as caught:
            open_session(client, layout=layout)
        assert (caught.value.code, caught.value.field) == (ErrorCode.INVALID_FIELD, "layout.valueTransposed")


@pytest.mark.parametrize(
    "tensors",
    [
        [Tensor(0, Role.KEY, RotaryStyle.NONE, 2, 8), Tensor(0, Role.VALUE, RotaryStyle.NONE, 1, 8)],
        [Tensor(0, Role.KEY, RotaryStyle.NONE, 2, 8)],
        [Tensor(0, Role.KEY, RotaryStyle.NONE, 2, 8), Tensor(1, Role.VALUE, RotaryStyle.NONE, 2, 8)],
        [Tensor(0, Role.LATENT, RotaryStyle.NONE, 1, 8)],
    ],
    ids=["heads", "no value", "other layers", "latent"],
)
def test_fused_heads_need_a_key_and_a_value_of_as_many_heads(client, tensors):
    with pytest.raises(kvtc.KvtcError) as caught:
        open_session(client, geometry=Geometry(tensors), layout=Layout(grouping=Grouping.FUSED_HEADS))
    assert (caught.value.code, caught.value.field) == (ErrorCode.INVALID_FIELD, "layout.grouping")


def test_fused_heads_in_order_2_are_heads_of_tokens_of_keys_beside_values(client):
    geometry = Geometry([Tensor(0, Role.KEY, RotaryStyle.NONE, 2, 8), Tensor(0, Role.VALUE, RotaryStyle.NONE, 2, 4)])
    page = np.arange(2 * TOKENS * 12, dtype=np.float16).reshape(2, TOKENS, 12)
    fused = Layout(Element.F16, Order.TENSOR_HEAD_TOKEN, Grouping.FUSED_HEADS)
    open_session(client, geometry=geometry, layout=fused).push([kvtc.Page(bytes(32), 0, page)])
    (back,) = open_session(client, geometry=geometry).fetch([bytes(32)])
    keys = page[:, :, :8].transpose(1, 0, 2).tobytes()
    assert back == keys + page[:, :, 8:].transpose(1, 0, 2).tobytes()


def test_a_page_may_be_pulled_under_another_page_size(client):
    keys, contents = random_pages(1)
    open_session(client).push(to_push(keys, contents))
    assert open_session(client, page_tokens=2 * TOKENS).fetch(keys) == contents
    smaller = open_session(client, page_tokens=16)
    assert [part.outcome for part in smaller.pull(keys)] == [kvtc.PullOutcome.NO_SPACE]


def test_layers_that_are_not_there_give_empty_parts(daemon):
    geometry = Geometry([Tensor(layer, Role.KEY, RotaryStyle.NONE, 1, 8) for layer in (1, 3)])
    keys, contents = random_pages(1, geometry=geometry)
    for arena_bytes in (0, 1 << 20):
        with daemon.connect(arena_bytes=arena_bytes) as client, open_session(client, geometry=geometry) as session:
            session.push(to_push(keys, contents))
            parts = {part.layers.start: bytes(part.data) for part in session.pull(keys, layer_step=1)}
            half = len(contents[0]) // 2
            assert parts == {0: b"", 1: contents[0][:half], 2: b"", 3: contents[0][half:]}


def test_other_counts_what_found_no_room(daemon):
    keys, contents = random_pages(3)
    with daemon.connect() as client:
        open_session(client).push(to_push(keys[:2], contents[:2]))
    with Raw(daemon.socket) as raw:
        body = raw.ask(messages.OpenSession("raw", b"", GEOMETRY, page_tokens=TOKENS))[1]
        session = messages.OpenSessionReply.decode(body).session
        entries = [messages.PullEntry(key, 0, room) for key, room in zip(keys, (1 << 20, 5, 1 << 20))]
        raw.frame(wire.Opcode.PULL, messages.Pull(session, 0, wire.NONE32, 0, 0, 0, entries).encode())
        while True:
            code, body, header = raw.read()
            assert code == 0
            if not header.status & wire.MORE:
                break
        assert messages.PullReply.decode(body) == messages.PullReply(1, 1, 0, 1)


def test_a_lease_is_bounded(make_daemon):
    keys, contents = random_pages(1)
    with make_daemon(**{"limits.lease_s": 5}).connect() as client, open_session(client) as session:
        session.push(to_push(keys, contents))
        session.lookup(keys, 5000).lease.release()
        with pytest.raises(kvtc.KvtcError) as caught:
            session.lookup(keys, 5001)
        assert (caught.value.code, caught.value.field) == (ErrorCode.LIMIT_EXCEEDED, "leaseMs")


def test_arenas_and_steps_need_no_feature_bit(daemon):
    with Raw(daemon.socket, hello=False) as raw:
        assert raw.ask(messages.Hello(features=0, client="bare"))[0] == 0
        assert raw.ask(messages.Arena(4096))[0] == 0


def test_touch_counts_duplicates_and_drop_does_not(client):
    keys, contents = random_pages(1)
    session = open_session(client)
    session.push(to_push(keys, contents))
    assert session.lookup([keys[0], keys[0]]).residence == [Residence.RAW] * 2
    assert session.touch([keys[0], keys[0]]) == 2
    assert session.drop([keys[0], keys[0]]) == 1
