"""Tensors of a cache between torch, [1, heads, cells, width] on any device, and numpy, [cells, heads, width]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...protocol.geometry import Element


def rows_of(tensor: Any) -> Any:
    """The one sequence of a tensor, token by token; still torch's, without a copy."""
    return tensor.detach()[0].transpose(0, 1)


def pairs(layers: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """K and V of every layer."""
    return [layer.keys for layer in layers], [layer.values for layer in layers]


def widened(tensor: Any) -> np.ndarray:
    """Its rows as f32 [cells, heads × width]."""
    return np.asarray(rows_of(tensor).float().cpu().numpy()).reshape(tensor.shape[2], -1)


def to_numpy(rows: Any, element: Element) -> np.ndarray:
    """A copy of rows in the numbers of `element`."""
    import torch

    rows = rows.to(_types()[element]).contiguous().cpu()
    if element == Element.BF16:
        rows = rows.view(torch.int16)
    return np.array(rows.numpy().view(element.dtype))


def blank_rows(shape: tuple[int, ...], element: Element, device: Any) -> Any:
    """Of that shape, [cells, heads, width], and in memory as the model has them: heads first."""
    import torch

    cells, heads, width = shape
    return torch.zeros((heads, cells, width), dtype=_types()[element], device=device).transpose(0, 1)


def put_rows(rows: Any, data: np.ndarray) -> None:
    """Writes bytes, which may go away after that, as rows of torch's."""
    import torch

    given = torch.from_numpy(np.array(data)).view(rows.dtype).view(rows.shape)
    rows.copy_(given)


def to_torch(rows: Any, element: Element, dtype: Any, device: Any) -> Any:
    """[1, heads, cells, width] of a type and on a device of the model's. ``rows``: numpy's or torch's."""
    import torch

    if not isinstance(rows, np.ndarray):
        tensor = rows
    else:
        tensor = torch.from_numpy(rows.view(np.int16)).view(torch.bfloat16) if element == Element.BF16 else torch.from_numpy(rows)
    return tensor.to(device).to(dtype).transpose(0, 1)[None].contiguous()


def _types() -> dict[Element, Any]:
    import torch

    return {Element.F16: torch.float16, Element.BF16: torch.bfloat16, Element.F32: torch.float32}
