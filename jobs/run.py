"""Run a whole recipe: pages to a dataset, the dataset to a model, the model to a verdict. It is `xl run`, as a job.

ray job submit --working-dir . -- python jobs/run.py RECIPE --out /shared/runs/first

The same command again continues. `xl submit` does this, follows the log, and starts the job again where the cluster lost it.
"""

import typer

from xl.cli import guarded, run

commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
commands.command()(run)

if __name__ == "__main__":
    guarded(commands)
