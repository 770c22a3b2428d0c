"""The actor that keeps a run's engines.

Starting an engine costs a minute, so engines do not belong to a stage's workers. The host keeps them by model, tells each worker which
are its own, starts as many as the rows can keep busy, replaces one that died, and ends all of them when the run is over.

On a cluster whose nodes have pools (`xl.placement`), engines that find no room wait for it, and are what its autoscaler goes by; those
that the rows do not need any more are given back. Elsewhere only those are started that there is room for, and they stay.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Mapping
from typing import Any

import ray
from ray._private.state import available_resources_per_node, state
from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError

from xl import placement
from xl.ask import EngineDied
from xl.engines.actor import _EngineActor
from xl.engines.fleet import Fleet
from xl.engines.models import ResolvedModel
from xl.errors import UserError
from xl.recipe import Model

LOOK_SECONDS = 2.0
"""How often the host compares what there is with what is wanted, and how long a worker waits for news at most."""

PLACING_SECONDS = 60.0
"""Where no machine can come: an engine beyond the fewest that finds none in this time is given up. Something else took the room."""

HAND_BACK_SECONDS = 5.0
"""So long before its node goes an engine hands back what it has not done; what it has done is committed in this time."""


class _EngineHost:
    """Owns the engines of a run; they end with it. Where it is lost with its node, Ray starts another one, which begins without engines."""

    def __init__(self) -> None:
        self._machines_come = bool(placement.beside_engines())
        self._fleets: dict[str, Fleet] = {}
        self._id = uuid.uuid4().hex[:8]
        self._unplaced: set[str] = set()
        self._changed = asyncio.Condition()
        self._adjusting = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def ready(self, key: str, model: Model, resolved: ResolvedModel) -> bool | UserError:
        """Wait until an engine of a model is up; whether it takes chat messages."""
        fleet = self._fleet(key, model, resolved)
        fleet.expect()
        await self._adjust(fleet)
        async with self._changed:
            await self._changed.wait_for(lambda: fleet.up or fleet.failure)
        return fleet.failure or fleet.chat

    async def begin_execution(self, key: str, model: Model, resolved: ResolvedModel, wanted: int) -> int:
        """Start engines for an execution whose rows could keep so many busy; returns how many it may have.

        These are at least the fewest of the recipe; beyond them, where no machines can come, as many as are there or find room.
        """
        fleet = self._fleet(key, model, resolved)
        fleet.begin(wanted)
        await self._adjust(fleet)
        if not self._machines_come:
            fleet.most = max(fleet.fewest, fleet.num_there)
        return fleet.most

    async def engines(
        self, worker: str, key: str, model: Model, resolved: ResolvedModel, num_parcels: int, known: frozenset[str]
    ) -> dict[str, Any] | UserError:
        """The engines that a worker asks, as soon as they are not those that it knows, or after a moment; it says how busy it is."""
        fleet = self._fleet(key, model, resolved)
        fleet.hear(worker, num_parcels, time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS), self._changed:
                await self._changed.wait_for(lambda: fleet.failure or fleet.share(worker).keys() != known)
        return fleet.failure or fleet.share(worker)

    async def set_aside(self, worker: str, key: str, model: Model, resolved: ResolvedModel) -> tuple[str, Any] | None:
        """An engine that nobody asks but this worker, until it puts it back, as soon as it is idle; None if none is after a moment."""
        fleet = self._fleet(key, model, resolved)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                async with self._changed:
                    name = await self._changed.wait_for(lambda: fleet.set_aside(worker))
                    assert name is not None
                    self._changed.notify_all()
                    engine = fleet.up[name]
                try:
                    await engine.set_aside.remote()
                    return name, engine
                except RayError as error:
                    await self.lost(key, name, lost_its_node(error))
        return None

    async def put_back(self, worker: str, key: str) -> None:
        """A worker needs no engine to itself any more."""
        if key in self._fleets:
            self._fleets[key].put_back(worker)
            self._let_all_ask(self._fleets[key])
            async with self._changed:
                self._changed.notify_all()

    async def lost(self, key: str, name: str, is_blameless: bool) -> None:
        """A worker found an engine dead, maybe with its node. It is replaced once, however many workers say so."""
        if (fleet := self._fleets.get(key)) and self._drop(fleet, name):
            if not is_blameless:
                fleet.dies()
            self._begin(self._adjust(fleet))

    async def rest(self, key: str) -> None:
        """No row is left for the engines of a model now."""
        if key in self._fleets:
            self._fleets[key].rest()
            self._let_all_ask(self._fleets[key])

    def num_engines(self, key: str) -> int:
        """How many engines of a model were up together, at most, since its rows last came."""
        return self._fleets[key].num_up_at_once if key in self._fleets else 0

    def keys(self) -> set[str]:
        """Of the models whose engines are there."""
        return {key for key, fleet in self._fleets.items() if fleet.num_there or fleet.leaving}

    def is_up(self, key: str) -> bool:
        """Whether an engine of a model is."""
        return key in self._fleets and bool(self._fleets[key].up)

    async def close(self) -> None:
        """End all engines."""
        fleets, self._fleets = [*self._fleets.values()], {}
        for fleet in fleets:
            fleet.rest()
            for name in [*fleet.starting]:
                self._drop(fleet, name)
        engines = [engine for fleet in fleets for engine in (*fleet.up.values(), *fleet.leaving.values())]
        closing = [asyncio.ensure_future(_answered(engine.close.remote())) for engine in engines]
        await asyncio.wait(closing, timeout=20) if closing else None
        for engine in engines:
            ray.kill(engine)

    def _fleet(self, key: str, model: Model, resolved: ResolvedModel) -> Fleet:
        """The engines of a model. A host that took another one's place knows only that rows are under way."""
        self._looking = self._looking or asyncio.create_task(self._look_again_and_again())
        if key not in self._fleets:
            self._fleets[key] = Fleet(model, resolved, most=model.replicas[1])
        return self._fleets[key]

    async def _look_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            # Whatever keeps a look from succeeding: the next one may.
            with contextlib.suppress(Exception):
                await self._empty_leaving_nodes()
            for fleet in [*self._fleets.values()]:
                with contextlib.suppress(Exception):
                    fleet.look(time.monotonic())
                    self._let_all_ask(fleet)
                    await self._adjust(fleet)

    def _let_all_ask(self, fleet: Fleet) -> None:
        """Tell engines that were set aside and are nobody's own any more."""
        for engine in fleet.returned():
            self._begin(_answered(engine.put_back.remote()))

    async def _empty_leaving_nodes(self) -> None:
        """Have the engines on a node that will be taken away do what they have begun, as far as there is time; others take their place."""
        leaving = await asyncio.to_thread(state.get_draining_nodes)
        fleets = self._fleets.values() if leaving else []
        there = [(fleet, name, engine) for fleet in fleets for name, engine in (*fleet.up.items(), *fleet.leaving.items())]
        nodes = await asyncio.gather(*(_node_of(engine) for _, _, engine in there))
        for (fleet, name, _), node in zip(there, nodes, strict=True):
            if node in leaving:
                self._give_back(fleet, name, seconds_to_finish(leaving[node]))

    async def _adjust(self, fleet: Fleet) -> None:
        """Start the engines that are lacking; give those back that are too many, where others can use their machines."""
        async with self._adjusting:
            num_lacking = fleet.num_lacking
            if num_lacking and not self._machines_come:
                num_that_fit = await asyncio.to_thread(self._num_that_fit, fleet)
                num_lacking = min(fleet.num_lacking, max(fleet.fewest - fleet.num_there, num_that_fit))
            for _ in range(num_lacking):
                self._start(fleet, f"{fleet.name_next()}-{self._id}")
            if self._machines_come:
                for name in fleet.surplus(time.monotonic()):
                    self._give_back(fleet, name)
        async with self._changed:
            self._changed.notify_all()

    def _num_that_fit(self, fleet: Fleet) -> int:
        """How many engines more there is room for, beside those that Ray has not placed yet."""
        where = placement.of(fleet.model, fleet.model.gpus)
        return num_that_fit(needs_of(fleet.model), where, fleet.num_lacking + len(self._unplaced)) - len(self._unplaced)

    def _start(self, fleet: Fleet, name: str) -> None:
        model = fleet.model
        options = {"num_cpus": model.cpus, "num_gpus": model.gpus, "max_concurrency": 10_000, "max_restarts": 0}
        where = placement.options(placement.of(model, model.gpus))
        may_wait = self._machines_come or fleet.num_there < fleet.fewest
        fleet.starting[name] = ray.remote(_EngineActor).options(**options, **where).remote(model, fleet.resolved)
        self._begin(self._bring_up(fleet, name, may_wait))

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bring_up(self, fleet: Fleet, name: str, may_wait: bool) -> None:
        engine = fleet.starting[name]
        placed = asyncio.ensure_future(_answered(engine.__ray_ready__.remote()))
        self._unplaced.add(name)
        await asyncio.wait([placed], timeout=None if may_wait else PLACING_SECONDS)
        self._unplaced.remove(name)
        if not placed.done():
            self._drop(fleet, name)
            fleet.most = max(fleet.fewest, fleet.num_there)
            return
        why: str | None = None
        try:
            chat = await engine.start.remote()
        except RayTaskError as error:
            chat = UserError(f"models: the engine of {fleet.model.model!r} failed to start: {str(error).strip().splitlines()[-1]}")
        except RayError as error:
            chat, why = None, None if lost_its_node(error) else str(error).splitlines()[0]
        if isinstance(chat, EngineDied):
            chat, why = None, str(chat).splitlines()[0]
        if name not in fleet.starting:  # it was given back meanwhile
            return
        if isinstance(chat, bool):
            fleet.comes_up(name, chat)
        else:
            self._drop(fleet, name)
            if isinstance(chat, UserError):
                fleet.cannot_load(chat)
            elif why is not None:
                fleet.fails_to_start(why)
        await self._adjust(fleet)

    @staticmethod
    def _drop(fleet: Fleet, name: str) -> bool:
        """End an engine at once; whether it was still there."""
        engine = fleet.remove(name)
        if engine is not None:
            ray.kill(engine)
        return engine is not None

    def _give_back(self, fleet: Fleet, name: str, seconds: float | None = None) -> None:
        """Let an engine do what it has, or what it can do of it in so many seconds, and end it. One that leaves already may have less time
        now than it was given."""
        if name in fleet.starting:
            self._drop(fleet, name)
        elif name in fleet.up:
            fleet.leaving[name] = fleet.up.pop(name)
            self._begin(self._see_off(fleet, name, seconds))
        elif name in fleet.leaving and seconds is not None:
            self._begin(_answered(fleet.leaving[name].leave.remote(seconds)))

    async def _see_off(self, fleet: Fleet, name: str, seconds: float | None) -> None:
        engine = fleet.leaving[name]
        await _answered(engine.leave.remote(seconds))
        await _answered(engine.close.remote())
        fleet.leaving.pop(name)
        ray.kill(engine)


def seconds_to_finish(leaves_at_ms: int) -> float | None:
    """How long the engines of a node may still work that leaves at a time, in milliseconds since the epoch; None where it (0) has none."""
    return max(0.0, leaves_at_ms / 1000 - time.time() - HAND_BACK_SECONDS) if leaves_at_ms else None


async def _node_of(engine: Any) -> str | None:
    """The node that an engine is on; None when it is gone."""
    try:
        where: str = await asyncio.wait_for(engine.node.remote(), timeout=1)
    except (RayError, TimeoutError):
        return None
    return where


async def _answered(answer: Any) -> None:
    """Wait for an engine's answer, or its death."""
    try:
        await answer
    except RayError:
        return


def lost_its_node(error: RayError) -> bool:
    """Whether an engine is gone because its node is, or its host is or ended it, which says nothing of the model or of its rows."""
    told = ("node has died", "node was terminated", "owner has died", "killed by `ray.kill`")
    is_preempted = isinstance(error, RayActorError) and error.preempted
    return is_preempted or isinstance(error, ObjectLostError) or any(words in str(error) for words in told)


def needs_of(model: Model) -> dict[str, float]:
    """What one engine of a model holds, in Ray's words."""
    return {"CPU": model.cpus, "GPU": model.gpus}


def num_that_fit(needs: Mapping[str, float], labels: Mapping[str, str], most: int) -> int:
    """How many processes, at most `most`, the cluster has room for now, each of which wants so much of one machine with these labels."""
    labelled = {node["NodeID"] for node in placement.nodes(labels)}
    rooms = [
        min((int(round(free.get(resource, 0.0) / amount, 4)) for resource, amount in needs.items() if amount), default=most)
        for node, free in available_resources_per_node().items()
        if node in labelled
    ]
    return min(most, sum(rooms))


def start_host(environment: Mapping[str, Any]) -> Any:
    """The run's engine host, as an actor handle. Its engines have the same runtime `environment`."""
    where = placement.options(placement.beside_engines())
    lasting = {"max_restarts": -1, "max_task_retries": -1}
    options = {"num_cpus": 0, "max_concurrency": 1_000, "runtime_env": dict(environment), **lasting, **where}
    return ray.remote(_EngineHost).options(**options).remote()
