"""The entropy-coded sections of several pages, laid out for the kernels of `rans.py`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .blocks import GROUP, BadBlock, Block, Section
from .kernels import decode as rans
from .resident import Resident, padded

_ALIGNED = 16


@dataclass
class Page:
    """A block whose coded rows are to be decoded: the first of ``rows`` is ``row`` of the part. ``codes``: instead of a section, codes by
    basis, int16 [components][rows], of the mode `kvtc`."""

    index: int
    block: Block
    row: int
    rows: int
    section: Section | None
    codes: list[np.ndarray] | None = None
    error: BadBlock | None = None

    @property
    def ranks(self) -> list[int]:
        return self.section.ranks if self.section else [len(codes) for codes in self.codes or []]

    @property
    def second_digit_bound(self) -> int:
        """What a component's `Basis.second_digit_levels` must reach for its second digit to count."""
        return 2 * self.section.step_index - 361 if self.section else -(1 << 29)


@dataclass
class Digits:
    """Codes as digits of base 256. ``low``, ``high``: int8 [rows][width]; ``terms``: by basis, the table of `product.inverse`."""

    low: Any
    high: Any
    terms: list[np.ndarray]


class Places:
    """Where in ``low`` and ``high`` the digits of a part's components go."""

    def __init__(self, resident: Resident, pages: Sequence[Page], wide: Sequence[int]) -> None:
        """``wide``: components, from the first on, that have room for high digits, by basis."""
        bases = range(len(resident.profile.bases))
        ranks = [max((page.ranks[basis] for page in pages), default=0) for basis in bases]
        bound = min((page.second_digit_bound for page in pages), default=0)
        low_at, high_at = np.zeros(len(resident.planes) + 1, np.int32), np.full(len(resident.planes) + 1, -1, np.int32)
        self.terms: list[list[list[int]]] = [[] for _ in bases]
        self.low_width = self.high_width = 0
        scales = np.array([2.0**used.plane.exponent for used in resident.planes], np.float32).view(np.int32)
        for number, used in enumerate(resident.planes):
            components = used.plane.components[: used.count]
            count = int(np.searchsorted(components, ranks[used.basis]))
            if used.plane.is_low:
                seconds = resident.host_seconds[resident.starts[used.basis] + components[:count]]
                count = int(np.searchsorted(-seconds, -bound, side="right"))
            above = min(count, int(np.searchsorted(components, wide[used.basis])))
            low_at[number], high_at[number] = self.low_width if count else -1, self.high_width if above else -1
            if count:
                self.terms[used.basis].append(
                    [self.low_width, padded(count), self.high_width, padded(above), used.at, int(scales[number]), -1, 0]
                )
            self.low_width += padded(count)
            self.high_width += padded(above)
        planes, indices = resident.digit_planes, resident.digit_indices
        low = np.where((planes >= 0) & (low_at[planes] >= 0), low_at[planes] + indices, -1)
        narrow = np.ones(resident.starts[-1], bool)
        for basis in bases:
            narrow[resident.starts[basis] : resident.starts[basis] + wide[basis]] = False
        high = np.where((low < 0) | narrow | (high_at[planes] < 0), -1, high_at[planes] + indices)
        self.table = np.concatenate([low, high]).astype(np.int32)


def wide_components(resident: Resident, pages: Sequence[Page]) -> list[int]:
    """By basis, how many leading components may have codes beyond a byte without an escape."""
    result = [0] * len(resident.profile.bases)
    for page in pages:
        for basis, options in enumerate(page.section.options if page.section else ()):
            assert page.section is not None
            levels = resident.profile.bases[basis].levels[: page.ranks[basis] : GROUP].astype(np.int32)
            octaves, wider = options & 3, (options >> 2 & 31).astype(np.int32)
            wider = np.where(wider >= 16, wider - 32, wider)
            number = np.clip((levels + 16 * wider - page.section.step_index - 64 * octaves + 256) >> 4, 0, 63)
            groups = np.flatnonzero((options != 0xFF) & ((number >> 2) - 5 + octaves >= 4))
            if len(groups):
                result[basis] = max(result[basis], min(int(groups[-1] + 1) * GROUP, page.ranks[basis]))
        if page.codes:
            result = [max(before, len(codes)) for before, codes in zip(result, page.codes, strict=True)]
    return result


class Symbols:
    """The codes of some pages, decoded basis by basis. A page whose section contradicts itself gets its `error` then; its rows are worth
    nothing from there on."""

    def __init__(self, resident: Resident, pages: Sequence[Page], rows: int) -> None:
        self._resident, self._pages, self._rows = resident, pages, rows
        self._coded = [page for page in pages if page.section]
        self._data, self._offsets = _upload([page.block.coded for page in self._coded], resident.device)
        self._done: set[int] = set()
        self.digits: Any = None
        self._make_room(wide_components(resident, pages))

    def decode(self, bases: Collection[int]) -> bool:
        """Sees to it that `digits` holds the codes of these bases; whether there was anything to do."""
        missing = set(bases) - self._done
        if missing and self._decode(missing):
            # Escapes far from what was calibrated: every component gets room.
            self._make_room(list(self._resident.ranks))
            self._decode(self._done | missing)
        self._done |= missing
        return bool(missing)

    def _make_room(self, wide: Sequence[int]) -> None:
        # Those of a first try are let go before there are others.
        self.digits = None
        self._places = places = Places(self._resident, self._pages, wide)
        low, high = (
            torch.zeros((self._rows, max(width, 64)), dtype=torch.int8, device=self._resident.device)
            for width in (places.low_width, places.high_width)
        )
        self.digits = Digits(low, high, [np.array(terms, np.int32).reshape(-1, 8) for terms in places.terms])
        self._table = torch.from_numpy(places.table).to(self._resident.device)
        for page in self._pages:
            if page.codes:
                _write_codes(self._resident, page, places, low, high)
        # One stream of all bases.
        self._has_first = any(page.block.version == 1 for page in self._coded)

    def _decode(self, bases: Collection[int]) -> bool:
        """Whether a code found no place."""
        again = False
        if self._has_first:
            again |= self._launch(1, range(len(self._resident.profile.bases)))
            self._has_first = False
        return self._launch(2, bases) or again

    def _launch(self, version: int, bases: Collection[int]) -> bool:
        resident, digits, device = self._resident, self.digits, self._resident.device
        own = [(page, offset) for page, offset in zip(self._coded, self._offsets, strict=True) if page.block.version == version]
        tables, lists, owner, listed = [], [], [], 0
        for index, (page, offset) in enumerate(own):
            numbers, own_lists = (_page_rows if version == 1 else _chunk_rows)(resident, page, offset, bases)
            numbers[:, 8] += listed
            listed += sum(map(len, own_lists))
            tables.append(numbers)
            lists += own_lists
            owner += [index] * (1 if version == 1 else len(numbers))
        if not owner:
            return False
        status = torch.empty(len(owner), dtype=torch.int32, device=device)
        bounds = torch.empty(len(owner), dtype=torch.int64, device=device)
        kernel = rans.decode_pages if version == 1 else rans.decode_chunks
        groups = np.concatenate([*lists, np.zeros(1, np.int32)]).astype(np.int32)
        kernel[(len(owner),)](
            self._data, torch.from_numpy(np.concatenate(tables)).to(device),
            len(resident.profile.bases) if version == 1 else torch.from_numpy(groups).to(device), resident.levels, resident.seconds,
            self._table, resident.starts[-1], resident.slots, digits.low, digits.high, digits.low.shape[1], digits.high.shape[1], status,
            bounds, num_warps=1, enable_fp_fusion=False,
        )  # fmt: skip
        return _judge(
            resident, [page for page, _ in own], bases, np.array(owner), status.cpu().numpy(), bounds.cpu().numpy(), digits, self._places
        )


def _judge(
    resident: Resident, pages: Sequence[Page], bases: Collection[int], owner: np.ndarray, status: np.ndarray, bounds: np.ndarray,
    digits: Digits, places: Places,
) -> bool:  # fmt: skip
    """Notes what is wrong with pages; whether any needs more room."""
    flags, bound = np.zeros(len(pages), np.int32), np.zeros(len(pages), np.int64)
    np.bitwise_or.at(flags, owner, status)
    np.add.at(bound, owner, bounds)
    for page, flag, largest in zip(pages, flags, bound, strict=True):
        if flag & rans.CORRUPT:
            page.error = BadBlock("entropy-coded stream")
        elif largest >= 1 << 24 and not flag and not _sums_fit(resident, page, bases, places, digits):
            page.error = BadBlock("codes too large")
    return bool(((flags & (rans.CORRUPT | rans.WIDE)) == rans.WIDE).any())


def _sums_fit(resident: Resident, page: Page, bases: Collection[int], places: Places, digits: Digits) -> bool:
    """Whether no row's absolute codes of a basis add up to 2^24, so that 32-bit sums of their products hold."""
    own, low, high = slice(page.row, page.row + page.rows), digits.low, digits.high
    for basis in bases:
        components = slice(resident.starts[basis], resident.starts[basis] + page.ranks[basis])
        total = torch.zeros(page.rows, dtype=torch.int64, device=low.device)
        at = torch.from_numpy(places.table[0, components]).to(low.device).long()
        above = torch.from_numpy(places.table[2, components]).to(low.device).long()
        codes = low[own][:, at].int() + torch.where(above >= 0, high[own][:, above.clamp(min=0)].int() * 256, 0)
        total += codes.abs().sum(1)
        if bool((total >= 1 << 24).any()):
            return False
    return True


def _write_codes(resident: Resident, page: Page, places: Places, low: Any, high: Any) -> None:
    own = slice(page.row, page.row + page.rows)
    for basis, codes in enumerate(page.codes or ()):
        components = slice(resident.starts[basis], resident.starts[basis] + len(codes))
        if (np.abs(codes.astype(np.int64)).sum(0) >= 1 << 24).any():
            page.error = BadBlock("codes too large")
        wide = codes.T.astype(np.int32)
        digit = ((wide + 128) & 255) - 128
        for number, values in enumerate((digit, (wide - digit) >> 8)):
            target = (low, high)[number]
            for at in places.table[2 * number : 2 * number + 2, components]:
                has = np.flatnonzero(at >= 0)
                columns = torch.from_numpy(at[has]).to(low.device).long()
                target[own, columns] = torch.from_numpy(values[:, has].astype(np.int8)).to(low.device)


def _upload(parts: Sequence[memoryview], device: Any) -> tuple[Any, list[int]]:
    """The parts one after another on the device, each at a multiple of 16 bytes."""
    offsets, size = [], 0
    for part in parts:
        offsets.append(size)
        size += -(-len(part) // _ALIGNED) * _ALIGNED
    target = torch.empty(max(size, _ALIGNED), dtype=torch.uint8, device=device)
    for part, offset in zip(parts, offsets, strict=True):
        copy_from(np.frombuffer(part, np.uint8), target[offset : offset + len(part)])
    return target, offsets


def copy_from(source: np.ndarray, target: Any) -> None:
    """From where it lies: at full speed and beside the processor if the memory is pinned. It must not change until the stream is there."""
    target.copy_(torch.from_numpy(source if source.flags.writeable else source.copy()), non_blocking=True)


def _rows_of(resident: Resident, page: Page, offset: int, count: int) -> np.ndarray:
    numbers = np.zeros((count, rans.FIELDS), np.int64)
    numbers[:, 2], numbers[:, 3], numbers[:, 11] = page.rows, page.row, page.section.step_index if page.section else 0
    return numbers


def _page_rows(resident: Resident, page: Page, offset: int, bases: Collection[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Of version 1, by basis: 0 where the words begin, 1 how many they are, 2 rows, 3 the first row, 4 where the raw bits begin, 5 their bytes,
    6 components, 9 where the options begin, 10 the first component of all, 11 the step's index."""
    section = page.section
    assert section is not None
    numbers = _rows_of(resident, page, offset, len(section.ranks))
    numbers[:, 0], numbers[:, 1] = offset + section.words, section.word_count
    numbers[:, 4], numbers[:, 5] = offset + section.words + 2 * section.word_count, section.bits
    at = offset + 12
    for basis, rank in enumerate(section.ranks):
        numbers[basis, 6], numbers[basis, 9], numbers[basis, 10] = rank, at + 4, resident.starts[basis]
        at += 4 + len(section.options[basis])
    return numbers, []


def _chunk_rows(resident: Resident, page: Page, offset: int, bases: Collection[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Of version 2, by chunk of these bases: as above, but 1 the chunk's words, 4 states, 5 the first set and 6 the end of them, 7 active
    components, 8 where the list of groups that are not cut begins."""
    section = page.section
    assert section is not None
    numbers = _rows_of(resident, page, offset, len(section.ends))
    begins = np.concatenate([[0], section.ends[:-1]])
    numbers[:, 0], numbers[:, 1] = offset + section.words + 2 * begins, section.ends - begins
    wanted, lists, first, at, listed = np.zeros(len(numbers), bool), [], 0, offset + 4, 0
    for basis, count in enumerate(section.chunks_of):
        own = numbers[first : first + count]
        wanted[first : first + count] = basis in bases
        groups, active, lanes = section.active(basis), section.active_components(basis), section.lanes[basis]
        sets = -(-active // lanes)
        cuts = np.arange(count + 1) * sets // max(count, 1)
        own[:, 4], own[:, 5], own[:, 6], own[:, 7], own[:, 8] = lanes, cuts[:-1], cuts[1:], active, listed
        own[:, 9], own[:, 10] = at + 8, resident.starts[basis]
        lists.append(groups.astype(np.int32))
        listed += len(groups)
        first += count
        at += -(-(8 + len(section.options[basis])) // 4) * 4
    return numbers[wanted], lists
