"""A model that never was: samples to calibrate on, pages and the profile, all from seeds. Like a model's, its cache has
far fewer directions than elements, so that coding it lossily makes sense."""

import subprocess

import numpy as np

import kvtc
from kvtc import Layout, Order, safetensors
from kvtc.protocol.geometry import inverse_frequencies

from conftest import binary

TOKENS = 64
SHAPE = {"layers": 4, "kv_heads": 2, "head_dim": 16}
GEOMETRY = kvtc.Geometry.from_heads(**SHAPE, rope_base=10000.0, rope_style="half_split")
LAYOUT = Layout(kvtc.Element.F16, Order.TOKEN_TENSOR_HEAD)


def rotate(keys, positions):
    """RoPE in its half-split form over the whole head; keys are (tokens, heads, dim)."""
    half = keys.shape[-1] // 2
    angles = positions[:, None, None] * np.array(inverse_frequencies(10000.0, 2 * half))
    first, second = keys[..., :half], keys[..., half:]
    return np.concatenate([first * np.cos(angles) - second * np.sin(angles), first * np.sin(angles) + second * np.cos(angles)], -1)


def cache(count, seed):
    """K and V of so many tokens, K rotated."""
    width = len(GEOMETRY.tensors) * 32
    mixing = np.random.default_rng(7).normal(0, 1, (24, width)) * 0.8 ** np.arange(24)[:, None]
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 1, (count, 24)) @ mixing + rng.normal(0, 0.01, (count, width))
    tensors = {}
    for index, tensor in enumerate(GEOMETRY.tensors):
        block = rows[:, index * 32 : index * 32 + 32].reshape(count, 2, 16)
        if tensor.role == kvtc.Role.KEY:
            block = rotate(block, np.arange(count))
        tensors[tensor.layer, tensor.role] = block.astype(np.float16)
    return tensors


def write_samples(path, count, **about):
    """A sample file of so many tokens, whose metadata says `about`."""
    tensors = {f"{'k' if role == kvtc.Role.KEY else 'v'}.{layer}": [a] for (layer, role), a in cache(count, 1).items()}
    tensors["positions"] = [np.arange(count, dtype=np.int32)]
    metadata = {"format": "kvtc-samples-1", "model": "synthetic", "rope_style": "half_split", "rope_base": "10000"}
    safetensors.write(path, tensors, metadata | {"rope_dims": "16"} | about)


def calibrate(directory, *options, **about):
    """The path of a profile that kvtcctl made from such samples."""
    write_samples(directory / "samples.safetensors", 6000, **about)
    out = directory / "synthetic.kvtc.safetensors"
    command = [binary("kvtcctl", "KVTCCTL"), "calibrate", str(directory / "samples.safetensors"), "--out", str(out), "--json", *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return out


def contents(seed, pages):
    """The bytes of so many pages of a document."""
    tensors = cache(pages * TOKENS, seed)
    made = []
    for start in range(0, pages * TOKENS, TOKENS):
        page = bytearray(LAYOUT.page_bytes(GEOMETRY, TOKENS))
        for name, view in LAYOUT.views(GEOMETRY, TOKENS, page).items():
            view[...] = tensors[name][start : start + TOKENS]
        made.append(bytes(page))
    return made


def document(seed, pages):
    """Keys and bytes of a document's pages."""
    return kvtc.page_keys(np.arange(pages * TOKENS) + seed, TOKENS), contents(seed, pages)


def rows(pages):
    """Pages as numbers, one row a token."""
    return np.frombuffer(b"".join(pages), np.float16).reshape(-1, LAYOUT.page_bytes(GEOMETRY, 1) // 2).astype(np.float64)
