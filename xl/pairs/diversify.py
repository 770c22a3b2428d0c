"""Diversification (X-Instruction, arXiv 2405.19744, §3): cluster the English instructions of a language, draw equally from the clusters.

The paper's number of clusters and embedding model are not published: ours are settings. Clustering and drawing are two stages, so that
another size of the draw costs no embeddings and the pairs that were not drawn keep their cluster.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from xl.ask import Columns, Drop
from xl.engines.models import ResolvedModel
from xl.errors import require
from xl.pairs.embed import MAX_TOKENS, embed
from xl.records import Row, seeded_rank
from xl.settings import Strict
from xl.stage import WholeStage

MAX_PAIRS_IN_FULL = 50_000
"""More pairs of a language are clustered by mini-batches (Sculley, 2010)."""
MINI_BATCH_PAIRS = 8_192


class Diversity(Strict):
    """How instructions are grouped by what they are about."""

    model: str = "packaged/all-minilm-l6-v2"
    """Hub id, folder or `packaged/NAME` of a sentence-transformers model that reads English."""
    num_clusters: int | None = Field(None, gt=0)
    """Clusters per language; by default the square root of half its number of pairs."""


class LanguageDraw(NamedTuple):
    """What came of a language's draw: pairs wanted (None: all there are), and pairs there and drawn by cluster."""

    lang: str
    num_wanted: int | None
    there: Mapping[int, int]
    drawn: Mapping[int, int]

    @property
    def num_redistributed(self) -> int:
        """Pairs that the smaller clusters lack of an equal share, drawn from the larger ones instead."""
        if self.num_wanted is None or self.num_wanted >= sum(self.there.values()):
            return 0
        return sum(max(0, self.num_wanted // len(self.there) - size) for size in self.there.values())


class _Drawn(NamedTuple):
    pairs: frozenset[str]
    draws: list[LanguageDraw]


def cluster_instructions(diversity: Diversity, model: ResolvedModel, seed: int) -> WholeStage:
    """Give every pair the number of its `cluster` among its language's instructions, by k-means on sentence embeddings.

    Languages do not touch each other, and the order of the rows does not matter. `model` is `diversity.model`, found.
    """

    def survey(tables: Iterator[pa.Table]) -> dict[str, int]:
        by_language: dict[str, list[tuple[str, str]]] = {}
        for table in tables:
            for row in table.to_pylist():
                by_language.setdefault(row["lang"], []).append((row["id"], row["instruction"]))
        clusters: dict[str, int] = {}
        for pairs in by_language.values():
            ids, instructions = zip(*sorted(pairs), strict=True)
            num_clusters = choose_num_clusters(diversity, instructions)
            clusters.update(zip(ids, cluster_vectors(embed(model, instructions), num_clusters, seed), strict=True))
        return clusters

    def decide(clusters: dict[str, int], row: Row) -> Columns:
        return {"cluster": clusters[row["id"]]}

    settings = {"model": model.digest, "num_clusters": diversity.num_clusters, "max_tokens": MAX_TOKENS, "seed": seed}
    return WholeStage("clustered", ("id", "lang", "instruction"), survey, decide, pa.schema([("cluster", pa.int64())]), settings)


def draw_equally(per_language: int | None, seed: int) -> WholeStage:
    """Draw so many pairs of each language, the same number from every `cluster`; None draws all. Drops `not_drawn`.

    Its remarks say how well each language's draw covers the clusters.
    """

    def survey(tables: Iterator[pa.Table]) -> _Drawn:
        members: dict[str, dict[int, list[str]]] = {}
        for table in tables:
            for row in table.to_pylist():
                members.setdefault(row["lang"], {}).setdefault(row["cluster"], []).append(row["id"])
        pairs: set[str] = set()
        draws: list[LanguageDraw] = []
        for lang, clusters in sorted(members.items()):
            drawn = draw(clusters, per_language, seed)
            pairs.update(*drawn.values())
            draws.append(LanguageDraw(lang, per_language, _sizes(clusters), _sizes(drawn)))
        return _Drawn(frozenset(pairs), draws)

    def decide(drawn: _Drawn, row: Row) -> Drop | None:
        return None if row["id"] in drawn.pairs else Drop("not_drawn")

    settings = {"per_language": per_language, "seed": seed}
    needs = ("id", "lang", "cluster")
    return WholeStage("diversified", needs, survey, decide, pa.schema([]), settings, lambda drawn: [*map(described, drawn.draws)])


def described(result: LanguageDraw) -> str:
    """How many of a language's pairs were drawn, from how many of its clusters, and how equally."""
    num_drawn, num_there = sum(result.drawn.values()), sum(result.there.values())
    hit = [num for num in result.drawn.values() if num]
    sizes, shares = (f"{min(counts):,} to {max(counts):,}" for counts in (result.there.values(), hit))
    line = f"{result.lang}: {num_drawn:,} of {num_there:,} pairs, from {len(hit):,} of {len(result.there):,} clusters"
    line += f" of {sizes} pairs, {shares} from each"
    if result.num_redistributed:
        line += f"; {result.num_redistributed:,} that small clusters lack came from larger ones"
    if result.num_wanted is not None and result.num_wanted > num_there:
        line += f"; {result.num_wanted:,} were wanted"
    return line


def choose_num_clusters(diversity: Diversity, instructions: Sequence[str]) -> int:
    """How many clusters a language's instructions are grouped into: as many as wanted, but no more than there are different ones.

    By default it is the square root of half their number, the rule of thumb of Mardia, Kent and Bibby (Multivariate Analysis, 1979).
    """
    wanted = diversity.num_clusters or max(1, round(math.sqrt(len(instructions) / 2)))
    return min(wanted, len(set(instructions)))


def equal_shares(sizes: Mapping[int, int], num_drawn: int) -> dict[int, int]:
    """How many to draw from each cluster of these sizes: equally many, the smaller ones' lack made up for by the larger ones."""
    shares: dict[int, int] = {}
    left = num_drawn
    for num_served, cluster in enumerate(sorted(sizes, key=lambda cluster: (sizes[cluster], cluster))):
        shares[cluster] = min(sizes[cluster], left // (len(sizes) - num_served))
        left -= shares[cluster]
    return shares


def draw(clusters: Mapping[int, Sequence[str]], num_drawn: int | None, seed: int) -> dict[int, list[str]]:
    """Ids of so many pairs by cluster, the same number from each (`equal_shares`); None draws all."""
    sizes = _sizes(clusters)
    shares = sizes if num_drawn is None else equal_shares(sizes, num_drawn)
    return {
        cluster: sorted(ids, key=lambda pair: seeded_rank(seed, "diversified", pair))[: shares[cluster]]
        for cluster, ids in clusters.items()
    }


def _sizes(clusters: Mapping[int, Sequence[str]]) -> dict[int, int]:
    return {cluster: len(ids) for cluster, ids in clusters.items()}


def cluster_vectors(vectors: npt.NDArray[np.float32], num_clusters: int, seed: int) -> list[int]:
    """The cluster of each vector, by k-means; by mini-batches where there are many."""
    sklearn = require("sklearn.cluster", "corpus")
    threadpoolctl = require("threadpoolctl", "corpus")
    random_state = seed % 2**32
    if len(vectors) <= MAX_PAIRS_IN_FULL:
        k_means = sklearn.KMeans(num_clusters, random_state=random_state)
    else:
        k_means = sklearn.MiniBatchKMeans(num_clusters, batch_size=MINI_BATCH_PAIRS, random_state=random_state)
    # Several threads add up the centres in the order in which they finish, which changes the last digits.
    with threadpoolctl.threadpool_limits(1):
        labels: list[int] = k_means.fit_predict(vectors).tolist()
    return labels
