"""Whether a prompt's pages are brought back or computed again: what kvtcd's pulls take against what this engine's prefill takes.

kvtcd measures its pulls (``restore_costs`` of STATUS), the engine's prefills are measured here. Without figures of both everything is
brought back, as it is where the two are close: the engine is free for others meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from typing import Any

from ..protocol.errors import KvtcError
from ..protocol.messages import Residence
from ..session import Session

MARGIN = 1.05
"""What bringing back may take of the time that the quickest choice takes. Below the tenth that is promised, as figures are never exact."""
REFRESH = 10.0
"""Seconds that kvtcd's figures are good for."""
LEAST_PREFILL = 16
"""Tokens below which a prefill says more about calls than about tokens."""
_PROBE = 32
"""Every so many times that nothing is worth it, some pages are brought back all the same: or figures that are wrong would stay so."""
_PROBE_TOKENS = 256


@dataclass(frozen=True)
class Costs:
    """Seconds that bringing a token back takes, by where its page is; None where no pull was measured."""

    raw: float | None = None
    coded: float | None = None
    disk: float | None = None
    shared: float | None = None

    @classmethod
    def told(cls, status: Mapping[str, Any], profile: bytes, token_bytes: int) -> Costs:
        """Those of pages of that shape. Earlier daemons tell none."""
        wanted = (profile.hex() or None, token_bytes)
        for row in status.get("restore_costs", ()):
            if (row["profile"], row["token_bytes"]) == wanted:
                micros = (row.get(place.name, {}).get("us_per_token") for place in fields(cls))
                return cls(*(None if value is None else value / 1e6 for value in micros))
        return cls()

    def of(self, found: Sequence[Residence], page_tokens: int) -> list[float | None]:
        """Seconds of each page."""
        by = {Residence.RAW: self.raw, Residence.CODED: self.coded, Residence.DISK: self.disk, Residence.SHARED: self.shared}
        each = {where: None if cost is None else cost * page_tokens for where, cost in by.items()}
        return [each.get(where) for where in found]

    @property
    def is_known(self) -> bool:
        return self != Costs()


class Prefill:
    """How long an engine computes tokens: so much a token, and so much a pair of tokens of which one attends to the other. Both are
    fitted to the prefills seen, later ones counting more, in least squares of the relative error."""

    _FADE = 0.9

    def __init__(self) -> None:
        # Sums over the samples: n·n, n·p, p·p, n·t, p·t, each over t².
        self._sums = [0.0] * 5

    def note(self, first: int, tokens: int, seconds: float) -> None:
        """Notes that ``tokens`` from position ``first`` on took so long."""
        if tokens < LEAST_PREFILL or seconds <= 0:
            return
        n, p = tokens / seconds, _pairs(first, tokens) / seconds
        self._sums = [self._FADE * old + new for old, new in zip(self._sums, (n * n, n * p, p * p, n, p), strict=True)]

    @property
    def is_known(self) -> bool:
        return self._sums[0] > 0

    def seconds(self, first: int, tokens: int) -> float:
        """What that would take; of use only where ``is_known``."""
        a, b = self._fit()
        return a * tokens + b * _pairs(first, tokens)

    def _fit(self) -> tuple[float, float]:
        nn, np, pp, nt, pt = self._sums
        determinant = nn * pp - np * np
        # Prefills that are all alike do not tell the two apart.
        if determinant > 1e-6 * nn * pp:
            a, b = (nt * pp - pt * np) / determinant, (pt * nn - nt * np) / determinant
            if a >= 0 and b >= 0:
                return a, b
            if a < 0:
                return 0.0, pt / pp
        return (nt / nn, 0.0) if nn else (0.0, 0.0)


def _pairs(first: int, tokens: int) -> float:
    return tokens * (first + (tokens + 1) / 2)


def pages_worth(seconds: Sequence[float | None], page_tokens: int, total: int, prefill: Prefill, own: int = 0) -> int:
    """How many of the pages found, from the first one on, are to be brought back for a prompt of ``total`` tokens, so that it is there
    soonest or nearly so (``MARGIN``): as many as that allows. ``seconds``: what each takes, None where that is not known; ``own``: tokens
    that the engine has itself.
    """
    known = [each for each in seconds if each is not None]
    if not prefill.is_known or len(known) < len(seconds):
        return len(seconds)
    spent, times = 0.0, [prefill.seconds(own, total - own)]
    for count, each in enumerate(known, 1):
        spent += each
        start = count * page_tokens
        # What the engine has itself is no gain, and what reaches beyond the prompt's end none either.
        times.append(spent + prefill.seconds(start, max(0, total - start)) if start > own else times[0])
    most = min(times) * MARGIN
    return max(count for count, whole in enumerate(times) if whole <= most)


class BreakEven:
    """The figures of one model's pages in this process."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.prefill, self.costs = Prefill(), Costs()
        self._clock, self._asked, self._declined = clock, float("-inf"), 0
        self._lock = threading.Lock()

    @contextmanager
    def prefilling(self, first: int, tokens: int) -> Iterator[None]:
        """Measures a prefill."""
        began = self._clock()
        yield
        self.note(first, tokens, self._clock() - began)

    def note(self, first: int, tokens: int, seconds: float) -> None:
        with self._lock:
            self.prefill.note(first, tokens, seconds)

    def ask(self, session: Session, deadline: float) -> None:
        """Asks the daemon for its figures, now and then. One that does not answer leaves those that there were."""
        now = self._clock()
        with self._lock:
            if now - self._asked < REFRESH and self.costs.is_known:
                return
            self._asked = now
        with suppress(KvtcError), session.client.bounded(deadline):
            self.costs = Costs.told(session.client.status(), session.profile, session.token_bytes)

    def pages(self, seconds: Sequence[float | None], page_tokens: int, total: int, own: int = 0) -> int:
        """As ``pages_worth``, and now and then some pages more than that."""
        with self._lock:
            count = pages_worth(seconds, page_tokens, total, self.prefill, own)
            if count or not seconds:
                return count
            self._declined += 1
            return 0 if self._declined % _PROBE else min(len(seconds), -(-_PROBE_TOKENS // page_tokens))


_known: dict[bytes, BreakEven] = {}


def of(identity: bytes) -> BreakEven:
    """The figures of what pages of that identity are computed by."""
    return _known.setdefault(identity, BreakEven())
