"""Which checkpoints count, and which can be continued how."""

import json
from pathlib import Path

import pytest

from xl.errors import UserError
from xl.train.checkpoint import Progress, needs_universal, newest
from xl.train.settings import Train


def test_only_a_whole_checkpoint_counts(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        (tmp_path / f"step-{step:08d}").mkdir()
        (tmp_path / f"step-{step:08d}" / "progress.json").write_text(json.dumps({}))
    (tmp_path / "step-00000200").mkdir()
    assert newest(tmp_path) == tmp_path / "step-00000100"


@pytest.mark.parametrize(
    ("written", "wanted", "convert"),
    [((2, 1), (2, 1), False), ((2, 1), (1, 1), True), ((2, 1), (2, 2), True), ((2, 3), (4, 3), True), ((2, 0), (1, 0), False)],
)
def test_another_number_of_workers_goes_through_the_universal_format(
    written: tuple[int, int], wanted: tuple[int, int], convert: bool
) -> None:
    workers, zero = wanted
    assert needs_universal(Progress(10, 80, 0, *written), Train(zero=zero, precision="fp32"), workers) == convert


def test_a_stage_that_cannot_be_reached_is_refused_with_those_that_can() -> None:
    with pytest.raises(UserError, match="step 10 can be continued with zero: 1 or 2, not 3"):
        needs_universal(Progress(10, 80, 0, workers=2, zero=2), Train(zero=3), workers=2)
