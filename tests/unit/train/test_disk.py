"""A training on a disk that is too small, or that others fill meanwhile."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.support import ROOT, fill, small_disk
from tests.training import SETTINGS, Bench
from xl.train.metrics import read_metrics


def start(bench: Bench, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "jobs/train.py", str(bench.root / "pairs.jsonl"), "--model", str(bench.root / "base"), "--out", str(out)]
    command += ["--no-ray", *(f"--set={key}={json.dumps(value)}" for key, value in {**SETTINGS, "max_steps": 100}.items())]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env)


def complaint(job: subprocess.Popen[str]) -> str:
    _, complaint = job.communicate(timeout=900)
    assert job.returncode == 2 and "Traceback" not in complaint, complaint
    return complaint


def test_a_training_that_will_not_find_room_is_refused_before_its_first_step(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with small_disk(tmp_path / "disk", "1m") as disk:
        assert "the training needs about 1." in complaint(start(bench, disk / "out"))
        assert not (disk / "out" / "metrics.jsonl").exists()


def test_a_disk_that_others_fill_is_named_and_the_training_goes_on_once_there_is_room(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with small_disk(tmp_path / "disk", "32m") as disk:
        job = start(bench, disk / "out")
        while not read_metrics(disk / "out" / "metrics.jsonl"):
            assert job.poll() is None, job.communicate()
            time.sleep(0.02)
        filler = fill(disk)
        assert "xl: the disk is full" in complaint(job)
        filler.unlink()
        again = start(bench, disk / "out")
        assert (again.communicate(timeout=900), again.returncode)[1] == 0
        assert len(read_metrics(disk / "out" / "metrics.jsonl")) == 100
