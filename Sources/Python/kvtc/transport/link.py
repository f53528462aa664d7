"""What a client and its sessions share: a connection to the daemon that is made anew when it ends."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from mmap import mmap
from typing import Any, Protocol, Self, TypeVar

from ..protocol import messages
from ..protocol.errors import ErrorCode, KvtcError
from ..protocol.wire import Struct
from .arena import Arena
from .connection import Connection
from .deadline import Breaker, is_away, left

DEFAULT_ARENA = 256 << 20
_SMALLEST_ARENA = 1 << 20
_ATTEMPTS = 3
T = TypeVar("T")
S = TypeVar("S", bound=Struct)
log = logging.getLogger("kvtc")


class Opened(Protocol):
    """What is opened on every new connection: a session."""

    @property
    def number(self) -> int: ...

    def open_on(self, connection: Connection) -> object: ...

    def forked(self) -> None:
        """This is a child process now; see ``Link.forked``."""


class Link:
    """The connection in use, the sessions that are open on it, and its arena. See ``kvtc.Client`` for the options."""

    def __init__(
        self,
        socket_path: str | None = None,
        *,
        name: str = "kvtc-python",
        timeout: float = 60.0,
        arena_bytes: int = DEFAULT_ARENA,
        reconnect: float = 30.0,
    ):
        self._path, self._name, self._timeout, self._reconnect = socket_path, name, timeout, reconnect
        self._closed = False
        self._sessions: weakref.WeakKeyDictionary[Opened, None] = weakref.WeakKeyDictionary()
        self._make_locks()
        #: Of profiles, by id, as long as they are in use: a connection may ask for a few only.
        self.profile_files: weakref.WeakValueDictionary[bytes, mmap] = weakref.WeakValueDictionary()
        self.connection = self._connect()
        self._arena_bytes = arena_bytes if self.server.features & messages.FEATURE_ARENAS else 0

        _links.add(self)

    def _make_locks(self) -> None:
        self.breaker = Breaker()
        self._reviving = threading.Lock()
        self._arena_lock = threading.Lock()

    def forked(self) -> None:
        """This is a child process now, whose first request connects anew. Threads that held a lock are the parent's."""
        self._make_locks()
        for session in list(self._sessions):
            session.forked()

    def _connect(self) -> Connection:
        connection = Connection(self._path, self._timeout)
        try:
            connection.server = connection.call(messages.Hello(features=messages.FEATURES, client=self._name), messages.HelloReply)
        except BaseException:
            connection.close()
            raise
        # One less than allowed: a reply is here a moment before the daemon has counted its request as answered.
        connection.limit(connection.server.max_in_flight - 1)
        return connection

    def persist(self, action: Callable[[Connection], T]) -> T:
        """Carries out the action on the connection, and again on a new one when the connection ends meanwhile."""
        for remaining in reversed(range(_ATTEMPTS)):
            connection = self.connection
            try:
                return action(connection)
            except KvtcError as error:
                if not remaining:
                    raise
                self.revive(connection, error)
        raise AssertionError("unreachable")

    def revive(self, lost: Connection, error: KvtcError) -> None:
        """Connects again and opens the sessions again. Raises the error when it does not mean that the connection has
        ended, or no answer comes in time."""
        if not self._reviving.acquire(timeout=left(self._timeout)):
            raise error
        try:
            if self.connection is not lost and not self._closed:
                return
            if self._closed or not self._reconnect or not lost.is_over(error):
                raise error
            log.warning("connection to kvtcd lost (%s); connecting again", error)
            lost.close()
            deadline, pause = time.monotonic() + left(self._reconnect), 0.02
            while True:
                try:
                    self.connection = self._reopen()
                    return
                except KvtcError as failure:
                    if not is_away(failure) or time.monotonic() + pause > deadline:
                        raise error from failure
                time.sleep(pause)
                pause = min(2 * pause, 1.0)
        finally:
            self._reviving.release()

    def _reopen(self) -> Connection:
        connection = self._connect()
        try:
            # Those opened first come first, where the daemon takes fewer now.
            for session in list(self._sessions):
                try:
                    session.open_on(connection)
                except KvtcError as error:
                    if is_away(error):
                        raise
                    # The next request on it raises; the others go on.
                    log.warning("session %d could not be opened again: %s", session.number, error)
        except BaseException:
            connection.close()
            raise
        return connection

    def forget(self, session: Opened) -> None:
        """A session has ended and is not to be opened again."""
        self._sessions.pop(session, None)

    @contextmanager
    def bounded(self, seconds: float) -> Iterator[None]:
        """Everything that the block asks of the daemon takes at most so long together; ``RequestTimedOut`` when it is over.

        While the daemon is known to be away (it did not answer such a block a moment ago) the block is not entered:
        ``Unavailable``, at once, or at most a second later when it is time to try again.
        """
        with self.breaker.guard(seconds, self.ping):
            yield

    def _call(self, message: Struct, kind: type[S]) -> S:
        return self.persist(lambda connection: connection.call(message, kind))

    def status(self) -> dict[str, Any]:
        """The daemon's state, as ``kvtcctl status --json`` prints it."""
        status: dict[str, Any] = json.loads(self._call(messages.Status(), messages.JsonReply).json)
        return status

    @property
    def server(self) -> messages.HelloReply:
        """What the daemon says about itself and its limits."""
        return self.connection.server

    @property
    def has_blocks(self) -> bool:
        """Whether the daemon hands out pages as it stores them, takes blocks, and shares profiles' files."""
        return bool(self.server.features & messages.FEATURE_BLOCKS)

    @property
    def instance(self) -> int:
        """A number that is new at every start of the daemon."""
        return self.server.instance

    def arena(self) -> Arena | None:
        """This connection's arena, made at the first use; None when pages travel through the socket."""
        return self.persist(self.arena_of)

    def arena_of(self, connection: Connection) -> Arena | None:
        """The arena of a certain connection."""
        with self._arena_lock:
            if connection.arena is None and self._arena_bytes:
                connection.arena = self._make_arena(connection, min(self._arena_bytes, connection.server.max_arena))
                if connection.arena is None:
                    self._arena_bytes = 0
            return connection.arena

    def _make_arena(self, connection: Connection, wanted: int) -> Arena | None:
        while wanted >= _SMALLEST_ARENA:
            try:
                return Link.request_arena(connection, wanted)
            except KvtcError as error:
                if error.code != ErrorCode.LIMIT_EXCEEDED:
                    raise
                wanted //= 2
        log.warning("kvtcd grants no arena of %d bytes or more; pages travel through the socket", _SMALLEST_ARENA)
        return None

    @staticmethod
    def request_arena(connection: Connection, length: int) -> Arena:
        body, _, descriptor = connection.start(messages.Arena(length)).next()
        reply = messages.ArenaReply.decode(body)
        if descriptor is None:
            raise KvtcError("the daemon's ARENA reply carries no file descriptor", advice="report this as a bug of kvtcd")
        return Arena(reply.arena, reply.bytes, descriptor)

    def ping(self, payload: bytes = b"") -> float:
        """Seconds for a round trip with that payload; raises when it does not come back unchanged."""
        start = time.perf_counter()
        if self._call(messages.Ping(payload), messages.PingReply).payload != payload:
            raise KvtcError("PING came back with other bytes", advice="report this as a bug of kvtcd")
        return time.perf_counter() - start

    def close(self) -> None:
        """Ends the connection and with it this client's sessions and leases. Pages stay with the daemon."""
        self._closed = True
        self.connection.close()

    def __del__(self) -> None:
        # The reader thread holds the connection, not the client, so that a forgotten client still hangs up.
        connection = getattr(self, "connection", None)
        if connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _after_fork() -> None:
    for link in list(_links):
        link.forked()


os.register_at_fork(after_in_child=_after_fork)
