"""Progress on the terminal: rows of a stage or steps of a training, rates and time left. A bar for a person, lines for a log."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

LOG_INTERVAL_SECONDS = 10.0
WAITING_INTERVAL_SECONDS = 60.0
NEARLY_DONE_SECONDS = 600.0
"""What is left of a stage that is nearly done: a node boots in this time, and an engine on it loads its model."""


def left(seconds: float) -> str:
    """A duration as a person says it: `8 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@contextlib.contextmanager
def waiting(console: Console, what: str | Callable[[], str]) -> Iterator[None]:
    """Tell what is waited for: a person by a spinner, a log by a line after ten seconds and one each minute.

    What changes meanwhile is told by a function, which another thread calls.
    """
    say = what if callable(what) else lambda: what
    done, began = threading.Event(), time.monotonic()

    def tell() -> None:
        pause = LOG_INTERVAL_SECONDS
        while not done.wait(pause):
            if status is not None:
                status.update(say())
            else:
                console.print(f"{say()}, for {left(time.monotonic() - began)} now", highlight=False, markup=False)
                pause = WAITING_INTERVAL_SECONDS

    with console.status(say()) if console.is_terminal else contextlib.nullcontext() as status:
        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            done.set()
            teller.join()


class _Rates(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields.get("rates", ""), style="cyan")


class StageProgress:
    """One stage's progress. Use as a context manager; call `advance` as rows are committed.

    `nearly_done` is called once, when the rest seems to take less than `NEARLY_DONE_SECONDS`.
    """

    def __init__(
        self, console: Console, name: str, num_rows: int, unit: str = "rows", nearly_done: Callable[[], None] | None = None
    ) -> None:
        self._console, self._name, self._num_rows, self._unit = console, name, num_rows, unit
        self._nearly_done = nearly_done
        self._num_done = self._num_new = self._num_tokens = 0
        self._outcomes = {"kept": 0, "dropped": 0, "failed": 0}
        self._note = ""
        self._started = self._logged = time.monotonic()
        self._over, self._reminder = threading.Event(), threading.Thread(target=self._remind, daemon=True)
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                _Rates(),
            )
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task(name, total=num_rows)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        else:
            self._console.print(f"{self._name}: {self._num_rows:,} {self._unit}", highlight=False)
            self._reminder.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        if self._reminder.is_alive():
            self._reminder.join()
        if self._bar:
            self._bar.stop()
        if kind is None:
            self._console.print(f"{self._name}: {self._line()} in {left(time.monotonic() - self._started)}", highlight=False)

    def note(self, text: str) -> None:
        """Let a text stand behind the rates, until the next one."""
        self._note = text

    def advance(self, num_rows: int, kept: int = 0, dropped: int = 0, failed: int = 0, output_tokens: int = 0, num_steps: int = 0) -> None:
        """Count committed rows, or steps of a training. Rows of an earlier attempt have no outcome here and do not count as speed."""
        self._num_done += num_rows
        self._num_new += kept + dropped + failed + num_steps
        self._num_tokens += output_tokens
        for outcome, count in (("kept", kept), ("dropped", dropped), ("failed", failed)):
            self._outcomes[outcome] += count
        now = time.monotonic()
        rest = self._seconds_left(now)
        if self._nearly_done and rest is not None and rest < NEARLY_DONE_SECONDS:
            tell, self._nearly_done = self._nearly_done, None
            tell()
        if self._bar:
            self._bar.update(self._task, completed=self._num_done, rates=self._rates(now))
        elif now - self._logged >= LOG_INTERVAL_SECONDS:
            self._log(now)

    def _log(self, now: float) -> None:
        self._logged = now
        self._console.print(f"{self._name}: {self._line()}; {self._rates(now)}", highlight=False)
        sys.stdout.flush()

    def _remind(self) -> None:
        """Leave a line each minute also while no row is finished: those under way may take long."""
        while not self._over.wait(LOG_INTERVAL_SECONDS):
            now = time.monotonic()
            if now - self._logged >= WAITING_INTERVAL_SECONDS:
                self._log(now)

    def _line(self) -> str:
        parts = [f"{count:,} {outcome}" for outcome, count in self._outcomes.items() if count]
        earlier = self._num_done - self._num_new
        if earlier:
            parts.append(f"{earlier:,} from before")
        return f"{self._num_done:,}/{self._num_rows:,} {self._unit}" + (f" ({', '.join(parts)})" if parts else "")

    def _seconds_left(self, now: float) -> float | None:
        """By the speed up to now; None before the first row."""
        return (self._num_rows - self._num_done) * (now - self._started) / self._num_new if self._num_new else None

    def _rates(self, now: float) -> str:
        seconds = max(1e-6, now - self._started)
        rate = self._num_new / seconds
        tokens = f", {self._num_tokens / seconds:,.0f} tokens/s" if self._num_tokens else ""
        remaining = self._seconds_left(now)
        rest = f", for {left(seconds)} now" if remaining is None else f", {left(remaining)} left"
        return ", ".join(filter(None, (f"{rate:,.1f} {self._unit}/s{tokens}{rest}", self._note)))
