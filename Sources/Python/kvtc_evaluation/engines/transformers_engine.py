"""transformers with `generate` kept by kvtcd: one model, then another in its place, with the same tokens."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from kvtc.adapters.transformers import DEADLINE, Kept, keep
from kvtc.adapters.transformers.loading import load_model, load_tokenizer
from kvtc.calibration.corpus import demo
from kvtc.calibration.progress import say

from ..daemon import PATIENCE, Daemon, all_coded, until
from . import model, profile
from .report import Report, Setting

PROMPT_TOKENS, GENERATED, SHORT = 4096, 32, 512
ROUNDS = 3
"""Times that are compared are the least of so many, taken in turn."""


def run(setting: Setting) -> Report:
    report = Report(transformers.__version__)
    coder, place = profile.of(setting), model.directory(setting.gguf)
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon(setting.kvtcd, setting.kvtcctl, [coder], ram_mib=2048, disk_mib=2048))
        daemon.start()
        bench = _Bench(daemon, place, _prompt(place), report)
        for scenario in (bench.lossless, bench.transform, bench.isolation, bench.adapters, bench.other_models, bench.daemon_ends):
            say(f"transformers: {scenario.__name__}")
            scenario()
    report.unproven = [
        "GPUs: a cache on one, or over several by accelerate's device map, is moved by the same code, which only ran on processors",
        "tensor parallelism inside one model (tp_plan): not tried, and its ranks have no identity of their own",
        "weights quantised while they are loaded (bitsandbytes, torchao): named by the content of what was loaded, not tried",
    ]
    return report


class _Bench:
    """Scenarios with one daemon, in order: later ones build on pages of earlier ones."""

    def __init__(self, daemon: Daemon, place: Path, prompt: Any, report: Report) -> None:
        self._daemon, self._place, self._prompt, self._report = daemon, place, prompt, report
        self._plain = load_model(place)
        self._expected = _tokens(self._plain, prompt)
        self._isolated = True

    def _keep(self, one: Any, **options: Any) -> Kept:
        kept = keep(one, **({"socket": str(self._daemon.socket), "deadline": PATIENCE, "always_restore": True} | options))
        if kept.refusal:
            raise RuntimeError(kept.refusal)
        return kept

    def lossless(self) -> None:
        """One model offloads, another restores and goes on; time to the first token of both and of computing."""
        with self._keep(load_model(self._place)) as first:
            same = _tokens(first.model, self._prompt) == self._expected and first.counts.restored_tokens == 0
            first.flush()
        recomputed, restored = [], []
        with self._keep(load_model(self._place)) as second:
            same &= _tokens(second.model, self._prompt) == self._expected
            second.flush()
            found = second.counts.restored_tokens
            for _ in range(ROUNDS):
                recomputed.append(_first_token(self._plain, self._prompt)[1])
                restored.append(_first_token(second.model, self._prompt)[1])
        self._report.same_tokens = same and found == (PROMPT_TOKENS - 1) // 64 * 64
        self._report.ttft_recompute_s, self._report.ttft_restore_s = min(recomputed), min(restored)
        self._report.figures["restored_tokens"] = found
        self._report.ran.append(f"{PROMPT_TOKENS} tokens offloaded by one model, {found} restored by another in its place, lossless")

    def transform(self) -> None:
        """The first token's distribution after coded pages. Ratios are of float32 here: twice those of 16 bits."""
        reference = _first_token(self._plain, self._prompt)[0]
        for ratio in (16, 32):
            # A page that is there stays as it was coded: each ratio has pages of its own.
            options = {"mode": "transform", "ratio": ratio, "salt": f"ratio {ratio}"}
            with self._keep(load_model(self._place), **options) as first:
                _tokens(first.model, self._prompt)
                first.flush()
                with self._daemon.connect() as client:
                    until(client, "coding pages", all_coded)
            with self._keep(load_model(self._place), **options) as second:
                times, logits = [], reference
                for _ in range(ROUNDS):
                    logits, seconds = _first_token(second.model, self._prompt)
                    times.append(seconds)
                if second.counts.restored_tokens != ROUNDS * ((PROMPT_TOKENS - 1) // 64 * 64):
                    raise RuntimeError(f"coded pages were not all restored: {second.counts}")
            divergence = _divergence(reference, logits)
            self._report.figures |= {f"kl_transform_{ratio}_of_float32": divergence, f"ttft_transform_{ratio}_s": min(times)}
            if ratio == 16:
                self._report.kl = divergence
        self._report.ran.append("the same with transform at 16 and 32")

    def isolation(self) -> None:
        short = self._prompt[:, :SHORT]
        for options in ({"salt": "a"}, {"salt": "b"}):
            self._apart(lambda: copy.deepcopy(self._plain), short, options)
        self._report.ran.append("two salts")

    def other_models(self) -> None:
        """One number of one weight is another."""

        def changed() -> Any:
            other = copy.deepcopy(self._plain)
            with torch.no_grad():
                next(other.parameters())[5, 5] += 1e-3
            return other

        self._apart(changed, self._prompt[:, :SHORT], {})
        # In so few bits a token may change with how many are computed at once.
        self._apart(lambda: load_model(self._place, "bfloat16"), self._prompt[:, :SHORT], {}, same=False)
        self._report.isolation_ok = self._isolated
        self._report.ran.append("two models of one shape that differ in one number, and one in bfloat16")

    def adapters(self) -> None:
        """LoRA adapters of PEFT: two contents, and one of them at two scales."""
        import peft

        def adapted(seed: int, alpha: int) -> Callable[[], Any]:
            def build() -> Any:
                base = copy.deepcopy(self._plain)
                torch.manual_seed(seed)
                form = peft.LoraConfig(r=8, lora_alpha=alpha, target_modules=["q_proj", "k_proj", "v_proj"], init_lora_weights=False)
                return peft.get_peft_model(base, form).eval()

            return build

        for build in (adapted(1, 8), adapted(2, 8), adapted(1, 16)):
            self._apart(build, self._prompt[:, :SHORT], {})
        self._report.ran.append("LoRA adapters of PEFT: none, two contents, two scales")

    def _apart(self, build: Callable[[], Any], prompt: Any, options: dict[str, Any], same: bool = True) -> None:
        """Meets no page that is there, and its own when it comes again, with the tokens of its own."""
        expected = _tokens(build(), prompt) if same else None
        for restored in (0, (SHORT - 1) // 64 * 64):
            with self._keep(build(), **options) as kept:
                tokens = _tokens(kept.model, prompt)
                kept.flush()
                found = kept.counts.restored_tokens
            if found != restored or expected not in (None, tokens):
                say(f"not apart: {found} tokens restored where {restored} were to be, or other tokens than its own")
                self._isolated = False

    def daemon_ends(self) -> None:
        """Killed before a call, in the middle of a load, and while nothing is asked; then it comes back."""
        short = self._prompt[:, :SHORT]
        expected = _tokens(self._plain, short)
        with self._keep(copy.deepcopy(self._plain), deadline=DEADLINE) as kept, self._daemon.connect() as client:
            well = _tokens(kept.model, short) == expected and kept.counts.restored_tokens > 0
            kept.flush()
            client.flush()
            for moment in ("in the middle of a load", "before"):
                before = kept.counts.restored_tokens
                if moment == "before":
                    self._daemon.kill()
                else:
                    self._kill_when_pages_come(kept)
                well &= _tokens(kept.model, short) == expected and kept.counts.restored_tokens == before
                self._daemon.start()
            # The adapter asks again after a pause of its own.
            end = time.monotonic() + 300
            while kept.counts.restored_tokens == before and time.monotonic() < end:
                well &= _tokens(kept.model, short) == expected
            well &= kept.counts.restored_tokens > before
        self._report.daemon_down_ok = well
        self._report.ran.append("daemon killed in the middle of a load and before one, then started again: hits again")

    def _kill_when_pages_come(self, kept: Kept) -> None:
        worker: Any = kept.worker
        blank = worker.blank_state

        def ending(cells: int) -> Any:
            worker.blank_state = blank
            self._daemon.kill()
            return blank(cells)

        worker.blank_state = ending


def _prompt(place: Path) -> Any:
    """Prose that calibration has not read."""
    reader = load_tokenizer(place)
    tokens: list[int] = []
    for document in demo().evaluation(10):
        tokens += reader(document.text).input_ids
    return torch.tensor([tokens[:PROMPT_TOKENS]])


def _tokens(one: Any, prompt: Any) -> list[int]:
    return [int(token) for token in one.generate(prompt, max_new_tokens=GENERATED, do_sample=False)[0, prompt.shape[1] :]]


def _first_token(one: Any, prompt: Any) -> tuple[np.ndarray, float]:
    """Its logits, and the seconds that they took."""
    begin = time.perf_counter()
    output = one.generate(prompt, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, output_logits=True)
    return output.logits[0][0].double().numpy(), time.perf_counter() - begin


def _divergence(reference: np.ndarray, other: np.ndarray) -> float:
    """KL in nats."""
    mine, theirs = (row - row.max() - np.log(np.exp(row - row.max()).sum()) for row in (reference, other))
    return max(0.0, float((np.exp(mine) * (mine - theirs)).sum()))
