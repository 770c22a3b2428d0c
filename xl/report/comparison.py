"""`xl compare` drawn: each arm's score and its difference from the first arm as a dot on its interval, in a page like a run's report.

The page prints the numbers of the terminal's table, in its notation: beside the dots, and once more as a table.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from xl.compare import Arm, Figure, arm_text, difference_text, estimate_text, intervals_text
from xl.errors import UserError
from xl.evaluate.intervals import Interval
from xl.pages.language import LANGUAGE_NAMES
from xl.report.figures import NOTHING, nice_ceiling, shorten, svg
from xl.report.render import HTML, visible
from xl.report.views import arm_class

SCORE_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)

_ROW = 38
_LEFT, _RIGHT = 1.5, 98.5
"""Where a scale begins and ends, in percent: a dot at an end is not cut off."""


class DotRow(NamedTuple):
    """A number, its interval, and what is printed above them: the label on the left, the text on the right."""

    css_class: str
    label: str
    text: str
    value: float
    interval: Interval


class Part(NamedTuple):
    """A measure in one language, or over all of them (no code)."""

    language: str
    code: str | None
    num_questions: int
    scores: Markup
    differences: Markup


class TableRow(NamedTuple):
    """A row of the terminal's table."""

    measure: str
    part: Part
    estimates: Sequence[str]
    differences: Sequence[str]


def check_page(path: Path) -> None:
    """Refuse a place where no page can be, before anything is computed for it. Raises UserError."""
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; name a file in it, such as {path / 'compared.html'}")
    if path.suffix != ".html":
        raise UserError(f"--out {path}: the page is one HTML file; let its name end in .html")


def write_comparison(path: Path, figures: Sequence[Figure], arms: Sequence[Arm]) -> None:
    """Draw a comparison into a file, over an earlier one. Raises UserError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render_comparison(figures, arms), "utf-8")
    except OSError as error:
        raise UserError(f"--out {path}: {error.strerror or error}") from None


def render_comparison(figures: Sequence[Figure], arms: Sequence[Arm]) -> str:
    """The comparison as one self-contained HTML file; the other arms are held against the first one."""
    num_seeds = {arm.name: len(arm.runs) for arm in arms}
    measures = {name: list(every) for name, every in itertools.groupby(figures, key=lambda figure: figure.measure)}
    drawn = {name: _parts(every, num_seeds) for name, every in measures.items()}
    html = HTML.get_template("comparison.html.jinja").render(
        arms=[(arm_class(place), arm_text(arm.name, len(arm.runs)), arm) for place, arm in enumerate(arms)],
        measures=drawn,
        rows=[_table_row(figure, part) for name in measures for figure, part in zip(measures[name], drawn[name], strict=True)],
        over=intervals_text(num_seeds),
    )
    return visible(html)


def _parts(figures: Sequence[Figure], num_seeds: Mapping[str, int]) -> list[Part]:
    """One measure drawn: all its languages on one scale."""
    ends = [abs(end) for figure in figures for _, interval in figure.differences.values() for end in interval]
    widest = nice_ceiling(max(ends, default=0.0))
    ticks = [widest * share for share in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    return [_part(figure, num_seeds, ticks) for figure in figures]


def _part(figure: Figure, num_seeds: Mapping[str, int], difference_ticks: Sequence[float]) -> Part:
    classes = {arm: arm_class(place) for place, arm in enumerate(num_seeds)}
    scores = [
        DotRow(classes[arm], arm_text(arm, num_seeds[arm]), estimate_text(found), found.value, Interval(found.low, found.high))
        for arm, found in figure.estimates.items()
    ]
    differences = [
        DotRow(classes[arm], arm_text(arm, num_seeds[arm]), difference_text(value, interval), value, interval)
        for arm, (value, interval) in figure.differences.items()
    ]
    language = LANGUAGE_NAMES.get(figure.lang, figure.lang) if figure.lang else "All languages"
    what = f"{figure.measure}, {language}, n = {figure.num_questions:,}"
    return Part(
        language,
        figure.lang,
        figure.num_questions,
        dot_rows(scores, SCORE_TICKS, what),
        dot_rows(differences, difference_ticks, f"{what}, difference from {next(iter(num_seeds))}", reference=0.0),
    )


def _table_row(figure: Figure, part: Part) -> TableRow:
    estimates = [estimate_text(found) for found in figure.estimates.values()]
    return TableRow(figure.measure, part, estimates, [difference_text(*found) for found in figure.differences.values()])


def dot_rows(rows: Sequence[DotRow], ticks: Sequence[float], title: str, reference: float | None = None) -> Markup:
    """Rows of a dot on its interval, all on the scale from the first tick to the last.

    Args:
        rows: from top to bottom.
        ticks: rising; the first, the middle and the last are numbered.
        title: what is drawn; the rows' labels and texts are told with it.
        reference: a number that is marked by a dashed line, such as no difference.
    """
    if not rows:
        return NOTHING
    height = _ROW * len(rows)
    pieces = [_tick(place, ticks, height, is_signed=ticks[0] < 0) for place in range(len(ticks))]
    if reference is not None:
        line = Markup('<line class="reference" x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="{1}"/>')
        pieces.append(line.format(_across(reference, ticks), height))
    pieces += [_dot_row(row, ticks, place * _ROW) for place, row in enumerate(rows)]
    return svg("dots", height + 22, f"{title}: {', '.join(f'{row.label} {row.text}' for row in rows)}", pieces)


def _across(value: float, ticks: Sequence[float]) -> float:
    return _LEFT + (_RIGHT - _LEFT) * (value - ticks[0]) / (ticks[-1] - ticks[0])


def _tick(place: int, ticks: Sequence[float], height: int, is_signed: bool) -> Markup:
    x, tick = _across(ticks[place], ticks), ticks[place]
    line = Markup('<line class="grid" x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="{1}"/>').format(x, height)
    anchor = {0: "start", len(ticks) // 2: "middle", len(ticks) - 1: "end"}.get(place)
    if anchor is None:
        return line
    number = f"{tick:+g}" if is_signed and tick else f"{tick:g}"
    return line + Markup('<text class="tick" x="{:.2f}%" y="{}" text-anchor="{}">{}</text>').format(x, height + 16, anchor, number)


def _dot_row(row: DotRow, ticks: Sequence[float], top: int) -> Markup:
    return Markup(
        '<g class="{css_class}"><title>{label}: {text}</title>'
        '<text class="label" x="0" y="{baseline}">{short}</text><text class="value" x="100%" y="{baseline}" text-anchor="end">{text}</text>'
        '<line class="whisker" x1="{low:.2f}%" x2="{high:.2f}%" y1="{y}" y2="{y}"/><circle cx="{x:.2f}%" cy="{y}" r="4.5"/></g>'
    ).format(
        css_class=row.css_class,
        label=row.label,
        short=shorten(row.label, 24),
        text=row.text,
        baseline=top + 14,
        y=top + 25,
        x=_across(row.value, ticks),
        low=_across(row.interval.low, ticks),
        high=_across(row.interval.high, ticks),
    )
