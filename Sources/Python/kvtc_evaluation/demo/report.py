"""The demo's findings as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from kvtc.calibration.progress import shown
from kvtc.whole_file import replacing

_PROFILES = {
    "quick": "made quickly; one of --thorough has a fifth less divergence (SmolLM2: 0.0056, not 0.0071)",
    "thorough": "thorough",
    "given": "given",
}


@dataclass(frozen=True)
class Report:
    """`raw_bytes` and `stored_bytes` are those of one context; ratios, KL and times are means over the documents. `profile` is
    "quick", "thorough" or "given"."""

    model: str
    profile: str
    documents: int
    tokens: int
    raw_bytes: int
    stored_bytes: int
    ratio_total: float
    ratio_coded: float
    kl: float
    top1: float
    ttft_recompute_s: float
    ttft_restore_s: float
    ttft_ratio: float
    lossless_identical: bool
    daemon_restarted: bool
    evicted_to_disk: bool

    def write(self, path: Path, phases: Mapping[str, float]) -> None:
        """Writes the JSON file, whole or not at all; `phases` are seconds."""
        seconds = {name: round(value, 2) for name, value in phases.items()}
        with replacing(path) as place:
            place.write_text(json.dumps(asdict(self) | {"phases": seconds}, indent=2) + "\n")

    def table(self) -> str:
        """Rows of what was measured, for people."""
        rows = [
            ("model", shown(self.model)),
            ("profile", _PROFILES[self.profile]),
            ("context", f"{self.tokens} tokens, mean of {self.documents} documents"),
            ("KV cache, raw", _mib(self.raw_bytes)),
            ("KV cache, kept", f"{_mib(self.stored_bytes)}: {self.ratio_total:.1f} times smaller in all"),
            ("coded pages", f"{self.ratio_coded:.1f} times smaller (sinks and window are kept exact)"),
            ("KL divergence", f"{self.kl:.4f} nats over the next 256 tokens"),
            ("same first choice", f"{100 * self.top1:.1f} % of tokens"),
            ("first token, recomputed", f"{self.ttft_recompute_s:.2f} s"),
            ("first token, restored", f"{self.ttft_restore_s:.2f} s: {self.ttft_ratio:.0f} times sooner"),
            ("went to disk", _yes(self.evicted_to_disk)),
            ("daemon restarted between", _yes(self.daemon_restarted)),
            ("lossless mode bit-identical", _yes(self.lossless_identical)),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def phase_table(seconds: Mapping[str, float]) -> str:
    """What took how long, for people."""
    rows = [*seconds.items(), ("together", sum(seconds.values()))]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {int(value) // 60:>2}:{int(value) % 60:02}" for name, value in rows)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.2f} MiB"


def _yes(value: bool) -> str:
    return "yes" if value else "NO"
