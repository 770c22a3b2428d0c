"""Whether `xl plan --simulate` foretells how long runs take, on a cluster whose nodes are processes of this machine.

For each recipe a small run is the calibration. Then a larger one is timed on the same cluster, undisturbed and with a node of an engine
lost in the middle, and held against its simulation. What start-ups take here is in `local_timings.yaml`; the engines are scripted, so that
all else is what has to be foretold.
"""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from cluster.local import GROUPS, LocalCluster, local_cluster
from tests.support import ROOT, command, german_pages, recipe
from xl.methods import load_recipe
from xl.planning.command import Request, answer
from xl.planning.simulate import Outcome

NUM_PAGES_NODES, NUM_ENGINES = 2, 4
NUM_WARM_UP = 100
TIMINGS = Path(__file__).with_name("local_timings.yaml")
WRITER: dict[str, Any] = {"model": "scripted", "engine": "scripted", "gpus": 1, "cpus": 0, "max_num_seqs": 8, "delay_seconds": 2.0}


@dataclass(frozen=True)
class Case:
    """A recipe, and how many pages its runs have."""

    models: dict[str, Any]
    rating: dict[str, Any]
    num_calibration: int = 1_200
    num_pages: int = 4_800


CASES = {
    "one model, rated by likelihood": Case({"writer": {**WRITER, "replicas": [1, NUM_ENGINES]}}, {"num_contrasts": 2}),
    "one model, rated by prompt": Case({"writer": {**WRITER, "replicas": [2, 2]}}, {"rater": "prompted"}),
    "two models": Case(
        {"writer": {**WRITER, "replicas": [1, 2]}, "rater": {**WRITER, "replicas": [1, 2], "delay_seconds": 1.0}}, {"rater": "prompted"}
    ),
}


def simulation(folder: Path) -> dict[str, dict[str, float]]:
    """Foretold seconds over measured ones, for each recipe undisturbed and with a node of an engine lost halfway, and replaced."""
    found: dict[str, dict[str, float]] = {}
    with mock.patch.dict(os.environ, RAY_AUTH_MODE="token"), local_cluster(NUM_PAGES_NODES, NUM_ENGINES) as cluster:
        for number, (name, case) in enumerate(CASES.items()):
            at = folder / str(number)
            if not found:  # nodes start most of their processes for the first run that they see
                _run(cluster, case, NUM_WARM_UP, at / "warm-up")
            _run(cluster, case, case.num_calibration, at / "calibration")
            seconds = _run(cluster, case, case.num_pages, at / "undisturbed")
            found[name] = {"undisturbed": _compared(f"{name}, undisturbed", seconds, case, at / "undisturbed")}
            lost_at = seconds / 2
            seconds = _run(cluster, case, case.num_pages, at / "disturbed", lost_at)
            found[name]["with a lost node"] = _compared(f"{name}, with a lost node", seconds, case, at / "disturbed", lost_at)
    return found


def _run(cluster: LocalCluster, case: Case, num_pages: int, folder: Path, lost_at: float | None = None) -> float:
    """Seconds of the command that runs the case's recipe."""
    folder.mkdir(parents=True)
    path = recipe(folder / "recipe.yaml", german_pages(folder / "pages", num_pages, files=2), models=case.models, rating=case.rating)
    arguments = command("run", path, "--out", folder / "run", "--address", cluster.address)
    began = time.monotonic()
    with open(folder / "log", "w") as log:
        driver = subprocess.Popen(arguments, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        if lost_at is not None:
            time.sleep(lost_at)
            cluster.remove(cluster.nodes["engines"][0], graceful=False)
            cluster.add("engines")
        assert driver.wait() == 0, (folder / "log").read_text()[-4000:]
    return time.monotonic() - began


def _compared(name: str, seconds: float, case: Case, folder: Path, lost_at: float | None = None) -> float:
    """Foretold over measured seconds."""
    foretold = _foretold(case, folder, lost_at).seconds
    print(f"{name}: {foretold:.0f} s foretold, {seconds:.0f} s measured, {foretold / seconds:.3f}", flush=True)
    return foretold / seconds


def _foretold(case: Case, folder: Path, lost_at: float | None) -> Outcome:
    """What the simulation says of the run in this folder."""
    cluster, losses = folder / "cluster.yaml", folder / "losses"
    cluster.write_text(yaml.safe_dump(_as_ray_up()))
    if lost_at is not None:
        losses.write_text(f"{lost_at}\n")
    request = Request(
        folder / "plan",
        calibration=folder.parent / "calibration" / "run",
        cluster=cluster,
        num_pages=case.num_pages,
        timings=TIMINGS,
        simulate=True,
        preemptions=str(losses) if lost_at is not None else None,
        notice_seconds=0,
    )
    simulated = answer(load_recipe(folder / "recipe.yaml"), request).simulation
    assert simulated is not None
    return simulated


def _as_ray_up() -> dict[str, Any]:
    """The cluster as `xl plan --cluster` reads one."""
    counts = {"head": 0, "pages": NUM_PAGES_NODES, "engines": NUM_ENGINES}
    types: dict[str, Any] = {}
    for name, group in GROUPS.items():
        resources = {"CPU": group["num_cpus"], "GPU": group.get("num_gpus", 0)}
        labels = {**group["labels"], **({"ray.io/market-type": "spot"} if name == "engines" else {})}
        bounds = {"min_workers": counts[name], "max_workers": counts[name]} if counts[name] else {}
        types[name] = {"resources": resources, "labels": labels, "node_config": {}, **bounds}
    return {
        "cluster_name": "local",
        "provider": {"type": "aws"},
        "head_node_type": "head",
        "max_workers": sum(counts.values()),
        "available_node_types": types,
    }
