"""Node groups of a cluster, from the file that starts it: a `ray up` YAML, or a KubeRay manifest.

The label `xl/pool` says what a group is for (head, pages, engines); without it a group with GPUs is for engines, another one for pages.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from xl.errors import UserError
from xl.placement import ACCELERATOR, POOL

MARKET = "ray.io/market-type"
REGION = "ray.io/region"
_KUBE_SPECS = {"RayCluster": ("spec",), "RayJob": ("spec", "rayClusterSpec"), "RayService": ("spec", "rayClusterConfig")}
_SPOT_SELECTORS = {"cloud.google.com/gke-spot": "true", "karpenter.sh/capacity-type": "spot", "eks.amazonaws.com/capacityType": "SPOT"}
_SUFFIXES = {"m": 1e-3, "": 1.0, "k": 1e3}

Pool = Literal["head", "pages", "engines"]


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one kind."""

    name: str
    pool: Pool
    num_cpus: float
    num_gpus: float = 0.0
    min_nodes: int = 0
    max_nodes: int = 1
    is_spot: bool = False
    priority: int = 0
    """Of several groups that could serve, that of the highest priority grows first."""
    instance_type: str | None = None
    region: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cluster:
    """All groups of a cluster, the head among them."""

    path: Path
    groups: tuple[NodeGroup, ...]
    idle_seconds: float | None = None
    """How long an idle node stays."""
    max_workers: int | None = None
    """Most nodes beside the head, whatever the groups allow."""

    def for_engines(self, cpus: float, gpus: float, labels: Mapping[str, str]) -> list[NodeGroup]:
        """Groups where an engine may be that holds so much and wants these labels; the first one grows first."""
        fits = [
            group
            for group in self.groups
            if group.pool == ("engines" if gpus else "pages")
            and engines_per_node(group, cpus, gpus)
            and labels.items() <= group.labels.items()
        ]
        return sorted(fits, key=lambda group: (-group.priority, not group.is_spot))

    def for_pages(self) -> list[NodeGroup]:
        """Groups for work that needs no engine."""
        return [group for group in self.groups if group.pool == "pages" and group.num_cpus >= 1]


def engines_per_node(group: NodeGroup, cpus: float, gpus: float) -> int:
    """How many engines that hold so much a node of the group has room for."""
    rooms = [int(there / wanted + 1e-9) for there, wanted in ((group.num_cpus, cpus), (group.num_gpus, gpus)) if wanted]
    return min(rooms, default=1)


def read_cluster(path: Path) -> Cluster:
    """The groups that a cluster's file describes.

    Raises:
        UserError: one line that names the file and the key.
    """
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document is not None]
    except FileNotFoundError:
        raise UserError(f"--cluster: no file {str(path)!r}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--cluster {path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"--cluster {path}: not valid YAML: {' '.join(str(error).split())}") from None
    for document in documents:
        if isinstance(document, dict) and "available_node_types" in document:
            return _from_ray_up(path, document)
        if isinstance(document, dict) and (keys := _KUBE_SPECS.get(str(document.get("kind")))):
            return _from_kuberay(path, document, keys)
    raise UserError(f"--cluster {path}: holds neither `available_node_types` (ray up) nor a RayCluster, RayJob or RayService (KubeRay)")


def _from_ray_up(path: Path, data: Mapping[str, Any]) -> Cluster:
    types = _mapping(path, data, "available_node_types")
    head = data.get("head_node_type")
    if head not in types:
        raise UserError(f"--cluster {path}: head_node_type: {head!r} is not among available_node_types ({', '.join(types)})")
    region = _mapping(path, data, "provider").get("region")
    total = _count(path, data, "max_workers", 2)  # Ray's own default
    groups = []
    for name in types:
        kind = _mapping(path, types, name, "available_node_types.")
        where = f"available_node_types.{name}."
        resources = _mapping(path, kind, "resources", where)
        config = _mapping(path, kind, "node_config", where)
        labels = _labels(path, kind, "labels", where)
        for key in resources:
            if key.startswith("accelerator_type:"):  # how files said it before Ray had labels
                labels.setdefault(ACCELERATOR, key.partition(":")[2])
        if "CPU" not in resources:
            raise UserError(f"--cluster {path}: {where}resources.CPU is missing; `xl plan` asks no cloud how many there are")
        cpus, gpus = (_number(path, resources, key, f"{where}resources.") for key in ("CPU", "GPU"))
        most = 1 if name == head else min(total, _count(path, kind, "max_workers", total, where))
        least = 1 if name == head else _count(path, kind, "min_workers", 0, where)
        groups.append(
            NodeGroup(
                name,
                _pool(path, labels, where, gpus, is_head=name == head),
                cpus,
                gpus,
                _at_most(path, least, most, f"{where}min_workers"),
                most,
                _is_spot(labels, config),
                _count(path, kind, "priority", 0, where),
                config.get("InstanceType") or config.get("machineType"),
                labels.get(REGION) or region,
                labels,
            )
        )
    return Cluster(path, tuple(groups), 60 * _number(path, data, "idle_timeout_minutes", default=5.0), total)


def _from_kuberay(path: Path, document: Mapping[str, Any], keys: tuple[str, ...]) -> Cluster:
    spec: Mapping[str, Any] = document
    for key in keys:
        spec = _mapping(path, spec, key)
    where = ".".join(keys) + "."
    head = _kube_group(path, _mapping(path, spec, "headGroupSpec", where), f"{where}headGroupSpec.", "head")
    groups = [replace(head, min_nodes=1, max_nodes=1)]
    workers = spec.get("workerGroupSpecs") or []
    if not isinstance(workers, list) or not all(isinstance(worker, dict) for worker in workers):
        raise UserError(f"--cluster {path}: {where}workerGroupSpecs is not a list of groups")
    for number, worker in enumerate(workers):
        at = f"{where}workerGroupSpecs[{number}]."
        if not worker.get("groupName"):
            raise UserError(f"--cluster {path}: {at}groupName is missing")
        group = _kube_group(path, worker, at, str(worker["groupName"]))
        hosts = _count(path, worker, "numOfHosts", 1, at)
        least = _count(path, worker, "minReplicas", 0, at)
        most = _count(path, worker, "maxReplicas", max(least, _count(path, worker, "replicas", 0, at)), at)
        most = hosts * most
        groups.append(replace(group, min_nodes=_at_most(path, hosts * least, most, f"{at}minReplicas"), max_nodes=most))
    options = spec.get("autoscalerOptions") or {}
    return Cluster(path, tuple(groups), _number(path, options, "idleTimeoutSeconds", f"{where}autoscalerOptions.", 60.0))


def _kube_group(path: Path, group: Mapping[str, Any], where: str, name: str) -> NodeGroup:
    """A group of pods, each taken for a node of its own; how many there are is left to the caller."""
    pod = _mapping(path, _mapping(path, group, "template", where), "spec", f"{where}template.")
    containers = pod.get("containers")
    if not isinstance(containers, list) or not containers or not isinstance(containers[0], dict):
        raise UserError(f"--cluster {path}: {where}template.spec.containers is missing")
    at = f"{where}template.spec.containers[0].resources"
    wanted = containers[0].get("resources") or {}
    limits = {**(wanted.get("requests") or {}), **(wanted.get("limits") or {})}
    start = _mapping(path, group, "rayStartParams", where) if group.get("rayStartParams") else {}
    said = group.get("resources") or {}
    cpus = start.get("num-cpus", said.get("CPU", limits.get("cpu")))
    if cpus is None:
        raise UserError(f"--cluster {path}: {at}.limits.cpu is missing, and rayStartParams says no num-cpus")
    gpus = start.get("num-gpus", said.get("GPU", next((value for key, value in limits.items() if key.endswith("/gpu")), 0)))
    selector = {str(key): str(value) for key, value in (pod.get("nodeSelector") or {}).items()}
    labels = {**_start_labels(start), **_labels(path, group, "labels", where)}
    is_spot = any(selector.get(key) == value for key, value in _SPOT_SELECTORS.items())
    num_cpus, num_gpus = _quantity(path, cpus, f"{at}.limits.cpu"), _quantity(path, gpus, f"{at}.limits")
    return NodeGroup(
        name,
        _pool(path, labels, where, num_gpus, is_head=name == "head" and where.endswith("headGroupSpec.")),
        num_cpus,
        num_gpus,
        is_spot=labels.get(MARKET) == "spot" or is_spot,
        priority=_count(path, group, "priority", 0, where),
        instance_type=selector.get("node.kubernetes.io/instance-type"),
        region=labels.get(REGION) or selector.get("topology.kubernetes.io/region"),
        labels=labels,
    )


def _start_labels(start: Mapping[str, Any]) -> dict[str, str]:
    """Labels as `ray start --labels` takes them: `a=b,c=d`."""
    pairs = (pair.partition("=") for pair in str(start.get("labels", "")).split(",") if "=" in pair)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _is_spot(labels: Mapping[str, str], config: Mapping[str, Any]) -> bool:
    """What Ray's label says, or else AWS's or Google's own key."""
    if MARKET in labels:
        return labels[MARKET] == "spot"
    options = config.get("InstanceMarketOptions") or {}
    scheduling = list(_mappings(config.get("scheduling")))
    google = any(entry.get("preemptible") or entry.get("provisioningModel") == "SPOT" for entry in scheduling)
    return google or (isinstance(options, dict) and options.get("MarketType") == "spot")


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    yield from (entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, dict))


def _pool(path: Path, labels: Mapping[str, str], where: str, gpus: float, *, is_head: bool) -> Pool:
    pool = labels.get(POOL, "head" if is_head else "engines" if gpus else "pages")
    if pool == "head" or is_head:
        return "head"
    if pool in ("pages", "engines"):
        return "pages" if pool == "pages" else "engines"
    raise UserError(f"--cluster {path}: {where}labels.{POOL}: {pool!r} is none of head, pages and engines")


def _mapping(path: Path, data: Mapping[str, Any], key: str, where: str = "") -> Mapping[str, Any]:
    value = data.get(key)
    if not isinstance(value, dict):
        raise UserError(f"--cluster {path}: {where}{key} is missing" if value is None else f"--cluster {path}: {where}{key} is no mapping")
    return value


def _labels(path: Path, data: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    found = _mapping(path, data, key, where) if data.get(key) else {}
    return {str(name): str(value) for name, value in found.items()}


def _number(path: Path, data: Mapping[str, Any], key: str, where: str = "", default: float = 0.0) -> float:
    value = data.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise UserError(f"--cluster {path}: {where}{key}: {value!r} is not a number of at least 0")
    return float(value)


def _count(path: Path, data: Mapping[str, Any], key: str, default: int, where: str = "") -> int:
    value = data.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"--cluster {path}: {where}{key}: {value!r} is not a whole number of at least 0")
    return value


def _at_most(path: Path, least: int, most: int, key: str) -> int:
    if least > most:
        raise UserError(f"--cluster {path}: {key}: {least} is more than the {most} that there may be")
    return least


def _quantity(path: Path, value: Any, key: str) -> float:
    """A Kubernetes quantity such as 4, "500m" or "1"."""
    text = str(value)
    digits = text.rstrip("mk")
    suffix = text[len(digits) :]
    try:
        number = float(digits) * _SUFFIXES[suffix]
    except (ValueError, KeyError):
        raise UserError(f"--cluster {path}: {key}: {value!r} is not a quantity such as 4 or 500m") from None
    return number
