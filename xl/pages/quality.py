"""Page filters: text that a person wrote, in the language that it claims, and enough of it; every other page is dropped with a reason.

The reasons are `missing_text`, `broken_encoding`, `too_long`, `mojibake`, `control_characters`, `boilerplate`, `too_short`,
`symbols`, `wrong_script`, `repetition`, `wrong_language` and `mixed_language`.
"""

import hashlib
import re
import unicodedata
from functools import partial

from pydantic import BaseModel, ConfigDict, Field

from xl.ask import Columns, Drop, Filter
from xl.pages.boilerplate import num_substantial_chars, trim_boilerplate
from xl.pages.encoding import is_mojibake
from xl.pages.language import SCRIPTS, SIMILAR, UNSPACED, canonical_language, probabilities
from xl.pages.repetition import repetition_ratio
from xl.pages.scripts import count_characters, density, num_mixed_words, strip_to_letters
from xl.records import Row

_UNREADABLE = re.compile("[\ufffd\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_LINE_BREAK = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")

_MAX_MIXED_WORD_RATIO = 0.05
_SURE_LANGUAGES = frozenset({"ar", "de", "en", "es", "fi", "hi", "hu", "it", "lt", "pt", "th", "tr", "vi", "zh"})
"""Languages of which the identifier knows at least 99 % of human lines (NTREX-128; Arabic and Vietnamese on sample pages)."""
_MIN_OWN_PROBABILITY_SURE = 0.3
_MIN_OWN_PROBABILITY = 0.1
"""Below this a line is suspected to be foreign. Of human lines one in ten is, in Swahili and Maltese, and one in thirty in Irish."""
_MIN_FOREIGN_PROBABILITY = 0.35
"""Outside the sure languages, what the suspects' likeliest language must reach: sound Swahili and Maltese pages stay below 0.3."""
_MIN_EVIDENCE_CHARS = 40
_MIN_EVIDENCE_CHARS_UNSPACED = 15
_CHUNK_CHARS = 240
_DENSE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


class Quality(BaseModel):
    """Thresholds of the page filters. Lengths are in English characters: a Chinese one counts 3.5, a Thai one 1.15."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_chars: int = Field(150, ge=1)
    """Shortest text that is kept, after trimming."""
    max_chars: int = Field(100_000, ge=1)
    """Longest text that is kept, in plain characters of any language."""
    max_unreadable_ratio: float = Field(0.002, ge=0, le=1)
    """Largest share of U+FFFD, the mark of bytes that were no character."""
    max_symbol_ratio: float = Field(0.35, ge=0, le=1)
    """Largest share of punctuation, symbols and digits in what is not white space (the median page has 0.04)."""
    max_repetition_ratio: float = Field(0.25, ge=0, le=1)
    """Largest share of repeated lines, of repeated 5-word sequences (12 characters without spaces) and of the commonest word."""
    min_script_ratio: float = Field(0.4, ge=0, le=1)
    """Least share of letters in a script that the language is written in."""
    min_language_score: float = Field(0.05, ge=0, le=1)
    """Least probability of the declared language and those easily taken for it, on the whole page. Sound Swahili has as little as 0.27."""
    min_line_language_ratio: float = Field(0.75, ge=0, le=1)
    """Least share of the text, by lines that are long enough to tell, that is not in another language."""
    trim_boilerplate: bool = True
    """Cut menus, notices and the like out of the text. Pages that hold nothing else are dropped either way."""


def _language(row: Row) -> str:
    declared = row["lang"] or "und"
    return canonical_language(declared) or str(declared)


def _readable(quality: Quality, row: Row) -> Drop | None:
    if row.get("error"):
        return Drop("broken_encoding")
    text = row["text"]
    if text is None or not text.strip():
        return Drop("missing_text")
    num_unreadable = len(_UNREADABLE.findall(text))
    return Drop("broken_encoding") if num_unreadable > quality.max_unreadable_ratio * len(text) else None


def _not_too_long(quality: Quality, row: Row) -> Drop | None:
    return Drop("too_long") if len(row["text"]) > quality.max_chars else None


def _decoded_right(row: Row) -> Drop | None:
    """Mojibake comes first: UTF-8 read as Latin-1 holds control characters too."""
    if is_mojibake(row["text"], _language(row)):
        return Drop("mojibake")
    return Drop("control_characters") if _CONTROL.search(row["text"]) else None


def _substantial(quality: Quality, row: Row) -> Columns | Drop:
    """The page's own text: composed (NFC), `\\n` for every line break, without its site's lines."""
    lang = _language(row)
    text = unicodedata.normalize("NFC", _LINE_BREAK.sub("\n", row["text"]))
    text = "\n".join(map(str.rstrip, text.split("\n"))).strip()
    trimmed, num_trimmed_lines = trim_boilerplate(text, lang)
    min_chars = quality.min_chars / density(lang)
    num_chars = num_substantial_chars(trimmed, lang)
    if num_chars < min_chars and (len(text) >= min_chars or (num_trimmed_lines and num_chars < len(text) / 2)):
        return Drop("boilerplate")
    if not quality.trim_boilerplate:
        trimmed, num_trimmed_lines = text, 0
    if len(trimmed) < min_chars:
        return Drop("too_short")
    return {"text": trimmed, "num_trimmed_lines": num_trimmed_lines, "num_chars": len(trimmed)}


def _spelt_right(quality: Quality, row: Row) -> Drop | None:
    text, lang = row["text"], _language(row)
    characters = count_characters(text)
    if characters.symbol_ratio(min(2.0, density(lang))) > quality.max_symbol_ratio:
        return Drop("symbols")
    own = sum(characters.letters.get(script, 0) for script in SCRIPTS.get(lang, characters.letters))
    if own < quality.min_script_ratio * characters.num_letters:
        return Drop("wrong_script")
    return Drop("wrong_script") if num_mixed_words(text) > _MAX_MIXED_WORD_RATIO * len(text.split()) else None


def _not_repetitive(quality: Quality, row: Row) -> Drop | None:
    ratio = repetition_ratio(row["text"], spaced=_language(row) not in UNSPACED)
    return Drop("repetition") if ratio > quality.max_repetition_ratio else None


def _chunks(text: str, lang: str) -> list[str]:
    """A text's lines, long ones in pieces, without those that are too short to tell a language by."""
    least = _MIN_EVIDENCE_CHARS_UNSPACED if lang in UNSPACED else _MIN_EVIDENCE_CHARS
    pieces = (line[i : i + _CHUNK_CHARS] for line in text.split("\n") for i in range(0, len(line), _CHUNK_CHARS))
    return [piece for piece in pieces if len(piece) >= least]


def _width(text: str) -> int:
    """Length, with a Chinese, Japanese or Korean character for three."""
    return len(text) + 2 * len(_DENSE.findall(text))


def _own_probability(found: dict[str, float], lang: str) -> float:
    return sum(found.get(code, 0.0) for code in SIMILAR.get(lang, {lang}))


def _is_mixed(text: str, lang: str, min_ratio: float) -> bool:
    """Whether too much of a text is in other languages.

    Lines in which the declared language is unlikely are only suspects, for identifiers miss a tenth of the lines in Swahili or
    Maltese. All suspects together are a longer text, on which the identifier is asked again.
    """
    chunks = _chunks(text, lang)
    if len(chunks) < 2:
        return False
    least = _MIN_OWN_PROBABILITY_SURE if lang in _SURE_LANGUAGES else _MIN_OWN_PROBABILITY
    enough = min_ratio * sum(map(_width, chunks))
    own_width, suspects = 0, []
    for chunk in chunks:
        if _own_probability(probabilities(chunk), lang) < least:
            suspects.append(chunk)
            continue
        own_width += _width(chunk)
        if own_width >= enough:
            return False
    found = probabilities(" ".join(suspects))
    sure = lang in _SURE_LANGUAGES or max(found.values(), default=0.0) >= _MIN_FOREIGN_PROBABILITY
    return sure and _own_probability(found, lang) < least


def _in_language(quality: Quality, row: Row) -> Columns | Drop:
    """A language that the identifier has never seen cannot be checked: its pages pass with a score of 0."""
    text, lang = row["text"], _language(row)
    if lang not in SIMILAR:
        return {"language_score": 0.0}
    found = probabilities(text)
    if _own_probability(found, lang) < quality.min_language_score:
        return Drop("wrong_language")
    if _is_mixed(text, lang, quality.min_line_language_ratio):
        return Drop("mixed_language")
    return {"language_score": min(1.0, found.get(lang, 0.0))}


def text_hash(text: str) -> str:
    """128-bit BLAKE2b, in hexadecimal, of a text without its case, white space and punctuation: equal for exact duplicates."""
    letters = strip_to_letters(unicodedata.normalize("NFC", text.casefold()))
    return hashlib.blake2b(letters.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _hashed(row: Row) -> Columns:
    return {"text_hash": text_hash(row["text"])}


def page_filters(quality: Quality) -> tuple[Filter, ...]:
    """All page filters, cheap ones first.

    A page that passes gets its trimmed `text` and `num_trimmed_lines`, `num_chars` (int), `language_score` (probability of the
    declared language on the whole page; 0 where the identifier does not know the language) and `text_hash` (32 hexadecimal digits).
    """
    return (
        partial(_readable, quality),
        partial(_not_too_long, quality),
        _decoded_right,
        partial(_substantial, quality),
        partial(_spelt_right, quality),
        partial(_not_repetitive, quality),
        partial(_in_language, quality),
        _hashed,
    )
