"""How one of vLLM's attention layers keeps K and V: looked at, as nothing says it.

vLLM hands over one tensor a layer, [blocks, head slots, tokens, content] whatever the order in memory. What its content is, is up to the
attention backend, and said nowhere. The backend itself writes rows that are known into the block that no request ever has (number 0), and
where they are not found as expected, nothing is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...protocol.geometry import Element

BYTES = {"fp8": Element.E4M3, "fp8_e4m3": Element.E4M3, "fp8_e5m2": Element.E5M2}
"""What is in a tensor of single bytes, by vLLM's name of the cache's type."""
NULL_BLOCK = 0
"""Stands in block tables for tokens that a layer does not keep."""


class UnknownLayout(ValueError):
    """The engine's memory is not understood; the message says what of it."""


@dataclass(frozen=True)
class Viewed:
    """Rows that a view of the cache has in order: [blocks, heads, tokens of a block, head_dim]."""

    view: Any

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return tuple(self.view.shape)

    def take(self, blocks: Any) -> Any:
        """The rows of these blocks (a tensor of numbers), copied."""
        return self.view[blocks]

    def put(self, block: int, rows: Any) -> None:
        """``rows``: [heads, tokens, head_dim]."""
        self.view[block].copy_(rows)


@dataclass(frozen=True)
class Placed:
    """Rows whose elements lie here and there in a block, at the same ``places`` in each. ``flat``: [blocks, elements]."""

    flat: Any
    places: Any
    shape: tuple[int, int, int, int]

    def take(self, blocks: Any) -> Any:
        return self.flat[blocks][:, self.places].view(len(blocks), *self.shape[1:])

    def put(self, block: int, rows: Any) -> None:
        self.flat[block, self.places] = rows.reshape(-1)


Rows = Viewed | Placed


@dataclass(frozen=True)
class Layer:
    """One attention layer: the rows of its K and V."""

    names: tuple[str, ...]
    keys: Rows
    values: Rows

    @property
    def rows(self) -> tuple[Rows, Rows]:
        return self.keys, self.values

    @property
    def elements(self) -> int:
        """Values of a token."""
        return sum(rows.shape[1] * rows.shape[3] for rows in self.rows)


def attention_layer(names: tuple[str, ...], cache: Any, spec: Any, module: Any, compute_type: Any) -> Layer:
    """The layer of these names, whose cache, `KVCacheSpec` and attention module are given. Raises UnknownLayout."""
    kind = type(spec).__name__
    if kind not in ("FullAttentionSpec", "SlidingWindowSpec", "ChunkedLocalAttentionSpec"):
        raise UnknownLayout(f"{names[0]} keeps a {kind}, which is not K and V of each token")
    if spec.kv_quant_mode.name not in ("NONE", "FP8_PER_TENSOR"):
        raise UnknownLayout(f"{names[0]}'s cache is quantised in a way that is not known here ({spec.kv_quant_mode.name})")
    heads, width, value_width = spec.num_kv_heads, spec.head_size, spec.head_size_v
    shape = tuple(cache.shape)
    if len(shape) != 4 or shape[1::2] != (heads, width + value_width) or spec.block_size % shape[2]:
        raise UnknownLayout(f"{names[0]}'s cache is {shape}, not [blocks, {heads}, {spec.block_size}, {width + value_width}]")
    writer = _Writer(cache, (heads, shape[2]), (width, value_width), module, compute_type, names[0])
    for form in (_side_by_side, _keys_transposed, _placed):
        if (rows := form(writer)) and writer.finds(*rows):
            return Layer(names, *rows)
    raise UnknownLayout(f"{names[0]}'s backend keeps something else than the numbers of K and V, each in a place of its own")


def kv_scales(module: Any) -> tuple[float, float]:
    """What the stored numbers of a layer are multiplied by: keys', values'."""
    return float(getattr(module, "_k_scale_float", 1.0)), float(getattr(module, "_v_scale_float", 1.0))


class _Writer:
    """Has the backend write rows into block 0, which it leaves with zeros. ``shape``: heads, tokens of a block."""

    def __init__(
        self, cache: Any, shape: tuple[int, int], widths: tuple[int, int], module: Any, compute_type: Any, name: str
    ) -> None:
        self.cache, self.widths, self._module, self._type = cache, widths, module, compute_type
        self.heads, self.tokens = shape
        self._write: Any = getattr(getattr(module, "impl", None), "do_kv_cache_update", None)
        if self._write is None:
            raise UnknownLayout(f"{name}'s backend cannot be asked where it puts a row")

    @property
    def exact(self) -> int:
        """Every element type holds the whole numbers below this exactly."""
        return 8 if self.cache.element_size() == 1 else 128

    def write(self, keys: Any, values: Any) -> None:
        """Both [tokens, heads, head_dim], whole numbers."""
        import torch

        scales = kv_scales(self._module) if self.cache.element_size() == 1 else (1.0, 1.0)
        given = [(rows * scale).to(self._type).to(self.cache.device) for rows, scale in zip((keys, values), scales, strict=True)]
        self._write(self._module, *given, self.cache, torch.arange(self.tokens, dtype=torch.int64, device=self.cache.device))

    def clear(self) -> None:
        self.cache[NULL_BLOCK].zero_()

    def numbers(self, stored: Any) -> Any:
        """What is stored, as the whole numbers that it stands for."""
        import torch

        if stored.element_size() == 1:
            is_e5m2 = BYTES.get(str(getattr(self._module, "kv_cache_dtype", ""))) == Element.E5M2
            stored = stored.view(torch.float8_e5m2 if is_e5m2 else torch.float8_e4m3fn)
        return stored.float().cpu()

    def finds(self, keys: Rows, values: Rows) -> bool:
        """Whether rows that the backend writes are where these have them."""
        import torch

        source = torch.Generator().manual_seed(1)
        given = [
            torch.randint(1 - self.exact, self.exact, (self.tokens, self.heads, width), generator=source).float()
            for width in self.widths
        ]
        try:
            self.write(*given)
            block = torch.tensor([NULL_BLOCK], device=self.cache.device)
            return all(
                torch.equal(self.numbers(rows.take(block)[0]), row.transpose(0, 1))
                for rows, row in zip((keys, values), given, strict=True)
            )
        finally:
            self.clear()


def _side_by_side(writer: _Writer) -> tuple[Rows, Rows]:
    """A head's K and V of a token follow one another."""
    width, _ = writer.widths
    return Viewed(writer.cache[..., :width]), Viewed(writer.cache[..., width:])


def _keys_transposed(writer: _Writer) -> tuple[Rows, Rows] | None:
    """vLLM's CPU backend: a head of a block is K as [head_dim][tokens], then V as [tokens][head_dim]."""
    cache, tokens, (width, value_width) = writer.cache, writer.tokens, writer.widths
    if width != value_width or not cache[0].is_contiguous():
        return None
    halves = cache.view(cache.shape[0], writer.heads, 2, tokens * width)
    keys = halves[:, :, 0].unflatten(-1, (width, tokens)).transpose(-1, -2)
    return Viewed(keys), Viewed(halves[:, :, 1].unflatten(-1, (tokens, width)))


def _placed(writer: _Writer) -> tuple[Rows, Rows] | None:
    """Any order, such as the tiles of matrix units: each element is given its number, a digit at a time, and found by it."""
    import torch

    cache, heads, tokens = writer.cache, writer.heads, writer.tokens
    if not cache[0].is_contiguous():
        return None
    counts = [tokens * heads * width for width in writer.widths]
    ids = torch.arange(sum(counts))
    found, unit = torch.zeros(len(ids), dtype=torch.int64), 1
    try:
        while unit < len(ids):
            digits = (ids // unit % writer.exact).float().split(counts)
            writer.write(*(part.view(tokens, heads, -1) for part in digits))
            found += writer.numbers(cache[NULL_BLOCK]).flatten().long() * unit
            unit *= writer.exact
    finally:
        writer.clear()
    if not torch.equal(found.sort().values, ids):
        return None
    flat = cache.view(cache.shape[0], -1)
    keys, values = (
        Placed(flat, part.view(tokens, heads, -1).transpose(0, 1).reshape(-1).to(cache.device), (len(cache), heads, tokens, width))
        for part, width in zip(found.argsort().split(counts), writer.widths, strict=True)
    )
    return keys, values
