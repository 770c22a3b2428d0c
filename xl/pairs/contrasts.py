"""Other pages' instructions, against which a pair's own instruction is measured.

Those of random pages test whether it is about the page's subject; those of the pages whose texts are nearest also whether it is about this
page, and not another one on that subject.
"""

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from xl.pages.scripts import folded
from xl.pairs.near import NEAR_DUPLICATE, NEAR_SETTINGS, NUM_CHARS, NearPages
from xl.records import Row, seeded_rank
from xl.stage import WholeStage

POOL_SIZE = 256
"""Instructions kept per language to draw contrasts from."""
NEAR_POOL_SIZE = 2_048
"""Pages kept per language to look for the nearest in."""


class Pool(NamedTuple):
    """What a language's contrasts are drawn from: instructions by the id of their page, those of `random` and of the `near` pages."""

    instructions: Mapping[str, str]
    random: Sequence[str]
    near: NearPages | None


def pool_of(pages: Sequence[tuple[str, str, str]], num_near: int, num_random: int | None = None) -> Pool:
    """The pool of one language's pages, each an id, an instruction and a text; random contrasts come from the first `num_random`."""
    instructions = {page: instruction for page, instruction, _ in pages}
    near = NearPages({page: text for page, _, text in pages}) if num_near else None
    return Pool(instructions, list(instructions)[:num_random], near)


def draw_contrasts(num_contrasts: int, seed: int, num_near: int = 0) -> WholeStage:
    """Give every pair the instructions of `num_contrasts` other pages in its language, `num_near` of them of pages whose texts are nearest.

    Both the pool and the draw go by a seeded hash of ids, so that adding pages changes few rows' contrasts. The nearest are looked for
    among `NEAR_POOL_SIZE` pages of a language, which are all of them in smaller runs: memory (up to 15 MiB a language) and time (about 2 ms
    a pair) do not grow with the run. The texts of all pages are read for it, once.
    """

    def survey(tables: Iterator[pa.Table]) -> dict[str, Pool]:
        smallest: dict[str, list[tuple[int, str, str, str]]] = {}
        for table in tables:
            for row in table.to_pylist():
                heap = smallest.setdefault(row["lang"], [])
                text = row["text"][:NUM_CHARS] if num_near else ""
                entry = (-seeded_rank(seed, "pool", row["id"]), row["id"], row["instruction"], text)
                (heapq.heappush if len(heap) < size else heapq.heappushpop)(heap, entry)
        return {lang: pool_of([entry[1:] for entry in sorted(heap, reverse=True)], num_near, POOL_SIZE) for lang, heap in smallest.items()}

    def decide(pools: dict[str, Pool], row: Row) -> Mapping[str, Any]:
        return {"contrasts": choose_contrasts(row, pools[row["lang"]], {row["instruction"]}, num_contrasts, num_near, seed)}

    size = NEAR_POOL_SIZE if num_near else POOL_SIZE
    adds = pa.schema([("contrasts", pa.list_(pa.string()))])
    settings: dict[str, Any] = {"num_contrasts": num_contrasts, "pool_size": POOL_SIZE, "seed": seed}
    needs: tuple[str, ...] = ("id", "lang", "instruction")
    if num_near:
        settings |= {"num_near_contrasts": num_near, "near_pool_size": NEAR_POOL_SIZE, **NEAR_SETTINGS}
        needs += ("text",)
    return WholeStage("contrasts", needs, survey, decide, adds, settings)


def choose_contrasts(row: Row, pool: Pool, own: Collection[str], num_contrasts: int, num_near: int, seed: int) -> list[str]:
    """Instructions of other pages for a row: first those of the `num_near` nearest pages, then those of random ones, each once.

    None of them is `own`, the row's instruction or another that may be right for its text. With near ones, none is a near-duplicate's.
    """
    similarities = pool.near.similarities(row["text"]) if pool.near else {}
    copies = {page for page, similarity in similarities.items() if similarity >= NEAR_DUPLICATE}
    near = _different((pool.instructions[page] for page in similarities if page not in copies), own)
    others = [page for page in pool.random if pool.instructions[page] not in own and page not in copies]
    others.sort(key=lambda page: seeded_rank(seed, row["id"], page))
    found = dict.fromkeys([*islice(near, num_near), *(pool.instructions[page] for page in others)])
    return list(found)[:num_contrasts]


def _different(instructions: Iterator[str], own: Collection[str]) -> Iterator[str]:
    """The instructions that say something else than the own ones and than those before."""
    said = {*map(folded, own)}
    for instruction in instructions:
        words = folded(instruction)
        if words not in said:
            said.add(words)
            yield instruction
