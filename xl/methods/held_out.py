"""X-Instruction's own models on seed pairs that they have not seen: does the training of the reverse model and of the evaluator pay?

RUN/held_out/reverse/    one row a held-out seed: what the trained and the prompted writer make of its text
RUN/held_out/raters/     four or five rows a seed (`xl.pairs.rating_set`): what the raters say of pairs whose level is known
RUN/held_out/labelled/   one row a pair that people labelled (`xl.pairs.labelled`), where there are such: what the raters say of it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from rich.console import Console

from xl.ask import Ask, AsyncStep, Columns, Context, Drop
from xl.errors import UserError, require
from xl.evaluate.intervals import Estimate, Interval, estimate_mean
from xl.evaluate.rows import finished_rows, take_rows
from xl.folder import RunFolder, check_fingerprints
from xl.methods.rounds import is_hard, rater_auc
from xl.methods.x_instruction import Recipe
from xl.pages.scripts import folded
from xl.pairs.contrasts import choose_contrasts, pool_of
from xl.pairs.rate import Rating, likelihood_margin, logprobs_after, rate_pair, rated_or_null, rater_settings
from xl.pairs.rating_set import PAIR_SCHEMA, pair_rows, rating_set
from xl.pairs.reverse import reverse_instruction
from xl.pairs.seeds import Seed, SeedSplit, read_seeds
from xl.pipeline import Engines, Pipeline, Role
from xl.records import Row, seeded_rank
from xl.settings import semantic
from xl.stage import RowStage, Stage
from xl.storage import make_folder

NUM_PAGES = 20
"""Pages among which an instruction must find its own."""

WRITERS = ("prompted", "trained")
RATERS = ("trained", "prompted", "margin")
_SOURCE = "held_out"
_SEED_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "lang", "language", "text", "true_instruction")]).append(
    pa.field("others", pa.list_(pa.string()))
)
_RATED_SCHEMA = PAIR_SCHEMA.append(pa.field("contrasts", pa.list_(pa.string())))


@dataclass(frozen=True)
class WriterScore:
    """How near a writer's instructions are to the true ones (chrF, 0 to 1), and how often they find their own page among `NUM_PAGES`."""

    chrf: Estimate
    retrieval: Estimate


@dataclass(frozen=True)
class RaterScore:
    """Area under the ROC curve, good and flawed pairs against bad ones, with 95 % intervals over seeds."""

    auc: float
    interval: Interval
    hard_auc: float
    """Good pairs against the hard bad ones alone."""
    hard_interval: Interval


@dataclass(frozen=True)
class LabelledScore:
    """Area under the ROC curve on pairs that people labelled, with its 95 % interval over texts."""

    num_read: int
    """Pairs of which a rating could be read; the others are left out."""
    auc: float
    interval: Interval


@dataclass(frozen=True)
class HeldOut:
    """What came of it. Only what the recipe has a model for is there."""

    num_seeds: int
    writers: dict[str, WriterScore]
    raters: dict[str, RaterScore]
    num_labelled: int
    labelled: dict[str, LabelledScore]


def measure(
    recipe: Recipe, run: RunFolder, roles: Mapping[str, Role], engines: Engines, console: Console, labelled: Sequence[Row] = ()
) -> HeldOut:
    """Ask the models about the held-out seeds, or go on asking. Ray must be initialised.

    Args:
        recipe: with `seeds.num_held_out`.
        run: the finished run's folder.
        roles: `prompted` and `prompted_rater` (writer and rater before their training), and `trained` and `evaluator` where there are
            such models.
        engines: the run's.
        console: for progress.
        labelled: pairs that people labelled (`xl.pairs.labelled.read_labelled`), for the raters to rate as well.

    Raises:
        UserError: the seeds cannot be read, or a model does not work.
    """
    assert recipe.seeds is not None
    split = read_seeds(recipe.seeds, recipe.languages, recipe.seed)
    writers = [writer for writer in WRITERS if writer in roles]
    raters = [rater for rater in RATERS if rater != "trained" or "evaluator" in roles]

    def asked(name: str, stages: list[Stage], rows: Sequence[Row], schema: pa.Schema) -> list[Row]:
        return _taken(RunFolder(run.root / "held_out" / name), stages, rows, schema, recipe.seed, roles, engines, console)

    written = asked(
        "reverse", _writing(recipe, writers, roles), _seed_rows(split.held_out, [*split.train, *split.held_out], recipe.seed), _SEED_SCHEMA
    )
    rating = _rating(recipe, raters, roles)
    rated = asked("raters", rating, rated_rows(split, recipe.rating, recipe.seed), _RATED_SCHEMA)
    judged = asked("labelled", rating, labelled, _RATED_SCHEMA) if labelled else []
    return HeldOut(
        num_seeds=len(split.held_out),
        writers={writer: _writer_score(written, writer, recipe.seed) for writer in writers},
        raters={rater: _rater_score(rated, rater, recipe.seed) for rater in raters},
        num_labelled=len(judged),
        labelled={rater: _labelled_score(judged, rater, recipe.seed) for rater in raters if judged},
    )


def _seed_rows(held_out: Sequence[Seed], every: Sequence[Seed], seed: int) -> list[Row]:
    rows = []
    for pair in held_out:
        own = folded(pair.response)
        others = [other for other in every if other.lang == pair.lang and folded(other.response) != own]
        others.sort(key=lambda other: seeded_rank(seed, "others", pair.id, other.id))
        texts = [*dict.fromkeys(other.response for other in others)][: NUM_PAGES - 1]
        if len(texts) < NUM_PAGES - 1:
            lacking = f"{pair.language} has {len(texts) + 1} different texts among the seeds"
            raise UserError(f"seeds: {lacking}; to look for one among {NUM_PAGES} takes as many")
        values = {"text": pair.response, "true_instruction": pair.instruction, "others": texts}
        rows.append({"id": pair.id, "lang": pair.lang, "language": pair.language, **values})
    return rows


def rated_rows(split: SeedSplit, rating: Rating, seed: int) -> list[Row]:
    """Pairs of known level, made of the held-out seeds, each with instructions of other seeds in the column `contrasts`.

    The true instruction of a pair's text is not among them: beside it a bad pair would be found out by what the margin cannot know.
    """
    seeds: dict[str, list[tuple[str, str, str]]] = {}
    for other in (*split.train, *split.held_out):
        seeds.setdefault(other.lang, []).append((other.id, other.instruction, other.response))
    num_near = rating.num_near_contrasts
    pools = {lang: pool_of(pages, num_near) for lang, pages in seeds.items()}

    def contrasts(row: Row) -> list[str]:
        pool = pools[row["lang"]]
        own = {row["instruction"], pool.instructions[row["seed"]]}
        return choose_contrasts(row, pool, own, rating.num_contrasts, num_near, seed)

    return [{**row, "contrasts": contrasts(row)} for row in pair_rows(rating_set(split.held_out, rating.max_page_chars, seed))]


def _writing(recipe: Recipe, writers: list[str], roles: Mapping[str, Role]) -> list[Stage]:
    plan: list[Stage] = []
    for writer in writers:
        ask = reverse_instruction(recipe.pairs, writer == "trained")
        columns = pa.schema([(f"instruction_{writer}", pa.string())])
        settings = {"pairs": semantic(recipe.pairs), **_known(roles[writer], ask)}
        plan.append(RowStage(f"written_{writer}", (_written(ask, writer),), columns, settings, writer))
    columns = pa.schema([(f"found_{writer}", pa.bool_()) for writer in writers])
    settings = {"num_tokens": recipe.rating.num_tokens, "writers": writers, **_known(roles["prompted"])}
    plan.append(RowStage("retrieved", (_retrieved(writers, recipe.rating.num_tokens),), columns, settings, "prompted"))
    return plan


def _written(ask: Ask, writer: str) -> AsyncStep:
    async def step(row: Row, context: Context) -> Columns:
        found = await ask(row, context)
        return {f"instruction_{writer}": "" if found is None or isinstance(found, Drop) else found["instruction"]}

    return step


def _retrieved(writers: list[str], num_tokens: int) -> AsyncStep:
    """Whether the seed's own text gains more likelihood from an instruction, over none at all, than each of the other texts."""

    async def step(row: Row, context: Context) -> Columns:
        instructions = [row[f"instruction_{writer}"] for writer in writers]
        gains = []
        for text in (row["text"], *row["others"]):
            without, *given = await logprobs_after(("", *instructions), row["language"], text, num_tokens, context, "retrieval")
            gains.append([value - without for value in given])
        own, others = gains[0], gains[1:]
        return {
            f"found_{writer}": bool(instructions[place]) and own[place] > max(gain[place] for gain in others)
            for place, writer in enumerate(writers)
        }

    return step


def _rating(recipe: Recipe, raters: list[str], roles: Mapping[str, Role]) -> list[Stage]:
    plan: list[Stage] = []
    for rater in raters:
        role = "evaluator" if rater == "trained" else "prompted_rater"
        if rater == "margin":
            step, column, ask = likelihood_margin(recipe.rating), "margin", None
        else:
            ask = rate_pair(Rating(**{**recipe.rating.model_dump(), "rater": rater}))
            step, column = ask, "rating"
        settings = {"rating": rater_settings(recipe.rating), **_known(roles[role], ask)}
        columns = pa.schema([(f"rating_{rater}", pa.float64())])
        plan.append(RowStage(f"rated_{rater}", (rated_or_null(step, column, f"rating_{rater}"),), columns, settings, role))
    return plan


def _known(role: Role, ask: Ask | None = None) -> dict[str, Any]:
    """What an answer depends on."""
    model, resolved = role
    prompts = {"prompts": ask.prompt.wordings} if ask else {}
    return {"model": semantic(model) | {"digest": resolved.digest}, **prompts}


def _taken(
    run: RunFolder,
    stages: list[Stage],
    rows: Sequence[Row],
    schema: pa.Schema,
    seed: int,
    roles: Mapping[str, Role],
    engines: Engines,
    console: Console,
) -> list[Row]:
    make_folder(run.root)
    # It measures a run; another model or setting of the run is another measurement, and the old one is nobody's work.
    check_fingerprints(run, stages, _SOURCE, {}, redo=True, kept=("seeds",))
    run.write_info({"stages": ["seeds", *(stage.name for stage in stages)]})
    take_rows(Pipeline(run, stages, roles, seed, _SOURCE, engines, console), list(rows), schema, "seeds")
    return finished_rows(run, stages[-1].name)


def _writer_score(rows: list[Row], writer: str, seed: int) -> WriterScore:
    sacrebleu = require("sacrebleu", "translate")
    ids = [row["id"] for row in rows]
    scores = [sacrebleu.sentence_chrf(row[f"instruction_{writer}"], [row["true_instruction"]]).score / 100 for row in rows]
    return WriterScore(estimate_mean(scores, ids, seed), estimate_mean([float(row[f"found_{writer}"]) for row in rows], ids, seed))


def _rater_score(rows: list[Row], rater: str, seed: int) -> RaterScore:
    column = f"rating_{rater}"
    return RaterScore(*rater_auc(rows, column, seed), *rater_auc([row for row in rows if is_hard(row)], column, seed))


def _labelled_score(rows: list[Row], rater: str, seed: int) -> LabelledScore:
    column = f"rating_{rater}"
    return LabelledScore(sum(row[column] is not None for row in rows), *rater_auc(rows, column, seed))
