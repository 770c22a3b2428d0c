"""What does drawing instructions equally from clusters gain over drawing them at random?

python jobs/diversity.py runs/demo

Takes the pairs of a finished X-Instruction run as they were before any draw, less those that the recipe's cap for topics drops. Clusters
each language's instructions, draws the same share of them equally and at random with three seeds, and prints the share of clusters that the
draws hit and the entropies of clusters and topics.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Annotated

import pyarrow.compute as pc
import typer
from rich.table import Table

from xl.cli import console, guarded
from xl.errors import UserError
from xl.folder import RunFolder
from xl.methods.x_instruction import Recipe
from xl.pairs.coverage import SEEDS, Coverage
from xl.records import Row, Status
from xl.storage import place

commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

MEASURES = {"cluster_ratio": "clusters hit", "cluster_entropy": "entropy of clusters", "topic_entropy": "entropy of topics"}


@commands.command()
def main(
    run: Annotated[Path, typer.Argument(metavar="RUN", parser=place, help="A finished run of X-Instruction.")],
    drawn_ratio: Annotated[float, typer.Option(min=0, max=0.5, help="Share of each language's pairs that is drawn.")] = 0.25,
    num_clusters: Annotated[int | None, typer.Option(min=1, help="Clusters per language; by default as the recipe says.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare equal draws of a run's pairs with random ones."""
    from xl.engines.models import resolve
    from xl.folder import open_run
    from xl.pairs.coverage import coverage
    from xl.pairs.diversify import Diversity
    from xl.summary import recipe_of

    opened = open_run(run)
    recipe = recipe_of(opened)
    if not isinstance(recipe, Recipe):
        raise UserError(f"{run}: its method is {recipe.method}; instructions are drawn from clusters by x_instruction alone")
    if not opened.info.get("finished") or opened.info.get("cleaned"):
        raise UserError(f"{run} is not finished or was cleaned; run its recipe again, with --fresh if it was cleaned")
    diversity = recipe.diversity or Diversity()
    if num_clusters:
        diversity = diversity.model_copy(update={"num_clusters": num_clusters})
    found = coverage(_candidates(opened, recipe), diversity, resolve(diversity.model), drawn_ratio)
    if as_json:
        print(json.dumps({lang: asdict(entry) for lang, entry in found.items()}, indent=1))
    else:
        console.print(_table(found, drawn_ratio))


def _candidates(run: RunFolder, recipe: Recipe) -> list[Row]:
    """What a draw is made from, whether or not the run has one."""
    from xl.pairs.mix import choose_pairs
    from xl.summary import shard_names

    stage = "uncontaminated" if "uncontaminated" in run.info["stages"] else "accepted"
    store = run.store(stage)
    tables = [store.read(shard, ["id", "lang", "instruction", "topic", "status"]) for shard in shard_names(run)]
    pairs = [table.filter(pc.field("status") == Status.KEPT.value) for table in tables]
    dropped = choose_pairs(None, recipe.pairs.max_topic_ratio, recipe.seed).survey(iter(pairs))
    return [row for table in pairs for row in table.to_pylist() if row["id"] not in dropped]


def _table(found: dict[str, Coverage], drawn_ratio: float) -> Table:
    title = f"draws of {drawn_ratio:.0%} of each language's pairs: mean, least and greatest of {len(SEEDS)} seeds; entropies in bits"
    table = Table(title=title, title_justify="left", header_style="bold")
    for heading in ("language", "pairs", "drawn", "clusters", "draw", *MEASURES.values()):
        table.add_column(heading)
    for lang, entry in found.items():
        sizes = (lang, *(f"{n:,}" for n in (entry.num_candidates, entry.num_drawn, entry.num_clusters)))
        for kind, heads in (("equal", sizes), ("random", ("",) * len(sizes))):
            draws = getattr(entry, kind)
            table.add_row(*heads, kind, *(_spread(getattr(draw, measure) for draw in draws) for measure in MEASURES))
    return table


def _spread(values: Iterable[float]) -> str:
    every = list(values)
    return f"{mean(every):.2f} [{min(every):.2f}, {max(every):.2f}]"


if __name__ == "__main__":
    guarded(commands)
