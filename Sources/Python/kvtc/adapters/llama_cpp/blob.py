"""How llama.cpp writes one sequence's state, read part by part.

`llama_state_seq_get_data` writes (little endian, flash attention on, so V is not transposed) u32 magic, u32 sequence id (0),
then one part, or two of a model with sliding-window layers: first the layers that see everything, then those.
Of those the engine writes the cells that their window still reaches, so that the second part may have fewer.
A part: u32 streams, u32 cells; per cell i32 position, u32 n, n × i32 sequence id; u32 transposed (0), u32 layers; per layer
i32 type, u64 row bytes, cells × row for K; the same for V, which models with latent attention do not have.
Releases differ by a few zero words before the first layer; they are kept as they came. Nothing is assumed
that is not checked: a blob that does not end exactly where its last row ends is refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..engine import EngineError

F16 = 1
MAX_GAP = 32
_MAX_CELLS = 1 << 22
_MAX_LAYERS = 4096


class StateError(EngineError, ValueError):
    """The blob is not a state this module understands."""


@dataclass
class Part:
    """The layers of one part of a blob, cell by cell as they stand there."""

    positions: NDArray[np.int32]
    keys: list[NDArray[np.float16]]
    values: list[NDArray[np.float16]]

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """The cells from the lowest position to the highest."""
        return np.argsort(self.positions)


def cell_positions(blob: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The position of every cell of a blob, of any element type, in the order in which the engine keeps the cells."""
    streams, cells = read(blob, 8, "<2I", "header")
    return _read_cells(blob, 16, streams * cells)[0]


def read(data: np.ndarray, offset: int, form: str, what: str) -> tuple[int, ...]:
    length = struct.calcsize(form)
    if offset + length > data.nbytes:
        raise StateError(f"ends inside its {what}: {data.nbytes} bytes")
    return struct.unpack(form, data[offset : offset + length].tobytes())


def read_part(data: np.ndarray, offset: int) -> tuple[np.ndarray, int, int]:
    """Positions and number of layers of the part that begins there, and where its gap begins."""
    streams, cells = read(data, offset, "<2I", "header")
    if streams != 1:
        raise StateError(f"{streams} streams; one sequence of a unified cache has one")
    if cells > _MAX_CELLS:
        raise StateError(f"{cells} cells")
    positions, offset = _read_cells(data, offset + 8, cells)
    transposed, layers = read(data, offset, "<2I", "tensor header")
    if transposed:
        raise StateError("V is stored transposed: load the context with flash attention")
    if layers > _MAX_LAYERS:
        raise StateError(f"{layers} layers")
    return positions, layers, offset + 8


def _read_cells(data: np.ndarray, offset: int, cells: int) -> tuple[np.ndarray, int]:
    end = offset + 12 * cells
    if end > data.nbytes:
        raise StateError(f"ends inside its cells: {data.nbytes} bytes, {cells} cells")
    table = data[offset:end].copy().view("<i4").reshape(cells, 3)
    if cells and ((table[:, 1] != 1).any() or (table[:, 2] != 0).any()):
        raise StateError("a cell belongs to other than sequence 0 alone")
    positions = table[:, 0]
    if (positions < 0).any() or (np.diff(np.sort(positions)) == 0).any():
        raise StateError("positions below zero, or of two cells")
    return positions, end


def parts_with(data: NDArray[np.uint8], gap: int, with_values: bool) -> list[Part] | None:
    """K and V of the parts that a blob with this gap consists of, for the same positions or the last of them; None where it
    does not."""
    parts: list[Part] = []
    offset = 8
    while offset < data.nbytes:
        try:
            positions, layers, begin = read_part(data, offset)
        except StateError:
            return None
        if data[begin : begin + gap].any():
            return None
        tensors = _tensors(data, begin + gap, len(positions), layers * (2 if with_values else 1))
        if tensors is None:
            return None
        rows, offset = tensors
        part = Part(positions, rows[:layers], rows[layers:])
        first = parts[0] if parts else part
        if not np.array_equal(positions[part.order], first.positions[first.order][len(first.positions) - len(positions) :]):
            return None
        parts.append(part)
    return parts


def _tensors(data: np.ndarray, offset: int, cells: int, count: int) -> tuple[list[np.ndarray], int] | None:
    """The tensors that start at `offset`, and where they end; None where they are not what they should be."""
    tensors = []
    for _ in range(count):
        if offset + 12 > data.nbytes:
            return None
        kind, row = struct.unpack("<iQ", data[offset : offset + 12].tobytes())
        offset += 12
        if kind != F16 or row == 0 or row % 2 or row * cells > data.nbytes - offset:
            return None
        tensors.append(data[offset : offset + row * cells].view("<f2").reshape(cells, row // 2))
        offset += row * cells
    return (tensors, offset) if offset <= data.nbytes else None
