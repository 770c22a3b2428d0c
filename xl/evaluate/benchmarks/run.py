"""Benchmarks at work: questions to answers, in a folder like a run's, with the same ledger and the same way to go on.

FOLDER/run.json               which benchmarks, languages and models
FOLDER/stages/items/          one row for each question and language
FOLDER/stages/answers_MODEL/  what each model makes of them

Answers are scored when they are read (`results`): a score depends on nothing but the item and the answer beside it.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pyarrow as pa
from rich.console import Console

from xl import folder
from xl.ask import AsyncStep, Columns, Context, Drop, Engine, Message, Request, Sampling
from xl.errors import UserError
from xl.evaluate.benchmarks.references import read_references
from xl.evaluate.benchmarks.settings import Task
from xl.evaluate.benchmarks.task import Answer, Item, likeliest
from xl.evaluate.prompts import QUESTION_SEED
from xl.evaluate.rows import is_only_derived, model_settings, take_rows
from xl.folder import RunFolder, plain
from xl.pipeline import Engines, Pipeline, Role
from xl.records import Row, record_key, row_id, row_seed, seeded_rank
from xl.stage import RowStage, Stage
from xl.storage import make_folder
from xl.train.prompts import completion_prompt

SOURCE = "items"
"""Stands for how items are read: which there are does not count, more of them or one more language extend what is there."""

ITEM_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "task", "key", "lang", "group", "prompt", "text", "question", "answer_lang")),
        *((name, pa.list_(pa.string())) for name in ("gold", "choices", "stop")),
        ("max_tokens", pa.int64()),
        ("is_request", pa.bool_()),
        *((name, pa.float64()) for name in ("temperature", "top_p")),
    ]
)
"""An `Item`, the label of its benchmark, and a row's id."""


@dataclass(frozen=True)
class Benchmarking:
    """Which benchmarks are asked in which languages, and of which models."""

    tasks: tuple[Task, ...]
    languages: tuple[str, ...]
    """For those that name no languages of their own."""
    seed: int
    """Draws the answers where they are not the likeliest."""
    roles: Mapping[str, Role]
    """The models by the name that their stage and their results bear, such as `base` and `tuned`."""
    judge: Role | None = None
    """Compares open-ended answers with reference answers, where a benchmark has some."""
    question_seed: int = QUESTION_SEED
    """Draws the examples in the prompts, and which questions are asked where there is a limit."""


def run_benchmarks(
    wanted: Benchmarking, run: RunFolder, engines: Engines, console: Console, *, redo: bool = False, retry_failed: bool = False
) -> None:
    """Ask all models all items, or go on asking. Ray must be initialised.

    Raises:
        UserError: a benchmark's files, the settings, a model or the folder are for the user to mend.
    """
    rows, notes = read_items(wanted)
    for task in wanted.tasks:
        if task.reference:  # a mistake in it must not show only when all is answered
            read_references(task.reference, task.languages or wanted.languages)
    stages: list[Stage] = [_answers(name, role, wanted.seed) for name, role in wanted.roles.items()]
    make_folder(run.root)
    _refuse_other_tasks(wanted, run, redo)
    cleared = folder.check_fingerprints(run, stages, SOURCE, {}, redo or is_only_derived(run, stages), kept=("items",))
    if cleared:
        console.print(f"benchmarks: redoing {', '.join(cleared)}", highlight=False)
    _note(wanted, run, stages, notes)
    pipeline = Pipeline(run, stages, wanted.roles, wanted.seed, SOURCE, engines, console, retry_failed)
    take_rows(pipeline, rows, ITEM_SCHEMA, "items", ("task", "lang"))


def read_items(wanted: Benchmarking) -> tuple[list[Row], dict[str, list[str]]]:
    """The rows to be asked, in the columns of `ITEM_SCHEMA`, and the notes of each benchmark.

    In every language they come in one seeded order of the keys, so that a limit takes the same questions in all of them, and a higher
    one adds some without touching the others. Raises UserError.
    """
    rows: list[Row] = []
    notes: dict[str, list[str]] = {}
    for task in wanted.tasks:
        languages = task.languages or wanted.languages
        source = task.source(wanted.question_seed)
        loaded = task.benchmark.load(source, languages)
        notes[task.label] = list(loaded.notes)
        if task.benchmark.is_open:
            drawn = f"temperature {source.temperature:g}, top-p {source.top_p:g}, at most {source.max_tokens:,} tokens"
            notes[task.label].append(f"answers drawn at {drawn}")
        if task.style:
            notes[task.label].append(f"every request ends with: {task.style}")
        if task.output_type == "generate_until":
            notes[task.label].append("options chosen in writing: an answer that names no option, or several, is invalid and wrong")
        for lang in languages:
            items = [item for item in loaded.items if item.lang == lang]
            if not items:
                raise UserError(f"{task.from_}: {task.task} has no question in {lang}")
            if len({item.key for item in items}) < len(items):
                raise UserError(f"{task.from_}: {task.task} has a question in {lang} twice; their names must differ")
            items.sort(key=lambda item: seeded_rank(wanted.question_seed, item.key))
            rows += [to_row(task.label, task.styled(item)) for item in items[: task.limit]]
    return rows, notes


def asked_tasks(run: RunFolder) -> list[Task]:
    """The benchmarks that a folder was last asked for."""
    return [Task.model_validate(settings) for settings in run.info.get("tasks", ())]


def to_row(label: str, item: Item) -> Row:
    """An item as a row of the benchmark with this label."""
    return {"id": row_id(label, record_key(item.key, item.lang), 0), "task": label, **plain(asdict(item))}


def to_item(row: Row) -> Item:
    """Inverse of `to_row`."""
    values: dict[str, Any] = {}
    for field in fields(Item):
        value = row[field.name]
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return Item(**values)


def answer_of(row: Row, model: str) -> Answer:
    """A model's answer in a row of its stage or of a later one."""
    return Answer(row[f"answer_{model}"], tuple(row[f"logprobs_{model}"] or ()))


def _answers(name: str, role: Role, seed: int) -> RowStage:
    columns = [(f"answer_{name}", pa.string()), (f"finish_{name}", pa.string()), (f"logprobs_{name}", pa.list_(pa.float64()))]
    return RowStage(f"answers_{name}", (_ask(name),), pa.schema(columns), model_settings(role, seed, is_own=name == "tuned"), name)


def _ask(name: str) -> AsyncStep:
    """Have the model write, or have it score each choice where nothing is to be written."""

    async def step(row: Row, context: Context) -> Columns | Drop | None:
        assert context.engine is not None, "answers need an engine"
        item, ask = to_item(row), f"answers_{name}"
        if item.choices and not item.max_tokens:
            answer, finish = await _choose(item, ask, context.engine, context)
        else:
            answer, finish = await _write(item, ask, row_seed(context.seed, row["id"], "answer"), context.engine, context)
        return {f"answer_{name}": answer.text, f"finish_{name}": finish, f"logprobs_{name}": list(answer.logprobs)}

    return step


async def _write(item: Item, ask: str, seed: int, engine: Engine, context: Context) -> tuple[Answer, str]:
    sampling = Sampling(item.max_tokens, item.temperature, item.top_p)
    message = Message("user", item.prompt)
    if engine.chat:
        request = Request(sampling, seed, messages=(message,))
    else:
        prompt = completion_prompt([message]) if item.is_request else item.prompt
        request = Request(replace(sampling, stop=item.stop), seed, prompt=prompt)
    completion = await engine.complete(request)
    context.count(ask, completion.prompt_tokens, completion.output_tokens)
    return Answer(completion.text.strip()), completion.finish_reason


async def _choose(item: Item, ask: str, engine: Engine, context: Context) -> tuple[Answer, str]:
    # A byte is at least a token, so that nothing is cut off.
    scores = await asyncio.gather(*(engine.score(item.prompt, choice, len(choice.encode())) for choice in item.choices))
    context.count(ask, sum(score.prompt_tokens for score in scores), 0)
    logprobs = tuple(sum(score.logprobs) for score in scores)
    return Answer(likeliest(item, logprobs), logprobs), "scored"


def _refuse_other_tasks(wanted: Benchmarking, run: RunFolder, redo: bool) -> None:
    """Refuse a benchmark that is asked otherwise than it was begun. More questions, languages or benchmarks are no reason, nor is
    a file that was moved: what it says decides."""
    before = {task.label: task for task in asked_tasks(run)}
    for task in wanted.tasks:
        begun, now = (
            plain(one.model_dump(mode="json", by_alias=True, exclude={"name", "from_", "languages", "limit", "reference"}))
            for one in (before.get(task.label, task), task)
        )
        changed = list(folder.differences(task.label, begun, now))
        if changed and not redo:
            raise UserError(
                f"{run.root} was begun with other settings: {'; '.join(changed)}. Use --redo to ask those questions anew, or another --out"
            )


def _note(wanted: Benchmarking, run: RunFolder, stages: Sequence[Stage], notes: Mapping[str, list[str]]) -> None:
    info: dict[str, Any] = {
        "created": time.strftime("%Y-%m-%d %H:%M"),
        **run.info,
        "tasks": [task.model_dump(mode="json", by_alias=True) for task in wanted.tasks],
        "notes": notes,
        "seed": wanted.seed,
        "environment": folder.environment(),
        "models": {name: {"name": model.model, "digest": found.digest} for name, (model, found) in wanted.roles.items()},
        "stages": ["items", *(stage.name for stage in stages)],
    }
    run.write_info(info)
