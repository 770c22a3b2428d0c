"""Models that a run makes for itself before it asks them: a base model, tuned on rows that the method gives or that the run has made."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from xl.engines.models import ResolvedModel, prepare
from xl.folder import plain
from xl.records import Row, digest_of, row_digest
from xl.settings import semantic
from xl.stage import RowStage
from xl.store import read_json, write_atomically
from xl.train.job import has_model
from xl.train.precision import with_precision
from xl.train.settings import Train
from xl.train.tokens import dataset_digest
from xl.train.trainer import TrainResult, train


@dataclass(frozen=True)
class Lessons:
    """Rows of the run itself that a model learns from: those that a stage kept."""

    stage: str
    teach: Callable[[Row], Row | None]
    """What is learned from a row; None for one that teaches nothing."""
    settings: Mapping[str, Any]
    """What decides the lessons, beside the pages: so that the model has a digest before they are there."""


@dataclass(frozen=True)
class Exam:
    """What a model is asked once it is made, to see what it has learned: rows whose answer is known, and the stage that asks."""

    rows: tuple[Row, ...]
    schema: pa.Schema
    stage: RowStage


@dataclass(frozen=True)
class RoleTraining:
    """What a role's model is made of: rows in the columns of a dataset (`xl.train.tokens.COLUMNS`, with `request`)."""

    base: ResolvedModel
    rows: tuple[Row, ...]
    settings: Train
    lessons: Lessons | None = None
    """More rows, made by the run on its way to the stage that asks this model. Without any the model is not made, and not asked."""
    exam: Exam | None = None
    remark: str | None = None
    """What users should read about the rows."""

    @property
    def amount(self) -> str:
        """How much is learned, in words."""
        return f"{len(self.rows):,} rows" + (f" ({self.remark})" if self.remark else "")

    @property
    def digest(self) -> str:
        """Of the model that comes out, known before it is made: a hash of all that goes in, or of what decides it."""
        made_of = [self.base.digest, plain(semantic(self.settings)), digest_of([row_digest(row) for row in self.rows])]
        if self.lessons:
            made_of.append(plain(self.lessons.settings))
        return "tuned:" + hashlib.blake2b(json.dumps(made_of, sort_keys=True).encode(), digest_size=16).hexdigest()

    def taught(self, kept: Iterable[Row]) -> "RoleTraining | None":
        """The training with its lessons among its rows, given what their stage kept; None when that teaches nothing."""
        assert self.lessons is not None
        learned = [lesson for row in kept if (lesson := self.lessons.teach(row)) is not None]
        return replace(self, rows=(*self.rows, *learned), lessons=None) if learned else None

    def model(self, folder: Path) -> ResolvedModel:
        """The model that `make_model` puts into this folder. It takes chat messages, as every exported model does."""
        path = str((folder / "training" / "model").absolute())
        return replace(self.base, name=f"{self.base.name}, tuned", path=path, digest=self.digest, chat=True, revision="main")


def make_model(training: RoleTraining, folder: Path, make_room: Callable[[Train], None], console: Console) -> None:
    """Make a role's model unless it is there. Ray must be initialised.

    FOLDER/pairs.jsonl      what it is trained on
    FOLDER/training/        the training

    Raises:
        UserError: the rows or the settings cannot be trained on.
    """
    dataset = folder / "pairs.jsonl"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in training.rows)
    if not dataset.exists() or dataset.read_text("utf-8") != lines:
        write_atomically(dataset, lambda path: path.write_text(lines, "utf-8"))
    train_anew_if_changed(dataset, training.base, folder / "training", training.settings, make_room, console)


def train_anew_if_changed(
    dataset: Path, base: ResolvedModel, out: Path, settings: Train, make_room: Callable[[Train], None], console: Console
) -> TrainResult:
    """Train, go on training, or do nothing; a model of another dataset, base or settings is made anew.

    `make_room` is called with the settings before anything is trained. Raises UserError.
    """
    prepare(base)
    before = read_json(out / "train.json")
    settings = with_precision(settings, before)
    now = plain({"model": base.digest, "dataset": dataset_digest(dataset), "train": semantic(settings)})
    if before != now or not has_model(out):
        make_room(settings)
    return train(dataset, base, out, settings, fresh=before is not None and before != now, console=console)
