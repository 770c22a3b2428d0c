"""Rows of a dataset on the hub, where a path is not a file."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xl.errors import UserError, require
from xl.evaluate.tables import check_columns, is_table
from xl.records import Row

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_on_hub(path: str) -> bool:
    """Whether a path can only be the id of a dataset on the hub."""
    return not is_table(path) and bool(_HUB_ID.fullmatch(path)) and not Path(path).exists()


def hub_rows(path: str, columns: Sequence[str], split: str | None, revision: str | None, config: str | None = None) -> Iterable[Row]:
    """The rows of a dataset's split (by default its only one), with at least these columns.

    Raises:
        UserError: the hub gives no such dataset, or it lacks the split or a column; one line.
        MissingExtra: the library `datasets` is not installed.
    """
    found = _ask_hub("load_dataset", path, **({"name": config} if config else {}), revision=revision)
    chosen = split or (next(iter(found)) if len(found) == 1 else None)
    if chosen not in found:
        raise UserError(f"{path}: `split` must be one of {', '.join(found)}")
    check_columns(path, columns, found[chosen].column_names)
    rows: Iterable[Row] = found[chosen]
    return rows


def hub_configs(path: str, revision: str | None) -> list[str]:
    """The configurations of a dataset, often its languages. Raises as `hub_rows`."""
    found: list[str] = _ask_hub("get_dataset_config_names", path, revision=revision)
    return found


def hub_splits(path: str, revision: str | None, config: str) -> list[str]:
    """The splits of a configuration. Raises as `hub_rows`."""
    found: list[str] = _ask_hub("get_dataset_split_names", path, config_name=config, revision=revision)
    return found


def _ask_hub(function: str, path: str, **arguments: Any) -> Any:
    library = require("datasets", "eval")
    try:
        return getattr(library, function)(path, **arguments)
    except (OSError, ValueError, RuntimeError, library.exceptions.DatasetsError) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        if "scripts are no longer supported" in problem:
            problem += "; try `revision: refs/convert/parquet`, or download its files and give their folder"
        raise UserError(f"{path}: neither a file nor a dataset that the hub gives: {problem}") from None
