"""What a row is: its id, its fate in a stage, and the columns that the project writes.

A row keeps its id from page to verdict. Ids are 128-bit hashes in hexadecimal: with 64 bits, 10¹⁰ rows
would hold about three collisions, and a set of ids would drop those rows without a word.
"""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pyarrow as pa

Row = dict[str, Any]

ID_BYTES = 16
"""Width of an id; its text form has twice as many hexadecimal digits."""


class Status(StrEnum):
    """What became of a row in a stage. Nothing else can happen to it."""

    KEPT = "kept"
    DROPPED = "dropped"
    FAILED = "failed"


PAGE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("lang", pa.string()),
        ("url", pa.string()),
        ("source", pa.string()),
        ("text", pa.string()),
        ("error", pa.string()),
    ]
)
"""A page as read: `error` says why `text` is missing (null when the page is sound)."""

USAGE_TYPE = pa.list_(
    pa.struct([("stage", pa.string()), ("ask", pa.string()), ("prompt_tokens", pa.int64()), ("output_tokens", pa.int64())])
)

FATE_SCHEMA = pa.schema([("status", pa.string()), ("reason", pa.string()), ("_input", pa.string()), ("_usage", USAGE_TYPE)])
"""Bookkeeping beside every row of a stage; it is not carried to the next one.

`_input` is the digest of the row as it came in: a row is reused only while it is unchanged. `_usage` counts tokens per ask.
"""


def _digest(*parts: str) -> str:
    hasher = hashlib.blake2b(digest_size=ID_BYTES)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.hexdigest()


def record_key(key: str, content: str) -> str:
    """Key of a record: its own name (URL or id column) together with what it says.

    Two records that share the key are interchangeable, so counting their occurrences in any order gives the same ids.
    """
    return _digest(key, content)


def row_id(source: str, key: str, occurrence: int) -> str:
    """Id of a page: a hash of its source's name, its record key and the how-manieth record of that key it is.

    Never of a path or of a place in a file: moving or re-sharding the input changes no id.
    """
    return _digest(source, key, str(occurrence))


def row_seed(run_seed: int, row: str, ask: str, sample: int = 0) -> int:
    """Sampling seed of one draw (31 bits), independent of which other rows there are."""
    return int(_digest(str(run_seed), row, ask, str(sample))[:8], 16) >> 1


def seeded_rank(seed: int, *parts: str) -> int:
    """Place in a seeded order (64 bits) of whatever the parts name, independent of what else is there."""
    text = "\0".join((str(seed), *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def row_digest(row: Mapping[str, Any]) -> str:
    """Digest of a row's content, without the bookkeeping columns."""
    content = {k: v for k, v in row.items() if k not in FATE_SCHEMA.names and not k.startswith("_")}
    return _digest(json.dumps(content, sort_keys=True, ensure_ascii=False, default=str))


def digest_of(parts: list[str]) -> str:
    """Digest of a sequence of digests, order included."""
    return _digest(*parts)


def fate_columns(schema: pa.Schema) -> pa.Schema:
    """`schema` with the bookkeeping columns behind it."""
    return pa.schema(list(schema) + list(FATE_SCHEMA))
