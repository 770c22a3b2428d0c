"""What several tests use: recipes, runs through the command line, and a look into a run's folder."""

import contextlib
import functools
import io
import itertools
import json
import os
import runpy
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest
import typer
import yaml

from xl import cli
from xl.engines.scripted import POISON
from xl.folder import RunFolder
from xl.store import read_table

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
"""A command line that runs to its end."""

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"

WORDS = (
    *("Wasser", "Brücke", "Garten", "Straße", "Winter", "Morgen", "Berge", "Kirche", "Schule"),
    *("Markt", "Bauer", "Fluss", "Insel", "Zeitung", "Lehrer", "Fenster", "Musik", "Reise"),
)


def german_pages(folder: Path, count: int, first: int = 0, files: int = 1) -> Path:
    """Pages of plausible German sentences, each different; enough of them for a run to last."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        lines = []
        for n in range(first + number, first + count, files):
            a, b, c = (WORDS[(n * k + k) % len(WORDS)] for k in (1, 5, 7))
            text = (
                f"In der Chronik Nummer {n} berichtet der Verfasser ausführlich über {a} und {b} in seiner Heimat. "
                f"Er beschreibt, wie die Menschen dort seit vielen Jahren leben, arbeiten und miteinander feiern. "
                f"Besonders wichtig ist ihm die Geschichte mit dem Wort {c}, die er zum {n}. Mal erzählt. "
                f"Am Ende des Tages kehren alle nach Hause zurück und denken noch lange darüber nach, was der Band {n} bedeutet."
            )
            lines.append(json.dumps({"url": f"https://a.example/{n}", "lang": "de", "text": text}, ensure_ascii=False) + "\n")
        (folder / f"part-{first}-{number}.jsonl").write_text("".join(lines), "utf-8")
    return folder


def poisoned(folder: Path, count: int = 1, poison: str = POISON) -> Path:
    """Put into pages of the folder's first file, spread over it, what ends the process of a scripted engine that reads them."""
    file = min(folder.glob("*.jsonl"))
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    for page in lines[len(lines) // (2 * count) :: len(lines) // count]:
        page["text"] = page["text"].replace(". ", f". Im Anhang steht: {poison}. ", 1)
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    return folder


def recipe(path: Path, pages: Path | dict[str, Any], **changes: Any) -> Path:
    """A recipe with the scripted engine; `changes` replace top-level keys."""
    data: dict[str, Any] = {
        "method": "x_instruction",
        "languages": ["de"],
        "pages": {"from": str(pages), "lang": "lang"} if isinstance(pages, Path) else pages,
        "models": {"writer": {"model": "scripted", "engine": "scripted"}},
        "seed": 7,
    }
    path.write_text(yaml.safe_dump({**data, **changes}), "utf-8")
    return path


def xl(*arguments: str | Path, env: dict[str, str] | None = None, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """The command line, to its end."""
    full = {**os.environ, **(env or {})}
    return subprocess.run(command(*arguments), check=False, capture_output=True, text=True, timeout=timeout, env=full, cwd=ROOT)


def here(
    *arguments: str | Path, main: Callable[[], None] = cli.main, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line in this process, to its end: what it needs has been imported. Its run keeps the Ray that we are connected to."""
    told, complained = io.StringIO(), io.StringIO()
    code: Any = 0
    with mock.patch.dict(os.environ, env or {}), mock.patch.object(sys, "argv", [*map(str, ("xl", *arguments))]), contextlib.chdir(ROOT):
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(complained):
            try:
                main()
            except SystemExit as ended:
                code = ended.code or 0
    return subprocess.CompletedProcess(arguments, code, told.getvalue(), complained.getvalue())


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def job(name: str) -> Callable[[], None]:
    """A script of `jobs/` as a `main` for `here`."""
    commands: typer.Typer = runpy.run_path(str(ROOT / "jobs" / f"{name}.py"))["commands"]
    return functools.partial(cli.guarded, commands)


def command(*arguments: str | Path) -> list[str]:
    """How the command line is called."""
    return [sys.executable, "-m", "xl.cli", *map(str, arguments)]


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """What a command printed; fails with all of its output when it failed."""
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def ledger(run: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The run's ledger, as `xl status --json` prints it."""
    status: dict[str, dict[str, dict[str, Any]]] = json.loads(succeeded(here("status", run, "--json")))
    return status


def rows(run: Path, stage: str) -> list[dict[str, Any]]:
    """All rows of a stage, whatever became of them, without their place in the files."""
    shards = RunFolder(run).store(stage).shards_folder.glob("*.parquet")
    return [row for path in sorted(shards) for row in read_table(path).to_pylist()]


def outcomes(run: Path) -> dict[str, Counter[tuple[str, str]]]:
    """Per stage: how often each (id, status) stands there; every count must be 1."""
    return {stage: Counter((row["id"], row["status"]) for row in rows(run, stage)) for stage in RunFolder(run).info["stages"]}


def assert_balanced(run: Path, stages: list[str]) -> None:
    """Each stage accounts for just the rows that the one before it kept, in every language; no id stands there twice."""
    every = ledger(run)
    for before, after in itertools.pairwise(stages):
        kept = {lang: entry["kept"] for lang, entry in every[before].items() if entry["kept"]}
        arrived = {lang: entry["in"] for lang, entry in every[after].items() if entry["in"]}
        assert kept == arrived, f"{before} → {after}"
    for stage in stages:
        ids = [row["id"] for row in rows(run, stage)]
        assert len(ids) == len(set(ids)), f"{stage} holds an id twice"


def traced(path: Path) -> Counter[str]:
    """Requests that the scripted engine was sent, and how often each."""
    return Counter(path.read_text("ascii").split("\n")[:-1]) if path.exists() else Counter()


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Return as soon as the condition holds; fails when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def wait_until_gone(processes: list[psutil.Process], seconds: float = 120) -> list[psutil.Process]:
    """The processes that are still alive after so long."""
    end = time.monotonic() + seconds
    alive = processes
    while alive and time.monotonic() < end:
        alive = [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        time.sleep(0.2)
    return alive


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """The folder as a disk of its own, of such a `size` as "16m"."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "xl-test", str(folder)], check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs the rights of an administrator")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def on_a_disk_of_its_own(folder: Path, command: list[str]) -> list[str]:
    """A command to which the folder is a disk that no other process sees."""
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("a disk that others do not see needs the rights of an administrator")
    return ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs xl-test "$0" && exec "$@"', str(folder), *command]


def fill(disk: Path) -> Path:
    """Leave no byte free; returns the file that takes them all."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return filler
