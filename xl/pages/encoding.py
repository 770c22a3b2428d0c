"""Text that was decoded wrongly: UTF-8 read as something else, one 8-bit code page read as another, glyph codes of old fonts."""

import functools
import re

from xl.pages.language import SCRIPTS
from xl.pages.scripts import count_characters, script_of

# Code pages that UTF-8 is mistaken for. Latin-1 needs no entry of its own: where cp1252 has holes, we fall back to it.
_CODE_PAGES = ("cp1252", "cp1250", "cp1251", "mac_roman")

# Letters that a language does not use, but that stand for its own ones when its code page is read as cp1252
# (Turkish ISO 8859-9, Central European cp1250, Baltic cp1257, Romanian ISO 8859-2/16, Maltese ISO 8859-3, Vietnamese VNI).
_ALIEN_LETTERS = {
    "az": "ýþðÝÞÐ",
    "cs": "ìøùÌØÙ",
    "hr": "èæðÈÆÐ",
    "hu": "õûÕÛ",
    "lt": "ëðøþ",
    "lv": "âïðòþ",
    "mt": "õ±¡Õ",
    "pl": "¹ê¿³œŸ",
    "ro": "ãºþªÞÃ",
    "sl": "èæðÈÆÐ",
    "tr": "ýþðÝÞÐ",
    "vi": "ñøûïÑØÛÏ",
}

_LOST_LETTER = re.compile(r"[^\W\d_]\?[^\W\d_]")  # "T?rk?e": the code page had no such letter
_SYMBOL_AS_LETTER = re.compile(r"(?<=[^\W\d_])[¢£¤¥¦§¨©¬®¯±²³´µ¶¸¹¼½¾](?=[^\W\d_])|\b[µ®©](?=[a-z])")  # Vietnamese TCVN3: "l¹i"
_HIGH_LATIN = re.compile("[À-ÿ]")
# Glyph codes of Indic fonts are full of capitals and marks inside words: "fgUnh Hkk\"kk", "jkpo; ehL".
_GLYPH_CODE = re.compile(r"[a-z][A-Z]|[A-Za-z][;:\"~\[\]{}|\\^$%&*+=<>@#`¡-¿×÷]+[A-Za-z]|[A-Za-z];(?=\s)|(?<=\s)[;\[{|}\"'.]+[A-Za-z]")

_COMMON_MARKS = frozenset("\u00a0¡£§©«®°·»¿€")

_MIN_SEQUENCES = 4
_MIN_SEQUENCE_RATIO = 0.003
_MIN_ALIEN_LETTERS = 2  # different ones
_MIN_ALIEN_RATIO = 0.005
_MIN_LOST_RATIO = 0.03
_MIN_HIGH_LATIN_RATIO = 0.25
_MIN_GLYPH_CODES = 8
_MIN_GLYPH_CODE_RATIO = 0.25


def _byte_as_read(byte: int, code_page: str) -> str:
    try:
        return bytes([byte]).decode(code_page)
    except UnicodeDecodeError:
        return chr(byte)


@functools.cache
def _misreadings(code_page: str) -> tuple[re.Pattern[str], dict[str, int]]:
    """A pattern for UTF-8 sequences of two to four bytes that were read in a code page, and the byte behind each character."""
    bytes_by_character = {_byte_as_read(byte, code_page): byte for byte in range(0x80, 0xF5)}
    if code_page == "cp1252":
        bytes_by_character.update({chr(byte): byte for byte in range(0x80, 0xC0)})

    def any_of(first: int, last: int) -> str:
        return "[" + "".join(re.escape(c) for c, byte in bytes_by_character.items() if first <= byte <= last) + "]"

    tail = any_of(0x80, 0xBF)
    pattern = f"{any_of(0xC2, 0xDF)}{tail}|{any_of(0xE0, 0xEF)}{tail}{{2}}|{any_of(0xF0, 0xF4)}{tail}{{3}}"
    return re.compile(pattern), bytes_by_character


@functools.lru_cache(maxsize=65536)
def _meaning(sequence: str, code_page: str) -> str | None:
    """The character whose UTF-8 bytes a misread sequence is."""
    bytes_by_character = _misreadings(code_page)[1]
    try:
        return bytes(bytes_by_character[c] for c in sequence).decode("utf-8")
    except UnicodeDecodeError:
        return None


def _plausible(character: str | None, scripts: frozenset[str]) -> bool:
    """Whether a language's text may hold the character: a letter of its own, typographic punctuation, or half of a double misreading."""
    if character is None:
        return False
    if "\u00c0" <= character <= "\u00ff" or "\u2010" <= character <= "\u203a" or character in _COMMON_MARKS:
        return True
    return script_of(character) in scripts


def _is_misread_utf8(text: str, scripts: frozenset[str]) -> bool:
    """Only sequences that would decode to characters of the page's language count: in French `é`, a hard space and `»` is no misreading."""
    for code_page in _CODE_PAGES:
        found = _misreadings(code_page)[0].findall(text)
        if len(found) < max(_MIN_SEQUENCES, _MIN_SEQUENCE_RATIO * len(text)):
            continue
        num_plausible = sum(_plausible(_meaning(sequence, code_page), scripts) for sequence in found)
        if num_plausible >= max(_MIN_SEQUENCES, _MIN_SEQUENCE_RATIO * len(text)):
            return True
    return False


def _is_glyph_code(text: str) -> bool:
    """Whether text of a non-Latin language is in Latin code points that spell nothing: old fonts and foreign code pages."""
    num_visible = len(text) - text.count(" ")
    if len(_HIGH_LATIN.findall(text)) >= _MIN_HIGH_LATIN_RATIO * num_visible:
        return True
    characters = count_characters(text)
    mostly_latin = characters.letters.get("Latn", 0) > characters.num_letters / 2
    return mostly_latin and len(_GLYPH_CODE.findall(text)) >= max(_MIN_GLYPH_CODES, _MIN_GLYPH_CODE_RATIO * len(text.split()))


def is_mojibake(text: str, lang: str) -> bool:
    """Whether a page's text was decoded wrongly, given the language that it should be in."""
    scripts = SCRIPTS.get(lang, frozenset({"Latn"}))
    if _is_misread_utf8(text, scripts):
        return True
    if "Latn" not in scripts:
        return _is_glyph_code(text)
    aliens = [count for count in map(text.count, _ALIEN_LETTERS.get(lang, "")) if count]
    if len(aliens) >= _MIN_ALIEN_LETTERS and sum(aliens) > _MIN_ALIEN_RATIO * len(text):
        return True
    num_lost = len(_LOST_LETTER.findall(text)) + len(_SYMBOL_AS_LETTER.findall(text))
    return num_lost > _MIN_LOST_RATIO * len(text.split())
