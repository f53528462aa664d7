"""What a llama.cpp worker hands to kvtcd and takes back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from ...client import Client
from ...keys import page_keys
from ...leases import Lookup
from ...protocol.errors import CacheMismatch, ErrorCode, KvtcError, Unavailable
from ...protocol.geometry import NO_ROPE, Geometry, Layout, Role, RotaryStyle, Tensor
from ...protocol.messages import PullOutcome, PushOutcome
from ...protocol.policy import Mode, Policy
from ...push import Page
from ...session import Session
from .geometry import ModelGeometry
from .library import LlamaError, TokenError
from .state import Origin, SequenceState, StateError, blank_state
from .worker import LlamaWorker

DEADLINE = 5.0
"""Seconds that a call waits for kvtcd, all in all. Caches of many gigabytes may take longer: give more."""
_LONGEST_LEASE = 0xFFFFFFFF

log = logging.getLogger("kvtc")


@dataclass(frozen=True)
class Offload:
    """What became of a sequence's pages.

    ``present`` pages were there already. ``non_finite`` ones hold NaN or infinity, which a healthy model does not compute; they are
    kept until somebody pushes finite ones. ``refused`` pages are not kept: the daemon is full, they exceed a limit, or ``reason``
    says why. ``outcomes`` has what the daemon answered for each page, and is empty where it did not.
    """

    pages: int
    stored: int = 0
    present: int = 0
    refused: int = 0
    raw_bytes: int = 0
    non_finite: int = 0
    reason: str = ""
    outcomes: tuple[PushOutcome, ...] = ()


def wire_geometry(model: ModelGeometry) -> Geometry:
    """The geometry that a session of this model declares. RoPE is part of it where the model file tells its frequencies:
    measured ones differ in their last digits from worker to worker."""
    rope = model.rope
    if rope.base is None:
        rope = replace(rope, style="none", dims=0, offset=0)
    tables = [list(table) for table in dict.fromkeys(rope.frequencies)] if rope.dims else []
    style = RotaryStyle[rope.style.upper()]
    keys, tensors = Role.LATENT if model.is_latent else Role.KEY, []
    for layer in range(model.layers):
        table = tables.index(list(rope.frequencies[layer])) if tables else NO_ROPE
        tensors.append(Tensor(layer, keys, style, model.heads, model.head_dim, rope.offset, rope.dims, table))
        if not model.is_latent:
            tensors.append(Tensor(layer, Role.VALUE, RotaryStyle.NONE, model.heads, model.value_dim))
    return Geometry(tensors, tables)


def profile_for(client: Client, worker: LlamaWorker) -> str:
    """The id of the daemon's profile that was calibrated on this worker's weights; empty where there is none.

    The weights are those of the file's content (`kvtc.calibration.capture` writes their digest). Other profiles of the same shape would
    work, but code worse than they promise.
    """
    digest = worker.weights.hex()
    return next((str(profile["id"]) for profile in client.profiles() if profile.get("weights") == digest), "")


def open_session(
    client: Client,
    worker: LlamaWorker,
    name: str,
    *,
    profile: bytes | str = b"",
    policy: Policy | None = None,
    page_tokens: int = 64,
) -> Session:
    """A session whose pages are what llama.cpp's state holds: f16, K of all layers, then V, token by token.

    Raises KvtcError when the daemon refuses it or does not answer, and for a cache of another element type (q8_0, q4_0), whose
    state cannot be read.
    """
    if worker.cache != "f16":
        raise KvtcError(
            f"the worker's cache holds {worker.cache}, and the state of such a cache cannot be read",
            field="cache",
            advice="offload from a worker with an f16 cache; kvtcd makes it smaller",
        )
    # Frequencies that were measured differ in their last digits from those of the profile, which decides then.
    is_exact = worker.geometry.rope.base is not None or not profile
    session = client.open_session(
        name,
        geometry=wire_geometry(worker.geometry) if is_exact else Geometry(),
        layout=Layout(),
        profile=profile,
        policy=policy,
        page_tokens=page_tokens,
        identity=worker.identity,
    )
    if session.token_bytes != worker.geometry.token_bytes:
        session.close()
        raise KvtcError(f"a token has {worker.geometry.token_bytes} bytes here and {session.token_bytes} for the daemon")
    return session


def offload(
    session: Session, worker: LlamaWorker, tokens: Sequence[int], first_page: int = 0, *, deadline: float = DEADLINE
) -> Offload:
    """Pushes the full pages of the worker's sequence, which must begin with `tokens`, from `first_page` on.

    Raises CacheMismatch, a ValueError, when the sequence begins with other tokens. A cache that is no longer what computing the
    tokens gives (its cells were shifted, or computed with other adapters) is not pushed; `reason` says so. So it is when the
    daemon does not take the pages within `deadline` seconds.
    """
    ids, size = worker.checked(tokens), session.page_tokens
    keys = page_keys(ids, size, session.profile)
    if first_page < 0:
        raise ValueError(f"first_page is {first_page}")
    chosen = range(len(keys))[first_page:]
    if not chosen:
        return Offload(0)
    try:
        state = _fitting(session, worker, ids)
    except (LlamaError, StateError) as error:
        log.warning("nothing offloaded: %s", error)
        return Offload(len(chosen), refused=len(chosen), reason=str(error))
    pages = (Page(keys[i], i * size, state.page(i * size, size), size) for i in chosen)
    raw_bytes = len(chosen) * size * state.token_bytes()
    try:
        with session.client.bounded(deadline):
            outcomes = tuple(session.push(pages))
    except KvtcError as error:
        _explain(session, error)
        return Offload(len(chosen), refused=len(chosen), raw_bytes=raw_bytes, reason=str(error))
    present, non_finite = outcomes.count(PushOutcome.PRESENT), outcomes.count(PushOutcome.NON_FINITE)
    refused = outcomes.count(PushOutcome.FULL) + outcomes.count(PushOutcome.TOO_LARGE)
    stored = len(outcomes) - present - non_finite - refused
    if non_finite:
        log.warning("%d of %d pages hold NaN or infinity", non_finite, len(outcomes))
    return Offload(len(chosen), stored, present, refused, raw_bytes, non_finite, outcomes=outcomes)


def _fitting(session: Session, worker: LlamaWorker, tokens: Sequence[int]) -> SequenceState:
    """The worker's cache, read once and found to be the one that computing these tokens for the session gives, cell by cell.

    Raises CacheMismatch when it is one of other tokens, and LlamaError or StateError when it may not be pushed for another reason.
    """
    if not _is_same(session, worker):
        raise LlamaError(_OTHER_MODEL)
    state = worker.get_state() if worker.position else None
    origin = state.origin if state else worker.origin
    if origin is None:
        raise LlamaError(worker.doubt)
    if state is None or origin.tokens[: len(tokens)] != tuple(tokens):
        alike = worker.matching(tokens)
        raise CacheMismatch(f"the cache holds {len(origin.tokens)} tokens, of which {alike} are the first of these {len(tokens)}")
    if origin.identity != session.identity:
        raise LlamaError("the cache was computed with other weights or adapters than the session's")
    if not origin.is_exact and session.mode == Mode.LOSSLESS:
        raise LlamaError("the cache came back from a lossy session, and this one promises exact values")
    return state


def _is_same(session: Session, worker: LlamaWorker) -> bool:
    """Whether the session was opened for what the worker is now."""
    return bool(session.identity) and session.identity == worker.identity.digest


_OTHER_MODEL = "the session was opened for other weights, adapters or another cache type than the worker has now; open another one"


def restore(
    session: Session, worker: LlamaWorker, tokens: Sequence[int], *, lease_ms: int | None = None, deadline: float = DEADLINE
) -> int:
    """Brings the worker's cache to the longest beginning of `tokens` that can be had without computing; returns its length.

    That is what kvtcd has, or what the worker holds itself where that is as long; its cache is replaced when the new one is
    complete. Then it holds nothing else: with 0 it is empty. A page that turns out missing or damaged, or does not come
    within `deadline` seconds, ends the beginning there.
    """
    ids = worker.checked(tokens)
    own = worker.matching(ids)
    if own < len(ids) - len(ids) % session.page_tokens:
        state, there = fetch_state(session, worker, ids, lease_ms=lease_ms, deadline=deadline, beyond=own)
        if state is not None and there > own:
            try:
                worker.set_state(state if there == state.cells else state.first(there))
                return there
            except LlamaError as error:
                log.warning("llama.cpp does not take the restored cache: %s", error)
                own = 0
    worker.truncate(own)
    return own


def fetch_state(
    session: Session,
    worker: LlamaWorker,
    tokens: Sequence[int],
    *,
    lease_ms: int | None = None,
    deadline: float = DEADLINE,
    beyond: int = 0,
) -> tuple[SequenceState | None, int]:
    """The state of the longest beginning of `tokens` that kvtcd has, and how many of its tokens are there.

    Cells after those hold nothing of use: the pages that were found, but could not be brought in time. A beginning of no more
    than `beyond` tokens is not fetched. `lease_ms`: how long kvtcd keeps the pages for this; by itself, until the deadline.
    """
    ids, size = worker.checked(tokens), session.page_tokens
    keys = page_keys(ids, size, session.profile)
    state, arrived = None, np.zeros(len(keys), bool)
    if not _is_same(session, worker):
        log.warning("nothing restored: %s", _OTHER_MODEL)
        return None, 0
    wanted = int(min(deadline * 1000 + 1000 if lease_ms is None else lease_ms, _LONGEST_LEASE))
    try:
        with session.client.bounded(deadline):
            found = _lookup(session, keys, wanted)
            try:
                if found.leading_run * size > beyond:
                    state = blank_state(range(found.leading_run * size), worker.state_form)
                    for part in session.pull(keys[: found.leading_run], lease=found.lease):
                        is_whole = part.outcome == PullOutcome.HIT and len(part.data) == session.page_bytes
                        if is_whole:
                            state.replace(part.index * size, size, np.frombuffer(part.data, np.uint8))
                        arrived[part.index] = is_whole
            finally:
                # It ends by itself, too.
                with suppress(KvtcError):
                    if found.lease:
                        found.lease.release()
    except KvtcError as error:
        _explain(session, error)
    if state is None:
        return None, 0
    state.origin = Origin(tuple(ids[: state.cells]), session.identity, session.mode == Mode.LOSSLESS)
    return state, int(np.argmin([*arrived, False])) * size


def _lookup(session: Session, keys: Sequence[bytes], lease_ms: int) -> Lookup:
    """With a lease of that length, or the longest that the daemon's limits allow; at worst none."""
    while True:
        try:
            return session.lookup(keys, lease_ms)
        except KvtcError as error:
            if error.code != ErrorCode.LIMIT_EXCEEDED or not lease_ms:
                raise
        lease_ms = lease_ms // 2 if lease_ms > 1000 else 0


def _explain(session: Session, error: KvtcError) -> None:
    """Logs what failed, once while it lasts, and makes the session usable again where the daemon ended it."""
    if not isinstance(error, Unavailable):
        log.warning("%s; going on without kvtcd", error)
    if error.code == ErrorCode.UNKNOWN_SESSION:
        with suppress(KvtcError):
            session.reopen()


def resume(session: Session, worker: LlamaWorker, tokens: Sequence[int], *, deadline: float = DEADLINE) -> np.ndarray:
    """Brings the worker to the end of `tokens` by restoring and computing the rest; the logits after the last token.

    Raises TokenError, before anything is touched, without tokens, or with what are none of the model, or do not fit its context.
    """
    ids = worker.checked(tokens)
    if not ids:
        raise TokenError("there are no tokens to resume")
    restored = restore(session, worker, ids, deadline=deadline)
    if restored == len(ids):
        # Logits are not part of the cache: the last token is computed again.
        restored -= 1
        worker.truncate(restored)
    return worker.prefill(ids[restored:])
