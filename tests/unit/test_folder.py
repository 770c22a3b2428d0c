"""A run's folder survives a kill at any moment, also while parts of it are deleted."""

import contextlib
import itertools
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from tests.support import ROOT, german_pages, recipe
from xl import runs
from xl.errors import UserError
from xl.folder import RunFolder, check_fingerprints, claim, locked, record_stage
from xl.methods import load_recipe, method_stages
from xl.pipeline import Engines
from xl.stage import RowStage, Stage, fingerprints

FILES = ("shards/s0.parquet", "log/s1/a.arrow")


class Killed(BaseException):
    """Stands for SIGKILL."""


def stages(min_rating: int) -> list[Stage]:
    return [RowStage("pages", (), pa.schema([])), RowStage("rated", (), pa.schema([]), {"min_rating": min_rating})]


def begun(root: Path) -> RunFolder:
    """A run in which both stages have sealed and open shards."""
    run = RunFolder(root)
    for stage in stages(1):
        record_stage(run, stage, fingerprints(stages(1), "source")[stage.name])
        for name in FILES:
            path = root / "stages" / stage.name / name
            path.parent.mkdir(parents=True)
            path.touch()
    for name in ("run.json", "recipe.yaml"):
        (root / name).write_text("{}")
    return run


def killed_in_deletion(monkeypatch: pytest.MonkeyPatch, number: int) -> contextlib.AbstractContextManager[Any]:
    """Let the process die in its deletion of that number, when that has come to no more than the `stage.json` of stages."""
    rmtree, count = shutil.rmtree, itertools.count()

    def dies(path: Path, **options: Any) -> None:
        if next(count) == number:
            for file in Path(path).rglob("stage.json"):
                file.unlink()
            raise Killed
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", dies)
    return contextlib.suppress(Killed)


@pytest.mark.parametrize("number", range(7))
def test_a_kill_while_stages_are_cleared_leaves_no_row_of_the_old_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run = begun(tmp_path)
    with monkeypatch.context() as patch, killed_in_deletion(patch, number):
        check_fingerprints(run, stages(2), "source", {}, redo=True)
    check_fingerprints(run, stages(2), "source", {}, redo=True)
    left = sorted(str(path.relative_to(tmp_path / "stages")) for path in (tmp_path / "stages").rglob("*") if path.is_file())
    assert left == ["pages/shards/s0.parquet", "pages/stage.json"] and not (tmp_path / "trash").exists()


@pytest.mark.parametrize("number", range(10))
def test_a_kill_while_a_run_starts_over_leaves_no_stage_that_has_lost_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run = begun(tmp_path)
    with monkeypatch.context() as patch, killed_in_deletion(patch, number):
        runs._start_over(run)
    claim(tmp_path)
    with contextlib.suppress(UserError):
        check_fingerprints(run, stages(2), "source", {}, redo=False)
    assert all((stage / "stage.json").exists() for stage in (tmp_path / "stages").glob("*"))


def test_a_run_that_was_finished_before_a_setting_was_known_is_finished(tmp_path: Path) -> None:
    """A cleaned one could not go on."""
    questions = str(ROOT / "tests" / "fixtures" / "vicuna" / "question.jsonl")
    path = recipe(
        tmp_path / "r.yaml",
        german_pages(tmp_path / "pages", 2),
        models={"writer": {"model": "m", "engine": "scripted"}, "base": {"model": "m", "engine": "scripted"}},
        benchmarks=[{"task": "vicuna", "from": questions}],
    )
    given, run, console = load_recipe(path), RunFolder(tmp_path / "run"), Console(quiet=True)
    models, trainings = runs.resolve_models(given, run)
    job = runs.Job(given, run, runs.Options(), console, models, trainings, method_stages(given, models), Engines(console))
    state = runs._state(job)
    for key in ("name", "style", "output_type"):
        del state["benchmarks"][0][key]
    run.dataset.mkdir(parents=True)
    run.report.touch()
    run.write_info({"finished": state, "cleaned": True})
    assert not runs.run_recipe(given, run.root, runs.Options(), console), "there is nothing to do"


def test_a_store_that_cannot_keep_two_runs_apart_is_not_taken_for_a_folder_of_that_name() -> None:
    with pytest.raises(UserError, match="abfs:/bucket/run: runs and models are in folders or in s3:// and gs://"):
        claim(Path("abfs://bucket/run"))


def test_a_folder_that_cannot_be_locked_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "lease").write_text("")  # stands for a folder that may not be written: administrators may write any
    with pytest.raises(UserError, match=f"--out {tmp_path}: File exists"), locked(claim(tmp_path)):
        pass
