"""What nodes cost: what `--price` says, else a YAML file of prices by region and instance type, and no guess where neither has one."""

import re
from collections.abc import Iterable, Mapping, Sequence
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


def parse_prices(texts: Sequence[str], cluster: Cluster) -> dict[str, float]:
    """Dollars per node hour by group, from texts such as `pages=1.55`. Raises UserError."""
    names = [group.name for group in cluster.groups]
    found: dict[str, float] = {}
    for text in texts:
        name, _, dollars = text.partition("=")
        if name not in names:
            raise UserError(f"--price {text}: {cluster.path} has no node group {name!r}, only {', '.join(names)}")
        if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", dollars):
            raise UserError(f"--price {text}: GROUP=DOLLARS is wanted, what a node of the group costs an hour, such as {name}=1.55")
        found[name] = float(dollars)
    return found


def price_of(group: NodeGroup, listed: Prices | None, path: Path) -> float | str:
    """Dollars per hour of a node of the group, or one line that says why there is no price."""
    market = "spot" if group.is_spot else "on demand"
    remedy = f"--price {group.name}=DOLLARS says what a node costs an hour"
    if group.instance_type is None or group.region is None:
        lacking = "instance type" if group.instance_type is None else "region"
        return f"node group {group.name}: the cluster's file names no {lacking}, so there is no price; {remedy}"
    if listed is None:
        return f"there is no {path}; give a file of prices by --prices, or prices by --price"
    found = listed.regions.get(group.region, {}).get(group.instance_type, Price())
    price = found.spot if group.is_spot else found.on_demand
    if price is None:
        return f"node group {group.name}: {path} has no price of {group.instance_type} {market} in {group.region}; {remedy}"
    return price


def hourly_prices(
    cluster: Cluster, listed: Prices | None, path: Path, said: Mapping[str, float] | None = None
) -> tuple[dict[str, float], list[str]]:
    """Dollars per node hour by group, `said` before those of the file; and what keeps groups from having a price, in a line each."""
    found = {group.name: price_of(group, listed, path) for group in cluster.groups} | {**(said or {})}
    priced = {name: price for name, price in found.items() if not isinstance(price, str)}
    return priced, list(dict.fromkeys(line for line in found.values() if isinstance(line, str)))


def cost_of(node_hours: Iterable[tuple[str, float]], prices: dict[str, float]) -> float | None:
    """Dollars of so many hours of nodes by group; None as soon as one that was used has no price."""
    total = 0.0
    for group, hours in node_hours:
        if hours and group not in prices:
            return None
        total += hours * prices.get(group, 0.0)
    return total
