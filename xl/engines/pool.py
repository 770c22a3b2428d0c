"""Engines as Ray actors that outlive the stages which ask them.

Starting an engine costs a minute, so engines do not belong to a stage's workers. A host keeps them by model, hands one to each
worker that asks for it, starts further ones where there is room, replaces one that died, and ends all of them when the run is over.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray._private.state import available_resources_per_node
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
"""Engines of one model that a run starts before it gives up: an engine that never lives long is not worth more."""

MAX_ENGINE_DEATHS = 5
"""A row under which this many engines died is set aside as failed: it may be what kills them."""

MAX_FAILED_STARTS = 5
"""Engines of one model in a row that may die while they load: a model that cannot run here must not be tried for hours."""

PLACING_SECONDS = 60
"""An engine beyond the fewest that finds no machine in this time is given up: something else took the room that there was."""


class _EngineActor:
    """One engine in a process of its own, on its GPUs. Errors are returned, not raised: they cross processes unchanged."""

    def __init__(self, model: Model, resolved: ResolvedModel) -> None:
        self._model = model
        self._resolved = resolved
        self._engine: Any = None
        self._starting = asyncio.Lock()
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

    async def walk_all(self, route: tuple[Any], pending: Sequence[Pending]) -> list[Walk | None] | UserError:
        """Walk rows in this process, so that their asks cross none. The route comes as a reference and is fetched once."""
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
    most: int = 1
    """Engines that this execution may have."""
    num_starts: int = 0
    num_failed_starts: int = 0
    """In a row, up to now."""

    def start(self) -> str:
        """Start an engine; returns its name."""
        name = f"engine-{self.num_starts}"
        self.num_starts += 1
        options = {"num_cpus": self.model.cpus, "num_gpus": self.model.gpus, "max_concurrency": 10_000, "max_restarts": 0}
        where = placement.options(placement.of(self.model, self.model.gpus))
        self.engines[name] = ray.remote(_EngineActor).options(**options, **where).remote(self.model, self.resolved)
        return name


class _EngineHost:
    """Owns the engines of a run; they end with it."""

    def __init__(self, placing_seconds: float) -> None:
        self._placing_seconds = placing_seconds
        self._fleets: dict[str, _Fleet] = {}

    async def begin_execution(self, key: str, wanted: int) -> int:
        """Forget the workers of the execution before; returns how many engines the new one may have.

        These are at least the fewest of the recipe, and of those `wanted` as many as are there or find room.
        """
        fleet = self._fleets[key]
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
        fleet = self._fleets.setdefault(key, _Fleet(model, resolved))
        if dead is not None and (gone := fleet.engines.pop(dead, None)) is not None:
            ray.kill(gone)
            fleet.num_failed_starts = fleet.num_failed_starts + 1 if failed_start else 0
        if fleet.num_failed_starts >= MAX_FAILED_STARTS:
            return UserError(f"models: the engine of {model.model!r} failed to start {MAX_FAILED_STARTS} times in a row: {failed_start}")
        name = fleet.engine_of.get(worker) if worker else None
        if name is not None and name in fleet.engines:
            return name, fleet.engines[name]
        load = Counter(fleet.engine_of.values())
        least_busy = min(fleet.engines, key=lambda engine: load[engine], default=None)
        is_new = least_busy is None or (worker is not None and load[least_busy] > 0 and len(fleet.engines) < fleet.most)
        if is_new and fleet.num_starts >= MAX_ENGINE_STARTS:
            return UserError(f"models: the engine of {model.model!r} died {fleet.num_starts} times; Ray's log of this run says why")
        name = least_busy if least_busy and not is_new else fleet.start()
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

    def keys(self) -> set[str]:
        """Of the models whose engines are there."""
        return set(self._fleets)

    async def close(self) -> None:
        """End all engines."""
        engines = [engine for fleet in self._fleets.values() for engine in fleet.engines.values()]
        closing = [asyncio.ensure_future(_answered(engine.close.remote())) for engine in engines]
        await asyncio.wait(closing, timeout=20) if closing else None
        for engine in engines:
            ray.kill(engine)
        self._fleets.clear()


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
    labelled = {node["NodeID"] for node in ray.nodes() if node["Alive"] and labels.items() <= node["Labels"].items()}
    rooms = [
        min((int(round(free.get(resource, 0.0) / amount, 4)) for resource, amount in needs.items() if amount), default=most)
        for node, free in available_resources_per_node().items()
        if node in labelled
    ]
    return min(most, sum(rooms))


def start_host(environment: Mapping[str, Any], placing_seconds: float = PLACING_SECONDS) -> Any:
    """The run's engine host, as an actor handle. Its engines have the same runtime `environment`."""
    options = {"num_cpus": 0, "max_concurrency": 1_000, "runtime_env": dict(environment), **placement.options(placement.beside_engines())}
    return ray.remote(_EngineHost).options(**options).remote(placing_seconds)


class PooledEngine:
    """An engine of the host's, seen from a worker."""

    def __init__(self, host: Any, key: str, model: Model, resolved: ResolvedModel, worker: str | None) -> None:
        self._host, self._key, self._model, self._resolved, self._worker = host, key, model, resolved, worker
        self.name: str | None = None
        self.chat = False
        self._actor: Any = None
        self._connecting = asyncio.Lock()

    async def connect(self, dead: str | None = None) -> None:
        """Get an engine and wait until it has started; `dead` names the one to replace.

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
                    chat = EngineDied(str(error))
                if isinstance(chat, UserError):
                    raise chat
                if isinstance(chat, EngineDied):
                    dead, failed_start = name, str(chat).splitlines()[0]
                    continue
                self.name, self._actor, self.chat = name, actor, chat

    async def walk_all(self, route: Any, pending: Sequence[Pending]) -> list[Walk]:
        """Walk rows through a route (its reference) on an engine of the host's; another engine takes over those under which one died.

        A row under which `MAX_ENGINE_DEATHS` engines died fails: it may be what kills them.
        """
        walks: dict[int, Walk] = {}
        for _ in range(MAX_ENGINE_DEATHS):
            left = [place for place in range(len(pending)) if place not in walks]
            name = self.name
            found = await self._call([pending[place] for place in left], route)
            walks |= {place: walked for place, walked in zip(left, found, strict=True) if walked is not None}
            if len(walks) == len(pending):
                break
            await self.connect(dead=name)
        reason = f"engine died: {MAX_ENGINE_DEATHS} engines died under this row"
        failed = (Walk(row, start, Status.FAILED, reason, usage) for row, start, usage in pending)
        return [walks.get(place, failure) for place, failure in enumerate(failed)]

    async def close(self) -> None:
        """The engine belongs to the host and lives on."""

    async def _call(self, pending: Sequence[Pending], route: Any) -> list[Walk | None]:
        try:
            answer = await self._actor.walk_all.remote((route,), pending)
        except RayActorError:
            return [None] * len(pending)
        if isinstance(answer, UserError):
            raise answer
        walks: list[Walk | None] = answer
        return walks
