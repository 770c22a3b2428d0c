"""From a calibration to more pages: rows, tokens, hours and dollars of each pass, with what they are made of.

Nothing here is a model: rows follow from the calibration's kept shares, hours from its seconds. What does not grow in proportion
(start-ups, waiting, a driver that is not fast enough) is the simulation's (`simulate.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from xl.engines.fleet import num_calls, parcel_rows, width
from xl.errors import UserError
from xl.pages.manifest import SHARD_ROWS
from xl.planning.calibration import Calibration, Figure, StageRecord, ratio, share
from xl.planning.cluster import Cluster, NodeGroup, engines_per_node
from xl.planning.training import TrainingEstimate, cost_of_time, estimate_training, wanted_labels
from xl.recipe import Model, PageRecipe, Recipe
from xl.stage import RowStage, Stage, WholeStage, passes

ROUNDS = 4
"""So often an engine should have been filled before its rows per second are those of a long run."""


@dataclass(frozen=True)
class Workers:
    """Who works in a pass: engines, or CPUs."""

    count: int
    cpus: float
    """CPUs of one of them."""
    gpus: float = 0.0
    nodes: Mapping[str, int] = field(default_factory=dict)
    """Nodes that they are on, by group; empty without a cluster."""


@dataclass(frozen=True)
class PassEstimate:
    """One pass at the size that is asked about."""

    name: str
    kind: Literal["pages", "engines", "endpoint", "whole"]
    stages: tuple[str, ...]
    model: str | None
    rows_in: Figure
    rows_out: Figure
    prompt_tokens: Mapping[str, Figure]
    """By ask."""
    output_tokens: Mapping[str, Figure]
    measured_rows: int
    measured_seconds: float
    measured_workers: float
    """Engines, or CPUs, of the calibration. An endpoint counts as one."""
    workers: Workers
    worker_hours: Figure
    """Of engines, or CPUs, at work."""
    seconds: Figure
    """Wall time with all workers at work from beginning to end."""
    cost: Figure | None
    """Dollars for the nodes that work, and the head, in that time."""

    @property
    def cpu_hours(self) -> Figure:
        return self.worker_hours.times(self.workers.cpus)

    @property
    def gpu_hours(self) -> Figure:
        return self.worker_hours.times(self.workers.gpus)

    @property
    def rows_per_second(self) -> float:
        """Of one engine, or CPU, in the calibration."""
        return self.measured_rows / (self.measured_seconds * self.measured_workers)


@dataclass(frozen=True)
class Part:
    """What does not depend on the number of pages: an evaluation, benchmarks."""

    name: str
    num_rows: int
    seconds: float
    """As in the calibration."""


@dataclass(frozen=True)
class Estimate:
    """A run at the size that is asked about."""

    num_pages: Figure
    source: str
    """Where the number of pages comes from."""
    passes: list[PassEstimate]
    training: TrainingEstimate | None
    parts: list[Part]
    seconds: float
    cost: float | None
    notes: list[str]


def estimate(
    recipe: Recipe,
    stages: Sequence[Stage],
    calibration: Calibration,
    num_pages: Figure,
    source: str,
    cluster: Cluster | None = None,
    prices: Mapping[str, float] | None = None,
) -> Estimate:
    """Carry a calibration to so many pages.

    Args:
        recipe: what is to be run.
        stages: its stages, all of which the calibration has.
        calibration: what a small run of them measured.
        num_pages: rows that come into the first stage.
        source: where that number comes from, for the reader.
        cluster: where it runs; without it, as many engines as the recipe allows and the calibration's CPUs.
        prices: dollars per node hour by group; a cost that needs one that is missing is None.

    Raises:
        UserError: the calibration does not say what it ran on, or the cluster has no room.
    """
    notes = _notes(recipe, stages, calibration)
    kept = {stage.name: share(calibration.stages[stage.name].num_kept, calibration.num_pages) for stage in stages}
    arriving, estimates = num_pages, list[PassEstimate]()
    for group in passes(list(stages)):
        leaving = _capped(num_pages.times(kept[group[-1].name]), group[-1], recipe, notes)
        estimates.append(_pass(recipe, group, calibration, num_pages, arriving, leaving, cluster, prices))
        arriving = leaving
    notes.extend(_unfilled(estimates, recipe, stages))
    training = estimate_training(recipe, calibration, arriving, cluster, prices, notes)
    parts = _parts(calibration)
    seconds = sum(each.seconds.value for each in estimates) + (training.seconds.value if training else 0.0) + sum(p.seconds for p in parts)
    costs = [each.cost for each in estimates]
    if recipe.train:
        costs.append(training.cost if training else None)
    if any(each.kind == "endpoint" for each in estimates):
        notes.append("what an endpoint's vendor asks for its tokens is in no cost")
    if parts:
        notes.append(f"{' and '.join(part.name for part in parts)}: as long as in the calibration, and in no cost")
    cost = None if prices is None or any(each is None for each in costs) else sum(each.value for each in costs if each is not None)
    return Estimate(num_pages, source, estimates, training, parts, seconds, cost, notes)


def _pass(
    recipe: Recipe,
    group: tuple[Stage, ...],
    calibration: Calibration,
    num_pages: Figure,
    arriving: Figure,
    leaving: Figure,
    cluster: Cluster | None,
    prices: Mapping[str, float] | None,
) -> PassEstimate:
    records = [calibration.stages[stage.name] for stage in group]
    role = next((stage.model for stage in group if isinstance(stage, RowStage) and stage.model), None)
    model = recipe.model_for(role) if role else None
    kind: Literal["pages", "engines", "endpoint", "whole"] = "whole" if isinstance(group[0], WholeStage) else "pages"
    if model is not None:
        kind = "endpoint" if model.engine == "openai" else "engines"
    seconds, rows = sum(record.seconds for record in records), int(records[0].num_in.sum())
    measured = _measured_workers(records, model, calibration, kind)
    workers = _workers(model, kind, measured, cluster, role)
    name = " + ".join(stage.name for stage in group)
    if rows and not seconds:
        raise UserError(f"--calibration {calibration.run.root}: its pass {name} says not how long it took; run it again, in a new folder")
    hours = arriving.times(seconds * measured / max(1, rows) / 3600)
    wall = hours.times(3600 / workers.count)
    prompt, output = _tokens(records, calibration, num_pages)
    cost = cost_of_time(wall, workers.nodes, cluster, prices)
    stages = tuple(stage.name for stage in group)
    shown = model.model if model else None
    return PassEstimate(name, kind, stages, shown, arriving, leaving, prompt, output, rows, seconds, measured, workers, hours, wall, cost)


def _tokens(records: list[StageRecord], calibration: Calibration, num_pages: Figure) -> tuple[dict[str, Figure], dict[str, Figure]]:
    """Tokens of each ask, from those per page of the input."""
    prompt: dict[str, Figure] = {}
    output: dict[str, Figure] = {}
    for record in records:
        for ask, (ins, outs) in record.tokens.items():
            prompt[ask] = num_pages.times(ratio(ins, calibration.num_pages))
            output[ask] = num_pages.times(ratio(outs, calibration.num_pages))
    return prompt, output


def _measured_workers(records: list[StageRecord], model: Model | None, calibration: Calibration, kind: str) -> float:
    """Engines, or CPUs, that the calibration had."""
    first, root = records[0], calibration.run.root
    if kind == "endpoint":
        return 1
    if model is not None:
        counted = next((record.num_engines for record in records if record.num_engines), None)
        if counted is None:
            raise UserError(f"--calibration {root}: its stage {first.name} says not how many engines it had; run it again, in a new folder")
        return counted
    counted_cpus = next((record.num_cpus for record in records if record.num_cpus), None)
    if counted_cpus is None:
        raise UserError(f"--calibration {root}: its stage {first.name} says not how many CPUs it had; run it again, in a new folder")
    return counted_cpus


def _workers(model: Model | None, kind: str, measured: float, cluster: Cluster | None, role: str | None) -> Workers:
    """Who would work in a pass."""
    if kind == "endpoint":
        return Workers(1, 0.0)
    if model is None:
        if cluster is None:
            return Workers(max(1, round(measured)), 1.0)
        nodes = {group.name: group.max_nodes for group in cluster.for_pages()}
        num_cpus = sum(group.max_nodes * int(group.num_cpus) for group in cluster.for_pages())
        if not num_cpus:
            raise UserError(f"--cluster {cluster.path}: no node group is for pages: the label xl/pool: pages, and a CPU")
        return Workers(num_cpus, 1.0, 0.0, nodes)
    if cluster is None:
        return Workers(model.replicas[1], model.cpus, model.gpus)
    groups = cluster.for_engines(model.cpus, model.gpus, wanted_labels(model))
    nodes, room = place(model, groups)
    if room < model.replicas[0]:
        labels = "".join(f", {key}: {value}" for key, value in wanted_labels(model).items())
        wanted = f"{model.gpus:g} GPUs and {model.cpus:g} CPUs{labels}"
        raise UserError(
            f"--cluster {cluster.path}: room for {room} engines of models.{role} ({wanted} each), but it wants {model.replicas[0]}"
        )
    return Workers(room, model.cpus, model.gpus, nodes)


def place(model: Model, groups: Sequence[NodeGroup]) -> tuple[dict[str, int], int]:
    """Nodes of each group that the most engines of a model are on, and how many engines these are."""
    nodes: dict[str, int] = {}
    room = 0
    for group in groups:
        per_node = engines_per_node(group, model.cpus, model.gpus)
        if (left := model.replicas[1] - room) > 0:
            nodes[group.name] = min(group.max_nodes, -(-left // per_node))
            room += min(left, nodes[group.name] * per_node)
    return nodes, room


def _capped(rows: Figure, stage: Stage, recipe: Recipe, notes: list[str]) -> Figure:
    """The rows that a stage with a quota keeps."""
    quota = stage.settings.get("per_language") if isinstance(stage, WholeStage) else None
    most = quota * len(recipe.languages) if quota else None
    if most is None or rows.value <= most:
        return rows
    notes.append(
        f"stage {stage.name} keeps at most {quota:,} rows a language, {most:,} in all: more pages give a better choice, not more rows"
    )
    return Figure(most, min(most, rows.low or 0.0), most, rows.num_rows, rows.num_shards)


def _parts(calibration: Calibration) -> list[Part]:
    found = []
    for name, folder in (("evaluation", calibration.run.evaluation), ("benchmarks", calibration.run.benchmarks)):
        if stages := folder.info.get("stages"):
            infos = [folder.stage_info(stage) for stage in stages]
            names = [path.stem for path in sorted((folder.root / "stages" / stages[0] / "shards").glob("*.parquet"))]
            rows = sum(ledger.num_in for ledger in folder.store(stages[0]).ledger(names).values())
            found.append(Part(name, rows, sum(float(info.get("seconds", 0.0)) for info in infos)))
    return found


def _notes(recipe: Recipe, stages: Sequence[Stage], calibration: Calibration) -> list[str]:
    """What a reader must know beside the numbers."""
    notes = [
        f"the calibration: {int(calibration.num_pages.sum()):,} rows in {len(calibration.num_pages):,} shards of {calibration.run.root}; "
        "intervals are of what its rows and shards can tell. Its speed was measured once, so no interval holds how machines differ"
    ]
    if calibration.num_attempts > 1:
        notes.append(
            f"the calibration was continued {calibration.num_attempts - 1} times; the seconds of a broken attempt are in no record"
        )
    roles = {stage.model for stage in stages if isinstance(stage, RowStage) and stage.model}
    if recipe.train:
        roles.add("base")
    for role in sorted(role for role in roles if role):
        name, there = recipe.model_for(role).model, calibration.models.get(role, {}).get("name")
        if there is not None and there != name:
            notes.append(f"models.{role} is {name}; the calibration asked {there}: its tokens and hours are that model's")
    if whole := [stage.name for stage in stages if isinstance(stage, WholeStage)]:
        told = "decided from all rows together; another number of rows may give another share"
        notes.append(
            f"{', '.join(whole)}: {told}. Their time is reckoned as if all CPUs shared it; --simulate knows what one task does alone"
        )
    if isinstance(recipe, PageRecipe):
        before = set(calibration.recipe.get("languages", ()))
        if new := [lang for lang in recipe.languages if lang not in before]:
            notes.append(f"languages that the calibration did not have ({', '.join(new)}) are reckoned as the others")
    return notes


def _unfilled(estimates: Sequence[PassEstimate], recipe: Recipe, stages: Sequence[Stage]) -> Iterator[str]:
    """Passes in which the calibration's rows did not fill its engines for a few rounds: full ones do more."""
    for each in estimates:
        role = next((stage.model for stage in stages if stage.name in each.stages and isinstance(stage, RowStage) and stage.model), None)
        if role is None or each.kind != "engines":
            continue
        at_once = round(each.measured_workers * num_parallel_rows(recipe.model_for(role)))
        if each.measured_rows < ROUNDS * at_once:
            told = f"{each.measured_rows:,} rows in the calibration, whose engines work on {at_once:,} at once"
            yield f"{each.name}: {told}: they were hardly full, and a long run may be faster (--simulate reckons with that)"


def num_parallel_rows(model: Model) -> int:
    """Rows that an engine works on at once: those of a scripted one never wait for each other."""
    return num_calls(model) * parcel_rows(model) if model.engine == "scripted" else width(model)


def shards_of(num_pages: float) -> int:
    """Shards that so many pages make up, where files are much longer than a shard."""
    return max(1, round(num_pages / SHARD_ROWS))
