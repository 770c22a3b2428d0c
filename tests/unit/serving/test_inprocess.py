"""A replica's calls to the engine's own server."""

import asyncio

import pytest

from xl.serving import inprocess
from xl.serving.inprocess import App


def test_a_server_that_breaks_off_in_mid_answer_is_an_error_not_a_short_answer() -> None:
    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("engine died")

    async def whole(app: App) -> None:
        await inprocess.answer(app, "/", b"")

    async def parts(app: App) -> None:
        async for _ in inprocess.stream(app, "/", b""):
            pass

    for call in (whole, parts):
        with pytest.raises(RuntimeError, match="engine died"):
            asyncio.run(call(app))


def test_parts_that_come_quickly_travel_together_and_lose_nothing() -> None:
    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(100):
            await send({"type": "http.response.body", "body": b"%d," % number, "more_body": number < 99})
            await asyncio.sleep(0.001)

    async def collect() -> list[bytes]:
        return [part async for part in inprocess.stream(app, "/", b"") if isinstance(part, bytes)]

    got = asyncio.run(collect())
    assert b"".join(got) == b"".join(b"%d," % number for number in range(100)) and len(got) < 20
