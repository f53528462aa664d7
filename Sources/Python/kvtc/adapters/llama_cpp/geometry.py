"""The shape of a model's cache, as llama.cpp keeps it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .rope import Rope


@dataclass(frozen=True)
class ModelGeometry:
    """What a profile and a session must know of the model: heads of K and V and what RoPE does to those of K.

    Layers are counted as llama.cpp's state has them. With latent attention a head of K is the latent and the rotated part
    that follows it, and `value_dim` is 0.
    """

    layers: int
    heads: int
    head_dim: int
    value_dim: int
    rope: Rope

    @property
    def is_latent(self) -> bool:
        return self.value_dim == 0

    @property
    def roles(self) -> tuple[str, ...]:
        """What a layer's tensors are, those of the state's `keys` first."""
        return ("latent",) if self.is_latent else ("key", "value")

    def turn(self, rows: np.ndarray, positions: np.ndarray, layer: int, direction: int) -> np.ndarray:
        """RoPE redone (direction 1) or undone (−1) on f32 rows [tokens, heads × head_dim] of a layer's keys."""
        return self.rope.turn(rows, positions, layer, self.head_dim, direction)

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's K and V, all layers, f16."""
        return self.layers * self.heads * (self.head_dim + self.value_dim) * 2
