"""Throughput of one pass on one to eight scripted engines of a fixed rate, on nodes that are processes of this machine.

An engine has so many rows at once and takes so long for each, so its rate is known: what is missing at eight engines is what our code and
Ray take away. The rate is that of the middle of the pass, when all engines are up and no rows are short.
"""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression
from typing import Any
from unittest import mock

import psutil

from cluster.local import LocalCluster, local_cluster
from tests.support import ROOT, command, german_pages, recipe
from xl.engines.fleet import num_calls, parcel_rows
from xl.engines.scripted import TRACE
from xl.recipe import Model

NUM_ENGINES = (1, 2, 4, 8)
WRITER = {"model": "scripted", "engine": "scripted", "gpus": 1, "cpus": 0, "max_num_seqs": 8}
MODEL = Model.model_validate(WRITER)
DELAY_SECONDS, PASS_SECONDS = 4.0, 60
FULL_TILT_ROWS = 6_000
MIDDLE = (0.25, 0.75)
"""Between which shares of the rows the rate is taken."""


@dataclass(frozen=True)
class Sample:
    """How far a pass was, and what the driver had computed."""

    seconds: float
    num_rows: int
    driver_cpu_seconds: float


@dataclass(frozen=True)
class Rate:
    """Of the middle of a pass."""

    rows_per_second: float
    driver_cpu_share: float
    """Of one core."""

    @property
    def driver_ms_per_parcel(self) -> float:
        """What the driver computes for each parcel."""
        return 1e3 * self.driver_cpu_share / self.rows_per_second * parcel_rows(MODEL)


def of_one_engine() -> float:
    """Rows per second that an engine does by its settings."""
    return num_calls(MODEL) * parcel_rows(MODEL) / DELAY_SECONDS


def scaling(folder: Path) -> dict[str, Any]:
    """Rows per second by engines over that of one, times their number; and with engines that take no time, where it ends."""
    rates: dict[int, Rate] = {}
    with mock.patch.dict(os.environ, RAY_AUTH_MODE="token"), local_cluster(num_pages=2, num_engines=max(NUM_ENGINES)) as cluster:
        for count in NUM_ENGINES:
            num_rows = round(of_one_engine() * count * PASS_SECONDS)
            rates[count] = _measured(cluster, count, DELAY_SECONDS, num_rows, folder / str(count))
            linear = rates[count].rows_per_second / (count * rates[NUM_ENGINES[0]].rows_per_second)
            print(f"{count} engines: {_told(rates[count])}, {linear:.3f} of linear", flush=True)
        full = _measured(cluster, max(NUM_ENGINES), 0.0, FULL_TILT_ROWS, folder / "full")
        print(f"engines that take no time: {_told(full)}", flush=True)
    first = rates[NUM_ENGINES[0]].rows_per_second
    return {
        "rows_per_second_by_settings": of_one_engine(),
        "rows_per_second": {count: rate.rows_per_second for count, rate in rates.items()},
        "of_linear": {count: rate.rows_per_second / (count * first) for count, rate in rates.items()},
        "driver_cpu_share": {count: rate.driver_cpu_share for count, rate in rates.items()},
        "driver_ms_per_parcel": {count: rate.driver_ms_per_parcel for count, rate in rates.items()},
        "full_tilt": {"rows_per_second": full.rows_per_second, "driver_ms_per_parcel": full.driver_ms_per_parcel},
    }


def _told(rate: Rate) -> str:
    driver = f"driver {rate.driver_cpu_share:.0%} of a core, {rate.driver_ms_per_parcel:.1f} ms a parcel"
    return f"{rate.rows_per_second:,.1f} rows/s, {driver}"


def _measured(cluster: LocalCluster, num_engines: int, delay_seconds: float, num_rows: int, folder: Path) -> Rate:
    """The pass that writes instructions, of a run of so many pages."""
    folder.mkdir(parents=True)
    writer = {**WRITER, "replicas": [num_engines, num_engines], "delay_seconds": delay_seconds}
    path = recipe(folder / "recipe.yaml", german_pages(folder / "pages", num_rows, files=2), models={"writer": writer})
    trace, samples = folder / "trace", list[Sample]()
    with mock.patch.dict(os.environ, {TRACE: str(trace)}), open(folder / "log", "w") as log:
        arguments = command("run", path, "--out", folder / "run", "--address", cluster.address, "--until", "dataset")
        driver = psutil.Popen(arguments, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        while driver.poll() is None:
            used = driver.cpu_times()
            samples.append(Sample(time.monotonic(), _num_written(trace), used.user + used.system))
            time.sleep(0.25)
    assert driver.returncode == 0, (folder / "log").read_text()[-4000:]
    return _middle(samples)


def _num_written(trace: Path) -> int:
    return trace.read_bytes().count(b"complete") if trace.exists() else 0


def _middle(samples: list[Sample]) -> Rate:
    """The slopes of the lines through the samples between the two moments at which these shares of all rows were done.

    Engines of a fixed rate take rows in bursts, so that two single moments would say too much or too little by up to a tenth.
    """
    all_rows = samples[-1].num_rows
    begin, end = (next(i for i, sample in enumerate(samples) if sample.num_rows >= share * all_rows) for share in MIDDLE)
    middle = samples[begin : end + 1]
    seconds = [sample.seconds for sample in middle]
    rows = linear_regression(seconds, [sample.num_rows for sample in middle])
    cpu = linear_regression(seconds, [sample.driver_cpu_seconds for sample in middle])
    return Rate(rows.slope, cpu.slope)
