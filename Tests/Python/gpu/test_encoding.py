"""Pages of real rows become blocks that are valid, of the size or error asked for, exact where they must be."""

import pytest

pytest.importorskip("xxhash", reason="runs in an environment of its own: deploy/setup --with gpu")

import numpy as np
import torch
from golden import ROOT, content, decoder, empty_cache, rows_in

from kvtc import safetensors
from kvtc.gpu import Encoder, Page, blocks, forward, rate, writing

NAME = "blocks-3.json"
FIRST, TOKENS = 640, 16


@pytest.fixture
def cache():
    """The last context of the fixture, which the golden blocks' profiles are of, as an engine has it."""
    samples, _ = safetensors.read(ROOT / "Tests" / "Fixtures" / "smollm2-layers-11-12.safetensors")
    profile, result = content(NAME)[0], empty_cache(content(NAME)[0], slots=TOKENS)
    for (layer, role), view in result.items():
        rows = torch.from_numpy(np.array(samples[f"{'kv'[role]}.{layer}"][FIRST : FIRST + TOKENS]))
        view.copy_(rows.view(-1, 4, *rows.shape[1:]).transpose(1, 2))
    assert profile.row == sum(view.shape[1] * view.shape[3] for view in result.values())
    return result


@pytest.fixture
def position():
    samples, _ = safetensors.read(ROOT / "Tests" / "Fixtures" / "smollm2-layers-11-12.safetensors", ["positions"])
    return int(samples["positions"][FIRST])


@pytest.fixture
def wide(monkeypatch):
    """More states than so few symbols deserve, which the interpreter decodes at once."""
    def shape_of(ranks, rows):
        return writing.Shape(list(ranks), rows, [4] * len(ranks), [2 if max(ranks) > 4 else 1] * len(ranks))

    monkeypatch.setattr(rate, "shape_of", shape_of)


def weighted(cache, slots, position, name=NAME):
    """Rows where an error costs its square."""
    profile, resident = content(name)[0], decoder(name).resident
    values = torch.from_numpy(rows_in(profile, cache, slots).view(np.float16).astype(np.float32))
    return forward.weigh(resident, values, position + np.arange(len(slots))).weighted.double()


def parsed(block):
    return blocks.parse(memoryview(block), content(NAME)[0])


def test_blocks_have_the_ratio_and_the_error_that_they_say(cache, position, wide):
    profile, first, second = content(NAME)[0], np.arange(8), np.arange(8, 16)
    protected = np.arange(8) == 2
    pages = [Page(first, position, protected), Page(second, position + 8)]
    made = Encoder(decoder(NAME)).encode(pages, cache, ratio=40)
    back = empty_cache(profile, slots=TOKENS)
    assert decoder(NAME).restore(made, [first, second], back).failed == {}
    for block, slots in zip(made, (first, second)):
        header = parsed(block)
        rows = len(header.coded_rows)
        assert 40 <= rows * profile.row * 2 / (len(block) - len(header.exact)) < 46
        begin = position + slots[0]
        difference = weighted(cache, slots, begin) - weighted(back, slots, begin)
        error = float((difference[header.coded_rows] ** 2).sum()) / (profile.energy * rows)
        assert error == pytest.approx(header.distortion, rel=0.03)
    exact = parsed(made[0]).is_exact
    assert exact.tolist() == protected.tolist()
    assert np.array_equal(rows_in(profile, cache, first)[exact], rows_in(profile, back, first)[exact])


def test_several_bases_share_one_step_and_keep_the_ratio(cache, position, wide):
    name, slots = "blocks-4.json", np.arange(8)
    profile = content(name)[0]
    (made,) = Encoder(decoder(name)).encode([Page(slots, position)], cache, ratio=20)
    header, back = blocks.parse(memoryview(made), profile), empty_cache(profile, slots=TOKENS)
    assert 20 <= 8 * profile.row * 2 / len(made) < 24
    assert decoder(name).restore([made], [slots], back).failed == {}
    difference = weighted(cache, slots, position, name) - weighted(back, slots, position, name)
    assert float((difference**2).sum()) / (profile.energy * 8) == pytest.approx(header.distortion, rel=0.03)


def test_a_bound_on_the_error_is_kept_by_the_smallest_block_that_does(cache, position, wide):
    page = Page(np.arange(8), position)
    (loose,) = Encoder(decoder(NAME)).encode([page], cache, distortion=0.2)
    (tight,) = Encoder(decoder(NAME)).encode([page], cache, distortion=0.1)
    assert 0.17 < parsed(loose).distortion <= 0.2 and 0.08 < parsed(tight).distortion <= 0.1 and len(loose) < len(tight)
    # With both the ratio gives way.
    (bounded,) = Encoder(decoder(NAME)).encode([page], cache, ratio=100, distortion=0.1)
    assert abs(len(bounded) - len(tight)) <= 8 and 0.08 < parsed(bounded).distortion <= 0.1
    assert len(Encoder(decoder(NAME)).encode([page], cache, ratio=40, distortion=0.2)[0]) > len(tight)
    # More than the profile's forty components lack of these rows, whatever the step.
    assert Encoder(decoder(NAME)).encode([page], cache, distortion=0.01) == [None]


def test_rows_that_no_code_would_do_for_stay_exact(cache, position, wide):
    profile, slots = content(NAME)[0], np.arange(8)
    key = cache[0, 0]
    key[0, 0, 1, 5] = float("nan")
    key[0, :, 3] *= 40
    (made,) = Encoder(decoder(NAME)).encode([Page(slots, position)], cache, ratio=30)
    assert np.flatnonzero(parsed(made).is_exact).tolist() == [1, 3]
    back = empty_cache(profile, slots=TOKENS)
    assert decoder(NAME).restore([made], [slots], back).failed == {}
    assert np.array_equal(rows_in(profile, cache, slots)[[1, 3]], rows_in(profile, back, slots)[[1, 3]])
    (coded,) = Encoder(decoder(NAME)).encode([Page(slots, position)], cache, ratio=30, keeps_outliers=False)
    assert np.flatnonzero(parsed(coded).is_exact).tolist() == [1]
    everything = [Page(slots, position, np.ones(8, bool))]
    assert Encoder(decoder(NAME)).encode(everything, cache, ratio=30) == [None]


def test_sections_are_cut_by_how_much_there_is():
    # As the daemon cuts them: 64 rows: 1024 components a chunk; few symbols: few states.
    assert writing.shape_of([4096], 64) == writing.Shape([4096], 64, [32], [4])
    assert writing.shape_of([40], 8) == writing.Shape([40], 8, [1], [1])
    assert writing.shape_of([0, 23592], 64).chunks == [0, 23]


def test_goals_and_caches_that_cannot_be_are_refused(cache, position):
    encoder, page = Encoder(decoder(NAME)), Page(np.arange(8), position)
    for goal in ({}, {"ratio": 0.5}, {"distortion": 0.0}, {"ratio": 8, "distortion": 1.5}):
        with pytest.raises(ValueError, match="ratio"):
            encoder.encode([page], cache, **goal)
    with pytest.raises(ValueError, match="key of layer 1"):
        encoder.encode([page], {name: view for name, view in cache.items() if name != (1, 0)}, ratio=16)
    with pytest.raises(ValueError, match="0 tokens"):
        encoder.encode([Page(np.arange(0), position)], cache, ratio=16)
