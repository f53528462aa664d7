"""What a cache's keys and values depend on besides the token ids.

A page key names token ids. Whether a page is the right one also depends on the weights and adapters that computed it, on how
the engine stores it, on which rank it belongs to. ``Identity`` takes all of that and makes 32 bytes of it, which the daemon
mixes into the keys of a session: sessions of different identities never meet each other's pages.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real

import numpy as np

from .digests import file_digest

DOMAIN = b"kvtc-identity-v1"

File = str | os.PathLike[str]
Content = bytes | File
"""A digest of 16 to 64 bytes that the caller made, or a file to make one of."""
Scales = float | Sequence[float] | np.ndarray | Mapping[str, float | Sequence[float] | np.ndarray]


@dataclass(frozen=True, eq=False)
class Identity:
    """Equal identities have equal digests, different ones different digests; what cannot be told apart is refused.

    ``weights``: the model file, or all files of a model in any order; they are named by their content, whatever they are
    called. Or a digest of them. ``adapters``: in the order in which they are applied, a file (or digest) and its scale each.
    ``kv_type``: how the engine stores K and V where pages do not show it ("fp8_e4m3", "q8_0"), ``kv_scales``: what has to be
    multiplied to the stored numbers: a number, an array, or several by name. ``part``: the rank of a parallel model, or a
    group of layers with tokens of its own ("tp0/2", "sliding"). ``salt``: keeps pages of tenants or requests of one engine
    apart (``dataclasses.replace(identity, salt=…)`` makes another). ``extra``: whatever else K and V
    depend on, such as the base of RoPE where a run changes it.

    Raises TypeError and ValueError that name the argument.
    """

    weights: Content | Sequence[File]
    adapters: Sequence[tuple[Content, float]] = ()
    kv_type: str = ""
    kv_scales: Scales | None = None
    part: str = ""
    salt: bytes | str = field(default=b"", repr=False)
    extra: Mapping[str, str | bytes | float] = field(default_factory=dict)
    #: The 32 bytes that OPEN_SESSION carries.
    digest: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = [
            _weights(self.weights),
            _adapters(self.adapters),
            _text("kv_type", self.kv_type),
            _scales(self.kv_scales),
            _text("part", self.part),
            _salt(self.salt),
            _mapping("extra", self.extra, _value),
        ]
        object.__setattr__(self, "digest", hashlib.sha256(DOMAIN + _list(parts)).digest())

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Identity) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)


def identity_bytes(identity: Identity | bytes) -> bytes:
    """What OPEN_SESSION carries of an identity, or of bytes that the caller made of everything named above."""
    if isinstance(identity, Identity):
        return identity.digest
    if not isinstance(identity, bytes):
        raise TypeError(f"identity must be an Identity or bytes, not {type(identity).__name__}")
    return identity


# The encoding: a tag, a length, the content. Nothing of one kind or field reads as another.


def _tagged(tag: bytes, content: bytes) -> bytes:
    return tag + struct.pack("<Q", len(content)) + content


def _list(items: Sequence[bytes]) -> bytes:
    return _tagged(b"l", b"".join(items))


def _text(name: str, value: object) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    try:
        return _tagged(b"s", value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not valid Unicode: {value!r}") from None


def _number(name: str, value: object) -> bytes:
    """Numbers are equal by value, whatever their type: 1, 1.0 and True are the same, as they are for ==."""
    if not isinstance(value, (Real, np.bool_)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if isinstance(value, (int, np.integer, np.bool_)):
        return _tagged(b"i", str(int(value)).encode())
    exact = float(value)
    if not math.isfinite(exact):
        raise ValueError(f"{name} is {exact}; only finite numbers can be told apart")
    if exact != value:
        raise ValueError(f"{name} is {value!r}, which no float represents exactly")
    return _tagged(b"i", str(int(exact)).encode()) if exact.is_integer() else _tagged(b"f", struct.pack("<d", exact))


def _array(name: str, value: object) -> bytes:
    """Shape and elements, which count by value."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold numbers that numpy knows as such, not {array.dtype}")
    exact = array.astype("<f8")
    if not np.isfinite(exact).all():
        raise ValueError(f"{name} holds NaN or infinities; only finite numbers can be told apart")
    if (array.dtype.kind != "f" and (abs(exact) > 2.0**53).any()) or not (exact.astype(array.dtype) == array).all():
        raise ValueError(f"{name} holds numbers of more than 53 bits")
    # Minus zero is zero.
    return _list([struct.pack(f"<{1 + array.ndim}Q", array.ndim, *array.shape), (exact + 0.0).tobytes()])


def _value(name: str, value: object) -> bytes:
    if isinstance(value, str):
        return _text(name, value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _tagged(b"b", bytes(value))
    if isinstance(value, (Real, np.bool_)):
        return _number(name, value)
    raise TypeError(f"{name} must be str, bytes or a number, not {type(value).__name__}")


def _mapping(name: str, value: object, encode: Callable[[str, object], bytes]) -> bytes:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping, not {type(value).__name__}")
    items = [(_text(f"a key of {name}", key), encode(f"{name}[{key!r}]", item)) for key, item in value.items()]
    return _tagged(b"m", b"".join(key + item for key, item in sorted(items)))


def _salt(value: object) -> bytes:
    if not isinstance(value, (str, bytes)):
        raise TypeError(f"salt must be bytes or str, not {type(value).__name__}")
    return _value("salt", value) if value else _list([])


def _scales(value: object) -> bytes:
    if value is None:
        return _list([])
    return _mapping("kv_scales", value, _scale) if isinstance(value, Mapping) else _scale("kv_scales", value)


def _scale(name: str, value: object) -> bytes:
    return _number(name, value) if isinstance(value, Real) else _array(name, value)


def _content(name: str, value: object) -> bytes:
    if isinstance(value, bytes):
        if not 16 <= len(value) <= 64:
            raise ValueError(f"{name} of {len(value)} bytes is no digest, which has 16 to 64; a file is named by a path")
        return _tagged(b"d", value)
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a digest in bytes or the path of a file, not {type(value).__name__}")
    try:
        return _tagged(b"d", file_digest(value))
    except OSError as error:
        raise ValueError(f"{name}: cannot read {os.fspath(value)}: {error.strerror or error}") from None


def _weights(value: object) -> bytes:
    if isinstance(value, (bytes, str, os.PathLike)):
        return _list([_content("weights", value)])
    if not isinstance(value, Sequence) or not value:
        raise TypeError("weights must be a digest in bytes, the path of a file, or a list of all files of the model")
    return _list(sorted(_content(f"weights[{index}]", item) for index, item in enumerate(value)))


def _adapters(value: object) -> bytes:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError("adapters must be a list of pairs: a file (or digest) and its scale")
    items = []
    for index, item in enumerate(value):
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise TypeError(f"adapters[{index}] must be a pair: a file (or digest) and its scale")
        items += [_content(f"adapters[{index}]", item[0]), _number(f"the scale of adapters[{index}]", item[1])]
    return _list(items)
