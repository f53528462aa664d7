"""Blocks into an engine's cache, on the engine's device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..protocol.geometry import Element, Role
from ..protocol.policy import Mode
from . import angles, exact, published, selftest
from .blocks import BadBlock, parse, section
from .inverse import Inverse, fastest
from .kernels.finish import finish
from .profile import Profile
from .resident import Resident, Strip, padded
from .sections import Digits, Page, copy_from, decode

SLAB = 8192
"""Rows that are made into elements at once: their sums are what decoding takes beside the codes."""
EXACT_BYTES = 256 << 20
"""Most bytes of exact rows that are on the device at once, unless one page has more."""
FINISH_ROWS = 64
_ELEMENTS = {
    torch.float16: Element.F16, torch.bfloat16: Element.BF16, torch.float32: Element.F32, torch.float8_e4m3fn: Element.E4M3,
    torch.float8_e5m2: Element.E5M2,
}  # fmt: skip
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32}
Cache = Mapping[tuple[int, Role], Any]
"""By layer and role, a view of the engine's memory [blocks, heads, tokens of a block, head_dim], with whatever strides it has."""


@dataclass
class Restored:
    """What became of some blocks. ``failed``: those that are misses, by index, and why; their slots are as they were.
    ``events``: on a GPU, by layer, one that is over when the layer's tensors are written."""

    failed: dict[int, BadBlock] = field(default_factory=dict)
    events: dict[int, Any] = field(default_factory=dict)

    def wait(self, layer: int, stream: Any = None) -> None:
        """Has a stream (torch's current one) wait until a layer is there."""
        if event := self.events.get(layer):
            (stream or torch.cuda.current_stream(event.device)).wait_event(event)


@dataclass
class _Part:
    """Pages that are decoded together, and the bytes of their exact rows."""

    pages: list[Page] = field(default_factory=list)
    exact: list[np.ndarray] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(page.rows for page in self.pages)

    @property
    def exact_bytes(self) -> int:
        return sum(kept.nbytes for kept in self.exact)


@dataclass(frozen=True)
class _Ready:
    """A part's codes, and of each coded row its step, slot and angles."""

    digits: Digits
    rows: int
    steps: Any
    slots: Any
    angles: Any


@dataclass(frozen=True)
class _Exact:
    """Rows of whole elements: bytes [rows][bytes of a row] on the device, where they go, and where those of each page begin."""

    rows: Any
    slots: np.ndarray
    begins: np.ndarray


class Decoder:
    """Decodes blocks of one profile into a cache of one element type. ``rank``: components of each basis that are kept on the device (all):
    what the ratio in use needs; ``rows``: coded rows that are decoded at once, which bound the memory (`memory`); ``product``: how integers
    are multiplied, one of `inverse.PRODUCTS`: the one that is fastest on the device. All give the same bits, which is shown before
    anything is decoded, and what decoding needs is compiled then.

    Raises NotExact.
    """

    def __init__(
        self, profile: Profile, device: Any, element: Element, *, rank: int | None = None, rows: int = 32_768, product: str | None = None
    ) -> None:
        self.profile, self.device, self.element = profile, torch.device(device), element
        with on(self.device):
            self.resident = Resident(profile, self.device, rank)
            self.rows, self.inverse = rows, Inverse(self.device, product or fastest(self.resident))
            selftest.check(self, element, dtype_of(element))

    def memory(self, rows: int | None = None) -> int:
        """Most bytes that are held: those of the profile, and of so many coded rows at a time."""
        rows = padded(min(rows or self.rows, self.rows), 32)
        widest = max((strip.columns for strips in self.resident.layers.values() for strip in strips), default=0)
        sums = 4 + 4 * self.inverse.given_planes(self.resident)
        return self.resident.bytes + rows * 2 * sum(self.resident.widths) + min(rows, SLAB) * widest * sums + 2 * EXACT_BYTES

    def restore(
        self, blocks: Sequence[Any], slots: Sequence[np.ndarray], cache: Cache, *, is_verified: bool = False, stream: Any = None
    ) -> Restored:
        """Writes blocks into the cache. ``slots``: for each block, for each of its tokens, the block of the cache times the tokens of one,
        plus the token's place in it; −1: not wanted. ``is_verified``: whether the daemon vouches for the checksums, as it does for what it
        says is a hit. The processor waits until symbols are decoded, for what is wrong with them; the rest runs on ``stream``."""
        with on(self.device, stream):
            return self._restore(blocks, slots, cache, is_verified)

    def _restore(self, blocks: Sequence[Any], slots: Sequence[np.ndarray], cache: Cache, is_verified: bool) -> Restored:
        result = Restored()
        if (element := element_of(cache)) != self.element:
            raise ValueError(f"a cache of {element.name}; this decoder was made for {self.element.name}")
        part = _Part()
        for index, (data, own) in enumerate(zip(blocks, slots, strict=True)):
            try:
                page, kept = self._open(index, memoryview(data).cast("B"), np.asarray(own, np.int64), element, is_verified)
            except BadBlock as error:
                result.failed[index] = error
                continue
            if part.rows + page.rows > self.rows or part.exact_bytes + kept.nbytes > EXACT_BYTES:
                self._finish(part, slots, cache, element, result)
                part = _Part()
            page.row = part.rows
            part.pages.append(page)
            part.exact.append(kept)
        self._finish(part, slots, cache, element, result)
        return result

    def _open(self, index: int, data: memoryview, slots: np.ndarray, element: Element, is_verified: bool) -> tuple[Page, np.ndarray]:
        """A page, and its exact rows' bytes."""
        block = parse(data, self.profile, is_verified=is_verified)
        if block.element != element:
            raise BadBlock(f"the block holds {block.element.name}, the cache {element.name}")
        if len(slots) != block.tokens:
            raise BadBlock(f"the block has {block.tokens} tokens, not {len(slots)}")
        page = Page(index, block, 0, len(block.coded_rows), None)
        kept = exact.rows(block, self.profile.row)
        if block.mode in (Mode.QUANT8, Mode.QUANT4):
            whole = np.empty((block.tokens, kept.shape[1]), np.uint8)
            whole[block.is_exact], whole[~block.is_exact] = kept, exact.quantised(block, self.profile.row)
            block.is_exact[:] = True
            return Page(index, block, 0, 0, None), whole
        if block.mode == Mode.KVTC:
            page.codes = published.codes(block, self.profile.bases)
        elif block.mode == Mode.TRANSFORM:
            page.section = section(block, self.profile.bases)
        for rank, most in zip(page.ranks, self.resident.ranks, strict=False):
            if rank > most:
                raise BadBlock(f"{rank} components; {most} are kept on the device")
        return page, kept

    def _finish(self, part: _Part, slots: Sequence[np.ndarray], cache: Cache, element: Element, result: Restored) -> None:
        """Everything of one part's pages."""
        places = [np.asarray(slots[page.index], np.int64) for page in part.pages]
        kept = self._upload_exact(part, places)
        coded = [page for page in part.pages if page.rows]
        rows = padded(part.rows, 32)
        digits = decode(self.resident, coded, rows) if coded else None
        if self.device.type == "cuda":
            # What was copied may be changed from here on.
            torch.cuda.current_stream().synchronize()
        result.failed |= {page.index: page.error for page in part.pages if page.error}
        for begin, page in zip(kept.begins, part.pages, strict=True):
            if page.error:
                kept.slots[begin : begin + int(page.block.is_exact.sum())] = -1
        if kept.slots.size and kept.slots.min() < 0:
            wanted = np.flatnonzero(kept.slots >= 0)
            kept = replace(kept, rows=kept.rows[torch.from_numpy(wanted).to(self.device)], slots=kept.slots[wanted])
        exact_slots = torch.from_numpy(kept.slots).to(self.device)
        targets, steps, positions = np.full(rows, -1, np.int64), np.zeros(rows, np.float32), np.zeros(rows, np.int64)
        for page, own in zip(part.pages, places, strict=True):
            mine, which = slice(page.row, page.row + page.rows), page.block.coded_rows
            if not page.error:
                targets[mine] = own[which]
            steps[mine], positions[mine] = page.block.step, page.block.first_position + which
        ready = None
        if digits:
            table = angles.table(positions, self.profile.rope_tables, self.device)
            ready = _Ready(digits, rows, torch.from_numpy(steps).to(self.device), torch.from_numpy(targets).to(self.device), table)
        for layer, strips in self.resident.layers.items():
            for strip in strips:
                if ready:
                    self._write(strip, ready, cache, element)
                for number, _ in strip.tensors:
                    self._write_exact(number, kept.rows, exact_slots, cache)
            if self.device.type == "cuda":
                result.events[layer] = torch.cuda.Event(enable_timing=True)
                result.events[layer].record()

    def _write(self, strip: Strip, ready: _Ready, cache: Cache, element: Element) -> None:
        """The coded rows of a strip's tensors."""
        wanted = [(number, first) for number, first in strip.tensors if self._view(number, cache) is not None]
        if not wanted:
            return
        for begin in range(0, ready.rows, SLAB):
            rows = min(SLAB, ready.rows - begin)
            x = self.inverse.sums(strip, ready.digits, ready.steps, begin, rows)
            for number, column in wanted:
                self._store(number, column, x, ready, begin, rows, cache, element)

    def _store(
        self, number: int, first: int, x: Any, ready: _Ready, begin: int, rows: int, cache: Cache, element: Element
    ) -> None:
        tensor, shape = self.profile.geometry.tensors[number], self.resident.shapes[number]
        view = self._view(number, cache)
        block, head, token, width = view.stride()
        at = self.profile.offsets[number]
        finish[(-(-rows // FINISH_ROWS), tensor.heads * shape.tile_count)](
            x, x.shape[1], first, self.resident.matrices[self.resident.matrix_firsts[number] :] if shape.matrix_values else x,
            self.resident.weights[at:], self.resident.means[at:], ready.angles[begin:], ready.angles.shape[1], ready.slots[begin:], view,
            rows, shape.tiles, shape.pairs, tensor.head_dim, shape.matrix_values, view.shape[2], block, head, token, width,
            shape.tile_count, ROWS=FINISH_ROWS, PAIRS=shape.pair_count, HAS_MATRIX=self.profile.inverse_root is not None,
            ELEMENT=int(element), enable_fp_fusion=False,
        )  # fmt: skip

    def _upload_exact(self, part: _Part, places: Sequence[np.ndarray]) -> _Exact:
        begins = np.cumsum([0] + [len(rows) for rows in part.exact])
        target = torch.empty((int(begins[-1]), self.profile.row * self.element.size), dtype=torch.uint8, device=self.device)
        for rows, begin in zip(part.exact, begins[:-1], strict=True):
            copy_from(rows, target[begin : begin + len(rows)])
        slots = [own[page.block.is_exact] for own, page in zip(places, part.pages, strict=True)]
        return _Exact(target, np.concatenate([*slots, np.zeros(0, np.int64)]), begins[:-1])

    def _write_exact(self, number: int, rows: Any, slots: Any, cache: Cache) -> None:
        view = self._view(number, cache)
        if view is None or not len(rows):
            return
        tensor, at, size = self.profile.geometry.tensors[number], self.profile.offsets[number], self.element.size
        chosen = rows[:, at * size : (at + tensor.elements) * size].contiguous().view(view.dtype)
        view[slots // view.shape[2], :, slots % view.shape[2]] = chosen.view(-1, tensor.heads, tensor.head_dim)

    def _view(self, number: int, cache: Cache) -> Any:
        """A tensor's place in the cache, as bits."""
        tensor = self.profile.geometry.tensors[number]
        view = cache.get((tensor.layer, tensor.role))
        return None if view is None else view.view(BITS[view.element_size()])


@contextmanager
def on(device: Any, stream: Any = None) -> Iterator[None]:
    """What runs within it runs there: kernels are launched on the current device, on torch's current stream without another one."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device), torch.cuda.stream(stream):
        yield


def dtype_of(element: Element) -> Any:
    """torch's type of an element."""
    return next(dtype for dtype, own in _ELEMENTS.items() if own == element)


def element_of(cache: Cache) -> Element:
    """Raises ValueError."""
    types = {view.dtype for view in cache.values()}
    if len(types) != 1 or (element := _ELEMENTS.get(next(iter(types)))) is None:
        raise ValueError(f"a cache of {types}; one of {list(_ELEMENTS)} is needed")
    return element
