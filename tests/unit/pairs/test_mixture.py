"""A mixture gives what is asked for as far as it is there, says what is missing, and draws each cell for itself."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from xl.ask import Drop
from xl.errors import UserError
from xl.pairs.mixture import PRESETS, Cell, Mixture, mix, plan_mixture, share_out
from xl.records import Row

EN = {"name": "en", "method": "alpaca", "direction": "en-en"}
X = {"name": "x", "method": "alpaca", "direction": "x-x"}
SIDES = {"en-en": ("en", "en"), "x-x": ("x", "x"), "en-x": ("en", "x"), "x-en": ("x", "en")}


def rows(method: str, direction: str, count: int, lang: str = "en", first: int = 0) -> list[Row]:
    request_lang, response_lang = (lang if side == "x" else "en" for side in SIDES[direction])
    row = {"method": method, "direction": direction, "request_lang": request_lang, "lang": response_lang}
    return [{"id": f"{method}-{direction}-{lang}-{n}", **row} for n in range(first, first + count)]


def mixture(*components: dict[str, Any], **settings: Any) -> Mixture:
    return Mixture.model_validate({"components": components, **settings})


def draw(of: Mixture, data: list[Row], languages: Sequence[str] = ("de", "tr"), seed: int = 7) -> dict[str, str]:
    """What became of each row: its component, or the reason why it was dropped."""
    stage = mix(of, languages, seed)
    state = stage.survey(iter([pa.Table.from_pylist(data[::2]), pa.Table.from_pylist(data[1::2])]))
    answers = {row["id"]: stage.decide(state, row) for row in data}
    return {row: answer.reason if isinstance(answer, Drop) else (answer or {})["component"] for row, answer in answers.items()}


DATA = [
    *rows("alpaca", "en-en", 200),
    *rows("alpaca", "x-x", 100, "de"),
    *rows("alpaca", "x-x", 30, "tr"),
    *rows("alpaca", "x-x", 50, "fi"),
]


def test_a_count_is_drawn_equally_from_each_language() -> None:
    drawn = draw(mixture(EN | {"count": 50}, X | {"count": 41}), DATA, ("de", "tr"))
    assert Counter(drawn.values()) == {"en": 50, "x": 41, "over_quota": 150 + 130 - 41, "not_in_mixture": 50}
    assert Counter(row.split("-")[3] for row, fate in drawn.items() if fate == "x") == {"de": 21, "tr": 20}


def test_a_pinch_takes_the_place_of_english_rows_at_constant_size() -> None:
    for pinch in (0, 1, 20, 60):
        drawn = draw(mixture(X | {"count": pinch}, EN, total=180), DATA, ("de", "tr"))
        assert Counter(drawn.values())["x"] == pinch
        assert Counter(drawn.values())["en"] == 180 - pinch


def test_a_larger_draw_holds_the_smaller_one() -> None:
    small, large = (draw(mixture(EN, X | {"count": count}), DATA, ("de", "tr")) for count in (10, 40))
    assert {row for row, fate in small.items() if fate == "x"} < {row for row, fate in large.items() if fate == "x"}


def test_new_rows_change_no_draw_in_another_language_and_few_in_their_own() -> None:
    components = mixture(EN, X | {"count": 40})
    before = draw(components, DATA, ("de", "tr"))
    after = draw(components, [*rows("alpaca", "x-x", 5, "de", first=1000), *DATA], ("de", "tr"))
    changed = [row for row, fate in before.items() if after[row] != fate]
    assert len(changed) <= 5 and all("-de-" in row for row in changed)
    assert draw(components, DATA[::-1], ("de", "tr")) == before
    assert draw(components, DATA, ("de", "tr"), seed=8) != before


def test_held_out_languages_are_not_drawn_on_any_side() -> None:
    data = [*DATA, *rows("translation", "x-en", 10, "tr"), *rows("translation", "x-en", 10, "de")]
    to_english = {"name": "t", "method": "translation", "direction": "x-en"}
    drawn = draw(mixture(EN, X, to_english, held_out=["tr"]), data, ("de", "tr"))
    assert {fate for row, fate in drawn.items() if "-tr-" in row} == {"held_out_language"}
    assert Counter(drawn.values())["t"] == 10


def test_what_is_missing_is_named_and_not_made_up_for_where_that_is_not_wanted() -> None:
    wanted = mixture(EN | {"ratio": 0.5}, X | {"ratio": 0.5}, total=200, redistribute=False)
    shares = plan_mixture(wanted, ("de", "tr", "sw"), {Cell("en", "en"): 200, Cell("x", "de"): 100, Cell("x", "tr"): 30})
    assert {share.cell: (share.num_wanted, share.num_taken) for share in shares} == {
        Cell("en", "en"): (100, 100),
        Cell("x", "de"): (34, 34),
        Cell("x", "sw"): (33, 0),
        Cell("x", "tr"): (33, 30),
    }
    stage = mix(wanted, ("de", "tr", "sw"), seed=7)
    assert stage.remarks is not None
    assert stage.remarks(stage.survey(iter([pa.Table.from_pylist(DATA)]))) == [
        "36 rows are missing of the total of 200",
        "en, en: 100 of 200 rows",
        "x, de: 34 of 100 rows",
        "x, sw: 0 of 0 rows, and 33 were wanted",
        "x, tr: 30 of 30 rows, and 33 were wanted",
    ]


def test_a_total_is_reached_as_long_as_there_are_rows_and_what_is_missing_then_is_said() -> None:
    def taken(total: int) -> tuple[dict[str, int], str]:
        stage = mix(mixture(X | {"count": 100}, EN, total=total), ("de", "tr"), seed=7)
        drawn = stage.survey(iter([pa.Table.from_pylist(DATA)]))
        assert stage.remarks is not None
        fates = [stage.decide(drawn, row) for row in DATA]
        return Counter(fate["component"] for fate in fates if isinstance(fate, dict)), stage.remarks(drawn)[0]

    assert taken(180) == ({"x": 100, "en": 80}, "x, de: 70 of 100 rows")
    assert taken(350) == ({"x": 100, "en": 200}, "50 rows are missing of the total of 350")


def test_a_run_from_before_totals_were_made_up_for_goes_on_unless_it_has_one() -> None:
    """They noted `redistribute: false`, which was the default."""

    def settings(**given: Any) -> Any:
        return mix(mixture(EN, X, **given), ("de",), 7).settings

    assert settings() == settings(redistribute=False)
    assert settings(total=10) == settings(total=10, redistribute=True) != settings(total=10, redistribute=False)


def test_asked_to_redistribute_other_languages_step_in_first_then_components_without_a_count() -> None:
    def taken(**sizes: int) -> dict[str, int]:
        wanted = mixture({**X, "count": sizes["x"]}, EN, {**EN, "name": "o", "method": "o"}, total=sizes["total"], redistribute=True)
        shares = plan_mixture(wanted, ("de", "tr"), {**there, Cell("o", "en"): 500})
        return {f"{share.cell.component} {share.cell.lang}": share.num_taken for share in shares}

    there = {Cell("en", "en"): 200, Cell("x", "de"): 100, Cell("x", "tr"): 30}
    assert taken(x=100, total=200) == {"x de": 70, "x tr": 30, "en en": 50, "o en": 50}
    assert taken(x=140, total=200) == {"x de": 100, "x tr": 30, "en en": 35, "o en": 35}
    assert taken(x=0, total=600) == {"x de": 0, "x tr": 0, "en en": 200, "o en": 400}


@given(st.integers(0, 60), st.lists(st.integers(0, 20), max_size=5))
def test_sharing_out_is_equal_as_far_as_there_is_room(amount: int, room: list[int]) -> None:
    given_ = share_out(amount, dict(enumerate(room)))
    assert sum(given_.values()) == min(amount, sum(room))
    assert all(given_[n] <= room[n] for n in given_)
    with_room = [n for n in given_ if given_[n] < room[n]]
    assert all(given_[n] >= max(given_.values()) - 1 for n in with_room)


@given(st.integers(1, 500), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_ratios_that_sum_to_one_give_the_total(total: int, weights: list[int]) -> None:
    components = [{**EN, "name": str(n), "method": str(n), "ratio": weight / sum(weights)} for n, weight in enumerate(weights)]
    shares = plan_mixture(mixture(*components, total=total), ("de",), {Cell(str(n), "en"): 500 for n in range(len(weights))})
    assert sum(share.num_taken for share in shares) == total
    assert all(abs(share.num_taken - total * weight / sum(weights)) <= 1 for share, weight in zip(shares, weights, strict=True))


def test_presets_are_components_by_name_and_take_a_size() -> None:
    assert [c.name for c in Mixture.model_validate("en_x").components] == ["en", "x"]
    sized = Mixture.model_validate({"preset": "en_x", "total": 10, "held_out": ["fi"]})
    assert (sized.total, sized.held_out, sized.sizes()) == (10, ("fi",), [5, 5])
    assert all(
        Mixture.model_validate(name) == Mixture.model_validate(Mixture.model_validate(name).model_dump(mode="json")) for name in PRESETS
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("en_y", "no preset 'en_y'; there are en, x, en_x"),
        ({"preset": "en", "components": [EN]}, "give `preset` or `components`"),
        ({"components": [EN, EN]}, "two components are called 'en'"),
        ({"components": [X, X | {"name": "y", "languages": ["de"]}]}, "components 'x' and 'y' would draw the same rows"),
        ({"components": [EN | {"ratio": 0.5}]}, "`ratio` is a share of `total`"),
        ({"components": [EN | {"ratio": 0.5, "count": 5}], "total": 9}, "give `count` or `ratio`, not both"),
        ({"components": [EN | {"count": 5}, X | {"count": 6}], "total": 9}, "ask for 11 rows, and `total` is 9"),
        ({"components": [EN | {"count": 5}], "total": 9}, "leave one without a size to take the rest"),
        ({"components": [EN, X], "held_out": ["en"]}, "leave en out"),
        ({"components": [EN | {"languages": ["de"]}]}, "en-en has no other language"),
        ({"components": [X | {"languages": ["en", "de"]}]}, "leave en out"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(settings: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Mixture.model_validate(settings)


def test_languages_that_the_run_is_not_in_are_refused() -> None:
    with pytest.raises(UserError, match="component 'x' wants Finnish, and the run is in de, tr"):
        mix(mixture(X | {"languages": ["fi"]}), ("de", "tr"), 7)
    with pytest.raises(UserError, match="component 'x' has no language to draw from; the run is in de"):
        mix(mixture(X, held_out=["de"]), ("de",), 7)
