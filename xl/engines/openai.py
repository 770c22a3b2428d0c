"""Any OpenAI-compatible endpoint as an engine: a vLLM server, Ray Serve, or a vendor.

The client's own retries are switched off. It gives up on a Retry-After above its cap (two minutes; one minute, then ignored, in
older versions), its retries would slip past the rate limits, and a readable status with an unreadable body is none of its
business. One loop here covers all of it, so an attempt is an attempt, whatever went wrong.
"""

import asyncio
import logging
import os
import random
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xl.ask import Completion, Message, Request, RequestFailed, Sampling, Score
from xl.engines.echo import Echo, continuation_start
from xl.engines.openai_replies import (
    Card,
    ChatReply,
    Listing,
    Page,
    Refused,
    TextLogprobs,
    TextReply,
    Usage,
    is_passing,
    refuses,
    retry_after_seconds,
)
from xl.errors import UserError, require
from xl.train.prompts import TEMPLATE_SETTINGS

FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 30.0
MAX_RETRY_AFTER_SECONDS = 86_400.0
"""A server that asks for a longer wait than a day gets no second request; the row fails and can be retried later."""

_NOTABLE_WAIT_SECONDS = 60.0
_CHECK_ATTEMPTS = 4
_CONNECT_SECONDS = 10.0
_MAX_CONNECTIONS = 1000  # what the client's pool holds; more would only wait inside it, with the clock running
_CHARS_PER_TOKEN = 8  # more than nearly any text has, so that one request is enough to score its first tokens

_DROPPABLE = (
    *("structured_outputs", "response_format", "logprobs", "top_logprobs", "chat_template_kwargs"),
    *("repetition_penalty", "top_k", "top_p", "temperature", "seed", "max_tokens"),
)
_log = logging.getLogger(__name__)


class Endpoint(BaseModel):
    """Where the endpoint is and how much may be asked of it.

    `api_key_env` names the environment variable that holds the key. It is read when the first request is made and kept in no
    setting, log or message. Without the variable the key is the word "none": local servers ask for none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    """Base URL, such as http://127.0.0.1:8000/v1."""
    model: str
    chat: bool = True
    """Whether the model takes chat messages; if not, it completes a prompt."""
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = Field(64, gt=0)
    """Requests under way at once, those that wait for another attempt included; never more than 1,000."""
    requests_per_minute: int | None = Field(None, gt=0)
    tokens_per_minute: int | None = Field(None, gt=0)
    """Prompt (estimated at four bytes a token) and wanted answer together."""
    timeout_seconds: float = Field(120, gt=0)
    max_attempts: int = Field(8, gt=0)
    """Attempts per request, the first one included."""


_Reply = TypeVar("_Reply", bound=BaseModel)


class _Limiter(Protocol):
    max_rate: float

    async def acquire(self, amount: float = 1) -> None: ...


class OpenAIEngine:
    """An endpoint that answers asks. Implements `xl.ask.Engine`; use it in one event loop only.

    `dropped` holds the names of request parameters that the endpoint refused and that are no longer sent.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.chat = endpoint.chat
        self.dropped: set[str] = set()
        self._endpoint = endpoint
        self._where = _without_secrets(endpoint.url)
        self._client: Any = None
        self._is_vllm = False
        self._listed: list[str] = []
        self._is_checked = False
        self._has_answered = False
        self._checking = asyncio.Lock()
        self._slots = asyncio.Semaphore(min(endpoint.concurrency, _MAX_CONNECTIONS))
        self._turn = asyncio.Lock()
        self._requests: _Limiter | None = None
        self._tokens: _Limiter | None = None

    async def check(self) -> None:
        """Make the first contact, once: is the endpoint there, does it know the key and the model?

        Raises:
            UserError: one line that names the url, the model or the key's environment variable.
        """
        async with self._checking:
            if self._is_checked:
                return
            self._open()
            cards = await self._list_models()
            self._listed = [card.id for card in cards]
            self._is_vllm = any(card.is_vllm for card in cards)
            if self._endpoint.model not in self._listed:
                await self._probe()
            self._is_checked = True

    async def complete(self, request: Request) -> Completion:
        """Sample an answer.

        Raises:
            RequestFailed: no answer after all attempts, or the endpoint refuses this request.
            UserError: the endpoint cannot work at all (see `check`), or it no longer takes the key.
        """
        await self.check()
        async with self._slots:
            return await self._complete(request)

    async def score(self, prompt: str, continuation: str, max_tokens: int) -> Score:
        """Log-probabilities of the first `max_tokens` tokens of `continuation`: those that start behind `prompt`.

        The endpoint must echo the prompt's log-probabilities on /completions, as vLLM does. Raises as `complete`, and
        UserError where the endpoint cannot do that.
        """
        await self.check()
        async with self._slots:
            head = continuation[: _CHARS_PER_TOKEN * max_tokens]
            logprobs, num_prompt_tokens = await self._echo(prompt, head)
            if len(logprobs) <= max_tokens and len(head) < len(continuation):
                logprobs, num_prompt_tokens = await self._echo(prompt, continuation)
        if not logprobs:
            raise RequestFailed("nothing to score: the text has no tokens")
        return Score(tuple(logprobs[:max_tokens]), num_prompt_tokens)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client, self._is_checked = None, False

    def _open(self) -> None:
        if self._client is not None:
            return
        openai = require("openai", "openai")
        limiter = require("aiolimiter", "openai").AsyncLimiter
        endpoint = self._endpoint
        key = os.environ.get(endpoint.api_key_env, "").strip() or "none"
        if not key.isascii() or not key.isprintable():
            raise UserError(f"the environment variable {endpoint.api_key_env} holds characters that no key has; set it anew")
        if urlsplit(endpoint.url).scheme not in ("http", "https"):
            raise UserError(f"url {self._where!r} is not one; write it like http://127.0.0.1:8000/v1")
        if endpoint.requests_per_minute:
            self._requests = limiter(*_burst_and_period(endpoint.requests_per_minute))
        if endpoint.tokens_per_minute:
            self._tokens = limiter(*_burst_and_period(endpoint.tokens_per_minute))
        self._client = openai.AsyncOpenAI(
            api_key=key,
            base_url=endpoint.url,
            max_retries=0,
            timeout=openai.Timeout(endpoint.timeout_seconds, connect=min(_CONNECT_SECONDS, endpoint.timeout_seconds)),
            # A redirect would carry pages to an address that nobody configured.
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
        )

    async def _list_models(self) -> list[Card]:
        try:
            listing = (await self._send("/models", None, Listing, min(_CHECK_ATTEMPTS, self._endpoint.max_attempts))).root
        except Refused as refused:
            if refused.status in (404, 405):  # some servers keep no list; the probe will tell
                return []
            raise self._unusable(refused) from None
        except RequestFailed as failed:
            raise UserError(
                f"no OpenAI-compatible server answers at {self._where} ({failed}); is it running, and is the url right (most end in /v1)?"
            ) from None
        return listing.data if isinstance(listing, Page) else listing

    async def _probe(self) -> None:
        """Ask for one token from a model that is not listed: names may have aliases, so the list alone proves nothing."""
        sampling, model = Sampling(max_tokens=1), self._endpoint.model
        hello = Request(sampling, 0, messages=(Message("user", "Hi"),)) if self.chat else Request(sampling, 0, prompt="Hi")
        try:
            await self._complete(hello)
        except RequestFailed as failed:
            if isinstance(failed, Refused) and model in failed.message:
                raise self._unusable(failed) from None
            _log.warning("%s does not list the model %r, and a first question failed: %s", self._where, model, failed)

    def _unusable(self, refused: Refused) -> UserError:
        name, model = self._endpoint.api_key_env, self._endpoint.model
        if refused.status in (401, 403):
            mistake = "refuses the key in" if os.environ.get(name) else "asks for a key: set"
            return UserError(f"{self._where} {mistake} the environment variable {name} (HTTP {refused.status})")
        if 300 <= refused.status < 400:
            return UserError(f"{self._where} redirects to another address (HTTP {refused.status}); put that one into the recipe")
        listed = ", ".join(self._listed[:5]) or "no models"
        return UserError(f"{self._where} has no model {model!r}, or is not the right url ({refused}); it lists {listed}")

    async def _complete(self, request: Request) -> Completion:
        body = self._body(request)
        reply: ChatReply | TextReply
        try:
            if request.messages:
                reply = await self._ask("/chat/completions", body, ChatReply)
            else:
                reply = await self._ask("/completions", body, TextReply)
        except Refused as refused:
            if refused.status in (403, 404) and not self._has_answered:
                raise self._unusable(refused) from None
            raise
        self._has_answered = True
        choice, usage = reply.choices[0], reply.usage or Usage()
        if choice.text is None:
            raise RequestFailed(f"no text in the answer (finish_reason {choice.finish_reason})")
        return Completion(choice.text, choice.finish_reason or "stop", choice.first_logprobs, usage.prompt_tokens, usage.completion_tokens)

    def _body(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {"model": self._endpoint.model, "max_tokens": sampling.max_tokens}
        body |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
        if request.messages:
            body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
            if self._is_vllm:
                body["chat_template_kwargs"] = TEMPLATE_SETTINGS
        else:
            body["prompt"] = request.prompt
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.temperature > 0:  # a greedy draw needs no seed, and vLLM on CPU can die of one
            body["seed"] = request.seed
        if sampling.num_logprobs:
            body |= {"logprobs": True, "top_logprobs": sampling.num_logprobs} if request.messages else {"logprobs": sampling.num_logprobs}
        if self._is_vllm:
            # Left out, they would be what the model's folder says, and the same recipe would draw otherwise than in-process.
            body |= {"repetition_penalty": sampling.repetition_penalty, "top_k": -1}
        elif sampling.repetition_penalty != 1:
            body["repetition_penalty"] = sampling.repetition_penalty
        if sampling.choices and self._is_vllm:
            body["structured_outputs"] = {"choice": list(sampling.choices)}
        elif sampling.choices:
            self._drop("structured_outputs", "it is not vLLM")
        elif sampling.json_schema:
            # Vendors enforce a schema only where it forbids unknown keys, and refuse to where it does not.
            strict = sampling.json_schema.get("additionalProperties") is False
            schema = {"name": "answer", "schema": dict(sampling.json_schema), "strict": strict}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    async def _echo(self, prompt: str, text: str) -> tuple[list[float], int]:
        """Log-probabilities of all of `text`'s tokens after `prompt`, and how many tokens the two have."""
        body = {"model": self._endpoint.model, "prompt": prompt + text, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        attempts = self._endpoint.max_attempts
        try:
            reply = await self._send("/completions", body, TextReply, attempts)
        except Refused as refused:
            if refused.status in (404, 405) or refuses(refused, "echo") or refuses(refused, "logprobs"):
                raise self._cannot_score() from None
            raise
        logprobs = reply.choices[0].logprobs or TextLogprobs()
        num_tokens = (reply.usage or Usage()).prompt_tokens or len(logprobs.tokens) - 1  # the last one was not asked for
        if not 0 < num_tokens <= len(logprobs.tokens) or len(logprobs.token_logprobs) < num_tokens:
            raise self._cannot_score()
        echo = Echo(tuple(logprobs.tokens[:num_tokens]), tuple((logprobs.text_offset or [])[:num_tokens]))
        start = continuation_start(echo, prompt, text)
        if start is None:
            alone = {"model": self._endpoint.model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
            usage = (await self._send("/completions", alone, TextReply, attempts)).usage
            if usage is None or not usage.prompt_tokens:
                raise RequestFailed("the echoed tokens do not add up to the text, so its log-probabilities cannot be told apart")
            start = usage.prompt_tokens
        return [value for value in logprobs.token_logprobs[start:num_tokens] if value is not None], num_tokens

    def _cannot_score(self) -> UserError:
        return UserError(
            f"likelihoods (`rater: likelihood`, `num_others`, benchmarks with choices) need the prompt's log-probabilities, which "
            f"{self._where} does not give (/completions with echo and logprobs); use a vLLM server or engine without adapters, "
            "`rater: prompted`, or for benchmarks `output_type: generate_until` (xl eval: --output-type generate_until)"
        )

    async def _ask(self, path: str, body: Mapping[str, Any], shape: type[_Reply]) -> _Reply:
        """`_send`, but a parameter that the endpoint refuses by name is left out from then on."""
        while True:
            sent = {key: value for key, value in body.items() if key not in self.dropped}
            if "max_tokens" in self.dropped:
                sent["max_completion_tokens"] = body["max_tokens"]
            try:
                return await self._send(path, sent, shape, self._endpoint.max_attempts)
            except Refused as refused:
                unwanted = [name for name in _DROPPABLE if name in sent and refuses(refused, name)]
                if not unwanted:
                    raise
                for name in unwanted:
                    self._drop(name, refused.message)

    def _drop(self, name: str, why: str) -> None:
        if name not in self.dropped:
            self.dropped.add(name)
            _log.warning("%s is not sent `%s` any more: %s. Answers may differ from those of a vLLM engine.", self._where, name, why)

    async def _send(self, path: str, body: Mapping[str, Any] | None, shape: type[_Reply], max_attempts: int) -> _Reply:
        """One answer of the right shape, or RequestFailed. Whoever waits for another attempt keeps its slot: that slows all down."""
        openai = require("openai", "openai")
        attempt = 0
        while True:
            attempt, retry_after = attempt + 1, None
            try:
                await self._keep_pace(body)
                # The client's own timeout starts anew with every byte, and a server may trickle for ever.
                async with asyncio.timeout(self._endpoint.timeout_seconds):
                    call = self._client.get(path, cast_to=str) if body is None else self._client.post(path, cast_to=str, body=body)
                    return shape.model_validate_json(await call)
            except openai.APIStatusError as error:
                refused = Refused(error.status_code, self._message(error))
                if error.code == "insufficient_quota":
                    raise UserError(f"{self._where}: the account of {self._endpoint.api_key_env} has no quota left") from None
                if error.status_code == 401:
                    raise self._unusable(refused) from None
                if not is_passing(error):
                    raise refused from None
                reason, retry_after = f"HTTP {error.status_code}", retry_after_seconds(error.response.headers)
            except (openai.APITimeoutError, TimeoutError):
                reason = f"no answer in {self._endpoint.timeout_seconds:g} s"
            except openai.APIConnectionError:
                reason = "no connection, or lost on the way"
            except ValidationError as error:
                first = error.errors()[0]
                reason = f"unreadable answer: {'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg'][:80]}"
            except UnicodeEncodeError:
                raise RequestFailed("the prompt holds half a surrogate pair, which no JSON can carry") from None
            if attempt >= max_attempts or (retry_after or 0) > MAX_RETRY_AFTER_SECONDS:
                raise RequestFailed(f"{reason}; attempts: {attempt}")
            await self._wait(attempt, retry_after, reason)

    async def _wait(self, attempt: int, retry_after: float | None, reason: str) -> None:
        if retry_after is None:
            seconds = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1)) * random.uniform(0.75, 1.25)
        else:
            seconds = retry_after * random.uniform(1, 1.1)
        if seconds > _NOTABLE_WAIT_SECONDS:
            _log.warning("%s asks for patience (%s): next attempt in %.0f s", self._where, reason, seconds)
        await asyncio.sleep(seconds)

    async def _keep_pace(self, body: Mapping[str, Any] | None) -> None:
        if body is None or not (self._requests or self._tokens):
            return
        texts = [body["prompt"]] if "prompt" in body else [message["content"] for message in body["messages"]]
        num_tokens = sum(len(text.encode(errors="replace")) for text in texts) // 4 + body.get("max_tokens", 0)
        async with self._turn:  # first come, first served: the limiter alone lets small requests overtake large ones for ever
            await _take(self._requests, 1)
            await _take(self._tokens, num_tokens)

    def _message(self, error: Any) -> str:
        """What the server says, short and without the key."""
        body = error.body if isinstance(error.body, dict) else {"message": error.body or ""}
        text = " ".join(str(body.get("message") or body.get("detail") or body).split())
        text = text if error.param is None or error.param in text else f"{error.param}: {text}"
        key = self._client.api_key
        return (text if key == "none" else text.replace(key, "***"))[:300]


def _without_secrets(url: str) -> str:
    """A URL as far as it may be shown: no user, password or query."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _burst_and_period(per_minute: int) -> tuple[float, float]:
    """A limiter that lets through one second's worth at once: a minute's worth would make the first minute twice the limit."""
    burst = max(1.0, per_minute / 60)
    return burst, burst * 60 / per_minute


async def _take(limiter: _Limiter | None, amount: float) -> None:
    while limiter is not None and amount > 0:
        piece = min(amount, limiter.max_rate)
        await limiter.acquire(piece)
        amount -= piece
