"""What came of an evaluation: its finished rows as the numbers that the report and the terminal show."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from xl.evaluate import exam
from xl.evaluate.identify import identifier
from xl.evaluate.intervals import Estimate, difference_interval, estimate_mean, mcnemar
from xl.evaluate.judge import CRITERIA, verdicts_of
from xl.evaluate.language import Decision, Verdict, human_recall, language_report
from xl.evaluate.length_control import length_controlled_pairs
from xl.evaluate.rows import finished_rows
from xl.evaluate.settings import LABELS, Arm, Evaluate
from xl.evaluate.winrate import pair_up, win_rate
from xl.folder import RunFolder
from xl.pages.language import LANGUAGE_NAMES
from xl.recipe import checked
from xl.records import Row
from xl.report.evaluation import Answer, ArmResult, Comparison, Evaluation, Examination, Judged, SideBySide

EXAMPLES_PER_LANGUAGE = 5
HUMAN_TEXTS_PER_LANGUAGE = 200


def outcome(run: RunFolder, trained: Iterable[str], human_texts: Mapping[str, list[str]], seed: int) -> Evaluation:
    """Count a finished evaluation.

    Args:
        run: its folder.
        trained: codes of the languages that the tuned model has seen pairs of.
        human_texts: texts that people wrote, per language: what the identifiers can reach at best is measured on them, and in a
            language without any it is not known.
        seed: of the intervals' draws and of the examples.
    """
    info = run.info
    settings = checked(Evaluate, info["evaluate"], str(run.root / "run.json"))
    rows = finished_rows(run, "verdicts")
    trained = set(trained)
    arms = [_arm(rows, arm, settings, seed) for arm in settings.arms]
    examined = exam.examine(finished_rows(RunFolder(run.root / "examination"), "examined"), seed) if settings.judge else None
    judge = info["models"]["judge"]["name"] if settings.judge else ""
    return Evaluation(
        prompts=Path(settings.prompts.from_).name,
        num_prompts=len({row["prompt"] for row in rows}),
        languages=[(lang, LANGUAGE_NAMES[lang], lang in trained) for lang in info["languages"]],
        arms=arms,
        ceiling=_ceiling(rows, human_texts, settings),
        comparisons=[_compare(rows, before, "tuned") for before in settings.arms if "tuned" in settings.arms and before != "tuned"],
        judged=_judged(finished_rows(run, "judged"), settings, judge, examined, seed) if examined else [],
        examination=_examination(judge, examined) if examined else None,
        rubric=_rubric(finished_rows(run, "rubric"), settings, seed) if settings.judge and settings.judge.rubric else {},
        examples=_side_by_side(rows, settings, seed),
        sentence=_sentence(rows, arms, settings, seed),
        num_others=settings.num_others,
        left_out=_left_out(run),
    )


def _left_out(run: RunFolder) -> dict[str, dict[str, int]]:
    from xl.summary import ledgers

    found: dict[str, dict[str, int]] = {}
    for stage, languages in ledgers(run).items():
        reasons = sum((entry.dropped + entry.failed for entry in languages.values()), Counter[str]())
        if reasons:
            found[stage] = dict(reasons.most_common())
    return found


def _arm(rows: list[Row], arm: Arm, settings: Evaluate, seed: int) -> ArmResult:
    """An arm's figures. Over all languages the interval is one over prompts: the answers to one prompt are not independent."""
    decisions = [(row["lang"], Decision(Verdict(row[f"verdict_{arm}"]), row[f"found_{arm}"])) for row in rows]
    repetition = _share(rows, f"repetitive_{arm}", seed)
    is_known = settings.num_others > 0 and any(row[f"fits_{arm}"] is not None for row in rows)
    fit = _share(rows, f"fits_{arm}", seed) if is_known else None
    report = language_report(decisions)
    overall = estimate_mean([float(right) for right in _is_right(rows, arm)], [row["prompt"] for row in rows], seed)
    accuracy = replace(report, overall=replace(report.overall, interval=(overall.low, overall.high)))
    return ArmResult(arm, LABELS[arm], accuracy, repetition, fit)


def _share(rows: list[Row], column: str, seed: int) -> Estimate:
    """Share of rows in which a column is true, of those in which it is not null, with its interval over prompts."""
    rows = [row for row in rows if row[column] is not None]
    return estimate_mean([float(row[column]) for row in rows], [row["prompt"] for row in rows], seed)


def _is_right(rows: list[Row], arm: Arm) -> list[bool]:
    return [row[f"verdict_{arm}"] == Verdict.RIGHT for row in rows]


def _compare(rows: list[Row], before: Arm, after: Arm) -> Comparison:
    return Comparison(before, after, mcnemar(_is_right(rows, before), _is_right(rows, after)))


def _ceiling(rows: list[Row], human_texts: Mapping[str, list[str]], settings: Evaluate) -> dict[str, float]:
    """The same measure on text that people wrote, cut to the answers' usual length, for identifiers know long texts better."""
    identifiers = [identifier(name) for name in settings.identifiers]
    ceiling: dict[str, float] = {}
    for lang, texts in human_texts.items():
        lengths = [len(row[f"answer_{settings.arms[-1]}"]) for row in rows if row["lang"] == lang]
        if lengths:
            ceiling |= human_recall({lang: texts[:HUMAN_TEXTS_PER_LANGUAGE]}, identifiers, max(1, int(median(lengths))))
    return ceiling


def _judged(rows: list[Row], settings: Evaluate, judge: str, examined: exam.Examined, seed: int) -> list[Judged]:
    """Win rates; a judge that has failed its examination gives none."""
    assert settings.judge is not None
    result = []
    for arm in settings.arms:
        if arm == settings.reference:
            continue
        pairs = pair_up(verdicts_of(rows, arm, settings.reference, settings.judge.kind))
        rates = win_rate(pairs, seed, examined.why)
        controlled = length_controlled_pairs(pairs, seed) if rates.rate else None
        result.append(Judged(arm, settings.reference, judge, rates, controlled))
    return result


def _examination(judge: str, examined: exam.Examined) -> Examination:
    errors = [(e.error, e.num_seen_through, e.num_pairs, *e.interval) for e in examined.errors]
    return Examination(judge, examined.passed, errors)


def _rubric(rows: list[Row], settings: Evaluate, seed: int) -> dict[str, dict[str, Estimate]]:
    """Mean scores from 1 to 5 over the answers with valid ones; where none is valid, there is no mean."""
    result: dict[str, dict[str, Estimate]] = {}
    for arm in settings.arms:
        means = {}
        for criterion in CRITERIA:
            scored = [(row[f"{criterion}_{arm}"], row["prompt"]) for row in rows if row[f"{criterion}_{arm}"] is not None]
            if scored:
                unit = estimate_mean([(score - 1) / 4 for score, _ in scored], [prompt for _, prompt in scored], seed)
                means[criterion] = Estimate(1 + 4 * unit.value, 4 * unit.standard_error, 1 + 4 * unit.low, 1 + 4 * unit.high)
        result[arm] = means
    return result


def _side_by_side(rows: list[Row], settings: Evaluate, seed: int) -> list[SideBySide]:
    """The same few prompts in every language, drawn at random."""
    prompts = sorted({row["prompt"] for row in rows})
    chosen = set(random.Random(seed).sample(prompts, min(EXAMPLES_PER_LANGUAGE, len(prompts))))
    shown = sorted((row for row in rows if row["prompt"] in chosen), key=lambda row: (row["lang"], row["prompt"]))
    return [
        SideBySide(
            row["prompt"],
            row["lang"],
            row["request"],
            [Answer(arm, row[f"answer_{arm}"], row[f"verdict_{arm}"], row[f"found_{arm}"]) for arm in settings.arms],
        )
        for row in shown
    ]


def _sentence(rows: list[Row], arms: list[ArmResult], settings: Evaluate, seed: int) -> str:
    """What was learned, and what this does not show."""
    first, last = arms[0], arms[-1]
    if last.name != "tuned" or first is last:
        return "No model was tuned, or nothing stands beside it: the numbers describe the arms as they are."
    right = [[*map(float, _is_right(rows, arm))] for arm in (settings.arms[0], settings.arms[-1])]
    low, high = difference_interval(right[0], right[1], [row["prompt"] for row in rows], seed)
    change = f"({sum(right[0]) / len(rows):.0%} → {sum(right[1]) / len(rows):.0%} of the answers)"
    if low > 0:
        learned = f"The training taught the model to answer in the language that is asked for {change}"
    elif high < 0:
        learned = f"The training made the model answer in the language that is asked for less often {change}"
    else:
        learned = f"No change in how often the model answers in the language that is asked for can be told from chance {change}"
    if last.fit:
        learned += (
            f"; {last.fit.value:.0%} of its answers fit their own prompt best (by chance {1 / (settings.num_others + 1):.0%}), "
            "which is about their subject"
        )
    return f"{learned}. None of this shows whether the answers are true or helpful."


def print_outcome(found: Evaluation, console: Console) -> None:
    """The table that a run ends with."""
    table = Table(title="answers in the language that was asked for", title_justify="left", header_style="bold")
    table.add_column("language")
    for arm in found.arms:
        table.add_column(arm.label, justify="right")
    if found.ceiling:
        table.add_column("human text", justify="right")
    for lang, name, was_trained in found.languages:
        ceiling = [f"{found.ceiling[lang]:.2f}" if lang in found.ceiling else "none"] if found.ceiling else []
        cells = [_cell(arm.accuracy.languages.get(lang)) for arm in found.arms]
        table.add_row(name + ("" if was_trained else " (not trained)"), *cells, *ceiling)
    table.add_row("all", *(_cell(arm.accuracy.overall) for arm in found.arms), style="bold")
    table.add_row("go round in circles", *(_estimate(arm.repetition) for arm in found.arms))
    if found.num_others:
        table.add_row(f"fit their prompt better than {found.num_others} others", *(_estimate(arm.fit) for arm in found.arms))
    console.print(table)
    if not found.ceiling:
        console.print("There is no human text to measure the language identifiers on: how often they err is not known.", highlight=False)
    for stage, reasons in found.left_out.items():
        told = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
        console.print(f"left out from the stage {stage} on: {sum(reasons.values()):,} rows ({told})", highlight=False, markup=False)
    labels = {arm.name: arm.label for arm in found.arms}
    for comparison in found.comparisons:
        test = comparison.test
        console.print(
            f"{labels[comparison.before]} → {labels[comparison.after]}: {test.num_gained} answers gained, {test.num_lost} lost "
            f"(McNemar's exact test, p = {test.p_value:.2g})",
            highlight=False,
        )
    for judged in found.judged:
        rate = judged.rates.rate
        told = f"{rate.mean.value:.3f} [{rate.mean.low:.3f}, {rate.mean.high:.3f}]" if rate else f"withheld: {judged.rates.withheld}"
        console.print(f"win rate of {judged.model} against {judged.reference}, judge {judged.judge}: {told}", highlight=False)
    console.print(found.sentence, highlight=False)


def _cell(score: Any) -> str:
    if score is None or score.accuracy is None:
        return "–"
    low, high = score.interval
    return f"{score.num_right}/{score.num_answers} {score.accuracy:.2f} [{low:.2f}, {high:.2f}]"


def _estimate(estimate: Estimate | None) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]" if estimate else "–"
