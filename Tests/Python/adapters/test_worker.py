"""The worker's tools without a model: texts, safetensors, RoPE, coding error, and offload and restore against a fake daemon."""

import gzip
import json
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from kvtc import Lookup, Page, Part
from kvtc.adapters import llama_cpp
from kvtc.adapters.llama_cpp.rope import Rope, measured
from kvtc.calibration import safetensors, texts
from kvtc.calibration.sensitivity import coded, divergence, log_probabilities
from kvtc.protocol.messages import PullOutcome, PushOutcome, Residence
from kvtc.protocol.policy import Mode
from kvtc_evaluation.demo.report import Report
from kvtc_evaluation.demo.score import Score, mean

from fake_worker import GEOMETRY, IDENTITY, FakeWorker, filled_worker

# Files


def test_safetensors_come_back_as_written(tmp_path: Path) -> None:
    pieces = {"a": [np.arange(6, dtype="<f2").reshape(2, 3), np.ones((1, 3), "<f2")], "b": [np.array([1, -2], "<i4")]}
    path = tmp_path / "x.safetensors"
    safetensors.write(path, pieces, {"format": "kvtc-samples-1"})
    tensors, metadata = safetensors.read(path)
    assert metadata == {"format": "kvtc-samples-1"}
    assert np.array_equal(tensors["a"], np.concatenate(pieces["a"])) and tensors["b"].tolist() == [1, -2]
    assert path.stat().st_size == 8 + struct.unpack("<Q", path.read_bytes()[:8])[0] + 18 + 8
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"1234567", struct.pack("<Q", 1 << 40), struct.pack("<Q", 64) + b"{}"])
def test_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a safetensors file"):
        safetensors.read(path)


@pytest.mark.parametrize("offsets", [[0, 9], [4, 12], [8, 0], [-8, 0]])
def test_a_tensor_outside_its_file_is_refused(tmp_path: Path, offsets: list[int]) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": offsets}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ValueError, match="tensor a"):
        safetensors.read(path)


# Texts


def test_wrapped_prose_is_joined_and_tables_are_dropped() -> None:
    manual = (
        "Title\n=====\n\nSome words that\nare wrapped.\n\n    Indented words\n    likewise.\n\n"
        "+----+----+\n| a  | b  |\n+----+----+\n\n$ ls\n$ cd /\n"
    )
    assert texts.prose_of(manual) == "Title\n\nSome words that are wrapped.\n\nIndented words likewise.\n\n$ ls\n$ cd /"


@pytest.fixture
def manuals(tmp_path: Path) -> Path:
    for name, relative in texts.MANUALS.items():
        path = tmp_path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress("\n\n".join(f"{name} sentence {i} of this manual." for i in range(9000)).encode()))
    return tmp_path


def test_held_out_texts_share_nothing_with_calibration(manuals: Path) -> None:
    calibration, held_out = texts.calibration_documents(28, root=manuals), texts.held_out_documents(5, root=manuals)
    assert (len(calibration), len(held_out)) == (28, 5)
    assert sum(not document.prose for document in calibration) == 5 and all(document.prose for document in held_out)
    assert all(len(document.text) > 10_000 for document in held_out)
    seen = {line for document in calibration for line in document.text.split("\n\n") if line.endswith("manual.")}
    assert not seen & {line for document in held_out for line in document.text.split("\n\n")[:-1]}
    assert calibration == texts.calibration_documents(28, root=manuals)


def test_missing_manuals_are_named(tmp_path: Path) -> None:
    with pytest.raises(texts.MissingTexts, match="deploy/setup --demo"):
        texts.held_out_documents(1, root=tmp_path)


# Arithmetic


@pytest.mark.parametrize("style", ["interleaved", "half_split"])
@pytest.mark.parametrize(("offset", "dims"), [(0, 8), (0, 4), (4, 4), (0, 0)])
def test_rope_undone_and_redone_is_the_same(style: str, offset: int, dims: int) -> None:
    rope = Rope.geometric(style, offset, dims, 10000.0, 1)
    rows, positions = np.random.default_rng(3).normal(size=(5, 24)).astype(np.float32), np.array([0, 1, 7, 500, 2047])
    turned = rope.turn(rows, positions, 0, 8, 1)
    np.testing.assert_allclose(rope.turn(turned, positions, 0, 8, -1), rows, atol=1e-5)
    np.testing.assert_array_equal(turned[0], rows[0])
    rest = [element for element in range(8) if not offset <= element < offset + dims]
    np.testing.assert_array_equal(turned.reshape(5, 3, 8)[..., rest], rows.reshape(5, 3, 8)[..., rest])
    assert (dims == 0) == np.array_equal(turned, rows)


def test_rope_turns_the_pairs_of_its_style() -> None:
    rows, positions = np.eye(8, dtype=np.float32)[:1], np.array([1])
    interleaved, half_split = (
        Rope.geometric(style, 0, 8, 10000.0, 1).turn(rows, positions, 0, 8, 1)[0] for style in ("interleaved", "half_split")
    )
    assert np.flatnonzero(interleaved).tolist() == [0, 1] and np.flatnonzero(half_split).tolist() == [0, 4]
    np.testing.assert_allclose(interleaved[:2], [np.cos(1), np.sin(1)], atol=1e-6)


@pytest.mark.parametrize("style", ["interleaved", "half_split"])
def test_frequencies_are_found_by_moving_tokens(style: str) -> None:
    """Two layers of 16-bit keys, of which one is turned as the file says; the other's pairs are slower, each by its own factor."""
    named = Rope.geometric(style, 8, 64, 500_000.0, 2)
    slower = tuple(frequency / (1 + pair / 4) for pair, frequency in enumerate(named.frequencies[0]))
    generator = np.random.default_rng(6)
    keys = [generator.normal(size=(32, 2 * 80)).astype(np.float16) for _ in range(2)]

    def engine(rope: Rope) -> Callable[[int], list[np.ndarray]]:
        def shifted(distance: int) -> list[np.ndarray]:
            positions = np.full(32, distance)
            return [rope.turn(rows.astype(np.float32), positions, i, 80, 1).astype(np.float16) for i, rows in enumerate(keys)]

        return shifted

    assert measured(named, keys, engine(named), 80) is named
    other = replace(named, base=None, frequencies=(named.frequencies[0], slower))
    found = measured(named, keys, engine(other), 80)
    assert found.base is None
    # A hundredth of a turn at the end of a context of 128K tokens.
    assert np.abs(np.asarray(found.frequencies) - np.asarray(other.frequencies)).max() * 131072 < 0.02


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_a_coding_error_has_the_energy_asked_for(share: float) -> None:
    rows = (np.random.default_rng(4).normal(size=(400, 12)) * np.geomspace(10, 0.1, 12) + 3).astype(np.float32)
    error = np.square(coded(rows, share) - rows).sum(axis=1).mean()
    assert error == pytest.approx(share * np.square(rows - rows.mean(axis=0)).sum(axis=1).mean(), rel=0.02)


def test_divergence() -> None:
    uniform, sure = log_probabilities(np.zeros((1, 4))), log_probabilities(np.array([[9.0, 0, 0, 0]]))
    assert divergence(uniform, uniform) == 0 and divergence(uniform, sure) > divergence(sure, uniform) > 0
    assert mean([Score(0.1, 1.0, 100), Score(0.4, 0.5, 200)]) == Score(pytest.approx(0.3), pytest.approx(2 / 3), 300)


def test_the_report_writes_the_fields_of_the_issue(tmp_path: Path) -> None:
    report = Report("m", 4, 2048, 47 << 20, 3 << 20, 15.7, 32.0, 0.01, 0.97, 8.0, 0.2, 40.0, True, True, False)
    report.write(tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["ratio_coded"] == 32.0 and written["evicted_to_disk"] is False and "NO" in report.table()


# Offload and restore


@dataclass
class FakeSession:
    """Keeps pages; those in `damaged` are found and then do not come."""

    pages: dict[bytes, bytes] = field(default_factory=dict)
    damaged: set[bytes] = field(default_factory=set)
    page_tokens: int = 16
    profile: bytes = b""
    page_bytes: int = 16 * GEOMETRY.token_bytes
    identity: bytes = IDENTITY.digest
    mode: Mode = Mode.LOSSLESS

    @property
    def client(self) -> "FakeSession":
        return self

    def bounded(self, seconds: float) -> AbstractContextManager[None]:
        return nullcontext()

    def push(self, pages: "list[Page]") -> list[PushOutcome]:
        outcomes = []
        for page in pages:
            assert page.tokens == self.page_tokens and page.first_position % self.page_tokens == 0
            outcomes.append(PushOutcome.PRESENT if page.key in self.pages else PushOutcome.STORED)
            self.pages.setdefault(page.key, bytes(page.data))
        return outcomes

    def lookup(self, keys: list[bytes], lease_ms: int) -> Lookup:
        run = next((i for i, key in enumerate(keys) if key not in self.pages), len(keys))
        return Lookup([Residence.RAW] * run, run, None)

    def pull(self, keys: list[bytes], lease: object) -> list[Part]:
        parts = []
        for index, key in reversed(list(enumerate(keys))):
            hit = key not in self.damaged
            outcome, data = (PullOutcome.HIT, self.pages[key]) if hit else (PullOutcome.CORRUPT, b"")
            parts.append(Part(index, key, outcome, range(2), memoryview(data)))
        return parts


TOKENS = list(range(1000, 1100))


@pytest.fixture
def worker() -> FakeWorker:
    return filled_worker(TOKENS)


def test_what_was_offloaded_is_restored_bit_exactly(worker: FakeWorker) -> None:
    session, second = FakeSession(), FakeWorker()
    done = llama_cpp.offload(session, worker, TOKENS)
    assert (done.pages, done.stored, done.present, done.refused) == (6, 6, 0, 0)
    assert done.raw_bytes == 96 * GEOMETRY.token_bytes
    assert llama_cpp.offload(session, worker, TOKENS, first_page=2).present == 4
    assert llama_cpp.restore(session, second, TOKENS) == 96 == second.position
    for mine, theirs in zip(second.get_state().tensors(), worker.get_state().tensors(), strict=True):
        assert np.array_equal(mine, theirs[:96])


def test_restoring_goes_as_far_as_the_tokens_are_the_same(worker: FakeWorker) -> None:
    session, second = FakeSession(), FakeWorker()
    llama_cpp.offload(session, worker, TOKENS)
    assert llama_cpp.restore(session, second, TOKENS[:40] + [7] + TOKENS[41:]) == 32
    assert llama_cpp.restore(session, second, [7, *TOKENS[1:]]) == 0 and second.state is None
    assert llama_cpp.restore(session, second, TOKENS[:15]) == 0


def test_a_damaged_page_ends_what_is_restored(worker: FakeWorker) -> None:
    session, second = FakeSession(), FakeWorker()
    llama_cpp.offload(session, worker, TOKENS)
    session.damaged = {list(session.pages)[3], list(session.pages)[5]}
    assert llama_cpp.restore(session, second, TOKENS) == 48 == second.position
    # What the worker holds itself is as good, and is kept where it goes further.
    session.damaged = {next(iter(session.pages))}
    assert llama_cpp.restore(session, second, TOKENS) == 48 == second.position
    assert llama_cpp.restore(session, FakeWorker(), TOKENS) == 0


def test_resuming_computes_the_rest_and_at_least_one_token(worker: FakeWorker) -> None:
    session, second = FakeSession(), FakeWorker()
    llama_cpp.offload(session, worker, TOKENS)
    assert llama_cpp.resume(session, second, TOKENS) == "logits" and second.prefilled == TOKENS[96:]
    llama_cpp.resume(session, second, TOKENS[:96])
    assert second.prefilled == [TOKENS[95]] and second.position == 95


def test_a_cache_that_does_not_hold_the_tokens_is_refused(worker: FakeWorker) -> None:
    with pytest.raises(ValueError, match="holds 100 tokens"):
        llama_cpp.offload(FakeSession(), worker, list(range(101)))


def test_the_geometry_declared_is_the_models() -> None:
    geometry = llama_cpp.wire_geometry(GEOMETRY)
    assert len(geometry.tensors) == 4 and geometry.elements() * 2 == GEOMETRY.token_bytes
    assert geometry.rope_tables[0][0] == 1.0 and len(geometry.rope_tables[0]) == 4
