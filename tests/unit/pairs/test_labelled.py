"""Pairs that people labelled, as raters are asked about them."""

import json
from pathlib import Path
from typing import Any

import pytest

from xl.errors import UserError
from xl.pairs.labelled import read_labelled
from xl.pairs.levels import Level


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return str(path)


def pair(number: int, label: Any, lang: str = "de", text: str = "") -> dict[str, Any]:
    return {"lang": lang, "instruction": f"What is {number}?", "text": text or f"Text {number}.", "label": label}


def test_a_pair_is_held_against_instructions_of_other_texts_of_its_language(tmp_path: Path) -> None:
    rows = [pair(1, 1), pair(2, 0), pair(3, 0, text="Text 1."), pair(4, 1, lang="sw"), pair(5, 1)]
    found = {row["instruction"]: row for row in read_labelled([written(tmp_path / "a.jsonl", [*rows, rows[0]])], 4, 7)}
    assert [found[f"What is {number}?"]["level"] for number in range(1, 6)] == [Level.GOOD, Level.BAD, Level.BAD, Level.GOOD, Level.GOOD]
    assert {name: set(row["contrasts"]) for name, row in found.items()} == {
        "What is 1?": {"What is 2?", "What is 5?"},
        "What is 2?": {"What is 1?", "What is 3?", "What is 5?"},
        "What is 3?": {"What is 2?", "What is 5?"},
        "What is 4?": set(),
        "What is 5?": {"What is 1?", "What is 2?", "What is 3?"},
    }
    assert found["What is 1?"]["seed"] == found["What is 3?"]["seed"] != found["What is 2?"]["seed"]


def test_no_pair_is_held_against_an_instruction_that_its_text_has_elsewhere(tmp_path: Path) -> None:
    """Bad pairs made by swapping would be found out by the true instruction of their text."""
    swapped = [pair(n, label, text=text) for n, label, text in ((1, 1, "a"), (1, 0, "b"), (2, 1, "b"), (2, 0, "a"), (3, 1, "c"))]
    found = read_labelled([written(tmp_path / "a.jsonl", swapped)], 4, 7)
    assert [row["contrasts"] for row in found[:4]] == [["What is 3?"]] * 4


def test_a_pair_can_be_held_against_instructions_of_the_most_similar_texts(tmp_path: Path) -> None:
    texts = {1: "bread and flour in Kiel", 2: "chess on Monday", 3: "bread with flour from Bonn", 4: "rain again", 5: "bread or salt"}
    rows = [pair(number, number % 2, text=text) for number, text in texts.items()]
    found = read_labelled([written(tmp_path / "a.jsonl", rows)], 1, 7, num_near=1)
    assert [row["contrasts"] for row in found if row["instruction"] in ("What is 1?", "What is 3?")] == [["What is 3?"], ["What is 1?"]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([pair(1, 1), pair(2, "yes")], r"row 2: label: 'yes' is neither 1"),
        ([pair(1, 1), pair(1, 0)], r"row 2: the same pair has another label"),
        ([pair(1, 1), pair(2, 1)], r"pairs of both labels"),
        ([pair(1, 1, text=" ")], r"row 1: `text` is empty"),
        ([{"lang": "de", "instruction": "a", "text": "b"}], r"label"),
    ],
)
def test_unusable_labels_are_named(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_labelled([written(tmp_path / "a.jsonl", rows)], 4, 7)
