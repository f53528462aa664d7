"""Small random models of several architectures, written as GGUF for llama.cpp."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

LAYERS, WIDTH, HIDDEN, QUERIES, HEADS, VOCABULARY = 2, 128, 192, 4, 2, 64
LONG = 96
"""Of Qwen 3, whose heads together are wider than the model."""
LATENT, TURNED = 32, 16
"""Of DeepSeek 2: what it keeps of a token, then the part that RoPE turns."""
WINDOW = 64
"""Of Gemma 2, every other layer of which sees no further."""


def write(path: Path, architecture: str, *, factors: bool = False, yarn: float | None = None, seed: int = 7) -> None:
    """A model with two layers; with `factors` for single frequencies, of Llama 3.1's kind, or with YaRN scaling."""
    random = np.random.default_rng(seed)
    latent = architecture == "deepseek2"
    head = LONG if architecture == "qwen3" else WIDTH // QUERIES

    def matrix(*shape: int, scale: float = 0.1, mean: float = 0.0) -> np.ndarray:
        return random.normal(mean, scale, shape).astype(np.float32)

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(QUERIES)
    writer.add_head_count_kv(1 if latent else HEADS)
    writer.add_key_length(LATENT + TURNED if latent else head)
    writer.add_value_length(LATENT if latent else head)
    writer.add_rope_dimension_count(TURNED if latent else head)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("no_vocab")
    if yarn:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(yarn)
        writer.add_rope_scaling_orig_ctx_len(64)
    if architecture == "gemma2":
        writer.add_sliding_window(WINDOW)
        writer.add_attn_logit_softcapping(50.0)
        writer.add_final_logit_softcapping(30.0)
    if latent:
        writer.add_q_lora_rank(LATENT)
        writer.add_kv_lora_rank(LATENT)
        writer.add_key_length_mla(head + TURNED)
        writer.add_value_length_mla(head)
        writer.add_leading_dense_block_count(LAYERS)
        writer.add_expert_feed_forward_length(HIDDEN)
        writer.add_expert_shared_count(1)
        writer.add_expert_weights_scale(1.0)
    tensors = {"token_embd.weight": matrix(VOCABULARY, WIDTH, scale=0.2), "output_norm.weight": matrix(WIDTH, mean=1.0)}
    if architecture == "llama" or latent:
        tensors["output.weight"] = matrix(VOCABULARY, WIDTH)
    if factors:
        tensors["rope_freqs.weight"] = np.linspace(1, 8, head // 2).astype(np.float32)
    for layer in range(LAYERS):
        if latent:
            sizes = {"attn_q_a": (LATENT, WIDTH), "attn_q_b": (QUERIES * (head + TURNED), LATENT)}
            sizes |= {"attn_kv_a_mqa": (LATENT + TURNED, WIDTH), "attn_output": (WIDTH, QUERIES * head)}
            sizes |= {"attn_k_b": (QUERIES, LATENT, head), "attn_v_b": (QUERIES, head, LATENT)}
        else:
            sizes = {"attn_q": (QUERIES * head, WIDTH), "attn_k": (HEADS * head, WIDTH), "attn_v": (HEADS * head, WIDTH)}
            sizes |= {"attn_output": (WIDTH, QUERIES * head)}
        sizes |= {"ffn_gate": (HIDDEN, WIDTH), "ffn_up": (HIDDEN, WIDTH), "ffn_down": (WIDTH, HIDDEN)}
        own = {f"{name}.weight": matrix(*size) for name, size in sizes.items()}
        norms = {"attn_norm": WIDTH, "ffn_norm": WIDTH}
        if architecture == "qwen2":
            own |= {f"{name}.bias": matrix(sizes[name][0], scale=0.5) for name in ("attn_q", "attn_k", "attn_v")}
        if architecture == "qwen3":
            norms |= {"attn_q_norm": head, "attn_k_norm": head}
        if architecture == "gemma2":
            norms |= {"post_attention_norm": WIDTH, "post_ffw_norm": WIDTH}
        if latent:
            norms |= {"attn_q_a_norm": LATENT, "attn_kv_a_norm": LATENT}
        own |= {f"{name}.weight": matrix(size, mean=1.0) for name, size in norms.items()}
        tensors |= {f"blk.{layer}.{name}": tensor for name, tensor in own.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_adapter(path: Path, seed: int, rank: int = 4) -> None:
    """A LoRA adapter of a "llama" written above, for what makes its keys and values."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string(gguf.Keys.General.TYPE, gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(rank))
    for layer in range(LAYERS):
        for name in ("attn_k", "attn_v"):
            for half, shape in (("a", (rank, WIDTH)), ("b", (HEADS * (WIDTH // QUERIES), rank))):
                writer.add_tensor(f"blk.{layer}.{name}.weight.lora_{half}", random.normal(0, 0.3, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
