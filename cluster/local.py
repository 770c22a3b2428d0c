"""A cluster on this one machine, to learn on and to test with: nodes with logical CPUs and GPUs, labels as on a real one, a job server.

python cluster/local.py --pages 3 --engines 4

prints where it is and stays until it is interrupted. Ray counts its GPUs and nothing computes on them: engines are the scripted one, or
vLLM on CPU. From another terminal: xl submit RECIPE --cluster http://127.0.0.1:8265 --out DIR. Both use the token in ~/.ray/auth_token,
without which nobody is let in.
"""

import contextlib
import itertools
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from xl.placement import POOL
from xl.preemption import RayNode, drain
from xl.ray_session import QUIET

LOOK_SECONDS = 1.0
"""How often the autoscaler looks."""

GROUPS: dict[str, dict[str, Any]] = {
    "head": {"num_cpus": 0, "labels": {POOL: "head"}, "dashboard_agent_listen_port": None},
    "pages": {"num_cpus": 1, "labels": {POOL: "pages"}},
    "engines": {"num_cpus": 1, "num_gpus": 1, "labels": {POOL: "engines"}},
}
"""What a node of each group has. The head runs no work, and its agent takes any free port, so that two clusters have room here."""


@dataclass
class LocalCluster:
    """A running cluster. Nodes come and go by `add`, `remove` and `drain`."""

    _ray: Any
    nodes: dict[str, list[Any]] = field(default_factory=lambda: {group: [] for group in GROUPS})
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def address(self) -> str:
        """For `--address`."""
        return str(self._ray.address)

    @property
    def dashboard(self) -> str:
        """For `--cluster`, where the dashboard was asked for."""
        return f"http://{self._ray.head_node.webui_url}"

    @property
    def logs(self) -> Path:
        """Where Ray's processes write theirs."""
        return Path(self._ray.head_node.get_logs_dir_path())

    def add(self, group: str, **more: Any) -> Any:
        """Start a node of a group and wait until it is up."""
        # Ray unpacks a job's files where a node first runs something of it. In a folder that nodes share it would do so over those that
        # other nodes work in.
        own = {"runtime_env_dir_name": f"runtime_env_{next(self._numbers)}"}
        node = self._ray.add_node(**{**GROUPS[group], **own, **more})
        self.nodes[group].append(node)
        return node

    def remove(self, node: Any, graceful: bool = True) -> None:
        """End a node; without grace as a power cut would."""
        for group in self.nodes.values():
            if node in group:
                group.remove(node)
        self._ray.remove_node(node, allow_graceful=graceful)

    def drain(self, node: Any, notice_seconds: float, reason: str = "the machine is wanted elsewhere") -> None:
        """Tell a node, as a cloud does, that it will be taken away. It is still there until `remove`."""
        drain(RayNode(self.address, node.node_id), time.time() + notice_seconds, reason)


@dataclass(frozen=True)
class Look:
    """What the autoscaler saw."""

    seconds: float
    """Since it began."""
    num_nodes: int
    num_waiting: int
    """Processes that found no node."""


class Autoscaler:
    """Adds a node of a group for each process that waits for one, up to `most` nodes, and ends nodes that do nothing.

    It goes by what Ray's control plane tells every autoscaler: requests that wait, and how long each node has been idle. `looks` is its
    timeline.
    """

    def __init__(self, cluster: LocalCluster, group: str, most: int, idle_seconds: float) -> None:
        from ray.autoscaler.v2.sdk import GcsClient

        self._cluster, self._group, self._most, self._idle_seconds = cluster, group, most, idle_seconds
        self._control, self._began = GcsClient(address=cluster.address), time.monotonic()
        self.looks: list[Look] = []

    def work(self, is_over: Callable[[], bool]) -> None:
        """Look again and again until it is over. Ray starts nodes in a main thread alone."""
        while not is_over():
            self._look()
            time.sleep(LOOK_SECONDS)
        self._look()

    def timeline(self) -> str:
        """A line for each change: when, nodes as bars, and how many processes waited."""
        changes = [next(alike) for _, alike in groupby(self.looks, lambda look: (look.num_nodes, look.num_waiting))]
        return "\n".join(f"{look.seconds:6.0f} s  {'█' * look.num_nodes:{self._most}}  {look.num_waiting} waiting" for look in changes)

    def _look(self) -> None:
        from ray.autoscaler.v2.sdk import get_cluster_resource_state

        seen, nodes = get_cluster_resource_state(self._control), self._cluster.nodes[self._group]
        num_waiting = sum(each.count for each in seen.pending_resource_requests if self._is_ours(each.request))
        self.looks.append(Look(time.monotonic() - self._began, len(nodes), num_waiting))
        idle = {state.node_id.hex() for state in seen.node_states if state.idle_duration_ms > 1000 * self._idle_seconds}
        if num_waiting and len(nodes) < self._most:
            self._cluster.add(self._group)
        elif not num_waiting:
            for node in [node for node in nodes if node.node_id in idle]:
                self._cluster.remove(node)

    def _is_ours(self, request: Any) -> bool:
        """Whether a node of the group has what is asked for."""
        group = GROUPS[self._group]
        there: Mapping[str, float] = {"CPU": group["num_cpus"], "GPU": group.get("num_gpus", 0)}
        fits = all(amount <= there.get(resource, 0) for resource, amount in request.resources_bundle.items())
        wanted = [c for selector in request.label_selectors for c in selector.label_constraints]
        return fits and "GPU" in request.resources_bundle and all(group["labels"].get(c.label_key) in c.label_values for c in wanted)


@contextlib.contextmanager
def local_cluster(num_pages: int, num_engines: int, dashboard_port: int | None = None) -> Iterator[LocalCluster]:
    """A cluster with so many nodes for pages and for engines; it ends with the context. With a port it has a dashboard and takes jobs."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    # A job's `python` is to be the one that this is run by, as on a node whose image has one.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    # Ray notes the latest cluster in its folder, and that is the one which drivers of jobs join: each cluster has a folder of its own.
    folder = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray-", dir=folder)
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray.cluster_utils import Cluster

    ensure_token_if_auth_enabled()  # as `ray start --head` does: where tokens are asked for and there is none, ~/.ray/auth_token is made
    cluster = LocalCluster(Cluster())
    try:
        has_dashboard = dashboard_port is not None
        cluster.add("head", include_dashboard=has_dashboard, **({"dashboard_port": dashboard_port} if has_dashboard else {}))
        for group, count in (("pages", num_pages), ("engines", num_engines)):
            for _ in range(count):
                cluster.add(group)
        yield cluster
    finally:
        cluster._ray.shutdown()
        os.environ.pop("RAY_TMPDIR") if folder is None else os.environ.update(RAY_TMPDIR=folder)


def main(
    pages: Annotated[int, typer.Option(min=0, help="Nodes for work without a GPU.")] = 1,
    engines: Annotated[int, typer.Option(min=0, help="Nodes with a GPU that Ray counts.")] = 1,
    dashboard_port: Annotated[int, typer.Option(help="Where the dashboard is, and the job server.")] = 8265,
    autoscale: Annotated[
        bool, typer.Option(help="Have nodes with a GPU come when engines wait for one, and go when they are idle.")
    ] = False,
    idle_seconds: Annotated[float, typer.Option(help="With --autoscale: how long a node may be idle.")] = 60.0,
) -> None:
    """Start a cluster on this machine and keep it until it is interrupted; with --autoscale it then tells how it grew and shrank.

    Who has the token lets it run code: RAY_AUTH_TOKEN, or ~/.ray/auth_token, which is made where there is none.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # the machine's other users and its network reach the ports of Ray
    with local_cluster(pages, 0 if autoscale else engines, dashboard_port) as cluster:
        print(f"cluster: {cluster.dashboard}\naddress: {cluster.address}\nlogs: {cluster.logs}", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        scaler = Autoscaler(cluster, "engines", engines, idle_seconds)
        with contextlib.suppress(KeyboardInterrupt):
            scaler.work(lambda: False) if autoscale else signal.pause()
        if autoscale:
            print(scaler.timeline())


if __name__ == "__main__":
    typer.run(main)
