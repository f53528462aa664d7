"""Pages to kvtcd and back, without ever being worse off than with no kvtcd.

A daemon that is away, stuck, full or slow costs at most a deadline, and the calls after that nothing, until it answers again.
Why is logged; none of it raises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..leases import Lease, Lookup
from ..protocol.errors import ErrorCode, KvtcError, Unavailable
from ..protocol.messages import PushOutcome, Residence
from ..session import Session
from .codec import DAEMON, Codec, Run, Target

DEADLINE = 5.0
"""Seconds that a call waits for kvtcd, all in all. Caches of many gigabytes may take longer: give more."""
_LONGEST_LEASE = 0xFFFFFFFF
Choice = Callable[[Sequence[Residence]], int]
"""How many pages of the leading run are to be brought, by where each is."""

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


def push_pages(session: Session, run: Run, *, codec: Codec = DAEMON, deadline: float = DEADLINE) -> Offload:
    """Pushes the pages of a run."""
    count, raw_bytes = len(run.keys), len(run.keys) * session.page_bytes
    try:
        with session.client.bounded(deadline):
            outcomes = tuple(codec.send(session, run))
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
    prepare: Callable[[int], Target | None],
    *,
    codec: Codec = DAEMON,
    lease_ms: int | None = None,
    deadline: float = DEADLINE,
    choose: Choice = len,
) -> NDArray[np.bool_]:
    """Brings the pages of the leading run; which of all the keys' arrived whole and in time [keys].

    `prepare` is told how many pages were found and says where they go, in whatever order they come; None brings none.
    `lease_ms`: how long kvtcd keeps them for this; by itself, until the deadline. `choose` says how many of those found are wanted.
    """
    arrived = np.zeros(len(keys), bool)
    wanted = int(min(deadline * 1000 + 1000 if lease_ms is None else lease_ms, _LONGEST_LEASE))
    try:
        with session.client.bounded(deadline):
            found = _lookup(session, keys, wanted)
            try:
                run = choose(found.residence[: found.leading_run])
                if target := prepare(run):
                    codec.bring(session, keys[:run], target, arrived, found.lease)
            finally:
                # It ends by itself, too.
                with suppress(KvtcError):
                    if found.lease:
                        found.lease.release()
    except KvtcError as error:
        _explain(session, error)
    return arrived


def pull_found(
    session: Session, keys: Sequence[bytes], target: Target, *, codec: Codec = DAEMON, deadline: float = DEADLINE
) -> NDArray[np.bool_]:
    """Brings those of the pages that are there, wherever they stand among the keys; which arrived whole and in time [keys].

    For engines that have looked the pages up before and have a place for each.
    """
    arrived = np.zeros(len(keys), bool)
    try:
        with session.client.bounded(deadline):
            codec.bring(session, keys, target, arrived, None)
    except KvtcError as error:
        _explain(session, error)
    return arrived


def found_pages(
    session: Session, keys: Sequence[bytes], *, deadline: float = DEADLINE, lease_ms: int = 0
) -> tuple[list[Residence], Lease | None]:
    """Where kvtcd has each of the pages [keys], and a lease on the leading run where one is asked for; none where it does not answer in time."""
    try:
        with session.client.bounded(deadline):
            found = _lookup(session, keys, lease_ms)
            return list(found.residence), found.lease
    except KvtcError as error:
        _explain(session, error)
        return [Residence.ABSENT] * len(keys), None


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
