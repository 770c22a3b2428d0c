"""A training, from the calibration's: tokens of a row, tokens a second. Also what nodes cost over a time, which the passes need as well."""

from collections.abc import Mapping
from dataclasses import dataclass

from xl.errors import UserError
from xl.placement import ACCELERATOR
from xl.planning.calibration import Calibration, Figure, given
from xl.planning.cluster import Cluster, engines_per_node
from xl.recipe import Recipe
from xl.settings import Placed
from xl.train.settings import Train


@dataclass(frozen=True)
class TrainingEstimate:
    """The training at that size."""

    rows: Figure
    tokens: Figure
    """Over all epochs."""
    tokens_per_second: Figure
    """Of all workers."""
    seconds: Figure
    gpu_hours: Figure
    cpu_hours: Figure
    measured_steps: int
    cost: Figure | None


def estimate_training(
    recipe: Recipe,
    calibration: Calibration,
    rows: Figure,
    cluster: Cluster | None,
    prices: Mapping[str, float] | None,
    notes: list[str],
) -> TrainingEstimate | None:
    """A training on so many rows of the dataset; None where the recipe has none, or the calibration had none (then a note says so)."""
    train, record = recipe.train, calibration.training
    if train is None:
        return None
    if record is None:
        notes.append("the calibration trained nothing: how long the training takes is not known")
        return None
    if train.max_steps is not None:
        learned = given(min(train.max_steps * train.global_batch, rows.value * train.epochs))
    else:
        learned = rows.times(train.epochs)
    tokens = learned.times(record.tokens_per_row)
    rate = record.tokens_per_second.times(train.workers / record.num_workers)
    if train.workers != record.num_workers:
        notes.append(f"the calibration trained with {record.num_workers} workers; {train.workers} are reckoned as proportionally faster")
    slow, fast = (rate.low or rate.value, rate.high or rate.value)
    has_spread = tokens.low is not None and rate.low is not None
    seconds = Figure(
        tokens.value / rate.value,
        tokens.low / fast if has_spread and tokens.low is not None else None,
        tokens.high / slow if has_spread and tokens.high is not None else None,
        record.num_rows,
        1,
    )
    hours = seconds.times(train.workers / 3600)
    cost = _cost(train, seconds, cluster, prices)
    return TrainingEstimate(
        rows, tokens, rate, seconds, hours.times(train.gpus_per_worker), hours.times(train.cpus_per_worker), record.num_steps, cost
    )


def _cost(train: Train, seconds: Figure, cluster: Cluster | None, prices: Mapping[str, float] | None) -> Figure | None:
    if cluster is None or prices is None:
        return None
    left, nodes = train.workers, dict[str, int]()
    for group in cluster.for_engines(train.cpus_per_worker, train.gpus_per_worker, wanted_labels(train)):
        per_node = engines_per_node(group, train.cpus_per_worker, train.gpus_per_worker)
        if left > 0:
            nodes[group.name] = min(group.max_nodes, -(-left // per_node))
            left -= nodes[group.name] * per_node
    if left > 0:
        raise UserError(f"--cluster {cluster.path}: {left} of the {train.workers} workers of `train` find no room")
    return cost_of_time(seconds, nodes, cluster, prices)


def cost_of_time(wall: Figure, nodes: Mapping[str, int], cluster: Cluster | None, prices: Mapping[str, float] | None) -> Figure | None:
    """Dollars of these nodes and the head over a wall time; None where a price is missing."""
    if cluster is None or prices is None:
        return None
    heads = {group.name: 1 for group in cluster.groups if group.pool == "head"}
    used = {**heads, **{name: count for name, count in nodes.items() if count}}
    if any(name not in prices for name in used):
        return None
    return wall.times(sum(count * prices[name] for name, count in used.items()) / 3600)


def wanted_labels(model: Placed) -> dict[str, str]:
    """Labels of the nodes that an engine or a training may be on."""
    return {**model.labels, **({ACCELERATOR: model.accelerator} if model.accelerator else {})}
