"""A profile as a device needs it: `ProfileFormat.md` says what the file holds. Read and checked here, in numpy alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xxhash

from .. import safetensors
from ..protocol.geometry import Geometry, Role, RotaryStyle, Tensor

TILE, QUAD = 32, 4
"""Columns of a tile and digits of a quad: how digits are packed."""
CLASSES, SYMBOLS, SLOTS = 64, 32, 4096
WIDEST_MATRIX, MATRIX_PIECE = 256, 128
"""Heads up to the first have one matrix, wider ones one for so many elements."""


class BadProfile(ValueError):
    """A file that is no profile that can be used; the message names what is wrong."""


@dataclass(frozen=True)
class Plane:
    """Digits that share an exponent, first or second ones. ``components``: that of each digit, ascending; ``first``: where they begin
    among the digits of the basis, a multiple of a quad."""

    exponent: int
    is_low: bool
    first: int
    components: np.ndarray


@dataclass(frozen=True)
class Basis:
    """The transform of some elements of a row: its columns are those of its ``ranges`` (first element and end), one after another.
    ``packed``: [⌈columns / 32⌉][quads][32][4], 128 more than the digits."""

    ranges: Sequence[tuple[int, int]]
    rank: int
    levels: np.ndarray
    planes: Sequence[Plane]
    packed: np.ndarray

    @property
    def columns(self) -> int:
        return sum(end - begin for begin, end in self.ranges)

    def column(self, element: int) -> int | None:
        """Of an element of the row; None for one of another basis."""
        first = 0
        for begin, end in self.ranges:
            if begin <= element < end:
                return first + element - begin
            first += end - begin
        return None

    def second_digit_levels(self) -> np.ndarray:
        """By component, what 2 k − 361 is compared with (k: the step's index) to see whether its second digit takes part; far below any
        where it has none."""
        least = np.full(self.rank, -(1 << 30), np.int32)
        width = 64 * (self.columns.bit_length() - 1)
        for plane in self.planes:
            if plane.is_low:
                least[plane.components] = 2 * self.levels[plane.components].astype(np.int32) + width + 128 * (plane.exponent + 8)
        return least

    def rank_at(self, step_index: int) -> int:
        """Components that a step keeps: those of at least 0.4 steps."""
        return int(np.searchsorted(-self.levels.astype(np.int32), 85 - step_index, side="right"))


class Profile:
    """``data``: the file's bytes, which stay as they are as long as this is used.

    Raises BadProfile.
    """

    def __init__(self, data: Any) -> None:
        try:
            self._tensors, metadata = safetensors.parse(data)
            about = json.loads(metadata["kvtc"])
            if about["format"] not in (1, 2, 3, 4):
                raise BadProfile(f"profile format {about['format']}; this release reads formats 1 to 4")
            self.format: int = about["format"]
            self.id = hashlib.sha256(data).digest()
            self.energy = float(about["energy"])
            self.peaks: list[float] | None = about.get("peaks")
            self.expectations: list[dict[str, float]] = about["expectations"]
            self._read_geometry(about["tensors"])
            self.mean, self.weight = self._numbers("mean", "<f4", self.row), self._numbers("weight", "<f4", self.row)
            with np.errstate(all="ignore"):
                self.inverse_weight = np.float32(1) / self.weight
            if not (np.isfinite(self.mean).all() and np.isfinite(self.inverse_weight).all() and (self.weight > 0).all()):
                raise BadProfile("mean or weight holds zeros, NaN or infinities")
            frequencies = self._numbers("entropy.frequencies", "<u2", CLASSES, SYMBOLS).astype(np.int64)
            if (frequencies < 1).any() or (frequencies.sum(1) != SLOTS).any():
                raise BadProfile("entropy tables need 64 × 32 frequencies above 0 that sum to 4096")
            self.frequencies = frequencies
            self.bases = [self._basis(index, entry) for index, entry in enumerate(about["bases"])]
            ranges = sorted(pair for basis in self.bases for pair in basis.ranges)
            if [0, *(end for _, end in ranges)] != [*(begin for begin, _ in ranges), self.row]:
                raise BadProfile(f"profile bases do not cover a row of {self.row} elements, each once")
            has_roots = self.format == 3 or (self.format == 4 and "root" in self._tensors)
            self.root, self.inverse_root = (self._matrices(name) if has_roots else None for name in ("root", "inverse_root"))
        except (KeyError, TypeError, IndexError, OverflowError) as error:
            raise BadProfile(f"not a profile: {error!r}") from error
        except ValueError as error:
            raise error if isinstance(error, BadProfile) else BadProfile(str(error)) from error

    def _numbers(self, name: str, dtype: str, *shape: int) -> np.ndarray:
        found = self._tensors.get(name)
        if found is None or found.dtype != np.dtype(dtype) or found.shape != shape:
            raise BadProfile(f"no tensor {name} of {np.dtype(dtype)} {list(shape)}")
        return found

    def _read_geometry(self, listed: list[dict[str, int]]) -> None:
        tables: list[np.ndarray] = []
        while (table := self._tensors.get(f"rope.{len(tables)}")) is not None:
            tables.append(self._numbers(f"rope.{len(tables)}", "<f4", len(table)))
        tensors = []
        for entry in sorted(listed, key=lambda tensor: (tensor["role"], tensor["layer"])):
            table = tables[entry["rope"]] if entry.get("rope") is not None else None
            style = RotaryStyle(entry.get("ropeStyle") or 0)
            dims = 0 if table is None else 2 * len(table)
            offset = entry.get("ropeOffset") or 0
            heads, width = entry["heads"], entry["headDim"]
            if not (0 < heads <= 1024 and 0 < width <= 8192 and 0 <= offset <= width - dims):
                raise BadProfile(f"layer {entry['layer']}: {heads} heads of {width} elements, {dims} of them from {offset} on rotated")
            tensors.append(Tensor(entry["layer"], Role(entry["role"]), style, heads, width, offset, dims, entry.get("rope", 0xFFFF)))
        self.geometry = Geometry(tensors, [[float(f) for f in table] for table in tables])
        self.rope_tables = tables
        self.offsets = [0, *np.cumsum([tensor.elements for tensor in tensors]).tolist()]
        self.row = int(self.offsets[-1])
        if not 0 < self.row <= 1 << 21:
            raise BadProfile(f"{self.row} elements a token; at most {1 << 21}")

    def _basis(self, index: int, entry: dict[str, Any]) -> Basis:
        ranges = [(begin, end) for begin, end in entry.get("ranges") or [(entry["begin"], entry["end"])]]
        rank, count, columns = entry["rank"], entry["digits"], sum(end - begin for begin, end in ranges)
        if not all(0 <= begin < end <= self.row and begin in self.offsets for begin, end in ranges):
            raise BadProfile(f"basis {index} of elements {ranges}")
        if not (0 < rank <= columns and rank <= count <= 2 * rank):
            raise BadProfile(f"basis {index} of rank {rank}")
        levels = self._numbers(f"basis.{index}.level", "<i2", rank)
        components = self._numbers(f"basis.{index}.component", "<i4", count)
        exponents = self._numbers(f"basis.{index}.exponent", "i1", count)
        firsts, at = np.unique(components, return_index=True)
        if len(firsts) != rank or firsts[0] != 0 or firsts[-1] != rank - 1 or (np.diff(levels.astype(np.int32)) > 0).any():
            raise BadProfile(f"basis {index}: digits or levels out of order")
        is_second = np.ones(count, bool)
        is_second[at] = False
        planes: list[Plane] = []
        rows: list[np.ndarray] = []
        first = 0
        for exponent in sorted(set(exponents.tolist())):
            for is_low in (True, False):
                members = np.flatnonzero((exponents == exponent) & (is_second == is_low))
                if len(members) == 0:
                    continue
                members = members[np.argsort(components[members], kind="stable")]
                planes.append(Plane(exponent, is_low, first, components[members]))
                rows.append(members)
                first += -(-len(members) // QUAD) * QUAD
        tiles = -(-columns // TILE)
        if self.format > 1:
            packed = self._numbers(f"basis.{index}.packed", "u1", tiles, first // QUAD, TILE, QUAD)
        else:
            digits = np.zeros((first, tiles * TILE), np.int8)
            stored = self._numbers(f"basis.{index}.digits", "i1", count, columns)
            for plane, members in zip(planes, rows, strict=True):
                digits[plane.first : plane.first + len(members), :columns] = stored[members]
            packed = (digits.view(np.uint8) ^ 128).reshape(first // QUAD, QUAD, tiles, TILE).transpose(2, 0, 3, 1)
        return Basis(ranges, rank, levels, planes, packed)

    def _matrices(self, name: str) -> np.ndarray:
        """All matrices one after another, f32, row by row."""
        widths = [width for tensor in self.geometry.tensors for width in matrix_widths(tensor.head_dim) * tensor.heads]
        halves = self._numbers(name, "<f2", sum(width * (width + 1) // 2 for width in widths)).astype(np.float32)
        if not np.isfinite(halves).all():
            raise BadProfile(f"{name} holds NaN or infinities")
        result = np.empty(sum(width * width for width in widths), np.float32)
        read = written = 0
        for width in widths:
            row, column = np.tril_indices(width)
            matrix = result[written : written + width * width].reshape(width, width)
            matrix[row, column] = matrix[column, row] = halves[read : read + len(row)]
            read, written = read + len(row), written + width * width
        return result

    @cached_property
    def geometry_hash(self) -> int:
        """XXH3-64 over every number of the geometry, as blocks carry it."""
        words: list[np.ndarray] = []
        for tensor in self.geometry.tensors:
            words.append(np.array([tensor.layer, tensor.role, tensor.heads, tensor.head_dim], np.uint32))
            if tensor.rotary_dims:
                words.append(np.array([tensor.rotary_style, tensor.rotary_offset, tensor.rotary_dims], np.uint32))
                words.append(self.rope_tables[tensor.rope_table].view(np.uint32))
            else:
                words.append(np.zeros(1, np.uint32))
        return int(xxhash.xxh3_64_intdigest(np.concatenate(words).tobytes()))


def matrix_widths(head_dim: int) -> list[int]:
    """Of the matrices of one head."""
    if head_dim <= WIDEST_MATRIX:
        return [head_dim]
    return [min(MATRIX_PIECE, head_dim - first) for first in range(0, head_dim, MATRIX_PIECE)]
