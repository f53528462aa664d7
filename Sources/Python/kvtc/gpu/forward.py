"""From rows of a cache to coefficients: rotation undone, centred, weighted, multiplied by the basis. Floats, as any valid block will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..protocol.geometry import Role, RotaryStyle
from . import angles
from .profile import matrix_widths
from .resident import Resident

_COMPONENTS = 2048
"""Digits that are multiplied at once: so many columns of the basis exist as 16-bit floats at a time."""


@dataclass(frozen=True)
class Rows:
    """``weighted``: f32 [rows][elements], errors of which cost their squares. ``norms``: squared, of all, of the keys and of the rest."""

    weighted: Any
    norms: Any
    keys: Any
    others: Any


def weigh(resident: Resident, values: Any, positions: np.ndarray) -> Rows:
    """``values``: f32 [rows][elements of a row], canonical, as cached; written over."""
    profile = resident.profile
    table = angles.table(positions, profile.rope_tables, values.device)
    for number, tensor in enumerate(profile.geometry.tensors):
        own = values[:, profile.offsets[number] : profile.offsets[number + 1]].view(-1, tensor.heads, tensor.head_dim)
        if tensor.rotary_dims:
            at, dims = resident.angle_firsts[tensor.rope_table], tensor.rotary_dims
            cosine, sine = (table[:, None, at + part : at + dims : 2] for part in (0, 1))
            turned = own[..., tensor.rotary_offset : tensor.rotary_offset + dims]
            half = tensor.rotary_style == RotaryStyle.HALF_SPLIT
            one, other = (turned[..., : dims // 2], turned[..., dims // 2 :]) if half else (turned[..., ::2], turned[..., 1::2])
            back = one * cosine + other * sine
            other.copy_(other * cosine - one * sine)
            one.copy_(back)
    values -= resident.means
    values *= resident.forward_weights
    if profile.root is not None:
        _multiply(resident, values)
    squares = values * values
    keys = sum(tensor.elements for tensor in profile.geometry.tensors if tensor.role == Role.KEY)
    of_keys, of_others = squares[:, :keys].sum(1), squares[:, keys:].sum(1)
    return Rows(values, of_keys + of_others, of_keys, of_others)


def _multiply(resident: Resident, values: Any) -> None:
    """Each head times its matrix."""
    at = 0
    for number, tensor in enumerate(resident.profile.geometry.tensors):
        widths = matrix_widths(tensor.head_dim)
        size = sum(width * width for width in widths)
        own = resident.roots[at : at + tensor.heads * size].view(tensor.heads, size)
        heads = values[:, resident.profile.offsets[number] : resident.profile.offsets[number + 1]].view(-1, tensor.heads, tensor.head_dim)
        first = entry = 0
        for width in widths:
            matrices = own[:, entry : entry + width * width].reshape(tensor.heads, width, width)
            part = heads[..., first : first + width]
            part.copy_(torch.bmm(part.transpose(0, 1), matrices).transpose(0, 1))
            first, entry = first + width, entry + width * width
        at += tensor.heads * size


def coefficients(resident: Resident, rows: Rows, step: float) -> Any:
    """f32 [rows][components of all bases]. Rows are rounded to 16-bit floats, twice where the step is so fine that it would show."""
    count, total = len(rows.weighted), resident.starts[-1]
    result = torch.zeros((count, total), dtype=torch.float32, device=rows.weighted.device)
    # Rounding to eight bits leaves 2^-18 / 3 of a row's energy as error; a sixty-fourth of the quantiser's own may be added.
    energy = float(rows.norms.mean()) if count else 0.0
    twice = energy * 2.0**-18 / 3 > step * step / 12 * min(total, rows.weighted.shape[1]) / 64
    first = rows.weighted.bfloat16()
    parts = [first, (rows.weighted - first.float()).bfloat16()] if twice else [first]
    for used in resident.planes:
        unit = 2.0 ** (used.plane.exponent + 8)
        if used.plane.is_low and energy * unit * unit <= step * step / 100:
            continue
        for begin in range(0, used.count, _COMPONENTS):
            chosen = slice(begin, min(begin + _COMPONENTS, used.count))
            sums = _product(resident, used.basis, parts, used.at + chosen.start, used.at + chosen.stop)
            at = torch.from_numpy(used.plane.components[chosen].astype(np.int64) + resident.starts[used.basis]).to(result.device)
            result.index_add_(1, at, sums, alpha=2.0**used.plane.exponent)
    return result


def _product(resident: Resident, basis: int, parts: Sequence[Any], begin: int, end: int) -> Any:
    """Of rows and some columns of digits."""
    offsets = resident.profile.offsets
    found = []
    for strips in resident.layers.values():
        for strip in strips:
            if strip.basis == basis:
                for number, first in strip.tensors:
                    width = offsets[number + 1] - offsets[number]
                    found.append((offsets[number], strip.digits[first : first + width, begin:end]))
    found.sort(key=lambda entry: entry[0])
    firsts = np.cumsum([0] + [len(digits) for _, digits in found])
    columns = torch.cat([digits for _, digits in found]).bfloat16()
    total = None
    for first, last in resident.profile.bases[basis].ranges:
        at = int(firsts[[offset for offset, _ in found].index(first)])
        own = columns[at : at + last - first]
        for part in parts:
            if part.device.type == "cuda":
                product = torch.mm(part[:, first:last], own, out_dtype=torch.float32)
            else:
                product = torch.mm(part[:, first:last].float(), own.float())
            total = product if total is None else total + product
    return total
