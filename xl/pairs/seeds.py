"""Seed pairs: texts in many languages and the English instructions that they answer, written by people.

X-Instruction (Li et al., arXiv 2405.19744) trains its first models on them. Where the paper's come from is not published; ours are a
file's.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field

from xl.errors import UserError
from xl.evaluate.hub import hub_rows, is_on_hub
from xl.evaluate.tables import read_rows
from xl.pages.language import LANGUAGE_NAMES, language_code
from xl.pages.scripts import folded
from xl.records import Row, record_key, row_id, seeded_rank
from xl.settings import Strict


class Seeds(Strict):
    """Where seed pairs are, and how many of them are kept for measuring."""

    from_: tuple[str, ...] = Field(alias="from", min_length=1)
    """Files (JSON Lines, JSON, Parquet, CSV), or one id of a dataset on the hub."""
    lang: str = "lang"
    """Column that holds the language of the text."""
    instruction: str = "instruction"
    response: str = "response"
    split: str | None = None
    """Split of a dataset on the hub; by default its only one."""
    revision: str | None = None
    """Branch, tag or commit of a dataset on the hub."""
    num_held_out: int = Field(0, ge=0)
    """Seeds that no model is trained on, as equally from the languages as may be."""


class Seed(NamedTuple):
    """A text and the instruction that it answers."""

    id: str
    lang: str
    instruction: str
    response: str

    @property
    def language(self) -> str:
        """The language's English name."""
        return LANGUAGE_NAMES[self.lang]


class SeedSplit(NamedTuple):
    """Seeds to train on, and seeds to measure with."""

    train: list[Seed]
    held_out: list[Seed]
    num_empty: int
    """Rows in these languages that were passed over: their instruction or their response is empty or no text."""


def read_seeds(seeds: Seeds, languages: Sequence[str], seed: int) -> SeedSplit:
    """The seeds in these languages; which are held out depends on the seed, the languages and each pair's own text.

    Rows in other languages, known or not, are passed over whatever they hold.

    Raises:
        UserError: a file is missing, lacks a column or has no row that can be used, or too few are left to train on.
    """
    found: dict[str, Seed] = {}
    num_empty = 0
    for path in seeds.from_:
        pairs, without_text = _pairs_of(path, seeds, languages)
        found |= {pair.id: pair for pair in pairs}
        num_empty += without_text
    if len(found) <= seeds.num_held_out:
        there = f"{len(found):,} pairs are in {', '.join(languages)}" + (f" ({num_empty:,} more are empty)" if num_empty else "")
        raise UserError(f"seeds: {there}, and {seeds.num_held_out:,} are to be held out; there is nothing to train on")
    held_out = _held_out(list(found.values()), seeds.num_held_out, seed)
    if len(held_out) == len(found):
        raise UserError(f"seeds: of {len(found):,} pairs none is left to train on, as others with the same text are held out")
    train = [pair for pair in found.values() if pair.id not in held_out]
    return SeedSplit(train, [pair for pair in found.values() if pair.id in held_out], num_empty)


def _pairs_of(path: str, seeds: Seeds, languages: Sequence[str]) -> tuple[list[Seed], int]:
    """A file's pairs in these languages, and how many more of its rows are in them and empty.

    Raises UserError, by its first row, for a file none of whose rows can be used: its columns are others than the recipe says.
    """
    columns = [seeds.lang, seeds.instruction, seeds.response]
    rows = hub_rows(path, columns, seeds.split, seeds.revision) if is_on_hub(path) else read_rows(path, columns)
    pairs: list[Seed] = []
    num_empty = num_unwanted = 0
    first_error: UserError | None = None
    for number, row in enumerate(rows, 1):
        lang = language_code(str(row[seeds.lang]))
        if lang is not None and lang not in languages:
            num_unwanted += 1
            continue
        try:
            pairs.append(seed_of(row, seeds, f"{path}: row {number}"))
        except UserError as error:
            first_error = first_error or error
            num_empty += lang is not None
    if first_error and not pairs and not num_unwanted:
        raise first_error
    return pairs, num_empty


def seed_of(row: Row, seeds: Seeds, where: str) -> Seed:
    """The pair that a file's row holds. Raises UserError for an unknown language or an empty text, and says `where`."""
    lang = language_code(str(row[seeds.lang]))
    if lang is None:
        raise UserError(f"{where}: unknown language {row[seeds.lang]!r}; use ISO 639 codes such as de, or English names such as German")
    texts = {name: row[name] for name in (seeds.instruction, seeds.response)}
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}: `{name}` is empty or no text")
    instruction, response = (text.strip() for text in texts.values())
    return Seed(row_id("seeds", record_key(lang, f"{instruction}\0{response}"), 0), lang, instruction, response)


def _held_out(pairs: list[Seed], count: int, seed: int) -> set[str]:
    """Ids of the seeds that come first when the languages take turns, each in a seeded order: so many, or as many more as have the text of
    one of them, for what a model was trained on must not be among what it is asked about.
    """
    by_text: dict[str, dict[str, list[str]]] = {}
    for pair in sorted(pairs, key=lambda pair: seeded_rank(seed, "held out", pair.id)):
        by_text.setdefault(pair.lang, {}).setdefault(folded(pair.response), []).append(pair.id)
    turns = sorted((place, lang, ids) for lang, texts in by_text.items() for place, ids in enumerate(texts.values()))
    found: set[str] = set()
    for _, _, ids in turns:
        if len(found) < count:
            found.update(ids)
    return found
