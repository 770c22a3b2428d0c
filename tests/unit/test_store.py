"""A stage's rows survive any interruption: none lost, none doubled, none done twice once committed."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from xl.ask import Context, Drop, RequestFailed
from xl.records import Row, Status, digest_of, row_id
from xl.stage import RowStage
from xl.store import Incomplete, InputShard, PassStores, StageStore
from xl.worker import FromStage, Plan, RowWorker, pack, read_pending

SCHEMA = pa.schema([("id", pa.string()), ("lang", pa.string()), ("text", pa.string())])


class Memory:
    """A source of rows in memory."""

    def __init__(self, texts: list[str]) -> None:
        self.pages = [{"id": row_id("test", text, 0), "lang": "de" if i % 3 else "th", "text": text} for i, text in enumerate(texts)]

    @property
    def shard(self) -> InputShard:
        languages = {lang: sum(page["lang"] == lang for page in self.pages) for lang in ("de", "th")}
        return InputShard("s0", digest_of([page["id"] for page in self.pages]), languages)

    def rows(self, shards: list[InputShard]) -> Iterator[tuple[str, int, str, Row]]:
        for place, page in enumerate(self.pages):
            yield "s0", place, page["id"], dict(page)


class Steps:
    """Two stages on one engine; counts every row that it works on."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.second: list[str] = []
        self.broken = True

    def stages(self) -> tuple[RowStage, ...]:
        def measure(row: Row) -> dict[str, int] | Drop:
            self.first.append(row["id"])
            return Drop("short") if len(row["text"]) < 2 else {"size": len(row["text"])}

        async def judge(row: Row, context: Context) -> dict[str, bool] | Drop | None:
            self.second.append(row["id"])
            context.count("judge", 3, 1)
            if row["size"] % 5 == 0 and self.broken:
                raise RequestFailed("HTTP 500: no luck")
            return Drop("odd") if row["size"] % 2 else {"good": True}

        return (
            RowStage("measured", (measure,), pa.schema([("size", pa.int64())]), model="m"),
            RowStage("judged", (judge,), pa.schema([("good", pa.bool_())]), model="m"),
        )


def plan_in(folder: Path, steps: Steps, attempt: str, retry_failed: bool = False) -> Plan:
    stages = steps.stages()
    measured = pa.schema([*SCHEMA, ("size", pa.int64())])
    schemas = (measured, pa.schema([*measured, ("good", pa.bool_())]))
    stores = PassStores(stages, tuple(StageStore(folder / stage.name) for stage in stages), schemas)
    return Plan(stores, attempt, seed=1, retry_failed=retry_failed)


def work(plan: Plan, source: Memory, rows_per_task: int = 4, stop_after: int | None = None) -> int:
    """One driver's life: do tables of rows until the end, or die after so many."""
    worker = RowWorker(plan)
    done = 0

    async def go() -> None:
        nonlocal done
        for number, table in enumerate(read_pending(plan, source, [source.shard], rows_per_task)):
            if number == stop_after:
                return
            async for acks in worker(pa.table({"parcel": [pack(table)]})):
                done += sum(acks["done"].to_pylist())

    asyncio.run(go())
    return done


def texts(count: int) -> list[str]:
    return ["x" * (1 + i % 11) + str(i) for i in range(count)] + ["y"]


def outcome(plan: Plan) -> list[tuple[str, str, str | None]]:
    rows = [row for store in plan.stores.stores for row in store.read("s0").to_pylist()]
    return [(row["id"], row["status"], row["reason"]) for row in rows]


def test_interrupted_anywhere_the_same_rows_come_out_and_no_committed_row_is_done_again(tmp_path: Path) -> None:
    source, draw = Memory(texts(60)), random.Random(3)
    whole = plan_in(tmp_path / "whole", steps := Steps(), "a")
    work(whole, source)
    whole.stores.seal(source.shard, "a")
    assert len(steps.first) == 61
    for trial in range(20):
        folder, steps = tmp_path / str(trial), Steps()
        for attempt in range(1000):
            plan = plan_in(folder, steps, f"attempt{attempt}")
            work(plan, source, stop_after=draw.randrange(8))
            try:
                plan.stores.seal(source.shard, plan.attempt)
                break
            except Incomplete:
                continue
        assert outcome(plan) == outcome(whole)
        assert sorted(steps.first) == sorted(page["id"] for page in source.pages), "a committed row was done again"


def test_what_is_read_again_within_an_execution_is_as_many_tables_without_the_rows_that_are_done(tmp_path: Path) -> None:
    """Ray reads again what a node had that is lost, and gives up where it gets another number of tables than it had."""
    source, draw = Memory(texts(60)), random.Random(5)
    for trial in range(20):
        folder = tmp_path / str(trial)
        work(plan_in(folder, steps := Steps(), "dead"), source, stop_after=draw.randrange(6))
        num_before = len(steps.first)
        plan = plan_in(folder, steps, "now")
        first = [len(table) for table in read_pending(plan, source, [source.shard], 4)]
        num_done = work(plan, source, stop_after=draw.randrange(len(first)))
        again = [table.column("id").to_pylist() for table in read_pending(plan, source, [source.shard], 4)]
        assert len(again) == len(first) and sum(len(rows) - rows.count(None) for rows in again) == 61 - num_before - num_done
        work(plan, source)
        plan.stores.seal(source.shard, plan.attempt, plan.execution)
        assert sorted(steps.first) == sorted(page["id"] for page in source.pages), "a committed row was done again"
        if num_before == 0:
            sealed = [len(table) for table in read_pending(plan, source, [source.shard], 4)]
            assert sealed == [0] * len(first)


def test_segments_that_an_orphan_writes_after_the_new_attempt_has_read_the_shard_are_ignored(tmp_path: Path) -> None:
    source, steps = Memory(texts(20)), Steps()
    orphan, current = plan_in(tmp_path, steps, "orphan"), plan_in(tmp_path, steps, "current")
    pending = list(read_pending(current, source, [source.shard], 4))
    work(orphan, source)
    worker = RowWorker(current)

    async def go() -> None:
        for table in pending:
            async for _ in worker(pa.table({"parcel": [pack(table)]})):
                pass

    asyncio.run(go())
    current.stores.seal(source.shard, "current")
    assert len({row[0] for row in outcome(current)[:21]}) == 21
    assert current.stores.is_done(source.shard)


def test_a_shard_that_misses_a_row_is_not_sealed(tmp_path: Path) -> None:
    source = Memory(texts(20))
    plan = plan_in(tmp_path, Steps(), "a")
    work(plan, source, stop_after=3)
    with pytest.raises(Incomplete, match="12 of 21"):
        plan.stores.seal(source.shard, "a")
    assert not plan.stores.is_done(source.shard)


def test_retry_failed_redoes_exactly_the_failed_rows_and_only_the_step_that_failed(tmp_path: Path) -> None:
    source, steps = Memory(texts(60)), Steps()
    plan = plan_in(tmp_path, steps, "a")
    work(plan, source)
    plan.stores.seal(source.shard, "a")
    failed = {row[0] for row in outcome(plan) if row[1] == Status.FAILED}
    assert failed
    steps.first.clear(), steps.second.clear()
    steps.broken = False
    again = plan_in(tmp_path, steps, "b", retry_failed=True)
    work(again, source)
    again.stores.seal(source.shard, "b")
    assert set(steps.second) == failed and len(steps.second) == len(failed)
    assert not [row for row in outcome(again) if row[1] == Status.FAILED]
    assert again.stores.stores[1].usage(["s0"])["judge"][0] == 3 * (60 + len(failed)), "tokens of both tries count"


def test_what_a_retry_made_of_a_row_stands_whichever_segment_is_read_last(tmp_path: Path) -> None:
    source, steps = Memory(texts(60)), Steps()
    work(plan_in(tmp_path, steps, "f3"), source)
    steps.broken = False
    work(plan_in(tmp_path, steps, "0a", retry_failed=True), source)
    steps.second.clear()
    after = plan_in(tmp_path, steps, "77")
    work(after, source)
    after.stores.seal(source.shard, "77")
    assert not steps.second and not [row for row in outcome(after) if row[1] == Status.FAILED]


def test_rows_added_to_a_sealed_shard_are_the_only_ones_done(tmp_path: Path) -> None:
    steps, before, after = Steps(), Memory(texts(30)), Memory([*texts(30), "later1", "later22"])
    plan = plan_in(tmp_path, steps, "a")
    work(plan, before)
    plan.stores.seal(before.shard, "a")
    steps.first.clear()
    assert not plan.stores.is_done(after.shard)
    again = plan_in(tmp_path, steps, "b")
    work(again, after)
    again.stores.seal(after.shard, "b")
    assert set(steps.first) == {row_id("test", text, 0) for text in ("later1", "later22")}


def test_rows_go_to_the_runs_folder_wherever_the_workers_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source, plan = Memory(texts(9)), plan_in(Path("run"), Steps(), "a")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    work(plan, source)
    plan.stores.seal(source.shard, "a")
    assert (tmp_path / "run" / "judged" / "shards" / "s0.parquet").exists() and not list(Path().iterdir())


def test_the_ledger_counts_every_row_per_language_and_reason(tmp_path: Path) -> None:
    source = Memory(texts(60))
    plan = plan_in(tmp_path, Steps(), "a")
    work(plan, source)
    plan.stores.seal(source.shard, "a")
    measured, judged = (store.ledger(["s0"]) for store in plan.stores.stores)
    assert sum(entry.num_in for entry in measured.values()) == 61
    assert sum(entry.dropped["short"] for entry in measured.values()) == 1
    assert {lang: entry.kept for lang, entry in measured.items()} == {lang: entry.num_in for lang, entry in judged.items()}
    assert sum(entry.failed["HTTP 500"] for entry in judged.values()) > 0


def test_the_next_stage_accounts_for_just_the_rows_that_were_kept(tmp_path: Path) -> None:
    source = Memory(texts(60))
    plan = plan_in(tmp_path, Steps(), "a")
    work(plan, source)
    plan.stores.seal(source.shard, "a")
    store = plan.stores.stores[1]
    sealed = store.sealed("s0")
    assert sealed is not None
    following = sealed.as_input()
    rows = list(FromStage(store).rows([following]))
    assert len(rows) == following.num_rows > 0
    assert digest_of([digest for _, _, digest, _ in rows]) == following.digest
