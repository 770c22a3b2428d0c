"""Does a page answer its instruction? Two raters: a likelihood margin that needs no labels, and a prompted three-level rating.

The margin is a relative of IFD scores (arXiv 2308.12032): how much the page's own instruction raises the likelihood of its text over
instructions of other pages in the same language.
"""

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from xl.ask import Ask, AsyncStep, Columns, Completion, Context, Drop, Filter, Sampling, one_line, quote
from xl.pairs.levels import Level
from xl.pairs.rating_set import RatedPair, pair_rows
from xl.pairs.reverse import load_prompt, trained_prompt, training_row
from xl.records import Row
from xl.settings import Strict, semantic


class Rounds(Strict):
    """How often pairs are rated, each time by an evaluator that learned from what the one before was sure of."""

    num_rounds: int = Field(1, ge=1)
    """Most rounds; one rates with the evaluator that knows the synthetic rating set alone."""
    min_change: float = Field(0.02, ge=0, le=1)
    """The rounds end when the share of accepted pairs changes by less from one to the next."""
    min_good: float = Field(1.8, ge=0, le=2)
    """Expected level from which a pair is a good example for the next evaluator."""
    max_bad: float = Field(0.2, ge=0, le=2)
    """Expected level up to which a pair is a bad example."""
    max_labels: int = Field(200, gt=0)
    """Most good examples of a language. It has as many bad ones, and fewer of both where pairs of one kind are short."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Rounds":
        if self.max_bad >= self.min_good:
            raise ValueError(f"rounds: max_bad: {self.max_bad:g} must be below min_good: {self.min_good:g}")
        return self


class Rating(BaseModel):
    """How pairs are rated, and which are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rater: Literal["likelihood", "prompted", "trained"] = "likelihood"
    """`likelihood` works with base models and in any language that the model reads; `prompted` wants a model that follows instructions;
    `trained` is the paper's, an evaluator tuned on pairs whose level is known."""
    num_contrasts: int = Field(4, ge=1)
    """Other pages' instructions that the own one is held against."""
    num_near_contrasts: int = Field(0, ge=0)
    """So many of them are those of the pages with the most similar texts (`xl.pairs.contrasts`), the others random ones. They ask whether
    the instruction is about this page, where random ones ask about its subject. Margins are smaller: `min_margin` wants to be chosen anew.
    Two pages that tell of one event may have instructions that are right for both."""
    num_tokens: int = Field(80, ge=8)
    """The page's tokens that are scored, from its beginning."""
    min_margin: float = 0.1
    """Least gain of the own instruction over the mean of the others, in nats per token. A model of 270M parameters is a weak judge: of 150
    pairs labelled blind 29 of the 75 kept at 0.1 answer their instruction and 11 of the 75 dropped; of the 34 at 0.4 and above 19 do."""
    max_rank: int = Field(1, ge=1)
    """Worst place of the own instruction among all (1: it must be the best)."""
    min_rating: float = Field(1.5, ge=0, le=2)
    """Least expected level of the prompted or trained rater (0 bad, 1 flawed, 2 good)."""
    rounds: Rounds = Rounds()
    """Rounds of the trained rater."""
    max_page_chars: int = Field(1200, ge=100)
    """The prompted or trained rater sees so much of the page."""
    max_base_page_chars: int = Field(400, ge=100)
    """The same for a base model."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Rating":
        if self.num_near_contrasts > self.num_contrasts:
            raise ValueError(f"num_near_contrasts: {self.num_near_contrasts} of num_contrasts: {self.num_contrasts} are too many")
        return self


READ_BY: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("num_contrasts", "num_near_contrasts", "num_tokens", "min_margin", "max_rank"), ("likelihood",)),
    **dict.fromkeys(("min_rating", "max_page_chars"), ("prompted", "trained")),
    "max_base_page_chars": ("prompted",),
    "rounds": ("trained",),
}
"""Which raters read a key of `Rating`."""

_DIGITS = tuple(str(int(level)) for level in reversed(Level))
_LEVEL = re.compile(r"\W*([012])(?![.,/]?\d)")
_NUM_LOGPROBS = 10
_CHARS_PER_TOKEN = 16
"""More than any tokenizer packs into a token on average: no need to tokenize the rest of a long page."""


def rate_pair(settings: Rating) -> Ask:
    """Ask how well the page answers its instruction; columns `rating` (expected level, 0 to 2) and `rating_level` (0, 1 or 2)."""
    prompted = partial(load_prompt, "rate_pair", settings.max_page_chars, settings.max_base_page_chars)
    return Ask(
        name="rate_pair",
        prompt=trained_prompt("rate_trained", settings.max_page_chars) if settings.rater == "trained" else prompted(),
        parse=_parse_rating,
        sampling=Sampling(max_tokens=4, choices=_DIGITS, num_logprobs=_NUM_LOGPROBS),
    )


def rater_settings(settings: Rating) -> dict[str, Any]:
    """What ratings depend on beside their rows: which contrasts are near ones is told by the rows themselves."""
    return {name: value for name, value in semantic(settings).items() if name != "num_near_contrasts"}


def rating_rows(pairs: Iterable[RatedPair], settings: Rating) -> Iterator[Row]:
    """What the evaluator is trained on: pairs and their level, as a digit."""
    for row in pair_rows(pairs):
        yield trained_row(settings, row, row["level"])


def trained_row(settings: Rating, row: Row, level: int) -> Row:
    """A row of a dataset that teaches the evaluator a pair's level."""
    return training_row("rating", trained_prompt("rate_trained", settings.max_page_chars), row, str(level))


def rated_or_null(step: AsyncStep, column: str, into: str) -> AsyncStep:
    """A rater for pairs whose level is known: no row is dropped, and an answer that is no rating is null in the column `into`."""

    async def rate(row: Row, context: Context) -> Columns:
        found = await step(row, context)
        return {into: None if found is None or isinstance(found, Drop) else found[column]}

    return rate


def _parse_rating(row: Row, completion: Completion) -> Columns | Drop:
    found = _LEVEL.match(completion.text)
    if not found:
        return Drop("rating_unreadable")
    level, shares = int(found[1]), completion.shares(_DIGITS)
    rating = sum(int(digit) * share for digit, share in shares.items()) if shares else float(level)
    return {"rating": rating, "rating_level": level}


def keep_rating(settings: Rating) -> Filter:
    """Keep a row whose expected level is high enough; else drop it as `low_rating`."""

    def check(row: Row) -> Columns | Drop | None:
        return None if row["rating"] >= settings.min_rating else Drop("low_rating")

    return check


def scoring_prefix(instruction: str, language: str) -> str:
    """What stands before the page's text when its likelihood is measured."""
    return f"{quote(one_line(instruction))}\n\nAnswer in {language}:\n"


async def logprobs_after(instructions: Iterable[str], language: str, text: str, num_tokens: int, context: Context, ask: str) -> list[float]:
    """Mean log-probability, in nats per token, of a text's first `num_tokens` tokens after each of the instructions.

    The tokens read are counted under the name `ask`.
    """
    assert context.engine is not None, f"{ask} needs an engine"
    engine, quoted = context.engine, quote(text[: num_tokens * _CHARS_PER_TOKEN])
    prefixes = [scoring_prefix(instruction, language) for instruction in instructions]
    scores = await asyncio.gather(*(engine.score(prefix, quoted, num_tokens) for prefix in prefixes))
    context.count(ask, sum(score.prompt_tokens for score in scores), 0)
    return [score.mean for score in scores]


def likelihood_margin(settings: Rating) -> AsyncStep:
    """Measure how much likelier the page's text is after its own instruction than after those in the row's `contrasts`.

    Columns: `margin` (own mean log-probability less the mean over the contrasts, in nats per token), `rank` (1: the own instruction is
    best) and `own_logprob` (nats per token). Contrasts that say the same as the own instruction are left out. A row without any other
    contrast is dropped as `no_contrasts`: it cannot be rated, and keeping it would pass an unrated pair off as a rated one.

    It measures the subject, not the quality of the wording: against random pages any instruction on the right subject wins, and an
    instruction that repeats the page's own words gains most. Let `keep_instruction` drop such copies first.
    """

    async def step(row: Row, context: Context) -> Columns | Drop | None:
        own = row["instruction"]
        others = dict.fromkeys(other for other in row["contrasts"] if _same(other) != _same(own))
        contrasts = list(others)[: settings.num_contrasts]
        if not contrasts:
            return Drop("no_contrasts")
        own_logprob, *rivals = await logprobs_after(
            (own, *contrasts), row["language"], row["text"], settings.num_tokens, context, "likelihood_margin"
        )
        return {
            "margin": own_logprob - sum(rivals) / len(rivals),
            "rank": 1 + sum(rival > own_logprob for rival in rivals),
            "own_logprob": own_logprob,
        }

    return step


def _same(instruction: str) -> str:
    return one_line(instruction).casefold().rstrip(".?! ")


def keep_margin(settings: Rating) -> Filter:
    """Keep a row whose own instruction is likely enough; else drop it as `unlikely_instruction`."""

    def check(row: Row) -> Columns | Drop | None:
        kept = row["margin"] >= settings.min_margin and row["rank"] <= settings.max_rank
        return None if kept else Drop("unlikely_instruction")

    return check
