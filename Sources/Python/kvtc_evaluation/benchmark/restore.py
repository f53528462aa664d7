"""The sides of the comparison, measured in turns: prefill by each engine, and restore at each ratio."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from kvtc.adapters import llama_cpp
from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.calibration import capture
from kvtc.calibration.predictions import divergence, log_probabilities
from kvtc.calibration.profile_cache import Effort, profile_for
from kvtc.calibration.progress import bar, say
from kvtc.calibration.texts import held_out_documents
from kvtc.keys import page_keys
from kvtc.protocol.messages import PullOutcome
from kvtc.protocol.policy import Policy
from kvtc.session import Session

from ..daemon import PATIENCE, Daemon, DaemonFailed, all_coded, kept_bytes, until
from .results import compared, figure
from .torch_engine import NoTorch, TorchEngine

TOKENS = 2048
RATIOS = (16, 45)
RAM_MIB, DISK_MIB = 512, 1024
_LARGEST_DISAGREEMENT = 0.1
"""Nats between two engines' predictions: llama.cpp multiplies in 8 bits, which accounts for less."""


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
        with bar("restore against prefill", (rounds + 1) * len(sides), "measurements") as progress:
            for turn in range(rounds + 1):
                for name, side in sides.items():
                    seconds = side()
                    # The first turn warms up.
                    if turn:
                        times[name].append(seconds)
                    progress.update()
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
        profile = options.profile or profile_for(worker, options.kvtcctl, Effort(options.calibration_tokens))
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
    figures: dict[str, object] = {f"end_to_end.{name}": figure(seconds * 1000, "ms, 2048 tokens") for name, seconds in times.items()}
    for ratio in RATIOS:
        figures[f"end_to_end.total_ratio_{ratio}"] = figure(raw_bytes / stored[ratio], "raw over stored, sinks and window included")
        figures[f"end_to_end.restore_tokens_{ratio}"] = figure(TOKENS / times[f"restore_{ratio}"], "tokens/s")
    names = {"prefill_llama_cpp": "llama.cpp"} | ({"prefill_torch": other.name} if other else {})
    return {"figures": figures} | compared(times, names)


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


def prepare(options: argparse.Namespace) -> Path:
    """Calibrates the profile unless it is cached, and writes the samples of a document that it has not seen."""
    with LlamaWorker(threads=options.threads) as worker:
        profile = options.profile or profile_for(worker, options.kvtcctl, Effort(options.calibration_tokens))
        capture.capture_held_out(worker, 1, options.prepare)[0].rename(options.prepare)
    return profile
