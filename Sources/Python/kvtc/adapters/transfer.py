"""Pages to kvtcd and back, without ever being worse off than with no kvtcd.

A daemon that is away, stuck, full or slow costs at most a deadline, and the calls after that nothing, until it answers again.
Why is logged; none of it raises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..leases import Lease, Lookup
from ..protocol.errors import ErrorCode, KvtcError, Unavailable
from ..protocol.geometry import Geometry
from ..protocol.messages import PullOutcome, PushOutcome, Residence
from ..push import Page
from ..session import Session

DEADLINE = 5.0
"""Seconds that a call waits for kvtcd, all in all. Caches of many gigabytes may take longer: give more."""
_LONGEST_LEASE = 0xFFFFFFFF
Place = Callable[[int, np.ndarray], None]
"""Takes a page by its index among the keys; its bytes are valid until it returns."""
PlacePart = Callable[[int, range, np.ndarray], None]
"""Takes some layers of a page, in the order of layers; those of a page that failed come again from the first, or not at all."""

log = logging.getLogger("kvtc")


@dataclass(frozen=True)
class Offload:
    """What became of a sequence's pages.

    ``present`` pages were there already. ``non_finite`` ones hold NaN or infinity, which a healthy model does not compute; they are
    kept until finite ones are pushed. ``refused`` pages are not kept: the daemon is full, they exceed a limit, or ``reason``
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


def push_pages(session: Session, pages: Iterable[Page], count: int, raw_bytes: int, *, deadline: float = DEADLINE) -> Offload:
    """Pushes `count` pages of `raw_bytes` together."""
    try:
        with session.client.bounded(deadline):
            outcomes = tuple(session.push(pages))
    except KvtcError as error:
        _explain(session, error)
        return Offload(count, refused=count, raw_bytes=raw_bytes, reason=str(error))
    present, non_finite = outcomes.count(PushOutcome.PRESENT), outcomes.count(PushOutcome.NON_FINITE)
    refused = outcomes.count(PushOutcome.FULL) + outcomes.count(PushOutcome.TOO_LARGE)
    stored = len(outcomes) - present - non_finite - refused
    if non_finite:
        log.warning("%d of %d pages hold NaN or infinity", non_finite, len(outcomes))
    return Offload(count, stored, present, refused, raw_bytes, non_finite, outcomes=outcomes)


def pull_pages(
    session: Session,
    keys: Sequence[bytes],
    prepare: Callable[[int], Place | None],
    *,
    lease_ms: int | None = None,
    deadline: float = DEADLINE,
) -> NDArray[np.bool_]:
    """Brings the pages of the leading run; which of all the keys' arrived whole and in time [keys].

    `prepare` is told how many pages were found and says where they go, in whatever order they come; None brings none.
    `lease_ms`: how long kvtcd keeps them for this; by itself, until the deadline.
    """
    arrived = np.zeros(len(keys), bool)
    wanted = int(min(deadline * 1000 + 1000 if lease_ms is None else lease_ms, _LONGEST_LEASE))
    try:
        with session.client.bounded(deadline):
            found = _lookup(session, keys, wanted)
            try:
                if place := prepare(found.leading_run):
                    _bring(session, keys[: found.leading_run], place, arrived, found.lease)
            finally:
                # It ends by itself, too.
                with suppress(KvtcError):
                    if found.lease:
                        found.lease.release()
    except KvtcError as error:
        _explain(session, error)
    return arrived


def pull_found(session: Session, keys: Sequence[bytes], place: Place, *, deadline: float = DEADLINE) -> NDArray[np.bool_]:
    """Brings those of the pages that are there, wherever they stand among the keys; which arrived whole and in time [keys].

    For engines that have looked the pages up before and have a place for each.
    """
    arrived = np.zeros(len(keys), bool)
    try:
        with session.client.bounded(deadline):
            _bring(session, keys, place, arrived, None)
    except KvtcError as error:
        _explain(session, error)
    return arrived


def pull_parts(
    session: Session, keys: Sequence[bytes], geometry: Geometry, layer_step: int, place: PlacePart, *, deadline: float = DEADLINE
) -> NDArray[np.bool_]:
    """Brings those of the pages that are there by so many layers at a time, the first ones of all pages before later ones of any; which
    arrived whole and in time [keys]. For engines that compute with the first layers while the others are on their way.

    ``geometry``: as the daemon has it, where the session leaves that to the profile.
    """
    here = np.zeros(len(keys), int)
    try:
        with session.client.bounded(deadline):
            for part in session.pull(keys, layer_step=layer_step):
                size = session.layout.page_bytes(geometry, session.page_tokens, part.layers)
                if part.outcome != PullOutcome.HIT or len(part.data) != size:
                    here[part.index] = 0
                    continue
                place(part.index, part.layers, np.frombuffer(part.data, np.uint8))
                part.require_valid()
                here[part.index] = part.layers.stop if part.layers.start in (0, here[part.index]) else 0
    except KvtcError as error:
        _explain(session, error)
    return np.asarray(here >= geometry.layers)


def found_pages(
    session: Session, keys: Sequence[bytes], *, deadline: float = DEADLINE, lease_ms: int = 0
) -> tuple[NDArray[np.bool_], Lease | None]:
    """Which of the pages kvtcd has [keys], and a lease on the leading run where one is asked for; none where it does not answer in time."""
    try:
        with session.client.bounded(deadline):
            found = _lookup(session, keys, lease_ms)
            return np.array([where != Residence.ABSENT for where in found.residence], bool), found.lease
    except KvtcError as error:
        _explain(session, error)
        return np.zeros(len(keys), bool), None


def _bring(session: Session, keys: Sequence[bytes], place: Place, arrived: NDArray[np.bool_], lease: Lease | None) -> None:
    for part in session.pull(keys, lease=lease):
        is_whole = part.outcome == PullOutcome.HIT and len(part.data) == session.page_bytes
        if is_whole:
            place(part.index, np.frombuffer(part.data, np.uint8))
            part.require_valid()
        arrived[part.index] = is_whole


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
