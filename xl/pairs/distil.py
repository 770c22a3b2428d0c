"""X-Instruction's second baseline (Li et al., arXiv 2405.19744): a strong teacher answers the English request in the language itself."""

from pydantic import Field

from xl.ask import Ask, Columns, Completion, Drop, Filter, Prompt, Sampling, unquote_as
from xl.pages.language import SIMILAR, probabilities
from xl.pages.repetition import is_repetitive
from xl.pairs.refine import PROMPTS
from xl.records import Row
from xl.settings import Strict


class Distil(Strict):
    """How the teacher answers, and which answers are kept."""

    max_answer_tokens: int = Field(1024, ge=16)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    min_language_probability: float = Field(0.1, ge=0, le=1)
    """Least probability, by fastText on the whole answer, of the language and those easily taken for it."""


def answer_directly(settings: Distil) -> Ask:
    """Ask for an answer to the `request`; column `response`."""
    return Ask(
        name="answer",
        prompt=Prompt.load(PROMPTS, "answer", stop=("\n\n",)),
        parse=_parse_answer,
        sampling=Sampling(max_tokens=settings.max_answer_tokens, temperature=settings.temperature, top_p=settings.top_p),
    )


def _parse_answer(row: Row, completion: Completion) -> Columns | Drop:
    if completion.finish_reason == "length":
        return Drop("unfinished")
    return {"response": unquote_as(completion.text.strip(), row["request"])}


def keep_answer(settings: Distil) -> Filter:
    """Keep a row whose `response` is in its language; reasons: `empty`, `repetition`, `wrong_language` (`unfinished` by the ask itself)."""

    def check(row: Row) -> Drop | None:
        response = row["response"]
        if not any(map(str.isalpha, response)):
            return Drop("empty")
        if is_repetitive(response):
            return Drop("repetition")
        found = probabilities(response)
        own = sum(found.get(code, 0.0) for code in SIMILAR[row["lang"]])
        return Drop("wrong_language") if own < settings.min_language_probability else None

    return check
