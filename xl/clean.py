"""Make a finished run smaller: what its stages kept lives on in the last one."""

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from xl.errors import UserError
from xl.folder import RunFolder, locked
from xl.records import Status
from xl.store import read_table, write_atomically


def clean_run(run: RunFolder) -> int:
    """Take the kept rows out of all stages but the last; returns the bytes freed.

    Dropped and failed rows and the ledgers stay, so that status, trace and report go on working. What an arm shares with its run is left
    to the run.

    Raises:
        UserError: the run is not finished, or somebody is at work on it.
    """
    with locked(run.whole):
        info = run.info
        if unfinished := [each.root for each in (run, *run.arms) if not each.info.get("finished")]:
            raise UserError(f"{unfinished[0]} is not finished; `xl clean` would take what it still needs")
        # It stands there before the first shard is emptied: from then on the run cannot go on, whatever ends this.
        run.write_info({**info, "cleaned": True})
        own = [stage for stage in info["stages"][:-1] if not run.is_shared(f"stages/{stage}")]
        return sum(_empty(path) for stage in own for path in run.store(stage).shards_folder.glob("*.parquet"))


def _empty(path: Path) -> int:
    """Take the kept rows out of a shard; returns the bytes freed."""
    before = path.stat().st_size
    table = read_table(path)
    rest = table.filter(pc.not_equal(table["status"], Status.KEPT.value))
    write_atomically(path, lambda p: pq.write_table(rest, p, compression="zstd"))
    return before - path.stat().st_size
