"""The host's engines as a worker sees them: it shares its parcels out over those that are its own, and sets poison rows aside."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError

from xl.engines.actor import HandedBack
from xl.engines.fleet import num_calls
from xl.engines.host import LOOK_SECONDS, lost_its_node
from xl.engines.models import ResolvedModel
from xl.errors import UserError
from xl.recipe import Model
from xl.records import Status
from xl.stage import Pending, Walk

MAX_DEATHS_TOGETHER, MAX_DEATHS_ALONE = 2, 3
"""Of many rows under way on an engine that dies, one may be what killed it. After so many deaths those of a parcel get an engine to
themselves and are halved as long as it dies; a single row under which as many die as the second number says is set aside as failed."""

MAX_UNHEARD = 150
"""How often in a row the host may not be there: five minutes, in which Ray starts another one."""


class EnginePool:
    """Engines of one model, of the host's. A driver has no name as a worker: it only wants to know that an engine is up."""

    def __init__(self, host: Any, key: str, model: Model, resolved: ResolvedModel, worker: str | None) -> None:
        self._host, self._key, self._model, self._resolved, self._worker = host, key, model, resolved, worker
        self.chat = False
        self._engines: dict[str, Any] = {}
        self._num_calls = Counter[str]()
        self._num_parcels = 0
        self._num_suspects = 0
        self._failure: Exception | None = None
        self._changed = asyncio.Condition()
        self._alone = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Wait until an engine is up.

        Raises:
            UserError: the model cannot be loaded.
        """
        chat = await self._host.ready.remote(self._key, self._model, self._resolved)
        if isinstance(chat, UserError):
            raise chat
        self.chat = chat

    async def walk_all(self, route: Any, pending: Sequence[Pending]) -> list[Walk]:
        """Walk rows through a route (its reference) on an engine; another one takes over those under which one died.

        Rows under which `MAX_DEATHS_TOGETHER` engines died get one to themselves, so that nothing else comes under suspicion. One that
        kills engines is found by halving (log2 of the parcel's rows further deaths), and the others are walked many at a time.

        Raises:
            UserError: there will be no engine.
        """
        self._following = self._following or asyncio.create_task(self._follow())
        self._num_parcels += 1
        try:
            walks = await self._walk_together(pending, route)
            suspects = _left(pending, walks)
            if not suspects:
                return _filled(walks, [])
            async with self._search():
                return _filled(walks, await self._walk_alone(suspects, route))
        finally:
            self._num_parcels -= 1

    async def close(self) -> None:
        """The engines belong to the host and live on."""
        if self._following:
            self._following.cancel()

    async def _follow(self) -> None:
        """Learn from the host which engines are ours, and tell it how many parcels wait for them."""
        num_unheard = 0
        while self._failure is None:
            known = frozenset(self._engines)
            try:
                told = await self._host.engines.remote(self._worker, self._key, self._model, self._resolved, self._num_parcels, known)
                num_unheard = 0
            except Exception as error:  # whoever waits for an engine is to hear of it
                num_unheard += 1
                if isinstance(error, RayActorError) and num_unheard < MAX_UNHEARD:  # Ray starts another host
                    await asyncio.sleep(LOOK_SECONDS)
                    continue
                told = error
            async with self._changed:
                if isinstance(told, Exception):
                    self._failure = told
                else:
                    self._engines = told
                self._changed.notify_all()

    async def _walk_together(self, pending: Sequence[Pending], route: Any) -> list[Walk | None]:
        """Walk rows side by side; None for those under which `MAX_DEATHS_TOGETHER` engines died."""
        walks: list[Walk | None] = [None] * len(pending)
        num_deaths = 0
        while num_deaths < MAX_DEATHS_TOGETHER and None in walks:
            async with self._engine() as (name, engine):
                num_deaths += await self._call(name, engine, pending, walks, route)
        return walks

    @contextlib.asynccontextmanager
    async def _search(self) -> AsyncIterator[None]:
        """A turn for the suspects of one parcel. The engine that is theirs goes from parcel to parcel, and back after the last."""
        self._num_suspects += 1
        try:
            async with self._alone:
                yield
        finally:
            self._num_suspects -= 1
            if not self._num_suspects:
                with contextlib.suppress(RayActorError):  # another host knows of no engine that is set aside
                    await self._host.put_back.remote(self._worker, self._key)

    async def _walk_alone(self, suspects: Sequence[Pending], route: Any) -> list[Walk]:
        """Walk rows that have an engine to themselves. Where it dies, each half of those that it leaves does the same."""
        if len(suspects) == 1:
            return [await self._walk_single(suspects[0], route)]
        walks = await self._call_alone(suspects, route)
        left = _left(suspects, walks)
        middle = len(left) // 2
        halves = [half for half in (left[:middle], left[middle:]) if half]
        return _filled(walks, [walked for half in halves for walked in await self._walk_alone(half, route)])

    async def _walk_single(self, row: Pending, route: Any) -> Walk:
        for _ in range(MAX_DEATHS_ALONE):
            if walked := (await self._call_alone([row], route))[0]:
                return walked
        return Walk(row.row, row.start, Status.FAILED, f"engine died: {MAX_DEATHS_ALONE} engines died under this row alone", row.usage)

    async def _call_alone(self, suspects: Sequence[Pending], route: Any) -> list[Walk | None]:
        """What became of rows that had an engine to themselves; None for each that was under way when it died."""
        walks: list[Walk | None] = [None] * len(suspects)
        has_died = False
        while None in walks and not has_died:
            name, engine = await self._engine_alone()
            has_died = await self._call(name, engine, suspects, walks, route, alone=True)
        return walks

    async def _call(
        self, name: str, engine: Any, pending: Sequence[Pending], walks: list[Walk | None], route: Any, alone: bool = False
    ) -> bool:
        """Have an engine walk the rows that have no walk yet; whether it died, and not for its node's sake."""
        left = [place for place, walked in enumerate(walks) if walked is None]
        has_died = is_blameless = False
        try:
            answer = await engine.walk_all.remote((route,), [pending[place] for place in left], alone)
        except RayTaskError:
            raise
        except RayError as error:
            answer, has_died, is_blameless = None, True, lost_its_node(error)
        if isinstance(answer, UserError):
            raise answer
        found = answer.walks if isinstance(answer, HandedBack) else answer or [None] * len(left)
        for place, walked in zip(left, found, strict=True):
            walks[place] = walked
        has_died |= isinstance(answer, list) and None in answer
        if None in found:
            self._engines.pop(name, None)
        if has_died:
            await self._host.lost.remote(self._key, name, is_blameless)
        return has_died and not is_blameless

    @contextlib.asynccontextmanager
    async def _engine(self) -> AsyncIterator[tuple[str, Any]]:
        """The engine with the fewest parcels of ours, as soon as one can take more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure or self._least_busy() is not None)
            if self._failure:
                raise self._failure
            name = self._least_busy()
            assert name is not None
            self._num_calls[name] += 1
            engine = self._engines[name]
        try:
            yield name, engine
        finally:
            self._num_calls[name] -= 1
            async with self._changed:
                self._changed.notify()

    async def _engine_alone(self) -> tuple[str, Any]:
        """An idle engine that nobody else asks until it is put back."""
        engine: tuple[str, Any] | None = None
        while engine is None:
            if self._failure:
                raise self._failure
            try:
                engine = await self._host.set_aside.remote(self._worker, self._key, self._model, self._resolved)
            except RayActorError:  # Ray starts another host
                await asyncio.sleep(LOOK_SECONDS)
        return engine

    def _least_busy(self) -> str | None:
        name = min(self._engines, key=lambda engine: self._num_calls[engine], default=None)
        return name if name is not None and self._num_calls[name] < num_calls(self._model) else None


def _left(pending: Sequence[Pending], walks: Sequence[Walk | None]) -> list[Pending]:
    """Rows that have not been walked to an end."""
    return [row for row, walked in zip(pending, walks, strict=True) if walked is None]


def _filled(walks: Sequence[Walk | None], later: Iterable[Walk]) -> list[Walk]:
    """The walks, with those that came later where one is missing."""
    rest = iter(later)
    return [walked or next(rest) for walked in walks]
