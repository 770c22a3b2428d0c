"""Kill processes of a run at random moments, run the same command again, and compare with an undisturbed run.

python -m tests.chaos --kills 200 --engine scripted
python -m tests.chaos --kills 20 --engine vllm
python -m tests.chaos --kills 20 --object-store

With `cluster` the drivers join a Ray that outlives them, as on a real cluster: a killed driver's workers may still be at work when
the next driver begins. Otherwise each driver has a Ray of its own, which must be gone when it is killed.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import psutil

from tests.cluster import Cluster, cluster
from tests.object_store import object_store
from tests.support import assert_balanced, command, german_pages, outcomes, recipe, succeeded, traced, wait_until_gone, xl
from xl.engines.scripted import TRACE
from xl.execute import max_rows_redone
from xl.recipe import Model
from xl.storage import place, remove

STAGES = ["pages", "unique", "pairs", "contrasts", "rated", "accepted", "dataset"]

TARGETS = {
    "driver": lambda name: False,
    "engine actor": lambda name: "_EngineActor" in name,
    "ray agent": lambda name: "Agent" in name,
    "row worker": lambda name: "RowWorker" in name or "work_here" in name,
    "engine core": lambda name: name.startswith("VLLM::EngineCore"),
}


@dataclass
class Setting:
    """What is killed in: pages, models, and how long a life lasts before a kill."""

    num_pages: int
    writer: dict[str, object]
    life_seconds: tuple[float, float]
    targets: tuple[str, ...]
    cluster: bool = False
    rating: dict[str, object] = field(default_factory=dict)


SETTINGS = {
    "scripted": Setting(
        600,
        {"model": "scripted", "engine": "scripted", "delay_seconds": 0.2, "max_num_seqs": 16},
        (0.5, 10.0),
        ("driver", "engine actor", "row worker"),
        cluster=True,
    ),
    "quick": Setting(
        300,
        {"model": "scripted", "engine": "scripted", "delay_seconds": 0.25, "max_num_seqs": 32},
        (5.0, 12.0),
        ("driver", "engine actor", "row worker"),
        cluster=True,
    ),
    "vllm": Setting(
        240,
        # A kill puts rows into other batches, which in bfloat16 changes digits enough to change a word, and what is decided about it.
        {"model": "packaged/gemma-3-270m", "max_model_len": 1024, "max_num_seqs": 16, "dtype": "float32"},
        (10.0, 80.0),
        ("driver", "engine actor", "engine core"),
        rating={"num_contrasts": 2, "num_tokens": 24},
    ),
}


def kill_and_compare(  # type: ignore[no-untyped-def]
    num_kills: int, setting: Setting, seed: int, folder: Path, say=print, runs: Path | None = None
) -> Counter[str]:
    """Run, kill, run again … until so many kills have been survived; returns the kills by target. The runs are in `folder`, or in `runs`.

    Raises AssertionError when a row is lost, doubled or decided otherwise than in the undisturbed run, when a kill costs more than
    the rows in flight, or when a killed driver's processes stay behind.
    """
    draw = random.Random(seed)
    pages = german_pages(folder / "pages", setting.num_pages, files=2)
    path = recipe(folder / "recipe.yaml", pages, models={"writer": setting.writer}, rating=setting.rating)
    kills: Counter[str] = Counter()
    trace, runs = folder / "trace", runs or folder
    joined = cluster() if setting.cluster else contextlib.nullcontext()
    with mock.patch.dict(os.environ, {TRACE: str(trace)}), joined as running:
        join = running.join if running else []
        succeeded(xl("run", path, "--out", runs / "undisturbed", *join, timeout=3600))
        expected, requests = outcomes(runs / "undisturbed"), traced(trace)
        assert_balanced(runs / "undisturbed", STAGES)
        round_ = 0
        while kills.total() < num_kills:
            round_ += 1
            run, before = runs / f"run-{round_}", kills.total()
            trace.unlink(missing_ok=True)
            _disturbed(command("run", path, "--out", run, *join), running, setting, draw, kills, num_kills)
            here = kills.total() - before
            told = f"run {round_}: the rows differ from those of the undisturbed run"
            assert outcomes(run) == expected, f"{told}: {_differences(outcomes(run), expected)}"
            assert_balanced(run, STAGES)
            redone = (traced(trace) - requests).total()
            bound = here * bound_of_one_kill(setting)
            assert redone <= bound, f"run {round_}: {redone} requests were made again after {here} kills, at most {bound} may be"
            told = f"run {round_}: {here} kills ({kills.total()} in all), rows as undisturbed"
            say(f"{told}, {redone} requests redone (bound {bound})" if requests else told, flush=True)
            remove(run)
        if running:
            _assert_gone([p for p in psutil.Process(running.pid).children(recursive=True) if _matches(p, *setting.targets)])
    return kills


def _differences(found: dict[str, Counter[tuple[str, str]]], expected: dict[str, Counter[tuple[str, str]]]) -> str:
    """By stage: what is there too much and too little, at most three of each."""
    both = ((stage, found.get(stage, Counter()), expected.get(stage, Counter())) for stage in (*expected, *(found.keys() - expected)))
    sides = {stage: ([*(there - wanted)], [*(wanted - there)]) for stage, there, wanted in both if there != wanted}
    return "; ".join(f"{stage}: {len(more)} more {more[:3]}, {len(less)} less {less[:3]}" for stage, (more, less) in sides.items())


def bound_of_one_kill(setting: Setting) -> int:
    """Requests that may be under way when a process is killed: rows under way, five requests a row for the margin."""
    return 5 * max_rows_redone(Model.model_validate(setting.writer))


def _disturbed(
    arguments: list[str], running: Cluster | None, setting: Setting, draw: random.Random, kills: Counter[str], most: int
) -> None:
    """One run to its end, however many kills that takes."""
    while True:
        with tempfile.TemporaryFile("w+") as output:
            driver = subprocess.Popen(arguments, stdout=output, stderr=output)
            alive = True
            while alive and driver.poll() is None:
                try:
                    driver.wait(draw.uniform(*setting.life_seconds))
                except subprocess.TimeoutExpired:
                    if kills.total() < most:
                        alive = _kill_one(driver, running, setting, draw, kills)
            if alive:
                output.seek(0)
                assert driver.returncode == 0, output.read()[-6000:]
                return


def _kill_one(
    driver: "subprocess.Popen[bytes]", running: Cluster | None, setting: Setting, draw: random.Random, kills: Counter[str]
) -> bool:
    """Kill a process of the run; whether the driver lives on."""
    target = draw.choice(setting.targets)
    family = psutil.Process(running.pid if running else driver.pid).children(recursive=True)
    if target == "driver":
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        kills[target] += 1
        if not running:
            # Ray's own agents notice within two minutes; what holds rows, models or GPUs must be gone at once.
            _assert_gone([p for p in family if not _matches(p, "ray agent")])
        return False
    chosen = [p for p in family if _matches(p, target)]
    if chosen:
        draw.choice(chosen).kill()
        kills[target] += 1
    return True


def _assert_gone(processes: list[psutil.Process]) -> None:
    left = wait_until_gone(processes)
    assert not left, f"left running: {[p.name() for p in left]}"


def _matches(process: psutil.Process, *targets: str) -> bool:
    try:
        return any(TARGETS[target](" ".join(process.cmdline())) for target in targets)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--engine", choices=SETTINGS, default="scripted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--object-store", action="store_true", help="have the runs in an object store of this machine")
    arguments = parser.parse_args()
    started = time.monotonic()
    store = object_store() if arguments.object_store else contextlib.nullcontext()
    with tempfile.TemporaryDirectory(prefix="xl-chaos-") as folder, store as bucket:
        runs = place(bucket or folder)
        kills = kill_and_compare(arguments.kills, SETTINGS[arguments.engine], arguments.seed, Path(folder), runs=runs)
    by_target = ", ".join(f"{target} {count}" for target, count in kills.most_common())
    print(f"{kills.total()} kills survived ({by_target}) in {time.monotonic() - started:,.0f} s: no row lost, doubled or decided otherwise")


if __name__ == "__main__":
    main()
