"""The HTML report: one file that explains itself to somebody who has never heard of KV caches and loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from kvtc.calibration.predictions import SINKS, WINDOW

from . import charts
from .bits import allocations
from .charts import Point, Series
from .prose import explanation, method
from .results import Result, ratio_at
from .style import STYLE
from .tables import cells, difference, percent, table

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
COLOURS = {
    "transform": "var(--ours)",
    "transform+near": "var(--ours)",
    "kvtc": "var(--published)",
    "kvtc+weights": "var(--third)",
    "q8_0": "var(--engine)",
    "q4_0": "var(--engine)",
}
STEPS = ("var(--step1)", "var(--step2)", "var(--step3)", "var(--step4)")
SHADES = ("var(--ours)", "var(--published)", "var(--third)", "var(--engine)")


def page(document: dict[str, Any], profile: Path, prefix: int, scored: int) -> str:
    """The report of an evaluation's JSON document; `profile` is where the bit allocation is read from."""
    results = [Result(**result) for result in document["results"]]
    pairs = list(dict.fromkeys((r.calibrated_on, r.evaluated_on) for r in results))
    home = [r for r in results if (r.calibrated_on, r.evaluated_on) == pairs[0]]
    sections = [
        _cards(home),
        _section("What this is about", explanation(document, prefix, scored)),
        _quality(home) if len(pairs) == 1 else _shift(results, pairs),
        _tasks(home),
        _sizes(home, prefix),
        _bits(home, profile),
        _layers(home),
        _figures(results, len(pairs) > 1),
        _section("How it was measured", method(document, prefix, scored)),
    ]
    title = f"What compressing its memory costs {document['model']}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<header><p class='kicker'>kvtcd evaluation</p><h1>{escape(title)}</h1></header>"
        + "".join(section for section in sections if section)
        + "</main></body></html>\n"
    )


def _section(heading: str, body: str, lead: str = "") -> str:
    return f"<section><h2>{escape(heading)}</h2>{f'<p>{lead}</p>' if lead else ''}{body}</section>"


def _cards(results: Sequence[Result]) -> str:
    ours = [r for r in results if r.mode == "transform" and r.top1 is not None]
    chosen = sorted(ours, key=lambda r: r.ratio_coded)[-3:]
    cards = [
        f"<div class='card'><b>{r.ratio_coded:.0f}×</b><span>smaller</span>"
        f"<p>the model’s first choice for the next word is the same <strong>{100 * (r.top1 or 0):.1f} %</strong> of the time</p></div>"
        for r in chosen
    ]
    return f"<div class='cards'>{''.join(cards)}</div>" if cards else ""


def _of_mode(results: Sequence[Result], mode: str) -> list[Result]:
    return sorted((r for r in results if r.mode == mode and r.kl), key=lambda r: r.ratio_coded)


def _points(results: Sequence[Result]) -> list[Point]:
    def title(r: Result) -> str:
        return f"{LABELS[r.mode]} {r.ratio_coded:.1f}×: KL {r.kl:.4f}, same first choice {percent(r.top1)}"

    return [Point(r.ratio_coded, r.kl or 0, title(r), r.kl_error or 0) for r in results]


def _quality(results: Sequence[Result]) -> str:
    modes = [mode for mode in LABELS if mode not in ("floor", "lossless", "transform+near")]
    measured = {mode: own for mode in modes if (own := _of_mode(results, mode))}
    series = [Series(LABELS[mode], COLOURS.get(mode, "var(--plain)"), _points(own)) for mode, own in measured.items()]
    if not series:
        return ""
    bridge, claim = _claim(results)
    floor = next((r.kl for r in results if r.mode == "floor" and r.kl), None)
    chart = charts.lines(
        series,
        x_label="times smaller (coded ratio, logarithmic)",
        y_label="KL divergence, nats (logarithmic)",
        describe="Divergence against ratio for every way of keeping the cache",
        x_log=True,
        y_log=True,
        height=440,
        x_format=lambda value: f"{value:g}×",
        levels=[(floor, "floor: any change at all")] if floor else [],
        bridge=bridge,
    )
    lead = (
        "Further right is smaller, further down is more faithful: the best place is the lower right. "
        f"Bars show the standard error over the documents. {claim}"
    )
    return _section("Smaller against faithful", f"<figure>{chart}</figure>", lead)


def _claim(results: Sequence[Result]) -> tuple[tuple[float, float, float, str] | None, str]:
    """Where transform reaches the published pipeline's divergence at its ratio asked nearest to 16."""
    published, ours = _of_mode(results, "kvtc"), _of_mode(results, "transform")
    if not published or not ours:
        return None, ""
    base = min(published, key=lambda r: abs((r.ratio_asked or 0) - 16))
    reached = ratio_at(ours, base.kl or 0)
    if reached is None:
        if all((r.kl or 0) < (base.kl or 0) for r in ours):
            best = ours[-1]
            return None, (
                f"The published pipeline has KL {base.kl:.4f} at {base.ratio_coded:.1f}×; transform stays below that at "
                f"every ratio measured, up to {best.ratio_coded:.1f}×: more than "
                f"<strong>{best.ratio_coded / base.ratio_coded:.1f} times the ratio at equal KL</strong>."
            )
        return None, ""
    times = reached / base.ratio_coded
    text = (
        f"The published pipeline has KL {base.kl:.4f} at {base.ratio_coded:.1f}×; transform has it at {reached:.1f}×: "
        f"<strong>{times:.1f} times the ratio at equal KL</strong>."
    )
    return ((base.ratio_coded, reached, base.kl or 0, f"{times:.1f}× the ratio") if times > 1.3 else None), text


def _shift(results: Sequence[Result], pairs: Sequence[tuple[str, str]]) -> str:
    series = []
    for pair, colour in zip(pairs, SHADES, strict=False):
        own = [r for r in results if (r.calibrated_on, r.evaluated_on) == pair and r.mode == "transform" and r.kl]
        label = f"{pair[0]} → {pair[1]}"
        series.append(Series(label, colour, _points(sorted(own, key=lambda r: r.ratio_coded))))
    series = [one for one in series if one.points]
    if not series:
        return ""
    chart = charts.lines(
        series,
        x_label="times smaller (coded ratio, logarithmic)",
        y_label="KL divergence, nats (logarithmic)",
        describe="Divergence against ratio for every pair of domains",
        x_log=True,
        y_log=True,
        x_format=lambda value: f"{value:g}×",
    )
    lead = (
        "A profile learns what a model’s notes usually look like from sample texts. Here it learned from one kind of text and met "
        "another: “prose → code” is calibrated on prose and evaluated on code. Curves that end at the same kind of text are to be "
        "compared: the closer they are, the less it matters what the profile learned from."
    )
    return _section("Texts unlike those it learned from", f"<figure>{chart}</figure>", lead)


def _tasks(results: Sequence[Result]) -> str:
    asked = [r for r in results if r.passkey is not None or r.verbatim is not None]
    if not asked:
        return ""
    first = asked[0]
    rows = [["untouched notes", "", percent(first.passkey_untouched), "", percent(first.verbatim_untouched), ""]]
    for r in asked:
        ratio = f"{r.ratio_coded:.1f}×"
        found = [percent(r.passkey), difference(r.passkey, r.passkey_untouched)]
        rows.append([LABELS[r.mode], ratio, *found, percent(r.verbatim), difference(r.verbatim, r.verbatim_untouched)])
    heads = ["", "ratio", "pass keys found", "points", "tokens repeated", "points"]
    lead = (
        "Two things that a model can only do with its notes. <strong>Pass keys</strong>: ten numbers, each under a name, were "
        f"hidden at ten depths of a text ({first.passkeys} numbers in all); how many does the model give back whole? "
        "<strong>Repeating</strong>: the beginning of a passage read before is shown again; how many of the next tokens "
        "are right? “Points” compares with the untouched notes."
    )
    return _section("Finding and repeating", table(heads, rows), lead)


def _sizes(results: Sequence[Result], prefix: int) -> str:
    chosen = [r for r in results if r.mode in ("transform", "transform+near", "kvtc") and r.totals]
    if not chosen:
        return ""
    lengths = [length for length in chosen[0].totals if int(length) != prefix]
    heads = ["", "coded", f"{prefix} tokens, measured", *[f"{int(n):,} tokens".replace(",", " ") for n in lengths]]
    rows = [
        [LABELS[r.mode], f"{r.ratio_coded:.1f}×", f"{r.ratio_total:.1f}×", *[f"{r.totals[n]:.1f}×" for n in lengths]]
        for r in chosen
    ]
    lead = (
        f"The first {SINKS} tokens and the last {WINDOW} matter most and are kept exactly, so a short conversation shrinks less "
        "as a whole than its middle does. The longer columns are computed from the block sizes measured here."
    )
    if bound := next((r.near for r in chosen if r.near), None):
        divergence = {r.ratio_asked: r.kl for r in chosen if r.mode == "transform"}
        costs = [
            f"{divergence[r.ratio_asked]:.4f} to {r.kl:.4f} at {r.ratio_asked:g}×"
            for r in chosen
            if r.near and r.kl and divergence.get(r.ratio_asked)
        ]
        lead += (
            f" When a conversation rests, those last {WINDOW} tokens may be coded almost exactly (error below {100 * bound:g} %) until "
            "they are needed exactly again: “window too”." + (f" That takes the KL divergence from {', '.join(costs)}." if costs else "")
        )
    return _section("The whole conversation", table(heads, rows), lead)


def _bits(results: Sequence[Result], profile: Path) -> str:
    ratios = sorted({r.ratio_asked for r in results if r.mode == "transform" and r.ratio_asked})
    if not ratios:
        return ""
    plans = allocations(profile, ratios)
    rows = [(f"{plan.ratio:g}× {name}", plan.layers[:, role]) for plan in plans for role, name in enumerate(("keys", "values"))]
    describe = "Bits per number for keys and values of every layer"
    picture = charts.heat(rows, unit="bits per number", x_label="layer of the model", describe=describe)
    curves = []
    for index, plan in enumerate(plans):
        points = [Point(i + 1, float(plan.components[i])) for i in _log_steps(len(plan.components))]
        curves.append(Series(f"{plan.ratio:g}×", STEPS[index % len(STEPS)], points, "plain"))
    chart = charts.lines(
        curves,
        x_label="pattern, the strongest first (logarithmic)",
        y_label="bits",
        describe="Bits for each component",
        x_log=True,
        height=300,
        x_format=lambda value: f"{value:g}",
    )
    lead = (
        "A number in the cache takes 16 bits before. kvtcd finds the patterns that run through all layers, spends bits on the strong "
        "ones and none on the rest. The first picture shows what that leaves for each layer, in bits per number: deeper colour is "
        "more, and layers in which errors do harm get more. The second shows the bits of every pattern, strongest first."
    )
    return _section("Where the bits go", f"<figure>{picture}</figure><figure>{chart}</figure>", lead)


def _layers(results: Sequence[Result]) -> str:
    chosen = [r for r in results if r.mode == "transform" and r.layers]
    if not chosen:
        return ""
    r = min(chosen, key=lambda r: abs((r.ratio_asked or 0) - 16))
    layers = r.layers or []
    series = []
    for name, key, colour in (("keys", "key", "var(--ours)"), ("values", "value", "var(--published)")):
        points = [Point(entry["layer"], 100 * entry[key], f"layer {entry['layer']}: {100 * entry[key]:.2g} %") for entry in layers]
        series.append(Series(name, colour, points))
    chart = charts.lines(
        series,
        x_label="layer of the model",
        y_label="squared error, % of variance",
        describe="Error of keys and values by layer",
        height=300,
        y_format=lambda value: f"{value:g} %",
    )
    lead = (
        f"How far keys and values of each layer are off after coding at {r.ratio_asked:g}×, as a share of how much they vary. "
        "Unequal on purpose: the error is put where the model notices it least."
    )
    return _section("Error by layer", f"<figure>{chart}</figure>", lead)


def _figures(results: Sequence[Result], apart: bool) -> str:
    heads = ["", "asked", "coded", "total", "KL, nats", "same first choice", "perplexity"]
    rows = [[LABELS[r.mode], *cells(r)] for r in results]
    if apart:
        heads.append("calibrated → evaluated")
        rows = [[*row, escape(f"{r.calibrated_on} → {r.evaluated_on}")] for row, r in zip(rows, results, strict=True)]
    untouched = results[0].perplexity_untouched
    lead = f"Perplexity with the untouched cache: {untouched:.5g}." if untouched and not apart else ""
    return _section("All figures", table(heads, rows), lead)


def _log_steps(count: int) -> list[int]:
    """Indices below `count`, closer together at the beginning as a logarithmic axis shows them."""
    steps = {min(count - 1, round(1.12**power) - 1) for power in range(200)}
    return sorted(steps | {count - 1})
