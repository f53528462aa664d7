"""What one engine's run came to: what was done, what was seen, and what this machine could not show."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Setting:
    """What a run has: the programs, a model (``model.directory`` makes of it what the engine reads), and a directory that is removed
    afterwards. ``profile``: of these weights; None: nothing is coded."""

    kvtcd: Path
    kvtcctl: Path
    gguf: Path
    scratch: Path
    profile: Path | None = None


@dataclass
class Report:
    """``None``: not applicable to the engine, or not measured.

    ``ran``: each scenario that was run, in a few words. ``same_tokens``: after a lossless restore, the tokens that are generated
    without it. ``ttft_…``: seconds to the first token of the same prompt in the same run. ``kl``: nats, of the first token's
    distribution after a coded restore from that after computing. ``daemon_down_ok``: with the daemon killed before, during and after a
    load the engine generated the same tokens. ``isolation_ok``: models, adapters, salts and ranks met none of each other's pages.
    ``unproven``: what the engine does that could not be run here. ``figures``: further ones, by name.
    """

    version: str
    ran: list[str] = field(default_factory=list)
    same_tokens: bool | None = None
    ttft_recompute_s: float | None = None
    ttft_restore_s: float | None = None
    kl: float | None = None
    daemon_down_ok: bool | None = None
    isolation_ok: bool | None = None
    unproven: list[str] = field(default_factory=list)
    figures: dict[str, float | str] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @property
    def passed(self) -> bool:
        return False not in (self.same_tokens, self.daemon_down_ok, self.isolation_ok)


Run = Callable[[Setting], Report]
