"""Coding and decoding on the processor, slowly and plainly: what `selftest.py` holds a device's results against."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from ..protocol.geometry import Element, RotaryStyle
from . import angles
from .blocks import GROUP, assemble
from .elements import from_float
from .profile import Profile, matrix_widths


def fused(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a · b + c of f32, rounded once: by float64, whose own rounding goes to odd (Boldo & Melquiond, 2008)."""
    product, addend = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    bits = total.view(np.int64)
    nudged = np.where((error > 0) == (total > 0), bits + 1, bits - 1)
    return np.asarray(np.where((error != 0) & (bits & 1 == 0), nudged, bits).view(np.float64).astype(np.float32))


def decode(
    profile: Profile, codes: Sequence[np.ndarray], step: float, step_index: int, position: int, element: Element, number: int
) -> np.ndarray:
    """The bits of one tensor's elements, [rows][elements]. ``codes``: by basis, [components][rows]."""
    tensor, begin, end = profile.geometry.tensors[number], profile.offsets[number], profile.offsets[number + 1]
    index, basis, first = next((i, basis, at) for i, basis in enumerate(profile.bases) if (at := basis.column(begin)) is not None)
    own = codes[index].astype(np.float64)
    x = np.zeros((own.shape[1], end - begin), np.float32)
    columns = np.arange(first, first + end - begin)
    for plane in basis.planes:
        used = plane.components < len(own)
        if plane.is_low:
            used &= basis.second_digit_levels()[plane.components] >= 2 * step_index - 361
        places = plane.first + np.flatnonzero(used)
        digits = basis.packed[columns[:, None] // 32, places[None] // 4, columns[:, None] % 32, places[None] % 4].astype(np.float64) - 128
        sums = (own[plane.components[used]].T @ digits.T).astype(np.int64)
        x = x + sums.astype(np.float32) * (np.float32(2.0**plane.exponent) * np.float32(step))
    if profile.inverse_root is not None:
        x = _matrices(profile, number, x)
    x = x * profile.inverse_weight[begin:end] + profile.mean[begin:end]
    if tensor.rotary_dims:
        positions = torch.arange(position, position + len(x), dtype=torch.float64)
        frequencies = torch.from_numpy(profile.rope_tables[tensor.rope_table].astype(np.float64))
        table = angles.angles(positions, frequencies).numpy()[:, None]
        heads = x.reshape(len(x), tensor.heads, tensor.head_dim)
        turned = heads[..., tensor.rotary_offset : tensor.rotary_offset + tensor.rotary_dims]
        half = tensor.rotary_dims // 2
        split = tensor.rotary_style == RotaryStyle.HALF_SPLIT
        one, other = (turned[..., :half], turned[..., half:]) if split else (turned[..., ::2], turned[..., 1::2])
        cosine, sine = table[..., ::2], table[..., 1::2]
        one[...], other[...] = one * cosine - other * sine, one * sine + other * cosine
    return from_float(x, element)


def _matrices(profile: Profile, number: int, x: np.ndarray) -> np.ndarray:
    tensors = profile.geometry.tensors
    at = sum(tensor.heads * sum(width * width for width in matrix_widths(tensor.head_dim)) for tensor in tensors[:number])
    result, first = np.zeros_like(x), 0
    for width in matrix_widths(tensors[number].head_dim) * tensors[number].heads:
        matrix = profile.inverse_root[at : at + width * width].reshape(width, width)  # type: ignore[index]
        own = np.zeros((len(x), width), np.float32)
        for i in range(width):
            own = fused(x[:, first + i, None], matrix[None, i], own)
        result[:, first : first + width] = own
        first, at = first + width, at + width * width
    return result


def block(
    profile: Profile, codes: Sequence[np.ndarray], step_index: int, position: int, element: Element, *, lanes: int, chunks: int
) -> bytes:
    """A block of version 2 whose rows all have codes, by basis [components][rows]; no group is cut, and each has the calibrated classes."""
    tokens = codes[0].shape[1]
    head, directory, words = struct.pack("<hH", step_index, 0), [], []
    for basis, own in zip(profile.bases, codes, strict=True):
        used = max(1, min(lanes, len(own)))
        sets = -(-len(own) // used)
        count = min(chunks, sets)
        part = struct.pack("<IHH", len(own), used, count) + bytes(-(-len(own) // GROUP))
        head += part + bytes(-len(part) % 4)
        cuts = np.arange(count + 1) * sets // max(count, 1)
        for begin, end in pairwise(cuts.tolist()):
            chosen = slice(begin * used, min(end * used, len(own)))
            words.append(_chunk(profile, own[chosen], basis.levels[chosen].astype(np.int64), step_index, used))
            directory.append(sum(map(len, words)))
    section = head + np.array(directory, "<u4").tobytes() + b"".join(np.array(own, "<u2").tobytes() for own in words)
    return assemble(
        profile, element, tokens, position, section, b"", version=2, step=float(np.float32(2.0 ** (step_index / 64))), distortion=0.0,
        is_exact=np.zeros(tokens, bool),
    )  # fmt: skip


def _chunk(profile: Profile, codes: np.ndarray, levels: np.ndarray, step_index: int, lanes: int) -> list[int]:
    """One chunk's words, backwards: the last symbol first."""
    kinds = np.clip((levels - step_index + 256) >> 4, 0, 63)
    starts = np.cumsum(profile.frequencies, 1) - profile.frequencies
    states, words = [1 << 16] * lanes, list[int]()
    for first in reversed(range(0, len(codes), lanes)):
        for row in reversed(range(codes.shape[1])):
            lane_codes = [int(code) for code in codes[first : first + lanes, row]]
            symbols, raws = [], []
            for code, kind in zip(lane_codes, kinds[first : first + lanes], strict=True):
                low = max(int(kind) // 4 - 5, 0)
                symbol = (code >> low) + 15
                symbols.append(symbol if 0 <= symbol <= 30 else 31)
                raws.append(low if symbols[-1] < 31 else 16)
            for lane in reversed(range(len(lane_codes))):
                if raws[lane]:
                    if states[lane] >= 1 << (32 - raws[lane]):
                        words.append(states[lane] & 0xFFFF)
                        states[lane] >>= 16
                    states[lane] = states[lane] << raws[lane] | lane_codes[lane] & ((1 << raws[lane]) - 1)
            for lane in reversed(range(len(lane_codes))):
                kind = kinds[first + lane]
                f, b = int(profile.frequencies[kind, symbols[lane]]), int(starts[kind, symbols[lane]])
                if states[lane] >= f << 20:
                    words.append(states[lane] & 0xFFFF)
                    states[lane] >>= 16
                states[lane] = states[lane] // f * 4096 + states[lane] % f + b
    for state in reversed(states):
        words += [state >> 16, state & 0xFFFF]
    return words[::-1]
