"""Predictions of a model after a given cache, and their derivatives by it: any decoder that transformers loads, by torch.

Of a llama.cpp worker it is the same GGUF file, its weights widened to float32; keys then lie as llama.cpp has them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ..adapters.engine import EngineError
from ..adapters.geometry import ModelGeometry
from ..adapters.rope import Rope
from ..adapters.transformers.loading import load_model, source
from ..adapters.transformers.rotary import frequency_tables
from ..adapters.transformers.worker import TransformersWorker
from .readers import Reader

Draw = Callable[[int], tuple[np.ndarray, np.ndarray]]


class NoGradients(EngineError):
    """This model can't be differentiated here; the message says why."""


class GradientModel:
    """Raises `NoGradients` where the model or this installation can't be used."""

    def __init__(self, worker: Reader) -> None:
        self._given = worker.geometry
        if isinstance(worker, TransformersWorker):
            self._worker = worker
        else:
            self._worker = _widened(worker)
            _compare(self._given, self._worker.geometry)

    def differentiate(self, keys: np.ndarray, values: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, Draw]:
        """Log probabilities after each of `tokens`, which follow a cache of [layers, cells, heads, head_dim], and a function
        that gives, for a seed, the derivative by keys and values of the log-likelihood of tokens drawn from them.

        The mean square of such derivatives is the Fisher information of the cache: half of e·F·e is, to second order, the
        sum of the KL divergences that an error e in the cache causes (Amari, "Natural gradient works efficiently in
        learning", 1998).
        """
        import torch

        own = self._worker.geometry.rope
        given = (_repaired(keys, self._given.rope, own), values)
        leaves = [torch.from_numpy(np.array(rows, np.float32)).requires_grad_() for rows in given]
        with torch.enable_grad():
            predictions = torch.log_softmax(self._worker.logits_after(*leaves, [int(token) for token in tokens]), -1)

        def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
            random = torch.Generator().manual_seed(seed)
            drawn = torch.multinomial(predictions.detach().exp(), 1, generator=random)
            by_keys, by_values = torch.autograd.grad(predictions.gather(-1, drawn).sum(), leaves, retain_graph=True)
            return _repaired(by_keys.numpy(), own, self._given.rope), by_values.numpy()

        return predictions.detach().numpy(), draw


def _widened(worker: Reader) -> TransformersWorker:
    """The model of a GGUF file in float32."""
    try:
        import gguf
        import torch  # noqa: F401
        import transformers
    except ImportError as error:  # optional: deploy/setup --demo installs them
        raise NoGradients(f"the Python package {error.name} is missing: deploy/setup --demo installs it") from error
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    # Weights, twice while they are loaded, and the activations that the derivative keeps.
    needed = 3 * 4 * sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(worker.path).tensors)
    if needed > available:
        raise NoGradients(f"gradients of this model take {needed >> 20} MiB of memory, {available >> 20} MiB are free")
    try:
        config = transformers.AutoConfig.from_pretrained(**source(worker.path))
        # Not every architecture's is read from the file.
        if getattr(config, "head_dim", None):
            config.head_dim = worker.geometry.head_dim
        model = load_model(worker.path, threads=worker.threads, config=config)
        _retune(model, worker.geometry.rope)
        return TransformersWorker(model)
    except (EngineError, KeyError, OSError, RuntimeError, ValueError) as error:
        raise NoGradients(f"transformers does not load this model: {error}") from error


def _retune(model: Any, rope: Rope) -> None:
    """Gives a model with one table of frequencies those that the engine turns keys by: factors for single ones are not read."""
    wanted = set(rope.frequencies)
    if len(wanted) == len(frequency_tables(model)) == 1:
        for name, buffer in model.named_buffers():
            if name.endswith("inv_freq"):
                buffer.copy_(buffer.new_tensor(rope.frequencies[0]))


def _compare(given: ModelGeometry, own: ModelGeometry) -> None:
    if given.is_latent:
        raise NoGradients("gradients by latents are not known: transformers caches what they expand to")
    shapes = [(geometry.layers, geometry.heads, geometry.head_dim, geometry.value_dim) for geometry in (given, own)]
    turned = [(geometry.rope.offset, geometry.rope.dims) for geometry in (given, own)]
    if shapes[0] != shapes[1] or turned[0] != turned[1]:
        raise NoGradients(f"the engine's cache is {shapes[0]}, turned at {turned[0]}; transformers has {shapes[1]} and {turned[1]}")
    if not np.allclose(given.rope.frequencies, own.rope.frequencies, rtol=0.01, atol=1e-5):
        raise NoGradients("the engine turns keys by other frequencies than transformers, which reads no more of them from the file")


def _repaired(heads: np.ndarray, source: Rope, target: Rope) -> np.ndarray:
    """Heads whose pairs lie as in `source`, with pairs as in `target`; both turn as many."""
    if source.style == target.style or not source.dims:
        return heads
    result = heads.copy()
    for mine, theirs in zip(target.pairs(result), source.pairs(heads), strict=True):
        mine[...] = theirs
    return result
