"""A profile of a shape, and blocks of it, as random as the entropy coder's tables expect."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import torch

from kvtc.gpu import blocks
from kvtc.gpu.decoder import Decoder
from kvtc.gpu.rate import Goal, RateControl
from kvtc.gpu.writing import Job, write
from kvtc.protocol.geometry import Element, inverse_frequencies

from .shape import Shape

_STEEPNESS = 1.1
"""Deviations of components fall with their number to this power: as bits a component do in models that were calibrated."""


def profile_file(shape: Shape, device: torch.device) -> np.ndarray:
    """The bytes of a profile of format 3, with unit matrices: how fast they are multiplied does not depend on what they are."""
    rank, row = max(shape.ranks.values()), shape.row
    exponents = np.where(np.arange(rank) < rank // 50, -9, np.where(np.arange(rank) < rank // 5, -10, -11)).astype(np.int8)
    components = np.concatenate([np.arange(rank), np.arange(shape.second_digits)]).astype(np.int32)
    exponents = np.concatenate([exponents, exponents[: shape.second_digits] - 8])
    quads, counted = 0, np.arange(len(components)) >= rank
    for exponent in sorted(set(exponents.tolist())):
        for second in (True, False):
            quads += -(-int(((exponents == exponent) & (counted == second)).sum()) // 4)
    tensors = []
    for role in (0, 1):
        for layer in range(shape.layers):
            entry = {"layer": layer, "role": role, "heads": shape.kv_heads, "headDim": shape.head_dim}
            tensors.append(entry | ({"rope": 0, "ropeStyle": 2, "ropeOffset": 0} if role == 0 else {}))
    deviations = (rank / 40 / (np.arange(rank) + rank / 40)) ** _STEEPNESS
    levels = np.rint(64 * np.log2(deviations)).astype(np.int16)
    matrix = np.eye(shape.head_dim, dtype=np.float16)[np.tril_indices(shape.head_dim)]
    arrays = {
        "basis.0.packed": (np.empty(0, np.uint8), [-(-row // 32), quads, 32, 4]),
        "mean": (np.zeros(row, np.float32), [row]),
        "weight": (np.ones(row, np.float32), [row]),
        **{name: (np.tile(matrix, row // shape.head_dim), [len(matrix) * row // shape.head_dim]) for name in ("root", "inverse_root")},
        "rope.0": (np.array(inverse_frequencies(shape.rope_base, shape.head_dim), np.float32), [shape.head_dim // 2]),
        "basis.0.component": (components, [len(components)]),
        "basis.0.exponent": (exponents, [len(components)]),
        "basis.0.level": (levels, [rank]),
        "entropy.frequencies": (_frequencies(), [64, 32]),
    }
    types = {"uint8": "U8", "float32": "F32", "float16": "F16", "int32": "I32", "int8": "I8", "int16": "I16", "uint16": "U16"}
    about = {
        "format": 3, "model": shape.name, "weighting": "none", "tensors": tensors, "energy": float((deviations**2).sum()),
        "bases": [{"begin": 0, "end": row, "rank": rank, "digits": len(components)}], "calibrationTokens": 0, "heldOutTokens": 0,
        "expectations": [
            {"stepIndex": int(levels[kept - 1]) + 85, "ratio": float(ratio), "distortion": 0.001 * ratio, "rank": kept}
            for ratio, kept in sorted(shape.ranks.items())
        ],
    }  # fmt: skip
    header: dict[str, object] = {"__metadata__": {"kvtc": json.dumps(about)}}
    offset = 0
    for name, (values, extents) in arrays.items():
        size = math.prod(extents) * values.itemsize
        header[name] = {"dtype": types[str(values.dtype)], "shape": extents, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    file = np.empty(8 + len(text) + offset, np.uint8)
    file[: 8 + len(text)] = np.frombuffer(struct.pack("<Q", len(text)) + text, np.uint8)
    packed = math.prod(arrays["basis.0.packed"][1])
    at = 8 + len(text)
    for begin in range(at, at + packed, 256 << 20):
        end = min(begin + (256 << 20), at + packed)
        file[begin:end] = torch.randint(96, 160, (end - begin,), dtype=torch.uint8, device=device).cpu().numpy()
    at += packed
    for name, (values, _) in arrays.items():
        if name != "basis.0.packed":
            file[at : at + values.nbytes] = values.view(np.uint8)
            at += values.nbytes
    return file


def _frequencies() -> np.ndarray:
    """Of normal coefficients, by class: a deviation of 2^((class − 16) / 4) steps."""
    tables = []
    for kind in range(64):
        deviation = 2.0 ** ((kind + 0.5 - 16) / 4)
        width = 1 << max(0, kind // 4 - 5)
        edges = [(symbol * width - 0.5) / deviation / math.sqrt(2) for symbol in range(-15, 17)]
        inside = np.diff([math.erf(edge) for edge in edges]) / 2
        wanted = np.concatenate([inside, [max(0.0, 1 - inside.sum())]]) * 4096
        whole = np.maximum(1, np.floor(wanted)).astype(np.int64)
        while (excess := int(whole.sum()) - 4096) != 0:
            most = int(whole.argmax())
            whole[most] -= min(excess, int(whole[most]) // 2) if excess > 0 else excess
        tables.append(whole)
    return np.array(tables, np.uint16).reshape(-1)


def coded(shape: Shape, decoder: Decoder, ratio: int) -> list[bytes]:
    """So many different pages of the ratio, coded by the encoder's own entropy coder."""
    resident, rows = decoder.resident, shape.unique_pages * shape.page
    deviations = torch.exp2(resident.levels.float() / 64)
    generator = torch.Generator(decoder.device).manual_seed(1)
    y = torch.randn((rows, len(deviations)), generator=generator, device=decoder.device) * deviations
    firsts = np.arange(shape.unique_pages + 1) * shape.page
    raw = shape.page * shape.row * 2
    control = RateControl(resident, y, firsts, (y.double() ** 2).sum(1).cpu().numpy())
    points = control.search(Goal(ratio=ratio), [blocks.HEADER] * shape.unique_pages, [raw] * shape.unique_pages)
    groups_of = [-(-rank // blocks.GROUP) for rank in resident.ranks]
    jobs = [
        Job(int(first), point.step_index, point.options, point.shape, point.bits, groups_of)
        for first, point in zip(firsts[:-1], points, strict=True)
    ]
    return [
        blocks.assemble(
            decoder.profile, Element.BF16, shape.page, int(first), section, b"", version=2, step=2.0 ** (point.step_index / 64),
            distortion=point.distortion, is_exact=np.zeros(shape.page, bool),
        )
        for first, point, section in zip(firsts[:-1], points, write(resident, y, jobs), strict=True)
    ]  # fmt: skip


def raw(shape: Shape, decoder: Decoder) -> list[bytes]:
    """So many different pages as they were pushed."""
    random = np.random.Generator(np.random.PCG64(2))
    none = np.zeros(shape.page, bool)
    return [
        blocks.assemble(
            decoder.profile, Element.BF16, shape.page, 0, random.integers(0, 1 << 14, shape.page * shape.row, np.uint16).tobytes(), b"", version=1,
            step=0.0, distortion=0.0, is_exact=none, mode=blocks.RAW,
        )
        for _ in range(shape.unique_pages)
    ]  # fmt: skip
