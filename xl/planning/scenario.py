"""What is simulated: rows in passes, nodes in groups, what everything takes, and what goes wrong.

Everything that a run pays beside its rows' own work is an input here, with a default that says how it was come by: measured by
`python -m xl.planning.scale` on a machine of two cores with a local disk, or assumed. `xl plan --timings FILE` sets others.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field

from xl.engines.fleet import MIN_PARCEL_ROWS
from xl.errors import UserError
from xl.execute import CPU_PARCEL_ROWS
from xl.pages.manifest import _BUCKET_ROWS
from xl.planning.cluster import NodeGroup
from xl.recipe import checked, read_yaml
from xl.settings import Strict

PAGES_PER_FILE = 100_000
"""Of an input that is larger than the files that are there."""


class Timings(Strict):
    """Seconds that a run takes for other things than a row's own work."""

    driver_seconds_per_dispatch: float = Field(0.004, ge=0)
    """The driver hands a parcel to a worker: half of what it computes for one, as `python -m tests.bench scaling` measures it."""
    driver_seconds_per_ack: float = Field(0.004, ge=0)
    """The driver takes the word that a parcel is committed: the other half. Both together are what saturates a driver."""
    run_start_seconds: float = Field(10.0, ge=0)
    """The command loads its code and joins the cluster, and the processes of its first tasks start. Assumed."""
    execution_start_seconds: float = Field(2.0, ge=0)
    """Ray Data plans an execution and starts its tasks. Assumed."""
    worker_start_cpu_seconds: float = Field(1.5, ge=0)
    """CPU seconds to start the process of a worker that asks engines, which every execution does anew, on the nodes for pages. Assumed."""
    engine_start_seconds: float = Field(120.0, ge=0)
    """An engine loads its model. Assumed for a 27B model; vLLM on CPU takes 35 to 60 s (PLATFORM.md)."""
    node_boot_seconds: float = Field(240.0, ge=0)
    """From the autoscaler's wish to a node that Ray counts, also for the replacement of a lost one. Assumed."""
    index_seconds_per_row: float = Field(75e-6, ge=0)
    """CPU seconds of the manifest's look at a page and of its plan. Measured without reading the file."""
    repeated_seconds_per_row: float = Field(0.4e-6, ge=0)
    """The manifest's search for repeated keys: one task, whatever the cluster. Measured."""
    bucket_seconds_per_row: float = Field(0.11e-6, ge=0)
    """That task reads all keys once for every bucket of 20 million: of a key, each time. Measured."""
    read_seconds_per_row: float = Field(20e-6, ge=0)
    """CPU seconds to read a row for a pass. Measured."""
    commit_seconds_per_parcel: float = Field(0.01, ge=0)
    """A worker unpacks a parcel, and logs it when it is walked. Measured on a local disk."""
    seal_seconds_per_row: float = Field(120e-6, ge=0)
    """CPU seconds to seal a row, for each stage of its pass. Measured."""
    survey_ratio: float = Field(0.01, ge=0)
    """CPU seconds that a whole stage's survey, one task, takes for a row over those of deciding about it. Measured for duplicates."""
    footer_seconds: float = Field(0.0002, ge=0)
    """The driver reads a sealed shard's footer. Measured on a local disk; of shared storage, which answers in 1 to 20 ms (assumed), a
    16th of that: so many are under way (`xl.store.READS_AT_ONCE`)."""
    missing_seconds: float = Field(5e-6, ge=0)
    """The driver finds that a shard is not sealed yet. As with footers."""
    idle_seconds: float | None = Field(240.0, ge=0)
    """How long engine nodes wait without rows before they are given back: two minutes until the run lets an engine go
    (its `idle_seconds`), and as many until the autoscaler lets the node go. None: until the run ends."""
    row_seconds_cv: float = Field(0.0, ge=0)
    """Coefficient of variation of a parcel's time in an engine; 0: all take the same."""
    machine_cores: int | None = Field(None, gt=0)
    """Cores that all nodes share, where they are simulated on one machine: reading, committing, sealing and the driver take turns."""


class Faults(Strict):
    """What goes wrong with nodes. The head and single engines are not lost here."""

    losses_per_node_hour: float = Field(0.0, ge=0)
    """Of every worker node, without notice."""
    preemptions_per_node_hour: float = Field(0.0, ge=0)
    """Of spot nodes."""
    preemption_times: tuple[float, ...] = ()
    """Seconds from the start; each takes one spot node, drawn by the seed."""
    notice_seconds: float = Field(30.0, ge=0)
    """How long before it goes a preempted node is told; 0: not at all."""


@dataclass(frozen=True)
class PassWork:
    """Rows that walk one pass."""

    name: str
    kind: Literal["input", "pages", "engines", "whole"]
    """Who works, and how: the manifest's look at the input, rows on CPUs, rows in engines, or all rows at once on CPUs."""
    num_rows: int
    num_shards: int
    """Of `input`: files."""
    row_seconds: float
    """CPU seconds of a row; in an engine, the seconds that a row takes while the engine has room for it."""
    num_stages: int = 1
    """Stages that are sealed together: files of one shard."""
    num_parallel_rows: int = 1
    """Rows that an engine works on at once."""
    num_calls: int = 1
    """Parcels of rows that an engine has at once; what is beyond `num_parallel_rows` waits there for room."""
    engine_parcel_rows: int = MIN_PARCEL_ROWS
    """Rows of such a parcel."""
    replicas: tuple[int, int] = (1, 1)
    """Fewest and most engines."""
    engine_cpus: float = 0.0
    engine_gpus: float = 0.0
    engine_key: str = "engine"
    """Names the model; another one's engines start anew."""
    groups: tuple[str, ...] = ()
    """Node groups where its engines may be."""
    num_files: int = 0
    """Input files, where the rows come straight from them."""
    survey_seconds_per_row: float | None = None
    """What one task takes for a row before all others may begin; by default `row_seconds` times `Timings.survey_ratio`."""

    @property
    def parcel_rows(self) -> int:
        """Rows that travel together."""
        return self.engine_parcel_rows if self.kind == "engines" else CPU_PARCEL_ROWS

    @property
    def num_files_written(self) -> int:
        """Sealed shards of all stages of the pass."""
        return 0 if self.kind == "input" else self.num_shards * self.num_stages


@dataclass(frozen=True)
class Scenario:
    """A run to simulate."""

    passes: tuple[PassWork, ...]
    groups: tuple[NodeGroup, ...]
    timings: Timings = field(default_factory=Timings)
    faults: Faults = field(default_factory=Faults)
    seed: int = 0


def repeated_seconds_per_row(num_pages: int, timings: Timings) -> float:
    """What the one task that looks for repeated keys takes for a page, of so many in all."""
    return timings.repeated_seconds_per_row + timings.bucket_seconds_per_row * (1 + num_pages // _BUCKET_ROWS)


def read_timings(path: Path | None) -> Timings:
    """Timings from a YAML file, or the defaults. Raises UserError."""
    if path is None:
        return Timings()
    data = read_yaml(path, "file of timings")
    if not isinstance(data, dict):
        raise UserError(f"{path}: timings are a mapping of keys to seconds, not {type(data).__name__}")
    return checked(Timings, data, str(path))


def read_trace(path: Path) -> tuple[float, ...]:
    """Preemptions from a text file: a line for each time, in seconds from the start, and how many nodes go (by default one).

    Raises:
        UserError: names the line that is neither empty, nor a comment (`#`), nor such numbers.
    """
    times: list[float] = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--preemptions: {path} is neither a rate nor a file that can be read: {error}") from None
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            seconds, count = float(words[0]), int(words[1]) if len(words) > 1 else 1
            if len(words) > 2 or not 0 <= seconds < float("inf") or count < 1:
                raise ValueError
        except ValueError:
            raise UserError(f"{path}: line {number}: {line.strip()!r} is not `SECONDS` or `SECONDS NODES`") from None
        times += [seconds] * count
    return tuple(sorted(times))
