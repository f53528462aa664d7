"""A host pool's memory as pages of kvtcd: which layouts are known, and where in the pool the bytes of a page lie."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
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
_POOLS = ("MHATokenToKVPoolHost", "AsymmetricMHATokenToKVPoolHost", "MLATokenToKVPoolHost")
_LAYOUTS = ("page_first_direct", "page_first", "layer_first")


class HostPages:
    """The pages of one of SGLang's host pools. ``lossless_only``: why no other mode makes sense of their bytes; empty where one does.

    Raises ValueError, in a sentence, for a pool that is none of those known here or not what its kind should be.
    """

    def __init__(self, pool: Any) -> None:
        self.kind, self.name = type(pool).__name__, pool.layout
        self.page_tokens, self._size = int(pool.page_size), int(pool.size)
        self._check(pool)
        self.is_latent = self.kind == "MLATokenToKVPoolHost"
        self.lossless_only = ""
        element = self._element(pool)
        self._buffers = [_bytes(buffer) for buffer in self._tensors(pool)]
        self.geometry = self._geometry(pool)
        self.token_bytes = self.geometry.elements() * element.size
        # What a token has of all layers lies together in this one, what a layer has of all tokens in the others.
        self._by_token = self.name == "page_first"
        order = Order.TOKEN_TENSOR_HEAD if self._by_token else Order.TENSOR_TOKEN_HEAD
        self.layout = Layout(element, order, Grouping.ROLES_APART)
        for buffer, shape in zip(self._buffers, self._shapes(pool, element.size), strict=True):
            if buffer.shape != shape:
                raise ValueError(f"the host pool's memory has the shape {buffer.shape} where {self.name} has {shape}")

    def page(self, index: int) -> np.ndarray:
        """The bytes of the page whose first slot that is, as ``layout`` says; a copy, or the pool's own memory."""
        views = self._views(index)
        rows = self.page_tokens if self._by_token else 1
        if len(views) == 1:
            return np.ascontiguousarray(views[0]).reshape(-1)
        return np.concatenate([view.reshape(rows, -1) for view in views], axis=1).reshape(-1)

    def place(self, index: int, page: np.ndarray) -> None:
        """Writes a page's bytes where ``page`` reads them."""
        rows = page.reshape(self.page_tokens if self._by_token else 1, -1)
        begin = 0
        for view in self._views(index):
            width = view.size // len(rows)
            view[...] = rows[:, begin : begin + width].reshape(view.shape)
            begin += width

    def first_slots(self, indices: Sequence[int] | Any, count: int) -> list[int]:
        """The first slot of each of so many pages. Raises ValueError for slots that are no such pages of the pool."""
        slots = np.asarray(indices, np.int64)
        if slots.shape != (count * self.page_tokens,):
            raise ValueError(f"{slots.shape} slots are not {count} pages of {self.page_tokens}")
        pages = slots.reshape(-1, self.page_tokens)
        firsts = pages[:, 0]
        if (pages != firsts[:, None] + np.arange(self.page_tokens)).any() or (firsts % self.page_tokens).any():
            raise ValueError("slots of a page do not lie one behind another")
        if len(firsts) and (firsts.min() < 0 or firsts.max() + self.page_tokens > self._size):
            raise ValueError(f"slots outside of a pool of {self._size}")
        return [int(first) for first in firsts]

    def _check(self, pool: Any) -> None:
        if self.kind not in _POOLS:
            raise ValueError(f"kvtc knows no host pool {self.kind}; it knows {', '.join(_POOLS)}")
        if self.name not in _LAYOUTS:
            raise ValueError(f"kvtc knows no layout {self.name!r}: start with --hicache-mem-layout {' or '.join(_LAYOUTS[:2])}")
        if getattr(pool, "dcp_size", 1) != 1:
            raise ValueError("kvtc keeps no pages that decode-context-parallel ranks share")
        if pool.layer_num != getattr(pool, "target_layer_num", pool.layer_num):
            raise ValueError("the pool's pages hold layers of a draft model, too, whose weights kvtc cannot tell")
        if getattr(pool, "kv_buffer", None) is None:
            raise ValueError("the host pool has no memory of its own")

    def _element(self, pool: Any) -> Element:
        name = str(pool.dtype).removeprefix("torch.")
        if name in _ELEMENTS:
            return _ELEMENTS[name]
        if name == "uint8":
            # fp8 as SGLang stores it, of either kind, or a row that it packed itself.
            self.lossless_only = "the cache holds fp8 values as plain bytes, which other modes cannot read"
            return Element.E4M3
        raise ValueError(f"kvtc knows no cache of {name}; it knows {', '.join(_ELEMENTS)} and uint8")

    def _tensors(self, pool: Any) -> list[Any]:
        return [pool.k_buffer, pool.v_buffer] if self.kind.startswith("Asymmetric") else [pool.kv_buffer]

    def _geometry(self, pool: Any) -> Geometry:
        """Without RoPE: no mode uses it without a profile, and a profile has its own."""
        layers, first = int(pool.layer_num), int(pool.start_layer or 0)
        if self.is_latent:
            if pool.kv_cache_dim != pool.kv_lora_rank + pool.qk_rope_head_dim:
                self.lossless_only = f"rows of {pool.kv_cache_dim} elements are packed in a way that other modes cannot read"
            return Geometry([Tensor(layer, Role.LATENT, head_dim=int(pool.kv_cache_dim)) for layer in range(first, first + layers)])
        value_dim = int(getattr(pool, "v_head_dim", None) or pool.head_dim)
        return Geometry.from_heads(
            layers, int(pool.head_num), int(pool.head_dim), None, value_dim=value_dim, first_layer=first
        )

    def _shapes(self, pool: Any, size: int) -> list[tuple[int, ...]]:
        """What the buffers should be, with bytes as the last axis."""
        layers, tokens = int(pool.layer_num), self.page_tokens
        leading = {
            "layer_first": (layers, self._size),
            "page_first": (self._size, layers),
            "page_first_direct": (self._size // tokens, layers, tokens),
        }[self.name]
        if self.is_latent:
            return [(*leading, 1, pool.kv_cache_dim * size)]
        heads = int(pool.head_num)
        if self.kind.startswith("Asymmetric"):
            return [(*leading, heads, pool.head_dim * size), (*leading, heads, pool.v_head_dim * size)]
        return [(2, *leading, heads, pool.head_dim * size)]

    def _views(self, index: int) -> list[np.ndarray]:
        """The page's bytes in the pool, each of them in the order of the page, side by side in each of its rows."""
        tokens = self.page_tokens
        has_roles = self._buffers[0].ndim == (6 if self.name == "page_first_direct" else 5)
        before = (slice(None),) if has_roles else ()
        at: tuple[Any, ...] = {
            "layer_first": (slice(None), slice(index, index + tokens)),
            "page_first": (slice(index, index + tokens),),
            "page_first_direct": (index // tokens,),
        }[self.name]
        views = [buffer[(*before, *at)] for buffer in self._buffers]
        return [view.swapaxes(0, 1) for view in views] if has_roles and self._by_token else views


def _bytes(tensor: Any) -> np.ndarray:
    """The tensor's memory, as bytes along its last axis: numpy knows not all of its types."""
    if isinstance(tensor, np.ndarray):
        return tensor.view(np.uint8)
    return np.asarray(tensor.view(import_module("torch").uint8).numpy())
