"""Whole runs in object stores: the same rows as in a folder, whatever is killed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import SETTINGS, STAGES, kill_and_compare
from tests.object_store import google_store
from tests.support import assert_balanced, german_pages, ledger, recipe, succeeded, xl
from xl.dataset import DATASET_SCHEMA
from xl.folder import RunFolder
from xl.storage import place
from xl.store import read_table

pytestmark = pytest.mark.ray


@pytest.fixture
def googles_bucket() -> Iterator[str]:
    with google_store() as url:
        yield url


def test_a_run_with_an_arm_is_all_in_the_store(googles_bucket: str, tmp_path: Path) -> None:
    pages = german_pages(tmp_path / "pages", 60, files=2)
    path = recipe(tmp_path / "recipe.yaml", pages, arms={"strict": {"rating": {"min_margin": 9.0}}})
    out = f"{googles_bucket}/runs/first"
    told = succeeded(xl("run", path, "--out", out))
    assert f"dataset: {out}/dataset" in told and f"arm strict: 0 pairs, {out}/arms/strict/report.html" in told
    run = RunFolder(place(out))
    assert_balanced(run.root, STAGES)
    assert read_table(run.dataset / "train-00000.parquet").num_rows == sum(entry["kept"] for entry in ledger(run.root)["dataset"].values())
    assert read_table(run.dataset / "train-00000.parquet").schema.names == DATASET_SCHEMA.names
    assert {"manifest", "stages/pages", "stages/rated"} <= set(run.arm("strict").shared)
    assert "nothing to do" in succeeded(xl("run", path, "--out", out))
    assert "rows in" in succeeded(xl("plan", path, "--calibration", out, "--out", f"{googles_bucket}/runs/second"))
    assert not [*Path.cwd().glob("gs:*"), *tmp_path.rglob("*.parquet")], "nothing of the run is on this machine"


@pytest.mark.chaos
def test_random_kills_lose_and_double_no_row(bucket: str, tmp_path: Path) -> None:
    kills = kill_and_compare(2, SETTINGS["quick"], seed=12, folder=tmp_path, runs=place(bucket))
    assert kills.total() == 2
