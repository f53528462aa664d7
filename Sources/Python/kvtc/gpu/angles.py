"""Cosines and sines of rotary positions, the same bits as the daemon's: no library's functions, whose last bits differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

# Cody–Waite parts of π/2, and the Taylor series of sine and cosine.
_HIGH, _MIDDLE, _LOW = (float.fromhex(part) for part in ("0x1.921fb54400000p+0", "0x1.0b4611a600000p-34", "0x1.3198a2e037073p-69"))
_TWO_OVER_PI = float.fromhex("0x1.45f306dc9c883p-1")
_SINE = (-1 / 1307674368000, 1 / 6227020800, -1 / 39916800, 1 / 362880, -1 / 5040, 1 / 120, -1 / 6)
_COSINE = (1 / 20922789888000, -1 / 87178291200, 1 / 479001600, -1 / 3628800, 1 / 40320, -1 / 720, 1 / 24, -0.5)


def angles(positions: Any, frequencies: Any) -> Any:
    """f32 [positions][pairs × 2]: cosine and sine of position · frequency, both float64 tensors. Each operation is one of IEEE's."""
    x = positions[:, None] * frequencies[None, :]
    turns = torch.round(x * _TWO_OVER_PI)
    r = x - turns * _HIGH
    r = r - turns * _MIDDLE
    r = r - turns * _LOW
    z = r * r
    sine, cosine = torch.full_like(z, _SINE[0]), torch.full_like(z, _COSINE[0])
    for term in _SINE[1:]:
        sine = sine * z
        sine = sine + term
    for term in _COSINE[1:]:
        cosine = cosine * z
        cosine = cosine + term
    sine = r * z * sine + r
    cosine = z * cosine + 1
    quarter = turns.to(torch.int64) & 3
    swapped, is_low = quarter % 2 == 1, quarter >= 2
    sines = torch.where(swapped, cosine, sine)
    cosines = torch.where(swapped, sine, cosine)
    sines = torch.where(is_low, -sines, sines)
    cosines = torch.where((quarter == 1) | (quarter == 2), -cosines, cosines)
    return torch.stack([cosines, sines], -1).flatten(1).float()


def table(positions: np.ndarray, frequencies: list[np.ndarray], device: Any) -> Any:
    """Of all tables of frequencies, one beside the other."""
    at = torch.from_numpy(positions.astype(np.float64)).to(device)
    parts = [angles(at, torch.from_numpy(own.astype(np.float64)).to(device)) for own in frequencies]
    return torch.cat(parts, 1).contiguous() if parts else torch.zeros((len(positions), 1), dtype=torch.float32, device=device)
