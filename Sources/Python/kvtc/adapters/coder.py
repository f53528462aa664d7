"""`kvtc.gpu` as adapters use it: within a bound on memory, one call at a time, and without ever raising into an engine."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from ..protocol.geometry import Element
from ..transport.arena import Arena
from .codec import Cells

if TYPE_CHECKING:
    from ..gpu import Decoder, Encoder

log = logging.getLogger("kvtc")

_ROWS = tuple(1 << power for power in range(15, 7, -1))
"""Tokens that may be coded or decoded at once, from the most to the fewest that are worth it."""


class Coder:
    """One profile's, on one device. ``is_broken``: after a call failed that had no reason to."""

    def __init__(self, decoder: Decoder, encoder: Encoder) -> None:
        import torch

        self._decoder, self._encoder = decoder, encoder
        cuda: Any = torch.cuda
        self._stream = cuda.Stream(decoder.device) if decoder.device.type == "cuda" else None
        # Memory is that of one call.
        self._lock = threading.Lock()
        self._arenas: weakref.WeakSet[Arena] = weakref.WeakSet()
        self.is_broken = False

    def fits(self, cells: Cells) -> bool:
        """Whether the cells are those of the profile's tensors; where they are not nothing is coded here any more."""
        try:
            self._decoder.check(cells.cache, is_whole=True)
        except ValueError as error:
            self._fail(f"the engine's cache is not that of the profile ({error})")
        return not self.is_broken

    def decode(
        self, blocks: Sequence[Any], slots: Sequence[np.ndarray], cells: Cells, reached: Callable[[int, Any], None]
    ) -> Collection[int]:
        """Writes blocks that the daemon has checked into the cells; which of them failed, by index. Returns when all is written."""
        try:
            with self._lock:
                self._wait(cells)
                result = self._decoder.restore(blocks, slots, cells.cache, is_verified=True, stream=self._stream, reached=reached)
                self._finish()
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error}")
            return range(len(blocks))
        for why in list(result.failed.values())[:1]:
            log.warning("%d of %d blocks cannot be decoded and are misses; one for this: %s", len(result.failed), len(blocks), why)
        return result.failed

    def encode(
        self, pages: Sequence[tuple[np.ndarray, int, np.ndarray]], cells: Cells, *, ratio: float | None, distortion: float | None,
        keeps_outliers: bool,
    ) -> list[bytes | None]:  # fmt: skip
        """A block of each page (its slots, its first position, which of its rows stay exact); None of those that are better sent as they are."""
        from ..gpu import Page

        made = [Page(slots, first, protected) for slots, first, protected in pages]
        try:
            with self._lock:
                self._wait(cells)
                return self._encoder.encode(
                    made, cells.cache, ratio=ratio, distortion=distortion, keeps_outliers=keeps_outliers, stream=self._stream
                )
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error}")
            return [None] * len(pages)

    def pin(self, arena: Arena | None) -> None:
        """Has the device know the memory that pages come and go in, as long as there is the arena."""
        if arena is None or self._stream is None or arena in self._arenas:
            return
        from ..gpu import pinned

        self._arenas.add(arena)
        stack = ExitStack()
        try:
            stack.enter_context(pinned(arena.array))
            weakref.finalize(arena, stack.close)
        except RuntimeError as error:
            log.warning("%s; pages are copied more slowly (see RLIMIT_MEMLOCK)", error)

    def _wait(self, cells: Cells) -> None:
        if self._stream and cells.free is not None:
            self._stream.wait_event(cells.free)

    def _finish(self) -> None:
        if self._stream:
            self._stream.synchronize()

    def _fail(self, why: str) -> None:
        if not self.is_broken:
            self.is_broken = True
            log.error("coding on %s failed: %s; the daemon codes from here on", self._decoder.device, why)


def make_coder(profile_file: memoryview, device: Any, element: Element, most_bytes: int) -> Coder:
    """Compiles everything, and shows that it gives the daemon's bits. Raises what `kvtc.gpu` does, ImportError without it, and MemoryError
    where so many bytes of the device are too few for the profile."""
    from ..gpu import Decoder, Encoder, Profile

    profile = Profile(profile_file)
    # The basis and, of the rows that are whole elements, a batch and its copy: what `Decoder.memory` has whatever the rows.
    if (size := sum(basis.packed.size for basis in profile.bases)) > most_bytes:
        raise MemoryError(f"the profile takes {size >> 20} MiB of the device; device_mib allows {most_bytes >> 20}")
    decoder = Decoder(profile, device, element)
    encoder = Encoder(decoder)
    decoded = next((rows for rows in _ROWS if decoder.memory(rows) <= most_bytes), None)
    coded = next((rows for rows in _ROWS if rows <= encoder.rows and decoder.resident.bytes + encoder.memory(rows) <= most_bytes), None)
    if decoded is None or coded is None:
        needed = max(decoder.memory(_ROWS[-1]), decoder.resident.bytes + encoder.memory(_ROWS[-1]))
        raise MemoryError(f"coding takes {needed >> 20} MiB of the device at least; device_mib allows {most_bytes >> 20}")
    decoder.rows, encoder.rows = decoded, coded
    return Coder(decoder, encoder)
