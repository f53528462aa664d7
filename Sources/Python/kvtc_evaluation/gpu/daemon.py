"""Pages in the RAM of a kvtcd of their own, brought back the way an engine's adapter does: pulled as they are stored, decoded on the device."""

from __future__ import annotations

import hashlib
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from kvtc import Block, Element, Layout, Mode, Order, Policy, PushOutcome, Session
from kvtc import Page as RawPage
from kvtc.adapters import transfer
from kvtc.adapters.codec import Cells
from kvtc.adapters.coder import Coder
from kvtc.adapters.device import DeviceCodec
from kvtc.gpu import Decoder, Encoder

from ..daemon import PATIENCE, Daemon
from .shape import Shape

_POSITION, _CHECKSUM = 52, 96
"""Where a block's header has its first position, and its own checksum."""


@dataclass
class _Arrival:
    """A target of whole pages. ``first``: the event after which the first layer of all of them was there."""

    cells: Cells
    first: Any = None
    layer_step: int = 0
    geometry: None = None

    def write(self, index: int, layers: range, data: np.ndarray) -> None:
        raise RuntimeError("the daemon gave a page that it decoded")

    def reached(self, pages: Sequence[int], layer: int, event: Any) -> None:
        if layer == 0:
            self.first = event


@dataclass
class StoredPages:
    """``keys``: of what was pushed, by kind (a ratio, or 0 for raw pages), in order."""

    session: Session
    raw: Session
    codec: DeviceCodec
    shape: Shape
    keys: dict[int, list[bytes]] = field(default_factory=dict)

    def push(self, kind: int, blocks: Sequence[bytes], count: int) -> None:
        """So many pages, which repeat these blocks at positions of their own."""
        keys = self.keys[kind] = [hashlib.sha256(struct.pack("<II", kind, number)).digest() for number in range(count)]
        outcomes = self.session.push_blocks(
            Block(key, number * self.shape.page, self.shape.page, _moved(blocks[number % len(blocks)], number * self.shape.page))
            for number, key in enumerate(keys)
        )
        _require_stored(outcomes)

    def push_raw(self, pages: Sequence[bytes], count: int) -> None:
        keys = self.keys[0] = [hashlib.sha256(struct.pack("<II", 0, number)).digest() for number in range(count)]
        made = (RawPage(key, number * self.shape.page, pages[number % len(pages)], self.shape.page) for number, key in enumerate(keys))
        _require_stored(self.raw.push(made))

    def restore(self, kind: int, slots: Sequence[np.ndarray], cache: Any) -> Any:
        """Brings the first pages of a kind into these slots, and returns when they are there; the event of the first layer."""
        target = _Arrival(Cells(cache, slots))
        session, keys = self.session if kind else self.raw, self.keys[kind][: len(slots)]
        arrived = transfer.pull_found(session, keys, target, codec=self.codec, deadline=PATIENCE)
        if not arrived.all():
            raise RuntimeError(f"{int((~arrived).sum())} of {len(keys)} pages did not come")
        return target.first


@contextmanager
def stored(kvtcd: Path, profile_file: np.ndarray, shape: Shape, decoder: Decoder, encoder: Encoder) -> Iterator[StoredPages]:
    """With a daemon that has the profile and nothing else."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "synthetic.kvtc.safetensors"
        profile_file.tofile(path)
        daemon = Daemon(kvtcd, kvtcd.with_name("kvtcctl"), [path], ram_mib=shape.ram_mib, disk_mib=0)
    with daemon:
        daemon.start(PATIENCE)
        with daemon.connect(arena_bytes=256 << 20) as client:

            layout, most = Layout(Element.BF16, Order.TOKEN_TENSOR_HEAD), max(batch * tokens for batch, tokens in shape.sizes)
            # What is before no window is coded, and what is in one stays raw.
            policies = [Policy(mode=Mode.TRANSFORM, sink=0, window=window) for window in (0, most)]
            coded, raw = (
                client.open_session("gpu", profile=decoder.profile.id, layout=layout, policy=policy, page_tokens=shape.page)
                for policy in policies
            )
            yield StoredPages(coded, raw, DeviceCodec(Coder(decoder, encoder), policies[0]), shape)


def _moved(block: bytes, position: int) -> bytes:
    header = bytearray(block[: _CHECKSUM + 8])
    struct.pack_into("<I", header, _POSITION, position)
    struct.pack_into("<Q", header, _CHECKSUM, xxhash.xxh3_64_intdigest(bytes(header[:_CHECKSUM])))
    return bytes(header) + block[len(header) :]


def _require_stored(outcomes: Sequence[PushOutcome]) -> None:
    if any(outcome != PushOutcome.STORED for outcome in outcomes):
        raise RuntimeError(f"pages came to {set(outcomes)}")

