"""What a finished run measured: rows, tokens and seconds, stage by stage and shard by shard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xl.errors import UserError, require
from xl.evaluate.intervals import proportion_interval
from xl.folder import RunFolder, open_finished_run
from xl.pages.read import SourceFile
from xl.storage import opened
from xl.store import SealedShard, read_json
from xl.train.metrics import METRICS, read_metrics
from xl.train.tokens import read_summary

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Figure:
    """An estimate with its 95 % interval, and how much it is made of. Without an interval nothing is known of its spread."""

    value: float
    low: float | None = None
    high: float | None = None
    num_rows: int = 0
    """Rows of the calibration; 0 for what is given, not estimated."""
    num_shards: int = 0

    def times(self, other: "Figure | float") -> "Figure":
        """The product; of two intervals the widest that they allow. It is made of the fewer rows."""
        if not isinstance(other, Figure):
            return self.times(given(other))
        low = self.low * other.low if self.low is not None and other.low is not None else None
        high = self.high * other.high if self.high is not None and other.high is not None else None
        num_rows, num_shards = (
            min((count for count in counts if count), default=0)
            for counts in ((self.num_rows, other.num_rows), (self.num_shards, other.num_shards))
        )
        return Figure(self.value * other.value, low, high, num_rows, num_shards)


def given(value: float) -> Figure:
    """A number that is not estimated."""
    return Figure(value, value, value)


@dataclass(frozen=True)
class StageRecord:
    """One stage of the calibration; sequences have an entry for each shard."""

    name: str
    num_in: Counts
    num_kept: Counts
    tokens: Mapping[str, tuple[Counts, Counts]]
    """Prompt and output tokens by ask."""
    seconds: float
    """Wall time of its pass, the first engine's start left out; 0 for a stage that is not the first of its pass."""
    num_cpus: float | None
    """CPUs for work without an engine, at the end of the pass."""
    num_engines: int | None


@dataclass(frozen=True)
class TrainingRecord:
    """The calibration's training."""

    tokens_per_row: float
    """Of the dataset's rows, those that were too odd to learn from included."""
    tokens_per_second: Figure
    """Of all workers together: the median of the steps, and between which values 95 % of them are."""
    num_rows: int
    num_steps: int
    num_workers: int
    gpus_per_worker: int


@dataclass(frozen=True)
class Calibration:
    """A finished run, read."""

    run: RunFolder
    recipe: Mapping[str, Any]
    models: Mapping[str, Any]
    stages: Mapping[str, StageRecord]
    num_pages: Counts
    """Rows that came into the first stage, by shard."""
    num_read: Mapping[str, int]
    """Records in its input by language; empty where the input is no pages."""
    bytes_per_record: Figure | None
    num_attempts: int
    training: TrainingRecord | None


def read_calibration(root: Path, stages: Sequence[str]) -> Calibration:
    """Read a finished run that has these stages.

    Raises:
        UserError: it is not finished, or lacks a stage.
    """
    run = open_finished_run(root)
    info = run.info
    if missing := [name for name in stages if name not in info["stages"]]:
        raise UserError(
            f"--calibration {root}: it has no stage {', '.join(missing)}, but {', '.join(info['stages'])}: take a run of this method"
        )
    manifest = read_json(run.manifest / "manifest.json") or {}
    names = [shard["name"] for entry in manifest.get("shards", []) for shard in entry]
    records = {name: _stage(run, name, names) for name in stages}
    num_pages = records[stages[0]].num_in
    if not num_pages.sum():
        raise UserError(f"--calibration {root}: no row came into its stage {stages[0]}: there is nothing to go by")
    return Calibration(
        run,
        info["recipe"],
        info["models"],
        records,
        num_pages,
        manifest.get("num_read", {}),
        _bytes_per_record(run, manifest),
        info.get("attempts", 1),
        read_training(run, info["recipe"]),
    )


def _stage(run: RunFolder, name: str, names: list[str]) -> StageRecord:
    store = run.store(name)
    sealed = [store.sealed(shard) for shard in names]
    shards = [shard for shard in sealed if shard is not None]
    if len(shards) < len(names):
        raise UserError(f"--calibration {run.root}: {len(names) - len(shards)} shards of its stage {name} are missing; run it again")
    asks = sorted({ask for shard in shards for ask in shard.usage})
    tokens = {ask: (_usage(shards, ask, 0), _usage(shards, ask, 1)) for ask in asks}
    num_in = np.array([sum(entry.num_in for entry in shard.ledger.values()) for shard in shards], dtype=np.int64)
    num_kept = np.array([sum(entry.kept for entry in shard.ledger.values()) for shard in shards], dtype=np.int64)
    info = run.stage_info(name)
    return StageRecord(name, num_in, num_kept, tokens, float(info.get("seconds", 0.0)), info.get("cpus"), info.get("engines"))


def _usage(shards: list[SealedShard], ask: str, place: int) -> Counts:
    return np.array([shard.usage.get(ask, (0, 0))[place] for shard in shards], dtype=np.int64)


def _bytes_per_record(run: RunFolder, manifest: Mapping[str, Any]) -> Figure | None:
    """Of the calibration's input files, compressed as they are."""
    files = [SourceFile(**file) for file in manifest.get("settings", {}).get("files", [])]
    keys = [run.manifest / "keys" / f"{file.name}.parquet" for file in files]
    if not files or not all(path.exists() for path in keys):
        return None
    counts = np.array([_num_rows(path) for path in keys], dtype=np.int64)
    if not counts.sum():
        return None
    return ratio(np.array([file.size for file in files], dtype=np.int64), counts)


def _num_rows(path: Path) -> int:
    with opened(path) as file:
        num_rows: int = pq.read_metadata(file).num_rows
    return num_rows


def read_training(run: RunFolder, recipe: Mapping[str, Any]) -> TrainingRecord | None:
    """A run's training; None where it had none."""
    summary, steps = read_summary(run.training / "tokens"), read_metrics(run.training / METRICS)
    if summary is None or not steps or not summary.num_rows or not recipe.get("train"):
        return None
    # The first step compiles and warms up; a run of a single step has no other.
    rates = [step.tokens_per_second for step in (steps[1:] or steps)]
    low, middle, high = (float(value) for value in np.quantile(rates, (0.025, 0.5, 0.975)))
    rate = Figure(middle, low, high, summary.num_rows, 1) if len(rates) > 1 else Figure(middle, num_rows=summary.num_rows, num_shards=1)
    settings = recipe["train"]
    return TrainingRecord(
        summary.num_tokens / summary.num_rows,
        rate,
        summary.num_rows,
        len(steps),
        settings["workers"],
        settings["gpus_per_worker"],
    )


def ratio(totals: Counts, sizes: Counts) -> Figure:
    """Σ totals / Σ sizes with the interval of a sample of shards, each of which is drawn whole (linearised, t with n - 1 degrees)."""
    value, num_shards = float(totals.sum() / sizes.sum()), int((sizes > 0).sum())
    if num_shards < 2:
        return Figure(value, None, None, int(sizes.sum()), num_shards)
    half = _t(num_shards - 1) * _standard_error(value, totals, sizes, num_shards)
    return Figure(value, max(0.0, value - half), value + half, int(sizes.sum()), num_shards)


def share(successes: Counts, trials: Counts) -> Figure:
    """Σ successes / Σ trials with Wilson's interval, for as many trials as the shards' spread leaves of them (Kish's design effect)."""
    num_trials, num_shards = int(trials.sum()), int((trials > 0).sum())
    value = float(successes.sum() / num_trials)
    effective = float(num_trials)
    if num_shards > 1 and 0 < value < 1 and (error := _standard_error(value, successes, trials, num_shards)):
        effective = min(effective, value * (1 - value) / error**2)
    num_effective = max(1, round(effective))
    low, high = proportion_interval(round(value * num_effective), num_effective)
    return Figure(value, min(low, value), max(high, value), num_trials, num_shards)


def _standard_error(value: float, totals: Counts, sizes: Counts, num_shards: int) -> float:
    residuals = totals - value * sizes
    return float(np.sqrt(num_shards / (num_shards - 1) * (residuals @ residuals)) / sizes.sum())


def _t(degrees: int) -> float:
    return float(require("scipy.stats", "eval").t.ppf(0.975, degrees))
