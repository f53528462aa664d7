"""Small random models of several architectures as transformers makes them, two layers each, without a file; and texts for them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers

from kvtc.adapters.transformers import TransformersWorker
from kvtc.calibration import capture, gradients
from kvtc.calibration.corpus import Corpus
from kvtc.calibration.texts import Document

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


def letters(text: str, add_special_tokens: bool = True) -> Any:
    """A tokenizer of a token a character."""
    return SimpleNamespace(input_ids=[2 + ord(character) % (VOCABULARY - 2) for character in text])


def texts() -> Corpus:
    """Eight of 700 random letters to calibrate on, and as many others to evaluate."""
    random = np.random.default_rng(4)

    def documents(name: str) -> list[Document]:
        made = ["".join(chr(97 + letter) for letter in random.integers(0, 21, 700)) for _ in range(8)]
        return [Document(f"{name} {index}", text) for index, text in enumerate(made)]

    learned, judged = documents("learned"), documents("judged")
    return Corpus("letters", lambda _: learned, lambda _: judged)


def calibrated(place: Path, worker: TransformersWorker, kvtcctl: str) -> Path:
    """A profile of the worker's own samples and gradients, which are beside it."""
    shards = capture.capture_calibration(worker, 4096, place / "samples.safetensors", texts())
    slopes = gradients.capture_gradients(worker, place / "gradients.safetensors", gradients.Plan(documents=2), texts())
    out = place / "model.kvtc.safetensors"
    subprocess.run([kvtcctl, "calibrate", *shards, "--gradients", *slopes, "--out", out], check=True, capture_output=True)
    return out
