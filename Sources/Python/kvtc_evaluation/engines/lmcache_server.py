"""LMCache's own server in a process of its own, and a worker of it that copies rows as an engine without a GPU does."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

CHUNK = 256
_BLOCK = 16
PATIENCE = 120.0
"""Seconds that the server is waited for."""


class Server:
    """``lmcache server`` with kvtcd as its second level. As a context manager: ends it."""

    def __init__(self, log: Path, options: dict[str, Any]) -> None:
        self.port, self._http = _free_port(), _free_port()
        adapter = {
            "type": "plugin",
            "module_path": "kvtc.adapters.lmcache",
            "class_name": "KvtcL2Adapter",
            "adapter_params": options,
        }
        command = [sys.executable, "-m", "lmcache.cli.main", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--http-port", str(self._http), "--chunk-size", str(CHUNK), "--l1-size-gb", "0.5", "--no-l1-use-lazy"]
        command += ["--supported-transfer-mode", "engine_driven", "--eviction-policy", "LRU", "--l2-adapter", json.dumps(adapter)]
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def __enter__(self) -> Server:
        end = time.monotonic() + PATIENCE
        while True:
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                raise RuntimeError("\n".join(["LMCache's server did not start", *self._log.read_text(errors="replace").splitlines()[-20:]]))
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._http}/status", timeout=5):
                    return self
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Worker:
    """One rank of an engine: stores rows of the prompt's full chunks in a server's memory and takes them from there."""

    def __init__(self, server: Server, model: str, shape: tuple[int, int, int], rank: int = 0, ranks: int = 1) -> None:
        """``shape``: layers, heads and width of the rows, which are float32."""
        import torch
        import zmq
        from lmcache.sdk.wrapper.contiguous import ContiguousTransferWrapper
        from lmcache.v1.gpu_connector.utils import LayoutHints
        from lmcache.v1.multiprocess.transfer_context.worker_transfer import create_transfer_context
        from lmcache.v1.multiprocess.transport.factory import RequestClientFactory

        layers, heads, width = shape
        self._model, self._rank, self._ranks = model, rank, ranks
        self._client = RequestClientFactory.create(f"tcp://127.0.0.1:{server.port}", context=zmq.Context())
        # The engine's paged cache; rows are handed over as one tensor, so that it has one block only.
        cache = {f"layer.{layer}": torch.zeros(1, 2, heads, _BLOCK, width) for layer in range(layers)}
        self._instance = uuid.uuid4().int & ((1 << 63) - 1)
        context: Any = create_transfer_context(cache, instance_id=self._instance, req_client=self._client)
        hints = LayoutHints(kv_layout="HND", num_kv_heads=heads, tokens_per_block=_BLOCK, head_dim=width)
        context.register(cache, model, ranks, CHUNK // _BLOCK, PATIENCE, layout_hints=hints)
        self._transfer = ContiguousTransferWrapper(context.engine_driven_context, CHUNK)

    def close(self) -> None:
        self._client.close()

    def store(self, rows: Any, tokens: list[int], salt: str = "") -> int:
        """How many tokens of rows [2, layers, tokens, heads, width] the server's memory has taken."""
        full = len(tokens) - len(tokens) % CHUNK
        name = f"store-{uuid.uuid4().hex}"
        flat = rows[:, :, :full].reshape(2, rows.shape[1], full, -1).contiguous()
        done = self._transfer.store(self._key(tokens[:full], name, salt, self._rank), self._instance, flat)
        self._client.end_session(name).result(timeout=PATIENCE)
        return full if done else 0

    def retrieve(self, tokens: list[int], shape: tuple[int, ...], salt: str = "") -> Any:
        """The rows of the tokens' longest beginning that the server has, or brings."""
        import torch

        full = len(tokens) - len(tokens) % CHUNK
        name = f"retrieve-{uuid.uuid4().hex}"
        self._client.lookup(self._key(tokens[:full], name, salt, None), self._ranks).result(timeout=PATIENCE)
        end = time.monotonic() + PATIENCE
        while (chunks := self._client.query_prefetch_status(name).result(timeout=PATIENCE)) is None:
            if time.monotonic() > end:
                raise TimeoutError(f"LMCache's server did not end a lookup within {PATIENCE:.0f} s")
            time.sleep(0.005)
        tensors, layers, _, heads, width = shape
        found = torch.empty(tensors, layers, 0, heads, width)
        try:
            if chunks:
                key = self._key(tokens[: chunks * CHUNK], name, salt, self._rank)
                flat = self._transfer.retrieve(key, self._instance)
                found = found if flat is None else flat.reshape(tensors, layers, -1, heads, width)
        finally:
            self._client.end_session(name).result(timeout=PATIENCE)
        return found

    def _key(self, tokens: list[int], name: str, salt: str, worker: int | None) -> Any:
        from lmcache.v1.multiprocess.custom_types import IPCCacheServerKey

        return IPCCacheServerKey(
            model_name=self._model,
            world_size=self._ranks,
            num_kv_readers=1,
            worker_id=worker,
            token_ids=tuple(tokens),
            start=0,
            end=len(tokens),
            request_id=name,
            cache_salt=salt,
            request_configs=None,
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
