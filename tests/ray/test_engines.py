"""Engines of one model on as many GPUs as there are, as Ray counts them."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.chaos import STAGES
from tests.cluster import NUM_GPUS
from tests.support import Cli, assert_balanced, german_pages, poisoned, recipe, rows, succeeded, wait_for
from xl.engines.scripted import POISON
from xl.pipeline import Engines, find_model
from xl.recipe import Model

pytestmark = pytest.mark.ray

WRITER: dict[str, Any] = {"model": "scripted", "engine": "scripted", "gpus": 1, "replicas": [1, NUM_GPUS + 1], "max_num_seqs": 4}


def test_a_run_that_may_have_more_engines_than_there_are_gpus_ends(tmp_path: Path, joined: Cli) -> None:
    pages = german_pages(tmp_path / "in", 150)
    path = recipe(tmp_path / "recipe.yaml", pages, models={"writer": {**WRITER, "delay_seconds": 0.2}})
    succeeded(joined("run", path, "--out", tmp_path / "run"))
    assert_balanced(tmp_path / "run", STAGES)


def begin(host: Any, wanted: int) -> int:
    """Begin an execution that wants so many engines; returns how many it may have."""
    import ray

    model = Model.model_validate(WRITER)
    num_engines: int = ray.get(host.begin_execution.remote("writer", model, find_model(model), wanted))
    return num_engines


def connected(host: Any, *workers: str | None, key: str = "writer") -> list[Any]:
    """Engines as these workers see them, None being a driver."""
    from xl.engines.pool import PooledEngine

    model = Model.model_validate(WRITER)
    engines = [PooledEngine(host, key, model, find_model(model), worker) for worker in workers]

    async def connect() -> None:
        await asyncio.gather(*(engine.connect() for engine in engines))

    asyncio.run(connect())
    return engines


def starts(engines: list[Any]) -> set[str]:
    """Which of the host's starts the engines come from, counted from 0."""
    return {engine.name.split("-")[1] for engine in engines}


def new_workers(number: int) -> list[str]:
    return [uuid.uuid4().hex for _ in range(number)]


def test_every_gpu_has_an_engine_and_every_engine_a_worker_also_after_a_death(joined: Cli) -> None:
    import ray

    from xl.engines.pool import start_host

    host = start_host({})
    connected(host, None)
    wait_for(lambda: begin(host, NUM_GPUS + 1) == NUM_GPUS)
    found = connected(host, *new_workers(NUM_GPUS + 1))
    assert starts(found) == {str(n) for n in range(NUM_GPUS)}, "the one that the driver started is among them"

    asyncio.run(found[0].connect(dead=found[0].name))
    connected(host, None)
    begin(host, NUM_GPUS)
    assert len(starts(connected(host, *new_workers(NUM_GPUS)))) == NUM_GPUS, "workers that are gone count for nothing"
    ray.get(host.close.remote())


def test_the_engines_of_a_run_that_fails_give_back_what_they_hold(joined: Cli) -> None:
    import ray

    from xl.engines.pool import start_host

    with pytest.raises(ZeroDivisionError), Engines(Console(quiet=True)) as engines:
        engines.host = start_host({})
        connected(engines.host, None)
        wait_for(lambda: ray.available_resources()["GPU"] == NUM_GPUS - 1)
        raise ZeroDivisionError
    wait_for(lambda: ray.available_resources()["GPU"] == NUM_GPUS)


def test_an_engine_whose_room_something_else_took_is_not_waited_for(joined: Cli) -> None:
    import ray

    from xl.engines.pool import start_host

    host = start_host({}, placing_seconds=1)
    connected(host, None)
    wait_for(lambda: begin(host, NUM_GPUS + 1) == NUM_GPUS)
    for other in range(NUM_GPUS - 1):
        connected(host, None, key=f"other-{other}")
    assert starts(connected(host, *new_workers(NUM_GPUS))) == {"0"}
    ray.get(host.close.remote())


def test_a_row_that_kills_engines_is_set_aside_and_those_beside_it_are_not(tmp_path: Path, joined: Cli) -> None:
    pages = poisoned(german_pages(tmp_path / "in", 60))
    writer = {**WRITER, "replicas": [1, 1], "max_num_seqs": 16}
    path = recipe(tmp_path / "recipe.yaml", pages, models={"writer": writer})
    succeeded(joined("run", path, "--out", tmp_path / "run"))
    assert_balanced(tmp_path / "run", STAGES)
    failed = [row for row in rows(tmp_path / "run", "pairs") if row["status"] == "failed"]
    assert [POISON in row["text"] for row in failed] == [True] and "engines died under this row" in failed[0]["reason"]
