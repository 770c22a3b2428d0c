"""Judges: a model says which of two answers is better, or marks one by a rubric.

Both orders of every pair are asked for. A verdict that cannot be read is invalid, which is never a loss; `xl.evaluate.winrate` counts
it. Before a judge is believed it must pass the examination of `xl.evaluate.exam`.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xl.ask import Ask, AsyncStep, Columns, Completion, Context, Drop, Prompt, Sampling, clip
from xl.evaluate.winrate import TIE, Verdict
from xl.records import Row
from xl.settings import Strict, semantic

CRITERIA = ("precision", "informativeness", "naturalness", "objectivity")
"""What the rubric judge marks, each from 1 to 5: XL-Instruct's criteria (arXiv 2503.22973) as far as they are known."""

ORDERS = {"first": True, "second": False}
"""Where the model's answer stood: the ends of the columns' names, and whether it came first."""

_PROMPTS = Path(__file__).parent / "templates"
_CUT = " [cut for length]"
_NUM_LOGPROBS = 10
_LETTER_TOKENS = 4
"""One would do where the engine offers only the letters; elsewhere "A good answer …" must not be taken for a verdict."""
_RUBRIC_TOKENS = 128


class Judging(Strict):
    """How answers are judged. The judge is always asked at temperature 0."""

    kind: Literal["ab", "scores"] = "ab"
    """`ab`: which answer is better, weighted by the probabilities of the two letters, as AlpacaEval 2 does; the prompt never mentions
    language beyond what the request itself says. `scores`: X-Instruction's two marks from 0 to 10, for a reader of one language; the
    answer whose marks have the greater sum over both orders wins."""
    rubric: bool = False
    """Whether each answer is also marked from 1 to 5 for precision, informativeness, naturalness and objectivity."""
    max_answer_chars: int | None = Field(2000, ge=100)
    """The judge sees so much of an answer, and is told when that is not all; null shows it everything."""
    max_tokens: int = Field(32, ge=8)
    """Room for the two marks of `scores`."""


def pair_prompt(settings: Judging) -> Prompt:
    """The prompt that compares two answers. It belongs to what a stage of verdicts depends on."""
    return Prompt.load(_PROMPTS, f"judge_{settings.kind}")


def pair_settings(judging: Judging) -> dict[str, Any]:
    """What a pairwise verdict depends on, beside the model and the answers."""
    settings = semantic(judging)
    del settings["rubric"]
    return {"judge": settings, "prompts": pair_prompt(judging).wordings}


def rubric_prompt() -> Prompt:
    """The prompt that marks one answer."""
    return Prompt.load(_PROMPTS, "rubric")


def judge_pair(settings: Judging, model: str, reference: str) -> tuple[AsyncStep, pa.Schema]:
    """Ask in both orders whether the answer of one arm or that of another is better; returns the step and the columns that it sets.

    The answers are the columns `answer_<model>` and `answer_<reference>`; the name `reference` stands for the column `reference`, the
    prompt set's own answer. Columns, for `first` and `second`, the place of the model's answer:

    - `preference_<model>_<reference>_<place>`: for the model's answer in [0, 1], null when the verdict is invalid;
    - `verdict_<model>_<reference>_<place>`: what the judge said, null when it was not asked.

    Two answers that are the same are a tie without asking. A row without one of them is dropped as `missing_answer`.

    With `ab` the preference is the probability of the answer's letter among the two letters, as in AlpacaEval 2 (Dubois et al., arXiv
    2404.04475, section 2), or the letter itself where the engine gives no log-probabilities. Its prompt does not mention language, since
    AlpacaEval's does not: that an answer in another language is a bad one, the judge must gather from the request. With `scores` it is
    `0.5 + (mark - other mark) / 20` (X-Instruction, arXiv 2405.19744, marks both orders alike).
    """
    columns = [(f"preference_{model}_{reference}_{place}", pa.float64()) for place in ORDERS]
    schema = pa.schema(columns + [(f"verdict_{model}_{reference}_{place}", pa.string()) for place in ORDERS])
    asks = {place: _ask_for_verdict(settings, model, reference, place) for place in ORDERS}

    async def step(row: Row, context: Context) -> Columns | Drop:
        own, other = row[_answer_column(model)], row[_answer_column(reference)]
        if own is None or other is None:
            return Drop("missing_answer")
        if _is_identical(own, other):
            return {name: TIE if name.startswith("preference_") else None for name in schema.names}
        own, other = _shown(own, settings), _shown(other, settings)
        views = {"first": {**row, "first": own, "second": other}, "second": {**row, "first": other, "second": own}}
        verdicts = await asyncio.gather(*(ask(views[place], context) for place, ask in asks.items()))
        return _merged(verdicts)

    return step, schema


def _ask_for_verdict(settings: Judging, model: str, reference: str, place: str) -> Ask:
    """One order of a pair, seeded by its own name. The row shows the answers as `first` and `second`."""
    name = f"{model}_{reference}_{place}"
    read: Callable[[Completion], float | None]
    if settings.kind == "ab":
        read, sampling = _read_letter, Sampling(max_tokens=_LETTER_TOKENS, choices=("A", "B"), num_logprobs=_NUM_LOGPROBS)
    else:
        read, sampling = _read_marks, Sampling(max_tokens=settings.max_tokens)

    def parse(row: Row, completion: Completion) -> Columns:
        for_first = read(completion)
        preference = for_first if for_first is None or ORDERS[place] else 1 - for_first
        return {f"preference_{name}": preference, f"verdict_{name}": completion.text}

    return Ask(f"judge_{name}", pair_prompt(settings), parse, sampling)


_LETTER = re.compile(r"\s*([AB])[\s.:)]*")


def _read_letter(completion: Completion) -> float | None:
    """Preference for the answer shown first; None unless the judge said one of the two letters and nothing else."""
    found = _LETTER.fullmatch(completion.text)
    if not found:
        return None
    shares = completion.shares(("A", "B"))
    return shares["A"] if shares else float(found[1] == "A")


_MARKS = re.compile(
    r"""\s*
    (?:(?:Answer\ )?A\W{1,3})?  (\d{1,2})(?:\ ?/\ ?10)?  (?![.,/]?\d)
    [\s,;|]+
    (?:(?:Answer\ )?B\W{1,3})?  (\d{1,2})(?:\ ?/\ ?10)?  (?![.,/]?\d)(?![ \t]*[,;|]?[ \t]*\d)
    """,
    re.VERBOSE,
)
"""Two marks, perhaps labelled, perhaps "of ten". A third number on the line, or a decimal, makes them unreadable."""


def _read_marks(completion: Completion) -> float | None:
    """Preference for the answer shown first; None unless the judge began with two integers from 0 to 10, or was cut off in one."""
    found = _MARKS.match(completion.text)
    if not found or (completion.finish_reason == "length" and found.end() == len(completion.text)):
        return None
    first, second = int(found[1]), int(found[2])
    return 0.5 + (first - second) / 20 if max(first, second) <= 10 else None


Mark = Annotated[int, Field(ge=1, le=5)]


class _Marks(BaseModel):
    """What the rubric judge answers."""

    model_config = ConfigDict(extra="forbid", strict=True)

    precision: Mark
    informativeness: Mark
    naturalness: Mark
    objectivity: Mark


def rate_answer(settings: Judging, arm: str) -> tuple[AsyncStep, pa.Schema]:
    """Ask for the marks of one arm's answer, a row at a time; returns the step and the columns that it sets.

    Columns: `<criterion>_<arm>`, an integer from 1 to 5 for each of `CRITERIA`, all null when the marks are invalid, and `rubric_<arm>`,
    what the judge said. A row without an answer is dropped as `missing_answer`.
    """
    column = _answer_column(arm)

    def parse(row: Row, completion: Completion) -> Columns:
        marks = _read_rubric(completion.text)
        return {f"rubric_{arm}": completion.text} | {f"{name}_{arm}": marks.get(name) for name in CRITERIA}

    ask = Ask(f"rubric_{arm}", rubric_prompt(), parse, Sampling(max_tokens=_RUBRIC_TOKENS, json_schema=_Marks.model_json_schema()))

    async def step(row: Row, context: Context) -> Columns | Drop | None:
        if row[column] is None:
            return Drop("missing_answer")
        return await ask({**row, "answer": _shown(row[column], settings)}, context)

    return step, pa.schema([*((f"{name}_{arm}", pa.int64()) for name in CRITERIA), (f"rubric_{arm}", pa.string())])


def _read_rubric(text: str) -> Mapping[str, int]:
    """The marks in the JSON object of a text; none at all if one is missing, no integer or out of range."""
    start, end = text.find("{"), text.rfind("}") + 1
    try:
        return dict(_Marks.model_validate_json(text[start:end] if start >= 0 else ""))
    except ValidationError:
        return {}


def verdicts_of(rows: Iterable[Row], model: str, reference: str, kind: str = "ab") -> list[Verdict]:
    """The verdicts of finished rows, two a row, for `xl.evaluate.winrate`; `kind` is how the judge was asked.

    Whether an answer is in the wanted language is read from `in_language_<arm>`; where that is null or missing the answer was skipped or
    not checked, and counts as in language.
    """
    verdicts = []
    for row in rows:
        own, other = row[_answer_column(model)], row[_answer_column(reference)]
        verdicts += [
            Verdict(
                prompt=row["prompt"],
                lang=row["lang"],
                model_first=model_first,
                preference=row[f"preference_{model}_{reference}_{place}"],
                model_num_chars=len(own),
                reference_num_chars=len(other),
                model_in_language=row.get(f"in_language_{model}") is not False,
                reference_in_language=row.get(f"in_language_{reference}") is not False,
                is_identical=_is_identical(own, other),
                is_marked=kind == "scores",
            )
            for place, model_first in ORDERS.items()
        ]
    return verdicts


def _answer_column(arm: str) -> str:
    return "reference" if arm == "reference" else f"answer_{arm}"


def _is_identical(answer: str, other: str) -> bool:
    return answer.strip() == other.strip()


def _shown(answer: str, settings: Judging) -> str:
    """As much of an answer as the judge sees."""
    most = settings.max_answer_chars
    return answer if most is None or len(answer) <= most else clip(answer, most) + _CUT


def _merged(parts: Iterable[Columns | Drop | None]) -> Columns:
    columns: dict[str, object] = {}
    for part in parts:
        assert isinstance(part, Mapping), "a verdict that cannot be read is invalid, not dropped"
        columns.update(part)
    return columns
