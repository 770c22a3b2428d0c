"""Who may write to a folder: one driver at a time, on whichever machine of a cluster.

A lease is a numbered file in FOLDER/lease, and making the next number takes the folder over: of several who try, a file system lets one
succeed, NFS too, and so does an object store that is asked for a new object only. Whoever holds it changes its file every few seconds. A
holder whose file stays as it is for `LEASE_SECONDS`, by the clock of the one who waits, is taken for dead; clocks of different machines
are never compared. What a dead driver leaves at work on a cluster carries its number, and commits nothing once there is a higher one.
"""

import contextlib
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xl import storage
from xl.errors import UserError

LEASE_SECONDS = 30.0
"""How long a holder must have been silent before another driver takes over. Storage that shows a change later than this is not shared."""

BEATS_PER_LEASE = 6

_held: dict[Path, "Fence"] = {}
"""What this process holds, by folder."""


class Superseded(UserError):
    """Another driver has taken the folder over; what this one had under way is not committed."""


@dataclass(frozen=True)
class Fence:
    """The number under which a driver's workers may commit. It travels to them."""

    leases: Path
    number: int

    def check(self) -> None:
        """Raise Superseded if another driver holds the folder by now, or nobody does any more."""
        if newest(self.leases) != self.number:
            raise Superseded(f"--out {self.leases.parent}: another run has taken over there; this one stops, and what it committed stays")


def fence_for(folder: Path) -> Fence | None:
    """The fence of a folder that this process holds, or that is inside one; None where nobody asked for it."""
    return next((_held[place] for place in (folder.resolve(), *folder.resolve().parents) if place in _held), None)


def check_for(folder: Path) -> Callable[[], None]:
    """What raises Superseded where a folder is no longer this process's, and never where nobody asked for that."""
    fence = fence_for(folder)
    return fence.check if fence is not None else storage.unchecked


def newest(leases: Path) -> int:
    """The highest number there is; 0 where nobody has ever held the folder."""
    return max((int(name.removesuffix(".json")) for name in storage.names_in(leases) if name.endswith(".json")), default=0)


@contextlib.contextmanager
def lease(folder: Path, seconds: float = LEASE_SECONDS) -> Iterator[Fence]:
    """Hold a folder. Where its holder is silent, wait until it may be taken for dead.

    Raises:
        UserError: somebody else is at work there.
        Superseded: somebody else took over while this process could not say that it lives, because it stood still, say.
    """
    leases = folder.resolve() / "lease"
    storage.make_folder(leases)
    fence = _take(leases, seconds)
    _held[leases.parent] = fence
    over = threading.Event()
    # A signal of our own: SIGINT is ignored in what a script starts in the background, and Ray Train takes it over.
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGUSR2, lambda *_: fence.check()) if is_main else None
    beating = threading.Thread(target=_beat, args=(fence, seconds / BEATS_PER_LEASE, over, is_main), daemon=True)
    beating.start()
    try:
        yield fence
        fence.check()
    finally:
        over.set()
        beating.join()
        if is_main:
            signal.signal(signal.SIGUSR2, before)
        del _held[leases.parent]
        with contextlib.suppress(Exception):
            fence.check()
            _write(fence, {"released": True})


def _take(leases: Path, seconds: float) -> Fence:
    last = newest(leases)
    if last and not _is_gone(before := _read(leases, last), leases):
        _wait_for_silence(leases, last, before, seconds)
    fence, mine = Fence(leases, last + 1), json.dumps({**_myself(0), "token": uuid.uuid4().hex})
    try:
        storage.create(_path(fence), mine)
    except FileExistsError:
        if _path(fence).read_text("utf-8") != mine:  # else it was made at a request whose answer got lost
            raise UserError(f"--out {leases.parent}: another run has just begun there; wait for it or end it") from None
    _check_store(fence)
    fence.check()  # whoever was slow to get here has a number that others have left behind
    for number in range(1, last + 1):
        (leases / f"{number:06d}.json").unlink(missing_ok=True)
    return fence


def _check_store(fence: Fence) -> None:
    """Raise UserError for a store that makes an object anew where there is one: it would let two drivers have the same number."""
    with contextlib.suppress(FileExistsError):
        storage.create(_path(fence), json.dumps(_myself(0)))
        raise UserError(f"--out {fence.leases.parent}: the store knows no conditional writes (If-None-Match), which keep two runs apart")


def _wait_for_silence(leases: Path, number: int, before: Mapping[str, Any], seconds: float) -> None:
    """Return when a holder on another machine has been silent for long enough. Raises UserError as soon as it says something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(seconds / BEATS_PER_LEASE / 2)
        now = _read(leases, number)
        if now.get("released"):
            return
        if now != before:
            raise _at_work(now, leases)


def _is_gone(holder: Mapping[str, Any], leases: Path) -> bool:
    """Whether a holder is known to be gone: it said so, or it was a process of this machine that ended.

    Raises:
        UserError: it is a process of this machine, and lives.
    """
    import psutil

    if holder.get("released"):
        return True
    if holder.get("machine") != _machine():
        return False
    try:
        process = psutil.Process(holder["pid"])
        if process.create_time() != holder["born"] or process.status() == psutil.STATUS_ZOMBIE:
            return True
    except psutil.NoSuchProcess:
        return True
    raise _at_work(holder, leases)


def _at_work(holder: Mapping[str, Any], leases: Path) -> UserError:
    who = f"process {holder.get('pid', 'unknown')} on {holder.get('host', 'another machine')}"
    return UserError(f"--out {leases.parent}: another run is at work there ({who}); wait for it or end it")


def _beat(fence: Fence, every_seconds: float, over: threading.Event, may_interrupt: bool) -> None:
    """Say that the holder lives, until it is over; interrupt it when somebody else has taken the folder."""
    count = 0
    while not over.wait(every_seconds):
        count += 1
        # A moment without storage, of whose errors each store has its own, is no reason to stop: who takes over in it is seen afterwards.
        with contextlib.suppress(Exception):
            if (last := newest(fence.leases)) > fence.number:
                if not may_interrupt:
                    return
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)
                if over.wait(BEATS_PER_LEASE * every_seconds):  # time to end what has begun, before the next interruption
                    return
            elif last == fence.number:
                _write(fence, _myself(count))


def _myself(beat: int) -> dict[str, Any]:
    import psutil

    who = {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine(), "born": psutil.Process().create_time()}
    return {**who, "beat": beat}


def _machine() -> str:
    """What decides whether a process can be looked up by its number: the machine since it was started, and the container."""
    boot, container = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return f"{boot.read_text().strip()} {container.readlink()}" if boot.exists() else socket.gethostname()


def _path(fence: Fence) -> Path:
    return fence.leases / f"{fence.number:06d}.json"


def _write(fence: Fence, content: Mapping[str, Any]) -> None:
    """Change the file in its place: of a file that is replaced, NFS clients may see the old one for a minute. It must not come back."""
    if not storage.is_local(fence.leases):
        _path(fence).write_text(json.dumps(content), "utf-8")
        return
    with open(_path(fence), "r+", encoding="utf-8") as file:
        file.write(json.dumps(content))
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _read(leases: Path, number: int) -> dict[str, Any]:
    """What a holder last said; what it is just saying may be cut, which is a change as well."""
    text = ""
    try:
        text = (leases / f"{number:06d}.json").read_text("utf-8")
        content = json.loads(text)
    except FileNotFoundError:
        return {"released": True}
    except json.JSONDecodeError:
        return {"cut": text}
    return content if isinstance(content, dict) else {"cut": text}
