"""Run stages on Ray: Ray Data streams the rows and schedules the work, our stores commit it."""

import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from xl import placement
from xl.ask import Drop
from xl.engines.fleet import num_calls, parcel_rows, workers_for
from xl.errors import DISK_FULL, UserError
from xl.progress import StageProgress
from xl.recipe import Model
from xl.records import Row, Status
from xl.stage import WholeStage
from xl.store import Incomplete, InputShard, StageStore
from xl.worker import FromManifest, FromStage, Plan, RowWorker, pack, plan_of, read_pending, work_here

MAX_FRUITLESS_ROUNDS = 3
"""A pass goes on with what dying workers and nodes have left open, round after round, unless so many rounds in a row get nothing done."""

MAX_TASK_RETRIES = 3
"""A task whose process dies is tried so often again before its round ends; Ray Data by itself would try a row that kills it for ever."""

FULL_DISK_SIGNS = ("No space left on device", "local disk's utilization is over capacity")
"""What the operating system says, and Ray where neither a node's object store nor its disk holds more objects."""

CPU_PARCEL_ROWS = 512

CPU_PARCELS, ENGINE_PARCELS = 500, 1_000
PARCELS_PER_CPU, PARCELS_PER_ENGINE = 20, 200
"""Parcels in one execution of Ray Data, which keeps 10 to 20 KB for each in the driver until it ends: a pass over more rows is cut into
several executions. Workers run dry for a moment between two, so the more of them there are, the longer an execution."""


def parallel(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """Call a function for each tuple of arguments in Ray tasks; results come in order, a bounded number under way."""
    import ray

    task = ray.remote(function).options(**placement.options(placement.beside_engines()))
    window = 4 * cluster_cpus()
    waiting: list[Any] = []
    for arguments_of_one in arguments:
        waiting.append(task.remote(*arguments_of_one))
        if len(waiting) >= window:
            yield _get(waiting.pop(0))
    for reference in waiting:
        yield _get(reference)


def _get(reference: Any) -> Any:
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise _explained(cause_of(error)) from None


def cause_of(error: BaseException) -> BaseException:
    """The user's mistake at the bottom of Ray's wrapping, or the error itself."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, UserError):
            # Ray wraps an exception into one of the same type whose text is a whole traceback: keep the message alone.
            return type(getattr(seen, "cause", None) or seen)(*(getattr(seen, "cause", None) or seen).args)
        seen = getattr(seen, "cause", None) or seen.__cause__
    return error


def run_rows(plan: Plan, source: FromManifest | FromStage, shards: list[InputShard], progress: StageProgress) -> None:
    """Do the rows of these shards that are still to be done, and seal the shards.

    Raises:
        UserError: the engine cannot work, the disk is full, or some rows end every process that treats them.
        Incomplete: rows stay missing after several rounds, which no user can cause.
    """
    try:
        _run_rounds(plan, source, shards, progress)
    finally:
        if plan.host is not None:
            plan.host.rest.remote(plan.engine_key)


def _run_rounds(plan: Plan, source: FromManifest | FromStage, shards: list[InputShard], progress: StageProgress) -> None:
    from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError

    left, num_fruitless = shards, 0
    while left:
        round_ = _Round()
        failure: Exception | None = None
        try:
            for group in _executions(plan, left):
                _execute(plan, source, group, progress, round_)
        except Exception as error:
            cause = _explained(cause_of(error))
            # What our code raised in a worker would be raised again. All else is Ray's: it may stumble over a worker or node that dies.
            if isinstance(cause, UserError) or (isinstance(error, RayTaskError) and not _is_lost(error)):
                raise cause from error
            failure = error
        left = [shard for shard in left if shard.name not in round_.sealed]
        progress.advance(-sum(round_.done[shard.name] for shard in left))
        num_fruitless = 0 if round_.num_new else num_fruitless + 1
        if left and num_fruitless == MAX_FRUITLESS_ROUNDS:
            if isinstance(failure, WorkerCrashedError | OutOfMemoryError):
                why = "a row crashes what treats it, or memory is short"
                raise UserError(f"{left[0].name}: each process at work on its rows dies ({why}); Ray says: {str(failure).splitlines()[0]}")
            raise failure or Incomplete(f"{len(left)} shards are still open after {num_fruitless} rounds; the first is {left[0].name}")


@dataclass
class _Round:
    """What one round of a pass has come to so far."""

    done: Counter[str] = field(default_factory=Counter)
    """Rows of each shard that are committed, those known from before among them."""
    sealed: set[str] = field(default_factory=set)
    num_new: int = 0
    """Rows that were not known before."""


def _is_lost(error: BaseException) -> bool:
    """Whether a task did not get what it was to work on: the node that had it is gone, and Ray could not make it anew."""
    from ray.exceptions import ObjectLostError, RaySystemError, RayTaskError

    while isinstance(error, RayTaskError):
        error = error.cause
    return isinstance(error, ObjectLostError | RaySystemError)


def _explained(error: BaseException) -> BaseException:
    return UserError(DISK_FULL) if any(sign in str(error) for sign in FULL_DISK_SIGNS) else error


def _executions(plan: Plan, shards: list[InputShard]) -> Iterator[list[InputShard]]:
    """The shards in groups of at most so many rows as one execution may have, but at least one shard."""
    if plan.model is None:
        num_parcels = max(CPU_PARCELS, PARCELS_PER_CPU * cluster_cpus())
    else:
        num_parcels = max(ENGINE_PARCELS, PARCELS_PER_ENGINE * plan.model.replicas[1])
    most = num_parcels * _parcel_rows(plan)
    group: list[InputShard] = []
    num_rows = 0
    for shard in shards:
        if group and num_rows + shard.num_rows > most:
            yield group
            group, num_rows = [], 0
        group.append(shard)
        num_rows += shard.num_rows
    if group:
        yield group


def _parcel_rows(plan: Plan) -> int:
    return CPU_PARCEL_ROWS if plan.model is None else parcel_rows(plan.model)


def _execute(plan: Plan, source: FromManifest | FromStage, shards: list[InputShard], progress: StageProgress, round_: _Round) -> None:
    """Do these shards once; enters in the round what came of it."""
    import ray

    expected = {shard.name: shard for shard in shards}
    plan = replace(plan, number=uuid.uuid4().hex)
    plan_reference = ray.put(plan)
    seals = _Seals(plan_reference, round_.sealed)
    try:
        for shard in shards:
            if shard.num_rows == 0:
                seals.start(shard)
        for ack in _acknowledgements(plan, plan_reference, source, [shard for shard in shards if shard.num_rows]):
            counts = {status.value: ack[status.value] or 0 for status in Status}
            progress.advance(ack["done"], **counts, output_tokens=ack["output_tokens"] or 0)
            # A row that fails once more when failed ones are tried again is nothing new.
            round_.num_new += sum(counts.values()) - (counts[Status.FAILED.value] if plan.retry_failed else 0)
            round_.done[ack["shard"]] += ack["done"]
            if round_.done[ack["shard"]] == expected[ack["shard"]].num_rows:
                seals.start(expected[ack["shard"]])
    finally:
        seals.wait(0)


class _Seals:
    """Shards that are being sealed, a few at a time; those that could be are entered in `sealed`."""

    def __init__(self, plan_reference: Any, sealed: set[str]) -> None:
        import ray

        self._plan = plan_reference
        self._sealed = sealed
        self._task = ray.remote(_seal).options(num_cpus=0, **placement.options(placement.beside_engines()))
        self._most = num_waiting_tasks()
        self._under_way: list[Any] = []

    def start(self, shard: InputShard) -> None:
        """Seal a shard, as soon as there is room."""
        self.wait(self._most - 1)
        self._under_way.append(self._task.remote(self._plan, shard))

    def wait(self, most: int) -> None:
        """Wait until at most so many are under way."""
        import ray

        while len(self._under_way) > most:
            ready, self._under_way = ray.wait(self._under_way)
            self._sealed.update(filter(None, ray.get(ready)))


def num_waiting_tasks() -> int:
    """How many tasks that wait rather than compute may run side by side. They claim no CPU, so Ray would start a process for each."""
    return max(1, cluster_cpus() // 2)


def cluster_cpus() -> int:
    """How many CPUs Ray counts now, over all of its nodes."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _seal(plan: Plan, shard: InputShard) -> str | None:
    try:
        plan.stores.seal(shard, plan.attempt, plan.execution)
    except Incomplete:
        # A worker died between its commit and its word to the driver; the next round does what is missing.
        return None
    return shard.name


def _acknowledgements(plan: Plan, plan_reference: Any, source: FromManifest | FromStage, shards: list[InputShard]) -> Iterator[Row]:
    import ray
    from ray.util.annotations import RayDeprecationWarning

    if not shards:
        return
    dumps = ray.cloudpickle.dumps
    items = [{"shards": dumps(group), "source": dumps(part)} for part, group in source.parts(shards)]
    data = ray.data.from_items(items, override_num_blocks=len(items))
    # Ray Data fuses steps that want the same of Ray, and a fused reader would feed its worker at most four tables at once. So the reader
    # says something of its own, which is the default: a worker process may read without end.
    reading = {
        "num_cpus": 0,
        "max_calls": 0,
        "max_retries": MAX_TASK_RETRIES,
        "compute": ray.data.TaskPoolStrategy(min(len(items), num_waiting_tasks())),
    }
    with warnings.catch_warnings():
        # This Ray takes the number of retries in no other way, and warns that a later one will not.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        data = data.map_batches(_read, fn_args=(plan_reference,), batch_size=1, batch_format="pyarrow", **reading)
        if plan.model is None:
            here = {"num_cpus": 1, "max_retries": MAX_TASK_RETRIES}
            data = data.map_batches(work_here, fn_args=(plan_reference,), batch_size=None, batch_format="pyarrow", **here)
    if plan.model is not None:
        arguments = {"fn_constructor_args": (plan,), "compute": _workers(plan, plan.model, shards)}
        data = data.map_batches(RowWorker, batch_size=None, batch_format="pyarrow", num_cpus=0, **arguments)
    for batch in data.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from batch.to_pylist()


def _workers(plan: Plan, model: Model, shards: list[InputShard]) -> Any:
    """How many workers ask a model, and how many tables of rows each has under way: enough for all engines that there may be.

    Ray Data would start further workers only when those there are have nearly twice as many tables as they can walk; so how many there
    are is settled here. Which engines are up is the host's affair.
    """
    import ray

    num_engines = 1
    if model.engine != "openai":
        wanted = -(-sum(shard.num_rows for shard in shards) // (num_calls(model) * parcel_rows(model)))
        num_engines = ray.get(plan.host.begin_execution.remote(plan.engine_key, model, plan.resolved, wanted))
    num_workers, in_flight = workers_for(model, num_engines)
    return ray.data.ActorPoolStrategy(size=num_workers, max_tasks_in_flight_per_actor=in_flight, max_concurrent_calls_per_actor=in_flight)


def max_rows_redone(model: Model) -> int:
    """What a kill can cost in a stage that asks: rows under way at all of its workers."""
    num_workers, in_flight = workers_for(model, model.replicas[1])
    return num_workers * in_flight * parcel_rows(model)


def _read(batch: pa.Table, plan_reference: Any) -> Iterator[pa.Table]:
    import ray

    plan = plan_of(plan_reference)
    for item in batch.to_pylist():
        shards, source = ray.cloudpickle.loads(item["shards"]), ray.cloudpickle.loads(item["source"])
        for table in read_pending(plan, source, shards, _parcel_rows(plan)):
            yield pa.table({"parcel": [pack(table)]})


def run_whole(
    stage: WholeStage, store: StageStore, before: StageStore, shards: list[InputShard], schema: pa.Schema, progress: StageProgress
) -> list[str]:
    """Survey all rows in one task, then decide about them shard by shard, side by side. Returns the stage's remarks."""
    import ray

    names = [shard.name for shard in shards]
    surveying = ray.remote(_survey).options(num_returns=2, **placement.options(placement.beside_engines()))
    state, remarks = surveying.remote(stage, before, names)
    for ledger in parallel(_decide, ((stage, store, before, shard, schema, state) for shard in shards)):
        progress.advance(sum(ledger.values()), **ledger)
    found: list[str] = ray.get(remarks)
    return found


def _survey(stage: WholeStage, before: StageStore, names: list[str]) -> tuple[Any, list[str]]:
    def tables() -> Iterator[pa.Table]:
        for name in names:
            table = before.read(name, [*stage.needs, "status"])
            yield table.filter(pa.compute.equal(table["status"], Status.KEPT.value)).drop_columns("status")

    state = stage.survey(tables())
    return state, stage.remarks(state) if stage.remarks else []


def _decide(stage: WholeStage, store: StageStore, before: StageStore, shard: InputShard, schema: pa.Schema, state: Any) -> dict[str, int]:
    rows: list[Row] = []
    counts = {status.value: 0 for status in Status}
    for row, digest in before.kept(shard.name):
        answer = stage.decide(state, row)
        dropped = isinstance(answer, Drop)
        status = Status.DROPPED if dropped else Status.KEPT
        columns = {} if answer is None or isinstance(answer, Drop) else dict(answer)
        reason = answer.reason if isinstance(answer, Drop) else None
        rows.append({**row, **columns, "status": status.value, "reason": reason, "_input": digest, "_usage": []})
        counts[status.value] += 1
    store.write(shard.name, shard.digest, rows, schema)
    return counts
