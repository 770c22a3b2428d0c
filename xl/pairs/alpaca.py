"""Instruction data in Alpaca's format: instruction, input and output, in English or translated.

The format is that of Stanford Alpaca (https://github.com/tatsu-lab/stanford_alpaca). Translations of one data set can be joined item by
item, which gives requests in one language and responses in another, as CrossIn (arXiv 2404.11932) trains on.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field, model_validator

from xl.errors import UserError
from xl.evaluate.tables import read_rows
from xl.pages.language import language_code
from xl.pairs.samples import Direction, DirectionWeights, Seen, direction_between, draw_direction, sample_id
from xl.pairs.translate_samples import TranslateSamples
from xl.records import Row
from xl.settings import Language, Strict

METHOD = "alpaca"
"""What `method` says of these samples."""


class AlpacaData(Strict):
    """Where a data set is, and which columns hold what. Files are JSON (a list), JSON Lines, Parquet or CSV."""

    files: dict[Language, str] = Field(default_factory=dict)
    """One file a language: `{en: alpaca.json, de: alpaca_de.json}`."""
    from_: str | None = Field(None, alias="from")
    """One file for all languages, told apart by the column `lang`."""
    lang: str | None = None
    """Column that holds the language."""
    instruction: str = "instruction"
    input: str | None = "input"
    """Column with what the instruction is about; null where there is none."""
    output: str = "output"
    id: str | None = None
    """Column that names an item."""
    align_by: Literal["id", "row"] | None = None
    """What translations of an item share: its id, or its place in the file. Directions between two languages need it."""
    translate: TranslateSamples | None = None
    """How the recipe's other languages are made of English data, by `models.translator`; by default all languages are in the files."""
    source: str = "alpaca"
    """Name of the data set: part of every sample's id."""

    @model_validator(mode="after")
    def _fits_together(self) -> "AlpacaData":
        if bool(self.files) == bool(self.from_):
            raise ValueError("give either `files`, one a language, or `from` with the column `lang`")
        if bool(self.from_) != bool(self.lang):
            raise ValueError("`from` and `lang` belong together: the file, and its column that holds the language")
        if self.align_by == "id" and not self.id:
            raise ValueError("align_by: id needs `id`, the column that names an item")
        if self.align_by == "row" and not self.files:
            raise ValueError("align_by: row needs `files`, one a language")
        if self.translate and set(self.files) != {"en"}:
            raise ValueError("translate: the other languages are made of English data; give `files: {en: …}` alone")
        return self

    @property
    def joined_by(self) -> Literal["id", "row"] | None:
        """What translations of an item share: `align_by`, but their place in the English file where they are made here."""
        return "row" if self.translate else self.align_by


@dataclass(frozen=True)
class _Item:
    """A row of a file; `name` is what its translations share, `error` why it cannot be used."""

    lang: str
    id: str
    name: str | None
    place: str
    instruction: str = ""
    input: str = ""
    output: str = ""
    error: str | None = None


def read_alpaca(data: AlpacaData, languages: Sequence[str], weights: DirectionWeights, seed: int, seen: Seen) -> Iterator[Row]:
    """The data set's samples (`SAMPLE_SCHEMA`) in English and in the languages, in the order of the files.

    English items become en-en samples; the others take a direction by `weights`, the other language's side from the English item.
    An item that cannot be used becomes a sample whose `error` names the file and the row. Where `data.translate` is set, what a sample
    says is English also where it is to be in another language.

    Raises:
        UserError: a file is missing or damaged, lacks a column, or holds none of the languages.
    """
    wanted = {"en", *languages}
    crosses = any(weights.get(direction) for direction in (Direction.EN_X, Direction.X_EN))
    assert not crosses or data.joined_by, "directions between two languages need `align_by`"
    english = {item.name: item for item in reversed(list(_items(data, {"en"}))) if not item.error} if crosses else {}
    for item in _to_translate(_items(data, {"en"}), languages) if data.translate else _items(data, wanted):
        sample = sample_id(seen, data.source, item.id, item.lang, item.instruction, item.input, item.output)
        direction = Direction.EN_EN if item.lang == "en" else draw_direction(weights, seed, sample)
        document = f"{data.source} {item.name}" if item.name else None
        yield {"id": sample, "source": data.source, "document": document, **_sides(item, direction, english)}


def _sides(item: _Item, direction: Direction, english: dict[str | None, _Item]) -> Row:
    """A sample's request and response, one of them from the item's English original where the direction wants it."""
    request = response = item
    error = item.error
    if direction in (Direction.EN_X, Direction.X_EN) and not error:
        original = english.get(item.name)
        if original is None:
            error = f"{item.place}: there is no English item {item.name!r} to join it with"
        elif direction == Direction.EN_X:
            request = original
        else:
            response = original
    return {
        "lang": response.lang,
        "request_lang": request.lang,
        "direction": direction_between(request.lang, response.lang),
        "method": METHOD,
        "instruction": request.instruction,
        "input": request.input,
        "response": response.output,
        "error": error,
    }


def _to_translate(items: Iterable[_Item], languages: Sequence[str]) -> Iterator[_Item]:
    """Each English item for English, then for each language that it is going to be translated into."""
    for item in items:
        yield item
        yield from (replace(item, lang=lang) for lang in languages if lang != "en")


def _items(data: AlpacaData, wanted: set[str]) -> Iterator[_Item]:
    files: list[tuple[str, str | None]] = [(path, lang) for lang, path in data.files.items()]
    if data.from_:
        files = [(data.from_, None)]
    columns = [name for name in (data.instruction, data.input, data.output, data.id, data.lang) if name]
    for path, file_lang in files:
        if file_lang and file_lang not in wanted:
            continue
        found: Counter[str] = Counter()
        for number, row in enumerate(read_rows(path, columns), 1):
            lang = file_lang or _language(row[data.lang or ""])
            found[lang] += 1
            if lang in wanted:
                yield _item(data, row, lang, number, path)
        if wanted.isdisjoint(found):
            have = ", ".join(f"{lang} ({count:,})" for lang, count in found.most_common(8)) or "nothing"
            raise UserError(f"{path}: no row is in the languages {', '.join(sorted(wanted))}; found: {have}")


def _language(value: Any) -> str:
    """What the language column says, as a code; what is not known there is left out by its own name."""
    return (language_code(value) if isinstance(value, str) else None) or str(value)


def _item(data: AlpacaData, row: Row, lang: str, number: int, path: str) -> _Item:
    place = f"{path}: row {number}"
    try:
        name = _text(row, data.id)
        texts = [_text(row, column) for column in (data.instruction, data.input, data.output)]
    except ValueError as problem:
        return _Item(lang, "", None, place, error=f"{place}: {problem}")
    shared = {"id": name, "row": str(number), None: None}[data.joined_by]
    return _Item(lang, name, shared, place, *texts)


def _text(row: Row, column: str | None) -> str:
    """A cell's text, empty for a missing one. Raises ValueError for what is no text; whole numbers may be ids."""
    value = row[column] if column else None
    if not isinstance(value, str | int | None):
        raise ValueError(f"`{column}` is {type(value).__name__}, not text")
    text = "" if value is None else str(value).strip()
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"`{column}` is not valid Unicode")
    return text
