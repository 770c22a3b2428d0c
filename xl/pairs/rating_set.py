"""The synthetic rating set that X-Instruction's evaluator is trained on (Li et al., arXiv 2405.19744): pairs whose level is known.

How the paper builds its three levels is not published. Ours are made of seed pairs so that neither the text alone nor the instruction
alone gives a level away, which would teach the evaluator to spot cut texts instead of reading both: bad pairs have whole, cut and short
texts like the others, and a question about a detail is right for the passage that answers it.

good      seed      a seed pair
          passage   the passage of a seed's text that holds a number, with a question about that number
flawed    cut       a seed pair whose text breaks off early: it answers in part
bad       nearest   a seed's text with the instruction of the nearest other seed of its language
          swapped   a seed pair with another seed's name in the place of one that the instruction holds
          detail    a seed's text with a question about a number that it mentions in passing
          other     a seed's text, whole, cut or a passage, with the instruction of any other seed

Every seed has a seed, a cut, an other and one of the three hard ones; with a detail goes a passage.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from xl.ask import clip
from xl.errors import require
from xl.pages.scripts import folded
from xl.pairs.levels import Level
from xl.pairs.seeds import Seed
from xl.records import Row, seeded_rank

KEPT_RATIO = 0.4
"""Share of its characters that a flawed pair's text keeps, cut at a sentence."""

HARD_KINDS = ("nearest", "swapped", "detail")
"""Bad pairs that are on their text's subject, or nearly."""

PAIR_SCHEMA = pa.schema(
    [*((name, pa.string()) for name in ("id", "seed", "lang", "language", "instruction", "text", "kind")), ("level", pa.int64())]
)


class RatedPair(NamedTuple):
    """A pair and its level; `kind` names how it was made, as the module says."""

    seed: Seed
    instruction: str
    text: str
    level: Level
    kind: str


def rating_set(seeds: Sequence[Seed], max_chars: int, seed: int) -> list[RatedPair]:
    """Four or five pairs of every seed with whose language there is another instruction: one or two good, one flawed, two bad.

    They are made of as much of the texts as a rater is shown, `max_chars`: what it cannot see must not decide a level.
    """
    shown = [pair._replace(response=clip(pair.response, max_chars)) for pair in seeds]
    by_language: dict[str, list[Seed]] = {}
    for pair in shown:
        by_language.setdefault(pair.lang, []).append(pair)
    names = _foreign_names(shown, seed)
    return [rated for every in by_language.values() for rated in _of_language(every, names, seed)]


def pair_rows(pairs: Iterable[RatedPair]) -> list[Row]:
    """Rated pairs as rows to ask a rater about, in the columns of `PAIR_SCHEMA`; `seed` is the id of the seed that a pair was made of."""
    return [
        {
            "id": f"{pair.seed.id}-{pair.kind}",
            "seed": pair.seed.id,
            "lang": pair.seed.lang,
            "language": pair.seed.language,
            "instruction": pair.instruction,
            "text": pair.text,
            "kind": pair.kind,
            "level": int(pair.level),
        }
        for pair in pairs
    ]


def _of_language(seeds: list[Seed], names: "ForeignNames", seed: int) -> Iterator[RatedPair]:
    """The pairs of one language's seeds; `names` are those of all languages, whose instructions are English alike."""
    spoken = [folded(pair.instruction) for pair in seeds]
    if len(set(spoken)) < 2:
        return
    nearest, others = _nearest(seeds, spoken), _others(seeds, spoken, seed)
    for place, pair in enumerate(seeds):
        cut = clip(pair.response, max(1, round(KEPT_RATIO * len(pair.response))))
        yield RatedPair(pair, pair.instruction, pair.response, Level.GOOD, "seed")
        yield RatedPair(pair, pair.instruction, cut, Level.FLAWED, "cut")
        passages = _numbered_passages(pair)
        hard = {
            "nearest": nearest[place].instruction,
            "swapped": _swapped(pair, names, seed),
            "detail": next(iter(passages), None),
        }
        possible = {kind: instruction for kind, instruction in hard.items() if instruction}
        kind = min(possible, key=lambda kind: seeded_rank(seed, "hard", pair.id, kind))
        yield RatedPair(pair, possible[kind], pair.response, Level.BAD, kind)
        other_text = cut if seeded_rank(seed, "text", pair.id) % 2 else pair.response
        if kind == "detail":
            other_text = passages[possible[kind]]
            yield RatedPair(pair, possible[kind], other_text, Level.GOOD, "passage")
        yield RatedPair(pair, others[place].instruction, other_text, Level.BAD, "other")


def _others(seeds: Sequence[Seed], spoken: Sequence[str], seed: int) -> list[Seed]:
    """For each seed the next one in a seeded circle that has another instruction. `spoken` are the instructions' own words."""
    circle = sorted(range(len(seeds)), key=lambda place: seeded_rank(seed, "mismatch", seeds[place].id))
    found: dict[int, int] = {}
    following = next(place for place in circle if spoken[place] != spoken[circle[-1]])
    for place, after in zip(reversed(circle), [circle[0], *reversed(circle)], strict=False):
        following = after if spoken[after] != spoken[place] else following
        found[place] = following
    return [seeds[found[place]] for place in range(len(seeds))]


_CAPITALISED = r"[A-ZÀ-ÞİŞŠŽŁ](?:[\w-]|['’](?!s\b))+"
_NAME = re.compile(rf"\b(?P<before>(?!de )[a-z]+) (?P<name>{_CAPITALISED}(?: {_CAPITALISED})*)(?= (?!of |de )[a-z]|[,?.;] |[?.]$)")


def _names(instruction: str) -> list[re.Match[str]]:
    """Whole names inside a sentence: capitalised words behind one that is not; nobody's possessive, no part of "Camino de Santiago"."""
    return list(_NAME.finditer(instruction))


def _place(name: re.Match[str]) -> tuple[str, str, int]:
    """What tells whether two names can change places and leave sense: the words beside them, and how many words they have."""
    following = re.match(r" (\w+)", name.string[name.end() :])
    return name["before"], following[1] if following else "", name["name"].count(" ")


ForeignNames = dict[tuple[str, str, int], list[tuple[int, str]]]
"""The names that can change places with each other, in a seeded order: what tells so (`_place`), and rank and name of each."""


def _foreign_names(seeds: Iterable[Seed], seed: int) -> ForeignNames:
    found: ForeignNames = {}
    for pair in seeds:
        for name in _names(pair.instruction):
            found.setdefault(_place(name), []).append((seeded_rank(seed, "name", pair.id, name["name"]), name["name"]))
    return {place: sorted(names) for place, names in found.items()}


def _swapped(pair: Seed, names: ForeignNames, seed: int) -> str | None:
    """The seed's instruction with a name that stands in a like place in another seed's; None where there is no such name."""
    known = f"{pair.instruction} {pair.response}"
    for own in _names(pair.instruction):
        there = names[_place(own)]
        first = bisect_left(there, (seeded_rank(seed, "swapped", pair.id), ""))
        for _, name in (*there[first:], *there[:first]):
            if name not in known:
                return pair.instruction[: own.start("name")] + name + pair.instruction[own.end("name") :]
    return None


_NUMBER = re.compile(r"(?<![\d.,:/-])(?<!\d[ \u00a0\u202f])\d{2,4}(?![ \u00a0\u202f.,:/-]?\d)")
_YEARS = range(1000, 2600)
"""The Buddhist calendar's are in there too."""

_SENTENCE_END = re.compile(r"(?<=[.!?…।؟])(?<!\d\.)(?<!\.\w\.)\s+|(?<=[。！？])")


def _numbered_passages(pair: Seed) -> dict[str, str]:
    """Questions about the numbers that a text mentions once and its instruction does not, each with the sentence that answers it.

    There are none in languages that do not mark where a sentence ends.
    """
    sentences = _SENTENCE_END.split(pair.response)
    found: dict[str, str] = {}
    for number in _NUMBER.findall(pair.response):
        if pair.response.count(number) > 1 or number in pair.instruction:
            continue
        question = f"What happened in {number}?" if int(number) in _YEARS else f"What does the number {number} refer to?"
        passage = next(sentence for sentence in sentences if number in sentence)
        if len(passage) < KEPT_RATIO * len(pair.response):
            found[question] = passage
    return found


def _nearest(seeds: Sequence[Seed], spoken: Sequence[str]) -> list[Seed]:
    """For each seed that with the most similar other instruction, by the words that they share (TF-IDF)."""
    text: Any = require("sklearn.feature_extraction.text", "corpus")
    neighbors: Any = require("sklearn.neighbors", "corpus")
    first = {words: place for place, words in reversed([*enumerate(spoken)])}
    different = list(first)
    vectors = text.TfidfVectorizer(sublinear_tf=True, stop_words="english").fit_transform(
        seeds[first[words]].instruction for words in different
    )
    nearest = neighbors.NearestNeighbors(n_neighbors=1, metric="cosine").fit(vectors).kneighbors(return_distance=False)
    of_words = {words: seeds[first[different[int(place)]]] for words, [place] in zip(different, nearest, strict=True)}
    return [of_words[words] for words in spoken]
