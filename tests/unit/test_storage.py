"""What a folder and an object store have in common, as runs use them."""

import contextlib
import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs
from botocore.exceptions import ClientError

from tests.object_store import KEYS, google_store, object_store
from tests.support import here
from xl import storage
from xl.errors import UserError
from xl.folder import RunFolder, claim, contents, discard
from xl.lease import Superseded, lease
from xl.storage import is_local, local_copy, place, replaced


@pytest.fixture(params=["folder", "S3", "Google's"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A place for runs that is empty."""
    bucket = {"folder": contextlib.nullcontext, "S3": object_store, "Google's": google_store}[request.param]
    with bucket() as url:
        yield place(url) / "runs" if url else tmp_path / "runs"


class Killed(BaseException):
    """Stands for SIGKILL."""


def written(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_urls_are_told_from_paths() -> None:
    assert place("runs/first") == Path("runs/first") and is_local(place("runs/a:b"))
    with pytest.raises(UserError, match=r"https://a\.example/x: runs and models are in folders or in s3:// and gs://; mount"):
        place("https://a.example/x")


def test_a_run_can_be_where_nothing_is_and_nowhere_else(root: Path) -> None:
    run = claim(root / "first")
    assert contents(run.root) == []
    run.write_info({"name": "first"})
    assert claim(root / "first").info == {"name": "first"}
    (root / "second" / "notes.txt").parent.mkdir(parents=True, exist_ok=True)
    (root / "second" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"second holds other files \(notes.txt\) and no run"):
        claim(root / "second")


def test_a_bucket_that_is_missing_is_named(bucket: str) -> None:
    with pytest.raises(UserError, match="--out s3://of-nobody/run: The specified bucket does not exist"):
        claim(place("s3://of-nobody/run"))


def test_a_folder_is_replaced_whole(root: Path) -> None:
    for text in ("old", "new"):
        with replaced(root / "dataset", last="README.md") as aside:
            (aside / "README.md").write_text(text)
            (aside / f"{text}.txt").write_text(text)
    assert written(root / "dataset") == {"README.md": "new", "new.txt": "new"}
    with pytest.raises(Superseded), replaced(root / "dataset", last="README.md", check=_superseded) as aside:
        (aside / "README.md").write_text("an orphan's")
    assert written(root / "dataset") == {"README.md": "new", "new.txt": "new"}


def _superseded() -> None:
    raise Superseded("another run has taken over")


def test_a_store_that_is_gone_in_the_midst_of_writing_leaves_no_folder_that_looks_whole(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place(bucket) / "dataset"

    def write(text: str) -> None:
        with replaced(folder, last="README.md") as aside:
            for name in ("README.md", "a.txt", "z.txt"):
                (aside / name).write_text(text)

    store: Any = type(folder.fs)  # type: ignore[attr-defined]
    request = store._call_s3
    for number in range(100):
        write("old")
        count = itertools.count()

        async def call(*arguments: Any, count: Iterator[int] = count, last: int = number, **options: Any) -> Any:
            if next(count) >= last:
                raise OSError("the store is gone")
            return await request(*arguments, **options)

        with monkeypatch.context() as patch, contextlib.suppress(OSError):
            patch.setattr(store, "_call_s3", call)
            write("new")
            break
        found = written(folder) if folder.exists() else {}
        assert "README.md" not in found or found == dict.fromkeys(("README.md", "a.txt", "z.txt"), "old"), number
    assert 5 < number < 100 and written(folder) == dict.fromkeys(("README.md", "a.txt", "z.txt"), "new")


def test_what_was_to_be_deleted_from_a_store_when_a_kill_came_is_nobodys(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(place(bucket) / "run")
    for name in ("stages/pages/stage.json", "stages/pages/shards/a", "stages/pairs/stage.json"):
        (run.root / name).write_text("{}")

    def dies(folder: Path, _: Any) -> None:
        (folder / "stage.json").unlink()
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(storage, "delete", dies)
        discard(run, [run.root / "stages" / "pages"])
    discard(run, ())
    assert storage.names_in(run.root / "stages") == ["pairs"] and contents(run.root) == ["stages"]


def test_what_a_store_does_not_delete_is_told_and_stays_to_be_deleted(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(place(bucket) / "run")
    run.write_stage_info("pages", {"fingerprint": "old"})
    store: Any = run.root.fs  # type: ignore[attr-defined]
    with monkeypatch.context() as patch, pytest.raises(UserError, match="stages/pages: it cannot be deleted"):
        patch.setattr(store, "rm", lambda *_: None)  # so it answers where this machine has not the right to
        discard(run, [run.root / "stages" / "pages"])
    assert contents(run.root) == ["discarded.json", "stages"]
    discard(run, ())
    assert contents(run.root) == []


@pytest.mark.parametrize(
    ("code", "exit_code", "told"),
    [("AccessDenied", 2, "no; give this machine rights to the bucket"), ("SlowDown", 75, "no; the same command goes on from here")],
)
def test_a_store_that_does_not_answer_is_not_taken_for_one_that_holds_nothing(
    bucket: str, monkeypatch: pytest.MonkeyPatch, code: str, exit_code: int, told: str
) -> None:
    run = claim(place(bucket) / "run")
    run.write_info({"stages": []})
    with lease(run.root) as fence, monkeypatch.context() as patch:

        async def refuse(*_: Any, **__: Any) -> None:
            raise s3fs.errors.translate_boto_error(ClientError({"Error": {"Code": code, "Message": "no"}}, "Any"))

        patch.setattr(s3fs.S3FileSystem, "_call_s3", refuse)
        for question in (fence.check, lambda: run.store("pages").sealed("a"), lambda: run.info, lambda: storage.names_in(run.root)):
            with pytest.raises(OSError, match="no"):
                question()
        done = here("status", run.root)
        assert done.returncode == exit_code and done.stderr.startswith(f"xl: object store: {told}")


def test_of_two_drivers_one_holds_a_run_and_a_dead_ones_orphans_commit_nothing(root: Path) -> None:
    run = claim(root)
    with lease(root) as fence, pytest.raises(UserError, match="another run is at work there"), lease(root):
        pass
    with pytest.raises(Superseded), lease(root) as fence:
        assert fence.number == 2
        run.write_info({"by": "the holder"})
        (run.root / "lease" / "000003.json").write_text(json.dumps({"machine": "another", "beat": 0}))
        run.write_info({"by": "an orphan"})
    assert run.info == {"by": "the holder"}


def test_a_holder_elsewhere_that_is_silent_is_replaced(root: Path) -> None:
    run = claim(root)
    file = run.root / "lease" / "000001.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"machine": "another", "host": "elsewhere", "pid": 7, "beat": 0}))
    with lease(root, seconds=0.6) as fence:
        assert fence.number == 2
    assert [path.name for path in (root / "lease").iterdir()] == ["000002.json"]


def test_a_store_without_conditional_writes_is_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = claim(place(bucket) / "run").root
    store: Any = root.fs  # type: ignore[attr-defined]
    pipe = store.pipe_file
    monkeypatch.setattr(store, "pipe_file", lambda path, data, mode: pipe(path, data))
    with pytest.raises(UserError, match="knows no conditional writes"), lease(root):
        pass


def test_a_copy_on_this_machine_is_made_once_and_again_when_the_store_has_something_else(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XL_CACHE", str(tmp_path))
    model = place(bucket) / "model"
    with pytest.raises(UserError, match=r"s3://.*/model: nothing is there"):
        local_copy(model)
    (model / "config.json").write_text("1")
    (model / "deeper" / "weights").write_text("1")
    first = local_copy(model)
    assert (first / "config.json").read_text() == (first / "deeper" / "weights").read_text() == "1"
    assert local_copy(model) == first and local_copy(first) == first
    (model / "config.json").write_text("22")
    assert local_copy(model) != first and (local_copy(model) / "config.json").read_text() == "22"


@pytest.mark.parametrize(
    ("environment", "code", "told"),
    [
        ({"AWS_CONFIG_FILE": "", "AWS_EC2_METADATA_DISABLED": "true"}, 2, r"Unable to locate credentials; give this machine rights"),
        ({**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, 75, r"Could not connect .*; the same command goes on from here"),
    ],
)
def test_a_store_that_does_not_let_us_in_or_is_away_is_one_line(
    environment: dict[str, str], code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    done = here("status", "s3://bucket/run", env=environment)
    assert done.returncode == code and re.fullmatch(f"xl: object store: {told}.*\n", done.stderr)
