"""MMLU and its translations: questions of school and university subjects, four options each.

Hendrycks et al., "Measuring Massive Multitask Language Understanding" (arXiv 2009.03300). Five examples from the subject's dev split, under
a header that names the subject; the option whose letter is likeliest counts, as in the paper, or the one that the model writes
(`output_type: generate_until`; the header then asks for the letter). In translations the header and "Answer:" stay English and the
question and its options are in the language.

Read are the original CSV files (dev/SUBJECT_dev.csv, test/SUBJECT_test.csv, English; other languages below a folder LANG), MMMLU's
(test/mmlu_DE-DE.csv), one table a language and split (de_test.jsonl or de/test.jsonl, in the columns of Okapi's m_mmlu or of Global-MMLU),
and the hub. Languages are compared over the subjects that all of them have, and the notes say which.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xl.errors import UserError
from xl.evaluate.benchmarks.options import INSTRUCTION, LETTERS, labelled, worded
from xl.evaluate.benchmarks.sources import is_remote, language_config, numbered_rows, remote_rows, text_of
from xl.evaluate.benchmarks.task import CHOICE_MEASURES, LIKELIHOOD_MEASURES, Benchmark, Item, Loaded, Source, score_choice
from xl.evaluate.hub import hub_configs
from xl.evaluate.tables import is_table
from xl.pages.language import canonical_language
from xl.records import Row

_EXAMPLE_SPLITS = ("dev", "train")
"""m_mmlu on the hub calls the dev split `train`."""
_MISSPELT = {"ZN-CN": "zh"}  # MMMLU's Chinese file
_TEXT_COLUMNS = ("question", "Question", "instruction")
_OPTION_COLUMNS = (tuple(LETTERS), tuple(f"option_{letter.lower()}" for letter in LETTERS))


@dataclass(frozen=True)
class Question:
    """A question with its options; `number` names it within its subject and split, the same in all languages."""

    subject: str
    number: str
    text: str
    options: tuple[str, ...]
    answer: int


Questions = Mapping[str, Mapping[str, Question]]
"""By subject and number."""


def load(source: Source, languages: Sequence[str]) -> Loaded:
    """The questions of the subjects that all languages have, and notes on what is left out or short.

    Raises:
        UserError: a language, a split or a column is missing, a row cannot be read, or no subject is shared.
    """
    split = source.split or "test"
    tests = {lang: _read(source, lang, (split,)) for lang in languages}
    shots = {lang: _read(source, lang, _EXAMPLE_SPLITS) for lang in languages} if source.num_shots else {}
    subjects = sorted(set.intersection(*(set(tests[lang]) for lang in languages)))
    if not subjects:
        raise UserError(f"{source.path}: no subject is in all of {', '.join(languages)}")
    items: list[Item] = []
    notes = _subject_notes(tests, subjects)
    for lang in languages:
        for subject in subjects:
            pool = list(shots[lang].get(subject, {}).values()) if shots else []
            examples = {question: _without(pool, question)[: source.num_shots] for question in tests[lang][subject].values()}
            if (fewest := min(map(len, examples.values()))) < source.num_shots:
                notes.append(f"{lang}: {subject} has {fewest} of {source.num_shots} examples")
            items += [_item(question, lang, split, shown, source.max_tokens) for question, shown in examples.items()]
    return Loaded(items, tuple(notes))


def _without(pool: Sequence[Question], question: Question) -> list[Question]:
    """The pool without the question itself, which is there when the dev split is asked, or when a question stands in both."""
    return [other for other in pool if (other.text, other.options) != (question.text, question.options)]


def _subject_notes(tests: Mapping[str, Questions], subjects: Sequence[str]) -> list[str]:
    """Which subjects are compared, and how many of their questions are not in every language."""
    every = sorted(set().union(*tests.values()))
    names = ", ".join(tests)
    notes = []
    if left_out := [subject for subject in every if subject not in subjects]:
        notes.append(f"{len(subjects)} of {len(every)} subjects, those that all of {names} have; left out: {', '.join(left_out)}")
    keys = [{(subject, number) for subject in subjects for number in test[subject]} for test in tests.values()]
    in_all = set.intersection(*keys)
    if num_uneven := len(set.union(*keys) - in_all):
        notes.append(f"questions of these subjects that not all of {names} have: {num_uneven}")
    return notes


def _item(question: Question, lang: str, split: str, examples: Sequence[Question], max_tokens: int) -> Item:
    header = f"The following are multiple choice questions (with answers) about {question.subject.replace('_', ' ')}."
    shown = [f"{worded(example.text, example.options)} {LETTERS[example.answer]}" for example in examples]
    choices = labelled(question.options) if max_tokens else tuple(f" {letter}" for letter in LETTERS)
    return Item(
        key=f"{split}/{question.subject}/{question.number}",
        lang=lang,
        prompt="\n\n".join([f"{header} {INSTRUCTION}" if max_tokens else header, *shown, worded(question.text, question.options)]),
        gold=(choices[question.answer],),
        text="\n".join([question.text, *question.options]),
        question=question.text,
        group=question.subject,
        choices=choices,
        max_tokens=max_tokens,
    )


def _read(source: Source, lang: str, splits: Sequence[str]) -> Questions:
    """The questions of a language in the first of these splits that there is."""
    read = _remote_rows if is_remote(source) else _local_rows
    for split in splits:
        if rows := list(read(source, lang, split)):
            return _by_subject(rows)
    hint = "; ask without examples (num_shots: 0), or put it there" if splits == _EXAMPLE_SPLITS else ""
    raise UserError(f"{source.path}: no questions of the split {splits[0]!r} in the language {lang}{hint}")


def _by_subject(rows: Iterable[tuple[str, Row]]) -> Questions:
    """Questions under the number that the row's id gives, else under their place among those of their subject."""
    questions: dict[str, dict[str, Question]] = defaultdict(dict)
    for where, row in rows:
        subject, number = _name(row, where)
        known = questions[subject]
        question = _question(row, subject, number or str(len(known)), where)
        if question.number in known:
            raise UserError(f"{where}: the question {question.number} of {subject} has come before")
        known[question.number] = question
    return questions


def _name(row: Row, where: str) -> tuple[str, str | None]:
    """Subject and number of a row; the ids of translations read SUBJECT/SPLIT/NUMBER."""
    parts = next((str(row[column]).split("/") for column in ("sample_id", "id") if column in row), [])
    subject = next((row[column] for column in ("subject", "Subject") if row.get(column)), parts[0] if len(parts) == 3 else None)
    if not subject:
        raise UserError(f"{where}: no column `subject`, and no `id` of the form SUBJECT/SPLIT/NUMBER")
    return str(subject), parts[2] if len(parts) == 3 else None


def _question(row: Row, subject: str, number: str, where: str) -> Question:
    column = next((name for name in _TEXT_COLUMNS if name in row), _TEXT_COLUMNS[0])
    return Question(subject, number, text_of(row, column, where), _options(row, where), _answer(row, where))


def _options(row: Row, where: str) -> tuple[str, ...]:
    if "choices" in row:
        options = tuple(str(option).strip() for option in row["choices"])
    else:
        columns = next((names for names in _OPTION_COLUMNS if names[0] in row), _OPTION_COLUMNS[0])
        options = tuple(text_of(row, name, where) for name in columns)
    if len(options) != len(LETTERS):
        raise UserError(f"{where}: {len(options)} options, but a question has {len(LETTERS)}")
    return options


def _answer(row: Row, where: str) -> int:
    """Place of the right option, from its letter or its number (from 0)."""
    value: Any = row.get("answer", row.get("Answer"))
    text = str(value).strip().upper()
    if text in LETTERS and len(text) == 1:
        return LETTERS.index(text)
    if text in {"0", "1", "2", "3"}:
        return int(text)
    raise UserError(f"{where}: the answer must be one of A, B, C, D or 0 to 3, but is {value!r}")


def _remote_rows(source: Source, lang: str, split: str) -> Iterator[tuple[str, Row]]:
    is_original = lang == "en" and "all" in hub_configs(source.path, source.revision)
    return remote_rows(source, "all" if is_original else language_config(source, lang), split)


def _local_rows(source: Source, lang: str, split: str) -> Iterator[tuple[str, Row]]:
    folder = Path(source.path)
    originals = [folder / lang / split, *([folder / split] if lang == "en" else [])]
    for path in (path for place in originals for path in sorted(place.glob(f"*_{split}.csv"))):
        yield from _original_rows(path, path.stem.removesuffix(f"_{split}"))
    for path in sorted(folder.glob("*")) + sorted(folder.glob("*/*")):
        if is_table(path.name) and (lang, split) == _language_and_split(path):
            yield from numbered_rows(path)


def _language_and_split(path: Path) -> tuple[str | None, str]:
    """What a table's name says: de_test.jsonl, de/test.jsonl or test/mmlu_DE-DE.csv."""
    stem = path.name.split(".")[0]
    if stem.startswith("mmlu_"):
        code = stem.removeprefix("mmlu_")
        return _MISSPELT.get(code) or canonical_language(code), path.parent.name
    lang, _, split = stem.rpartition("_")
    return canonical_language(lang or path.parent.name), split


def _original_rows(path: Path, subject: str) -> Iterator[tuple[str, Row]]:
    """A file of the release: no header; question, four options, letter."""
    columns = ("question", *LETTERS, "answer")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, cells in enumerate(csv.reader(file), 1):
                if len(cells) != len(columns):
                    raise UserError(
                        f"{path}: row {number} has {len(cells)} columns, but the question, four options and the letter are wanted"
                    )
                yield f"{path}: row {number}", {**dict(zip(columns, cells, strict=True)), "subject": subject}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


MMLU = Benchmark(
    name="mmlu",
    paper="arXiv 2009.03300",
    measures=CHOICE_MEASURES,
    load=load,
    score=score_choice,
    partial=LIKELIHOOD_MEASURES,
    num_shots=5,
    max_tokens=0,
)
