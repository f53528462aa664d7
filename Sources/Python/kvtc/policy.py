"""How a session wants its pages treated."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from .wire import F32, U8, U32, Struct, enum_of, list_of, wired


class Mode(IntEnum):
    """The coder of pages that left the window. All but ``LOSSLESS`` change values; ``TRANSFORM`` and ``KVTC`` need a profile."""

    LOSSLESS = 1
    TRANSFORM = 2
    KVTC = 3
    QUANT8 = 4
    QUANT4 = 5


class QualityKind(IntEnum):
    """What ``Policy.quality`` means: raw bytes over stored bytes, or a bound on the weighted relative squared error."""

    RATIO = 0
    DISTORTION = 1


@dataclass
class Range(Struct):
    """Token positions ``begin`` up to, not including, ``end``."""

    begin: int = wired(U32)
    end: int = wired(U32)


@dataclass
class Policy(Struct):
    """Per-session policy; may be changed while the session lives (``Session.set_policy``).

    The first ``sink`` tokens, the last ``window`` tokens and ``protected`` ranges never become lossy. ``ttl_seconds`` 0
    means no end; ``priority`` 0…255 (128 normal) orders eviction; ``flags`` bit 0 pins the session's pages.
    """

    sink: int = wired(U32, default=4)
    window: int = wired(U32, default=128)
    mode: Mode = wired(enum_of(Mode), default=Mode.LOSSLESS)
    quality_kind: QualityKind = wired(enum_of(QualityKind), default=QualityKind.RATIO)
    priority: int = wired(U8, default=128)
    flags: int = wired(U8, default=0)
    quality: float = wired(F32, default=16.0)
    ttl_seconds: int = wired(U32, default=0)
    protected: list[Range] = wired(list_of(Range.encoding()), default_factory=list)

    def __post_init__(self) -> None:
        self.mode = Mode[self.mode.upper()] if isinstance(self.mode, str) else Mode(self.mode)
        self.protected = [r if isinstance(r, Range) else Range(*r) for r in self.protected]

    @property
    def pin(self) -> bool:
        return bool(self.flags & 1)

    @pin.setter
    def pin(self, value: bool) -> None:
        self.flags = (self.flags & ~1) | int(value)
