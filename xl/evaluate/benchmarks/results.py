"""What answered benchmarks come to: scores with their intervals, per language, per group and over all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from xl.evaluate.benchmarks.catalogue import BENCHMARKS
from xl.evaluate.benchmarks.consistency import Consistency, measure_consistency, pick, print_consistency
from xl.evaluate.benchmarks.judged import Judged, print_judged, read_judged
from xl.evaluate.benchmarks.run import answer_of, asked_tasks, to_item
from xl.evaluate.benchmarks.settings import Task
from xl.evaluate.benchmarks.task import Answer, Benchmark, Item
from xl.evaluate.identify import ANSWER_IDENTIFIERS, identifier
from xl.evaluate.intervals import Estimate, equal_weights, estimate_mean
from xl.evaluate.language import LanguageScore, answer_language, language_report
from xl.evaluate.rows import finished_rows
from xl.folder import RunFolder
from xl.pages.language import LANGUAGE_NAMES
from xl.records import Row
from xl.store import write_json


@dataclass(frozen=True)
class Scored:
    """An item, a model's answer to it, and what the answer is worth: nothing by any measure where it is not valid.

    Of the benchmark's `partial` measures, `measures` holds those that this answer has.
    """

    item: Item
    answer: Answer
    measures: dict[str, float]
    is_valid: bool


@dataclass(frozen=True)
class Score:
    """What a set of answers is worth. All counts are of questions in one language each."""

    num_items: int
    """Questions that were answered, and are in the score."""
    num_failed: int
    """Questions that were not answered (the engine failed) and are not in it; `--retry-failed` asks them again."""
    num_invalid: int
    """Answers that cannot be read as one; they score 0."""
    measures: dict[str, Estimate]
    """With 95 % intervals clustered by question over its languages; empty without answers."""
    num_measured: dict[str, int]
    """Answers in each measure: fewer than `num_items` where only some answers have it."""
    language: LanguageScore | None
    """How many written answers are in the question's language. Short ones cannot be told and are in no share; None where there are no
    answers in a language."""


@dataclass(frozen=True)
class SettingScore:
    """A setting that the paper reports apart: a language's score is the mean of its sources there, however many questions they have."""

    languages: dict[str, Score]
    mean: Score
    """Mean of the languages."""


@dataclass(frozen=True)
class Result:
    """A model's result on a benchmark."""

    name: str
    """What the recipe calls it: the benchmark's name, unless the recipe gives another."""
    task: str
    """The benchmark."""
    paper: str
    model: str
    """Its name in the recipe or on the command line."""
    role: str
    """The name that its stage bears."""
    num_shots: int
    notes: tuple[str, ...]
    languages: dict[str, Score]
    groups: dict[str, Score]
    """Over all languages, by subject or subtask; empty where there are none."""
    settings: dict[str, SettingScore]
    """Those of the benchmark's settings that its questions are of; empty where it has none."""
    mean: Score
    """Mean of the languages, each with the same weight however many questions it has."""
    consistency: Consistency | None
    """Whether languages agree on their options; None where there are none, and where no question is asked in all of several languages."""
    judged: Judged | None
    """How the answers fare against reference answers; None where they are not judged."""


def results(run: RunFolder, seed: int) -> list[Result]:
    """Score a finished folder of `run_benchmarks`, benchmark by benchmark and model by model. `seed` is for the intervals' draws."""
    info = run.info
    items = finished_rows(run, "items")
    found = []
    for task in asked_tasks(run):
        asked = [to_item(row) for row in items if row["task"] == task.label]
        for role, model in info["models"].items():
            found.append(_result(run, task, role, model["name"], asked, seed))
    return found


def scored_answers(run: RunFolder, task: Task, role: str) -> list[Scored]:
    """A model's answers to a benchmark's items, scored one by one: what comparisons of models pair up."""
    return [_scored(task.benchmark, row, role) for row in finished_rows(run, f"answers_{role}") if row["task"] == task.label]


def _scored(asked: Benchmark, row: Row, role: str) -> Scored:
    item, answer = to_item(row), answer_of(row, role)
    measures = asked.score(item, answer)
    nothing = {name: 0.0 for name in asked.measures if name not in asked.partial}
    return Scored(item, answer, dict(nothing if measures is None else measures), measures is not None)


def _result(run: RunFolder, task: Task, role: str, model: str, items: list[Item], seed: int) -> Result:
    asked, scored = task.benchmark, scored_answers(run, task, role)
    languages = list(dict.fromkeys(item.lang for item in items))
    groups = sorted({item.group for item in items} - {""})

    def score(lang: str | None = None, group: str | None = None, setting: str | None = None) -> Score:
        def is_in(item: Item) -> bool:
            return lang in (None, item.lang) and group in (None, item.group) and setting in (None, _setting(item))

        chosen, num_asked = [one for one in scored if is_in(one.item)], sum(map(is_in, items))
        return score_answers(asked.measures, chosen, num_asked, seed, by_group=setting is not None)

    def score_setting(setting: str) -> SettingScore:
        own = dict.fromkeys(item.lang for item in items if _setting(item) == setting)
        return SettingScore({lang: score(lang, setting=setting) for lang in own}, score(setting=setting))

    return Result(
        task.label,
        task.task,
        asked.paper,
        model,
        role,
        task.source(seed).num_shots,
        tuple(run.info["notes"][task.label]),
        {lang: score(lang=lang) for lang in languages},
        {group: score(group=group) for group in groups},
        {setting: score_setting(setting) for setting in asked.settings if setting in set(map(_setting, items))},
        score(),
        measure_consistency([pick(one.item, one.answer) for one in scored if one.item.choices], seed),
        read_judged(run, task, role, seed, controls_length=True),
    )


def _setting(item: Item) -> str:
    return item.group.partition(" ")[0]


def score_answers(measures: Sequence[str], scored: list[Scored], num_asked: int, seed: int, *, by_group: bool = False) -> Score:
    """What answers to `num_asked` questions are worth by these measures; every language has the same weight, and `by_group` every group of
    questions the same share of its language's."""
    measured = {name: [one for one in scored if name in one.measures] for name in measures}
    found = {name: _estimate_measure(name, having, seed, by_group) for name, having in measured.items() if having}
    num_measured = {name: len(having) for name, having in measured.items()}
    num_invalid = sum(not one.is_valid for one in scored)
    return Score(len(scored), num_asked - len(scored), num_invalid, found, num_measured, _language(scored))


def _estimate_measure(name: str, scored: Sequence[Scored], seed: int, by_group: bool) -> Estimate:
    groups = [one.item.group for one in scored] if by_group else None
    weights = equal_weights([one.item.lang for one in scored], groups)
    return estimate_mean([one.measures[name] for one in scored], [one.item.key for one in scored], seed, weights)


def _language(scored: Iterable[Scored]) -> LanguageScore | None:
    identifiers = [identifier(name) for name in ANSWER_IDENTIFIERS]
    written = [(one.item.answer_lang, one.answer.text) for one in scored if one.item.answer_lang]
    decisions = [(lang, answer_language(text, lang, identifiers)) for lang, text in written]
    return language_report(decisions, skips_are_misses=False).overall if decisions else None


def write_results(run: RunFolder, seed: int) -> list[Result]:
    """`results` of a finished folder, also written to its `results.json`."""
    found = results(run, seed)
    write_json(run.root / "results.json", [asdict(result) for result in found])
    return found


def print_results(found: Sequence[Result], console: Console) -> None:
    """One table a benchmark and model, and one of each setting and of its groups; below them what belongs beside the figures."""
    for result in found:
        names = list(BENCHMARKS[result.task].measures)
        title = f"{result.name} ({result.paper}), {result.model}, {result.num_shots} examples"
        console.print(_language_table(title, result.languages, result.mean, names))
        for setting, found_in in result.settings.items():
            console.print(_language_table(f"{setting}, a language as the mean of its sources", found_in.languages, found_in.mean, names))
        if result.groups:
            table = _table("over all languages", "group", names)
            for group, score in result.groups.items():
                table.add_row(group, *_cells(score, names))
            console.print(table)
        if result.consistency:
            print_consistency(result.consistency, console)
        if result.judged:
            print_judged(result.judged, result.name, result.model, console)
        for note in (*result.notes, *_warnings(result)):
            console.print(note, highlight=False)


def _language_table(title: str, languages: Mapping[str, Score], mean: Score, names: Sequence[str]) -> Table:
    table = _table(title, "language", names)
    for lang, score in languages.items():
        table.add_row(LANGUAGE_NAMES[lang], *_cells(score, names))
    table.add_section()
    table.add_row("mean of languages", *_cells(mean, names))
    return table


def _table(title: str, first: str, names: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column(first)
    for name in ("n", *(f"{name} [95 %]" for name in names), "invalid", "right language"):
        table.add_column(name, justify="right")
    return table


def _cells(score: Score, names: Sequence[str]) -> list[str]:
    measures = [_measure_cell(score, name) for name in names]
    return [f"{score.num_items:,}", *measures, f"{score.num_invalid:,}", _language_cell(score.language)]


def _measure_cell(score: Score, name: str) -> str:
    """Such as `57.3 [41.0, 72.1]`, and `of 40` behind it where fewer answers have the measure than there are."""
    estimate, num_measured = score.measures.get(name), score.num_measured[name]
    if estimate is None:
        return "–"
    share = "" if num_measured == score.num_items else f" of {num_measured:,}"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]{share}"


def _language_cell(score: LanguageScore | None) -> str:
    """Such as `0.93 of 45, 75 cannot be told`."""
    if score is None:
        return "–"
    skipped = f"{score.num_skipped:,} cannot be told"
    return skipped if score.accuracy is None else f"{score.accuracy:.2f} of {score.num_right + score.num_wrong:,}, {skipped}"


def _warnings(result: Result) -> Iterable[str]:
    if result.mean.num_failed:
        yield (
            f"{result.mean.num_failed:,} questions were not answered and are in no score; the ledger says why, --retry-failed asks again"
        )
