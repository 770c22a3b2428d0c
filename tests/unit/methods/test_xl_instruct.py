import asyncio
from collections import Counter

import pytest
from pydantic import ValidationError

from tests.fake_engine import FakeEngine, asked
from xl.engines.models import ResolvedModel
from xl.errors import UserError
from xl.methods.xl_instruct import ROLES, Recipe, draw_language, stages
from xl.pipeline import balances
from xl.records import Status
from xl.stage import Pending, Route, RowStage, fingerprints, passes, walk

PAGE = (
    "We at Coast Tours love lighthouses! They mark reefs and other dangers for ships that pass at night. "
    "Every lighthouse has a rhythm of its own, and sailors know from the flashes where they are. Book your tour today!"
)
REFINED = (
    "Lighthouses warn ships of reefs and other dangers at night. Each one flashes in a rhythm of its own, so that sailors can tell "
    "which lighthouse they see and work out where they are."
)
GERMAN = (
    "Leuchttürme warnen Schiffe nachts vor Riffen und anderen Gefahren. Jeder von ihnen blinkt in einem eigenen Rhythmus, sodass die "
    "Seeleute erkennen, welchen Leuchtturm sie sehen, und wissen, wo sie sind."
)
BETTER = GERMAN.replace("Leuchttürme", "Die Leuchttürme")
ROW = {"id": "7" * 32, "lang": "en", "url": "https://a.example/1", "source": "web", "text": PAGE, "error": None}


def recipe(languages=("de",), roles=None, **settings) -> Recipe:
    models = {"writer": {"model": "m", "engine": "scripted"}, **(roles or {})}
    data = {"method": "xl_instruct", "languages": languages, "pages": {"from": "pages"}, "models": models, "seed": 7}
    return Recipe.model_validate({**data, **settings})


def plan(languages=("de",), roles=None, **settings):
    wanted = recipe(languages, roles, **settings)
    models = {role: ResolvedModel("m", "m", wanted.model_for(role).model, None, True) for role in ROLES}
    return stages(wanted, models)


def model() -> FakeEngine:
    """Writes a question, refines, grades, and translates: badly, well, and best, in the order that it is asked."""
    translations = iter([GERMAN, BETTER, REFINED])

    def answer(request) -> str:
        if "<passage>" in asked(request):
            return "How do lighthouses help ships?"
        if "<draft>" in asked(request):
            return REFINED
        if "<translation>" in asked(request):
            return "5" if BETTER in asked(request) else "3"
        return "4" if "Criterion:" in asked(request) else next(translations)

    return FakeEngine(answer)


def walked(engine: FakeEngine, **settings):
    route = Route(tuple(stage for stage in plan(**settings) if isinstance(stage, RowStage)), seed=7)
    return asyncio.run(walk(route, Pending(ROW, 0, []), engine))


def test_a_passage_becomes_a_refined_translated_pair_with_the_best_of_its_samples():
    engine = model()
    done = walked(engine)
    row = done.row
    assert (done.status, row["lang"], row["language"], row["response"]) == (Status.KEPT, "de", "German", BETTER)
    assert (row["answer"], row["score"], row["quality"]) == (REFINED, 4.0, 5.0)
    assert row["sample_faults"].count(None) == row["num_samples_left"] == 2
    assert "German" in row["request"]
    assert "How do lighthouses help ships?" in row["request"]
    assert len(engine.requests) == 1 + 1 + 4 + 3 + 2
    assert Counter(use["stage"] for use in done.usage) == {"question": 1, "refined": 1, "scored": 4, "translated": 3, "estimated": 2}


def test_the_arms_of_the_ablation_leave_out_their_steps():
    english = walked(model(), translate=False)
    assert (english.row["lang"], english.row["response"], english.row["request"]) == ("en", REFINED, "How do lighthouses help ships?")
    raw = walked(model(), refine=False, translate=False)
    assert raw.row["response"] == PAGE
    single = walked(model(), translate={"best_of": 1}, estimate=False, score=False)
    assert (single.row["response"], single.status) == (GERMAN, Status.KEPT)
    assert {use["stage"] for use in single.usage} == {"question", "refined", "translated"}


def test_a_page_in_another_language_is_dropped_and_not_asked_about():
    engine = model()
    route = Route((plan()[2],), seed=7)
    done = asyncio.run(walk(route, Pending({**ROW, "lang": "de"}, 0, []), engine))
    assert (done.status, done.reason, engine.requests) == (Status.DROPPED, "not_english_page", [])


def test_samples_without_anything_to_choose_by_are_refused():
    with pytest.raises(ValidationError, match=r"needs `translate: \{best_of: 1\}`"):
        recipe(estimate=False)
    with pytest.raises(ValidationError, match="needs an `estimate`"):
        recipe(estimate=False, translate=False, choice={"min_quality": 3})


def test_english_is_no_target_and_maltese_not_for_comet():
    with pytest.raises(ValidationError, match="languages: en"):
        plan(languages=("de", "en"))
    with pytest.raises(UserError, match="never seen Maltese"):
        plan(languages=("mt",), estimate={"estimator": "comet"})


def test_another_threshold_costs_no_call_to_a_model():
    before, after = (fingerprints(plan(**settings), "s") for settings in ({}, {"score": {"min_score": 4}}))
    assert [name for name in before if before[name] == after[name]][-1] == "scored"
    before, after = (fingerprints(plan(**settings), "s") for settings in ({}, {"choice": {"min_quality": 4}}))
    assert [name for name in before if before[name] == after[name]][-1] == "estimated"


def test_what_the_examples_say_counts_and_not_where_they_are(tmp_path):
    def translated(folder: str, german: str) -> str:
        (tmp_path / folder).mkdir()
        for lang, line in (("en", "The river flows slowly through the old town."), ("de", german)):
            (tmp_path / folder / lang).write_text(line + "\n", "utf-8")
        files = {lang: str(tmp_path / folder / lang) for lang in ("en", "de")}
        return fingerprints(plan(translate={"examples": files, "num_examples": 1}), "s")["translated"]

    here = translated("here", "Der Fluss fließt langsam durch die alte Stadt.")
    assert here == translated("there", "Der Fluss fließt langsam durch die alte Stadt.")
    assert here != translated("other", "Langsam fließt der Fluss durch die alte Stadt.")


def test_steps_on_one_model_share_an_engine_and_others_have_their_own():
    groups = [[stage.name for stage in group] for group in passes(plan())]
    assert groups[2:] == [
        ["question", "refined", "scored", "accepted"],
        ["clause"],  # it changes the rows' language
        ["translated", "checked", "estimated", "chosen"],
        ["dataset"],
    ]
    other = {"model": "other", "engine": "scripted"}
    models = {stage.name: stage.model for stage in plan(roles={"translator": other}) if isinstance(stage, RowStage)}
    assert (models["scored"], models["translated"], models["estimated"]) == ("writer", "translator", "translator")


IDS = [f"{number:032x}" for number in range(3000)]


def drawn(*languages: str) -> dict[str, str]:
    step = draw_language(languages, seed=1)
    return {page: step({"id": page, "instruction": "Explain rain."})["lang"] for page in IDS}


def test_languages_are_drawn_equally_and_one_more_takes_its_share_from_all():
    three, four = drawn("de", "pt", "hu"), drawn("fi", "hu", "pt", "de")
    assert all(900 < count < 1100 for count in Counter(three.values()).values())
    moved = [(three[page], four[page]) for page in IDS if three[page] != four[page]]
    assert {after for _, after in moved} == {"fi"}
    assert all(180 < count < 320 for count in Counter(before for before, _ in moved).values())


def test_the_ledger_of_the_stage_that_sets_the_language_balances_over_all_and_every_other_per_language():
    for stage in plan(languages=("de", "fi")):
        assert balances(stage, {"en": 5}, {"de": 3, "fi": 2}) == (stage.name == "clause")
        assert not balances(stage, {"en": 5}, {"en": 4})


def answered_directly(engine: FakeEngine):
    return walked(engine, languages=("de",), refine=False, score=False, translate=False, distil={})


def test_a_teacher_answers_the_request_itself_and_an_answer_in_another_language_is_dropped() -> None:
    def teacher(answer: str) -> FakeEngine:
        return FakeEngine(lambda request: "How do lighthouses help ships?" if "<passage>" in asked(request) else answer)

    engine = teacher(GERMAN)
    kept = answered_directly(engine)
    assert (kept.status, kept.row["response"]) == (Status.KEPT, GERMAN)
    assert asked(engine.requests[-1]) == kept.row["request"] and "German" in kept.row["request"]
    assert (answered_directly(teacher(REFINED)).status, answered_directly(teacher(REFINED)).reason) == (Status.DROPPED, "wrong_language")
    assert answered_directly(teacher("…")).reason == "empty"


def test_the_baselines_share_the_questions_and_a_teacher_beside_a_translation_is_refused() -> None:
    naive = plan(refine=False, score=False, translate={"best_of": 1}, estimate=False)
    distilled = plan(refine=False, score=False, translate=False, distil={})
    keys = [fingerprints(stages, "") for stages in (plan(), naive, distilled)]
    assert len({each["question"] for each in keys}) == 1
    assert [stage.name for stage in naive if stage.name in ("scored", "estimated")] == []
    with pytest.raises(ValidationError, match="it needs refine: false"):
        recipe(distil={})
