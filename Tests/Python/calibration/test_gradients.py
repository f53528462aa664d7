"""Derivatives by the cache: against finite differences, on small random models, where torch is installed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch_models import small

from kvtc.adapters.geometry import ModelGeometry
from kvtc.adapters.rope import Rope
from kvtc.adapters.transformers import TransformersWorker
from kvtc.calibration.gradient_model import GradientModel, NoGradients
from kvtc.calibration.gradients import Plan, _Scale
from kvtc.calibration.texts import MissingTexts

CELLS, LAYERS, HEADS, WIDTH = 9, 2, 2, 8


def model(seed: int, kind: str = "llama") -> GradientModel:
    return GradientModel(TransformersWorker(small(kind, seed)))


def cache(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    keys, values = random.normal(0, 1, (2, LAYERS, CELLS, HEADS, WIDTH)).astype(np.float32)
    return keys, values


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "gemma3_text", "mistral"])
def test_derivatives_are_those_of_finite_differences(kind: str) -> None:
    """Along random directions of K and of V, of the log-likelihood of the very tokens that were drawn."""
    subject, cells, tokens = model(1, kind), cache(2), np.arange(6)
    predictions, draw = subject.differentiate(*cells, tokens)
    gradients = draw(5)
    drawn = torch.multinomial(torch.from_numpy(predictions).exp(), 1, generator=torch.Generator().manual_seed(5))

    def likelihood(keys: np.ndarray, values: np.ndarray) -> float:
        changed, _ = subject.differentiate(keys, values, tokens)
        return float(np.take_along_axis(changed.astype(np.float64), drawn.numpy(), -1).sum())

    random = np.random.default_rng(3)
    for role in (0, 1):
        assert np.abs(gradients[role]).min(axis=(1, 2, 3)).shape == (LAYERS,)
        for _ in range(3):
            direction = [np.zeros_like(rows) for rows in cells]
            direction[role] = random.normal(0, 1, cells[role].shape).astype(np.float32)
            step = 1e-2
            there, back = (likelihood(*(rows + sign * step * way for rows, way in zip(cells, direction))) for sign in (1, -1))
            slope = float((gradients[role].astype(np.float64) * direction[role]).sum())
            assert (there - back) / (2 * step) == pytest.approx(slope, rel=0.02, abs=2e-3)


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


def test_keys_that_lie_otherwise_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp turns neighbours where transformers turns halves: the same keys in another order, and so their derivatives."""
    worker, (keys, values), tokens = TransformersWorker(small("llama", 1)), cache(2), np.arange(6)
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    predictions, draw = GradientModel(worker).differentiate(keys, values, tokens)
    by_keys, by_values = draw(1)
    rope = Rope.geometric("interleaved", 0, WIDTH, 10000.0, LAYERS)
    monkeypatch.setattr("kvtc.calibration.gradient_model._widened", lambda _: worker)
    other = GradientModel(SimpleNamespace(geometry=ModelGeometry(LAYERS, HEADS, WIDTH, WIDTH, rope)))
    same, draw = other.differentiate(keys[..., order], values, tokens)
    np.testing.assert_array_equal(same, predictions)
    np.testing.assert_array_equal(draw(1)[0], by_keys[..., order])
    np.testing.assert_array_equal(draw(1)[1], by_values)


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

    latent = SimpleNamespace(geometry=ModelGeometry(LAYERS, 1, 48, 0, Rope.geometric("interleaved", 32, 16, 10000.0, LAYERS)))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(NoGradients, match="latents"):
        patch.setattr("kvtc.calibration.gradient_model._widened", lambda _: TransformersWorker(small("llama", 1)))
        GradientModel(latent)
