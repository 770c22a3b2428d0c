"""What the arms of an evaluation are asked, and how their answers are looked at."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from xl.ask import AsyncStep, Columns, Context, Drop, Filter, Message, Request, Sampling, clip, one_line, quote
from xl.evaluate.identify import identifier
from xl.evaluate.language import Verdict, answer_language
from xl.evaluate.settings import Arm, Evaluate
from xl.pages.repetition import is_repetitive
from xl.pairs.rate import logprobs_after
from xl.records import Row, row_seed, seeded_rank
from xl.train.prompts import STOPS, completion_prompt, request_of

Examples = Mapping[str, Sequence[tuple[str, str]]]
"""Per language code: requests and their answers, to be shown in a prompt."""


def answer_schema(arm: Arm) -> pa.Schema:
    """Columns that an arm's answers add."""
    return pa.schema([(f"answer_{arm}", pa.string()), (f"finish_{arm}", pa.string())])


def answer(arm: Arm, settings: Evaluate, examples: Examples) -> AsyncStep:
    """Ask a model for its answer to the row's request; columns `answer_ARM` and `finish_ARM` (why it ended).

    A model without a chat template gets the wording that training would give it. An empty answer is an answer.
    """
    sampling = Sampling(settings.max_tokens, settings.temperature, settings.top_p, settings.repetition_penalty)

    async def step(row: Row, context: Context) -> Columns | Drop | None:
        assert context.engine is not None, "answers need an engine"
        turns = [*examples.get(row["lang"], ()), (row["request"], None)] if arm == "few_shot" else [(row["request"], None)]
        messages = [Message(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True) if text]
        seed = row_seed(context.seed, row["id"], f"answer_{arm}")
        if context.engine.chat:
            asked = Request(sampling, seed, messages=tuple(messages))
        else:
            asked = Request(replace(sampling, stop=STOPS), seed, prompt=completion_prompt(messages))
        completion = await context.engine.complete(asked)
        context.count(f"answer_{arm}", completion.prompt_tokens, completion.output_tokens)
        return {f"answer_{arm}": completion.text.strip(), f"finish_{arm}": completion.finish_reason}

    return step


def draw_examples(pairs: Iterable[Row], settings: Evaluate, seed: int) -> dict[str, list[tuple[str, str]]]:
    """Choose the examples of the arm `few_shot` from rows of a dataset: per language those that a seeded hash of the id puts first."""
    by_language: dict[str, list[Row]] = {}
    for pair in pairs:
        rows = by_language.setdefault(pair["lang"], [])
        rows.append({name: pair.get(name) for name in ("id", "instruction", "request", "response", "language")})
        rows.sort(key=lambda row: seeded_rank(seed, row["id"]))
        del rows[settings.num_examples :]
    return {lang: [_example(row, settings) for row in rows] for lang, rows in sorted(by_language.items())}


def _example(pair: Row, settings: Evaluate) -> tuple[str, str]:
    asked = one_line(request_of(pair, settings.style))
    return quote(asked), quote(clip(one_line(pair["response"]), settings.max_example_chars))


def fit_schema(arms: Sequence[Arm]) -> pa.Schema:
    """Columns that `fit` adds."""
    return pa.schema([(f"fits_{arm}", pa.bool_()) for arm in arms])


def fit(settings: Evaluate) -> AsyncStep:
    """Ask the base model whether an answer is likelier after its own instruction than after each of the row's `contrasts`.

    Columns `fits_ARM`, null for rows that are not `scored`. It is the likelihood margin of `xl.pairs.rate`, put to answers: it says
    whether an answer is about what was asked, not whether it is right or good. An answer without letters fits nothing.
    """

    async def step(row: Row, context: Context) -> Columns | Drop | None:
        if not row["scored"]:
            return None
        found = await asyncio.gather(*(_fits(row, row[f"answer_{arm}"], context, settings) for arm in settings.arms))
        return {f"fits_{arm}": fits for arm, fits in zip(settings.arms, found, strict=True)}

    return step


async def _fits(row: Row, text: str, context: Context, settings: Evaluate) -> bool | None:
    if not row["contrasts"]:  # the language has no other prompt
        return None
    if not any(map(str.isalpha, text)):
        return False
    instructions = (row["instruction"], *row["contrasts"])
    own, *others = await logprobs_after(instructions, row["language"], text, settings.fit_tokens, context, "fit")
    return own > max(others)


def verdict_schema(arms: Sequence[Arm]) -> pa.Schema:
    """Columns that `look_at` adds."""
    types: list[tuple[str, Any]] = []
    for arm in arms:
        types += [(f"verdict_{arm}", pa.string()), (f"found_{arm}", pa.string()), (f"in_language_{arm}", pa.bool_())]
        types += [(f"repetitive_{arm}", pa.bool_())]
    return pa.schema(types)


def look_at(settings: Evaluate) -> Filter:
    """Name the language of each arm's answer and say whether it goes round in circles.

    Columns `verdict_ARM` (right, wrong or skipped), `found_ARM` (the language, null when skipped), `in_language_ARM` (null when skipped)
    and `repetitive_ARM`.
    """

    def step(row: Row) -> Columns | Drop | None:
        identifiers = [identifier(name) for name in settings.identifiers]
        columns: dict[str, Any] = {}
        for arm in settings.arms:
            text = row[f"answer_{arm}"]
            decision = answer_language(text, row["lang"], identifiers)
            columns |= {f"verdict_{arm}": decision.verdict.value, f"found_{arm}": decision.language}
            columns[f"in_language_{arm}"] = None if decision.verdict is Verdict.SKIPPED else decision.verdict is Verdict.RIGHT
            columns[f"repetitive_{arm}"] = is_repetitive(text)
        return columns

    return step
