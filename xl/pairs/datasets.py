"""Pairs that finished runs have made, as samples: what lets one mixture draw from the data of every method.

datasets:
  - {from: runs/demo}
mixture:
  total: 1000
  components:
    - {name: web, method: x_instruction, direction: en-x, count: 400}
    - {name: english, method: alpaca, direction: en-en}
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa
from pydantic import Field

from xl.errors import UserError
from xl.evaluate.tables import read_rows
from xl.folder import open_finished_run
from xl.pairs import alpaca, demonstrations
from xl.pairs.samples import SAMPLE_SCHEMA, Direction, Seen, direction_between, sample_id
from xl.records import Row
from xl.settings import Strict
from xl.storage import place

DATASET_SAMPLE_SCHEMA = SAMPLE_SCHEMA.append(pa.field("request", pa.string()))
"""A sample that may say already how the user asks for it: a method words its requests itself."""

_READ_FROM_FILES = {alpaca.METHOD: "alpaca", demonstrations.METHOD: "parallel"}
"""Methods whose pairs a mixture reads from where they are from, and under which key: a dataset does not hold their parts."""

_COLUMNS = ("id", "instruction", "request", "response", "lang", "method", "direction", "document")


class RunDataset(Strict):
    """The dataset of a finished run, or a copy of one."""

    from_: str = Field(alias="from")
    """The run's folder, or one of Parquet files as a run writes them."""
    source: str
    """Name of the data: part of every sample's id."""

    def files(self) -> list[str]:
        """The dataset's files, in their order. Raises UserError when there are none, or the run is not finished."""
        root = place(self.from_)
        folder = open_finished_run(root).dataset if (root / "run.json").exists() else root
        files = sorted(str(path) for path in folder.glob("train-*.parquet"))
        if not files:
            raise UserError(f"datasets: {self.from_!r} is no finished run, and no folder of the files that one writes (train-*.parquet)")
        return files


def count_pairs(data: RunDataset) -> Counter[tuple[str, Direction, str]]:
    """How many pairs there are of each method, direction and response's language. Raises UserError, see `read_dataset`."""
    found: Counter[tuple[str, Direction, str]] = Counter()
    for path in data.files():
        for row in read_rows(path, ("method", "direction", "lang")):
            if row["method"] in _READ_FROM_FILES:
                key = _READ_FROM_FILES[row["method"]]
                raise UserError(f"{path}: holds pairs of method {row['method']!r}; give the files that they were read from under `{key}`")
            found[row["method"], _direction(row), row["lang"]] += 1
    return found


def read_dataset(data: RunDataset, languages: Sequence[str], seen: Seen) -> Iterator[Row]:
    """The dataset's pairs as samples (`DATASET_SAMPLE_SCHEMA`) in English and in the languages, in the order of its files.

    A pair that cannot be used becomes a sample whose `error` names the file and the pair.

    Raises:
        UserError: a file is missing or damaged, or lacks a column.
    """
    wanted = {"en", *languages}
    for path in data.files():
        for row in read_rows(path, _COLUMNS):
            if row["lang"] in wanted:
                yield _sample(row, data.source, path, seen)


def _sample(row: Row, source: str, path: str, seen: Seen) -> Row:
    direction = _direction(row)
    is_known = direction != Direction.X_EN
    return {
        "id": sample_id(seen, source, row["id"], row["request"], row["response"]),
        "lang": row["lang"],
        "request_lang": "en" if direction in (Direction.EN_EN, Direction.EN_X) else row["lang"],
        "direction": direction,
        "method": row["method"],
        "source": source,
        "document": row["document"],
        "instruction": row["instruction"],
        "input": "",
        "response": row["response"],
        "request": row["request"],
        "error": None if is_known else f"{path}: pair {row['id']}: in which language its request is, is not noted (direction x-en)",
    }


def _direction(row: Row) -> Direction:
    """A pair's direction; methods that have pages write English instructions, and note none."""
    return Direction(row["direction"]) if row["direction"] else direction_between("en", row["lang"])
