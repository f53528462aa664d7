"""Every shape that models' caches come in, through a real daemon: whole pages and layer by layer."""

import numpy as np
import pytest

import kvtc
from kvtc import Element, Geometry, Grouping, Layout, Mode, Order, Policy, Role, RotaryStyle, Tensor
from samples import TOKENS, lay_out, values

SPARSE = Geometry(
    [
        Tensor(0, Role.KEY, RotaryStyle.HALF_SPLIT, 2, 16, 0, 16, 0),
        Tensor(0, Role.VALUE, RotaryStyle.NONE, 2, 16),
        Tensor(1, Role.KEY, RotaryStyle.HALF_SPLIT, 2, 16, 0, 16, 0),
        Tensor(3, Role.VALUE, RotaryStyle.NONE, 2, 16),
    ],
    [kvtc.geometry.inverse_frequencies(10000.0, 16)],
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
        # No page may lie before what is there already.
        with pytest.raises(kvtc.KvtcError):
            session.push([kvtc.Page(bytes([99]) * 32, 300, pages[0].data)])
