"""How a model's predictions depend on every element of its cache.

python -m kvtc.calibration.gradients --out gradients.safetensors

Reads calibration texts, and differentiates the log-likelihood of tokens drawn from the model's own predictions by the
keys and values before them. The mean outer product of these gradients is the Fisher information: which directions of a
token's row matter to what the model says next, and how much. `kvtcctl calibrate --gradients` weighs errors by it,
across layers, heads and dimensions, where `--sensitivity` has a number a layer.

Writes shards `gradients-00.safetensors`, …: `k.<layer>` and `v.<layer>` F16 [rows, heads, head_dim], derivatives by the
cache as the engine keeps it, and `positions`. Only the rows between sinks and window, as only they are coded. The scale
is the same in all files; it means nothing.

Any decoder that transformers loads, from a directory or a GGUF file. Any framework with automatic differentiation can write such files
for a model that this program does not know.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from tqdm import tqdm

from .. import safetensors
from ..adapters.engine import EngineError
from . import sensitivity
from .capture import metadata, rope_tensors, shard_path
from .corpus import Corpus, add_source_options, at_least, chosen_corpus, demo
from .gradient_model import GradientModel, NoGradients
from .predictions import SINKS, WINDOW, divergence, log_probabilities
from .progress import bar, complain
from .readers import Reader, open_reader
from .texts import MissingTexts

_LARGEST_DISAGREEMENT = 0.1
"""Nats between these predictions and the engine's: weights that the engine multiplies in 8 bits account for a tenth of it."""


@dataclass(frozen=True)
class Plan(sensitivity.Plan):
    """Sizes of the measurement; the defaults take about two minutes on two cores with the demo's model."""

    measured: ClassVar[str] = "gradients"
    candidates: ClassVar[int] = 2

    documents: int = 16
    scored: int = 256
    draws: int = 2


class _Scale:
    """One power of two that brings gradients into the range of 16 bits, set by the first document."""

    def __init__(self) -> None:
        self._factor: float | None = None

    def __call__(self, gradients: np.ndarray) -> np.ndarray:
        if self._factor is None:
            largest = max(float(np.abs(gradients).max()), 1e-30)
            self._factor = 2.0 ** math.floor(math.log2(256 / largest))
        return np.clip(gradients * np.float32(self._factor), -65504, 65504).astype("<f2")


def capture_gradients(worker: Reader, out: Path, plan: Plan | None = None, corpus: Corpus | None = None) -> list[Path]:
    """Writes a shard a document beside `out`, of calibration documents only; returns their paths in order."""
    model = GradientModel(worker)
    plan, documents = (plan or Plan()).choose(worker, corpus or demo())
    scale = _Scale()
    paths = []
    with bar("measuring gradients", len(documents) * (1 + plan.draws), "runs") as progress:
        for index, tokens in enumerate(documents):
            pieces = _document(worker, model, tokens, plan, scale, progress, seed=index * plan.draws)
            path = shard_path(out, index)
            safetensors.write(path, pieces, metadata(worker) | {"format": "kvtc-gradients-1"})
            paths.append(path)
    return paths


def _document(
    worker: Reader, model: GradientModel, tokens: list[int], plan: Plan, scale: _Scale, progress: tqdm, seed: int
) -> dict[str, list[np.ndarray]]:
    following = tokens[plan.prefix : plan.prefix + plan.scored]
    worker.clear()
    worker.prefill(tokens[: plan.prefix])
    state = worker.get_state()
    geometry = worker.geometry
    keys, values = (
        np.stack(rows).reshape(geometry.layers, plan.prefix, geometry.heads, geometry.head_dim).astype(np.float32)
        for rows in (state.keys, state.values)
    )
    engine = log_probabilities(worker.score(following))
    predictions, draw = model.differentiate(keys, values, np.asarray(following))
    disagreement = divergence(engine, predictions)
    if not disagreement <= _LARGEST_DISAGREEMENT:
        raise NoGradients(
            f"the engine's predictions are {disagreement:.2f} nats from those of the model as this program knows it: "
            "its gradients would be another model's"
        )
    progress.update()
    region = slice(SINKS, plan.prefix - WINDOW)
    tensors = rope_tensors(worker) | {f"{letter}.{layer}": [] for letter in "kv" for layer in range(geometry.layers)}
    for number in range(plan.draws):
        for letter, gradients in zip("kv", draw(seed + number), strict=True):
            scaled = scale(gradients[:, region])
            for layer in range(geometry.layers):
                tensors[f"{letter}.{layer}"].append(scaled[layer])
        progress.update()
    tensors["positions"] = [state.positions[region].astype("<i4")] * plan.draws
    return tensors


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kvtc.calibration.gradients", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="shards are named after this: NAME-00.safetensors …")
    parser.add_argument("--documents", type=at_least(1), default=Plan.documents, help="default: %(default)s")
    add_source_options(parser)
    options = parser.parse_args(arguments)
    try:
        with open_reader(options.model, threads=options.threads) as worker:
            for path in capture_gradients(worker, options.out, Plan(documents=options.documents), chosen_corpus(options)):
                print(path)
    except (EngineError, MissingTexts, OSError) as error:
        complain("kvtc.calibration.gradients", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
