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

import pyarrow as pa

from xl.errors import Unavailable, UserError

STORES = ("s3", "gs")
"""Object stores that make an object only where there is none if they are asked to, which is what keeps two drivers apart."""

_LIBRARIES = ("aiobotocore", "aiohttp", "botocore", "gcsfs", "google")
"""What may fail between us and a store, with errors of its own."""

_NAMES_PER_REQUEST, _FILES_AT_ONCE = 1_000, 4
"""Objects that S3 deletes at one request; files that are copied side by side, each with buffers of its own."""

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
    """What a store's library complains of, here or in a Ray task: the machine's rights, or a store that is away. None for other errors.

    The libraries turn many of their errors into those of an operating system.
    """
    error = getattr(error, "cause", None) or error
    kinds = {type(each).__module__.split(".")[0] for each in (error, error.__cause__)}
    is_refused = isinstance(error, PermissionError) or str(error).startswith("Forbidden") or "Credentials" in type(error).__name__
    is_of_store = not kinds.isdisjoint(_LIBRARIES) or (isinstance(error, OSError) and error.errno is None and is_refused)
    if isinstance(error, FileNotFoundError) or not is_of_store:
        return None
    words = str(getattr(error, "strerror", None) or error).split()
    told = f"object store: {' '.join(words) or type(error).__name__}"
    if is_refused:
        return UserError(f"{told}; give this machine rights to the bucket: a role, a service account, or keys in its environment")
    return Unavailable(f"{told}; the same command goes on from here")


def for_arrow(path: Path) -> tuple[str, Any]:
    """A path and its file system as Arrow's functions take them."""
    if is_local(path):
        return str(path), None
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    store, name = _in_store(path)
    return name, PyFileSystem(FSSpecHandler(store))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file for Arrow to read from. Raises FileNotFoundError where there is none, and another error where a store does not say so."""
    if is_local(path):
        with pa.OSFile(str(path), "rb") as file:
            yield file
    else:
        store, name = _in_store(path)
        with store.open(name, "rb") as file:
            yield file


def read_part(path: Path, start: int, end: int) -> bytes:
    """The bytes of a file from one place up to another."""
    if is_local(path):
        with path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)
    store, name = _in_store(path)
    part: bytes = store.cat_file(name, start=start, end=end)
    return part


def is_link(path: Path) -> bool:
    """Whether the path is a symbolic link; stores have none."""
    return is_local(path) and path.is_symlink()


def create(path: Path, text: str) -> None:
    """Make a file that is not there yet; of several who try, one succeeds. Raises FileExistsError."""
    if is_local(path):
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    else:
        store, name = _in_store(path)
        store.pipe_file(name, text.encode(), mode="create")


def unchecked() -> None:
    """A check that never objects."""


def put(file: Path, path: Path, check: Callable[[], None] = unchecked) -> None:
    """Copy a local file to an object, in one step, as long as `check` does not raise.

    A request that is tried again and again may land minutes later. So what others have put there meanwhile is not replaced before another
    check.
    """
    store, name = _in_store(path)
    check()
    try:
        store.put_file(str(file), name, mode="create")
    except FileExistsError:
        check()
        store.put_file(str(file), name)


def make_folder(folder: Path) -> None:
    """Make a folder where there is none. Stores know none, but their bucket must be there. Raises OSError."""
    if is_local(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return
    store, name = _in_store(folder)
    bucket = name.split("/")[0]
    if not store.exists(bucket):  # or whether it is may not be asked; what it holds may be
        store.ls(bucket)


def remove(folder: Path) -> None:
    """Delete a folder with all that is in it, as far as that can be."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    store, name = _in_store(folder)
    with contextlib.suppress(FileNotFoundError):
        store.rm(name, recursive=True)


def delete(folder: Path, check: Callable[[], None] = unchecked) -> None:
    """`remove` what would be wrong if anything of it stayed. In a store, where that takes its time, `check` is asked before each request.

    Raises:
        UserError: something of it stays.
    """
    if is_local(folder):
        remove(folder)
        stays = folder.exists()
    else:
        store, name = _in_store(folder)
        names = store.find(name)
        for start in range(0, len(names), _NAMES_PER_REQUEST):
            check()
            store.rm(names[start : start + _NAMES_PER_REQUEST])
        stays = bool(store.find(name))
    if stays:
        raise UserError(f"{folder}: it cannot be deleted; this machine wants the right to")


def delete_file(path: Path) -> None:
    """Delete a file, if it is there. Raises OSError."""
    if is_local(path):
        path.unlink(missing_ok=True)
        return
    store, name = _in_store(path)
    with contextlib.suppress(FileNotFoundError):
        store.rm_file(name)


def names_in(folder: Path) -> list[str]:
    """The names of what a folder holds, sorted; none where it is not there."""
    if is_local(folder):
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    store, name = _in_store(folder)
    try:
        found = store.ls(name, detail=False)
    except FileNotFoundError:
        return []
    return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in found)


def free_bytes(folder: Path) -> int:
    """Free space where a folder is; object stores have no end."""
    return shutil.disk_usage(folder).free if is_local(folder) else sys.maxsize


@contextlib.contextmanager
def replaced(folder: Path, last: str, check: Callable[[], None] = unchecked) -> Iterator[Path]:
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
        delete_file(folder / last)
        delete(folder, check)
        upload(aside, folder, last)


def upload(files: Path, folder: Path, last: str | None = None) -> None:
    """Copy a local folder into a store; the file of that name when all others are there."""
    store, name = _in_store(folder)
    names = sorted(path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_file())
    first = [each for each in names if each != last]
    store.put([str(files / each) for each in first], [f"{name}/{each}" for each in first], batch_size=_FILES_AT_ONCE)
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

    A copy stays until there is a newer one.

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
    place_of = hashlib.blake2b(str(folder).encode(), digest_size=16).hexdigest()
    copy = cache_folder() / "copies" / place_of / state.hexdigest()
    with one_at_a_time(copy.parent):
        if not copy.exists():
            remove(copy.parent)
            aside = copy.with_suffix(".tmp")
            targets = [aside / key.removeprefix(f"{name}/") for key in found]
            for target in targets:
                target.parent.mkdir(parents=True, exist_ok=True)
            store.get(list(found), [str(target) for target in targets], batch_size=_FILES_AT_ONCE)
            aside.rename(copy)
    return copy
