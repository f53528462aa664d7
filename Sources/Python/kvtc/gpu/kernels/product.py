"""The inverse transform as exact integer sums: codes times digits of the basis, plane after plane, each scaled and added to floats by
one multiplication and one addition (`InverseTransform.md`)."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _sum(codes, digits, count, total, STEP: tl.constexpr, BY: tl.constexpr):
    """Adds `count` products. ``BY``: "int8"; or "bf16", summed as floats 1024 at a time, as many as fit their 24 bits exactly; "f32", the
    same where there is no bf16."""
    if BY == "int8":
        for k in range(0, count, STEP):
            total = tl.dot(tl.load(codes + k), tl.load(digits + k), total, out_dtype=tl.int32)
    else:
        for begin in range(0, count, 1024):
            part = tl.zeros(total.shape, tl.float32)
            for k in range(begin, tl.minimum(begin + 1024, count), STEP):
                a = tl.load(codes + k)
                b = tl.load(digits + k)
                if BY == "bf16":
                    part = tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), part)
                else:
                    part = tl.dot(a.to(tl.float32), b.to(tl.float32), part, input_precision="ieee")
            total += part.to(tl.int32)
    return total


@triton.jit(do_not_specialize=["term_count"])
def inverse(
    low, high, digits, terms, term_count, steps, given, x, rows, columns, low_width, high_width, digit_width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, GROUP: tl.constexpr, BY: tl.constexpr,
):  # fmt: skip
    """x[row, column] of some coded rows. ``low`` [rows][low_width], ``high`` [rows][high_width], ``digits`` [columns][digit_width],
    all int8; ``given`` [planes][rows][columns] int32; ``steps``, x: f32.

    ``terms`` [term_count][8] int32: where a plane's codes begin among the low digits and how many they are, the same among the high ones, where
    its digits begin, the bits of 2^exponent as f32, and which of the given sums are its (−1: none).
    """
    number = tl.program_id(0)
    down = tl.cdiv(rows, ROWS)
    across = tl.cdiv(columns, COLUMNS)
    # Programs of some rows in turn, so that what they share of the basis is read once.
    first = number // (GROUP * across) * GROUP
    size = tl.minimum(down - first, GROUP)
    inside = number % (GROUP * across)
    row = (first + inside % size) * ROWS + tl.arange(0, ROWS)
    column = inside // size * COLUMNS + tl.arange(0, COLUMNS)
    has_row = row < rows
    has_column = column < columns
    row = tl.where(has_row, row, 0).to(tl.int64)
    column = tl.where(has_column, column, 0).to(tl.int64)
    along = tl.arange(0, STEP)
    low_row = low + row[:, None] * low_width + along[None, :]
    high_row = high + row[:, None] * high_width + along[None, :]
    digit_row = digits + column[None, :] * digit_width + along[:, None]
    place = row[:, None] * columns + column[None, :]
    mask = has_row[:, None] & has_column[None, :]
    step = tl.load(steps + row)
    result = tl.zeros((ROWS, COLUMNS), tl.float32)
    for index in range(term_count):
        term = terms + index * 8
        total = tl.zeros((ROWS, COLUMNS), tl.int32)
        at = tl.multiple_of(tl.load(term + 4), 64)
        above = tl.load(term + 3)
        if above > 0:
            total = _sum(high_row + tl.multiple_of(tl.load(term + 2), 64), digit_row + at, above, total, STEP, BY) * 256
        which = tl.load(term + 6)
        if which >= 0:
            total += tl.load(given + which * (rows.to(tl.int64) * columns) + place, mask=mask, other=0)
        else:
            total = _sum(low_row + tl.multiple_of(tl.load(term), 64), digit_row + at, tl.load(term + 1), total, STEP, BY)
        scale = tl.load(term + 5).to(tl.float32, bitcast=True) * step
        result = result + total.to(tl.float32) * scale[:, None]
    tl.store(x + place, result, mask=mask)
