"""Files that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what takes the place of ``path`` at the end; what was there stays until then, and where the writing fails.

    What is no file, such as /dev/null or a pipe, is written to itself.
    """
    place = path.resolve()
    if place.exists() and not place.is_file():
        yield place
        return
    partial = place.with_name(f".{place.name}.partial")
    try:
        yield partial
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)
