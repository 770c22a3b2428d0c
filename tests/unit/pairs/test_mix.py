"""The dataset is no larger than wanted, and no topic has more of it than it may."""

from collections import Counter

import pyarrow as pa
import pytest

from xl.pairs.mix import choose_pairs


@pytest.mark.parametrize(("per_language", "num_pairs", "num_rivers"), [(50, 50, 10), (None, 140, 40), (500, 140, 40)])
def test_a_topic_has_its_share_of_what_the_dataset_may_hold(per_language: int | None, num_pairs: int, num_rivers: int) -> None:
    topics = ["describe river"] * 100 + [f"explain number {n}" for n in range(100)]
    rows = [{"id": str(n), "lang": "de", "instruction": f"Ask {n}?", "topic": topic} for n, topic in enumerate(topics)]
    stage = choose_pairs(per_language, 0.2, seed=7)
    state = stage.survey(iter([pa.Table.from_pylist(rows)]))
    kept = Counter(row["topic"] for row in rows if stage.decide(state, row) is None)
    assert (kept.total(), kept["describe river"]) == (num_pairs, num_rivers)
