"""What a text's characters are: letters by script, digits, punctuation, symbols; and how much a character says."""

import functools
import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Scripts (ISO 15924) by the first word of their letters' Unicode names.
_NAMES = {
    "LATIN": "Latn",
    "FULLWIDTH": "Latn",
    "CYRILLIC": "Cyrl",
    "GREEK": "Grek",
    "ARABIC": "Arab",
    "HEBREW": "Hebr",
    "DEVANAGARI": "Deva",
    "BENGALI": "Beng",
    "GURMUKHI": "Guru",
    "GUJARATI": "Gujr",
    "ORIYA": "Orya",
    "TAMIL": "Taml",
    "TELUGU": "Telu",
    "KANNADA": "Knda",
    "MALAYALAM": "Mlym",
    "SINHALA": "Sinh",
    "THAI": "Thai",
    "LAO": "Laoo",
    "TIBETAN": "Tibt",
    "MYANMAR": "Mymr",
    "KHMER": "Khmr",
    "GEORGIAN": "Geor",
    "ARMENIAN": "Armn",
    "ETHIOPIC": "Ethi",
    "THAANA": "Thaa",
    "MONGOLIAN": "Mong",
    "JAVANESE": "Java",
    "HIRAGANA": "Hira",
    "KATAKANA": "Kana",
    "HALFWIDTH": "Kana",
    "HANGUL": "Hang",
    "CJK": "Hani",
}
_SCRIPTS = ("Zyyy", *dict.fromkeys(_NAMES.values()))  # Zyyy: letters and marks of no one script, and rare scripts
_SPACE, _IGNORED, _PUNCTUATION, _SYMBOL, _DIGIT, _LETTER = range(6)
_NUM_CLASSES = _LETTER + len(_SCRIPTS)
_UNSPACED = [_LETTER + _SCRIPTS.index(script) for script in ("Thai", "Laoo", "Tibt", "Mymr", "Khmr", "Hira", "Kana", "Hani")]
_TABLE_SIZE = 0x20000  # beyond lie rare Chinese characters only, and private use

_CLASS_OF_CATEGORY = {"Z": _SPACE, "C": _IGNORED, "P": _PUNCTUATION, "S": _SYMBOL, "N": _DIGIT}

_SCRIPTS_MIXED_IN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f][\u0370-\u03ff\u0400-\u04ff]|[\u0370-\u03ff\u0400-\u04ff][A-Za-z\u00c0-\u024f]")

# How much longer an English text is than its translation, in characters (measured on the Universal Declaration of Human Rights).
_DENSITY = {"zh": 3.5, "wuu": 3.5, "yue": 3.5, "ja": 2.5, "ko": 2.2, "am": 1.9, "he": 1.4, "yi": 1.4, "ar": 1.4, "arz": 1.4, "th": 1.15}


@dataclass(frozen=True)
class Characters:
    """Numbers of characters by kind. `letters` counts letters and marks by ISO 15924 script; format characters count nowhere."""

    num_spaces: int
    num_symbols: int
    num_digits: int
    letters: dict[str, int]

    @property
    def num_letters(self) -> int:
        """Letters and marks of all scripts."""
        return sum(self.letters.values())

    def symbol_ratio(self, letter_density: float) -> float:
        """Share of punctuation, symbols and digits in what is not white space, a letter counting as `letter_density` English ones."""
        num_others = self.num_symbols + self.num_digits
        return num_others / max(1.0, num_others + letter_density * self.num_letters)


@functools.cache
def _classes() -> npt.NDArray[np.uint8]:
    numbers = {word: _LETTER + _SCRIPTS.index(script) for word, script in _NAMES.items()}
    table = np.empty(_TABLE_SIZE + 1, np.uint8)
    for code in range(_TABLE_SIZE):
        character = chr(code)
        category = unicodedata.category(character)
        if category[0] in "LM":
            word = unicodedata.name(character, "").split(" ", 1)[0].split("-", 1)[0]
            table[code] = numbers.get(word, _LETTER)
        else:
            table[code] = _SPACE if character.isspace() else _CLASS_OF_CATEGORY[category[0]]
    table[_TABLE_SIZE] = numbers["CJK"]
    return table


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _classify(points: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    classes: npt.NDArray[np.uint8] = _classes()[np.minimum(points, _TABLE_SIZE)]
    return classes


def count_characters(text: str) -> Characters:
    """Count a text's characters by kind and script."""
    counts = np.bincount(_classify(_code_points(text)), minlength=_NUM_CLASSES).tolist()
    letters = {script: count for script, count in zip(_SCRIPTS, counts[_LETTER:], strict=True) if count}
    return Characters(counts[_SPACE], counts[_PUNCTUATION] + counts[_SYMBOL], counts[_DIGIT], letters)


def script_of(character: str) -> str | None:
    """ISO 15924 script of a letter or mark ("Zyyy" for none in particular); None for any other character."""
    number = int(_classify(_code_points(character))[0]) - _LETTER
    return _SCRIPTS[number] if number >= 0 else None


def strip_to_letters(text: str) -> str:
    """A text without white space, punctuation, control and format characters; symbols and digits stay."""
    points = _code_points(text)
    return points[_classify(points) >= _SYMBOL].tobytes().decode("utf-32-le", "surrogatepass")


def words(text: str) -> list[str]:
    """A text's runs of letters, marks, digits and symbols, parted by white space and punctuation; without control and format characters.

    A script without spaces between words gives whole phrases.
    """
    points = _code_points(text)
    classes = _classify(points)
    points = np.where((classes == _SPACE) | (classes == _PUNCTUATION), np.uint32(ord(" ")), points)[classes != _IGNORED]
    spaced: str = points.tobytes().decode("utf-32-le", "surrogatepass")
    return spaced.split()


def folded_words(text: str) -> list[str]:
    """`words` without differences of case and of compatibility forms (NFKC): what two texts say alike is equal."""
    return words(unicodedata.normalize("NFKC", text).casefold())


def folded(text: str) -> str:
    """The same as one text."""
    return " ".join(folded_words(text))


def is_unspaced(text: str) -> npt.NDArray[np.bool_]:
    """For each character whether it is a letter or mark of a script that puts no spaces between words."""
    return np.isin(_classify(_code_points(text)), _UNSPACED)


def num_mixed_words(text: str) -> int:
    """Places where a Latin letter stands next to a Cyrillic or Greek one inside a word: the trace of look-alike letters."""
    return len(_SCRIPTS_MIXED_IN_WORD.findall(text))


def density(lang: str) -> float:
    """How many English characters one character of a language is worth: a Chinese one 3.5, a German one 1."""
    return _DENSITY.get(lang, 1.0)
