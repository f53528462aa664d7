"""A copy of one sequence's cache as numpy arrays, of any element type that transformers computes in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ...protocol.geometry import Element, Role
from ..codec import Cells, moment
from ..engine import Origin
from .tensors import blank_rows, put_rows, to_numpy


class CacheState:
    """K and V of every layer that has a cache, [cells, heads, width] each, in the numbers of `element` (bf16 as 16-bit integers).

    A page is K of all layers, then V, token by token. `read` makes arrays of rows that are torch's still: as those of a cache are
    never written to again, only what is asked for is copied. `device`: where rows that are torch's lie, or may (`device_cells`); None
    where layers are on several devices, or computed in another type.
    """

    def __init__(
        self,
        element: Element,
        keys: Sequence[Any],
        values: Sequence[Any],
        origin: Origin | None = None,
        read: Callable[[Any], np.ndarray] = np.asarray,
        device: Any = None,
    ) -> None:
        self.element, self.origin, self._device = element, origin, device
        self._keys, self._values, self._read = keys, values, read

    @classmethod
    def blank(
        cls, element: Element, keys: Sequence[tuple[int, int]], values: Sequence[tuple[int, int]], cells: int, device: Any = None
    ) -> CacheState:
        """Of layers with these heads and widths; its rows are to be replaced."""
        key_rows, value_rows = ([np.zeros((cells, *shape), element.dtype) for shape in shapes] for shapes in (keys, values))
        return cls(element, key_rows, value_rows, device=device)

    @cached_property
    def key_rows(self) -> list[np.ndarray]:
        return [self._read(rows) for rows in self._keys]

    @cached_property
    def value_rows(self) -> list[np.ndarray]:
        return [self._read(rows) for rows in self._values]

    @property
    def cells(self) -> int:
        return len(self._keys[0])

    @property
    def layers(self) -> int:
        return len(self._keys)

    @property
    def positions(self) -> np.ndarray:
        return np.arange(self.cells, dtype=np.int32)

    def tensors(self) -> list[np.ndarray]:
        """The arrays themselves, in the order of a page."""
        return [*self.key_rows, *self.value_rows]

    @property
    def keys(self) -> list[np.ndarray]:
        """K of every layer [cells, heads × width]: the arrays themselves, or widened copies where they are bf16."""
        return [self._numbers(rows) for rows in self.key_rows]

    @property
    def values(self) -> list[np.ndarray]:
        return [self._numbers(rows) for rows in self.value_rows]

    def _numbers(self, rows: np.ndarray) -> np.ndarray:
        flat = rows.reshape(len(rows), -1)
        return (flat.astype(np.uint32) << 16).view(np.float32) if self.element == Element.BF16 else flat

    def token_bytes(self) -> int:
        return sum(int(rows.shape[1] * rows.shape[2]) for rows in (*self._keys, *self._values)) * self.element.size

    def copy(self) -> CacheState:
        return self.first(self.cells)

    def first(self, cells: int) -> CacheState:
        """A copy of the first cells."""
        origin = self.origin and Origin(self.origin.tokens[:cells], self.origin.identity, self.origin.is_exact)
        if self._is_torchs:
            keys, values = ([rows[:cells].clone() for rows in tensors] for tensors in (self._keys, self._values))
        else:
            keys, values = ([rows[:cells].copy() for rows in tensors] for tensors in (self.key_rows, self.value_rows))
        return CacheState(self.element, keys, values, origin, self._read, self._device)

    def device_cells(self, pages: Sequence[range]) -> Cells | None:
        """Rows that were to be replaced are the device's from then on."""
        if self._device is None or self.cells == 0:
            return None
        if not self._is_torchs:
            self._keys, self._values = ([self._moved(rows) for rows in tensors] for tensors in (self._keys, self._values))
            self._read = lambda rows: to_numpy(rows, self.element)
        tensors = ((Role.KEY, self._keys), (Role.VALUE, self._values))
        cache = {(layer, role): rows.transpose(0, 1)[None] for role, each in tensors for layer, rows in enumerate(each)}
        return Cells(cache, [np.arange(page.start, page.stop) for page in pages], moment(self._device))

    @property
    def _is_torchs(self) -> bool:
        return not isinstance(self._keys[0], np.ndarray)

    def _moved(self, rows: np.ndarray) -> Any:
        """Heads first in memory, as the model's cache is."""
        return blank_rows(rows.shape, self.element, self._device)

    def rows(self) -> list[tuple[Any, Any]]:
        """K and V of every layer as they are held: numpy's, or torch's."""
        return list(zip(self._keys, self._values, strict=True))

    def page(self, first: int, tokens: int) -> np.ndarray:
        pieces = (self._read(rows[first : first + tokens]) for rows in (*self._keys, *self._values))
        return np.concatenate([piece.reshape(-1).view(np.uint8) for piece in pieces])

    def replace(self, first: int, tokens: int, page: np.ndarray) -> None:
        at = 0
        for rows in (*self._keys, *self._values):
            part = rows[first : first + tokens]
            data = page[at : at + tokens * rows.shape[1] * rows.shape[2] * self.element.size]
            if self._is_torchs:
                put_rows(part, data)
            else:
                part.reshape(-1).view(np.uint8)[:] = data
            at += len(data)
