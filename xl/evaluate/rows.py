"""Rows that are made here (prompts, questions) instead of read: put down as a sealed first stage, then taken through a pipeline.

A model's settings, as the stages that ask it remember them, are worded here too, so that every evaluation words them alike.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from xl import folder
from xl.errors import UserError
from xl.folder import RunFolder
from xl.pipeline import Engines, Pipeline, Role
from xl.records import Row, Status, digest_of, row_digest
from xl.settings import semantic
from xl.stage import Stage
from xl.storage import make_folder
from xl.store import InputShard, StageStore, write_json
from xl.train.roles import Exam

DERIVED = ("weights", "examples")
"""Settings of stages that follow from the run itself: when its dataset or its model is another one, the answers are made anew unasked."""

EXAM = "exam"
"""Stage that holds the rows of an exam."""

_ROWS_PER_SHARD = 1000


def take_rows(
    pipeline: Pipeline, rows: list[Row], schema: pa.Schema, stage: str = "prompts", shard_by: tuple[str, ...] = ("lang",)
) -> None:
    """Put the rows down as a sealed stage of that name and take them through the pipeline.

    What is known of a row is looked for in its shard alone: rows that agree in the columns `shard_by` must keep their order when there
    are more of them next time, or some are asked again.
    """
    from xl.worker import FromStage

    store = pipeline.run.store(stage)
    shards = _seal(store, rows, schema, shard_by)
    # Shards are found by this list; rows that are no longer asked keep their files and are in no count.
    write_json(pipeline.run.manifest / "manifest.json", {"shards": [[{"name": shard.name} for shard in shards]]})
    pipeline.take(FromStage(store), shards, schema)


def _seal(store: StageStore, rows: list[Row], schema: pa.Schema, shard_by: tuple[str, ...]) -> list[InputShard]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault("-".join(row[name] for name in shard_by), []).append(row)
    shards: list[InputShard] = []
    for group, every in sorted(groups.items()):
        for number, start in enumerate(range(0, len(every), _ROWS_PER_SHARD)):
            part = every[start : start + _ROWS_PER_SHARD]
            digests = [row_digest(row) for row in part]
            fates = [
                {**row, "status": Status.KEPT.value, "reason": None, "_input": digest, "_usage": []}
                for row, digest in zip(part, digests, strict=True)
            ]
            shards.append(store.write(f"{group}-{number:05d}", digest_of(digests), fates, schema).as_input())
    return shards


def take_exam(exam: Exam, root: Path, role: str, player: Role, seed: int, engines: Engines, console: Console) -> None:
    """Ask a model that the run made about rows whose answer is known, in a folder like a run's; another model is asked anew.

    Raises:
        UserError: the engine cannot work, or all rows failed.
    """
    run = RunFolder(root)
    stage = replace(exam.stage, model=role, settings={**exam.stage.settings, "digest": player[1].digest})
    make_folder(root)
    folder.check_fingerprints(run, [stage], EXAM, {}, redo=True, kept=(EXAM,))
    run.write_info({"stages": [EXAM, stage.name]})
    take_rows(Pipeline(run, [stage], {role: player}, seed, EXAM, engines, console), list(exam.rows), exam.schema, EXAM)


def finished_rows(run: RunFolder, stage: str) -> list[Row]:
    """All rows that a stage of an evaluation kept.

    Raises:
        UserError: the stage is not finished.
    """
    from xl.summary import shard_names

    store, shards = run.store(stage), shard_names(run)
    if not (run.manifest / "manifest.json").exists() or not all(store.path(shard).exists() for shard in shards):
        raise UserError(f"{run.root} is not finished; run the same command again, it goes on where it stopped")
    return [row for shard in shards for row, _ in store.kept(shard)]


def model_settings(role: Role, seed: int, *, is_own: bool = False) -> dict[str, Any]:
    """What an answer depends on through the model that is asked, and through the run's seed; `is_own`: the run has tuned it itself."""
    model, resolved = role
    known = {"model": "the run's own", "weights": resolved.digest} if is_own else {"digest": resolved.digest}
    return {"model": semantic(model) | known, "seed": seed}


def is_only_derived(run: RunFolder, stages: list[Stage]) -> bool:
    """Whether what differs from the begun evaluation follows from the run's own dataset and model alone."""
    changed = [key.split(":")[0].split(".") for keys in folder.changed_keys(run, stages).values() for key in keys]
    return bool(changed) and all(any(part in DERIVED for part in parts) for parts in changed)
