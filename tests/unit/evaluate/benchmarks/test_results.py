"""Scores come with what belongs beside them: how many, how sure, how many could not be read, and in which language."""

import pytest

from tests.support import ROOT
from tests.unit.evaluate.benchmarks.squad_files import write_xquad
from xl.errors import UserError
from xl.evaluate.benchmarks.results import Scored, score_answers
from xl.evaluate.benchmarks.run import Benchmarking, _refuse_other_tasks, read_items, to_item, to_row
from xl.evaluate.benchmarks.settings import Task
from xl.evaluate.benchmarks.task import Answer, Item, score_choice
from xl.evaluate.intervals import estimate_mean
from xl.folder import RunFolder
from xl.records import digest_of, row_digest


def scored(key: str, lang: str, value: float, text: str = "ja", is_valid: bool = True) -> Scored:
    return Scored(Item(key, lang, "", ("ja",), answer_lang=lang), Answer(text), {"f1": value}, is_valid)


def test_every_language_has_the_same_weight_in_the_mean_and_a_question_is_drawn_with_all_its_languages() -> None:
    answers = [scored(str(n), "de", n % 2) for n in range(40)] + [scored(str(n), "es", 1.0) for n in range(10)]
    mean = score_answers(["f1"], answers, num_asked=52, seed=7).measures["f1"]
    assert mean.value == pytest.approx((0.5 + 1.0) / 2)
    assert mean.low < 0.75 < mean.high

    repeated = [scored(str(n), lang, n % 2) for lang in ("de", "es", "hi") for n in range(40)]
    alone = estimate_mean([float(n % 2) for n in range(40)], list(range(40)), 7)
    assert score_answers(["f1"], repeated, 120, 7).measures["f1"].low == pytest.approx(alone.low), "three copies tell no more than one"


def test_unanswered_and_invalid_questions_are_counted_and_short_answers_have_no_language() -> None:
    german = "Die Mannschaft gewann das Endspiel im Februar vor vielen Zuschauern."
    answers = [scored("1", "de", 1.0, german), scored("2", "de", 0.0, "Denver"), scored("3", "de", 0.0, "", is_valid=False)]
    answers.append(scored("4", "de", 0.0, "The team won the final in February in front of many people."))
    found = score_answers(["f1"], answers, num_asked=6, seed=7)
    assert (found.num_items, found.num_failed, found.num_invalid) == (4, 2, 1)
    assert found.language is not None
    assert (found.language.num_right, found.language.num_wrong, found.language.num_skipped) == (1, 1, 2)
    assert found.language.accuracy == 0.5


def test_the_likelier_choice_counts_and_length_can_be_left_out() -> None:
    item = Item("1", "en", "", (" a",), choices=(" a", " a much longer choice"))
    assert score_choice(item, Answer(" a", (-3.0, -9.0))) == {"acc": 1.0, "acc_norm": 0.0}
    assert score_choice(item, Answer(" a", (-3.0, -3.0)))["acc"] == 1.0, "the first of equals"


def test_a_limit_takes_the_same_questions_in_all_languages_and_a_higher_one_adds_to_them(tmp_path) -> None:
    for lang in ("de", "es"):
        write_xquad(tmp_path, lang, 10)

    def keys(limit: int, lang: str) -> list[str]:
        wanted = Benchmarking((Task(task="xquad", from_=str(tmp_path), limit=limit),), ("de", "es"), 7, {})
        return [row["key"] for row in read_items(wanted)[0] if row["lang"] == lang]

    assert len(keys(5, "de")) == 5
    assert keys(5, "de") == keys(5, "es") == keys(8, "de")[:5]


@pytest.mark.parametrize(
    ("task", "languages"), [("mmlu", ("en", "sw")), ("bbh", ("de", "ar")), ("xcopa", ("it", "tr")), ("xstorycloze", ("es",))]
)
def test_benchmarks_of_options_are_found_by_name_and_each_question_has_its_row(task, languages) -> None:
    rows, notes = read_items(Benchmarking((Task(task=task, from_=str(ROOT / "tests" / "fixtures" / task)),), languages, 7, {}))
    assert len({row["id"] for row in rows}) == len(rows) > 0 and {row["lang"] for row in rows} == set(languages)
    assert notes.keys() == {task} and bool(notes[task]) == (task == "mmlu"), "what is left out is said"


@pytest.mark.parametrize(
    ("task", "path", "languages", "digest"),
    [
        ("vicuna", "vicuna/question.jsonl", ("de", "sw"), "ed4028bfc97c1593507832949c97e690"),
        ("xcopa", "xcopa", ("it", "tr"), "e7234583eaeb32be9a016a31c3dfff11"),
    ],
)
def test_a_question_is_the_row_that_it_always_was_whatever_else_is_asked(task, path, languages, digest) -> None:
    """By these digests a folder knows which questions are answered: another one would have all of them asked again."""
    plain = Task.model_validate({"task": task, "from": str(ROOT / "tests" / "fixtures" / path)})
    again = plain.model_copy(update={"name": "again"})
    rows, notes = read_items(Benchmarking((plain, again), languages, 7, {}))
    assert digest_of([row_digest(row) for row in rows if row["task"] == task]) == digest
    assert len({row["id"] for row in rows}) == len(rows) and notes.keys() == {task, "again"}


def test_a_folder_that_knows_nothing_of_names_and_styles_was_asked_without_them(tmp_path) -> None:
    run, task = RunFolder(tmp_path), Task.model_validate({"task": "vicuna", "from": "q.jsonl"})
    run.write_info({"tasks": [task.model_dump(mode="json", by_alias=True, exclude={"name", "style"})]})
    _refuse_other_tasks(Benchmarking((task, task.model_copy(update={"name": "b", "style": "Be brief."})), ("de",), 7, {}), run, redo=False)
    with pytest.raises(UserError, match=r"vicuna\.style: None → Be brief"):
        _refuse_other_tasks(Benchmarking((task.model_copy(update={"style": "Be brief."}),), ("de",), 7, {}), run, redo=False)


def test_an_item_survives_its_row() -> None:
    item = Item("1", "de", "Frage", ("a", "b"), "Gruppe", (" a", " b"), "de", 5, ("\n", "."))
    assert to_item(to_row("xquad", item)) == item
