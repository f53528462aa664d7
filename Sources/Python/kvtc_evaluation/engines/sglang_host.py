"""SGLang's own host pool and cache controller on a processor without a GPU: what stands between its radix tree and a storage backend."""

from __future__ import annotations

import os
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

PAGE = 64
PATIENCE = 120.0
"""Seconds that a controller's thread is waited for."""


def prepare() -> None:
    """Makes SGLang importable, and its context that of a server of one rank. Once a process, before anything of SGLang is imported."""
    # What builds its hash of pages at the first use lies beside this interpreter.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    from transformers.utils import import_utils

    # Asked before the stand-in is there, which is none for transformers.
    import_utils.is_torchvision_available()
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchvision.io"):
        module = _Absent(name)
        module.__spec__ = ModuleSpec(name, None)
        sys.modules[name] = module
    # Of kernels that need a GPU.
    warnings.simplefilter("ignore", UserWarning)
    from sglang.srt.runtime_context import get_parallel

    get_parallel().override_permanently(
        tp_rank=0, tp_size=1, pp_rank=0, pp_size=1, attn_dcp_size=1, attn_dcp_rank=0, attn_tp_rank=0, attn_tp_size=1, attn_dp_size=1
    )


class _Absent(types.ModuleType):
    """A package for pictures whose wheel does not go with this torch; nothing here looks at pictures."""

    __path__: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock()


def publish(model: Path, **arguments: Any) -> None:
    """Makes that the model that SGLang serves in this process."""
    from sglang.srt.runtime_context import get_context
    from sglang.srt.server_args import ServerArgs

    get_context().set_server_args(ServerArgs(model_path=str(model), **arguments))


@contextmanager
def one_rank(scratch: Path) -> Iterator[Any]:
    """A process group of this process alone."""
    import torch.distributed as distributed

    distributed.init_process_group("gloo", init_method=f"file://{scratch / 'group'}", rank=0, world_size=1)
    try:
        yield distributed.group.WORLD
    finally:
        distributed.destroy_process_group()


def key_value_pool(pages: int, layers: int, heads: int, width: int, layout: str, element: Any) -> tuple[Any, Any]:
    """A device's pool, here of memory, and its host pool."""
    from sglang.srt.mem_cache.hybrid_cache.hybrid_pool_assembler import _mha_host_inputs
    from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool
    from sglang.srt.mem_cache.pool_host.base import host_memory_budget_scope

    pool = MHATokenToKVPool(PAGE, PAGE, element, heads, width, layers, "cpu", False)
    kind, info, more = _mha_host_inputs(pool)
    with host_memory_budget_scope(8 << 30):
        return pool, kind(info, float(pages), 0, PAGE, layout, pin_memory=False, device="cpu", **more)


def latent_pool(pages: int, layers: int, rank: int, rotated: int, layout: str, element: Any) -> tuple[Any, Any]:
    from sglang.srt.mem_cache.memory_pool import MLATokenToKVPool
    from sglang.srt.mem_cache.pool_host.base import host_memory_budget_scope
    from sglang.srt.mem_cache.pool_host.mla import MLATokenToKVPoolHost

    pool = MLATokenToKVPool(PAGE, PAGE, element, rank, rotated, layers, "cpu", False)
    with host_memory_budget_scope(8 << 30):
        host = MLATokenToKVPoolHost(
            pool.get_device_pool_infos()[0].buffer_info,
            float(pages),
            0,
            PAGE,
            layout,
            pin_memory=False,
            device="cpu",
            device_capacity_tokens=PAGE,
            start_layer=0,
            end_layer=layers,
            target_layer_num=layers,
        )
    return pool, host


class Host:
    """One rank's host cache: its pool, and the controller that writes pages to a storage backend and brings them back."""

    def __init__(self, pools: tuple[Any, Any], group: Any, options: dict[str, Any]) -> None:
        from sglang.srt.mem_cache.allocator import PagedTokenToKVPoolAllocator
        from sglang.srt.mem_cache.hicache_storage import PoolName
        from sglang.srt.mem_cache.hybrid_cache.hybrid_cache_controller import HybridCacheController
        from sglang.srt.mem_cache.hybrid_cache.hybrid_pool_assembler import build_pool_entry
        from sglang.srt.mem_cache.pool_host.group import HostPoolGroup

        device, self.pool = pools
        layers = device.layer_num
        entry = build_pool_entry(
            name=PoolName.KV,
            host_pool=self.pool,
            device_pool=device,
            layer_mapping={layer: layer for layer in range(layers)},
            transfer_layer_id_max=layers,
            is_anchor=True,
        )
        configuration = {
            "backend_name": "kvtc",
            "module_path": "kvtc.adapters.sglang",
            "class_name": "KvtcStorage",
            "interface_v1": 1,
        }
        self.controller = HybridCacheController(
            PagedTokenToKVPoolAllocator(PAGE, PAGE, device.dtype, "cpu", device, False),
            HostPoolGroup([entry]),
            PAGE,
            group,
            threading.Event(),
            io_backend="direct",
            storage_backend="dynamic",
            model_name="model",
            storage_backend_extra_config=configuration | options,
            enable_storage_metrics=True,
        )

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.controller.detach_storage_backend()

    def write(self, rows: Any, tokens: list[int], prefix: list[str] | None, salt: str | None = None) -> int:
        """Has the controller store full pages of rows [tensors, layers, tokens, heads, width]; how many tokens it says are stored."""
        hashes = page_hashes(tokens, salt)
        slots = self.pool.alloc(len(hashes) * PAGE)
        for index, slot in enumerate(slots[::PAGE].tolist()):
            page = rows[:, :, index * PAGE : (index + 1) * PAGE]
            page = page.transpose(-4, -3) if self.pool.layout == "page_first" else page
            self.pool.set_from_flat_data_page(slot, page.contiguous().flatten())
        self.controller.write_storage(slots, tokens, hash_value=hashes, prefix_keys=prefix)
        done = self.controller.ack_backup_queue.get(timeout=PATIENCE)
        self.pool.free(slots)
        return int(done.completed_tokens)

    def read(self, tokens: list[int], shape: tuple[int, ...], prefix: list[str] | None, salt: str | None = None) -> Any:
        """Has the controller look for the tokens' pages and bring them; the rows that it says came, in the same form."""
        import torch

        handle = SimpleNamespace(rid="request")
        operation = self.controller.prefetch(handle, _Tokens(tokens, salt) if salt else tokens, None, prefix_keys=prefix)
        operation = self.controller.prefetch_hit_queue.get(timeout=PATIENCE)
        found, came = operation.storage_hit_count, 0
        tensors, layers, _, heads, width = shape
        if not found:
            return torch.empty(tensors, layers, 0, heads, width)
        operation.host_indices = slots = self.pool.alloc(found)
        self.controller.prefetch_buffer.put(operation)
        while not (said := self.controller.ack_prefetch_queue.get(timeout=PATIENCE)).completed_req:
            came = said.completed_tokens if said.completed_tokens is not None else came
        pages = []
        for slot in slots[:came:PAGE].tolist():
            page = self.pool.get_data_page(slot, flat=False)
            page = page.transpose(-4, -3) if self.pool.layout == "page_first" else page
            pages.append(page.reshape(tensors, layers, PAGE, heads, width).clone())
        self.pool.free(slots)
        return torch.cat(pages, 2) if pages else torch.empty(tensors, layers, 0, heads, width)


class _Tokens(list[int]):
    """Tokens of a request with a salt, as the tree's keys carry it."""

    extra_key = None

    def __init__(self, tokens: list[int], salt: str) -> None:
        super().__init__(tokens)
        self.cache_salt = salt


def page_hashes(tokens: list[int], salt: str | None = None) -> list[str]:
    """SGLang's names of the full pages."""
    from sglang.srt.mem_cache.utils import get_storage_hash_str

    full = tokens[: len(tokens) - len(tokens) % PAGE]
    hashes = get_storage_hash_str(_Tokens(full, salt) if salt else full, None, page_size=PAGE)
    assert isinstance(hashes, list)
    return hashes
