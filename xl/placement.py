"""Where on a cluster things run: engines where their GPUs and labels are, all other work on the nodes for pages, nothing on the head.

Clusters say which nodes are for what by the Ray label `xl/pool`: head, pages or engines (`cluster/README.md`). On a Ray whose head has no
such label, one machine's own among them, work goes wherever there is room.
"""

from collections.abc import Mapping
from typing import Any

from xl.settings import Placed

POOL = "xl/pool"
ACCELERATOR = "ray.io/accelerator-type"


def nodes(labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """The nodes with these labels that are alive, in Ray's words. Ray must be initialised."""
    import ray

    return [node for node in ray.nodes() if node["Alive"] and labels.items() <= node["Labels"].items()]


def beside_engines() -> dict[str, str]:
    """Labels of the nodes for work that needs no GPU. Ray must be initialised."""
    return {POOL: "pages"} if nodes({POOL: "head"}) else {}


def of(settings: Placed, num_gpus: float) -> dict[str, str]:
    """Labels of the nodes that an engine or a training may be on, each process of which has so many GPUs."""
    wanted = {**settings.labels, **({ACCELERATOR: settings.accelerator} if settings.accelerator else {})}
    return wanted if num_gpus else {**beside_engines(), **wanted}


def options(labels: Mapping[str, str]) -> dict[str, Any]:
    """Ray's options for a task or an actor that is to be on nodes with these labels."""
    return {"label_selector": dict(labels)} if labels else {}
