"""Start a run on a cluster as a Ray job, follow it to its end, and start it again where the cluster lost it.

A job that fails by the user's own mistake (exit code 2) is not tried again: it would fail again. All else, such as a lost head node, is,
a few times; the run goes on where it was.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from xl import storage
from xl.errors import Unavailable, UserError, require
from xl.progress import left

Answer = TypeVar("Answer")

OUT = "xl_out"
"""Key of a job's metadata: the folder of its run."""

USERS_MISTAKE = UserError.exit_code
"""Exit code of a command that complained about what it was given (`xl.cli.guarded`)."""

UNREACHABLE_SECONDS = 900.0
"""How long a cluster that answered once may be away: a new head node has this long to come up."""

NOT_YET, MAX_SUBMITS = "No available agent", 24
"""What a job server says that has just come up, and how often it is asked again."""

CLOSED_SECONDS = 1.0
"""How long after the end of a job's log it is asked how the job ended."""

POLL_SECONDS = 5.0

SILENCE_SECONDS = 60.0
"""A run tells of its progress every ten seconds. After so long without a word it is asked again whether the job is there."""


@dataclass(frozen=True)
class Submission:
    """What is run, and where."""

    cluster: str
    """Address of the cluster's dashboard, such as http://127.0.0.1:8265."""
    entrypoint: Sequence[str]
    out: str
    working_dir: Path
    retries: int = 3
    fresh: bool = False
    """Whether the next job forgets what the folder holds."""

    @property
    def command(self) -> list[str]:
        """What the next job runs."""
        return [*self.entrypoint, *(["--fresh"] if self.fresh else [])]


@dataclass(frozen=True)
class Ending:
    """How a job ended."""

    status: str
    exit_code: int | None
    """None where the cluster lost the job: nobody saw its process end."""
    message: str

    @property
    def succeeded(self) -> bool:
        return self.status == "SUCCEEDED"

    @property
    def is_worth_a_retry(self) -> bool:
        """Whether the same command may succeed: the user neither stopped it nor made a mistake."""
        return self.status != "STOPPED" and self.exit_code != USERS_MISTAKE


def submit(submission: Submission, console: Console) -> int:
    """Run to the end; returns the exit code. A job of the same run that is at work there is followed instead of started again.

    Raises:
        Unavailable: no cluster answers.
        UserError: it does not let us in, or what is to start over is at work.
    """
    for trial in range(submission.retries + 1):
        patience = UNREACHABLE_SECONDS if trial else 0.0  # an address at which nobody ever answered is probably wrong
        job = _answered(partial(_running, submission), patience)
        if job is None:
            job = _answered(partial(_start, submission), patience)
            console.print(f"submitted {job} to {submission.cluster}: {shlex.join(submission.command)}", highlight=False, markup=False)
        elif submission.fresh:
            stop = f"ray job stop --address {submission.cluster} {job}"
            raise UserError(f"--fresh: {job} is at work on {submission.out}; end it ({stop}), or leave out --fresh to follow it")
        else:
            console.print(f"{job} is at work on {submission.out}: following it", highlight=False)
        submission = replace(submission, fresh=False)
        ending = _follow(submission, job, console)
        if ending.succeeded:
            return 0
        console.print(f"{job} {ending.status.lower()}: {ending.message}", highlight=False)
        if not ending.is_worth_a_retry:
            return ending.exit_code or 1
        if trial < submission.retries:
            console.print(f"starting it again ({trial + 1} of {submission.retries}): it goes on where it was", highlight=False)
    return ending.exit_code or 1


def _answered(ask: Callable[[], Answer], patience: float) -> Answer:
    """What a cluster says, which may be away for so many seconds. Raises Unavailable."""
    end = time.monotonic() + patience
    while True:
        try:
            return ask()
        except Unavailable:
            if time.monotonic() > end:
                raise
        time.sleep(POLL_SECONDS)


def entrypoint(recipe: Path, out: str, working_dir: Path, arguments: Sequence[str]) -> list[str]:
    """The command of the job. Raises UserError when the recipe would not be there: only the working directory travels."""
    try:
        inside = recipe.resolve().relative_to(working_dir.resolve())
    except ValueError:
        raise UserError(f"{recipe} is not in {working_dir}, which is all that the cluster gets; see --working-dir") from None
    if not (working_dir / "jobs" / "run.py").exists():
        raise UserError(f"--working-dir {working_dir} holds no jobs/run.py; it is to be a checkout of this project")
    if not out.startswith("/") and not storage.is_url(out):
        raise UserError(f"--out {out}: a full path is wanted, to storage that all nodes of the cluster see, or s3://… or gs://…")
    return ["python", "jobs/run.py", inside.as_posix(), "--out", out, *arguments]


@contextlib.contextmanager
def _client(submission: Submission) -> Iterator[Any]:
    """A connection to the cluster's job server."""
    require("ray", "cpu")
    from ray._private.authentication import authentication_token_setup as tokens
    from ray.job_submission import JobSubmissionClient

    tokens.logger.setLevel(logging.ERROR)  # it tells that it has found a token
    tokens.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)  # as `ray.init` does, where RAY_AUTH_MODE says nothing
    for name in ("ray", *(kind.__module__ for kind in JobSubmissionClient.mro())):
        logging.getLogger(name).setLevel(logging.WARNING)  # they tell of each upload and each closed connection
    before = os.environ.get("RAY_API_SERVER_ADDRESS")
    os.environ["RAY_API_SERVER_ADDRESS"] = submission.cluster  # RAY_ADDRESS would beat what the client is told
    try:
        yield JobSubmissionClient(submission.cluster)
    finally:
        os.environ.pop("RAY_API_SERVER_ADDRESS")
        if before is not None:
            os.environ["RAY_API_SERVER_ADDRESS"] = before


@contextlib.contextmanager
def _explained(submission: Submission) -> Iterator[None]:
    """Say in a user's words why the cluster cannot be asked."""
    require("ray", "cpu")
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError:
        why = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN unless it is in ~/.ray/auth_token"
        raise UserError(f"--cluster {submission.cluster}: the cluster wants a token: {why}") from None
    except OSError as error:
        raise Unavailable(f"--cluster {submission.cluster}: no Ray cluster answers there ({type(error).__name__})") from None
    except (RuntimeError, ValueError) as error:
        if re.search(r"status code 5\d\d", str(error)):  # a head that is coming up
            raise Unavailable(f"--cluster {submission.cluster}: {' '.join(str(error).split())}") from None
        raise UserError(f"--cluster {submission.cluster}: {' '.join(str(error).split())}") from None


def _running(submission: Submission) -> str | None:
    """The job that is at work on this run, if there is one."""
    with _explained(submission), _client(submission) as client:
        jobs = client.list_jobs()
    alive = (job for job in jobs if not job.status.is_terminal() and (job.metadata or {}).get(OUT) == submission.out)
    return next((job.submission_id for job in alive), None)


def _start(submission: Submission) -> str:
    """Submit the job. A cluster that has just come up takes none yet."""
    for trial in itertools.count(1):
        with _explained(submission), _client(submission) as client:
            try:
                job: str = client.submit_job(
                    entrypoint=shlex.join(submission.command), runtime_env=_environment(submission), metadata={OUT: submission.out}
                )
                return job
            except RuntimeError as error:
                if NOT_YET not in str(error) or trial == MAX_SUBMITS:
                    raise
        time.sleep(POLL_SECONDS)
    raise AssertionError


def _environment(submission: Submission) -> dict[str, str]:
    """What of this machine the job gets."""
    return {"working_dir": str(submission.working_dir.resolve())}


def _follow(submission: Submission, job: str, console: Console) -> Ending:
    """Print what the job says until it has ended, through losses of the connection."""
    import aiohttp

    log, away_since = _Log(console), None
    while True:
        pause = POLL_SECONDS
        try:
            with _client(submission) as client:
                ended = _ending(client, job)  # before the log, which of a job that is not known any more says no more than 404
                if asyncio.run(log.follow(client, job)):
                    pause = CLOSED_SECONDS
            away_since = None
            if ended is not None:
                return ended
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            if "does not exist" in str(error):
                return Ending("LOST", None, "the cluster does not know the job any more: its head node is a new one")
            now = time.monotonic()
            if away_since is None:
                away_since = now
                console.print(f"{submission.cluster} does not answer; waiting up to {left(UNREACHABLE_SECONDS)}", highlight=False)
            elif now - away_since > UNREACHABLE_SECONDS:
                how = "the same command, without --fresh, goes on when it is back"
                raise Unavailable(f"--cluster {submission.cluster} went away; {how}") from None
        time.sleep(pause)


@dataclass
class _Log:
    """A job's log, of which so many characters have been printed."""

    console: Console
    num_shown: int = 0

    async def follow(self, client: Any, job: str) -> bool:
        """Print what is new until the cluster closes the log, as it does when the job has ended, and return True; or False when the job
        says nothing for a while: the connection may be gone without a word.
        """
        seen = 0
        lines = client.tail_job_logs(job)
        while True:
            try:
                text = await asyncio.wait_for(anext(lines), SILENCE_SECONDS)
            except StopAsyncIteration:
                return True
            except TimeoutError:
                return False
            seen += len(text)
            if seen > self.num_shown:
                new = text[max(0, len(text) - (seen - self.num_shown)) :]
                self.num_shown = seen
                self.console.print(new, end="", markup=False, highlight=False, soft_wrap=True)


def _ending(client: Any, job: str) -> Ending | None:
    info = client.get_job_info(job)
    if not info.status.is_terminal():
        return None
    message = (info.message or "").split(", last available logs")[0]  # its log has been shown
    return Ending(str(info.status), info.driver_exit_code, " ".join(message.split())[:500])
