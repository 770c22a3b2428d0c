"""The arithmetic of cluster/SCALE.md."""

from pathlib import Path

import pytest

from xl.planning.measure import measure
from xl.planning.scale import PASSES, Size, num_resume_operations, passes_of
from xl.planning.scenario import Timings


def test_a_resume_looks_at_every_shard_of_every_stage() -> None:
    found = num_resume_operations(1_000, 0.5)
    # pages: found done, then closed twice; unique: looked for, closed twice; of the pass of four, 500 shards are looked at 1 + 4 times.
    assert found == {"footers read": 3_000 + 2_000 + 500 * 5, "files looked for": 1_000 + 500}
    assert num_resume_operations(1_000, 0.0) == {"footers read": 5_000, "files looked for": 2_000}


def test_rows_get_fewer_from_pass_to_pass() -> None:
    works = passes_of(Size(10**9, 1000, 10.0), Timings())
    rows = [work.num_rows for work in works]
    assert rows == sorted(rows, reverse=True) and works[0].num_shards == 10_000 and works[1].num_shards == 500_000
    assert sum(work.num_stages for work in works[1:]) == sum(stages for _, stages in PASSES)


def test_costs_are_measured_and_are_plausible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("NUM_PAGES", 1_000), ("NUM_SHARDS", 1_000), ("NUM_SURVEYED", 4_000)):
        monkeypatch.setattr(f"xl.planning.measure.{name}", count)
    costs = measure(tmp_path)
    assert 300 < costs.shard_bytes < 2_000 and 60 < costs.json_bytes < 400
    assert 16 < costs.manifest_disk_bytes < 100 and 150 < costs.survey_bytes < 600
    assert 300 < costs.chosen_bytes < 1_500 and 30 < costs.state_bytes < 100
    assert all(0 < seconds < 1 for seconds in costs.timings.values())
