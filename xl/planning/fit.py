"""A scenario to simulate, from an estimate: how long a row itself takes is what makes the calibration's own seconds come out.

The seconds of a small run are to a good part start-ups and a last round in which engines run dry. So the calibration is simulated too,
on what it ran on, and the seconds of a row are sought with which that simulation takes as long as the calibration did.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from xl.engines.fleet import num_calls, parcel_rows
from xl.planning.cluster import Cluster, NodeGroup
from xl.planning.estimate import Estimate, PassEstimate, num_parallel_rows, shards_of
from xl.planning.scenario import Faults, PassWork, Scenario, Timings, repeated_seconds_per_row
from xl.planning.simulate import simulate
from xl.recipe import PageRecipe, Recipe
from xl.stage import RowStage, Stage

NAIVE_ROWS = 1_000_000
"""A calibration of so many rows is not simulated: its start-ups do not matter."""

_TOLERANCE = 0.005
_MAX_TRIALS = 20


@dataclass(frozen=True)
class Fitted:
    """A scenario, and the passes whose calibration is too short to tell a row's own time from start-ups."""

    scenario: Scenario
    too_short: list[str]


def scenario_of(
    found: Estimate,
    recipe: Recipe,
    stages: list[Stage],
    num_files: int,
    num_shards: int,
    cluster: Cluster,
    timings: Timings,
    faults: Faults,
    seed: int,
) -> Fitted:
    """The estimate as a scenario on a cluster; `num_shards` are the calibration's, `num_files` those of the run's input."""
    num_pages = round(found.num_pages.value)
    works: list[PassWork] = []
    too_short: list[str] = []
    started: set[str] = set()
    if isinstance(recipe, PageRecipe):
        repeated = repeated_seconds_per_row(num_pages, timings)
        works.append(PassWork("input", "input", num_pages, num_files, timings.index_seconds_per_row, survey_seconds_per_row=repeated))
    for number, each in enumerate(found.passes):
        files = num_files if number == 0 and isinstance(recipe, PageRecipe) else 0
        work = _work(each, recipe, stages, cluster, shards_of(num_pages), files)
        measured = replace(work, num_rows=each.measured_rows, num_shards=min(num_shards, max(1, each.measured_rows)), num_files=0)
        key = work.engine_key if work.kind == "engines" else ""
        row_seconds, is_long = fit_row_seconds(measured, each.measured_workers, each.measured_seconds, timings, key in started)
        started.add(key)
        too_short += [] if is_long else [each.name]
        works.append(replace(work, row_seconds=row_seconds))
    return Fitted(Scenario(tuple(works), cluster.groups, timings, faults, seed), too_short)


def _work(each: PassEstimate, recipe: Recipe, stages: list[Stage], cluster: Cluster, num_shards: int, num_files: int) -> PassWork:
    """A pass, but for the seconds of a row."""
    rows = max(1, round(each.rows_in.value))
    shards = min(num_shards, rows)
    if each.kind in ("pages", "whole"):
        return PassWork(each.name, "whole" if each.kind == "whole" else "pages", rows, shards, 0.0, len(each.stages), num_files=num_files)
    role = next(stage.model for stage in stages if stage.name in each.stages and isinstance(stage, RowStage) and stage.model)
    model = recipe.model_for(role)
    is_endpoint = each.kind == "endpoint"
    return PassWork(
        each.name,
        "engines",
        rows,
        shards,
        0.0,
        len(each.stages),
        num_parallel_rows(model),
        num_calls(model),
        parcel_rows(model),
        (1, 1) if is_endpoint else (model.replicas[0], each.workers.count),
        0.0 if is_endpoint else model.cpus,
        0.0 if is_endpoint else model.gpus,
        model.model,
        () if is_endpoint else tuple(group.name for group in cluster.groups if each.workers.nodes.get(group.name)),
    )


def fit_row_seconds(
    work: PassWork, num_workers: float, seconds: float, timings: Timings, engines_are_up: bool = False
) -> tuple[float, bool]:
    """Seconds of a row with which a pass takes so long on so many engines or CPUs, and whether there is such a number.

    Without one the start-ups alone take longer than the pass did; what comes back then is the plain quotient.
    """
    naive = seconds * num_workers * work.num_parallel_rows / max(1, work.num_rows)
    if work.num_rows >= NAIVE_ROWS or not seconds:
        return naive, True

    def taken(row_seconds: float) -> float:
        return seconds_alone(replace(work, row_seconds=row_seconds), num_workers, timings, engines_are_up)

    found = _solve(taken, seconds, naive)
    return (naive, False) if found is None else (found, True)


def seconds_alone(work: PassWork, num_workers: float, timings: Timings, engines_are_up: bool) -> float:
    """How long a pass takes as `Pipeline` measures it: from its first engine on, and without what comes before and after.

    Engines beyond the fewest start within it, unless a pass before it has had them.
    """
    not_within = dict.fromkeys(("node_boot_seconds", "footer_seconds", "missing_seconds"), 0.0)
    timings = timings.model_copy(update=not_within | ({"engine_start_seconds": 0.0} if engines_are_up else {}))
    if work.kind != "engines":
        outcome = simulate(Scenario((work,), (NodeGroup("pages", "pages", num_workers, min_nodes=1),), timings))
    else:
        count = max(1, round(num_workers))
        engines = NodeGroup("engines", "engines", max(1.0, work.engine_cpus), work.engine_gpus, count, count)
        work = replace(work, replicas=(min(work.replicas[0], count), count), groups=("engines",))
        outcome = simulate(Scenario((work,), (NodeGroup("pages", "pages", 4 * count, min_nodes=1), engines), timings))
    return outcome.passes[0].seconds * (1 - outcome.passes[0].waiting_ratio)


def _solve(taken: Callable[[float], float], seconds: float, guess: float) -> float | None:
    """Where a function that rises takes a value, sought between 0 and beyond the guess; None where it is above it already at 0."""
    low, high = 0.0, guess
    at_low = taken(low)
    if at_low >= seconds:
        return None
    while (at_high := taken(high)) < seconds:
        low, at_low, high = high, at_high, 2 * high
    for _ in range(_MAX_TRIALS):
        # A straight line between the two ends meets the value nearly at once; half of the way now and then keeps both ends moving.
        share = (seconds - at_low) / (at_high - at_low)
        middle = low + (high - low) * min(0.95, max(0.05, share))
        there = taken(middle)
        if abs(there - seconds) <= _TOLERANCE * seconds:
            return middle
        if there < seconds:
            low, at_low = middle, there
        else:
            high, at_high = middle, there
    return (low + high) / 2
