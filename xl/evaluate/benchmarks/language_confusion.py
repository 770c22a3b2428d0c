"""Language Confusion Benchmark: does a model answer in the language that the user writes in, or asks for?

Marchisio et al., "Understanding and Mitigating Language Confusion in LLMs", EMNLP 2024 (arXiv 2406.20052). Two tasks: `monolingual`,
prompts in the language itself, and `crosslingual`, English prompts that ask for it. Answers are drawn as in the paper: temperature 0.3,
top-p 0.75, at most 100 tokens. Its base models are shown examples; ours are asked in the wording of the training.

`line_pass_rate` and `word_pass_rate` are the paper's (`xl.evaluate.language_confusion` says what differs): an answer without a line of five
tokens has none, and one with a line in another language, or in a language of Latin script, no word pass rate. `in_language` takes an answer
as a whole and counts what cannot be told as a miss. All of a language's answers are pooled in these; beside them stands each task alone, a
language's rate as the mean of its sources, as the paper's tables and its script have it.

Read are the release's files, TASK/SOURCE/LANG.csv, below a folder; or one table with the columns `prompt` and `language`. A prompt is named
by its place: the crosslingual files are parallel, line by line.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from xl.errors import UserError
from xl.evaluate.benchmarks import open_ended
from xl.evaluate.benchmarks.task import Answer, Benchmark, Item, Loaded, Source
from xl.evaluate.language_confusion import BENCHMARK_LANGUAGES, check_answer, default_identifiers
from xl.evaluate.prompts import PromptSet

TASKS = ("monolingual", "crosslingual")
RATES = ("line_pass_rate", "word_pass_rate")


def load(source: Source, languages: Sequence[str]) -> Loaded:
    """The prompts in these languages; a folder's are grouped by task and source. Raises UserError."""
    found = _from_folder(source, languages) if Path(source.path).is_dir() else _from_table(source.path, source, languages)
    outside = sorted(set(languages) - BENCHMARK_LANGUAGES)
    note = f"not in the published benchmark, whose rule suits them badly: {', '.join(outside)}"
    return open_ended.together([found, Loaded([], (note,) if outside else ())])


def _from_folder(source: Source, languages: Sequence[str]) -> Loaded:
    folder = Path(source.path)
    files = [(path, lang) for task in TASKS for lang in languages for path in sorted((folder / task).glob(f"*/{lang}.csv"))]
    if missing := [lang for lang in languages if lang not in {lang for _, lang in files}]:
        raise UserError(f"{folder}: no file {TASKS[0]}/SOURCE/{missing[0]}.csv or {TASKS[1]}/SOURCE/{missing[0]}.csv in it")
    return open_ended.together([_from_table(str(path), source, [lang], " ".join(path.parts[-3:-1])) for path, lang in files])


def _from_table(path: str, source: Source, languages: Sequence[str], group: str = "") -> Loaded:
    columns = {"instruction": "prompt", "lang": "language", "clauses": "none"}
    prompts = PromptSet.model_validate({"from": path, "split": source.split, "revision": source.revision, **columns})
    return open_ended.load_requests(prompts, source, languages, group=group)


def score(item: Item, answer: Answer) -> Mapping[str, float] | None:
    """The measures of `open_ended`, and the paper's two where the answer has them; None for an empty answer."""
    measures = open_ended.score(item, answer)
    if measures is None:
        return None
    check = check_answer(answer.text, item.lang, default_identifiers("published"), "published")
    passed: dict[str, float] = {}
    if check.num_lines:
        passed["line_pass_rate"] = float(check.passes_lines)
    if check.passes_lines and check.english_words is not None:
        passed["word_pass_rate"] = float(not check.english_words)
    return {**measures, **passed}


LANGUAGE_CONFUSION = Benchmark(
    name="language_confusion",
    paper="arXiv 2406.20052",
    measures=("in_language", *RATES, "not_repetitive"),
    load=load,
    score=score,
    partial=RATES,
    settings=TASKS,
    max_tokens=100,
    is_open=True,
    temperature=0.3,
    top_p=0.75,
)
