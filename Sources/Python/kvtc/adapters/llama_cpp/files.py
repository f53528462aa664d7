"""The files that a model is loaded from, as they are now."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ...digests import file_digest
from .library import LlamaError

_PART = re.compile(r"-00001-of-(\d{5})\.gguf$")


def model_files(path: Path) -> list[Path]:
    """All files of a model, of which `path` is the first: large ones are split into "…-00001-of-00003.gguf" and so on."""
    if not (match := _PART.search(path.name)):
        return [path]
    stem, count = path.name[: match.start()], match[1]
    return [path.with_name(f"{stem}-{index:05d}-of-{count}.gguf") for index in range(1, int(count) + 1)]


class ModelFiles:
    """The files that an engine maps. They stay open, so that a change of what is mapped is seen whatever becomes of the name."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._files = [path.open("rb") for path in paths]
        self._states = [self._state(file.fileno()) for file in self._files]
        self._digests = [file_digest(path) for path in paths]

    @staticmethod
    def _state(descriptor: int) -> tuple[int, int]:
        found = os.fstat(descriptor)
        return found.st_size, found.st_mtime_ns

    def check(self) -> None:
        """Raises LlamaError when the names have come to stand for other files, or other content, since they were opened."""
        for path, file, state in zip(self._paths, self._files, self._states, strict=True):
            if not os.path.samestat(os.stat(path), os.fstat(file.fileno())) or self._state(file.fileno()) != state:
                raise LlamaError(f"{path} changed while it was loaded; load it again")

    def digest(self) -> bytes:
        """SHA-256 of their content as it is now, read again when they were written to."""
        for index, file in enumerate(self._files):
            if (state := self._state(file.fileno())) != self._states[index]:
                file.seek(0)
                self._digests[index], self._states[index] = hashlib.file_digest(file, "sha256").digest(), state
        return self._digests[0] if len(self._digests) == 1 else hashlib.sha256(b"".join(self._digests)).digest()

    def close(self) -> None:
        for file in self._files:
            file.close()
