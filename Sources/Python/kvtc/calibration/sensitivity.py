"""How much each layer's keys and values matter to what the model says next.

python -m kvtc.calibration.sensitivity --out sensitivity.json

One tensor of the cache at a time is replaced by itself plus a realistic coding error: its rows, RoPE undone, are
rotated onto their own principal components and quantised with one step, as the codec does. Sinks and the recent window
stay exact, as in use. The KL divergence of the following tokens' distributions, divided by the squared error a token,
is the tensor's sensitivity; `kvtcctl calibrate --sensitivity` weights the layers with it.

A model with quantised weights rounds its activations, so that any change, however small, moves the predictions by a
floor (0.0026 nats for the demo's model) that says nothing about the tensor. The floor is measured with errors of next to
nothing and subtracted, and the error is made large enough to stand clear of it: without that, the tensors of least
energy seem the most sensitive.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..adapters.engine import EngineError
from .corpus import Corpus, add_source_options, at_least, chosen_corpus, demo
from .predictions import SINKS, WINDOW, divergence, log_probabilities
from .progress import bar, complain
from .readers import Reader, open_reader
from .texts import MissingTexts

LEVELS = (0.2, 1.0)
"""Squared error over variance: a tensor is measured at the first that doubles the floor. A coder's error does not exceed the variance."""
_NEXT_TO_NOTHING = 1e-5
_SHORTEST = SINKS + WINDOW + 124


@dataclass(frozen=True)
class Plan:
    """Sizes of the measurement; the defaults take about three minutes on two cores."""

    measured: ClassVar[str] = "sensitivity"
    candidates: ClassVar[int] = 4
    """Documents looked at for each one wanted: some are too short."""

    documents: int = 4
    prefix: int = 1024
    scored: int = 64

    def fitting(self, tokens: int) -> Plan:
        """The plan for contexts of at most `tokens` tokens."""
        prefix = min(self.prefix, tokens - self.scored)
        if prefix < _SHORTEST:
            needed = _SHORTEST + self.scored
            raise MissingTexts(f"texts of {tokens} tokens are too short to measure {self.measured} with; it takes {needed}")
        return replace(self, prefix=prefix)

    def choose(self, worker: Reader, corpus: Corpus) -> tuple[Plan, list[list[int]]]:
        """The plan for these texts and this model, and the tokens of the documents to measure with."""
        documents = corpus.for_sensitivity(self.candidates * self.documents)
        texts = [worker.tokenize(document.text) for document in documents]
        plan = self.fitting(min(worker.context, max(map(len, texts))))
        return plan, [tokens for tokens in texts if len(tokens) >= plan.prefix + plan.scored][: plan.documents]


def coded(rows: np.ndarray, relative_error: float) -> np.ndarray:
    """Rows after quantising their principal components with the one step whose error is that share of their variance."""
    mean = rows.mean(axis=0)
    centred = (rows - mean).astype(np.float64)
    variances, basis = np.linalg.eigh(centred.T @ centred / len(rows))
    components = centred @ basis
    low, high = 1e-4 * np.sqrt(variances.max()), 16 * np.sqrt(variances.max())
    for _ in range(14):  # to a part in a thousand
        step = np.sqrt(low * high)
        error = np.square(np.rint(components / step) * step - components).sum(axis=1).mean()
        low, high = (step, high) if error < relative_error * variances.sum() else (low, step)
    return ((np.rint(components / step) * step) @ basis.T + mean).astype(np.float32)


class _Probe:
    """One document: its exact cache and predictions, and the KL divergence that a change of one tensor causes."""

    def __init__(self, worker: Reader, tokens: list[int], plan: Plan) -> None:
        self._worker, self._following = worker, tokens[plan.prefix : plan.prefix + plan.scored]
        worker.clear()
        worker.prefill(tokens[: plan.prefix])
        self._original = worker.get_state()
        self._reference = log_probabilities(worker.score(self._following))

    def run(self, layer: int, role: int, relative_error: float) -> tuple[float, float]:
        """KL divergence and squared error a token, with that error between sinks and window."""
        geometry, state = self._worker.geometry, self._original.copy()
        tensor, region = (state.values if role else state.keys)[layer], slice(SINKS, state.cells - WINDOW)
        rows, positions = tensor[region].astype(np.float32), state.positions[region]
        plain = rows if role else geometry.turn(rows, positions, layer, -1)
        # Beyond that the error of a quantiser stops looking like one: its shape is kept and scaled.
        error = coded(plain, min(relative_error, 0.3)) - plain
        lossy = plain + error * np.float32(max(1.0, relative_error / 0.3) ** 0.5)
        tensor[region] = (lossy if role else geometry.turn(lossy, positions, layer, 1)).astype(np.float16)
        energy = float(np.square(tensor[region].astype(np.float32) - rows).sum(axis=1, dtype=np.float64).mean())
        self._worker.set_state(state)
        return divergence(self._reference, log_probabilities(self._worker.score(self._following))), energy


def measure(worker: Reader, plan: Plan, corpus: Corpus | None = None) -> dict[str, object]:
    """Runs every layer's K and V over calibration documents; the content of the sensitivity file.

    What is held out plays no part here.
    """
    layers, roles = worker.geometry.layers, worker.geometry.roles
    tensors = [(layer, role) for layer in range(layers) for role in range(len(roles))]
    anchors = sorted({*range(0, layers, 5), layers - 1})
    levels = dict.fromkeys(tensors, 0)
    excess, energies, floors = (np.zeros((layers, len(roles))) for _ in range(3))
    plan, documents = plan.choose(worker, corpus or demo())
    runs = len(documents) * (len(tensors) + len(roles) * len(anchors)) + len(tensors)
    with bar("measuring sensitivity", runs, "runs") as progress:
        for index, tokens in enumerate(documents):
            probe = _Probe(worker, tokens, plan)
            quiet = []
            for layer in anchors:
                quiet.append(np.mean([probe.run(layer, role, _NEXT_TO_NOTHING)[0] for role in range(len(roles))]))
                progress.update(len(roles))
            floor = np.interp(range(layers), anchors, quiet)
            floors += floor[:, None]
            for layer, role in tensors:
                divergence_, energy = probe.run(layer, role, LEVELS[levels[layer, role]])
                progress.update()
                while index == 0 and divergence_ < 2 * floor[layer] and levels[layer, role] + 1 < len(LEVELS):
                    levels[layer, role] += 1
                    divergence_, energy = probe.run(layer, role, LEVELS[levels[layer, role]])
                    progress.update()
                excess[layer, role] += divergence_ - floor[layer]
                energies[layer, role] += energy
    # What does not stand clear of the floor is given the least that could have been seen.
    result = at_least_seen(np.maximum(excess, floors / 20) / np.maximum(energies, 1e-30))
    entries = [{"layer": layer} | dict(zip(roles, map(float, weights), strict=True)) for layer, weights in enumerate(result)]
    return {"format": "kvtc-sensitivity-1", "model": worker.name, "floor": float(floors.mean() / len(documents)), "layers": entries}


def at_least_seen(sensitivities: np.ndarray) -> np.ndarray:
    """With the smallest positive one in place of zeros, which weigh nothing: a tensor whose error was never seen."""
    seen = sensitivities[sensitivities > 0]
    return np.maximum(sensitivities, seen.min() if len(seen) else 1.0)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kvtc.calibration.sensitivity", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file for 'kvtcctl calibrate --sensitivity'")
    parser.add_argument("--documents", type=at_least(1), default=Plan.documents, help="default: %(default)s")
    add_source_options(parser)
    options = parser.parse_args(arguments)
    try:
        with open_reader(options.model, threads=options.threads) as worker:
            result = measure(worker, Plan(documents=options.documents), chosen_corpus(options))
    except (EngineError, MissingTexts, OSError) as error:
        complain("kvtc.calibration.sensitivity", error)
        return 1
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
