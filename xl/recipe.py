"""The recipe: the YAML that chooses a method, its models, languages, sizes and seed.

Every key is checked before anything starts, and a key that nothing reads is an error. Keys that cannot change a row (how many
replicas, which GPU, how long to wait) are marked `Execution` and never count when it is decided whether a run may go on.
"""

import difflib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from xl.errors import UserError
from xl.evaluate.benchmarks.settings import Task, check_names
from xl.evaluate.settings import Evaluate
from xl.pages.contamination import Contamination
from xl.pages.quality import Quality
from xl.pages.read import Pages, SourceFile, list_files
from xl.settings import EXECUTION, Languages, Placed, Strict
from xl.train.settings import Train

Settings = TypeVar("Settings", bound=BaseModel)

_ENDPOINT_KEYS = ("url", "api_key_env", "concurrency", "requests_per_minute", "tokens_per_minute", "timeout_seconds", "max_attempts")
_READ_BY = {**dict.fromkeys(_ENDPOINT_KEYS, "openai"), "delay_seconds": "scripted"}
"""Keys of a model that one engine alone reads, and which engine."""


class Model(Placed):
    """A model and the engine that runs it."""

    model: str
    """Hub id, local folder, `packaged/NAME`, or the name that an endpoint knows it by."""
    engine: Literal["vllm", "openai", "scripted"] = "vllm"
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    chat: bool | None = None
    """Whether the model takes chat messages; by default it does if its tokenizer has a chat template. A model that can think first is asked
    to answer without: what it thinks is English, and takes the place of the answer."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """`auto` is the model's own on a GPU; on CPU bfloat16, or float32 where the CPU does not compute in bfloat16."""
    max_model_len: int = Field(4096, gt=0)
    """Longest prompt and answer together, in tokens."""
    gpus: Annotated[float, EXECUTION] = Field(0, ge=0)
    """GPUs of one replica; 0 runs on CPU, for which vLLM is to be its build for CPU."""
    cpus: Annotated[float, EXECUTION] = Field(1, ge=0)
    """CPUs that one replica is reckoned to hold, also while nobody asks it; 0 lets it share its machine with a training."""
    threads: Annotated[int | None, EXECUTION] = Field(None, gt=0)
    """Threads of one replica on CPU; by default as many as its machine has cores."""
    replicas: Annotated[tuple[int, int], EXECUTION] = (1, 1)
    """Fewest and most copies of the engine. A run waits for the fewest; it has more where machines have room and it has rows for them."""
    idle_seconds: Annotated[float, EXECUTION] = Field(120, ge=0)
    """On a cluster that grows and shrinks: how long there must be more engines than rows keep busy before some are given back."""
    tensor_parallel: Annotated[int, EXECUTION] = Field(1, gt=0)
    max_num_seqs: Annotated[int, EXECUTION] = Field(64, gt=0)
    """Sequences that one replica works on at once."""
    gpu_memory_utilization: Annotated[float, EXECUTION] = Field(0.9, gt=0, le=1)
    kv_cache_gib: Annotated[float, EXECUTION] = Field(1, gt=0)
    """Size of the key-value cache on CPU, in GiB."""
    url: Annotated[str | None, EXECUTION] = None
    """Base URL of an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1."""
    api_key_env: Annotated[str, EXECUTION] = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key."""
    concurrency: Annotated[int, EXECUTION] = Field(64, gt=0)
    """Requests under way at an endpoint at once."""
    requests_per_minute: Annotated[int | None, EXECUTION] = None
    tokens_per_minute: Annotated[int | None, EXECUTION] = None
    timeout_seconds: Annotated[float, EXECUTION] = Field(120, gt=0)
    max_attempts: Annotated[int, EXECUTION] = Field(8, gt=0)
    delay_seconds: Annotated[float, EXECUTION] = Field(0, ge=0)
    """Scripted engine: how long an answer takes."""

    @field_validator("replicas", mode="before")
    @classmethod
    def _fixed_or_range(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _fits_together(self) -> "Model":
        low, high = self.replicas
        if not 1 <= low <= high:
            raise ValueError(f"replicas: [{low}, {high}] is not a range of at least one")
        if self.engine == "openai" and not self.url:
            raise ValueError("engine: openai needs the endpoint's `url`, such as http://127.0.0.1:8000/v1")
        if self.url and (urlsplit(self.url).query or "@" in urlsplit(self.url).netloc):
            raise ValueError("`url` has a query or a user in it, and would be kept with the run; give keys in `api_key_env`")
        for key, engine in _READ_BY.items():
            if self.engine != engine and getattr(self, key) != Model.model_fields[key].default:
                raise ValueError(f"`{key}` belongs to engine: {engine}, not to engine: {self.engine}")
        if self.engine == "openai" and (self.accelerator or self.labels):
            raise ValueError("`accelerator` and `labels` say where an engine is to be; engine: openai is somewhere else")
        if self.accelerator and not self.gpus:
            raise ValueError(f"accelerator: {self.accelerator} needs `gpus`")
        if self.tensor_parallel > 1 and self.gpus not in (0, self.tensor_parallel):
            raise ValueError(f"tensor_parallel: {self.tensor_parallel} needs gpus: {self.tensor_parallel}, not {self.gpus:g}")
        return self


class Models(Strict):
    """The models by what they do; a method adds its own roles."""

    stand_ins: ClassVar[Mapping[str, str]] = {}
    """Which role plays another one that the recipe leaves out."""
    base: Model | None = None
    """The model that is tuned, and that answers beside the tuned one."""
    judge: Model | None = None
    """Judges answers."""


ArmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Recipe(Strict):
    """What the recipes of all methods have in common. Each method adds the keys of its own steps (`xl.methods`)."""

    method: str
    """Name of a built-in method, or a Python file of one's own."""
    languages: Annotated[Languages, Field(min_length=1)]
    """Languages of the answers."""
    models: Models = Models()
    train: Train | None = None
    """How `models.base` is tuned on the dataset; without it the run has no model."""
    evaluate: Evaluate | None = None
    """What the models are asked then; without it the run ends before."""
    benchmarks: tuple[Task, ...] = ()
    """What `models.base` is asked, and the tuned model where there is one: questions with right answers, and open-ended requests."""
    contamination: Contamination = Contamination()
    """How what is evaluated on is kept out of the dataset."""
    arms: dict[ArmName, dict[str, Any]] = Field(default_factory=dict)
    """Variants: keys of this recipe with other values, such as `no_refine: {refine: false}`. Each goes into RUN/arms/NAME, and what it
    has in common with the recipe is done once."""
    seed: int = 0

    @model_validator(mode="after")
    def _has_its_models(self) -> "Recipe":
        if (self.train or self.evaluate or self.benchmarks) and self.models.base is None:
            raise ValueError("`models.base` is missing: the model that `train` tunes, and that `evaluate` and `benchmarks` ask")
        if self.train and self.models.base and self.models.base.engine != "vllm":
            raise ValueError(f"models.base: engine: {self.models.base.engine} has no weights that could be tuned; use engine: vllm")
        if self.evaluate and "tuned" in self.evaluate.arms and not self.train:
            raise ValueError("evaluate.arms: the arm `tuned` wants a `train:` part")
        if self.evaluate and self.evaluate.judge and self.models.judge is None:
            raise ValueError("`models.judge` is missing: the model that `evaluate.judge` asks")
        if any(task.reference for task in self.benchmarks) and self.models.judge is None:
            raise ValueError("`models.judge` is missing: the model that compares a benchmark's answers with its `reference`")
        return self

    @model_validator(mode="after")
    def _has_a_name_for_each_result(self) -> "Recipe":
        check_names(self.benchmarks, self.languages)
        return self

    @property
    def sources(self) -> list[str]:
        """Names of where the input comes from."""
        raise NotImplementedError

    def files(self) -> list[SourceFile]:
        """The input's files, in their order. Raises UserError when one is missing."""
        raise NotImplementedError

    def input_settings(self) -> dict[str, Any]:
        """How the input is read, by the recipe's keys, without where it is: what every row depends on."""
        raise NotImplementedError

    def input_choice(self) -> dict[str, Any]:
        """What decides, beside the files, which rows come in: an arm that agrees in it with the recipe has the same rows.

        Unless a method says which keys these are, they are all of its own, the languages and the seed.
        """
        return self.model_dump(mode="json", by_alias=True, exclude=Recipe.model_fields.keys() - {"languages", "seed"})

    @property
    def unread(self) -> Mapping[str, str]:
        """Keys that no step reads as the other keys stand, dotted, and why. A recipe that sets one is refused when it is loaded."""
        return {}

    @property
    def roles(self) -> tuple[str, ...]:
        """The parts that models play in this recipe."""
        return tuple(role for role in type(self.models).model_fields if self._player(role))

    def model_for(self, role: str) -> Model:
        """The model that plays a role."""
        model = self._player(role)
        assert model is not None, f"the recipe has no {role}"
        return model

    def _player(self, role: str) -> Model | None:
        model: Model | None = getattr(self.models, role)
        stand_in = self.models.stand_ins.get(role)
        return model or (self._player(stand_in) if stand_in else None)


class PageRecipe(Recipe):
    """A recipe whose rows are pages."""

    pages: Pages
    quality: Quality = Quality()

    @property
    def page_languages(self) -> tuple[str, ...]:
        """Languages that pages are taken in."""
        return self.languages

    @property
    def sources(self) -> list[str]:
        """The name that the pages go by."""
        return [self.pages.source]

    def files(self) -> list[SourceFile]:
        """The pages' files, sorted by path. Raises UserError when an entry of `pages.from` matches nothing."""
        return list_files(self.pages)

    def input_settings(self) -> dict[str, Any]:
        """Which columns hold what."""
        return {"pages": self.pages.model_dump(mode="json", exclude={"from_"})}

    def input_choice(self) -> dict[str, Any]:
        """Where the pages are, how they are read, and in which languages."""
        return {"pages": self.pages.model_dump(mode="json", by_alias=True), "languages": sorted(self.page_languages)}


def read_yaml(path: Path, kind: str) -> Any:
    """What a YAML file holds; `kind` says in errors what was looked for. Raises UserError."""
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"no {kind} {str(path)!r}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


def checked(kind: type[Settings], data: Mapping[str, Any], name: str) -> Settings:
    """Settings of a kind from parsed YAML; `name` says in errors where they come from. Raises UserError."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{name}: {_explain(error, kind)}") from None


def is_set(recipe: Recipe, dotted: str) -> bool:
    """Whether a key has another value than by default. That it is named says nothing: a run notes all keys of its recipe."""
    *parents, last = dotted.split(".")
    settings: Any = functools.reduce(getattr, parents, recipe)
    return settings is not None and getattr(settings, last) != type(settings).model_fields[last].get_default(call_default_factory=True)


def parse_override(text: str) -> tuple[str, Any]:
    """`a.b=c` from the command line; the value is read as YAML. Raises UserError."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set {text!r}: write it as key.subkey=value")
    try:
        return key.strip(), yaml.safe_load(value) if value else None
    except yaml.YAMLError:
        return key.strip(), value


def overridden(data: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with the values at dotted keys replaced. Raises UserError."""
    for key, value in overrides.items():
        _set(data, key, value)
    return data


def _set(data: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        if not isinstance(data.setdefault(parent, {}), dict):
            raise UserError(f"--set {dotted}: {parent!r} is a plain value, it has no key below it")
        data = data[parent]
    data[last] = value


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """Pydantic's first complaint in one line, with the dotted key."""
    first = error.errors()[0]
    keys = [str(part) for part in first["loc"]]
    where = ".".join(keys)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(keys[-1], _known_keys(keys[:-1], kind), 1)
        return f"unknown key `{where}`" + (f"; did you mean `{near[0]}`?" if near else "")
    if first["type"] == "missing":
        return f"`{where}` is missing"
    message = first["msg"].removeprefix("Value error, ")
    more = len(error.errors()) - 1
    return (f"`{where}`: " if where else "") + message + (f" (and {more} more)" if more else "")


def _known_keys(parents: list[str], kind: type[BaseModel]) -> list[str]:
    model: Any = kind
    for parent in parents:
        if parent not in getattr(model, "model_fields", {}):
            continue  # a name in a mapping or a place in a list: what it holds is what `model` says
        annotation = model.model_fields[parent].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []
