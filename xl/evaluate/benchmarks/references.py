"""Reference answers to open-ended requests, in AlpacaEval's format of model outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xl.errors import UserError
from xl.evaluate.benchmarks.task import Item
from xl.evaluate.tables import read_rows
from xl.pages.language import language_code


@dataclass(frozen=True)
class References:
    """Reference answers by language and instruction, and whose they are."""

    name: str
    answers: Mapping[tuple[str, str], str]

    def answer(self, item: Item, style: str = "") -> str | None:
        """The answer to an item: to its request as it was sent, to that without its style, or to the instruction in it."""
        asked = item.prompt, item.prompt.removesuffix(style).rstrip(), item.text
        return next((self.answers[item.lang, text] for text in asked if (item.lang, text) in self.answers), None)


def read_references(path: str, languages: Sequence[str]) -> References:
    """Reference answers in AlpacaEval's format of model outputs: `instruction`, `output`, and `generator`, the model that wrote them.

    Where answers in several languages are wanted, `lang` says which one an answer is in.

    Raises:
        UserError: the file cannot be read, a row is not in the format, or two rows answer one instruction.
    """
    answers: dict[tuple[str, str], str] = {}
    names: set[str] = set()
    for number, row in enumerate(read_rows(path, ["instruction", "output"]), 1):
        where = f"{path}: row {number}"
        key = _language(row, languages, where), _text(row, "instruction", where)
        if key in answers:
            raise UserError(f"{where}: this instruction has been answered before in this language ({key[0]})")
        answers[key] = _text(row, "output", where)
        names.add(str(row.get("generator") or Path(path).name))
    if len(names) > 1:
        raise UserError(f"{path}: the answers of {len(names)} models ({', '.join(sorted(names)[:3])}); give those of one")
    if not answers:
        raise UserError(f"{path}: no answers in it")
    return References(names.pop(), answers)


def _language(row: Mapping[str, Any], languages: Sequence[str], where: str) -> str:
    if row.get("lang") is None and len(languages) == 1:
        return languages[0]
    lang = language_code(str(row.get("lang")))
    if lang is None:
        raise UserError(f"{where}: `lang` must be a language such as de, for answers are wanted in {', '.join(languages)}")
    return lang


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    if not isinstance(row[column], str):
        raise UserError(f"{where}: `{column}` must be a text, but is {row[column]!r}")
    return str(row[column]).strip()
