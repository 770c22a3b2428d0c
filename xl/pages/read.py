"""Read web pages from Parquet and JSON Lines, wherever they are.

A record that cannot be read (a broken line, text that is not UTF-8) becomes a page with `error` set: a row to drop
with a reason, never a crash. Files that cannot be read at all are the user's to mend.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, field_validator

from xl.errors import UserError
from xl.files import opened
from xl.pages.language import canonical_language

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".json.gz", ".json.zst")

UNKNOWN_LANGUAGE = "und"
"""ISO 639-2's code for "undetermined"."""


class Pages(BaseModel):
    """Where pages come from, and which columns hold what."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    from_: tuple[str, ...] = Field(alias="from")
    """Files, folders or globs; local, or on any object store that fsspec knows (s3://, gs://, az://, hf://)."""
    text: str = "text"
    url: str | None = "url"
    """Column that names a record; null where there is none."""
    id: str | None = None
    """Column that names a record better than its URL."""
    lang: str | None = None
    """Column that holds the language; by default the folder or file named for a language (`de`, `deu_Latn`) says it."""
    source: str = "web"
    """Name of the source: part of every row's id."""

    @field_validator("from_", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


@dataclass(frozen=True)
class SourceFile:
    """One input file. `stamp` changes when its content does."""

    path: str
    size: int
    stamp: str

    @property
    def name(self) -> str:
        """A short name for the file's entry in the manifest."""
        return hashlib.blake2b(f"{self.path}\0{self.size}\0{self.stamp}".encode(), digest_size=8).hexdigest()


class Record(NamedTuple):
    """One page as the file has it. `key` names it; `content` is what its text says, or the raw bytes' digest when it is broken."""

    key: str
    lang: str
    url: str | None
    text: str | None
    error: str | None
    content: str | None


def list_files(pages: Pages) -> list[SourceFile]:
    """The input files, sorted by path.

    Raises:
        UserError: an entry of `from` matches nothing, or nothing that can be read.
    """
    found: dict[str, SourceFile] = {}
    for pattern in pages.from_:
        for file in _expand(pattern):
            found[file.path] = file
    return [found[path] for path in sorted(found)]


def _expand(pattern: str) -> list[SourceFile]:
    filesystem, path = _filesystem(pattern, "pages.from: ")
    try:
        if any(mark in path for mark in "*?["):
            entries = filesystem.glob(path, detail=True)
        elif filesystem.isdir(path):
            entries = filesystem.find(path, detail=True)
        else:
            entries = {path: filesystem.info(path)}
    except FileNotFoundError:
        raise UserError(f"pages.from: no file or folder {pattern!r}") from None
    except PermissionError as error:
        raise UserError(f"pages.from: {pattern!r} may not be read: {error}") from None
    files = [
        _described(filesystem.unstrip_protocol(name), info)
        for name, info in entries.items()
        if info["type"] == "file" and name.endswith(SUFFIXES)
    ]
    if not files:
        what = f"matches {len(entries)} entries, but none" if entries else "matches nothing"
        raise UserError(f"pages.from: {pattern!r} {what} that ends in {', '.join(SUFFIXES)}")
    return files


def source_file(path: str) -> SourceFile:
    """One file of any kind. Raises UserError when it is missing."""
    filesystem, local = _filesystem(path)
    try:
        return _described(path, filesystem.info(local))
    except FileNotFoundError:
        raise UserError(f"no file {path!r}") from None


def _filesystem(path: str, key: str = "") -> tuple[Any, str]:
    """The file system that a path is on, and the path there. Raises UserError, which begins with `key`."""
    try:
        filesystem, local = fsspec.core.url_to_fs(path)
    except ImportError as error:
        library = getattr(error.__cause__, "name", None)
        raise UserError(f"{key}{path!r}: {error}" + (f": pip install {library}" if library else "")) from None
    except ValueError as error:  # fsspec's word for a protocol that it does not know
        raise UserError(f"{key}{path!r}: {error}") from None
    return filesystem, local


def _described(path: str, info: Mapping[str, Any]) -> SourceFile:
    return SourceFile(path, int(info["size"] or 0), str(info.get("mtime") or info.get("ETag") or info.get("LastModified")))


def language_of_path(path: str) -> str | None:
    """The language that a file or the folder it is in is named for: `…/de/part-0.parquet`, `ga.jsonl`, `…/lang=sw/…`.

    Further up only names that cannot mean anything else count: `…/swh_Latn/train/part-0.parquet` does, `/home/it/data/part-0.parquet`
    does not.
    """
    parts = path.split("/")
    near = [parts[-1].split(".")[0], *parts[-2:-1]]
    for part in near + [part for part in reversed(parts[:-2]) if "_" in part or "=" in part]:
        name = part.split("=")[-1]
        lang = canonical_language(name) if re.fullmatch(r"[a-z]{2,3}(_[A-Z][a-z]{3})?", name) else None
        # Withdrawn codes such as `in` are likelier words than languages.
        if lang and (lang == name or len(name) > 2):
            return lang
    return None


def read_file(file: SourceFile, pages: Pages) -> Iterator[Record]:
    """The file's records, in their order.

    Raises:
        UserError: the file is damaged or lacks a column; the message names the file.
    """
    default = language_of_path(file.path) or UNKNOWN_LANGUAGE
    read = _read_parquet if file.path.endswith(".parquet") else _read_json_lines
    for values, error in read(file, pages):
        yield _record(values, error, pages, default)


def _record(values: dict[str, Any], error: str | None, pages: Pages, default: str) -> Record:
    url = _text(values.get(pages.url)) if pages.url else None
    key = (_text(values.get(pages.id)) if pages.id else None) or url or ""
    declared = _text(values.get(pages.lang)) if pages.lang else None
    lang = default if declared is None else canonical_language(declared) or UNKNOWN_LANGUAGE
    text = values.get(pages.text)
    if error is None and isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as problem:
            error = f"text is not UTF-8: {problem.reason} at byte {problem.start}"
    if error is None and text is not None and not isinstance(text, str):
        error = f"text is {type(text).__name__}, not a string"
    if isinstance(text, str):
        content = text = _text(text)
    else:
        content = hashlib.blake2b(repr(text).encode(), digest_size=16).hexdigest()
    return Record(key, lang, url, text if error is None else None, error, content)


def _text(value: Any) -> str | None:
    """A value as text that UTF-8 can hold (JSON may carry half of a surrogate pair)."""
    if value is None:
        return None
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "replace").decode("utf-8")


def _read_parquet(file: SourceFile, pages: Pages) -> Iterator[tuple[dict[str, Any], None]]:
    wanted = [name for name in (pages.text, pages.url, pages.id, pages.lang) if name]
    try:
        with fsspec.open(file.path, "rb") as handle:
            parquet = pq.ParquetFile(handle)
            missing = [name for name in wanted if name not in parquet.schema_arrow.names]
            if missing:
                have = ", ".join(parquet.schema_arrow.names)
                raise UserError(f"{file.path}: no column {missing[0]!r} (it has: {have}); name the right one under `pages:`")
            for batch in parquet.iter_batches(batch_size=512, columns=wanted):
                columns = {name: _as_bytes(batch.column(name)).to_pylist() for name in wanted}
                yield from (({name: values[i] for name, values in columns.items()}, None) for i in range(batch.num_rows))
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file.path}: not a readable Parquet file: {_first_line(error)}") from None


def _as_bytes(column: pa.Array) -> pa.Array:
    # Arrow trusts that strings are UTF-8 and fails for the whole batch when one is not; bytes are decoded row by row.
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary()) if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) else column


def _read_json_lines(file: SourceFile, pages: Pages) -> Iterator[tuple[dict[str, Any], str | None]]:
    checked = False
    with opened(file.path) as stream:
        for line in stream:
            if not line.strip():
                continue
            values, error = _parse_line(line)
            if error is None and not checked:
                _check_keys(file, values, pages)
                checked = True
            yield values if error is None else {pages.text: line}, error


def _parse_line(line: bytes) -> tuple[dict[str, Any], str | None]:
    try:
        values = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return {}, f"line is not UTF-8: {error.reason} at byte {error.start}"
    except ValueError as error:
        return {}, f"line is not JSON: {_first_line(error)}"
    return (values, None) if isinstance(values, dict) else ({}, "line is not a JSON object")


def _check_keys(file: SourceFile, values: dict[str, Any], pages: Pages) -> None:
    if pages.text not in values:
        raise UserError(f"{file.path}: no key {pages.text!r} (it has: {', '.join(values)}); name the right one under `pages:`")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
