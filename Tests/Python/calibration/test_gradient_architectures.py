"""Models that gradients are known for, against llama.cpp: small random ones of every architecture, written as GGUF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf")
pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("xllamacpp")

from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.calibration.gradient_model import GradientModel
from kvtc_evaluation.demo.score import divergence, log_probabilities

from random_models import HEADS, LAYERS, VOCABULARY, write


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_predictions_are_the_engines(architecture: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, architecture, factors=architecture == "llama")
    tokens = np.random.default_rng(8).integers(0, VOCABULARY, 60).tolist()
    with LlamaWorker(path, context=64, threads=1) as worker:
        worker.prefill(tokens[:40])
        state = worker.get_state()
        shape = (LAYERS, 40, HEADS, worker.geometry.head_dim)
        keys, values = (np.stack(rows).reshape(shape).astype(np.float32) for rows in (state.keys, state.values))
        engine = log_probabilities(worker.score(tokens[40:]))
        model = GradientModel(worker)
    predictions, draw = model.differentiate(keys, values, np.asarray(tokens[40:]))
    # 16-bit keys and values in the engine; without a bias, a norm or a factor it is a hundred times that.
    assert divergence(engine, predictions) < 1e-3
    shuffled, _ = model.differentiate(keys[:, ::-1], values, np.asarray(tokens[40:]))
    assert divergence(engine, shuffled) > 1e-2
    by_keys, by_values = draw(0)
    assert by_keys.shape == keys.shape and np.abs(by_keys).max() > 0 and np.abs(by_values).max() > 0
