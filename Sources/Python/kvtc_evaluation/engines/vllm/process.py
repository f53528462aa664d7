"""One vLLM engine with the connector, in a process of its own: what `vllm_engine` has it do.

python -m kvtc_evaluation.engines.vllm.process SCENARIO ARGUMENTS RESULT    (both JSON: arguments as text, the result a file)
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from .files import make_adapter
from .serving import Answer, Engine, prompt, sent


def compute(socket: str, model: str, prompts: str, settings: dict[str, Any], restores: bool) -> dict[str, Any]:
    """Times to the first token of prompts that are computed (or restored), then of vLLM's own hits on them, and what is said.

    ``prompts``: a file of them, of which the first only warms the engine up.
    """
    warm, *asked = json.loads(Path(prompts).read_text())
    engine = Engine(model, socket, settings, is_timed=True)
    engine.answer(warm)
    engine.answer(warm)
    loads = timed_loads()
    first, own, cached = [], [], []
    for one in asked:
        answer = engine.answer(one, 1)
        first.append(answer.seconds)
        cached.append(answer.cached)
        own.append(engine.answer(one, 1).seconds)
    said = [engine.answer(one).tokens for one in asked]
    probabilities = [engine.answer(one, 1, with_probabilities=True).log_probabilities for one in asked]
    if not restores:
        sent(socket, (len(asked) + 1) * (len(warm) // 64))
    return {
        "first": statistics.median(first),
        "own": statistics.median(own),
        "said": said,
        "cached": cached,
        "load": statistics.median(loads) if loads else None,
        "probabilities": probabilities,
    }


def timed_loads() -> list[float]:
    """Seconds that each load takes from now on: the daemon's pull, and the copies into vLLM's blocks."""
    from kvtc.adapters.vllm.loading import Load

    run, seconds = Load.run, list[float]()

    def timed(load: Load) -> None:
        start = time.perf_counter()
        run(load)
        seconds.append(time.perf_counter() - start)

    Load.run = timed  # type: ignore[method-assign]
    return seconds


def apart(socket: str, model: str, folder: str) -> dict[str, Any]:
    """Salts and adapters: who meets whose pages; a prompt that goes on differently inside a page."""
    engine = Engine(model, socket, {}, enable_lora=True, max_loras=2, max_lora_rank=8)
    ids, seen = prompt(2, 1000), {}
    folders = {name: make_adapter(Path(model), Path(folder) / name, seed) for name, seed in (("x", 1), ("y", 2), ("copy", 1))}
    x, y, copy = (engine.lora(name, number, folders[name]) for number, name in enumerate(("x", "y", "copy"), 1))

    def asked(what: str, tokens: list[int] = ids, **options: Any) -> Answer:
        engine.forget()
        answer = engine.answer(tokens, **options)
        seen[what] = answer.cached
        return answer

    plain, pages = asked("plain"), 15
    said = {}
    for what, options in {"a": {"salt": "a"}, "b": {"salt": "b"}, "x": {"adapter": x}, "y": {"adapter": y}}.items():
        said[what] = asked(f"{what} first", **options).tokens
        pages += 15
        sent(socket, pages)
    for what, options in {"a": {"salt": "a"}, "x": {"adapter": x}, "y": {"adapter": y}, "copy of x": {"adapter": copy}}.items():
        asked(f"{what} again", **options)
        seen[f"{what} same"] = engine.answer(ids, **options).tokens == said[what.removeprefix("copy of ")]
    seen["plain same"] = asked("plain again").tokens == plain.tokens
    seen["adapters matter"] = len({tuple(said["x"]), tuple(said["y"]), tuple(plain.tokens)}) == 3
    other = [*ids[:500], ids[500] + 1, *ids[501:]]
    computed = asked("diverging computed", other, salt="diverging").tokens
    seen["diverging same"] = asked("diverging", other).tokens == computed
    return seen


def alike(socket: str, model: str, options: dict[str, Any]) -> dict[str, Any]:
    """What is found of the prompt that `apart` had, and of its own after it was computed."""
    engine = Engine(model, socket, {}, **options)
    first = engine.answer(prompt(2, 1000))
    own = prompt(3, 1000)
    said = engine.answer(own)
    engine.forget()
    end = time.monotonic() + 60
    while (again := engine.answer(own)).cached == 0 and time.monotonic() < end:
        engine.forget()
    return {"other": first.cached, "own": again.cached, "same": said.tokens == again.tokens, "pages": engine.pages()}


def hybrid(socket: str, model: str) -> dict[str, Any]:
    """A prompt of several pages of a model with states, in bfloat16, which its kernels for processors take. vLLM chooses the blocks' size."""
    engine = Engine(model, socket, {}, dtype="bfloat16", enable_prefix_caching=True, max_model_len=4096, block_size=None)
    answer = engine.answer(prompt(5, 2000), 700)
    return {"cached": answer.cached, "said": answer.tokens, "pages": engine.pages()}


def crowded(socket: str, model: str) -> dict[str, Any]:
    """More requests than vLLM's memory has room for, which puts some off and computes or restores them later; small chunks."""
    prompts = [prompt(seed, 560) for seed in (11, 12, 13)]
    roomy = {"max_num_batched_tokens": 256, "max_model_len": 1024}
    engine = Engine(model, socket, {}, num_gpu_blocks_override=30, **roomy)
    alone = [engine.answers([one], 160)[0] for one in prompts]
    engine.forget()
    together = engine.answers([*prompts], 160)
    return {"same": alone == together, "preemptions": engine.preemptions()}


def main(scenario: str, arguments: str, result: str) -> None:
    # As a module it is another one than the program that runs.
    from . import faults, process

    module = faults if scenario in ("failures", "tier") else process
    Path(result).write_text(json.dumps(getattr(module, scenario)(**json.loads(arguments))))
    sys.stdout.flush()
    # Engines leave threads behind that the interpreter would wait for.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
