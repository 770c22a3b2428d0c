"""Where on a cluster things run: engines where their GPUs and labels are, all other work on the nodes for pages, nothing on the head.

Clusters say which nodes are for what by the Ray label `xl/pool`: head, pages or engines (`cluster/README.md`). On a Ray whose head has no
such label, one machine's own among them, work goes wherever there is room.
"""

from collections.abc import Mapping
from typing import Any

from xl.settings import Placed

POOL = "xl/pool"
ACCELERATOR = "ray.io/accelerator-type"


def beside_engines() -> dict[str, str]:
    """Labels of the nodes for work that needs no GPU. Ray must be initialised."""
    import ray

    has_pools = any(node["Alive"] and node["Labels"].get(POOL) == "head" for node in ray.nodes())
    return {POOL: "pages"} if has_pools else {}


def of(settings: Placed, num_gpus: float) -> dict[str, str]:
    """Labels of the nodes that an engine or a training may be on, each process of which has so many GPUs."""
    wanted = {**settings.labels, **({ACCELERATOR: settings.accelerator} if settings.accelerator else {})}
    return wanted if num_gpus else {**beside_engines(), **wanted}


def options(labels: Mapping[str, str]) -> dict[str, Any]:
    """Ray's options for a task or an actor that is to be on nodes with these labels."""
    return {"label_selector": dict(labels)} if labels else {}
