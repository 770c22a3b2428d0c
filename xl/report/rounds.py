"""Rounds of rating, as RUN/rounds.json keeps them and the report shows them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xl.store import read_json, write_json

ALL = "all"
"""Key of all languages together."""


@dataclass(frozen=True)
class Agreement:
    """Area under the ROC curve of a rater on held-out synthetic pairs, good and flawed against bad, with its 95 % interval over seeds."""

    num_pairs: int
    auc: float
    low: float
    high: float


@dataclass(frozen=True)
class RoundScore:
    """One language's pairs after a round: how many were rated and accepted, and how many were given level 0, 1 and 2."""

    num_rated: int
    num_accepted: int
    num_by_level: tuple[int, int, int]
    agreement: Agreement | None = None
    hard_agreement: Agreement | None = None
    """Against the hard negatives alone."""

    @property
    def acceptance_ratio(self) -> float:
        """Share of the rated pairs that reach the threshold."""
        return self.num_accepted / self.num_rated if self.num_rated else 0.0


@dataclass(frozen=True)
class Round:
    """One round: what its evaluator was trained on, and what came of the rows, by language and in all (`ALL`).

    `not_asked` says why no row was rated again; the rows then went on with the ratings that they had, and the round has no scores.
    """

    number: int
    evaluator: str
    num_labels: int
    """Pairs of the run, rated surely by the round before, that the evaluator learned from."""
    acceptance_change: float | None
    """Change of the share of accepted pairs from the round before."""
    not_asked: str | None
    scores: dict[str, RoundScore]


def write_rounds(path: Path, rounds: Sequence[Round]) -> None:
    """Write them as JSON."""
    write_json(path, [asdict(each) for each in rounds])


def read_rounds(path: Path) -> list[Round]:
    """What `write_rounds` wrote; nothing where there is no such file."""
    return [Round(**{**each, "scores": {lang: _score(score) for lang, score in each["scores"].items()}}) for each in read_json(path) or []]


def with_rounds(notes: Mapping[str, str], stages: Iterable[str]) -> dict[str, str]:
    """Each stage's note; stages of later rounds (`rated_2`) do what their name without the number says."""
    kinds = {stage: re.sub(r"_\d+$", "", stage) for stage in stages}
    return {stage: notes[kind] for stage, kind in kinds.items() if kind in notes}


def _score(data: dict[str, Any]) -> RoundScore:
    parts = {name: Agreement(**data[name]) if data[name] else None for name in ("agreement", "hard_agreement")}
    return RoundScore(data["num_rated"], data["num_accepted"], tuple(data["num_by_level"]), **parts)
