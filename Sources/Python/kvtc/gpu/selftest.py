"""Whether a device and its compiler give the daemon's bits: shown on a block of the profile's own shape before anything is decoded, which
also compiles what decoding needs."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ..protocol.geometry import Element, Role
from . import reference
from .blocks import assemble
from .inverse import Inverse
from .profile import Profile
from .resident import Resident

_ROWS, _COMPONENTS, _POSITION = 16, 48, 12_345


class NotExact(RuntimeError):
    """The toolchain gives other bits than the daemon; its blocks cannot be decoded here."""


class Decodes(Protocol):
    """A decoder, as far as it is looked at here."""

    profile: Profile
    device: torch.device
    resident: Resident
    inverse: Inverse

    def restore(self, blocks: Sequence[Any], slots: Sequence[np.ndarray], cache: Mapping[tuple[int, Role], Any]) -> Any: ...


def check(decoder: Decodes, element: Element, dtype: Any) -> None:
    """Raises NotExact."""
    profile = decoder.profile
    layer = profile.geometry.tensors[0].layer
    numbers = [number for number, tensor in enumerate(profile.geometry.tensors) if tensor.layer == layer]
    cache = {}
    for number in numbers:
        tensor = profile.geometry.tensors[number]
        # A block of the cache is half of the rows, so that slots are taken apart.
        view = torch.zeros((2, tensor.heads, _ROWS // 2, tensor.head_dim), dtype=torch.uint8, device=decoder.device)
        cache[tensor.layer, tensor.role] = view.to(dtype)
    ranks = [min(rank, _COMPONENTS) for rank in decoder.resident.ranks]
    # The strongest component's deviation is 128 steps: codes with low bits, beyond a byte, and escapes.
    step_index = max(int(basis.levels[0]) for basis in profile.bases) - 64 * 7
    random = np.random.Generator(np.random.PCG64(1))
    codes = []
    for basis, rank in zip(profile.bases, ranks, strict=True):
        deviation = 2.0 ** ((basis.levels[:rank].astype(np.float64) - step_index) / 64)
        own = np.clip(np.rint(random.standard_normal((rank, _ROWS)) * deviation[:, None]), -8000, 8000).astype(np.int64)
        own[-1, :2] = (117, -90)
        own[0, :2] = (-16_000, 16_000)
        codes.append(own)
    block = reference.block(profile, codes, step_index, _POSITION, element, lanes=32, chunks=1)
    slots = np.arange(_ROWS)[::-1].copy()
    for made in (block, _first_version(decoder, element)):
        if failed := decoder.restore([made], [slots], cache).failed:
            raise NotExact(f"a good block was refused: {failed[0]}")
        if made is not block:
            codes = [np.zeros((0, _ROWS), np.int64) for _ in codes]
        for number in numbers:
            tensor = profile.geometry.tensors[number]
            found = cache[tensor.layer, tensor.role].cpu().transpose(1, 2).reshape(_ROWS, -1).contiguous().view(torch.uint8).numpy()
            wanted = reference.decode(profile, codes, 2.0 ** (step_index / 64), step_index, _POSITION, element, number)
            if not np.array_equal(found[slots], wanted.view(np.uint8).reshape(_ROWS, -1)):
                way = f"torch {torch.__version__} and products by {decoder.inverse.product!r}"
                raise NotExact(f"{decoder.device} with {way} does not decode to the daemon's bits")


def _first_version(decoder: Decodes, element: Element) -> bytes:
    """A block of version 1 without components: its rows are the mean."""
    section = struct.pack("<hHII", 0, 0, 32, 0) + struct.pack("<I", 0) * len(decoder.profile.bases) + struct.pack("<16I", *[1 << 16] * 16)
    return assemble(
        decoder.profile, element, _ROWS, _POSITION, section, b"", version=1, step=1.0, distortion=0.0, is_exact=np.zeros(_ROWS, bool)
    )
