"""`xl compare --out` draws what the terminal prints: the same numbers, where they belong, in a page that is whole."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from tests.html import NASTY, Tags, drawn, text_of
from tests.support import here, succeeded
from xl.compare import Arm, Figure, Question, compare_scores, print_comparison
from xl.errors import UserError
from xl.evaluate.intervals import Interval
from xl.folder import RunFolder
from xl.report.comparison import DotRow, check_page, dot_rows, render_comparison, write_comparison

ARMS = [
    Arm("shuffled", "tuned", (Path("runs/c"),)),
    Arm("true", "tuned", (Path("runs/a"), Path("runs/b"))),
    Arm("base", "base", (Path("runs/a"),)),
]


def figures(arms: list[Arm] = ARMS, measure: str = "xquad f1") -> list[Figure]:
    """A measure in two languages and over both; each arm has other scores, and each seed."""
    questions = [Question(str(n), lang) for lang, num in (("de", 40), ("th", 25)) for n in range(num)]
    scores = {
        arm.name: [{asked: float((int(asked.key) + seed) % (place + 2) == 0) for asked in questions} for seed in range(len(arm.runs))]
        for place, arm in enumerate(arms)
    }
    return compare_scores(measure, scores, seed=7)


def numbers(text: str) -> set[str]:
    return set(re.findall(r"[+-]?\d+(?:\.\d+)?", text))


def svgs(html: str) -> list[str]:
    return re.findall(r"<svg class=\"dots\".*?</svg>", html, re.S)


def test_the_page_holds_each_number_that_the_table_prints_drawn_and_written() -> None:
    found = [*figures(), *figures(measure="xquad exact_match")]
    printed = io.StringIO()
    print_comparison(found, {arm.name: len(arm.runs) for arm in ARMS}, Console(file=printed, width=400))
    html = render_comparison(found, ARMS)
    assert len(numbers(printed.getvalue())) > 40
    assert numbers(printed.getvalue()) <= numbers(text_of(html))
    for figure in found:
        texts = [text.text for svg in svgs(html) for text in drawn(svg, "value")]
        for value, (low, high) in ((e.value, (e.low, e.high)) for e in figure.estimates.values()):
            assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in texts
        for value, (low, high) in figure.differences.values():
            assert f"{value:+.3f} [{low:+.3f}, {high:+.3f}]" in texts


def test_figures_say_in_words_what_they_show_and_how_much_it_rests_on() -> None:
    html = render_comparison(figures(), ARMS)
    assert not Tags(html).mistakes
    assert "default-src 'none'" in html and not re.search(r"url\(|@import|src=|https?:", html), "nothing is loaded"
    labels = [attributes["aria-label"] or "" for tag, attributes in Tags(html).all if tag == "svg"]
    assert len(labels) == 2 * 3, "scores and differences, over all languages and in each"
    assert labels[0].startswith("xquad f1, All languages, n = 65: shuffled 0.5") and "true (2 seeds) 0." in labels[0]
    assert labels[3].startswith("xquad f1, German, n = 40, difference from shuffled: true (2 seeds) -0.")
    assert "true, base compared with shuffled" in text_of(html) and "runs/a, runs/b" in text_of(html)
    assert "differences over training seeds too" in text_of(html)


def test_dots_stand_where_their_numbers_are_and_differences_beside_a_line_at_zero() -> None:
    rows = [DotRow("arm1", "a", "+0.1", 0.1, Interval(-0.05, 0.2)), DotRow("arm2", "b" * 40, "-0.2", -0.2, Interval(-0.2, 0.0))]
    svg = dot_rows(rows, [-0.2, -0.1, 0.0, 0.1, 0.2], "difference", reference=0.0)

    def across(css_class: str, *names: str) -> list[list[float]]:
        found = [element for element in drawn(svg, css_class) if element.get("class") == css_class]
        return [[float(element.get(name, "").rstrip("%")) for name in names] for element in found]

    grid = [x for (x,) in across("grid", "x1")]
    assert across("reference", "x1") == [[grid[2]]] and [tick.text for tick in drawn(svg, "tick")] == ["-0.2", "0", "+0.2"]
    half = grid[3] - grid[2]
    assert across("whisker", "x1", "x2") == [pytest.approx([grid[2] - half / 2, grid[4]], abs=0.02), [grid[0], grid[2]]]
    assert [float(circle.get("cx", "").rstrip("%")) for arm in ("arm1", "arm2") for circle in drawn(svg, arm)[0].iter("circle")] == [
        grid[3],
        grid[0],
    ]
    assert all(len(label.text or "") <= 24 for label in drawn(svg, "label"))


def test_names_of_arms_measures_and_runs_make_no_tag() -> None:
    arms = [Arm(NASTY, NASTY, (Path(NASTY),)), Arm(f"{NASTY}2", "tuned", (Path("runs/a"),) * 2)]
    html = render_comparison(figures(arms, measure=NASTY), arms)
    tags = Tags(html)
    assert not tags.mistakes and not {"script", "img"} & {tag for tag, _ in tags.all}
    assert not [attributes for _, attributes in tags.all if any(name.startswith("on") or name == "src" for name in attributes)]
    assert "&lt;script&gt;" in html


def test_one_question_in_one_language_has_a_page() -> None:
    asked = Question("1", "xx")
    (figure,) = compare_scores("acc", {"one": [{asked: 1.0}], "two": [{asked: 1.0}]}, seed=7)
    html = render_comparison([figure], [Arm(name, "tuned", (Path(name),)) for name in ("one", "two")])
    assert not Tags(html).mistakes and "+0.000 [-" in html and "another seed may give another difference" in html


def test_the_command_prints_the_table_and_the_pages_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {Question(str(n), "de"): n % 2.0 for n in range(9)}
    monkeypatch.setattr("xl.compare.open_run", RunFolder)
    monkeypatch.setattr("xl.compare._measures", lambda run, role: {"xquad f1": asked})
    page = tmp_path / "new" / "compared.html"
    told = succeeded(here("compare", tmp_path, "--out", page))
    assert "xquad f1" in told and f"wrote {page}" in told.replace("\n", "")
    assert "tuned compared with base" in page.read_text("utf-8")
    refused = here("compare", tmp_path, "--out", tmp_path)
    assert refused.returncode == 2 and f"--out {tmp_path} is a folder; name a file in it" in refused.stderr


def test_a_place_where_no_page_can_be_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"let its name end in \.html"):
        check_page(tmp_path / "compared.png")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out \S+: (Not a directory|File exists)"):
        write_comparison(tmp_path / "file" / "compared.html", figures(), ARMS)
