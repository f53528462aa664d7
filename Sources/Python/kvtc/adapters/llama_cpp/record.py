"""What a worker knows of where its cache comes from: the model's files as they are now, and the token behind every cell."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...digests import file_digest
from .library import LlamaError
from .state import Origin

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


class TokenRecord:
    """Which tokens the cells of a sequence were computed from, position by position from 0 on, and by what.

    `doubt` says why that is not known, and stays until the sequence begins anew. `is_exact` is false of rows that a lossy
    session gave back, and of those computed after them.
    """

    def __init__(self, origin: Origin | None = None, doubt: str = "") -> None:
        self.tokens = list(origin.tokens) if origin else []
        self.identity = origin.identity if origin else b""
        self.is_exact = origin.is_exact if origin else True
        self.doubt = doubt

    def append(self, tokens: Sequence[int], identity: bytes) -> None:
        """These tokens were computed after those before."""
        if self.tokens and self.identity != identity:
            self.doubt = self.doubt or "its cells were computed with different weights or adapters"
        self.identity = identity
        self.tokens += tokens

    def cut(self, position: int) -> None:
        """The cells from there on are gone."""
        del self.tokens[position:]

    def observe(self, positions: NDArray[np.int32]) -> None:
        """Compares with the positions of the engine's cells, in the order in which it keeps them: programs beside this one may
        have moved or removed some. Those of a sequence that only grows and is cut at its end count up from 0."""
        if not np.array_equal(positions, np.arange(len(self.tokens))):
            self._doubt_cells(f"the engine's {len(positions)} cells are not at the positions of")

    def observe_end(self, position: int) -> None:
        """Compares with where the engine goes on: all that is known of its cells without reading them."""
        if position != len(self.tokens):
            self._doubt_cells(f"the engine is at position {position} after")

    def _doubt_cells(self, what: str) -> None:
        self.doubt = self.doubt or (
            f"{what} {len(self.tokens)} tokens: cells were shifted or removed, and hold other keys than a computed sequence"
        )

    def origin(self) -> Origin | None:
        return None if self.doubt else Origin(tuple(self.tokens), self.identity, self.is_exact)
