"""Line charts as inline SVG, coloured by the page's style sheet; which charts there are is
`report.sections`' duty.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Point = tuple[float, float]
Item = TypeVar("Item")
Scale = Callable[[float], float]
WIDTH, HEIGHT = 520, 290
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 14, 44


@dataclass(frozen=True)
class Series:
    """A line. `first` is the run's step at which its own step 0 lies; `color` is 1 to 6."""

    name: str
    points: tuple[Point, ...]
    color: int = 1
    first: int = 0


@dataclass(frozen=True)
class Chart:
    """Lines over the same axes. `marks` are vertical borders; `low` and `high` are kept in view."""

    title: str
    series: tuple[Series, ...]
    y_label: str = ""
    x_label: str = "step"
    marks: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    raw: bool = False


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) from low to high, about `count` of them."""
    rough = max(high - low, 1e-12) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def smooth(points: Sequence[Point]) -> tuple[Point, ...]:
    """Straight lines fitted to the twentieth of the points around each (half of it at both ends):
    a running mean inside, with no lag and no single point that decides where the curve ends.
    """
    reach = len(points) // 40
    if reach == 0:
        return tuple(points)
    x, y = np.array(points, np.float64).T
    places = np.arange(len(points))
    first, behind = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(points))

    def mean(values: Floats) -> Floats:
        sums = np.concatenate(([0.0], values.cumsum()))
        means: Floats = (sums[behind] - sums[first]) / (behind - first)
        return means

    mid_x, mid_y = mean(x), mean(y)
    slope = (mean(x * y) - mid_x * mid_y) / (mean(x * x) - mid_x**2)
    fitted: list[float] = (mid_y + slope * (x - mid_x)).tolist()
    return tuple((at, value) for (at, _), value in zip(points, fitted, strict=True))


def evenly(points: Sequence[Item], limit: int = 300) -> tuple[Item, ...]:
    """At most `limit` of them, evenly picked, the first and the last among them."""
    if len(points) <= limit or limit < 2:
        return tuple(points[-limit:])
    scale = (len(points) - 1) / (limit - 1)
    return tuple(points[round(index * scale)] for index in range(limit))


def short(value: float) -> str:
    """A number for an axis or a tooltip: 12 345 is 12.3k."""
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{sign}"
    return f"{value:.4g}"


def svg(chart: Chart) -> str:
    """The chart, scalable, its points with hover titles; "" when no series has a point."""
    points = [point for series in chart.series for point in series.points]
    if not points:
        return ""
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    values = [y for _, y in points] + [y for y in (chart.low, chart.high) if y is not None]
    y_low, y_high = min(values), max(values)
    margin = (y_high - y_low or abs(y_high) or 1) * 0.04
    y_low -= 0 if y_low == chart.low else margin
    y_high += margin

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - x_low) / ((x_high - x_low) or 1)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - y_low) / (y_high - y_low)

    title = escape(chart.title)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">']
    for y in ticks(y_low, y_high):
        parts.append(f'<path class="grid" d="M{LEFT} {down(y):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="y" x="{LEFT - 7}" y="{down(y) + 4:.1f}">{short(y)}</text>')
    floor = HEIGHT - BOTTOM
    for x in ticks(x_low, x_high):
        parts.append(f'<path class="tick" d="M{across(x):.1f} {floor}v5"/>')
        parts.append(f'<text class="x" x="{across(x):.1f}" y="{floor + 19}">{short(x)}</text>')
    for x in (mark for mark in chart.marks if x_low <= mark <= x_high):
        parts.append(f'<path class="mark" d="M{across(x):.1f} {TOP}V{floor}"/>')
    parts.append(f'<path class="axis" d="M{LEFT} {floor}H{WIDTH - RIGHT}"/>')
    parts.append(
        f'<text class="x" x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}">{chart.x_label}</text>'
    )
    for series in chart.series:
        parts += _line(chart, series, across, down)
    return "".join([*parts, "</svg>"])


def _line(chart: Chart, series: Series, across: Scale, down: Scale) -> list[str]:
    def path(points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{across(x):.1f} {down(y):.1f}" for x, y in evenly(points))

    parts = []
    shown = series.points
    if chart.raw and len(shown) >= 40:
        parts.append(f'<path class="raw c{series.color}" d="{path(shown)}"/>')
        shown = smooth(shown)
    parts.append(f'<path class="line c{series.color}" d="{path(shown)}"/>')
    lone = " lone" if len(shown) == 1 else ""
    for x, y in evenly(shown, 60):
        words = escape(f"{series.name} · step {x - series.first:g} · {y:.5g} {chart.y_label}")
        parts.append(
            f'<circle class="c{series.color}{lone}" cx="{across(x):.1f}" cy="{down(y):.1f}" r="5">'
            f"<title>{words}</title></circle>"
        )
    return parts
