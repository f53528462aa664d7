"""An engine's cache, as coding and decoding see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..protocol.geometry import Element, Role
from .profile import Profile

Cache = Mapping[tuple[int, Role], Any]
"""By layer and role, a view of the engine's memory [blocks, heads, tokens of a block, head_dim], with whatever strides it has."""
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32}
"""What elements of so many bytes are moved as."""
_ELEMENTS = {
    torch.float16: Element.F16, torch.bfloat16: Element.BF16, torch.float32: Element.F32, torch.float8_e4m3fn: Element.E4M3,
    torch.float8_e5m2: Element.E5M2,
}  # fmt: skip


def dtype_of(element: Element) -> Any:
    """torch's type of an element."""
    return next(dtype for dtype, own in _ELEMENTS.items() if own == element)


def checked(cache: Cache, profile: Profile, *, is_whole: bool = False) -> tuple[Element, int]:
    """The element type, and how many slots every tensor has. ``is_whole``: no tensor of the profile may be missing.

    Raises ValueError where kernels would read or write something else than tensors of the profile.
    """
    slots = []
    for tensor in profile.geometry.tensors:
        view = cache.get((tensor.layer, tensor.role))
        if view is not None and (view.dim() != 4 or tuple(view.shape[1::2]) != (tensor.heads, tensor.head_dim)):
            raise ValueError(
                f"the {tensor.role.name.lower()} of layer {tensor.layer} is {list(view.shape)}, "
                f"not [blocks, {tensor.heads}, tokens, {tensor.head_dim}]"
            )
        if view is not None:
            slots.append(view.shape[0] * view.shape[2])
        elif is_whole:
            raise ValueError(f"the cache lacks the {tensor.role.name.lower()} of layer {tensor.layer}")
    types = {view.dtype for view in cache.values()}
    if len(types) != 1 or (element := _ELEMENTS.get(next(iter(types)))) is None:
        raise ValueError(f"a cache of {types}; one of {list(_ELEMENTS)} is needed")
    return element, min(slots, default=0)
