"""What coding costs at a step."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["width", "groups"], do_not_specialize_on_alignment=["y"])
def measure(
    y, width, firsts, levels, group_first, group_size, steps, step_sizes, inverses, offsets, costs, groups, bits, errors, energies,
    OFFSETS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Of a page's rows and one group of components: bits (in 64ths) with each of ``OFFSETS`` classes around ``offsets`` [pages][groups],
    the squared error, and the energy of the components that the step keeps."""
    page = tl.program_id(0)
    group = tl.program_id(1)
    step_index = tl.load(steps + page)
    step = tl.load(step_sizes + page)
    inverse = tl.load(inverses + page)
    inside = tl.arange(0, 64)
    component = tl.load(group_first + group) + inside
    level = tl.load(levels + component, mask=inside < tl.load(group_size + group), other=-100000)
    kept = level >= step_index - 85
    begin = tl.load(firsts + page)
    end = tl.load(firsts + page + 1)
    at = page * groups + group
    offset = tl.load(offsets + at)
    error = tl.zeros((64,), tl.float32)
    energy = tl.zeros((64,), tl.float32)
    spent = tl.zeros((OFFSETS,), tl.int64)
    which = tl.arange(0, OFFSETS)
    for first in range(begin, end, ROWS):
        row = first + tl.arange(0, ROWS)
        mask = (row < end)[:, None] & kept[None, :]
        value = tl.load(y + row[:, None].to(tl.int64) * width + component[None, :], mask=mask, other=0.0)
        scaled = tl.minimum(tl.maximum(value * inverse, -16383.0), 16383.0)
        code = (scaled + 12582912.0) - 12582912.0
        difference = value - code * step
        error += tl.sum(difference * difference, 0)
        energy += tl.sum(value * value, 0)
        whole = code.to(tl.int32)
        for number in tl.static_range(OFFSETS):
            kind = level + 16 * (offset + number - OFFSETS // 2) - step_index + 256
            kind = tl.minimum(tl.maximum(kind >> 4, 0), 63)
            low = tl.maximum((kind >> 2) - 5, 0)
            high = whole >> low[None, :]
            escapes = (high < -15) | (high > 15)
            symbol = tl.where(escapes, 31, high + 15)
            cost = tl.load(costs + kind[None, :] * 32 + symbol, mask=mask, other=0) + 64 * tl.where(escapes, 16, low[None, :])
            total = tl.sum(tl.sum(tl.where(mask, cost, 0), 1), 0).to(tl.int64)
            spent += tl.where(which == number, total, 0)
    tl.store(bits + at * OFFSETS + which, spent)
    tl.store(errors + at, tl.sum(error, 0))
    tl.store(energies + at, tl.sum(energy, 0))
