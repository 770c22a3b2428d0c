"""Win rates that can be believed: from single verdicts to rates, with what speaks against them beside."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xl.evaluate.intervals import Estimate, estimate_mean

TIE = 0.5


@dataclass(frozen=True)
class Verdict:
    """What a judge said of a model's and a reference's answer to one prompt, shown in one order."""

    prompt: str
    """Id of the prompt; the same in all languages, so that they are resampled together."""
    lang: str
    model_first: bool
    preference: float | None
    """For the model's answer: 1 it wins, 0.5 tie, 0 it loses, or anything between; None when the judge gave no valid verdict."""
    model_num_chars: int
    reference_num_chars: int
    model_in_language: bool = True
    reference_in_language: bool = True
    is_identical: bool = False
    """The two answers are the same text: a tie, whatever the judge said."""
    is_marked: bool = False
    """Whether the preference is a difference of two marks and no probability."""

    def __post_init__(self) -> None:
        assert self.preference is None or 0 <= self.preference <= 1, f"{self.preference} is not a preference"


@dataclass(frozen=True)
class Pair:
    """A model's and a reference's answer to one prompt, with their scores for the model in [0, 1], None where invalid.

    `scores` has two entries when both orders were asked for: the model's answer first, then second. Where the order is not known it has
    one.
    """

    prompt: str
    lang: str
    scores: tuple[float | None] | tuple[float | None, float | None]
    model_num_chars: int
    reference_num_chars: int
    model_in_language: bool = True
    reference_in_language: bool = True
    is_identical: bool = False
    is_marked: bool = False

    @property
    def valid_scores(self) -> tuple[float, ...] | None:
        """The scores if all are valid: one order alone would carry the judge's preference for a place."""
        valid = tuple(score for score in self.scores if score is not None)
        return valid if len(valid) == len(self.scores) else None

    @property
    def preference(self) -> float | None:
        """What the pair counts for the model, from 0 to 1; None without valid scores.

        The mean of its scores. Of marks, as X-Instruction counts (arXiv 2405.19744): the answer whose marks have the greater sum over both
        orders wins, by however much.
        """
        if (scores := self.valid_scores) is None:
            return None
        mean = math.fsum(scores) / len(scores)
        return _outcome(mean) if self.is_marked else mean


@dataclass(frozen=True)
class Rate:
    """One way to count the same pairs. `mean` is the win rate; wins, losses and draws are of pairs."""

    mean: Estimate
    num_wins: int
    num_losses: int
    num_draws: int

    @property
    def discrete_win_rate(self) -> float:
        """Share of wins, a draw being half a win."""
        return (self.num_wins + self.num_draws / 2) / (self.num_wins + self.num_losses + self.num_draws)


@dataclass(frozen=True)
class Orders:
    """What the order of the answers did to the verdicts, over pairs with two valid verdicts and two different answers."""

    consistency: Estimate
    """Share of pairs with the same outcome in both orders."""
    first_preferred: Estimate
    """Share of verdicts for the answer shown first, a tie being half a verdict; 0.5 is no bias."""
    num_by_answer: int
    """Pairs whose same answer won in both orders."""
    num_by_position: int
    """Pairs whose answers won both times in the same place."""
    is_position_biased: bool
    """See `orders_of`."""


@dataclass(frozen=True)
class WinRate:
    """A model against a reference. The three rates are None where `withheld` says why."""

    rate: Rate | None
    """By the pairs' preferences."""
    agreed_rate: Rate | None
    """A win or a loss if both orders say so, else a tie. None also where the orders are not known."""
    gated_rate: Rate | None
    """As `rate`, but an answer in the wrong language loses; if both are, it is a tie."""
    withheld: str | None
    orders: Orders | None
    num_pairs: int
    num_invalid_pairs: int
    """Pairs that lack a valid verdict in some order. They are in no rate."""
    num_invalid_verdicts: int
    num_model_wrong_language: int
    """Pairs in which only the model's answer is in the wrong language. This and the next two count all pairs, judged or not."""
    num_reference_wrong_language: int
    num_both_wrong_language: int
    model_mean_chars: float
    reference_mean_chars: float

    @property
    def length_ratio(self) -> float | None:
        """Mean length of the model's answers over that of the reference's; None if all of the reference's are empty."""
        return self.model_mean_chars / self.reference_mean_chars if self.reference_mean_chars else None


def pair_up(verdicts: Iterable[Verdict]) -> list[Pair]:
    """Bring the verdicts of both orders together; an order that is missing counts as an invalid verdict."""
    by_order: dict[tuple[str, str], dict[bool, Verdict]] = {}
    for verdict in verdicts:
        orders = by_order.setdefault((verdict.prompt, verdict.lang), {})
        assert verdict.model_first not in orders, f"prompt {verdict.prompt} ({verdict.lang}) is judged twice in one order"
        orders[verdict.model_first] = verdict
    return [_pair(orders) for orders in by_order.values()]


def _pair(orders: dict[bool, Verdict]) -> Pair:
    one = next(iter(orders.values()))
    scores = tuple(orders[first].preference if first in orders else None for first in (True, False))
    return Pair(
        one.prompt,
        one.lang,
        (TIE, TIE) if one.is_identical else (scores[0], scores[1]),
        one.model_num_chars,
        one.reference_num_chars,
        one.model_in_language,
        one.reference_in_language,
        one.is_identical,
        one.is_marked,
    )


def win_rate(pairs: Sequence[Pair], seed: int, withheld: str | None = None) -> WinRate:
    """Count the pairs in every way; `seed` is that of the intervals' draws.

    A rate is withheld when no pair has valid verdicts, when the judge is position-biased, and when the caller says why it must be.
    """
    judged = [pair for pair in pairs if pair.valid_scores]
    preferences = [preference for pair in judged if (preference := pair.preference) is not None]
    agreed = [_agreed(scores) for pair in judged if (scores := pair.valid_scores) and len(scores) == 2]
    orders = orders_of(judged, seed)
    withheld = withheld or _why_withheld(len(judged), orders)
    prompts = [pair.prompt for pair in judged]
    languages = [(pair.model_in_language, pair.reference_in_language) for pair in pairs]
    return WinRate(
        rate=None if withheld else _rate(preferences, prompts, seed),
        agreed_rate=None if withheld or len(agreed) < len(judged) else _rate(agreed, prompts, seed),
        gated_rate=None if withheld else _rate([*map(_gated, judged, preferences)], prompts, seed),
        withheld=withheld,
        orders=orders,
        num_pairs=len(pairs),
        num_invalid_pairs=len(pairs) - len(judged),
        num_invalid_verdicts=sum(score is None for pair in pairs for score in pair.scores),
        num_model_wrong_language=languages.count((False, True)),
        num_reference_wrong_language=languages.count((True, False)),
        num_both_wrong_language=languages.count((False, False)),
        model_mean_chars=_mean([pair.model_num_chars for pair in pairs]),
        reference_mean_chars=_mean([pair.reference_num_chars for pair in pairs]),
    )


def orders_of(pairs: Sequence[Pair], seed: int) -> Orders | None:
    """How far verdicts depend on the order of the answers; None if no pair of different answers was judged in both.

    Some bias is harmless, since every pair is judged in both orders and the bias cancels. A judge is *position-biased* when the order
    decides more pairs than the answers do: of the pairs whose winner is the same answer or the same place in both orders, the 95 %
    interval of those won by an answer lies below one half. A judge that tosses coins is not (it wins by answer as often as by place), one
    that always names the first is from five pairs on.
    """
    both = [(pair.prompt, scores) for pair in pairs if (scores := pair.valid_scores) and len(scores) == 2 and not pair.is_identical]
    if not both:
        return None
    prompts = [prompt for prompt, _ in both]
    outcomes = [(_outcome(first), _outcome(second)) for _, (first, second) in both]
    decided = [(prompt, first == second) for prompt, (first, second) in zip(prompts, outcomes, strict=True) if TIE not in (first, second)]
    by_answer = [float(same) for _, same in decided]
    return Orders(
        consistency=estimate_mean([float(first == second) for first, second in outcomes], prompts, seed),
        first_preferred=estimate_mean([(first + 1 - second) / 2 for first, second in outcomes], prompts, seed),
        num_by_answer=int(sum(by_answer)),
        num_by_position=len(by_answer) - int(sum(by_answer)),
        is_position_biased=bool(decided) and estimate_mean(by_answer, [prompt for prompt, _ in decided], seed).high < 0.5,
    )


def _why_withheld(num_judged: int, orders: Orders | None) -> str | None:
    if num_judged == 0:
        return "no pair has valid verdicts"
    if orders and orders.is_position_biased:
        by_position, by_answer = orders.num_by_position, orders.num_by_answer
        return (
            f"the judge is position-biased: the order of the answers decided {by_position} pairs and the answers {by_answer}; "
            f"{orders.first_preferred.value:.0%} of its verdicts are for the first answer"
        )
    return None


def _rate(scores: Sequence[float], prompts: Sequence[str], seed: int) -> Rate:
    outcomes = [_outcome(score) for score in scores]
    return Rate(estimate_mean(scores, prompts, seed), outcomes.count(1.0), outcomes.count(0.0), outcomes.count(TIE))


def _outcome(score: float) -> float:
    """1 for a win, 0 for a loss, 0.5 for a tie, which the mean of two floats may miss by a rounding."""
    return TIE if math.isclose(score, TIE, abs_tol=1e-12) else float(score > TIE)


def _agreed(scores: tuple[float, ...]) -> float:
    outcomes = {_outcome(score) for score in scores}
    return outcomes.pop() if len(outcomes) == 1 else TIE


def _gated(pair: Pair, preference: float) -> float:
    if pair.model_in_language and pair.reference_in_language:
        return preference
    return TIE if pair.model_in_language == pair.reference_in_language else float(pair.model_in_language)


def _mean(numbers: Sequence[int]) -> float:
    return sum(numbers) / len(numbers) if numbers else math.nan
