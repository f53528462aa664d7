"""vLLM's tiering manager on a machine without a GPU: the one thing that is missing there, copies between the cache and the memory tier.

`OffloadingConnector` loads this module by name, in the engine's environment only.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.kv_offload.base import CanonicalKVCaches, GPULoadStoreSpec, OffloadingWorker, TransferResult
from vllm.v1.kv_offload.cpu.shared_offload_region import SharedOffloadRegion
from vllm.v1.kv_offload.tiering.spec import TieringOffloadingSpec


class ProcessorSpec(TieringOffloadingSpec):
    """Everything of vLLM's own but the worker, which would ask for a GPU."""

    def get_worker(self, kv_caches: CanonicalKVCaches) -> OffloadingWorker:
        if not isinstance(self._worker, Copies):
            region = SharedOffloadRegion(
                engine_id=self._engine_id,
                num_chunks=self.num_chunks,
                rank=self.config.parallel.rank,
                kv_bytes_per_chunk=self.kv_bytes_per_chunk,
                cpu_page_size=self.cpu_page_size_per_worker,
            )
            self._worker = Copies(kv_caches, region)
        return self._worker


class Copies(OffloadingWorker):
    """Copies blocks to rows and back at once; done when it is asked."""

    def __init__(self, caches: CanonicalKVCaches, region: SharedOffloadRegion) -> None:
        self._caches, self._region = caches, region
        self._rows = [region.create_next_worker_view(tensor.page_size_bytes) for tensor in caches.tensors]
        self._finished: list[TransferResult] = []

    def submit_store(self, job_id: int, src_spec: GPULoadStoreSpec, dst_spec: Any) -> bool:
        for block, row, tensor in self._pairs(src_spec, dst_spec):
            self._rows[tensor][row].copy_(self._caches.tensors[tensor].tensor[block])
        return self._done(job_id)

    def submit_load(self, job_id: int, src_spec: Any, dst_spec: GPULoadStoreSpec) -> bool:
        for block, row, tensor in self._pairs(dst_spec, src_spec):
            self._caches.tensors[tensor].tensor[block].copy_(self._rows[tensor][row])
        return self._done(job_id)

    def _pairs(self, device: GPULoadStoreSpec, memory: Any) -> list[tuple[int, int, int]]:
        """Block, row and tensor, for chunks of one block."""
        groups = [group for group, size in enumerate(device.group_sizes) for _ in range(size)]
        return [
            (int(block), int(row), reference.tensor_idx)
            for group, block, row in zip(groups, device.block_ids, memory.block_ids, strict=True)
            for reference in self._caches.group_data_refs[group]
        ]

    def _done(self, job_id: int) -> bool:
        self._finished.append(TransferResult(job_id, True))
        return True

    def get_finished(self) -> list[TransferResult]:
        finished, self._finished = self._finished, []
        return finished

    def wait(self, job_ids: set[int]) -> None: ...

    def shutdown(self) -> None:
        self._rows = []
        self._region.cleanup()
