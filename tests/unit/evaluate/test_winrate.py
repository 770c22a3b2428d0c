"""What a win rate promises: invalid verdicts are no losses, ties are ties, and a judge that looks at places is found out."""

import random
from dataclasses import replace

import pytest

from xl.evaluate.winrate import Verdict, pair_up, win_rate


def verdicts(judge, num_prompts=40, lang="de", **columns):
    """Both orders of each prompt; `judge(prompt, model_first)` gives the preference for the model."""
    return [
        Verdict(str(prompt), lang, first, judge(prompt, first), model_num_chars=300, reference_num_chars=200, **columns)
        for prompt in range(num_prompts)
        for first in (True, False)
    ]


def result_of(judged):
    return win_rate(pair_up(judged), seed=1)


def by_quality(prompt, model_first):
    """A good judge: the model wins a quarter of the prompts."""
    return float(prompt % 4 == 0)


def test_a_good_judges_rate_is_the_share_of_prompts_that_the_model_wins():
    result = result_of(verdicts(by_quality))
    assert result.withheld is None
    for rate in (result.rate, result.agreed_rate, result.gated_rate):
        assert (rate.mean.value, rate.discrete_win_rate, rate.num_wins, rate.num_losses, rate.num_draws) == (0.25, 0.25, 10, 30, 0)
        assert 0.1 < rate.mean.low < 0.25 < rate.mean.high < 0.45
    assert result.orders.consistency.value == 1
    assert result.orders.first_preferred.value == 0.5
    assert result.length_ratio == 1.5


def test_orders_that_disagree_are_summed_in_one_rate_and_ties_in_the_other():
    result = result_of(verdicts(lambda prompt, first: 0.9 if first else (0.3 if prompt % 2 else 0.8)))
    assert result.rate.mean.value == pytest.approx((0.6 + 0.85) / 2)
    assert (result.rate.num_wins, result.rate.num_draws) == (40, 0)
    assert (result.agreed_rate.num_wins, result.agreed_rate.num_draws) == (20, 20)
    assert result.orders.consistency.value == 0.5
    assert result_of(verdicts(lambda prompt, first: 0.7 if first else 0.3)).orders.num_by_position == 40


def test_marks_are_won_by_the_greater_sum_of_both_orders_with_and_without_the_language_gate():
    def by_marks(prompt, first):
        return (0.55, (0.45, 0.4, 0.55, 0.55)[prompt % 4])[not first]  # sums: a tie, a loss, two wins

    judged = [replace(verdict, model_in_language=verdict.prompt != "2") for verdict in verdicts(by_marks, 4, is_marked=True)]
    result = result_of(judged)
    assert (result.rate.num_wins, result.rate.num_losses, result.rate.num_draws, result.rate.mean.value) == (2, 1, 1, 0.625)
    assert (result.agreed_rate.num_wins, result.agreed_rate.num_draws) == (2, 2)
    assert result.gated_rate.mean.value == result.rate.mean.value - 1 / 4


@pytest.mark.parametrize(("place", "num_prompts"), [(True, 5), (True, 797), (False, 40)])
def test_a_judge_that_always_prefers_one_place_is_position_biased_and_gets_no_win_rate(place, num_prompts):
    result = result_of(verdicts(lambda _, first: float(first == place), num_prompts))
    assert result.orders.is_position_biased
    assert result.rate is result.agreed_rate is result.gated_rate is None
    assert "position-biased" in result.withheld and f"{place:.0%} of its verdicts are for the first answer" in result.withheld
    assert result.orders.first_preferred.low > 0.5 if place else result.orders.first_preferred.high < 0.5
    assert result.orders.consistency.value == 0


def test_a_judge_with_some_position_bias_or_none_but_noise_keeps_its_rate():
    rng = random.Random(1)
    lucky = [result_of(verdicts(lambda *_: float(rng.random() < 0.5))).orders.is_position_biased for _ in range(30)]
    assert sum(lucky) <= 3, "a judge that tosses coins is not position-biased"
    leaning = result_of(verdicts(lambda prompt, first: by_quality(prompt, first) if prompt % 10 < 7 else float(first)))
    assert leaning.rate and leaning.orders.first_preferred.low > 0.5


def test_nonsense_is_invalid_and_never_a_loss():
    result = result_of(verdicts(lambda *_: None))
    assert (result.num_pairs, result.num_invalid_pairs, result.num_invalid_verdicts) == (40, 40, 80)
    assert result.rate is result.gated_rate is None and result.withheld == "no pair has valid verdicts"


def test_a_pair_with_one_invalid_or_missing_order_is_left_out_and_counted():
    judged = verdicts(lambda prompt, first: None if prompt == 0 and first else 1.0)
    result = result_of(judged[:-1])
    assert (result.rate.num_wins, result.rate.num_losses) == (38, 0)
    assert (result.num_invalid_pairs, result.num_invalid_verdicts) == (2, 2)


def test_identical_answers_give_fifty_percent_whatever_the_judge_says():
    for judge in (by_quality, lambda _, first: float(first), lambda *_: None):
        result = result_of(verdicts(judge, is_identical=True))
        assert (result.rate.mean.value, result.rate.num_draws, result.orders) == (0.5, 40, None)


def test_the_gated_rate_alone_lets_an_answer_in_the_wrong_language_lose():
    right = verdicts(lambda *_: 0.75, num_prompts=10)
    languages = [(False, True)] * 4 + [(True, False)] * 2 + [(False, False)] * 3 + [(True, True)]
    judged = [
        replace(verdict, model_in_language=languages[int(verdict.prompt)][0], reference_in_language=languages[int(verdict.prompt)][1])
        for verdict in right
    ]
    result = result_of(judged)
    assert result.rate.mean.value == 0.75
    assert result.gated_rate.mean.value == pytest.approx((4 * 0 + 2 * 1 + 3 * 0.5 + 0.75) / 10)
    assert (result.gated_rate.num_wins, result.gated_rate.num_losses, result.gated_rate.num_draws) == (3, 4, 3)
    assert (result.num_model_wrong_language, result.num_reference_wrong_language, result.num_both_wrong_language) == (4, 2, 3)


def test_languages_of_one_prompt_are_pairs_of_their_own_but_one_draw():
    german = result_of(verdicts(by_quality))
    both = result_of(verdicts(by_quality) + verdicts(by_quality, lang="fi"))
    assert both.num_pairs == 2 * german.num_pairs
    assert both.rate.mean.standard_error == pytest.approx(german.rate.mean.standard_error)
