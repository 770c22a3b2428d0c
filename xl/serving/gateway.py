"""The front of the endpoint: who may ask, how much, and of which model. An ASGI application that hosts nothing itself.

A request is checked in the order of what it costs us: key, size, concurrency, then its content. Bodies go on as they came.
"""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from xl.serving.backend import Backend, Head, Reply, Unavailable
from xl.serving.keys import Keyring
from xl.serving.metrics import Metrics
from xl.serving.requests import Generation, Refusal, check_generation, read_body
from xl.serving.settings import Serving

OPEN_PATHS = frozenset({"/health", "/ready"})
GENERATION_PATHS = ("/v1/chat/completions", "/v1/completions")

_CLIENT_LEFT = 499
_log = logging.getLogger(__name__)


@dataclass
class Slots:
    """Sequences under way per key. A key that has too many is refused at once, so that no queue of its own grows in front of others."""

    per_key: int
    metrics: Metrics
    taken: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def take(self, key: str, num_sequences: int) -> Iterator[None]:
        """Hold slots for as long as a request lasts. Raises Refusal (429)."""
        if self.taken[key] + num_sequences > self.per_key:
            raise Refusal(429, "too_many_requests", f"this key has {self.per_key} sequences under way; wait for answers, then ask again")
        self.taken[key] += num_sequences
        self.metrics.ongoing.labels(key).inc(num_sequences)
        try:
            yield
        finally:
            self.taken[key] -= num_sequences
            self.metrics.ongoing.labels(key).dec(num_sequences)


class _RequireKey:
    """Lets a request in when its key is good. Paths are closed unless they are listed as open."""

    def __init__(self, app: ASGIApp, keyring: Keyring | None, metrics: Metrics) -> None:
        self._app, self._keyring, self._metrics = app, keyring, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            owner = "anyone" if self._keyring is None else self._keyring.owner(_bearer(scope))
            if owner is None:
                self._metrics.refused.labels("invalid_api_key").inc()
                refusal = Refusal(401, "invalid_api_key", "a valid API key is needed: send it as `Authorization: Bearer KEY`")
                await refusal.response()(scope, receive, send)
                return
            scope["xl.key"] = owner
        await self._app(scope, receive, send)


def _bearer(scope: Scope) -> str:
    value = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    kind, _, secret = value.decode("latin-1").partition(" ")
    return secret.strip() if kind.lower() == "bearer" else ""


class _Generate:
    """Takes a request for an answer to the model that it names."""

    def __init__(self, serving: Serving, backends: Mapping[str, Backend], metrics: Metrics) -> None:
        self._limits, self._models, self._adapted = serving.limits, serving.deployment_of, serving.adapted
        self._backends, self._metrics = backends, metrics
        self._slots = Slots(self._limits.max_concurrent_sequences, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = scope["xl.key"]
        try:
            with self._slots.take(key, 1):
                body = await read_body(Request(scope, receive), self._limits.max_body_bytes)
                asked = check_generation(body, self._models, self._adapted, self._limits)
                with self._slots.take(key, asked.num_sequences - 1):
                    await self._forward(asked, scope, receive, send)
        except Refusal as refusal:
            self._metrics.refused.labels(refusal.code).inc()
            await refusal.response()(scope, receive, send)
        except ClientDisconnect:
            return

    async def _forward(self, asked: Generation, scope: Scope, receive: Receive, send: Send) -> None:
        backend = self._backends[self._models[asked.model]]
        started = time.perf_counter()
        status = _CLIENT_LEFT
        try:
            respond = self._stream if asked.stream else self._answer
            response = await _while_connected(respond(backend, scope["path"], asked.body), receive)
            status = response.status_code
            await response(scope, receive, send)
        except Refusal as refusal:
            status = refusal.status
            raise
        finally:
            self._metrics.requests.labels(asked.model, str(status)).inc()
            self._metrics.seconds.labels(asked.model).observe(time.perf_counter() - started)

    async def _answer(self, backend: Backend, path: str, body: bytes) -> Response:
        with _failures_as_refusals():
            async with asyncio.timeout(self._limits.timeout_seconds):
                reply: Reply = await backend.answer(path, body)
        return Response(reply.body, reply.status, media_type=reply.content_type)

    async def _stream(self, backend: Backend, path: str, body: bytes) -> Response:
        parts = backend.stream(path, body)
        try:
            with _failures_as_refusals():
                async with asyncio.timeout(self._limits.timeout_seconds):
                    head = await anext(parts)
        except BaseException:
            await parts.aclose()
            raise
        assert isinstance(head, Head)
        return StreamingResponse(_body(parts), head.status, {"cache-control": "no-cache"}, media_type=head.content_type)


async def _while_connected(work: Awaitable[Response], receive: Receive) -> Response:
    """The work's result, given up as soon as the client leaves, so that no engine writes for nobody.

    Raises:
        ClientDisconnect: the client left first.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(receive())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()


async def _body(parts: AsyncGenerator[Head | bytes, None]) -> AsyncGenerator[bytes, None]:
    """The parts of a stream. One that breaks ends with an error event: a stream that merely stopped would pass for a whole answer."""
    async with aclosing(parts):
        try:
            with _failures_as_refusals():
                async for part in parts:
                    assert isinstance(part, bytes)
                    yield part
        except Refusal as refusal:
            yield b"data: " + json.dumps({"error": refusal.as_error()}).encode() + b"\n\n"


@contextmanager
def _failures_as_refusals() -> Iterator[None]:
    try:
        yield
    except Unavailable:
        raise Refusal(503, "unavailable", "the model's replica has gone; send the request again") from None
    except TimeoutError:
        raise Refusal(504, "timeout", "the model took too long") from None
    except (Refusal, ClientDisconnect):
        raise
    except Exception:
        _log.exception("a model failed")
        raise Refusal(500, "internal_error", "the model failed; the server's log says why") from None


def build_gateway(
    serving: Serving,
    keyring: Keyring | None,
    backends: Mapping[str, Backend],
    num_replicas: Callable[[], Awaitable[Mapping[str, int]]],
) -> ASGIApp:
    """The endpoint's front as an ASGI application.

    `backends` are keyed as `serving.models`; `num_replicas` counts those that are running. Without a keyring everyone is let in.
    """
    assert set(backends) == set(serving.models) and (keyring is not None or not serving.require_key)
    metrics = Metrics()
    started = int(time.time())

    def card(name: str) -> dict[str, object]:
        model = serving.deployment_of[name]
        parent = {"parent": model, "root": serving.models[model].adapters[name]} if name != model else {}
        about = {"id": name, "object": "model", "created": started, "owned_by": "xl"}
        return {**about, "max_model_len": serving.models[model].max_model_len, **parent}

    async def list_models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [card(name) for name in serving.deployment_of]})

    async def show_model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in serving.deployment_of:
            raise Refusal(404, "model_not_found", f"no model {name[:100]!r}", "model")
        return JSONResponse(card(name))

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readiness(_: Request) -> Response:
        running = await num_replicas()
        ready = all(running[name] > 0 or model.scale_to_zero for name, model in serving.models.items())
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def show_metrics(_: Request) -> Response:
        for name, running in (await num_replicas()).items():
            metrics.replicas.labels(name).set(running)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def refuse(_: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return Refusal(error.status_code, "not_found" if error.status_code == 404 else "bad_request", str(error.detail)).response()
        assert isinstance(error, Refusal)
        return error.response()

    generate = _Generate(serving, backends, metrics)
    app = Starlette(
        routes=[
            *(Route(path, generate, methods=["POST"]) for path in GENERATION_PATHS),
            Route("/v1/models", list_models),
            Route("/v1/models/{name:path}", show_model),
            Route("/health", health),
            Route("/ready", readiness),
            Route("/metrics", show_metrics),
        ],
        exception_handlers={HTTPException: refuse, Refusal: refuse},
    )
    return _RequireKey(app, keyring, metrics)
