"""Checkpoints: everything that a training needs to go on as if nothing had happened.

    checkpoints/step-00000100/progress.json    step, workers, ZeRO stage; the marker that the folder is whole
    checkpoints/step-00000100/state/           DeepSpeed: weights, master weights, moments
    checkpoints/step-00000100/universal/       the same for any number of workers, made when one is wanted

The learning rate, the place in the data and the random numbers of a step are functions of (seed, step): `step` restores them all, with any
number of workers. A folder is written aside and put in place by one rename, so what has a `progress.json` is whole.
"""

import contextlib
import io
import json
import os
import shutil
from argparse import Namespace
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.filesize import decimal

from xl.errors import UserError
from xl.folder import free_bytes
from xl.train.job import Job
from xl.train.settings import Train

_CONVERTIBLE = ((0,), (1, 2), (3,))
"""ZeRO stages among which the universal format carries a checkpoint over; across these, DeepSpeed 0.19 finds no weights."""


@dataclass(frozen=True)
class Progress:
    """How far a training has come, and how its workers shared the state out."""

    step: int
    num_documents: int
    """Documents learned so far, counted once per epoch: the place in the data."""
    seed: int
    workers: int
    zero: int


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    whole = [path for path in folder.glob("step-*") if (path / "progress.json").exists()]
    return max(whole, default=None, key=lambda path: int(path.name.removeprefix("step-")))


def read_progress(checkpoint: Path) -> Progress:
    """What a checkpoint says of itself."""
    return Progress(**json.loads((checkpoint / "progress.json").read_text("utf-8")))


def save(engine: Any, folder: Path, progress: Progress, keep: int) -> None:
    """Write a checkpoint and drop all but the newest `keep`. All workers must call it."""
    aside = folder / ".writing"
    if torch.distributed.get_rank() == 0:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    torch.distributed.barrier()
    engine.save_checkpoint(str(aside), tag="state", save_latest=False, exclude_frozen_parameters=True)
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        (aside / "progress.json").write_text(json.dumps(asdict(progress)), "utf-8")
        _sync(aside)
        target = folder / f"step-{progress.step:08d}"
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
        for old in sorted(folder.glob("step-*"))[:-keep]:
            shutil.rmtree(old)
    torch.distributed.barrier()


def check_room(engine: Any, job: Job) -> None:
    """Refuse to begin a training whose checkpoints and model will not find room. All workers must call it.

    A checkpoint holds 16 bytes a trained parameter: weights, master weights and two moments in fp32. One more than `keep` exist for a
    moment. The model is written whole, from LoRA too.

    Raises:
        UserError: the disk is too full.
    """
    counted = [(getattr(one, "ds_numel", one.numel()), one.requires_grad) for one in engine.module.model.parameters()]
    num_checkpoints = max(1, job.settings.keep + 1 - len(list(job.checkpoints.glob("step-*"))))
    need = num_checkpoints * 16 * sum(size for size, is_trained in counted if is_trained)
    need += (2 if job.settings.precision == "bf16" else 4) * sum(size for size, _ in counted)
    free = [free_bytes(job.out)]
    torch.distributed.broadcast_object_list(free)
    if need > free[0]:
        amounts = f"the training needs about {decimal(need)} for its checkpoints and its model, and {decimal(free[0])} are free"
        raise UserError(f"{job.out}: {amounts}; free some space, choose another folder, or keep fewer checkpoints (train.keep)")


def needs_universal(progress: Progress, settings: Train, workers: int) -> bool:
    """Whether a checkpoint must be converted before these workers can read it.

    Raises:
        UserError: DeepSpeed cannot carry it over to this ZeRO stage.
    """
    written, wanted = (next(family for family in _CONVERTIBLE if zero in family) for zero in (progress.zero, settings.zero))
    if written != wanted:
        stages = " or ".join(map(str, written))
        raise UserError(f"train.zero: the checkpoint at step {progress.step} can be continued with zero: {stages}, not {settings.zero}")
    return settings.zero > 0 and (progress.workers, progress.zero) != (workers, settings.zero)


def to_universal(checkpoint: Path) -> None:
    """Convert a checkpoint for any number of workers, unless that is done (Universal Checkpointing, arXiv 2406.18820).

    One worker's task.
    """
    from deepspeed.checkpoint import ds_to_universal

    target = checkpoint / "universal"
    if target.exists():
        return
    aside = checkpoint / ".universal"
    shutil.rmtree(aside, ignore_errors=True)
    arguments = Namespace(
        input_folder="state",
        output_folder=aside.name,
        num_extract_workers=1,  # more of them would fork a process that already talks to other workers
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    # DeepSpeed uses its paths as regular expressions: short ones from inside the folder hold nothing that could be read as one.
    with contextlib.chdir(checkpoint), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(arguments)
    aside.rename(target)


def load(engine: Any, checkpoint: Path, universal: bool) -> None:
    """Restore weights and optimizer. All workers must call it."""
    tag = "universal" if universal else "state"
    loaded, _ = engine.load_checkpoint(str(checkpoint), tag=tag, load_module_strict=False)
    assert loaded is not None, f"{checkpoint} could not be read"


def _sync(folder: Path) -> None:
    """Have the folder's files on disk before the rename that makes them count."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
