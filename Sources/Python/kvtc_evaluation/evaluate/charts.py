"""The report's pictures as inline SVG. Colours are CSS variables, so that a page has a light and a dark look."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 118, 18, 50
_MANTISSAS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7))
_LINE_HEIGHT = 15


@dataclass(frozen=True)
class Point:
    """`error` is half the length of a vertical bar; `title` shows when the pointer rests on the point."""

    x: float
    y: float
    title: str = ""
    error: float = 0.0


@dataclass(frozen=True)
class Series:
    """`colour` is a CSS colour; `style` "line" has marks and its label beside it, "plain" no marks and its label in a list."""

    label: str
    colour: str
    points: Sequence[Point]
    style: str = "line"


class Axis:
    """Maps values to pixels, on a linear or a logarithmic scale."""

    def __init__(self, low: float, high: float, begin: float, end: float, *, logarithmic: bool, least_ticks: int = 4) -> None:
        self.low, self.high, self._begin, self._end, self._log = low, high, begin, end, logarithmic
        self.ticks = self._log_ticks(least_ticks) if logarithmic else self._linear_ticks()

    @classmethod
    def around(cls, values: Iterable[float], begin: float, end: float, *, logarithmic: bool) -> Axis:
        values = list(values)
        low, high = min(values), max(values)
        if logarithmic:
            return cls(low / 1.25, high * 1.25, begin, end, logarithmic=True)
        return cls(min(0.0, low), (high or 1.0) * 1.06, begin, end, logarithmic=False)

    def at(self, value: float) -> float:
        if self._log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self._begin + share * (self._end - self._begin)

    def _log_ticks(self, least: int) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        ticks: list[float] = []
        for mantissas in _MANTISSAS:
            ticks = [m * 10.0**d for d in decades for m in mantissas if self.low <= m * 10.0**d <= self.high]
            if len(ticks) >= least:
                return ticks
        return self._linear_ticks()

    def _linear_ticks(self) -> list[float]:
        rough = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [step * i for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def lines(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    describe: str,
    x_log: bool = False,
    y_log: bool = False,
    height: int = 400,
    x_format: Callable[[float], str] = lambda value: f"{value:g}",
    y_format: Callable[[float], str] = lambda value: f"{value:g}",
    levels: Sequence[tuple[float, str]] = (),
    bridge: tuple[float, float, float, str] | None = None,
) -> str:
    """Curves over common axes, labelled at their ends. `levels` are dashed horizontals; `bridge` (x from, x to, y, text) an
    arrow between two curves."""
    points = [point for one in series for point in one.points]
    x = Axis.around((p.x for p in points), _LEFT, WIDTH - _RIGHT, logarithmic=x_log)
    spread = [p.y for p in points] + [level for level, _ in levels] + [p.y + p.error for p in points]
    y = Axis.around(spread, height - _BOTTOM, _TOP, logarithmic=y_log)
    parts = [_frame(x, y, height, x_label, y_label, x_format, y_format)]
    for level, text in levels:
        at = y.at(level)
        parts.append(f'<line class="level" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="note" x="{WIDTH - _RIGHT - 4}" y="{at - 6:.1f}" text-anchor="end">{escape(text)}</text>')
    for one in series:
        parts.append(_curve(one, x, y))
    if bridge:
        parts.append(_bridge(bridge, x, y))
    parts += _end_labels(series, x, y)
    return _svg(height, describe, parts)


def _frame(x: Axis, y: Axis, height: int, x_label: str, y_label: str, x_format: Callable, y_format: Callable) -> str:
    bottom, right = height - _BOTTOM, WIDTH - _RIGHT
    parts = []
    for tick in y.ticks:
        at = y.at(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{escape(y_format(tick))}</text>')
    for tick in x.ticks:
        at = x.at(tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{escape(x_format(tick))}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text class="label" x="{(_LEFT + right) / 2}" y="{height - 10}" text-anchor="middle">{escape(x_label)}</text>')
    middle = (_TOP + bottom) / 2
    parts.append(f'<text class="label" transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    return "".join(parts)


def _curve(series: Series, x: Axis, y: Axis) -> str:
    places = [(x.at(p.x), y.at(p.y)) for p in series.points]
    parts = []
    if len(places) > 1:
        path = "M" + " L".join(f"{px:.1f} {py:.1f}" for px, py in places)
        parts.append(f'<path class="curve" d="{path}" stroke="{series.colour}"/>')
    if series.style == "line":
        for point, (px, py) in zip(series.points, places, strict=True):
            if point.error:
                top, bottom = y.at(point.y + point.error), y.at(max(point.y - point.error, y.low))
                parts.append(f'<line class="error" x1="{px:.1f}" x2="{px:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{series.colour}"/>')
            title = f"<title>{escape(point.title)}</title>" if point.title else ""
            parts.append(f'<circle class="mark" cx="{px:.1f}" cy="{py:.1f}" r="5" fill="{series.colour}">{title}</circle>')
    return "".join(parts)


def _end_labels(series: Sequence[Series], x: Axis, y: Axis) -> list[str]:
    """A label beside each curve's last point, pushed apart where they would lie on each other; a list for plain curves."""
    plain = [one for one in series if one.style == "plain"]
    left = WIDTH - _RIGHT + 14
    parts = [
        f'<text class="name" x="{left}" y="{_TOP + 14 + 20 * index}" fill="{one.colour}">— {escape(one.label)}</text>'
        for index, one in enumerate(plain)
    ]
    wanted = [(y.at(one.points[-1].y), x.at(one.points[-1].x), one) for one in series if one.points and one not in plain]
    placed: list[tuple[float, float]] = []
    for at, px, one in sorted(wanted, key=lambda item: item[:2]):
        for other_y, other_x in placed:
            if abs(other_x - px) < 110 and at - other_y < _LINE_HEIGHT:
                at = max(at, other_y + _LINE_HEIGHT)
        placed.append((at, px))
        parts.append(f'<text class="name" x="{px + 11:.1f}" y="{at + 4:.1f}" fill="{one.colour}">{escape(one.label)}</text>')
    return parts


def _bridge(bridge: tuple[float, float, float, str], x: Axis, y: Axis) -> str:
    begin, end, level, text = bridge
    left, right, at = x.at(begin) + 9, x.at(end) - 4, y.at(level)
    return (
        f'<line class="bridge" x1="{left:.1f}" x2="{right:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<path class="tip" d="M{right:.1f} {at:.1f} l-8 -4.5 v9 z"/>'
        f'<text class="claim" x="{(left + right) / 2:.1f}" y="{at - 9:.1f}" text-anchor="middle">{escape(text)}</text>'
    )


def heat(rows: Sequence[tuple[str, Sequence[float]]], *, unit: str, x_label: str, describe: str) -> str:
    """A row of coloured cells for each series of numbers; the colour grows with the square root of the number."""
    left, cell_height, gap = 132, 22, 4
    columns = max(len(values) for _, values in rows)
    cell = (WIDTH - left - 12) / columns
    top = max(value for _, values in rows for value in values) or 1.0
    parts = []
    for index, (label, values) in enumerate(rows):
        y = 6 + index * (cell_height + gap)
        parts.append(f'<text class="tick" x="{left - 10}" y="{y + 15}" text-anchor="end">{escape(label)}</text>')
        for column, value in enumerate(values):
            opacity = 0.06 + 0.94 * math.sqrt(value / top)
            title = f"<title>{escape(label)}, layer {column}: {value:.3g} {escape(unit)}</title>"
            parts.append(
                f'<rect x="{left + column * cell:.1f}" y="{y}" width="{cell - 1:.1f}" height="{cell_height}" rx="2"'
                f' fill="var(--ours)" fill-opacity="{opacity:.3f}">{title}</rect>'
            )
    bottom = 6 + len(rows) * (cell_height + gap)
    step = max(1, columns // 10)
    for column in range(0, columns, step):
        parts.append(f'<text class="tick" x="{left + (column + 0.5) * cell:.1f}" y="{bottom + 13}" text-anchor="middle">{column}</text>')
    parts.append(f'<text class="label" x="{(left + WIDTH) / 2}" y="{bottom + 33}" text-anchor="middle">{escape(x_label)}</text>')
    return _svg(bottom + 42, describe, parts)


def _svg(height: float, describe: str, parts: Iterable[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(describe)}">{"".join(parts)}</svg>'
