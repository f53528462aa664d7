"""Entropy decoding on the device: symbols of a page's coded rows become the digits that the inverse transform multiplies.

Both kernels write codes as digits of base 256 where the product reads them, [row][digit of the basis]: the low ones to ``low``, what is
beyond a byte of the leading components to ``high``. A component's place in either is that of its first digit, and of its second one
where the block's step is so fine that it counts; −1 where there is none.
"""

from __future__ import annotations

import triton
import triton.language as tl

CORRUPT, WIDE = 1, 2
"""What a kernel reports of a chunk: its bytes contradict themselves; a code beyond a byte has no place among the high digits."""
FIELDS = 16
"""Numbers of a row of the tables that say what there is to decode; int64."""


@triton.jit
def classify(option, level, step_index):
    """The class of components of that level in groups with that option; low bits of its codes; octaves."""
    octaves = option & 3
    wider = (option >> 2) & 31
    wider = tl.where(wider >= 16, wider - 32, wider)
    number = (level + 16 * wider - step_index - 64 * octaves + 256) >> 4
    number = tl.minimum(tl.maximum(number, 0), 63)
    return number, tl.maximum((number >> 2) - 5, 0), octaves


@triton.jit
def _word(words, index, mask):
    low = tl.load(words + 2 * index, mask=mask, other=0).to(tl.uint32)
    return low | (tl.load(words + 2 * index + 1, mask=mask, other=0).to(tl.uint32) << 8)


@triton.jit
def _refill(x, live, words, taken, count):
    """Each state below 2^16 takes a word, lanes ascending."""
    need = live & (x < 65536)
    one = need.to(tl.int32)
    index = taken + tl.cumsum(one, 0) - one
    word = _word(words, index, need & (index < count))
    return tl.where(need, (x << 16) | word, x), taken + tl.sum(one, 0)


@triton.jit
def _symbol(x, live, slots):
    """The symbol less its centre, and the state without it."""
    entry = tl.load(slots + (x & 4095).to(tl.int32), mask=live, other=0).to(tl.uint32, bitcast=True)
    rest = ((entry & 4095) + 1) * (x >> 12) + ((entry >> 12) & 4095)
    return (entry >> 24).to(tl.int32) - 15, tl.where(live, rest, x)


@triton.jit
def _keep(code, live, low, high, low_at, low_second, high_at, high_second):
    """Writes a code's digits; returns whether it is beyond 16 bits, and whether it needs a digit that has no place."""
    digit = ((code + 128) & 255) - 128
    rest = (code - digit) >> 8
    tl.store(low + low_at, digit.to(tl.int8), mask=live)
    tl.store(low + low_second, digit.to(tl.int8), mask=live & (low_second >= 0))
    has_high = live & (high_at >= 0)
    tl.store(high + high_at, rest.to(tl.int8), mask=has_high)
    tl.store(high + high_second, rest.to(tl.int8), mask=has_high & (high_second >= 0))
    beyond = live & ((code < -32768) | (code > 32767))
    return beyond.to(tl.int32) * 1 + (live & (rest != 0) & (high_at < 0)).to(tl.int32) * 2


@triton.jit(do_not_specialize=["components", "low_width", "high_width"], do_not_specialize_on_alignment=["groups", "places"])
def decode_chunks(data, table, groups, levels, seconds, places, components, slots, low, high, low_width, high_width, status, bounds):
    """Version 2: a program a chunk, a lane a component; ``table`` [chunks][16], see `sections.py`. ``places`` [4][components]: those of the
    first and second digit among the low ones, then among the high ones."""
    chunk = tl.program_id(0)
    about = table + chunk * 16
    words = data + tl.load(about)
    count = tl.load(about + 1)
    rows = tl.load(about + 2).to(tl.int32)
    row = tl.load(about + 3)
    lanes = tl.load(about + 4).to(tl.int32)
    active = tl.load(about + 7).to(tl.int32)
    listed = groups + tl.load(about + 8)
    options = data + tl.load(about + 9)
    base = tl.load(about + 10).to(tl.int32)
    step_index = tl.load(about + 11).to(tl.int32)
    lane = tl.arange(0, 32)
    used = lane < lanes
    x = _word(words, 2 * lane, used) | (_word(words, 2 * lane + 1, used) << 16)
    x = tl.where(used, x, 65536)
    taken = 2 * lanes
    flags = tl.zeros((32,), tl.int32)
    bound = tl.zeros((32,), tl.int64)
    low_row = low + row * low_width
    high_row = high + row * high_width
    for number in range(tl.load(about + 5).to(tl.int32), tl.load(about + 6).to(tl.int32)):
        index = number * lanes + lane
        live = used & (index < active)
        group = tl.load(listed + (index >> 6), mask=live, other=0)
        component = base + group * 64 + (index & 63)
        level = tl.load(levels + component, mask=live, other=0)
        kind, bits, octaves = classify(tl.load(options + group, mask=live, other=0).to(tl.int32), level, step_index)
        bits = tl.where(live, bits, 0)
        counts = tl.load(seconds + component, mask=live, other=0) >= 2 * step_index - 361
        low_at = tl.load(places + component, mask=live, other=0)
        low_second = tl.where(counts, tl.load(places + components + component, mask=live, other=-1), -1)
        high_at = tl.load(places + 2 * components + component, mask=live, other=-1)
        high_second = tl.where(counts, tl.load(places + 3 * components + component, mask=live, other=-1), -1)
        most = tl.zeros((32,), tl.int32)
        low_to = low_row
        high_to = high_row
        for _ in range(rows):
            code, x = _symbol(x, live, slots + kind * 4096)
            x, taken = _refill(x, live, words, taken, count)
            escapes = live & (code == 16)
            raw = tl.where(escapes, 16, bits)
            if tl.max(raw, 0) > 0:
                value = (x & ((1 << raw) - 1).to(tl.uint32)).to(tl.int32)
                x = x >> raw.to(tl.uint32)
                x, taken = _refill(x, live, words, taken, count)
                code = tl.where(escapes, tl.where(value >= 32768, value - 65536, value), (code << bits) + value)
            code = code << octaves
            most = tl.maximum(most, tl.abs(code))
            flags = flags | _keep(code, live, low_to, high_to, low_at, low_second, high_at, high_second)
            low_to += low_width
            high_to += high_width
        bound += tl.where(live, most, 0).to(tl.int64)
    is_whole = (taken == count) & (tl.sum((x != 65536).to(tl.int32), 0) == 0)
    tl.store(status + chunk, tl.max(flags & 1, 0) | tl.max(flags & 2, 0) | tl.where(is_whole, 0, 1))
    tl.store(bounds + chunk, tl.sum(bound, 0))


@triton.jit(do_not_specialize=["bases", "components", "low_width", "high_width"], do_not_specialize_on_alignment=["places"])
def decode_pages(data, table, bases, levels, seconds, places, components, slots, low, high, low_width, high_width, status, bounds):
    """Version 1: a program a block, a lane every sixteenth row; ``table`` [blocks × bases][16]: a page's row of numbers for each basis."""
    page = tl.program_id(0)
    about = table + page * bases * 16
    words = data + tl.load(about)
    count = tl.load(about + 1)
    rows = tl.load(about + 2).to(tl.int32)
    row = tl.load(about + 3)
    raws = data + tl.load(about + 4)
    raw_bytes = tl.load(about + 5)
    step_index = tl.load(about + 11).to(tl.int32)
    lane = tl.arange(0, 16)
    everyone = lane >= 0
    x = _word(words, 2 * lane, everyone) | (_word(words, 2 * lane + 1, everyone) << 16)
    # The states of all rows: those of a component's last rows rest while there are none.
    taken = 32
    bit = tl.zeros((), tl.int64)
    flags = tl.zeros((16,), tl.int32)
    bound = tl.zeros((), tl.int64)
    for basis in range(bases):
        own = about + basis * 16
        options = data + tl.load(own + 9)
        base = tl.load(own + 10).to(tl.int32)
        for index in range(tl.load(own + 6).to(tl.int32)):
            option = tl.load(options + (index >> 6)).to(tl.int32)
            if option != 255:
                component = base + index
                kind, bits, octaves = classify(option, tl.load(levels + component), step_index)
                counts = tl.load(seconds + component) >= 2 * step_index - 361
                low_at = tl.load(places + component)
                low_second = tl.where(counts, tl.load(places + components + component), -1)
                high_at = tl.load(places + 2 * components + component)
                high_second = tl.where(counts, tl.load(places + 3 * components + component), -1)
                most = tl.zeros((16,), tl.int32)
                for first in range(0, rows, 16):
                    live = first + lane < rows
                    code, x = _symbol(x, live, slots + kind * 4096)
                    x, taken = _refill(x, live, words, taken, count)
                    escapes = live & (code == 16)
                    raw = tl.where(live, tl.where(escapes, 16, bits), 0)
                    total = tl.sum(raw, 0)
                    if total > 0:
                        at = bit + tl.cumsum(raw, 0) - raw
                        byte = at >> 3
                        value = tl.load(raws + byte, mask=byte < raw_bytes, other=0).to(tl.int32)
                        value |= tl.load(raws + byte + 1, mask=byte + 1 < raw_bytes, other=0).to(tl.int32) << 8
                        value |= tl.load(raws + byte + 2, mask=byte + 2 < raw_bytes, other=0).to(tl.int32) << 16
                        value = (value >> (at & 7).to(tl.int32)) & ((1 << raw) - 1)
                        code = tl.where(escapes, tl.where(value >= 32768, value - 65536, value), (code << bits) + value)
                        bit += total
                    code = code << octaves
                    most = tl.maximum(most, tl.where(live, tl.abs(code), 0))
                    line = row + first + lane
                    none = tl.full((16,), -1, tl.int64)
                    flags = flags | _keep(
                        code, live, low, high, line * low_width + low_at,
                        tl.where(low_second >= 0, line * low_width + low_second, none),
                        tl.where(high_at >= 0, line * high_width + high_at, none),
                        tl.where(high_second >= 0, line * high_width + high_second, none),
                    )  # fmt: skip
                bound += tl.max(most, 0)
    left = raw_bytes * 8 - bit
    last = tl.load(raws + raw_bytes - 1, mask=raw_bytes > 0, other=0).to(tl.int32)
    rest = tl.where((left > 0) & (left < 8), last >> (8 - left).to(tl.int32), 0)
    is_whole = (taken == count) & (left >= 0) & (left < 8) & (rest == 0) & (tl.sum((x != 65536).to(tl.int32), 0) == 0)
    tl.store(status + page, tl.max(flags & 1, 0) | tl.max(flags & 2, 0) | tl.where(is_whole, 0, 1))
    tl.store(bounds + page, bound)
