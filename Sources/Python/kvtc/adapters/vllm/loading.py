"""Bringing a request's pages into vLLM's memory, in a thread beside the engine's."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..keyed import KeyedPages
from .attention import NULL_BLOCK
from .layout import GroupCache
from .pages import Transfer
from .state import StateCache

STEPS = 6
"""Parts that a page comes in where a step waits for it layer by layer: the first arrives after a sixth, none is small."""


class Load:
    """One request's pages on their way. `run` is the thread's; the engine's waits by `wait`, or looks at `is_done`.

    `failed`: blocks that did not get what they should, once it is done.
    """

    def __init__(self, transfer: Transfer, groups: Sequence[GroupCache | StateCache], pages: Sequence[KeyedPages], is_layerwise: bool) -> None:
        self.transfer, self.failed = transfer, set[int]()
        self._groups, self._pages, self._is_layerwise = groups, pages, is_layerwise
        self._ended = threading.Event()
        # Pages that are still missing, by group and layer.
        self._missing = [dict.fromkeys(group.layers, len(transfer.keys)) for group in groups]
        self._arrived = threading.Condition()

    @property
    def is_done(self) -> bool:
        return self._ended.is_set()

    def run(self) -> None:
        try:
            for number in range(len(self._groups)):
                self._bring(number)
        except BaseException:
            self._fail()
            raise
        finally:
            self._end()

    def give_up(self) -> None:
        """Instead of `run`, where nothing is brought."""
        self._fail()
        self._end()

    def _fail(self) -> None:
        self.failed |= {block for of_group in self.transfer.blocks for block in of_group if block != NULL_BLOCK}

    def _end(self) -> None:
        with self._arrived:
            self._ended.set()
            self._arrived.notify_all()

    def _bring(self, number: int) -> None:
        group, missing = self._groups[number], self._missing[number]
        blocks = np.array(self.transfer.blocks[number]).reshape(len(self.transfer.keys), -1)
        wanted = [index for index, of_page in enumerate(blocks) if (of_page != NULL_BLOCK).any()]
        stream = _stream(group)

        def place(index: int, layers: range, data: np.ndarray) -> None:
            with stream:
                group.scatter(_tensor(data), layers, blocks[wanted[index]].tolist())
                stream.finish()
            with self._arrived:
                for layer in layers:
                    if layer in missing:
                        missing[layer] -= 1
                self._arrived.notify_all()

        layers = max(group.layers) + 1
        step = -(-layers // STEPS) if self._is_layerwise else layers
        arrived = self._pages[number].get_parts([self.transfer.keys[index] for index in wanted], step, place)
        for index, is_whole in zip(wanted, arrived, strict=True):
            if not is_whole:
                self.failed |= {int(block) for block in blocks[index] if block != NULL_BLOCK}

    def finish(self, seconds: float | None = None) -> None:
        """Returns when it has ended, or after so long."""
        self._ended.wait(seconds)

    def wait(self, group: int, layer: int) -> None:
        """Returns when the layer is there, or the load has ended, which it does by its deadline."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._ended.is_set() or self._missing[group][layer] <= 0)


def _tensor(data: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(data)


class _Inline:
    """Where memory is the processor's, what is written is there."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def finish(self) -> None: ...


class _Device:
    """Beside the stream that computes: writes are over before anybody is told of them."""

    def __init__(self, device: Any) -> None:
        import torch

        self._torch, self._stream = torch, torch.cuda.Stream(device)

    def __enter__(self) -> None:
        self._context = self._torch.cuda.stream(self._stream)
        self._context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def finish(self) -> None:
        self._stream.synchronize()


def _stream(group: GroupCache | StateCache) -> Any:
    return _Device(group.device) if group.device.type == "cuda" else _Inline()
