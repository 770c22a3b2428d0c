"""Parallel text: sentences and their translations, from Moses pairs of files, tab-separated values and translation memories.

These are the formats of OPUS (https://opus.nlpl.eu). Files may be compressed (.gz, .zst, .bz2, .xz) and lie on any store that fsspec knows.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import Field, field_validator, model_validator

from xl.errors import UserError
from xl.files import opened
from xl.pairs.tmx import read_units
from xl.settings import Language, Strict

_COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")


class PairColumns(Strict):
    """Columns of tab-separated values: numbers from 1, as `cut -f` counts, or names that the first line gives."""

    english: int | str = 1
    other: int | str = 2
    document: int | str | None = None

    @model_validator(mode="after")
    def _all_of_a_kind(self) -> "PairColumns":
        kinds = {type(column) for column in (self.english, self.other, self.document) if column is not None}
        if len(kinds) > 1:
            raise ValueError("name the columns or number them: a file has a line of names or it has none")
        if int in kinds and min(column for column in (self.english, self.other, self.document) if isinstance(column, int)) < 1:
            raise ValueError("columns are numbered from 1")
        return self


class ParallelText(Strict):
    """English text and its translation into one language.

    `from: [news.en, news.de]` is a Moses pair of files, English first; `from: news.tsv` and `from: news.tmx` hold both languages.
    """

    lang: Language
    """The language beside English."""
    from_: tuple[str, ...] = Field(alias="from", min_length=1, max_length=2)
    columns: PairColumns = PairColumns()
    """Columns of tab-separated values."""
    documents: str | None = None
    """Moses: file that names each line's document."""
    document_property: str | None = None
    """TMX: type of the `prop` that names a unit's document."""
    limit: int | None = Field(None, gt=0)
    """Most pairs to read: the first ones."""
    source: str = "parallel"
    """Name of the text: part of every sample's id."""

    @field_validator("from_", mode="before")
    @classmethod
    def _one_or_two(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> "ParallelText":
        if self.lang == "en":
            raise ValueError("lang: en is one of the two languages always; name the other one")
        kind = self.kind
        if kind is None:
            raise ValueError(f"from: {self.from_[0]!r} ends neither in .tsv nor in .tmx; a Moses pair is two files, English first")
        for key, owner in (("columns", "tsv"), ("documents", "moses"), ("document_property", "tmx")):
            # Its default is what a run notes of a recipe that does not say it.
            if getattr(self, key) != type(self).model_fields[key].default and kind != owner:
                raise ValueError(f"`{key}` belongs to {owner}, and {' and '.join(self.from_)} is {kind}")
        return self

    @property
    def kind(self) -> str | None:
        """`moses`, `tsv` or `tmx`, by the number and the names of the files; None if that cannot be told."""
        if len(self.from_) == 2:
            return "moses"
        name = self.from_[0]
        for suffix in _COMPRESSIONS:
            name = name.removesuffix(suffix)
        return next((kind for kind in ("tsv", "tmx") if name.endswith(f".{kind}")), None)


class SentencePair(NamedTuple):
    """A sentence in English and in the other language; `error` names the file and the row of one that cannot be read."""

    english: str
    other: str
    document: str | None = None
    error: str | None = None


def read_pairs(text: ParallelText) -> Iterator[SentencePair]:
    """The text's sentence pairs, in the order of its files.

    Raises:
        UserError: a file is missing or damaged, lacks a column or a language, or the files of a Moses pair are not equally long.
    """
    read = {"moses": _read_moses, "tsv": _read_tsv, "tmx": _read_tmx}[text.kind or ""]
    return itertools.islice(read(text), text.limit)


def _lines(path: str) -> Iterator[bytes]:
    with opened(path) as stream:
        yield from stream


def _read_moses(text: ParallelText) -> Iterator[SentencePair]:
    paths = [*text.from_, *([text.documents] if text.documents else [])]
    streams = [_lines(path) for path in paths]
    for number, lines in enumerate(itertools.zip_longest(*streams), 1):
        if None in lines:
            last = zip(paths, lines, streams, strict=True)
            counts = [(path, number - 1 if line is None else number + sum(1 for _ in stream)) for path, line, stream in last]
            lengths = ", ".join(f"{path} has {count:,} lines" for path, count in counts)
            raise UserError(f"parallel text must agree line by line, but {lengths}")
        yield _moses_pair(paths, lines, number)


def _moses_pair(paths: list[str], lines: Sequence[bytes], number: int) -> SentencePair:
    cells = []
    for path, line in zip(paths, lines, strict=True):
        try:
            cells.append(_decoded(line, number))
        except UnicodeDecodeError as error:
            return _unreadable(f"{path}: line {number} is not UTF-8: {error.reason}")
    return _pair(cells)


def _read_tsv(text: ParallelText) -> Iterator[SentencePair]:
    path, columns = text.from_[0], text.columns
    wanted = [column for column in (columns.english, columns.other, columns.document) if column is not None]
    with opened(path) as stream:
        lines = enumerate(stream, 1)
        if isinstance(columns.english, str):
            header = _decoded(next(lines, (1, b""))[1], 1).split("\t")
            if missing := [column for column in wanted if column not in header]:
                raise UserError(f"{path}: no column {missing[0]!r} (there are: {', '.join(header)}); name the right one under `columns:`")
            places = [header.index(str(column)) for column in wanted]
        else:
            places = [int(column) - 1 for column in wanted]
        for number, line in lines:
            yield _tsv_pair(f"{path}: line {number}", line, number, places)


def _tsv_pair(where: str, line: bytes, number: int, places: list[int]) -> SentencePair:
    try:
        cells = _decoded(line, number).split("\t")
    except UnicodeDecodeError as error:
        return _unreadable(f"{where} is not UTF-8: {error.reason}")
    if len(cells) <= max(places):
        return _unreadable(f"{where} has {len(cells)} columns, and {max(places) + 1} are wanted")
    return _pair([cells[place] for place in places])


def _pair(cells: list[str]) -> SentencePair:
    english, other, *document = (cell.strip() for cell in cells)
    return SentencePair(english, other, next(iter(document), None) or None)


def _unreadable(error: str) -> SentencePair:
    return SentencePair("", "", error=error)


def _read_tmx(text: ParallelText) -> Iterator[SentencePair]:
    path = text.from_[0]
    with opened(path) as stream:
        for unit in read_units(path, stream, ("en", text.lang), text.document_property):
            yield SentencePair(unit.segments.get("en", ""), unit.segments.get(text.lang, ""), unit.document)


def _decoded(line: bytes, number: int) -> str:
    return line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
