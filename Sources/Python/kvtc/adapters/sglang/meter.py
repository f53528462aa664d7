"""How many pages went, and how fast, as SGLang's metrics of storage backends have it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

_CALLS = 4096
"""Kept until SGLang asks: it may never."""


class Meter:
    """``page_bytes``: of one page. Thread-safe."""

    def __init__(self, page_bytes: int) -> None:
        self._gib = page_bytes / 2**30
        self._lock = threading.Lock()
        self._calls: deque[tuple[str, int, float]] = deque(maxlen=_CALLS)

    @contextmanager
    def timed(self, direction: str, pages: int) -> Iterator[None]:
        """Notes a call that moves so many pages: a "prefetch" or a "backup"."""
        begin = time.perf_counter()
        yield
        with self._lock:
            self._calls.append((direction, pages, time.perf_counter() - begin))

    def take(self) -> Any:
        """SGLang's StorageMetrics of the calls since the last time: pages, and GiB a second, of each."""
        with self._lock:
            calls, self._calls = self._calls, deque(maxlen=_CALLS)
        metrics = import_module("sglang.srt.observability.metrics_collector").StorageMetrics()
        for direction, pages, seconds in calls:
            getattr(metrics, f"{direction}_pgs").append(pages)
            getattr(metrics, f"{direction}_bandwidth").append(pages * self._gib / max(seconds, 1e-9))
        return metrics
