"""Progress of a training, seen from the process that started its workers."""

import contextlib
import threading
from collections.abc import Iterator

from rich.console import Console

from xl import storage
from xl.progress import StageProgress
from xl.train.job import Job
from xl.train.metrics import STORE_SECONDS, read_metrics
from xl.train.packing import num_steps
from xl.train.tokens import read_summary

_INTERVAL_SECONDS = 1.0


@contextlib.contextmanager
def watched(job: Job, console: Console | None) -> Iterator[None]:
    """Show the steps as the workers write them to `metrics.jsonl`."""
    summary, settings = read_summary(job.tokens), job.settings
    if console is None or summary is None:
        yield
        return
    total = num_steps(summary.num_documents, settings.global_batch, settings.epochs, settings.max_steps)
    ended = threading.Event()
    with StageProgress(console, "model", total, "steps") as progress:
        thread = threading.Thread(target=_follow, args=(job, progress, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _follow(job: Job, progress: StageProgress, ended: threading.Event) -> None:
    """Report new steps until the training has ended; those that a checkpoint holds as done before."""
    from xl.train import checkpoint

    newest, before = checkpoint.newest(job.checkpoints), read_metrics(job.metrics)
    shown = checkpoint.read_progress(newest).step if newest else 0
    progress.advance(shown)
    is_last = False
    while not is_last:
        is_last = ended.wait(_INTERVAL_SECONDS if storage.is_local(job.out) else STORE_SECONDS)
        try:
            steps = read_metrics(job.metrics)
        except Exception as error:
            if storage.explained(error) is None:
                raise
            continue  # a moment without the store is the training's to mind
        if steps == before:  # the workers have not come to the first step yet
            continue
        before = []
        num_new = len(steps) - shown  # below 0 when a worker that was started again takes back what no checkpoint holds
        if num_new:
            tokens = sum(step.num_tokens for step in steps[shown:])
            progress.note(f"loss {steps[-1].loss:.3f}" if steps else "")
            progress.advance(num_new, num_steps=num_new, output_tokens=tokens)
        shown = len(steps)
