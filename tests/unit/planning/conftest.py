"""A finished run, as `xl run` leaves it, made in a second."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import recipe as write_recipe
from xl import folder
from xl.folder import RunFolder
from xl.methods import load_recipe, method_stages
from xl.pages.read import list_files
from xl.pipeline import find_model
from xl.records import PAGE_SCHEMA, row_id
from xl.stage import RowStage, schema_after
from xl.store import write_json

KEPT = {"pages": 0.8, "unique": 1.0, "pairs": 0.75, "contrasts": 1.0, "rated": 1.0, "accepted": 0.5, "dataset": 1.0}
"""Shares of the rows that come into a stage."""

SECONDS = {"pages": 4.0, "unique": 1.0, "pairs": 60.0, "contrasts": 1.0, "rated": 30.0, "dataset": 1.0}
"""Of each pass, under the name of its first stage."""

ROWS_PER_SHARD = 200

MakeRun = Callable[..., tuple[Path, Path]]


@pytest.fixture
def finished_run(tmp_path: Path) -> MakeRun:
    """Make a run; gives its recipe and its folder."""

    def make(num_shards: int = 2, seconds: Mapping[str, float] = SECONDS, engines: int | None = 2, **changes: Any) -> tuple[Path, Path]:
        pages = tmp_path / "pages"
        pages.mkdir()
        for number in range(num_shards):
            (pages / f"part-{number}.jsonl").write_bytes(b"x" * 1_000 * ROWS_PER_SHARD)
        path = write_recipe(tmp_path / "recipe.yaml", pages, **changes)
        recipe = load_recipe(path)
        models = {role: find_model(recipe.model_for(role)) for role in recipe.roles}
        stages = method_stages(recipe, models)
        run = RunFolder(tmp_path / "run")
        names = _manifest(run, recipe, num_shards)
        schema = PAGE_SCHEMA
        alive = {name: list(range(ROWS_PER_SHARD)) for name in names}
        for stage in stages:
            schema = schema_after(stage, schema)
            for name in names:
                alive[name] = _seal(run, stage, name, alive[name], schema)
            folder.record_stage(run, stage, "fingerprint")
            there = {"seconds": seconds[stage.name]} if stage.name in seconds else {}
            there |= {"cpus": 4.0} if there else {}
            if engines and isinstance(stage, RowStage) and stage.model:
                there["engines"] = engines
            run.write_stage_info(stage.name, {**run.stage_info(stage.name), **there})
        run.write_info(
            {
                "name": "run",
                "recipe": recipe.model_dump(mode="json", by_alias=True),
                "stages": [stage.name for stage in stages],
                "models": {role: {"name": model.name, "digest": model.digest} for role, model in models.items()},
                "attempts": 1,
                "finished": {"some": "state"},
            }
        )
        return path, run.root

    return make


def _manifest(run: RunFolder, recipe: Any, num_shards: int) -> list[str]:
    """One file a shard, as many records as rows."""
    files = list_files(recipe.pages)
    names = [row_id("web", str(number), 0) for number in range(num_shards)]
    for file in files:
        path = run.manifest / "keys" / f"{file.name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"key": ["k"] * ROWS_PER_SHARD}), path)
    described = [{"path": file.path, "size": file.size, "stamp": file.stamp} for file in files]
    shards = [[{"name": name, "digest": "", "languages": {"de": ROWS_PER_SHARD}}] for name in names]
    read = {"de": num_shards * ROWS_PER_SHARD}
    write_json(
        run.manifest / "manifest.json", json.loads(json.dumps({"settings": {"files": described}, "num_read": read, "shards": shards}))
    )
    return names


def _seal(run: RunFolder, stage: Any, name: str, alive: list[int], schema: pa.Schema) -> list[int]:
    """A shard in which the first rows are kept, and each row has asked for 100 and got 10 tokens where the stage asks."""
    kept = alive[: round(len(alive) * KEPT[stage.name])]
    asks = isinstance(stage, RowStage) and stage.model is not None
    usage = [{"stage": stage.name, "ask": stage.name, "prompt_tokens": 100, "output_tokens": 10}] if asks else []
    rows = [
        {
            "id": f"{name}-{number}",
            "lang": "de",
            "status": "kept" if number in kept else "dropped",
            "reason": None if number in kept else "why",
            "_input": "",
            "_usage": usage,
        }
        for number in alive
    ]
    run.store(stage.name).write(name, "digest", rows, schema)
    return kept
