"""Blocks into an engine's cache, on the engine's device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..protocol.geometry import Element
from ..protocol.policy import Mode
from . import angles, exact, published, selftest
from .blocks import BadBlock, parse, section
from .cache import BITS, Cache, checked, dtype_of
from .inverse import Inverse, fastest
from .kernels.finish import finish
from .profile import Profile
from .resident import Resident, Strip, padded
from .sections import Digits, Page, Symbols, copy_from

SLAB = 8192
"""Rows that are made into elements at once: their sums are what decoding takes beside the codes."""
EXACT_BYTES = 256 << 20
"""Most bytes of exact rows that are on the device at once, unless one page has more."""
FINISH_ROWS = 64
Reached = Callable[[int, Any], None]
"""Takes a layer and the event, on a GPU, that is over when the layer's tensors are written."""


@dataclass
class Restored:
    """What became of some blocks. ``failed``: those that are misses, by index, and why; their slots are as they were, but for the layers
    of earlier bases where the symbols of a later one contradict themselves.
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
    """Of each coded row of a part its step, slot and angles."""

    rows: int
    steps: Any
    slots: Any
    angles: Any


@dataclass(frozen=True)
class _Exact:
    """Rows of whole elements: bytes [rows][bytes of a row] on the device, and, by row, the slot and the index of its page."""

    rows: Any
    slots: Any
    pages: np.ndarray


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

    def check(self, cache: Cache, *, is_whole: bool = False) -> tuple[Element, int]:
        """As `cache.checked`, and whether it is of the element type that this was made for. Raises ValueError."""
        element, slots = checked(cache, self.profile, is_whole=is_whole)
        if element != self.element:
            raise ValueError(f"a cache of {element.name}; this decoder was made for {self.element.name}")
        return element, slots

    def restore(
        self, blocks: Sequence[Any], slots: Sequence[np.ndarray], cache: Cache, *, is_verified: bool = False, stream: Any = None,
        reached: Reached | None = None,
    ) -> Restored:  # fmt: skip
        """Writes blocks into the cache. ``slots``: for each block, for each of its tokens, the block of the cache times the tokens of one,
        plus the token's place in it; −1: not wanted. ``is_verified``: whether the daemon vouches for the checksums, as it does for what it
        says is a hit. The processor waits until symbols are decoded, those of one basis after those of the one before, for what is wrong
        with them; the rest runs on ``stream``. ``reached``: told of each layer and its event, as soon as nothing of it is left to start."""
        with on(self.device, stream):
            return self._restore(blocks, slots, cache, is_verified, reached)

    def _restore(
        self, blocks: Sequence[Any], slots: Sequence[np.ndarray], cache: Cache, is_verified: bool, reached: Reached | None
    ) -> Restored:
        result, part = Restored(), _Part()
        element, capacity = self.check(cache)
        if max((int(np.max(own, initial=-1)) for own in slots), default=-1) >= capacity:
            raise ValueError(f"a slot beyond the {capacity} of the cache")
        for index, (data, own) in enumerate(zip(blocks, slots, strict=True)):
            try:
                page, kept = self._open(index, memoryview(data).cast("B"), np.asarray(own, np.int64), element, is_verified)
            except BadBlock as error:
                result.failed[index] = error
                continue
            if part.rows + page.rows > self.rows or part.exact_bytes + kept.nbytes > EXACT_BYTES:
                self._finish(part, slots, cache, element, result, None)
                part = _Part()
            page.row = part.rows
            part.pages.append(page)
            part.exact.append(kept)
        self._finish(part, slots, cache, element, result, reached)
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

    def _finish(
        self, part: _Part, slots: Sequence[np.ndarray], cache: Cache, element: Element, result: Restored, reached: Reached | None
    ) -> None:
        """Everything of one part's pages. Layers wait for the symbols of their own bases, and are written without those of others."""
        places = [np.asarray(slots[page.index], np.int64) for page in part.pages]
        kept = self._upload_exact(part, places)
        coded = [page for page in part.pages if page.rows]
        symbols = Symbols(self.resident, coded, padded(part.rows, 32)) if coded else None
        ready, known = self._ready(part, symbols) if symbols else None, -1
        for layer, strips in self.resident.layers.items():
            if symbols:
                symbols.decode({strip.basis for strip in strips})
            bad = {page.index: page.error for page in part.pages if page.error}
            if len(bad) > known:
                if self.device.type == "cuda":
                    # What was copied may be changed from here on.
                    torch.cuda.current_stream().synchronize()
                result.failed |= bad
                known, kept = len(bad), self._wanted(kept, part)
                if ready:
                    ready = replace(ready, slots=self._coded_slots(part, places, ready.rows))
            for strip in strips:
                if ready and symbols:
                    self._write(strip, symbols.digits, ready, cache, element)
                for number, _ in strip.tensors:
                    self._write_exact(number, kept, cache)
            if self.device.type == "cuda":
                result.events[layer] = torch.cuda.Event(enable_timing=True)
                result.events[layer].record()
            if reached:
                reached(layer, result.events.get(layer))

    def _ready(self, part: _Part, symbols: Symbols) -> _Ready:
        rows = len(symbols.digits.low)
        steps, positions = np.zeros(rows, np.float32), np.zeros(rows, np.int64)
        for page in part.pages:
            mine = slice(page.row, page.row + page.rows)
            steps[mine], positions[mine] = page.block.step, page.block.first_position + page.block.coded_rows
        table = angles.table(positions, self.profile.rope_tables, self.device)
        return _Ready(rows, torch.from_numpy(steps).to(self.device), None, table)

    def _coded_slots(self, part: _Part, places: Sequence[np.ndarray], rows: int) -> Any:
        targets = np.full(rows, -1, np.int64)
        for page, own in zip(part.pages, places, strict=True):
            if not page.error:
                targets[page.row : page.row + page.rows] = own[page.block.coded_rows]
        return torch.from_numpy(targets).to(self.device)

    def _write(self, strip: Strip, digits: Digits, ready: _Ready, cache: Cache, element: Element) -> None:
        """The coded rows of a strip's tensors."""
        wanted = [(number, first) for number, first in strip.tensors if self._view(number, cache) is not None]
        if not wanted:
            return
        for begin in range(0, ready.rows, SLAB):
            rows = min(SLAB, ready.rows - begin)
            x = self.inverse.sums(strip, digits, ready.steps, begin, rows)
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
        pages = np.repeat([page.index for page in part.pages], np.diff(begins))
        return _Exact(target, torch.from_numpy(np.concatenate([*slots, np.zeros(0, np.int64)])).to(self.device), pages)

    def _wanted(self, kept: _Exact, part: _Part) -> _Exact:
        """Without those that go nowhere, or are of bad pages."""
        bad = [page.index for page in part.pages if page.error]
        wanted = np.flatnonzero((kept.slots.cpu().numpy() >= 0) & ~np.isin(kept.pages, bad))
        if len(wanted) == len(kept.pages):
            return kept
        at = torch.from_numpy(wanted).to(self.device)
        return _Exact(kept.rows[at], kept.slots[at], kept.pages[wanted])

    def _write_exact(self, number: int, kept: _Exact, cache: Cache) -> None:
        view = self._view(number, cache)
        if view is None or not len(kept.rows):
            return
        tensor, at, size = self.profile.geometry.tensors[number], self.profile.offsets[number], self.element.size
        chosen = kept.rows[:, at * size : (at + tensor.elements) * size].contiguous().view(view.dtype)
        view[kept.slots // view.shape[2], :, kept.slots % view.shape[2]] = chosen.view(-1, tensor.heads, tensor.head_dim)

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
