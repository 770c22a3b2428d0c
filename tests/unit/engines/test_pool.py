"""What becomes of rows when engines die under them: the pool, its host and its engines, whose processes are played in this one."""

import asyncio
import contextvars
import math
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from xl.ask import Columns, Context, Request, Sampling
from xl.engines.fleet import num_calls, parcel_rows
from xl.engines.scripted import FAULT, POISON, ScriptedEngine
from xl.recipe import Model
from xl.records import Row, Status
from xl.stage import Pending, Route, RowStage, Walk

ray = pytest.importorskip("ray")

from xl.engines import host as hosting  # noqa: E402
from xl.engines.actor import _EngineActor  # noqa: E402
from xl.engines.host import HAND_BACK_SECONDS, _EngineHost  # noqa: E402
from xl.engines.pool import MAX_DEATHS_ALONE, MAX_DEATHS_TOGETHER, EnginePool  # noqa: E402

SETTINGS = {"model": "scripted", "engine": "scripted", "delay_seconds": 0.01, "max_num_seqs": 256}
MODEL = Model.model_validate(SETTINGS)
NUM_ROWS = parcel_rows(MODEL)
KILLED, LOST = "the process was killed", "its node has died"

running: contextvars.ContextVar["Process"] = contextvars.ContextVar("running")


class Actor:
    """An object whose methods are called as Ray's actors are, in this event loop."""

    def __init__(self, it: Any) -> None:
        self._it = it

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: self._called(getattr(self._it, method), arguments))

    def _called(self, method: Callable[..., Coroutine[Any, Any, Any]], arguments: tuple[Any, ...]) -> "asyncio.Future[Any]":
        return asyncio.ensure_future(method(*arguments))


@dataclass(eq=False)
class Parcel:
    """Rows that went to an engine together, and whether others were under way beside them."""

    num_rows: int
    is_beside: bool = False


class Engine(_EngineActor):
    """An engine that notes what is under way in it."""

    def __init__(self, parcels: list[Parcel]) -> None:
        super().__init__(MODEL, None)  # type: ignore[arg-type]
        self._parcels = parcels
        self._under_way: list[Parcel] = []

    async def _walk(self, route: Route, pending: Sequence[Pending]) -> Any:
        parcel = Parcel(len(pending))
        self._parcels.append(parcel)
        self._under_way.append(parcel)
        for each in self._under_way:
            each.is_beside |= len(self._under_way) > 1
        try:
            return await super()._walk(route, pending)
        finally:
            self._under_way.remove(parcel)


class Process(Actor):
    """The process of an engine. What is under way in it ends with it."""

    def __init__(self, parcels: list[Parcel], seconds_on_the_way: float) -> None:
        super().__init__(Engine(parcels))
        self._seconds_on_the_way = seconds_on_the_way
        self._death: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, why: str) -> None:
        if not self._death.done():
            self._death.set_exception(ray.exceptions.RayActorError(error_msg=why))

    def _called(self, method: Callable[..., Coroutine[Any, Any, Any]], arguments: tuple[Any, ...]) -> "asyncio.Future[Any]":
        is_whole = method.__name__ == "walk_all" and len(arguments[1]) == NUM_ROWS
        seconds = self._seconds_on_the_way if is_whole else 0
        return asyncio.ensure_future(self._lived_through(method(*arguments), seconds))

    async def _lived_through(self, call: Coroutine[Any, Any, Any], seconds: float) -> Any:
        running.set(self)
        await asyncio.sleep(seconds)
        done = asyncio.ensure_future(call)
        await asyncio.wait([done, self._death], return_when=asyncio.FIRST_COMPLETED)
        if self._death.done():
            done.cancel()
            await self._death
        return await done


class Host(_EngineHost):
    """Has its engines at once."""

    def __init__(self, seconds_on_the_way: float = 0.0) -> None:
        super().__init__()
        self._seconds_on_the_way = seconds_on_the_way
        self.parcels: list[Parcel] = []
        """All that went to engines."""
        self.ends: list[str] = []
        """Why the next engines end, each in the middle of its first parcels."""

    def _start(self, fleet: Any, name: str) -> None:
        process = fleet.starting[name] = Process(self.parcels, self._seconds_on_the_way)
        self._begin(process._it.start())
        if self.ends:
            asyncio.get_running_loop().call_later(SETTINGS["delay_seconds"] / 2, process.end, self.ends.pop(0))
        fleet.comes_up(name, chat=True)


@pytest.fixture(autouse=True)
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poison row ends its engine's process, not that of the tests."""
    monkeypatch.setattr("xl.engines.scripted.os.kill", lambda *_: running.get().end(KILLED))
    monkeypatch.setattr(hosting.ray, "kill", lambda process: process.end("killed by `ray.kill`"))
    monkeypatch.setattr(hosting.placement, "beside_engines", lambda: {"xl/pool": "pages"})
    monkeypatch.setattr(hosting.state, "get_draining_nodes", dict)


async def ask(row: Row, context: Context) -> Columns:
    assert context.engine
    return {"answer": (await context.engine.complete(Request(Sampling(), 0, prompt=row["text"]))).text}


ROUTE = Route((RowStage("ask", (ask,), pa.schema([("answer", pa.string())])),), seed=0)


def given_parcels(number: int, **poisoned: str) -> list[list[Pending]]:
    """So many parcels, with these rows poisoned."""
    ids = [f"row{place}" for place in range(number * NUM_ROWS)]
    rows = [Pending({"id": id_, "text": f"{id_} {poisoned.get(id_, '')}"}, 0, []) for id_ in ids]
    return [rows[start : start + NUM_ROWS] for start in range(0, len(rows), NUM_ROWS)]


def walked(*workers: list[list[Pending]], ends: tuple[str, ...] = (), seconds_on_the_way: float = 0.0) -> tuple[list[Walk], Host, int]:
    """What becomes of the parcels that workers have, on one engine; the host, and how many engines died, but not with their nodes."""

    async def all_of_them() -> tuple[list[Walk], Host, int]:
        host = Host(seconds_on_the_way)
        host.ends = [*ends]
        route: asyncio.Future[Route] = asyncio.get_running_loop().create_future()
        route.set_result(ROUTE)
        pools = [EnginePool(Actor(host), "key", MODEL, None, f"worker{place}") for place in range(len(workers))]  # type: ignore[arg-type]
        await asyncio.gather(*(pool.open() for pool in pools))
        each = [pool.walk_all(route, parcel) for pool, given in zip(pools, workers, strict=True) for parcel in given]
        walks = await asyncio.gather(*each)
        assert len(host._fleets["key"].share("worker0")) == 1, "the engine is nobody's own afterwards"
        for pool in pools:
            await pool.close()
        return [walk for parcel in walks for walk in parcel], host, host._fleets["key"].num_deaths

    return asyncio.run(asyncio.wait_for(all_of_them(), timeout=60))


def assert_all_but_poison_is_kept(walks: list[Walk], *workers: list[list[Pending]]) -> None:
    rows = [pending.row for given in workers for parcel in given for pending in parcel]
    assert [walk.row["id"] for walk in walks] == [row["id"] for row in rows], "a row is lost, doubled or at another's place"
    for walk, row in zip(walks, rows, strict=True):
        if POISON in row["text"] or FAULT in row["text"]:
            assert walk.status is Status.FAILED and "engines died under this row" in str(walk.reason), row["id"]
        else:
            answer = asyncio.run(ScriptedEngine().complete(Request(Sampling(), 0, prompt=row["text"]))).text
            assert (walk.status, walk.row.get("answer")) == (Status.KEPT, answer), row["id"]


def most_deaths(num_poisoned: int = 1) -> int:
    """Engines that may die before those rows are found that kill them."""
    return MAX_DEATHS_TOGETHER + num_poisoned * (int(math.log2(NUM_ROWS)) + MAX_DEATHS_ALONE)


@pytest.mark.parametrize("poison", [POISON, FAULT])
def test_a_row_that_kills_engines_is_found_by_halving(poison: str) -> None:
    given = given_parcels(1, row37=poison)
    walks, host, num_deaths = walked(given)
    assert_all_but_poison_is_kept(walks, given)
    assert num_deaths <= most_deaths()
    sizes = [parcel.num_rows for parcel in host.parcels]
    assert sizes.count(1) <= MAX_DEATHS_ALONE + 1, "one healthy row at most is walked singly"


@pytest.mark.parametrize("poison", [POISON, FAULT])
def test_two_such_rows_in_one_parcel_are_found(poison: str) -> None:
    given = given_parcels(1, row3=poison, row60=poison)
    walks, host, num_deaths = walked(given)
    assert_all_but_poison_is_kept(walks, given)
    assert num_deaths <= most_deaths(2)
    assert sum(parcel.num_rows == 1 for parcel in host.parcels) <= 2 * (MAX_DEATHS_ALONE + 1)


@pytest.mark.parametrize("poison", [POISON, FAULT])
def test_parcels_beside_it_are_neither_halved_nor_on_an_engine_that_is_tried(poison: str) -> None:
    given = given_parcels(num_calls(MODEL) + 2, row200=poison)
    walks, host, num_deaths = walked(given)
    assert_all_but_poison_is_kept(walks, given)
    assert num_deaths <= most_deaths()
    halves = [parcel for parcel in host.parcels if parcel.num_rows <= NUM_ROWS // 2]
    assert halves and not any(parcel.is_beside for parcel in halves)
    assert len(halves) <= 2 * math.log2(NUM_ROWS) + MAX_DEATHS_ALONE


@pytest.mark.parametrize(("why", "num_deaths"), [(KILLED, MAX_DEATHS_TOGETHER), (LOST, 0)])
def test_engines_that_die_of_something_else_cost_no_row(why: str, num_deaths: int) -> None:
    given = given_parcels(num_calls(MODEL))
    walks, host, found = walked(given, ends=(why,) * MAX_DEATHS_TOGETHER)
    assert_all_but_poison_is_kept(walks, given)
    assert found == num_deaths and min(parcel.num_rows for parcel in host.parcels) == NUM_ROWS


def test_lost_nodes_are_no_reason_to_halve_a_parcel_or_to_set_a_row_aside() -> None:
    given = [given_parcels(1)[0][:1]]
    walks, _, num_deaths = walked(given, ends=(KILLED,) * (MAX_DEATHS_TOGETHER + MAX_DEATHS_ALONE - 1) + (LOST,) * 3)
    assert_all_but_poison_is_kept(walks, given)
    assert num_deaths == MAX_DEATHS_TOGETHER + MAX_DEATHS_ALONE - 1


@pytest.mark.parametrize("poison", [POISON, FAULT])
@pytest.mark.parametrize("seconds_on_the_way", [0.0, 0.03])
def test_a_worker_on_the_same_engine_waits_and_loses_no_row_to_the_other_ones(poison: str, seconds_on_the_way: float) -> None:
    """More workers than engines: on a cluster that grows, at first. What it sent before it hears that it must wait may come late."""
    poisoned, healthy = given_parcels(2, row5=poison), given_parcels(2)
    walks, host, num_deaths = walked(poisoned, healthy, seconds_on_the_way=seconds_on_the_way)
    assert_all_but_poison_is_kept(walks, poisoned, healthy)
    assert num_deaths <= most_deaths()
    assert not any(parcel.is_beside for parcel in host.parcels if parcel.num_rows <= NUM_ROWS // 2)


@pytest.mark.parametrize("is_surplus", [False, True])
def test_an_engine_that_must_leave_keeps_what_is_done_and_hands_back_the_rest(is_surplus: bool) -> None:
    """Also one that was to leave before, when there was no haste."""
    tries = Counter[str]()

    async def take(row: Row, context: Context) -> Columns:
        tries[row["id"]] += 1
        await asyncio.sleep(600 if row["id"] == "slow" and tries["slow"] == 1 else 0)
        return {"answer": row["id"]}

    async def leave_in_the_middle() -> tuple[list[Walk], int]:
        host, route = Host(), asyncio.get_running_loop().create_future()
        route.set_result(Route((RowStage("ask", (take,), pa.schema([("answer", pa.string())])),), seed=0))
        pool = EnginePool(Actor(host), "key", MODEL, None, "worker")  # type: ignore[arg-type]
        await pool.open()
        walking = asyncio.create_task(pool.walk_all(route, [Pending({"id": id_}, 0, []) for id_ in ("quick", "slow", "also quick")]))
        while len(tries) < 3:
            await asyncio.sleep(0.01)
        fleet = host._fleets["key"]
        name = next(iter(fleet.up))
        if is_surplus:
            host._give_back(fleet, name)
        host._give_back(fleet, name, seconds=0.05)
        walks = await walking
        await pool.close()
        return walks, fleet.num_deaths

    walks, num_deaths = asyncio.run(asyncio.wait_for(leave_in_the_middle(), timeout=60))
    assert [(walk.status, walk.row["answer"]) for walk in walks] == [(Status.KEPT, id_) for id_ in ("quick", "slow", "also quick")]
    assert tries == {"quick": 1, "slow": 2, "also quick": 1} and num_deaths == 0


def test_an_engine_has_until_shortly_before_its_node_goes_and_no_end_without_a_time() -> None:
    assert hosting.seconds_to_finish(int(1000 * (time.time() + 30))) == pytest.approx(30 - HAND_BACK_SECONDS, abs=1)
    assert hosting.seconds_to_finish(int(1000 * (time.time() - 30))) == 0.0
    assert hosting.seconds_to_finish(0) is None
