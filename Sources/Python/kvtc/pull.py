"""Streaming pulls: batches of pages whose parts are handed on while later batches are already under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .leases import Lease
from .protocol import messages
from .protocol.errors import ErrorCode, KvtcError, WireError
from .protocol.messages import PullOutcome
from .protocol.wire import NONE32, received
from .stream import BATCH_PAGES, SPARE, Stream, start_on
from .transport.arena import Region
from .transport.connection import Connection, Pending
from .transport.deadline import left

_ATTEMPTS = 3
AGAIN = -1
"""In the place of a page that is asked for once more."""


@dataclass
class Part:
    """What came back of one page. ``data`` lies in shared memory and is valid until the next part is asked for, which fails, or
    brings the part again, where the connection and with it the memory ended before that; or as long as it is held (``hold``)."""

    index: int
    key: bytes
    outcome: PullOutcome
    layers: range
    data: memoryview
    #: The one whose shared memory it lies in.
    connection: Connection | None = None
    #: Whether ``data`` is a block as it is stored, and not layers in the session's layout.
    is_block: bool = False
    region: Region | None = None

    def hold(self) -> Callable[[], None]:
        """Keeps ``data`` until what this returns is called, once. Until then its request's room in the arena is not to be had for others:
        who holds much of an arena waits for himself."""
        if self.region is None:
            return lambda: None
        self.region.keep()
        return self.region.free

    def require_valid(self) -> None:
        """Raises ConnectionLost where what was read of ``data`` may have been zeros."""
        if self.connection is not None:
            self.connection.require_open()


@dataclass
class Batch:
    """Pages and layers of them that are asked for in one request."""

    pages: list[int]
    #: None: all layers.
    layers: range | None
    #: Whether no further layers of these pages follow.
    is_last: bool


class Pull:
    """What a pull still has to bring, across connections."""

    def __init__(self, session: Stream, keys: Sequence[bytes], layers: range | None, step: int, lease: Lease | int | None):
        self.session, self.keys, self.layers, self.lease = session, keys, layers, lease
        self.first_connection = session.client.connection
        #: Whether blocks are asked for.
        self.is_stored = False
        self.is_streaming = bool(step) and bool(session.geometry.tensors)
        self.step = step or _step(session, self.capacity(layers))
        #: Pages that were handed on whole or failed. A page whose connection ended in the middle comes again from its first
        #: layer: it may have another form by now, or be gone.
        self.ended: set[int] = set()

    def capacity(self, layers: range | None) -> int:
        """Bytes of these layers of a full page."""
        session = self.session
        if layers is None or not session.geometry.tensors:
            return session.page_bytes
        return session.layout.page_bytes(session.geometry, session.page_tokens, layers)

    def room(self, page: int, layers: range | None) -> int:
        """Bytes to keep free for these layers of a page."""
        return self.capacity(layers)

    def begin(self, connection: Connection) -> None:
        """Called before anything is asked for on a connection."""

    def plan(self) -> deque[Batch]:
        """What to ask for, in the order in which it is wanted: for a worker that starts with the first layers, those of all
        pages before the next layers of any."""
        pages = [index for index in range(len(self.keys)) if index not in self.ended]
        limit = self.session.batch_limit()
        spans = self._spans(limit // max(len(pages), 1)) if self.is_streaming else [self.layers]
        batches: deque[Batch] = deque()
        for span in spans:
            # Full: each span begins a batch of its own.
            size = limit + 1
            for page in pages:
                room = self.room(page, span)
                if size + room > limit or len(batches[-1].pages) >= BATCH_PAGES:
                    batches.append(Batch([], span, span is spans[-1]))
                    size = 0
                batches[-1].pages.append(page)
                size += room
        return batches

    def _spans(self, room: int) -> list[range]:
        """Ranges of layers in whole steps, as many together as `room` bytes a page take: the daemon reads a page anew for
        each."""
        layers = self.layers if self.layers is not None else range(self.session.geometry.layers)
        spans = [range(layers.start, min(layers.start + self.step, layers.stop))]
        while (begin := spans[-1].stop) < layers.stop:
            end = min(begin + self.step, layers.stop)
            if self.capacity(longer := range(spans[-1].start, end)) <= room:
                spans[-1] = longer
            else:
                spans.append(range(begin, end))
        return spans

    def message(self, batch: Batch, number: int, lease: int, region: Region | None) -> messages.Pull | messages.PullBlocks:
        """The request for a batch."""
        begin, end = (batch.layers.start, batch.layers.stop) if batch.layers is not None else (0, 0)
        return messages.Pull(number, lease, region.arena.number if region else NONE32, begin, end, self.step, self.entries(batch, region))

    def entries(self, batch: Batch, region: Region | None) -> list[messages.PullEntry]:
        """The pages of a batch, one behind another in the region."""
        offset, entries = region.offset if region else 0, []
        for page in batch.pages:
            room = self.room(page, batch.layers)
            entries.append(messages.PullEntry(self.keys[page], offset, room))
            offset += room
        return entries

    def takes(self, part: Part) -> bool:
        """Whether the part is what its page comes to; else the page is asked for again."""
        return True

    def is_last(self, part: Part) -> bool:
        """Whether no further part of its page follows, as far as is known here."""
        if part.outcome != PullOutcome.HIT or not self.step:
            return True
        end = self.layers.stop if self.layers is not None else self.session.geometry.layers
        return bool(self.session.geometry.tensors) and part.layers.stop >= end

    def drop_lease(self) -> bool:
        """Goes on without the lease; false where there is none, or a bare number that the caller answers for."""
        if self.lease is None or isinstance(self.lease, int) or not self.lease.number:
            return False
        self.lease.number = 0
        return True

    def lease_on(self, connection: Connection) -> int:
        if self.lease is None or isinstance(self.lease, int):
            return (self.lease or 0) if connection is self.first_connection else 0
        return self.lease.on(connection)


def run(pull: Pull) -> Iterator[Part]:
    """Yields the parts of all pages; see ``Session.pull``."""
    session = pull.session
    attempts, progress = _ATTEMPTS, 0
    while len(pull.ended) < len(pull.keys):
        connection = session.client.connection
        try:
            for part in _run_on(connection, pull):
                progress += 1
                yield part
        except KvtcError as error:
            # A lease whose time is over: what is still there is wanted anyway.
            if error.code == ErrorCode.UNKNOWN_LEASE and pull.drop_lease():
                continue
            # Three failures with nothing in between: it is of no use.
            attempts, progress = (_ATTEMPTS if progress else attempts - 1), 0
            if not attempts:
                raise
            session.client.revive(connection, error)


def _run_on(connection: Connection, pull: Pull) -> Iterator[Part]:
    session = pull.session
    pull.begin(connection)
    number, arena, lease = session.number_on(connection), session.client.arena_of(connection), pull.lease_on(connection)
    batches = pull.plan()
    under_way: deque[tuple[Pending, Region | None, Batch]] = deque()
    try:
        while batches or under_way:
            while batches and len(under_way) < 2:
                batch = batches[0]
                batch.pages = [index for index in batch.pages if index not in pull.ended]
                if not batch.pages:
                    batches.popleft()
                    continue
                region = None
                if arena is not None:
                    # With a batch under way there is something to go on with; without one, waiting is all that is left.
                    size = sum(pull.room(page, batch.layers) for page in batch.pages)
                    region = arena.try_take(size) if under_way else arena.take(size, left(connection.timeout))
                    if region is None:
                        break
                message = pull.message(batch, number, lease, region)
                pending = start_on(connection, message, region, keep=True) if region else connection.start(message)
                under_way.append((pending, region, batches.popleft()))
            if not under_way:
                break
            pending, region, batch = under_way[0]
            body, more, _ = pending.next()
            if more:
                part = _part(connection, pull, batch, messages.PullPart.decode(body), region)
                if not pull.takes(part):
                    batch.pages = [index if index != part.index else AGAIN for index in batch.pages]
                elif part.index not in pull.ended:
                    yield part
                    part.require_valid()
                    if pull.is_last(part):
                        pull.ended.add(part.index)
                continue
            messages.PullReply.decode(body)
            under_way.popleft()
            if batch.is_last:
                pull.ended.update(index for index in batch.pages if index != AGAIN)
            if region is not None:
                region.free()
    finally:
        # Left early or failed: the daemon may still be writing, so the memory comes back with the last reply.
        for pending, region, _ in under_way:
            if region is not None:
                pending.when_done(region.free)


def _step(session: Stream, capacity: int) -> int:
    """The layer step where none is asked for: all at once, unless a message could not hold a whole page."""
    if session.client.arena() is not None or capacity <= session.client.server.max_body - SPARE:
        return 0
    if not session.geometry.tensors:
        raise KvtcError(f"a page of {capacity} bytes does not fit in one message", advice="connect with an arena")
    return 1


def _part(connection: Connection, pull: Pull, batch: Batch, part: messages.PullPart, region: Region | None) -> Part:
    if part.entry >= len(batch.pages):
        raise WireError(ErrorCode.INVALID_FIELD, "entry", f"the daemon answered for page {part.entry} of {len(batch.pages)}")
    index = batch.pages[part.entry]
    outcome = received(part.outcome, "outcome", PullOutcome)
    data = memoryview(b"")
    if outcome == PullOutcome.HIT:
        data = part.inline
        if region is not None:
            if part.offset < region.offset or part.offset + part.length > region.offset + region.length:
                raise KvtcError("the daemon's reply points outside the region of its request", advice="report this as a bug of kvtcd")
            data = region.arena.view[part.offset : part.offset + part.length]
    layers = range(part.layer_begin, part.layer_end)
    return Part(index, pull.keys[index], outcome, layers, data, connection if region is not None else None, pull.is_stored, region)
