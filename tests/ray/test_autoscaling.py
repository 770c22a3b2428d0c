"""A cluster that grows with the rows that wait and shrinks after them."""

import subprocess
from pathlib import Path

import pytest

from cluster.local import Autoscaler, local_cluster
from tests.chaos import STAGES
from tests.support import ROOT, assert_balanced, command, german_pages, recipe

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

MOST = 3
WRITER = {
    **{"model": "scripted", "engine": "scripted", "gpus": 1, "cpus": 0, "replicas": [1, MOST]},
    **{"max_num_seqs": 8, "delay_seconds": 0.5, "idle_seconds": 2},
}


def test_nodes_with_gpus_rise_from_none_to_the_most_with_the_rows_that_wait_and_fall_to_none_after(tmp_path: Path) -> None:
    path = recipe(tmp_path / "recipe.yaml", german_pages(tmp_path / "pages", 400, files=2), models={"writer": WRITER})
    with local_cluster(num_pages=1, num_engines=0) as cluster, open(tmp_path / "log", "w") as log:
        scaler = Autoscaler(cluster, "engines", MOST, idle_seconds=2)
        arguments = command("run", path, "--out", tmp_path / "run", "--address", cluster.address)
        driver = subprocess.Popen(arguments, cwd=ROOT, stdout=log, stderr=log)
        scaler.work(lambda: driver.poll() is not None and not cluster.nodes["engines"])
    assert driver.returncode == 0, (tmp_path / "log").read_text()[-4000:]
    assert_balanced(tmp_path / "run", STAGES)
    print(scaler.timeline())
    assert scaler.looks[0].num_nodes == scaler.looks[-1].num_nodes == 0, scaler.timeline()
    assert max(look.num_nodes for look in scaler.looks) == MOST, scaler.timeline()
