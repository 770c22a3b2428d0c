"""An arm shares with its run what is made of the same rows, and only reads it."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from tests.support import german_pages
from xl import runs
from xl.arms import share, unshare
from xl.engines.models import ResolvedModel
from xl.errors import UserError
from xl.folder import RunFolder
from xl.methods import check_recipe
from xl.pipeline import Engines, Pipeline, engine_key
from xl.recipe import Model
from xl.records import Row
from xl.stage import RowStage
from xl.store import InputShard
from xl.worker import FromStage


def shared(data: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """What of the run's folder each arm shares, when the run's stages are there."""

    def execute(main: runs.Job, _: list[runs.Job]) -> None:
        for place in (main.run.manifest, *(main.run.root / "stages" / name for name in (runs.INPUT, *main.fingerprints))):
            place.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(runs, "_execute_all", execute)
    runs.run_recipe(check_recipe(data, "r"), out, runs.Options(), Console(quiet=True))
    return {name: set(RunFolder(out).arm(name).shared) for name in data["arms"]}


def of_pages(tmp_path: Path, **arms: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": "x_instruction",
        "languages": ["de", "sw"],
        "pages": {"from": str(german_pages(tmp_path / "in", 2, files=2))},
        "models": {"writer": {"model": "m", "engine": "scripted"}},
        "arms": arms,
    }


STRICT = {"rating": {"min_margin": 0.3}}
BEFORE_THE_THRESHOLD = {"manifest", *(f"stages/{name}" for name in ("pages", "unique", "pairs", "contrasts", "rated"))}


def test_an_arm_of_other_pages_or_languages_shares_no_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = {"pages": {"from": str(tmp_path / "in" / "part-0-0.jsonl")}}
    found = shared(of_pages(tmp_path, strict=STRICT, half=half, german={"languages": ["de"]}), tmp_path / "run", monkeypatch)
    assert found == {"strict": BEFORE_THE_THRESHOLD, "half": set(), "german": set()}


def test_an_arm_of_other_data_shares_no_stage_and_each_has_the_rows_that_the_method_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lang in ("en", "de", "tr"):
        (tmp_path / f"{lang}.json").write_text(json.dumps([{"instruction": "a", "input": "b", "output": "c"}]), "utf-8")
    alpaca = {"files": {lang: str(tmp_path / f"{lang}.json") for lang in ("en", "de", "tr")}}
    arms = {"english": {"mixture": "en"}, "turkish": {"languages": ["tr"]}, "without_input": {"alpaca": [{**alpaca, "input": None}]}}
    data = {"method": "cross_alpaca", "languages": ["de", "tr"], "alpaca": [alpaca], "mixture": "en_x", "arms": arms}
    found = shared(data, tmp_path / "run", monkeypatch)
    assert found["english"] > {"stages/samples", "stages/worded"} and not found["english"] & {"manifest", "stages/input"}
    assert found["turkish"] == found["without_input"] == set()


def test_an_arm_shares_nothing_behind_a_stage_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder(tmp_path / "run").write_info({})
    (tmp_path / "run/arms/strict/stages/pairs").mkdir(parents=True)
    found = shared(of_pages(tmp_path, strict=STRICT), tmp_path / "run", monkeypatch)
    assert found["strict"] == {"manifest", "stages/pages", "stages/unique"}


def test_an_arm_that_was_cleaned_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "run")
    run.write_info({})
    run.arm("strict").write_info({"cleaned": True})
    with pytest.raises(UserError, match="arms/strict was cleaned"):
        shared(of_pages(tmp_path, strict=STRICT), run.root, monkeypatch)


def test_failed_rows_of_a_shared_stage_are_the_runs_own_to_ask_again(tmp_path: Path) -> None:
    async def ask(row: Row, _: Any) -> None:
        raise AssertionError("an arm asks what is the run's")

    schema = pa.schema([("id", pa.string()), ("lang", pa.string())])
    rows = [{"id": status, "lang": "de", "status": status, "reason": None, "_input": status, "_usage": []} for status in ("kept", "failed")]
    run, arm = RunFolder(tmp_path), RunFolder(tmp_path / "arms" / "other")
    run.store("asked").write("0", "digest", rows, schema)
    share(run, arm, ["stages/asked"])
    console = Console(quiet=True)
    stage = RowStage("asked", (ask,), pa.schema([]), model="writer")
    pipeline = Pipeline(arm, [stage], {}, 7, "source", Engines(console), console, retry_failed=True)
    kept = pipeline.take(FromStage(run.store("input")), [InputShard("0", "digest", {"de": 2})], schema)
    assert [shard.languages for shard in kept] == [{"de": 1}]
    assert not run.stage_info("asked"), "nothing is noted in the run's folder"


def test_engines_are_shared_by_arms_that_ask_the_same_model_and_by_no_others(tmp_path: Path) -> None:
    """A model that an arm trained for itself may have the digest of the run's, whose later labels are other ones."""
    model, own, other = Model(model="org/name"), tmp_path / "run", tmp_path / "arms" / "other"
    for folder in (own, other):
        folder.mkdir(parents=True)
    same = tmp_path / "arms" / "same"
    same.symlink_to(own)
    keys = [engine_key((model, ResolvedModel("org/name", str(path), "digest", None, None))) for path in (own, same, other)]
    assert keys[0] == keys[1] != keys[2]


def test_an_arm_that_shares_by_links_as_it_once_did_is_only_read_and_then_shares_by_name(tmp_path: Path) -> None:
    run, arm = RunFolder(tmp_path), RunFolder(tmp_path / "arms" / "other")
    (tmp_path / "stages" / "asked").mkdir(parents=True)
    (arm.root / "stages").mkdir(parents=True)
    (arm.root / "stages" / "asked").symlink_to("../../../stages/asked")
    assert arm.is_shared("stages/asked") and arm.store("asked").root == run.store("asked").root
    unshare(arm)
    assert not arm.is_shared("stages/asked") and (tmp_path / "stages" / "asked").exists()
    share(run, arm, ["stages/asked"])
    assert arm.shared == ["stages/asked"] and not (arm.root / "stages" / "asked").exists()
