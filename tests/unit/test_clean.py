"""A cleaned run is smaller; what others still need of it stays, and it does not pass for one that can go on."""

from pathlib import Path

import pyarrow as pa
import pytest

from xl import clean
from xl.arms import share
from xl.clean import clean_run
from xl.errors import UserError
from xl.folder import RunFolder, locked

SCHEMA = pa.schema([("id", pa.string()), ("lang", pa.string())])


def put(run: RunFolder, *stages: str) -> None:
    """Stages with a kept and a dropped row."""
    rows = [
        {"id": status, "lang": "de", "status": status, "reason": None, "_input": status, "_usage": []} for status in ("kept", "dropped")
    ]
    for stage in stages:
        run.store(stage).write("0", "digest", rows, SCHEMA)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    found = RunFolder(tmp_path / "run")
    put(found, "pages", "pairs", "dataset")
    found.write_info({"finished": {"limit": None}, "stages": ["pages", "pairs", "dataset"]})
    return found


@pytest.fixture
def arm(run: RunFolder) -> RunFolder:
    """An arm that shares the first stage."""
    found = run.arm("strict")
    share(run, found, ["stages/pages"])
    put(found, "pairs", "dataset")
    found.write_info(run.info)
    return found


def kept(run: RunFolder) -> dict[str, int]:
    return {stage: sum(row["status"] == "kept" for row in run.store(stage).read("0").to_pylist()) for stage in run.info["stages"]}


def test_cleaning_an_arm_leaves_its_run_as_it_is(run: RunFolder, arm: RunFolder) -> None:
    clean_run(arm)
    assert kept(arm) == {"pages": 1, "pairs": 0, "dataset": 1}
    assert kept(run) == {"pages": 1, "pairs": 1, "dataset": 1} and "cleaned" not in run.info


def test_a_run_whose_arm_is_not_done_is_left_alone(run: RunFolder, arm: RunFolder) -> None:
    """The arm would start from rows that the run has."""
    arm.write_info({**arm.info, "finished": None})
    with pytest.raises(UserError, match=r"arms/strict is not finished"):
        clean_run(run)
    assert set(kept(run).values()) == {1}


def test_a_cleaning_that_is_cut_short_leaves_its_mark(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Path) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(clean, "_empty", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clean_run(run)
    assert run.info["cleaned"]


def test_nothing_is_cleaned_while_somebody_is_at_work(run: RunFolder, arm: RunFolder) -> None:
    for part in (run, arm):
        with locked(run), pytest.raises(UserError, match="another run is at work"):
            clean_run(part)
        assert set(kept(part).values()) == {1}
