"""Where transform mode spends its bits, from what a profile says it expects (ProfileFormat.md, BlockFormat.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kvtc import safetensors


@dataclass(frozen=True)
class Allocation:
    """At one ratio: `components` are expected bits of each component and token in order of variance; `layers` bits per
    number of K and of V by layer [layers, 2], a component's bits going to the layers as its energy does."""

    ratio: float
    components: np.ndarray
    layers: np.ndarray


def allocations(profile: Path, ratios: Sequence[float]) -> list[Allocation]:
    """For each ratio, with the common step that calibration measured for it."""
    tensors, metadata = safetensors.read(profile)
    described = json.loads(metadata["kvtc"])
    expected = sorted(described["expectations"], key=lambda row: row["ratio"])
    costs = class_bits(tensors["entropy.frequencies"])
    spread = [layer_shares(tensors, described, basis) for basis in range(len(described["bases"]))]
    widths = layer_widths(described)
    levels = [tensors[f"basis.{basis}.level"].astype(float) for basis in range(len(spread))]
    descending = np.sort(np.concatenate(levels))[::-1]
    logarithms = [math.log(row["ratio"]) for row in expected]
    result = []
    for ratio in ratios:
        step, rank = (float(np.interp(math.log(ratio), logarithms, [row[key] for row in expected])) for key in ("stepIndex", "rank"))
        cut = descending[min(max(int(rank), 1), len(descending)) - 1]
        bits = [np.where(own >= cut, component_bits(own, step, costs), 0) for own in levels]
        layers = sum(np.einsum("j,jlr->lr", own, shares) for own, shares in zip(bits, spread, strict=True))
        together = np.sort(np.concatenate(bits))[::-1]
        result.append(Allocation(ratio, together[together > 0], layers / np.maximum(widths, 1)))
    return result


def class_bits(frequencies: np.ndarray) -> np.ndarray:
    """Expected bits of a symbol of each class: the table's entropy, its raw low bits, and 16 more for an escape."""
    shares = frequencies.astype(float) / 4096
    entropy = -(shares * np.log2(shares)).sum(axis=1)
    low = np.maximum(0, np.arange(len(frequencies)) // 4 - 5)
    return entropy + low * (1 - shares[:, 31]) + 16 * shares[:, 31]


def component_bits(levels: np.ndarray, step: float, costs: np.ndarray) -> np.ndarray:
    """Bits of components by their level and the step index, interpolated between classes."""
    position = np.clip((levels - step + 256) / 16 - 0.5, 0, len(costs) - 1)
    return np.interp(position, np.arange(len(costs)), costs)


def layer_widths(described: dict) -> np.ndarray:
    """Elements of a token's keys and values (or latents) by layer [layers, 2]."""
    tensors = described["tensors"]
    widths = np.zeros((max(tensor["layer"] for tensor in tensors) + 1, 2))
    for tensor in tensors:
        widths[tensor["layer"], _role(tensor)] += tensor["heads"] * tensor["headDim"]
    return widths


def layer_shares(tensors: dict[str, np.ndarray], described: dict, basis: int) -> np.ndarray:
    """How a component's energy lies over keys and values of the layers [rank, layers, 2]; a component sums to 1."""
    own = described["bases"][basis]
    ranges = own.get("ranges") or [(own["begin"], own["end"])]
    component = tensors[f"basis.{basis}.component"]
    exponent = tensors[f"basis.{basis}.exponent"].astype(np.float32)
    digits = _digits(tensors, basis, sum(end - begin for begin, end in ranges))
    rank = len(tensors[f"basis.{basis}.level"])
    shares = np.zeros((rank, *layer_widths(described).shape), np.float32)
    widths = [tensor["heads"] * tensor["headDim"] for tensor in described["tensors"]]
    offsets, place = np.cumsum([0, *widths]), 0
    for begin, end in ranges:
        for tensor, offset, width in zip(described["tensors"], offsets, widths, strict=False):
            first, last = max(offset, begin) - begin + place, min(offset + width, end) - begin + place
            if first < last:
                # Digits of one component are added up as energies: the second is too small to matter.
                energy = np.square(digits[:, first:last].astype(np.float32)).sum(axis=1) * np.exp2(2 * exponent)
                np.add.at(shares[:, tensor["layer"], _role(tensor)], component, energy)
        place += end - begin
    return shares / np.maximum(shares.sum(axis=(1, 2), keepdims=True), 1e-30)


def _digits(tensors: dict[str, np.ndarray], basis: int, width: int) -> np.ndarray:
    """Digits [digits, columns], as format 1 stores them. Format 2 groups them by exponent, second digits of a component first, fills
    each group up to whole quads, adds 128 and stores tiles of 32 columns: [tiles][quads][32][4]."""
    if f"basis.{basis}.digits" in tensors:
        return tensors[f"basis.{basis}.digits"]
    component, exponent = tensors[f"basis.{basis}.component"], tensors[f"basis.{basis}.exponent"]
    is_first = np.zeros(len(component), bool)
    is_first[np.unique(component, return_index=True)[1]] = True
    place, quad = np.zeros(len(component), int), 0
    for wanted in sorted(set(exponent.tolist())):
        for first in (False, True):
            members = np.flatnonzero((exponent == wanted) & (is_first == first))
            members = members[np.argsort(component[members], kind="stable")]
            place[members] = 4 * quad + np.arange(len(members))
            quad += -(-len(members) // 4)
    tiles = tensors[f"basis.{basis}.packed"].reshape(-1, quad, 32, 4)
    columns = np.arange(width)
    rows = tiles[columns[:, None] // 32, place // 4, columns[:, None] % 32, place % 4].T
    return (rows ^ 128).view(np.int8)


def _role(tensor: dict) -> int:
    return 0 if tensor["role"] == 0 else 1
