"""CrossAlpaca (Ranaldi et al., 2024, arXiv 2308.14186): English instructions, their translations, and translation as an instruction."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
from pydantic import Field, model_validator

from xl import recipe as recipes
from xl.ask import Columns
from xl.engines.models import ResolvedModel
from xl.errors import UserError
from xl.evaluate.rows import model_settings
from xl.folder import plain
from xl.methods.contamination import uncontaminated
from xl.pages.duplicates import drop_duplicates
from xl.pages.language import LANGUAGE_NAMES
from xl.pages.read import SourceFile, source_file
from xl.pairs import alpaca, demonstrations
from xl.pairs.alpaca import AlpacaData, read_alpaca
from xl.pairs.cleaning import Cleaning, sample_filters
from xl.pairs.datasets import DATASET_SAMPLE_SCHEMA, RunDataset, count_pairs, read_dataset
from xl.pairs.demonstrations import read_demonstrations, templates, word_translation
from xl.pairs.mixture import Component, Mixture, component_languages, mix
from xl.pairs.parallel import ParallelText
from xl.pairs.samples import SAMPLE_SCHEMA, Direction, DirectionWeights
from xl.pairs.translate import read_examples, translation_prompt
from xl.pairs.translate_samples import TranslateSamples, translate_samples
from xl.records import Row
from xl.settings import semantic
from xl.stage import RowStage, Stage
from xl.train.prompts import request

_TRANSLATION_DIRECTIONS = (Direction.EN_X, Direction.X_EN)


class Models(recipes.Models):
    """The models by what they do."""

    translator: recipes.Model | None = None
    """Translates English instructions where `alpaca` says so."""


class Recipe(recipes.Recipe):
    """The keys of a CrossAlpaca recipe: where instructions and parallel text are, and what is made of them."""

    models: Models = Models()
    alpaca: tuple[AlpacaData, ...] = ()
    parallel: tuple[ParallelText, ...] = ()
    datasets: tuple[RunDataset, ...] = ()
    """What finished runs have made, of whatever method: the mixture draws from it by the method's name."""
    alpaca_directions: DirectionWeights = Field({Direction.X_X: 1})
    """Shares of the directions that a translated instruction takes: x-x as in CrossAlpaca, en-x and x-en as in CrossIn."""
    translation_directions: DirectionWeights = Field({Direction.EN_X: 1, Direction.X_EN: 1})
    """Shares of the directions that a sentence pair is asked for in."""
    cleaning: Cleaning = Cleaning()
    mixture: Mixture = Mixture.model_validate("en_x_translation")

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if not (self.alpaca or self.datasets):
            raise ValueError("`alpaca` is missing: the instruction data, unless `datasets` gives some that runs have made")
        if any(weight for direction, weight in self.translation_directions.items() if direction not in _TRANSLATION_DIRECTIONS):
            raise ValueError("translation_directions: a translation goes en-x or x-en")
        unaligned = [data.source for data in self.alpaca if not data.joined_by]
        if unaligned and any(self.alpaca_directions.get(direction) for direction in _TRANSLATION_DIRECTIONS):
            raise ValueError(f"alpaca_directions: en-x and x-en join translations; {unaligned[0]!r} wants `align_by`")
        if self.translations and self.models.translator is None:
            raise ValueError("`models.translator` is missing: the model that `alpaca.translate` asks")
        if shared := [source for source in self.translations if self.sources.count(source) > 1]:
            raise ValueError(f"alpaca: what is translated goes by its `source`, and {shared[0]!r} is the name of two; give another one")
        for component in self.mixture.components:
            self._check_component(component)
        return self

    @property
    def translations(self) -> dict[str, TranslateSamples]:
        """How data is translated, by its source; data that is not translated here is left out."""
        return {data.source: data.translate for data in self.alpaca if data.translate}

    @property
    def sources(self) -> list[str]:
        """Names of the data sets, the parallel text and the runs' datasets."""
        parts: tuple[AlpacaData | ParallelText | RunDataset, ...] = (*self.alpaca, *self.parallel, *self.datasets)
        return [part.source for part in parts]

    def files(self) -> list[SourceFile]:
        """The files of all, in the recipe's order. Raises UserError when one is missing, or a run is not finished."""
        paths = [path for data in self.alpaca for path in (*data.files.values(), *filter(None, [data.from_]))]
        for text in self.parallel:
            paths += [*text.from_, *filter(None, [text.documents])]
        for dataset in self.datasets:
            paths += dataset.files()
        return [source_file(path) for path in paths]

    def input_settings(self) -> dict[str, Any]:
        """Which directions are drawn. How columns are read shows in the rows themselves: one that is read otherwise is another row."""
        return {key: plain(getattr(self, key)) for key in ("alpaca_directions", "translation_directions")}

    def input_choice(self) -> dict[str, Any]:
        """The data, and what is drawn of it."""
        keys = {"languages", "alpaca", "parallel", "datasets", "alpaca_directions", "translation_directions", "seed"}
        return self.model_dump(mode="json", by_alias=True, include=keys)

    def _check_component(self, component: Component) -> None:
        where = f"mixture: component {component.name!r}"
        known = {alpaca.METHOD: self.alpaca_directions, demonstrations.METHOD: self.translation_directions}
        if component.method not in known:
            if not self.datasets:
                raise ValueError(f"{where}: no method {component.method!r} here; there are {' and '.join(known)}, and those of `datasets`")
            return
        if component.method == alpaca.METHOD and not self.alpaca:
            raise ValueError(f"{where} wants instruction data; give `alpaca`, or a mixture without it")
        if component.method == demonstrations.METHOD and not self.parallel:
            raise ValueError(f"{where} wants parallel text; give `parallel`, or a mixture without it, such as en_x")
        is_english = component.method == alpaca.METHOD and component.direction == Direction.EN_EN
        if not is_english and not known[component.method].get(component.direction):
            raise ValueError(f"{where}: give the direction {component.direction.value} a weight in `{component.method}_directions`")


def rows(recipe: Recipe) -> tuple[Iterator[Row], pa.Schema]:
    """The method's rows as they are read, and their columns: instructions in English and in the languages, sentence pairs, runs' pairs.

    All data is read whatever the mixture draws from it, so that arms of different mixtures share what comes before.

    Raises:
        UserError: the mixture wants a language that no data is in; while the rows are read, a file that cannot be.
    """
    _check_languages(recipe)
    return _read(recipe), DATASET_SAMPLE_SCHEMA if recipe.datasets else SAMPLE_SCHEMA


def _read(recipe: Recipe) -> Iterator[Row]:
    seen: Counter[tuple[str, str]] = Counter()
    for data in recipe.alpaca:
        yield from read_alpaca(data, recipe.languages, recipe.alpaca_directions, recipe.seed, seen)
    for text in recipe.parallel:
        if text.lang in recipe.languages:
            yield from read_demonstrations(text, recipe.translation_directions, recipe.seed, seen)
    for dataset in recipe.datasets:
        yield from read_dataset(dataset, recipe.languages, seen)


def _check_languages(recipe: Recipe) -> None:
    """Whether there is data in each language that the mixture draws.

    Files that tell languages apart by a column are trusted, and a translator makes every language.
    """
    has_any = any(data.from_ for data in recipe.alpaca) or recipe.translations
    there = {
        alpaca.METHOD: set(LANGUAGE_NAMES) if has_any else {lang for data in recipe.alpaca for lang in data.files},
        demonstrations.METHOD: {text.lang for text in recipe.parallel},
    }
    made = Counter[tuple[str, Direction, str]]()
    for dataset in recipe.datasets:
        made += count_pairs(dataset)
    for component in recipe.mixture.components:
        key = {alpaca.METHOD: "alpaca", demonstrations.METHOD: "parallel"}.get(component.method, "datasets")
        known = there.get(component.method) or {
            lang for method, direction, lang in made if (method, direction) == (component.method, component.direction)
        }
        for lang in component_languages(recipe.mixture, component, recipe.languages):
            if lang not in known:
                raise UserError(f"mixture: component {component.name!r} wants {LANGUAGE_NAMES[lang]}, and nothing under `{key}` is in it")


def stages(recipe: Recipe, models: dict[str, ResolvedModel]) -> list[Stage]:
    """The method's stages, from its rows to the dataset; none of them asks a model, unless English data is translated here.

    What they leave has `instruction`, `response`, `language` (of the response) and `request`: the whole of what the user says.

    Raises:
        UserError: the files of examples for the translation are not sound.
    """
    return [
        *_translated(recipe, models),
        RowStage(
            "worded",
            (partial(word_translation, recipe.seed), whole_request),
            pa.schema([("instruction", pa.string()), ("request", pa.string()), ("language", pa.string())]),
            {"templates": templates(), "seed": recipe.seed},
        ),
        *uncontaminated(recipe, ("instruction", "input", "request", "response")),
        RowStage(
            "samples",
            sample_filters(recipe.cleaning, recipe.seed),
            pa.schema([("text_hash", pa.string())]),
            {"cleaning": semantic(recipe.cleaning), "seed": recipe.seed},
        ),
        drop_duplicates(),
        mix(recipe.mixture, recipe.languages, recipe.seed),
    ]


def _translated(recipe: Recipe, models: dict[str, ResolvedModel]) -> list[Stage]:
    """The stage that translates, in front of all others; none where no data is translated here."""
    if not recipe.translations:
        return []
    # All that there are, so that one more language leaves what is translated as it is.
    others = [lang for lang in LANGUAGE_NAMES if lang != "en"]
    examples = {source: read_examples(settings, others) for source, settings in recipe.translations.items()}
    translator = recipe.model_for("translator")
    own = {
        "translate": {source: semantic(settings) for source, settings in recipe.translations.items()},
        "examples": examples,
        "prompts": translation_prompt().wordings,
        **model_settings((translator, models["translator"]), recipe.seed),
    }
    columns = pa.schema([(name, pa.string()) for name in ("instruction", "input", "response")])
    return [RowStage("translated", (translate_samples(recipe.translations, examples),), columns, own, "translator")]


def whole_request(row: Row) -> Columns:
    """What the user says: the instruction and its input, with a request for the language where the response is in another one.

    A request for a translation names the language already, and pairs of another run have their request.
    """
    language = LANGUAGE_NAMES[row["lang"]]
    if row.get("request"):
        return {"language": language}
    says_it = row["request_lang"] == row["lang"] or row["method"] == demonstrations.METHOD
    instruction = row["instruction"].strip() if says_it else request(row["instruction"], language)
    return {"language": language, "request": "\n\n".join(filter(None, (instruction, row["input"].strip())))}
