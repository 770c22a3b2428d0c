"""Train on a dataset: check, tokenise once, and start the workers, with Ray Train or without Ray.

    OUT/train.json         what the training was begun with
    OUT/tokens/            the tokenised dataset
    OUT/checkpoints/       the newest few
    OUT/metrics.jsonl      one line a step
    OUT/model/             the tuned model (for LoRA merged, with OUT/adapter/ beside it)

The same call again goes on where the last one stopped; a finished training is left alone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from xl import placement, storage
from xl.engines.models import ResolvedModel, prepare
from xl.errors import DISK_FULL, UserError, require
from xl.folder import RunFolder, contents, differences, locked, plain
from xl.lease import fence_for
from xl.settings import semantic
from xl.store import read_json, write_json
from xl.train.choose import chosen_rows
from xl.train.job import Job
from xl.train.metrics import StepMetrics, read_metrics, require_loggers
from xl.train.precision import with_precision
from xl.train.settings import Train
from xl.train.tokens import TokenSummary, dataset_digest, read_rows, read_summary, write_documents
from xl.train.watch import watched
from xl.train.weights import load_tokenizer

_FULL_BYTES = 1 << 20
"""A disk with less free space is full: blocks too small for what was to be written may be left."""


@dataclass(frozen=True)
class TrainResult:
    """A finished training."""

    model: Path
    adapter: Path | None
    tokens: TokenSummary
    metrics: list[StepMetrics]


def train(
    dataset: Path,
    model: ResolvedModel,
    out: Path,
    settings: Train,
    *,
    use_ray: bool = True,
    fresh: bool = False,
    console: Console | None = None,
) -> TrainResult:
    """Train, or go on training, or do nothing when the model is there already.

    Args:
        dataset: a Parquet or JSON Lines file or a folder of Parquet files, with the columns of `tokens.COLUMNS`.
        model: the weights to begin with.
        out: the training's folder. All workers must see it: on a cluster it is on a shared file system, or in an object store.
        settings: how to tune.
        use_ray: whether Ray Train starts the workers. Without it this process is one: alone, or under torchrun one of many
            (`settings.workers` is then torchrun's to say).
        fresh: forget what the folder holds.
        console: where progress is shown, if anywhere; with Ray only.

    Raises:
        UserError: the dataset, the settings or the folder are for the user to mend.
    """
    require_loggers(settings.log_to)
    settings = with_precision(settings, None if fresh else read_json(out / "train.json"))
    job = Job(model.path, model.name, out.absolute(), settings, model.licence, model.revision)
    if use_ray:
        with _begun(dataset, model, job, fresh) as begun:
            if not job.is_done:
                with watched(job, console), _full_disk_named(job):
                    _run_on_ray(begun)
    else:
        with _full_disk_named(job):
            _run_here(dataset, model, job, fresh)
    return _result(job)


@contextmanager
def _full_disk_named(job: Job) -> Iterator[None]:
    """Say that the disk is full where it is: what writes weights tells of a stream that broke."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, UserError) and storage.free_bytes(job.out) < _FULL_BYTES:
            raise UserError(DISK_FULL) from error
        raise


def _run_here(dataset: Path, model: ResolvedModel, job: Job, fresh: bool) -> None:
    """This process is a worker; the first one prepares the folder for all."""
    torch = require("torch", "train")
    choose_device(job.settings)
    from xl.train.loop import fit
    from xl.train.workers import join_workers, patient_group

    joined = torch.distributed.is_initialized()
    if not joined:
        join_workers(job.settings)
    patient = patient_group()
    with _begun(dataset, model, job, fresh) if torch.distributed.get_rank() == 0 else nullcontext(job) as begun:
        torch.distributed.barrier(patient)
        if not job.is_done:
            fit(begun)
        torch.distributed.barrier()
    if not joined:
        torch.distributed.destroy_process_group()


def _run_on_ray(job: Job) -> None:
    """Have Ray Train start the workers, and start them again when one is lost. Ray must be initialised."""
    require("ray", "train")
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    settings = job.settings
    where, filesystem = storage.for_arrow(job.out / ".ray")
    needs = {"CPU": settings.cpus_per_worker, **({"GPU": 1} if settings.gpus_per_worker else {})}
    trainer = TorchTrainer(
        _ray_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if settings.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(settings.min_workers, settings.workers) if settings.min_workers else settings.workers,
            elastic_resize_monitor_interval_s=settings.resize_seconds,
            use_gpu=settings.gpus_per_worker > 0,
            resources_per_worker=needs,
            label_selector=placement.of(settings, settings.gpus_per_worker) or None,
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=where,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=settings.max_failures),
            logging_config=LoggingConfig("ERROR"),
        ),
    )
    # Ray Train's handler of SIGINT ends this process as if all were well, and stays when the training is over. Ours is Python's own.
    trainer._register_sigint_handler = lambda controller: None
    # A lost worker is Ray's to replace; a mistake of the user's is not mended by a new worker, so it comes back as a value.
    mistake = trainer.fit().return_value
    if mistake:
        raise UserError(mistake)


def _ray_worker(config: dict[str, Job]) -> str | None:
    """One worker's part of the training.

    Returns the user's mistake where there is one. All workers must come upon it alike: only the main one's answer is heard, and a worker
    that has returned keeps the others waiting.
    """
    from ray.train import get_preemption_info

    job = config["job"]
    choose_device(job.settings)
    from xl.train.loop import fit

    try:
        fit(job, lambda: get_preemption_info() is not None)
    except UserError as error:
        return str(error)
    return None


def choose_device(settings: Train) -> None:
    """Tell DeepSpeed what to compute on before anything imports it; by itself it would take a GPU wherever there is one."""
    os.environ["DS_ACCELERATOR"] = "cuda" if settings.gpus_per_worker else "cpu"


@contextmanager
def _begun(dataset: Path, model: ResolvedModel, job: Job, fresh: bool) -> Iterator[Job]:
    """Claim the folder for this training, and tokenise the dataset unless that is done. Gives the job as who holds the folder has it.

    Raises:
        UserError: somebody else is at work there, or the folder was begun with other settings.
    """
    out = job.out
    now = plain({"model": model.digest, "dataset": dataset_digest(dataset), "train": semantic(job.settings)})
    _claim(out)
    with locked(RunFolder(out)):
        if fresh:
            clear(out)
        before = read_json(out / "train.json")
        if before not in (None, now):
            changed = "; ".join(differences("", before, now))
            raise UserError(f"--out {out} was begun with other settings: {changed}. Use --fresh to start over, or another folder")
        write_json(out / "train.json", now)
        if read_summary(job.tokens) is None:
            _tokenise(dataset, model, job)
        yield replace(job, fence=fence_for(out))


def _claim(out: Path) -> None:
    """Make the training's folder where there is none. Raises UserError when that cannot be, or when it holds something else."""
    try:
        storage.make_folder(out)
        is_foreign = not (out / "train.json").exists() and bool(contents(out))
    except OSError as error:
        raise storage.explained(error) or UserError(f"--out {out}: {error.strerror or error}") from None
    if is_foreign:
        raise UserError(f"--out {out} holds other files and no training; choose an empty or a new folder")


def _tokenise(dataset: Path, model: ResolvedModel, job: Job) -> None:
    prepare(model)
    tokenizer, settings = load_tokenizer(model.path, model.revision), job.settings
    rows = chosen_rows(read_rows(dataset), settings)
    write_documents(rows, tokenizer, settings.max_length, settings.styles, job.tokens)


def clear(folder: Path) -> None:
    """Remove all that a folder holds but the lease that is held."""
    for path in (folder / name for name in contents(folder)):
        if path.is_dir():
            storage.delete(path)
        else:
            storage.delete_file(path)


def _result(job: Job) -> TrainResult:
    summary = read_summary(job.tokens)
    assert summary is not None and job.is_done, f"{job.out} is not finished"
    adapter = job.adapter_folder
    return TrainResult(job.model_folder, adapter if adapter.exists() else None, summary, read_metrics(job.metrics))
