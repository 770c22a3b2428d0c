"""The length-controlled rate takes out what length alone does."""

import numpy as np
import pytest

from xl.evaluate.length_control import length_controlled_estimate, length_controlled_rate


@pytest.mark.parametrize(("quality", "bias", "longer_by"), [(-1.0, 1.5, 400), (-2.5, 1.0, -600), (0.5, -1.0, 500), (-1.0, 0.0, 500)])
def test_a_known_length_bias_is_taken_out_of_simulated_verdicts(quality, bias, longer_by):
    """Prompts differ in how good the model's answer is; the judge adds a bias for length to that and then says who wins."""
    rng = np.random.default_rng(7)
    num_prompts = 40_000
    merit = quality + rng.standard_normal(num_prompts)
    reference = rng.integers(800, 3000, num_prompts)
    model = np.maximum(0, reference + rng.normal(longer_by, 500, num_prompts)).astype(int)
    difference = model - reference
    logit = merit + bias * np.tanh(difference / difference.std())
    wins = (rng.random(num_prompts) < 1 / (1 + np.exp(-logit))).astype(float)
    unbiased = np.mean(1 / (1 + np.exp(-merit)))
    if bias:
        assert abs(wins.mean() - unbiased) > 0.03, "the plain rate must be off, or the test shows nothing"
    assert length_controlled_rate(wins, model, reference) == pytest.approx(unbiased, abs=0.01)


def test_it_is_the_plain_rate_where_lengths_are_equal_and_none_where_length_cannot_be_told_from_the_model():
    assert length_controlled_rate([1.0, 0.0, 0.25], [5, 6, 7], [5, 6, 7]) == pytest.approx(1.25 / 3)
    assert length_controlled_rate([1.0, 0.0, 0.25], [6, 7, 8], [5, 6, 7]) is None


def test_few_or_separable_verdicts_give_a_rate_and_no_error():
    for preferences in ([0.0] * 8, [1.0] * 8, [0.0] * 4 + [1.0] * 4):
        assert 0 <= length_controlled_rate(preferences, [1, 2, 3, 4, 15, 16, 17, 18], [8] * 8) <= 1


def test_the_interval_holds_the_rate_and_narrows_with_more_prompts():
    rng = np.random.default_rng(3)
    widths = []
    for num_prompts in (50, 800):
        wins, ours, theirs = rng.random(num_prompts) < 0.3, rng.integers(100, 900, num_prompts), rng.integers(100, 900, num_prompts)
        found = length_controlled_estimate(wins.astype(float).tolist(), ours.tolist(), theirs.tolist(), list(range(num_prompts)), 7)
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2.5
