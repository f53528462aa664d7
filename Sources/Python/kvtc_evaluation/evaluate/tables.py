"""The figures of the report's cards and tables, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .results import Result

LABELS = {
    "transform": "kvtcd transform",
    "transform+near": "transform, window too",
    "kvtc": "published KVTC",
    "kvtc+weights": "published, our profile",
    "quant8": "8-bit integers",
    "quant4": "4-bit integers",
    "q8_0": "llama.cpp q8_0",
    "q4_0": "llama.cpp q4_0",
    "lossless": "lossless",
    "floor": "floor",
}


def cards(results: Sequence[Result]) -> list[dict[str, str]]:
    ours = [r for r in results if r.mode == "transform" and r.top1 is not None]
    return [
        {"coded": f"{r.ratio_coded:.0f}", "top1": percent(r.top1), "totals": totals(r)}
        for r in sorted(ours, key=lambda r: r.ratio_coded)[-3:]
    ]


def totals(r: Result) -> str:
    """`8.2× at 2 048, 13.0× at 8 192`."""
    return ", ".join(f"{total:.1f}× at {grouped(int(length))}" for length, total in r.totals.items())


def tasks(results: Sequence[Result]) -> dict[str, Any] | None:
    asked = [r for r in results if r.passkey is not None or r.verbatim is not None]
    if not asked:
        return None
    first = asked[0]
    rows = [["untouched notes", "", percent(first.passkey_untouched), "", percent(first.verbatim_untouched), ""]]
    for r in asked:
        found = [percent(r.passkey), difference(r.passkey, r.passkey_untouched)]
        repeated = [percent(r.verbatim), difference(r.verbatim, r.verbatim_untouched)]
        rows.append([LABELS[r.mode], f"{r.ratio_coded:.1f}×", *found, *repeated])
    return {"passkeys": first.passkeys, "point": f"{100 / max(first.passkeys, 1):.3g}", "rows": rows}


def sizes(results: Sequence[Result], prefix: int) -> dict[str, Any] | None:
    chosen = [r for r in results if r.mode in ("transform", "transform+near", "kvtc") and r.totals]
    if not chosen:
        return None
    lengths = [length for length in chosen[0].totals if int(length) != prefix]
    heads = ["", "coded", f"{grouped(prefix)} tokens, measured", *[f"{grouped(int(length))} tokens" for length in lengths]]
    rows = [
        [LABELS[r.mode], f"{r.ratio_coded:.1f}×", f"{r.ratio_total:.1f}×", *[f"{r.totals[length]:.1f}×" for length in lengths]]
        for r in chosen
    ]
    return {"heads": heads, "rows": rows}


def near(results: Sequence[Result]) -> dict[str, Any] | None:
    """What coding the window too costs, where that was measured."""
    divergence = {r.ratio_asked: r.kl for r in results if r.mode == "transform"}
    near = [r for r in results if r.near]
    costs = [
        f"{divergence[r.ratio_asked]:.4f} to {r.kl:.4f} at {r.ratio_asked:g}×"
        for r in near
        if r.kl and divergence.get(r.ratio_asked)
    ]
    return {"bound": f"{100 * (near[0].near or 0):g} %", "costs": costs} if near else None


def figures(results: Sequence[Result], apart: bool) -> dict[str, Any]:
    heads = ["", "asked", "coded", "total", "KL, nats", "same first choice", "perplexity"]
    rows = [[LABELS[r.mode], *cells(r)] for r in results]
    if apart:
        heads.append("calibrated → evaluated")
        rows = [[*row, f"{r.calibrated_on} → {r.evaluated_on}"] for row, r in zip(rows, results, strict=True)]
    return {"heads": heads, "rows": rows}


def cells(r: Result) -> list[str]:
    asked = f"{r.ratio_asked:g}×" if r.ratio_asked else "–"
    error = f" ± {r.kl_error:.4f}" if r.kl_error is not None else ""
    kl = "–" if r.kl is None else f"{r.kl:.4f}{error}"
    perplexity = "–" if r.perplexity is None else f"{r.perplexity:.5g}"
    return [asked, f"{r.ratio_coded:.1f}×", f"{r.ratio_total:.1f}×", kl, percent(r.top1), perplexity]


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def difference(value: float | None, untouched: float | None) -> str:
    if value is None or untouched is None:
        return "–"
    points = 100 * (value - untouched)
    return f"{points:+.1f}" if abs(points) >= 0.05 else "0"


def grouped(number: int) -> str:
    """With a narrow space between thousands."""
    return f"{number:,}".replace(",", "\u202f")
