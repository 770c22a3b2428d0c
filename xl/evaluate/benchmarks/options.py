"""Options behind letters: how a model is shown them, and which one its written answer names.

So do lm-evaluation-harness's `generate_until` tasks ask questions of options: any endpoint can be asked them, also one that gives no
likelihoods of a prompt. A score is not comparable with one by likelihood: a model may know the answer and not keep to the form.
"""

import re
import unicodedata
from collections.abc import Sequence

LETTERS = "ABCD"
INSTRUCTION = "Answer with the letter of the right option alone."

_MARKS = " \t*_`\"'“”„«».。।"
_LEADING_LETTER = re.compile(r"\W*([A-Da-d])(?:\W*$|\s*[).:\]])")
_LETTER_ALONE = re.compile(r"(?<![A-Za-zÀ-ɏ])[A-D](?![A-Za-zÀ-ɏ])")
_ARTICLE = re.compile(r"(?:^|(?<=[.!?] ))A(?= [a-zà-ÿ]{5})")
"""`A` at the beginning of a sentence and before a longer word is a word itself: "A resposta é B", but "A or B"."""


def labelled(options: Sequence[str]) -> tuple[str, ...]:
    """Options as a prompt shows them, such as `B. Venus`."""
    return tuple(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def worded(text: str, options: Sequence[str]) -> str:
    """A question with its options, up to where the letter is wanted."""
    return "\n".join([text, *labelled(options), "Answer:"])


def read_option(text: str, shown: Sequence[str]) -> int | None:
    """Place of the option that a written answer names: `B`, `(B)`, `B. Venus`, `The answer is B`, or the option's own words.

    The first line that names an option counts. None: no line does, or that line names several. `shown` are the options as `labelled`.
    """
    for line in map(_bare, text.split("\n")):
        if named := _named(line, shown):
            return named.pop() if len(named) == 1 else None
    return None


def _named(line: str, shown: Sequence[str]) -> set[int]:
    """Places of the options that a line names."""
    words = [_bare(option.partition(". ")[2]).casefold() for option in shown]
    if line.casefold() in words:
        return {place for place, own in enumerate(words) if own == line.casefold()}
    leading = _LEADING_LETTER.match(line)
    letters = [leading[1].upper()] if leading else _LETTER_ALONE.findall(_ARTICLE.sub("", line))
    return {LETTERS.index(letter) for letter in letters if letter in LETTERS[: len(shown)]}


def _bare(text: str) -> str:
    """A text in one form of its characters, without emphasis, quotation marks and full stops around it."""
    return unicodedata.normalize("NFKC", text).strip(_MARKS)
