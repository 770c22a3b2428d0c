"""`metrics.jsonl` holds each step once, however a training was stopped."""

from pathlib import Path

import pytest

from xl.train.metrics import MetricsLog, StepMetrics, read_metrics


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
