"""The storage backend: SGLang's calls, page by page, to kvtcd. See ``Engines/SGLang.md`` for how it is switched on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...protocol.policy import Mode
from ..keyed import KeyedPages
from ..options import Options
from ..sessions import CacheForm
from .identity import origin, rank_name
from .meter import Meter
from .pool import HostPages

try:
    from sglang.srt.mem_cache.hicache_storage import HiCacheStorage as _Base
except ImportError:
    # The class can be looked at without the engine; it serves only in one.
    _Base = object

log = logging.getLogger("kvtc")

_OWN = ("backend_name", "module_path", "class_name", "interface_v1", "hicache_storage_pass_prefix_keys")
"""Keys of SGLang's configuration that are its own."""
_NO_POSITION = (
    "SGLang says no positions, without which the mode %s can't be had: set \"hicache_storage_pass_prefix_keys\": true, "
    "or the mode to lossless (or quant8 and quant4 with a sink and window of 0)"
)


class KvtcStorage(_Base):  # type: ignore[misc]
    """``HiCacheStorage`` of one rank. A configuration that can't be served raises ValueError when SGLang starts; after that nothing
    raises: what kvtcd does not give in time is a miss."""

    def __init__(self, storage_config: Any, kwargs: Any = None) -> None:
        given = dict(storage_config.extra_config or {})
        if not given.get("interface_v1"):
            raise ValueError('kvtc needs "interface_v1": 1 beside "module_path" in --hicache-storage-backend-extra-config')
        self._options = Options.parse(given, _OWN)
        self._config = storage_config
        self._pool: HostPages | None = None
        self._pages: KeyedPages | None = None
        self._meter = Meter(0)
        self._warned = False

    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        """Raises ValueError for a pool that is not known here, and for weights that cannot be told."""
        self.mem_pool_host = mem_pool_host
        pool = HostPages(mem_pool_host)
        mode = self._options.mode
        if pool.lossless_only and mode != Mode.LOSSLESS:
            raise ValueError(f"kvtc can't use the mode {mode.name.lower()}: {pool.lossless_only}")
        made = origin(self._options, self._config, mem_pool_host)
        # A profile's geometry has RoPE as it was calibrated; the pool does not say.
        cache = CacheForm(made.identity, pool.geometry, pool.token_bytes, pool.layout, is_exact=False)
        name = f"sglang {rank_name(self._config)}".strip()
        self._meter = Meter(pool.token_bytes * pool.page_tokens)
        self._pool, self._pages = pool, KeyedPages(self._options, cache, name, pool.page_tokens, made.weights)

    def register_mem_host_pool_v2(self, host_pool: Any, host_pool_name: Any) -> None:
        """Raises ValueError for any pool but the one of keys and values: pages without the others' part would restore half a model."""
        if str(host_pool_name) != "kv":
            raise ValueError(f"kvtc keeps pools of keys and values only; this model has one of {host_pool_name}, too")

    def batch_exists(self, keys: list[str], extra_info: Any = None) -> int:
        """How many of them from the first on kvtcd has."""
        if self._pages is None:
            return 0
        try:
            return int(np.argmin([*self._pages.contains(_named(keys)), False]))
        except Exception:
            log.exception("looking up %d pages failed", len(keys))
            return 0

    def batch_get_v1(self, keys: list[str], host_indices: Any, extra_info: Any = None) -> list[bool]:
        """Brings pages into the host pool; which came."""
        if self._pages is None or self._pool is None:
            return [False] * len(keys)
        pool = self._pool
        try:
            slots = pool.first_slots(host_indices, len(keys))
            with self._meter.timed("prefetch", len(keys)):
                arrived = self._pages.get(_named(keys), lambda index, page: pool.place(slots[index], page))
            return [bool(came) for came in arrived]
        except Exception:
            log.exception("bringing %d pages failed", len(keys))
            return [False] * len(keys)

    def batch_set_v1(self, keys: list[str], host_indices: Any, extra_info: Any = None) -> list[bool]:
        """Stores pages of the host pool; which kvtcd has now."""
        if self._pages is None or self._pool is None:
            return [False] * len(keys)
        pool, before = self._pool, getattr(extra_info, "prefix_keys", None)
        if before is None and not self._serves_without_positions():
            return [False] * len(keys)
        try:
            slots, names = pool.first_slots(host_indices, len(keys)), _named(keys)
            first = None if before is None else len(before) * pool.page_tokens
            last = bytes.fromhex(before[-1]) if before else None
            with self._meter.timed("backup", len(keys)):
                kept = self._pages.set(names, lambda index: pool.page(slots[index]), first, last)
            return [bool(is_kept) for is_kept in kept]
        except Exception:
            log.exception("storing %d pages failed", len(keys))
            return [False] * len(keys)

    def exists(self, key: str) -> bool:
        return self.batch_exists([key]) == 1

    # SGLang's older interface hands over tensors of its own layout, and no positions. It is not asked for.

    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> Any:
        return None

    def batch_get(self, keys: list[str], target_locations: Any = None, target_sizes: Any = None) -> Any:
        return [None] * len(keys)

    def set(self, key: str, value: Any = None, target_location: Any = None, target_sizes: Any = None) -> bool:
        return False

    def batch_set(self, keys: list[str], values: Any = None, target_locations: Any = None, target_sizes: Any = None) -> bool:
        return False

    def clear(self) -> None:
        """Pages belong to the user, not to an engine: other engines may use them."""
        log.warning("kvtcd keeps its pages; 'kvtcctl drop' takes them away")

    def get_stats(self) -> Any:
        """What SGLang shows of a backend, since the last time that it asked; nothing where it does not want it."""
        return self._meter.take() if getattr(self._config, "enable_storage_metrics", False) else None

    def close(self) -> None:
        if self._pages is not None:
            self._pages.close()

    def _serves_without_positions(self) -> bool:
        policy, mode = self._options.policy, self._options.mode
        if mode == Mode.LOSSLESS or (mode in (Mode.QUANT8, Mode.QUANT4) and not (policy.sink or policy.window)):
            return True
        if not self._warned:
            self._warned = True
            log.error(_NO_POSITION, mode.name.lower())
        return False


def _named(keys: Sequence[str]) -> list[bytes]:
    """SGLang's keys are hexadecimal digests of all tokens up to the page's end."""
    return [bytes.fromhex(key) for key in keys]
