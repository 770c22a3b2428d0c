"""Whole runs on a local Ray with the scripted engine, through the command line."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.chaos import SETTINGS, STAGES, kill_and_compare
from tests.fault_server import FaultServer
from tests.support import (
    ROOT,
    Cli,
    assert_balanced,
    command,
    german_pages,
    here,
    job,
    ledger,
    outcomes,
    recipe,
    rows,
    succeeded,
    traced,
    wait_until_gone,
    xl,
)

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, joined: Cli) -> Path:
    """A finished run over the sample pages, clean and dirty; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("finished")
    languages = ["ar", "de", "es", "ga", "sw", "th", "tr", "vi"]
    pages = {"from": ["jobs/samples/pages", "jobs/samples/dirty.jsonl"], "lang": "lang"}
    path = recipe(folder / "recipe.yaml", pages, languages=languages)
    succeeded(joined("run", path, "--out", folder / "run", env={"XL_SCRIPTED_TRACE": str(folder / "trace")}))
    return folder


def copy(finished: Path, folder: Path) -> Path:
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    return folder


def test_every_row_is_accounted_for_in_every_stage_and_language(finished: Path) -> None:
    assert_balanced(finished / "run", STAGES)
    total = sum(entry["in"] for entry in ledger(finished / "run")["pages"].values())
    samples = ROOT / "jobs" / "samples"
    assert total == sum(len(p.read_text("utf-8").splitlines()) for p in (*(samples / "pages").glob("*.jsonl"), samples / "dirty.jsonl"))


def test_the_dirty_sample_pages_are_dropped_for_their_reason_and_the_clean_ones_kept(finished: Path) -> None:
    expected = {(d["url"], d["lang"]): d["reason"] for d in map(json.loads, (ROOT / "jobs/samples/dirty.jsonl").open(encoding="utf-8"))}
    found = {(r["url"], r["lang"]): r["reason"] for stage in ("pages", "unique") for r in rows(finished / "run", stage)}
    # Of two equal pages the one with the smaller id stays: either the dirty copy or the clean page it was made from.
    dirty = [key for key, reason in expected.items() if reason != "duplicate"]
    right = [key for key in dirty if found[key] == expected[key]]
    clean = [reason for (url, _), reason in found.items() if "pages.example" in url and reason != "duplicate"]
    lost = sum(reason is not None for reason in clean)
    print(f"\ndirty pages: {len(right)} of {len(dirty)} dropped for the right reason; clean pages: {lost} of {len(clean)} dropped")
    assert len(right) >= 0.95 * len(dirty)
    assert lost <= 0.05 * len(clean)
    duplicates = sum(entry["dropped"].get("duplicate", 0) for entry in ledger(finished / "run")["unique"].values())
    assert duplicates == sum(reason == "duplicate" for reason in expected.values())


def test_the_dataset_loads_in_datasets_as_parquet_and_as_json_lines(finished: Path) -> None:
    import datasets

    kept = sum(entry["kept"] for entry in ledger(finished / "run")["dataset"].values())
    folder = finished / "run" / "dataset"
    by_card = datasets.load_dataset(str(folder), split="train", cache_dir=str(finished / "cache"))
    lines = datasets.load_dataset("json", data_files=str(folder / "train.jsonl"), split="train", cache_dir=str(finished / "cache"))
    assert len(by_card) == len(lines) == kept > 0
    assert [turn["role"] for turn in by_card[0]["messages"]] == ["user", "assistant"]
    assert by_card[0]["messages"][1]["content"] == by_card[0]["response"]


def test_the_same_command_on_a_finished_run_does_nothing_and_says_so(finished: Path) -> None:
    before = traced(finished / "trace")
    said = succeeded(xl("run", finished / "recipe.yaml", "--out", finished / "run", timeout=30))
    assert "nothing to do" in said
    assert traced(finished / "trace") == before


def test_trace_tells_the_life_of_a_kept_and_of_a_dropped_page(finished: Path) -> None:
    kept = rows(finished / "run", "dataset")[0]["id"]
    told = succeeded(here("trace", finished / "run", kept))
    assert all(f"{stage}: " in told for stage in STAGES)
    assert "instruction:" in told and "reverse_instruction:" in told
    dropped = next(row for row in rows(finished / "run", "pages") if row["reason"] == "mojibake")
    told = succeeded(here("trace", finished / "run", dropped["id"][:12]))
    assert "dropped (mojibake)" in told and "text:" in told


def test_a_changed_recipe_is_refused_by_name_and_redo_keeps_what_it_does_not_touch(finished: Path, tmp_path: Path, joined: Cli) -> None:
    folder = copy(finished, tmp_path)
    changed = ["--set", "rating.min_margin=0.3", "--out", folder / "run"]
    refused = joined("run", folder / "recipe.yaml", *changed)
    assert refused.returncode == 2
    assert "rating.min_margin: 0.1 → 0.3" in refused.stderr and "accepted, dataset" in refused.stderr
    assert "Traceback" not in refused.stderr and refused.stderr.count("\n") == 1
    env = {"XL_SCRIPTED_TRACE": str(folder / "trace-redo")}
    succeeded(joined("run", folder / "recipe.yaml", *changed, "--redo", env=env))
    assert traced(folder / "trace-redo").total() == 0, "a threshold costs no call to a model"
    assert_balanced(folder / "run", STAGES)
    kept = [row for row in rows(folder / "run", "accepted") if row["status"] == "kept"]
    assert kept and all(row["margin"] >= 0.3 for row in kept)


def test_fresh_starts_over_with_the_changed_recipe(finished: Path, tmp_path: Path, joined: Cli) -> None:
    folder = copy(finished, tmp_path)
    changed = ["--set", "languages=[ga]", "--set", "rating.num_contrasts=2", "--out", folder / "run", "--fresh"]
    succeeded(joined("run", folder / "recipe.yaml", *changed, env={"XL_SCRIPTED_TRACE": str(folder / "trace-fresh")}))
    kept = {stage: entry["ga"]["kept"] for stage, entry in ledger(folder / "run").items()}
    asked = traced(folder / "trace-fresh").total()
    assert asked == kept["unique"] + 3 * kept["contrasts"], (
        "every page is asked about anew: once for its instruction, thrice for its margin"
    )
    assert_balanced(folder / "run", STAGES)


def test_other_columns_are_refused_by_name(finished: Path) -> None:
    refused = here("run", finished / "recipe.yaml", "--out", finished / "run", "--set", "pages.source=other")
    assert refused.returncode == 2
    assert "pages.source: web → other" in refused.stderr


def test_a_cleaned_run_is_smaller_and_still_tells_what_became_of_its_rows(finished: Path, tmp_path: Path) -> None:
    run = copy(finished, tmp_path) / "run"
    before, dropped = ledger(run), next(row for row in rows(run, "pages") if row["reason"] == "mojibake")
    assert "freed" in succeeded(here("clean", run))
    assert ledger(run) == before
    assert "dropped (mojibake)" in succeeded(here("trace", run, dropped["id"]))
    assert "nothing to do" in succeeded(here("run", tmp_path / "recipe.yaml", "--out", run))
    extended = here("run", tmp_path / "recipe.yaml", "--out", run, "--limit", "5")
    assert extended.returncode == 2 and "was cleaned" in extended.stderr


def test_more_pages_and_one_more_language_extend_a_run(tmp_path: Path, joined: Cli) -> None:
    pages = german_pages(tmp_path / "in" / "de", 30)
    path = recipe(tmp_path / "recipe.yaml", tmp_path / "in")
    env = {"XL_SCRIPTED_TRACE": str(tmp_path / "trace")}
    succeeded(joined("run", path, "--out", tmp_path / "run", env=env))
    asked = sum(n for line, n in traced(tmp_path / "trace").items() if line.startswith("complete"))
    german_pages(pages, 10, first=500)
    shutil.copy(ROOT / "jobs" / "samples" / "pages" / "sw.jsonl", tmp_path / "in" / "sw.jsonl")
    succeeded(joined("run", path, "--out", tmp_path / "run", "--set", "languages=[de, sw]", env=env))
    now = sum(n for line, n in traced(tmp_path / "trace").items() if line.startswith("complete"))
    assert (asked, now) == (30, 30 + 10 + 44)
    assert_balanced(tmp_path / "run", STAGES)


def test_a_run_that_is_to_stop_after_its_pages_or_its_pairs_goes_on_from_there(tmp_path: Path, joined: Cli) -> None:
    path, run = recipe(tmp_path / "recipe.yaml", german_pages(tmp_path / "in", 30)), tmp_path / "run"
    env = {"XL_SCRIPTED_TRACE": str(tmp_path / "trace")}
    succeeded(here(path, "--out", run, main=job("pages"), env=env))
    assert set(ledger(run)) >= {"pages", "unique"} and not traced(tmp_path / "trace") and not (run / "dataset").exists()
    succeeded(here(path, "--out", run, main=job("pairs"), env=env))
    asked = traced(tmp_path / "trace")
    assert asked and (run / "dataset").exists() and not (run / "report.html").exists()
    succeeded(here(path, "--out", run, main=job("run"), env=env))
    assert traced(tmp_path / "trace") == asked and (run / "report.html").exists()
    assert_balanced(run, STAGES)


def test_two_runs_of_two_models_on_two_cpus_finish_side_by_side_and_one_that_is_killed_too(tmp_path: Path) -> None:
    path = recipe(tmp_path / "recipe.yaml", german_pages(tmp_path / "in", 64))
    data = yaml.safe_load(path.read_text())
    data["models"]["writer"] |= {"delay_seconds": 0.5, "max_num_seqs": 8}
    data["models"]["rater"] = {"model": "scripted", "engine": "scripted"}
    path.write_text(yaml.safe_dump(data))
    arguments = {name: ("run", path, "--out", tmp_path / name, "--num-cpus", "2") for name in "ab"}
    runs = [subprocess.Popen(command(*how), cwd=ROOT, stdout=subprocess.DEVNULL) for how in arguments.values()]
    while not list((tmp_path / "a").glob("stages/pairs/log/*/*.arrow")):
        assert runs[0].poll() is None, "the run ended before it could be killed"
    second = here(*arguments["a"])
    assert second.returncode == 2 and "another run is at work there" in second.stderr
    killed, undisturbed = (psutil.Process(run.pid).children(recursive=True) for run in runs)
    runs[0].kill()
    runs[0].wait()
    succeeded(xl(*arguments["a"]))
    assert runs[1].wait(900) == 0
    assert not wait_until_gone(undisturbed, seconds=1), "something was left running"
    assert_balanced(tmp_path / "a", STAGES)
    assert outcomes(tmp_path / "a") == outcomes(tmp_path / "b")
    assert not wait_until_gone(killed), "something was left running"


def test_with_an_endpoint_that_fails_often_every_row_is_accounted_for_and_a_retry_completes_them(tmp_path: Path, joined: Cli) -> None:
    asyncio.run(_endpoint_that_fails_often(tmp_path, joined))


async def _endpoint_that_fails_often(folder: Path, joined: Cli) -> None:
    run = folder / "run"
    async with FaultServer(fault_ratio=0.3, seed=5) as server:
        writer = {"model": "scripted", "engine": "openai", "url": server.url, "timeout_seconds": 1.0, "max_attempts": 2, "concurrency": 16}
        path = recipe(folder / "recipe.yaml", german_pages(folder / "in", 40), models={"writer": writer})
        succeeded(await asyncio.to_thread(joined, "run", path, "--out", run))
        assert_balanced(run, STAGES)
        assert _failed(run), "with two attempts some rows must fail, or this test shows nothing"
        patient = ["--set", "models.writer.max_attempts=12", "--retry-failed"]
        succeeded(await asyncio.to_thread(xl, "run", path, "--out", run, *patient))
    assert_balanced(run, STAGES)
    assert not _failed(run)


def _failed(run: Path) -> int:
    return sum(sum(entry["failed"].values()) for stage in ledger(run).values() for entry in stage.values())


@pytest.mark.chaos
def test_random_kills_lose_and_double_no_row(tmp_path: Path) -> None:
    kills = kill_and_compare(3, SETTINGS["quick"], seed=11, folder=tmp_path)
    assert kills.total() == 3


def test_a_pass_over_many_rows_is_cut_into_executions_and_gives_the_same_rows(
    tmp_path: Path, joined: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xl import execute
    from xl.pages import manifest

    path = recipe(tmp_path / "recipe.yaml", german_pages(tmp_path / "in", 60))
    succeeded(joined("run", path, "--out", tmp_path / "whole"))
    monkeypatch.setattr(manifest, "SHARD_ROWS", 8)
    for name in ("CPU_PARCELS", "ENGINE_PARCELS", "PARCELS_PER_CPU", "PARCELS_PER_ENGINE"):
        monkeypatch.setattr(execute, name, 1)
    monkeypatch.setattr(execute, "CPU_PARCEL_ROWS", 8)
    succeeded(joined("run", path, "--out", tmp_path / "cut"))
    assert outcomes(tmp_path / "cut") == outcomes(tmp_path / "whole")
    assert_balanced(tmp_path / "cut", STAGES)


def test_instruction_data_becomes_a_dataset_and_one_more_language_extends_it(tmp_path: Path, joined: Cli) -> None:
    for lang, text in (("en", "The {} is a river."), ("de", "Der Fluss {} ist lang."), ("tr", "{} uzun bir nehirdir.")):
        items = [{"instruction": f"{lang}?", "input": str(n), "output": text.format(n)} for n in range(40)]
        (tmp_path / f"{lang}.json").write_text(json.dumps(items), "utf-8")
    data: dict[str, Any] = {
        "method": "cross_alpaca",
        "languages": ["de"],
        "alpaca": [{"files": {lang: str(tmp_path / f"{lang}.json") for lang in ("en", "de", "tr")}}],
        "mixture": "en_x",
        "seed": 7,
    }
    path, run = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(data))
    succeeded(joined("run", path, "--out", run))
    before = outcomes(run)["dataset"]
    assert {lang: entry["kept"] for lang, entry in ledger(run)["dataset"].items()} == {"de": 40, "en": 40}
    assert "nothing to do" in succeeded(joined("run", path, "--out", run))
    path.write_text(yaml.safe_dump({**data, "languages": ["de", "tr"]}))
    succeeded(joined("run", path, "--out", run))
    assert {lang: entry["kept"] for lang, entry in ledger(run)["dataset"].items()} == {"de": 40, "en": 40, "tr": 40}
    assert before.keys() <= outcomes(run)["dataset"].keys()
    assert (run / "report.html").exists()


def test_an_arm_added_to_a_finished_run_reuses_all_that_it_shares(finished: Path, tmp_path: Path, joined: Cli) -> None:
    folder = copy(finished, tmp_path / "copy")
    path, run, trace = folder / "recipe.yaml", folder / "run", tmp_path / "trace"
    data = yaml.safe_load(path.read_text("utf-8"))
    path.write_text(yaml.safe_dump({**data, "arms": {"strict": {"rating": {"min_margin": 0.3}}}}))
    printed = succeeded(joined("run", path, "--out", run, env={"XL_SCRIPTED_TRACE": str(trace)}))
    assert not trace.exists(), "another threshold is a matter of rows that are rated already"
    assert "arm strict: " in printed
    arm = run / "arms" / "strict"
    assert outcomes(arm)["rated"] == outcomes(run)["rated"]
    assert 0 < len(outcomes(arm)["dataset"]) < len(outcomes(run)["dataset"])
    assert_balanced(arm, STAGES)

    path.write_text(
        yaml.safe_dump({**data, "arms": {"strict": {"rating": {"min_margin": 0.3}}, "other": {"rating": {"num_contrasts": 2}}}})
    )
    succeeded(joined("run", path, "--out", run, env={"XL_SCRIPTED_TRACE": str(trace)}))
    num_paired = sum(entry["kept"] for entry in ledger(run)["pairs"].values())
    assert traced(trace).total() == 3 * num_paired, "only the rating is done again, with its own and two other instructions"
    assert "nothing to do" in succeeded(joined("run", path, "--out", run))
