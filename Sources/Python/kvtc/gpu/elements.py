"""Number formats of a cache: floats to their bits, rounded to nearest even and clamped to the largest finite value; no number is 0."""

from __future__ import annotations

import numpy as np

from ..protocol.geometry import Element

FORMATS = {Element.F16: (5, 10, 1), Element.E4M3: (4, 3, 0), Element.E5M2: (5, 2, 1)}
"""Bits of the exponent and of the mantissa, and whether the top exponent is that of infinities."""


def largest(element: Element) -> float:
    """The largest finite value of a small format."""
    exponent_bits, mantissa_bits, infinities = FORMATS[element]
    bias = (1 << (exponent_bits - 1)) - 1
    top = (1 << exponent_bits) - 1 - infinities
    last = (1 << mantissa_bits) - (1 if infinities else 2)
    return float((1 + last / (1 << mantissa_bits)) * 2.0 ** (top - bias))


def from_float(values: np.ndarray, element: Element) -> np.ndarray:
    """f32 to bits, as `convert.c` of the daemon has it."""
    words = np.ascontiguousarray(values, np.float32).view(np.uint32)
    if element == Element.F32:
        return np.asarray(words)
    sign, is_number = words >> 31, ~np.isnan(values)
    if element == Element.BF16:
        magnitude = np.minimum(words & 0x7FFFFFFF, 0x7F7FFFFF) * is_number
        rounded = np.minimum((magnitude + 0x7FFF + (magnitude >> 16 & 1)) >> 16, 0x7F7F)
        return np.asarray((rounded | np.where(is_number, sign, 0) << 15).astype(np.uint16))
    exponent_bits, mantissa_bits, _ = FORMATS[element]
    bias, drop = (1 << (exponent_bits - 1)) - 1, 23 - mantissa_bits
    magnitude = np.where(is_number, np.minimum(np.abs(values), np.float32(largest(element))), np.float32(0)).astype(np.float32)
    bits = magnitude.view(np.uint32)
    normal = ((bits + ((1 << (drop - 1)) - 1) + (bits >> drop & 1)) >> drop) - ((127 - bias) << mantissa_bits)
    # What is no subnormal need not be right.
    small = np.rint(np.minimum(magnitude * np.float32(2.0 ** (bias - 1 + mantissa_bits)), 2048)).astype(np.uint32)
    result = np.where(bits >> 23 < 128 - bias, small, normal) | sign << (exponent_bits + mantissa_bits)
    return np.asarray(result.astype(np.uint16 if element == Element.F16 else np.uint8))
