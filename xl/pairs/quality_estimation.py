"""How good is a translation, without a reference? Estimated segment by segment, in four ways; the best sound sample is the response.

- `llm`: a model's expected grade from 1 to 5, by the probabilities of the digits.
- `round_trip`: chrF (Popović, W15-3049; 0 to 100) of the translation back into English against the English.
- `likelihood`: mean log-probability of the English given the translation, in nats per token; works with base models.
- `comet`: a COMET-Kiwi class model (Rei et al., arXiv 2209.06243), about 0 to 1.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from xl.ask import AsyncStep, Columns, Completion, Context, Drop, Filter, Prompt, Sampling, one_line, quote
from xl.errors import require
from xl.pairs.comet_kiwi import comet_scores
from xl.pairs.grades import GRADE_SAMPLING, expected_grade
from xl.pairs.refine import PROMPTS
from xl.pairs.segments import join_segments
from xl.pairs.translate import (
    Direction,
    Shots,
    direction_into,
    reversed_direction,
    translate_segment,
    translation_prompt,
    translation_values,
)
from xl.records import Row
from xl.settings import EXECUTION, Strict


class Estimate(Strict):
    """How the quality of translations is estimated."""

    estimator: Literal["llm", "round_trip", "likelihood", "comet"] = "llm"
    max_scored_tokens: int = Field(256, ge=8)
    """`likelihood` reads so many tokens of each English segment."""
    comet_model: str = "Unbabel/wmt22-cometkiwi-da"
    """A hub id (this one is gated and for non-commercial use) or a checkpoint file."""
    comet_python: Annotated[str | None, EXECUTION] = None
    """Python interpreter of the environment that unbabel-comet is installed in; by default this one."""
    comet_gpus: Annotated[int, EXECUTION] = Field(0, ge=0)


READ_BY = {"max_scored_tokens": "likelihood", **dict.fromkeys(("comet_model", "comet_python", "comet_gpus"), "comet")}
"""Keys of `Estimate` that one estimator alone reads."""


class Choice(Strict):
    """Which response is good enough."""

    min_quality: float | None = None
    """Least quality of the best sample, in the estimator's own unit; null takes the best one whatever it is."""


class SegmentPair(NamedTuple):
    """An English segment and its translation."""

    source: str
    translation: str


Estimator = Callable[[Sequence[SegmentPair], Row, Context], Awaitable[Sequence[float | None]]]
"""Scores of segment pairs, higher is better; None where there is none to be had."""


def estimate_quality(estimator: Estimator) -> AsyncStep:
    """Score every segment of the sound samples; column `sample_scores`, null for a sample with a fault.

    Segments that samples have in common are scored once.
    """

    async def step(row: Row, context: Context) -> Columns:
        sound = [sample for sample, fault in zip(row["samples"], row["sample_faults"], strict=True) if fault is None]
        pairs = list(dict.fromkeys(pair for sample in sound for pair in map(SegmentPair, row["segments"], sample)))
        scores = dict(zip(pairs, await estimator(pairs, row, context), strict=True))
        return {
            "sample_scores": [
                None if fault else [scores[pair] for pair in map(SegmentPair, row["segments"], sample)]
                for sample, fault in zip(row["samples"], row["sample_faults"], strict=True)
            ]
        }

    return step


def choose_best(choice: Choice) -> Filter:
    """Make the sound sample of the highest quality the response; of equal ones the first.

    A sample's quality is the mean of its segments' scores, weighted by the length of the English. Columns: `response`, `quality`,
    `best_sample` (its number, from 0), `num_samples_left` and `sample_qualities` (null for samples that could not be compared).
    Drops `quality_unreadable` and `low_quality`.
    """

    def choose(row: Row) -> Columns | Drop:
        weights = [len(segment) for segment in row["segments"]]
        qualities = [_weighted_mean(scores, weights) for scores in row["sample_scores"]]
        left = [(quality, -number) for number, quality in enumerate(qualities) if quality is not None]
        if not left:
            return Drop("quality_unreadable")
        quality, number = max(left)
        if choice.min_quality is not None and quality < choice.min_quality:
            return Drop("low_quality")
        return {**response_columns(row, -number), "quality": quality, "sample_qualities": qualities}

    return choose


def take_only_sample(row: Row) -> Columns:
    """The response without any estimate, where there is one sample. Columns as in `choose_best`, less the qualities."""
    return response_columns(row, row["sample_faults"].index(None))


def response_columns(row: Row, number: int) -> dict[str, Any]:
    """A sample as the row's response."""
    return {
        "response": join_segments(row["samples"][number], row["gaps"], row["lang"]),
        "best_sample": number,
        "num_samples_left": row["sample_faults"].count(None),
    }


def _weighted_mean(scores: Sequence[float | None] | None, weights: Sequence[int]) -> float | None:
    if scores is None:
        return None
    known = [(score, weight) for score, weight in zip(scores, weights, strict=True) if score is not None]
    if len(known) < len(scores):
        return None
    return sum(score * weight for score, weight in known) / sum(weights)


def grading_prompt() -> Prompt:
    """What is asked about a segment and its translation."""
    return Prompt.load(PROMPTS, "grade_translation")


def llm_estimator() -> Estimator:
    """A model's expected grade, 1 to 5; None where its answer is no grade."""
    prompt = grading_prompt()

    async def grade(pair: SegmentPair, row: Row, context: Context) -> float | None:
        assert context.engine is not None, "the estimator `llm` needs an engine"
        request = prompt.render({**pair._asdict(), "language": row["language"]}, context.engine.chat, GRADE_SAMPLING, 0)
        completion: Completion = await context.engine.complete(request)
        context.count("grade_translation", completion.prompt_tokens, completion.output_tokens)
        return expected_grade(completion)

    async def estimate(pairs: Sequence[SegmentPair], row: Row, context: Context) -> Sequence[float | None]:
        return await asyncio.gather(*(grade(pair, row, context) for pair in pairs))

    return estimate


def round_trip_estimator(examples: Mapping[str, Shots], num_examples: int) -> Estimator:
    """chrF, 0 to 100, of the greedy translation back into English against the English.

    Raises:
        MissingExtra: sacrebleu is not installed.
    """
    require("sacrebleu", "translate")

    async def estimate(pairs: Sequence[SegmentPair], row: Row, context: Context) -> Sequence[float | None]:
        chrf = require("sacrebleu", "translate").sentence_chrf
        back = _way_back(row["lang"], examples, num_examples, context)
        translations = await asyncio.gather(
            *(translate_segment(translation_values(back, pair.translation), 0.0, 1.0, 0, context, "round_trip") for pair in pairs)
        )
        return [float(chrf(found.text, [pair.source]).score) for found, pair in zip(translations, pairs, strict=True)]

    return estimate


def likelihood_estimator(examples: Mapping[str, Shots], num_examples: int, max_tokens: int) -> Estimator:
    """Mean log-probability, in nats per token, of the English after the translation, in the base prompt's wording.

    A translation that keeps English words makes the English likely: let the gates drop such copies first.
    """
    prompt = translation_prompt()

    async def score(pair: SegmentPair, back: Direction, context: Context) -> float:
        assert context.engine is not None, "the estimator `likelihood` needs an engine"
        text = prompt.render(translation_values(back, pair.translation), False, Sampling(), 0).prompt
        found = await context.engine.score(text, f" {quote(one_line(pair.source))}", max_tokens)
        context.count("likelihood", found.prompt_tokens, 0)
        return found.mean

    async def estimate(pairs: Sequence[SegmentPair], row: Row, context: Context) -> Sequence[float | None]:
        back = _way_back(row["lang"], examples, num_examples, context)
        return await asyncio.gather(*(score(pair, back, context) for pair in pairs))

    return estimate


def _way_back(lang: str, examples: Mapping[str, Shots], num_examples: int, context: Context) -> Direction:
    assert context.engine is not None, "an estimator by translation needs an engine"
    return reversed_direction(direction_into(lang, examples, num_examples, context.engine.chat))


def comet_estimator(settings: Estimate) -> Estimator:
    """Scores of a COMET model that needs no reference, from a process of its own. Raises UserError when it cannot be had."""
    score = comet_scores(settings.comet_model, settings.comet_python, settings.comet_gpus)

    async def estimate(pairs: Sequence[SegmentPair], row: Row, context: Context) -> Sequence[float | None]:
        return await asyncio.to_thread(score, list(pairs))

    return estimate
