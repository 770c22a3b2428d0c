"""Does a model give the same answer in every language, and is it right? Consistency over k languages, and AC3.

Wang et al., "SeaEval for Multilingual Foundation Models" (arXiv 2309.04766), as CrossIn reports it (Lin et al., arXiv 2404.11932). An
option is known by its place, which is the same in all translations of a question.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from rich.console import Console
from rich.table import Table

from xl.evaluate.benchmarks.task import Answer, Item, chosen
from xl.evaluate.intervals import Floats, Interval, bootstrap_means

_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Pick:
    """The option that a model chose for a question in one language, by its place; None for an answer that names none."""

    key: str
    lang: str
    option: int | None
    gold: int


@dataclass(frozen=True)
class Agreement:
    """How often `num_languages` languages agree, the mean over all subsets of so many; with 95 % intervals."""

    num_languages: int
    consistency: float
    consistency_interval: Interval
    ac3: float
    ac3_interval: Interval


@dataclass(frozen=True)
class Consistency:
    """Consistency and AC3 from two languages to all of them, over the questions that were asked in every language."""

    languages: tuple[str, ...]
    num_questions: int
    num_left_out: int
    """Questions that are not in every language, and in no figure here."""
    accuracy: float
    """Mean over these questions and all languages."""
    accuracy_interval: Interval
    agreements: tuple[Agreement, ...]


def pick(item: Item, answer: Answer) -> Pick:
    """What a model chose among an item's choices."""
    return Pick(item.key, item.lang, chosen(item, answer), item.choices.index(item.gold[0]))


def consistency_share(options: Sequence[int | None], num_languages: int) -> float:
    """Share of the subsets of `num_languages` languages in which one question's options are all the same (SeaEval, section 3).

    `options` has one entry a language. No option agrees with nothing, not even with another one missing.
    """
    same = sum(comb(count, num_languages) for option, count in Counter(options).items() if option is not None)
    return same / comb(len(options), num_languages)


def ac3(accuracy: float, consistency: float) -> float:
    """Harmonic mean of accuracy and consistency: high only for a model that is right, and right in every language (SeaEval, section 3)."""
    return float(_harmonic_mean(np.asarray(accuracy), np.asarray(consistency)))


def measure_consistency(picks: Iterable[Pick], seed: int) -> Consistency | None:
    """Consistency and AC3 of a model's picks, with intervals that draw questions; None without a question in two languages or more."""
    questions: dict[str, dict[str, Pick]] = defaultdict(dict)
    for found in picks:
        questions[found.key][found.lang] = found
    languages = tuple(sorted({lang for question in questions.values() for lang in question}))
    shared = [[question[lang] for lang in languages] for question in questions.values() if len(question) == len(languages)]
    if len(languages) < 2 or not shared:
        return None
    sizes = range(2, len(languages) + 1)
    right = [float(np.mean([found.option == found.gold for found in question])) for question in shared]
    same = [[consistency_share([found.option for found in question], size) for question in shared] for size in sizes]
    draws = bootstrap_means([right, *same], np.ones(len(shared)), seed)
    accuracy = float(np.mean(right))
    agreements = [
        _agreement(size, accuracy, float(np.mean(shares)), draws[:, 0], draws[:, row])
        for row, (size, shares) in enumerate(zip(sizes, same, strict=True), 1)
    ]
    return Consistency(languages, len(shared), len(questions) - len(shared), accuracy, _interval(draws[:, 0], accuracy), tuple(agreements))


def _agreement(num_languages: int, accuracy: float, consistency: float, accuracies: Floats, consistencies: Floats) -> Agreement:
    harmonic = ac3(accuracy, consistency)
    ac3_interval = _interval(_harmonic_mean(accuracies, consistencies), harmonic)
    return Agreement(num_languages, consistency, _interval(consistencies, consistency), harmonic, ac3_interval)


def _harmonic_mean(accuracy: Floats, consistency: Floats) -> Floats:
    total = accuracy + consistency
    return np.divide(2 * accuracy * consistency, total, out=np.zeros_like(total), where=total > 0)


def _interval(draws: Floats, seen: float) -> Interval:
    low, high = np.quantile(draws, _TAILS)
    # Where all questions lie at a bound, no draw reaches the mean that was seen.
    return Interval(min(float(low), seen), max(float(high), seen))


def print_consistency(found: Consistency, console: Console) -> None:
    """A table with one row for each number of languages that must agree."""
    title = f"options over {', '.join(found.languages)}: {found.num_questions:,} questions in all of them, {found.num_left_out:,} are not"
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in ("languages that agree", "accuracy [95 %]", "consistency [95 %]", "AC3 [95 %]"):
        table.add_column(name, justify="right")
    for agreement in found.agreements:
        table.add_row(
            str(agreement.num_languages),
            _percent(found.accuracy, found.accuracy_interval),
            _percent(agreement.consistency, agreement.consistency_interval),
            _percent(agreement.ac3, agreement.ac3_interval),
        )
    console.print(table)


def _percent(value: float, interval: Interval) -> str:
    return f"{100 * value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
