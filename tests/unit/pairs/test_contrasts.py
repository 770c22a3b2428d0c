"""What a pair's own instruction is held against: instructions of other pages, random ones or the nearest."""

import pickle
import random
from typing import Any

import pyarrow as pa
import pytest

from xl.engines.models import ResolvedModel
from xl.methods import check_recipe, method_stages
from xl.pairs.contrasts import draw_contrasts
from xl.records import Row

SUBJECTS = {
    "de": {"bread": "Mehl Teig Ofen", "chess": "König Turm Läufer", "rivers": "Ufer Quelle Delta", "tea": "Kanne Blatt Tasse"},
    "th": {"bread": "แป้งและยีสต์", "chess": "ขุนและม้า", "rivers": "ฝั่งน้ำไหล", "tea": "ใบชาในกา"},
}


def pages(lang: str) -> list[Row]:
    """Pages about subjects, in words that they share with the others on it, behind words of their own."""
    every = [(subject, words, number) for number in range(5) for subject, words in SUBJECTS[lang].items()]
    return [
        {
            "id": f"{lang}-{subject}-{number}",
            "lang": lang,
            "instruction": f"Explain {subject} {number}.",
            "text": f"{place} x{place} {words}",
        }
        for place, (subject, words, number) in enumerate(every)
    ]


def drawn(rows: list[Row], num_near: int, handed_on: bool = False) -> dict[str, list[str]]:
    """Four contrasts of each row, by id."""
    stage = draw_contrasts(4, seed=7, num_near=num_near)
    parts = [[{name: row[name] for name in stage.needs} for row in part] for part in (rows[::2], rows[1::2])]
    state = stage.survey(map(pa.Table.from_pylist, parts))
    if handed_on:  # as Ray does it: arrays are read where they lie, and cannot be written
        buffers: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(state, protocol=5, buffer_callback=buffers.append)
        state = pickle.loads(pickled, buffers=[bytes(buffer) for buffer in buffers])
    return {row["id"]: stage.decide(state, row)["contrasts"] for row in rows}  # type: ignore[index]


@pytest.mark.parametrize("lang", SUBJECTS)
def test_near_contrasts_are_those_of_the_most_similar_texts_and_the_others_the_random_ones(lang: str) -> None:
    rows = pages(lang)
    near, at_random = drawn(rows, num_near=2), drawn(rows, num_near=0)
    for row in rows:
        first, rest = near[row["id"]][:2], near[row["id"]][2:]
        assert {instruction.split()[1] for instruction in first} == {row["instruction"].split()[1]}
        assert len({*first, *rest} - {row["instruction"]}) == 4
        assert rest == [instruction for instruction in at_random[row["id"]] if instruction not in first][:2]


def test_a_near_duplicate_lends_no_instruction_nor_does_a_near_page_whose_instruction_says_the_same() -> None:
    row, *others = pages("de")
    copy = {**row, "id": "copy", "instruction": "What is this bread?", "text": row["text"] + " Impressum"}
    same = {**others[3], "instruction": row["instruction"].upper(), "text": SUBJECTS["de"]["bread"]}
    rows = [row, copy, *others[:3]]
    assert copy["instruction"] in drawn(rows, 0)[row["id"]]
    assert copy["instruction"] not in drawn(rows, 1)[row["id"]]
    assert drawn([*rows, same, others[7]], 1)[row["id"]][0] == others[7]["instruction"]


def test_near_contrasts_are_the_same_in_any_order_of_rows_and_where_the_pool_is_handed_on() -> None:
    rows = [*pages("de"), *pages("th")]
    assert drawn(random.Random(1).sample(rows, len(rows)), num_near=3) == drawn(rows, num_near=3, handed_on=True)


def test_near_contrasts_redo_the_contrasts_and_a_recipe_without_them_is_as_it_was() -> None:
    def settings(**rating: Any) -> dict[str, Any]:
        data = {"method": "x_instruction", "languages": ["de"], "pages": {"from": "pages"}, "models": {"writer": {"model": "m"}}}
        model = ResolvedModel("m", "m", "m", None, None)
        stages = method_stages(check_recipe({**data, "rating": rating}, "r"), {"writer": model, "rater": model})
        return {stage.name: stage.settings for stage in stages}

    unset, near = settings(), settings(num_near_contrasts=2)
    assert unset["contrasts"] == {"num_contrasts": 4, "pool_size": 256, "seed": 0}
    assert "num_near_contrasts" not in unset["rated"]["rating"]
    assert [name for name in unset if unset[name] != near[name]] == ["contrasts"]
