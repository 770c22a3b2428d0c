"""What all settings have in common: they are strict, and they know which of their keys can change a result."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Execution:
    """Marks a key that cannot change a result."""


EXECUTION = _Execution()


class Strict(BaseModel):
    """A part of the recipe: frozen, and without room for unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def semantic(settings: BaseModel) -> dict[str, Any]:
    """The settings that can change a result: everything but the keys marked as execution."""
    result: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        if EXECUTION in field.metadata:
            continue
        value = getattr(settings, name)
        result[field.alias or name] = semantic(value) if isinstance(value, BaseModel) else value
    return result
