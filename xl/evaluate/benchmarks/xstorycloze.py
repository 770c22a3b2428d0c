"""XStoryCloze: which of two sentences ends a story of four?

Lin et al., "Few-shot Learning with Multilingual Generative Language Models" (arXiv 2112.10668): the validation set of StoryCloze
(Mostafazadeh et al., arXiv 1604.01696) in eleven languages. The likelier ending after the story counts; with `output_type:
generate_until` the endings stand behind letters, and the letter that the model writes counts. Without examples unless the user says
otherwise; they come from the split `train`.

Read are the release's files, spring2016.val.LANG.tsv.split_20_80_eval.tsv (and _train), and the hub (juletxara/xstory_cloze).
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from xl.errors import UserError
from xl.evaluate.benchmarks.continuation import Continuation, continuation_items
from xl.evaluate.benchmarks.sources import is_remote, language_config, remote_rows, text_of
from xl.evaluate.benchmarks.task import CHOICE_MEASURES, LIKELIHOOD_MEASURES, Benchmark, Item, Loaded, Source, score_choice
from xl.records import Row

_COLUMNS = (
    *("InputStoryid", "InputSentence1", "InputSentence2", "InputSentence3", "InputSentence4"),
    *("RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2", "AnswerRightEnding"),
)
_HUB_COLUMNS = (
    *("story_id", "input_sentence_1", "input_sentence_2", "input_sentence_3", "input_sentence_4"),
    *("sentence_quiz1", "sentence_quiz2", "answer_right_ending"),
)
_UNSPACED_SENTENCES = frozenset({"ja", "wuu", "yue", "zh"})
"""Languages without a blank between sentences; Thai and Burmese have one there, though none between words."""


def load(source: Source, languages: Sequence[str]) -> Loaded:
    """The stories, named by their id, which is the same in all languages.

    Raises:
        UserError: a language has no file, or a row cannot be read.
    """
    split = source.split or "eval"
    items: list[Item] = []
    for lang in languages:
        stories = _read(source, lang, split)
        examples = _read(source, lang, "train") if source.num_shots else {}
        items += continuation_items(stories, examples, lang, source, "\n\n")
    return Loaded(items)


def _read(source: Source, lang: str, split: str) -> dict[str, Continuation]:
    stories: dict[str, Continuation] = {}
    read = _remote_rows if is_remote(source) else _local_rows
    for where, row in read(source, lang, split):
        key = text_of(row, _COLUMNS[0], where)
        if key in stories:
            raise UserError(f"{where}: the story {key} has come before")
        stories[key] = _story(row, lang, where)
    if not stories:
        raise UserError(f"{source.path}: no stories of the split {split!r} in the language {lang}")
    return stories


def _remote_rows(source: Source, lang: str, split: str) -> Iterator[tuple[str, Row]]:
    for where, row in remote_rows(source, language_config(source, lang), split):
        yield where, {ours: row[theirs] for ours, theirs in zip(_COLUMNS, _HUB_COLUMNS, strict=True) if theirs in row}


def _local_rows(source: Source, lang: str, split: str) -> Iterator[tuple[str, Row]]:
    path = Path(source.path) / f"spring2016.val.{lang}.tsv.split_20_80_{split}.tsv"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file, delimiter="\t"), 1):
                yield f"{path}: row {number}", row
    except FileNotFoundError:
        raise UserError(f"no file {str(path)!r}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def _story(row: Row, lang: str, where: str) -> Continuation:
    _, *columns, answer_column = _COLUMNS
    *sentences, first, second = (text_of(row, column, where) for column in columns)
    answer = text_of(row, answer_column, where)
    if answer not in {"1", "2"}:
        raise UserError(f"{where}: `{answer_column}` must be 1 or 2, but is {answer!r}")
    blank = "" if lang in _UNSPACED_SENTENCES else " "
    return Continuation(blank.join(sentences), (blank + first, blank + second), int(answer) - 1)


XSTORYCLOZE = Benchmark(
    name="xstorycloze",
    paper="arXiv 2112.10668",
    measures=CHOICE_MEASURES,
    load=load,
    score=score_choice,
    partial=LIKELIHOOD_MEASURES,
    max_tokens=0,
)
