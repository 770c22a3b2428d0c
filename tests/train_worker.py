"""Trains one after another in this process, or as one worker of torchrun's; the tests start it and read what it leaves behind.

A training with `"kill": [rank, step]` loses that worker by `kill -9` when the step (counted from 1) has been computed but not yet noted.
One with `"answers": true` leaves the greedy answers of the model as it is in memory in `answers.json`, before it is exported.
One with `"slow": true` exports for longer than workers have for what they do together.
"""

import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from tests.training import folder_of, greedy, prompts_of
from xl.engines.models import resolve
from xl.train import loop
from xl.train.job import Job
from xl.train.metrics import StepMetrics
from xl.train.settings import Train
from xl.train.trainer import choose_device, train
from xl.train.workers import join_workers

_step, _export = loop._step, loop.export


def main(folder: Path, trainings: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    first = Train(**trainings[0]["settings"])
    choose_device(first)
    join_workers(first)
    for training in trainings:
        loop._step = _killing(*training["kill"]) if "kill" in training else _step
        loop.export = _answering if training["answers"] else _slow if training["slow"] else _export
        settings = Train(**training["settings"])
        base, revision = training["base"], training["revision"]
        model = resolve(base, revision) if revision else resolve(str(folder / base))
        train(folder / "pairs.jsonl", model, folder_of(folder, training["out"]), settings, use_ray=False)


def _killing(rank: int, last_step: int) -> Any:
    def step(worker: loop.Worker, number: int) -> StepMetrics:
        metrics = _step(worker, number)
        if worker.rank == rank and metrics.step == last_step:
            os.kill(os.getpid(), signal.SIGKILL)
        return metrics

    return step


def _answering(engine: Any, job: Job, patient: Any) -> None:
    engine.eval()
    (job.out / "answers.json").write_text(json.dumps(greedy(engine.module.model, prompts_of(job.tokens))), "utf-8")
    _export(engine, job, patient)


def _slow(engine: Any, job: Job, patient: Any) -> None:
    torch.distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=1))
    if torch.distributed.get_rank() == 0:
        time.sleep(3)
    _export(engine, job, patient)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
