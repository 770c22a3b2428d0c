"""What an OpenAI-compatible endpoint says: the shapes of its answers as far as they are read, its refusals, and its pleas to wait."""

import email.utils
import re
import time
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, FiniteFloat, RootModel, model_validator

from xl.ask import RequestFailed, by_text

_REFUSAL = re.compile(
    r"unknown|unrecogni[sz]ed|unsupported|not support|n't support|not permitted|not allowed|unexpected|extra|unavailable", re.I
)


_KNOWN_AS = {"max_tokens": "max_completion_tokens", "chat_template_kwargs": "chat_template(_kwargs)?"}
"""What newer OpenAI models and vLLM with Mistral's own tokenizer call a parameter that they refuse."""


class Usage(BaseModel):
    """Tokens that were counted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class TokenLogprob(BaseModel):
    """A token's text and log-probability."""

    token: str
    logprob: FiniteFloat


class ChatToken(TokenLogprob):
    """A token of an answer, and the likeliest ones in its place."""

    top_logprobs: list[TokenLogprob] = []


class ChatLogprobs(BaseModel):
    """Log-probabilities in a chat's answer."""

    content: list[ChatToken] | None = None


class ChatMessage(BaseModel):
    """The message that answers a chat."""

    content: str | None


class ChatChoice(BaseModel):
    """One answer to a chat."""

    message: ChatMessage
    finish_reason: str | None = None
    logprobs: ChatLogprobs | None = None

    @model_validator(mode="after")
    def _has_text_unless_ended_early(self) -> "ChatChoice":
        # A model that spent its tokens on thinking, or was silenced, has no text and will have none next time.
        if self.message.content is None and self.finish_reason in (None, "stop"):
            raise ValueError("no text")
        return self

    @property
    def text(self) -> str | None:
        """The answer; None where the model ended without one."""
        return self.message.content

    @property
    def first_logprobs(self) -> dict[str, float]:
        """The likeliest first tokens."""
        tokens = self.logprobs.content if self.logprobs else None
        return by_text((top.token, top.logprob) for top in tokens[0].top_logprobs) if tokens else {}


class TextLogprobs(BaseModel):
    """Log-probabilities in a completion; with echo, of the prompt too."""

    tokens: list[str] = []
    token_logprobs: list[FiniteFloat | None] = []
    top_logprobs: list[dict[str, FiniteFloat] | None] | None = None
    text_offset: list[int] | None = None


class TextChoice(BaseModel):
    """One completion."""

    text: str
    finish_reason: str | None = None
    logprobs: TextLogprobs | None = None

    @property
    def first_logprobs(self) -> dict[str, float]:
        """The likeliest first tokens."""
        tops = self.logprobs.top_logprobs if self.logprobs else None
        return dict(tops[0] or {}) if tops else {}


class ChatReply(BaseModel):
    """What /chat/completions answers."""

    choices: list[ChatChoice] = Field(min_length=1)
    usage: Usage | None = None


class TextReply(BaseModel):
    """What /completions answers."""

    choices: list[TextChoice] = Field(min_length=1)
    usage: Usage | None = None


class Card(BaseModel):
    """A model as /models lists it."""

    id: str
    owned_by: str | None = None
    max_model_len: int | None = None
    metadata: dict[str, Any] | None = None

    @property
    def is_vllm(self) -> bool:
        """vLLM's own server, or Ray Serve's in front of it."""
        return self.owned_by == "vllm" or self.max_model_len is not None or "max_request_context_length" in (self.metadata or {})


class Page(BaseModel):
    """The list of models as most servers wrap it."""

    data: list[Card]


class Listing(RootModel[Page | list[Card]]):
    """`/models`: most servers wrap the list in `data`, some do not."""


class Refused(RequestFailed):
    """An error status that another attempt would not change."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status, self.message = status, message


def refuses(refused: Refused, name: str) -> bool:
    """Whether the endpoint does not take the parameter at all, as against one value of it in one request."""
    if refused.status not in (400, 422) or not _REFUSAL.search(refused.message):
        return False
    return re.search(rf"\b{_KNOWN_AS.get(name, name)}\b", refused.message) is not None


def is_passing(error: Any) -> bool:
    """Whether another attempt may succeed; a server that says so itself is believed."""
    said = error.response.headers.get("x-should-retry")
    return said == "true" if said in ("true", "false") else error.status_code in (408, 409, 429) or error.status_code >= 500


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or `retry-after` as seconds or as a date."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        return seconds if seconds > 0 else None
    try:
        seconds = email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time()
    except (KeyError, ValueError):
        return None
    return seconds if seconds > 0 else None
