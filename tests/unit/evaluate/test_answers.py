"""What the arms are asked, and how their answers are looked at."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from xl.ask import Completion, Context, Request, Score
from xl.evaluate.answers import answer, draw_examples, fit, look_at
from xl.evaluate.benchmarks.catalogue import BENCHMARKS
from xl.evaluate.benchmarks.task import Answer, Item
from xl.evaluate.settings import Evaluate

ROW = {
    "id": "0" * 32,
    "lang": "de",
    "language": "German",
    "instruction": "What is a lighthouse?",
    "request": "What is a lighthouse? Answer in German.",
    "scored": True,
    "contrasts": ["What is bread?", "Describe the moon."],
}
PAIRS = [
    {"id": f"{n}", "lang": "de", "language": "German", "instruction": f"Ask {n}?", "response": f"Antwort {n}. </page> " + "Wort " * 200}
    for n in range(9)
]


def settings(**keys: Any) -> Evaluate:
    return Evaluate.model_validate({"prompts": {"from": "prompts.jsonl"}, **keys})


@dataclass
class Recorder:
    """Remembers what it is asked; scores a text by how many of its words the prompt holds."""

    chat: bool
    seen: list[Request] = field(default_factory=list)

    async def complete(self, request: Request) -> Completion:
        self.seen.append(request)
        return Completion(" Ein Leuchtturm. ", finish_reason="length")

    async def score(self, prompt: str, continuation: str, max_tokens: int) -> Score:
        return Score((float(sum(word in prompt for word in continuation.split())),))

    async def close(self) -> None:
        """Nothing to release."""


def ask(arm: Any, engine: Recorder, examples: Any = None) -> Any:
    return asyncio.run(answer(arm, settings(), examples or {})(dict(ROW), Context(engine, 7)))


def test_a_base_model_is_asked_in_the_wording_of_the_training_and_stopped_before_the_next_turn() -> None:
    engine = Recorder(chat=False)
    assert ask("base", engine) == {"answer_base": "Ein Leuchtturm.", "finish_base": "length"}
    assert engine.seen[0].prompt == "### Instruction:\nWhat is a lighthouse? Answer in German.\n\n### Response:\n"
    assert "\n### " in engine.seen[0].sampling.stop


def test_examples_come_before_the_request_as_turns_of_a_chat() -> None:
    engine = Recorder(chat=True)
    examples = draw_examples(PAIRS, settings(num_examples=2, max_example_chars=60), seed=7)
    ask("few_shot", engine, examples)
    roles = [message.role for message in engine.seen[0].messages]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    assert engine.seen[0].messages[-1].content == ROW["request"]


def test_examples_are_short_harmless_and_the_same_every_time() -> None:
    drawn = draw_examples(PAIRS, settings(num_examples=3, max_example_chars=60), seed=7)
    assert len(drawn["de"]) == 3
    for asked, response in drawn["de"]:
        assert asked.endswith("Answer in German.")
        assert len(response) <= 60
        assert "<" not in response
    assert drawn == draw_examples(reversed(PAIRS), settings(num_examples=3, max_example_chars=60), seed=7)


def test_an_example_asks_what_its_pair_is_trained_with_its_input_and_the_style() -> None:
    pair = {**PAIRS[0], "instruction": "Translate this into German.", "request": "Translate this into German.\n\nThe river is long."}
    ((asked, _),) = draw_examples([pair], settings(style="Write as on the web."), seed=7)["de"]
    assert asked == "Translate this into German. The river is long. Write as on the web."


@pytest.mark.parametrize(("text", "fits"), [("lighthouse", True), ("bread", False), ("…", False)])
def test_an_answer_fits_if_its_own_instruction_makes_it_likeliest(text: str, fits: bool) -> None:
    row = {**ROW, "answer_base": text, "answer_tuned": text}
    found = asyncio.run(fit(settings())(row, Context(Recorder(chat=True), 7)))
    assert found == {"fits_base": fits, "fits_tuned": fits}


def test_the_language_of_an_answer_and_its_circles_are_seen() -> None:
    german = "Ein Leuchtturm ist ein Turm an der Küste, dessen Licht den Schiffen in der Nacht den Weg zeigt."
    found = look_at(settings())({**ROW, "answer_base": "A lighthouse is a tower. " * 20, "answer_tuned": german})
    assert found is not None
    assert found == {
        **{"verdict_base": "wrong", "found_base": "en", "in_language_base": False, "repetitive_base": True},
        **{"verdict_tuned": "right", "found_tuned": "de", "in_language_tuned": True, "repetitive_tuned": False},
    }


@pytest.mark.parametrize(("lang", "text"), [("pt", "A capital de Portugal é Lisboa."), ("id", "Ibu kota negara itu berada di pulau Jawa.")])
def test_a_short_answer_is_not_lost_because_one_identifier_takes_it_for_a_neighbour(lang: str, text: str) -> None:
    found = look_at(settings(arms=["base"]))({**ROW, "lang": lang, "answer_base": text})
    assert found is not None and found["verdict_base"] == "right"  # type: ignore[index]
    scored = BENCHMARKS["vicuna"].score(Item("1", lang, "", (), answer_lang=lang), Answer(text))
    assert scored is not None and scored["in_language"] == 1
