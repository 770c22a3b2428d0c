"""XL-Instruct (Iyer et al., 2025, arXiv 2503.22973): English passages become refined English answers, translated, the best sample kept."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import pyarrow as pa
from pydantic import BeforeValidator, Field, model_validator

from xl import recipe as recipes
from xl.ask import Columns, Drop, Filter
from xl.engines.models import ResolvedModel
from xl.errors import UserError
from xl.evaluate.prompts import clauses, varied_request
from xl.methods.contamination import uncontaminated
from xl.pages.clean import clean_pages
from xl.pages.duplicates import drop_duplicates
from xl.pages.language import LANGUAGE_NAMES
from xl.pairs import quality_estimation as qe
from xl.pairs.distil import Distil, answer_directly, keep_answer
from xl.pairs.mix import choose_pairs
from xl.pairs.question import write_question
from xl.pairs.refine import CRITERIA, Refine, Score, keep_refined, keep_score, refine_answer, score_answer, score_prompt, take_draft
from xl.pairs.reverse import Reverse, keep_instruction
from xl.pairs.topics import topic
from xl.pairs.translate import Gates, Shots, Translate, check_samples, read_examples, translate_answer, translation_prompt
from xl.records import Row, seeded_rank
from xl.settings import semantic
from xl.stage import RowStage, Stage

ROLES = ("writer", "rater", "translator", "estimator", "teacher")
"""What models do here: write questions and refine answers, score them, translate them, estimate the translations' quality, or answer
in the language themselves."""

_SWITCH = BeforeValidator(lambda value: None if value is False else value)
"""`false` in a recipe leaves the step out."""

_SAMPLE_COLUMNS = pa.schema(
    [
        ("segments", pa.list_(pa.string())),
        ("gaps", pa.list_(pa.string())),
        ("samples", pa.list_(pa.list_(pa.string()))),
        ("samples_finished", pa.list_(pa.bool_())),
    ]
)
_CHOSEN_COLUMNS = pa.schema(
    [
        ("response", pa.string()),
        ("best_sample", pa.int64()),
        ("num_samples_left", pa.int64()),
        ("quality", pa.float64()),
        ("sample_qualities", pa.list_(pa.float64())),
        ("topic", pa.string()),
    ]
)


class Models(recipes.Models):
    """The models by what they do."""

    stand_ins: ClassVar[Mapping[str, str]] = {"rater": "writer", "translator": "writer", "estimator": "translator", "teacher": "writer"}
    writer: recipes.Model
    """Writes questions and refines answers."""
    rater: recipes.Model | None = None
    """Scores the English answers; by default the writer."""
    translator: recipes.Model | None = None
    """Translates them; by default the writer."""
    estimator: recipes.Model | None = None
    """Estimates the translations' quality; by default the translator."""
    teacher: recipes.Model | None = None
    """Answers in the language itself, for `distil`; by default the writer."""


class Recipe(recipes.PageRecipe):
    """The keys of an XL-Instruct recipe: English pages, and the method's steps.

    `refine`, `score`, `translate` and `estimate` may be `false`: the arms of the paper's ablation.

    Raw passages are `refine: false`; `translate: false` leaves English pairs, without a request for a language; one sample is
    `translate: {best_of: 1}`.
    """

    models: Models
    question: Reverse = Reverse()
    max_draft_chars: int = Field(2000, ge=100)
    """The passage is cut there, at a sentence, before it is refined or taken as it is. A small base model wants about 400."""
    refine: Annotated[Refine | None, _SWITCH] = Refine()
    score: Annotated[Score | None, _SWITCH] = Score()
    translate: Annotated[Translate | None, _SWITCH] = Translate()
    gates: Gates = Gates()
    estimate: Annotated[qe.Estimate | None, _SWITCH] = qe.Estimate()
    choice: qe.Choice = qe.Choice()
    distil: Distil | None = None
    """Let a teacher answer the English request in the language itself, in the place of all steps from the refinement to the choice: a
    baseline of X-Instruction. It wants `refine`, `score` and `translate` to be false."""
    per_language: int | None = Field(None, gt=0)
    """Most pairs in the dataset per language; null keeps all."""
    max_topic_ratio: float = Field(0.1, gt=0, le=1)
    """Largest share of a language's pairs that one topic (verb and object) may have."""

    @model_validator(mode="after")
    def _can_choose(self) -> "Recipe":
        if self.estimate is None and self.translate and self.translate.best_of > 1:
            raise ValueError("`estimate: false` leaves nothing to choose among samples by; it needs `translate: {best_of: 1}`")
        if self.estimate is None and self.choice.min_quality is not None:
            raise ValueError("`choice.min_quality` needs an `estimate`")
        if self.distil and (self.refine or self.score or self.translate):
            raise ValueError("`distil` answers in the language itself; it needs refine: false, score: false and translate: false")
        if self.translate and "en" in self.languages:
            raise ValueError("languages: en: the answers are translated from English; leave it out, or set translate: false")
        return self

    @property
    def unread(self) -> Mapping[str, str]:
        """Keys of other estimators, and what is done with translations where there are none."""
        own = self.estimate.estimator if self.estimate else None
        unread = {
            f"estimate.{key}": f"it belongs to estimator: {of}, not to estimator: {own}" for key, of in qe.READ_BY.items() if own != of
        }
        if self.translate is None:
            unread |= dict.fromkeys(("gates", "choice"), "with translate: false there is no translation to check or choose")
        return unread

    @property
    def page_languages(self) -> tuple[str, ...]:
        """The pages are English, whatever the answers are in."""
        return ("en",)


class Player(NamedTuple):
    """A model in a role: the key of the role whose engine it shares, and what of it can change a row."""

    key: str
    settings: dict[str, Any]


def stages(recipe: Recipe, models: Mapping[str, ResolvedModel]) -> list[Stage]:
    """The method's stages; `models` are the recipe's models by role, found.

    Raises:
        UserError: a language cannot be a target or cannot be estimated, or the files of examples are not sound.
        MissingExtra: the estimator's library is not installed.
    """
    writer, rater, translator, estimator, teacher = (player(role, recipe, models) for role in ROLES)
    plan: list[Stage] = [clean_pages(recipe.quality), drop_duplicates(), _question(recipe.question, writer)]
    if recipe.distil:
        plan += [_clause(recipe.languages, recipe.seed), _answered(recipe.distil, teacher)]
        plan.append(RowStage("chosen", (_add_topic,), pa.schema([("topic", pa.string())])))
        return [*plan, *_dataset(recipe)]
    plan.append(_refined(recipe, writer))
    if recipe.score:
        plan += _scored(recipe.score, rater)
    if recipe.translate:
        _check_estimator(recipe)
        examples = read_examples(recipe.translate, recipe.languages)
        plan += [_clause(recipe.languages, recipe.seed), *translation_stages(recipe.translate, recipe.gates, examples, translator)]
        if recipe.estimate:
            plan.append(estimation_stage(recipe.estimate, recipe.translate, examples, estimator))
        plan.append(_chosen(recipe))
    else:
        plan.append(RowStage("chosen", (_take_english,), pa.schema([(n, pa.string()) for n in ("request", "response", "topic")])))
    return [*plan, *_dataset(recipe)]


def _dataset(recipe: Recipe) -> list[Stage]:
    pairs = choose_pairs(recipe.per_language, recipe.max_topic_ratio, recipe.seed)
    return [*uncontaminated(recipe, ("text", "instruction", "answer", "response")), pairs]


def _question(settings: Reverse, writer: Player) -> Stage:
    ask = write_question(settings)
    own = {"question": semantic(settings), "prompts": ask.prompt.wordings, **writer.settings}
    return RowStage(
        "question", (_english_only, ask, keep_instruction(settings)), pa.schema([("instruction", pa.string())]), own, writer.key
    )


def _refined(settings: Recipe, writer: Player) -> Stage:
    columns = pa.schema([("draft", pa.string()), ("answer", pa.string()), ("draft_ratio", pa.float64())])
    own: dict[str, Any] = {"max_draft_chars": settings.max_draft_chars}
    draft = take_draft(settings.max_draft_chars)
    if settings.refine is None:
        return RowStage("refined", (draft,), columns, {**own, "refine": False})
    ask = refine_answer(settings.refine)
    own |= {"refine": semantic(settings.refine), "prompts": ask.prompt.wordings, **writer.settings}
    return RowStage("refined", (draft, ask, keep_refined(settings.refine)), columns, own, writer.key)


def _scored(settings: Score, rater: Player) -> list[Stage]:
    columns = pa.schema([(name, pa.float64()) for name in (*CRITERIA, "score")])
    own = {"criteria": CRITERIA, "prompts": score_prompt().wordings, **rater.settings}
    return [
        RowStage("scored", (score_answer(),), columns, own, rater.key),
        # The thresholds stand in a stage of their own: to try others costs no call to the rater.
        RowStage("accepted", (keep_score(settings),), pa.schema([]), {"score": semantic(settings)}),
    ]


def _clause(languages: Sequence[str], seed: int) -> Stage:
    columns = pa.schema([(name, pa.string()) for name in ("lang", "language", "request")])
    own = {"languages": sorted(languages), "clauses": clauses(), "seed": seed}
    return RowStage("clause", (draw_language(languages, seed),), columns, own)


def _answered(settings: Distil, teacher: Player) -> Stage:
    ask = answer_directly(settings)
    own = {"distil": semantic(settings), "prompts": ask.prompt.wordings, **teacher.settings}
    return RowStage("answered", (ask, keep_answer(settings)), pa.schema([("response", pa.string())]), own, teacher.key)


def translation_stages(settings: Translate, gates: Gates, examples: dict[str, Shots], translator: Player) -> list[RowStage]:
    """Translate the `answer` into the row's `lang` several times, and find the samples' faults; drops rows without a sound sample."""
    own = {
        "translate": semantic(settings),
        "examples": examples,
        "prompts": translation_prompt().wordings,
        **translator.settings,
    }
    faults = pa.schema([("sample_faults", pa.list_(pa.string()))])
    return [
        RowStage("translated", (translate_answer(settings, examples),), _SAMPLE_COLUMNS, own, translator.key),
        RowStage("checked", (check_samples(gates),), faults, {"gates": semantic(gates)}),
    ]


def estimation_stage(settings: qe.Estimate, translate: Translate, examples: dict[str, Shots], estimator: Player) -> RowStage:
    """Estimate the quality of the sound samples; column `sample_scores`. Raises MissingExtra: the estimator's library is missing."""
    own: dict[str, Any] = {"estimate": semantic(settings)}
    if settings.estimator == "comet":
        estimate = qe.comet_estimator(settings)
    elif settings.estimator == "llm":
        estimate = qe.llm_estimator()
        own |= {"prompts": qe.grading_prompt().wordings, **estimator.settings}
    else:
        by_translation = {"examples": examples, "num_examples": translate.num_examples}
        own |= {**by_translation, "prompts": translation_prompt().wordings, **estimator.settings}
        if settings.estimator == "round_trip":
            estimate = qe.round_trip_estimator(examples, translate.num_examples)
        else:
            estimate = qe.likelihood_estimator(examples, translate.num_examples, settings.max_scored_tokens)
    columns = pa.schema([("sample_scores", pa.list_(pa.list_(pa.float64())))])
    model = None if settings.estimator == "comet" else estimator.key
    return RowStage("estimated", (qe.estimate_quality(estimate),), columns, own, model)


def _chosen(settings: Recipe) -> Stage:
    choose: Filter = qe.choose_best(settings.choice) if settings.estimate else qe.take_only_sample
    return RowStage("chosen", (choose, _add_topic), _CHOSEN_COLUMNS, {"choice": semantic(settings.choice)})


def draw_language(languages: Sequence[str], seed: int) -> Filter:
    """Give each row one of the languages, with equal probability, and a request that asks for it; columns `lang`, `language`, `request`.

    Each row takes the language that stands first in an order of its own (rendezvous hashing): a language more takes its share from
    the others and moves no row among them.
    """

    def step(row: Row) -> Columns:
        lang = min(languages, key=lambda code: seeded_rank(seed, "language", row["id"], code))
        language = LANGUAGE_NAMES[lang]
        return {"lang": lang, "language": language, "request": varied_request(row["instruction"], language, row["id"], seed)}

    return step


def player(role: str, recipe: Recipe, models: Mapping[str, ResolvedModel]) -> Player:
    """The model that plays a role; `models` are the recipe's models by role, found."""
    model = recipe.model_for(role)
    key = next(other for other in ROLES if recipe.model_for(other) == model)
    return Player(key, {"model": semantic(model) | {"digest": models[role].digest}, "seed": recipe.seed})


def _check_estimator(recipe: Recipe) -> None:
    estimate = recipe.estimate
    if estimate and estimate.estimator == "comet" and estimate.comet_model.startswith("Unbabel/") and "mt" in recipe.languages:
        raise UserError(f"estimate.comet_model: {estimate.comet_model} has never seen Maltese (mt); use another estimator for it")


def _english_only(row: Row) -> Drop | None:
    return None if row["lang"] == "en" else Drop("not_english_page")


def _take_english(row: Row) -> Columns:
    return {"request": row["instruction"], "response": row["answer"], **_add_topic(row)}


def _add_topic(row: Row) -> Columns:
    return {"topic": topic(row["instruction"])}
