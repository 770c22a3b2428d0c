"""Nodes that come, go and are paid for: the moving part of a simulated cluster."""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from xl.errors import UserError
from xl.planning.cluster import NodeGroup
from xl.planning.scenario import Faults, Timings

MAX_LOST_NODES = 100_000
"""A simulation that loses more will not end: nodes go before they have done anything."""


class Clock:
    """Events in the order of their times; those of one time in the order in which they were entered."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()

    def at(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        """Call an action at a time, or now if that has passed."""
        heapq.heappush(self._events, (max(seconds, self.now), next(self._numbers), action, arguments))

    def step(self) -> None:
        """Let the next event happen."""
        assert self._events, "the simulation waits for something that will never happen"
        self.now, _, action, arguments = heapq.heappop(self._events)
        action(*arguments)

    def advance(self, seconds: float) -> None:
        """Let all events up to a time happen."""
        while self._events and self._events[0][0] <= seconds:
            self.step()
        self.now = max(self.now, seconds)


class Change(NamedTuple):
    """A point of the timeline: how many nodes of a group are paid for from here on, and how many of them can work."""

    seconds: float
    group: str
    num_paid: int
    num_ready: int


class Work(Protocol):
    """What nodes are told to."""

    def join(self, node: "Node") -> None: ...
    def lose(self, node: "Node") -> None: ...


@dataclass(eq=False)
class Node:
    """One node of a group."""

    group: NodeGroup
    paid_from: float
    is_up: bool = False
    is_ready: bool = False
    """Up, and its engines have loaded their model."""
    is_leaving: bool = False
    """It was told that it will be taken away, and takes no more rows."""
    is_gone: bool = False
    has_model: bool = False
    """Its engines have loaded their model, or are about to."""
    num_models: int = 0
    """Models that it has been given so far."""


@dataclass(eq=False)
class Fleet:
    """The nodes of the groups that serve one purpose. The first group with room grows first."""

    clock: Clock
    groups: Sequence[NodeGroup]
    timings: Timings
    faults: Faults
    random: random.Random
    load_seconds: float = 0.0
    """What a node does between coming up and being ready."""
    work: Work | None = None
    nodes: list[Node] = field(default_factory=list)
    """Those that are paid for."""
    timeline: list[Change] = field(default_factory=list)
    num_lost: int = 0
    _wanted: int = 0
    _key: str = ""
    _paid_seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for group in self.groups:
            for _ in range(group.min_nodes):
                self._come_up(self._order(group))
        for seconds in self.faults.preemption_times:
            if any(group.is_spot for group in self.groups):
                self.clock.at(seconds, self._preempt_one)

    @property
    def most(self) -> int:
        """Nodes that there may be."""
        return sum(group.max_nodes for group in self.groups)

    def want(self, count: int, key: str = "") -> None:
        """Have so many nodes ready from now on, or as many as there may be; `key` names the model that they are to have loaded."""
        self._wanted = min(count, self.most)
        if key != self._key:
            self._key = key
            for node in self.nodes:
                node.is_ready = node.has_model = False
        self._grow()

    def ready(self) -> list[Node]:
        """Nodes that take rows."""
        return [node for node in self.nodes if node.is_ready and not node.is_leaving]

    def is_coming(self) -> bool:
        """Whether there is a node that takes rows, or will."""
        return any(not node.is_leaving for node in self.nodes)

    def release(self, idle_seconds: float | None) -> None:
        """Nodes have no rows any more: give them back after so long, unless they are wanted again; None keeps them."""
        self._wanted = 0
        if idle_seconds is not None:
            self.clock.at(self.clock.now + idle_seconds, self._give_back)

    def paid_hours(self) -> dict[str, float]:
        """Node hours up to now, by group."""
        seconds = dict(self._paid_seconds)
        for node in self.nodes:
            seconds[node.group.name] = seconds.get(node.group.name, 0.0) + self.clock.now - node.paid_from
        return {name: value / 3600 for name, value in seconds.items()}

    def _grow(self) -> None:
        for group in self.groups:
            there = sum(node.group is group for node in self.nodes)
            for _ in range(min(group.max_nodes - there, self._wanted - sum(not node.is_leaving for node in self.nodes))):
                self.clock.at(self.clock.now + self.timings.node_boot_seconds, self._come_up, self._order(group))
        self._load()

    def _order(self, group: NodeGroup) -> Node:
        node = Node(group, self.clock.now)
        self.nodes.append(node)
        self._note(group)
        return node

    def _come_up(self, node: Node) -> None:
        if node.is_gone:
            return
        node.is_up = True
        self._load()
        lifetime, is_preempted = self._lifetime(node.group)
        if math.isfinite(lifetime):
            self.clock.at(self.clock.now + lifetime, self._preempt if is_preempted else self._lose, node)

    def _load(self) -> None:
        """Give the model to as many nodes as are wanted."""
        staying = [node for node in self.nodes if node.is_up and not node.is_leaving]
        without = [node for node in staying if not node.has_model]
        for node in without[: max(0, self._wanted - len(staying) + len(without))]:
            node.has_model = True
            node.num_models += 1
            if self.load_seconds:
                self.clock.at(self.clock.now + self.load_seconds, self._be_ready, node, node.num_models)
            else:
                self._be_ready(node, node.num_models)

    def _be_ready(self, node: Node, model: int) -> None:
        if node.is_gone or not node.has_model or model != node.num_models:
            return
        node.is_ready = True
        self._note(node.group)
        if self.work and not node.is_leaving:
            self.work.join(node)

    def _lifetime(self, group: NodeGroup) -> tuple[float, bool]:
        """Seconds until a node is lost or told that it will be, and whether it is told."""
        preemptions = self.faults.preemptions_per_node_hour if group.is_spot else 0.0
        draws = [self.random.expovariate(rate / 3600) if rate else math.inf for rate in (self.faults.losses_per_node_hour, preemptions)]
        return min(draws), draws[1] < draws[0]

    def _preempt_one(self) -> None:
        up = [node for node in self.nodes if node.group.is_spot and node.is_up and not node.is_leaving]
        if up:
            self._preempt(self.random.choice(up))

    def _preempt(self, node: Node) -> None:
        """Tell a node that it will be taken away, and take it when the notice is over."""
        if node.is_gone or node.is_leaving:
            return
        if self.faults.notice_seconds == 0:
            self._lose(node)
            return
        node.is_leaving = True
        self.clock.at(self.clock.now + self.faults.notice_seconds, self._lose, node)
        self._grow()

    def _lose(self, node: Node) -> None:
        if node.is_gone:
            return
        self.num_lost += 1
        if self.num_lost > MAX_LOST_NODES:
            raise UserError(f"--failures, --preemptions: after {MAX_LOST_NODES:,} lost nodes the run had still not come to its end")
        self._remove(node)
        if self.work:
            self.work.lose(node)
        self._grow()

    def _give_back(self) -> None:
        """End the nodes beyond each group's fewest, unless nodes are wanted again by now."""
        if self._wanted:
            return
        for group in self.groups:
            there = [node for node in self.nodes if node.group is group]
            for node in there[group.min_nodes :]:
                self._remove(node)

    def _remove(self, node: Node) -> None:
        node.is_gone, node.is_ready = True, False
        self.nodes.remove(node)
        name = node.group.name
        self._paid_seconds[name] = self._paid_seconds.get(name, 0.0) + self.clock.now - node.paid_from
        self._note(node.group)

    def _note(self, group: NodeGroup) -> None:
        mine = [node for node in self.nodes if node.group is group]
        self.timeline.append(Change(self.clock.now, group.name, len(mine), sum(node.is_ready for node in mine)))
