"""Models that gradients are known for, against llama.cpp: small random ones of every architecture, written as GGUF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")
pytest.importorskip("jax")
pytest.importorskip("xllamacpp")

from kvtc.demo_score import divergence, log_probabilities  # noqa: E402
from kvtc.gradient_model import GradientModel  # noqa: E402
from kvtc.llama_model import LlamaWorker  # noqa: E402

LAYERS, WIDTH, HIDDEN, QUERIES, HEADS, VOCABULARY = 2, 128, 192, 4, 2, 64
LONG = 96
"""Of Qwen 3, whose heads together are wider than the model."""


def write(path: Path, architecture: str) -> None:
    random = np.random.default_rng(7)
    head = LONG if architecture == "qwen3" else WIDTH // QUERIES

    def matrix(*shape: int, scale: float = 0.1, mean: float = 0.0) -> np.ndarray:
        return random.normal(mean, scale, shape).astype(np.float32)

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(QUERIES)
    writer.add_head_count_kv(HEADS)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("no_vocab")
    tensors = {"token_embd.weight": matrix(VOCABULARY, WIDTH, scale=0.2), "output_norm.weight": matrix(WIDTH, mean=1.0)}
    if architecture == "llama":
        # Untied, and with factors of Llama 3.1's kind.
        tensors["output.weight"] = matrix(VOCABULARY, WIDTH)
        tensors["rope_freqs.weight"] = np.linspace(1, 8, head // 2).astype(np.float32)
    for layer in range(LAYERS):
        sizes = {"attn_q": (QUERIES * head, WIDTH), "attn_k": (HEADS * head, WIDTH), "attn_v": (HEADS * head, WIDTH)}
        sizes |= {"attn_output": (WIDTH, QUERIES * head), "ffn_down": (WIDTH, HIDDEN)}
        sizes |= {"ffn_gate": (HIDDEN, WIDTH), "ffn_up": (HIDDEN, WIDTH)}
        own = {f"{name}.weight": matrix(*size) for name, size in sizes.items()}
        own |= {f"{name}.weight": matrix(WIDTH, mean=1.0) for name in ("attn_norm", "ffn_norm")}
        if architecture == "qwen2":
            own |= {f"{name}.bias": matrix(sizes[name][0], scale=0.5) for name in ("attn_q", "attn_k", "attn_v")}
        if architecture == "qwen3":
            own |= {f"{name}.weight": matrix(head, mean=1.0) for name in ("attn_q_norm", "attn_k_norm")}
        tensors |= {f"blk.{layer}.{name}": tensor for name, tensor in own.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_predictions_are_the_engines(architecture: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, architecture)
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
