import math

import pytest

from tests.fake_engine import FakeEngine, asked, take
from xl.ask import Completion, Drop
from xl.pairs.grades import expected_grade
from xl.pairs.refine import CRITERIA, Refine, Score, keep_refined, keep_score, refine_answer, score_answer, take_draft

DRAFT = (
    "We at Coast Tours love lighthouses! They mark reefs and other dangers for ships that pass at night. "
    "Every lighthouse has a rhythm of its own, and sailors know from the flashes where they are. Book your tour today!"
)
ANSWER = (
    "Lighthouses warn ships of reefs and other dangers at night. Each one flashes in a rhythm of its own, so that sailors can tell "
    "which lighthouse they see and work out where they are."
)
ROW = {"id": "0" * 32, "lang": "en", "instruction": "How do lighthouses help ships?", "draft": DRAFT, "answer": ANSWER}


def verdict(answer: str, settings: Refine = Refine()):
    return keep_refined(settings)({**ROW, "answer": answer})


def parsed(text: str, finish_reason: str = "stop"):
    return refine_answer(Refine()).parse(ROW, Completion(text, finish_reason))


def test_a_sound_refined_answer_is_kept_with_what_it_took_over_from_the_draft():
    assert verdict(ANSWER)["draft_ratio"] < 0.5
    assert verdict(DRAFT)["draft_ratio"] == 1


@pytest.mark.parametrize(
    ("reason", "answer"),
    [
        ("empty", " …\n"),
        ("not_english", "Leuchttürme warnen Schiffe nachts vor Riffen und anderen Gefahren, und jeder blinkt in seinem eigenen Rhythmus."),
        ("length_ratio", "They warn ships of reefs."),
        ("length_ratio", ANSWER * 4),
        ("repetition", "Lighthouses warn ships of reefs. " * 8),
        (
            "copied_prompt",
            "Sourdough bread owes its taste to bacteria that live in the starter together with yeast. They produce lactic and acetic "
            "acid while the dough rises, and these acids make the bread sour.",
        ),
        (
            "copied_prompt",
            "precision: it answers what was asked, says specific things instead of vague ones, and leaves out what does not belong to "
            "the request; lighthouses warn ships.",
        ),
    ],
)
def test_an_unusable_answer_is_dropped_for_its_reason(reason, answer):
    assert verdict(answer) == Drop(reason)


@pytest.mark.parametrize(
    "text",
    [ANSWER, f"Answer: {ANSWER}", f"**Answer:** {ANSWER}", f"Here is the improved answer:\n\n{ANSWER}", f"Sure! Here’s one:\n{ANSWER}\n"],
)
def test_what_a_model_puts_before_the_answer_is_taken_off(text):
    assert parsed(text) == {"answer": ANSWER}


def test_an_answer_that_was_cut_off_is_dropped():
    assert parsed("Lighthouses warn ships of", "length") == Drop("unfinished")


def test_the_raw_passage_is_the_answer_cut_at_a_sentence():
    columns = take_draft(120)({"text": DRAFT})
    assert columns["draft"] == columns["answer"] == DRAFT[: DRAFT.index(" Every")]


def test_each_criterion_is_asked_for_and_the_score_is_their_mean():
    grades = dict(zip(CRITERIA, "5432", strict=True))
    engine = FakeEngine(lambda request: next(grade for name, grade in grades.items() if f"Criterion: {name}." in asked(request)))
    columns, context = take(score_answer(), ROW, engine)
    assert columns == {**{name: float(grade) for name, grade in grades.items()}, "score": 3.5}
    assert len({use["ask"] for use in context.usage}) == 4
    assert all(ANSWER in asked(request) for request in engine.requests)


def test_a_base_model_is_shown_graded_answers_and_what_the_criterion_means():
    engine = FakeEngine(lambda request: "3", chat=False)
    take(score_answer(), ROW, engine)
    assert engine.requests[0].prompt.endswith("\nGrade: (")
    assert CRITERIA["precision"] in engine.requests[0].prompt


def test_a_grade_that_cannot_be_read_is_never_a_low_one():
    assert take(score_answer(), ROW, FakeEngine(lambda request: "fine"))[0] == Drop("score_unreadable")


def test_a_grade_is_the_expected_one_over_the_five_digits_alone():
    logprobs = {" 5": math.log(0.3), "4": math.log(0.1), "A": math.log(0.6)}
    assert expected_grade(Completion("5", first_logprobs=logprobs)) == pytest.approx((5 * 0.3 + 4 * 0.1) / 0.4)
    assert expected_grade(Completion(" 2.")) == 2.0
    assert [expected_grade(Completion(text)) for text in ("", "0", "7", "4/5", "3.5", "10", "good")] == [None] * 7


def test_the_threshold_looks_at_the_mean_and_at_the_worst_criterion():
    keep = keep_score(Score(min_score=3, min_criterion=2))
    even = dict.fromkeys(CRITERIA, 3.0)
    assert keep({**even, "score": 3.0}) is None
    assert keep({**even, "score": 2.9}) == Drop("low_score")
    assert keep({**even, "objectivity": 1.5, "score": 4.0}) == Drop("low_score")
