"""What `xl submit` makes of a cluster's answers, from a job server that is a few lines long."""

import asyncio
import shlex
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from rich.console import Console

from tests.commands import check
from tests.support import here, succeeded
from xl import submit
from xl.errors import Unavailable, UserError
from xl.submit import Submission, _explained, entrypoint


class JobServer:
    """Jobs are lost by a new head as often as it says, or end with these exit codes, then they succeed; `log` is what each says.

    Those of `at_work` were there before.
    """

    def __init__(
        self, num_lost: int = 0, log: str = "pages: 10 rows\n", exit_codes: Sequence[int] = (), at_work: Sequence[dict[str, Any]] = ()
    ) -> None:
        self.num_lost, self.log, self.exit_codes, self.at_work = num_lost, log, list(exit_codes), list(at_work)
        self.commands: list[str] = []
        self._told: set[str] = set()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(
                "/api/version", lambda _: asyncio.sleep(0, web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": ""}))
            ),
            web.get("/api/jobs/", lambda _: asyncio.sleep(0, web.json_response(self.at_work))),
            web.post("/api/jobs/", self._submit),
            web.get("/api/jobs/{job}", self._info),
            web.get("/api/jobs/{job}/logs/tail", self._tail),
        ]

    @property
    def num_submitted(self) -> int:
        return len(self.commands)

    async def _submit(self, request: web.Request) -> web.Response:
        self.commands.append((await request.json())["entrypoint"])
        return web.json_response({"job_id": f"job-{self.num_submitted}", "submission_id": f"job-{self.num_submitted}"})

    async def _info(self, request: web.Request) -> web.Response:
        job = request.match_info["job"]
        if job in self._told and 0 < self.num_submitted <= self.num_lost:
            return web.Response(status=404, text=f"Job {job} does not exist")
        status, code = "RUNNING", 0
        if job in self._told:
            code = self.exit_codes.pop(0) if self.exit_codes else 0
            status = "FAILED" if code else "SUCCEEDED"
        self._told.add(job)
        return web.json_response({"type": "SUBMISSION", "entrypoint": "", "status": status, "driver_exit_code": code, "message": ""})

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(self.log)
        await socket.close()
        return socket


@contextmanager
def served(server: JobServer) -> Iterator[str]:
    """The server's address, in a thread of its own."""
    loop, started, address = asyncio.new_event_loop(), threading.Event(), []
    app = web.Application()
    app.add_routes(server.routes())
    runner = web.AppRunner(app)

    async def serve() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address.append(runner.addresses[0][1])
        started.set()

    thread = threading.Thread(target=lambda: (loop.run_until_complete(serve()), loop.run_forever()), daemon=True)
    thread.start()
    started.wait(30)
    try:
        yield f"http://127.0.0.1:{address[0]}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)


def submitted(server: JobServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retries: int = 3, fresh: bool = False) -> tuple[int, str]:
    """Exit code and output of a submission."""
    monkeypatch.setattr(submit, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(submit, "CLOSED_SECONDS", 0.01)
    monkeypatch.setattr(submit, "_environment", lambda _: {})
    console = Console(width=160, record=True, quiet=False)
    with served(server) as url:
        code = submit.submit(Submission(url, ["python", "jobs/run.py"], "/shared/run", tmp_path, retries, fresh), console)
    return code, console.export_text()


def test_a_job_that_a_new_head_does_not_know_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = JobServer(num_lost=2)
    code, told = submitted(server, tmp_path, monkeypatch)
    assert code == 0 and server.num_submitted == 3
    assert "its head node is a new one" in told and "starting it again (2 of 3)" in told


def test_a_job_that_is_lost_each_time_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = JobServer(num_lost=9)
    code, _ = submitted(server, tmp_path, monkeypatch, retries=1)
    assert code == 1 and server.num_submitted == 2


@pytest.mark.parametrize(("exit_code", "num_submitted"), [(UserError.exit_code, 1), (Unavailable.exit_code, 2), (137, 2)])
def test_a_job_that_failed_is_tried_again_unless_the_user_made_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exit_code: int, num_submitted: int
) -> None:
    server = JobServer(exit_codes=[exit_code])
    code, _ = submitted(server, tmp_path, monkeypatch)
    assert server.num_submitted == num_submitted and code == (exit_code if num_submitted == 1 else 0)


def test_a_job_that_started_over_goes_on_when_it_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = JobServer(num_lost=2)
    code, _ = submitted(server, tmp_path, monkeypatch, fresh=True)
    assert code == 0 and server.commands == ["python jobs/run.py --fresh", "python jobs/run.py", "python jobs/run.py"]


def test_what_is_at_work_is_followed_and_not_started_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"type": "SUBMISSION", "submission_id": "job-7", "entrypoint": "", "status": "RUNNING", "metadata": {submit.OUT: "/shared/run"}}
    server = JobServer(at_work=[job])
    code, told = submitted(server, tmp_path, monkeypatch)
    assert code == 0 and "job-7 is at work on /shared/run: following it" in told
    with pytest.raises(UserError, match="--fresh: job-7 is at work on /shared/run; end it"):
        submitted(server, tmp_path, monkeypatch, fresh=True)
    assert not server.commands


def test_options_of_a_run_travel_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[Submission] = []
    monkeypatch.setattr(submit, "submit", lambda submission, _: wanted.append(submission) or 0)
    recipe = "jobs/recipes/demo.yaml"
    more = ("--until", "pages", "--limit", "5", "--redo", "--retry-failed")
    succeeded(here("submit", recipe, "--cluster", "http://127.0.0.1:9", "--out", "/shared/run", *more, "--fresh"))
    command = wanted[0].command
    assert command[:5] == ["python", "jobs/run.py", recipe, "--out", "/shared/run"]
    assert {*more, "--fresh"} <= {*command} and command[command.index("--until") + 1] == "pages"
    check(shlex.join(command))


def test_a_head_that_is_coming_up_is_waited_for() -> None:
    submission = Submission("http://127.0.0.1:8265", [], "/out", Path())
    with pytest.raises(Unavailable, match="status code 500"), _explained(submission):
        raise RuntimeError("Request failed with status code 500: no GCS yet.")
    with pytest.raises(UserError, match="status code 404"), _explained(submission):
        raise RuntimeError("Request failed with status code 404: no such job.")


def test_no_line_of_the_log_is_shown_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, told = submitted(JobServer(num_lost=0, log="pages: 10 rows\nunique: 10 rows\n"), tmp_path, monkeypatch)
    assert told.count("unique: 10 rows") == 1


@pytest.mark.parametrize(
    ("recipe", "out", "complaint"),
    [("../elsewhere.yaml", "/shared/run", "is all that the cluster gets"), ("recipe.yaml", "run", "a full path is wanted")],
)
def test_what_the_cluster_would_not_find_is_refused(tmp_path: Path, recipe: str, out: str, complaint: str) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "run.py").touch()
    with pytest.raises(UserError, match=complaint):
        entrypoint(tmp_path / recipe, out, tmp_path, [])


def test_where_nobody_answers_is_one_line(tmp_path: Path) -> None:
    wanted: Any = Submission("http://127.0.0.1:9", [], "/shared/run", tmp_path)
    with pytest.raises(UserError, match="no Ray cluster answers there"):
        submit.submit(wanted, Console(quiet=True))
