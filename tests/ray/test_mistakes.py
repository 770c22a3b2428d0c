"""A user's mistake ends the command with exit code 2 and one line that says what was wrong and where."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import STAGES
from tests.fault_server import FaultServer
from tests.support import (
    ROOT,
    Cli,
    assert_balanced,
    command,
    fill,
    german_pages,
    here,
    on_a_disk_of_its_own,
    recipe,
    small_disk,
    succeeded,
    xl,
)
from tests.tiny_model import tiny_model

pytestmark = pytest.mark.ray


def complaint(folder: Path, writer: dict[str, Any], cli: Cli = here, env: dict[str, str] | None = None) -> str:
    """The one line that a run with this writer ends with."""
    path = recipe(folder / "recipe.yaml", german_pages(folder / "pages", 8), models={"writer": writer})
    done = cli("run", path, "--out", folder / "run", env=env)
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("xl: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr
    return lines[0]


def test_a_missing_model_folder_is_named(tmp_path: Path) -> None:
    assert "no model folder '/nowhere/model'" in complaint(tmp_path, {"model": "/nowhere/model"})


def test_an_unknown_packaged_model_is_told_with_those_there_are(tmp_path: Path) -> None:
    assert "packaged/gemma-3-270m" in complaint(tmp_path, {"model": "packaged/nothing"})


def test_an_endpoint_that_cannot_be_reached_is_named(tmp_path: Path, joined: Cli) -> None:
    writer = {"model": "m", "engine": "openai", "url": "http://127.0.0.1:9/v1", "max_attempts": 1}
    assert "http://127.0.0.1:9/v1" in complaint(tmp_path, writer, joined)


def test_a_wrong_key_names_the_variable_and_not_the_key(tmp_path: Path, joined: Cli) -> None:
    async def go() -> str:
        async with FaultServer(api_key="right") as server:
            writer = {"model": "scripted", "engine": "openai", "url": server.url, "api_key_env": "MY_KEY"}
            return await asyncio.to_thread(complaint, tmp_path, writer, joined, env={"MY_KEY": "planted-secret"})

    line = asyncio.run(go())
    assert "MY_KEY" in line and "planted-secret" not in line
    everything = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert b"planted-secret" not in everything


def test_a_key_that_only_the_driver_has_is_told_by_the_clusters_workers(tmp_path: Path, joined: Cli) -> None:
    async def go() -> str:
        async with FaultServer(api_key="right") as server:
            writer = {"model": "scripted", "engine": "openai", "url": server.url, "api_key_env": "MY_KEY"}
            return await asyncio.to_thread(complaint, tmp_path, writer, joined, env={"MY_KEY": "right"})

    assert "asks for a key: set the environment variable MY_KEY" in asyncio.run(go())


FATAL = """
import os, pyarrow
from xl.stage import RowStage

def fatal(row):
    if "Nummer 5 " in row["text"]:
        os.abort()

def stages(recipe, models):
    return [RowStage("fatal", (fatal,), pyarrow.schema([]))]
"""


def test_a_row_that_ends_each_process_that_treats_it_ends_the_run(tmp_path: Path, joined: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Data alone would try it for ever, without a word."""
    monkeypatch.setattr("xl.execute.MAX_TASK_RETRIES", 1)
    (tmp_path / "method.py").write_text(FATAL, "utf-8")
    pages = german_pages(tmp_path / "pages", 8)
    done = joined("run", recipe(tmp_path / "recipe.yaml", pages, method=str(tmp_path / "method.py"), models={}), "--out", tmp_path / "run")
    assert done.returncode == 2 and "each process at work on its rows dies" in done.stderr.splitlines()[-1]


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path) -> None:
    path = recipe(tmp_path / "recipe.yaml", german_pages(tmp_path / "pages", 8))
    done = xl("run", path, "--out", tmp_path / "run", "--address", "127.0.0.1:9")
    assert done.returncode == 75 and "xl: --address 127.0.0.1:9: no Ray cluster answers there" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cluster_that_wants_a_token_says_so(tmp_path: Path, join: list[str]) -> None:
    path = recipe(tmp_path / "recipe.yaml", german_pages(tmp_path / "pages", 8))
    done = xl("run", path, "--out", tmp_path / "run", *join, env={"RAY_AUTH_MODE": "disabled"})
    assert done.returncode == 2 and "the cluster wants a token: set RAY_AUTH_MODE=token" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_ray_that_does_not_start_says_why(tmp_path: Path) -> None:
    path = recipe(tmp_path / "recipe.yaml", german_pages(tmp_path / "pages", 8))
    done = xl("run", path, "--out", tmp_path / "run", env={"RAY_TMPDIR": str(path)})
    assert done.returncode == 2 and "xl: Ray did not start on this machine" in done.stderr and str(path) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_the_cluster_does_not_see_is_refused(tmp_path: Path, join: list[str]) -> None:
    path = recipe(tmp_path / "recipe.yaml", german_pages(tmp_path / "pages", 8))
    (tmp_path / "disk").mkdir()
    run = command("run", path, "--out", tmp_path / "disk" / "run", *join)
    done = subprocess.run(on_a_disk_of_its_own(tmp_path / "disk", run), check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and f"--out {tmp_path}/disk/run must be on storage that all nodes of the cluster see" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_with_other_files_is_not_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    assert "holds other files (thesis.txt)" in complaint(tmp_path, {"model": "scripted", "engine": "scripted"})
    assert (tmp_path / "run" / "thesis.txt").read_text() == "precious"


def test_a_disk_that_is_full_before_the_first_page_is_named(tmp_path: Path, joined: Cli) -> None:
    path = recipe(tmp_path / "recipe.yaml", german_pages(tmp_path / "pages", 4_000))
    with small_disk(tmp_path / "disk", "48k") as disk:  # the keys of the pages are 64 kB
        done = joined("run", path, "--out", disk / "run")
    assert done.returncode == 2 and "xl: the disk is full" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(tmp_path: Path, join: list[str], joined: Cli) -> None:
    with small_disk(tmp_path / "disk", "16m") as disk:
        writer = {"model": "scripted", "engine": "scripted", "delay_seconds": 0.2, "max_num_seqs": 8}
        path = recipe(tmp_path / "recipe.yaml", german_pages(tmp_path / "pages", 120), models={"writer": writer})
        driver = subprocess.Popen(command("run", path, "--out", disk / "run", *join), stderr=subprocess.PIPE, text=True, cwd=ROOT)
        while not list((disk / "run").glob("stages/pairs/log/*/*.arrow")):
            assert driver.poll() is None, "the run ended before its disk was full"
        filler = fill(disk)
        complaint = driver.communicate(timeout=900)[1]
        assert driver.returncode == 2 and "xl: the disk is full" in complaint and "Traceback" not in complaint, complaint
        filler.unlink()
        succeeded(joined("run", path, "--out", disk / "run"))
        assert_balanced(disk / "run", STAGES)


def test_pages_that_cannot_be_read_are_told_before_a_model_is_trained(tmp_path: Path, joined: Cli) -> None:
    changes = {
        "models": {"writer": {"model": str(tiny_model(tmp_path / "tiny")), "engine": "scripted"}},
        "seeds": {"from": [str(ROOT / "jobs/samples/seeds/de.jsonl")]},
        "reverse_model": {"max_steps": 1, "global_batch": 2, "precision": "fp32"},
    }
    pages = {"from": str(german_pages(tmp_path / "pages", 8)), "lang": "tongue"}
    done = joined("run", recipe(tmp_path / "recipe.yaml", pages, **changes), "--out", tmp_path / "run")
    assert done.returncode == 2 and "no page is in the languages de" in done.stderr
    assert not (tmp_path / "run" / "models").exists()
