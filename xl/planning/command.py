"""`xl plan`: the outline, then what a calibration says of it, then a simulation."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from xl.errors import UserError
from xl.folder import plain
from xl.methods import load_method
from xl.planning import prices as price_lists
from xl.planning.calibration import Calibration, Figure, given, read_calibration
from xl.planning.cluster import Cluster, read_cluster
from xl.planning.estimate import Estimate, estimate
from xl.planning.fit import Fitted, scenario_of
from xl.planning.outline import Outline, outline, print_outline
from xl.planning.scenario import PAGES_PER_FILE, Faults, read_timings, read_trace
from xl.planning.show import print_estimate, print_simulation
from xl.planning.simulate import Outcome, simulate
from xl.recipe import PageRecipe, Recipe


@dataclass(frozen=True)
class Request:
    """What is asked about."""

    out: Path
    limit: int | None = None
    calibration: Path | None = None
    cluster: Path | None = None
    num_pages: int | None = None
    prices: Path | None = None
    """By default `prices.yaml` beside the cluster's file."""
    node_prices: Sequence[str] = ()
    """Texts such as `pages=1.55`: dollars per hour of a node of the group, whatever the file says."""
    timings: Path | None = None
    simulate: bool = False
    losses_per_node_hour: float = 0.0
    preemptions: str | None = None
    """Of a spot node and hour, or a file of times."""
    notice_seconds: float = 30.0
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """What came of it."""

    outline: Outline
    estimate: Estimate | None = None
    simulation: Outcome | None = None
    simulated_cost: float | None = None


def plan(recipe: Recipe, request: Request, as_json: bool, console: Console) -> None:
    """Say what a run would do and take; starts nothing.

    Raises:
        UserError: a file that was given is wrong, or an option lacks another one.
    """
    found = answer(recipe, request)
    if as_json:
        print(json.dumps(as_plain(found), indent=1, ensure_ascii=False))
        return
    print_outline(found.outline, console)
    if found.estimate:
        print_estimate(found.estimate, console)
    if found.simulation:
        console.print()
        print_simulation(found.simulation, found.simulated_cost, console)


def answer(recipe: Recipe, request: Request) -> Answer:
    """All that can be said. Raises UserError."""
    _check_options(request)
    found = outline(recipe, request.out, request.limit)
    if request.calibration is None:
        return Answer(found)
    names = [stage.name for stage in found.stages]
    calibration = read_calibration(request.calibration, names)
    num_pages, source = _num_pages(recipe, calibration, found, request)
    cluster = read_cluster(request.cluster) if request.cluster else None
    prices, missing = _prices(cluster, request)
    estimated = estimate(recipe, found.stages, calibration, num_pages, source, cluster, prices)
    estimated.notes.extend(missing)
    if cluster and cluster.max_workers is not None:
        groups = sum(group.max_nodes for group in cluster.groups if group.pool != "head")
        if groups > cluster.max_workers:
            told = f"{cluster.path}: max_workers: {cluster.max_workers}, but its groups allow {groups} together"
            estimated.notes.append(f"{told}; each is reckoned as if it could be full")
    if not request.simulate:
        return Answer(found, estimated)
    assert cluster is not None
    fitted = _fitted(recipe, found, estimated, calibration, cluster, request)
    for name in fitted.too_short:
        estimated.notes.append(
            f"simulation: the calibration's {name} took less than the start-ups are assumed to take; a row has all of it"
        )
    simulated = simulate(fitted.scenario)
    cost = None if prices is None else price_lists.cost_of(simulated.node_hours.items(), prices)
    return Answer(found, estimated, simulated, cost)


def _check_options(request: Request) -> None:
    needs = {
        "--cluster": (request.cluster, request.calibration, "--calibration"),
        "--pages": (request.num_pages, request.calibration, "--calibration"),
        "--prices": (request.prices, request.cluster, "--cluster"),
        "--price": (request.node_prices or None, request.cluster, "--cluster"),
        "--simulate": (request.simulate or None, request.cluster, "--cluster"),
        "--failures": (request.losses_per_node_hour or None, request.simulate or None, "--simulate"),
        "--preemptions": (request.preemptions, request.simulate or None, "--simulate"),
        "--timings": (request.timings, request.simulate or None, "--simulate"),
    }
    for option, (value, wanted, other) in needs.items():
        if value is not None and wanted is None:
            raise UserError(f"{option} needs {other}")


def _num_pages(recipe: Recipe, calibration: Calibration, found: Outline, request: Request) -> tuple[Figure, str]:
    """How many rows come into the first stage, and where that is from."""
    limit = request.limit
    if request.num_pages is not None:
        return given(request.num_pages), "as said by --pages"
    if not isinstance(recipe, PageRecipe):
        rows, _ = load_method(recipe.method).rows(recipe)
        counts = Counter(row["lang"] for row in rows)
        num_rows = sum(min(count, limit or count) for count in counts.values())
        return given(num_rows), "counted"
    per_record = calibration.bytes_per_record
    if per_record is None:
        raise UserError(
            f"--calibration {request.calibration}: its manifest is gone, so the input's pages cannot be estimated; give --pages"
        )
    wanted = set(recipe.page_languages)
    num_read = sum(calibration.num_read.values())
    taken_ratio = sum(count for lang, count in calibration.num_read.items() if lang in wanted) / num_read
    value = found.num_bytes / per_record.value * taken_ratio
    low = found.num_bytes / per_record.high * taken_ratio if per_record.high else None
    high = found.num_bytes / per_record.low * taken_ratio if per_record.low else None
    number = Figure(value, low, high, per_record.num_rows, per_record.num_shards)
    told = f"estimated from {per_record.num_rows:,} records of the calibration's {per_record.num_shards:,} files: "
    told += f"{per_record.value:,.0f} bytes a record, {taken_ratio:.0%} of them in these languages"
    if limit is not None and value > (most := limit * len(wanted)):
        return replace(number, value=most, low=min(most, low or 0.0), high=most), f"{told}; at most {limit:,} a language"
    return number, told


def _prices(cluster: Cluster | None, request: Request) -> tuple[dict[str, float] | None, list[str]]:
    """Dollars per node hour by group, and what must be said of them."""
    if cluster is None:
        return None, []
    path = request.prices or price_lists.beside(cluster.path)
    listed = price_lists.read_prices(path) if request.prices or path.exists() else None
    said = price_lists.parse_prices(request.node_prices, cluster)
    prices, missing = price_lists.hourly_prices(cluster, listed, path, said)
    source = f"from {path} of {listed.looked_up}" if listed else ""
    told = [_told(said, "as said by --price"), _told({name: price for name, price in prices.items() if name not in said}, source)]
    return prices, [line for line in told if line] + [f"no cost: {line}" for line in missing]


def _told(prices: Mapping[str, float], source: str) -> str:
    used = ", ".join(f"{name} {price:g}" for name, price in prices.items())
    return f"dollars per node hour, {source}: {used}" if used else ""


def _fitted(recipe: Recipe, found: Outline, estimated: Estimate, calibration: Calibration, cluster: Cluster, request: Request) -> Fitted:
    timings, faults = read_timings(request.timings), _faults(cluster, request)
    num_shards = int((calibration.num_pages > 0).sum())
    files = max(found.num_files, math.ceil(estimated.num_pages.value / PAGES_PER_FILE))
    estimated.notes.append(f"simulation: the input is in {files:,} files")
    return scenario_of(estimated, recipe, found.stages, files, num_shards, cluster, timings, faults, request.seed)


def _faults(cluster: Cluster, request: Request) -> Faults:
    faults = Faults(losses_per_node_hour=request.losses_per_node_hour, notice_seconds=request.notice_seconds)
    if request.preemptions is None:
        return faults
    if not any(group.is_spot for group in cluster.groups):
        raise UserError(f"--preemptions: no node group of {cluster.path} is spot")
    try:
        rate = float(request.preemptions)
    except ValueError:
        return faults.model_copy(update={"preemption_times": read_trace(Path(request.preemptions))})
    if not 0 <= rate < float("inf"):
        raise UserError(f"--preemptions {request.preemptions}: a rate is at least 0, per spot node and hour")
    return faults.model_copy(update={"preemptions_per_node_hour": rate})


def _plain(value: Figure | float) -> Any:
    return asdict(value) if isinstance(value, Figure) else value


def as_plain(found: Answer) -> dict[str, Any]:
    """The answer as JSON has it."""
    shown: dict[str, Any] = {"outline": {"lines": found.outline.lines, "files": found.outline.num_files, "bytes": found.outline.num_bytes}}
    if found.estimate:
        more = ("cpu_hours", "gpu_hours", "rows_per_second")
        passes = [asdict(each) | {name: _plain(getattr(each, name)) for name in more} for each in found.estimate.passes]
        shown["estimate"] = plain({**asdict(found.estimate), "passes": passes})
    if found.simulation:
        simulation = asdict(found.simulation)
        simulation["timeline"] = [change._asdict() for change in found.simulation.timeline]
        shown["simulation"] = plain({**simulation, "cost": found.simulated_cost})
    return shown
