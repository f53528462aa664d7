"""What a device keeps of a profile: digits of the bases cut to the components in use, tables of the entropy coder, weights and matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..protocol.geometry import RotaryStyle, Tensor
from .profile import SLOTS, Basis, Plane, Profile, matrix_widths

PAD = 64
"""Planes begin at multiples of this, so that a product's steps never meet two of them."""
_NONE = -1


def padded(count: int, unit: int = PAD) -> int:
    return -(-count // unit) * unit


@dataclass(frozen=True)
class Strip:
    """Columns of one layer and basis that are made together. ``digits``: int8 [columns][digits of the basis]; ``tensors``: by index in the
    geometry, with the strip's column where each begins; columns are rounded up to a multiple of 16."""

    basis: int
    tensors: Sequence[tuple[int, int]]
    columns: int
    digits: Any


@dataclass(frozen=True)
class HeadShape:
    """How the columns of a tensor's heads are paired; see `finish.finish`."""

    tiles: Any
    pairs: Any
    tile_count: int
    pair_count: int
    matrix_values: int


@dataclass(frozen=True)
class PlaneInUse:
    """A plane of digits of a basis, its first ``count`` digits resident from column ``at`` of the strips on."""

    basis: int
    plane: Plane
    count: int
    at: int


class Resident:
    """``rank``: components kept of each basis, all without it; blocks with more of them cannot be decoded."""

    def __init__(self, profile: Profile, device: Any, rank: int | None = None) -> None:
        self.profile, self.device = profile, device
        self.ranks = [basis.rank if rank is None else min(rank, basis.rank) for basis in profile.bases]
        self.starts = np.concatenate([[0], np.cumsum([basis.rank for basis in profile.bases])]).tolist()
        self.planes: list[PlaneInUse] = []
        self.widths: list[int] = []
        for index, basis in enumerate(profile.bases):
            at = 0
            for plane in basis.planes:
                count = int(np.searchsorted(plane.components, self.ranks[index]))
                if count:
                    self.planes.append(PlaneInUse(index, plane, count, at))
                    at += padded(count)
            self.widths.append(at)
        self._place_digits()
        self.slots = _on(slot_table(profile.frequencies), device)
        self.weights, self.means = _on(profile.inverse_weight, device), _on(profile.mean, device)
        self.matrices = _on(profile.inverse_root if profile.inverse_root is not None else np.zeros(1, np.float32), device)
        self._shapes: dict[tuple[int, ...], HeadShape] = {}
        widths = [matrix_widths(tensor.head_dim) for tensor in profile.geometry.tensors]
        self.matrix_firsts = np.cumsum(
            [0] + [tensor.heads * sum(w * w for w in own) for tensor, own in zip(profile.geometry.tensors, widths, strict=True)]
        ).tolist()
        self.angle_firsts = np.cumsum([0] + [2 * len(table) for table in profile.rope_tables]).tolist()
        self.layers = {number: self._strips(number) for number in sorted({tensor.layer for tensor in profile.geometry.tensors})}
        self.shapes = [self._shape(tensor) for tensor in profile.geometry.tensors]

    @cached_property
    def forward_weights(self) -> Any:
        """What encoding multiplies rows by."""
        return _on(self.profile.weight, self.device)

    @cached_property
    def roots(self) -> Any:
        """The matrices of the heads that encoding multiplies by."""
        return None if self.profile.root is None else _on(self.profile.root, self.device)

    @property
    def bytes(self) -> int:
        """Memory of the device that this holds, nearly all of it digits."""
        strips = sum(strip.digits.numel() for strips in self.layers.values() for strip in strips)
        return int(strips + 4 * (self.slots.numel() + self.matrices.numel() + 2 * self.weights.numel() + 6 * self.levels.numel()))

    def _place_digits(self) -> None:
        """Of each component: level, bound of its second digit, and plane and index of its digits."""
        total = self.starts[-1]
        levels, seconds = np.zeros(total, np.int32), np.zeros(total, np.int32)
        self.digit_planes, self.digit_indices = np.full((2, total), _NONE, np.int32), np.zeros((2, total), np.int32)
        for index, basis in enumerate(self.profile.bases):
            own = slice(self.starts[index], self.starts[index + 1])
            levels[own], seconds[own] = basis.levels, basis.second_digit_levels()
        for number, used in enumerate(self.planes):
            components = used.plane.components[: used.count] + self.starts[used.basis]
            which = 1 if used.plane.is_low else 0
            self.digit_planes[which, components] = number
            self.digit_indices[which, components] = np.arange(used.count)
        self.host_levels, self.host_seconds = levels, seconds
        self.levels, self.seconds = _on(levels, self.device), _on(seconds, self.device)

    def _strips(self, layer: int) -> list[Strip]:
        profile = self.profile
        result = []
        for index, basis in enumerate(profile.bases):
            chosen = [
                number
                for number, tensor in enumerate(profile.geometry.tensors)
                if tensor.layer == layer and basis.column(profile.offsets[number]) is not None
            ]
            if not chosen:
                continue
            tensors, columns = [], 0
            for number in chosen:
                tensors.append((number, columns))
                columns += profile.geometry.tensors[number].elements
            digits = torch.zeros((padded(columns, 16), max(self.widths[index], PAD)), dtype=torch.int8, device=self.device)
            for number, first in tensors:
                width = profile.geometry.tensors[number].elements
                self._unpack(index, basis, basis.column(profile.offsets[number]) or 0, digits[first : first + width])
            result.append(Strip(index, tensors, digits.shape[0], digits))
        return result

    def _unpack(self, index: int, basis: Basis, begin: int, target: Any) -> None:
        """The digits of the columns from `begin` on."""
        first, last = begin // 32, -(-(begin + len(target)) // 32)
        packed = torch.from_numpy(np.array(basis.packed[first:last])).to(self.device)
        flat = packed.permute(0, 2, 1, 3).reshape((last - first) * 32, -1)[begin - 32 * first :][: len(target)]
        flat = (flat ^ 128).view(torch.int8)
        for used in self.planes:
            if used.basis == index:
                target[:, used.at : used.at + used.count] = flat[:, used.plane.first : used.plane.first + used.count]

    def _shape(self, tensor: Tensor) -> HeadShape:
        angle = self.angle_firsts[tensor.rope_table] if tensor.rotary_dims else 0
        key = (tensor.head_dim, tensor.rotary_style, tensor.rotary_offset, tensor.rotary_dims, angle)
        if key not in self._shapes:
            self._shapes[key] = self._make_shape(tensor, angle)
        return self._shapes[key]

    def _make_shape(self, tensor: Tensor, angle: int) -> HeadShape:
        half, offset = tensor.rotary_dims // 2, tensor.rotary_offset
        turned = [
            (offset + i, offset + i + half, angle + 2 * i)
            if tensor.rotary_style == RotaryStyle.HALF_SPLIT
            else (offset + 2 * i, offset + 2 * i + 1, angle + 2 * i)
            for i in range(half)
        ]
        rest = [column for column in range(tensor.head_dim) if not offset <= column < offset + 2 * half]
        widths = matrix_widths(tensor.head_dim)
        firsts = np.cumsum([0] + widths)
        values = np.cumsum([0] + [width * width for width in widths])

        def block(column: int) -> int:
            return int(np.searchsorted(firsts, column, side="right")) - 1

        # Those of one matrix are paired half by half, so that neighbours in memory are neighbours among the pairs.
        for number in range(len(widths)):
            own = [column for column in rest if block(column) == number]
            middle = (len(own) + 1) // 2
            turned += [(one, other, _NONE) for one, other in zip(own[:middle], [*own[middle:], _NONE][:middle], strict=True)]
        groups: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        for pair in turned:
            groups.setdefault((block(pair[0]), block(pair[1]) if pair[1] >= 0 else block(pair[0])), []).append(pair)
        most = max(len(group) for group in groups.values())
        count = min(64, max(16, 1 << (most - 1).bit_length()))
        tiles, pairs = [], []
        for (one, other), group in groups.items():
            for start in range(0, len(group), count):
                part = group[start : start + count]
                part += [(_NONE, _NONE, _NONE)] * (count - len(part))
                tiles.append([firsts[one], widths[one], values[one], firsts[other], widths[other], values[other]])
                pairs.append(np.array(part).T)
        return HeadShape(
            _on(np.array(tiles, np.int32), self.device), _on(np.array(pairs, np.int32), self.device), len(tiles), count, int(values[-1])
        )  # fmt: skip


def slot_table(frequencies: np.ndarray) -> np.ndarray:
    """By class and slot: symbol << 24 | place in the symbol's interval << 12 | frequency − 1."""
    table = np.empty((len(frequencies), SLOTS), np.uint32)
    for row, own in zip(table, frequencies, strict=True):
        symbol = np.repeat(np.arange(len(own)), own)
        start = np.concatenate([[0], np.cumsum(own)])[symbol]
        row[:] = symbol << 24 | (np.arange(SLOTS) - start) << 12 | (own[symbol] - 1)
    return table.view(np.int32).reshape(-1)


def _on(values: np.ndarray, device: Any) -> Any:
    return torch.from_numpy(np.array(values)).to(device)
