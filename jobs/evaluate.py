"""Evaluate models without a run around them.

python jobs/evaluate.py jobs/recipes/evaluate.yaml --out runs/evaluated
ray job submit --working-dir . -- python jobs/evaluate.py … --address auto        on a cluster

The file says which models answer what, and who judges:

    languages: [de, sw, th]
    models:
      base:  {model: google/gemma-3-270m}
      tuned: {model: runs/demo/training/model}
      judge: {model: some-judge, engine: openai, url: "https://…/v1", api_key_env: JUDGE_KEY}
    evaluate: {prompts: {from: prompts.jsonl}, arms: [base, tuned], judge: {kind: ab}}
    examples: runs/demo/dataset        # for the arm few_shot
    seed: 7
"""

from pathlib import Path
from typing import Annotated

import typer

from xl.cli import console, guarded
from xl.options import Address
from xl.storage import place

commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@commands.command()
def main(
    recipe: Annotated[Path, typer.Argument(help="What is evaluated, a YAML file.")],
    out: Annotated[Path, typer.Option(parser=place, metavar="FOLDER", help="The evaluation's folder, or s3://… or gs://….")],
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key. Repeatable.")] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Redo what changed settings touch; keep the rest.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Do the failed rows once more.")] = False,
    address: Address = None,
) -> None:
    """Evaluate, or go on evaluating: the same command again continues."""
    from xl.evaluate.outcome import outcome, print_outcome
    from xl.evaluate.recipe import load_evaluation
    from xl.evaluate.run import run_evaluation
    from xl.folder import check_shared, claim, locked
    from xl.pipeline import Engines
    from xl.ray_session import ray_session
    from xl.recipe import parse_override
    from xl.summary import print_ledger

    evaluation = load_evaluation(recipe, dict(parse_override(text) for text in set_ or ()))
    run = claim(out)
    with locked(run), ray_session(address), Engines(console) as engines:
        check_shared(run)
        run_evaluation(evaluation, run, engines, console, redo=redo, retry_failed=retry_failed)
    print_ledger(run, console)
    print_outcome(outcome(run, evaluation.languages, {}, evaluation.seed), console)


if __name__ == "__main__":
    guarded(commands)
