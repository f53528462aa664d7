"""Bounded waiting: one deadline for all that a block of code asks of the daemon, and none at all while it is known to be away."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..protocol.errors import ConnectionLost, ErrorCode, KvtcError, RequestTimedOut, Unavailable, Unreachable

_end: ContextVar[float] = ContextVar("kvtc_deadline", default=math.inf)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Everything of this package that the block calls waits at most so long, all waits together; then ``RequestTimedOut``.

    Of blocks inside each other the one that ends first counts. Other threads are not affected.
    """
    token = _end.set(min(_end.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _end.reset(token)


def left(seconds: float) -> float:
    """How much of these seconds the deadline leaves; 0 when it is over."""
    return max(0.0, min(seconds, _end.get() - time.monotonic()))


def is_away(error: KvtcError) -> bool:
    """Whether the error says that no daemon answers, rather than that a request was refused."""
    return isinstance(error, (Unreachable, ConnectionLost, RequestTimedOut)) or error.code == ErrorCode.SHUTTING_DOWN


class Breaker:
    """Remembers that the daemon did not answer, so that not every turn waits for it anew.

    After a failure nothing is asked for a second; then one ``probe`` (a call that answers within ``PROBE`` seconds, or raises)
    decides, and every further failure doubles the pause, up to half a minute.
    """

    PROBE = 1.0
    FIRST, LONGEST = 1.0, 30.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pause = 0.0
        self._until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the last thing that was asked was not answered."""
        return self._pause > 0

    @contextmanager
    def guard(self, seconds: float, probe: Callable[[], object]) -> Iterator[None]:
        """Runs the block under a deadline; raises ``Unavailable`` at once while the daemon is away."""
        try:
            self._enter(probe)
            with within(seconds):
                yield
        except KvtcError as error:
            if is_away(error):
                self._failed()
            raise
        with self._lock:
            self._pause = 0.0

    def _enter(self, probe: Callable[[], object]) -> None:
        with self._lock:
            if not self._pause:
                return
            wait = self._until - time.monotonic()
            if wait > 0:
                raise Unavailable(f"kvtcd did not answer; it is asked again in {wait:.1f} s")
            # Other threads need not wait beside this one.
            self._until = time.monotonic() + self.PROBE
        with within(self.PROBE):
            probe()

    def _failed(self) -> None:
        with self._lock:
            self._pause = min(2 * self._pause, self.LONGEST) or self.FIRST
            self._until = time.monotonic() + self._pause
