"""Blocks as they are stored: header, bitmap and sections, checked before anything is read by them (`BlockFormat.md`)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
import xxhash

from ..protocol.geometry import Element
from ..protocol.policy import Mode
from .profile import Basis, Profile

HEADER = 104
_FIELDS = struct.Struct("<4sHBB32sQIIIIffIIIIQQ")
GROUP = 64
"""Components that share an option."""
CUT = 0xFF
MOST_TOKENS = 65536
RAW = 0
"""The mode of a page that is not coded: no policy asks for it."""


class BadBlock(ValueError):
    """A block that cannot be decoded; a miss. The message names what is wrong."""


@dataclass(frozen=True)
class Block:
    """A block's header, and where its parts are. ``protected``: bool a row of the page, of which all are exact in exact modes."""

    version: int
    mode: int
    element: Element
    tokens: int
    first_position: int
    step: float
    distortion: float
    is_exact: np.ndarray
    exact: memoryview
    coded: memoryview

    @property
    def coded_rows(self) -> np.ndarray:
        """Indices of the rows that have codes."""
        return np.flatnonzero(~self.is_exact)


def parse(data: memoryview, profile: Profile, *, is_verified: bool = False) -> Block:
    """``is_verified``: whether the caller has a checksum of its own over the whole block, as the daemon has.

    Raises BadBlock.
    """
    if len(data) < HEADER:
        raise BadBlock(f"block of {len(data)} bytes; a header has {HEADER}")
    (magic, version, mode, element, needed, geometry, tokens, position, row, count, step, distortion, _, bitmap_bytes, exact_bytes,
     coded_bytes, checksum, own) = _FIELDS.unpack_from(data)  # fmt: skip
    if magic != b"KVTB":
        raise BadBlock("no block magic")
    if own != xxhash.xxh3_64_intdigest(data[:96]):
        raise BadBlock("header checksum")
    if version not in (1, 2):
        raise BadBlock(f"block version {version}; this release reads versions 1 and 2")
    if mode > max(Mode) or not 1 <= element <= len(Element):
        raise BadBlock(f"mode {mode} or element type {element}")
    if not 1 <= tokens <= MOST_TOKENS or position > (1 << 31) - 1 - tokens:
        raise BadBlock(f"{tokens} tokens from position {position} on")
    if HEADER + bitmap_bytes + exact_bytes + coded_bytes != len(data):
        raise BadBlock(f"sections do not add up to the block's {len(data)} bytes")
    if not is_verified and checksum != xxhash.xxh3_64_intdigest(data[HEADER:]):
        raise BadBlock("payload checksum")
    if geometry != profile.geometry_hash or row != profile.row:
        raise BadBlock("the block is of another geometry")
    if needed not in (bytes(32), profile.id):
        raise BadBlock(f"the block needs profile {needed.hex()}")
    exact, coded = data[HEADER + bitmap_bytes : len(data) - coded_bytes], data[len(data) - coded_bytes :]
    if mode in (RAW, Mode.LOSSLESS):
        if bitmap_bytes or exact_bytes or count:
            raise BadBlock("an exact block with protected rows")
        is_exact, exact, coded = np.ones(tokens, bool), coded, coded[:0]
    else:
        bits = np.unpackbits(np.frombuffer(data[HEADER : HEADER + bitmap_bytes], np.uint8), bitorder="little")
        if bitmap_bytes not in (0, -(-tokens // 8)) or bits[tokens:].any() or bits.sum() != count:
            raise BadBlock("protected-row bitmap")
        is_exact = bits[:tokens].astype(bool) if bitmap_bytes else np.zeros(tokens, bool)
    return Block(version, mode, Element(element), tokens, position, step, distortion, is_exact, exact, coded)


def assemble(
    profile: Profile, element: Element, tokens: int, first_position: int, section: bytes, exact: bytes, *, version: int, step: float,
    distortion: float, is_exact: np.ndarray, mode: int = Mode.TRANSFORM,
) -> bytes:  # fmt: skip
    """A whole block. ``section``, ``exact``: the coded section, and the protected one of the rows ``is_exact``."""
    bitmap = np.packbits(is_exact, bitorder="little").tobytes() if is_exact.any() else b""
    payload = bitmap + exact + section
    owner = profile.id if mode in (Mode.TRANSFORM, Mode.KVTC) else bytes(32)
    head = _FIELDS.pack(
        b"KVTB", version, mode, element, owner, profile.geometry_hash, tokens, first_position, profile.row,
        int(is_exact.sum()), step, distortion, 0, len(bitmap), len(exact), len(section), xxhash.xxh3_64_intdigest(payload), 0,
    )[:96]  # fmt: skip
    return head + struct.pack("<Q", xxhash.xxh3_64_intdigest(head)) + payload


@dataclass
class Section:
    """A coded section of mode `transform`. ``ranks`` and ``options``: by basis, components kept and the option of each 64.
    ``words``: where in the section the words begin. Of version 1, ``bits``: bytes of raw bits behind them. Of version 2, by basis,
    ``lanes``, and ``chunks``: words up to the end of each chunk of all bases."""

    step_index: int
    ranks: list[int]
    options: list[np.ndarray]
    words: int
    word_count: int
    bits: int = 0
    lanes: list[int] = field(default_factory=list)
    chunks_of: list[int] = field(default_factory=list)
    ends: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def active(self, basis: int) -> np.ndarray:
        """Groups that are not cut."""
        return np.flatnonzero(self.options[basis] != CUT)

    def active_components(self, basis: int) -> int:
        groups = self.active(basis)
        short = -self.ranks[basis] % GROUP if len(groups) and groups[-1] == len(self.options[basis]) - 1 else 0
        return len(groups) * GROUP - short


def section(block: Block, bases: list[Basis]) -> Section:
    """Raises BadBlock."""
    data = block.coded
    if not (np.isfinite(block.step) and block.step > 0):
        raise BadBlock(f"step {block.step}")
    try:
        found = _first(data, bases) if block.version == 1 else _second(data, bases)
    except (struct.error, IndexError) as error:
        raise BadBlock("coded section is short") from error
    for options in found.options:
        if ((options > 0x7F) & (options != CUT)).any():
            raise BadBlock("group options")
    return found


def _options(data: memoryview, at: int, rank: int, basis: Basis) -> np.ndarray:
    groups = -(-rank // GROUP)
    if rank > basis.rank or groups > len(data) - at:
        raise BadBlock(f"rank {rank}")
    return np.frombuffer(data[at : at + groups], np.uint8)


def _first(data: memoryview, bases: list[Basis]) -> Section:
    step_index, _, words, bits = struct.unpack_from("<hHII", data)
    result = Section(step_index, [], [], 12, words, bits)
    for basis in bases:
        (rank,) = struct.unpack_from("<I", data, result.words)
        result.ranks.append(rank)
        result.options.append(_options(data, result.words + 4, rank, basis))
        result.words += 4 + len(result.options[-1])
    if len(data) - result.words != 2 * words + bits or words < 32:
        raise BadBlock("coded section does not add up")
    return result


def _second(data: memoryview, bases: list[Basis]) -> Section:
    step_index, zero = struct.unpack_from("<hH", data)
    if zero:
        raise BadBlock("coded section's second field")
    result = Section(step_index, [], [], 4, 0)
    for index, basis in enumerate(bases):
        rank, lanes, chunks = struct.unpack_from("<IHH", data, result.words)
        result.ranks.append(rank)
        result.options.append(_options(data, result.words + 8, rank, basis))
        end = result.words + 8 + len(result.options[-1])
        result.words = -(-end // 4) * 4
        if any(data[end : result.words]) or result.words > len(data):
            raise BadBlock("padding of the group options")
        active = result.active_components(index)
        if not 1 <= lanes <= 32 or not (0 if active == 0 else 1) <= chunks <= -(-active // lanes):
            raise BadBlock(f"{chunks} chunks of {lanes} states for {active} components")
        result.lanes.append(lanes)
        result.chunks_of.append(chunks)
    count = sum(result.chunks_of)
    if 4 * count > len(data) - result.words:
        raise BadBlock("directory passes the end")
    result.ends = np.frombuffer(data[result.words : result.words + 4 * count], "<u4").astype(np.int64)
    result.words += 4 * count
    result.word_count = int(result.ends[-1]) if count else 0
    least = 2 * np.repeat(result.lanes, result.chunks_of)
    if len(data) - result.words != 2 * result.word_count or (np.diff(result.ends, prepend=0) < least).any():
        raise BadBlock("coded section does not add up")
    return result
