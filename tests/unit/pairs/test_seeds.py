"""Seed pairs train the models of X-Instruction; those that are held out train nothing."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.support import ROOT
from xl.engines.models import ResolvedModel
from xl.errors import UserError
from xl.methods import check_recipe, method_stages, role_trainings
from xl.pairs.levels import Level
from xl.pairs.rating_set import rating_set
from xl.pairs.seeds import Seeds, SeedSplit, read_seeds

LANGUAGES = ("de", "es", "ga", "sw", "th", "tr")
FILES = tuple(str(ROOT / "jobs/samples/seeds" / f"{lang}.jsonl") for lang in LANGUAGES)


def test_the_sample_seeds_are_split_equally_and_no_subject_is_on_both_sides() -> None:
    split = read_seeds(Seeds(from_=FILES, num_held_out=84), LANGUAGES, 7)
    assert Counter(pair.lang for pair in split.held_out) == dict.fromkeys(LANGUAGES, 14)
    assert len(split.train) == 288 - 84
    assert not {pair.instruction for pair in split.train} & {pair.instruction for pair in split.held_out}


def test_a_text_that_is_held_out_is_trained_on_under_no_other_instruction(tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    rows = [
        {"lang": "de", "instruction": f"{how} text {n}.", "response": f"Text {n}."} for n in range(20) for how in ("Write", "Make", "Give")
    ]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    split = read_seeds(Seeds(from_=(str(path),), num_held_out=20), ("de",), 7)
    assert len(split.held_out) == 21 and len(split.train) == 39
    assert not {pair.response for pair in split.train} & {pair.response for pair in split.held_out}


def test_rows_in_other_languages_and_empty_ones_cost_no_other_row_its_place_or_its_id(tmp_path: Path) -> None:
    good = [{"lang": "de", "instruction": f"Describe {n}.", "response": f"Text {n}."} for n in range(4)]
    others = [
        {"lang": "hau", "instruction": "a", "response": "b"},
        {"lang": None, "instruction": 1, "response": []},
        {**good[0], "lang": "fr"},
    ]
    unread = [{"lang": "fr", "instruction": "", "response": None}, *others]
    empty = [{**good[0], "response": "  "}, {**good[1], "instruction": None}, {**good[2], "response": ["b"]}]

    def split(*rows: dict[str, Any]) -> SeedSplit:
        (tmp_path / "seeds.json").write_text(json.dumps(rows), "utf-8")
        return read_seeds(Seeds(from_=(str(tmp_path / "seeds.json"),), num_held_out=1), ("de", "sw"), 7)

    clean, found = split(*good), split(*unread, good[0], *empty, *good[1:], *unread)
    assert (found.train, found.held_out, found.num_empty) == (clean.train, clean.held_out, 3)
    assert clean.num_empty == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"lang": "xx", "instruction": "a", "response": "b"}], r"row 1: unknown language 'xx'"),
        ([{"lang": "de", "instruction": " ", "response": "b"}], r"row 1: `instruction` is empty"),
        ([{"lang": "fr", "instruction": "a", "response": "b"}], r"0 pairs are in de"),
        ([{"lang": lang, "instruction": " ", "response": "b"} for lang in ("fr", "de")], r"0 pairs are in de \(1 more are empty\)"),
        ([{"language": "de", "instruction": "a", "response": "b"}], r"no column 'lang'"),
    ],
)
def test_unusable_seeds_are_named(tmp_path: Path, rows: list[dict[str, str]], message: str) -> None:
    path = tmp_path / "seeds.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    with pytest.raises(UserError, match=message):
        read_seeds(Seeds(from_=(str(path),)), ("de",), 7)


def test_a_rating_set_has_one_good_one_flawed_and_two_bad_pairs_of_every_seed_and_a_passage_for_each_detail() -> None:
    seeds = read_seeds(Seeds(from_=FILES[:2]), LANGUAGES, 7).train
    rated = rating_set(seeds, 1200, 7)
    kinds = Counter(pair.kind for pair in rated)
    assert kinds["passage"] == kinds["detail"] > 0
    assert Counter(pair.level for pair in rated) == {Level.GOOD: 96 + kinds["passage"], Level.FLAWED: 96, Level.BAD: 192}
    for pair in rated:
        assert (pair.instruction == pair.seed.instruction) == (pair.kind in ("seed", "cut")), pair.kind


def recipe(**changes: Any) -> dict[str, Any]:
    return {
        "method": "x_instruction",
        "languages": ["de", "es"],
        "pages": {"from": "pages"},
        "models": {"writer": {"model": "m", "engine": "scripted"}},
        "seeds": {"from": list(FILES[:2]), "num_held_out": 20},
        **changes,
    }


MODELS = {role: ResolvedModel("m", "m", "digest", None, False) for role in ("writer", "rater")}


def test_seeds_that_are_passed_over_are_told_where_a_model_is_said_to_learn_from_the_others(tmp_path: Path) -> None:
    rows = [{"lang": "de", "instruction": f"Describe {n}.", "response": n * "Text."} for n in range(3)]
    (tmp_path / "seeds.json").write_text(json.dumps(rows), "utf-8")
    made = role_trainings(check_recipe(recipe(reverse_model={}, seeds={"from": [str(tmp_path / "seeds.json")]}), "r"), MODELS)
    assert made["writer"].amount == "2 rows (1 seed without instruction or response left out)"


def test_each_model_learns_from_the_seeds_that_are_not_held_out() -> None:
    trained = check_recipe(recipe(reverse_model={}, evaluator={}, rating={"rater": "trained"}), "r")
    made = role_trainings(trained, MODELS)
    assert len(made["writer"].rows) == 76
    assert 4 * 76 < len(made["rater"].rows) < 5 * 76
    assert {row["response"] for row in made["rater"].rows} == {"0", "1", "2"}
    held_out = read_seeds(trained.seeds, trained.languages, 0).held_out  # type: ignore[attr-defined]
    for training in made.values():
        told = " ".join(row["request"] + row["response"] for row in training.rows)
        assert not any(pair.instruction in told for pair in held_out)


def test_a_trained_writer_is_another_model_than_the_untrained_rater_and_changes_its_pairs() -> None:
    """Both are the recipe's writer by name; the rater must not be asked in the writer's engine."""
    plain = {stage.name: stage for stage in method_stages(check_recipe(recipe(), "r"), MODELS)}
    parsed = check_recipe(recipe(reverse_model={}), "r")
    made = {role: training.model(Path("models") / role) for role, training in role_trainings(parsed, MODELS).items()}
    trained = {stage.name: stage for stage in method_stages(parsed, {**MODELS, **made})}
    assert plain["rated"].model == "writer" and trained["rated"].model == "rater"  # type: ignore[union-attr]
    assert plain["pairs"].settings != trained["pairs"].settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": None, "reverse_model": {}}, "`seeds` is missing"),
        ({"rating": {"rater": "trained"}}, "belong together"),
        ({"evaluator": {}}, "belong together"),
    ],
)
def test_a_training_without_its_seeds_or_its_use_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises((UserError, ValidationError), match=message):
        check_recipe(recipe(**change), "r")
