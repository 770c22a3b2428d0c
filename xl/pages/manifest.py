"""The manifest: which pages a run takes, their ids, and the shards they are worked on in.

Ids must be the same however the input is cut into files, so they need one look at all records before the first is
worked on. The look is cheap: files are read side by side, each leaves 16 bytes a record on disk, and nothing but the list of shards
comes back. It also finds damaged files and wrong columns before an engine starts, and makes progress and disk need known.

    MANIFEST/keys/FILE.parquet    record keys and languages of one input file
    MANIFEST/repeated/            keys that several records have, while ids are given
    MANIFEST/rows/FILE.parquet    row, id and shard of each record that the run takes
    MANIFEST/manifest.json        files, shards, counts, and the settings they were made with
"""

import dataclasses
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xl import storage
from xl.errors import UserError
from xl.pages.read import Pages, SourceFile, read_file
from xl.records import ID_BYTES, Row, digest_of, record_key, row_id
from xl.store import InputShard, read_json, read_table, write_atomically, write_json

SHARD_ROWS = 2_000
"""Pages in a shard. What a kill costs does not depend on it; it sets the size of the output files."""

_KEYS_SCHEMA = pa.schema([("key", pa.binary(ID_BYTES)), ("lang", pa.dictionary(pa.int16(), pa.string()))])
_ROWS_SCHEMA = pa.schema([("row", pa.int64()), ("id", pa.binary(ID_BYTES)), ("shard", pa.int32())])
_REPEATED_SCHEMA = pa.schema([("key", pa.binary(ID_BYTES)), ("file", pa.int32()), ("earlier", pa.int64())])
_BUCKET_ROWS = 20_000_000
"""Keys compared at once when looking for equal ones: 20 million are about 1 GB of memory in one task."""

Parallel = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterator[Any]]
"""`parallel(function, arguments)` calls the function for each tuple of arguments, side by side, and yields results in order."""


def serial(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """The simplest `Parallel`: one after the other, here."""
    return (function(*args) for args in arguments)


@dataclass(frozen=True)
class FileShards:
    """An input file with the shards that its records make up; read in one go, since most formats cannot seek."""

    file: SourceFile
    shards: tuple[InputShard, ...]


@dataclass(frozen=True)
class Manifest:
    """A run's input, as planned."""

    root: Path
    pages: Pages
    files: tuple[FileShards, ...]
    num_read: Mapping[str, int]
    """Records in the input, by language; the run takes those in its languages, up to its limit."""

    @property
    def shards(self) -> list[InputShard]:
        return [shard for file in self.files for shard in file.shards]

    @property
    def num_bytes(self) -> int:
        return sum(entry.file.size for entry in self.files)

    def rows(self, entry: FileShards) -> Iterator[tuple[str, int, Row]]:
        """The file's pages that the run takes: name of the shard, place in it, and the row."""
        plan = read_table(self.root / "rows" / f"{entry.file.name}.parquet")
        ids = plan.column("id").combine_chunks()
        places = zip(plan.column("row").to_pylist(), plan.column("shard").to_pylist(), strict=True)
        seen: Counter[int] = Counter()
        records = enumerate(read_file(entry.file, self.pages))
        for position, (number, shard) in enumerate(places):
            index, record = next(records, (-1, None))
            while record is not None and index < number:
                index, record = next(records, (-1, None))
            if record is None:
                raise UserError(f"{entry.file.path}: has become shorter while the run was reading it; run the same command again")
            row = {"id": ids[position].as_py().hex(), "lang": record.lang, "url": record.url, "source": self.pages.source}
            yield entry.shards[shard].name, seen[shard], {**row, "text": record.text, "error": record.error}
            seen[shard] += 1


def make_manifest(
    root: Path, files: list[SourceFile], pages: Pages, languages: tuple[str, ...], limit: int | None, parallel: Parallel = serial
) -> Manifest:
    """Plan the input, or take the plan that is there if nothing has changed since.

    `limit` is the most pages to take per language, counted in the order of the files.

    Raises:
        UserError: a file is damaged, lacks a column, or no page is in the run's languages.
    """
    root = root.absolute()  # workers on Ray have a current directory of their own
    settings = {
        "pages": pages.model_dump(mode="json", by_alias=True),
        "languages": sorted(languages),
        "limit": limit,
        "files": [dataclasses.asdict(file) for file in files],
        "shard_rows": SHARD_ROWS,
    }
    if (stored := read_json(root / "manifest.json")) and stored["settings"] == settings:
        return _load(root, pages, stored)
    counts = list(parallel(_index_file, [(root, file, pages) for file in files]))
    num_read = sum((Counter(c) for c in counts), Counter[str]())
    num_buckets = 1 + num_read.total() // _BUCKET_ROWS
    storage.remove(root / "repeated")
    repeated = root / "repeated" / uuid.uuid4().hex  # tasks of a killed driver may live on and write into theirs
    list(parallel(_find_repeated, [(root, files, num_buckets, repeated)]))
    plans = enumerate(zip(files, _takes(counts, languages, limit), strict=True))
    planned = parallel(_plan_file, [(root, file, pages, take, number, repeated) for number, (file, take) in plans])
    entries = tuple(FileShards(file, tuple(shards)) for file, shards in zip(files, planned, strict=True))
    storage.remove(repeated.parent)
    if not any(entry.shards for entry in entries):
        have = ", ".join(f"{lang} ({count:,})" for lang, count in num_read.most_common(8)) or "nothing"
        wanted = ", ".join(languages)
        raise UserError(
            f"pages.from: no page is in the languages {wanted}; found: {have}. Set `languages`, or `pages.lang` to the language column"
        )
    write_json(
        root / "manifest.json",
        {
            "settings": settings,
            "num_read": dict(num_read),
            "shards": [[dataclasses.asdict(shard) for shard in entry.shards] for entry in entries],
        },
    )
    return Manifest(root, pages, entries, num_read)


def _load(root: Path, pages: Pages, stored: Mapping[str, Any]) -> Manifest:
    files = [SourceFile(**file) for file in stored["settings"]["files"]]
    shards = [tuple(InputShard(**shard) for shard in entry) for entry in stored["shards"]]
    return Manifest(root, pages, tuple(FileShards(f, s) for f, s in zip(files, shards, strict=True)), stored["num_read"])


def _index_file(root: Path, file: SourceFile, pages: Pages) -> dict[str, int]:
    """Leave the keys and languages of a file's records on disk; count the languages."""
    path = root / "keys" / f"{file.name}.parquet"
    if not path.exists():
        keys: list[bytes] = []
        langs: list[str] = []
        for record in read_file(file, pages):
            keys.append(bytes.fromhex(record_key(record.key, record.content or "")))
            langs.append(record.lang)
        lang_column = pa.array(langs, pa.string()).dictionary_encode().cast(_KEYS_SCHEMA.field("lang").type)
        table = pa.table([pa.array(keys, pa.binary(ID_BYTES)), lang_column], schema=_KEYS_SCHEMA)
        write_atomically(path, lambda p: pq.write_table(table, p, compression="zstd"))
    counted = read_table(path, columns=["lang"]).column("lang").value_counts()
    return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}


def _find_repeated(root: Path, files: list[SourceFile], num_buckets: int, folder: Path) -> None:
    """Leave in a folder the keys that more than one record has.

    Keys are compared bucket by bucket, so that memory stays bounded however many there are.
    """
    for bucket in range(num_buckets):
        parts = [_bucket_of(root, file, bucket, num_buckets) for file in files]
        write_atomically(folder / f"{bucket}.parquet", partial(_write_repeated, parts))


def _write_repeated(parts: list[np.ndarray[Any, Any]], path: Path) -> None:
    """Write, file by file, those of its keys that several records have, and how many records of earlier files have each."""
    unique, counts = np.unique(np.concatenate(parts), return_counts=True)
    several = set(unique[counts > 1].tolist())
    seen: Counter[bytes] = Counter()
    with pq.ParquetWriter(path, _REPEATED_SCHEMA, compression="zstd") as out:
        for number, part in enumerate(parts):
            if found := Counter(key for key in part.tolist() if key in several):
                columns = [list(found), [number] * len(found), [seen[key] for key in found]]
                out.write_table(pa.table(columns, schema=_REPEATED_SCHEMA))
                seen.update(found)


def _repeated_in(number: int, folder: Path) -> dict[bytes, int]:
    """Of the file of that number: the keys that several records have, and how many records of earlier files have each."""
    columns, mine = ["key", "earlier"], [("file", "==", number)]
    found = pa.concat_tables(read_table(folder / name, columns=columns, filters=mine) for name in storage.names_in(folder))
    return dict(zip(found["key"].to_pylist(), found["earlier"].to_pylist(), strict=True))


def _bucket_of(root: Path, file: SourceFile, bucket: int, num_buckets: int) -> np.ndarray[Any, Any]:
    column = read_table(root / "keys" / f"{file.name}.parquet", columns=["key"]).column("key").combine_chunks()
    raw, start = column.buffers()[1] or b"", column.offset * ID_BYTES
    keys: np.ndarray[Any, Any] = np.frombuffer(raw, dtype=f"V{ID_BYTES}", count=len(column), offset=start)
    if num_buckets == 1:
        return keys
    first_bytes = keys.view(np.uint8).reshape(-1, ID_BYTES)[:, :2].astype(np.uint32)
    return np.asarray(keys[(first_bytes[:, 0] * 256 + first_bytes[:, 1]) % num_buckets == bucket])


def _takes(counts: list[dict[str, int]], languages: tuple[str, ...], limit: int | None) -> list[dict[str, int]]:
    """How many records of each language to take from the start of each file."""
    left: dict[str, int | None] = dict.fromkeys(languages, limit)
    takes: list[dict[str, int]] = []
    for count in counts:
        take: dict[str, int] = {}
        for lang in sorted(set(count) & set(left)):
            room = left[lang]
            take[lang] = count[lang] if room is None else min(room, count[lang])
            left[lang] = None if room is None else room - take[lang]
        takes.append(take)
    return takes


def _plan_file(root: Path, file: SourceFile, pages: Pages, take: dict[str, int], number: int, repeated: Path) -> list[InputShard]:
    """Choose the file's records, give them their ids, and cut them into shards."""
    table = read_table(root / "keys" / f"{file.name}.parquet")
    keys, langs = table.column("key").to_pylist(), table.column("lang").to_pylist()
    earlier = _repeated_in(number, repeated)
    taken: Counter[str] = Counter()
    rows: list[int] = []
    ids: list[str] = []
    for row, (key, lang) in enumerate(zip(keys, langs, strict=True)):
        occurrence = earlier.get(key, 0)
        if key in earlier:
            earlier[key] += 1
        if taken[lang] < take.get(lang, 0):
            taken[lang] += 1
            rows.append(row)
            ids.append(row_id(pages.source, key.hex(), occurrence))
    shards = [place // SHARD_ROWS for place in range(len(rows))]
    plan = pa.table([rows, pa.array([bytes.fromhex(i) for i in ids], pa.binary(ID_BYTES)), shards], schema=_ROWS_SCHEMA)
    write_atomically(root / "rows" / f"{file.name}.parquet", lambda p: pq.write_table(plan, p, compression="zstd"))
    starts = range(0, len(rows), SHARD_ROWS)
    return [_shard(ids[s : s + SHARD_ROWS], [langs[row] for row in rows[s : s + SHARD_ROWS]]) for s in starts]


def _shard(ids: list[str], langs: list[str]) -> InputShard:
    """A shard is named for its first row: the name outlives a move of the file and rows that are appended to it."""
    return InputShard(ids[0], digest_of(ids), dict(Counter(langs)))


def estimated_bytes(manifest: Manifest) -> int:
    """Rough disk need of a run: its rows are written once per stage, compressed about as well as the input."""
    taken = sum(shard.num_rows for shard in manifest.shards)
    share = taken / max(1, sum(manifest.num_read.values()))
    return int(manifest.num_bytes * share * 5) + 300 * taken
