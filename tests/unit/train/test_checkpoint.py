"""Which checkpoints count, which can be continued how, and what room they want."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from xl.errors import UserError
from xl.lease import Fence, Superseded, fence_for, lease
from xl.train import checkpoint, loop
from xl.train.checkpoint import Progress, needs_universal, newest
from xl.train.export import _folder
from xl.train.job import Job
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


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("base", "base", tmp_path, Train(keep=2, precision="fp32"))


def add_checkpoints(job: Job, *steps: int) -> None:
    for step in steps:
        (job.checkpoints / f"step-{step:08d}" / "state").mkdir(parents=True)
        (job.checkpoints / f"step-{step:08d}" / "progress.json").touch()


@pytest.mark.parametrize(
    ("num_kept", "is_done", "converts", "num_wanted"),
    [(0, False, False, 3), (2, False, False, 1), (2, True, False, 0), (2, False, True, 2), (0, False, True, 4), (2, True, True, 2)],
)
def test_room_is_asked_for_what_is_still_to_be_written(
    job: Job, monkeypatch: pytest.MonkeyPatch, num_kept: int, is_done: bool, converts: bool, num_wanted: int
) -> None:
    add_checkpoints(job, *range(num_kept))
    engine = SimpleNamespace(module=SimpleNamespace(model=torch.nn.Linear(100, 10, bias=False)))
    need = num_wanted * 16_000 + 4_000
    to_convert = job.checkpoints / "step-00000001" if converts else None
    monkeypatch.setattr(checkpoint, "free_bytes", lambda _: need)
    checkpoint.check_room(engine, job, is_done, to_convert)
    monkeypatch.setattr(checkpoint, "free_bytes", lambda _: need - 1)
    with pytest.raises(UserError, match="keep fewer checkpoints"):
        checkpoint.check_room(engine, job, is_done, to_convert)


def test_a_training_whose_folder_was_taken_over_puts_nothing_into_it(tmp_path: Path) -> None:
    leases = tmp_path / "lease"
    leases.mkdir()
    (leases / "000001.json").touch()
    job = Job("base", "base", tmp_path, Train(), fence=Fence(leases, 1))
    with _folder(job.model_folder, job):
        pass
    (leases / "000002.json").touch()
    with pytest.raises(Superseded, match="another run has taken over"), _folder(job.adapter_folder, job):
        pass
    assert job.model_folder.exists() and not job.adapter_folder.exists()


def test_the_writer_of_a_machine_that_is_lost_keeps_no_training_waiting_and_commits_nothing(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(loop, "lease", partial(lease, seconds=0.3))
    (job.checkpoints / "lease").mkdir(parents=True)
    (job.checkpoints / "lease" / "000001.json").write_text(json.dumps({"machine": "lost", "pid": 7, "born": 1.0, "beat": 0}))
    with pytest.raises(Superseded), loop._only_writer(job):
        assert fence_for(job.checkpoints) == Fence(job.checkpoints.resolve() / "lease", 2)
        job.check()
        (job.checkpoints / "lease" / "000003.json").touch()
        with pytest.raises(Superseded), _folder(job.model_folder, job):
            pass
    assert not job.model_folder.exists()


def test_what_a_kill_leaves_takes_no_room(job: Job) -> None:
    add_checkpoints(job, 3, 6, 9)
    for leftover in (job.checkpoints / ".writing", job.checkpoints / "step-00000009" / ".universal", job.out / ".model.tmp"):
        (leftover / "state").mkdir(parents=True)
    (job.checkpoints / "step-00000012" / "state").mkdir(parents=True)  # of one that its workers had begun to write to a store
    job.model_folder.mkdir()
    checkpoint.remove_leftovers(job)
    left = {str(path.relative_to(job.out)) for path in job.out.rglob("*")} - {"model", "checkpoints"}
    assert left == {f"checkpoints/step-0000000{step}{inside}" for step in (6, 9) for inside in ("", "/state", "/progress.json")}
