"""`xl eval` with the scripted engine: the same answers give the same scores, whatever was killed on the way."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT, Cli, command, german_pages, outcomes, recipe, succeeded, traced, wait_for

pytestmark = pytest.mark.ray

NUM_QUESTIONS = 30


def questions(folder: Path) -> Path:
    """XQuAD's files in two languages, with answers that the scripted engine's have words of."""
    folder.mkdir()
    for lang in ("de", "es"):
        asked = [
            {"id": str(n), "question": f"What about {n}?", "answers": [{"text": "how the river came to be known"}]}
            for n in range(NUM_QUESTIONS)
        ]
        paragraphs = [{"context": f"A passage about {one['question']}", "qas": [one]} for one in asked]
        (folder / f"xquad.{lang}.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}), "utf-8")
    return folder


def questions_about(paragraphs: list[str], folder: Path) -> Path:
    """XQuAD's file in German, on these paragraphs."""
    folder.mkdir()
    asked = [{"id": str(n), "question": f"Wovon berichtet der Band {n}?", "answers": [{"text": "Heimat"}]} for n in range(len(paragraphs))]
    data = [{"title": "t", "paragraphs": [{"context": text, "qas": [one]} for text, one in zip(paragraphs, asked, strict=True)]}]
    (folder / "xquad.de.json").write_text(json.dumps({"data": data}), "utf-8")
    return folder


def arguments(files: Path, out: Path, *more: str) -> list[str | Path]:
    model = ["--model", "scripted", "--set", "engine=scripted", "--set", "delay_seconds=0.05", "--set", "max_num_seqs=4"]
    return ["eval", "--task", "xquad", "--from", files, "--languages", "de,es", *model, "--out", out, "--json", *more]


def test_scores_are_those_of_an_undisturbed_evaluation_after_a_kill_and_only_new_questions_are_asked(
    tmp_path: Path, join: list[str], joined: Cli
) -> None:
    files, trace = questions(tmp_path / "xquad"), tmp_path / "trace"
    alone = json.loads(succeeded(joined(*arguments(files, tmp_path / "alone"), env={"XL_SCRIPTED_TRACE": str(trace)})))
    assert traced(trace).total() == 2 * NUM_QUESTIONS
    languages = alone[0]["languages"]
    assert {lang: score["num_items"] for lang, score in languages.items()} == {"de": NUM_QUESTIONS, "es": NUM_QUESTIONS}
    assert 0.2 < alone[0]["mean"]["measures"]["f1"]["value"] < 0.9
    assert languages["de"]["language"]["num_wrong"] == NUM_QUESTIONS, "the scripted engine answers in English"

    killed = tmp_path / "killed"
    driver = subprocess.Popen(command(*arguments(files, killed, *join)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    wait_for(lambda: next((killed / "stages" / "answers_model").rglob("*.arrow"), None) is not None)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert json.loads(succeeded(joined(*arguments(files, killed)))) == alone
    found = outcomes(killed)
    assert len(found["answers_model"]) == 2 * NUM_QUESTIONS
    assert set(found["answers_model"].values()) == {1}

    asked = tmp_path / "asked"
    limited = tmp_path / "limited"
    assert joined(*arguments(files, limited, "--limit", "10")).returncode == 0
    assert json.loads(succeeded(joined(*arguments(files, limited), env={"XL_SCRIPTED_TRACE": str(asked)}))) == alone
    assert traced(asked).total() == 2 * (NUM_QUESTIONS - 10)

    refused = joined(*arguments(files, limited, "--num-shots", "2"))
    assert refused.returncode == 2
    assert "xquad.num_shots: None → 2" in refused.stderr


def test_a_run_gives_its_base_model_the_score_that_it_has_alone(tmp_path: Path, joined: Cli) -> None:
    files = questions(tmp_path / "xquad")
    alone = json.loads(succeeded(joined(*arguments(files, tmp_path / "alone", "--export", str(tmp_path / "harness"), "--seed", "7"))))
    scripted = {"model": "scripted", "engine": "scripted"}
    asked = [{"task": "xquad", "from": str(files), "languages": ["de", "es"]}]
    path = recipe(tmp_path / "r.yaml", german_pages(tmp_path / "pages", 4), models={"writer": scripted, "base": scripted}, benchmarks=asked)
    told = succeeded(joined("run", path, "--out", tmp_path / "run"))
    assert "mean of languages" in told
    inside = json.loads((tmp_path / "run" / "benchmarks" / "results.json").read_text("utf-8"))
    assert [{**result, "role": "model"} for result in inside] == alone

    (aggregated,) = (tmp_path / "harness" / "scripted").glob("results_*.json")
    figures = json.loads(aggregated.read_text("utf-8"))
    assert figures["results"]["xquad_de"]["f1,none"] == alone[0]["languages"]["de"]["measures"]["f1"]["value"]
    (samples,) = (tmp_path / "harness" / "scripted").glob("samples_xquad_de_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text("utf-8").splitlines()]
    assert sum(line["f1"] for line in lines) / len(lines) == pytest.approx(figures["results"]["xquad_de"]["f1,none"])


def test_pages_of_the_benchmark_stay_out_of_the_dataset_and_where_they_may_stay_the_report_warns(tmp_path: Path, joined: Cli) -> None:
    pages = german_pages(tmp_path / "pages", 20)
    scripted = {"model": "scripted", "engine": "scripted"}
    texts = [json.loads(line)["text"] for file in pages.glob("*.jsonl") for line in file.read_text("utf-8").splitlines()]
    paragraphs = texts[:5]
    asked = [{"task": "xquad", "from": str(questions_about(paragraphs, tmp_path / "xquad")), "languages": ["de"]}]
    path = recipe(tmp_path / "r.yaml", pages, models={"writer": scripted, "base": scripted}, benchmarks=asked)

    def with_paragraphs(out: Path, *more: str) -> tuple[int, bool]:
        """Pairs of the dataset that have a paragraph of the benchmark, and whether the report warns of such."""
        succeeded(joined("run", path, "--out", out, *more))
        lines = (out / "dataset" / "train.jsonl").read_text("utf-8").splitlines()
        num_pairs = sum(json.loads(line)["response"] in paragraphs for line in lines)
        return num_pairs, "Warning: contamination.drop is off." in (out / "report.html").read_text("utf-8")

    assert with_paragraphs(tmp_path / "with") == (0, False)
    num_pairs, is_warned = with_paragraphs(tmp_path / "without", "--set", "contamination.drop=false")
    assert num_pairs > 0 and is_warned
