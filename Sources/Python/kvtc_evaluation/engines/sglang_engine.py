"""SGLang's host cache on real rows: its pools and controllers with kvtcd as their storage, the rows computed and used by transformers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kvtc_evaluation.daemon import Daemon, all_coded, kept_bytes, until

from . import profile
from . import sglang_host as sglang
from .model import directory
from .report import Report, Setting
from .rows import GENERATED, Reference, load, perturbed, same
from .sglang_host import PAGE, Host

TOKENS = 1024
LAYOUTS = ("page_first_direct", "page_first", "layer_first")
UNPROVEN = [
    "copies between host pool and GPU, which need CUDA: rows are written to the host pool where SGLang copies them from the device",
    "the scheduler and the radix tree, which need a GPU; tensor- and pipeline-parallel ranks are two configurations in one process",
    "pools beside that of keys and values (sliding windows, Mamba, indexers): refused when SGLang starts",
]


def run(setting: Setting) -> Report:
    """Takes about two minutes, most of them transformers' on two processors."""
    import torch

    sglang.prepare()
    report = Report(version("sglang"), unproven=list(UNPROVEN))
    path = directory(setting.gguf)
    sglang.publish(path)
    engine = load(path, TOKENS)
    rows, logits = engine.rows()
    with sglang.one_rank(setting.scratch) as group, _daemon(setting, profile.of(setting)) as daemon:

        def host(layout: str = LAYOUTS[0], element: Any = torch.float32, **options: Any) -> Host:
            pools = sglang.key_value_pool(TOKENS // PAGE + 2, *_shape(rows), layout, element)
            return Host(pools, group, {"socket": str(daemon.socket), "deadline": 60.0} | options)

        expected = engine.generate(rows[:, :, :0])
        _lossless(report, engine, host, rows, expected)
        _latents(report, group, str(daemon.socket))
        report.isolation_ok = _isolated(report, engine, host, rows, setting.scratch)
        _injected(report, host, rows, engine.tokens)
        report.daemon_down_ok = _killed(report, engine, host, rows, expected, daemon)
        _coded(report, engine, host, rows, logits, daemon)
    return report


@contextmanager
def _daemon(setting: Setting, coding: Path) -> Any:
    with Daemon(setting.kvtcd, setting.kvtcctl, [coding], ram_mib=1024, disk_mib=2048) as daemon:
        daemon.start()
        yield daemon


def _shape(rows: Any) -> tuple[int, int, int]:
    """Layers, heads, width."""
    return rows.shape[1], rows.shape[3], rows.shape[4]


def _lossless(report: Report, engine: Reference, host: Callable[..., Host], rows: Any, expected: list[int]) -> None:
    with host() as first:
        assert first.write(rows, engine.tokens, []) == TOKENS, "not all pages were stored"
    for layout in LAYOUTS:
        with host(layout) as second:
            began = time.perf_counter()
            found = second.read(engine.tokens, rows.shape, [])
            if layout == LAYOUTS[0]:
                report.figures["prefetch_s"] = time.perf_counter() - began
                engine.first(found)
                report.ttft_restore_s = time.perf_counter() - began
                report.same_tokens = engine.generate(found) == expected
            assert same(found, rows, TOKENS), f"{layout}: what came back are other bytes than were stored"
    began = time.perf_counter()
    engine.first(rows[:, :, :0])
    report.ttft_recompute_s = time.perf_counter() - began
    report.figures["mib"] = rows[:, :, :TOKENS].nbytes / 2**20
    report.ran.append(
        f"host pool and controller stored {TOKENS} tokens of real rows (float32, page_first_direct); another's, of each of the layouts "
        f"{', '.join(LAYOUTS)}, brought the same bytes; transformers generated {GENERATED} tokens with them"
    )


def _latents(report: Report, group: Any, socket: str) -> None:
    import torch

    layers, rank, rotated, tokens = 4, 96, 32, list(range(5, 5 + 6 * PAGE))
    rows = torch.randn(1, layers, len(tokens), 1, rank + rotated, dtype=torch.bfloat16)
    for layout in LAYOUTS:
        with Host(sglang.latent_pool(16, layers, rank, rotated, layout, torch.bfloat16), group, {"socket": socket}) as host:
            if layout == LAYOUTS[0]:
                assert host.write(rows[0][None], tokens, []) == len(tokens)
            assert torch.equal(host.read(tokens, rows.shape, []), rows), f"latent rows came back changed in {layout}"
    report.ran.append("a pool of latents (made-up rows, bfloat16), the same bytes in each layout")


def _isolated(report: Report, engine: Reference, host: Callable[..., Host], rows: Any, scratch: Path) -> bool:
    import torch
    from sglang.srt.runtime_context import get_parallel

    def finds(other: Host, salt: str | None = None) -> int:
        with other:
            return int(other.read(engine.tokens, rows.shape, [], salt).shape[2])

    met = {
        "the model itself": finds(host()),
        "weights of the same shape": finds(host(model=str(perturbed(engine.path, scratch / "perturbed")))),
        "another type of cache": finds(host(element=torch.float16)),
        "another salt of the request": finds(host(), "tenant"),
        "another salt of the engine": finds(host(salt="other")),
    }
    with get_parallel().override(tp_rank=1, tp_size=2, attn_tp_rank=1, attn_tp_size=2, moe_tp_size=2):
        met["another rank"] = finds(host())
    sglang.publish(engine.path, json_model_override_args='{"rope_theta": 20000}')
    met["an overridden configuration"] = finds(host())
    sglang.publish(engine.path)
    report.ran.append(f"isolation: {', '.join(list(met)[1:])}")
    return met.pop("the model itself") == TOKENS and not any(met.values())


def _injected(report: Report, host: Callable[..., Host], rows: Any, tokens: list[int]) -> None:
    """SGLang's own random delays and failures of a backend's calls: a controller takes what there is, and what it takes is right."""
    variables = {"SGLANG_TEST_HICACHE_BACKEND_RANDOM_DELAY": "0.02", "SGLANG_TEST_HICACHE_BACKEND_RANDOM_FAILURE": "0.3"}
    os.environ |= variables
    came = []
    try:
        with host(salt="failures") as shaky:
            for end in range(2 * PAGE, TOKENS + 1, 2 * PAGE):
                shaky.write(rows[:, :, :end], tokens[:end], [])
                found = shaky.read(tokens[:end], rows.shape, [])
                assert same(found, rows, found.shape[2]), "after injected failures other bytes came than were stored"
                came.append(found.shape[2] / end)
    finally:
        for name in variables:
            del os.environ[name]
    assert 0 < sum(came) < len(came), "the injected failures were none, or all"
    report.figures["of_what_was_asked_with_injected_failures"] = sum(came) / len(came)
    report.ran.append("SGLang's random delays (20 ms) and failures (3 of 10) of the backend's calls: nothing wrong came back")


def _killed(report: Report, engine: Reference, host: Callable[..., Host], rows: Any, expected: list[int], daemon: Daemon) -> bool:
    """The daemon is killed before a load, in the middle of one, and after it: what came is right, and the rest is computed."""
    from kvtc.adapters.sglang.pool import HostPages

    place, placed = HostPages.place, [0]

    def place_and_kill(pool: HostPages, index: int, page: Any) -> None:
        placed[0] += 1
        if placed[0] == 5:
            daemon.kill()
        place(pool, index, page)

    daemon.stop()
    daemon.start()
    with host() as other:
        seen = [other.read(engine.tokens, rows.shape, [])]
        HostPages.place = place_and_kill  # type: ignore[method-assign]
        try:
            seen.append(other.read(engine.tokens, rows.shape, []))
        finally:
            HostPages.place = place  # type: ignore[method-assign]
        seen.append(other.read(engine.tokens, rows.shape, []))
        wrote = other.write(rows, engine.tokens, [])
    good = wrote == 0 and placed[0] >= 5
    good &= [found.shape[2] for found in seen[::2]] == [TOKENS, 0] and 0 <= seen[1].shape[2] < TOKENS
    for found in seen:
        good &= same(found, rows, found.shape[2]) and engine.generate(found) == expected
    with host() as away:
        good &= away.read(engine.tokens, rows.shape, []).shape[2] == 0
        daemon.start()
        good &= _eventually(lambda: same(away.read(engine.tokens, rows.shape, []), rows, TOKENS))
    report.ran.append("kvtcd killed before, during and after a load, and started again under a running controller")
    return good


def _eventually(condition: Callable[[], bool]) -> bool:
    """What was away is tried again after a pause that doubles."""
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def _coded(report: Report, engine: Reference, host: Callable[..., Host], rows: Any, logits: Any, daemon: Daemon) -> None:
    import torch

    options = {"mode": "transform", "ratio": 16, "sink": 4, "window": 128}
    with daemon.connect() as client, host(**options) as first:
        before = kept_bytes(client)
        assert first.write(rows, engine.tokens, None) == 0, "coded without positions"
        assert first.write(rows, engine.tokens, []) == TOKENS
        until(client, "coding", all_coded)
        report.figures["ratio_with_sink_and_window"] = rows[:, :, :TOKENS].nbytes / (kept_bytes(client) - before)
    with host(**options) as second:
        found = second.read(engine.tokens, rows.shape, [])
    assert found.shape[2] == TOKENS
    wanted = rows[:, :, :TOKENS]
    exact = [bool(torch.equal(found[:, :, at], wanted[:, :, at])) for at in (*range(4), *range(TOKENS - 128, TOKENS))]
    assert all(exact), "sinks or window are not exact"
    report.figures["relative_error"] = float(((found - wanted) ** 2).sum() / (wanted**2).sum())
    report.kl = engine.divergence(found, logits)
    report.ran.append("transform at 16 with positions from prefix keys, sink and window exact; refused without positions")
