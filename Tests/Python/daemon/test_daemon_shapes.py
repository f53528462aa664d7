"""Every shape that models' caches come in, through a real daemon: whole pages and layer by layer."""

import re

import numpy as np
import pytest

import kvtc
from kvtc import (
    Element,
    ErrorCode,
    Geometry,
    Grouping,
    Layout,
    Mode,
    Order,
    Policy,
    PushOutcome,
    Role,
    RotaryStyle,
    Tensor,
)
from kvtc.protocol.geometry import inverse_frequencies

from samples import TOKENS, lay_out, values

SPARSE = Geometry(
    [
        Tensor(0, Role.KEY, RotaryStyle.HALF_SPLIT, 2, 16, 0, 16, 0),
        Tensor(0, Role.VALUE, RotaryStyle.NONE, 2, 16),
        Tensor(1, Role.KEY, RotaryStyle.HALF_SPLIT, 2, 16, 0, 16, 0),
        Tensor(3, Role.VALUE, RotaryStyle.NONE, 2, 16),
    ],
    [inverse_frequencies(10000.0, 16)],
)
SHAPES = {
    "grouped": Geometry.from_heads(4, 2, 64),
    "all heads": Geometry.from_heads(2, 12, 80, rotary_dims=32, rope_style="interleaved"),
    "one head": Geometry.from_heads(3, 1, 256),
    "wider keys": Geometry.from_heads(2, 4, 96, value_dim=64),
    "latent": Geometry.from_latents(3, 128, 64),
    "sparse": SPARSE,
    "pipeline stage": Geometry.from_heads(3, 2, 32, first_layer=20),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("layout", [Layout(), Layout(Element.BF16, Order.TENSOR_HEAD_TOKEN, Grouping.LAYER_PAIRS)])
def test_pages_come_back_whole_and_layer_by_layer(client, name, layout):
    geometry = SHAPES[name]
    pages = [lay_out(page, layout, geometry) for page in values(2, geometry)]
    keys = kvtc.page_keys(range(2 * TOKENS), TOKENS, part=name)
    policy = Policy(mode=Mode.LOSSLESS)
    with client.open_session(name, geometry=geometry, layout=layout, page_tokens=TOKENS, policy=policy) as session:
        session.push([kvtc.Page(key, index * TOKENS, page) for index, (key, page) in enumerate(zip(keys, pages))])
        assert session.fetch(keys) == pages
        whole = layout.views(geometry, TOKENS, pages[1])
        seen = []
        for part in session.pull([keys[1]], layer_step=1):
            assert part.outcome == kvtc.PullOutcome.HIT
            seen += part.layers
            for tensor, view in layout.views(geometry, TOKENS, part.data, part.layers).items():
                assert (view == whole.pop(tensor)).all()
        # Layers without tensors come as parts without bytes.
        assert seen == list(range(geometry.layers)) and not whole


def test_ranks_with_an_engines_keys_do_not_get_each_others_pages(client):
    geometry = Geometry.from_heads(2, 2, 16)
    engine_keys = [bytes([number]) * 32 for number in range(3)]
    ranks = []
    for rank in range(2):
        contents = [lay_out(page, Layout(), geometry) for page in values(3, geometry, seed=50 + rank)]
        keys = [kvtc.part_key(key, f"tp{rank}/2") for key in engine_keys]
        session = client.open_session(f"rank {rank}", geometry=geometry, page_tokens=TOKENS)
        session.push([kvtc.Page(key, index * TOKENS, page) for index, (key, page) in enumerate(zip(keys, contents))])
        ranks.append((session, keys, contents))
    for session, keys, contents in ranks:
        assert session.fetch(keys) == contents


def test_what_a_sliding_window_left_comes_back_at_its_positions(client):
    """Pages never bridge a gap; the session's positions may."""
    geometry = Geometry.from_heads(2, 2, 16)
    positions = np.r_[0:4, 500:590]
    rows = values(1, geometry, tokens=len(positions))[0]
    layout = Layout(Element.F32)
    with client.open_session("window", geometry=geometry, layout=layout, page_tokens=32) as session:
        pages, keys = [], []
        for number, (start, count) in enumerate(kvtc.page_runs(positions, 32)):
            own = {tensor: array[start : start + count] for tensor, array in rows.items()}
            pages.append(kvtc.Page(bytes([number + 1]) * 32, int(positions[start]), lay_out(own, layout, geometry, count)))
            keys.append(pages[-1].key)
        assert [(page.first_position, len(page.data) // session.token_bytes) for page in pages] == [
            (0, 4), (500, 32), (532, 32), (564, 26)
        ]
        session.push(pages)
        assert session.fetch(keys) == [bytes(page.data) for page in pages]
        assert session.policy().tokens == 590
        # A page that comes later into the gap fills it.
        assert session.push([kvtc.Page(bytes([99]) * 32, 300, pages[0].data)]) == [PushOutcome.STORED]
        assert session.policy().tokens == 590


K0, V0, L0, K1, V1, L1 = (Tensor(layer, role, RotaryStyle.NONE, 2, 8) for layer in (0, 1) for role in Role)


@pytest.mark.parametrize("grouping", Grouping)
@pytest.mark.parametrize(
    "tensors, astray",
    [
        ([K0, V0, K1, V1], None),
        ([K0, K1, V0, V1], {Grouping.LAYER_PAIRS: 2, Grouping.FUSED_HEADS: 2}),
        ([V0, V1, K0, K1], 2),
        ([K1, K0, V1, V0], 1),
        ([K1, V1, K0, V0], 2),
        ([V0, K0, V1, K1], 1),
        ([K0, V0, V1, K1], 3),
    ],
    ids=["KVKV", "KKVV", "VVKK", "KKVV downwards", "KVKV downwards", "VKVK", "KVVK"],
)
def test_tensors_mean_what_their_order_says_or_are_refused(client, grouping, tensors, astray):
    """Whoever fills a page in the order of a list that is taken gets back each layer's own tensors."""
    astray = astray.get(grouping) if isinstance(astray, dict) else astray
    check_order(client, grouping, tensors, astray)


@pytest.mark.parametrize("grouping", [Grouping.ROLES_APART, Grouping.LAYER_PAIRS])
@pytest.mark.parametrize("tensors, astray", [([K0, L0, K1, L1], None), ([L0, K0, L1, K1], 1), ([L0, L1, K0, K1], 2)], ids=str)
def test_latents_stand_behind_the_keys_of_their_layer(client, grouping, tensors, astray):
    check_order(client, grouping, tensors, astray)


def check_order(client, grouping, tensors, astray):
    geometry, layout = kvtc.Geometry(list(tensors)), Layout(Element.F16, grouping=grouping)

    def open_session():
        return client.open_session("order", geometry=geometry, layout=layout, page_tokens=TOKENS)

    if astray is not None:
        with pytest.raises(kvtc.KvtcError, match="list the tensors layer by layer, in each key, value, latent") as caught:
            open_session()
        assert (caught.value.code, caught.value.field) == (ErrorCode.INVALID_FIELD, f"geometry.tensors[{astray}]")
        return
    page = bytearray(layout.page_bytes(geometry, TOKENS))
    for number, view in enumerate(layout.views(geometry, TOKENS, page).values()):
        view[...] = number
    with open_session() as session:
        key = bytes(range(32))
        session.push([kvtc.Page(key, 0, page)])
        assert session.fetch([key]) == [bytes(page)]
        for part in session.pull([key], layer_step=1):
            for name, view in layout.views(geometry, TOKENS, part.data, part.layers).items():
                assert (view == layout.views(geometry, TOKENS, page)[name]).all()
        session.drop([key])


@pytest.mark.parametrize(
    "settings, page_tokens, named",
    [
        ({"disk.segment": "1MiB", "disk.budget": "64MiB"}, 512, "raise disk.segment .*or use pages of at most 255 tokens"),
        ({"disk.budget": "4MiB"}, 512, "raise disk.segment .*disk.budget holds at least four.*or use pages of at most 255 tokens"),
        ({"disk.directory": "", "ram.budget": "1MiB"}, 512, "raise ram.budget, or use pages of at most 255 tokens"),
        ({"ram.budget": "1MiB", "disk.budget": "4MiB"}, 512, "raise ram.budget and disk.segment .*, or use pages of at most 255 tokens"),
        ({"limits.ram_per_user": "1MiB"}, 512, "raise limits.ram_per_user, or use pages of at most 255 tokens"),
        ({"limits.arena": 1 << 20, "limits.body": 1 << 20}, 512, "raise limits.arena, or use pages of at most 256 tokens"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_pages_that_can_never_be_kept_are_refused_at_once(make_daemon, settings, page_tokens, named):
    geometry = kvtc.Geometry.from_heads(4, 4, 64)  # 4096 bytes a token
    with make_daemon(**settings).connect(arena_bytes=0) as client:
        with pytest.raises(kvtc.KvtcError) as caught:
            client.open_session("large", geometry=geometry, page_tokens=page_tokens)
        assert (caught.value.code, caught.value.field) == (ErrorCode.LIMIT_EXCEEDED, "pageTokens")
        assert re.search(named, caught.value.message), caught.value.message
        fitting = re.search("at most ([0-9]+) tokens", caught.value.message)
        if fitting:
            tokens = int(fitting[1])
            with client.open_session("fits", geometry=geometry, page_tokens=tokens) as session:
                page = kvtc.Page(bytes(32), 0, bytes(session.page_bytes))
                if session.page_bytes < client.server.max_body - 4096:
                    assert session.push([page]) == [PushOutcome.STORED]
            with pytest.raises(kvtc.KvtcError):
                client.open_session("large", geometry=geometry, page_tokens=tokens + 1)


def test_pages_larger_than_any_arena(make_daemon):
    geometry = kvtc.Geometry.from_heads(80, 8, 512)  # 1.25 MiB a token
    with make_daemon(**{"ram.budget": "512MiB", "disk.directory": ""}).connect(arena_bytes=0) as client:
        with pytest.raises(kvtc.KvtcError, match=r"raise ram.budget \(a page takes a 32nd at most\), or use pages of at most 204 tokens"):
            client.open_session("large", geometry=geometry, page_tokens=256)
