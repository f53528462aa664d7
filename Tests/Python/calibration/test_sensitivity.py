"""The error that sensitivity is measured with, and divergences."""

import numpy as np
import pytest

from kvtc.calibration.predictions import divergence, log_probabilities
from kvtc.calibration.sensitivity import coded


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_a_coding_error_has_the_energy_asked_for(share: float) -> None:
    rows = (np.random.default_rng(4).normal(size=(400, 12)) * np.geomspace(10, 0.1, 12) + 3).astype(np.float32)
    error = np.square(coded(rows, share) - rows).sum(axis=1).mean()
    assert error == pytest.approx(share * np.square(rows - rows.mean(axis=0)).sum(axis=1).mean(), rel=0.02)


def test_divergence() -> None:
    uniform, sure = log_probabilities(np.zeros((1, 4))), log_probabilities(np.array([[9.0, 0, 0, 0]]))
    assert divergence(uniform, uniform) == 0 and divergence(uniform, sure) > divergence(sure, uniform) > 0
