"""One token stream of a worker: pushing its pages, looking them up, pulling them back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

from . import profile_file
from .blocks import Block, BlockLookup, BlockPull, lookup_on, require_blocks
from .leases import Lease, Lookup
from .protocol import messages
from .protocol.errors import ErrorCode, KvtcError, RequestTimedOut
from .protocol.messages import PullOutcome, PushOutcome, Residence
from .protocol.policy import Mode, Policy, Range
from .protocol.wire import NONE32, Struct, received
from .pull import Part, Pull, run
from .push import Page, push
from .stream import Stream, in_chunks, knows_code
from .transport.connection import Connection
from .transport.deadline import within

S = TypeVar("S", bound=Struct)
_CLOSING = 5.0


class Session(Stream):
    """Made by ``Client.open_session``. ``number`` is the daemon's id of it, ``profile`` the id of the profile in use."""

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
        return push(self, pages)

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
        all pages come before later ones, however many pages there are. A page that is not a hit comes as one
        part without data; so does one that fails later, and then its parts before are worth nothing. When the client had to
        connect again, the pages that were not complete come again from their first layer.
        """
        if layers is not None and layers.step != 1:
            raise ValueError("layers must be a range with step 1")
        return run(Pull(self, keys, layers, layer_step or 0, lease))

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

    def lookup_blocks(self, keys: Sequence[bytes], lease_ms: int = 0) -> BlockLookup:
        """``lookup`` that also tells how each page is stored, so that room for its block can be laid out."""
        return self.client.persist(lambda connection: lookup_on(connection, self, keys, lease_ms))

    def pull_blocks(
        self, keys: Sequence[bytes], lease: Lease | int | None = None, lengths: Sequence[int] | None = None
    ) -> Iterator[Part]:
        """Brings pages back as they are stored, one part a page, in whatever order they become ready: ``data`` is a whole block,
        which the daemon has checked. One of a page that is not coded holds its rows in canonical order; the checksum of its
        payload may be 0.

        ``lengths``: of the blocks, as ``lookup_blocks`` told; without, it looks them up. Where the daemon is an earlier one the
        pages come decoded, in the session's layout, as ``Part.is_block`` says.
        """
        return run(BlockPull(self, keys, lease, lengths))

    def push_blocks(self, blocks: Iterable[Block]) -> list[PushOutcome]:
        """Hands pages to the daemon as blocks that were made here, of any mode but raw; returns what became of each.

        All are refused where one is not what the session's profile, shape and policy ask for: rows that the policy protects have to
        be among the block's protected ones, and its distortion within the policy's bound. A page that is there stays,
        unless it is coded and less than this session was promised.
        """
        self.client.persist(require_blocks)
        return push(self, blocks, messages.PushBlocks)

    def profile_file(self) -> memoryview:
        """The bytes of the profile's file, read-only, in memory that the daemon shares with all who ask; they stay what they are,
        also after the daemon has ended, as long as the view is kept."""
        files = self.client.profile_files
        if not (content := files.get(self.profile)):
            content = self.client.persist(lambda connection: profile_file.request_on(connection, self.number_on(connection)))
            files[self.profile] = content
        return memoryview(content)

    def prefetch(self, keys: Sequence[bytes]) -> int:
        """Asks for pages on disk to be brought to RAM; returns how many were queued."""
        return in_chunks(keys, lambda part: self._call(lambda number: messages.Prefetch(number, part), messages.PrefetchReply).queued)

    def touch(self, keys: Sequence[bytes], pin: bool | None = None, ttl_seconds: int | None = None) -> int:
        """Marks pages as used; pins or unpins them and sets their time to live where given. Returns how many were found."""
        action = 0 if pin is None else (1 if pin else 2)
        ttl = NONE32 if ttl_seconds is None else ttl_seconds
        return in_chunks(keys, lambda part: self._call(lambda number: messages.Touch(number, action, ttl, part), messages.TouchReply).found)

    def drop(self, keys: Sequence[bytes] | None = None) -> int:
        """Deletes these pages by name, used by other sessions or not; without ``keys`` those of the session that no other session uses.

        Returns how many there were. To go back in a conversation without deleting anything use ``truncate``.
        """
        if keys is None:
            return self._call(messages.Drop, messages.DropReply).dropped
        return in_chunks(keys, lambda part: self._call(lambda number: messages.Drop(number, part), messages.DropReply).dropped)

    def truncate(self, tokens: int) -> messages.TruncateReply:
        """Cuts the session's end: pages that end behind ``tokens`` leave it and stay in the store for other sessions.

        The session then ends where the last page left does, and its window lies before that. A push that goes back does this
        by itself.
        """
        return self._call(lambda number: messages.Truncate(number, tokens), messages.TruncateReply)

    def policy(self) -> messages.GetPolicyReply:
        """The policy in force and the number of tokens pushed so far."""
        return self._call(messages.GetPolicy, messages.GetPolicyReply)

    def set_policy(self, policy: Policy) -> list[Range]:
        """Changes the policy; returns the positions that it protects and whose values are lossy already."""
        def on(connection: Connection) -> list[Range]:
            request = messages.SetPolicy(self.number_on(connection), policy.spoken_to(knows_code(connection)))
            return connection.call(request, messages.SetPolicyReply).already_coded

        coded = self.client.persist(on)
        self._request = replace(self._request, policy=policy)
        return coded

    def flush(self) -> messages.FlushReply:
        """Returns once the session's pages survive a power loss."""
        return self._call(messages.Flush, messages.FlushReply)

    def explain(self, first: int = 0) -> Any:
        """Where the session's pages are from index ``first`` on, at most 1024, how they are stored and why; see ``Client.explain``."""
        return json.loads(self._call(lambda number: messages.Explain(number, first), messages.JsonReply).json)

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
