"""A machine that its cloud will take tells Ray so, in time, and only then."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from xl.preemption import GOOGLE_NOTICE_SECONDS, aws_notice, google_notice, persistently, watch


class Metadata:
    """Both clouds' metadata, as documented: a session's token and 404 until a notice at AWS, a header and FALSE at Google."""

    def __init__(self) -> None:
        self.taken_at: datetime | None = None

    async def token(self, request: web.Request) -> web.Response:
        assert int(request.headers["X-aws-ec2-metadata-token-ttl-seconds"])
        return web.Response(text="secret")

    async def action(self, request: web.Request) -> web.Response:
        if request.headers.get("X-aws-ec2-metadata-token") != "secret":
            raise web.HTTPUnauthorized
        if self.taken_at is None:
            raise web.HTTPNotFound
        return web.Response(text=json.dumps({"action": "terminate", "time": self.taken_at.strftime("%Y-%m-%dT%H:%M:%SZ")}))

    async def preempted(self, request: web.Request) -> web.Response:
        if request.headers.get("Metadata-Flavor") != "Google":
            raise web.HTTPForbidden
        return web.Response(text="TRUE" if self.taken_at else "FALSE")


@contextmanager
def served(metadata: Metadata) -> Iterator[str]:
    """Its address."""
    app = web.Application()
    app.router.add_put("/latest/api/token", metadata.token)
    app.router.add_get("/latest/meta-data/spot/instance-action", metadata.action)
    app.router.add_get("/computeMetadata/v1/instance/preempted", metadata.preempted)
    loop, address = asyncio.new_event_loop(), asyncio.Event()
    started: list[Any] = []

    async def start() -> None:
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        started.append(runner.addresses[0][1])
        ready.set()
        await address.wait()
        await runner.cleanup()

    ready = threading.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(start(),))
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{started[0]}"
    finally:
        loop.call_soon_threadsafe(address.set)
        thread.join()


def test_a_notice_is_read_as_each_cloud_gives_it() -> None:
    metadata = Metadata()
    with served(metadata) as base:
        assert aws_notice(base) is None and google_notice(base) is None
        metadata.taken_at = datetime.now(UTC) + timedelta(seconds=120)
        assert aws_notice(base) == pytest.approx(time.time() + 120, abs=3)
        assert google_notice(base) == pytest.approx(time.time() + GOOGLE_NOTICE_SECONDS, abs=3)


def test_a_cloud_that_does_not_answer_or_answers_nonsense_is_asked_again() -> None:
    answers = iter([OSError("no route"), json.JSONDecodeError("no JSON", "<html>", 0), KeyError("time"), None, 90.0])

    def notice() -> float | None:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert watch(notice, poll_seconds=0) == 90.0


def test_a_ray_that_is_not_there_yet_is_told_when_it_is_unless_the_machine_is_gone_by_then() -> None:
    failures = iter([ConnectionError("no Ray"), RuntimeError("not accepted")])
    told: list[str] = []

    def tell() -> None:
        for error in failures:
            raise error
        told.append("leaves")

    assert persistently(tell, deadline=time.time() + 60, retry_seconds=0)
    assert told == ["leaves"]

    def never() -> None:
        told.append("tried")
        raise ConnectionError("no Ray")

    assert not persistently(never, deadline=time.time() - 1, retry_seconds=0)
    assert told == ["leaves", "tried"]
