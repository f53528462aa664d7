"""The daemon as a worker sees it."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import weakref
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Sequence, TypeVar

from .arena import Arena
from .connection import Connection
from .deadline import Breaker, is_away, left
from .identity import Identity, identity_bytes
from .protocol import messages
from .protocol.errors import ErrorCode, KvtcError
from .protocol.geometry import Geometry, Layout
from .protocol.policy import Mode, Policy
from .protocol.wire import NONE32, Struct
from .session import Session

DEFAULT_ARENA = 256 << 20
_SMALLEST_ARENA = 1 << 20
_ATTEMPTS = 3
T = TypeVar("T")
S = TypeVar("S", bound=Struct)
log = logging.getLogger("kvtc")


class Client:
    """A connection to kvtcd. Safe to use from several threads; not across fork.

    ``socket_path`` defaults to the environment variable KVTC_SOCKET, then /run/kvtcd/kvtcd.sock. ``timeout`` (seconds)
    bounds every wait for a reply. ``arena_bytes`` is the shared memory for pages; 0 sends them through the socket.

    When the daemon restarts or crashes, the client connects again by itself, trying for ``reconnect`` seconds (0: not at
    all), opens its sessions again with the policy they had, and repeats the request, which every request of this library
    bears: what was acknowledged is still there, so a repeated push answers PRESENT, a repeated drop counts what was left
    to drop, and a pull goes on with the pages that were not complete. Leases end with a connection; a pull under one goes on
    without it. A new session has no tokens yet: its window begins with the next page pushed, and pages pushed before stay
    as they are, never coded with less protection. A request that fails three connections in a row raises.

    A session that nobody refers to any more is closed with the next request.
    """

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
        self._sessions: weakref.WeakKeyDictionary[Session, None] = weakref.WeakKeyDictionary()
        self.breaker = Breaker()
        self._reviving = threading.Lock()
        self._arena_lock = threading.Lock()
        self.connection = self._connect()
        self._arena_bytes = arena_bytes if self.server.features & messages.FEATURE_ARENAS else 0

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
        ended, or nobody answers in time."""
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
                    # Whoever uses it next is told; the others go on.
                    log.warning("session %d could not be opened again: %s", session.number, error)
        except BaseException:
            connection.close()
            raise
        return connection

    def forget(self, session: Session) -> None:
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

    @property
    def server(self) -> messages.HelloReply:
        """What the daemon says about itself and its limits."""
        return self.connection.server

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
                return Client._request_arena(connection, wanted)
            except KvtcError as error:
                if error.code != ErrorCode.LIMIT_EXCEEDED:
                    raise
                wanted //= 2
        log.warning("kvtcd grants no arena of %d bytes or more; pages travel through the socket", _SMALLEST_ARENA)
        return None

    @staticmethod
    def _request_arena(connection: Connection, length: int) -> Arena:
        body, _, descriptor = connection.start(messages.Arena(length)).next()
        reply = messages.ArenaReply.decode(body)
        if descriptor is None:
            raise KvtcError("the daemon's ARENA reply carries no file descriptor", advice="report this as a bug of kvtcd")
        return Arena(reply.arena, reply.bytes, descriptor)

    def open_session(
        self,
        name: str,
        *,
        geometry: Geometry | None = None,
        layout: Layout | None = None,
        profile: bytes | str = b"",
        policy: Policy | None = None,
        page_tokens: int = 64,
        identity: Identity | bytes = b"",
    ) -> Session:
        """Starts a token stream. ``profile`` is a profile's id (bytes or hex); with one, ``geometry`` may be left out.

        ``identity`` says what K and V depend on besides the token ids: weights, adapters, rank and so on. Sessions find
        only pages of their own identity, geometry, profile and element type. Without one, the page keys have to say it.

        Without a policy: this daemon's transform coder where there is a profile, lossless where there is none.
        """
        identifier = bytes.fromhex(profile) if isinstance(profile, str) else profile
        if policy is None:
            policy = Policy(mode=Mode.TRANSFORM if identifier else Mode.LOSSLESS)
        request = messages.OpenIdentifiedSession(
            name, identifier, geometry or Geometry(), layout or Layout(), page_tokens, policy, identity_bytes(identity)
        )

        def register(connection: Connection) -> Session:
            session = Session(self, connection, request)
            self._sessions[session] = None
            return session

        return self.persist(register)

    def status(self) -> dict[str, Any]:
        """The daemon's state, as ``kvtcctl status --json`` prints it."""
        status: dict[str, Any] = json.loads(self._call(messages.Status(), messages.JsonReply).json)
        return status

    def flush(self, session: Session | int | None = None) -> messages.FlushReply:
        """Returns once everything acknowledged so far (or everything of one session) survives a power loss."""
        if isinstance(session, Session):
            return session.flush()
        return self._call(messages.Flush(NONE32 if session is None else session), messages.FlushReply)

    def verify(self, progress: Callable[[messages.VerifyReply], None] = lambda _: None) -> messages.VerifyReply:
        """Has the daemon read and check every page, which takes an administrator; ``progress`` is told how far it is."""

        def on(connection: Connection) -> messages.VerifyReply:
            pending = connection.start(messages.Verify())
            while True:
                body, more, _ = pending.next()
                part = messages.VerifyReply.decode(body)
                if not more:
                    return part
                progress(part)

        return self.persist(on)

    def profiles(self) -> Any:
        """The profiles in the daemon's profile directory."""
        return json.loads(self._call(messages.Profile(0), messages.JsonReply).json)

    def load_profile(self, file: str | os.PathLike[str]) -> Any:
        """Loads a profile and returns what it describes: a file of the daemon's profile directory, named without a path, or,
        given as a path (``Path`` or text with a slash), a file of this side, which only administrators may hand over."""
        if isinstance(file, str) and "/" not in file:
            return json.loads(self._call(messages.Profile(1, file), messages.JsonReply).json)
        path = os.fspath(file)
        with open(path, "rb") as source:
            content = source.read()
        if not content:
            raise KvtcError(f"{path} is empty", advice="make a profile with 'kvtcctl calibrate'")
        # Arenas end with their connection: one of its own gives the memory back at once.
        connection = self._connect()
        try:
            arena = Client._request_arena(connection, len(content))
            arena.view[: len(content)] = content
            request = messages.StoreProfile(arena.number, 0, len(content), os.path.basename(path))
            return json.loads(connection.call(request, messages.JsonReply).json)
        finally:
            connection.close()

    def drop(self, keys: Sequence[bytes] | None = None) -> int:
        """Forgets these pages of the tenant, or every page of the tenant without ``keys``; returns how many there were.

        Keys are looked for under the 64 models (identity, geometry, profile, element type) that the tenant's sessions used
        last since the daemon started; ``Session.drop`` reaches those of its own model at any time.
        """
        if keys is None:
            return self._call(messages.Drop(NONE32), messages.DropReply).dropped
        return self._in_chunks(keys, lambda part: self._call(messages.Drop(NONE32, part), messages.DropReply).dropped)

    def ping(self, payload: bytes = b"") -> float:
        """Seconds for a round trip with that payload; raises when it does not come back unchanged."""
        start = time.perf_counter()
        if self._call(messages.Ping(payload), messages.PingReply).payload != payload:
            raise KvtcError("PING came back with other bytes", advice="report this as a bug of kvtcd")
        return time.perf_counter() - start

    @staticmethod
    def _in_chunks(keys: Sequence[bytes], call: Callable[[list[bytes]], int], chunk: int = 65536) -> int:
        # An empty list means "everything" on the wire; here it means what it says.
        return sum(call(list(keys[start : start + chunk])) for start in range(0, len(keys), chunk))

    def close(self) -> None:
        """Ends the connection and with it this client's sessions and leases. Pages stay with the daemon."""
        self._closed = True
        self.connection.close()

    def __del__(self) -> None:
        # The reader thread holds the connection, not the client, so that a forgotten client still hangs up.
        connection = getattr(self, "connection", None)
        if connection is not None:
            connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(socket_path: str | None = None, **options: Any) -> Client:
    """Connects to kvtcd; see ``Client`` for the options."""
    return Client(socket_path, **options)
