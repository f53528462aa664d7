"""LMCache's objects as pages of kvtcd: what their shapes say of the cache, and bytes as such where they say nothing that is known."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...protocol.geometry import Element, Geometry, Grouping, Layout, Order, Role, Tensor

_ELEMENTS = {
    "float16": Element.F16,
    "bfloat16": Element.BF16,
    "float32": Element.F32,
    "float8_e4m3fn": Element.E4M3,
    "float8_e5m2": Element.E5M2,
}
_TOKENS = range(16, 1025)
"""Of a page: the protocol's limits, as those that follow."""
_HEAD_DIM, _LAYERS = 8192, 4096
_BLOCK = 1024
_OPAQUE_TOKENS = 64


@dataclass(frozen=True)
class ObjectForm:
    """What LMCache says of an object: a shape and type for each group of layers in it, one behind another.

    Known is one group of [2, layers, tokens, width] (K and V) or [1, layers, tokens, width] (latents). Any other object is kept as
    bytes, losslessly.
    """

    shapes: tuple[tuple[int, ...], ...]
    types: tuple[str, ...]
    bytes: int

    @classmethod
    def of(cls, shapes: Sequence[Sequence[int]], types: Sequence[Any], size: int | None = None) -> ObjectForm:
        """``size``: the object's bytes, where they are known beside its shapes."""
        names = tuple(str(kind).removeprefix("torch.") for kind in types)
        forms = tuple(tuple(int(length) for length in shape) for shape in shapes)
        widths = [getattr(kind, "itemsize", None) or _size(name) for kind, name in zip(types, names, strict=True)]
        told = sum(math.prod(shape) * width for shape, width in zip(forms, widths, strict=True))
        return cls(forms, names, told if size is None else size)

    @cached_property
    def is_known(self) -> bool:
        """Whether its tensors are known, so that other modes than lossless make sense."""
        if len(self.shapes) != 1 or self.types[0] not in _ELEMENTS or len(self.shapes[0]) != 4:
            return False
        roles, layers, tokens, width = self.shapes[0]
        return (
            roles in (1, 2)
            and 0 < layers <= _LAYERS
            and tokens in _TOKENS
            and 0 < width <= _HEAD_DIM
            and self.bytes == roles * layers * tokens * width * self.layout.element.size
        )

    @property
    def page_tokens(self) -> int:
        return self.shapes[0][2] if self.is_known else _OPAQUE_TOKENS

    @cached_property
    def layout(self) -> Layout:
        element = _ELEMENTS.get(self.types[0], Element.E4M3) if len(set(self.types)) == 1 else Element.E4M3
        return Layout(element, Order.TENSOR_TOKEN_HEAD, Grouping.ROLES_APART)

    @cached_property
    def geometry(self) -> Geometry:
        """Heads are not told, and no mode without positions asks for them."""
        if not self.is_known:
            elements = -(-self.bytes // (_OPAQUE_TOKENS * self.layout.element.size))
            heads, width = (1, elements) if elements <= _BLOCK else (-(-elements // _BLOCK), _BLOCK)
            return Geometry([Tensor(0, Role.LATENT, heads=heads, head_dim=width)])
        roles, layers, _, width = self.shapes[0]
        if roles == 1:
            return Geometry([Tensor(layer, Role.LATENT, head_dim=width) for layer in range(layers)])
        return Geometry.from_heads(layers, 1, width, None)

    @cached_property
    def token_bytes(self) -> int:
        return self.geometry.elements() * self.layout.element.size

    def page(self, content: Any) -> np.ndarray:
        """A page of the object's bytes, which are the object's own memory where the page has no more."""
        flat = np.frombuffer(content, np.uint8)
        if flat.size != self.bytes:
            raise ValueError(f"an object of {flat.size} bytes where its shapes {self.shapes} have {self.bytes}")
        beyond = self.token_bytes * self.page_tokens - self.bytes
        return np.concatenate([flat, np.zeros(beyond, np.uint8)]) if beyond else flat

    def place(self, page: np.ndarray, content: Any) -> None:
        """Writes a page into the object."""
        flat = np.frombuffer(content, np.uint8)
        if flat.size != self.bytes:
            raise ValueError(f"room of {flat.size} bytes for an object of {self.bytes}")
        flat[...] = page[: self.bytes]


def object_form(item: Any) -> ObjectForm:
    """What a memory object says of itself."""
    about = item.metadata
    shapes, types = (about.shapes, about.dtypes) if about.shapes and about.dtypes else ([about.shape], [about.dtype])
    return ObjectForm.of(shapes, types, len(item.byte_array))


def object_key(key: Any) -> bytes:
    """All that LMCache names an object by, each part with its length before it."""
    parts = [
        key.model_name.encode(),
        struct.pack("<qq", key.kv_rank, key.object_group_id),
        key.cache_salt.encode(),
        bytes(key.chunk_hash),
    ]
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def _size(name: str) -> int:
    return _ELEMENTS[name].size if name in _ELEMENTS else np.dtype(name).itemsize
