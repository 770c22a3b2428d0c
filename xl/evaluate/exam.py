"""The examination of a judge: can it tell a sound answer from the same one with a planted error?

A judge that cannot is not believed, and no win rate of its is printed. The questions, their answers and the negated answers are ours
(`exam.jsonl`); the other errors are made of them here. In half of the questions the sound answer is the longer one, in half the negated
one, so that a judge of length alone fails.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from xl.evaluate.intervals import Interval, proportion_interval
from xl.evaluate.judge import verdicts_of
from xl.evaluate.winrate import TIE, Orders, Pair, orders_of, pair_up
from xl.pages.language import LANGUAGE_NAMES
from xl.records import Row, row_id
from xl.train.prompts import request

ERRORS = ("truncated", "off_topic", "negated", "wrong_language")
"""What is planted: the answer stops in mid-sentence, answers another question, says the opposite, or is in English."""

_QUESTIONS = Path(__file__).parent / "exam.jsonl"
_KEPT_RATIO = 0.4
"""Share of its characters that a truncated answer keeps."""


@dataclass(frozen=True)
class _Question:
    """A line of `exam.jsonl`. `answer_en` says in English what `answer` says in `lang`; `negated` says its opposite in `lang`."""

    key: str
    lang: str
    instruction: str
    answer: str
    negated: str
    answer_en: str

    @property
    def truncated(self) -> str:
        return self.answer[: round(_KEPT_RATIO * len(self.answer))]


def exam_rows() -> list[Row]:
    """The examination: one row for each question and planted error, for `judge_pair(settings, "sound", "planted")`.

    Columns: `id`, `lang`, `language`, `prompt` (the question's key), `instruction`, `request`, `answer_sound`, `answer_planted`,
    `error` (one of `ERRORS`). The request names the language, so that also a judge whose prompt does not can tell which is wanted.
    """
    questions = [_Question(**json.loads(line)) for line in _QUESTIONS.read_text("utf-8").splitlines()]
    rows = []
    for place, question in enumerate(questions):
        language = LANGUAGE_NAMES[question.lang]
        planted = {
            "truncated": question.truncated,
            "off_topic": _next_question(questions, place).answer,
            "negated": question.negated,
            "wrong_language": question.answer_en,
        }
        rows += [
            {
                "id": row_id("exam", f"{question.key} {error}", 0),
                "lang": question.lang,
                "language": language,
                "prompt": question.key,
                "instruction": question.instruction,
                "request": request(question.instruction, language),
                "answer_sound": question.answer,
                "answer_planted": planted[error],
                "error": error,
            }
            for error in ERRORS
        ]
    return rows


def _next_question(questions: list[_Question], place: int) -> _Question:
    """The next question in the same language, after the last one the first."""
    lang = questions[place].lang
    return next(other for other in questions[place + 1 :] + questions[:place] if other.lang == lang)


@dataclass(frozen=True)
class PlantedError:
    """How a judge fared with one error. A pair is seen through when the sound answer wins in the mean of both orders."""

    error: str
    num_seen_through: int
    num_pairs: int
    num_invalid_pairs: int
    """Pairs that lack a valid verdict in some order: they are not seen through."""
    interval: Interval
    """Wilson's at 95 %, for the share of pairs seen through."""

    @property
    def is_seen_through(self) -> bool:
        """Whether the judge is better than a coin, beyond chance."""
        return self.interval.low > TIE


@dataclass(frozen=True)
class Examined:
    """What the examination says of a judge; `why` is what it failed in, in one line, and None if it passed."""

    errors: tuple[PlantedError, ...]
    orders: Orders | None
    why: str | None

    @property
    def passed(self) -> bool:
        """Whether its win rates may be printed."""
        return self.why is None


def examine(rows: Iterable[Row], seed: int) -> Examined:
    """Mark a judge by the rows of `exam_rows` after its step; `seed` is that of the intervals' draws for the orders.

    It passes if it sees through every planted error more often than a coin would, beyond chance, and is not position-biased. That holds
    for `wrong_language` too, although a judge of the kind `ab` is not told to mind it: one that fails there takes a good English
    answer for a good Swahili one although the request asks for Swahili, and its win rate would reward what the project is there to mend.

    Raises:
        MissingExtra: scipy is not installed.
    """
    by_error: dict[str, list[Row]] = {error: [] for error in ERRORS}
    for row in rows:
        by_error[row["error"]].append(row)
    pairs = {error: pair_up(verdicts_of(some, "sound", "planted")) for error, some in by_error.items()}
    errors = tuple(_mark(error, some) for error, some in pairs.items())
    orders = orders_of([pair for some in pairs.values() for pair in some], seed)
    return Examined(errors, orders, _why_failed(errors, orders))


def _mark(error: str, pairs: list[Pair]) -> PlantedError:
    valid = [scores for pair in pairs if (scores := pair.valid_scores) is not None]
    num_seen_through = sum(sum(scores) / len(scores) > TIE for scores in valid)
    interval = proportion_interval(num_seen_through, len(pairs)) if pairs else Interval(0.0, 1.0)
    return PlantedError(error, num_seen_through, len(pairs), len(pairs) - len(valid), interval)


def _why_failed(errors: Iterable[PlantedError], orders: Orders | None) -> str | None:
    reasons = [_describe(error) for error in errors if not error.is_seen_through]
    if orders and orders.is_position_biased:
        reasons.append(f"position-biased, {orders.first_preferred.value:.0%} of verdicts for the first answer")
    return "; ".join(reasons) or None


def _describe(error: PlantedError) -> str:
    invalid = f", {error.num_invalid_pairs} without a valid verdict" if error.num_invalid_pairs else ""
    low, high = error.interval
    name = error.error.replace("_", " ")
    return f"{name}: {error.num_seen_through} of {error.num_pairs} seen through [{low:.2f}, {high:.2f}]{invalid}"
