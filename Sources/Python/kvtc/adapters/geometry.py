"""The shape of a model's cache, and what a session declares of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..protocol.geometry import NO_ROPE, Geometry, Role, RotaryStyle, Tensor
from .rope import Rope


@dataclass(frozen=True)
class ModelGeometry:
    """What a profile and a session must know of the model: heads of K and V and what RoPE does to those of K.

    Layers are counted as the engine's cache has them. With latent attention a head of K is the latent and the rotated part
    that follows it, and `value_dim` is 0.
    """

    layers: int
    heads: int
    head_dim: int
    value_dim: int
    rope: Rope
    element_bytes: int = 2

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
        """Bytes of one token's K and V, all layers."""
        return self.layers * self.heads * (self.head_dim + self.value_dim) * self.element_bytes


def wire_geometry(model: ModelGeometry) -> Geometry:
    """The geometry that a session of this model declares. RoPE is part of it where the model file tells its frequencies:
    measured ones differ in their last digits from worker to worker."""
    rope = model.rope
    if rope.base is None:
        rope = replace(rope, style="none", dims=0, offset=0)
    tables = [list(table) for table in dict.fromkeys(rope.frequencies)] if rope.dims else []
    style = RotaryStyle[rope.style.upper()]
    keys, tensors = Role.LATENT if model.is_latent else Role.KEY, []
    for layer in range(model.layers):
        table = tables.index(list(rope.frequencies[layer])) if tables else NO_ROPE
        tensors.append(Tensor(layer, keys, style, model.heads, model.head_dim, rope.offset, rope.dims, table))
        if not model.is_latent:
            tensors.append(Tensor(layer, Role.VALUE, RotaryStyle.NONE, model.heads, model.value_dim))
    return Geometry(tensors, tables)
