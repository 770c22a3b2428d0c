"""Training on Ray Train: a lost worker is replaced, a lost driver is forgiven, and neither changes the curve."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from cluster.local import local_cluster
from tests.support import ROOT, here, job, wait_for, wait_until_gone
from tests.training import SETTINGS, Bench, folder_of, training
from xl.train.metrics import read_metrics

pytestmark = [pytest.mark.ray, pytest.mark.chaos]

NUM_STEPS = 72
KEYS = {**SETTINGS, "max_steps": NUM_STEPS, "save_every": 8, "workers": 2, "zero": 2}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("train"))
    bench.fork(training("whole", **{key: value for key, value in KEYS.items() if key != "workers"}), workers=2)
    return bench


def start(bench: Bench, out: str, *more: str, **changes: object) -> subprocess.Popen[str]:
    command = [sys.executable, "jobs/train.py", str(bench.root / "pairs.jsonl"), "--model", str(bench.root / "base"), *more]
    command += [
        "--out",
        str(folder_of(bench.root, out)),
        *(f"--set={key}={json.dumps(value)}" for key, value in {**KEYS, **changes}.items()),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=env)


def wait_for_step(bench: Bench, driver: subprocess.Popen[str], out: str, first: int, last: int) -> int:
    """Wait until a step drawn at random has been noted."""
    step = random.Random().randint(first, last)
    end = time.monotonic() + 300
    while len(noted := read_metrics(folder_of(bench.root, out) / "metrics.jsonl")) < step:
        assert driver.poll() is None and time.monotonic() < end, driver.communicate()[0][-4000:]
        time.sleep(0.5)  # asking the store more often would take the time that the workers want
    assert len(noted) < NUM_STEPS
    return step


def workers_of(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(driver.pid).children(recursive=True)
    return [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]


def test_a_killed_worker_is_replaced_and_after_a_killed_driver_the_same_command_goes_on(bench: Bench, bucket: str) -> None:
    """In an object store, which is told of the steps at each checkpoint; in a folder the training of the next test is."""
    out = f"{bucket}/killed"
    driver = start(bench, out)
    first = wait_for_step(bench, driver, out, 5, NUM_STEPS // 4)
    random.Random().choice(workers_of(driver)).send_signal(signal.SIGKILL)
    second = wait_for_step(bench, driver, out, first + 9, NUM_STEPS * 3 // 4)
    started = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    output, _ = (again := start(bench, out)).communicate(timeout=900)
    assert again.returncode == 0 and f"in {NUM_STEPS} steps" in output, output[-4000:]
    assert bench.losses(out) == pytest.approx(bench.losses("whole"), rel=1e-6), f"killed after steps {first} and {second}"
    assert not wait_until_gone(started), "processes of the killed run are still alive"


def newest_workers(bench: Bench) -> int:
    """How many workers wrote the newest checkpoint."""
    written = sorted((bench.root / "elastic" / "checkpoints").glob("step-*/progress.json"))
    with contextlib.suppress(FileNotFoundError):  # it was the oldest, and is gone
        return int(json.loads(written[-1].read_text())["workers"]) if written else 0
    return 0


def test_a_training_has_fewer_workers_when_a_node_is_lost_and_all_again_when_one_comes(bench: Bench) -> None:
    # A schedule that does not depend on how many steps there are, since the test ends when it has seen both. And slow learning: sums
    # over one worker and over two round differently, which 600 undisturbed steps at 1e-3 grow to 3 % of the loss, and at 1e-4 to 1e-7.
    steady = {"schedule": "constant", "warmup_ratio": 0, "learning_rate": 1e-4, "zero": 2, "save_every": 8}
    with local_cluster(num_pages=2, num_engines=0) as cluster:
        elastic = {"min_workers": 1, "resize_seconds": 5, "max_steps": 100_000}
        driver = start(bench, "elastic", "--address", cluster.address, **steady, **elastic)

        def wait_for_workers(number: int) -> None:
            wait_for(lambda: driver.poll() is not None or newest_workers(bench) == number, seconds=900)
            assert driver.poll() is None, driver.communicate()[0][-4000:]

        wait_for_workers(2)
        cluster.remove(cluster.nodes["pages"][-1], graceful=False)
        wait_for_workers(1)
        cluster.add("pages")
        wait_for_workers(2)
        driver.kill()
        driver.wait()
    losses = bench.losses("elastic")
    bench.fork(training("steady", **steady, max_steps=len(losses)), workers=2)
    assert losses == pytest.approx(bench.losses("steady"), rel=1e-5)


def test_a_mistake_is_one_line(bench: Bench) -> None:
    arguments = [bench.root / "pairs.jsonl", "--model", bench.root / "base", "--out", bench.root / "whole", "--set=max_steps=7", "--no-ray"]
    done = here(*arguments, main=job("train"))
    assert done.returncode == 2
    assert f"train.max_steps: {NUM_STEPS} → 7" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
