"""Methods: each a module that reads like its paper, and from which a recipe chooses by `method`.

A method has `stages(recipe, models)`: what becomes of its rows, in order; `models` are the recipe's models by role, found. Its class
`Recipe` says which keys its recipes have; without one they have pages and the page filters (`xl.recipe.PageRecipe`). A method whose
input is not pages has `rows(recipe)`, which gives its rows and their schema; one that trains models for itself has
`trainings(recipe, models)`, which says by role on what; one that has more to tell of its rows than their ledger does has
`conclude(recipe, run, shards)`, which writes it into the run's folder. What a recipe evaluates on is kept out of the rows of every method.
"""

import copy
import hashlib
import importlib
import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from xl.ask import Ask
from xl.engines.models import ResolvedModel
from xl.errors import UserError
from xl.folder import RunFolder
from xl.methods.contamination import without_contaminated
from xl.recipe import PageRecipe, Recipe, checked, is_set, overridden, read_yaml
from xl.stage import RowStage, Stage
from xl.train.roles import RoleTraining

METHODS = ("x_instruction", "xl_instruct", "cross_alpaca")


def load_recipe(path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read and check a recipe; `overrides` maps dotted keys (`pages.from`) to values.

    Relative paths (input, model folders, a method of one's own) start from the current directory.

    Raises:
        UserError: one line that names the file, the key and the remedy.
    """
    data = read_recipe(path)
    recipe = check_recipe(overridden(copy.deepcopy(data), overrides or {}), str(path))
    _refuse_unread(recipe, [recipe, *_as_written(data, str(path))], str(path))
    return recipe


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe's keys and values, unchecked. Raises UserError."""
    data = read_yaml(path, "recipe")
    if not isinstance(data, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys to values, not {type(data).__name__}")
    return data


def _as_written(data: Mapping[str, Any], name: str) -> list[Recipe]:
    """The recipe without overrides, where it is one."""
    try:
        return [check_recipe(data, name)]
    except UserError:
        return []


def _refuse_unread(recipe: Recipe, variants: Sequence[Recipe], name: str) -> None:
    """Raise UserError for a key that the recipe sets, and that neither a variant of it nor an arm of one reads.

    An arm and `--set` switch a step off by one key: those that only this step reads may stay.
    """
    readers = [reader for variant in variants for reader in (variant, *(arm_of(variant, arm) for arm in variant.arms))]
    for key, why in recipe.unread.items():
        if is_set(recipe, key) and all(key in reader.unread for reader in readers):
            raise UserError(f"{name}: `{key}` changes nothing: {why}; leave it out")


def check_recipe(data: Mapping[str, Any], name: str) -> Recipe:
    """A recipe from its parsed YAML. Raises UserError."""
    method = data.get("method")
    if method is None:
        raise UserError(f"{name}: `method` is missing: one of {', '.join(METHODS)}, or a Python file of your own")
    try:
        kind: type[Recipe] = getattr(load_method(str(method)), "Recipe", PageRecipe)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    recipe = checked(kind, data, name)
    for arm in recipe.arms:
        arm_of(recipe, arm, name)
    return recipe


def arm_of(recipe: Recipe, arm: str, name: str = "recipe") -> Recipe:
    """The recipe of one of its arms. Raises UserError; `name` says in it where the recipe comes from."""
    if recipe.arms[arm].get("method", recipe.method) != recipe.method:
        raise UserError(
            f"{name}: arms.{arm}: `method`: an arm shares its run's stages; run the other method by itself, and set both side by side "
            "with `xl compare`"
        )
    data = recipe.model_dump(mode="json", by_alias=True, exclude={"arms"}, exclude_unset=True)
    return checked(type(recipe), _merged(data, recipe.arms[arm]), f"{name}: arms.{arm}")


def _merged(data: Any, changes: Any) -> Any:
    if not (isinstance(data, dict) and isinstance(changes, dict)):
        return changes
    if "preset" in changes:  # it stands for the components, those of the recipe or of its own preset
        data = {key: value for key, value in data.items() if key != "components"}
    return {**data, **{key: _merged(data.get(key), value) for key, value in changes.items()}}


def load_method(method: str) -> ModuleType:
    """The module of a built-in method, or of the Python file at a path. Raises UserError."""
    if method in METHODS:
        return importlib.import_module(f"xl.methods.{method}")
    path = Path(method)
    if path.suffix != ".py":
        raise UserError(f"`method`: unknown method {method!r}; there are {', '.join(METHODS)}, or a Python file of your own")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UserError(f"`method`: cannot read {method}: {error.strerror}") from None
    name = f"xl_method_{hashlib.blake2b(source, digest_size=8).hexdigest()}"
    module = sys.modules[name] if name in sys.modules else _load_file(path, name)
    if not callable(getattr(module, "stages", None)):
        raise UserError(f"`method`: {path} has no function `stages(recipe, models)`")
    return module


def _load_file(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"`method`: {path} cannot be imported: {type(error).__name__}: {error}") from None
    return module


def method_stages(recipe: Recipe, models: dict[str, ResolvedModel]) -> list[Stage]:
    """The stages of the recipe's method; those with code of one's own change with their file.

    Raises:
        UserError: what the recipe evaluates on cannot be read, or a method of one's own has two stages of a name.
    """
    module = load_method(recipe.method)
    found: list[Stage] = module.stages(recipe, models)
    if recipe.method in METHODS:
        return found
    own = {"file": module.__name__}
    found = [replace(stage, settings={**stage.settings, **own}) if module.__name__ in _modules(stage) else stage for stage in found]
    stages = without_contaminated(recipe, found)
    if repeated := [name for name, count in Counter(stage.name for stage in stages).items() if count > 1]:
        added = "the check for contamination has `overlap` and `uncontaminated`"
        raise UserError(f"`method`: {recipe.method}: two stages are called {repeated[0]!r} ({added}); rename one")
    return stages


def role_trainings(recipe: Recipe, models: dict[str, ResolvedModel]) -> dict[str, RoleTraining]:
    """What the method trains models on for roles of its own, by role; `models` are those that they are made of."""
    make = getattr(load_method(recipe.method), "trainings", None)
    trainings: dict[str, RoleTraining] = make(recipe, models) if make else {}
    return trainings


def conclude(recipe: Recipe, run: RunFolder, shards: list[str]) -> None:
    """Let the method write down what it has to tell of the run's rows, now that all have been through its stages."""
    tell = getattr(load_method(recipe.method), "conclude", None)
    if tell:
        tell(recipe, run, shards)


def _modules(stage: Stage) -> Iterator[str]:
    """Where a stage's functions were written."""
    for step in stage.steps if isinstance(stage, RowStage) else (stage.survey, stage.decide):
        yield getattr(step.parse if isinstance(step, Ask) else step, "__module__", "")
