"""What becomes of vLLM's answers when the daemon ends, is stuck, comes back, or has lost what it had."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...daemon import Daemon
from .serving import Answer, Engine, prompt, sent


def failures(kvtcd: str, kvtcctl: str, model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The daemon is killed before, during and after a load, is stuck, and comes back: the same is said every time."""
    from kvtc.adapters.vllm.layout import GroupCache

    scatter, ids, seen = GroupCache.scatter, prompt(1, 1000), {}
    with Daemon(Path(kvtcd), Path(kvtcctl), [], ram_mib=512, disk_mib=1024) as daemon:
        pid = daemon.start()
        engine = Engine(model, daemon.socket, settings | {"deadline": 3.0})
        expected = engine.answer(ids, salt="computed").tokens
        engine.answer(ids)
        sent(daemon.socket, 30)

        def again(what: str) -> Answer:
            engine.forget()
            answer = engine.answer(ids)
            seen[what] = {"same": answer.tokens == expected, "cached": answer.cached}
            return answer

        def hits_again(what: str) -> None:
            # The breaker asks a daemon that is back within its pause.
            end = time.monotonic() + 120
            while again(what).cached == 0 and time.monotonic() < end:
                pass

        def hit_by(number: int) -> Callable[..., None]:
            def strike(self: GroupCache, *arguments: Any) -> None:
                # Once.
                GroupCache.scatter = scatter  # type: ignore[method-assign]
                os.kill(pid, number)
                if number == signal.SIGKILL:
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                scatter(self, *arguments)

            return strike

        again("there")
        daemon.kill()
        again("killed before")
        pid = daemon.start()
        hits_again("back")
        GroupCache.scatter = hit_by(signal.SIGKILL)  # type: ignore[method-assign]
        again("killed during")
        daemon.kill()
        pid = daemon.start()
        hits_again("back again")
        GroupCache.scatter = hit_by(signal.SIGSTOP)  # type: ignore[method-assign]
        again("stuck during")
        again("stuck before")
        os.kill(pid, signal.SIGCONT)
        hits_again("goes on")
        daemon.kill()
        after = engine.answer(ids)
        seen["killed after"] = {"same": after.tokens == expected, "cached": after.cached}
    return seen


def tier(kvtcd: str, kvtcctl: str, model: str) -> dict[str, Any]:
    """Rows leave a memory tier that is too small, come back from kvtcd, and do not where it is killed, is away, or loses them."""
    from kvtc.adapters.keyed import KeyedPages

    seen: dict[str, Any] = {}
    prompts = [prompt(seed, 1000) for seed in (1, 2)]
    with Daemon(Path(kvtcd), Path(kvtcctl), [], ram_mib=512, disk_mib=1024) as daemon:
        daemon.start()
        # Room for some 20 chunks, of which each prompt has 15.
        small = 60 if "SmolLM2" in model else 4
        engine = Engine(model, daemon.socket, {"deadline": 3.0}, memory_mib=small)
        expected = [engine.answer(ids).tokens for ids in prompts]
        sent(daemon.socket, 30)

        def again(what: str) -> list[int]:
            engine.forget()
            answers = [engine.answer(ids) for ids in prompts]
            seen[what] = {"same": [answer.tokens for answer in answers] == expected, "cached": [answer.cached for answer in answers]}
            return seen[what]["cached"]

        again("promoted")
        get = KeyedPages.get

        def struck(self: KeyedPages, *arguments: Any) -> Any:
            KeyedPages.get = get  # type: ignore[method-assign]
            daemon.kill()
            return get(self, *arguments)

        KeyedPages.get = struck  # type: ignore[method-assign]
        again("killed during")
        again("killed before")
        daemon.start()
        end = time.monotonic() + 120
        while 0 in again("back") and time.monotonic() < end:
            pass
        with daemon.connect(arena_bytes=0) as client:
            client.drop()
        again("lost")
        # Its memory tier is a file with a name.
        engine.llm.llm_engine.engine_core.shutdown()
    return seen
