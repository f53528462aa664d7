"""What a lookup on this machine costs while the cluster is away, against a daemon that shares nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.random

from kvtc.session import Session

from .host import Host
from .pages import Pages


@dataclass
class Latencies:
    """Microseconds that 99 % of lookups take at most."""

    alone: float
    shared: float

    @property
    def ratio(self) -> float:
        return self.shared / self.alone


def compare(alone: Host, shared: Host, pages: Pages, count: int) -> tuple[Latencies, Latencies]:
    """Of pages that are here, and of as many that are not. Both hosts have the pages."""
    clients = [host.connect() for host in (alone, shared)]
    try:
        sessions = [pages.open(client) for client in clients]
        return _paired(sessions, pages, count, misses=False), _paired(sessions, pages, count, misses=True)
    finally:
        for client in clients:
            client.close()


def _paired(sessions: Sequence[Session], pages: Pages, count: int, *, misses: bool) -> Latencies:
    """One lookup of one daemon, one of the other, so that what else the machine does is the same for both."""
    generator = numpy.random.default_rng(pages.seed)
    taken: list[list[float]] = [[], []]
    for turn in range(count):
        for which in (0, 1) if turn % 2 else (1, 0):
            keys = [generator.bytes(32) for _ in range(pages.count)] if misses else pages.keys
            begin = time.perf_counter()
            sessions[which].lookup(keys)
            taken[which].append(time.perf_counter() - begin)
    alone, shared = (float(np.percentile(seconds, 99)) * 1e6 for seconds in taken)
    return Latencies(alone, shared)
