"""Entropy coding on the device, and the bytes of coded sections (version 2 of the transform section)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from .blocks import GROUP
from .kernels.encode import encode_chunks
from .resident import Resident

FIELDS = 16


@dataclass(frozen=True)
class Shape:
    """How a section is cut into chunks: by basis, states and chunks."""

    ranks: list[int]
    rows: int
    lanes: list[int]
    chunks: list[int]

    @property
    def fixed_bytes(self) -> int:
        """Of the section beside the symbols' bits."""
        tables = sum(-(-(8 + -(-rank // GROUP)) // 4) * 4 for rank in self.ranks)
        return 4 + tables + sum((4 + 4 * lanes) * count for lanes, count in zip(self.lanes, self.chunks, strict=True)) + 2

    def cuts(self, basis: int) -> np.ndarray:
        """The first set of each chunk, and the end."""
        sets, count = -(-self.ranks[basis] // self.lanes[basis]), self.chunks[basis]
        return np.arange(count + 1) * sets // max(count, 1)


def shape_of(ranks: Sequence[int], rows: int) -> Shape:
    lanes = [max(1, min(rank * rows // 1024, 32, max(rank, 1))) for rank in ranks]
    chunks = [
        max(1, min(-(-rank // own), (rank * rows + 32_768) // 65_536)) if rank else 0 for rank, own in zip(ranks, lanes, strict=True)
    ]
    return Shape(list(ranks), rows, lanes, chunks)


@dataclass(frozen=True)
class Job:
    """A page whose coefficients are rows of ``y`` from ``row`` on."""

    row: int
    step_index: int
    options: list[np.ndarray]
    shape: Shape
    bits: np.ndarray
    groups_of: Sequence[int]


def write(resident: Resident, y: Any, jobs: Sequence[Job]) -> list[bytes]:
    """Coded sections."""
    table, room, option_at, page_options = [], 0, 0, []
    for page, job in enumerate(jobs):
        first_group = 0
        for basis, rank in enumerate(job.shape.ranks):
            cuts, lanes = job.shape.cuts(basis), job.shape.lanes[basis]
            for begin, end in pairwise(cuts.tolist()):
                groups = slice(first_group + begin * lanes // GROUP, first_group + -(-min(end * lanes, rank) // GROUP))
                symbols = (end - begin) * lanes * job.shape.rows
                # As counted, whole groups of it, and a hundredth of a bit a symbol, by which frequencies' logarithms are rounded.
                size = int(job.bits[groups].sum()) // 1024 + symbols // 1024 + 2 * lanes + 64
                table.append(
                    [room, size, job.shape.rows, job.row, lanes, begin, end, rank, page, option_at, resident.starts[basis], job.step_index]
                    + [0] * 4
                )
                room += size
            option_at += len(job.options[basis])
            page_options.append(job.options[basis])
            first_group += job.groups_of[basis]
    device = y.device

    def on(values: np.ndarray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    about = np.array(table, np.int64).reshape(-1, FIELDS)
    steps = np.exp2(np.array([job.step_index for job in jobs]) / 64).astype(np.float32)
    frequencies = resident.profile.frequencies
    words = torch.empty(max(room, 1), dtype=torch.int16, device=device)
    counts = torch.zeros(max(len(about), 1), dtype=torch.int32, device=device)
    if len(about):
        encode_chunks[(len(about),)](
            y, y.shape[1], on(about), resident.levels, on(1 / steps), on(np.concatenate([*page_options, np.zeros(1, np.uint8)])),
            on(frequencies.astype(np.int32)), on((np.cumsum(frequencies, 1) - frequencies).astype(np.int32)), words, counts, num_warps=1,
            enable_fp_fusion=False,
        )  # fmt: skip
    lengths = counts.cpu().numpy()[: len(about)].astype(np.int64)
    assert (lengths >= 0).all(), "rANS output passes its bound"
    ends = about[:, 0] + about[:, 1]
    index = np.repeat(ends - np.cumsum(lengths), lengths) + np.arange(lengths.sum())
    packed = words[on(index)].cpu().numpy()
    sections, chunk, at = [], 0, 0
    for job in jobs:
        head = struct.pack("<hH", job.step_index, 0)
        for rank, lanes, count, options in zip(job.shape.ranks, job.shape.lanes, job.shape.chunks, job.options, strict=True):
            part = struct.pack("<IHH", rank, lanes, count) + options.tobytes()
            head += part + bytes(-len(part) % 4)
        own = np.cumsum(lengths[chunk : chunk + sum(job.shape.chunks)])
        size = int(own[-1]) if len(own) else 0
        sections.append(head + own.astype("<u4").tobytes() + packed[at : at + size].astype("<i2").tobytes())
        chunk, at = chunk + len(own), at + size
    return sections
