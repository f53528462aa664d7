"""From sums to elements in the engine's cache: a matrix a head, weight and mean, rotation to the position, rounding, and the store."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _small(value, EXPONENT: tl.constexpr, MANTISSA: tl.constexpr, LARGEST: tl.constexpr):
    """The bits of a format below 32 bits, to nearest even, clamped to the largest finite value; no number is 0."""
    is_number = value == value
    magnitude = tl.where(is_number, tl.minimum(tl.abs(value), LARGEST), 0.0)
    word = magnitude.to(tl.uint32, bitcast=True)
    bias: tl.constexpr = (1 << (EXPONENT - 1)) - 1
    drop: tl.constexpr = 23 - MANTISSA
    normal = ((word + ((1 << (drop - 1)) - 1) + ((word >> drop) & 1)) >> drop) - ((127 - bias) << MANTISSA)
    # Adding 2^23 rounds what is smaller to a whole number; what is no subnormal need not be right.
    unit: tl.constexpr = 2.0 ** (bias - 1 + MANTISSA)
    small = ((tl.minimum(magnitude * unit, 2048.0) + 8388608.0) - 8388608.0).to(tl.uint32)
    bits = tl.where((word >> 23) < 128 - bias, small, normal)
    sign = (value.to(tl.uint32, bitcast=True) >> 31) << (EXPONENT + MANTISSA)
    return bits | sign


@triton.jit
def _element(value, ELEMENT: tl.constexpr):
    if ELEMENT == 1:
        return _small(value, 5, 10, 65504.0).to(tl.int16)
    elif ELEMENT == 2:
        word = value.to(tl.uint32, bitcast=True)
        magnitude = tl.minimum(word & 0x7FFFFFFF, 0x7F7FFFFF)
        rounded = tl.minimum((magnitude + 0x7FFF + ((magnitude >> 16) & 1)) >> 16, 0x7F7F)
        return tl.where(value == value, rounded | ((word >> 31) << 15), 0).to(tl.int16)
    elif ELEMENT == 3:
        return value.to(tl.int32, bitcast=True)
    elif ELEMENT == 4:
        return _small(value, 4, 3, 448.0).to(tl.int8)
    else:
        return _small(value, 5, 2, 57344.0).to(tl.int8)


@triton.jit
def _columns(x, matrices, matrix, first, width, column, has_column, HAS_MATRIX: tl.constexpr):
    """Values of some columns of a head, [rows][columns]. ``x``: [rows, 1] of the head; ``first``, ``width``: those that its matrix is of."""
    if HAS_MATRIX:
        result = tl.zeros((x.shape[0], column.shape[0]), tl.float32)
        entry = matrices + matrix + column - first
        for i in range(width):
            value = tl.load(x + first + i)
            factor = tl.load(entry + i * width, mask=has_column, other=0.0)
            result = tl.fma(value, factor[None, :], result)
        return result
    else:
        return tl.load(x + column[None, :], mask=has_column[None, :], other=0.0)


@triton.jit(
    do_not_specialize=[
        "x_width", "x_first", "angle_width", "rows", "head_dim", "head_matrices", "block_tokens", "block_stride", "head_stride", "token_stride",
        "width_stride", "tile_count",
    ],
    do_not_specialize_on_alignment=["x", "matrices", "weights", "means", "angles", "slots", "out"],
)  # fmt: skip
def finish(
    x, x_width, x_first, matrices, weights, means, angles, angle_width, slots, out, rows, tiles, pairs, head_dim, head_matrices,
    block_tokens, block_stride, head_stride, token_stride, width_stride,
    tile_count, ROWS: tl.constexpr, PAIRS: tl.constexpr, HAS_MATRIX: tl.constexpr, ELEMENT: tl.constexpr,
):  # fmt: skip
    """One tensor's elements of some coded rows. A program has some rows and pairs of columns of a head: partners of a rotation, or any two.

    ``tiles`` [tile_count][6] int32: of the columns that come first in pairs and of the others the first column of their matrix, its width,
    and where it lies among the head's matrices. ``pairs`` [tile_count][3][PAIRS] int32: columns (−1: none), and the angle (−1: not rotated).
    ``slots`` int64: a row's place in the cache, block times ``block_tokens`` plus token; −1: not wanted.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    head = tl.program_id(1) // tile_count
    number = tl.program_id(1) % tile_count
    has_row = row < rows
    row = tl.where(has_row, row, 0)
    tile = tiles + number * 6
    pair = pairs + number * 3 * PAIRS + tl.arange(0, PAIRS)
    a = tl.load(pair)
    b = tl.load(pair + PAIRS)
    angle = tl.load(pair + 2 * PAIRS)
    has_a = a >= 0
    has_b = b >= 0
    a = tl.where(has_a, a, tl.load(tile))
    b = tl.where(has_b, b, tl.load(tile + 3))
    start = x + row[:, None].to(tl.int64) * x_width + x_first + head * head_dim
    own = matrices + head * head_matrices
    one = _columns(start, own, tl.load(tile + 2), tl.load(tile), tl.load(tile + 1), a, has_a, HAS_MATRIX)
    other = _columns(start, own, tl.load(tile + 5), tl.load(tile + 3), tl.load(tile + 4), b, has_b, HAS_MATRIX)
    at = head * head_dim
    one = one * tl.load(weights + at + a)[None, :] + tl.load(means + at + a)[None, :]
    other = other * tl.load(weights + at + b)[None, :] + tl.load(means + at + b)[None, :]
    turns = (angle >= 0)[None, :]
    turn = angles + row[:, None].to(tl.int64) * angle_width + tl.where(angle >= 0, angle, 0)[None, :]
    cosine = tl.load(turn, mask=turns, other=1.0)
    sine = tl.load(turn + 1, mask=turns, other=0.0)
    turned = one * cosine - other * sine
    partner = one * sine + other * cosine
    one = tl.where(turns, turned, one)
    other = tl.where(turns, partner, other)
    slot = tl.load(slots + row)
    wanted = (has_row & (slot >= 0))[:, None]
    block = slot // block_tokens
    to = out + (block * block_stride + (slot - block * block_tokens) * token_stride + head * head_stride)[:, None]
    tl.store(to + a[None, :] * width_stride, _element(one, ELEMENT), mask=wanted & has_a[None, :])
    tl.store(to + b[None, :] * width_stride, _element(other, ELEMENT), mask=wanted & has_b[None, :])
