"""The engines of one model: how many there should be, who of the workers asks which, and when they are given back.

It knows no Ray and no clock; `xl.engines.host` does what it says.
"""

from dataclasses import dataclass, field
from typing import Any

from xl.engines.models import ResolvedModel
from xl.errors import UserError
from xl.recipe import Model

MIN_PARCEL_ROWS = 16
"""Rows that travel to an engine together, at least."""

ENGINES_PER_WORKER = 8
"""Engines that one worker can keep busy."""

MAX_ENGINE_DEATHS = 200
"""Engines for each replica of a model that may die before a run gives up: one that never lives long is not worth more, and finding each
of a few rows that kill engines takes some ten deaths."""

MAX_FAILED_STARTS = 5
"""Engines of one model in a row that may die while they load: a model that cannot run here must not be tried for hours."""

SILENT_SECONDS = 30.0
"""A worker that has asked for its engines no more in this time is gone."""


def workers_for(model: Model, num_engines: int) -> tuple[int, int]:
    """How many workers so many engines have, and how many parcels each of those has under way.

    Beside each engine two parcels wait: what comes only when an engine has room comes late.
    """
    num_workers = -(-num_engines // ENGINES_PER_WORKER)
    return num_workers, (num_calls(model) + 2) * -(-num_engines // num_workers)


def parcel_rows(model: Model) -> int:
    """Rows that travel to an engine together. The driver's work goes by parcels: wide engines, which are fast, have larger ones."""
    return max(MIN_PARCEL_ROWS, width(model) // 4)


def num_calls(model: Model) -> int:
    """Parcels that an engine has at once: four times what it can batch, so that it never waits for rows.

    A parcel makes room for the next when its longest answer is there; until then most of its rows are done.
    """
    return max(2, -(-4 * width(model) // parcel_rows(model)))


def width(model: Model) -> int:
    """Rows that are asked about side by side."""
    return model.concurrency if model.engine == "openai" else model.max_num_seqs


@dataclass
class Fleet:
    """Engines by their names, in the order of their starts. What an engine is does not matter here."""

    model: Model
    resolved: ResolvedModel
    starting: dict[str, Any] = field(default_factory=dict)
    up: dict[str, Any] = field(default_factory=dict)
    leaving: dict[str, Any] = field(default_factory=dict)
    """Engines that take no more rows, and end when they have done what they have."""
    chat: bool = False
    """Whether the model takes chat messages, as its engines say."""
    failure: UserError | None = None
    """Why there will be no more engines."""
    wanted: int = 0
    """Engines that the rows keep busy that are there."""
    most: int = 1
    """Engines that there may be now."""
    is_at_work: bool = False
    num_starts: int = 0
    num_deaths: int = 0
    """Of engines that were up, without those that went with their nodes."""
    num_failed_starts: int = 0
    """In a row, up to now."""
    has_been_up: bool = False
    """Whether an engine ever was: the model can be loaded."""
    num_up_at_once: int = 0
    """The most that were up together since work began."""
    _loads: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Parcels that each worker has, and when it said so."""
    _aside: dict[str, str | None] = field(default_factory=dict)
    """The engine that a worker has to itself, of those workers that look for a row that kills engines."""
    _told_aside: set[str] = field(default_factory=set)
    """Engines that take rows of one worker alone, until they hear that they may take all."""
    _past: set[str] = field(default_factory=set)
    """Workers of the work before, which may still say something."""
    _too_many_since: float | None = None

    @property
    def fewest(self) -> int:
        return self.model.replicas[0]

    @property
    def num_there(self) -> int:
        """Engines that are up or will be."""
        return len(self.starting) + len(self.up)

    @property
    def num_lacking(self) -> int:
        """Engines to be started now."""
        return 0 if self.failure else max(0, min(self.wanted, self.most) - self.num_there)

    def expect(self) -> None:
        """Rows will come, so the fewest engines are wanted."""
        self.wanted, self.most = max(self.wanted, self.fewest), max(self.most, self.fewest)
        self._too_many_since = None

    def begin(self, wanted: int) -> None:
        """Rows are there for so many engines. The workers of the work before are gone."""
        self._forget_workers()
        self._too_many_since = None
        self.is_at_work = True
        self.num_up_at_once = len(self.up)
        self.wanted = self.most = max(self.fewest, min(wanted, self.model.replicas[1]))

    def rest(self) -> None:
        """All rows are done for now."""
        self.is_at_work = False
        self.wanted = 0
        self._forget_workers()

    def _forget_workers(self) -> None:
        self._past.update(self._loads)
        self._loads.clear()
        self._aside.clear()

    def hear(self, worker: str, num_parcels: int, now: float) -> None:
        """A worker, as it does every few seconds, says how many parcels it has."""
        if worker not in self._past:
            self.is_at_work = self.is_at_work or num_parcels > 0
            self._loads[worker] = (num_parcels, now)

    def look(self, now: float) -> None:
        """Find out how many engines are wanted by what the workers have, and whether that is fewer than there are."""
        self._loads = {worker: (load, heard) for worker, (load, heard) in self._loads.items() if now - heard < SILENT_SECONDS}
        self._aside = {worker: name for worker, name in self._aside.items() if worker in self._loads}
        if self.is_at_work and self._loads:
            busy = -(-sum(load for load, _ in self._loads.values()) // num_calls(self.model))
            self.wanted = min(max(busy, self.fewest), self.most)
        if self.num_there <= self.wanted:
            self._too_many_since = None
        elif self._too_many_since is None:
            self._too_many_since = now

    def surplus(self, now: float) -> list[str]:
        """Engines to be given back, those first that are not up yet: there have been too many for the model's `idle_seconds`."""
        if self._too_many_since is None or now - self._too_many_since < self.model.idle_seconds:
            return []
        return [*self.up, *self.starting][self.wanted :]

    def name_next(self) -> str:
        """A name for one more engine."""
        self.num_starts += 1
        return f"engine-{self.num_starts - 1}"

    def comes_up(self, name: str, chat: bool) -> None:
        """An engine is ready for rows."""
        self.up[name] = self.starting.pop(name)
        self.has_been_up = True
        self.chat, self.num_failed_starts = chat, 0
        self.num_up_at_once = max(self.num_up_at_once, len(self.up))

    def cannot_load(self, error: UserError) -> None:
        """An engine says that the model cannot be loaded. Where others could, its machine is not well, or what that reads from."""
        if self.has_been_up:
            self.fails_to_start(str(error))
        else:
            self.failure = error

    def fails_to_start(self, why: str) -> None:
        """An engine died while it loaded."""
        self.num_failed_starts += 1
        if self.num_failed_starts >= MAX_FAILED_STARTS and self.up:
            self.most = len(self.up)  # one machine is broken, say: the others do without it
        elif self.num_failed_starts >= MAX_FAILED_STARTS:
            told = f"models: the engine of {self.model.model!r} failed to start {MAX_FAILED_STARTS} times in a row: {why}"
            self.failure = UserError(told)

    def dies(self) -> None:
        """An engine that was up has died, and not with its node."""
        self.num_deaths += 1
        if self.num_deaths >= MAX_ENGINE_DEATHS * self.model.replicas[1]:
            told = f"models: the engine of {self.model.model!r} died {self.num_deaths} times; Ray's log of this run says why"
            self.failure = UserError(told)

    def remove(self, name: str) -> Any:
        """The engine of this name, which is no more among those that start or are up; None where it was not."""
        return self.starting.pop(name, None) or self.up.pop(name, None)

    @property
    def _shared(self) -> list[str]:
        """Engines that no worker has to itself."""
        return [name for name in self.up if name not in self._aside.values()]

    def set_aside(self, worker: str) -> str | None:
        """An engine that is in nobody's share but this worker's own: the one it has, or the newest, which has the least to do."""
        if worker in self._loads and self._aside.get(worker) not in self.up:
            self._aside[worker] = next(reversed(self._shared), None)
        name = self._aside.get(worker)
        if name is not None:
            self._told_aside.add(name)
        return name

    def put_back(self, worker: str) -> None:
        """A worker needs no engine to itself any more."""
        self._aside.pop(worker, None)

    def returned(self) -> list[Any]:
        """Engines that were set aside and are nobody's own any more, each once."""
        names = self._told_aside.difference(self._aside.values())
        self._told_aside -= names
        return [self.up[name] for name in names if name in self.up]

    def share(self, worker: str) -> dict[str, Any]:
        """The engines that a worker asks: no other does, unless there are more workers than engines. One that is gone has none."""
        if worker not in self._loads:
            return {}
        place, number, names = sorted(self._loads).index(worker), len(self._loads), self._shared
        mine = names[place::number] or names[place % len(names) :][:1] if names else []
        return {name: self.up[name] for name in mine}
