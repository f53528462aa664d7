"""Sample files as they are written and read."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from kvtc import safetensors


def test_safetensors_come_back_as_written(tmp_path: Path) -> None:
    pieces = {"a": [np.arange(6, dtype="<f2").reshape(2, 3), np.ones((1, 3), "<f2")], "b": [np.array([1, -2], "<i4")]}
    path = tmp_path / "x.safetensors"
    safetensors.write(path, pieces, {"format": "kvtc-samples-1"})
    tensors, metadata = safetensors.read(path)
    assert metadata == {"format": "kvtc-samples-1"}
    assert np.array_equal(tensors["a"], np.concatenate(pieces["a"])) and tensors["b"].tolist() == [1, -2]
    assert path.stat().st_size == 8 + struct.unpack("<Q", path.read_bytes()[:8])[0] + 18 + 8
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"1234567", struct.pack("<Q", 1 << 40), struct.pack("<Q", 64) + b"{}"])
def test_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a safetensors file"):
        safetensors.read(path)


@pytest.mark.parametrize("offsets", [[0, 9], [4, 12], [8, 0], [-8, 0]])
def test_a_tensor_outside_its_file_is_refused(tmp_path: Path, offsets: list[int]) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": offsets}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ValueError, match="tensor a"):
        safetensors.read(path)
