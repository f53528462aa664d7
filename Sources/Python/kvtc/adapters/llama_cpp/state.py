"""One sequence's state of llama.cpp as numpy arrays, and back, bit-exactly. What the bytes are says `blob`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..engine import Origin
from .blob import F16, MAX_GAP, Part, StateError, parts_with, read, read_part


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

    def device_cells(self, pages: Sequence[range]) -> None:
        """llama.cpp copies them to and from its devices itself."""

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
    read(data, 0, "<2I", "header")
    positions, layers, _ = read_part(data, 8)
    if not len(positions):
        raise StateError("the sequence is empty")
    for with_values in (True, False):
        for gap in range(0, MAX_GAP + 1, 4):
            parts = parts_with(data, gap, with_values)
            if parts is not None and any(part.keys for part in parts):
                widths = tuple((_widths(part.keys), _widths(part.values)) for part in parts)
                return _assembled(data, parts, StateForm(data[:8].tobytes(), gap, widths), before)
    raise StateError(
        f"{data.nbytes} bytes do not hold {layers} layers of f16 keys and values for {len(positions)} cells, nor those and "
        "sliding-window layers; recurrent layers are not supported"
    )


def _assembled(data: NDArray[np.uint8], parts: list[Part], form: StateForm, before: SequenceState | None) -> SequenceState:
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
    if len(form.header) != 8 or form.gap % 4 or not 0 <= form.gap <= MAX_GAP:
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
