"""How a session wants its pages treated."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from .wire import F32, U8, U32, Struct, enum_of, flagged, list_of, wired

_PIN, _NEAR, _DISTORTION_LIMIT, _NO_OUTLIERS = 1, 2, 4, 8


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
    means no end; ``priority`` 0…255 (128 normal) orders eviction; ``flags`` says what ``pin`` and ``keep_outliers`` do.

    Two bounds on the relative squared error, from 0.0005 and below 1, for the modes with a profile: ``distortion_limit`` is one
    that no coded page exceeds, whatever ``quality`` asks for (it gets a lower ratio, or stays lossless); within ``near`` the
    window's pages are coded while the session is idle or closed, until they are pushed anew (None: they stay lossless). A
    ``quality`` that is a distortion begins at 0.0005, too.
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
    near: float | None = flagged(F32, _NEAR)
    distortion_limit: float | None = flagged(F32, _DISTORTION_LIMIT)

    def __post_init__(self) -> None:
        self.mode = Mode[self.mode.upper()] if isinstance(self.mode, str) else Mode(self.mode)
        self.protected = [r if isinstance(r, Range) else Range(*r) for r in self.protected]

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        if bit := {"near": _NEAR, "distortion_limit": _DISTORTION_LIMIT}.get(name):
            self._flag(bit, value is not None)

    def _flag(self, bit: int, is_set: bool) -> None:
        self.flags = self.flags | bit if is_set else self.flags & ~bit

    @property
    def pin(self) -> bool:
        """Whether the session's pages are never evicted."""
        return bool(self.flags & _PIN)

    @pin.setter
    def pin(self, value: bool) -> None:
        self._flag(_PIN, value)

    @property
    def keep_outliers(self) -> bool:
        """Whether rows far outside of what the profile was calibrated on stay lossless by themselves; so by default."""
        return not self.flags & _NO_OUTLIERS

    @keep_outliers.setter
    def keep_outliers(self, value: bool) -> None:
        self._flag(_NO_OUTLIERS, not value)
