"""Blocks decode to the daemon's bits, wherever the engine wants them."""

import pytest

pytest.importorskip("xxhash", reason="runs in an environment of its own: deploy/setup --with gpu")

import struct

import numpy as np
import torch
import xxhash
from golden import FILES, TOKENS, content, decoder, empty_cache, rows_in

from kvtc.gpu import BadBlock, Decoder, NotExact, reference, resident, selftest
from kvtc.protocol.geometry import Element, Role

SLOTS = np.array([4, 5, 6, 7, 13, 1, 0, 3])
CASES = [(name, case) for name in FILES for case in content(name)[1]]


@pytest.mark.parametrize("name,case", CASES)
def test_golden_blocks_decode_to_the_daemon_s_bits(name, case):
    profile, cases = content(name)
    block, rows = cases[case]
    cache = empty_cache(profile, fill=7.0)
    assert decoder(name).restore([block], [SLOTS], cache).failed == {}
    assert np.array_equal(rows_in(profile, cache, SLOTS), rows)
    # Nothing else is touched.
    others = [slot for slot in range(16) if slot not in SLOTS]
    assert (rows_in(profile, cache, others) == rows_in(profile, empty_cache(profile, fill=7.0), others)).all()


def made(profile, position, rows, rank, step_index, seed, **shape):
    """A block of version 2 and its codes."""
    random = np.random.default_rng(seed)
    codes = []
    for basis in profile.bases:
        deviation = 2.0 ** ((basis.levels[:rank].astype(float) - step_index) / 64)
        codes.append(np.rint(random.normal(0, 1, (rank, rows)) * deviation[:, None]).astype(np.int64))
    return reference.block(profile, codes, step_index, position, Element.F16, **shape), codes


def expected(profile, codes, step_index, position):
    step = float(np.float32(2.0 ** (step_index / 64)))
    tensors = range(len(profile.geometry.tensors))
    return np.concatenate([reference.decode(profile, codes, step, step_index, position, Element.F16, n) for n in tensors], 1).view(np.int16)


def test_the_reference_is_the_daemon_s_arithmetic():
    """A golden block's rows, from its codes as the device decodes them."""
    profile, cases = content("blocks-3.json")
    block, rows = cases["kvtc, rows [3] protected"]
    from kvtc.gpu import blocks, published

    parsed = blocks.parse(memoryview(block), profile)
    codes = published.codes(parsed, profile.bases)
    # Positions go on behind the protected row: before it, the reference has them all.
    found = expected_at(profile, codes, parsed)
    assert np.array_equal(found[:3], rows[:3])


def expected_at(profile, codes, parsed):
    tensors = range(len(profile.geometry.tensors))
    parts = [reference.decode(profile, codes, parsed.step, -(1 << 28), parsed.first_position, Element.F16, n) for n in tensors]
    return np.concatenate(parts, 1).view(np.int16)


def test_layers_wait_for_the_symbols_of_their_own_basis_only():
    name = "blocks-4.json"
    profile, cases = content(name)
    assert [basis.ranges for basis in profile.bases] == [[(0, 192), (384, 576)], [(192, 384), (576, 768)]]
    good, rows = cases["transform, 3 chunks of 5 states"]
    # The last word is of the second basis: its section contradicts itself, and the first one's does not.
    bad = bytearray(good)
    bad[-1] ^= 1
    reached, cache, second = [], empty_cache(profile, slots=32), SLOTS + 16
    result = decoder(name).restore([sealed(bad), good], [second, SLOTS], cache, reached=lambda layer, event: reached.append(layer))

    def untouched(slots, layer):
        return all((cache[layer, role][np.asarray(slots) // 4, :, np.asarray(slots) % 4] == 0).all() for role in (Role.KEY, Role.VALUE))

    assert list(result.failed) == [0] and reached == [0, 1]
    assert np.array_equal(rows_in(profile, cache, SLOTS), rows)
    assert untouched(second, 1) and not untouched(second, 0)


@pytest.mark.parametrize("product", ["int8", "library", "floats"])
def test_blocks_of_all_kinds_decode_together_and_a_bad_one_is_a_miss(product, monkeypatch):
    monkeypatch.setattr("kvtc.gpu.inverse._LIBRARY", 1)
    profile, cases = content("blocks-2.json")
    first, first_rows = cases["transform, rows [0, 7] protected"]
    lossless, lossless_rows = cases["lossless, rows [] protected"]
    fine, fine_codes = made(profile, 100, 5, 20, -200, 1, lanes=8, chunks=2)
    coarse, coarse_codes = made(profile, 200, 3, 40, 20, 2, lanes=32, chunks=1)
    bad = bytearray(fine)
    bad[-1] ^= 1
    blocks = [first, bad, fine, lossless, coarse]
    counts = [TOKENS, 5, 5, TOKENS, 3]
    slots = np.split(np.random.default_rng(3).permutation(32)[: sum(counts)], np.cumsum(counts)[:-1])
    cache = empty_cache(profile, slots=32)
    # Few rows at a time, so that there are several parts.
    result = Decoder(profile, "cpu", Element.F16, product=product, rows=12).restore(blocks, slots, cache)
    assert list(result.failed) == [1] and "checksum" in str(result.failed[1])
    assert (rows_in(profile, cache, slots[1]) == 0).all()
    wanted = [first_rows, None, expected(profile, fine_codes, -200, 100), lossless_rows, expected(profile, coarse_codes, 20, 200)]
    for own, rows in zip(slots, wanted):
        assert rows is None or np.array_equal(rows_in(profile, cache, own), rows)


def test_a_code_far_from_what_was_calibrated_finds_room():
    profile, _ = content("blocks-2.json")
    _, codes = made(profile, 0, 4, 24, 20, 4, lanes=1, chunks=1)
    codes[0][-1, 2] = -9000
    block = reference.block(profile, codes, 20, 0, Element.F16, lanes=16, chunks=1)
    cache = empty_cache(profile)
    assert decoder("blocks-2.json").restore([block], [SLOTS[:4]], cache).failed == {}
    assert np.array_equal(rows_in(profile, cache, SLOTS[:4]), expected(profile, codes, 20, 0))


def test_sums_beyond_what_integers_hold_are_refused():
    profile, _ = content("blocks-2.json")
    codes = [np.full((40, 1), 16_000, np.int64)]
    fits = reference.block(profile, codes, 20, 0, Element.F16, lanes=32, chunks=1)
    assert decoder("blocks-2.json").restore([fits], [SLOTS[:1]], empty_cache(profile)).failed == {}
    # Octaves count: as if each group were coded with eight times the step, 16 000 leaves 16 bits.
    options = bytearray(fits)
    options[104 + 12] = 3
    failed = decoder("blocks-2.json").restore([sealed(options)], [SLOTS[:1]], empty_cache(profile)).failed
    assert list(failed) == [0]


def sealed(block):
    """With checksums that fit."""
    block = bytearray(block)
    struct.pack_into("<Q", block, 88, xxhash.xxh3_64_intdigest(bytes(block[104:])))
    struct.pack_into("<Q", block, 96, xxhash.xxh3_64_intdigest(bytes(block[:96])))
    return bytes(block)


@pytest.mark.parametrize("version", [1, 2])
def test_hostile_sections_are_refused_or_decoded_but_do_no_harm(version):
    profile, cases = content("blocks-2.json")
    good = cases["transform, rows [] protected"][0] if version == 1 else made(profile, 0, TOKENS, 12, 0, 5, lanes=4, chunks=3)[0]
    random = np.random.default_rng(6)
    hostile = []
    for _ in range(12):
        block = bytearray(good)
        for _ in range(random.integers(1, 4)):
            block[104 + random.integers(0, 48)] = random.integers(0, 256)
        hostile.append(sealed(block))
    cache = empty_cache(profile)
    untouched = empty_cache(profile)
    failed = decoder("blocks-2.json").restore(hostile, [SLOTS] * 12, cache).failed
    assert all(isinstance(error, BadBlock) for error in failed.values()) and len(failed) > 5
    only_bad = decoder("blocks-2.json").restore([hostile[index] for index in failed], [SLOTS] * len(failed), untouched)
    assert len(only_bad.failed) == len(failed) and all((view == 0).all() for view in untouched.values())


def test_caches_have_whatever_strides_and_lack_what_they_like():
    name = "blocks-2.json"
    profile, cases = content(name)
    block, rows = cases["transform, rows [0, 7] protected"]
    blocks, heads, tokens, width = 4, 3, 4, 64
    # vLLM's: K and V of a token side by side; on processors K as [head_dim][tokens].
    beside = torch.zeros((blocks, heads, tokens, 2 * width), dtype=torch.float16)
    halves = torch.zeros((blocks, heads, 2, tokens * width), dtype=torch.float16)
    cache = {
        (0, Role.KEY): beside[..., :width],
        (0, Role.VALUE): beside[..., width:],
        (1, Role.KEY): halves[:, :, 0].unflatten(-1, (width, tokens)).transpose(-1, -2),
        (1, Role.VALUE): halves[:, :, 1].unflatten(-1, (tokens, width)),
    }
    assert decoder(name).restore([block], [SLOTS], cache).failed == {}
    assert np.array_equal(rows_in(profile, cache, SLOTS), rows)
    # A pipeline's rank has one layer, and the engine wants some tokens only.
    some, wanted = {key: view for key, view in empty_cache(profile).items() if key[0] == 1}, SLOTS.copy()
    wanted[[2, 7]] = -1
    assert decoder(name).restore([block], [wanted], some).failed == {}
    for role in (Role.KEY, Role.VALUE):
        view, own = some[1, role].view(torch.int16), cache[1, role].reshape(blocks, heads, tokens, width).view(torch.int16)
        for slot in range(16):
            there = own[slot // 4, :, slot % 4] if slot in wanted else torch.zeros((heads, width), dtype=torch.int16)
            assert torch.equal(view[slot // 4, :, slot % 4], there)


def test_caches_that_are_not_the_profile_s_are_refused_before_anything_is_written():
    name = "blocks-2.json"
    profile, cases = content(name)
    block, _ = cases["transform, rows [] protected"]
    cache = empty_cache(profile)
    with pytest.raises(ValueError, match="beyond the 16"):
        decoder(name).restore([block], [SLOTS + 8], cache)
    narrow = {name: view[:, :2] for name, view in cache.items()}
    with pytest.raises(ValueError, match=r"layer 0 is \[4, 2, 4, 64\], not \[blocks, 3, tokens, 64\]"):
        decoder(name).restore([block], [SLOTS], narrow)
    assert all((view == 0).all() for view in cache.values())


def test_what_cannot_be_decoded_says_why():
    name = "blocks-2.json"
    profile, cases = content(name)
    block, _ = cases["transform, rows [] protected"]
    cache = empty_cache(profile)
    other, _ = content("blocks-3.json")[1]["transform, rows [] protected"]
    short = Decoder(profile, "cpu", Element.F16, rank=16)
    assert "16 are kept" in str(short.restore([block], [SLOTS], cache).failed[0])
    assert "profile" in str(decoder(name).restore([other], [SLOTS], cache).failed[0])
    assert "tokens" in str(decoder(name).restore([block], [SLOTS[:3]], cache).failed[0])
    assert "header" in str(decoder(name).restore([block[:50]], [SLOTS], cache).failed[0])
    with pytest.raises(ValueError, match="BF16"):
        decoder(name).restore([block], [SLOTS], empty_cache(profile, dtype=torch.bfloat16))
    # A raw page of the daemon's may have no checksum of its payload: whoever pulled it has one of the whole.
    raw = bytearray(cases["raw, rows [] protected"][0])
    struct.pack_into("<Q", raw, 88, 0)
    struct.pack_into("<Q", raw, 96, xxhash.xxh3_64_intdigest(bytes(raw[:96])))
    assert "checksum" in str(decoder(name).restore([raw], [SLOTS], cache).failed[0])
    assert decoder(name).restore([raw], [SLOTS], cache, is_verified=True).failed == {}


@pytest.mark.parametrize("element", list(Element))
def test_every_element_type_is_the_reference_s(element):
    Decoder(content("blocks-3.json")[0], "cpu", element)


def test_a_toolchain_that_gives_other_bits_is_refused(monkeypatch):
    decode = reference.decode
    monkeypatch.setattr(selftest.reference, "decode", lambda *arguments: decode(*arguments) ^ 1)
    with pytest.raises(NotExact, match="torch"):
        Decoder(content("blocks-2.json")[0], "cpu", Element.F16)


def test_memory_is_what_is_said():
    name = "blocks-3.json"
    profile, whole = content(name)[0], decoder(name)
    digits = sum(strip.digits.numel() for strips in whole.resident.layers.values() for strip in strips)
    assert digits < whole.resident.bytes < digits + (4 << 20)
    # Planes are cut to the components in use.
    cut = resident.Resident(profile, torch.device("cpu"), rank=8)
    assert [used.count for used in cut.planes] < [used.count for used in whole.resident.planes] and max(cut.widths) <= max(whole.resident.widths)
    assert whole.memory(64) < whole.memory() == whole.memory(1 << 20)
