"""Language confusion: do all lines, and all words, of an answer stay in the wanted language?

Marchisio et al., "Understanding and Mitigating Language Confusion in LLMs" (arXiv 2406.20052), section 3. Two protocols:

`published` follows the benchmark's own script: an answer passes when every line of at least 5 tokens is identified as the wanted
language with a confidence above 0.3. What differs is said here: fastText's lid.176 is the compressed model; Chinese and Japanese lines
count from 8 characters instead of 5 tokens of jieba or MeCab (over the 2,495 Chinese answers of five models published with the benchmark
this gives a line pass rate of 0.5725 instead of 0.5729; Japanese was not compared); the English words are wordfreq's 30,000 commonest
instead of a Unix word list (the same verdict on at least 99.5 % of those answers in each language); and answers of all sources are pooled.

`ours` judges a line as `xl.evaluate.language` judges an answer: without code, addresses and quotations, from a length in letters in all
languages, and lost only if the identifiers agree; and it looks for English words in every language that is not written in Latin letters.
"""

import functools
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from xl.errors import require
from xl.evaluate.clean import strip_foreign
from xl.evaluate.identify import Identifier, fasttext, py3langid
from xl.evaluate.intervals import proportion_interval
from xl.evaluate.language import MIN_CONFIDENCE, Verdict, check_known, judge_text
from xl.pages.language import SCRIPTS

Protocol = Literal["published", "ours"]

BENCHMARK_LANGUAGES = frozenset({"ar", "de", "en", "es", "fr", "hi", "id", "it", "ja", "ko", "pt", "ru", "tr", "vi", "zh"})

_WORD_LANGUAGES = frozenset({"ar", "hi", "ja", "ko", "ru", "zh"})
_TOKENIZED_LANGUAGES = frozenset({"ja", "zh"})
_MIN_TOKENS = 5
_MIN_CHARS = 8
_NUM_ENGLISH_WORDS = 30_000
_MIN_WORD_CHARS = 4
_PUNCTUATION = str.maketrans({**dict.fromkeys(string.punctuation + "،", ""), "—": " "})
_LATIN_RUN = re.compile("[A-Za-z]+")


@dataclass(frozen=True)
class AnswerCheck:
    """What was found in one answer. Without a line that can be judged (`num_lines` 0) the answer is skipped."""

    num_lines: int
    num_wrong_lines: int
    english_words: tuple[str, ...] | None
    """English words in it; null where they are not looked for: in languages of Latin script."""

    @property
    def passes_lines(self) -> bool:
        """Whether every line that can be judged is in the wanted language, and there is one."""
        return self.num_lines > 0 and self.num_wrong_lines == 0


@dataclass(frozen=True)
class ConfusionScore:
    """Pass rates of one language's answers. A rate is null when nothing counts for it.

    `line_pass_rate` is the share of the answers not skipped in which every line passes, `interval` Wilson's for it at 95 %;
    `word_pass_rate` the share of those that pass without an English word; `language_confusion_pass_rate` the harmonic mean of both.
    """

    num_answers: int
    num_skipped: int
    line_pass_rate: float | None
    interval: tuple[float, float] | None
    word_pass_rate: float | None
    language_confusion_pass_rate: float | None


@dataclass(frozen=True)
class MeanScore:
    """Rates averaged over the languages that have them, each language with the same weight."""

    num_languages: int
    line_pass_rate: float | None
    word_pass_rate: float | None
    language_confusion_pass_rate: float | None


def default_identifiers(protocol: Protocol) -> tuple[Identifier, ...]:
    """fastText alone for the published protocol; for ours py3langid must agree with it."""
    return (fasttext(),) if protocol == "published" else (fasttext(), py3langid())


def check_answer(text: str | None, wanted: str, identifiers: Sequence[Identifier], protocol: Protocol) -> AnswerCheck:
    """Look at an answer's lines and words; with several identifiers, a line is wrong when all of them deny it.

    Raises:
        UserError: none of the identifiers knows the wanted language.
    """
    check_known(wanted, identifiers)
    if protocol == "published":
        return _check_published(text or "", wanted, identifiers)
    lines = strip_foreign(text or "").split("\n")
    verdicts = [judge_text(line, wanted, identifiers).verdict for line in lines]
    num_wrong = verdicts.count(Verdict.WRONG)
    words = None if "Latn" in SCRIPTS.get(wanted, ("Latn",)) else _english(_LATIN_RUN.findall("\n".join(lines)))
    return AnswerCheck(verdicts.count(Verdict.RIGHT) + num_wrong, num_wrong, words)


def _check_published(text: str, wanted: str, identifiers: Sequence[Identifier]) -> AnswerCheck:
    # A base model that was shown examples goes on with the next question, which is not part of its answer.
    text = text.partition("\nQ:")[0].strip().translate(_PUNCTUATION)
    lines = [line for line in text.split("\n") if _is_long_enough(line, wanted)]
    num_wrong = sum(not any(_is_identified(line, wanted, identifier) for identifier in identifiers) for line in lines)
    if wanted not in _WORD_LANGUAGES:
        return AnswerCheck(len(lines), num_wrong, None)
    tokens = [token for line in lines for token in (_LATIN_RUN.findall(line) if wanted in _TOKENIZED_LANGUAGES else line.split())]
    return AnswerCheck(len(lines), num_wrong, _english(tokens))


def _is_long_enough(line: str, wanted: str) -> bool:
    tokens = line.split()
    return len("".join(tokens)) >= _MIN_CHARS if wanted in _TOKENIZED_LANGUAGES else len(tokens) >= _MIN_TOKENS


def _is_identified(line: str, wanted: str, identifier: Identifier) -> bool:
    found, confidence = identifier.identify(line)
    return found == wanted and confidence > MIN_CONFIDENCE


@functools.cache
def _english_words() -> frozenset[str]:
    words = require("wordfreq", "eval").top_n_list("en", _NUM_ENGLISH_WORDS)
    return frozenset(word for word in words if len(word) >= _MIN_WORD_CHARS and word.isalpha())


def _english(tokens: Iterable[str]) -> tuple[str, ...]:
    """The tokens that are English words in small letters: names and abbreviations belong in any language."""
    return tuple(token for token in tokens if token in _english_words())


def confusion_score(checks: Sequence[AnswerCheck]) -> ConfusionScore:
    """The pass rates of one language's answers (section 3 of the paper)."""
    num_judged = sum(check.num_lines > 0 for check in checks)
    passed = [check for check in checks if check.passes_lines]
    worded = [check for check in passed if check.english_words is not None]
    line_rate = len(passed) / num_judged if num_judged else None
    word_rate = sum(not check.english_words for check in worded) / len(worded) if worded else None
    return ConfusionScore(
        num_answers=len(checks),
        num_skipped=len(checks) - num_judged,
        line_pass_rate=line_rate,
        interval=proportion_interval(len(passed), num_judged) if num_judged else None,
        word_pass_rate=word_rate,
        language_confusion_pass_rate=_harmonic_mean(line_rate, word_rate),
    )


def _harmonic_mean(line_rate: float | None, word_rate: float | None) -> float | None:
    if line_rate is None or word_rate is None:
        return None
    return 2 * line_rate * word_rate / (line_rate + word_rate) if line_rate + word_rate else 0.0


def mean_score(scores: Sequence[ConfusionScore]) -> MeanScore:
    """The mean over languages; a rate that a language lacks is left out of that rate's mean alone."""

    def mean(rates: Iterable[float | None]) -> float | None:
        known = [rate for rate in rates if rate is not None]
        return sum(known) / len(known) if known else None

    return MeanScore(
        len(scores),
        mean(s.line_pass_rate for s in scores),
        mean(s.word_pass_rate for s in scores),
        mean(s.language_confusion_pass_rate for s in scores),
    )
