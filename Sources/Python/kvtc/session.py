"""One token stream of a worker: pushing its pages, looking them up, pulling them back."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, Sequence, TypeVar

import numpy as np

from .arena import Region
from .deadline import left, within
from .protocol import messages
from .protocol.errors import ConnectionLost, ErrorCode, KvtcError, RequestTimedOut
from .protocol.messages import PullOutcome, PushOutcome, Residence
from .protocol.policy import Mode, Policy, Range
from .protocol.wire import NONE32, Struct, received
from .pull import Part, run

if TYPE_CHECKING:
    from .client import Client
    from .connection import Connection, Pending

S = TypeVar("S", bound=Struct)

# Small enough that copying, sending and decoding of different batches overlap, large enough that frames cost nothing.
_BATCH_BYTES = 32 << 20
_BATCH_PAGES = 1024
_SPARE = 4096
_CLOSING = 5.0


@dataclass
class Page:
    """A page to push. ``data`` is any buffer in the session's layout; without ``tokens`` its size says how many it has."""

    key: bytes
    first_position: int
    data: object
    tokens: int | None = None


@dataclass
class _Batch:
    """Pages that go in one request, with offsets from 0, and the request that is under way on some connection."""

    entries: list[messages.PushEntry]
    buffers: list[np.ndarray]
    connection: Connection | None = None
    pending: Pending = field(init=False)


@dataclass
class Lookup:
    """``leading_run`` pages from the first on can be pulled; ``lease`` (when asked for) keeps them so."""

    residence: list[Residence]
    leading_run: int
    lease: Lease | None


class Lease:
    """A promise that looked-up pages stay fetchable. Given back by ``release``, at the end of a with block, or by time; one that
    nobody refers to any more with the next request of its connection.

    It ends when the daemon does; ``number`` is then of no use any more. A pull under a lease that is over goes on without it;
    ``number`` is 0 then.
    """

    def __init__(self, connection: Connection, number: int):
        self._connection, self.number = connection, number

    def on(self, connection: Connection) -> int:
        """The number for requests on that connection; 0 when the lease belongs to an earlier one."""
        return self.number if connection is self._connection else 0

    def release(self) -> None:
        """Gives it back. One that has ended by itself is no error."""
        if self.number:
            number, self.number = self.number, 0
            try:
                self._connection.call(messages.Release(number), messages.Empty)
            except KvtcError as error:
                if error.code != ErrorCode.UNKNOWN_LEASE and not self._connection.is_over(error):
                    raise

    def __del__(self) -> None:
        if self.number:
            self._connection.later(messages.Release(self.number))

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Session:
    """Made by ``Client.open_session``. ``number`` is the daemon's id of it, ``profile`` the id of the profile in use."""

    def __init__(self, client: Client, connection: Connection, request: messages.OpenIdentifiedSession):
        self.client = client
        self._request = request
        self._closed = False
        self._opening = threading.Lock()
        reply = self.open_on(connection)
        self.profile = reply.profile
        self.token_bytes = reply.token_bytes
        self.geometry, self.layout, self.page_tokens = request.geometry, request.layout, request.page_tokens
        self.page_bytes = reply.token_bytes * request.page_tokens

    def open_on(self, connection: Connection) -> messages.OpenSessionReply:
        """Opens the session on a connection, with the policy it has now; from now on it belongs to that connection."""
        request: messages.OpenSession = self._request
        if not connection.server.features & messages.FEATURE_IDENTITY:
            # Without it this daemon would hand out pages of other models.
            if self._request.identity:
                raise KvtcError(f"{connection.server.server} knows no identities", field="identity", advice="upgrade kvtcd")
            request = self._request.without_identity()
        reply = connection.call(request, messages.OpenSessionReply)
        # One tuple, so that a thread never takes the number of one connection for that of another.
        self._link = (connection, reply.session)
        return reply

    @property
    def number(self) -> int:
        """The daemon's id of it; another one after the client has connected again."""
        return NONE32 if self._closed else self._link[1]

    def number_on(self, connection: Connection) -> int:
        """The daemon's id of it on that connection. One that was refused when the client connected again is opened now."""
        if self._closed:
            return NONE32
        if self._link[0] is not connection:
            with self._opening:
                if self._link[0] is not connection:
                    self.open_on(connection)
        link = self._link
        if link[0] is not connection:
            raise ConnectionLost("the session belongs to another connection")
        return link[1]

    @property
    def identity(self) -> bytes:
        """The identity that it was opened with; empty without one."""
        return self._request.identity

    @property
    def mode(self) -> Mode:
        """The coder that it was opened with, or set to since."""
        return Mode(self._request.policy.mode)

    def reopen(self) -> None:
        """Opens it again where the daemon has ended it; its window begins anew. A session that was closed stays so."""
        if not self._closed:
            self.client.persist(self.open_on)

    def __int__(self) -> int:
        return self.number

    def push(self, pages: Iterable[Page]) -> list[PushOutcome]:
        """Hands pages to the daemon, in order of position; returns what became of each.

        The session follows: where a page lies over others that were pushed before, the stream goes on differently from there,
        and those leave the session. They stay in the store.
        """
        outcomes: list[PushOutcome] = []
        unanswered: deque[_Batch] = deque()
        for batch in self._push_batches(pages):
            unanswered.append(batch)
            self.client.persist(lambda connection: self._push_on(connection, unanswered, outcomes, keep=4))
        self.client.persist(lambda connection: self._push_on(connection, unanswered, outcomes, keep=0))
        return outcomes

    def _push_on(self, connection: Connection, unanswered: deque[_Batch], outcomes: list[PushOutcome], keep: int) -> None:
        """Sends the batches that are not under way on this connection, and waits until at most ``keep`` are unanswered."""
        for batch in unanswered:
            if batch.connection is not connection:
                batch.pending = self._send_push(connection, batch)
                batch.connection = connection
        while len(unanswered) > keep:
            outcomes += self._outcomes(unanswered[0].pending)
            unanswered.popleft()

    def _push_batches(self, pages: Iterable[Page]) -> Iterator[_Batch]:
        limit = self._batch_limit()
        batch: list[messages.PushEntry] = []
        buffers: list[np.ndarray] = []
        size = 0
        for page in pages:
            data = _flat(page.data)
            tokens = page.tokens
            if tokens is None:
                tokens, rest = divmod(data.size, self.token_bytes)
                if rest:
                    raise ValueError(f"a page of {data.size} bytes is no whole number of tokens of {self.token_bytes} bytes")
            if batch and (size + data.size > limit or len(batch) >= _BATCH_PAGES):
                yield _Batch(batch, buffers)
                batch, buffers, size = [], [], 0
            batch.append(messages.PushEntry(page.key, page.first_position, tokens, size, data.size))
            buffers.append(data)
            size += data.size
        if batch:
            yield _Batch(batch, buffers)

    def _send_push(self, connection: Connection, batch: _Batch) -> Pending:
        number, arena, entries = self.number_on(connection), self.client.arena_of(connection), batch.entries
        size = entries[-1].offset + entries[-1].length
        if arena is None:
            if size > connection.server.max_body - _SPARE - 56 * len(entries):
                raise KvtcError(f"a page of {size} bytes does not fit in one message", advice="connect with an arena, or use smaller pages")
            inline = bytearray(size)
            into = np.frombuffer(inline, np.uint8)
        else:
            region = arena.take(size, left(connection.timeout))
            into = arena.array[region.offset : region.offset + size]
        for entry, data in zip(entries, batch.buffers):
            into[entry.offset : entry.offset + entry.length] = data
        if arena is None:
            return connection.start(messages.Push(number, NONE32, entries, inline))
        placed = [replace(entry, offset=entry.offset + region.offset) for entry in entries]
        return self.start_on(connection, messages.Push(number, arena.number, placed), region)

    @staticmethod
    def start_on(
        connection: Connection, message: messages.Push | messages.Pull, region: Region, keep: bool = False
    ) -> Pending:
        """Sends a request that uses a region; frees it when the daemon is done with it, unless it is to be kept."""
        try:
            pending = connection.start(message)
        except BaseException:
            region.free()
            raise
        if not keep:
            pending.when_done(region.free)
        return pending

    @staticmethod
    def _outcomes(pending: Pending) -> list[PushOutcome]:
        return [received(value, "outcomes", PushOutcome) for value in pending.reply(messages.PushReply).outcomes]

    def _batch_limit(self) -> int:
        arena = self.client.arena()
        return min(_BATCH_BYTES, arena.length // 4) if arena else min(_BATCH_BYTES, self.client.server.max_body // 2)

    def lookup(self, keys: Sequence[bytes], lease_ms: int = 0) -> Lookup:
        """Which of these pages are there, and where. With ``lease_ms`` the leading run stays fetchable that long."""

        def on(connection: Connection) -> tuple[messages.LookupReply, Lease | None]:
            request = messages.Lookup(self.number_on(connection), lease_ms, list(keys))
            reply = connection.call(request, messages.LookupReply)
            return reply, Lease(connection, reply.lease) if reply.lease else None

        reply, lease = self.client.persist(on)
        residence = [received(value, "residence", Residence) for value in reply.residence]
        return Lookup(residence, min(reply.leading_run, len(keys)), lease)

    def pull(
        self,
        keys: Sequence[bytes],
        layers: range | None = None,
        layer_step: int | None = None,
        lease: Lease | int | None = None,
    ) -> Iterator[Part]:
        """Brings pages back, part by part as they are decoded, in whatever order they become ready.

        ``layers`` restricts it to some layers, ``layer_step`` splits pages into parts of so many layers: the first layers of
        all pages come before later ones, however many pages there are. A page that is not a hit comes as one part without data; so does one that fails later, and then its
        parts before are worth nothing. When the client had to connect again, the pages that were not complete come again
        from their first layer.
        """
        if layers is not None and layers.step != 1:
            raise ValueError("layers must be a range with step 1")
        return run(self, keys, layers, layer_step or 0, lease)

    def fetch(self, keys: Sequence[bytes], lease: Lease | int | None = None) -> list[bytes | None]:
        """Whole pages as bytes of their own; None for those that are not to be had."""
        found: list[bytearray | None] = [None] * len(keys)
        for part in self.pull(keys, lease=lease):
            found[part.index] = self._assemble(found[part.index], part) if part.outcome == PullOutcome.HIT else None
        return [None if page is None else bytes(page) for page in found]

    def _assemble(self, page: bytearray | None, part: Part) -> bytearray:
        """The page so far with the part in its place: a page too large for a message comes layer by layer."""
        if not self.geometry.tensors or len(part.layers) >= self.geometry.layers:
            return bytearray(part.data)
        tokens = len(part.data) // self.layout.page_bytes(self.geometry, 1, part.layers)
        page = bytearray(tokens * self.token_bytes) if page is None else page
        whole = self.layout.views(self.geometry, tokens, page)
        for name, view in self.layout.views(self.geometry, tokens, part.data, part.layers).items():
            whole[name][...] = view
        return page

    def prefetch(self, keys: Sequence[bytes]) -> int:
        """Asks for pages on disk to be brought to RAM; returns how many were queued."""
        return self._chunked(keys, lambda part: self._call(lambda number: messages.Prefetch(number, part), messages.PrefetchReply).queued)

    def touch(self, keys: Sequence[bytes], pin: bool | None = None, ttl_seconds: int | None = None) -> int:
        """Marks pages as used; pins or unpins them and sets their time to live where given. Returns how many were found."""
        action = 0 if pin is None else (1 if pin else 2)
        ttl = NONE32 if ttl_seconds is None else ttl_seconds
        return self._chunked(keys, lambda part: self._call(lambda number: messages.Touch(number, action, ttl, part), messages.TouchReply).found)

    def drop(self, keys: Sequence[bytes] | None = None) -> int:
        """Deletes these pages by name, whoever uses them; without ``keys`` those of the session that no other session uses.

        Returns how many there were. To go back in a conversation without deleting anything use ``truncate``.
        """
        if keys is None:
            return self._call(messages.Drop, messages.DropReply).dropped
        return self._chunked(keys, lambda part: self._call(lambda number: messages.Drop(number, part), messages.DropReply).dropped)

    def truncate(self, tokens: int) -> messages.TruncateReply:
        """Cuts the session's end: pages that end behind ``tokens`` leave it and stay in the store, for whoever uses them.

        The session then ends where the last page left does, and its window lies before that. A push that goes back does this
        by itself.
        """
        return self._call(lambda number: messages.Truncate(number, tokens), messages.TruncateReply)

    def policy(self) -> messages.GetPolicyReply:
        """The policy in force and the number of tokens pushed so far."""
        return self._call(messages.GetPolicy, messages.GetPolicyReply)

    def set_policy(self, policy: Policy) -> list[Range]:
        """Changes the policy; returns the positions that it protects and whose values are lossy already."""
        coded = self._call(lambda number: messages.SetPolicy(number, policy), messages.SetPolicyReply).already_coded
        self._request = replace(self._request, policy=policy)
        return coded

    def flush(self) -> messages.FlushReply:
        """Returns once the session's pages survive a power loss."""
        return self._call(messages.Flush, messages.FlushReply)

    def close(self) -> None:
        """Ends the session. Its pages stay. A daemon that does not answer is waited for 5 s, and ends it when it goes on."""
        if self._closed:
            return
        connection, number = self._link
        self._closed = True
        self.client.forget(self)
        try:
            with within(0 if self.client.breaker.is_open else _CLOSING):
                connection.call(messages.CloseSession(number), messages.Empty)
        except RequestTimedOut:
            connection.later(messages.CloseSession(number))
        except KvtcError as error:
            # A session ends with its connection.
            if error.code != ErrorCode.UNKNOWN_SESSION and not connection.is_over(error):
                raise

    def __del__(self) -> None:
        # Not open, when the daemon refused it.
        if not self._closed and (link := getattr(self, "_link", None)):
            connection, number = link
            connection.later(messages.CloseSession(number))

    def _call(self, make: Callable[[int], Struct], kind: type[S]) -> S:
        return self.client.persist(lambda connection: connection.call(make(self.number_on(connection)), kind))

    def _chunked(self, keys: Sequence[bytes], call: Callable[[list[bytes]], int]) -> int:
        return self.client._in_chunks(keys, call)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _flat(data: object) -> np.ndarray:
    """The bytes of any buffer as one row, without a copy where it is contiguous."""
    if isinstance(data, np.ndarray):
        return np.asarray(np.ascontiguousarray(data).reshape(-1).view(np.uint8))
    return np.asarray(np.frombuffer(data, np.uint8))  # type: ignore[call-overload]
