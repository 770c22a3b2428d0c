"""What a stage's progress is for beside being read: the next engine starts in time."""

import io
import itertools
import time

import pytest
from rich.console import Console

from xl import progress
from xl.progress import NEARLY_DONE_SECONDS, StageProgress


@pytest.mark.parametrize(("seconds_per_row", "told_at"), [(1.0, 10), (30.0, 90)])
def test_what_comes_next_is_told_once_and_ten_minutes_before(seconds_per_row: float, told_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now, num_done = 1000.0, 0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    told: list[int] = []
    with StageProgress(Console(file=io.StringIO()), "pages", 100, nearly_done=lambda: told.append(num_done)) as shown:
        for _ in range(10):
            now, num_done = now + 10 * seconds_per_row, num_done + 10
            shown.advance(10, kept=10)
    assert NEARLY_DONE_SECONDS == 600 and told == [told_at]


def test_what_was_done_before_says_nothing_of_how_long_the_rest_takes() -> None:
    told: list[bool] = []
    with StageProgress(Console(file=io.StringIO()), "pages", 100, nearly_done=lambda: told.append(True)) as shown:
        shown.advance(99)
        assert not told
        shown.advance(1, kept=1)
    assert told == [True]


def test_a_log_is_told_how_far_it_is_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(progress, "WAITING_INTERVAL_SECONDS", 0.01)
    told, steps = io.StringIO(), itertools.count()
    with progress.waiting(Console(file=told, width=200), lambda: f"at step {next(steps)}"):
        while told.getvalue().count("\n") < 3:
            time.sleep(0.01)
    assert [line.split(",")[0] for line in told.getvalue().splitlines()[:3]] == ["at step 0", "at step 1", "at step 2"]
