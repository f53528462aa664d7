"""Every message of protocol version 1, requests and replies, field by field in wire order."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import ClassVar

from .geometry import Geometry, Layout
from .policy import Policy, Range
from .wire import BLOB, KEY, NONE32, TEXT, U8, U16, U32, U64, VIEW, Opcode, Struct, list_of, wired

FEATURE_ARENAS = 1
FEATURE_STREAMING_PULL = 2
FEATURE_IDENTITY = 4
FEATURE_BLOCKS = 8
FEATURE_CODE = 16
FEATURE_EXPLAIN = 32
FEATURE_SHARED = 64
FEATURES = FEATURE_ARENAS | FEATURE_STREAMING_PULL | FEATURE_IDENTITY | FEATURE_BLOCKS | FEATURE_CODE | FEATURE_EXPLAIN | FEATURE_SHARED
"""All that this release knows."""


class PushOutcome(IntEnum):
    """``NON_FINITE``: rows of NaN or infinity are in the page there, which stay lossless; a finite page takes its place."""

    STORED = 0
    PRESENT = 1
    FULL = 2
    TOO_LARGE = 3
    NON_FINITE = 4


class PullOutcome(IntEnum):
    HIT = 0
    MISS = 1
    CORRUPT = 2
    NO_SPACE = 3
    BUSY = 4


class Residence(IntEnum):
    ABSENT = 0
    RAW = 1
    CODED = 2
    DISK = 3
    SHARED = 4


@dataclass
class Empty(Struct):
    pass


@dataclass
class ErrorBody(Struct):
    field: str = wired(TEXT)
    message: str = wired(TEXT)


@dataclass
class Hello(Struct):
    OPCODE = Opcode.HELLO
    min_version: int = wired(U16, default=1)
    max_version: int = wired(U16, default=1)
    features: int = wired(U32, default=FEATURE_ARENAS | FEATURE_STREAMING_PULL)
    client: str = wired(TEXT, default="kvtc")


@dataclass
class HelloReply(Struct):
    version: int = wired(U16)
    features: int = wired(U32)
    instance: int = wired(U64)
    max_body: int = wired(U32)
    max_in_flight: int = wired(U32)
    max_arena: int = wired(U64)
    server: str = wired(TEXT)


@dataclass
class Arena(Struct):
    OPCODE = Opcode.ARENA
    bytes: int = wired(U64)


@dataclass
class ArenaReply(Struct):
    arena: int = wired(U32)
    bytes: int = wired(U64)


@dataclass
class OpenSession(Struct):
    OPCODE = Opcode.OPEN_SESSION
    name: str = wired(TEXT)
    profile: bytes = wired(BLOB, default=b"")
    geometry: Geometry = wired(Geometry.encoding(), default_factory=Geometry)
    layout: Layout = wired(Layout.encoding(), default_factory=Layout)
    page_tokens: int = wired(U32, default=64)
    policy: Policy = wired(Policy.encoding(), default_factory=Policy)


@dataclass
class OpenIdentifiedSession(OpenSession):
    """OPEN_SESSION where both sides said FEATURE_IDENTITY."""

    identity: bytes = wired(BLOB, default=b"")

    def without_identity(self) -> OpenSession:
        """For a daemon that knows no identities."""
        return OpenSession(*(getattr(self, item.name) for item in fields(OpenSession)))


@dataclass
class OpenSessionReply(Struct):
    session: int = wired(U32)
    profile: bytes = wired(BLOB)
    token_bytes: int = wired(U64)


@dataclass
class SetPolicy(Struct):
    OPCODE = Opcode.SET_POLICY
    session: int = wired(U32)
    policy: Policy = wired(Policy.encoding())


@dataclass
class SetPolicyReply(Struct):
    raw_tokens: int = wired(U32)
    already_coded: list[Range] = wired(list_of(Range.encoding()))


@dataclass
class Lookup(Struct):
    OPCODE = Opcode.LOOKUP
    session: int = wired(U32)
    lease_ms: int = wired(U32)
    keys: list[bytes] = wired(list_of(KEY))


@dataclass
class LookupReply(Struct):
    lease: int = wired(U64)
    leading_run: int = wired(U32)
    residence: bytes = wired(BLOB)


@dataclass
class PushEntry(Struct):
    key: bytes = wired(KEY)
    first_position: int = wired(U32)
    tokens: int = wired(U32)
    offset: int = wired(U64)
    length: int = wired(U64)


@dataclass
class Push(Struct):
    OPCODE = Opcode.PUSH
    session: int = wired(U32)
    arena: int = wired(U32)
    entries: list[PushEntry] = wired(list_of(PushEntry.encoding()))
    inline: bytes | bytearray = wired(BLOB, default=b"")


@dataclass
class PushReply(Struct):
    outcomes: bytes = wired(BLOB)


@dataclass
class PullEntry(Struct):
    key: bytes = wired(KEY)
    offset: int = wired(U64)
    capacity: int = wired(U64)


@dataclass
class Pull(Struct):
    OPCODE = Opcode.PULL
    session: int = wired(U32)
    lease: int = wired(U64)
    arena: int = wired(U32)
    layer_begin: int = wired(U16)
    layer_end: int = wired(U16)
    layer_step: int = wired(U16)
    entries: list[PullEntry] = wired(list_of(PullEntry.encoding()))


@dataclass
class PullPart(Struct):
    entry: int = wired(U32)
    layer_begin: int = wired(U16)
    layer_end: int = wired(U16)
    outcome: int = wired(U8)
    offset: int = wired(U64)
    length: int = wired(U64)
    inline: memoryview = wired(VIEW)


@dataclass
class PullReply(Struct):
    hits: int = wired(U32)
    misses: int = wired(U32)
    corrupt: int = wired(U32)
    other: int = wired(U32)


@dataclass
class LookupBlocks(Lookup):
    """LOOKUP that tells how pages are stored. This and the messages below it take FEATURE_BLOCKS."""

    OPCODE = Opcode.LOOKUP_BLOCKS


@dataclass
class StoredPage(Struct):
    """``mode``: of the block; UNKNOWN_MODE for a page that is absent, and for a coded one that is only on disk."""

    UNKNOWN_MODE: ClassVar[int] = 0xFF
    residence: int = wired(U8)
    mode: int = wired(U8)
    tokens: int = wired(U32)
    length: int = wired(U64)


@dataclass
class LookupBlocksReply(Struct):
    lease: int = wired(U64)
    leading_run: int = wired(U32)
    pages: list[StoredPage] = wired(list_of(StoredPage.encoding()))


@dataclass
class PullBlocks(Struct):
    """Answered like PULL, with one part an entry."""

    OPCODE = Opcode.PULL_BLOCKS
    session: int = wired(U32)
    lease: int = wired(U64)
    arena: int = wired(U32)
    entries: list[PullEntry] = wired(list_of(PullEntry.encoding()))


@dataclass
class PushBlocks(Push):
    """PUSH of blocks; an entry's length is its block's."""

    OPCODE = Opcode.PUSH_BLOCKS


@dataclass
class ProfileFile(Struct):
    OPCODE = Opcode.PROFILE_FILE
    session: int = wired(U32)


@dataclass
class ProfileFileReply(Struct):
    profile: bytes = wired(BLOB)
    bytes: int = wired(U64)


@dataclass
class Release(Struct):
    OPCODE = Opcode.RELEASE
    lease: int = wired(U64)


@dataclass
class Prefetch(Struct):
    OPCODE = Opcode.PREFETCH
    session: int = wired(U32)
    keys: list[bytes] = wired(list_of(KEY))


@dataclass
class PrefetchReply(Struct):
    queued: int = wired(U32)


@dataclass
class Touch(Struct):
    OPCODE = Opcode.TOUCH
    session: int = wired(U32)
    pin: int = wired(U8, default=0)
    ttl_seconds: int = wired(U32, default=NONE32)
    keys: list[bytes] = wired(list_of(KEY), default_factory=list)


@dataclass
class TouchReply(Struct):
    found: int = wired(U32)


@dataclass
class Drop(Struct):
    OPCODE = Opcode.DROP
    session: int = wired(U32)
    keys: list[bytes] = wired(list_of(KEY), default_factory=list)


@dataclass
class DropReply(Struct):
    dropped: int = wired(U32)


@dataclass
class Truncate(Struct):
    OPCODE = Opcode.TRUNCATE
    session: int = wired(U32)
    tokens: int = wired(U32)


@dataclass
class TruncateReply(Struct):
    """``tokens``: where the session ends now. ``pages``: how many left it."""

    tokens: int = wired(U32)
    pages: int = wired(U32)


@dataclass
class CloseSession(Struct):
    OPCODE = Opcode.CLOSE_SESSION
    session: int = wired(U32)


@dataclass
class Status(Struct):
    OPCODE = Opcode.STATUS


@dataclass
class Explain(Struct):
    """``session`` NONE32 asks for ``keys`` of the tenant; without keys it is about the session's pages from index ``first`` on."""

    OPCODE = Opcode.EXPLAIN
    session: int = wired(U32, default=NONE32)
    first: int = wired(U32, default=0)
    keys: list[bytes] = wired(list_of(KEY), default_factory=list)


@dataclass
class JsonReply(Struct):
    json: str = wired(TEXT)


@dataclass
class Flush(Struct):
    OPCODE = Opcode.FLUSH
    session: int = wired(U32, default=NONE32)


@dataclass
class FlushReply(Struct):
    pages: int = wired(U64)
    bytes: int = wired(U64)


@dataclass
class Drain(Struct):
    OPCODE = Opcode.DRAIN
    begin: int = wired(U8)


@dataclass
class DrainReply(Struct):
    waiting: int = wired(U64)
    unwritten: int = wired(U64)


@dataclass
class Verify(Struct):
    OPCODE = Opcode.VERIFY


@dataclass
class VerifyReply(Struct):
    checked: int = wired(U64)
    total: int = wired(U64)
    bytes: int = wired(U64)
    corrupt: int = wired(U64)
    unreadable: int = wired(U64)


@dataclass
class Profile(Struct):
    OPCODE = Opcode.PROFILE
    action: int = wired(U8)
    name: str = wired(TEXT, default="")


@dataclass
class Shared(Struct):
    """``action`` 0 pings a fleet's servers, 1 asks what they keep, 2 removes that, from ``place`` on."""

    OPCODE = Opcode.SHARED
    action: int = wired(U8)
    place: str = wired(TEXT, default="")


@dataclass
class StoreProfile(Struct):
    OPCODE = Opcode.STORE_PROFILE
    arena: int = wired(U32)
    offset: int = wired(U64)
    length: int = wired(U64)
    name: str = wired(TEXT)


@dataclass
class Ping(Struct):
    OPCODE = Opcode.PING
    payload: bytes = wired(BLOB, default=b"")


@dataclass
class PingReply(Struct):
    payload: bytes = wired(BLOB)


@dataclass
class GetPolicy(Struct):
    OPCODE = Opcode.GET_POLICY
    session: int = wired(U32)


@dataclass
class GetPolicyReply(Struct):
    policy: Policy = wired(Policy.encoding())
    tokens: int = wired(U32)
