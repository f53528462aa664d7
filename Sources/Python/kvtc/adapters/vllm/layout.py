"""How vLLM's attention layers keep K and V, as tensors that name a token's row, and how a page of kvtcd has them.

vLLM hands over one tensor a layer, [blocks, head slots, tokens, content] whatever the order in memory. What its content is, is up to the
attention backend, and said nowhere: it is looked at. The backend itself writes rows that are known into the block that no request
ever has (number 0), and where they are not found as expected, nothing is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...protocol.geometry import Element, Geometry, Grouping, Layout, Order, Role, Tensor

_ELEMENTS = {
    "torch.float16": Element.F16,
    "torch.bfloat16": Element.BF16,
    "torch.float32": Element.F32,
    "torch.float8_e4m3fn": Element.E4M3,
    "torch.float8_e5m2": Element.E5M2,
}
_BYTES = {"fp8": Element.E4M3, "fp8_e4m3": Element.E4M3, "fp8_e5m2": Element.E5M2}
"""What is in a tensor of single bytes, by vLLM's name of the cache's type."""
NULL_BLOCK = 0
"""Stands in block tables for tokens that a layer does not keep."""


class UnknownLayout(ValueError):
    """The engine's memory is not understood; the message says what of it."""


@dataclass(frozen=True)
class Layer:
    """One attention layer. ``keys`` and ``values``: views into vLLM's memory, [blocks, heads, tokens of a block, head_dim]."""

    names: tuple[str, ...]
    keys: Any
    values: Any

    @property
    def elements(self) -> tuple[int, int]:
        """Values of a token: keys', values'."""
        heads = self.keys.shape[1]
        return heads * self.keys.shape[3], heads * self.values.shape[3]


@dataclass(frozen=True)
class GroupCache:
    """The layers that share a block table. In a page the layers follow one another, in each K, then V, [heads][tokens][head_dim]."""

    layers: Mapping[int, Layer]
    element: Element
    #: Tokens of a block of the attention kernels, and how many of those vLLM's block is.
    block_tokens: int
    split: int = 1

    @property
    def layout(self) -> Layout:
        return Layout(self.element, Order.TENSOR_HEAD_TOKEN, Grouping.LAYER_PAIRS)

    @property
    def geometry(self) -> Geometry:
        """Without RoPE: its frequencies decide nothing unless there is a profile, which has them."""
        tensors = []
        for number, layer in self.layers.items():
            heads = layer.keys.shape[1]
            tensors.append(Tensor(number, Role.KEY, heads=heads, head_dim=layer.keys.shape[3]))
            tensors.append(Tensor(number, Role.VALUE, heads=heads, head_dim=layer.values.shape[3]))
        return Geometry(tensors)

    @property
    def token_bytes(self) -> int:
        return sum(sum(layer.elements) for layer in self.layers.values()) * self.element.size

    def number(self, name: str) -> int | None:
        """The number of the layer that vLLM calls so."""
        return next((number for number, layer in self.layers.items() if name in layer.names), None)

    def gather(self, blocks: Sequence[int], pages: int) -> Any:
        """A copy of the blocks as pages, on the device where they are [pages, bytes of a page]."""
        import torch

        first = next(iter(self.layers.values())).keys
        blocks = self._kernel_blocks(blocks)
        each = len(blocks) // pages
        tokens = each * self.block_tokens
        result = torch.empty((pages, tokens * self.token_bytes // self.element.size), dtype=first.dtype, device=first.device)
        index = torch.tensor(blocks, device=first.device)
        offset = 0
        for layer in self.layers.values():
            for view in (layer.keys, layer.values):
                _, heads, size, width = view.shape
                into = result[:, offset : offset + heads * tokens * width].view(pages, heads, each, size, width)
                into.copy_(view[index].view(pages, each, heads, size, width).transpose(1, 2))
                offset += heads * tokens * width
        return result.view(torch.uint8)

    def scatter(self, data: Any, layers: range, blocks: Sequence[int]) -> None:
        """Writes these layers of a page (a tensor of bytes, on any device) into its blocks, in order; not into block 0."""
        first = next(iter(self.layers.values())).keys
        flat = data.to(first.device).view(first.dtype)
        blocks = self._kernel_blocks(blocks)
        offset = 0
        for number, layer in self.layers.items():
            if number not in layers:
                continue
            for view in (layer.keys, layer.values):
                _, heads, size, width = view.shape
                count = heads * len(blocks) * size * width
                rows = flat[offset : offset + count].view(heads, len(blocks), size, width)
                for place, block in enumerate(blocks):
                    if block >= self.split:
                        view[block].copy_(rows[:, place])
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
        layers[number] = _layer(tuple(names_of), cache, spec, modules.get(names_of[0]), compute_type)
    some = next(iter(layers.values())).keys
    element = _ELEMENTS.get(str(some.dtype)) or (_BYTES.get(cache_type) if some.element_size() == 1 else None)
    if element is None:
        raise UnknownLayout(f"a cache of {some.dtype} ({cache_type}) is none that kvtcd knows")
    if any(layer.keys.dtype != some.dtype or layer.keys.shape[2] != some.shape[2] for layer in layers.values()):
        raise UnknownLayout("the layers of one group differ in element type or in tokens a block")
    tokens = int(some.shape[2])
    return GroupCache(layers, element, tokens, next(iter(specs.values())).block_size // tokens)


def _numbers(names: Sequence[str]) -> list[int]:
    """The layers' own numbers where each name has one and no two the same, else their order."""
    found = [re.findall(r"(?:^|\.)(\d+)(?:\.|$)", name) for name in names]
    numbers = [int(match[0]) for match in found if len(match) == 1]
    return numbers if len(set(numbers)) == len(names) else list(range(len(names)))


def _layer(names: tuple[str, ...], cache: Any, spec: Any, module: Any, compute_type: Any) -> Layer:
    kind = type(spec).__name__
    if kind not in ("FullAttentionSpec", "SlidingWindowSpec", "ChunkedLocalAttentionSpec"):
        raise UnknownLayout(f"{names[0]} keeps a {kind}, which is not K and V of each token")
    if spec.kv_quant_mode.name not in ("NONE", "FP8_PER_TENSOR"):
        raise UnknownLayout(f"{names[0]}'s cache is quantised in a way that is not known here ({spec.kv_quant_mode.name})")
    heads, width, value_width = spec.num_kv_heads, spec.head_size, spec.head_size_v
    shape = tuple(cache.shape)
    if len(shape) != 4 or shape[1::2] != (heads, width + value_width) or spec.block_size % shape[2]:
        raise UnknownLayout(f"{names[0]}'s cache is {shape}, not [blocks, {heads}, {spec.block_size}, {width + value_width}]")
    tried = []
    for form in (_side_by_side, _keys_transposed):
        if views := form(cache, shape[2], width):
            layer = Layer(names, *views)
            if _is_right(layer, cache, module, compute_type):
                return layer
            tried.append(form.__name__.strip("_").replace("_", " "))
    raise UnknownLayout(f"{names[0]}'s backend writes rows in none of the orders known here ({', '.join(tried)})")


def _side_by_side(cache: Any, tokens: int, width: int) -> tuple[Any, Any]:
    """A head's K and V of a token follow one another."""
    return cache[..., :width], cache[..., width:]


def _keys_transposed(cache: Any, tokens: int, width: int) -> tuple[Any, Any] | None:
    """vLLM's CPU backend: a head of a block is K as [head_dim][tokens], then V as [tokens][head_dim]."""
    blocks, heads, _, both = cache.shape
    if both != 2 * width or not cache[0].is_contiguous():
        return None
    halves = cache.view(blocks, heads, 2, tokens * width)
    return halves[:, :, 0].unflatten(-1, (width, tokens)).transpose(-1, -2), halves[:, :, 1].unflatten(-1, (tokens, width))


def _is_right(layer: Layer, cache: Any, module: Any, compute_type: Any) -> bool:
    """Whether rows that the backend writes into block 0 are where the views have them. Leaves zeros there."""
    import torch

    write = getattr(getattr(module, "impl", None), "do_kv_cache_update", None)
    if write is None:
        raise UnknownLayout(f"{layer.names[0]}'s backend cannot be asked where it puts a row")
    _, heads, tokens, width = layer.keys.shape
    source = torch.Generator().manual_seed(1)
    # Small whole numbers: every element type holds them exactly.
    rows = [torch.randint(-8, 9, (tokens, heads, size), generator=source).float() for size in (width, layer.values.shape[3])]
    given = [
        (row * scale).to(compute_type).to(cache.device)
        for row, scale in zip(rows, kv_scales(module) if cache.element_size() == 1 else (1.0, 1.0), strict=True)
    ]
    try:
        write(module, *given, cache, torch.arange(tokens, dtype=torch.int64, device=cache.device))
        return all(
            torch.equal(_numbers_in(view[NULL_BLOCK], module).cpu(), row.transpose(0, 1))
            for view, row in zip((layer.keys, layer.values), rows, strict=True)
        )
    finally:
        cache[NULL_BLOCK].zero_()


def kv_scales(module: Any) -> tuple[float, float]:
    """What the stored numbers of a layer are multiplied by: keys', values'."""
    return float(getattr(module, "_k_scale_float", 1.0)), float(getattr(module, "_v_scale_float", 1.0))


def _numbers_in(stored: Any, module: Any) -> Any:
    import torch

    if stored.element_size() > 1:
        return stored.float()
    is_e5m2 = _BYTES.get(str(getattr(module, "kv_cache_dtype", ""))) == Element.E5M2
    return stored.view(torch.float8_e5m2 if is_e5m2 else torch.float8_e4m3fn).float()
