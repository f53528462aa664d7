"""libkvtc as a program in C has it, called from here: the structures and functions of kvtc.h."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from ctypes import (
    POINTER,
    byref,
    c_bool,
    c_char_p,
    c_float,
    c_int,
    c_size_t,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kvtc.protocol.geometry import Geometry, Layout
from kvtc.protocol.policy import Policy

OK, UNAVAILABLE, REFUSED, INVALID = range(4)
NOT_SENT = 255

Place = Callable[[int, int, int, np.ndarray], None]
"""Takes layers [begin, end) of the page of an index: (index, begin, end, bytes)."""


class Key(ctypes.Structure):
    _fields_: ClassVar = [("bytes", c_uint8 * 32)]


class Tensor(ctypes.Structure):
    _fields_: ClassVar = [(name, c_uint16) for name in ("layer", "heads", "head_dim", "rotary_offset", "rotary_dims")] + [
        ("role", c_uint8),
        ("rotary_style", c_uint8),
    ]


class PolicyFields(ctypes.Structure):
    _fields_: ClassVar = [
        ("sink", c_uint32),
        ("window", c_uint32),
        ("ttl_seconds", c_uint32),
        ("quality", c_float),
        ("distortion_limit", c_float),
        ("near", c_float),
        ("mode", c_uint8),
        ("quality_kind", c_uint8),
        ("priority", c_uint8),
        ("pin", c_bool),
    ]


class Options(ctypes.Structure):
    _fields_: ClassVar = [
        ("size", c_size_t),
        ("socket", c_char_p),
        ("name", c_char_p),
        ("identity", c_char_p),
        ("identity_bytes", c_size_t),
        ("profile", c_char_p),
        ("tensors", POINTER(Tensor)),
        ("tensor_count", c_size_t),
        ("rope_frequencies", POINTER(c_float)),
        ("rope_frequency_count", c_size_t),
        ("element", c_uint8),
        ("order", c_uint8),
        ("grouping", c_uint8),
        ("value_transposed", c_bool),
        ("page_tokens", c_uint32),
        ("policy", PolicyFields),
        ("arena_bytes", c_size_t),
        ("timeout_ms", c_uint32),
        ("code", c_uint8),
    ]


class Page(ctypes.Structure):
    _fields_: ClassVar = [("key", Key), ("first_token", c_uint32), ("tokens", c_uint32), ("bytes", c_void_p)]


_PLACE = ctypes.CFUNCTYPE(None, c_void_p, c_size_t, c_uint16, c_uint16, c_void_p, c_size_t)


class Failed(RuntimeError):
    """A call was not KVTC_OK."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Library:
    """The shared library; ``session`` opens what kvtc.h calls one."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(os.fspath(path), use_errno=True)
        self.c.kvtc_error.restype = self.c.kvtc_version.restype = c_char_p
        self.c.kvtc_token_bytes.restype = c_size_t
        for name in ("kvtc_open", "kvtc_page_keys", "kvtc_lookup", "kvtc_release", "kvtc_push", "kvtc_pull", "kvtc_prefetch",
                     "kvtc_truncate", "kvtc_set_policy", "kvtc_flush", "kvtc_drop"):  # fmt: skip
            getattr(self.c, name).restype = c_int
        self.c.kvtc_close.restype = None

    def check(self, status: int) -> None:
        if status != OK:
            raise Failed(status, self.c.kvtc_error().decode())

    def page_keys(self, tokens: Sequence[int], page_tokens: int, profile: bytes = b"") -> list[bytes]:
        ids = np.asarray(tokens, np.int32)
        keys = (Key * (len(ids) // page_tokens))()
        self.check(self.c.kvtc_page_keys(c_void_p(ids.ctypes.data), c_size_t(len(ids)), c_uint32(page_tokens), profile or None, None, keys))
        return [bytes(key.bytes) for key in keys]

    def options(
        self, socket: str, identity: bytes, geometry: Geometry, layout: Layout, *, profile: bytes = b"", policy: Policy | None = None
    ) -> Options:
        """Options with the rest as kvtc_options_init() fills it in. One table of frequencies at most."""
        options = Options()
        self.c.kvtc_options_init(byref(options))
        options.socket, options.identity, options.identity_bytes = socket.encode(), identity, len(identity)
        options.profile = profile or None
        fields = [name for name, _ in Tensor._fields_]
        tensors = (Tensor * len(geometry.tensors))(*(Tensor(*(int(getattr(t, name)) for name in fields)) for t in geometry.tensors))
        (table,) = geometry.rope_tables or [[]]
        options.tensors, options.tensor_count = tensors, len(tensors)
        options.rope_frequencies, options.rope_frequency_count = (c_float * len(table))(*table), len(table)
        options.element, options.order, options.grouping = layout.element, layout.order, layout.grouping
        options.value_transposed = layout.value_transposed
        if policy:
            options.policy = c_policy(policy)
        return options

    def session(self, options: Options) -> CSession:
        return CSession(self, options)


def c_policy(policy: Policy) -> PolicyFields:
    return PolicyFields(
        policy.sink, policy.window, policy.ttl_seconds, policy.quality, policy.distortion_limit or 0, policy.near or 0,
        policy.mode, policy.quality_kind, policy.priority, policy.pin,
    )  # fmt: skip


class CSession:
    """Raises Failed for whatever is not KVTC_OK; opening is none of that where the daemon is only away: see `opened`."""

    def __init__(self, library: Library, options: Options) -> None:
        self._library, self._handle = library, c_void_p()
        self.opened = library.c.kvtc_open(byref(options), byref(self._handle))
        if not self._handle:
            raise Failed(self.opened, library.c.kvtc_error().decode())

    def __enter__(self) -> CSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._library.c.kvtc_close(self._handle)
        self._handle = c_void_p()

    @property
    def token_bytes(self) -> int:
        return int(self._library.c.kvtc_token_bytes(self._handle))

    def call(self, name: str, *arguments: Any) -> None:
        self._library.check(getattr(self._library.c, name)(self._handle, *arguments))

    def lookup(self, keys: Sequence[bytes], lease_ms: int = 0) -> tuple[int, int, list[int]]:
        """The leading run, the lease, and where each is."""
        run, lease, residence = c_size_t(), c_uint64(), (c_uint8 * len(keys))()
        self.call("kvtc_lookup", _keys(keys), c_size_t(len(keys)), c_uint32(lease_ms), byref(run), byref(lease), residence)
        return run.value, lease.value, list(residence)

    def push(self, pages: Sequence[tuple[bytes, int, int, np.ndarray]]) -> list[int]:
        """Pages (key, first token, tokens, bytes); what became of each."""
        made = [np.ascontiguousarray(page).view(np.uint8) for _, _, _, page in pages]
        items = (Page * len(pages))(
            *(Page(_key(key), first, tokens, data.ctypes.data) for (key, first, tokens, _), data in zip(pages, made, strict=True))
        )
        outcomes = (c_uint8 * len(pages))()
        self.call("kvtc_push", items, c_size_t(len(pages)), outcomes)
        return list(outcomes)

    def pull(self, keys: Sequence[bytes], place: Place, *, lease: int = 0, layer_step: int = 0) -> list[int]:
        outcomes = (c_uint8 * len(keys))()

        def take(_: object, index: int, begin: int, end: int, address: int, length: int) -> None:
            place(index, begin, end, np.ctypeslib.as_array(ctypes.cast(address, POINTER(c_uint8)), (length,)))

        self.call("kvtc_pull", _keys(keys), c_size_t(len(keys)), c_uint64(lease), c_uint16(layer_step), _PLACE(take), None, outcomes)
        return list(outcomes)

    def truncate(self, tokens: int) -> None:
        self.call("kvtc_truncate", c_uint32(tokens))

    def set_policy(self, policy: Policy) -> None:
        self.call("kvtc_set_policy", byref(c_policy(policy)))

    def with_keys(self, name: str, keys: Sequence[bytes]) -> None:
        """kvtc_prefetch or kvtc_drop."""
        self.call(name, _keys(keys), c_size_t(len(keys)))

    def flush(self) -> None:
        self.call("kvtc_flush")

    def release(self, lease: int) -> None:
        self.call("kvtc_release", c_uint64(lease))


def _key(key: bytes) -> Key:
    return Key.from_buffer_copy(key)


def _keys(keys: Sequence[bytes]) -> ctypes.Array[Key]:
    return (Key * len(keys))(*map(_key, keys))
