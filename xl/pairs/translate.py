"""XL-Instruct's last step but one (Iyer et al., arXiv 2503.22973): the English answer translated several times, and what may not pass.

Each answer is translated segment by segment, so that quality can be estimated by segment; every sample has a seed of its own, so that
more samples leave the first ones as they are.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from xl.ask import AsyncStep, Columns, Context, Drop, Filter, Prompt, Sampling, quote, unquote_as
from xl.errors import UserError
from xl.pages.language import LANGUAGE_NAMES, SIMILAR, canonical_language, probabilities
from xl.pages.repetition import is_repetitive
from xl.pages.scripts import density
from xl.pairs.copies import copied_ratio
from xl.pairs.refine import PROMPTS
from xl.pairs.segments import join_segments, split_segments
from xl.records import Row, row_seed
from xl.settings import EXECUTION, Strict


class Translate(Strict):
    """How English answers are translated."""

    best_of: int = Field(3, ge=1)
    """Samples of each translation, of which the best is kept."""
    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(0.9, gt=0, le=1)
    max_segment_chars: int = Field(1000, ge=50)
    """A chat model translates so much at once."""
    max_base_segment_chars: int = Field(200, ge=50)
    """The same for a base model, which is best at single sentences."""
    examples: Annotated[dict[str, str], EXECUTION] = Field(default_factory=dict)
    """Parallel text for base models: a file for `en` and for each language, line by line the same."""
    num_examples: int = Field(4, ge=0)
    """Sentence pairs that a base model is shown: the first ones of moderate length."""


class Gates(Strict):
    """What a translation must be to be compared with the others at all."""

    min_language_probability: float = Field(0.1, ge=0, le=1)
    """Least probability, by fastText on the whole answer, of the language and those easily taken for it. Of human translations of four
    sentences (NTREX) at most one in a hundred has less in any of 15 languages; of single sentences one in eight in Maltese and Swahili."""
    min_length_ratio: float = Field(0.5, gt=0)
    """Least length, in characters of the English answer; a Chinese character counts for 3.5, a Thai one for 1.15. So measured, 99 % of the
    same translations are 0.8 to 1.9 times as long as the English."""
    max_length_ratio: float = Field(2.0, gt=0)
    max_untranslated_ratio: float = Field(0.1, ge=0, le=1)
    """Largest share of the English answer's 5-word sequences that remain as they were."""


Shots = tuple[tuple[str, str], ...]
"""Pairs of sentences (English, the other language), shown to base models."""

_EXAMPLE_CHARS = range(40, 161)


def read_examples(settings: Translate, languages: Sequence[str]) -> dict[str, Shots]:
    """The first `num_examples` sentence pairs of moderate length for each language that has a file; none without files.

    Raises:
        UserError: a file is missing, is not as long as the English one, or has too few lines of 40 to 160 characters.
    """
    if not settings.examples:
        return {}
    files = {canonical_language(lang) or lang: path for lang, path in settings.examples.items()}
    if "en" not in files:
        raise UserError("translate.examples: the English file is missing; name it under `en`, beside those of the languages")
    english = _read_lines(files["en"])
    shots = {}
    for lang in (lang for lang in languages if lang in files):
        lines = _read_lines(files[lang])
        if len(lines) != len(english):
            raise UserError(
                f"translate.examples: {files[lang]} has {len(lines):,} lines, {files['en']} has {len(english):,}; they must be parallel"
            )
        pairs = [pair for pair in zip(english, lines, strict=True) if len(pair[0]) in _EXAMPLE_CHARS and pair[1]]
        if len(pairs) < settings.num_examples:
            raise UserError(
                f"translate.examples: {files['en']} has {len(pairs)} lines of 40 to 160 characters; {settings.num_examples} are wanted"
            )
        shots[lang] = tuple((quote(source), quote(target)) for source, target in pairs[: settings.num_examples])
    return shots


def _read_lines(path: str) -> list[str]:
    try:
        return [line.strip() for line in Path(path).read_text("utf-8").rstrip("\n").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"translate.examples: cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


@dataclass(frozen=True)
class Direction:
    """From which language into which, by their English names, with sentence pairs (source, target) for base models."""

    source: str
    target: str
    shots: Shots


@dataclass(frozen=True)
class Translation:
    """A translated segment; not `finished` when the token limit cut it off."""

    text: str
    finished: bool


def direction_into(lang: str, examples: Mapping[str, Shots], num_examples: int, chat: bool) -> Direction:
    """From English into a language. Raises UserError when a base model lacks the language's examples."""
    if not chat and num_examples and lang not in examples:
        raise UserError(f"translate.examples: a base model needs parallel text for {lang!r}; name a file for it, or set num_examples: 0")
    return Direction("English", LANGUAGE_NAMES[lang], examples.get(lang, ()))


def reversed_direction(direction: Direction) -> Direction:
    """The way back."""
    return Direction(direction.target, direction.source, tuple((target, source) for source, target in direction.shots))


def translation_prompt() -> Prompt:
    """The wording for both directions."""
    return Prompt.load(PROMPTS, "translate")


def translation_values(direction: Direction, segment: str, before: str = "") -> Row:
    """What `translation_prompt` is rendered with; `before` is the source text in front of the segment."""
    return {
        "source_language": direction.source,
        "target_language": direction.target,
        "examples": direction.shots,
        "segment": segment,
        "before": before,
    }


_TOKENS_FOR_SHORT = 64
"""A translation has fewer tokens than its source has characters, but for very short ones."""


async def translate_segment(values: Row, temperature: float, top_p: float, seed: int, context: Context, ask: str) -> Translation:
    """Translate one segment; `values` come from `translation_values`. Tokens are counted under the name `ask`."""
    assert context.engine is not None, f"{ask} needs an engine"
    sampling = Sampling(_TOKENS_FOR_SHORT + len(values["segment"]), temperature, top_p)
    completion = await context.engine.complete(translation_prompt().render(values, context.engine.chat, sampling, seed))
    context.count(ask, completion.prompt_tokens, completion.output_tokens)
    label = rf"^\W*{re.escape(values['target_language'])}\W*:\s*"
    text = re.sub(label, "", completion.text.strip())
    return Translation(unquote_as(text, values["segment"]), completion.finish_reason != "length")


async def translate_text(
    text: str, lang: str, key: str, settings: Translate, examples: Mapping[str, Shots], context: Context
) -> dict[str, list[Any]]:
    """Translate an English text into a language, `best_of` times at once; `key` names it among all texts, for its seeds.

    Returns:
        `segments` and `gaps` of the English, `samples` (each a list of the segments' translations) and `samples_finished`.

    Raises:
        UserError: the model is a base model, and there are no examples in the language.
    """
    assert context.engine is not None, "a translation needs an engine"
    chat = context.engine.chat
    direction = direction_into(lang, examples, settings.num_examples, chat)
    parts = split_segments(text, settings.max_segment_chars if chat else settings.max_base_segment_chars, chat)
    values = [translation_values(direction, part, before) for part, before in zip(parts.texts, ["", *parts.texts[:-1]], strict=True)]

    async def sample(number: int) -> list[Translation]:
        seeds = [row_seed(context.seed, key, f"translate {place}", number) for place in range(len(values))]
        wanted = zip(values, seeds, strict=True)
        return await asyncio.gather(
            *(translate_segment(v, settings.temperature, settings.top_p, seed, context, "translate") for v, seed in wanted)
        )

    samples = await asyncio.gather(*map(sample, range(settings.best_of)))
    return {
        "segments": parts.texts,
        "gaps": parts.gaps,
        "samples": [[part.text for part in parts] for parts in samples],
        "samples_finished": [all(part.finished for part in parts) for parts in samples],
    }


def translate_answer(settings: Translate, examples: Mapping[str, Shots]) -> AsyncStep:
    """Translate the `answer` into the row's `lang`; columns as `translate_text` returns them. Raises UserError as it does."""

    async def step(row: Row, context: Context) -> Columns:
        return await translate_text(row["answer"], row["lang"], row["id"], settings, examples, context)

    return step


def check_samples(gates: Gates) -> Filter:
    """Find each sample's fault, if it has one; column `sample_faults`, null for a sound sample.

    The faults are `empty_translation`, `unfinished`, `untranslated`, `length_ratio`, `repetition` and `wrong_language`. A row without a
    sound sample is dropped with the fault that most of its samples have.
    """

    def check(row: Row) -> Columns | Drop:
        faults = [
            sample_fault(sample, finished, row, gates) for sample, finished in zip(row["samples"], row["samples_finished"], strict=True)
        ]
        if None in faults:
            return {"sample_faults": faults}
        return Drop(Counter(filter(None, faults)).most_common(1)[0][0])

    return check


def sample_fault(sample: list[str], finished: bool, row: Row, gates: Gates) -> str | None:
    """Why a translation, given as its segments, cannot be used."""
    pairs = list(zip(row["segments"], sample, strict=True))
    if any(_has_letters(source) and not _has_letters(target) for source, target in pairs):
        return "empty_translation"
    if not finished:
        return "unfinished"
    lang, text = row["lang"], join_segments(sample, row["gaps"], row["lang"])
    if copied_ratio(row["answer"], text) > gates.max_untranslated_ratio:
        return "untranslated"
    if not gates.min_length_ratio <= len(text) * density(lang) / len(row["answer"]) <= gates.max_length_ratio:
        return "length_ratio"
    if is_repetitive(text):
        return "repetition"
    found = probabilities(text)
    own = sum(found.get(code, 0.0) for code in SIMILAR[lang])
    return "wrong_language" if own < gates.min_language_probability else None


def _has_letters(text: str) -> bool:
    return any(map(str.isalpha, text))
