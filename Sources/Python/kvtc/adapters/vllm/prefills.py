"""How long vLLM's prefills take, as the scheduler sees them: from one step to the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..breakeven import BreakEven


class Prefills:
    """Notes a step that computes much of one request and of which another follows that goes on with it: nothing lay in between."""

    def __init__(self, even: BreakEven, clock: Callable[[], float] = time.perf_counter) -> None:
        self._even, self._clock = even, clock
        self._last: tuple[float, str, int, int] | None = None

    def step(self, output: Any) -> None:
        now, scheduled = self._clock(), output.num_scheduled_tokens
        if self._last:
            began, name, first, tokens = self._last
            if name in scheduled:
                self._even.note(first, tokens, now - began)
        self._last = None
        if scheduled:
            name = max(scheduled, key=lambda each: scheduled[each])
            # What others have computed in the same step is little, or the step says nothing of this one.
            if scheduled[name] >= 0.9 * sum(scheduled.values()):
                self._last = (now, name, self._start(output, name), scheduled[name])

    def _start(self, output: Any, name: str) -> int:
        for new in output.scheduled_new_reqs:
            if new.req_id == name:
                return int(new.num_computed_tokens)
        cached = output.scheduled_cached_reqs
        return int(cached.num_computed_tokens[list(cached.req_ids).index(name)])
