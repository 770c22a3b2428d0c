"""What a cluster does to a run, at random moments, on nodes that are processes of this machine: afterwards the rows are those of an
undisturbed run.

python -m tests.faults --each 10 --mixed 30

Each fault is tried alone, so many times; then all in random turn. A poison row ends the process of each engine that it is given. Drained
nodes are taken away 30 seconds after they are told so, and may cost nothing.
"""

import argparse
import contextlib
import os
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import psutil

from cluster.local import LocalCluster, local_cluster
from tests.chaos import STAGES, TARGETS, Setting, bound_of_one_kill
from tests.support import (
    assert_balanced,
    command,
    fill,
    german_pages,
    outcomes,
    poisoned,
    recipe,
    small_disk,
    succeeded,
    traced,
    wait_for,
    xl,
)
from xl.engines.scripted import TRACE

NUM_PAGES_NODES, NUM_ENGINE_NODES = 2, 3
NOTICE_SECONDS = 30.0
DISK = "256m"
POISONED = "poison row"

SETTING = Setting(
    600,
    {"model": "scripted", "engine": "scripted", "gpus": 1, "cpus": 0, "replicas": [1, 3], "delay_seconds": 0.2, "max_num_seqs": 8},
    (2.0, 12.0),
    (),
)


@dataclass
class Field:
    """A cluster, a run on it, and what may befall them. Each fault says whether the driver lives on."""

    draw: random.Random
    out: Path
    cluster: LocalCluster
    stack: contextlib.ExitStack
    leaving: list[tuple[float, object]] = field(default_factory=list)

    @classmethod
    def on_a_cluster(cls, draw: random.Random, out: Path) -> "Field":
        stack = contextlib.ExitStack()
        return cls(draw, out, stack.enter_context(local_cluster(NUM_PAGES_NODES, NUM_ENGINE_NODES)), stack)

    def _lose(self, group: str) -> bool:
        self.cluster.remove(self.draw.choice(self.cluster.nodes[group]), graceful=False)
        self.cluster.add(group)
        return True

    def engine_node(self, driver: "subprocess.Popen[bytes]") -> bool:
        return self._lose("engines")

    def pages_node(self, driver: "subprocess.Popen[bytes]") -> bool:
        return self._lose("pages")

    def drain(self, driver: "subprocess.Popen[bytes]") -> bool:
        staying = [node for node in self.cluster.nodes["engines"] if node not in [gone for _, gone in self.leaving]]
        node = self.draw.choice(staying)
        self.cluster.drain(node, NOTICE_SECONDS)
        self.cluster.add("engines")
        self.leaving.append((time.monotonic() + NOTICE_SECONDS, node))
        return True

    def take_away(self) -> None:
        """End the drained nodes whose time is up."""
        for due, node in [*self.leaving]:
            if time.monotonic() > due:
                self.leaving.remove((due, node))
                self.cluster.remove(node, graceful=False)

    def engine(self, driver: "subprocess.Popen[bytes]") -> bool:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if TARGETS["engine actor"](" ".join(process.cmdline())):
                    process.kill()
                    break
        return True

    def driver(self, driver: "subprocess.Popen[bytes]") -> bool:
        driver.kill()
        driver.wait()
        return False

    def head(self, driver: "subprocess.Popen[bytes]") -> bool:
        """All of the cluster at once; another one takes its place."""
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        driver.wait()
        with contextlib.suppress(Exception):  # there is nothing left to end
            self.stack.close()
        self.leaving.clear()
        self.stack = contextlib.ExitStack()
        self.cluster = self.stack.enter_context(local_cluster(NUM_PAGES_NODES, NUM_ENGINE_NODES))
        return False

    def disk(self, driver: "subprocess.Popen[bytes]") -> bool:
        """No room where the run is, until the driver has ended for it."""
        filler = fill(self.out)
        code = driver.wait(300)
        filler.unlink()
        assert code in (0, 2), f"the driver ended with {code} when its disk was full"
        return code == 0


FAULTS: dict[str, Callable[[Field, "subprocess.Popen[bytes]"], bool]] = {
    "engine node": Field.engine_node,
    "pages node": Field.pages_node,
    "drain": Field.drain,
    "engine": Field.engine,
    "driver": Field.driver,
    "head": Field.head,
    "disk": Field.disk,
}


def fault_and_compare(
    faults: tuple[str, ...],
    most: int,
    seed: int,
    folder: Path,
    num_poisoned: int = 0,
    say: Callable[..., None] = print,
) -> Counter[str]:
    """So many faults, over as many runs as that takes, each compared with an undisturbed run over the same pages.

    Raises AssertionError when a row is lost, doubled or decided otherwise, or when a fault costs more than the rows under way.
    """
    draw = random.Random(seed)
    pages = german_pages(folder / "pages", SETTING.num_pages, files=2)
    path = recipe(folder / "recipe.yaml", poisoned(pages, num_poisoned) if num_poisoned else pages, models={"writer": SETTING.writer})
    trace, done, number = folder / "trace", Counter[str](), 0
    with mock.patch.dict(os.environ, {TRACE: str(trace), "RAY_AUTH_MODE": "token"}):
        scene = Field.on_a_cluster(draw, folder)
        try:
            undisturbed = folder / "undisturbed"
            succeeded(xl("run", path, "--out", undisturbed, "--address", scene.cluster.address, timeout=3600))
            expected, requests = outcomes(undisturbed), traced(trace)
            assert_balanced(undisturbed, STAGES)
            failed = sum(count for (_, status), count in expected["pairs"].items() if status == "failed")
            assert failed == num_poisoned, f"{failed} rows failed, {num_poisoned} are what engines die of"
            while done.total() < most:
                before, number = done.total(), number + 1
                trace.unlink(missing_ok=True)
                with small_disk(folder / f"run-{number}", DISK) as run:
                    scene.out = run
                    _disturbed(path, run, scene, faults, done, most)
                    here = done.total() - before
                    found = outcomes(run)
                    differ = {stage: [*((found[stage] - expected[stage]) + (expected[stage] - found[stage]))] for stage in expected}
                    assert found == expected, f"{faults}: these rows differ from those of the undisturbed run: {differ}"
                    assert_balanced(run, STAGES)
                redone = (traced(trace) - requests).total()
                # What engines die of makes them redo rows too, once in a while more than in the other run.
                bound = 0 if faults == ("drain",) else (here + 2 * num_poisoned) * bound_of_one_kill(SETTING)
                assert redone <= bound, f"{faults}: {redone} requests were made again after {here} faults, at most {bound} may be"
                say(f"{', '.join(faults)}: {here}, rows as undisturbed, {redone} requests redone (bound {bound})", flush=True)
        finally:
            scene.stack.close()
    if num_poisoned:
        done["poison row"] += num_poisoned
    return done


def _disturbed(path: Path, run: Path, scene: Field, faults: tuple[str, ...], done: Counter[str], most: int) -> None:
    """One run to its end, however often that takes."""
    while True:
        arguments = command("run", path, "--out", run, "--address", scene.cluster.address)
        with tempfile.TemporaryFile("w+") as output:
            driver = subprocess.Popen(arguments, stdout=output, stderr=output)
            alive = True
            while alive and driver.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    driver.wait(scene.draw.uniform(*SETTING.life_seconds))
                scene.take_away()
                if driver.poll() is None and done.total() < most:
                    fault = scene.draw.choice(faults)
                    alive = FAULTS[fault](scene, driver)
                    done[fault] += 1
            if alive:
                output.seek(0)
                assert driver.returncode == 0, output.read()[-6000:]
                break
    wait_for(lambda: scene.take_away() or not scene.leaving)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--mixed", type=int, default=30)
    parser.add_argument("--faults", nargs="*", choices=(*FAULTS, POISONED), default=[*FAULTS, POISONED])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    alone = [((fault,), arguments.each, 0) for fault in arguments.faults if fault != POISONED]
    poison = [(("engine",), 1, arguments.each)] if POISONED in arguments.faults else []
    mixture = [(tuple(fault for fault in arguments.faults if fault != POISONED), arguments.mixed, 1)] if arguments.mixed else []
    started, total = time.monotonic(), Counter[str]()
    for faults, most, num_poisoned in (*alone, *poison, *mixture):
        with tempfile.TemporaryDirectory(prefix="xl-faults-") as folder:
            total += fault_and_compare(faults, most, arguments.seed, Path(folder), num_poisoned)
    told = ", ".join(f"{fault} {count}" for fault, count in total.most_common())
    print(f"{total.total()} faults survived ({told}) in {time.monotonic() - started:,.0f} s: no row lost, doubled or decided otherwise")


if __name__ == "__main__":
    main()
