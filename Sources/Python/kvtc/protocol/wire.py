"""Bytes on the wire: the frame header, primitive encodings and the base of every message.

Little endian, packed. A message is a dataclass whose fields carry their encoding (``u32()``, ``text()``…), so that the
declaration in ``messages.py`` is the whole definition. Decoding checks every length against what is left of the body
before anything is allocated.
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import IntEnum
from numbers import Real
from typing import Any, ClassVar, Self, TypeVar

from .errors import ErrorCode, WireError

MAGIC = 0x3154564B
VERSION = 1
HEADER = struct.Struct("<IHHQII")
MAX_BODY = 64 << 20
NONE32 = 0xFFFFFFFF
REPLY = 0x8000
MORE = 0x80000000
KEY_BYTES = 32


class Opcode(IntEnum):
    HELLO = 1
    ARENA = 2
    OPEN_SESSION = 3
    SET_POLICY = 4
    LOOKUP = 5
    PUSH = 6
    PULL = 7
    RELEASE = 8
    PREFETCH = 9
    TOUCH = 10
    DROP = 11
    CLOSE_SESSION = 12
    STATUS = 13
    FLUSH = 14
    PROFILE = 15
    PING = 16
    GET_POLICY = 17
    VERIFY = 18
    TRUNCATE = 19
    STORE_PROFILE = 20
    LOOKUP_BLOCKS = 21
    PULL_BLOCKS = 22
    PUSH_BLOCKS = 23
    PROFILE_FILE = 24
    DRAIN = 25
    EXPLAIN = 26
    SHARED = 27


@dataclass(frozen=True)
class Header:
    """The 24 bytes before every body. ``status`` is the flags word of a request (0) and the outcome of a reply."""

    opcode: int
    request: int
    status: int
    length: int

    def encode(self) -> bytes:
        return HEADER.pack(MAGIC, VERSION, self.opcode, self.request, self.status, self.length)

    @classmethod
    def decode(cls, data: bytes) -> Header:
        if len(data) < HEADER.size:
            raise WireError(ErrorCode.TRUNCATED, "header", f"{len(data)} of {HEADER.size} bytes")
        magic, version, opcode, request, status, length = HEADER.unpack_from(data)
        if magic != MAGIC:
            raise WireError(ErrorCode.BAD_MAGIC, "magic", f"0x{magic:08x} instead of 0x{MAGIC:08x}")
        if version != VERSION:
            raise WireError(ErrorCode.BAD_VERSION, "version", f"{version} instead of {VERSION}")
        if length > MAX_BODY:
            raise WireError(ErrorCode.TOO_LARGE, "length", f"a body of {length} bytes; the limit is {MAX_BODY}")
        return cls(opcode, request, status, length)


class Reader:
    """A cursor over one body. Every read names the field it is for, so that an error says what was cut short."""

    def __init__(self, data: bytes | bytearray | memoryview):
        self.data = memoryview(data).cast("B") if len(data) else memoryview(b"")
        self.position = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.position

    def take(self, count: int, name: str) -> memoryview:
        if count > self.left:
            raise WireError(ErrorCode.TRUNCATED, name, f"needs {count} bytes, {self.left} are left")
        start = self.position
        self.position += count
        return self.data[start : self.position]

    def finish(self) -> None:
        if self.left:
            raise WireError(ErrorCode.TRAILING_BYTES, "body", f"{self.left} bytes after the last field")


@dataclass(frozen=True)
class Encoding:
    """How one field is written and read. ``least`` is its smallest size: a list's count is checked against it. ``check`` turns what
    a caller gave into what the field holds, or raises TypeError or ValueError that names the field."""

    write: Callable[[Any, bytearray, str], None]
    read: Callable[[Reader, str], Any]
    least: int
    check: Callable[[Any, str], Any] = lambda value, name: value


E = TypeVar("E", bound=IntEnum)


def whole(value: object, name: str, least: int = 0, most: int = 0xFFFFFFFF) -> int:
    """The value as an int from ``least`` to ``most``."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None
    if not least <= number <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {number}")
    return number


def real(value: object, name: str) -> float:
    """The value as a float that fits in 32 bits."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    number = float(value)
    if not math.isfinite(number) or abs(number) > 3.4028234663852886e38:
        raise ValueError(f"{name} must be a finite 32-bit number, not {value!r}")
    return number


def member(value: object, name: str, kind: type[E]) -> E:
    """The member of the enumeration, which may be given by its name in small letters."""
    try:
        if isinstance(value, str):
            return kind[value.upper()]
        return kind(whole(value, name))
    except (KeyError, ValueError):
        names = ", ".join(item.name.lower() for item in kind)
        raise ValueError(f"{name} must be one of {names}, not {value!r}") from None


def received(value: int, name: str, kind: type[E]) -> E:
    """The member of the enumeration that a reply names by number."""
    try:
        return kind(value)
    except ValueError:
        raise WireError(ErrorCode.INVALID_FIELD, name, f"{value} is not a known {kind.__name__}") from None


def _number(code: str, convert: type[IntEnum] | None = None) -> Encoding:
    packed = struct.Struct("<" + code)

    def check(value: Any, name: str) -> Any:
        if convert is not None:
            return member(value, name, convert)
        return real(value, name) if code == "f" else whole(value, name, 0, 256**packed.size - 1)

    def write(value: Any, out: bytearray, name: str) -> None:
        try:
            out += packed.pack(value)
        except (struct.error, OverflowError) as error:
            raise WireError(ErrorCode.INVALID_FIELD, name, f"{value!r} does not fit: {error}") from None

    def read(reader: Reader, name: str) -> Any:
        (value,) = packed.unpack(reader.take(packed.size, name))
        if convert is None:
            return value
        try:
            return convert(value)
        except ValueError:
            raise WireError(ErrorCode.INVALID_FIELD, name, f"{value} is not a known {convert.__name__}") from None

    return Encoding(write, read, packed.size, check)


U8, U16, U32, U64, F32 = (_number(code) for code in "BHIQf")


def _write_blob(value: Any, out: bytearray, name: str) -> None:
    U32.write(len(value), out, name)
    out += value


def _read_blob(reader: Reader, name: str) -> bytes:
    return bytes(reader.take(U32.read(reader, name), name))


def _read_text(reader: Reader, name: str) -> str:
    try:
        return _read_blob(reader, name).decode()
    except UnicodeDecodeError as error:
        raise WireError(ErrorCode.INVALID_FIELD, name, f"not UTF-8: {error.reason}") from None


def _write_key(value: bytes, out: bytearray, name: str) -> None:
    if len(value) != KEY_BYTES:
        raise WireError(ErrorCode.INVALID_FIELD, name, f"a page key has {KEY_BYTES} bytes, this one {len(value)}")
    out += value


BLOB = Encoding(_write_blob, _read_blob, 4)
# Bulk payloads stay views of the received body: copying 64 MiB to slice it again would double the traffic.
VIEW = Encoding(_write_blob, lambda reader, name: reader.take(U32.read(reader, name), name), 4)
TEXT = Encoding(lambda value, out, name: _write_blob(value.encode(), out, name), _read_text, 4)
KEY = Encoding(_write_key, lambda reader, name: bytes(reader.take(KEY_BYTES, name)), KEY_BYTES)


def list_of(item: Encoding) -> Encoding:
    """A u32 count and the items, one after another."""

    def write(values: Any, out: bytearray, name: str) -> None:
        U32.write(len(values), out, name)
        for index, value in enumerate(values):
            item.write(value, out, f"{name}[{index}]")

    def read(reader: Reader, name: str) -> list[Any]:
        count = U32.read(reader, name)
        if count * item.least > reader.left:
            raise WireError(ErrorCode.TRUNCATED, name, f"{count} items do not fit in {reader.left} bytes")
        return [item.read(reader, f"{name}[{index}]") for index in range(count)]

    def check(values: Any, name: str) -> list[Any]:
        if isinstance(values, (str, bytes)):
            raise TypeError(f"{name} must be a list, not {values!r}")
        try:
            items = list(values)
        except TypeError:
            raise TypeError(f"{name} must be a list, not {values!r}") from None
        return [item.check(value, f"{name}[{index}]") for index, value in enumerate(items)]

    return Encoding(write, read, 4, check)


def wired(encoding: Encoding, **options: Any) -> Any:
    """A dataclass field with its encoding; ``options`` are those of ``dataclasses.field``."""
    return field(metadata={"wire": encoding}, **options)


def flagged(encoding: Encoding, bit: int) -> Any:
    """An optional dataclass field: None, or on the wire, as that bit of the message's ``flags``, an earlier field, says."""
    return field(default=None, metadata={"wire": encoding, "bit": bit})


def enum_of(kind: type[IntEnum]) -> Encoding:
    """One byte that must be a member of the enumeration."""
    return _number("B", kind)


class Struct:
    """Base of dataclasses whose fields are all made with ``wired``."""

    OPCODE: ClassVar[Opcode]

    def write(self, out: bytearray, prefix: str = "") -> None:
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if value is not None or "bit" not in item.metadata:
                item.metadata["wire"].write(value, out, prefix + item.name)

    def encode(self) -> bytearray:
        """The body of this message."""
        out = bytearray()
        self.write(out)
        return out

    @classmethod
    def read(cls, reader: Reader, prefix: str = "") -> Self:
        values: dict[str, Any] = {}
        for item in fields(cls):  # type: ignore[arg-type]
            if values.get("flags", 0) & item.metadata.get("bit", 0) == item.metadata.get("bit", 0):
                values[item.name] = item.metadata["wire"].read(reader, prefix + item.name)
        return cls(**values)

    @classmethod
    def decode(cls, body: bytes | bytearray | memoryview) -> Self:
        """Reads exactly one message; bytes left over are an error."""
        reader = Reader(body)
        message = cls.read(reader)
        reader.finish()
        return message

    @classmethod
    def encoding(cls) -> Encoding:
        """This struct as a field of another."""
        least = sum(item.metadata["wire"].least for item in fields(cls) if "bit" not in item.metadata)  # type: ignore[arg-type]

        def check(value: Any, name: str) -> Any:
            if not isinstance(value, cls):
                raise TypeError(f"{name} must be a {cls.__name__}, not {value!r}")
            return value

        return Encoding(
            lambda value, out, name: value.write(out, name + "."), lambda reader, name: cls.read(reader, name + "."), least, check
        )


class Checked(Struct):
    """Base of the structs that callers fill in: a field takes what its encoding can hold, or raises TypeError or ValueError
    that names it."""

    def __setattr__(self, name: str, value: object) -> None:
        item = self.__dataclass_fields__.get(name)  # type: ignore[attr-defined]
        if item is not None and (value is not None or "bit" not in item.metadata):
            value = item.metadata["wire"].check(value, name)
        self._check(name, value)
        object.__setattr__(self, name, value)

    def _check(self, name: str, value: Any) -> None:
        """What a field's encoding does not say, before it is set."""

    @classmethod
    def read(cls, reader: Reader, prefix: str = "") -> Self:
        try:
            return super().read(reader, prefix)
        except (TypeError, ValueError) as error:
            raise WireError(ErrorCode.INVALID_FIELD, prefix.rstrip("."), str(error)) from None


def frame(opcode: int, request: int, body: bytes | bytearray, status: int = 0) -> bytes:
    """A whole frame: header and body."""
    if len(body) > MAX_BODY:
        raise WireError(ErrorCode.TOO_LARGE, "body", f"{len(body)} bytes; the limit is {MAX_BODY}")
    return Header(opcode, request, status, len(body)).encode() + bytes(body)
