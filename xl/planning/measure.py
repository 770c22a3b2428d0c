"""What one shard costs in memory, on disk and in seconds, measured on this machine without Ray."""

import json
import pickle
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from xl.engines.fleet import MIN_PARCEL_ROWS
from xl.execute import CPU_PARCEL_ROWS
from xl.pages.duplicates import drop_duplicates
from xl.pages.manifest import SHARD_ROWS, _bucket_of, make_manifest
from xl.pages.read import Pages, list_files, read_file
from xl.pairs.mix import choose_pairs
from xl.records import PAGE_SCHEMA, Row, Status, digest_of, row_digest, row_id
from xl.stage import RowStage, Walk, schema_after
from xl.store import InputShard, PassStores, StageStore, read_json
from xl.worker import FromManifest, Plan, pack, read_pending, unpack

NUM_PAGES, NUM_SHARDS, NUM_SURVEYED = 20_000, 20_000, 100_000
TEXT = "Der Fluss entspringt im Gebirge und mündet nach langer Reise ins Meer, wo seit alter Zeit Menschen wohnen. " * 20
"""About 2,000 characters, as a page has."""


@dataclass(frozen=True)
class Costs:
    """Costs of one unit each: a shard, a page, a parcel."""

    shard_bytes: float
    json_bytes: float
    json_seconds: float
    manifest_disk_bytes: float
    survey_bytes: float
    index_seconds: float
    repeated_seconds: float
    bucket_seconds: float
    """Of a key, for each time that all keys are read."""
    read_seconds: float
    commit_seconds: float
    seal_seconds: float
    footer_seconds: float
    missing_seconds: float
    column_seconds: float
    """Of a row, where three short columns of it are read."""
    survey_seconds: float
    chosen_bytes: float
    """Of a row, in the survey of `choose_pairs`."""
    state_bytes: float
    """Of a row beyond the quota, in what that survey sends to every task that decides."""

    @property
    def timings(self) -> dict[str, float]:
        """Those that a simulation takes."""
        return {
            "index_seconds_per_row": self.index_seconds,
            "repeated_seconds_per_row": self.repeated_seconds,
            "bucket_seconds_per_row": self.bucket_seconds,
            "read_seconds_per_row": self.read_seconds,
            "commit_seconds_per_parcel": self.commit_seconds,
            "seal_seconds_per_row": self.seal_seconds,
            "survey_ratio": (self.survey_seconds + self.column_seconds) / (self.read_seconds + self.seal_seconds),
            "footer_seconds": self.footer_seconds,
            "missing_seconds": self.missing_seconds,
        }


def measure(folder: Path) -> Costs:
    """All of them, in about a minute."""
    return Costs(**_memory(), **_manifest(folder / "input"), **_store(folder / "store"), **_survey())


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, which do not grow when others are at work here, and the result."""
    started = time.process_time()
    result = action()
    return time.process_time() - started, result


def _held(make: Callable[[], Any]) -> float:
    """Bytes that what a function returns keeps."""
    tracemalloc.start()
    try:
        kept = make()
        held = tracemalloc.get_traced_memory()[0]
        del kept
    finally:
        tracemalloc.stop()
    return float(held)


def _peak(action: Callable[[], Any]) -> float:
    """Most bytes that a function holds."""
    tracemalloc.start()
    try:
        action()
        return float(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def _shards(count: int) -> list[InputShard]:
    """Shards with names and digests of their own, most of them of one language, as files are."""
    names = [row_id("scale", str(number), 0) for number in range(2 * count)]
    return [InputShard(names[2 * n], names[2 * n + 1], {"de": SHARD_ROWS}) for n in range(count)]


def _memory() -> dict[str, float]:
    return {"shard_bytes": _held(lambda: [InputShard(**json.loads(text)) for text in _texts(NUM_SHARDS)]) / NUM_SHARDS}


def _texts(count: int) -> list[str]:
    return [json.dumps(asdict(shard)) for shard in _shards(count)]


def _manifest(folder: Path) -> dict[str, float]:
    """A manifest over a file of pages."""
    folder.mkdir(parents=True)
    with open(folder / "de.jsonl", "w", encoding="utf-8") as file:
        for number in range(NUM_PAGES):
            file.write(json.dumps({"url": f"https://a.example/{number}", "text": f"{number} {TEXT}"}) + "\n")
    pages = Pages.model_validate({"from": str(folder)})
    files = list_files(pages)
    seconds: dict[str, float] = {}

    def parallel(function: Callable[..., Any], arguments: Any) -> Any:
        took, results = _timed(lambda: [function(*each) for each in arguments])
        seconds[function.__name__] = took
        return iter(results)

    manifest = make_manifest(folder / "manifest", files, pages, ("de",), None, parallel)
    reading, _ = _timed(lambda: sum(1 for _ in read_file(files[0], pages)))
    stage = RowStage("pages", (), pa.schema([]))
    stores = PassStores((stage,), (StageStore(folder / "stage"),), (PAGE_SCHEMA,))
    plan, source = Plan(stores, "attempt", 0, False), FromManifest(manifest)
    rows, _ = _timed(lambda: sum(len(pack(table)) for table in read_pending(plan, source, manifest.shards, CPU_PARCEL_ROWS)))
    bucket, _ = _timed(lambda: _bucket_of(folder / "manifest", files[0], 0, 2))
    disk = sum(path.stat().st_size for name in ("keys", "rows") for path in (folder / "manifest" / name).iterdir())
    text = json.dumps([[shard] for shard in map(json.loads, _texts(NUM_SHARDS))], indent=1)
    (folder / "many.json").write_text(text)
    loading, _ = _timed(lambda: [InputShard(**shard) for entry in read_json(folder / "many.json") for shard in entry])
    return {
        "json_bytes": len(text) / NUM_SHARDS,
        "json_seconds": loading / NUM_SHARDS,
        "manifest_disk_bytes": disk / NUM_PAGES,
        "index_seconds": max(0.0, seconds["_index_file"] - reading + seconds["_plan_file"]) / NUM_PAGES,
        "repeated_seconds": seconds["_find_repeated"] / NUM_PAGES,
        "bucket_seconds": bucket / NUM_PAGES,
        "read_seconds": rows / NUM_PAGES,
    }


def _store(folder: Path) -> dict[str, float]:
    """One shard through a stage: its parcels committed, sealed, and looked at again."""
    stage = RowStage("pairs", (), pa.schema([("instruction", pa.string())]))
    schema = schema_after(stage, PAGE_SCHEMA)
    stores = PassStores((stage,), (StageStore(folder),), (schema,))
    pages: list[Row] = [
        {"id": row_id("scale", str(n), 0), "lang": "de", "url": None, "source": "web", "text": f"{n} {TEXT}", "error": None}
        for n in range(SHARD_ROWS)
    ]
    digests = [row_digest(page) for page in pages]
    shard = InputShard(pages[0]["id"], digest_of(digests), {"de": SHARD_ROWS})
    usage = [{"stage": "pairs", "ask": "reverse", "prompt_tokens": 900, "output_tokens": 20}]

    parcel = pack(pa.Table.from_pylist(pages[:MIN_PARCEL_ROWS], schema=schema))

    def commit() -> None:
        """What a worker does with a parcel, as it comes and when it is walked."""
        for start in range(0, SHARD_ROWS, MIN_PARCEL_ROWS):
            unpack(parcel).to_pylist()
            rows = range(start, min(start + MIN_PARCEL_ROWS, SHARD_ROWS))
            walks = [(Walk({**pages[n], "instruction": "Tell me of rivers."}, 0, Status.KEPT, None, usage), n) for n in rows]
            records = [stores.record(walk, {"_shard": shard.name, "_row": n, "_input": digests[n]}) for walk, n in walks]
            stores.stores[0].log(shard.name, "attempt", records, stores.record_schema)

    started = time.perf_counter()
    commit()
    committing = time.perf_counter() - started  # it waits for the disk
    sealing, _ = _timed(lambda: stores.seal(shard, "attempt"))
    times = 200
    footers, _ = _timed(lambda: [stores.stores[0].sealed(shard.name) for _ in range(times)])
    missing, _ = _timed(lambda: [stores.stores[0].sealed("no such shard") for _ in range(times)])
    columns, _ = _timed(lambda: [stores.stores[0].read(shard.name, ["id", "lang", "status"]) for _ in range(times)])
    return {
        "column_seconds": columns / times / SHARD_ROWS,
        "commit_seconds": committing / -(-SHARD_ROWS // MIN_PARCEL_ROWS),
        "seal_seconds": sealing / SHARD_ROWS,
        "footer_seconds": footers / times,
        "missing_seconds": missing / times,
    }


def _survey() -> dict[str, float]:
    """What the one task that sees all rows holds and takes for each. (Deciding about a row is reading and sealing it.)"""
    count = NUM_SURVEYED
    unique, chosen = drop_duplicates(), choose_pairs(1, 0.1, 0)
    ids = [row_id("scale", str(number), 0) for number in range(count)]
    hashes = pa.table({"id": ids, "text_hash": [row_id("hash", str(number), 0) for number in range(count)]}).to_batches(SHARD_ROWS)
    instructions = [f"Describe in a few sentences how the {number}th river came to be named." for number in range(count)]
    columns = {"id": ids, "lang": ["de"] * count, "instruction": instructions, "topic": ["describe river"] * count}
    pairs = pa.table(columns).to_batches(SHARD_ROWS)
    surveying, _ = _timed(lambda: unique.survey(iter(hashes)))
    return {
        "survey_bytes": _peak(lambda: unique.survey(iter(hashes))) / count,
        "survey_seconds": surveying / count,
        "chosen_bytes": _peak(lambda: chosen.survey(iter(pairs))) / count,
        "state_bytes": len(pickle.dumps(chosen.survey(iter(pairs)))) / count,
    }
