"""Engines as Ray actors that outlive the stages which ask them.

Starting an engine costs a minute, so engines do not belong to a stage's workers. A host keeps them by model, hands one to each
worker that asks for it, starts further ones where there is room, replaces one that died, and ends all of them when the run is over.
"""

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray._private.state import available_resources_per_node, state
from ray.exceptions import RayActorError

from xl import placement
from xl.ask import EngineDied
from xl.engines.models import ResolvedModel
from xl.engines.scripted import ScriptedEngine
from xl.errors import UserError
from xl.recipe import Model
from xl.records import Status
from xl.stage import Pending, Route, Walk, walk_all

MAX_ENGINE_STARTS = 100
"""Engines for each replica of a model that a run starts before it gives up: one that never lives long is not worth more."""

MAX_DEATHS_TOGETHER, MAX_ENGINE_DEATHS = 2, 5
"""Of many rows under way on an engine that dies, one may be what killed it. After so many deaths they go one at a time, and a row under
which as many engines as the second number says have died is set aside as failed."""

MAX_FAILED_STARTS = 5
"""Engines of one model in a row that may die while they load: a model that cannot run here must not be tried for hours."""

DRAIN_POLL_SECONDS = 2.0
"""How often it is asked whether a node will be taken away. Clouds give half a minute's notice or more."""

PLACING_SECONDS = 60
"""An engine beyond the fewest that finds no machine in this time is given up: something else took the room that there was."""


class _EngineActor:
    """One engine in a process of its own, on its GPUs. Errors are returned, not raised: they cross processes unchanged."""

    def __init__(self, model: Model, resolved: ResolvedModel) -> None:
        self._model = model
        self._resolved = resolved
        self._engine: Any = None
        self._starting = asyncio.Lock()
        self._is_leaving = False
        self._routes: dict[Any, Route] = {}

    async def start(self) -> bool | UserError | EngineDied:
        """Load the model; whether it takes chat messages."""
        async with self._starting:
            if self._engine is None:
                try:
                    self._engine = self._load()
                except UserError as error:
                    return error
                except Exception as error:  # a process of the engine was killed, say, while it loaded
                    return EngineDied(f"{type(error).__name__}: {error}")
        return bool(self._engine.chat)

    def _load(self) -> Any:
        if self._model.engine == "scripted":
            return ScriptedEngine(self._model.delay_seconds, chat=self._model.chat is not False)
        from xl.engines.vllm import VLLMEngine

        return VLLMEngine(self._model, self._resolved.path, self._resolved.chat)

    async def node(self) -> str:
        """The id of the node that this is on."""
        return str(ray.get_runtime_context().get_node_id())

    async def leave(self) -> None:
        """Take no more rows; those that are under way come to their end."""
        self._is_leaving = True

    async def walk_all(self, route: tuple[Any], pending: Sequence[Pending]) -> list[Walk | None] | UserError | None:
        """Walk rows in this process, so that their asks cross none. The route comes as a reference and is fetched once.

        None where the engine takes no more rows.
        """
        if self._is_leaving:
            return None
        reference = route[0]
        if reference not in self._routes:
            self._routes[reference] = await reference
        try:
            return await walk_all(self._routes[reference], pending, self._engine)
        except UserError as error:
            return error

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.close()


@dataclass
class _Fleet:
    """The engines of one model."""

    model: Model
    resolved: ResolvedModel
    engines: dict[str, Any] = field(default_factory=dict)
    engine_of: dict[str, str] = field(default_factory=dict)
    """Names of the engines that the workers of this execution have."""
    leaving: dict[str, Any] = field(default_factory=dict)
    """Engines whose nodes will be taken away: they take no more rows."""
    most: int = 1
    """Engines that this execution may have."""
    num_starts: int = 0
    num_failed_starts: int = 0
    """In a row, up to now."""

    def start(self, host: str) -> str:
        """Start an engine; returns its name, which no engine of another host has."""
        name = f"engine-{self.num_starts}-{host}"
        self.num_starts += 1
        options = {"num_cpus": self.model.cpus, "num_gpus": self.model.gpus, "max_concurrency": 10_000, "max_restarts": 0}
        where = placement.options(placement.of(self.model, self.model.gpus))
        self.engines[name] = ray.remote(_EngineActor).options(**options, **where).remote(self.model, self.resolved)
        return name


class _EngineHost:
    """Owns the engines of a run; they end with it. Where it is lost with its node, Ray starts another one, which begins without engines."""

    def __init__(self, placing_seconds: float) -> None:
        self._placing_seconds = placing_seconds
        self._fleets: dict[str, _Fleet] = {}
        self._id = uuid.uuid4().hex[:8]
        self._watching: asyncio.Task[None] | None = None

    async def _watch_nodes(self) -> None:
        """Have the engines on a node that will be taken away do what they have begun, and nothing more; others take their place."""
        while True:
            await asyncio.sleep(DRAIN_POLL_SECONDS)
            with contextlib.suppress(Exception):  # whatever keeps this look from succeeding: the next one may
                leaving = await asyncio.to_thread(state.get_draining_nodes)
                there = [(fleet, name, engine) for fleet in self._fleets.values() for name, engine in fleet.engines.items()]
                nodes = await asyncio.gather(*(_node_of(engine) for _, _, engine in there)) if leaving else []
                for (fleet, name, engine), node in zip(there, nodes, strict=bool(leaving)):
                    if node in leaving and fleet.engines.pop(name, None) is not None:
                        fleet.leaving[name] = engine
                        engine.leave.remote()

    async def begin_execution(self, key: str, model: Model, resolved: ResolvedModel, wanted: int) -> int:
        """Forget the workers of the execution before; returns how many engines the new one may have.

        These are at least the fewest of the recipe, and of those `wanted` as many as are there or find room.
        """
        fleet = self._fleets.setdefault(key, _Fleet(model, resolved))
        fleet.engine_of.clear()
        further = num_that_fit(needs_of(fleet.model), placement.of(fleet.model, fleet.model.gpus), max(0, wanted - len(fleet.engines)))
        fleet.most = max(fleet.model.replicas[0], len(fleet.engines) + further)
        return fleet.most

    async def engine_for(
        self,
        worker: str | None,
        key: str,
        model: Model,
        resolved: ResolvedModel,
        dead: str | None = None,
        failed_start: str | None = None,
    ) -> tuple[str, Any] | UserError:
        """An engine for a worker: the one it had, one that no worker has, a new one while there may be more, or the least busy one.

        A driver is no worker (None): it only wants to know that an engine is up. `dead` names an engine that was found dead; it is
        replaced once, however many workers report it. `failed_start` is the reason if it died before it was ready.
        """
        self._watching = self._watching or asyncio.create_task(self._watch_nodes())
        fleet = self._fleets.setdefault(key, _Fleet(model, resolved, most=model.replicas[1]))
        if dead is not None and (gone := fleet.engines.pop(dead, None)) is not None:
            ray.kill(gone)
            fleet.num_failed_starts += failed_start is not None
        if fleet.num_failed_starts >= MAX_FAILED_STARTS:
            return UserError(f"models: the engine of {model.model!r} failed to start {MAX_FAILED_STARTS} times in a row: {failed_start}")
        name = fleet.engine_of.get(worker) if worker else None
        if name is not None and name in fleet.engines:
            return name, fleet.engines[name]
        load = Counter(fleet.engine_of.values())
        least_busy = min(fleet.engines, key=lambda engine: load[engine], default=None)
        is_new = least_busy is None or (worker is not None and load[least_busy] > 0 and len(fleet.engines) < fleet.most)
        if is_new and fleet.num_starts >= MAX_ENGINE_STARTS * model.replicas[1]:
            return UserError(f"models: the engine of {model.model!r} died {fleet.num_starts} times; Ray's log of this run says why")
        name = least_busy if least_busy and not is_new else fleet.start(self._id)
        if worker:
            fleet.engine_of[worker] = name
        engine = fleet.engines[name]
        if is_new and len(fleet.engines) > model.replicas[0]:
            await self._place(fleet, name)
        return name, engine

    async def _place(self, fleet: _Fleet, name: str) -> None:
        """Give an engine up that no machine has room for after all. Its worker finds it dead, and asks for another one."""
        up = asyncio.ensure_future(_answered(fleet.engines[name].__ray_ready__.remote()))
        placed, _ = await asyncio.wait([up], timeout=self._placing_seconds)
        if not placed and (engine := fleet.engines.pop(name, None)) is not None:
            ray.kill(engine)
            fleet.most = max(fleet.model.replicas[0], len(fleet.engines))

    def has_started(self, key: str) -> None:
        """Note that an engine of a model can start."""
        if key in self._fleets:
            self._fleets[key].num_failed_starts = 0

    def num_engines(self, key: str) -> int:
        """How many engines of a model there are."""
        return len(self._fleets[key].engines) if key in self._fleets else 0

    def keys(self) -> set[str]:
        """Of the models whose engines are there."""
        return set(self._fleets)

    async def close(self) -> None:
        """End all engines."""
        engines = [engine for fleet in self._fleets.values() for engine in (*fleet.engines.values(), *fleet.leaving.values())]
        closing = [asyncio.ensure_future(_answered(engine.close.remote())) for engine in engines]
        await asyncio.wait(closing, timeout=20) if closing else None
        for engine in engines:
            ray.kill(engine)
        self._fleets.clear()


async def _node_of(engine: Any) -> str | None:
    """The node that an engine is on; None before it is on one, or when it is gone."""
    try:
        where: str = await asyncio.wait_for(engine.node.remote(), timeout=1)
    except (RayActorError, TimeoutError):
        return None
    return where


def _lost_its_node(error: RayActorError) -> bool:
    """Whether an engine is gone because its node is, which says nothing of the model."""
    return error.preempted or "node has died" in str(error) or "node was terminated" in str(error)


async def _answered(answer: Any) -> None:
    """Wait for an engine's answer, or its death."""
    try:
        await answer
    except RayActorError:
        return


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


def start_host(environment: Mapping[str, Any], placing_seconds: float = PLACING_SECONDS) -> Any:
    """The run's engine host, as an actor handle. Its engines have the same runtime `environment`."""
    where = placement.options(placement.beside_engines())
    lasting = {"max_restarts": -1, "max_task_retries": -1}
    options = {"num_cpus": 0, "max_concurrency": 1_000, "runtime_env": dict(environment), **lasting, **where}
    return ray.remote(_EngineHost).options(**options).remote(placing_seconds)


class PooledEngine:
    """An engine of the host's, seen from a worker."""

    def __init__(self, host: Any, key: str, model: Model, resolved: ResolvedModel, worker: str | None) -> None:
        self._host, self._key, self._model, self._resolved, self._worker = host, key, model, resolved, worker
        self.name: str | None = None
        self.chat = False
        self._actor: Any = None
        self._connecting = asyncio.Lock()
        self._alone = asyncio.Lock()

    async def connect(self, dead: str | None = None) -> None:
        """Get an engine and wait until it has started; `dead` names the one to replace. Does nothing where there is another one already.

        Raises:
            UserError: the model cannot be loaded.
        """
        async with self._connecting:
            if self.name is not None and self.name != dead:
                return
            self.name = None
            failed_start: str | None = None
            while self.name is None:
                answer = await self._host.engine_for.remote(self._worker, self._key, self._model, self._resolved, dead, failed_start)
                if isinstance(answer, UserError):
                    raise answer
                name, actor = answer
                try:
                    chat = await actor.start.remote()
                except RayActorError as error:
                    dead, failed_start = name, None if _lost_its_node(error) else str(error).splitlines()[0]
                    continue
                if isinstance(chat, UserError):
                    raise chat
                if isinstance(chat, EngineDied):
                    dead, failed_start = name, str(chat).splitlines()[0]
                    continue
                await self._host.has_started.remote(self._key)
                self.name, self._actor, self.chat = name, actor, chat

    async def walk_all(self, route: Any, pending: Sequence[Pending]) -> list[Walk]:
        """Walk rows through a route (its reference) on an engine of the host's; another engine takes over those under which one died.

        Rows under which two engines died go one at a time from then on, and a row under which `MAX_ENGINE_DEATHS` engines died fails: it
        is what kills them.
        """
        walks = await self._walk_together(pending, route)
        suspects = [place for place, walked in enumerate(walks) if walked is None]
        if suspects:
            async with self._alone:
                for place in suspects:
                    walks[place] = await self._walk_alone(pending[place], route)
        return [walked for walked in walks if walked is not None]

    async def _walk_together(self, pending: Sequence[Pending], route: Any) -> list[Walk | None]:
        """Walk rows side by side; None for those under which `MAX_DEATHS_TOGETHER` engines died."""
        walks: list[Walk | None] = [None] * len(pending)
        num_deaths = 0
        while num_deaths < MAX_DEATHS_TOGETHER and None in walks:
            await self.connect(dead=None)
            left = [place for place, walked in enumerate(walks) if walked is None]
            name = self.name
            found = await self._call([pending[place] for place in left], route)
            for place, walked in zip(left, found or (), strict=found is not None):
                walks[place] = walked
            if None in walks:
                num_deaths += found is not None
                await self.connect(dead=name)
        return walks

    async def _walk_alone(self, row: Pending, route: Any) -> Walk:
        num_deaths = MAX_DEATHS_TOGETHER
        while num_deaths < MAX_ENGINE_DEATHS:
            await self.connect(dead=None)
            name = self.name
            found = await self._call([row], route)
            if found is not None and found[0] is not None:
                return found[0]
            num_deaths += found is not None
            await self.connect(dead=name)
        return Walk(row.row, row.start, Status.FAILED, f"engine died: {MAX_ENGINE_DEATHS} engines died under this row", row.usage)

    async def close(self) -> None:
        """The engine belongs to the host and lives on."""

    async def _call(self, pending: Sequence[Pending], route: Any) -> list[Walk | None] | None:
        """What became of the rows on the engine; None if it leaves and has not begun them."""
        try:
            answer = await self._actor.walk_all.remote((route,), pending)
        except RayActorError:
            return [None] * len(pending)
        if isinstance(answer, UserError):
            raise answer
        walks: list[Walk | None] | None = answer
        return walks
