"""A progress bar with the time left, on standard error: a line that moves on a terminal, a line every ten percent elsewhere."""

from __future__ import annotations

import sys
import time


class Progress:
    """Use as a context manager and call `advance`; `total` and the steps share any unit."""

    def __init__(self, label: str, total: float, unit: str = "") -> None:
        self._label, self._total, self._unit = label, max(total, 1e-9), unit
        self._done, self._begin, self._shown = 0.0, time.monotonic(), -1.0
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        self._show()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._done = self._total
            self._show(last=True)
        elif self._terminal:
            print(file=sys.stderr)

    def advance(self, step: float = 1) -> None:
        self._done = min(self._total, self._done + step)
        self._show()

    def _show(self, last: bool = False) -> None:
        now, share = time.monotonic(), self._done / self._total
        due = now - self._shown > 0.1 if self._terminal else share >= self._shown + 0.1
        if not due and not last:
            return
        self._shown = now if self._terminal else share
        elapsed = now - self._begin
        left = f"{_clock(elapsed)}" if last else f"{_clock(elapsed * (1 - share) / share)} left" if share else ""
        filled = int(share * 24)
        count = f"{self._done:.0f}/{self._total:.0f} {self._unit}".strip()
        line = f"{self._label:<26} [{'#' * filled}{'.' * (24 - filled)}] {count} {left}"
        if self._terminal:
            print(f"\r\x1b[K{line}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """A line of progress; standard output is for results."""
    print(f"==> {text}", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(round(seconds)), 60)
    return f"{minutes}:{seconds:02}"
