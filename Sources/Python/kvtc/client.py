"""The daemon as a worker sees it."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any, Sequence

from . import messages
from .arena import Arena
from .connection import Connection
from .errors import ErrorCode, KvtcError
from .geometry import Geometry, Layout
from .policy import Mode, Policy
from .session import Session
from .wire import NONE32

DEFAULT_ARENA = 256 << 20
_SMALLEST_ARENA = 1 << 20
log = logging.getLogger("kvtc")


class Client:
    """A connection to kvtcd. Safe to use from several threads; not across fork.

    ``socket_path`` defaults to the environment variable KVTC_SOCKET, then /run/kvtcd/kvtcd.sock. ``timeout`` (seconds)
    bounds every wait for a reply. ``arena_bytes`` is the shared memory for pages; 0 sends them through the socket.
    """

    def __init__(
        self,
        socket_path: str | None = None,
        *,
        name: str = "kvtc-python",
        timeout: float = 60.0,
        arena_bytes: int = DEFAULT_ARENA,
    ):
        self.connection = Connection(socket_path, timeout)
        try:
            self.server: messages.HelloReply = self.connection.call(messages.Hello(client=name), messages.HelloReply)
        except BaseException:
            self.connection.close()
            raise
        # One less than allowed: a reply is here a moment before the daemon has counted its request as answered.
        self.connection.limit(self.server.max_in_flight - 1)
        self._arena_bytes = arena_bytes if self.server.features & messages.FEATURE_ARENAS else 0
        self._arena: Arena | None = None
        self._arena_lock = threading.Lock()

    @property
    def instance(self) -> int:
        """A number that is new at every start of the daemon: another one means that sessions and leases are gone."""
        return self.server.instance

    def arena(self) -> Arena | None:
        """This connection's arena, made at the first use; None when pages travel through the socket."""
        with self._arena_lock:
            if self._arena is None and self._arena_bytes:
                self._arena = self._make_arena(min(self._arena_bytes, self.server.max_arena))
                if self._arena is None:
                    self._arena_bytes = 0
            return self._arena

    def _make_arena(self, wanted: int) -> Arena | None:
        while wanted >= _SMALLEST_ARENA:
            try:
                body, _, descriptor = self.connection.start(messages.Arena(wanted)).next()
            except KvtcError as error:
                if error.code != ErrorCode.LIMIT_EXCEEDED:
                    raise
                wanted //= 2
                continue
            reply = messages.ArenaReply.decode(body)
            if descriptor is None:
                raise KvtcError("the daemon's ARENA reply carries no file descriptor", advice="report this as a bug of kvtcd")
            return Arena(reply.arena, reply.bytes, descriptor)
        log.warning("kvtcd grants no arena of %d bytes or more; pages travel through the socket", _SMALLEST_ARENA)
        return None

    def open_session(
        self,
        name: str,
        *,
        geometry: Geometry | None = None,
        layout: Layout | None = None,
        profile: bytes | str = b"",
        policy: Policy | None = None,
        page_tokens: int = 64,
    ) -> Session:
        """Starts a token stream. ``profile`` is a profile's id (bytes or hex); with one, ``geometry`` may be left out.

        Without a policy: this daemon's transform coder where there is a profile, lossless where there is none.
        """
        identifier = bytes.fromhex(profile) if isinstance(profile, str) else profile
        if policy is None:
            policy = Policy(mode=Mode.TRANSFORM if identifier else Mode.LOSSLESS)
        request = messages.OpenSession(
            name, identifier, geometry or Geometry(), layout or Layout(), page_tokens, policy
        )
        reply = self.connection.call(request, messages.OpenSessionReply)
        return Session(self, request, reply)

    def status(self) -> dict[str, Any]:
        """The daemon's state, as ``kvtcctl status --json`` prints it."""
        return json.loads(self.connection.call(messages.Status(), messages.JsonReply).json)

    def flush(self, session: Session | int | None = None) -> messages.FlushReply:
        """Returns once everything acknowledged so far (or everything of one session) survives a power loss."""
        number = NONE32 if session is None else int(session)
        return self.connection.call(messages.Flush(number), messages.FlushReply)

    def profiles(self) -> Any:
        """The profiles in the daemon's profile directory."""
        return json.loads(self.connection.call(messages.Profile(0), messages.JsonReply).json)

    def load_profile(self, file: str) -> Any:
        """Loads a file of the daemon's profile directory, named without its path; returns what it describes."""
        return json.loads(self.connection.call(messages.Profile(1, file), messages.JsonReply).json)

    def drop(self, keys: Sequence[bytes] | None = None) -> int:
        """Forgets these pages of the tenant, or every page of the tenant without ``keys``; returns how many there were."""
        if keys is None:
            return self.connection.call(messages.Drop(NONE32), messages.DropReply).dropped
        return self._in_chunks(keys, lambda part: self.connection.call(messages.Drop(NONE32, part), messages.DropReply).dropped)

    def ping(self, payload: bytes = b"") -> float:
        """Seconds for a round trip with that payload; raises when it does not come back unchanged."""
        start = time.perf_counter()
        if self.connection.call(messages.Ping(payload), messages.PingReply).payload != payload:
            raise KvtcError("PING came back with other bytes", advice="report this as a bug of kvtcd")
        return time.perf_counter() - start

    @staticmethod
    def _in_chunks(keys: Sequence[bytes], call: Any, chunk: int = 65536) -> int:
        # An empty list means "everything" on the wire; here it means what it says.
        return sum(call(list(keys[start : start + chunk])) for start in range(0, len(keys), chunk))

    def close(self) -> None:
        """Ends the connection and with it this client's sessions and leases. Pages stay with the daemon."""
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
