"""BIG-Bench Hard and its translations: 27 tasks of reasoning, answered without a chain of thought.

Suzgun et al., "Challenging BIG-Bench Tasks and Whether Chain-of-Thought Can Solve Them" (arXiv 2210.09261): a task's instruction and three
examples, then the answer at once. The paper's three examples are not in the data files; ours are drawn from the task's other questions, and
the instructions are in our words. In translations the instruction stays English and the question is in the language.

Read are the release's files, TASK.json with {"examples": [{"input", "target"}]}, English in the folder itself or below `en`, translations
below LANG; and the hub (lukaemon/bbh, English). Translated labels are inconsistent ("Ja", "Richtig", "True" for one label), so answers and
targets are both read through a table of each task's labels (`bbh.yaml`): that is `acc`. `exact_match` compares texts, as the paper does.
"""

import functools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from xl.errors import UserError
from xl.evaluate.benchmarks.sources import is_remote, remote_rows, shot_order, take_shots, text_of
from xl.evaluate.benchmarks.task import Answer, Benchmark, Item, Loaded, Source
from xl.evaluate.hub import hub_configs

Kind = Literal["option", "yes_no", "true_false", "valid_invalid", "number", "words", "brackets"]

_TABLE = Path(__file__).with_suffix(".yaml")
_LETTERS = "abcdefghijklmnopqr"
_PARENTHESISED = re.compile(r"\((\w)\)")
_LEADING_LETTER = re.compile(r"\W*(\w)(?=[).:]|\s*$)")
_NUMBER = re.compile(r"[^\w-]*(-?\d+(?:[.,'٬]\d{3}(?!\d))*)(?![\d.,]*\d)")
"""A whole number, also with its thousands grouped, but not the beginning of a decimal fraction."""
_NO_DIGITS = re.compile(r"[^\d-]")
_NO_BRACKETS = re.compile(r"[^][(){}<>]")
_WORD_BREAKS = re.compile(r"[\s,،、;.]+")


@dataclass(frozen=True)
class Task:
    """What one of the 27 tasks asks for, and what its answers look like."""

    kind: Kind
    instruction: str


@dataclass(frozen=True)
class Example:
    """A question and its right answer, as the file has them."""

    input: str
    target: str


@functools.cache
def _table() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(_TABLE.read_text("utf-8"))
    return found


@functools.cache
def tasks() -> dict[str, Task]:
    """The 27 tasks by the name of their file."""
    return {name: Task(**task) for name, task in _table()["tasks"].items()}


def load(source: Source, languages: Sequence[str]) -> Loaded:
    """The questions of the tasks that all languages have, named by their place in the task's file.

    A question whose target the table of labels cannot read is left out, and named in a note.

    Raises:
        UserError: a language has no files, a file is no task of BBH, cannot be read, or is not as long as in the other languages.
    """
    read_tasks = _remote_tasks if is_remote(source) else _local_tasks
    read = {lang: read_tasks(source, lang) for lang in languages}
    shared = [name for name in tasks() if all(name in read[lang] for lang in languages)]
    if not shared:
        raise UserError(f"{source.path}: no task is in all of {', '.join(languages)}")
    every = {name for found in read.values() for name in found}
    items: list[Item] = []
    notes: list[str] = []
    if left_out := sorted(every.difference(shared)):
        notes.append(f"{len(shared)} of {len(every)} tasks, those that all of {', '.join(read)} have; left out: {', '.join(left_out)}")
    for name in shared:
        if len({len(read[lang][name]) for lang in languages}) > 1:
            counts = ", ".join(f"{lang} {len(read[lang][name])}" for lang in languages)
            raise UserError(f"{source.path}: {name} must be parallel, but its number of examples differs: {counts}")
        for lang in languages:
            notes += _unread_labels(read[lang][name], name, lang)
            items += _items(read[lang][name], name, lang, source)
    return Loaded(items, tuple(notes))


def _unread_labels(examples: Sequence[Example], name: str, lang: str) -> list[str]:
    """A note on the targets of a task that the table cannot read."""
    unread = Counter(example.target for example in examples if read_answer(example.target, tasks()[name].kind, lang) is None)
    labels = ", ".join(f"{target!r} ({count})" for target, count in unread.items())
    return [f"{lang}: {name}: {_TABLE.name} lacks the labels {labels}; these questions are left out"] if unread else []


def _items(examples: Sequence[Example], name: str, lang: str, source: Source) -> list[Item]:
    task = tasks()[name]
    known = {f"{name}/{n}": example for n, example in enumerate(examples) if read_answer(example.target, task.kind, lang) is not None}
    order = shot_order(known, source.seed)
    items = []
    for key, example in known.items():
        shown = [known[shot] for shot in take_shots(order, source.num_shots, key)]
        blocks = [task.instruction, *(f"Q: {shot.input}\nA: {shot.target}" for shot in shown), f"Q: {example.input}\nA:"]
        items.append(Item(key, lang, "\n\n".join(blocks), (example.target,), text=example.input, group=name, max_tokens=source.max_tokens))
    return items


def score(item: Item, answer: Answer) -> dict[str, float] | None:
    """`acc`: the answer says what the target says, in any form that the table knows; `exact_match`: its text is the target."""
    task, target = tasks()[item.group], item.gold[0]
    found = read_answer(answer.text, task.kind, item.lang)
    if found is None:
        return None
    return {
        "acc": float(found == read_answer(target, task.kind, item.lang)),
        "exact_match": float(_first_line(answer.text) == target.strip()),
    }


def read_answer(text: str, kind: Kind, lang: str) -> str | None:
    """What the first line of an answer or a target says, in one form for all languages: `B`, `yes`, `-12`, small words, brackets.

    Labels count in the language and in English, since translations often leave them as they were. None: the line says nothing of its kind.
    """
    line = unicodedata.normalize("NFKC", _first_line(text)).replace("−", "-").replace("ـ", "").casefold()
    if kind == "option":
        return _option(line, lang)
    if kind == "number":
        return _number(line, lang)
    if kind == "words":
        return " ".join(filter(None, _WORD_BREAKS.split(line))) or None
    if kind == "brackets":
        return _NO_BRACKETS.sub("", line) or None
    return _label(line, {label: names for label, names in _labels(lang).items() if label in kind.split("_")})


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()


def _option(line: str, lang: str) -> str | None:
    """The only letter in parentheses; where there is none, the letter that the line begins with. Several are no answer."""
    inside = set(_PARENTHESISED.findall(line))
    if len(inside) > 1:
        return None
    if not inside:
        leading = _LEADING_LETTER.match(line)
        inside = {leading[1]} if leading else set()
    letter = next(iter(inside), "")
    plain = unicodedata.normalize("NFD", letter)[:1]  # an alif may carry a hamza
    place = max(alphabet.find(plain) if plain else -1 for alphabet in (_LETTERS, _table()["letters"].get(lang, "")))
    return _LETTERS[place].upper() if place >= 0 else None


def _number(line: str, lang: str) -> str | None:
    if found := _NUMBER.match(line):
        return str(int(_NO_DIGITS.sub("", found[1])))
    word = line.strip(" .!。")
    places = (n for code in (lang, "en") for n, names in enumerate(_table()["numbers"].get(code, [])) if word in names.split("/"))
    return next(map(str, places), None)


@functools.cache
def _labels(lang: str) -> dict[str, frozenset[str]]:
    """Names of each label, in small letters: the language's and the English ones."""
    languages: Mapping[str, Mapping[str, Sequence[str]]] = _table()["labels"]
    names = [languages["en"], languages.get(lang, {})]
    return {label: frozenset(name.casefold() for known in names for name in known.get(label, [])) for label in languages["en"]}


def _label(line: str, labels: Mapping[str, frozenset[str]]) -> str | None:
    """The label that the line begins with; behind it may stand nothing or a punctuation mark."""
    said = re.split(r"[^\w\s]", re.sub(r"^\W+", "", line), maxsplit=1)[0].strip()
    return next((label for label, names in labels.items() if said in names), None)


def _local_tasks(source: Source, lang: str) -> dict[str, list[Example]]:
    folder = Path(source.path)
    place = folder if lang == "en" and not (folder / lang).is_dir() else folder / lang
    files = sorted(place.glob("*.json"))
    if not files:
        raise UserError(f"{place}: no files TASK.json of the language {lang}")
    return {_known(path.stem, path): _examples(path) for path in files}


def _known(name: str, path: Path) -> str:
    if name not in tasks():
        raise UserError(f"{path}: no task of BBH (the tasks are: {', '.join(tasks())})")
    return name


def _examples(path: Path) -> list[Example]:
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not JSON: {' '.join(str(error).split())}") from None
    rows = found.get("examples") if isinstance(found, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f'{path}: must hold {{"examples": [{{"input": …, "target": …}}]}}')
    return [_example(row, f"{path}: example {number}") for number, row in enumerate(rows, 1)]


def _example(row: Mapping[str, Any], where: str) -> Example:
    return Example(text_of(dict(row), "input", where), text_of(dict(row), "target", where))


def _remote_tasks(source: Source, lang: str) -> dict[str, list[Example]]:
    if lang != "en":
        raise UserError(f"{source.path}: BBH on the hub is English; give a folder with LANG/TASK.json for the language {lang}")
    names = [name for name in hub_configs(source.path, source.revision) if name in tasks()]
    return {name: [_example(row, where) for where, row in remote_rows(source, name, source.split or "test")] for name in names}


BBH = Benchmark(
    name="bbh",
    paper="arXiv 2210.09261",
    measures=("acc", "exact_match"),
    load=load,
    score=score,
    num_shots=3,
    max_tokens=128,
)
