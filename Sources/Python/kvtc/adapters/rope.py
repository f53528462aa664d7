"""What the engine's rotary embedding does to a model's keys, as measured on the engine.

Model files describe it in many ways (bases of single layers, factors for single pairs, linear, YaRN and LongRoPE scaling), and
not all of it is in them. But an engine can have the same tokens at other positions (llama.cpp by turning the keys in its cache,
others by computing them anew): the angles between the keys here and there are the frequencies, whatever they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

_DISTANCES = (1, 8, 64, 512, 4096)
"""Each angle tells which turn the next one is in: the frequencies known so far are good to half a turn at eight times the distance."""
_NOISE = 3e-3
"""Radians at the largest distance that 16-bit keys explain."""


@dataclass(frozen=True)
class Rope:
    """`style` says which elements make a pair: "interleaved" neighbours, "half_split" halves, "none". Pairs lie in the `dims`
    elements from `offset` on of every head of K.

    `frequencies` are radians a position of every pair: one tuple for all layers where the model has one, `base`, else one a layer.
    """

    style: str
    offset: int
    dims: int
    base: float | None
    frequencies: tuple[tuple[float, ...], ...]

    @classmethod
    def geometric(cls, style: str, offset: int, dims: int, base: float, layers: int) -> Rope:
        """`base ** (−2i / dims)`, in all layers."""
        table = tuple(float(base ** (-2.0 * i / dims)) for i in range(dims // 2))
        return cls(style, offset, dims, base, (table,) * layers)

    def pairs(self, heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Views of the first and the second elements of the pairs [..., pairs] of heads [..., head_dim]."""
        part = heads[..., self.offset : self.offset + self.dims]
        if self.style == "interleaved":
            return part[..., 0::2], part[..., 1::2]
        return part[..., : self.dims // 2], part[..., self.dims // 2 :]

    def turn(self, rows: np.ndarray, positions: np.ndarray, layer: int, head_dim: int, direction: int) -> np.ndarray:
        """Redone (direction 1) or undone (−1) on f32 rows [tokens, heads × head_dim] of a layer's keys."""
        if self.dims == 0:
            return rows
        angle = direction * positions[:, None].astype(np.float64) * np.asarray(self.frequencies[layer])
        cosine, sine = (part.astype(np.float32)[:, None, :] for part in (np.cos(angle), np.sin(angle)))
        heads = rows.reshape(len(rows), -1, head_dim).copy()
        first, second = self.pairs(heads)
        first[:], second[:] = first * cosine - second * sine, first * sine + second * cosine
        return heads.reshape(rows.shape)


def measured(
    named: Rope, keys: Sequence[np.ndarray], shifted: Callable[[int], Sequence[np.ndarray]], head_dim: int
) -> Rope:
    """The rotation that the engine applies; `named`, which the model file describes, where that is the same.

    `keys` are [tokens, heads × head_dim] of every layer, `shifted` gives those of tokens moved so many positions.
    """
    before = [_complex(named, rows, head_dim) for rows in keys]
    found = np.zeros((len(keys), named.dims // 2))
    for distance in _DISTANCES:
        for layer, rows in enumerate(shifted(distance)):
            angle = np.angle((_complex(named, rows, head_dim) * before[layer].conj()).sum(axis=(0, 1)))
            turns = np.rint((found[layer] * distance - angle) / (2 * np.pi)) if distance > 1 else 0
            found[layer] = (angle + 2 * np.pi * turns) / distance
    if _alike(found, np.asarray(named.frequencies)).all():
        return named
    # Layers that are turned alike share a table, and their noise evens out.
    tables = [tuple(map(float, found[_alike(found, own)].mean(axis=0).astype(np.float32))) for own in found]
    return replace(named, base=None, frequencies=tuple(tables))


def _alike(found: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which layers' frequencies differ by no more than noise."""
    return np.asarray(np.abs(found - others).max(axis=1) * _DISTANCES[-1] < _NOISE)


def _complex(rope: Rope, rows: np.ndarray, head_dim: int) -> np.ndarray:
    first, second = rope.pairs(rows.astype(np.float64).reshape(len(rows), -1, head_dim))
    return first + 1j * second
