"""Instruction data that there is in English alone, translated by a model: what CrossAlpaca trains on where nobody has translated it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from xl.ask import AsyncStep, Columns, Context, Drop
from xl.pairs.samples import Direction
from xl.pairs.segments import join_segments
from xl.pairs.translate import Gates, Shots, Translate, check_samples, translate_text
from xl.records import Row


class TranslateSamples(Translate):
    """How samples are translated, and what a translation must be."""

    best_of: int = Field(1, ge=1)
    """Translations that are drawn of each sample; the first one that passes the gates is taken."""
    gates: Gates = Gates()


def translate_samples(settings: Mapping[str, TranslateSamples], examples: Mapping[str, Mapping[str, Shots]]) -> AsyncStep:
    """Translate the samples of the sources named, each side that its direction wants in another language than English.

    Columns `instruction` and `input`, `response`, or all of them. The gates see a sample's texts as one: of a single word neither
    length nor language can be told. A sample without a sound translation is dropped with the fault that most of them have. Samples that
    are English on both sides, that come from elsewhere or that cannot be used stay as they are.

    Args:
        settings: by source.
        examples: sentence pairs for base models, by source and language.

    Raises:
        UserError: the model is a base model, and there are no examples in a sample's language.
    """

    async def step(row: Row, context: Context) -> Columns | Drop | None:
        if row["source"] not in settings or row["direction"] == Direction.EN_EN or row["error"]:
            return None
        own, lang = settings[row["source"]], row["request_lang"] if row["lang"] == "en" else row["lang"]
        sides = {"instruction": row["request_lang"], "input": row["request_lang"], "response": row["lang"]}
        names = [name for name, side in sides.items() if side != "en" and row[name].strip()]
        if not names:
            return None
        keys = [f"{row['id']} {name}" for name in names]
        parts = await asyncio.gather(
            *(translate_text(row[name], lang, key, own, examples[row["source"]], context) for name, key in zip(names, keys, strict=True))
        )
        checked = check_samples(own.gates)({"lang": lang, "answer": "\n".join(row[name] for name in names), **_joined(parts, own.best_of)})
        if isinstance(checked, Drop) or checked is None:
            return checked
        sound = checked["sample_faults"].index(None)
        return {name: join_segments(part["samples"][sound], part["gaps"], lang) for name, part in zip(names, parts, strict=True)}

    return step


def _joined(parts: Sequence[Mapping[str, list[Any]]], num_samples: int) -> Row:
    """The texts of a sample as the lines of one text, in the columns that `check_samples` reads."""
    return {
        "segments": [segment for part in parts for segment in part["segments"]],
        "gaps": [gap for part in parts for gap in (*part["gaps"][:-1], "\n")],
        "samples": [[segment for part in parts for segment in part["samples"][n]] for n in range(num_samples)],
        "samples_finished": [all(part["samples_finished"][n] for part in parts) for n in range(num_samples)],
    }
