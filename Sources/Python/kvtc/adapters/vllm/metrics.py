"""What became of pages, in vLLM's log and among its Prometheus metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

stats: Any = object
prometheus: Any = object
counter_type: Any = None
try:
    from vllm.distributed.kv_transfer.kv_connector.v1 import metrics as _vllm

    stats, prometheus, counter_type = _vllm.KVConnectorStats, _vllm.KVConnectorPromMetrics, _vllm.Counter
except ImportError:
    # Without the engine the module can be read, and the classes not be used.
    pass

MEANINGS = {
    "looked_up": "Pages of prompts that kvtcd was asked about.",
    "found": "Pages of prompts that kvtcd has.",
    "asked": "Pages that kvtcd was asked for, of each rank and group of layers.",
    "brought": "Pages that kvtcd gave in time, of each rank and group of layers.",
    "offered": "Pages that kvtcd was sent, of each rank and group of layers.",
    "kept": "Pages that kvtcd took, of each rank and group of layers.",
}
"""The names of `Counters`, and what they count."""


@dataclass
class PageStats(stats):  # type: ignore[misc]
    """Pages since the last step, by name; all ranks' and the scheduler's are added up."""

    data: dict[str, int] = field(default_factory=dict)

    def reset(self) -> None:
        self.data = {}

    def aggregate(self, other: Any) -> PageStats:
        self.data = {name: self.data.get(name, 0) + other.data.get(name, 0) for name in MEANINGS}
        return self

    def reduce(self) -> dict[str, int]:
        """As vLLM's log has them, once an interval."""
        return {f"kvtcd pages {name.replace('_', ' ')}": self.data.get(name, 0) for name in MEANINGS}

    def is_empty(self) -> bool:
        return not any(self.data.values())


class PageMetrics(prometheus):  # type: ignore[misc]
    """Counters ``vllm:kvtc_pages_<name>_total``, by engine."""

    def __init__(self, vllm_config: Any, metric_types: Any, labelnames: list[str], labels: dict[int, list[object]]) -> None:
        super().__init__(vllm_config, metric_types, labelnames, labels)
        made = {
            name: metric_types[counter_type](name=f"vllm:kvtc_pages_{name}", documentation=meaning, labelnames=labelnames)
            for name, meaning in MEANINGS.items()
        }
        self._by_engine = {
            engine: {name: counter.labels(*values) for name, counter in made.items()} for engine, values in labels.items()
        }

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        for name, counter in self._by_engine[engine_idx].items():
            if more := transfer_stats_data.get(name):
                counter.inc(more)
