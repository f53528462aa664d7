"""Derivatives by the cache: against finite differences, on a small random model, where JAX is installed."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("gguf")

from kvtc.calibration.gradient_model import GradientModel, NoGradients, Shape, _predict
from kvtc.calibration.gradients import Plan, _Scale
from kvtc.calibration.texts import MissingTexts

VOCABULARY, CELLS = 23, 9
SHAPE = Shape(layers=2, query_heads=4, heads=2, head_dim=8, epsilon=1e-5, interleaved=True)


def weights(seed: int) -> dict:
    random = np.random.default_rng(seed)

    def matrix(*shape: int) -> np.ndarray:
        return random.normal(0, 0.3, shape).astype(np.float32)

    sizes = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32)}
    sizes |= {"ffn_gate": (40, 32), "ffn_up": (40, 32), "ffn_down": (32, 40), "attn_norm": (32,), "ffn_norm": (32,)}
    layers = {name: matrix(2, *size) for name, size in sizes.items()}
    frequencies = (100.0 ** (-np.arange(4) / 4)).astype(np.float32)
    embedding = matrix(VOCABULARY, 32)
    return {"embedding": embedding, "output": embedding, "norm": 1 + matrix(32), "frequencies": frequencies, "layers": layers}


def model(seed: int) -> GradientModel:
    result = GradientModel.__new__(GradientModel)
    result.shape, result._weights = SHAPE, weights(seed)
    return result


def cache(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    keys, values = random.normal(0, 1, (2, 2, CELLS, 2, 8)).astype(np.float32)
    return keys, values


def test_half_the_fisher_information_is_the_divergence_that_an_error_causes() -> None:
    """The promise that calibration rests on: e·F·e / 2, F from draws, against the divergence of a small error itself."""
    subject, (keys, values), tokens = model(1), cache(2), np.arange(6)
    predictions, draw = subject.differentiate(keys, values, tokens)
    draws = [draw(seed) for seed in range(1500)]
    random = np.random.default_rng(3)
    for _ in range(3):
        errors = random.normal(0, 0.01, (2, *keys.shape)).astype(np.float32)
        changed, _ = subject.differentiate(keys + errors[0], values + errors[1], tokens)
        actual = float((np.exp(predictions.astype(np.float64)) * (predictions.astype(np.float64) - changed)).sum())
        slopes = [float((by_keys * errors[0]).sum() + (by_values * errors[1]).sum()) for by_keys, by_values in draws]
        predicted = 0.5 * float(np.mean(np.square(slopes)))
        assert predicted == pytest.approx(actual, rel=0.25)


def test_draws_repeat_and_differ() -> None:
    _, draw = model(1).differentiate(*cache(2), np.arange(6))
    assert np.array_equal(draw(7)[0], draw(7)[0])
    assert not np.array_equal(draw(7)[0], draw(8)[0])


def test_cells_before_a_text_are_its_context() -> None:
    """Predictions from a cache that the model computed itself are those of the whole text."""
    own, tokens = weights(4), np.array([3, 1, 4, 1, 5, 9, 2, 6])
    nothing = np.zeros((2, 0, 2, 8), np.float32)
    whole = np.asarray(_predict(SHAPE, own, nothing, nothing, tokens=tokens))
    changed = tokens.copy()
    changed[6] = 0
    other = np.asarray(_predict(SHAPE, own, nothing, nothing, tokens=changed))
    assert np.allclose(np.exp(whole).sum(-1), 1, atol=1e-5)
    assert np.allclose(whole[:6], other[:6], atol=1e-5) and not np.allclose(whole[6:], other[6:], atol=1e-3)


def test_one_scale_serves_all_documents() -> None:
    scale = _Scale()
    first = scale(np.array([1e-6, -3e-5], np.float32))
    assert 128 <= abs(float(first[1])) <= 256
    assert float(scale(np.array([1e-6], np.float32))[0]) == float(first[0])
    assert float(scale(np.array([1.0], np.float32))[0]) == 65504


def test_short_texts_and_unknown_models_are_refused() -> None:
    assert Plan().fitting(700).prefix == 444
    with pytest.raises(MissingTexts, match="too short"):
        Plan().fitting(300)

    class Worker:
        def metadata(self, key: str) -> str:
            return "mamba"

    with pytest.raises(NoGradients, match="mamba"):
        GradientModel(Worker())
