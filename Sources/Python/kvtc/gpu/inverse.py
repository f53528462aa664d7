"""Which way codes and digits are multiplied, and doing it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .kernels.product import inverse
from .resident import PAD, Resident, Strip
from .sections import Digits

PRODUCTS = ("int8", "library", "floats")
"""In Triton; large planes by `torch._int_mm`; in Triton by floats, where a device is slow at integers."""
_TILE = {"ROWS": 128, "COLUMNS": 128, "STEP": PAD, "GROUP": 8, "num_warps": 8, "num_stages": 3}
_LIBRARY = 512
"""Digits of a plane from which on the library's product is worth the memory that its sums pass through."""
_TRIAL_ROWS, _TRIALS = 2048, 3


class Inverse:
    """The inverse transform by one of `PRODUCTS`."""

    def __init__(self, device: Any, product: str) -> None:
        if product not in PRODUCTS:
            raise ValueError(f"product {product!r}; one of {', '.join(PRODUCTS)}")
        self.product, self._device = product, device
        # The interpreter has no bf16.
        self._by = "int8" if product != "floats" else "bf16" if device.type == "cuda" else "f32"

    def given_planes(self, resident: Resident) -> int:
        """Planes whose sums another kernel makes, at most."""
        return sum(used.count >= _LIBRARY for used in resident.planes) if self.product == "library" else 0

    def sums(self, strip: Strip, digits: Digits, steps: Any, begin: int, rows: int) -> Any:
        """f32 [rows][columns of the strip], of the coded rows from ``begin`` on."""
        terms = digits.terms[strip.basis].copy()
        by_library = np.flatnonzero((terms[:, 1] >= _LIBRARY) & (self.product == "library"))
        terms[by_library, 6] = np.arange(len(by_library))
        table = torch.from_numpy(terms).to(self._device)
        low, high, given = digits.low[begin : begin + rows], digits.high[begin : begin + rows], table
        if len(by_library):
            given = torch.empty((len(by_library), rows, strip.columns), dtype=torch.int32, device=self._device)
            for which, index in enumerate(by_library):
                first, count, at = terms[index, 0], terms[index, 1], terms[index, 4]
                torch._int_mm(low[:, first : first + count], strip.digits[:, at : at + count].t(), out=given[which])
        x = torch.empty((rows, strip.columns), dtype=torch.float32, device=self._device)
        inverse[(-(-rows // _TILE["ROWS"]) * -(-strip.columns // _TILE["COLUMNS"]),)](
            low, high, strip.digits, table, len(terms), steps[begin : begin + rows], given, x, rows, strip.columns, low.shape[1], high.shape[1],
            strip.digits.shape[1], **_TILE, BY=self._by, enable_fp_fusion=False,
        )  # fmt: skip
        return x


def fastest(resident: Resident) -> str:
    """The product that takes the least time for one strip of the profile; without a GPU the plainest."""
    if resident.device.type != "cuda":
        return PRODUCTS[0]
    strip = next(iter(resident.layers.values()))[0]
    used = [plane for plane in resident.planes if plane.basis == strip.basis]
    terms = np.array([[plane.at, -(-plane.count // PAD) * PAD, 0, 0, plane.at, 0, -1, 0] for plane in used], np.int32)
    low = torch.randint(-8, 8, (_TRIAL_ROWS, strip.digits.shape[1]), dtype=torch.int8, device=resident.device)
    digits = Digits(low, low[:, :PAD].contiguous(), [terms] * (strip.basis + 1))
    steps = torch.ones(_TRIAL_ROWS, dtype=torch.float32, device=resident.device)
    times = {}
    for product in PRODUCTS:
        own = Inverse(resident.device, product)
        try:
            own.sums(strip, digits, steps, 0, _TRIAL_ROWS)
        except RuntimeError:
            # Not every device has every product.
            continue
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(_TRIALS):
            own.sums(strip, digits, steps, 0, _TRIAL_ROWS)
        end.record()
        end.synchronize()
        times[product] = begin.elapsed_time(end)
    return min(times, key=lambda product: times[product])
