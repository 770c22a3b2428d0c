"""Open-ended answers and the verdicts on them in AlpacaEval's files, for the tools that read those.

For each model and set of prompts, FOLDER/MODEL/SET/model_outputs.json, and annotations.json where a judge compared the answers with others;
as github.com/tatsu-lab/alpaca_eval writes them, with `lang` and `prompt` (its name in all languages) beside. `xl score winrate` reads the
annotations back, `xl eval --reference` the outputs.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from xl.evaluate import exam
from xl.evaluate.benchmarks.export import file_name
from xl.evaluate.benchmarks.judged import judged_rows, read_judged
from xl.evaluate.benchmarks.results import scored_answers
from xl.evaluate.benchmarks.run import asked_tasks
from xl.evaluate.judge import verdicts_of
from xl.evaluate.rows import finished_rows
from xl.evaluate.settings import Evaluate
from xl.evaluate.winrate import pair_up, win_rate
from xl.folder import RunFolder
from xl.recipe import checked
from xl.records import Row


@dataclass(frozen=True)
class Comparison:
    """Rows with the answers of `role` and of `reference`, and the verdicts on them; the names are for the files."""

    rows: Sequence[Row]
    role: str
    reference: str
    names: tuple[str, str, str]
    """Of the model, of the reference and of the judge."""
    kind: str
    """How the judge was asked: `ab` or `scores`."""
    withheld: str | None
    """Why the verdicts must not be believed, if so."""


@dataclass(frozen=True)
class Answered:
    """A model's answers to a set of prompts: rows with `prompt`, `lang`, `request` and `answer`."""

    model: str
    dataset: str
    rows: Sequence[Row]
    comparison: Comparison | None


def export_alpaca_eval(run: RunFolder, folder: Path, seed: int, console: Console) -> list[Path]:
    """Write what a run, an evaluation or a folder of benchmarks holds; returns the files.

    Verdicts that give no win rate are not written, which is said. `seed` is for the intervals that decide so.
    """
    written = []
    for one in (*_evaluated(run, seed), *_benchmarked(run, seed)):
        target = folder / file_name(one.model) / file_name(one.dataset)
        written.append(_write(target / "model_outputs.json", model_outputs(one)))
        if one.comparison is None:
            continue
        if one.comparison.withheld:
            console.print(f"{target}: no annotations.json: {one.comparison.withheld}", highlight=False)
        else:
            written.append(_write(target / "annotations.json", annotations(one)))
    return written


def model_outputs(answered: Answered) -> list[dict[str, Any]]:
    """One object an answer; the instruction is the request as the model was sent it."""
    return [
        {
            "instruction": row["request"],
            "output": row["answer"],
            "generator": answered.model,
            "dataset": answered.dataset,
            "lang": row["lang"],
            "prompt": row["prompt"],
        }
        for row in answered.rows
    ]


def annotations(answered: Answered) -> list[dict[str, Any]]:
    """One object a pair: the model is the second one, and `preference` goes from 1, the reference wins, to 2; null without a verdict.

    It is the pair's preference, as the win rate counts it. Identical answers are a tie there as here.
    """
    compared = answered.comparison
    assert compared is not None
    pairs = pair_up(verdicts_of(compared.rows, compared.role, compared.reference, compared.kind))
    model, reference, judge = compared.names
    other = compared.reference if compared.reference == "reference" else f"answer_{compared.reference}"
    return [
        {
            "instruction": row["request"],
            "output_1": row[other],
            "generator_1": reference,
            "output_2": row[f"answer_{compared.role}"],
            "generator_2": model,
            "dataset": answered.dataset,
            "annotator": judge,
            "preference": None if pair.preference is None else 1 + pair.preference,
            "lang": pair.lang,
            "prompt": pair.prompt,
        }
        for row, pair in zip(compared.rows, pairs, strict=True)
    ]


def _evaluated(run: RunFolder, seed: int) -> Iterator[Answered]:
    """The arms of a run's evaluation, or of one that stands alone."""
    evaluated = run.evaluation if run.evaluation.info else run
    info = evaluated.info
    if "evaluate" not in info:
        return
    settings = checked(Evaluate, info["evaluate"], str(evaluated.root / "run.json"))
    rows = finished_rows(evaluated, "verdicts")
    judged = finished_rows(evaluated, "judged") if settings.judge else []
    names = {arm: info["models"]["tuned" if arm == "tuned" else "base"]["name"] for arm in settings.arms}
    models: dict[str, str] = {arm: f"{name}_{arm}" if list(names.values()).count(name) > 1 else name for arm, name in names.items()}
    failed = exam.examine(finished_rows(RunFolder(evaluated.root / "examination"), "examined"), seed).why if settings.judge else None
    for arm in settings.arms:
        comparison = None
        if settings.judge and arm != settings.reference:
            reference = models.get(settings.reference, settings.reference)
            names_in_files = models[arm], reference, info["models"]["judge"]["name"]
            kind = settings.judge.kind
            withheld = win_rate(pair_up(verdicts_of(judged, arm, settings.reference, kind)), seed, failed).withheld
            comparison = Comparison(judged, arm, settings.reference, names_in_files, kind, withheld)
        yield Answered(models[arm], settings.prompts.source, _answers(rows, arm), comparison)


def _answers(rows: Iterable[Row], role: str) -> list[Row]:
    return [{**{name: row[name] for name in ("prompt", "lang", "request")}, "answer": row[f"answer_{role}"]} for row in rows]


def _benchmarked(run: RunFolder, seed: int) -> Iterator[Answered]:
    """The models' answers to the open-ended benchmarks of a run, or of a folder of benchmarks alone."""
    folder = run.benchmarks if run.benchmarks.info else run
    info = folder.info
    for task in asked_tasks(folder):
        if not task.benchmark.is_open:
            continue
        for role, model in info["models"].items():
            answers = [
                {"prompt": one.item.key, "lang": one.item.lang, "request": one.item.prompt, "answer": one.answer.text}
                for one in scored_answers(folder, task, role)
            ]
            comparison = None
            if found := read_judged(folder, task, role, seed):
                names = (model["name"], found.reference, found.judge)
                rows = judged_rows(folder, task, role)
                comparison = Comparison(rows, role, "reference", names, found.kind, found.overall.withheld)
            yield Answered(model["name"], task.label, answers, comparison)


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return path
