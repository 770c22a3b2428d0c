"""Language identifiers: two independent ones that come with their weights, and the shape of a third.

The second, py3langid, is a naive Bayes classifier over byte n-grams (langid.py; Lui and Baldwin, ACL 2012), unrelated to fastText in
method and training data. By their first 160 characters it knows all of 123 Irish, Maltese and Swahili news articles each; the compressed
fastText model knows 0.92 to 0.95 of them. lingua, as good otherwise, has no Maltese and is twenty times the size.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xl.errors import UserError, require
from xl.pages.language import LANGUAGE_NAMES, canonical_language
from xl.pages.language import identify as identify_by_fasttext

Identified = tuple[str | None, float]
"""A language code of `xl.pages.language` (the identifier's own where that has none) and a confidence from 0 to 1; None: cannot tell."""

NAMES = ("fasttext", "py3langid")
"""The identifiers that `identifier` knows."""

ANSWER_IDENTIFIERS = NAMES
"""What names the language of answers to benchmarks: both, for one alone takes short Portuguese for Galician and Indonesian for Malay."""

_NO_LANGUAGE = frozenset({"und", "zxx"})


@dataclass(frozen=True)
class Identifier:
    """Anything that names a text's language: `Identifier("mine", identify, knows)` plugs in another one."""

    name: str
    identify: Callable[[str], Identified]
    knows: Callable[[str], bool]
    """Whether it can name a language at all; the denial of one that cannot is no evidence."""


def identifier(name: str) -> Identifier:
    """The identifier of that name. Raises UserError for an unknown one."""
    if name == "fasttext":
        return fasttext()
    if name == "py3langid":
        return py3langid()
    raise UserError(f"unknown identifier {name!r}; there are {' and '.join(NAMES)}")


def fasttext() -> Identifier:
    """fastText's lid.176, compressed: the identifier of the page filters, with 176 languages."""

    def identify(text: str) -> Identified:
        sound = text.encode("utf-8", "replace").decode("utf-8")  # JSON may carry half of a surrogate pair, which fastText refuses
        return _known(*identify_by_fasttext(sound))

    return Identifier("fasttext", identify, LANGUAGE_NAMES.__contains__)


def py3langid(languages: frozenset[str] | None = None) -> Identifier:
    """py3langid's bundled model, with 140 languages, or with `languages` alone.

    All are candidates by default. Among a few it errs less on text in them (Chinese 1.00 instead of 0.95, for nothing is taken for Wu),
    but then it also names one of them for an answer in any other language, which is just what is to be found out.

    Raises:
        UserError: it does not know one of `languages`.
    """

    def identify(text: str) -> Identified:
        label, confidence = _py3langid(languages).classify(text)
        return _known(label, confidence)

    known = functools.cache(lambda: {canonical_language(label) for label in _py3langid(languages).labels})
    return Identifier("py3langid", identify, lambda lang: lang in known())


@functools.cache
def _py3langid(languages: frozenset[str] | None) -> Any:
    library = require("py3langid.langid", "eval")
    model = library.LanguageIdentifier.from_model_file(library.MODEL_FILE, norm_probs=True)
    if languages is not None:
        labels = [label for label in model.labels if canonical_language(label) in languages]
        if unknown := sorted(languages - {canonical_language(label) for label in labels}):
            raise UserError(f"py3langid does not know the language {unknown[0]!r}")
        model.set_languages(labels)
    return model


def _known(label: str, confidence: float) -> Identified:
    return (None, 0.0) if label in _NO_LANGUAGE else (canonical_language(label) or label, float(confidence))
