"""The safetensors format, as much as samples need: u64 header length, JSON header, raw little-endian tensors.

Written tensor by tensor, so that a shard never exists twice in memory.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .whole_file import replacing

_NAMES: dict[np.dtype[Any], str] = {
    np.dtype("<f2"): "F16",
    np.dtype("<f4"): "F32",
    np.dtype("<i4"): "I32",
    np.dtype("<i2"): "I16",
    np.dtype("<u2"): "U16",
    np.dtype("i1"): "I8",
    np.dtype("u1"): "U8",
}
_TYPES: dict[str, np.dtype[Any]] = {name: dtype for dtype, name in _NAMES.items()}
_MAX_HEADER = 16 << 20


def write(path: Path, tensors: dict[str, list[np.ndarray]], metadata: dict[str, str]) -> None:
    """Each tensor is given as pieces that are joined along the first axis. The file appears whole or not at all."""
    header: dict[str, object] = {"__metadata__": metadata}
    offset = 0
    for name, pieces in tensors.items():
        dtype, tail = pieces[0].dtype, pieces[0].shape[1:]
        if dtype not in _NAMES or any(piece.dtype != dtype or piece.shape[1:] != tail for piece in pieces):
            raise ValueError(f"tensor {name}: pieces of one supported type and row shape, please")
        length = sum(piece.nbytes for piece in pieces)
        shape = [sum(len(piece) for piece in pieces), *tail]
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [offset, offset + length]}
        offset += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as place, place.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for pieces in tensors.values():
            for piece in pieces:
                file.write(np.ascontiguousarray(piece).data)


def parse(data: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors, views of `data`, and the metadata of a file's bytes."""
    view = memoryview(data).cast("B")
    length = struct.unpack_from("<Q", view)[0] if len(view) >= 8 else _MAX_HEADER + 1
    if length > _MAX_HEADER or 8 + length > len(view):
        raise ValueError("not a safetensors file")
    header = json.loads(bytes(view[8 : 8 + length]))
    metadata = header.pop("__metadata__", {})
    return {name: _view(name, entry, view[8 + length :]) for name, entry in header.items()}, metadata


def _view(name: str, entry: dict[str, Any], content: memoryview) -> np.ndarray:
    dtype = _TYPES[entry["dtype"]]
    begin, end = entry["data_offsets"]
    shape = entry["shape"]
    if any(extent < 0 for extent in shape) or not 0 <= begin <= end <= len(content) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"tensor {name} lies outside the file or disagrees with its shape")
    return np.frombuffer(content[begin:end], dtype).reshape(shape)


def read(path: Path, names: Iterable[str] | None = None) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors (all, or those named), read-only, and the metadata. They are read and not mapped: a file that is cut or written
    over afterwards changes nothing."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else _MAX_HEADER + 1
        if length > _MAX_HEADER or 8 + length > size:
            raise ValueError(f"{path} is not a safetensors file")
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        tensors = {}
        for name in header if names is None else names:
            entry = header[name]
            dtype = _TYPES[entry["dtype"]]
            begin, end = entry["data_offsets"]
            count = int(np.prod(entry["shape"], dtype=np.int64))
            if not 0 <= begin <= end <= size - 8 - length or end - begin != count * dtype.itemsize:
                raise ValueError(f"{path}: tensor {name} lies outside the file or disagrees with its shape")
            file.seek(8 + length + begin)
            data = file.read(end - begin)
            if len(data) < end - begin:
                raise ValueError(f"{path} became shorter while it was read")
            tensors[name] = np.frombuffer(data, dtype).reshape(entry["shape"])
    return tensors, metadata
