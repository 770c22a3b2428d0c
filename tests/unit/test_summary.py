"""What the report says of a run: nothing that was not measured."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from xl import folder
from xl.folder import RunFolder
from xl.methods import check_recipe
from xl.pages.clean import clean_pages
from xl.recipe import PageRecipe
from xl.stage import RowStage
from xl.summary import is_human, language_agreement

PAGES = {"method": "x_instruction", "pages": {"from": "p"}, "models": {"writer": {"model": "m", "engine": "scripted"}}}
DATA = {"method": "cross_alpaca", "alpaca": [{"files": {"de": "de.json"}}], "mixture": "x"}


def agreement(root: Path, data: dict[str, Any], stage: RowStage, fates: dict[str | None, int], lang: str = "de") -> dict[str, float]:
    """Of a run whose first stage dropped so many rows for each reason, and kept those without one."""
    run, schema = RunFolder(root), pa.schema([("id", pa.string()), ("lang", pa.string())])
    rows = [
        {"id": str(n), "lang": lang, "status": "dropped" if reason else "kept", "reason": reason, "_input": "", "_usage": []}
        for n, reason in enumerate(Counter(fates).elements())
    ]
    run.store(stage.name).write("0", "digest", rows, schema)
    folder.record_stage(run, stage, "fingerprint")
    run.write_info({"stages": [stage.name]})
    return language_agreement(run, check_recipe({"languages": ["de"], **data}, "r"), ["0"])


def test_agreement_on_languages_is_told_of_pages_that_were_checked_and_of_no_others(tmp_path: Path) -> None:
    recipe = check_recipe({"languages": ["de"], **PAGES}, "r")
    assert isinstance(recipe, PageRecipe)
    filters, kept = clean_pages(recipe.quality), {None: 4}
    assert agreement(tmp_path / "pages", PAGES, filters, {None: 2, "mixed_language": 1, "wrong_language": 1, "too_short": 5}) == {
        "de": 0.75
    }
    assert agreement(tmp_path / "unknown", PAGES, filters, kept, lang="tlh") == {}
    assert agreement(tmp_path / "data", DATA, RowStage("input", (), pa.schema([])), kept) == {}
    assert agreement(tmp_path / "own", PAGES, RowStage("pages", (), pa.schema([]), {"file": "own"}), kept) == {}


@pytest.mark.parametrize(
    ("columns", "human"),
    [
        ({"text": "Eine Seite."}, True),
        ({"text": "A page.", "response": "Eine Übersetzung."}, False),
        ({"response": "Ein Satz.", "method": "translation"}, True),
        ({"response": "Eine Antwort.", "method": "alpaca"}, False),
    ],
)
def test_human_text_is_what_people_wrote_and_nothing_that_a_model_may_have_made(columns: dict[str, str], human: bool) -> None:
    assert is_human(columns) is human
