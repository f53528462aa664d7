"""The daemon as a worker sees it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

from .identity import Identity, identity_bytes
from .protocol import messages
from .protocol.errors import KvtcError
from .protocol.geometry import Geometry, Layout
from .protocol.policy import Mode, Policy
from .protocol.wire import NONE32
from .session import Session
from .stream import in_chunks
from .transport.connection import Connection
from .transport.link import Link


class Client(Link):
    """A connection to kvtcd. Safe to use from several threads; a process that was forked connects anew with its first request.

    ``socket_path`` defaults to the environment variable KVTC_SOCKET, then /run/kvtcd/kvtcd.sock. ``timeout`` (seconds)
    bounds every wait for a reply. ``arena_bytes`` is the shared memory for pages; 0 sends them through the socket.

    When the daemon restarts or crashes, the client connects again by itself, trying for ``reconnect`` seconds (0: not at
    all), opens its sessions again with the policy they had, and repeats the request, which every request of this library
    bears: what was acknowledged is still there, so a repeated push answers PRESENT, a repeated drop counts what was left
    to drop, and a pull goes on with the pages that were not complete. Leases end with a connection; a pull under one goes on
    without it. A new session has no tokens yet: its window begins with the next page pushed, and pages pushed before stay
    as they are, never coded with less protection. A request that fails three connections in a row raises.

    A session without any reference left is closed with the next request.
    """

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

    def flush(self, session: Session | int | None = None) -> messages.FlushReply:
        """Returns once everything acknowledged so far (or everything of one session) survives a power loss."""
        if isinstance(session, Session):
            return session.flush()
        return self._call(messages.Flush(NONE32 if session is None else session), messages.FlushReply)

    def drain(self, begin: bool = True) -> messages.DrainReply:
        """Has the daemon take no more sessions and pages, or take them again, which takes an administrator; what it has yet to
        code and write, which :meth:`flush` does."""
        return self._call(messages.Drain(int(begin)), messages.DrainReply)

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
            arena = self.request_arena(connection, len(content))
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
        return in_chunks(keys, lambda part: self._call(messages.Drop(NONE32, part), messages.DropReply).dropped)

    def shared(self, action: Literal["ping", "usage", "drop"], place: str = "") -> Any:
        """What the servers of the daemon's fleet say, as ``WireProtocol.md`` describes it at SHARED, which takes an administrator; ``drop``
        goes on from the ``place`` that the answer before names as ``next``. An earlier daemon refuses it (``unknownOpcode``)."""
        request = messages.Shared(("ping", "usage", "drop").index(action), place)
        return json.loads(self._call(request, messages.JsonReply).json)

    def explain(self, keys: Sequence[bytes]) -> Any:
        """Where the pages of these keys are, how they are stored and why, as ``WireProtocol.md`` describes it at EXPLAIN; at most 1024.
        An earlier daemon refuses it (``unknownOpcode``)."""
        return json.loads(self._call(messages.Explain(NONE32, 0, list(keys)), messages.JsonReply).json)


def connect(socket_path: str | None = None, **options: Any) -> Client:
    """Connects to kvtcd; see ``Client`` for the options."""
    return Client(socket_path, **options)
