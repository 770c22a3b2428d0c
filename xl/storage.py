"""Where runs are: in a folder of a file system, or under a name in an object store, such as s3://bucket/runs/first.

Both are paths that are asked and read alike: `pathlib`'s there, `universal_pathlib`'s here. What differs is in this module. An object
appears whole or not at all, so nothing is written beside it and renamed; but a folder of objects is not put in place in one step,
nothing is appended to an object or mapped into memory, and libraries that load weights want files.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any, cast

from xl.errors import Unavailable, UserError

STORES = ("s3", "gs")
"""Object stores that make an object only where there is none if they are asked to, which is what keeps two drivers apart."""

_LIBRARIES = ("aiobotocore", "aiohttp", "botocore", "gcsfs", "google")
"""What may fail between us and a store, with errors of its own."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+")


def place(text: str | Path) -> Path:
    """A file or folder by its path or its URL.

    Raises:
        UserError: it is in a store that runs cannot be in, or whose library is not installed.
    """
    url = _URL.match(str(text))
    if url is None:
        return Path(text)
    if url[1] not in STORES:
        known = " and ".join(f"{name}://" for name in STORES)
        raise UserError(f"{text}: runs and models are in folders or in {known}; mount a store of another kind, and give the folder")
    from upath import UPath

    try:
        # What other machines write is to be seen at once, so no listing is remembered.
        found = UPath(f"{url[1]}://{str(text)[url.end() :]}", use_listings_cache=False)
        found.fs  # noqa: B018 (the library is looked for here)
    except (ImportError, ValueError) as error:
        raise UserError(f"{text}: {error}") from None
    return cast(Path, found)


def is_url(text: str) -> bool:
    """Whether the text names something in a store, of whatever kind."""
    return _URL.match(text) is not None


def local_place(text: str) -> Path:
    """A folder of a file system, for what is not kept in stores. Raises UserError for a URL."""
    if is_url(text):
        raise UserError(f"{text}: a folder is wanted; this is kept in no object store")
    return Path(text)


def is_local(path: Path) -> bool:
    """Whether the path is one of a file system."""
    return isinstance(path, PurePath)


def _in_store(path: Path) -> tuple[Any, str]:
    """The store that an object is in, by fsspec, and the object's name there."""
    remote: Any = path
    return remote.fs, remote.path


def explained(error: BaseException) -> UserError | None:
    """What a store's library complains of, here or in a Ray task: the machine's rights, or a store that is away. None for other errors."""
    error = getattr(error, "cause", None) or error
    if type(error).__module__.split(".")[0] not in _LIBRARIES:
        return None
    told = f"object store: {' '.join(str(error).split()) or type(error).__name__}"
    if "Credentials" in type(error).__name__:
        return UserError(f"{told}; give this machine rights to the bucket: a role, a service account, or keys in its environment")
    return Unavailable(f"{told}; the same command goes on from here")


def for_arrow(path: Path) -> tuple[str, Any]:
    """A path and its file system as Arrow's functions take them."""
    if is_local(path):
        return str(path), None
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    store, name = _in_store(path)
    return name, PyFileSystem(FSSpecHandler(store))


def create(path: Path, text: str) -> None:
    """Make a file that is not there yet; of several who try, one succeeds. Raises FileExistsError."""
    if is_local(path):
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    else:
        store, name = _in_store(path)
        store.pipe_file(name, text.encode(), mode="create")


def put(file: Path, path: Path) -> None:
    """Copy a local file to an object, in one step."""
    store, name = _in_store(path)
    store.put_file(str(file), name)


def make_folder(folder: Path) -> None:
    """Make a folder where there is none; object stores know none."""
    if is_local(folder):
        folder.mkdir(parents=True, exist_ok=True)


def remove(folder: Path) -> None:
    """Delete a folder with all that is in it, or what is left of it."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    store, name = _in_store(folder)
    with contextlib.suppress(FileNotFoundError):
        store.rm(name, recursive=True)


def names_in(folder: Path) -> list[str]:
    """The names of what a folder holds, sorted."""
    if is_local(folder):
        return sorted(path.name for path in folder.iterdir())
    store, name = _in_store(folder)
    try:
        found = store.ls(name, detail=False)
    except FileNotFoundError:
        if not store.exists(name.split("/")[0]):
            raise
        return []
    return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in found)


def free_bytes(folder: Path) -> int:
    """Free space where a folder is; object stores have no end."""
    return shutil.disk_usage(folder).free if is_local(folder) else sys.maxsize


@contextlib.contextmanager
def replaced(folder: Path, last: str, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A local folder to write into, put in the folder's place when the block ends well.

    Args:
        folder: what is to be replaced, if it is there.
        last: the file by which others know that the folder is whole. In a file system all files appear by one rename; in a store this one
            goes first and comes last.
        check: raises where the folder is no longer ours to replace.
    """
    if is_local(folder):
        aside = folder.with_name(f".{folder.name}.tmp")
        remove(aside)
        aside.mkdir(parents=True)
        yield aside
        check()
        remove(folder)
        aside.rename(folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        aside = Path(temporary)
        yield aside
        check()
        (folder / last).unlink(missing_ok=True)
        remove(folder)
        upload(aside, folder, last)


def upload(files: Path, folder: Path, last: str | None = None) -> None:
    """Copy a local folder into a store; the file of that name when all others are there."""
    store, name = _in_store(folder)
    names = sorted(path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_file())
    first = [each for each in names if each != last]
    store.put([str(files / each) for each in first], [f"{name}/{each}" for each in first])
    if last is not None:
        store.put_file(str(files / last), f"{name}/{last}")


def cache_folder() -> Path:
    """Where this machine keeps what it would have to make again: $XL_CACHE, or `xl` in the user's cache folder."""
    return Path(os.environ.get("XL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xl")


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Keep other processes of this machine out while something is made at this path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def local_copy(folder: Path) -> Path:
    """The folder as files of this machine: itself, or the copy of one in a store, made when it is first wanted and whenever it has changed.

    Raises:
        UserError: there is nothing.
    """
    if is_local(folder):
        return folder
    store, name = _in_store(folder)
    found = store.find(name, detail=True)
    if not found:
        raise UserError(f"{folder}: nothing is there")
    state = hashlib.blake2b(repr(sorted((key, sorted(map(str, info.items()))) for key, info in found.items())).encode(), digest_size=16)
    copy = cache_folder() / "copies" / state.hexdigest()
    with one_at_a_time(copy):
        if not copy.exists():
            aside = copy.with_suffix(".tmp")
            remove(aside)
            targets = [aside / key.removeprefix(f"{name}/") for key in found]
            for target in targets:
                target.parent.mkdir(parents=True, exist_ok=True)
            store.get(list(found), [str(target) for target in targets])
            aside.rename(copy)
    return copy
