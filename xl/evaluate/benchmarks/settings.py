"""Which benchmarks are asked: the settings of each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field, field_validator, model_validator

from xl.evaluate.benchmarks.catalogue import BENCHMARKS
from xl.evaluate.benchmarks.task import Benchmark, Item, OutputType, Source
from xl.evaluate.hub import is_on_hub
from xl.settings import Languages, Strict

OPTION_TOKENS = 64
"""Longest written answer that names an option, which a model may put into a sentence."""


class Task(Strict):
    """A benchmark and how much of it is asked."""

    task: str
    """Its name: xquad, mlqa, …"""
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """What its answers and results go by, where a benchmark is asked in several ways; by default the benchmark's name."""
    from_: str = Field(alias="from")
    """A local file or folder in the benchmark's own format, or the id of a dataset on the hub."""
    languages: Languages | None = None
    """Languages that it is asked in; by default the recipe's."""
    split: str | None = None
    """Part of the benchmark; by default the one that papers report."""
    revision: str | None = None
    """Branch, tag or commit of a dataset on the hub."""
    num_shots: int | None = Field(None, ge=0)
    """Examples in the prompt; by default as the benchmark's paper has it."""
    output_type: OutputType | None = None
    """How options are chosen from: `multiple_choice`, the default, compares likelihoods, which few endpoints but vLLM's give;
    `generate_until` has the model write the option's letter, which any endpoint can."""
    limit: int | None = Field(None, gt=0)
    """Most questions of each language, the same in all: those that the seed puts first."""
    max_tokens: int | None = Field(None, ge=1)
    """Longest written answer; by default the benchmark's."""
    temperature: float | None = Field(None, ge=0)
    """Of answers in free text, as is `top_p`; by default the benchmark's."""
    top_p: float | None = Field(None, gt=0, le=1)
    style: str | None = Field(None, min_length=1)
    """A sentence that every request ends with, whichever model it goes to (`evaluate.style` is the same), such as one of `train.styles`."""
    max_answer_chars: int | None = Field(None, ge=100)
    """The judge sees so much of an answer, which a small one may need; by default all of it, as in the papers."""
    reference: str | None = None
    """A file of answers to compare such answers with, in AlpacaEval's format (`instruction`, `output`, `generator`, and `lang` where there
    are several languages); `models.judge` compares."""

    @field_validator("task")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in BENCHMARKS:
            raise ValueError(f"unknown benchmark {name!r}; there are {', '.join(sorted(BENCHMARKS))}")
        return name

    @model_validator(mode="after")
    def _fits_the_benchmark(self) -> "Task":
        unread = ("num_shots",) if self.benchmark.is_open else ("temperature", "top_p", "reference", "max_answer_chars")
        if given := [key for key in unread if getattr(self, key) is not None]:
            why = "takes no examples" if self.benchmark.is_open else "counts the likeliest answer"
            raise ValueError(f"{given[0]} changes nothing: {self.task} {why}")
        if self.style and not self.benchmark.is_open:
            raise ValueError(f"style: {self.task}'s prompts end where the answer begins; only open-ended requests can end with a style")
        if self.output_type and self.benchmark.max_tokens:
            raise ValueError(f"output_type changes nothing: {self.task} compares no likelihoods, its answers are written")
        if self.max_tokens and not self._default_tokens:
            raise ValueError(f"max_tokens changes nothing: {self.task} compares likelihoods (without `output_type: generate_until`)")
        if self.max_answer_chars and not self.reference:
            raise ValueError("max_answer_chars changes nothing without `reference`: it is the judge who sees so much")
        if self.revision and not is_on_hub(self.from_):
            raise ValueError(f"revision changes nothing: {self.from_} is not on the hub")
        return self

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark itself."""
        return BENCHMARKS[self.task]

    @property
    def label(self) -> str:
        """What its answers and results go by."""
        return self.name or self.task

    def styled(self, item: Item) -> Item:
        """An item with the style behind its request."""
        return replace(item, prompt=" ".join(filter(None, (item.prompt, self.style))))

    @property
    def _default_tokens(self) -> int:
        return OPTION_TOKENS if self.output_type == "generate_until" else self.benchmark.max_tokens

    def source(self, seed: int) -> Source:
        """What the benchmark's loader is told: its own defaults where nothing else is wanted."""
        asked = self.benchmark
        return Source(
            self.from_,
            asked.num_shots if self.num_shots is None else self.num_shots,
            self.max_tokens or self._default_tokens,
            seed,
            self.split,
            self.revision,
            asked.temperature if self.temperature is None else self.temperature,
            asked.top_p if self.top_p is None else self.top_p,
        )


def check_names(tasks: Sequence[Task], languages: Sequence[str]) -> None:
    """Raise ValueError where the results of two benchmarks, or of one in a language (`vicuna_de`), would go by one name.

    `languages` are for benchmarks that name none of their own.
    """
    names = Counter(name for task in tasks for name in (task.label, *(f"{task.label}_{lang}" for lang in task.languages or languages)))
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"the results of two benchmarks would be called {twice[0]}; give one another `name`, or a folder of its own")
