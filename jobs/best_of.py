"""Is the best of several translations, chosen without a reference, nearer to a person's translation than a single one?

python jobs/best_of.py jobs/recipes/xl_instruct_cpu.yaml --lang de --from news.en --from news.de --documents news.ids --out runs/best_of

Sentences that people translated are translated as the XL-Instruct recipe says. Prints, for each estimator, what its choice gains over the
first sound sample: in the estimator's own quality and in chrF to the reference, with 95 % intervals. The same command again continues.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from xl.cli import console, guarded
from xl.errors import UserError
from xl.methods.best_of import ESTIMATORS, MIN_CHARS, BestOf, Gain
from xl.options import Address
from xl.storage import local_place

commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@commands.command()
def main(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe of XL-Instruct; its pages are not read.")],
    lang: Annotated[str, typer.Option(help="The language to translate into.")],
    from_: Annotated[list[str], typer.Option("--from", metavar="FILE", help="A TSV or TMX file, or twice: English lines, then theirs.")],
    out: Annotated[Path, typer.Option(parser=local_place, metavar="FOLDER", help="The measurement's folder.")],
    documents: Annotated[str | None, typer.Option(metavar="FILE", help="Two files of lines: names each line's document.")] = None,
    num_sentences: Annotated[int, typer.Option(min=1, help="Sentences to translate, drawn from all documents.")] = 200,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe. Repeatable.")] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Redo what changed settings touch.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    address: Address = None,
) -> None:
    """Compare the best of several translations with the first sound one."""
    from rich.console import Console

    from xl.folder import check_shared, claim, locked
    from xl.methods import check_recipe, read_recipe
    from xl.methods.best_of import measure
    from xl.methods.xl_instruct import Recipe
    from xl.pairs.parallel import ParallelText
    from xl.pipeline import Engines
    from xl.ray_session import ray_session
    from xl.recipe import checked, overridden, parse_override

    # All estimators are compared here, and read what a run by one of them would not.
    wanted = check_recipe(overridden(read_recipe(recipe), dict(parse_override(text) for text in set_ or ())), str(recipe))
    if not isinstance(wanted, Recipe):
        raise UserError(f"{recipe}: its method is {wanted.method}; translations are chosen by xl_instruct alone")
    text = checked(ParallelText, {"lang": lang, "from": from_, "documents": documents, "source": "best_of"}, "--from, --lang, --documents")
    run = claim(out)
    progress = Console(stderr=True) if as_json else console
    with locked(run), ray_session(address), Engines(progress) as engines:
        check_shared(run)
        found = measure(wanted, text, num_sentences, run, engines, progress, redo)
    if as_json:
        print(json.dumps(asdict(found), indent=1))
    else:
        _tell(found, text.lang)


def _tell(found: BestOf, lang: str) -> None:
    title = f"the chosen sample beside the first sound one: en→{lang}, means of sentences, 95 % intervals over documents"
    table = Table(title=title, title_justify="left", header_style="bold")
    for heading in ("chosen by", "sentences", "changed", "quality", "its gain", "chrF", "its gain", "corpus chrF", "orders as chrF"):
        table.add_column(heading)
    for name, entry in found.by_estimator.items():
        agreement = "–" if entry.agreement_ratio is None else f"{entry.agreement_ratio:.2f}"
        corpus = "{:.1f} → {:.1f}".format(*entry.corpus_chrf)
        counts = (f"{entry.num_sentences:,}", f"{entry.num_changed:,}")
        table.add_row(name, *counts, *_gain(entry.quality, 3), *_gain(entry.chrf, 1), corpus, agreement)
    console.print(table)
    lost = ", ".join(f"{reason} {count:,}" for reason, count in found.dropped.items()) or "none"
    console.print(
        f"{found.num_sentences:,} sentences of {MIN_CHARS} characters or more, from {found.num_documents:,} documents; lost: {lost}. "
        f"Of {found.num_first_faulty:,} the first sample has a fault, and another one is sound.",
        highlight=False,
    )
    if silent := [name for name in ESTIMATORS if name not in found.by_estimator]:
        console.print(f"No score could be read from: {', '.join(silent)}.", highlight=False)


def _gain(gain: Gain, digits: int) -> tuple[str, str]:
    low, high = gain.interval
    means = f"{gain.first:.{digits}f} → {gain.best:.{digits}f}"
    return means, f"{gain.best - gain.first:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


if __name__ == "__main__":
    guarded(commands)
