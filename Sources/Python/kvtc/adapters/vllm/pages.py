"""The pages of a model's parts (a rank's group of layers each), and how scheduler and workers speak of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..counters import Counters
from ..device import DeviceCodecs
from ..keyed import KeyedPages
from ..sessions import CacheForm
from .settings import Wishes, WishList

log = logging.getLogger("kvtc")


@dataclass(frozen=True)
class Parts:
    """What a worker says of itself, so that the scheduler can look up what it has: each group's cache, whether it is of states
    (``state_cache``), the weights' digest, and whether coded pages are decoded on the worker's device."""

    forms: tuple[CacheForm, ...]
    states: tuple[bool, ...]
    weights: bytes
    page_tokens: int
    is_decoding: bool = False


@dataclass(frozen=True)
class Transfer:
    """Consecutive pages of a request. ``blocks``: by group, the block ids of all their tokens in order; 0 for a block that is not there, or
    not wanted. ``first``: the first page's number in its sequence; ``before``: the key of the page before it."""

    request: str
    keys: tuple[bytes, ...]
    first: int
    blocks: tuple[tuple[int, ...], ...]
    before: bytes | None = None
    wishes: Wishes = ()


@dataclass
class Plan:
    """What the workers do in one step. ``is_idle``: the model computes nothing in it."""

    loads: list[Transfer] = field(default_factory=list)
    saves: list[Transfer] = field(default_factory=list)
    is_idle: bool = False


class PartPages:
    """The pages of one worker, or of all as the scheduler sees them, under each request's wishes. ``counters``: of all of them. ``codecs``:
    of the worker's device."""

    def __init__(self, wishes: WishList, parts: Sequence[Parts], counters: Counters, codecs: DeviceCodecs | None = None) -> None:
        self._wishes, self._parts, self.counters, self._codecs = wishes, parts, counters, codecs
        self._pages: dict[Wishes, list[KeyedPages]] = {}

    def under(self, wishes: Wishes) -> list[KeyedPages]:
        """One for each group of each part, in order. A session opens at its first use."""
        if wishes not in self._pages:
            options = self._wishes.options(wishes)
            self._pages[wishes] = [
                KeyedPages(
                    options.exactly() if is_state else options,
                    form,
                    f"vllm {form.identity.part}",
                    part.page_tokens,
                    part.weights,
                    counters=self.counters,
                    codecs=None if is_state else self._codecs,
                )
                for part in self._parts
                for form, is_state in zip(part.forms, part.states, strict=True)
            ]
        return self._pages[wishes]

    def leading(self, wishes: Wishes, keys: Sequence[bytes]) -> int:
        """How many of them, from the first on, every part has: of states, the last one."""
        of_states = [is_state for part in self._parts for is_state in part.states]
        pages = sorted(zip(of_states, self.under(wishes), strict=True), key=lambda item: item[0])
        ends = np.ones(len(keys), bool)
        for is_state, of_part in pages:
            if not keys:
                break
            found = of_part.contains(keys)
            if not is_state:
                keys = keys[: int(np.argmin([*found, False]))]
            else:
                ends[: len(keys)] &= found
                keys = keys[: int(np.max(np.flatnonzero(ends[: len(keys)]), initial=-1)) + 1]
        return len(keys)

    def seconds(self, wishes: Wishes, keys: Sequence[bytes]) -> list[float | None]:
        """What bringing each page takes: ranks do so side by side, a rank's groups one after another. Of what a device decodes kvtcd knows
        nothing."""
        if any(part.is_decoding for part in self._parts):
            return [None] * len(keys)
        groups, ranks = iter(self.under(wishes)), []
        for part in self._parts:
            of_rank = zip(*(next(groups).seconds(keys) for _ in part.forms), strict=True)
            ranks.append([None if None in each else sum(filter(None, each)) for each in of_rank])
        return [None if None in each else max(filter(None, each)) for each in zip(*ranks, strict=True)]

    def close(self) -> None:
        for of_one in self._pages.values():
            for pages in of_one:
                pages.close()
        if self._codecs:
            self._codecs.close()
