"""LMCache with kvtcd as its second level, on real rows: its check of adapters, and its server, which loses its memory between a store and a
load. transformers computes the rows and uses those that come back."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kvtc_evaluation.daemon import Daemon, all_coded, kept_bytes, until

from .lmcache_server import CHUNK, PATIENCE, Server, Worker
from .model import directory
from .report import Report, Setting
from .rows import GENERATED, Reference, load, perturbed, same

TOKENS = 512
MODEL = "SmolLM2"
UNPROVEN = [
    "the copies between an engine's GPU and LMCache's memory: a worker that hands over rows from memory stands in for vLLM",
    "hybrid models, whose objects of several groups are kept as bytes",
    "several servers that share one kvtcd at the same time",
]
_CHECKED = ("5/5 correctly absent", "Batch store OK", "5/5 found", "Validation (loaded): 5/5", "Validation (content): 5/5")


def run(setting: Setting) -> Report:
    """Takes about two minutes: the server starts eight times."""
    report = Report(version("lmcache"), unproven=list(UNPROVEN))
    path = directory(setting.gguf)
    engine = load(path, TOKENS)
    rows, logits = engine.rows()
    expected = engine.generate(rows[:, :, :0])
    log = setting.scratch / "lmcache.log"
    with Daemon(setting.kvtcd, setting.kvtcctl, [], ram_mib=1024, disk_mib=2048) as daemon:
        daemon.start()

        def server(**options: Any) -> Server:
            return Server(log, {"socket": str(daemon.socket), "model": str(path), "deadline": 60.0} | options)

        _checked(report, {"socket": str(daemon.socket), "model": str(path)})
        _lossless(report, engine, server, rows, expected, daemon)
        report.isolation_ok = _isolated(report, engine, server, rows, setting.scratch)
        _quantised(report, engine, server, rows, logits, daemon)
        report.daemon_down_ok = _killed(report, engine, server, rows, expected, daemon)
        report.daemon_down_ok &= _killed_in_the_middle(report, rows, path, daemon)
    return report


def _checked(report: Report, options: dict[str, Any]) -> None:
    """LMCache's own conformance check, in each mode that there is."""
    for mode in ("lossless", "quant8"):
        adapter = {"type": "plugin", "module_path": "kvtc.adapters.lmcache", "class_name": "KvtcL2Adapter"}
        described = json.dumps(adapter | {"adapter_params": options | {"mode": mode, "salt": mode}})
        command = [sys.executable, "-m", "lmcache.v1.basic_check", "--mode", "test_l2_adapter", "--model", "check", "--l2-adapter", described]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        missing = [line for line in _CHECKED if line not in done.stdout]
        assert not missing and not done.returncode, f"{missing} is not in what LMCache's check said:\n{done.stdout}\n{done.stderr[-2000:]}"
    report.ran.append("LMCache's own check of adapters (basic_check --mode test_l2_adapter), lossless and quant8")


def _shape(rows: Any) -> tuple[int, int, int]:
    return rows.shape[1], rows.shape[3], rows.shape[4]


def _stored(server: Server, rows: Any, tokens: list[int], daemon: Daemon) -> None:
    """Has the server take the rows and kvtcd keep them: it writes behind the answer."""
    with daemon.connect() as client:
        before = client.status()["counters"]["pushed"]
        worker = Worker(server, MODEL, _shape(rows))
        assert worker.store(rows, tokens) == TOKENS, "LMCache took not all rows"
        worker.close()
        until(client, "storing", lambda status: status["counters"]["pushed"] - before >= TOKENS // CHUNK and all_coded(status))


def _lossless(
    report: Report, engine: Reference, server: Callable[..., Server], rows: Any, expected: list[int], daemon: Daemon
) -> None:
    with server() as first:
        _stored(first, rows, engine.tokens, daemon)
    daemon.stop()
    daemon.start()
    with server() as second:
        worker = Worker(second, MODEL, _shape(rows))
        began = time.perf_counter()
        found = worker.retrieve(engine.tokens, rows.shape)
        report.figures["retrieve_s"] = time.perf_counter() - began
        engine.first(found)
        report.ttft_restore_s = time.perf_counter() - began
        worker.close()
    assert same(found, rows, TOKENS), "what came back are other bytes than were stored"
    report.same_tokens = engine.generate(found) == expected
    began = time.perf_counter()
    engine.first(rows[:, :, :0])
    report.ttft_recompute_s = time.perf_counter() - began
    report.figures["mib"] = rows[:, :, :TOKENS].nbytes / 2**20
    report.ran.append(
        f"LMCache's server stored {TOKENS} tokens of real rows (float32); kvtcd and the server were started anew; the same bytes came back, "
        f"and transformers generated the same {GENERATED} tokens"
    )


def _isolated(report: Report, engine: Reference, server: Callable[..., Server], rows: Any, scratch: Path) -> bool:
    def found(under: Server, name: str = MODEL, salt: str = "", rank: int = 0, ranks: int = 1) -> int:
        worker = Worker(under, name, _shape(rows), rank, ranks)
        try:
            return int(worker.retrieve(engine.tokens, rows.shape, salt).shape[2])
        finally:
            worker.close()

    with server() as other:
        met = {
            "another salt of the request": found(other, salt="tenant"),
            "another model's name": found(other, name="other"),
            "another rank": found(other, rank=1, ranks=2),
            "itself": found(other),
        }
    with server(model=str(perturbed(engine.path, scratch / "perturbed"))) as other:
        met["weights of the same shape under the same name"] = found(other)
    with server(salt="other") as other:
        met["another salt of the server"] = found(other)
    own = met.pop("itself")
    report.ran.append(f"isolation: {', '.join(met)}")
    return own == TOKENS and not any(met.values())


def _quantised(
    report: Report, engine: Reference, server: Callable[..., Server], rows: Any, logits: Any, daemon: Daemon
) -> None:
    wanted = rows[:, :, :TOKENS]
    for mode in ("quant8", "quant4"):
        with daemon.connect() as client:
            before = kept_bytes(client)
            # Salted, as pages that are there already would stay.
            with server(mode=mode, salt=mode) as first:
                _stored(first, rows, engine.tokens, daemon)
            report.figures[f"{mode}_ratio"] = wanted.nbytes / (kept_bytes(client) - before)
        with server(mode=mode, salt=mode) as second:
            worker = Worker(second, MODEL, _shape(rows))
            found = worker.retrieve(engine.tokens, rows.shape)
            worker.close()
        assert found.shape[2] == TOKENS and not same(found, rows, TOKENS)
        report.figures[f"{mode}_relative_error"] = float(((found - wanted) ** 2).sum() / (wanted**2).sum())
        report.figures[f"{mode}_kl"] = engine.divergence(found, logits)
    report.ran.append("quant8 and quant4: stored, coded, and brought into another server")


def _killed(
    report: Report, engine: Reference, server: Callable[..., Server], rows: Any, expected: list[int], daemon: Daemon
) -> bool:
    """kvtcd is killed before a load, and stays away while the server takes more; it starts again under the server."""
    with server() as running:
        worker = Worker(running, MODEL, _shape(rows))
        daemon.kill()
        missed = worker.retrieve(engine.tokens, rows.shape)
        good = missed.shape[2] == 0 and engine.generate(missed) == expected
        # What the server has in its own memory is served all the same.
        good &= worker.store(rows, engine.tokens, "kept") == TOKENS
        good &= same(worker.retrieve(engine.tokens, rows.shape, "kept"), rows, TOKENS)
        daemon.start()
        end = time.monotonic() + PATIENCE
        while not (came := same(worker.retrieve(engine.tokens, rows.shape), rows, TOKENS)) and time.monotonic() < end:
            time.sleep(0.5)
        worker.close()
    report.ran.append("kvtcd killed under a running server: nothing found, tokens computed again; started again: found")
    return good and came


def _killed_in_the_middle(report: Report, rows: Any, path: Path, daemon: Daemon) -> bool:
    """The adapter that LMCache's factory makes, in this process: kvtcd is killed while objects come."""
    import torch
    from lmcache.v1.distributed.api import ObjectKey
    from lmcache.v1.distributed.l2_adapters import create_l2_adapter
    from lmcache.v1.distributed.l2_adapters.plugin_l2_adapter import PluginL2AdapterConfig
    from lmcache.v1.memory_management import MemoryFormat, MemoryObjMetadata, TensorMemoryObj

    from kvtc.adapters.lmcache.objects import ObjectForm

    options = {"socket": str(daemon.socket), "model": str(path), "deadline": 60.0}
    adapter = create_l2_adapter(PluginL2AdapterConfig("kvtc.adapters.lmcache", "KvtcL2Adapter", options))
    chunks = [rows[:, :, at : at + CHUNK].reshape(2, rows.shape[1], CHUNK, -1).contiguous() for at in range(0, TOKENS, CHUNK)]
    keys = [ObjectKey(bytes([index]) * 32, "in the middle", 0) for index in range(len(chunks))]

    def item(tensor: Any) -> Any:
        raw = tensor.view(-1).view(torch.uint8)
        about = MemoryObjMetadata(tensor.shape, tensor.dtype, raw.data_ptr(), raw.numel(), 1, fmt=MemoryFormat.KV_2LTD)
        return TensorMemoryObj(raw, about, None)

    def done(descriptor: int, take: Callable[[], Any]) -> Any:
        select.select([descriptor], [], [], PATIENCE)
        os.eventfd_read(descriptor)
        return take()

    place, placed = ObjectForm.place, [0]

    def place_and_kill(form: ObjectForm, page: Any, content: Any) -> None:
        placed[0] += 1
        if placed[0] == 2:
            daemon.kill()
        place(form, page, content)

    rooms = [torch.zeros_like(chunk) for chunk in chunks]
    try:
        number = adapter.submit_store_task(keys, [item(chunk) for chunk in chunks])
        stored = done(adapter.get_store_event_fd(), adapter.pop_completed_store_tasks)[number]
        ObjectForm.place = place_and_kill  # type: ignore[method-assign]
        number = adapter.submit_load_task(keys, [item(room) for room in rooms])
        loaded = done(adapter.get_load_event_fd(), lambda: adapter.query_load_result(number))
    finally:
        ObjectForm.place = place  # type: ignore[method-assign]
        adapter.close()
    report.ran.append("kvtcd killed while objects come, under the adapter that LMCache's factory makes")
    came = [index for index in range(len(keys)) if loaded.test(index)]
    right = all(torch.equal(rooms[index].view(torch.int32), chunks[index].view(torch.int32)) for index in came)
    return bool(stored.is_successful() and placed[0] >= 2 and len(came) < len(keys) and right)
