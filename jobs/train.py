"""Tune a model on a dataset of pairs.

python jobs/train.py runs/demo/dataset --model packaged/gemma-3-270m --out runs/tuned            on Ray, started for this alone
ray job submit --working-dir . -- python jobs/train.py … --address auto --set workers=8           on a cluster
torchrun --nproc-per-node 8 jobs/train.py … --no-ray                                             without Ray
"""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from xl.cli import console, guarded
from xl.options import Address
from xl.storage import place

commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@commands.command()
def main(
    dataset: Annotated[
        Path, typer.Argument(parser=place, metavar="DATASET", help="Parquet or JSON Lines file of pairs, or a folder of Parquet files.")
    ],
    model: Annotated[str, typer.Option(help="Hub id, local folder, or packaged/NAME.")],
    out: Annotated[
        Path,
        typer.Option(
            parser=place, metavar="FOLDER", help="The training's folder; on a cluster one that all nodes see, or s3://… or gs://…."
        ),
    ],
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as tune=lora. Repeatable.")] = None,
    ray: Annotated[bool, typer.Option(help="Whether Ray Train starts the workers; --no-ray for torchrun or a single process.")] = True,
    address: Address = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what the folder holds and start over.")] = False,
) -> None:
    """Train, or go on training: the same command again continues."""
    from xl.engines.models import resolve
    from xl.ray_session import ray_session
    from xl.recipe import checked, overridden, parse_override
    from xl.train.settings import Train
    from xl.train.trainer import train

    settings = checked(Train, overridden({}, dict(parse_override(text) for text in set_ or ())), "--set")
    weights = resolve(model)
    num_cpus = settings.workers * settings.cpus_per_worker + 1
    with ray_session(address, num_cpus) if ray else nullcontext():
        result = train(dataset, weights, out, settings, use_ray=ray, fresh=fresh, console=console)
    if os.environ.get("RANK", "0") == "0":
        report(result)


def report(result: Any) -> None:
    """Say what came of it."""
    first, last = result.metrics[0], result.metrics[-1]
    tokens = result.tokens
    print(f"pairs: {tokens.num_documents:,} of {tokens.num_rows:,}, {tokens.num_truncated:,} cut, dropped {dict(tokens.dropped)}")
    print(f"loss: {first.loss:.4f} → {last.loss:.4f} in {last.step:,} steps")
    print(f"model: {result.model}" + (f"\nadapter: {result.adapter}" if result.adapter else ""))


if __name__ == "__main__":
    guarded(commands)
