"""Which rows a training learns from."""

import pytest

from xl.errors import UserError
from xl.train.choose import chosen_rows
from xl.train.settings import Train

ROWS = [
    {"id": f"{lang}{n}", "lang": lang, "language": lang, "instruction": f"Ask {n}.", "response": f"{lang} response {n}", "source": "s"}
    for lang in ("de", "sw")
    for n in range(5)
]


def test_only_the_languages_that_are_asked_for_are_learned() -> None:
    assert {row["lang"] for row in chosen_rows(ROWS, Train(languages=("sw",)))} == {"sw"}
    assert list(chosen_rows(ROWS, Train())) == ROWS


def test_a_language_without_rows_is_an_error() -> None:
    with pytest.raises(UserError, match="no row is in th; there are de, sw"):
        list(chosen_rows(ROWS, Train(languages=("de", "th"))))


def test_shuffled_responses_stay_in_their_language_and_leave_their_instruction() -> None:
    shuffled = list(chosen_rows(ROWS, Train(shuffled_responses=True)))
    whole = {row["id"]: row for row in ROWS}
    assert sorted(row["response"] for row in shuffled) == sorted(row["response"] for row in ROWS)
    for row in shuffled:
        own = whole[row["id"]]
        assert row["response"] != own["response"]
        assert row["response"].startswith(row["lang"])
        assert row["instruction"] == own["instruction"]
    assert shuffled == list(chosen_rows(ROWS, Train(shuffled_responses=True)))
    assert shuffled != list(chosen_rows(ROWS, Train(shuffled_responses=True, seed=1)))
