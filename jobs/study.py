"""Did the model learn from the pairs, or only from being asked for a language? The control that tells the two apart.

python jobs/study.py runs/demo --out runs/study

A finished run's training is made again on its true pairs and on shuffled ones, where every instruction is learned with another pair's
response in the same language, with several seeds each. What both arms learn alike comes from the request for the language; only
what true pairs teach beyond it comes from the pairs. The same command again continues.
"""

from pathlib import Path
from typing import Annotated

import typer

from xl.cli import console, guarded
from xl.errors import UserError
from xl.evaluate.language import Verdict
from xl.options import Address
from xl.records import Row
from xl.storage import local_place, place

commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

MEASURES = {"answers in the wanted language": "right", "answers that fit their own prompt best": "fits_tuned"}


@commands.command()
def main(
    run: Annotated[Path, typer.Argument(metavar="RUN", parser=place, help="A finished run with a training and an evaluation.")],
    out: Annotated[Path, typer.Option(parser=local_place, metavar="FOLDER", help="The study's folder.")],
    num_seeds: Annotated[int, typer.Option(min=1, help="Trainings of each kind.")] = 3,
    address: Address = None,
) -> None:
    """Compare training on true pairs with training on shuffled ones."""
    from xl.folder import open_finished_run
    from xl.pipeline import Engines
    from xl.ray_session import ray_session
    from xl.summary import recipe_of

    opened = open_finished_run(run)
    recipe = recipe_of(opened)
    if recipe.train is None or recipe.evaluate is None or not recipe.evaluate.num_others:
        raise UserError(f"{run}: its recipe has no `train:` or no `evaluate:` with `num_others`, so there is nothing to study")
    found: dict[str, list[list[Row]]] = {"shuffled": [], "true": []}
    with ray_session(address), Engines(console) as engines:
        for seed in range(num_seeds):
            for kind, trials in found.items():
                console.print(f"[bold]{kind} pairs, seed {seed}[/bold]")
                trials.append(_trial(opened, recipe, out / f"{kind}-{seed}", kind == "shuffled", seed, engines))
                engines.close()
    _tell(found, recipe.seed)


def _trial(opened, recipe, folder: Path, shuffled: bool, seed: int, engines) -> list[Row]:  # type: ignore[no-untyped-def]
    """One training and its evaluation; returns the answers, with what was measured of each."""
    from xl.evaluate.rows import finished_rows
    from xl.evaluate.run import Evaluation, run_evaluation
    from xl.folder import RunFolder, locked
    from xl.pipeline import find_model, tuned_role
    from xl.train.trainer import train

    base = recipe.model_for("base")
    settings = recipe.train.model_copy(update={"shuffled_responses": shuffled, "seed": seed})
    if not (folder / "training" / "model").exists():
        engines.make_room_for(settings)
    train(opened.dataset, find_model(base), folder / "training", settings, console=console)
    # Whether answers fit their prompts is the study's question, so that every answer is scored for it.
    asked = recipe.evaluate.model_copy(update={"arms": ("tuned",), "judge": None, "num_fit_prompts": None})
    roles = {"base": (base, find_model(base)), "tuned": tuned_role(base, folder / "training")}
    evaluated = RunFolder(folder / "evaluation")
    evaluated.root.mkdir(parents=True, exist_ok=True)
    with locked(evaluated):
        run_evaluation(Evaluation(asked, asked.languages or recipe.languages, recipe.seed, roles), evaluated, engines, console)
    rows = finished_rows(evaluated, "verdicts")
    return [{**row, "right": row["verdict_tuned"] == Verdict.RIGHT} for row in rows]


def _tell(found: dict[str, list[list[Row]]], seed: int) -> None:
    """The table, and in words whether true pairs beat shuffled ones."""
    from xl.compare import compare_scores, print_comparison

    figures = []
    for measure, column in MEASURES.items():
        scores = {
            kind: [{(row["prompt"], row["lang"]): float(row[column]) for row in rows if row[column] is not None} for rows in trials]
            for kind, trials in found.items()
        }
        figures.append(compare_scores(measure, scores, seed)[0])
    print_comparison(figures, {kind: len(trials) for kind, trials in found.items()}, console)
    low, high = figures[-1].differences["true"][1]
    verdict = "teach more about the subject than" if low > 0 else "teach less about the subject than" if high < 0 else "cannot be told from"
    console.print(f"True pairs {verdict} shuffled ones, by how often an answer fits its own prompt best (95 % interval).")


if __name__ == "__main__":
    guarded(commands)
