"""A vLLM engine with the connector, as the scenarios of `process` use it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvtc.client import Client

from ...daemon import all_coded, until

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

        own = {"socket": str(socket), "always_restore": True, **(settings or {})}
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
                    "spec_module_path": "kvtc_evaluation.engines.vllm.tier",
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

    def pages(self) -> dict[str, int]:
        """What vLLM's metrics say of kvtcd's pages, by what became of them."""
        prefix = "vllm:kvtc_pages_"
        return {metric.name.removeprefix(prefix): int(metric.value) for metric in self.llm.get_metrics() if metric.name.startswith(prefix)}

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
