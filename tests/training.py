"""What the training tests share: a base model, pairs, and a way to train on them in processes of their own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support import ROOT
from tests.tiny_model import tiny_dataset, tiny_model
from xl.train.metrics import read_metrics

SETTINGS: dict[str, Any] = {
    "max_steps": 10,
    "global_batch": 8,
    "max_length": 96,
    "learning_rate": 1e-2,
    "precision": "fp32",
    "zero": 1,
    "save_every": 3,
}

Training = dict[str, Any]


def training(out: str, kill: tuple[int, int] | None = None, **changes: Any) -> Training:
    """A training for `Bench.run`, ten steps in fp32 unless changed."""
    return {"out": out, "settings": {**SETTINGS, **changes}, **({"kill": kill} if kill else {})}


class Bench:
    """A folder with a model, pairs, and trainings."""

    def __init__(self, root: Path) -> None:
        self.root = root
        tiny_model(root / "base")
        tiny_dataset(root / "pairs.jsonl")

    def run(self, *trainings: Training, workers: int = 1, killed: bool = False) -> str:
        """Do the trainings one after another; what was printed. `killed`: the run is expected to die."""
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"] if workers > 1 else []
        command = [sys.executable, *launcher, "-m", "tests.train_worker", str(self.root), json.dumps(trainings)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600, env=env, cwd=ROOT)
        output = done.stdout[-2000:] + done.stderr[-6000:]
        assert (done.returncode == -signal.SIGKILL or "SIGKILL" in output) if killed else done.returncode == 0, output
        return output

    def losses(self, out: str) -> list[float]:
        """Losses by step; the steps must be 1, 2, 3, …"""
        metrics = read_metrics(self.root / out / "metrics.jsonl")
        assert [entry.step for entry in metrics] == list(range(1, len(metrics) + 1))
        return [entry.loss for entry in metrics]
