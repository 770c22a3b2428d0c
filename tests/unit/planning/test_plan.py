"""From a finished small run to what a large one would take."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import yaml

from tests.support import here, succeeded
from tests.unit.planning.conftest import KEPT, ROWS_PER_SHARD, SECONDS, MakeRun
from tests.unit.planning.test_cluster import PRICES, RAY_UP, written
from xl.errors import UserError
from xl.folder import RunFolder
from xl.planning.calibration import given, ratio, read_calibration, read_training, share
from xl.planning.fit import fit_row_seconds, seconds_alone
from xl.planning.scenario import PassWork, Timings, read_timings, read_trace
from xl.planning.training import estimate_training
from xl.store import write_json
from xl.train.metrics import StepMetrics
from xl.train.settings import Train
from xl.train.tokens import TokenSummary

STAGES = list(KEPT)
MILLION = 1_000_000
WRITER = {"model": "scripted", "engine": "scripted", "gpus": 2, "cpus": 4, "replicas": [1, 4]}


def planned(*arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(succeeded(here("plan", *arguments, "--json")))
    return found


def passes(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in found["estimate"]["passes"]}


def test_a_finished_run_is_read_shard_by_shard(finished_run: MakeRun) -> None:
    _, run = finished_run()
    found = read_calibration(run, STAGES)
    assert found.num_pages.tolist() == [ROWS_PER_SHARD] * 2
    assert found.stages["pairs"].num_in.tolist() == [160, 160] and found.stages["pairs"].num_kept.tolist() == [120, 120]
    assert [counts.tolist() for counts in found.stages["pairs"].tokens["pairs"]] == [[16_000] * 2, [1_600] * 2]
    assert found.stages["pairs"].num_engines == 2 and found.stages["pages"].num_cpus == 4
    assert found.bytes_per_record is not None and found.bytes_per_record.value == pytest.approx(1_000)


def test_rows_tokens_and_hours_grow_with_the_pages(finished_run: MakeRun) -> None:
    path, run = finished_run(models={"writer": WRITER})
    found = passes(planned(path, "--calibration", run, "--pages", str(MILLION)))
    pages, pairs = found["pages"], found["pairs"]
    assert pages["rows_in"]["value"] == MILLION and pages["rows_out"]["value"] == pytest.approx(0.8 * MILLION)
    assert pairs["rows_in"]["value"] == pytest.approx(0.8 * MILLION)
    assert pairs["prompt_tokens"]["pairs"]["value"] == pytest.approx(80 * MILLION)
    # 320 rows took 60 s on 2 engines; each has 2 GPUs and 4 CPUs.
    engine_hours = 0.8 * MILLION * 60 * 2 / 320 / 3600
    assert pairs["worker_hours"]["value"] == pytest.approx(engine_hours)
    assert pairs["seconds"]["value"] == pytest.approx(engine_hours * 3600 / 4)
    assert pages["worker_hours"]["value"] == pytest.approx(MILLION * SECONDS["pages"] * 4 / 400 / 3600)
    assert found["dataset"]["rows_out"]["value"] == pytest.approx(0.8 * 0.75 * 0.5 * MILLION)


def test_every_number_says_from_how_many_rows_it_comes(finished_run: MakeRun) -> None:
    path, run = finished_run()
    told = succeeded(here("plan", path, "--calibration", run, "--pages", "5000"))
    assert "pages: 5,000, as said by --pages" in told
    rates = "2.67 rows/s, 267 prompt and 27 output tokens/s for each engine"
    assert f"pairs, asks scripted: {rates}, from 320 rows in 1 min on 2 engines" in told
    assert "400 rows in 2 shards" in told
    kept = passes(planned(path, "--calibration", run, "--pages", "5000"))["pages"]["rows_out"]
    assert (kept["num_rows"], kept["num_shards"]) == (400, 2) and kept["low"] < kept["value"] < kept["high"]


def test_without_a_number_the_pages_are_estimated_from_the_inputs_size(finished_run: MakeRun) -> None:
    path, run = finished_run()
    (path.parent / "pages" / "more.jsonl").write_bytes(b"x" * 1_000_000)
    found = planned(path, "--calibration", run)
    assert found["estimate"]["num_pages"]["value"] == pytest.approx(1_400)
    assert "400 records" in found["estimate"]["source"]
    assert planned(path, "--calibration", run, "--limit", "50")["estimate"]["num_pages"]["value"] == 50


def test_a_quota_is_not_multiplied(finished_run: MakeRun) -> None:
    path, run = finished_run(pairs={"per_language": 1_000})
    found = planned(path, "--calibration", run, "--pages", str(MILLION))
    assert passes(found)["dataset"]["rows_out"]["value"] == 1_000
    assert any("at most 1,000 rows a language" in note for note in found["estimate"]["notes"])


def test_a_cluster_gives_hours_and_dollars(finished_run: MakeRun, tmp_path: Path) -> None:
    path, run = finished_run(models={"writer": WRITER})
    cluster = written(tmp_path / "cluster.yaml", RAY_UP)
    arguments = (path, "--calibration", run, "--pages", str(MILLION), "--cluster", cluster)
    none = planned(*arguments)
    assert none["estimate"]["cost"] is None and any("there is no" in note for note in none["estimate"]["notes"])
    written(tmp_path / "prices.yaml", PRICES)
    found = planned(*arguments)
    pairs = passes(found)["pairs"]
    assert pairs["workers"]["nodes"] == {"spot": 2} and pairs["workers"]["count"] == 4
    assert pairs["cost"]["value"] == pytest.approx(pairs["seconds"]["value"] / 3600 * (2 * 4.0 + 0.4))
    pages = passes(found)["pages"]
    assert pages["workers"]["count"] == 128
    assert pages["cost"]["value"] == pytest.approx(pages["seconds"]["value"] / 3600 * (4 * 1.6 + 0.4))
    assert found["estimate"]["cost"] == pytest.approx(sum(each["cost"]["value"] for each in found["estimate"]["passes"]))


def test_a_missing_price_is_said_and_there_is_no_total(finished_run: MakeRun, tmp_path: Path) -> None:
    path, run = finished_run(models={"writer": WRITER})
    cluster = written(tmp_path / "cluster.yaml", RAY_UP)
    regions = {"us-east-1": {name: price for name, price in PRICES["regions"]["us-east-1"].items() if name != "g6e.12xlarge"}}  # type: ignore[index]
    prices = written(tmp_path / "mine.yaml", {**PRICES, "regions": regions})
    told = succeeded(here("plan", path, "--calibration", run, "--pages", "9000", "--cluster", cluster, "--prices", prices))
    assert "mine.yaml has no price of g6e.12xlarge spot in us-east-1" in " ".join(told.split())
    assert "$" not in next(line for line in told.splitlines() if line.startswith("│ all"))


def test_pods_have_a_price_when_it_is_said(finished_run: MakeRun) -> None:
    path, run = finished_run(models={"writer": WRITER})
    arguments = (path, "--calibration", run, "--pages", str(MILLION), "--cluster", "cluster/kuberay/rayjob.yaml")
    none = planned(*arguments)["estimate"]
    assert none["cost"] is None and any("--price pages=DOLLARS" in note for note in none["notes"])
    said = [word for price in ("head=0.4", "pages=1.6", "engines-spot=4", "engines-on-demand=10") for word in ("--price", price)]
    found = planned(*arguments, *said)
    pairs = passes(found)["pairs"]
    assert pairs["cost"]["value"] == pytest.approx(pairs["seconds"]["value"] / 3600 * (4 * 4.0 + 0.4))
    assert "dollars per node hour, as said by --price: head 0.4" in " ".join(found["estimate"]["notes"])


def test_a_simulation_is_printed_with_what_holds_it_up(finished_run: MakeRun, tmp_path: Path) -> None:
    path, run = finished_run(models={"writer": WRITER})
    cluster = written(tmp_path / "cluster.yaml", RAY_UP)
    written(tmp_path / "prices.yaml", PRICES)
    arguments = (path, "--calibration", run, "--pages", "200000", "--cluster", cluster, "--simulate", "--preemptions", "0.5")
    found = planned(*arguments)["simulation"]
    assert [each["name"] for each in found["passes"]][:3] == ["input", "pages", "unique"]
    assert found["seconds"] >= sum(each["seconds"] for each in found["passes"]) > 0
    spent = sum(hours * {"head": 0.4, "pages": 1.6, "spot": 4.0, "on-demand": 10.0}[name] for name, hours in found["node_hours"].items())
    assert found["cost"] == pytest.approx(spent)
    assert found["timeline"][0].keys() == {"seconds", "group", "num_paid", "num_ready"}
    told = succeeded(here("plan", *arguments))
    assert "pages to dataset:" in told and "held up by" in told


def test_a_calibration_that_cannot_serve_is_refused(finished_run: MakeRun) -> None:
    _, run = finished_run()
    with pytest.raises(UserError, match="it has no stage translated"):
        read_calibration(run, ["pages", "translated"])
    (run / "stages" / "pairs" / "shards").rename(run / "stages" / "pairs" / "gone")
    with pytest.raises(UserError, match="2 shards of its stage pairs are missing"):
        read_calibration(run, STAGES)


def test_an_unfinished_calibration_is_refused(finished_run: MakeRun) -> None:
    path, run = finished_run()
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**info, "finished": None}))
    done = here("plan", path, "--calibration", run)
    assert done.returncode == 2 and "is not finished" in done.stderr and done.stderr.count("\n") == 1


def test_a_run_that_does_not_say_how_many_engines_it_had_is_refused(finished_run: MakeRun) -> None:
    path, run = finished_run(engines=None)
    done = here("plan", path, "--calibration", run)
    assert done.returncode == 2 and "says not how many engines" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--cluster", "c.yaml"], "--cluster needs --calibration"),
        (["--pages", "5"], "--pages needs --calibration"),
        (["--price", "pages=1"], "--price needs --cluster"),
        (["--simulate"], "--simulate needs --cluster"),
        (["--failures", "1"], "--failures needs --simulate"),
        (["--calibration", "nowhere"], "nowhere is not a run"),
    ],
)
def test_options_that_lack_another_are_refused(finished_run: MakeRun, arguments: list[str], told: str) -> None:
    path, _ = finished_run()
    done = here("plan", path, *arguments)
    assert done.returncode == 2 and told in done.stderr


def test_a_cluster_without_room_is_refused(finished_run: MakeRun, tmp_path: Path) -> None:
    path, run = finished_run(models={"writer": {**WRITER, "accelerator": "H100"}})
    done = here("plan", path, "--calibration", run, "--cluster", written(tmp_path / "cluster.yaml", RAY_UP))
    assert done.returncode == 2 and "room for 0 engines of models.writer (2 GPUs and 4 CPUs, ray.io/accelerator-type: H100" in done.stderr


def test_a_training_takes_its_tokens_over_the_rate_of_its_workers(tmp_path: Path) -> None:
    run, training = RunFolder(tmp_path), tmp_path / "training"
    (training / "tokens").mkdir(parents=True)
    write_json(training / "tokens" / "summary.json", asdict(TokenSummary(num_rows=100, num_documents=90, num_tokens=18_000)))
    steps = [StepMetrics(n, 1.0, 2.0, 1e-5, 1.0, 8, 1_000, 500, 1.0, rate) for n, rate in enumerate((10.0, 900.0, 1_000.0, 1_100.0), 1)]
    (training / "metrics.jsonl").write_text("".join(json.dumps(asdict(step)) + "\n" for step in steps), "utf-8")
    record = read_training(run, {"train": {"workers": 2, "gpus_per_worker": 1}})
    assert record is not None and record.tokens_per_row == 180
    assert record.tokens_per_second.value == 1_000  # the first step warms up
    calibration, notes = mock.Mock(training=record), list[str]()
    recipe = mock.Mock(train=Train(workers=4, gpus_per_worker=1, epochs=2))
    found = estimate_training(recipe, calibration, given(1_000), None, None, notes)
    assert found is not None and found.tokens.value == 2 * 1_000 * 180
    assert found.seconds.value == pytest.approx(2 * 1_000 * 180 / 2_000) and found.gpu_hours.value == pytest.approx(180 * 4 / 3600)
    assert found.seconds.low is not None and found.seconds.low < found.seconds.value < (found.seconds.high or 0)
    assert "trained with 2 workers; 4 are reckoned" in notes[0]
    assert estimate_training(recipe, mock.Mock(training=None), given(1_000), None, None, notes) is None
    assert "trained nothing" in notes[-1]


def test_groups_that_allow_more_than_the_file_are_told(finished_run: MakeRun, tmp_path: Path) -> None:
    path, run = finished_run(models={"writer": WRITER})
    cluster = written(tmp_path / "cluster.yaml", {**RAY_UP, "max_workers": 4})
    notes = planned(path, "--calibration", run, "--pages", "9", "--cluster", cluster)["estimate"]["notes"]
    assert any("max_workers: 4, but its groups allow 7 together" in note for note in notes)


def test_shards_that_agree_leave_the_binomial_interval_and_those_that_do_not_widen_it() -> None:
    rows = np.full(10, 100)
    alike, apart = share(np.full(10, 50), rows), share(np.array([0, 100] * 5), rows)
    assert alike.value == apart.value == 0.5
    assert (alike.low, alike.high) == pytest.approx((0.469, 0.531), abs=0.001)
    assert apart.high is not None and apart.low is not None and apart.high - apart.low > 0.4
    single = share(np.array([50]), np.array([100]))
    assert (single.low, single.high) == pytest.approx((0.404, 0.596), abs=0.001)
    assert ratio(np.array([7]), np.array([2])).low is None


def test_the_calibrations_own_seconds_come_out_of_its_simulation() -> None:
    """A row's time is found again from the time of a whole pass, start-ups and last round included."""
    timings = Timings(engine_start_seconds=10)
    for kind, shards, engines_are_up in (("engines", 3, False), ("engines", 3, True), ("pages", 4, False), ("whole", 4, False)):
        work = PassWork(kind, kind, 5_000, shards, 0.7, 1, 128, 8, replicas=(1, 2), engine_cpus=1.0, engine_gpus=1.0)  # type: ignore[arg-type]
        seconds = seconds_alone(work, 2, timings, engines_are_up)
        assert fit_row_seconds(work, 2, seconds, timings, engines_are_up)[0] == pytest.approx(0.7, rel=0.05)
        _, is_long_enough = fit_row_seconds(work, 2, 0.001, timings, engines_are_up)
        assert not is_long_enough


def test_a_trace_and_timings_are_read_and_their_mistakes_told(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    trace.write_text("# seconds, nodes\n60\n\n30.5 2\n", "utf-8")
    assert read_trace(trace) == (30.5, 30.5, 60.0)
    trace.write_text("60\nsoon\n", "utf-8")
    with pytest.raises(UserError, match="line 2: 'soon' is not"):
        read_trace(trace)
    with pytest.raises(UserError, match="neither a rate nor a file"):
        read_trace(tmp_path / "no.txt")
    timings = tmp_path / "timings.yaml"
    timings.write_text(yaml.safe_dump({"driver_seconds_per_ack": 0.1}), "utf-8")
    assert read_timings(timings).driver_seconds_per_ack == 0.1
    timings.write_text("driver_seconds: 0.1", "utf-8")
    with pytest.raises(UserError, match=r"timings\.yaml: unknown key `driver_seconds`"):
        read_timings(timings)
