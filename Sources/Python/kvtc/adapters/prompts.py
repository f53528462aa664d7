"""A prompt's cache, kept by kvtcd and brought back, for any engine that is a `Worker`.

A page is `session.page_tokens` tokens; its key is a hash of all tokens up to its end, so equal beginnings share pages. The tokens
after the last full page are few and computed again. Pages are those of the worker's identity: workers of other weights or
adapters never meet them, and a worker whose adapters changed since the session was opened gets and keeps nothing through it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..keys import page_keys
from ..protocol.errors import CacheMismatch
from ..protocol.messages import Residence
from ..protocol.policy import Mode
from ..session import Session
from . import breakeven
from .codec import DAEMON, Codec, Run, Whole
from .engine import EngineError, Origin, StateT, Worker
from .transfer import DEADLINE, Choice, Offload, pull_pages, push_pages

log = logging.getLogger("kvtc")


def offload(
    session: Session, worker: Worker[Any], tokens: Sequence[int], first_page: int = 0, *, deadline: float = DEADLINE
) -> Offload:
    """Pushes the full pages of the worker's sequence, which must begin with `tokens`, from `first_page` on.

    Raises CacheMismatch, a ValueError, when the sequence begins with other tokens. A cache that is no longer what computing the
    tokens gives (its cells were shifted, or computed with other adapters) is not pushed; `reason` says so. So it is when the
    daemon does not take the pages within `deadline` seconds.
    """
    chosen = _chosen(session, worker, tokens, first_page)
    return chosen if isinstance(chosen, Offload) else chosen.push(deadline)


def collect(
    session: Session, worker: Worker[Any], tokens: Sequence[int], first_page: int = 0, *, codec: Codec = DAEMON
) -> Callable[[float], Offload]:
    """As `offload`, in two parts: copies the pages now, or keeps what `codec` codes where it lies; what it returns pushes them within so
    many seconds, from any thread, while the worker goes on."""
    chosen = _chosen(session, worker, tokens, first_page, codec)
    if isinstance(chosen, Offload):
        return lambda _: chosen
    if chosen.run.cells is None:
        copies = [chosen.run.page(index) for index in range(len(chosen.run.keys))]
        return replace(chosen, run=replace(chosen.run, page=copies.__getitem__)).push
    return chosen.push


@dataclass(frozen=True)
class _Chosen:
    """Pages to be pushed."""

    session: Session
    run: Run
    codec: Codec

    def push(self, deadline: float) -> Offload:
        return push_pages(self.session, self.run, codec=self.codec, deadline=deadline)


def _chosen(session: Session, worker: Worker[Any], tokens: Sequence[int], first_page: int, codec: Codec = DAEMON) -> _Chosen | Offload:
    """What is to be pushed, or what became of it already."""
    ids, size = worker.checked(tokens), session.page_tokens
    keys = page_keys(ids, size, session.profile)
    if first_page < 0:
        raise ValueError(f"first_page is {first_page}")
    chosen = range(len(keys))[first_page:]
    if not chosen:
        return Offload(0)
    try:
        state = _fitting(session, worker, ids)
    except EngineError as error:
        log.warning("nothing offloaded: %s", error)
        return Offload(len(chosen), refused=len(chosen), reason=str(error))
    first = first_page * size
    cells = None if codec is DAEMON else state.device_cells([range(i * size, i * size + size) for i in chosen])
    return _Chosen(session, Run(keys[first_page:], first, lambda index: state.page(first + index * size, size), cells), codec)


def _fitting(session: Session, worker: Worker[StateT], tokens: Sequence[int]) -> StateT:
    """The worker's cache, read once and found to be the one that computing these tokens for the session gives, cell by cell.

    Raises CacheMismatch when it is one of other tokens, and EngineError when it may not be pushed for another reason.
    """
    if not _is_same(session, worker):
        raise EngineError(_OTHER_MODEL)
    state = worker.get_state() if worker.position else None
    origin = state.origin if state else worker.origin
    if origin is None:
        raise EngineError(worker.doubt)
    if state is None or origin.tokens[: len(tokens)] != tuple(tokens):
        alike = worker.matching(tokens)
        raise CacheMismatch(f"the cache holds {len(origin.tokens)} tokens, of which {alike} are the first of these {len(tokens)}")
    if origin.identity != session.identity:
        raise EngineError("the cache was computed with other weights or adapters than the session's")
    if not origin.is_exact and session.mode == Mode.LOSSLESS:
        raise EngineError("the cache came back from a lossy session, and this one promises exact values")
    return state


def _is_same(session: Session, worker: Worker[Any]) -> bool:
    """Whether the session was opened for what the worker is now."""
    return bool(session.identity) and session.identity == worker.identity.digest


_OTHER_MODEL = "the session was opened for other weights, adapters or another cache type than the worker has now; open another one"


def restore(
    session: Session, worker: Worker[Any], tokens: Sequence[int], *, codec: Codec = DAEMON, lease_ms: int | None = None,
    deadline: float = DEADLINE, choose: Choice = len,
) -> int:  # fmt: skip
    """Brings the worker's cache to the longest beginning of `tokens` that can be had without computing; returns its length.

    That is what kvtcd has, or what the worker holds itself where that is as long; its cache is replaced when the new one is
    complete. Then it holds nothing else: with 0 it is empty. A page that turns out missing or damaged, or does not come
    within `deadline` seconds, ends the beginning there. `choose` may end it earlier.
    """
    ids = worker.checked(tokens)
    own = worker.matching(ids)
    if own < len(ids) - len(ids) % session.page_tokens:
        state, there = fetch_state(
            session, worker, ids, codec=codec, lease_ms=lease_ms, deadline=deadline, beyond=own, choose=choose
        )
        if state is not None and there > own:
            try:
                worker.set_state(state if there == state.cells else state.first(there))
                return there
            except EngineError as error:
                log.warning("the engine does not take the restored cache: %s", error)
                own = 0
    worker.truncate(own)
    return own


def fetch_state(
    session: Session,
    worker: Worker[StateT],
    tokens: Sequence[int],
    *,
    codec: Codec = DAEMON,
    lease_ms: int | None = None,
    deadline: float = DEADLINE,
    beyond: int = 0,
    choose: Choice = len,
) -> tuple[StateT | None, int]:
    """The state of the longest beginning of `tokens` that kvtcd has, and how many of its tokens are there.

    Cells after those hold nothing of use: the pages that were found, but could not be brought in time. A beginning of no more
    than `beyond` tokens is not fetched. `lease_ms`: how long kvtcd keeps the pages for this; by itself, until the deadline.
    """
    ids, size = worker.checked(tokens), session.page_tokens
    keys = page_keys(ids, size, session.profile)
    if not _is_same(session, worker):
        log.warning("nothing restored: %s", _OTHER_MODEL)
        return None, 0
    state: StateT | None = None

    def prepare(pages: int) -> Whole | None:
        nonlocal state
        if pages * size <= beyond:
            return None
        state = blank = worker.blank_state(pages * size)
        places = [range(index * size, index * size + size) for index in range(pages)]
        cells = None if codec is DAEMON else blank.device_cells(places)
        return Whole(lambda index, page: blank.replace(index * size, size, page), cells)

    arrived = pull_pages(session, keys, prepare, codec=codec, lease_ms=lease_ms, deadline=deadline, choose=choose)
    if state is None:
        return None, 0
    state.origin = Origin(tuple(ids[: state.cells]), session.identity, session.mode == Mode.LOSSLESS)
    return state, int(np.argmin([*arrived, False])) * size


def restore_if_faster(
    session: Session, worker: Worker[Any], tokens: Sequence[int], *, codec: Codec = DAEMON, deadline: float = DEADLINE
) -> int:
    """As `restore`, but only as much as is there sooner than by computing it: what kvtcd tells that its pulls take, against what this
    worker's prefills took. Where none was seen yet all is brought back, as it is where a device decodes, of which kvtcd knows
    nothing: to measure one would take longer than most restores do.
    """
    if codec is not DAEMON:
        return restore(session, worker, tokens, codec=codec, deadline=deadline)
    ids, even = worker.checked(tokens), breakeven.of(session.identity)
    even.ask(session, deadline)
    own, size = worker.matching(ids), session.page_tokens

    def choose(found: Sequence[Residence]) -> int:
        return even.pages(even.costs.of(found, size), size, len(ids), own)

    return restore(session, worker, ids, deadline=deadline, choose=choose)


def resume(
    session: Session, worker: Worker[Any], tokens: Sequence[int], *, deadline: float = DEADLINE, always_restore: bool = False
) -> np.ndarray:
    """Brings the worker to the end of `tokens` by restoring and computing the rest; the logits after the last token.

    What is computed sooner than it is brought back is computed, unless `always_restore`. Raises what the engine does, before
    anything is touched, without tokens, or with what are none of the model, or do not fit.
    """
    ids = worker.checked(tokens)
    if not ids:
        # Engines refuse that in words of their own.
        return worker.prefill(ids)
    bring = restore if always_restore else restore_if_faster
    restored = bring(session, worker, ids, deadline=deadline)
    if restored == len(ids):
        # Logits are not part of the cache: the last token is computed again.
        restored -= 1
        worker.truncate(restored)
    with breakeven.of(session.identity).prefilling(restored, len(ids) - restored):
        return worker.prefill(ids[restored:])
