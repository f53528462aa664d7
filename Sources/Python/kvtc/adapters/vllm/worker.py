"""The connector's side beside the model: pages are brought into vLLM's blocks before they are read, and copied out when they are full."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from ..background import Background
from ..codec import moment
from ..counters import Counters
from ..device import DeviceCodecs
from ..sessions import CacheForm
from .attention import UnknownLayout, kv_scales
from .identity import loaded_weights, part_identity
from .layout import GroupCache, group_cache
from .loading import Load
from .pages import PartPages, Parts, Plan, Transfer
from .settings import Settings, WishList
from .state import StateCache, is_state, state_cache

log = logging.getLogger("kvtc")

_PAUSE = 0.01
"""Seconds that a step without work waits for a load."""


class WorkerSide:
    """Called by the engine's thread. ``parts`` is None where nothing can be kept, and `refusal` says why."""

    def __init__(self, settings: Settings, wishes: WishList, vllm_config: Any, kv_cache_config: Any, page_tokens: int) -> None:
        self._settings, self._wishes, self._page_tokens = settings, wishes, page_tokens
        self._config, self._groups_config = vllm_config, kv_cache_config.kv_cache_groups
        self._groups: list[GroupCache | StateCache] = []
        self._layers: dict[str, tuple[int, int]] = {}
        self._pages: PartPages | None = None
        self.counters = Counters()
        self.parts: Parts | None = None
        self.refusal = ""
        # Two: a long prompt that is brought does not hold up a short one.
        self._loaders = [Background(f"kvtc-load-{number}") for number in range(2)]
        self._pusher = Background("kvtc-push", pending=1024)
        self._turn = 0
        self._apart: dict[str, Load] = {}
        self._step: list[Load] = []
        self._failed: set[int] = set()
        self._failed_requests: set[str] = set()
        self._is_idle = False
        self._staged = 0
        self._staging = threading.Lock()

    def register(self, caches: Mapping[str, Any]) -> None:
        """Looks at the engine's memory and says what it is to kvtcd; refuses in the log what it does not understand."""
        try:
            self._register(caches)
        except (UnknownLayout, ValueError, TypeError) as error:
            self.refusal = str(error)
            log.error("kvtcd keeps nothing of this engine: %s", error)

    def _register(self, caches: Mapping[str, Any]) -> None:
        cache = self._config.cache_config
        if getattr(cache, "calculate_kv_scales", False):
            raise UnknownLayout("scales that are calculated while serving (calculate_kv_scales) are different in every run")
        parallel = self._config.parallel_config
        if parallel.decode_context_parallel_size > 1 or parallel.prefill_context_parallel_size > 1:
            raise UnknownLayout("ranks that share a sequence's tokens (context parallel) are not supported")
        modules = self._config.compilation_config.static_forward_context
        groups, forms = [], []
        weights = loaded_weights(self._config, self._settings.options.model)
        for number, group in enumerate(self._groups_config):
            spec = group.kv_cache_spec
            specs = getattr(spec, "kv_cache_specs", None) or dict.fromkeys(group.layer_names, spec)
            found: GroupCache | StateCache
            scales, state = {}, ""
            if is_state(spec):
                found = state_cache(group.layer_names, caches, specs, self._page_tokens)
                state = found.form
            else:
                if any((getattr(each, "sliding_window", None) or self._page_tokens) < self._page_tokens for each in specs.values()):
                    raise UnknownLayout(
                        f"layers whose window is shorter than a page of {self._page_tokens} tokens give blocks away too soon"
                    )
                found = group_cache(
                    group.layer_names, caches, specs, modules, str(cache.cache_dtype), self._config.model_config.dtype
                )
                if found.element.size == 1:
                    scales = {layer.names[0]: kv_scales(modules[layer.names[0]]) for layer in found.layers.values()}
            identity = part_identity(
                self._config, weights, number, len(self._groups_config), scales, state, self._settings.options.salt
            )
            groups.append(found)
            # RoPE is left to the profile, where there is one.
            forms.append(CacheForm(identity, found.geometry, found.token_bytes, found.layout, is_exact=False))
            self._layers |= {name: (number, index) for index, layer in found.layers.items() for name in layer.names}
        self._groups = groups
        states = tuple(isinstance(group, StateCache) for group in groups)
        codecs = None
        if len(groups) == 1 and isinstance(groups[0], GroupCache) and groups[0].cells([]):
            # A profile is of all layers.
            codecs = DeviceCodecs(self._settings.options, groups[0].device, groups[0].element)
        self.parts = Parts(tuple(forms), states, weights, self._page_tokens, bool(codecs and codecs.is_wanted))
        self._pages = PartPages(self._wishes, [self.parts], self.counters, codecs)
        if codecs:
            for pages in self._pages.under(()):
                pages.warm_up()

    def start(self, plan: Plan) -> None:
        """Sets the loads of a step going."""
        self._is_idle = plan.is_idle
        is_layerwise = self._settings.layerwise and len(self._groups) == 1
        for transfer in plan.loads:
            pages = self._pages.under(transfer.wishes) if self._pages else []
            load = Load(transfer, self._groups, pages, is_layerwise)
            if is_layerwise:
                self._step.append(load)
            else:
                self._apart[transfer.request] = load
            self._turn += 1
            if not self._loaders[self._turn % len(self._loaders)].submit(load.run):
                log.warning("too many loads wait; this one is computed")
                load.give_up()

    def wait(self, layer: str) -> None:
        """Returns when the layer's rows of this step's loads are there, or have failed."""
        if self._step and (place := self._layers.get(layer)):
            for load in self._step:
                load.wait(*place)

    def save(self, plan: Plan) -> None:
        """Copies the pages that the step filled, and leaves the copies to a thread. A step whose loads failed computed nonsense."""
        lost = set()
        for load in self._step:
            load.finish()
            self._failed |= load.failed
            if load.failed:
                lost.add(load.transfer.request)
        self._step = []
        for transfer in plan.saves:
            if self._pages and transfer.request not in lost and not self._touches_failed(transfer):
                for number in range(len(self._groups)):
                    self._stage(transfer, number)

    def _touches_failed(self, transfer: Transfer) -> bool:
        """Whether a request shares blocks that another's load left without their rows."""
        return any(not self._failed.isdisjoint(blocks) for blocks in transfer.blocks)

    def _stage(self, transfer: Transfer, number: int) -> None:
        """As many of the pages that are there, from the first of them on, as there is memory for copies."""
        assert self._pages
        group, pages, keys = self._groups[number], self._pages.under(transfer.wishes)[number], transfer.keys
        each = len(transfer.blocks[number]) // len(keys)
        of_pages = [transfer.blocks[number][at : at + each] for at in range(0, len(keys) * each, each)]
        begin = next((index for index, blocks in enumerate(of_pages) if group.kept(blocks)), len(keys))
        whole = sum(1 for _ in takewhile(group.kept, of_pages[begin:]))
        with self._staging:
            whole = min(whole, (self._settings.staging_mib << 20) // pages.page_bytes - self._staged)
            self._staged += max(whole, 0)
        if whole <= 0:
            return
        copies = group.gather([block for blocks in of_pages[begin : begin + whole] for block in blocks], whole)
        before = keys[begin - 1] if begin else transfer.before
        copied, cells = moment(group.device), group.copied_cells(copies) if isinstance(group, GroupCache) else None

        def page(index: int) -> Any:
            if copied is not None:
                copied.synchronize()
            return copies[index].cpu().numpy()

        def push() -> None:
            try:
                first = (transfer.first + begin) * self._page_tokens
                pages.set(keys[begin : begin + whole], page, first, before, cells)
            finally:
                with self._staging:
                    self._staged -= whole

        if not self._pusher.submit(push):
            with self._staging:
                self._staged -= whole

    def finished(self) -> set[str]:
        """The requests whose loads are over since the last call."""
        if self._is_idle and self._apart:
            # vLLM calls in a loop meanwhile, which would take the interpreter from the threads that it waits for.
            next(iter(self._apart.values())).finish(_PAUSE)
        over = {name for name, load in self._apart.items() if load.is_done}
        for name in over:
            load = self._apart.pop(name)
            if load.failed:
                self._failed_requests.add(name)
                self._failed |= load.failed
        return over

    def failed_blocks(self) -> set[int]:
        """Block ids without their rows since the last call; none where block ids of several groups mean different blocks."""
        failed, self._failed = self._failed, set()
        return failed if len(self._groups) == 1 else set()

    def failed_requests(self) -> set[str]:
        """Requests whose loads failed since the last call, for engines with several groups."""
        failed, self._failed_requests = self._failed_requests, set()
        return failed if len(self._groups) > 1 else set()

    def close(self) -> None:
        """What was copied is sent first, within the deadlines of its calls."""
        for thread in (*self._loaders, self._pusher):
            thread.close()
        if self._pages:
            self._pages.close()
