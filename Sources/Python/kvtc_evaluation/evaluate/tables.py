"""Tables of the report."""

from __future__ import annotations

from collections.abc import Sequence

from .results import Result


def cells(r: Result) -> list[str]:
    asked = f"{r.ratio_asked:g}×" if r.ratio_asked else "–"
    error = f" ± {r.kl_error:.4f}" if r.kl_error is not None else ""
    kl = "–" if r.kl is None else f"{r.kl:.4f}{error}"
    perplexity = "–" if r.perplexity is None else f"{r.perplexity:.5g}"
    return [asked, f"{r.ratio_coded:.1f}×", f"{r.ratio_total:.1f}×", kl, percent(r.top1), perplexity]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{text}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{text}</td>' for text in row)}</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def difference(value: float | None, untouched: float | None) -> str:
    if value is None or untouched is None:
        return "–"
    points = 100 * (value - untouched)
    return f"{points:+.1f}" if abs(points) >= 0.05 else "0"
