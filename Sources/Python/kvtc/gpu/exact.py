"""Rows that come back as whole elements, made on the processor: raw and lossless ones, and those of quant8 and quant4."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from ..protocol.policy import Mode
from .blocks import RAW, BadBlock, Block
from .elements import from_float

_QUANT = 32
"""Elements that share a scale."""


def rows(block: Block, row: int) -> np.ndarray:
    """Bytes of the exact rows, ascending: [rows, row × bytes of an element]."""
    count, size = int(block.is_exact.sum()), block.element.size
    if block.mode == RAW:
        if len(block.exact) != count * row * size:
            raise BadBlock(f"raw section of {len(block.exact)} bytes")
        return np.frombuffer(block.exact, np.uint8).reshape(count, row * size)
    return _lossless(block.exact, count, row, size)


def _lossless(section: memoryview, count: int, row: int, size: int) -> np.ndarray:
    """Byte planes, each stored, LZ4, or DEFLATE of its columns."""
    elements = np.empty((count * row, size), np.uint8)
    at = 0
    for plane in range(size if count else 0):
        if len(section) - at < 5:
            raise BadBlock(f"plane {plane} is missing")
        length, method = struct.unpack_from("<IB", section, at)
        at += 5
        if length > len(section) - at:
            raise BadBlock(f"plane {plane} passes the end")
        unpacked = np.frombuffer(unpack(section[at : at + length], method, count * row), np.uint8)
        elements[:, plane] = unpacked.reshape(row, count).T.reshape(-1) if method == 2 else unpacked
        at += length
    if at != len(section):
        raise BadBlock("bytes after the last plane")
    return elements.reshape(count, row * size)


def unpack(packed: memoryview, method: int, size: int) -> bytes:
    """0 stored, 1 LZ4 block, 2 DEFLATE; never more than ``size`` bytes, and not less.

    Raises BadBlock.
    """
    way = {0: _stored, 1: _lz4, 2: _inflate}.get(method)
    if way is None:
        raise BadBlock(f"compression method {method}")
    result = way(packed, size)
    if len(result) != size:
        raise BadBlock(f"{len(result)} unpacked bytes, not {size}")
    return result


def _stored(packed: memoryview, size: int) -> bytes:
    return bytes(packed)


def _lz4(packed: memoryview, size: int) -> bytes:
    # Where no section of a session's blocks is LZ4, nothing needs the library.
    import lz4.block

    try:
        return bytes(lz4.block.decompress(packed, uncompressed_size=size))
    except (lz4.block.LZ4BlockError, ValueError, MemoryError, OverflowError) as error:
        raise BadBlock(f"LZ4: {error}") from error


def _inflate(packed: memoryview, size: int) -> bytes:
    stream = zlib.decompressobj(-15)
    try:
        # One byte more than is due shows that there is more.
        result = stream.decompress(packed, size + 1)
    except zlib.error as error:
        raise BadBlock(f"DEFLATE: {error}") from error
    if not stream.eof:
        raise BadBlock("a DEFLATE stream without an end")
    return result


def pack(elements: np.ndarray) -> bytes:
    """A lossless section of rows of elements, [rows, row] of an unsigned type, little-endian."""
    count, row = elements.shape
    planes = elements.reshape(-1, 1).view(np.uint8)
    result = b""
    for plane in range(planes.shape[1] if count else 0):
        stored = planes[:, plane].tobytes()
        deflate = zlib.compressobj(3, zlib.DEFLATED, -15)
        small = deflate.compress(planes[:, plane].reshape(count, row).T.tobytes()) + deflate.flush()
        method, packed = min((2, small), (0, stored), key=lambda way: len(way[1]))
        result += struct.pack("<IB", len(packed), method) + packed
    return result


def quantised(block: Block, row: int) -> np.ndarray:
    """Bytes of the coded rows of quant8 and quant4: [rows, row × bytes of an element]."""
    bits = 8 if block.mode == Mode.QUANT8 else 4
    groups, count = -(-row // _QUANT), len(block.coded_rows)
    size = 2 + _QUANT * bits // 8
    if len(block.coded) != count * groups * size:
        raise BadBlock(f"coded section of {len(block.coded)} bytes")
    coded = np.frombuffer(block.coded, np.uint8).reshape(count, groups, size)
    scale = np.ascontiguousarray(coded[:, :, :2]).view("<f2").astype(np.float32)
    if bits == 8:
        codes = coded[:, :, 2:].view(np.int8)
    else:
        pairs = coded[:, :, 2:].view(np.int8)
        codes = np.stack([(pairs << 4).view(np.int8) >> 4, pairs >> 4], -1).reshape(count, groups, _QUANT)
    with np.errstate(all="ignore"):
        values = (codes.astype(np.float32) * scale).reshape(count, groups * _QUANT)[:, :row]
    return from_float(values, block.element).view(np.uint8).reshape(count, row * block.element.size)
