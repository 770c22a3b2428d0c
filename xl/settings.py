"""What all settings have in common: they are strict, and they know which of their keys can change a result."""

import difflib
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from xl.pages.language import LANGUAGE_NAMES, canonical_language


class _Execution:
    """Marks a key that cannot change a result."""


EXECUTION = _Execution()


class Strict(BaseModel):
    """A part of the recipe: frozen, and without room for unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$")]
"""A label's value. Ray's `!` and `in()` are not taken: whether nodes have room is reckoned here too (`xl.engines.host.num_that_fit`)."""


class Placed(Strict):
    """What has processes of its own on a cluster."""

    accelerator: Annotated[str | None, EXECUTION] = None
    """Kind of GPU that is wanted, by Ray's name for it, such as H100."""
    labels: Annotated[dict[str, Label], EXECUTION] = Field(default_factory=dict)
    """Ray labels of the nodes that are wanted, such as `ray.io/market-type: spot`."""


def semantic(settings: BaseModel) -> dict[str, Any]:
    """The settings that can change a result: everything but the keys marked as execution."""
    result: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        if EXECUTION in field.metadata:
            continue
        value = getattr(settings, name)
        result[field.alias or name] = semantic(value) if isinstance(value, BaseModel) else value
    return result


def _known_languages(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise ValueError("a list of language codes is wanted, such as [de, sw, th]")
    return tuple(dict.fromkeys(_known_language(code) for code in value))


def _language(code: str) -> str:
    known = canonical_language(code)
    if known is None:
        near = difflib.get_close_matches(code, LANGUAGE_NAMES, 3) or [
            k for k, name in LANGUAGE_NAMES.items() if name.lower() == code.lower()
        ]
        hint = f"; did you mean {' or '.join(near)}?" if near else "; use ISO 639 codes such as de, sw, th"
        raise ValueError(f"unknown language {code!r}{hint}")
    return known


def _known_language(value: Any) -> str:
    # YAML 1.1 reads a bare `no` as false; here it can only mean Norwegian.
    return _language("no" if value is False else str(value))


Language = Annotated[str, BeforeValidator(_known_language)]
"""A known language code."""

Languages = Annotated[tuple[str, ...], BeforeValidator(_known_languages)]
"""Language codes, each known and each once."""
