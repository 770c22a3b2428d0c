"""A pass goes on when Ray stumbles over a worker that dies, and ends at once when the fault is ours or the user's."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from xl import execute
from xl.errors import UserError
from xl.progress import StageProgress
from xl.store import Incomplete, InputShard
from xl.worker import FromManifest, Plan

SHARDS = [InputShard(name, name, {"de": 10}) for name in ("a", "b")]


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no Ray to be asked for its CPUs."""
    monkeypatch.setattr(execute, "cluster_cpus", lambda: 2)


class Shown:
    """Where a person's progress bar stands."""

    num_done = 0

    def advance(self, num_rows: int, **_: int) -> None:
        self.num_done += num_rows


def rounds(monkeypatch: pytest.MonkeyPatch, errors: list[Exception]) -> tuple[list[list[str]], int]:
    """The shards of each round when a round does the first of its shards and then meets its error, and the rows shown as done."""
    pytest.importorskip("ray")
    seen: list[list[str]] = []

    def one(_: Any, __: Any, shards: list[InputShard], progress: Any, round_: Any) -> None:
        seen.append([shard.name for shard in shards])
        for shard in shards:
            round_.done[shard.name] += shard.num_rows
            round_.num_new += shard.num_rows
            progress.advance(shard.num_rows)
            if shard is not shards[0] and errors:
                raise errors.pop(0)
            round_.sealed.add(shard.name)

    monkeypatch.setattr(execute, "_execute", one)
    shown = Shown()
    plan, source = cast(Plan, SimpleNamespace(model=None, host=None)), cast(FromManifest, None)
    execute.run_rows(plan, source, list(SHARDS), cast(StageProgress, shown))
    return seen, shown.num_done


def test_an_error_of_rays_own_costs_a_round_for_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rounds(monkeypatch, [AssertionError("Above ray.get should raise an exception.")]) == ([["a", "b"], ["b"]], 20)


def test_rows_that_were_lost_on_their_way_to_a_worker_cost_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import ObjectReconstructionFailedError, RayTaskError, StreamingGeneratorReplayInconsistentError

    for lost in (StreamingGeneratorReplayInconsistentError("26 objects, expected 38"), ObjectReconstructionFailedError("00", None, "")):
        error = RayTaskError("walk", "traceback", lost).as_instanceof_cause()
        assert rounds(monkeypatch, [error]) == ([["a", "b"], ["b"]], 20)


def test_a_users_mistake_ends_the_pass_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import OutOfDiskError

    for error in (OSError("No space left on device"), OutOfDiskError("no room for an object")):
        with pytest.raises(UserError, match="disk is full"):
            rounds(monkeypatch, [error])


def test_an_error_of_our_own_code_ends_the_pass_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import RayTaskError

    within = RayTaskError("ask", "traceback", ValueError("ours"))
    for cause in (ValueError("ours"), within):
        with pytest.raises(RayTaskError):
            rounds(monkeypatch, [RayTaskError("walk", "traceback", cause)])


def test_shards_that_stay_open_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "_execute", lambda *_: None)
    with pytest.raises(Incomplete, match="2 shards are still open"):
        execute.run_rows(
            cast(Plan, SimpleNamespace(model=None, host=None)), cast(FromManifest, None), list(SHARDS), cast(StageProgress, Shown())
        )
