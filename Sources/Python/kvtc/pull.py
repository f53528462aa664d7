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
    from .connection import Connection, Pending
    from .session import Lease, Session

_SPARE = 4096
_BATCH_PAGES = 1024
_ATTEMPTS = 3


@dataclass
class Part:
    """What came back of one page. ``data`` lies in shared memory and is valid until the next part is asked for."""

    index: int
    key: bytes
    outcome: PullOutcome
    layers: range
    data: memoryview


class _Pull:
    """What a pull still has to bring, across connections."""

    def __init__(self, session: Session, keys: Sequence[bytes], layers: range | None, step: int, lease: Lease | int | None):
        self.session, self.keys, self.layers, self.lease = session, keys, layers, lease
        self.first_connection = session.client.connection
        self.capacity, self.step = _capacity(session, layers, step)
        size = min(max(session._batch_limit() // max(self.capacity, 1), 1), _BATCH_PAGES)
        #: Ranges of pages that are not complete, each to be asked for in one request.
        self.batches = deque(range(first, min(first + size, len(keys))) for first in range(0, len(keys), size))
        #: Pages of the first batches that were handed on whole. A page whose connection ended in the middle comes again from
        #: its first layer: it may have another form by now, or be gone.
        self.delivered: set[int] = set()

    def is_last(self, part: Part) -> bool:
        """Whether no further part of its page follows, as far as is known here."""
        if part.outcome != PullOutcome.HIT or not self.step:
            return True
        end = self.layers.stop if self.layers is not None else self.session.geometry.layers
        return bool(self.session.geometry.tensors) and part.layers.stop >= end

    def lease_on(self, connection: Connection) -> int:
        if self.lease is None or isinstance(self.lease, int):
            return (self.lease or 0) if connection is self.first_connection else 0
        return self.lease.on(connection)


def run(session: Session, keys: Sequence[bytes], layers: range | None, step: int, lease: Lease | int | None) -> Iterator[Part]:
    """Yields the parts of all pages; see ``Session.pull``."""
    pull = _Pull(session, keys, layers, step, lease)
    attempts, progress = _ATTEMPTS, 0
    while pull.batches:
        connection = session.client.connection
        try:
            for part in _run_on(connection, pull):
                progress += 1
                yield part
        except KvtcError as error:
            # Three failures with nothing in between: it is of no use.
            attempts, progress = (_ATTEMPTS if progress else attempts - 1), 0
            if not attempts:
                raise
            session.client.revive(connection, error)


def _run_on(connection: Connection, pull: _Pull) -> Iterator[Part]:
    session = pull.session
    number, arena, lease = session.number_on(connection), session.client.arena_of(connection), pull.lease_on(connection)
    under_way: deque[tuple[Pending, Region | None]] = deque()
    try:
        while pull.batches:
            while len(under_way) < min(2, len(pull.batches)):
                batch = pull.batches[len(under_way)]
                region = None
                if arena is not None:
                    # With a batch under way there is something to go on with; without one, waiting is all that is left.
                    size = len(batch) * pull.capacity
                    region = arena.try_take(size) if under_way else arena.take(size, connection.timeout)
                    if region is None:
                        break
                message = _message(pull, batch, number, lease, region)
                pending = session.start_on(connection, message, region, keep=True) if region else connection.start(message)
                under_way.append((pending, region))
            pending, region = under_way[0]
            body, more, _ = pending.next()
            if more:
                part = _part(pull, pull.batches[0], messages.PullPart.decode(body), region)
                if part.index not in pull.delivered:
                    yield part
                    if pull.is_last(part):
                        pull.delivered.add(part.index)
                continue
            messages.PullReply.decode(body)
            under_way.popleft()
            pull.batches.popleft()
            if region is not None:
                region.free()
    finally:
        # Left early or failed: the daemon may still be writing, so the memory comes back with the last reply.
        for pending, region in under_way:
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


def _message(pull: _Pull, batch: range, number: int, lease: int, region: Region | None) -> messages.Pull:
    base = region.offset if region else 0
    entries = [messages.PullEntry(pull.keys[i], base + n * pull.capacity, pull.capacity) for n, i in enumerate(batch)]
    begin, end = (pull.layers.start, pull.layers.stop) if pull.layers is not None else (0, 0)
    return messages.Pull(number, lease, region.arena.number if region else NONE32, begin, end, pull.step, entries)


def _part(pull: _Pull, batch: range, part: messages.PullPart, region: Region | None) -> Part:
    if part.entry >= len(batch):
        raise WireError(ErrorCode.INVALID_FIELD, "entry", f"the daemon answered for page {part.entry} of {len(batch)}")
    index = batch[part.entry]
    outcome = PullOutcome(part.outcome)
    data = memoryview(b"")
    if outcome == PullOutcome.HIT:
        data = part.inline
        if region is not None:
            if part.offset < region.offset or part.offset + part.length > region.offset + region.length:
                raise KvtcError("the daemon's reply points outside the region of its request", advice="report this as a bug of kvtcd")
            data = region.arena.view[part.offset : part.offset + part.length]
    return Part(index, pull.keys[index], outcome, range(part.layer_begin, part.layer_end), data)
