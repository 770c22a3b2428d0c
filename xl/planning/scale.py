"""What 1e9 pages on 1,000 GPUs would take: measured on this machine where it can be, assumed where it cannot (`cluster/SCALE.md`).

python -m xl.planning.scale [--pages 1e9] [--gpus 1000] [--rows-per-second 10] [--measured]

Takes about two minutes on one core: a minute to measure what one shard costs in memory, on disk and in seconds, the rest to simulate.
"""

import argparse
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from xl.engines.fleet import num_calls, parcel_rows
from xl.execute import CPU_PARCEL_ROWS, PARCELS_PER_CPU, PARCELS_PER_ENGINE
from xl.pages.manifest import SHARD_ROWS
from xl.planning.cluster import NodeGroup
from xl.planning.measure import Costs, measure
from xl.planning.prices import cost_of, price_of, read_prices
from xl.planning.scenario import PAGES_PER_FILE, Faults, PassWork, Scenario, Timings, repeated_seconds_per_row
from xl.planning.show import amount, dollars
from xl.planning.simulate import CLOSING_FOOTERS, FINAL_FOOTERS, Outcome, simulate
from xl.progress import left
from xl.recipe import Model
from xl.store import READS_AT_ONCE

GPUS_PER_ENGINE = 2
GPUS_PER_NODE = 8
CPUS_PER_GPU_NODE = 192
PAGE_NODES, CPUS_PER_PAGE_NODE = 64, 32
REGION, INSTANCES = "us-east-1", {"head": "m7i.8xlarge", "pages": "m7i.8xlarge", "engines": "p5en.48xlarge"}
PRICES = Path("cluster/prices.yaml")
MODEL = Model(model="google/gemma-3-27b-it", gpus=GPUS_PER_ENGINE, max_num_seqs=256)
"""What the engines hold; only how many rows they have at once matters here."""
FILTER_SECONDS_PER_PAGE = 0.0065
"""CPU seconds of the page filters: the median of 14 languages by `python -m tests.bench filters` (80 to 609 pages/s on one core)."""

KEPT = {"pages": 0.84, "unique": 0.99, "pairs": 0.91, "accepted": 0.80}
"""Kept shares of the stages, as in the demo (README): measured, but on 425 sample pages."""

PASSES = (("pages", 1), ("unique", 1), ("pairs + rated + accepted + overlap", 4), ("uncontaminated", 1), ("dataset", 1))
"""Passes of X-Instruction with the prompted rater, and how many stages each seals."""


@dataclass(frozen=True)
class Size:
    """What is asked about."""

    num_pages: int
    num_gpus: int
    rows_per_second: float
    """Of one engine, through all asks of its pass. Assumed: nobody has measured it on such a GPU."""

    @property
    def num_shards(self) -> int:
        return -(-self.num_pages // SHARD_ROWS)

    @property
    def num_files(self) -> int:
        return -(-self.num_pages // PAGES_PER_FILE)

    @property
    def num_engines(self) -> int:
        return self.num_gpus // GPUS_PER_ENGINE


def groups_of(size: Size) -> tuple[NodeGroup, ...]:
    """The cluster: nodes of eight GPUs, and nodes for pages."""
    sizes = {
        "head": NodeGroup("head", "head", 0, min_nodes=1),
        "pages": NodeGroup("pages", "pages", CPUS_PER_PAGE_NODE, 0, 0, PAGE_NODES),
        "engines": NodeGroup("engines", "engines", CPUS_PER_GPU_NODE, GPUS_PER_NODE, 0, -(-size.num_gpus // GPUS_PER_NODE), is_spot=True),
    }
    return tuple(replace(group, instance_type=INSTANCES[name], region=REGION) for name, group in sizes.items())


def passes_of(size: Size, timings: Timings) -> tuple[PassWork, ...]:
    """X-Instruction at this size."""
    survey = repeated_seconds_per_row(size.num_pages, timings)
    shards, files, pages = size.num_shards, size.num_files, size.num_pages
    unique = round(pages * KEPT["pages"])
    asked = round(unique * KEPT["unique"])
    chosen = round(asked * KEPT["pairs"] * KEPT["accepted"])
    decide = timings.read_seconds_per_row + timings.seal_seconds_per_row
    return (
        PassWork("input", "input", pages, files, timings.index_seconds_per_row, survey_seconds_per_row=survey),
        PassWork("pages", "pages", pages, shards, FILTER_SECONDS_PER_PAGE, num_files=files),
        PassWork("unique", "whole", unique, shards, decide),
        PassWork(
            PASSES[2][0],
            "engines",
            asked,
            shards,
            MODEL.max_num_seqs / size.rows_per_second,
            PASSES[2][1],
            MODEL.max_num_seqs,
            num_calls(MODEL),
            parcel_rows(MODEL),
            (1, size.num_engines),
            1.0,
            GPUS_PER_ENGINE,
            groups=("engines",),
        ),
        PassWork("uncontaminated", "whole", chosen, shards, decide),
        PassWork("dataset", "whole", chosen, shards, decide),
    )


def scenario_of(size: Size, timings: Timings, faults: Faults | None = None) -> Scenario:
    """The run at this size."""
    return Scenario(passes_of(size, timings), groups_of(size), timings, faults or Faults())


def num_resume_operations(num_shards: int, done_ratio: float) -> dict[str, int]:
    """Footers that the driver reads and files that it looks for before a run goes on that broke off in its engines' pass with this share
    of its shards sealed.

    Of a finished pass of one stage `Pipeline._run_pass` reads each shard's footer once, of a finished whole stage `_run_whole` looks for
    each file; `_close_stage` reads the footers of both twice. Of the broken pass `_is_finished` reads the first stage's footers up to the
    first shard that is open, then `is_done` those of all stages of each sealed shard, and looks for the others.
    """
    before, whole, broken = PASSES[:3]
    done = round(done_ratio * num_shards)
    footers = (1 + CLOSING_FOOTERS) * before[1] * num_shards + CLOSING_FOOTERS * whole[1] * num_shards + (1 + broken[1]) * done
    return {"footers read": footers, "files looked for": num_shards + num_shards - done}


def print_head(size: Size, costs: Costs) -> None:
    """What the head holds, and how many files there are."""
    shards, files = size.num_shards, size.num_files
    stages = sum(stages for _, stages in PASSES)
    print(f"\n# {amount(size.num_pages)} pages: {shards:,} shards of {SHARD_ROWS:,}, {files:,} input files, {stages} stages")
    print(f"manifest in memory: {costs.shard_bytes:,.0f} bytes a shard → {shards * costs.shard_bytes / 1e9:,.2f} GB, and once more a pass")
    print(f"manifest.json: {costs.json_bytes:,.0f} bytes a shard → {shards * costs.json_bytes / 1e9:,.2f} GB,", end=" ")
    print(f"read in {left(shards * costs.json_seconds)}")
    disk = size.num_pages * costs.manifest_disk_bytes / 1e9
    print(f"manifest/keys and manifest/rows: {costs.manifest_disk_bytes:,.1f} bytes a page → {disk:,.0f} GB")
    cpus = PAGE_NODES * CPUS_PER_PAGE_NODE + -(-size.num_gpus // GPUS_PER_NODE) * CPUS_PER_GPU_NODE
    for name, parcels, rows in (
        ("pages", PARCELS_PER_CPU * cpus, CPU_PARCEL_ROWS),
        ("engines", PARCELS_PER_ENGINE * size.num_engines, parcel_rows(MODEL)),
    ):
        there = min(parcels, size.num_pages // rows)
        held = f"{there * 10e3 / 1e9:,.1f} to {there * 20e3 / 1e9:,.1f} GB at 10 to 20 KB each (xl/execute.py)"
        print(f"Ray Data in the driver, {name}: {there:,} parcels an execution → {held}")
    print(f"driver, by `python -m tests.bench memory`: 42.5 bytes a page → {42.5 * size.num_pages / 1e9:,.1f} GB if it stays linear")
    surveyed = size.num_pages * KEPT["pages"] * costs.survey_bytes / 1e9
    print(f"survey of `unique` in one task: {costs.survey_bytes:,.0f} bytes a row → {surveyed:,.0f} GB")
    chosen = passes_of(size, Timings())[-1].num_rows
    print(f"survey of `dataset` in one task: {costs.chosen_bytes:,.0f} bytes a row → {chosen * costs.chosen_bytes / 1e9:,.0f} GB;", end=" ")
    print(f"with a quota it sends each task {costs.state_bytes:,.0f} bytes a row left out → {chosen * costs.state_bytes / 1e9:,.0f} GB")
    segments = -(-SHARD_ROWS // parcel_rows(MODEL))
    open_shards = max(1, PARCELS_PER_ENGINE * size.num_engines * parcel_rows(MODEL) // SHARD_ROWS)
    written = round(size.num_pages * KEPT["pages"] * KEPT["unique"] / parcel_rows(MODEL))
    print(f"sealed files: {stages} stages × {shards:,} = {stages * shards:,}; manifest: 2 × {files:,}")
    at_once = f"at most {open_shards:,} shards open → {segments * open_shards:,} at once"
    print(f"log files of the engines' pass: {segments} a shard, {at_once}, {amount(written)} written and deleted in all")


def print_resume(size: Size, costs: Costs) -> None:
    """How long a resume takes before the first row."""
    operations = num_resume_operations(size.num_shards, 0.5)
    print("\n# a resume in the middle of the engines' pass, before its first row")
    for name, count in operations.items():
        print(f"{name}: {amount(count)}")
    total = sum(operations.values())
    here = operations["footers read"] * costs.footer_seconds + operations["files looked for"] * costs.missing_seconds
    print(f"on this disk ({1e3 * costs.footer_seconds:.2f} ms a footer): {left(here)}")
    for latency_ms in (1, 5, 20):
        print(f"at {latency_ms} ms an operation on shared storage, {READS_AT_ONCE} at a time: {left(total * shared(latency_ms))}")
    read = (CLOSING_FOOTERS + FINAL_FOOTERS) * sum(stages for _, stages in PASSES) * size.num_shards
    times = ", ".join(f"{left(read * shared(latency_ms))} at {latency_ms} ms" for latency_ms in (1, 5, 20))
    print(f"an undisturbed run reads {amount(read)} footers: {left(read * costs.footer_seconds)} here, {times}")


def shared(latency_ms: float) -> float:
    """Seconds for each of many operations on storage that answers after so long: the driver's own work, or its turn among the others."""
    return max(Timings().footer_seconds, latency_ms / 1e3 / READS_AT_ONCE)


def print_outcome(title: str, found: Outcome, size: Size) -> None:
    """One simulation."""
    prices = {}
    if PRICES.exists():
        listed = read_prices(PRICES)
        priced = {group.name: price_of(group, listed, PRICES) for group in groups_of(size)}
        prices = {name: price for name, price in priced.items() if not isinstance(price, str)}
    cost = cost_of(found.node_hours.items(), prices)
    busy = f"{found.engine_busy_ratio:.0%}" if found.engine_busy_ratio is not None else "–"
    print(f"\n# {title}: {left(found.seconds)}, GPU hours {amount(found.gpu_hours)} (engines busy {busy}),", end=" ")
    print(f"{dollars(cost) if cost is not None else 'no price'}, lost nodes {found.num_lost_nodes:,},", end=" ")
    print(f"rows done again {found.num_redone_rows:,}")
    for each in found.passes:
        shares = f"workers {each.worker_busy_ratio:.0%}, driver {each.driver_busy_ratio:.0%}, one for all {each.alone_ratio:.0%}"
        work = f"{amount(each.num_rows)} rows, {left(each.seconds)}, {each.num_executions:,} executions"
        print(f"  {each.name}: {work}; {shares}; held up by {each.bottleneck}")


def print_saturation(size: Size, timings: Timings) -> None:
    """At what rate one driver is full: by what engines do, and by what a parcel takes it."""
    seconds = timings.driver_seconds_per_dispatch + timings.driver_seconds_per_ack
    rate = parcel_rows(MODEL) / seconds
    print(f"\n# one driver: {1 / seconds:,.0f} parcels/s = {rate:,.0f} rows/s = {rate / size.rows_per_second:,.0f} engines", end=" ")
    print(f"of {size.rows_per_second:g} rows/s")
    work = next(work for work in passes_of(size, timings) if work.kind == "engines")
    work = replace(work, num_rows=min(work.num_rows, 20_000_000), num_shards=10_000)
    for driver_ms, factor in ((8, 0.5), (8, 1.0), (8, 2.0), (4, 1.0), (16, 1.0), (32, 1.0)):
        each = replace(work, row_seconds=work.row_seconds / factor)
        found = simulate(Scenario((each,), groups_of(size), of_driver(timings, driver_ms / 1e3))).passes[0]
        of_one = factor * size.rows_per_second
        rates = f"{each.num_rows / found.seconds:,.0f} rows/s of {of_one * size.num_engines:,.0f}"
        busy = f"driver {found.driver_busy_ratio:.0%}, engines {found.worker_busy_ratio:.0%}"
        print(f"  {driver_ms} ms a parcel, engines of {of_one:g} rows/s: {rates}, {busy}")


def of_driver(timings: Timings, seconds: float) -> Timings:
    """Timings with so many seconds of the driver for a parcel."""
    return timings.model_copy(update={"driver_seconds_per_dispatch": seconds / 2, "driver_seconds_per_ack": seconds / 2})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=float, default=1e9)
    parser.add_argument("--gpus", type=int, default=1000)
    parser.add_argument("--rows-per-second", type=float, default=10.0, help="of one engine of two GPUs; assumed")
    parser.add_argument("--runs", type=int, default=4, help="runs side by side over parts of the input, beside one run")
    parser.add_argument("--measured", action="store_true", help="simulate with what is measured now instead of the defaults of Timings")
    arguments = parser.parse_args()
    size = Size(int(arguments.pages), arguments.gpus, arguments.rows_per_second)
    with tempfile.TemporaryDirectory(prefix="xl-scale-") as folder:
        costs = measure(Path(folder))
    print("# measured here, per unit")
    for name, value in asdict(costs).items():
        print(f"{name}: {value:.3g}")
    timings = Timings(**costs.timings) if arguments.measured else Timings()
    print_head(size, costs)
    print_resume(size, costs)
    print_saturation(size, timings)
    print_outcome(f"one run on {size.num_gpus:,} GPUs", simulate(scenario_of(size, timings)), size)
    far = timings.model_copy(update={"footer_seconds": shared(5), "missing_seconds": shared(5)})
    print_outcome("the same on storage that answers in 5 ms", simulate(scenario_of(size, far)), size)
    lost = simulate(scenario_of(size, timings, Faults(losses_per_node_hour=0.001, preemptions_per_node_hour=0.05)))
    print_outcome("one run, a node lost in 1,000 h and a spot node preempted in 20 h", lost, size)
    part = Size(size.num_pages // arguments.runs, size.num_gpus // arguments.runs, size.rows_per_second)
    print_outcome(f"one of {arguments.runs} runs, each on its part of input and GPUs", simulate(scenario_of(part, timings)), part)


if __name__ == "__main__":
    main()
