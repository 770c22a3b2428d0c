"""Choose the dataset from the accepted pairs: no instruction twice, no topic too often, and no more than was asked for."""

import math
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from xl.ask import Drop
from xl.records import Row, seeded_rank
from xl.stage import WholeStage

MIN_TOPIC_PAIRS = 3
"""A topic may always have this many pairs in a language, however small the dataset."""


def choose_pairs(
    per_language: int | None, max_topic_ratio: float, seed: int, name: str = "dataset", drawn_later: bool = False
) -> WholeStage:
    """Go through each language's pairs in a seeded order and take what the caps allow.

    `max_topic_ratio` is a share of what the dataset may hold of a language: all of its pairs, or `per_language` where these are fewer.
    With `drawn_later` a stage behind this one draws those `per_language`, and here all are taken that are in no topic's surplus.
    Drops `duplicate_instruction`, `topic_cap` and `over_quota`.
    """

    def survey(tables: Iterator[pa.Table]) -> dict[str, str]:
        by_language: dict[str, list[tuple[str, str, str]]] = {}
        for table in tables:
            for row in table.to_pylist():
                by_language.setdefault(row["lang"], []).append((row["id"], row["instruction"].casefold(), row["topic"]))
        dropped: dict[str, str] = {}
        for pairs in by_language.values():
            pairs.sort(key=lambda pair: seeded_rank(seed, pair[0]))
            most = max(MIN_TOPIC_PAIRS, math.floor(max_topic_ratio * min(len(pairs), per_language or len(pairs))))
            dropped |= _surplus(pairs, most, None if drawn_later else per_language)
        return dropped

    def decide(dropped: dict[str, str], row: Row) -> Drop | None:
        reason = dropped.get(row["id"])
        return Drop(reason) if reason else None

    settings = {"per_language": per_language, "max_topic_ratio": max_topic_ratio, "min_topic_pairs": MIN_TOPIC_PAIRS, "seed": seed}
    return WholeStage(name, ("id", "lang", "instruction", "topic"), survey, decide, pa.schema([]), settings)


def _surplus(pairs: list[tuple[str, str, str]], max_per_topic: int, quota: int | None) -> dict[str, str]:
    seen: set[str] = set()
    topics: Counter[str] = Counter()
    dropped: dict[str, str] = {}
    num_taken = 0
    for page, instruction, topic in pairs:
        if instruction in seen:
            dropped[page] = "duplicate_instruction"
        elif topics[topic] >= max_per_topic:
            dropped[page] = "topic_cap"
        elif quota is not None and num_taken >= quota:
            dropped[page] = "over_quota"
        else:
            seen.add(instruction)
            topics[topic] += 1
            num_taken += 1
    return dropped
