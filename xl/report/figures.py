"""The report's figures: SVG written by plain functions, without a plotting library.

Positions across are percentages and heights are pixels, so that a figure fills whatever width it is given, a phone's or a desk's,
while its letters keep their size. Colours come from the page's style sheet through class names, for light and dark alike.
Every label is escaped: it may come from the web or from a model.
"""

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

PLOT_HEIGHT = 84
"""Height of a funnel's tallest bar, in pixels."""
RIDGE_HEIGHT = 26
"""Height of a histogram's tallest bar, in pixels."""
NUM_BINS = 36

_FLOW_UNITS = 100
_BAR_UNITS = 56
_GAP_UNITS = _FLOW_UNITS - _BAR_UNITS
_TOPIC_ROW = 31
_RIDGE_ROW = 38
_RIDGE_LEFT, _RIDGE_RIGHT = 27.0, 84.0
"""Where a histogram begins and ends, in percent: its language stands on the left, its median on the right."""

NOTHING = Markup('<p class="nothing">Nothing to show.</p>')


def compact(number: float) -> str:
    """A count in at most six characters, for places where an exact one would not fit: 9,999, 12.3k, 4.5M."""
    if number < 10_000:
        return f"{number:,.0f}"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # From 0.9995 of a unit on, three figures of the smaller unit would round up to "1000".
        if number >= size * 0.9995:
            scaled = number / size
            return f"{scaled:.0f}{unit}" if scaled >= 99.95 else f"{scaled:.1f}{unit}"
    raise AssertionError(number)


def percent(part: float, whole: float) -> str:
    """A share with one decimal. What is not nothing is never shown as 0.0%, what is not all never as 100.0%."""
    if whole == 0:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.05:
        return "<0.1%"
    return ">99.9%" if 99.95 <= share < 100 else f"{share:.1f}%"


def shorten(label: str, num_chars: int) -> str:
    """A label of at most `num_chars` characters; what was cut is marked by an ellipsis."""
    return label if len(label) <= num_chars else label[: num_chars - 1].rstrip() + "…"


def nice_ceiling(number: float) -> float:
    """The next round number (1, 1.5, 2, 3, 4, 5, 6 or 8 times a power of ten) that is not below `number`."""
    if number <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(number))
    return next(power * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if power * step >= number * (1 - 1e-9))


def split_bar(parts: Sequence[tuple[str, int, str]]) -> Markup:
    """One bar divided in proportion. `parts` are label, count and class name."""
    total = sum(count for _, count, _ in parts)
    if total == 0:
        return NOTHING
    pieces, left = [], 0.0
    for label, count, css_class in parts:
        width = 100 * count / total
        if count:
            pieces.append(
                Markup('<rect class="{}" x="{:.3f}%" y="0" width="{:.3f}%" height="14"><title>{}: {}</title></rect>').format(
                    css_class, left, width, label, f"{count:,}"
                )
            )
        left += width
    return svg("split", 14, ", ".join(f"{label} {count:,}" for label, count, _ in parts), pieces)


def funnel(steps: Sequence[tuple[str, int]], title: str) -> Markup:
    """Bars for what is left after each step, joined by a band that shows the loss. `steps` are name and count, in order.

    The tallest bar is `PLOT_HEIGHT` high, the others are in proportion; what is not zero is at least one pixel high.
    """
    largest = max((count for _, count in steps), default=0)
    if largest == 0:
        return NOTHING
    heights = [max(1.0, PLOT_HEIGHT * count / largest) if count else 0.0 for _, count in steps]
    flow = [Markup('<path class="flow" d="{}"/>').format(_band(i, heights[i], heights[i + 1])) for i in range(len(steps) - 1)]
    columns = [
        _column(i, height, f"{name}: {count:,}", i == len(steps) - 1)
        for i, ((name, count), height) in enumerate(zip(steps, heights, strict=True))
    ]
    plot = stretched("0", 16, "100%", PLOT_HEIGHT, units=_FLOW_UNITS * len(steps), pieces=[*flow, *columns])
    texts = [text for i, step in enumerate(steps) for text in _step_texts(i, len(steps), *step, heights[i])]
    return svg("funnel", PLOT_HEIGHT + 48, f"{title}: " + ", ".join(f"{name} {count:,}" for name, count in steps), [plot, *texts])


def _column(place: int, height: float, title: str, last: bool) -> Markup:
    return Markup('<rect class="{}" x="{:g}" y="{:.2f}" width="{}" height="{:.2f}"><title>{}</title></rect>').format(
        "bar last" if last else "bar", place * _FLOW_UNITS + _GAP_UNITS / 2, PLOT_HEIGHT - height, _BAR_UNITS, height, title
    )


def _band(step: int, before: float, after: float) -> str:
    """Path from a bar's right edge to the next one's left edge."""
    left = (step + 1) * _FLOW_UNITS - _GAP_UNITS / 2
    right = left + _GAP_UNITS
    middle, top, next_top = (left + right) / 2, PLOT_HEIGHT - before, PLOT_HEIGHT - after
    curve = f"C{middle:g},{top:.2f} {middle:g},{next_top:.2f} {right:g},{next_top:.2f}"
    return f"M{left:g},{top:.2f}{curve}V{PLOT_HEIGHT}H{left:g}Z"


def _step_texts(place: int, num_steps: int, name: str, count: int, height: float) -> list[Markup]:
    """A step's count above its bar and its name below. Names take turns on two lines, so each has the width of two columns."""
    centre = 100 * (place + 0.5) / num_steps
    num_chars = max(6, 84 // num_steps)
    name_x, anchor = centre, "middle"
    if num_steps > 1 and place in (0, num_steps - 1):
        edge = _GAP_UNITS / 2 / num_steps
        name_x, anchor = (edge, "start") if place == 0 else (100 - edge, "end")
    value_y = 16 + PLOT_HEIGHT - height - 4
    name_y = PLOT_HEIGHT + 30 + 14 * (place % 2)
    return [
        Markup('<text class="value" x="{:.2f}%" y="{:.1f}" text-anchor="middle">{}</text>').format(centre, value_y, compact(count)),
        Markup('<text class="name" x="{:.2f}%" y="{}" text-anchor="{}">{}</text>').format(name_x, name_y, anchor, shorten(name, num_chars)),
    ]


def bars(rows: Sequence[tuple[str, int]], largest: int, title: str) -> Markup:
    """A list of counts as thin bars, each below its label. A bar of `largest` fills the width."""
    if not rows or largest <= 0:
        return NOTHING
    pieces = []
    for i, (label, count) in enumerate(rows):
        top = i * _TOPIC_ROW
        pieces.append(
            Markup(
                '<text class="label" x="0" y="{label_y}">{label}<title>{full}</title></text>'
                '<text class="value" x="100%" y="{label_y}" text-anchor="end">{count}</text>'
                '<rect class="rail" x="0" y="{bar_y}" width="100%" height="5" rx="2.5"/>'
                '<rect class="bar" x="0" y="{bar_y}" width="{width:.2f}%" height="5" rx="2.5"/>'
            ).format(
                label_y=top + 14, bar_y=top + 20, label=shorten(label, 36), full=label, count=f"{count:,}", width=100 * count / largest
            )
        )
    return svg("bars", _TOPIC_ROW * len(rows), title, pieces)


def histograms(rows: Sequence[tuple[str, Sequence[int]]], title: str) -> Markup:
    """One small histogram per row, all on one scale, with a mark at each median.

    The scale ends at the largest 95th percentile of any row, rounded up; what is longer stands in the last bin. Heights are in
    proportion within a row: rows show shapes, not sizes. `rows` are label and values.
    """
    filled = [np.asarray(values) for _, values in rows if len(values)]
    if not filled:
        return NOTHING
    end = nice_ceiling(max(float(np.percentile(values, 95)) for values in filled))
    pieces = [_axis(end, _RIDGE_ROW * len(rows))]
    for i, (label, values) in enumerate(rows):
        pieces.append(_ridge(shorten(label, 13), label, np.asarray(values), end, i * _RIDGE_ROW))
    return svg("ridges", _RIDGE_ROW * len(rows) + 24, title, pieces)


def _ridge(label: str, full: str, values: "np.ndarray[tuple[int], np.dtype[np.int64]]", end: float, top: int) -> Markup:
    base = top + _RIDGE_ROW - 6
    name = Markup('<text class="label" x="0" y="{}">{}<title>{}</title></text>').format(base - 2, label, full)
    if not len(values):
        return name + Markup('<text class="value" x="100%" y="{}" text-anchor="end">–</text>').format(base - 2)
    counts, _ = np.histogram(np.clip(values, 0, end), bins=NUM_BINS, range=(0, end))
    heights = RIDGE_HEIGHT * counts / counts.max()
    shape = "".join(f"M{10 * i + 0.7:g},{RIDGE_HEIGHT}v{-height:.2f}h8.6v{height:.2f}z" for i, height in enumerate(heights) if height)
    plot = stretched(
        f"{_RIDGE_LEFT}%",
        base - RIDGE_HEIGHT,
        f"{_RIDGE_RIGHT - _RIDGE_LEFT}%",
        RIDGE_HEIGHT,
        units=10 * NUM_BINS,
        pieces=[Markup('<path class="bar" d="{}"/>').format(shape)],
    )
    median = float(np.median(values))
    mark = Markup('<line class="median" x1="{0:.2f}%" x2="{0:.2f}%" y1="{1}" y2="{2}"/>').format(
        _ridge_x(min(median, end), end), base - RIDGE_HEIGHT - 1, base + 3
    )
    value = Markup('<text class="value" x="100%" y="{}" text-anchor="end">{}</text>').format(base - 2, compact(median))
    return name + plot + mark + value


def _ridge_x(value: float, end: float) -> float:
    return _RIDGE_LEFT + (_RIDGE_RIGHT - _RIDGE_LEFT) * value / end


def _axis(end: float, height: int) -> Markup:
    """Grid lines and numbers at none, half and all of the scale."""
    pieces = []
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        x = _ridge_x(share * end, end)
        label = compact(share * end) + ("+" if share == 1.0 else "")
        pieces.append(
            Markup('<line class="grid" x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="{1}"/>').format(x, height)
            + Markup('<text class="tick" x="{:.2f}%" y="{}" text-anchor="{}">{}</text>').format(x, height + 15, anchor, label)
        )
    return Markup("").join(pieces)


def stretched(x: str, y: float, width: str, height: int, *, units: int, pieces: Sequence[Markup]) -> Markup:
    """A drawing that is `units` wide in its own measure and is stretched sideways to `width`."""
    return Markup('<svg x="{}" y="{:g}" width="{}" height="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>').format(
        x, y, width, height, units, height, Markup("").join(pieces)
    )


def svg(css_class: str, height: int, title: str, pieces: Sequence[Markup]) -> Markup:
    """A figure as wide as its place and `height` pixels high; the title is what a screen reader says."""
    return Markup('<svg class="{}" role="img" width="100%" height="{}" aria-label="{}">{}</svg>').format(
        css_class, height, title, Markup("").join(pieces)
    )
