"""What the measurements come to: ratios to the fastest prefill, a table, and one file of several benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_ALONE = "llama.cpp's is the only prefill that was measured, and other engines may be several times faster: deploy/setup --bench installs one"


def figure(value: float, unit: str) -> dict[str, object]:
    return {"value": value, "unit": unit}


def compared(times: dict[str, float], engines: dict[str, str]) -> dict[str, dict[str, object]]:
    """The ratios to the fastest of the engines, which are named by their prefill's side; those to llama.cpp where it is slower."""
    side = min(engines, key=lambda name: times[name])
    prefill, llama = times[side], times["prefill_llama_cpp"]
    against: dict[str, object] = {
        "restore_vs_prefill": prefill / times["restore_16"],
        "restore_vs_prefill_45": prefill / times["restore_45"],
        "restore_and_load_vs_prefill": prefill / times["restore_and_load_16"],
        "restore_and_load_vs_prefill_45": prefill / times["restore_and_load_45"],
    }
    ratios: dict[str, object] = {
        "first_layer_share": times["first_layer_16"] / times["restore_16"],
        "first_layer_share_45": times["first_layer_45"] / times["restore_45"],
    }
    named: dict[str, object] = {"fastest": engines[side]} | {name: times[own] * 1000 for own, name in engines.items()}
    if len(engines) == 1:
        marked: dict[str, object] = {name: {"value": value, "why": _ALONE} for name, value in against.items()}
        return {"ratios": ratios, "marked": marked, "prefill": named}
    if side != "prefill_llama_cpp":
        ratios["restore_vs_llama_cpp"] = llama / times["restore_16"]
        ratios["restore_vs_llama_cpp_45"] = llama / times["restore_45"]
    return {"ratios": against | ratios, "marked": {}, "prefill": named}


def table(result: dict[str, dict[str, Any]]) -> str:
    """The figures and ratios as lines of text."""
    aims = {"restore_vs_prefill": "≥ 15", "restore_vs_prefill_45": "≥ 30", "first_layer_share": "≤ 0.2"}
    width = max(map(len, [*result["figures"], *result["ratios"], *result["marked"]])) + 2
    lines = [f"{name:{width}}{figure['value']:10.4g} {figure['unit']}" for name, figure in result["figures"].items()]
    for name, value in result["ratios"].items():
        aim = f"(aim: {aims[name]})" if name in aims else ""
        lines.append(f"{name:{width}}{value:10.4g} {aim}".rstrip())
    for name, mark in result["marked"].items():
        lines.append(f"{name:{width}}{mark['value']:10.4g} (does not count: {mark['why']})")
    lines.append(f"prefill is by {result['prefill']['fastest']}, the fastest of {', '.join(n for n in result['prefill'] if n != 'fastest')}")
    return "\n".join(lines)


NAMES = {
    "decode_vs_sgemm": "decode_vs_sgemm_16x",
    "encode_vs_decode": "encode_vs_decode_16x",
    "entropy_share": "entropy_share_16x",
}
"""Ratios that are reported for several settings, and which of them stands for all."""


def merge(target: Path, sources: list[Path]) -> None:
    """Puts the figures and ratios of several results into one file."""
    result: dict[str, dict[str, object]] = {"figures": {}, "ratios": {}, "marked": {}}
    for source in sources:
        for part, values in json.loads(source.read_text()).items():
            result.setdefault(part, {}).update(values)
    for ratios in (result["ratios"], result["marked"]):
        ratios |= {name: ratios[full] for name, full in NAMES.items() if full in ratios}
    target.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
