"""The decoder of a GGUF file in JAX: what llama.cpp computes, differentiable by the cache.

llama.cpp has no derivatives. Architectures built like Llama (llama and Mistral, Qwen 2 and 3) are few lines here;
`kvtc.calibration.gradients` compares the predictions with the engine's before it trusts them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..adapters.llama_cpp.library import LlamaError
from ..adapters.llama_cpp.worker import LlamaWorker

try:
    import gguf
    import jax
    import jax.numpy as jnp
except ImportError:  # optional: deploy/setup --demo installs them
    gguf = jax = jnp = None

_ARCHITECTURES = ("llama", "qwen2", "qwen3")
_LAYER = (
    "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down",
    "attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_q_norm", "attn_k_norm",
)  # fmt: skip


class NoGradients(LlamaError):
    """This model can't be differentiated here; the message says why."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder. `interleaved`: RoPE turns pairs of neighbours, else elements half a head apart."""

    layers: int
    query_heads: int
    heads: int
    head_dim: int
    epsilon: float
    interleaved: bool


class GradientModel:
    """Weights as f32 in memory. Raises `NoGradients` where the model or this installation can't be used."""

    def __init__(self, worker: LlamaWorker) -> None:
        if jax is None:
            raise NoGradients("the Python packages jax and gguf are missing: deploy/setup --demo installs them")
        architecture = worker.metadata("general.architecture")
        if architecture not in _ARCHITECTURES:
            raise NoGradients(f"gradients of the architecture {architecture} are not known; {', '.join(_ARCHITECTURES)} are")
        reader = gguf.GGUFReader(worker.path)
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        # Weights, what XLA makes of them, and the activations that the derivative keeps.
        needed = 3 * 4 * sum(int(tensor.n_elements) for tensor in reader.tensors)
        if needed > available:
            raise NoGradients(f"gradients of this model take {needed >> 20} MiB of memory, {available >> 20} MiB are free")
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        geometry = worker.geometry
        self.shape = Shape(
            layers=geometry.layers,
            query_heads=int(worker.metadata(f"{architecture}.attention.head_count")),
            heads=geometry.heads,
            head_dim=geometry.head_dim,
            epsilon=float(worker.metadata(f"{architecture}.attention.layer_norm_rms_epsilon")),
            interleaved=geometry.rope.style == "interleaved",
        )
        if "blk.0.ffn_gate.weight" not in tensors:
            raise NoGradients("gradients of models with experts are not known")
        self._weights = {"embedding": _plain(tensors["token_embd.weight"]), "norm": _plain(tensors["output_norm.weight"])}
        self._weights["output"] = _plain(tensors["output.weight"]) if "output.weight" in tensors else self._weights["embedding"]
        if len(set(geometry.rope.frequencies)) != 1:
            raise NoGradients("gradients of models whose layers turn their keys differently are not known")
        self._weights["frequencies"] = jnp.asarray(geometry.rope.frequencies[0], jnp.float32)
        self._weights["layers"] = {
            name: jnp.stack([_plain(tensors[_full(layer, name)]) for layer in range(geometry.layers)])
            for name in _LAYER
            if _full(0, name) in tensors
        }

    def differentiate(
        self, keys: np.ndarray, values: np.ndarray, tokens: np.ndarray
    ) -> tuple[np.ndarray, Callable[[int], tuple[np.ndarray, np.ndarray]]]:
        """Log probabilities after each of `tokens`, which follow a cache of [layers, cells, heads, head_dim], and a function
        that gives, for a seed, the derivative by keys and values of the log-likelihood of tokens drawn from them.

        The mean square of such derivatives is the Fisher information of the cache: half of e·F·e is, to second order, the
        sum of the KL divergences that an error e in the cache causes (Amari, "Natural gradient works efficiently in
        learning", 1998).
        """
        predictions, gradient = jax.vjp(partial(_predict_jit, self.shape, self._weights, tokens=jnp.asarray(tokens)), keys, values)

        def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
            drawn = jax.random.categorical(jax.random.key(seed), predictions)
            by_keys, by_values = gradient(jax.nn.one_hot(drawn, predictions.shape[-1]))
            return np.asarray(by_keys), np.asarray(by_values)

        return np.asarray(predictions), draw


def _full(layer: int, name: str) -> str:
    return f"blk.{layer}.{name}" if name.endswith(".bias") else f"blk.{layer}.{name}.weight"


def _plain(tensor: gguf.ReaderTensor) -> jax.Array:
    return jnp.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), jnp.float32)


def _norm(x: jax.Array, weight: jax.Array, epsilon: float) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + epsilon) * weight


def _rotate(x: jax.Array, positions: jax.Array, frequencies: jax.Array, interleaved: bool) -> jax.Array:
    angle = positions[:, None] * frequencies
    cosine, sine = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    dims = 2 * len(frequencies)
    turned, rest = x[..., :dims], x[..., dims:]
    if interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
        pairs = jnp.stack([first * cosine - second * sine, first * sine + second * cosine], -1).reshape(turned.shape)
    else:
        first, second = jnp.split(turned, 2, -1)
        pairs = jnp.concatenate([first * cosine - second * sine, first * sine + second * cosine], -1)
    return jnp.concatenate([pairs, rest], -1)


def _predict(shape: Shape, weights: dict, keys: jax.Array, values: jax.Array, *, tokens: jax.Array) -> jax.Array:
    """Log probabilities [tokens, vocabulary] after each token; keys and values are those of the cells before the first."""
    count, cells = len(tokens), keys.shape[1]
    positions = cells + jnp.arange(count, dtype=jnp.float32)
    causal = jnp.tril(jnp.ones((count, count), bool))
    turn = partial(_rotate, positions=positions, frequencies=weights["frequencies"], interleaved=shape.interleaved)

    def heads(x: jax.Array, layer: dict, name: str, number: int) -> jax.Array:
        x = (x @ layer[name].T + layer.get(f"{name}.bias", 0.0)).reshape(count, number, shape.head_dim)
        return _norm(x, layer[f"{name}_norm"], shape.epsilon) if f"{name}_norm" in layer else x

    def block(x: jax.Array, layer: dict) -> tuple[jax.Array, None]:
        h = _norm(x, layer["attn_norm"], shape.epsilon)
        query = turn(heads(h, layer, "attn_q", shape.query_heads)) / shape.head_dim**0.5
        key, value = turn(heads(h, layer, "attn_k", shape.heads)), heads(h, layer, "attn_v", shape.heads)
        query = query.reshape(count, shape.heads, -1, shape.head_dim)
        before = jnp.einsum("nkgd,tkd->kgnt", query, layer["keys"])
        own = jnp.where(causal, jnp.einsum("nkgd,tkd->kgnt", query, key), -jnp.inf)
        attention = jax.nn.softmax(jnp.concatenate([before, own], -1), -1)
        read = jnp.einsum("kgnt,tkd->nkgd", attention[..., :cells], layer["values"])
        read += jnp.einsum("kgnt,tkd->nkgd", attention[..., cells:], value)
        x = x + read.reshape(count, -1) @ layer["attn_output"].T
        h = _norm(x, layer["ffn_norm"], shape.epsilon)
        return x + (jax.nn.silu(h @ layer["ffn_gate"].T) * (h @ layer["ffn_up"].T)) @ layer["ffn_down"].T, None

    x, _ = jax.lax.scan(block, weights["embedding"][tokens], weights["layers"] | {"keys": keys, "values": values})
    return jax.nn.log_softmax(_norm(x, weights["norm"], shape.epsilon) @ weights["output"].T, -1)


_predict_jit = jax.jit(_predict, static_argnums=0) if jax else _predict
