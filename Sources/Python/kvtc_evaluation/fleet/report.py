"""What the fleet did, as JSON and as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kvtc.whole_file import replacing

LEAST_TTFT_RATIO = 5
LEAST_BYTES_RATIO = 15
MOST_P99_RATIO = 1.2


@dataclass
class Report:
    """None where it was not measured: without a model nothing is generated."""

    moved_conversation_ok: bool | None = None
    same_tokens: bool | None = None
    kl: float | None = None
    ttft_recompute_s: float | None = None
    ttft_shared_s: float | None = None
    bytes_raw: int | None = None
    bytes_moved: int | None = None
    local_lookup_p99_ratio_with_cluster_down: float | None = None
    failover_wrong_bytes: int | None = None
    failover_stuck: int | None = None
    tenant_isolation_ok: bool | None = None
    server: str = ""
    is_thorough: bool = True
    details: dict[str, object] = field(default_factory=dict)

    def failures(self) -> list[str]:
        """What is not as it must be."""
        wrong = []
        if self.moved_conversation_ok is False:
            wrong.append("the conversation did not go on at the other machine")
        if self.same_tokens is False:
            wrong.append("the exact cache was followed by other tokens")
        if self.ttft_recompute_s and self.ttft_shared_s and self.ttft_recompute_s < LEAST_TTFT_RATIO * self.ttft_shared_s:
            wrong.append(f"sharing is not {LEAST_TTFT_RATIO} times faster than computing again")
        if self.kl is not None and self.bytes_raw and self.bytes_moved and self.bytes_raw < LEAST_BYTES_RATIO * self.bytes_moved:
            wrong.append(f"more than 1/{LEAST_BYTES_RATIO} of the raw bytes were moved")
        # A figure of a quick run is of a machine that does other things, too.
        if self.is_thorough and (self.local_lookup_p99_ratio_with_cluster_down or 0) > MOST_P99_RATIO:
            wrong.append(f"local lookups are more than {MOST_P99_RATIO} times as slow while the cluster is away")
        if self.failover_wrong_bytes:
            wrong.append("pages with wrong bytes")
        if self.failover_stuck:
            wrong.append("requests that hung or failed")
        if self.tenant_isolation_ok is False:
            wrong.append("others got a tenant's pages, or damage was not noticed")
        return wrong

    def write(self, path: Path, phases: Mapping[str, float]) -> None:
        """Writes the JSON file, whole or not at all; `phases` are seconds."""
        seconds = {name: round(value, 2) for name, value in phases.items()}
        with replacing(path) as place:
            place.write_text(json.dumps(asdict(self) | {"phases": seconds}, indent=2) + "\n")

    def table(self) -> str:
        """Rows of what was measured, for people."""
        rows = [("servers", self.server)]
        if self.moved_conversation_ok is not None:
            rows.append(("conversation went on at B", _yes(self.moved_conversation_ok)))
        if self.same_tokens is not None:
            rows.append(("same tokens, lossless", _yes(self.same_tokens)))
        if self.kl is not None:
            rows.append(("KL divergence, transform", f"{self.kl:.4f} nats"))
        if self.ttft_recompute_s and self.ttft_shared_s:
            ratio = self.ttft_recompute_s / self.ttft_shared_s
            rows.append(("first token, recomputed", f"{self.ttft_recompute_s:.3f} s"))
            rows.append(("first token, shared", f"{self.ttft_shared_s:.3f} s: {ratio:.1f} times sooner"))
        if self.bytes_raw and self.bytes_moved:
            ratio = self.bytes_raw / self.bytes_moved
            rows.append(("bytes, raw and moved", f"{_mib(self.bytes_raw)}, {_mib(self.bytes_moved)}: {ratio:.1f} times fewer"))
        if self.tenant_isolation_ok is not None:
            rows.append(("tenants apart, damage found", _yes(self.tenant_isolation_ok)))
        if self.failover_wrong_bytes is not None:
            rows.append(("wrong bytes in failovers", str(self.failover_wrong_bytes)))
            rows.append(("stuck in failovers", str(self.failover_stuck)))
        if self.local_lookup_p99_ratio_with_cluster_down is not None:
            ratio = self.local_lookup_p99_ratio_with_cluster_down
            rows.append(("local lookup, p99, cluster down", f"{ratio:.2f} of that of a daemon that shares nothing"))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.2f} MiB"


def _yes(value: bool) -> str:
    return "yes" if value else "NO"
