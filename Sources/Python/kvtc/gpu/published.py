"""Coded sections of the mode `kvtc`, which a processor unpacks: codes for the same inverse transform."""

from __future__ import annotations

import struct

import numpy as np

from .blocks import BadBlock, Block
from .exact import unpack
from .profile import Basis

_SIZES, _BITS = (1, 16, 64, 256, 1024), (0, 2, 4, 8)
_LIMIT = 32_000


def codes(block: Block, bases: list[Basis]) -> list[np.ndarray]:
    """By basis, int16 [components][coded rows], in the header's steps.

    Raises BadBlock.
    """
    data, rows = block.coded, len(block.coded_rows)
    if rows == 0 or len(data) < 12 or not (np.isfinite(block.step) and block.step > 0):
        raise BadBlock("coded section header")
    grouping, size = struct.unpack_from("<II", data, 4)
    if grouping > len(data) - 12 or size > sum(basis.rank for basis in bases) * rows * 12:
        raise BadBlock(f"grouping of {grouping} bytes, payload of {size}")
    groupings, at = [], 12
    for _ in bases:
        if 12 + grouping - at < 4:
            raise BadBlock("grouping is short")
        (count,) = struct.unpack_from("<I", data, at)
        at += 4
        if count > 12 + grouping - at:
            raise BadBlock(f"grouping of {count} groups")
        groupings.append(bytes(data[at : at + count]))
        at += count
    if at != 12 + grouping or data[0] == 0:
        raise BadBlock("grouping")
    payload = np.frombuffer(unpack(data[at:], data[0], size), np.uint8)
    result, at = [], 0
    for basis, groups in zip(bases, groupings, strict=True):
        values: list[np.ndarray] = []
        first = 0
        for group in groups:
            if group & 15 >= len(_SIZES) or group >> 4 >= len(_BITS):
                raise BadBlock("grouping holds an unknown group")
            count, bits = min(_SIZES[group & 15], basis.rank - first), _BITS[group >> 4]
            if count <= 0:
                raise BadBlock("groups pass the rank")
            first += count
            if bits == 0:
                values.append(np.zeros((count, rows), np.int16))
                continue
            length = rows * 4 + (rows * count * bits + 7) // 8
            if length > len(payload) - at:
                raise BadBlock("payload is short")
            values.append(_group(payload[at : at + length], bits, count, rows, np.float32(1) / np.float32(block.step)))
            at += length
        result.append(np.concatenate(values) if values else np.zeros((0, rows), np.int16))
    if at != len(payload):
        raise BadBlock("payload has bytes left over")
    return result


def _group(data: np.ndarray, bits: int, count: int, rows: int, inverse_step: np.float32) -> np.ndarray:
    sides = np.ascontiguousarray(data[: 4 * rows]).view("<f2").astype(np.float32).reshape(rows, 2)
    each = 8 // bits
    stored = (data[4 * rows :, None] >> (np.arange(each, dtype=np.uint8) * bits)) & ((1 << bits) - 1)
    stored = stored.reshape(-1)[: rows * count].reshape(rows, count).astype(np.float32)
    with np.errstate(all="ignore"):
        value = (sides[:, :1] + sides[:, 1:] * stored) * inverse_step
    # A number of steps, halves away from zero; what is none is 0.
    value = np.clip(np.where(np.isfinite(value), value, 0), -_LIMIT - 1, _LIMIT + 1)
    whole = np.trunc(value)
    whole += np.where(np.abs(value - whole) >= 0.5, np.sign(value), 0)
    return np.asarray(np.clip(whole, -_LIMIT, _LIMIT).astype(np.int16).T)
