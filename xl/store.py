"""A stage's folder: how rows are committed, so that a kill at any moment loses and doubles none.

    STAGE/shards/NAME.parquet          a sealed shard: all its rows, whatever became of them
    STAGE/log/NAME/ATTEMPT.EXECUTION.*.arrow  finished rows of a shard that is not complete yet
    STAGE/stage.json                   fingerprint and settings; once finished also the time it took

Every shard of every stage stands for the same rows: shard NAME of a stage holds the rows that shard NAME of the stage
before it kept. A file comes into being by one rename (in an object store by one request), so it is there whole or not at all.

Completeness is checked, not assumed. An input shard has a digest over its rows in their order, each committed row remembers the
digest of the row that it was made from (`_input`), and a shard is sealed only when the second give the first again.

An attempt is one driver's life. Workers of a killed driver may live on for seconds and write more segments; they carry
the old attempt's token in their names. A new attempt adopts what it finds when it reads a shard, under its own token, and seals
from its own segments alone: whatever an orphan writes later is not looked at.

An attempt has executions of Ray Data, one after the other. Where a node is lost, Ray reads again what it has lost with it, and wants as
many tables as before; so what an execution has committed can be told from what was there when it began.
"""

import itertools
import json
import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from xl import storage
from xl.lease import Fence, fence_for
from xl.records import FATE_SCHEMA, Row, Status, digest_of, fate_columns, row_digest
from xl.stage import RowStage, Walk

_METADATA_KEY = b"xl"

READS_AT_ONCE, READS_PER_BLOCK = 16, 1_000
"""Footers that are read side by side, and how many are asked for at a time: storage that nodes share answers slower than one can ask."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")

PLACE_SCHEMA = pa.schema([("_shard", pa.string()), ("_row", pa.int64()), ("_start", pa.int32())])
"""Where a row in flight belongs: its shard, its place there, and the stage of the pass that it walks next."""


def side_by_side(function: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[Answer]:
    """The function's answers in the order of the items, for functions that wait for storage."""
    left = iter(items)
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        while block := list(itertools.islice(left, READS_PER_BLOCK)):
            yield from pool.map(function, block)


class Incomplete(Exception):
    """A shard was to be sealed before all of its rows were committed."""


@dataclass(frozen=True)
class InputShard:
    """What a shard must account for: `digest` over its rows in order, and how many there are per language."""

    name: str
    digest: str
    languages: Mapping[str, int]

    @property
    def num_rows(self) -> int:
        return sum(self.languages.values())


@dataclass
class Ledger:
    """What became of the rows that went into a stage, in one language: in = kept + dropped + failed."""

    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def num_in(self) -> int:
        return self.kept + self.dropped.total() + self.failed.total()

    def add(self, status: str, reason: str | None, count: int = 1) -> None:
        """Enter `count` rows. Failures are counted by kind: what stands before the first colon of their message."""
        if status == Status.KEPT:
            self.kept += count
        elif status == Status.DROPPED:
            self.dropped[reason or "unknown"] += count
        else:
            self.failed[(reason or "unknown").split(":")[0]] += count

    def merge(self, other: "Ledger") -> None:
        """Add another ledger to this one."""
        self.kept += other.kept
        self.dropped.update(other.dropped)
        self.failed.update(other.failed)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, for files and for `--json`."""
        return {"in": self.num_in, "kept": self.kept, "dropped": dict(self.dropped), "failed": dict(self.failed)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Ledger":
        """Inverse of `to_json`."""
        return cls(data["kept"], Counter(data["dropped"]), Counter(data["failed"]))


class Finished(NamedTuple):
    """What is committed of an open shard."""

    before: dict[str, Row]
    """What was known when the execution began, by the digest of the row that came in."""
    here: Collection[int]
    """Places in the shard of the rows that the execution has committed itself."""


@dataclass(frozen=True)
class SealedShard:
    """A finished shard, as its file's footer describes it. `by` is the execution that sealed it."""

    name: str
    input: str
    output: str
    ledger: Mapping[str, Ledger]
    usage: Mapping[str, tuple[int, int]]
    by: str = ""

    def as_input(self) -> InputShard:
        """The rows that it kept, as the next stage's input."""
        return InputShard(self.name, self.output, {lang: entry.kept for lang, entry in self.ledger.items() if entry.kept})


def write_atomically(path: Path, write: Any, fence: Fence | None = None) -> None:
    """Call `write(temporary path)`, then give the file its name: it appears whole or not at all, and only as long as the fence stands."""
    if not storage.is_local(path):
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / path.name
            write(whole)
            storage.put(whole, path, fence.check if fence else storage.unchecked)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if fence is not None:
            fence.check()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically, and in a folder that this process holds only as long as it does."""
    text = json.dumps(data, indent=1, ensure_ascii=False, default=str)
    write_atomically(path, lambda p: p.write_text(text, "utf-8"), fence_for(path.parent))


def read_json(path: Path) -> Any:
    """Read JSON, or None where there is no such file."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_table(path: Path, **options: Any) -> pa.Table:
    """A Parquet file as `pyarrow.parquet.read_table` reads it with these options."""
    with storage.opened(path) as file:
        return pq.read_table(file, **options)


class StageStore:
    """The folder of one stage. With a fence, rows are committed only as long as it stands."""

    def __init__(self, root: Path, fence: Fence | None = None) -> None:
        self.fence = fence
        self.root = root.absolute()  # workers on Ray have a current directory of their own
        self.shards_folder = self.root / "shards"
        self.log_folder = self.root / "log"

    def path(self, shard: str) -> Path:
        """The file of a sealed shard."""
        return self.shards_folder / f"{shard}.parquet"

    def sealed(self, shard: str) -> SealedShard | None:
        """A shard's footer, or None while the shard is not sealed."""
        try:
            with storage.opened(self.path(shard)) as file:
                data = json.loads(pq.read_schema(file).metadata[_METADATA_KEY])
        except FileNotFoundError:
            return None
        ledger = {lang: Ledger.from_json(entry) for lang, entry in data["ledger"].items()}
        usage = {ask: (prompt, output) for ask, (prompt, output) in data["usage"].items()}
        return SealedShard(shard, data["input"], data["output"], ledger, usage, data.get("by", ""))

    def all_sealed(self, shards: Iterable[str]) -> list[SealedShard]:
        """The footers of these shards; those that are not sealed are left out."""
        return [sealed for sealed in side_by_side(self.sealed, shards) if sealed is not None]

    def read(self, shard: str, columns: list[str] | None = None) -> pa.Table:
        """All rows of a sealed shard."""
        return read_table(self.path(shard), columns=columns)

    def kept(self, shard: str) -> Iterator[tuple[Row, str]]:
        """The rows that a sealed shard kept, without bookkeeping, each with its digest: what the next stage gets."""
        with storage.opened(self.path(shard)) as file:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    if row["status"] == Status.KEPT:
                        columns = {key: value for key, value in row.items() if key not in FATE_SCHEMA.names}
                        yield columns, row_digest(columns)

    def write(self, shard: str, input_digest: str, rows: list[Row], schema: pa.Schema, by: str = "") -> SealedShard:
        """Seal a shard: `rows` are all of its rows, in order, with their bookkeeping columns; `by` is the execution that does so."""
        ledger: dict[str, Ledger] = {}
        usage: dict[str, tuple[int, int]] = {}
        for row in rows:
            ledger.setdefault(row["lang"], Ledger()).add(row["status"], row["reason"])
            for entry in row["_usage"] or ():
                prompt, output = usage.get(entry["ask"], (0, 0))
                usage[entry["ask"]] = prompt + entry["prompt_tokens"], output + entry["output_tokens"]
        full = fate_columns(schema)
        kept = [row_digest({name: row.get(name) for name in schema.names}) for row in rows if row["status"] == Status.KEPT]
        sealed = SealedShard(shard, input_digest, digest_of(kept), ledger, usage, by)
        metadata = {"input": sealed.input, "output": sealed.output, "usage": usage, "by": by}
        metadata["ledger"] = {lang: entry.to_json() for lang, entry in ledger.items()}
        table = pa.Table.from_pylist(rows, schema=full.with_metadata({_METADATA_KEY: json.dumps(metadata).encode()}))
        write_atomically(self.path(shard), lambda p: pq.write_table(table, p, compression="zstd", row_group_size=1024), self.fence)
        return sealed

    def log(self, shard: str, token: str, rows: list[Row], schema: pa.Schema, name: str | None = None) -> None:
        """Commit finished rows of an open shard as one segment, of an attempt or of an execution (`ATTEMPT.EXECUTION`)."""
        table = pa.Table.from_pylist(rows, schema=schema)

        def write(path: Path) -> None:
            with (
                pa.OSFile(str(path), "wb") as file,
                pa.ipc.new_file(file, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as out,
            ):
                out.write_table(table)

        write_atomically(self.log_folder / shard / f"{token}.{name or uuid.uuid4().hex}.arrow", write, self.fence)

    def logged(self, shard: str, attempt: str) -> Iterator[Row]:
        """Finished rows of an open shard that an attempt committed."""
        return (row for _, rows in self.segments(shard, attempt) for row in rows)

    def segments(self, shard: str, token: str = "*") -> Iterator[tuple[str, list[Row]]]:
        """The segments of an open shard, of one attempt or all: their names, and the rows that each holds."""
        for path in sorted((self.log_folder / shard).glob(f"{token}.*.arrow")):
            try:
                yield path.name, pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all().to_pylist()
            except FileNotFoundError:
                # An orphan of an earlier attempt sealed the shard and cleared its log; the rows will be done once more.
                continue

    def clear_log(self, shard: str) -> None:
        """Forget the segments of a sealed shard."""
        storage.remove(self.log_folder / shard)

    def ledger(self, shards: Iterable[str]) -> dict[str, Ledger]:
        """The stage's ledger by language over these shards."""
        total: dict[str, Ledger] = {}
        for sealed in self.all_sealed(shards):
            for lang, entry in sealed.ledger.items():
                total.setdefault(lang, Ledger()).merge(entry)
        return total

    def usage(self, shards: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Prompt and output tokens per ask over these shards."""
        total: dict[str, tuple[int, int]] = {}
        for sealed in self.all_sealed(shards):
            for ask, (prompt, output) in sealed.usage.items():
                before = total.get(ask, (0, 0))
                total[ask] = before[0] + prompt, before[1] + output
        return total


@dataclass(frozen=True)
class PassStores:
    """The stores of the row stages that rows walk through in one pass. The first one's folder holds the log."""

    stages: tuple[RowStage, ...]
    stores: tuple[StageStore, ...]
    schemas: tuple[pa.Schema, ...]
    """Columns of the rows after each stage."""

    @property
    def record_schema(self) -> pa.Schema:
        """A row in the log: its columns after the last stage, its fate, and where it ended."""
        return fate_columns(pa.schema([*self.schemas[-1], *PLACE_SCHEMA, pa.field("_stage", pa.int32())]))

    def is_done(self, shard: InputShard) -> bool:
        """Whether every stage has sealed this shard from just this input."""
        digest = shard.digest
        for store in self.stores:
            sealed = store.sealed(shard.name)
            if sealed is None or sealed.input != digest:
                return False
            digest = sealed.output
        return True

    def to_do(self, shards: Sequence[InputShard], retry_failed: bool) -> Iterator[InputShard]:
        """Those of the shards that are not done, or in which rows failed that are to be tried again."""

        def is_open(shard: InputShard) -> bool:
            return not self.is_done(shard) or (retry_failed and self.num_failed(shard) > 0)

        return (shard for shard, wanted in zip(shards, side_by_side(is_open, shards), strict=True) if wanted)

    def num_failed(self, shard: InputShard) -> int:
        """Rows of this shard that failed in one of the stages."""
        sealed = [store.sealed(shard.name) for store in self.stores]
        return sum(entry.failed.total() for s in sealed if s is not None for entry in s.ledger.values())

    def record(self, walk: Walk, place: Mapping[str, Any]) -> Row:
        """A finished walk as a row of the log."""
        return {
            **walk.row,
            **place,
            "_stage": walk.stage,
            "status": walk.status.value,
            "reason": walk.reason,
            "_usage": walk.usage,
        }

    def finished(self, shard: InputShard, retry_failed: bool, execution: str) -> Finished:
        """What is committed of a shard's rows, in the log and in sealed files, before this execution (`ATTEMPT.EXECUTION`) and by it.

        A row whose `_stage` is not the pass's last one, though it was kept, has still to walk the stages after it.
        With `retry_failed` a failed row is known only as far as it had got before.
        Segments come in no order, so a failure never hides what another attempt made of the row. Of a shard that this execution has
        sealed all rows are given as its own: what was there before can no more be told from it.
        """
        known: dict[str, Row] = {}
        kept: dict[str, str] = {}
        for index, store in enumerate(self.stores):
            if (sealed := store.sealed(shard.name)) is None:
                break
            if sealed.by == execution:
                return Finished({}, range(shard.num_rows))
            arriving, kept = kept, {}
            for row in store.read(shard.name).to_pylist():
                key = row["_input"] if index == 0 else arriving.get(row["_input"])
                if key is None:
                    continue
                usage = (known[key]["_usage"] if index else []) + (row["_usage"] or [])
                if retry_failed and row["status"] == Status.FAILED:
                    if index:
                        known[key]["_usage"] = usage
                    continue
                known[key] = {**row, "_input": key, "_usage": usage, "_stage": index}
                if row["status"] == Status.KEPT:
                    kept[row_digest(self._columns(row, index))] = key
        here: set[int] = set()
        for name, records in self.stores[0].segments(shard.name):
            if name.startswith(f"{execution}."):
                here.update(record["_row"] for record in records)
                continue
            for record in records:
                key = record["_input"]
                if record["status"] != Status.FAILED or (not retry_failed and _is_news(record, known.get(key))):
                    known[key] = record
        return Finished(known, here)

    def _columns(self, row: Row, index: int) -> Row:
        return {name: row.get(name) for name in self.schemas[index].names}

    def seal(self, shard: InputShard, attempt: str, execution: str = "") -> None:
        """Turn what an attempt has logged of a complete shard into one file per stage, the last stage first.

        Raises:
            Incomplete: rows are missing; the shard stays open.
        """
        records: dict[int, Row] = {}
        for record in self.stores[0].logged(shard.name, attempt):
            # A row that failed and was tried again stands there twice.
            if record["_row"] not in records or records[record["_row"]]["status"] == Status.FAILED:
                records[record["_row"]] = record
        ordered = [records[place] for place in sorted(records)]
        if digest_of([record["_input"] for record in ordered]) != shard.digest:
            raise Incomplete(f"shard {shard.name}: {len(ordered)} of {shard.num_rows} rows are committed")
        layers: list[tuple[StageStore, str, list[Row], pa.Schema]] = []
        digest, inputs = shard.digest, [record["_input"] for record in ordered]
        for index, (stage, store, schema) in enumerate(zip(self.stages, self.stores, self.schemas, strict=True)):
            rows = [self._layer(record, index, stage, key) for record, key in zip(ordered, inputs, strict=True)]
            layers.append((store, digest, rows, schema))
            survivors = [
                (record, self._columns(row, index)) for record, row in zip(ordered, rows, strict=True) if row["status"] == Status.KEPT
            ]
            ordered = [record for record, _ in survivors]
            inputs = [row_digest(columns) for _, columns in survivors]
            digest = digest_of(inputs)
        for store, input_digest, rows, schema in reversed(layers):
            store.write(shard.name, input_digest, rows, schema, by=execution)
        self.stores[0].clear_log(shard.name)

    def _layer(self, record: Row, index: int, stage: RowStage, input_digest: str) -> Row:
        ended = record["_stage"] == index
        return {
            **self._columns(record, index),
            "status": record["status"] if ended else Status.KEPT.value,
            "reason": record["reason"] if ended else None,
            "_input": input_digest,
            "_usage": [entry for entry in record["_usage"] if entry["stage"] == stage.name],
        }


def _is_news(failure: Row, known: Row | None) -> bool:
    """Whether a logged failure tells more of its row than what is known: nothing, or that stages before kept it."""
    return known is None or (known["status"] == Status.KEPT and known["_stage"] < failure["_stage"])
