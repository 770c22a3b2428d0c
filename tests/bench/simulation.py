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
from tests.support import ROOT, command, german_pages, recipe, succeeded, xl
from xl.methods import load_recipe
from xl.planning.command import Request, answer
from xl.planning.simulate import Outcome

NUM_PAGES_NODES, NUM_ENGINES = 2, 4
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


@dataclass(frozen=True)
class Loss:
    """A node of an engine that is taken without notice, and replaced."""

    seconds: float
    """From the start of the command."""
    start_seconds: float
    """Of them, those before the run begins."""


@dataclass(frozen=True)
class Timed:
    """A run that was timed."""

    recipe: Path
    seconds: float
    """Without what a command takes that finds nothing to do; joining the cluster is counted."""
    start_seconds: float


def simulation(folder: Path) -> dict[str, dict[str, float]]:
    """Foretold seconds over measured ones, for each recipe undisturbed and with a lost node."""
    found: dict[str, dict[str, float]] = {}
    with mock.patch.dict(os.environ, RAY_AUTH_MODE="token"), local_cluster(NUM_PAGES_NODES, NUM_ENGINES) as cluster:
        for number, (name, case) in enumerate(CASES.items()):
            at = folder / str(number)
            _run(cluster, case, case.num_calibration, at / "calibration")
            timed = _run(cluster, case, case.num_pages, at / "undisturbed")
            found[name] = {"undisturbed": _compared(f"{name}, undisturbed", timed, case, at)}
            loss = Loss(timed.start_seconds + timed.seconds / 2, timed.start_seconds)
            timed = _run(cluster, case, case.num_pages, at / "disturbed", loss)
            found[name]["with a lost node"] = _compared(f"{name}, with a lost node", timed, case, at, loss)
    return found


def _run(cluster: LocalCluster, case: Case, num_pages: int, folder: Path, loss: Loss | None = None) -> Timed:
    """Run the case's recipe; the same command once more, which finds nothing to do, says how long it takes to begin."""
    folder.mkdir(parents=True)
    path = recipe(folder / "recipe.yaml", german_pages(folder / "pages", num_pages, files=2), models=case.models, rating=case.rating)
    arguments = command("run", path, "--out", folder / "run", "--address", cluster.address)
    began = time.monotonic()
    with open(folder / "log", "w") as log:
        driver = subprocess.Popen(arguments, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        if loss is not None:
            time.sleep(loss.seconds)
            cluster.remove(cluster.nodes["engines"][0], graceful=False)
            cluster.add("engines")
        assert driver.wait() == 0, (folder / "log").read_text()[-4000:]
    ended = time.monotonic()
    succeeded(xl("run", path, "--out", folder / "run", "--address", cluster.address))
    start_seconds = time.monotonic() - ended
    return Timed(path, ended - began - start_seconds, start_seconds)


def _compared(name: str, timed: Timed, case: Case, folder: Path, loss: Loss | None = None) -> float:
    """Foretold over measured seconds."""
    outcome = _foretold(timed.recipe, case, folder, loss)
    ratio = outcome.seconds / timed.seconds
    print(f"{name}: {outcome.seconds:.0f} s foretold, {timed.seconds:.0f} s measured, {ratio:.3f}", flush=True)
    return ratio


def _foretold(path: Path, case: Case, folder: Path, loss: Loss | None) -> Outcome:
    """What the simulation says."""
    cluster, losses = folder / "cluster.yaml", folder / "losses"
    cluster.write_text(yaml.safe_dump(_as_ray_up()))
    if loss is not None:
        losses.write_text(f"{loss.seconds - loss.start_seconds}\n")
    request = Request(
        folder / "plan",
        calibration=folder / "calibration" / "run",
        cluster=cluster,
        num_pages=case.num_pages,
        timings=TIMINGS,
        simulate=True,
        preemptions=str(losses) if loss is not None else None,
        notice_seconds=0,
    )
    simulated = answer(load_recipe(path), request).simulation
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
