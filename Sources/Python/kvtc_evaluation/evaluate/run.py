"""An evaluation from texts to figures: contexts, profiles, a daemon of its own, and every way through every context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kvtc.adapters.engine import EngineError
from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.calibration.corpus import Corpus
from kvtc.calibration.predictions import SINKS, WINDOW
from kvtc.calibration.profile_cache import OURS, PUBLISHED, Effort, profiles_for
from kvtc.calibration.progress import bar, say
from kvtc.calibration.readers import Reader, ReaderState
from kvtc.calibration.texts import MissingTexts
from kvtc.client import Client

from ..daemon import Daemon
from .caches import ENGINE_TYPES, FLOOR, NEAR, RATIO_MODES, DaemonWay, EngineWay, FloorWay, Way, layer_errors
from .engine import LLAMA, described, open_worker
from .results import Result, Sums
from .tasks import CUE_TOKENS, REPEATED_TOKENS, Context, Passkeys, Reading


@dataclass(frozen=True)
class Plan:
    """What to evaluate. `domains` are calibrated on and evaluated each with each; `documents` and `passkeys` count contexts
    of every domain, `prefix` and `scored` their tokens; `near` bounds the error of the window where that is coded. A given
    profile replaces the one that would be calibrated."""

    kvtcd: Path
    kvtcctl: Path
    model: Path | None
    domains: Sequence[Corpus]
    modes: Sequence[str]
    ratios: Sequence[float]
    near: float
    documents: int
    passkeys: int
    prefix: int
    scored: int
    calibration_tokens: int
    seed: int
    threads: int
    profile: Path | None = None
    published_profile: Path | None = None
    engine: str = LLAMA


@dataclass(frozen=True)
class Findings:
    """`profile` is transform's, of the first domain."""

    model: str
    texts: list[str]
    profile: Path
    results: list[Result]


class Evaluation:
    """Takes contexts through every way, one context at a time, so that its prefix is computed only once."""

    def __init__(self, worker: Reader, ways: Sequence[tuple[Way, str]], evaluated_on: str, prefix: int) -> None:
        self._worker, self._ways, self._evaluated_on = worker, list(ways), evaluated_on
        self._sums = [Sums(prefix) for _ in self._ways]

    def add(self, context: Context, progress: tqdm) -> None:
        worker = self._worker
        worker.clear()
        worker.prefill(context.tokens)
        exact = worker.get_state()
        context.ask_untouched(worker)
        variances = layer_variances(exact, worker)
        progress.update()
        for (way, _), sums in zip(self._ways, self._sums, strict=True):
            kept = way.keep(context.tokens, exact)
            errors = None if kept.state is None else layer_errors(exact, kept.state)
            sums.add(context.ask(kept.worker), kept, errors, variances)
            progress.update()

    def results(self) -> list[Result]:
        return [
            sums.result(way.mode, way.ratio, calibrated_on, self._evaluated_on, way.near)
            for (way, calibrated_on), sums in zip(self._ways, self._sums, strict=True)
        ]


def run(plan: Plan) -> Findings:
    """Everything; raises what its parts raise."""
    room = max(plan.scored, CUE_TOKENS + REPEATED_TOKENS, 64)
    results: list[Result] = []
    with ExitStack() as stack:
        worker = stack.enter_context(open_worker(plan.engine, plan.model, max(2048, plan.prefix + room), plan.threads))
        # Before anything that takes minutes, so that what is wrong with the texts is said at once.
        contexts = {domain.name: contexts_of(domain, worker, plan) for domain in plan.domains}
        profiles = {domain.name: _profiles(domain, worker, plan) for domain in plan.domains}
        files = list(dict.fromkeys(path for chosen in profiles.values() for path in chosen.values()))
        memory = max(1024, 4 * plan.prefix * worker.geometry.token_bytes >> 20)
        daemon = stack.enter_context(Daemon(plan.kvtcd, plan.kvtcctl, files, ram_mib=memory, disk_mib=1024))
        daemon.start()
        client = stack.enter_context(daemon.connect(name="kvtc-evaluate"))
        loaded = {path: client.load_profile(path.name)["id"] for path in files}
        ways: list[tuple[Way, str]] = []
        for name, chosen in profiles.items():
            ids = {weighting: loaded[path] for weighting, path in chosen.items()}
            ways += [(way, name) for way in _ways(plan, worker, client, ids, stack)]
        steps = sum(map(len, contexts.values())) * (1 + len(ways))
        with bar("evaluating", steps, "steps") as progress:
            for name, group in contexts.items():
                evaluation = Evaluation(worker, ways, name, plan.prefix)
                for context in group:
                    evaluation.add(context, progress)
                results += evaluation.results()
        texts = [context.name for group in contexts.values() for context in group if isinstance(context, Reading)]
        first = next(iter(profiles.values()))
        return Findings(described(worker), texts, first.get(OURS) or first[PUBLISHED], results)


def contexts_of(domain: Corpus, worker: Reader, plan: Plan) -> list[Context]:
    """The documents to read and, in the same documents, the pass keys to find."""
    needed = plan.prefix + plan.scored
    if worker.context < needed:
        raise EngineError(
            f"{worker.name} was trained for {worker.trained_context} tokens and {needed} are needed: give a smaller --prefix or --scored"
        )
    readings: list[Context] = []
    haystacks: list[tuple[str, list[int]]] = []
    longest = 0
    for document in domain.evaluation(plan.documents):
        if len(readings) == plan.documents:
            break
        tokens = worker.tokenize(document.text)
        longest = max(longest, len(tokens))
        if len(tokens) >= needed:
            readings.append(Reading.of(document, tokens, plan.prefix, plan.scored))
            haystacks.append((document.name, tokens))
    if not readings:
        raise MissingTexts(
            f"no text to evaluate has {needed} tokens, the longest has {longest}: give longer texts or a smaller --prefix"
        )
    if len(readings) < plan.documents:
        say(f"{domain.name}: {len(readings)} documents to evaluate; {plan.documents} were asked for, no others have {needed} tokens")
    hidden = [Passkeys.hidden_in(name, tokens, plan.prefix, worker, plan.seed) for name, tokens in haystacks[: plan.passkeys]]
    return [*readings, *hidden]


def layer_variances(state: ReaderState, worker: Reader) -> np.ndarray:
    """Squared distances from the mean row between sinks and window, RoPE undone, K and V of each layer [layers, 2]; 0 where there is no V."""
    region, variances = slice(SINKS, state.cells - WINDOW), np.zeros((state.layers, 2))
    for role, tensors in enumerate((state.keys, state.values)):
        for layer, tensor in enumerate(tensors):
            rows = tensor[region].astype(np.float32)
            plain = rows if role else worker.geometry.turn(rows, state.positions[region], layer, -1)
            variances[layer, role] = np.square(plain - plain.mean(axis=0)).sum(dtype=np.float64)
    return variances


def _profiles(domain: Corpus, worker: Reader, plan: Plan) -> dict[str, Path]:
    """Profiles by weighting: the published method for `kvtc`, ours for everything else."""
    given = {OURS: plan.profile, PUBLISHED: plan.published_profile}
    needed = [PUBLISHED] if "kvtc" in plan.modes else []
    if set(plan.modes) != {"kvtc"}:
        needed.insert(0, OURS)
    missing = [weighting for weighting in needed if given[weighting] is None]
    made = profiles_for(worker, plan.kvtcctl, Effort(plan.calibration_tokens), domain, missing) if missing else {}
    return {weighting: given[weighting] or made[weighting] for weighting in needed}


def _ways(plan: Plan, worker: Reader, client: Client, ids: dict[str, str], stack: ExitStack) -> Iterator[Way]:
    for mode in plan.modes:
        if mode in ENGINE_TYPES:
            if not isinstance(worker, LlamaWorker):
                say(f"{mode} is left out: it is llama.cpp's own")
                continue
            try:
                way = EngineWay(worker, mode)
            except EngineError as reason:
                say(f"{mode} is left out: {reason}")
                continue
            stack.callback(way.close)
            yield way
        elif mode == FLOOR:
            yield FloorWay(worker, plan.seed)
        else:
            profile = ids[PUBLISHED] if mode == "kvtc" else ids[OURS]
            for ratio in plan.ratios if mode in RATIO_MODES else [None]:
                yield DaemonWay(worker, client, profile, mode, ratio, plan.near if mode == NEAR else None)
