"""Evaluations in this process, without Ray: rows walk their stages on engines that a test writes itself."""

import asyncio
from collections.abc import Callable

import pyarrow as pa
import pytest
from rich.console import Console

from xl import folder
from xl.ask import Engine
from xl.engines.models import ResolvedModel
from xl.evaluate import rows as evaluated_rows
from xl.evaluate import run as evaluate_run
from xl.evaluate.benchmarks import judging
from xl.evaluate.benchmarks import run as benchmarks_run
from xl.pipeline import Pipeline, Role
from xl.recipe import Model
from xl.records import Row
from xl.stage import Pending, Route, RowStage, Walk, fingerprints, schema_after, walk
from xl.store import write_json

CONSOLE = Console(quiet=True)


def role(name: str) -> Role:
    return Model(model=name, engine="scripted"), ResolvedModel(name, name, f"scripted:{name}", None, True)


async def _walked(route: Route, rows: list[Row], engine: Engine | None) -> list[Walk]:
    return await asyncio.gather(*(walk(route, Pending(row, 0, []), engine) for row in rows))


def without_ray(monkeypatch: pytest.MonkeyPatch, engine: Callable[[str], Engine]) -> None:
    """Let evaluations take rows here; `engine` gives the engine of a model by its name."""

    def take(pipeline: Pipeline, rows: list[Row], schema: pa.Schema, stage: str = "prompts", shard_by: tuple[str, ...] = ("lang",)) -> None:
        shards = evaluated_rows._seal(pipeline.run.store(stage), rows, schema, shard_by)
        write_json(pipeline.run.manifest / "manifest.json", {"shards": [[{"name": shard.name} for shard in shards]]})
        keys = fingerprints(pipeline.stages, pipeline.source_fingerprint)
        for each in pipeline.stages:
            assert isinstance(each, RowStage)
            folder.record_stage(pipeline.run, each, keys[each.name])
            asks = engine(pipeline.roles[each.model][0].model) if each.model else None
            walks = asyncio.run(_walked(Route((each,), pipeline.seed), rows, asks))
            assert not any(walk.status == "failed" for walk in walks), [walk.reason for walk in walks]
            rows, schema = [walk.row for walk in walks if walk.status == "kept"], schema_after(each, schema)
            for shard in shards:
                own = [walk for walk in walks if shard.name == f"{'-'.join(walk.row[name] for name in shard_by)}-00000"]
                fates = [{**walk.row, "status": walk.status.value, "reason": walk.reason, "_input": "", "_usage": []} for walk in own]
                pipeline.run.store(each.name).write(shard.name, shard.digest, fates, schema)

    for module in (benchmarks_run, evaluate_run, judging):
        monkeypatch.setattr(module, "take_rows", take)
