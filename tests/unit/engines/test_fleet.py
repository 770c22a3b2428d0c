"""How many engines there are, whose they are, and when they are given back."""

from typing import Any

import pytest

from xl.engines.fleet import MAX_ENGINE_DEATHS, MAX_FAILED_STARTS, SILENT_SECONDS, Fleet, num_calls, parcel_rows
from xl.errors import UserError
from xl.recipe import Model

SETTINGS = {"model": "scripted", "engine": "scripted", "gpus": 1, "replicas": [2, 6], "max_num_seqs": 8, "idle_seconds": 60}
MODEL = Model.model_validate(SETTINGS)
FULL = num_calls(MODEL)
"""Parcels that one engine can have."""


def fleet(num_up: int = 0) -> Fleet:
    """A fleet with so many engines that are up; what an engine is does not matter."""
    nothing: Any = None
    made = Fleet(MODEL, nothing)
    start(made, num_up)
    return made


def start(made: Fleet, number: int) -> None:
    for _ in range(number):
        name = made.name_next()
        made.starting[name] = name
        made.comes_up(name, chat=True)


@pytest.mark.parametrize(
    ("max_num_seqs", "rows", "calls"), [(1, 16, 2), (8, 16, 2), (32, 16, 8), (64, 16, 16), (256, 64, 16), (1024, 256, 16)]
)
def test_an_engine_has_four_times_what_it_batches_in_parcels_that_grow_with_it(max_num_seqs: int, rows: int, calls: int) -> None:
    """So that neither an engine waits for rows, nor the driver is busy with parcels of the fast ones alone."""
    model = MODEL.model_copy(update={"max_num_seqs": max_num_seqs})
    assert (parcel_rows(model), num_calls(model)) == (rows, calls)
    assert rows * calls >= 4 * max_num_seqs


@pytest.mark.parametrize(("wanted", "num_started"), [(1, 2), (4, 4), (9, 6)])
def test_work_starts_as_many_engines_as_its_rows_keep_busy_within_the_bounds(wanted: int, num_started: int) -> None:
    made = fleet()
    made.begin(wanted)
    assert made.num_lacking == num_started


def test_an_engine_that_died_is_replaced_as_long_as_there_are_rows_for_it() -> None:
    made = fleet(6)
    made.begin(6)
    assert made.remove("engine-3") and made.num_lacking == 1
    assert not made.remove("engine-3"), "whoever says so second changes nothing"
    made.hear("worker", 2 * FULL, now=0)
    made.look(now=0)
    assert made.num_lacking == 0


def test_engines_are_given_back_when_there_have_been_too_many_for_long_enough() -> None:
    made = fleet(6)
    made.begin(6)
    made.hear("worker", 3 * FULL, now=0)
    made.look(now=0)
    assert made.surplus(now=50) == []
    assert made.surplus(now=60) == ["engine-3", "engine-4", "engine-5"]


def test_a_moment_with_rows_for_all_engines_keeps_them() -> None:
    made = fleet(6)
    made.begin(6)
    for now, load in ((0, FULL), (40, 6 * FULL), (50, FULL), (80, FULL)):
        made.hear("worker", load, now)
        made.look(now)
    assert made.surplus(now=80) == []
    assert len(made.surplus(now=110)) == 4


def test_after_the_work_no_engine_stays_even_if_a_worker_still_says_something() -> None:
    made = fleet(3)
    made.begin(3)
    made.rest()
    made.hear("worker", 0, now=0)
    made.look(now=0)
    assert len(made.surplus(now=60)) == 3 and made.num_lacking == 0


@pytest.mark.parametrize(("num_engines", "num_workers", "sizes"), [(6, 1, [6]), (5, 2, [3, 2]), (2, 3, [1, 1, 1]), (0, 2, [0, 0])])
def test_workers_share_the_engines_evenly(num_engines: int, num_workers: int, sizes: list[int]) -> None:
    made = fleet(num_engines)
    workers = [f"worker-{number}" for number in range(num_workers)]
    for worker in workers:
        made.hear(worker, 1, now=0)
    shares = [made.share(worker) for worker in workers]
    assert [len(share) for share in shares] == sizes
    assert set().union(*shares) == set(made.up)


def test_the_engines_of_a_worker_that_is_gone_go_to_the_others() -> None:
    made = fleet(4)
    made.hear("gone", 1, now=0)
    made.hear("there", 1, now=SILENT_SECONDS)
    made.look(now=SILENT_SECONDS)
    assert len(made.share("there")) == 4


def test_a_model_that_never_starts_is_given_up() -> None:
    made = fleet()
    made.begin(2)
    for _ in range(MAX_FAILED_STARTS - 1):
        made.fails_to_start("out of memory")
    assert made.failure is None and made.num_lacking == 2
    made.fails_to_start("out of memory")
    assert "out of memory" in str(made.failure) and made.num_lacking == 0


def test_a_model_that_cannot_be_loaded_ends_the_run_at_once_unless_another_engine_could_load_it() -> None:
    """A wrong folder is the user's to mend; a disk that one machine cannot read is not."""
    never, once = fleet(), fleet(1)
    for made in (never, once):
        made.begin(2)
        made.cannot_load(UserError("no such folder"))
    assert "no such folder" in str(never.failure)
    assert once.failure is None and once.num_lacking == 1


def test_where_one_machine_is_broken_the_engines_of_the_others_do_without_it() -> None:
    made = fleet(3)
    made.begin(4)
    for _ in range(MAX_FAILED_STARTS):
        made.fails_to_start("out of memory")
    assert made.failure is None and made.num_lacking == 0


def test_engines_that_die_again_and_again_end_the_run_and_those_that_went_with_their_nodes_do_not() -> None:
    made = fleet()
    for _ in range(MAX_ENGINE_DEATHS * MODEL.replicas[1]):
        start(made, 1)
        made.remove(next(iter(made.up)))
    assert made.failure is None
    for _ in range(MAX_ENGINE_DEATHS * MODEL.replicas[1]):
        made.dies()
    assert f"died {MAX_ENGINE_DEATHS * MODEL.replicas[1]} times" in str(made.failure)


def test_a_worker_of_the_work_before_gets_no_engine() -> None:
    made = fleet(2)
    made.hear("before", 1, now=0)
    made.begin(2)
    made.hear("before", 0, now=1)
    made.hear("now", 1, now=1)
    assert made.share("before") == {} and len(made.share("now")) == 2


def test_an_engine_that_is_set_aside_is_asked_by_one_worker_alone_until_that_puts_it_back_or_is_gone() -> None:
    made = fleet(3)
    for worker in ("one", "two"):
        made.hear(worker, 1, now=0)
    assert made.set_aside("one") == made.set_aside("one") == "engine-2" and made.set_aside("two") == "engine-1"
    assert set(made.share("one")) == set(made.share("two")) == {"engine-0"}
    made.remove("engine-2")
    assert made.set_aside("one") == "engine-0" and made.share("two") == {}
    made.remove("engine-0")
    assert made.set_aside("one") is None, "the other worker's is not taken"
    assert made.returned() == []
    made.put_back("two")
    assert set(made.share("two")) == {"engine-1"}
    assert (made.returned(), made.returned()) == (["engine-1"], []), "it hears once that all may ask it"
    assert made.set_aside("one") == "engine-1"
    made.hear("two", 1, now=SILENT_SECONDS)
    made.look(now=SILENT_SECONDS)
    assert set(made.share("two")) == {"engine-1"}
    assert made.returned() == ["engine-1"], "who had it to itself says no more"
