"""What a user sets: for all requests in ``kv_connector_extra_config``, for one in its ``kv_transfer_params`` under "kvtc"."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..options import Options

log = logging.getLogger("kvtc")

Wishes = tuple[tuple[str, Any], ...]
"""What one request asks for beside the settings, sorted by name."""
_OWN = ("page_tokens", "layerwise", "prompt_only", "lookup_ms", "staging_mib")
_OF_REQUESTS = ("mode", "sink", "window", "ratio", "distortion", "priority", "ttl_seconds", "near", "distortion_limit", "code")
_MOST = 16
"""Different wishes that are kept apart: each takes a connection of its own."""


@dataclass(frozen=True)
class Settings:
    """``page_tokens``: of a page of kvtcd; 0: the fewest blocks that are 64. ``layerwise``: a step that needs pages begins at once and
    waits for them layer by layer; else its request waits while other requests go on. ``prompt_only``: generated tokens are not
    kept. ``lookup_ms``: how long the scheduler waits for an answer before it goes on with other requests and asks again.
    ``staging_mib``: copies that wait to be sent; what is beyond them is not kept."""

    options: Options
    page_tokens: int = 0
    layerwise: bool = False
    prompt_only: bool = False
    lookup_ms: float = 20.0
    staging_mib: int = 1024

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Settings:
        """Raises ValueError, in a sentence that names the key, for a value that cannot be. Unknown keys are warned of."""
        own: dict[str, Any] = {}
        for key in _OWN:
            if (value := given.get(key)) is None:
                continue
            is_flag = isinstance(getattr(cls, key), bool)
            if isinstance(value, bool) != is_flag or not isinstance(value, (bool, int, float)) or value < 0:
                raise ValueError(f"kvtc's option {key!r} is {value!r}; it takes {'true or false' if is_flag else 'a number'}")
            own[key] = value
        return cls(Options.parse({key: value for key, value in given.items() if key not in _OWN}), **own)

    def size_of_pages(self, block_tokens: int) -> int:
        """Raises ValueError where pages cannot be whole blocks of so many tokens."""
        size = self.page_tokens or -(-64 // block_tokens) * block_tokens
        if size % block_tokens or not 16 <= size <= 1024:
            raise ValueError(f"pages of {size} tokens: they are 16 to 1024, and whole blocks of {block_tokens}")
        return size


class WishList:
    """The wishes of requests, checked, and the options that each comes to."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        # What a request asks for replaces what the settings say of the same: of the two qualities one counts.
        self._given = {key: value for key, value in given.items() if key not in _OWN}
        self._options: dict[Wishes, Options] = {(): Options.parse(self._given)}

    def of(self, parameters: Any) -> Wishes:
        """Those of a request's ``kv_transfer_params``. What cannot be is warned of, and the settings count."""
        asked = parameters.get("kvtc") if isinstance(parameters, Mapping) else None
        if not asked:
            return ()
        try:
            if not isinstance(asked, Mapping):
                raise ValueError(f"{asked!r} is no object")
            if unknown := [key for key in asked if key not in _OF_REQUESTS]:
                raise ValueError(f"a request cannot say {', '.join(map(repr, unknown))}; it can {', '.join(_OF_REQUESTS)}")
            wishes = tuple(sorted(asked.items()))
            self.options(wishes)
            return wishes
        except (TypeError, ValueError) as error:
            log.warning("a request's kv_transfer_params: %s; the server's settings are used", error)
            return ()

    def options(self, wishes: Wishes) -> Options:
        """Raises ValueError for what cannot be, and TypeError for values that are no names or numbers."""
        if wishes not in self._options:
            if len(self._options) > _MOST:
                raise ValueError(f"more than {_MOST} different wishes")
            asked = dict(wishes)
            base = {key: value for key, value in self._given.items() if not {"ratio", "distortion"} >= {key} or not _has_quality(asked)}
            self._options[wishes] = Options.parse(base | asked)
        return self._options[wishes]


def _has_quality(asked: Mapping[str, Any]) -> bool:
    return "ratio" in asked or "distortion" in asked
