"""Open-ended benchmarks are read as they were published, asked as users ask, and scored without a judge as far as that goes."""

import asyncio
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.fake_engine import FakeEngine, asked
from tests.support import ROOT
from tests.unit.evaluate.in_process import CONSOLE, role, without_ray
from xl.ask import Context
from xl.errors import UserError
from xl.evaluate.benchmarks import run as benchmarks
from xl.evaluate.benchmarks.catalogue import BENCHMARKS
from xl.evaluate.benchmarks.results import Scored, print_results, results, score_answers
from xl.evaluate.benchmarks.run import Benchmarking, read_items, to_row
from xl.evaluate.benchmarks.settings import Task
from xl.evaluate.benchmarks.task import Answer, Item
from xl.folder import RunFolder
from xl.recipe import checked
from xl.train.prompts import request

FIXTURES = ROOT / "tests" / "fixtures"
FILES = {
    "alpaca_eval": FIXTURES / "alpaca_eval" / "alpaca_eval.json",
    "language_confusion": FIXTURES / "language_confusion",
    "m_alpacaeval": FIXTURES / "m_alpacaeval",
    "vicuna": FIXTURES / "vicuna" / "question.jsonl",
    "wizardlm": FIXTURES / "wizardlm" / "WizardLM_testset.jsonl",
    "xl_alpacaeval": FIXTURES / "alpaca_eval" / "alpaca_eval.json",
}
GERMAN = "Eine Schleuse hebt und senkt Schiffe zwischen zwei Wasserständen.\nDafür schließt man die Tore und lässt Wasser ein."
CHINESE = "船闸让船只在两个不同的水位之间升降。\n关上闸门以后，水慢慢流进来，船就升高了。"
ENGLISH = "A lock raises and lowers ships between two levels of water. For that its gates are closed and water is let in."


def items(task: str, languages: list[str], path: Path | None = None, **settings: object) -> list[Item]:
    wanted = checked(Task, {"task": task, "from": str(path or FILES[task]), **settings}, "recipe")
    return wanted.benchmark.load(wanted.source(7), languages).items


def score(task: str, lang: str, text: str) -> dict[str, float] | None:
    found = BENCHMARKS[task].score(Item("1", lang, "", (), answer_lang=lang), Answer(text))
    return found if found is None else dict(found)


@pytest.mark.parametrize(
    ("task", "languages", "num_prompts"),
    [
        ("alpaca_eval", ["en"], 7),
        ("language_confusion", ["de", "zh"], 12),
        ("m_alpacaeval", ["de", "pt"], 7),
        ("vicuna", ["de", "sw"], 6),
        ("wizardlm", ["th"], 6),
        ("xl_alpacaeval", ["de", "ga"], 7),
    ],
)
def test_each_set_is_read_in_its_own_format_and_a_prompt_has_one_name_in_all_languages(task, languages, num_prompts) -> None:
    rows, _ = read_items(Benchmarking((Task.model_validate({"task": task, "from": str(FILES[task])}),), tuple(languages), 7, {}))
    keys = [{row["key"] for row in rows if row["lang"] == lang} for lang in languages]
    assert all(len(own) == num_prompts and own == keys[0] for own in keys)
    assert all(row["is_request"] and row["answer_lang"] == row["lang"] for row in rows)


def test_the_language_is_asked_for_where_the_set_does_not_do_so_itself() -> None:
    assert items("vicuna", ["sw"])[0].prompt == "How can I fall asleep more easily? Answer in Swahili."
    assert all("Irish" in item.prompt for item in items("xl_alpacaeval", ["ga"]))
    assert items("alpaca_eval", ["en"])[0].prompt == "What does a beekeeper do in winter?"
    assert items("m_alpacaeval", ["pt"])[0].prompt == "O que faz uma apicultora no inverno?"
    crosslingual, monolingual = (
        [item for item in items("language_confusion", ["de"]) if item.group.startswith(task)] for task in ("crosslingual", "monolingual")
    )
    assert crosslingual[1].prompt == "Explain in German how a lock on a canal works." and crosslingual[1].key == "crosslingual okapi 2"
    assert monolingual[0].prompt == "Warum ist der Himmel am Abend rot?" and monolingual[0].group == "monolingual aya"


def test_a_style_ends_every_request_as_in_training_and_is_not_looked_for_in_training_data() -> None:
    style = "Write like a web page."
    task = Task.model_validate({"task": "vicuna", "from": str(FILES["vicuna"]), "style": style})
    rows, notes = read_items(Benchmarking((task,), ("sw",), 7, {}))
    assert rows and all(row["prompt"] == request(row["text"], "Swahili", style) for row in rows)
    assert f"every request ends with: {style}" in notes["vicuna"]


def test_a_published_xl_alpacaeval_is_asked_as_it_is_written_and_other_languages_with_its_english_instructions(tmp_path: Path) -> None:
    for name, instruction in (("english", "What is a lock? Name one."), ("german", "What is a lock? Name one. In German!")):
        (tmp_path / f"{name}.json").write_text(json.dumps([{"instruction": instruction}]), "utf-8")
    task = Task.model_validate({"task": "xl_alpacaeval", "from": str(tmp_path)})
    loaded = task.benchmark.load(task.source(7), ["de", "sw"])
    german, swahili = loaded.items
    assert german.prompt == "What is a lock? Name one. In German!" and "Swahili" in swahili.prompt
    assert german.key == swahili.key and loaded.notes == ("sw: no part of the set, but its English instructions with a request of ours",)


def test_a_translation_that_is_missing_leaves_the_names_of_the_others_as_they_are(tmp_path: Path) -> None:
    texts = {"english": ["What is a lock?", "What is a weir?"], "german": ["", "Was ist ein Wehr?"]}
    for name, instructions in texts.items():
        (tmp_path / f"{name}.json").write_text(json.dumps([{"instruction": text} for text in instructions]), "utf-8")
    task = Task.model_validate({"task": "m_alpacaeval", "from": str(tmp_path)})
    loaded = task.benchmark.load(task.source(7), ["en", "de"])
    assert [(item.lang, item.key, item.prompt) for item in loaded.items][1:] == [
        ("en", "2", texts["english"][1]),
        ("de", "2", texts["german"][1]),
    ]
    assert loaded.notes == ("left out in de: empty 1",)


def test_answers_are_drawn_as_the_papers_draw_them_unless_the_user_says_otherwise() -> None:
    confusion, vicuna = items("language_confusion", ["de"])[0], items("vicuna", ["de"])[0]
    assert (confusion.temperature, confusion.top_p, confusion.max_tokens) == (0.3, 0.75, 100)
    assert (vicuna.temperature, vicuna.top_p, vicuna.max_tokens) == (0.7, 0.9, 2048)
    own = items("vicuna", ["de"], temperature=0, top_p=1, max_tokens=64)[0]
    assert (own.temperature, own.top_p, own.max_tokens) == (0, 1, 64)


@pytest.mark.parametrize("chat", [True, False])
def test_a_request_is_a_users_turn_and_a_base_model_sees_it_in_the_wording_of_the_training(chat: bool) -> None:
    item = items("vicuna", ["de"])[0]
    row = to_row("vicuna", item)
    engine = FakeEngine(lambda request: GERMAN, chat=chat)
    seeds = []
    for model in ("base", "tuned"):
        found = asyncio.run(benchmarks._ask(model)(row, Context(engine, 7)))
        assert found is not None and found[f"answer_{model}"] == GERMAN
        seeds.append(engine.requests[-1].seed)
    request = engine.requests[0]
    assert (request.sampling.temperature, request.sampling.top_p) == (0.7, 0.9)
    assert asked(request) == (item.prompt if chat else f"### Instruction:\n{item.prompt}\n\n### Response:\n")
    assert request.sampling.stop == (() if chat else ("\n### ",))
    assert len(set(seeds)) == 1, "a model draws the same answer whatever it is called"


@pytest.mark.parametrize("task", sorted(FILES))
@pytest.mark.parametrize(("lang", "text"), [("de", GERMAN), ("zh", CHINESE)])
def test_an_answer_in_the_language_scores_one_by_every_measure_and_an_english_one_nothing_for_its_language(task, lang, text) -> None:
    right, wrong = score(task, lang, text), score(task, lang, ENGLISH)
    assert right is not None and wrong is not None
    assert set(right.values()) == {1.0}
    assert wrong["in_language"] == 0 and wrong["not_repetitive"] == 1
    assert score(task, lang, " \n") is None


def test_pass_rates_are_of_the_answers_that_have_them() -> None:
    assert score("language_confusion", "de", ENGLISH)["line_pass_rate"] == 0  # type: ignore[index]
    assert "line_pass_rate" not in score("language_confusion", "de", "Ja, gern."), "no line of five tokens"  # type: ignore[operator]
    assert "word_pass_rate" not in score("language_confusion", "de", GERMAN), "English words say nothing in Latin script"  # type: ignore[operator]
    mixed = CHINESE.replace("闸门", " gate ")
    assert score("language_confusion", "zh", mixed)["word_pass_rate"] == 0  # type: ignore[index]

    texts = {"1": GERMAN, "2": ENGLISH, "3": "Ja, gern.", "4": ""}
    scored = []
    for key, text in texts.items():
        found = score("language_confusion", "de", text)
        nothing = {"in_language": 0.0, "not_repetitive": 0.0}
        scored.append(Scored(Item(key, "de", "", (), answer_lang="de"), Answer(text), found or nothing, found is not None))
    total = score_answers(BENCHMARKS["language_confusion"].measures, scored, 5, 7)
    assert (total.num_items, total.num_failed, total.num_invalid) == (4, 1, 1)
    assert total.num_measured == {"in_language": 4, "line_pass_rate": 2, "word_pass_rate": 0, "not_repetitive": 4}
    assert total.measures["in_language"].value == 0.25 and total.measures["line_pass_rate"].value == 0.5
    assert "word_pass_rate" not in total.measures


def test_each_setting_stands_alone_as_the_mean_of_its_sources_and_all_answers_are_pooled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three answers to `aya` one is in German, of one to `native` all; of two across languages none."""
    files = {"monolingual/aya/de": 3, "monolingual/native/de": 1, "crosslingual/okapi/de": 2, "monolingual/aya/zh": 2}
    for name, num_prompts in files.items():
        path = tmp_path / "set" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("prompt,language\n" + "".join(f"{name} {n},{path.stem}\n" for n in range(num_prompts)), "utf-8")
    written = {
        "monolingual/aya/de 0": GERMAN,
        "monolingual/native/de 0": GERMAN,
        "monolingual/aya/zh 0": CHINESE,
        "monolingual/aya/zh 1": CHINESE,
    }
    without_ray(monkeypatch, lambda name: FakeEngine(lambda request: written.get(asked(request), ENGLISH)))
    task = checked(Task, {"task": "language_confusion", "from": str(tmp_path / "set")}, "recipe")
    run = RunFolder(tmp_path / "run")
    benchmarks.run_benchmarks(Benchmarking((task,), ("de", "zh"), 7, {"model": role("model")}), run, None, CONSOLE)  # type: ignore[arg-type]
    (found,) = results(run, 7)

    monolingual, crosslingual = found.settings["monolingual"], found.settings["crosslingual"]
    assert monolingual.languages["de"].measures["line_pass_rate"].value == pytest.approx((1 / 3 + 1) / 2)
    assert monolingual.mean.measures["line_pass_rate"].value == pytest.approx(((1 / 3 + 1) / 2 + 1) / 2), (
        "every language has the same weight"
    )
    assert monolingual.mean.measures["word_pass_rate"].value == 1 and monolingual.mean.num_measured["word_pass_rate"] == 2
    assert set(crosslingual.languages) == {"de"} and crosslingual.mean.measures["line_pass_rate"].value == 0
    assert (monolingual.languages["de"].num_items, crosslingual.mean.num_items) == (4, 2)
    assert found.languages["de"].measures["line_pass_rate"].value == pytest.approx(2 / 6), "pooled"
    console = Console(width=240, file=io.StringIO(), record=True)
    print_results([found], console)
    assert "monolingual, a language as the mean of its sources" in console.export_text()


def test_going_round_in_circles_is_seen() -> None:
    assert score("vicuna", "de", GERMAN + "\nDas ist so." * 40)["not_repetitive"] == 0  # type: ignore[index]


@pytest.mark.parametrize(
    ("task", "languages", "settings", "complaint"),
    [
        ("alpaca_eval", ["de"], {}, "alpaca_eval is in English"),
        ("m_alpacaeval", ["de", "sw"], {}, r"no part of it is in sw \(there are: de, pt\)"),
        ("m_alpacaeval", ["de"], {"split": "german"}, "`split` is not wanted"),
        ("language_confusion", ["th"], {}, "no file monolingual/SOURCE/th.csv"),
        ("vicuna", ["de"], {"num_shots": 3}, "num_shots changes nothing: vicuna takes no examples"),
        ("xquad", ["de"], {"path": FIXTURES, "style": "Be brief."}, "only open-ended requests can end with a style"),
        ("xquad", ["de"], {"path": FIXTURES, "temperature": 0.7}, "temperature changes nothing: xquad counts the likeliest answer"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(task, languages, settings, complaint) -> None:
    with pytest.raises(UserError, match=complaint):
        items(task, languages, **settings)


def test_a_table_with_prompts_and_their_languages_is_a_language_confusion_set_too(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    rows = [{"prompt": "Warum?", "language": "German"}, {"prompt": "Kwa nini?", "language": "sw"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    task = Task.model_validate({"task": "language_confusion", "from": str(path)})
    loaded = task.benchmark.load(task.source(7), ["de", "sw"])
    assert [(item.key, item.lang, item.prompt) for item in loaded.items] == [("1", "de", "Warum?"), ("1", "sw", "Kwa nini?")]
    assert loaded.notes == ("not in the published benchmark, whose rule suits them badly: sw",)
