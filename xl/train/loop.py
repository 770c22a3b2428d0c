"""The training loop, the same under Ray Train, under torchrun and in a single process.

Every worker runs `fit`. What a step learns, its learning rate and its random numbers are functions of (seed, step), so a run that was
stopped needs only its weights, its optimizer and the number of the last step to go on.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from xl import storage
from xl.errors import UserError
from xl.lease import lease
from xl.records import row_seed
from xl.train import checkpoint, packing, zero
from xl.train.checkpoint import Progress
from xl.train.export import export
from xl.train.job import Job
from xl.train.loss import check_architecture
from xl.train.metrics import MetricsLog, StepMetrics
from xl.train.packing import MicroBatch
from xl.train.settings import Train
from xl.train.tokens import Documents, open_documents
from xl.train.workers import by_main_worker, patient_group

_ORPHAN_SECONDS = 120


@dataclass
class Worker:
    """One worker of a training at work."""

    job: Job
    data: Documents
    engine: Any
    rank: int
    num_workers: int
    num_steps: int


def fit(job: Job, is_warned: Callable[[], bool] = lambda: False) -> None:
    """Train from the newest checkpoint to the last step and export the model. Every worker calls this.

    `torch.distributed` must be initialised. `is_warned` is asked in each step whether a machine of the training will be taken away, and
    must tell all workers the same; the training saves itself at once then, and goes on for as long as it can.

    Raises:
        UserError: the model cannot be trained, the checkpoint cannot be continued with these settings, or there is no room for more. All
            workers raise it alike: one that had nothing to raise would wait for the others.
    """
    torch.set_num_threads(job.settings.cpus_per_worker)
    if job.settings.gpus_per_worker:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # else workers of one node would all speak through its first GPU
    patient = patient_group()
    with _only_writer(job):
        worker, done = _start(job, patient)
        log = MetricsLog(job.out, done, job.settings.log_to) if worker.rank == 0 else None
        was_warned = False
        for step in range(done, worker.num_steps):
            metrics = _step(worker, step)
            if log:
                log.write(metrics)
            is_news = is_warned() and not was_warned
            was_warned |= is_news
            if is_news or (step + 1) % job.settings.save_every == 0 or step + 1 == worker.num_steps:
                if log:
                    log.flush()
                checkpoint.save(worker.engine, job, _progress(worker, step + 1), patient)
        if log:
            log.close()
        export(worker.engine, job, patient)


def learning_rate(step: int, num_steps: int, settings: Train) -> float:
    """Learning rate of a step, counted from 0: a linear rise, then the schedule down to 0 at the end."""
    num_warmup = math.ceil(settings.warmup_ratio * num_steps)
    if step < num_warmup:
        return settings.learning_rate * (step + 1) / num_warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - num_warmup) / max(1, num_steps - num_warmup)
    return settings.learning_rate * ((1 - done) if settings.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2)


def _start(job: Job, patient: Any) -> tuple[Worker, int]:
    """A worker with its weights, and how many steps are done already."""
    settings, rank, num_workers = job.settings, torch.distributed.get_rank(), torch.distributed.get_world_size()
    data = open_documents(job.tokens)
    num_steps = packing.num_steps(len(data), settings.global_batch, settings.epochs, settings.max_steps)
    by_main_worker(patient, lambda: checkpoint.remove_leftovers(job))
    newest = by_main_worker(patient, lambda: checkpoint.newest(job.checkpoints))  # others may see less of an orphan's last write
    progress = checkpoint.read_progress(newest) if newest else None
    done = progress.step if progress else 0
    universal = progress is not None and checkpoint.needs_universal(progress, settings, num_workers)
    to_convert = newest if universal else None
    engine = zero.start_engine(job, universal)
    by_main_worker(patient, lambda: checkpoint.check_room(engine, job, done == num_steps, to_convert))
    if to_convert and storage.is_local(to_convert):
        by_main_worker(patient, lambda: checkpoint.to_universal(to_convert))
    if newest:
        with checkpoint.files_of(newest, universal, patient) as files:
            checkpoint.load(engine, files, universal)
    else:
        engine.eval()
        check_architecture(engine.module, settings.packing, engine.device)
    engine.train()
    return Worker(job, data, engine, rank, num_workers, num_steps), done


def _step(worker: Worker, step: int) -> StepMetrics:
    """One optimizer step."""
    settings, data = worker.job.settings, worker.data
    began = time.perf_counter()
    documents = packing.documents_of(step, len(data), settings.global_batch, settings.seed)
    num_supervised = packing.num_supervised(documents, data, settings.prompt_loss)
    summed_loss, num_learned = _backward(worker, step, documents, num_supervised)
    assert num_learned == num_supervised, f"step {step + 1}: {num_supervised} supervised tokens became {num_learned} in packing"
    rate = learning_rate(step, worker.num_steps, settings)
    norm = _update(worker.engine, rate)
    seconds = time.perf_counter() - began
    num_tokens = int(data.lengths[documents].sum())
    return StepMetrics(
        step=step + 1,
        epoch=round((step + 1) / math.ceil(len(data) / settings.global_batch), 4),
        loss=summed_loss / num_supervised,
        learning_rate=rate,
        gradient_norm=norm,
        num_documents=len(documents),
        num_tokens=num_tokens,
        num_supervised_tokens=num_supervised,
        step_seconds=round(seconds, 4),
        tokens_per_second=round(num_tokens / seconds, 1),
    )


def _backward(worker: Worker, step: int, documents: packing.IntArray, num_supervised: int) -> tuple[float, int]:
    """Gradients of a step, shared out over the workers; returns all workers' summed loss and how many tokens it is the sum of."""
    settings, data, engine = worker.job.settings, worker.data, worker.engine
    micro_batches = packing.plan(documents, data.lengths, settings.max_length, settings.micro_batch, settings.packing)
    mine = packing.share(micro_batches, worker.rank, worker.num_workers)
    totals = torch.zeros(2, dtype=torch.float64, device=engine.device)
    for turn, blocks in enumerate(mine):
        engine.set_gradient_accumulation_boundary(turn + 1 == len(mine))
        # An idle worker goes along with the others, on the smallest micro-batch and with weight 0.
        batch = packing.assemble(blocks or micro_batches[-1], data, settings.prompt_loss, pad_id=0)
        weight = 1 if blocks else 0
        torch.manual_seed(row_seed(settings.seed, str(step), "dropout", turn * worker.num_workers + worker.rank))
        loss = weight * engine(*on_device(batch, engine.device))
        # DeepSpeed averages over workers; a step's loss is the mean over its tokens, wherever they lie.
        engine.backward(loss * (worker.num_workers / num_supervised))
        totals[0] += loss.detach()
        totals[1] += weight * len(batch.targets)
    torch.distributed.all_reduce(totals)
    return float(totals[0]), int(totals[1])


def on_device(batch: MicroBatch, device: torch.device) -> list[torch.Tensor]:
    """The arguments of `SupervisedLoss`."""
    return [torch.from_numpy(array).to(device) for array in (batch.input_ids, batch.position_ids, batch.predictors, batch.targets)]


def _update(engine: Any, rate: float) -> float:
    """Take the optimizer's step at a learning rate; returns the gradients' norm."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    before = None if engine.zero_optimization() else zero.gradient_norm(engine)
    engine.step()
    return zero.gradient_norm(engine) if before is None else before


def _progress(worker: Worker, step: int) -> Progress:
    settings = worker.job.settings
    steps_per_epoch = math.ceil(len(worker.data) / settings.global_batch)
    epochs, rest = divmod(step, steps_per_epoch)
    num_documents = epochs * len(worker.data) + rest * settings.global_batch
    return Progress(step, num_documents, settings.seed, worker.num_workers, settings.zero)


@contextlib.contextmanager
def _only_writer(job: Job) -> Iterator[None]:
    """Let the main worker write alone: workers of a killed driver live on for seconds, and those of a lost machine cannot say that they
    are gone."""
    if torch.distributed.get_rank() != 0:
        yield
        return
    storage.make_folder(job.checkpoints)
    with contextlib.ExitStack() as stack:
        for _ in range(_ORPHAN_SECONDS):
            try:
                stack.enter_context(lease(job.checkpoints))
                break
            except UserError:
                time.sleep(1)
        else:
            raise TimeoutError(f"{job.out}: the workers of an earlier training still write there after {_ORPHAN_SECONDS} seconds")
        yield
