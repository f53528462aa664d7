"""How a group of vLLM's state-space layers is pages of kvtcd: one state for all tokens up to a page's end, kept exactly.

Block n of such a group holds the state after the last of its tokens; of a step's blocks only the one at which it ends holds any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...protocol.geometry import Element, Geometry, Grouping, Layout, Order, Role, Tensor
from .attention import NULL_BLOCK, UnknownLayout

_WIDEST = 8192
"""Values of a head, at most, for kvtcd."""


@dataclass(frozen=True)
class States:
    """The states of all layers of a group: their bytes [blocks, bytes], a tensor a layer."""

    names: tuple[str, ...]
    bytes: tuple[Any, ...]


@dataclass(frozen=True)
class StateCache:
    """To kvtcd the states of a page are numbers of 32 bits, as many for each of its tokens. ``form``: what the bytes are."""

    states: States
    page_tokens: int
    form: str

    @property
    def layers(self) -> Mapping[int, States]:
        """One for all: they are of use together only."""
        return {0: self.states}

    @property
    def layout(self) -> Layout:
        return Layout(Element.F32, Order.TENSOR_TOKEN_HEAD, Grouping.LAYER_PAIRS)

    @property
    def geometry(self) -> Geometry:
        values = self.token_bytes // Element.F32.size
        heads = next(count for count in range(1, values + 1) if values % count == 0 and values // count <= _WIDEST)
        return Geometry([Tensor(0, Role.KEY, heads=heads, head_dim=values // heads)])

    @property
    def token_bytes(self) -> int:
        size = Element.F32.size
        count: int = sum(part.shape[1] for part in self.states.bytes)
        return -(-count // (self.page_tokens * size)) * size

    @property
    def device(self) -> Any:
        return self.states.bytes[0].device

    def number(self, name: str) -> int | None:
        return 0 if name in self.states.names else None

    def cells(self, pages: Sequence[Sequence[int]], free: Any = None) -> None:
        """States are kept exactly."""

    def kept(self, blocks: Sequence[int]) -> bool:
        return blocks[-1] != NULL_BLOCK

    def gather(self, blocks: Sequence[int], pages: int) -> Any:
        """As `GroupCache.gather`: the states at the end of each page, then zeros."""
        import torch

        each = len(blocks) // pages
        last = torch.tensor(blocks[each - 1 :: each], device=self.device)
        result = torch.zeros((pages, self.page_tokens * self.token_bytes), dtype=torch.uint8, device=self.device)
        offset = 0
        for part in self.states.bytes:
            result[:, offset : offset + part.shape[1]] = part[last]
            offset += part.shape[1]
        return result

    def scatter(self, data: Any, layers: range, blocks: Sequence[int]) -> None:
        """As `GroupCache.scatter`, into the last block."""
        if not self.kept(blocks):
            return
        flat, offset = data.to(self.device), 0
        for part in self.states.bytes:
            part[blocks[-1]] = flat[offset : offset + part.shape[1]]
            offset += part.shape[1]


def is_state(spec: Any) -> bool:
    """Whether a `KVCacheSpec` is that of layers with one state instead of K and V of each token."""
    return type(spec).__name__ == "MambaSpec"


def state_cache(names: Sequence[str], caches: Mapping[str, Any], specs: Mapping[str, Any], page_tokens: int) -> StateCache:
    """``caches``, ``specs``: by layer, the bytes that vLLM registers, [blocks, 1, 1, bytes], and its `MambaSpec`. Raises UnknownLayout."""
    import torch

    states, form = [], []
    for name in names:
        spec, given = specs[name], caches.get(name)
        if spec.mamba_cache_mode == "none":
            raise UnknownLayout(f"{name} keeps no state but the last: start vLLM with --enable-prefix-caching")
        if spec.num_speculative_blocks:
            raise UnknownLayout(f"{name} keeps states of tokens that are only guessed (speculative decoding)")
        if page_tokens % spec.block_size:
            raise UnknownLayout(f"pages of {page_tokens} tokens are not whole blocks of {name}'s {spec.block_size}")
        size = spec.state_content_size_bytes
        if not isinstance(given, torch.Tensor) or given.dim() != 4 or given.element_size() != 1 or given[0].numel() < size:
            raise UnknownLayout(f"{name}'s states are not {size} bytes of each block")
        states.append(given.view(torch.uint8).squeeze((1, 2))[:, :size])
        form.append(f"{spec.shapes} {spec.dtypes}")
    return StateCache(States(tuple(names), tuple(states)), page_tokens, "; ".join(form))
