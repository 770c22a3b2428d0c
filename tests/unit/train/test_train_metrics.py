"""`metrics.jsonl` holds each step once, however a training was stopped, and progress counts it once."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from xl.train import watch
from xl.train.job import Job
from xl.train.metrics import MetricsLog, StepMetrics, read_metrics
from xl.train.settings import Train
from xl.train.tokens import TokenSummary


def metrics(step: int, loss: float = 1.0) -> StepMetrics:
    return StepMetrics(step, 0.1, loss, 1e-3, 1.0, 8, 100, 60, 0.5, 200.0)


def test_steps_behind_the_checkpoint_are_taken_back_and_written_again(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0, ())
    for step in range(1, 6):
        log.write(metrics(step))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "ep')  # a kill in mid-line
    again = MetricsLog(tmp_path, 3, ())
    again.write(metrics(4, loss=2.0))
    assert [(entry.step, entry.loss) for entry in read_metrics(tmp_path / "metrics.jsonl")] == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0)]


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricsLog(tmp_path, 0, ("tensorboard",))
    log.write(metrics(1, loss=3.5))
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 3.5)]


def test_progress_counts_no_step_that_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(watch, "read_summary", lambda _: TokenSummary(num_documents=8, num_rows=8))
    monkeypatch.setattr("xl.progress.LOG_INTERVAL_SECONDS", 0.0)
    for step in (1, 2):
        MetricsLog(tmp_path, step - 1, ()).write(metrics(step))
    told = io.StringIO()
    job = Job("model", "model", tmp_path, Train(global_batch=2))
    with watch.watched(job, Console(file=told)):
        time.sleep(0.1)
        MetricsLog(tmp_path, 0, ()).write(metrics(1))  # no checkpoint holds the two steps of before
        time.sleep(0.1)
    assert "1/4 steps" in told.getvalue().splitlines()[-1]
    assert "2/4" not in told.getvalue() and "-" not in told.getvalue()
