"""Engines of one model on as many GPUs as there are, as Ray counts them."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.chaos import STAGES
from tests.cluster import NUM_GPUS
from tests.support import Cli, assert_balanced, german_pages, poisoned, recipe, rows, succeeded, wait_for
from xl.engines.scripted import FAULT
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


def is_ready(host: Any, key: str = "writer") -> bool:
    """Wait as a driver does until an engine is up."""
    import ray

    model = Model.model_validate(WRITER)
    answer: bool = ray.get(host.ready.remote(key, model, find_model(model)))
    return answer


def shares(host: Any, *workers: str, num_parcels: int = 9) -> list[set[str]]:
    """Names of the engines that each of these workers is told of."""
    import ray

    model = Model.model_validate(WRITER)
    for _ in range(2):  # of the second answers each knows of all workers
        asked = [host.engines.remote(worker, "writer", model, find_model(model), num_parcels, frozenset()) for worker in workers]
        answers = ray.get(asked)
    return [set(answer) for answer in answers]


def test_every_gpu_has_an_engine_that_one_worker_asks_also_after_a_death(joined: Cli) -> None:
    import ray

    from xl.engines.host import start_host

    host = start_host({})
    assert is_ready(host)
    wait_for(lambda: begin(host, NUM_GPUS + 1) == NUM_GPUS)
    wait_for(lambda: len(shares(host, "one")[0]) == NUM_GPUS)
    first, second = shares(host, "one", "two")
    assert first and second and not first & second

    dead = first.pop()
    ray.get([host.lost.remote("writer", dead, False) for _ in range(2)])
    wait_for(lambda: len(set().union(*shares(host, "one", "two"))) == NUM_GPUS)
    assert dead not in set().union(*shares(host, "one", "two"))
    ray.get(host.close.remote())


def test_the_engines_of_a_run_that_fails_give_back_what_they_hold(joined: Cli) -> None:
    import ray

    from xl.engines.host import start_host

    with pytest.raises(ZeroDivisionError), Engines(Console(quiet=True)) as engines:
        engines.host = start_host({})
        assert is_ready(engines.host)
        wait_for(lambda: ray.available_resources()["GPU"] == NUM_GPUS - 1)
        raise ZeroDivisionError
    wait_for(lambda: ray.available_resources()["GPU"] == NUM_GPUS)


def test_no_engine_is_waited_for_that_has_no_room(joined: Cli) -> None:
    import ray

    from xl.engines.host import start_host

    host, other = start_host({}), start_host({})
    assert is_ready(host) and is_ready(other)
    wait_for(lambda: begin(host, NUM_GPUS + 1) == NUM_GPUS - 1)
    ray.get(other.close.remote())
    wait_for(lambda: begin(host, NUM_GPUS + 1) == NUM_GPUS)
    ray.get(host.close.remote())


def test_a_row_that_kills_the_cores_of_engines_is_set_aside_and_those_beside_it_are_not(tmp_path: Path, joined: Cli) -> None:
    """What kills their processes is among the faults of `test_faults.py`."""
    pages = poisoned(german_pages(tmp_path / "in", 60), poison=FAULT)
    writer = {**WRITER, "replicas": [1, 1], "max_num_seqs": 16}
    path = recipe(tmp_path / "recipe.yaml", pages, models={"writer": writer})
    succeeded(joined("run", path, "--out", tmp_path / "run"))
    assert_balanced(tmp_path / "run", STAGES)
    failed = [row for row in rows(tmp_path / "run", "pairs") if row["status"] == "failed"]
    assert [FAULT in row["text"] for row in failed] == [True] and "engines died under this row" in failed[0]["reason"]
