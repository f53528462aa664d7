"""What became of an engine's pages since it started, for the engine's own metrics."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass
class Counters:
    """Pages that were looked up and found, asked for and brought, offered and kept. Thread-safe."""

    looked_up: int = 0
    found: int = 0
    asked: int = 0
    brought: int = 0
    offered: int = 0
    kept: int = 0
    _taken: dict[str, int] = field(default_factory=dict, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, **more: int) -> None:
        with self._lock:
            for name, count in more.items():
                setattr(self, name, getattr(self, name) + count)

    def snapshot(self) -> dict[str, int]:
        """All of them at one moment."""
        with self._lock:
            return {name: getattr(self, name) for name in _NAMES}

    def taken(self) -> dict[str, int]:
        """What was counted since the last call, for metrics that add up by themselves."""
        with self._lock:
            now = {name: getattr(self, name) for name in _NAMES}
            more = {name: count - self._taken.get(name, 0) for name, count in now.items()}
            self._taken = now
        return more


_NAMES = tuple(name for name in Counters.__dataclass_fields__ if not name.startswith("_"))
