"""Small random models of several architectures as transformers makes them, two layers each, without a file."""

from __future__ import annotations

from typing import Any

import torch
import transformers

VOCABULARY, WINDOW = 23, 16
"""``WINDOW``: how far layers with a sliding window see."""


def small(kind: str, seed: int = 1, dtype: str = "float32", **options: Any) -> Any:
    """A decoder of that ``model_type``, in evaluation mode."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "initializer_range": 0.3, "bos_token_id": 1,
        "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    if kind in ("gemma2", "gemma3_text"):
        settings |= {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8}
    if kind == "mistral":
        settings |= {"sliding_window": WINDOW}
    config = transformers.AutoConfig.for_model(kind, **(settings | options))
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()
    model.generation_config.eos_token_id = None
    return model
