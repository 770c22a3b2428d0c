"""`xl eval`: benchmarks on a model or an endpoint alone, without a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from xl.errors import UserError
from xl.evaluate.benchmarks.task import OutputType
from xl.evaluate.prompts import QUESTION_SEED
from xl.options import Address
from xl.storage import place


def evaluate(
    task: Annotated[list[str], typer.Option(metavar="NAME", help="A benchmark, such as xquad. Repeatable, each with its own --from.")],
    from_: Annotated[
        list[str],
        typer.Option("--from", metavar="PATH", help="Its file or folder, or its id on the hub; one for each --task, in order."),
    ],
    languages: Annotated[str, typer.Option(metavar="CODES", help="Languages, such as de,es.")],
    model: Annotated[str, typer.Option(help="A hub id, model folder or packaged/NAME; with --url the name that the endpoint knows.")],
    out: Annotated[
        Path,
        typer.Option(
            parser=place, metavar="FOLDER", help="The evaluation's folder, or s3://… or gs://…; the same command again goes on in it."
        ),
    ],
    url: Annotated[str | None, typer.Option(help="An OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1.")] = None,
    api_key_env: Annotated[str, typer.Option(help="Environment variable that holds the endpoint's key.")] = "OPENAI_API_KEY",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key of the recipe's models, such as gpus=1 or judge.gpus=1. Repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask at most so many questions of each language, the same in all.")] = None,
    num_shots: Annotated[int | None, typer.Option(min=0, help="Examples in the prompt; by default the benchmark's.")] = None,
    output_type: Annotated[
        OutputType | None,
        typer.Option(help="Options by likelihood (the default), or by the letter that the model writes, which any endpoint can."),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest written answer; by default the benchmark's.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="Of answers in free text; by default the benchmark's.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1, help="Of answers in free text; by default the benchmark's.")] = None,
    style: Annotated[str | None, typer.Option(help="A sentence that every request for free text ends with.")] = None,
    judge: Annotated[str | None, typer.Option(metavar="MODEL", help="Compares answers in free text with those of --reference.")] = None,
    judge_url: Annotated[str | None, typer.Option(metavar="URL", help="The judge's endpoint; without one it runs here.")] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="FILE", help="Answers to compare with, in AlpacaEval's format: instruction, output, lang.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Part of the benchmark; by default the one that papers report.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a benchmark on the hub.")] = None,
    seed: Annotated[int, typer.Option(help="Draws the examples, the questions below --limit, and the intervals.")] = QUESTION_SEED,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and what happens on stderr.")] = False,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write the files of lm-evaluation-harness, and AlpacaEval's of free text.")
    ] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Ask anew what other settings touch; keep the rest.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask the failed questions once more.")] = False,
    address: Address = None,
    num_cpus: Annotated[int | None, typer.Option(min=1, help="CPUs that a local Ray may use; by default all.")] = None,
) -> None:
    """Score a model, or an endpoint, on benchmarks: per language, with intervals. Results also go to OUT/results.json."""
    from rich.console import Console

    from xl import cli
    from xl.evaluate.alpaca_files import export_alpaca_eval
    from xl.evaluate.benchmarks.alone import one_model
    from xl.evaluate.benchmarks.export import export_lm_eval
    from xl.evaluate.benchmarks.judging import judge_answers
    from xl.evaluate.benchmarks.results import print_results, write_results
    from xl.evaluate.benchmarks.run import run_benchmarks
    from xl.folder import check_shared, claim, locked
    from xl.pipeline import Engines
    from xl.ray_session import ray_session

    if len(task) != len(from_):
        raise UserError(f"there are {len(task)} --task and {len(from_)} --from; give each task its own, in the same order")
    drawn = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "style": style}
    files = {"split": split, "revision": revision, "reference": reference}
    shared = {"limit": limit, "num_shots": num_shots, "output_type": output_type, **drawn, **files}
    tasks = [{"task": name, "from": path, **shared} for name, path in zip(task, from_, strict=True)]
    models = {
        role: {"model": name, **({"engine": "openai", "url": place, "api_key_env": api_key_env} if place else {})}
        for role, name, place in (("model", model, url), ("judge", judge, judge_url))
        if name
    }
    wanted = one_model(models, set_ or [], tasks, languages.split(","), seed)
    console = Console(stderr=True) if as_json else cli.console
    run = claim(out)
    with locked(run), ray_session(address, num_cpus), Engines(console) as engines:
        check_shared(run)
        run_benchmarks(wanted, run, engines, console, redo=redo, retry_failed=retry_failed)
        judge_answers(wanted, run, engines, console, redo=redo, retry_failed=retry_failed)
    found = write_results(run, seed)
    if export:
        for path in (*export_lm_eval(run, found, export), *export_alpaca_eval(run, export, seed, console)):
            console.print(f"wrote {path}", highlight=False)
    if as_json:
        print((out / "results.json").read_text("utf-8"))
    else:
        print_results(found, console)
