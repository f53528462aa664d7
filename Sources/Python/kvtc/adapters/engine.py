"""What is asked of an engine that holds the cache of one prompt at a time, so that `prompts` can keep and restore it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np

from ..identity import Identity
from .codec import Cells


class EngineError(RuntimeError):
    """The engine refuses something, or its cache is not what it should be."""


class TokenError(EngineError, ValueError):
    """What was given are no tokens of this model, or more or fewer than can be; nothing was computed."""


def checked_tokens(tokens: Sequence[int] | np.ndarray, context: int, vocabulary: int) -> list[int]:
    """The tokens as integers. Raises TokenError for what are none of that vocabulary, or more than the context holds."""
    array = np.asarray(tokens)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TokenError(f"tokens are whole numbers in one row, not {array.dtype} of shape {array.shape}")
    if len(array) > context:
        raise TokenError(f"{len(array)} tokens do not fit a context of {context}")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < vocabulary:
        wrong = next(token for token in array.tolist() if not 0 <= token < vocabulary)
        raise TokenError(f"token {wrong} is outside the vocabulary of {vocabulary}")
    return [int(token) for token in array]


@dataclass(frozen=True)
class Origin:
    """What a state's rows were computed from: the token of every position from 0 on, and the digest of the ``Identity`` of
    what computed them. Not exact: rows that went through a lossy session."""

    tokens: tuple[int, ...]
    identity: bytes
    is_exact: bool = True


class State(Protocol):
    """A copy of the engine's cache, of tokens from position 0 on. A page is the bytes of consecutive tokens in the layout that
    the session declared."""

    origin: Origin | None

    @property
    def cells(self) -> int:
        """How many tokens it is of."""

    def token_bytes(self) -> int: ...

    def first(self, cells: int) -> Self:
        """A copy of the first cells."""

    def page(self, first: int, tokens: int) -> np.ndarray: ...

    def replace(self, first: int, tokens: int, page: np.ndarray) -> None: ...

    def device_cells(self, pages: Sequence[range]) -> Cells | None:
        """Where these tokens lie in a device's memory; None where the state is the processor's alone."""


StateT = TypeVar("StateT", bound=State)


class Worker(Protocol[StateT]):
    """One engine with one sequence. What it cannot do it says by EngineError; it stays usable."""

    @property
    def identity(self) -> Identity:
        """What keys and values computed now depend on besides the tokens."""

    @property
    def position(self) -> int:
        """Where the next token stands; 0 when the cache is empty."""

    @property
    def origin(self) -> Origin | None:
        """What the cache was computed from; None where that is not known, and `doubt` says why."""

    @property
    def doubt(self) -> str: ...

    def checked(self, tokens: Sequence[int] | np.ndarray) -> list[int]:
        """The tokens as integers; raises for what are none of the model, or more than fit."""

    def matching(self, tokens: Sequence[int]) -> int:
        """How many of these tokens the cache begins with, as computing them now gives it."""

    def truncate(self, position: int) -> None: ...

    def prefill(self, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
        """Appends tokens; the logits after the last. Raises without tokens."""

    def blank_state(self, cells: int) -> StateT:
        """A state whose rows are to be replaced."""

    def get_state(self) -> StateT: ...

    def set_state(self, state: StateT) -> None: ...
