"""What a page holds and how its bytes are arranged.

A page is some consecutive tokens of one sequence: for every tensor (K or V of one layer) ``tokens x heads x head_dim``
elements. ``Geometry`` says which tensors there are, ``Layout`` in which order their elements lie in the worker's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np

from .wire import F32, U8, U16, Checked, enum_of, list_of, member, real, whole, wired

NO_ROPE = 0xFFFF


class Role(IntEnum):
    KEY = 0
    VALUE = 1
    LATENT = 2


class RotaryStyle(IntEnum):
    """Which elements of a head RoPE turns together: (2i, 2i+1), or (i, i + half)."""

    NONE = 0
    INTERLEAVED = 1
    HALF_SPLIT = 2


class Element(IntEnum):
    F16 = 1
    BF16 = 2
    F32 = 3
    E4M3 = 4
    E5M2 = 5

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return {1: 2, 2: 2, 3: 4, 4: 1, 5: 1}[int(self)]

    @property
    def dtype(self) -> np.dtype:
        """numpy's type of the same width; unsigned integers for the types numpy does not know."""
        return np.dtype({1: "<f2", 2: "<u2", 3: "<f4", 4: "u1", 5: "u1"}[int(self)])


class Order(IntEnum):
    """From the slowest axis to the fastest; the elements of a head come last."""

    TENSOR_TOKEN_HEAD = 0
    TOKEN_TENSOR_HEAD = 1
    TENSOR_HEAD_TOKEN = 2


class Grouping(IntEnum):
    """K of all layers then V; K0 V0 K1 V1…; or K and V of a head side by side."""

    ROLES_APART = 0
    LAYER_PAIRS = 1
    FUSED_HEADS = 2


@dataclass
class Tensor(Checked):
    """K, V or the latent of one layer, and how RoPE turns it. ``rope_table`` indexes ``Geometry.rope_tables``."""

    layer: int = wired(U16)
    role: Role = wired(enum_of(Role))
    rotary_style: RotaryStyle = wired(enum_of(RotaryStyle), default=RotaryStyle.NONE)
    heads: int = wired(U16, default=1)
    head_dim: int = wired(U16, default=1)
    rotary_offset: int = wired(U16, default=0)
    rotary_dims: int = wired(U16, default=0)
    rope_table: int = wired(U16, default=NO_ROPE)

    @property
    def elements(self) -> int:
        """Elements of one token."""
        return self.heads * self.head_dim


RotaryStyleName = Literal["none", "interleaved", "half_split"]
_U16 = 0xFFFF


def inverse_frequencies(base: float, dims: int) -> list[float]:
    """``base ** (-2i / dims)`` for the ``dims / 2`` pairs, rounded to float32 as they travel."""
    if real(base, "rope_base") <= 0:
        raise ValueError(f"rope_base must be positive, not {base!r}")
    return [float(np.float32(base ** (-2.0 * i / dims))) for i in range(dims // 2)]


@dataclass
class Geometry(Checked):
    """The tensors of a model (or of one tensor-parallel rank). Without tensors: whatever the profile says."""

    tensors: list[Tensor] = wired(list_of(Tensor.encoding()), default_factory=list)
    rope_tables: list[list[float]] = wired(list_of(list_of(F32)), default_factory=list)

    @classmethod
    def from_heads(
        cls,
        layers: int,
        kv_heads: int,
        head_dim: int,
        rope_base: float | None = 10000.0,
        rope_style: RotaryStyleName | RotaryStyle = RotaryStyle.HALF_SPLIT,
        rotary_dims: int | None = None,
        value_dim: int | None = None,
        first_layer: int = 0,
    ) -> Geometry:
        """The usual transformer: K and V of every layer alike, RoPE on the first ``rotary_dims`` of each head of K.

        ``rope_style`` is "interleaved", "half_split" or "none"; without ``rotary_dims`` the whole head is turned. Heads of
        V are as wide as those of K unless ``value_dim`` says otherwise. A rank of a parallel model has its own number of
        heads, or layers from ``first_layer`` on.
        """
        style, layers, first_layer = _checked(rope_style, layers, first_layer)
        kv_heads, head_dim = whole(kv_heads, "kv_heads", 1, _U16), whole(head_dim, "head_dim", 1, _U16)
        value_dim = head_dim if value_dim is None else whole(value_dim, "value_dim", 1, _U16)
        dims = head_dim if rotary_dims is None else whole(rotary_dims, "rotary_dims", 0, _U16)
        if rope_base is None or style == RotaryStyle.NONE or dims == 0:
            style, dims = RotaryStyle.NONE, 0
        if dims % 2 or dims > head_dim:
            raise ValueError(f"rotary_dims must be even and at most head_dim ({head_dim}), not {dims}")
        table = 0 if dims else NO_ROPE
        tensors = []
        for layer in range(first_layer, first_layer + layers):
            tensors.append(Tensor(layer, Role.KEY, style, kv_heads, head_dim, 0, dims, table))
            tensors.append(Tensor(layer, Role.VALUE, RotaryStyle.NONE, kv_heads, value_dim))
        return cls(tensors, [inverse_frequencies(rope_base, dims)] if dims and rope_base is not None else [])

    @classmethod
    def from_latents(
        cls,
        layers: int,
        latent_dim: int,
        rotary_dims: int,
        rope_base: float = 10000.0,
        rope_style: RotaryStyleName | RotaryStyle = RotaryStyle.INTERLEAVED,
        first_layer: int = 0,
    ) -> Geometry:
        """Multi-head latent attention: one stream of ``latent_dim`` elements, then ``rotary_dims`` that RoPE turns, no V."""
        style, layers, first_layer = _checked(rope_style, layers, first_layer)
        rotary_dims = whole(rotary_dims, "rotary_dims", 2, _U16)
        width = whole(latent_dim, "latent_dim", 1, _U16 - rotary_dims) + rotary_dims
        if rotary_dims % 2:
            raise ValueError(f"rotary_dims must be even, not {rotary_dims}")
        tensors = [
            Tensor(layer, Role.LATENT, style, 1, width, latent_dim, rotary_dims, 0)
            for layer in range(first_layer, first_layer + layers)
        ]
        return cls(tensors, [inverse_frequencies(rope_base, rotary_dims)])

    @property
    def layers(self) -> int:
        """One more than the highest layer number."""
        return max((tensor.layer for tensor in self.tensors), default=-1) + 1

    def elements(self, layers: range | None = None) -> int:
        """Elements of one token in these layers (all without ``layers``)."""
        return sum(t.elements for t in self.tensors if layers is None or t.layer in layers)


def _checked(style: RotaryStyleName | RotaryStyle, layers: int, first_layer: int) -> tuple[RotaryStyle, int, int]:
    first = whole(first_layer, "first_layer", 0, _U16)
    return member(style, "rope_style", RotaryStyle), whole(layers, "layers", 1, _U16 + 1 - first), first


@dataclass
class Layout(Checked):
    """How the elements of a page lie in memory. ``flags`` bit 0: V has its token axis innermost."""

    element: Element = wired(enum_of(Element), default=Element.F16)
    order: Order = wired(enum_of(Order), default=Order.TENSOR_TOKEN_HEAD)
    grouping: Grouping = wired(enum_of(Grouping), default=Grouping.ROLES_APART)
    flags: int = wired(U8, default=0)

    @property
    def value_transposed(self) -> bool:
        return bool(self.flags & 1)

    def page_bytes(self, geometry: Geometry, tokens: int, layers: range | None = None) -> int:
        """Bytes of a page (or of a range of its layers) with that many tokens."""
        return geometry.elements(layers) * self.element.size * tokens

    def views(
        self, geometry: Geometry, tokens: int, page: np.ndarray | bytes | bytearray | memoryview, layers: range | None = None
    ) -> dict[tuple[int, Role], np.ndarray]:
        """One array ``(tokens, heads, head_dim)`` per tensor, all of them views into ``page``; nothing is copied.

        Writing to the arrays fills a page for ``Session.push``; reading them takes a pulled one apart.
        """
        flat = page.view(self.element.dtype) if isinstance(page, np.ndarray) else np.frombuffer(page, self.element.dtype)
        expected = geometry.elements(layers) * tokens
        if flat.size != expected:
            raise ValueError(f"the page has {flat.size} elements; {tokens} tokens of this geometry have {expected}")
        chosen = [t for t in geometry.tensors if layers is None or t.layer in layers]
        result, position = {}, 0
        row = sum(t.elements for t in chosen)
        for group in self._groups(chosen):
            heads, head_width = group[0].heads, sum(t.head_dim for t in group)
            width = heads * head_width
            if self.order == Order.TOKEN_TENSOR_HEAD:
                block = flat.reshape(tokens, row)[:, position : position + width].reshape(tokens, heads, head_width)
            else:
                part = flat[position * tokens : (position + width) * tokens]
                block = self._tensor_block(part, group[0], heads, head_width, tokens)
            position += width
            start = 0
            for tensor in group:
                result[tensor.layer, tensor.role] = block[:, :, start : start + tensor.head_dim]
                start += tensor.head_dim
        return result

    def _tensor_block(self, part: np.ndarray, tensor: Tensor, heads: int, width: int, tokens: int) -> np.ndarray:
        if self.value_transposed and tensor.role == Role.VALUE:
            return part.reshape(heads, width, tokens).transpose(2, 0, 1)
        if self.order == Order.TENSOR_HEAD_TOKEN:
            return part.reshape(heads, tokens, width).transpose(1, 0, 2)
        return part.reshape(tokens, heads, width)

    def _groups(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        by_layer = sorted(tensors, key=lambda t: (t.layer, t.role))
        if self.grouping == Grouping.ROLES_APART:
            return [[t] for t in sorted(tensors, key=lambda t: (t.role, t.layer))]
        if self.grouping == Grouping.LAYER_PAIRS:
            return [[t] for t in by_layer]
        groups: list[list[Tensor]] = []
        for tensor in by_layer:
            if groups and groups[-1][0].layer == tensor.layer and groups[-1][0].heads == tensor.heads:
                groups[-1].append(tensor)
            else:
                groups.append([tensor])
        return groups
