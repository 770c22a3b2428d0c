"""Rounds of rating: each evaluator learns what the one before was sure of, until nothing new is to be learned."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from tests.fake_engine import FakeEngine, take
from tests.support import ROOT
from xl import runs
from xl.ask import Drop
from xl.engines.models import ResolvedModel
from xl.errors import UserError
from xl.folder import RunFolder
from xl.methods import check_recipe, method_stages, role_trainings
from xl.methods.rounds import NOTHING_SURE, SETTLED, rounds_of
from xl.pairs.rate import Rating, Rounds
from xl.pairs.rounds import LABEL_COLUMNS, label_sure_pairs, rate_again
from xl.pipeline import Engines
from xl.records import Row
from xl.report.rounds import ALL, read_rounds, write_rounds
from xl.stage import fingerprints
from xl.store import write_json

ROUNDS = Rounds(num_rounds=3, min_good=1.5, max_bad=0.5, max_labels=3)
MODELS = {role: ResolvedModel("m", "m", "digest", None, False) for role in ("writer", "rater")}


def pair(number: int, rating: float, lang: str = "de", **columns: Any) -> Row:
    return {"id": f"{lang}{number}", "lang": lang, "rating": rating, **columns}


def labelled(rows: list[Row], number: int = 2, rounds: Rounds = ROUNDS) -> list[Row]:
    """The rows as the stage leaves them; it reads them in two tables."""
    stage = label_sure_pairs(number, rounds, 1.0, seed=7)

    def tables() -> Iterator[pa.Table]:
        for part in (rows[::2], rows[1::2]):
            yield pa.Table.from_pylist([{name: row[name] for name in stage.needs} for row in part])

    state = stage.survey(tables())
    return [{**row, **stage.decide(state, row)} for row in rows]  # type: ignore[dict-item]


def test_as_many_good_pairs_as_bad_ones_are_learned_in_each_language_and_no_more_than_the_cap() -> None:
    rows = [pair(n, 2.0) for n in range(10)] + [pair(n, 0.0) for n in range(10, 20)] + [pair(n, 1.0) for n in range(20, 30)]
    rows += [pair(n, 2.0, "tr") for n in range(10)] + [pair(10, 0.2, "tr")] + [pair(n, 2.0, "sw") for n in range(10)]
    found = labelled(rows)
    assert Counter((row["lang"], row["label"]) for row in found if row["label"] is not None) == {
        **{("de", level): 3 for level in (0, 2)},
        **{("tr", level): 1 for level in (0, 2)},
    }
    assert all((row["rating"] >= 1.5) == (row["label"] == 2) for row in found if row["label"] is not None)
    assert {row["evaluator"] for row in found} == {found[0]["evaluator"]} != {None}


def test_the_order_of_the_rows_changes_no_label_and_another_label_rates_every_row_anew() -> None:
    rows = [pair(n, 2.0 * (n % 2)) for n in range(40)]
    found = {row["id"]: (row["label"], row["evaluator"]) for row in labelled(rows)}
    assert {row["id"]: (row["label"], row["evaluator"]) for row in labelled(rows[::-1])} == found
    learned = next(name for name, (label, _) in found.items() if label is not None)
    others = labelled([row for row in rows if row["id"] != learned])
    assert not {row["evaluator"] for row in others} & {evaluator for _, evaluator in found.values()}


def test_nothing_is_learned_where_no_language_has_both_kinds() -> None:
    found = labelled([pair(n, 2.0) for n in range(5)] + [pair(n, 0.0, "tr") for n in range(5)])
    assert {(row["label"], row["evaluator"]) for row in found} == {(None, None)}


@pytest.mark.parametrize(("num_changed", "goes_on"), [(1, False), (5, True)])
def test_the_rounds_end_when_the_share_of_accepted_pairs_has_settled(num_changed: int, goes_on: bool) -> None:
    rows = [pair(n, 2.0 * (n % 2), rating_before=2.0 if n < num_changed else 2.0 * (n % 2)) for n in range(100)]
    assert (labelled(rows, 3)[0]["evaluator"] is not None) == goes_on


def test_a_row_is_rated_again_by_an_evaluator_that_learned_and_else_goes_on_unasked() -> None:
    row = {"id": "0", "instruction": "Describe bees.", "text": "Bienen.", "language": "German", "rating": 0.5, "rating_level": 0}
    engine = FakeEngine(lambda request: "2")
    step = rate_again(Rating(rater="trained"))
    assert take(step, {**row, "evaluator": None}, engine)[0] is None
    assert not engine.requests
    again, context = take(step, {**row, "evaluator": "digest"}, engine)
    assert again == {"rating": 2.0, "rating_level": 2, "rating_before": 0.5}
    assert [use["ask"] for use in context.usage] == ["rate_pair"]
    assert take(step, {**row, "evaluator": "digest"}, FakeEngine(lambda request: "good"))[0] == Drop("rating_unreadable")


def recipe(**rounds: Any) -> Any:
    return check_recipe(
        {
            "method": "x_instruction",
            "languages": ["de"],
            "pages": {"from": "pages"},
            "models": {"writer": {"model": "m", "engine": "scripted"}},
            "seeds": {"from": [str(ROOT / "jobs/samples/seeds/de.jsonl")], "num_held_out": 10},
            "evaluator": {},
            "rating": {"rater": "trained", "rounds": {"num_rounds": 3, **rounds}},
        },
        "r",
    )


def keys(**rounds: Any) -> dict[str, str]:
    """The fingerprints of a recipe's stages."""
    parsed = recipe(**rounds)
    trainings = role_trainings(parsed, MODELS)
    models = {role: training.model(Path("models") / role) for role, training in trainings.items()}
    return fingerprints(method_stages(parsed, {**MODELS, **models}), "")


def test_one_more_round_or_another_end_leaves_the_rounds_before_as_they_are() -> None:
    three = keys()
    rating = ["rated", "labelled_2", "rated_2", "labelled_3", "rated_3"]
    assert [name for name in three if name in rating] == rating and list(three)[-1] == "dataset"
    assert {name: keys(num_rounds=4)[name] for name in rating} == {name: three[name] for name in rating}
    assert [name for name in rating if keys(min_change=0.1)[name] != three[name]] == rating[3:]
    assert [name for name in rating if keys(min_good=1.6)[name] != three[name]] == rating[1:]
    assert keys(num_rounds=1)["rated"] == three["rated"]


def test_each_round_has_an_evaluator_of_its_own_that_learns_the_seeds_and_the_sure_pairs() -> None:
    made = role_trainings(recipe(), MODELS)
    assert len({training.digest for training in made.values()}) == 3
    first, second = made["rater"], made["rater_2"]
    known = {"id": "0", "lang": "de", "instruction": "Describe bees.", "text": "Bienen.", "language": "German", "label": 2}
    taught = second.taught([known, {**known, "id": "1", "label": None}])
    assert taught is not None and taught.rows[:-1] == first.rows and taught.digest != second.digest
    assert "Describe bees." in taught.rows[-1]["request"] and taught.rows[-1]["response"] == "2"
    assert second.taught([{**known, "label": None}]) is None


def test_an_evaluator_is_made_and_examined_once_its_lessons_are_there_and_not_at_all_without_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed, run, made, examined = recipe(), RunFolder(tmp_path), [], []
    monkeypatch.setattr(runs, "make_model", lambda training, folder, *_: made.append((training, folder)))
    monkeypatch.setattr(runs, "take_exam", lambda exam, folder, role, player, *_: examined.append((folder, role, player[1].digest)))
    job = runs.Job(
        parsed, run, runs.Options(), Console(quiet=True), MODELS, role_trainings(parsed, MODELS), [], Engines(Console(quiet=True))
    )
    write_json(run.manifest / "manifest.json", {"shards": [[{"name": "0"}]]})
    texts = [pa.field(name, pa.string()) for name in ("instruction", "text", "language")]
    row = pair(0, 2.0, rating_level=2, instruction="Describe bees.", text="Bienen.", language="German")
    put(run, "labelled_2", [{**row, "label": None, "evaluator": None}], *texts, *LABEL_COLUMNS)
    assert job.player("rater_2") is None and not made
    put(run, "labelled_2", [{**row, "label": 2, "evaluator": "d"}], *texts, *LABEL_COLUMNS)
    player = job.player("rater_2")
    ((training, folder),) = made
    assert folder == tmp_path / "models/rater_2" and training.rows[-1]["response"] == "2"
    assert player is not None and player[1].digest == training.digest != job.trainings["rater_2"].digest
    assert examined == [(folder / "exam", "rater_2", training.digest)]


def test_all_evaluators_are_examined_on_seeds_that_none_of_them_learned() -> None:
    made = role_trainings(recipe(), MODELS)
    for training in made.values():
        assert training.exam is not None
        told = " ".join(row["request"] for row in training.rows)
        assert not any(row["text"][:100] in told for row in training.exam.rows)


def test_rounds_without_a_trained_rater_and_limits_that_cross_are_refused() -> None:
    data = {
        "method": "x_instruction",
        "languages": ["de"],
        "pages": {"from": "p"},
        "models": {"writer": {"model": "m", "engine": "scripted"}},
    }
    with pytest.raises(UserError, match=r"wants rating\.rater: trained"):
        check_recipe({**data, "rating": {"rounds": {"num_rounds": 2}}}, "r")
    with pytest.raises(UserError, match=r"max_bad: 1\.5 must be below min_good: 1"):
        recipe(min_good=1.0, max_bad=1.5)


def put(run: RunFolder, stage: str, rows: list[Row], *columns: pa.Field) -> None:
    names = ("id", "lang", "rating", "rating_level")
    schema = pa.schema([*zip(names, (pa.string(), pa.string(), pa.float64(), pa.int64()), strict=True), *columns])
    fates = [{"status": "kept", "reason": None, "_input": row["id"], "_usage": [], **row} for row in rows]
    run.store(stage).write("0", "", fates, schema)


def test_rounds_tell_what_was_accepted_how_the_levels_fell_and_why_a_round_was_left_out(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    before = [pair(0, 0.0, rating_level=0), pair(1, 1.2, rating_level=1), pair(2, 2.0, "tr", rating_level=2)]
    put(run, "rated", [*before, {**before[0], "id": "x", "rating": None, "rating_level": None, "status": "dropped"}])
    put(run, "labelled_2", [{**row, "label": 2, "evaluator": "d"} for row in before], *LABEL_COLUMNS)
    now = [{**row, "rating": rating, "rating_before": row["rating"]} for row, rating in zip(before, (0.1, 1.6, 1.9), strict=True)]
    put(run, "rated_2", now, pa.field("rating_before", pa.float64()))
    put(run, "labelled_3", [{**row, "label": None, "evaluator": None} for row in before], *LABEL_COLUMNS)

    def told(min_change: float) -> list[Any]:
        rating = Rating(rater="trained", rounds=Rounds(num_rounds=3, min_change=min_change))
        write_rounds(tmp_path / "rounds.json", rounds_of(run, ["0"], rating, 7, ["a", "b", "c"]))
        return read_rounds(tmp_path / "rounds.json")

    first, second, third = told(0.02)
    assert {lang: (score.num_accepted, score.num_rated) for lang, score in first.scores.items()} == {
        ALL: (1, 3),
        "de": (0, 2),
        "tr": (1, 1),
    }
    assert first.scores[ALL].num_by_level == (1, 1, 1) and first.scores[ALL].agreement is None
    assert (second.num_labels, second.scores["de"].acceptance_ratio) == (3, 0.5)
    assert second.acceptance_change == pytest.approx(1 / 3)
    assert (third.not_asked, third.scores) == (NOTHING_SURE, {})
    assert told(0.5)[2].not_asked == SETTLED
