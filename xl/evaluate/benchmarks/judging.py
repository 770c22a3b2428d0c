"""Judging at work: a model's answers to open-ended benchmarks, held against reference answers by a judge that is examined first.

FOLDER/judged/examination_KIND/   the judge's, for each way to be asked
FOLDER/judged/TASK_MODEL/         each request with both answers, and the verdicts in both orders

The answers are read from the finished benchmarks: another judge or other references redo no answer.
"""

import pyarrow as pa
from rich.console import Console

from xl import folder
from xl.errors import UserError
from xl.evaluate.benchmarks.judged import examination_folder, judged_folder
from xl.evaluate.benchmarks.references import References, read_references
from xl.evaluate.benchmarks.results import scored_answers
from xl.evaluate.benchmarks.run import Benchmarking
from xl.evaluate.benchmarks.settings import Task
from xl.evaluate.benchmarks.task import Item
from xl.evaluate.identify import ANSWER_IDENTIFIERS, identifier
from xl.evaluate.judge import Judging, judge_pair, pair_settings
from xl.evaluate.language import Verdict, answer_language
from xl.evaluate.rows import model_settings, take_rows
from xl.evaluate.run import examine_judge
from xl.folder import RunFolder
from xl.pages.language import LANGUAGE_NAMES
from xl.pipeline import Engines, Pipeline, Role
from xl.records import Row, record_key, row_id
from xl.stage import RowStage, Stage
from xl.storage import make_folder

SOURCE = "answers"
"""Stands for how the requests and answers are read: which there are does not count."""

REFERENCE = "reference"


def row_schema(role: str) -> pa.Schema:
    """Columns of the rows that are judged; `prompt` names a request in all languages."""
    texts = ("id", "lang", "language", "prompt", "instruction", "request", f"answer_{role}", REFERENCE)
    flags = (f"in_language_{role}", f"in_language_{REFERENCE}")
    return pa.schema([*((name, pa.string()) for name in texts), *((name, pa.bool_()) for name in flags)])


def judge_answers(
    wanted: Benchmarking, run: RunFolder, engines: Engines, console: Console, *, redo: bool = False, retry_failed: bool = False
) -> None:
    """Have the answers judged of all benchmarks that have references, after `run_benchmarks` in the same folder.

    Raises:
        UserError: a file of references cannot be read or fits no answer, or the judge is another one than at the beginning.
    """
    references = {
        task.label: read_references(task.reference, task.languages or wanted.languages) for task in wanted.tasks if task.reference
    }
    if not references:
        return
    judge = wanted.judge
    assert judge is not None, "settings with a reference want a judge"
    pairs = [(task, role) for task in wanted.tasks if task.label in references for role in wanted.roles]
    stages = [_stage(task, role, judge, wanted.seed) for task, role in pairs]
    for (task, role), stage in zip(pairs, stages, strict=True):  # before another judge's examination replaces this one's
        folder.check_fingerprints(judged_folder(run, task, role), [stage], SOURCE, {}, redo, kept=("prompts",))
    for kind in dict.fromkeys(task.benchmark.judge_kind for task, _ in pairs):
        examine_judge(Judging(kind=kind), judge, wanted.seed, examination_folder(run, kind), engines, console)
    for (task, role), stage in zip(pairs, stages, strict=True):
        rows, num_without = _rows(run, task, role, references[task.label])
        compared = judged_folder(run, task, role)
        names = {REFERENCE: references[task.label].name, "judge": judge[0].model}
        counts = {"num_compared": len(rows), "num_without_reference": num_without}
        make_folder(compared.root)
        compared.write_info({**compared.info, **names, **counts, "stages": ["prompts", "judged"]})
        plan: list[Stage] = [stage]
        take_rows(Pipeline(compared, plan, {"judge": judge}, wanted.seed, SOURCE, engines, console, retry_failed), rows, row_schema(role))


def _stage(task: Task, role: str, judge: Role, seed: int) -> RowStage:
    judging = Judging(kind=task.benchmark.judge_kind, max_answer_chars=task.max_answer_chars)
    step, verdicts = judge_pair(judging, role, REFERENCE)
    settings = {**pair_settings(judging), **model_settings(judge, seed)}
    return RowStage("judged", (step,), verdicts, settings, "judge")


def _rows(run: RunFolder, task: Task, role: str, references: References) -> tuple[list[Row], int]:
    """The requests with both answers, and how many lack a reference answer. Raises UserError where all do."""
    rows = []
    answers = scored_answers(run, task, role)
    for one in answers:
        reference = references.answer(one.item, task.style or "")
        if reference is not None:
            rows.append(_row(task.label, one.item, role, one.answer.text, reference))
    if not rows:
        raise UserError(f"{task.reference}: no `instruction` in it is one of {task.task}'s, as it was sent or without its language")
    return rows, len(answers) - len(rows)


def _row(label: str, item: Item, role: str, answer: str, reference: str) -> Row:
    return {
        "id": row_id(label, record_key(item.key, item.lang), 0),
        "lang": item.lang,
        "language": LANGUAGE_NAMES[item.lang],
        "prompt": item.key,
        "instruction": item.text,
        "request": item.prompt,
        f"answer_{role}": answer,
        REFERENCE: reference,
        f"in_language_{role}": _in_language(answer, item.lang),
        f"in_language_{REFERENCE}": _in_language(reference, item.lang),
    }


def _in_language(text: str, lang: str) -> bool | None:
    """None where it cannot be told, which no answer loses by."""
    verdict = answer_language(text, lang, [identifier(name) for name in ANSWER_IDENTIFIERS]).verdict
    return None if verdict is Verdict.SKIPPED else verdict is Verdict.RIGHT
