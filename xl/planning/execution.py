"""One execution of a pass: a driver hands units of rows to stations and takes the word that they are committed.

A station is a node: its CPUs, or its engines. A unit is a parcel of rows, or several that travel together where there are too many to
follow one by one: as many rows are under way and as many leave a station in a second, only in larger steps. The driver is one queue
for all of them, as Ray Data's scheduler and the loop over acknowledgements are one process.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from xl.planning.cluster import engines_per_node
from xl.planning.fleet import Clock, Node
from xl.planning.scenario import PassWork, Timings


@dataclass(eq=False)
class Driver:
    """What one process does one after the other."""

    free: float = 0.0
    busy_seconds: float = 0.0

    def take(self, now: float, seconds: float) -> float:
        """Do something that takes so long, as soon as there is time; returns when it is done."""
        self.free = max(self.free, now) + seconds
        self.busy_seconds += seconds
        return self.free


@dataclass(eq=False)
class Station:
    """A node at work."""

    node: Node
    slots: int
    """Units that it may have."""
    num_walking: int
    """Of them, those that are in its engines; the others wait at their workers, elsewhere."""
    servers: list[float]
    """When each of the units that it works on at once will be done: a heap."""
    seconds_per_row: float
    """Of one server."""
    is_roomy: bool
    """No row of a parcel ever waits for another: a parcel that is not full takes as long as a full one."""
    num_engines: int
    since: float
    under_way: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Units by number, in the order in which they came: when each was handed over, and when its work begins."""


@dataclass(frozen=True)
class Sizes:
    """How a pass is cut."""

    unit_parcels: int
    """Parcels that travel together."""
    parcel_rows: int
    num_readers: int
    """Shards that are read side by side."""
    num_seals: int
    """Shards that are sealed side by side."""

    @property
    def unit_rows(self) -> int:
        return self.unit_parcels * self.parcel_rows


@dataclass
class Tally:
    """What executions of a pass came to."""

    num_executions: int = 0
    seconds: float = 0.0
    num_redone_rows: int = 0
    busy_seconds: float = 0.0
    """Of servers: seconds in which they worked, the work that was lost included."""
    server_seconds: float = 0.0
    """Of servers that were there."""
    seal_seconds: float = 0.0


def _cpus(node: Node, work: PassWork, timings: Timings, sizes: Sizes, now: float, slowdown: float) -> Station:
    """The CPUs of a node, on which reading and sealing take their time as well."""
    num_cpus = max(1, int(node.group.num_cpus))
    seconds_per_row = slowdown * (work.row_seconds + timings.read_seconds_per_row + timings.seal_seconds_per_row * work.num_stages)
    num_servers = max(1, round(num_cpus / sizes.unit_parcels))
    return Station(node, num_servers, num_servers, [now] * num_servers, seconds_per_row * num_servers / num_cpus, False, 0, now)


def _engines(node: Node, num_engines: int, work: PassWork, sizes: Sizes, now: float) -> Station:
    """The engines of a node. What they have at once is handed over in units; two parcels more wait at each engine's worker."""
    rows_per_second = num_engines * work.num_parallel_rows / work.row_seconds if work.row_seconds else math.inf
    num_parallel_parcels = num_engines * work.num_parallel_rows / sizes.parcel_rows
    num_servers = max(1, round(num_parallel_parcels / sizes.unit_parcels))
    num_walking = max(num_servers, round(num_engines * work.num_calls / sizes.unit_parcels))
    num_slots = max(num_walking, round(num_engines * (work.num_calls + 2) / sizes.unit_parcels))
    is_roomy = sizes.unit_parcels == 1 and work.num_parallel_rows >= work.num_calls * sizes.parcel_rows
    servers = [now] * num_servers
    return Station(node, num_slots, num_walking, servers, num_servers / rows_per_second, is_roomy, num_engines, now)


class Execution:
    """Rows of some shards, from the first that is handed out to the last shard that is sealed."""

    def __init__(
        self,
        clock: Clock,
        driver: Driver,
        work: PassWork,
        timings: Timings,
        sizes: Sizes,
        shard_rows: Sequence[int],
        draw: random.Random,
        tally: Tally,
        cores: list[float] | None = None,
        slowdown: float = 1.0,
    ) -> None:
        """`cores`: when each core will be free that all nodes share; `slowdown`: how much slower CPUs are than when they are alone."""
        self._clock, self._driver, self._work, self._timings, self._sizes = clock, driver, work, timings, sizes
        self._draw, self._tally, self._cores, self._slowdown = draw, tally, cores, slowdown
        self._rows: list[int] = []
        self._shard_of: list[int] = []
        self._shard_rows, self._left = shard_rows, list(shard_rows)
        self._cut(shard_rows)
        self._num_open = len(self._left)
        self._engines_left = work.replicas[1]
        self._waiting = deque(range(len(self._rows)))
        self._stations: dict[Node, Station] = {}
        self._seals = [0.0] * sizes.num_seals
        self._began = 0.0
        self.ended = 0.0

    def begin(self, nodes: Sequence[Node]) -> None:
        """Hand out the first units."""
        self._began = self.ended = self._clock.now
        for node in nodes:
            self._add(node)
        for shard, rows in enumerate(self._left):
            if rows == 0:
                self._seal(shard, self._began)
        self._feed()

    @property
    def is_done(self) -> bool:
        """Whether all shards are being sealed; the last is at `ended`."""
        return self._num_open == 0

    def close(self) -> None:
        """Count how long stations were there."""
        for station in self._stations.values():
            self._leave(station)

    def join(self, node: Node) -> None:
        """A node has come up, and gets rows."""
        self._add(node)
        self._feed()

    def lose(self, node: Node) -> None:
        """A node is gone, with the rows in its engines. (One that was told before has got no more since, and done what it could.)"""
        if (station := self._stations.pop(node, None)) is None:
            return
        now = self._clock.now
        arrived = [unit for unit, (handed, _) in station.under_way.items() if handed <= now][: station.num_walking]
        self._tally.num_redone_rows += sum(self._rows[unit] for unit in arrived)
        self._tally.busy_seconds += sum(max(0.0, now - begins) for _, begins in station.under_way.values())
        self._leave(station)
        self._engines_left += station.num_engines
        units = list(station.under_way)
        station.under_way.clear()
        self._wait_again(units)

    def _cut(self, shard_rows: Sequence[int]) -> None:
        """Number the units in the order in which readers give them: as many shards in turn as there are readers."""
        step, readers = self._sizes.unit_rows, self._sizes.num_readers
        for first in range(0, len(shard_rows), readers):
            window = shard_rows[first : first + readers]
            for start in range(0, max(window), step):
                for place, rows in enumerate(window):
                    if start < rows:
                        self._rows.append(min(step, rows - start))
                        self._shard_of.append(first + place)

    def _add(self, node: Node) -> None:
        work, now = self._work, self._clock.now
        if work.kind == "pages":
            self._stations[node] = _cpus(node, work, self._timings, self._sizes, now, self._slowdown)
            return
        num_engines = min(self._engines_left, engines_per_node(node.group, work.engine_cpus, work.engine_gpus))
        if num_engines:
            self._engines_left -= num_engines
            self._stations[node] = _engines(node, num_engines, work, self._sizes, now)

    def _leave(self, station: Station) -> None:
        self._tally.server_seconds += len(station.servers) * (self._clock.now - station.since)

    def _feed(self) -> None:
        """Hand waiting units to stations with room, in turn."""
        hungry = [s for s in self._stations.values() if len(s.under_way) < s.slots and not s.node.is_leaving]
        while hungry and self._waiting:
            for station in hungry:
                if self._waiting:
                    self._hand_out(station)
            hungry = [s for s in hungry if len(s.under_way) < s.slots]

    def _hand_out(self, station: Station) -> None:
        unit = self._waiting.popleft()
        rows = self._rows[unit]
        read = self._began + (unit // self._sizes.num_readers + 1) * self._timings.read_seconds_per_row * self._sizes.unit_rows
        handed = max(read, self._driver.take(self._clock.now, self._timings.driver_seconds_per_dispatch * self._parcels(rows)))
        begins = max(handed, heapq.heappop(station.servers))
        full = self._sizes.unit_rows if station.is_roomy else rows  # rows side by side take as long as one
        done = begins + full * station.seconds_per_row * self._spread()
        heapq.heappush(station.servers, done)
        station.under_way[unit] = handed, begins
        commits = self._timings.commit_seconds_per_parcel if self._work.kind == "engines" else 0.0
        self._clock.at(done + commits, self._finish, station, unit, begins, done)

    def _finish(self, station: Station, unit: int, begins: float, done: float) -> None:
        if station.under_way.get(unit, (None, None))[1] != begins:
            return  # it was lost, or handed back
        if self._cores is not None and self._work.kind == "engines":
            rows = self._rows[unit]
            seconds = rows * self._timings.read_seconds_per_row + self._parcels(rows) * self._timings.commit_seconds_per_parcel
            end = max(self._clock.now, heapq.heappop(self._cores)) + seconds
            heapq.heappush(self._cores, end)
            self._clock.at(end, self._acknowledge, station, unit, begins, done)
        else:
            self._acknowledge(station, unit, begins, done)

    def _acknowledge(self, station: Station, unit: int, begins: float, done: float) -> None:
        if station.under_way.get(unit, (None, None))[1] != begins:
            return
        del station.under_way[unit]
        rows, shard = self._rows[unit], self._shard_of[unit]
        self._tally.busy_seconds += done - begins
        heard = self._driver.take(self._clock.now, self._timings.driver_seconds_per_ack * self._parcels(rows))
        self.ended = max(self.ended, heard)
        self._left[shard] -= rows
        if self._left[shard] == 0:
            self._seal(shard, heard)
        if self._waiting and not station.node.is_leaving:
            self._hand_out(station)

    def _seal(self, shard: int, now: float) -> None:
        """Seal a shard as soon as there is a place."""
        free = heapq.heappop(self._seals)
        seconds = self._timings.seal_seconds_per_row * self._work.num_stages * self._shard_rows[shard]
        if self._cores is not None:
            begins = max(now, free, heapq.heappop(self._cores))
            heapq.heappush(self._cores, begins + seconds)
        else:
            begins = max(now, free)
        heapq.heappush(self._seals, begins + seconds)
        self.ended = max(self.ended, begins + seconds)
        self._tally.seal_seconds += seconds
        self._num_open -= 1

    def _wait_again(self, units: list[int]) -> None:
        """Units wait before all others."""
        self._waiting.extendleft(reversed(units))
        self._feed()

    def _parcels(self, rows: int) -> int:
        return -(-rows // self._sizes.parcel_rows)

    def _spread(self) -> float:
        cv = self._timings.row_seconds_cv
        if not cv:
            return 1.0
        # Of a unit of many parcels the mean is what counts, which varies less.
        return self._draw.gammavariate(self._sizes.unit_parcels / cv**2, cv**2 / self._sizes.unit_parcels)
