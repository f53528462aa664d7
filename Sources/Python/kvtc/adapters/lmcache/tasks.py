"""Work that LMCache leaves to an adapter and asks for later: a number each, a descriptor that tells when some is done."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from ..background import Background

log = logging.getLogger("kvtc")
T = TypeVar("T")


class Tasks(Generic[T]):
    """Tasks of one kind, carried out in a thread one after another. ``failed`` makes the result of one that was not, or that raised."""

    def __init__(self, name: str, pending: int = 256) -> None:
        self._thread = Background(name, pending)
        self._lock = threading.Lock()
        self._next = 0
        self._done: dict[int, T] = {}
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def submit(self, work: Callable[[], T], failed: Callable[[], T]) -> int:
        """The task's number, at once."""
        with self._lock:
            number, self._next = self._next, self._next + 1

        def job() -> None:
            result = None
            try:
                result = work()
            except Exception:
                # Said before the result is there: who takes it may look.
                log.exception("a task of LMCache's failed; going on")
            finally:
                self._finish(number, failed() if result is None else result)

        if not self._thread.submit(job):
            self._finish(number, failed())
        return number

    def take(self, number: int) -> T | None:
        """The result of a task, once; None while there is none."""
        with self._lock:
            return self._done.pop(number, None)

    def take_all(self) -> dict[int, T]:
        with self._lock:
            done, self._done = self._done, {}
        return done

    def close(self) -> None:
        """Returns when all that was submitted is done."""
        self._thread.close()
        os.close(self.descriptor)

    def _finish(self, number: int, result: T) -> None:
        with self._lock:
            self._done[number] = result
        os.eventfd_write(self.descriptor, 1)
