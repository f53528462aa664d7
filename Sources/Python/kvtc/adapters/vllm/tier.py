"""A tier beneath vLLM's offloading to memory (`TieringOffloadingSpec`): what leaves there goes to kvtcd, and is looked for there."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np

from ..background import Background
from ..keyed import KeyedPages
from ..options import Options
from .rows import Share, runs, shares

base: Any = object
lookup_base: Any = object
vllm: Any = None
job_result: Any = None
platform: Any = None
try:
    from vllm.platforms import current_platform as _platform
    from vllm.v1.kv_offload import base as _offload
    from vllm.v1.kv_offload.tiering import async_lookup as _lookup
    from vllm.v1.kv_offload.tiering import base as _tiering

    base, lookup_base, vllm = _tiering.SecondaryTierManager, _lookup.AsyncLookupManager, _offload
    job_result, platform = _tiering.JobResult, _platform
except ImportError:
    # Without the engine the module can be read, and the class not be made.
    pass

log = logging.getLogger("kvtc")

_KEY_BYTES = 36
"""A SHA-256 of everything before and the group; shorter ones are hashes that no page may be named by."""


class _Lookups(lookup_base):  # type: ignore[misc]
    """Asks in a thread of its own; the scheduler's is told to ask again."""

    def __init__(self, tier_type: str, find: Callable[[Collection[bytes]], list[bool]]) -> None:
        self._find = find
        super().__init__(tier_type=tier_type)

    def batch_lookup(self, keys: list[bytes], req_context: Any) -> list[bool]:
        return self._find(keys)


class _Sequence:
    """The chunks of one request that the tier has been told of: the key of each by where it ends."""

    def __init__(self) -> None:
        self.keys: dict[int, bytes] = {}


class KvtcTier(base):  # type: ignore[misc]
    """Keeps rows of the memory tier. Everything that waits for kvtcd does so in threads; what is not had in time is a miss.

    Options are those of the other adapters, in the tier's entry of ``secondary_tiers``. Those that cannot be raise ValueError at the start.
    """

    if vllm is not None:
        medium = vllm.Medium.STORAGE

    def __init__(
        self, offloading_spec: Any, primary_kv_view: memoryview, tier_type: str, backpressure_detector: Any = None, **options: Any
    ) -> None:
        super().__init__(offloading_spec, primary_kv_view, tier_type, backpressure_detector)
        given = Options.parse(options, ignored=("locality",))
        self._rows = np.asarray(primary_kv_view)
        self._rows = self._rows.view(np.uint8).reshape(self._rows.shape[0], -1)
        self._groups = _groups(offloading_spec, given, self._rows.shape[1])
        self._lookups = _Lookups(tier_type, self._found)
        self._stores, self._loads = Background("kvtc-tier-store", 1024), Background("kvtc-tier-load", 1024)
        self._finished: queue.SimpleQueue[tuple[Any, list[bytes]]] = queue.SimpleQueue()
        self._under_way = 0
        self._settled = threading.Condition()

    def on_new_request(self, req_context: Any) -> Any:
        req_context.set_state(_Sequence())
        return vllm.RequestOffloadingContext()

    def lookup(self, key: bytes, req_context: Any) -> Any:
        if len(key) != _KEY_BYTES or _group(key) not in self._groups:
            return vllm.LookupResult.MISS
        _note(key, req_context)
        found = self._lookups.lookup(key, req_context)
        return vllm.LookupResult.RETRY if found is None else vllm.LookupResult.HIT if found else vllm.LookupResult.MISS

    def on_schedule_end(self, context: Any) -> None:
        self._lookups.flush()

    def on_request_finished(self, req_context: Any) -> None:
        self._lookups.cleanup(req_context.req_id)

    def submit_store(self, job_metadata: Any) -> None:
        chunks: dict[int, list[tuple[int, bytes, int]]] = {}
        for key, chunk in zip(job_metadata.keys, job_metadata.chunk_ids, strict=True):
            end = _note(key, job_metadata.req_context)
            chunks.setdefault(_group(key), []).append((end or 0, key, int(chunk)))
        sequence = job_metadata.req_context.get_state(_Sequence)
        before = dict(sequence.keys) if sequence else {}
        self._submit(self._stores, job_metadata, lambda: self._store(chunks, before))

    def _store(self, chunks: dict[int, list[tuple[int, bytes, int]]], before: dict[int, bytes]) -> list[bytes]:
        kept: list[bytes] = []
        for group, of_group in chunks.items():
            of_group.sort()
            parts = self._groups.get(group, [])
            for run in runs([end for end, _, _ in of_group], parts[0][0].page_tokens if parts else 1):
                some = of_group[run.start : run.stop]
                keys = [key for _, key, _ in some]
                there = np.full(len(keys), bool(parts))
                for share, pages in parts:
                    there &= self._set(share, pages, some, before)
                kept += [key for key, is_there in zip(keys, there, strict=True) if is_there]
        return kept

    def _set(self, share: Share, pages: KeyedPages, some: list[tuple[int, bytes, int]], before: dict[int, bytes]) -> Any:
        first = some[0][0] - share.page_tokens
        area = slice(share.offset, share.offset + share.length)
        return pages.set(
            [key for _, key, _ in some],
            lambda index: self._rows[some[index][2], area],
            # Without a known position it has none.
            first if first >= 0 else None,
            before.get(first),
        )

    def submit_load(self, job_metadata: Any) -> None:
        keys, places = list(job_metadata.keys), [int(chunk) for chunk in job_metadata.chunk_ids]
        self._submit(self._loads, job_metadata, lambda: self._load(keys, places))

    def _load(self, keys: list[bytes], places: list[int]) -> list[bytes]:
        arrived: list[bytes] = []
        for group, parts in self._groups.items():
            mine = [index for index, key in enumerate(keys) if _group(key) == group]
            there = np.ones(len(mine), bool)
            for share, pages in parts:
                area = slice(share.offset, share.offset + share.length)

                def place(index: int, page: np.ndarray, mine: list[int] = mine, area: slice = area) -> None:
                    self._rows[places[mine[index]], area] = page

                there &= pages.get([keys[index] for index in mine], place)
            arrived += [keys[index] for index, is_there in zip(mine, there, strict=True) if is_there]
        return arrived

    def _submit(self, thread: Background, job: Any, work: Callable[[], list[bytes]]) -> None:
        keys = list(job.keys)
        with self._settled:
            self._under_way += 1

        def done(kept: list[bytes]) -> None:
            lost = sorted(set(keys) - set(kept)) if job.is_promotion else []
            kept_or_none = tuple(kept) if job.is_promotion and len(kept) < len(keys) else None
            self._finished.put((job_result(job.job_id, len(kept) == len(keys), kept_or_none), lost))
            with self._settled:
                self._under_way -= 1
                self._settled.notify_all()

        def run() -> None:
            kept: list[bytes] = []
            try:
                kept = work()
            finally:
                done(kept)

        if not thread.submit(run):
            done([])

    def get_finished_jobs(self) -> Iterable[Any]:
        results = []
        while not self._finished.empty():
            result, lost = self._finished.get()
            # Else the scheduler would ask for the same promotion for ever.
            self._lookups.mark_miss(lost)
            results.append(result)
        return results

    def drain_jobs(self) -> None:
        with self._settled:
            self._settled.wait_for(lambda: self._under_way == 0)

    def shutdown(self) -> None:
        self._lookups.shutdown()
        for thread in (self._stores, self._loads):
            thread.close()
        for parts in self._groups.values():
            for _, pages in parts:
                pages.close()

    def _found(self, keys: Collection[bytes]) -> list[bool]:
        asked = list(keys)
        there = np.zeros(len(asked), bool)
        for group, parts in self._groups.items():
            mine = [index for index, key in enumerate(asked) if _group(key) == group]
            found = np.ones(len(mine), bool)
            for _, pages in parts:
                found &= pages.contains([asked[index] for index in mine])
            there[mine] = found
        return [bool(value) for value in there]


def _groups(spec: Any, options: Options, row_bytes: int) -> dict[int, list[tuple[Share, KeyedPages]]]:
    """Each group's shares and their pages; none, and a sentence in the log, where rows cannot be kept."""
    try:
        found = shares(
            spec.config,
            spec.blocks_per_chunk,
            options,
            platform.is_cuda_alike(),
            is_single=bool(spec.replicated_layout or spec.config.canonical_layout),
        )
    except ValueError as error:
        log.error("kvtcd keeps nothing of this engine: %s", error)
        return {}
    if any(share.offset + share.length > row_bytes for of_group in found.values() for share in of_group):
        log.error("kvtcd keeps nothing of this engine: rows of %d bytes are shorter than what its ranks hold", row_bytes)
        return {}
    return {
        group: [
            (share, KeyedPages(options, share.form, f"vllm tier {share.form.identity.part}", share.page_tokens, _weights(share)))
            for share in of_group
        ]
        for group, of_group in found.items()
    }


def _weights(share: Share) -> bytes:
    weights = share.form.identity.weights
    return weights if isinstance(weights, bytes) else b""


def _group(key: bytes) -> int:
    return int.from_bytes(key[-4:], "big")


def _note(key: bytes, context: Any) -> int | None:
    """Where the chunk of that key ends in its request's sequence, remembered for those after it."""
    end: int | None = context.get_offload_key_position(key)
    sequence = context.get_state(_Sequence)
    if end is not None and sequence is not None:
        sequence.keys[end] = key
    return end
