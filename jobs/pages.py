"""Filter the pages of a recipe, up to the first step that asks a model: what a cluster without GPUs can do ahead.

ray job submit --working-dir . -- python jobs/pages.py RECIPE --out /shared/runs/first

`jobs/pairs.py` or `jobs/run.py` with the same folder go on from there.
"""

import typer

from xl.cli import Limit, Out, Overrides, RecipePath, guarded, run
from xl.options import Address

commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@commands.command()
def main(recipe: RecipePath, out: Out = None, set_: Overrides = None, limit: Limit = None, address: Address = None) -> None:
    """Filter pages, or go on filtering: the same command again continues."""
    run(recipe, out, set_, limit, until="pages", address=address)


if __name__ == "__main__":
    guarded(commands)
