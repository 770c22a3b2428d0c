"""One engine in a process of its own, on its GPUs: what Ray schedules."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import ray

from xl.ask import EngineDied
from xl.engines.models import ResolvedModel
from xl.engines.scripted import ScriptedEngine
from xl.errors import UserError
from xl.recipe import Model
from xl.stage import Pending, Route, Walk, walk_or_none


class HandedBack(NamedTuple):
    """What an engine that had to leave made of its rows; None for each that it had not done."""

    walks: list[Walk | None]


class _EngineActor:
    """Walks rows beside its engine. Errors are returned, not raised: they cross processes unchanged."""

    def __init__(self, model: Model, resolved: ResolvedModel) -> None:
        self._model = model
        self._resolved = resolved
        self._engine: Any = None
        self._starting = asyncio.Lock()
        self._is_leaving = False
        self._is_set_aside = False
        self._hands_back = asyncio.Event()
        self._num_calls = 0
        self._is_free = asyncio.Event()
        self._is_free.set()
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
        from xl.engines.models import local_path
        from xl.engines.vllm import VLLMEngine

        return VLLMEngine(self._model, local_path(self._resolved.path), self._resolved.chat)

    async def node(self) -> str:
        """The id of the node that this is on."""
        return str(ray.get_runtime_context().get_node_id())

    async def walk_all(
        self, route: tuple[Any], pending: Sequence[Pending], alone: bool = False
    ) -> list[Walk | None] | HandedBack | UserError | None:
        """Walk rows in this process, so that their asks cross none. The route comes as a reference and is fetched once.

        None for a row under which the engine died; None for all where the engine takes none, or no such: one that is set aside takes those
        that want an engine `alone`, another one those that do not.
        """
        if self._is_leaving or self._is_set_aside != alone:
            return None
        self._num_calls += 1
        self._is_free.clear()
        try:
            reference = route[0]
            if reference not in self._routes:
                self._routes[reference] = await reference
            return await self._walk(self._routes[reference], pending)
        except UserError as error:
            return error
        finally:
            self._num_calls -= 1
            if not self._num_calls:
                self._is_free.set()

    async def _walk(self, route: Route, pending: Sequence[Pending]) -> list[Walk | None] | HandedBack:
        rows = [asyncio.create_task(walk_or_none(route, row, self._engine)) for row in pending]
        all_rows, told = asyncio.gather(*rows), asyncio.ensure_future(self._hands_back.wait())
        first_of: list[asyncio.Future[Any]] = [all_rows, told]
        await asyncio.wait(first_of, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if all_rows.done():
            return all_rows.result()
        walks = [row.result() if row.done() else None for row in rows]
        all_rows.cancel()
        return HandedBack(walks)

    async def set_aside(self) -> None:
        """Take only rows that want an engine alone from now on, and return when no others are under way.

        A worker may not have heard yet whose the engine is: its rows may come later than this.
        """
        self._is_set_aside = True
        await self._is_free.wait()

    async def put_back(self) -> None:
        """Take rows of all workers again."""
        self._is_set_aside = False

    async def leave(self, seconds: float | None = None) -> None:
        """Take no more rows, and return when those that are under way have come to their end.

        What takes longer than `seconds` is handed back undone; what is done by then is not lost with it.
        """
        self._is_leaving = True
        try:
            async with asyncio.timeout(seconds):
                await self._is_free.wait()
        except TimeoutError:
            self._hands_back.set()
            await self._is_free.wait()

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.close()
