"""What an evaluation says of every answer without a judge, what a judge adds if it can be believed, and that nothing is said too early."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from tests.unit.evaluate.benchmarks.test_judged import ENGINES, ENGLISH
from tests.unit.evaluate.in_process import CONSOLE, role, without_ray
from xl.compare import Arm, compare
from xl.errors import UserError
from xl.evaluate.alpaca_files import export_alpaca_eval
from xl.evaluate.outcome import outcome, print_outcome
from xl.evaluate.recipe import load_evaluation
from xl.evaluate.rows import finished_rows
from xl.evaluate.run import Evaluation, run_evaluation
from xl.evaluate.settings import Evaluate
from xl.folder import RunFolder
from xl.recipe import checked

NUM_PROMPTS = 8
LANGUAGES = ("de", "pt")
AB = {"kind": "ab"}


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "another", ENGINES["judge"])
    without_ray(monkeypatch, lambda name: ENGINES[name]())


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Questions in two languages; half of them have a reference answer."""
    path = tmp_path / "prompts.jsonl"
    asked = [
        {"id": str(n), "instruction": f"What do bees do in week {n}?", "lang": lang, "reference": None if n % 2 else ENGLISH.format(n)}
        for n in range(NUM_PROMPTS)
        for lang in LANGUAGES
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in asked), "utf-8")
    return path


def evaluated(prompts: Path, folder: Path, *, tuned: str = "knows-languages", judge_model: str = "judge", **settings: Any) -> RunFolder:
    asked = {"from": str(prompts), "id": "id", "lang": "lang", "reference": "reference"}
    wanted = checked(Evaluate, {"prompts": asked, "num_others": 0, **settings}, "recipe")
    roles = {"base": role("writes-english"), "tuned": role(tuned), "judge": role(judge_model)}
    run = RunFolder(folder)
    run_evaluation(Evaluation(wanted, LANGUAGES, 7, roles), run, None, CONSOLE)  # type: ignore[arg-type]
    return run


def evaluated_alone(prompts: Path, folder: Path, tuned: str) -> RunFolder:
    """As `jobs/evaluate.py` does it, from a recipe."""
    models = {name: {"model": model, "engine": "scripted"} for name, model in (("base", "writes-english"), ("tuned", tuned))}
    asked = {"prompts": {"from": str(prompts), "id": "id", "lang": "lang"}, "num_others": 0}
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump({"languages": [*LANGUAGES], "models": models, "evaluate": asked}), "utf-8")
    run_evaluation(load_evaluation(recipe), RunFolder(folder), None, CONSOLE)  # type: ignore[arg-type]
    return RunFolder(folder)


def judged_run(prompts: Path, root: Path, judge_model: str = "judge") -> Path:
    """A run with nothing but its evaluation, judged against the base model."""
    evaluated(prompts, root / "evaluation", judge_model=judge_model, judge=AB)
    RunFolder(root).write_info({})
    return root


def tuned_answers(run: RunFolder) -> list[str]:
    return [row["answer_tuned"] for row in finished_rows(run, "verdicts")]


def test_answers_that_could_not_be_judged_count_in_every_other_measure_and_are_told(prompts: Path, tmp_path: Path) -> None:
    alone = outcome(evaluated(prompts, tmp_path / "alone"), (), {}, 7)
    judged = outcome(evaluated(prompts, tmp_path / "judged", judge=AB, reference="reference"), (), {}, 7)
    assert judged.arms == alone.arms and judged.comparisons == alone.comparisons
    assert judged.arms[1].accuracy.overall.num_answers == 2 * NUM_PROMPTS
    assert [each.rates.num_pairs for each in judged.judged] == [NUM_PROMPTS, NUM_PROMPTS]
    assert (alone.left_out, judged.left_out) == ({}, {"judged": {"missing_answer": NUM_PROMPTS}})
    console = Console(width=160, file=io.StringIO(), record=True)
    print_outcome(judged, console)
    assert "left out from the stage judged on: 8 rows (missing_answer 8)" in console.export_text()


def test_wins_are_compared_under_one_judge_alone_that_can_be_believed(prompts: Path, tmp_path: Path) -> None:
    runs = {judge: judged_run(prompts, tmp_path / judge, judge) for judge in ("judge", "another", "coin")}

    def wins(first: str, other: str) -> list[str]:
        figures = compare([Arm("first", "tuned", (runs[first],)), Arm("other", "tuned", (runs[other],))], 7)
        return [figure.measure for figure in figures if figure.lang is None and figure.measure.startswith("wins")]

    assert wins("judge", "judge") == ["wins against base (writes-english), judged by judge (ab)"]
    assert wins("judge", "another") == []
    assert wins("coin", "coin") == [], "it fails its examination"


def test_an_unfinished_evaluation_is_neither_compared_nor_exported(prompts: Path, tmp_path: Path) -> None:
    run = RunFolder(judged_run(prompts, tmp_path / "run"))
    run.evaluation.store("verdicts").path("pt-00000").unlink()
    with pytest.raises(UserError, match="evaluation is not finished; run the same command again"):
        compare([Arm(role, role, (run.root,)) for role in ("base", "tuned")], 7)
    with pytest.raises(UserError, match="evaluation is not finished; run the same command again"):
        export_alpaca_eval(run, tmp_path / "files", 7, CONSOLE)


def test_the_answers_of_another_model_stay_until_the_user_says_so_unless_a_run_has_tuned_it_anew(prompts: Path, tmp_path: Path) -> None:
    alone = evaluated_alone(prompts, tmp_path / "alone", "knows-languages")
    before = tuned_answers(alone)
    with pytest.raises(UserError, match=r"knows-languages → .*writes-english.*touches answers_tuned, verdicts.*--redo"):
        evaluated_alone(prompts, alone.root, "writes-english")
    assert tuned_answers(alone) == before

    inside = evaluated(prompts, tmp_path / "run" / "evaluation")
    assert tuned_answers(inside) == before
    assert tuned_answers(evaluated(prompts, inside.root, tuned="writes-english")) != before
