"""What an evaluation found: sums over documents, means with their standard errors, JSON and a table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from kvtc.calibration.predictions import SINKS, WINDOW

from .caches import Kept
from .tasks import NAMES

CONTEXT_LENGTHS = (2048, 8192, 32768)


@dataclass(frozen=True)
class Result:
    """One mode at one ratio. Ratios are raw over stored bytes, headers counted: `ratio_coded` of pages without sinks and
    window, `ratio_total` of the whole prefix, `totals` of longer contexts, from the same measured block sizes.

    Quality figures are means over the contexts of that kind and None where none was asked; `kl_error` is the standard
    error of `kl` over the documents; `passkeys` keys were asked for. `layers` holds the squared error of K and V as a share of their variance.
    `near` is the bound on the error of the window where that was coded too.
    """

    mode: str
    ratio_asked: float | None
    ratio_coded: float
    ratio_total: float
    kl: float | None
    kl_error: float | None
    top1: float | None
    perplexity: float | None
    perplexity_untouched: float | None
    passkey: float | None
    passkey_untouched: float | None
    verbatim: float | None
    verbatim_untouched: float | None
    totals: dict[str, float]
    layers: list[dict[str, float]] | None
    documents: int
    passkeys: int
    calibrated_on: str
    evaluated_on: str
    near: float | None = None


@dataclass
class Sums:
    """What is added up over contexts for one mode and ratio."""

    prefix: int
    figures: dict[str, list[float]] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)
    errors: np.ndarray | None = None
    variances: np.ndarray | None = None

    def add(self, figures: Mapping[str, float], kept: Kept, errors: np.ndarray | None, variances: np.ndarray) -> None:
        """`errors` and `variances` are squared sums [layers, 2]."""
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)
        self.kept.append(kept)
        if errors is not None:
            self.errors = errors if self.errors is None else self.errors + errors
            self.variances = variances if self.variances is None else self.variances + variances

    def result(
        self, mode: str, ratio: float | None, calibrated_on: str, evaluated_on: str, near: float | None = None
    ) -> Result:
        def mean(name: str, digits: int) -> float | None:
            values = self.figures.get(name)
            return round(float(np.mean(values)), digits) if values else None

        def perplexity(name: str) -> float | None:
            values = self.figures.get(name)
            # A model that knows nothing of the text must not overflow.
            return round(math.exp(min(float(np.mean(values)), 700.0)), 4) if values else None

        return Result(
            mode=mode,
            ratio_asked=ratio,
            ratio_coded=self._ratio("coded_raw", "coded_stored"),
            ratio_total=self._ratio("raw", "stored"),
            kl=mean("kl", 6),
            kl_error=standard_error(self.figures.get("kl", [])),
            top1=mean("top1", 5),
            perplexity=perplexity("surprise"),
            perplexity_untouched=perplexity("surprise_untouched"),
            passkey=mean("passkey", 4),
            passkey_untouched=mean("passkey_untouched", 4),
            verbatim=mean("verbatim", 4),
            verbatim_untouched=mean("verbatim_untouched", 4),
            totals={str(tokens): self._total(tokens) for tokens in CONTEXT_LENGTHS},
            layers=self._layers(),
            documents=len(self.figures.get("kl", [])),
            passkeys=len(self.figures.get("passkey", [])) * len(NAMES),
            calibrated_on=calibrated_on,
            evaluated_on=evaluated_on,
            near=near,
        )

    def _sum(self, name: str) -> int:
        return sum(getattr(kept, name) for kept in self.kept)

    def _ratio(self, raw: str, stored: str) -> float:
        return round(self._sum(raw) / max(self._sum(stored), 1), 3)

    def _total(self, tokens: int) -> float:
        """Raw over stored bytes of a context of that many tokens: the prefix's first and last pages as they are, and as
        many coded pages of mean size in between as it takes."""
        per_token = self._sum("raw") / (self.prefix * len(self.kept))
        coded_tokens = self._sum("coded_raw") / per_token / len(self.kept)
        ends = (self._sum("stored") - self._sum("coded_stored")) / len(self.kept)
        coded_per_token = self._sum("coded_stored") / len(self.kept) / coded_tokens
        between = tokens - (self.prefix - coded_tokens)
        return round(tokens * per_token / (ends + max(0, between) * coded_per_token), 3)

    def _layers(self) -> list[dict[str, float]] | None:
        if self.errors is None or self.variances is None:
            return None
        shares = self.errors / np.maximum(self.variances, 1e-30)
        return [{"layer": i, "key": float(f"{key:.4g}"), "value": float(f"{value:.4g}")} for i, (key, value) in enumerate(shares)]


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean; None of fewer than two."""
    return round(float(np.std(values, ddof=1) / math.sqrt(len(values))), 6) if len(values) > 1 else None


def ratio_at(results: Sequence[Result], kl: float) -> float | None:
    """The coded ratio at which these results (one mode) would have that divergence: interpolated between neighbours on
    logarithmic axes; None outside what was measured."""
    points = sorted((r.ratio_coded, r.kl) for r in results if r.kl)
    for (ratio, low), (next_ratio, high) in itertools.pairwise(points):
        if min(low, high) <= kl <= max(low, high) and low != high:
            share = math.log(kl / low) / math.log(high / low)
            return math.exp(math.log(ratio) + share * math.log(next_ratio / ratio))
    return None


def report(model: str, texts: Sequence[str], seed: int, profile_bytes: int, results: Sequence[Result]) -> dict[str, object]:
    """The JSON document."""
    return {
        "model": model,
        "texts": list(texts),
        "seed": seed,
        "profile_bytes": profile_bytes,
        "results": [asdict(result) for result in results],
    }


def table(results: Sequence[Result]) -> str:
    """The results for people."""
    apart = len({(r.calibrated_on, r.evaluated_on) for r in results}) > 1
    lines = [
        f"{'MODE':<14} {'ASKED':>6} {'CODED':>7} {'TOTAL':>7} {'8K':>7} {'32K':>7} {'KL':>8} {'±':>7} "
        f"{'TOP-1':>7} {'PERPL.':>8} {'PASSKEY':>8} {'REPEAT':>7}"
        + ("  CALIBRATED ON → EVALUATED ON" if apart else "")
    ]
    for r in results:
        asked = f"{r.ratio_asked:g}×" if r.ratio_asked else "–"
        lines.append(
            f"{r.mode:<14} {asked:>6} {r.ratio_coded:>6.1f}× {r.ratio_total:>6.1f}×"
            f" {r.totals['8192']:>6.1f}× {r.totals['32768']:>6.1f}× {_number(r.kl, 4):>8} {_number(r.kl_error, 4):>7}"
            f" {_percent(r.top1):>7} {_number(r.perplexity, 3):>8} {_percent(r.passkey):>8} {_percent(r.verbatim):>7}"
            + (f"  {r.calibrated_on} → {r.evaluated_on}" if apart else "")
        )
    first = results[0]
    untouched = [f"perplexity {_number(first.perplexity_untouched, 3)}"] if first.perplexity_untouched else []
    untouched += [f"passkey {_percent(first.passkey_untouched)}"] if first.passkey_untouched is not None else []
    untouched += [f"repeat {_percent(first.verbatim_untouched)}"] if first.verbatim_untouched is not None else []
    if untouched and not apart:
        lines.append(f"untouched cache: {', '.join(untouched)}")
    lines.append(
        f"CODED leaves out the pages of the {SINKS} sinks and the {WINDOW}-token window, which are kept exact; TOTAL counts everything. 8K and"
        " 32K are the totals of longer contexts, computed from the sizes measured."
    )
    if bound := next((r.near for r in results if r.near), None):
        lines.append(f"With +near the window is coded too, within a relative squared error of {bound:g}.")
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}" if value < 1e4 else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"
