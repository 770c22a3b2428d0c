"""What benchmarks of two continuations share: a beginning, two ways to go on, and which of them is right."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from xl.evaluate.benchmarks.options import INSTRUCTION, LETTERS, labelled, worded
from xl.evaluate.benchmarks.sources import shot_order, take_shots
from xl.evaluate.benchmarks.task import Item, Source

_HEADER = "The following are beginnings, each with two ways to go on."


@dataclass(frozen=True)
class Continuation:
    """A beginning, and two ways to go on with the blank that stands before them."""

    beginning: str
    choices: tuple[str, ...]
    label: int

    @property
    def options(self) -> tuple[str, ...]:
        """The ways to go on, as they stand alone."""
        return tuple(choice.strip() for choice in self.choices)

    @property
    def whole(self) -> str:
        """The beginning and the right way to go on."""
        return f"{self.beginning}{self.choices[self.label]}"


def continuation_items(
    questions: Mapping[str, Continuation], examples: Mapping[str, Continuation], lang: str, source: Source, joint: str
) -> Iterator[Item]:
    """Items of questions by their keys, each behind `source.num_shots` of the examples; `joint` stands between them.

    Where answers are written, the ways to go on are options behind letters.
    """
    order = shot_order(examples, source.seed)
    for key, question in questions.items():
        shown = [examples[name] for name in take_shots(order, source.num_shots, key)]
        if source.max_tokens:
            prompt, choices = _with_letters(question, shown), labelled(question.options)
        else:
            prompt, choices = joint.join([*(example.whole for example in shown), question.beginning]), question.choices
        gold = (choices[question.label],)
        yield Item(key, lang, prompt, gold, question.whole, choices=choices, max_tokens=source.max_tokens)


def _with_letters(question: Continuation, examples: Sequence[Continuation]) -> str:
    shown = [f"{worded(example.beginning, example.options)} {LETTERS[example.label]}" for example in examples]
    return "\n\n".join([f"{_HEADER} {INSTRUCTION}", *shown, worded(question.beginning, question.options)])
