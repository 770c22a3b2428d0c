"""Questions about a passage in SQuAD's format: how they are read, worded and scored. XQuAD and MLQA share it.

Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", EMNLP 2016 (arXiv 1606.05250), for the format and for
exact match and F1. Answers are scored by their text, never by where they stand: machine-translated files carry English offsets.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from xl.ask import one_line, quote, unquote
from xl.errors import UserError
from xl.evaluate.benchmarks.task import Answer, Item, Loaded, Source
from xl.evaluate.hub import hub_rows, is_on_hub
from xl.pages.language import LANGUAGE_NAMES
from xl.records import seeded_rank

MEASURES = ("f1", "exact_match", "contains")

Normalise = Callable[[str], str]
"""Turns an answer into the tokens that are compared, with single blanks between them."""


@dataclass(frozen=True)
class Layout:
    """Where a benchmark's questions in a language are: patterns with `{lang}` and `{split}`, and the split that is asked by default."""

    files: tuple[str, ...]
    """Inside a local folder; the first that is there."""
    config: str
    """On the hub."""
    split: str


@dataclass(frozen=True)
class Question:
    """A question, its passage, and the answers that people gave."""

    id: str
    passage: str
    question: str
    answers: tuple[str, ...]


class _Answer(BaseModel):
    text: str


class _Asked(BaseModel):
    id: str
    question: str
    answers: list[_Answer]


class _Paragraph(BaseModel):
    context: str
    qas: list[_Asked]


class _Article(BaseModel):
    paragraphs: list[_Paragraph]


class _File(BaseModel):
    data: list[_Article]


class _Texts(BaseModel):
    text: list[str]


class _HubRow(BaseModel):
    id: str
    context: str
    question: str
    answers: _Texts


def load(source: Source, languages: Sequence[str], layout: Layout) -> Loaded:
    """All questions in these languages as items.

    Raises:
        UserError: a language has no file, a file is not in the format, a question has no answer or comes twice, or there are too few
            passages for the examples.
    """
    return Loaded([item for lang in languages for item in _items(source, lang, list(read_questions(source, lang, layout)))])


def read_questions(source: Source, lang: str, layout: Layout) -> Iterator[Question]:
    """The questions in one language, in their order. Raises UserError."""
    split = source.split or layout.split
    on_hub = is_on_hub(source.path)
    path = source.path if on_hub else str(_find(Path(source.path), lang, split, layout))
    seen: set[str] = set()
    for question in _from_hub(source, split, layout.config.format(lang=lang)) if on_hub else _from_file(Path(path)):
        if not any(map(str.strip, question.answers)):
            raise UserError(f"{path}: the question {question.id} has no answer; SQuAD 2's unanswerable questions are not supported")
        if question.id in seen:
            raise UserError(f"{path}: the question {question.id} has come before; ids must be unique in a language")
        seen.add(question.id)
        yield question
    if not seen:
        raise UserError(f"{path}: no question in it")


def _find(path: Path, lang: str, split: str, layout: Layout) -> Path:
    names = [pattern.format(lang=lang, split=split) for pattern in layout.files]
    if split != layout.split and not any("{split}" in pattern for pattern in layout.files):
        raise UserError(f"{path}: there is no split {split!r} in files that are named like {names[0]}; leave `split` out")
    if path.is_file():
        # A file is of one language, and only its name says of which one.
        if path.name not in {Path(name).name for name in names}:
            raise UserError(f"{path}: not a file with {lang}; that would be named {names[0]}. Give the folder for several languages")
        return path
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        raise UserError(f"{path}: no file for {lang} in it; looked for {' and '.join(names)}")
    return found


def _from_file(path: Path) -> Iterator[Question]:
    try:
        file = _File.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: not in SQuAD's format: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from None
    for article in file.data:
        for paragraph in article.paragraphs:
            for asked in paragraph.qas:
                yield Question(asked.id, paragraph.context, asked.question, tuple(answer.text for answer in asked.answers))


def _from_hub(source: Source, split: str, config: str) -> Iterator[Question]:
    for number, row in enumerate(hub_rows(source.path, tuple(_HubRow.model_fields), split, source.revision, config), 1):
        try:
            asked = _HubRow.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{source.path}: {config}: row {number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        yield Question(asked.id, asked.context, asked.question, tuple(asked.answers.text))


def _items(source: Source, lang: str, questions: list[Question]) -> Iterator[Item]:
    shots = _shots(questions, source)
    if len(shots) < source.num_shots + 1 and source.num_shots:
        raise UserError(f"{source.path}: {source.num_shots} examples want as many passages beside an item's own; {lang} has {len(shots)}")
    task = f"Answer the question about the passage in {LANGUAGE_NAMES[lang]}, with the fewest words of the passage that answer it."
    for question in questions:
        shown = [shot for shot in shots if shot.passage != question.passage][: source.num_shots]
        blocks = [task, *(f"{_block(shot)} {quote(one_line(shot.answers[0]))}" for shot in shown), _block(question)]
        yield Item(
            question.id,
            lang,
            "\n\n".join(blocks),
            gold=question.answers,
            text=f"{question.passage}\n{question.question}",
            question=question.question,
            answer_lang=lang,
            max_tokens=source.max_tokens,
            stop=("\n",),
        )


def _shots(questions: list[Question], source: Source) -> list[Question]:
    """Examples from different passages: one more than is shown, in case that an item's own passage is among them."""
    by_passage: dict[str, Question] = {}
    for question in sorted(questions, key=lambda question: seeded_rank(source.seed, question.id)):
        by_passage.setdefault(question.passage, question)
    return list(by_passage.values())[: source.num_shots + 1]


def _block(question: Question) -> str:
    return f"Passage: {quote(one_line(question.passage))}\nQuestion: {quote(one_line(question.question))}\nAnswer:"


def score(item: Item, answer: Answer, normalise: Normalise, whole_words: bool = True) -> Mapping[str, float] | None:
    """The best agreement with any right answer, by each measure; None for an empty answer. `whole_words` as in `contains`."""
    text = unquote(answer.text.strip())
    if not text:
        return None
    found = [
        (f1(text, gold, normalise), float(exact_match(text, gold, normalise)), float(contains(text, gold, normalise, whole_words)))
        for gold in map(unquote, item.gold)
    ]
    return dict(zip(MEASURES, map(max, zip(*found, strict=True)), strict=True))


def f1(text: str, gold: str, normalise: Normalise) -> float:
    """Harmonic mean of precision and recall over the bag of tokens (arXiv 1606.05250, section 6.1); 0 without a common token."""
    ours, theirs = normalise(text).split(), normalise(gold).split()
    num_same = (Counter(ours) & Counter(theirs)).total()
    return 2 * num_same / (len(ours) + len(theirs)) if num_same else 0.0


def exact_match(text: str, gold: str, normalise: Normalise) -> bool:
    """Whether nothing but case, punctuation, articles and blanks differs."""
    return normalise(text) == normalise(gold)


def contains(text: str, gold: str, normalise: Normalise, whole_words: bool = True) -> bool:
    """Whether the right answer stands in the text, whatever is around it: a talkative model loses precision, not this.

    It must begin and end where words do, unless the language shows no such places (`whole_words=False`).
    """
    edge = " " if whole_words else ""
    wanted = normalise(gold)
    return bool(wanted) and f"{edge}{wanted}{edge}" in f"{edge}{normalise(text)}{edge}"


_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalise_english(text: str) -> str:
    """SQuAD's own normalisation: lower case, without ASCII punctuation and articles."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
