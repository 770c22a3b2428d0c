"""Exact duplicates: pages whose texts are the same but for case, white space and punctuation."""

from collections.abc import Iterator

import pyarrow as pa

from xl.ask import Drop
from xl.records import Row
from xl.stage import WholeStage


def drop_duplicates() -> WholeStage:
    """Keep one page of each text: the one with the smallest id, so that no order of files or workers matters."""
    return WholeStage("unique", ("id", "text_hash"), _surplus, _decide, pa.schema([]), {"by": "text_hash"})


def _surplus(tables: Iterator[pa.Table]) -> dict[str, str]:
    """The ids of surplus pages, each with the id of the page that stays."""
    smallest: dict[bytes, str] = {}
    repeated: dict[bytes, list[str]] = {}
    for table in tables:
        for page, text_hash in zip(table["id"].to_pylist(), table["text_hash"].to_pylist(), strict=True):
            key = bytes.fromhex(text_hash)
            if key in smallest:
                repeated.setdefault(key, []).append(max(page, smallest[key]))
                smallest[key] = min(page, smallest[key])
            else:
                smallest[key] = page
    return {page: smallest[key] for key, pages in repeated.items() for page in pages}


def _decide(surplus: dict[str, str], row: Row) -> Drop | None:
    return Drop("duplicate") if row["id"] in surplus else None
