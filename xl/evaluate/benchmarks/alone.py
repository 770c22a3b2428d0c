"""Benchmarks of one model, given without a recipe."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from xl.evaluate.benchmarks.run import Benchmarking
from xl.evaluate.benchmarks.settings import Task, check_names
from xl.pipeline import find_model
from xl.recipe import Model, checked, overridden, parse_override
from xl.settings import Languages, Strict


class Alone(Strict):
    """A model, its benchmarks, and a judge where one is wanted."""

    model: Model
    judge: Model | None = None
    tasks: tuple[Task, ...]
    languages: Annotated[Languages, Field(min_length=1)]

    @model_validator(mode="after")
    def _has_a_judge_where_it_wants_one(self) -> "Alone":
        is_judged = any(task.reference for task in self.tasks)
        if is_judged != (self.judge is not None):
            raise ValueError("--judge and --reference go together: the model that compares, and the answers to compare with")
        return self

    @model_validator(mode="after")
    def _has_a_name_for_each_result(self) -> "Alone":
        check_names(self.tasks, self.languages)
        return self


def one_model(
    models: Mapping[str, Mapping[str, Any]],
    overrides: Sequence[str],
    tasks: Sequence[Mapping[str, Any]],
    languages: Sequence[str],
    seed: int,
) -> Benchmarking:
    """Check what a command line says, and find its models. Raises UserError.

    Args:
        models: settings of `model`, and of `judge` where one is wanted.
        overrides: KEY=VALUE of the model's settings, or judge.KEY=VALUE.
        tasks: settings of the benchmarks.
        languages: for benchmarks that name none of their own.
        seed: of all draws.
    """
    keys = {key if key.startswith("judge.") else f"model.{key}": value for key, value in map(parse_override, overrides)}
    settings = overridden({role: dict(model) for role, model in models.items()}, keys)
    alone = checked(Alone, {**settings, "tasks": tasks, "languages": languages}, "xl eval")
    judge = (alone.judge, find_model(alone.judge)) if alone.judge else None
    return Benchmarking(alone.tasks, alone.languages, seed, {"model": (alone.model, find_model(alone.model))}, judge, seed)
