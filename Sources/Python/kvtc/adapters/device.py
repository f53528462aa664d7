"""Pages that are coded and decoded on the device that holds an engine's cache, and travel as blocks.

What cannot be done there is the daemon's to do: a toolchain that gives other bits, too little memory, a mode without a profile. What fails while
serving is a miss, or a page that is sent as it is; after that the daemon codes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..blocks import Block, has_blocks
from ..leases import Lease
from ..protocol.errors import KvtcError, Unavailable
from ..protocol.geometry import Element
from ..protocol.messages import PullOutcome, PushOutcome
from ..protocol.policy import Mode, Policy, QualityKind
from ..pull import Part
from ..session import Session
from ..transport.deadline import is_away
from .background import Background
from .codec import DAEMON, Cells, Codec, Run, Target
from .coder import Coder, make_coder
from .options import Options

log = logging.getLogger("kvtc")

_INLINE = 64 << 20
"""Bytes of blocks that are decoded together where they come through the socket."""
_CODED = (Mode.TRANSFORM, Mode.KVTC)


class DeviceCodecs:
    """The codecs of an engine's device, one for each session's profile and policy; the daemon's while there is none.

    ``device``, ``element``: of the engine's cache. Thread-safe.
    """

    def __init__(self, options: Options, device: Any, element: Element) -> None:
        self.is_wanted = options.codec == "device" or (options.codec == "auto" and device.type == "cuda")
        self._most = options.device_mib << 20
        self._device, self._element = device, element
        self._lock = threading.Lock()
        #: By profile; None while one is made, and where none can be.
        self._coders: dict[bytes, Coder | None] = {}
        self._maker = Background("kvtc-compile") if self.is_wanted else None

    def codec(self, session: Session, policy: Policy) -> Codec:
        """Of a session. What it needs is compiled in the background where that has not been done before (`warm_up`)."""
        if not self._is_for(session, policy):
            return DAEMON
        if self._claim(session) and self._maker:
            self._maker.submit(lambda: self._make(session))
        coder = self._coders.get(session.profile)
        return DAEMON if coder is None or coder.is_broken else DeviceCodec(coder, policy)

    def warm_up(self, session: Session, policy: Policy) -> None:
        """Returns when nothing is left to be compiled for such sessions."""
        if self._is_for(session, policy) and self._claim(session):
            self._make(session)

    def close(self) -> None:
        if self._maker:
            self._maker.close()

    def _is_for(self, session: Session, policy: Policy) -> bool:
        return bool(self.is_wanted and policy.mode in _CODED and session.profile and has_blocks(session.client.connection))

    def _claim(self, session: Session) -> bool:
        """Whether the caller is to make the coder of the session's profile."""
        with self._lock:
            is_new = session.profile not in self._coders
            self._coders.setdefault(session.profile, None)
            return is_new

    def _make(self, session: Session) -> None:
        try:
            self._coders[session.profile] = make_coder(session.profile_file(), self._device, self._element, self._most)
            log.info("pages are coded and decoded on %s", self._device)
        except KvtcError as error:
            log.warning("%s; the daemon codes until it can be asked again", error)
            with self._lock:
                del self._coders[session.profile]
        except Exception as error:
            # Whatever a compiler or a driver says: the engine goes on.
            reason = f"{error}; install kvtc[gpu]" if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            log.warning("pages are not coded on %s (%s); the daemon codes them", self._device, reason)


@dataclass(frozen=True)
class DeviceCodec:
    """Blocks come and go; what they hold is read and written where the cache is."""

    coder: Coder
    policy: Policy

    def bring(self, session: Session, keys: Sequence[bytes], target: Target, arrived: NDArray[np.bool_], lease: Lease | None) -> None:
        if target.cells is None or not self.coder.fits(target.cells):
            return DAEMON.bring(session, keys, target, arrived, lease)
        arena = session.client.arena()
        self.coder.pin(arena)
        # Together, as each call costs some for every layer; the rest of the arena is for what is on its way.
        most = arena.length // 4 if arena else _INLINE
        held: list[tuple[Part, Callable[[], None]]] = []
        try:
            for part in session.pull_blocks(keys, lease):
                if part.outcome != PullOutcome.HIT:
                    continue
                if part.is_block:
                    held.append((part, part.hold()))
                    if sum(len(other.data) for other, _ in held) >= most:
                        self._decode(held, target, arrived)
                else:
                    # Of an earlier daemon, to which the client has connected again.
                    target.write(part.index, part.layers, np.frombuffer(part.data, np.uint8))
                    part.require_valid()
                    arrived[part.index] = True
        finally:
            self._decode(held, target, arrived)

    def _decode(self, held: list[tuple[Part, Callable[[], None]]], target: Target, arrived: NDArray[np.bool_]) -> None:
        """Writes blocks from where they lie, and lets them go."""
        if not held:
            return
        parts, cells = [part for part, _ in held], target.cells
        assert cells
        indices = [part.index for part in parts]
        try:
            failed = self.coder.decode(
                [part.data for part in parts], [cells.slots[index] for index in indices], cells,
                lambda layer, event: target.reached(indices, layer, event),
            )  # fmt: skip
            for at, part in enumerate(parts):
                part.require_valid()
                arrived[part.index] = at not in failed
        finally:
            for _, let_go in held:
                let_go()
            held.clear()

    def send(self, session: Session, run: Run) -> list[PushOutcome]:
        cells, size = run.cells, session.page_tokens
        if cells is None or self.policy.mode != Mode.TRANSFORM or not self.coder.fits(cells):
            return DAEMON.send(session, run)
        # What the window holds is to stay exact.
        end = run.first + len(run.keys) * size - self.policy.window
        coded = [index for index in range(len(run.keys)) if run.first + (index + 1) * size <= end]
        blocks = dict(zip(coded, self._encoded(run, cells, coded, size), strict=True))
        whole = [index for index in range(len(run.keys)) if blocks.get(index) is None]
        ready = [Block(run.keys[index], run.first + index * size, size, block) for index, block in blocks.items() if block]
        # The stream's end goes first: the window is before that then, and does not reach the blocks.
        outcomes = dict(zip(whole, session.push(run.pages(whole, size)), strict=True)) if whole else {}
        made = [index for index, block in blocks.items() if block]
        try:
            outcomes |= zip(made, session.push_blocks(ready), strict=True)
        except KvtcError as error:
            if is_away(error) or isinstance(error, Unavailable):
                raise
            log.warning("kvtcd takes no blocks that were coded on the device: %s; it codes these pages itself", error)
            outcomes |= zip(made, session.push(run.pages(made, size)), strict=True)
        return [outcomes[index] for index in range(len(run.keys))]

    def _encoded(self, run: Run, cells: Cells, indices: Sequence[int], size: int) -> list[bytes | None]:
        pages = []
        for index in indices:
            first = run.first + index * size
            positions = np.arange(first, first + size)
            protected = positions < self.policy.sink
            for kept in self.policy.protected:
                protected |= (positions >= kept.begin) & (positions < kept.end)
            pages.append((cells.slots[index], first, protected))
        policy = self.policy
        is_ratio = policy.quality_kind == QualityKind.RATIO
        bounds = [bound for bound in (None if is_ratio else policy.quality, policy.distortion_limit) if bound is not None]
        return self.coder.encode(
            pages, cells, ratio=policy.quality if is_ratio else None, distortion=min(bounds, default=None),
            keeps_outliers=policy.keep_outliers,
        )  # fmt: skip
