"""How far a program is, on standard error: standard output is for results."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


class Phases:
    """Seconds that the parts of a program took, in the order in which they began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times what is inside; a part that comes again is added up."""
        begin = time.monotonic()
        self.seconds.setdefault(name, 0.0)
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - begin


class _Lines:
    """Standard error where no line can move: each state of a bar is a line of its own."""

    def write(self, text: str) -> None:
        if state := text.strip():
            print(state, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


def bar(label: str, total: int, unit: str) -> tqdm:
    """A context manager with ``update``: a bar with the time left on a terminal, a line every ten percent elsewhere."""
    if sys.stderr.isatty():
        return tqdm(desc=label, total=total, unit=f" {unit}", dynamic_ncols=True)
    tenth = max(total / 10, 1)
    return tqdm(
        desc=label, total=total, unit=f" {unit}", file=_Lines(), ncols=120, leave=False, miniters=tenth, mininterval=0, maxinterval=math.inf
    )


def shown(text: object) -> str:
    """The text on one line, without what steers a terminal: names come from model files, which anybody may have made."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def complain(program: str, error: object) -> None:
    """Why a program could not do what it was asked for."""
    print(f"{program}: {shown(error)}", file=sys.stderr)


def say(text: str) -> None:
    """A line, above a bar where there is one."""
    tqdm.write(f"==> {shown(text)}", file=sys.stderr)
