"""Play a run through on a cluster that is not there: how long, how busy, what is redone, and what holds it up.

A discrete-event simulation of what `xl/pipeline.py` and `xl/execute.py` do: passes one after the other, each cut into executions, each
execution a closed network of one driver and many nodes, with nodes that come, are lost and are replaced. Events are a heap of times:
no library that we know follows 1e9 pages on 1,000 GPUs within a minute, as a process (SimPy's unit) costs more than a parcel here is
worth. What a unit of rows is grows with the run (`Execution`), so the number of events does not.

Not played: the head's loss, engines that die while their node lives, stock-outs of spot nodes, training and evaluation. Whole stages
and the manifest are reckoned, not played: one task surveys, then all CPUs decide.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from xl.engines.fleet import ENGINES_PER_WORKER
from xl.execute import CPU_PARCELS, ENGINE_PARCELS, PARCELS_PER_CPU, PARCELS_PER_ENGINE
from xl.planning.cluster import NodeGroup, engines_per_node
from xl.planning.execution import Driver, Execution, Sizes, Tally
from xl.planning.fleet import Change, Clock, Fleet
from xl.planning.scenario import PassWork, Scenario
from xl.progress import NEARLY_DONE_SECONDS

MAX_UNITS = 1_000_000
"""Units of rows in one simulation: about 15 s."""

MIN_UNITS_PER_STATION = 12
"""In one execution, so that the last unit of a station is a small part of its work."""

CLOSING_FOOTERS = 2
"""Reads of a shard's footer when a stage is closed: its ledger, and what it kept (`Pipeline._close_stage`)."""

FINAL_FOOTERS = 5
"""Reads of a shard's footer, for each stage, at the end of a run: two for the card, two for the report, one for the table."""


@dataclass(frozen=True)
class PassOutcome:
    """How a pass went. Shares are of the time from its beginning to its end."""

    name: str
    num_rows: int
    num_redone_rows: int
    """Rows that were in an engine, or on a CPU, of a node that was lost."""
    seconds: float
    num_executions: int
    worker_busy_ratio: float
    """Of the engines, or CPUs, that were there."""
    driver_busy_ratio: float
    """Handing out, and hearing of, rows."""
    sealing_busy_ratio: float
    """Of the CPUs on the nodes for pages, by sealing."""
    alone_ratio: float
    """Share of the time in which one process works for all: the driver that reads footers or plans, a survey, workers that start."""
    waiting_ratio: float
    """Share of the time in which no node was ready yet."""
    bottleneck: str


@dataclass(frozen=True)
class Outcome:
    """How a run went."""

    seconds: float
    passes: list[PassOutcome]
    node_hours: dict[str, float]
    """Paid for, by group."""
    gpu_hours: float
    """Paid for, at work or not."""
    engine_busy_ratio: float | None
    """Share of the paid-for GPU time in which engines worked; None without engines."""
    driver_busy_ratio: float
    num_redone_rows: int
    num_lost_nodes: int
    bottleneck: str
    timeline: list[Change]
    rows_per_unit: dict[str, int] = field(default_factory=dict)
    """How finely each pass was followed."""


def simulate(scenario: Scenario) -> Outcome:
    """Play a scenario. The same one with the same seed gives the same outcome."""
    return _Run(scenario).play()


class _Run:
    """A simulation in progress."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario, self._timings = scenario, scenario.timings
        self._clock, self._driver = Clock(), Driver()
        timings, faults = scenario.timings, scenario.faults
        # One source of chance for each thing that draws, so that one more draw of the one does not change the others.
        draws = [random.Random(f"{scenario.seed} {what}") for what in ("pages", "engines", "rows")]
        self._draw = draws[2]
        pages = [group for group in scenario.groups if group.pool == "pages"]
        named = dict.fromkeys(name for work in scenario.passes for name in work.groups)
        by_name = {group.name: group for group in scenario.groups}
        engines = [by_name[name] for name in named if by_name[name] not in pages]
        self._pages = Fleet(self._clock, pages, timings, faults, draws[0])
        self._engines = Fleet(self._clock, engines, timings, faults, draws[1], timings.engine_start_seconds)
        self._cores = [0.0] * timings.machine_cores if timings.machine_cores else None
        self._alone_seconds = 0.0
        self._gpu_seconds = 0.0
        """Of engines at work."""
        self._current: PassWork | None = None
        self._key = ""
        self._rows_per_unit: dict[str, int] = {}

    def play(self) -> Outcome:
        """All passes, and the end of the run."""
        self._pages.want(self._pages.most)
        self._alone(self._timings.run_start_seconds)
        outcomes = [self._pass(work, self._scenario.passes[number + 1 :]) for number, work in enumerate(self._scenario.passes)]
        self._alone(FINAL_FOOTERS * sum(work.num_files_written for work in self._scenario.passes) * self._timings.footer_seconds)
        seconds = self._clock.now
        hours = {group.name: seconds / 3600 for group in self._scenario.groups if group.pool == "head"}
        hours |= {**self._pages.paid_hours(), **self._engines.paid_hours()}
        num_gpus = {group.name: group.num_gpus for group in self._scenario.groups}
        gpu_hours = sum(hours_of * num_gpus[name] for name, hours_of in hours.items())
        longest = max(outcomes, key=lambda outcome: outcome.seconds, default=None)
        return Outcome(
            seconds,
            outcomes,
            hours,
            gpu_hours,
            self._gpu_seconds / 3600 / gpu_hours if gpu_hours else None,
            self._driver.busy_seconds / seconds if seconds else 0.0,
            sum(outcome.num_redone_rows for outcome in outcomes),
            self._pages.num_lost + self._engines.num_lost,
            longest.bottleneck if longest else "nothing",
            sorted([*self._pages.timeline, *self._engines.timeline], key=lambda change: change.seconds),
            self._rows_per_unit,
        )

    def _pass(self, work: PassWork, after: Sequence[PassWork]) -> PassOutcome:
        began, driver_before, alone_before = self._clock.now, self._driver.busy_seconds, self._alone_seconds
        self._current = work
        self._expect(work, after)
        fleet, tally = self._begin(work), Tally()
        waited = self._clock.now - began
        if work.kind in ("input", "whole"):
            self._whole(work, tally)
        else:
            self._alone(work.num_shards * self._timings.missing_seconds)
            for shards in self._executions(work):
                self._execute(work, fleet, shards, tally)
        self._alone(CLOSING_FOOTERS * work.num_files_written * self._timings.footer_seconds)
        if work.kind == "engines":
            self._engines.release(self._timings.idle_seconds)
            self._gpu_seconds += work.num_rows * work.row_seconds / work.num_parallel_rows * work.engine_gpus
        seconds, alone = max(self._clock.now - began, 1e-9), self._alone_seconds - alone_before
        driver = self._driver.busy_seconds - driver_before
        workers = tally.busy_seconds / tally.server_seconds * tally.seconds / seconds if tally.server_seconds else 0.0
        shares = {
            "engines" if work.kind == "engines" else "CPUs": workers,
            "driver": (driver - alone) / seconds,
            "sealing": tally.seal_seconds / (self._num_cpus() * seconds),
            "one process": alone / seconds,
            "waiting for nodes": waited / seconds,
        }
        bottleneck = max(shares, key=lambda name: shares[name])
        worker, busy, sealing, alone_ratio, waiting = shares.values()
        return PassOutcome(
            work.name,
            work.num_rows,
            tally.num_redone_rows,
            seconds,
            tally.num_executions,
            worker,
            busy,
            sealing,
            alone_ratio,
            waiting,
            bottleneck,
        )

    def _expect(self, work: PassWork, after: Sequence[PassWork]) -> None:
        """Have the fewest engines of the pass that asks next start while CPUs work (`Pipeline._expect_engine`): beside a whole stage, and
        when a pass over pages is nearly done."""
        asking = next((each for each in after if each.kind == "engines"), None)
        if asking is None or not asking.engine_gpus or work.kind not in ("pages", "whole"):
            return
        timings = self._timings
        row_seconds = work.row_seconds + timings.read_seconds_per_row + work.num_stages * timings.seal_seconds_per_row
        seconds = work.num_rows * row_seconds / self._num_cpus() if work.kind == "pages" else 0.0
        self._clock.at(self._clock.now + seconds - NEARLY_DONE_SECONDS, self._expect_during, work, asking)

    def _expect_during(self, work: PassWork, asking: PassWork) -> None:
        if self._current is work:
            self._want(asking, asking.replicas[0])

    def _begin(self, work: PassWork) -> Fleet:
        """Have the fewest nodes that the pass may have, and wait for the first of them."""
        fleet = self._engines if work.kind == "engines" and self._engines.groups else self._pages
        if fleet is self._engines:
            self._want(work, work.replicas[0])
        elif work.kind == "engines":  # on CPUs, or an endpoint
            if work.engine_cpus and work.engine_key != self._key:
                self._clock.advance(self._clock.now + self._timings.engine_start_seconds)
            self._key = work.engine_key
        self._wait_for(fleet)
        return fleet

    def _want(self, work: PassWork, num_engines: int) -> None:
        """Have nodes for so many engines of a pass, and for no more than it may have."""
        if self._engines.groups:
            self._engines.want(_num_nodes(min(num_engines, work.replicas[1]), work, self._engines.groups), work.engine_key)

    def _wait_for(self, fleet: Fleet) -> None:
        while not fleet.ready():
            self._clock.step()

    def _execute(self, work: PassWork, fleet: Fleet, shards: list[int], tally: Tally) -> None:
        timings, began = self._timings, self._clock.now
        if work.kind == "engines":
            num_engines = max(work.replicas[0], min(work.replicas[1], -(-sum(shards) // (work.num_calls * work.parcel_rows))))
            self._want(work, num_engines)
            num_workers = -(-num_engines // ENGINES_PER_WORKER)
            self._alone(timings.worker_start_cpu_seconds * -(-num_workers // self._num_cpus()))
        self._alone(timings.execution_start_seconds)
        self._wait_for(fleet)
        sizes, cores = self._sizes(work, shards, fleet), timings.machine_cores
        slowdown = max(1.0, self._num_cpus() / cores) if cores else 1.0
        execution = Execution(self._clock, self._driver, work, timings, sizes, shards, self._draw, tally, self._cores, slowdown)
        fleet.work = execution
        execution.begin(fleet.ready())
        while not execution.is_done:
            self._clock.step()
        self._clock.advance(execution.ended)
        fleet.work = None
        execution.close()
        tally.num_executions += 1
        tally.seconds += self._clock.now - began

    def _whole(self, work: PassWork, tally: Tally) -> None:
        """One task surveys all rows, then all CPUs decide, shard by shard."""
        survey, cpus, began = work.survey_seconds_per_row, self._num_cpus(), self._clock.now
        self._alone((work.row_seconds * self._timings.survey_ratio if survey is None else survey) * work.num_rows)
        self._driver.take(
            self._clock.now, work.num_shards * (self._timings.driver_seconds_per_dispatch + self._timings.driver_seconds_per_ack)
        )
        rounds = -(-work.num_shards // cpus)
        self._clock.advance(max(self._clock.now + rounds * work.row_seconds * work.num_rows / work.num_shards, self._driver.free))
        tally.busy_seconds = work.num_rows * work.row_seconds
        tally.seconds = self._clock.now - began
        tally.server_seconds = cpus * tally.seconds

    def _executions(self, work: PassWork) -> Iterator[list[int]]:
        """Rows of the shards of each execution, cut as `xl.execute._executions` cuts them."""
        if work.kind == "pages":
            num_parcels = max(CPU_PARCELS, PARCELS_PER_CPU * self._num_cpus(all_nodes=True))
        else:
            num_parcels = max(ENGINE_PARCELS, PARCELS_PER_ENGINE * work.replicas[1])
        rows, num_larger = divmod(work.num_rows, work.num_shards)
        most = max(1, num_parcels * work.parcel_rows // max(1, rows + (num_larger > 0)))
        for first in range(0, work.num_shards, most):
            yield [rows + (shard < num_larger) for shard in range(first, min(first + most, work.num_shards))]

    def _sizes(self, work: PassWork, shards: Sequence[int], fleet: Fleet) -> Sizes:
        num_parcels = sum(each.num_rows / each.parcel_rows for each in self._scenario.passes if each.kind in ("pages", "engines"))
        coarsest = sum(shards) / work.parcel_rows / (MIN_UNITS_PER_STATION * len(fleet.ready()))
        unit_parcels = max(1, min(round(num_parcels / MAX_UNITS), int(coarsest)))
        self._rows_per_unit.setdefault(work.name, unit_parcels * work.parcel_rows)
        # Readers and seals claim no CPU, so Ray starts half as many as it counts CPUs; they compute on the nodes for pages.
        waiting = max(1, self._num_cpus(all_nodes=True) // 2)
        return Sizes(unit_parcels, work.parcel_rows, min(waiting, len(shards)), min(waiting, self._num_cpus()))

    def _num_cpus(self, all_nodes: bool = False) -> int:
        """CPUs for pages that are there now, or those of all nodes."""
        nodes = [*self._pages.nodes, *(self._engines.nodes if all_nodes else ())]
        return max(1, int(sum(node.group.num_cpus for node in nodes if node.is_up)))

    def _alone(self, seconds: float) -> None:
        """Let time pass in which one process works and all others wait for it."""
        self._clock.advance(self._driver.take(self._clock.now, seconds))
        self._alone_seconds += seconds


def _num_nodes(num_engines: int, work: PassWork, groups: Sequence[NodeGroup]) -> int:
    """Nodes that so many engines want, of the groups in their order."""
    num_nodes, left = 0, num_engines
    for group in groups:
        if left > 0 and (per_node := engines_per_node(group, work.engine_cpus, work.engine_gpus)):
            nodes = min(group.max_nodes, -(-left // per_node))
            num_nodes, left = num_nodes + nodes, left - nodes * per_node
    return num_nodes
