"""Which calls of `generate` begin with a cache that kvtcd can have: one sequence of tokens, decoded token by token."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

_OWN = {
    "inputs", "input_ids", "attention_mask", "generation_config", "logits_processor", "stopping_criteria",
    "prefix_allowed_tokens_fn", "streamer", "tokenizer",
}  # fmt: skip
"""Arguments that leave the cache what the tokens give. What else is not a setting of generation may not (images, positions, a cache)."""


def unfit(model: Any, ids: Any, options: Mapping[str, Any]) -> str:
    """Why a call is left to the model alone; empty where it is not. `ids` are the input [sequences, tokens]."""
    if model.config.is_encoder_decoder:
        return "the model is an encoder and a decoder"
    if ids is None or ids.ndim != 2:
        return "its input is no row of token ids"
    if len(ids) != 1:
        return f"it is of {len(ids)} sequences; one at a time is kept"
    config = copy.deepcopy(options.get("generation_config") or model.generation_config)
    for name, value in options.items():
        if name in _OWN or value is None:
            continue
        if not hasattr(config, name):
            return f"it is given {name}"
        setattr(config, name, value)
    mask = options.get("attention_mask")
    if mask is not None and not (mask.shape == ids.shape and bool((mask == 1).all())):
        return "its attention mask leaves tokens out"
    if config.use_cache is False:
        return "it uses no cache"
    if config.cache_implementation not in (None, "dynamic"):
        return f"it uses a cache of its own kind ({config.cache_implementation})"
    if config.prefill_chunk_size:
        return "it computes the prompt in chunks"
    if (config.num_return_sequences or 1) > 1:
        return "it branches"
    if (mode := config.get_generation_mode(None)) not in ("greedy_search", "sample"):
        return f"{mode.value} changes the cache in other ways than token by token"
    return ""
