"""Open-ended answers are judged against references by a judge that is examined first, and travel in AlpacaEval's files."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.fake_engine import FakeEngine, asked
from tests.support import ROOT
from tests.unit.evaluate.in_process import CONSOLE, role, without_ray
from tests.unit.evaluate.test_judge import SOUND, Judge
from xl.compare import Arm, compare
from xl.engines.scripted import ScriptedEngine
from xl.errors import UserError
from xl.evaluate.alpaca_files import export_alpaca_eval
from xl.evaluate.benchmarks.alone import one_model
from xl.evaluate.benchmarks.export import export_lm_eval
from xl.evaluate.benchmarks.judged import Judged, print_judged
from xl.evaluate.benchmarks.judging import judge_answers
from xl.evaluate.benchmarks.references import read_references
from xl.evaluate.benchmarks.results import Result, results
from xl.evaluate.benchmarks.run import Benchmarking, run_benchmarks
from xl.evaluate.benchmarks.settings import Task
from xl.evaluate.run import Evaluation, run_evaluation
from xl.evaluate.score import score_winrate
from xl.evaluate.settings import Evaluate
from xl.evaluate.winrate import Rate
from xl.folder import RunFolder
from xl.recipe import checked

PROMPTS = ROOT / "tests" / "fixtures" / "alpaca_eval" / "alpaca_eval.json"
VICUNA = ROOT / "tests" / "fixtures" / "vicuna" / "question.jsonl"
ENGLISH = "A beekeeper feeds the bees in autumn and leaves them in peace in winter, as far as that is possible. Number {}."
WRITTEN = {
    "German": "Im Herbst füttert die Imkerin ihre Bienen, im Winter lässt sie sie so weit wie möglich in Ruhe. Nummer {}.",
    "Portuguese": "No outono a apicultora alimenta as abelhas e no inverno as deixa em paz tanto quanto possível. Número {}.",
}
NO_VERDICT = "harbour"
"""A request with this word gets no verdict; of the others, those with a question mark are the model's."""


def english(request: Any) -> str:
    return ENGLISH.format(len(asked(request)))


def in_language(request: Any) -> str:
    text = asked(request)
    return next(answer for language, answer in WRITTEN.items() if language in text).format(len(text))


def verdict(request: str, first: str, second: str) -> str:
    """A judge that sees planted errors, and does not care for the language of other answers."""
    if request in SOUND:
        return "A" if first == SOUND[request] else "B"
    if NO_VERDICT in request:
        return "Hm."
    return "A" if ("?" in request) == (not first.startswith("A beekeeper")) else "B"


def marks(request: str, first: str, second: str) -> str:
    """A judge that sees planted errors; elsewhere it marks the model one point higher if it comes first, and else the same."""
    if request in SOUND:
        return "9 2" if first == SOUND[request] else "2 9"
    return "8 8" if first.startswith("A beekeeper") else "9 8"


def longer(request: str, first: str, second: str) -> str:
    """A judge that sees planted errors; elsewhere the longer answer wins, but for every fifth request."""
    if request in SOUND:
        return "A" if first == SOUND[request] else "B"
    return "A" if (len(first) > len(second)) == bool(_number(request) % 5) else "B"


def wordy(request: Any) -> str:
    """Three answers in four are longer than the reference, by more or less."""
    return "word " * (20 + (-6, 6, 12, 18)[_number(asked(request)) % 4])


def _number(request: str) -> int:
    return int("".join(filter(str.isdigit, request)))


ENGINES = {
    "writes-english": lambda: FakeEngine(english),
    "knows-languages": lambda: FakeEngine(in_language),
    "judge": lambda: Judge(verdict),
    "marks": lambda: Judge(marks),
    "wordy": lambda: FakeEngine(wordy),
    "likes-length": lambda: Judge(longer),
    "coin": ScriptedEngine,
}


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch, lambda name: ENGINES[name]())


def evaluated(
    folder: Path, model: str, reference: Path | None = None, judge: str = "judge", task: str = "xl_alpacaeval", path: Path = PROMPTS
) -> tuple[RunFolder, Result]:
    run = RunFolder(folder)
    settings = checked(Task, {"task": task, "from": str(path), **({"reference": str(reference)} if reference else {})}, "recipe")
    wanted = Benchmarking((settings,), ("de", "pt"), 7, {"model": role(model)}, role(judge))
    run_benchmarks(wanted, run, None, CONSOLE)  # type: ignore[arg-type]
    judge_answers(wanted, run, None, CONSOLE)  # type: ignore[arg-type]
    return run, results(run, 7)[0]


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    run, _ = evaluated(tmp_path / "english", "writes-english")
    (outputs,) = export_alpaca_eval(run, tmp_path / "files", 7, CONSOLE)
    return outputs


def printed(found: Judged) -> str:
    console = Console(width=240, file=io.StringIO(), record=True)
    print_judged(found, "vicuna", "knows-languages", console)
    return console.export_text()


def same_rate(found: Rate | None, expected: Rate | None) -> None:
    assert found is not None and expected is not None
    assert (found.num_wins, found.num_losses, found.num_draws) == (expected.num_wins, expected.num_losses, expected.num_draws)
    for figure in ("value", "standard_error", "low", "high"):
        assert getattr(found.mean, figure) == pytest.approx(getattr(expected.mean, figure), abs=1e-9), figure


def test_answers_are_compared_with_another_models_in_both_ways_and_the_files_give_the_same_rate(tmp_path: Path, reference: Path) -> None:
    run, result = evaluated(tmp_path / "model", "knows-languages", reference)
    found = result.judged
    assert found is not None and (found.reference, found.judge) == ("writes-english", "judge")
    rates = found.overall
    assert (rates.num_pairs, rates.num_invalid_pairs) == (14, 2)
    assert rates.rate is not None and rates.gated_rate is not None
    assert 0 < rates.rate.mean.value < 1, "as the judge has it"
    assert rates.gated_rate.mean.value == 1, "every reference answer is in English"
    assert rates.num_reference_wrong_language == 14
    assert found.length_controlled == {} and found.overall_length_controlled is None, "six verdicts are too few to fit"
    assert "no rate at equal length where it cannot be fitted: too few prompts are won or lost" in printed(found)
    assert set(found.languages) == {"de", "pt"} and result.mean.measures["in_language"].value == 1

    outputs, annotations = export_alpaca_eval(run, tmp_path / "files", 7, CONSOLE)
    scored = score_winrate(annotations, 7)
    assert (scored.model, scored.reference, scored.annotator) == ("knows-languages", "writes-english", "judge")
    assert scored.result.num_invalid_pairs == 2
    assert (scored.result.model_mean_chars, scored.result.length_ratio) == (rates.model_mean_chars, rates.length_ratio)
    same_rate(scored.result.rate, rates.rate)
    first = json.loads(outputs.read_text("utf-8"))[0]
    assert set(first) >= {"instruction", "output", "generator", "dataset", "lang"} and "German" in first["instruction"]

    other, _ = evaluated(tmp_path / "other", "writes-english", reference)
    figures = compare([Arm("before", "model", (other.root,)), Arm("after", "model", (run.root,))], 7)
    wins = next(figure for figure in figures if "wins against writes-english" in figure.measure and figure.lang is None)
    assert wins.estimates["before"].value == 0.5, "the same answers are a tie"
    assert wins.estimates["after"].value == pytest.approx(rates.rate.mean.value)


def test_one_benchmark_asked_with_and_without_a_style_has_two_results_told_apart_by_their_names(tmp_path: Path) -> None:
    other, _ = evaluated(tmp_path / "other", "writes-english", task="vicuna", path=VICUNA)
    (outputs,) = export_alpaca_eval(other, tmp_path / "files", 7, CONSOLE)
    plain = {"task": "vicuna", "from": str(VICUNA), "reference": str(outputs)}
    tasks = tuple(checked(Task, one, "recipe") for one in (plain, {**plain, "name": "tagged", "style": "Write like a web page."}))
    run = RunFolder(tmp_path / "model")
    wanted = Benchmarking(tasks, ("de", "pt"), 7, {"model": role("knows-languages")}, role("judge"))
    run_benchmarks(wanted, run, None, CONSOLE)  # type: ignore[arg-type]
    judge_answers(wanted, run, None, CONSOLE)  # type: ignore[arg-type]

    found = results(run, 7)
    assert [(one.name, one.task, one.mean.num_items) for one in found] == [("vicuna", "vicuna", 12), ("tagged", "vicuna", 12)]
    assert [one.judged and one.judged.num_without_reference for one in found] == [0, 0], "references need not know the style"
    written = [*export_alpaca_eval(run, tmp_path / "out", 7, CONSOLE), *export_lm_eval(run, found, tmp_path / "out")]
    first, tagged = (json.loads((tmp_path / "out/knows-languages" / one.name / "model_outputs.json").read_text("utf-8")) for one in found)
    assert [row["instruction"] for row in tagged] == [f"{row['instruction']} Write like a web page." for row in first]
    assert {"vicuna_de", "tagged_de", "tagged_pt"} <= json.loads(written[-1].read_text("utf-8"))["results"].keys()
    measures = {figure.measure for figure in compare([Arm(name, "model", (run.root,)) for name in ("one", "two")], 7)}
    assert {"vicuna in_language", "tagged in_language"} <= measures


def test_marks_are_summed_over_both_orders_and_what_these_agree_on_stands_beside(tmp_path: Path) -> None:
    other, _ = evaluated(tmp_path / "other", "writes-english", task="vicuna", path=VICUNA)
    (outputs,) = export_alpaca_eval(other, tmp_path / "files", 7, CONSOLE)
    run, result = evaluated(tmp_path / "model", "knows-languages", outputs, "marks", "vicuna", VICUNA)
    found = result.judged
    assert found is not None and found.overall.rate is not None and found.overall.agreed_rate is not None
    assert found.overall.rate.mean.value == 1, "one point more is a win"
    assert found.overall.agreed_rate.mean.value == 0.5, "in the other order it is a tie"
    told = printed(found)
    assert "agreed win rate" in told and "the greater sum of marks over both orders wins" in told
    *_, annotations = export_alpaca_eval(run, tmp_path / "files", 7, CONSOLE)
    same_rate(score_winrate(annotations, 7).result.rate, found.overall.rate)


def test_a_judge_that_likes_length_prefers_no_answer_at_equal_length(tmp_path: Path) -> None:
    prompts, references = tmp_path / "prompts.json", tmp_path / "references.json"
    asks = [f"Describe the thing with the number {n}." for n in range(80)]
    prompts.write_text(json.dumps([{"instruction": ask} for ask in asks]), "utf-8")
    answers = [{"instruction": ask, "output": "word " * 20, "generator": "terse", "lang": lang} for ask in asks for lang in ("de", "pt")]
    references.write_text(json.dumps(answers), "utf-8")
    run, result = evaluated(tmp_path / "run", "wordy", references, "likes-length", path=prompts)
    found = result.judged
    assert found is not None and found.overall.rate is not None and found.overall_length_controlled is not None
    assert found.overall.rate.mean.low > 0.5, "three answers in four are longer"
    for estimate in (found.overall_length_controlled, *found.length_controlled.values()):
        assert estimate.low < 0.5 < estimate.high
    assert (
        set(found.length_controlled) == {"de", "pt"}
        and "equal length [95 %]" in printed(found)
        and "judged by likes-length" in printed(found)
    )

    *_, annotations = export_alpaca_eval(run, tmp_path / "files", 7, CONSOLE)
    assert score_winrate(annotations, 7).length_controlled_estimate == found.overall_length_controlled


def test_a_judge_that_fails_its_examination_gives_no_win_rate_and_no_annotations(tmp_path: Path, reference: Path) -> None:
    run, result = evaluated(tmp_path / "model", "knows-languages", reference, judge="coin")
    assert result.judged is not None and result.judged.overall.rate is None and result.judged.overall.gated_rate is None
    assert "failed its examination" in str(result.judged.overall.withheld) and result.judged.overall_length_controlled is None
    assert [path.name for path in export_alpaca_eval(run, tmp_path / "files", 7, CONSOLE)] == ["model_outputs.json"]


def test_answers_that_wait_for_their_judge_are_told(tmp_path: Path, reference: Path) -> None:
    run, _ = evaluated(tmp_path / "model", "knows-languages", reference)
    shutil.rmtree(run.root / "judged" / "xl_alpacaeval_model")
    for read in (lambda: results(run, 7), lambda: compare([Arm(name, "model", (run.root,)) for name in ("one", "two")], 7)):
        with pytest.raises(UserError, match="is not finished; run the same command again"):
            read()


def test_another_judge_is_refused_before_its_examination_replaces_the_first_ones(tmp_path: Path, reference: Path) -> None:
    run, result = evaluated(tmp_path / "model", "knows-languages", reference)
    with pytest.raises(UserError, match=r"judge.*Use --redo"):
        evaluated(tmp_path / "model", "knows-languages", reference, judge="coin")
    assert results(run, 7)[0] == result


def test_a_runs_own_evaluation_has_the_same_files(tmp_path: Path) -> None:
    settings = checked(
        Evaluate,
        {"prompts": {"from": str(PROMPTS), "source": "own"}, "num_others": 0, "judge": {"kind": "ab"}, "reference": "base"},
        "recipe",
    )
    roles = {"base": role("writes-english"), "tuned": role("knows-languages"), "judge": role("judge")}
    run = RunFolder(tmp_path / "run")
    run_evaluation(Evaluation(settings, ("de", "pt"), 7, roles), run, None, CONSOLE)  # type: ignore[arg-type]
    base, tuned, annotations = export_alpaca_eval(run, tmp_path / "files", 7, CONSOLE)
    assert base.parent == tmp_path / "files" / "writes-english" / "own" and tuned.parent == annotations.parent
    assert len(json.loads(tuned.read_text("utf-8"))) == 14
    scored = score_winrate(annotations, 7)
    assert (scored.model, scored.result.num_pairs, scored.result.num_invalid_pairs) == ("knows-languages", 14, 2)
    assert scored.result.rate is not None and scored.result.rate.num_wins == 2 * 3


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"instruction": "a", "output": "b"}], "`lang` must be a language"),
        ([{"instruction": "a", "output": "b", "lang": "de"}] * 2, "row 2: this instruction has been answered before"),
        ([{"instruction": str(n), "output": "b", "lang": "de", "generator": str(n)} for n in range(2)], "2 models"),
        ([{"instruction": "a", "output": None, "lang": "de"}], "`output` must be a text"),
        ([], "no answers in it"),
    ],
)
def test_a_mistake_in_a_file_of_references_is_one_line_that_names_it(tmp_path: Path, rows: list[Any], complaint: str) -> None:
    path = tmp_path / "reference.json"
    path.write_text(json.dumps(rows), "utf-8")
    with pytest.raises(UserError, match=complaint) as caught:
        read_references(str(path), ["de", "pt"])
    assert str(path) in str(caught.value)


def test_references_of_other_prompts_are_told(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    path.write_text(json.dumps([{"instruction": "a", "output": "b", "lang": "de"}]), "utf-8")
    with pytest.raises(UserError, match="no `instruction` in it is one of xl_alpacaeval's"):
        evaluated(tmp_path / "run", "knows-languages", path)


def test_a_judge_and_references_go_together() -> None:
    models = {role: {"model": "scripted", "engine": "scripted"} for role in ("model", "judge")}
    task = {"task": "vicuna", "from": "question.jsonl"}
    with pytest.raises(UserError, match="--judge and --reference go together"):
        one_model(models, [], [task], ["de"], 7)
    wanted = one_model(models, ["judge.delay_seconds=2"], [{**task, "reference": "r.json"}], ["de"], 7)
    assert wanted.judge is not None and wanted.judge[0].delay_seconds == 2 and wanted.roles["model"][0].delay_seconds == 0
