"""The dataset: accepted pairs as Parquet and JSON Lines in chat format, with where each came from.

Put in place whole. `datasets.load_dataset("parquet", data_dir=…)` and TRL's trainers read it as it is.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xl import storage
from xl.lease import check_for
from xl.pages.contamination import document_of
from xl.records import Row
from xl.store import StageStore
from xl.train.prompts import request

DATASET_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("instruction", pa.string()),
        ("request", pa.string()),
        ("response", pa.string()),
        ("lang", pa.string()),
        ("language", pa.string()),
        ("method", pa.string()),
        ("direction", pa.string()),
        ("component", pa.string()),
        ("tag", pa.string()),
        ("source", pa.string()),
        ("url", pa.string()),
        ("document", pa.string()),
        ("topic", pa.string()),
        ("margin", pa.float64()),
        ("rating", pa.float64()),
        ("quality", pa.float64()),
        ("writer", pa.string()),
        ("rater", pa.string()),
    ]
)

FIELDS = [
    ("id", "the row's id: a hash of where it comes from and what it says"),
    ("messages", "the pair as a chat: the user's request, the assistant's answer"),
    ("instruction", "the instruction, without its input and the request for the language"),
    ("request", "what the user says: the instruction with its input and the request for the language"),
    ("response", "the answer: the page's own text, or what the method made of it"),
    ("lang", "ISO 639 code of the response's language"),
    ("language", "the language's English name"),
    ("method", "the method that made the pair"),
    ("direction", "languages of request and response, such as en-x (CrossAlpaca)"),
    ("component", "the mixture's component that the pair was drawn for"),
    ("tag", "the component's tag, which a style of training can be given by"),
    ("source", "name of the pages' source"),
    ("url", "where the page was found"),
    ("document", "what translations of a text, or its parts, have in common: they belong on one side of any split"),
    ("topic", "verb and object of the instruction"),
    ("margin", "likelihood margin in nats per token: how much the instruction raises the text's likelihood over other pages' instructions"),
    ("rating", "expected level of the prompted or trained rater, 0 (bad) to 2 (good)"),
    ("quality", "estimated quality of the translation (XL-Instruct), in the estimator's unit"),
    ("writer", "model that wrote the instruction"),
    ("rater", "model that rated the pair"),
]

_ROWS_PER_FILE = 100_000
_CHUNK_ROWS = 1_000


def response_of(row: Row) -> str:
    """What a row of the last stage answers: what its method made of the page, or the page's own text."""
    response: str = row["response"] if "response" in row else row["text"]
    return response


def pair_of(row: Row, method: str, models: Mapping[str, str]) -> Row:
    """A row of the last stage as a row of the dataset; `models` are the run's models by role."""
    asked = row.get("request") or request(row["instruction"], row["language"])
    response = response_of(row)
    return {
        **{name: row.get(name) for name in DATASET_SCHEMA.names},
        "document": document_of(row),
        "request": asked,
        "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": response}],
        "response": response,
        "method": row.get("method") or method,
        **{role: models.get(role) for role in ("writer", "rater")},
    }


def kept_rows(store: StageStore, shards: Iterable[str]) -> Iterator[Row]:
    """All rows that a stage kept, shard by shard."""
    for shard in shards:
        for row, _ in store.kept(shard):
            yield row


def export(store: StageStore, shards: list[str], method: str, models: Mapping[str, str], folder: Path, card: str) -> int:
    """Write the dataset folder; returns the number of pairs. `models` are the run's models by role.

    Raises:
        Superseded: another driver has taken the run over.
    """
    with storage.replaced(folder, "README.md", check_for(folder.parent)) as aside:
        num_pairs = _write(aside, (pair_of(row, method, models) for row in kept_rows(store, shards)))
        (aside / "README.md").write_text(card, "utf-8")
    return num_pairs


def _write(folder: Path, pairs: Iterator[Row]) -> int:
    """Write the pairs' files; returns how many pairs there are."""
    num_pairs = num_files = 0
    writer: pq.ParquetWriter | None = None
    with open(folder / "train.jsonl", "w", encoding="utf-8") as lines:
        for chunk in _chunks(pairs):
            if writer is None:
                writer = pq.ParquetWriter(folder / f"train-{num_files:05d}.parquet", DATASET_SCHEMA, compression="zstd")
                num_files += 1
            writer.write_table(pa.Table.from_pylist(chunk, schema=DATASET_SCHEMA))
            lines.writelines(json.dumps(pair, ensure_ascii=False) + "\n" for pair in chunk)
            num_pairs += len(chunk)
            if num_pairs >= num_files * _ROWS_PER_FILE:
                writer.close()
                writer = None
    if writer is not None:
        writer.close()
    return num_pairs


def _chunks(pairs: Iterator[Row]) -> Iterator[list[dict[str, Any]]]:
    chunk: list[Row] = []
    for pair in pairs:
        chunk.append(pair)
        if len(chunk) == _CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
