"""X-Instruction (Li et al., 2024, arXiv 2405.19744): web text is the response, a model writes the English instruction it answers."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, model_validator

from xl import recipe as recipes
from xl.ask import Columns
from xl.engines.models import ResolvedModel
from xl.engines.models import resolve as find_model_folder
from xl.folder import RunFolder
from xl.methods.contamination import uncontaminated
from xl.methods.rounds import evaluator_exam, evaluator_role, rated_stage, rounds_of
from xl.pages.clean import clean_pages
from xl.pages.duplicates import drop_duplicates
from xl.pairs.contrasts import draw_contrasts
from xl.pairs.diversify import Diversity, cluster_instructions, draw_equally
from xl.pairs.mix import choose_pairs
from xl.pairs.rate import (
    READ_BY,
    Rating,
    keep_margin,
    keep_rating,
    likelihood_margin,
    rate_pair,
    rater_settings,
    rating_rows,
    scoring_prefix,
)
from xl.pairs.rating_set import rating_set
from xl.pairs.reverse import Reverse, keep_instruction, reverse_instruction, reverse_rows
from xl.pairs.rounds import label_sure_pairs, lesson, rate_again
from xl.pairs.seeds import Seeds, SeedSplit, read_seeds
from xl.pairs.topics import topic
from xl.records import Row
from xl.report.rounds import write_rounds
from xl.settings import semantic
from xl.stage import RowStage, Stage
from xl.train.roles import Lessons, RoleTraining
from xl.train.settings import Train

_MARGIN_COLUMNS = pa.schema([("margin", pa.float64()), ("rank", pa.int64()), ("own_logprob", pa.float64())])
_RATING_COLUMNS = pa.schema([("rating", pa.float64()), ("rating_level", pa.int64())])
_THRESHOLDS = ("min_margin", "max_rank", "min_rating")
_QUOTA = ("per_language", "max_topic_ratio")
_READ_BY_ALL_RATERS = ("num_contrasts", "num_near_contrasts", "num_tokens", "max_page_chars", "max_base_page_chars")
"""Keys of the rating that count where all raters are compared on held-out seeds (`xl.methods.held_out`)."""


class Pairs(Reverse):
    """How instructions are written, and how many pairs are wanted."""

    per_language: int | None = Field(None, gt=0)
    """Most pairs in the dataset per language; null keeps all."""
    max_topic_ratio: float = Field(0.1, gt=0, le=1)
    """Largest share of a language's pairs that one topic (verb and object) may have."""


class Models(recipes.Models):
    """The models by what they do."""

    stand_ins: ClassVar[Mapping[str, str]] = {"rater": "writer"}
    writer: recipes.Model
    """Writes the instruction that a page answers."""
    rater: recipes.Model | None = None
    """Rates the pairs; by default the writer."""


class Recipe(recipes.PageRecipe):
    """The keys of an X-Instruction recipe."""

    models: Models
    seeds: Seeds | None = None
    """Pairs that people wrote: what the reverse model and the evaluator are trained on."""
    reverse_model: Train | None = None
    """How `models.writer` is tuned to write instructions, as in the paper; without it the writer is prompted."""
    evaluator: Train | None = None
    """How `models.rater` is tuned for `rating.rater: trained`."""
    pairs: Pairs = Pairs()
    rating: Rating = Rating()
    diversity: Diversity | None = None
    """How instructions are clustered before `pairs.per_language` of them are drawn equally; without it they are drawn at random."""

    @model_validator(mode="after")
    def _has_its_seeds(self) -> "Recipe":
        if (self.reverse_model or self.evaluator) and not self.seeds:
            raise ValueError("`seeds` is missing: the pairs that `reverse_model` and `evaluator` are trained on")
        if (self.rating.rater == "trained") != (self.evaluator is not None):
            raise ValueError("rating.rater: trained and `evaluator`, how it is trained, belong together")
        if self.rating.rounds.num_rounds > 1 and not self.evaluator:
            raise ValueError("rating.rounds: only an evaluator that is trained can be trained again; it wants rating.rater: trained")
        return self

    @property
    def unread(self) -> Mapping[str, str]:
        """Keys of other raters, seeds that train nothing, and clusters of which all is drawn."""
        own = self.rating.rater
        compared = _READ_BY_ALL_RATERS if self.seeds and self.seeds.num_held_out else ()
        unread = {
            f"rating.{key}": f"it belongs to rater: {' and '.join(raters)}, not to rater: {own}"
            for key, raters in READ_BY.items()
            if own not in raters and key not in compared
        }
        if not (self.reverse_model or self.evaluator):
            unread["seeds"] = "neither `reverse_model` nor `evaluator` is there to be trained on it"
        if self.pairs.per_language is None:
            unread["diversity"] = "without `pairs.per_language` all pairs are drawn"
        return unread

    def model_for(self, role: str) -> recipes.Model:
        """The model that plays a role; the evaluators of all rounds are the rater's."""
        return super().model_for("rater" if role.startswith("rater_") else role)


def trainings(recipe: Recipe, models: dict[str, ResolvedModel]) -> dict[str, RoleTraining]:
    """The reverse model (`writer`) and the evaluator (`rater`), where the recipe trains them. Raises UserError for unusable seeds."""
    if not (recipe.seeds and (recipe.reverse_model or recipe.evaluator)):
        return {}
    seeds = read_seeds(recipe.seeds, recipe.languages, recipe.seed)
    found: dict[str, RoleTraining] = {}
    if recipe.reverse_model:
        rows = tuple(reverse_rows(seeds.train, recipe.pairs))
        found["writer"] = RoleTraining(models["writer"], rows, recipe.reverse_model, remark=_passed_over(seeds))
    return found | _evaluators(recipe, models["rater"], seeds) if recipe.evaluator else found


def _passed_over(seeds: SeedSplit) -> str | None:
    number = f"{seeds.num_empty:,} seed{'s' if seeds.num_empty > 1 else ''}"
    return f"{number} without instruction or response left out" if seeds.num_empty else None


def _evaluators(recipe: Recipe, base: ResolvedModel, seeds: SeedSplit) -> dict[str, RoleTraining]:
    """An evaluator for each round: all learn the synthetic rating set, the later ones also what the round before was sure of."""
    assert recipe.evaluator is not None
    rating = recipe.rating
    rows = tuple(rating_rows(rating_set(seeds.train, rating.max_page_chars, recipe.seed), rating))
    exam = evaluator_exam(seeds.held_out, rating, recipe.seed)
    first = RoleTraining(base, rows, recipe.evaluator, exam=exam, remark=_passed_over(seeds))
    found = {evaluator_role(1): first}
    for number in range(2, rating.rounds.num_rounds + 1):
        labels = label_sure_pairs(number, rating.rounds, rating.min_rating, recipe.seed)
        decided_by = {"labels": labels.settings, "before": found[evaluator_role(number - 1)].digest}
        found[evaluator_role(number)] = replace(first, lessons=Lessons(labels.name, partial(lesson, rating), decided_by))
    return found


def conclude(recipe: Recipe, run: RunFolder, shards: list[str]) -> None:
    """Write RUN/rounds.json: what the rounds of the trained rater came to."""
    path = run.root / "rounds.json"
    path.unlink(missing_ok=True)
    if recipe.rating.rater == "trained":
        roles = [evaluator_role(number) for number in range(1, recipe.rating.rounds.num_rounds + 1)]
        digests = [run.info["models"][role]["digest"] for role in roles]
        write_rounds(path, rounds_of(run, shards, recipe.rating, recipe.seed, digests))


def stages(recipe: Recipe, models: dict[str, ResolvedModel]) -> list[Stage]:
    """The method's stages; `models` are the recipe's models by role, found."""
    return [
        clean_pages(recipe.quality),
        drop_duplicates(),
        _paired(recipe, models),
        *_rated(recipe, models),
        _accepted(recipe.rating),
        *uncontaminated(recipe, ("text", "instruction")),
        *_diversified(recipe),
    ]


def _paired(recipe: Recipe, models: Mapping[str, ResolvedModel]) -> Stage:
    ask = reverse_instruction(recipe.pairs, recipe.reverse_model is not None)
    settings = {name: value for name, value in semantic(recipe.pairs).items() if name not in _QUOTA}
    own = {"pairs": settings, "prompts": ask.prompt.wordings, **_asked("writer", recipe, models)}
    return RowStage("pairs", (ask, keep_instruction(recipe.pairs)), pa.schema([("instruction", pa.string())]), own, model="writer")


def _rated(recipe: Recipe, models: Mapping[str, ResolvedModel]) -> list[Stage]:
    """The first round of rating, and those after it."""
    settings = {name: value for name, value in rater_settings(recipe.rating).items() if name not in (*_THRESHOLDS, "rounds")}
    same_engine = (recipe.model_for("rater"), models["rater"]) == (recipe.model_for("writer"), models["writer"])
    engine = "writer" if same_engine else "rater"
    if recipe.rating.rater == "likelihood":
        own = {"rating": {**settings, "prompts": [scoring_prefix("{instruction}", "{language}")]}, **_asked("rater", recipe, models)}
        rated = RowStage(rated_stage(1), (likelihood_margin(recipe.rating),), _MARGIN_COLUMNS, own, engine)
        return [draw_contrasts(recipe.rating.num_contrasts, recipe.seed, recipe.rating.num_near_contrasts), rated]
    ask = rate_pair(recipe.rating)
    rating = {"rating": {**settings, "prompts": ask.prompt.wordings}}
    plan: list[Stage] = [RowStage(rated_stage(1), (ask,), _RATING_COLUMNS, {**rating, **_asked("rater", recipe, models)}, engine)]
    for number in range(2, recipe.rating.rounds.num_rounds + 1):
        plan += _later_round(number, recipe, {**rating, **_asked(evaluator_role(number), recipe, models)})
    return plan


def _later_round(number: int, recipe: Recipe, settings: Mapping[str, Any]) -> list[Stage]:
    """Choose what the next evaluator learns, and rate again by it."""
    columns = _RATING_COLUMNS.append(pa.field("rating_before", pa.float64()))
    return [
        label_sure_pairs(number, recipe.rating.rounds, recipe.rating.min_rating, recipe.seed),
        RowStage(rated_stage(number), (rate_again(recipe.rating),), columns, settings, model=evaluator_role(number)),
    ]


def _accepted(rating: Rating) -> Stage:
    """The thresholds, in a stage of their own: to try others costs no call to the rater."""
    keep = keep_margin(rating) if rating.rater == "likelihood" else keep_rating(rating)
    settings = {name: value for name, value in semantic(rating).items() if name in _THRESHOLDS}
    return RowStage("accepted", (keep, _add_topic), pa.schema([("topic", pa.string())]), {"rating": settings})


def _diversified(recipe: Recipe) -> list[Stage]:
    quota, most = recipe.pairs.per_language, recipe.pairs.max_topic_ratio
    if not recipe.diversity:
        return [choose_pairs(quota, most, recipe.seed)]
    return [
        choose_pairs(quota, most, recipe.seed, name="capped", drawn_later=True),
        cluster_instructions(recipe.diversity, find_model_folder(recipe.diversity.model), recipe.seed),
        draw_equally(quota, recipe.seed),
    ]


def _asked(role: str, recipe: Recipe, models: Mapping[str, ResolvedModel]) -> dict[str, Any]:
    """What an answer depends on through the model that gives it."""
    return {"model": semantic(recipe.model_for(role)) | {"digest": models[role].digest}, "seed": recipe.seed}


def _add_topic(row: Row) -> Columns:
    return {"topic": topic(row["instruction"])}
