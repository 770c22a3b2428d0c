"""What a benchmark holds does not get into the training data, and clean text does."""

import asyncio
import json
import pickle
import unicodedata
from typing import Any

import pyarrow as pa
import pytest

from tests.support import SHARED
from tests.unit.pages.test_filters import needs_real_pages, real_pages
from xl.ask import Drop
from xl.errors import UserError
from xl.methods import check_recipe
from xl.methods.contamination import evaluated_texts
from xl.pages.contamination import BenchmarkIndex, document_key, drop_contaminated, index_benchmarks
from xl.records import Row, Status
from xl.stage import Pending, Route, walk

ENCYCLOPEDIA = ("de", "en", "es", "hi", "th", "tr", "zh")
NEWS = ("fi", "ga", "hu", "lt", "mt", "pt", "sw")

ENGLISH = "The old harbour was rebuilt twice after the storm of 1703 had carried away both of its piers and the light."
HINDI = "नदी के किनारे बसे इस पुराने नगर में हर वर्ष फसल कटने के बाद एक बड़ा मेला लगता है।"
THAI = "ตลาดน้ำแห่งนี้เปิดตั้งแต่เช้ามืดจนถึงเที่ยงวัน ชาวสวนพายเรือนำผลไม้มาขายกันทุกวัน"
CHINESE = "这座老桥建于明代，桥身由当地的青石砌成，每逢雨季，河水会漫过桥面，行人只得绕道上游的木桥。"


def took(rows: list[Row], index: BenchmarkIndex, *columns: str) -> list[tuple[str | None, str | None]]:
    """Why each row was dropped by the stages, None for one that was kept, and by which benchmark."""
    overlap, stage = pickle.loads(pickle.dumps(drop_contaminated(index, columns)))
    walks = [asyncio.run(walk(Route((overlap,), 0), Pending(row, 0, []), None)) for row in rows]
    assert all(walked.status == Status.KEPT for walked in walks)
    tables = [pa.Table.from_pylist([walked.row], schema=overlap.adds).select(list(stage.needs)) for walked in walks]
    state = pickle.loads(pickle.dumps(stage.survey(iter(tables))))
    verdicts = [stage.decide(state, walked.row) for walked in walks]
    return [
        (verdict.reason if isinstance(verdict, Drop) else None, walked.row["contaminated_by"])
        for verdict, walked in zip(verdicts, walks, strict=True)
    ]


@needs_real_pages
def test_xquads_own_paragraphs_are_dropped_and_news_in_other_languages_are_not():
    texts: list[str] = []
    for path in sorted((SHARED / "xquad").glob("*.json")):
        for article in json.loads(path.read_text("utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                texts += [paragraph["context"], *(question["question"] for question in paragraph["qas"])]
    index = index_benchmarks({"xquad": texts})
    found = {lang: [index.find(text) for text in pages] for lang, pages in real_pages().items()}
    assert {lang: found[lang].count("xquad") for lang in NEWS} == dict.fromkeys(NEWS, 0)
    for lang in ENCYCLOPEDIA:
        assert found[lang].count("xquad") >= 0.99 * len(found[lang]), lang


@pytest.mark.parametrize("text", [ENGLISH, HINDI])
def test_thirteen_words_in_a_row_are_contamination_and_twelve_are_a_phrase(text: str):
    index = index_benchmarks({"bench": [text]})
    taken = text.upper().replace(" ", " — ").split(" — ")
    assert index.find("abc def … " + "; ".join(taken[2:15]) + " xyz") == "bench"
    assert index.find("abc def … " + "; ".join(taken[2:14]) + " xyz") is None


@pytest.mark.parametrize(("text", "own"), [(THAI, "ฉันชอบ"), (CHINESE, "我觉得")])
def test_thirty_characters_in_a_row_are_contamination_where_there_are_no_spaces(text: str, own: str):
    index = index_benchmarks({"bench": [text]})
    characters = [c for c in unicodedata.normalize("NFKC", text) if c not in " ,。"]
    assert index.find(own + " ".join(characters[5:35]) + own) == "bench"
    assert index.find(own + "".join(characters[5:34]) + own) is None


def test_a_foreign_quotation_is_found_in_a_page_of_another_script():
    index = index_benchmarks({"bench": [ENGLISH, CHINESE]})
    assert index.find(f"Wie die Chronik sagt: „{CHINESE}“ So stand es dort.") == "bench"
    assert index.find(f"县志里写道：{ENGLISH}据说如此。") == "bench"


def test_thirty_latin_letters_inside_a_chinese_benchmark_are_no_contamination():
    index = index_benchmarks({"bench": [f"{CHINESE}《The Old Man and the Sea by Ernest Hemingway》{CHINESE}"]})
    assert index.find("I read The Old Man and the Sea by Ernest Hemingway again last summer and still liked it a lot.") is None


def test_a_short_prompt_counts_only_as_a_whole():
    index = index_benchmarks({"bench": ["Who built the old harbour?"]})
    assert index.find("who built  the old harbour") == "bench"
    assert index.find("Who built the old harbour? And who paid for it?") is None


def test_a_dropped_row_names_the_benchmark_that_holds_most_of_it():
    index = index_benchmarks({"first": [HINDI, "Why?"], "second": [ENGLISH]})
    rows = [{"text": ENGLISH, "instruction": "Tell me about the harbour."}, {"text": "A harbour.", "instruction": "why"}]
    assert took(rows, index, "text", "instruction") == [("contaminated", "second"), ("contaminated", "first")]
    assert took(rows, index, "text") == [("contaminated", "second"), (None, None)]


@pytest.mark.parametrize(
    ("contaminated", "translated", "other"),
    [
        (
            {"url": "https://news.example.org/en/harbour.1703#2"},
            {"url": "https://news.example.org/fi/harbour.1703"},
            {"url": "http://[/fi"},
        ),
        ({"document": "harbour"}, {"document": "harbour"}, {"document": "mill"}),
        ({"document": "harbour", "url": "https://example.org/a"}, {"document": "harbour", "url": None}, {"url": "https://example.org/a"}),
        ({"document": None, "url": None}, None, {"document": None, "url": None}),
        ({}, None, {}),
    ],
)
def test_a_contaminated_row_takes_its_document_with_it_and_no_other(contaminated: Row, translated: Row | None, other: Row):
    rows: list[dict[str, Any]] = [{**contaminated, "text": ENGLISH}, {**other, "text": "Toinen teksti."}, {**other, "text": None}]
    expected: list[tuple[str | None, str | None]] = [("contaminated", "bench"), (None, None), (None, None)]
    if translated is not None:
        rows, expected = [{**translated, "text": "Vanha satama."}, *rows], [("contaminated_document", None), *expected]
    index = index_benchmarks({"bench": [ENGLISH]})
    assert took(rows, index, "text", "response") == expected
    assert took(rows[::-1], index, "text") == expected[::-1]


def test_an_index_is_the_same_for_the_same_benchmarks_and_another_for_others():
    settings = [
        drop_contaminated(index_benchmarks(benchmarks, num_words=n))[0].settings
        for benchmarks, n in (
            ({"a": [ENGLISH, HINDI], "b": [THAI]}, 13),
            ({"b": [THAI], "a": [HINDI, ENGLISH]}, 13),
            ({"b": [THAI], "c": [HINDI, ENGLISH]}, 13),
            ({"a": [ENGLISH, HINDI], "b": [CHINESE]}, 13),
            ({"a": [ENGLISH, HINDI], "b": [THAI]}, 12),
        )
    ]
    assert settings[0] == settings[1]
    assert all(settings[0] != other for other in settings[2:])


def test_a_benchmark_without_text_is_an_error():
    with pytest.raises(UserError, match="'empty' has no text"):
        index_benchmarks({"full": [ENGLISH], "empty": [" – "]})


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://news.example.org/fi/bbc.381790", "news.example.org/bbc.381790"),
        ("https://www.de.example.org/wiki/Super_Bowl_50#3", "example.org/wiki/Super_Bowl_50"),
        ("http://pt-br.example.org/wiki/Jos%C3%A9", "example.org/wiki/José"),
        ("https://example.org/fi/article.php?id=5", "example.org/article.php?id=5"),
        ("https://example.de/", "example.de/"),
        ("https://localhost/en/a", "localhost/a"),
        ("http://[/fi", "http://[/fi"),
    ],
)
def test_a_document_is_named_by_its_url_without_the_language(url: str, key: str):
    assert document_key(url) == key


@pytest.mark.skipif(not (SHARED / "xquad").exists(), reason="the shared data is not here")
def test_a_benchmark_is_looked_for_in_english_too_and_its_questions_by_themselves():
    """English pages are translated, and what they say would be in the German dataset."""
    data = {
        **{"method": "xl_instruct", "languages": ["de"], "pages": {"from": str(SHARED), "lang": "lang"}},
        **{"models": {name: {"model": "m", "engine": "scripted"} for name in ("writer", "base")}},
        "benchmarks": [{"task": "xquad", "from": str(SHARED / "xquad"), "limit": 5}],
    }
    index = index_benchmarks(evaluated_texts(check_recipe(data, "r")))
    article = json.loads((SHARED / "xquad" / "xquad.en.json").read_text("utf-8"))["data"][0]
    for paragraph in article["paragraphs"]:
        assert index.find(paragraph["context"]) == "xquad"
        assert all(index.find(asked["question"]) == "xquad" for asked in paragraph["qas"])
