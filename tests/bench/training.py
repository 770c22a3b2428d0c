"""Supervised tokens per second of `xl.train` over those of TRL's SFTTrainer, each in a process of its own, in turn.

Both get the same tokenised documents, weights, threads, learning rate and schedule, make one pass, pack blocks of `MAX_LENGTH` tokens that
are computed one at a time, and learn the responses alone. Neither recomputes activations. What is left to each:

- bf16: ours keeps weights in bf16 and masters in fp32, TRL keeps weights in fp32 and computes under autocast. Both are the default of
  theirs, and both lose no small update. `--precision fp32` compares the same arithmetic.
- Packing: ours packs the `GLOBAL_BATCH` documents of a step, TRL all documents before the first step ("bfd"). So a step of TRL's is a
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
from typing import Any
from unittest import mock

from tests.bench.memory import peak_resident_bytes
from tests.bench.warm import summary
from tests.support import ROOT

MODEL = "packaged/gemma-3-270m"
LANGUAGES = {
    **{"ar": "Arabic", "de": "German", "es": "Spanish", "ga": "Irish"},
    **{"sw": "Swahili", "th": "Thai", "tr": "Turkish", "vi": "Vietnamese"},
}
PAGES_PER_LANGUAGE = 3
GLOBAL_BATCH = 8
MAX_LENGTH = 256
OPENING_CHARACTERS = 300
"""Short enough for several documents to share a block."""
LEARNING_RATE = 2e-5


@dataclass
class Trained:
    """What a training took from the end of its first step, which warms up, to the end of its last."""

    seconds: float
    num_supervised: int
    num_supervised_with_first: int
    mean_loss: float
    """Over all supervised tokens, each before its step's update."""
    peak_bytes: int

    @property
    def tokens_per_second(self) -> float:
        return self.num_supervised / self.seconds


@dataclass
class Clock:
    """Notes each step's end, its supervised tokens and its mean loss."""

    ends: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def result(self) -> Trained:
        assert len(self.ends) == len(self.tokens) > 1
        mean_loss = sum(loss * num for loss, num in zip(self.losses, self.tokens, strict=True)) / sum(self.tokens)
        return Trained(self.ends[-1] - self.ends[0], sum(self.tokens[1:]), sum(self.tokens), mean_loss, peak_resident_bytes(os.getpid()))


def training(num_pairs: int, folder: Path, precision: str = "bf16") -> dict[str, Any]:
    """Our supervised tokens per second over TRL's; the order alternates."""
    write_pairs(folder / "pairs.jsonl")
    ratios: list[float] = []
    trained: list[dict[str, Any]] = []
    for number in range(num_pairs):
        pair: dict[str, Trained] = {}
        for name in ("ours", "trl") if number % 2 else ("trl", "ours"):
            pair[name] = _in_a_process(name, folder, f"{name}-{number}", precision)
        ours, theirs = pair["ours"], pair["trl"]
        assert ours.num_supervised_with_first == theirs.num_supervised_with_first, "the two saw different data"
        ratios.append(ours.tokens_per_second / theirs.tokens_per_second)
        trained.append({name: asdict(result) for name, result in pair.items()})
        print(
            f"training in {precision}, pair {number + 1}: {ratios[-1]:.3f} of TRL; "
            f"peak {ours.peak_bytes / 1e9:.2f} and {theirs.peak_bytes / 1e9:.2f} GB; "
            f"mean loss {ours.mean_loss:.3f} and {theirs.mean_loss:.3f}",
            flush=True,
        )
    return {"precision": precision, "trained": trained, **summary(ratios)}


def write_pairs(path: Path) -> None:
    """Openings of sample pages as responses; the instruction names the subject, which is the end of the page's address."""
    lines = []
    for lang, language in LANGUAGES.items():
        pages = (ROOT / "jobs" / "samples" / "pages" / f"{lang}.jsonl").read_text("utf-8").splitlines()
        for number, page in enumerate(map(json.loads, pages[:PAGES_PER_LANGUAGE])):
            instruction = f"Write a short text about this subject: {page['url'].rpartition('/')[2].replace('-', ' ')}."
            row = {
                "id": f"{lang}-{number}",
                "instruction": instruction,
                "response": page["text"][:OPENING_CHARACTERS],
                "lang": lang,
                "language": language,
                "source": "samples",
            }
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    path.write_text("".join(lines), "utf-8")


def _in_a_process(name: str, folder: Path, out: str, precision: str) -> Trained:
    command = [sys.executable, "-m", "tests.bench.training", name, str(folder), out, precision]
    env = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count()), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return Trained(**json.loads((folder / out / "trained.json").read_text("utf-8")))


def ours(model: str, out: Path, precision: str) -> Trained:
    """Our loop in this process, without its checkpoint and export."""
    from xl.train import loop
    from xl.train.job import Job
    from xl.train.settings import Train
    from xl.train.trainer import choose_device

    settings = Train(
        epochs=1,
        global_batch=GLOBAL_BATCH,
        max_length=MAX_LENGTH,
        learning_rate=LEARNING_RATE,
        precision=precision,  # type: ignore[arg-type]
        cpus_per_worker=os.cpu_count() or 1,
    )
    choose_device(settings)
    clock, step = Clock(), loop._step

    def timed(worker: loop.Worker, number: int) -> Any:
        metrics = step(worker, number)
        clock.ends.append(time.perf_counter())
        clock.tokens.append(metrics.num_supervised_tokens)
        clock.losses.append(metrics.loss)
        return metrics

    loop.join_workers(settings)
    with mock.patch.object(loop, "_step", timed), mock.patch.object(loop.checkpoint, "save"), mock.patch.object(loop, "export"):
        loop.fit(Job(model, MODEL, out, settings))
    return clock.result()


def trl(model: str, out: Path, precision: str) -> Trained:
    """TRL's trainer in this process."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer, pack_dataset

    from xl.train.tokens import open_documents

    torch.set_num_threads(os.cpu_count() or 1)
    documents = open_documents(out / "tokens")
    dataset = Dataset.from_list([_with_labels(documents[number]) for number in range(len(documents))])
    num_blocks = len(pack_dataset(dataset, MAX_LENGTH, "bfd"))
    clock = Clock()

    class Counted(SFTTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
            clock.tokens[-1] += int((inputs["labels"] != -100).sum())
            return super().training_step(model, inputs, num_items_in_batch)

    class Times(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            clock.tokens.append(0)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.ends.append(time.perf_counter())

    config = SFTConfig(
        output_dir=str(out),
        use_cpu=True,
        bf16=precision == "bf16",
        num_train_epochs=1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=math.ceil(num_blocks / (len(documents) / GLOBAL_BATCH)),
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        max_length=MAX_LENGTH,
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
    return clock.result()


def _with_labels(document: Any) -> dict[str, list[int]]:
    learned = set(document.targets(prompt_loss=False))
    ids = document.ids.tolist()
    return {"input_ids": ids, "labels": [token if place in learned else -100 for place, token in enumerate(ids)]}


def tokenise(model: str, dataset: Path, folder: Path) -> None:
    """The documents of either trainer."""
    from transformers import AutoTokenizer

    from xl.train.prompts import give_chat_template
    from xl.train.tokens import read_rows, write_documents

    tokenizer = AutoTokenizer.from_pretrained(model)
    give_chat_template(tokenizer)
    write_documents(read_rows(dataset), tokenizer, MAX_LENGTH, {}, folder)


def main(name: str, folder: Path, out: str, precision: str) -> None:
    """Train in this process and leave `trained.json`."""
    from xl.engines.models import prepare, resolve

    found = resolve(MODEL)
    prepare(found)
    (folder / out).mkdir()
    tokenise(found.path, folder / "pairs.jsonl", folder / out / "tokens")
    train: Callable[[str, Path, str], Trained] = {"ours": ours, "trl": trl}[name]
    result = train(found.path, folder / out, precision)
    (folder / out / "trained.json").write_text(json.dumps(asdict(result)), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4])
