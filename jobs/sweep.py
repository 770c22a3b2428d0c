"""Which learning rate? A finished run's training is made again at several, and one is chosen by language accuracy and loss together.

python jobs/sweep.py runs/demo --learning-rates 1e-4,3e-4,1e-3 --out runs/sweep                  on Ray, started for this alone
ray job submit --working-dir . -- python jobs/sweep.py … --address auto                          on a cluster, side by side

Ray Tune runs a trial for each rate: a training on a part of the run's dataset, the loss on the pairs that were held out of it, and the
language of the answers to the recipe's `evaluate.prompts`. The same command again continues, and takes further rates.
"""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from xl.cli import console, guarded
from xl.errors import UserError
from xl.options import Address
from xl.storage import local_place, place

commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@commands.command()
def main(
    run: Annotated[Path, typer.Argument(metavar="RUN", parser=place, help="A finished run.")],
    learning_rates: Annotated[str, typer.Option(metavar="RATE,RATE…", help="What is tried, such as 1e-5,2e-5,1e-4.")],
    out: Annotated[
        Path,
        typer.Option(parser=local_place, metavar="FOLDER", help="The sweep's folder; on a cluster one that all nodes see."),
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the run's recipe, such as train.epochs=1.")
    ] = None,
    held_out: Annotated[float, typer.Option(min=0.001, max=0.5, help="Share of the pairs that no trial trains on.")] = 0.1,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what the folder holds and start over.")] = False,
    address: Address = None,
    num_cpus: Annotated[int | None, typer.Option(min=1, help="CPUs that a local Ray may use; by default all.")] = None,
) -> None:
    """Sweep learning rates, or go on sweeping: the same command again continues."""
    from xl.engines.models import prepare
    from xl.ray_session import ray_session
    from xl.sweep import claimed, needs, run_sweep

    rates = _rates(learning_rates)
    sweep = _sweep(run, set_ or [], held_out, out.absolute())
    prepare(sweep.base[1])
    with claimed(sweep, fresh), ray_session(address, max(num_cpus or os.cpu_count() or 1, int(needs(sweep)["CPU"]))):
        _tell(run_sweep(sweep, rates, console), rates)


def _rates(text: str) -> list[float]:
    try:
        rates = sorted({float(part) for part in text.split(",")})
    except ValueError as error:
        raise UserError(f"--learning-rates {text}: {error}") from None
    if len(rates) < 2 or rates[0] <= 0:
        raise UserError(f"--learning-rates {text}: at least two different rates above 0 are wanted, such as 1e-5,1e-4")
    return rates


def _sweep(run: Path, overrides: list[str], held_out: float, out: Path):  # type: ignore[no-untyped-def]
    """What the run's recipe says of its training and its evaluation, less what would not help to choose."""
    from xl.folder import open_finished_run
    from xl.methods import check_recipe
    from xl.pipeline import find_model
    from xl.recipe import overridden, parse_override
    from xl.sweep import Sweep

    opened = open_finished_run(run)
    given = overridden(opened.info["recipe"], dict(parse_override(text) for text in overrides))
    recipe = check_recipe(given, str(run / "run.json"))
    if recipe.train is None or recipe.evaluate is None:
        raise UserError(f"{run}: its recipe has no `train:` or no `evaluate:`, so there is nothing to sweep; --set can give them")
    asked = recipe.evaluate.model_copy(update={"arms": ("tuned",), "num_others": 0, "judge": None})
    base = recipe.model_for("base")
    languages = asked.languages or recipe.languages
    return Sweep(opened.dataset, (base, find_model(base)), recipe.train, asked, languages, recipe.seed, held_out, out)


def _tell(found, rates: list[float]) -> None:  # type: ignore[no-untyped-def]
    """The table, the rule and the choice."""
    from xl.sweep import RULE

    table = Table(title=f"{found.num_answers:,} answers of each, and pairs held out", title_justify="left", header_style="bold")
    for heading in ("learning rate", "in the wanted language", "less the best", "held-out loss", ""):
        table.add_column(heading, justify="right")
    for trial in found.trials:
        accuracy, loss, (low, high) = trial.accuracy, trial.loss, trial.difference
        is_chosen = trial.learning_rate == found.chosen
        table.add_row(
            f"{trial.learning_rate:g}",
            f"{accuracy.value:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}]",
            f"[{low:+.3f}, {high:+.3f}]",
            f"{loss.value:.4f} [{loss.low:.4f}, {loss.high:.4f}]" if loss else "diverged",
            "chosen" if is_chosen else "" if trial.is_candidate else "out",
            style="bold" if is_chosen else "",
        )
    console.print(table)
    console.print(f"{RULE} 95 % intervals over prompts and over pairs, of one training each.", highlight=False)
    if found.chosen in (min(rates), max(rates)):
        console.print("The chosen rate is the first or the last that was tried: one beyond it may do better.", highlight=False)
    console.print(f"To use it: --set train.learning_rate={found.chosen:g}", highlight=False)


if __name__ == "__main__":
    guarded(commands)
