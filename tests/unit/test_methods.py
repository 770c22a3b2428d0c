"""A method is a file: a built-in one, or one's own."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from xl.ask import Drop
from xl.errors import UserError
from xl.methods import check_recipe, load_method, method_stages
from xl.records import Row
from xl.stage import Pending, Route, RowStage, WholeStage, walk

OWN = """
from xl.pages.clean import clean_pages
from xl.stage import RowStage
import pyarrow as pa

def shout(row):
    return {"instruction": row["text"].upper()}

def stages(recipe, models):
    return [clean_pages(recipe.quality), RowStage("shouted", (shout,), pa.schema([("instruction", pa.string())]))]
"""


DRAWN = """
from xl.methods.contamination import uncontaminated
from xl.stage import WholeStage

def drawn(name, *added):
    columns = pa.schema([(column, pa.string()) for column in added])
    return WholeStage(name, ("id",), lambda tables: None, lambda state, row: None, columns)
"""
PROMPT = "Wie wird der alte Hafen genannt?"


def data(method: str | Path) -> dict[str, Any]:
    return {"method": str(method), "languages": ["de"], "pages": {"from": "pages"}}


def evaluated(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """A recipe of a method that `shout.py` has, with an evaluation on `PROMPT`."""
    (tmp_path / "prompts.json").write_text(json.dumps([{"instruction": PROMPT}]), "utf-8")
    evaluate = {"prompts": {"from": str(tmp_path / "prompts.json")}, "arms": ["base"]}
    models = {"base": {"model": "m", "engine": "scripted"}}
    return {**data(tmp_path / "shout.py"), "models": models, "evaluate": evaluate, **changes}


def test_an_own_method_has_pages_and_only_its_own_stages_change_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "shout.py"
    path.write_text(OWN)
    recipe = check_recipe(data(path), "r")
    before = method_stages(recipe, {})
    path.write_text(OWN.replace("upper", "lower"))
    after = method_stages(recipe, {})
    assert [stage.name for stage in before] == ["pages", "shouted"]
    assert [a.settings == b.settings for a, b in zip(before, after, strict=True)] == [True, False]


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ("", ["overlap", "uncontaminated"]),
        ("drawn('capped'), drawn('drawn', 'component')", ["overlap", "uncontaminated", "capped", "drawn"]),
        ("drawn('capped', 'response')", ["capped", "overlap", "uncontaminated"]),
        ("*uncontaminated(recipe, ('text',)), drawn('drawn')", ["overlap", "uncontaminated", "drawn"]),
    ],
)
def test_an_own_method_is_kept_clean_of_what_is_evaluated_before_its_dataset_is_drawn(tmp_path: Path, more: str, names: list[str]) -> None:
    (tmp_path / "shout.py").write_text(OWN.replace("string())]))]", f"string())])), {more}]") + DRAWN)
    recipe = evaluated(tmp_path)
    assert [stage.name for stage in method_stages(check_recipe(recipe, "r"), {})] == ["pages", "shouted", *names]
    off = method_stages(check_recipe({**recipe, "contamination": {"drop": False}}, "r"), {})
    assert not {"overlap", "uncontaminated"} & {stage.name for stage in off}


@pytest.mark.parametrize("column", ["text", "instruction", "request", "response"])
def test_all_that_an_own_methods_pair_says_is_looked_at(tmp_path: Path, column: str) -> None:
    (tmp_path / "shout.py").write_text(OWN)
    overlap, decides = method_stages(check_recipe(evaluated(tmp_path), "r"), {})[-2:]
    assert isinstance(overlap, RowStage) and isinstance(decides, WholeStage)

    def verdict(row: Row) -> Any:
        walked = asyncio.run(walk(Route((overlap,), 0), Pending(row, 0, []), None))
        return decides.decide(frozenset(), walked.row)

    assert verdict({"text": "Der Hafen.", column: PROMPT.upper()}) == Drop("contaminated")
    assert verdict({"text": "Der Hafen.", column: "Wie heißt er?"}) is None


def test_an_own_stage_that_has_the_name_of_one_that_is_added_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shout.py").write_text(OWN.replace('"shouted"', '"overlap"'))
    with pytest.raises(UserError, match=r"shout.py: two stages are called 'overlap' .* rename one"):
        method_stages(check_recipe(evaluated(tmp_path), "r"), {})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "cannot read .*No such file"),
        ("import nothing_of_that_name", "cannot be imported: ModuleNotFoundError"),
        ("x = 1", r"has no function `stages\(recipe, models\)`"),
    ],
)
def test_a_method_that_cannot_be_used_says_why(tmp_path: Path, source: str | None, message: str) -> None:
    path = tmp_path / "own.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(UserError, match=message):
        load_method(str(path))
    with pytest.raises(UserError, match=message):
        check_recipe(data(path), "r.yaml")
