"""What can go wrong, as types: the daemon's error codes and the exceptions of the client."""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """Error codes of the protocol; fixed numbers, never reused."""

    BAD_MAGIC = 1
    BAD_VERSION = 2
    UNKNOWN_OPCODE = 3
    TOO_LARGE = 4
    TRUNCATED = 5
    TRAILING_BYTES = 6
    INVALID_FIELD = 7
    HELLO_REQUIRED = 8
    UNKNOWN_SESSION = 9
    UNKNOWN_PROFILE = 10
    GEOMETRY_MISMATCH = 11
    UNKNOWN_ARENA = 12
    ARENA_BOUNDS = 13
    LIMIT_EXCEEDED = 14
    POSITION_CONFLICT = 15
    UNKNOWN_LEASE = 16
    FORBIDDEN = 17
    IO_ERROR = 18
    SHUTTING_DOWN = 19
    INTERNAL_ERROR = 20
    TIMEOUT = 21

    @property
    def label(self) -> str:
        """The name as the protocol's documentation writes it, such as ``badMagic``."""
        first, *rest = self.name.lower().split("_")
        return first + "".join(word.capitalize() for word in rest)


_ADVICE = {
    ErrorCode.BAD_VERSION: "client and daemon speak different protocol versions; upgrade the older one",
    ErrorCode.HELLO_REQUIRED: "say HELLO first; Client does this when it connects",
    ErrorCode.TOO_LARGE: "send fewer or smaller pages in one request, or use an arena",
    ErrorCode.UNKNOWN_SESSION: "open the session again; a session ends with the connection that opened it",
    ErrorCode.UNKNOWN_PROFILE: "load it with Client.load_profile or 'kvtcctl profile load'",
    ErrorCode.GEOMETRY_MISMATCH: "open the session without a geometry to take the profile's, or with the model's own profile",
    ErrorCode.UNKNOWN_LEASE: "the lease ran out or was released; look the keys up again",
    ErrorCode.LIMIT_EXCEEDED: "stay below the limit named, or raise it in kvtcd.toml",
    ErrorCode.POSITION_CONFLICT: "push pages of a session in order, without overlap; open another session for another sequence",
    ErrorCode.FORBIDDEN: "it takes an administrator of the daemon, or a change of kvtcd.toml",
    ErrorCode.IO_ERROR: "see the daemon's log: journalctl -u kvtcd",
    ErrorCode.SHUTTING_DOWN: "connect again in a moment",
    ErrorCode.INTERNAL_ERROR: "see the daemon's log: journalctl -u kvtcd",
}


class KvtcError(Exception):
    """Base of all errors of this package; raised as such for an error the daemon answered with.

    ``code`` is the daemon's error code (None where the client itself is the source), ``name`` its label, ``field`` the
    offending field of the request, ``advice`` what to do next.
    """

    def __init__(self, message: str, code: int | None = None, field: str = "", advice: str = ""):
        self.message = message
        self.code = code
        self.field = field
        try:
            known = ErrorCode(code) if code is not None else None
        except ValueError:
            known = None
        self.name = known.label if known else ("" if code is None else f"error{code}")
        self.advice = advice or (_ADVICE.get(known, "") if known else "")
        where = f" in '{field}'" if field else ""
        head = f"{self.name} ({code}){where}: {message}" if code is not None else f"{message}{where}"
        super().__init__(f"{head}; {self.advice}" if self.advice else head)


class WireError(KvtcError):
    """Bytes that are no valid message, or a value that can't be encoded."""

    def __init__(self, code: ErrorCode, field: str, message: str):
        super().__init__(message, code, field)


class Unreachable(KvtcError):
    """No daemon answers on the socket."""


class ConnectionLost(KvtcError):
    """The connection ended while requests were under way. Pages already acknowledged are not affected."""


class RequestTimedOut(KvtcError):
    """No reply within the client's timeout, or the caller's deadline. The request may still be carried out."""


class Unavailable(KvtcError):
    """Not asked: the daemon did not answer a moment ago."""


class CacheMismatch(KvtcError, ValueError):
    """The worker's cache is not the one of the tokens that it was said to be of; nothing was pushed."""
