"""The choice of an estimator is compared with a single sample on sentences that no model was shown an example from."""

import asyncio
from pathlib import Path

import pytest

from tests.fake_engine import FakeEngine, asked
from xl.engines.models import ResolvedModel
from xl.errors import UserError
from xl.methods.best_of import ESTIMATORS, compare, comparison_stages, draw_sentences
from xl.methods.xl_instruct import ROLES, Recipe
from xl.pairs.parallel import ParallelText
from xl.records import Status
from xl.stage import Pending, Route, walk

ENGLISH = "The city council voted on Tuesday to close the old bridge."
REFERENCE = "Der Stadtrat hat am Dienstag beschlossen, die alte Brücke zu sperren."
POOR = "Der Rat der Stadt stimmte für die Schließung von einer Brücke."


def row(number: int, samples=(POOR, REFERENCE), faults=(None, None), **scores):
    """A finished row; an estimator that is not named prefers the first sample."""
    every = {f"scores_{name}": [[score] if score is not None else None for score in scores.get(name, (2, 1))] for name in ESTIMATORS}
    return {
        **{"id": str(number), "lang": "de", "document": f"d{number // 2}", "answer": ENGLISH, "reference": REFERENCE},
        **{"segments": [ENGLISH], "gaps": [""], "samples": [[text] for text in samples], "sample_faults": list(faults)},
        **every,
    }


def test_the_gain_is_that_of_the_chosen_sample_over_the_first_sound_one():
    rows = [row(n, round_trip=(20, 40) if n < 6 else (40, 20)) for n in range(8)]
    found = compare(rows, seed=7)
    by_round_trip, by_reference = found["round_trip"], found["reference"]
    assert (by_round_trip.num_sentences, by_round_trip.num_changed) == (8, 6)
    assert (by_round_trip.quality.first, by_round_trip.quality.best) == (25, 40)
    whole = by_reference.chrf.best - by_reference.chrf.first
    assert by_reference.chrf.best == pytest.approx(100)
    gain = by_round_trip.chrf.best - by_round_trip.chrf.first
    assert gain == pytest.approx(0.75 * whole)
    # Documents are 0/1, 2/3, 4/5 with the whole gain and 6/7 without one.
    low, high = by_round_trip.chrf.interval
    assert low < gain < high <= whole + 1e-9
    assert (by_round_trip.agreement_ratio, by_reference.agreement_ratio, found["llm"].agreement_ratio) == (0.75, 1, 0)
    assert found["llm"].chrf.interval == (0, 0)


def test_faulty_samples_are_in_no_comparison_and_a_silent_estimator_has_none():
    scores = {"round_trip": (None, 1, 3), "likelihood": (None, -3, -2), "llm": (None, None, None)}
    faulty = row(0, ("", POOR, REFERENCE), ("empty_translation", None, None), **scores)
    found = compare([faulty], seed=7)
    assert "llm" not in found
    assert (found["likelihood"].quality.first, found["likelihood"].quality.best, found["likelihood"].num_changed) == (-3, -2, 1)


@pytest.fixture
def text(tmp_path: Path) -> ParallelText:
    """Thirty sentences of ten documents."""
    columns = {
        "en": [f"This is sentence number {n} of the English text, and it is long enough." for n in range(30)],
        "de": [f"Das ist der Satz mit der Nummer {n} des Textes." for n in range(30)],
        "ids": [f"d{n // 3}" for n in range(30)],
    }
    for name, lines in columns.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", "utf-8")
    files = [str(tmp_path / "en"), str(tmp_path / "de")]
    return ParallelText.model_validate({"lang": "de", "from": files, "documents": str(tmp_path / "ids")})


def test_more_sentences_only_follow_those_that_were_drawn_before(text):
    few, many = (draw_sentences(text, num_sentences, (), seed=7) for num_sentences in (5, 30))
    assert many[:5] == few
    assert len({row["id"] for row in many}) == 30
    with pytest.raises(UserError, match="31 sentences are wanted, and 30"):
        draw_sentences(text, 31, (), seed=7)


def test_documents_that_the_model_is_shown_sentences_of_are_not_measured(text):
    shots = (("This is sentence number 4 of the English text, and it is long enough.", "…"),)
    rows = draw_sentences(text, 27, shots, seed=7)
    assert {row["document"] for row in rows} == {f"d{n}" for n in range(10)} - {"d1"}
    with pytest.raises(UserError, match="name its documents"):
        draw_sentences(text.model_copy(update={"documents": None}), 5, shots, seed=7)


def test_every_estimator_scores_the_same_samples():
    def answer(request) -> str:
        if "<translation>" in asked(request):
            return "5" if REFERENCE in asked(request) else "2"
        if REFERENCE in asked(request):
            return ENGLISH
        return "The council." if POOR in asked(request) else next(translations)

    translations = iter([POOR, REFERENCE, "?"])
    engine = FakeEngine(answer, lambda prompt, _: -1.0 if REFERENCE in prompt else -2.0)
    models = {"writer": {"model": "m", "engine": "scripted"}}
    recipe = Recipe.model_validate({"method": "xl_instruct", "languages": ["de"], "pages": {"from": "pages"}, "models": models})
    found = {role: ResolvedModel("m", "m", "m", None, True) for role in ROLES}
    route = Route(tuple(comparison_stages(recipe, found, {})), seed=7)
    start = {"id": "1" * 32, "lang": "de", "language": "German", "document": "d", "answer": ENGLISH, "reference": REFERENCE}
    done = asyncio.run(walk(route, Pending(start, 0, []), engine))
    assert (done.status, done.row["samples"]) == (Status.KEPT, [[POOR], [REFERENCE], ["?"]])
    assert done.row["scores_llm"] == [[2], [5], None]
    assert done.row["scores_likelihood"] == [[-2], [-1], None]
    assert {name: entry.num_changed for name, entry in compare([done.row], seed=7).items()} == dict.fromkeys([*ESTIMATORS, "reference"], 1)
