"""Checkpoints: everything that a training needs to go on as if nothing had happened.

    checkpoints/step-00000100/progress.json    step, workers, ZeRO stage; the marker that the folder is whole
    checkpoints/step-00000100/state/           DeepSpeed: weights, master weights, moments; in an object store state-ATTEMPT
    checkpoints/step-00000100/universal/       the same for any number of workers, made when one is wanted

The learning rate, the place in the data and the random numbers of a step are functions of (seed, step): `step` restores them all, with any
number of workers. What has a `progress.json` is whole: in a file system a folder is written aside and put in place by one rename; in an
object store, which each worker writes its own part to, that file comes last.
"""

import contextlib
import io
import json
import os
import tempfile
import uuid
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.filesize import decimal

from xl import storage
from xl.errors import UserError
from xl.storage import free_bytes
from xl.train.job import Job
from xl.train.settings import Train
from xl.train.workers import by_main_worker

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
    state: str = "state"
    """Folder of what DeepSpeed wrote. In an object store, one that workers of an earlier attempt wrote may be beside it."""


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    whole = [path for path in folder.glob("step-*") if (path / "progress.json").exists()]
    return max(whole, default=None, key=lambda path: int(path.name.removeprefix("step-")))


def read_progress(checkpoint: Path) -> Progress:
    """What a checkpoint says of itself."""
    return Progress(**json.loads((checkpoint / "progress.json").read_text("utf-8")))


def save(engine: Any, job: Job, progress: Progress, patient: Any) -> None:
    """Write a checkpoint and drop all but the newest few. All workers must call it.

    Raises:
        UserError: another driver has taken the training over.
    """
    if not storage.is_local(job.out):
        _save_in_store(engine, job, progress, patient)
        return
    aside = job.checkpoints / ".writing"
    if torch.distributed.get_rank() == 0:
        aside.mkdir(parents=True)
    torch.distributed.barrier()
    engine.save_checkpoint(str(aside), tag="state", save_latest=False, exclude_frozen_parameters=True)
    torch.distributed.barrier()
    by_main_worker(patient, lambda: _put_in_place(aside, job, progress))


def _put_in_place(aside: Path, job: Job, progress: Progress) -> None:
    _mark(aside, progress)
    _sync(aside)
    target = _folder(job, progress)
    job.check()
    storage.remove(target)
    aside.rename(target)
    _drop_old(job)


def _save_in_store(engine: Any, job: Job, progress: Progress, patient: Any) -> None:
    target = _folder(job, progress)

    def make_room() -> str:
        job.check()
        storage.remove(target)
        return f"state-{uuid.uuid4().hex[:8]}"

    def put_in_place() -> None:
        job.check()
        _mark(target, replace(progress, state=state))
        _drop_old(job)

    state = by_main_worker(patient, make_room)
    with tempfile.TemporaryDirectory() as own:
        engine.save_checkpoint(own, tag=state, save_latest=False, exclude_frozen_parameters=True)
        storage.upload(Path(own), target)
    torch.distributed.barrier(patient)
    by_main_worker(patient, put_in_place)


def _folder(job: Job, progress: Progress) -> Path:
    return job.checkpoints / f"step-{progress.step:08d}"


def _mark(checkpoint: Path, progress: Progress) -> None:
    (checkpoint / "progress.json").write_text(json.dumps(asdict(progress)), "utf-8")


def remove_leftovers(job: Job) -> None:
    """Remove what a kill left half written, and checkpoints that were still to be dropped. The main worker's task."""
    for path in (job.checkpoints / ".writing", *job.checkpoints.glob("*/.universal"), *job.out.glob(".*.tmp")):
        storage.remove(path)
    for path in job.checkpoints.glob("step-*"):
        if not (path / "progress.json").exists():
            storage.remove(path)
    _drop_old(job)


def _drop_old(job: Job) -> None:
    for old in sorted(job.checkpoints.glob("step-*"), key=lambda path: path.name)[: -job.settings.keep]:
        storage.delete(old)


def check_room(engine: Any, job: Job, is_done: bool, to_convert: Path | None) -> None:
    """Refuse to go on with a training whose checkpoints and model will not find room. The main worker's task.

    A checkpoint holds 16 bytes a trained parameter: weights, master weights and two moments in fp32. One more than `keep` exist for a
    moment. To convert one takes twice its size, of which half stays. The model is written whole, from LoRA too.

    Args:
        engine: the engine around the model.
        job: the training.
        is_done: whether the last step has its checkpoint, so that no more are written.
        to_convert: a checkpoint that is to be converted, unless that is done.

    Raises:
        UserError: the disk is too full.
    """
    counted = [(getattr(one, "ds_numel", one.numel()), one.requires_grad) for one in engine.module.model.parameters()]
    num_checkpoints = 0 if is_done else job.settings.keep + 1 - len(list(job.checkpoints.glob("step-*")))
    if to_convert and not (to_convert / "universal").exists():
        num_checkpoints = max(2, 1 + num_checkpoints)
    trained = sum(size for size, is_trained in counted if is_trained)
    exported = (2 if job.settings.precision == "bf16" else 4) * sum(size for size, _ in counted)
    need = num_checkpoints * 16 * trained + exported
    if storage.is_local(job.out):
        free = free_bytes(job.out)
    else:  # what is bound for a store is written here first, one after the other
        need, free = max(16 * trained, exported), free_bytes(Path(tempfile.gettempdir()))
    if need > free:
        amounts = f"the training needs about {decimal(need)} for its checkpoints and its model, and {decimal(free)} are free"
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


@contextlib.contextmanager
def files_of(checkpoint: Path, universal: bool, patient: Any) -> Iterator[Path]:
    """A checkpoint as files that this worker can load, converted where that is wanted. All workers must come to the block's end.

    One in an object store is copied to each machine and converted there. The copy goes when its workers have read it.
    """
    copy = storage.local_copy(checkpoint)
    if copy != checkpoint and universal:
        with storage.one_at_a_time(copy):
            to_universal(copy)
    torch.distributed.barrier(patient)
    yield copy
    torch.distributed.barrier(patient)
    if copy != checkpoint:
        storage.remove(copy)


def to_universal(checkpoint: Path) -> None:
    """Convert a checkpoint for any number of workers, unless that is done (Universal Checkpointing, arXiv 2406.18820).

    The task of one worker alone.
    """
    from deepspeed.checkpoint import ds_to_universal

    target = checkpoint / "universal"
    if target.exists():
        return
    aside = checkpoint / ".universal"
    arguments = Namespace(
        input_folder=read_progress(checkpoint).state,
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
    tag = "universal" if universal else read_progress(checkpoint).state
    loaded, _ = engine.load_checkpoint(str(checkpoint), tag=tag, load_module_strict=False)
    assert loaded is not None, f"{checkpoint} could not be read"


def _sync(folder: Path) -> None:
    """Have the folder's files on disk before the rename that makes them count."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
