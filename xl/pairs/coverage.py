"""What does drawing equally from clusters gain over drawing at random? The variety of such draws, side by side.

An equal draw aims at the clusters, so that its share of them shows only that it works; topics (verb and object) are a witness of their own.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xl.engines.models import ResolvedModel
from xl.pairs.diversify import Diversity, choose_num_clusters, cluster_vectors, draw
from xl.pairs.embed import embed
from xl.pairs.topics import topic
from xl.records import Row

ALL = "all"
"""In place of a language: the draws of all languages together."""

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Variety:
    """How varied a draw is."""

    cluster_ratio: float
    """Share of the candidates' clusters that it hits; languages have clusters of their own."""
    cluster_entropy: float
    """Of how its pairs are spread over the clusters, in bits."""
    topic_entropy: float
    """The same for topics."""


@dataclass(frozen=True)
class Coverage:
    """Draws of one size from the same candidates, one a seed: equally from the clusters, and at random."""

    num_candidates: int
    num_drawn: int
    num_clusters: int
    equal: tuple[Variety, ...]
    random: tuple[Variety, ...]


def coverage(
    candidates: Iterable[Row], diversity: Diversity, model: ResolvedModel, drawn_ratio: float, seeds: Sequence[int] = SEEDS
) -> dict[str, Coverage]:
    """Draw the same share of every language's candidates both ways, by language and for `ALL`.

    Args:
        candidates: pairs before the draw: `id`, `lang`, `instruction`.
        diversity: how they are clustered.
        model: `diversity.model`, found.
        drawn_ratio: share of a language's candidates that is drawn; with nearly all of them every draw is alike.
        seeds: each seeds a clustering and both draws.

    Raises:
        UserError: the embedding model cannot be loaded.
    """
    rows = sorted(candidates, key=lambda row: (row["lang"], row["id"]))
    vectors = embed(model, [row["instruction"] for row in rows])
    draws: dict[str, _Draws] = {}
    for lang, places in groupby(range(len(rows)), lambda place: rows[place]["lang"]):
        own = list(places)
        draws[lang] = _draws([rows[place] for place in own], vectors[own], diversity, drawn_ratio, seeds)
    return {lang: _coverage([drawn]) for lang, drawn in draws.items()} | {ALL: _coverage([*draws.values()])}


class _Pair(NamedTuple):
    lang: str
    cluster: int
    topic: str


class _Draws(NamedTuple):
    """A language's draws, one of each kind a seed."""

    num_candidates: int
    num_clusters: int
    equal: list[list[_Pair]]
    random: list[list[_Pair]]


def _draws(rows: list[Row], vectors: npt.NDArray[np.float32], diversity: Diversity, drawn_ratio: float, seeds: Sequence[int]) -> _Draws:
    instructions = [row["instruction"] for row in rows]
    topics = [topic(instruction) for instruction in instructions]
    num_drawn = int(drawn_ratio * len(rows))
    found = _Draws(len(rows), choose_num_clusters(diversity, instructions), [], [])
    for seed in seeds:
        clusters = cluster_vectors(vectors, found.num_clusters, seed)
        pairs = {row["id"]: _Pair(row["lang"], *labels) for row, labels in zip(rows, zip(clusters, topics, strict=True), strict=True)}
        members: dict[int, list[str]] = {}
        for pair, labels in pairs.items():
            members.setdefault(labels.cluster, []).append(pair)
        at_random = np.random.default_rng(seed).choice(list(pairs), num_drawn, replace=False)
        found.equal.append([pairs[pair] for pair in chain(*draw(members, num_drawn, seed).values())])
        found.random.append([pairs[pair] for pair in at_random])
    return found


def _coverage(languages: Sequence[_Draws]) -> Coverage:
    """Of the languages' draws together."""
    num_clusters = sum(draws.num_clusters for draws in languages)

    def varieties(draws_by_seed: Iterable[list[list[_Pair]]]) -> tuple[Variety, ...]:
        return tuple(_variety(list(chain(*draws)), num_clusters) for draws in zip(*draws_by_seed, strict=True))

    return Coverage(
        num_candidates=sum(draws.num_candidates for draws in languages),
        num_drawn=sum(len(draws.equal[0]) for draws in languages),
        num_clusters=num_clusters,
        equal=varieties(draws.equal for draws in languages),
        random=varieties(draws.random for draws in languages),
    )


def _variety(pairs: Sequence[_Pair], num_clusters: int) -> Variety:
    clusters = Counter((pair.lang, pair.cluster) for pair in pairs)
    return Variety(len(clusters) / num_clusters, _entropy(clusters.values()), _entropy(Counter(pair.topic for pair in pairs).values()))


def _entropy(counts: Collection[int]) -> float:
    """Shannon's entropy in bits."""
    total = sum(counts)
    return sum(count / total * math.log2(total / count) for count in counts)
