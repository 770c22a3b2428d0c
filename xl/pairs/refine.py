"""XL-Instruct's middle steps (Iyer et al., arXiv 2503.22973): the passage as a draft, refined and scored by four criteria.

The paper's criteria and thresholds are not published; these are ours (METHODS.md §2).
"""

import asyncio
import re
from pathlib import Path

from pydantic import Field

from xl.ask import Ask, AsyncStep, Columns, Completion, Context, Drop, Filter, Prompt, Sampling, clip, unquote_as
from xl.pages.language import probabilities
from xl.pages.repetition import is_repetitive
from xl.pairs.copies import copied_ratio
from xl.pairs.grades import GRADE_SAMPLING, expected_grade
from xl.records import Row
from xl.settings import Strict

PROMPTS = Path(__file__).parent / "prompts"

CRITERIA = {
    "precision": "The answer says specific and correct things, answers what was asked, and holds nothing beside the point.",
    "informativeness": "The answer tells the reader enough to be helped, with the facts and explanations that the request calls for.",
    "naturalness": "The answer reads as one piece of good English prose, written for the person who asked.",
    "objectivity": "The answer is even-handed: no advertising, no unsupported praise, no opinion given as a fact, no personal remarks.",
}
"""What makes a good answer; each is a column of the scored rows."""


class Refine(Strict):
    """How a draft is refined, and which results are kept."""

    max_answer_tokens: int = Field(768, ge=16)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    min_english_probability: float = Field(0.3, ge=0, le=1)
    """Least probability of English, by fastText on the whole answer."""
    min_length_ratio: float = Field(0.3, gt=0)
    """Least length of the answer, in characters of the draft: less has lost what the draft says."""
    max_length_ratio: float = Field(2.0, gt=0)
    max_prompt_ratio: float = Field(0.2, ge=0, le=1)
    """Largest share of the answer's 5-word sequences that come from the prompt's own wording and examples."""


class Score(Strict):
    """Which answers are good enough."""

    min_score: float = Field(3.0, ge=1, le=5)
    """Least mean of the four criteria, each from 1 to 5."""
    min_criterion: float = Field(2.0, ge=1, le=5)
    """Least grade by any one of them."""


def take_draft(max_chars: int) -> Filter:
    """Make the passage's beginning, cut at a sentence, the `draft`, and the `answer` as long as nothing refines it."""

    def step(row: Row) -> Columns:
        draft = clip(row["text"], max_chars).strip()
        return {"draft": draft, "answer": draft}

    return step


def refine_answer(settings: Refine) -> Ask:
    """Ask for a better answer to the `instruction` than the `draft`, by the four criteria; column `answer`."""
    return Ask(
        name="refine",
        prompt=Prompt.load(PROMPTS, "refine"),
        parse=_parse_answer,
        sampling=Sampling(max_tokens=settings.max_answer_tokens, temperature=settings.temperature, top_p=settings.top_p),
    )


_PREAMBLE = re.compile(r"^(?:sure|certainly|of course|here(?:['’]s| is)|improved answer|the improved answer)\b[^\n]{0,80}:\s*\n+", re.I)
_LABEL = re.compile(r"^(?:\*\*)?(?:improved |refined |final )?answer:?(?:\*\*)?:?\s+", re.I)


def _parse_answer(row: Row, completion: Completion) -> Columns | Drop:
    if completion.finish_reason == "length":
        return Drop("unfinished")
    text = _PREAMBLE.sub("", completion.text.strip())
    return {"answer": unquote_as(_LABEL.sub("", text).strip(), f"{row['instruction']} {row['draft']}")}


def keep_refined(settings: Refine) -> Filter:
    """Keep a row whose refined `answer` is one of the right length in English.

    Reasons: `empty`, `not_english`, `copied_prompt`, `length_ratio`, `repetition` (and `unfinished`, from the ask itself). The column
    `draft_ratio` is the share of the draft's 5-word sequences that the answer kept: 1 where nothing was refined.
    """
    prompt = Prompt.load(PROMPTS, "refine")
    wording = f"{prompt.chat}\n{prompt.base}"

    def check(row: Row) -> Columns | Drop:
        answer, draft = row["answer"], row["draft"]
        if not any(map(str.isalpha, answer)):
            return Drop("empty")
        if probabilities(answer).get("en", 0.0) < settings.min_english_probability:
            return Drop("not_english")
        if copied_ratio(answer, wording) > settings.max_prompt_ratio:
            return Drop("copied_prompt")
        if not settings.min_length_ratio <= len(answer) / len(draft) <= settings.max_length_ratio:
            return Drop("length_ratio")
        return Drop("repetition") if is_repetitive(answer) else {"draft_ratio": copied_ratio(draft, answer)}

    return check


def score_prompt() -> Prompt:
    """What is asked about an answer, once for each criterion. The criterion stands last: all four share the engine's cache."""
    return Prompt.load(PROMPTS, "score")


def score_answer() -> AsyncStep:
    """Grade the `answer` by the four criteria at the same time; a column for each (1 to 5) and their mean, `score`.

    A row with a grade that cannot be read is dropped as `score_unreadable`.
    """
    asks = {name: Ask(f"score_{name}", score_prompt(), _parse_grade, GRADE_SAMPLING) for name in CRITERIA}

    async def step(row: Row, context: Context) -> Columns | Drop:
        graded = await asyncio.gather(
            *(ask({**row, "criterion": name, "definition": CRITERIA[name]}, context) for name, ask in asks.items())
        )
        grades: dict[str, float] = {}
        for name, columns in zip(asks, graded, strict=True):
            if isinstance(columns, Drop):
                return columns
            assert columns is not None
            grades[name] = columns["grade"]
        return {**grades, "score": sum(grades.values()) / len(grades)}

    return step


def _parse_grade(row: Row, completion: Completion) -> Columns | Drop:
    grade = expected_grade(completion)
    return Drop("score_unreadable") if grade is None else {"grade": grade}


def keep_score(settings: Score) -> Filter:
    """Keep a row that is good on the whole and bad by no criterion; else drop it as `low_score`."""

    def check(row: Row) -> Drop | None:
        worst = min(row[name] for name in CRITERIA)
        return None if row["score"] >= settings.min_score and worst >= settings.min_criterion else Drop("low_score")

    return check
