"""The figures of training and evaluation: a curve over steps, and estimates with their intervals.

Built as `xl.report.figures` is: percentages across, pixels down, colours by class name, labels escaped.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from xl.report.figures import NOTHING, compact, percent, shorten, stretched, svg

MAX_POINTS = 300
"""Most points of a line: steps beyond are averaged in groups, so that a long training's report stays small."""

_CURVE_UNITS = 1000
_TICK_HEIGHT = 40
_MARK_ROW = 18
_GROUP_GAP = 14
_SCALE_LEFT, _SCALE_RIGHT = 28.0, 84.0
"""Where the scale of `intervals` begins and ends, in percent: labels stand on its left, values on its right."""

Floats = NDArray[np.float64]


class Mark(NamedTuple):
    """An estimate and its interval as shares in [0, 1]; the three are None where nothing was measured."""

    css_class: str
    label: str
    value: float | None
    low: float | None
    high: float | None


class MarkGroup(NamedTuple):
    """Marks under one label. `reference` is a share that they are to be read against, such as a ceiling."""

    label: str
    note: str
    marks: Sequence[Mark]
    reference: float | None


def curve(steps: Sequence[int], values: Sequence[float], title: str, height: int, gutter: float, window: int = 1) -> Markup:
    """A line over optimizer steps.

    Args:
        steps: increasing, as many as `values`.
        values: one a step; where one is not finite, the line has a gap.
        title: what is drawn.
        height: of the plot, in pixels.
        gutter: space for the scale on the left, in percent.
        window: steps of the running mean; from 2 on it is the line, with the values pale behind it.
    """
    points = np.asarray(values, dtype=float)
    finite = points[np.isfinite(points)]
    if not len(finite):
        return NOTHING
    ticks = nice_ticks(float(finite.min()), float(finite.max()), num_steps=max(2, height // _TICK_HEIGHT))
    low, high = float(ticks[0]), float(ticks[-1])
    lines = [("line", running_mean(points, window))] if window < 2 else [("raw", points), ("line", running_mean(points, window))]
    plot = stretched(
        f"{gutter:g}%",
        16,
        f"{100 - gutter:g}%",
        height,
        units=_CURVE_UNITS,
        pieces=[Markup('<path class="{}" d="{}"/>').format(name, _path(line, low, high, height)) for name, line in lines],
    )
    grid = [
        Markup('<line class="grid" x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/><text class="tick" x="0" y="{1:.1f}">{2}</text>').format(
            y, y - 4, number(float(tick))
        )
        for tick, y in ((tick, 16 + height * (1 - (tick - low) / (high - low))) for tick in ticks)
    ]
    ends = f"{title}: {number(float(points[0]))} at step {steps[0]:,}, {number(float(points[-1]))} at step {steps[-1]:,}"
    return svg("curve", height + 36, ends, [*grid, plot, *_step_ticks(steps, gutter, height + 32)])


def _step_ticks(steps: Sequence[int], gutter: float, y: int) -> list[Markup]:
    """The first, middle and last step below the line."""
    places = dict.fromkeys((0, (len(steps) - 1) // 2, len(steps) - 1))
    anchors = {0: "start", len(steps) - 1: "end"}
    texts = []
    for place in places:
        x = gutter + (100 - gutter) * (place / (len(steps) - 1) if len(steps) > 1 else 0.0)
        label = f"step {steps[place]:,}" if place == 0 else f"{steps[place]:,}"
        texts.append(
            Markup('<text class="tick" x="{:.2f}%" y="{}" text-anchor="{}">{}</text>').format(x, y, anchors.get(place, "middle"), label)
        )
    return texts


def _path(values: Floats, low: float, high: float, height: int) -> str:
    """Path through the values, averaged down to `MAX_POINTS`, in units of `_CURVE_UNITS` across and pixels down."""
    groups = np.array_split(values, min(len(values), MAX_POINTS))
    across = np.linspace(0, _CURVE_UNITS, len(groups))
    path, is_drawing = [], False
    for x, group in zip(across, groups, strict=True):
        mean = float(group.mean())
        if math.isfinite(mean):
            point = f"{x:.1f},{height * (1 - (mean - low) / (high - low)):.2f}"
            # A line of no length is drawn as a dot, so that a point between two gaps is seen.
            path.append(f"L{point}" if is_drawing else f"M{point}h0")
        is_drawing = math.isfinite(mean)
    return "".join(path)


def running_mean(values: Floats, window: int) -> Floats:
    """Mean of each value and of its neighbours, `window` in all and fewer at the ends; not finite where one of them is not."""
    kernel = np.ones(min(window, len(values)))
    means: Floats = np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
    return means


def nice_ticks(low: float, high: float, num_steps: int) -> Floats:
    """Round steps (1, 2 or 5 times a power of ten) that hold `low` and `high`: about `num_steps`, and at least one."""
    span = high - low if high > low else abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / num_steps))
    step = next(power * size for size in (1, 2, 5, 10) if power * size >= span / num_steps * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks: Floats = step * np.arange(first, max(last, first + 1) + 1, dtype=np.float64)
    return ticks


def number(value: float) -> str:
    """A number of any size in few characters: 0, 2e-5, 0.25, 95, 12.3k."""
    if not math.isfinite(value):
        return str(value)
    if value and abs(value) < 1e-3:
        return np.format_float_scientific(value, precision=2, trim="-", exp_digits=1)
    return compact(value) if value >= 10_000 else f"{value:.4g}"


def intervals(groups: Sequence[MarkGroup], title: str) -> Markup:
    """Dots for estimates and lines for their intervals, on a scale from 0 to 100 %; a group's reference is a dashed line across it."""
    if not groups:
        return NOTHING
    tops = np.cumsum([0, *(_MARK_ROW * max(len(group.marks), 1) + _GROUP_GAP for group in groups)])
    height = int(tops[-1])
    pieces = [_scale(height)]
    for group, top in zip(groups, tops[:-1], strict=True):
        pieces += _group(group, int(top))
    return svg("dots", height + 22, title, pieces)


def _group(group: MarkGroup, top: int) -> list[Markup]:
    first = top + _GROUP_GAP / 2 + 13
    pieces = [Markup('<text class="label" x="0" y="{:g}">{}<title>{}</title></text>').format(first, shorten(group.label, 14), group.label)]
    if group.note:
        pieces.append(Markup('<text class="note" x="0" y="{:g}">{}</text>').format(first + 15, shorten(group.note, 16)))
    if group.reference is not None:
        end = top + _GROUP_GAP / 2 + _MARK_ROW * len(group.marks)
        pieces.append(
            Markup('<line class="reference" x1="{0:.2f}%" x2="{0:.2f}%" y1="{1:g}" y2="{2:g}"><title>{3}</title></line>').format(
                _scale_x(group.reference), top + _GROUP_GAP / 2, end, percent(group.reference, 1)
            )
        )
    return pieces + [_mark(mark, first + _MARK_ROW * i) for i, mark in enumerate(group.marks)]


def _mark(mark: Mark, baseline: float) -> Markup:
    if mark.value is None:
        return Markup('<text class="value" x="100%" y="{:g}" text-anchor="end">–</text>').format(baseline)
    low, high = (mark.value if end is None or math.isnan(end) else end for end in (mark.low, mark.high))
    return Markup(
        '<g class="{css_class}"><title>{title}</title>'
        '<line class="whisker" x1="{low:.2f}%" x2="{high:.2f}%" y1="{y:g}" y2="{y:g}"/><circle cx="{x:.2f}%" cy="{y:g}" r="4.5"/>'
        '<text class="value" x="100%" y="{baseline:g}" text-anchor="end">{value}</text></g>'
    ).format(
        css_class=mark.css_class,
        title=f"{mark.label}: {percent(mark.value, 1)} ({percent(low, 1)} to {percent(high, 1)})",
        low=_scale_x(low),
        high=_scale_x(high),
        x=_scale_x(mark.value),
        y=baseline - 4,
        baseline=baseline,
        value=percent(mark.value, 1),
    )


def _scale(height: int) -> Markup:
    pieces = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _scale_x(share)
        pieces.append(Markup('<line class="grid" x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="{1}"/>').format(x, height))
        if share in (0.0, 0.5, 1.0):
            tick = Markup('<text class="tick" x="{:.2f}%" y="{}" text-anchor="middle">{:.0f}%</text>')
            pieces.append(tick.format(x, height + 16, 100 * share))
    return Markup("").join(pieces)


def _scale_x(share: float) -> float:
    return _SCALE_LEFT + (_SCALE_RIGHT - _SCALE_LEFT) * share
