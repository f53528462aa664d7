"""Pages under names that an engine makes, for engines that ask for a batch of them at a time: stored, found, brought, never raising.

kvtcd may start after the engine, end before it and come back; whatever it does not give in time is a miss.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Concatenate, ParamSpec

import numpy as np
from numpy.typing import NDArray

from ..client import Client
from ..keys import part_key
from ..leases import Lease
from ..protocol.errors import KvtcError, Unavailable
from ..protocol.messages import PushOutcome, Residence
from ..protocol.policy import Mode
from ..session import Session
from ..transport.deadline import is_away
from . import breakeven, sessions, transfer
from .codec import DAEMON, Cells, Codec, Place, Run, Target, Whole
from .counters import Counters
from .device import DeviceCodecs
from .late import LateClient
from .options import Options
from .sessions import CacheForm

log = logging.getLogger("kvtc")
P = ParamSpec("P")

_STREAMS = 32
"""Sequences that go on at a time. What the one that was used longest ago has in its window stays exact for good."""
_LAP = 1024
"""Pages without a place in a sequence go one behind another, and from the start again after so many: a session knows each of its pages."""
_KEPT = (PushOutcome.STORED, PushOutcome.PRESENT, PushOutcome.NON_FINITE)


Answer = Callable[Concatenate["KeyedPages", P], NDArray[np.bool_]]


def _counting(asked: str, got: str) -> Callable[[Answer[P]], Answer[P]]:
    """Has a method's answers counted under those names: how many there were, and how many were yes."""

    def decorate(method: Answer[P]) -> Answer[P]:
        @wraps(method)
        def counted(self: KeyedPages, /, *arguments: P.args, **named: P.kwargs) -> NDArray[np.bool_]:
            answer = method(self, *arguments, **named)
            self.counters.add(**{asked: len(answer), got: int(answer.sum())})
            return answer

        return counted

    return decorate


class KeyedPages:
    """The pages of one cache: one identity, geometry and layout, ``page_tokens`` tokens each.

    Keys are an engine's, which mean the same in every process (``WireProtocol.md``, Duties of the caller). ``weights``: the digest by
    which a profile is found. A daemon that is away now is tried again later; what it refuses for good is said once in the log. Thread-safe.
    """

    def __init__(
        self,
        options: Options,
        cache: CacheForm,
        name: str,
        page_tokens: int,
        weights: bytes = b"",
        shared: LateClient | None = None,
        counters: Counters | None = None,
        codecs: DeviceCodecs | None = None,
    ) -> None:
        """``shared``: the connection of several caches of an engine; without, this one has its own. So it is with ``counters``.
        ``codecs``: of the device that holds the cache."""
        self._options, self._cache, self._name, self._page_tokens, self._weights = options, cache, name, page_tokens, weights
        self._late, self._is_shared = shared or LateClient(options, name), shared is not None
        self.counters, self._codecs = counters or Counters(), codecs
        self._opening = threading.Lock()
        self._pushing = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._client: Client | None = None
        self._session: Session | None = None
        self._refusal = ""
        self._lap = 0
        self._streams: OrderedDict[bytes, Session] = OrderedDict()
        self._held: deque[tuple[float, Lease]] = deque()

    @property
    def page_bytes(self) -> int:
        return self._cache.token_bytes * self._page_tokens

    @property
    def refusal(self) -> str:
        """Why kvtcd keeps nothing of this cache; empty where it does, or is away."""
        return self._refusal

    @_counting("looked_up", "found")
    def contains(self, keys: Sequence[bytes], hold: float = 0.0) -> NDArray[np.bool_]:
        """Which of them kvtcd has [keys]; so many seconds those from the first on stay."""
        session = self._opened()
        if session is None or not keys:
            return np.zeros(len(keys), bool)
        found, lease = transfer.found_pages(session, self._named(keys), deadline=self._options.deadline, lease_ms=int(hold * 1000))
        now = time.monotonic()
        # A lease without a reference is given back with the next request.
        while self._held and self._held[0][0] <= now:
            self._held.popleft()
        if lease:
            self._held.append((now + hold, lease))
        return np.array([where != Residence.ABSENT for where in found], bool)

    def seconds(self, keys: Sequence[bytes]) -> list[float | None]:
        """What bringing each of them takes, as far as kvtcd has measured that [keys]."""
        session, even = self._opened(), breakeven.of(self._cache.identity.digest)
        if session is None or not keys:
            return [None] * len(keys)
        even.ask(session, self._options.deadline)
        if not even.costs.is_known:
            return [None] * len(keys)
        found, _ = transfer.found_pages(session, self._named(keys), deadline=self._options.deadline)
        return even.costs.of(found, self._page_tokens)

    @_counting("asked", "brought")
    def get(self, keys: Sequence[bytes], place: Place) -> NDArray[np.bool_]:
        """Hands those that are there to ``place``, in any order; which arrived whole and in time [keys]."""
        return self._bring(keys, Whole(place))

    @_counting("asked", "brought")
    def bring(self, keys: Sequence[bytes], target: Target) -> NDArray[np.bool_]:
        """As ``get``, in whatever way the target and its session's codec have in common."""
        return self._bring(keys, target)

    def _bring(self, keys: Sequence[bytes], target: Target) -> NDArray[np.bool_]:
        session = self._opened()
        if session is None or not keys:
            return np.zeros(len(keys), bool)
        codec = self._codec(session, target.cells)
        return transfer.pull_found(session, self._named(keys), target, codec=codec, deadline=self._options.deadline)

    @_counting("offered", "kept")
    def set(
        self, keys: Sequence[bytes], page: Callable[[int], object], first: int | None = None, before: bytes | None = None,
        cells: Cells | None = None,
    ) -> NDArray[np.bool_]:  # fmt: skip
        """Stores pages that follow one another; which kvtcd has now [keys].

        ``page``: the bytes of the page with that index. ``first``: the position of the first page's first token, and ``before`` the key of
        the page before it, which says what sequence they continue; without a position they have none. ``cells``: as `Run` has them.
        """
        if self._opened() is None or not keys:
            return np.zeros(len(keys), bool)
        names = self._named(keys)
        with self._pushing:
            if first is None:
                if self._lap + len(keys) > _LAP:
                    self._lap = 0
                start, self._lap = self._lap * self._page_tokens, self._lap + len(keys)
                session = self._session
            else:
                start, session = first, self._stream(before)
            if session is None:
                return np.zeros(len(keys), bool)
            codec = self._codec(session, cells)
            done = transfer.push_pages(session, Run(names, start, page, cells), codec=codec, deadline=self._options.deadline)
            if first is not None:
                self._streams[keys[-1]] = session
        kept = [outcome in _KEPT for outcome in done.outcomes]
        return np.array(kept or [False] * len(keys), bool)

    def drop(self, keys: Sequence[bytes]) -> int:
        """Forgets them; how many there were."""
        session = self._opened()
        if session is None or not keys:
            return 0
        try:
            with session.client.bounded(self._options.deadline):
                return session.drop(self._named(keys))
        except KvtcError as error:
            log.warning("%s; nothing dropped", error)
            return 0

    def close(self) -> None:
        """Hangs up. Pages stay with kvtcd."""
        with self._opening:
            self._reset()
            self._refusal = "closed"
        if not self._is_shared:
            self._late.close()

    def warm_up(self) -> None:
        """Returns when nothing is left to be compiled, if kvtcd is there to say for which profile."""
        if self._codecs and (session := self._opened()):
            self._codecs.warm_up(session, self._options.policy)

    def _codec(self, session: Session, cells: Cells | None) -> Codec:
        return self._codecs.codec(session, self._options.policy) if self._codecs and cells else DAEMON

    @staticmethod
    def _named(keys: Sequence[bytes]) -> list[bytes]:
        """Keys of any length as kvtcd has them."""
        return [part_key(key, "") for key in keys]

    def _stream(self, before: bytes | None) -> Session | None:
        """The session of the sequence that ended with that page: its window is then that sequence's own end."""
        if self._options.mode == Mode.LOSSLESS:
            return self._session
        if before and (known := self._streams.pop(before, None)):
            return known
        while len(self._streams) >= _STREAMS:
            # Closed with the next request, without waiting for it.
            self._streams.popitem(last=False)
        client = self._client
        if client is None:
            return None
        try:
            with client.bounded(self._options.deadline):
                return self._open(client)
        except KvtcError as error:
            if not isinstance(error, Unavailable):
                log.warning("%s; pages of several sequences go on as one", error)
            return self._session

    def _opened(self) -> Session | None:
        """The session that finds and brings pages; None while there is none to be had."""
        with self._opening:
            if self._session is None and not self._refusal:
                try:
                    self._client, self._session = self._late.use(lambda client: (client, self._open(client)))
                except KvtcError as error:
                    self._explain(error)
            return self._session

    def _open(self, client: Client) -> Session:
        options, profile = self._options, self._options.profile
        if options.mode.needs_profile and not profile:
            advice = "make one with 'kvtcctl calibrate', load it with 'kvtcctl profile load', and start the engine anew"
            profile = sessions.needed_profile(client, options.mode, self._weights, advice)
        return sessions.open_session(
            client, self._name, self._cache, profile=profile, policy=options.policy, page_tokens=self._page_tokens
        )

    def _explain(self, error: KvtcError) -> None:
        if isinstance(error, Unavailable):
            return
        if is_away(error):
            log.warning("%s; going on without kvtcd", error)
        elif not self._refusal:
            self._refusal = str(error)
            log.error("kvtcd keeps nothing of %s: %s", self._name, error)

