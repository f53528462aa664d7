"""The HTML report: one file that explains itself to readers new to KV caches and loads nothing.

What it says is in report.html, how it looks in report.css; here is what the figures are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from kvtc.calibration.predictions import SINKS, WINDOW

from . import charts, tables
from .bits import allocations
from .charts import Point, Series
from .results import Result, ratio_at
from .tables import LABELS, percent

_COLOURS = {"transform": "ours", "kvtc": "published", "kvtc+weights": "third", "q8_0": "engine", "q4_0": "engine"}
_STEPS = ("step1", "step2", "step3", "step4")
_SHADES = ("ours", "published", "third", "engine")
_DIVERGENCE = {
    "x_label": "times smaller (coded ratio, logarithmic)",
    "y_label": "KL divergence, nats (logarithmic)",
    "x_log": True,
    "y_log": True,
    "x_format": "{:g}×".format,
}


def page(document: dict[str, Any], profile: Path, prefix: int, scored: int) -> str:
    """The report of an evaluation's JSON document; `profile` is where the bit allocation is read from."""
    results = [Result(**result) for result in document["results"]]
    pairs = list(dict.fromkeys((r.calibrated_on, r.evaluated_on) for r in results))
    home = [r for r in results if (r.calibrated_on, r.evaluated_on) == pairs[0]]
    apart = len(pairs) > 1
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."), autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    style = Markup(environment.loader.get_source(environment, "report.css")[0])
    return environment.get_template("report.html").render(
        style=style,
        model=document["model"],
        texts=document["texts"],
        seed=document["seed"],
        profile_mib=f"{document['profile_bytes'] / 2**20:.0f}",
        prefix=prefix,
        scored=scored,
        sinks=SINKS,
        window=WINDOW,
        cards=tables.cards(home),
        quality=None if apart else _quality(home),
        claim=_claim(home),
        shift=_shift(results, pairs) if apart else None,
        tasks=tables.tasks(home),
        sizes=tables.sizes(home, prefix),
        near=tables.near(home),
        bits=_bits(home, profile),
        errors=_errors(home),
        figures=tables.figures(results, apart),
        untouched=f"{results[0].perplexity_untouched:.5g}" if results[0].perplexity_untouched and not apart else None,
    )


def _chart(series: Sequence[Series], **options: Any) -> Markup | None:
    """None where there is nothing to draw."""
    series = [one for one in series if one.points]
    return Markup(charts.lines(series, **options)) if series else None


def _of_mode(results: Sequence[Result], mode: str) -> list[Result]:
    return sorted((r for r in results if r.mode == mode and r.kl), key=lambda r: r.ratio_coded)


def _points(results: Sequence[Result]) -> list[Point]:
    def title(r: Result) -> str:
        return f"{LABELS[r.mode]} {r.ratio_coded:.1f}×: KL {r.kl:.4f}, same first choice {percent(r.top1)}"

    return [Point(r.ratio_coded, r.kl or 0, title(r), r.kl_error or 0) for r in results]


def _quality(results: Sequence[Result]) -> Markup | None:
    modes = [mode for mode in LABELS if mode not in ("floor", "lossless", "transform+near")]
    series = [Series(LABELS[mode], _COLOURS.get(mode, "plain"), _points(_of_mode(results, mode))) for mode in modes]
    floor = next((r.kl for r in results if r.mode == "floor" and r.kl), None)
    claim, bridge = _claim(results), None
    if claim and claim["reached"] and claim["factor"] > 1.3:
        bridge = (*claim["between"], f"{claim['times']}× the ratio")
    return _chart(
        series,
        describe="Divergence against ratio for every way of keeping the cache; the table of all figures has the same numbers",
        level=(floor, "floor: any change at all") if floor else None,
        bridge=bridge,
        **_DIVERGENCE,
    )


def _claim(results: Sequence[Result]) -> dict[str, Any] | None:
    """Where transform reaches the published pipeline's divergence at its ratio asked nearest to 16; None where that says
    nothing for transform. `between` are both ratios and the divergence."""
    published, ours = _of_mode(results, "kvtc"), _of_mode(results, "transform")
    if not published or not ours:
        return None
    base = min(published, key=lambda r: abs((r.ratio_asked or 0) - 16))
    reached = ratio_at(ours, base.kl or 0)
    if reached is None and not all((r.kl or 0) < (base.kl or 0) for r in ours):
        return None
    factor = (reached or ours[-1].ratio_coded) / base.ratio_coded
    return {
        "kl": f"{base.kl:.4f}",
        "ratio": f"{base.ratio_coded:.1f}×",
        "reached": reached and f"{reached:.1f}×",
        "best": f"{ours[-1].ratio_coded:.1f}×",
        "factor": factor,
        "times": f"{factor:.1f}",
        "between": (base.ratio_coded, reached, base.kl),
    }


def _shift(results: Sequence[Result], pairs: Sequence[tuple[str, str]]) -> Markup | None:
    series = []
    for pair, colour in zip(pairs, _SHADES, strict=False):
        own = [r for r in results if (r.calibrated_on, r.evaluated_on) == pair]
        series.append(Series(f"{pair[0]} → {pair[1]}", colour, _points(_of_mode(own, "transform"))))
    return _chart(series, describe="Divergence against ratio for every pair of domains", **_DIVERGENCE)


def _bits(results: Sequence[Result], profile: Path) -> dict[str, Markup] | None:
    ratios = sorted({r.ratio_asked for r in results if r.mode == "transform" and r.ratio_asked})
    if not ratios:
        return None
    plans = allocations(profile, ratios)
    rows = [(f"{plan.ratio:g}× {name}", plan.layers[:, role]) for plan in plans for role, name in enumerate(("keys", "values"))]
    describe = "Bits per number for keys and values of every layer"
    curves = []
    for index, plan in enumerate(plans):
        points = [Point(i + 1, float(plan.components[i])) for i in _log_steps(len(plan.components))]
        curves.append(Series(f"{plan.ratio:g}×", _STEPS[index % len(_STEPS)], points, marks=False))
    components = _chart(
        curves, x_label="pattern, the strongest first (logarithmic)", y_label="bits", describe="Bits for each component", x_log=True, height=3.2
    )
    layers = charts.heat(rows, unit="bits per number", x_label="layer of the model", describe=describe)
    return {"layers": Markup(layers), "components": components or Markup()}


def _errors(results: Sequence[Result]) -> dict[str, Any] | None:
    chosen = [r for r in results if r.mode == "transform" and r.layers]
    if not chosen:
        return None
    r = min(chosen, key=lambda r: abs((r.ratio_asked or 0) - 16))
    series = [
        Series(
            name,
            colour,
            [Point(layer["layer"], 100 * layer[key], f"{name} of layer {layer['layer']}: {100 * layer[key]:.2g} %") for layer in r.layers or []],
        )
        for name, key, colour in (("keys", "key", "ours"), ("values", "value", "published"))
    ]
    chart = _chart(
        series,
        x_label="layer of the model",
        y_label="squared error, % of variance",
        describe="Error of keys and values by layer",
        height=3.2,
        y_format="{:g} %".format,
    )
    return {"ratio": f"{r.ratio_asked:g}×", "chart": chart}


def _log_steps(count: int) -> list[int]:
    """Indices below `count`, closer together at the beginning as a logarithmic axis shows them."""
    steps = {min(count - 1, round(1.12**power) - 1) for power in range(200)}
    return sorted(steps | {count - 1})
