"""Which step a page's blocks take: what coding costs at a step is counted on the device, for all pages at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .blocks import GROUP, HEADER
from .kernels.measure import measure
from .profile import CLASSES, SYMBOLS
from .resident import Resident
from .writing import Shape, shape_of

LIMIT = 16_383
"""Codes beyond this are not coded: their row is kept exact instead."""
_OFFSETS = 8
"""Classes around the calibrated one that a group of components may take."""
_FINEST, _COARSEST = -1600, 1600


@dataclass(frozen=True)
class Goal:
    """The ratio to reach, the squared error over the expected energy not to pass, or both: then the finer of the two."""

    ratio: float | None = None
    distortion: float | None = None


@dataclass(frozen=True)
class Point:
    """A page's step, the options of its groups by basis, how its section is cut, 64ths of a bit of each group, and the error."""

    step_index: int
    options: list[np.ndarray]
    shape: Shape
    bits: np.ndarray
    distortion: float


class RateControl:
    """``y``: coefficients [rows][components]; ``firsts``: each page's first row and the end; ``norms``: squared ones of all rows."""

    def __init__(self, resident: Resident, y: Any, firsts: Sequence[int] | np.ndarray, norms: np.ndarray) -> None:
        self._resident, self._y, self._norms = resident, y, norms
        self._firsts = np.asarray(firsts, np.int32)
        self._pages = len(firsts) - 1
        self._known: dict[tuple[int, int], int] = {}
        self._groups_of: list[int] = []
        first: list[int] = []
        size: list[int] = []
        for start, rank in zip(resident.starts, resident.ranks, strict=False):
            self._groups_of.append(-(-rank // GROUP))
            first += range(start, start + rank, GROUP)
            size += [min(GROUP, rank - at) for at in range(0, rank, GROUP)]
        self._groups = len(first)
        frequencies = resident.profile.frequencies
        costs = np.rint(64 * (12 - np.log2(frequencies))).astype(np.int32).reshape(CLASSES * SYMBOLS)
        self._constant = [self._on(np.array(values, np.int32)) for values in (first, size)]
        self._costs, self._device_firsts = self._on(costs), self._on(self._firsts)
        self._offsets = np.zeros((self._pages, self._groups), np.int32)

    def search(self, goal: Goal, exact_bytes: Sequence[int], raw_bytes: Sequence[int]) -> list[Point]:
        """``exact_bytes``: of a block beside the coded section and the protected rows; ``raw_bytes``: of a page's coded rows."""
        finest = _finest(self._resident)
        guess = np.full(self._pages, max(predicted_step(self._resident, goal), finest), np.int32)
        bits, _, _ = self._measure(guess, _OFFSETS)
        self._offsets = (bits.cpu().numpy().argmin(2) - _OFFSETS // 2).astype(np.int32)
        beside, raw = np.asarray(exact_bytes), np.asarray(raw_bytes)
        low, high = np.full(self._pages, finest, np.int32), np.full(self._pages, _COARSEST, np.int32)
        # The finest step that is coarse enough for the ratio; for a bound alone the coarsest within it.
        while (high - low > 1).any():
            middle = (low + high) // 2
            bits, distortions = self._cost(middle)
            is_coarse = np.zeros(self._pages, bool)
            if goal.ratio is not None:
                is_coarse |= (self._fixed_bytes(middle) + -(-bits // 512) + beside) * goal.ratio <= raw
            if goal.distortion is not None:
                is_coarse |= distortions > goal.distortion
            low, high = np.where(is_coarse, low, middle), np.where(is_coarse, middle, high)
        chosen = high
        if goal.distortion is not None:
            chosen = np.where(self._cost(high)[1] <= goal.distortion, high, low)
        return self._points(chosen)

    def _on(self, values: np.ndarray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._y.device)

    def _measure(self, steps: np.ndarray, offsets: int) -> tuple[Any, Any, Any]:
        """Bits [pages][groups][offsets], errors and energies [pages][groups]."""
        shape = (self._pages, self._groups)
        bits = torch.empty((*shape, offsets), dtype=torch.int64, device=self._y.device)
        errors, energies = (torch.empty(shape, dtype=torch.float32, device=self._y.device) for _ in range(2))
        sizes = np.exp2(steps.astype(np.float64) / 64).astype(np.float32)
        measure[shape](
            self._y, self._y.shape[1], self._device_firsts, self._resident.levels, *self._constant, self._on(steps), self._on(sizes),
            self._on(1 / sizes), self._on(self._offsets), self._costs, self._groups, bits, errors, energies,
            OFFSETS=offsets, ROWS=16, enable_fp_fusion=False,
        )  # fmt: skip
        return bits, errors, energies

    def _cost(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each page, 64ths of a bit and the distortion."""
        bits, errors, energies = self._measure(steps.astype(np.int32), 1)
        return bits.sum((1, 2)).cpu().numpy(), self._distortions(errors, energies)

    def _distortions(self, errors: Any, energies: Any) -> np.ndarray:
        sums = torch.stack([errors.double().sum(1), energies.double().sum(1)]).cpu().numpy()
        rows = np.diff(self._firsts)
        totals = np.add.reduceat(self._norms, self._firsts[:-1])
        return np.asarray((sums[0] + np.abs(totals - sums[1])) / (self._resident.profile.energy * np.maximum(rows, 1)))

    def _ranks(self, step: int) -> list[int]:
        return [min(basis.rank_at(step), most) for basis, most in zip(self._resident.profile.bases, self._resident.ranks, strict=True)]

    def _fixed_bytes(self, steps: np.ndarray) -> np.ndarray:
        """Of sections beside the bits."""
        result = []
        for step, rows in zip(steps.tolist(), np.diff(self._firsts).tolist(), strict=True):
            if (step, rows) not in self._known:
                self._known[step, rows] = shape_of(self._ranks(step), rows).fixed_bytes
            result.append(self._known[step, rows])
        return np.array(result)

    def _points(self, steps: np.ndarray) -> list[Point]:
        bits, errors, energies = self._measure(steps.astype(np.int32), 1)
        distortions, of_groups, result = self._distortions(errors, energies), bits[:, :, 0].cpu().numpy(), []
        for page, step in enumerate(steps.tolist()):
            ranks = self._ranks(step)
            options, first = [], 0
            for rank, groups in zip(ranks, self._groups_of, strict=True):
                own = self._offsets[page, first : first + -(-rank // GROUP)]
                options.append(((own & 31) << 2).astype(np.uint8))
                first += groups
            shape = shape_of(ranks, int(self._firsts[page + 1] - self._firsts[page]))
            result.append(Point(step, options, shape, of_groups[page], float(distortions[page])))
        return result


def predicted_step(resident: Resident, goal: Goal) -> int:
    """The step that calibration saw meet the goal."""
    lines = resident.profile.expectations
    found = []
    if goal.ratio is not None:
        found.append(next((line for line in lines if line["ratio"] >= goal.ratio), lines[-1]))
    if goal.distortion is not None:
        found.append(next((line for line in reversed(lines) if line["distortion"] <= goal.distortion), lines[0]))
    return int(min(line["stepIndex"] for line in found))


def _finest(resident: Resident) -> int:
    """The finest step at which no row but outliers has codes beyond the limit; 16 standard deviations of the strongest component where
    the profile does not say how strong rows are."""
    peaks = resident.profile.peaks
    if peaks is None:
        finest = max(int(basis.levels[0]) for basis in resident.profile.bases) - 640
    else:
        finest = math.ceil(64 * math.log2(math.sqrt(max(1e-30, min(2 * sum(peaks), 1e30))) / LIMIT))
    return max(_FINEST, min(_COARSEST, finest))


def overhead(tokens: int, has_protected: bool) -> int:
    return HEADER + (-(-tokens // 8) if has_protected else 0)
