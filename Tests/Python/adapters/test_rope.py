"""RoPE undone, redone and found out; and the geometry that a session declares."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from kvtc.adapters import llama_cpp
from kvtc.adapters.rope import Rope, measured

from fake_worker import GEOMETRY


@pytest.mark.parametrize("style", ["interleaved", "half_split"])
@pytest.mark.parametrize(("offset", "dims"), [(0, 8), (0, 4), (4, 4), (0, 0)])
def test_rope_undone_and_redone_is_the_same(style: str, offset: int, dims: int) -> None:
    rope = Rope.geometric(style, offset, dims, 10000.0, 1)
    rows, positions = np.random.default_rng(3).normal(size=(5, 24)).astype(np.float32), np.array([0, 1, 7, 500, 2047])
    turned = rope.turn(rows, positions, 0, 8, 1)
    np.testing.assert_allclose(rope.turn(turned, positions, 0, 8, -1), rows, atol=1e-5)
    np.testing.assert_array_equal(turned[0], rows[0])
    rest = [element for element in range(8) if not offset <= element < offset + dims]
    np.testing.assert_array_equal(turned.reshape(5, 3, 8)[..., rest], rows.reshape(5, 3, 8)[..., rest])
    assert (dims == 0) == np.array_equal(turned, rows)


def test_rope_turns_the_pairs_of_its_style() -> None:
    rows, positions = np.eye(8, dtype=np.float32)[:1], np.array([1])
    interleaved, half_split = (
        Rope.geometric(style, 0, 8, 10000.0, 1).turn(rows, positions, 0, 8, 1)[0] for style in ("interleaved", "half_split")
    )
    assert np.flatnonzero(interleaved).tolist() == [0, 1] and np.flatnonzero(half_split).tolist() == [0, 4]
    np.testing.assert_allclose(interleaved[:2], [np.cos(1), np.sin(1)], atol=1e-6)


@pytest.mark.parametrize("style", ["interleaved", "half_split"])
def test_frequencies_are_found_by_moving_tokens(style: str) -> None:
    """Two layers of 16-bit keys, of which one is turned as the file says; the other's pairs are slower, each by its own factor."""
    named = Rope.geometric(style, 8, 64, 500_000.0, 2)
    slower = tuple(frequency / (1 + pair / 4) for pair, frequency in enumerate(named.frequencies[0]))
    generator = np.random.default_rng(6)
    keys = [generator.normal(size=(32, 2 * 80)).astype(np.float16) for _ in range(2)]

    def engine(rope: Rope) -> Callable[[int], list[np.ndarray]]:
        def shifted(distance: int) -> list[np.ndarray]:
            positions = np.full(32, distance)
            return [rope.turn(rows.astype(np.float32), positions, i, 80, 1).astype(np.float16) for i, rows in enumerate(keys)]

        return shifted

    assert measured(named, keys, engine(named), 80) is named
    other = replace(named, base=None, frequencies=(named.frequencies[0], slower))
    found = measured(named, keys, engine(other), 80)
    assert found.base is None
    # A hundredth of a turn at the end of a context of 128K tokens.
    assert np.abs(np.asarray(found.frequencies) - np.asarray(other.frequencies)).max() * 131072 < 0.02


def test_the_geometry_declared_is_the_models() -> None:
    geometry = llama_cpp.wire_geometry(GEOMETRY)
    assert len(geometry.tensors) == 4 and geometry.elements() * 2 == GEOMETRY.token_bytes
    assert geometry.rope_tables[0][0] == 1.0 and len(geometry.rope_tables[0]) == 4
