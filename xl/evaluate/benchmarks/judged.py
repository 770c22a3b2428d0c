"""What a judge made of open-ended answers beside reference answers: win rates, and what to weigh them by."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from xl.evaluate.benchmarks.settings import Task
from xl.evaluate.exam import examine
from xl.evaluate.intervals import Estimate
from xl.evaluate.judge import verdicts_of
from xl.evaluate.length_control import length_controlled_pairs
from xl.evaluate.rows import finished_rows
from xl.evaluate.winrate import Pair, Rate, WinRate, pair_up, win_rate
from xl.folder import RunFolder
from xl.pages.language import LANGUAGE_NAMES
from xl.records import Row


@dataclass(frozen=True)
class Judged:
    """A model's answers to a benchmark against reference answers."""

    reference: str
    """Whose answers those are."""
    judge: str
    """The judge's name in the recipe or on the command line."""
    kind: str
    """How it was asked: `ab` or `scores`."""
    num_without_reference: int
    """Answers that have no reference answer, and were not judged."""
    num_failed: int
    """Comparisons that the judge's engine failed in; they are in no rate, and `--retry-failed` asks again."""
    languages: dict[str, WinRate]
    """No rates where the judge failed its examination; `withheld` says in what."""
    overall: WinRate
    """Over the pairs of all languages."""
    length_controlled: dict[str, Estimate]
    """By language, the win rate if answers were equally long (`xl.evaluate.length_control`), where there is a rate and pairs suffice to
    fit it."""
    overall_length_controlled: Estimate | None


def judged_folder(run: RunFolder, task: Task, role: str) -> RunFolder:
    """Where a model's answers to a benchmark are judged."""
    return RunFolder(run.root / "judged" / f"{task.label}_{role}")


def examination_folder(run: RunFolder, kind: str) -> RunFolder:
    """Where the judge is examined in one way to be asked."""
    return RunFolder(run.root / "judged" / f"examination_{kind}")


def judged_rows(run: RunFolder, task: Task, role: str) -> list[Row]:
    """Rows with a request, both answers and the verdicts on them: columns of `judging.row_schema` and of `judge_pair`."""
    return finished_rows(judged_folder(run, task, role), "judged")


def read_judged(run: RunFolder, task: Task, role: str, seed: int, *, controls_length: bool = False) -> Judged | None:
    """The win rates of one model; None for a benchmark that is not judged.

    `seed` is for the intervals' draws; `controls_length` adds the length-controlled rates, whose draws take a second or two a language.
    """
    if task.reference is None:
        return None
    info, rows = judged_folder(run, task, role).info, judged_rows(run, task, role)
    kind = task.benchmark.judge_kind
    failed = examine(finished_rows(examination_folder(run, kind), "examined"), seed).why
    withheld = f"the judge failed its examination: {failed}" if failed else None
    pairs = pair_up(verdicts_of(rows, role, "reference", kind))

    by_language = {lang: [pair for pair in pairs if pair.lang == lang] for lang in dict.fromkeys(pair.lang for pair in pairs)}
    languages, overall = {lang: win_rate(own, seed, withheld) for lang, own in by_language.items()}, win_rate(pairs, seed, withheld)

    def controlled(rates: WinRate, chosen: Sequence[Pair]) -> Estimate | None:
        return length_controlled_pairs(chosen, seed) if controls_length and rates.rate else None

    fitted = {lang: estimate for lang, own in by_language.items() if (estimate := controlled(languages[lang], own))}
    num_failed, num_without = info["num_compared"] - len(rows), info["num_without_reference"]
    return Judged(info["reference"], info["judge"], kind, num_without, num_failed, languages, overall, fitted, controlled(overall, pairs))


def print_judged(found: Judged, name: str, model: str, console: Console) -> None:
    """The win rates as a table, by the protocol, by what both orders agree on, gated by language and at equal length; below it why there
    are none."""
    table = Table(title=f"{name}: {model} against {found.reference}, judged by {found.judge}", title_justify="left", header_style="bold")
    table.add_column("language")
    headings = (
        *("pairs", "win rate [95 %]", "agreed win rate [95 %]", "gated by language [95 %]", "equal length [95 %]", "consistent [95 %]"),
        *("no verdict", "wrong language", "length ratio"),
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for lang, rates in found.languages.items():
        table.add_row(LANGUAGE_NAMES[lang], *_cells(rates, found.length_controlled.get(lang)))
    table.add_section()
    table.add_row("all", *_cells(found.overall, found.overall_length_controlled))
    console.print(table)
    counted = "the greater sum of marks over both orders wins" if found.kind == "scores" else "the mean of both orders"
    told = (
        f"win rate: {counted}; agreed: won or lost only if both orders say so, else a tie; equal length: what the win rate would be if "
        "answers were equally long; consistent: both orders say the same"
    )
    console.print(told, highlight=False)
    reasons = [rates.withheld for rates in (found.overall, *found.languages.values()) if rates.withheld]
    for reason in dict.fromkeys(reasons):
        console.print(f"no win rate: {reason}", highlight=False)
    if any(rates.rate and lang not in found.length_controlled for lang, rates in found.languages.items()):
        why = "too few prompts are won or lost, or all answers differ in length by the same"
        console.print(f"no rate at equal length where it cannot be fitted: {why}", highlight=False)
    if found.num_without_reference:
        console.print(f"{found.num_without_reference:,} answers have no reference answer and were not judged", highlight=False)
    if found.num_failed:
        console.print(f"{found.num_failed:,} comparisons failed and are in no rate; --retry-failed asks again", highlight=False)


def _cells(rates: WinRate, length_controlled: Estimate | None) -> Sequence[str]:
    wrong = rates.num_model_wrong_language + rates.num_both_wrong_language
    return (
        f"{rates.num_pairs:,}",
        _rate(rates.rate),
        _rate(rates.agreed_rate),
        _rate(rates.gated_rate),
        "–" if length_controlled is None else _percent(length_controlled),
        _percent(rates.orders.consistency) if rates.orders else "–",
        f"{rates.num_invalid_pairs:,}",
        f"{wrong:,}",
        "–" if rates.length_ratio is None else f"{rates.length_ratio:.2f}",
    )


def _rate(rate: Rate | None) -> str:
    return "–" if rate is None else _percent(rate.mean)


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
