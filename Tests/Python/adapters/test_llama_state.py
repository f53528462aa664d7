"""The parser of llama.cpp's sequence state, on synthetic blobs: no model is needed."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from kvtc.adapters.llama_cpp.blob import StateError
from kvtc.adapters.llama_cpp.state import SequenceState, StateForm, blank_state, build_state, parse_state

HEADER = bytes.fromhex("d83c14af00000000")
LAYERS, CELLS, ROW = 3, 10, 16
ROWS = (ROW,) * LAYERS
FORM = StateForm(HEADER, 8, ((ROWS, ROWS),))


def tensors(seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    bits = generator.integers(0, 1 << 16, (LAYERS, CELLS, ROW), np.uint16)  # NaNs and subnormals included
    return list(bits.view(np.float16))


def blob(gap: int = 8, positions: list[int] | None = None) -> bytes:
    return build_state(positions or list(range(CELLS)), tensors(1), tensors(2), replace(FORM, gap=gap)).to_bytes()


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return np.array_equal(left.view(np.uint16), right.view(np.uint16))


@pytest.mark.parametrize("gap", [0, 4, 8])
def test_round_trip_is_bit_exact(gap: int) -> None:
    state = parse_state(blob(gap))
    assert (state.layers, state.cells, state.form) == (LAYERS, CELLS, replace(FORM, gap=gap))
    assert state.positions.tolist() == list(range(CELLS))
    assert all(same(a, b) for a, b in zip(state.keys + state.values, tensors(1) + tensors(2), strict=True))
    assert state.to_bytes() == blob(gap)
    again = build_state(state.positions.tolist(), state.keys, state.values, state.form)
    assert again.to_bytes() == blob(gap)


def test_a_page_moves_rows_of_every_layer_and_nothing_else() -> None:
    source, target = parse_state(blob()), parse_state(blob())
    for tensor in target.tensors():
        tensor[2:6] = 0
    changed = target.to_bytes()
    target.replace(2, 4, source.page(2, 4))
    assert changed != blob() and target.to_bytes() == blob()
    page = source.page(2, 4)
    assert page.nbytes == 4 * source.token_bytes() == 4 * 2 * LAYERS * ROW * 2
    assert page[: 4 * ROW * 2].tobytes() == source.keys[0][2:6].tobytes()
    assert page[-4 * ROW * 2 :].tobytes() == source.values[-1][2:6].tobytes()


def test_a_copy_does_not_share_memory() -> None:
    state = parse_state(blob())
    state.copy().keys[0][:] = 0
    assert state.to_bytes() == blob()


def test_positions_may_have_holes_but_no_two_cells() -> None:
    holes = [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]
    assert parse_state(blob(positions=holes)).positions.tolist() == holes
    with pytest.raises(StateError, match="positions below zero, or of two cells"):
        parse_state(blob(positions=[0, 1, 2, 2, 4, 5, 6, 7, 8, 9]))


def test_cells_in_any_order_are_read_in_that_of_their_positions() -> None:
    """As an engine leaves them that used freed cells again."""
    order = np.random.default_rng(11).permutation(CELLS)
    keys, values = ([tensor[order] for tensor in tensors(seed)] for seed in (1, 2))
    shuffled = blank_state(range(CELLS), FORM)
    for target, tensor in zip(shuffled.tensors(), keys + values, strict=True):
        target[:] = tensor
    raw = bytearray(shuffled.to_bytes())
    for cell, position in enumerate(order):
        struct.pack_into("<i", raw, CELL_TABLE + 12 * cell, position)
    assert bytes(raw) != blob() and parse_state(bytes(raw)).to_bytes() == blob()


@pytest.mark.parametrize("length", range(0, len(blob()), 97))
def test_a_cut_blob_is_refused(length: int) -> None:
    with pytest.raises(StateError):
        parse_state(blob()[:length])


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(StateError, match="do not hold"):
        parse_state(blob() + bytes(4))


CELL_TABLE, TENSOR_HEADER, FIRST_TENSOR = 16, 16 + 12 * CELLS, 16 + 12 * CELLS + 16


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (8, "<I", 2, "streams"),
        (12, "<I", 0xFFFFFFFF, "cells"),
        (12, "<I", CELLS - 1, "transposed"),
        (CELL_TABLE + 4, "<I", 2, "other than sequence 0"),
        (CELL_TABLE + 8, "<i", 1, "other than sequence 0"),
        (CELL_TABLE, "<i", -1, "positions"),
        (TENSOR_HEADER, "<I", 1, "transposed"),
        (TENSOR_HEADER + 4, "<I", 0, "layers"),
        (TENSOR_HEADER + 4, "<I", LAYERS + 1, "do not hold"),
        (TENSOR_HEADER + 4, "<I", 0xFFFFFFFF, "layers"),
        (TENSOR_HEADER + 8, "<I", 7, "do not hold"),
        (FIRST_TENSOR, "<i", 0, "do not hold"),
        (FIRST_TENSOR + 4, "<Q", (1 << 64) - 2, "do not hold"),
        (FIRST_TENSOR + 4, "<Q", ROW * 2 + 1, "do not hold"),
        (FIRST_TENSOR + 4, "<Q", 0, "do not hold"),
    ],
)
def test_a_wrong_field_is_refused(offset: int, form: str, value: int, message: str) -> None:
    broken = bytearray(blob())
    struct.pack_into(form, broken, offset, value)
    with pytest.raises(StateError, match=message):
        parse_state(bytes(broken))


def test_an_empty_sequence_is_refused() -> None:
    empty = [np.empty((0, ROW), np.float16)] * LAYERS
    with pytest.raises(StateError, match="empty"):
        build_state([], empty, empty, FORM)


def test_tensors_of_another_length_or_type_are_refused() -> None:
    with pytest.raises(StateError, match="cells of f16"):
        build_state(range(CELLS - 1), tensors(1), tensors(2), FORM)
    with pytest.raises(StateError, match="cells of f16"):
        build_state(range(CELLS), [t.astype(np.float32) for t in tensors(1)], tensors(2), FORM)


def test_a_blank_state_takes_pages() -> None:
    source = parse_state(blob())
    state = blank_state(range(CELLS), FORM)
    state.replace(0, 4, source.page(0, 4))
    state.replace(4, 6, source.page(4, 6))
    assert state.to_bytes() == blob()


def test_pages_outside_the_state_or_of_the_wrong_size_are_refused() -> None:
    state = parse_state(blob())
    with pytest.raises(StateError, match="cells"):
        state.page(8, 3)
    with pytest.raises(StateError, match="cells"):
        state.page(-1, 2)
    with pytest.raises(StateError, match="bytes"):
        state.replace(0, 4, state.page(0, 3))


WIDE = (32,) * 2
FORMS = {
    "sliding-window layers in a part of their own": ((ROWS, ROWS), (WIDE, WIDE)),
    "only sliding-window layers": (((), ()), (ROWS, ROWS)),
    "latents without values": ((ROWS, ()),),
    "values of another width": ((ROWS, (8,) * LAYERS),),
}


@pytest.mark.parametrize("parts", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("gap", [0, 8])
def test_other_forms_are_read_and_written(parts: tuple, gap: int) -> None:
    form, generator = StateForm(HEADER, gap, parts), np.random.default_rng(4)
    state = blank_state(range(CELLS), form)
    for tensor in state.tensors():
        tensor[:] = generator.normal(size=tensor.shape)
    again = parse_state(state.to_bytes())
    assert again.form == form and again.to_bytes() == state.to_bytes()
    assert all(same(a, b) for a, b in zip(again.tensors(), state.tensors(), strict=True))
    assert [rows.shape[1] for rows in again.keys] == [width for keys, _ in parts for width in keys]
    # A page moves through it as through any other.
    target = blank_state(range(CELLS), form)
    for first in (0, 5):
        target.replace(first, 5, again.page(first, 5))
    assert target.to_bytes() == state.to_bytes()
    for length in range(0, len(state.to_bytes()), 31):
        with pytest.raises(StateError):
            parse_state(state.to_bytes()[:length])


def test_rows_that_a_window_let_go_come_from_the_state_before() -> None:
    """Sliding-window layers have the last cells only; what went before is in an earlier state, or the blob is refused."""
    form = StateForm(HEADER, 8, ((ROWS, ROWS), (WIDE, WIDE)))
    whole, generator = blank_state(range(CELLS), form), np.random.default_rng(4)
    for tensor in whole.tensors():
        tensor[:] = generator.normal(size=tensor.shape)

    def part(state: SequenceState, begin: int, index: int) -> bytes:
        keys, values = (rows[:LAYERS] if index == 0 else rows[LAYERS:] for rows in (state.keys, state.values))
        own = replace(form, parts=(form.parts[index],))
        positions = state.positions[begin:].tolist()
        return build_state(positions, [k[begin:] for k in keys], [v[begin:] for v in values], own).to_bytes()[8:]

    blob = HEADER + part(whole, 0, 0) + part(whole, 6, 1)
    with pytest.raises(StateError, match=f"keep the last {CELLS - 6} of {CELLS} tokens"):
        parse_state(blob)
    with pytest.raises(StateError, match="keep the last"):
        parse_state(blob, whole.first(5))
    assert parse_state(blob, whole.first(6)).to_bytes() == whole.to_bytes()
    assert parse_state(blob, whole).to_bytes() == whole.to_bytes()
    others = HEADER + part(whole, 0, 0) + build_state([*range(1, CELLS + 1)], tensors(1), tensors(2), FORM).to_bytes()[8:]
    with pytest.raises(StateError, match="do not hold"):
        parse_state(others, whole)
