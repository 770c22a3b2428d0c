"""What an endpoint serves and how much it lets a client do. API keys are not settings: see `xl.serving.keys`."""

import ipaddress
import os
from pathlib import Path

from pydantic import Field, model_validator

from xl.recipe import Model
from xl.settings import Strict


class ServedModel(Model):
    """A model behind the endpoint, and the LoRA adapters that share its weights."""

    adapters: dict[str, str] = Field(default_factory=dict)
    """LoRA adapters by the name that clients ask for: local folders, or hub ids."""
    max_lora_rank: int = Field(64, gt=0)
    target_ongoing_requests: int | None = Field(None, gt=0)
    """Requests under way per replica at which another one is started; by default as many as one replica batches (`max_num_seqs`)."""
    scale_to_zero: bool = False
    """Whether an idle model may give up its last replica. The first request after that waits until one has started."""
    engine_metrics: bool = False
    """Whether vLLM's own metrics go to Ray's Prometheus port. They cost a little in every engine step."""

    @property
    def target(self) -> int:
        """Requests under way per replica that autoscaling aims at."""
        return self.target_ongoing_requests or self.max_num_seqs

    @property
    def max_ongoing_requests(self) -> int:
        """Requests that a replica takes at once: twice what it batches, so that the engine never waits for one; the rest queue."""
        return 2 * max(self.max_num_seqs, self.target)

    @model_validator(mode="after")
    def _is_served_here(self) -> "ServedModel":
        if self.engine == "openai":
            raise ValueError("engine: openai is served elsewhere; an endpoint serves vllm models")
        if self.accelerator or self.labels:
            raise ValueError("`accelerator` and `labels` are not read here: Ray Serve places replicas by their GPUs alone")
        return self


class Limits(Strict):
    """What one client may ask for."""

    max_body_bytes: int = Field(4 << 20, gt=0)
    max_tokens: int = Field(4096, gt=0)
    """Most tokens of one answer. An answer without a wish of its own ends there too."""
    max_concurrent_sequences: int = Field(64, gt=0)
    """Sequences under way per key: a request counts once for each of its prompts and choices."""
    timeout_seconds: float = Field(600, gt=0)
    """How long an answer, or the first part of a streamed one, may take."""


class Serving(Strict):
    """An endpoint."""

    models: dict[str, ServedModel] = Field(min_length=1)
    """Models by the name that clients ask for."""
    host: str = "127.0.0.1"
    """Where `xl serve` listens. On a cluster Ray Serve's proxy does, where `http_options` say."""
    port: int = Field(8000, ge=0, lt=65536)
    """0 takes any free port."""
    require_key: bool = True
    """Without keys whoever can log in to this machine may ask. On a cluster, where others reach the proxy, keys are always wanted."""
    keys_file: str | None = None
    """Where keys are kept, as salted hashes; by default `xl/keys.json` in the user's configuration folder."""
    limits: Limits = Limits()
    upscale_delay_seconds: float = Field(10, ge=0)
    downscale_delay_seconds: float = Field(300, ge=0)
    drain_seconds: int = Field(60, ge=0)
    """How long requests under way may go on once the endpoint or a replica is told to stop."""

    @property
    def keys_path(self) -> Path:
        """The keys file."""
        return Path(self.keys_file).expanduser() if self.keys_file else default_keys_path()

    @property
    def deployment_of(self) -> dict[str, str]:
        """Every name that clients may ask for, adapters included, and the model that answers it."""
        return {**{name: name for name in self.models}, **{a: name for name, model in self.models.items() for a in model.adapters}}

    @property
    def adapted(self) -> frozenset[str]:
        """Those of these names whose engine has adapters."""
        return frozenset(name for name, model in self.deployment_of.items() if self.models[model].adapters)

    @model_validator(mode="after")
    def _names_and_keys(self) -> "Serving":
        names = [*self.models, *(adapter for model in self.models.values() for adapter in model.adapters)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"models: two models or adapters are named {twice!r}")
        if not self.require_key and not is_loopback(self.host):
            raise ValueError(f"require_key: false is for this machine alone; host {self.host!r} can be reached from others")
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def default_keys_path() -> Path:
    """`xl/keys.json` under $XDG_CONFIG_HOME or ~/.config."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "xl" / "keys.json"
