"""The gateway's promises, over real HTTP, with scripted models in this process."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from tests.support import wait_for
from xl.serving import inprocess
from xl.serving.backend import Head, Reply, Unavailable
from xl.serving.gateway import build_gateway
from xl.serving.keys import Keyring, add_key, revoke_key
from xl.serving.scripted import scripted_app
from xl.serving.settings import Limits, ServedModel, Serving

LIMITS = Limits(max_body_bytes=10_000, max_tokens=100, max_concurrent_sequences=4, timeout_seconds=5)
ASK = {"model": "fast", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}


class Local:
    """A model in this process. It counts the requests that it was told to give up."""

    def __init__(self, delay_seconds: float) -> None:
        self._app = scripted_app(delay_seconds)
        self.num_cancelled = 0

    async def answer(self, path: str, body: bytes) -> Reply:
        try:
            return await inprocess.answer(self._app, path, body)
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise

    async def stream(self, path: str, body: bytes) -> AsyncGenerator[Head | bytes, None]:
        async for part in inprocess.stream(self._app, path, body):
            yield part


class Broken:
    """A model whose replica dies: at once, or in the middle of a stream."""

    async def answer(self, path: str, body: bytes) -> Reply:
        raise Unavailable("gone")

    async def stream(self, path: str, body: bytes) -> AsyncGenerator[Head | bytes, None]:
        yield Head(200, "text/event-stream")
        yield b'data: {"choices": [{"index": 0, "delta": {"content": "half an "}}]}\n\n'
        raise Unavailable("gone")


class Endpoint:
    """A running gateway."""

    def __init__(self, folder: Path) -> None:
        self.keys = folder / "keys.json"
        self.ann, self.bob = add_key(self.keys, "ann"), add_key(self.keys, "bob")
        model = ServedModel(model="scripted", engine="scripted", adapters={"tuned": "anywhere/adapter"})
        serving = Serving(
            models=dict.fromkeys(("fast", "slow", "broken"), model.model_copy(update={"adapters": {}})) | {"fast": model}, limits=LIMITS
        )
        self.slow = Local(1.0)
        backends: dict[str, Any] = {"fast": Local(0.0), "slow": self.slow, "broken": Broken()}
        self.replicas = {"fast": 1, "slow": 0, "broken": 1}

        async def num_replicas() -> dict[str, int]:
            return self.replicas

        config = uvicorn.Config(
            build_gateway(serving, Keyring(self.keys, {}), backends, num_replicas), port=0, lifespan="off", log_level="warning"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def client(self, key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def post(self, body: Any, key: str | None = None, **options: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key or self.ann}"}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(f"{self.url}/v1/chat/completions", content=content, headers=headers, **options)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    running = Endpoint(tmp_path_factory.mktemp("gateway"))
    yield running
    running.close()


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error of a refusal, which must be in OpenAI's format."""
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == code and {"message", "type", "param"} <= set(error)
    return error


def test_the_openai_client_lists_models_chats_completes_and_streams(endpoint: Endpoint) -> None:
    client = endpoint.client(endpoint.ann)
    assert {model.id for model in client.models.list()} == {"fast", "slow", "broken", "tuned"}
    assert client.models.retrieve("fast").id == "fast"
    whole = client.chat.completions.create(**ASK).choices[0].message.content  # type: ignore[call-overload]
    parts = client.chat.completions.create(**ASK, stream=True)  # type: ignore[call-overload]
    assert whole and "".join(part.choices[0].delta.content for part in parts) == whole
    assert client.completions.create(model="fast", prompt="The sea").choices[0].text
    assert client.chat.completions.create(**{**ASK, "model": "tuned"}).model == "tuned"  # type: ignore[call-overload]


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer xl-wrong"}, {"authorization": "Basic abc"}, {"authorization": "Bearer"}])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/docs")]
)
def test_without_a_good_key_nothing_but_health_answers(endpoint: Endpoint, headers: dict[str, str], method: str, path: str) -> None:
    refused(httpx.request(method, endpoint.url + path, headers=headers, json=ASK if method == "POST" else None), 401, "invalid_api_key")
    assert httpx.get(f"{endpoint.url}/health").status_code == 200


def test_a_revoked_key_is_refused_and_a_new_one_taken_without_a_restart(endpoint: Endpoint) -> None:
    key = add_key(endpoint.keys, "guest")
    wait_for(lambda: endpoint.post(ASK, key).status_code == 200)
    revoke_key(endpoint.keys, "guest")
    wait_for(lambda: endpoint.post(ASK, key).status_code == 401)
    assert endpoint.post(ASK).status_code == 200


def test_a_body_that_is_too_large_is_refused_with_and_without_a_declared_length(endpoint: Endpoint) -> None:
    large = {**ASK, "user": "x" * 20_000}
    refused(endpoint.post(large), 413, "request_too_large")
    chunks = (json.dumps(large).encode()[start : start + 1000] for start in range(0, 20_000, 1000))
    headers = {"authorization": f"Bearer {endpoint.ann}"}
    refused(httpx.post(f"{endpoint.url}/v1/chat/completions", content=chunks, headers=headers), 413, "request_too_large")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"[" * 9_000, 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        ({"messages": []}, 400, "missing_model"),
        ({**ASK, "model": "gpt-4"}, 404, "model_not_found"),
        ({**ASK, "max_tokens": 101}, 400, "max_tokens_too_large"),
        ({**ASK, "max_completion_tokens": 101}, 400, "max_tokens_too_large"),
        ({**ASK, "max_tokens": "many"}, 400, "invalid_number"),
        ({**ASK, "n": 5}, 400, "too_many_sequences"),
        ({"model": "fast", "prompt": ["a"] * 5}, 400, "too_many_sequences"),
        ({**ASK, "messages": "Hi"}, 400, "invalid_messages"),
        ({**ASK, "messages": [{"content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}]}]}, 400, "text_only"),
        ({**ASK, "messages": [{"content": [{"image_url": "http://10.0.0.1/"}]}]}, 400, "text_only"),
        ({**ASK, "messages": [{"content": [{"type": []}]}]}, 400, "text_only"),
        *(({**ASK, key: ["a"]}, 400, "unsupported_parameter") for key in ("allowed_token_ids", "bad_words", "chat_template", "vllm_xargs")),
        *(({**ASK, key: {}}, 400, "unsupported_parameter") for key in ("kv_transfer_params", "media_io_kwargs", "mm_processor_kwargs")),
        ({**ASK, "chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, 400, "unsupported_parameter"),
        ({"model": "fast", "prompt": "Hi", "echo": True, "logprobs": 0}, 400, "no_prompt_logprobs"),
        ({**ASK, "model": "tuned", "prompt_logprobs": 1}, 400, "no_prompt_logprobs"),
        ({"model": "broken"}, 503, "unavailable"),
    ],
)
def test_a_bad_request_is_refused_in_openais_format(endpoint: Endpoint, body: Any, status: int, code: str) -> None:
    refused(endpoint.post(body), status, code)


def test_a_flood_of_one_key_is_held_back_while_another_key_is_served(endpoint: Endpoint) -> None:
    async def flood() -> tuple[list[httpx.Response], httpx.Response]:
        async with httpx.AsyncClient(timeout=30) as client:
            url, slow = f"{endpoint.url}/v1/chat/completions", {**ASK, "model": "slow"}
            flooding = [client.post(url, json=slow, headers={"authorization": f"Bearer {endpoint.ann}"}) for _ in range(30)]
            pending = asyncio.gather(*flooding)
            await asyncio.sleep(0.3)
            other = await client.post(url, json=slow, headers={"authorization": f"Bearer {endpoint.bob}"})
            return await pending, other

    answers, other = asyncio.run(flood())
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) == 4 and statuses.count(429) == 26
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
    assert other.status_code == 200
    assert endpoint.post(ASK).status_code == 200, "slots are given back"


def test_a_client_that_leaves_stops_the_model(endpoint: Endpoint) -> None:
    before = endpoint.slow.num_cancelled
    with pytest.raises(httpx.ReadTimeout):
        endpoint.post({**ASK, "model": "slow"}, timeout=0.3)
    wait_for(lambda: endpoint.slow.num_cancelled == before + 1, 2)


def test_a_stream_that_breaks_ends_with_an_error_and_never_looks_whole(endpoint: Endpoint) -> None:
    with pytest.raises(openai.APIError, match="replica has gone"):
        list(endpoint.client(endpoint.ann).chat.completions.create(**{**ASK, "model": "broken"}, stream=True))  # type: ignore[call-overload]


def test_an_endpoint_is_ready_once_every_model_can_answer(endpoint: Endpoint) -> None:
    assert httpx.get(f"{endpoint.url}/ready").status_code == 503
    endpoint.replicas["slow"] = 1
    assert httpx.get(f"{endpoint.url}/ready").status_code == 200


def test_metrics_count_requests_and_never_show_a_key(endpoint: Endpoint) -> None:
    endpoint.post(ASK)
    text = httpx.get(f"{endpoint.url}/metrics", headers={"authorization": f"Bearer {endpoint.ann}"}).text
    assert 'xl_requests_total{model="fast",status="200"}' in text and 'xl_ongoing_sequences{key="ann"} 0.0' in text
    assert endpoint.ann not in text


def test_no_other_origin_is_allowed(endpoint: Endpoint) -> None:
    answer = httpx.post(
        f"{endpoint.url}/v1/chat/completions",
        json=ASK,
        headers={"authorization": f"Bearer {endpoint.ann}", "origin": "https://evil.example"},
    )
    assert not any(name.startswith("access-control") for name in answer.headers)
