"""Stages: named plans over rows, and the fingerprints that say whether a finished one may be kept.

A *row stage* treats each row by itself and resumes row by row. A *whole stage* must see all rows once (duplicates, quotas)
before it can decide about any; it is deterministic and redone whole.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from xl.ask import Ask, AsyncStep, Columns, Context, Drop, Engine, EngineDied, Filter, RequestFailed
from xl.errors import UserError
from xl.records import PAGE_SCHEMA, Row, Status

Step = Filter | AsyncStep


@dataclass(frozen=True)
class RowStage:
    """A chain of steps that every row walks alone, on one engine if any of them asks.

    `adds` are the columns that the steps set; `settings` is everything that can change a row, and nothing else;
    `model` is the key of the recipe's model that answers, so that neighbours on one engine can be fused.
    """

    name: str
    steps: tuple[Step, ...]
    adds: pa.Schema
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None


@dataclass(frozen=True)
class WholeStage:
    """A decision about each row that depends on all rows.

    `survey` sees the columns `needs` of every row and returns a state; `decide` then treats the rows one by one with it.
    Both must be deterministic and must not depend on the order of the rows.
    """

    name: str
    needs: tuple[str, ...]
    survey: Callable[[Iterator[pa.Table]], Any]
    decide: Callable[[Any, Row], Columns | Drop | None]
    adds: pa.Schema
    settings: Mapping[str, Any] = field(default_factory=dict)
    remarks: Callable[[Any], list[str]] | None = None
    """What users should read about the state, a line each: in the terminal, the report and the dataset's card."""


Stage = RowStage | WholeStage


def fingerprint(stage: Stage, upstream: str) -> str:
    """Hash of a stage's own settings and of its input's fingerprint."""
    text = json.dumps([stage.name, stage.settings, stage.adds.names, upstream], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def fingerprints(stages: list[Stage], source: str) -> dict[str, str]:
    """Each stage's fingerprint; `source` is the fingerprint of how pages are read."""
    result: dict[str, str] = {}
    for stage in stages:
        source = result[stage.name] = fingerprint(stage, source)
    return result


def schema_after(stage: Stage, schema: pa.Schema) -> pa.Schema:
    """Columns of a stage's rows: those that came in, and those that it adds or retypes."""
    added = {f.name: f for f in stage.adds}
    return pa.schema([added.pop(f.name, f) for f in schema] + list(added.values()))


@dataclass
class Walk:
    """Where a row's walk through a pass of row stages ended: at stage number `stage`, with what status and why."""

    row: Row
    stage: int
    status: Status
    reason: str | None
    usage: list[dict[str, Any]]


class Pending(NamedTuple):
    """A row before its walk: the number of the stage where it starts, and the tokens of the stages before."""

    row: Row
    start: int
    usage: list[dict[str, Any]]


@dataclass(frozen=True)
class Route:
    """What the rows of a pass walk through: its row stages, and the seed of the run."""

    stages: tuple[RowStage, ...]
    seed: int


async def walk_or_none(route: Route, pending: Pending, engine: Engine | None) -> Walk | None:
    """`walk` one row; None where the engine died under it.

    Raises:
        UserError: the engine cannot work at all (a wrong key, say); no row is to blame.
    """
    try:
        return await walk(route, pending, engine)
    except EngineDied:
        return None


async def walk(route: Route, pending: Pending, engine: Engine | None) -> Walk:
    """Take one row through the stages that it still has before it; an error fails this row alone.

    Raises:
        EngineDied: the caller must get another engine and walk the row again.
        UserError: the engine cannot work at all (a wrong key, say); no row is to blame.
    """
    row, usage = dict(pending.row), list(pending.usage)
    index = pending.start
    for index in range(pending.start, len(route.stages)):
        stage = route.stages[index]
        context = Context(engine, route.seed)
        try:
            verdict = await _take(row, stage, context)
        except (EngineDied, UserError):
            raise
        except Exception as error:  # whatever an odd row provokes, it must not take the other rows with it
            reason = str(error) if isinstance(error, RequestFailed) else f"{type(error).__name__}: {error}"
            return Walk(row, index, Status.FAILED, reason[:500], usage + _usage(stage, context))
        usage += _usage(stage, context)
        if isinstance(verdict, Drop):
            return Walk(row, index, Status.DROPPED, verdict.reason, usage)
    return Walk(row, index, Status.KEPT, None, usage)


async def _take(row: Row, stage: RowStage, context: Context) -> Drop | None:
    for step in stage.steps:
        answer: Any = step(row, context) if _is_async(step) else step(row)  # type: ignore[call-arg]
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, Drop):
            return answer
        if answer is not None:
            unknown = set(answer) - set(stage.adds.names)
            assert not unknown, f"stage {stage.name!r} sets the columns {sorted(unknown)} without declaring them"
            row.update(answer)
    return None


def _is_async(step: Step) -> bool:
    return inspect.iscoroutinefunction(step) or isinstance(step, Ask)


def _usage(stage: RowStage, context: Context) -> list[dict[str, Any]]:
    return [{"stage": stage.name, **entry} for entry in context.usage]


def passes(stages: list[Stage]) -> list[tuple[Stage, ...]]:
    """Group consecutive row stages on one engine: rows walk through such a group without a stop between.

    A stage without a model joins the asking stage before it, but not the one after it: filters do not belong on GPU nodes. A stage that
    changes a column begins a pass: what a pass commits of a row is its end, from which the stages before are read off.
    """
    groups: list[list[Stage]] = []
    known = set(PAGE_SCHEMA.names)
    for stage in stages:
        last = groups[-1] if groups else []
        model = next((s.model for s in last if isinstance(s, RowStage) and s.model), None)
        joins = last and isinstance(stage, RowStage) and isinstance(last[-1], RowStage) and stage.model in (None, model)
        if joins and known.isdisjoint(stage.adds.names):
            last.append(stage)
        else:
            groups.append([stage])
        known |= set(stage.adds.names)
    return [tuple(group) for group in groups]
