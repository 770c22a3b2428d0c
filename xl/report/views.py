"""What the report shows of a training and of an evaluation: figures, tables, and words for verdicts.

A judge that has not passed its examination is given no win rate here, whatever the fields hold.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from xl.evaluate.intervals import Estimate
from xl.evaluate.language import DISPUTED, LanguageScore, Verdict
from xl.evaluate.winrate import Rate, WinRate
from xl.pages.language import LANGUAGE_NAMES
from xl.report.curves import Mark, MarkGroup, curve, intervals
from xl.report.evaluation import Answer, ArmResult, Evaluation, Examination, Judged, SideBySide, Training
from xl.report.figures import percent

NUM_FOREIGN = 3
"""Languages that nobody asked for which have a column of their own in the matrix; the others share one."""

_NUM_ARM_CLASSES = 4
_OTHERS, _SKIPPED = "other", "skip"


@dataclass(frozen=True)
class ModelView:
    """A training's figures. `window` is the number of steps that the loss's line and its two ends are means of."""

    num_steps: int
    num_unsound: int
    seconds: float
    window: int
    first_loss: float
    last_loss: float
    loss: Markup
    panels: Sequence[tuple[str, Markup]]


class AccuracyRow(NamedTuple):
    """One language's accuracy, an entry an arm."""

    name: str
    trained: bool
    ceiling: float | None
    scores: Sequence[LanguageScore | None]


class Cell(NamedTuple):
    """Answers of one wanted language that are in one language: how many, and their share of the wanted language's answers."""

    num_answers: int
    share: float
    is_right: bool


class Matrix(NamedTuple):
    """Wanted language by answered language, of one arm."""

    label: str
    rows: Sequence[tuple[str, Sequence[Cell]]]


class JudgedView(NamedTuple):
    """A comparison by a judge: its title, why there is no rate, its figure, and facts in words."""

    title: str
    withheld: str | None
    figure: Markup
    facts: Mapping[str, str]


class TestRow(NamedTuple):
    """McNemar's test in words."""

    title: str
    num_gained: int
    num_lost: int
    p_value: str


@dataclass(frozen=True)
class ChangeView:
    """An evaluation's figures and tables. `labels` and `classes` map an arm's name to what it is called and to its colour's class."""

    labels: Mapping[str, str]
    classes: Mapping[str, str]
    accuracy: Markup
    rows: Sequence[AccuracyRow]
    columns: Sequence[tuple[str, str]]
    matrices: Sequence[Matrix]
    tests: Sequence[TestRow]
    judged: Sequence[JudgedView]
    criteria: Sequence[str]
    examples: Sequence[tuple[str, Sequence[SideBySide]]]


def model_view(training: Training) -> ModelView:
    """Draw a training's metrics."""
    steps = training.steps
    numbers, losses = [step.step for step in steps], [step.loss for step in steps]
    window = max(1, len(steps) // 20)
    small = (
        ("Learning rate", [step.learning_rate for step in steps]),
        ("Gradient norm", [step.gradient_norm for step in steps]),
        ("Tokens per second", [step.tokens_per_second for step in steps]),
    )
    return ModelView(
        num_steps=len(steps),
        num_unsound=sum(not math.isfinite(loss) for loss in losses),
        seconds=math.fsum(step.step_seconds for step in steps),
        window=window,
        first_loss=_mean(losses[:window]),
        last_loss=_mean(losses[-window:]),
        loss=curve(numbers, losses, "Loss", height=180, gutter=7, window=window),
        panels=[(title, curve(numbers, values, title, height=84, gutter=16)) for title, values in small],
    )


def change_view(evaluation: Evaluation) -> ChangeView:
    """Draw an evaluation."""
    labels = {arm.name: arm.label for arm in evaluation.arms}
    rows = [
        AccuracyRow(name, trained, evaluation.ceiling.get(code), [arm.accuracy.languages.get(code) for arm in evaluation.arms])
        for code, name, trained in evaluation.languages
    ]
    columns = _columns(evaluation)
    return ChangeView(
        labels=labels,
        classes={arm.name: arm_class(i) for i, arm in enumerate(evaluation.arms)},
        accuracy=_accuracy_figure(evaluation, rows),
        rows=rows,
        columns=[(code, _column_title(code)) for code in columns],
        matrices=[_matrix(arm, columns, evaluation) for arm in _ends_first(evaluation.arms)],
        tests=[
            TestRow(
                f"{labels.get(each.before, each.before)} → {labels.get(each.after, each.after)}",
                each.test.num_gained,
                each.test.num_lost,
                "<0.001" if each.test.p_value < 0.0005 else f"{each.test.p_value:.3f}",
            )
            for each in evaluation.comparisons
        ],
        judged=[_judged_view(each, evaluation.examination, labels) for each in evaluation.judged],
        criteria=list(dict.fromkeys(criterion for scores in evaluation.rubric.values() for criterion in scores)),
        examples=_by_language(evaluation),
    )


def language_verdict(answer: Answer, wanted: str) -> str:
    """What was found of an answer's language, in words."""
    name = LANGUAGE_NAMES.get(wanted, wanted)
    match answer.verdict:
        case Verdict.RIGHT:
            return f"in {name}"
        case Verdict.WRONG if answer.language in (None, DISPUTED):
            return f"not in {name}"
        case Verdict.WRONG:
            return f"in {LANGUAGE_NAMES.get(str(answer.language), answer.language)}, not in {name}"
        case Verdict.SKIPPED:
            return "language cannot be told"
    return answer.verdict


def estimate_text(estimate: Estimate | None) -> str:
    """A share and its interval: 46.2% (38.1–54.3)."""
    if estimate is None:
        return "–"
    return f"{percent(estimate.value, 1)} ({interval_text(estimate.low, estimate.high)})"


def interval_text(low: float, high: float) -> str:
    """An interval of shares, in percent without the sign."""
    return f"{100 * low:.1f}–{100 * high:.1f}"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _accuracy_figure(evaluation: Evaluation, rows: Sequence[AccuracyRow]) -> Markup:
    arms = evaluation.arms
    groups = [MarkGroup(row.name, "" if row.trained else "not trained on", _marks(row.scores, arms), row.ceiling) for row in rows]
    if groups:
        groups.append(MarkGroup("all", "", _marks([arm.accuracy.overall for arm in arms], arms), None))
    return intervals(groups, "Share of answers in the language that was asked for, by language and arm")


def _marks(scores: Sequence[LanguageScore | None], arms: Sequence[ArmResult]) -> list[Mark]:
    marks = []
    for i, (score, arm) in enumerate(zip(scores, arms, strict=True)):
        low, high = score.interval if score and score.interval else (None, None)
        marks.append(Mark(arm_class(i), arm.label, score.accuracy if score else None, low, high))
    return marks


def arm_class(place: int) -> str:
    """Class name of the arm at a place; the style sheet has its colour."""
    return f"arm{place % _NUM_ARM_CLASSES}"


def _ends_first(arms: Sequence[ArmResult]) -> list[ArmResult]:
    """The first and the last arm, then those between: these two are what to compare, so they stand side by side."""
    return [*arms[:1], *arms[1:][-1:], *arms[1:-1]]


def _columns(evaluation: Evaluation) -> list[str]:
    """The matrix's columns, the same for all arms: wanted languages, the commonest others, the rest, and what is in no language."""
    wanted = [code for code, _, _ in evaluation.languages]
    found: Counter[str] = Counter()
    for arm in evaluation.arms:
        for row in arm.accuracy.confusion.values():
            found.update(row)
    num_disputed = found.pop(DISPUTED, 0)
    foreign = [code for code, _ in found.most_common() if code not in wanted]
    num_skipped = sum(arm.accuracy.overall.num_skipped for arm in evaluation.arms)
    last = [(_OTHERS, len(foreign) > NUM_FOREIGN), (DISPUTED, num_disputed > 0), (_SKIPPED, num_skipped > 0)]
    return [*wanted, *foreign[:NUM_FOREIGN], *(name for name, is_needed in last if is_needed)]


def _column_title(code: str) -> str:
    words = {
        _OTHERS: "any other language",
        DISPUTED: "wrong, but the identifiers do not agree on the language",
        _SKIPPED: "too short or too unclear to be told",
    }
    return words.get(code) or LANGUAGE_NAMES.get(code, code)


def _matrix(arm: ArmResult, columns: Sequence[str], evaluation: Evaluation) -> Matrix:
    rows = []
    for wanted, name, _ in evaluation.languages:
        counts = arm.accuracy.confusion.get(wanted, {})
        score = arm.accuracy.languages.get(wanted)
        special = {
            _OTHERS: sum(count for code, count in counts.items() if code not in columns and code != DISPUTED),
            _SKIPPED: score.num_skipped if score else 0,
        }
        filled = [special.get(column, counts.get(column, 0)) for column in columns]
        total = score.num_answers if score else 0
        cells = [Cell(n, n / total if total else 0.0, column == wanted) for n, column in zip(filled, columns, strict=True)]
        rows.append((name, cells))
    return Matrix(arm.label, rows)


def _judged_view(judged: Judged, examination: Examination | None, labels: Mapping[str, str]) -> JudgedView:
    model, reference = labels.get(judged.model, judged.model), labels.get(judged.reference, judged.reference)
    withheld = _why_withheld(judged, examination)
    title = f"{model} against {reference}"
    shown = {} if withheld else _estimates(judged)
    groups = [MarkGroup(name, "", [Mark("arm2", name, each.value, each.low, each.high)], 0.5) for name, each in shown.items() if each]
    facts = {
        **{name: estimate_text(shown.get(name)) for name in _estimates(judged)},
        **_rate_facts(None if withheld else judged.rates.rate),
        **_verdict_facts(judged.rates),
        "judge": judged.judge,
    }
    return JudgedView(title, withheld, intervals(groups, title), facts)


def _estimates(judged: Judged) -> dict[str, Estimate | None]:
    """The ways to count a win rate; the report's caption explains these names."""
    rates = judged.rates
    return {
        "win rate": rates.rate.mean if rates.rate else None,
        "orders agree": rates.agreed_rate.mean if rates.agreed_rate else None,
        "language gate": rates.gated_rate.mean if rates.gated_rate else None,
        "equal length": judged.length_controlled,
    }


def _why_withheld(judged: Judged, examination: Examination | None) -> str | None:
    if examination is None or examination.judge != judged.judge:
        return "the judge was not examined"
    if not examination.passed:
        return "the judge failed its examination"
    return judged.rates.withheld


def _rate_facts(rate: Rate | None) -> dict[str, str]:
    return {
        "standard error": "–" if rate is None else f"{100 * rate.mean.standard_error:.2f} points",
        "wins, ties, losses": "–" if rate is None else f"{rate.num_wins:,}, {rate.num_draws:,}, {rate.num_losses:,}",
        "discrete win rate": "–" if rate is None else percent(rate.discrete_win_rate, 1),
    }


def _verdict_facts(rates: WinRate) -> dict[str, str]:
    """What METHODS.md §5 wants beside every win rate; it is shown without one too."""
    total, both = rates.num_pairs, rates.num_both_wrong_language
    orders = rates.orders
    ratio = rates.length_ratio
    return {
        "pairs": f"{total:,}",
        "invalid verdicts": f"{rates.num_invalid_verdicts:,}",
        "pairs left out for them": f"{rates.num_invalid_pairs:,}",
        "same outcome in both orders": estimate_text(orders.consistency if orders else None),
        "verdicts for the first answer": estimate_text(orders.first_preferred if orders else None),
        "won by answer, by place": f"{orders.num_by_answer:,}, {orders.num_by_position:,}" if orders else "–",
        "mean characters": f"{rates.model_mean_chars:,.0f} against {rates.reference_mean_chars:,.0f}" if total else "–",
        "length ratio": f"{ratio:.2f}" if total and ratio is not None else "–",
        "in the right language": f"{percent(total - rates.num_model_wrong_language - both, total)} against "
        f"{percent(total - rates.num_reference_wrong_language - both, total)}",
        "both in a wrong language": f"{both:,}",
    }


def _by_language(evaluation: Evaluation) -> list[tuple[str, list[SideBySide]]]:
    names = {code: name for code, name, _ in evaluation.languages}
    groups: dict[str, list[SideBySide]] = {}
    for example in evaluation.examples:
        groups.setdefault(names.get(example.lang, example.lang), []).append(example)
    return list(groups.items())
