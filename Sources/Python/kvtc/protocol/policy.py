"""How a session wants its pages treated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

from .wire import F32, U8, U32, Checked, enum_of, flagged, list_of, member, wired

_PIN, _NEAR, _DISTORTION_LIMIT, _NO_OUTLIERS = 1, 2, 4, 8
_CODE_SHIFT, _CODE_BITS = 4, 0x30
_OPTIONAL = {"near": _NEAR, "distortion_limit": _DISTORTION_LIMIT}
_LEAST_BOUND = 0.0005


class BlockMode(IntEnum):
    """What a stored block says of its rows: ``RAW`` for a page that is not coded, else the ``Mode`` that it was coded in."""

    RAW = 0
    LOSSLESS = 1
    TRANSFORM = 2
    KVTC = 3
    QUANT8 = 4
    QUANT4 = 5


class Mode(IntEnum):
    """The coder of pages that left the window. All but ``LOSSLESS`` change values; ``TRANSFORM`` and ``KVTC`` need a profile."""

    LOSSLESS = 1
    TRANSFORM = 2
    KVTC = 3
    QUANT8 = 4
    QUANT4 = 5

    @property
    def needs_profile(self) -> bool:
        """Whether it needs what calibration learned."""
        return self in (Mode.TRANSFORM, Mode.KVTC)


class QualityKind(IntEnum):
    """What ``Policy.quality`` means: raw bytes over stored bytes, or a bound on the weighted relative squared error."""

    RATIO = 0
    DISTORTION = 1


class Code(IntEnum):
    """When pages that left the window are coded: as soon as a coder is free; when the daemon's RAM runs short; as soon as it has
    nothing else to do, and when its RAM runs short."""

    AT_ONCE = 1
    UNDER_PRESSURE = 2
    IDLE = 3


ModeName = Literal["lossless", "transform", "kvtc", "quant8", "quant4"]
QualityKindName = Literal["ratio", "distortion"]
CodeName = Literal["at_once", "under_pressure", "idle"]


@dataclass
class Range(Checked):
    """Token positions ``begin`` up to, not including, ``end``."""

    begin: int = wired(U32)
    end: int = wired(U32)

    def __post_init__(self) -> None:
        if self.end <= self.begin:
            raise ValueError(f"end must be above begin ({self.begin}), not {self.end}")


def _range(index: int, item: object) -> object:
    if not isinstance(item, (list, tuple)) or len(item) != 2:
        return item
    try:
        return Range(*item)
    except ValueError as error:
        raise ValueError(f"protected[{index}]: {error}") from None


class _CodeBits:
    """Two bits of ``flags``, so that messages are as long as they were."""

    def __get__(self, policy: Policy | None, owner: type[Policy] | None = None) -> Code | None:
        number = 0 if policy is None else (policy.flags & _CODE_BITS) >> _CODE_SHIFT
        return Code(number) if number else None

    def __set__(self, policy: Policy, value: object) -> None:
        number = 0 if value is None else member(value, "code", Code)
        policy.flags = policy.flags & ~_CODE_BITS | number << _CODE_SHIFT


@dataclass
class Policy(Checked):
    """Per-session policy; may be changed while the session lives (``Session.set_policy``).

    The first ``sink`` tokens, the last ``window`` tokens and ``protected`` ranges never become lossy. ``ttl_seconds`` 0
    means no end; ``priority`` 0…255 (128 normal) orders eviction; ``flags`` says what ``pin``, ``keep_outliers`` and ``code`` do.

    ``code`` says when pages that left the window are coded; until then they are exact and quick to give back, and take more RAM.
    None: when the daemon's configuration says (``sessions.code``). Daemons that do not know it code at once.

    Two bounds on the relative squared error, from 0.0005 and below 1, for the modes with a profile: ``distortion_limit`` is one
    that no coded page exceeds, whatever ``quality`` asks for (it gets a lower ratio, or stays lossless); within ``near`` the
    window's pages are coded while the session is idle or closed, until they are pushed anew (None: they stay lossless). Idle is
    a session without a request for ``sessions.near_after_s`` of the daemon's configuration and up to 10 s more. A
    ``quality`` that is a distortion begins at 0.0005, too.

    Modes and kinds may be given by name. Values of another type raise TypeError, values that no policy can have ValueError;
    limits of the daemon's configuration are checked when a session is opened.
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

    if TYPE_CHECKING:
        code: Code | None = None

        # What the fields take is wider than what they hold.
        def __init__(
            self,
            sink: int = 4,
            window: int = 128,
            mode: Mode | ModeName = Mode.LOSSLESS,
            quality_kind: QualityKind | QualityKindName = QualityKind.RATIO,
            priority: int = 128,
            flags: int = 0,
            quality: float = 16.0,
            ttl_seconds: int = 0,
            protected: Sequence[Range | tuple[int, int]] = (),
            near: float | None = None,
            distortion_limit: float | None = None,
            code: Code | CodeName | None = None,
        ) -> None: ...
    else:
        # No field of its own: bits of one.
        code: InitVar[Code | CodeName | None] = _CodeBits()

        def __post_init__(self, code: Code | CodeName | None) -> None:
            if code is not None:
                self.code = code

    def spoken_to(self, knows_code: bool) -> Policy:
        """The policy as far as a daemon knows what it says."""
        return self if knows_code or self.code is None else replace(self, flags=self.flags & ~_CODE_BITS, code=None)

    def __setattr__(self, name: str, value: object) -> None:
        if name == "code":
            return object.__setattr__(self, name, value)
        if name == "protected" and isinstance(value, (list, tuple)):
            value = [_range(index, item) for index, item in enumerate(value)]
        super().__setattr__(name, value)
        if bit := _OPTIONAL.get(name):
            self._flag(bit, value is not None)

    def _check(self, name: str, value: Any) -> None:
        if name == "quality" and value < 0:
            raise ValueError(f"quality must not be negative, not {value!r}")
        if name in _OPTIONAL and value is not None and not _LEAST_BOUND <= value < 1:
            raise ValueError(f"{name} must be from {_LEAST_BOUND} and below 1, not {value!r}")
        if name in ("pin", "keep_outliers") and not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r}")

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
