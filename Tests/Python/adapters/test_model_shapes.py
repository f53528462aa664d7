"""What engines keep of models of several shapes, through llama.cpp and a real daemon: small random models, written as GGUF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

from kvtc.adapters import llama_cpp
from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.protocol.policy import Policy

from random_models import LATENT, LAYERS, TURNED, VOCABULARY, WINDOW, write

TOKENS = np.random.default_rng(8).integers(0, VOCABULARY, 60).tolist()
KEPT = 48


def opened(path: Path) -> LlamaWorker:
    return LlamaWorker(path, context=256, threads=1)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("llama", {}), ("llama", {"factors": True}), ("llama", {"yarn": 4.0}), ("qwen3", {}), ("gemma2", {}), ("deepseek2", {})],
    ids=["plain", "factors", "yarn", "long heads", "two parts", "latents"],
)
def test_a_conversation_goes_on_exactly(make_daemon, tmp_path: Path, architecture: str, options: dict) -> None:
    daemon, path = make_daemon(), tmp_path / "model.gguf"
    write(path, architecture, **options)
    policy = Policy(mode="lossless", window=0)
    with opened(path) as first, opened(path) as second, daemon.connect() as client:
        first.prefill(TOKENS[:KEPT])
        with llama_cpp.open_session(client, first, "shape", page_tokens=16, policy=policy) as session:
            assert llama_cpp.offload(session, first, TOKENS[:KEPT]).stored == 3
            client.flush()
            assert llama_cpp.restore(session, second, TOKENS[:KEPT]) == KEPT
        mine, theirs = first.get_state(), second.get_state()
        assert mine.to_bytes() == theirs.to_bytes()
        # A worker that has prefilled the same in pieces of its own would differ in rounding; this one has the very same cache.
        assert np.array_equal(first.score(TOKENS[KEPT:]), second.score(TOKENS[KEPT:]))


def test_frequencies_are_what_the_engine_uses(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    plain = 5000.0 ** (-np.arange(0, 32, 2) / 32)
    write(path, "llama")
    with opened(path) as worker:
        assert worker.geometry.rope.base == 5000.0
        np.testing.assert_allclose(worker.geometry.rope.frequencies, [plain] * LAYERS, rtol=1e-6)
    write(path, "llama", factors=True)
    with opened(path) as worker:
        assert worker.geometry.rope.base is None
        expected = plain / np.linspace(1, 8, 16)
        np.testing.assert_allclose(worker.geometry.rope.frequencies, [expected] * LAYERS, atol=1e-7)
    write(path, "llama", yarn=4.0)
    with opened(path) as worker:
        (frequencies, _) = worker.geometry.rope.frequencies
        # The fastest pairs as they were, the slowest four times slower (YaRN, section 3.2).
        assert frequencies[0] == pytest.approx(1) and frequencies[-1] == pytest.approx(plain[-1] / 4, rel=1e-3)
        # Undone, a token's key in the first layer is the same wherever it stands.
        worker.prefill([5] * 200)
        keys, positions = worker.get_state().keys[0].astype(np.float32), np.arange(200)
        still = worker.geometry.turn(keys, positions, 0, -1)
        assert np.abs(still - still[0]).max() < 0.01 * np.abs(still).max() < 0.1 * np.abs(keys - keys[0]).max()


def test_latents_are_one_stream_and_a_turned_part(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, "deepseek2")
    with opened(path) as worker:
        geometry = worker.geometry
        assert (geometry.heads, geometry.head_dim, geometry.value_dim) == (1, LATENT + TURNED, 0)
        assert (geometry.rope.offset, geometry.rope.dims) == (LATENT, TURNED) and geometry.is_latent


def test_what_sliding_window_layers_let_go_is_kept(make_daemon, tmp_path: Path) -> None:
    """Any beginning of a context that is longer than the window can be resumed, with the predictions that it had."""
    daemon, path = make_daemon(), tmp_path / "model.gguf"
    write(path, "gemma2")
    tokens = np.random.default_rng(9).integers(0, VOCABULARY, 3 * WINDOW).tolist()
    with opened(path) as first, opened(path) as second, daemon.connect() as client:
        first.prefill(tokens[:20])
        for token in tokens[20 : 2 * WINDOW]:
            first.prefill([token])
        first.prefill(tokens[2 * WINDOW :])
        whole = first.get_state()
        assert whole.cells == len(tokens) and [len(keys) for keys, _ in whole.form.parts] == [1, 1]
        with llama_cpp.open_session(client, first, "window", page_tokens=16) as session:
            assert llama_cpp.offload(session, first, tokens).stored == len(tokens) // 16
            for length in (len(tokens), 2 * WINDOW, WINDOW + 16):
                assert llama_cpp.restore(session, second, tokens[:length]) == length
                assert second.get_state().to_bytes() == whole.first(length).to_bytes()
                following = tokens[:30]
                first.truncate(length)
                assert np.array_equal(second.score(following), first.score(following))
