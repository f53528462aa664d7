"""Pages as the daemon stores them: blocks of the block format, for workers that decode and encode by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .leases import Lease
from .protocol import messages
from .protocol.errors import KvtcError
from .protocol.messages import PullOutcome, Residence
from .protocol.policy import BlockMode
from .protocol.wire import NONE32, received
from .pull import Batch, Part, Pull
from .stream import Stream
from .transport.arena import ALIGNMENT, Region
from .transport.connection import Connection

_LARGEST_OVERHEAD = 4096
"""Bytes by which no block is larger than its page: a header of 104, a bitmap, and what lossless coding may add."""


@dataclass
class Block:
    """A block to push: any buffer that holds one, with the name and the place of its page."""

    key: bytes
    first_position: int
    tokens: int
    data: object


@dataclass
class StoredPage:
    """How a page is stored. ``mode`` is None for one that is absent, and for a coded one that is only on disk: its header says.
    ``length`` counts the bytes of its block; 0 for an absent one."""

    residence: Residence
    mode: BlockMode | None
    tokens: int
    length: int


@dataclass
class BlockLookup:
    """What ``Lookup`` is, with one page for each key. ``leading_run`` pages from the first on can be pulled."""

    pages: list[StoredPage]
    leading_run: int
    lease: Lease | None


def has_blocks(connection: Connection) -> bool:
    """Whether the daemon at the other end hands out blocks; earlier ones don't."""
    return bool(connection.server.features & messages.FEATURE_BLOCKS)


def require_blocks(connection: Connection) -> None:
    """Raises where it doesn't."""
    if not has_blocks(connection):
        raise KvtcError(f"{connection.server.server} knows no blocks", field="features", advice="upgrade kvtcd, or push and pull pages")


def lookup_on(connection: Connection, stream: Stream, keys: Sequence[bytes], lease_ms: int) -> BlockLookup:
    """Which pages are there, and how they are stored. An earlier daemon says only the first: then a page counts as raw."""
    number = stream.number_on(connection)
    pages: list[StoredPage] = []
    if has_blocks(connection):
        reply = connection.call(messages.LookupBlocks(number, lease_ms, list(keys)), messages.LookupBlocksReply)
        lease, run = reply.lease, reply.leading_run
        for page in reply.pages:
            mode = None if page.mode == page.UNKNOWN_MODE else received(page.mode, "mode", BlockMode)
            pages.append(StoredPage(received(page.residence, "residence", Residence), mode, page.tokens, page.length))
    else:
        known = connection.call(messages.Lookup(number, lease_ms, list(keys)), messages.LookupReply)
        lease, run = known.lease, known.leading_run
        for value in known.residence:
            there = received(value, "residence", Residence)
            length = 0 if there == Residence.ABSENT else stream.page_bytes
            pages.append(StoredPage(there, BlockMode.RAW if there == Residence.RAW else None, stream.page_tokens if length else 0, length))
    return BlockLookup(pages, min(run, len(keys)), Lease(connection, lease) if lease else None)


class BlockPull(Pull):
    """A pull of blocks; of whole pages where the daemon has none to give."""

    def __init__(self, session: Stream, keys: Sequence[bytes], lease: Lease | int | None, lengths: Sequence[int] | None):
        if lengths is not None and len(lengths) != len(keys):
            raise ValueError(f"{len(lengths)} lengths for {len(keys)} keys")
        super().__init__(session, keys, None, 0, lease)
        self.lengths = list(lengths) if lengths is not None else None
        #: Pages that had become larger than they were said to be.
        self.grown: set[int] = set()

    def begin(self, connection: Connection) -> None:
        self.is_stored = has_blocks(connection)
        if self.is_stored and self.lengths is None:
            self.lengths = [page.length for page in lookup_on(connection, self.session, self.keys, 0).pages]

    def room(self, page: int, layers: range | None) -> int:
        if not self.is_stored:
            return super().room(page, layers)
        largest = self.session.page_bytes + _LARGEST_OVERHEAD
        length = largest if page in self.grown or self.lengths is None else min(self.lengths[page], largest)
        return -(-length // ALIGNMENT) * ALIGNMENT

    def message(self, batch: Batch, number: int, lease: int, region: Region | None) -> messages.Pull | messages.PullBlocks:
        if not self.is_stored:
            return super().message(batch, number, lease, region)
        return messages.PullBlocks(number, lease, region.arena.number if region else NONE32, self.entries(batch, region))

    def takes(self, part: Part) -> bool:
        # Since it was looked up another page has taken its place, such as one that is not coded.
        if not self.is_stored or part.outcome != PullOutcome.NO_SPACE or part.index in self.grown:
            return True
        self.grown.add(part.index)
        return False
