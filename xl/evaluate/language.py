"""Is the answer in the language that was asked for? An answer in another one is a failure, and is counted as such.

Identifiers err, most of all on short texts in small languages. So an answer is lost only when all identifiers deny it the wanted
language, or one does and its script does too; and `human_recall` measures, on text that people wrote, what the measure can reach at best.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from xl.errors import UserError
from xl.evaluate.clean import strip_foreign
from xl.evaluate.identify import Identifier
from xl.evaluate.intervals import proportion_interval
from xl.pages.language import SCRIPTS
from xl.pages.scripts import Characters, count_characters, density

MIN_CONFIDENCE = 0.3
"""An identifier that is no surer than this cannot tell (arXiv 2406.20052 takes the same for fastText)."""

MIN_LETTERS = 20
"""Shortest text that is judged, in English letters: a Chinese one counts 3.5. py3langid is right on 0.97 of those that it can tell."""

VARIETIES: dict[str, frozenset[str]] = {
    "ar": frozenset({"arz", "ary"}),
    "no": frozenset({"nn"}),
    "zh": frozenset({"wuu", "yue"}),
}
"""Languages that count as the wanted one, their macrolanguage in ISO 639-3. py3langid takes a Chinese sentence in twenty for Wu."""

DISPUTED = "und"
"""Stands for the language of a lost answer on which the identifiers do not agree."""


class Verdict(StrEnum):
    """What an answer's language turned out to be. Skipped answers could not be judged."""

    RIGHT = "right"
    WRONG = "wrong"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Decision:
    """The verdict on one answer: `language` is the one it is in (null when skipped), `reason` is why it was skipped."""

    verdict: Verdict
    language: str | None = None
    reason: str | None = None


def answer_language(text: str | None, wanted: str, identifiers: Sequence[Identifier]) -> Decision:
    """Judge whether an answer is in the wanted language; with one identifier, that one decides alone.

    Reasons to skip are `empty` (no letters), `too_short` and `undecided`: no identifier can tell, or one cannot and the others deny
    the wanted language without the script's support.

    Raises:
        UserError: none of the identifiers knows the wanted language.
    """
    check_known(wanted, identifiers)
    return judge_text(strip_foreign(text or ""), wanted, identifiers)


def check_known(wanted: str, identifiers: Sequence[Identifier]) -> None:
    """Raises UserError when none of the identifiers knows the language: its answers would all be lost."""
    if not any(identifier.knows(wanted) for identifier in identifiers):
        names = " or ".join(identifier.name for identifier in identifiers)
        raise UserError(f"answers in {wanted!r} cannot be judged: not a language that {names} knows")


def judge_text(text: str, wanted: str, identifiers: Sequence[Identifier]) -> Decision:
    """The same for a text, or a line of one, that `strip_foreign` has been over.

    An identifier that does not know the wanted language cannot deny it: with one such of two, the script must be a foreign one as well.
    """
    characters = count_characters(text)
    if not characters.num_letters:
        return Decision(Verdict.SKIPPED, reason="empty")
    if characters.num_letters * density(wanted) < MIN_LETTERS:
        return Decision(Verdict.SKIPPED, reason="too_short")
    found = [identifier.identify(text) for identifier in identifiers]
    named = [lang if confidence > MIN_CONFIDENCE else None for lang, confidence in found]
    if any(is_language(lang, wanted) for lang in named):
        return Decision(Verdict.RIGHT, wanted)
    denials = [lang for lang, asked in zip(named, identifiers, strict=True) if lang is not None and asked.knows(wanted)]
    if len(denials) == len(identifiers) or (denials and _is_foreign_script(characters, wanted)):
        return Decision(Verdict.WRONG, denials[0] if len(set(denials)) == 1 else DISPUTED)
    return Decision(Verdict.SKIPPED, reason="undecided")


def is_language(found: str | None, wanted: str) -> bool:
    """Whether an identified language is the wanted one or a variety of it."""
    return found == wanted or found in VARIETIES.get(wanted, ())


def _is_foreign_script(characters: Characters, wanted: str) -> bool:
    """Whether most letters are of scripts that the language is not written in. The project knows no script of a few languages."""
    own = SCRIPTS.get(wanted)
    return own is not None and 2 * sum(characters.letters.get(script, 0) for script in own) < characters.num_letters


@dataclass(frozen=True)
class LanguageScore:
    """How many answers were in the wanted language. `interval` is one for `accuracy` at 95 %, Wilson's unless somebody
    who knows of clusters puts another one in its place; both are null without answers."""

    num_answers: int
    num_right: int
    num_wrong: int
    num_skipped: int
    accuracy: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class LanguageReport:
    """Scores per wanted language and over all answers.

    `confusion[wanted][language]` counts answers by the language they were in; `und` are lost ones on which the identifiers do not
    agree. Skipped ones are in no column. `human_recall` is the same accuracy on text that people wrote, where it was measured.
    """

    languages: dict[str, LanguageScore]
    overall: LanguageScore
    confusion: dict[str, dict[str, int]]
    human_recall: dict[str, float]


def language_report(
    decisions: Iterable[tuple[str, Decision]],
    skips_are_misses: bool = True,
    human_recall: Mapping[str, float] | None = None,
) -> LanguageReport:
    """Count decisions, given as (wanted language, decision).

    With `skips_are_misses` accuracy is right / all answers; else skipped answers are left out of it, and an empty answer costs nothing.
    """
    verdicts: dict[str, Counter[Verdict]] = {}
    confusion: dict[str, Counter[str]] = {}
    for wanted, decision in decisions:
        verdicts.setdefault(wanted, Counter())[decision.verdict] += 1
        row = confusion.setdefault(wanted, Counter())
        if decision.language is not None:
            row[decision.language] += 1
    languages = sorted(verdicts)
    return LanguageReport(
        {lang: _score(verdicts[lang], skips_are_misses) for lang in languages},
        _score(sum(verdicts.values(), Counter()), skips_are_misses),
        {lang: dict(confusion[lang].most_common()) for lang in languages},
        dict(human_recall or {}),
    )


def _score(verdicts: Counter[Verdict], skips_are_misses: bool) -> LanguageScore:
    right, wrong, skipped = (verdicts[verdict] for verdict in (Verdict.RIGHT, Verdict.WRONG, Verdict.SKIPPED))
    num_judged = right + wrong + (skipped if skips_are_misses else 0)
    accuracy = right / num_judged if num_judged else None
    return LanguageScore(
        right + wrong + skipped, right, wrong, skipped, accuracy, proportion_interval(right, num_judged) if num_judged else None
    )


def human_recall(texts: Mapping[str, Sequence[str]], identifiers: Sequence[Identifier], max_chars: int | None = None) -> dict[str, float]:
    """Per language, the share of human texts that the measure finds to be in it, skips counted as misses: the ceiling for answers.

    `max_chars` cuts the texts to the length of the answers that the recall stands beside: identifiers know long texts better.
    """
    decisions = [(lang, answer_language(text[:max_chars], lang, identifiers)) for lang, every in texts.items() for text in every]
    scores = language_report(decisions).languages
    return {lang: score.accuracy for lang, score in scores.items() if score.accuracy is not None}
