"""Score files of answers that were made elsewhere: CSV, JSON, JSON Lines or Parquet with the columns `completion` and `language`.

That is the output format of the Language Confusion Benchmark; by its other columns (`task`, `model`, `source`) answers can be chosen.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from xl.errors import UserError
from xl.evaluate.identify import Identifier
from xl.evaluate.language_confusion import (
    BENCHMARK_LANGUAGES,
    AnswerCheck,
    ConfusionScore,
    MeanScore,
    Protocol,
    check_answer,
    confusion_score,
    mean_score,
)
from xl.evaluate.tables import read_rows
from xl.pages.language import LANGUAGE_NAMES, language_code

_COLUMNS = ("completion", "language")


@dataclass(frozen=True)
class Completion:
    """An answer and the code of the language that was wanted."""

    text: str | None
    language: str


@dataclass(frozen=True)
class FileScore:
    """What `xl score language` prints."""

    protocol: Protocol
    identifiers: tuple[str, ...]
    languages: dict[str, ConfusionScore]
    mean: MeanScore


def parse_condition(text: str) -> tuple[str, str]:
    """`task=crosslingual` from the command line. Raises UserError."""
    column, equals, value = text.partition("=")
    if not equals or not column:
        raise UserError(f"--where {text!r}: write it as column=value")
    return column, value


def read_completions(path: Path, where: Mapping[str, str] | None = None) -> list[Completion]:
    """The file's answers, in its order; languages may be codes or English names.

    `where` takes only the rows that have these values in these columns.

    Raises:
        UserError: the file is missing, empty or damaged, lacks a column, or has a value that cannot be used; names the file and row.
    """
    where = where or {}
    rows = enumerate(read_rows(str(path), [*_COLUMNS, *where]), 1)
    completions = [_completion(path, number, row) for number, row in rows if all(str(row[k]) == v for k, v in where.items())]
    if not completions:
        raise UserError(f"{path}: no answers in it" + "".join(f" with {column}={value}" for column, value in where.items()))
    return completions


def _completion(path: Path, number: int, row: dict[str, Any]) -> Completion:
    text, language = row["completion"], row["language"]
    if text is not None and not isinstance(text, str):
        raise UserError(f"{path}: row {number}: `completion` is {type(text).__name__}, not text")
    code = language_code(language) if isinstance(language, str) else None
    if code is None:
        raise UserError(
            f"{path}: row {number}: unknown language {language!r}; use ISO 639 codes such as de, or English names such as German"
        )
    return Completion(text, code)


def score_completions(completions: Iterable[Completion], identifiers: Sequence[Identifier], protocol: Protocol) -> FileScore:
    """Pass rates per language and their mean. Raises UserError for a language that no identifier knows."""
    checks: dict[str, list[AnswerCheck]] = {}
    for completion in completions:
        checks.setdefault(completion.language, []).append(check_answer(completion.text, completion.language, identifiers, protocol))
    scores = {lang: confusion_score(checks[lang]) for lang in sorted(checks)}
    return FileScore(protocol, tuple(identifier.name for identifier in identifiers), scores, mean_score(list(scores.values())))


def print_score(score: FileScore, as_json: bool, console: Console) -> None:
    """Print the score as a table, or as JSON with the same figures."""
    if as_json:
        print(json.dumps(asdict(score), indent=1))
        return
    table = Table(title=f"language confusion, protocol {score.protocol!r}, identified by {' and '.join(score.identifiers)}")
    table.add_column("language")
    for name in ("answers", "skipped", "line pass rate", "95 % interval", "word pass rate", "harmonic mean"):
        table.add_column(name, justify="right")
    for lang, one in score.languages.items():
        interval = "–" if one.interval is None else f"{one.interval[0]:.3f}–{one.interval[1]:.3f}"
        rates = (_rate(one.line_pass_rate), interval, _rate(one.word_pass_rate), _rate(one.language_confusion_pass_rate))
        table.add_row(LANGUAGE_NAMES[lang], f"{one.num_answers:,}", f"{one.num_skipped:,}", *rates)
    table.add_section()
    mean = score.mean
    table.add_row("mean", "", "", _rate(mean.line_pass_rate), "", _rate(mean.word_pass_rate), _rate(mean.language_confusion_pass_rate))
    console.print(table)
    outside = sorted(set(score.languages) - BENCHMARK_LANGUAGES)
    if score.protocol == "published" and outside:
        console.print(f"not in the published benchmark: {', '.join(outside)}. --protocol ours judges such answers better", highlight=False)


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
