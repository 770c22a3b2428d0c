"""Supervised tokens per second of `xl.train` over those of TRL's SFTTrainer, each in a process of its own, in turn.

Both get the same tokenised documents, weights, threads, learning rate and schedule, pack blocks of `max_length` tokens that are computed
one at a time, and learn the responses alone. Neither recomputes activations. With `--device cuda` whole sample pages are learned, on one
GPU. What is left to each:

- bf16: ours keeps weights in bf16 and masters in fp32, TRL keeps weights in fp32 and computes under autocast. Both are the default of
  theirs, and both lose no small update. `--precision fp32` compares the same arithmetic.
- Packing: ours packs the `global_batch` documents of a step, TRL all documents before the first step ("bfd"). So a step of TRL's is a
  number of blocks: the least that makes no more steps than ours. Without flash attention it still parts documents, by positions, as we do.
- The optimizer: each one's own AdamW.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from tests.bench.memory import peak_resident_bytes
from tests.bench.warm import summary
from tests.support import ROOT

LANGUAGES = {
    **{"ar": "Arabic", "de": "German", "es": "Spanish", "ga": "Irish"},
    **{"sw": "Swahili", "th": "Thai", "tr": "Turkish", "vi": "Vietnamese"},
}
LEARNING_RATE = 2e-5


@dataclass(frozen=True)
class Size:
    """How much is trained; documents must be short enough for several to share a block."""

    pages_per_language: int
    characters_per_page: int | None
    epochs: int
    global_batch: int
    max_length: int


SIZES = {"cpu": Size(3, 300, 1, 8, 256), "cuda": Size(44, None, 3, 32, 2048)}


@dataclass(frozen=True)
class Setting:
    """What both trainers are given."""

    model: str
    device: str
    precision: Literal["bf16", "fp32"]

    @property
    def size(self) -> Size:
        return SIZES[self.device]


@dataclass
class Trained:
    """What a training took from the end of its first step, which warms up, to the end of its last."""

    seconds: float
    num_supervised: int
    num_supervised_with_first: int
    mean_loss: float
    """Over all supervised tokens, each before its step's update."""
    peak_bytes: int
    """Of the process's memory, or of the GPU's where that is the device."""

    @property
    def tokens_per_second(self) -> float:
        return self.num_supervised / self.seconds


@dataclass
class Clock:
    """Notes each step's end, its supervised tokens and its mean loss."""

    ends: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def tick(self) -> None:
        """A step has ended, on the GPU too."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def result(self, device: str) -> Trained:
        import torch

        assert len(self.ends) == len(self.tokens) > 1
        mean_loss = sum(loss * num for loss, num in zip(self.losses, self.tokens, strict=True)) / sum(self.tokens)
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else peak_resident_bytes(os.getpid())
        return Trained(self.ends[-1] - self.ends[0], sum(self.tokens[1:]), sum(self.tokens), mean_loss, peak)


def training(num_pairs: int, folder: Path, setting: Setting) -> dict[str, Any]:
    """Our supervised tokens per second over TRL's; the order alternates."""
    write_pairs(folder / "pairs.jsonl", setting.size)
    ratios: list[float] = []
    trained: list[dict[str, Any]] = []
    for number in range(num_pairs):
        pair: dict[str, Trained] = {}
        for name in ("ours", "trl") if number % 2 else ("trl", "ours"):
            pair[name] = _in_a_process(name, folder, f"{name}-{number}", setting)
        ours, theirs = pair["ours"], pair["trl"]
        assert ours.num_supervised_with_first == theirs.num_supervised_with_first, "the two saw different data"
        ratios.append(ours.tokens_per_second / theirs.tokens_per_second)
        trained.append({name: asdict(result) for name, result in pair.items()})
        print(
            f"training in {setting.precision} on {setting.device}, pair {number + 1}: {ratios[-1]:.3f} of TRL; "
            f"{ours.tokens_per_second:,.0f} and {theirs.tokens_per_second:,.0f} supervised tokens/s; "
            f"peak {ours.peak_bytes / 1e9:.2f} and {theirs.peak_bytes / 1e9:.2f} GB; "
            f"mean loss {ours.mean_loss:.3f} and {theirs.mean_loss:.3f}",
            flush=True,
        )
    return {**asdict(setting), "trained": trained, **summary(ratios)}


def write_pairs(path: Path, size: Size) -> None:
    """Sample pages, or their openings, as responses; the instruction names the subject, which is the end of the page's address."""
    lines = []
    for lang, language in LANGUAGES.items():
        pages = (ROOT / "jobs" / "samples" / "pages" / f"{lang}.jsonl").read_text("utf-8").splitlines()
        for number, page in enumerate(map(json.loads, pages[: size.pages_per_language])):
            instruction = f"Write a short text about this subject: {page['url'].rpartition('/')[2].replace('-', ' ')}."
            row = {
                "id": f"{lang}-{number}",
                "instruction": instruction,
                "response": page["text"][: size.characters_per_page],
                "lang": lang,
                "language": language,
                "source": "samples",
            }
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    path.write_text("".join(lines), "utf-8")


def _in_a_process(name: str, folder: Path, out: str, setting: Setting) -> Trained:
    command = [sys.executable, "-m", "tests.bench.training", name, str(folder), out, json.dumps(asdict(setting))]
    env = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count()), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return Trained(**json.loads((folder / out / "trained.json").read_text("utf-8")))


def ours(model: str, out: Path, setting: Setting) -> Trained:
    """Our loop in this process, without its checkpoint and export."""
    from xl.train import checkpoint, loop
    from xl.train.job import Job
    from xl.train.settings import Train
    from xl.train.trainer import choose_device
    from xl.train.workers import join_workers

    settings = Train(
        epochs=setting.size.epochs,
        global_batch=setting.size.global_batch,
        max_length=setting.size.max_length,
        learning_rate=LEARNING_RATE,
        precision=setting.precision,
        gpus_per_worker=1 if setting.device == "cuda" else 0,
        cpus_per_worker=os.cpu_count() or 1,
    )
    choose_device(settings)
    clock, step = Clock(), loop._step

    def timed(worker: loop.Worker, number: int) -> Any:
        metrics = step(worker, number)
        clock.tick()
        clock.tokens.append(metrics.num_supervised_tokens)
        clock.losses.append(metrics.loss)
        return metrics

    join_workers(settings)
    with mock.patch.object(loop, "_step", timed), mock.patch.object(checkpoint, "save"), mock.patch.object(loop, "export"):
        loop.fit(Job(model, setting.model, out, settings))
    return clock.result(setting.device)


def trl(model: str, out: Path, setting: Setting) -> Trained:
    """TRL's trainer in this process."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer, pack_dataset

    from xl.train.tokens import open_documents

    torch.set_num_threads(os.cpu_count() or 1)
    documents = open_documents(out / "tokens")
    dataset = Dataset.from_list([_with_labels(documents[number]) for number in range(len(documents))])
    size = setting.size
    num_blocks = len(pack_dataset(dataset, size.max_length, "bfd"))
    clock = Clock()

    class Counted(SFTTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
            clock.tokens[-1] += int((inputs["labels"] != -100).sum())
            return super().training_step(model, inputs, num_items_in_batch)

    class Times(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            clock.tokens.append(0)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    config = SFTConfig(
        output_dir=str(out),
        use_cpu=setting.device == "cpu",
        bf16=setting.precision == "bf16",
        num_train_epochs=size.epochs,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=math.ceil(num_blocks / (len(documents) / size.global_batch)),
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        max_length=size.max_length,
        packing=True,
        packing_strategy="bfd",
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer = Counted(model, config, train_dataset=dataset, processing_class=tokenizer, callbacks=[Times()])
    trainer.train()
    clock.losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return clock.result(setting.device)


def _with_labels(document: Any) -> dict[str, list[int]]:
    learned = set(document.targets(prompt_loss=False))
    ids = document.ids.tolist()
    return {"input_ids": ids, "labels": [token if place in learned else -100 for place, token in enumerate(ids)]}


def tokenise(model: str, dataset: Path, max_length: int, folder: Path) -> None:
    """The documents of either trainer."""
    from transformers import AutoTokenizer

    from xl.train.prompts import give_chat_template
    from xl.train.tokens import read_rows, write_documents

    tokenizer = AutoTokenizer.from_pretrained(model)
    give_chat_template(tokenizer)
    write_documents(read_rows(dataset), tokenizer, max_length, {}, folder)


def main(name: str, folder: Path, out: str, setting: Setting) -> None:
    """Train in this process and leave `trained.json`."""
    from xl.engines.models import prepare, resolve

    found = resolve(setting.model)
    prepare(found)
    (folder / out).mkdir()
    tokenise(found.path, folder / "pairs.jsonl", setting.size.max_length, folder / out / "tokens")
    train: Callable[[str, Path, Setting], Trained] = {"ours": ours, "trl": trl}[name]
    result = train(found.path, folder / out, setting)
    (folder / out / "trained.json").write_text(json.dumps(asdict(result)), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], Setting(**json.loads(sys.argv[4])))
