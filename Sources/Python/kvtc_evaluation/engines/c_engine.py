"""libkvtc as an engine in C uses it: llama.cpp's cache of a real prompt goes out through kvtc.h and comes back through it.

The calls are made from Python, with the structures of the header; the cache, the tokens and the daemon are real.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kvtc.adapters.engine import Origin
from kvtc.adapters.llama_cpp.sessions import wire_geometry
from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.calibration.texts import held_out_documents
from kvtc.identity import Identity
from kvtc.protocol.geometry import Layout

from ..daemon import Daemon
from .c_library import CSession, Failed, Library
from .report import Report, Setting

_TOKENS, _GENERATED, _PAGE = 2048, 16, 64
_HIT = 0


def run(setting: Setting) -> Report:
    library = Library(Path(os.environ["KVTC_LIBRARY"]))
    report = Report(library.c.kvtc_version().decode(), unproven=["an engine written in C or C++ other than the example"])
    with (
        Daemon(setting.kvtcd, setting.kvtcctl, [], ram_mib=512, disk_mib=512) as daemon,
        LlamaWorker(setting.gguf, context=_TOKENS + _GENERATED + 1) as worker,
    ):
        daemon.start()
        engine = _Engine(library, daemon, worker, worker.tokenize(held_out_documents(1)[0].text)[:_TOKENS])
        _, report.ttft_recompute_s, _ = engine.turn()
        engine.keep()
        following, report.ttft_restore_s, restored = engine.turn()
        report.same_tokens = restored == _TOKENS and following == engine.following(restored)
        report.ran.append(f"{_TOKENS} tokens of llama.cpp's cache pushed, and pulled layer by layer by another session")
        report.isolation_ok = engine.is_isolated()
        report.ran.append("weights, adapters' scales, cache types, salts and ranks apart")
        turns = [engine.turn(kill=when) for when in ("before", "during", "after")]
        daemon.start()
        turns.append(engine.turn())
        report.daemon_down_ok = turns[0][2] == 0 and turns[-1][2] == _TOKENS
        report.daemon_down_ok &= all(following == engine.following(restored) for following, _, restored in turns)
        report.figures["restored_of_a_killed_daemon"] = turns[1][2]
        report.ran.append("daemon killed before, during and after a load; started again: hits again")
    return report


class _Engine:
    """llama.cpp's worker with libkvtc at its side, and nothing of kvtc's Python client."""

    def __init__(self, library: Library, daemon: Daemon, worker: LlamaWorker, tokens: Sequence[int]) -> None:
        self._library, self._daemon, self._worker, self._tokens = library, daemon, worker, list(tokens)
        self._keys = library.page_keys(tokens, _PAGE)

    def _session(self, identity: Identity | None = None) -> CSession:
        options = self._library.options(
            str(self._daemon.socket), (identity or self._worker.identity).digest, wire_geometry(self._worker.geometry), Layout()
        )
        options.page_tokens, options.timeout_ms = _PAGE, 30_000
        return self._library.session(options)

    def keep(self) -> None:
        """Pushes the cache that the worker holds."""
        worker = self._worker
        worker.truncate(_TOKENS)
        self._exact = state = worker.get_state()
        with self._session() as session:
            pages = [(key, i * _PAGE, _PAGE, state.page(i * _PAGE, _PAGE)) for i, key in enumerate(self._keys)]
            session.push(pages)
            # What was killed with the daemon is on disk.
            session.flush()

    def turn(self, kill: str = "") -> tuple[list[int], float, int]:
        """Restores what there is and computes the rest: the tokens that follow, seconds to the first, and tokens restored."""
        worker = self._worker
        worker.clear()
        if kill == "before":
            self._daemon.kill()
        begin = time.perf_counter()
        restored = self._restore(kill)
        logits = self._compute_rest(restored)
        int(logits.argmax())
        seconds = time.perf_counter() - begin
        following = list(worker.generate(logits, _GENERATED))
        if kill in ("before", "during"):
            self._daemon.start()
        if kill == "after":
            self._daemon.kill()
        return following, seconds, restored

    def following(self, own: int) -> list[int]:
        """What follows where the engine has so many tokens in a cache of its own, and kvtcd no part in it. Computing more or fewer of
        them at once rounds in other places."""
        self._worker.clear()
        if own:
            self._worker.set_state(self._exact.first(own))
        return list(self._worker.generate(self._compute_rest(own), _GENERATED))

    def _compute_rest(self, own: int) -> np.ndarray:
        # Logits are no part of the cache.
        self._worker.truncate(min(own, _TOKENS - 1))
        return self._worker.prefill(self._tokens[self._worker.position :])

    def _restore(self, kill: str) -> int:
        worker, size = self._worker, _PAGE
        state = worker.blank_state(len(self._keys) * size)
        page_bytes = state.token_bytes() * size
        pages = np.zeros((len(self._keys), page_bytes), np.uint8)
        layers, parts = worker.geometry.layers, itertools.count()

        def place(index: int, begin: int, end: int, data: np.ndarray) -> None:
            if kill == "during" and next(parts) == 1:
                self._daemon.kill()
            # K of all layers, then V: the part has K of its layers, then V of those.
            half = page_bytes // 2
            keys, values = data[: len(data) // 2], data[len(data) // 2 :]
            at = half // layers * begin
            pages[index, at : at + len(keys)], pages[index, half + at : half + at + len(values)] = keys, values

        outcomes: list[int] = []
        try:
            with self._session() as session:
                found, lease, _ = session.lookup(self._keys, lease_ms=30_000)
                if found:
                    outcomes = session.pull(self._keys[:found], place, lease=lease, layer_step=10)
                session.release(lease)
        except Failed:
            # Computed, like any miss.
            pass
        whole = len(list(itertools.takewhile(lambda outcome: outcome == _HIT, outcomes)))
        if whole:
            for index in range(whole):
                state.replace(index * size, size, pages[index])
            state.origin = Origin(tuple(self._tokens[: whole * size]), worker.identity.digest)
            worker.set_state(state.first(whole * size))
        return whole * size

    def is_isolated(self) -> bool:
        """Whether sessions of anything else find none of the pages."""
        weights = self._worker.weights
        others = [
            Identity(bytes(32)),
            Identity(weights, adapters=[(bytes(32), 1.0)]),
            Identity(weights, adapters=[(bytes(32), 0.5)]),
            Identity(weights, kv_type="q8_0"),
            Identity(weights, salt="tenant"),
            Identity(weights, part="tp1/2"),
        ]
        for other in others:
            with self._session(other) as session:
                if session.lookup(self._keys)[0]:
                    return False
        return True
