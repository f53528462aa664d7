"""What a user may set of an adapter in the engine's own configuration, the same names in every engine."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..protocol.policy import Mode, Policy
from .transfer import DEADLINE

log = logging.getLogger("kvtc")

CODECS = ("auto", "daemon", "device")
"""The device where it is a GPU, else the daemon; the daemon; the device also where it is a processor, which is slow and for tests."""
_POLICY = ("mode", "sink", "window", "priority", "ttl_seconds", "near", "distortion_limit", "code")


@dataclass(frozen=True)
class Options:
    """``socket``: of kvtcd (none: as ``Client`` finds it). ``model``: where the weights lie, if the engine does not say. ``profile``:
    its id; empty: the daemon's of these weights. ``deadline``: seconds that a call waits. ``salt``: keeps pages of engines apart
    that share all else. ``always_restore``: pages are brought back also where computing them takes less. ``ratio`` or ``distortion`` of the
    user's is the policy's quality.

    Of engines whose cache is a device's: ``codec``: who codes, one of `CODECS`. ``device_mib``: of the device's memory, how much that may take."""

    policy: Policy
    socket: str | None = None
    model: str = ""
    profile: str = ""
    deadline: float = DEADLINE
    salt: str = ""
    arena_mib: int = 256
    always_restore: bool = False
    codec: str = "auto"
    device_mib: int = 4096

    @classmethod
    def parse(cls, given: Mapping[str, Any], ignored: Collection[str] = ()) -> Options:
        """Raises ValueError, in a sentence that names the key, for a value that none of them can have. Keys that nothing knows are
        warned of; ``ignored`` are those that the engine has for itself."""
        unknown = [key for key in given if key not in _KEYS and key not in ignored]
        if unknown:
            log.warning("kvtc knows no option %s; it has %s", ", ".join(map(repr, unknown)), ", ".join(sorted(_KEYS)))
        if given.get("ratio") is not None and given.get("distortion") is not None:
            raise ValueError("kvtc's options 'ratio' and 'distortion' exclude each other")
        values: dict[str, Any] = {key: given[key] for key in _POLICY if given.get(key) is not None}
        for key in ("ratio", "distortion"):
            if given.get(key) is not None:
                values |= {"quality_kind": key, "quality": given[key]}
        try:
            policy = Policy(**values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"kvtc's options: {error}") from None
        own = {key: _checked(key, given[key]) for key in _OWN if given.get(key) is not None}
        return cls(policy, **own)

    @property
    def mode(self) -> Mode:
        return Mode(self.policy.mode)

    def exactly(self) -> Options:
        """The same for what cannot be lossy."""
        kept = Policy(mode=Mode.LOSSLESS, priority=self.policy.priority, ttl_seconds=self.policy.ttl_seconds, code=self.policy.code)
        return replace(self, policy=kept, profile="")


_OWN: dict[str, tuple[type, ...]] = {
    "socket": (str,),
    "model": (str,),
    "profile": (str,),
    "deadline": (int, float),
    "salt": (str,),
    "arena_mib": (int,),
    "always_restore": (bool,),
    "codec": (str,),
    "device_mib": (int,),
}
_KEYS = {*_POLICY, *_OWN, "ratio", "distortion"}


def _checked(key: str, value: Any) -> Any:
    types: Any = _OWN[key]
    if not isinstance(value, types) or isinstance(value, bool) != (bool in types):
        kind = "number" if int in types else "truth value" if bool in types else "text"
        raise ValueError(f"kvtc's option {key!r} is {value!r}; it takes a {kind}")
    if key == "codec" and value not in CODECS:
        raise ValueError(f"kvtc's option 'codec' is {value!r}; it takes one of {', '.join(CODECS)}")
    if int in types and not value > 0:
        raise ValueError(f"kvtc's option {key!r} is {value!r}; it takes a number above 0")
    return value
