"""One sequence's state of llama.cpp as numpy arrays, and back, bit-exactly.

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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..engine import EngineError, Origin

F16 = 1
_MAX_GAP = 32
_MAX_CELLS = 1 << 22
_MAX_LAYERS = 4096


class StateError(EngineError, ValueError):
    """The blob is not a state this module understands."""


@dataclass(frozen=True)
class StateForm:
    """What the states of a release and a model have in common: the first 8 bytes, the zero bytes before the first layer of a
    part, and every part's rows, as elements of K of each layer and of V (none of V: latent attention)."""

    header: bytes
    gap: int
    parts: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    def overhead(self, cells: int) -> int:
        """Bytes of a state that are no rows."""
        tensors = sum(len(keys) + len(values) for keys, values in self.parts)
        return 8 + len(self.parts) * (8 + 12 * cells + 8 + self.gap) + 12 * tensors


@dataclass
class SequenceState:
    """A parsed blob. `keys[layer]` and `values[layer]` are f16 views [cells, row elements] of `blob`: write rows there.

    Layers are counted as they come, those of the second part after those of the first. A model with latent attention has its
    latents as keys, and no values. Cells stand in the order of their positions. `origin` is None where it is unknown.
    """

    blob: NDArray[np.uint8]
    positions: NDArray[np.int32]
    keys: list[NDArray[np.float16]]
    values: list[NDArray[np.float16]]
    form: StateForm
    origin: Origin | None = None

    @property
    def cells(self) -> int:
        return len(self.positions)

    @property
    def layers(self) -> int:
        return len(self.keys)

    def tensors(self) -> list[np.ndarray]:
        """K of all layers, then V of all layers: the order of a page grouped by role."""
        return self.keys + self.values

    def token_bytes(self) -> int:
        return sum(tensor.shape[1] * 2 for tensor in self.tensors())

    def to_bytes(self) -> bytes:
        return self.blob.tobytes()

    def first(self, cells: int) -> SequenceState:
        """A copy of the first cells."""
        if not 0 < cells <= self.cells:
            raise StateError(f"{cells} of {self.cells} cells")
        state = blank_state(self.positions[:cells], self.form)
        for target, tensor in zip(state.tensors(), self.tensors(), strict=True):
            target[:] = tensor[:cells]
        if self.origin:
            state.origin = replace(self.origin, tokens=self.origin.tokens[:cells])
        return state

    def copy(self) -> SequenceState:
        state = parse_state(self.blob.copy())
        state.origin = self.origin
        return state

    def page(self, first: int, tokens: int) -> np.ndarray:
        """Bytes of `tokens` cells from `first`: per tensor, token, element. Layers' K, then layers' V."""
        self._check(first, tokens)
        return np.concatenate([t[first : first + tokens].reshape(-1).view(np.uint8) for t in self.tensors()])

    def replace(self, first: int, tokens: int, page: np.ndarray) -> None:
        """Overwrites those cells' rows with a page's bytes."""
        self._check(first, tokens)
        page = np.ascontiguousarray(page, np.uint8).reshape(-1)
        if page.nbytes != tokens * self.token_bytes():
            raise StateError(f"a page of {tokens} tokens has {tokens * self.token_bytes()} bytes, not {page.nbytes}")
        if (even := self._even) is not None:
            row = even.shape[1] // self.cells
            even[:, first * row : (first + tokens) * row] = page.reshape(len(even), -1)
            return
        offset = 0
        for tensor in self.tensors():
            length = tokens * tensor.shape[1] * 2
            tensor[first : first + tokens] = page[offset : offset + length].view(np.float16).reshape(tokens, -1)
            offset += length

    @cached_property
    def _even(self) -> np.ndarray | None:
        """The tensors as the rows of one array of bytes, where all are alike: a page is then replaced in one copy."""
        tensors = self.tensors()
        begins = [tensor.ctypes.data - self.blob.ctypes.data for tensor in tensors]
        step = 12 + tensors[0].nbytes
        if any(begin != begins[0] + index * step for index, begin in enumerate(begins)):
            return None
        if begins[0] + len(tensors) * step - 12 != self.blob.nbytes:
            return None
        rows = self.blob[begins[0] :]
        return np.lib.stride_tricks.as_strided(rows, (len(tensors), tensors[0].nbytes), (step, 1))

    def _check(self, first: int, tokens: int) -> None:
        if first < 0 or tokens < 0 or first + tokens > self.cells:
            raise StateError(f"cells {first}…{first + tokens} of {self.cells}")


def parse_state(blob: bytes | bytearray | np.ndarray, before: SequenceState | None = None) -> SequenceState:
    """Reads a blob. A bytes object is copied, an array is kept and written through.

    The engine uses cells again that were freed, so that they may stand in any order: the result is then a copy in the order
    of their positions. So it is where rows that sliding-window layers have let go come from the state of the same sequence
    `before`.
    """
    if isinstance(blob, np.ndarray):
        if blob.dtype != np.uint8 or blob.ndim != 1 or not blob.flags.c_contiguous or not blob.flags.writeable:
            raise StateError("a state is a flat, writable array of bytes")
        data = blob
    else:
        data = np.frombuffer(bytearray(blob), np.uint8)
    _read(data, 0, "<2I", "header")
    positions, layers, _ = _read_part(data, 8)
    if not len(positions):
        raise StateError("the sequence is empty")
    for with_values in (True, False):
        for gap in range(0, _MAX_GAP + 1, 4):
            parts = _parts(data, gap, with_values)
            if parts is not None and any(part.keys for part in parts):
                widths = tuple((_widths(part.keys), _widths(part.values)) for part in parts)
                return _assembled(data, parts, StateForm(data[:8].tobytes(), gap, widths), before)
    raise StateError(
        f"{data.nbytes} bytes do not hold {layers} layers of f16 keys and values for {len(positions)} cells, nor those and "
        "sliding-window layers; recurrent layers are not supported"
    )


def cell_positions(blob: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The position of every cell of a blob, of any element type, in the order in which the engine keeps the cells."""
    streams, cells = _read(blob, 8, "<2I", "header")
    return _read_cells(blob, 16, streams * cells)[0]


@dataclass
class _Part:
    """The layers of one part of a blob, cell by cell as they stand there."""

    positions: NDArray[np.int32]
    keys: list[NDArray[np.float16]]
    values: list[NDArray[np.float16]]

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """The cells from the lowest position to the highest."""
        return np.argsort(self.positions)


def _assembled(data: NDArray[np.uint8], parts: list[_Part], form: StateForm, before: SequenceState | None) -> SequenceState:
    whole = parts[0].positions
    positions = whole[parts[0].order]
    missing = len(positions) - min(len(part.positions) for part in parts)
    if missing == 0 and all(np.array_equal(part.positions, positions) for part in parts):
        keys, values = [key for part in parts for key in part.keys], [value for part in parts for value in part.values]
        return SequenceState(data, positions, keys, values, form)
    if missing and (
        before is None or before.form != form or not np.array_equal(before.positions[:missing], positions[:missing])
    ):
        raise StateError(f"sliding-window layers keep the last {len(positions) - missing} of {len(positions)} tokens")
    state = blank_state(positions, form)
    rows = [(part, key) for part in parts for key in part.keys] + [(part, value) for part in parts for value in part.values]
    for index, (target, (part, new)) in enumerate(zip(state.tensors(), rows, strict=True)):
        gone = len(positions) - len(new)
        target[gone:] = new[part.order]
        if gone and before:
            target[:gone] = before.tensors()[index][:gone]
    return state


def blank_state(positions: Sequence[int] | NDArray[np.int32], form: StateForm) -> SequenceState:
    """A state for a worker that never prefilled. Its cells have positions, and any rows until they are replaced."""
    if len(form.header) != 8 or form.gap % 4 or not 0 <= form.gap <= _MAX_GAP:
        raise StateError("header of 8 bytes, gap of whole words")
    if any(values and len(values) != len(keys) for keys, values in form.parts):
        raise StateError("as many values as keys, or none")
    cells = len(positions)
    rows = sum(sum(keys) + sum(values) for keys, values in form.parts)
    # Not zeros: writing a long context twice takes as long as bringing it.
    blob = np.empty(form.overhead(cells) + 2 * rows * cells, np.uint8)
    table = np.zeros((cells, 3), "<i4")
    table[:, 0], table[:, 1] = positions, 1
    blob[:8] = np.frombuffer(form.header, np.uint8)
    offset = 8

    def write(piece: bytes) -> None:
        nonlocal offset
        blob[offset : offset + len(piece)] = np.frombuffer(piece, np.uint8)
        offset += len(piece)

    for keys, values in form.parts:
        write(struct.pack("<2I", 1, cells) + table.tobytes() + struct.pack("<2I", 0, len(keys)) + bytes(form.gap))
        for row in (*keys, *values):
            write(struct.pack("<iQ", F16, row * 2))
            offset += 2 * row * cells
    return parse_state(blob)


def build_state(
    positions: Sequence[int], keys: Sequence[np.ndarray], values: Sequence[np.ndarray], form: StateForm
) -> SequenceState:
    """A state of that form with these rows, f16 [cells, row elements] per layer."""
    tensors = [*keys, *values]
    for tensor in tensors:
        if tensor.ndim != 2 or len(tensor) != len(positions) or tensor.dtype != np.float16:
            raise StateError(f"a tensor is {tensor.dtype} {tensor.shape}, the state has {len(positions)} cells of f16")
    state = blank_state(positions, form)
    for target, tensor in zip(state.tensors(), tensors, strict=True):
        target[:] = tensor
    return state


def _widths(tensors: list[NDArray[np.float16]]) -> tuple[int, ...]:
    return tuple(tensor.shape[1] for tensor in tensors)


def _read(data: np.ndarray, offset: int, form: str, what: str) -> tuple[int, ...]:
    length = struct.calcsize(form)
    if offset + length > data.nbytes:
        raise StateError(f"ends inside its {what}: {data.nbytes} bytes")
    return struct.unpack(form, data[offset : offset + length].tobytes())


def _read_part(data: np.ndarray, offset: int) -> tuple[np.ndarray, int, int]:
    """Positions and number of layers of the part that begins there, and where its gap begins."""
    streams, cells = _read(data, offset, "<2I", "header")
    if streams != 1:
        raise StateError(f"{streams} streams; one sequence of a unified cache has one")
    if cells > _MAX_CELLS:
        raise StateError(f"{cells} cells")
    positions, offset = _read_cells(data, offset + 8, cells)
    transposed, layers = _read(data, offset, "<2I", "tensor header")
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


def _parts(data: NDArray[np.uint8], gap: int, with_values: bool) -> list[_Part] | None:
    """K and V of the parts that a blob with this gap consists of, for the same positions or the last of them; None where it
    does not."""
    parts: list[_Part] = []
    offset = 8
    while offset < data.nbytes:
        try:
            positions, layers, begin = _read_part(data, offset)
        except StateError:
            return None
        if data[begin : begin + gap].any():
            return None
        tensors = _tensors(data, begin + gap, len(positions), layers * (2 if with_values else 1))
        if tensors is None:
            return None
        rows, offset = tensors
        part = _Part(positions, rows[:layers], rows[layers:])
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
