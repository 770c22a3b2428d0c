"""The mixture: how many rows of which method, direction and language a dataset has, and how many of them were there.

A mixture is a list of components. Without `total` each has the rows that it asks for. With `total` the dataset has one size whatever its
components are, as in "Just a Pinch of Multilinguality" (arXiv 2401.01854), where some rows of other languages take the place of English
ones, and where rows are not there, others stand in for them (`redistribute`):

    total: 50000
    components:
      - {name: pinch, method: alpaca, direction: x-x, languages: [de, tr], count: 400}
      - {name: english, method: alpaca, direction: en-en}      # no size of its own: what is left
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
from pydantic import Field, model_validator

from xl.ask import Columns, Drop
from xl.errors import UserError
from xl.pages.language import LANGUAGE_NAMES
from xl.pairs.samples import Direction
from xl.records import Row, seeded_rank
from xl.settings import Languages, Strict
from xl.stage import WholeStage

Key = TypeVar("Key")

_NEEDS = ("id", "lang", "request_lang", "method", "direction")


class Component(Strict):
    """Rows of one method and direction. Its size is a count, a ratio of the mixture's total, or what is left."""

    name: str
    method: str
    direction: Direction
    languages: Languages | None = None
    """Its languages beside English; by default all of the run. Its rows are drawn equally from each."""
    count: int | None = Field(None, ge=0)
    """Rows of all its languages together."""
    ratio: float | None = Field(None, gt=0, le=1)
    """Share of the mixture's total."""
    tag: str | None = None
    """Set on its rows, to tell them apart in training."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Component":
        if self.count is not None and self.ratio is not None:
            raise ValueError(f"component {self.name!r}: give `count` or `ratio`, not both")
        if self.direction == Direction.EN_EN and self.languages is not None:
            raise ValueError(f"component {self.name!r}: direction en-en has no other language; leave `languages` out")
        if self.languages is not None and "en" in self.languages:
            raise ValueError(f"component {self.name!r}: `languages` are those beside English; leave en out")
        return self

    def overlaps(self, other: "Component") -> bool:
        """Whether a row could belong to both."""
        if (self.method, self.direction) != (other.method, other.direction):
            return False
        return self.languages is None or other.languages is None or not set(self.languages).isdisjoint(other.languages)


class Mixture(Strict):
    """What a dataset is made of. A preset's name stands for its components: `en_x`, or `{preset: en_x, total: 1000}`."""

    components: tuple[Component, ...] = Field(min_length=1)
    total: int | None = Field(None, gt=0)
    """Rows of the dataset, whatever its components; null takes what they ask for, and all there is where they ask for nothing."""
    held_out: Languages = ()
    """Languages that no component may draw: to see what the model does in a language that it was not tuned on."""
    redistribute: bool | None = None
    """Make up for rows that are not there: by other languages of the same component, then by components without a count. By default where
    a `total` is given, so that the dataset has it."""

    @property
    def redistributes(self) -> bool:
        """Whether rows that are not there are made up for."""
        return self.total is not None if self.redistribute is None else self.redistribute

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"preset": data}
        if not isinstance(data, dict) or "preset" not in data:
            return data
        preset = data["preset"]
        if preset not in PRESETS:
            raise ValueError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
        if "components" in data:
            raise ValueError("give `preset` or `components`, not both")
        return {"components": PRESETS[preset], **{key: value for key, value in data.items() if key != "preset"}}

    @model_validator(mode="after")
    def _fits_together(self) -> "Mixture":
        if "en" in self.held_out:
            raise ValueError("held_out: languages beside English are held out; leave en out, and its components too")
        names = Counter(component.name for component in self.components)
        if repeated := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"two components are called {repeated[0]!r}")
        for place, component in enumerate(self.components):
            for other in self.components[:place]:
                if component.overlaps(other):
                    raise ValueError(f"components {other.name!r} and {component.name!r} would draw the same rows")
        if self.total is None and (sized := [component.name for component in self.components if component.ratio is not None]):
            raise ValueError(f"component {sized[0]!r}: `ratio` is a share of `total`; give one")
        if self.total is not None:
            self._check_sizes(self.total)
        return self

    def _check_sizes(self, total: int) -> None:
        asked = sum(size for size in self._own_sizes(total) if size is not None)
        if asked > total:
            raise ValueError(f"the components ask for {asked:,} rows, and `total` is {total:,}")
        if asked < total and None not in self._own_sizes(total):
            raise ValueError(f"the components ask for {asked:,} of `total`: {total:,} rows; leave one without a size to take the rest")

    def _own_sizes(self, total: int) -> list[int | None]:
        """Sizes by count and ratio; the ratios are rounded together, so that ratios which sum to 1 give the total."""
        sizes: list[int | None] = []
        ratio_before = 0.0
        for component in self.components:
            if component.ratio is None:
                sizes.append(component.count)
            else:
                sizes.append(round(total * (ratio_before + component.ratio)) - round(total * ratio_before))
                ratio_before += component.ratio
        return sizes

    def sizes(self) -> list[int | None]:
        """Rows that each component asks for; None for all there is."""
        if self.total is None:
            return [component.count for component in self.components]
        own = self._own_sizes(self.total)
        left = self.total - sum(size for size in own if size is not None)
        rest = share_out(left, {place: left for place, size in enumerate(own) if size is None})
        return [rest[place] if size is None else size for place, size in enumerate(own)]


class Cell(NamedTuple):
    """What is drawn from as one: a component's rows in one language."""

    component: str
    lang: str


@dataclass(frozen=True)
class Share:
    """What came of a cell: rows wanted (None: all there is), there, and taken."""

    cell: Cell
    num_wanted: int | None
    num_available: int
    num_taken: int

    @property
    def num_missing(self) -> int:
        """Rows wanted that are not there."""
        return max(0, (self.num_wanted or 0) - self.num_available)


class _Draw(NamedTuple):
    """Rank and id of the last row that each cell gives, and what came of the cells."""

    last_taken: dict[Cell, tuple[int, str] | None]
    shares: list[Share]


def row_language(row: Row) -> str:
    """The language that a row counts for: the one beside English, on whichever side it is."""
    return str(row["request_lang"] if row["lang"] == "en" else row["lang"])


def mix(mixture: Mixture, languages: Sequence[str], seed: int) -> WholeStage:
    """Draw the mixture from all rows (columns `id, lang, request_lang, method, direction`); sets `component` and `tag`.

    Each cell takes its rows in a seeded order of ids, the same in every mixture: a larger draw holds the smaller one, and rows that
    come new into a cell take places in that cell alone. Drops `held_out_language`, `not_in_mixture` and `over_quota`.

    The run's languages are no setting of the stage: one more of them brings new rows, for which it is redone.

    Raises:
        UserError: a component wants a language that the run is not in, or has none left.
    """
    _check_languages(mixture, languages)
    cells = _cells(mixture, languages)
    tags = {component.name: component.tag for component in mixture.components}

    def survey(tables: Iterator[pa.Table]) -> _Draw:
        ranks: dict[Cell, list[tuple[int, str]]] = {}
        for row in _rows_of(tables):
            if cell := cells.get(_key(row)):
                ranks.setdefault(cell, []).append(_rank(seed, row))
        plan = plan_mixture(mixture, languages, {cell: len(found) for cell, found in ranks.items()})
        return _Draw({share.cell: sorted(ranks[share.cell])[share.num_taken - 1] if share.num_taken else None for share in plan}, plan)

    def decide(drawn: _Draw, row: Row) -> Columns | Drop:
        if row_language(row) in mixture.held_out:
            return Drop("held_out_language")
        cell = cells.get(_key(row))
        if cell is None:
            return Drop("not_in_mixture")
        last = drawn.last_taken[cell]
        if last is None or _rank(seed, row) > last:
            return Drop("over_quota")
        return {"component": cell.component, "tag": tags[cell.component]}

    settings = {"mixture": {**mixture.model_dump(mode="json"), "redistribute": mixture.redistributes}, "seed": seed}
    columns = pa.schema([("component", pa.string()), ("tag", pa.string())])
    return WholeStage("dataset", _NEEDS, survey, decide, columns, settings, lambda drawn: described(drawn.shares, mixture.total))


def _rows_of(tables: Iterable[pa.Table]) -> Iterator[Row]:
    for table in tables:
        yield from table.to_pylist()


def _rank(seed: int, row: Row) -> tuple[int, str]:
    return seeded_rank(seed, "mixture", row["id"]), row["id"]


def _key(row: Row) -> tuple[str, str, str]:
    return row["method"], row["direction"], row_language(row)


def _cells(mixture: Mixture, languages: Sequence[str]) -> dict[tuple[str, str, str], Cell]:
    """The cell that a row of a method, direction and language belongs to."""
    return {
        (component.method, component.direction.value, lang): Cell(component.name, lang)
        for component in mixture.components
        for lang in component_languages(mixture, component, languages)
    }


def component_languages(mixture: Mixture, component: Component, languages: Sequence[str]) -> tuple[str, ...]:
    """The languages that a component draws in a run of these languages, sorted; English for what has no other."""
    if component.direction == Direction.EN_EN:
        return ("en",)
    return tuple(sorted({*(component.languages or languages)} - {"en", *mixture.held_out}))


def _check_languages(mixture: Mixture, languages: Sequence[str]) -> None:
    run = ", ".join(languages)
    for component in mixture.components:
        if outside := [lang for lang in component.languages or () if lang not in languages]:
            raise UserError(f"mixture: component {component.name!r} wants {LANGUAGE_NAMES[outside[0]]}, and the run is in {run}")
        if not component_languages(mixture, component, languages):
            raise UserError(f"mixture: component {component.name!r} has no language to draw from; the run is in {run}")


def plan_mixture(mixture: Mixture, languages: Sequence[str], available: Mapping[Cell, int]) -> list[Share]:
    """How many rows each cell gives, of those available: a component's rows equally by language, as far as they are there."""
    wanted: dict[Cell, int | None] = {}
    for component, size in zip(mixture.components, mixture.sizes(), strict=True):
        cells = [Cell(component.name, lang) for lang in component_languages(mixture, component, languages)]
        wanted |= dict.fromkeys(cells) if size is None else share_out(size, dict.fromkeys(cells, size))
    there = {cell: available.get(cell, 0) for cell in wanted}
    taken = {cell: there[cell] if size is None else min(size, there[cell]) for cell, size in wanted.items()}
    if mixture.redistributes:
        _redistribute(mixture, wanted, there, taken)
    return [Share(cell, size, there[cell], taken[cell]) for cell, size in wanted.items()]


def _redistribute(mixture: Mixture, wanted: Mapping[Cell, int | None], there: Mapping[Cell, int], taken: dict[Cell, int]) -> None:
    """Take more where there is more: first in the component that is short, then in the components that have no count to keep to."""
    fixed = {component.name for component in mixture.components if component.count is not None}
    short_of = {cell: size - taken[cell] for cell, size in wanted.items() if size is not None}
    groups = [[cell for cell in wanted if cell.component == component.name] for component in mixture.components]
    missing = 0
    for group in groups:
        short = sum(short_of.get(cell, 0) for cell in group)
        missing += short - _take_more(short, group, there, taken)
    if mixture.total is not None:
        _take_more(missing, [cell for cell in wanted if cell.component not in fixed], there, taken)


def _take_more(amount: int, cells: Sequence[Cell], there: Mapping[Cell, int], taken: dict[Cell, int]) -> int:
    given = share_out(amount, {cell: there[cell] - taken[cell] for cell in cells})
    for cell, more in given.items():
        taken[cell] += more
    return sum(given.values())


def share_out(amount: int, room: Mapping[Key, int]) -> dict[Key, int]:
    """Share an amount out as equally as the room allows; what remains of a division goes to the first."""
    given = dict.fromkeys(room, 0)
    while amount and (takers := [key for key in room if given[key] < room[key]]):
        each = max(1, amount // len(takers))
        for key in takers[:amount]:
            share = min(each, room[key] - given[key])
            given[key] += share
            amount -= share
    return given


def described(shares: Sequence[Share], total: int | None) -> list[str]:
    """How many rows are missing where the cells do not come to the mixture's `total`; then one line for each cell: how many rows it gives,
    of how many, and how many were wanted where that is more.
    """
    num_missing = (total or 0) - sum(share.num_taken for share in shares)
    lines = [f"{num_missing:,} rows are missing of the total of {total:,}"] if num_missing > 0 else []
    for share in shares:
        line = f"{share.cell.component}, {share.cell.lang}: {share.num_taken:,} of {share.num_available:,} rows"
        lines.append(f"{line}, and {share.num_wanted:,} were wanted" if share.num_missing else line)
    return lines


def _component(name: str, method: str, direction: str) -> dict[str, str]:
    return {"name": name, "method": method, "direction": direction}


_EN, _X = _component("en", "alpaca", "en-en"), _component("x", "alpaca", "x-x")
_EN_TO_X, _X_TO_EN = _component("en_to_x", "alpaca", "en-x"), _component("x_to_en", "alpaca", "x-en")
_TRANSLATION = (_component("translation_to_x", "translation", "en-x"), _component("translation_to_en", "translation", "x-en"))

PRESETS: dict[str, tuple[dict[str, str], ...]] = {
    "en": (_EN,),
    "x": (_X,),
    "en_x": (_EN, _X),
    "en_x_translation": (_EN, _X, *_TRANSLATION),
    "cross_in_en_to_x": (_EN, _EN_TO_X),
    "cross_in_x_to_en": (_EN, _X_TO_EN),
    "cross_in_x_to_x": (_EN, _X),
    "cross_in_translation": (_EN, _EN_TO_X, _X_TO_EN, _X, *_TRANSLATION),
}
"""Components by the name of their arm: CrossAlpaca's four (of which `en` is every method's English-only control), and CrossIn's."""
