"""Options chosen in writing: any endpoint can be asked, answers are read leniently, and what cannot be read is wrong and counted."""

import json
from pathlib import Path

import pytest

from tests.fake_engine import FakeEngine, asked
from tests.support import ROOT
from tests.unit.evaluate.in_process import CONSOLE, role, without_ray
from xl.ask import Request, Score
from xl.errors import UserError
from xl.evaluate.benchmarks.export import samples
from xl.evaluate.benchmarks.options import labelled, read_option
from xl.evaluate.benchmarks.results import Result, results, scored_answers
from xl.evaluate.benchmarks.run import Benchmarking, asked_tasks, read_items, run_benchmarks, to_item
from xl.evaluate.benchmarks.settings import Task
from xl.evaluate.benchmarks.task import Item
from xl.folder import RunFolder
from xl.recipe import checked

FIXTURES = ROOT / "tests" / "fixtures"
SHOWN = labelled(["Mercury", "Venus", "Vitamin C", "-5"])


class ChatOnly(FakeEngine):
    """An endpoint without a prompt's log-probabilities."""

    async def score(self, prompt: str, continuation: str, max_tokens: int) -> Score:
        raise AssertionError("nothing is scored")


def wanted(task: str, languages: tuple[str, ...], **settings: object) -> Benchmarking:
    asked_for = checked(Task, {"task": task, "from": str(FIXTURES / task), **settings}, "recipe")
    return Benchmarking((asked_for,), languages, 7, {"model": role("model")})


def items(task: str, languages: tuple[str, ...], **settings: object) -> list[Item]:
    return [to_item(row) for row in read_items(wanted(task, languages, output_type="generate_until", **settings))[0]]


def answered(folder: Path, task: str, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, **settings: object) -> tuple[RunFolder, Result]:
    without_ray(monkeypatch, lambda name: engine)
    run = RunFolder(folder)
    run_benchmarks(wanted(task, ("en", "es") if task == "xstorycloze" else ("en", "de"), **settings), run, None, CONSOLE)  # type: ignore[arg-type]
    return run, results(run, 7)[0]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        *[("B", 1), ("b", 1), ("(B)", 1), ("b)", 1), ("B.", 1), ("**B**", 1), ("（Ｂ）", 1), ("B。", 1)],
        *[("B. Venus", 1), ("B: it is closer than A", 1), ("B - Venus", 1), ("**B. Venus**", 1), ("B\n\nA is too far away.", 1)],
        *[("The answer is B", 1), ("The answer is:\n\n**B**", 1), ("Answer: (B), because it is hot.", 1), ("$\\boxed{B}$", 1)],
        *[
            ("Die richtige Antwort ist B.", 1),
            ("A resposta correta é B.", 1),
            ("答案是B。", 1),
            ("Cevap B'dir.", 1),
            ("Jibu ni A.", 0),
            ("A is right", 0),
        ],
        *[("Venus", 1), ("“venus.”", 1), ("Vitamin C", 2), ("-5", 3)],
        *[
            ("", None),
            ("E", None),
            ("A or B", None),
            ("A oder B", None),
            ("5", None),
            ("A planet near the sun.", None),
            ("I do not know.", None),
        ],
    ],
)
def test_an_answer_is_read_by_its_letter_or_the_options_own_words(text: str, place: int | None) -> None:
    assert read_option(text, SHOWN) == place


def test_letters_beyond_the_options_and_words_of_two_options_name_none() -> None:
    assert read_option("C", SHOWN[:2]) is None
    assert read_option("Venus", labelled(["Venus", "venus"])) is None and read_option("B", labelled(["Venus", "venus"])) == 1


def test_options_stand_behind_letters_and_examples_show_letters_alone() -> None:
    mmlu = next(item for item in items("mmlu", ("de",)) if item.group == "high_school_geography")
    header, *blocks = mmlu.prompt.split("\n\n")
    assert header.endswith("about high school geography. Answer with the letter of the right option alone.")
    assert [block.split("\n")[-1] for block in blocks] == ["Answer: B", "Answer: C", "Answer: A", "Answer: D", "Answer: B", "Answer:"]
    assert mmlu.gold == ("A. der Pazifik",) and mmlu.choices[1] == "B. der Atlantik"

    italian = next(item for item in items("xcopa", ("it",), num_shots=1) if item.key == "test/1")
    _, shown, question = italian.prompt.split("\n\n")
    assert question.startswith("La strada era bagnata perché\nA. ") and question.endswith("\nB. durante la notte era piovuto.\nAnswer:")
    assert shown.endswith(("\nAnswer: A", "\nAnswer: B"))

    chinese = next(item for item in items("xstorycloze", ("zh",)) if item.gold[0].endswith("蛋糕的香味。"))
    assert chinese.prompt.split("\n\n")[1].split("\n")[0] == "安娜想烤一个蛋糕。她去了商店。她买了面粉、鸡蛋和糖。回家后她打开了烤箱。"
    assert chinese.choices[1] == "B. 她卖掉了自行车。"


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("task", ["mmlu", "xstorycloze"])
def test_a_model_without_likelihoods_gets_a_score_and_unread_answers_are_invalid_and_wrong(
    task: str, chat: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gold = {item.prompt: item.gold[0] for item in items(task, ("en", "es") if task == "xstorycloze" else ("en", "de"))}
    silent = sorted(gold)[0]

    def write(request: Request) -> str:
        prompt = asked(request)
        return "Hm." if prompt == silent else f" {gold[prompt][0]}"

    engine = ChatOnly(write, chat=chat)
    run, result = answered(tmp_path, task, engine, monkeypatch, output_type="generate_until")
    num_each = len(gold) // 2
    assert result.mean.num_items == len(gold) and result.mean.num_invalid == 1
    assert result.mean.measures["acc"].value == pytest.approx(1 - 1 / num_each / 2)
    assert "acc_norm" not in result.mean.measures, "nothing is likelier per character where nothing was scored"
    assert result.consistency is not None and result.consistency.agreements[0].consistency == pytest.approx(1 - 1 / num_each)
    assert "options chosen in writing: an answer that names no option, or several, is invalid and wrong" in result.notes
    assert {request.sampling.choices for request in engine.requests} == {()} and {len(r.messages) for r in engine.requests} == {int(chat)}

    sample = next(samples(scored_answers(run, asked_tasks(run)[0], "model"), "en", task))
    assert sample["arguments"]["gen_args_0"]["arg_1"]["max_gen_toks"] == 64 and sample["doc"]["choices"][0].startswith("A. ")


def test_a_folder_that_was_begun_by_likelihood_goes_on_by_likelihood_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, before = answered(tmp_path, "mmlu", FakeEngine(score=lambda prompt, choice: -float(len(prompt + choice) % 7)), monkeypatch)
    assert set(before.mean.measures) == {"acc", "acc_norm"} and before.mean.num_invalid == 0
    info = json.loads((run.root / "run.json").read_text("utf-8"))
    del info["tasks"][0]["output_type"]  # as before there was this setting
    run.write_info(info)
    _, after = answered(tmp_path, "mmlu", FakeEngine(score=lambda prompt, choice: -float(len(prompt + choice) % 7)), monkeypatch)
    assert after == before
    with pytest.raises(UserError, match=r"mmlu.output_type: None → generate_until"):
        answered(tmp_path, "mmlu", ChatOnly(), monkeypatch, output_type="generate_until")


@pytest.mark.parametrize(
    ("task", "settings", "complaint"),
    [
        ("bbh", {"output_type": "generate_until"}, "output_type changes nothing: bbh compares no likelihoods"),
        ("xcopa", {"max_tokens": 8}, r"max_tokens changes nothing: xcopa compares likelihoods \(without `output_type: generate_until`\)"),
        ("xcopa", {"output_type": "multiple_choice", "max_tokens": 8}, "max_tokens changes nothing"),
    ],
)
def test_a_setting_that_nothing_reads_is_refused(task: str, settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        wanted(task, ("it",), **settings)
    assert items("xcopa", ("it",), max_tokens=8)[0].max_tokens == 8
