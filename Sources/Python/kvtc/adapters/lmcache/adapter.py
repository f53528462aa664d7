"""The L2 adapter: LMCache's tasks, a batch of objects each, to kvtcd. See ``Engines/LMCache.md`` for how it is switched on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np

from ...identity import Identity
from ...protocol.policy import Mode
from ..counters import Counters
from ..keyed import KeyedPages
from ..late import LateClient
from ..options import Options
from ..sessions import CacheForm
from ..weights import model_directory, model_files, weights_digest
from .objects import ObjectForm, object_form, object_key
from .tasks import Tasks

try:
    from lmcache.v1.distributed.l2_adapters.base import L2AdapterInterface as _Base
except ImportError:
    # The class can be looked at without LMCache; it serves only there.
    _Base = object

log = logging.getLogger("kvtc")

_HOLD = 2.0
"""Objects that were found stay for so many deadlines, in which they are loaded."""
_SHORT_HASH = 16
_CACHES = 128
"""Sessions at most: one a model and shape of its objects."""
_MODES = (Mode.LOSSLESS, Mode.QUANT8, Mode.QUANT4)


class KvtcL2Adapter(_Base):  # type: ignore[misc]
    """One adapter of one LMCache server, for all of its models and ranks. A configuration that can't be served raises ValueError when
    LMCache starts; after that nothing raises: what kvtcd does not give in time is not found, or not loaded."""

    def __init__(self, params: Mapping[str, Any], l1_memory_desc: Any = None) -> None:
        super().__init__()
        self._options = _options(params)
        self._link = LateClient(self._options, "lmcache")
        self._counters = Counters()
        self._lock = threading.Lock()
        self._weights: dict[str, bytes | None] = {}
        self._pages: dict[tuple[bytes, ObjectForm], KeyedPages] = {}
        self._forms: dict[tuple[str, int, int], ObjectForm] = {}
        self._said: set[str] = set()
        if self._options.model:
            # Its weights are read now, not when the first request waits.
            self._weights_of("")
        self._bitmap: Any = import_module("lmcache.lmcache_native").Bitmap
        self._stored: Any = import_module("lmcache.v1.distributed.internal_api").L2StoreResult
        self._stores: Tasks[Any] = Tasks("kvtc-lmcache-store")
        self._lookups: Tasks[Any] = Tasks("kvtc-lmcache-lookup")
        self._loads: Tasks[Any] = Tasks("kvtc-lmcache-load")

    def get_store_event_fd(self) -> int:
        return self._stores.descriptor

    def get_lookup_and_lock_event_fd(self) -> int:
        return self._lookups.descriptor

    def get_load_event_fd(self) -> int:
        return self._loads.descriptor

    def submit_store_task(self, keys: Sequence[Any], objects: Sequence[Any]) -> int:
        return self._stores.submit(lambda: self._store(list(keys), list(objects)), lambda: self._stored(False, 0))

    def pop_completed_store_tasks(self) -> dict[int, Any]:
        return self._stores.take_all()

    def submit_lookup_and_lock_task(self, keys: Sequence[Any], group_layout_descs: Mapping[int, Any]) -> int:
        told = dict(group_layout_descs)
        return self._lookups.submit(lambda: self._look_up(list(keys), told), lambda: self._bitmap(len(keys)))

    def query_lookup_and_lock_result(self, task_id: int) -> Any:
        return self._lookups.take(task_id)

    def submit_unlock(self, keys: Sequence[Any]) -> None:
        """kvtcd's leases end by themselves, soon after what they were for."""

    def submit_load_task(self, keys: Sequence[Any], objects: Sequence[Any]) -> int:
        return self._loads.submit(lambda: self._load(list(keys), list(objects)), lambda: self._bitmap(len(keys)))

    def query_load_result(self, task_id: int) -> Any:
        return self._loads.take(task_id)

    def delete(self, keys: Sequence[Any]) -> None:
        """Forgets objects that this adapter has stored, loaded or looked up before: of others it does not know the form."""
        try:
            for form, indices, pages in self._grouped(keys, [self._form_of(key, {}) for key in keys]):
                there = [index for index, found in zip(indices, pages.contains(_named(keys, indices)), strict=True) if found]
                if pages.drop(_named(keys, there)):
                    self._notify_keys_deleted([keys[index] for index in there], [form.bytes] * len(there))
        except Exception:
            log.exception("deleting %d objects failed", len(keys))

    def close(self) -> None:
        with self._lock:
            pages = list(self._pages.values())
        for one in pages:
            one.close()
        self._link.close()
        for tasks in (self._stores, self._lookups, self._loads):
            tasks.close()

    def report_status(self) -> dict[str, Any]:
        with self._lock:
            refusals = [pages.refusal for pages in self._pages.values() if pages.refusal]
        about = {"is_healthy": not refusals, "type": type(self).__name__, "mode": self._options.mode.name.lower(), "refusals": refusals}
        return about | {"objects": self._counters.snapshot()}

    def _store(self, keys: list[Any], objects: list[Any]) -> Any:
        forms = [object_form(item) for item in objects]
        kept = np.zeros(len(keys), bool)
        for form, indices, pages in self._grouped(keys, forms):
            own = [objects[index].byte_array for index in indices]
            kept[indices] = pages.set(_named(keys, indices), _reader(form, own))
        stored = np.flatnonzero(kept).tolist()
        sizes = [forms[index].bytes for index in stored]
        if stored:
            self._notify_keys_stored([keys[index] for index in stored], sizes)
        return self._stored(len(stored) == len(keys), sum(sizes))

    def _look_up(self, keys: list[Any], told: dict[int, Any]) -> Any:
        return self._marked(
            keys,
            [self._form_of(key, told) for key in keys],
            lambda pages, names, _form, _indices: pages.contains(names, hold=_HOLD * self._options.deadline),
        )

    def _load(self, keys: list[Any], objects: list[Any]) -> Any:
        def load(pages: KeyedPages, names: list[bytes], form: ObjectForm, indices: list[int]) -> Any:
            return pages.get(names, lambda at, page: form.place(page, objects[indices[at]].byte_array))

        loaded = self._marked(keys, [object_form(item) for item in objects], load)
        if accessed := [key for index, key in enumerate(keys) if loaded.test(index)]:
            self._notify_keys_accessed(accessed)
        return loaded

    def _marked(
        self,
        keys: list[Any],
        forms: list[ObjectForm | None],
        ask: Callable[[KeyedPages, list[bytes], ObjectForm, list[int]], Any],
    ) -> Any:
        """A bitmap of the keys for which the answer is yes."""
        marks = self._bitmap(len(keys))
        for form, indices, pages in self._grouped(keys, forms):
            for index, is_so in zip(indices, ask(pages, _named(keys, indices), form, indices), strict=True):
                if is_so:
                    marks.set(index)
        return marks

    def _form_of(self, key: Any, told: Mapping[int, Any]) -> ObjectForm | None:
        """The form of an object that is not here: as of the last of its rank and group, or as LMCache tells."""
        known = self._forms.get((key.model_name, key.kv_rank, key.object_group_id))
        if known is None and (layout := told.get(key.object_group_id)) is not None:
            known = ObjectForm.of(layout.shapes, layout.dtypes)
        return known

    def _grouped(self, keys: Sequence[Any], forms: Sequence[ObjectForm | None]) -> list[tuple[ObjectForm, list[int], KeyedPages]]:
        """The objects of each cache, by index among the keys; without those that kvtcd can't keep."""
        groups: dict[tuple[str, ObjectForm], list[int]] = {}
        for index, (key, form) in enumerate(zip(keys, forms, strict=True)):
            if form is not None:
                self._forms[key.model_name, key.kv_rank, key.object_group_id] = form
                groups.setdefault((key.model_name, form), []).append(index)
            if len(key.chunk_hash) < _SHORT_HASH:
                self._say(
                    f"LMCache's hashes of {len(key.chunk_hash)} bytes name no content: other tokens may have the same; "
                    "start it with --hash-algorithm blake3"
                )
        found = []
        for (model, form), indices in groups.items():
            if (pages := self._pages_of(model, form)) is not None:
                found.append((form, indices, pages))
        return found

    def _pages_of(self, model: str, form: ObjectForm) -> KeyedPages | None:
        options, weights = self._options, self._weights_of(model)
        if weights is None:
            return None
        if options.mode != Mode.LOSSLESS and not form.is_known:
            self._say(f"objects of the shapes {form.shapes} are none that {options.mode.name.lower()} can code; they are kept losslessly")
            options = replace(options, policy=replace(options.policy, mode=Mode.LOSSLESS))
        with self._lock:
            if (pages := self._pages.get((weights, form))) is None:
                if len(self._pages) >= _CACHES:
                    self._say(f"LMCache has objects of more than {_CACHES} shapes; those of others are not kept")
                    return None
                identity = Identity(weights, kv_type=" ".join(form.types), salt=options.salt, extra={"engine": "lmcache"})
                cache = CacheForm(identity, form.geometry, form.token_bytes, form.layout)
                name = f"lmcache {model}"[:200]
                pages = KeyedPages(options, cache, name, form.page_tokens, weights, self._link, self._counters)
                self._pages[weights, form] = pages
            return pages

    def _weights_of(self, model: str) -> bytes | None:
        """The digest of the model's weights; None where they are not on this machine, which is said once."""
        name = self._options.model or model
        with self._lock:
            if name not in self._weights:
                try:
                    self._weights[name] = weights_digest(model_files(model_directory(name)))
                except ValueError as error:
                    if self._options.model:
                        raise
                    self._weights[name] = None
                    log.error("kvtc keeps nothing of %s: %s", model, error)
            return self._weights[name]

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            log.warning(sentence)


def _options(params: Mapping[str, Any]) -> Options:
    """LMCache hands over no positions. Raises ValueError for what can't be had without."""
    options = Options.parse(params)
    mode = options.mode
    if mode not in _MODES:
        raise ValueError(
            f"kvtc's mode {mode.name.lower()} needs the positions of tokens, which LMCache does not hand over: keys can't be turned back; "
            f"use {', '.join(known.name.lower() for known in _MODES)}"
        )
    for name in ("sink", "window"):
        if params.get(name):
            raise ValueError(f"kvtc's option {name!r} needs the positions of tokens, which LMCache does not hand over")
    return replace(options, policy=replace(options.policy, sink=0, window=0))


def _reader(form: ObjectForm, contents: Sequence[Any]) -> Callable[[int], np.ndarray]:
    return lambda index: form.page(contents[index])


def _named(keys: Sequence[Any], indices: Sequence[int]) -> list[bytes]:
    return [object_key(keys[index]) for index in indices]
