"""What a run would do, from its recipe alone: stages, models, input, disk."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal

from xl import storage
from xl.folder import RunFolder
from xl.methods import method_stages
from xl.pages.language import LANGUAGE_NAMES
from xl.recipe import Recipe
from xl.stage import RowStage, Stage
from xl.store import StageStore


@dataclass(frozen=True)
class Outline:
    """A plan in lines, as they are shown, and the stages that they name."""

    lines: list[str]
    stages: list[Stage]
    num_files: int
    num_bytes: int


def outline(recipe: Recipe, out: Path, limit: int | None) -> Outline:
    """What a run would do. Raises UserError for an input or a model that is not there."""
    from xl.runs import resolve_models

    files = recipe.files()
    names = ", ".join(f"{LANGUAGE_NAMES[lang]} ({lang})" for lang in recipe.languages)
    num_bytes = sum(file.size for file in files)
    most = f", at most {limit:,} pages a language" if limit else ""
    lines = [f"method {recipe.method}; {names}", f"input: {len(files):,} files, {decimal(num_bytes)}{most}"]
    models, trainings = resolve_models(recipe, RunFolder(out))
    for role, training in trainings.items():
        more = f", and on what the run's stage {training.lessons.stage} chooses" if training.lessons else " first"
        lines.append(f"  {role}: {training.base.name} is tuned on {training.amount}{more}")
    stages = method_stages(recipe, models)
    for stage in stages:
        kind = "row by row" if isinstance(stage, RowStage) else "all rows at once"
        engine = f", asks {recipe.model_for(stage.model).model}" if isinstance(stage, RowStage) and stage.model else ""
        state = StageStore(out / "stages" / stage.name)
        sealed = len(list(state.shards_folder.glob("*.parquet"))) if state.shards_folder.exists() else 0
        lines.append(f"  {stage.name}: {kind}{engine}" + (f"; {sealed:,} shards are sealed" if sealed else ""))
    if recipe.train:
        tuned = f"{recipe.train.tune} tuning of {recipe.model_for('base').model}"
        lines.append(f"  training: {tuned} by {recipe.train.workers} workers with ZeRO {recipe.train.zero}")
    if asked := recipe.evaluate:
        num_languages = len(asked.languages or recipe.languages)
        by = f", judged by {recipe.model_for('judge').model}" if asked.judge else ""
        lines.append(f"  evaluation: {asked.prompts.from_} in {num_languages} languages, arms {', '.join(asked.arms)}{by}")
    wanted = f"disk: about {decimal(5 * num_bytes)} wanted"
    if storage.is_local(out):
        place = next(p for p in (out, *out.resolve().parents) if p.exists())
        wanted += f", {decimal(storage.free_bytes(place))} free"
    lines.append(wanted)
    return Outline(lines, stages, len(files), num_bytes)


def print_outline(found: Outline, console: Console) -> None:
    """The plan's lines."""
    for line in found.lines:
        console.print(line, highlight=False)
