"""An evaluation: prompts to answers to verdicts, in a folder like a run's, with the same ledger and the same way to go on.

FOLDER/run.json               what is evaluated
FOLDER/stages/prompts/        one row for each prompt and language
FOLDER/stages/NAME/           contrasts, answers_ARM, fit, verdicts, judged, rubric
FOLDER/examination/           the judge's, if there is one
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from xl import folder
from xl.errors import UserError
from xl.evaluate import answers, exam
from xl.evaluate.judge import Judging, judge_pair, pair_settings, rate_answer, rubric_prompt
from xl.evaluate.prompts import PROMPT_SCHEMA, QUESTION_SEED, load_prompts
from xl.evaluate.rows import is_only_derived, model_settings, take_rows
from xl.evaluate.settings import Evaluate
from xl.folder import RunFolder, plain
from xl.pairs.contrasts import draw_contrasts
from xl.pipeline import Engines, Pipeline, Role
from xl.records import Row, row_seed
from xl.stage import RowStage, Stage
from xl.storage import make_folder
from xl.train.tokens import read_rows

SOURCE = "prompts"
"""Stands for how prompts are read: which there are does not count, more of them or one more language extend an evaluation."""

ROW_SCHEMA = PROMPT_SCHEMA.append(pa.field("scored", pa.bool_()))


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated."""

    settings: Evaluate
    languages: tuple[str, ...]
    seed: int
    roles: Mapping[str, Role]
    """`base`, `tuned` and `judge`, as far as they are wanted."""
    examples: Path | None = None
    """The dataset that the examples of the arm `few_shot` come from."""
    stands_alone: bool = False
    """Whether there is no run around it. A run that goes on training has the earlier model's answers made anew unasked; here they stay
    until the user says so."""


def run_evaluation(
    evaluation: Evaluation, run: RunFolder, engines: Engines, console: Console, *, redo: bool = False, retry_failed: bool = False
) -> None:
    """Evaluate, or go on evaluating. Ray must be initialised.

    Raises:
        UserError: the prompts, the settings, a model or the folder are for the user to mend.
    """
    loaded = load_prompts(evaluation.settings.prompts, evaluation.languages, QUESTION_SEED)
    if loaded.left_out:
        console.print(f"prompts: left out over all languages: {loaded.left_out}", highlight=False)
    stages = evaluation_stages(evaluation)
    make_folder(run.root)
    unasked = not evaluation.stands_alone and is_only_derived(run, stages)
    cleared = folder.check_fingerprints(run, stages, SOURCE, {}, redo or unasked, kept=("prompts",))
    if cleared:
        console.print(f"evaluation: redoing {', '.join(cleared)}", highlight=False)
    _note(evaluation, run, stages)
    if evaluation.settings.judge:
        examination = RunFolder(run.root / "examination")
        examine_judge(evaluation.settings.judge, evaluation.roles["judge"], evaluation.seed, examination, engines, console)
    pipeline = Pipeline(run, stages, evaluation.roles, evaluation.seed, SOURCE, engines, console, retry_failed)
    take_rows(pipeline, _prepared(loaded.rows, evaluation), ROW_SCHEMA)


def _prepared(rows: list[Row], evaluation: Evaluation) -> list[Row]:
    """The rows with the style behind their requests, and with a column that says whose answers are scored for `fit`: those to prompts
    that a seeded hash puts first."""
    settings = evaluation.settings
    prompts = sorted({row["prompt"] for row in rows}, key=lambda prompt: row_seed(QUESTION_SEED, prompt, "fit"))
    scored = set(prompts[: settings.num_fit_prompts])
    return [{**row, "request": " ".join(filter(None, (row["request"], settings.style))), "scored": row["prompt"] in scored} for row in rows]


def evaluation_stages(evaluation: Evaluation) -> list[Stage]:
    """Everything after the prompts."""
    settings = evaluation.settings
    plan: list[Stage] = []
    if settings.num_others:
        plan.append(draw_contrasts(settings.num_others, QUESTION_SEED))
    examples = _examples(evaluation)
    for arm in settings.arms:
        role = "tuned" if arm == "tuned" else "base"
        chosen = {name: getattr(settings, name) for name in ("num_examples", "max_example_chars")}
        shown = {"examples": plain(examples), **chosen} if arm == "few_shot" else {}
        names = ("max_tokens", "temperature", "top_p", "repetition_penalty")
        wanted = {"sampling": {name: getattr(settings, name) for name in names}, **_asked(evaluation, role), **shown}
        plan.append(RowStage(f"answers_{arm}", (answers.answer(arm, settings, examples),), answers.answer_schema(arm), wanted, role))
    if settings.num_others:
        wanted = {name: getattr(settings, name) for name in ("fit_tokens", "num_fit_prompts")} | _asked(evaluation, "base")
        plan.append(RowStage("fit", (answers.fit(settings),), answers.fit_schema(settings.arms), wanted, "base"))
    wanted = {"identifiers": list(settings.identifiers)}
    plan.append(RowStage("verdicts", (answers.look_at(settings),), answers.verdict_schema(settings.arms), wanted))
    # Before the judging: an answer that no judge could judge is in a language all the same.
    plan += _judging(evaluation)
    return plan


def _judging(evaluation: Evaluation) -> Iterator[RowStage]:
    """Pairwise verdicts on each arm against the reference, and the rubric's scores."""
    settings = evaluation.settings
    if settings.judge is None:
        return
    wanted = {**pair_settings(settings.judge), "reference": settings.reference, **_asked(evaluation, "judge")}
    pairs = [judge_pair(settings.judge, arm, settings.reference) for arm in settings.arms if arm != settings.reference]
    yield RowStage("judged", tuple(step for step, _ in pairs), _joined([schema for _, schema in pairs]), wanted, "judge")
    if settings.judge.rubric:
        rated = [rate_answer(settings.judge, arm) for arm in settings.arms]
        wanted = {"max_answer_chars": settings.judge.max_answer_chars, "prompts": rubric_prompt().wordings, **_asked(evaluation, "judge")}
        yield RowStage("rubric", tuple(step for step, _ in rated), _joined([schema for _, schema in rated]), wanted, "judge")


def _joined(schemas: list[pa.Schema]) -> pa.Schema:
    return pa.schema([field for schema in schemas for field in schema])


def _asked(evaluation: Evaluation, role: str) -> dict[str, Any]:
    is_own = role == "tuned" and not evaluation.stands_alone
    return model_settings(evaluation.roles[role], evaluation.seed, is_own=is_own)


def _examples(evaluation: Evaluation) -> answers.Examples:
    if "few_shot" not in evaluation.settings.arms:
        return {}
    if evaluation.examples is None:
        raise UserError("evaluate.arms: `few_shot` wants a dataset that its examples come from")
    examples = answers.draw_examples(read_rows(evaluation.examples), evaluation.settings, evaluation.seed)
    if missing := [lang for lang in evaluation.languages if lang not in examples]:
        raise UserError(f"evaluate.arms: `few_shot` wants examples, and {evaluation.examples} holds no pair in {', '.join(missing)}")
    return examples


def _note(evaluation: Evaluation, run: RunFolder, stages: list[Stage]) -> None:
    info = {
        "created": time.strftime("%Y-%m-%d %H:%M"),
        **run.info,
        "evaluate": evaluation.settings.model_dump(mode="json", by_alias=True),
        "languages": list(evaluation.languages),
        "environment": folder.environment(),
        "models": {role: {"name": m.model, "digest": found.digest} for role, (m, found) in evaluation.roles.items()},
        "stages": ["prompts", *(stage.name for stage in stages)],
    }
    run.write_info(info)


def examine_judge(judging: Judging, judge: Role, seed: int, run: RunFolder, engines: Engines, console: Console) -> None:
    """Have a judge compare sound answers with ones that have planted errors; `xl.evaluate.exam` marks the stage `examined`."""
    step, verdicts = judge_pair(judging, "sound", "planted")
    rows = exam.exam_rows()
    wanted = {**pair_settings(judging), **model_settings(judge, seed)}
    stages: list[Stage] = [RowStage("examined", (step,), verdicts, wanted, "judge")]
    make_folder(run.root)
    # Another judge is another examination; the old one is nobody's work.
    folder.check_fingerprints(run, stages, SOURCE, {}, redo=True, kept=("prompts",))
    run.write_info({**run.info, "stages": ["prompts", "examined"]})
    schema = pa.schema([(name, pa.string()) for name in rows[0]])
    take_rows(Pipeline(run, stages, {"judge": judge}, seed, SOURCE, engines, console), rows, schema)
