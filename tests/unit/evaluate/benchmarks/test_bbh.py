"""BBH: an answer counts for what it says, however a translation wrote the labels."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import ROOT
from xl.errors import UserError
from xl.evaluate.benchmarks.bbh import BBH, Kind, read_answer, tasks
from xl.evaluate.benchmarks.task import Answer, Item, Loaded, Source
from xl.evaluate.intervals import estimate_mean

FIXTURE = ROOT / "tests" / "fixtures" / "bbh"
LANGUAGES = ("en", "de", "es", "it", "ar", "zh")


def load(languages: Sequence[str] = LANGUAGES, folder: Path = FIXTURE, num_shots: int = 3) -> Loaded:
    return BBH.load(Source(str(folder), num_shots=num_shots, max_tokens=BBH.max_tokens, seed=7), languages)


def change(tmp_path: Path, file: str, old: str, new: str) -> Path:
    shutil.copytree(FIXTURE, tmp_path / "bbh")
    text = (tmp_path / "bbh" / file).read_text("utf-8")
    assert old in text
    (tmp_path / "bbh" / file).write_text(text.replace(old, new, 1), "utf-8")
    return tmp_path / "bbh"


def test_the_table_covers_every_label_of_six_languages_with_the_english_meaning() -> None:
    loaded = load()
    assert loaded.notes == () and len(loaded.items) == 6 * 7 * 4
    kinds = {tasks()[item.group].kind for item in loaded.items}
    assert kinds == {task.kind for task in tasks().values()}, "the fixture has a task of every kind"
    english = {item.key: item for item in loaded.items if item.lang == "en"}
    for item in loaded.items:
        kind = tasks()[item.group].kind
        if kind != "words":
            assert read_answer(item.gold[0], kind, item.lang) == read_answer(english[item.key].gold[0], kind, "en"), item


def test_a_label_that_the_table_lacks_is_named_and_its_question_left_out(tmp_path: Path) -> None:
    loaded = load(("en", "de"), change(tmp_path, "de/navigate.json", '"Nein"', '"Jein"'))
    assert loaded.notes == ("de: navigate: bbh.yaml lacks the labels 'Jein' (1); these questions are left out",)
    assert [item.lang for item in loaded.items if item.key == "navigate/1"] == ["en"]
    assert "Jein" not in "".join(item.prompt for item in loaded.items), "nor is it an example"


def test_perfect_answers_score_1_and_a_constant_one_is_at_chance() -> None:
    items = load().items
    assert all(BBH.score(item, Answer(item.gold[0])) == {"acc": 1.0, "exact_match": 1.0} for item in items)
    navigate = [item for item in items if item.group == "navigate"]
    for constant in ("Yes", "No"):
        scores = [BBH.score(item, Answer(constant)) for item in navigate]
        estimate = estimate_mean([score["acc"] for score in scores if score], [item.key for item in navigate], seed=1)
        assert len(scores) == 24 and estimate.value == 0.5 and 0 < estimate.low < 0.5 < estimate.high < 1


def test_the_answers_of_one_question_are_wrong_for_another() -> None:
    def others(item: Item) -> list[Item]:
        return [other for other in items if (other.lang, other.group) == (item.lang, item.group) and other.key != item.key]

    items = load().items
    scores = [BBH.score(item, Answer(other.gold[0])) for item in items for other in others(item)]
    wrong = [score for score in scores if score and score["acc"] == 0]
    assert len(wrong) > len(scores) / 2 and not any(score["exact_match"] for score in wrong)


@pytest.mark.parametrize(
    ("kind", "lang", "answer", "wanted"),
    [
        ("option", "en", "(B) 05/06/2021", "B"),
        ("option", "en", "The answer is (B).", "B"),
        ("option", "en", "b", "B"),
        ("option", "en", "C. tomorrow", "C"),
        ("option", "en", "A dog", None),
        ("option", "ar", "(ج)", "C"),
        ("option", "ar", "أ) 01/01/2000", "A"),
        ("option", "de", "(ج)", None),
        ("yes_no", "de", "**Ja**, weil es zwei sind.", "yes"),
        ("yes_no", "de", "Yes", "yes"),
        ("yes_no", "de", "Ja\nQ: Und dann?", "yes"),
        ("yes_no", "de", "Jawohl", None),
        ("yes_no", "es", "No lo sé", None),
        ("yes_no", "zh", "不是。", "no"),
        ("yes_no", "sw", "Ndiyo", None),
        ("true_false", "zh", "对", "true"),
        ("true_false", "de", "Ja", None),
        ("valid_invalid", "ar", "غير صالحة", "invalid"),
        ("valid_invalid", "it", "non valido.", "invalid"),
        ("number", "en", "10 vegetables", "10"),
        ("number", "en", "ten", "10"),
        ("number", "de", "ten", "10"),
        ("number", "en", "= −1,302", "-1302"),
        ("number", "de", "1.302", "1302"),
        ("number", "en", "3.5", None),
        ("number", "ar", "١٢", "12"),
        ("number", "zh", "两", "2"),
        ("number", "zh", "10个", "10"),
        ("option", "en", "(A) is wrong, so the answer is (B)", None),
        ("words", "es", "Higo, manzana,  pera.", "higo manzana pera"),
        ("brackets", "en", ")}]", ")}]"),
        ("brackets", "en", "closed", None),
    ],
)
def test_answers_are_read_in_the_forms_that_models_write(kind: Kind, lang: str, answer: str, wanted: str | None) -> None:
    assert read_answer(answer, kind, lang) == wanted


def test_an_answer_that_says_nothing_of_its_kind_is_invalid_and_one_in_english_counts_but_does_not_match() -> None:
    item = next(item for item in load().items if item.lang == "de" and item.gold == ("Ja",))
    assert BBH.score(item, Answer("Vielleicht")) is None and BBH.score(item, Answer("")) is None
    assert BBH.score(item, Answer("Yes")) == {"acc": 1.0, "exact_match": 0.0}


def test_three_examples_of_the_task_the_same_in_all_languages_and_never_the_question_itself() -> None:
    files = {
        (lang, name): json.loads((FIXTURE / lang / f"{name}.json").read_text("utf-8"))["examples"] for lang in LANGUAGES for name in NAMES
    }
    shown = {lang: [_shown(item, files[lang, item.group]) for item in load().items if item.lang == lang] for lang in LANGUAGES}
    assert all(places == shown["en"] for places in shown.values())
    assert all(len(places) == 3 for places in shown["en"])


NAMES = sorted(path.stem for path in (FIXTURE / "en").glob("*.json"))


def _shown(item: Item, examples: list[dict[str, str]]) -> list[int]:
    """Places in the file of the examples in an item's prompt."""
    instruction, *blocks, question = item.prompt.split("\n\n")
    own = int(item.key.rpartition("/")[2])
    assert instruction == tasks()[item.group].instruction and question == f"Q: {examples[own]['input']}\nA:"
    places = [[f"Q: {example['input']}\nA: {example['target']}" for example in examples].index(block) for block in blocks]
    assert own not in places
    return places


def test_tasks_that_not_all_languages_have_are_left_out_and_named(tmp_path: Path) -> None:
    folder = change(tmp_path, "de/navigate.json", "Ja", "Ja")
    (folder / "de" / "navigate.json").unlink()
    loaded = load(("en", "de"), folder)
    assert loaded.notes == ("6 of 7 tasks, those that all of en, de have; left out: navigate",)
    assert "navigate" not in {item.group for item in loaded.items}


def test_mistakes_in_files_are_named(tmp_path: Path) -> None:
    folder = change(tmp_path, "de/navigate.json", '"target"', '"answer"')
    with pytest.raises(UserError, match=r"de/navigate.json: example 1: no column 'target' \(there are: input, answer\)"):
        load(("de",), folder)
    with pytest.raises(UserError, match=r"bbh/fi: no files TASK.json of the language fi"):
        load(("fi",), folder)
    rows = json.loads((FIXTURE / "de" / "navigate.json").read_text("utf-8"))["examples"][:3]
    (folder / "de" / "navigate.json").write_text(json.dumps({"examples": rows}), "utf-8")
    with pytest.raises(UserError, match=r"navigate must be parallel, but its number of examples differs: en 4, de 3"):
        load(("en", "de"), folder)
    (folder / "de" / "navigate.json").rename(folder / "de" / "sailing.json")
    with pytest.raises(UserError, match=r"sailing.json: no task of BBH"):
        load(("de",), folder)


def test_english_may_lie_in_the_folder_itself() -> None:
    assert load(("en",), FIXTURE / "en") == load(("en",))
