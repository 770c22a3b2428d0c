"""The files that start clusters, read: whole, one of KubeRay's clusters, or in the words of Ray's autoscaler."""

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support import ROOT

CLUSTER = ROOT / "cluster"
KUBERAY = CLUSTER / "kuberay"
MARKET = "ray.io/market-type"
CLOUDS = ("aws", "gcp")
KINDS = {"raycluster": ("spec",), "rayjob": ("spec", "rayClusterSpec"), "rayservice": ("spec", "rayClusterConfig")}
"""KubeRay's manifests, and where in them the cluster is."""


@functools.cache
def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def load(path: Path) -> Any:
    return copy.deepcopy(documents(path)[0])


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(KUBERAY.glob("*.yaml")):
        for document in documents(path):
            yield path.name, document


def kube_cluster(name: str) -> dict[str, Any]:
    found = load(KUBERAY / f"{name}.yaml")
    for key in KINDS[name]:
        found = found[key]
    return found


def node_types(name: str) -> dict[str, dict[str, Any]]:
    """The groups of a cluster by name, as Ray's autoscaler is told of them."""
    return autoscaling(name)["available_node_types"]


def autoscaling(name: str) -> dict[str, Any]:
    """A cluster in the words of Ray's autoscaler, filled in and validated by Ray's own code, which asks no cloud for it."""
    if name in CLOUDS:
        from ray.autoscaler._private.util import prepare_config, validate_config

        config = prepare_config(load(CLUSTER / f"{name}.yaml"))
        validate_config(config)
        return config
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    return _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "xl", "namespace": "xl"}, "spec": kube_cluster(name)})


def walk(value: Any) -> Iterator[Any]:
    """A value and all that is in it."""
    yield value
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inside:
        yield from walk(item)
