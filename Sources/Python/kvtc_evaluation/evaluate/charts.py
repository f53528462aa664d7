"""The report's pictures: matplotlib's SVG, made fit to stand in a page. Colours become the page's variables, so that a picture
has a light and a dark look; each has a name for who can't see it, and its marks say their figures when pointed at."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from zlib import crc32

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

COLOURS = {
    "ours": "#1f5fd0", "published": "#c2570c", "third": "#8a4fbf", "engine": "#0f8a6d", "plain": "#7a8794",
    "step1": "#0b2f73", "step2": "#2f6fe0", "step3": "#5f97ee", "step4": "#a3c3f5",
    "ink": "#16202c", "soft": "#5b6876", "line": "#dfe5ea", "paper": "#ffffff",
}  # fmt: skip
"""What matplotlib draws with; each stands for the variable of that name in report.css."""
_VARIABLES = {value: f"var(--{name})" for name, value in COLOURS.items()}
_STYLE = {
    # The page's own font shows the letters; identifiers come out the same on every run.
    "svg.fonttype": "none", "svg.hashsalt": "kvtcd", "font.size": 9.5, "text.color": COLOURS["soft"],
    "axes.edgecolor": COLOURS["soft"], "axes.labelcolor": COLOURS["soft"], "axes.facecolor": "none", "figure.facecolor": "none",
    "axes.spines.left": False, "axes.spines.right": False, "axes.spines.top": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": COLOURS["line"], "xtick.color": COLOURS["soft"], "ytick.color": COLOURS["soft"], "xtick.major.size": 0,
    "ytick.major.size": 0, "legend.frameon": False, "legend.labelcolor": COLOURS["ink"], "lines.linewidth": 2, "lines.markersize": 7.5,
}  # fmt: skip
_MARKERS = "oDs^vPX"
_WIDTH = 7.9
"""Inches of 72 pixels; the page scales the picture."""


@dataclass(frozen=True)
class Point:
    """`error` is half the length of a vertical bar; `title` shows when the pointer rests on the point."""

    x: float
    y: float
    title: str = ""
    error: float = 0.0


@dataclass(frozen=True)
class Series:
    """A curve. `colour` is a key of `COLOURS`; one with `marks` has its points shown."""

    label: str
    colour: str
    points: Sequence[Point]
    marks: bool = True


def lines(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    describe: str,
    x_log: bool = False,
    y_log: bool = False,
    height: float = 4.4,
    x_format: Callable[[float], str] = "{:g}".format,
    y_format: Callable[[float], str] = "{:g}".format,
    level: tuple[float, str] | None = None,
    bridge: tuple[float, float, float, str] | None = None,
) -> str:
    """Curves over common axes. `level` is a dashed horizontal; `bridge` (x from, x to, y, text) an arrow between two curves."""
    with _figure(height) as (figure, axes):
        for index, one in enumerate(series):
            _curve(axes, one, index)
        axes.set(xlabel=x_label, ylabel=y_label)
        if level:
            axes.axhline(level[0], color=COLOURS["soft"], linewidth=1, linestyle=(0, (2, 4)))
            place = {"xy": (1, level[0]), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
            axes.annotate(level[1], xytext=(-4, 4), ha="right", **place)
        _scale(axes, "x", x_log, x_format)
        _scale(axes, "y", y_log, y_format)
        if bridge:
            begin, end, at, text = bridge
            axes.annotate("", (end, at), (begin, at), arrowprops={"arrowstyle": "-|>", "color": COLOURS["ink"], "shrinkA": 6, "shrinkB": 2})
            middle = (begin * end) ** 0.5 if x_log else (begin + end) / 2
            place = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
            axes.annotate(text, (middle, at), color=COLOURS["ink"], weight="bold", **place)
        figure.legend(loc="outside upper left", ncols=4, handlelength=1.6, columnspacing=1.6)
        titles = {f"series-{index}": [point.title for point in one.points] for index, one in enumerate(series) if one.marks}
        return _svg(figure, describe, titles)


def heat(rows: Sequence[tuple[str, Sequence[float]]], *, unit: str, x_label: str, describe: str) -> str:
    """A row of coloured cells for each series of numbers; the colour grows with the square root of the number."""
    numbers = np.array([values for _, values in rows])
    shares = np.sqrt(numbers / (numbers.max() or 1))
    with _figure(0.75 + 0.3 * len(rows)) as (figure, axes):
        cells = axes.pcolormesh(numbers, edgecolors="none", antialiased=True, gid="cells")
        cells.set(array=None, facecolors=[(*matplotlib.colors.to_rgb(COLOURS["ours"]), 0.06 + 0.94 * share) for share in shares.ravel()])
        axes.invert_yaxis()
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)
        axes.set_yticks(np.arange(len(rows)) + 0.5, [label for label, _ in rows])
        layers = range(0, numbers.shape[1], max(1, numbers.shape[1] // 10))
        axes.set_xticks([layer + 0.5 for layer in layers], [str(layer) for layer in layers])
        axes.set_xlabel(x_label)
        axes.hlines(range(1, len(rows)), 0, numbers.shape[1], COLOURS["paper"], linewidth=3)
        titles = [f"{label}, layer {layer}: {value:.3g} {unit}" for label, values in rows for layer, value in enumerate(values)]
        return _svg(figure, describe, {"cells": titles})


@contextmanager
def _figure(height: float) -> Iterator[tuple[Figure, Axes]]:
    """Not pyplot's, which keeps state for windows."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        yield figure, figure.subplots()


def _curve(axes: Axes, one: Series, index: int) -> None:
    x, y = [point.x for point in one.points], [point.y for point in one.points]
    colour = COLOURS[one.colour]
    marker = _MARKERS[index % len(_MARKERS)] if one.marks else None
    axes.plot(x, y, color=colour, label=one.label, marker=marker, markeredgecolor=COLOURS["paper"], gid=f"series-{index}")
    if any(point.error for point in one.points):
        # A bar that would reach below 0 has no end on a logarithmic axis.
        lengths = [[min(point.error, 0.9 * point.y) for point in one.points], [point.error for point in one.points]]
        axes.errorbar(x, y, lengths, fmt="none", ecolor=colour, elinewidth=1.2, alpha=0.45)


def _scale(axes: Axes, name: Literal["x", "y"], logarithmic: bool, text: Callable[[float], str]) -> None:
    axis = axes.xaxis if name == "x" else axes.yaxis
    if logarithmic:
        low, high = axis.get_data_interval()
        axes.set(**{f"{name}scale": "log", f"{name}lim": (low / 1.25, high * 1.25)})
        # As many ticks in few decades as fit, and one at least in any.
        steps = (1,) if high > 300 * low else (1, 2, 5) if high > 20 * low else (1, 1.5, 2, 3, 4, 5, 7)
        axis.set_major_locator(LogLocator(subs=steps, numticks=20))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


def _svg(figure: Figure, describe: str, titles: dict[str, list[str]]) -> str:
    """The picture as an element for a page: names of its own, no fixed size. `titles` are those of the marks in the group
    with that name, in order."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
    # Elements and attributes have no namespace within HTML.
    root = ElementTree.iterparse(io.StringIO(file.getvalue()))
    for _, element in root:
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        if style := element.get("style"):
            element.set("style", _themed(style))
    svg: ElementTree.Element = root.root
    for group in svg.iter("g"):
        marks = list(group.iter("use")) or list(group.iter("path"))
        for mark, title in zip(marks, titles.get(group.get("id", ""), []), strict=False):
            if title:
                ElementTree.SubElement(mark, "title").text = title
    _rename(svg, describe)
    svg.attrib = {"viewBox": svg.attrib["viewBox"], "role": "img", "aria-label": describe}
    return ElementTree.tostring(svg, encoding="unicode")


def _themed(style: str) -> str:
    for colour, variable in _VARIABLES.items():
        style = style.replace(colour, variable)
    return style


def _rename(svg: ElementTree.Element, describe: str) -> None:
    """Leaves only the names that something refers to, which are of their content, and makes them this picture's own."""
    used = {element.get("href", "")[1:] for element in svg.iter("use")}
    used |= {element.get("clip-path", "")[5:-1] for element in svg.iter()}
    own = {name: f"{name}-{crc32(describe.encode()):x}" for name in used if name}
    for element in svg.iter():
        if (name := element.attrib.pop("id", None)) in own:
            element.set("id", own[name])
        if element.tag == "use":
            element.set("href", f"#{own[element.attrib['href'][1:]]}")
        if clip := element.get("clip-path"):
            element.set("clip-path", f"url(#{own[clip[5:-1]]})")
