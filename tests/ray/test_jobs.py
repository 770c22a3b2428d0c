"""Runs as jobs of a cluster with a dashboard: where their work is done, how they end, and who may write."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from tests.cluster import cluster
from tests.support import ROOT, assert_balanced, free_port, german_pages, outcomes, recipe, rows, succeeded, xl

pytestmark = pytest.mark.ray

KEYS = ("RAY_AUTH_TOKEN", "OPENAI_API_KEY", "HF_TOKEN", "XL_API_KEYS", "AWS_SECRET_ACCESS_KEY")
SECRETS = {name: f"{name.lower()}-that-nobody-is-to-see" for name in KEYS}
"""What whoever submits has in the environment, and all processes of the cluster."""

NUM_PAGES, NUM_ENGINES = map(int, os.environ.get("XL_TEST_NODES", "1,2").split(","))
"""Nodes of the cluster; with `XL_TEST_NODES=3,4` it has as many as a small real one."""

RAYS_OWN = {"JobSupervisor", "_AutoscalingCoordinatorActor", "ActorLocationTracker", "_StatsActor", "_DatasetStatsActor"}
"""What Ray itself has on the head: the job's driver, and what Ray Data keeps its books with. They claim no CPU."""

STAGES = ["pages", "unique", "pairs", "contrasts", "rated", "accepted", "dataset"]


@dataclass(frozen=True)
class Jobs:
    """A cluster of a head, nodes for pages and nodes for engines; where it takes jobs, and what the jobs see of the project."""

    url: str
    address: str
    session: Path
    """Where Ray keeps its logs."""
    checkout: Path

    def submit(self, path: Path, out: Path, *more: str) -> "subprocess.CompletedProcess[str]":
        return xl("submit", path, "--cluster", self.url, "--out", out, "--working-dir", self.checkout, *more)


@contextlib.contextmanager
def local_jobs(num_pages: int, num_engines: int, checkout: Path) -> Iterator[Jobs]:
    """A cluster that somebody has started in another terminal."""
    port = free_port()
    command = [sys.executable, "cluster/local.py", f"--pages={num_pages}", f"--engines={num_engines}", f"--dashboard-port={port}"]
    owner = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    try:
        told = dict(owner.stdout.readline().strip().split(": ", 1) for _ in range(3))
        yield Jobs(told["cluster"], told["address"], Path(told["logs"]).parent, checkout)
    finally:
        owner.terminate()
        owner.wait(60)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    checkout = tmp_path_factory.mktemp("checkout")
    for part in ("xl", "jobs"):
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    with mock.patch.dict(os.environ, {"RAY_AUTH_MODE": "token", **SECRETS}), local_jobs(NUM_PAGES, NUM_ENGINES, checkout) as jobs:
        yield jobs


def scripted(jobs: Jobs, name: str, pages: Path, **writer: object) -> Path:
    """A recipe inside the checkout that asks engines of one logical GPU each."""
    model = {"model": "scripted", "engine": "scripted", "gpus": 1, "cpus": 0, "replicas": [1, NUM_ENGINES], "max_num_seqs": 8, **writer}
    return recipe(jobs.checkout / f"{name}.yaml", pages, models={"writer": model})


def where_it_ran(jobs: Jobs) -> dict[str, set[str]]:
    """The pools of the nodes that each kind of process was on, by the name of its class or function, as Ray's state API tells."""
    # In a process of its own: Ray reads how it is to authenticate when it is first imported.
    told = subprocess.run([sys.executable, "-c", PLACES, jobs.url], capture_output=True, text=True, check=True).stdout
    return {name: set(pools) for name, pools in json.loads(told.splitlines()[-1]).items()}


PLACES = """
import json, sys
from ray.util.state import list_actors, list_nodes, list_tasks
asked = {"address": sys.argv[1], "limit": 10_000, "detail": True}
pools = {node.node_id: node.labels["xl/pool"] for node in list_nodes(**asked)}
seen = {}
for actor in list_actors(**asked):
    if actor.node_id:
        seen.setdefault(actor.class_name, set()).add(pools[actor.node_id])
for task in list_tasks(**asked):
    if task.type == "NORMAL_TASK" and task.node_id:
        seen.setdefault(task.name, set()).add(pools[task.node_id])
print(json.dumps({name: sorted(places) for name, places in seen.items()}))
"""


@pytest.fixture(scope="module")
def finished(jobs: Jobs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that was submitted and came to its end: its recipe and its folder."""
    folder = tmp_path_factory.mktemp("finished")
    path = scripted(jobs, "first", german_pages(folder / "pages", 100, files=2), delay_seconds=0.05)
    with cluster():  # another Ray on the machine, which is not the job's
        told = succeeded(jobs.submit(path, folder / "run"))
    assert "pairs: 100 rows" in told, told
    return path, folder / "run"


def test_a_submitted_run_accounts_for_every_row_and_a_second_submission_has_nothing_to_do(jobs: Jobs, finished: tuple[Path, Path]) -> None:
    path, out = finished
    assert_balanced(out, STAGES)
    assert "nothing to do" in succeeded(jobs.submit(path, out))


def test_engines_are_on_gpu_nodes_all_other_work_on_those_for_pages_and_none_on_the_head(jobs: Jobs, finished: tuple[Path, Path]) -> None:
    places = where_it_ran(jobs)
    assert places["_EngineActor"] == {"engines"}
    assert {name for name, pools in places.items() if "engines" in pools} <= {"_EngineActor", "_holds"}
    for name in ("_EngineHost", "MapWorker(MapBatches(RowWorker))", "_seal", "_decide", "MapBatches(_read)"):
        assert places[name] == {"pages"}, name
    assert {name for name, pools in places.items() if "head" in pools} <= RAYS_OWN | {"_holds"}


def test_a_mistake_of_the_user_ends_the_job_with_its_line_and_is_not_tried_again(jobs: Jobs, tmp_path: Path) -> None:
    path = scripted(jobs, "wrong", tmp_path / "nowhere")
    done = jobs.submit(path, tmp_path / "run")
    assert done.returncode == 2 and done.stdout.count("submitted") == 1
    assert "nowhere" in done.stdout and "Traceback" not in done.stdout


@pytest.mark.parametrize("environment", [{"RAY_AUTH_TOKEN": "another-token"}, {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}])
def test_a_cluster_lets_nobody_in_without_its_token(jobs: Jobs, tmp_path: Path, environment: dict[str, str]) -> None:
    path = scripted(jobs, "stranger", tmp_path)
    with mock.patch.dict(os.environ, environment):
        done = jobs.submit(path, tmp_path / "run")
    assert done.returncode == 2 and "the cluster wants a token" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_cluster_of_this_machine_makes_a_token_for_its_user(tmp_path: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    path = scripted(jobs, "own", tmp_path / "nowhere")
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    with local_jobs(1, 0, jobs.checkout) as own:
        let_in = own.submit(path, tmp_path / "run")
        monkeypatch.setenv("HOME", str(tmp_path / "stranger"))
        kept_out = own.submit(path, tmp_path / "run")
    assert let_in.returncode == kept_out.returncode == 2
    assert "nowhere" in let_in.stdout and "the cluster wants a token" in kept_out.stderr


def test_a_run_that_is_killed_on_the_cluster_is_started_again_and_loses_nothing(jobs: Jobs, tmp_path: Path) -> None:
    pages = german_pages(tmp_path / "pages", 200)
    path = scripted(jobs, "killed", pages, delay_seconds=0.3)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "xl.cli", "submit", path, "--cluster", jobs.url, "--out", out, "--working-dir", jobs.checkout]
    submission = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while not list(out.glob("stages/pairs/log/*/*.arrow")):
        assert submission.poll() is None, f"the run ended before it could be killed: {submission.communicate()[0]}"
    second = xl("run", path, "--out", out, "--address", jobs.address)
    assert second.returncode == 2 and "another run is at work there" in second.stderr
    holder = json.loads(next((out / "lease").glob("*.json")).read_text())
    os.kill(holder["pid"], signal.SIGKILL)
    told, _ = submission.communicate(timeout=600)
    assert submission.returncode == 0 and "starting it again (1 of 3)" in told, told[-3000:]
    assert_balanced(out, STAGES)
    assert set().union(*(found.values() for found in outcomes(out).values())) == {1}
    assert len(rows(out, "pages")) == 200


def test_no_secret_gets_into_the_run_or_into_rays_logs(jobs: Jobs, finished: tuple[Path, Path]) -> None:
    logs = jobs.session / "logs"
    files = [file for folder in (finished[1], logs) for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 20
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            content = file.read_bytes()
            found = [name for name, secret in SECRETS.items() if secret.encode() in content]
            assert not found, f"{file} holds {found}"
