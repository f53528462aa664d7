"""A session as connections know it: the number that each gave it, its shape, and what goes into one request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from .protocol import messages
from .protocol.errors import ConnectionLost, KvtcError
from .protocol.wire import NONE32, Struct
from .transport.arena import Region
from .transport.connection import Connection, Pending
from .transport.link import Link

# Small enough that copying, sending and decoding of different batches overlap, large enough that frames cost nothing.
_BATCH_BYTES = 32 << 20
BATCH_PAGES = 1024
SPARE = 4096
"""Bytes of a message that are left to what is no payload, beside each entry."""


def knows_code(connection: Connection) -> bool:
    """Whether policies tell that daemon when pages are coded."""
    return bool(connection.server.features & messages.FEATURE_CODE)


class Stream:
    """An open session without its requests. ``profile`` is the id of the profile in use."""

    def __init__(self, client: Link, connection: Connection, request: messages.OpenIdentifiedSession):
        self.client = client
        self._request = request
        self._closed = False
        self.forked()
        reply = self.open_on(connection)
        self.profile = reply.profile
        self.token_bytes = reply.token_bytes
        self.geometry, self.layout, self.page_tokens = request.geometry, request.layout, request.page_tokens
        self.page_bytes = reply.token_bytes * request.page_tokens

    def forked(self) -> None:
        self._opening = threading.Lock()

    def open_on(self, connection: Connection) -> messages.OpenSessionReply:
        """Opens the session on a connection, with the policy it has now; from now on it belongs to that connection."""
        request: messages.OpenSession = self._request
        if not connection.server.features & messages.FEATURE_IDENTITY:
            # Without it this daemon would hand out pages of other models.
            if self._request.identity:
                raise KvtcError(f"{connection.server.server} knows no identities", field="identity", advice="upgrade kvtcd")
            request = self._request.without_identity()
        request = replace(request, policy=request.policy.spoken_to(knows_code(connection)))
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

    def batch_limit(self) -> int:
        """Bytes of pages in one request."""
        arena = self.client.arena()
        return min(_BATCH_BYTES, arena.length // 4) if arena else min(_BATCH_BYTES, self.client.server.max_body // 2)


def start_on(connection: Connection, message: Struct, region: Region, keep: bool = False) -> Pending:
    """Sends a request that uses a region; frees it when the daemon is done with it, unless it is to be kept."""
    try:
        pending = connection.start(message)
    except BaseException:
        region.free()
        raise
    if not keep:
        pending.when_done(region.free)
    return pending


def in_chunks(keys: Sequence[bytes], call: Callable[[list[bytes]], int], chunk: int = 65536) -> int:
    """The sum of what a request answers for these keys, in messages of a bearable size."""
    # An empty list means "everything" on the wire; here it means what it says.
    return sum(call(list(keys[start : start + chunk])) for start in range(0, len(keys), chunk))
