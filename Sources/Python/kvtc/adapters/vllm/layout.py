"""How a group of vLLM's layers, which share a block table, is pages of kvtcd."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...protocol.geometry import Element, Geometry, Grouping, Layout, Order, Role, Tensor
from ..codec import Cells, moment
from .attention import BYTES, NULL_BLOCK, Layer, UnknownLayout, Viewed, attention_layer

_ELEMENTS = {
    "torch.float16": Element.F16,
    "torch.bfloat16": Element.BF16,
    "torch.float32": Element.F32,
    "torch.float8_e4m3fn": Element.E4M3,
    "torch.float8_e5m2": Element.E5M2,
}


@dataclass(frozen=True)
class GroupCache:
    """K and V of each token. In a page the layers follow one another, in each K, then V, [heads][tokens][head_dim].

    ``tensor``: the cache of one of the layers.
    """

    layers: Mapping[int, Layer]
    element: Element
    tensor: Any
    #: Tokens of a block of the attention kernels, and how many of those vLLM's block is.
    block_tokens: int
    split: int = 1

    @property
    def layout(self) -> Layout:
        return Layout(self.element, Order.TENSOR_HEAD_TOKEN, Grouping.LAYER_PAIRS)

    @property
    def geometry(self) -> Geometry:
        """Without RoPE: its frequencies decide nothing unless there is a profile, which has them."""
        return Geometry(
            [
                Tensor(number, role, heads=rows.shape[1], head_dim=rows.shape[3])
                for number, layer in self.layers.items()
                for role, rows in zip((Role.KEY, Role.VALUE), layer.rows, strict=True)
            ]
        )

    @property
    def token_bytes(self) -> int:
        return sum(layer.elements for layer in self.layers.values()) * self.element.size

    @property
    def device(self) -> Any:
        return self.tensor.device

    def number(self, name: str) -> int | None:
        """The number of the layer that vLLM calls so."""
        return next((number for number, layer in self.layers.items() if name in layer.names), None)

    def kept(self, blocks: Sequence[int]) -> bool:
        """Whether a page of these blocks can be sent."""
        return NULL_BLOCK not in blocks

    def cells(self, pages: Sequence[Sequence[int]], free: Any = None) -> Cells | None:
        """Where the pages of these blocks are, from that event on; block 0 is not wanted. None where rows lie here and there."""
        cache = {}
        for number, layer in self.layers.items():
            for role, rows in zip((Role.KEY, Role.VALUE), layer.rows, strict=True):
                if not isinstance(rows, Viewed):
                    return None
                cache[number, role] = rows.view.view(self.type)
        size = self.block_tokens * self.split
        within = np.arange(size)
        slots = [
            np.concatenate([within + block * size if block != NULL_BLOCK else np.full(size, -1) for block in blocks]) for blocks in pages
        ]
        return Cells(cache, slots, free)

    def copied_cells(self, copies: Any) -> Cells:
        """Where pages are in what `gather` has just given."""
        flat, cache, offset = copies.view(self.type), {}, 0
        pages, tokens = len(copies), copies.shape[1] // self.token_bytes
        for number, layer in self.layers.items():
            for role, rows in zip((Role.KEY, Role.VALUE), layer.rows, strict=True):
                _, heads, _, width = rows.shape
                cache[number, role] = flat[:, offset : offset + heads * tokens * width].view(pages, heads, tokens, width)
                offset += heads * tokens * width
        return Cells(cache, [np.arange(tokens) + page * tokens for page in range(pages)], moment(self.device))

    @property
    def type(self) -> Any:
        """torch's type of an element, which vLLM's own tensor may have as bytes."""
        import torch

        return next(getattr(torch, name.removeprefix("torch.")) for name, element in _ELEMENTS.items() if element == self.element)

    def gather(self, blocks: Sequence[int], pages: int) -> Any:
        """A copy of the blocks as pages, on the device where they are [pages, bytes of a page]."""
        import torch

        blocks = self._kernel_blocks(blocks)
        each = len(blocks) // pages
        size = each * self.block_tokens * self.token_bytes // self.element.size
        result = torch.empty((pages, size), dtype=self.tensor.dtype, device=self.device)
        index = torch.tensor(blocks, device=self.device)
        offset = 0
        for layer in self.layers.values():
            for rows in layer.rows:
                _, heads, tokens, width = rows.shape
                count = heads * each * tokens * width
                into = result[:, offset : offset + count].view(pages, heads, each, tokens, width)
                into.copy_(rows.take(index).view(pages, each, heads, tokens, width).transpose(1, 2))
                offset += count
        return result.view(torch.uint8)

    def scatter(self, data: Any, layers: range, blocks: Sequence[int]) -> None:
        """Writes these layers of a page (a tensor of bytes, on any device) into its blocks, in order; not into block 0."""
        flat = data.to(self.device).view(self.tensor.dtype)
        blocks = self._kernel_blocks(blocks)
        offset = 0
        for number, layer in self.layers.items():
            if number not in layers:
                continue
            for rows in layer.rows:
                _, heads, tokens, width = rows.shape
                count = heads * len(blocks) * tokens * width
                given = flat[offset : offset + count].view(heads, len(blocks), tokens, width)
                for place, block in enumerate(blocks):
                    if block >= self.split:
                        rows.put(block, given[:, place])
                offset += count

    def _kernel_blocks(self, blocks: Sequence[int]) -> list[int]:
        return [block * self.split + part for block in blocks for part in range(self.split)]


def group_cache(
    names: Sequence[str],
    caches: Mapping[str, Any],
    specs: Mapping[str, Any],
    modules: Mapping[str, Any],
    cache_type: str,
    compute_type: Any,
) -> GroupCache:
    """``caches``, ``specs``, ``modules``: by layer, what vLLM registers, its `KVCacheSpec` and its attention module. ``cache_type``:
    vLLM's name of the cache's type; ``compute_type``: the model's.

    Raises UnknownLayout.
    """
    found: dict[int, tuple[list[str], Any, Any]] = {}
    for name in names:
        if name not in caches:
            raise UnknownLayout(f"vLLM registers no cache for {name}")
        # Layers may share one cache.
        names_of, _, _ = found.setdefault(caches[name].data_ptr(), ([], caches[name], specs[name]))
        names_of.append(name)
    numbers = _numbers([names_of[0] for names_of, _, _ in found.values()])
    layers = {}
    for number, (names_of, cache, spec) in sorted(zip(numbers, found.values(), strict=True), key=lambda item: item[0]):
        layers[number] = attention_layer(tuple(names_of), cache, spec, modules.get(names_of[0]), compute_type)
    some = caches[names[0]]
    element = _ELEMENTS.get(str(some.dtype)) or (BYTES.get(cache_type) if some.element_size() == 1 else None)
    if element is None:
        raise UnknownLayout(f"a cache of {some.dtype} ({cache_type}) is none that kvtcd knows")
    if any(caches[name].dtype != some.dtype or caches[name].shape[2] != some.shape[2] for name in names):
        raise UnknownLayout("the layers of one group differ in element type or in tokens a block")
    tokens = int(some.shape[2])
    return GroupCache(layers, element, some, tokens, next(iter(specs.values())).block_size // tokens)


def _numbers(names: Sequence[str]) -> list[int]:
    """The layers' own numbers where each name has one and no two the same, else their order."""
    found = [re.findall(r"(?:^|\.)(\d+)(?:\.|$)", name) for name in names]
    numbers = [int(match[0]) for match in found if len(match) == 1]
    return numbers if len(set(numbers)) == len(names) else list(range(len(names)))
