"""SHA-256 of large files, kept in the user's cache directory: a model of 40 GB takes a minute to read.

A kept digest counts only for the file that it was made of: same place, device, inode, size, and times of content and of
inode to the nanosecond. The second time cannot be set back by a program.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import Any

_SETTLED_NS = 2_000_000_000
"""A file that changed less than this ago may change again without a difference in its times."""


def file_digest(path: str | os.PathLike[str]) -> bytes:
    """SHA-256 of the file's content. Raises OSError, also for what is no regular file, or changes while it is read."""
    place = os.path.realpath(path)
    # Asked before opening: a FIFO would wait for its writer.
    if not stat.S_ISREG(os.stat(place).st_mode):
        raise OSError(0, "not a regular file")
    with open(place, "rb") as file:
        before = _state(file.fileno())
        kept = _kept(place)
        if kept.get("state") == before:
            return bytes.fromhex(kept["sha256"])
        digest = hashlib.file_digest(file, "sha256").digest()
        if _state(file.fileno()) != before:
            raise OSError(0, "changed while it was read")
    if time.time_ns() - max(before[3:]) > _SETTLED_NS:
        _keep(place, {"path": place, "state": before, "sha256": digest.hex()})
    return digest


def _state(descriptor: int) -> list[int]:
    found = os.fstat(descriptor)
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _record(place: str) -> Path:
    directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvtc" / "digests"
    return directory / (hashlib.sha256(os.fsencode(place)).hexdigest()[:32] + ".json")


def _kept(place: str) -> dict[str, Any]:
    try:
        kept = json.loads(_record(place).read_text())
        return kept if isinstance(kept, dict) and len(bytes.fromhex(kept["sha256"])) == 32 else {}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return {}


def _keep(place: str, content: dict[str, Any]) -> None:
    """A home that cannot be written to costs time, no more."""
    try:
        record = _record(place)
        record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile("w", dir=record.parent, delete=False) as file:
            json.dump(content, file)
        os.replace(file.name, record)
    except (OSError, RuntimeError, ValueError):
        pass
