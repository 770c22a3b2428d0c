"""Training on Ray Train: a lost worker is replaced, a lost driver is forgiven, and neither changes the curve."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support import ROOT, wait_until_gone
from tests.training import SETTINGS, Bench, training
from xl.train.metrics import read_metrics

pytestmark = [pytest.mark.ray, pytest.mark.chaos]

NUM_STEPS = 36
KEYS = {**SETTINGS, "max_steps": NUM_STEPS, "save_every": 8, "workers": 2, "zero": 2}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("train"))
    bench.run(training("whole", **{key: value for key, value in KEYS.items() if key != "workers"}), workers=2)
    return bench


def start(bench: Bench, out: str) -> subprocess.Popen[str]:
    command = [sys.executable, "jobs/train.py", str(bench.root / "pairs.jsonl"), "--model", str(bench.root / "base")]
    command += ["--out", str(bench.root / out), *(f"--set={key}={json.dumps(value)}" for key, value in KEYS.items())]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=env)


def finished(job: subprocess.Popen[str]) -> str:
    output, _ = job.communicate(timeout=900)
    assert job.returncode == 0, output[-4000:]
    return output


def wait_for_step(bench: Bench, out: str, job: subprocess.Popen[str]) -> int:
    """Wait until a step drawn at random has been noted."""
    step = random.Random().randint(10, NUM_STEPS // 2)
    end = time.monotonic() + 300
    while len(noted := read_metrics(bench.root / out / "metrics.jsonl")) < step:
        assert job.poll() is None and time.monotonic() < end, job.communicate()[0][-4000:]
        time.sleep(0.02)
    assert len(noted) < NUM_STEPS
    return step


def workers_of(job: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(job.pid).children(recursive=True)
    return [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]


def test_a_killed_worker_is_replaced_and_the_run_ends_as_an_undisturbed_one(bench: Bench) -> None:
    job = start(bench, "worker")
    step = wait_for_step(bench, "worker", job)
    random.Random().choice(workers_of(job)).send_signal(signal.SIGKILL)
    assert f"in {NUM_STEPS} steps" in finished(job)
    assert bench.losses("worker") == pytest.approx(bench.losses("whole"), rel=1e-6), f"killed after step {step}"


def test_after_a_killed_driver_the_same_command_goes_on(bench: Bench) -> None:
    job = start(bench, "driver")
    step = wait_for_step(bench, "driver", job)
    started = psutil.Process(job.pid).children(recursive=True)
    job.kill()
    job.wait()
    assert f"in {NUM_STEPS} steps" in finished(start(bench, "driver"))
    assert bench.losses("driver") == pytest.approx(bench.losses("whole"), rel=1e-6), f"killed after step {step}"
    assert not wait_until_gone(started), "processes of the killed run are still alive"


def test_a_mistake_is_one_line(bench: Bench, tmp_path: Path) -> None:
    command = [sys.executable, "jobs/train.py", str(bench.root / "pairs.jsonl"), "--model", str(bench.root / "base")]
    command += ["--out", str(bench.root / "whole"), "--set=max_steps=7", "--no-ray"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2
    assert "train.max_steps: 36 → 7" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
