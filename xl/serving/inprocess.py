"""Call an ASGI application in this process, as a replica calls the engine's own server."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from typing import Any

from xl.serving.backend import Head, Reply

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

STREAM_INTERVAL_SECONDS = 0.05
"""Parts of a stream that come within this time travel together: each trip between processes costs more than a token does."""

_running: set[asyncio.Task[None]] = set()


class _Call:
    """One POST. Whoever abandons it calls `leave`, and the application hears that its client has gone."""

    def __init__(self, app: App, path: str, body: bytes) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self._body: bytes | None = body
        self._left = asyncio.Event()
        self.task: asyncio.Task[None] = asyncio.ensure_future(app(_scope(path, len(body)), self._receive, self._send))
        _running.add(self.task)
        self.task.add_done_callback(self._finish)

    def leave(self) -> None:
        self._left.set()

    def _finish(self, task: asyncio.Task[None]) -> None:
        _running.discard(task)
        # Web frameworks answer 500 and raise all the same; what was sent before is the answer.
        error = None if task.cancelled() else task.exception()
        self.messages.put_nowait({"type": "end", "error": error})

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._left.is_set():
            raise OSError("the client has gone")
        self.messages.put_nowait(message)


def _scope(path: str, num_bytes: int) -> Message:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},  # from 2.4 on, frameworks don't watch for a client that leaves
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(num_bytes).encode())],
        "client": None,
        "server": None,
    }


def _head(message: Message) -> Head:
    if message["type"] == "end":
        raise _early_end(message)
    content_type = next((value for name, value in message["headers"] if name.lower() == b"content-type"), b"application/json")
    return Head(message["status"], content_type.decode("latin-1"))


def _early_end(message: Message) -> BaseException:
    return message["error"] or RuntimeError("the application ended before its answer did")


def _is_last(message: Message) -> bool:
    return not message.get("more_body", False)


async def answer(app: App, path: str, body: bytes) -> Reply:
    """The whole answer to a POST."""
    call = _Call(app, path, body)
    try:
        head = _head(await call.messages.get())
        parts: list[bytes] = []
        while (message := await call.messages.get())["type"] == "http.response.body":
            parts.append(message.get("body", b""))
            if _is_last(message):
                return Reply(*head, b"".join(parts))
        raise _early_end(message)
    finally:
        call.leave()


async def stream(app: App, path: str, body: bytes) -> AsyncGenerator[Head | bytes, None]:
    """The answer's head, then its body in parts."""
    call = _Call(app, path, body)
    try:
        yield _head(await call.messages.get())
        while True:
            waiting = [await call.messages.get()]
            while not call.messages.empty():
                waiting.append(call.messages.get_nowait())
            parts = list(itertools.takewhile(lambda message: message["type"] == "http.response.body", waiting))
            if data := b"".join(message.get("body", b"") for message in parts):
                yield data
            if parts and _is_last(parts[-1]):
                return
            if len(parts) < len(waiting):
                raise _early_end(waiting[len(parts)])
            await asyncio.wait({call.task}, timeout=STREAM_INTERVAL_SECONDS)
    finally:
        call.leave()


class Forwarder:
    """A replica's side of `xl.serving.backend.Backend`: hands bodies to the ASGI application `_app` in its own process."""

    _app: App

    async def answer(self, path: str, body: bytes) -> Reply:
        return await answer(self._app, path, body)

    async def stream(self, path: str, body: bytes) -> AsyncGenerator[Head | bytes, None]:
        async with aclosing(stream(self._app, path, body)) as parts:
            async for part in parts:
                yield part
