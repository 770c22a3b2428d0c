"""The simulation gives what can be reckoned by hand, where it can be."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xl.execute import ENGINE_PARCELS, PARCELS_PER_ENGINE
from xl.planning import simulate as simulation
from xl.planning.cluster import NodeGroup
from xl.planning.scenario import Faults, PassWork, Scenario, Timings
from xl.planning.simulate import Outcome, simulate

FREE = Timings(**{name: 0.0 for name, field in Timings.model_fields.items() if field.annotation is float})
"""Nothing takes time but rows."""

ROWS = 16_000
PARCELS = ROWS // 16
ASK = PassWork("pairs", "engines", ROWS, 8, 1.0, 1, 256, 16, 16, (1, 1), 1.0, 1.0, groups=("gpu",))
"""Rows that take a second each, 256 at a time in an engine that could not be fuller."""

FILTER = PassWork("pages", "pages", 51_200, 100, 0.01)


def cluster(num_engines: int = 1, num_cpus: int = 8, spot: bool = False, **changes: Any) -> tuple[NodeGroup, ...]:
    engines = NodeGroup("gpu", "engines", 1, 1, num_engines, num_engines, spot)
    return (NodeGroup("head", "head", 0, min_nodes=1), NodeGroup("cpu", "pages", num_cpus, min_nodes=1), replace(engines, **changes))


def run(work: PassWork, groups: tuple[NodeGroup, ...], timings: Timings = FREE, faults: Faults | None = None, seed: int = 0) -> Outcome:
    return simulate(Scenario((work,), groups, timings, faults or Faults(), seed))


def test_one_engine_takes_its_rows_over_what_it_does_at_once() -> None:
    found = run(ASK, cluster())
    assert found.seconds == pytest.approx(-(-PARCELS // 16) * 1.0)
    assert found.engine_busy_ratio == pytest.approx(ROWS / 256 / found.seconds)
    assert found.num_redone_rows == found.num_lost_nodes == 0


def test_an_engine_that_does_a_quarter_of_what_it_has_at_once_takes_four_times_as_long() -> None:
    assert run(replace(ASK, num_parallel_rows=64), cluster()).seconds == pytest.approx(ROWS / 64, rel=0.02)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_engines_add_up(count: int) -> None:
    work = replace(ASK, num_rows=count * ROWS, num_shards=8 * count, replicas=(1, count))
    assert run(work, cluster(count)).seconds == pytest.approx(run(ASK, cluster()).seconds, rel=0.02)


def test_no_more_engines_work_than_the_recipe_allows() -> None:
    groups = cluster(1, num_cpus=8, num_gpus=8)
    groups = (*groups[:2], replace(groups[2], num_cpus=8))  # a node with room for eight
    assert run(replace(ASK, replicas=(1, 2)), groups).seconds == pytest.approx(ROWS / 512, rel=0.05)


def test_pages_take_the_cpus_that_there_are() -> None:
    assert run(FILTER, cluster(num_cpus=8)).seconds == pytest.approx(51_200 * 0.01 / 8, rel=0.05)
    assert run(FILTER, cluster(num_cpus=4)).seconds == pytest.approx(51_200 * 0.01 / 4, rel=0.05)


def test_a_driver_lets_no_more_parcels_through_than_it_has_time_for() -> None:
    """Whatever the engines could do, each parcel is handed out and acknowledged one after the other."""
    slow = FREE.model_copy(update={"driver_seconds_per_dispatch": 0.03, "driver_seconds_per_ack": 0.02})
    work = replace(ASK, replicas=(1, 8), num_rows=4 * ROWS, num_shards=32)
    found = run(work, cluster(8), slow)
    assert found.seconds == pytest.approx(4 * PARCELS * 0.05, rel=0.03)
    assert found.passes[0].bottleneck == "driver" and found.passes[0].driver_busy_ratio > 0.95
    quick = FREE.model_copy(update={"driver_seconds_per_ack": 0.001})
    assert run(work, cluster(8), quick).passes[0].bottleneck == "engines"


def test_a_pass_is_no_faster_than_its_shards_are_sealed() -> None:
    """With five CPUs in all two shards are sealed at once: rows cannot end faster than these do."""
    slow = FREE.model_copy(update={"seal_seconds_per_row": 0.03})
    found = run(ASK, cluster(num_cpus=4), slow)
    assert found.seconds == pytest.approx(8 * 2_000 * 0.03 / 2, rel=0.1)
    assert run(ASK, cluster(num_cpus=64), slow).seconds < 0.8 * found.seconds


def test_each_execution_pays_its_start() -> None:
    most = max(ENGINE_PARCELS, PARCELS_PER_ENGINE) * 16
    work = replace(ASK, num_rows=3 * most, num_shards=3 * most // 2_000)
    started = FREE.model_copy(update={"execution_start_seconds": 7.0})
    found = run(work, cluster(), started)
    assert found.passes[0].num_executions == 3
    assert found.seconds - run(work, cluster()).seconds == pytest.approx(21.0)


def test_nodes_and_engines_that_are_not_there_yet_are_waited_for() -> None:
    late = FREE.model_copy(update={"node_boot_seconds": 100.0, "engine_start_seconds": 40.0})
    waiting = run(ASK, cluster(min_nodes=0, max_nodes=1), late)
    assert waiting.seconds - run(ASK, cluster()).seconds == pytest.approx(140.0)
    assert waiting.node_hours["gpu"] == pytest.approx(waiting.seconds / 3600)  # a node that boots is paid for
    assert [(change.num_paid, change.num_ready) for change in waiting.timeline if change.group == "gpu"] == [(1, 0), (1, 1)]


def test_the_fewest_engines_start_while_pages_are_filtered_and_the_others_when_rows_are_there() -> None:
    late = FREE.model_copy(update={"engine_start_seconds": 40.0})
    ask = replace(ASK, replicas=(1, 2), row_seconds=4.0)
    found = simulate(Scenario((FILTER, ask), cluster(2), late))
    pages, pairs = found.passes
    assert pages.seconds == pytest.approx(51_200 * 0.01 / 8, rel=0.05) and pages.seconds > 40
    assert [round(change.seconds - pages.seconds) for change in found.timeline if change.num_ready == 2] == [40]
    # The first engine works alone for as long as the second starts.
    assert pairs.seconds == pytest.approx(40 + (ROWS - 40 / 4 * 256) * 4 / 512, rel=0.05) and pairs.waiting_ratio == 0
    assert simulate(Scenario((ask,), cluster(2), late)).seconds == pytest.approx(40 + pairs.seconds)


def test_a_lost_node_costs_the_rows_in_its_engine_and_the_time_of_its_replacement() -> None:
    groups, timings = cluster(spot=True), FREE.model_copy(update={"node_boot_seconds": 30.0})
    faults = Faults(preemption_times=(10.5,), notice_seconds=0)
    found = run(ASK, groups, timings, faults)
    assert found.num_lost_nodes == 1 and found.num_redone_rows == 256
    # Half a second of the round that was under way is lost, then nobody works until the new node is there.
    assert found.seconds == pytest.approx(63 + 0.5 + 30)


def test_a_node_that_was_told_in_time_has_nothing_done_again() -> None:
    groups, timings = cluster(2, spot=True), FREE.model_copy(update={"node_boot_seconds": 30.0})
    work = replace(ASK, replicas=(1, 2))
    told = run(work, groups, timings, Faults(preemption_times=(10.5,), notice_seconds=5))
    untold = run(work, groups, timings, Faults(preemption_times=(10.5,), notice_seconds=0))
    assert told.num_redone_rows == 0 and untold.num_redone_rows == 256


def test_rows_of_a_lost_engine_go_to_the_others_at_once() -> None:
    timings = FREE.model_copy(update={"node_boot_seconds": 500.0})
    found = run(replace(ASK, replicas=(2, 2)), cluster(2, spot=True), timings, Faults(preemption_times=(10.2,), notice_seconds=0))
    assert 50 < found.seconds < 63


def test_as_many_rows_are_done_again_as_the_rate_of_losses_says() -> None:
    """Over several seeds: nodes that are lost an hour, times the rows that an engine has at once."""
    work = replace(ASK, num_rows=20 * ROWS, num_shards=160, replicas=(1, 4), row_seconds=20.0)
    rate = 4.0
    found = [run(work, cluster(4), FREE, Faults(losses_per_node_hour=rate), seed) for seed in range(6)]
    num_lost = sum(num_lost_engines(each) for each in found)
    assert num_lost == pytest.approx(rate * sum(each.node_hours["gpu"] for each in found), rel=0.25)
    assert sum(each.num_redone_rows for each in found) == pytest.approx(256 * num_lost, rel=0.1)


def num_lost_engines(found: Outcome) -> int:
    """The node for pages may be lost too, but has no rows in an engines' pass."""
    paid = [change.num_paid for change in found.timeline if change.group == "gpu"]
    return sum(after < before for before, after in pairwise(paid))


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    work = replace(ASK, num_rows=10 * ROWS, num_shards=80, replicas=(1, 4), row_seconds=20.0)
    faults, varied = Faults(losses_per_node_hour=5.0), FREE.model_copy(update={"row_seconds_cv": 0.3})
    first, again, other = (run(work, cluster(4), varied, faults, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.seconds != other.seconds


def test_rows_that_vary_take_as_long_in_the_mean_and_longer_at_the_end() -> None:
    varied = FREE.model_copy(update={"row_seconds_cv": 0.5})
    work = replace(ASK, num_rows=10 * ROWS, num_shards=80)
    assert run(work, cluster(), varied).seconds == pytest.approx(10 * ROWS / 256, rel=0.02)
    last_round = replace(ASK, num_rows=256, num_shards=1)
    assert run(last_round, cluster(), varied).seconds > 1.5 * run(last_round, cluster()).seconds


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 40), st.floats(0.1, 5), st.integers(1, 16))
def test_more_engines_are_never_slower(count: int, num_shards: int, row_seconds: float, quarter: int) -> None:
    work = replace(ASK, num_rows=500 * num_shards, num_shards=num_shards, row_seconds=row_seconds, num_parallel_rows=16 * quarter)
    fewer, more = (run(replace(work, replicas=(1, n)), cluster(n), FREE).seconds for n in (count, count + 1))
    # Which shard's last parcel comes when changes with the number of engines: by no more than one parcel's time.
    assert more <= fewer + row_seconds


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 0.05), st.floats(0, 0.05), st.integers(1, 4))
def test_a_slower_driver_is_never_faster(quick: float, more: float, count: int) -> None:
    work = replace(ASK, replicas=(1, count))
    took = [run(work, cluster(count), FREE.model_copy(update={"driver_seconds_per_ack": s})).seconds for s in (quick, quick + more)]
    assert took[1] >= took[0] - 1e-6


def test_units_of_many_parcels_give_what_single_parcels_give(monkeypatch: pytest.MonkeyPatch) -> None:
    work = replace(ASK, num_rows=100 * ROWS, num_shards=800, num_parallel_rows=64, replicas=(1, 4))
    timings = Timings(engine_start_seconds=0, node_boot_seconds=0)
    groups = cluster(4, num_cpus=16)
    fine = run(work, groups, timings)
    monkeypatch.setattr(simulation, "MAX_UNITS", 10_000)
    coarse = run(work, groups, timings)
    assert fine.rows_per_unit["pairs"] == 16 < coarse.rows_per_unit["pairs"]
    assert coarse.seconds == pytest.approx(fine.seconds, rel=0.03)


def test_a_large_run_is_followed_in_few_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "MAX_UNITS", 5_000)
    found = run(replace(ASK, num_rows=20_000_000, num_shards=10_000, replicas=(1, 100)), cluster(100, num_cpus=64))
    assert found.rows_per_unit["pairs"] > 100
    assert found.seconds == pytest.approx(20_000_000 / 256 / 100, rel=0.1)


def test_idle_engine_nodes_are_given_back_when_that_is_asked_for() -> None:
    passes = (ASK, replace(FILTER, num_rows=512_000, num_shards=1_000))
    kept, freed = (
        simulate(Scenario(passes, cluster(min_nodes=0, max_nodes=1), FREE.model_copy(update={"idle_seconds": idle})))
        for idle in (None, 60.0)
    )
    assert kept.node_hours["gpu"] == pytest.approx(kept.seconds / 3600)
    assert freed.node_hours["gpu"] == pytest.approx((freed.passes[0].seconds + 60) / 3600)


def test_cores_that_all_nodes_share_bound_what_simulated_nodes_do() -> None:
    """On one machine of two cores, eight engines commit no faster than two cores can."""
    timings = FREE.model_copy(update={"commit_seconds_per_parcel": 0.1, "machine_cores": 2})
    work = replace(ASK, replicas=(1, 8))
    assert run(work, cluster(8), timings).seconds == pytest.approx(PARCELS * 0.1 / 2, rel=0.1)
    assert run(work, cluster(8), timings.model_copy(update={"machine_cores": None})).seconds < PARCELS * 0.1 / 4
