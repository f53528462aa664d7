"""Who decodes an engine's pages, and codes them: the daemon, or this side, on the device that holds the cache (`device.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..leases import Lease
from ..protocol.geometry import Geometry, Role
from ..protocol.messages import PullOutcome, PushOutcome
from ..push import Page
from ..session import Session

Place = Callable[[int, np.ndarray], None]
"""Takes a page by its index among the keys; its bytes are valid until it returns."""


@dataclass(frozen=True)
class Cells:
    """Where pages lie in the memory of an engine's device. ``cache``: by layer and role a view [blocks, heads, tokens of a block, head_dim].
    ``slots``: for each page, for each of its tokens, block × tokens of a block + token; −1: not wanted. ``free``: an event of the device from
    which on the memory may be read and written."""

    cache: Mapping[tuple[int, Role], Any]
    slots: Sequence[np.ndarray]
    free: Any = None


def moment(device: Any) -> Any:
    """An event of a GPU: when all is done that the calling thread has left to it so far. None of a processor, where that is always."""
    import torch

    return torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None


class Target(Protocol):
    """Where pages go, by their index among the keys that are asked for."""

    @property
    def layer_step(self) -> int:
        """Layers that are wanted together, the first ones of all pages before later ones of any; 0: pages are wanted whole."""

    @property
    def geometry(self) -> Geometry | None:
        """With a step: as the daemon has it, where the session leaves that to the profile."""

    @property
    def cells(self) -> Cells | None:
        """None where only the processor writes there."""

    def write(self, index: int, layers: range, data: np.ndarray) -> None:
        """Some layers of a page, in the session's layout and the order of layers; those of a page that failed come again from the first,
        or not at all. ``data`` is valid until it returns."""

    def reached(self, pages: Sequence[int], layer: int, event: Any) -> None:
        """A layer of these pages was written into the cells, when the event is over; None: now. A page that failed is among them."""


@dataclass(frozen=True)
class Whole:
    """A target of whole pages."""

    place: Place
    cells: Cells | None = None
    layer_step = 0
    geometry = None

    def write(self, index: int, layers: range, data: np.ndarray) -> None:
        self.place(index, data)

    def reached(self, pages: Sequence[int], layer: int, event: Any) -> None:
        """Waited for with the rest."""


@dataclass(frozen=True)
class Run:
    """Pages that follow one another, to be sent. ``first``: the position of the first one's first token. ``page``: the bytes of the page with
    that index, in the session's layout. ``cells``: where they lie on the device, too."""

    keys: Sequence[bytes]
    first: int
    page: Callable[[int], object]
    cells: Cells | None = None

    def pages(self, indices: Sequence[int], size: int) -> list[Page]:
        """Those of so many tokens each."""
        return [Page(self.keys[index], self.first + index * size, self.page(index), size) for index in indices]


class Codec(Protocol):
    """Moves pages of a session. Both raise KvtcError."""

    def bring(self, session: Session, keys: Sequence[bytes], target: Target, arrived: NDArray[np.bool_], lease: Lease | None) -> None:
        """Brings those that are there, and notes which arrived whole."""

    def send(self, session: Session, run: Run) -> list[PushOutcome]: ...


class DaemonCodec:
    """Pages travel as the engine has them."""

    def bring(self, session: Session, keys: Sequence[bytes], target: Target, arrived: NDArray[np.bool_], lease: Lease | None) -> None:
        next_layer = np.zeros(len(keys), int)
        for part in session.pull(keys, layer_step=target.layer_step, lease=lease):
            geometry, size = target.geometry, session.page_bytes
            if geometry:
                size = session.layout.page_bytes(geometry, session.page_tokens, part.layers)
            if part.outcome != PullOutcome.HIT or len(part.data) != size:
                next_layer[part.index], arrived[part.index] = 0, False
                continue
            target.write(part.index, part.layers, np.frombuffer(part.data, np.uint8))
            part.require_valid()
            follows = part.layers.start in (0, next_layer[part.index])
            next_layer[part.index] = part.layers.stop if follows else 0
            arrived[part.index] = geometry is None or next_layer[part.index] >= geometry.layers

    def send(self, session: Session, run: Run) -> list[PushOutcome]:
        # Made while earlier ones are on their way.
        size = session.page_tokens
        return session.push(Page(key, run.first + index * size, run.page(index), size) for index, key in enumerate(run.keys))


DAEMON = DaemonCodec()
