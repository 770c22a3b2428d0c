"""What the report is told of the tuned model: how it was trained, and what changed against the arms beside it.

Whoever knows the run folder fills these; `xl.report.views` makes figures and tables of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xl.evaluate.intervals import Estimate, McNemar
from xl.evaluate.language import LanguageReport
from xl.evaluate.winrate import WinRate
from xl.train.metrics import StepMetrics


@dataclass(frozen=True)
class Training:
    """A training in numbers. `settings` are shown as they are; `steps` may be empty."""

    base: str
    tune: str
    num_pairs: int
    num_supervised_tokens: int
    settings: Mapping[str, str]
    steps: Sequence[StepMetrics]


@dataclass(frozen=True)
class ArmResult:
    """One arm's answers. `accuracy` counts skipped answers as misses.

    `repetition` is the share of answers that repeat themselves, `fit` the share that fit their own prompt better than the other prompts.
    """

    name: str
    label: str
    accuracy: LanguageReport
    repetition: Estimate | None
    fit: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """Right language or not, by two arms (their names) on the same prompts."""

    before: str
    after: str
    test: McNemar


@dataclass(frozen=True)
class Judged:
    """A judge's verdicts. `model` and `reference` are names of arms; `judge` should say which family the judge is of."""

    model: str
    reference: str
    judge: str
    rates: WinRate
    length_controlled: Estimate | None


@dataclass(frozen=True)
class Examination:
    """Whether a judge sees planted errors. `errors` are error, pairs seen through, pairs, and the ends of the share's 95 % interval."""

    judge: str
    passed: bool
    errors: Sequence[tuple[str, int, int, float, float]]


@dataclass(frozen=True)
class Answer:
    """An arm's answer. `verdict` is one of `xl.evaluate.language.Verdict`, `language` the one it is in."""

    arm: str
    text: str
    verdict: str
    language: str | None


@dataclass(frozen=True)
class SideBySide:
    """One prompt with the answers of all arms; `lang` is the language that was asked for."""

    prompt: str
    lang: str
    request: str
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Evaluation:
    """All that the report shows of an evaluation.

    `prompts` says which they are, `num_prompts` how many are asked in each language. `languages` are code, name and whether it was trained
    on. `arms` begin with the one to start from and end with the one to look at. `ceiling` is recall on human text. `rubric` maps arm to
    criterion to a mean from 1 to 5. `num_others` is the number of prompts that fit is measured against. `sentence` sums up, honestly.
    `left_out` maps a stage to why it dropped rows, or why they failed, to how many: no figure of this stage or a later one has them.
    """

    prompts: str
    num_prompts: int
    languages: Sequence[tuple[str, str, bool]]
    arms: Sequence[ArmResult]
    ceiling: Mapping[str, float]
    comparisons: Sequence[Comparison]
    judged: Sequence[Judged]
    examination: Examination | None
    rubric: Mapping[str, Mapping[str, Estimate]]
    examples: Sequence[SideBySide]
    sentence: str
    num_others: int
    left_out: Mapping[str, Mapping[str, int]]
