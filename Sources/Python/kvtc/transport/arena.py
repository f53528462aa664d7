"""Memory shared with the daemon: pages are written to and read from it instead of travelling through the socket."""

from __future__ import annotations

import mmap
import os
import threading
import time

import numpy as np

from ..protocol.errors import KvtcError, RequestTimedOut

ALIGNMENT = 64


class Region:
    """A part of the arena in use for one request, and for those who keep what came of it."""

    def __init__(self, arena: Arena, offset: int, length: int):
        self.arena, self.offset, self.length = arena, offset, length
        self._users, self._counting = 1, threading.Lock()

    def keep(self) -> None:
        """Has one more ``free`` to come."""
        with self._counting:
            self._users += 1

    def free(self) -> None:
        with self._counting:
            self._users -= 1
            is_last = self._users == 0
        if is_last:
            self.arena.give_back(self)


class Arena:
    """The mapped arena and what of it is free. Regions are handed out first fit; threads wait when none is left."""

    def __init__(self, number: int, length: int, descriptor: int):
        try:
            if os.fstat(descriptor).st_size < length:
                raise KvtcError("the daemon's arena is smaller than it says", advice="report this as a bug of kvtcd")
            self._map = mmap.mmap(descriptor, length)
        finally:
            os.close(descriptor)
        self.number = number
        self.length = length
        self.view = memoryview(self._map)
        self.array = np.frombuffer(self._map, np.uint8)
        self._free = [(0, length)]
        self._changed = threading.Condition()

    def take(self, length: int, timeout: float) -> Region:
        """A region of that many bytes; waits for other requests to give theirs back."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                region = self.try_take(length)
                if region is not None:
                    return region
                if not self._changed.wait(max(deadline - time.monotonic(), 0)):
                    raise RequestTimedOut(
                        f"{length} bytes of the arena did not become free within {timeout} s",
                        advice="finish or close other pulls of this client, or connect with a larger arena_bytes",
                    )

    def try_take(self, length: int) -> Region | None:
        """A region of that many bytes, or None when none is free right now."""
        needed = -(-max(length, 1) // ALIGNMENT) * ALIGNMENT
        if length > self.length:
            raise KvtcError(
                f"{length} bytes do not fit in an arena of {self.length}",
                advice="connect with a larger arena_bytes, or use smaller pages",
            )
        needed = min(needed, self.length)
        with self._changed:
            for index, (offset, free) in enumerate(self._free):
                if free >= needed:
                    if free == needed:
                        del self._free[index]
                    else:
                        self._free[index] = (offset + needed, free - needed)
                    return Region(self, offset, needed)
        return None

    def give_back(self, region: Region) -> None:
        with self._changed:
            spans = sorted([*self._free, (region.offset, region.length)])
            merged = [spans[0]]
            for offset, length in spans[1:]:
                last, size = merged[-1]
                if last + size == offset:
                    merged[-1] = (last, size + length)
                else:
                    merged.append((offset, length))
            self._free = merged
            self._changed.notify_all()
