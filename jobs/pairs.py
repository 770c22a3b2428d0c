"""Make the dataset of a recipe, from pages to pairs, and leave training and evaluation to another job.

ray job submit --working-dir . -- python jobs/pairs.py RECIPE --out /shared/runs/first

`jobs/train.py` tunes a model on the folder `dataset` there; `jobs/run.py` goes on with all that the recipe says.
"""

import typer

from xl.cli import Limit, Out, Overrides, RecipePath, guarded, run
from xl.options import Address

commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@commands.command()
def main(recipe: RecipePath, out: Out = None, set_: Overrides = None, limit: Limit = None, address: Address = None) -> None:
    """Make pairs, or go on making them: the same command again continues."""
    run(recipe, out, set_, limit, until="dataset", address=address)


if __name__ == "__main__":
    guarded(commands)
