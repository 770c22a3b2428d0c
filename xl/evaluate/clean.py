"""What in an answer says nothing about its language: code, addresses, and quotations in the language that they quote."""

import re

from xl.pages.scripts import count_characters

_CODE_BLOCK = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)  # an answer may be cut off inside one
_INLINE_CODE = re.compile(r"`[^`\n]+`")
_ADDRESS = re.compile(r"(?:https?://|www\.)[^\s<>\"'。、）」]+|[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]+", re.ASCII | re.IGNORECASE)
_QUOTATION = re.compile(
    # No mark may stand inside its own quotation: else a row of opening ones takes quadratic time.
    r'^[ \t]*>.*$|"[^"\n]+"|“[^“”\n]+”|„[^„“”"\n]+[“”"]|«[^«»\n]+»|»[^«»\n]+«|「[^「」\n]+」|『[^『』\n]+』',
    re.MULTILINE,
)
_MAX_QUOTED_RATIO = 0.5


def strip_foreign(text: str) -> str:
    """An answer without code, URLs, e-mail addresses and quotations; its line breaks stay.

    Quotations stay where they are more than half of the letters: then they are the answer.
    """
    for pattern in (_CODE_BLOCK, _INLINE_CODE, _ADDRESS):
        text = pattern.sub(" ", text)
    unquoted = _QUOTATION.sub(" ", text)
    num_kept, num_letters = count_characters(unquoted).num_letters, count_characters(text).num_letters
    return unquoted if num_kept >= (1 - _MAX_QUOTED_RATIO) * num_letters else text
