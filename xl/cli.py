"""The `xl` command."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.filesize import decimal

from xl.errors import DISK_FULL, UserError
from xl.evaluate.benchmarks import command as benchmarks
from xl.options import Address
from xl.storage import explained, place

app = typer.Typer(
    help="From multilingual web pages to cross-lingual instruction data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
score_app = typer.Typer(help="Score files of answers or verdicts made elsewhere.", no_args_is_help=True)
app.add_typer(score_app, name="score")
keys_app = typer.Typer(help="API keys of the endpoint.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
console = Console()
if not console.is_terminal:
    console = Console(width=160)  # a log has no window to fit into


RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", parser=place, help="The folder of a run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe, such as pages.from=data/*.parquet. Repeatable."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        parser=place,
        metavar="FOLDER",
        help="The run's folder, by default runs/RECIPE; on a cluster one that all nodes see, or s3://… or gs://….",
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Take at most so many pages per language.")]
Redo = Annotated[bool, typer.Option("--redo", help="Redo the stages that a changed recipe touches; keep the rest.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget what the folder holds and start over.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Do the failed rows once more.")]
Until = Annotated[
    Literal["pages", "dataset"] | None, typer.Option(help="Stop there; the same command without it goes on. Default: the end.")
]
KeysFile = Annotated[Path | None, typer.Option("--keys", metavar="FILE", help="Where keys are kept; by default ~/.config/xl/keys.json.")]
KeyName = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is; metrics name it.")]
NumCpus = Annotated[int | None, typer.Option(min=1, help="CPUs that a local Ray may use; by default all.")]


@app.command()
def run(
    recipe: RecipePath,
    out: Out = None,
    set_: Overrides = None,
    limit: Limit = None,
    redo: Redo = False,
    fresh: Fresh = False,
    retry_failed: RetryFailed = False,
    until: Until = None,
    address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Run a recipe, or continue it: the same command again goes on where the last one stopped."""
    from xl.folder import open_run
    from xl.runs import Options, run_recipe
    from xl.summary import print_ledger, print_result

    out = out or Path("runs") / recipe.stem
    options = Options(limit, redo, fresh, retry_failed, address, num_cpus, until)
    did_something = run_recipe(_load(recipe, set_), out, options, console)
    if not did_something:
        console.print(f"{out} is finished and nothing has changed since: nothing to do. See {out / 'report.html'}", highlight=False)
    elif until:
        print_ledger(open_run(out), console)
    else:
        print_result(out, console)


@app.command()
def submit(
    recipe: RecipePath,
    cluster: Annotated[str, typer.Option(metavar="URL", help="The cluster's dashboard, such as http://127.0.0.1:8265.")],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="The run's folder, that all nodes of the cluster see, or s3://… or gs://….")],
    set_: Overrides = None,
    limit: Limit = None,
    redo: Redo = False,
    fresh: Fresh = False,
    retry_failed: RetryFailed = False,
    until: Until = None,
    retries: Annotated[int, typer.Option(min=0, help="How often a job that the cluster lost is started again.")] = 3,
    working_dir: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="What the cluster gets: a checkout of this project that holds the recipe.")
    ] = Path(),
) -> None:
    """Run a recipe on a cluster, or continue it there: submits a job, follows its log, and starts it again where the cluster lost it.

    The job's exit code is this command's. Keys that the recipe names are read on the cluster; they do not travel. With --fresh the first
    job starts over; one that is started again goes on.
    """
    from xl.submit import Submission, entrypoint
    from xl.submit import submit as submit_and_follow

    path = recipe.resolve()
    with contextlib.chdir(working_dir):
        _load(path, set_)  # a mistake there is better found here
    more = [word for override in set_ or () for word in ("--set", override)]
    more += ["--limit", str(limit)] if limit else []
    more += ["--until", until] if until else []
    more += ["--redo"] * redo + ["--retry-failed"] * retry_failed
    command = entrypoint(recipe, out, working_dir, more)
    raise typer.Exit(submit_and_follow(Submission(cluster, command, out, working_dir, retries, fresh), console))


@app.command()
def plan(
    recipe: RecipePath,
    out: Annotated[Path | None, typer.Option(parser=place, metavar="FOLDER", help="The run's folder, if it has begun.")] = None,
    set_: Overrides = None,
    limit: Limit = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="RUN", parser=place, help="A finished small run of the same stages: what rows, tokens and hours go by."),
    ] = None,
    pages: Annotated[int | None, typer.Option(min=1, help="How many pages; by default estimated from the input's size.")] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where it would run: a `ray up` YAML or a KubeRay manifest, such as cluster/aws.yaml."),
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prices of nodes; by default prices.yaml beside the cluster's.")
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP=DOLLARS", help="What a node of the group costs an hour, whatever prices say. Repeatable."),
    ] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="Play the run through on the cluster.")] = False,
    failures: Annotated[float, typer.Option(min=0, metavar="RATE", help="Lost nodes per node and hour, for --simulate.")] = 0.0,
    preemptions: Annotated[
        str | None, typer.Option(metavar="RATE|FILE", help="Preempted spot nodes per node and hour, or a file of seconds, for --simulate.")
    ] = None,
    notice: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long before it goes a preempted node is told.")] = 30.0,
    timings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What start-ups and the driver take (xl/planning/scenario.py), for --simulate.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the simulation's losses.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a run would do: stages, pages, asks and disk; by a calibration, hours and cost. Starts nothing."""
    from xl.planning import command

    out = out or Path("runs") / recipe.stem
    files = (calibration, cluster, pages, prices, price or (), timings)
    request = command.Request(out, limit, *files, simulate, failures, preemptions, notice, seed)
    command.plan(_load(recipe, set_), request, as_json, console)


@app.command()
def compare(
    arms: Annotated[list[str], typer.Argument(metavar="[NAME=]RUN[:ROLE]…", help="Runs; of one run alone, its base and its tuned model.")],
    seed: Annotated[int, typer.Option(help="Draws the intervals.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it too, as a page that is complete in itself, such as compared.html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Set models side by side: every measure with its interval, and paired differences from the first one.

    Arms of the same NAME are seeds of one: their differences are drawn over seeds as well.
    """
    from xl.compare import compare as compared
    from xl.compare import parse_arms, plain_figures, print_comparison
    from xl.report.comparison import check_page, write_comparison

    chosen = parse_arms(arms)
    if out:
        check_page(out)
    figures = compared(chosen, seed)
    if as_json:
        print(json.dumps(plain_figures(figures), indent=1))
    else:
        print_comparison(figures, {arm.name: len(arm.runs) for arm in chosen}, console)
    if out:
        write_comparison(out, figures, chosen)
        (Console(stderr=True) if as_json else console).print(f"wrote {out}", highlight=False)


@app.command()
def status(run: RunPath, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the ledger: what became of every row, per stage and language."""
    from xl.folder import open_run
    from xl.summary import ledgers, print_ledger

    folder = open_run(run)
    if as_json:
        print(
            json.dumps({name: {lang: entry.to_json() for lang, entry in rows.items()} for name, rows in ledgers(folder).items()}, indent=1)
        )
    else:
        print_ledger(folder, console)


@app.command()
def trace(run: RunPath, id: Annotated[str, typer.Argument(metavar="ID", help="A row's id, or its first digits.")]) -> None:
    """Tell one row's life, from page to pair."""
    from xl.folder import open_run
    from xl.summary import print_trace

    print_trace(open_run(run), id, console)


@app.command()
def report(run: RunPath) -> None:
    """Write the report of a finished run again."""
    from xl.folder import open_finished_run
    from xl.summary import write_report

    console.print(f"wrote {write_report(open_finished_run(run))}", highlight=False)


@app.command()
def export(
    run: RunPath,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go, a folder for each model.")],
    seed: Annotated[int, typer.Option(help="Draws the intervals.")] = 0,
) -> None:
    """Write a run's answers, verdicts and scores in the files of other tools: AlpacaEval's and lm-evaluation-harness's."""
    from xl.evaluate.alpaca_files import export_alpaca_eval
    from xl.evaluate.benchmarks.export import export_lm_eval
    from xl.evaluate.benchmarks.results import results
    from xl.folder import open_run

    folder = open_run(run)
    written = export_alpaca_eval(folder, out, seed, console)
    scored = folder.benchmarks if folder.benchmarks.info else folder
    if "tasks" in scored.info:
        written += export_lm_eval(scored, results(scored, seed), out)
    if not written:
        raise UserError(f"{run} holds no evaluation and no benchmarks: there is nothing to export")
    for path in written:
        console.print(f"wrote {path}", highlight=False)


@app.command()
def clean(run: RunPath) -> None:
    """Free what a finished run no longer needs: the rows of stages that the dataset was made from. The ledger stays."""
    from xl.clean import clean_run
    from xl.folder import open_run

    console.print(f"freed {decimal(clean_run(open_run(run)))}", highlight=False)


@score_app.command("winrate")
def score_winrate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Annotations in AlpacaEval's format: JSON, JSON Lines or Parquet.")],
    published: Annotated[Path | None, typer.Option(help="A JSON object of models and their published figures, to print beside.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the interval's draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Win rate of pairwise annotations, with its error, its interval and a length-controlled rate."""
    from xl.evaluate import score as annotations

    scored = annotations.score_winrate(file, seed)
    beside = annotations.read_published(published, scored.model) if published else None
    if as_json:
        print(json.dumps({**annotations.figures(scored), **({} if beside is None else {"published": beside})}, indent=1))
    else:
        annotations.print_winrate(scored, beside, console)


@score_app.command("language")
def score_language(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV, JSON (Lines) or Parquet with the columns `completion` and `language`.")
    ],
    protocol: Annotated[
        Literal["published", "ours"],
        typer.Option(
            help="As published by the Language Confusion Benchmark, or ours, which holds in any script and lets identifiers agree."
        ),
    ] = "published",
    identifier: Annotated[
        list[str] | None,
        typer.Option(help="fasttext or py3langid; several must agree. By default fasttext (published) or both (ours). Repeatable."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Score only the rows with this value, such as task=crosslingual. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how often answers stay in the wanted language: line and word pass rates per language, and their mean."""
    from xl.evaluate import answer_files, identify, language_confusion

    identifiers = tuple(identify.identifier(name) for name in identifier or ()) or language_confusion.default_identifiers(protocol)
    completions = answer_files.read_completions(file, dict(answer_files.parse_condition(text) for text in where or ()))
    answer_files.print_score(answer_files.score_completions(completions, identifiers, protocol), as_json, console)


app.command("eval")(benchmarks.evaluate)


@app.command()
def serve(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]TARGET…", help="A recipe, a run, a model folder, a hub id, packaged/NAME, or an endpoint's YAML."),
    ],
    host: Annotated[str | None, typer.Option(help="Address to listen on; by default this machine alone.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    keys: KeysFile = None,
    set_: Overrides = None,
    num_cpus: NumCpus = None,
) -> None:
    """Serve models behind one OpenAI-compatible endpoint; `model` chooses among them. API keys: `xl keys`."""
    from xl.recipe import parse_override
    from xl.serving.run import run_endpoint
    from xl.serving.targets import load_serving

    overrides = dict(parse_override(text) for text in set_ or ())
    given = {"host": host, "port": port, "keys_file": str(keys) if keys else None}
    run_endpoint(load_serving(targets, overrides | {key: value for key, value in given.items() if value is not None}), console, num_cpus)


@keys_app.command("add")
def add_key(name: KeyName, keys: KeysFile = None) -> None:
    """Make a key and print it, this once; only its hash is kept. Running endpoints take it within a second."""
    from xl.serving.keys import add_key
    from xl.serving.settings import default_keys_path

    print(add_key(keys or default_keys_path(), name))


@keys_app.command("list")
def list_keys(keys: KeysFile = None) -> None:
    """Name the keys there are, and when they were made."""
    from xl.serving.keys import read_keys
    from xl.serving.settings import default_keys_path

    for key in read_keys(keys or default_keys_path()):
        console.print(f"{key.name}  {key.created}", highlight=False)


@keys_app.command("revoke")
def revoke_key(name: KeyName, keys: KeysFile = None) -> None:
    """Forget a key. Running endpoints refuse it within a second."""
    from xl.serving.keys import revoke_key
    from xl.serving.settings import default_keys_path

    revoke_key(keys or default_keys_path(), name)
    console.print(f"revoked {name}", highlight=False)


def _load(recipe: Path, overrides: list[str] | None):  # type: ignore[no-untyped-def]
    from xl.methods import load_recipe
    from xl.recipe import parse_override

    return load_recipe(recipe, dict(parse_override(text) for text in overrides or ()))


def main() -> None:
    """Entry point of `xl`."""
    guarded(app)


def guarded(commands: typer.Typer) -> None:
    """Run a command line: a user's mistake is one line on stderr and exit code 2 (75: a cluster or store is away), an interruption 130."""
    try:
        commands(standalone_mode=True)
    except UserError as error:
        print(f"xl: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("xl: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == 28:
            print(f"xl: {DISK_FULL}", file=sys.stderr)
            sys.exit(2)
        if (told := explained(error)) is None:
            raise
        print(f"xl: {told}", file=sys.stderr)
        sys.exit(told.exit_code)


if __name__ == "__main__":
    main()
