"""Pushing: pages go in batches, of which a few are under way at a time, and again where the connection ends meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from .blocks import Block
from .protocol import messages
from .protocol.errors import KvtcError
from .protocol.messages import PushOutcome
from .protocol.wire import NONE32, received
from .stream import BATCH_PAGES, SPARE, Stream, start_on
from .transport.connection import Connection, Pending
from .transport.deadline import left


@dataclass
class Page:
    """A page to push. ``data`` is any buffer or array, also torch's on the processor, in the session's layout; without ``tokens`` its
    size says how many it has."""

    key: bytes
    first_position: int
    data: object
    tokens: int | None = None


@dataclass
class _Batch:
    """Pages that go in one request, with offsets from 0, and the request that is under way on some connection."""

    entries: list[messages.PushEntry]
    buffers: list[np.ndarray]
    kind: type[messages.Push]
    connection: Connection | None = None
    pending: Pending = field(init=False)


def push(stream: Stream, pages: Iterable[Page] | Iterable[Block], kind: type[messages.Push] = messages.Push) -> list[PushOutcome]:
    """What became of each page; see ``Session.push`` and ``Session.push_blocks``."""
    outcomes: list[PushOutcome] = []
    unanswered: deque[_Batch] = deque()
    for batch in _batches(stream, pages, kind):
        unanswered.append(batch)
        stream.client.persist(lambda connection: _push_on(connection, stream, unanswered, outcomes, keep=4))
    stream.client.persist(lambda connection: _push_on(connection, stream, unanswered, outcomes, keep=0))
    return outcomes


def _push_on(connection: Connection, stream: Stream, unanswered: deque[_Batch], outcomes: list[PushOutcome], keep: int) -> None:
    """Sends the batches that are not under way on this connection, and waits until at most ``keep`` are unanswered."""
    for batch in unanswered:
        if batch.connection is not connection:
            batch.pending = _send(connection, stream, batch)
            batch.connection = connection
    while len(unanswered) > keep:
        reply = unanswered[0].pending.reply(messages.PushReply)
        outcomes += [received(value, "outcomes", PushOutcome) for value in reply.outcomes]
        unanswered.popleft()


def _batches(stream: Stream, pages: Iterable[Page] | Iterable[Block], kind: type[messages.Push]) -> Iterator[_Batch]:
    limit = stream.batch_limit()
    batch: list[messages.PushEntry] = []
    buffers: list[np.ndarray] = []
    size = 0
    for page in pages:
        data = _flat(page.data)
        tokens = page.tokens
        if tokens is None:
            tokens, rest = divmod(data.size, stream.token_bytes)
            if rest:
                raise ValueError(f"a page of {data.size} bytes is no whole number of tokens of {stream.token_bytes} bytes")
        if batch and (size + data.size > limit or len(batch) >= BATCH_PAGES):
            yield _Batch(batch, buffers, kind)
            batch, buffers, size = [], [], 0
        batch.append(messages.PushEntry(page.key, page.first_position, tokens, size, data.size))
        buffers.append(data)
        size += data.size
    if batch:
        yield _Batch(batch, buffers, kind)


def _send(connection: Connection, stream: Stream, batch: _Batch) -> Pending:
    number, arena, entries = stream.number_on(connection), stream.client.arena_of(connection), batch.entries
    size = entries[-1].offset + entries[-1].length
    if arena is None:
        if size > connection.server.max_body - SPARE - 56 * len(entries):
            raise KvtcError(f"a page of {size} bytes does not fit in one message", advice="connect with an arena, or use smaller pages")
        inline = bytearray(size)
        into = np.frombuffer(inline, np.uint8)
    else:
        region = arena.take(size, left(connection.timeout))
        into = arena.array[region.offset : region.offset + size]
    for entry, data in zip(entries, batch.buffers, strict=True):
        into[entry.offset : entry.offset + entry.length] = data
    if arena is None:
        return connection.start(batch.kind(number, NONE32, entries, inline))
    placed = [replace(entry, offset=entry.offset + region.offset) for entry in entries]
    return start_on(connection, batch.kind(number, arena.number, placed), region)


def _flat(data: object) -> np.ndarray:
    """The bytes of any buffer, or of what shares its memory by DLPack, as one row; without a copy where it is contiguous."""
    if not isinstance(data, np.ndarray) and hasattr(data, "__dlpack__"):
        try:
            data = np.from_dlpack(data)
        except (BufferError, RuntimeError, TypeError) as error:
            raise TypeError(
                f"a page of type {type(data).__name__} that numpy cannot read: {error}. "
                "Copy it to memory of the processor, and view types that numpy does not know (bf16, fp8) as integers"
            ) from None
    if isinstance(data, np.ndarray):
        return np.asarray(np.ascontiguousarray(data).reshape(-1).view(np.uint8))
    return np.asarray(np.frombuffer(data, np.uint8))  # type: ignore[call-overload]
