"""What the documents say can be done."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import check, shell_commands
from tests.support import ROOT
from xl.engines.models import ResolvedModel
from xl.evaluate.recipe import load_evaluation
from xl.methods import METHODS, arm_of, check_recipe, load_recipe, method_stages

README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "jobs" / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_is_valid(path: Path) -> None:
    load = load_recipe if "\nmethod:" in path.read_text("utf-8") else load_evaluation
    assert load(path).languages


@pytest.mark.parametrize("command", shell_commands(README))
def test_every_command_of_the_readme_exists_with_its_options(command: str) -> None:
    check(command)


def test_the_papers_ablations_are_arms_of_their_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    ablations = re.findall(r"^# (jobs/recipes/\S+\.yaml): .*\n(arms:\n(?:  .*\n)+)", README, re.M)
    recipes = [load_recipe(Path(path), yaml.safe_load(arms)) for path, arms in ablations]
    assert [recipe.method for recipe in recipes] == [*METHODS]
    for recipe in recipes:
        assert len(recipe.arms) >= 3 and all(arm_of(recipe, arm) != recipe for arm in recipe.arms)


def test_the_readmes_own_method_is_a_method(tmp_path: Path) -> None:
    (tmp_path / "titles.py").write_text(re.findall(r"```python\n(.*?)```", README, re.S)[0], "utf-8")
    base = {"model": "scripted", "engine": "scripted"}
    data = {"method": str(tmp_path / "titles.py"), "languages": ["de"], "pages": {"from": "pages"}, "models": {"base": base}}
    evaluate = {"prompts": {"from": str(ROOT / "jobs/samples/prompts.jsonl")}, "arms": ["base"]}

    def names(**more: Any) -> list[str]:
        recipe = check_recipe({**data, **more}, "readme")
        return [stage.name for stage in method_stages(recipe, {"base": ResolvedModel("scripted", "", "digest", None, True)})]

    assert names() == ["pages", "unique", "titled"]
    assert names(evaluate=evaluate) == ["pages", "unique", "titled", "overlap", "uncontaminated"]


def test_the_files_to_read_first_are_there() -> None:
    listed = re.findall(r"^\d\. (.*)$", README, re.M)
    paths = [path for line in listed for path in re.findall(r"`([^`]+)`", line)]
    assert len(paths) >= 6 and all((ROOT / path).exists() for path in paths)
