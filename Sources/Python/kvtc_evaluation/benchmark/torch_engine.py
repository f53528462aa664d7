"""The same prefill by another engine than llama.cpp, where it is installed: what a restore has to beat is the fastest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvtc.adapters.transformers.loading import load_model


class NoTorch(Exception):
    """torch, transformers or what they read GGUF files with is not installed, or does not know the model."""


class TorchEngine:
    """A GGUF model in float32 by torch on the CPU: weights that a file holds in fewer bits are widened once, when it is loaded."""

    def __init__(self, path: Path, threads: int) -> None:
        # The weights are here; nothing is to be looked for elsewhere.
        os.environ["HF_HUB_OFFLINE"] = "1"
        try:
            import torch
            import transformers

            transformers.utils.logging.set_verbosity_error()
            self._torch: Any = torch
            self._model: Any = load_model(path, threads=threads)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise NoTorch(f"{type(error).__name__}: {error}") from error
        self.name = f"torch {torch.__version__} float32"

    def prefill(self, tokens: Sequence[int]) -> np.ndarray:
        """Computes the cache of all tokens, and the logits after the last."""
        with self._torch.inference_mode():
            output = self._model(input_ids=self._torch.tensor([list(tokens)]), use_cache=True, logits_to_keep=1)
        return np.asarray(output.logits[0, -1].numpy())
