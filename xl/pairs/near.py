"""Pages of one language, to be found by texts that are like theirs: the cosine of TF-IDF vectors.

Terms are hashed into a table of fixed size: no vocabulary is kept, and a language's index takes some MiB whatever its texts say.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from xl.errors import require
from xl.pages.scripts import folded_words, is_unspaced

NUM_CHARS = 1_000
"""So much of a text is compared, from its beginning."""
NUM_FEATURES = 2**16
NEAR_DUPLICATE = 0.7
"""Least similarity of what is nearly one text. On pages in six languages (de fi sw th tr zh), 98 of 100 copies that a fifth of the words
(th, zh: a tenth of the characters) was changed in are at 0.71 or above, and of different pages no two above 0.61."""
NEAR_SETTINGS = {"num_chars": NUM_CHARS, "num_features": NUM_FEATURES, "near_duplicate": NEAR_DUPLICATE}
"""What decides which pages are near, for the settings of a stage."""


class NearPages:
    """An index of pages' texts. With 2,000 pages it takes 2 to 11 MiB, and a look-up about 2 ms."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """Index texts by the id of their page."""
        text: Any = require("sklearn.feature_extraction.text", "corpus")
        pipeline: Any = require("sklearn.pipeline", "corpus")
        counts = text.HashingVectorizer(analyzer=_terms, n_features=NUM_FEATURES, norm=None, alternate_sign=False, dtype=np.float32)
        self._vectorizer = pipeline.make_pipeline(counts, text.TfidfTransformer(sublinear_tf=True))
        self._pages = list(texts)
        self._by_term = self._vectorizer.fit_transform(texts.values()).T.tocsr()

    def similarities(self, text: str) -> dict[str, float]:
        """Similarity (0 to 1) of the pages that have anything in common with a text, the most similar first."""
        found = (self._vectorizer.transform([text]) @ self._by_term).tocoo()
        order = np.lexsort((found.col, -found.data))
        pages = (self._pages[place] for place in found.col[order].tolist())
        return dict(zip(pages, found.data[order].tolist(), strict=True))


def _terms(text: str) -> list[str]:
    """Words, or all two characters in a row where a script puts no spaces between words."""
    words = folded_words(text[:NUM_CHARS])
    joined = "".join(words)
    if 2 * np.count_nonzero(is_unspaced(joined)) < len(joined):
        return words
    return [joined[start : start + 2] for start in range(len(joined) - 1)]
