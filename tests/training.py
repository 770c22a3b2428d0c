"""What the training tests share: a base model, pairs, a way to train on them in processes of their own, and greedy answers."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.support import ROOT
from tests.tiny_model import tiny_dataset, tiny_model
from xl.storage import is_url, place
from xl.train.metrics import read_metrics
from xl.train.tokens import open_documents

NUM_PROMPTS = 20
MAX_NEW_TOKENS = 16
SETTINGS: dict[str, Any] = {
    "max_steps": 10,
    "global_batch": 8,
    "max_length": 96,
    "learning_rate": 1e-2,
    "precision": "fp32",
    "zero": 1,
    "save_every": 3,
}

WORKER_ENV = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
PRELOADED = [
    *("tests.train_worker", "peft", "transformers.generation"),
    *("deepspeed.module_inject", "deepspeed.runtime.zero.muon.original_muon"),
]
"""Importing these takes ten times as long as a tiny training."""

Training = dict[str, Any]


def folder_of(root: Path, out: str) -> Path:
    """Where a training is: its name in the tests' folder, or its URL."""
    return place(out) if is_url(out) else root / out


def training(
    out: str,
    kill: tuple[int, int] | None = None,
    base: str = "base",
    revision: str | None = None,
    answers: bool = False,
    slow: bool = False,
    **changes: Any,
) -> Training:
    """A training for `run_trainings`, ten steps in fp32 unless changed.

    `base` is the folder of the model to begin with, or with a `revision` its hub id. With `answers` the trained model's own greedy answers
    go to `answers.json`; the export of a `slow` one takes longer than workers wait for each other.
    """
    how = {"base": base, "revision": revision, "answers": answers, "slow": slow, **({"kill": kill} if kill else {})}
    return {"out": out, **how, "settings": {**SETTINGS, **changes}}


def run_trainings(root: Path, *trainings: Training, workers: int = 1, killed: bool = False) -> None:
    """Train one after another on `root/pairs.jsonl`. `killed`: the run is expected to die. The hub is `root/hub`."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"] if workers > 1 else []
    command = [sys.executable, *launcher, "-m", "tests.train_worker", str(root), json.dumps(trainings)]
    env = {**os.environ, **WORKER_ENV, "HF_HUB_CACHE": str(root / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600, env=env, cwd=ROOT)
    output = done.stdout[-2000:] + done.stderr[-6000:]
    assert (done.returncode == -signal.SIGKILL or "SIGKILL" in output) if killed else done.returncode == 0, output


def fork_trainings(root: Path, *trainings: Training, workers: int = 1, killed: bool = False) -> None:
    """`run_trainings` in forks of a process that has imported what they need; without a hub, and on CPU alone.

    That process may be older than the object store that is asked now.
    """
    from torch.distributed.elastic.utils.distributed import get_free_port
    from torch.multiprocessing import ProcessExitedException, start_processes

    multiprocessing.set_forkserver_preload(PRELOADED)
    store = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "XL_CACHE"))}
    arguments = (workers, get_free_port(), root, trainings, store)
    with mock.patch.dict(os.environ, WORKER_ENV), pytest.raises(ProcessExitedException, match="SIGKILL") if killed else nullcontext():
        start_processes(worker, arguments, workers, start_method="forkserver")


def worker(rank: int, num_workers: int, port: int, root: Path, trainings: tuple[Training, ...], store: dict[str, str]) -> None:
    """One worker, with the environment that torchrun would give it."""
    from tests.train_worker import main

    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_workers, "LOCAL_WORLD_SIZE": num_workers, "MASTER_PORT": port}
    os.environ |= {**store, "MASTER_ADDR": "127.0.0.1", **{key: str(value) for key, value in where.items()}}
    main(root, list(trainings))


def prompts_of(tokens: Path) -> list[list[int]]:
    """The first prompts that were trained on, as token ids."""
    data = open_documents(tokens)
    return [data[number].ids[: data[number].num_prompt].tolist() for number in range(NUM_PROMPTS)]


def greedy(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """Each prompt and its greedy answer, as token ids; an answer ends behind its first stop token."""
    import torch

    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    settings = {"do_sample": False, "no_repeat_ngram_size": 0, "max_new_tokens": MAX_NEW_TOKENS}
    drawn = model.generate(ids, attention_mask=mask, **settings)[:, width:].tolist()
    stops = torch.tensor(model.generation_config.eos_token_id).flatten().tolist()
    ends = [next((place + 1 for place, token in enumerate(answer) if token in stops), len(answer)) for answer in drawn]
    return [prompt + answer[:end] for prompt, answer, end in zip(prompts, drawn, ends, strict=True)]


class Bench:
    """A folder with a model, pairs, and trainings."""

    def __init__(self, root: Path) -> None:
        self.root = root
        tiny_model(root / "base")
        tiny_dataset(root / "pairs.jsonl")

    def run(self, *trainings: Training, workers: int = 1, killed: bool = False) -> None:
        """`run_trainings` in this folder."""
        run_trainings(self.root, *trainings, workers=workers, killed=killed)

    def fork(self, *trainings: Training, workers: int = 1, killed: bool = False) -> None:
        """`fork_trainings` in this folder."""
        fork_trainings(self.root, *trainings, workers=workers, killed=killed)

    def losses(self, out: str) -> list[float]:
        """Losses by step; the steps must be 1, 2, 3, …"""
        metrics = read_metrics(folder_of(self.root, out) / "metrics.jsonl")
        assert [entry.step for entry in metrics] == list(range(1, len(metrics) + 1))
        return [entry.loss for entry in metrics]
