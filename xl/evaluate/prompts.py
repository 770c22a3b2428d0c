"""Prompts to evaluate on: English instructions, each with a request for the language of the answer.

XL-AlpacaEval (Iyer et al., arXiv 2503.22973): AlpacaEval's instructions less those that only make sense in English. The request for the
language varies in wording and in place (start, middle, end) as in the Language Confusion Benchmark (Marchisio et al., arXiv 2406.20052).
"""

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import yaml
from pydantic import Field, model_validator

from xl.errors import UserError
from xl.evaluate.hub import hub_rows, is_on_hub
from xl.evaluate.tables import read_rows
from xl.pages.language import LANGUAGE_NAMES, language_code
from xl.records import Row, record_key, row_id, row_seed
from xl.settings import Strict
from xl.train.prompts import request

PROMPT_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "lang", "language", "prompt", "instruction", "request", "reference")],
)
"""One prompt in one answer language: `lang` is that language's code and `language` its English name, `prompt` names the prompt in all
languages, `request` is the instruction with the request for the language, `reference` a reference answer or null."""

_FILES = Path(__file__).parent / "xl_alpacaeval"
# The first of several sentences; none where a colon, quotation or line break shows that what follows is material to work on.
_FIRST_SENTENCE = re.compile(r"""[^\n:;"“”«`<>{}\[\]]*?[a-z0-9)]{2}[.?!](?=\s+[A-Z(]|\s*\n)""")


class PromptSet(Strict):
    """Where prompts come from, and which columns hold what."""

    from_: str = Field(alias="from")
    """A CSV, JSON, JSON Lines or Parquet file, local or on any store that fsspec knows; or the id of a dataset on the hub."""
    kind: Literal["plain", "xl_alpacaeval"] = "plain"
    """`xl_alpacaeval` leaves out AlpacaEval's instructions that only make sense in English."""
    split: str | None = None
    """Split of a dataset on the hub; by default its only one."""
    revision: str | None = None
    """Branch, tag or commit of a dataset on the hub."""
    source: str = "prompts"
    """Name of the set: part of every row's id."""
    instruction: str = "instruction"
    id: str | None = None
    """Column that names a prompt; by default its instruction does."""
    lang: str | None = None
    """Column that holds the language of the answer; without one, every prompt is asked in every language."""
    reference: str | None = None
    """Column that holds an answer to compare with, in the language of the answer."""
    limit: int | None = Field(None, gt=0)
    """Most prompts of each language: the first ones."""
    clauses: Literal["plain", "varied", "none"] = "plain"
    """How the language is asked for: as in training, in varied words and places, or not at all because the instruction does."""

    @model_validator(mode="after")
    def _fits_together(self) -> "PromptSet":
        if self.lang is None and self.reference is not None:
            raise ValueError("`reference` needs `lang`: a reference answer is in one language")
        if self.lang is None and self.clauses == "none":
            raise ValueError("clauses: none needs `lang`: nothing else would tell the languages apart")
        return self


@dataclass(frozen=True)
class PromptLoad:
    """The rows, in the columns of `PROMPT_SCHEMA`, and per language the prompts that were left out, by reason."""

    rows: list[Row]
    places: list[int]
    """Of each row, its place among all prompts of its language, from 1: what translations of a set have in common."""
    excluded: dict[str, Counter[str]]

    @property
    def left_out(self) -> str:
        """How many were left out over all languages, by reason, in words; empty where none was."""
        reasons = sum(self.excluded.values(), Counter[str]())
        return ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())


class _Prompt(NamedTuple):
    number: int
    instruction: str
    id: str | None
    lang: str | None
    reference: str | None


QUESTION_SEED = 7
"""Draws which questions are asked and how they are worded. It is no run's own: runs that differ in their seed are asked the same."""


def load_prompts(settings: PromptSet, languages: Sequence[str], seed: int) -> PromptLoad:
    """The prompts of a set in the languages wanted, in the set's order.

    A row's id comes from the set's name, the prompt and the language alone, and the wording of its request from the seed and the prompt:
    another language or another prompt changes no row. Rows in other languages, known or not, are passed over whatever they hold; those
    without an instruction are left out as `empty`.

    Raises:
        UserError: the set cannot be read, lacks a column or has a row that cannot be told from others, or nothing is left; one line.
        MissingExtra: the set is on the hub, and the library `datasets` is not installed.
    """
    wanted = list(dict.fromkeys(_known(language, "languages") for language in languages))
    reasons = exclusions() if settings.kind == "xl_alpacaeval" else {}
    load = PromptLoad([], [], {lang: Counter() for lang in wanted})
    seen, num_prompts, num_kept = Counter[tuple[str, str]](), Counter[str](), Counter[str]()
    for prompt in _prompts(settings, wanted):
        reason = reasons.get(exclusion_key(prompt.instruction)) if prompt.instruction else "empty"
        for lang in [prompt.lang] if prompt.lang else wanted:
            key = lang, prompt.id or prompt.instruction
            seen[key] += 1
            num_prompts[lang] += 1
            if prompt.id and seen[key] > 1:
                raise UserError(f"{settings.from_}: row {prompt.number}: the id {prompt.id!r} has come before in this language ({lang})")
            if reason:
                load.excluded[lang][reason] += 1
            elif num_kept[lang] != settings.limit:
                num_kept[lang] += 1
                load.rows.append(_row(settings, prompt, lang, seen[key] - 1, seed))
                load.places.append(num_prompts[lang])
    if not load.rows:
        why = f" (left out: {load.left_out})" if load.left_out else ""
        raise UserError(f"{settings.from_}: no prompt is left for {', '.join(wanted) or 'no language'}{why}")
    return load


def _row(settings: PromptSet, prompt: _Prompt, lang: str, occurrence: int, seed: int) -> Row:
    key, language = prompt.id or prompt.instruction, LANGUAGE_NAMES[lang]
    name = prompt.id or row_id(settings.source, key, occurrence)
    return {
        "id": row_id(settings.source, record_key(key, lang), occurrence),
        "lang": lang,
        "language": language,
        "prompt": name,
        "instruction": prompt.instruction,
        "request": _request(settings, prompt.instruction, language, name, seed),
        "reference": prompt.reference,
    }


def _request(settings: PromptSet, instruction: str, language: str, prompt: str, seed: int) -> str:
    if settings.clauses == "none":
        return instruction
    return request(instruction, language) if settings.clauses == "plain" else varied_request(instruction, language, prompt, seed)


def varied_request(instruction: str, language: str, prompt: str, seed: int) -> str:
    """The instruction with a request for the language whose place and wording are drawn by the seed and the prompt's key.

    Each place that the instruction has is equally likely; only one of several sentences has a middle, behind the first of them.
    """
    text = instruction.strip()
    first = _FIRST_SENTENCE.match(text)
    wordings = {place: texts for place, texts in clauses().items() if first or place != "middle"}
    place = _draw(sorted(wordings), seed, prompt, "clause place")
    clause = _draw(wordings[place], seed, prompt, "clause wording").format(language=language)
    if first and place == "middle":
        return f"{first[0]} {clause}{text[first.end() :]}"
    before, after = (clause, text) if place == "start" else (text, clause)
    is_prose = "\n" not in text and before.endswith((".", "?", "!"))
    return before + (" " if is_prose else "\n\n") + after


def _draw(choices: Sequence[str], seed: int, prompt: str, what: str) -> str:
    return choices[row_seed(seed, prompt, what) % len(choices)]


@functools.cache
def clauses() -> dict[str, list[str]]:
    """Wordings of the request for a language by place: `start`, `middle`, `end`."""
    found: dict[str, list[str]] = yaml.safe_load((_FILES / "clauses.yaml").read_text("utf-8"))
    return found


@functools.cache
def exclusions() -> dict[str, str]:
    """Why AlpacaEval's instructions are left out, by `exclusion_key`."""
    lines = (_FILES / "exclusions.tsv").read_text("utf-8").splitlines()
    return dict(line.split("\t") for line in lines if not line.startswith("#"))


def exclusion_key(instruction: str) -> str:
    """Names an instruction without saying it: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(instruction.strip().encode()).hexdigest()[:16]


def _prompts(settings: PromptSet, wanted: Sequence[str]) -> Iterator[_Prompt]:
    """The rows in the languages wanted, in the set's order; an empty one has neither instruction nor id.

    Raises UserError, by its first row, for a set none of whose rows can be used: its columns are others than the recipe says.
    """
    columns = [name for name in (settings.instruction, settings.id, settings.lang, settings.reference) if name]
    on_hub = is_on_hub(settings.from_)
    if not on_hub and (settings.split or settings.revision):
        raise UserError(f"{settings.from_}: `split` and `revision` belong to datasets on the hub")
    rows = hub_rows(settings.from_, columns, settings.split, settings.revision) if on_hub else read_rows(settings.from_, columns)
    first_error, has_usable = "", False
    for number, row in enumerate(rows, 1):
        where = f"{settings.from_}: row {number}"
        lang = _code(row[settings.lang]) if settings.lang else None
        if settings.lang and lang is None:
            first_error = first_error or _unknown(row[settings.lang], where)
        elif lang is None or lang in wanted:
            prompt = _prompt(settings, number, row, lang, where)
            if prompt.instruction:
                has_usable = True
            else:
                first_error = first_error or f"{where}: `{settings.instruction}` is empty"
            yield prompt
        else:
            has_usable = True
    if first_error and not has_usable:
        raise UserError(first_error)


def _prompt(settings: PromptSet, number: int, row: Row, lang: str | None, where: str) -> _Prompt:
    instruction = _text(row[settings.instruction], settings.instruction, where)
    if instruction is None:
        return _Prompt(number, "", None, lang, None)
    name = None
    if settings.id and not (name := _text(row[settings.id], settings.id, where)):
        raise UserError(f"{where}: `{settings.id}` is empty")
    reference = _text(row[settings.reference], settings.reference, where) if settings.reference else None
    return _Prompt(number, instruction, name, lang, reference)


def _text(value: Any, column: str, where: str) -> str | None:
    """A value as text, None if there is nothing in it; whole numbers may be ids."""
    if not isinstance(value, str | int | None):
        raise UserError(f"{where}: `{column}` is {type(value).__name__}, not text")
    text = "" if value is None else str(value).strip()
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: `{column}` is not valid Unicode: {error.reason} at character {error.start}") from None
    return text or None


def _known(language: str, where: str) -> str:
    code = _code(language)
    if code is None:
        raise UserError(_unknown(language, where))
    return code


def _code(language: Any) -> str | None:
    return language_code(language) if isinstance(language, str) else None


def _unknown(language: Any, where: str) -> str:
    return f"{where}: unknown language {language!r}; use ISO 639 codes such as de, or English names such as German"
