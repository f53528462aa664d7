"""What a worker knows of where its cache comes from: the token behind every cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .engine import Origin


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

    def matching(self, tokens: Sequence[int], identity: bytes) -> int:
        """How many of these tokens the cells begin with, as what has that identity computes them."""
        if self.doubt or self.identity != identity:
            return 0
        pairs = enumerate(zip(self.tokens, tokens, strict=False))
        return next((index for index, (held, wanted) in pairs if held != wanted), min(len(self.tokens), len(tokens)))

    def origin(self) -> Origin | None:
        return None if self.doubt else Origin(tuple(self.tokens), self.identity, self.is_exact)
