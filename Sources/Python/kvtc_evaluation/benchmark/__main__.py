"""Restoring a context against computing it again: the same tokens, model, machine and run, in turns.

python -m kvtc_evaluation.benchmark --kvtcd PATH --kvtcctl PATH [--quick] [--json FILE]
python -m kvtc_evaluation.benchmark --prepare SAMPLES --kvtcctl PATH       the demo's profile (its path is printed) and held-out samples
python -m kvtc_evaluation.benchmark --merge FILE RESULT.json…              several benchmarks' results in one file

A document of 2048 tokens is prefilled by llama.cpp and pushed to two daemons, one for each ratio. Then, in turns: prefill, by
llama.cpp and by torch in float32 where that is installed (on many processors several times faster); for each ratio the restore up to the state that the engine takes (lookup, pull through shared memory, all layers of all pages
in their places); the same with the engine taking it; and the time until the first layer of every page is there. Ratios are to the
faster prefill, and the result names it; where llama.cpp's is the only one, they are marked and do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from kvtc.adapters import llama_cpp
from kvtc.adapters.llama_cpp.library import LlamaError
from kvtc.adapters.llama_cpp.state import StateError
from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.calibration import capture
from kvtc.calibration.profile_cache import CalibrationFailed, profile_for
from kvtc.calibration.progress import Progress, say
from kvtc.calibration.sensitivity import divergence, log_probabilities
from kvtc.calibration.texts import MissingTexts, held_out_documents
from kvtc.keys import page_keys
from kvtc.protocol.errors import KvtcError
from kvtc.protocol.messages import PullOutcome
from kvtc.protocol.policy import Policy
from kvtc.session import Session

from ..daemon import PATIENCE, Daemon, DaemonFailed, all_coded, kept_bytes, until
from .torch_engine import NoTorch, TorchEngine

TOKENS = 2048
RATIOS = (16, 45)
RAM_MIB, DISK_MIB = 512, 1024
_LARGEST_DISAGREEMENT = 0.1
"""Nats between two engines' predictions: llama.cpp multiplies in 8 bits, which accounts for less."""
_ALONE = "llama.cpp's is the only prefill that was measured, and other engines may be several times faster: deploy/setup --bench installs one"


class Benchmark:
    """One worker, and for every ratio a session that holds the document."""

    def __init__(self, worker: LlamaWorker, tokens: list[int], sessions: dict[int, Session], other: TorchEngine | None) -> None:
        self.worker, self.tokens, self.sessions, self.other = worker, tokens, sessions, other
        self.keys = {ratio: page_keys(tokens, session.page_tokens, session.profile) for ratio, session in sessions.items()}

    def prefill(self) -> None:
        self.worker.clear()
        self.worker.prefill(self.tokens)

    def fetch(self, ratio: int) -> None:
        state, there = llama_cpp.fetch_state(self.sessions[ratio], self.worker, self.tokens, deadline=PATIENCE)
        if state is None or there != TOKENS:
            raise DaemonFailed(f"{there} of {TOKENS} tokens came back at {ratio} times")

    def restore(self, ratio: int) -> None:
        # What the worker holds itself would do as well.
        self.worker.clear()
        if (there := llama_cpp.restore(self.sessions[ratio], self.worker, self.tokens, deadline=PATIENCE)) != TOKENS:
            raise DaemonFailed(f"{there} of {TOKENS} tokens came back at {ratio} times")

    def first_layer(self, ratio: int) -> float:
        """Seconds until layer 0 of every page is there; the other layers are brought to their end outside the time."""
        begin, seconds, pages = time.perf_counter(), 0.0, 0
        for part in self.sessions[ratio].pull(self.keys[ratio], layer_step=1):
            if part.outcome != PullOutcome.HIT:
                raise DaemonFailed(f"page {part.index} did not come back: {part.outcome.name}")
            if part.layers.start == 0:
                pages += 1
                seconds = time.perf_counter() - begin
        if pages != len(self.keys[ratio]):
            raise DaemonFailed(f"the first layer of {pages} pages came back")
        return seconds

    def run(self, rounds: int) -> dict[str, float]:
        """Median seconds of every side."""
        sides: dict[str, Callable[[], float]] = {"prefill_llama_cpp": _timed(self.prefill)}
        if (other := self.other) is not None:
            sides["prefill_torch"] = _timed(lambda: other.prefill(self.tokens))
        for ratio in self.sessions:
            sides[f"restore_{ratio}"] = _timed(lambda ratio=ratio: self.fetch(ratio))
            sides[f"restore_and_load_{ratio}"] = _timed(lambda ratio=ratio: self.restore(ratio))
            sides[f"first_layer_{ratio}"] = lambda ratio=ratio: self.first_layer(ratio)
        times: dict[str, list[float]] = {name: [] for name in sides}
        with Progress("restore against prefill", (rounds + 1) * len(sides), "measurements") as progress:
            for turn in range(rounds + 1):
                for name, side in sides.items():
                    seconds = side()
                    # The first turn warms up.
                    if turn:
                        times[name].append(seconds)
                    progress.advance()
        return {name: median(values) for name, values in times.items()}


def _timed(body: Callable[[], None]) -> Callable[[], float]:
    def run() -> float:
        begin = time.perf_counter()
        body()
        return time.perf_counter() - begin

    return run


def measure(options: argparse.Namespace) -> dict[str, dict[str, object]]:
    """Figures with units, and the ratios that follow from them."""
    with LlamaWorker(threads=options.threads) as worker, ExitStack() as stack:
        profile = options.profile or profile_for(worker, options.kvtcctl, options.calibration_tokens)
        tokens = worker.tokenize(held_out_documents(1)[0].text)[:TOKENS]
        worker.clear()
        worker.prefill(tokens)
        sessions, stored = {}, {}
        for ratio in RATIOS:
            daemon = stack.enter_context(Daemon(options.kvtcd, options.kvtcctl, [profile], ram_mib=RAM_MIB, disk_mib=DISK_MIB))
            daemon.start()
            client = stack.enter_context(daemon.connect(name="kvtc-benchmark"))
            identifier = client.load_profile(profile.name)["id"]
            policy = Policy(mode="transform", quality=ratio)
            session = llama_cpp.open_session(client, worker, "benchmark", profile=identifier, policy=policy)
            done = llama_cpp.offload(session, worker, tokens, deadline=PATIENCE)
            if done.stored != done.pages:
                raise DaemonFailed(f"{done.stored} of {done.pages} pages were stored")
            until(client, "coding pages", all_coded)
            sessions[ratio], stored[ratio] = session, kept_bytes(client)
        other = _other_engine(worker, tokens)
        times = Benchmark(worker, tokens, sessions, other).run(3 if options.quick else 9)
        raw_bytes = TOKENS * worker.geometry.token_bytes
    figures: dict[str, object] = {f"end_to_end.{name}": _figure(seconds * 1000, "ms, 2048 tokens") for name, seconds in times.items()}
    for ratio in RATIOS:
        figures[f"end_to_end.total_ratio_{ratio}"] = _figure(raw_bytes / stored[ratio], "raw over stored, sinks and window included")
        figures[f"end_to_end.restore_tokens_{ratio}"] = _figure(TOKENS / times[f"restore_{ratio}"], "tokens/s")
    names = {"prefill_llama_cpp": "llama.cpp"} | ({"prefill_torch": other.name} if other else {})
    return {"figures": figures} | compared(times, names)


def compared(times: dict[str, float], engines: dict[str, str]) -> dict[str, dict[str, object]]:
    """The ratios to the fastest of the engines, which are named by their prefill's side; those to llama.cpp where it is slower."""
    side = min(engines, key=lambda name: times[name])
    prefill, llama = times[side], times["prefill_llama_cpp"]
    against: dict[str, object] = {
        "restore_vs_prefill": prefill / times["restore_16"],
        "restore_vs_prefill_45": prefill / times["restore_45"],
        "restore_and_load_vs_prefill": prefill / times["restore_and_load_16"],
        "restore_and_load_vs_prefill_45": prefill / times["restore_and_load_45"],
    }
    ratios: dict[str, object] = {
        "first_layer_share": times["first_layer_16"] / times["restore_16"],
        "first_layer_share_45": times["first_layer_45"] / times["restore_45"],
    }
    named: dict[str, object] = {"fastest": engines[side]} | {name: times[own] * 1000 for own, name in engines.items()}
    if len(engines) == 1:
        marked: dict[str, object] = {name: {"value": value, "why": _ALONE} for name, value in against.items()}
        return {"ratios": ratios, "marked": marked, "prefill": named}
    if side != "prefill_llama_cpp":
        ratios["restore_vs_llama_cpp"] = llama / times["restore_16"]
        ratios["restore_vs_llama_cpp_45"] = llama / times["restore_45"]
    return {"ratios": against | ratios, "marked": {}, "prefill": named}


def _other_engine(worker: LlamaWorker, tokens: list[int]) -> TorchEngine | None:
    """torch with the worker's model, if it is there and says of the text what llama.cpp says."""
    try:
        engine = TorchEngine(worker.path, worker.threads)
    except NoTorch as error:
        say(f"no torch to compare with ({error}); deploy/setup --bench installs it")
        return None
    worker.clear()
    own, others = (log_probabilities(logits[None]) for logits in (worker.prefill(tokens), engine.prefill(tokens)))
    if not divergence(own, others) < _LARGEST_DISAGREEMENT:
        say(f"{engine.name} predicts something else than llama.cpp: it is not compared with")
        return None
    return engine


def _figure(value: float, unit: str) -> dict[str, object]:
    return {"value": value, "unit": unit}


def table(result: dict[str, dict[str, object]]) -> str:
    """The figures and ratios as lines of text."""
    aims = {"restore_vs_prefill": "≥ 15", "restore_vs_prefill_45": "≥ 30", "first_layer_share": "≤ 0.2"}
    width = max(map(len, [*result["figures"], *result["ratios"], *result["marked"]])) + 2
    lines = [f"{name:{width}}{figure['value']:10.4g} {figure['unit']}" for name, figure in result["figures"].items()]
    for name, value in result["ratios"].items():
        aim = f"(aim: {aims[name]})" if name in aims else ""
        lines.append(f"{name:{width}}{value:10.4g} {aim}".rstrip())
    for name, mark in result["marked"].items():
        lines.append(f"{name:{width}}{mark['value']:10.4g} (does not count: {mark['why']})")
    lines.append(f"prefill is by {result['prefill']['fastest']}, the fastest of {', '.join(n for n in result['prefill'] if n != 'fastest')}")
    return "\n".join(lines)


def prepare(options: argparse.Namespace) -> Path:
    """Calibrates the profile unless it is cached, and writes the samples of a document that it has not seen."""
    with LlamaWorker(threads=options.threads) as worker:
        profile = options.profile or profile_for(worker, options.kvtcctl, options.calibration_tokens)
        capture.capture_held_out(worker, 1, options.prepare)[0].rename(options.prepare)
    return profile


NAMES = {
    "decode_vs_sgemm": "decode_vs_sgemm_16x",
    "encode_vs_decode": "encode_vs_decode_16x",
    "entropy_share": "entropy_share_16x",
}
"""Ratios that are reported for several settings, and which of them stands for all."""


def merge(target: Path, sources: list[Path]) -> None:
    """Puts the figures and ratios of several results into one file."""
    result: dict[str, dict[str, object]] = {"figures": {}, "ratios": {}, "marked": {}}
    for source in sources:
        for part, values in json.loads(source.read_text()).items():
            result.setdefault(part, {}).update(values)
    for ratios in (result["ratios"], result["marked"]):
        ratios |= {name: ratios[full] for name, full in NAMES.items() if full in ratios}
    target.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m kvtc_evaluation.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kvtcd", type=Path, default=os.environ.get("KVTCD"), help="the daemon's program (default: $KVTCD)")
    parser.add_argument("--kvtcctl", type=Path, default=os.environ.get("KVTCCTL"), help="(default: $KVTCCTL)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--quick", action="store_true", help="three rounds instead of nine")
    parser.add_argument("--profile", type=Path, help="use this profile and calibrate none")
    parser.add_argument("--calibration-tokens", type=int, default=57_344, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="of the engine (default: %(default)s)")
    parser.add_argument("--prepare", type=Path, metavar="SAMPLES", help=argparse.SUPPRESS)
    parser.add_argument("--merge", type=Path, nargs="+", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        if options.merge:
            merge(options.merge[0], options.merge[1:])
            return 0
        if not options.kvtcctl or not (options.kvtcd or options.prepare):
            parser.error("name --kvtcd and --kvtcctl")
        if options.prepare:
            print(prepare(options))
            return 0
        result = measure(options)
    except (CalibrationFailed, DaemonFailed, KvtcError, LlamaError, StateError, MissingTexts, OSError) as error:
        print(f"kvtc_evaluation.benchmark: {error}", file=sys.stderr)
        return 1
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
