"""Is a benchmark in the training data? Shared n-grams, as for GPT-3 (Brown et al., 2020, arXiv 2005.14165, §4 and appendix C).

A text is contaminated when it has 13 words in a row in common with a benchmark, or 30 characters in a row where there are no spaces between
words. Case, punctuation and compatibility forms (NFKC) do not count. A benchmark's text that is too short for that, such as a question,
must be the whole of the other text. Translations share no words: a contaminated text takes all rows of its document with it.
"""

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from xl.ask import Columns, Drop
from xl.errors import UserError
from xl.pages.language import canonical_language
from xl.pages.scripts import folded_words, is_unspaced
from xl.records import Row
from xl.settings import Strict
from xl.stage import RowStage, WholeStage

Hashes = npt.NDArray[np.uint64]

_MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)

_LANGUAGE = re.compile(r"[a-z]{2,3}([-_][A-Za-z]{2,4})?")

DROPS = "uncontaminated"
"""Name of the stage that drops what is contaminated."""


class Contamination(Strict):
    """What of the dataset counts as seen in the evaluation."""

    drop: bool = True
    """Whether pairs that have a piece of an evaluation prompt or of a benchmark are dropped, and with them all pairs of their documents; if
    not, the report says so."""
    num_words: int = Field(13, ge=4)
    """So many words in a row in common are contamination."""
    num_chars: int = Field(30, ge=10)
    """The same in characters, for scripts without spaces between words."""


@dataclass(frozen=True, eq=False)
class BenchmarkIndex:
    """What benchmarks say, as 64-bit hashes of n-grams: ten bytes each, and a chance of 10⁻¹² per n-gram to meet one of 10⁷ by accident.

    `hashes` is sorted; `owners` are the places in `benchmarks` of those that each hash comes from (the first, if several). `digest`
    tells whether an index is the same.
    """

    benchmarks: tuple[str, ...]
    hashes: Hashes
    owners: npt.NDArray[np.uint16]
    num_words: int
    num_chars: int
    digest: str

    def find(self, text: str) -> str | None:
        """Name of the benchmark that the text has most n-grams in common with; None for a clean text."""
        tokens = folded_words(text)
        hashes = np.append(_n_grams(tokens, self.num_words, self.num_chars), _whole(tokens))
        places = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        owners = self.owners[places[self.hashes[places] == hashes]]
        return self.benchmarks[np.bincount(owners).argmax()] if owners.size else None


def index_benchmarks(benchmarks: Mapping[str, Iterable[str]], num_words: int = 13, num_chars: int = 30) -> BenchmarkIndex:
    """Index the texts of benchmarks by name: their questions, and the paragraphs that these are about.

    Give what makes an item, not the wording that all prompts share: that would be found in many a clean text.

    Raises:
        UserError: a benchmark has no text.
    """
    assert benchmarks, "without a benchmark there is nothing to look for"
    names = tuple(sorted(benchmarks))
    by_benchmark = []
    for name in names:
        of_texts = [_n_grams(tokens, num_words, num_chars, or_whole=True) for text in benchmarks[name] if (tokens := folded_words(text))]
        if not of_texts:
            raise UserError(f"contamination: the benchmark {name!r} has no text to look for; give its prompts or leave it out")
        by_benchmark.append(np.unique(np.concatenate(of_texts)))
    owners = np.repeat(np.arange(len(names), dtype=np.uint16), [len(hashes) for hashes in by_benchmark])
    hashes, firsts = np.unique(np.concatenate(by_benchmark), return_index=True)
    owners = owners[firsts]
    digest = hashlib.blake2b(repr((names, num_words, num_chars)).encode() + hashes.tobytes() + owners.tobytes(), digest_size=16)
    return BenchmarkIndex(names, hashes, owners, num_words, num_chars, digest.hexdigest())


def drop_contaminated(index: BenchmarkIndex, columns: Sequence[str] = ("text", "instruction")) -> tuple[RowStage, WholeStage]:
    """Drop rows of which any of these columns is `contaminated`, and all other rows of their documents (`contaminated_document`).

    Columns that a row does not have are left out. The first stage looks each row up; its `contaminated_by` names the benchmark. The second
    one knows the documents of contaminated rows, and no others: a row that went before counts no more.
    """
    settings = {"index": index.digest, "columns": list(columns)}
    added = pa.schema([("contaminated_by", pa.string()), ("contaminated_document", pa.string())])
    look_up = functools.partial(_look_up, index, tuple(columns))
    return (
        RowStage("overlap", (look_up,), added, settings),
        WholeStage(DROPS, ("contaminated_document",), _contaminated_documents, _drop_found, pa.schema([]), {"by": "document"}),
    )


def _look_up(index: BenchmarkIndex, columns: tuple[str, ...], row: Row) -> Columns:
    texts = [text for column in columns if isinstance(text := row.get(column), str)]
    benchmark = next(filter(None, map(index.find, texts)), None)
    return {"contaminated_by": benchmark, "contaminated_document": document_of(row) if benchmark else None}


def _contaminated_documents(tables: Iterator[pa.Table]) -> frozenset[str]:
    return frozenset(document for table in tables for document in table["contaminated_document"].drop_null().to_pylist())


def _drop_found(documents: frozenset[str], row: Row) -> Drop | None:
    if row["contaminated_by"]:
        return Drop("contaminated")
    return Drop("contaminated_document") if document_of(row) in documents else None


def _n_grams(tokens: list[str], num_words: int, num_chars: int, or_whole: bool = False) -> Hashes:
    """Hashes of all runs of so many words, and of so many characters if half of them are of scripts without spaces between words."""
    found = _runs(np.fromiter(map(_hash, tokens), np.uint64, len(tokens)), num_words)
    text = "".join(tokens)
    unspaced = is_unspaced(text)
    if len(text) >= num_chars and 2 * np.count_nonzero(unspaced) >= num_chars:
        characters = _mix(np.fromiter(map(ord, text), np.uint64, len(text)))
        num_unspaced = np.convolve(unspaced, np.ones(num_chars, np.int64), "valid")
        found = np.append(found, _runs(characters, num_chars)[2 * num_unspaced >= num_chars])
    return _whole(tokens) if or_whole and not found.size else found


def _whole(tokens: list[str]) -> Hashes:
    return np.array([_hash("\0" + "".join(tokens))], np.uint64)


def _runs(tokens: Hashes, length: int) -> Hashes:
    """A hash of each run of `length` tokens."""
    num_runs = max(0, len(tokens) - length + 1)
    hashes = np.zeros(num_runs, np.uint64)
    for offset in range(length):
        hashes = _mix(hashes + tokens[offset : offset + num_runs])
    return hashes


def _mix(values: Hashes) -> Hashes:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the input changes half of the output's."""
    values = (values ^ (values >> _SHIFTS[0])) * _MULTIPLIERS[0]
    values = (values ^ (values >> _SHIFTS[1])) * _MULTIPLIERS[1]
    return values ^ (values >> _SHIFTS[2])


@functools.lru_cache(1 << 17)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def document_of(row: Row) -> str | None:
    """What a row has in common with the translations of its text and with other parts of it; None for a row that is alone."""
    document: str | None = row.get("document")
    return document or (document_key(row["url"]) if row.get("url") else None)


def document_key(url: str) -> str:
    """What the translations of a page have in common in their URLs: all but the language in the host or in the path, and the place in the
    page (`#3`). `https://de.example.org/wiki/Ems#3` and `https://en.example.org/wiki/Ems` are `example.org/wiki/Ems`.

    Pages of different sites are different documents, whatever they are called.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # http://[a name in brackets
        return url
    *labels, domain, top = ["", "", *parts.netloc.casefold().split(".")]
    host = [label for label in labels if label and label != "www" and not _names_language(label)]
    path = [segment for segment in unquote(parts.path).split("/") if not _names_language(segment)]
    return ".".join(filter(None, (*host, domain, top))) + "/".join(path) + (f"?{parts.query}" if parts.query else "")


def _names_language(part: str) -> bool:
    """Whether a part of a URL names a language: `de`, `pt-br`, `zh_CN`."""
    return bool(_LANGUAGE.fullmatch(part)) and canonical_language(part) is not None
