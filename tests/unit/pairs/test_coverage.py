"""An equal draw stands beside random ones of the same size, in numbers that are known beforehand."""

import math

import numpy as np
import pytest

from xl.engines.models import ResolvedModel
from xl.pairs import coverage as module
from xl.pairs.coverage import coverage
from xl.pairs.diversify import Diversity

NO_MODEL = ResolvedModel("none", "none", "none", None, None)
SUBJECTS = ("bread", "chess", "rivers", "tea", "glass")


@pytest.fixture(autouse=True)
def _vectors_by_subject(monkeypatch):
    monkeypatch.setattr(module, "embed", lambda _, texts: np.array([[word in text for word in SUBJECTS] for text in texts], np.float32))


def pairs(lang: str, counts: tuple[int, ...]):
    """So many pairs about each of the subjects."""
    numbered = [(subject, n) for subject, count in zip(SUBJECTS, counts, strict=True) for n in range(count)]
    return [{"id": f"{lang}-{subject}-{n}", "lang": lang, "instruction": f"Explain {subject}."} for subject, n in numbered]


def test_a_lopsided_pool_is_hit_in_all_its_clusters_by_the_equal_draw_and_not_by_random_ones():
    rows = pairs("de", (96, 1, 1, 1, 1))
    found = coverage(rows, Diversity(num_clusters=5), NO_MODEL, 0.05)["de"]
    assert (found.num_candidates, found.num_drawn, found.num_clusters) == (100, 5, 5)
    assert len(found.equal) == len(found.random) == 3
    bits = pytest.approx(math.log2(5))
    for draw in found.equal:
        assert (draw.cluster_ratio, draw.cluster_entropy, draw.topic_entropy) == (1, bits, bits)
    assert all(draw.cluster_ratio < 1 and draw.topic_entropy < 2 for draw in found.random)
    assert coverage(rows[::-1], Diversity(num_clusters=5), NO_MODEL, 0.05)["de"] == found


def test_all_languages_together_have_the_clusters_of_each_and_topics_in_common():
    found = coverage(pairs("de", (4, 4, 0, 0, 0)) + pairs("sw", (0, 4, 4, 0, 0)), Diversity(num_clusters=2), NO_MODEL, 0.5)
    assert list(found) == ["de", "sw", "all"]
    every = found["all"]
    assert (every.num_candidates, every.num_drawn, every.num_clusters) == (16, 8, 4)
    assert (every.equal[0].cluster_ratio, every.equal[0].cluster_entropy) == (1, 2)
    assert every.equal[0].topic_entropy == pytest.approx(1.5)
