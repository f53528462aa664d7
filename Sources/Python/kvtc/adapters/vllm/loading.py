"""Bringing a request's pages into vLLM's memory, in a thread beside the engine's."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..codec import Cells, moment
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
        self.groups, self.is_layerwise, self._pages = groups, is_layerwise, pages
        # Blocks are written when nothing reads what was in them before.
        self.begin = [moment(group.device) for group in groups]
        self._ended = threading.Event()
        self._events: dict[tuple[int, int], list[Any]] = {}
        # Pages that are still missing, by group and layer.
        self._missing = [dict.fromkeys(group.layers, len(transfer.keys)) for group in groups]
        self._arrived = threading.Condition()

    @property
    def is_done(self) -> bool:
        return self._ended.is_set()

    def run(self) -> None:
        try:
            for number in range(len(self.groups)):
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
        blocks = np.array(self.transfer.blocks[number]).reshape(len(self.transfer.keys), -1)
        wanted = [index for index, of_page in enumerate(blocks) if (of_page != NULL_BLOCK).any()]
        target = _Arrival(self, number, [blocks[index].tolist() for index in wanted])
        arrived = self._pages[number].bring([self.transfer.keys[index] for index in wanted], target)
        for index, is_whole in zip(wanted, arrived, strict=True):
            if not is_whole:
                self.failed |= {int(block) for block in blocks[index] if block != NULL_BLOCK}

    def note(self, group: int, layers: Iterable[int], pages: int, event: Any = None) -> None:
        """Layers of so many pages are there, when the event of the device is over."""
        missing = self._missing[group]
        with self._arrived:
            for layer in layers:
                if layer in missing:
                    missing[layer] -= pages
                    if event is not None:
                        self._events.setdefault((group, layer), []).append(event)
            self._arrived.notify_all()

    def finish(self, seconds: float | None = None) -> None:
        """Returns when it has ended, or after so long."""
        self._ended.wait(seconds)

    def wait(self, group: int, layer: int) -> None:
        """Returns when the layer is there, or the load has ended, which it does by its deadline. What computes waits on the device."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._ended.is_set() or self._missing[group][layer] <= 0)
            for event in self._events.get((group, layer), ()):
                event.wait()


class _Arrival:
    """A load's pages of one group, and where they go."""

    def __init__(self, load: Load, number: int, pages: Sequence[Sequence[int]]) -> None:
        self._load, self._number, self._pages, self._group = load, number, pages, load.groups[number]
        layers = max(self._group.layers) + 1
        self.layer_step = -(-layers // STEPS) if load.is_layerwise else layers
        self.geometry, self._stream = self._group.geometry, _stream(self._group, load.begin[number])
        self.cells: Cells | None = self._group.cells(pages, load.begin[number])

    def write(self, index: int, layers: range, data: np.ndarray) -> None:
        with self._stream:
            self._group.scatter(_tensor(data), layers, self._pages[index])
            self._stream.finish()
        self._load.note(self._number, layers, 1)

    def reached(self, pages: Sequence[int], layer: int, event: Any) -> None:
        self._load.note(self._number, [layer], len(pages), event)


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

    def __init__(self, device: Any, begin: Any) -> None:
        import torch

        self._torch, self._stream = torch, torch.cuda.Stream(device)
        self._stream.wait_event(begin)

    def __enter__(self) -> None:
        self._context = self._torch.cuda.stream(self._stream)
        self._context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def finish(self) -> None:
        self._stream.synchronize()


def _stream(group: GroupCache | StateCache, begin: Any) -> Any:
    return _Device(group.device, begin) if group.device.type == "cuda" else _Inline()
