"""Is the best of several translations nearer to a person's than a single one? XL-Instruct's choice without a reference, held against one.

Sentences that people translated are translated as an XL-Instruct recipe says. Each estimator chooses among the sound samples, and its
choice is compared with the first of them: by its own quality, where it must gain, and by chrF (Popović, W15-3049) to the reference.

OUT/stages/    one row a sentence: its samples, their faults, and every estimator's scores
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from xl.ask import AsyncStep, Columns, Context, Drop, quote
from xl.engines.models import ResolvedModel
from xl.errors import UserError, require
from xl.evaluate.intervals import Interval, group_interval
from xl.evaluate.rows import finished_rows, take_rows
from xl.folder import RunFolder, check_fingerprints
from xl.methods.xl_instruct import ROLES, Recipe, estimation_stage, player, translation_stages
from xl.pages.language import LANGUAGE_NAMES
from xl.pairs import quality_estimation as qe
from xl.pairs.parallel import ParallelText, SentencePair, read_pairs
from xl.pairs.samples import sample_id
from xl.pairs.translate import Shots, read_examples
from xl.pipeline import Engines, Pipeline, find_model
from xl.records import Row, seeded_rank
from xl.stage import RowStage
from xl.summary import ledgers

ESTIMATORS = ("round_trip", "llm", "likelihood")
REFERENCE = "reference"
"""In place of an estimator: the choice by chrF to the reference itself, the most that a choice among these samples can gain."""
MIN_CHARS = 40
"""Shorter English sentences are left out: the gates for the language are not made for so little text."""

_SENTENCES = "sentences"
_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "lang", "language", "document", "answer", "reference")])


@dataclass(frozen=True)
class Gain:
    """Means over sentences for the first sound sample and for the chosen one, and a 95 % interval of their difference."""

    first: float
    best: float
    interval: Interval
    """Documents are resampled; sentences where no documents are known."""


@dataclass(frozen=True)
class Comparison:
    """An estimator's choice beside the first sound sample, on the sentences where it gave a score."""

    num_sentences: int
    num_changed: int
    """Sentences where it chose another sample than the first sound one."""
    quality: Gain
    """In the estimator's unit."""
    chrf: Gain
    """Mean of the sentences' chrF to the reference, 0 to 100."""
    corpus_chrf: tuple[float, float]
    """chrF of all sentences as one text: of the first sound samples, and of the chosen ones."""
    agreement_ratio: float | None
    """Of two samples of a sentence that differ in chrF, how often the better one has the higher quality; ties count half."""


@dataclass(frozen=True)
class BestOf:
    """What came of it."""

    num_sentences: int
    """Those that were translated."""
    num_documents: int
    dropped: Mapping[str, int]
    """Sentences without a sound sample, by fault, or that failed."""
    num_first_faulty: int
    """Sentences whose first sample has a fault and another one is sound: a single sample would have lost them."""
    by_estimator: Mapping[str, Comparison]
    """Without an estimator that gave no scores; the last one is `REFERENCE`."""


def measure(
    recipe: Recipe, text: ParallelText, num_sentences: int, run: RunFolder, engines: Engines, console: Console, redo: bool = False
) -> BestOf:
    """Translate sentences and compare the choices among the samples, or go on doing so. Ray must be initialised.

    Args:
        recipe: its translator, estimator, `translate` (with examples for base models) and `gates`.
        text: English sentences and their references.
        num_sentences: how many of them; with more the next time, those that were translated are kept.
        run: the folder, claimed and locked.
        engines: of the run.
        console: for progress.
        redo: whether what was begun with other settings may be done anew.

    Raises:
        UserError: the recipe translates once or not at all, the text is too small, or cannot be told from the examples; a model fails.
    """
    if recipe.translate is None or recipe.translate.best_of == 1:
        raise UserError("translate: the recipe makes less than two translations of an answer; there is nothing to choose among")
    examples = read_examples(recipe.translate, [text.lang])
    rows = draw_sentences(text, num_sentences, examples.get(text.lang, ()), recipe.seed)
    roles = {role: (recipe.model_for(role), find_model(recipe.model_for(role))) for role in ROLES}
    stages = comparison_stages(recipe, {role: resolved for role, (_, resolved) in roles.items()}, examples)
    check_fingerprints(run, [*stages], _SENTENCES, {}, redo, kept=(_SENTENCES,))
    run.write_info({"stages": [_SENTENCES, *(stage.name for stage in stages)]})
    take_rows(Pipeline(run, [*stages], roles, recipe.seed, _SENTENCES, engines, console), rows, _SCHEMA, _SENTENCES)
    lost = sum((entry.dropped + entry.failed for stage in ledgers(run).values() for entry in stage.values()), Counter[str]())
    found = finished_rows(run, stages[-1].name)
    return BestOf(
        num_sentences=len(rows),
        num_documents=len({row["document"] for row in rows}),
        dropped=dict(lost),
        num_first_faulty=sum(row["sample_faults"][0] is not None for row in found),
        by_estimator=compare(found, recipe.seed),
    )


def draw_sentences(text: ParallelText, num_sentences: int, shots: Shots, seed: int) -> list[Row]:
    """Rows of so many sentences, in a seeded order in which more of them only follow.

    The documents that the `shots` of base models are from are left out; without documents each sentence counts as one.

    Raises:
        UserError: there are not as many sentences, one cannot be read, or shots are among them and documents are not known.
    """
    pairs = list(dict.fromkeys(read_pairs(text)))
    shown = {english for english, _ in shots}
    documents = {pair.document for pair in pairs if quote(pair.english) in shown}
    name = " and ".join(text.from_)
    if None in documents:
        raise UserError(
            f"{name}: the recipe's `translate.examples` are sentences of it; name its documents, or take examples from elsewhere"
        )
    left = [pair for pair in pairs if pair.error or (len(pair.english) >= MIN_CHARS and pair.other and pair.document not in documents)]
    if error := next((pair.error for pair in left if pair.error), None):
        raise UserError(error)
    if len(left) < num_sentences:
        raise UserError(f"{name}: {num_sentences:,} sentences are wanted, and {len(left):,} of {MIN_CHARS} characters or more are there")
    left.sort(key=lambda pair: seeded_rank(seed, "best_of", pair.english, pair.other))
    return [_sentence_row(text, pair) for pair in left[:num_sentences]]


def _sentence_row(text: ParallelText, pair: SentencePair) -> Row:
    key = sample_id(Counter(), text.source, "", text.lang, pair.english, pair.other)
    row = {"id": key, "lang": text.lang, "language": LANGUAGE_NAMES[text.lang]}
    return {**row, "document": pair.document or key, "answer": pair.english, "reference": pair.other}


def comparison_stages(recipe: Recipe, models: Mapping[str, ResolvedModel], examples: dict[str, Shots]) -> list[RowStage]:
    """The recipe's own translation and gates, then every estimator; `models` are the recipe's models by role, found."""
    assert recipe.translate is not None
    translator, estimator = (player(role, recipe, models) for role in ("translator", "estimator"))
    stages = translation_stages(recipe.translate, recipe.gates, examples, translator)
    for name in ESTIMATORS:
        settings = (recipe.estimate or qe.Estimate()).model_copy(update={"estimator": name})
        stage = estimation_stage(settings, recipe.translate, examples, estimator)
        (step,), (column,) = stage.steps, stage.adds
        adds = pa.schema([column.with_name(f"scores_{name}")])
        stages.append(replace(stage, name=f"estimated_{name}", steps=(_scores(step, name),), adds=adds))
    return stages


def _scores(estimate: Any, name: str) -> AsyncStep:
    async def step(row: Row, context: Context) -> Columns:
        return {f"scores_{name}": (await estimate(row, context))["sample_scores"]}

    return step


def compare(rows: Sequence[Row], seed: int) -> dict[str, Comparison]:
    """Each estimator's choice among the samples of finished rows beside the first sound one, and last that of `REFERENCE`.

    Raises:
        MissingExtra: sacrebleu or scipy is not installed.
    """
    chrfs = [_sample_chrfs(row) for row in rows]
    scored = {name: [{**row, "sample_scores": row[f"scores_{name}"]} for row in rows] for name in ESTIMATORS}
    # The answer as one segment: the reference chooses by the whole translation's chrF.
    scored[REFERENCE] = [
        {**row, "segments": [row["answer"]], "sample_scores": [None if chrf is None else [chrf] for chrf in of_row]}
        for row, of_row in zip(rows, chrfs, strict=True)
    ]
    choices = {name: list(filter(None, map(_choose, of_estimator, chrfs))) for name, of_estimator in scored.items()}
    return {name: _compare(chosen, seed) for name, chosen in choices.items() if chosen}


def _sample_chrfs(row: Row) -> list[float | None]:
    """chrF of the sound samples to the reference."""
    sentence_chrf = require("sacrebleu", "translate").sentence_chrf
    return [
        None if fault else float(sentence_chrf(qe.response_columns(row, number)["response"], [row["reference"]]).score)
        for number, fault in enumerate(row["sample_faults"])
    ]


@dataclass(frozen=True)
class _Choice:
    """Of a sentence's samples, the first sound one and the chosen one, by number; quality and chrF of each sample, None for faulty ones."""

    row: Row
    first: int
    best: int
    qualities: Sequence[float | None]
    chrfs: Sequence[float | None]


def _choose(row: Row, chrfs: Sequence[float | None]) -> _Choice | None:
    """None where the estimator gave the first sound sample no score: there is nothing to compare with."""
    choice = qe.choose_best(qe.Choice())(row)
    first = row["sample_faults"].index(None)
    if isinstance(choice, Drop) or choice is None or choice["sample_qualities"][first] is None:
        return None
    return _Choice(row, first, choice["best_sample"], choice["sample_qualities"], chrfs)


def _compare(choices: Sequence[_Choice], seed: int) -> Comparison:
    return Comparison(
        num_sentences=len(choices),
        num_changed=sum(choice.best != choice.first for choice in choices),
        quality=_gain(choices, [choice.qualities for choice in choices], seed),
        chrf=_gain(choices, [choice.chrfs for choice in choices], seed),
        corpus_chrf=(_corpus_chrf(choices, "first"), _corpus_chrf(choices, "best")),
        agreement_ratio=_agreement_ratio(choices),
    )


def _gain(choices: Sequence[_Choice], values: Sequence[Sequence[float | None]], seed: int) -> Gain:
    """`values` has an entry for each sample of each sentence."""
    first, best = (
        np.array([of_samples[getattr(choice, which)] for choice, of_samples in zip(choices, values, strict=True)], dtype=float)
        for which in ("first", "best")
    )
    documents = [choice.row["document"] for choice in choices]
    return Gain(float(first.mean()), float(best.mean()), group_interval((best - first).tolist(), documents, seed))


def _corpus_chrf(choices: Sequence[_Choice], which: str) -> float:
    texts = [qe.response_columns(choice.row, getattr(choice, which))["response"] for choice in choices]
    references = [choice.row["reference"] for choice in choices]
    return float(require("sacrebleu", "translate").corpus_chrf(texts, [references]).score)


def _agreement_ratio(choices: Sequence[_Choice]) -> float | None:
    """Kendall's concordance within sentences, as a share; None where no two samples of a sentence differ in chrF."""
    signs = []
    for choice in choices:
        samples = [(q, c) for q, c in zip(choice.qualities, choice.chrfs, strict=True) if q is not None and c is not None]
        for (quality, chrf), (other_quality, other_chrf) in itertools.combinations(samples, 2):
            if chrf != other_chrf:
                signs.append(np.sign(quality - other_quality) * np.sign(chrf - other_chrf))
    return float(np.mean(signs) + 1) / 2 if signs else None
