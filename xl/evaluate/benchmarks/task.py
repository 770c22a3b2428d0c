"""What a benchmark is: how its questions are read and worded, and how an answer is scored. Everything else is written once, in `run`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from xl.evaluate.benchmarks.options import read_option

OutputType = Literal["multiple_choice", "generate_until"]
"""How options are chosen from, in the words of lm-evaluation-harness: by their likelihoods, or by an answer that names one."""


@dataclass(frozen=True)
class Item:
    """One question in one language."""

    key: str
    """Names the question, the same in all languages that it is asked in: intervals are clustered by it."""
    lang: str
    prompt: str
    """The complete text that the model is shown, examples included; it ends where the answer begins, without a blank behind it."""
    gold: tuple[str, ...]
    """The right answers; of `choices`, the right one; none where the answer is open."""
    text: str = ""
    """The question's own words with its passage, without examples and instructions: what must not be in training data."""
    question: str = ""
    """The question alone, where `text` says more; it must not be in training data by itself either."""
    group: str = ""
    """Subject or subtask, where there are any."""
    choices: tuple[str, ...] = ()
    """Continuations of the prompt whose likelihoods are compared, with the blank that stands before them; where the model writes which one
    it chooses, options as the prompt shows them. Empty: the answer is free."""
    answer_lang: str | None = None
    """Language that a written answer should be in; None where an answer has none (a letter, a number)."""
    max_tokens: int = 32
    """Longest written answer; 0 where likelihoods are compared."""
    stop: tuple[str, ...] = ("\n",)
    """Where a base model's answer ends."""
    is_request: bool = False
    """Whether the prompt is what a user says: a model without a chat template is shown it in the wording of the training."""
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Answer:
    """What a model made of an item: a text that it wrote, or the log-probability of each choice, and the likeliest one as the text."""

    text: str
    logprobs: tuple[float, ...] = ()
    """In nats, summed over a choice's tokens."""


@dataclass(frozen=True)
class Source:
    """Where a benchmark's questions are, and how they are to be asked."""

    path: str
    """A local file or folder in the benchmark's own format, or the id of a dataset on the hub."""
    num_shots: int
    max_tokens: int
    """Longest written answer; 0 where likelihoods are compared and nothing is written."""
    seed: int
    """Draws the examples in the prompts: the same for all items, as far as none is its own, for engines keep what prompts share."""
    split: str | None = None
    revision: str | None = None
    temperature: float = 0.0
    """How requests in free text are answered, as is `top_p`; elsewhere the likeliest answer counts."""
    top_p: float = 1.0


@dataclass(frozen=True)
class Loaded:
    """A benchmark's questions; `notes` are sentences that belong beside every score, such as which subjects were left out and why."""

    items: list[Item]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """A benchmark. It loads all its questions in the wanted languages; how many of them are asked is not its business."""

    name: str
    paper: str
    measures: tuple[str, ...]
    """Names of what `score` measures, the headline first; higher is better."""
    load: Callable[[Source, Sequence[str]], Loaded]
    """Raises UserError in one line that names the file and what is wrong: a language that is not there, a damaged row."""
    score: Callable[[Item, Answer], Mapping[str, float] | None]
    """Every measure, from 0 to 1; None for an answer that cannot be read as one (it scores 0 and is counted as invalid)."""
    partial: tuple[str, ...] = ()
    """Measures that only some answers have, such as those with a line long enough to be judged; an invalid answer has none of them."""
    num_shots: int = 0
    """Examples in the prompt unless the user says otherwise."""
    max_tokens: int = 32
    """Longest written answer unless the user says otherwise; 0 where likelihoods are compared unless the user wants `generate_until`."""
    is_open: bool = False
    """Whether its items are requests that are answered in free text: drawn with `temperature` and `top_p`, without examples."""
    temperature: float = 0.0
    top_p: float = 1.0
    settings: tuple[str, ...] = ()
    """Settings that the paper reports apart, each as the mean of its sources; an item's group is then `SETTING SOURCE`."""
    judge_kind: Literal["ab", "scores"] = "ab"
    """How a judge compares such answers with others (`xl.evaluate.judge.Judging`)."""


CHOICE_MEASURES = ("acc", "acc_norm")
LIKELIHOOD_MEASURES = ("acc_norm",)
"""Those of `CHOICE_MEASURES` that a written answer does not have."""


def score_choice(item: Item, answer: Answer) -> dict[str, float] | None:
    """`acc`: the right choice is the likeliest; `acc_norm`: it is the likeliest per character, so that length does not decide.

    The two accuracies of lm-evaluation-harness. The first of equally likely choices counts as chosen. A written answer has `acc` alone:
    it names the right option; None where it names none, or several.
    """
    if not answer.logprobs:
        named = chosen(item, answer)
        return None if named is None else {"acc": float(item.choices[named] in item.gold)}
    # The blank before a choice belongs to the prompt there, not to the choice's length.
    per_character = [logprob / len(choice.strip()) for logprob, choice in zip(answer.logprobs, item.choices, strict=True)]
    return {"acc": float(likeliest(item, answer.logprobs) in item.gold), "acc_norm": float(likeliest(item, per_character) in item.gold)}


def chosen(item: Item, answer: Answer) -> int | None:
    """Place of the choice that is likeliest, or that a written answer names; None where it names none, or several."""
    return item.choices.index(likeliest(item, answer.logprobs)) if answer.logprobs else read_option(answer.text, item.choices)


def likeliest(item: Item, logprobs: Sequence[float]) -> str:
    """The choice with the highest value; the first of equals."""
    return item.choices[max(range(len(logprobs)), key=logprobs.__getitem__)]
