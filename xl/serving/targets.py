"""What `xl serve` is told to serve: an endpoint's YAML, a recipe, a run, model folders or names, in any mixture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xl.errors import UserError
from xl.folder import RunFolder
from xl.methods import check_recipe, load_recipe, read_recipe
from xl.pipeline import tuned_model
from xl.recipe import Model, Recipe, checked, overridden, read_yaml
from xl.serving.settings import ServedModel, Serving
from xl.settings import Placed
from xl.storage import place
from xl.train.job import has_model

_LISTENING = ("host", "port")


def load_serving(targets: Sequence[str], overrides: Mapping[str, Any] | None = None) -> Serving:
    """The endpoint for some targets, each `TARGET` or `NAME=TARGET`; `overrides` maps dotted keys to values.

    A target is a Ray Serve YAML with the endpoint's settings as `args` of its only application and its address in `http_options`, a
    recipe (all of its models), a run (its tuned model and its recipe's models), a model folder, a hub id, or `packaged/NAME`.

    Raises:
        UserError: one line that names the target or the key, and the remedy.
    """
    settings: dict[str, Any] = {}
    models: dict[str, Any] = {}
    for target in targets:
        name, path = _name_and_path(target)
        if path.suffix in {".yaml", ".yml"} and (arguments := _endpoint_arguments(path)) is not None:
            settings |= {key: value for key, value in arguments.items() if key != "models"}
            found = _mapping(arguments.get("models") or {}, f"{path}: args.models")
        else:
            found = _models_of(path, name)
        for key, model in found.items():
            if models.setdefault(key, model) != model:
                raise UserError(f"{target}: another model is served as {key!r} already; give this one a name: NAME={path}")
    settings["models"] = models
    return checked(Serving, overridden(settings, overrides or {}), " ".join(targets))


def _name_and_path(target: str) -> tuple[str | None, Path]:
    name, equals, path = target.partition("=")
    return (name, place(path)) if equals and name and path else (None, place(target))


def _endpoint_arguments(path: Path) -> dict[str, Any] | None:
    """The endpoint's settings in a Ray Serve YAML, or None where the file is something else."""
    data = read_yaml(path, "file")
    applications = data.get("applications") if isinstance(data, dict) else None
    if applications is None:
        return None
    if not isinstance(applications, list) or len(applications) != 1:
        raise UserError(f"{path}: one application with the endpoint's settings under `args` is wanted")
    arguments = _mapping(_mapping(applications[0], f"{path}: the application").get("args"), f"{path}: args")
    if misplaced := [key for key in _LISTENING if key in arguments]:
        raise UserError(f"{path}: args.{misplaced[0]}: `http_options` say where the endpoint listens; put it there")
    address = _mapping(data.get("http_options") or {}, f"{path}: http_options")
    return {**arguments, **{key: address[key] for key in _LISTENING if key in address}}


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: a mapping of keys to values is wanted, not {type(value).__name__}")
    return value


def _models_of(path: Path, name: str | None) -> dict[str, Any]:
    if path.suffix in {".yaml", ".yml"}:
        return _recipe_models(load_recipe(path), str(path))
    if (path / "run.json").exists():
        return _run_models(path, name)
    return {name or (path.resolve().name if path.is_dir() else str(path)): {"model": str(path)}}


def _run_models(path: Path, name: str | None) -> dict[str, Any]:
    """The models of the run's recipe and, under the run's name, the one that it has tuned."""
    noted = path / "recipe.yaml"
    recipe = check_recipe(read_recipe(noted), str(noted))
    models = _recipe_models(recipe, str(path))
    training = RunFolder(path).training
    if recipe.train is None or not has_model(training):
        return models
    return {name or path.name: _settings(tuned_model(recipe.model_for("base"), training)), **models}


def _recipe_models(recipe: Recipe, where: str) -> dict[str, Any]:
    """The recipe's own models, each once, by the name that the recipe knows it by."""
    found: dict[str, Any] = {}
    for role in type(recipe.models).model_fields:
        model = getattr(recipe.models, role)
        if not isinstance(model, Model) or model.engine == "openai":
            continue
        if found.setdefault(model.model, _settings(model)) != _settings(model):
            raise UserError(f"{where}: `models.{role}` is {model.model!r} with other settings than another role; serve it by NAME=MODEL")
    return found


def _settings(model: Model) -> dict[str, Any]:
    return model.model_dump(include=set(ServedModel.model_fields) - set(Placed.model_fields))
