"""X-Instruction's iterated rating (Li et al., arXiv 2405.19744): rate, keep what is sure, train the next evaluator on it, rate again.

How the paper iterates is not published. Here round n asks an evaluator that was trained on the synthetic rating set and on those pairs
which round n - 1 was sure of: plain self-training. A round whose rows teach nothing new passes them on unasked.
"""

import heapq
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from xl.ask import AsyncStep, Columns, Context, Drop
from xl.pairs.levels import Level
from xl.pairs.rate import Rating, Rounds, rate_pair, trained_row
from xl.records import Row, digest_of, seeded_rank
from xl.settings import semantic
from xl.stage import WholeStage

LABEL_COLUMNS = pa.schema([("label", pa.int64()), ("evaluator", pa.string())])


class Labels(NamedTuple):
    """Level by the id of the pair, and a digest of all of them; no digest where there are none."""

    levels: dict[str, int]
    digest: str | None


def label_sure_pairs(number: int, rounds: Rounds, min_rating: float, seed: int) -> WholeStage:
    """Choose which rated pairs the evaluator of round `number` learns from, and whether there is to be such a round.

    Columns: `label` (the level that the pair is learned with; null for one that is not learned) and `evaluator` (a digest of all labels, so
    that every row is rated anew when they change; null when there are none).

    In each language as many good pairs as bad ones are drawn, `max_labels` of each at most. There are no labels when the share of accepted
    pairs has changed by less than `min_change` from the last round but one to the last, or when no language has pairs of both kinds.
    """
    settings: dict[str, Any] = {name: value for name, value in semantic(rounds).items() if name not in ("num_rounds", "min_change")}
    needs: tuple[str, ...] = ("id", "lang", "rating")
    if number > 2:
        needs = (*needs, "rating_before")
        settings |= {"min_change": rounds.min_change, "min_rating": min_rating}
    survey = partial(_survey, rounds=rounds, min_rating=min_rating, seed=seed)
    return WholeStage(f"labelled_{number}", needs, survey, _give_label, LABEL_COLUMNS, {"rounds": settings, "seed": seed})


def _survey(tables: Iterator[pa.Table], rounds: Rounds, min_rating: float, seed: int) -> Labels:
    sure: dict[tuple[str, Level], list[tuple[int, str]]] = {}
    num_compared = change = 0
    for table in tables:
        for row in table.to_pylist():
            if row.get("rating_before") is not None:
                num_compared += 1
                change += (row["rating"] >= min_rating) - (row["rating_before"] >= min_rating)
            level = _sure_level(row["rating"], rounds)
            if level is not None:
                _keep_first(sure.setdefault((row["lang"], level), []), seeded_rank(seed, "label", row["id"]), row["id"], rounds.max_labels)
    if num_compared and abs(change) / num_compared < rounds.min_change:
        return Labels({}, None)
    return _balanced(sure)


def _sure_level(rating: float, rounds: Rounds) -> Level | None:
    if rating >= rounds.min_good:
        return Level.GOOD
    return Level.BAD if rating <= rounds.max_bad else None


def _keep_first(heap: list[tuple[int, str]], rank: int, pair: str, most: int) -> None:
    """Keep the pairs of the lowest ranks: memory does not grow with the pages."""
    if len(heap) < most:
        heapq.heappush(heap, (-rank, pair))
    else:
        heapq.heappushpop(heap, (-rank, pair))


def _balanced(sure: dict[tuple[str, Level], list[tuple[int, str]]]) -> Labels:
    levels: dict[str, int] = {}
    for lang in sorted({lang for lang, _ in sure}):
        both = [sure.get((lang, level), []) for level in (Level.GOOD, Level.BAD)]
        for level, pairs in zip((Level.GOOD, Level.BAD), both, strict=True):
            levels |= {pair: int(level) for _, pair in sorted(pairs, reverse=True)[: min(map(len, both))]}
    return Labels(levels, digest_of([f"{pair} {level}" for pair, level in sorted(levels.items())]) if levels else None)


def _give_label(labels: Labels, row: Row) -> Columns | Drop | None:
    return {"label": labels.levels.get(row["id"]), "evaluator": labels.digest}


def lesson(settings: Rating, row: Row) -> Row | None:
    """What the next evaluator learns from a row of `label_sure_pairs`; None for one without a label."""
    return None if row["label"] is None else trained_row(settings, row, row["label"])


def rate_again(settings: Rating) -> AsyncStep:
    """Ask the round's evaluator; columns `rating`, `rating_level` and `rating_before`, what the round before gave.

    A row without an `evaluator` is kept as it is: there is none in this round.
    """
    ask = rate_pair(settings)

    async def step(row: Row, context: Context) -> Columns | Drop | None:
        if row["evaluator"] is None:
            return None
        found = await ask(row, context)
        return found if found is None or isinstance(found, Drop) else {**found, "rating_before": row["rating"]}

    return step
