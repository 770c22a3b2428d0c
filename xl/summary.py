"""What a run folder says: its ledger, a row's life, the card and the report."""

import bisect
import random
from collections import Counter
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import yaml
from rich.console import Console
from rich.table import Table

from xl import dataset
from xl.compare import Arm, Figure, compare
from xl.errors import UserError
from xl.evaluate.benchmarks.results import print_results, results
from xl.evaluate.outcome import outcome, print_outcome
from xl.folder import RunFolder, open_run, plain
from xl.methods import check_recipe
from xl.pages.clean import clean_pages
from xl.pages.language import LANGUAGE_NAMES, SIMILAR
from xl.pairs import demonstrations
from xl.recipe import PageRecipe, Recipe
from xl.records import FATE_SCHEMA, Row
from xl.report.evaluation import Evaluation, Training
from xl.report.render import Card, ExamplePair, LanguageLedger, Report, StageSummary, render_card, render_report
from xl.report.rounds import read_rounds
from xl.settings import semantic
from xl.store import Ledger, StageStore, read_json, read_table
from xl.train.metrics import METRICS, read_metrics
from xl.train.tokens import read_summary

EXAMPLES_PER_LANGUAGE = 20
TEXTS_PER_LANGUAGE = 1_000
"""By which the identifier of the answers is tried on text that people wrote."""


def recipe_of(run: RunFolder) -> Recipe:
    """The recipe that the run was last given."""
    return check_recipe(run.info["recipe"], str(run.root / "run.json"))


def shard_names(run: RunFolder) -> list[str]:
    """The run's shards, in the order of its input; empty before the input is planned."""
    planned = read_json(run.manifest / "manifest.json") or {"shards": []}
    return [shard["name"] for entry in planned["shards"] for shard in entry]


def ledgers(run: RunFolder) -> dict[str, dict[str, Ledger]]:
    """Per stage and language what became of the rows, as far as the run has got."""
    names = shard_names(run)
    return {stage: dict(sorted(run.store(stage).ledger(names).items())) for stage in run.info["stages"]}


def print_ledger(run: RunFolder, console: Console) -> None:
    """The ledger as a table: kept rows per stage and language, and why the others went; those of its evaluation and benchmarks below."""
    _print_ledger(run, console)
    for part in (run.evaluation, run.benchmarks):
        if part.info:
            _print_ledger(part, console)


def _print_ledger(run: RunFolder, console: Console) -> None:
    every = ledgers(run)
    languages = sorted({lang for rows in every.values() for lang in rows})
    table = Table(title=f"{run.root}: rows kept by each stage", title_justify="left", header_style="bold")
    table.add_column("stage")
    for heading in ("in", "kept", "dropped", "failed", *languages):
        table.add_column(heading, justify="right")
    for stage, rows in every.items():
        total = Ledger()
        for entry in rows.values():
            total.merge(entry)
        per_language = [f"{rows[lang].kept:,}" if lang in rows else "–" for lang in languages]
        table.add_row(stage, *(f"{n:,}" for n in (total.num_in, total.kept, total.dropped.total(), total.failed.total())), *per_language)
    console.print(table)
    for stage, rows in every.items():
        reasons = sum((entry.dropped + entry.failed for entry in rows.values()), Counter[str]())
        if reasons:
            console.print(f"{stage}: " + ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common()), highlight=False)


def print_result(out: Path, console: Console) -> None:
    """The end of a run: ledger, three pairs, what the model learned, and where the results are."""
    run = open_run(out)
    recipe = recipe_of(run)
    print_ledger(run, console)
    for pair in sample_pairs(run, 1, seed=recipe.seed)[:3]:
        head = dataset.response_of(pair).replace("\n", " ")[:160]
        console.print(f"\n[bold]{pair['language']}[/bold]  {pair['instruction']}", highlight=False)
        console.print(f"  {head}…", style="dim", highlight=False, markup=False)
    console.print()
    if found := evaluation(run, recipe):
        print_outcome(found, console)
        console.print()
    if run.benchmarks.info:
        print_results(results(run.benchmarks, recipe.seed), console)
        console.print()
    arms = run.arms
    for arm in arms:
        pairs = sum(entry.kept for entry in ledgers(arm)[arm.info["stages"][-1]].values())
        console.print(f"arm {arm.root.name}: {pairs:,} pairs, {arm.report}", highlight=False)
    if arms and (recipe.evaluate or recipe.benchmarks):
        console.print(f"side by side: xl compare {' '.join(str(part.root) for part in (run, *arms))}", highlight=False)
    places = {"dataset": run.dataset, "model": run.training / "model", "report": run.report}
    for name, path in places.items():
        if path.exists():
            console.print(f"{name}: {path}", highlight=False)


def sample_pairs(run: RunFolder, per_language: int, seed: int) -> list[Row]:
    """Random pairs of the dataset, at most so many per language, best spread over the languages."""
    chosen: dict[str, list[tuple[float, Row]]] = {}
    draw = random.Random(seed)
    for row in dataset.kept_rows(run.store(run.info["stages"][-1]), shard_names(run)):
        rows = chosen.setdefault(row["lang"], [])
        bisect.insort(rows, (draw.random(), row), key=itemgetter(0))
        del rows[per_language:]
    return [row for lang in sorted(chosen) for _, row in chosen[lang]]


def rows_with_id(store: StageStore, names: list[str], prefix: str) -> Iterator[Row]:
    """The rows of a stage whose id begins with `prefix`."""
    for name in names:
        if store.path(name).exists():
            table = read_table(store.path(name), filters=pc.starts_with(pc.field("id"), prefix))
            yield from table.to_pylist()


def print_trace(run: RunFolder, prefix: str, console: Console) -> None:
    """One row's life, stage by stage, with what each stage added: a page's, or a prompt's of the evaluation.

    Raises:
        UserError: no row has that id, or several have one that begins so.
    """
    found = [_print_life(folder, prefix, console) for folder in (run, run.evaluation) if folder.info]
    if not any(found):
        raise UserError(f"no row of {run.root} has an id that begins with {prefix!r}")


def _print_life(run: RunFolder, prefix: str, console: Console) -> bool:
    """Whether the folder has such a row."""
    names, known, found = shard_names(run), dict[str, Any](), False
    for stage in run.info["stages"]:
        rows = list(rows_with_id(run.store(stage), names, prefix))
        if len({row["id"] for row in rows}) > 1:
            raise UserError(f"{prefix!r} begins {len(rows)} ids; give more digits")
        for row in rows:
            if not found:
                console.print(f"[bold]{row['id']}[/bold]  {row['lang']}  {row.get('url') or row.get('prompt') or ''}", highlight=False)
            found = True
            reason = f" ({row['reason']})" if row["reason"] else ""
            console.print(f"\n[bold]{stage}[/bold]: {row['status']}{reason}", highlight=False)
            for name, value in row.items():
                if name not in FATE_SCHEMA.names and value is not None and known.get(name) != value:
                    console.print(f"  {name}: {_clipped(value)}", highlight=False, markup=False)
            for entry in row["_usage"] or ():
                console.print(
                    f"  {entry['ask']}: {entry['prompt_tokens']} prompt and {entry['output_tokens']} output tokens", highlight=False
                )
            known |= {name: value for name, value in row.items() if value is not None}
    return found


def _clipped(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 300 else f"{text[:300]}… ({len(text):,} characters)"


def _stage_summaries(run: RunFolder, names: list[str]) -> list[StageSummary]:
    result = []
    for stage in run.info["stages"]:
        store = run.store(stage)
        rows, usage = store.ledger(names), store.usage(names)
        by_language = {lang: LanguageLedger(e.num_in, e.kept, dict(e.dropped), dict(e.failed)) for lang, e in sorted(rows.items())}
        total = Ledger()
        for entry in rows.values():
            total.merge(entry)
        result.append(
            StageSummary(
                name=stage,
                seconds=run.stage_info(stage).get("seconds", 0.0),
                num_in=total.num_in,
                num_kept=total.kept,
                num_dropped=total.dropped.total(),
                num_failed=total.failed.total(),
                prompt_tokens=sum(prompt for prompt, _ in usage.values()),
                output_tokens=sum(output for _, output in usage.values()),
                tokens_by_ask=usage,
                by_language=by_language,
            )
        )
    return result


def report(run: RunFolder, recipe: Recipe, names: list[str]) -> str:
    """The report as HTML."""
    info = run.info
    topics: Counter[str] = Counter()
    lengths: dict[str, dict[str, list[int]]] = {}
    for row in dataset.kept_rows(run.store(info["stages"][-1]), names):
        topics.update([row["topic"]] if row.get("topic") else [])
        entry = lengths.setdefault(row["lang"], {"instruction": [], "response": []})
        entry["instruction"].append(len(row["instruction"]))
        entry["response"].append(len(dataset.response_of(row)))
    pairs: dict[str, list[ExamplePair]] = {}
    for row in sample_pairs(run, EXAMPLES_PER_LANGUAGE, recipe.seed):
        pairs.setdefault(row["lang"], []).append(_example(row))
    return render_report(
        Report(
            name=info["name"],
            method=recipe.method,
            created=info["created"],
            recipe_yaml=yaml.safe_dump(info["recipe"], allow_unicode=True, sort_keys=False),
            languages=[(lang, LANGUAGE_NAMES[lang]) for lang in recipe.languages],
            stages=_stage_summaries(run, names),
            pairs=pairs,
            topics=topics.most_common(),
            lengths=lengths,
            environment=info["environment"],
            notices=notices(run, recipe),
            recall=language_agreement(run, recipe, names),
            training=training(run, recipe),
            evaluation=evaluation(run, recipe),
            comparison=_comparison(run, recipe),
            rounds=read_rounds(run.root / "rounds.json"),
        )
    )


def _comparison(run: RunFolder, recipe: Recipe) -> list[Figure]:
    """The run's models on its benchmarks and its evaluation; nothing where there are no benchmarks."""
    if not recipe.benchmarks:
        return []
    roles = ("base", "tuned") if recipe.train else ("base",)
    return compare([Arm(role, role, (run.root,)) for role in roles], recipe.seed)


def training(run: RunFolder, recipe: Recipe) -> Training | None:
    """The run's training in numbers; None where there is none."""
    tokens = read_summary(run.training / "tokens")
    if recipe.train is None or tokens is None:
        return None
    steps = read_metrics(run.training / METRICS)
    unused = () if recipe.train.tune == "lora" else ("lora",)
    chosen = {name: value for name, value in semantic(recipe.train).items() if name not in unused}
    settings = {name: _setting(value) for name, value in chosen.items() if not (value is None or value is False or value == {})}
    num_supervised = sum(step.num_supervised_tokens for step in steps)
    return Training(recipe.model_for("base").model, recipe.train.tune, tokens.num_documents, num_supervised, settings, steps)


def _setting(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_setting(entry)}" for name, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def evaluation(run: RunFolder, recipe: Recipe) -> Evaluation | None:
    """What came of the run's evaluation; None where there is none. Those responses of the dataset that people wrote are its human text."""
    if recipe.evaluate is None or not run.evaluation.info:
        return None
    texts: dict[str, list[str]] = {}
    for row in sample_pairs(run, TEXTS_PER_LANGUAGE, recipe.seed):
        if is_human(row):
            texts.setdefault(row["lang"], []).append(dataset.response_of(row))
    trained = (recipe.train.languages or recipe.languages) if recipe.train else ()
    return outcome(run.evaluation, trained, texts, recipe.seed)


def is_human(row: Row) -> bool:
    """Whether a person wrote what a row of the last stage answers: it is the page's own text, or a side of parallel text."""
    return "response" not in row or row.get("method") == demonstrations.METHOD


def language_agreement(run: RunFolder, recipe: Recipe, names: list[str]) -> dict[str, float]:
    """Per language: of the pages that came to the language check, the share that the identifier took for their declared language.

    Nothing for a run that does not begin with the page filters, or for a language that the identifier does not know.
    """
    if not isinstance(recipe, PageRecipe):
        return {}
    filters, first = clean_pages(recipe.quality), run.info["stages"][0]
    if first != filters.name or run.stage_info(first).get("settings") != plain(dict(filters.settings)):
        return {}
    agreement: dict[str, float] = {}
    for lang, entry in sorted(run.store(first).ledger(names).items()):
        if lang not in SIMILAR:
            continue
        right = entry.kept + entry.dropped["mixed_language"]
        if checked := right + entry.dropped["wrong_language"]:
            agreement[lang] = right / checked
    return agreement


def notices(run: RunFolder, recipe: Recipe) -> list[str]:
    """What a reader must know beside the numbers: licences, models, limits."""
    info = run.info
    lines = [
        f"{role}: {model['name']} ({model['digest'][:24]}…)" + (f", {model['licence']}" if model["licence"] else "")
        for role, model in info["models"].items()
    ]
    if info.get("limit"):
        what = "pages per language" if isinstance(recipe, PageRecipe) else "rows per method, direction and language"
        lines.append(f"limited to {info['limit']:,} {what}")
    if info.get("attempts", 1) > 1:
        lines.append(f"the run was continued {info['attempts'] - 1} times")
    if (recipe.evaluate or recipe.benchmarks) and not recipe.contamination.drop:
        lines.append("Warning: contamination.drop is off. What the models are evaluated on may be in the dataset; scores may be too good.")
    return [*lines, *(f"{stage}: {remark}" for stage, remark in remarks(run))]


def remarks(run: RunFolder) -> list[tuple[str, str]]:
    """What stages had to say, each with the stage's name."""
    return [(stage, remark) for stage in run.info["stages"] for remark in run.stage_info(stage).get("remarks", ())]


def _example(row: Row) -> ExamplePair:
    return ExamplePair(
        id=row["id"],
        instruction=row["instruction"],
        response=dataset.response_of(row),
        lang=row["lang"],
        page_url=row.get("url") or "",
        page_text=row.get("text") or "",
        margin=row.get("margin"),
        topic=row.get("topic") or "",
        input=row.get("input") or "",
    )


def card(run: RunFolder, recipe: Recipe, names: list[str]) -> str:
    """The dataset card as Markdown."""
    info = run.info
    stages = _stage_summaries(run, names)
    last = stages[-1].by_language
    filters = recipe.quality.model_dump(mode="json") if isinstance(recipe, PageRecipe) else {}
    licences = sorted({model["licence"] for model in info["models"].values() if model["licence"]})
    return render_card(
        Card(
            title=info["name"],
            languages=[lang for lang in recipe.languages if lang in last],
            num_pairs=stages[-1].num_kept,
            by_language={lang: entry.kept for lang, entry in last.items()},
            method=recipe.method,
            filters=[f"{key}: {value}" for key, value in filters.items()],
            models=[(role, model["name"], model["licence"]) for role, model in info["models"].items()],
            sources=recipe.sources,
            licences=licences,
            ledger=stages,
            fields=dataset.FIELDS,
            remarks=remarks(run),
            version=info["environment"].get("xl", ""),
        )
    )


def write_report(run: RunFolder) -> Path:
    """Render the report of a finished run again."""
    run.report.write_text(report(run, recipe_of(run), shard_names(run)), "utf-8")
    return run.report
