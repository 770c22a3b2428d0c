"""Other pages' instructions, against which a pair's own instruction is measured."""

import heapq
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from xl.records import Row, seeded_rank
from xl.stage import WholeStage

POOL_SIZE = 256
"""Instructions kept per language to draw contrasts from."""

_Pool = dict[str, list[tuple[str, str]]]


def draw_contrasts(num_contrasts: int, seed: int) -> WholeStage:
    """Give every pair the instructions of `num_contrasts` other pages in its language.

    Both the pool and the draw go by a seeded hash of ids, so that adding pages changes few rows' contrasts.
    """

    def pool(tables: Iterator[pa.Table]) -> _Pool:
        smallest: dict[str, list[tuple[int, str, str]]] = {}
        for table in tables:
            for row in table.to_pylist():
                heap = smallest.setdefault(row["lang"], [])
                entry = (-seeded_rank(seed, "pool", row["id"]), row["id"], row["instruction"])
                (heapq.heappush if len(heap) < POOL_SIZE else heapq.heappushpop)(heap, entry)
        return {lang: sorted((page, instruction) for _, page, instruction in heap) for lang, heap in smallest.items()}

    def decide(pools: _Pool, row: Row) -> Mapping[str, Any]:
        others = [(page, text) for page, text in pools[row["lang"]] if page != row["id"] and text != row["instruction"]]
        others.sort(key=lambda other: seeded_rank(seed, row["id"], other[0]))
        return {"contrasts": list(dict.fromkeys(text for _, text in others))[:num_contrasts]}

    adds = pa.schema([("contrasts", pa.list_(pa.string()))])
    settings = {"num_contrasts": num_contrasts, "pool_size": POOL_SIZE, "seed": seed}
    return WholeStage("contrasts", ("id", "lang", "instruction"), pool, decide, adds, settings)
