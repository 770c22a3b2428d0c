"""The stages that keep what a recipe evaluates on out of its dataset; every method has them, also one's own, before the dataset is drawn.

They stand behind all that asks a model: another benchmark costs no call. Where nothing is asked they come first, before a filter has
dropped the row that its document is known by.
"""

import contextlib
from collections.abc import Iterator, Sequence

from xl.errors import UserError
from xl.evaluate.benchmarks.references import read_references
from xl.evaluate.benchmarks.settings import Task
from xl.evaluate.benchmarks.task import Item
from xl.evaluate.prompts import QUESTION_SEED, load_prompts
from xl.pages.contamination import DROPS, drop_contaminated, index_benchmarks
from xl.recipe import PageRecipe, Recipe
from xl.stage import Stage, WholeStage

DATASET_TEXTS = ("text", "instruction", "request", "response")
"""Columns of any method's last rows that can come into the dataset."""


def uncontaminated(recipe: Recipe, columns: Sequence[str]) -> list[Stage]:
    """Drop rows of which one of these columns shares a long piece with a prompt or a benchmark of the recipe, and all of their documents.

    No stage where nothing is evaluated, or where `contamination.drop` is false. Raises UserError when prompts or benchmarks cannot be read.
    """
    settings = recipe.contamination
    texts = evaluated_texts(recipe) if settings.drop else {}
    return [*drop_contaminated(index_benchmarks(texts, settings.num_words, settings.num_chars), columns)] if texts else []


def without_contaminated(recipe: Recipe, stages: Sequence[Stage]) -> list[Stage]:
    """The stages of a method of one's own, with those of `uncontaminated` where it has not called that itself.

    They look at `DATASET_TEXTS`, and stand before the whole stages at the method's end, so that a quota is drawn from what is left; but
    behind such a one that sets what they go by.
    """
    if any(stage.name == DROPS for stage in stages):
        return [*stages]
    place = len(stages)
    while place and _only_draws(stages[place - 1]):
        place -= 1
    return [*stages[:place], *uncontaminated(recipe, DATASET_TEXTS), *stages[place:]]


def _only_draws(stage: Stage) -> bool:
    return isinstance(stage, WholeStage) and {*DATASET_TEXTS, "document", "url"}.isdisjoint(stage.adds.names)


def evaluated_texts(recipe: Recipe) -> dict[str, list[str]]:
    """What the recipe's prompts and benchmarks say, by their names."""
    texts: dict[str, list[str]] = {}
    if recipe.evaluate:
        prompts = recipe.evaluate.prompts
        rows = load_prompts(prompts, recipe.evaluate.languages or recipe.languages, QUESTION_SEED).rows
        instructions = dict.fromkeys(row["instruction"] for row in rows)
        texts["prompts"] = [*instructions, *(row["reference"] for row in rows if row["reference"])]
    for task in recipe.benchmarks:
        found = texts.setdefault(task.task, [])
        for item in _items(task, recipe):
            found += filter(None, (item.text, item.question))
        if task.reference:
            found += read_references(task.reference, task.languages or recipe.languages).answers.values()
    return texts


def _items(task: Task, recipe: Recipe) -> Iterator[Item]:
    """All that a benchmark asks, also in the languages that rows begin in or pass through: translated, they would give its answers away."""
    source, asked = task.source(QUESTION_SEED), task.languages or recipe.languages
    yield from task.benchmark.load(source, asked).items
    pages = recipe.page_languages if isinstance(recipe, PageRecipe) else ()
    for lang in dict.fromkeys((*recipe.languages, *pages, "en")):
        if lang not in asked:
            with contextlib.suppress(UserError):  # the benchmark is not in this language
                yield from task.benchmark.load(source, (lang,)).items
