"""What is asked of the gateway, checked before it costs anything, and refusals in OpenAI's error format."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from xl.serving.settings import Limits

RETRY_AFTER_SECONDS = 1

CLOSED_KEYS = (
    *("allowed_token_ids", "bad_words", "chat_template", "kv_transfer_params"),
    *("media_io_kwargs", "mm_processor_kwargs", "vllm_xargs"),
)
"""What vLLM (0.29) takes of a client and what lets it change others' answers, block them, or choose code (cluster/ADVISORIES.md)."""


class Refusal(Exception):
    """A request that is answered with an error; `code` is what programs look at, `param` the key at fault."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param

    def response(self) -> JSONResponse:
        """OpenAI's error format."""
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if self.status in {429, 503} else {}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse({"error": self.as_error(kind)}, self.status, headers)

    def as_error(self, kind: str = "server_error") -> dict[str, Any]:
        """The error object alone."""
        return {"message": self.message, "type": kind, "param": self.param, "code": self.code}


@dataclass(frozen=True)
class Generation:
    """A checked request for an answer. The body goes on as it came."""

    model: str
    stream: bool
    num_sequences: int
    """Prompts times choices."""
    body: bytes


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body, refused as soon as it is known to be too large."""
    refusal = Refusal(413, "request_too_large", f"the body is larger than {max_bytes:,} bytes")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > max_bytes:
        raise refusal
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise refusal
    return bytes(body)


def check_generation(body: bytes, models: Mapping[str, str], adapted: Collection[str], limits: Limits) -> Generation:
    """Check what must hold before a model is asked; the engine's own server checks the rest.

    Args:
        body: the request's.
        models: every name that clients may ask for.
        adapted: those of them whose engine has adapters. Asked there for log-probabilities of a prompt, vLLM (0.29) gives wrong ones, or
            its engine dies when it has others to answer (github.com/vllm-project/vllm/issues/16668 and 51594).
        limits: of the endpoint.

    Raises:
        Refusal: 400 for a malformed or excessive request, 404 for an unknown model.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "invalid_json", "the body is not valid JSON") from None
    if not isinstance(asked, dict):
        raise Refusal(400, "invalid_json", "the body must be a JSON object")
    model = asked.get("model")
    if not isinstance(model, str):
        raise Refusal(400, "missing_model", f"name a model; there are {', '.join(models)}", "model")
    if model not in models:
        raise Refusal(404, "model_not_found", f"no model {model[:100]!r}; there are {', '.join(models)}", "model")
    if not all(_is_text(message) for message in _messages(asked)):
        # An engine would fetch an image's address for whoever asks, from inside our network.
        raise Refusal(400, "text_only", "messages may hold text only", "messages")
    if (key := _closed_key(asked)) is not None:
        raise Refusal(400, "unsupported_parameter", f"{key} is not open to clients of this endpoint", key)
    if model in adapted and _wants_prompt_logprobs(asked):
        key = "prompt_logprobs" if "prompt_logprobs" in asked else "echo"
        why = f"{key} is not supported for {model}: beside adapters no engine gives log-probabilities of a prompt; ask a model without"
        raise Refusal(400, "no_prompt_logprobs", why, key)
    for key in ("max_tokens", "max_completion_tokens"):
        if (wanted := _number(asked, key)) is not None and wanted > limits.max_tokens:
            raise Refusal(400, "max_tokens_too_large", f"{key} is {wanted}, this endpoint allows {limits.max_tokens}", key)
    num_sequences = max(_number(asked, "n") or 1, _number(asked, "best_of") or 1) * _num_prompts(asked.get("prompt"))
    if num_sequences > limits.max_concurrent_sequences:
        most = limits.max_concurrent_sequences
        raise Refusal(400, "too_many_sequences", f"prompts times choices are {num_sequences}, this endpoint allows {most}", "n")
    return Generation(model, asked.get("stream") is True, num_sequences, body)


def _closed_key(asked: Mapping[str, Any]) -> str | None:
    for key in CLOSED_KEYS:
        if asked.get(key) is not None:
            return key
    options = asked.get("chat_template_kwargs")
    return "chat_template_kwargs.chat_template" if isinstance(options, dict) and "chat_template" in options else None


def _wants_prompt_logprobs(asked: Mapping[str, Any]) -> bool:
    logprobs = asked.get("logprobs")  # 0 asks for those of the prompt's tokens alone
    return asked.get("prompt_logprobs") is not None or (bool(asked.get("echo")) and logprobs is not None and logprobs is not False)


def _messages(asked: Mapping[str, Any]) -> list[Any]:
    messages = asked.get("messages") or []
    if not isinstance(messages, list):
        raise Refusal(400, "invalid_messages", "messages must be a list", "messages")
    return messages


def _is_text(message: Any) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return True
    return all(isinstance(part, str) or (isinstance(part, dict) and part.get("type") in ("text", "refusal")) for part in content)


def _number(asked: Mapping[str, Any], key: str) -> int | None:
    value = asked.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Refusal(400, "invalid_number", f"{key} must be a whole number", key)
    return value


def _num_prompts(prompt: Any) -> int:
    """How many prompts a completion asks about: a list of texts or of token lists holds several, a list of tokens is one."""
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return len(prompt)
    return 1
