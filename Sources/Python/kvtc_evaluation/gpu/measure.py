"""The measurements, and what they come to."""

from __future__ import annotations

import base64
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton

from kvtc.gpu import Decoder, Encoder, NotExact, Page, Profile
from kvtc.gpu.blocks import HEADER
from kvtc.protocol.geometry import Element

from . import daemon, synthetic
from .prefill import Model
from .shape import Shape

ROOT = Path(__file__).resolve().parents[4]
GOLDEN = ROOT / "Tests" / "Golden"
_PEAK_SIDE = 8192
_BLOCK = 16
"""Tokens of a block of the cache."""
_PRODUCTS = ("library", "int8", "floats")


class Measurement:
    """All of it, in the order in which less would do if time runs out."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self._shape, self._device = shape, device
        self._figures: dict[str, float] = {}
        self._notes: list[str] = []
        self._is_exact = False
        self._best = _PRODUCTS[0]

    def run(self) -> None:
        self._is_exact = self._golden()
        file = synthetic.profile_file(self._shape, self._device)
        profile = Profile(file)
        decoders = {product: decoder for product in _PRODUCTS if (decoder := self._decoder(profile, product))}
        if not decoders:
            return
        cache = self._cache(profile)
        some = next(iter(decoders.values()))
        pages = {ratio: self._pinned(synthetic.coded(self._shape, some, ratio)) for ratio in self._shape.ranks}
        for ratio, blocks in pages.items():
            self._figures[f"ratio_{ratio}"] = self._shape.page * self._shape.row * 2 * len(blocks) / sum(len(block) for block in blocks)
        batch, tokens = self._shape.sizes[min(1, len(self._shape.sizes) - 1)]
        for product, decoder in decoders.items():
            seconds, _ = self._restore(decoder, pages[16], batch * tokens, cache)
            self._figures[f"restore_{batch * tokens}_16_by_{product}_ms"] = 1e3 * seconds
        self._best = min(decoders, key=lambda product: self._figures[f"restore_{batch * tokens}_16_by_{product}_ms"])
        decoder = decoders.pop(self._best)
        del some
        decoders.clear()
        encoder = Encoder(decoder)
        self._restores(decoder, pages, cache)
        self._from_daemon(file, decoder, encoder, pages, cache)
        self._others(decoder, encoder, cache)
        del decoder, encoder, cache
        self._free()
        self._prefills()

    def report(self) -> dict[str, Any]:
        figures = self._figures
        on_gpu = self._device.type == "cuda"
        device = torch.cuda.get_device_name(self._device) if on_gpu else "no GPU: Triton's interpreter, nothing is claimed"

        def over(above: str, below: str) -> float | None:
            return round(figures[above] / figures[below], 3) if on_gpu and above in figures and below in figures else None

        def rate(tokens: int, name: str) -> float | None:
            return round(tokens / figures[name] * 1e3) if on_gpu and name in figures else None

        source = "daemon" if any(name.startswith("daemon_") for name in figures) else "restore"
        ratios = {
            "restore_vs_prefill_8k_16": over("prefill_1x8192_ms", f"{source}_1x8192_16_ms"),
            "restore_vs_prefill_8k_45": over("prefill_1x8192_ms", f"{source}_1x8192_45_ms"),
            "restore_vs_prefill_32k_45": over("prefill_1x32768_ms", f"{source}_1x32768_45_ms"),
            "restore_vs_prefill_8x8k_16": over("prefill_8x8192_ms", f"{source}_8x8192_16_ms"),
            "first_layer_share": over("first_layer_1x8192_16_ms", "restore_1x8192_16_ms"),
            "encode_tokens_s": rate(8192, "encode_8192_16_ms"),
            "decode_tokens_s": rate(8192, "restore_1x8192_16_ms"),
            "decode_share_of_int8_peak": over("products_ideal_8192_16_ms", "restore_1x8192_16_ms"),
            "bit_identical": self._is_exact,
        }
        versions = {"torch": torch.__version__, "triton": triton.__version__, "product": self._best}
        versions["restored_from"] = "kvtcd" if source == "daemon" else "pinned memory"
        return {"device": device, "shape": self._shape.name, "versions": versions, "figures": figures, "ratios": ratios, "notes": self._notes}

    def _golden(self) -> bool:
        """Whether the repository's golden blocks decode to their pages here."""
        is_exact = True
        for path in sorted(GOLDEN.glob("blocks-*.json")):
            stored = json.loads(path.read_text())
            profile = Profile(base64.b64decode(stored["profile"]))
            try:
                decoder = Decoder(profile, self._device, Element.F16)
            except NotExact as error:
                self._note(f"{path.name}: {error}")
                is_exact = False
                continue
            for case in stored["cases"]:
                page = np.frombuffer(base64.b64decode(case["page"]), np.int16)
                tokens = page.size // profile.row
                cache = {
                    (tensor.layer, tensor.role): torch.zeros((1, tensor.heads, tokens, tensor.head_dim), dtype=torch.float16, device=self._device)
                    for tensor in profile.geometry.tensors
                }
                try:
                    failed = decoder.restore([base64.b64decode(case["block"])], [np.arange(tokens)], cache).failed
                except ImportError as error:
                    self._note(f"{path.name}, {case['name']}: not looked at, {error}")
                    continue
                rows = [view.transpose(1, 2).reshape(tokens, -1).cpu().view(torch.int16).numpy() for view in cache.values()]
                if failed or not np.array_equal(np.concatenate(rows, 1), page.reshape(tokens, -1)):
                    self._note(f"{path.name}, {case['name']}: other bits, or {failed}")
                    is_exact = False
        return is_exact

    def _decoder(self, profile: Profile, product: str) -> Decoder | None:
        """One that has shown on the shape itself that its bits are right."""
        try:
            with self._timed(f"start_{product}_ms"):
                return Decoder(profile, self._device, Element.BF16, product=product)
        except (NotExact, RuntimeError) as error:
            self._note(f"products by {product}: {error}")
            self._is_exact &= not isinstance(error, NotExact)
            return None

    def _cache(self, profile: Profile) -> dict[Any, Any]:
        tokens = max(batch * tokens for batch, tokens in self._shape.sizes)
        return {
            (tensor.layer, tensor.role): torch.zeros(
                (-(-tokens // _BLOCK), tensor.heads, _BLOCK, tensor.head_dim), dtype=torch.bfloat16, device=self._device
            )
            for tensor in profile.geometry.tensors
        }

    def _pinned(self, blocks: Sequence[bytes]) -> list[np.ndarray]:
        """In memory that the device copies from by itself, as the client's arena is to be."""
        result = []
        for block in blocks:
            room = torch.empty(len(block), dtype=torch.uint8, pin_memory=self._device.type == "cuda")
            room.numpy()[:] = np.frombuffer(block, np.uint8)
            result.append(room.numpy())
        return result

    def _restore(self, decoder: Decoder, pages: Sequence[np.ndarray], tokens: int, cache: Any) -> tuple[float, float]:
        """Seconds until all of it is there, and until the first layer is: medians."""

        def restore(slots: Sequence[np.ndarray]) -> Any:
            restored = decoder.restore([pages[number % len(pages)] for number in range(len(slots))], slots, cache, is_verified=True)
            self._finish()
            if restored.failed:
                raise RuntimeError(f"a good block was refused: {next(iter(restored.failed.values()))}")
            return next(iter(restored.events.values()), None)

        return self._repeated(tokens, restore)

    def _repeated(self, tokens: int, restore: Callable[[Sequence[np.ndarray]], Any]) -> tuple[float, float]:
        """Of what fills so many slots, and says by which event the first layer was there. Which slot a token has is random by blocks."""
        count = tokens // self._shape.page
        order = np.random.default_rng(4).permutation(tokens // _BLOCK)[:, None] * _BLOCK + np.arange(_BLOCK)
        slots = list(order.reshape(count, self._shape.page))
        whole, first = [], []
        for number in range(self._shape.rounds + 1):
            self._finish()
            begin = torch.cuda.Event(enable_timing=True) if self._device.type == "cuda" else None
            started = time.perf_counter()
            if begin:
                begin.record()
            event = restore(slots)
            self._finish()
            # The first time is a warm-up where there is a GPU.
            if number or self._shape.rounds == 0:
                whole.append(time.perf_counter() - started)
                first.append(begin.elapsed_time(event) / 1e3 if begin and event else whole[-1])
        return statistics.median(whole), statistics.median(first)

    def _restores(self, decoder: Decoder, pages: dict[int, list[np.ndarray]], cache: Any) -> None:
        for ratio, blocks in pages.items():
            for batch, tokens in self._shape.sizes:
                if self._device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated() if self._device.type == "cuda" else 0
                whole, first = self._restore(decoder, blocks, batch * tokens, cache)
                self._figure(f"restore_{batch}x{tokens}_{ratio}_ms", 1e3 * whole)
                self._figure(f"first_layer_{batch}x{tokens}_{ratio}_ms", 1e3 * first)
                if self._device.type == "cuda":
                    self._figure(f"memory_{batch}x{tokens}_{ratio}_mib", (torch.cuda.max_memory_allocated() - before) / 2**20)
        self._figure("memory_resident_mib", decoder.resident.bytes / 2**20)
        self._figure("memory_stated_mib", decoder.memory() / 2**20)

    def _from_daemon(self, file: np.ndarray, decoder: Decoder, encoder: Encoder, pages: dict[int, list[np.ndarray]], cache: Any) -> None:
        """The same from the RAM of a running kvtcd, and raw pages beside."""
        kvtcd = Path(os.environ.get("KVTCD") or ROOT / ".build" / "release" / "kvtcd")
        if not kvtcd.is_file():
            return self._note(f"{kvtcd} is not there: restored from pinned memory only")
        most = max(batch * tokens for batch, tokens in self._shape.sizes) // self._shape.page
        batch, tokens = self._shape.sizes[min(1, len(self._shape.sizes) - 1)]
        with daemon.stored(kvtcd, file, self._shape, decoder, encoder) as kept:
            for ratio, blocks in pages.items():
                kept.push(ratio, [block.tobytes() for block in blocks], most)
                for batch_of, tokens_of in self._shape.sizes:
                    name = f"{batch_of}x{tokens_of}_{ratio}_ms"
                    whole, first = self._repeated(batch_of * tokens_of, lambda slots, ratio=ratio: kept.restore(ratio, slots, cache))  # type: ignore[misc]
                    self._figure(f"daemon_{name}", 1e3 * whole)
                    self._figure(f"daemon_first_layer_{name}", 1e3 * first)
            kept.push_raw([block[HEADER:] for block in synthetic.raw(self._shape, decoder)], batch * tokens // self._shape.page)
            whole, _ = self._repeated(batch * tokens, lambda slots: kept.restore(0, slots, cache))
            self._figure(f"daemon_raw_{batch * tokens}_ms", 1e3 * whole)

    def _others(self, decoder: Decoder, encoder: Encoder, cache: Any) -> None:
        """Raw pages, coding, and the fastest that products alone could be."""
        batch, tokens = self._shape.sizes[min(1, len(self._shape.sizes) - 1)]
        count = batch * tokens
        whole, _ = self._restore(decoder, self._pinned(synthetic.raw(self._shape, decoder)), count, cache)
        self._figure(f"raw_{count}_ms", 1e3 * whole)
        # What was restored last was random bits; rows that were decoded are like those that are coded.
        self._restore(decoder, self._pinned(synthetic.coded(self._shape, decoder, 16)), count, cache)
        pages = [Page(np.arange(first, first + self._shape.page), first) for first in range(0, count, self._shape.page)]
        made: list[bytes | None] = []

        def encode() -> None:
            made[:] = encoder.encode(pages, cache, ratio=16)

        self._figure(f"encode_{count}_16_ms", 1e3 * self._median(encode))
        self._note(f"coded {sum(block is not None for block in made)} of {len(made)} pages")
        if self._device.type == "cuda":
            a = torch.randint(-8, 8, (_PEAK_SIDE, _PEAK_SIDE), dtype=torch.int8, device=self._device)
            peak = 2 * _PEAK_SIDE**3 / self._median(lambda: torch._int_mm(a, a.t()))
            self._figure("int8_peak_tops", peak / 1e12)
            self._figure("products_ideal_8192_16_ms", 2e3 * 8192 * self._shape.row * sum(decoder.resident.widths) / peak)

    def _prefills(self) -> None:
        model = Model(self._shape, self._device)
        for batch, tokens in self._shape.sizes:
            ids = torch.randint(0, self._shape.vocabulary, (batch, tokens), device=self._device)
            try:
                self._figure(f"prefill_{batch}x{tokens}_ms", 1e3 * self._median(lambda ids=ids: model.prefill(ids)))  # type: ignore[misc]
            except torch.cuda.OutOfMemoryError as error:
                self._note(f"prefill of {batch} x {tokens}: {error}")
            self._free()

    def _median(self, work: Callable[[], Any]) -> float:
        seconds = []
        for number in range(self._shape.rounds + 1):
            self._finish()
            started = time.perf_counter()
            work()
            self._finish()
            if number or self._shape.rounds == 0:
                seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._finish()
        self._figure(name, 1e3 * (time.perf_counter() - started))

    def _finish(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _free(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _figure(self, name: str, value: float) -> None:
        self._figures[name] = round(value, 3)
        print(f"{name:44} {value:12.2f}", flush=True)

    def _note(self, text: str) -> None:
        self._notes.append(text)
        print(text, flush=True)
