"""One driver at a time may write to a run, and what a dead one left at work commits nothing."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from xl import lease as lease_module
from xl.dataset import export
from xl.errors import UserError
from xl.folder import RunFolder, claim, locked
from xl.lease import Superseded, fence_for, lease, newest
from xl.store import StageStore

SECONDS = 0.6


def held_elsewhere(folder: Path, number: int = 1, **content: object) -> Path:
    """A lease that a process of another machine holds."""
    file = folder / "lease" / f"{number:06d}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"host": "elsewhere", "machine": "another", "pid": 7, "born": 1.0, "beat": 0, **content}))
    return file


def commit(store: StageStore) -> None:
    store.log("00000", "attempt", [{"id": "a"}], pa.schema([("id", pa.string())]))


def test_a_holder_of_this_machine_is_named_at_once(tmp_path: Path) -> None:
    with lease(tmp_path), pytest.raises(UserError, match=r"another run is at work there \(process [0-9]+ on"), lease(tmp_path):
        pass


def test_a_process_of_this_machine_that_was_killed_keeps_nobody_waiting(tmp_path: Path) -> None:
    script = f"import os, pathlib, xl.lease as l; l.lease(pathlib.Path({str(tmp_path)!r})).__enter__(); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert newest(tmp_path / "lease") == 1
    started = time.monotonic()
    with lease(tmp_path) as fence:
        assert fence.number == 2 and time.monotonic() - started < 10


def test_a_holder_elsewhere_that_says_that_it_lives_is_left_alone(tmp_path: Path) -> None:
    file = held_elsewhere(tmp_path)
    threading.Timer(SECONDS / 3, lambda: held_elsewhere(tmp_path, beat=1)).start()
    with pytest.raises(UserError, match="process 7 on elsewhere"), lease(tmp_path, SECONDS):
        pass
    assert file.exists() and newest(file.parent) == 1


def test_a_holder_elsewhere_is_replaced_when_it_has_been_silent_for_the_lease(tmp_path: Path) -> None:
    held_elsewhere(tmp_path)
    started = time.monotonic()
    with lease(tmp_path, SECONDS) as fence:
        assert fence.number == 2 and time.monotonic() - started >= SECONDS
    with lease(tmp_path, seconds=1000) as fence:  # the one before said that it was done
        assert fence.number == 3


def test_a_holder_says_that_it_lives(tmp_path: Path) -> None:
    with lease(tmp_path, SECONDS) as fence:
        file = fence.leases / "000001.json"
        before = file.read_text()
        time.sleep(SECONDS)
        assert file.read_text() != before


def test_workers_of_a_driver_that_was_replaced_commit_nothing(tmp_path: Path) -> None:
    run = claim(tmp_path)
    with pytest.raises(Superseded, match="another run has taken over"), locked(run):
        orphan = run.store("pages")
        commit(orphan)
        held_elsewhere(tmp_path, number=2)
        with pytest.raises(Superseded):
            commit(orphan)
        with pytest.raises(Superseded):
            orphan.write("00000", "digest", [], pa.schema([("id", pa.string())]))
        assert len(list(orphan.logged("00000", "attempt"))) == 1 and not orphan.path("00000").exists()
        fence_for(tmp_path).check()


def test_a_driver_that_was_replaced_writes_no_more_of_its_run_down(tmp_path: Path) -> None:
    run = claim(tmp_path)
    with pytest.raises(Superseded), locked(run):
        run.write_info({"method": "its own"})
        held_elsewhere(tmp_path, number=2)
        with pytest.raises(Superseded):
            run.write_info({"method": "too late"})
        with pytest.raises(Superseded):
            export(run.store("pages"), [], "x_instruction", {}, run.dataset, card="")
    assert run.info == {"method": "its own"} and not run.dataset.exists()


def test_a_driver_that_was_replaced_stops_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(Superseded, match="another run has taken over"), lease(tmp_path, SECONDS):
        held_elsewhere(tmp_path, number=2)
        time.sleep(60)
    assert newest(tmp_path / "lease") == 2


def test_a_folder_inside_a_held_one_has_its_fence(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with lease(tmp_path) as fence:
        assert run.evaluation.store("answers").fence == fence == fence_for(run.training)
    assert run.store("pages").fence is None


def test_a_driver_that_notices_nothing_until_its_end_does_not_end_well(tmp_path: Path) -> None:
    with pytest.raises(Superseded), lease(tmp_path):
        held_elsewhere(tmp_path, number=2)


def test_one_that_is_slow_to_take_a_lease_does_not_get_one_that_others_have_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_elsewhere(tmp_path, number=5, released=True)
    reads = lease_module._read

    def slow(leases: Path, number: int) -> dict[str, object]:
        found = reads(leases, number)
        (leases / "000005.json").unlink()
        held_elsewhere(tmp_path, number=7)
        return found

    monkeypatch.setattr(lease_module, "_read", slow)
    with pytest.raises(Superseded), lease(tmp_path):
        pass
