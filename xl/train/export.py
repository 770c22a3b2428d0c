"""The tuned model as Hugging Face folders, whole or not there at all: `model/`, and for LoRA `adapter/` beside the merged `model/`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2
import torch

from xl import storage
from xl.errors import require
from xl.train.job import Job
from xl.train.metrics import read_metrics
from xl.train.prompts import stop_ids, without_thinking
from xl.train.tokens import read_summary
from xl.train.weights import load_tokenizer, load_weights
from xl.train.workers import by_main_worker
from xl.train.zero import gathered_weights

GENERATION = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "no_repeat_ngram_size": 6, "max_new_tokens": 2048}
"""How answers are drawn unless a request says otherwise (X-Instruction's evaluation, METHODS.md §1)."""


def export(engine: Any, job: Job, patient: Any) -> None:
    """Write the model. All workers must call it; the main one writes."""
    weights = gathered_weights(engine, only_trained=job.settings.tune == "lora")
    by_main_worker(patient, lambda: _write(engine.module.model, weights, job))


def _write(tuned: Any, weights: dict[str, torch.Tensor], job: Job) -> None:
    is_lora = job.settings.tune == "lora"
    if is_lora:
        with _folder(job.adapter_folder, job) as folder:
            tuned.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)
            _write_companions(folder, job, is_adapter=True)
    with _folder(job.model_folder, job) as folder:
        model = _merge(job) if is_lora else tuned
        model.generation_config = require("transformers", "train").GenerationConfig()  # the base's may be one that cannot be saved
        # This gives weights that were renamed or merged as they were loaded (experts, GPT-NeoX's output layer) their published names.
        model.save_pretrained(folder, state_dict=None if is_lora else weights)
        _write_companions(folder, job, is_adapter=False)


def _merge(job: Job) -> Any:
    """The base with the adapter added to its weights, in fp32, so that it is rounded once."""
    base = load_weights(job.model, torch.float32, job.revision)
    merged = require("peft", "train").PeftModel.from_pretrained(base, storage.local_copy(job.adapter_folder)).merge_and_unload()
    return merged.to(torch.bfloat16) if job.settings.precision == "bf16" else merged


def _write_companions(folder: Path, job: Job, is_adapter: bool) -> None:
    """Tokenizer with chat template, generation defaults, and the model card."""
    transformers = require("transformers", "train")
    tokenizer = load_tokenizer(job.model, job.revision)
    if isinstance(tokenizer.chat_template, str):
        tokenizer.chat_template = without_thinking(tokenizer.chat_template)
    tokenizer.save_pretrained(folder)
    special = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": stop_ids(tokenizer)}
    transformers.GenerationConfig(**GENERATION, **special).save_pretrained(folder)
    summary = read_summary(job.tokens)
    assert summary is not None, "a model is exported after its data was tokenised"
    template = jinja2.Template((Path(__file__).parent / "card.md.jinja").read_text("utf-8"), undefined=jinja2.StrictUndefined)
    card = template.render(
        name=job.name,
        is_adapter=is_adapter,
        settings=job.settings,
        tokens=summary,
        last=read_metrics(job.metrics)[-1],
        generation=GENERATION,
        licence=job.licence,
    )
    (folder / "README.md").write_text(card, "utf-8")


@contextmanager
def _folder(target: Path, job: Job) -> Iterator[Path]:
    """A folder to write into, put in place when it is whole, and the run is still ours."""
    with storage.replaced(target, "README.md", job.check) as aside:
        yield aside
        for path in aside.iterdir():
            path.chmod(0o644)  # weights are written through a temporary file that its owner alone may read
