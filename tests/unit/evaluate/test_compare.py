"""Differences between runs are paired by question, and know how little a single seed says."""

from pathlib import Path

import numpy as np
import pytest

from xl.compare import Arm, Question, _posed, compare, parse_arms
from xl.errors import UserError
from xl.evaluate.benchmarks.task import Item
from xl.evaluate.intervals import seeds_and_prompts_interval
from xl.folder import RunFolder


def test_arms_are_runs_with_a_role_and_the_same_name_means_seeds() -> None:
    assert [(arm.name, arm.role, len(arm.runs)) for arm in parse_arms(["runs/a"])] == [("base", "base", 1), ("tuned", "tuned", 1)]
    arms = parse_arms(["true=runs/t0", "true=runs/t1", "runs/a:base"])
    assert [(arm.name, arm.role, len(arm.runs)) for arm in arms] == [("true", "tuned", 2), ("a:base", "base", 1)]
    assert [arm.name for arm in parse_arms(["a/run", "b/run", "other"])] == ["a/run", "b/run", "other"]
    assert [arm.name for arm in parse_arms(["a/run:base", "a/run"])] == ["run:base", "run"]
    with pytest.raises(UserError, match="one arm alone"):
        parse_arms(["runs/a:tuned"])
    with pytest.raises(UserError, match="give this one another NAME="):
        parse_arms(["x=runs/a:base", "x=runs/b"])


def test_a_run_that_is_there_is_a_path_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lr=1e-4", "lr=3e-4", "at:noon"):
        (tmp_path / "runs" / name).mkdir(parents=True)

    def parsed(*texts: str) -> list[tuple[str, str, list[str]]]:
        return [(arm.name, arm.role, [str(path) for path in arm.runs]) for arm in parse_arms(texts)]

    assert parsed("runs/lr=1e-4", "runs/lr=3e-4:base") == [
        ("lr=1e-4", "tuned", ["runs/lr=1e-4"]),
        ("lr=3e-4:base", "base", ["runs/lr=3e-4"]),
    ]
    assert parsed("low=runs/lr=1e-4", "runs/at:noon") == [("low", "tuned", ["runs/lr=1e-4"]), ("at:noon", "tuned", ["runs/at:noon"])]
    assert [(name, runs) for name, _, runs in parsed("runs/lr=1e-4")] == [("base", ["runs/lr=1e-4"]), ("tuned", ["runs/lr=1e-4"])]
    with pytest.raises(UserError, match=r"runs/lr=1e-5 is not a run"):
        compare(parse_arms(["runs/lr=1e-5", "runs/lr=2e-5"]), 7)


def test_a_measure_that_no_question_has_in_both_arms_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A pass rate is of some answers alone: one model's may all be others than the other's."""
    one, two = Question("1", "de"), Question("2", "de")
    measured = {
        "base": {"in language": {one: 0.0, two: 1.0}, "pass rate": {one: 1.0}},
        "tuned": {"in language": {one: 1.0, two: 1.0}, "pass rate": {two: 1.0}},
    }
    monkeypatch.setattr("xl.compare.open_run", RunFolder)
    monkeypatch.setattr("xl.compare._measures", lambda run, role: measured[role])
    arms = [Arm(role, role, (tmp_path,)) for role in measured]
    assert [figure.measure for figure in compare(arms, 7)] == ["in language"]
    del measured["base"]["in language"]
    with pytest.raises(UserError, match="pass rate: the runs were not asked the same questions"):
        compare(arms, 7)


def test_runs_under_one_name_differ_in_their_seeds_alone(tmp_path: Path) -> None:
    base = {"method": "x_instruction", "languages": ["de"], "pages": {"from": "pages"}, "models": {"writer": {"model": "m"}}}
    changes = ({"seed": 1}, {"seed": 2, "models": {"writer": {"model": "m", "max_num_seqs": 4}}}, {"seed": 3, "languages": ["de", "sw"]})
    for number, change in enumerate(changes):
        RunFolder(tmp_path / str(number)).write_info({"recipe": base | change})
    with pytest.raises(UserError, match="nothing was measured"):
        compare([Arm("seeds", "tuned", (tmp_path / "0", tmp_path / "1"))], 7)
    with pytest.raises(UserError, match=r"2: not another seed of .*0, for languages"):
        compare([Arm("seeds", "tuned", (tmp_path / "0", tmp_path / "2"))], 7)


def test_a_question_that_is_worded_otherwise_is_another_one() -> None:
    asked = [_posed(Item("1", "de", prompt, ("ja",))) for prompt in ("Ist es so?", "Ist es so?", "War es so?")]
    assert asked[0] == asked[1] != asked[2]


def test_the_interval_over_seeds_and_prompts_holds_the_difference_between_all_trainings() -> None:
    """Trainings that differ by seed as much as by prompt: an interval over prompts alone holds the truth far too seldom."""
    rng = np.random.default_rng(3)
    num_prompts, num_seeds, true_difference = 60, 5, 0.1
    keys, weights = [str(n) for n in range(num_prompts)], [1.0] * num_prompts

    def arm(mean: float, num: int) -> np.ndarray:  # type: ignore[type-arg]
        prompts, seeds = rng.normal(0, 0.08, num_prompts), rng.normal(0, 0.05, (num, 1))
        return np.clip(mean + prompts + seeds + rng.normal(0, 0.05, (num, num_prompts)), 0, 1)

    held = {"both": 0, "prompts": 0}
    for trial in range(200):
        first, other = arm(0.4, num_seeds), arm(0.4 + true_difference, num_seeds)
        low, high = seeds_and_prompts_interval(first, other, keys, weights, trial)
        held["both"] += low <= true_difference <= high
        one = first.mean(axis=0, keepdims=True), other.mean(axis=0, keepdims=True)
        low, high = seeds_and_prompts_interval(*one, keys, weights, trial)
        held["prompts"] += low <= true_difference <= high
    assert held["both"] >= 0.85 * 200
    assert held["prompts"] < held["both"]
