"""A llama.cpp worker knows what its cache holds and by what it was computed, and errors leave it usable."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

from kvtc.adapters.engine import TokenError
from kvtc.adapters.llama_cpp.context import SEQUENCE
from kvtc.adapters.llama_cpp.files import ModelFiles, model_files
from kvtc.adapters.llama_cpp.library import LlamaError
from kvtc.adapters.llama_cpp.worker import LlamaWorker

from random_models import VOCABULARY, WINDOW, write, write_adapter

CONTEXT = 256
TOKENS = np.random.default_rng(8).integers(0, VOCABULARY, 400).tolist()


def opened(path: Path) -> LlamaWorker:
    return LlamaWorker(path, context=CONTEXT, threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.gguf"
    write(path, "llama")
    return path


@pytest.fixture(scope="module")
def shared(model: Path) -> Iterator[LlamaWorker]:
    with opened(model) as worker:
        yield worker


@pytest.fixture
def worker(shared: LlamaWorker) -> LlamaWorker:
    shared.set_adapters({})
    shared.clear()
    return shared


def shift(worker: LlamaWorker, begin: int, end: int, distance: int) -> None:
    """A context shift, as programs beside this package do it: cells go, and those after them move, their keys turned."""
    assert worker._library.llama_memory_seq_rm(worker._memory, SEQUENCE, begin, end)
    if distance:
        move(worker, end, -1, distance)


def move(worker: LlamaWorker, begin: int, end: int, distance: int) -> None:
    """Gives the cells of those positions others, as programs beside this package do."""
    worker._library.llama_memory_seq_add(worker._memory, SEQUENCE, begin, end, distance)


MOVES = {
    "all by one": [(0, -1, 1)],
    "a gap of one": [(50, -1, 1)],
    "the last by one": [(63, -1, 1)],
    "halves swapped": [(0, 32, 64), (32, -1, -32)],
    "neighbours swapped": [(10, 11, 100), (11, 12, -1), (110, 111, -99)],
    "two at one position": [(20, 21, 1)],
}
"""Of 64 cells; the numbers of cells stay, and mostly the end of the sequence."""


# Tokens and positions


@pytest.mark.parametrize(
    "tokens",
    [[1.0], [[1, 2]], [-1], [VOCABULARY], [2**32 + 5], [2**70], ["a"], None, "text", [None], range(CONTEXT + 1)],
    ids=str,
)
@pytest.mark.parametrize("act", [LlamaWorker.prefill, LlamaWorker.score], ids=["prefill", "score"])
def test_what_are_no_tokens_is_refused_before_anything_is_computed(worker: LlamaWorker, act: Callable, tokens: object) -> None:
    worker.prefill(TOKENS[:10])
    before = worker.get_state().to_bytes()
    with pytest.raises(TokenError):
        act(worker, tokens)
    assert worker.position == 10 and worker.get_state().to_bytes() == before and worker.matching(TOKENS) == 10


def test_no_tokens_have_no_logits(worker: LlamaWorker) -> None:
    worker.prefill(TOKENS[:10])
    with pytest.raises(TokenError, match="no tokens to compute"):
        worker.prefill([])
    with pytest.raises(ValueError, match="cannot skip -1"):
        worker.score(TOKENS[:3], skip=-1)
    assert worker.score([]).shape == (0, VOCABULARY) and worker.position == worker.matching(TOKENS) == 10


def test_tokens_beyond_the_context_leave_what_was_there(worker: LlamaWorker) -> None:
    worker.prefill(TOKENS[: CONTEXT - 20])
    with pytest.raises(TokenError, match=f"do not fit a context of {CONTEXT}"):
        worker.prefill(TOKENS[:21])
    assert worker.position == worker.matching(TOKENS) == CONTEXT - 20
    worker.prefill(TOKENS[CONTEXT - 20 : CONTEXT])
    assert worker.position == worker.matching(TOKENS) == CONTEXT


@pytest.mark.parametrize(("position", "error"), [(-1, ValueError), (-300, ValueError), (1.5, TypeError), ("1", TypeError)])
def test_a_cut_below_zero_is_refused(worker: LlamaWorker, position: object, error: type[Exception]) -> None:
    worker.prefill(TOKENS[:10])
    with pytest.raises(error):
        worker.truncate(position)  # type: ignore[arg-type]
    assert worker.position == worker.matching(TOKENS) == 10


def test_a_cut_is_what_was_computed_up_to_there(worker: LlamaWorker) -> None:
    worker.prefill(TOKENS[:50])
    for position, left in ((60, 50), (50, 50), (20, 20), (0, 0)):
        worker.truncate(position)
        assert worker.position == worker.matching(TOKENS) == left
    worker.prefill(TOKENS[:30])
    assert worker.position == worker.matching(TOKENS) == 30


def test_a_batch_that_fails_in_the_middle_of_a_prefill_leaves_the_part_before(model: Path, monkeypatch) -> None:
    with LlamaWorker(model, context=CONTEXT, batch=32, threads=1) as worker:
        decode, calls = worker._library.llama_decode, []

        def failing(*arguments: object) -> int:
            calls.append(arguments)
            # As an aborted computation: the batch's cells are there, its rows are not.
            return decode(*arguments) or (2 if len(calls) == 3 else 0)

        monkeypatch.setattr(worker._library, "llama_decode", failing)
        with pytest.raises(LlamaError, match="answered 2 at position 64"):
            worker.prefill(TOKENS[:100])
        assert worker.position == worker.matching(TOKENS) == 64 and not worker.doubt
        worker.prefill(TOKENS[64:100])
        assert worker.position == worker.matching(TOKENS) == 100


def test_every_way_to_append_is_recorded(worker: LlamaWorker) -> None:
    logits = worker.prefill(np.array(TOKENS[:20]))
    generated = list(worker.generate(logits, 5))
    worker.score(TOKENS[20:30], skip=3)
    assert worker.origin and list(worker.origin.tokens) == [*TOKENS[:20], *generated, *TOKENS[20:30]]
    state = worker.get_state()
    assert state.origin == worker.origin and state.origin.identity == worker.identity.digest
    worker.clear()
    assert worker.position == worker.matching(TOKENS) == 0
    worker.set_state(state.first(22))
    assert worker.origin and list(worker.origin.tokens) == [*TOKENS[:20], *generated[:2]]


def test_cells_that_were_used_again_are_read_in_order(worker: LlamaWorker) -> None:
    worker.prefill(TOKENS[:250])
    worker.truncate(100)
    # The engine goes on behind the freed cells, and then from the start of its memory.
    worker.prefill(TOKENS[300:350])
    state = worker.get_state()
    assert state.positions.tolist() == list(range(150)) and worker.origin
    following = worker.score(TOKENS[:20])
    worker.set_state(state)
    assert np.array_equal(worker.score(TOKENS[:20]), following)


@pytest.mark.parametrize(
    ("begin", "end", "distance"), [(10, 74, -64), (0, 20, -20), (10, 74, 0), (0, 20, 0), (150, 180, -30), (199, 200, 0)]
)
def test_cells_that_others_moved_are_no_computed_sequence(worker: LlamaWorker, begin: int, end: int, distance: int) -> None:
    worker.prefill(TOKENS[:200])
    shift(worker, begin, end, distance)
    assert worker.origin is None and worker.matching(TOKENS) == 0 and "shifted or removed" in worker.doubt
    worker.prefill(TOKENS[200:201])
    # Also when as many tokens follow as there were.
    worker.prefill(TOKENS[: 200 - worker.position] if worker.position < 200 else [1])
    assert worker.origin is None and worker.get_state().origin is None
    worker.clear()
    worker.prefill(TOKENS[:20])
    assert worker.matching(TOKENS) == 20 and not worker.doubt


@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_every_cell_is_at_the_position_of_its_token(tmp_path: Path, architecture: str, moves: list[tuple[int, int, int]]) -> None:
    path = tmp_path / "model.gguf"
    write(path, architecture)
    with opened(path) as worker:
        worker.prefill(TOKENS[:64])
        assert worker.matching(TOKENS) == 64
        for begin, end, distance in moves:
            move(worker, begin, end, distance)
        assert worker.origin is None and worker.matching(TOKENS) == 0 and worker.doubt
        worker.clear()
        worker.prefill(TOKENS[:64])
        assert worker.matching(TOKENS) == 64 and not worker.doubt


def test_a_cut_does_not_hide_that_cells_moved(worker: LlamaWorker) -> None:
    worker.prefill(TOKENS[:64])
    move(worker, 0, -1, 1)
    worker.truncate(64)
    assert worker.position == 64 and worker.matching(TOKENS) == 0


def test_a_state_of_unknown_tokens_is_one_of_none(worker: LlamaWorker) -> None:
    worker.prefill(TOKENS[:20])
    state = worker.get_state()
    worker.set_state(state.to_bytes())
    assert worker.position == 20 and worker.matching(TOKENS) == 0 and "does not say which tokens" in worker.doubt
    worker.set_state(state)
    assert worker.matching(TOKENS) == 20 and not worker.doubt


def test_a_cut_behind_a_sliding_window_keeps_what_the_next_token_sees(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, "gemma2")
    with opened(path) as first, opened(path) as second:
        first.prefill(TOKENS[: 3 * WINDOW])
        for position in (2 * WINDOW + 3, WINDOW + 5, 7):
            first.truncate(position)
            assert first.position == first.matching(TOKENS) == position
            second.clear()
            for begin in range(0, position, WINDOW):
                second.prefill(TOKENS[begin : min(begin + WINDOW, position)])
            np.testing.assert_allclose(first.score(TOKENS[:10]), second.score(TOKENS[:10]), atol=2e-3)
            first.truncate(position)


def test_a_closed_worker_says_so(model: Path) -> None:
    worker = opened(model)
    worker.close()
    worker.close()
    for act in (worker.clear, worker.get_state, lambda: worker.prefill([1]), lambda: worker.truncate(0), lambda: worker.matching([1])):
        with pytest.raises(LlamaError, match="closed"):
            act()


# Identity


def test_weights_are_named_by_their_content(model: Path, tmp_path: Path, worker: LlamaWorker) -> None:
    copy, other, quantised = tmp_path / "copy.gguf", tmp_path / "other" / "model.gguf", tmp_path / "same-name.gguf"
    other.parent.mkdir()
    shutil.copy(model, copy)
    write(other, "llama", seed=9)
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    quantised.write_bytes(content)
    with opened(copy) as same, opened(other) as fresh, opened(quantised) as changed:
        assert same.identity == worker.identity and fresh.geometry == worker.geometry
        assert len({one.identity.digest for one in (same, fresh, changed)}) == 3


def test_weights_that_are_written_over_while_they_are_mapped_are_others(model: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "model.gguf", tmp_path / "other.gguf"
    shutil.copy(model, path)
    write(other, "llama", seed=9)
    with opened(path) as worker:
        worker.prefill(TOKENS[:20])
        before = worker.identity
        os.utime(path)
        assert worker.identity == before and worker.matching(TOKENS) == 20
        # Another file under the name leaves what is mapped.
        path.rename(tmp_path / "old.gguf")
        shutil.copy(other, path)
        assert worker.identity == before and worker.matching(TOKENS) == 20
        shutil.copyfile(other, tmp_path / "old.gguf")
        assert worker.identity != before and worker.matching(TOKENS) == 0
        with opened(path) as fresh:
            assert fresh.identity == worker.identity


def test_a_model_in_several_files_is_all_of_them(tmp_path: Path) -> None:
    paths = [tmp_path / f"big-{index:05d}-of-00003.gguf" for index in (1, 2, 3)]
    for index, path in enumerate(paths):
        path.write_bytes(bytes([index]) * 100)
    assert model_files(paths[0]) == paths and model_files(tmp_path / "plain.gguf") == [tmp_path / "plain.gguf"]
    whole = ModelFiles(paths)
    before = whole.digest()
    whole.check()
    paths[2].write_bytes(b"other")
    with pytest.raises(LlamaError, match="changed while it was loaded"):
        whole.check()
    assert whole.digest() != before
    whole.close()


def test_the_element_type_of_the_cache_is_part_of_it(worker: LlamaWorker) -> None:
    other = worker.sibling("q8_0")
    assert other.identity != worker.identity and other.position == 0
    other.prefill(TOKENS[:10])
    assert (other.position, worker.position) == (10, 0)
    other.close()


@pytest.fixture
def adapters(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    for seed, path in enumerate(paths):
        write_adapter(path, seed)
    return paths


def test_adapters_and_their_scales_are_part_of_it(worker: LlamaWorker, adapters: list[Path]) -> None:
    a, b = adapters
    rows, identities = [], []
    for choice in ({}, {a: 1.0}, {a: 0.5}, {b: 1.0}, {a: 1.0, b: 1.0}, {a: 1.0, b: 0.5}):
        worker.set_adapters(choice)
        identities.append(worker.identity.digest)
        worker.prefill(TOKENS[:20])
        rows.append(worker.get_state().to_bytes())
    assert len(set(identities)) == len(set(rows)) == 6
    # However they came about, equal ones are the same.
    worker.set_adapters({str(b): 1, str(a): np.float32(1)})
    assert worker.identity.digest == identities[4]
    worker.prefill(TOKENS[:20])
    assert worker.get_state().to_bytes() == rows[4]
    worker.set_adapters({a: 0.0})
    assert worker.identity.digest == identities[0]
    worker.prefill(TOKENS[:20])
    assert worker.get_state().to_bytes() == rows[0]


def test_a_change_of_adapters_forgets_the_sequence(worker: LlamaWorker, adapters: list[Path]) -> None:
    worker.prefill(TOKENS[:20])
    worker.set_adapters({})
    assert worker.position == 20
    worker.set_adapters({adapters[0]: 1.0})
    assert worker.position == 0
    worker.prefill(TOKENS[:20])
    # An adapter trained on goes by its old name.
    write_adapter(adapters[0], 7)
    before = worker.identity
    worker.set_adapters({adapters[0]: 1.0})
    assert worker.position == 0 and worker.identity != before


def test_a_cache_of_other_adapters_is_none_of_these(worker: LlamaWorker, adapters: list[Path]) -> None:
    worker.prefill(TOKENS[:20])
    plain = worker.get_state()
    worker.set_adapters({adapters[0]: 1.0})
    worker.set_state(plain)
    assert worker.position == 20 and worker.matching(TOKENS) == 0
    worker.prefill(TOKENS[20:25])
    assert "different weights or adapters" in worker.doubt


def test_adapters_that_cannot_be_used_change_nothing(worker: LlamaWorker, adapters: list[Path], model: Path, tmp_path: Path) -> None:
    worker.set_adapters({adapters[0]: 1.0})
    worker.prefill(TOKENS[:20])
    before = worker.identity
    copy = tmp_path / "copy.gguf"
    shutil.copy(adapters[0], copy)
    for wrong, error in (
        ({tmp_path / "missing.gguf": 1.0}, LlamaError),
        ({model: 1.0}, LlamaError),
        ({adapters[1]: float("nan")}, ValueError),
        ({adapters[0]: 1.0, copy: 1.0}, ValueError),
    ):
        with pytest.raises(error):
            worker.set_adapters(wrong)
        assert worker.identity == before and worker.position == worker.matching(TOKENS) == 20


def test_a_sibling_begins_with_the_same_adapters(worker: LlamaWorker, adapters: list[Path]) -> None:
    worker.set_adapters({adapters[0]: 1.0})
    other = worker.sibling("f16")
    for one in (worker, other):
        one.prefill(TOKENS[:20])
    assert other.identity == worker.identity and other.get_state().to_bytes() == worker.get_state().to_bytes()
    other.close()
