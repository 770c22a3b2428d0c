"""What a training says of each step: `metrics.jsonl`, one line a step, each step once however often the run was stopped."""

import hashlib
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xl import storage
from xl.errors import require

METRICS = "metrics.jsonl"
"""A training's steps, one a line."""


STORE_SECONDS = 5.0
"""How often an object store is told of new steps, and asked for them."""


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step."""

    step: int
    """Counted from 1."""
    epoch: float
    loss: float
    """Mean cross-entropy per supervised token in nats, before the step's update."""
    learning_rate: float
    gradient_norm: float
    num_documents: int
    num_tokens: int
    num_supervised_tokens: int
    step_seconds: float
    tokens_per_second: float


def read_metrics(path: Path) -> list[StepMetrics]:
    """All steps so far. A last line that a kill cut short is left out."""
    try:
        lines = path.read_text("utf-8").split("\n")[:-1]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [StepMetrics(**json.loads(line)) for line in lines]


def require_loggers(log_to: tuple[str, ...]) -> None:
    """Make sure, before there are workers, that the main one can log: the others would wait for one that cannot.

    Raises:
        MissingExtra: a library is not installed.
    """
    for name in log_to:
        require(name, {"tensorboard": "train", "wandb": "wandb"}[name])


class MetricsLog:
    """Writes metrics to the file, and to TensorBoard and W&B where asked."""

    def __init__(self, out: Path, step: int, log_to: tuple[str, ...]) -> None:
        """Go on behind `step`: what was written of later steps, which no checkpoint holds, is taken back."""
        self._out, self._flushed = out, time.monotonic()
        self._here = out if storage.is_local(out) else Path(tempfile.mkdtemp())
        kept = [metrics for metrics in read_metrics(out / METRICS) if metrics.step <= step]
        aside = (self._here / METRICS).with_suffix(".tmp")
        aside.write_text("".join(_line(metrics) for metrics in kept), "utf-8")
        aside.replace(self._here / METRICS)
        self._file = (self._here / METRICS).open("a", encoding="utf-8")
        self._tensorboard: Any = None
        self._wandb: Any = None
        if "tensorboard" in log_to:
            writer = require("torch.utils.tensorboard", "train").SummaryWriter
            self._tensorboard = writer(str(self._here / "tensorboard"), purge_step=step + 1)
        if "wandb" in log_to:
            run_id = hashlib.blake2b(str(out).encode(), digest_size=8).hexdigest()
            self._wandb = require("wandb", "wandb").init(dir=str(self._here), id=run_id, name=out.name, resume="allow")

    def write(self, metrics: StepMetrics) -> None:
        """Append a step. It is on disk when this returns; a store, which appends nothing, gets the whole file every few seconds."""
        self._file.write(_line(metrics))
        self._file.flush()
        os.fsync(self._file.fileno())
        if time.monotonic() - self._flushed > STORE_SECONDS:
            self.flush()
        values = {name: value for name, value in asdict(metrics).items() if name != "step"}
        if self._tensorboard:
            for name, value in values.items():
                self._tensorboard.add_scalar(f"train/{name}", value, metrics.step)
        if self._wandb:
            self._wandb.log(values, step=metrics.step)

    def flush(self) -> None:
        """Have all steps where the training is."""
        self._flushed = time.monotonic()
        if self._here != self._out:
            (self._out / METRICS).write_bytes((self._here / METRICS).read_bytes())
            if self._tensorboard:
                self._tensorboard.flush()
                storage.upload(self._here / "tensorboard", self._out / "tensorboard")

    def close(self) -> None:
        """Finish writing."""
        self.flush()
        self._file.close()
        if self._tensorboard:
            self._tensorboard.close()
        if self._wandb:
            self._wandb.finish()
        if self._here != self._out:
            storage.remove(self._here)


def _line(metrics: StepMetrics) -> str:
    return json.dumps(asdict(metrics)) + "\n"
