"""One sequence's state of llama.cpp as numpy arrays, and back, bit-exactly.

`llama_state_seq_get_data` writes (little endian, flash attention on, so V is not transposed):
u32 magic, u32 sequence id (0), u32 streams, u32 cells; per cell i32 position, u32 n, n × i32 sequence id; u32 transposed (0),
u32 layers; per layer i32 type, u64 row bytes, cells × row for K; the same for V.
Releases differ by a few zero words before the first layer; they are kept as they came. Nothing is assumed
that is not checked: a blob that does not end exactly where its last row ends is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

F16 = 1
_MAX_GAP = 32
_MAX_CELLS = 1 << 22
_MAX_LAYERS = 4096


class StateError(ValueError):
    """The blob is not a state this module understands."""


@dataclass
class SequenceState:
    """A parsed blob. `keys[layer]` and `values[layer]` are f16 views [cells, row elements] of `blob`: write rows there."""

    blob: np.ndarray
    positions: np.ndarray
    keys: list[np.ndarray]
    values: list[np.ndarray]

    @property
    def cells(self) -> int:
        return len(self.positions)

    @property
    def layers(self) -> int:
        return len(self.keys)

    def tensors(self) -> list[np.ndarray]:
        """K of all layers, then V of all layers: the order of the blob and of a page grouped by role."""
        return self.keys + self.values

    def token_bytes(self) -> int:
        return sum(tensor.shape[1] * 2 for tensor in self.tensors())

    def to_bytes(self) -> bytes:
        return self.blob.tobytes()

    def copy(self) -> "SequenceState":
        return parse_state(self.blob.copy())

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


def parse_state(blob: bytes | bytearray | np.ndarray) -> SequenceState:
    """Reads a blob. A bytes object is copied, an array is kept and written through."""
    if isinstance(blob, np.ndarray):
        if blob.dtype != np.uint8 or blob.ndim != 1 or not blob.flags.c_contiguous or not blob.flags.writeable:
            raise StateError("a state is a flat, writable array of bytes")
        data = blob
    else:
        data = np.frombuffer(bytearray(blob), np.uint8)
    size = data.nbytes
    _, _, streams, cells = _read(data, 0, "<4I", "header")
    if streams != 1:
        raise StateError(f"{streams} streams; one sequence of a unified cache has one")
    if cells > _MAX_CELLS:
        raise StateError(f"{cells} cells")
    positions, offset = _read_cells(data, 16, cells)
    transposed, layers = _read(data, offset, "<2I", "tensor header")
    offset += 8
    if transposed:
        raise StateError("V is stored transposed: load the context with flash attention")
    if not 0 < layers <= _MAX_LAYERS:
        raise StateError(f"{layers} layers")
    if cells == 0:
        raise StateError("the sequence is empty")
    for gap in range(0, _MAX_GAP + 1, 4):
        if data[offset : offset + gap].any():
            break
        tensors, end = _tensors(data, offset + gap, cells, 2 * layers)
        if end == size:
            return SequenceState(data, positions, tensors[:layers], tensors[layers:])
        # The next part begins as the first did: streams, cells.
        if tensors and size - end >= 28 and data[end : end + 4].view("<u4")[0] == streams:
            raise StateError(
                f"{size - end} bytes follow its {layers} layers: a cache in several parts, as sliding-window attention and "
                "recurrent layers make, is not supported"
            )
    raise StateError(f"{size} bytes do not hold {layers} layers of f16 keys and values for {cells} cells")


def blank_state(positions: Sequence[int], row_elements: Sequence[int], *, header: bytes, gap: int) -> SequenceState:
    """A state for a worker that never prefilled: `row_elements` of every tensor, K of all layers, then V. Its cells have
    positions, and any rows until they are replaced.

    `header` is the first 8 bytes of this release's states and `gap` their zero bytes before the first layer.
    """
    cells, layers = len(positions), len(row_elements) // 2
    if len(header) != 8 or gap % 4 or not 0 <= gap <= _MAX_GAP or len(row_elements) != 2 * layers:
        raise StateError("header of 8 bytes, gap of whole words, as many values as keys")
    size = 16 + 12 * cells + 8 + gap + sum(12 + 2 * row * cells for row in row_elements)
    # Not zeros: writing a long context twice takes as long as bringing it.
    blob = np.empty(size, np.uint8)
    blob[:16] = np.frombuffer(header + struct.pack("<2I", 1, cells), np.uint8)
    table = np.zeros((cells, 3), "<i4")
    table[:, 0], table[:, 1] = positions, 1
    offset = 16 + 12 * cells
    blob[16:offset] = table.reshape(-1).view(np.uint8)
    blob[offset : offset + 8] = np.frombuffer(struct.pack("<2I", 0, layers), np.uint8)
    blob[offset + 8 : offset + 8 + gap] = 0
    offset += 8 + gap
    for row in row_elements:
        blob[offset : offset + 12] = np.frombuffer(struct.pack("<iQ", F16, row * 2), np.uint8)
        offset += 12 + 2 * row * cells
    return parse_state(blob)


def build_state(
    positions: Sequence[int], keys: Sequence[np.ndarray], values: Sequence[np.ndarray], *, header: bytes, gap: int
) -> SequenceState:
    """A state with these rows, f16 [cells, row elements] per layer."""
    tensors = [*keys, *values]
    for tensor in tensors:
        if tensor.ndim != 2 or len(tensor) != len(positions) or tensor.dtype != np.float16:
            raise StateError(f"a tensor is {tensor.dtype} {tensor.shape}, the state has {len(positions)} cells of f16")
    state = blank_state(positions, [tensor.shape[1] for tensor in tensors], header=header, gap=gap)
    for target, tensor in zip(state.tensors(), tensors, strict=True):
        target[:] = tensor
    return state


def gap_of(state: SequenceState) -> int:
    """Zero bytes between the tensor header and the first layer in this release."""
    tensors = sum(12 + tensor.nbytes for tensor in state.tensors())
    return state.blob.nbytes - 16 - 12 * state.cells - 8 - tensors


def _read(data: np.ndarray, offset: int, form: str, what: str) -> tuple[int, ...]:
    length = struct.calcsize(form)
    if offset + length > data.nbytes:
        raise StateError(f"ends inside its {what}: {data.nbytes} bytes")
    return struct.unpack(form, data[offset : offset + length].tobytes())


def _read_cells(data: np.ndarray, offset: int, cells: int) -> tuple[np.ndarray, int]:
    end = offset + 12 * cells
    if end > data.nbytes:
        raise StateError(f"ends inside its cells: {data.nbytes} bytes, {cells} cells")
    table = data[offset:end].copy().view("<i4").reshape(cells, 3)
    if cells and ((table[:, 1] != 1).any() or (table[:, 2] != 0).any()):
        raise StateError("a cell belongs to other than sequence 0 alone")
    positions = table[:, 0]
    if (positions < 0).any() or (np.diff(positions) <= 0).any():
        raise StateError("positions do not grow")
    return positions, end


def _tensors(data: np.ndarray, offset: int, cells: int, count: int) -> tuple[list[np.ndarray], int]:
    """The tensors that start at `offset`, and where they end; none where they are not what they should be."""
    tensors = []
    for _ in range(count):
        if offset + 12 > data.nbytes:
            return [], 0
        kind, row = struct.unpack("<iQ", data[offset : offset + 12].tobytes())
        offset += 12
        if kind != F16 or row == 0 or row % 2 or row * cells > data.nbytes - offset:
            return [], 0
        tensors.append(data[offset : offset + row * cells].view("<f2").reshape(cells, row // 2))
        offset += row * cells
    return tensors, offset
