"""Prompts to evaluate on: the same in every language, the same tomorrow, and none that only makes sense in English."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import ROOT, SHARED
from xl.errors import UserError
from xl.evaluate import prompts
from xl.evaluate.prompts import PROMPT_SCHEMA, PromptLoad, PromptSet, clauses, exclusion_key, exclusions, load_prompts, varied_request
from xl.records import Row
from xl.train.prompts import request

ALPACA = SHARED / "alpaca_eval" / "alpaca_eval.json"
DEMO = ROOT / "jobs" / "samples" / "prompts.jsonl"
LONG = "Tell me about rivers. Name the longest one. Say where it ends."
QUESTIONS = ["What is a river?", "What is a lake?", LONG]
REASONS = {"translation", "names_language", "about_english", "correction", "spelling", "verbatim"}


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def questions(tmp_path: Path) -> Path:
    return write(tmp_path / "prompts.jsonl", [{"instruction": text} for text in QUESTIONS])


def load(path: Path, languages: Sequence[str], **settings: Any) -> PromptLoad:
    return load_prompts(PromptSet(from_=str(path), **settings), languages, seed=7)


def test_a_set_without_languages_asks_every_prompt_in_every_language(tmp_path: Path) -> None:
    rows = load(questions(tmp_path), ["de", "sw"]).rows
    assert pa.Table.from_pylist(rows, PROMPT_SCHEMA).num_rows == 6
    assert {row["lang"]: row["language"] for row in rows} == {"de": "German", "sw": "Swahili"}
    assert len({row["id"] for row in rows}) == 6 and all(re.fullmatch("[0-9a-f]{32}", row["id"]) for row in rows)
    assert Counter(row["prompt"] for row in rows) == dict.fromkeys({row["prompt"] for row in rows}, 2), "one name in both languages"
    assert all(row["request"] == request(row["instruction"], row["language"]) and row["reference"] is None for row in rows)


@pytest.mark.parametrize("wording", ["plain", "varied"])
def test_another_language_another_prompt_and_another_order_change_no_row(tmp_path: Path, wording: str) -> None:
    rows = {row["id"]: row for row in load(questions(tmp_path), ["de", "sw"], clauses=wording).rows}
    more = write(tmp_path / "more.jsonl", [{"instruction": text} for text in ["What is a sea?", *reversed(QUESTIONS)]])
    extended = {row["id"]: row for row in load(more, ["th", "sw", "de"], clauses=wording).rows}
    assert len(extended) == 12 and rows.items() <= extended.items()
    worded = {(row["prompt"], row["request"].replace(row["language"], "…")) for row in extended.values()}
    assert len(worded) == 4, "a prompt is worded alike in all languages"


def test_ids_are_the_same_tomorrow_and_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path / "elsewhere.jsonl", [{"id": "q1", "instruction": "What is a river?"}])
    row = load(path, ["deu_Latn"], id="id").rows[0]
    assert (row["id"], row["prompt"]) == ("d6442218d991c27e07beefed2a8acf0f", "q1")


def test_equal_prompts_are_different_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "twice.jsonl", [{"instruction": text} for text in ("What?", " What? \n", "Who?")])
    rows = load(path, ["de"]).rows
    assert len({row["id"] for row in rows}) == len({row["prompt"] for row in rows}) == 3


def test_a_set_with_languages_gives_the_wanted_ones_with_their_references(tmp_path: Path) -> None:
    rows = [
        {"q": "What is a river?", "to": "German", "answer": "Ein Fluss ist ein Gewässer."},
        {"q": "Reply in Thai: what is a lake?", "to": "th", "answer": None},
        {"q": "What is a river?", "to": "fi", "answer": "Joki on vesistö."},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "prompts.parquet")
    found = load(tmp_path / "prompts.parquet", ["th", "de"], instruction="q", lang="to", reference="answer", clauses="none").rows
    assert [(row["lang"], row["request"], row["reference"]) for row in found] == [
        ("de", "What is a river?", "Ein Fluss ist ein Gewässer."),
        ("th", "Reply in Thai: what is a lake?", None),
    ]


def test_rows_in_other_languages_and_empty_ones_change_no_other_row(tmp_path: Path) -> None:
    good = [{"q": "What is a river?", "to": "de", "key": 1}, {"q": "What is a lake?", "to": "de", "key": 2}]
    others = [{"q": ["?"], "to": "Hausa", "key": None}, {"q": "Who?", "to": None, "key": 1}, {"q": "", "to": "fi", "key": 2}]
    empty = [{"q": " ", "to": "de", "key": None}, {"q": None, "to": "de", "key": 2}]
    settings = {"instruction": "q", "lang": "to", "id": "key"}
    clean = load(write(tmp_path / "clean.jsonl", good), ["de", "sw"], **settings)
    found = load(write(tmp_path / "found.jsonl", [*others, *empty, *good, *others]), ["de", "sw"], **settings)
    assert found.rows == clean.rows and (found.left_out, clean.left_out) == ("empty 2", "")
    assert (clean.places, found.places) == ([1, 2], [3, 4])


def test_a_limit_counts_prompts_of_each_language(tmp_path: Path) -> None:
    rows = load(questions(tmp_path), ["de", "sw"], limit=2).rows
    assert [(row["instruction"], row["lang"]) for row in rows] == [(text, lang) for text in QUESTIONS[:2] for lang in ("de", "sw")]


def test_varied_requests_name_the_language_once_and_keep_the_instruction_whole() -> None:
    made = {text: [varied_request(text, "Swahili", str(n), seed=7) for n in range(400)] for text in QUESTIONS}
    for text, requests in made.items():
        assert all(one.count("Swahili") == 1 for one in requests)
        assert all(sentence in one for one in requests for sentence in re.split(r"(?<=[.?])\s", text))
    wordings = clauses()
    assert len(set(made[LONG])) == sum(map(len, wordings.values())), "every wording is drawn"
    assert len(set(made["What is a lake?"])) == len(wordings["start"]) + len(wordings["end"]), "one sentence has no middle"
    places = Counter("start" if one.endswith(LONG) else "end" if one.startswith(LONG) else "middle" for one in made[LONG])
    assert min(places.values()) > 400 / 3 - 50


def test_a_request_for_the_language_never_stands_inside_the_material() -> None:
    """The material of a task begins behind a colon, a quotation mark or a line break."""
    material = "The river rises. It floods the town. Nobody is hurt."
    instructions = [f"Summarise: {material}", f'Simplify "{material}"', f"Give it a title.\n\n{material}", f"I have a text\n{material}"]
    for text in instructions:
        assert all(material in varied_request(text, "Irish", str(n), seed=7) for n in range(100))
    apart = [varied_request(instructions[2], "Irish", str(n), seed=7) for n in range(100)]
    assert all(one.endswith(f"\n\n{material}") or f"\n\n{material}\n\n" in one for one in apart)


def test_wordings_are_sentences_that_name_the_language_once() -> None:
    wordings = clauses()
    assert len(wordings["start"]) >= 5 and len(wordings["middle"]) >= 4 and len(wordings["end"]) >= 12
    for texts in wordings.values():
        assert len(set(texts)) == len(texts)
        assert all(text.count("{language}") == 1 and text[-1] in ".?)" for text in texts)


def test_exclusions_take_out_just_those_and_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "exclusions", lambda: {exclusion_key("What is a lake?"): "spelling", "0" * 16: "translation"})
    path = questions(tmp_path)
    found = load(path, ["de", "sw"], kind="xl_alpacaeval")
    assert {row["instruction"] for row in found.rows} == {QUESTIONS[0], LONG}
    assert found.excluded == {"de": {"spelling": 1}, "sw": {"spelling": 1}}
    assert len(load(path, ["de"]).rows) == 3, "a plain set keeps them"


def test_every_exclusion_has_one_of_the_reasons_that_its_file_explains() -> None:
    text = (ROOT / "xl" / "evaluate" / "xl_alpacaeval" / "exclusions.tsv").read_text("utf-8")
    assert set(exclusions().values()) == REASONS and all(re.search(rf"^# {reason} ", text, re.M) for reason in REASONS)
    assert all(re.fullmatch("[0-9a-f]{16}", key) for key in exclusions())
    assert len(exclusions()) == sum(not line.startswith("#") for line in text.splitlines())


@pytest.mark.skipif(not ALPACA.exists(), reason=f"no {ALPACA}")
def test_xl_alpacaeval_comes_out_of_alpacaevals_own_file() -> None:
    found = load(ALPACA, ["mt"], kind="xl_alpacaeval", clauses="varied")
    left_out = found.excluded["mt"]
    assert left_out == Counter(exclusions().values()), "every exclusion is found"
    assert len(found.rows) == len({row["id"] for row in found.rows}) == 805 - left_out.total() == 769
    assert all(row["request"].count("Maltese") == 1 + row["instruction"].count("Maltese") for row in found.rows)
    kept = " ".join(row["instruction"] for row in found.rows).lower()
    for sign in ("translate to french", "answer in english", "write in english", "synonyms for the given word", "spelling errors"):
        assert sign not in kept
    assert "python function" in kept, "code is kept"


def test_a_set_on_the_hub_is_read_by_its_split(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    splits = {name: datasets.Dataset.from_list([{"instruction": f"In {name}?"}]) for name in ("english", "german")}

    def give(name: str, revision: str | None) -> Any:
        if name != "someone/questions":
            raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub")
        return datasets.DatasetDict(splits)

    monkeypatch.setattr(datasets, "load_dataset", give)
    rows: list[Row] = load_prompts(PromptSet(from_="someone/questions", split="english"), ["de"], seed=0).rows
    assert [row["request"] for row in rows] == ["In english? Answer in German."]
    for settings, complaint in (
        (PromptSet(from_="someone/questions"), "`split` must be one of english, german"),
        (PromptSet(from_="someone/questions", split="english", id="key"), "no column 'key'"),
        (PromptSet(from_="someone/else"), "someone/else: neither a file nor a dataset"),
    ):
        with pytest.raises(UserError, match=complaint):
            load_prompts(settings, ["de"], seed=0)


@pytest.mark.parametrize(
    ("name", "content", "settings", "complaint"),
    [
        ("p.jsonl", None, {}, "no file"),
        ("p.txt", "x", {}, r"must end in one of \.csv, \.json"),
        ("p.json", '{"instruction": "What?"}', {}, "must hold a list of objects"),
        ("p.json", '{"instruction": "What?"}\n{"instruction": "Who?"}', {}, "name the file .jsonl"),
        ("p.json", '[{"instruction": "What?"}, 3]', {}, "row 2 is not a JSON object"),
        ("p.csv", "prompt\nWhat?\n", {}, r"no column 'instruction' \(there are: prompt\)"),
        ("p.csv", "instruction,id\n,1\n,2\n", {}, "row 1: `instruction` is empty"),
        ("p.csv", "instruction,id\nWhat?,\n", {"id": "id"}, "row 1: `id` is empty"),
        ("p.csv", "instruction,id\nWhat?,1\nWho?,2\nWhere?,1\n", {"id": "id"}, "row 3: the id '1' has come before"),
        ("p.csv", "instruction,to\nWhat?,\nWho?,Klingon\n", {"lang": "to"}, "row 1: unknown language ''"),
        ("p.csv", "instruction,to\nWhat?,fi\n,de\n", {"lang": "to"}, r"no prompt is left for de \(left out: empty 1\)"),
        ("p.csv", "instruction,to\nWhat?,fi\n", {"lang": "to"}, "no prompt is left for de"),
        ("p.csv", "instruction\n", {}, "no prompt is left for de"),
        ("p.csv", "instruction\nWhat?\n", {"split": "train"}, "belong to datasets on the hub"),
        ("p.jsonl", '{"instruction": ["What?"]}', {}, "row 1: `instruction` is list, not text"),
        ("p.jsonl", '{"instruction": "What \\ud83d?"}', {}, "row 1: `instruction` is not valid Unicode"),
    ],
)
def test_a_set_that_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, name: str, content: str | None, settings: dict[str, Any], complaint: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=complaint) as raised:
        load(tmp_path / name, ["de"], **settings)
    assert name in str(raised.value) and "\n" not in str(raised.value)


def test_settings_that_cannot_mean_anything_are_refused() -> None:
    with pytest.raises(ValueError, match="`reference` needs `lang`"):
        PromptSet(from_="p.csv", reference="answer")
    with pytest.raises(ValueError, match="clauses: none needs `lang`"):
        PromptSet(from_="p.csv", clauses="none")
    with pytest.raises(UserError, match="unknown language 'xx'"):
        load_prompts(PromptSet(from_=str(DEMO)), ["de", "xx"], seed=0)


def test_the_demos_prompts_are_held_out_by_subject() -> None:
    """No sample page is about the subject of a prompt; a prompt's id is its subject."""
    pages = [
        json.loads(line) for path in (ROOT / "jobs" / "samples" / "pages").glob("*.jsonl") for line in path.read_text("utf-8").splitlines()
    ]
    taught = {word.removesuffix("s") for page in pages for word in page["url"].rsplit("/", 1)[-1].split("-")}
    rows = load(DEMO, ["de"], id="id").rows
    assert len(rows) == 20 and len(taught) > 200
    assert all(row["prompt"] in row["instruction"].lower() for row in rows)
    assert not taught & {row["prompt"].removesuffix("s") for row in rows}
