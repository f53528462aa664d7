"""Pages whose every byte is known from a seed, so that any machine can tell whether what it got is right."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Not when it is first used: who pulls may be a user that cannot read where it lies.
import numpy.random

import kvtc
from kvtc.client import Client
from kvtc.protocol.geometry import Geometry
from kvtc.protocol.messages import PullOutcome, PushOutcome, Residence
from kvtc.push import Page
from kvtc.session import Session

TOKENS = 64
GEOMETRY = Geometry.from_heads(layers=8, kv_heads=2, head_dim=64)
PAGE_BYTES = 8 * 2 * 2 * 64 * 2 * TOKENS


@dataclass(frozen=True)
class Pages:
    """A conversation of so many pages, each some 256 KiB of values like those of a cache."""

    seed: int
    count: int

    @property
    def raw_bytes(self) -> int:
        return self.count * PAGE_BYTES

    @functools.cached_property
    def keys(self) -> list[bytes]:
        tokens = numpy.random.default_rng(self.seed).integers(0, 50_000, self.count * TOKENS)
        return kvtc.page_keys(tokens, TOKENS)

    def content(self, index: int) -> bytes:
        return _content(self.seed, index)

    def open(self, client: Client) -> Session:
        return client.open_session(f"fleet-{self.seed}", geometry=GEOMETRY, page_tokens=TOKENS)

    def push(self, client: Client) -> None:
        """Raises RuntimeError unless all are kept."""
        with self.open(client) as session:
            pages = (Page(key, index * TOKENS, self.content(index)) for index, key in enumerate(self.keys))
            outcomes = session.push(pages)
        if any(outcome not in (PushOutcome.STORED, PushOutcome.PRESENT) for outcome in outcomes):
            raise RuntimeError(f"not all pages were kept: {outcomes}")

    def pull(self, session: Session, indices: Sequence[int]) -> Pulled:
        """Brings some of them back and compares every byte."""
        keys = self.keys
        got = Pulled()
        pages: dict[int, bytearray] = {}
        for part in session.pull([keys[index] for index in indices]):
            index = indices[part.index]
            if part.outcome == PullOutcome.HIT:
                # A page that comes again, over another connection, begins with its first layer.
                page = bytearray() if part.layers.start == 0 else pages[index]
                pages[index] = page + part.data
            else:
                pages.pop(index, None)
        for index, data in pages.items():
            got.hits += 1
            got.wrong += bytes(data) != self.content(index)
        got.misses = len(indices) - got.hits
        return got

    def residences(self, session: Session) -> list[Residence]:
        """Where each is."""
        return list(session.lookup(self.keys).residence)


@functools.lru_cache(maxsize=256)
def _content(seed: int, index: int) -> bytes:
    generator = numpy.random.default_rng([seed, index])
    return generator.normal(0, 1, PAGE_BYTES // 2).astype(np.float16).tobytes()


@dataclass
class Pulled:
    """What became of pages that were asked for."""

    hits: int = 0
    misses: int = 0
    wrong: int = 0
