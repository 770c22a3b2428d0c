"""What the report says of a tuned model: the numbers as they are, no win rate from a judge that failed, model text as data."""

import io
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from tests.html import NASTY, Tags, drawn, text_of
from xl.evaluate.intervals import Estimate, McNemar
from xl.evaluate.language import DISPUTED, Decision, Verdict, language_report
from xl.evaluate.outcome import print_outcome
from xl.evaluate.winrate import Verdict as Preference
from xl.evaluate.winrate import pair_up, win_rate
from xl.report import curves, figures
from xl.report.evaluation import Answer, ArmResult, Comparison, Evaluation, Examination, Judged, SideBySide, Training
from xl.report.render import Report, render_report
from xl.report.views import NUM_FOREIGN, change_view, language_verdict, model_view
from xl.train.metrics import StepMetrics

RIGHT, WRONG, SKIPPED = Verdict.RIGHT, Verdict.WRONG, Verdict.SKIPPED
JUDGE = "judge-27b"
PASSED = Examination(JUDGE, True, [("off_topic", 14, 14, 0.785, 1.0), ("negated", 12, 14, 0.601, 0.96)])


def step(number: int, loss: float) -> StepMetrics:
    return StepMetrics(number, number / 100, loss, 2e-5 / number, 1.5, 4, 800, 400, 6.0, 130.0)


def training(losses: Sequence[float]) -> Training:
    return Training("gemma-270m", "full", 336, 41_232, {"learning rate": "2e-5"}, [step(i, loss) for i, loss in enumerate(losses, start=1)])


def arm(name: str, *answers: tuple[str, Decision]) -> ArmResult:
    return ArmResult(name, f"the {name} model", language_report(answers), Estimate(0.45, 0.04, 0.37, 0.53), None)


def verdicts(model_first: float, model_second: float) -> list[Preference]:
    return [
        Preference(str(i), "ar", first, score, 300, 200, reference_in_language=i > 0)
        for i in range(20)
        for first, score in ((True, model_first), (False, model_second))
    ]


def judged(model_first: float = 1.0, model_second: float = 1.0) -> Judged:
    return Judged("tuned", "base", JUDGE, win_rate(pair_up(verdicts(model_first, model_second)), seed=1), None)


@pytest.fixture
def evaluation() -> Evaluation:
    base = [("ar", Decision(WRONG, "en"))] * 3 + [
        ("ar", Decision(SKIPPED)),
        ("th", Decision(WRONG, DISPUTED)),
        ("th", Decision(RIGHT, "th")),
    ]
    tuned = [("ar", Decision(RIGHT, "ar"))] * 4 + [("th", Decision(RIGHT, "th"))] * 2
    answers = [Answer("base", NASTY, "wrong", "en"), Answer("tuned", "مرحبا بكم", "right", "ar")]
    return Evaluation(
        prompts="held out",
        num_prompts=4,
        languages=[("ar", "Arabic", True), ("th", "Thai", False)],
        arms=[arm("base", *base), arm("few_shot", *base), arm("tuned", *tuned)],
        ceiling={"ar": 0.985},
        comparisons=[Comparison("base", "tuned", McNemar(5, 0, 0.0625))],
        judged=[judged()],
        examination=PASSED,
        rubric={"tuned": {"naturalness": Estimate(3.4, 0.2, 3.01, 3.79)}},
        examples=[SideBySide("octopus", "ar", "Describe an octopus. Answer in Arabic.", answers)],
        sentence="It learned to answer in the language asked for.",
        num_others=4,
        left_out={"judged": {"missing_answer": 3, "timeout": 2}},
    )


@pytest.fixture
def report(evaluation: Evaluation) -> Report:
    run = Report("demo", "x_instruction", "now", "a: b\n", [("ar", "Arabic"), ("th", "Thai")], [], {}, [], {}, {}, [])
    return replace(run, training=training([3.0, 2.5, 2.0]), evaluation=evaluation)


def test_a_report_without_training_and_evaluation_speaks_of_neither(report: Report) -> None:
    html = render_report(replace(report, training=None, evaluation=None))
    assert not {"model", "change", "judge", "answers"} & {attributes.get("id") for _, attributes in Tags(html).all}
    assert ".dots" not in html


def test_the_report_shows_how_the_model_was_trained(report: Report) -> None:
    text = text_of(render_report(replace(report, evaluation=None)))
    for shown in ("gemma-270m", "336", "41,232", "2e-5", "Loss 2.000 from 3.000", "Time in steps 18.0 s"):
        assert shown in text


def test_the_report_shows_language_accuracy_with_intervals_beside_the_ceiling(report: Report) -> None:
    text = text_of(render_report(report))
    assert "Arabic 98.5% 0.0% 0.0–49.0 0 of 4 0.0% 0.0–49.0 0 of 4 100.0% 51.0–100.0 4 of 4" in text
    assert "Thai not trained on none 50.0%" in text
    assert "It learned to answer in the language asked for." in text
    assert "the base model → the tuned model 5 0 0.062" in text
    assert "one in 5 (20.0%)" in text
    assert "Left out from the stage judged on: 5 rows (missing_answer 3, timeout 2)." in text


def test_without_text_that_people_wrote_there_is_no_ceiling_and_report_and_terminal_say_so(report: Report, evaluation: Evaluation) -> None:
    unmeasured = replace(evaluation, ceiling={})
    text = text_of(render_report(replace(report, evaluation=unmeasured)))
    assert "there is no ceiling" in text and "Arabic 0.0% 0.0–49.0 0 of 4" in text
    print_outcome(unmeasured, Console(file=(printed := io.StringIO()), width=200))
    heading, told = printed.getvalue().split("Arabic", 1)
    assert "human text" not in heading and "There is no human text" in told


def test_every_answer_is_in_one_cell_of_the_matrix(evaluation: Evaluation) -> None:
    strays = [("ar", Decision(WRONG, code)) for code in ("en", "de", "fr", "it", "es", "nl")]
    view = change_view(replace(evaluation, arms=[*evaluation.arms[:2], arm("tuned", *strays, ("th", Decision(SKIPPED)))]))
    assert [code for code, _ in view.columns[:3]] == ["ar", "th", "en"]
    assert [code for code, _ in view.columns[2 + NUM_FOREIGN :]] == ["other", DISPUTED, "skip"]
    sums = {matrix.label: [sum(cell.num_answers for cell in cells) for _, cells in matrix.rows] for matrix in view.matrices}
    assert sums == {"the base model": [4, 2], "the tuned model": [6, 1], "the few_shot model": [4, 2]}


def test_the_first_and_the_last_arms_matrices_stand_side_by_side(evaluation: Evaluation) -> None:
    assert [matrix.label for matrix in change_view(evaluation).matrices] == ["the base model", "the tuned model", "the few_shot model"]
    assert len(change_view(replace(evaluation, arms=evaluation.arms[:1])).matrices) == 1


def test_a_win_rate_stands_beside_what_it_is_to_be_weighed_by(report: Report) -> None:
    text = text_of(render_report(report))
    assert "<title>win rate: 100.0%" in render_report(report)
    for shown in (
        "win rate 100.0% (",
        "wins, ties, losses 20, 0, 0",
        "invalid verdicts 0",
        "same outcome in both orders 100.0%",
        "mean characters 300 against 200",
        "length ratio 1.50",
        "in the right language 100.0% against 95.0%",
        f"judge {JUDGE}",
    ):
        assert shown in text


@pytest.mark.parametrize(
    ("examination", "verdict", "reason"),
    [
        (None, judged(), "the judge was not examined"),
        (replace(PASSED, judge="another"), judged(), "the judge was not examined"),
        (replace(PASSED, passed=False), judged(), "the judge failed its examination"),
        (PASSED, judged(1.0, 0.0), "the judge is position-biased"),
    ],
)
def test_a_judge_that_cannot_be_believed_prints_no_win_rate(
    report: Report, evaluation: Evaluation, examination: Examination | None, verdict: Judged, reason: str
) -> None:
    html = render_report(replace(report, evaluation=replace(evaluation, examination=examination, judged=[verdict])))
    assert f"No win rate: {reason}" in html
    assert "<title>win rate" not in html
    assert "win rate – orders agree – language gate – equal length – " in text_of(html)


def test_text_of_models_makes_no_tag(report: Report, evaluation: Evaluation) -> None:
    nasty = replace(
        evaluation,
        sentence=NASTY,
        prompts=NASTY,
        left_out={NASTY: {NASTY: 1}},
        languages=[("ar", NASTY, True)],
        arms=[replace(each, label=NASTY) for each in evaluation.arms],
        examination=replace(PASSED, errors=[(NASTY, 1, 2, 0.1, 0.9)]),
        rubric={NASTY: {NASTY: Estimate(3.0, 0.1, 2.8, 3.2)}},
        examples=[SideBySide(NASTY, NASTY, NASTY, [Answer(NASTY, NASTY, NASTY, NASTY)])],
    )
    html = render_report(replace(report, training=replace(training([1.0]), base=NASTY, settings={NASTY: NASTY}), evaluation=nasty))
    assert not Tags(html).mistakes
    tags = Tags(html).all
    assert not {"script", "img", "iframe"} & {tag for tag, _ in tags}
    assert not [attributes for _, attributes in tags if any(name.startswith("on") or name == "src" for name in attributes)]


def test_answers_carry_the_language_that_they_are_in(report: Report) -> None:
    texts = [attributes for tag, attributes in Tags(render_report(report)).all if tag == "p" and attributes.get("class") == "text"]
    assert [(text["lang"], text["dir"]) for text in texts] == [("en", "auto"), ("ar", "auto")]


@pytest.mark.parametrize(
    ("verdict", "language", "words"),
    [
        ("right", "th", "in Thai"),
        ("wrong", "en", "in English, not in Thai"),
        ("wrong", DISPUTED, "not in Thai"),
        ("skipped", None, "language cannot be told"),
    ],
)
def test_the_verdict_on_an_answers_language_is_said_in_words(verdict: str, language: str | None, words: str) -> None:
    assert language_verdict(Answer("base", "text", verdict, language), "th") == words


def test_an_evaluation_of_nothing_and_a_training_of_no_step_have_a_report(report: Report, evaluation: Evaluation) -> None:
    nothing = replace(evaluation, languages=[], arms=[], comparisons=[], judged=[], examination=None, rubric={}, examples=[], ceiling={})
    html = render_report(replace(report, training=training([]), evaluation=nothing))
    assert "No answers to show." in html
    assert 'id="judge"' not in html


def test_steps_whose_loss_is_not_a_number_are_pointed_out(report: Report) -> None:
    html = render_report(replace(report, training=training([3.0, float("nan"), 2.0])))
    assert "The loss is not a number in 1 of 3 steps." in html
    assert model_view(training([float("nan")])).loss == figures.NOTHING


def test_a_curve_is_as_high_as_its_values_say_and_breaks_where_there_is_none() -> None:
    svg = curves.curve([1, 2, 3, 4], [4.0, 0.0, float("nan"), 2.0], "Loss", height=100, gutter=10)
    (line,) = drawn(svg, "line")
    assert re.findall(r"([ML])([\d.]+),([\d.]+)", line.get("d", "")) == [
        ("M", "0.0", "0.00"),
        ("L", "333.3", "100.00"),
        ("M", "1000.0", "50.00"),
    ]
    assert [tick.text for tick in drawn(svg, "tick")] == ["0", "2", "4", "step 1", "2", "4"]


def test_a_long_training_does_not_make_a_long_curve() -> None:
    svg = curves.curve(range(1, 50_001), np.linspace(4, 2, 50_000), "Loss", height=100, gutter=10, window=2_500)
    assert len(svg) < 20_000
    assert "4 at step 1, 2 at step 50,000" in svg


def test_a_running_mean_of_a_level_line_is_level_to_its_ends() -> None:
    assert curves.running_mean(np.full(9, 2.0), 4) == pytest.approx(np.full(9, 2.0))
    assert curves.running_mean(np.array([0.0, 3.0, 6.0]), 3) == pytest.approx([1.5, 3.0, 4.5])


@pytest.mark.parametrize(("low", "high"), [(0, 0), (2.38, 3.61), (-1.5, 0.2), (1.9e-6, 2e-5), (90, 90), (0, 1)])
def test_a_curves_scale_holds_its_values(low: float, high: float) -> None:
    ticks = curves.nice_ticks(low, high, num_steps=4)
    assert ticks[0] <= low + 1e-12 and high <= ticks[-1] * (1 + 1e-9)
    assert 2 <= len(ticks) <= 7


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (2e-5, "2e-5"), (0.3, "0.3"), (9_500, "9500"), (12_345, "12.3k")])
def test_numbers_on_a_scale_are_short(value: float, text: str) -> None:
    assert curves.number(value) == text


def test_dots_and_whiskers_stand_where_the_estimates_are() -> None:
    marks = [
        curves.Mark("arm0", "base", 0.0, 0.0, 0.16),
        curves.Mark("arm1", "tuned", 1.0, 0.84, 1.0),
        curves.Mark("arm2", "none", *[None] * 3),
    ]
    svg = curves.intervals([curves.MarkGroup("Thai", "not trained on", marks, 0.5)], "accuracy")
    grid = [float(line.get("x1", "").rstrip("%")) for line in drawn(svg, "grid")]
    left, right = grid[0], grid[-1]
    ends = [[float(whisker.get(end, "").rstrip("%")) for end in ("x1", "x2")] for whisker in drawn(svg, "whisker")]
    assert ends == [
        pytest.approx([left, left + 0.16 * (right - left)], abs=0.01),
        pytest.approx([right - 0.16 * (right - left), right], abs=0.01),
    ]
    (reference,) = drawn(svg, "reference")
    assert float(reference.get("x1", "").rstrip("%")) == pytest.approx((left + right) / 2, abs=0.01)
    assert [value.text for value in drawn(svg, "value")] == ["0.0%", "100.0%", "–"]
