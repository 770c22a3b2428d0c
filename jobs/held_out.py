"""How good are the models that an X-Instruction run trained for itself? They are asked about the seeds that they were not trained on.

python jobs/held_out.py runs/x_instruction_paper_cpu
python jobs/held_out.py runs/x_instruction_paper_cpu --labelled pairs.jsonl

Prints, with 95 % intervals: how near the trained and the prompted writer come to the true instruction (chrF) and how often what they write
finds its own page among 20; and how well the trained rater, the prompted one and the likelihood margin tell pairs that fit from pairs
that do not, also where these are hard to tell (the nearest other instruction, a swapped name, a question about a detail), and where people
said whether they fit (`--labelled`: rows of `lang`, `instruction`, `text` and `label`, 1 or 0). The trained rater is the one of the first
round; RUN/rounds.json has those of later rounds too. The same command again continues.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from xl.cli import console, guarded
from xl.errors import UserError
from xl.options import Address
from xl.storage import place

commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@commands.command()
def main(
    run: Annotated[Path, typer.Argument(metavar="RUN", parser=place, help="A finished run of X-Instruction with held-out seeds.")],
    labelled: Annotated[
        list[str] | None,
        typer.Option("--labelled", metavar="FILE", help="Pairs that people labelled. Repeatable."),
    ] = None,
    address: Address = None,
) -> None:
    """Measure a run's reverse model and evaluator on its held-out seeds."""
    from xl.folder import check_shared, locked, open_run
    from xl.methods.held_out import HeldOut, measure
    from xl.methods.x_instruction import Recipe
    from xl.pairs.labelled import read_labelled
    from xl.pipeline import Engines, as_tuned, find_model
    from xl.ray_session import ray_session
    from xl.runs import resolve_models
    from xl.summary import recipe_of

    opened = open_run(run)
    recipe = recipe_of(opened)
    if not isinstance(recipe, Recipe) or not recipe.seeds or not recipe.seeds.num_held_out:
        raise UserError(f"{run}: its recipe has no `seeds` with `num_held_out`, so there is nothing to measure with")
    rating = recipe.rating
    pairs = read_labelled(labelled, rating.num_contrasts, recipe.seed, rating.num_near_contrasts) if labelled else []
    models, trainings = resolve_models(recipe, opened)
    untrained = {"prompted": recipe.model_for("writer"), "prompted_rater": recipe.model_for("rater")}
    roles = {name: (model, find_model(model)) for name, model in untrained.items()}
    own = {"trained": "writer", "evaluator": "rater"}
    roles |= {name: (as_tuned(recipe.model_for(role)), models[role]) for name, role in own.items() if role in trainings}
    with locked(opened), ray_session(address), Engines(console) as engines:
        check_shared(opened)
        found: HeldOut = measure(recipe, opened, roles, engines, console, pairs)
    table = Table(title=f"writers on {found.num_seeds} held-out seeds", title_justify="left", header_style="bold")
    for heading in ("writer", "chrF to the true instruction", "finds its page among 20"):
        table.add_column(heading)
    for name, score in found.writers.items():
        table.add_row(name, *(f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in (score.chrf, score.retrieval)))
    console.print(table)
    table = Table(title="raters on pairs made of them: area under the ROC curve", title_justify="left", header_style="bold")
    for heading in ("rater", "all", "against hard negatives"):
        table.add_column(heading)
    for name, rated in found.raters.items():
        areas = ((rated.auc, rated.interval), (rated.hard_auc, rated.hard_interval))
        table.add_row(name, *(f"{area:.3f} [{low:.3f}, {high:.3f}]" for area, (low, high) in areas))
    console.print(table)
    if found.labelled:
        table = Table(title=f"raters on {found.num_labelled} pairs that people labelled", title_justify="left", header_style="bold")
        for heading in ("rater", "pairs read", "area under the ROC curve"):
            table.add_column(heading)
        for name, judged in found.labelled.items():
            low, high = judged.interval
            table.add_row(name, str(judged.num_read), f"{judged.auc:.3f} [{low:.3f}, {high:.3f}]")
        console.print(table)


if __name__ == "__main__":
    guarded(commands)
