"""Read the rows of a file, whatever its format: CSV, JSON, JSON Lines or Parquet, local or on any store that fsspec knows."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from xl.errors import UserError
from xl.files import opened

SUFFIXES = (".csv", ".json", ".jsonl", ".ndjson", ".parquet")
"""Formats by the file's name; all but Parquet may end in `.gz` or `.zst` beyond that."""

_BATCH_ROWS = 1000
"""Rows of a Parquet file that are in memory at once."""


def is_table(path: str) -> bool:
    """Whether the name says that `read_rows` can read it."""
    return _plain_name(path).endswith(SUFFIXES)


def read_rows(path: str, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The file's rows, in its order, with at least these columns, and with those of `optional` that there are.

    Raises:
        UserError: the file is missing or damaged, or lacks a column; one line that names the file.
    """
    if not is_table(path):
        raise UserError(f"{path}: the name must end in one of {', '.join(SUFFIXES)} (all but Parquet also with .gz or .zst)")
    try:
        yield from _rows(path, columns, optional)
    except (csv.Error, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None


def check_columns(path: str, columns: Sequence[str], have: Sequence[str], where: str = "") -> None:
    """Raise UserError for the first of `columns` that is not among those there are; `where` says in which part of the file."""
    if missing := [name for name in columns if name not in have]:
        raise UserError(f"{path}: no column {missing[0]!r}{where} (there are: {', '.join(map(str, have))})")


def _plain_name(path: str) -> str:
    return path.removesuffix(".gz").removesuffix(".zst")


def _rows(path: str, columns: Sequence[str], optional: Sequence[str]) -> Iterator[dict[str, Any]]:
    name = _plain_name(path)
    if name.endswith(".parquet"):
        yield from _parquet_rows(path, columns, optional)
        return
    read = _csv_rows if name.endswith(".csv") else _json_rows if name.endswith(".json") else _json_lines
    with opened(path) as stream:
        yield from read(path, io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), columns)


def _parquet_rows(path: str, columns: Sequence[str], optional: Sequence[str]) -> Iterator[dict[str, Any]]:
    with opened(path) as stream, pq.ParquetFile(stream) as file:
        have = file.schema_arrow.names
        check_columns(path, columns, have)
        for batch in file.iter_batches(_BATCH_ROWS, columns=[*columns, *(name for name in optional if name in have)]):
            yield from batch.to_pylist()


def _csv_rows(path: str, stream: IO[str], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)  # a text may be longer than the 128 KiB that are usual
    reader = csv.DictReader(stream)
    if reader.fieldnames is not None:
        check_columns(path, columns, reader.fieldnames)
    yield from reader


def _json_rows(path: str, stream: IO[str], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    try:
        rows = json.load(stream)
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}; if each line is an object, name the file .jsonl") from None
    if not isinstance(rows, list):
        raise UserError(f"{path}: must hold a list of objects, but holds {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        yield _checked(path, row, f"row {number}", columns)


def _json_lines(path: str, stream: IO[str], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}: line {number} is not JSON: {error}") from None
        yield _checked(path, row, f"line {number}", columns)


def _checked(path: str, row: Any, where: str, columns: Sequence[str]) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f"{path}: {where} is not a JSON object")
    check_columns(path, columns, list(row), f" in {where}")
    return row
