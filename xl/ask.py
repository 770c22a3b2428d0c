"""The only way to talk to a model: render a prompt from a row, sample, parse the answer into columns, or drop the row.

A chain of asks is a list of steps. A row walks through it as a coroutine of its own, so there is no barrier between
asks: while one row waits for its first answer, another is already at its third.
"""

import functools
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jinja2
import numpy as np

from xl.records import Row, row_seed

MIN_OPTIONS_MASS = 1e-6
"""Less than this is what is left of an answer's options where an endpoint lists tokens by their text and a twin has taken their places."""


class Drop(NamedTuple):
    """A step's answer "no, because …". `reason` is a short name that ledgers count."""

    reason: str


Columns = Mapping[str, Any]


@dataclass(frozen=True)
class Sampling:
    """How to draw an answer. `choices` or `json_schema` restrict it where the engine can."""

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None
    num_logprobs: int = 0
    """Log-probabilities wanted for this many likeliest first tokens (0: none)."""


class Message(NamedTuple):
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Request:
    """A rendered ask: chat `messages` for chat models, or a `prompt` to complete for base models."""

    sampling: Sampling
    seed: int
    messages: tuple[Message, ...] = ()
    prompt: str = ""


def by_text(logprobs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Log-probabilities of tokens by their text. Tokens that read alike add up: `2` is in many vocabularies twice, also as a byte."""
    found: dict[str, float] = {}
    for text, logprob in logprobs:
        found[text] = float(np.logaddexp(found[text], logprob)) if text in found else logprob
    return found


@dataclass(frozen=True)
class Completion:
    """A model's answer. `first_logprobs` maps the likeliest first tokens' texts to their log-probabilities (`by_text`)."""

    text: str
    finish_reason: str = "stop"
    first_logprobs: Mapping[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    output_tokens: int = 0

    def shares(self, options: Sequence[str]) -> dict[str, float]:
        """Probabilities of options that are one token each as the answer's first token, renormalised over the options.

        Empty where the engine tells no log-probabilities, where it leaves the options less than `MIN_OPTIONS_MASS` together, and where the
        likeliest first token is a blank or a mark, behind which the option comes: what this leaves for the options tells nothing.
        """
        masses = dict.fromkeys(options, 0.0)
        for token, logprob in self.first_logprobs.items():
            if token.strip() in masses:
                masses[token.strip()] += math.exp(logprob)
        total = sum(masses.values())
        likeliest = max(self.first_logprobs, key=self.first_logprobs.__getitem__, default="")
        if total < MIN_OPTIONS_MASS or not any(map(str.isalnum, likeliest)):
            return {}
        return {option: mass / total for option, mass in masses.items()}


@dataclass(frozen=True)
class Score:
    """Log-probabilities of a continuation's tokens, given the prompt before it."""

    logprobs: tuple[float, ...]
    prompt_tokens: int = 0

    @property
    def mean(self) -> float:
        """Mean log-probability per token, in nats."""
        return sum(self.logprobs) / len(self.logprobs)


class EngineDied(Exception):
    """The engine is gone; another one must be started and the request sent again."""


class RequestFailed(Exception):
    """This one request could not be answered; the row fails and can be retried later."""


class Engine(Protocol):
    """What answers asks."""

    chat: bool
    """Whether the model takes chat messages; if not, it completes a few-shot prompt."""

    async def complete(self, request: Request) -> Completion:
        """Sample an answer. Raises RequestFailed or EngineDied."""
        ...

    async def score(self, prompt: str, continuation: str, max_tokens: int) -> Score:
        """Log-probabilities of the first `max_tokens` tokens of `continuation` after `prompt`."""
        ...

    async def close(self) -> None:
        """Release the engine."""
        ...


@dataclass
class Context:
    """What a step may use beside its row: the engine, the run's seed, and a place to count tokens."""

    engine: Engine | None
    seed: int
    usage: list[dict[str, Any]] = field(default_factory=list)

    def count(self, ask: str, prompt_tokens: int, output_tokens: int) -> None:
        """Add an ask's tokens to the row's account."""
        self.usage.append({"ask": ask, "prompt_tokens": prompt_tokens, "output_tokens": output_tokens})


Filter = Callable[[Row], Columns | Drop | None]
"""A step without a model: new or changed columns, a Drop, or None for "keep as it is"."""

AsyncStep = Callable[[Row, Context], Awaitable[Columns | Drop | None]]
"""A step that may ask the engine."""


_CONTROL_WORDS = re.compile(r"\[(/?[A-Z_]{2,})\]")


def quote(text: str) -> str:
    """Web text, made harmless inside a prompt.

    Our delimiters are tags in angle brackets and the models' control tokens are `<bos>`, `<|im_end|>` or `[INST]`.
    With angle brackets turned into `‹ ›` and bracketed capitals into parentheses, a page can close neither.
    """
    return _CONTROL_WORDS.sub(r"(\1)", text.replace("<", "‹").replace(">", "›"))


def unquote(text: str) -> str:
    """Inverse of `quote` for angle brackets: a model repeats them in the form in which it was shown them."""
    return text.replace("‹", "<").replace("›", ">")


def unquote_as(text: str, source: str) -> str:
    """What a model made of a quoted `source`, with the angle brackets that this has.

    Where it has more ‹ › than these, some are its own quotation marks: it stays as it is.
    """
    pairs = (("‹", "<"), ("›", ">"))
    if any(text.count(mark) > source.count(bracket) for mark, bracket in pairs) or set("‹›") & set(source):
        return text
    return unquote(text)


def one_line(text: str) -> str:
    """Text without line breaks: in a base model's prompt a line break ends the field."""
    return " ".join(text.split())


def clip(text: str, num_chars: int) -> str:
    """The beginning of a text, cut at the last sentence or word before `num_chars` characters where there is one."""
    if len(text) <= num_chars:
        return text
    head = text[:num_chars]
    ends = [head.rfind(mark) for mark in (". ", "! ", "? ", "。", "！", "？", "।", "؟ ", ".\n")]
    cut = max(ends)
    if cut >= num_chars // 2:
        return head[: cut + 1]
    cut = head.rfind(" ")
    return head[:cut] if cut >= num_chars // 2 else head


_ENVIRONMENT = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False)
_ENVIRONMENT.filters.update(one_line=one_line, clip=clip)
_template = functools.cache(_ENVIRONMENT.from_string)


@dataclass(frozen=True)
class Prompt:
    """A prompt in two wordings: blocks `system` and `user` for chat models, one few-shot text for base models.

    Every string of the row passes through `quote` before it reaches the template.
    """

    chat: str
    base: str
    stop: tuple[str, ...] = ("\n",)
    """Where a base model's answer ends."""

    @property
    def wordings(self) -> list[str]:
        """Both texts: what an answer depends on."""
        return [self.chat, self.base]

    @classmethod
    def load(cls, folder: Path, name: str, stop: tuple[str, ...] = ("\n",)) -> "Prompt":
        """Read `NAME.chat.jinja` and `NAME.base.jinja` from a folder."""
        chat, base = (folder / f"{name}.{kind}.jinja" for kind in ("chat", "base"))
        return cls(chat=chat.read_text("utf-8"), base=base.read_text("utf-8"), stop=stop)

    def render(self, row: Row, chat: bool, sampling: Sampling, seed: int) -> Request:
        """The request that this prompt makes of a row. Raises RuntimeError for a base model where the prompt is for chat models alone."""
        if not (chat or self.base):
            raise RuntimeError("this prompt is for chat models, and the engine says that its model is none")
        values = {key: quote(value) if isinstance(value, str) else value for key, value in row.items()}
        if not chat:
            text = _template(self.base).render(values).strip()
            return Request(replace(sampling, stop=sampling.stop + self.stop), seed, prompt=text)
        template = _template(self.chat)
        context = template.new_context(values)
        messages = tuple(
            Message(role, "".join(template.blocks[role](context)).strip()) for role in ("system", "user") if role in template.blocks
        )
        return Request(sampling, seed, messages=messages)


@dataclass(frozen=True)
class Ask:
    """A question to a model about a row."""

    name: str
    prompt: Prompt
    parse: Callable[[Row, Completion], Columns | Drop]
    sampling: Sampling = Sampling()

    async def __call__(self, row: Row, context: Context) -> Columns | Drop | None:
        """Render, sample, count and parse. Raises RequestFailed or EngineDied."""
        assert context.engine is not None, f"ask {self.name!r} needs an engine"
        request = self.prompt.render(row, context.engine.chat, self.sampling, row_seed(context.seed, row["id"], self.name))
        completion = await context.engine.complete(request)
        context.count(self.name, completion.prompt_tokens, completion.output_tokens)
        return self.parse(row, completion)
