"""What the win rate would be if answers were equally long."""

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from xl.errors import require
from xl.evaluate.intervals import Estimate
from xl.evaluate.winrate import Pair

_NUM_DRAWS = 400
_RIDGE_C = 100.0
"""Inverse strength of the penalty on the length term: nothing beside some hundred prompts, a hold where a few are separable."""


def length_controlled_rate(
    preferences: Sequence[float], model_num_chars: Sequence[int], reference_num_chars: Sequence[int]
) -> float | None:
    """Length-controlled win rate in [0, 1], by the logistic model of AlpacaEval 2.0 without its instruction-difficulty term.

    With the difference in length d (characters, model less reference) and its standard deviation s, fit
    `P(model preferred) = logistic(a + b · tanh(d / s))` and predict at d = 0 (Dubois et al., arXiv 2404.04475, section 3).
    AlpacaEval multiplies a third term by difficulties that it stores for its English prompts alone. A preference between 0 and 1 enters
    as a win and a loss of that weight. `a` is not penalised: a penalty there would draw every rate towards 50 %.

    Args:
        preferences: one a pair, in [0, 1].
        model_num_chars: length of the model's answer, one a pair.
        reference_num_chars: the same for the reference.

    Returns:
        None where all pairs differ in length by the same amount, and so nothing tells what length does.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    scores = np.asarray(preferences, dtype=float)
    differences = np.subtract(np.asarray(model_num_chars, dtype=float), np.asarray(reference_num_chars, dtype=float))
    if not differences.any():
        return float(scores.mean())
    spread = differences.std(ddof=1) if len(differences) > 1 else 0.0
    if spread == 0:
        return None
    features = np.tanh(differences / spread)[:, np.newaxis]
    model = require("sklearn.linear_model", "eval").LogisticRegression(C=_RIDGE_C, solver="newton-cholesky", tol=1e-8)
    labels = np.repeat([1, 0], len(scores))
    model.fit(np.vstack([features, features]), labels, sample_weight=np.concatenate([scores, 1 - scores]))
    return float(model.predict_proba([[0.0]])[0, 1])


def length_controlled_estimate(
    preferences: Sequence[float],
    model_num_chars: Sequence[int],
    reference_num_chars: Sequence[int],
    prompts: Sequence[Hashable],
    seed: int,
) -> Estimate | None:
    """The same with its standard error and 95 % interval, by fitting again to prompts drawn with replacement; one entry a pair.

    None where the rate is, or where some draw has wins or losses only.
    """
    rate = length_controlled_rate(preferences, model_num_chars, reference_num_chars)
    if rate is None:
        return None
    places: dict[Hashable, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        places[prompt].append(place)
    members, rng = list(places.values()), np.random.default_rng(seed)
    columns = [np.asarray(column, dtype=float) for column in (preferences, model_num_chars, reference_num_chars)]
    rates: list[float] = []
    # One fit is too little work for several threads: they would wait for each other for most of the time.
    with require("threadpoolctl", "eval").threadpool_limits(1):
        for _ in range(_NUM_DRAWS):
            drawn = np.concatenate([members[number] for number in rng.integers(len(members), size=len(members))])
            again = length_controlled_rate(*(column[drawn].tolist() for column in columns)) if 0 < columns[0][drawn].mean() < 1 else None
            if again is None:
                return None
            rates.append(again)
    low, high = np.quantile(rates, [0.025, 0.975])
    return Estimate(rate, float(np.std(rates, ddof=1)), float(low), float(high))


def length_controlled_pairs(pairs: Sequence[Pair], seed: int) -> Estimate | None:
    """The same of judged pairs, by the preferences that `win_rate` counts; pairs without one are left out."""
    judged = [(pair, preference) for pair in pairs if (preference := pair.preference) is not None]
    ours = [pair.model_num_chars for pair, _ in judged]
    theirs = [pair.reference_num_chars for pair, _ in judged]
    return length_controlled_estimate([preference for _, preference in judged], ours, theirs, [pair.prompt for pair, _ in judged], seed)
