"""Score annotations that were made elsewhere: files in AlpacaEval's format (github.com/tatsu-lab/alpaca_eval)."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from xl.errors import UserError
from xl.evaluate.intervals import Estimate
from xl.evaluate.length_control import length_controlled_estimate, length_controlled_rate
from xl.evaluate.winrate import TIE, Pair, Rate, WinRate, win_rate

_COLUMNS = ("instruction", "output_1", "output_2", "preference")
_NAMES = ("generator_1", "generator_2", "annotator")
_PROMPT = "prompt"
"""Column of our own files: names an instruction in all the languages that it is asked in, so that they are drawn together."""
_UNNAMED = "unnamed"
_RATE_FIGURES = (
    *("win_rate", "standard_error", "win_rate_low", "win_rate_high", "discrete_win_rate"),
    *("n_wins", "n_wins_base", "n_draws"),
)
_LABELS = (
    ("win_rate", "win rate, %", 2),
    ("standard_error", "standard error, points", 2),
    ("win_rate_low", "95 % interval from, %", 2),
    ("win_rate_high", "95 % interval to, %", 2),
    ("discrete_win_rate", "discrete win rate, %", 2),
    ("length_controlled_winrate", "length-controlled win rate, %", 2),
    ("lc_standard_error", "standard error, points", 2),
    ("lc_win_rate_low", "95 % interval from, %", 2),
    ("lc_win_rate_high", "95 % interval to, %", 2),
    ("n_wins", "wins", 0),
    ("n_wins_base", "losses", 0),
    ("n_draws", "draws", 0),
    ("n_total", "pairs with a verdict", 0),
    ("n_invalid", "pairs without, in no rate", 0),
    ("avg_length", "mean length, characters", 0),
    ("avg_length_reference", "mean length of the reference", 0),
    ("length_ratio", "length ratio", 2),
)
"""Rows of the printed table: key of the figure, label, decimals."""


@dataclass(frozen=True)
class ScoredFile:
    """What a file of annotations says: who was compared with whom by which judge, and how it went."""

    reference: str
    model: str
    annotator: str
    result: WinRate
    length_controlled: float | None
    """In [0, 1]; None where the win rate is withheld or length cannot be told from the model."""
    length_controlled_estimate: Estimate | None
    """The same with its interval; None also where some draw of prompts has wins or losses only."""


def score_winrate(path: Path, seed: int) -> ScoredFile:
    """Win rate of the file's `generator_2` over its `generator_1`.

    Raises:
        UserError: the file cannot be read, lacks a column, or compares more than one pair of models.
        MissingExtra: scikit-learn is not installed.
    """
    rows = _read_rows(path)
    reference, model, annotator = (_only_name(rows, column, path) for column in _NAMES)
    pairs = [_pair(row) for row in rows]
    result = win_rate(pairs, seed)
    controlled, estimate = None, None
    if result.rate:
        judged = [(scores[0], pair.model_num_chars, pair.reference_num_chars) for pair in pairs if (scores := pair.valid_scores)]
        preferences, ours, theirs = zip(*judged, strict=True)
        controlled = length_controlled_rate(preferences, ours, theirs)
        estimate = length_controlled_estimate(preferences, ours, theirs, [pair.prompt for pair in pairs if pair.valid_scores], seed)
    return ScoredFile(reference, model, annotator, result, controlled, estimate)


def figures(scored: ScoredFile) -> dict[str, Any]:
    """The figures under AlpacaEval's names where it has one: rates in percent, lengths in characters, null where there is none."""
    result = scored.result
    return {
        "model": scored.model,
        "reference": scored.reference,
        "annotator": scored.annotator,
        **_rate_figures(result.rate),
        "length_controlled_winrate": None if scored.length_controlled is None else 100 * scored.length_controlled,
        **_length_controlled_figures(scored.length_controlled_estimate),
        "n_total": result.num_pairs - result.num_invalid_pairs,
        "n_invalid": result.num_invalid_pairs,
        "avg_length": int(result.model_mean_chars),
        "avg_length_reference": int(result.reference_mean_chars),
        "length_ratio": result.length_ratio,
        "withheld": result.withheld,
    }


def _length_controlled_figures(estimate: Estimate | None) -> dict[str, float | None]:
    names = ("lc_standard_error", "lc_win_rate_low", "lc_win_rate_high")
    if estimate is None:
        return dict.fromkeys(names)
    return dict(zip(names, (100 * estimate.standard_error, 100 * estimate.low, 100 * estimate.high), strict=True))


def _rate_figures(rate: Rate | None) -> dict[str, float | None]:
    if rate is None:
        return dict.fromkeys(_RATE_FIGURES)
    mean = rate.mean
    percentages = (100 * x for x in (mean.value, mean.standard_error, mean.low, mean.high, rate.discrete_win_rate))
    values = [*(None if math.isnan(x) else x for x in percentages), rate.num_wins, rate.num_losses, rate.num_draws]
    return dict(zip(_RATE_FIGURES, values, strict=True))


def read_published(path: Path, model: str) -> dict[str, Any]:
    """A model's published figures, from a JSON object of models.

    Raises:
        UserError: the file cannot be read or does not name the model.
    """
    published = _parse_json(_read_text(path), path)
    if not isinstance(published, dict) or not isinstance(published.get(model), dict):
        raise UserError(f"--published {path}: holds no figures of {model!r}; it must be a JSON object with one object for each model")
    found: dict[str, Any] = published[model]
    return found


def print_winrate(scored: ScoredFile, published: dict[str, Any] | None, console: Console) -> None:
    """The figures as a table, with the published ones beside if there are any."""
    title = f"{scored.model} against {scored.reference}, judged by {scored.annotator}"
    table = Table(title=Text(title), title_justify="left", header_style="bold")
    table.add_column("figure")
    table.add_column("this file", justify="right")
    if published is not None:
        table.add_column("published", justify="right")
    values = figures(scored)
    for key, label, decimals in _LABELS:
        cells = [_cell(values[key], decimals)] + ([] if published is None else [_cell(published.get(key), decimals)])
        table.add_row(label, *cells)
    console.print(table)
    if scored.result.withheld:
        console.print(f"no win rate: {scored.result.withheld}", highlight=False)
    elif published is not None:
        console.print(
            "The length-controlled rate lacks AlpacaEval's instruction-difficulty term and its fit to gamed baselines, which exist for its "
            "English prompts alone: it is not comparable with the published one.",
            highlight=False,
        )


def _cell(value: Any, decimals: int) -> str:
    try:
        return "–" if value is None else f"{float(value):,.{decimals}f}"
    except (TypeError, ValueError):
        return escape(str(value))


def _pair(row: dict[str, Any]) -> Pair:
    reference, model = row.get("output_1"), row.get("output_2")
    is_readable = isinstance(reference, str) and isinstance(model, str)
    is_identical = is_readable and reference == model
    score = TIE if is_identical else _score(row.get("preference"))
    return Pair(
        prompt=str(row.get(_PROMPT) or row.get("instruction")),
        lang="und",
        scores=(score if is_readable else None,),
        model_num_chars=len(str(model or "")),
        reference_num_chars=len(str(reference or "")),
        is_identical=is_identical,
    )


def _score(preference: Any) -> float | None:
    """AlpacaEval's preference (1 the reference wins … 2 the model wins; 0, in its older files, a draw) as a score of the model."""
    if isinstance(preference, bool) or not isinstance(preference, int | float):
        return None
    if preference == 0:
        return TIE
    return preference - 1 if 1 <= preference <= 2 else None


def _only_name(rows: list[dict[str, Any]], column: str, path: Path) -> str:
    names = sorted({str(row[column]) for row in rows if row.get(column) is not None})
    if len(names) > 1:
        raise UserError(f"{path}: column {column!r} holds {len(names)} names ({names[0]}, {names[1]}, …); score one comparison a file")
    return names[0] if names else _UNNAMED


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows = _read_parquet(path)
    elif path.suffix in (".jsonl", ".ndjson"):
        lines = enumerate(_read_text(path).split("\n"), start=1)
        rows = _objects(((f"line {number}", _parse_json(line, path, f"line {number}: ")) for number, line in lines if line.strip()), path)
    elif path.suffix == ".json":
        whole = _parse_json(_read_text(path), path, hint="; if each line is an object, name the file .jsonl")
        if not isinstance(whole, list):
            raise UserError(f"{path}: must hold a list of objects, but holds {type(whole).__name__}")
        rows = _objects(((f"row {number}", row) for number, row in enumerate(whole, start=1)), path)
    else:
        raise UserError(f"{path}: annotations are read from .json, .jsonl, .ndjson and .parquet")
    if not rows:
        raise UserError(f"{path}: holds no annotations")
    present = {column for row in rows for column in row}
    if missing := [column for column in _COLUMNS if column not in present]:
        raise UserError(f"{path}: column {missing[0]!r} is missing; AlpacaEval's annotations have {', '.join((*_COLUMNS, *_NAMES))}")
    return rows


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    try:
        available = pq.read_schema(path).names
        rows: list[dict[str, Any]] = pq.read_table(path, columns=[c for c in (*_COLUMNS, *_NAMES, _PROMPT) if c in available]).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(_unreadable(path, error)) from None
    return rows


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(_unreadable(path, error)) from None


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path}: there is no such file"
    return f"{path}: cannot be read: {str(error).splitlines()[0]}"


def _parse_json(text: str, path: Path, where: str = "", hint: str = "") -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: {where}not JSON: {error}{hint}") from None


def _objects(rows: Iterable[tuple[str, Any]], path: Path) -> list[dict[str, Any]]:
    found = []
    for where, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{path}: {where} must be an object, but is {type(row).__name__}")
        found.append(row)
    return found
