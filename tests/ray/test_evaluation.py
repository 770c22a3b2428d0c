"""Evaluations with the scripted engine: every prompt is accounted for, and the same command again goes on."""

import functools
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT, Cli, job, ledger, outcomes, traced, wait_for

pytestmark = pytest.mark.ray

STAGES = ["prompts", "contrasts", "answers_base", "answers_tuned", "fit", "verdicts"]
NUM_PROMPTS = 20
SCRIPTED = {"model": "scripted", "engine": "scripted", "delay_seconds": 0.02, "max_num_seqs": 8}


def write(folder: Path, **evaluate: Any) -> Path:
    """An evaluation of two scripted models."""
    prompts = folder / "prompts.jsonl"
    lines = [json.dumps({"id": str(n), "instruction": f"Explain what number {n} is good for."}) for n in range(NUM_PROMPTS)]
    prompts.write_text("\n".join(lines), "utf-8")
    path = folder / "evaluation.yaml"
    data = {
        "languages": ["de", "sw"],
        "models": {"base": SCRIPTED, "tuned": {**SCRIPTED, "model": "scripted-too"}},
        "evaluate": {
            "prompts": {"from": str(prompts), "id": "id"},
            "arms": ["base", "tuned"],
            "num_others": 2,
            "num_fit_prompts": 10,
            **evaluate,
        },
        "seed": 7,
    }
    path.write_text(yaml.safe_dump(data), "utf-8")
    return path


def test_every_prompt_is_answered_and_only_what_is_new_is_asked_again(tmp_path: Path, joined: Cli) -> None:
    out, trace = tmp_path / "out", tmp_path / "trace"
    evaluate = functools.partial(joined, main=job("evaluate"), env={"XL_SCRIPTED_TRACE": str(trace)})
    done = evaluate(write(tmp_path), "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0/40 0.00" in done.stdout, "the scripted engine answers in English, which is nobody's wanted language"
    assert "rows kept by each stage" in done.stdout
    assert {stage: {lang: entry["kept"] for lang, entry in rows.items()} for stage, rows in ledger(out).items()} == {
        stage: {"de": NUM_PROMPTS, "sw": NUM_PROMPTS} for stage in STAGES
    }
    asked = traced(trace).total()
    assert asked == 2 * (2 * NUM_PROMPTS + 2 * 10 * 3), "two answers each, and half of them held against their own prompt and two others"

    assert evaluate(write(tmp_path), "--out", out).returncode == 0
    assert traced(trace).total() == asked, "a finished evaluation asks nothing"

    done = evaluate(write(tmp_path, languages=["de", "sw", "th"]), "--out", out)
    assert done.returncode == 0, done.stderr
    assert traced(trace).total() == 1.5 * asked, "one more language costs its own rows"

    refused = evaluate(write(tmp_path, languages=["de", "sw", "th"], temperature=0.5), "--out", out)
    assert refused.returncode == 2
    assert "sampling.temperature: 0.0 → 0.5" in refused.stderr
    assert "answers_base" in refused.stderr


@pytest.mark.chaos
def test_a_killed_evaluation_goes_on_and_answers_every_prompt_once(tmp_path: Path, join: list[str], joined: Cli) -> None:
    path, out = write(tmp_path), tmp_path / "out"
    command = [sys.executable, str(ROOT / "jobs" / "evaluate.py"), str(path), "--out", str(out), *join]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    wait_for(lambda: next((out / "stages" / "answers_base").rglob("*.arrow"), None) is not None)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    done = joined(path, "--out", out, main=job("evaluate"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = outcomes(out)
    for stage in STAGES:
        assert len(found[stage]) == 2 * NUM_PROMPTS, stage
        assert set(found[stage].values()) == {1}, stage


def test_a_judge_that_guesses_fails_its_examination_and_gives_no_win_rate(tmp_path: Path, joined: Cli) -> None:
    path = write(tmp_path, num_others=0, judge={"kind": "ab"})
    recipe = yaml.safe_load(path.read_text("utf-8"))
    path.write_text(yaml.safe_dump({**recipe, "models": {**recipe["models"], "judge": {**SCRIPTED, "model": "coin"}}}), "utf-8")
    done = joined(path, "--out", tmp_path / "out", main=job("evaluate"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "win rate of tuned against base, judge coin: withheld: " in done.stdout
    assert "seen through" in done.stdout
    assert ledger(tmp_path / "out")["judged"]["de"]["kept"] == NUM_PROMPTS
