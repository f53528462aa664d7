"""One vLLM engine with the connector, in a process of its own: what `vllm_engine` has it do.

python -m kvtc_evaluation.engines.vllm_process SCENARIO ARGUMENTS RESULT    (both JSON: arguments as text, the result a file)
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvtc.client import Client

from ..daemon import all_coded, until
from .vllm_files import make_adapter

ANSWER = 16
"""Tokens that are compared."""


@dataclass
class Answer:
    tokens: list[int]
    seconds: float
    cached: int
    #: Of the first token, by token; empty unless asked for.
    log_probabilities: dict[int, float]


class Engine:
    """A vLLM that keeps its cache in the daemon behind `socket`: by the connector, or beneath so much memory by the tier. It ends with
    its process."""

    def __init__(
        self,
        model: str,
        socket: Path | str,
        settings: dict[str, Any] | None = None,
        *,
        memory_mib: int = 0,
        is_timed: bool = False,
        **options: Any,
    ) -> None:
        os.environ |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_LEVEL": "WARNING",
        }
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        # Threads that spin while they wait for one another lose the processor to whatever else runs, and all of them with it.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if not is_timed:
            # By itself a rank wants a memory node of its own.
            ranks = options.get("tensor_parallel_size", 1)
            os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(map(str, sorted(os.sched_getaffinity(0))[:ranks]))
        import vllm
        from vllm.config import KVTransferConfig

        own = {"socket": str(socket), **(settings or {})}
        chosen: dict[str, Any] = {
            "kv_connector": "KvtcConnector",
            "kv_connector_module_path": "kvtc.adapters.vllm.connector",
            "kv_connector_extra_config": own,
        }
        if memory_mib:
            tier = {"type": "KvtcTier", "module_path": "kvtc.adapters.vllm.tier", **own}
            chosen = {
                "kv_connector": "OffloadingConnector",
                "kv_connector_extra_config": {
                    "spec_name": "ProcessorSpec",
                    "spec_module_path": "kvtc_evaluation.engines.vllm_tier",
                    "cpu_bytes_to_use": memory_mib << 20,
                    "secondary_tiers": [tier],
                },
            }
        transfer = KVTransferConfig(kv_role="kv_both", kv_load_failure_policy="recompute", **chosen)
        usual = {"dtype": "float32", "enforce_eager": True, "block_size": 64, "skip_tokenizer_init": True, "disable_log_stats": False}
        self._vllm, self._has_memory = vllm, bool(memory_mib)
        self.llm = vllm.LLM(model, kv_transfer_config=transfer, max_logprobs=-1, **(usual | options))

    def answer(
        self,
        prompt: Sequence[int],
        count: int = ANSWER,
        *,
        salt: str = "",
        adapter: Any = None,
        wishes: dict[str, Any] | None = None,
        with_probabilities: bool = False,
    ) -> Answer:
        """What the model says next, the likeliest token each time. `wishes`: of this request's pages."""
        parameters = self._vllm.SamplingParams(
            max_tokens=count,
            temperature=0,
            detokenize=False,
            ignore_eos=True,
            logprobs=-1 if with_probabilities else None,
            extra_args={"kv_transfer_params": {"kvtc": wishes}} if wishes else None,
        )
        given: dict[str, Any] = {"prompt_token_ids": list(prompt)}
        if salt:
            given["cache_salt"] = salt
        start = time.perf_counter()
        (output,) = self.llm.generate([given], parameters, use_tqdm=False, lora_request=adapter)
        seconds = time.perf_counter() - start
        said = output.outputs[0]
        first = {token: float(entry.logprob) for token, entry in said.logprobs[0].items()} if with_probabilities else {}
        return Answer(list(said.token_ids), seconds, output.num_cached_tokens or 0, first)

    def answers(self, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        """Of several prompts at once."""
        parameters = self._vllm.SamplingParams(max_tokens=count, temperature=0, detokenize=False, ignore_eos=True)
        given = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return [list(output.outputs[0].token_ids) for output in self.llm.generate(given, parameters, use_tqdm=False)]

    def forget(self) -> None:
        """Empties vLLM's own caches: what is found from now on is kvtcd's."""
        if not self.llm.reset_prefix_cache(reset_connector=self._has_memory):
            raise RuntimeError("vLLM did not empty its cache")

    def preemptions(self) -> int:
        return sum(int(metric.value) for metric in self.llm.get_metrics() if metric.name == "vllm:num_preemptions")

    def lora(self, name: str, number: int, folder: Path) -> Any:
        from vllm.lora.request import LoRARequest

        return LoRARequest(name, number, str(folder))


def prompt(seed: int, tokens: int) -> list[int]:
    return [random.Random(seed).randrange(100, 1000) for _ in range(tokens)]


def sent(socket: Path | str, pages: int) -> None:
    """Waits until the daemon has so many pages, coded as far as they are to be."""
    with Client(str(socket), arena_bytes=0) as client:
        until(client, "waiting for pages", lambda status: status["pages"]["raw"] + status["pages"]["coded"] >= pages, 300)
        until(client, "coding", all_coded, 300)


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
    return {"other": first.cached, "own": again.cached, "same": said.tokens == again.tokens}


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
    from . import vllm_faults, vllm_process

    module = vllm_faults if scenario in ("failures", "tier") else vllm_process
    Path(result).write_text(json.dumps(getattr(module, scenario)(**json.loads(arguments))))
    sys.stdout.flush()
    # Engines leave threads behind that the interpreter would wait for.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
