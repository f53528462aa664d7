"""What a model's rotary embedding does to its keys: which pairs it turns and how fast, seen on keys that the model computed.

Classes of transformers name the frequencies in buffers, but neither which elements make a pair, nor where in a head they lie, nor
which layers are left alone. So the same tokens are computed at other positions, and what explains the difference is the rotation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..rope import Rope

_DISTANCES = (1, 61)
"""Neither a multiple of a common period: a table that is not the layer's is seen at one of them."""


def frequency_tables(model: Any) -> list[np.ndarray]:
    """The different inverse frequencies among the model's buffers, [pairs] each."""
    found: dict[bytes, np.ndarray] = {}
    for name, buffer in model.named_buffers():
        if name.endswith("inv_freq") and not name.endswith("original_inv_freq") and buffer.ndim == 1:
            table = buffer.detach().float().cpu().numpy()
            found.setdefault(table.tobytes(), table)
    return list(found.values())


def observed(
    tables: Sequence[np.ndarray],
    base: float | None,
    keys: Sequence[np.ndarray],
    shifted: Callable[[int], Sequence[np.ndarray]],
    head_dim: int,
    noise: float,
) -> Rope | None:
    """The rotation that explains how keys differ at other positions, up to `noise` of their size; None where none does.

    `keys` are f32 [tokens, heads × head_dim] of every layer at positions from 0 on; `shifted` gives those of the same tokens so
    many positions on. `base`: what the tables are powers of, where the model has one.
    """
    moved = {distance: shifted(distance) for distance in _DISTANCES}

    def explains(rope: Rope, layer: int) -> bool:
        rows = keys[layer]
        for distance, others in moved.items():
            turned = rope.turn(rows, np.full(len(rows), distance), 0, head_dim, 1)
            if np.linalg.norm(others[layer] - turned) > noise * np.linalg.norm(rows):
                return False
        return True

    still = Rope("none", 0, 0, None, ((),))
    idle = [explains(still, layer) for layer in range(len(keys))]
    if all(idle):
        return Rope("none", 0, 0, None, ((),) * len(keys))
    for style, dims in itertools.product(("half_split", "interleaved"), dict.fromkeys(2 * len(table) for table in tables)):
        for offset in dict.fromkeys((0, head_dim - dims)):
            if offset < 0:
                continue
            candidates = [Rope(style, offset, dims, None, (tuple(map(float, t)),)) for t in tables if 2 * len(t) == dims]
            chosen = [_chosen(candidates, explains, layer) for layer in range(len(keys))]
            # Some models leave single layers alone: their pairs turn by nothing.
            layers = tuple(table for i, own in enumerate(chosen) if (table := (0.0,) * (dims // 2) if idle[i] else own))
            if len(layers) < len(keys):
                continue
            if base:
                plain = Rope.geometric(style, offset, dims, base, len(keys))
                if np.allclose(layers, plain.frequencies, rtol=1e-5):
                    return plain
            return Rope(style, offset, dims, None, layers)
    return None


def _chosen(candidates: Sequence[Rope], explains: Callable[[Rope, int], bool], layer: int) -> tuple[float, ...] | None:
    return next((rope.frequencies[0] for rope in candidates if explains(rope, layer)), None)
