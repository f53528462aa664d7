"""Workers pull while servers and daemons are killed and networks swallow packets: nothing wrong may come, and nothing may hang."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from kvtc.calibration.progress import say

from .cluster import Cluster, wait
from .host import Host
from .load import Load, Outcome
from .pages import Pages

PAUSE = (0.5, 2.5)
"""Seconds between one blow and the next."""


@dataclass
class Survived:
    """What came of it: of all workers, and of all pages asked for once everything ran again."""

    outcomes: list[Outcome]
    blows: dict[str, int] = field(default_factory=dict)
    found_again: bool = False

    def total(self, name: str) -> int:
        return sum(getattr(outcome, name) for outcome in self.outcomes)


class Blows:
    """Things that go wrong, one after the other: at most one server at a time, so that its replica can take its place."""

    def __init__(self, cluster: Cluster, hosts: Sequence[Host], seed: int) -> None:
        self._cluster, self._hosts = cluster, hosts
        self._choice = random.Random(seed)
        self.counts = {"master killed": 0, "master silent": 0, "daemon killed": 0}
        self._next: list[str] = []

    def strike(self) -> None:
        """One of them, and what has to happen before the next."""
        # Each kind once before any comes again.
        if not self._next:
            self._next = self._choice.sample(sorted(self.counts), len(self.counts))
        kind = self._next.pop()
        self.counts[kind] += 1
        say(f"  {kind}")
        if kind == "daemon killed":
            host = self._choice.choice(self._hosts)
            host.kill()
            self._pause()
            host.start()
            return
        master = self._choice.choice(self._cluster.masters())
        (self._cluster.kill if kind == "master killed" else self._cluster.freeze)(master)
        wait("a replica takes the place of its master", lambda: master not in self._cluster.masters())
        self._pause()
        (self._cluster.start if kind == "master killed" else self._cluster.thaw)(master)
        self._cluster.await_whole()
        self._cluster.await_copies()

    def _pause(self) -> None:
        time.sleep(self._choice.uniform(*PAUSE))


def survive(cluster: Cluster, hosts: Sequence[Host], pages: Pages, seconds: float, seed: int) -> Survived:
    """Strikes for so long, and in each way at least once, while each host has a worker that pulls; then looks whether all is well again."""
    blows = Blows(cluster, hosts, seed)
    loads = [Load(host, pages, seed + index) for index, host in enumerate(hosts)]
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline or not all(blows.counts.values()):
            blows.strike()
        survived = Survived([load.end() for load in loads], blows.counts)
    finally:
        for load in loads:
            load.kill()
    survived.found_again = all(_finds(host, pages) for host in hosts)
    return survived


def _finds(host: Host, pages: Pages, seconds: float = 60) -> bool:
    """Whether a host gives pages from the cluster again. Which ones have survived is the cluster's matter."""
    deadline = time.monotonic() + seconds
    with host.connect() as client, host.connect(user=0) as administrator, pages.open(client) as session:
        while time.monotonic() < deadline:
            pulled = pages.pull(session, range(pages.count))
            if pulled.wrong:
                return False
            if pulled.hits > 0 and host.is_connected(administrator):
                return True
            time.sleep(0.2)
    return False
