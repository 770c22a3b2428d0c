"""What nodes cost: a YAML file of prices by region and instance type, and no guess where it has none."""

from collections.abc import Iterable
from datetime import date
from pathlib import Path

from pydantic import Field

from xl.errors import UserError
from xl.planning.cluster import Cluster, NodeGroup
from xl.recipe import checked, read_yaml
from xl.settings import Strict

FILE = "prices.yaml"


class Price(Strict):
    """US dollars per hour of one instance."""

    on_demand: float | None = Field(None, ge=0)
    spot: float | None = Field(None, ge=0)
    looked_up: date | None = None
    source: str | None = None


class Prices(Strict):
    """A file of prices."""

    looked_up: date
    """Where an entry does not say another one."""
    source: str
    regions: dict[str, dict[str, Price]]


def read_prices(path: Path) -> Prices:
    """Prices from a file. Raises UserError."""
    data = read_yaml(path, "file of prices")
    if not isinstance(data, dict):
        raise UserError(f"{path}: prices are a mapping with `looked_up`, `source` and `regions`, not {type(data).__name__}")
    return checked(Prices, data, str(path))


def beside(cluster: Path) -> Path:
    """Where prices are by default: beside the cluster's file."""
    return cluster.parent / FILE


def price_of(group: NodeGroup, prices: Prices, path: Path) -> float | str:
    """Dollars per hour of a node of the group, or one line that says why there is no price."""
    market = "spot" if group.is_spot else "on demand"
    if group.instance_type is None:
        return f"node group {group.name}: the cluster's file names no instance type, so there is no price"
    if group.region is None:
        return f"node group {group.name}: the cluster's file names no region, so there is no price"
    found = prices.regions.get(group.region, {}).get(group.instance_type, Price())
    price = found.spot if group.is_spot else found.on_demand
    if price is None:
        return f"node group {group.name}: {path} has no price of {group.instance_type} {market} in {group.region}"
    return price


def hourly_prices(cluster: Cluster, prices: Prices, path: Path) -> tuple[dict[str, float], list[str]]:
    """Dollars per node hour by group, and a line for each group that has no price."""
    found = {group.name: price_of(group, prices, path) for group in cluster.groups}
    priced = {name: price for name, price in found.items() if not isinstance(price, str)}
    return priced, [line for line in found.values() if isinstance(line, str)]


def cost_of(node_hours: Iterable[tuple[str, float]], prices: dict[str, float]) -> float | None:
    """Dollars of so many hours of nodes by group; None as soon as one that was used has no price."""
    total = 0.0
    for group, hours in node_hours:
        if hours and group not in prices:
            return None
        total += hours * prices.get(group, 0.0)
    return total
