"""Pairs that people labelled: does the text answer its instruction? Raters are compared with them."""

from collections.abc import Sequence

from xl.errors import UserError
from xl.evaluate.tables import read_rows
from xl.pages.scripts import folded
from xl.pairs.contrasts import choose_contrasts, pool_of
from xl.pairs.levels import Level
from xl.pairs.rating_set import RatedPair, pair_rows
from xl.pairs.seeds import Seeds, seed_of
from xl.records import Row, record_key

_LEVELS = {"0": Level.BAD, "1": Level.GOOD}


def read_labelled(paths: Sequence[str], num_contrasts: int, seed: int, num_near: int = 0) -> list[Row]:
    """Labelled pairs, each once, in the columns of `xl.pairs.rating_set.PAIR_SCHEMA`, good or bad; `seed` tells pairs of one text.

    The column `contrasts` holds instructions of other texts of the pair's language.

    Args:
        paths: files (JSON Lines, JSON, Parquet, CSV) with `lang`, `instruction`, `text` and `label`: 1 where the text answers the
            instruction, else 0.
        num_contrasts: instructions to hold each pair's own against.
        seed: of their draw.
        num_near: so many of those instructions are of the most similar texts.

    Raises:
        UserError: a file is missing or lacks a column, a row cannot be used, or all labels are the same.
    """
    columns = Seeds.model_validate({"from": paths, "response": "text"})
    found: dict[str, RatedPair] = {}
    for path in paths:
        for number, row in enumerate(read_rows(path, [columns.lang, columns.instruction, columns.response, "label"]), 1):
            where = f"{path}: row {number}"
            pair, level = seed_of(row, columns, where), _LEVELS.get(str(row["label"]))
            if level is None:
                raise UserError(f"{where}: label: {row['label']!r} is neither 1 (the text answers the instruction) nor 0")
            if found.setdefault(pair.id, RatedPair(pair, pair.instruction, pair.response, level, "labelled")).level != level:
                raise UserError(f"{where}: the same pair has another label before")
    if len({pair.level for pair in found.values()}) < 2:
        raise UserError(f"{', '.join(paths)}: pairs of both labels, 0 and 1, are wanted")
    rows = [{**row, "seed": record_key(row["lang"], folded(row["text"]))} for row in pair_rows(found.values())]
    pages: dict[str, list[tuple[str, str, str]]] = {}
    own: dict[str, set[str]] = {}  # an instruction that a text has elsewhere may be its true one
    for row in rows:
        pages.setdefault(row["lang"], []).append((row["id"], row["instruction"], row["text"]))
        own.setdefault(row["seed"], set()).add(row["instruction"])
    pools = {lang: pool_of(every, num_near) for lang, every in pages.items()}
    return [
        {**row, "contrasts": choose_contrasts(row, pools[row["lang"]], own[row["seed"]], num_contrasts, num_near, seed)} for row in rows
    ]
