"""Entropy coding: the codes of a page's rows become words."""

from __future__ import annotations

import triton
import triton.language as tl

from .decode import classify


@triton.jit
def _put(x, need, words, left):
    """Words of some lanes in front of those that are there, the lowest lane's foremost."""
    one = need.to(tl.int32)
    count = tl.sum(one, 0)
    at = left - count + tl.cumsum(one, 0) - one
    tl.store(words + at, x.to(tl.int16), mask=need & (at >= 0))
    return tl.where(need, x >> 16, x), left - count


@triton.jit(do_not_specialize=["width"], do_not_specialize_on_alignment=["y"])
def encode_chunks(y, width, table, levels, inverses, options, frequencies, starts, words, counts):
    """A program a chunk, a lane a component, everything backwards; ``table`` [chunks][16]: 0 where its room among the words is, 1 how many
    words that has, 2 rows, 3 the first row, 4 states, 5 the first set, 6 the end of them, 7 components, 8 page, 9 where its options are,
    10 the first component, 11 the step's index. ``counts``: words from the end of the room on; −1 where it does not suffice."""
    chunk = tl.program_id(0)
    about = table + chunk * 16
    room = words + tl.load(about)
    left = tl.load(about + 1).to(tl.int32)
    size = left
    rows = tl.load(about + 2).to(tl.int32)
    row = tl.load(about + 3)
    lanes = tl.load(about + 4).to(tl.int32)
    first = tl.load(about + 5).to(tl.int32)
    active = tl.load(about + 7).to(tl.int32)
    inverse = tl.load(inverses + tl.load(about + 8))
    own = options + tl.load(about + 9)
    base = tl.load(about + 10).to(tl.int32)
    step_index = tl.load(about + 11).to(tl.int32)
    lane = tl.arange(0, 32)
    used = lane < lanes
    x = tl.full((32,), 65536, tl.uint32)
    sets = tl.load(about + 6).to(tl.int32) - first
    for back in range(sets):
        index = (first + sets - 1 - back) * lanes + lane
        live = used & (index < active)
        level = tl.load(levels + base + index, mask=live, other=0)
        kind, low, _ = classify(tl.load(own + (index >> 6), mask=live, other=0).to(tl.int32), level, step_index)
        column = y + row * width + base + index
        for up in range(rows):
            value = tl.load(column + (rows - 1 - up).to(tl.int64) * width, mask=live, other=0.0)
            scaled = tl.minimum(tl.maximum(value * inverse, -16383.0), 16383.0)
            code = ((scaled + 12582912.0) - 12582912.0).to(tl.int32)
            high = code >> low
            escapes = (high < -15) | (high > 15)
            symbol = tl.where(escapes, 31, high + 15)
            raw = tl.where(live, tl.where(escapes, 16, low), 0).to(tl.uint32)
            if tl.max(raw.to(tl.int32), 0) > 0:
                has = raw > 0
                x, left = _put(x, has & ((x >> (32 - tl.maximum(raw, 1))) > 0), room, left)
                bits = code.to(tl.uint32, bitcast=True) & ((1 << raw) - 1).to(tl.uint32)
                x = tl.where(has, (x << raw) | bits, x)
            f = tl.load(frequencies + kind * 32 + symbol, mask=live, other=4096).to(tl.uint32)
            b = tl.load(starts + kind * 32 + symbol, mask=live, other=0).to(tl.uint32)
            x, left = _put(x, live & (f < 4096) & ((x >> 20) >= f), room, left)
            x = tl.where(live, ((x // f) << 12) + x % f + b, x)
    left -= 2 * lanes
    at = left + 2 * lane
    tl.store(room + at, x.to(tl.int16), mask=used & (at >= 0))
    tl.store(room + at + 1, (x >> 16).to(tl.int16), mask=used & (at >= 0))
    tl.store(counts + chunk, tl.where(left >= 0, size - left, -1))
