"""`xl compare`: runs side by side on the questions that all of them were asked, with paired differences.

An arm is a model of one run, or of several runs that differ in their seed alone. Scores are paired by question, its wording and its
language; a question's languages are drawn together, for they are not independent. With several seeds an arm, seeds are drawn as well as
questions: what a new training would give is as uncertain as what other questions would.
"""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from xl.errors import UserError
from xl.evaluate.benchmarks.judged import judged_rows, read_judged
from xl.evaluate.benchmarks.results import scored_answers
from xl.evaluate.benchmarks.run import asked_tasks
from xl.evaluate.benchmarks.task import Item
from xl.evaluate.exam import examine
from xl.evaluate.intervals import (
    Estimate,
    Floats,
    Interval,
    difference_interval,
    equal_weights,
    estimate_mean,
    seeds_and_prompts_interval,
)
from xl.evaluate.judge import verdicts_of
from xl.evaluate.language import Verdict
from xl.evaluate.rows import finished_rows
from xl.evaluate.winrate import Pair, pair_up, win_rate
from xl.folder import RunFolder, differences, open_run, plain
from xl.methods import check_recipe
from xl.records import Row
from xl.settings import semantic
from xl.storage import place


class Question(NamedTuple):
    """What pairs scores: a question that two runs worded otherwise, or had answered otherwise, is not the same."""

    key: str
    lang: str
    wording: str = ""
    """Digest of all that the model was shown, and of how its answer was drawn."""


Scores = Mapping[Question, float]
"""From 0 to 1; nothing for a question that was not scored."""


@dataclass(frozen=True)
class Arm:
    """What is compared: a role (`base`, `tuned`, `few_shot`) in runs that differ in their seed alone."""

    name: str
    role: str
    runs: tuple[Path, ...]


@dataclass(frozen=True)
class Figure:
    """One measure in one language, or over all languages with the same weight each."""

    measure: str
    lang: str | None
    num_questions: int
    """Questions in a language each that every arm was scored on."""
    estimates: dict[str, Estimate]
    """By arm."""
    differences: dict[str, tuple[float, Interval]]
    """Each further arm less the first one, with its 95 % interval."""


def parse_arms(texts: Sequence[str]) -> list[Arm]:
    """Arms from `[NAME=]RUN[:ROLE]`; those that are given the same name are seeds of one. A single run stands for its base and its
    tuned model.

    Raises:
        UserError: there is nothing to compare.
    """
    asked = [_read_arm(text) for text in texts]
    if len(asked) == 1 and asked[0].role is None:
        return [Arm(role, role, (place(asked[0].path),)) for role in ("base", "tuned")]
    runs: dict[str, list[Path]] = {}
    roles: dict[str, str] = {}
    folders = Counter(path.name for path in {place(one.path) for one in asked})
    for text, one in zip(texts, asked, strict=True):
        path, role = place(one.path), one.role or "tuned"
        name = one.name or (path.name if folders[path.name] == 1 else one.path) + (f":{role}" if one.role else "")
        if roles.setdefault(name, role) != role:
            raise UserError(f"{text}: the arm {name!r} is {roles[name]!r} in another run; give this one another NAME=")
        runs.setdefault(name, []).append(path)
    if len(runs) < 2:
        raise UserError("one arm alone has nothing to be compared with; name two runs, or RUN:base and RUN:tuned")
    return [Arm(name, roles[name], tuple(every)) for name, every in runs.items()]


class _Asked(NamedTuple):
    """An arm as the command line has it; None where it leaves a part out."""

    name: str | None
    path: str
    role: str | None


def _read_arm(text: str) -> _Asked:
    """The parts of `[NAME=]RUN[:ROLE]`. What is there as a path is one, whatever signs are in it: `lr=1e-4` is a usual folder."""
    for start in (0, *(equals.end() for equals in re.finditer("=", text))):
        name, path = text[: max(start - 1, 0)] or None, text[start:]
        run, role = _run_and_role(path)
        if path and place(path).exists():
            return _Asked(name, path, None)
        if run and place(run).exists():
            return _Asked(name, run, role)
    given, _, path = text.rpartition("=")
    if "/" in given:  # a path that is missing, and is told so
        given, path = "", text
    run, role = _run_and_role(path)
    return _Asked(given or None, run or path, role if run else None)


def _run_and_role(path: str) -> tuple[str, str]:
    """What is before and behind the last colon; nothing before that of a URL."""
    run, _, role = path.rpartition(":")
    return ("", "") if role.startswith("//") else (run, role)


def compare(arms: Sequence[Arm], seed: int) -> list[Figure]:
    """Every measure that all arms have, over all languages and in each.

    Raises:
        UserError: a run is missing or has no such role, the runs of an arm differ in more than their seeds, or the arms have no measure in
            common.
    """
    for arm in arms:
        _check_seeds(arm)
    measured = [[_measures(open_run(path), arm.role) for path in arm.runs] for arm in arms]
    names = [name for name in measured[0][0] if all(name in one for every in measured for one in every)]
    if not names:
        raise UserError("the runs have no measure in common: they were evaluated on different things, or not at all")
    # A measure that only some answers have may have none in common where the others have all.
    shared = [name for name in names if set.intersection(*(set(one[name]) for every in measured for one in every))]
    return [
        figure
        for name in shared or names
        for figure in compare_scores(
            name, {arm.name: [one[name] for one in every] for arm, every in zip(arms, measured, strict=True)}, seed
        )
    ]


def _check_seeds(arm: Arm) -> None:
    """Refuse runs that are not trainings of one recipe by different seeds: their difference would count as the seeds' spread."""
    known = [run for run in map(open_run, arm.runs) if "recipe" in run.info] if len(arm.runs) > 1 else []
    wanted = [plain(semantic(check_recipe(run.info["recipe"], str(run.root)).model_copy(update={"arms": {}}))) for run in known]
    for run, settings in zip(known[1:], wanted[1:], strict=True):
        keys = [change for change in differences("", wanted[0], settings) if change.partition(":")[0].rpartition(".")[2] != "seed"]
        if keys:
            raise UserError(f"{run.root}: not another seed of {known[0].root}, for {'; '.join(keys)}. Give it a name of its own")


def compare_scores(measure: str, scores: Mapping[str, Sequence[Scores]], seed: int) -> list[Figure]:
    """A measure over all languages and in each; `scores` has, by arm, those of each of its seeds.

    Raises:
        UserError: no question was scored in all of them.
    """
    shared = sorted(set.intersection(*(set(one) for every in scores.values() for one in every)))
    if not shared:
        raise UserError(f"{measure}: the runs were not asked the same questions")
    languages = sorted({question.lang for question in shared})
    choices = (None, *languages) if len(languages) > 1 else (None,)
    return [_figure(measure, lang, [q for q in shared if lang in (None, q.lang)], scores, seed) for lang in choices]


def _figure(measure: str, lang: str | None, questions: list[Question], scores: Mapping[str, Sequence[Scores]], seed: int) -> Figure:
    keys, weights = [question.key for question in questions], equal_weights([question.lang for question in questions])
    tables = {arm: np.array([[one[question] for question in questions] for one in every]) for arm, every in scores.items()}
    estimates = {arm: estimate_mean(table.mean(axis=0).tolist(), keys, seed, weights) for arm, table in tables.items()}
    first, *others = tables
    differences = {
        arm: (estimates[arm].value - estimates[first].value, _difference(tables[first], tables[arm], keys, weights, seed)) for arm in others
    }
    return Figure(measure, lang, len(questions), estimates, differences)


def _difference(first: Floats, other: Floats, keys: list[str], weights: list[float], seed: int) -> Interval:
    if len(first) == len(other) == 1:
        return difference_interval(first[0].tolist(), other[0].tolist(), keys, seed, weights=weights)
    return seeds_and_prompts_interval(first, other, keys, weights, seed)


def _measures(run: RunFolder, role: str) -> dict[str, Scores]:
    """What the run has measured of a role, by name. Raises UserError when it has nothing of it."""
    found = {name: scores for name, scores in (*_answer_measures(run, role), *_benchmark_measures(run, role)) if scores}
    if not found:
        raise UserError(f"{run.root}: nothing was measured of {role!r}; its recipe has no `evaluate:` and no `benchmarks:` with it")
    return found


def _answer_measures(run: RunFolder, role: str) -> Iterator[tuple[str, Scores]]:
    evaluated = run.evaluation
    if not evaluated.info or role not in evaluated.info["evaluate"]["arms"]:
        return
    rows = finished_rows(evaluated, "verdicts")
    yield "in the wanted language", {asked(row): float(row[f"verdict_{role}"] == Verdict.RIGHT) for row in rows}
    if f"fits_{role}" in rows[0]:
        scored = [row for row in rows if row[f"fits_{role}"] is not None]
        yield "fits its own prompt best", {asked(row): float(row[f"fits_{role}"]) for row in scored}
    yield from _judged_measure(evaluated, role)


def _judged_measure(evaluated: RunFolder, role: str) -> Iterator[tuple[str, Scores]]:
    """What the judge prefers, if it can be believed."""
    info = evaluated.info
    judging, reference = info["evaluate"]["judge"], info["evaluate"]["reference"]
    if judging is None or role == reference:
        return
    failed = examine(finished_rows(RunFolder(evaluated.root / "examination"), "examined"), seed=0).why
    pairs = pair_up(verdicts_of(finished_rows(evaluated, "judged"), role, reference, judging["kind"]))
    if win_rate(pairs, seed=0, withheld=failed).rate:
        names = {name: model["name"] for name, model in info["models"].items()}
        model = names.get("base" if reference == "few_shot" else reference)
        yield _wins(f"{reference} ({model})" if model else reference, names["judge"], judging["kind"]), _preferences(pairs)


def asked(row: Row) -> Question:
    """The question of a row of `verdicts`."""
    return Question(row["prompt"], row["lang"], _digest(row["request"]))


def _posed(item: Item) -> Question:
    drawn = (item.max_tokens, item.temperature, item.top_p) if item.is_request else ()
    return Question(item.key, item.lang, _digest(repr((item.prompt, item.choices, drawn))))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _wins(reference: str, judge: str, kind: str) -> str:
    """The name of a measure: another judge, or another reference, is another one, which is not to be subtracted from this one."""
    return f"wins against {reference}, judged by {judge} ({kind})"


def _preferences(pairs: Iterable[Pair]) -> Scores:
    return {Question(pair.prompt, pair.lang): pair.preference for pair in pairs if pair.preference is not None}


def _benchmark_measures(run: RunFolder, role: str) -> Iterator[tuple[str, Scores]]:
    folder = run.benchmarks if run.benchmarks.info else run
    info = folder.info
    if "tasks" not in info or role not in info["models"]:
        return
    for task in asked_tasks(folder):
        answers = scored_answers(folder, task, role)
        for measure in task.benchmark.measures:
            having = [one for one in answers if measure in one.measures]
            yield f"{task.label} {measure}", {_posed(one.item): one.measures[measure] for one in having}
        if (found := read_judged(folder, task, role, seed=0)) and found.overall.rate:
            pairs = pair_up(verdicts_of(judged_rows(folder, task, role), role, "reference", found.kind))
            yield f"{task.label} {_wins(found.reference, found.judge, found.kind)}", _preferences(pairs)


def print_comparison(figures: Sequence[Figure], num_seeds: Mapping[str, int], console: Console) -> None:
    """The figures as one table; `num_seeds` has the arms, the one that they are compared with first."""
    first, *others = num_seeds
    table = Table(title=f"compared with {first}, on the same questions", title_justify="left", header_style="bold")
    for heading in ("measure", "language"):
        table.add_column(heading)
    named = [arm_text(arm, num) for arm, num in num_seeds.items()]
    for heading in ("n", *named, *(f"{arm} − {first}" for arm in others)):
        table.add_column(heading, justify="right")
    for figure in figures:
        estimates = map(estimate_text, figure.estimates.values())
        differences = itertools.starmap(difference_text, figure.differences.values())
        language = figure.lang or "all"
        table.add_row(figure.measure, language, f"{figure.num_questions:,}", *estimates, *differences, style="" if figure.lang else "bold")
    console.print(table)
    console.print(intervals_text(num_seeds), highlight=False)


def estimate_text(estimate: Estimate) -> str:
    """Such as `0.940 [0.808, 0.956]`."""
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def difference_text(value: float, interval: Interval) -> str:
    """Such as `-0.060 [-0.174, +0.073]`."""
    return f"{value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def arm_text(arm: str, num_seeds: int) -> str:
    """An arm's name, with its seeds where it has several."""
    return arm if num_seeds == 1 else f"{arm} ({num_seeds} seeds)"


def intervals_text(num_seeds: Mapping[str, int]) -> str:
    """What the intervals are over, and what they leave out."""
    several = max(num_seeds.values()) > 1
    seeds = "differences over training seeds too" if several else "of one training each: another seed may give another difference"
    return f"95 % intervals over questions, a question's languages together; {seeds}"


def plain_figures(figures: Sequence[Figure]) -> list[dict[str, object]]:
    """The figures for JSON."""
    return [asdict(figure) for figure in figures]
