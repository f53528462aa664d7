"""Tokens of an engine's cache into blocks, on the engine's device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..protocol.geometry import Element
from . import exact
from .blocks import MOST_TOKENS, assemble
from .cache import BITS, Cache, checked, dtype_of
from .decoder import Decoder, on
from .forward import Rows, coefficients, weigh
from .rate import LIMIT, Goal, Point, RateControl, overhead, predicted_step
from .writing import Job, write

_OUTLIER = 2.0
"""How much stronger than any held-out row a row must be to be kept exact."""
_IMMENSE = 1e30
"""Squared norms beyond which squares of floats would not stay finite."""
_SUM_LIMIT = 1 << 24
_ATTEMPTS = 3
_VERSION = 2


@dataclass(frozen=True)
class Page:
    """Tokens to be coded. ``slots``: as `Decoder.restore` has them; ``protected``: bool a token, of those that stay exact."""

    slots: np.ndarray
    first_position: int
    protected: np.ndarray | None = None


class Encoder:
    """Codes pages with a decoder's resident profile. ``rows``: tokens that are coded at once, which bound the memory."""

    def __init__(self, decoder: Decoder, *, rows: int = 4096) -> None:
        self._resident, self.rows = decoder.resident, rows
        self.profile, self.device = decoder.profile, decoder.device
        if self.device.type == "cuda":
            self._warm_up(decoder.element)

    def memory(self, rows: int | None = None) -> int:
        """Most bytes that are held beside the decoder's: rows as floats twice, coefficients and their products, words."""
        rows = min(rows or self.rows, self.rows)
        return int(rows * (14 * self.profile.row + 12 * self._resident.starts[-1]))

    def encode(
        self, pages: Sequence[Page], cache: Cache, *, ratio: float | None = None, distortion: float | None = None, keeps_outliers: bool = True,
        stream: Any = None,
    ) -> list[bytes | None]:  # fmt: skip
        """A block of mode `transform` for each page; None where it would not take half of the page's bytes or cannot keep the bound, so that
        the page is better kept as it is. ``ratio``: raw bytes of coded rows over those of the block without protected rows;
        ``distortion``: the squared error not to pass, over the energy that calibration saw; with both, less of the ratio.
        The cache holds every tensor of the profile. It runs on ``stream`` (torch's current one), and is over when it returns.

        Raises ValueError for a cache or goal that cannot be.
        """
        fits = (ratio is None or 1 <= ratio <= 1000) and (distortion is None or 0 < distortion <= 1)
        if not fits or (ratio is None and distortion is None):
            raise ValueError("a ratio of 1 to 1000, a distortion above 0 and up to 1, or both, is needed")
        goal, (element, capacity) = Goal(ratio, distortion), checked(cache, self.profile, is_whole=True)
        batches: list[list[Page]] = [[]]
        for page in pages:
            if not 1 <= len(page.slots) <= MOST_TOKENS:
                raise ValueError(f"a page of {len(page.slots)} tokens; 1 to {MOST_TOKENS} are allowed")
            if not 0 <= page.slots.min() <= page.slots.max() < capacity:
                raise ValueError(f"a slot that is none of the {capacity} of the cache")
            if batches[-1] and sum(len(one.slots) for one in batches[-1]) + len(page.slots) > self.rows:
                batches.append([])
            batches[-1].append(page)
        with on(self.device, stream):
            return [block for batch in batches if batch for block in self._encode(batch, cache, element, goal, keeps_outliers)]

    def _encode(self, pages: Sequence[Page], cache: Cache, element: Element, goal: Goal, keeps_outliers: bool) -> list[bytes | None]:
        starts = np.cumsum([0] + [len(page.slots) for page in pages])
        slots = np.concatenate([page.slots for page in pages])
        values, is_finite = self._gather(slots, cache)
        kept = [
            (page.protected.copy() if page.protected is not None else np.zeros(len(page.slots), bool)) | ~is_finite[begin:end]
            for page, begin, end in zip(pages, starts[:-1], starts[1:], strict=True)
        ]
        values[torch.from_numpy(~is_finite).to(self.device)] = 0
        positions = np.concatenate([page.first_position + np.arange(len(page.slots)) for page in pages])
        rows = weigh(self._resident, values, positions)
        strange = self._strange(rows, keeps_outliers)
        for own, begin in zip(kept, starts[:-1], strict=True):
            own |= strange[begin : begin + len(own)]
        step = float(np.exp2(predicted_step(self._resident, goal) / 64))
        y = coefficients(self._resident, rows, step)
        norms = rows.norms.cpu().numpy().astype(np.float64)
        sections: list[tuple[bytes, Point] | None] = [None] * len(pages)
        waiting = list(range(len(pages)))
        tighter = np.ones(len(pages))
        for _ in range(_ATTEMPTS):
            waiting = self._attempt(waiting, pages, kept, starts, y, norms, goal, element, tighter, sections)
            if not waiting:
                break
        return [self._block(*work, cache, element, goal) for work in zip(pages, kept, sections, strict=True)]

    def _attempt(
        self, waiting: Sequence[int], pages: Sequence[Page], kept: list[np.ndarray], starts: np.ndarray, y: Any, norms: np.ndarray, goal: Goal,
        element: Element, tighter: np.ndarray, sections: list[tuple[bytes, Point] | None],
    ) -> list[int]:  # fmt: skip
        """Codes the pages that wait; returns those whose rows turned out to need exactness, or that came out larger than asked."""
        coded = [page for page in waiting if not kept[page].all()]
        if not coded:
            return []
        lines = [starts[page] + np.flatnonzero(~kept[page]) for page in coded]
        firsts = np.cumsum([0] + [len(own) for own in lines])
        every = np.concatenate(lines)
        own_y = y if len(every) == len(y) else y[torch.from_numpy(every).to(self.device)]
        raw = [len(own) * self.profile.row * element.size / tighter[page] for own, page in zip(lines, coded, strict=True)]
        beside = [overhead(len(pages[page].slots), bool(kept[page].any())) for page in coded]
        points = RateControl(self._resident, own_y, firsts, norms[every]).search(goal, beside, raw)
        wild = self._wild(own_y, np.repeat([2.0 ** (point.step_index / 64) for point in points], np.diff(firsts)))
        again = []
        jobs, of = [], []
        groups_of = [-(-rank // 64) for rank in self._resident.ranks]
        for number, (page, point) in enumerate(zip(coded, points, strict=True)):
            own = wild[firsts[number] : firsts[number + 1]]
            if own.any():
                kept[page][np.flatnonzero(~kept[page])[own]] = True
                again.append(page)
            elif goal.distortion is None or point.distortion <= goal.distortion:
                jobs.append(Job(int(firsts[number]), point.step_index, point.options, point.shape, point.bits, groups_of))
                of.append((number, page))
        for (number, page), section in zip(of, write(self._resident, own_y, jobs), strict=True):
            size = len(section) + beside[number]
            if goal.ratio is not None and size * goal.ratio > raw[number] * tighter[page] and tighter[page] == 1:
                tighter[page] = 1.005
                again.append(page)
            sections[page] = (section, points[number])
        return again

    def _block(
        self, page: Page, kept: np.ndarray, coded: tuple[bytes, Point] | None, cache: Cache, element: Element, goal: Goal
    ) -> bytes | None:
        if coded is None or kept.all():
            return None
        section, point = coded
        rows = self._bits(page.slots[kept], cache)
        block = assemble(
            self.profile, element, len(page.slots), page.first_position, section, exact.pack(rows), version=_VERSION,
            step=float(np.exp2(point.step_index / 64)), distortion=point.distortion, is_exact=kept,
        )  # fmt: skip
        return block if len(block) * 2 <= len(page.slots) * self.profile.row * element.size else None

    def _warm_up(self, element: Element) -> None:
        """Compiles what coding needs."""
        dtype = dtype_of(element)
        cache = {
            (tensor.layer, tensor.role): torch.zeros((1, tensor.heads, 16, tensor.head_dim), dtype=torch.uint8, device=self.device).to(dtype)
            for tensor in self.profile.geometry.tensors
        }
        self.encode([Page(np.arange(16), 0)], cache, ratio=16, keeps_outliers=False)

    def _gather(self, slots: np.ndarray, cache: Cache) -> tuple[Any, np.ndarray]:
        """Rows as f32, and which are finite."""
        result = torch.empty((len(slots), self.profile.row), dtype=torch.float32, device=self.device)
        at = torch.from_numpy(slots).to(self.device)
        for number, tensor in enumerate(self.profile.geometry.tensors):
            view = cache[tensor.layer, tensor.role]
            own = result[:, self.profile.offsets[number] : self.profile.offsets[number + 1]]
            bits = view.view(BITS[view.element_size()])[at // view.shape[2], :, at % view.shape[2]]
            own.copy_(bits.view(view.dtype).reshape(len(slots), tensor.elements))
        return result, torch.isfinite(result).all(1).cpu().numpy()

    def _bits(self, slots: np.ndarray, cache: Cache) -> np.ndarray:
        """Rows as they are, [rows, elements] of an unsigned type."""
        at = torch.from_numpy(slots).to(self.device)
        parts = []
        for tensor in self.profile.geometry.tensors:
            view = cache[tensor.layer, tensor.role]
            bits = view.view(BITS[view.element_size()])[at // view.shape[2], :, at % view.shape[2]]
            parts.append(bits.reshape(len(slots), tensor.elements).cpu().numpy())
        whole = np.concatenate(parts, 1)
        return whole.view(np.dtype(f"u{whole.itemsize}"))

    def _strange(self, rows: Rows, keeps_outliers: bool) -> np.ndarray:
        """Rows far outside of what was calibrated on, and those whose squares are beyond floats."""
        strange = ~(rows.norms <= _IMMENSE)
        if keeps_outliers and self.profile.peaks:
            strange |= (rows.keys > _OUTLIER * self.profile.peaks[0]) | (rows.others > _OUTLIER * self.profile.peaks[1])
        return np.asarray(strange.cpu().numpy())

    def _wild(self, y: Any, steps: np.ndarray) -> np.ndarray:
        """Rows with a code at the limit, or with codes whose sum the decoder's integers cannot take."""
        size = y.abs()
        step = torch.from_numpy(steps.astype(np.float32)).to(self.device)
        wild = (size.amax(1) >= (LIMIT - 1) * step) | (size.sum(1) >= (_SUM_LIMIT - y.shape[1]) * step)
        return np.asarray(wild.cpu().numpy())
