"""Streaming pulls: batches of pages whose parts are handed on while later batches are already under way."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterator, Sequence

from . import messages
from .arena import Region
from .errors import ErrorCode, KvtcError, WireError
from .messages import PullOutcome
from .wire import NONE32

if TYPE_CHECKING:
    from .connection import Pending
    from .session import Session

_SPARE = 4096
_BATCH_PAGES = 1024


@dataclass
class Part:
    """What came back of one page. ``data`` lies in shared memory and is valid until the next part is asked for."""

    index: int
    key: bytes
    outcome: PullOutcome
    layers: range
    data: memoryview


def run(session: Session, keys: Sequence[bytes], layers: range | None, step: int, lease: int) -> Iterator[Part]:
    """Yields the parts of all pages; see ``Session.pull``."""
    capacity, step = _capacity(session, layers, step)
    arena = session.client.arena()
    per_batch = min(max(session._batch_limit() // max(capacity, 1), 1), _BATCH_PAGES)
    batches = deque(range(0, len(keys), per_batch))
    under_way: deque[tuple[int, Pending, Region | None]] = deque()
    try:
        while batches or under_way:
            while batches and len(under_way) < 2:
                first = batches[0]
                count = min(per_batch, len(keys) - first)
                region = None
                if arena is not None:
                    # With a batch under way there is something to go on with; without one, waiting is all that is left.
                    size = count * capacity
                    region = arena.try_take(size) if under_way else arena.take(size, session.client.connection.timeout)
                    if region is None:
                        break
                batches.popleft()
                message = _message(session, keys, first, count, capacity, layers, step, lease, region)
                pending = session._start(message, region, keep=True) if region else session.client.connection.start(message)
                under_way.append((first, pending, region))
            first, pending, region = under_way[0]
            body, more, _ = pending.next()
            if more:
                yield _part(session, keys, first, messages.PullPart.decode(body), region)
                continue
            messages.PullReply.decode(body)
            under_way.popleft()
            if region is not None:
                region.free()
    finally:
        # Left early or failed: the daemon may still be writing, so the memory comes back with the last reply.
        for _, pending, region in under_way:
            if region is not None:
                pending.when_done(region.free)


def _capacity(session: Session, layers: range | None, step: int) -> tuple[int, int]:
    """Bytes to keep free for one page, and the layer step (smaller where a message could not hold a whole page)."""
    geometry = session.geometry
    capacity = session.page_bytes
    if geometry.tensors and layers is not None:
        capacity = session.layout.page_bytes(geometry, session.page_tokens, layers)
    if session.client.arena() is None and step == 0 and capacity > session.client.server.max_body - _SPARE:
        if not geometry.tensors:
            raise KvtcError(f"a page of {capacity} bytes does not fit in one message", advice="connect with an arena")
        step = 1
    return capacity, step


def _message(
    session: Session,
    keys: Sequence[bytes],
    first: int,
    count: int,
    capacity: int,
    layers: range | None,
    step: int,
    lease: int,
    region: Region | None,
) -> messages.Pull:
    base = region.offset if region else 0
    entries = [messages.PullEntry(keys[first + i], base + i * capacity, capacity) for i in range(count)]
    begin, end = (layers.start, layers.stop) if layers is not None else (0, 0)
    number = region.arena.number if region else NONE32
    return messages.Pull(session.number, lease, number, begin, end, step, entries)


def _part(session: Session, keys: Sequence[bytes], first: int, part: messages.PullPart, region: Region | None) -> Part:
    index = first + part.entry
    if index >= len(keys):
        raise WireError(ErrorCode.INVALID_FIELD, "entry", f"the daemon answered for page {index} of {len(keys)}")
    outcome = PullOutcome(part.outcome)
    data = memoryview(b"")
    if outcome == PullOutcome.HIT:
        data = part.inline
        if region is not None:
            if part.offset < region.offset or part.offset + part.length > region.offset + region.length:
                raise KvtcError("the daemon's reply points outside the region of its request", advice="report this as a bug of kvtcd")
            data = region.arena.view[part.offset : part.offset + part.length]
    return Part(index, keys[index], outcome, range(part.layer_begin, part.layer_end), data)
