"""What runs inside Ray Data: a reader that finds out which rows of a shard are still to be done, and a worker that does them.

Rows travel from the one to the other through Ray's object store; what comes out at the end is only how many rows of which
shard are committed, so the driver's memory does not grow with the pages.
"""

import asyncio
import functools
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from xl.ask import Engine
from xl.engines.models import ResolvedModel
from xl.pages.manifest import Manifest
from xl.recipe import Model
from xl.records import Row, Status
from xl.stage import Pending, Route, Walk, walk
from xl.store import InputShard, PassStores, StageStore

_PARCEL_BYTES = 16 << 20

ACK_SCHEMA = pa.schema(
    [("shard", pa.string()), ("done", pa.int64()), *((status.value, pa.int64()) for status in Status), ("output_tokens", pa.int64())]
)
"""What a worker tells the driver: rows of a shard that it committed, and what became of them."""


class Source(Protocol):
    """Where a pass reads its rows from."""

    def rows(self, shards: list[InputShard]) -> Iterator[tuple[str, int, str, Row]]:
        """The shards' rows: shard, place in it, digest of the row, and the row."""
        ...


@dataclass(frozen=True)
class FromManifest:
    """Rows straight from the input files. A page's id is made of its content, so it serves as the digest too."""

    manifest: Manifest

    def rows(self, shards: list[InputShard]) -> Iterator[tuple[str, int, str, Row]]:
        wanted = {shard.name for shard in shards}
        for entry in self.manifest.files:
            if wanted.isdisjoint(shard.name for shard in entry.shards):
                continue
            for shard, place, row in self.manifest.rows(entry):
                if shard in wanted:
                    yield shard, place, row["id"], row

    def parts(self, shards: list[InputShard]) -> Iterator[tuple["FromManifest", list[InputShard]]]:
        """Shards that are best read together, those of one file, and the source that knows this file alone: what a task carries."""
        wanted = {shard.name for shard in shards}
        for entry in self.manifest.files:
            if group := [shard for shard in entry.shards if shard.name in wanted]:
                yield FromManifest(Manifest(self.manifest.root, self.manifest.pages, (entry,), {})), group


@dataclass(frozen=True)
class FromStage:
    """Rows that the stage before kept."""

    store: StageStore

    def rows(self, shards: list[InputShard]) -> Iterator[tuple[str, int, str, Row]]:
        for shard in shards:
            for place, (row, digest) in enumerate(self.store.kept(shard.name)):
                yield shard.name, place, digest, row

    def parts(self, shards: list[InputShard]) -> Iterator[tuple["FromStage", list[InputShard]]]:
        """Each shard is read by itself."""
        return ((self, [shard]) for shard in shards)


@dataclass(frozen=True)
class Plan:
    """Everything a worker must know about a pass."""

    stores: PassStores
    attempt: str
    seed: int
    retry_failed: bool
    model: Model | None = None
    resolved: ResolvedModel | None = None
    engine_key: str = ""
    host: Any = None
    number: str = ""
    """Of the execution of Ray Data that the plan is for; `xl.execute` gives each its own."""

    @property
    def execution(self) -> str:
        """What the segments of this execution begin with."""
        return f"{self.attempt}.{self.number}"


def read_pending(plan: Plan, source: Source, shards: list[InputShard], num_rows: int) -> Iterator[pa.Table]:
    """Rows that are still to be done, in tables of at most `num_rows`; rows known from before are committed at once.

    A row with a null id says how many rows of its shard (`_row`) were committed here.

    Asked once more in the same execution, as Ray does when a node is lost with what was read there, it gives as many tables as before
    (Ray counts them), each without the rows that have been committed since.
    """
    schema, last = plan.stores.record_schema, len(plan.stores.stages) - 1
    finished = {shard.name: plan.stores.finished(shard, plan.retry_failed, plan.execution) for shard in shards}
    carried: dict[str, list[Row]] = defaultdict(list)
    chunk: list[Row] = []
    num_rows_read = num_bytes = 0
    for shard, place, digest, row in source.rows(shards):
        before, here = finished[shard]
        known = None if place in here else before.pop(digest, None)
        where = {"_shard": shard, "_row": place, "_input": digest}
        if known is not None and (known["status"] != Status.KEPT or known["_stage"] == last):
            carried[shard].append({**known, **where})
            continue
        if place not in here:
            start = 0 if known is None else known["_stage"] + 1
            chunk.append({**(known or row), **where, "_start": start, "_usage": known["_usage"] if known else []})
        num_rows_read += 1
        num_bytes += len(row.get("text") or "")
        if num_rows_read >= num_rows or num_bytes >= _PARCEL_BYTES:
            yield pa.Table.from_pylist(chunk, schema=schema)
            chunk, num_rows_read, num_bytes = [], 0, 0
    for shard, records in carried.items():
        plan.stores.stores[0].log(shard, plan.attempt, records, schema, name="carried")
        chunk.append({"_shard": shard, "_row": len(records), "_usage": []})
    if chunk or num_rows_read:
        yield pa.Table.from_pylist(chunk, schema=schema)


def pack(table: pa.Table) -> bytes:
    """A table as one value, so that Ray Data hands it on as it is: one parcel of rows is one row of its dataset."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def unpack(parcel: bytes) -> pa.Table:
    """Inverse of `pack`."""
    return pa.ipc.open_stream(parcel).read_all()


class RowWorker:
    """Has parcels of rows walked through the stages of a pass, many at once, and commits them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._walk_all: WalkAll | None = None
        self._connecting = asyncio.Lock()

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        """What Ray Data calls where workers are actors."""
        yield await self.do(batch)

    async def do(self, batch: pa.Table) -> pa.Table:
        """Do a parcel of pending rows; returns a table of acknowledgements."""
        rows = [row for parcel in batch.column("parcel").to_pylist() for row in unpack(parcel).to_pylist()]
        acks = [{"shard": row["_shard"], "done": row["_row"]} for row in rows if row["id"] is None]
        rows = [row for row in rows if row["id"] is not None]
        walks = await self._walks(rows)
        acks += await asyncio.to_thread(self._commit, rows, walks)  # other parcels go on while the disk writes
        return pa.Table.from_pylist(acks, schema=ACK_SCHEMA)

    def _commit(self, rows: Sequence[Row], walks: Sequence[Walk]) -> list[Row]:
        """Commit what became of the rows of a parcel; returns an acknowledgement for each shard."""
        by_shard: dict[str, list[tuple[Walk, Row]]] = defaultdict(list)
        for row, walked in zip(rows, walks, strict=True):
            by_shard[row["_shard"]].append((walked, {key: row[key] for key in ("_shard", "_row", "_input")}))
        for shard, done in by_shard.items():
            records = [self._plan.stores.record(walked, place) for walked, place in done]
            self._plan.stores.stores[0].log(shard, self._plan.execution, records, self._plan.stores.record_schema)
        return [_acknowledge(shard, [walked for walked, _ in done]) for shard, done in by_shard.items()]

    async def _walks(self, rows: list[Row]) -> Sequence[Walk]:
        if not rows:
            return []
        async with self._connecting:
            walk_all = self._walk_all = self._walk_all or await _connect(self._plan)
        names = self._plan.stores.schemas[-1].names
        return await walk_all([Pending({name: row[name] for name in names}, row["_start"], row["_usage"]) for row in rows])


def work_here(batch: pa.Table, plan_reference: Any) -> pa.Table:
    """Do a parcel of a pass that asks no model, in whichever worker process is free."""
    return asyncio.run(_worker_of(plan_reference).do(batch))


@functools.lru_cache(maxsize=1)
def _worker_of(plan_reference: Any) -> RowWorker:
    return RowWorker(plan_of(plan_reference))


def plan_of(plan_reference: Any) -> Plan:
    """The plan behind a reference that was handed to a task."""
    import ray

    plan: Plan = ray.get(plan_reference)
    return plan


WalkAll = Callable[[Sequence[Pending]], Awaitable[Sequence[Walk]]]


async def _connect(plan: Plan) -> WalkAll:
    """How rows are walked: in the process of an engine of the host's, else here."""
    route = Route(plan.stores.stages, plan.seed)
    if plan.model is None:
        return functools.partial(_walk_here, route, None)
    engine = await open_engine(plan)
    if plan.model.engine == "openai":
        return functools.partial(_walk_here, route, engine)
    import ray

    return functools.partial(engine.walk_all, ray.put(route))


async def _walk_here(route: Route, engine: Engine | None, pending: Sequence[Pending]) -> Sequence[Walk]:
    return await asyncio.gather(*(walk(route, row, engine) for row in pending))


async def open_engine(plan: Plan) -> Any:
    """What a worker's rows are asked of: an engine of the host's, or a client of an endpoint. Raises UserError when it cannot work."""
    model = plan.model
    assert model is not None and plan.resolved is not None
    if model.engine == "openai":
        from xl.engines.openai import Endpoint, OpenAIEngine

        names = set(Endpoint.model_fields)
        settings = {key: value for key, value in model.model_dump().items() if key in names}
        client = OpenAIEngine(Endpoint(**{**settings, "chat": model.chat is not False}))
        await client.check()
        return client
    import ray

    from xl.engines.pool import EnginePool

    engines = EnginePool(plan.host, plan.engine_key, model, plan.resolved, ray.get_runtime_context().get_actor_id())
    await engines.open()
    return engines


def _acknowledge(shard: str, walks: list[Walk]) -> Row:
    counts = {status.value: sum(w.status is status for w in walks) for status in Status}
    tokens = sum(entry["output_tokens"] for w in walks for entry in w.usage)
    return {"shard": shard, "done": len(walks), **counts, "output_tokens": tokens}
