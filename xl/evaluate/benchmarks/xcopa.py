"""XCOPA: which of two sentences is the cause, or the effect, of a third?

Ponti et al., "XCOPA: A Multilingual Dataset for Causal Commonsense Reasoning" (arXiv 2005.00333). As is usual for language models, the
premise and either choice are joined by "because" or "so" in the language (`xcopa.yaml`), and the likelier sentence counts; with
`output_type: generate_until` the choices stand behind letters, and the letter that the model writes counts. Without examples unless the
user says otherwise; they come from the split `val`.

Read are the release's files, LANG/test.LANG.jsonl and LANG/val.LANG.jsonl, and the hub (cambridgeltl/xcopa).
"""

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from xl.errors import UserError
from xl.evaluate.benchmarks.continuation import Continuation, continuation_items
from xl.evaluate.benchmarks.sources import is_remote, language_config, numbered_rows, remote_rows, text_of
from xl.evaluate.benchmarks.task import CHOICE_MEASURES, LIKELIHOOD_MEASURES, Benchmark, Item, Loaded, Source, score_choice
from xl.records import Row

_CONNECTORS = Path(__file__).with_suffix(".yaml")
_HUB_SPLITS = {"val": "validation"}
_STOPS = " .。"
_FIRST_PERSON = re.compile(r"I\b")


def load(source: Source, languages: Sequence[str]) -> Loaded:
    """The questions, named by their `idx`, which is the same in all languages.

    Raises:
        UserError: a language has no connectors or no file, or a row cannot be read.
    """
    split = source.split or "test"
    items: list[Item] = []
    for lang in languages:
        if lang not in connectors():
            raise UserError(f"{_CONNECTORS.name}: no connectors for the language {lang} (there are: {', '.join(connectors())})")
        questions = _read(source, lang, split)
        examples = _read(source, lang, "val") if source.num_shots else {}
        items += continuation_items(questions, examples, lang, source, "\n")
    return Loaded(items)


@functools.cache
def connectors() -> dict[str, dict[str, str]]:
    """By language: what joins a premise to its `cause` and to its `effect`; it begins with a comma or a blank where one is written."""
    found: dict[str, dict[str, str]] = yaml.safe_load(_CONNECTORS.read_text("utf-8"))
    return found


def _read(source: Source, lang: str, split: str) -> dict[str, Continuation]:
    questions: dict[str, Continuation] = {}
    for where, row in _rows(source, lang, split):
        key = f"{split}/{text_of(row, 'idx', where)}"
        if key in questions:
            raise UserError(f"{where}: the idx {row['idx']} has come before")
        questions[key] = _question(row, lang, where)
    if not questions:
        raise UserError(f"{source.path}: no questions of the split {split!r} in the language {lang}")
    return questions


def _rows(source: Source, lang: str, split: str) -> Iterator[tuple[str, Row]]:
    if is_remote(source):
        return remote_rows(source, language_config(source, lang), _HUB_SPLITS.get(split, split))
    return numbered_rows(Path(source.path, lang, f"{split}.{lang}.jsonl"))


def _question(row: Row, lang: str, where: str) -> Continuation:
    joints, asked = connectors()[lang], text_of(row, "question", where)
    if asked not in joints:
        raise UserError(f"{where}: `question` must be cause or effect, but is {asked!r}")
    label = text_of(row, "label", where)
    if label not in {"0", "1"}:
        raise UserError(f"{where}: `label` must be 0 or 1, but is {label!r}")
    # Where a language writes blanks between words, the one behind the connector belongs to the choice: tokens begin with it.
    joint = joints[asked]
    blank = " " if " " in joint else ""
    first, second = (blank + _continued(text_of(row, name, where), lang) for name in ("choice1", "choice2"))
    return Continuation(text_of(row, "premise", where).rstrip(_STOPS) + joint, (first, second), int(label))


def _continued(sentence: str, lang: str) -> str:
    """The sentence with a small letter at its beginning, as it stands behind a connector."""
    if lang == "en" and _FIRST_PERSON.match(sentence):
        return sentence
    small = {"I": "ı", "İ": "i"}.get(sentence[0]) if lang == "tr" else None
    return (small or sentence[0].lower()) + sentence[1:]


XCOPA = Benchmark(
    name="xcopa",
    paper="arXiv 2005.00333",
    measures=CHOICE_MEASURES,
    load=load,
    score=score_choice,
    partial=LIKELIHOOD_MEASURES,
    max_tokens=0,
)
