"""The ways to keep a cache that an evaluation compares: kvtcd's modes, the engine's own quantised caches, and the floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kvtc.adapters import prompts
from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.calibration.predictions import SINKS, WINDOW
from kvtc.calibration.readers import Reader, ReaderState
from kvtc.client import Client
from kvtc.keys import page_keys
from kvtc.protocol.policy import Mode, Policy
from kvtc.session import Session

from ..daemon import PATIENCE, DaemonFailed, all_coded, kept_bytes, until
from .engine import open_session

WEIGHTED_KVTC = "kvtc+weights"
"""The published coder on transform's profile, to tell the coder's share of a difference from the profile's."""
NEAR = "transform+near"
"""Transform with the window coded near-losslessly, as kvtcd does when a session is idle or over and the policy allows it."""
RATIO_MODES = ("transform", NEAR, "kvtc", WEIGHTED_KVTC)
PLAIN_MODES = ("lossless", "quant8", "quant4")
ENGINE_TYPES = ("q8_0", "q4_0")
FLOOR = "floor"
MODES = (*RATIO_MODES, *PLAIN_MODES, *ENGINE_TYPES, FLOOR)


@dataclass(frozen=True)
class Kept:
    """A cache that was kept and is back in `worker`. `state` is what came back, where it can be read.

    Sizes in bytes. Coded pages hold neither sinks nor window; the rest of `stored` does.
    """

    worker: Reader
    state: ReaderState | None
    raw: int
    stored: int
    coded_raw: int
    coded_stored: int


class Way(Protocol):
    """A mode, at one ratio where it has one."""

    mode: str
    ratio: float | None
    near: float | None

    def keep(self, tokens: Sequence[int], exact: ReaderState) -> Kept:
        """Keeps the cache of `tokens` and brings it back."""


class DaemonWay:
    """kvtcd, as any worker uses it: pages pushed, coded, measured, pulled."""

    def __init__(
        self, worker: Reader, client: Client, profile: str, mode: str, ratio: float | None = None, near: float | None = None
    ) -> None:
        self.mode, self.ratio, self.near = mode, ratio, near
        self._worker, self._client, self._profile = worker, client, profile
        coder = {WEIGHTED_KVTC: "kvtc", NEAR: "transform"}.get(mode, mode)
        self._policy = Policy(sink=SINKS, window=WINDOW, mode=Mode[coder.upper()], quality=ratio or 1, near=near)

    def keep(self, tokens: Sequence[int], exact: ReaderState) -> Kept:
        worker, client = self._worker, self._client
        profile = self._profile if Mode(self._policy.mode).needs_profile else ""
        empty = kept_bytes(client)
        with open_session(client, worker, profile, self._policy) as session:
            worker.set_state(exact)
            done = prompts.offload(session, worker, tokens, deadline=PATIENCE)
            if done.stored != done.pages:
                raise DaemonFailed(f"kvtcd stored {done.stored} of {done.pages} pages: give it more memory")
            if self.near is None:
                until(client, "coding pages", all_coded)
                return self._bring_back(session, tokens, empty, done.raw_bytes)
        # Now that the session is over its window is coded too; another one brings it back.
        until(client, "coding pages", all_coded)
        with open_session(client, worker, profile, self._policy) as session:
            return self._bring_back(session, tokens, empty, done.raw_bytes)

    def _bring_back(self, session: Session, tokens: Sequence[int], empty: int, raw: int) -> Kept:
        worker, client = self._worker, self._client
        stored = kept_bytes(client) - empty
        # What the worker holds itself would do as well.
        worker.clear()
        restored = prompts.restore(session, worker, tokens, deadline=PATIENCE)
        keys = page_keys(tokens, session.page_tokens, session.profile)
        coded = coded_pages(len(keys), session.page_tokens)
        session.drop(keys[coded.start : coded.stop])
        coded_stored = stored + empty - kept_bytes(client)
        session.drop(keys)
        if restored != len(tokens):
            raise DaemonFailed(f"kvtcd gave back {restored} of {len(tokens)} tokens")
        return Kept(worker, worker.get_state(), raw, stored, len(coded) * session.page_bytes, coded_stored)


class EngineWay:
    """llama.cpp's own quantised cache, computed and read in that type as its users do: no token of it is exact."""

    ratio = near = None

    def __init__(self, worker: LlamaWorker, mode: str) -> None:
        self.mode = mode
        self._worker, self._sibling = worker, worker.sibling(mode)

    def keep(self, tokens: Sequence[int], exact: ReaderState) -> Kept:
        self._sibling.clear()
        self._sibling.prefill(tokens)
        raw, stored = exact.token_bytes() * exact.cells, self._sibling.cache_bytes()
        return Kept(self._sibling, None, raw, stored, raw, stored)

    def close(self) -> None:
        self._sibling.close()


class FloorWay:
    """The least change there is: the last bit of every number at random. A model with quantised weights rounds its
    activations, so that any change at all moves its predictions by about as much as this one does."""

    mode, ratio, near = FLOOR, None, None

    def __init__(self, worker: Reader, seed: int) -> None:
        self._worker, self._random = worker, np.random.default_rng(seed)

    def keep(self, tokens: Sequence[int], exact: ReaderState) -> Kept:
        state = exact.copy()
        region = slice(SINKS, state.cells - WINDOW)
        for tensor in state.tensors():
            bits = tensor[region].view(np.uint16)
            bits ^= self._random.integers(0, 2, bits.shape, np.uint16)
        self._worker.set_state(state)
        size = exact.token_bytes() * exact.cells
        return Kept(self._worker, state, size, size, size, size)


def coded_pages(pages: int, page_tokens: int) -> range:
    """Numbers of the pages of a sequence that hold neither sinks nor window."""
    first = -(-SINKS // page_tokens)
    return range(first, max(first, pages - -(-WINDOW // page_tokens)))


def layer_errors(exact: ReaderState, kept: ReaderState) -> np.ndarray:
    """Squared error between sinks and window, K and V of each layer [layers, 2]; 0 where there is no V."""
    region, errors = slice(SINKS, exact.cells - WINDOW), np.zeros((exact.layers, 2))
    for role, pairs in enumerate((zip(exact.keys, kept.keys, strict=True), zip(exact.values, kept.values, strict=True))):
        for layer, (mine, theirs) in enumerate(pairs):
            difference = mine[region].astype(np.float32) - theirs[region].astype(np.float32)
            errors[layer, role] = np.square(difference, out=difference).sum(dtype=np.float64)
    return errors
