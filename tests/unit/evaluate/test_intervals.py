"""Intervals hold the truth as often as they say."""

import numpy as np
import pytest
from scipy import stats

from xl.evaluate.intervals import (
    auc_interval,
    bootstrap_bounds,
    difference_interval,
    estimate_mean,
    group_interval,
    mcnemar,
    mean_interval,
    proportion_interval,
)

NUM_EVALUATIONS = 2000


def two_orders(rng, kind, rate, num_prompts, correlation):
    """Scores of both orders, (evaluations, prompts, 2), of mean `rate`; the orders of a prompt share a latent preference."""
    shared = rng.standard_normal((NUM_EVALUATIONS, num_prompts, 1), dtype=np.float32)
    own = rng.standard_normal((NUM_EVALUATIONS, num_prompts, 2), dtype=np.float32)
    latent = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    # Thresholds of the latent preference and what a verdict above each adds.
    steps = {
        "whole": [(rate, 1.0)],
        "ties": [(1.5 * rate, 0.5), (0.5 * rate, 0.5)],
        # Most preferences near 0, few near 1, as judges' probabilities are.
        "continuous": [(share * rate, 1 / 20) for share in np.linspace(0.05, 1.95, 20)],
    }[kind]
    return sum(height * (latent > stats.norm.ppf(1 - share)) for share, height in steps)


def coverage(totals, sizes, truth, bounds=(0.0, 1.0)):
    ends = bootstrap_bounds(totals, sizes, seed=1, bounds=bounds, num_draws=2000)
    return np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))


@pytest.mark.parametrize("rate", [0.05, 0.3])
@pytest.mark.parametrize(
    ("num_prompts", "kind", "correlation"),
    [
        *((40, kind, correlation) for kind in ("whole", "ties", "continuous") for correlation in (0.0, 0.5, 0.9, 1.0)),
        *((797, "whole", correlation) for correlation in (0.0, 0.9)),
        (797, "continuous", 0.5),
    ],
)
def test_the_interval_of_a_win_rate_holds_the_truth_in_93_to_97_percent_of_evaluations(rate, num_prompts, kind, correlation):
    scores = two_orders(np.random.default_rng(7), kind, rate, num_prompts, correlation)
    assert 0.93 <= coverage(scores.mean(axis=2), np.ones(num_prompts), rate) <= 0.97


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_languages_that_share_a_prompt_are_drawn_together(rate):
    rng = np.random.default_rng(7)
    sizes = rng.integers(1, 9, 40)
    languages = [two_orders(rng, "whole", rate, 40, 1.0)[:, :, 0]] * 8  # the same verdict in every language
    totals = sum(scores * (sizes > number) for number, scores in enumerate(languages))
    assert 0.93 <= coverage(totals, sizes, rate) <= 0.97

    scores = rng.random(40).round(1).tolist()
    alone, repeated = estimate_mean(scores, range(40), seed=1), estimate_mean(scores * 8, [*range(40)] * 8, seed=1)
    for name in ("value", "standard_error", "low", "high"):
        assert getattr(repeated, name) == pytest.approx(getattr(alone, name)), f"eight copies of a score changed the {name}"


@pytest.mark.parametrize(("before", "after"), [(0.05, 0.15), (0.3, 0.3), (0.1, 0.9)])
def test_the_interval_of_a_paired_difference_holds_the_truth(before, after):
    rng = np.random.default_rng(7)
    shared, own = rng.standard_normal((NUM_EVALUATIONS, 160, 1)), rng.standard_normal((NUM_EVALUATIONS, 160, 2))
    arms = np.sqrt(0.5) * (shared + own) > stats.norm.ppf(1 - np.array([before, after]))
    differences = arms[:, :, 1].astype(float) - arms[:, :, 0]
    assert 0.93 <= coverage(differences, np.ones(160), after - before, (-1.0, 1.0)) <= 0.97


def test_an_interval_never_claims_certainty():
    for scores in ([0.0] * 40, [1.0] * 40, [0.5]):
        low, high = mean_interval(scores, range(len(scores)), seed=1)
        assert 0 <= low < high <= 1
        assert low <= np.mean(scores) <= high
    low, high = difference_interval([1.0] * 20, [1.0] * 20, range(20), seed=1)
    assert -1 < low < 0 < high < 1


def test_the_same_seed_draws_the_same_interval_and_the_block_size_does_not_matter(monkeypatch):
    scores, prompts = np.random.default_rng(1).random(100).tolist(), range(100)
    assert mean_interval(scores, prompts, seed=1) == mean_interval(scores, prompts, seed=1) != mean_interval(scores, prompts, seed=2)
    whole = mean_interval(scores, prompts, seed=1)
    monkeypatch.setattr("xl.evaluate.intervals._BLOCK_SIZE", 5000)
    assert mean_interval(scores, prompts, seed=1) == pytest.approx(whole, abs=0.005)


def test_values_of_a_group_are_drawn_together_and_need_no_bounds():
    """Of 100 documents with a mean of their own the interval is the textbook's, however many like sentences each has."""
    means = np.random.default_rng(1).normal(30, 10, 100)
    documents = list(range(100))
    textbook = means.mean() + 1.96 * means.std(ddof=1) / 10 * np.array([-1, 1])
    for copies in (1, 5):
        assert group_interval(np.tile(means, copies).tolist(), documents * copies, seed=1) == pytest.approx(textbook, abs=0.2)
    assert all(map(np.isnan, group_interval([1.0, 2.0], ["d", "d"], seed=1)))


def test_proportions_and_mcnemar_give_the_textbook_figures():
    assert proportion_interval(15, 50) == pytest.approx((0.1910, 0.4375), abs=1e-4)
    found = mcnemar([True] * 4 + [False] * 12 + [True] * 9, [False] * 4 + [True] * 12 + [True] * 9)
    assert (found.num_gained, found.num_lost) == (12, 4)
    assert found.p_value == pytest.approx(2 * sum([1, 16, 120, 560, 1820]) / 2**16)
    assert mcnemar([True, False], [True, False]).p_value == 1


def test_the_area_under_the_curve_is_scikit_learns_and_its_interval_draws_groups_together() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(3)
    labels = [bool(label) for label in rng.integers(0, 2, 120)]
    scores = [float(score) for score in np.round(rng.normal(size=120) + 0.7 * np.array(labels), 1)]
    single, copied = (auc_interval(scores, labels, groups, 7) for groups in (range(120), [number // 2 for number in range(120)]))
    assert single[0] == copied[0] == pytest.approx(roc_auc_score(labels, scores))
    assert single[1].low < single[0] < single[1].high
    twice = auc_interval(scores * 2, labels * 2, [*range(120), *range(120)], 7)
    assert twice[1].high - twice[1].low == pytest.approx(single[1].high - single[1].low, abs=0.01)


def test_there_is_no_area_where_all_items_are_alike() -> None:
    assert np.isnan(auc_interval([0.1, 0.2], [True, True], [0, 1], 7)[0])
