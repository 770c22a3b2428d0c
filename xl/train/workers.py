"""What the workers of a training have to do with each other."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch

from xl.errors import UserError
from xl.train.settings import Train

Answer = TypeVar("Answer")


def join_workers(settings: Train) -> None:
    """Initialise `torch.distributed`: from torchrun's environment where there is one, else for this process alone."""
    backend = "nccl" if settings.gpus_per_worker else "gloo"
    os.environ.setdefault("LOCAL_RANK", "0")
    if "WORLD_SIZE" in os.environ:
        torch.distributed.init_process_group(backend)
    else:
        torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)


def patient_group() -> Any:
    """All workers, as a group that waits for a day. All workers must call it.

    The main worker tokenises, converts and exports alone, which may take longer than the 10 to 30 minutes that collectives are given.
    """
    return torch.distributed.new_group(backend="gloo", timeout=timedelta(days=1))


def by_main_worker(patient: Any, task: Callable[[], Answer]) -> Answer:
    """Have the main worker do something alone while the others wait. All workers must call it; all get what the task returns.

    Raises:
        UserError: the task has raised it. All workers do: one that knew of no mistake would wait for the main one, which has given up.
    """
    answer: list[Any] = [None, None]
    if torch.distributed.get_rank() == 0:
        try:
            answer[0] = task()
        except UserError as error:
            answer[1] = str(error)
    torch.distributed.broadcast_object_list(answer, group=patient)
    if answer[1] is not None:
        raise UserError(answer[1])
    return answer[0]  # type: ignore[no-any-return]
