"""vLLM's connector to kvtcd: named in ``--kv-transfer-config``, made once in the scheduler and once beside each rank's model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .metrics import PageMetrics, PageStats
from .pages import Parts, Plan
from .scheduler import SchedulerSide
from .settings import Settings, WishList
from .state import is_state
from .worker import WorkerSide


class _Absent:
    """Stands for vLLM's connector where vLLM is not."""


class _Hybrid:
    """So does this, for the sign of connectors that know several groups of layers."""


base: Any = _Absent
hybrid: Any = _Hybrid
metadata: Any = object
handshake: Any = object
is_scheduler: Any = None
results: Any = None
try:
    from vllm.distributed.kv_transfer.kv_connector.v1 import base as _vllm

    base, hybrid = _vllm.KVConnectorBase_V1, _vllm.SupportsHMA
    metadata, handshake = _vllm.KVConnectorMetadata, _vllm.KVConnectorHandshakeMetadata
    is_scheduler, results = _vllm.KVConnectorRole.SCHEDULER, getattr(_vllm, "KVConnectorTransferResults", None)
except ImportError:
    # Without the engine the module can be read, and the class not be made.
    pass

log = logging.getLogger("kvtc")


@dataclass
class PlanMetadata(metadata):  # type: ignore[misc]
    """One step's plan on its way to the workers."""

    plan: Plan = field(default_factory=Plan)


@dataclass
class PartsMetadata(handshake):  # type: ignore[misc]
    """A worker's parts on their way to the scheduler."""

    parts: Parts


class KvtcConnector(base, hybrid):  # type: ignore[misc]
    """Keeps full pages of every request in kvtcd, and brings prompts' beginnings back, also after a restart of either.

    Configuration that cannot be raises ValueError at the engine's start. After that nothing raises into the engine.
    """

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any = None) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        transfer = vllm_config.kv_transfer_config
        settings = Settings.parse(transfer.kv_connector_extra_config)
        wishes = WishList(transfer.kv_connector_extra_config)
        specs = [group.kv_cache_spec for group in kv_cache_config.kv_cache_groups]
        blocks = [spec.block_size for spec in specs]
        page_tokens = settings.size_of_pages(max(blocks))
        if any(page_tokens % size for size in blocks):
            raise ValueError(f"pages of {page_tokens} tokens are not whole blocks of {blocks} tokens; set 'page_tokens'")
        self._scheduler: SchedulerSide | None = None
        self._worker: WorkerSide | None = None
        if role == is_scheduler:
            if transfer.kv_load_failure_policy != "recompute":
                log.warning('a page that is lost on its way fails its request: set "kv_load_failure_policy": "recompute"')
            parallel = vllm_config.parallel_config
            workers = parallel.tensor_parallel_size * parallel.pipeline_parallel_size
            self._scheduler = SchedulerSide(
                settings,
                wishes,
                blocks,
                page_tokens,
                workers,
                states=[is_state(spec) for spec in specs],
                loads=transfer.is_kv_consumer,
                saves=transfer.is_kv_producer,
            )
        else:
            self._worker = WorkerSide(settings, wishes, vllm_config, kv_cache_config, page_tokens)

    @property
    def requires_kv_delivery(self) -> bool:
        """A page that is not kept is computed again."""
        return False

    @classmethod
    def requires_piecewise_for_cudagraph(cls, extra_config: dict[str, Any]) -> bool:
        """Waiting layer by layer is no part of a graph."""
        return bool(extra_config.get("layerwise"))

    # What vLLM's log and metrics say of pages.

    def get_kv_connector_stats(self) -> PageStats | None:
        side = self._scheduler or self._worker
        stats = PageStats(side.counters.taken() if side else {})
        return None if stats.is_empty() else stats

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> PageStats:
        return PageStats(data or {})

    @classmethod
    def build_prom_metrics(
        cls, vllm_config: Any, metric_types: Any, labelnames: list[str], per_engine_labelvalues: dict[int, list[object]]
    ) -> PageMetrics:
        return PageMetrics(vllm_config, metric_types, labelnames, per_engine_labelvalues)

    # Beside the model.

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        assert self._worker
        self._worker.register(kv_caches)

    def get_handshake_metadata(self) -> PartsMetadata | None:
        return PartsMetadata(self._worker.parts) if self._worker and self._worker.parts else None

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        assert self._worker
        self._worker.start(self._plan())

    def wait_for_layer_load(self, layer_name: str) -> None:
        assert self._worker
        self._worker.wait(layer_name)

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        """Pages are copied whole, after the last layer."""

    def wait_for_save(self) -> None:
        assert self._worker
        self._worker.save(self._plan())

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        assert self._worker
        return None, self._worker.finished() or None

    def get_transfer_results(self, finished_req_ids: set[str]) -> Any:
        assert self._worker
        over = self._worker.finished()
        return results(finished_recving=over, failed_recving=self._worker.failed_requests())

    def get_block_ids_with_load_errors(self) -> set[int]:
        assert self._worker
        return self._worker.failed_blocks()

    def _plan(self) -> Plan:
        bound = self._get_connector_metadata()
        return bound.plan if isinstance(bound, PlanMetadata) else Plan()

    # In the scheduler.

    def set_xfer_handshake_metadata_pp_aware(self, metadata: dict[tuple[int, int], Any]) -> None:
        assert self._scheduler
        self._scheduler.meet([metadata[rank].parts for rank in sorted(metadata)])

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        assert self._scheduler
        return self._scheduler.matched(request, num_computed_tokens)

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        assert self._scheduler
        if num_external_tokens:
            self._scheduler.allocated(request, blocks.get_block_ids(), num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> PlanMetadata:
        assert self._scheduler
        return PlanMetadata(self._scheduler.step(scheduler_output))

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, None]:
        return self.request_finished_all_groups(request, (block_ids,))

    def request_finished_all_groups(self, request: Any, block_ids: Sequence[list[int]]) -> tuple[bool, None]:
        """Blocks may go at once: what is sent are copies."""
        if self._scheduler:
            self._scheduler.finished(request.request_id)
        return False, None

    def shutdown(self) -> None:
        for side in (self._scheduler, self._worker):
            if side:
                side.close()
