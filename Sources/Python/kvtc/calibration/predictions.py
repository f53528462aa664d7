"""What a change of the cache does to a model's predictions, and what of the cache is never changed."""

from __future__ import annotations

import numpy as np

SINKS, WINDOW = 4, 128
"""Tokens at both ends that stay exact, as in the default policy."""


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Log softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def divergence(reference: np.ndarray, other: np.ndarray) -> float:
    """Mean KL divergence of two batches of log probabilities [tokens, vocabulary], in nats."""
    return float((np.exp(reference) * (reference - other)).sum(axis=-1, dtype=np.float64).mean())
