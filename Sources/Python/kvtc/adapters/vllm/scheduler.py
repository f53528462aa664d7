"""The connector's side in vLLM's scheduler: what kvtcd has of a prompt, and which pages each step fills."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from typing import Any

from ..background import Background
from ..breakeven import BreakEven
from ..counters import Counters
from .keys import Adapters, NoName, RequestKeys
from .pages import PartPages, Parts, Plan, Transfer
from .prefills import Prefills
from .settings import Settings, Wishes, WishList

log = logging.getLogger("kvtc")


@dataclass
class _Request:
    """``present``: pages from the first on that kvtcd has or was sent. ``end``: tokens whose K and V are there after the last step.
    ``found``: the lookup that is under way, or over: the pages that are there, and those of them worth loading."""

    request: Any
    keys: RequestKeys
    wishes: Wishes
    blocks: list[list[int]] = field(default_factory=list)
    present: int = 0
    end: int = 0
    found: Future[tuple[int, int]] | None = None


class SchedulerSide:
    """Called by one thread, which waits ``lookup_ms`` at most for anything."""

    def __init__(
        self,
        settings: Settings,
        wishes: WishList,
        block_tokens: Sequence[int],
        page_tokens: int,
        workers: int,
        *,
        states: Sequence[bool] = (False,),
        loads: bool = True,
        saves: bool = True,
    ) -> None:
        self._settings, self._wishes, self._workers = settings, wishes, workers
        self._loads, self._saves = loads, saves
        self._block_tokens, self._page_tokens, self._states = list(block_tokens), page_tokens, list(states)
        # Failures of single blocks can be told apart only where block ids are; else the request waits apart from steps.
        self._is_async = not settings.layerwise or len(block_tokens) > 1 or any(states)
        self._adapters = Adapters()
        self._requests: dict[str, _Request | None] = {}
        self._pages: PartPages | None = None
        self.counters = Counters()
        self._plan = Plan()
        self._lookups = Background("kvtc-lookup")
        self._even = BreakEven()
        self._prefills = Prefills(self._even)

    def meet(self, parts: Sequence[Parts]) -> None:
        """What the workers say of themselves. Unless all do, nothing is looked up, and nothing sent."""
        if len(parts) == self._workers:
            self._pages = PartPages(self._wishes, parts, self.counters)

    def matched(self, request: Any, computed: int) -> tuple[int | None, bool]:
        """Tokens beyond those computed that can be loaded; None: ask again."""
        known = self._known(request)
        if known is None or self._pages is None or not self._loads:
            return 0, False
        size = self._page_tokens
        # A state cannot be gone back from to compute the last token.
        keys = known.keys.upto(request.num_tokens - any(self._states))
        if len(keys) * size <= computed:
            known.present, known.end, known.found = max(known.present, computed // size), computed, None
            return 0, False
        if known.found is None:
            known.found = self._look_up(known.wishes, keys, request.num_tokens, computed)
        try:
            run, worth = known.found.result(self._settings.lookup_ms / 1000)
        except NotYet:
            return None, False
        known.present, known.found = run, None
        end = worth * size
        if end >= request.num_tokens and not self._is_async:
            # The last token is computed: the step would have nothing to do.
            least = min(self._block_tokens)
            end = (request.num_tokens - 1) // least * least
        if computed and end - computed <= size:
            # What vLLM has itself ends in the prompt's last page: that is computed sooner than it is brought.
            end = computed
        known.end = max(computed, end)
        return (end - computed, self._is_async) if end > computed else (0, False)

    def _look_up(self, wishes: Wishes, keys: Sequence[bytes], total: int, computed: int) -> Future[tuple[int, int]]:
        pages, found = self._pages, Future[tuple[int, int]]()

        def ask() -> None:
            run = worth = 0
            try:
                run = worth = pages.leading(wishes, keys) if pages else 0
                # A state is there at the end or not at all.
                if pages and run and not any(self._states) and not self._settings.options.always_restore:
                    own = min(run, computed // self._page_tokens)
                    seconds = [0.0] * own + pages.seconds(wishes, keys[own:run])
                    worth = self._even.pages(seconds, self._page_tokens, total, computed)
            finally:
                found.set_result((run, worth))

        if not self._lookups.submit(ask):
            found.set_result((0, 0))
        return found

    def allocated(self, request: Any, blocks: Sequence[Sequence[int]], tokens: int) -> None:
        """The blocks of a request; the last of the ``tokens`` to be loaded is where `matched` said."""
        known = self._requests.get(request.request_id)
        if known is None or tokens <= 0:
            return
        size = self._page_tokens
        first, pages = (known.end - tokens) // size, -(-known.end // size)
        wanted = [self._wanted(group, ids, first, pages, known.end - tokens, known.end) for group, ids in enumerate(blocks)]
        keys = known.keys.upto(request.num_tokens)
        self._plan.loads.append(
            Transfer(request.request_id, tuple(keys[first:pages]), first, tuple(wanted), wishes=known.wishes)
        )

    def _wanted(self, group: int, ids: Sequence[int], first: int, pages: int, begin: int, end: int) -> tuple[int, ...]:
        """The blocks of these pages, without those that are outside of the tokens from `begin` up to `end`; of states the last one."""
        size = self._block_tokens[group]
        if self._states[group]:
            # That of the end of a page, if it ends there.
            begin = end if end % self._page_tokens else end - size
        numbers = range(first * self._page_tokens // size, pages * self._page_tokens // size)
        return tuple(ids[n] if begin <= n * size < end and n < len(ids) else 0 for n in numbers)

    def step(self, output: Any) -> Plan:
        """What the workers do beside this step."""
        try:
            self._prefills.step(output)
            self._follow(output)
        except Exception:
            # What was to be loaded is: vLLM counts on it.
            log.exception("kvtcd is not sent what this step computes")
        plan, self._plan = self._plan, Plan()
        plan.is_idle = not output.num_scheduled_tokens
        return plan

    def _follow(self, output: Any) -> None:
        for new in output.scheduled_new_reqs:
            if known := self._requests.get(new.req_id):
                known.blocks = [list(ids) for ids in new.block_ids]
                self._advance(known, new.req_id, new.num_computed_tokens, output.num_scheduled_tokens[new.req_id])
        cached = output.scheduled_cached_reqs
        for index, name in enumerate(cached.req_ids):
            if known := self._requests.get(name):
                fresh = cached.new_block_ids[index]
                if name in cached.resumed_req_ids:
                    known.blocks = [list(ids) for ids in fresh or ()]
                elif fresh:
                    for ids, more in zip(known.blocks, fresh, strict=True):
                        ids += more
                self._advance(known, name, cached.num_computed_tokens[index], output.num_scheduled_tokens[name])

    def _advance(self, known: _Request, name: str, start: int, tokens: int) -> None:
        """Notes that a step computes so many tokens from `start` on; plans to send the pages that it fills."""
        request, size = known.request, self._page_tokens
        if start < known.end:
            # A load failed, tokens were rejected, or the request was put off: what follows is computed anew.
            known.present = min(known.present, start // size)
        known.end = start + tokens
        # Drafted tokens are no tokens yet.
        kept = request.num_prompt_tokens if self._settings.prompt_only else request.num_tokens
        pages = min(known.end, kept) // size
        if pages <= known.present or self._pages is None or not self._saves:
            return
        keys, first = known.keys.upto(kept), known.present
        blocks = tuple(
            self._wanted(group, ids, first, pages, first * size, known.end if self._states[group] else pages * size)
            for group, ids in enumerate(known.blocks)
        )
        before = keys[first - 1] if first else None
        self._plan.saves.append(Transfer(name, tuple(keys[first:pages]), first, blocks, before, known.wishes))
        known.present = pages

    def _known(self, request: Any) -> _Request | None:
        """None for a request whose pages cannot be named."""
        name = request.request_id
        if name not in self._requests:
            try:
                keys = RequestKeys(request, self._page_tokens, self._adapters)
                self._requests[name] = _Request(request, keys, self._wishes.of(request.kv_transfer_params))
            except NoName as error:
                log.warning("kvtcd keeps nothing of a request: %s", error)
                self._requests[name] = None
        return self._requests[name]

    def finished(self, name: str) -> None:
        """Its blocks are free to be used anew: what was to be sent of them has been copied."""
        self._requests.pop(name, None)

    def close(self) -> None:
        self._lookups.close()
        if self._pages:
            self._pages.close()
