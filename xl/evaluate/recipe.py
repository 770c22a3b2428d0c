"""The YAML of an evaluation that stands alone, without a run around it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from xl.errors import UserError
from xl.evaluate.run import Evaluation
from xl.evaluate.settings import Evaluate
from xl.pipeline import Role, find_model
from xl.recipe import Model, checked, overridden, read_yaml
from xl.settings import Languages, Strict
from xl.storage import place


class EvaluatedModels(Strict):
    """The models by what they do."""

    base: Model
    """Answers as the arms `base` and `few_shot`, and measures whether answers fit their prompts."""
    tuned: Model | None = None
    """Answers as the arm `tuned`."""
    judge: Model | None = None
    """Judges the answers."""


class EvaluationRecipe(Strict):
    """What is evaluated."""

    languages: Annotated[Languages, Field(min_length=1)]
    models: EvaluatedModels
    evaluate: Evaluate
    examples: str | None = None
    """The dataset that the examples of the arm `few_shot` come from."""
    seed: int = 0

    @model_validator(mode="after")
    def _has_its_models(self) -> "EvaluationRecipe":
        if "tuned" in self.evaluate.arms and self.models.tuned is None:
            raise ValueError("`models.tuned` is missing: the arm `tuned` asks it")
        if self.evaluate.judge and self.models.judge is None:
            raise ValueError("`models.judge` is missing: the model that `evaluate.judge` asks")
        return self


def load_evaluation(path: Path, overrides: Mapping[str, Any] | None = None) -> Evaluation:
    """Read and check such a file, and find its models; `overrides` maps dotted keys to values. Raises UserError."""
    data = read_yaml(path, "recipe")
    if not isinstance(data, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys to values, not {type(data).__name__}")
    recipe = checked(EvaluationRecipe, overridden(data, overrides or {}), str(path))
    roles: dict[str, Role] = {}
    for role in EvaluatedModels.model_fields:
        model: Model | None = getattr(recipe.models, role)
        if model is not None:
            roles[role] = (model, find_model(model))
    languages = recipe.evaluate.languages or recipe.languages
    examples = place(recipe.examples) if recipe.examples else None
    return Evaluation(recipe.evaluate, languages, recipe.seed, roles, examples, stands_alone=True)
