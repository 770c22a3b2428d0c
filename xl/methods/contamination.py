"""The stage that keeps what a recipe evaluates on out of its dataset; every method has it, just before the dataset is drawn."""

from collections.abc import Sequence

from xl.evaluate.benchmarks.references import read_references
from xl.evaluate.benchmarks.run import Benchmarking, read_items
from xl.evaluate.prompts import load_prompts
from xl.pages.contamination import drop_contaminated, index_benchmarks
from xl.recipe import Recipe
from xl.stage import Stage


def uncontaminated(recipe: Recipe, columns: Sequence[str]) -> list[Stage]:
    """Drop rows of which one of these columns shares a long piece with a prompt or a benchmark of the recipe.

    No stage where nothing is evaluated, or where `contamination.drop` is false. Raises UserError when prompts or benchmarks cannot be read.
    """
    settings = recipe.contamination
    texts = evaluated_texts(recipe) if settings.drop else {}
    return [drop_contaminated(index_benchmarks(texts, settings.num_words, settings.num_chars), columns)] if texts else []


def evaluated_texts(recipe: Recipe) -> dict[str, list[str]]:
    """What the recipe's prompts and benchmarks say, by their names."""
    texts: dict[str, list[str]] = {}
    if recipe.evaluate:
        prompts = recipe.evaluate.prompts
        rows = load_prompts(prompts, recipe.evaluate.languages or recipe.languages, recipe.seed).rows
        instructions = dict.fromkeys(row["instruction"] for row in rows)
        texts["prompts"] = [*instructions, *(row["reference"] for row in rows if row["reference"])]
    if recipe.benchmarks:
        items, _ = read_items(
            Benchmarking(tuple(task.model_copy(update={"limit": None}) for task in recipe.benchmarks), recipe.languages, recipe.seed, {})
        )
        for item in items:
            texts.setdefault(item["task"], []).append(item["text"])
    for task in recipe.benchmarks:
        if task.reference:
            texts[task.task] += read_references(task.reference, task.languages or recipe.languages).answers.values()
    return texts
